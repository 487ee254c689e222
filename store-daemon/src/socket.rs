//! The socket's path: which one, whether it can be used, and who may replace what lies there.
//!
//! An flock on `SOCKET.lock`, held for life, decides between two daemons; its holder alone replaces a stale socket.
//!
//! `startup::prepare` calls [`SocketPath::resolve`] and [`SocketPath::claim`] before it makes the regions, and listens
//! on the path when the store is ready.

use crate::session::SessionId;
use interprocess::{
    local_socket::{GenericFilePath, Listener, ListenerNonblockingMode, ListenerOptions, ToFsName},
    os::unix::local_socket::ListenerOptionsExt,
};
use nix::{
    fcntl::{Flock, FlockArg, OFlag},
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
};
use plasmon_shm::{Backend, ShortPath};
use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Why a path cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The path is too long, and cannot be shortened.
    #[error("{0}, with --socket or $PLASMON_SOCKET")]
    Long(plasmon_shm::Error),
    /// A directory lies there.
    #[error("the socket path {} is a directory; name a file in it, such as {}", .path.display(), .path.join("store.sock").display())]
    Directory {
        /// The path.
        path: PathBuf,
    },
    /// Something else than a socket lies there.
    #[error("{} exists and is not a socket; remove it, or choose another --socket", .path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// What decides between two stores must be a file, for anything else could hold up whoever opens it.
    #[error(
        "{} is {what}, and must be a file that this store can lock; remove it, or choose another --socket",
        .path.display()
    )]
    NotALock {
        /// The lock's path.
        path: PathBuf,
        /// What lies there.
        what: &'static str,
    },
    /// Somebody else made the lock, and does not let this user take it.
    #[error(
        "{} is of uid {owner}, and this user cannot lock it: {cause}; remove it, or choose another --socket",
        .path.display()
    )]
    ForeignLock {
        /// The lock's path.
        path: PathBuf,
        /// Who made it.
        owner: u32,
        /// Why it cannot be locked.
        cause: io::Error,
    },
    /// Another store is alive there.
    #[error("another store serves {}; stop it, or choose another --socket", .path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// The default directory belongs to somebody else.
    #[error("{} belongs to uid {owner}, not to this user; choose a --socket elsewhere", .path.display())]
    ForeignDirectory {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The directory of a path that was asked for is not there.
    #[error("the directory {0} is not there; make it with: mkdir -p {0}, or choose another --socket", .path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot serve {}: {source}; choose a --socket that this user can make", .path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A socket path that this process alone may serve. Dropping it removes socket and lock.
#[derive(Debug)]
pub(crate) struct SocketPath {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: Flock<File>,
    listening: std::cell::Cell<bool>,
    /// Whether the directory was made for this socket alone, and goes with it.
    remove_directory: std::cell::Cell<bool>,
}

impl SocketPath {
    /// The path that `asked`, or the default, comes to. Makes no file, and looks at its directory.
    pub(crate) fn resolve(asked: Option<&Path>) -> Result<PathBuf, SocketError> {
        let path = match asked {
            Some(path) => path.to_owned(),
            None => default_socket()?,
        };
        if path.is_dir() {
            return Err(SocketError::Directory { path });
        }
        Ok(path)
    }

    /// Takes the [resolved](Self::resolve) path for this process. The directory of a default path is made if it is not
    /// there.
    ///
    /// # Errors
    /// [`SocketError`]; nothing has changed.
    pub(crate) fn claim(path: PathBuf, is_default: bool) -> Result<Self, SocketError> {
        let io_error = |source| SocketError::Io { path: path.clone(), source };
        if is_default && let Some(directory) = path.parent() {
            make_private(directory)?;
        }
        if let Some(directory) = path.parent()
            && !directory.as_os_str().is_empty()
            && fs::metadata(directory).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        {
            return Err(SocketError::NoDirectory { path: directory.to_owned() });
        }
        short(&path)?; // a path that cannot be bound is no reason to make a lock
        let lock_path = PathBuf::from(format!("{}.lock", path.display()));
        let lock = loop {
            let file = open_lock(&lock_path)?;
            let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((_, nix::Error::EWOULDBLOCK)) => return Err(SocketError::InUse { path }),
                Err((_, error)) => return Err(io_error(error.into())),
            };
            // The holder before removed the file on leaving: what we hold is then a lock on nothing.
            let ours = lock.metadata().map_err(io_error)?;
            if fs::symlink_metadata(&lock_path)
                .is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()))
            {
                break lock;
            }
        };
        let claimed = SocketPath {
            path,
            lock_path,
            _lock: lock,
            listening: std::cell::Cell::new(false),
            remove_directory: std::cell::Cell::new(false),
        };
        claimed.remove_stale()?;
        Ok(claimed)
    }

    /// The path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// When the path is given up its directory goes too, if nothing else is in it.
    pub(crate) fn remove_directory_too(&self) {
        self.remove_directory.set(true);
    }

    /// Starts to listen, with mode 0600, or 0666 where other uids are admitted by their credentials.
    pub(crate) fn listen(&self, other_uids: bool) -> Result<Listener, SocketError> {
        let io_error = |source| SocketError::Io { path: self.path.clone(), source };
        let mode = if other_uids { 0o666 } else { 0o600 };
        let short = short(&self.path)?;
        let name = short.path().to_fs_name::<GenericFilePath>().map_err(io_error)?;
        let listener = ListenerOptions::new()
            .name(name)
            .mode(mode)
            .nonblocking(ListenerNonblockingMode::Both)
            .reclaim_name(false)
            .create_sync()
            .map_err(io_error)?;
        self.listening.set(true);
        // The mode asked for passes through the umask; the file's own mode is what counts.
        fs::set_permissions(&self.path, fs::Permissions::from_mode(mode)).map_err(io_error)?;
        Ok(listener)
    }

    /// How the regions of the store on this path are called.
    pub(crate) fn labels(&self, backend: Backend) -> Labels {
        let prefix = match backend {
            Backend::Memfd => "plasmon".to_owned(),
            Backend::Named => {
                let path = fs::canonicalize(&self.lock_path).unwrap_or_else(|_| self.lock_path.clone());
                // A hash that stays the same whatever the program was built with.
                let hash = blake3::hash(path.as_os_str().as_encoded_bytes());
                format!("p{}", &hash.to_hex()[..8])
            }
        };
        Labels { prefix }
    }

    fn remove_stale(&self) -> Result<(), SocketError> {
        let path = self.path.clone();
        match fs::symlink_metadata(&self.path) {
            Ok(there) if there.file_type().is_socket() => {
                // The lock is ours, so no daemon of ours is alive here; a program that takes no lock may be.
                if somebody_listens(short(&self.path)?.path()) {
                    return Err(SocketError::InUse { path });
                }
                fs::remove_file(&self.path).map_err(|source| SocketError::Io { path, source })
            }
            Ok(_) => Err(SocketError::NotASocket { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(SocketError::Io { path, source }),
        }
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        if self.listening.get() {
            let _ = fs::remove_file(&self.path);
        }
        // While the lock is held: whoever opens the file now finds, after locking it, that it is no longer there.
        let _ = fs::remove_file(&self.lock_path);
        if self.remove_directory.get()
            && let Some(directory) = self.path.parent()
        {
            let _ = fs::remove_dir(directory); // it stays if somebody put something there
        }
    }
}

fn short(path: &Path) -> Result<ShortPath, SocketError> {
    ShortPath::of(path).map_err(|error| match error {
        plasmon_shm::Error::System { cause, .. } => SocketError::Io { path: path.to_owned(), source: cause },
        error => SocketError::Long(error),
    })
}

/// Opens the lock, or makes it. Where others may make files too, anything may lie in its place: nothing that is opened
/// here waits, nothing is followed, and nothing is written.
fn open_lock(path: &Path) -> Result<File, SocketError> {
    let mut options = fs::OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits());
    let refused = match options.open(path) {
        Ok(file) => match file.metadata() {
            Ok(there) if there.is_file() => return Ok(file),
            Ok(there) => return Err(not_a_lock(path, there.file_type())),
            Err(error) => error,
        },
        Err(error) => error,
    };
    match fs::symlink_metadata(path) {
        Ok(there) if !there.is_file() => Err(not_a_lock(path, there.file_type())),
        Ok(there) => {
            Err(SocketError::ForeignLock { path: path.to_owned(), owner: there.uid(), cause: refused })
        }
        Err(_) => Err(SocketError::Io { path: path.to_owned(), source: refused }),
    }
}

fn not_a_lock(path: &Path, kind: fs::FileType) -> SocketError {
    let what = match kind {
        kind if kind.is_symlink() => "a symbolic link",
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    SocketError::NotALock { path: path.to_owned(), what }
}

/// Whether a program listens on the socket. Does not wait: one whose queue is full has not hung up.
fn somebody_listens(path: &Path) -> bool {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let Ok(stream) = socket(AddressFamily::Unix, SockType::Stream, flags, None) else { return false };
    let connected = UnixAddr::new(path).and_then(|address| connect(stream.as_raw_fd(), &address));
    matches!(connected, Ok(()) | Err(nix::Error::EAGAIN))
}

/// What regions are called: readable for people where they are memfds; where they are named segments unique to the
/// socket's path, so that the next daemon on that path finds what a killed one left. The whole name of a segment
/// must fit 31 bytes, the shortest limit of any system, so labels have at most 21.
#[derive(Clone, Debug)]
pub(crate) struct Labels {
    prefix: String,
}

#[cfg(test)]
impl Default for Labels {
    fn default() -> Self {
        Labels { prefix: "plasmon-test".to_owned() }
    }
}

impl Labels {
    /// The label of the store's index or arena.
    pub(crate) fn region(&self, what: &str) -> String {
        format!("{}-{what}", self.prefix)
    }

    /// The label of region `number` of a session. Of long numbers the last digits: a label is for people, and the name
    /// of a segment has a random part besides.
    pub(crate) fn session(&self, session: SessionId, number: usize) -> String {
        format!("{}-s{}-{}", self.prefix, session.0 % 1_000_000, number % 1_000)
    }

    /// Removes named segments that a killed daemon of this path left behind. The path must be claimed.
    pub(crate) fn remove_leftover_segments(&self) {
        let Ok(entries) = fs::read_dir("/dev/shm") else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let ours = name.to_str().filter(|name| name.starts_with(&format!("{}-", self.prefix)));
            if let Some(Err(error)) = ours.map(|name| plasmon_shm::remove_named(&format!("/{name}"))) {
                tracing::warn!(%error, "a segment of a killed store stays behind");
            }
        }
    }
}

/// The first of the places where clients look whose directory this user has, or may make: the last of them is in /tmp.
fn default_socket() -> Result<PathBuf, SocketError> {
    let uid = nix::unistd::getuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut places = plasmon_shm::default_sockets(runtime.as_deref(), uid);
    let is_ours = |directory: &Path| fs::metadata(directory).is_ok_and(|meta| meta.uid() == uid);
    let usable = places.iter().position(|path| path.ancestors().nth(2).is_some_and(is_ours));
    let path = places.swap_remove(usable.unwrap_or(places.len() - 1));
    match path.parent().map(fs::symlink_metadata) {
        Some(Ok(meta)) if meta.uid() != uid => {
            let directory = path.parent().unwrap_or(&path).to_owned();
            Err(SocketError::ForeignDirectory { path: directory, owner: meta.uid() })
        }
        _ => Ok(path),
    }
}

/// Makes the default directory, for this user alone, and looks at what is there then: anybody can make one in /tmp.
fn make_private(directory: &Path) -> Result<(), SocketError> {
    let io_error = |source| SocketError::Io { path: directory.to_owned(), source };
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io_error(error)),
        _ => {}
    }
    let there = fs::symlink_metadata(directory).map_err(io_error)?;
    if !there.is_dir() || there.uid() != nix::unistd::getuid().as_raw() {
        return Err(SocketError::ForeignDirectory { path: directory.to_owned(), owner: there.uid() });
    }
    if there.mode() & 0o077 != 0 {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(io_error)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use plasmon_shm::{Kernel, Region};

    #[test]
    fn regions_of_the_longest_numbers_have_labels_that_fit() {
        let directory = tempfile::tempdir().unwrap();
        let path = SocketPath::claim(directory.path().join("store"), false).unwrap();
        for backend in [Backend::Memfd, Backend::Named] {
            let labels = path.labels(backend);
            for label in [labels.session(SessionId(u64::MAX), usize::MAX), labels.region("arena")] {
                Region::create(&label, 4_096, backend, &Kernel::detect()).unwrap();
            }
        }
    }
}

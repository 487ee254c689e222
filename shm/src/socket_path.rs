//! Paths of Unix sockets: where stores listen unless told otherwise, and those that are longer than the kernel takes.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::error::{Error, refused};

/// Longest path that a socket's address holds, in bytes: its 108, less the zero at the end.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The path of a socket in a form that is short enough for `bind` and `connect`, whatever its length.
///
/// A long path is shortened by opening its directory: `/proc/self/fd/N/NAME` leads to the same file. The short form
/// holds for this process, and for as long as this value is there.
///
/// ```
/// use plasmon_shm::ShortPath;
/// use std::os::unix::net::{UnixListener, UnixStream};
///
/// let directory = tempfile::tempdir()?;
/// let deep = directory.path().join("x".repeat(120));
/// std::fs::create_dir(&deep)?;
/// let socket = deep.join("store.sock");
/// assert!(UnixListener::bind(&socket).is_err());
///
/// let short = ShortPath::of(&socket)?;
/// let _listener = UnixListener::bind(short.path())?;
/// assert!(socket.exists());
/// UnixStream::connect(ShortPath::of(&socket)?.path())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ShortPath {
    path: PathBuf,
    _directory: Option<OwnedFd>,
}

impl ShortPath {
    /// Shortens `path` if it is too long; else takes it as it is, and touches nothing.
    ///
    /// # Errors
    /// [`Error::SocketPath`] if its last part alone is too long, or there is no `/proc`; [`Error::System`] if its
    /// directory cannot be opened.
    pub fn of(path: &Path) -> Result<Self, Error> {
        let len_bytes = path.as_os_str().len();
        if len_bytes <= SOCKET_PATH_BYTES_MAX {
            return Ok(Self { path: path.to_owned(), _directory: None });
        }
        let too_long = || Error::SocketPath { path: path.to_owned(), len_bytes };
        let name = path.file_name().ok_or_else(too_long)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(parent, flags, Mode::empty())
            .map_err(refused("opening a directory", || parent.display().to_string()))?;
        let here = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        let short = here.join(name);
        if short.as_os_str().len() > SOCKET_PATH_BYTES_MAX || !here.exists() {
            return Err(too_long());
        }
        Ok(Self { path: short, _directory: Some(directory) })
    }

    /// The path to bind or to connect to.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Where a store of user `uid` listens, and is looked for, unless told otherwise, in turn: `plasmon/store.sock` in
/// `runtime_dir` (`$XDG_RUNTIME_DIR`, where that is set) and in `/run/user/UID`, and `/tmp/plasmon-UID/store.sock`.
///
/// ```
/// use std::path::Path;
///
/// let places = plasmon_shm::default_sockets(Some(Path::new("/run/x")), 7);
/// assert_eq!(places[0], Path::new("/run/x/plasmon/store.sock"));
/// assert_eq!(places[1], Path::new("/run/user/7/plasmon/store.sock"));
/// assert_eq!(places[2], Path::new("/tmp/plasmon-7/store.sock"));
/// ```
#[must_use]
pub fn default_sockets(runtime_dir: Option<&Path>, uid: u32) -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = runtime_dir.iter().map(|dir| dir.join("plasmon")).collect();
    directories.push(PathBuf::from(format!("/run/user/{uid}/plasmon")));
    directories.push(PathBuf::from(format!("/tmp/plasmon-{uid}")));
    directories.dedup();
    directories.into_iter().map(|directory| directory.join("store.sock")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_part_that_is_too_long_is_refused_with_both_numbers() {
        let refusal = ShortPath::of(&Path::new("/tmp").join("x".repeat(120))).unwrap_err();
        assert!(matches!(refusal, Error::SocketPath { len_bytes: 125, .. }), "{refusal}");
        assert!(refusal.to_string().contains("107"), "{refusal}");
    }

    #[test]
    fn a_long_path_to_no_directory_names_the_directory() {
        let directory = Path::new("/nonexistent").join("x".repeat(120));
        let refusal = ShortPath::of(&directory.join("store.sock")).unwrap_err();
        assert!(refusal.errno() == Some(2) && refusal.to_string().contains("/nonexistent/x"), "{refusal}");
    }
}

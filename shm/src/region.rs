//! Regions as the daemon creates them: their backends, rights, population and release.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process;
use std::str::FromStr;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, SealFlag, fallocate, fcntl, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{shm_open, shm_unlink};
use nix::sys::stat::{Mode, fchmod, fstat, major, minor};
use nix::sys::statvfs::statvfs;
use nix::sys::uio::{pread, pwrite};
use nix::unistd::{SysconfVar, ftruncate, sysconf};
use shared_memory::{ShmemConf, ShmemError};

use crate::error::{Error, refused};
use crate::kernel::{Kernel, MFD_NOEXEC_SEAL};
use crate::mapping::{Access, Advice, Mapping, WordsMapping, to_usize};

/// Length of a population step, and of the huge pages it makes: 2 MiB.
pub const STEP_BYTES: u64 = 2 << 20;

/// Longest region: 64 TiB, half of what a process can address on the smallest machine this runs on.
pub const LEN_BYTES_MAX: u64 = 64 << 40;

/// What a region is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// An anonymous file in memory, passed as a descriptor. Rights and length are enforced by the kernel, and the
    /// memory is free once its last user has ended, however it ended.
    Memfd,
    /// A file in `/dev/shm`, opened by name. Promises neither: see [`ClientRegion::from_name`].
    ///
    /// [`ClientRegion::from_name`]: crate::ClientRegion::from_name
    Named,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memfd => "memfd",
            Self::Named => "named",
        })
    }
}

impl FromStr for Backend {
    type Err = Error;

    fn from_str(given: &str) -> Result<Self, Error> {
        match given {
            "memfd" => Ok(Self::Memfd),
            "named" => Ok(Self::Named),
            _ => Err(Error::UnknownBackend { given: given.to_owned() }),
        }
    }
}

/// What the kernel is to refuse to everybody, for ever. Each also refuses further seals, so that no client can add
/// one that stops the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seals {
    /// The length is fixed.
    ShrinkGrow,
    /// The length is fixed, and who has not mapped the region for writing by now never will, nor write it otherwise.
    ///
    /// Where the kernel has no such seal ([`Kernel::future_write_seal`]) only the length is fixed.
    ShrinkGrowFutureWriteSeal,
}

/// How a population step was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Populated {
    /// One huge page.
    HugePage,
    /// Small pages, or what was there before.
    SmallPages,
}

/// What tells a region from all others of this machine: device and inode, as `/proc/PID/maps` shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionId {
    pub(crate) device: String,
    pub(crate) inode: String,
}

/// A shared region that this process created.
///
/// It is `Send` and `Sync`. Mappings and openings outlive it. A named region leaves `/dev/shm` when it is dropped by
/// the process that created it; if that process is killed, its name stays until [`remove_named`].
#[derive(Debug)]
pub struct Region {
    fd: OwnedFd,
    len_bytes: u64,
    kernel: Kernel,
    named: Option<Named>,
}

impl Region {
    /// Creates a region of `len_bytes` zeros, of which none takes memory yet.
    ///
    /// `label` is what tools show (`/memfd:plasmon-arena` in `/proc/PID/maps`) and how the name of a named region
    /// begins. `kernel` decides which calls are used on the region as long as it lives.
    ///
    /// # Errors
    /// [`Error::Label`]; [`Error::RegionLength`]; [`Error::NoRoom`] if a named region does not fit `/dev/shm`;
    /// [`Error::System`] if the kernel refuses. Nothing is left behind.
    pub fn create(label: &str, len_bytes: u64, backend: Backend, kernel: &Kernel) -> Result<Self, Error> {
        check_label(label)?;
        if len_bytes == 0 || len_bytes > LEN_BYTES_MAX {
            return Err(Error::RegionLength { asked_bytes: len_bytes });
        }
        let (fd, named) = match backend {
            Backend::Memfd => (create_memfd(label, len_bytes, kernel)?, None),
            Backend::Named => {
                let (fd, named) = create_named(label, len_bytes)?;
                (fd, Some(named))
            }
        };
        Ok(Self { fd, len_bytes, kernel: *kernel, named })
    }

    /// Length of the region.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// What the region is made of.
    #[must_use]
    pub fn backend(&self) -> Backend {
        if self.named.is_some() { Backend::Named } else { Backend::Memfd }
    }

    /// The name by which a client opens it ([`ClientRegion::from_name`](crate::ClientRegion::from_name)); `None` for
    /// a memfd.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.named.as_ref().map(|named| named.name.as_str())
    }

    /// What tells the region from all others of this machine, as long as it exists.
    ///
    /// # Errors
    /// [`Error::System`] if the kernel refuses.
    pub fn id(&self) -> Result<RegionId, Error> {
        let status = fstat(&self.fd).map_err(refused("fstat", || "a region".to_owned()))?;
        let device = format!("{:02x}:{:02x}", major(status.st_dev), minor(status.st_dev));
        Ok(RegionId { device, inode: status.st_ino.to_string() })
    }

    /// Opens the region once more, for reading only, to pass the descriptor to a client.
    ///
    /// An opening of its own and no duplicate: flags that the client sets on it do not reach the daemon's.
    ///
    /// # Errors
    /// [`Error::NotMemfd`]; [`Error::System`], with EACCES after [`restrict_mode`](Self::restrict_mode) took the right
    /// from this process (root keeps it).
    pub fn open_read_only(&self) -> Result<OwnedFd, Error> {
        self.reopen("opening read-only", OFlag::O_RDONLY)
    }

    /// Opens the region once more, for reading and writing, to pass the descriptor to a client.
    ///
    /// # Errors
    /// Those of [`open_read_only`](Self::open_read_only).
    pub fn open_read_write(&self) -> Result<OwnedFd, Error> {
        self.reopen("opening for writing", OFlag::O_RDWR)
    }

    fn reopen(&self, operation: &'static str, access: OFlag) -> Result<OwnedFd, Error> {
        if self.named.is_some() {
            return Err(Error::NotMemfd { operation });
        }
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        open(path.as_str(), access | OFlag::O_CLOEXEC, Mode::empty()).map_err(refused("open", || path))
    }

    /// Seals the region, for every process and for ever. Does nothing to a named region, which has no seals.
    ///
    /// # Errors
    /// [`Error::System`], with EPERM if it was sealed before.
    pub fn seal(&self, seals: Seals) -> Result<(), Error> {
        if self.named.is_some() {
            return Ok(());
        }
        let mut flags = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        if seals == Seals::ShrinkGrowFutureWriteSeal && self.kernel.future_write_seal {
            flags |= SealFlag::F_SEAL_FUTURE_WRITE;
        }
        fcntl(&self.fd, FcntlArg::F_ADD_SEALS(flags))
            .map_err(refused("fcntl(F_ADD_SEALS)", || format!("{seals:?}")))?;
        Ok(())
    }

    /// Makes the region's mode 0400, so that a client that has it read-only cannot reopen it for writing through its
    /// own `/proc`. Make the openings for clients before. Does nothing to a named region, which is opened by name.
    ///
    /// Root, and a client of the daemon's own uid that sets out to (it may change the mode back), are not stopped.
    ///
    /// # Errors
    /// [`Error::System`] if the kernel refuses.
    pub fn restrict_mode(&self) -> Result<(), Error> {
        if self.named.is_some() {
            return Ok(());
        }
        fchmod(&self.fd, Mode::S_IRUSR).map_err(refused("fchmod", || "mode 0400".to_owned()))
    }

    /// Takes room in `/dev/shm` for all of a named region, so that writing it later cannot end in SIGBUS. Does nothing
    /// to a memfd, which has no limit of its own.
    ///
    /// # Errors
    /// [`Error::System`], with ENOSPC if `/dev/shm` is full.
    pub fn reserve(&self) -> Result<(), Error> {
        if self.named.is_none() {
            return Ok(());
        }
        let asked = || format!("{} bytes in /dev/shm", self.len_bytes);
        loop {
            match fallocate(&self.fd, FallocateFlags::empty(), 0, file_offset(self.len_bytes)) {
                Err(Errno::EINTR) => {}
                result => return result.map_err(refused("fallocate", asked)),
            }
        }
    }

    /// Maps the whole region as words, for reading and writing.
    ///
    /// # Errors
    /// [`Error::Unaligned`] if the length is not in whole words; [`Error::System`] if the kernel refuses, with EPERM
    /// after [`Seals::ShrinkGrowFutureWriteSeal`].
    pub fn map_words(&self) -> Result<WordsMapping, Error> {
        WordsMapping::new(self.fd.as_fd(), self.len_bytes)
    }

    /// Writes `bytes` at `offset`, without mapping anything.
    ///
    /// Where `/dev/shm` is full this is an error (ENOSPC) and no SIGBUS; bytes written before it stay written. At a
    /// cgroup's limit the kernel may answer with SIGKILL, as for any write: write to populated memory.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`]; [`Error::System`], with EPERM after [`Seals::ShrinkGrowFutureWriteSeal`].
    ///
    /// ```
    /// use plasmon_shm::{Backend, Kernel, Region};
    ///
    /// let region = Region::create("plasmon-arena", 4096, Backend::Memfd, &Kernel::detect())?;
    /// region.write_at(4092, b"last")?;
    /// let mut read = [0; 4];
    /// region.read_at(4092, &mut read)?;
    /// assert_eq!(&read, b"last");
    /// assert!(region.write_at(4093, b"last").is_err());
    /// # Ok::<(), plasmon_shm::Error>(())
    /// ```
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        check_range_or_empty(offset, bytes.len() as u64, self.len_bytes)?;
        let refuse = |errno| refused("pwrite", || format!("{} bytes at offset {offset}", bytes.len()))(errno);
        let mut rest = bytes;
        while !rest.is_empty() {
            let at = file_offset(offset + (bytes.len() - rest.len()) as u64);
            match pwrite(&self.fd, rest, at) {
                Ok(0) => return Err(refuse(Errno::ENOSPC)),
                Ok(written) => rest = &rest[written..],
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(refuse(errno)),
            }
        }
        Ok(())
    }

    /// Reads the bytes at `offset`, filling `into`, without mapping anything.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`]; [`Error::System`] if the kernel refuses.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), Error> {
        let len = into.len();
        check_range_or_empty(offset, len as u64, self.len_bytes)?;
        let refuse = |errno| refused("pread", || format!("{len} bytes at offset {offset}"))(errno);
        let mut filled = 0;
        while filled < len {
            match pread(&self.fd, &mut into[filled..], file_offset(offset + filled as u64)) {
                // Only of a named region, which somebody truncated.
                Ok(0) => return Err(refuse(Errno::ENODATA)),
                Ok(read) => filled += read,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(refuse(errno)),
            }
        }
        Ok(())
    }

    /// Gives the memory of the whole pages inside a range back to the kernel; they read as zeros afterwards.
    ///
    /// The rest of the range, at most one page at either end, keeps its bytes. A page that is cut off by the end of
    /// the region counts as whole.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`]; [`Error::System`], with EPERM after [`Seals::ShrinkGrowFutureWriteSeal`].
    pub fn punch_hole(&self, offset: u64, len_bytes: u64) -> Result<(), Error> {
        check_range_or_empty(offset, len_bytes, self.len_bytes)?;
        let page = page_bytes();
        let first = offset.next_multiple_of(page);
        let last = offset + len_bytes;
        let end = if last == self.len_bytes { last.next_multiple_of(page) } else { last - last % page };
        if first >= end {
            return Ok(());
        }
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        loop {
            match fallocate(&self.fd, mode, file_offset(first), file_offset(end - first)) {
                Err(Errno::EINTR) => {}
                result => {
                    let asked = || format!("{} bytes at offset {first}", end - first);
                    return result.map_err(refused("fallocate(PUNCH_HOLE)", asked));
                }
            }
        }
    }

    /// Takes memory for one step of the region, so that its first use costs no page faults and cannot fail.
    ///
    /// `offset` is a multiple of [`STEP_BYTES`] and `len_bytes` at most that. Nothing is ever stored, so the step may
    /// be in use by writers meanwhile: no byte changes, and they are held up for less than a millisecond.
    ///
    /// With `fallback` false a whole step becomes one huge page; if the kernel has none to give, that is
    /// [`Error::CollapseFailed`], after which the caller looks at the memory that is left and calls again with
    /// `fallback` true. This matters: at a cgroup's limit the first call is refused and the second is answered by
    /// SIGKILL. With `fallback` true, or for a part of a step, or where the kernel has no `MADV_COLLAPSE`, small
    /// pages are populated.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`], [`Error::Unaligned`], [`Error::StepLength`]; [`Error::CollapseFailed`] as above;
    /// [`Error::System`] if there is no memory.
    ///
    /// ```
    /// use plasmon_shm::{Backend, Error, Kernel, Region, STEP_BYTES};
    ///
    /// let region = Region::create("plasmon-arena", 2 * STEP_BYTES, Backend::Memfd, &Kernel::detect())?;
    /// match region.populate_step(STEP_BYTES, STEP_BYTES, false) {
    ///     // (look at the memory that is left)
    ///     Err(Error::CollapseFailed { .. }) => region.populate_step(STEP_BYTES, STEP_BYTES, true)?,
    ///     done => done?,
    /// };
    /// # Ok::<(), Error>(())
    /// ```
    pub fn populate_step(&self, offset: u64, len_bytes: u64, fallback: bool) -> Result<Populated, Error> {
        if len_bytes > STEP_BYTES {
            return Err(Error::StepLength { asked_bytes: len_bytes, max_bytes: STEP_BYTES });
        }
        check_range(offset, len_bytes, self.len_bytes)?;
        if !offset.is_multiple_of(STEP_BYTES) {
            let what = "the offset of a population step";
            return Err(Error::Unaligned { what, found: offset, alignment: STEP_BYTES });
        }
        let refuse =
            refused("madvise(MADV_POPULATE_WRITE)", || format!("{len_bytes} bytes at offset {offset}"));
        let window = Mapping::new(self.fd.as_fd(), offset, len_bytes, Access::ReadWrite)?;
        if len_bytes < STEP_BYTES || fallback || !self.kernel.collapse {
            window.advise(Advice::PopulateWrite, to_usize(STEP_BYTES)).map_err(refuse)?;
            return Ok(Populated::SmallPages);
        }
        // Collapsing a range of which no page exists is EINVAL.
        window.advise(Advice::PopulateWrite, to_usize(page_bytes())).map_err(refuse)?;
        match window.collapse() {
            Ok(()) => Ok(Populated::HugePage),
            Err(errno) => Err(Error::CollapseFailed { offset, len_bytes, cause: errno.into() }),
        }
    }
}

/// How many bytes a new named region can have: what is free in `/dev/shm`.
///
/// # Errors
/// [`Error::System`] if there is no `/dev/shm`.
pub fn named_room_bytes() -> Result<u64, Error> {
    room_bytes_in(Path::new("/dev/shm"))
}

/// Removes the named region `name`, left behind by a process that was killed; returns whether there was one.
///
/// # Errors
/// [`Error::RegionName`]; [`Error::System`] if this user may not.
///
/// ```
/// assert!(!plasmon_shm::remove_named("/plasmon-nothing-here")?);
/// # Ok::<(), plasmon_shm::Error>(())
/// ```
pub fn remove_named(name: &str) -> Result<bool, Error> {
    check_name(name)?;
    match shm_unlink(name) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(refused("shm_unlink", || name.to_owned())(errno)),
    }
}

/// Size of a small page.
///
/// # Panics
/// Never: every Linux says it.
#[must_use]
pub fn page_bytes() -> u64 {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().expect("Linux has a page size");
    u64::try_from(page).expect("a page size is positive")
}

/// Checks that a range has at least one byte and lies inside a region, so that its end can be computed.
pub(crate) fn check_range(offset: u64, len_bytes: u64, region_bytes: u64) -> Result<(), Error> {
    if len_bytes == 0 {
        return Err(Error::OutOfBounds { offset, len_bytes, region_bytes });
    }
    check_range_or_empty(offset, len_bytes, region_bytes)
}

fn check_range_or_empty(offset: u64, len_bytes: u64, region_bytes: u64) -> Result<(), Error> {
    match offset.checked_add(len_bytes) {
        Some(end) if end <= region_bytes => Ok(()),
        _ => Err(Error::OutOfBounds { offset, len_bytes, region_bytes }),
    }
}

/// Checks that `name` is one that a named region can have: it stays in `/dev/shm`.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    match name.strip_prefix('/') {
        Some(rest) if rest.len() <= 30 && is_plain(rest) => Ok(()),
        _ => Err(Error::RegionName { name: name.to_owned() }),
    }
}

fn check_label(label: &str) -> Result<(), Error> {
    if label.len() <= 21 && is_plain(label) {
        return Ok(());
    }
    Err(Error::Label { label: label.to_owned() })
}

fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(plain)
}

fn create_memfd(label: &str, len_bytes: u64, kernel: &Kernel) -> Result<OwnedFd, Error> {
    let mut flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    if kernel.noexec_seal {
        flags |= MFD_NOEXEC_SEAL;
    }
    let fd = memfd_create(label, flags).map_err(refused("memfd_create", || label.to_owned()))?;
    // A memfd starts as 0777 or 0666, with which anybody who has it in any way could reopen it for writing.
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR).map_err(refused("fchmod", || "mode 0600".to_owned()))?;
    ftruncate(&fd, file_offset(len_bytes)).map_err(refused("ftruncate", || format!("{len_bytes} bytes")))?;
    Ok(fd)
}

/// The name of a region in `/dev/shm`, removed when dropped where it was created.
#[derive(Debug)]
struct Named {
    name: String,
    created_by: u32,
}

impl Drop for Named {
    fn drop(&mut self) {
        if self.created_by == process::id() {
            // Somebody else may have removed it.
            let _ = shm_unlink(self.name.as_str());
        }
    }
}

/// Lets the `shared_memory` crate make the region, then takes it over.
///
/// The crate gives no access to its descriptor, and maps the whole region in a type that is neither `Send` nor kept
/// out of core dumps. So the region is opened again by its name, and the crate's own mapping ends here.
fn create_named(label: &str, len_bytes: u64) -> Result<(OwnedFd, Named), Error> {
    let available_bytes = named_room_bytes()?;
    if len_bytes > available_bytes {
        return Err(Error::NoRoom { requested_bytes: len_bytes, available_bytes });
    }
    let mut tries_left = NAME_TRIES;
    let mut segment = loop {
        let name = format!("/{label}-{:08x}", RandomState::new().build_hasher().finish() >> 32);
        match ShmemConf::new().size(to_usize(len_bytes)).os_id(name).create() {
            Ok(segment) => break segment,
            Err(ShmemError::MappingIdExists) if tries_left > 0 => tries_left -= 1,
            Err(error) => {
                let asked = format!("{label}, {len_bytes} bytes");
                let cause = match error {
                    ShmemError::MapCreateFailed(errno) | ShmemError::UnknownOsError(errno) => {
                        io::Error::from_raw_os_error(errno.cast_signed())
                    }
                    other => io::Error::other(other),
                };
                return Err(Error::System { operation: "creating a named region", asked, cause });
            }
        }
    };
    let name = segment.get_os_id().to_owned();
    let fd = shm_open(name.as_str(), OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(refused("shm_open", || name.clone()))?;
    segment.set_owner(false); // from here the name is ours to remove
    Ok((fd, Named { name, created_by: process::id() }))
}

/// How many names that are taken are passed over.
const NAME_TRIES: u32 = 16;

fn room_bytes_in(directory: &Path) -> Result<u64, Error> {
    let status = statvfs(directory).map_err(refused("statvfs", || directory.display().to_string()))?;
    if status.blocks() == 0 {
        return Ok(LEN_BYTES_MAX); // a tmpfs mounted without a limit
    }
    Ok(status.blocks_available().saturating_mul(status.fragment_size()))
}

/// An offset, or a length, inside a region: at most [`LEN_BYTES_MAX`] and a page.
fn file_offset(bytes: u64) -> i64 {
    bytes.cast_signed()
}

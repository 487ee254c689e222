//! A region as the process sees it that did not create it.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::mman::shm_open;
use nix::sys::stat::Mode;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

use crate::claim::Claims;
use crate::error::{Error, refused};
use crate::kept_fd::{FileId, KeptFd};
use crate::mapping::{BytesMapping, CopyOnWriteMapping, LeaseMapping, ReadOnlyWords, WordsMapping};
use crate::region::{check_name, check_range, page_bytes};

/// A region that another process created: received as a descriptor, or opened by its name.
///
/// What it may do is decided by the descriptor: mapping read-only memory for writing fails with EACCES. Mappings
/// outlive it.
#[derive(Debug)]
pub struct ClientRegion {
    fd: KeptFd,
    len_bytes: u64,
    claims: Arc<Claims>,
}

impl ClientRegion {
    /// Takes a descriptor received from a peer, which said that the region has `len_bytes` bytes.
    ///
    /// Nothing the peer sent can end this process afterwards: the region must be shared memory (not, say, a file on a
    /// network), of that length, and sealed against shrinking. Its contents stay whatever the peer makes of them.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::NotSealed`]; [`Error::System`] if the kernel refuses. The descriptor is
    /// closed.
    pub fn from_fd(fd: OwnedFd, len_bytes: u64) -> Result<Self, Error> {
        let asked = || "seals of a received region".to_owned();
        let seals = match fcntl(&fd, FcntlArg::F_GET_SEALS) {
            Ok(seals) => SealFlag::from_bits_retain(seals),
            Err(Errno::EINVAL) => SealFlag::empty(), // no memfd, so no seals
            Err(errno) => return Err(refused("fcntl(F_GET_SEALS)", asked)(errno)),
        };
        // A huge-page memfd can be sealed too, but its pages are missing exactly when they are touched.
        let file_system = fstatfs(&fd).map_err(refused("fstatfs", asked))?.filesystem_type();
        if !seals.contains(SealFlag::F_SEAL_SHRINK) || file_system != TMPFS_MAGIC {
            return Err(Error::NotSealed);
        }
        Self::of_length(fd, len_bytes)
    }

    /// Opens the named region `name`, which has `len_bytes` bytes, for reading and, if `writable`, for writing.
    ///
    /// Named regions have no seals: whoever may write one may also truncate it, and reading it then ends the reader
    /// by SIGBUS. That a region opened without `writable` cannot be written is up to the opener, not to the kernel.
    ///
    /// # Errors
    /// [`Error::RegionName`], [`Error::LengthMismatch`]; [`Error::System`] if there is no such region or this user
    /// may not open it.
    pub fn from_name(name: &str, len_bytes: u64, writable: bool) -> Result<Self, Error> {
        check_name(name)?;
        let access = if writable { OFlag::O_RDWR } else { OFlag::O_RDONLY };
        let fd = shm_open(name, access | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(refused("shm_open", || format!("{name}, writable: {writable}")))?;
        Self::of_length(fd, len_bytes)
    }

    /// The same region for a forked child, in which no lease of its parent is mapped.
    ///
    /// # Errors
    /// [`Error::System`] if the kernel refuses another descriptor.
    pub fn for_child(&self) -> Result<Self, Error> {
        let fd = self.fd()?.try_clone_to_owned().map_err(|cause| Error::System {
            operation: "fcntl(F_DUPFD_CLOEXEC)",
            asked: "a region for a forked child".to_owned(),
            cause,
        })?;
        Ok(Self { fd: KeptFd::new(fd)?, len_bytes: self.len_bytes, claims: Arc::default() })
    }

    fn of_length(fd: OwnedFd, expected_bytes: u64) -> Result<Self, Error> {
        let (_, found_bytes) = FileId::of(&fd)?;
        if found_bytes != expected_bytes {
            return Err(Error::LengthMismatch { expected_bytes, found_bytes });
        }
        Ok(Self { fd: KeptFd::new(fd)?, len_bytes: expected_bytes, claims: Arc::default() })
    }

    /// Length of the region.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Maps the whole region as words that can only be loaded: the index.
    ///
    /// # Errors
    /// [`Error::Unaligned`] if the length is not in whole words; [`Error::System`] if the kernel refuses.
    pub fn map_words_read_only(&self) -> Result<ReadOnlyWords, Error> {
        ReadOnlyWords::new(self.fd()?, self.len_bytes)
    }

    /// Maps the whole region as words: a session region.
    ///
    /// # Errors
    /// [`Error::Unaligned`] if the length is not in whole words; [`Error::System`] if the kernel refuses, with EACCES
    /// if the region was opened read-only.
    pub fn map_words(&self) -> Result<WordsMapping, Error> {
        WordsMapping::new(self.fd()?, self.len_bytes)
    }

    /// Maps the whole region as bytes that can only be read: the arena.
    ///
    /// The address is a multiple of 2 MiB, so that huge pages show through. Nothing is read yet.
    ///
    /// # Errors
    /// [`Error::System`] if the kernel refuses.
    pub fn map_bytes_read_only(&self) -> Result<BytesMapping, Error> {
        BytesMapping::new(self.fd()?, self.len_bytes)
    }

    /// Maps the `len_bytes` bytes at `offset`, which the daemon has lent to this session, for writing.
    ///
    /// Whole pages, unless the range ends with the region. The address is congruent to `offset` modulo 2 MiB.
    /// `populate` maps every page now, at a fourth of what faults would cost during the first write; for pages that
    /// the daemon has not populated it takes memory, and fails where the writes would have been answered by SIGBUS.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`]; [`Error::Unaligned`]; [`Error::LeaseOverlap`] if a part of the range is mapped
    /// already; [`Error::Taken`]; [`Error::System`] if the kernel refuses, with EACCES if the region was opened read-only.
    pub fn map_lease(&self, offset: u64, len_bytes: u64, populate: bool) -> Result<LeaseMapping, Error> {
        check_range(offset, len_bytes, self.len_bytes)?;
        let (alignment, end) = (page_bytes(), offset + len_bytes);
        if !offset.is_multiple_of(alignment) {
            return Err(Error::Unaligned { what: "the offset of a lease", found: offset, alignment });
        }
        if !end.is_multiple_of(alignment) && end != self.len_bytes {
            return Err(Error::Unaligned { what: "the length of a lease", found: len_bytes, alignment });
        }
        let claim = self.claims.claim(offset..end)?;
        let lease = LeaseMapping::new(self.fd()?, self.memory(), claim, offset, len_bytes)?;
        if populate {
            lease.populate()?;
        }
        Ok(lease)
    }

    /// Maps the `len_bytes` bytes at `offset` such that this process may write them and the region stays as it is.
    ///
    /// A read-only descriptor is enough. Nothing is copied, and no memory taken, before a page is written.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`]; [`Error::Taken`] if something else in the process has closed the descriptor; [`Error::System`] if the kernel refuses: a process may have 65,530 mappings,
    /// and where memory must not be overcommitted, all of the range counts as this process's own.
    ///
    /// ```
    /// use plasmon_shm::{Backend, ClientRegion, Kernel, Region, Seals};
    ///
    /// let region = Region::create("plasmon-arena", 1 << 20, Backend::Memfd, &Kernel::detect())?;
    /// region.seal(Seals::ShrinkGrow)?;
    /// region.write_at(5_000, b"prime")?;
    /// let reader = ClientRegion::from_fd(region.open_read_only()?, 1 << 20)?;
    /// let mut own = reader.map_copy_on_write(5_000, 5)?;
    /// // SAFETY: nobody else has the region, and no pointer was given out.
    /// let bytes = unsafe { own.as_mut_slice() };
    /// bytes[0] = b'c';
    /// assert_eq!(bytes, b"crime");
    /// let mut found = [0; 5];
    /// region.read_at(5_000, &mut found)?;
    /// assert_eq!(&found, b"prime");
    /// # Ok::<(), plasmon_shm::Error>(())
    /// ```
    pub fn map_copy_on_write(&self, offset: u64, len_bytes: u64) -> Result<CopyOnWriteMapping, Error> {
        check_range(offset, len_bytes, self.len_bytes)?;
        CopyOnWriteMapping::new(self.fd()?, offset, len_bytes)
    }

    /// The descriptor, if it still is one of this region.
    ///
    /// # Errors
    /// [`Error::Taken`].
    pub fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.fd.get()
    }

    pub(crate) fn memory(&self) -> FileId {
        self.fd.of_what()
    }
}

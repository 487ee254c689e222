//! Mappings of shared regions, each with only the operations that are sound on it.
//!
//! | mapping | memory | operations |
//! | --- | --- | --- |
//! | [`WordsMapping`] | read-write, or private to the process | atomic words |
//! | [`ReadOnlyWords`] | read-only | atomic loads |
//! | [`BytesMapping`] | read-only | pointers with checked bounds |
//! | [`LeaseMapping`] | read-write, of this process alone | a `&mut [u8]` |
//! | [`SealedMapping`] | read-only, where a lease was | a pointer, a slice for who holds a pin |
//! | [`CopyOnWriteMapping`] | the region's until a page is written, then the process's own | a pointer, slices for who holds a pin |
//!
//! Every mapping lies at an address congruent to its offset modulo [`STEP_BYTES`], so that huge pages can be mapped
//! as such (but for copy-on-write mappings that are shorter than one), and none is written to core dumps.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::process;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use plasmon_protocol::sync::Words;

use crate::claim::Claim;
use crate::client_region::ClientRegion;
use crate::error::{Error, refused};
use crate::kept_fd::FileId;
use crate::region::{LEN_BYTES_MAX, STEP_BYTES, page_bytes};

/// A whole region as words that any process may change at any time.
#[derive(Debug)]
pub struct WordsMapping {
    mapping: Mapping,
}

impl WordsMapping {
    pub(crate) fn new(fd: BorrowedFd<'_>, len_bytes: u64) -> Result<Self, Error> {
        check_whole_words(len_bytes)?;
        Ok(Self { mapping: Mapping::new(fd, 0, len_bytes, Access::ReadWrite)? })
    }

    /// Zeroed words of this process alone, of which a forked child gets a copy. Those that nobody writes take no memory.
    ///
    /// # Errors
    /// [`Error::RegionLength`]; [`Error::System`] if the kernel refuses.
    ///
    /// ```
    /// use std::sync::atomic::Ordering::Relaxed;
    ///
    /// let words = plasmon_shm::WordsMapping::private(1 << 16)?;
    /// assert_eq!(words.words().len(), 1 << 16);
    /// assert_eq!(words.words()[65_535].load(Relaxed), 0);
    /// # Ok::<(), plasmon_shm::Error>(())
    /// ```
    pub fn private(count: usize) -> Result<Self, Error> {
        let len_bytes = (count as u64).saturating_mul(WORD_BYTES as u64);
        Ok(Self { mapping: Mapping::private(len_bytes)? })
    }

    /// Shows the words of `region`, which is as long, at the addresses of this mapping from now on.
    ///
    /// For a forked child: it inherits its parent's words, and all who look at them shall see its own instead. To
    /// another thread that looks meanwhile it is as if all words were written anew.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], and nothing has changed; [`Error::System`] if the kernel refuses: an old one may
    /// have unmapped the old words before that, so they must not be looked at any more.
    pub fn replace(&self, region: &ClientRegion) -> Result<(), Error> {
        let expected_bytes = self.mapping.len_bytes as u64;
        if region.len_bytes() != expected_bytes {
            return Err(Error::LengthMismatch { expected_bytes, found_bytes: region.len_bytes() });
        }
        self.mapping.replace(region.fd()?, 0, Access::ReadWrite)
    }

    /// The words. Others write them too: a value read is a value that somebody wrote, and nothing more.
    ///
    /// ```
    /// use std::sync::atomic::Ordering::Relaxed;
    /// use plasmon_shm::{Backend, Kernel, Region};
    ///
    /// let words = Region::create("plasmon-index", 4096, Backend::Memfd, &Kernel::detect())?.map_words()?;
    /// words.words()[511].store(7, Relaxed);
    /// assert_eq!(words.words()[511].load(Relaxed), 7);
    /// # Ok::<(), plasmon_shm::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `slice::from_raw_parts` asks that the words be
        // - in one allocation, readable and aligned: the mapping has `len_bytes`, at most `LEN_BYTES_MAX`, begins at
        //   a page boundary and lives as long as `&self`; it is mapped for reading and writing, as atomics ask;
        // - initialised: shared memory starts zeroed, and every bit pattern is a `u64`;
        // - changed only inside an `UnsafeCell`: an `AtomicU64` is one.
        // Trusted, not proven: other processes change them by atomic stores only.
        unsafe {
            slice::from_raw_parts(
                self.mapping.start.as_ptr().cast_const().cast(),
                self.mapping.len_bytes / WORD_BYTES,
            )
        }
    }
}

/// A whole region as words that this process can only read, through [`Words`]: the index as a client has it.
#[derive(Debug)]
pub struct ReadOnlyWords {
    mapping: Mapping,
}

impl ReadOnlyWords {
    pub(crate) fn new(fd: BorrowedFd<'_>, len_bytes: u64) -> Result<Self, Error> {
        check_whole_words(len_bytes)?;
        Ok(Self { mapping: Mapping::new(fd, 0, len_bytes, Access::ReadOnly)? })
    }

    /// Private, as a store through it would end the process.
    #[inline]
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: `slice::from_raw_parts` asks for what `WordsMapping::words` says, and for reading only. That the
        // memory is read-only is allowed by std's "Atomic accesses to read-only memory" for relaxed loads of at most
        // 8 bytes on 64-bit targets; `load` does nothing else.
        // Trusted, not proven: the daemon changes them by atomic stores only.
        unsafe {
            slice::from_raw_parts(
                self.mapping.start.as_ptr().cast_const().cast(),
                self.mapping.len_bytes / WORD_BYTES,
            )
        }
    }
}

impl Words for ReadOnlyWords {
    #[inline]
    fn count(&self) -> usize {
        self.mapping.len_bytes / WORD_BYTES
    }

    /// As the trait says, `order` being `Relaxed` or `Acquire`.
    ///
    /// An acquiring load is a relaxed one and a fence behind it, because Rust promises only of relaxed loads that
    /// they work on read-only memory. On x86-64 both are a plain `mov`.
    ///
    /// # Panics
    /// If `index` is not below [`count`](Words::count), or `order` is another one.
    #[inline]
    fn load(&self, index: usize, order: Ordering) -> u64 {
        let value = self.words()[index].load(Ordering::Relaxed);
        match order {
            Ordering::Relaxed => {}
            Ordering::Acquire => fence(Ordering::Acquire),
            _ => panic!("a read-only word is loaded with Relaxed or Acquire, not with {order:?}"),
        }
        value
    }
}

/// A whole region as bytes that this process can only read.
#[derive(Debug)]
pub struct BytesMapping {
    mapping: Mapping,
}

impl BytesMapping {
    pub(crate) fn new(fd: BorrowedFd<'_>, len_bytes: u64) -> Result<Self, Error> {
        Ok(Self { mapping: Mapping::new(fd, 0, len_bytes, Access::ReadOnly)? })
    }

    /// Length of the region.
    #[must_use]
    #[inline]
    pub fn len_bytes(&self) -> u64 {
        self.mapping.len_bytes as u64
    }

    /// Where the `len_bytes` bytes at `offset` lie; `None` if they are not inside the region.
    ///
    /// The pointer is good for reading as long as the mapping lives. Making a slice of it needs more: that nobody
    /// writes those bytes meanwhile, which only a pin on a sealed extent brings about.
    #[must_use]
    #[inline]
    pub fn pointer(&self, offset: u64, len_bytes: u64) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len_bytes)?;
        if end > self.len_bytes() {
            return None;
        }
        let offset = usize::try_from(offset).ok()?;
        Some(self.mapping.start.map_addr(|address| address.saturating_add(offset)))
    }
}

/// A range of the arena that this process alone may write.
///
/// It is not there in forked children: there, [`bytes_mut`](Self::bytes_mut) panics and dropping it does nothing.
#[derive(Debug)]
pub struct LeaseMapping {
    // Unmapped before the claim ends: fields are dropped in this order.
    mapping: Mapping,
    claim: Claim,
    memory: FileId,
    offset: u64,
}

impl LeaseMapping {
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        memory: FileId,
        claim: Claim,
        offset: u64,
        len_bytes: u64,
    ) -> Result<Self, Error> {
        let mut mapping = Mapping::new(fd, offset, len_bytes, Access::ReadWrite)?;
        mapping.only_in = Some(process::id());
        mapping
            .advise(Advice::DontFork, mapping.mapped_bytes)
            .map_err(|errno| mapping.advice_refused(errno))?;
        Ok(Self { mapping, claim, memory, offset })
    }

    /// Makes the pages that exist present in this mapping, and the others exist, without changing a byte.
    pub(crate) fn populate(&self) -> Result<(), Error> {
        let advised = self.mapping.advise(Advice::PopulateRead, self.mapping.mapped_bytes);
        advised.map_err(|errno| self.mapping.advice_refused(errno))
    }

    /// Offset in the region of the first byte.
    #[must_use]
    #[inline]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Length of the lease.
    #[must_use]
    #[inline]
    pub fn len_bytes(&self) -> u64 {
        self.mapping.len_bytes as u64
    }

    /// The first byte, for reading and writing as long as the mapping lives, in the process that mapped it.
    #[must_use]
    #[inline]
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.mapping.start
    }

    /// The bytes, to be written.
    ///
    /// This rests on what the daemon granted. Once it has taken the lease back, or a part of it was committed, that
    /// memory is somebody else's to read: do not call this after the one, do not touch the committed bytes after the
    /// other.
    ///
    /// # Panics
    /// In a forked child of the process that mapped the lease.
    #[must_use]
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        assert!(self.mapping.is_here(), "a lease was written by a forked child");
        // SAFETY: `slice::from_raw_parts_mut` asks that the bytes be
        // - in one allocation, readable, writable and aligned: the mapping has `len_bytes`, at most `LEN_BYTES_MAX`,
        //   lives as long as `&mut self`, and exists in this process (the assertion);
        // - initialised: shared memory starts zeroed;
        // - reached through nothing else meanwhile: the slice borrows `self` mutably, and `claim` keeps the range
        //   from being mapped writable twice through its region.
        // Trusted, not proven: the daemon lends the range to this session alone, and no reader makes a slice of
        // bytes that are not sealed.
        unsafe { slice::from_raw_parts_mut(self.mapping.start.as_ptr(), self.mapping.len_bytes) }
    }

    /// The bytes as they are now. Rests on the same as [`bytes_mut`](Self::bytes_mut).
    ///
    /// # Panics
    /// In a forked child of the process that mapped the lease.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        assert!(self.mapping.is_here(), "a lease was read by a forked child");
        // SAFETY: as in `bytes_mut`, with a shared borrow of `self`, during which nobody writes the bytes.
        unsafe { slice::from_raw_parts(self.mapping.start.as_ptr(), self.mapping.len_bytes) }
    }

    /// Replaces the writable pages, in place, by read-only ones of the same bytes.
    ///
    /// Pointers into the lease stay good for reading, so views that were exported before live on; a stray write
    /// through one of them ends this process only. `mprotect` cannot make the pages writable again if `read_only`
    /// came from a read-only descriptor. The result, unlike a lease, is inherited by forked children.
    ///
    /// # Errors
    /// [`Error::OtherRegion`] if `read_only` is other memory; [`Error::Forked`] in a forked child; [`Error::System`]
    /// if the kernel refuses. After any of them the mapping is kept for the life of the process, because a view of
    /// it may exist.
    ///
    /// ```
    /// use plasmon_shm::{Backend, ClientRegion, Kernel, Region, Seals};
    ///
    /// let region = Region::create("plasmon-arena", 1 << 20, Backend::Memfd, &Kernel::detect())?;
    /// region.seal(Seals::ShrinkGrow)?;
    /// let read_only = ClientRegion::from_fd(region.open_read_only()?, 1 << 20)?;
    /// let mut lease = ClientRegion::from_fd(region.open_read_write()?, 1 << 20)?.map_lease(0, 4096, true)?;
    /// lease.bytes_mut()[0] = 7;
    /// let address = lease.as_ptr();
    /// let sealed = lease.seal_in_place(&read_only)?;
    /// assert_eq!(sealed.as_ptr(), address);
    /// // SAFETY: nobody else has the region.
    /// assert_eq!(unsafe { sealed.as_slice() }[0], 7);
    /// # Ok::<(), plasmon_shm::Error>(())
    /// ```
    pub fn seal_in_place(self, read_only: &ClientRegion) -> Result<SealedMapping, Error> {
        let Self { mut mapping, claim, memory, offset } = self;
        let sealed = match mapping.only_in {
            Some(mapped_by) if !mapping.is_here() => Err(Error::Forked { mapped_by, here: process::id() }),
            _ if memory != read_only.memory() => Err(Error::OtherRegion),
            _ => read_only.fd().and_then(|fd| mapping.replace(fd, offset, Access::ReadOnly)),
        };
        match sealed {
            Ok(()) => {
                mapping.only_in = None; // the new pages are inherited by children
                Ok(SealedMapping { mapping, offset })
            }
            Err(error) => {
                // Unmapping would pull the memory from under exported views; and where an old kernel failed half
                // way, the addresses may already be somebody else's.
                std::mem::forget((mapping, claim));
                Err(error)
            }
        }
    }
}

/// What was a lease and is now read-only, at the same address.
#[derive(Debug)]
pub struct SealedMapping {
    mapping: Mapping,
    offset: u64,
}

impl SealedMapping {
    /// Offset in the region of the first byte.
    #[must_use]
    #[inline]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Length of what was the lease.
    #[must_use]
    #[inline]
    pub fn len_bytes(&self) -> u64 {
        self.mapping.len_bytes as u64
    }

    /// The first byte, for reading as long as the mapping lives.
    #[must_use]
    #[inline]
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.mapping.start
    }

    /// The bytes.
    ///
    /// # Safety
    /// While the slice lives the caller must hold pins on every extent in the range, so that the daemon lends none
    /// of its bytes to a writer.
    #[must_use]
    #[inline]
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: `slice::from_raw_parts` asks that the bytes be
        // - in one allocation, readable and aligned: the mapping has `len_bytes`, at most `LEN_BYTES_MAX`, and lives
        //   as long as `&self`;
        // - initialised: shared memory starts zeroed;
        // - unwritten meanwhile: the caller's pins keep other processes away, and the only writable mapping this
        //   process had of them is replaced.
        unsafe { slice::from_raw_parts(self.mapping.start.as_ptr().cast_const(), self.mapping.len_bytes) }
    }
}

/// A range of a region that this process may write, and that stays as it is: what is written, nobody else sees.
///
/// A page is the region's until it is first written; then the kernel gives this process a copy of it. A forked child
/// inherits what was written so far, and from then on neither sees what the other writes.
#[derive(Debug)]
pub struct CopyOnWriteMapping {
    mapping: Mapping,
    /// Bytes of the first page before the range.
    ahead: usize,
    len_bytes: usize,
}

impl CopyOnWriteMapping {
    pub(crate) fn new(fd: BorrowedFd<'_>, offset: u64, len_bytes: u64) -> Result<Self, Error> {
        let ahead = offset % page_bytes();
        let mapping = Mapping::new(fd, offset - ahead, ahead + len_bytes, Access::CopyOnWrite)?;
        Ok(Self { mapping, ahead: to_usize(ahead), len_bytes: to_usize(len_bytes) })
    }

    /// Length of the range.
    #[must_use]
    #[inline]
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes as u64
    }

    /// The first byte, for reading and writing as long as the mapping lives. Reading needs what
    /// [`as_slice`](Self::as_slice) asks for.
    #[must_use]
    #[inline]
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.mapping.start.map_addr(|address| address.saturating_add(self.ahead))
    }

    /// The bytes: the region's, and what this process has written over them.
    ///
    /// # Safety
    /// While the slice lives
    /// - the caller must hold pins on every extent in the range, so that the daemon lends none of its bytes to a
    ///   writer, whom the pages that are still the region's would show;
    /// - nobody must write through a pointer that [`as_ptr`](Self::as_ptr) gave.
    #[must_use]
    #[inline]
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: `slice::from_raw_parts` asks that the bytes be
        // - in one allocation, readable and aligned: the mapping has `ahead + len_bytes`, at most `LEN_BYTES_MAX`,
        //   and lives as long as `&self`;
        // - initialised: shared memory starts zeroed;
        // - unwritten meanwhile: the caller's part, and no `&mut self` gives out a slice beside this one.
        unsafe { slice::from_raw_parts(self.as_ptr().as_ptr().cast_const(), self.len_bytes) }
    }

    /// The bytes, to be written.
    ///
    /// # Safety
    /// As for [`as_slice`](Self::as_slice), and nobody must read through such a pointer either.
    #[must_use]
    #[inline]
    pub unsafe fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; and that the bytes be
        // - writable: the mapping is, whatever the descriptor, and what is written goes to pages of this process;
        // - reached through nothing else meanwhile: the slice borrows `self` mutably, no other mapping of this process
        //   has these pages once they are written, and pointers are the caller's part.
        unsafe { slice::from_raw_parts_mut(self.as_ptr().as_ptr(), self.len_bytes) }
    }
}

/// What a mapping's pages may be used for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
    /// Writable, and the region stays as it is.
    CopyOnWrite,
}

impl Access {
    fn rights(self) -> ProtFlags {
        match self {
            Access::ReadOnly => ProtFlags::PROT_READ,
            Access::ReadWrite | Access::CopyOnWrite => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        }
    }

    fn sharing(self) -> MapFlags {
        match self {
            Access::ReadOnly | Access::ReadWrite => MapFlags::MAP_SHARED,
            // Memory is taken page by page as they are written, not set aside for all of them now.
            Access::CopyOnWrite => MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE,
        }
    }
}

/// What is told to the kernel about pages. None of it changes a byte that a process can see.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Advice {
    DontDump,
    DontFork,
    PopulateRead,
    PopulateWrite,
}

/// A piece of shared memory at an address of this process, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    /// As asked for, at most `LEN_BYTES_MAX`.
    len_bytes: usize,
    /// In whole pages.
    mapped_bytes: usize,
    /// The only process in which the addresses are this mapping's, where forked children do not inherit it.
    only_in: Option<u32>,
}

// SAFETY: a mapping belongs to the process, not to a thread: any thread may use its addresses and unmap it.
unsafe impl Send for Mapping {}
// SAFETY: `&Mapping` gives out addresses and tells the kernel advice; both are sound from many threads at once. What
// the public types hand out through `&self` are atomics, raw pointers, or bytes that nobody writes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len_bytes` bytes of `fd` from `offset`, a multiple of the page size.
    ///
    /// The caller has checked that the range is inside the file: pages beyond it would answer with SIGBUS.
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        offset: u64,
        len_bytes: u64,
        access: Access,
    ) -> Result<Self, Error> {
        let asked = || format!("{len_bytes} bytes at offset {offset}, {access:?}");
        let refuse = |errno| refused("mmap", asked)(errno);
        if len_bytes == 0 || len_bytes > LEN_BYTES_MAX {
            return Err(Error::RegionLength { asked_bytes: len_bytes });
        }
        let file_offset = i64::try_from(offset).map_err(|_| refuse(Errno::EOVERFLOW))?;
        let len_bytes = to_usize(len_bytes);
        let mapped_bytes = len_bytes.next_multiple_of(to_usize(page_bytes()));
        let pages = NonZeroUsize::new(mapped_bytes).ok_or_else(|| refuse(Errno::EINVAL))?;
        let start = match access {
            // Made and unmade with every recall that needs one: four system calls fewer.
            Access::CopyOnWrite if mapped_bytes < to_usize(STEP_BYTES) => {
                map_anywhere(fd, file_offset, pages, access)
            }
            _ => map_congruent(fd, file_offset, pages, access),
        };
        let start = start.map_err(refuse)?;
        let mapping = Self { start: start.cast(), len_bytes, mapped_bytes, only_in: None };
        mapping.advise(Advice::DontDump, mapped_bytes).map_err(|errno| mapping.advice_refused(errno))?;
        Ok(mapping)
    }

    /// Memory of this process alone, zeroed, of which forked children get copies.
    fn private(len_bytes: u64) -> Result<Self, Error> {
        if len_bytes == 0 || len_bytes > LEN_BYTES_MAX {
            return Err(Error::RegionLength { asked_bytes: len_bytes });
        }
        let refuse = refused("mmap", || format!("{len_bytes} private bytes"));
        let len_bytes = to_usize(len_bytes);
        let mapped_bytes = len_bytes.next_multiple_of(to_usize(page_bytes()));
        let Some(pages) = NonZeroUsize::new(mapped_bytes) else { return Err(refuse(Errno::EINVAL)) };
        let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice changes nothing that exists.
        let start = unsafe { mmap_anonymous(None, pages, rights, MapFlags::MAP_PRIVATE) }.map_err(refuse)?;
        Ok(Self { start: start.cast(), len_bytes, mapped_bytes, only_in: None })
    }

    /// Gives advice on the first `bytes` bytes.
    pub(crate) fn advise(&self, advice: Advice, bytes: usize) -> Result<(), Errno> {
        let bytes = bytes.min(self.mapped_bytes);
        let advice = match advice {
            Advice::DontDump => MmapAdvise::MADV_DONTDUMP,
            Advice::DontFork => MmapAdvise::MADV_DONTFORK,
            Advice::PopulateRead => MmapAdvise::MADV_POPULATE_READ,
            Advice::PopulateWrite => MmapAdvise::MADV_POPULATE_WRITE,
        };
        loop {
            // SAFETY: `madvise` asks for a range that is the caller's to advise on: it is inside this mapping. None
            // of these four changes contents: populating faults pages in as a read or a write would, storing nothing.
            match unsafe { madvise(self.start.cast(), bytes, advice) } {
                Err(Errno::EINTR) => {}
                result => return result,
            }
        }
    }

    /// Puts a huge page in the place of the mapping's small ones, copying what they hold.
    pub(crate) fn collapse(&self) -> Result<(), Errno> {
        let start: *mut c_void = self.start.as_ptr().cast();
        // SAFETY: `madvise` asks for a range that is the caller's to advise on: it is this mapping's. The kernel
        // keeps every byte: it makes the small pages unreachable, copies them, and only then lets others go on.
        let returned = unsafe { libc::madvise(start, self.mapped_bytes, libc::MADV_COLLAPSE) };
        Errno::result(returned).map(drop)
    }

    /// Maps `fd` from `offset` over this mapping. After an error the addresses may be anybody's.
    ///
    /// What refers to the old contents must bear that they change: that is the callers' part.
    fn replace(&self, fd: BorrowedFd<'_>, offset: u64, access: Access) -> Result<(), Error> {
        let refuse = refused("mmap(MAP_FIXED)", || format!("{} bytes at offset {offset}", self.len_bytes));
        let (Ok(file_offset), Some(pages)) = (i64::try_from(offset), NonZeroUsize::new(self.mapped_bytes))
        else {
            return Err(refuse(Errno::EINVAL));
        };
        let flags = access.sharing() | MapFlags::MAP_FIXED;
        // SAFETY: `MAP_FIXED` replaces what is mapped at these addresses: whole pages of this mapping, which is here.
        // Who refers to them: of a lease (`seal_in_place`) raw pointers alone, because it was borrowed mutably, and they
        // see the same memory at the same offset (`memory` was compared), now for reading only; of words (`replace`)
        // references to atomics, which stay mapped for reading and writing, and whose values others may always change.
        let replaced =
            unsafe { mmap(Some(self.start.addr()), pages, access.rights(), flags, fd, file_offset) };
        replaced.map_err(refuse)?;
        self.advise(Advice::DontDump, self.mapped_bytes).map_err(|errno| self.advice_refused(errno))
    }

    fn is_here(&self) -> bool {
        self.only_in.is_none_or(|pid| pid == process::id())
    }

    fn advice_refused(&self, errno: Errno) -> Error {
        refused("madvise", || format!("{} mapped bytes", self.mapped_bytes))(errno)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if !self.is_here() {
            return; // a forked child: the addresses were never mapped here, and may be in other use
        }
        // SAFETY: `munmap` asks that nobody uses the range any more. It is this value's alone, whole pages as `mmap`
        // returned them, and every reference into it borrowed the value; pointers are documented to end with it.
        let unmapped = unsafe { munmap(self.start.cast(), self.mapped_bytes) };
        debug_assert!(unmapped.is_ok(), "munmap of a whole mapping: {unmapped:?}");
    }
}

const WORD_BYTES: usize = size_of::<AtomicU64>();

/// How often a place is sought anew because another thread took the one that was free a moment ago.
const PLACEMENT_TRIES: u32 = 64;

/// Maps `pages` bytes of `fd` at an address congruent to `offset` modulo `STEP_BYTES`.
///
/// More than enough addresses are reserved, as many as are needed are let go in their middle, and the file is mapped
/// there. Mapping over the reservation would be simpler, but where that fails half way, as it may before Linux 6.13,
/// nobody knows whose the addresses are.
fn map_congruent(
    fd: BorrowedFd<'_>,
    offset: i64,
    pages: NonZeroUsize,
    access: Access,
) -> Result<NonNull<c_void>, Errno> {
    let step_bytes = to_usize(STEP_BYTES);
    let room = pages.checked_add(step_bytes).ok_or(Errno::ENOMEM)?;
    let mut tries_left = PLACEMENT_TRIES;
    loop {
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at a place of the kernel's choice changes nothing that exists.
        let reserved = unsafe { mmap_anonymous(None, room, ProtFlags::PROT_NONE, flags) }?;
        let ahead = to_usize(offset.cast_unsigned()).wrapping_sub(reserved.addr().get()) % step_bytes;
        let place = reserved.map_addr(|address| address.saturating_add(ahead));
        let behind = place.map_addr(|address| address.saturating_add(pages.get()));
        // SAFETY: these pages are in the middle of the reservation above, whose address has not left this function.
        unsafe { munmap(place, pages.get()) }?;
        let flags = access.sharing() | MapFlags::MAP_FIXED_NOREPLACE;
        // SAFETY: a new mapping where no other is (`MAP_FIXED_NOREPLACE`, which every kernel since 4.17 knows)
        // changes nothing that exists.
        let mapped = unsafe { mmap(Some(place.addr()), pages, access.rights(), flags, fd, offset) };
        // What is left of the reservation. If it cannot be let go (too many mappings), it costs addresses only.
        for (rest, rest_bytes) in [(reserved, ahead), (behind, step_bytes - ahead)] {
            if rest_bytes > 0 {
                // SAFETY: the pages before and behind `place` belong to the reservation above, and to nobody else.
                let _ = unsafe { munmap(rest, rest_bytes) };
            }
        }
        match mapped {
            // Another thread was quicker. It happens seldom: who looks for a place here looks for a larger one.
            Err(Errno::EEXIST) if tries_left > 0 => tries_left -= 1,
            result => return result,
        }
    }
}

/// Maps `pages` bytes of `fd`, too few for a huge page, at a place of the kernel's choice.
fn map_anywhere(
    fd: BorrowedFd<'_>,
    offset: i64,
    pages: NonZeroUsize,
    access: Access,
) -> Result<NonNull<c_void>, Errno> {
    // SAFETY: a new mapping at a place of the kernel's choice changes nothing that exists.
    unsafe { mmap(None, pages, access.rights(), access.sharing(), fd, offset) }
}

fn check_whole_words(len_bytes: u64) -> Result<(), Error> {
    let alignment = WORD_BYTES as u64;
    if len_bytes.is_multiple_of(alignment) {
        return Ok(());
    }
    Err(Error::Unaligned { what: "the length of a region of words", found: len_bytes, alignment })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the crate refuses to compile where usize has not 64 bits"
)]
pub(crate) const fn to_usize(value: u64) -> usize {
    value as usize
}

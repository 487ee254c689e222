//! Telling a forked child from the process that was forked, without a system call.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::error::{Error, refused};
use crate::region::page_bytes;

/// A word that is set in the process that made it, and zero in every process forked from it until that says
/// otherwise.
///
/// The kernel wipes its page at fork (`MADV_WIPEONFORK`, Linux 4.14), however the child was made; looking at it costs
/// a load.
///
/// ```
/// let mark = plasmon_shm::ForkMark::new()?;
/// assert!(mark.is_here());
/// # Ok::<(), plasmon_shm::Error>(())
/// ```
#[derive(Debug)]
pub struct ForkMark {
    page: NonNull<AtomicU64>,
    len_bytes: usize,
}

// SAFETY: the page belongs to the process, not to a thread, and holds an atomic.
unsafe impl Send for ForkMark {}
// SAFETY: `&ForkMark` gives out loads of an atomic only.
unsafe impl Sync for ForkMark {}

impl ForkMark {
    /// Makes a mark of this process. Takes a page.
    ///
    /// # Errors
    /// [`Error::System`] if the kernel has no page, or does not know `MADV_WIPEONFORK`.
    pub fn new() -> Result<Self, Error> {
        let len_bytes = usize::try_from(page_bytes()).expect("a page fits into memory");
        let refuse = |call| refused(call, || "a page that forked children find empty".to_owned());
        let length = NonZeroUsize::new(len_bytes).expect("a page is not empty");
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: `mmap_anonymous` asks for nothing where the kernel chooses the address.
        let page =
            unsafe { mmap_anonymous(None, length, access, MapFlags::MAP_PRIVATE) }.map_err(refuse("mmap"))?;
        // From here on the page is unmapped when the mark is dropped.
        let mark = Self { page: page.cast(), len_bytes };
        // SAFETY: `madvise` asks that the advice harm no other user of the pages: this mark alone has them.
        unsafe { madvise(page, len_bytes, MmapAdvise::MADV_WIPEONFORK) }.map_err(refuse("madvise"))?;
        mark.word().store(1, Ordering::Relaxed);
        Ok(mark)
    }

    /// Makes the mark one of this process, which is a forked child and has taken over what the mark stands for.
    pub fn renew(&self) {
        self.word().store(1, Ordering::Relaxed);
    }

    /// Whether this process made the mark, or has renewed it: false in a forked child at first.
    #[must_use]
    #[inline]
    pub fn is_here(&self) -> bool {
        self.word().load(Ordering::Relaxed) != 0
    }

    fn word(&self) -> &AtomicU64 {
        // SAFETY: the page is mapped, aligned and zeroed or written as an atomic for as long as `&self` lives; a child
        // that inherits it finds it zeroed, and mapped as well.
        unsafe { self.page.as_ref() }
    }
}

impl Drop for ForkMark {
    fn drop(&mut self) {
        // SAFETY: `munmap` asks that nobody use the pages any more: every reference to the word borrowed `self`.
        let _ = unsafe { munmap(self.page.cast(), self.len_bytes) };
    }
}

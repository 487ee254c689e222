//! Atomics and fences: the standard ones, or loom's when models are built (`--cfg loom`).

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU64, Ordering, fence};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64, Ordering, fence};

/// Words of shared memory that may only be loaded: the index as a client sees it, mapped read-only.
///
/// Words that the owner may write as well (`[AtomicU64]`) are also readable through this trait.
pub trait Words {
    /// Number of words.
    fn count(&self) -> usize;

    /// Loads word `index`.
    ///
    /// # Panics
    /// If `index` is not below [`count`](Self::count).
    fn load(&self, index: usize, order: Ordering) -> u64;
}

impl Words for [AtomicU64] {
    #[inline]
    fn count(&self) -> usize {
        self.len()
    }

    #[inline]
    fn load(&self, index: usize, order: Ordering) -> u64 {
        self[index].load(order)
    }
}

impl<W: Words + ?Sized> Words for &W {
    #[inline]
    fn count(&self) -> usize {
        (**self).count()
    }

    #[inline]
    fn load(&self, index: usize, order: Ordering) -> u64 {
        (**self).load(index, order)
    }
}

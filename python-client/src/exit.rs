//! Waiting without the interpreter lock, and what becomes of that when the interpreter ends.
//!
//! Before 3.14 an ending interpreter unwinds every other thread that asks for its lock, and Rust aborts the process
//! rather than being unwound that way. So daemon threads that come back from a wait once the end has begun stay where
//! they are, as they do from 3.14 on, and the end begins when no thread is on its way back.

use pyo3::prelude::*;
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, ThreadId},
};

/// Set once the interpreter is about to end: the thread that ends it.
static ENDING: OnceLock<ThreadId> = OnceLock::new();

/// Threads on their way back to the lock. Counted before they look at [`ENDING`], so that either they see that it is
/// set, or whoever sets it sees them.
static RETURNING: AtomicUsize = AtomicUsize::new(0);

/// Calls `wait` without the interpreter lock.
pub(crate) fn detached<T: Send>(py: Python<'_>, wait: impl FnOnce() -> T + Send) -> T {
    let result = py.detach(|| {
        let result = wait();
        RETURNING.fetch_add(1, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
        if ENDING.get().is_some_and(|ending| *ending != thread::current().id()) {
            RETURNING.fetch_sub(1, Ordering::SeqCst);
            loop {
                thread::park(); // until the process ends
            }
        }
        result
    });
    RETURNING.fetch_sub(1, Ordering::SeqCst);
    result
}

/// Keeps other threads away from the interpreter lock from now on. Called by the main thread, by `atexit`, when the
/// interpreter is about to end.
#[pyfunction]
pub(crate) fn prepare_exit(py: Python<'_>) {
    let _ = ENDING.set(thread::current().id());
    std::sync::atomic::fence(Ordering::SeqCst); // then look: against the count before the look in `detached`
    py.detach(|| {
        while RETURNING.load(Ordering::SeqCst) > 0 {
            thread::yield_now();
        }
    });
}

/// In a forked child: the threads that were on their way back are not here.
#[pyfunction]
pub(crate) fn forget_other_threads() {
    RETURNING.store(0, Ordering::SeqCst);
}

//! Waiting without the interpreter lock, and what becomes of that when the interpreter ends.
//!
//! Before Python 3.14, an ending interpreter unwinds every other thread that asks for its lock. Rust code aborts the
//! process when it is unwound that way. So does the C++ code of pyarrow, which releases the lock while it reads a
//! table.
//!
//! This module keeps both from being unwound. Once the end has begun, a daemon thread that returns from a wait or
//! begins to read a table stops there for good, as it does from 3.14 on. The end begins only when no thread is on its
//! way back to the lock or in the middle of a table.

use crate::stack::with_room;
use pyo3::{prelude::*, types::PyTuple};
use std::{
    cell::Cell,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, ThreadId},
};

/// Set once the interpreter is about to end: the thread that ends it.
static ENDING: OnceLock<ThreadId> = OnceLock::new();

/// What the end waits for: threads on their way back to the lock, and such as are [`Undisturbed`]. Counted before they
/// look at [`ENDING`], so that either they see that it is set, or whoever sets it sees them.
static RETURNING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// How often this thread is [`Undisturbed`]. The end waits for it then, so it goes on.
    static UNDISTURBED: Cell<usize> = const { Cell::new(0) };
}

/// Counts this thread among those that the end waits for; false if it comes too late for that.
fn arrive() -> bool {
    RETURNING.fetch_add(1, Ordering::SeqCst);
    std::sync::atomic::fence(Ordering::SeqCst);
    let ends = ENDING.get().is_some_and(|ending| *ending != thread::current().id());
    let is_late = ends && UNDISTURBED.get() == 0;
    if is_late {
        leave();
    }
    !is_late
}

fn leave() {
    RETURNING.fetch_sub(1, Ordering::SeqCst);
}

/// Stays here until the process ends.
fn stay() -> ! {
    loop {
        thread::park();
    }
}

/// Calls `wait`, which runs no Python code, without the interpreter lock.
pub(crate) fn detached<T: Send>(py: Python<'_>, wait: impl FnOnce() -> T + Send) -> T {
    detached_here(py, || with_room(wait))
}

/// Calls `wait` without the interpreter lock, on this thread's own stack.
pub(crate) fn detached_here<T: Send>(py: Python<'_>, wait: impl FnOnce() -> T + Send) -> T {
    let result = py.detach(|| {
        let result = wait();
        if !arrive() {
            stay();
        }
        result
    });
    leave();
    result
}

/// `with` this, code of others that gives the lock away can be called by a daemon thread: the interpreter does not end
/// in the middle of it.
#[pyclass(frozen, module = "plasmon._plasmon")]
pub(crate) struct Undisturbed;

#[pymethods]
impl Undisturbed {
    #[new]
    fn new() -> Undisturbed {
        Undisturbed
    }

    fn __enter__(&self, py: Python<'_>) {
        if !arrive() {
            py.detach(|| stay());
        }
        UNDISTURBED.set(UNDISTURBED.get() + 1);
    }

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, _raised: &Bound<'_, PyTuple>) {
        UNDISTURBED.set(UNDISTURBED.get() - 1);
        leave();
    }
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

/// In a forked child: the other threads that the end would wait for are not here.
#[pyfunction]
pub(crate) fn forget_other_threads() {
    RETURNING.store(UNDISTURBED.get(), Ordering::SeqCst);
}

//! Room on the stack, for threads whose own is short (`threading.stack_size`): Arrow's types nest, and each level is a
//! call.

use std::{panic, thread};

/// What the deepest types and values that are taken need, with room to spare.
const NEEDED_BYTES: usize = 2 << 20;

/// How long the stack is that is used instead of one that may be too short.
const LENGTH_BYTES: usize = 4 << 20;

/// Calls `work`, which runs no Python code, with room on the stack.
pub(crate) fn with_room<R>(work: impl FnOnce() -> R) -> R {
    stacker::maybe_grow(NEEDED_BYTES, LENGTH_BYTES, work)
}

/// Calls `work`, which may run Python code, with room on the stack: in another thread where this one has too little. An
/// interpreter that looks how much of its thread's stack is left has to find it on that thread's.
pub(crate) fn in_thread_with_room<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    if stacker::remaining_stack().is_none_or(|left_bytes| left_bytes >= NEEDED_BYTES) {
        return work();
    }
    thread::scope(|scope| match thread::Builder::new().stack_size(LENGTH_BYTES).spawn_scoped(scope, work) {
        Ok(thread) => thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked)),
        Err(error) => panic!("no thread can be started for what this one's stack is too short for: {error}"),
    })
}

//! Room on the stack for what recurses.

/// Calls `work`, on a longer stack if this thread's may be too short for what nests as deep as it may: types 64 levels,
/// JSON 127. What `work` calls makes no Python object and waits for nothing.
pub(crate) fn with_room<R>(work: impl FnOnce() -> R) -> R {
    stacker::maybe_grow(NEEDED_BYTES, GROWN_BYTES, work)
}

/// Measured: unoptimised, the deepest JSON takes 160 KiB and the deepest type 240 KiB.
const NEEDED_BYTES: usize = 512 << 10;

/// Backed by memory as far as it is used.
const GROWN_BYTES: usize = 1 << 20;

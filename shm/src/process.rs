//! What a process and the kernel say about each other, and the clocks that processes share.

use nix::sys::prctl;
use nix::time::{ClockId, clock_gettime};

use crate::error::{Error, refused};

/// Keeps this process's memory from others of its uid: no core dumps, no `/proc/PID/mem`, no `/proc/PID/fd`.
///
/// Without it a process of the same uid could reopen the daemon's descriptors, and write the index.
///
/// # Errors
/// [`Error::System`] if the kernel refuses.
pub fn set_not_dumpable() -> Result<(), Error> {
    prctl::set_dumpable(false).map_err(refused("prctl(PR_SET_DUMPABLE)", || "not dumpable".to_owned()))
}

/// The uid that the kernel shows for all users who have no number in this user namespace: nobody's own.
///
/// ```
/// assert_ne!(plasmon_shm::overflow_uid(), 0);
/// ```
#[must_use]
pub fn overflow_uid() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    text.trim().parse().unwrap_or(65_534)
}

/// Nanoseconds since the machine started, counting the time it slept (CLOCK_BOOTTIME).
///
/// # Panics
/// Never on a kernel this crate runs on: the clock exists since Linux 2.6.39.
///
/// ```
/// let earlier = plasmon_shm::boottime_ns();
/// assert!(plasmon_shm::boottime_ns() >= earlier);
/// ```
#[must_use]
pub fn boottime_ns() -> u64 {
    clock_ns(ClockId::CLOCK_BOOTTIME)
}

/// Nanoseconds since the machine started, without the time it slept, in steps of a few milliseconds.
///
/// The cheapest clock there is (CLOCK_MONOTONIC_COARSE, 4 ns): for "has it been 50 ms?" on a hot path.
///
/// # Panics
/// Never on a kernel this crate runs on: the clock exists since Linux 2.6.32.
///
/// ```
/// let earlier = plasmon_shm::monotonic_coarse_ns();
/// assert!(plasmon_shm::monotonic_coarse_ns() >= earlier);
/// ```
#[must_use]
pub fn monotonic_coarse_ns() -> u64 {
    clock_ns(ClockId::CLOCK_MONOTONIC_COARSE)
}

fn clock_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).expect("every kernel since 5.14 has this clock");
    let seconds = u64::try_from(now.tv_sec()).expect("these clocks start at zero");
    let nanoseconds = u64::try_from(now.tv_nsec()).expect("0 to 999,999,999");
    seconds * 1_000_000_000 + nanoseconds
}

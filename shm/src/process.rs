//! What a process and the kernel say about each other, and the clocks that processes share.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::User;

use crate::error::{Error, refused};
use crate::kernel::open_pidfd;
use crate::region::RegionId;

/// Ends the process behind a pidfd, with SIGKILL: that process and no other that has got its number since.
///
/// Returns whether there was a process to end; one that has ended already was not.
///
/// # Errors
/// [`Error::System`] if the kernel refuses: EBADF if `pidfd` is none, EPERM if this process may not.
pub fn kill_process(pidfd: impl AsFd) -> Result<bool, Error> {
    let pidfd = pidfd.as_fd().as_raw_fd();
    let no_info = ptr::null::<libc::siginfo_t>();
    // SAFETY: `pidfd_send_signal` takes a descriptor, a signal, a `siginfo_t` or null, and no flags. The descriptor is
    // borrowed, so it is open meanwhile; without a `siginfo_t` the kernel reads nothing of this process's memory.
    let returned =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, libc::SIGKILL, no_info, 0_u32) };
    match Errno::result(returned) {
        Ok(_) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(errno) => Err(refused("pidfd_send_signal", || "SIGKILL".to_owned())(errno)),
    }
}

/// A descriptor of the process `pid` (a pidfd), which becomes readable when that process has ended.
///
/// ```
/// let myself = plasmon_shm::open_process(std::process::id())?;
/// # drop(myself);
/// # Ok::<(), plasmon_shm::Error>(())
/// ```
///
/// # Errors
/// [`Error::System`]: ESRCH if there is no such process.
pub fn open_process(pid: u32) -> Result<OwnedFd, Error> {
    let number = i32::try_from(pid).map_err(|_| Errno::ESRCH);
    number.and_then(open_pidfd).map_err(refused("pidfd_open", || format!("process {pid}")))
}

/// Whether process `pid` maps one of `regions`.
///
/// ```
/// use plasmon_shm::{Backend, Kernel, Region, maps_any};
///
/// let region = Region::create("plasmon-session", 4096, Backend::Memfd, &Kernel::detect())?;
/// let myself = std::process::id();
/// assert!(!maps_any(myself, &[region.id()?])?);
/// let mapping = region.map_words()?;
/// assert!(maps_any(myself, &[region.id()?])?);
/// # drop(mapping);
/// # Ok::<(), plasmon_shm::Error>(())
/// ```
///
/// May wait for as long as the process keeps its own memory map locked: not for an event loop.
///
/// # Errors
/// [`Error::System`] if the kernel does not show it: ENOENT or ESRCH if there is no such process, EACCES if it is not
/// this process's to look into.
pub fn maps_any(pid: u32, regions: &[RegionId]) -> Result<bool, Error> {
    let path = format!("/proc/{pid}/maps");
    let failed = |cause| Error::System { operation: "reading", asked: path.clone(), cause };
    let maps = std::fs::read(&path).map_err(failed)?;
    Ok(maps.split(|&byte| byte == b'\n').any(|line| {
        // Address, rights, offset, device, inode, path.
        let mut fields = line.split(|&byte| byte == b' ').skip(3);
        let (Some(device), Some(inode)) = (fields.next(), fields.next()) else { return false };
        regions.iter().any(|region| (region.device.as_bytes(), region.inode.as_bytes()) == (device, inode))
    }))
}

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

/// The uid that `text` stands for: a number, or the name of a user of this machine.
///
/// ```
/// assert_eq!(plasmon_shm::uid_of("1001")?, 1_001);
/// assert_eq!(plasmon_shm::uid_of("root")?, 0);
/// assert!(plasmon_shm::uid_of("nobody-has-this-name").is_err());
/// # Ok::<(), plasmon_shm::Error>(())
/// ```
///
/// # Errors
/// [`Error::NoUser`] if there is no user of this name.
pub fn uid_of(text: &str) -> Result<u32, Error> {
    if let Ok(uid) = text.parse() {
        return Ok(uid);
    }
    match User::from_name(text) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        _ => Err(Error::NoUser { name: text.to_owned() }),
    }
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

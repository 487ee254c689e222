//! Signals: which of them end the store, and who sent them.
//!
//! SIGTERM, SIGINT and SIGQUIT end it in order. No other signal does that a process can be spared: a store outlives its
//! terminal (SIGHUP), a log that is full or that nobody reads (SIGXFSZ, SIGPIPE), and whatever somebody sends it.
//! What a processor raises because the program is wrong (SIGSEGV and the like) and SIGKILL end it still.
//!
//! `startup::prepare` takes the signals over, and the loop reads them from a descriptor.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use std::{fmt, os::fd::AsFd};

/// The signals of this process, which come through a descriptor.
#[derive(Debug)]
pub(crate) struct Signals {
    descriptor: SignalFd,
    ignored: u64,
}

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Came {
    /// Whether the store is to end.
    pub(crate) stops: bool,
    number: u32,
    pid: u32,
    uid: u32,
}

impl Signals {
    /// Takes over the signals of this process. They are blocked, which threads that are started later inherit.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn take() -> nix::Result<Signals> {
        let mut blocked = SigSet::all();
        LEFT_ALONE.into_iter().for_each(|signal| blocked.remove(signal));
        blocked.thread_block()?;
        // Those of no account stay pending, where there is at most one of each: they may come by the thousand.
        let mut read = blocked;
        OF_NO_ACCOUNT.into_iter().for_each(|signal| read.remove(signal));
        let descriptor = SignalFd::with_flags(&read, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Ok(Signals { descriptor, ignored: ignored_signals(&status) })
    }

    /// The next signal that came, if there is one.
    pub(crate) fn next(&self) -> Option<Came> {
        let info = self.descriptor.read_signal().ok().flatten()?;
        Some(Came::new(&info, self.ignored))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Came {
    fn new(info: &siginfo, ignored: u64) -> Came {
        Came {
            stops: stops(info.ssi_signo, ignored),
            number: info.ssi_signo,
            pid: info.ssi_pid,
            uid: info.ssi_uid,
        }
    }
}

/// Names the signal and its sender, as far as the kernel tells: `SIGTERM from process 12 of uid 1000`.
impl fmt::Display for Came {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i32::try_from(self.number).ok().and_then(|number| Signal::try_from(number).ok()) {
            Some(signal) => f.write_str(signal.as_str())?,
            None => write!(f, "signal {}", self.number)?,
        }
        match self.pid {
            // The kernel itself, for a terminal; or a process that has no number here.
            0 => f.write_str(" from the terminal, or from outside this container"),
            pid => write!(f, " from process {pid} of uid {}", self.uid),
        }
    }
}

/// What ends the store.
const STOPPING: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];

/// Not blocked: what says that the program is wrong, and what does no harm or is the user's to use. (SIGKILL and
/// SIGSTOP cannot be blocked.)
const LEFT_ALONE: [Signal; 12] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGABRT,
    Signal::SIGSYS,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGCHLD,
    Signal::SIGURG,
    Signal::SIGWINCH,
];

/// What the kernel sends because of a timer, a limit or a write. A log line for each could cause the next of them.
const OF_NO_ACCOUNT: [Signal; 8] = [
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
    Signal::SIGPIPE,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// Whether a signal ends the store. One that whoever started it had it ignore does not: that is how a shell keeps
/// Ctrl-C from what it runs in the background.
fn stops(number: u32, ignored: u64) -> bool {
    STOPPING.into_iter().any(|signal| {
        let is_ignored = signal != Signal::SIGTERM && ignored & (1 << (number - 1)) != 0;
        signal as u32 == number && !is_ignored
    })
}

/// The signals that this process was started with ignoring, one bit each, out of `/proc/self/status`.
fn ignored_signals(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_signals_end_a_store_and_no_other() {
        let ending: Vec<_> = Signal::iterator().filter(|&signal| stops(signal as u32, 0)).collect();
        assert_eq!(ending, [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM]);
        assert!(!stops(34, 0), "nor a real-time signal");
    }

    #[test]
    fn what_a_shell_has_a_background_process_ignore_does_not_end_it() {
        let ignored = ignored_signals("Name:\tx\nSigIgn:\t0000000000000006\nSigCgt:\t0000000000000000\n");
        assert_eq!(ignored, 0b110); // SIGINT and SIGQUIT
        assert!(!stops(Signal::SIGINT as u32, ignored) && !stops(Signal::SIGQUIT as u32, ignored));
        assert!(stops(Signal::SIGTERM as u32, u64::MAX), "something must end it");
    }

    #[test]
    fn a_signal_is_shown_with_its_sender() {
        let came = |number, pid| Came { stops: true, number, pid, uid: 7 }.to_string();
        assert_eq!(came(15, 12), "SIGTERM from process 12 of uid 7");
        assert!(came(2, 0).starts_with("SIGINT from the terminal"));
        assert!(came(40, 12).starts_with("signal 40 from"));
    }
}

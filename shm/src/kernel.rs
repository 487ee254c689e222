//! Which newer kernel calls are used, and what is used where one is missing.

use std::ffi::c_long;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socketpair, sockopt};

use crate::error::{Error, refused};

/// Which newer kernel calls are used.
///
/// Detected once, when a daemon or a client starts, and passed to what needs it. Each has a fallback; tests pretend
/// that some are missing.
///
/// ```
/// use plasmon_shm::Kernel;
///
/// let kernel = Kernel::detect().pretend_missing("collapse,peer_pidfd")?;
/// assert!(!kernel.collapse && !kernel.peer_pidfd);
/// # Ok::<(), plasmon_shm::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// `MFD_NOEXEC_SEAL` (Linux 6.3): a memfd that can never be executed.
    pub noexec_seal: bool,
    /// `MADV_COLLAPSE` (Linux 6.1): huge pages on request.
    pub collapse: bool,
    /// `SO_PEERPIDFD` (Linux 6.5): a socket's peer as a descriptor that names no other process.
    pub peer_pidfd: bool,
    /// `pidfd_open` (Linux 5.3, though a sandbox may forbid it): a process as a descriptor.
    pub pidfd_open: bool,
    /// `F_SEAL_FUTURE_WRITE` (Linux 5.1): no new writable mapping, by anybody.
    pub future_write_seal: bool,
}

impl Kernel {
    /// Finds out what this kernel offers, by asking for each thing once on throw-away objects.
    #[must_use]
    pub fn detect() -> Self {
        Self {
            noexec_seal: detect_noexec_seal(),
            collapse: madvise_knows(libc::MADV_COLLAPSE),
            peer_pidfd: detect_peer_pidfd(),
            pidfd_open: open_pidfd(std::process::id().cast_signed()).is_ok(),
            future_write_seal: detect_future_write_seal(),
        }
    }

    /// Fails where the kernel is older than anything Plasmon runs on (Linux 5.14).
    ///
    /// # Errors
    /// [`Error::System`] if the kernel cannot populate pages on request.
    pub fn check_minimum() -> Result<(), Error> {
        if madvise_knows(libc::MADV_POPULATE_WRITE) && madvise_knows(libc::MADV_POPULATE_READ) {
            return Ok(());
        }
        let asked = || "this needs Linux 5.14 or newer".to_owned();
        Err(refused("madvise(MADV_POPULATE_WRITE)", asked)(Errno::EINVAL))
    }

    /// The same kernel without some of its calls, so that their fallbacks are used.
    ///
    /// `names` are names of fields, separated by commas; spaces around them and empty ones do not matter.
    ///
    /// # Errors
    /// [`Error::UnknownKernelCall`] if a name is no field.
    pub fn pretend_missing(mut self, names: &str) -> Result<Self, Error> {
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "noexec_seal" => self.noexec_seal = false,
                "collapse" => self.collapse = false,
                "peer_pidfd" => self.peer_pidfd = false,
                "pidfd_open" => self.pidfd_open = false,
                "future_write_seal" => self.future_write_seal = false,
                _ => {
                    let known =
                        self.report().into_iter().map(|(name, ..)| name).collect::<Vec<_>>().join(", ");
                    return Err(Error::UnknownKernelCall { name: name.to_owned(), known });
                }
            }
        }
        Ok(self)
    }

    /// For each call: its name, whether it is used, and what is used where it is not.
    #[must_use]
    pub fn report(&self) -> Vec<(&'static str, bool, &'static str)> {
        vec![
            ("noexec_seal", self.noexec_seal, "file modes without the executable bits"),
            ("collapse", self.collapse, "MADV_POPULATE_WRITE with small pages"),
            ("peer_pidfd", self.peer_pidfd, "pidfd_open of the pid that the socket names"),
            ("pidfd_open", self.pidfd_open, "the end of the connection"),
            ("future_write_seal", self.future_write_seal, "read-only descriptors and file modes"),
        ]
    }
}

/// A descriptor of the process `pid`, which the kernel opens with close-on-exec.
pub(crate) fn open_pidfd(pid: i32) -> Result<OwnedFd, Errno> {
    let flags: c_long = 0;
    // SAFETY: `pidfd_open` takes two integers and touches no memory of this process.
    let returned = unsafe { libc::syscall(libc::SYS_pidfd_open, c_long::from(pid), flags) };
    let fd = RawFd::try_from(Errno::result(returned)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: `from_raw_fd` asks for an open descriptor that nothing else owns: the kernel has just made this one
    // for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The flag of `memfd_create` that nix 0.31 has no name for.
pub(crate) const MFD_NOEXEC_SEAL: MFdFlags = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);

fn detect_noexec_seal() -> bool {
    memfd_create("plasmon-probe", MFdFlags::MFD_CLOEXEC | MFD_NOEXEC_SEAL).is_ok()
}

fn detect_future_write_seal() -> bool {
    memfd_create("plasmon-probe", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)
        .is_ok_and(|fd| fcntl(fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_FUTURE_WRITE)).is_ok())
}

fn detect_peer_pidfd() -> bool {
    socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
        .is_ok_and(|(socket, _peer)| getsockopt(&socket.as_fd(), sockopt::PeerPidfd).is_ok())
}

/// Whether `madvise` knows `advice`. Its manual recommends this empty range as the way to ask.
fn madvise_knows(advice: i32) -> bool {
    // SAFETY: the range is empty, so no page's contents or rights change.
    let returned = unsafe { libc::madvise(ptr::null_mut(), 0, advice) };
    returned == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_in_the_report_can_be_pretended_missing() {
        for (name, ..) in Kernel::detect().report() {
            let kernel = Kernel::detect().pretend_missing(name).unwrap();
            let used: Vec<_> =
                kernel.report().into_iter().filter(|(reported, ..)| *reported == name).collect();
            assert!(matches!(used[..], [(_, false, _)]), "{name}");
        }
    }

    #[test]
    fn an_unknown_call_is_refused_and_the_known_ones_are_named() {
        let refusal = Kernel::detect().pretend_missing("collapse, time_travel").unwrap_err().to_string();
        assert!(refusal.contains("time_travel") && refusal.contains("future_write_seal"), "{refusal}");
    }

    #[test]
    fn an_empty_list_of_missing_calls_changes_nothing() {
        assert_eq!(Kernel::detect().pretend_missing(" ,").unwrap(), Kernel::detect());
    }

    #[test]
    fn this_kernel_is_new_enough() {
        Kernel::check_minimum().unwrap();
    }
}

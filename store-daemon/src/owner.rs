//! The process that the store ends with (`--owner`).
//!
//! `startup::prepare` opens it. The loop ends the store when the owner's pidfd fires, or asks now and then where there
//! is no pidfd.

use crate::startup::StartError;
use plasmon_shm::Kernel;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The process that started this one, and that the store ends with.
#[derive(Debug)]
pub(crate) struct Owner {
    pid: u32,
    /// `None` where the kernel, or a sandbox, gives none: then it is asked now and then who started this process.
    pidfd: Option<OwnedFd>,
}

impl Owner {
    /// The owner of this number, which must have started this process: the number then stands for nobody else.
    ///
    /// # Errors
    /// [`StartError::NotOwned`].
    pub(crate) fn of(pid: u32, kernel: &Kernel) -> Result<Owner, StartError> {
        let pidfd = if kernel.pidfd_open { plasmon_shm::open_process(pid).ok() } else { None };
        let owner = Owner { pid, pidfd };
        // Still our parent, so it was alive when it was opened, and has had its number ever since.
        if owner.has_ended() { Err(StartError::NotOwned { owner: pid }) } else { Ok(owner) }
    }

    /// What becomes readable when it has ended, if the kernel gives that.
    pub(crate) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(OwnedFd::as_fd)
    }

    /// Whether it has ended: a process whose parent has ended gets another.
    pub(crate) fn has_ended(&self) -> bool {
        nix::unistd::getppid().as_raw().cast_unsigned() != self.pid
    }
}

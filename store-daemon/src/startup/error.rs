//! Why a store could not start: what `main` prints and exits with.
//!
//! `startup::prepare` returns it.

use crate::{limits::LimitError, size::Human, socket::SocketError};
use plasmon_shm::Limit;
use std::io;

/// Why the store could not start. One line each, with a next step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// More was asked for than the machine or a cgroup can give.
    #[error(
        "a size of {} cannot be reserved: {} leaves {} after a margin; choose a --size of at most {fits_bytes}, or \
         --reserve lazy to leave it to the writers", Human(*.asked_bytes), .bound_by, Human(*.fits_bytes)
    )]
    DoesNotFit {
        /// What was asked for, in bytes.
        asked_bytes: u64,
        /// What would fit, in bytes.
        fits_bytes: u64,
        /// What sets the limit.
        bound_by: String,
    },
    /// The size is no size for an arena.
    #[error("a size of {asked_bytes} bytes is too small; choose a --size of at least 4096 bytes")]
    TooSmall {
        /// What was asked for, in bytes.
        asked_bytes: u64,
    },
    /// Named segments are open to their user alone, so nobody else could be served.
    #[error(
        "--arena named cannot serve other users, whom --allow-uid admits; leave out --allow-uid, or use --arena memfd"
    )]
    NamedForOthers,
    /// Two namespaces of `--cache` have the same id.
    #[error("--cache {namespace} has the same id as {holder}; choose another namespace")]
    CacheIdTaken {
        /// The namespace.
        namespace: String,
        /// What has its id.
        holder: String,
    },
    /// A signal told the store to stop before it was ready.
    #[error("stopped before it was ready")]
    Interrupted,
    /// The socket cannot be served.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The kernel refused something.
    #[error("{0}")]
    Shm(#[from] plasmon_shm::Error),
    /// The owner is not the process that started the store, or has ended already.
    #[error(
        "process {owner} did not start this store, or has ended; --owner is for the process that starts a store"
    )]
    NotOwned {
        /// The process that was named.
        owner: u32,
    },
    /// What the kernel allows this process (`ulimit`) is too little for a store.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The kernel starts no further thread.
    #[error("cannot start helper thread {name}: {cause}{}", processes_allowed())]
    Thread {
        /// The thread's name.
        name: &'static str,
        /// Why.
        cause: io::Error,
    },
    /// The kernel refused something.
    #[error("{what}: {cause}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        cause: nix::Error,
    },
}

impl StartError {
    /// The exit code that scripts can tell this error by (see `plasmon-store --help`).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::NamedForOthers | StartError::CacheIdTaken { .. } => 2,
            StartError::Interrupted => 0,
            StartError::DoesNotFit { .. }
            | StartError::TooSmall { .. }
            | StartError::Limit(LimitError::FileSize { .. } | LimitError::Memory { .. }) => 3,
            StartError::Socket(SocketError::InUse { .. }) => 5,
            StartError::Socket(_) => 4,
            StartError::Shm(_)
            | StartError::System { .. }
            | StartError::Thread { .. }
            | StartError::Limit(_)
            | StartError::NotOwned { .. } => 1,
        }
    }
}

/// The limits that may be why no thread can be started, as the end of a sentence.
fn processes_allowed() -> String {
    let cgroup = "a container, or the service manager, may allow fewer (pids.max; TasksMax= in a unit)";
    match Limit::Processes.get() {
        Some(count) => {
            format!("; this user may have {count} processes and threads (ulimit -u), and {cgroup}")
        }
        None => format!("; {cgroup}"),
    }
}

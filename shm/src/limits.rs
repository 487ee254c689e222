//! Limits that the kernel holds this process to (`ulimit`), and which of them may be behind a refusal.

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// A limit that the kernel holds this process to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Bytes of addresses, mapped files included (`ulimit -v`).
    AddressSpace,
    /// Bytes of private writable memory (`ulimit -d`).
    Data,
    /// Bytes of a file that this process makes longer, memfds included (`ulimit -f`).
    FileSize,
    /// Descriptors (`ulimit -n`).
    Descriptors,
    /// Processes and threads of this user (`ulimit -u`).
    Processes,
    /// Bytes of the first thread's stack (`ulimit -s`).
    Stack,
}

impl Limit {
    /// What the kernel allows now; `None` if there is no end to it.
    ///
    /// ```
    /// assert!(plasmon_shm::Limit::Descriptors.get().is_some_and(|count| count > 0));
    /// ```
    #[must_use]
    pub fn get(self) -> Option<u64> {
        getrlimit(self.resource()).ok().map(|(soft, _)| soft).filter(|&soft| soft != RLIM_INFINITY)
    }

    /// Raises the limit as far as this process may by itself, and returns what the kernel allows then.
    ///
    /// A process may raise what it is held to up to a second limit, the hard one, which only root raises.
    #[must_use]
    pub fn raise(self) -> Option<u64> {
        if let Ok((soft, hard)) = getrlimit(self.resource())
            && soft != hard
        {
            // Where the kernel refuses, what it allowed before still holds, and is what `get` returns.
            let _ = setrlimit(self.resource(), hard, hard);
        }
        self.get()
    }

    /// How a shell shows and sets it.
    #[must_use]
    pub fn command(self) -> &'static str {
        match self {
            Limit::AddressSpace => "ulimit -v",
            Limit::Data => "ulimit -d",
            Limit::FileSize => "ulimit -f",
            Limit::Descriptors => "ulimit -n",
            Limit::Processes => "ulimit -u",
            Limit::Stack => "ulimit -s",
        }
    }

    /// The limit that may be why the kernel answered `errno`, in words: what it is, and how a shell shows it.
    #[must_use]
    pub(crate) fn behind(errno: Errno) -> Option<String> {
        let limits: &[(Limit, &str)] = match errno {
            Errno::ENOMEM => &[
                (Limit::AddressSpace, "bytes may be mapped by this process"),
                (Limit::Data, "bytes of private memory are allowed to this process"),
            ],
            Errno::EFBIG => &[(Limit::FileSize, "bytes are the longest file that this process may make")],
            Errno::EMFILE => &[(Limit::Descriptors, "descriptors are allowed to this process")],
            _ => &[],
        };
        limits.iter().find_map(|(limit, what)| Some(format!("{} {what} ({})", limit.get()?, limit.command())))
    }

    fn resource(self) -> Resource {
        match self {
            Limit::AddressSpace => Resource::RLIMIT_AS,
            Limit::Data => Resource::RLIMIT_DATA,
            Limit::FileSize => Resource::RLIMIT_FSIZE,
            Limit::Descriptors => Resource::RLIMIT_NOFILE,
            Limit::Processes => Resource::RLIMIT_NPROC,
            Limit::Stack => Resource::RLIMIT_STACK,
        }
    }
}

/// Makes the allocator of the C library keep all threads' memory in one heap.
///
/// By itself glibc sets 64 MiB of addresses aside for each thread, which is much where addresses are limited
/// ([`Limit::AddressSpace`]). Call it before the first thread is started. Does nothing with other C libraries.
pub fn keep_one_heap() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: `mallopt` takes two integers, sets a parameter of the allocator under the allocator's own lock, and
        // touches no memory of its caller.
        let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_limit_that_may_be_behind_it() {
        let descriptors = Limit::behind(Errno::EMFILE).unwrap();
        assert!(descriptors.contains("ulimit -n"), "{descriptors}");
        assert_eq!(Limit::behind(Errno::EPERM), None);
    }
}

//! What the kernel lets this process have (`ulimit`), looked at before the store says that it is ready.
//!
//! A store that cannot make its regions, or that has no descriptors left for a client, refuses to start and says which
//! number to change. A process that runs out of addresses while it serves would be ended by the next allocation, so
//! where they are limited, what clients can make the daemon hold is fitted to what is left of them.
//!
//! `startup::prepare` calls [`Limits::check`] once, before it takes the socket or makes a region.

use crate::{budget, options::Options, size::Human};
use plasmon_shm::Limit;
use std::fs;

/// Why the limits of this process allow no store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// The kernel counts a memfd as a file, and allows none as long as this.
    #[error(
        "the store's memory needs files of {needed_bytes} bytes ({}), and this process may make files of \
         {allowed_bytes} bytes; raise the limit (ulimit -f unlimited; LimitFSIZE= in a unit), or choose a smaller --size",
        Human(*.needed_bytes)
    )]
    FileSize {
        /// The longest file that is needed.
        needed_bytes: u64,
        /// The longest that is allowed.
        allowed_bytes: u64,
    },
    /// There are too few descriptors for any client.
    #[error(
        "this process may open {allowed} descriptors, and a store that serves anybody needs {}; raise the limit \
         (ulimit -n {}; LimitNOFILE= in a unit)",
        budget::DESCRIPTORS_MIN,
        budget::DESCRIPTORS_MIN
    )]
    Descriptors {
        /// How many are allowed.
        allowed: u64,
    },
    /// There are too few addresses for the store's own tables and for what clients send.
    #[error(
        "this process may have {allowed_bytes} bytes of memory ({command}), and the store needs {needed_bytes} bytes \
         ({}) for its tables and for requests; raise the limit ({command} unlimited), or choose a smaller --max-objects",
        Human(*.needed_bytes)
    )]
    Memory {
        /// How much is needed.
        needed_bytes: u64,
        /// How much is allowed.
        allowed_bytes: u64,
        /// How a shell sets the limit.
        command: &'static str,
    },
    /// The stack of the thread that serves is too short.
    #[error(
        "this process may have a stack of {allowed_bytes} bytes, and the store needs {STACK_BYTES_MIN} bytes; raise the \
         limit (ulimit -s unlimited; LimitSTACK= in a unit)"
    )]
    Stack {
        /// The longest stack that is allowed.
        allowed_bytes: u64,
    },
}

/// What the kernel allows this process; `None` where there is no end to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    file_bytes: Option<u64>,
    descriptors: Option<u64>,
    memory: Option<MemoryLimit>,
}

/// How much memory this process may have, by addresses or by private pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryLimit {
    allowed_bytes: u64,
    limit: Limit,
    /// Of it, what is left to requests, replies and names, and so not to sessions.
    kept_bytes: u64,
}

/// What a store will need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// The longest of its regions.
    pub(crate) region_bytes_max: u64,
    /// Bytes that it maps for as long as it lives, or all at once while it starts.
    pub(crate) mapped_bytes: u64,
}

impl Limits {
    /// Raises each limit as far as this process may, and reads what holds then. The store is all that this process does.
    pub(crate) fn raised() -> Limits {
        let address_space = Limit::AddressSpace.raise().map(|bytes| (bytes, Limit::AddressSpace));
        let data = Limit::Data.raise().map(|bytes| (bytes, Limit::Data));
        let memory = address_space.into_iter().chain(data).min_by_key(|(bytes, _)| *bytes);
        if memory.is_some() {
            plasmon_shm::keep_one_heap();
        }
        Limits {
            file_bytes: Limit::FileSize.raise(),
            descriptors: Limit::Descriptors.raise(),
            memory: memory.map(|(allowed_bytes, limit)| MemoryLimit { allowed_bytes, limit, kept_bytes: 0 }),
        }
    }

    /// The limits of a process that does something else besides: it gets more descriptors, and keeps the rest as it is.
    pub(crate) fn of_host() -> Limits {
        Limits {
            file_bytes: Limit::FileSize.get(),
            descriptors: Limit::Descriptors.raise(),
            ..Limits::default()
        }
    }

    /// Whether a store can work within these limits, of which it has used `used_bytes` of memory already. Where memory
    /// is limited, `options` are made to fit.
    ///
    /// # Errors
    /// [`LimitError`]: what is too little, and how to have more.
    pub(crate) fn check(
        mut self,
        needs: Needs,
        used_bytes: u64,
        options: &mut Options,
    ) -> Result<Limits, LimitError> {
        match self.file_bytes {
            Some(allowed_bytes) if allowed_bytes < needs.region_bytes_max => {
                return Err(LimitError::FileSize { needed_bytes: needs.region_bytes_max, allowed_bytes });
            }
            _ => {}
        }
        match self.descriptors {
            Some(allowed) if allowed < budget::DESCRIPTORS_MIN => {
                return Err(LimitError::Descriptors { allowed });
            }
            _ => {}
        }
        if let Some(memory) = &mut self.memory {
            let taken_bytes = used_bytes.saturating_add(needs.mapped_bytes).saturating_add(OWN_BYTES);
            let left_bytes = memory.allowed_bytes.saturating_sub(taken_bytes);
            if left_bytes < LEFT_BYTES_MIN {
                return Err(LimitError::Memory {
                    needed_bytes: taken_bytes.saturating_add(LEFT_BYTES_MIN),
                    allowed_bytes: memory.allowed_bytes,
                    command: memory.limit.command(),
                });
            }
            memory.kept_bytes = left_bytes / 2;
            fit(options, left_bytes);
        }
        Ok(self)
    }

    /// What limits the memory of this process, if anything does.
    pub(crate) fn memory(&self) -> Option<MemoryLimit> {
        self.memory
    }
}

impl MemoryLimit {
    /// Whether the daemon may map `more_bytes` for a session, now that it has `used_bytes`.
    pub(crate) fn allows(self, more_bytes: u64, used_bytes: u64) -> bool {
        used_bytes.saturating_add(more_bytes).saturating_add(self.kept_bytes) <= self.allowed_bytes
    }

    /// How much there is, and which limit says so, for people.
    pub(crate) fn describe(self) -> (String, u64) {
        (format!("bytes of the daemon's own memory ({})", self.limit.command()), self.allowed_bytes)
    }
}

/// Makes what clients can have the daemon hold fit into half of `left_bytes`. Buffers take up to twice what they hold.
fn fit(options: &mut Options, left_bytes: u64) {
    let share = |of: u64| usize::try_from(left_bytes / of).unwrap_or(usize::MAX);
    options.max_held_requests_in_all = options.max_held_requests_in_all.min(share(8));
    options.max_held_requests = options.max_held_requests.min(options.max_held_requests_in_all);
    options.max_queued_output_in_all = options.max_queued_output_in_all.min(share(32));
    options.max_queued_output = options.max_queued_output.min(options.max_queued_output_in_all);
    options.max_text_bytes = options.max_text_bytes.min(left_bytes / 16);
}

/// Raises the limit of the first thread's stack as far as this process may. The kernel compares it whenever the stack
/// grows, so this counts at once; it is done before anything else is, because reading the command line needs a stack.
///
/// # Errors
/// [`LimitError::Stack`] if it stays too short.
pub(crate) fn raise_stack() -> Result<(), LimitError> {
    match Limit::Stack.raise() {
        Some(allowed_bytes) if allowed_bytes < STACK_BYTES_MIN => Err(LimitError::Stack { allowed_bytes }),
        _ => Ok(()),
    }
}

/// The memory that this process has now: the larger of what limits on addresses and on private pages count.
#[must_use]
pub(crate) fn used_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_ascii_whitespace().next().and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0).saturating_mul(plasmon_shm::page_bytes())
}

/// Stacks of the helper threads, and windows on the arena.
const OWN_BYTES: u64 = 32 << 20;

/// What is left for requests, replies, names and sessions, at the least: two of the longest requests fit into an
/// eighth of it.
const LEFT_BYTES_MIN: u64 = 256 << 20;

/// What the deepest calls of the loop take, and much to spare.
const STACK_BYTES_MIN: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs { region_bytes_max: 64 << 20, mapped_bytes: 16 << 20 };

    fn options() -> Options {
        Options::new(64 << 20, "socket".into())
    }

    #[test]
    fn where_nothing_is_limited_nothing_is_refused_or_changed() {
        let mut fitted = options();
        Limits::default().check(NEEDS, 1 << 20, &mut fitted).unwrap();
        assert_eq!(fitted.max_held_requests_in_all, options().max_held_requests_in_all);
    }

    #[test]
    fn each_limit_that_is_too_low_is_named_with_its_number_and_its_command() {
        let memory =
            |allowed_bytes| Some(MemoryLimit { allowed_bytes, limit: Limit::AddressSpace, kept_bytes: 0 });
        for (limits, parts) in [
            (Limits { file_bytes: Some((64 << 20) - 1), ..Limits::default() }, ["67108863", "ulimit -f"]),
            (Limits { descriptors: Some(16), ..Limits::default() }, ["16", "ulimit -n 96"]),
            (Limits { memory: memory(300 << 20), ..Limits::default() }, ["314572800", "ulimit -v"]),
        ] {
            let refusal = limits.check(NEEDS, 1 << 20, &mut options()).unwrap_err().to_string();
            parts.iter().for_each(|part| assert!(refusal.contains(part), "{part:?} is not in {refusal:?}"));
        }
        let enough = Limits { file_bytes: Some(64 << 20), descriptors: Some(96), ..Limits::default() };
        enough.check(NEEDS, 1 << 20, &mut options()).unwrap();
    }

    #[test]
    fn what_clients_can_have_the_daemon_hold_fits_what_memory_is_left() {
        let memory = MemoryLimit { allowed_bytes: 512 << 20, limit: Limit::AddressSpace, kept_bytes: 0 };
        let limits = Limits { memory: Some(memory), ..Limits::default() };
        let mut fitted = options();
        let memory = limits.check(NEEDS, 16 << 20, &mut fitted).unwrap().memory().unwrap();
        let left_bytes = (512 - 16 - 16 - 32) << 20;
        let held = 2 * (fitted.max_held_requests_in_all + fitted.max_queued_output_in_all) as u64;
        assert!(held + fitted.max_text_bytes <= left_bytes / 2, "{fitted:?}");
        assert!(fitted.max_held_requests as u64 >= 2 * u64::from(plasmon_protocol::limits::FRAME_BYTES_MAX));
        // A session may have what that leaves, and no more.
        let used_bytes = (16 + 16 + 32) << 20;
        assert!(memory.allows(left_bytes / 2, used_bytes));
        assert!(!memory.allows(left_bytes / 2 + 1, used_bytes));
    }
}

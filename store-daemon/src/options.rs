//! The command line of `plasmon-store`.
//!
//! `run` in `lib.rs` parses them once; everything else is given the parsed [`Options`].

use crate::{size::Size, standing::Cache};
use clap::{Parser, ValueEnum};
use std::path::PathBuf;

/// When memory is claimed from the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Reserve {
    /// All of it, before the store says that it is ready.
    Now,
    /// By a helper thread from the start on; nothing is ever written to memory that was not claimed before.
    Background,
    /// By whoever writes first. The writer's cgroup pays, and the OOM killer may answer.
    Lazy,
}

/// How the shared regions are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arena {
    /// Anonymous files passed over the socket: nothing in /dev/shm, sealed, read-only for readers.
    Memfd,
    /// Named segments in /dev/shm. Portable, but without what the kernel enforces for memfd (docs/layout.md).
    Named,
}

const EXAMPLES: &str = "\
Examples:
  plasmon-store --size 4GiB                      serve this user, at the default socket
  plasmon-store -m 50000000 -s /tmp/plasma       as with Apache Plasma
  plasmon-store -m 25% --reserve now             a quarter of the machine, claimed before the ready line
  plasmon-store --probe                          what this kernel offers and what size would fit

Exit codes:
  0  stopped by SIGTERM, SIGINT or SIGQUIT
  1  something failed that has no code of its own
  2  wrong options
  3  the size cannot be reserved, or a limit of this process (ulimit) is below what it takes
  4  the socket's path cannot be used
  5  another store serves this socket
  6  stopped by a defect of its own, after which clients find no store rather than one that hangs";

/// A shared-memory object store: owns a fixed-capacity arena and serves it to the processes of this machine.
#[derive(Clone, Debug, Parser)]
#[command(name = "plasmon-store", version, about, after_help = EXAMPLES)]
pub struct Options {
    /// Capacity of the arena: bytes, a unit (50MB, 4GiB) or a share of the memory of machine or container (25%)
    #[arg(short = 'm', long, value_name = "SIZE", required_unless_present_any = ["probe", "tidy"])]
    pub size: Option<Size>,

    /// Path of the Unix socket [default: $PLASMON_SOCKET, or plasmon/store.sock in $XDG_RUNTIME_DIR or /run/user/UID,
    /// or /tmp/plasmon-UID/store.sock]
    #[arg(short, long, value_name = "PATH", env = "PLASMON_SOCKET")]
    pub socket: Option<PathBuf>,

    /// How the shared regions are made
    #[arg(long, value_enum, default_value = "memfd")]
    pub arena: Arena,

    /// When memory is claimed from the machine
    #[arg(long, value_enum, default_value = "background")]
    pub reserve: Reserve,

    /// Most names that can be bound [default: size / 16 KiB, at least 65536]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_objects: Option<u32>,

    /// Most pins one process may hold
    #[arg(long, value_name = "N", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_pins: u32,

    /// Most sessions (client processes) in all
    #[arg(long, value_name = "N", default_value_t = 1_024, value_parser = at_least_one())]
    pub max_sessions: usize,

    /// Most sessions of one uid
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = at_least_one())]
    pub max_sessions_per_uid: usize,

    /// Most sessions of one process
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one())]
    pub max_sessions_per_process: usize,

    /// Most connections in all, and at most half of the descriptors (ulimit -n)
    #[arg(long, value_name = "N", default_value_t = 8_192, value_parser = at_least_one())]
    pub max_connections: usize,

    /// Most connections of one uid, and at most a quarter of the descriptors
    #[arg(long, value_name = "N", default_value_t = 4_096, value_parser = at_least_one())]
    pub max_connections_per_uid: usize,

    /// Most connections of one process, and at most an eighth of the descriptors
    #[arg(long, value_name = "N", default_value_t = 1_024, value_parser = at_least_one())]
    pub max_connections_per_process: usize,

    /// Most unanswered requests of one connection
    #[arg(long, value_name = "N", default_value_t = plasmon_protocol::limits::IN_FLIGHT_MAX,
        value_parser = at_least_one())]
    pub max_in_flight: usize,

    /// Most bytes of requests that one process may have incomplete or unanswered; beyond it no more is read. At most a
    /// quarter of what all may have
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20, value_parser = two_frames())]
    pub max_held_requests: usize,

    /// Most bytes of requests that all sessions may have incomplete or unanswered
    #[arg(long, value_name = "BYTES", default_value_t = 512 << 20, value_parser = two_frames())]
    pub max_held_requests_in_all: usize,

    /// Most bytes of replies that a connection may leave unread
    #[arg(long, value_name = "BYTES", default_value_t = plasmon_protocol::limits::QUEUED_OUTPUT_BYTES_MAX)]
    pub max_queued_output: usize,

    /// Most bytes of replies that all connections may leave unread
    #[arg(long, value_name = "BYTES", default_value_t = 512 << 20)]
    pub max_queued_output_in_all: usize,

    /// Most namespaces
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_namespaces: u64,

    /// Most bytes of descriptions and metadata, of all names together
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20)]
    pub max_text_bytes: u64,

    /// Most versions of names that are kept after they ended, for history, snapshots and views. [default: as many as
    /// --max-objects]
    #[arg(long, value_name = "N")]
    pub max_kept: Option<u32>,

    /// Time in which a frame that has begun must be complete
    #[arg(long, value_name = "MS", default_value_t = plasmon_protocol::limits::FRAME_TIME_MS_MAX,
        value_parser = clap::value_parser!(u64).range(1..=86_400_000))]
    pub frame_time_ms: u64,

    /// Admit this user as well, by uid or by name; it never gets a way to write the arena itself (repeatable; not with
    /// --arena named)
    #[arg(long = "allow-uid", value_name = "USER", value_parser = plasmon_shm::uid_of)]
    pub allow_uids: Vec<u32>,

    /// Make this namespace a cache for good, whatever clients declare or remove, and let its names live that long if nobody
    /// says anything else, such as results or results=10m (repeatable)
    #[arg(long = "cache", value_name = "NAMESPACE[=TIME]")]
    pub caches: Vec<Cache>,

    /// End when this process, which starts the store, has ended, however it ended
    #[arg(long, value_name = "PID")]
    pub owner: Option<u32>,

    /// Write `ready` and the socket's path to standard output when clients can connect; end if nobody reads it
    #[arg(long)]
    pub tell_ready: bool,

    /// Remove the socket's directory as well when the store ends, if nothing else is in it
    #[arg(long, hide = true)]
    pub remove_directory: bool,

    /// Remove what a store that was killed has left at the socket's path and in /dev/shm, and exit
    #[arg(long)]
    pub tidy: bool,

    /// Leave the daemon dumpable, so that debuggers and same-uid tools can look into it
    #[arg(long)]
    pub debuggable: bool,

    /// How much to log to standard error: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log: tracing::level_filters::LevelFilter,

    /// Print what this kernel offers and what size would fit, and exit
    #[arg(long)]
    pub probe: bool,

    /// Pretend that the kernel lacks these calls, so that their fallbacks can be tested
    #[arg(long, value_name = "CALLS", hide = true, default_value = "")]
    pub pretend_missing: String,

    /// Take this folder for a cgroup of this process, so that limits of memory can be tested
    #[arg(long, value_name = "FOLDER", hide = true)]
    pub pretend_cgroup: Option<PathBuf>,

    /// Let this helper thread panic, so that what follows can be tested
    #[arg(long, value_name = "THREAD", hide = true, default_value = "")]
    pub pretend_panic: String,
}

fn at_least_one() -> clap::builder::RangedU64ValueParser<usize> {
    clap::builder::RangedU64ValueParser::new().range(1..)
}

/// The longest frame fits beside what else is held.
fn two_frames() -> clap::builder::RangedU64ValueParser<usize> {
    clap::builder::RangedU64ValueParser::new()
        .range(2 * u64::from(plasmon_protocol::limits::FRAME_BYTES_MAX)..)
}

impl Options {
    /// Options as if `plasmon-store --size SIZE --socket SOCKET` had been typed.
    #[must_use]
    pub fn new(size_bytes: u64, socket: PathBuf) -> Self {
        let mut options = Options::parse_from(["plasmon-store", "--probe"]);
        options.probe = false;
        options.size = Some(Size::Bytes(size_bytes));
        options.socket = Some(socket);
        options
    }

    /// Most names for a capacity of `capacity_bytes`.
    #[must_use]
    pub fn entry_count(&self, capacity_bytes: u64) -> u32 {
        let by_size = u32::try_from(capacity_bytes / (16 << 10)).unwrap_or(u32::MAX);
        self.max_objects.unwrap_or(by_size.max(65_536)).min(plasmon_protocol::layout::IndexShape::ENTRIES_MAX)
    }

    /// How many versions are kept at most after they ended, in a store of so many names.
    pub(crate) fn kept_max(&self, entries: u32) -> u64 {
        self.max_kept.unwrap_or(entries).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn plasmas_own_flags_work() {
        let options = Options::parse_from(["plasmon-store", "-m", "50000000", "-s", "/tmp/plasma"]);
        assert_eq!(options.size, Some(Size::Bytes(50_000_000)));
        assert_eq!(options.socket, Some(PathBuf::from("/tmp/plasma")));
    }
}

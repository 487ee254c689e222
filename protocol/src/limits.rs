//! Every bound of the protocol. A frame, a list or a string beyond its bound is refused before anything is allocated
//! for it.

/// Body of one frame, in bytes. Protects the daemon's memory from a length word.
pub const FRAME_BYTES_MAX: u32 = 16 << 20;

/// First frame of a connection, with its header, in bytes: who has no session yet is given little.
pub const HELLO_BYTES_MAX: usize = 4_096;

/// Encoded object that may travel inside a [`Commit`](crate::message::Commit), in bytes. Larger ones go through a
/// lease, so that the daemon's loop copies little.
pub const INLINE_BYTES_MAX: u32 = 64 << 10;

/// Replies waiting for a peer that does not read them, in bytes; beyond it the connection is closed.
pub const QUEUED_OUTPUT_BYTES_MAX: usize = 32 << 20;

/// Requests of one connection that may be unanswered at once.
pub const IN_FLIGHT_MAX: usize = 64;

/// Conditions, and changes, in one commit: so many of each. The daemon keeps some 100 bytes for each change beyond
/// the commit's body while it is on its way.
pub const COMMIT_ENTRIES_MAX: u32 = 2 << 20;

/// Conditions that a failed commit names.
pub const FAILED_CONDITIONS_MAX: u32 = 1_000;

/// Body of a commit that stands in a lease, in bytes. The daemon copies it into its own memory, one at a time.
pub const COMMIT_BYTES_MAX: u64 = 256 << 20;

/// Names in one [`FindMany`](crate::message::FindMany).
pub const RECALL_NAMES_MAX: u32 = 65_536;

/// Names in one page of a listing.
pub const PAGE_NAMES_MAX: u32 = 4_096;

/// Most names in a page of bare names.
pub const PAGE_BARE_NAMES_MAX: u32 = 16_384;

/// A page of bare names that has so many bytes takes no more names.
pub const PAGE_BARE_NAMES_BYTES_MAX: usize = 1 << 20;

/// Names in one [`DescribedPage`](crate::message::DescribedPage).
pub const PAGE_DESCRIBED_MAX: u32 = 1_024;

/// A page of described names whose texts have so many bytes takes no more names.
pub const PAGE_DESCRIBED_BYTES_MAX: usize = 1 << 20;

/// Names that one [`ThenPage`](crate::message::ThenPage) looks at.
pub const PAGE_THEN_LOOKS_MAX: u32 = 16_384;

/// Snapshots in one [`SnapshotsPage`](crate::message::SnapshotsPage).
pub const PAGE_SNAPSHOTS_MAX: u32 = 64;

/// Views in one [`ViewsPage`](crate::message::ViewsPage).
pub const PAGE_VIEWS_MAX: u32 = 1_024;

/// Namespaces of one snapshot.
pub const SNAPSHOT_NAMESPACES_MAX: u32 = 1_024;

/// Snapshots of one store.
pub const SNAPSHOTS_MAX: u64 = 65_536;

/// Views that one session may have.
pub const VIEWS_MAX: usize = 1_024;

/// Pins in one [`PinsPage`](crate::message::PinsPage).
pub const PAGE_PINS_MAX: u32 = 4_096;

/// Length of a description, in bytes of UTF-8.
pub const DESCRIPTION_BYTES_MAX: u32 = 64 << 10;

/// Length of a binding's user metadata (a JSON object), in bytes of UTF-8.
pub const METADATA_BYTES_MAX: u32 = 64 << 10;

/// Pin slots of one session region.
pub const PIN_SLOTS: u32 = if cfg!(loom) { 2 } else { 65_536 }; // models explore every word: few

/// Leases that one session may hold at once.
pub const LEASE_SLOTS: u32 = if cfg!(loom) { 1 } else { 1_024 };

/// Reasons and namespaces for which the store counts the learns that it refused.
pub const REFUSALS_MAX: u32 = 4_096;

/// What a binding whose time to live begins anew with each recall gets beyond it, in nanoseconds: recalls are collected
/// every second, and what was recalled must not expire before that was heard of.
pub const SLIDING_SLACK_NS: u64 = 2_000_000_000;

/// Attempts of a reader to see one name steadily in the index before it asks the daemon.
pub const LOOKUP_TRIES_MAX: u32 = 64;

/// Attempts of a reader to see many names at one moment before it asks the daemon.
pub const SNAPSHOT_TRIES_MAX: u32 = 8;

/// Time in which a frame that has begun must be complete, in milliseconds.
pub const FRAME_TIME_MS_MAX: u64 = 30_000;

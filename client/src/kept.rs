//! The lease that a session keeps for the next learn. What is done with it is `lease.rs`'s.

use plasmon_protocol::message::Granted;
use plasmon_shm::LeaseMapping;

/// A lease that was kept after a learn, for the next one: it is laid down, and the store may take it back at any time.
#[derive(Debug)]
pub(crate) struct KeptLease {
    pub(crate) grant: Granted,
    pub(crate) mapping: LeaseMapping,
    /// Bytes from its beginning that are written already.
    pub(crate) written_bytes: u64,
}

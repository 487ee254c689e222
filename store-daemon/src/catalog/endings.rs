//! Which bindings end by themselves, and when: by the clock, or with a session.
//!
//! `Catalog` enters a binding here when it is bound, and removes it when it is unbound. The steps in
//! `state/unbinding.rs` ask `Catalog` which binding ends next.

use super::present::Record;
use crate::session::SessionId;
use std::collections::BTreeSet;

/// The bindings that end by themselves, by the numbers of their index entries.
#[derive(Debug, Default)]
pub(super) struct Endings {
    /// When bindings expire, by CLOCK_BOOTTIME in nanoseconds.
    deadlines: BTreeSet<(u64, u32)>,
    /// The sessions that bindings end with.
    ephemeral: BTreeSet<(SessionId, u32)>,
}

impl Endings {
    /// `record` is bound in entry `number`.
    pub(super) fn add(&mut self, number: u32, record: &Record) {
        if record.entry.expires_ns != 0 {
            self.deadlines.insert((record.entry.expires_ns, number));
        }
        if let Some(owner) = record.owner {
            self.ephemeral.insert((owner, number));
        }
    }

    /// `record` is not bound any more in entry `number`.
    pub(super) fn remove(&mut self, number: u32, record: &Record) {
        if record.entry.expires_ns != 0 {
            self.deadlines.remove(&(record.entry.expires_ns, number));
        }
        if let Some(owner) = record.owner {
            self.ephemeral.remove(&(owner, number));
        }
    }

    /// The binding in entry `number` expires later than it would have.
    pub(super) fn put_off(&mut self, number: u32, before_ns: u64, expires_ns: u64) {
        self.deadlines.remove(&(before_ns, number));
        self.deadlines.insert((expires_ns, number));
    }

    /// The deadline that comes first, and the entry that has it.
    pub(super) fn first_deadline(&self) -> Option<(u64, u32)> {
        self.deadlines.first().copied()
    }

    /// The entry of one of the bindings that end with `session`.
    pub(super) fn first_of(&self, session: SessionId) -> Option<u32> {
        self.ephemeral.range((session, 0)..=(session, u32::MAX)).next().map(|&(_, number)| number)
    }
}

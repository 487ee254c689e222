//! Which bindings end by themselves, and when: by the clock, or with a session.
//!
//! `Catalog` enters a binding here when it is bound, and removes it when it is unbound. The steps in
//! `state/unbinding.rs` ask `Catalog` which binding ends next.

use super::{End, present::Record};
use crate::session::SessionId;
use std::collections::{BTreeMap, BTreeSet};

/// A binding that has ended, and is not unbound yet.
#[derive(Clone, Copy, Debug)]
struct PutOff {
    end: End,
    /// Whether its name's history was dropped since.
    is_purged: bool,
}

/// The bindings that end by themselves, by the numbers of their index entries.
#[derive(Debug, Default)]
pub(super) struct Endings {
    /// When bindings expire, by CLOCK_BOOTTIME in nanoseconds.
    deadlines: BTreeSet<(u64, u32)>,
    /// The sessions that bindings end with.
    ephemeral: BTreeSet<(SessionId, u32)>,
    /// Bindings that have ended, and are not unbound yet because they would have to be kept, and there is no room for that.
    put_off: BTreeMap<u32, PutOff>,
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
        if record.entry.expires_ns != 0 && !self.deadlines.remove(&(record.entry.expires_ns, number)) {
            self.put_off.remove(&number);
        }
        if let Some(owner) = record.owner {
            self.ephemeral.remove(&(owner, number));
        }
    }

    /// The binding in entry `number`, which ends with `end`, cannot be unbound for now.
    pub(super) fn put_off_unbinding(&mut self, number: u32, record: &Record, end: End) {
        self.remove(number, record);
        self.put_off.insert(number, PutOff { end, is_purged: false });
    }

    /// A binding that has ended, and could not be unbound then; and how it ended.
    pub(super) fn first_put_off(&self) -> Option<(u32, End)> {
        self.put_off.first_key_value().map(|(&number, put_off)| (number, put_off.end))
    }

    #[cfg(test)]
    pub(super) fn put_off_count(&self) -> usize {
        self.put_off.len()
    }

    /// How the binding in entry `number` has ended, if it is only not unbound yet.
    pub(super) fn end_of(&self, number: u32) -> Option<End> {
        self.put_off.get(&number).map(|put_off| put_off.end)
    }

    /// If the binding in entry `number` is only not unbound yet, history does not want it any more.
    pub(super) fn purge(&mut self, number: u32) {
        if let Some(put_off) = self.put_off.get_mut(&number) {
            put_off.is_purged = true;
        }
    }

    pub(super) fn is_purged(&self, number: u32) -> bool {
        self.put_off.get(&number).is_some_and(|put_off| put_off.is_purged)
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

//! Bindings that the store itself ends: they expire, or end with a session. Readers see by the clock that a binding has
//! expired; here it is unbound, so that its memory is free again. Deadlines move on that recalls have prolonged.
//!
//! `state/turn.rs` calls these steps when a deadline has passed or a session has ended.

use super::State;
use crate::{catalog::Unbound, session::SessionId};
use plasmon_protocol::id::NameId;
use plasmon_shm::{FaultPoint, fault_point};

/// Bindings to be unbound, deadlines to be moved, and waits to be answered.
#[derive(Debug, Default)]
pub(super) struct Unbinding {
    /// Whether a long commit has held up unbinding. Then unbinding goes next, before another commit has its turn.
    pub(super) is_behind: bool,
    /// Entries that were recalled, and whose deadlines must therefore be moved.
    slid: Vec<u32>,
    /// Sessions that have ended or are leaving. Their ephemeral bindings must be unbound.
    departed: Vec<SessionId>,
    /// Names that were unbound while somebody waited for them. Those waits must still be answered.
    pub(super) untold: Vec<NameId>,
}

impl Unbinding {
    pub(super) fn has_slid(&self) -> bool {
        !self.slid.is_empty()
    }

    pub(super) fn has_departed(&self) -> bool {
        !self.departed.is_empty()
    }

    pub(super) fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }
}

impl State {
    /// Notes entries that the scan thread has found recalled; their deadlines will be moved.
    pub(super) fn on_collected(&mut self, slid: Vec<u32>) {
        self.scans.end_collecting();
        self.unbinding.slid = slid;
    }

    /// Moves the deadlines of recalled bindings until the slice is spent.
    pub(super) fn slide_deadlines(&mut self) {
        let (now_ns, mut slice) = (self.clock.boottime_ns(), self.clock.slice());
        while slice.spend() {
            let Some(number) = self.unbinding.slid.pop() else { return };
            fault_point(FaultPoint::Sliding);
            self.catalog.slide(number, now_ns);
        }
    }

    /// Returns whether a commit is under way. If so, unbinding waits for its end, and goes before the next commit.
    pub(super) fn waits_for_commit(&mut self) -> bool {
        let waits = self.commits.is_under_way();
        self.unbinding.is_behind |= waits;
        waits
    }

    /// The store has ended a binding by itself. Lets go of its object, and notes the name if somebody waits for it. Returns
    /// whether nothing needs the object any more.
    pub(super) fn ended_by_itself(&mut self, unbound: &Unbound) -> bool {
        let unbind = |object| self.objects.unbind(object, unbound.number, || unbound.label());
        let is_last = unbound.object.is_some_and(unbind);
        if self.parked.has_waiter(&unbound.id) {
            self.unbinding.untold.push(unbound.id);
        }
        is_last
    }

    /// Notes that the session's ephemeral bindings must be unbound.
    pub(super) fn depart(&mut self, id: SessionId) {
        if self.catalog.has_ephemeral(id) {
            self.unbinding.departed.push(id);
        }
    }

    /// Unbinds ephemeral bindings of ended sessions until the slice is spent, unless a commit is under way.
    pub(super) fn unbind_ephemeral(&mut self) {
        if self.waits_for_commit() {
            return;
        }
        let mut slice = self.clock.slice();
        while slice.spend()
            && let Some(&session) = self.unbinding.departed.last()
        {
            match self.catalog.end_one_of(session) {
                Some(unbound) => {
                    self.ended_by_itself(&unbound);
                }
                None => drop(self.unbinding.departed.pop()),
            }
        }
    }

    /// Unbinds expired bindings until the slice is spent, unless a commit is under way.
    pub(super) fn expire_bindings(&mut self) {
        let now_ns = self.clock.boottime_ns();
        if self.catalog.next_expiry().is_none_or(|first| first > now_ns) || self.waits_for_commit() {
            return;
        }
        let (mut slice, mut expired) = (self.clock.slice(), 0);
        while slice.spend()
            && let Some(unbound) = self.catalog.expire(now_ns)
        {
            fault_point(FaultPoint::Expired);
            self.ended_by_itself(&unbound);
            expired += 1;
        }
        self.counters.expired += expired;
        tracing::debug!(expired, "bindings have expired");
    }

    /// Whether somebody is still to be told that a name has changed.
    #[cfg(test)]
    pub(super) fn is_telling(&self) -> bool {
        self.is_mid_commit() || self.unbinding.has_untold() || self.parked.can_go_on(self.moment())
    }

    /// Tells those who wait for names that were unbound, for a slice, once what unbound them is all visible. A name may be
    /// bound again by then, and somebody may wait who knows that.
    pub(super) fn tell_unbound(&mut self) {
        if self.is_mid_commit() {
            return;
        }
        let (now_ns, mut slice) = (self.clock.boottime_ns(), self.clock.slice());
        while slice.spend()
            && let Some(id) = self.unbinding.untold.pop()
        {
            self.parked.name_changed(&id, self.catalog.version_of(&id, now_ns));
        }
    }
}

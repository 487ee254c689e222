//! Bindings that the store itself ends: they expire, or end with a session. Readers see by the clock that a binding has
//! expired; here it is unbound, so that its memory is free again. Deadlines move on that recalls have prolonged.
//!
//! `state/turn.rs` calls these steps when a deadline has passed or a session has ended.

use super::State;
use crate::{
    catalog::{End, Ending, Unbound},
    session::SessionId,
};
use plasmon_protocol::{id::NameId, message::Reason};
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
        self.versions.last = self.versions.last.max(unbound.ended_by());
        let is_last = unbound.settle(&mut self.objects);
        if self.parked.has_waiter(&unbound.id) {
            self.unbinding.untold.push(unbound.id);
        }
        is_last
    }

    /// How what the store unbinds in this turn ends. Its number is taken once something has.
    pub(super) fn next_end(&self, reason: Reason) -> End {
        End { version: self.versions.last + 1, reason, now_ns: self.clock.boottime_ns() }
    }

    /// Notes that the session's ephemeral bindings must be unbound, and its views ended.
    pub(super) fn depart(&mut self, id: SessionId) {
        if self.catalog.has_ephemeral(id) || self.catalog.past.views_of(id) > 0 {
            self.unbinding.departed.push(id);
        }
    }

    /// Unbinds ephemeral bindings of ended sessions and ends their views until the slice is spent, unless a commit is under
    /// way.
    pub(super) fn unbind_ephemeral(&mut self) {
        if self.waits_for_commit() {
            return;
        }
        let (mut slice, end) = (self.clock.slice(), self.next_end(Reason::Expired));
        while slice.spend()
            && let Some(&session) = self.unbinding.departed.last()
        {
            match self.catalog.end_one_of(session, end) {
                Ending::Unbound(unbound) => {
                    self.ended_by_itself(&unbound);
                }
                Ending::PutOff => self.versions.last = end.version,
                Ending::Nothing if self.catalog.past.end_view_of(session) => {}
                Ending::Nothing => drop(self.unbinding.departed.pop()),
            }
        }
    }

    /// Unbinds expired bindings until the slice is spent, unless a commit is under way. All that end in one turn have one
    /// number.
    pub(super) fn expire_bindings(&mut self) {
        let end = self.next_end(Reason::Expired);
        let is_due = self.catalog.next_expiry().is_some_and(|first| first <= end.now_ns);
        if !(is_due || self.catalog.has_put_off()) || self.waits_for_commit() {
            return;
        }
        let (mut slice, mut expired) = (self.clock.slice(), 0);
        while slice.spend() {
            let ending = match self.catalog.expire(end) {
                Ending::Nothing => self.catalog.end_put_off(),
                ending => ending,
            };
            match ending {
                Ending::Unbound(unbound) => {
                    fault_point(FaultPoint::Expired);
                    self.ended_by_itself(&unbound);
                    expired += 1;
                }
                Ending::PutOff => self.versions.last = end.version,
                Ending::Nothing => break,
            }
        }
        self.counters.expired += expired;
        tracing::debug!(expired, "bindings have expired");
    }

    /// Lets go of what the past keeps for nobody any more until the slice is spent, unless a commit is under way.
    pub(super) fn judge_past(&mut self) {
        if self.waits_for_commit() {
            return;
        }
        let (now_ns, mut slice) = (self.clock.boottime_ns(), self.clock.slice());
        while let Some(gone) = self.catalog.judge_past(now_ns, &mut slice) {
            fault_point(FaultPoint::PastDropped);
            self.objects.release_if_any(gone);
        }
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

//! Bindings that expire. Readers see it themselves, by the clock; here what has expired is unbound, so that its memory is
//! free again, and deadlines move on that recalls have prolonged.

use super::Server;
use crate::catalog::Unbound;
use crate::slice::Slice;
use plasmon_shm::{FaultPoint, boottime_ns, fault_point};
use std::time::Duration;

impl Server {
    /// How long it is until the next binding expires; zero if one waits to be unbound.
    pub(super) fn until_next_expiry(&self) -> Option<Duration> {
        self.catalog.next_expiry().map(|at| Duration::from_nanos(at.saturating_sub(boottime_ns())))
    }

    /// Moves the deadlines of what was recalled, for a slice.
    pub(super) fn slide_deadlines(&mut self) {
        if self.slid.is_empty() {
            return;
        }
        let (now_ns, mut slice) = (boottime_ns(), Slice::begin());
        while slice.spend() {
            let Some(number) = self.slid.pop() else { return };
            fault_point(FaultPoint::Sliding);
            self.catalog.slide(number, now_ns);
        }
    }

    /// Whether a commit is under way: what unbinds names besides waits for it, and the next one waits for that.
    pub(super) fn waits_for_commit(&mut self) -> bool {
        let waits = self.commits.is_under_way();
        self.unbinding_is_behind |= waits;
        waits
    }

    /// The store has ended a binding by itself: its object is retired, and who waits for that will be told.
    pub(super) fn retire(&mut self, unbound: Unbound) {
        let Unbound { id, label, entry } = unbound;
        self.space.retire(entry.extent_offset(), || label);
        if self.waits.has(&id) {
            self.unbound_waited.push(id);
        }
    }

    /// Unbinds what ends with sessions that have ended, for a slice, unless a commit is under way.
    pub(super) fn unbind_ephemeral(&mut self) {
        if self.departed.is_empty() || self.waits_for_commit() {
            return;
        }
        let mut slice = Slice::begin();
        while slice.spend()
            && let Some(&session) = self.departed.last()
        {
            match self.catalog.end_one_of(session) {
                Some(unbound) => self.retire(unbound),
                None => drop(self.departed.pop()),
            }
        }
    }

    /// Unbinds what has expired, for a slice, unless a commit is under way.
    pub(super) fn expire_bindings(&mut self) {
        let Some(first) = self.catalog.next_expiry() else { return };
        let now_ns = boottime_ns();
        if first > now_ns {
            return;
        }
        if self.waits_for_commit() {
            return;
        }
        let (mut slice, mut expired) = (Slice::begin(), 0);
        while slice.spend()
            && let Some(unbound) = self.catalog.expire(now_ns)
        {
            fault_point(FaultPoint::Expired);
            self.retire(unbound);
            expired += 1;
        }
        self.counters.expired += expired;
        tracing::debug!(expired, "bindings have expired");
        self.resume_deferred();
    }

    /// What waits for room until all is unbound that had expired by then looks for room again. It need not have been
    /// unbound here: the commit that was under way may have bound or unbound those names.
    pub(super) fn resume_after_expiry(&mut self) {
        if self.after_expiry.is_empty() {
            return;
        }
        let first = self.catalog.next_expiry().unwrap_or(u64::MAX);
        let ready = self.after_expiry.extract_if(.., |(as_of_ns, _)| *as_of_ns < first);
        self.resumable.extend(ready.map(|(_, who)| who));
    }
}

//! What the helper threads report: pages that are there, and pins that a scan found.

use super::{
    AfterScan, EndingScan, Event, Grant, LIMBO_EVERY, LIMBO_EVERY_MAX, Parked, SCAN_ONE_IN, ServeError,
    Server,
};
use crate::commit::ReplyTo;
use crate::populate::Progress;
use crate::reclaim::{Job, Report, ScanDone, ScanJob, UNBOUND_PINS_MAX};
use crate::session::SessionId;
use crate::slice::Slice;
use crate::space::LeaseId;
use plasmon_protocol::message::{AnyRequest, Failure, Granted};
use plasmon_shm::{FaultPoint, fault_point};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

impl Server {
    pub(super) fn on_wake(&mut self) {
        let _ = self.wake.read();
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Populate(Progress::Steps(steps)) => {
                    steps.into_iter().for_each(|step| self.space.populated.add(step));
                }
                Event::Populate(Progress::Met(ticket)) => self.on_populated(ticket, true),
                Event::Populate(Progress::Short(ticket)) => self.on_populated(ticket, false),
                Event::Scanned(done) => self.on_scanned(done),
                Event::Copied(copied) => self.on_copied(copied),
                Event::Collected(slid) => {
                    self.scans.collecting = false;
                    self.slid = slid;
                }
                Event::Looked(gone) => self.on_looked(&gone),
                Event::HelperFailed(name) => self.end = Some(Err(ServeError::Helper { name })),
                Event::Stop => self.stop(),
            }
        }
    }

    pub(super) fn when_populated(&mut self, grant: Grant, missing: VecDeque<usize>) {
        if missing.is_empty() || !self.populates {
            self.give(grant);
            return;
        }
        let ticket = self.next_ticket();
        self.grants.insert(ticket, grant);
        self.demands.ask(ticket, missing);
    }

    pub(super) fn on_populated(&mut self, ticket: u64, enough: bool) {
        let Some(grant) = self.grants.remove(&ticket) else { return };
        if enough {
            self.give(grant);
            return;
        }
        match grant {
            Grant::Lease { reply_to, session, lease, grown_from } => {
                let len_bytes = self.space.lease_of(session, lease).map_or(0, |lease| lease.extent.len_bytes);
                match grown_from {
                    Some(before_bytes) => self.space.shrink_lease(lease, before_bytes),
                    None => self.space.end_lease(lease),
                }
                let failure = self.store_full(len_bytes, true);
                self.fail_lease(reply_to, session, failure);
            }
            Grant::Commit(job) => {
                let failure = self.store_full(job.inline_bytes(), true);
                self.abandon_commit(job, failure);
            }
        }
    }

    pub(super) fn give(&mut self, grant: Grant) {
        match grant {
            Grant::Commit(job) => self.write_commit(job),
            // The session may have ended while the pages were made.
            Grant::Lease { reply_to, session, lease, grown_from } => {
                match self.space.lease_of(session, lease) {
                    Some(found) => {
                        let (slot, extent) = (found.slot, found.extent);
                        let (offset, len_bytes) = (extent.offset, extent.len_bytes);
                        let granted = Granted { lease: lease.0, slot, offset, len_bytes };
                        if !self.tell_granted(reply_to, session, &granted) {
                            // Nobody knows of it.
                            match grown_from {
                                Some(before_bytes) => self.space.shrink_lease(lease, before_bytes),
                                None => self.space.end_lease(lease),
                            }
                        }
                    }
                    None => self.fail(reply_to, Failure::UnknownSession {}),
                }
            }
        }
    }

    /// Answers with a lease once its pages are there.
    pub(crate) fn grant_lease(
        &mut self,
        reply_to: ReplyTo,
        session: SessionId,
        lease: LeaseId,
        grown_from: Option<u64>,
    ) {
        let missing = match self.space.lease_of(session, lease) {
            Some(found) => self.space.populated.missing(found.extent),
            None => VecDeque::new(),
        };
        self.when_populated(Grant::Lease { reply_to, session, lease, grown_from }, missing);
    }

    /// Parks something until a scan that begins from now on is done.
    pub(crate) fn park_for_scan(&mut self, parked: AfterScan) {
        if self.scans.busy {
            self.scans.next.push(parked);
        } else {
            let report = report_for(&parked);
            self.scans.current.push(parked);
            self.start_scan(report);
        }
    }

    /// Whether a scan could make room: one that is to come, or the one that runs. What processes held that have ended
    /// counts, even if nobody has told the loop yet.
    pub(crate) fn scan_may_help(&mut self) -> bool {
        let ended = self.sessions.ended();
        for &session in &ended {
            self.end_session(session);
        }
        !ended.is_empty() || self.scans.busy || self.space.has_candidates() || self.space.has_backlog()
    }

    pub(super) fn start_scan(&mut self, report: Report) {
        if self.scans.busy {
            return;
        }
        let sessions = self.sessions.pin_regions();
        let job = ScanJob {
            retired: self.space.take_retired(),
            named: std::mem::take(&mut self.scans.named),
            sessions,
            report,
            others_max: self.space.object_count() + UNBOUND_PINS_MAX,
            usage: self.scans.current.iter().any(AfterScan::is_stats),
        };
        self.scans.busy = self.scans.jobs.send(Job::Scan(job)).is_ok();
        self.scans.started += 1;
        self.scans.children_scanned = self.scans.children;
        self.scans.last = Instant::now();
    }

    /// Has the recalls collected that clients have noted.
    pub(super) fn start_collecting(&mut self) {
        // What was collected is worked off first, so that it cannot pile up.
        if self.scans.collecting || !self.slid.is_empty() {
            return;
        }
        let mut regions = std::mem::take(&mut self.scans.left_behind);
        regions.extend(self.sessions.iter().map(|(_, session)| Arc::clone(&session.regions[0].words)));
        if !regions.is_empty() {
            let round = self.catalog.begin_round(regions);
            self.scans.collecting = self.scans.jobs.send(Job::Collect(round)).is_ok();
        }
    }

    /// Has the processes behind closed lifelines looked at.
    pub(super) fn start_look(&mut self) {
        let orphans = self.sessions.orphans();
        self.looks.is_due = false;
        self.looks.busy = !orphans.is_empty() && self.looks.jobs.send(orphans).is_ok();
    }

    fn on_looked(&mut self, gone: &[SessionId]) {
        self.looks.busy = false;
        for &id in gone {
            self.end_session(id);
        }
    }

    pub(super) fn on_scanned(&mut self, mut done: ScanDone) {
        if self.scans.children_scanned != self.scans.children {
            // A child was forked meanwhile, and its parent may have dropped what the child still holds.
            self.scans.busy = false;
            self.space.retire_again(done.unpinned);
            self.start_scan(done.report);
            return;
        }
        fault_point(FaultPoint::Reclaim);
        self.space.reclaim(std::mem::take(&mut done.unpinned));
        self.space.set_limbo(std::mem::take(&mut done.limbo));
        self.scans.ending = Some(EndingScan { done, looked_up: 0, bytes: 0 });
    }

    /// Frees what is to be freed, and looks up what a scan asks for, for a slice. With the last of it the scan is done.
    pub(super) fn free_backlog(&mut self) {
        if !self.space.has_backlog() && self.scans.ending.is_none() {
            return;
        }
        let mut slice = Slice::begin();
        if self.space.free_backlog(&mut slice)
            && self.look_up_pinned(&mut slice)
            && let Some(ending) = self.scans.ending.take()
        {
            self.end_scan(ending);
        }
    }

    /// Looks up which of the offsets that a scan did not know are objects with a name, for as long as `slice` lasts. The
    /// next scan is told, and does not ask again. Returns whether none is left.
    fn look_up_pinned(&mut self, slice: &mut Slice) -> bool {
        let Some(EndingScan { done, looked_up, bytes }) = &mut self.scans.ending else { return true };
        let Some(pinned) = &done.pinned else { return true };
        while let Some(&offset) = pinned.unknown.get(*looked_up) {
            if !slice.spend() {
                return false;
            }
            *looked_up += 1;
            if let Some(object) = self.space.object(offset) {
                *bytes += object.len_bytes;
                if !object.is_nameless() {
                    self.scans.named.push((offset, object.len_bytes));
                }
            }
        }
        true
    }

    fn end_scan(&mut self, EndingScan { done, bytes, .. }: EndingScan) {
        self.scans.busy = false;
        let leaves_after = |id| self.sessions.get(id).and_then(|session| session.leaves_after_scan);
        let has_left = |id| leaves_after(id).is_some_and(|scans| scans < self.scans.started);
        let gone = done.pins.iter().filter(|&&(id, pins)| pins == 0 && has_left(id));
        let gone: Vec<SessionId> = gone.map(|&(id, _)| id).collect();
        if let Some(pinned) = done.pinned {
            self.scans.pinned_bytes = pinned.known_bytes + bytes;
            self.scans.pinned = pinned;
        }
        self.scans.listed = done.listed.or(self.scans.listed.take());
        self.scans.usage = done.usage.unwrap_or(self.scans.usage);
        self.scans.pins = done.pins;
        self.scans.every = (done.took * SCAN_ONE_IN).clamp(LIMBO_EVERY, LIMBO_EVERY_MAX);
        let answered = std::mem::replace(&mut self.scans.current, std::mem::take(&mut self.scans.next));
        if !self.scans.current.is_empty() {
            let report = self.scans.current.iter().map(report_for).max().unwrap_or_default();
            self.start_scan(report);
        }
        self.resumable.extend(answered);
        // Each may begin a scan of its own, which must not stand in for the one that others wait for.
        gone.into_iter().for_each(|id| self.end_session(id));
    }

    /// Goes on with what need not wait any more, for a slice.
    pub(super) fn resume_some(&mut self) {
        let slice = Slice::begin();
        while let Some(who) = self.resumable.pop_front() {
            self.resume(who);
            if slice.is_over() {
                return;
            }
        }
    }
}

/// What a parked request needs to be answered.
fn report_for(parked: &AfterScan) -> Report {
    match parked {
        AfterScan::Request(Parked { request: AnyRequest::ListPins(_), .. }) => Report::Listed,
        AfterScan::Request(Parked { request: AnyRequest::ReadStats(_), .. }) | AfterScan::Evict(..) => {
            Report::Pinned
        }
        _ => Report::Limbo,
    }
}

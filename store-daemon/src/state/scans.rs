//! Scans of the pin tables, and looks at processes: what the loop asks of the scan thread, and what becomes of the answer.
//!
//! One scan runs at a time. Whoever needs one that begins from now on gets its number ([`State::want_scan`]) and waits
//! for that number, or a later one, to be done.
//!
//! Steps of `state/turn.rs` begin scans when somebody wants one. The loop hands the scan thread's reports in.

use super::State;
use crate::{
    effect::Effect,
    memory::Usage,
    parked::Key,
    reclaim::{Job, Pin, Pinned, Report, ScanDone, ScanJob, UNBOUND_PINS_MAX},
    session::SessionId,
    slice::Slice,
};
use plasmon_shm::{FaultPoint, WordsMapping, fault_point};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How often pins are scanned while limbo holds something, or little was retired.
const LIMBO_EVERY: Duration = Duration::from_millis(100);

/// With very many pins a scan takes long. Scans that nobody waits for are then made less often, so that they take at
/// most one part in so many of the scan thread's time. The second constant limits how rare they become.
const SCAN_ONE_IN: u32 = 8;
const LIMBO_EVERY_MAX: Duration = Duration::from_secs(2);

/// Most sessions that ended within a second whose last recalls are collected.
const LEFT_BEHIND_MAX: usize = 256;

/// Most pins that are looked at every second.
const HOUSEKEEPING_PINS_MAX: u64 = 65_536;

/// What the loop knows of scans, and of what they found.
pub(crate) struct Scans {
    /// Whether a scan runs, or the loop still works off what the last one found.
    busy: bool,
    /// Numbers of the last scan that was begun, and of the last one that is done.
    started: u64,
    done: u64,
    /// What the next scan, after the one that runs, has to report. `None` if nobody waits for it.
    wanted: Option<Wanted>,
    /// The result of a scan, while the loop works it off.
    ending: Option<EndingScan>,
    last: Instant,
    /// The time between scans that nobody waits for.
    every: Duration,
    /// Sessions of forked children begun, in all, and when the last scan began. A scan that leaves one out is void.
    children: u64,
    children_scanned: u64,
    /// Pins of each session, as of the last scan.
    pins: Vec<(SessionId, u64)>,
    /// Which objects were pinned, and their bytes, when a request last asked.
    pub(crate) pinned: Arc<Pinned>,
    pub(crate) pinned_bytes: u64,
    /// Who pinned which object when a request last asked.
    pub(crate) listed: Option<Arc<Vec<Pin>>>,
    /// Objects with a name that the last scan did not know, for the next one.
    named: Vec<(u64, u64)>,
    /// What the daemon itself took from the machine when somebody last asked.
    pub(crate) usage: Usage,
    /// Whether a round of collecting recalls is under way, on the same thread.
    collecting: bool,
    /// Regions of sessions that ended with recalls that no round has collected.
    left_behind: Vec<Arc<WordsMapping>>,
}

/// What a scan has to report.
#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    report: Report,
    usage: bool,
}

impl Wanted {
    fn and(self, other: Wanted) -> Wanted {
        Wanted { report: self.report.max(other.report), usage: self.usage || other.usage }
    }
}

/// A scan whose results the loop works off.
struct EndingScan {
    done: ScanDone,
    /// How many of the offsets that the scan did not know are looked up.
    looked_up: usize,
    /// Bytes of the objects among them.
    bytes: u64,
}

/// Looks at processes that live on without their lifeline: one at a time.
#[derive(Debug, Default)]
pub(super) struct Looks {
    busy: bool,
    pub(super) is_due: bool,
}

impl Looks {
    pub(super) fn can_begin(&self) -> bool {
        self.is_due && !self.busy
    }
}

impl Scans {
    pub(crate) fn new(now: Instant) -> Self {
        Scans {
            busy: false,
            started: 0,
            done: 0,
            wanted: None,
            ending: None,
            last: now,
            every: LIMBO_EVERY,
            children: 0,
            children_scanned: 0,
            pins: Vec::new(),
            pinned: Arc::default(),
            pinned_bytes: 0,
            listed: None,
            named: Vec::new(),
            usage: Usage::default(),
            collecting: false,
            left_behind: Vec::new(),
        }
    }

    /// Number of the last scan that is done.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// Number of the last scan that was begun.
    pub(super) fn started(&self) -> u64 {
        self.started
    }

    /// Pins held by all sessions, as of the last scan.
    pub(crate) fn pin_count(&self) -> u64 {
        self.pins.iter().map(|(_, count)| count).sum()
    }

    /// A session of a forked child has begun: a scan that does not know it is void.
    pub(crate) fn note_child(&mut self) {
        self.children += 1;
    }

    /// Keeps the region of a session that has ended, so that the next round still collects the recalls in it.
    pub(super) fn leave_behind(&mut self, region: &Arc<WordsMapping>) {
        if self.left_behind.len() < LEFT_BEHIND_MAX {
            self.left_behind.push(Arc::clone(region));
        }
    }

    pub(super) fn has_left_behind(&self) -> bool {
        !self.left_behind.is_empty()
    }

    pub(super) fn end_collecting(&mut self) {
        self.collecting = false;
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }
}

impl State {
    /// Asks for a scan that begins from now on, and returns its number.
    pub(super) fn want_scan(&mut self, report: Report, usage: bool) -> u64 {
        let wanted = Wanted { report, usage };
        if self.scans.busy {
            self.scans.wanted = Some(self.scans.wanted.unwrap_or_default().and(wanted));
            return self.scans.started + 1;
        }
        self.begin_scan(wanted);
        self.scans.started
    }

    /// Begins a scan that nobody waits for, unless one runs.
    pub(super) fn start_scan(&mut self, report: Report) {
        if !self.scans.busy {
            self.begin_scan(Wanted { report, usage: false });
        }
    }

    fn begin_scan(&mut self, wanted: Wanted) {
        let wanted = self.scans.wanted.take().unwrap_or_default().and(wanted);
        let job = ScanJob {
            retired: self.objects.take_retired(),
            named: std::mem::take(&mut self.scans.named),
            sessions: self.sessions.pin_regions(),
            report: wanted.report,
            others_max: self.objects.len() + UNBOUND_PINS_MAX,
            usage: wanted.usage,
        };
        self.scans.busy = true;
        self.scans.started += 1;
        self.scans.children_scanned = self.scans.children;
        self.scans.last = self.clock.now();
        self.effect(Effect::Scan(Job::Scan(job)));
    }

    /// Whether a scan could make room: one that is to come, or the one that runs. What processes held that have ended
    /// counts, even if nobody has told the loop yet.
    pub(super) fn scan_may_help(&mut self) -> bool {
        let ended = self.sessions.ended();
        for &session in &ended {
            self.end_session(session);
        }
        !ended.is_empty() || self.scans.busy || self.objects.has_candidates() || self.has_backlog()
    }

    /// Whether the next scan could free something, or end a session.
    fn waits_for_scan(&self) -> bool {
        self.objects.has_candidates() || self.sessions.any_leaving()
    }

    /// When a scan is due that nobody waits for.
    pub(super) fn scan_due(&self) -> Option<Instant> {
        if self.scans.busy {
            None
        } else if self.objects.has_much_retired() {
            Some(self.clock.now())
        } else {
            self.waits_for_scan().then(|| self.scans.last + self.scans.every)
        }
    }

    /// Has the recalls collected that clients have noted.
    pub(super) fn start_collecting(&mut self) {
        // What was collected is worked off first, so that it cannot pile up.
        if self.scans.collecting || self.unbinding.has_slid() {
            return;
        }
        let mut regions = std::mem::take(&mut self.scans.left_behind);
        regions.extend(self.sessions.iter().map(|(_, session)| Arc::clone(&session.regions[0].words)));
        if !regions.is_empty() {
            let round = self.catalog.begin_round(regions);
            self.scans.collecting = true;
            self.effect(Effect::Scan(Job::Collect(round)));
        }
    }

    /// Since when a pin is held is known only where somebody looks. Many pins are looked at when asked for.
    pub(super) fn list_few_pins(&mut self) {
        if self.sessions.len() > 0 && self.scans.pin_count() <= HOUSEKEEPING_PINS_MAX {
            self.start_scan(Report::Listed);
        }
    }

    /// Has the processes behind closed lifelines looked at.
    pub(super) fn start_look(&mut self) {
        let orphans = self.sessions.orphans();
        self.looks.is_due = false;
        if !orphans.is_empty() {
            self.looks.busy = true;
            self.effect(Effect::Look(orphans));
        }
    }

    pub(super) fn on_looked(&mut self, gone: &[SessionId]) {
        self.looks.busy = false;
        for &id in gone {
            self.end_session(id);
        }
    }

    pub(super) fn on_scanned(&mut self, mut done: ScanDone) {
        if self.scans.children_scanned != self.scans.children {
            // A child was forked meanwhile, and its parent may have dropped what the child still holds.
            self.objects.retire_again(done.unpinned);
            return self.begin_scan(Wanted { report: done.report, usage: done.usage.is_some() });
        }
        fault_point(FaultPoint::Reclaim);
        self.objects.reclaim(std::mem::take(&mut done.unpinned));
        self.objects.set_limbo(std::mem::take(&mut done.limbo));
        self.scans.ending = Some(EndingScan { done, looked_up: 0, bytes: 0 });
    }

    /// Whether something is free in all but name.
    pub(super) fn has_backlog(&self) -> bool {
        self.objects.has_unpinned() || self.space.has_ended()
    }

    /// Frees what is to be freed, and looks up what a scan asks for, for a slice. With the last of it the scan is done.
    pub(super) fn free_backlog(&mut self) {
        let mut slice = self.clock.slice();
        if self.objects.free_some(&mut self.space, &mut slice)
            && self.space.free_some(&mut slice)
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
            if let Some(object) = self.objects.at(offset) {
                *bytes += object.len_bytes;
                if !object.is_released() {
                    self.scans.named.push((offset, object.len_bytes));
                }
            }
        }
        true
    }

    fn end_scan(&mut self, EndingScan { done, bytes, .. }: EndingScan) {
        let scans = &mut self.scans;
        scans.busy = false;
        scans.done = scans.started;
        if let Some(pinned) = done.pinned {
            scans.pinned_bytes = pinned.known_bytes + bytes;
            scans.pinned = pinned;
        }
        scans.listed = done.listed.or(scans.listed.take());
        scans.usage = done.usage.unwrap_or(scans.usage);
        scans.every = (done.took * SCAN_ONE_IN).clamp(LIMBO_EVERY, LIMBO_EVERY_MAX);
        for &(id, pins) in &done.pins {
            let leaves_after = self.sessions.get(id).and_then(|session| session.leaves_after_scan);
            if pins == 0 && leaves_after.is_some_and(|scans| scans < self.scans.done) {
                self.end_session(id);
            }
        }
        self.scans.pins = done.pins;
        if let Some(wanted) = self.scans.wanted.take().filter(|_| !self.scans.busy) {
            self.begin_scan(wanted);
        }
    }

    /// Whether everything that waits for a scan waits for one that will come.
    pub(super) fn scans_are_on_their_way(&self) -> bool {
        let last = self.scans.started + u64::from(self.scans.wanted.is_some());
        let waiting = self.parked.needs(Key::Scan(self.scans.done + 1), Key::Scan(u64::MAX));
        (self.scans.busy || !waiting) && !self.parked.needs(Key::Scan(last + 1), Key::Scan(u64::MAX))
    }
}

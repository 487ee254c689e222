//! Making room: first of what is free in all but name, then of cached bindings.
//!
//! Whatever finds no room comes to [`State::make_room`], and comes again after each thing that was done for it. The one
//! that waits longest for cached bindings to give way gets an eviction, and the others wait behind it, so that what is
//! known of pins is not old when it counts.

use super::State;
use crate::{
    evict::{Choice, Chosen, Shortage, Victim},
    parked::{Key, Need, Suspended, Ticket, Tried, What},
    reclaim::Report,
};
use plasmon_protocol::message::{Failure, Reason};
use plasmon_shm::{FaultPoint, fault_point};
use std::sync::Arc;

/// How many evictions one request gets, if other requests take the room that they free.
const EVICTIONS_MAX: u8 = 16;

/// A list of at most so many victims is freed on the loop.
const VICTIMS_AT_ONCE: usize = 1_024;

/// Cached bindings that are about to give way.
pub(super) struct Eviction {
    /// For whom, and what that lacks.
    ticket: Ticket,
    shortage: Shortage,
    stage: Stage,
    evicted: u64,
    evicted_bytes: u64,
}

enum Stage {
    /// It waits for the scan of this number, which says what is pinned. Then these give way, if they were chosen already
    /// and none of them is pinned; else it is chosen.
    Looking { scan: u64, chosen: Option<Vec<Victim>> },
    /// `is_slow`: it takes so long that the pins are looked at again before anything goes.
    Choosing { choice: Box<Choice>, is_slow: bool },
    /// So many of these are known not to be pinned.
    Checking { victims: Vec<Victim>, checked: usize },
    /// These go.
    Unbinding { victims: Vec<Victim> },
}

impl State {
    /// Parks a request that found too little room until there may be enough, or fails it if there cannot be enough.
    pub(super) fn make_room(&mut self, shortage: Shortage, who: Suspended) {
        let tried = who.tried();
        if tried == Tried::Nothing {
            // Checked again when the request comes back, because more may have expired in the meantime.
            let as_of_ns = self.clock.boottime_ns();
            if self.catalog.next_expiry().is_some_and(|at| at <= as_of_ns) {
                return self.park(who, Need::Expiry { as_of_ns });
            }
            // An entry of the index is free when its name is unbound.
            if matches!(shortage, Shortage::Room(_)) && self.scan_may_help() {
                return self.park(who, Need::Scan { report: Report::Limbo, usage: false });
            }
        }
        let may_be_enough = match shortage {
            Shortage::Room(room) => {
                let cached_bytes = self.catalog.cached_bytes();
                cached_bytes > 0 && self.space.free_bytes() + cached_bytes >= room.total_bytes
            }
            Shortage::Entries(count) => self.catalog.cached_count_max() >= count,
        };
        if !may_be_enough || tried == Tried::Evicting(EVICTIONS_MAX) {
            return self.fail_for(shortage, who);
        }
        self.parked.add_short(who, shortage);
    }

    /// Whether cached bindings are to give way, and the loop can go on with that.
    pub(super) fn can_evict(&self) -> bool {
        match self.eviction.as_ref().map(|eviction| &eviction.stage) {
            None => self.parked.has_short(),
            Some(Stage::Looking { scan, .. }) => self.scans.done() >= *scan,
            Some(Stage::Choosing { .. } | Stage::Checking { .. } | Stage::Unbinding { .. }) => true,
        }
    }

    /// Goes on with the eviction until the slice is spent: chooses victims, then unbinds them. Waits while a commit is
    /// under way.
    pub(super) fn evict(&mut self) {
        let Some(eviction) = self.eviction.take() else { return self.next_eviction() };
        if self.waits_for_commit() {
            self.eviction = Some(eviction);
            return;
        }
        if self.parked.get(eviction.ticket).is_none() {
            return self.end_eviction(*eviction); // nobody needs the room any more
        }
        self.eviction = self.go_on_evicting(*eviction).map(Box::new);
    }

    fn next_eviction(&mut self) {
        let Some((ticket, shortage)) = self.parked.first_short() else { return };
        // What was recalled until now counts: the same thread collects that, and then scans.
        self.start_collecting();
        let stage = self.look_at_pins(None);
        self.eviction = Some(Box::new(Eviction { ticket, shortage, stage, evicted: 0, evicted_bytes: 0 }));
    }

    fn look_at_pins(&mut self, chosen: Option<Vec<Victim>>) -> Stage {
        Stage::Looking { scan: self.want_scan(Report::Pinned, false), chosen }
    }

    /// Returns what is left to do.
    fn go_on_evicting(&mut self, mut eviction: Eviction) -> Option<Eviction> {
        let mut slice = self.clock.slice();
        loop {
            eviction.stage = match eviction.stage {
                Stage::Looking { scan, .. } if self.scans.done() < scan => return Some(eviction),
                Stage::Looking { chosen: Some(victims), .. } => Stage::Checking { victims, checked: 0 },
                Stage::Looking { chosen: None, .. } => {
                    let choice = Choice::new(eviction.shortage, Arc::clone(&self.scans.pinned));
                    Stage::Choosing { choice: Box::new(choice), is_slow: false }
                }
                Stage::Choosing { mut choice, is_slow } => {
                    let chosen = choice.go_on(&mut self.catalog, &self.objects, &self.space, &mut slice);
                    if let Chosen::More = chosen {
                        eviction.stage = Stage::Choosing { choice, is_slow: true };
                        return Some(eviction);
                    }
                    if choice.is_large() {
                        self.let_go(choice);
                    }
                    match chosen {
                        Chosen::These(victims) if is_slow => self.look_at_pins(Some(victims)),
                        Chosen::These(victims) => Stage::Unbinding { victims },
                        Chosen::Nothing | Chosen::More => {
                            if let Some(who) = self.parked.take(eviction.ticket) {
                                self.fail_for(eviction.shortage, who);
                            }
                            return None;
                        }
                    }
                }
                Stage::Checking { victims, checked } => {
                    let Some(victim) = victims.get(checked) else {
                        eviction.stage = Stage::Unbinding { victims };
                        continue;
                    };
                    let object = victim.object.and_then(|object| self.objects.get(object));
                    if object.is_some_and(|object| self.scans.pinned.contains(object.homes.root().offset)) {
                        self.let_go_of_victims(victims);
                        if let Some(mut who) = self.parked.take(eviction.ticket) {
                            who.note_eviction();
                            self.make_room(eviction.shortage, who);
                        }
                        return None;
                    }
                    let stage = Stage::Checking { victims, checked: checked + 1 };
                    if !slice.spend() {
                        eviction.stage = stage;
                        return Some(eviction);
                    }
                    stage
                }
                Stage::Unbinding { mut victims } => {
                    fault_point(FaultPoint::Evicting);
                    while let Some(victim) = victims.pop() {
                        self.unbind_cached(&mut eviction.evicted, &mut eviction.evicted_bytes, victim);
                        if !slice.spend() {
                            eviction.stage = Stage::Unbinding { victims };
                            return Some(eviction);
                        }
                    }
                    eviction.stage = Stage::Unbinding { victims };
                    self.end_eviction(eviction);
                    return None;
                }
            };
        }
    }

    fn unbind_cached(&mut self, evicted: &mut u64, evicted_bytes: &mut u64, victim: Victim) {
        let end = self.next_end(Reason::Evicted);
        if let Some(unbound) = self.catalog.evict(victim, end) {
            fault_point(FaultPoint::Evicted);
            *evicted += 1;
            let is_last = self.ended_by_itself(&unbound);
            *evicted_bytes += if is_last { unbound.entry.arena_bytes() } else { 0 };
        }
    }

    /// Another thread frees a long list.
    fn let_go_of_victims(&mut self, victims: Vec<Victim>) {
        if victims.capacity() > VICTIMS_AT_ONCE {
            self.let_go(Box::new(victims));
        }
    }

    /// Lets the request that waited try again, once a scan has found the victims unpinned.
    fn end_eviction(&mut self, eviction: Eviction) {
        let Eviction { ticket, stage, evicted, evicted_bytes, .. } = eviction;
        match stage {
            Stage::Looking { chosen: Some(victims), .. }
            | Stage::Checking { victims, .. }
            | Stage::Unbinding { victims } => self.let_go_of_victims(victims),
            Stage::Choosing { choice, .. } if choice.is_large() => self.let_go(choice),
            Stage::Looking { chosen: None, .. } | Stage::Choosing { .. } => {}
        }
        self.counters.evicted += evicted;
        self.counters.evicted_bytes += evicted_bytes;
        tracing::debug!(evicted, evicted_bytes, "cached bindings gave way");
        if let Some(mut who) = self.parked.take(ticket) {
            who.note_eviction();
            let scan = self.want_scan(Report::Limbo, false);
            self.parked.add(who, Key::Scan(scan), None);
        }
    }

    fn fail_for(&mut self, shortage: Shortage, who: Suspended) {
        let failure = match (shortage, &who.what) {
            (Shortage::Entries(count), _) => {
                let (used, limit) = self.catalog.objects();
                Failure::IndexFull { requested: count + limit - used, used, limit }
            }
            (Shortage::Room(_), What::Commit(job)) => self.store_full(job.inline_bytes(), false),
            (Shortage::Room(room), _) => self.store_full(room.len_bytes, false),
        };
        match who.what {
            What::Request(request) => self.fail_lease(who.reply_to, request.session, failure),
            What::Commit(job) => self.abandon_commit(job, failure),
            _ => self.fail(who.reply_to, failure),
        }
    }
}

impl Suspended {
    fn note_eviction(&mut self) {
        let times = if let Tried::Evicting(times) = self.tried() { times } else { 0 };
        self.set_tried(Tried::Evicting((times + 1).min(EVICTIONS_MAX)));
    }
}

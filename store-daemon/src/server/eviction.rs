//! Making room: first of what is free in all but name, then of cached bindings.

use super::{AfterScan, Server, Short, Tried};
use crate::{
    commit::ReplyTo,
    copy::CopyJob,
    evict::{Choice, Chosen, Shortage, Victim},
    slice::Slice,
};
use plasmon_protocol::message::Failure;
use plasmon_shm::{FaultPoint, boottime_ns, fault_point};
use std::sync::Arc;

/// How often cached bindings give way for one request, where others take the room that came of it.
const EVICTIONS_MAX: u8 = 16;

/// Victims whose list is freed at once.
const VICTIMS_AT_ONCE: usize = 1_024;

/// Cached bindings that are about to give way.
pub(super) struct Eviction {
    short: Short,
    choice: Choice,
    /// Whether choosing took so long that the pins are looked at again.
    is_stale: bool,
    /// Those that were chosen and are bound still.
    victims: Option<Vec<Victim>>,
    /// So many of them are known not to be pinned.
    checked: usize,
    evicted: u64,
    evicted_bytes: u64,
}

impl Eviction {
    /// A victim that was chosen before the last scan, which may have found it pinned.
    fn unchecked(&self) -> Option<&Victim> {
        self.victims.as_ref()?.get(self.checked)
    }

    pub(super) fn reply_to(&self) -> ReplyTo {
        self.short.who.reply_to()
    }
}

impl Server {
    /// Something found too little: it goes on when there may be enough, and fails if there cannot be.
    pub(crate) fn make_room(&mut self, shortage: Shortage, mut who: AfterScan) {
        let tried = who.tried();
        if tried == Tried::Nothing {
            // Looked at again and again while there is more of it, for it is unbound slice by slice.
            let now_ns = boottime_ns();
            if self.catalog.next_expiry().is_some_and(|at| at <= now_ns) {
                return self.after_expiry.push((now_ns, who));
            }
            // An entry of the index is free when its name is unbound.
            if matches!(shortage, Shortage::Room(_)) && self.scan_may_help() {
                who.set_tried(Tried::Scan);
                return self.park_for_scan(who);
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
        self.evictions.push_back(Short { shortage, who: Box::new(who) });
        self.next_eviction();
    }

    /// One at a time, so that what is known of pins is not old when it counts.
    fn next_eviction(&mut self) {
        if self.evicting {
            return;
        }
        let Some(short) = self.evictions.pop_front() else { return };
        self.evicting = true;
        // What was recalled until now counts: the same thread collects that, and then scans.
        self.start_collecting();
        self.park_for_scan(AfterScan::Evict(short, Vec::new()));
    }

    /// It is known what is pinned. Victims that were chosen before go if none of them is; else it is chosen again.
    pub(super) fn begin_eviction(&mut self, short: Short, victims: Vec<Victim>) {
        let victims = (!victims.is_empty()).then_some(victims);
        let choice = Choice::new(short.shortage, Arc::clone(&self.scans.pinned));
        let (is_stale, checked, evicted, evicted_bytes) = (false, 0, 0, 0);
        let eviction = Eviction { short, choice, is_stale, victims, checked, evicted, evicted_bytes };
        self.eviction = Some(Box::new(eviction));
    }

    /// Chooses what gives way, and unbinds it, for a slice, unless a commit is under way.
    pub(super) fn evict(&mut self) {
        if self.eviction.is_none() || self.waits_for_commit() {
            return;
        }
        let Some(mut eviction) = self.eviction.take() else { return };
        if !self.connections.contains_key(&eviction.reply_to().connection) {
            return self.end_eviction(*eviction); // nobody needs the room any more
        }
        let mut slice = Slice::begin();
        if eviction.victims.is_none() {
            match eviction.choice.go_on(&mut self.catalog, &self.space, &mut slice) {
                Chosen::More => {
                    eviction.is_stale = true;
                    self.eviction = Some(eviction);
                    return;
                }
                Chosen::Nothing => {
                    let short = self.let_go(*eviction);
                    self.fail_for(short.shortage, *short.who);
                    self.evicting = false;
                    return self.next_eviction();
                }
                Chosen::These(victims) if eviction.is_stale => {
                    let short = self.let_go(*eviction);
                    return self.park_for_scan(AfterScan::Evict(short, victims));
                }
                Chosen::These(victims) => {
                    eviction.checked = victims.len();
                    eviction.victims = Some(victims);
                }
            }
        }
        while let Some(victim) = eviction.unchecked() {
            if victim.offset.is_some_and(|offset| self.scans.pinned.contains(offset)) {
                let mut short = self.let_go(*eviction);
                short.who.note_eviction();
                self.evicting = false;
                return self.make_room(short.shortage, *short.who);
            }
            eviction.checked += 1;
            if !slice.spend() {
                self.eviction = Some(eviction);
                return;
            }
        }
        fault_point(FaultPoint::Evicting);
        while let Some(victim) = eviction.victims.as_mut().and_then(Vec::pop) {
            self.unbind_cached(&mut eviction, victim);
            if !slice.spend() {
                self.eviction = Some(eviction);
                return;
            }
        }
        self.end_eviction(*eviction);
    }

    fn unbind_cached(&mut self, eviction: &mut Eviction, victim: Victim) {
        if let Some(unbound) = self.catalog.evict(victim) {
            fault_point(FaultPoint::Evicted);
            eviction.evicted += 1;
            eviction.evicted_bytes += unbound.entry.arena_bytes();
            self.retire(unbound);
        }
    }

    /// What was gathered for an eviction may be large: another thread frees it.
    fn let_go(&mut self, eviction: Eviction) -> Short {
        if eviction.choice.is_large() || eviction.checked > VICTIMS_AT_ONCE {
            self.copies.ask(CopyJob::LetGo(Box::new((eviction.choice, eviction.victims))));
        }
        eviction.short
    }

    fn end_eviction(&mut self, eviction: Eviction) {
        let Eviction { evicted, evicted_bytes, .. } = eviction;
        let short = self.let_go(eviction);
        self.counters.evicted += evicted;
        self.counters.evicted_bytes += evicted_bytes;
        tracing::debug!(evicted, evicted_bytes, "cached bindings gave way");
        let mut who = *short.who;
        who.note_eviction();
        self.park_for_scan(who);
        self.evicting = false;
        self.next_eviction();
    }

    /// Goes on with what waited for room.
    pub(super) fn resume(&mut self, who: AfterScan) {
        match who {
            AfterScan::Request(parked) => self.on_request(parked),
            AfterScan::Commit(job) => self.resume_commit(job),
            AfterScan::Evict(short, victims) => self.begin_eviction(short, victims),
            AfterScan::Hello(reply_to, hello) => self.on_hello(reply_to, &hello, true),
        }
    }

    fn fail_for(&mut self, shortage: Shortage, who: AfterScan) {
        let failure = match (shortage, &who) {
            (Shortage::Entries(count), _) => {
                let (used, limit) = self.catalog.objects();
                Failure::IndexFull { requested: count + limit - used, used, limit }
            }
            (Shortage::Room(_), AfterScan::Commit(job)) => self.store_full(job.inline_bytes(), false),
            (Shortage::Room(room), _) => self.store_full(room.len_bytes, false),
        };
        match who {
            AfterScan::Request(parked) => self.fail_lease(parked.reply_to, parked.session, failure),
            AfterScan::Commit(job) => self.abandon_commit(job, failure),
            AfterScan::Evict(short, _) => self.fail_for(shortage, *short.who),
            AfterScan::Hello(reply_to, _) => self.fail(reply_to, failure),
        }
    }
}

impl AfterScan {
    fn tried(&self) -> Tried {
        match self {
            AfterScan::Request(parked) => parked.tried,
            AfterScan::Commit(job) => job.tried,
            AfterScan::Evict(short, _) => short.who.tried(),
            AfterScan::Hello(..) => Tried::Scan, // it wants no room
        }
    }

    fn note_eviction(&mut self) {
        let times = if let Tried::Evicting(times) = self.tried() { times } else { 0 };
        self.set_tried(Tried::Evicting((times + 1).min(EVICTIONS_MAX)));
    }

    fn set_tried(&mut self, tried: Tried) {
        match self {
            AfterScan::Request(parked) => parked.tried = tried,
            AfterScan::Commit(job) => job.tried = tried,
            AfterScan::Evict(short, _) => short.who.set_tried(tried),
            AfterScan::Hello(..) => {}
        }
    }
}

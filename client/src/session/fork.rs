//! What becomes of a session at a fork.
//!
//! A forked child has a copy of everything, and of its sessions must use nothing: sockets and session regions are its
//! parent's. So every session that holds pins is handed over. Before the fork, in the thread that forks (*prepare*),
//! the store makes a session for the child, with session regions and a lifeline. After it, the *child* puts its own
//! regions in the place of its parent's and copies into them every pin that the parent had, before `fork` returns,
//! waiting for nobody; and the *parent* lets none of those pins go until the child has done so. Why no object is
//! reused meanwhile stands in `plasmon_protocol::pins`.
//!
//! Every handle in the child was one in the parent at the instant of the fork, and the shadow of its pin is as old as
//! the handle (`slots.rs`): so the shadow that the child finds covers all its handles. Handles that other threads of
//! the parent were about to make or drop leave pins that no handle of the child gives back; they go with the child.
//!
//! Where there is nothing to hand over, or no store to make a session, the child begins one of its own with its first
//! call; so does a child that was made without these functions being called. What it inherited rests on its parent's
//! pins, which the parent, if it was told of the fork, then keeps until it ends.

use super::{Here, Private, Session, pins::PinRegion};
use crate::{
    connection::{Connection, Reached},
    gate::{AtFork, Handed, Known},
};
use plasmon_protocol::{
    index_of,
    limits::PIN_SLOTS,
    pins::{HandOver, SessionRegion},
};
use plasmon_shm::{ClientRegion, FaultPoint, WordsMapping, fault_point, monotonic_coarse_ns};
use std::{
    collections::HashSet,
    sync::{Arc, OnceLock, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

/// Pins of this process that its children may rest on.
#[derive(Debug, Default)]
pub(super) struct HandOvers {
    /// The first regions of children that have not filled them yet.
    waiting: Vec<WordsMapping>,
    /// Slots whose handles were dropped meanwhile.
    queued: Vec<u32>,
    /// Slots that a child rests on which has no session for it: they are never given back.
    kept: HashSet<u32>,
}

/// What the store has made ready for a child that is about to be forked.
#[derive(Debug)]
struct Heir {
    here: Arc<Here>,
    /// One for each of the parent's.
    regions: Vec<ClientRegion>,
    /// The first of them, for the parent to look at.
    first: Option<WordsMapping>,
}

impl AtFork for Known<Session> {
    fn prepare(&'static self, deadline: Instant) -> Box<dyn Handed> {
        let heir = |session: Arc<Session>| {
            let heir = session.make_heir(deadline);
            (session, heir)
        };
        let all = self.all().into_iter().filter(|session| session.holds_pins());
        Box::new(HandedSessions { sessions: all.map(heir).collect() })
    }
}

/// Sessions that hold pins, and for each what the store made for the child.
struct HandedSessions {
    sessions: Vec<(Arc<Session>, Option<Heir>)>,
}

impl Handed for HandedSessions {
    fn begin(&mut self) {
        for (session, heir) in &mut self.sessions {
            session.begin_hand_over(heir);
        }
    }

    fn inherit(&mut self) {
        for (session, heir) in &mut self.sessions {
            if let Some(heir) = heir.take() {
                session.inherit(heir);
            }
        }
    }

    fn introduce(&mut self) {
        self.sessions.iter().for_each(|(session, _)| session.introduce());
    }
}

impl Session {
    /// Whether this process has handles that a forked child would inherit.
    fn holds_pins(&self) -> bool {
        self.mark.is_here()
            && self
                .regions
                .iter()
                .filter_map(OnceLock::get)
                .any(|region| region.slots.held().next().is_some())
    }

    fn regions_in_use(&self) -> usize {
        self.regions.iter().take_while(|region| region.get().is_some()).count()
    }

    /// Has the store make a session for a child that is about to be forked. `None` if it does not, or not in time.
    fn make_heir(&self, deadline: Instant) -> Option<Heir> {
        if !self.is_alive() {
            return None;
        }
        let here = self.here.load_full();
        let left = || self.patience.min(deadline.saturating_duration_since(Instant::now()));
        let Reached { mut connection, store_uid } = Connection::open(&self.socket, left()).ok()?;
        if store_uid != self.store_uid {
            return None;
        }
        let count = self.regions_in_use();
        let (added, fds) = connection.begin_child(here.token, u32::try_from(count).ok()?, left()).ok()?;
        let len_bytes = self.welcome.session_bytes;
        let regions = match added.region_names.is_empty() {
            true => fds.into_iter().map(|fd| ClientRegion::from_fd(fd, len_bytes)).collect(),
            false => {
                added.region_names.iter().map(|name| ClientRegion::from_name(name, len_bytes, true)).collect()
            }
        };
        let regions: Vec<ClientRegion> = Result::ok(regions)?;
        let first = regions.first()?.map_words().ok()?;
        SessionRegion::open(first.words()).ok()?;
        let writable = here.writable.as_ref().map(ClientRegion::for_child).transpose().ok()?;
        let here = Arc::new(Here::new(added.token, connection, writable));
        (regions.len() == count).then_some(Heir { here, regions, first: Some(first) })
    }

    /// Before the fork, with the gate closed: from now on no pin of this process is given back before the child has its
    /// own. Takes the heir back if it does not fit any more.
    fn begin_hand_over(&self, heir: &mut Option<Heir>) {
        let here = self.here();
        let mut private = here.private.lock().unwrap_or_else(PoisonError::into_inner);
        *heir = heir.take().filter(|heir| heir.regions.len() == self.regions_in_use());
        match heir.as_mut().and_then(|heir| heir.first.take()) {
            Some(first) => private.hand_overs.waiting.push(first),
            None => private.hand_overs.kept.extend(self.held().map(|(_, slot, _)| slot)),
        }
        // Seen by whoever drops a handle after the fork: the kernel makes all of this process's memory read-only for
        // the child's copy, on every processor, between this store and anything that the copy misses.
        self.hands_over.store(true, Ordering::SeqCst);
    }

    /// In the child, with the gate closed: the session is this process's from now on.
    fn inherit(&self, heir: Heir) {
        let Heir { here, regions, .. } = heir;
        for (mine, of_child) in self.regions.iter().zip(&regions) {
            if mine.get().is_none_or(|mine| mine.words.replace(of_child).is_err()) {
                // As if there had been no heir; but its lifeline stays open, so that the parent keeps its pins.
                std::mem::forget(here);
                return;
            }
        }
        fault_point(FaultPoint::ForkMapped);
        let of_parent = self.here.swap(here);
        self.forks.fetch_add(1, Ordering::Relaxed);
        let mut private = of_parent.private.lock().unwrap_or_else(PoisonError::into_inner);
        for number in std::mem::take(&mut private.hand_overs.queued) {
            let (region, slot) = self.region(number);
            region.slots.give_back(slot); // dropped before the fork
        }
        drop(private);
        for (region, _, (slot, pin)) in self.held() {
            SessionRegion::assume_checked(region.words.words()).publish(slot, pin);
        }
        fault_point(FaultPoint::ForkCopied);
        self.lease_words().set_filled();
        fault_point(FaultPoint::ForkFilled);
        self.hands_over.store(false, Ordering::Relaxed);
        self.looked_ns.store(monotonic_coarse_ns(), Ordering::Relaxed);
        self.gone.store(false, Ordering::Relaxed);
        self.mark.renew();
    }

    /// In the child: tells the store which process it is. Waits for nobody; what does not succeed, the child's first
    /// request will do.
    fn introduce(&self) {
        if self.is_here()
            && let Ok(connection) = self.join(Duration::ZERO)
        {
            self.check_in(connection);
        }
    }

    /// All that is pinned: region, number of the slot through all regions, slot in the region and pin.
    fn held(&self) -> impl Iterator<Item = (&PinRegion, u32, (u32, u64))> {
        let regions =
            self.regions.iter().filter_map(OnceLock::get).zip((0..).step_by(index_of(PIN_SLOTS.into())));
        regions.flat_map(|(region, first): (_, u32)| {
            region.slots.held().map(move |(slot, pin)| (region, first + slot, (slot, pin)))
        })
    }

    /// The handle in slot `number` was dropped while a child may rest on its pin.
    #[cold]
    pub(super) fn give_back_later(&self, number: u32) {
        self.private(|Private { hand_overs, .. }| {
            if !hand_overs.kept.contains(&number) {
                hand_overs.queued.push(number);
            }
            self.settle(hand_overs);
        });
    }

    /// Gives back what was queued, once every child has filled its regions or is gone.
    #[cold]
    pub(super) fn settle(&self, hand_overs: &mut HandOvers) {
        let is_waiting = |first: &WordsMapping| {
            SessionRegion::assume_checked(first.words()).hand_over() == HandOver::Waiting
        };
        hand_overs.waiting.retain(is_waiting);
        if hand_overs.waiting.is_empty() {
            hand_overs.queued.drain(..).for_each(|number| self.give_back(number));
            self.hands_over.store(!hand_overs.kept.is_empty(), Ordering::Relaxed);
        }
    }
}

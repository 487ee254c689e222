//! Sessions: one client process's membership of the store.
//!
//! A session has a lifeline, which carries nothing after the handshake, and the daemon holds a pidfd of its process.
//! It ends at goodbye, or when the process is gone. A lifeline that closes while the process lives ends leases and
//! waits, but never pins: arrays of a living process are never pulled away.
//!
//! `request/handshake.rs` adds sessions when a client connects. `state/lifetimes.rs` ends them.

use crate::{
    connection::{ConnectionId, Peer},
    fast_hash::{FastMap, FastSet},
    reclaim::PinRegions,
};
use nix::libc;
use plasmon_protocol::{
    index_of,
    limits::PIN_SLOTS,
    pins::{HandOver, SessionRegion},
};
use plasmon_shm::{Region, RegionId, WordsMapping};
use std::{collections::HashMap, os::fd::OwnedFd, sync::Arc, time::Instant};

/// A session's number, unique while the daemon lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionId(pub(crate) u64);

/// One session region: the segment itself, and the daemon's mapping of it.
#[derive(Debug)]
pub(crate) struct PinRegion {
    /// Kept so that a named segment lives as long as the session.
    pub(crate) region: Region,
    pub(crate) words: Arc<WordsMapping>,
}

/// One client process's membership of the store.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) token: [u8; 16],
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) command: String,
    pub(crate) writable: bool,
    pub(crate) began: Instant,
    pub(crate) regions: Vec<PinRegion>,
    /// For a forked child that has not filled its regions: those of its parent, on whose pins its handles rest, also
    /// when the parent is gone.
    pub(crate) inherits: Vec<Arc<WordsMapping>>,
    /// A forked child that has not joined yet: which process it is, only its lifeline knows.
    pub(crate) is_awaited: bool,
    /// The process that had it made for a child; 0 where it was made for nobody else.
    pub(crate) parent_pid: u32,
    pub(crate) pidfd: Option<OwnedFd>,
    /// `None` once the lifeline is closed while the process lives: the session is orphaned.
    pub(crate) lifeline: Option<ConnectionId>,
    pub(crate) connections: FastSet<ConnectionId>,
    /// The client has said goodbye when so many scans had begun: a later one that finds no pins ends the session.
    /// Set by [`Sessions::leave`].
    pub(crate) leaves_after_scan: Option<u64>,
}

impl Session {
    /// Whether the process lives on without its lifeline.
    pub(crate) fn is_orphaned(&self) -> bool {
        self.lifeline.is_none() && !self.is_leaving()
    }

    /// Whether the client has said goodbye, and may hold pins still.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaves_after_scan.is_some()
    }

    /// Who has it: for a child that nobody has seen, the process that had it made.
    pub(crate) fn owner(&self) -> Peer {
        Peer { pid: if self.is_awaited { self.parent_pid } else { self.pid }, uid: self.uid }
    }

    /// Whether its handles rest on its parent's pins still.
    pub(crate) fn rests_on_parent(&self) -> bool {
        !self.inherits.is_empty() && self.hand_over() == HandOver::Waiting
    }

    /// What a scan reads: first what the session inherits (`plasmon_protocol::pins` says why in this order).
    fn pin_regions(&mut self, session: SessionId) -> PinRegions {
        if !self.inherits.is_empty() && self.hand_over() != HandOver::Waiting {
            self.inherits.clear();
        }
        let own = self.regions.iter().map(|region| Arc::clone(&region.words));
        PinRegions { session, regions: self.inherits.iter().cloned().chain(own).collect() }
    }

    /// Slots of the first region that hold a pin.
    #[cfg(test)]
    pub(crate) fn slots_in_use(&self) -> Vec<u32> {
        let region = SessionRegion::assume_checked(self.regions[0].words.words());
        (0..PIN_SLOTS).filter(|&slot| region.pin(slot).is_some_and(|pin| pin != 0)).collect()
    }

    fn hand_over(&self) -> HandOver {
        SessionRegion::assume_checked(self.regions[0].words.words()).hand_over()
    }

    /// Tells the parent of a forked child, if this is one, that it is gone.
    pub(crate) fn end_hand_over(&self) {
        SessionRegion::assume_checked(self.regions[0].words.words()).set_ended();
    }

    /// Whether the client may have noted recalls that were not collected.
    pub(crate) fn has_recalls(&self) -> bool {
        SessionRegion::assume_checked(self.regions[0].words.words()).has_accesses()
    }

    /// Where pin slot `slot` is, counted through all regions.
    pub(crate) fn slot(&self, slot: u32) -> Option<(SessionRegion<'_>, u32)> {
        let region = self.regions.get(index_of(u64::from(slot / PIN_SLOTS)))?;
        Some((SessionRegion::assume_checked(region.words.words()), slot % PIN_SLOTS))
    }

    /// Whether the process has ended, as far as can be told without looking into `/proc`.
    pub(crate) fn process_has_ended(&self) -> bool {
        match &self.pidfd {
            Some(pidfd) => is_readable(pidfd),
            // In a place that /proc does not show: the end of the lifeline decides.
            None => self.pid == 0 && self.lifeline.is_none(),
        }
    }
}

/// A session whose process lives on without its lifeline, or so it seems: to be looked at in `/proc`.
#[derive(Debug)]
pub(crate) struct Orphan {
    pub(crate) session: SessionId,
    pid: u32,
    has_pidfd: bool,
    regions: Vec<RegionId>,
}

impl Orphan {
    /// Whether the process is gone, or has become another program that no longer maps its session regions. May wait
    /// for that process, and so is not for the loop.
    pub(crate) fn is_gone(&self) -> bool {
        if self.pid == 0 {
            return false; // in a place that /proc does not show: the pidfd decides
        }
        match plasmon_shm::maps_any(self.pid, &self.regions) {
            Ok(maps) => !maps,
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ESRCH)) => true,
            // Not ours to look into: the pidfd decides, and where there is none the end of the lifeline.
            Err(_) => !self.has_pidfd,
        }
    }
}

fn is_readable(fd: &OwnedFd) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    by_id: FastMap<SessionId, Session>,
    by_token: HashMap<[u8; 16], SessionId>,
    /// How many have said goodbye.
    leaving: usize,
    next: u64,
}

impl Sessions {
    /// The number the next session will have.
    pub(crate) fn next_id(&self) -> SessionId {
        SessionId(self.next + 1)
    }

    pub(crate) fn add(&mut self, session: Session) -> SessionId {
        let id = self.next_id();
        self.next += 1;
        self.by_token.insert(session.token, id);
        self.by_id.insert(id, session);
        id
    }

    pub(crate) fn remove(&mut self, id: SessionId) -> Option<Session> {
        let session = self.by_id.remove(&id)?;
        self.by_token.remove(&session.token);
        self.leaving -= usize::from(session.is_leaving());
        Some(session)
    }

    /// Session `id` has said goodbye when so many scans had begun.
    pub(crate) fn leave(&mut self, id: SessionId, scans: u64) {
        let Some(session) = self.by_id.get_mut(&id) else { return };
        self.leaving += usize::from(!session.is_leaving());
        session.leaves_after_scan = Some(scans);
    }

    pub(crate) fn get(&self, id: SessionId) -> Option<&Session> {
        self.by_id.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.by_id.get_mut(&id)
    }

    pub(crate) fn by_token(&self, token: &[u8; 16]) -> Option<SessionId> {
        self.by_token.get(token).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.by_id.iter().map(|(&id, session)| (id, session))
    }

    /// What a scan reads, the oldest session first: a parent before the children it forked.
    pub(crate) fn pin_regions(&mut self) -> Vec<PinRegions> {
        let mut regions: Vec<PinRegions> =
            self.by_id.iter_mut().map(|(&id, session)| session.pin_regions(id)).collect();
        regions.sort_unstable_by_key(|regions| regions.session);
        regions
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Session regions of those sessions that `counts` names, and how many of them are beyond the first of each.
    pub(crate) fn regions(&self, counts: impl Fn(&Session) -> bool) -> (usize, usize) {
        let sessions = self.by_id.values().filter(|session| counts(session));
        sessions.fold((0, 0), |(all, more), it| (all + it.regions.len(), more + it.regions.len() - 1))
    }

    pub(crate) fn of_process(&self, pid: u32) -> usize {
        self.by_id.values().filter(|session| session.pid == pid).count()
    }

    /// Sessions that process `pid` had made for children that nobody has seen yet.
    pub(crate) fn awaited_of(&self, pid: u32) -> usize {
        self.by_id.values().filter(|session| session.is_awaited && session.parent_pid == pid).count()
    }

    /// Descriptors that sessions take of those whom `counts` names: of their processes and regions, and of the leases of
    /// those that have no way to write the arena, which `leases` counts.
    pub(crate) fn descriptors(
        &self,
        counts: impl Fn(Peer) -> bool,
        leases: impl Fn(SessionId) -> usize,
    ) -> usize {
        let sessions = self.iter().filter(|(_, session)| counts(session.owner()));
        let staging = |id, session: &Session| if session.writable { 0 } else { leases(id) };
        sessions.map(|(id, session)| 1 + session.regions.len() + staging(id, session)).sum()
    }

    pub(crate) fn of_uid(&self, uid: u32) -> usize {
        self.by_id.values().filter(|session| session.uid == uid).count()
    }

    /// Sessions whose process has ended. A system call for each session. Of a child that nobody has seen yet it is not
    /// known which process it is: its session is looked at once its lifeline is closed.
    pub(crate) fn ended(&self) -> Vec<SessionId> {
        let ended = self.iter().filter(|(_, session)| !session.is_awaited && session.process_has_ended());
        ended.map(|(id, _)| id).collect()
    }

    /// Whether a session has said goodbye and may hold pins still.
    pub(crate) fn any_leaving(&self) -> bool {
        self.leaving > 0
    }

    /// Number of sessions whose process lives on without its lifeline.
    pub(crate) fn orphan_count(&self) -> usize {
        self.by_id.values().filter(|session| session.is_orphaned()).count()
    }

    /// Sessions whose process lives on without its lifeline, for looking at them.
    pub(crate) fn orphans(&self) -> Vec<Orphan> {
        let orphans = self.iter().filter(|(_, session)| session.is_orphaned());
        orphans
            .map(|(id, session)| Orphan {
                session: id,
                pid: session.pid,
                has_pidfd: session.pidfd.is_some(),
                regions: session.regions.iter().filter_map(|region| region.region.id().ok()).collect(),
            })
            .collect()
    }
}

//! Beginning and joining sessions.
//!
//! `server/connections.rs` calls [`State::hello`] with the first message of each connection. [`handle`](super::handle)
//! calls [`add_region`] when a session asks for more pin slots.

use crate::{
    budget::regions_max,
    connection::{Peer, Role},
    effect::{Answer, Effect, Reply},
    fast_hash::FastSet,
    limits,
    parked::{Need, Newcomer, ReplyTo, Suspended, What},
    reclaim::Report,
    session::{PinRegion, Session, SessionId},
    state::State,
};
use plasmon_protocol::{
    index_of,
    message::{self, Attached, ChildAdded, Failure, Hello, RegionAdded, Welcome},
    pins::SessionRegion,
};
use plasmon_shm::{Error, FDS_MAX, FaultPoint, Region, Seals, fault_point};
use std::{os::fd::OwnedFd, sync::Arc};

impl State {
    /// Begins a session, or joins one. `scanned` says whether it has waited for a scan already.
    pub(crate) fn hello(&mut self, reply_to: ReplyTo, hello: &Hello, mut newcomer: Newcomer, scanned: bool) {
        if !self.open.contains(&reply_to.connection) {
            return self.drop_request(reply_to);
        }
        let refusal = if self.closing {
            Some(Failure::ShuttingDown)
        } else if hello.magic != message::MAGIC {
            Some(Failure::Malformed { reason: "the first message does not begin with PLASMON".to_owned() })
        } else if hello.version != message::VERSION {
            Some(Failure::VersionMismatch { client: hello.version, store: message::VERSION })
        } else {
            match hello.role {
                message::Role::Lifeline => self.begin_session(reply_to, &mut newcomer).err(),
                message::Role::Requests { token } => self.join_session(reply_to, &mut newcomer, &token).err(),
                message::Role::Child { token, regions } => {
                    self.begin_child(reply_to, newcomer.peer, &token, regions).err()
                }
            }
        };
        let Some(failure) = refusal else { return };
        if matches!(failure, Failure::TooMany { .. }) && !scanned && self.sessions.any_leaving() {
            // Whoever attaches and detaches at once would meet the limit by sessions that nobody has any more.
            let what = What::Hello(Box::new((hello.clone(), newcomer)));
            let need = Need::Scan { report: Report::Limbo, usage: false };
            return self.park(Suspended { reply_to, what }, need);
        }
        tracing::debug!(?failure, "handshake refused");
        self.effect(Effect::CloseSoon(reply_to.connection));
        self.counters.refused += 1;
        self.fail(reply_to, failure);
    }

    fn begin_session(&mut self, reply_to: ReplyTo, newcomer: &mut Newcomer) -> Result<(), Failure> {
        let id = reply_to.connection;
        let peer = newcomer.peer;
        self.check_session_limits(peer, 1)?;
        let pidfd = newcomer.take_pidfd().map_err(|reason| Failure::Internal { reason })?;
        let (region, region_fd) = self.make_session_region(0)?;
        let writable = self.facts.is_own(peer.uid);
        let welcome = Welcome {
            version: message::VERSION,
            session_id: self.sessions.next_id().0,
            token: uuid::Uuid::new_v4().into_bytes(),
            store_uuid: self.facts.store_uuid,
            uid: peer.uid,
            store_pid: std::process::id(),
            boottime_ns: self.clock.boottime_ns(),
            capacity_bytes: self.facts.capacity_bytes,
            arena_bytes: self.facts.arena.len_bytes(),
            index_bytes: self.facts.index.len_bytes(),
            session_bytes: self.facts.session_bytes,
            pins_max: self.facts.options.max_pins,
            writable,
            populated: self.facts.populates,
            region_names: [&self.facts.index, &self.facts.arena, &region.region]
                .into_iter()
                .filter_map(|region| region.name().map(str::to_owned))
                .collect(),
        };
        let session = self.sessions.add(Session {
            token: welcome.token,
            pid: peer.pid,
            uid: peer.uid,
            command: command_of(peer.pid),
            writable,
            began: self.clock.now(),
            regions: vec![region],
            inherits: Vec::new(),
            is_awaited: false,
            parent_pid: 0,
            pidfd,
            lifeline: Some(id),
            connections: FastSet::default(),
            leaves_after_scan: None,
        });
        self.effect(Effect::WatchProcess(session));
        tracing::debug!(session = session.0, pid = peer.pid, uid = peer.uid, "session began");
        fault_point(FaultPoint::SessionMade);

        let mut fds = Vec::new();
        if let (Some([index, arena, arena_writable]), Some(session_region)) =
            (&self.facts.openings, region_fd)
        {
            fds.extend([Arc::clone(index), Arc::clone(arena), Arc::new(session_region)]);
            if writable {
                fds.push(Arc::clone(arena_writable));
            }
        }
        self.effect(Effect::Settle(id, Role::Lifeline(session)));
        self.send(reply_to, Reply::with_fds(&welcome, fds));
        Ok(())
    }

    /// Whether `peer` may begin another session, of so many regions.
    fn check_session_limits(&self, peer: Peer, regions: usize) -> Result<(), Failure> {
        let Peer { pid, uid } = peer;
        if pid != 0 && self.sessions.of_process(pid) >= self.facts.options.max_sessions_per_process {
            let what = format!("sessions of process {pid} (--max-sessions-per-process)");
            return Err(Failure::TooMany { what, limit: self.facts.options.max_sessions_per_process as u64 });
        }
        self.check_descriptors(peer, 1 + regions)?;
        if self.sessions.of_uid(uid) >= self.facts.options.max_sessions_per_uid {
            let what = format!("sessions of uid {uid} (--max-sessions-per-uid)");
            return Err(Failure::TooMany { what, limit: self.facts.options.max_sessions_per_uid as u64 });
        }
        if self.sessions.len() >= self.facts.options.max_sessions {
            let what = "sessions (--max-sessions)".to_owned();
            return Err(Failure::TooMany { what, limit: self.facts.options.max_sessions as u64 });
        }
        Ok(())
    }

    /// Whether sessions of `peer` may take so many descriptors more: no process takes more than a quarter of what there
    /// is for sessions, and no uid more than half.
    pub(crate) fn check_descriptors(&self, peer: Peer, more: usize) -> Result<(), Failure> {
        let Peer { pid, uid } = peer;
        let max = self.facts.session_descriptors;
        let taken = |counts: &dyn Fn(Peer) -> bool| {
            self.sessions.descriptors(counts, |session| self.space.lease_count_of(session))
        };
        let too_many = |whose: &str, limit: usize| {
            let what = format!("descriptors of the store that sessions{whose} take (ulimit -n)");
            Err(Failure::TooMany { what, limit: limit as u64 })
        };
        // Processes that this daemon cannot tell apart share the limit of their uid.
        if pid != 0 && taken(&|owner| owner == peer) + more > max / 4 {
            return too_many(&format!(" of process {pid}"), max / 4);
        }
        if taken(&|owner| owner.uid == uid) + more > max / 2 {
            return too_many(&format!(" of uid {uid}"), max / 2);
        }
        if taken(&|_| true) + more > max {
            return too_many("", max);
        }
        Ok(())
    }

    /// Whether sessions of process `pid` may have so many more regions of pins beyond the first of each, if that which
    /// gets them has its `own` already.
    fn check_pins_of_process(&self, pid: u32, own: usize, more: usize) -> Result<(), Failure> {
        let pins_max = self.facts.options.max_pins;
        // The first of each session counts for none: whoever may begin sessions has those.
        let (_, of_process) = self.sessions.regions(|session| pid != 0 && session.pid == pid);
        if more > 0 && of_process.max(own - 1) + more > regions_max(pins_max).0 - 1 {
            let what = format!("pins of process {pid} (--max-pins)");
            return Err(Failure::TooMany { what, limit: pins_max.into() });
        }
        Ok(())
    }

    /// Whether sessions of `uid` may have so many more.
    fn check_pins_of_uid(&self, uid: u32, more: usize) -> Result<(), Failure> {
        let pins_max = self.facts.options.max_pins;
        let (_, of_uid) = self.sessions.regions(|session| session.uid == uid);
        if of_uid + more > regions_max(pins_max).1 {
            let what = format!("pins of uid {uid}, which may have four times --max-pins");
            return Err(Failure::TooMany { what, limit: 4 * u64::from(pins_max) });
        }
        Ok(())
    }

    /// A session for a child that is about to be forked: until it has filled its regions, scans read its parent's for
    /// it (`plasmon_protocol::pins` has the argument).
    fn begin_child(
        &mut self,
        reply_to: ReplyTo,
        peer: Peer,
        token: &[u8; 16],
        regions: u32,
    ) -> Result<(), Failure> {
        let id = reply_to.connection;
        let uid = peer.uid;
        self.check_session_limits(peer, index_of(regions.into()).min(FDS_MAX))?;
        let sessions_max = self.facts.options.max_sessions_per_process;
        if peer.pid != 0 && self.sessions.awaited_of(peer.pid) >= sessions_max {
            let pid = peer.pid;
            let what = format!(
                "sessions of children of process {pid} that nobody has joined (--max-sessions-per-process)"
            );
            return Err(Failure::TooMany { what, limit: sessions_max as u64 });
        }
        let parent = self.sessions.by_token(token).and_then(|parent| self.sessions.get(parent));
        let parent = parent.filter(|parent| {
            parent.uid == uid && parent.lifeline.is_some() && !parent.is_awaited && !parent.is_leaving()
                // Or a scan would read regions for each of a line of children that of all before it.
                && !parent.rests_on_parent()
        });
        let parent = parent.ok_or(Failure::UnknownSession)?;
        let count = index_of(regions.into());
        if count == 0 || count > parent.regions.len() || count > FDS_MAX {
            let what = "session regions of a child".to_owned();
            return Err(Failure::TooMany { what, limit: parent.regions.len().min(FDS_MAX) as u64 });
        }
        let (writable, command) = (parent.writable, parent.command.clone());
        self.check_pins_of_uid(uid, count - 1)?;
        let is_awaited = |session: &Session| session.is_awaited && session.parent_pid == peer.pid;
        let (awaited, _) = self.sessions.regions(|session| peer.pid != 0 && is_awaited(session));
        if awaited + count > sessions_max.max(count) {
            let pid = peer.pid;
            let what = format!(
                "session regions of children of process {pid} that nobody has joined (--max-sessions-per-process)"
            );
            return Err(Failure::TooMany { what, limit: sessions_max as u64 });
        }
        let inherits = parent.regions.iter().map(|region| Arc::clone(&region.words)).collect();
        let made =
            (0..count).map(|number| self.make_session_region(number)).collect::<Result<Vec<_>, _>>()?;
        let (regions, fds): (Vec<PinRegion>, Vec<Option<OwnedFd>>) = made.into_iter().unzip();
        let added = ChildAdded {
            session_id: self.sessions.next_id().0,
            token: uuid::Uuid::new_v4().into_bytes(),
            region_names: regions.iter().filter_map(|made| made.region.name().map(str::to_owned)).collect(),
        };
        let session = self.sessions.add(Session {
            token: added.token,
            pid: 0,
            uid,
            command,
            writable,
            began: self.clock.now(),
            regions,
            inherits,
            is_awaited: true,
            parent_pid: peer.pid,
            pidfd: None,
            lifeline: Some(id),
            connections: FastSet::default(),
            leaves_after_scan: None,
        });
        self.scans.note_child();
        fault_point(FaultPoint::ChildSessionMade);
        tracing::debug!(session = session.0, uid, "session of a child that is about to be forked");
        self.effect(Effect::Settle(id, Role::Lifeline(session)));
        self.send(reply_to, Reply::with_fds(&added, fds.into_iter().flatten().map(Arc::new).collect()));
        Ok(())
    }

    fn join_session(
        &mut self,
        reply_to: ReplyTo,
        newcomer: &mut Newcomer,
        token: &[u8; 16],
    ) -> Result<(), Failure> {
        let id = reply_to.connection;
        let session_id = self.sessions.by_token(token).ok_or(Failure::UnknownSession)?;
        self.meet_child(newcomer, session_id)?;
        let session = self.sessions.get_mut(session_id).ok_or(Failure::UnknownSession)?;
        if session.is_orphaned() || session.is_leaving() || session.uid != newcomer.peer.uid {
            return Err(Failure::UnknownSession);
        }
        session.connections.insert(id);
        self.effect(Effect::Settle(id, Role::Requests(session_id)));
        self.reply(reply_to, &Attached { session_id: session_id.0 });
        Ok(())
    }

    /// If the session is of a forked child that nobody has seen: the process that joins it first is the child.
    fn meet_child(&mut self, newcomer: &mut Newcomer, session_id: SessionId) -> Result<(), Failure> {
        let Some(session) = self.sessions.get(session_id) else { return Ok(()) };
        if !session.is_awaited || session.uid != newcomer.peer.uid {
            return Ok(());
        }
        self.check_pins_of_process(newcomer.peer.pid, 1, session.regions.len() - 1)?;
        let Some(session) = self.sessions.get_mut(session_id) else { return Ok(()) };
        let pidfd = newcomer.take_pidfd().map_err(|_| Failure::UnknownSession)?; // it has ended already
        session.pid = newcomer.peer.pid;
        session.command = command_of(session.pid);
        session.pidfd = pidfd;
        session.is_awaited = false;
        tracing::debug!(session = session_id.0, pid = session.pid, "a forked child is there");
        self.effect(Effect::WatchProcess(session_id));
        Ok(())
    }

    fn make_session_region(&self, number: usize) -> Result<(PinRegion, Option<OwnedFd>), Failure> {
        self.make_session_region_for(self.sessions.next_id(), number)
    }

    /// A session region, and the opening of it that the client gets (none where it is a named segment).
    fn make_session_region_for(
        &self,
        session: SessionId,
        number: usize,
    ) -> Result<(PinRegion, Option<OwnedFd>), Failure> {
        if let Some(memory) = self.facts.memory_limit
            && !memory.allows(self.facts.session_bytes, limits::used_bytes())
        {
            let (what, limit) = memory.describe();
            return Err(Failure::TooMany { what, limit });
        }
        let make = || -> Result<_, Error> {
            let label = self.facts.labels.session(session, number);
            let region = Region::create(
                &label,
                self.facts.session_bytes,
                self.facts.index.backend(),
                &self.facts.kernel,
            )?;
            region.reserve()?;
            let words = region.map_words()?;
            region.seal(Seals::ShrinkGrow)?;
            let fd = if self.facts.openings.is_some() { Some(region.open_read_write()?) } else { None };
            Ok((PinRegion { region, words: Arc::new(words) }, fd))
        };
        let (region, fd) = make().map_err(|error| Failure::Internal { reason: error.to_string() })?;
        SessionRegion::prepare(region.words.words())
            .map_err(|error| Failure::Internal { reason: error.to_string() })?;
        Ok((region, fd))
    }
}

/// Gives a session another region, for more pins.
pub(super) fn add_region(state: &mut State, session_id: SessionId) -> Answer {
    let Some(session) = state.sessions.get(session_id) else {
        return Answer::fail(Failure::UnknownSession);
    };
    let regions = session.regions.len();
    let peer = session.owner();
    let made = state.check_pins_of_process(peer.pid, regions, 1);
    let made = made.and_then(|()| state.check_pins_of_uid(peer.uid, 1));
    let made = made.and_then(|()| state.check_descriptors(peer, 1));
    let made = made.and_then(|()| state.make_session_region_for(session_id, regions));
    let (region, fd) = match made {
        Ok(made) => made,
        Err(failure) => return Answer::fail(failure),
    };
    let name = region.region.name().unwrap_or_default().to_owned();
    let region_number = u32::try_from(regions).unwrap_or(u32::MAX);
    if let Some(session) = state.sessions.get_mut(session_id) {
        session.regions.push(region);
    }
    let fds = fd.into_iter().map(Arc::new).collect();
    Answer::Reply(Reply::with_fds(&RegionAdded { region: region_number, name }, fds))
}

/// The command name of a process, for people; empty where /proc does not tell.
fn command_of(pid: u32) -> String {
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    comm.trim_end().to_owned()
}

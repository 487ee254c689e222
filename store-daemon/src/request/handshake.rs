//! Beginning and joining sessions.

use crate::{
    commit::ReplyTo,
    connection::Role,
    server::Server,
    session::{PinRegion, Session},
};
use plasmon_protocol::{
    message::{self, Attached, Failure, Hello, RegionAdded, Welcome},
    pins::SessionRegion,
};
use plasmon_shm::{Error, Region, Seals, boottime_ns};
use std::{
    collections::HashSet,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Instant,
};

impl Server {
    pub(crate) fn on_hello(&mut self, reply_to: ReplyTo, hello: &Hello) {
        let id = reply_to.connection;
        let refusal = if hello.magic != message::MAGIC {
            Some(Failure::Malformed { reason: "the first message does not begin with PLASMON".to_owned() })
        } else if hello.version != message::VERSION {
            Some(Failure::VersionMismatch { client: hello.version, store: message::VERSION })
        } else {
            match hello.role {
                message::Role::Lifeline {} => self.begin_session(reply_to).err(),
                message::Role::Requests { token } => self.join_session(reply_to, &token).err(),
            }
        };
        if let Some(failure) = refusal {
            tracing::debug!(?failure, "handshake refused");
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.close_soon();
            }
            self.counters.refused += 1;
            self.fail(reply_to, failure);
        }
    }

    fn begin_session(&mut self, reply_to: ReplyTo) -> Result<(), Failure> {
        let id = reply_to.connection;
        let Some(connection) = self.connections.get(&id) else { return Ok(()) };
        let peer = connection.peer;
        if self.sessions.of_uid(peer.uid) >= self.options.max_sessions_per_uid {
            let what = format!("sessions of uid {} (--max-sessions-per-uid)", peer.uid);
            return Err(Failure::TooMany { what, limit: self.options.max_sessions_per_uid as u64 });
        }
        if self.sessions.len() >= self.options.max_sessions {
            let what = "sessions (--max-sessions)".to_owned();
            return Err(Failure::TooMany { what, limit: self.options.max_sessions as u64 });
        }
        let internal = |error: Error| Failure::Internal { reason: error.to_string() };
        let pidfd = plasmon_shm::peer(connection.as_fd(), &self.kernel).map_err(internal)?.pidfd;
        let (region, region_fd) = self.make_session_region(0)?;
        let writable = self.is_own(peer.uid);
        let welcome = Welcome {
            version: message::VERSION,
            session_id: self.sessions.next_id().0,
            token: uuid::Uuid::new_v4().into_bytes(),
            store_uuid: self.store_uuid,
            uid: peer.uid,
            store_pid: std::process::id(),
            boottime_ns: boottime_ns(),
            capacity_bytes: self.capacity_bytes,
            arena_bytes: self.arena.len_bytes(),
            index_bytes: self.index.len_bytes(),
            session_bytes: self.session_bytes,
            pins_max: self.options.max_pins,
            writable,
            populated: self.populates,
            region_names: [&self.index, &self.arena, &region.region]
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
            began: Instant::now(),
            regions: vec![region],
            pidfd,
            lifeline: Some(id),
            connections: HashSet::new(),
            leaves_after_scan: None,
        });
        self.watch_process(session);
        tracing::debug!(session = session.0, pid = peer.pid, uid = peer.uid, "session began");

        let mut fds = Vec::new();
        if let (Some([index, arena, arena_writable]), Some(session_region)) = (&self.openings, region_fd) {
            fds.extend([Arc::clone(index), Arc::clone(arena), Arc::new(session_region)]);
            if writable {
                fds.push(Arc::clone(arena_writable));
            }
        }
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        connection.settle(Role::Lifeline(session));
        self.try_reply(reply_to, &welcome, fds);
        Ok(())
    }

    fn join_session(&mut self, reply_to: ReplyTo, token: &[u8; 16]) -> Result<(), Failure> {
        let id = reply_to.connection;
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        let session_id = self.sessions.by_token(token).ok_or(Failure::UnknownSession {})?;
        let session = self.sessions.get_mut(session_id).ok_or(Failure::UnknownSession {})?;
        if session.is_orphaned() || session.is_leaving() || session.uid != connection.peer.uid {
            return Err(Failure::UnknownSession {});
        }
        session.connections.insert(id);
        connection.settle(Role::Requests(session_id));
        self.reply(reply_to, &Attached { session_id: session_id.0 });
        Ok(())
    }

    pub(crate) fn add_region(&mut self, reply_to: ReplyTo, session_id: crate::session::SessionId) {
        let Some(session) = self.sessions.get(session_id) else { return };
        let regions = session.regions.len();
        let slots = plasmon_protocol::index_of(plasmon_protocol::limits::PIN_SLOTS.into());
        if regions * slots >= plasmon_protocol::index_of(self.options.max_pins.into()) {
            let what = "pins of one process (--max-pins)".to_owned();
            return self.fail(reply_to, Failure::TooMany { what, limit: self.options.max_pins.into() });
        }
        let (region, fd) = match self.make_session_region_for(session_id, regions) {
            Ok(made) => made,
            Err(failure) => return self.fail(reply_to, failure),
        };
        let name = region.region.name().unwrap_or_default().to_owned();
        let region_number = u32::try_from(regions).unwrap_or(u32::MAX);
        if let Some(session) = self.sessions.get_mut(session_id) {
            session.regions.push(region);
        }
        let fds = fd.into_iter().map(Arc::new).collect();
        self.try_reply(reply_to, &RegionAdded { region: region_number, name }, fds);
    }

    fn make_session_region(&self, number: usize) -> Result<(PinRegion, Option<OwnedFd>), Failure> {
        self.make_session_region_for(self.sessions.next_id(), number)
    }

    /// A session region, and the opening of it that the client gets (none where it is a named segment).
    fn make_session_region_for(
        &self,
        session: crate::session::SessionId,
        number: usize,
    ) -> Result<(PinRegion, Option<OwnedFd>), Failure> {
        let make = || -> Result<_, Error> {
            let label = self.labels.session(session, number);
            let region = Region::create(&label, self.session_bytes, self.index.backend(), &self.kernel)?;
            let words = region.map_words()?;
            region.seal(Seals::ShrinkGrow)?;
            let fd = if self.openings.is_some() { Some(region.open_read_write()?) } else { None };
            Ok((PinRegion { region, words: Arc::new(words) }, fd))
        };
        let (region, fd) = make().map_err(|error| Failure::Internal { reason: error.to_string() })?;
        SessionRegion::prepare(region.words.words())
            .map_err(|error| Failure::Internal { reason: error.to_string() })?;
        Ok((region, fd))
    }
}

/// The command name of a process, for people; empty where /proc does not tell.
fn command_of(pid: u32) -> String {
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    comm.trim_end().to_owned()
}

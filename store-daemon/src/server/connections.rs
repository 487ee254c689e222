//! Accepting connections, taking frames from them, and sending replies.

use super::{
    ACCEPT_AGAIN_AFTER, ACCEPTS_PER_TURN, FRAMES_PER_TURN, READS_AT_THE_END, Server, listener_fd, tokens,
};
use crate::budget::{DECODED_BYTES, Held, decoded_commit_bytes, found_many_bytes};
use crate::connection::{Broken, Connection, ConnectionId, Frame, Peer, Role};
use crate::effect::Reply;
use crate::parked::{Newcomer, ReplyTo, Request, Tried};
use crate::request::LookUp;
use crate::session::SessionId;
use crate::slice::Slice;
use interprocess::local_socket::Stream;
use interprocess::local_socket::traits::Listener as _;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use plasmon_protocol::limits::HELLO_BYTES_MAX;
use plasmon_protocol::message::{self, AnyRequest, Commit, Failure, FindMany, Hello, Message};
use plasmon_shm::{FaultPoint, fault_point};
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

impl Server {
    /// Accepts who has connected, for a slice. Returns whether nobody is left who had.
    pub(super) fn accept(&mut self) -> bool {
        let mut slice = Slice::begin();
        for _ in 0..ACCEPTS_PER_TURN {
            if slice.is_over() {
                return false;
            }
            let Some(listener) = &self.listener else { return true };
            let stream = match listener.accept() {
                Ok(stream) => stream,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
                Err(error) => {
                    // Out of descriptors, most likely: the backlog keeps, and those who have connections go on.
                    tracing::warn!(%error, "cannot accept a connection; trying again soon");
                    self.accept_at = Some(Instant::now() + ACCEPT_AGAIN_AFTER);
                    self.listen(false);
                    return false;
                }
            };
            fault_point(FaultPoint::Accepted);
            if let Err(reason) = self.admit(stream)
                && let Some(left_out) = self.refusals_logged.pass(Instant::now())
            {
                tracing::warn!(reason, left_out, "refused a connection");
            }
        }
        false
    }

    /// Accepts again, after a rest.
    pub(super) fn accept_again(&mut self) {
        self.accept_at = None;
        self.listen(true);
    }

    /// Accepts who has connected, and hears what the connections that have not said who they are have said. Returns
    /// whether that was all: nobody is left to be accepted, or waits for a turn in which his process has a share.
    fn hear_newcomers(&mut self) -> bool {
        let are_accepted = self.listening && self.accept();
        let is_new =
            |(&id, connection): (&ConnectionId, &Connection)| (connection.role == Role::New).then_some(id);
        let newcomers: Vec<ConnectionId> = self.connections.iter().filter_map(is_new).collect();
        for id in newcomers {
            self.on_connection(id, EpollFlags::EPOLLIN);
        }
        let waits = |connection: &Connection| connection.role == Role::New && connection.backlogged;
        are_accepted && !self.connections.values().any(waits)
    }

    pub(super) fn listen(&mut self, on: bool) {
        let Some(listener) = &self.listener else { return };
        if on == self.listening {
            return;
        }
        let fd = listener_fd(listener);
        let result = if on {
            self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, tokens::LISTENER))
        } else {
            self.epoll.delete(fd)
        };
        match result {
            Ok(()) => self.listening = on,
            Err(error) => tracing::error!(%error, "cannot change what the loop waits for"),
        }
    }

    pub(super) fn admit(&mut self, Stream::UdSocket(stream): Stream) -> Result<(), String> {
        let peer =
            plasmon_shm::peer(stream.as_fd(), &self.state.facts.kernel).map_err(|error| error.to_string())?;
        let peer = Peer { pid: u32::try_from(peer.pid).unwrap_or(0), uid: peer.uid };
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let mut connection =
            Connection::new(stream, peer, Duration::from_millis(self.state.facts.options.frame_time_ms));
        let facts = &self.state.facts;
        let refusal = if !facts.admits(peer.uid) {
            Some(Failure::NotAdmitted { uid: peer.uid, store_uid: facts.own_uid })
        } else {
            self.counts.add(peer).err()
        };
        if let Some(failure) = refusal {
            let why = match &failure {
                Failure::NotAdmitted { uid, .. } => format!("not admitted; --allow-uid {uid} would admit it"),
                Failure::TooMany { what, limit } => format!("too many {what}: the limit is {limit}"),
                other => format!("{other:?}"),
            };
            let reason = format!("uid {}, pid {}: {why}", peer.uid, peer.pid);
            let _ = connection.send(0, Reply::failed(failure), facts.options.max_queued_output);
            plasmon_shm::discard_unread(connection.as_fd());
            self.state.counters.refused += 1;
            return Err(reason);
        }
        let event = EpollEvent::new(connection.interest, id.0);
        if let Err(error) = self.epoll.add(connection.as_fd(), event) {
            self.counts.remove(peer);
            return Err(error.to_string());
        }
        self.note_deadline(connection.deadline());
        self.connections.insert(id, connection);
        self.state.connection_began(id);
        Ok(())
    }

    /// Reads from and writes to a connection as far as `flags` say that it can. Returns whether anything has come.
    pub(super) fn on_connection(&mut self, id: ConnectionId, flags: EpollFlags) -> bool {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| !connection.is_broken)
        else {
            return false;
        };
        let flushed = if flags.contains(EpollFlags::EPOLLOUT) { connection.flush() } else { Ok(()) };
        let hung_up = flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        let wants_input = connection.interest.contains(EpollFlags::EPOLLIN);
        let read = if flags.contains(EpollFlags::EPOLLIN) && wants_input {
            connection.read(&mut self.read_buffer)
        } else if hung_up {
            Err(Broken::Closed)
        } else {
            Ok(false)
        };
        self.take_frames(id);
        match flushed.and(read) {
            Ok(has_come) => {
                self.set_interest(id);
                has_come
            }
            Err(why) => {
                self.break_off(id, why);
                false
            }
        }
    }

    /// This connection will be closed, and nothing of it is looked at until then.
    pub(super) fn break_off(&mut self, id: ConnectionId, why: Broken) {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| !connection.is_broken)
        else {
            return;
        };
        connection.is_broken = true;
        let _ = self.epoll.delete(connection.as_fd());
        self.broken.push((id, why));
    }

    /// Closes what was broken off, for a slice, and decides what becomes of sessions that were made for a child.
    pub(super) fn close_broken(&mut self) {
        // Who had connected before the lifelines were closed is heard first, in as many turns as that takes: a child that
        // closes all descriptors right after the fork has joined its session, and rests on its pins.
        if !self.childless.is_empty() && self.hear_newcomers() {
            for session in std::mem::take(&mut self.childless) {
                self.state.settle_closed(session);
            }
            self.carry_out();
        }
        let mut slice = Slice::begin();
        while let Some((id, why)) = self.broken.pop() {
            self.close_connection(id, &why);
            if slice.is_over() {
                return;
            }
        }
    }

    /// Handles what was left over from earlier turns: as much as there is time for, of those first who have had least.
    pub(super) fn take_backlogs(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        if ready.len() > 1 {
            ready.sort_by_cached_key(|id| self.place_of(id.0));
        }
        self.shares.begin_waiting();
        let mut rest = ready.into_iter();
        while !self.shares.are_spent()
            && let Some(id) = rest.next()
        {
            self.take_backlog(id);
        }
        self.is_crowded |= !rest.as_slice().is_empty();
        self.ready.extend(rest);
    }

    /// Handles what was left over of a connection from an earlier turn.
    pub(super) fn take_backlog(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.backlogged = false;
            self.take_frames(id);
            self.set_interest(id);
        }
    }

    /// Handles the frames that have come: as many as the connection may have unanswered, and no more in one turn than
    /// leave the others their share.
    fn take_frames(&mut self, id: ConnectionId) {
        for handled in 0.. {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            if connection.in_flight >= self.state.facts.options.max_in_flight
                || connection.closing
                || connection.backlogged
                || connection.is_broken
            {
                return;
            }
            let peer = connection.peer;
            if handled == 0 {
                self.shares.serve(peer);
            }
            if (handled == FRAMES_PER_TURN || self.shares.is_spent(peer)) && connection.has_input() {
                connection.backlogged = true;
                self.ready.push(id);
                return;
            }
            let role = connection.role;
            if matches!(role, Role::Lifeline(_)) {
                if connection.has_input() {
                    self.refuse(id, "a lifeline carries nothing after the handshake");
                }
                return;
            }
            if role == Role::New && connection.announced_bytes().is_some_and(|bytes| bytes > HELLO_BYTES_MAX)
            {
                let reason = format!("the first message on a connection has at most {HELLO_BYTES_MAX} bytes");
                return self.refuse(id, &reason);
            }
            if role.session().is_some() && !self.admit_frame(id) {
                return;
            }
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let frame = match connection.next_frame() {
                Ok(None) => {
                    let deadline = connection.deadline();
                    return self.note_deadline(deadline);
                }
                Ok(Some(frame)) => frame,
                Err(why) => return self.refuse(id, &why.to_string()),
            };
            connection.in_flight += 1;
            self.state.counters.requests += 1;
            let bytes = std::mem::take(&mut connection.admitted_bytes);
            let held = Held { peer, bytes };
            let reply_to = ReplyTo { connection: id, request_id: frame.header.request_id, held };
            let began = Instant::now();
            match role.session() {
                None => self.on_first_frame(reply_to, frame),
                Some(session) => self.on_frame(reply_to, session, frame),
            }
            self.carry_out();
            self.shares.spend(peer, began.elapsed());
        }
    }

    /// Whether the frame that comes next, if its header is there, fits what its process and all of them may hold. If
    /// not, the connection is read no further until somebody was answered.
    fn admit_frame(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        let Some(bytes) = connection.announced_bytes() else { return true };
        if connection.admitted_bytes == 0 && self.held.take(Held { peer: connection.peer, bytes }) {
            connection.admitted_bytes = bytes;
        } else if connection.admitted_bytes == 0 && !connection.starved {
            connection.starve();
            self.starved.push(id);
        }
        connection.admitted_bytes != 0
    }

    /// Goes on with the connections that wait until less is held.
    pub(super) fn feed_the_starved(&mut self) {
        self.gave_back = false;
        for id in std::mem::take(&mut self.starved) {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.starved = false;
                self.take_frames(id);
                self.set_interest(id);
            }
        }
    }

    /// A request is answered, or will not be: its bytes are held no longer.
    pub(crate) fn give_back(&mut self, held: Held) {
        self.held.give_back(held);
        self.gave_back = true;
    }

    /// The first message on a connection, which must be [`Hello`](message::Hello).
    fn on_first_frame(&mut self, reply_to: ReplyTo, Frame { header, body }: Frame) {
        let id = reply_to.connection;
        if let Some(version) = message::hello_version(header.kind, &body)
            && version != message::VERSION
        {
            // Whatever else stands in it: another version may say more.
            self.connections.get_mut(&id).into_iter().for_each(Connection::close_soon);
            self.state.counters.refused += 1;
            let failure = Failure::VersionMismatch { client: version, store: message::VERSION };
            return self.state.fail(reply_to, failure);
        }
        match AnyRequest::parse(header.kind, body) {
            Some(Ok(AnyRequest::Hello(hello))) => self.on_hello(reply_to, &hello),
            Some(Err(error)) => self.refuse(id, &error.to_string()),
            _ => self.refuse(id, "the first message on a connection must be Hello"),
        }
    }

    /// Who says Hello is asked of the kernel.
    fn on_hello(&mut self, reply_to: ReplyTo, hello: &Hello) {
        let id = reply_to.connection;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if std::mem::replace(&mut connection.has_said_hello, true) {
            // Another one, while the first one waits.
            return self.refuse(id, "a connection says Hello once");
        }
        let pidfd = plasmon_shm::peer(connection.as_fd(), &self.state.facts.kernel).map(|peer| peer.pidfd);
        let pidfd = pidfd.map_err(|error| error.to_string());
        let newcomer = Newcomer { peer: connection.peer, pidfd };
        self.state.hello(reply_to, hello, newcomer, false);
    }

    fn on_frame(&mut self, mut reply_to: ReplyTo, session: SessionId, Frame { header, body }: Frame) {
        let mut hold = |bytes: usize| {
            self.held.add(Held { peer: reply_to.held.peer, bytes });
            reply_to.held.bytes += bytes;
        };
        if header.kind == Commit::KIND {
            hold(decoded_commit_bytes(&body));
            return self.state.begin_commit(reply_to, session, body);
        }
        if header.kind == FindMany::KIND {
            let body_bytes = body.len();
            match FindMany::read(body) {
                Ok(names) => {
                    hold(found_many_bytes(names.left(), body_bytes));
                    self.state.begin_look_up(LookUp::new(reply_to, session, names));
                }
                Err(error) => self.state.refuse_request(reply_to, &error),
            }
            return;
        }
        match AnyRequest::parse(header.kind, body) {
            Some(Ok(request)) => {
                hold(DECODED_BYTES);
                let (as_of_ns, tried) = (None, Tried::Nothing);
                let request = Request { session, request, as_of_ns, tried };
                self.state.on_request(reply_to, Box::new(request));
            }
            Some(Err(error)) => self.state.refuse_request(reply_to, &error),
            None => {
                self.state.counters.refused += 1;
                self.state.fail(reply_to, Failure::UnknownRequest { kind: header.kind });
            }
        }
    }

    /// Ends a connection that does not speak the protocol, with a last word.
    pub(super) fn refuse(&mut self, id: ConnectionId, reason: &str) {
        self.state.counters.refused += 1;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        tracing::debug!(pid = connection.peer.pid, uid = connection.peer.uid, reason, "malformed input");
        connection.close_soon();
        connection.in_flight += 1;
        let deadline = connection.deadline();
        self.note_deadline(deadline);
        let failure = Failure::Malformed { reason: reason.to_owned() };
        let to = ReplyTo { connection: id, request_id: 0, held: Held::default() };
        self.send(to, Reply::failed(failure));
    }

    /// Waits for what this connection needs next.
    pub(super) fn set_interest(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        self.queued_output = self.queued_output - connection.counted_output + connection.unread();
        connection.counted_output = connection.unread();
        if connection.is_broken {
            return;
        }
        if connection.closing && !connection.has_output() {
            return self.break_off(id, Broken::Closed);
        }
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLOUT, connection.has_output());
        let takes_more = connection.in_flight < self.state.facts.options.max_in_flight
            && !connection.closing
            && !connection.starved
            && !connection.backlogged;
        interest.set(EpollFlags::EPOLLIN, takes_more);
        if interest != connection.interest {
            connection.interest = interest;
            let mut event = EpollEvent::new(interest, id.0);
            if let Err(error) = self.epoll.modify(connection.as_fd(), &mut event) {
                self.break_off(id, error.into());
            }
        }
    }

    pub(super) fn close_connection(&mut self, id: ConnectionId, why: &Broken) {
        let Some(connection) = self.connections.remove(&id) else { return };
        let _ = self.epoll.delete(connection.as_fd());
        plasmon_shm::discard_unread(connection.as_fd());
        self.counts.remove(connection.peer);
        self.queued_output -= connection.counted_output;
        self.give_back(Held { peer: connection.peer, bytes: connection.admitted_bytes });
        tracing::debug!(pid = connection.peer.pid, %why, "connection closed");
        self.state.connection_ended(id, connection.role.session());
        self.carry_out();
    }

    /// Answers a request. Returns whether there was still a connection to answer on.
    pub(super) fn send(&mut self, to: ReplyTo, reply: Reply) -> bool {
        self.give_back(to.held);
        let options = &self.state.facts.options;
        let Some(connection) = self.connections.get_mut(&to.connection) else { return false };
        let was_full = connection.in_flight >= options.max_in_flight;
        connection.in_flight = connection.in_flight.saturating_sub(1);
        match connection.send(to.request_id, reply, options.max_queued_output) {
            Ok(()) => {
                if was_full && connection.has_input() && !connection.backlogged {
                    connection.backlogged = true;
                    self.ready.push(to.connection);
                }
                self.set_interest(to.connection);
                self.shed_output();
                true
            }
            Err(why) => {
                connection.give_up();
                self.break_off(to.connection, why);
                false
            }
        }
    }

    /// While all connections together leave too much unread, the session that leaves most loses the connections that
    /// do.
    fn shed_output(&mut self) {
        while self.queued_output > self.state.facts.options.max_queued_output_in_all {
            let mut by_session: HashMap<Option<SessionId>, usize> = HashMap::new();
            for connection in self.connections.values() {
                *by_session.entry(connection.role.session()).or_default() += connection.counted_output;
            }
            let most = by_session.into_iter().max_by_key(|&(_, bytes)| bytes);
            let Some((most, 1..)) = most else { return };
            let mut given_up = Vec::new();
            for (&id, connection) in &mut self.connections {
                if connection.role.session() == most && connection.counted_output > 0 {
                    given_up.push((id, connection.unread()));
                    self.queued_output -= std::mem::take(&mut connection.counted_output);
                    connection.give_up();
                }
            }
            given_up.into_iter().for_each(|(id, unread)| self.break_off(id, Broken::Unread(unread)));
        }
    }

    /// Breaks off the connections whose frames and handshakes have run out of time.
    pub(super) fn break_off_late(&mut self) {
        let now = Instant::now();
        let is_late = |(&id, connection): (&ConnectionId, &Connection)| {
            connection.deadline().is_some_and(|at| at <= now).then_some(id)
        };
        let late: Vec<ConnectionId> = self.connections.iter().filter_map(is_late).collect();
        late.into_iter().for_each(|id| self.break_off(id, Broken::TooSlow));
        let rest = self.connections.values().filter(|connection| !connection.is_broken);
        self.earliest_deadline = rest.filter_map(Connection::deadline).min();
    }

    /// Handles what has come until now of a store that shuts down. Waits for nobody: what a client does not take at once,
    /// because it reads too little, is lost to it.
    pub(super) fn refuse_the_rest(&mut self) {
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            for _ in 0..READS_AT_THE_END {
                let has_come = self.on_connection(id, EpollFlags::EPOLLIN);
                self.carry_out();
                while let Some(id) = self.ready.pop() {
                    self.shares.begin_turn(false); // everybody is answered, and nobody waits for others any more
                    self.take_backlog(id);
                }
                if !has_come {
                    break;
                }
            }
        }
    }

    /// Something must have happened by `at`.
    pub(super) fn note_deadline(&mut self, at: Option<Instant>) {
        self.earliest_deadline = self.earliest_deadline.into_iter().chain(at).min();
    }
}

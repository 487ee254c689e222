//! One client connection: bytes to frames, replies to bytes, both bounded.
//!
//! `server/connections.rs` makes one for each client it accepts, and calls it when the socket can be read or written.

use bytes::{Buf, Bytes, BytesMut};
use interprocess::os::unix::uds_local_socket::Stream;
use nix::sys::{
    epoll::EpollFlags,
    socket::{MsgFlags, send},
};
use plasmon_protocol::{
    frame::{self, FrameError, FrameHeader, HEADER_BYTES},
    index_of,
    message::{Failed, Failure, Message},
};
use std::{
    collections::VecDeque,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{effect::Reply, session::SessionId};

/// A connection's number, unique while the daemon lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// What a connection has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It has not said yet.
    New,
    /// It is a session's lifeline.
    Lifeline(SessionId),
    /// It carries requests of a session.
    Requests(SessionId),
}

impl Role {
    /// The session that the connection belongs to.
    pub(crate) fn session(self) -> Option<SessionId> {
        match self {
            Role::New => None,
            Role::Lifeline(session) | Role::Requests(session) => Some(session),
        }
    }
}

/// A frame as it came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) body: Bytes,
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("closed by the client")]
    Closed,
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("a frame that had begun was not complete within its time")]
    TooSlow,
    #[error("{0} bytes of replies were left unread")]
    Unread(usize),
    #[error("{0}")]
    Io(#[from] nix::Error),
}

/// Bytes taken from the socket at once, so that one busy client does not keep the loop from the others.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// One client connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    pub(crate) role: Role,
    pub(crate) peer: Peer,
    input: BytesMut,
    output: Vec<u8>,
    /// Descriptors that go with the byte of the output at this place, in order.
    output_fds: VecDeque<(usize, Vec<Arc<OwnedFd>>)>,
    sent: usize,
    /// Requests without a reply.
    pub(crate) in_flight: usize,
    /// When the frame that has begun, or the handshake, must be complete.
    deadline: Option<Instant>,
    frame_time: Duration,
    /// The length of the frame that has begun, once it is held against its session.
    pub(crate) admitted_bytes: usize,
    /// It is read no further until its session, or all of them, hold less.
    pub(crate) starved: bool,
    /// Bytes of its output that are counted among those of all connections.
    pub(crate) counted_output: usize,
    /// Nothing more is sent: its output was given up.
    over: bool,
    /// What the event loop waits for on this connection.
    pub(crate) interest: EpollFlags,
    /// To be closed once its output is sent.
    pub(crate) closing: bool,
    /// It has frames that wait for the next turn; nothing more is read from it until then.
    pub(crate) backlogged: bool,
    /// It will be closed; nothing of it is looked at any more.
    pub(crate) is_broken: bool,
    /// The client has said Hello, which may be waiting for its answer.
    pub(crate) has_said_hello: bool,
}

/// Who is at the other end, as the kernel says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    pub(crate) pid: u32,
    pub(crate) uid: u32,
}

impl Connection {
    pub(crate) fn new(stream: Stream, peer: Peer, frame_time: Duration) -> Self {
        Connection {
            stream,
            role: Role::New,
            peer,
            input: BytesMut::new(),
            output: Vec::new(),
            output_fds: VecDeque::new(),
            sent: 0,
            in_flight: 0,
            deadline: Some(Instant::now() + frame_time),
            frame_time,
            admitted_bytes: 0,
            starved: false,
            counted_output: 0,
            over: false,
            interest: EpollFlags::EPOLLIN,
            closing: false,
            backlogged: false,
            is_broken: false,
            has_said_hello: false,
        }
    }

    /// When this connection must have made progress.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Nothing more is wanted of the peer: the connection ends once it has taken what is queued, or in a while.
    pub(crate) fn close_soon(&mut self) {
        self.closing = true;
        self.deadline = Some(Instant::now() + self.frame_time);
    }

    /// The handshake is over: a quiet connection may stay quiet.
    pub(crate) fn settle(&mut self, role: Role) {
        self.role = role;
        self.deadline = None;
    }

    /// What has come of a frame waits until there is room for the rest: that is not the peer's fault.
    pub(crate) fn starve(&mut self) {
        self.starved = true;
        self.deadline = None;
    }

    /// Drops what is queued, and sends nothing more.
    pub(crate) fn give_up(&mut self) {
        self.over = true;
        self.closing = true;
        self.output = Vec::new();
        self.output_fds.clear();
        self.sent = 0;
    }

    /// Takes what has come, at most once around the loop's turn. `buffer` is where the kernel puts it, which has
    /// [`READ_BYTES`] and serves all connections. Returns whether anything has come.
    ///
    /// # Errors
    /// [`Broken`] if the connection is over.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<bool, Broken> {
        let wanted = READ_BYTES.min(self.missing().max(4_096));
        // Nobody is asked for descriptors; what comes all the same must not hold up the loop when it is closed.
        match plasmon_shm::receive_bytes(self.stream.as_fd(), &mut buffer[..wanted]) {
            Ok(0) => Err(Broken::Closed),
            Ok(came) => {
                self.input.extend_from_slice(&buffer[..came]);
                Ok(true)
            }
            Err(error) if error.is_would_block() => Ok(false),
            Err(error) => Err(nix::Error::from_raw(error.errno().unwrap_or_default()).into()),
        }
    }

    /// The next complete frame, if there is one.
    ///
    /// # Errors
    /// [`Broken::Frame`]: where the next frame would begin is unknown.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, Broken> {
        let Some(header) = self.input.first_chunk::<HEADER_BYTES>() else {
            self.expect_rest(!self.input.is_empty());
            return Ok(None);
        };
        let header = FrameHeader::parse(header)?;
        let frame_bytes = HEADER_BYTES + index_of(header.len_bytes.into());
        if self.input.len() < frame_bytes {
            self.expect_rest(true);
            return Ok(None);
        }
        self.expect_rest(false);
        let mut frame = if self.input.len() == frame_bytes {
            std::mem::take(&mut self.input) // the memory goes with the frame
        } else {
            self.input.split_to(frame_bytes)
        };
        frame.advance(HEADER_BYTES);
        Ok(Some(Frame { header, body: frame.freeze() }))
    }

    /// Queues a message and sends what the socket takes. Its descriptors go with its first byte.
    ///
    /// # Errors
    /// [`Broken`] if the connection is over.
    pub(crate) fn send(&mut self, request_id: u64, reply: Reply, output_max: usize) -> Result<(), Broken> {
        if self.over {
            return Err(Broken::Closed);
        }
        let Reply { kind, body, fds } = reply;
        if !fds.is_empty() {
            self.output_fds.push_back((self.output.len(), fds));
        }
        if frame::append(&mut self.output, kind, request_id, |out| out.extend_from_slice(&body)).is_err() {
            let (what, found_bytes) = ("the reply".to_owned(), body.len() as u64);
            let limit_bytes = plasmon_protocol::limits::FRAME_BYTES_MAX.into();
            let failure = Failure::TooLarge { what, found_bytes, limit_bytes };
            Failed { failure }.frame(request_id, &mut self.output)?;
        }
        self.flush()?;
        match self.unread() {
            unread if unread > output_max => Err(Broken::Unread(unread)),
            _ => Ok(()),
        }
    }

    /// Sends what is queued as far as the socket takes it.
    ///
    /// # Errors
    /// [`Broken`] if the connection is over.
    pub(crate) fn flush(&mut self) -> Result<(), Broken> {
        while self.sent < self.output.len() {
            match self.send_some() {
                Ok(len) => self.sent += len,
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => {
                    // What is sent goes, or a reader that always leaves a byte would make this grow for ever.
                    if self.sent > self.output.len() / 2 {
                        self.output.drain(..self.sent);
                        self.output_fds.iter_mut().for_each(|(at, _)| *at -= self.sent);
                        self.sent = 0;
                    }
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.output.clear();
        self.output.shrink_to(64 << 10);
        self.sent = 0;
        Ok(())
    }

    /// Sends up to the next message with descriptors, or that message's first bytes with them.
    fn send_some(&mut self) -> nix::Result<usize> {
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let fd = self.stream.as_fd();
        let end = match self.output_fds.front() {
            Some((at, fds)) if *at == self.sent => {
                let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
                let end = self.output_fds.get(1).map_or(self.output.len(), |(next, _)| *next);
                let sent = match plasmon_shm::send(fd, &self.output[self.sent..end], &fds) {
                    Ok(sent) => sent,
                    Err(error) if error.is_would_block() => return Err(nix::Error::EAGAIN),
                    Err(error) => return Err(nix::Error::from_raw(error.errno().unwrap_or_default())),
                };
                self.output_fds.pop_front();
                return Ok(sent);
            }
            Some((at, _)) => *at,
            None => self.output.len(),
        };
        send(fd.as_raw_fd(), &self.output[self.sent..end], flags)
    }

    /// Whether replies wait for the socket to take them.
    pub(crate) fn has_output(&self) -> bool {
        self.unread() > 0
    }

    /// Bytes of replies that wait for the socket to take them.
    pub(crate) fn unread(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Length of the frame that comes next, with its header, once that is there.
    pub(crate) fn announced_bytes(&self) -> Option<usize> {
        let header = FrameHeader::parse(self.input.first_chunk::<HEADER_BYTES>()?).ok()?;
        Some(HEADER_BYTES + index_of(header.len_bytes.into()))
    }

    /// Whether bytes of a frame are waiting that has not been looked at.
    pub(crate) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Bytes that are missing of the frame that has begun.
    fn missing(&self) -> usize {
        self.announced_bytes().map_or(0, |bytes| bytes.saturating_sub(self.input.len()))
    }

    fn expect_rest(&mut self, rest: bool) {
        match (rest, self.deadline) {
            (true, None) => self.deadline = Some(Instant::now() + self.frame_time),
            (false, Some(_)) if self.role != Role::New && !self.closing => self.deadline = None,
            _ => {}
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

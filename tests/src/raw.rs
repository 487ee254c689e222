//! Connections that speak the protocol byte by byte, so that they can also break it.

use plasmon_protocol::{
    frame::{FrameHeader, HEADER_BYTES},
    index_of,
    message::{
        Attached, Bind, Change, Commit, Failed, Failure, Hello, MAGIC, Message, Payload, Request, Role,
        VERSION, Welcome,
    },
    name::{Name, Namespace},
    object::{Header, Kind},
};
use std::{
    io::{Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

/// One connection to a daemon.
#[derive(Debug)]
pub struct Raw {
    stream: UnixStream,
}

impl AsFd for Raw {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// What came back: the reply, or why not.
pub type Answer<M> = Result<M, Failure>;

impl Raw {
    /// Connects and says nothing yet. Reads that take more than 30 seconds fail.
    ///
    /// # Panics
    /// If nobody listens.
    #[must_use]
    pub fn connect(socket: &Path) -> Raw {
        let stream = UnixStream::connect(socket).expect("a daemon listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout can be set");
        Raw { stream }
    }

    /// Begins a session on this connection; the descriptors are index, arena, session region, writable arena.
    ///
    /// # Panics
    /// If the daemon does not welcome it.
    pub fn begin_session(&mut self) -> (Welcome, Vec<OwnedFd>) {
        let hello = Hello { magic: MAGIC, version: VERSION, role: Role::Lifeline };
        self.send(1, &hello);
        let mut buffer = vec![0; 4_096];
        let (len, fds) = plasmon_shm::receive(&self.stream, &mut buffer).expect("the daemon answers");
        let header =
            FrameHeader::parse(buffer.first_chunk().expect("a whole header")).expect("a valid header");
        assert_eq!(header.kind, Welcome::KIND);
        let welcome = Welcome::parse(buffer[HEADER_BYTES..len].to_vec().into()).expect("a valid welcome");
        (welcome, fds)
    }

    /// As [`call`](Self::call), for an answer that comes with descriptors.
    ///
    /// # Panics
    /// If the request fails, or the connection breaks.
    pub fn call_with_fds<R: Request>(&mut self, request: &R) -> (R::Reply, Vec<OwnedFd>) {
        self.send(7, request);
        let mut buffer = vec![0; 4_096];
        let (len, fds) = plasmon_shm::receive(&self.stream, &mut buffer).expect("the daemon answers");
        let header =
            FrameHeader::parse(buffer.first_chunk().expect("a whole header")).expect("a valid header");
        assert_eq!(header.kind, R::Reply::KIND);
        (R::Reply::parse(buffer[HEADER_BYTES..len].to_vec().into()).expect("a valid reply"), fds)
    }

    /// Joins a session.
    ///
    /// # Panics
    /// If the daemon closes the connection instead of answering.
    pub fn join(&mut self, token: [u8; 16]) -> Answer<Attached> {
        self.send(1, &Hello { magic: MAGIC, version: VERSION, role: Role::Requests { token } });
        self.receive()
    }

    /// Waits five minutes for answers, for what takes long on a busy machine, instead of 30 seconds.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn be_patient(&self) {
        self.stream.set_read_timeout(Some(Duration::from_secs(300))).expect("a timeout can be set");
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Panics
    /// If the connection breaks.
    pub fn call<R: Request>(&mut self, request: &R) -> Answer<R::Reply> {
        self.send(7, request);
        self.receive()
    }

    /// Sends a message.
    ///
    /// # Panics
    /// If the connection breaks.
    pub fn send<M: Message>(&mut self, request_id: u64, message: &M) {
        let mut frame = Vec::new();
        message.frame(request_id, &mut frame).expect("it fits into a frame");
        self.send_bytes(&frame);
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// If the connection breaks.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the daemon takes the bytes");
    }

    /// Waits for a reply of a known kind, or a failure.
    ///
    /// # Panics
    /// If the connection breaks, or something else comes.
    pub fn receive<M: Message>(&mut self) -> Answer<M> {
        let (header, body) = self.receive_frame().expect("the daemon answers");
        if header.kind == Failed::KIND {
            return Err(Failed::parse(body.into()).expect("a valid failure").failure);
        }
        assert_eq!(header.kind, M::KIND);
        Ok(M::parse(body.into()).expect("a valid reply"))
    }

    /// Waits for any frame; `None` once the daemon has closed the connection.
    pub fn receive_frame(&mut self) -> Option<(FrameHeader, Vec<u8>)> {
        let mut header = [0; HEADER_BYTES];
        self.stream.read_exact(&mut header).ok()?;
        let header = FrameHeader::parse(&header).expect("the daemon sends valid headers");
        let mut body = vec![0; index_of(header.len_bytes.into())];
        self.stream.read_exact(&mut body).ok()?;
        Some((header, body))
    }

    /// Waits for any frame, and returns the descriptors that came with its bytes.
    ///
    /// # Panics
    /// If the connection breaks.
    pub fn receive_with_fds(&mut self) -> (FrameHeader, Vec<u8>, Vec<OwnedFd>) {
        let mut fds = Vec::new();
        let mut fill = |buffer: &mut [u8]| {
            let mut len = 0;
            while len < buffer.len() {
                let (more, came) =
                    plasmon_shm::receive(&self.stream, &mut buffer[len..]).expect("the daemon answers");
                assert_ne!(more, 0, "the daemon has closed the connection");
                len += more;
                fds.extend(came);
            }
        };
        let mut header = [0; HEADER_BYTES];
        fill(&mut header);
        let header = FrameHeader::parse(&header).expect("the daemon sends valid headers");
        let mut body = vec![0; index_of(header.len_bytes.into())];
        fill(&mut body);
        (header, body, fds)
    }

    /// Waits until the daemon closes the connection, and returns whether it did so within the read timeout.
    pub fn is_closed_by_peer(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// A whole session: its lifeline, and one connection for requests.
#[derive(Debug)]
pub struct RawSession {
    /// The lifeline.
    pub lifeline: Raw,
    /// Where requests go.
    pub requests: Raw,
    /// What the daemon said.
    pub welcome: Welcome,
    /// Index, arena, session region, writable arena.
    pub fds: Vec<OwnedFd>,
}

impl RawSession {
    /// Begins a session.
    ///
    /// # Panics
    /// If the daemon refuses.
    #[must_use]
    pub fn begin(socket: &Path) -> RawSession {
        let mut lifeline = Raw::connect(socket);
        let (welcome, fds) = lifeline.begin_session();
        let mut requests = Raw::connect(socket);
        requests.join(welcome.token).expect("the token is good");
        RawSession { lifeline, requests, welcome, fds }
    }
}

/// A name that is valid.
///
/// # Panics
/// If it is not.
#[must_use]
pub fn name(text: &str) -> Name {
    Name::new(text).expect("a valid name")
}

/// Binds `text` in `default` to bytes that are somewhere.
#[must_use]
pub fn bind(text: &str, payload: Payload) -> Change {
    Change::Bind(Bind {
        namespace: Namespace::default(),
        name: name(text),
        description: None,
        metadata: None,
        header: Header::new(Kind::BYTES),
        ttl: None,
        payload,
    })
}

/// Binds `text` in `default` to `len` bytes that travel in the message.
#[must_use]
pub fn inline(text: &str, len: usize) -> Change {
    bind(text, Payload::Inline { bytes: vec![7; len].into() })
}

/// A commit of `changes`, and nothing else.
#[must_use]
pub fn commit(changes: Vec<Change>) -> Commit {
    Commit { conditions: vec![], changes, end_leases: vec![] }
}

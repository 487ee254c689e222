//! One connection to the store: a request, then its answer.

use crate::error::{Error, Result};
use interprocess::{
    ConnectWaitMode,
    local_socket::{ConnectOptions, GenericFilePath, Stream as AnyStream, ToFsName},
};
use nix::sys::{
    socket::{
        MsgFlags, UnixAddr, getpeername, getsockopt, recv, send, setsockopt,
        sockopt::{PeerCredentials, ReceiveTimeout},
    },
    time::TimeVal,
};
use plasmon_protocol::{
    frame::{FrameHeader, HEADER_BYTES},
    index_of,
    message::{
        Attached, ChildAdded, Failed, Failure, Hello, MAGIC, Message, Request, Role, VERSION, Welcome,
    },
};
use plasmon_shm::{FaultPoint, KeptFd, Polling, ShortPath, fault_point};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::Path,
    time::{Duration, Instant},
};

/// Why a call got no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The store answered that it did not do it.
    Failed(Failure),
    /// The connection broke. `sent` says whether the store may have got the request.
    Lost { source: io::Error, sent: bool },
    /// No answer came in time; the request may still be carried out.
    TimedOut,
    /// The request could not be made, or the answer not be understood.
    Other(Error),
}

/// One connection to the store. Whoever gets an error other than [`CallError::Failed`] drops it.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: KeptFd,
    buffer: Vec<u8>,
    /// What was read beyond the last answer: the store's last word may follow one at once.
    surplus: Vec<u8>,
    /// How long the socket waits for something to read, if it was told.
    patience: Option<Option<Duration>>,
    next_request: u64,
    /// It is asked to join a session, and the store's answer is still to be heard.
    joining: bool,
    /// The store has said its last word on this connection.
    over: bool,
    polling: Polling,
}

/// A store that was reached, and who runs it.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) connection: Connection,
    pub(crate) store_uid: u32,
}

impl Connection {
    /// Connects, and asks the kernel who listens. Neither that nor sending a request takes longer than `patience`.
    pub(crate) fn open(socket: &Path, patience: Duration) -> io::Result<Reached> {
        let deadline = Instant::now() + patience;
        let short = ShortPath::of(socket).map_err(|error| match error {
            plasmon_shm::Error::System { cause, .. } => cause,
            error => io::Error::new(io::ErrorKind::InvalidInput, error),
        })?;
        let stream = loop {
            let name = short.path().to_fs_name::<GenericFilePath>()?;
            let options = ConnectOptions::new().name(name).wait_mode(ConnectWaitMode::Deferred);
            let AnyStream::UdSocket(stream) = options.connect_sync()?;
            // A Unix socket is connected at once, or not at all because too many wait to be accepted.
            match getpeername::<UnixAddr>(stream.as_fd().as_raw_fd()) {
                Ok(_) => break stream,
                Err(nix::Error::ENOTCONN) if Instant::now() < deadline => {
                    std::thread::sleep(CONNECT_AGAIN_AFTER)
                }
                Err(nix::Error::ENOTCONN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error.into()),
            }
        };
        stream.inner().set_write_timeout(Some(patience.max(SHORTEST)))?;
        let store_uid = getsockopt(&stream, PeerCredentials)?.uid();
        let connection = Connection {
            socket: KeptFd::new(stream.into()).map_err(io::Error::other)?,
            buffer: Vec::new(),
            surplus: Vec::new(),
            patience: None,
            next_request: 1,
            joining: false,
            over: false,
            polling: Polling::default(),
        };
        Ok(Reached { connection, store_uid })
    }

    /// Begins a session on this connection, which becomes its lifeline.
    pub(crate) fn begin_session(&mut self, patience: Duration) -> Result<(Welcome, Vec<OwnedFd>), CallError> {
        self.greet(Role::Lifeline)?;
        fault_point(FaultPoint::HelloSent);
        self.receive_with_fds(patience, give_up)
    }

    /// Begins a session on this connection, which becomes its lifeline, for a child that the process behind `token` is
    /// about to fork.
    pub(crate) fn begin_child(
        &mut self,
        token: [u8; 16],
        regions: u32,
        patience: Duration,
    ) -> Result<(ChildAdded, Vec<OwnedFd>), CallError> {
        self.greet(Role::Child { token, regions })?;
        self.receive_with_fds(patience, give_up)
    }

    /// Asks to join the session with this token; [`joined`](Self::joined) hears the answer.
    pub(crate) fn join(&mut self, token: [u8; 16]) -> Result<(), CallError> {
        self.greet(Role::Requests { token })?;
        self.joining = true;
        Ok(())
    }

    /// Waits until the store has answered that the connection belongs to the session it was asked to join.
    pub(crate) fn joined(&mut self, patience: Duration) -> Result<(), CallError> {
        if self.joining {
            self.receive::<Attached>(Some(patience))?;
            self.joining = false;
        }
        Ok(())
    }

    /// Sends the first message. A store that refuses a process says so as soon as it is connected, and hangs up: what
    /// it said counts, not that it hung up.
    fn greet(&mut self, role: Role) -> Result<(), CallError> {
        let Err(lost) = self.send(&Hello { magic: MAGIC, version: VERSION, role }) else { return Ok(()) };
        match self.receive::<Attached>(Some(SHORTEST)) {
            Err(refused @ CallError::Failed(_)) => Err(refused),
            _ => Err(lost),
        }
    }

    /// Sends a request and waits for its answer, `patience` long or for ever.
    pub(crate) fn call<R: Request>(
        &mut self,
        request: &R,
        patience: Option<Duration>,
    ) -> Result<R::Reply, CallError> {
        self.send(request)?;
        fault_point(FaultPoint::RequestSent);
        self.receive(patience)
    }

    /// As [`call`](Self::call), for an answer that takes as long as it takes: whenever `patience` has passed and nothing
    /// of it has come, `go_on` says whether to.
    pub(crate) fn call_at_length<R: Request>(
        &mut self,
        request: &R,
        patience: Duration,
        go_on: impl FnMut() -> Result<(), CallError>,
    ) -> Result<R::Reply, CallError> {
        self.send(request)?;
        fault_point(FaultPoint::RequestSent);
        self.receive_while(Some(patience), go_on)
    }

    /// As [`call_at_length`](Self::call_at_length), for an answer that comes with descriptors.
    pub(crate) fn call_with_fds<R: Request>(
        &mut self,
        request: &R,
        patience: Duration,
        go_on: impl FnMut() -> Result<(), CallError>,
    ) -> Result<(R::Reply, Vec<OwnedFd>), CallError> {
        self.send(request)?;
        self.receive_with_fds(patience, go_on)
    }

    fn receive_with_fds<M: Message>(
        &mut self,
        patience: Duration,
        mut go_on: impl FnMut() -> Result<(), CallError>,
    ) -> Result<(M, Vec<OwnedFd>), CallError> {
        if !self.surplus.is_empty() {
            return Ok((self.receive(Some(patience))?, Vec::new())); // a last word: no descriptors come with it
        }
        self.set_patience(Some(patience))?;
        let mut buffer = vec![0; 64 << 10];
        // Descriptors come with the first byte of their message, so one call gets them; the rest may come later.
        let (mut len, fds) = loop {
            match plasmon_shm::receive(self.socket.unchecked(), &mut buffer) {
                Err(error) if error.is_would_block() => go_on()?,
                received => break received.map_err(|error| lost(io::Error::other(error)))?,
            }
        };
        if len == 0 {
            return Err(lost(io::ErrorKind::UnexpectedEof.into()));
        }
        while len < HEADER_BYTES {
            len += self.read_some(&mut buffer[len..HEADER_BYTES])?;
        }
        let header = self.check_header(&buffer)?;
        let end = HEADER_BYTES + index_of(header.len_bytes.into());
        if end > buffer.len() {
            return Err(CallError::Other(Error::internal("an answer with descriptors is too long")));
        }
        while len < end {
            len += self.read_some(&mut buffer[len..end])?;
        }
        let reply = parse(header, buffer[HEADER_BYTES..end].to_vec())?;
        Ok((reply, fds))
    }

    /// Whether the socket still is ours, and not closed, or another file, by what else this process does.
    pub(crate) fn is_ours(&self) -> bool {
        self.socket.get().is_ok()
    }

    /// The socket, if it still is ours.
    fn socket(&self, sent: bool) -> Result<RawFd, CallError> {
        match self.socket.get() {
            Ok(fd) => Ok(fd.as_raw_fd()),
            Err(taken) => Err(CallError::Lost { source: io::Error::other(taken), sent }),
        }
    }

    /// Sends a message that is not answered.
    pub(crate) fn send<M: Message>(&mut self, message: &M) -> Result<(), CallError> {
        self.buffer.clear();
        message.frame(self.next_request, &mut self.buffer).map_err(|error| CallError::Other(error.into()))?;
        let mut sent = 0;
        let mut socket = self.socket.unchecked().as_raw_fd(); // whoever took the connection from the idle ones has looked
        while sent < self.buffer.len() {
            if sent > 0 {
                socket = self.socket(false)?;
            }
            match send(socket, &self.buffer[sent..], MsgFlags::MSG_NOSIGNAL) {
                Ok(len) => sent += len,
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => return Err(CallError::TimedOut),
                // A request that did not go out whole is no request: the store does nothing with a part of one.
                Err(error) => return Err(CallError::Lost { source: error.into(), sent: false }),
            }
        }
        self.buffer.shrink_to(256 << 10);
        Ok(())
    }

    /// Whether another request can be made on this connection.
    pub(crate) fn is_usable(&self) -> bool {
        !self.over
    }

    /// Waits for the answer to the request that was sent last.
    pub(crate) fn receive<M: Message>(&mut self, patience: Option<Duration>) -> Result<M, CallError> {
        self.receive_while(patience, give_up)
    }

    fn receive_while<M: Message>(
        &mut self,
        patience: Option<Duration>,
        mut go_on: impl FnMut() -> Result<(), CallError>,
    ) -> Result<M, CallError> {
        self.set_patience(patience)?;
        let mut first = [0; FIRST_READ_BYTES];
        let mut len = self.surplus.len(); // what one such read left over
        first[..len].copy_from_slice(&self.surplus);
        self.surplus.clear();
        while len < HEADER_BYTES {
            match self.read_some(&mut first[len..]) {
                Err(CallError::TimedOut) if len == 0 => go_on()?,
                read => len += read?,
            }
        }
        let header = self.check_header(&first)?;
        let read = &first[HEADER_BYTES..len];
        fault_point(FaultPoint::ReplyHalfRead);
        let mut body = vec![0; index_of(header.len_bytes.into())];
        let (mine, surplus) = read.split_at(read.len().min(body.len()));
        body[..mine.len()].copy_from_slice(mine);
        self.surplus.extend_from_slice(surplus);
        self.read_exact(&mut body[mine.len()..])?;
        parse(header, body)
    }

    fn check_header(&mut self, bytes: &[u8]) -> Result<FrameHeader, CallError> {
        let header = bytes.first_chunk().expect("callers read a whole header");
        let header = FrameHeader::parse(header).map_err(|error| CallError::Other(error.into()))?;
        // 0 is a last word that answers no request in particular: the store closes the connection behind it.
        self.over = header.request_id == 0;
        if header.request_id != self.next_request && header.request_id != 0 {
            let what = format!("the store answered request {}, not {}", header.request_id, self.next_request);
            return Err(CallError::Other(Error::internal(what)));
        }
        self.next_request += 1;
        Ok(header)
    }

    fn read_exact(&mut self, into: &mut [u8]) -> Result<(), CallError> {
        let mut len = 0;
        while len < into.len() {
            len += self.read_some(&mut into[len..])?;
        }
        Ok(())
    }

    fn read_some(&mut self, into: &mut [u8]) -> Result<usize, CallError> {
        let fd = self.socket.unchecked().as_raw_fd(); // looked at when the request was sent, some microseconds ago
        let work = (PER_BYTE * u32::try_from(self.buffer.len()).unwrap_or(u32::MAX)).min(WORK_MAX);
        let mut came = self.polling.look(work, || match recv(fd, into, MsgFlags::MSG_DONTWAIT) {
            Err(nix::Error::EAGAIN) => None,
            came => Some(came),
        });
        loop {
            let received = match came.take() {
                Some(received) => received,
                None => recv(self.socket(true)?, into, MsgFlags::empty()),
            };
            match received {
                Ok(0) => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(len) => return Ok(len),
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => return Err(CallError::TimedOut),
                Err(error) => return Err(lost(error.into())),
            }
        }
    }

    fn set_patience(&mut self, patience: Option<Duration>) -> Result<(), CallError> {
        let patience = patience.map(|patience| patience.max(SHORTEST));
        if self.patience != Some(patience) {
            let socket = self.socket.get().map_err(|taken| lost(io::Error::other(taken)))?;
            let time = patience.unwrap_or_default(); // none at all is no end
            let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
            let time = TimeVal::new(seconds, i64::from(time.subsec_micros()));
            setsockopt(&socket, ReceiveTimeout, &time).map_err(|errno| lost(errno.into()))?;
            self.patience = Some(patience);
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.unchecked()
    }
}

/// How much is asked for when an answer is awaited: most of them are shorter, and are had by one system call.
const FIRST_READ_BYTES: usize = 512;

/// How long the store needs for each byte of a request that has many, and what it is given at most before the client
/// sleeps: a batch of small values has some 75 bytes for each, which take it somewhat more than a microsecond.
const PER_BYTE: Duration = Duration::from_nanos(15);
const WORK_MAX: Duration = Duration::from_micros(250);

/// Between two attempts to connect while too many others wait for it.
const CONNECT_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// Shortest timeout of a socket: one of zero would mean none at all.
const SHORTEST: Duration = Duration::from_millis(1);

/// What has not come in time is not waited for any longer.
fn give_up() -> Result<(), CallError> {
    Err(CallError::TimedOut)
}

fn lost(source: io::Error) -> CallError {
    CallError::Lost { source, sent: true }
}

fn parse<M: Message>(header: FrameHeader, body: Vec<u8>) -> Result<M, CallError> {
    if header.kind == Failed::KIND {
        let failed = Failed::parse(body.into()).map_err(|error| CallError::Other(error.into()))?;
        return Err(CallError::Failed(failed.failure));
    }
    if header.kind != M::KIND {
        let what = format!("the store answered with message {} instead of {}", header.kind, M::KIND);
        return Err(CallError::Other(Error::internal(what)));
    }
    M::parse(body.into()).map_err(|error| CallError::Other(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plasmon_protocol::message::{EndLease, Goodbye, LeaseEnded, ListNames};
    use std::{
        io::Write,
        os::unix::net::UnixListener,
        path::PathBuf,
        time::{Duration, Instant},
    };

    const PATIENCE: Duration = Duration::from_millis(50);

    /// A store that says what it is told to say, whatever it is asked.
    fn listener(test: &str) -> (UnixListener, PathBuf) {
        let socket = std::env::temp_dir().join(format!("plasmon-{}-{test}.sock", std::process::id()));
        let _ = std::fs::remove_file(&socket);
        (UnixListener::bind(&socket).unwrap(), socket)
    }

    fn answered_with(test: &str, answer: &[u8]) -> (Connection, Result<LeaseEnded, CallError>) {
        let (listener, socket) = listener(test);
        let mut connection = Connection::open(&socket, PATIENCE).unwrap().connection;
        let mut store = listener.accept().unwrap().0;
        store.write_all(answer).unwrap();
        let result = connection.call(&EndLease { lease: 1 }, Some(PATIENCE));
        std::fs::remove_file(socket).unwrap();
        (connection, result)
    }

    #[test]
    fn a_store_that_takes_nothing_or_says_nothing_is_waited_for_no_longer_than_asked() {
        let (_listener, socket) = listener("silent");
        let mut connection = Connection::open(&socket, PATIENCE).unwrap().connection;
        let start = Instant::now();
        assert!(matches!(connection.call(&EndLease { lease: 1 }, Some(PATIENCE)), Err(CallError::TimedOut)));
        let long = ListNames { namespace: None, prefix: "x".repeat(60_000), after: None, limit: 0 };
        let stuck = std::iter::repeat_with(|| connection.send(&long)).take(10_000).find_map(Result::err);
        assert!(matches!(stuck, Some(CallError::TimedOut)), "{stuck:?}");
        assert!(start.elapsed() < Duration::from_secs(10));
        std::fs::remove_file(socket).unwrap();
    }

    #[test]
    fn an_answer_may_take_as_long_as_the_store_lives() {
        let (listener, socket) = listener("slow");
        let mut connection = Connection::open(&socket, PATIENCE).unwrap().connection;
        let mut store = listener.accept().unwrap().0;
        let mut looks = 0;
        let result = connection.call_at_length(&EndLease { lease: 1 }, PATIENCE, || {
            looks += 1;
            if looks == 3 {
                let mut answer = Vec::new();
                LeaseEnded {}.frame(1, &mut answer).unwrap();
                store.write_all(&answer).unwrap();
            }
            Ok(())
        });
        assert!(result.is_ok() && looks == 3, "{result:?}");
        let given_up = connection.call_at_length(&EndLease { lease: 1 }, PATIENCE, give_up);
        assert!(matches!(given_up, Err(CallError::TimedOut)), "{given_up:?}");
        std::fs::remove_file(socket).unwrap();
    }

    #[test]
    fn a_store_that_hangs_up_is_an_error_and_no_signal() {
        let (listener, socket) = listener("hangs-up");
        let mut connection = Connection::open(&socket, PATIENCE).unwrap().connection;
        drop(listener.accept().unwrap());
        assert!(matches!(connection.send(&Goodbye {}), Err(CallError::Lost { sent: false, .. })));
        std::fs::remove_file(socket).unwrap();
    }

    /// Whether the store hung up before the first message was sent or after it.
    #[test]
    fn a_refusal_is_heard_although_the_store_hangs_up_behind_it() {
        let (listener, socket) = listener("refuses");
        let mut refusal = Vec::new();
        let failure = Failure::NotAdmitted { uid: 1, store_uid: 2 };
        Failed { failure }.frame(0, &mut refusal).unwrap();
        for join in [false, true] {
            let mut connection = Connection::open(&socket, PATIENCE).unwrap().connection;
            let mut store = listener.accept().unwrap().0;
            store.write_all(&refusal).unwrap();
            drop(store);
            let result = match join {
                true => connection.join([0; 16]).and_then(|()| connection.joined(PATIENCE)),
                false => connection.begin_session(PATIENCE).map(drop),
            };
            assert!(matches!(result, Err(CallError::Failed(Failure::NotAdmitted { .. }))), "{result:?}");
        }
        std::fs::remove_file(socket).unwrap();
    }

    #[test]
    fn a_connection_is_not_used_again_after_the_last_word() {
        let mut answer = Vec::new();
        let failure = Failure::Malformed { reason: "no".to_owned() };
        Failed { failure }.frame(0, &mut answer).unwrap();
        let (connection, result) = answered_with("last-word", &answer);
        assert!(matches!(result, Err(CallError::Failed(Failure::Malformed { .. }))), "{result:?}");
        assert!(!connection.is_usable());
    }

    #[test]
    fn answers_that_make_no_sense_are_errors() {
        let mut of_another = Vec::new();
        LeaseEnded {}.frame(77, &mut of_another).unwrap();
        let mut of_another_kind = Vec::new();
        Goodbye {}.frame(1, &mut of_another_kind).unwrap();
        for (number, answer) in [&of_another[..], &of_another_kind, &[0xff; 64]].into_iter().enumerate() {
            let (_, result) = answered_with(&format!("nonsense-{number}"), answer);
            assert!(matches!(result, Err(CallError::Other(_))), "{number}: {result:?}");
        }
        let mut cut = Vec::new();
        LeaseEnded {}.frame(1, &mut cut).unwrap();
        cut.pop();
        let (_, result) = answered_with("cut", &cut);
        assert!(matches!(result, Err(CallError::TimedOut)), "{result:?}");
    }
}

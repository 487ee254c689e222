//! What the benchmarks beside this folder have in common; the floor that scripts/bench measures is in `bin`.

use plasmon::Brain;
use plasmon_protocol::{
    frame::{FrameHeader, HEADER_BYTES},
    message::{Hello, MAGIC, Message, Role, VERSION, Welcome},
};
use plasmon_shm::{ClientRegion, ReadOnlyWords, WordsMapping};
use plasmon_store::{Reserve, testing::Running};
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

/// A store with `names` small objects, and a brain on it.
///
/// # Panics
/// If it does not start.
#[must_use]
pub fn store_of(names: u32) -> (Running, Brain) {
    let store = Running::start_with(8 << 30, |options| {
        options.reserve = Reserve::Lazy;
        options.max_objects = Some(names + 1_000);
    })
    .expect("the store starts");
    let brain = Brain::builder().path(store.socket()).connect().expect("the store answers");
    let mut number = 0;
    while number < names {
        let mut batch = brain.batch().expect("the store answers");
        for _ in 0..5_000.min(names - number) {
            batch = batch.learn(&format!("name {number}"), &[7_u8; 100]).expect("there is room");
            number += 1;
        }
        batch.commit().expect("there is room");
    }
    (store, brain)
}

/// A store of 1 GiB that has all its memory, and a brain on it.
///
/// # Panics
/// If it does not start.
#[must_use]
pub fn populated_store() -> (Running, Brain) {
    let store = Running::start_with(1 << 30, |options| options.reserve = Reserve::Now);
    let store = store.expect("the store starts");
    let brain = Brain::builder().path(store.socket()).connect().expect("the store answers");
    (store, brain)
}

/// A session without the client library.
pub struct RawSession {
    _lifeline: UnixStream,
    /// For requests.
    pub requests: UnixStream,
    /// The index.
    pub index: ReadOnlyWords,
    /// The session region.
    pub region: WordsMapping,
}

impl RawSession {
    /// Begins a session of this process.
    ///
    /// # Panics
    /// If the store does not answer as it should.
    #[must_use]
    pub fn begin(socket: &std::path::Path) -> RawSession {
        let mut lifeline = UnixStream::connect(socket).expect("the store listens");
        let mut buffer = vec![0; 4 << 10];
        say_hello(&mut lifeline, Role::Lifeline);
        let (len, fds) = plasmon_shm::receive(&lifeline, &mut buffer).expect("the store answers");
        let welcome = Welcome::parse(buffer[HEADER_BYTES..len].to_vec().into()).expect("a welcome");
        let mut fds = fds.into_iter();
        let mut open = |len_bytes| ClientRegion::from_fd(fds.next().expect("a descriptor"), len_bytes);
        let index = open(welcome.index_bytes).expect("the index");
        let _arena = open(welcome.arena_bytes).expect("the arena");
        let region = open(welcome.session_bytes).expect("the session region");
        let mut requests = UnixStream::connect(socket).expect("the store listens");
        say_hello(&mut requests, Role::Requests { token: welcome.token });
        read_frame(&mut requests, &mut buffer);
        let index = index.map_words_read_only().expect("a mapping");
        RawSession { _lifeline: lifeline, requests, index, region: region.map_words().expect("a mapping") }
    }
}

fn say_hello(stream: &mut UnixStream, role: Role) {
    let mut frame = Vec::new();
    Hello { magic: MAGIC, version: VERSION, role }.frame(1, &mut frame).expect("it fits");
    stream.write_all(&frame).expect("the store listens");
}

/// Reads one frame, into the beginning of `buffer`.
///
/// # Panics
/// If there is none.
pub fn read_frame(stream: &mut UnixStream, buffer: &mut [u8]) {
    stream.read_exact(&mut buffer[..HEADER_BYTES]).expect("the store answers");
    let header = FrameHeader::parse(buffer.first_chunk().expect("a header")).expect("a header");
    let len = usize::try_from(header.len_bytes).expect("64 bits");
    stream.read_exact(&mut buffer[..len]).expect("the store answers");
}

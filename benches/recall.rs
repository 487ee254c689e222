//! What a recall hit costs, beside the best round trip over the same socket in the same run.
//!
//! `cargo bench -p plasmon-benches --bench recall`. Machine: any; the claim is the ratio. What must hold: a hit costs
//! the same for every size of object, grows little with the number of names (cache misses), and is far below a round
//! trip. Figures of a run are in the closing notes of the change that touched them, not here.

use divan::{Bencher, counter::ItemsCount};
use plasmon::{Blob, Brain, Object};
use plasmon_protocol::{
    frame::{FrameHeader, HEADER_BYTES},
    id::NameId,
    index::{Entry, IndexReader, Lookup},
    message::{Describe, Hello, MAGIC, Message, Role, VERSION, Welcome},
    name::{Name, Namespace},
    pins::{SessionRegion, pin_for},
};
use plasmon_shm::{ClientRegion, ReadOnlyWords, WordsMapping};
use plasmon_store::{Reserve, testing::Running};
use std::{
    convert::Infallible,
    hint::black_box,
    io::{Read, Write},
    os::unix::net::UnixStream,
};

fn main() {
    divan::main();
}

/// A store with `names` small objects, and a brain on it.
fn store_of(names: u32) -> (Running, Brain) {
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

/// Lookup, pin and unpin alone: what zero round trips cost. The name is hashed already, no handle is made.
#[divan::bench(args = [10, 1_000, 100_000, 1_000_000])]
fn lookup_pin_unpin(bencher: Bencher, names: u32) {
    let (store, _brain) = store_of(names);
    let session = RawSession::begin(store.socket());
    let reader = IndexReader::open(&session.index).expect("an index");
    let pins = SessionRegion::open(session.region.words()).expect("a session region");
    let namespace = Namespace::default();
    let asked: Vec<NameId> =
        (0..1_000).map(|n| NameId::new(&namespace, &format!("name {}", n * 7_919 % names))).collect();
    bencher.counter(ItemsCount::new(asked.len())).bench_local(|| {
        for id in &asked {
            let publish = |entry: &Entry| {
                pins.publish(0, pin_for(entry.offset));
                Ok::<_, Infallible>(())
            };
            let Ok(found) = reader.lookup(black_box(id), || 0, publish);
            assert!(matches!(black_box(found), Lookup::Held { pin: Some(()), .. }));
            pins.withdraw(0);
        }
    });
}

/// The whole call: hash the name, look it up, pin, make a handle; then drop it, which unpins. Its bytes are not
/// touched.
#[divan::bench(args = [10, 1_000, 100_000, 1_000_000])]
fn hit_by_number_of_names(bencher: Bencher, names: u32) {
    let (_store, brain) = store_of(names);
    let asked: Vec<String> = (0..1_000).map(|n| format!("name {}", n * 7_919 % names)).collect();
    bencher.counter(ItemsCount::new(asked.len())).bench_local(|| {
        for name in &asked {
            black_box(brain.recall::<Object>(black_box(name)).expect("it is bound"));
        }
    });
}

/// The same among 100,000 names, by the size of the object.
#[divan::bench(args = [1 << 10, 1 << 16, 1 << 20, 1 << 26, 1 << 30])]
fn hit_by_size_of_object(bencher: Bencher, len_bytes: u64) {
    let (_store, brain) = store_of(100_000);
    brain.create("object", len_bytes).expect("there is room").seal().expect("there is room");
    bencher.counter(ItemsCount::new(1_000_u32)).bench_local(|| {
        for _ in 0..1_000 {
            black_box(brain.recall::<Object>(black_box("object")).expect("it is bound"));
        }
    });
}

/// As a user has it: the bytes, ready to read.
#[divan::bench]
fn hit_as_bytes(bencher: Bencher) {
    let (_store, brain) = store_of(100_000);
    bencher.counter(ItemsCount::new(1_000_u32)).bench_local(|| {
        for _ in 0..1_000 {
            black_box(brain.recall::<Blob>(black_box("name 4711")).expect("it is bound"));
        }
    });
}

/// A value that stands in the index entry: neither arena nor pins are touched.
#[divan::bench]
fn hit_of_an_integer(bencher: Bencher) {
    let (_store, brain) = store_of(100_000);
    brain.learn("answer", &42_i64).expect("there is room");
    bencher.counter(ItemsCount::new(1_000_u32)).bench_local(|| {
        for _ in 0..1_000 {
            black_box(brain.recall::<i64>(black_box("answer")).expect("it is bound"));
        }
    });
}

/// A name that is not there.
#[divan::bench]
fn miss(bencher: Bencher) {
    let (_store, brain) = store_of(100_000);
    bencher.counter(ItemsCount::new(1_000_u32)).bench_local(|| {
        for _ in 0..1_000 {
            black_box(brain.exists(black_box("nobody")).expect("the store lives"));
        }
    });
}

/// The best that any recall with a round trip could be: one request that the daemon answers from memory, on a warm
/// connection, back to back.
#[divan::bench]
fn round_trip(bencher: Bencher) {
    let (store, _brain) = store_of(100_000);
    let mut session = RawSession::begin(store.socket());
    let describe = Describe { namespace: Namespace::default(), name: Name::new("name 4711").expect("valid") };
    let mut frame = Vec::new();
    describe.frame(1, &mut frame).expect("it fits");
    let mut answer = vec![0; 1 << 10];
    bencher.counter(ItemsCount::new(100_u32)).bench_local(|| {
        for _ in 0..100 {
            session.requests.write_all(&frame).expect("the store listens");
            read_frame(&mut session.requests, &mut answer);
        }
    });
}

/// A session without the client library.
struct RawSession {
    _lifeline: UnixStream,
    requests: UnixStream,
    index: ReadOnlyWords,
    region: WordsMapping,
}

impl RawSession {
    fn begin(socket: &std::path::Path) -> RawSession {
        let mut lifeline = UnixStream::connect(socket).expect("the store listens");
        let mut buffer = vec![0; 4 << 10];
        say_hello(&mut lifeline, Role::Lifeline {});
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

fn read_frame(stream: &mut UnixStream, buffer: &mut [u8]) {
    stream.read_exact(&mut buffer[..HEADER_BYTES]).expect("the store answers");
    let header = FrameHeader::parse(buffer.first_chunk().expect("a header")).expect("a header");
    let len = usize::try_from(header.len_bytes).expect("64 bits");
    stream.read_exact(&mut buffer[..len]).expect("the store answers");
}

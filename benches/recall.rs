//! What a recall hit costs, beside the best round trip over the same socket in the same run.
//!
//! `cargo bench -p plasmon-benches --bench recall`. Machine: any; the claim is the ratio. What must hold: a hit costs
//! the same for every size of object, grows little with the number of names (cache misses), and is far below a round
//! trip. Figures of a run are in the closing notes of the change that touched them, not here.

use divan::{Bencher, counter::ItemsCount};
use plasmon::{Blob, Object};
use plasmon_benches::{RawSession, read_frame, store_of};
use plasmon_protocol::{
    id::NameId,
    index::{Entry, IndexReader, Lookup},
    message::{Describe, Message},
    name::{Name, Namespace},
    pins::{SessionRegion, pin_for},
};
use std::{convert::Infallible, hint::black_box, io::Write};

fn main() {
    divan::main();
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

/// The same at a view, of a name that has not changed since: no request either.
#[divan::bench]
fn hit_as_bytes_at_a_view(bencher: Bencher) {
    let (_store, brain) = store_of(100_000);
    let view = brain.view().expect("the store answers");
    brain.learn("another name", &1).expect("there is room");
    bencher.counter(ItemsCount::new(1_000_u32)).bench_local(|| {
        for _ in 0..1_000 {
            black_box(view.recall::<Blob>(black_box("name 4711")).expect("it was bound"));
        }
    });
}

/// The same of a name that was bound anew since: the store is asked.
#[divan::bench]
fn past_at_a_view(bencher: Bencher) {
    let (_store, brain) = store_of(100_000);
    let view = brain.view().expect("the store answers");
    brain.learn("name 4711", &[8_u8; 100]).expect("there is room");
    bencher.counter(ItemsCount::new(100_u32)).bench_local(|| {
        for _ in 0..100 {
            black_box(view.recall::<Blob>(black_box("name 4711")).expect("it was bound"));
        }
    });
}

/// Taking and dropping a snapshot, by the number of names that it shows.
#[divan::bench(args = [10, 1_000_000])]
fn snapshot_and_drop(bencher: Bencher, names: u32) {
    let (_store, brain) = store_of(names);
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        brain.snapshot("bench").expect("no other has this label");
        brain.drop_snapshot("bench").expect("it was just taken");
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

/// A hit while this process holds many other objects.
#[divan::bench(args = [0, 1_000, 60_000])]
fn hit_by_pins_held(bencher: Bencher, pins: usize) {
    let (_store, brain) = store_of(1_000);
    let held: Vec<Object> =
        (0..pins).map(|_| brain.recall("name 7").expect("there are pins enough")).collect();
    bencher.counter(ItemsCount::new(1_000_u32)).bench_local(|| {
        for _ in 0..1_000 {
            black_box(brain.recall::<Object>(black_box("name 8")).expect("it is bound"));
        }
    });
    drop(held);
}

/// A hit while other sessions are there.
#[divan::bench(args = [1, 16, 64])]
fn hit_by_sessions(bencher: Bencher, sessions: usize) {
    let (store, brain) = store_of(1_000);
    let _others: Vec<RawSession> = (1..sessions).map(|_| RawSession::begin(store.socket())).collect();
    bencher.counter(ItemsCount::new(1_000_u32)).bench_local(|| {
        for _ in 0..1_000 {
            black_box(brain.recall::<Object>(black_box("name 8")).expect("it is bound"));
        }
    });
}

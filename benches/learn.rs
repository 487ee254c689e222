//! What learning costs, beside a bare round trip and a bare copy in the same run.
//!
//! `cargo bench -p plasmon-benches --bench learn`. Machine: any; the claims are ratios. What must hold: a learn of 1 KiB
//! within 1.5 round trips; a large one near the speed of a copy into warm memory; both independent of the number of names
//! and sessions.

use divan::{
    Bencher,
    counter::{BytesCount, ItemsCount},
};
use plasmon::Brain;
use plasmon_benches::{RawSession, populated_store, read_frame, store_of};
use plasmon_protocol::message::{EndLease, Message, Reserve};
use std::{
    hint::black_box,
    io::{Read, Write},
    os::unix::net::UnixStream,
};

fn main() {
    divan::main();
}

/// The floor of a small learn: 48 bytes there and 64 back, between two threads.
#[divan::bench]
fn bare_round_trip(bencher: Bencher) {
    let (mut asking, mut answering) = UnixStream::pair().expect("sockets");
    let echo = std::thread::spawn(move || {
        let mut request = [0; 48];
        while answering.read_exact(&mut request).is_ok() {
            answering.write_all(&[8; 64]).expect("somebody asked");
        }
    });
    let mut reply = [0; 64];
    bencher.counter(ItemsCount::new(100_u32)).bench_local(|| {
        for _ in 0..100 {
            asking.write_all(black_box(&[7; 48])).expect("somebody answers");
            asking.read_exact(&mut reply).expect("somebody answers");
        }
    });
    drop(asking);
    echo.join().expect("it ends with the socket");
}

/// One value of 1 KiB, which travels in the message, under one name, among others.
#[divan::bench(args = [10, 1_000, 100_000, 1_000_000])]
fn small_by_number_of_names(bencher: Bencher, names: u32) {
    let (_store, brain) = store_of(names);
    learn_repeatedly(bencher, &brain);
}

/// The same, while other sessions are there.
#[divan::bench(args = [1, 16, 64])]
fn small_by_sessions(bencher: Bencher, sessions: usize) {
    let (store, brain) = store_of(1_000);
    let _others: Vec<RawSession> = (1..sessions).map(|_| RawSession::begin(store.socket())).collect();
    learn_repeatedly(bencher, &brain);
}

/// Values that are written into a lease, in a store whose memory is there already.
#[divan::bench(args = [1 << 17, 1 << 20, 1 << 26])]
fn large(bencher: Bencher, len_bytes: usize) {
    let (_store, brain) = populated_store();
    let value = vec![7_u8; len_bytes];
    bencher.counter(BytesCount::new(len_bytes)).bench_local(|| {
        brain.learn("again and again", black_box(&value)).expect("there is room");
    });
}

/// The floor of a large learn: a copy into memory whose pages exist.
#[divan::bench(args = [1 << 17, 1 << 20, 1 << 26])]
fn bare_copy(bencher: Bencher, len_bytes: usize) {
    let (from, mut to) = (vec![7_u8; len_bytes], vec![1_u8; len_bytes]);
    bencher.counter(BytesCount::new(len_bytes)).bench_local(|| {
        black_box(&mut to).copy_from_slice(black_box(&from));
    });
}

/// One commit of 1,000 names.
#[divan::bench]
fn commit_of_1_000_names(bencher: Bencher) {
    let (_store, brain) = store_of(1_000);
    let names: Vec<String> = (0..1_000).map(|number| format!("one of many {number}")).collect();
    bencher.counter(ItemsCount::new(names.len())).bench_local(|| {
        let mut batch = brain.batch().expect("the store answers");
        for name in &names {
            batch = batch.learn(name, &7_i64).expect("there is room");
        }
        batch.commit().expect("there is room")
    });
}

/// The allocator, as far as it can be reached from outside: a lease of 1 MiB is granted and ended, in two round trips,
/// with as many objects around it.
#[divan::bench(args = [10, 100_000])]
fn lease_by_number_of_objects(bencher: Bencher, objects: u32) {
    let (store, _brain) = store_of(objects);
    let mut session = RawSession::begin(store.socket());
    let mut answer = vec![0; 1 << 10];
    let mut number = 0;
    let mut ask = |message: &dyn Fn(u64, &mut Vec<u8>)| {
        number += 1;
        let mut frame = Vec::new();
        message(number, &mut frame);
        session.requests.write_all(&frame).expect("the store listens");
        read_frame(&mut session.requests, &mut answer);
        u64::from_le_bytes(*answer.first_chunk().expect("eight bytes"))
    };
    bencher.bench_local(|| {
        let lease = ask(&|number, frame| {
            Reserve { len_bytes: 1 << 20 }.frame(number, frame).expect("it fits");
        });
        ask(&|number, frame| EndLease { lease }.frame(number, frame).expect("it fits"));
    });
}

fn learn_repeatedly(bencher: Bencher, brain: &Brain) {
    let value = [7_u8; 1 << 10];
    bencher.counter(ItemsCount::new(100_u32)).bench_local(|| {
        for _ in 0..100 {
            brain.learn("again and again", black_box(&value)).expect("there is room");
        }
    });
}

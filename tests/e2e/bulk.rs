//! Commits that do not fit a frame, and commits of a million names: they hold up nobody (invariants 3, 7 and 9).

use crate::STORE;
use nix::sys::uio::pwrite;
use plasmon::{Brain, LearnOptions};
use plasmon_protocol::{
    codec::Codec,
    limits::COMMIT_BYTES_MAX,
    message::{
        Bind, Change, Commit, Committed, Describe, EndLease, Failure, Granted, LongCommit, Payload,
        ReadStats, Reserve, Ttl,
    },
    name::{Name, Namespace},
    object::{Header, Kind},
};
use plasmon_tests::{
    TestResult,
    daemon::Daemon,
    raw::{Raw, RawSession},
};
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) fn namespace() -> Namespace {
    Namespace::new("bulk-names").expect("a valid namespace")
}

pub(crate) fn name(number: u32) -> Name {
    Name::new(&format!("{number:07}")).expect("a valid name")
}

fn bind(number: u32, payload: Payload) -> Change {
    let header = Header::new(Kind::BYTES);
    Change::Bind(Bind {
        namespace: namespace(),
        name: name(number),
        description: None,
        metadata: None,
        header,
        ttl: None,
        payload,
    })
}

/// The body of a commit of `count` changes, which need not exist all at once.
fn body(count: u32, change: impl Fn(u32) -> Change, end_leases: &[u64]) -> Vec<u8> {
    let mut body = Vec::new();
    0_u32.encode(&mut body); // conditions
    count.encode(&mut body);
    (0..count).for_each(|number| change(number).encode(&mut body));
    end_leases.to_vec().encode(&mut body);
    body
}

fn reserve(session: &mut RawSession, len_bytes: u64) -> Granted {
    session.requests.call(&Reserve { len_bytes }).expect("there is room")
}

fn write(session: &RawSession, at: &Granted, bytes: &[u8]) {
    let offset = i64::try_from(at.offset).expect("an offset");
    assert_eq!(pwrite(&session.fds[3], bytes, offset), Ok(bytes.len()));
}

/// A commit of `count` names, written into leases that end with it.
pub(crate) fn written(session: &mut RawSession, count: u32) -> LongCommit {
    written_with(session, count, None)
}

fn written_with(session: &mut RawSession, count: u32, ttl: Option<Ttl>) -> LongCommit {
    let objects = reserve(session, u64::from(count) * 64);
    let place = reserve(session, u64::from(count) * 144);
    let payload = |number: u32| Payload::Leased {
        lease: objects.lease,
        offset: objects.offset + u64::from(number) * 64,
        len_bytes: 64,
    };
    let lives = |mut change| {
        if let Change::Bind(bind) = &mut change {
            bind.ttl.clone_from(&ttl);
        }
        change
    };
    let body = body(count, |number| lives(bind(number, payload(number))), &[objects.lease, place.lease]);
    write(session, &place, &body);
    LongCommit { lease: place.lease, offset: place.offset, len_bytes: body.len() as u64 }
}

fn is_bound(session: &mut RawSession, number: u32) -> bool {
    let describe = Describe { namespace: namespace(), name: name(number) };
    session.requests.call(&describe).expect("the store answers").binding.is_some()
}

fn used_bytes(session: &mut RawSession) -> u64 {
    session.requests.call(&ReadStats {}).expect("the store answers").used_bytes
}

/// Invariant 9. The names at the end of the commit are looked at in round trips of another client: as long as they are
/// as before, the commit is not answered.
#[test]
fn a_million_names_come_and_go_while_others_are_served() {
    const NAMES: u32 = 1_000_000;
    let daemon = Daemon::start_with(STORE, &["--size", "256MiB", "--max-objects", "1000010"]);
    let mut writer = RawSession::begin(daemon.socket());
    let mut other = RawSession::begin(daemon.socket());
    writer.requests.be_patient();
    other.requests.be_patient();
    let commit = written(&mut writer, NAMES);
    writer.requests.send(1, &commit);
    let mut served = 0;
    while !is_bound(&mut other, NAMES - 1) {
        served += 1;
    }
    writer.requests.receive::<Committed>().expect("all of it is bound");
    assert!(served > 100, "{served} round trips while a million names were bound");

    let remove = Commit {
        conditions: vec![],
        changes: vec![Change::RemoveNamespace { namespace: namespace() }],
        end_leases: vec![],
    };
    writer.requests.send(1, &remove);
    served = 0;
    while is_bound(&mut other, NAMES - 1) {
        served += 1;
    }
    let removed = writer.requests.receive::<Committed>().expect("the namespace exists");
    assert_eq!((removed.unbound, removed.unbound_bytes), (NAMES.into(), u64::from(NAMES) * 64));
    assert!(served > 100, "{served} round trips while a million names were unbound");
    assert_eq!(used_bytes(&mut other), 0);
}

/// Invariant 9. A million bindings expire at one moment. To count the names that are left takes until all of them are
/// unbound; meanwhile others are served, and see none of them.
#[test]
fn a_million_names_expire_at_once_while_others_are_served() {
    const NAMES: u32 = 1_000_000;
    let daemon = Daemon::start_with(STORE, &["--size", "256MiB", "--max-objects", "1000010"]);
    let mut writer = RawSession::begin(daemon.socket());
    let mut other = RawSession::begin(daemon.socket());
    let commit = written_with(&mut writer, NAMES, Some(Ttl { ttl_ns: 1_000_000_000, is_sliding: false }));
    writer.requests.be_patient();
    writer.requests.call(&commit).expect("all of it is bound");
    while is_bound(&mut other, 0) {}
    let is_done = AtomicBool::new(false);
    let mut served = 0;
    let stats = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let stats = writer.requests.call(&ReadStats {});
            is_done.store(true, Ordering::Relaxed);
            stats
        });
        while !is_done.load(Ordering::Relaxed) {
            assert!(!is_bound(&mut other, NAMES - 1));
            served += 1;
        }
        asking.join().expect("it was answered")
    });
    let stats = stats.expect("the store answers");
    assert_eq!((stats.expired, stats.objects, stats.used_bytes), (NAMES.into(), 0, 0));
    assert!(served > 100, "{served} round trips while a million names were unbound");
}

/// What comes later sees what came before it, however long that takes.
#[test]
fn commits_behind_a_long_one_see_what_it_did() {
    const NAMES: u32 = 50_000;
    let daemon = Daemon::start(STORE, "64MiB");
    let mut writer = RawSession::begin(daemon.socket());
    let mut other = RawSession::begin(daemon.socket());
    let commit = written(&mut writer, NAMES);
    writer.requests.send(1, &commit);
    // The first name it bound is visible, so it has its turn; the last one may not be.
    while !is_bound(&mut other, 0) {}
    let unbind = Change::Unbind { namespace: namespace(), name: name(NAMES - 1) };
    let unbind = Commit { conditions: vec![], changes: vec![unbind], end_leases: vec![] };
    let unbound = other.requests.call(&unbind).expect("it is bound by now");
    let committed = writer.requests.receive::<Committed>().expect("all of it is bound");
    assert_eq!((unbound.unbound, unbound.version), (1, committed.version + 1));
}

#[test]
fn bodies_that_lie_harm_nobody() {
    let mut daemon = Daemon::start(STORE, "16MiB");
    let mut session = RawSession::begin(daemon.socket());
    let mut theirs = RawSession::begin(daemon.socket());
    let place = reserve(&mut session, 1 << 20);
    let (lease, offset) = (place.lease, place.offset);
    let long = |len_bytes| LongCommit { lease, offset, len_bytes };
    let inline = Payload::Inline { bytes: vec![7; 100].into() };
    let good = body(1_000, |number| bind(number, inline.clone()), &[]);
    let len_bytes = good.len() as u64;

    // Where the body is.
    for (long, found) in [
        (LongCommit { lease: 77, ..long(10) }, "BadLease"),
        (LongCommit { offset: offset + 1, ..long(10) }, "BadLease"),
        (LongCommit { offset: offset + (1 << 20), ..long(10) }, "BadLease"),
        (long(0), "BadLease"),
        (long((1 << 20) + 1), "BadLease"),
        (long(COMMIT_BYTES_MAX + 1), "TooLarge"),
        (long(u64::MAX), "TooLarge"),
    ] {
        let refusal = session.requests.call(&long).expect_err("there is no such body");
        assert!(format!("{refusal:?}").starts_with(found), "{refusal:?}");
    }
    let refusal = theirs.requests.call(&long(10));
    assert!(matches!(refusal, Err(Failure::BadLease { .. })), "{refusal:?}");

    // What it says.
    let mut twice = good.clone();
    twice[4..8].copy_from_slice(&1_001_u32.to_le_bytes());
    let mut many = good.clone();
    many[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    for bad in [vec![0xff; 1_000], vec![0; 11], good[..good.len() - 1].to_vec(), twice, many] {
        write(&session, &place, &bad);
        let refusal = session.requests.call(&long(bad.len() as u64));
        assert!(matches!(refusal, Err(Failure::Malformed { .. })), "{refusal:?}");
    }
    let refused_by_name = body(1_000, |number| bind(number % 999, inline.clone()), &[]);
    write(&session, &place, &refused_by_name);
    let refusal = session.requests.call(&long(refused_by_name.len() as u64));
    assert!(matches!(refusal, Err(Failure::NamedTwice { .. })), "{refusal:?}");
    assert_eq!(used_bytes(&mut theirs), 1 << 20, "the lease and nothing else");

    // That it changes while it is looked at, or its lease ends: it is what it was when it was copied.
    let writer = session.fds[3].try_clone().expect("a descriptor");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let at = i64::try_from(offset).expect("an offset");
            while !stop.load(Ordering::Relaxed) {
                let _ = pwrite(&writer, &vec![0xff; good.len()], at);
                let _ = pwrite(&writer, &good, at);
            }
        });
        for _ in 0..200 {
            let answer = session.requests.call(&long(len_bytes));
            assert!(
                matches!(answer, Ok(_) | Err(Failure::Malformed { .. } | Failure::NamedTwice { .. })),
                "{answer:?}"
            );
        }
        stop.store(true, Ordering::Relaxed);
    });
    write(&session, &place, &good);
    session.requests.send(1, &long(len_bytes));
    session.requests.send(2, &EndLease { lease });
    let answers: Vec<u16> =
        (0..2).map(|_| session.requests.receive_frame().expect("an answer").0.kind).collect();
    assert!(answers.contains(&9) && answers.contains(&15), "{answers:?}");
    assert!(is_bound(&mut theirs, 999));
    assert!(daemon.is_alive());
}

/// Invariant 5: who goes away in the middle leaves nothing, and the next one gets its turn.
#[test]
fn a_client_that_goes_away_during_its_commit_leaves_nothing() {
    const NAMES: u32 = 20_000;
    let mut daemon = Daemon::start(STORE, "64MiB");
    let mut honest = RawSession::begin(daemon.socket());
    for _ in 0..5 {
        let mut leaving = RawSession::begin(daemon.socket());
        let commit = written(&mut leaving, NAMES);
        (0..3).for_each(|id| leaving.requests.send(id, &commit)); // the second and third name what the first took
        let mut second = Raw::connect(daemon.socket());
        second.join(leaving.welcome.token).expect("the session lives");
        let inline = |number| bind(number, Payload::Inline { bytes: vec![7; 100].into() });
        let in_frame =
            Commit { conditions: vec![], changes: (0..NAMES).map(inline).collect(), end_leases: vec![] };
        second.send(1, &in_frame);
        // The process lives, so that it is the end of the connections that must do.
        drop(leaving);
        drop(second);
    }
    let commit = written(&mut honest, NAMES);
    honest.requests.call(&commit).expect("it gets its turn");
    assert!(is_bound(&mut honest, NAMES - 1));
    let clear = Change::ClearNamespace { namespace: namespace() };
    let clear = Commit { conditions: vec![], changes: vec![clear], end_leases: vec![] };
    plasmon_tests::eventually("nothing is left of the others", || {
        honest.requests.call(&clear).expect("the namespace exists");
        used_bytes(&mut honest) == 0
    });
    assert!(daemon.is_alive());
}

#[test]
fn batches_beyond_a_frame_work_on_every_arena() -> TestResult {
    const NAMES: i64 = 20_000;
    for arena in ["memfd", "named"] {
        let daemon = Daemon::start_with(STORE, &["--size", "56MiB", "--arena", arena]);
        let brain = Brain::builder().path(daemon.socket()).connect()?;
        let long = LearnOptions::new().description("d".repeat(900));
        for sign in [1, -1] {
            let mut batch = brain.batch()?.forget("gone")?;
            for number in 0..NAMES {
                batch = batch.learn_with(&number.to_string(), &(number * sign), &long)?;
            }
            let version = batch.commit()?;
            for number in (0..NAMES).step_by(37) {
                assert_eq!(brain.recall::<i64>(&number.to_string())?, number * sign);
            }
            let last = brain.metadata("19999")?.ok_or("it is bound")?;
            assert_eq!((last.version, last.description.len()), (version, 900));
            let stats = brain.stats()?;
            assert_eq!((stats.objects, stats.leases), (NAMES.unsigned_abs(), 0), "--arena {arena}");
        }
        assert_eq!(brain.clear()?, NAMES.unsigned_abs());
        assert_eq!(brain.stats()?.used_bytes, 0);
    }
    Ok(())
}

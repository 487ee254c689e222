//! Bindings that end with their session, waiting for a change, and what is removed or declared under a condition.

use crate::{CLIENT, STORE, bulk};
use nix::sys::signal::Signal;
use plasmon::{Blob, Brain, Error, LearnOptions, NamespaceOptions};
use plasmon_protocol::{
    message::{
        Change, Changed, Commit, Committed, Describe, Failure, FindMany, FoundMany, Goodbye, NameSlot,
        Payload, WaitChange,
    },
    name::Namespace,
};
use plasmon_tests::{
    TestResult,
    client::Client,
    daemon::Daemon,
    eventually,
    raw::{RawSession, bind, commit, inline, name},
};
use std::time::Duration;

/// Longer than any of these tests takes.
const LONG: Duration = Duration::from_secs(60);

fn connect(daemon: &Daemon) -> Brain {
    Brain::builder().path(daemon.socket()).connect().expect("the store answers")
}

fn ephemeral() -> LearnOptions {
    LearnOptions::new().ephemeral()
}

fn bind_ephemeral(text: &str, len: usize) -> Change {
    let Change::Bind(bind) = inline(text, len) else { unreachable!("it binds") };
    Change::BindEphemeral(bind)
}

fn wait_change(text: &str, version: u64) -> WaitChange {
    WaitChange { namespace: Namespace::default(), name: name(text), version, wait_ms: 60_000 }
}

/// Invariant 5: however a process ends, what it said of itself goes with it, and who waits for that is told.
#[test]
fn an_ephemeral_binding_ends_with_its_process_and_wakes_who_waits() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    for end in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut client = Client::start(CLIENT, daemon.socket());
        let claim = client.ask_for_number("learn-ephemeral claim 1");
        let kept = client.ask_for_number("learn-int kept 1");
        assert_eq!(brain.recall::<i64>("claim")?, 1);
        let waiter = brain.clone();
        let waiting = std::thread::spawn(move || waiter.wait_change("claim", claim, LONG));
        eventually("it waits", || brain.stats().expect("the store answers").waits == 1);
        client.signal(end);
        assert_eq!(waiting.join().expect("it did not panic")?, None);
        assert!(!brain.exists("claim")?);
        assert_eq!(brain.wait_change("kept", 0, LONG)?, Some(kept), "what is not ephemeral stays");
    }
    Ok(())
}

/// A process that leaves the store says so, and lives on.
#[test]
fn an_ephemeral_binding_ends_when_its_process_leaves() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let mut client = Client::start(CLIENT, daemon.socket());
    let claim = client.ask_for_number("learn-ephemeral claim 1");
    client.ask("leave");
    assert_eq!(brain.wait_change("claim", claim, LONG)?, None);
    let again = client.ask_for_number("learn-ephemeral claim 2"); // in a session of its own
    assert!(again > claim && brain.recall::<i64>("claim")? == 2);
    Ok(())
}

/// What is said last of a name holds: rebound by somebody else it is his, or nobody's.
#[test]
fn a_binding_belongs_to_who_made_it_last() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let (mut first, mut second) =
        (Client::start(CLIENT, daemon.socket()), Client::start(CLIENT, daemon.socket()));
    first.ask("learn-ephemeral a 1");
    first.ask("learn-ephemeral b 1");
    let last = first.ask_for_number("learn-ephemeral last 1");
    let seconds = second.ask_for_number("learn-ephemeral a 2");
    brain.learn("b", &3)?;
    first.signal(Signal::SIGKILL);
    assert_eq!(brain.wait_change("last", last, LONG)?, None);
    assert_eq!((brain.recall::<i64>("a")?, brain.recall::<i64>("b")?), (2, 3));
    second.signal(Signal::SIGKILL);
    assert_eq!(brain.wait_change("a", seconds, LONG)?, None);
    assert_eq!(brain.recall::<i64>("b")?, 3);
    Ok(())
}

/// A wait for a change ends for every way in which a name can lose its binding, and get another.
#[test]
fn every_change_of_a_name_wakes_who_waits_for_one() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon).in_namespace("waited")?;
    let change: [(&str, &dyn Fn() -> plasmon::Result<()>); 7] = [
        ("learned", &|| brain.learn("a", &2).map(drop)),
        ("forgotten", &|| brain.forget("a").map(drop)),
        ("in a batch", &|| brain.batch()?.forget("a")?.learn("b", &1)?.commit().map(drop)),
        ("cleared", &|| brain.clear().map(drop)),
        ("removed", &|| brain.remove_namespace().map(drop)),
        ("expired", &|| Ok(())),
        ("evicted", &|| {
            brain.declare(&NamespaceOptions::new().cache())?;
            let others = brain.in_namespace("default")?;
            let piece = vec![7_u8; 1 << 20];
            let mut number = 0;
            while brain.exists("a")? {
                others.learn(&number.to_string(), &piece)?;
                number += 1;
            }
            Ok(())
        }),
    ];
    for (how, change) in change {
        let options = match how {
            "expired" => LearnOptions::new().ttl(Duration::from_millis(300)),
            _ => LearnOptions::new(),
        };
        let known = brain.learn_with("a", &vec![7_u8; 2 << 20], &options)?;
        let waiting = brain.begin_wait_change("a", known)?;
        change()?;
        let now = waiting.finish()?;
        assert_eq!(now.is_some(), how == "learned", "{how}");
        assert_eq!(brain.exists("a")?, how == "learned", "{how}");
        // Who knows what holds waits; who does not is told at once.
        assert_eq!(brain.wait_change("a", known, Duration::ZERO)?, now, "{how}");
        let none = brain.wait_change("a", now.unwrap_or(0), Duration::ZERO);
        assert!(matches!(none, Err(Error::WaitTimeout { .. })), "{how}");
    }
    assert_eq!(brain.stats()?.waits, 0);
    Ok(())
}

/// Somebody who does not care any more costs the store nothing.
#[test]
fn a_wait_that_is_dropped_is_over() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let waiting = brain.begin_wait_change("never", 0)?;
    eventually("it waits", || brain.stats().expect("the store answers").waits == 1);
    drop(waiting);
    eventually("it does not wait", || brain.stats().expect("the store answers").waits == 0);
    Ok(())
}

/// The end of a connection is not the end of a session; a goodbye is, and what comes after it is too late.
#[test]
fn what_ends_a_session_ends_what_is_ephemeral() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let RawSession { lifeline, mut requests, .. } = RawSession::begin(daemon.socket());
    let claimed = requests.call(&commit(vec![bind_ephemeral("claim", 100), inline("kept", 100)]));
    let version = claimed.expect("there is room").version;
    drop(requests);
    assert!(matches!(
        brain.wait_change("claim", version, Duration::from_millis(50)),
        Err(Error::WaitTimeout { .. })
    ));
    let mut waiter = RawSession::begin(daemon.socket());
    waiter.requests.send(9, &wait_change("claim", version));
    let mut lifeline = lifeline;
    lifeline.send(2, &Goodbye {});
    assert_eq!(waiter.requests.receive::<Changed>(), Ok(Changed { version: 0 }));
    assert!(brain.exists("kept")?);
    eventually("its memory is free", || brain.stats().expect("the store answers").used_bytes == 128);
    Ok(())
}

/// Invariant 9: a session that ends with very many of them holds up nobody, and a commit under way is not disturbed.
#[test]
fn many_ephemeral_bindings_end_beside_other_work() -> TestResult {
    const NAMES: usize = 30_000;
    let daemon = Daemon::start(STORE, "64MiB");
    let brain = connect(&daemon);
    let mut session = RawSession::begin(daemon.socket());
    for part in 0..10 {
        let names = (0..NAMES / 10).map(|n| bind_ephemeral(&format!("{part} {n}"), 10)).collect();
        session.requests.call(&commit(names)).expect("there is room");
    }
    assert_eq!(brain.len()?, NAMES as u64);
    session.lifeline.send(2, &Goodbye {});
    let mut batch = brain.batch()?;
    for n in 0..5_000 {
        batch = batch.learn(&format!("mine {n}"), &n)?;
    }
    batch.commit()?;
    eventually("they are gone", || brain.len().expect("the store answers") == 5_000);
    Ok(())
}

/// What says that somebody is at work must not give way to what he makes.
#[test]
fn an_ephemeral_binding_does_not_give_way() -> TestResult {
    let daemon = Daemon::start(STORE, "8MiB");
    let cache = connect(&daemon).in_namespace("cache")?;
    let in_cache = LearnOptions::new().in_cache();
    cache.learn_with("claim", &vec![1_u8; 1_000], &ephemeral().in_cache())?;
    for n in 0..40 {
        cache.learn_with(&n.to_string(), &vec![7_u8; 1 << 20], &in_cache)?;
    }
    assert!(cache.stats()?.evicted > 30);
    assert_eq!(cache.recall::<Blob>("claim")?.len(), 1_000);
    // Bound anew as something else, it does.
    cache.learn_with("claim", &vec![2_u8; 1_000], &in_cache)?;
    let mut n = 0;
    while cache.exists("claim")? {
        assert!(n < 100, "it gives way");
        cache.learn_with(&n.to_string(), &vec![7_u8; 1 << 20], &in_cache)?;
        n += 1;
    }
    Ok(())
}

/// Invariant 6: nothing is removed that somebody has learned meanwhile.
#[test]
fn a_namespace_is_removed_only_if_it_is_empty() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let other = brain.in_namespace("other")?;
    other.learn("a", &1)?;
    let refused = other.remove_namespace_if_empty();
    assert!(matches!(&refused, Err(Error::NamespaceInUse { names: 1, .. })), "{refused:?}");
    assert_eq!(other.recall::<i64>("a")?, 1);
    other.learn_with("a", &1, &LearnOptions::new().ttl(Duration::from_millis(30)))?;
    eventually("what has expired does not count", || other.remove_namespace_if_empty().is_ok());
    assert!(matches!(other.remove_namespace_if_empty(), Err(Error::NamespaceNotFound { .. })));
    assert!(matches!(brain.remove_namespace_if_empty(), Err(Error::DefaultNamespace)));
    // All or nothing, as with any commit.
    other.register()?;
    let mut session = RawSession::begin(daemon.socket());
    let remove = |text| Change::RemoveEmptyNamespace { namespace: Namespace::new(text).expect("valid") };
    brain.in_namespace("in-use")?.learn("a", &1)?;
    let refused = session.requests.call(&commit(vec![remove("other"), remove("in-use")]));
    assert!(matches!(refused, Err(Failure::NamespaceInUse { names: 1, .. })), "{refused:?}");
    assert!(other.names("")?.is_empty(), "it is still there");
    let Change::Bind(mut bind) = inline("a", 10) else { unreachable!("it binds") };
    bind.namespace = Namespace::new("other")?;
    let refused = session.requests.call(&commit(vec![Change::Bind(bind), remove("other")]));
    assert!(matches!(refused, Err(Failure::NamedTwice { .. })), "{refused:?}");
    Ok(())
}

/// What a cache needs is said with every value of it, so it holds whatever happened to the namespace.
#[test]
fn a_namespace_is_made_a_cache_in_the_commit_that_learns() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let cache = connect(&daemon).in_namespace("cache")?;
    let lifetime = Duration::from_secs(1_000);
    let is_cache = || {
        let all = cache.namespaces().expect("the store answers");
        all.into_iter().find(|it| &*it.namespace == "cache").is_some_and(|it| it.is_cache)
    };
    cache.learn_with("a", &1, &LearnOptions::new().in_cache())?;
    assert!(is_cache());
    cache.remove_namespace()?;
    cache.batch()?.learn_with("a", &1, &LearnOptions::new().in_cache())?.learn("b", &2)?.commit()?;
    assert!(is_cache());
    // What else was declared stays, and names that were there before count.
    cache.declare(&NamespaceOptions::new().ttl(lifetime))?;
    assert!(!is_cache());
    cache.learn_with("c", &vec![7_u8; 100_000], &LearnOptions::new().in_cache())?;
    assert!(is_cache());
    assert_eq!(cache.metadata("c")?.and_then(|it| it.ttl), Some(lifetime));
    assert!(cache.stats()?.cached_bytes >= 100_000);
    Ok(())
}

/// Only who holds a claim may do what it is for: it may have been taken away.
#[test]
fn a_learn_may_rest_on_a_claim() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let claim = brain.learn_with("claim", &1, &ephemeral().if_absent())?;
    brain.learn_with("result", &1, &LearnOptions::new().if_held("claim", claim))?;
    brain.learn_with("claim", &2, &ephemeral())?;
    let refused = brain.learn_with("result", &2, &LearnOptions::new().if_held("claim", claim));
    assert!(matches!(&refused, Err(Error::ConditionFailed { name, .. }) if name == "claim"), "{refused:?}");
    assert_eq!(brain.recall::<i64>("result")?, 1);
    Ok(())
}

/// Invariant 7: what the new changes carry is checked as it is for the old ones.
#[test]
fn an_ephemeral_binding_is_checked_as_any_other() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let mut session = RawSession::begin(daemon.socket());
    let ephemeral = |payload| {
        let Change::Bind(bind) = bind("a", payload) else { unreachable!("it binds") };
        commit(vec![Change::BindEphemeral(bind)])
    };
    let mut refusal = |commit: &Commit| session.requests.call(commit).expect_err("it is refused");
    assert!(matches!(refusal(&ephemeral(Payload::InHeader)), Failure::Malformed { .. }));
    assert!(matches!(
        refusal(&ephemeral(Payload::Inline { bytes: vec![].into() })),
        Failure::TooLarge { .. }
    ));
    let leased = Payload::Leased { lease: 1, offset: 64, len_bytes: 64 };
    assert!(matches!(refusal(&ephemeral(leased)), Failure::BadLease { .. }));
    let twice = commit(vec![bind_ephemeral("a", 10), inline("a", 10)]);
    assert!(matches!(refusal(&twice), Failure::NamedTwice { .. }));
    Ok(())
}

/// Who waits for a name to change is told what it has become, and not what it was meanwhile: here it is unbound and bound
/// again before a long commit keeps the store from telling anybody of either.
#[test]
fn who_knows_the_newest_version_is_not_told_that_the_name_is_unbound() {
    let daemon = Daemon::start(STORE, "32MiB");
    let begin = || RawSession::begin(daemon.socket());
    let (mut first, mut writer, mut waiting, mut other) = (begin(), begin(), begin(), begin());
    first.requests.be_patient();
    writer.requests.be_patient();
    let before = writer.requests.call(&commit(vec![inline("name", 10)])).expect("there is room").version;
    waiting.requests.send(1, &wait_change("name", before));
    let many = bulk::written(&mut first, 20_000);
    first.requests.call(&many).expect("there is room");
    // While names are looked up the commits queue. The last of them is visible in part at once, and for long.
    let absent = |slot| NameSlot { namespace: Namespace::default(), name: bulk::name(slot), slot };
    first.requests.send(1, &FindMany { names: (0..20_000).map(absent).collect() });
    let unbind = Change::Unbind { namespace: Namespace::default(), name: name("name") };
    writer.requests.send(2, &commit(vec![unbind]));
    writer.requests.send(3, &commit(vec![inline("name", 10)]));
    writer.requests.send(4, &commit(vec![Change::ClearNamespace { namespace: bulk::namespace() }]));
    let describe = Describe { namespace: Namespace::default(), name: name("name") };
    let mut now = before;
    eventually("it is bound anew", || {
        let described = other.requests.call(&describe).expect("the store answers");
        now = described.binding.map_or(before, |binding| binding.version);
        now != before
    });
    other.requests.send(5, &wait_change("name", now));
    for _ in 0..3 {
        writer.requests.receive::<Committed>().expect("it is done");
    }
    first.requests.receive::<FoundMany>().expect("the slots are free");
    let told = waiting.requests.receive::<Changed>().expect("it has changed").version;
    assert!(told == now || told == 0, "{told}");
    let later = writer.requests.call(&commit(vec![inline("name", 10)])).expect("there is room").version;
    assert_eq!(other.requests.receive::<Changed>(), Ok(Changed { version: later }));
}

//! One object with several names: copies, names that move, and one value that is learned under many names.

use crate::STORE;
use plasmon::{Blob, Brain, LearnOptions, NamespaceOptions, Object};
use plasmon_protocol::{
    message::{Change, Failure, Find, Lives, Payload, SameAs},
    name::Namespace,
};
use plasmon_tests::{
    TestResult,
    daemon::Daemon,
    eventually,
    raw::{RawSession, bind, commit, inline, name},
};
use std::time::Duration;

const MIB: usize = 1 << 20;

fn connect(daemon: &Daemon) -> Brain {
    Brain::builder().path(daemon.socket()).connect().expect("the store answers")
}

fn used_bytes(brain: &Brain) -> u64 {
    brain.stats().expect("the store answers").used_bytes
}

fn same(target: &str, source: &str, lives: Lives) -> Change {
    Change::SameAs(SameAs {
        namespace: Namespace::default(),
        name: name(target),
        description: None,
        metadata: None,
        lives,
        of_namespace: Namespace::default(),
        of_name: name(source),
        at: None,
    })
}

/// Invariant 10: an object takes its room once, whatever the number of its names, and until the last of them goes.
#[test]
fn a_copy_takes_no_room_and_outlives_its_source() -> TestResult {
    let daemon = Daemon::start(STORE, "64MiB");
    let brain = connect(&daemon);
    let options = LearnOptions::new().description("of today");
    brain.learn_with("prices", &vec![7_u8; 40 * MIB], &options)?;
    let used = used_bytes(&brain);
    let version = brain.copy("prices", "copy")?;
    brain.copy_to("prices", "archive", "prices of yesterday")?;
    assert_eq!(used_bytes(&brain), used, "a store of 64 MiB has no room for two of them");
    let metadata = brain.metadata("copy")?.expect("it is bound");
    assert_eq!((metadata.version, metadata.description.as_str()), (version, "of today"));
    brain.forget("prices")?;
    assert_eq!(*brain.recall::<Blob>("copy")?, *vec![7; 40 * MIB]);
    brain.forget("copy")?;
    assert_eq!(used_bytes(&brain), used);
    let archive = brain.in_namespace("archive")?;
    assert_eq!(archive.recall::<Blob>("prices of yesterday")?.len(), 40 * MIB);
    archive.remove_namespace()?;
    eventually("all of it is free", || used_bytes(&brain) == 0);
    Ok(())
}

/// Learning one of the names anew changes nothing for the others.
#[test]
fn names_of_one_object_are_bound_anew_one_by_one() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    brain.learn("a", &vec![1_u8; 1_000])?;
    brain.copy("a", "b")?;
    brain.copy("a", "a")?; // bound anew to what it was bound to
    brain.learn("a", &vec![2_u8; 1_000])?;
    assert_eq!((brain.recall::<Blob>("a")?[0], brain.recall::<Blob>("b")?[0]), (2, 1));
    // A value that stands in the index has no object, and is copied all the same.
    brain.learn("int", &41)?;
    brain.copy("int", "other int")?;
    brain.learn("int", &42)?;
    assert_eq!((brain.recall::<i64>("int")?, brain.recall::<i64>("other int")?), (42, 41));
    Ok(())
}

/// A name moves at one moment, with all that belongs to it.
#[test]
fn a_renamed_name_keeps_its_texts_and_its_deadline() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let lives = LearnOptions::new().description("draft").ttl(Duration::from_secs(1_000));
    brain.learn_with("old", &vec![7_u8; 1_000], &lives)?;
    let (mut session, mut slot) = (RawSession::begin(daemon.socket()), 0);
    let mut deadline = |text: &str| {
        slot += 1;
        let find = Find { namespace: Namespace::default(), name: name(text), slot };
        let found = session.requests.call(&find).expect("the slot is free");
        found.location.expect("it is bound").expires_ns
    };
    let expires_ns = deadline("old");
    brain.learn("new", "is replaced")?;
    brain.rename("old", "new")?;
    assert!(!brain.exists("old")?);
    let metadata = brain.metadata("new")?.expect("it is bound");
    assert_eq!(metadata.description, "draft");
    assert_eq!(metadata.ttl, Some(Duration::from_secs(1_000)));
    assert_eq!(deadline("new"), expires_ns);
    // As it is declared where it is copied to, which here is for ever.
    brain.copy("new", "copy")?;
    assert_eq!(brain.metadata("copy")?.expect("it is bound").expires, None);
    brain.rename("new", "new")?;
    assert_eq!(brain.recall::<Blob>("new")?.len(), 1_000);
    assert_eq!(brain.len()?, 2);
    for missing in [brain.copy("old", "x"), brain.rename("old", "x")] {
        let error = missing.expect_err("nothing is bound to it");
        assert!(error.is_not_found() && error.to_string().contains("\"old\""), "{error}");
    }
    assert!(!brain.exists("x")?);
    Ok(())
}

/// Sources are looked up before anything changes (growth-review G4): two names are swapped, and a chain moves on.
#[test]
fn what_a_name_gets_is_what_its_source_was_before_the_commit() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let mut session = RawSession::begin(daemon.socket());
    for (name, byte) in [("a", 1_u8), ("b", 2), ("c", 3)] {
        brain.learn(name, &vec![byte; 1_000])?;
    }
    let swap = commit(vec![same("a", "b", Lives::AsDeclared), same("b", "a", Lives::AsSource)]);
    session.requests.call(&swap).expect("it is done");
    let seen = || ["a", "b", "c"].map(|name| brain.recall::<Blob>(name).expect("it is bound")[0]);
    assert_eq!(seen(), [2, 1, 3]);
    let turn = [("a", "b"), ("b", "c"), ("c", "a")].map(|(to, from)| same(to, from, Lives::AsSource));
    session.requests.call(&commit(turn.to_vec())).expect("it is done");
    assert_eq!(seen(), [1, 3, 2]);
    // One that is not bound, or was not at that moment: nothing happens, and the message names it.
    let Change::SameAs(mut early) = same("d", "a", Lives::AsDeclared) else { unreachable!("as above") };
    early.at = Some(1);
    let refused = session.requests.call(&commit(vec![inline("e", 100), Change::SameAs(early)]));
    assert_eq!(refused, Err(Failure::NotBound { namespace: Namespace::default(), name: name("a") }));
    assert!(!brain.exists("e")?);
    Ok(())
}

/// The bytes of one value travel once, whatever the number of names it gets.
#[test]
fn changes_of_one_commit_share_an_object() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let mut session = RawSession::begin(daemon.socket());
    let as_first = |text: &str| bind(text, Payload::AsChange { index: 1 });
    let changes = vec![
        bind("inline", Payload::Inline { bytes: vec![9; 64].into() }),
        bind("one", Payload::Inline { bytes: vec![7; 1 << 14].into() }),
        as_first("two"),
        as_first("three"),
    ];
    session.requests.call(&commit(changes)).expect("it is done");
    assert_eq!(used_bytes(&brain), (1 << 14) + 64);
    for forgotten in ["one", "three", "two"] {
        assert_eq!(brain.recall::<Object>(forgotten)?.len_bytes(), 1 << 14);
        brain.forget(forgotten)?;
    }
    eventually("it is free", || used_bytes(&brain) == 64);
    // Only an earlier change that brings bytes can be meant.
    for index in [1, 2, 3, u32::MAX] {
        let changes = vec![
            Change::Unbind { namespace: Namespace::default(), name: name("nothing") },
            bind("x", Payload::AsChange { index }),
            inline("y", 100),
        ];
        let refused = session.requests.call(&commit(changes));
        assert!(
            matches!(&refused, Err(Failure::Malformed { reason }) if reason.contains("\"x\"")),
            "{refused:?}"
        );
    }
    let refused = session.requests.call(&commit(vec![
        Change::Unbind { namespace: Namespace::default(), name: name("nothing") },
        bind("x", Payload::AsChange { index: 0 }),
    ]));
    assert!(matches!(refused, Err(Failure::Malformed { .. })));
    assert_eq!(brain.len()?, 1);
    Ok(())
}

/// Invariant 6: where an object has several names in a cache, all of them give way, or none (growth-review G5).
#[test]
fn an_object_gives_way_with_all_its_names_or_stays_with_all() -> TestResult {
    let daemon = Daemon::start(STORE, "64MiB");
    let brain = connect(&daemon);
    let cache = brain.in_namespace("a-cache")?;
    cache.declare(&NamespaceOptions::new().cache())?;
    cache.learn("several", &vec![1_u8; 20 * MIB])?;
    (0..10).try_for_each(|number| cache.copy("several", &format!("copy {number}")).map(drop))?;
    cache.learn("held elsewhere", &vec![2_u8; 20 * MIB])?;
    cache.copy_to("held elsewhere", "default", "stays")?;
    cache.learn("one", &vec![3_u8; 10 * MIB])?;
    // What was used least recently is one object with eleven names.
    cache.learn("new", &vec![4_u8; 16 * MIB])?;
    assert!(!cache.exists("several")? && !cache.exists("copy 9")?);
    assert!(cache.exists("held elsewhere")? && cache.exists("one")?);
    let stats = brain.stats()?;
    assert_eq!(stats.evicted, 11);
    assert!(stats.evicted_bytes < 21 * MIB as u64, "it counts once: {}", stats.evicted_bytes);
    // No room would come of a name whose object has another one that stays.
    cache.learn("newer", &vec![5_u8; 20 * MIB])?;
    assert!(cache.exists("held elsewhere")? && !cache.exists("one")?);
    assert!(cache.learn("too much", &vec![6_u8; 50 * MIB]).is_err());
    assert_eq!(brain.recall::<Blob>("stays")?.len(), 20 * MIB);
    Ok(())
}

/// Whoever asks who holds something sees the name that was bound last, and how many others there are (growth-review G8).
#[test]
fn pins_name_one_of_several_names() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    brain.learn("one", &vec![7_u8; 1_000])?;
    brain.copy("one", "two")?;
    brain.copy("one", "three")?;
    let held = brain.recall::<Blob>("one")?;
    let seen = || {
        let pins = brain.pins().expect("the store answers");
        assert_eq!(pins.len(), 1);
        (pins[0].name.clone(), pins[0].limbo)
    };
    assert_eq!(seen(), ("default/three (+ 2 names)".to_owned(), false));
    brain.forget("three")?;
    let (name, limbo) = seen();
    assert!(
        ["default/one (+ 1 name)", "default/two (+ 1 name)"].contains(&name.as_str()) && !limbo,
        "{name}"
    );
    brain.forget("one")?;
    assert_eq!(seen(), ("default/two".to_owned(), false));
    brain.forget("two")?;
    assert_eq!(seen(), ("default/two".to_owned(), true));
    assert_eq!(held.len(), 1_000);
    Ok(())
}

/// An ephemeral binding that moves still ends with the session that made it.
#[test]
fn an_ephemeral_binding_can_be_renamed() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let mut client = plasmon_tests::client::Client::start(crate::CLIENT, daemon.socket());
    client.ask_for_number("learn-ephemeral claim 1");
    let moved = brain.rename("claim", "moved")?;
    brain.copy("moved", "copy")?;
    client.ask("leave");
    assert_eq!(brain.wait_change("moved", moved, Duration::from_secs(60))?, None);
    assert_eq!(brain.recall::<i64>("copy")?, 1);
    Ok(())
}

//! The past: history, snapshots and views, through real stores and processes.

use crate::{CLIENT, STORE};
use nix::sys::signal::Signal;
use plasmon::{Blob, Brain, Error, History, LearnOptions, NamespaceOptions, Reason};
use plasmon_protocol::{
    message::{BeginView, Change, Commit, Condition, Expect, Failure, FindAt, MomentOf, When},
    name::Namespace,
};
use plasmon_tests::{
    TestResult,
    client::Client,
    daemon::Daemon,
    eventually,
    raw::{RawSession, commit, inline, name},
};
use std::time::{Duration, SystemTime};

const MIB: usize = 1 << 20;

fn connect(daemon: &Daemon) -> Brain {
    Brain::builder().path(daemon.socket()).connect().expect("the store answers")
}

fn versions(count: u32) -> History {
    History { versions: Some(count), age_ns: None, bytes: None }
}

fn requests(brain: &Brain) -> u64 {
    brain.stats().expect("the store answers").requests
}

/// What history was declared for, it keeps, whatever ended it; and nothing else.
#[test]
fn history_keeps_the_versions_that_were_declared_and_says_how_each_ended() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    brain.learn("n", &vec![0_u8; 1_000])?;
    brain.learn("n", &vec![1_u8; 1_000])?;
    assert_eq!(brain.history("n")?.len(), 1, "nothing is kept unless it is declared");
    brain.keep_history(Some(&versions(3)))?;
    let mut made = Vec::new();
    for byte in 2..7_u8 {
        let options = LearnOptions::new().description(format!("byte {byte}"));
        made.push(brain.learn_with("n", &vec![byte; 1_000], &options)?);
    }
    brain.forget("n")?;
    let kept = brain.history("n")?;
    let seen: Vec<_> = kept.iter().map(|version| version.version).collect();
    assert_eq!(seen, [made[4], made[3], made[2]]);
    let reasons = kept.iter().map(|version| version.ended.as_ref().map(|ended| ended.reason));
    assert!(reasons.eq([Some(Reason::Forgotten), Some(Reason::Rebound), Some(Reason::Rebound)]));
    assert_eq!(kept[0].description, "byte 6");
    assert_eq!(*brain.recall_version::<Blob>("n", made[2])?, *vec![4; 1_000]);
    let gone = brain.recall_version::<Blob>("n", made[1]).unwrap_err();
    assert!(matches!(gone, Error::VersionNotKept { .. }) && gone.is_not_found(), "{gone}");
    assert_eq!(brain.deleted_names("")?, ["n"]);
    // Something else that ends a version.
    let lives = LearnOptions::new().ttl(Duration::from_millis(1));
    brain.learn_with("n", &vec![7_u8; 1_000], &lives)?;
    eventually("it has expired", || !brain.exists("n").expect("the store answers"));
    eventually("and is kept", || {
        let last = brain.history("n").expect("the store answers").remove(0);
        last.ended.is_some_and(|ended| ended.reason == Reason::Expired)
    });
    brain.clear()?;
    brain.learn("m", &1)?;
    brain.clear()?;
    let reason = brain.history("m")?[0].ended.as_ref().map(|ended| ended.reason);
    assert_eq!(reason, Some(Reason::Cleared));
    // Taken away, it is gone, and its memory is free.
    brain.keep_history(None)?;
    assert!(brain.history("n")?.is_empty() && brain.deleted_names("")?.is_empty());
    eventually("all of it is free", || {
        let stats = brain.stats().expect("the store answers");
        (stats.kept, stats.used_bytes, stats.past_bytes) == (0, 0, 0)
    });
    Ok(())
}

/// The bounds by age and bytes, and what counts: a version that the present one shows costs nothing.
#[test]
fn history_is_bounded_by_age_and_by_bytes() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let object_bytes = || brain.metadata("n").expect("the store answers").expect("it is bound").len_bytes;
    brain.learn("n", &vec![0_u8; 1_000])?;
    let bytes = Some(2 * object_bytes());
    brain.keep_history(Some(&History { versions: None, age_ns: None, bytes }))?;
    for byte in 0..6_u8 {
        brain.learn("n", &vec![byte; 1_000])?;
    }
    eventually("two are left", || brain.history("n").expect("the store answers").len() == 1 + 2);
    brain.copy("n", "n")?; // the same object: what it shows is no cost of its past
    assert_eq!(brain.history("n")?.len(), 1 + 3);
    brain.keep_history(Some(&History { versions: None, age_ns: Some(1_000_000), bytes: None }))?;
    eventually("all are too old", || brain.history("n").expect("the store answers").len() == 1);
    assert_eq!(brain.recall::<Blob>("n")?.len(), 1_000);
    Ok(())
}

#[test]
fn what_was_is_restored_undeleted_and_purged() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    brain.keep_history(Some(&versions(10)))?;
    let first = brain.learn("n", &vec![1_u8; 100_000])?;
    let between = brain.history("n")?[0].created;
    brain.learn("n", &vec![2_u8; 100_000])?;
    assert_eq!(brain.recall_as_of::<Blob>("n", between)?[0], 1);
    assert!(brain.recall_as_of::<Blob>("n", SystemTime::UNIX_EPOCH).unwrap_err().is_not_found());
    let used = brain.stats()?.used_bytes;
    let restored = brain.restore("n", first)?;
    assert_eq!((brain.recall::<Blob>("n")?[0], brain.stats()?.used_bytes), (1, used), "no bytes move");
    assert!(matches!(brain.undelete("n"), Err(Error::ConditionFailed { .. })), "it is bound");
    brain.forget("n")?;
    assert!(brain.undelete("n")? > restored);
    assert_eq!(brain.recall::<Blob>("n")?[0], 1);
    assert!(matches!(brain.restore("n", 1 << 40), Err(Error::VersionNotKept { .. })));
    brain.purge("n")?;
    assert_eq!(brain.history("n")?.len(), 1);
    eventually("only the present is there", || {
        let stats = brain.stats().expect("the store answers");
        stats.kept == 0 && stats.used_bytes < 110_000
    });
    assert!(brain.undelete("never bound").unwrap_err().is_not_found());
    Ok(())
}

/// Invariant 11: a snapshot shows what every name of its namespaces meant, whatever happened since.
#[test]
fn a_snapshot_shows_its_moment_and_can_be_restored_as_a_whole() -> TestResult {
    let daemon = Daemon::start(STORE, "64MiB");
    let brain = connect(&daemon);
    let other = brain.in_namespace("other-names")?;
    for number in 0..100_u32 {
        brain.learn(&format!("name {number}"), &number.to_le_bytes().repeat(100))?;
        other.learn(&format!("name {number}"), &number.to_le_bytes().repeat(100))?;
    }
    let moment = brain.snapshot_of("whole", &["default", "other-names"])?;
    assert!(matches!(brain.snapshot("whole"), Err(Error::SnapshotExists { .. })));
    assert!(matches!(brain.snapshot("with space"), Err(Error::BadName(_))));
    let snapshots = brain.snapshots()?;
    assert_eq!((snapshots.len(), snapshots[0].names, snapshots[0].moment), (1, 200, moment));
    (0..50).try_for_each(|number| brain.forget(&format!("name {number}")).map(drop))?;
    (40..90).try_for_each(|number| brain.learn(&format!("name {number}"), "new").map(drop))?;
    brain.learn("new name", &1)?;
    other.clear()?;
    let view = brain.at("whole")?;
    for number in 0..100_u32 {
        let value = view.recall::<Blob>(&format!("name {number}"))?;
        assert_eq!(*value, *number.to_le_bytes().repeat(100));
    }
    assert!(!view.exists("new name")? && view.names("")?.len() == 100);
    assert_eq!(view.in_namespace("other-names")?.names("name 9")?.len(), 11);
    assert!(matches!(view.in_namespace("another")?.names(""), Err(Error::NamespaceNotFound { .. })));
    let diff = brain.diff("whole", None)?;
    assert_eq!((diff.added, diff.changed.len(), diff.removed.len()), (vec!["new name".to_owned()], 50, 40));
    // One change: whoever waits sees all of it or nothing.
    let version = brain.restore_snapshot("whole")?;
    assert_eq!(brain.len()?, 100);
    assert!(brain.metadata("name 7")?.is_some_and(|it| it.version == version));
    assert!(brain.metadata("name 95")?.is_some_and(|it| it.version < version), "what had not changed stays");
    assert_eq!(brain.diff("whole", None)?.changed, Vec::<String>::new());
    assert_eq!(other.len()?, 0, "only this namespace");
    other.restore_names("whole", &["name 1", "name 2"])?;
    assert_eq!(other.names("")?, ["name 1", "name 2"]);
    // Dropped, it keeps nothing, but for the view.
    brain.drop_snapshot("whole")?;
    assert!(matches!(brain.drop_snapshot("whole"), Err(Error::SnapshotNotFound { .. })));
    assert!(matches!(brain.restore_snapshot("whole"), Err(Error::SnapshotNotFound { .. })));
    assert_eq!(
        *view.in_namespace("other-names")?.recall::<Blob>("name 9")?,
        *9_u32.to_le_bytes().repeat(100)
    );
    drop(view);
    eventually("nothing is kept", || brain.stats().expect("the store answers").kept == 0);
    Ok(())
}

/// What has not changed is read at a view as it is now: from the index, without a word to the store.
#[test]
fn a_view_asks_for_nothing_that_has_not_changed() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let (brain, writer) = (connect(&daemon), Client::start(CLIENT, daemon.socket()));
    let mut writer = writer;
    for number in 0..50 {
        brain.learn(&number.to_string(), &number)?;
        brain.learn(&format!("array {number}"), &vec![7_u8; 100])?;
    }
    let view = brain.view()?;
    let before = requests(&brain);
    for number in 0..50 {
        assert_eq!(view.recall::<i64>(&number.to_string())?, number);
        assert_eq!(view.recall::<Blob>(&format!("array {number}"))?.len(), 100);
    }
    assert_eq!(requests(&brain), before + 1, "only the question for the figures");
    writer.ask_for_number("learn-int 7 1000");
    brain.learn("array 7", &vec![8_u8; 100])?;
    assert_eq!((view.recall::<i64>("7")?, view.recall::<Blob>("array 7")?[0]), (7, 7));
    assert_eq!((brain.recall::<i64>("7")?, brain.recall::<Blob>("array 7")?[0]), (1_000, 8));
    Ok(())
}

/// Growth-review G10: at a moment, deadlines mean nothing; and what had expired by then is absent, unbound or not.
#[test]
fn what_expires_stays_what_it_was_at_a_view() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let soon = LearnOptions::new().ttl(Duration::from_millis(300));
    brain.learn_with("gone", &vec![1_u8; 100], &LearnOptions::new().ttl(Duration::from_millis(1)))?;
    eventually("it has expired", || !brain.exists("gone").expect("the store answers"));
    brain.learn_with("soon", &vec![2_u8; 100], &soon)?;
    let view = brain.view()?;
    let before = view.recall::<Blob>("soon")?;
    assert!(!view.exists("gone")?);
    daemon.signal(Signal::SIGSTOP);
    eventually("it expires meanwhile", || !brain.exists("soon").expect("the index tells"));
    assert_eq!(view.recall::<Blob>("soon")?, before, "from the index, which nobody has changed");
    daemon.signal(Signal::SIGCONT);
    eventually("it is unbound", || brain.stats().expect("the store answers").expired == 2);
    assert_eq!(view.recall::<Blob>("soon")?, before, "from the past");
    assert_eq!(view.names("")?, ["soon"]);
    assert!(!view.exists("gone")?);
    Ok(())
}

/// Growth-review G11: a view ends with its session, and then every use says so.
#[test]
fn a_view_ends_with_its_session_or_when_somebody_ends_it() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    brain.learn("a", &vec![1_u8; 100_000])?;
    let view = brain.view()?;
    // Another process joins the moment, and keeps it.
    let mut joined = RawSession::begin(daemon.socket());
    let begin = BeginView { at: MomentOf::Held { moment: view.moment() } };
    let begun = joined.requests.call(&begin).expect("it is held");
    assert_eq!(begun.moment, view.moment());
    let listed = brain.views()?;
    assert_eq!(listed.iter().map(|it| it.view).collect::<Vec<_>>(), [view.number(), begun.view]);
    brain.learn("a", &vec![2_u8; 100_000])?;
    brain.end_view(view.number())?;
    assert!(matches!(view.recall::<Blob>("a"), Err(Error::ViewEnded { .. })));
    assert!(matches!(brain.end_view(view.number()), Err(Error::ViewEnded { .. })));
    let find = |slot, at| FindAt { namespace: Namespace::default(), name: name("a"), at, slot };
    let found = joined.requests.call(&find(0, When::View { view: begun.view })).expect("the slot is free");
    assert!(found.location.is_some_and(|location| location.version <= begun.moment));
    // Nobody else's view can be looked through.
    let mut stranger = RawSession::begin(daemon.socket());
    let refused = stranger.requests.call(&find(0, When::View { view: begun.view }));
    assert_eq!(refused.map(|_| ()), Err(Failure::ViewEnded { view: begun.view }));
    drop(joined);
    eventually("the past is gone with its process", || {
        let stats = brain.stats().expect("the store answers");
        (stats.views, stats.kept) == (0, 0) && stats.used_bytes < 110_000
    });
    let view = brain.view()?;
    brain.disconnect();
    assert!(matches!(view.recall::<Blob>("a"), Err(Error::ViewEnded { .. }) | Ok(_)));
    Ok(())
}

/// Invariants 6 and 11: what can be kept is bounded, and whoever reaches the bound loses nothing.
#[test]
fn more_than_can_be_kept_is_refused_and_what_only_the_past_holds_is_named() -> TestResult {
    let daemon = Daemon::start_with(STORE, &["--size", "64MiB", "--max-kept", "10"]);
    let brain = connect(&daemon);
    for number in 0..12_u8 {
        brain.learn(&number.to_string(), &[number])?;
    }
    brain.snapshot("all")?;
    let refused = brain.clear().unwrap_err();
    let Error::TooManyKept { requested: 12, kept: 0, limit: 10, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(brain.len()?, 12, "nothing has changed");
    (0..10).try_for_each(|number| brain.forget(&number.to_string()).map(drop))?;
    assert!(matches!(brain.forget("10"), Err(Error::TooManyKept { .. })));
    // One that expires stays where it is, absent to all, until there is room.
    let soon = LearnOptions::new().ttl(Duration::from_millis(1));
    let other = brain.in_namespace("other-names")?;
    other.keep_history(Some(&versions(5)))?;
    other.learn_with("soon", &vec![7_u8; 100_000], &soon)?;
    eventually("it has expired", || !other.exists("soon").expect("the store answers"));
    assert!(other.names("")?.is_empty() && other.history("soon")?.is_empty());
    brain.drop_snapshot("all")?;
    eventually("it is kept", || other.history("soon").expect("the store answers").len() == 1);
    // A store that is full of the past says whose.
    other.keep_history(None)?;
    brain.learn("large", &vec![1_u8; 20 * MIB])?;
    brain.snapshot("large")?;
    brain.learn("large", &vec![2_u8; 20 * MIB])?;
    let full = brain.learn("large", &vec![3_u8; 30 * MIB]).unwrap_err();
    let text = full.to_string();
    let Error::StoreFull(full) = full else { panic!("{full:?}") };
    assert!(full.past_bytes > 20 * MIB as u64 && text.contains("snapshot \"large\" keeps"), "{text}");
    brain.forget("large")?;
    brain.drop_snapshot("large")?;
    eventually("there is room again", || brain.learn("large", &vec![3_u8; 50 * MIB]).is_ok());
    Ok(())
}

/// Growth-review G12, G13: a removed namespace leaves nothing of its past to one of the same name; a cache has none.
#[test]
fn a_removed_namespace_and_a_cache_have_no_past() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon).in_namespace("project")?;
    brain.keep_history(Some(&versions(5)))?;
    brain.learn("a", "first")?;
    brain.snapshot("then")?;
    let view = brain.view()?;
    brain.remove_namespace()?;
    brain.learn("a", "second")?;
    assert_eq!(brain.history("a")?.len(), 1);
    assert!(matches!(brain.at("then"), Err(Error::SnapshotNotFound { .. })));
    assert_eq!(view.recall::<String>("a")?, "first", "what a session holds stays");
    drop(view);
    let cache = brain.in_namespace("a-cache")?;
    cache.declare(&NamespaceOptions::new().cache())?;
    cache.learn("x", &1)?;
    assert!(matches!(cache.keep_history(Some(&versions(1))), Err(Error::CacheHasNoPast { .. })));
    assert!(matches!(cache.snapshot("of-a-cache"), Err(Error::CacheHasNoPast { .. })));
    brain.keep_history(Some(&versions(1)))?;
    let declared = brain.declare(&NamespaceOptions::new().cache());
    assert!(matches!(declared, Err(Error::CacheHasNoPast { .. })));
    let view = cache.view()?;
    cache.learn("x", &2)?;
    assert_eq!(view.recall::<i64>("x")?, 2, "the present");
    eventually("nothing of a cache is kept", || brain.stats().expect("the store answers").kept == 0);
    Ok(())
}

/// Growth-review G23, G25: who listed a namespace hears of whatever has changed in it, and of all that did not hold.
#[test]
fn a_commit_can_depend_on_all_names_of_a_namespace_and_names_all_that_failed() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let mut session = RawSession::begin(daemon.socket());
    let mut expect = |conditions: &[(&str, Expect)], changes: Vec<Change>| {
        let conditions = conditions.iter().map(|(of, expect)| Condition {
            namespace: Namespace::new(of).expect("a valid namespace"),
            name: name("any"),
            expect: expect.clone(),
        });
        session.requests.call(&Commit { conditions: conditions.collect(), changes, end_leases: vec![] })
    };
    brain.learn("a", &1)?;
    // A commit without changes takes no number.
    let since = expect(&[], vec![]).expect("nothing can fail").version;
    assert_eq!(expect(&[], vec![]).expect("nothing can fail").version, since);
    let unchanged = |since| Expect::NamespaceUnchanged { since };
    brain.in_namespace("other-names")?.learn("b", &1)?;
    expect(&[("default", unchanged(since))], vec![]).expect("only another namespace has changed");
    expect(&[("unknown-names", unchanged(since))], vec![]).expect("nobody has removed one");
    expect(&[("other-names", unchanged(since))], vec![]).expect_err("a name was bound in it");
    let mut now = expect(&[], vec![]).expect("nothing can fail").version;
    for change in [
        inline("c", 100),
        inline("c", 100),
        Change::Unbind { namespace: Namespace::default(), name: name("c") },
        Change::ClearNamespace { namespace: Namespace::default() },
    ] {
        expect(&[("default", unchanged(now))], vec![]).expect("nothing has happened yet");
        let version = expect(&[], vec![change]).expect("it can be done").version;
        let failed = expect(&[("default", unchanged(now))], vec![inline("d", 100)]);
        let expected = Failure::ConditionFailed {
            namespace: Namespace::default(),
            name: name("any"),
            expect: unchanged(now),
            found: Some(version),
        };
        assert_eq!(failed, Err(expected));
        now = version;
    }
    // What has expired is a change, unbound by then or not.
    let listed = brain.learn_with("soon", &1, &LearnOptions::new().ttl(Duration::from_millis(1)))?;
    eventually("it has expired", || !brain.exists("soon").expect("the store answers"));
    expect(&[("default", unchanged(listed))], vec![]).expect_err("a name has expired");
    // A namespace that was made anew does not remember.
    let now = expect(&[], vec![]).expect("nothing can fail").version;
    brain.in_namespace("other-names")?.remove_namespace()?;
    expect(&[("unknown-names", unchanged(now))], vec![])
        .expect_err("one was removed, and it may have been this");
    let both = [("default", Expect::Present), ("default", Expect::Version { version: 5 })];
    let Err(Failure::ConditionsFailed { failed, more: 0 }) = expect(&both, vec![inline("d", 100)]) else {
        panic!("both must fail");
    };
    assert_eq!(failed.len(), 2);
    let many = vec![("default", Expect::Present); 1_500];
    let refused = expect(&many, vec![]);
    assert!(
        matches!(&refused, Err(Failure::ConditionsFailed { failed, more: 500 }) if failed.len() == 1_000)
    );
    assert!(!brain.exists("d")?);
    session.requests.call(&commit(vec![inline("d", 100)])).expect("nothing has failed before");
    Ok(())
}

/// The one that ends with its session is kept as any other.
#[test]
fn an_ephemeral_binding_has_a_past() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    brain.keep_history(Some(&versions(5)))?;
    let mut client = Client::start(CLIENT, daemon.socket());
    let claim = client.ask_for_number("learn-ephemeral claim 1");
    client.signal(Signal::SIGKILL);
    assert_eq!(brain.wait_change("claim", claim, Duration::from_secs(60))?, None);
    let kept = brain.history("claim")?;
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].ended.as_ref().map(|ended| ended.reason), Some(Reason::Expired));
    assert_eq!(brain.recall_version::<i64>("claim", claim)?, 1);
    Ok(())
}

/// The index would answer for every namespace: so the client must know which ones a snapshot keeps.
#[test]
fn a_view_of_a_snapshot_shows_no_namespace_that_the_snapshot_does_not_keep() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let other = brain.in_namespace("other")?;
    other.learn("n", &1)?;
    brain.learn("n", &2)?;
    brain.snapshot("s")?;
    let view = brain.at("s")?;
    assert_eq!(view.recall::<i64>("n")?, 2);
    let elsewhere = view.in_namespace("other")?;
    assert!(matches!(elsewhere.recall::<i64>("n"), Err(Error::NamespaceNotFound { .. })));
    assert!(matches!(elsewhere.names(""), Err(Error::NamespaceNotFound { .. })));
    other.forget("n")?;
    assert!(matches!(elsewhere.recall::<i64>("n"), Err(Error::NamespaceNotFound { .. })));
    Ok(())
}

/// A view keeps the session that it belongs to, and asks in no other.
#[test]
fn a_view_stays_when_the_brain_leaves_the_store() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    brain.learn("stays", &1)?;
    brain.learn("changes", &1)?;
    let view = brain.view()?;
    brain.disconnect();
    brain.learn("changes", &2)?;
    assert_eq!((view.recall::<i64>("stays")?, view.recall::<i64>("changes")?), (1, 1));
    assert_eq!(view.names("")?, ["changes", "stays"]);
    drop(view);
    eventually("it has ended", || brain.views().expect("the store answers").is_empty());
    Ok(())
}

/// The same value, learned anew with another description, is another binding: also one that stands in the index.
#[test]
fn what_is_restored_has_the_texts_that_it_had() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let text = |text: &str| LearnOptions::new().description(text);
    let description = |name: &str| brain.metadata(name).map(|it| it.map(|it| it.description));
    brain.learn_with("small", &1, &text("before"))?;
    brain.learn_with("large", &vec![1_u8; 10_000], &text("before"))?;
    brain.learn_with("copied", &vec![1_u8; 10_000], &text("before"))?;
    brain.snapshot("s")?;
    brain.learn_with("small", &1, &text("after"))?;
    brain.learn_with("large", &vec![1_u8; 10_000], &text("after"))?;
    brain.learn_with("other", &1, &text("after"))?;
    brain.copy("copied", "kept")?;
    brain.learn_with("copied", &1, &text("after"))?;
    brain.copy("kept", "copied")?;
    brain.restore_snapshot("s")?;
    for name in ["small", "large", "copied"] {
        assert_eq!(description(name)?.as_deref(), Some("before"), "{name}");
    }
    assert_eq!(brain.diff("s", None)?, plasmon::Diff::default());
    Ok(())
}

//! Time to live: what has expired is absent for everybody at one moment, whether or not the daemon has got to it, and its
//! memory comes back by itself.

use crate::{PLASMON, STORE};
use nix::{
    sys::signal::Signal,
    time::{ClockId, clock_gettime},
};
use plasmon::{Blob, Brain, Error, LearnOptions, NamespaceOptions, Object};
use plasmon_tests::{TestResult, daemon::Daemon, eventually};
use std::{process::Command, time::Duration};

fn connect(daemon: &Daemon) -> Brain {
    Brain::builder().path(daemon.socket()).connect().expect("the store answers")
}

fn ttl(ms: u64) -> LearnOptions {
    LearnOptions::new().ttl(Duration::from_millis(ms))
}

/// The clock by which bindings expire.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).expect("there is such a clock").into()
}

/// Invariant 3: a name is bound or it is not, whoever is asked, and by whatever way.
#[test]
fn what_has_expired_is_absent_by_every_way_of_looking() -> TestResult {
    let daemon = Daemon::start(STORE, "64MiB");
    let (brain, other) = (connect(&daemon), connect(&daemon).in_namespace("other")?);
    let big = vec![7_u8; 100_000];
    for round in 0..20 {
        let described = ttl(30).description("of the first").metadata(serde_json::json!({ "a": 1 }));
        let version = brain.learn_with("a", &big, &described)?;
        other.learn_with("kept", &round, &LearnOptions::new())?;
        eventually("it has expired", || !brain.exists("a").expect("the store answers"));
        // Each round one of them is the first to look.
        for look in 0..10 {
            match (look + round) % 10 {
                0 => assert!(brain.recall::<Blob>("a").unwrap_err().is_not_found()),
                1 => assert!(brain.recall_many(&["a"])?[0].is_none()),
                2 => assert_eq!(brain.names("")?, [""; 0]),
                3 => assert_eq!(brain.len()?, 0),
                4 => assert_eq!(brain.list_all("")?.iter().map(|it| &*it.name).collect::<Vec<_>>(), ["kept"]),
                5 => assert_eq!(brain.metadata("a")?, None),
                6 => assert!(!brain.forget("a")?),
                7 => {
                    let refused = brain.learn_with("a", &1, &LearnOptions::new().if_version(version));
                    assert!(
                        matches!(refused, Err(Error::ConditionFailed { found: None, .. })),
                        "{refused:?}"
                    );
                }
                8 => {
                    let waited = brain.wait("a", 0, Duration::ZERO);
                    assert!(matches!(waited, Err(Error::WaitTimeout { .. })), "{waited:?}");
                }
                _ => {
                    let stats = brain.stats()?;
                    assert_eq!(stats.objects, 1);
                }
            }
        }
        // The name is new: it keeps nothing of the binding before.
        brain.learn_with("a", &1, &LearnOptions::new().if_absent())?;
        let found = brain.metadata("a")?.ok_or("it is bound")?;
        assert_eq!(
            (found.description.as_str(), &found.metadata, found.ttl),
            ("", &serde_json::Value::Null, None)
        );
        assert!(brain.forget("a")?);
    }
    assert!(other.exists("kept")?);
    Ok(())
}

/// Nobody has to unbind a binding for it to be gone: the reader goes by the clock, to the nanosecond.
#[test]
fn expiry_is_exact_while_the_daemon_stands_still() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let lifetime = Duration::from_millis(700);
    let before = now();
    brain.learn_with("small", &1, &LearnOptions::new().ttl(lifetime))?;
    brain.learn_with("large", &vec![1_u8; 100_000], &LearnOptions::new().ttl(lifetime))?;
    let after = now();
    daemon.signal(Signal::SIGSTOP);
    let (mut seen, mut held) = (0, None);
    loop {
        let (from, small, large) = (now(), brain.recall::<i64>("small"), brain.recall::<Blob>("large"));
        let many = brain.recall_many(&["small", "large"])?;
        let to = now();
        if from >= after + lifetime {
            assert!(small.unwrap_err().is_not_found() && large.unwrap_err().is_not_found());
            assert!(many.iter().all(Option::is_none) && !brain.exists("small")?);
            break;
        }
        if to < before + lifetime {
            assert_eq!(small?, 1);
            held = Some(large?);
            assert!(many.iter().all(Option::is_some));
            seen += 1;
        }
    }
    assert!(seen > 0, "the daemon was stopped before they expired");
    assert!(held.is_some_and(|held| held.iter().all(|&byte| byte == 1)), "what is held stays");
    daemon.signal(Signal::SIGCONT);
    assert_eq!(brain.stats()?.used_bytes, 0);
    Ok(())
}

/// Invariants 2 and 6: who holds a value keeps it, and its memory is free when nobody does.
#[test]
fn the_memory_of_what_has_expired_comes_back_by_itself() -> TestResult {
    let daemon = Daemon::start(STORE, "64MiB");
    let brain = connect(&daemon);
    let values = vec![7_u8; 1 << 20];
    for name in 0..20 {
        brain.learn_with(&name.to_string(), &values, &ttl(300))?;
    }
    let held: Blob = brain.recall("0")?;
    let used = brain.stats()?.used_bytes;
    assert!(used >= 20 << 20 || brain.stats()?.expired > 0, "{used}");
    eventually("all are gone but the one that is held", || {
        let stats = brain.stats().expect("the store answers");
        stats.expired == 20 && stats.limbo_bytes == stats.used_bytes
    });
    assert!(held.iter().all(|&byte| byte == 7));
    assert!(brain.stats()?.limbo_bytes > 1 << 20);
    drop(held);
    eventually("that as well", || brain.stats().expect("the store answers").used_bytes == 0);
    // A store that is full only of what has expired has room.
    let value = vec![7_u8; 40 << 20];
    brain.learn_with("most", &value, &ttl(50))?;
    eventually("it has expired", || !brain.exists("most").expect("the store answers"));
    brain.learn("most", &value)?;
    Ok(())
}

#[test]
fn a_namespace_says_how_long_its_names_live_until_it_is_removed() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon).in_namespace("declared")?;
    let hour = Duration::from_secs(3_600);
    let ttl_of = |name: &str| brain.metadata(name).map(|found| found.and_then(|found| found.ttl));
    brain.learn("before", &1)?;
    brain.declare(&NamespaceOptions::new().ttl(hour))?;
    brain.learn("after", &1)?;
    brain.learn_with("own", &1, &LearnOptions::new().ttl(hour * 2))?;
    brain.learn_with("endless", &1, &LearnOptions::new().ttl(Duration::MAX))?;
    assert_eq!(ttl_of("before")?, None);
    assert_eq!(ttl_of("after")?, Some(hour));
    assert_eq!(ttl_of("own")?, Some(hour * 2));
    assert_eq!(ttl_of("endless")?, None);
    let expires = brain.metadata("after")?.and_then(|found| found.expires).ok_or("it expires")?;
    let left = expires.duration_since(std::time::SystemTime::now())?;
    assert!(left <= hour && left > hour - Duration::from_secs(60), "{left:?}");
    // Rebinding replaces value and time to live.
    brain.learn("own", &2)?;
    assert_eq!(ttl_of("own")?, Some(hour));
    brain.clear()?;
    brain.learn("cleared", &1)?;
    assert_eq!(ttl_of("cleared")?, Some(hour));
    let info =
        brain.namespaces()?.into_iter().find(|info| *info.namespace == *"declared").ok_or("it is there")?;
    assert_eq!(info.ttl.map(|ttl| (ttl.ttl_ns, ttl.is_sliding)), Some((3_600_000_000_000, false)));
    brain.remove_namespace()?;
    brain.learn("removed", &1)?;
    assert_eq!(ttl_of("removed")?, None);
    let refused = brain.learn_with("zero", &1, &LearnOptions::new().ttl(Duration::ZERO));
    assert!(matches!(refused, Err(Error::NoTimeToLive)), "{refused:?}");
    Ok(())
}

/// A name that is recalled lives on, however long; one that is not goes.
#[test]
fn a_sliding_time_to_live_begins_anew_with_every_recall() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let lifetime = Duration::from_millis(100);
    let sliding = LearnOptions::new().sliding_ttl(lifetime);
    brain.learn_with("used", &1, &sliding)?;
    brain.learn_with("unused", &1, &sliding)?;
    let (began, mut last) = (now(), now());
    // Several times as long as a binding lives that nobody recalls.
    while brain.exists("unused")? || now() < began + Duration::from_secs(7) {
        last = now();
        assert_eq!(brain.recall::<i64>("used")?, 1);
    }
    let found = brain.metadata("used")?.ok_or("it is bound")?;
    assert_eq!((found.ttl, found.is_sliding), (Some(lifetime), true));
    eventually("nobody has recalled it for long enough", || {
        !brain.exists("used").expect("the store answers")
    });
    assert!(now() >= last + lifetime, "never earlier than promised");
    Ok(())
}

/// Rebinding replaces value and time to live.
#[test]
fn rebinding_forgets_the_deadline_before() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let mut version = 0;
    for _ in 0..200 {
        brain.learn_with("a", &1, &ttl(20))?;
        version = brain.learn("a", &2)?;
    }
    brain.learn_with("b", &1, &ttl(40))?;
    eventually("another has expired that was bound later", || !brain.exists("b").expect("the store answers"));
    assert_eq!(brain.recall::<Object>("a")?.version(), version);
    Ok(())
}

/// The store's clock counts, whatever this process's shows. Needs a kernel that lets this user make namespaces.
#[test]
fn a_client_in_another_time_namespace_goes_by_the_stores_clock() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let socket = daemon.socket().to_str().ok_or("a path of text")?;
    let there = |arguments: &[&str]| {
        let unshare = ["--time", "--boottime", "1000000000", "--fork", PLASMON, "--socket", socket];
        let output = Command::new("unshare").args(unshare).args(arguments).output();
        output.map(|output| (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    match there(&["ping"]) {
        Ok((Some(0), _)) => {}
        refused => {
            eprintln!("not tried: no time namespace can be made here: {refused:?}");
            return Ok(());
        }
    }
    brain.learn_with("lasting", &1, &LearnOptions::new().ttl(Duration::from_secs(3_600)))?;
    // By its own clock, which is thirty years ahead, that would be long gone.
    assert_eq!(there(&["get", "lasting"])?, (Some(0), String::new()));
    assert_eq!(
        there(&["put", "theirs", "/dev/null", "--format", "raw", "--ttl", "1h"])?,
        (Some(0), String::new())
    );
    assert_eq!(brain.recall::<Blob>("theirs")?.len(), 0);
    Ok(())
}

/// A counter is one thing for as long as it lives: what replaces its value does not begin its time anew.
#[test]
fn what_replaces_a_value_may_keep_its_deadline() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon);
    let keep = || LearnOptions::new().keep_ttl();
    let lifetime = Duration::from_secs(1_000);
    let deadline = |name: &str| -> Result<_, Error> {
        Ok(brain.metadata(name)?.map(|it| (it.ttl, it.is_sliding, it.expires.is_some())))
    };
    brain.learn_with("hits", &1, &LearnOptions::new().ttl(lifetime))?;
    brain.learn_with("sliding", &1, &LearnOptions::new().sliding_ttl(lifetime))?;
    brain.learn("for ever", &1)?;
    for name in ["hits", "sliding", "for ever"] {
        let before = deadline(name)?;
        brain.learn_with(name, &2, &keep().ttl(Duration::from_secs(5)))?;
        assert_eq!((deadline(name)?, brain.recall::<i64>(name)?), (before, 2), "{name}");
    }
    // To the nanosecond: it goes when the first one would have gone.
    let before = now();
    brain.learn_with("short", &0, &ttl(500))?;
    let after = now();
    let mut number = 0;
    while brain.exists("short")? {
        number += 1;
        if brain.learn_with("short", &number, &keep()).is_ok() && now() > after + Duration::from_millis(500) {
            break; // it was gone, and this is another one
        }
    }
    assert!(now() >= before + Duration::from_millis(500) && number > 0);
    brain.forget("short")?;
    // A name that is not bound, or has expired, has none to keep.
    brain.learn_with("new", &1, &keep().ttl(lifetime))?;
    assert_eq!(deadline("new")?, Some((Some(lifetime), false, true)));
    brain.learn_with("gone", &1, &ttl(20))?;
    eventually("it has expired", || !brain.exists("gone").expect("the store answers"));
    brain.learn_with("gone", &2, &keep())?;
    assert_eq!(deadline("gone")?, Some((None, false, false)));
    Ok(())
}

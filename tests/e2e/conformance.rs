//! What every store does, however its memory is made and claimed.

use crate::{CLIENT, STORE};
use plasmon::{Blob, Brain, Error, Kind, LearnOptions, Metadata, Object, Table, TensorView};
use plasmon_tests::{
    TestResult,
    client::Client,
    daemon::Daemon,
    samples,
    worker::{fill_of, words},
};
use std::{collections::BTreeSet, time::SystemTime};

fn connect(daemon: &Daemon) -> plasmon::Result<Brain> {
    Brain::builder().path(daemon.socket()).connect()
}

#[test]
fn a_store_of_memfds_conforms() -> TestResult {
    for reserve in ["now", "background", "lazy"] {
        conforms("memfd", reserve)?;
    }
    Ok(())
}

#[test]
fn a_store_of_named_segments_conforms() -> TestResult {
    for reserve in ["now", "background", "lazy"] {
        conforms("named", reserve)?;
    }
    Ok(())
}

fn conforms(arena: &str, reserve: &str) -> TestResult {
    eprintln!("--arena {arena} --reserve {reserve}");
    let daemon = Daemon::start_with(STORE, &["--size", "64MiB", "--arena", arena, "--reserve", reserve]);
    let brain = connect(&daemon)?;
    for check in [every_kind, wrong_kinds, copies_on_write, names_and_namespaces, descriptions, listings] {
        check(&brain)?;
        let stats = brain.stats()?;
        let left = (stats.objects, stats.used_bytes, stats.limbo_bytes, stats.pins, stats.namespaces);
        assert_eq!(left, (0, 0, 0, 0, 1));
        assert_eq!((stats.orphaned_sessions, stats.refused, stats.waits), (0, 0, 0));
    }
    Ok(())
}

/// Invariants 4 and 8: every kind and size, in this process and in another.
fn every_kind(brain: &Brain) -> TestResult {
    samples::learn(brain)?;
    samples::check(brain)?;
    let mut other = Client::start(CLIENT, brain.path());
    other.ask("check-samples");
    drop(other);
    plasmon_tests::eventually("its session has ended", || {
        brain.stats().is_ok_and(|stats| stats.sessions == 1)
    });
    let names = brain.names("")?;
    // Everything once more: rebinding leaves nothing behind.
    samples::learn(brain)?;
    assert_eq!(brain.names("")?, names);
    for (number, name) in names.iter().enumerate() {
        assert!(brain.exists(name)? && brain.forget(name)?, "{name}");
        assert!(!brain.exists(name)? && !brain.forget(name)?, "{name}");
        let gone = brain.recall::<Object>(name);
        assert!(matches!(&gone, Err(Error::NameNotFound { name: asked, .. }) if asked == name), "{gone:?}");
        assert_eq!(brain.stats()?.objects, (names.len() - number - 1) as u64);
    }
    Ok(())
}

fn wrong_kinds(brain: &Brain) -> TestResult {
    brain.learn("integer", &7)?;
    brain.learn("float", &7.0)?;
    brain.learn("text", "seven")?;
    brain.learn("bytes", &words(100_000, 7))?;
    brain.learn("null", &())?;
    brain.learn("json", &serde_json::json!({}))?;
    let refused = [
        ("integer", Kind::INT64, brain.recall::<f64>("integer").map(drop)),
        ("float", Kind::FLOAT64, brain.recall::<i64>("float").map(drop)),
        ("text", Kind::TEXT, brain.recall::<Blob>("text").map(drop)),
        ("bytes", Kind::BYTES, brain.recall::<String>("bytes").map(drop)),
        ("bytes", Kind::BYTES, brain.recall::<Table>("bytes").map(drop)),
        ("null", Kind::NULL, brain.recall::<bool>("null").map(drop)),
        ("json", Kind::JSON, brain.recall::<()>("json").map(drop)),
        ("json", Kind::JSON, brain.recall::<TensorView>("json").map(drop)),
        ("text", Kind::TEXT, brain.recall::<serde_json::Value>("text").map(drop)),
    ];
    for (asked, kind, refused) in refused {
        let Err(error) = refused else { panic!("{asked} was recalled as what it is not") };
        let text = error.to_string();
        assert!(text.contains(&format!("{asked:?}")) && text.contains(&kind.to_string()), "{text}");
        let Error::WrongKind { name, namespace, found, .. } = error else { panic!("{text}") };
        assert_eq!((name.as_str(), namespace.as_str(), found), (asked, "default", kind));
    }
    brain.clear()?;
    Ok(())
}

/// What is written to an object's copy-on-write bytes, nobody else sees; and they hold the object.
fn copies_on_write(brain: &Brain) -> TestResult {
    brain.learn("small", &7)?;
    assert!(brain.recall::<Object>("small")?.copy_on_write()?.is_none());
    brain.forget("small")?;

    brain.learn("bytes", &words(1_000_000, 7))?;
    let object: Object = brain.recall("bytes")?;
    let learned = object.as_ipc()?.into_owned();
    let range = object.range_of(&object.to::<Blob>()?.into_buffer()).ok_or("it was copied")?;
    let (mut one, other) = (object.copy_on_write()?.ok_or("none")?, object.copy_on_write()?.ok_or("none")?);
    drop(object);
    one[range.clone()].fill(1);
    assert!(one[range.clone()].iter().all(|&byte| byte == 1) && one[..range.start] == learned[..range.start]);
    assert_eq!(fill_of(&brain.recall::<Blob>("bytes")?), Some(7));

    // Forgotten, the pages that nobody has written stay what they were, whoever learns meanwhile.
    brain.forget("bytes")?;
    drop(one);
    for number in 0..100 {
        brain.learn("others", &words(1_000_000, number))?;
    }
    assert_eq!((brain.stats()?.pins, &other[..]), (1, &learned[..]));
    drop(other);
    brain.forget("others")?;
    Ok(())
}

fn names_and_namespaces(brain: &Brain) -> TestResult {
    // Names: anything of 1 to 1,024 bytes, compared exactly.
    let (longest, too_long) = ("ü".repeat(512), "x".repeat(1_025));
    for (number, name) in ["a", "A", "\0", " ", "a/b\n", "🦀", longest.as_str()].into_iter().enumerate() {
        brain.learn(name, &i64::try_from(number)?)?;
    }
    assert_eq!(brain.recall::<i64>("A")?, 1);
    assert_eq!(brain.recall::<i64>(&longest)?, 6);
    assert_eq!(brain.len()?, 7);
    for bad in ["", too_long.as_str()] {
        let refused = [
            brain.learn(bad, &1).map(drop),
            brain.recall::<i64>(bad).map(drop),
            brain.forget(bad).map(drop),
            brain.exists(bad).map(drop),
            brain.metadata(bad).map(drop),
            brain.create(bad, 100_000).map(drop),
            brain.recall_many(&["a", bad]).map(drop),
        ];
        assert!(refused.iter().all(|refused| matches!(refused, Err(Error::BadName(_)))), "{refused:?}");
    }

    // Namespaces: 5 to 64 characters of an alphabet; the same name in each.
    for bad in ["", "four", &"x".repeat(65), "with space", "with/slash", "ünder"] {
        let refused = brain.in_namespace(bad).map(drop);
        assert!(matches!(refused, Err(Error::BadName(_))), "{bad:?}: {refused:?}");
        let refused = Brain::builder().path(brain.path()).namespace(bad).connect().map(drop);
        assert!(matches!(refused, Err(Error::BadName(_))), "{bad:?}: {refused:?}");
    }
    let longest = "n".repeat(64);
    let inside: Result<Vec<Brain>, _> =
        ["five5", "Five5", longest.as_str()].iter().map(|name| brain.in_namespace(name)).collect();
    let inside = inside?;
    for (number, one) in inside.iter().enumerate() {
        assert!(matches!(one.recall::<i64>("a"), Err(Error::NameNotFound { .. })));
        assert!(one.is_empty()? && !one.forget("a")?);
        assert!(matches!(one.names(""), Err(Error::NamespaceNotFound { .. })), "{:?}", one.namespace());
        assert!(matches!(one.remove_namespace(), Err(Error::NamespaceNotFound { .. })));
        one.learn("a", &(100 + i64::try_from(number)?))?;
        one.learn("b", &words(70_000, 1))?;
    }
    for (number, one) in inside.iter().enumerate() {
        assert_eq!((one.recall::<i64>("a")?, one.len()?), (100 + i64::try_from(number)?, 2));
    }
    assert_eq!(brain.recall::<i64>("a")?, 0);
    let listed: Vec<(String, u64)> =
        brain.namespaces()?.into_iter().map(|info| (info.namespace.to_string(), info.names)).collect();
    let wanted = [("Five5", 2), ("default", 7), ("five5", 2), (longest.as_str(), 2)];
    assert_eq!(listed, wanted.map(|(name, count)| (name.to_owned(), count)));

    // Removed, it is gone; learned in again, it is back. The default one can only be cleared.
    assert_eq!(inside[0].remove_namespace()?, 2);
    assert!(matches!(inside[0].recall::<i64>("a"), Err(Error::NameNotFound { .. })));
    inside[0].learn("a", &5)?;
    assert_eq!((inside[0].names("")?, inside[0].clear()?), (vec!["a".to_owned()], 1));
    assert_eq!((inside[0].names("")?.len(), inside[0].remove_namespace()?), (0, 0));
    assert!(matches!(brain.remove_namespace(), Err(Error::DefaultNamespace)));
    assert_eq!(inside[1].recall::<i64>("a")?, 101);
    for one in &inside[1..] {
        one.remove_namespace()?;
    }
    assert_eq!(brain.clear()?, 7);
    Ok(())
}

/// What goes with a value: kept where nothing is said, cleared by what is empty, gone with the name.
fn descriptions(brain: &Brain) -> TestResult {
    let described = |name: &str| -> plasmon::Result<(String, serde_json::Value)> {
        let metadata = brain.metadata(name)?.expect("it is bound");
        Ok((metadata.description, metadata.metadata))
    };
    let unit = serde_json::json!({"unit": "€", "scale": [1, 2.5, null]});
    let long = "x".repeat(64 << 10);
    let start = SystemTime::now();
    let first = brain.learn_with(
        "rate",
        &1.5,
        &LearnOptions::new().description("per hour").metadata(unit.clone()),
    )?;
    let metadata: Metadata = brain.metadata("rate")?.expect("it is bound");
    assert_eq!((metadata.name.as_str(), metadata.namespace.as_str()), ("rate", "default"));
    assert_eq!((metadata.version, metadata.kind), (first, Kind::FLOAT64));
    assert_eq!(metadata.len_bytes, brain.recall::<Object>("rate")?.len_bytes());
    assert_eq!((metadata.writer_pid, metadata.writer_uid), (std::process::id(), brain.uid()?));
    assert!(metadata.created >= start && metadata.created <= SystemTime::now());
    assert_eq!(described("rate")?, ("per hour".to_owned(), unit.clone()));

    let second = brain.learn("rate", &2.5)?;
    assert!(second > first);
    assert_eq!(described("rate")?, ("per hour".to_owned(), unit.clone()));
    assert_ne!(brain.metadata("rate")?.expect("it is bound").object_id, metadata.object_id);
    brain.learn_with("rate", &3.5, &LearnOptions::new().description(long.clone()))?;
    assert_eq!(described("rate")?, (long.clone(), unit));
    brain.learn_with("rate", &4.5, &LearnOptions::new().description(""))?;
    assert_eq!(described("rate")?.0, "");
    brain.learn_with("rate", &5.5, &LearnOptions::new().metadata(serde_json::json!({})))?;
    assert_eq!(described("rate")?, (String::new(), serde_json::Value::Null));

    let refused = brain.learn_with("rate", &0.0, &LearnOptions::new().description(long.clone() + "x"));
    assert!(matches!(refused, Err(Error::TooLarge { found_bytes: 65_537, .. })), "{refused:?}");
    let refused =
        brain.learn_with("rate", &0.0, &LearnOptions::new().metadata(serde_json::json!({ "x": long })));
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    let refused = brain.learn_with("rate", &0.0, &LearnOptions::new().metadata(serde_json::json!([1])));
    assert!(matches!(refused, Err(Error::MetadataNotAnObject { .. })), "{refused:?}");
    assert_eq!(brain.recall::<f64>("rate")?, 5.5);

    // A name that comes back begins anew, with a version of its own.
    brain.learn_with("rate", &6.5, &LearnOptions::new().description("old"))?;
    let last = brain.metadata("rate")?.expect("it is bound").version;
    assert!(brain.forget("rate")? && brain.metadata("rate")?.is_none());
    assert!(brain.learn("rate", &7.5)? > last);
    assert_eq!(described("rate")?.0, "");
    assert!(matches!(
        brain.forget_if_version("rate", last),
        Err(Error::ConditionFailed { found: Some(_), .. })
    ));
    brain.forget("rate")?;
    Ok(())
}

/// More names than fit one page.
fn listings(brain: &Brain) -> TestResult {
    let mut wanted = BTreeSet::new();
    let (mut batch, other) = (brain.batch()?, brain.in_namespace("other-names")?);
    for number in 0..9_000_i64 {
        // In no order, and so that the borders of pages fall between all kinds of names.
        let name =
            format!("{}{}", ["row/", "column ", "ü"][usize::try_from(number)? % 3], number * 7_919 % 9_001);
        batch = batch.learn(&name, &number)?;
        wanted.insert(name);
    }
    batch.commit()?;
    other.learn("row/other", &1)?;
    let names = brain.names("")?;
    assert!(names.is_sorted(), "by their bytes");
    assert_eq!(names, wanted.iter().cloned().collect::<Vec<_>>());
    for prefix in ["row/", "row/1", "ü", "column 8999", "none", "rox", "\u{10ffff}"] {
        let wanted: Vec<_> = wanted.iter().filter(|name| name.starts_with(prefix)).cloned().collect();
        assert_eq!(brain.names(prefix)?, wanted, "{prefix}");
    }
    assert_eq!(brain.len()?, 9_000);
    let all = brain.list_all("row/")?;
    assert_eq!(all.len(), brain.names("row/")?.len() + 1);
    let last = all.last().expect("there are some");
    assert_eq!((last.namespace.as_str(), last.name.as_str()), ("other-names", "row/other"));
    let sum: i64 = brain.list("")?.iter().map(|found| brain.recall::<i64>(&found.name).unwrap_or(-1)).sum();
    assert_eq!(sum, 9_000 * 8_999 / 2);
    assert_eq!((brain.clear()?, other.remove_namespace()?), (9_000, 1));
    Ok(())
}

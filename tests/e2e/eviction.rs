//! Cache namespaces: what was used least recently gives way when room is short, as much as is needed and nothing else.

use crate::STORE;
use plasmon::{Blob, Brain, Error, NamespaceOptions};
use plasmon_tests::{TestResult, daemon::Daemon, eventually};
use std::time::Duration;

const MIB: usize = 1 << 20;

fn cache(daemon: &Daemon) -> Result<Brain, Error> {
    let cache = Brain::builder().path(daemon.socket()).namespace("a-cache").connect()?;
    cache.declare(&NamespaceOptions::new().cache())?;
    Ok(cache)
}

fn value(number: usize) -> Vec<u8> {
    vec![u8::try_from(number % 251).expect("it is small"); MIB - 4096]
}

/// Learns `0`, `1`, … until the first one has given way; returns how many there are.
fn fill(cache: &Brain) -> Result<usize, Error> {
    for number in 0.. {
        cache.learn(&number.to_string(), &value(number))?;
        if cache.stats()?.evicted > 0 {
            return Ok(number);
        }
    }
    unreachable!("no store is that large")
}

/// Invariant 6: a store full of what may go has room, and what goes was used least recently.
#[test]
fn what_was_recalled_least_recently_gives_way() -> TestResult {
    let daemon = Daemon::start(STORE, "64MiB");
    let cache = cache(&daemon)?;
    let last = fill(&cache)?;
    assert!(last > 55, "most of the store held values: {last}");
    assert!(!cache.exists("0")? && cache.exists("1")?, "the oldest went");
    assert_eq!((cache.stats()?.evicted, cache.len()?), (1, last as u64));
    // Now 1, 3 and 4 are used, and the next three of those that were not go.
    for name in ["3", "1", "4"] {
        drop(cache.recall::<Blob>(name)?);
    }
    for number in 0..3 {
        cache.learn(&format!("new {number}"), &value(number))?;
    }
    let stats = cache.stats()?;
    assert_eq!(stats.evicted, 4);
    assert!(stats.evicted_bytes > 4 * (MIB as u64 - 8_192) && stats.evicted_bytes < 4 * MIB as u64);
    for (name, stays) in
        [("1", true), ("2", false), ("3", true), ("4", true), ("5", false), ("6", false), ("7", true)]
    {
        assert_eq!(cache.exists(name)?, stays, "{name}");
    }
    for number in 7..=last {
        assert!(*cache.recall::<Blob>(&number.to_string())? == *value(number), "{number} is whole");
    }
    cache.clear()?;
    eventually("all of it is free", || {
        let stats = cache.stats().expect("the store answers");
        (stats.used_bytes, stats.cached_bytes) == (0, 0)
    });
    Ok(())
}

/// Invariants 2 and 6: what somebody holds stays, whatever its namespace, and so does all that is not in a cache.
#[test]
fn what_is_held_and_what_is_in_other_namespaces_never_gives_way() -> TestResult {
    let daemon = Daemon::start(STORE, "64MiB");
    let cache = cache(&daemon)?;
    let (holder, plain) = (cache.clone(), cache.in_namespace("default")?);
    plain.learn("kept", &vec![1_u8; 20 * MIB])?;
    let last = fill(&cache)?;
    let held: Vec<Blob> =
        (1..last).map(|number| holder.recall(&number.to_string())).collect::<Result<_, _>>()?;
    // The only one that nobody holds, though it was learned last.
    cache.learn("new", &value(200))?;
    assert!(!cache.exists(&last.to_string())?);
    let new: Blob = cache.recall("new")?;
    let evicted = cache.stats()?.evicted;
    let full = cache.learn("one more", &value(201)).unwrap_err();
    let Error::StoreFull(room) = full else { panic!("{full:?}") };
    assert!(room.cached_bytes > 30 * MIB as u64 && room.to_string().contains("cache"), "{room}");
    assert_eq!(cache.stats()?.evicted, evicted, "nothing goes that makes no room");
    assert!((1..last).all(|number| cache.exists(&number.to_string()).expect("the store answers")));
    assert!((1..).zip(&held).all(|(number, held)| **held == *value(number)));
    drop((held, new));
    // All of the cache, and what is not in it stays.
    let used = 64 * MIB - 21 * MIB;
    cache.learn("large", &vec![7_u8; used])?;
    assert_eq!((cache.len()?, plain.recall::<Blob>("kept")?.len()), (1, 20 * MIB));
    // Not even all of it would do.
    let evicted = cache.stats()?.evicted;
    let full = plain.learn("too large", &vec![7_u8; 50 * MIB]);
    assert!(matches!(full, Err(Error::StoreFull(_))), "{full:?}");
    assert!(cache.exists("large")? && cache.stats()?.evicted == evicted);
    // What is no cache any more keeps what it has.
    cache.declare(&NamespaceOptions::new())?;
    let full = plain.learn("other", &vec![7_u8; 5 * MIB]);
    assert!(matches!(&full, Err(Error::StoreFull(room)) if room.cached_bytes == 0), "{full:?}");
    // And what becomes one gives up what it had before.
    cache.declare(&NamespaceOptions::new().cache())?;
    plain.learn("other", &vec![7_u8; 5 * MIB])?;
    assert!(!cache.exists("large")?);
    Ok(())
}

/// Values of every size, in batches too, by message and in place; and one large one among many small ones.
#[test]
fn a_full_cache_takes_values_of_every_size() -> TestResult {
    let daemon = Daemon::start_with(STORE, &["--size", "16MiB", "--max-objects", "100000"]);
    let cache = cache(&daemon)?;
    cache.learn("in the index", &1)?;
    for number in 0..12_000 {
        cache.learn(&format!("small {number}"), &vec![1_u8; 1_000])?;
    }
    let stats = cache.stats()?;
    assert!(stats.evicted > 500 && stats.objects + stats.evicted == 12_001, "{stats:?}");
    assert!(cache.exists("small 11999")? && !cache.exists("small 0")?);
    assert!(cache.exists("in the index")?, "no room would come of it");
    for round in 0..20 {
        let mut batch = cache.batch()?;
        for number in 0..100 {
            batch = batch.learn(&format!("batch {round} {number}"), &vec![2_u8; 700])?;
        }
        batch.commit()?;
    }
    let before = cache.stats()?;
    cache.learn("large", &vec![3_u8; 4 * MIB])?;
    let after = cache.stats()?;
    let bytes = after.evicted_bytes - before.evicted_bytes;
    assert!(bytes < 5 * MIB as u64, "no more than it needs: {bytes}");
    assert!(cache.exists("batch 19 99")?, "the oldest went");
    let mut written = cache.create("in place", 3 * MIB as u64)?;
    written.fill(9);
    written.seal()?;
    assert!(cache.recall::<Blob>("in place")?.iter().all(|&byte| byte == 9));
    assert!(cache.recall::<Blob>("large")?.iter().all(|&byte| byte == 3));
    cache.clear()?;
    eventually("all of it is free", || cache.stats().expect("the store answers").used_bytes == 0);
    Ok(())
}

/// Entries of the index are room, too.
#[test]
fn a_cache_of_as_many_names_as_there_can_be_takes_more() -> TestResult {
    const NAMES: u64 = 1_000;
    let daemon = Daemon::start_with(STORE, &["--size", "16MiB", "--max-objects", "1000"]);
    let cache = cache(&daemon)?;
    let plain = cache.in_namespace("default")?;
    for number in 0..10 {
        plain.learn(&number.to_string(), &number)?;
    }
    for number in 0..2_000 {
        cache.learn(&number.to_string(), &number)?;
    }
    let stats = cache.stats()?;
    assert_eq!((stats.objects, stats.evicted), (NAMES, 1_010));
    assert!(cache.exists("1999")? && cache.exists("1010")? && !cache.exists("1009")?);
    // A batch that needs as many as there are; and one that needs more, for which nothing goes.
    let batch = |from: u64, count: u64| -> Result<u64, Error> {
        let mut batch = cache.batch()?;
        for number in from..from + count {
            batch = batch.learn(&number.to_string(), &1)?;
        }
        batch.commit()
    };
    batch(10_000, NAMES - 10)?;
    assert_eq!((cache.len()?, plain.len()?), (NAMES - 10, 10));
    let evicted = cache.stats()?.evicted;
    let refused = batch(20_000, NAMES);
    assert!(matches!(refused, Err(Error::IndexFull { .. })), "{refused:?}");
    assert_eq!((cache.len()?, cache.stats()?.evicted), (NAMES - 10, evicted));
    Ok(())
}

/// Invariants 2 and 6, under load: every learn finds room, what is held stays whole and bound, and all of it comes back.
#[test]
fn many_writers_share_a_full_cache() -> TestResult {
    const ROUNDS: usize = 400;
    let daemon = Daemon::start_with(STORE, &["--size", "32MiB", "--max-objects", "100000"]);
    let cache = cache(&daemon)?;
    let plain = cache.in_namespace("default")?;
    plain.learn("kept", &vec![1_u8; MIB])?;
    for number in 0..8 {
        cache.learn(&format!("held {number}"), &vec![7_u8; 100_000])?;
    }
    let held: Vec<Blob> =
        (0..8).map(|number| cache.recall(&format!("held {number}"))).collect::<Result<_, _>>()?;
    std::thread::scope(|scope| {
        for thread in 0..3 {
            // A session of its own would be another process; the store does not care.
            let cache = cache.clone();
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let len = [300, 5_000, 70_000, 400_000, 2 * MIB][(round * 7 + thread) % 5];
                    let name = format!("{thread} {round}");
                    cache
                        .learn(&name, &vec![u8::try_from(round % 251).expect("it is small"); len])
                        .expect("there is room");
                    if let Ok(value) = cache.recall::<Blob>(&name) {
                        assert!(
                            value.len() == len && value.iter().all(|&byte| usize::from(byte) == round % 251)
                        );
                    }
                }
            });
        }
    });
    assert!(cache.stats()?.evicted > 100);
    for (number, value) in held.iter().enumerate() {
        assert!(cache.exists(&format!("held {number}"))?);
        assert!(value.iter().all(|&byte| byte == 7));
    }
    assert_eq!(plain.recall::<Blob>("kept")?.len(), MIB);
    drop(held);
    cache.clear()?;
    plain.clear()?;
    eventually("all of it is free", || cache.stats().expect("the store answers").used_bytes == 0);
    Ok(())
}

/// Invariant 9. To choose among a hundred thousand takes many slices, and others are served meanwhile; one who waits for
/// room gets it once everything that was there before gives way, and not if that is not enough.
#[test]
fn a_hundred_thousand_cached_names_give_way_for_one() -> TestResult {
    const NAMES: usize = 100_000;
    let daemon = Daemon::start_with(STORE, &["--size", "128MiB", "--max-objects", "200000"]);
    let cache = cache(&daemon)?;
    let mut batch = cache.batch()?;
    for number in 0..NAMES {
        batch = batch.learn(&number.to_string(), "as long as it takes to stand in the arena")?;
    }
    batch.commit()?;
    let kept: Blob = {
        cache.learn("kept", &vec![1_u8; 8 * MIB])?;
        cache.recall("kept")?
    };
    let full = cache.learn("too large", &vec![7_u8; 121 * MIB]);
    assert!(matches!(full, Err(Error::StoreFull(_))), "{full:?}");
    assert_eq!((cache.stats()?.evicted, cache.len()?), (0, NAMES as u64 + 1), "none goes in vain");
    let before = cache.stats()?.free_bytes;
    cache.learn("large", &vec![7_u8; usize::try_from(before)? + 10 * MIB])?;
    let evicted = cache.stats()?.evicted;
    assert!(evicted > 5_000 && evicted < NAMES as u64, "{evicted}");
    assert!(cache.exists("kept")? && kept.len() == 8 * MIB);
    Ok(())
}

/// What the operator says of a namespace holds, whatever clients say of it or do with it.
#[test]
fn a_cache_of_the_operators_is_one_for_good() -> TestResult {
    let caches = ["--cache", "plain", "--cache", "timed=10m"];
    let daemon = Daemon::start_with(STORE, &[&["--size", "16MiB"][..], &caches].concat());
    let brain = Brain::builder().path(daemon.socket()).connect()?;
    let declared = |name: &str| {
        let all = brain.namespaces().expect("the store answers");
        let found = all.into_iter().find(|it| &*it.namespace == name)?;
        Some((found.is_cache, found.ttl.map(|ttl| Duration::from_nanos(ttl.ttl_ns))))
    };
    let ten_minutes = Some(Duration::from_secs(600));
    assert_eq!((declared("plain"), declared("timed")), (Some((true, None)), Some((true, ten_minutes))));
    for name in ["plain", "timed"] {
        let cache = brain.in_namespace(name)?;
        let standing = declared(name);
        cache.declare(&NamespaceOptions::new())?;
        assert_eq!(declared(name), standing);
        cache.declare(&NamespaceOptions::new().ttl(Duration::from_secs(5)))?;
        assert_eq!(declared(name), Some((true, Some(Duration::from_secs(5)))));
        cache.remove_namespace()?;
        assert_eq!(declared(name), None);
        for number in 0..40 {
            cache.learn(&number.to_string(), &vec![7_u8; MIB])?;
        }
        assert_eq!(declared(name), standing);
        assert_eq!(cache.metadata("39")?.and_then(|it| it.ttl), standing.and_then(|(_, ttl)| ttl));
    }
    assert!(brain.stats()?.evicted > 50);
    Ok(())
}

//! Where memory goes and that it comes back: capacity, full stores, leases, pins, very large objects.

use crate::{CLIENT, PLASMON, STORE};
use plasmon::{Blob, Brain, Error, LearnOptions, Object};
use plasmon_tests::{
    TestResult,
    bystander::is_as_before,
    client::Client,
    daemon::{Daemon, run},
    eventually,
    raw::RawSession,
    worker::{fill_of, words},
};

fn connect(daemon: &Daemon) -> plasmon::Result<Brain> {
    Brain::builder().path(daemon.socket()).connect()
}

/// Learns one object that takes up nearly all that is free, so that nothing may be lost or in pieces.
fn fill_at_once(brain: &Brain) -> TestResult {
    let free_bytes = brain.stats()?.free_bytes;
    brain.create("everything", free_bytes - (8 << 10))?.seal()?;
    brain.forget("everything")?;
    Ok(())
}

/// Invariant 6: all of the capacity is usable, again and again.
#[test]
fn used_is_what_it_was_after_100_000_objects_were_learned_and_forgotten() -> TestResult {
    const OBJECTS: usize = 100_000;
    const BATCH: usize = 1_000;
    let daemon = Daemon::start(STORE, "64MiB");
    let brain = connect(&daemon)?;
    let before = brain.stats()?;
    let bytes = words(1 << 20, 3);
    // Mostly small; one of 50 larger than what travels in a message, one of 1,000 a MiB.
    let len = |number: usize| match number {
        _ if number % 1_000 == 500 => 1 << 20,
        _ if number % 50 == 7 => 70_000 + number % 30_000,
        _ => number * 37 % 2_000,
    };
    let name = |number: usize| format!("object {number}");
    for first in (0..OBJECTS).step_by(BATCH) {
        let mut batch = brain.batch()?;
        for number in first..first + BATCH {
            batch = batch.learn(&name(number), &bytes[..len(number)])?;
        }
        // Two batches later, in another order: the holes are of all sizes.
        if let Some(old) = first.checked_sub(2 * BATCH) {
            for number in (old..old + BATCH).rev() {
                batch = batch.forget(&name(number))?;
            }
        }
        batch.commit()?;
    }
    assert_eq!(brain.stats()?.objects, 2_000);
    for number in [OBJECTS - 1, OBJECTS - BATCH - 500, OBJECTS - 500] {
        assert_eq!(*brain.recall::<Blob>(&name(number))?, bytes[..len(number)]);
    }
    brain.clear()?;
    let after = brain.stats()?;
    assert_eq!((after.used_bytes, after.limbo_bytes, after.objects), (before.used_bytes, 0, 0));
    assert_eq!(after.free_bytes, before.free_bytes);
    fill_at_once(&brain)
}

/// Plasma's users give sizes in decimal bytes and expect them to hold.
#[test]
fn a_store_of_50_000_000_bytes_takes_48_objects_of_1_000_000_and_says_what_is_full() -> TestResult {
    let daemon = Daemon::start(STORE, "50000000");
    let brain = connect(&daemon)?;
    let before = brain.stats()?;
    let mut taken = 0;
    let full = loop {
        match brain.learn(&format!("object {taken}"), &words(1_000_000, taken)) {
            Ok(_) => taken += 1,
            Err(Error::StoreFull(full)) => break full,
            Err(error) => return Err(error.into()),
        }
    };
    assert!(taken >= 48, "{taken} objects: {full}");
    let stats = brain.stats()?;
    assert!((1_000_000..1_010_000).contains(&full.requested_bytes), "{full}");
    assert_eq!((full.capacity_bytes, full.used_bytes), (50_000_000, stats.used_bytes));
    assert_eq!((full.free_bytes, full.limbo_bytes), (50_000_000 - full.used_bytes, 0));
    assert_eq!(full.largest_free_bytes, stats.largest_free_bytes);
    assert!(full.largest_free_bytes <= full.free_bytes && full.largest_free_bytes < full.requested_bytes);
    let text = Error::StoreFull(full.clone()).to_string();
    for number in
        [full.requested_bytes, full.used_bytes, full.free_bytes, full.largest_free_bytes, full.limbo_bytes]
    {
        assert!(
            text.contains(&format!("{number} bytes")) || text.contains(&format!("{number} of ")),
            "{text}"
        );
    }
    assert!(text.contains("--size"), "{text}");
    for number in 0..taken {
        let object: Blob = brain.recall(&format!("object {number}"))?;
        assert_eq!((object.len(), fill_of(&object)), (1_000_000, Some(number)));
    }
    // One goes, one comes.
    brain.forget("object 7")?;
    brain.learn("another", &words(1_000_000, 99))?;
    brain.clear()?;
    is_as_before(&brain, &before);
    Ok(())
}

/// Invariant 6: what is in limbo is not free, and the error says who holds it.
#[test]
fn a_full_store_names_the_processes_that_hold_what_was_forgotten() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon)?;
    let before = brain.stats()?;
    let mut holding = Client::start(CLIENT, daemon.socket());
    brain.learn("large", &words(12_000_000, 1))?;
    holding.ask("hold large");
    brain.forget("large")?;
    let full = match brain.learn("next", &words(12_000_000, 2)) {
        Err(Error::StoreFull(full)) => full,
        other => panic!("{other:?}"),
    };
    assert!(full.limbo_bytes >= 12_000_000 && full.used_bytes == full.limbo_bytes, "{full}");
    assert_eq!(full.holders.len(), 1, "{full:?}");
    assert_eq!(full.holders[0].0, holding.pid());
    assert!(full.to_string().contains(&format!("process {}", holding.pid())), "{full}");
    let pins = brain.pins()?;
    assert_eq!((pins.len(), pins[0].pid, pins[0].limbo), (1, holding.pid(), true), "{pins:?}");
    assert_eq!(pins[0].name, "default/large");
    holding.ask("drop");
    brain.learn("next", &words(12_000_000, 2))?;
    brain.clear()?;
    drop(holding);
    is_as_before(&brain, &before);
    Ok(())
}

/// 64-bit lengths throughout, and memory that is only claimed where somebody wrote.
#[test]
fn an_object_beyond_4_gib_is_learned_and_recalled_and_takes_the_memory_that_was_written() -> TestResult {
    const LEN: u64 = (4 << 30) + 1;
    let daemon = Daemon::start_with(STORE, &["--size", "5GiB", "--reserve", "lazy"]);
    let brain = connect(&daemon)?;
    let mut large = brain.create("large", LEN)?;
    large[0] = 1;
    *large.last_mut().expect("it has bytes") = 2;
    large.seal()?;
    let mut reader = Client::start(CLIENT, daemon.socket());
    assert_eq!(reader.ask("ends large"), format!("{LEN} 1 2"));
    let (allocated, stats) = (memory_of_arena(&daemon), brain.stats()?);
    assert!(stats.used_bytes > LEN);
    assert!(allocated < 100_000_000, "{allocated} bytes of the arena are in use");
    assert!(stats.rss_bytes < 100_000_000, "{stats:?}");
    brain.forget("large")?;
    assert_eq!(brain.stats()?.used_bytes, 0);
    Ok(())
}

/// How many bytes the kernel has allocated for the arena.
fn memory_of_arena(daemon: &Daemon) -> u64 {
    let session = RawSession::begin(daemon.socket());
    let arena = nix::sys::stat::fstat(&session.fds[1]).expect("a descriptor");
    u64::try_from(arena.st_blocks).expect("not negative") * 512
}

/// Section 3, allocator and leases: a kept lease makes a learn one round trip.
#[test]
fn a_hundred_learns_of_100_kb_make_about_a_hundred_requests() -> TestResult {
    let daemon = Daemon::start(STORE, "256MiB");
    let brain = connect(&daemon)?;
    let before = brain.stats()?;
    for number in 0..100 {
        brain.learn(&format!("object {number}"), &words(100_000, number))?;
    }
    let after = brain.stats()?;
    let requests = after.requests - before.requests;
    assert!((101..=115).contains(&requests), "{requests} requests");
    assert_eq!(after.commits - before.commits, 100);
    for number in 0..100 {
        assert_eq!(fill_of(&brain.recall::<Blob>(&format!("object {number}"))?), Some(number));
    }
    Ok(())
}

/// Invariant 6: a lease that is kept for later counts as free, and is taken back when somebody needs the room.
#[test]
fn a_kept_lease_is_taken_back_when_another_process_needs_the_room() -> TestResult {
    let daemon = Daemon::start(STORE, "64MiB");
    let brain = connect(&daemon)?;
    let mut keeping = Client::start(CLIENT, daemon.socket());
    keeping.ask("learn mine 100000 1");
    let stats = brain.stats()?;
    assert_eq!(stats.leases, 1, "it keeps one");
    assert!(stats.used_bytes < 110_000, "{stats:?}");
    let len = stats.free_bytes - (8 << 10);
    assert!(len > stats.largest_free_bytes, "there is no such room beside the lease");
    brain.create("all the rest", len)?.seal()?;
    assert_eq!(brain.stats()?.leases, 0);
    let full = keeping.ask_for_error("learn more 100000 2");
    assert!(full.starts_with("StoreFull "), "{full}");
    brain.forget("all the rest")?;
    keeping.ask("learn more 100000 2");
    assert_eq!(fill_of(&brain.recall::<Blob>("mine")?), Some(1));
    assert_eq!(fill_of(&brain.recall::<Blob>("more")?), Some(2));
    Ok(())
}

/// The same where the room is needed by the very client that keeps the lease.
#[test]
fn a_client_gets_the_room_of_the_lease_that_it_keeps_itself() -> TestResult {
    let daemon = Daemon::start(STORE, "64MiB");
    let brain = connect(&daemon)?;
    for round in 0..3 {
        brain.learn("small", &words(100_000, round))?;
        assert_eq!(brain.stats()?.leases, 1, "it keeps one");
        brain.forget("small")?;
        fill_at_once(&brain)?;
    }
    Ok(())
}

/// The same with small objects, whose room comes in pieces: nothing that one client keeps is lost to another.
#[test]
fn small_objects_of_two_processes_fill_all_of_the_capacity() -> TestResult {
    let daemon = Daemon::start(STORE, "8MiB");
    let brain = connect(&daemon)?;
    let mut clients: Vec<Client> = (0..2).map(|_| Client::start(CLIENT, daemon.socket())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        // The rest of what the first one has taken is left for the second.
        let count = [20, 1_000_000][number];
        client.ask(&format!("learn-many large-{number}- {count} 70000 {number}"));
        client.ask(&format!("learn-many small-{number}- {} 1000 {number}", count * 10));
    }
    let stats = brain.stats()?;
    // What is left are the ends of pages behind large objects, too short for any other.
    assert!(stats.largest_free_bytes < 2_000 && stats.free_bytes < stats.capacity_bytes / 50, "{stats:?}");
    Ok(())
}

/// Pins beyond one session region.
#[test]
fn a_process_holds_70_000_objects_at_once_and_lets_go_of_all() -> TestResult {
    const HELD: usize = 70_000;
    for arena in ["memfd", "named"] {
        let daemon = Daemon::start_with(STORE, &["--size", "16MiB", "--arena", arena]);
        let brain = connect(&daemon)?;
        for name in 0..5 {
            brain.learn(&name.to_string(), &words(1_000, name))?;
        }
        let held: Result<Vec<Object>, _> =
            (0..HELD).map(|number| brain.recall((number % 5).to_string().as_str())).collect();
        let held = held?;
        let stats = brain.stats()?;
        assert_eq!(stats.pins, HELD as u64);
        brain.clear()?;
        assert_eq!(brain.stats()?.limbo_bytes, stats.used_bytes);
        let (first, last) = (held[0].as_ipc()?, held[HELD - 1].as_ipc()?);
        assert_ne!(first, last);
        assert_eq!(first, held[HELD - 5].as_ipc()?);
        drop((first, last));
        drop(held);
        let stats = brain.stats()?;
        assert_eq!((stats.pins, stats.limbo_bytes, stats.used_bytes), (0, 0, 0));
    }
    Ok(())
}

#[test]
fn one_pin_too_many_is_refused_by_the_name_of_the_limit() -> TestResult {
    let daemon = Daemon::start_with(STORE, &["--size", "16MiB", "--max-pins", "65536"]);
    let brain = connect(&daemon)?;
    let before = brain.stats()?;
    brain.learn("held", &words(1_000, 1))?;
    let mut held: Vec<Object> = Vec::new();
    for _ in 0..65_536 {
        held.push(brain.recall("held")?);
    }
    for refused in [brain.recall::<Object>("held").map(drop), brain.recall_many(&["held"]).map(drop)] {
        let Err(error @ Error::TooMany { limit: 65_536, .. }) = refused else { panic!("{refused:?}") };
        assert!(error.to_string().contains("--max-pins"), "{error}");
    }
    brain.learn("in the index", &7)?;
    held.pop();
    brain.recall::<Object>("held")?;
    assert_eq!(brain.stats()?.pins, 65_535);
    drop(held);
    brain.clear()?;
    is_as_before(&brain, &before);
    Ok(())
}

/// Invariant 4.
#[test]
fn a_recall_makes_no_request() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon)?;
    brain.learn("number", &7)?;
    brain.learn("bytes", &words(1_000, 1))?;
    brain.learn("large", &words(1_000_000, 2))?;
    let before = brain.stats()?.requests;
    for _ in 0..10_000 {
        assert_eq!(brain.recall::<i64>("number")?, 7);
        assert_eq!(brain.recall::<Blob>("bytes")?.len(), 1_000);
        assert_eq!(brain.recall::<Blob>("large")?.len(), 1_000_000);
        assert!(brain.exists("large")? && !brain.exists("nothing")?);
        assert_eq!(brain.recall_many(&["bytes", "nothing", "large"])?.iter().flatten().count(), 2);
    }
    assert_eq!(brain.stats()?.requests, before + 1, "the figures themselves are a request");
    eventually("no pin is left", || brain.stats().is_ok_and(|stats| stats.pins == 0));
    Ok(())
}

/// Invariant 6: whoever runs a store sees that it refuses learns, why and where, without drowning in lines.
#[test]
fn refused_learns_are_counted_by_reason_and_namespace_and_logged() -> TestResult {
    const REFUSED: u64 = 300;
    let daemon = Daemon::start_with(STORE, &["--size", "4MiB", "--max-objects", "1000"]);
    let brain = connect(&daemon)?;
    let full = brain.in_namespace("full-of-it")?;
    let begun = std::time::Instant::now();
    let small = words(60_000, 1); // travels in the message
    let mut names = 0;
    while full.learn(&format!("object {names}"), &small[..]).is_ok() {
        names += 1;
    }
    for _ in 1..REFUSED {
        let refused = full.learn("one more", &small[..]);
        assert!(matches!(refused, Err(Error::StoreFull(_))), "{refused:?}");
    }
    // Memory that is asked for in advance belongs to no namespace yet.
    let large = brain.learn("large", &words(5 << 20, 1)[..]);
    assert!(matches!(large, Err(Error::StoreFull(_))), "{large:?}");
    // What a condition says is an answer.
    let absent = LearnOptions::new().if_absent();
    let answered = full.learn_with("object 0", &1_i64, &absent);
    assert!(matches!(answered, Err(Error::ConditionFailed { .. })), "{answered:?}");

    let stats = brain.stats()?;
    let refusals: Vec<_> = stats
        .refusals
        .iter()
        .map(|it| (it.reason.as_str(), it.namespace.as_ref().map(|it| it.as_str()), it.learns))
        .collect();
    assert_eq!(refusals, [("store_full", None, 1), ("store_full", Some("full-of-it"), REFUSED)]);
    assert_eq!(stats.refused_learns, REFUSED + 1);
    let socket = daemon.socket().to_str().ok_or("a path of text")?;
    let (_, text, _) = run(PLASMON, &["--socket", socket, "stats", "--prometheus"]);
    let line =
        format!("plasmon_refusals_total{{reason=\"store_full\",namespace=\"full-of-it\"}} {REFUSED}\n");
    assert!(text.contains(&line), "{text}");
    let (_, text, _) = run(PLASMON, &["--socket", socket, "stats"]);
    assert!(text.contains(&format!("refused  {} learns: store_full {}", REFUSED + 1, REFUSED + 1)), "{text}");

    let seconds = begun.elapsed().as_secs();
    let (_, log) = daemon.stop();
    let lines = log.iter().filter(|line| line.contains("refused a learn")).count() as u64;
    assert!((1..=seconds + 1).contains(&lines), "{lines} lines in {seconds} seconds: {log:?}");
    Ok(())
}

//! Processes that die: clients at work, and the daemon itself.

use crate::{CLIENT, STORE};
use nix::{libc, sys::signal::Signal};
use plasmon::{Blob, Brain, Error, LearnOptions, Object};
use plasmon_tests::{
    TestResult,
    bystander::is_as_before,
    client::Client,
    daemon::Daemon,
    eventually,
    worker::{checksum_of, fill_of, words},
};
use std::time::{Duration, Instant};

fn connect(daemon: &Daemon) -> plasmon::Result<Brain> {
    Brain::builder().path(daemon.socket()).connect()
}

/// Overwrites everything that is free, more than once.
fn overwrite_the_rest(brain: &Brain) -> TestResult {
    for fill in [0xaaaa, 0xbbbb] {
        for len in [1 << 20, 70_000, 1_000] {
            for number in 0.. {
                match brain.learn(&format!("filler {fill} {len} {number}"), &words(len, fill)) {
                    Ok(_) => {}
                    Err(Error::StoreFull(_)) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        for name in brain.names("filler ")? {
            brain.forget(&name)?;
        }
    }
    Ok(())
}

/// Invariants 3 and 5: a writer that dies half way leaves nothing behind, and its memory is free.
#[test]
fn a_writer_that_is_killed_in_the_middle_of_a_gibibyte_leaves_nothing_behind() -> TestResult {
    for reserve in ["lazy", "background"] {
        let daemon = Daemon::start_with(STORE, &["--size", "1536MiB", "--reserve", reserve]);
        let brain = connect(&daemon)?;
        let before = brain.stats()?;
        for command in ["half", "half-table"] {
            let mut writer = Client::start(CLIENT, daemon.socket());
            writer.ask(&format!("{command} large 1073741824"));
            let stats = brain.stats()?;
            assert!(stats.leased_bytes >= 1 << 29 && stats.objects == 0, "{command}: {stats:?}");
            writer.kill();
            // Its room is there for who needs it, at once.
            drop(brain.create("next", 1 << 30)?);
            let stats = brain.stats()?;
            assert_eq!((stats.used_bytes, stats.leases, stats.limbo_bytes), (0, 0, 0), "{command}");
            assert!(!brain.exists("large")?);
            assert!(brain.names("")?.is_empty());
            is_as_before(&brain, &before);
        }
    }
    Ok(())
}

/// The same at any instant: in the middle of `learn`, and of a batch.
#[test]
fn writers_that_are_killed_while_they_learn_leave_nothing_behind() -> TestResult {
    let daemon = Daemon::start(STORE, "64MiB");
    let brain = connect(&daemon)?;
    let before = brain.stats()?;
    for round in 0..10 {
        let mut writer = Client::start(CLIENT, daemon.socket());
        let learned = brain.stats()?.commits;
        // Through leases of their own, kept leases, messages, and batches.
        let command = ["rebind 1 1000000", "learn-many n 9999999 70000 5", "rebind-pair 1000000"][round % 3];
        writer.tell(command);
        let enough = learned + 20 + u64::try_from(round)?;
        eventually("the writer writes", || brain.stats().is_ok_and(|stats| stats.commits >= enough));
        writer.kill();
        eventually("its session has ended", || brain.stats().is_ok_and(|stats| stats.sessions == 1));
        let stats = brain.stats()?;
        assert_eq!((stats.leases, stats.limbo_bytes, stats.leased_bytes), (0, 0, 0), "{command}");
        // Every name it left is bound to a whole object.
        for object in brain.list("")? {
            if object.kind == plasmon::Kind::BYTES {
                assert!(fill_of(&brain.recall::<Blob>(&object.name)?).is_some(), "{object:?}");
            }
        }
        brain.clear()?;
        assert_eq!(brain.stats()?.used_bytes, 0, "{command}");
    }
    is_as_before(&brain, &before);
    Ok(())
}

/// Invariant 5, for pins: what only a dead process held is free at once.
#[test]
fn a_reader_that_is_killed_gives_back_what_it_held() -> TestResult {
    let daemon = Daemon::start(STORE, "32MiB");
    let brain = connect(&daemon)?;
    let before = brain.stats()?;
    for round in 0..20 {
        let mut reader = Client::start(CLIENT, daemon.socket());
        for (number, len) in [100, 1_000, 70_000, 12_000_000, 12_000_000].into_iter().enumerate() {
            brain.learn(&number.to_string(), &words(len, round))?;
            reader.ask(&format!("hold {number}"));
        }
        brain.clear()?;
        let stats = brain.stats()?;
        assert!(stats.limbo_bytes >= 24_000_000 && stats.pins == 5, "{stats:?}");
        reader.kill();
        brain.learn("needs the room", &words(25_000_000, round))?;
        let stats = brain.stats()?;
        assert_eq!((stats.limbo_bytes, stats.pins), (0, 0), "{stats:?}");
        brain.clear()?;
        assert_eq!(brain.stats()?.used_bytes, 0);
    }
    is_as_before(&brain, &before);
    Ok(())
}

/// Invariant 2, whatever happens to the name, to the writer, and to the handle's own `Brain`.
#[test]
fn a_held_object_never_changes_whatever_happens_to_its_name() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let observer = connect(&daemon)?;
    let at_first = observer.stats()?;
    let mut writer = Client::start(CLIENT, daemon.socket());
    let mut reader = Client::start(CLIENT, daemon.socket());
    for (number, len) in [8, 33, 1_000, 70_000, 2_000_000].into_iter().enumerate() {
        writer.ask(&format!("learn {number} {len} 7"));
    }
    let numbers = observer.in_namespace("numbers")?;
    numbers.learn("n", &words(100_000, 8))?;
    let names = ["0", "1", "2", "3", "4"];
    let held: Result<Vec<Object>, _> = names.iter().map(|name| observer.recall(name)).collect();
    let mut held = held?;
    held.push(numbers.recall("n")?);
    let before: Result<Vec<u64>, _> = held.iter().map(checksum_of).collect();
    let before = before?;
    let theirs: Vec<String> = names.iter().map(|name| reader.ask(&format!("hold {name}"))).collect();
    let mut check = |after: &str| -> TestResult {
        overwrite_the_rest(&observer)?;
        let now: Result<Vec<u64>, _> = held.iter().map(checksum_of).collect();
        assert_eq!(now?, before, "after {after}");
        assert_eq!(reader.ask("checksums"), theirs.join(" "), "after {after}");
        Ok(())
    };
    writer.ask("learn 0 8 9");
    writer.ask("learn 2 1000 9");
    check("a rebinding")?;
    writer.ask("forget 1");
    writer.ask("forget 3");
    check("a forget")?;
    numbers.remove_namespace()?;
    check("the removal of the namespace")?;
    writer.kill();
    check("the death of the writer")?;
    observer.clear()?;
    check("all was forgotten")?;
    assert!(observer.stats()?.limbo_bytes > 2_000_000);
    drop(reader);
    drop(held);
    is_as_before(&observer, &at_first);
    Ok(())
}

/// Invariant 2: a handle keeps its session alive, without any `Brain`.
#[test]
fn a_held_object_outlives_the_brain_that_recalled_it() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let mut other = Client::start(CLIENT, daemon.socket());
    let brain = connect(&daemon)?;
    brain.learn("held", &words(1_000_000, 7))?;
    let held: Blob = brain.recall("held")?;
    brain.disconnect();
    drop(brain);
    other.ask("forget held");
    // This process has no connection to the store any more but the lifeline.
    for fill in 0..3 {
        other.ask(&format!("learn-many filler-{fill}- 1000 1000000 {fill}"));
    }
    assert_eq!(fill_of(&held), Some(7));
    let pins = connect(&daemon)?.pins()?;
    assert_eq!(pins.len(), 1, "{pins:?}");
    assert_eq!((pins[0].pid, pins[0].limbo), (std::process::id(), true));
    drop(held);
    let brain = connect(&daemon)?;
    eventually("the pin and its session are gone", || {
        brain.stats().is_ok_and(|stats| (stats.pins, stats.sessions, stats.limbo_bytes) == (0, 2, 0))
    });
    Ok(())
}

/// Invariant 2, across the end of the daemon: killed, or stopped, when it gives back all memory that no pin holds.
#[test]
fn held_objects_outlive_the_daemon() -> TestResult {
    for arena in ["memfd", "named"] {
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            let arguments = ["--size", "16MiB", "--arena", arena];
            let mut daemon = Daemon::start_with(STORE, &arguments);
            let brain = connect(&daemon)?;
            let mut reader = Client::start(CLIENT, daemon.socket());
            for number in 0..40_u64 {
                brain
                    .learn(&number.to_string(), &words(30_000 + 2_000 * usize::try_from(number)?, number))?;
            }
            let names = ["0", "7", "8", "20", "39"];
            let held: Result<Vec<Object>, _> = names.iter().map(|name| brain.recall(name)).collect();
            let held = held?;
            let theirs: Vec<String> = names.iter().map(|name| reader.ask(&format!("hold {name}"))).collect();
            let before: Result<Vec<u64>, _> = held.iter().map(checksum_of).collect();
            let before = before?;
            brain.forget("7")?;
            overwrite_the_rest(&brain)?;
            daemon.signal(signal);
            eventually("the daemon has ended", || !daemon.is_alive());
            let now: Result<Vec<u64>, _> = held.iter().map(checksum_of).collect();
            assert_eq!(now?, before, "{arena} {signal}");
            assert_eq!(reader.ask("checksums"), theirs.join(" "), "{arena} {signal}");
            let gone = reader.ask_for_error("learn new 100 1");
            assert!(gone.starts_with("StoreUnavailable "), "{gone}");
            // Its successor on the path removes what it left, and disturbs nobody who still has it mapped.
            daemon.start_again(STORE, &arguments);
            reader.ask("learn new 100 1");
            assert_eq!(brain.stats()?.objects, 1); // asked again where the daemon's death was not noticed before
            overwrite_the_rest(&brain)?;
            let now: Result<Vec<u64>, _> = held.iter().map(checksum_of).collect();
            assert_eq!(now?, before, "{arena} {signal}");
            assert_eq!(reader.ask("checksums"), theirs.join(" "), "{arena} {signal}");
        }
    }
    Ok(())
}

/// Section 3, sessions and restarts: a dead store is noticed, and its successor found.
#[test]
fn calls_fail_after_the_daemon_died_and_work_again_when_there_is_another() -> TestResult {
    let arguments = ["--size", "16MiB"];
    let mut daemon = Daemon::start_with(STORE, &arguments);
    let brain = connect(&daemon)?;
    let mut other = Client::start(CLIENT, daemon.socket());
    brain.learn("old", &words(100_000, 7))?;
    let held: Blob = brain.recall("old")?;
    let sum = other.ask("hold old");
    daemon.kill();

    let unavailable = |error: Error| {
        assert!(matches!(error, Error::StoreUnavailable { .. }) && error.is_unavailable(), "{error:?}");
    };
    let mut last = None;
    eventually("a recall fails", || {
        last = brain.recall::<Blob>("old").err();
        last.is_some()
    });
    last.into_iter().for_each(unavailable);
    brain.recall::<i64>("absent").map_err(unavailable).unwrap_err();
    brain.learn("new", &1).map_err(unavailable).unwrap_err();
    brain.learn("new", &words(100_000, 1)).map_err(unavailable).unwrap_err();
    brain.create("new", 100_000).map_err(unavailable).unwrap_err();
    brain.forget("old").map_err(unavailable).unwrap_err();
    brain.recall_many(&["old"]).map_err(unavailable).unwrap_err();
    brain.exists("old").map_err(unavailable).unwrap_err();
    brain.stats().map_err(unavailable).unwrap_err();
    brain.wait("old", 0, Duration::from_secs(60)).map_err(unavailable).unwrap_err();
    connect(&daemon).map_err(unavailable).unwrap_err();
    assert_eq!((fill_of(&held), other.ask("checksums")), (Some(7), sum.clone()));

    daemon.start_again(STORE, &arguments);
    assert!(matches!(brain.recall::<Blob>("old"), Err(Error::NameNotFound { .. })));
    brain.learn("new", &words(100_000, 8))?;
    assert_eq!(fill_of(&brain.recall::<Blob>("new")?), Some(8));
    other.ask("learn theirs 100 9");
    assert_eq!(fill_of(&brain.recall::<Blob>("theirs")?), Some(9));
    overwrite_the_rest(&brain)?;
    assert_eq!((fill_of(&held), other.ask("checksums")), (Some(7), sum));
    Ok(())
}

/// Section 3: a mutation that was sent is never sent again; nobody hangs.
#[test]
fn a_learn_in_flight_when_the_daemon_dies_fails_and_does_not_hang() -> TestResult {
    for (command, wanted) in [
        ("learn new 100 1", "OutcomeUnknown "),
        ("learn new 100000 1", "StoreUnavailable "), // it had not got its lease
        ("wait new 600000", "StoreUnavailable "),
    ] {
        let mut daemon = Daemon::start(STORE, "16MiB");
        let mut client = Client::start(CLIENT, daemon.socket());
        client.ask("learn-int first 1"); // so that there is a connection
        daemon.signal(Signal::SIGSTOP);
        client.tell(command);
        eventually("the client waits for an answer", || client.waits_in(libc::SYS_recvfrom));
        let start = Instant::now();
        daemon.kill();
        let error = client.failure();
        assert!(error.starts_with(wanted), "{command}: {error}");
        assert!(start.elapsed() < Duration::from_secs(10), "{command}: {:?}", start.elapsed());
    }
    Ok(())
}

/// Nobody hangs: a store that stands still is given up, also by calls that take as long as they take.
#[test]
fn long_calls_give_up_a_store_that_stands_still() -> TestResult {
    let patience = Duration::from_secs(1);
    for at in ["store-lease-reserved", "store-populated", "store-commit-half-visible"] {
        // The room of a long batch is the second lease; what is in it, the second commit. Of 128 steps of memory the last
        // come late enough that the client is connected, and early enough that it still asks for something.
        let count = if at == "store-populated" { 120 } else { 2 };
        let fault = format!("PLASMON_FAULT={at}:{count}:stop");
        let daemon = Daemon::start_with("env", &[&fault, STORE, "--size", "256MiB"]);
        let brain = Brain::builder().path(daemon.socket()).timeout(patience).connect()?;
        let (start, long) = (Instant::now(), LearnOptions::new().description("x".repeat(60_000)));
        let ask = || {
            brain.batch()?.learn("a", &1)?.learn("b", &2)?.commit()?;
            brain.learn("large", &words(100 << 20, 1))?;
            let mut batch = brain.batch()?;
            for number in 0..300 {
                batch = batch.learn_with(&number.to_string(), &number, &long)?;
            }
            batch.commit()
        };
        let error = loop {
            let Err(error) = ask() else { continue };
            break error;
        };
        let Error::NoAnswer { .. } = error else { panic!("{at}: {error:?}") };
        assert!(daemon.is_stopped(), "{at}");
        assert!(start.elapsed() < 30 * patience, "{at}: {:?}", start.elapsed());
        daemon.signal(Signal::SIGCONT);
        brain.learn("after", &words(100_000, 5))?;
        assert_eq!(fill_of(&brain.recall::<Blob>("after")?), Some(5));
        eventually("nothing is left of it", || {
            // The call that had no answer may still be made: also after a name was forgotten.
            let is_empty = brain.clear().is_ok() && brain.stats().is_ok_and(|now| now.objects == 0);
            is_empty && brain.stats().is_ok_and(|now| (now.used_bytes, now.limbo_bytes) == (0, 0))
        });
    }
    Ok(())
}

/// A store that stops says so: a client that waits hears that it is unavailable, at once.
#[test]
fn a_wait_ends_when_the_store_stops() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon)?;
    let mut client = Client::start(CLIENT, daemon.socket());
    client.tell("wait new 600000");
    eventually("it waits", || brain.stats().is_ok_and(|stats| stats.waits == 1));
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log:?}");
    let error = client.failure();
    assert!(error.starts_with("StoreUnavailable "), "{error}");
    Ok(())
}

/// The same without stopping anything first: many deaths, each at some instant.
#[test]
fn writers_notice_the_death_of_the_daemon_at_any_instant() -> TestResult {
    let mut daemon = Daemon::start(STORE, "32MiB");
    let mut writers: Vec<Client> = (0..3).map(|_| Client::start(CLIENT, daemon.socket())).collect();
    for round in 0..10 {
        let brain = connect(&daemon)?;
        brain.learn("n", &0)?;
        for (writer, command) in
            writers.iter_mut().zip(["rebind 1 1000000", "rebind-pair 1000000", "increment n 1000000"])
        {
            writer.tell(command);
        }
        eventually("they write", || brain.stats().is_ok_and(|stats| stats.commits > 20 + 7 * round));
        let start = Instant::now();
        daemon.kill();
        for writer in &mut writers {
            let error = writer.failure();
            assert!(
                error.starts_with("StoreUnavailable ") || error.starts_with("OutcomeUnknown "),
                "{error}"
            );
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        daemon.start_again(STORE, &["--size", "32MiB"]);
    }
    Ok(())
}

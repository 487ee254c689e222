//! Many processes on one store: what readers see while others write, conditions, batches, waits.

use crate::{CLIENT, STORE};
use plasmon::{Blob, Brain, Error, LearnOptions, Object};
use plasmon_tests::{
    TestResult,
    bystander::is_as_before,
    client::Client,
    daemon::Daemon,
    eventually,
    worker::{Watched, words},
};
use std::time::{Duration, Instant, SystemTime};

fn connect(daemon: &Daemon) -> plasmon::Result<Brain> {
    Brain::builder().path(daemon.socket()).connect()
}

/// Has `writer` go on with `command` until each reader has answered, and returns what they said.
fn while_writing(
    writer: &mut Client,
    command: impl Fn(u64) -> String,
    readers: &mut [Client],
) -> Vec<String> {
    let mut answers = vec![None; readers.len()];
    for turn in 1.. {
        writer.ask(&command(turn));
        for (reader, answer) in readers.iter_mut().zip(&mut answers) {
            *answer = answer.take().or_else(|| reader.answer_by_now());
        }
        if answers.iter().all(Option::is_some) {
            break;
        }
    }
    answers.into_iter().flatten().collect()
}

/// Invariants 2 and 3: a bound name is never missed, a value never torn nor changed while it is held, and none
/// follows a newer one.
#[test]
fn eight_processes_read_whole_and_ever_newer_values_while_another_rebinds_them() {
    const LOOKS: u64 = 7_000;
    const ROUNDS: u64 = 20;
    // Small enough that what is freed is written again at once.
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = Brain::builder().path(daemon.socket()).connect().expect("the store answers");
    let before = brain.stats().expect("the store answers");
    let mut writer = Client::start(CLIENT, daemon.socket());
    writer.ask("rebind 1 1");
    let mut readers: Vec<Client> = (0..8).map(|_| Client::start(CLIENT, daemon.socket())).collect();
    readers.iter_mut().for_each(|reader| reader.tell(&format!("watch {LOOKS}")));
    let rounds = |turn| format!("rebind {} {}", turn * ROUNDS, (turn + 1) * ROUNDS - 1);
    for answer in while_writing(&mut writer, rounds, &mut readers) {
        let seen = Watched::parse(&answer);
        eprintln!("{seen:?}");
        assert_eq!((seen.misses, seen.torn, seen.backwards), (0, 0, 0), "{seen:?}");
        assert!(seen.recalls == 7 * LOOKS && seen.news > 100, "{seen:?}");
    }
    drop((writer, readers));
    brain.clear().expect("the store answers");
    is_as_before(&brain, &before);
}

/// Invariant 3, for names that are rebound together.
#[test]
fn a_batch_is_seen_whole_or_not_at_all() {
    const LOOKS: u64 = 100_000;
    let daemon = Daemon::start(STORE, "16MiB");
    let mut writer = Client::start(CLIENT, daemon.socket());
    writer.ask("rebind-pair 2");
    let mut readers: Vec<Client> = (0..2).map(|_| Client::start(CLIENT, daemon.socket())).collect();
    readers.iter_mut().for_each(|reader| reader.tell(&format!("look-at-pair {LOOKS}")));
    for answer in while_writing(&mut writer, |_| "rebind-pair 20".to_owned(), &mut readers) {
        let commits: u64 = answer.parse().expect("a number");
        eprintln!("{commits} commits seen");
        assert!(commits > 100, "{commits} commits were seen in {LOOKS} looks");
    }
}

/// The store collects the recalls that clients note, also of those who have ended since, and a name that is bound in
/// the place of another has none of its own.
#[test]
fn the_last_recall_is_known_of_what_was_recalled_and_of_nothing_else() -> TestResult {
    // Room for two names, so that one that is learned after another was forgotten stands in its entry.
    let daemon = Daemon::start_with(STORE, &["--size", "16MiB", "--max-objects", "2"]);
    let brain = connect(&daemon)?;
    let recalled = |name: &str| brain.metadata(name).map(|metadata| metadata.expect("it is bound").recalled);
    brain.learn("learned", &vec_of(1))?;
    brain.learn("recalled", &vec_of(2))?;
    let start = SystemTime::now();
    let mut reader = Client::start(CLIENT, daemon.socket());
    reader.ask("hold recalled");
    eventually("the recall is known", || recalled("recalled").expect("the store answers").is_some());
    let first = recalled("recalled")?.expect("it was known");
    assert!(start <= first && first <= SystemTime::now());
    assert_eq!(recalled("learned")?, None, "nobody has recalled it");

    // One that is killed at once: what it noted is collected all the same.
    let mut short = Client::start(CLIENT, daemon.socket());
    short.ask("hold recalled");
    short.kill();
    eventually("the later recall is known", || {
        recalled("recalled").expect("the store answers").is_some_and(|then| then > first)
    });

    // Bound anew it is the same name; forgotten and learned it is not.
    brain.learn("recalled", &vec_of(3))?;
    assert!(recalled("recalled")?.is_some());
    let _: Blob = brain.recall("recalled")?;
    brain.forget("recalled")?;
    brain.learn("successor", &vec_of(4))?;
    // When this recall, noted later, is known, that one was collected.
    let mut witness = Client::start(CLIENT, daemon.socket());
    witness.ask("hold learned");
    eventually("a later recall is known", || recalled("learned").expect("the store answers").is_some());
    assert_eq!(recalled("successor")?, None);
    Ok(())
}

/// Who holds what is listed whole, each object once, where it takes several pages.
#[test]
fn more_pins_than_a_page_has_are_all_listed_once() -> TestResult {
    const OBJECTS: usize = 5_000;
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon)?;
    let names: Vec<String> = (0..OBJECTS).map(|number| format!("n{number:04}")).collect();
    for name in &names {
        brain.learn(name, &[1_u8; 100])?;
    }
    let held = names.iter().map(|name| brain.recall::<Blob>(name)).collect::<plasmon::Result<Vec<Blob>>>()?;
    let mut listed: Vec<String> = brain.pins()?.into_iter().map(|pin| pin.name).collect();
    listed.sort_unstable();
    let expected: Vec<String> = names.iter().map(|name| format!("default/{name}")).collect();
    assert_eq!(listed, expected);
    drop(held);
    Ok(())
}

fn vec_of(byte: u8) -> Vec<u8> {
    vec![byte; 100_000]
}

/// Invariants 3 and 6.
#[test]
fn a_batch_that_does_not_fit_changes_nothing() -> TestResult {
    let daemon = Daemon::start_with(STORE, &["--size", "50000000", "--max-objects", "40"]);
    let brain = connect(&daemon)?;
    let before = brain.learn("kept", &words(1_000_000, 1))?;
    let used_bytes = brain.stats()?.used_bytes;
    let fill = || -> plasmon::Result<u64> {
        let mut batch = brain.batch()?.learn("kept", &2)?.forget("other")?;
        for number in 0..60 {
            batch = batch.learn(&format!("new {number}"), &words(1_000_000, number))?;
        }
        batch.commit()
    };
    let full = fill();
    assert!(matches!(full, Err(Error::StoreFull(_))), "{full:?}");
    let mut many = brain.batch()?.learn("kept", &2)?;
    for number in 0..60 {
        many = many.learn(&format!("new {number}"), &true)?;
    }
    let full = many.commit();
    assert!(matches!(full, Err(Error::IndexFull { requested: 60, used: 1, limit: 40 })), "{full:?}");
    let one_of_two = brain.batch()?.learn("new 0", &true)?;
    let failed = one_of_two.learn_with("kept", &2, &LearnOptions::new().if_version(before + 1))?.commit();
    assert!(matches!(failed, Err(Error::ConditionFailed { found: Some(found), .. }) if found == before));
    let kept: Object = brain.recall("kept")?;
    assert_eq!((kept.version(), brain.recall::<Blob>("kept")?[0]), (before, 1));
    assert_eq!(brain.names("")?, ["kept"]);
    let stats = brain.stats()?;
    assert_eq!((stats.used_bytes, stats.leases, stats.commits), (used_bytes, 0, 1));
    Ok(())
}

/// Invariant 3, for more names than fit one slice of the daemon's time.
#[test]
fn a_namespace_of_20_000_names_goes_at_one_moment() -> TestResult {
    const NAMES: usize = 20_000;
    let daemon = Daemon::start(STORE, "64MiB");
    let brain = connect(&daemon)?.in_namespace("many-names")?;
    let mut batch = brain.batch()?;
    for number in 0..NAMES {
        batch = batch.learn(&format!("n{number}"), &i64::try_from(number)?)?;
    }
    batch.commit()?;
    assert_eq!(brain.len()?, 20_000);
    let watched: Vec<String> = (0..NAMES).step_by(311).map(|number| format!("n{number}")).collect();
    let mut reader = Client::start(CLIENT, daemon.socket());
    reader.tell(&format!("watch-namespace many-names {}", watched.join(" ")));
    reader.answer();
    assert_eq!(brain.remove_namespace()?, 20_000);
    let looks: u64 = reader.answer().parse()?;
    assert!(looks > 1);
    let gone = brain.names("");
    assert!(matches!(gone, Err(Error::NamespaceNotFound { .. })), "{gone:?}");
    let stats = brain.stats()?;
    assert_eq!((stats.objects, stats.used_bytes, stats.namespaces), (0, 0, 1));
    Ok(())
}

/// Compare and set: no increment is lost.
#[test]
fn four_processes_count_exactly_with_if_version() -> TestResult {
    const TIMES: u64 = 500;
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon)?;
    brain.learn("counter", &0)?;
    let mut clients: Vec<Client> = (0..4).map(|_| Client::start(CLIENT, daemon.socket())).collect();
    clients.iter_mut().for_each(|client| client.tell(&format!("increment counter {TIMES}")));
    let lost: Vec<String> = clients.iter_mut().map(Client::answer).collect();
    eprintln!("lost races: {lost:?}");
    assert_eq!(brain.recall::<i64>("counter")?, 4 * i64::try_from(TIMES)?);
    Ok(())
}

#[test]
fn exactly_one_of_many_processes_gets_a_free_name() -> TestResult {
    const NAMES: usize = 300;
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon)?;
    let mut clients: Vec<Client> = (0..6).map(|_| Client::start(CLIENT, daemon.socket())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.tell(&format!("claim task- {NAMES} {number}"));
    }
    let won: Vec<usize> =
        clients.iter_mut().map(|client| client.answer().parse().expect("a number")).collect();
    assert_eq!(won.iter().sum::<usize>(), NAMES, "{won:?}");
    let mut holds = vec![0; clients.len()];
    for number in 0..NAMES {
        let holder: i64 = brain.recall(&format!("task-{number}"))?;
        holds[usize::try_from(holder)?] += 1;
    }
    assert_eq!(holds, won);
    Ok(())
}

/// Waiting for a name that another process learns.
#[test]
fn a_waiting_process_wakes_when_another_learns_the_name() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon)?;
    let mut waiting = Client::start(CLIENT, daemon.socket());
    for len in [8, 1_000, 200_000] {
        waiting.tell("wait result 60000");
        eventually("the process waits", || brain.stats().is_ok_and(|stats| stats.waits == 1));
        brain.learn("something else", &1)?;
        assert_eq!(waiting.answer_by_now(), None);
        let version = brain.learn("result", &words(len, 1))?;
        assert_eq!(waiting.answer(), version.to_string());
        assert_eq!(brain.stats()?.waits, 0);
        brain.forget("result")?;
    }
    // And the other way round.
    let mut writing = Client::start(CLIENT, daemon.socket());
    let start = Instant::now();
    std::thread::scope(|scope| -> TestResult {
        let woken = scope.spawn(|| brain.recall_within::<i64>("answer", Duration::from_secs(60)));
        eventually("this process waits", || connect(&daemon).unwrap().stats().unwrap().waits == 1);
        writing.ask("learn-int answer 42");
        assert_eq!(woken.join().expect("no panic")?, 42);
        Ok(())
    })?;
    assert!(start.elapsed() < Duration::from_secs(30));
    Ok(())
}

#[test]
fn a_wait_that_is_not_met_ends_in_time_and_names_what_it_waited_for() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let mut waiting = Client::start(CLIENT, daemon.socket());
    let start = Instant::now();
    let error = waiting.ask_for_error("wait never 300");
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    assert!(error.starts_with("WaitTimeout ") && error.contains("\"never\""), "{error}");
    assert!(error.contains("0.3 seconds"), "{error}");
    assert_eq!(connect(&daemon)?.stats()?.waits, 0);
    Ok(())
}

/// Invariant 5, for waits.
#[test]
fn a_process_that_dies_while_it_waits_leaves_no_wait_behind() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon)?;
    let before = brain.stats()?;
    let mut waiting: Vec<Client> = (0..3).map(|_| Client::start(CLIENT, daemon.socket())).collect();
    waiting.iter_mut().for_each(|client| client.tell("wait result 600000"));
    eventually("all wait", || brain.stats().is_ok_and(|stats| stats.waits == 3));
    waiting.into_iter().for_each(Client::kill);
    eventually("no wait is left", || {
        brain.stats().is_ok_and(|stats| (stats.waits, stats.sessions) == (0, 1))
    });
    brain.learn("result", &1)?;
    brain.clear()?;
    is_as_before(&brain, &before);
    Ok(())
}

//! What killed, leaked or hung other stores of this kind, where no other module provokes it. docs/RELIABILITY.md has the
//! whole list.

use crate::{CLIENT, STORE};
use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::Signal,
    },
    unistd::getuid,
};
use plasmon::{Blob, Brain, Error, LearnOptions, NamespaceOptions, Table};
use plasmon_protocol::{layout::session::PIN_HIGH_WATER, message::Stats as RawStats};
use plasmon_shm::ClientRegion;
use plasmon_tests::{
    TestResult,
    bystander::is_as_before,
    client::Client,
    clock::Clock,
    daemon::{Daemon, run},
    eventually,
    random::Random,
    raw::{Raw, RawSession},
    worker::{fill_of, words},
};
use std::{
    fs,
    process::{Command, Stdio},
    sync::atomic::Ordering,
    time::{Duration, Instant, SystemTime},
};

fn connect(daemon: &Daemon) -> plasmon::Result<Brain> {
    Brain::builder().path(daemon.socket()).connect()
}

/// The beginning of a command that runs another one in namespaces of its own; `None`, and a note, if this user may not.
fn unshared(flags: &[&str]) -> Option<Command> {
    let root: &[&str] = if getuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    let flags = [root, flags].concat();
    if !Command::new("unshare").args(&flags).arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user may not make namespaces: {flags:?}");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(flags);
    Some(command)
}

/// Row 6: a process that is dead and that nobody has waited for holds nothing.
#[test]
fn a_zombie_holds_nothing() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon)?;
    let before = brain.stats()?;
    let mut client = Client::start(CLIENT, daemon.socket());
    brain.learn("held", &words(9_000_000, 1))?;
    client.ask("hold held");
    client.ask("half other 1000000");
    brain.forget("held")?;
    client.signal(Signal::SIGKILL);
    let stat = || fs::read_to_string(format!("/proc/{}/stat", client.pid()));
    eventually("it is dead, and nobody waits for it", || stat().is_ok_and(|stat| stat.contains(") Z ")));
    brain.learn("needs the room", &words(12_000_000, 2))?;
    brain.clear()?;
    is_as_before(&brain, &before);
    assert!(stat()?.contains(") Z "));
    Ok(())
}

/// Row 6: pids that the store cannot see, or that mean another process to it.
#[test]
fn a_client_of_another_pid_namespace_gives_back_what_it_held() -> TestResult {
    let Some(mut command) = unshared(&["--pid", "--fork", "--kill-child"]) else { return Ok(()) };
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon)?;
    let before = brain.stats()?;
    command.arg(CLIENT);
    let mut client = Client::start_by(command, daemon.socket());
    client.ask("connect");
    brain.learn("held", &words(9_000_000, 1))?;
    client.ask("hold held");
    brain.forget("held")?;
    let full = brain.learn("needs the room", &words(12_000_000, 2)).unwrap_err();
    assert!(matches!(full, Error::StoreFull(_)), "{full}");
    client.kill();
    eventually("there is room", || brain.learn("needs the room", &words(12_000_000, 2)).is_ok());
    brain.clear()?;
    is_as_before(&brain, &before);
    Ok(())
}

/// Row 8: an error, and at once, where there are bytes enough but not in one piece.
#[test]
fn a_store_without_a_piece_that_is_long_enough_says_how_long_the_longest_is() -> TestResult {
    let daemon = Daemon::start(STORE, "4MiB");
    let brain = connect(&daemon)?;
    let before = brain.stats()?;
    let mut count = 0;
    while brain.learn(&format!("piece {count}"), &words(60_000, count)).is_ok() {
        count += 1;
    }
    for odd in (1..count).step_by(2) {
        brain.forget(&format!("piece {odd}"))?;
    }
    let full = match brain.learn("large", &words(1_000_000, 1)) {
        Err(Error::StoreFull(full)) => full,
        other => panic!("{other:?}"),
    };
    assert!(full.free_bytes > 1_500_000 && full.largest_free_bytes < 1_000_000, "{full:?}");
    assert!(!brain.exists("large")?);
    for even in (0..count).step_by(2) {
        let name = format!("piece {even}");
        assert_eq!(fill_of(&brain.recall::<Blob>(&name)?), Some(even));
        brain.forget(&name)?;
    }
    brain.learn("large", &words(1_000_000, 1))?;
    brain.clear()?;
    is_as_before(&brain, &before);
    Ok(())
}

/// Row 9: who comes second is told so, and waits for nobody who waits for him.
#[test]
fn two_writers_of_more_than_half_of_the_store_do_not_wait_for_each_other() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon)?;
    let before = brain.stats()?;
    let mut first = Client::start(CLIENT, daemon.socket());
    let mut second = Client::start(CLIENT, daemon.socket());
    first.ask("half first 9000000");
    let error = second.ask_for_error("half second 9000000");
    assert!(error.starts_with("StoreFull "), "{error}");
    first.ask("seal");
    let error = second.ask_for_error("half second 9000000");
    assert!(error.starts_with("StoreFull "), "{error}");
    brain.forget("first")?;
    second.ask("half second 9000000");
    second.ask("seal");
    assert_eq!(first.ask("ends second"), "9000000 7 8");
    drop((first, second));
    brain.clear()?;
    is_as_before(&brain, &before);
    Ok(())
}

/// Row 10: Docker's small /dev/shm is none of a store's business.
#[test]
fn a_store_of_memfds_does_not_need_dev_shm() -> TestResult {
    let Some(_) = unshared(&["--mount"]) else { return Ok(()) };
    let script = "mount -t tmpfs -o size=16m tmpfs /dev/shm && exec \"$0\" \"$@\"";
    let root: &[&str] = if getuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    let shell = ["--mount", "sh", "-c", script, STORE, "--size", "128MiB", "--debuggable"];
    let mut daemon = Daemon::start_with("unshare", &[root, &shell].concat());
    let brain = connect(&daemon)?;
    let before = brain.stats()?;
    brain.learn("large", &words(100_000_000, 3))?;
    assert_eq!(fill_of(&brain.recall::<Blob>("large")?), Some(3));
    brain.clear()?;
    is_as_before(&brain, &before);
    assert!(daemon.is_alive());
    Ok(())
}

/// Row 19: the death of the daemon is noticed at once. The fastest of some tries counts, because a machine may be busy.
#[test]
fn calls_in_flight_fail_within_100_ms_of_the_daemons_death() -> TestResult {
    let mut daemon = Daemon::start(STORE, "16MiB");
    let mut waiting = Client::start(CLIENT, daemon.socket());
    let mut reading = Client::start(CLIENT, daemon.socket());
    let mut fastest = [Duration::MAX; 2];
    for _ in 0..10 {
        let brain = connect(&daemon)?;
        brain.learn("a", &words(1_000, 1))?;
        reading.ask("hold a");
        waiting.tell("wait never 600000");
        eventually("it waits", || brain.stats().is_ok_and(|stats| stats.waits == 1));
        daemon.kill();
        let start = Instant::now();
        assert!(waiting.failure().starts_with("StoreUnavailable "));
        fastest[0] = fastest[0].min(start.elapsed());
        // A recall asks nobody, and looks at its lifeline every 50 ms.
        loop {
            reading.tell("hold a");
            match reading.outcome() {
                Ok(_) => {}
                Err(error) => break assert!(error.starts_with("error StoreUnavailable "), "{error}"),
            }
        }
        fastest[1] = fastest[1].min(start.elapsed());
        daemon.start_again(STORE, &["--size", "16MiB"]);
        eventually("both are back", || {
            waiting.tell("learn-int b 1");
            reading.tell("learn-int b 1");
            let both = [waiting.outcome(), reading.outcome()];
            both.iter().all(Result::is_ok)
        });
    }
    assert!(fastest.iter().all(|time| *time < Duration::from_millis(100)), "{fastest:?}");
    let sums = reading.ask("checksums");
    let first = sums.split(' ').next().unwrap_or_default();
    assert!(sums.split(' ').all(|sum| sum == first), "what is held has changed: {sums}");
    Ok(())
}

/// Row 21, and the list of hostile peers.
#[test]
fn ten_thousand_connections_of_one_process_leave_room_for_the_others() -> TestResult {
    const CONNECTIONS: u64 = 10_000;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = CONNECTIONS + 2_000;
    if setrlimit(Resource::RLIMIT_NOFILE, soft.max(wanted).min(hard), hard).is_err() || hard < wanted {
        eprintln!("skipped: this user may not open {wanted} files");
        return Ok(());
    }
    let mut daemon = Daemon::start(STORE, "16MiB");
    let mut other = Client::start(CLIENT, daemon.socket());
    let brain = connect(&daemon)?;
    other.ask("learn theirs 100000 1");
    brain.clear()?;
    let before = brain.stats()?;
    let mut connections: Vec<Raw> = (0..CONNECTIONS).map(|_| Raw::connect(daemon.socket())).collect();
    let refusal = connections.last_mut().ok_or("there are many")?.receive::<RawStats>();
    assert!(refusal.is_err(), "{refusal:?}");
    other.ask("learn theirs 100000 1");
    let mut third = Client::start(CLIENT, daemon.socket());
    third.ask("hold theirs");
    assert!(daemon.is_alive() && brain.stats()?.connections < 2_000);
    drop((connections, third));
    brain.clear()?;
    is_as_before(&brain, &before);
    Ok(())
}

/// Row 21, on the client's side.
#[test]
fn a_client_without_descriptors_gets_an_error_and_disturbs_nobody() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon)?;
    let before = brain.stats()?;
    for limit in 4..12 {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\""), CLIENT]);
        let mut client = Client::start_by(command, daemon.socket());
        client.tell("connect");
        if client.outcome().is_ok() {
            client.tell("learn theirs 1000000 1");
            let _ = client.outcome();
        }
        brain.learn("mine", &words(100_000, limit))?;
        assert_eq!(fill_of(&brain.recall::<Blob>("mine")?), Some(limit));
        drop(client);
        brain.clear()?;
        is_as_before(&brain, &before);
    }
    Ok(())
}

/// Row 25: a row of a table holds all of it, `pins` says so, and a copy lets it go.
#[test]
fn a_slice_holds_the_whole_object_and_pins_says_so() -> TestResult {
    let daemon = Daemon::start(STORE, "64MiB");
    let brain = connect(&daemon)?;
    let before = brain.stats()?;
    let numbers = arrow_array::Int64Array::from_iter_values(0..1_000_000);
    let batch = arrow_array::RecordBatch::try_from_iter([("n", std::sync::Arc::new(numbers) as _)])?;
    brain.learn("table", &batch)?;
    let table: Table = brain.recall("table")?;
    let row = table.first().ok_or("a batch")?.slice(500_000, 1);
    drop(table);
    brain.forget("table")?;
    let pins = brain.pins()?;
    assert_eq!(pins.len(), 1, "{pins:?}");
    assert!(pins[0].len_bytes > 8_000_000 && pins[0].pid == std::process::id() && pins[0].limbo, "{pins:?}");
    assert!(brain.stats()?.limbo_bytes > 8_000_000);
    drop(row);
    is_as_before(&brain, &before);
    Ok(())
}

/// Row 32: nobody removes the segments of others.
#[test]
fn a_client_that_ends_takes_no_named_segment_with_it() -> TestResult {
    let daemon = Daemon::start_with(STORE, &["--size", "16MiB", "--arena", "named"]);
    let brain = connect(&daemon)?;
    brain.learn("held", &words(1_000_000, 1))?;
    let before = brain.stats()?;
    for end in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut client = Client::start(CLIENT, daemon.socket());
        client.ask("hold held");
        client.signal(end);
        client.wait_for_end();
        is_as_before(&brain, &before);
        let mut next = Client::start(CLIENT, daemon.socket());
        next.ask("learn theirs 200000 5");
        assert_eq!(fill_of(&brain.recall::<Blob>("theirs")?), Some(5));
        brain.forget("theirs")?;
    }
    assert_eq!(fill_of(&brain.recall::<Blob>("held")?), Some(1));
    Ok(())
}

/// Row 33: cleaners of temporary files.
#[test]
fn a_store_whose_socket_is_removed_goes_on_for_those_who_are_connected() -> TestResult {
    let mut daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon)?;
    let before = brain.stats()?;
    brain.learn("before", &words(100_000, 1))?;
    let held: Blob = brain.recall("before")?;
    fs::remove_file(daemon.socket())?;
    brain.learn("after", &words(200_000, 2))?;
    assert_eq!(fill_of(&brain.recall::<Blob>("after")?), Some(2));
    let mut late = Client::start_by(Command::new(CLIENT), daemon.socket());
    let error = late.ask_for_error("connect");
    assert!(error.starts_with("StoreUnavailable "), "{error}");
    // No second store takes the path while this one lives.
    let socket = daemon.socket().display().to_string();
    let (code, _, stderr) = run(STORE, &["--size", "1MB", "--socket", &socket]);
    assert_eq!(code, 5, "{stderr}");
    assert_eq!(fill_of(&held), Some(1));
    assert!(daemon.is_alive());
    drop((held, late));
    brain.clear()?;
    is_as_before(&brain, &before);
    Ok(())
}

/// Row 36.
#[test]
fn five_thousand_attaches_and_detaches_leave_nothing_in_a_process() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon)?;
    brain.learn("a", &words(1_000, 1))?;
    let before = brain.stats()?;
    let mut client = Client::start(CLIENT, daemon.socket());
    let few: Vec<u64> = numbers(&client.ask("attach 100"));
    let many: Vec<u64> = numbers(&client.ask("attach 5000"));
    assert_eq!(few[..2], many[..2], "descriptors and mappings");
    assert!(many[2] < few[2] + (8 << 20), "resident memory: {} after 100, {} after 5,000", few[2], many[2]);
    drop(client);
    is_as_before(&brain, &before);
    Ok(())
}

fn numbers(text: &str) -> Vec<u64> {
    text.split(' ').map(|number| number.parse().expect("a number")).collect()
}

/// A client is what the daemon sees: root of a user namespace is who it was outside.
#[test]
fn a_client_in_a_user_namespace_is_trusted_as_what_the_store_sees() -> TestResult {
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon)?;
    let before = brain.stats()?;
    for flags in [&["--user", "--map-root-user"][..], &["--user"]] {
        let mut command = Command::new("unshare");
        command.args(flags);
        if !Command::new("unshare").args(flags).arg("true").status().is_ok_and(|status| status.success()) {
            eprintln!("skipped: this user may not make namespaces");
            return Ok(());
        }
        command.arg(CLIENT);
        let mut client = Client::start_by(command, daemon.socket());
        client.tell("connect");
        match client.outcome() {
            Ok(_) => {
                client.ask("learn theirs 100000 3");
                assert_eq!(fill_of(&brain.recall::<Blob>("theirs")?), Some(3));
                let writer = brain.recall::<plasmon::Object>("theirs")?.writer_uid();
                assert_eq!(writer, getuid().as_raw(), "{flags:?}");
            }
            // Without a mapping the store's uid is nobody's, whom nobody trusts unless told to.
            Err(error) => assert!(flags.len() == 1 && error.contains("65534"), "{flags:?}: {error}"),
        }
        drop(client);
        brain.clear()?;
        is_as_before(&brain, &before);
    }
    Ok(())
}

/// Resources: the disk of the log is full.
#[test]
fn a_store_that_cannot_log_serves_all_the_same() -> TestResult {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("store");
    let full = fs::OpenOptions::new().write(true).open("/dev/full")?;
    let mut daemon = Command::new(STORE)
        .args(["--size", "16MiB", "--log", "trace", "--socket"])
        .arg(&socket)
        .stdout(Stdio::null())
        .stderr(full)
        .spawn()?;
    let builder = || Brain::builder().path(&socket).connect();
    eventually("it serves", || builder().is_ok());
    let brain = builder()?;
    for round in 0..50 {
        brain.learn("a", &words(100_000, round))?;
        assert_eq!(fill_of(&brain.recall::<Blob>("a")?), Some(round));
    }
    drop(brain);
    daemon.kill()?;
    daemon.wait()?;
    Ok(())
}

/// Resources: clocks that do not agree.
#[test]
fn a_client_whose_clocks_stand_elsewhere_is_served_as_any() -> TestResult {
    let flags = ["--time", "--boottime", "9000000", "--monotonic", "7000000", "--fork", "--kill-child"];
    let Some(mut command) = unshared(&flags) else { return Ok(()) };
    let daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon)?;
    command.arg(CLIENT);
    let mut client = Client::start_by(command, daemon.socket());
    client.ask("connect");
    client.ask("learn theirs 100000 3");
    assert_eq!(client.ask("ends theirs"), "100000 3 0");
    client.tell("wait later 60000");
    eventually("it waits", || brain.stats().is_ok_and(|stats| stats.waits == 1));
    let version = brain.learn("later", &1)?;
    assert_eq!(client.answer(), version.to_string());
    let error = client.ask_for_error("wait never 20");
    assert!(error.starts_with("WaitTimeout "), "{error}");
    Ok(())
}

/// Row 29: a clock that is set, of the store and of a client. Nothing that counts goes by it; what it says is shown.
#[test]
fn clocks_that_are_set_by_hours_change_nothing_but_what_is_shown() -> TestResult {
    const HOUR: i64 = 3_600;
    let clock = Clock::new();
    let variables = clock.variables();
    let arguments =
        [&[&*variables[0], &*variables[1], STORE], &["--size", "64MiB", "--log", "debug"][..]].concat();
    let daemon = Daemon::start_with("env", &arguments);
    let brain = connect(&daemon)?;
    let mut command = Command::new("env");
    command.args(&variables).arg(CLIENT);
    let mut client = Client::start_by(command, daemon.socket());
    client.ask("connect");
    client.ask("learn theirs 100000 3");
    let cache = brain.in_namespace("a-cache")?;
    cache.declare(&NamespaceOptions::new().cache())?;
    let before = brain.stats()?;

    brain.learn_with("hour", &1, &LearnOptions::new().ttl(Duration::from_secs(3_600)))?;
    brain.learn_with("sliding", &2, &LearnOptions::new().sliding_ttl(Duration::from_secs(3_600)))?;
    let mut ids: Vec<Vec<u8>> = Vec::new();
    let (mut learned, mut cached) = (0, 0);
    for step in [0, -5, 7, -40_000, 0, 30, -1] {
        clock.set(step * HOUR);
        let shown = || {
            let off = Duration::from_secs((step * HOUR).unsigned_abs());
            if step < 0 { SystemTime::now() - off } else { SystemTime::now() + off }
        };
        let is_now = |at: SystemTime| {
            let apart = at.duration_since(shown()).or_else(|_| shown().duration_since(at));
            apart.is_ok_and(|apart| apart < Duration::from_secs(60))
        };
        // What lives for hours lives on, and what lives for a moment ends after it.
        assert_eq!((brain.recall::<i64>("hour")?, brain.recall::<i64>("sliding")?), (1, 2), "{step} h");
        assert_eq!(client.ask("ends theirs"), "100000 3 0");
        let lifetime = Duration::from_millis(300);
        let from = Instant::now();
        brain.learn_with("brief", &3, &LearnOptions::new().ttl(lifetime))?;
        assert!(brain.exists("brief")? || from.elapsed() >= lifetime, "{step} h");
        eventually("it has expired", || !brain.exists("brief").expect("the store answers"));
        assert!(from.elapsed() >= lifetime, "{step} h");
        let left = brain.metadata("hour")?.and_then(|it| it.expires).ok_or("it expires")?;
        let left = left.duration_since(SystemTime::now())?;
        assert!(
            left > Duration::from_secs(3_000) && left <= Duration::from_secs(3_600),
            "{step} h: {left:?}"
        );
        // Waits last as long as they should.
        let from = Instant::now();
        assert!(client.ask_for_error("wait never 50").starts_with("WaitTimeout "), "{step} h");
        assert!(from.elapsed() >= Duration::from_millis(50) && from.elapsed() < Duration::from_secs(20));
        // The index and its record go by the same order, whatever the clock shows: ids, and last recalls.
        for _ in 0..3 {
            brain.learn("a", &learned)?;
            let found = brain.metadata("a")?.ok_or("it is bound")?;
            assert!(is_now(found.created), "{step} h: {:?}", found.created);
            ids.push(found.object_id.as_bytes().to_vec());
            learned += 1;
        }
        eventually("a recall is noted", || {
            brain.recall::<i64>("a").expect("it is bound");
            brain.metadata("a").is_ok_and(|found| found.and_then(|it| it.recalled).is_some_and(is_now))
        });
        // Of a cache that goes which was used least recently: here what was learned first.
        for _ in 0..25 {
            cache.learn(&cached.to_string(), &words(1_000_000, cached))?;
            cached += 1;
        }
        let bound = (0..cached).map(|number| cache.exists(&number.to_string()));
        let bound = bound.collect::<Result<Vec<bool>, _>>()?;
        assert!(bound.is_sorted() && bound.ends_with(&[true; 25]), "{step} h: {bound:?}");
    }
    assert!(brain.stats()?.evicted > 25);
    cache.clear()?;
    assert!(ids.is_sorted(), "ids sort by age: {ids:x?}");
    drop(client);
    for name in ["hour", "sliding", "a"] {
        assert!(brain.forget(name)?);
    }
    eventually("all is as before", || {
        brain
            .stats()
            .is_ok_and(|now| (now.used_bytes, now.pins, now.limbo_bytes) == (before.used_bytes, 0, 0))
    });
    let (status, log) = daemon.stop();
    assert!(status.success() && log.iter().any(|line| line.contains("expired")), "{status}");
    Ok(())
}

/// Hostile peers: whatever a client writes into its own session region harms itself alone.
#[test]
fn garbage_in_a_session_region_harms_its_own_session_only() -> TestResult {
    let mut daemon = Daemon::start(STORE, "16MiB");
    let brain = connect(&daemon)?;
    let before = brain.stats()?;
    let mut random = Random::new(3);
    for round in 0..5 {
        let session = RawSession::begin(daemon.socket());
        let region = ClientRegion::from_fd(session.fds[2].try_clone()?, session.welcome.session_bytes)?;
        let region = region.map_words()?;
        for word in region.words() {
            word.store(random.word() >> random.below(64), Ordering::Relaxed);
        }
        region.words()[PIN_HIGH_WATER].store(u64::MAX, Ordering::Relaxed);
        brain.learn("mine", &words(1_000_000, round))?;
        let held: Blob = brain.recall("mine")?;
        brain.forget("mine")?;
        brain.learn("over it", &words(2_000_000, round + 1))?;
        assert_eq!(fill_of(&held), Some(round));
        // It claims to hold anything: at worst what was forgotten stays for as long as it does.
        assert!(brain.stats()?.pins > 1_000 && !brain.pins()?.is_empty());
        region.words().iter().for_each(|word| word.store(0, Ordering::Relaxed));
        drop(session);
    }
    drop(brain);
    let brain = connect(&daemon)?;
    brain.clear()?;
    // This process lives on, and so do sessions without their lifelines: they hold nothing.
    eventually("nothing is held", || {
        brain.stats().is_ok_and(|now| (now.used_bytes, now.pins, now.limbo_bytes) == (0, 0, 0))
    });
    assert!(daemon.is_alive() && before.used_bytes == 0);
    Ok(())
}

//! Memory that the machine does not have: limits of cgroups, and of /dev/shm.

use crate::STORE;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plasmon::{Blob, Brain, Error};
use plasmon_protocol::{
    message::{Commit, Committed, Failure, Find, Hello, MAGIC, ReadStats, Reserve, Role, VERSION, Welcome},
    name::Namespace,
};
use plasmon_tests::{
    TestResult,
    bystander::is_as_before,
    cgroup::{MARGIN_BYTES, PretendCgroup},
    daemon::{Daemon, run},
    eventually,
    raw::{Raw, RawSession, commit, inline, name},
    worker::{fill_of, words},
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

const MIB: u64 = 1 << 20;

#[test]
fn a_size_beyond_a_cgroups_limit_is_refused_with_what_would_fit() {
    let cgroup = PretendCgroup::leaving(32 * MIB);
    let folder = cgroup.folder().display().to_string();
    let socket = cgroup.folder().join("socket").display().to_string();
    let refused = |reserve: &str| {
        let arguments =
            ["--size", "33MiB", "--reserve", reserve, "--pretend-cgroup", &folder, "--socket", &socket];
        let (code, _, stderr) = run(STORE, &arguments);
        assert_eq!(code, 3, "{stderr}");
        for part in [&folder, "--size of at most 33554432", "--reserve lazy"] {
            assert!(stderr.contains(part), "{part:?} is not in {stderr:?}");
        }
    };
    ["now", "background"].into_iter().for_each(refused);
    // The same under the names that cgroup v1 has.
    let name = |of: &str| cgroup.folder().join(of);
    fs::rename(name("memory.max"), name("memory.limit_in_bytes")).expect("it is there");
    fs::rename(name("memory.current"), name("memory.usage_in_bytes")).expect("it is there");
    refused("now");
    for reserve in ["now", "background"] {
        drop(Daemon::start_with(
            STORE,
            &["--size", "32MiB", "--reserve", reserve, "--pretend-cgroup", &folder],
        ));
    }
    drop(Daemon::start_with(STORE, &["--size", "33MiB", "--reserve", "lazy", "--pretend-cgroup", &folder]));
}

/// In a container a share is of what the container may have.
#[test]
fn a_share_of_memory_is_of_what_the_cgroup_may_have() {
    let cgroup = PretendCgroup::leaving(1_000 * MIB);
    let limit_bytes = 1_000 * MIB + MARGIN_BYTES;
    let folder = cgroup.folder().display().to_string();
    let capacity_of = |daemon: &Daemon| RawSession::begin(daemon.socket()).welcome.capacity_bytes;
    let start =
        || Daemon::start_with(STORE, &["--size", "25%", "--reserve", "lazy", "--pretend-cgroup", &folder]);
    assert_eq!(capacity_of(&start()), limit_bytes / 100 * 25);
    // What slows processes down without end is a limit too, where it is the tighter one.
    fs::write(cgroup.folder().join("memory.high"), (limit_bytes / 2).to_string()).expect("a new file");
    assert_eq!(capacity_of(&start()), limit_bytes / 2 / 100 * 25);
    fs::write(cgroup.folder().join("memory.high"), "max\n").expect("a file");
    let name = |of: &str| cgroup.folder().join(of);
    fs::rename(name("memory.max"), name("memory.limit_in_bytes")).expect("it is there");
    fs::rename(name("memory.current"), name("memory.usage_in_bytes")).expect("it is there");
    assert_eq!(capacity_of(&start()), limit_bytes / 100 * 25);
}

/// What a shell's `ulimit` leaves too little of is found before the store says that it is ready.
#[test]
fn a_limit_of_the_process_that_is_too_low_is_refused_with_its_number_and_the_cure() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("store").display().to_string();
    for (limit, code, parts) in [
        ("-f 1024", 3, ["67108864 bytes", "ulimit -f unlimited", "smaller --size"]),
        ("-n 16", 1, ["16 descriptors", "ulimit -n 96", "LimitNOFILE"]),
        ("-v 200000", 3, ["204800000 bytes", "ulimit -v unlimited", "--max-objects"]),
        ("-d 200000", 3, ["204800000 bytes", "ulimit -d unlimited", "--max-objects"]),
        ("-s 100", 1, ["102400 bytes", "ulimit -s unlimited", "LimitSTACK"]),
    ] {
        let line = format!("ulimit {limit}; exec {STORE} --size 64MiB --socket {socket}");
        let (found, _, stderr) = run("sh", &["-c", &line]);
        assert_eq!(found, code, "{limit}: {stderr}");
        assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
        parts.iter().for_each(|part| assert!(stderr.contains(part), "{part:?} is not in {stderr:?}"));
        assert_eq!(fs::read_dir(&directory).expect("a directory").count(), 0, "{limit}: nothing is left");
    }
}

/// What a process may raise by itself it raises; and what it does not need may be as low as it is.
#[test]
fn a_limit_that_a_process_may_raise_or_does_not_need_keeps_no_store_from_starting() {
    for limit in ["-Sf 1024", "-Sn 16", "-Sv 200000", "-Sd 200000", "-Ss 100", "-l 0", "-c 0", "-n 96"] {
        let line = format!("ulimit {limit}; exec \"$0\" --size 64MiB \"$@\"");
        let daemon = Daemon::start_with("sh", &["-c", &line, STORE]);
        let brain = Brain::builder().path(daemon.socket()).connect().expect("it serves");
        brain.learn("answer", &42).expect("there is room");
        assert!(daemon.stop().0.success());
    }
}

/// Threads and processes are one number to the kernel.
#[test]
fn a_helper_thread_that_cannot_be_started_is_named_with_the_limit() {
    if !nix::unistd::geteuid().is_root() {
        return; // root alone can become a user with no other process
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).expect("it is this user's");
    let socket = directory.path().join("store").display().to_string();
    let user = ["--reuid", "54321", "--regid", "54321", "--clear-groups"];
    let arguments =
        [&["--nproc=1:1", "setpriv"][..], &user, &[STORE, "--size", "4MiB", "--socket", &socket]].concat();
    let (code, _, stderr) = run("prlimit", &arguments);
    assert_eq!(code, 1, "{stderr}");
    let parts = ["plasmon-populate", "Resource temporarily unavailable", "ulimit -u", "pids.max"];
    parts.iter().for_each(|part| assert!(stderr.contains(part), "{part:?} is not in {stderr:?}"));
    assert_eq!(fs::read_dir(&directory).expect("a directory").count(), 0, "nothing is left");
}

/// Under a limit on addresses the next allocation after the last would end the store: what clients can make it hold
/// stays within the limit, and sessions that do not fit are refused.
#[test]
fn large_commits_and_many_sessions_end_no_store_whose_memory_is_limited() {
    let line = "ulimit -v 450000; exec \"$0\" --size 64MiB --reserve lazy \"$@\"";
    let many = ["--max-sessions-per-process", "1000", "--max-sessions-per-uid", "1000"];
    let mut daemon = Daemon::start_with("sh", &[&["-c", line, STORE], &many[..]].concat());
    // Nearly the longest frame there may be; the names are the same, so that the arena has room for all in turn.
    let names: Vec<String> = (0..240).map(|number| format!("large {number}")).collect();
    let large = commit(names.iter().map(|name| inline(name, 60_000)).collect());
    let mut writers: Vec<_> = (0..24).map(|_| RawSession::begin(daemon.socket())).collect();
    std::thread::scope(|scope| {
        for writer in &mut writers {
            writer.requests.be_patient();
            scope.spawn(|| {
                for _ in 0..4 {
                    writer.requests.call(&large).expect("there is room");
                }
            });
        }
    });
    assert!(daemon.is_alive());
    // Sessions take what the requests of others do not need, and then there are no more.
    let mut sessions = Vec::new();
    let refusal = loop {
        let mut raw = Raw::connect(daemon.socket());
        raw.send(1, &Hello { magic: MAGIC, version: VERSION, role: Role::Lifeline });
        match raw.receive::<Welcome>() {
            Ok(_) => sessions.push(raw),
            Err(failure) => break failure,
        }
    };
    let Failure::TooMany { what, limit } = &refusal else { panic!("{refusal:?}") };
    assert!(what.contains("ulimit -v") && *limit == 450_000 << 10, "{refusal:?}");
    assert!(sessions.len() > 10, "{}", sessions.len());
    let answer = writers[0].requests.call(&large);
    assert!(answer.is_ok() && daemon.is_alive(), "{answer:?}");
}

/// Invariant 6, where the arena has room and the machine has none: learns fail and say why, and nothing else does.
#[test]
fn a_limit_lowered_after_the_start_makes_learns_fail_and_harms_nothing_else() -> TestResult {
    let cgroup = PretendCgroup::leaving(0);
    let first = cgroup.hold_next_read();
    let folder = cgroup.folder().display().to_string();
    let daemon = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Enough when the store starts; then 64 MiB; then nothing.
            let second = first.answer(1 << 30, || cgroup.hold_next_read());
            second.answer(64 * MIB, || cgroup.leave(0));
        });
        let arguments = ["--size", "256MiB", "--pretend-missing", "collapse", "--pretend-cgroup", &folder];
        Daemon::start_with(STORE, &arguments)
    });
    let brain = Brain::builder().path(daemon.socket()).connect()?;
    let before = brain.stats()?;
    eventually("what there is is populated", || {
        brain.stats().is_ok_and(|stats| stats.populated_bytes == 64 * MIB)
    });
    brain.learn("small", &words(1_000, 1))?;
    brain.learn("large", &words(10_000_000, 2))?;
    let short = |error: Error| {
        let text = error.to_string();
        assert!(text.contains("the machine has too little memory"), "{text}");
        let Error::StoreFull(full) = error else { panic!("{error:?}") };
        assert_eq!(full.populated_bytes, Some(64 * MIB), "{full:?}");
        assert!(full.free_bytes > 128 * MIB, "there is room in the arena: {full:?}");
    };
    // By lease, in a batch, and in the message.
    short(brain.learn("huge", &words(100_000_000, 3)).unwrap_err());
    short(brain.create("huge", 100_000_000).map(drop).unwrap_err());
    let filled = (0..2_000).find_map(|n| brain.learn(&format!("filler {n}"), &words(60_000, 4)).err());
    short(filled.expect("64 MiB are full at some time"));
    assert_eq!(fill_of(&brain.recall::<Blob>("small")?), Some(1));
    assert_eq!(fill_of(&brain.recall::<Blob>("large")?), Some(2));
    assert!(!brain.exists("huge")?);
    for name in brain.names("filler ")? {
        brain.forget(&name)?;
    }
    brain.learn("small", &words(2_000, 5))?;
    cgroup.leave(1 << 30);
    brain.learn("huge", &words(100_000_000, 6))?;
    assert_eq!(fill_of(&brain.recall::<Blob>("huge")?), Some(6));
    brain.clear()?;
    is_as_before(&brain, &before);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log:?}");
    Ok(())
}

/// A signal while memory is claimed ends the store at once, and nothing is left of it.
#[test]
fn a_store_that_is_still_claiming_its_memory_can_be_stopped() {
    for arena in ["memfd", "named"] {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let cgroup = PretendCgroup::leaving(0);
            let directory = tempfile::tempdir().expect("a temporary directory");
            let first = cgroup.hold_next_read();
            let child = Command::new(STORE)
                .args(["--size", "512MiB", "--reserve", "now", "--arena", arena, "--pretend-cgroup"])
                .args([cgroup.folder(), "--socket".as_ref(), &directory.path().join("store")])
                .stderr(Stdio::piped())
                .spawn()
                .expect("the daemon starts");
            let second = first.answer(1 << 30, || cgroup.hold_next_read());
            // It waits for its first look at the memory that is left, behind which it claims 64 MiB.
            let maps = second.answer(1 << 30, || {
                cgroup.leave(1 << 30);
                let pid = i32::try_from(child.id()).expect("pids fit");
                kill(Pid::from_raw(pid), signal).expect("it is there");
                fs::read_to_string(format!("/proc/{pid}/maps")).expect("it is ours")
            });
            let output = child.wait_with_output().expect("it ends");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{stderr}");
            assert!(stderr.contains("stopped before it was ready") && !stderr.contains("ready:"), "{stderr}");
            assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0);
            let segment = maps.lines().find_map(|line| Some(line.split_once("/dev/shm/")?.1));
            assert_eq!(segment.is_some(), arena == "named", "{maps}");
            if let Some((prefix, _)) = segment.and_then(|name| name.split_once('-')) {
                let segments = fs::read_dir("/dev/shm").expect("/dev/shm").flatten();
                let left = segments.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
                assert_eq!(left.count(), 0);
            }
        }
    }
}

/// A commit and a lease that wait for their pages are answered when the store stops, before their pages come.
#[test]
fn what_waits_for_memory_is_answered_when_the_store_stops() {
    let cgroup = PretendCgroup::leaving(0);
    let first = cgroup.hold_next_read();
    let folder = cgroup.folder().display().to_string();
    let (daemon, second) = std::thread::scope(|scope| {
        let second = scope.spawn(|| first.answer(1 << 30, || cgroup.hold_next_read()));
        let daemon = Daemon::start_with(STORE, &["--size", "64MiB", "--pretend-cgroup", &folder]);
        (daemon, second.join().expect("the store looks at the limit"))
    });
    let mut session = RawSession::begin(daemon.socket());
    session.requests.send(1, &commit(vec![inline("waits", 60_000)]));
    session.requests.send(2, &Reserve { len_bytes: 1 << 20 });
    let found = Find { namespace: Namespace::default(), name: name("waits"), slot: 0 };
    session.requests.send(3, &found);
    let answered = session.requests.receive_frame().map(|(header, _)| header.request_id);
    assert_eq!(answered, Some(3), "the others wait");
    daemon.signal(Signal::SIGTERM);
    for _ in 0..2 {
        assert_eq!(session.requests.receive::<Committed>(), Err(Failure::ShuttingDown));
    }
    second.answer(1 << 30, || cgroup.leave(1 << 30));
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log:?}");
}

/// Requests that cannot be answered yet are read only up to a limit; other sessions are served meanwhile.
#[test]
fn a_session_whose_requests_wait_is_read_no_further_than_its_limit() {
    let cgroup = PretendCgroup::leaving(0);
    let first = cgroup.hold_next_read();
    let folder = cgroup.folder().display().to_string();
    let limit = (32 * MIB).to_string();
    let arguments = ["--size", "256MiB", "--max-held-requests", &limit, "--pretend-cgroup", &folder];
    let (daemon, second) = std::thread::scope(|scope| {
        let second = scope.spawn(|| first.answer(1 << 30, || cgroup.hold_next_read()));
        let daemon = Daemon::start_with(STORE, &arguments);
        (daemon, second.join().expect("the store looks at the limit"))
    });
    let mut other = RawSession::begin(daemon.socket());
    let greedy = RawSession::begin(daemon.socket());
    let large = |number: usize| {
        let mut changes = Vec::new();
        for part in 0..200 {
            changes.push(inline(&format!("{number} {part}"), 60_000)); // 12 MB
        }
        Commit { changes, conditions: vec![], end_leases: vec![] }
    };
    let rss_bytes =
        |session: &mut RawSession| session.requests.call(&ReadStats {}).expect("an answer").rss_bytes;
    let before = rss_bytes(&mut other);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..6)
            .map(|number| {
                let (mut raw, commit) = (Raw::connect(daemon.socket()), large(number));
                raw.join(greedy.welcome.token).expect("the session lives");
                scope.spawn(move || {
                    raw.send(1, &commit);
                    raw.send(2, &commit);
                    (raw.receive::<Committed>(), raw.receive::<Committed>())
                })
            })
            .collect();
        eventually("it holds what it may", || rss_bytes(&mut other) > before + 20 * MIB);
        for _ in 0..500 {
            let more = rss_bytes(&mut other) - before;
            assert!(more < 60 * MIB, "{more} bytes more for requests of at most 32 MiB");
        }
        second.answer(1 << 30, || cgroup.leave(1 << 30));
        for writer in writers {
            let answers = writer.join().expect("no panic");
            assert!(matches!(answers, (Ok(_), Ok(_))), "{answers:?}");
        }
    });
    learn(&mut other, "still served").expect("there is room");
}

/// A shell in which /dev/shm has 64 MiB and holds a file of so many; then the store.
fn with_small_dev_shm(filler_bytes: u64, arguments: &[&str]) -> Option<Vec<String>> {
    let unshare = ["--user", "--map-root-user", "--mount"];
    if !Command::new("unshare").args(unshare).arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user may not make namespaces");
        return None;
    }
    let script = format!(
        "mount -t tmpfs -o size=64m tmpfs /dev/shm && head -c {filler_bytes} /dev/zero > /dev/shm/filler && \
         exec \"$0\" \"$@\""
    );
    let store = ["sh", "-c", &script, STORE, "--arena", "named"];
    Some([&unshare[..], &store, arguments].concat().into_iter().map(str::to_owned).collect())
}

fn as_strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn learn(session: &mut RawSession, text: &str) -> Result<Committed, Failure> {
    session.requests.call(&commit(vec![inline(text, 60_000)]))
}

#[test]
fn a_full_dev_shm_is_told_and_survived() {
    let Some(refused) = with_small_dev_shm(20 * MIB, &["--size", "40MiB"]) else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("store").display().to_string();
    let (code, _, stderr) = run("unshare", &[as_strs(&refused), vec!["--socket", &socket]].concat());
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("/dev/shm") && stderr.contains("--size of at most"), "{stderr}");

    // It fits when the store starts, and not with the index, and what else lies there, beside it.
    let arguments = with_small_dev_shm(20 * MIB, &["--size", "34MiB", "--debuggable"]).unwrap_or_default();
    let mut daemon = Daemon::start_with("unshare", &as_strs(&arguments));
    let mut session = RawSession::begin(daemon.socket());
    let refusal = (0..600).find_map(|n| learn(&mut session, &n.to_string()).err());
    let Some(Failure::StoreFull(room)) = refusal else { panic!("{refusal:?}") };
    assert!(room.populated_bytes.is_some_and(|bytes| bytes < 34 * MIB), "{room:?}");
    assert!(room.free_bytes > MIB, "there is room in the arena: {room:?}");
    let objects = session.requests.call(&ReadStats {}).expect("the store answers").objects;
    assert!(objects > 0);
    let mut another = RawSession::begin(daemon.socket()); // there is room for its region
    fs::remove_file(format!("/proc/{}/root/dev/shm/filler", daemon.pid())).expect("it is there");
    learn(&mut another, "there is room now").expect("it is populated while this waits");
    assert!(daemon.is_alive());
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log:?}");
}

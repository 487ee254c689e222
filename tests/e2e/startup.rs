//! Starting and stopping the daemon.

use crate::{CLIENT, STORE};
use nix::sys::signal::Signal;
use plasmon_protocol::{
    message::{Bind, Bound, Change, Commit, Committed, Failure, ListNames, Payload, ReadStats, Wait},
    name::{Name, Namespace},
    object::{Header, Kind},
};
use plasmon_tests::{
    bystander::Bystander,
    daemon::{Daemon, run},
    raw::{Raw, RawSession},
};
use std::{fs, os::unix::fs::PermissionsExt, os::unix::net::UnixListener, path::Path};

fn in_directory() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("plasma").display().to_string();
    (directory, socket)
}

/// One line, with a next step.
fn assert_one_line(stderr: &str, parts: &[&str]) {
    assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{part:?} is not in {stderr:?}");
    }
}

#[test]
fn a_stopped_store_leaves_nothing_behind() {
    for arena in ["memfd", "named"] {
        let daemon = Daemon::start_with(STORE, &["-m", "50000000", "--arena", arena]);
        let socket = daemon.socket().to_owned();
        assert_eq!(fs::metadata(&socket).expect("the socket exists").permissions().mode() & 0o777, 0o600);
        let session = RawSession::begin(&socket);
        assert_eq!(session.welcome.capacity_bytes, 50_000_000);
        let (status, log) = daemon.stop();
        assert!(status.success(), "{status} {log:?}");
        assert!(!socket.exists());
        let left: Vec<_> =
            fs::read_dir(socket.parent().expect("a directory")).into_iter().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        let segments = fs::read_dir("/dev/shm").expect("/dev/shm").flatten();
        let ours: Vec<_> = segments
            .filter(|entry| {
                session
                    .welcome
                    .region_names
                    .iter()
                    .any(|name| name.trim_start_matches('/') == entry.file_name().to_string_lossy())
            })
            .collect();
        assert!(ours.is_empty(), "{ours:?}");
    }
}

#[test]
fn sigint_stops_the_store_as_sigterm_does() {
    let daemon = Daemon::start(STORE, "1MB");
    let (status, log) = daemon.stop_with(Signal::SIGINT);
    assert!(status.success(), "{log:?}");
}

#[test]
fn a_size_that_does_not_fit_is_refused_with_what_would() {
    let (_directory, socket) = in_directory();
    let (code, _, stderr) = run(STORE, &["--size", "1000TiB", "--socket", &socket]);
    assert_eq!(code, 3, "{stderr}");
    assert_one_line(&stderr, &["cannot be reserved", "--size of at most", "--reserve lazy"]);
    assert!(!Path::new(&socket).exists());
    let (code, _, stderr) = run(STORE, &["--size", "12", "--socket", &socket]);
    assert_eq!(code, 3);
    assert_one_line(&stderr, &["too small", "at least 4096"]);
}

#[test]
fn wrong_flags_are_named() {
    for (arguments, part) in [
        (&["--size", "five"][..], "five"),
        (&["--sice", "5MB"], "--sice"),
        (&[], "--size"),
        (&["--size", "1MB", "--reserve", "maybe"], "maybe"),
    ] {
        let (code, _, stderr) = run(STORE, arguments);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains(part), "{part:?} is not in {stderr:?}");
    }
}

#[test]
fn named_segments_for_other_users_are_refused() {
    let (_directory, socket) = in_directory();
    let arguments = ["--size", "1MB", "--arena", "named", "--allow-uid", "12345", "--socket", &socket];
    let (code, _, stderr) = run(STORE, &arguments);
    assert_eq!(code, 2, "{stderr}");
    assert_one_line(&stderr, &["--arena named", "--allow-uid", "--arena memfd"]);
}

#[test]
fn a_socket_path_that_cannot_be_used_is_named() {
    let (directory, socket) = in_directory();
    let long = format!("{}/{}", directory.path().display(), "x".repeat(120));
    let (code, _, stderr) = run(STORE, &["--size", "1MB", "--socket", &long]);
    assert_eq!(code, 4);
    assert_one_line(&stderr, &["107", "shorter one", "--socket"]);

    let (code, _, stderr) =
        run(STORE, &["--size", "1MB", "--socket", &directory.path().display().to_string()]);
    assert_eq!(code, 4);
    assert_one_line(&stderr, &["is a directory", "store.sock"]);

    fs::write(&socket, "precious").expect("a file");
    let (code, _, stderr) = run(STORE, &["--size", "1MB", "--socket", &socket]);
    assert_eq!(code, 4);
    assert_one_line(&stderr, &["not a socket"]);
    assert_eq!(fs::read_to_string(&socket).expect("it is still there"), "precious");

    let (code, _, stderr) = run(STORE, &["--size", "1MB", "--socket", "/nonexistent/directory/plasma"]);
    assert_eq!(code, 4);
    assert_one_line(&stderr, &["directory /nonexistent/directory is not there", "mkdir -p"]);
}

#[test]
fn a_second_store_on_a_live_path_is_refused_and_the_first_goes_on() {
    let mut daemon = Daemon::start(STORE, "1MB");
    let bystander = Bystander::start(CLIENT, &daemon);
    let socket = daemon.socket().display().to_string();
    let (code, _, stderr) = run(STORE, &["--size", "1MB", "--socket", &socket]);
    assert_eq!(code, 5);
    assert_one_line(&stderr, &["another store serves", &socket]);
    let _ = RawSession::begin(daemon.socket());
    bystander.was_not_disturbed(&mut daemon);
}

/// A program that takes no lock may listen there as well.
#[test]
fn a_foreign_listener_is_not_pushed_aside() {
    let (_directory, socket) = in_directory();
    let _listener = UnixListener::bind(&socket).expect("a free path");
    let (code, _, stderr) = run(STORE, &["--size", "1MB", "--socket", &socket]);
    assert_eq!(code, 5, "{stderr}");
}

#[test]
fn a_killed_store_is_replaced_on_its_path() {
    for arena in ["memfd", "named"] {
        let (_directory, socket) = in_directory();
        let arguments = ["--size", "1MB", "--arena", arena, "--socket", &socket];
        let mut first = std::process::Command::new(STORE)
            .args(arguments)
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the daemon starts");
        plasmon_tests::eventually("the first store listens", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        first.kill().expect("it is there");
        first.wait().expect("it ended");
        assert!(Path::new(&socket).exists(), "a killed store cannot tidy up");
        let mut second = std::process::Command::new(STORE)
            .args(arguments)
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the daemon starts");
        plasmon_tests::eventually("the second store listens", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        let names = RawSession::begin(Path::new(&socket)).welcome.region_names;
        let prefix = names.first().map(|name| name.trim_start_matches('/').to_owned());
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(second.id()).expect("pids fit")),
            Signal::SIGTERM,
        )
        .expect("it is there");
        second.wait().expect("it ended");
        if let Some(index) = prefix {
            let prefix = index.trim_end_matches("index");
            let left = fs::read_dir("/dev/shm").expect("/dev/shm").flatten();
            let left: Vec<_> =
                left.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

/// Each kernel call newer than Linux 5.14 has a fallback that works.
#[test]
fn the_store_serves_without_the_newer_kernel_calls() {
    for missing in ["noexec_seal", "collapse", "peer_pidfd", "noexec_seal,collapse,peer_pidfd"] {
        for reserve in ["now", "background", "lazy"] {
            let arguments = ["--size", "8MiB", "--pretend-missing", missing, "--reserve", reserve];
            let mut daemon = Daemon::start_with(STORE, &arguments);
            let mut session = RawSession::begin(daemon.socket());
            let reserve = plasmon_protocol::message::Reserve { len_bytes: 3 << 20 };
            let granted = session.requests.call(&reserve).expect("there is room");
            assert!(granted.len_bytes >= 3 << 20);
            assert!(daemon.is_alive());
        }
    }
    let (code, _, stderr) =
        run(STORE, &["--size", "8MiB", "--pretend-missing", "everything", "--socket", "/tmp/x"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("everything"), "{stderr}");
}

/// A batch system's temporary directory may have a path that is longer than the address of a socket.
#[test]
fn a_store_on_a_path_that_is_longer_than_a_sockets_address_serves_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let deep = directory.path().join("d".repeat(120));
    fs::create_dir(&deep).expect("a new directory");
    for arena in ["memfd", "named"] {
        let socket = deep.join("store.sock");
        let mut daemon = Daemon::start_at(STORE, &["--size", "1MB", "--arena", arena], &socket);
        let brain = plasmon::Brain::builder().path(&socket).connect().expect("it answers");
        brain.learn("answer", &42).expect("there is room");
        let refused = run(STORE, &["--size", "1MB", "--socket", &socket.display().to_string()]);
        assert_eq!(refused.0, 5, "{refused:?}");
        daemon.kill();
        daemon.start_again(STORE, &["--size", "1MB", "--arena", arena]);
        plasmon::Brain::builder().path(&socket).connect().expect("the next one answers");
        let (status, log) = daemon.stop();
        assert!(status.success(), "{status} {log:?}");
        assert_eq!(fs::read_dir(&deep).expect("a directory").count(), 0);
    }
}

/// Where anybody may make files, anything may lie in the place of the lock. Nobody waits for it.
#[test]
fn what_is_no_lock_is_named_and_neither_waited_for_nor_followed() {
    let (directory, socket) = in_directory();
    let lock = format!("{socket}.lock");
    let precious = directory.path().join("precious");
    fs::write(&precious, "precious").expect("a new file");
    let refused = |what: &str| {
        let (code, _, stderr) = run(STORE, &["--size", "1MB", "--socket", &socket]);
        assert_eq!(code, 4, "{stderr}");
        assert_one_line(&stderr, &[&lock, what, "remove it"]);
        assert!(!Path::new(&socket).exists());
    };
    nix::unistd::mkfifo(lock.as_str(), nix::sys::stat::Mode::S_IRWXU).expect("a new pipe");
    refused("a pipe");
    fs::remove_file(&lock).expect("it is there");
    std::os::unix::fs::symlink(&precious, &lock).expect("a new link");
    refused("a symbolic link");
    fs::remove_file(&lock).expect("it is there");
    fs::create_dir(&lock).expect("a new directory");
    refused("a directory");
    fs::remove_dir(&lock).expect("it is empty");
    let listener = UnixListener::bind(&lock).expect("a free path");
    refused("a socket");
    drop(listener);
    fs::remove_file(&lock).expect("it is there");
    let (code, _, stderr) = run(STORE, &["--tidy", "--socket", &socket]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(fs::read_to_string(&precious).expect("it is still there"), "precious");
}

/// A program whose queue is full answers nobody, and is alive.
#[test]
fn a_listener_that_accepts_nobody_holds_up_no_start() {
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
    };
    use std::os::fd::AsRawFd;
    let (_directory, path) = in_directory();
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let new = || socket(AddressFamily::Unix, SockType::Stream, flags, None).expect("a socket");
    let address = UnixAddr::new(path.as_str()).expect("a short path");
    let listener = new();
    bind(listener.as_raw_fd(), &address).expect("a free path");
    listen(&listener, Backlog::new(0).expect("a length")).expect("it is bound");
    let mut queued = Vec::new();
    let full = loop {
        let client = new();
        match connect(client.as_raw_fd(), &address) {
            Ok(()) => queued.push(client),
            Err(error) => break error,
        }
    };
    assert_eq!(full, nix::Error::EAGAIN);
    let (code, _, stderr) = run(STORE, &["--size", "1MB", "--socket", &path]);
    assert_eq!(code, 5, "{stderr}");
}

/// A store outlives its terminal, timers, limits, and what anybody sends it but an order to stop.
#[test]
fn no_signal_ends_a_store_but_those_that_are_meant_to() {
    let mut daemon = Daemon::start(STORE, "1MB");
    let spared = Signal::iterator().filter(|signal| {
        use Signal::{
            SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGINT, SIGKILL, SIGQUIT, SIGSEGV, SIGSTOP, SIGSYS, SIGTERM,
            SIGTRAP, SIGTSTP,
        };
        let ends = [
            SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGINT, SIGKILL, SIGQUIT, SIGSEGV, SIGSTOP, SIGSYS, SIGTERM,
            SIGTRAP,
        ];
        !ends.contains(signal) && *signal != SIGTSTP
    });
    for signal in spared {
        daemon.signal(signal);
        let _ = RawSession::begin(daemon.socket());
        assert!(daemon.is_alive(), "{signal}");
    }
    let (status, log) = daemon.stop_with(Signal::SIGQUIT);
    assert!(status.success(), "{status} {log:?}");
    let said = |parts: &[&str]| log.iter().any(|line| parts.iter().all(|part| line.contains(part)));
    let sender = format!("from process {} of uid {}", std::process::id(), nix::unistd::getuid());
    assert!(said(&["SIGHUP", &sender, "goes on"]), "{log:?}");
    assert!(said(&["stopping", "SIGQUIT", &sender]), "{log:?}");
    assert!(said(&["stopped"]), "{log:?}");
}

/// A shell has what it starts in the background ignore Ctrl-C.
#[test]
fn a_signal_that_the_store_was_started_ignoring_does_not_end_it() {
    let arguments = ["-c", "trap '' INT; exec \"$0\" --size 1MB \"$@\"", STORE];
    let mut daemon = Daemon::start_with("sh", &arguments);
    daemon.signal(Signal::SIGINT);
    let _ = RawSession::begin(daemon.socket());
    assert!(daemon.is_alive());
    assert!(daemon.stop().0.success());
}

/// What cannot be logged is no reason to end.
#[test]
fn a_store_outlives_whoever_reads_its_log() {
    let (_directory, socket) = in_directory();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut store = std::process::Command::new(STORE)
        .args(["--size", "1MB", "--log", "trace", "--socket", &socket])
        .stderr(writer)
        .spawn()
        .expect("the daemon starts");
    drop(reader);
    plasmon_tests::eventually("it listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    nix::sys::signal::kill(pid_of(&store), Signal::SIGHUP).expect("it is there");
    let _ = RawSession::begin(Path::new(&socket));
    assert!(matches!(store.try_wait(), Ok(None)));
    nix::sys::signal::kill(pid_of(&store), Signal::SIGTERM).expect("it is there");
    assert!(store.wait().expect("it ended").success());
}

fn pid_of(child: &std::process::Child) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("pids fit"))
}

/// Whoever starts a store and reads that it is ready can tell it from one that died; gone, it leaves none behind.
#[test]
fn a_store_that_nobody_waits_for_any_more_ends() {
    let (directory, socket) = in_directory();
    let arguments = ["--size", "1MB", "--tell-ready", "--remove-directory", "--socket", &socket];
    let start = |out| {
        let mut command = std::process::Command::new(STORE);
        command.args(arguments).stdout(out).stderr(std::process::Stdio::null()).spawn().expect("it starts")
    };
    let mut store = start(std::process::Stdio::piped());
    let mut line = String::new();
    let out = store.stdout.take().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("it says so");
    assert_eq!(line, format!("ready {socket}\n"));
    nix::sys::signal::kill(pid_of(&store), Signal::SIGTERM).expect("it is there");
    assert!(store.wait().expect("it ended").success());
    assert!(!directory.path().exists(), "the directory was made for the store");
    fs::create_dir(directory.path()).expect("it is gone");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut store = start(writer.into());
    assert_eq!(store.wait().expect("it ended").code(), Some(1));
    assert!(!directory.path().exists());
}

/// Without pidfds nobody tells the store when its owner has ended: it looks.
#[test]
fn a_store_ends_with_its_owner_also_where_the_kernel_has_no_pidfds() {
    let (_directory, socket) = in_directory();
    let line = format!(
        "{STORE} --size 1MB --pretend-missing pidfd_open,peer_pidfd --owner $$ --socket {socket} 2>/dev/null & \
         while ! [ -S {socket} ]; do :; done"
    );
    let (code, ..) = run("sh", &["-c", &line]);
    assert_eq!(code, 0);
    plasmon_tests::eventually("the store has ended, and has left nothing", || {
        !Path::new(&socket).exists() && !Path::new(&format!("{socket}.lock")).exists()
    });
}

/// What was asked is answered, whatever it waits for, and nobody who does not read holds up the end.
#[test]
fn a_store_that_stops_answers_every_request_it_has() {
    let daemon = Daemon::start(STORE, "16MiB");
    let mut session = RawSession::begin(daemon.socket());
    let join = || {
        let mut raw = Raw::connect(daemon.socket());
        raw.join(session.welcome.token).expect("the session lives");
        raw
    };
    let (mut waiting, mut writing, mut deaf) = (join(), join(), join());
    let place = |text: &str| (Namespace::default(), Name::new(text).expect("a valid name"));
    let commit = |number: usize, len: usize| {
        let (namespace, name) = place(&format!("a name that makes a page of a listing long {number}"));
        let payload = Payload::Inline { bytes: vec![7; len].into() };
        let header = Header::new(Kind::BYTES);
        let bind = Bind { namespace, name, description: None, metadata: None, header, ttl: None, payload };
        Commit { conditions: vec![], changes: vec![Change::Bind(bind)], end_leases: vec![] }
    };
    for number in 0..2_000 {
        session.requests.call(&commit(number, 1)).expect("there is room");
    }
    let (namespace, name) = place("never bound");
    waiting.send(1, &Wait { namespace, name, above_version: 0, wait_ms: u64::MAX });
    let list = ListNames { namespace: None, prefix: String::new(), after: None, limit: 0 };
    (0..50).for_each(|id| deaf.send(id, &list));
    plasmon_tests::eventually("they wait, and are not read", || {
        let stats = session.requests.call(&ReadStats {}).expect("the store answers");
        stats.waits == 1 && stats.requests >= 2_000 + 50
    });
    daemon.signal(Signal::SIGSTOP);
    (0..20).for_each(|id| writing.send(id, &commit(2_000, 100)));
    let lifeline = &mut session.lifeline;
    let (status, log) = {
        daemon.signal(Signal::SIGTERM);
        daemon.signal(Signal::SIGCONT);
        daemon.stop()
    };
    assert!(status.success(), "{status} {log:?}");
    assert_eq!(waiting.receive::<Bound>(), Err(Failure::ShuttingDown));
    let answers: Vec<_> = (0..20).map(|_| writing.receive::<Committed>()).collect();
    let done = answers.iter().take_while(|answer| answer.is_ok()).count();
    let refused = answers[done..].iter().all(|answer| *answer == Err(Failure::ShuttingDown));
    assert!(
        refused,
        "what is refused is refused for this reason, and nothing behind it is done: {answers:?}"
    );
    assert!(waiting.is_closed_by_peer() && writing.is_closed_by_peer() && lifeline.is_closed_by_peer());
}

/// A helper that is gone would leave requests without an answer: the store ends instead, and says so.
#[test]
fn a_helper_that_fails_ends_the_store_with_a_code_of_its_own() {
    for helper in ["plasmon-populate", "plasmon-scan", "plasmon-look", "plasmon-copy"] {
        let (directory, socket) = in_directory();
        let (code, _, stderr) =
            run(STORE, &["--size", "1MB", "--pretend-panic", helper, "--socket", &socket]);
        assert_eq!(code, 6, "{stderr}");
        assert!(stderr.contains(&format!("helper thread {helper} failed")), "{stderr}");
        let left = fs::read_dir(directory.path()).expect("a directory").count();
        assert_eq!(left, 0, "socket and lock are gone");
    }
}

#[test]
fn the_probe_names_kernel_features_and_the_largest_size() {
    let (code, stdout, _) = run(STORE, &["--probe"]);
    assert_eq!(code, 0);
    for part in ["collapse", "largest size", "bytes", "socket"] {
        assert!(stdout.contains(part), "{part:?} is not in {stdout:?}");
    }
}

#[test]
fn the_service_manager_is_told() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("notify");
    let notify = std::os::unix::net::UnixDatagram::bind(&path).expect("a free path");
    notify.set_read_timeout(Some(std::time::Duration::from_secs(30))).expect("a timeout can be set");
    let mut store = std::process::Command::new(STORE)
        .args(["--size", "1MB", "--socket"])
        .arg(directory.path().join("plasma"))
        .env("NOTIFY_SOCKET", &path)
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the daemon starts");
    let mut buffer = [0; 256];
    let len = notify.recv(&mut buffer).expect("the daemon notifies");
    assert!(buffer[..len].starts_with(b"READY=1"));
    store.kill().expect("it is there");
    store.wait().expect("it ended");
}

//! What users other than the store's own may do (section 3, the table of regions): everything that its own may, but
//! for writing the arena themselves.

use crate::{CLIENT, PLASMON, STORE};
use nix::sys::uio::pread;
use plasmon::{Blob, Brain, Error, Object, Table};
use plasmon_protocol::{
    message::Find,
    name::{Name, Namespace},
};
use plasmon_tests::{
    TestResult,
    bystander::is_as_before,
    client::Client,
    daemon::Daemon,
    eventually,
    raw::RawSession,
    worker::{fill_of, words},
};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

const UID: u32 = 54_321;
const THIRD_UID: u32 = 54_322;

/// What another user can run, whatever the modes of this checkout.
struct Programs(tempfile::TempDir);

impl Programs {
    /// `None`, and a note, if this is not root: only root can start a process of another user.
    fn copy() -> Option<Programs> {
        if !nix::unistd::getuid().is_root() {
            eprintln!("skipped: only root can start a process of another user");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        open(directory.path());
        for program in [CLIENT, PLASMON] {
            let copy = directory.path().join(Path::new(program).file_name().expect("a file"));
            fs::copy(program, &copy).expect("a copy");
            open(&copy);
        }
        Some(Programs(directory))
    }

    fn path(&self, program: &str) -> PathBuf {
        self.0.path().join(Path::new(program).file_name().expect("a file"))
    }

    fn client(&self, uid: u32, daemon: &Daemon) -> Client {
        Client::start_as(uid, &self.path(CLIENT).display().to_string(), daemon.socket())
    }

    fn connected(&self, uid: u32, daemon: &Daemon) -> Client {
        let mut client = self.client(uid, daemon);
        client.ask("connect");
        client
    }
}

fn open(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("modes can be set");
}

/// A store that admits both other users, and a client of its own user.
fn store(size: &str) -> (Daemon, Brain) {
    let allowed = ["--size", size, "--allow-uid", "54321", "--allow-uid", "54322"];
    let daemon = Daemon::start_with(STORE, &allowed);
    open(daemon.socket().parent().expect("a directory"));
    let brain = Brain::builder().path(daemon.socket()).connect().expect("the store answers");
    (daemon, brain)
}

#[test]
fn another_user_is_refused_or_admitted_without_a_writable_arena() -> TestResult {
    let Some(programs) = Programs::copy() else { return Ok(()) };
    let closed = Daemon::start(STORE, "16MiB");
    open(closed.socket().parent().expect("a directory"));
    let mut client = programs.client(UID, &closed);
    let error = client.ask_for_error("connect");
    assert!(error.starts_with("StoreUnavailable ") && error.contains("may not connect"), "{error}");
    // Even if somebody opens the socket itself, the daemon looks at who calls.
    fs::set_permissions(closed.socket(), fs::Permissions::from_mode(0o666))?;
    let error = client.ask_for_error("connect");
    assert!(error.starts_with("NotAdmitted ") && error.contains("--allow-uid 54321"), "{error}");

    let (daemon, brain) = store("16MiB");
    let before = brain.stats()?;
    brain.learn("ours", &words(1_000_000, 7))?;
    brain.learn("small", &words(20, 8))?;
    let mut client = programs.connected(UID, &daemon);
    // Index and arena cannot be written, not even through /proc; the pin table can.
    assert_eq!(client.ask("rights"), "[false, false, true]");
    let root = RawSession::begin(daemon.socket());
    assert_eq!((root.fds.len(), root.welcome.writable), (4, true));

    // It reads and learns, and everybody sees whose that is.
    assert_eq!((client.ask("ends ours"), client.ask("ends small")), ("1000000 7 0".into(), "20 8 0".into()));
    for len in [8, 1_000, 60_000, 100_000] {
        client.ask(&format!("learn theirs {len} 9"));
        let theirs: Blob = brain.recall("theirs")?;
        assert_eq!((theirs.len(), fill_of(&theirs)), (len, Some(9)));
        let metadata = brain.metadata("theirs")?.ok_or("it is bound")?;
        assert_eq!((metadata.writer_uid, metadata.writer_pid), (UID, client.pid()));
        assert_eq!(brain.recall::<Object>("theirs")?.writer_uid(), UID);
        // Whoever binds another name to their bytes: it is theirs that are read (growth-review G2).
        brain.copy("theirs", "copy")?;
        brain.rename("copy", "moved")?;
        assert_eq!(brain.recall::<Object>("moved")?.writer_uid(), UID);
        let metadata = brain.metadata("moved")?.ok_or("it is bound")?;
        assert_eq!((metadata.writer_uid, metadata.writer_pid), (UID, client.pid()));
        brain.forget("moved")?;
    }
    client.ask("forget small");

    // It writes to a copy-on-write mapping of what it can only read, and changes nothing.
    let ours: Blob = brain.recall("ours")?;
    assert_eq!(client.ask("overwrite ours"), "true");
    assert_eq!((fill_of(&ours), brain.recall::<Blob>("ours")?), (Some(7), ours));

    drop((client, root));
    brain.clear()?;
    is_as_before(&brain, &before);
    Ok(())
}

/// Whatever is large is written into a region of its own, and lies in the arena once it is bound.
#[test]
fn another_user_learns_what_is_large_and_everyone_holds_it_in_place() -> TestResult {
    let Some(programs) = Programs::copy() else { return Ok(()) };
    let (daemon, brain) = store("64MiB");
    let mut theirs = programs.connected(UID, &daemon);
    let mut third = programs.connected(THIRD_UID, &daemon);
    for round in 1..=2 {
        theirs.ask(&format!("learn bytes 5000000 {round}"));
        theirs.ask("half made 3000000");
        theirs.ask("seal");
        theirs.ask("half-table table 12000000");
        theirs.ask("finish");
        theirs.ask(&format!("batch many- 300 70000 {round}"));
    }
    let bytes: Blob = brain.recall("bytes")?;
    assert_eq!((bytes.len(), fill_of(&bytes)), (5_000_000, Some(2)));
    assert_eq!(third.ask("ends made"), "3000000 7 8");
    let table: Table = brain.recall("table")?;
    assert!(table.num_rows() >= 6_000_000 / 8, "{} rows", table.num_rows());
    let numbers = brain.recall::<Object>("table")?.table()?;
    let sevens = |batch: &arrow_array::RecordBatch| {
        let column = batch.column(0).as_any().downcast_ref::<arrow_array::Int64Array>();
        column.is_some_and(|column| column.values().iter().all(|&number| number == 7))
    };
    assert!(numbers.iter().all(sevens));
    for number in [0, 150, 299] {
        let one: Blob = brain.recall(&format!("many-{number}"))?;
        assert_eq!((one.len(), fill_of(&one)), (70_000, Some(2)));
    }
    // All of them hold the same memory: it is in use once, by a pin of each.
    let held: Vec<String> = [&mut theirs, &mut third].map(|client| client.ask("hold bytes")).into();
    assert_eq!(held[0], held[1]);
    drop((bytes, table, numbers));
    // A process that another test forks meanwhile holds what this one did, until it runs its own program.
    eventually("what is held is held by them alone", || {
        let now = brain.stats().ok();
        now.is_some_and(|now| (now.leases, now.pins, now.leased_bytes, now.limbo_bytes) == (0, 2, 0, 0))
    });
    let before = brain.stats()?;
    assert!(brain.forget("bytes")?);
    let after = brain.stats()?;
    assert_eq!((after.used_bytes, after.pins), (before.used_bytes, 2));
    assert!(after.limbo_bytes > 5_000_000);
    assert_eq!(theirs.ask("checksums"), held[0]);
    drop((theirs, third));
    brain.clear()?;
    eventually("all of it is free", || brain.stats().is_ok_and(|stats| stats.used_bytes == 0));
    Ok(())
}

/// Names and objects of such a batch lie in regions of their own, and it is copied from there.
#[test]
fn another_user_commits_a_batch_beyond_a_frame() -> TestResult {
    const NAMES: usize = 62_000;
    let Some(programs) = Programs::copy() else { return Ok(()) };
    let (daemon, brain) = store("128MiB");
    let mut theirs = programs.connected(UID, &daemon);
    let version = theirs.ask_for_number(&format!("batch name- {NAMES} 40 6"));
    assert_eq!(brain.len()?, NAMES as u64);
    for number in (0..NAMES).step_by(997).chain([NAMES - 1]) {
        let one: Blob = brain.recall(&format!("name-{number}"))?;
        assert_eq!((one.len(), fill_of(&one)), (40, Some(6)), "{number}");
    }
    let last = brain.metadata(&format!("name-{}", NAMES - 1))?.ok_or("it is bound")?;
    assert_eq!((last.version, last.writer_uid), (version, UID));
    assert_eq!(brain.stats()?.leases, 0);
    Ok(())
}

/// The bytes are copied once, and only then bound: what the writer does with its region later harms nobody.
#[test]
fn what_another_user_wrote_cannot_be_changed_by_it_any_more() -> TestResult {
    let Some(programs) = Programs::copy() else { return Ok(()) };
    let (mut daemon, brain) = store("16MiB");
    let before = brain.stats()?;
    let mut theirs = programs.client(UID, &daemon);
    assert_eq!(theirs.ask("write-after-commit written"), "0x11");
    let mut root = RawSession::begin(daemon.socket());
    let find = Find { namespace: Namespace::default(), name: Name::new("written")?, slot: 0 };
    let found = root.requests.call(&find).expect("the slot is free").location.ok_or("it is bound")?;
    let mut bytes = vec![0; 100_000];
    assert_eq!(pread(&root.fds[1], &mut bytes, i64::try_from(found.offset)?)?, 100_000);
    assert!(bytes.iter().all(|&byte| byte == 0x11));
    drop((theirs, root));
    brain.clear()?;
    is_as_before(&brain, &before);
    assert_eq!(brain.stats()?.leases, 0);
    assert!(daemon.is_alive());
    Ok(())
}

/// Room for it is taken as for everything, and a full store says so.
/// Invariant 7, for readers: what another user wrote is an error at worst, whatever its header vouches for.
#[test]
fn malformed_objects_of_another_user_are_errors_for_those_who_recall_them() -> TestResult {
    let Some(programs) = Programs::copy() else { return Ok(()) };
    let (mut daemon, brain) = store("16MiB");
    let before = brain.stats()?;
    let mut stranger = programs.connected(UID, &daemon);
    let count = stranger.ask_for_number("learn-garbage bad");
    let mut refused = 0;
    for number in 0..count {
        let object: Object = brain.recall(&format!("bad{number}"))?;
        let table = object.table();
        let typed = match object.kind() {
            plasmon::Kind::TABLE => object.to::<Table>().map(drop),
            plasmon::Kind::BYTES => object.to::<Blob>().map(drop),
            plasmon::Kind::TEXT => object.to::<String>().map(drop),
            plasmon::Kind::JSON => object.to::<serde_json::Value>().map(drop),
            plasmon::Kind::TENSOR => object.to::<plasmon::TensorView>().map(drop),
            _ => object.to::<plasmon::Pickle>().map(drop),
        };
        for result in [table.map(drop), typed] {
            match result {
                Ok(()) => {}
                Err(Error::Codec(_)) => refused += 1,
                Err(error) => return Err(format!("bad{number}: {error:?}").into()),
            }
        }
    }
    // Some bytes of the damaged files are not looked at, or mean something else that is valid.
    assert!(refused > count, "{refused} of {}", 2 * count);
    drop(stranger);
    brain.clear()?;
    is_as_before(&brain, &before);
    assert!(daemon.is_alive());
    Ok(())
}

#[test]
fn a_full_store_refuses_another_user_as_anybody() -> TestResult {
    let Some(programs) = Programs::copy() else { return Ok(()) };
    let (daemon, brain) = store("16MiB");
    brain.learn("ours", &words(6_000_000, 7))?;
    let before = brain.stats()?.used_bytes;
    let mut theirs = programs.connected(UID, &daemon);
    for command in
        ["learn large 20000000 1", "half large 20000000", "learn large 11000000 1", "batch x 200 70000 1"]
    {
        let error = theirs.ask_for_error(command);
        assert!(error.starts_with("StoreFull ") && error.contains("used"), "{command}: {error}");
        let stats = brain.stats()?;
        assert_eq!((stats.used_bytes, stats.leases, stats.objects), (before, 0, 1), "{command}");
    }
    theirs.ask("learn large 9000000 1");
    assert_eq!(brain.recall::<Blob>("large")?.len(), 9_000_000);
    Ok(())
}

/// Invariant 5.
#[test]
fn another_user_that_is_killed_half_way_leaves_nothing() -> TestResult {
    let Some(programs) = Programs::copy() else { return Ok(()) };
    let (daemon, brain) = store("64MiB");
    brain.learn("ours", &words(100_000, 7))?;
    let (start, leases) = (brain.stats()?.used_bytes, brain.stats()?.leases);
    let free_again = || brain.stats().is_ok_and(|stats| (stats.used_bytes, stats.leases) == (start, leases));
    for begun in ["half large 20000000", "half-table large 20000000"] {
        let mut theirs = programs.connected(UID, &daemon);
        theirs.ask(begun);
        assert!(brain.stats()?.used_bytes > start + 10_000_000, "{begun}");
        theirs.kill();
        eventually("its room is free", free_again);
    }
    // In the middle of a commit: all of it or nothing.
    for _ in 0..10 {
        let mut theirs = programs.connected(UID, &daemon);
        theirs.tell("batch many- 500 70000 3");
        eventually("it has begun to write", || brain.stats().is_ok_and(|stats| stats.leases > leases + 3));
        theirs.kill();
        eventually("its leases have ended", || brain.stats().is_ok_and(|stats| stats.leases == leases));
        let bound = brain.names("many-")?.len();
        assert!(bound == 0 || bound == 500, "{bound} names of 500");
        let mut forget = brain.batch()?;
        for name in brain.names("many-")? {
            forget = forget.forget(&name)?;
        }
        forget.commit()?;
        eventually("its room is free", free_again);
    }
    Ok(())
}

#[test]
fn another_user_puts_files() -> TestResult {
    let Some(programs) = Programs::copy() else { return Ok(()) };
    let (daemon, brain) = store("64MiB");
    let bytes = words(8_000_000, 5);
    let text: String = (0..200_000).map(|number| format!("{number},{}\n", number * 2)).collect();
    for (name, content) in [("raw.bin", bytes.as_slice()), ("rows.csv", format!("a,b\n{text}").as_bytes())] {
        let file = programs.0.path().join(name);
        fs::write(&file, content)?;
        open(&file);
        let format = if name == "raw.bin" { "raw" } else { "csv" };
        let put = Command::new(programs.path(PLASMON))
            .uid(UID)
            .gid(UID)
            .env_remove("PLASMON_SOCKET")
            .arg("--socket")
            .arg(daemon.socket())
            .args(["put", name])
            .arg(&file)
            .args(["--format", format])
            .output()?;
        assert!(put.status.success(), "{}", String::from_utf8_lossy(&put.stderr));
    }
    assert!(*brain.recall::<Blob>("raw.bin")? == *bytes);
    assert_eq!(brain.recall::<Table>("rows.csv")?.num_rows(), 200_000);
    assert_eq!(brain.metadata("rows.csv")?.ok_or("it is bound")?.writer_uid, UID);
    Ok(())
}

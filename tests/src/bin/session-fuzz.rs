//! Sessions that begin as they should and go wrong: `session-fuzz --seconds N [--seed S]`.
//!
//! Each session speaks the protocol to a real store, with requests that make sense, and breaks it at some time: bits
//! flip, frames are cut, lengths lie, leases and slots are made up, answers are left unread, and its own session region
//! is filled with anything. An ordinary client looks on all the while. Whatever was sent, the store must serve it, and
//! when the session is over nothing of it may be left.
#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

use plasmon::{Blob, Brain};
use plasmon_protocol::{
    frame::{FrameHeader, HEADER_BYTES},
    layout::session,
    message::*,
    name::{Name, Namespace},
    object::{Header, Kind},
};
use plasmon_shm::WordsMapping;
use plasmon_tests::{
    daemon::Daemon,
    random::Random,
    raw::RawSession,
    worker::{fill_of, words},
};
use std::{
    io::Write,
    os::unix::net::UnixStream,
    path::Path,
    process::ExitCode,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (seconds, seed) = match words[..] {
        ["--seconds", seconds] => (seconds.parse(), Ok(1)),
        ["--seconds", seconds, "--seed", seed] => (seconds.parse(), seed.parse()),
        _ => {
            eprintln!("session-fuzz --seconds N [--seed S]");
            return ExitCode::from(2);
        }
    };
    let (Ok(seconds), Ok(seed)) = (seconds, seed) else { return ExitCode::from(2) };
    match fuzz(Duration::from_secs(seconds), seed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("session-fuzz: {wrong}");
            ExitCode::FAILURE
        }
    }
}

fn fuzz(lasts: Duration, seed: u64) -> Result<(), String> {
    let program = std::env::current_exe().expect("this program is a file").with_file_name("store-under-test");
    let arguments = ["--size", "64MiB", "--frame-time-ms", "200"];
    let mut store = Daemon::start_with(&program.display().to_string(), &arguments);
    let brain = Brain::builder().path(store.socket()).connect().map_err(|error| error.to_string())?;
    // Where the others, who may clear and remove what is theirs, have no business.
    let ordinary = brain.in_namespace("ordinary-client").map_err(|error| error.to_string())?;
    let mut random = Random::new(seed);
    let (mut sessions, mut sent) = (0_u64, 0_u64);
    let start = Instant::now();
    while start.elapsed() < lasts {
        // A seed of its own, so that one session can be played again.
        let session_seed = random.word();
        let before = brain.stats().map_err(|error| error.to_string())?;
        let (frames, region) = misbehave(store.socket(), &mut Random::new(session_seed));
        sent += frames;
        sessions += 1;
        let serves =
            serves(&ordinary, sessions).and_then(|()| leaves_nothing(&brain, before.descriptors, &region));
        if let Err(wrong) = serves {
            let alive = store.is_alive();
            return Err(format!("seed {seed}, session {sessions} ({session_seed}), alive {alive}: {wrong}"));
        }
    }
    let stats = brain.stats().map_err(|error| error.to_string())?;
    println!("{sessions} sessions sent {sent} frames; {} were refused; seed {seed}", stats.refused);
    Ok(())
}

/// An ordinary client is served, and what it holds stays as it is.
fn serves(brain: &Brain, round: u64) -> Result<(), String> {
    let text = |error: plasmon::Error| error.to_string();
    for len in [20, 1_000, 100_000] {
        brain.learn("ordinary", &words(len, round)).map_err(text)?;
        let held: Blob = brain.recall("ordinary").map_err(text)?;
        brain.forget("ordinary").map_err(text)?;
        brain.learn("over it", &words(len, !round)).map_err(text)?;
        if fill_of(&held) != Some(round) {
            return Err("what an ordinary client held has changed".to_owned());
        }
    }
    Ok(())
}

fn leaves_nothing(brain: &Brain, descriptors: u64, region: &WordsMapping) -> Result<(), String> {
    let start = Instant::now();
    loop {
        region.words()[session::PINS..].iter().for_each(|word| word.store(0, Ordering::Relaxed));
        for namespace in brain.namespaces().map_err(|error| error.to_string())? {
            let brain = brain.in_namespace(&namespace.namespace).map_err(|error| error.to_string())?;
            let _ = brain.clear();
            let _ = brain.remove_namespace();
        }
        let stats = brain.stats().map_err(|error| error.to_string())?;
        let left = (stats.used_bytes, stats.limbo_bytes, stats.pins, stats.waits, stats.sessions);
        if left == (0, 0, 0, 0, 1) && stats.leases <= 1 && stats.descriptors <= descriptors {
            return Ok(());
        }
        if start.elapsed() > Duration::from_secs(30) {
            return Err(format!("left behind, {descriptors} descriptors before: {stats:?}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// One session. Returns how many frames it sent.
///
/// This process lives on, and whatever it, or the store for it, put into its slots: so its session region is returned.
fn misbehave(socket: &Path, random: &mut Random) -> (u64, WordsMapping) {
    let session = RawSession::begin(socket);
    let region = plasmon_shm::ClientRegion::from_fd(
        session.fds[2].try_clone().expect("a descriptor"),
        session.welcome.session_bytes,
    )
    .and_then(|region| region.map_words())
    .expect("a session region");
    let mut sent = 0;
    let mut streams: Vec<UnixStream> = Vec::new();
    for _ in 0..1 + random.below(3) {
        let Ok(mut stream) = UnixStream::connect(socket) else { continue };
        let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
        let role = match random.below(8) {
            0 => Role::Lifeline,
            1 => Role::Child { token: session.welcome.token, regions: 1 + u32::from(random.below(9) == 0) },
            2 => Role::Requests { token: [9; 16] },
            _ => Role::Requests { token: session.welcome.token },
        };
        let mut greeting = framed(1, &Hello { magic: MAGIC, version: VERSION, role });
        if random.below(8) == 0 {
            damage(&mut greeting, random);
        }
        sent += u64::from(stream.write_all(&greeting).is_ok());
        streams.push(stream);
    }
    for _ in 0..random.below(60) {
        let Some(index) = usize::try_from(random.below(streams.len().max(1) as u64)).ok() else { break };
        let Some(stream) = streams.get_mut(index) else { break };
        let mut bytes = request(random);
        match random.below(10) {
            0 => damage(&mut bytes, random),
            1 => bytes.truncate(usize::try_from(random.below(bytes.len() as u64)).expect("an index")),
            2 => {
                // A header of any length, over whatever body there is.
                let header = FrameHeader {
                    len_bytes: u32::try_from(random.below(1 << 25)).expect("small"),
                    kind: u16::try_from(random.below(50)).expect("small"),
                    request_id: random.word(),
                };
                bytes.splice(..HEADER_BYTES, header.to_bytes());
            }
            3 => {
                for _ in 0..random.below(50) {
                    // What the header, lease states and the first pins say; slots of pins far beyond as well.
                    let at = match random.below(3) {
                        0 => usize::try_from(random.below(1_200)).expect("small"),
                        1 => session::PINS + usize::try_from(random.below(60_000)).expect("small"),
                        _ => usize::try_from(random.below(region.words().len() as u64)).expect("an index"),
                    };
                    let word = if random.below(2) == 0 { random.below(1 << 20) } else { random.word() };
                    region.words()[at].store(word, Ordering::Relaxed);
                }
            }
            _ => {}
        }
        // Nobody reads the answers: a connection that is full is given up.
        sent += u64::from(stream.write_all(&bytes).is_ok());
        if random.below(30) == 0 {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
    drop(streams);
    // One of them may have said so already.
    let mut last = UnixStream::connect(socket);
    if let Ok(last) = &mut last {
        let role = Role::Requests { token: session.welcome.token };
        let _ = last.write_all(&framed(1, &Hello { magic: MAGIC, version: VERSION, role }));
        let _ = last.write_all(&framed(2, &Goodbye {}));
    }
    let mut session = session;
    let _ = session.lifeline.is_closed_by_peer();
    drop(last); // not before: what is closed with an answer unread is not heard to its end
    (sent, region)
}

fn framed<M: Message>(id: u64, message: &M) -> Vec<u8> {
    let mut frame = Vec::new();
    message.frame(id, &mut frame).expect("it fits into a frame");
    frame
}

fn damage(bytes: &mut [u8], random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let at = usize::try_from(random.below(bytes.len() as u64)).expect("an index");
        bytes[at] ^= 1 << random.below(8);
    }
}

/// A request that makes sense by itself.
fn request(random: &mut Random) -> Vec<u8> {
    let id = random.below(5);
    let lease = random.below(12);
    let small = |random: &mut Random, end: u64| u32::try_from(random.below(end)).expect("small");
    let namespace = match random.below(6) {
        0 => Namespace::new("another").expect("valid"),
        _ => Namespace::default(),
    };
    let name = Name::new(&format!("n{}", random.below(8))).expect("valid");
    match random.below(18) {
        0..=3 => {
            let changes = (0..random.below(6)).map(|_| change(random)).collect();
            let conditions: Vec<Condition> = (0..random.below(2))
                .map(|_| Condition {
                    namespace: namespace.clone(),
                    name: name.clone(),
                    expect: match random.below(3) {
                        0 => Expect::Absent,
                        1 => Expect::Present,
                        _ => Expect::Version { version: random.below(1_000) },
                    },
                })
                .collect();
            let end_leases = (0..random.below(3)).map(|_| random.below(12)).collect();
            framed(id, &Commit { conditions, changes, end_leases })
        }
        4 => framed(id, &Reserve { len_bytes: random.word() >> random.below(64) }),
        5 => framed(id, &ExtendLease { lease, len_bytes: random.word() >> random.below(64) }),
        6 => framed(id, &EndLease { lease }),
        7 => framed(id, &AddRegion {}),
        8 => framed(id, &Find { namespace, name, slot: small(random, 70_000) }),
        9 => {
            let names = (0..random.below(5)).map(|_| NameSlot {
                namespace: namespace.clone(),
                name: name.clone(),
                slot: small(random, 70_000),
            });
            framed(id, &FindMany { names: names.collect() })
        }
        10 => {
            framed(id, &Wait { namespace, name, above_version: random.below(9), wait_ms: random.below(100) })
        }
        11 => {
            let list =
                ListNames { namespace: None, prefix: String::new(), after: None, limit: small(random, 9) };
            framed(id, &list)
        }
        12 => framed(id, &ListNamespaces { after: None }),
        13 => framed(id, &Describe { namespace, name }),
        14 => framed(id, &ReadStats {}),
        15 => {
            let (offset, len_bytes) = (random.below(1 << 20) * 64, random.word() >> random.below(64));
            framed(id, &LongCommit { lease, offset, len_bytes })
        }
        16 => {
            let (version, wait_ms) = (random.below(9), random.below(100));
            framed(id, &WaitChange { namespace, name, version, wait_ms })
        }
        _ => framed(id, &Kick { pid: u32::MAX - small(random, 9) }),
    }
}

fn change(random: &mut Random) -> Change {
    let namespace = match random.below(6) {
        0 => Namespace::new("another").expect("valid"),
        _ => Namespace::default(),
    };
    let name = Name::new(&format!("n{}", random.below(8))).expect("valid");
    match random.below(13) {
        11 | 12 => Change::SameAs(same(random, namespace, name)),
        9 => Change::RemoveEmptyNamespace { namespace },
        10 => Change::EnsureCache { namespace },
        8 => {
            let (is_cache, is_mortal) = (random.below(2) == 0, random.below(2) == 0);
            Change::DeclareNamespace { namespace, is_cache, ttl: is_mortal.then(|| ttl(random)) }
        }
        0 => Change::Unbind { namespace, name },
        1 => Change::RemoveNamespace { namespace },
        2 => Change::ClearNamespace { namespace },
        3 => Change::RegisterNamespace { namespace },
        _ => {
            let mut header = Header::new(Kind::BYTES);
            let payload = match random.below(4) {
                3 => Payload::AsChange { index: u32::try_from(random.below(4)).expect("small") },
                0 => Payload::Inline {
                    bytes: vec![7; usize::try_from(random.below(3_000)).expect("small")].into(),
                },
                1 => {
                    if random.below(8) > 0 {
                        header = header.with_inline(&[7; 9]).expect("it is short");
                    }
                    Payload::InHeader
                }
                _ => {
                    let (lease, offset) = (random.below(12), random.below(1 << 20) * 64);
                    Payload::Leased { lease, offset, len_bytes: random.below(1 << 16) }
                }
            };
            let ttl = (random.below(4) == 0).then(|| ttl(random));
            let bind = Bind { namespace, name, description: None, metadata: None, header, ttl, payload };
            match random.below(4) {
                0 => Change::BindEphemeral(bind),
                1 => Change::Replace(bind),
                _ => Change::Bind(bind),
            }
        }
    }
}

fn same(random: &mut Random, namespace: Namespace, name: Name) -> SameAs {
    let of_name = Name::new(&format!("name {}", random.below(6))).expect("a valid name");
    SameAs {
        of_namespace: namespace.clone(),
        namespace,
        name,
        description: None,
        metadata: None,
        lives: match random.below(3) {
            0 => Lives::AsDeclared,
            1 => Lives::For(ttl(random)),
            _ => Lives::AsSource,
        },
        of_name,
        at: (random.below(3) == 0).then(|| random.word() >> random.below(64)),
    }
}

fn ttl(random: &mut Random) -> Ttl {
    Ttl { ttl_ns: random.word() >> random.below(64), is_sliding: random.below(2) == 0 }
}

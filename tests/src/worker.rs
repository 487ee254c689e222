//! What client processes do in tests, by command.
//!
//! `serve` reads commands from standard input, one on a line, and answers each on a line of standard output: `ok` and
//! what it came to, or `error`, the variant of the error, and its message.
//!
//! | command | answer |
//! | --- | --- |
//! | `connect` | |
//! | `learn NAME LEN FILL` | version; the value is `LEN` bytes, all words of which are `FILL` |
//! | `learn-many PREFIX COUNT LEN FILL` | how many of `PREFIX0`, `PREFIX1`, … were learned before the store was full |
//! | `learn-int NAME VALUE` | version |
//! | `forget NAME` | `true` or `false` |
//! | `hold NAME` | checksum; the object is held |
//! | `checksums` | a checksum for each object held |
//! | `drop` | nothing is held any more |
//! | `half NAME LEN` | an object of `LEN` bytes is created, and half of it is written |
//! | `half-table NAME LEN` | as `half`, for a table whose length nobody knows |
//! | `seal` | version of what `half` began, its second half written |
//! | `finish` | version of what `half-table` began, as it is |
//! | `batch PREFIX COUNT LEN FILL` | version of `PREFIX0`, `PREFIX1`, …, learned at one moment |
//! | `ends NAME` | length, first and last byte |
//! | `wait NAME MS` | version of what was recalled within `MS` milliseconds |
//! | `increment NAME TIMES` | how often another process was faster |
//! | `claim PREFIX COUNT VALUE` | how many of `PREFIX0`, `PREFIX1`, … were free |
//! | `rebind FIRST LAST` | the rounds of [`STEADY`] and [`NUMBERS`] are written |
//! | `watch LOOKS` | what [`Watched`] says |
//! | `rebind-pair ROUNDS` | see `look_at_pair` |
//! | `look-at-pair LOOKS` | different versions seen |
//! | `watch-namespace NAMESPACE NAME ...` | first an empty answer, then the looks it took until none was bound |
//! | `learn-samples` | |
//! | `check-samples` | |
//! | `attach TIMES` | descriptors, mappings and resident bytes after connecting, recalling `a` and leaving so often |
//! | `learn-garbage NAME` | how many malformed objects of every kind it bound to `NAME0`, `NAME1`, … |
//! | `rights` | of each descriptor of a session of its own, whether it may be written through |
//! | `write-after-commit NAME` | for a user who may not write the arena: see `write_after_commit` |

use crate::{random::Random, raw::RawSession, samples, stress};
use nix::{
    fcntl::{FallocateFlags, FcntlArg, OFlag, SealFlag, fallocate, fcntl},
    sys::uio::{pread, pwrite},
    unistd::ftruncate,
};
use plasmon::{Blob, Brain, Error, LearnOptions, Object, TableWriter, Writable};
use plasmon_protocol::{
    message::{Bind, Change, Commit, Failure, Granted, Payload, Reserve},
    name::{Name, NameError, Namespace},
    object::{Flags, Header, Kind},
};
use std::{
    fs::OpenOptions,
    hash::{DefaultHasher, Hasher},
    io::{BufRead, Write},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

type Answer<T = String> = Result<T, Box<dyn std::error::Error>>;

/// Runs one command: `COMMAND SOCKET [ARGUMENT ...]`.
///
/// # Errors
/// What went wrong.
pub fn run(arguments: &[String]) -> Answer<()> {
    let [command, socket, rest @ ..] = arguments else { return Err("COMMAND SOCKET [ARGUMENT ...]".into()) };
    let socket = Path::new(socket);
    match (command.as_str(), rest) {
        ("stress-write", [rounds]) => stress::write(socket, rounds.parse()?),
        ("serve", []) => serve(socket)?,
        ("load", [seed]) => crate::load::load(socket, seed.parse()?)?,
        ("victim", [seed, rounds, point]) => {
            let code = crate::load::victim(socket, seed.parse()?, rounds.parse()?, point)?;
            std::process::exit(code.into());
        }
        _ => return Err(format!("unknown command {arguments:?}").into()),
    }
    Ok(())
}

/// `len` bytes, all words of which are `fill`.
#[must_use]
pub fn words(len: usize, fill: u64) -> Vec<u8> {
    let mut bytes = fill.to_le_bytes().repeat(len.div_ceil(8));
    bytes.truncate(len);
    bytes
}

/// The word that all of `bytes` are made of; `None` if they are not.
#[must_use]
pub fn fill_of(bytes: &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first_chunk()?;
    // Each byte equals the one eight before it.
    (*rest == bytes[..rest.len()]).then(|| u64::from_le_bytes(*first))
}

/// A number that other bytes hardly have.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// A checksum of the object's file.
///
/// # Errors
/// If it is malformed.
pub fn checksum_of(object: &Object) -> plasmon::Result<u64> {
    Ok(checksum(&object.as_ipc()?))
}

/// Names of bytes that `rebind` writes, and their lengths: through a lease of their own each, and through a kept one.
pub const STEADY: [(&str, usize); 4] =
    [("large-0", 200_000), ("large-1", 200_000), ("large-2", 300_000), ("medium", 80_000)];

/// Names of numbers that `rebind` writes: they stand in the index.
pub const NUMBERS: [&str; 3] = ["number-0", "number-1", "number-2"];

/// What `watch` saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Values recalled.
    pub recalls: u64,
    /// Times when a value was newer than the last.
    pub news: u64,
    /// Values that were not all of one word, or not any more when they were looked at again.
    pub torn: u64,
    /// Names that were not bound.
    pub misses: u64,
    /// Values or versions older than one seen before.
    pub backwards: u64,
}

impl Watched {
    /// Reads what `watch` answered.
    ///
    /// # Panics
    /// If it is something else.
    #[must_use]
    pub fn parse(answer: &str) -> Watched {
        let numbers: Vec<u64> = answer.split(' ').map(|number| number.parse().expect("a number")).collect();
        let [recalls, news, torn, misses, backwards] = numbers[..] else { panic!("{answer}") };
        Watched { recalls, news, torn, misses, backwards }
    }
}

fn serve(socket: &Path) -> Answer<()> {
    let mut client =
        Client { socket: socket.to_owned(), brain: None, held: Vec::new(), bytes: None, table: None };
    for line in std::io::stdin().lock().lines() {
        match client.obey(&line?) {
            Ok(answer) => say(&format!("ok {answer}"))?,
            Err(error) => {
                let variant = error.downcast_ref::<Error>().map(|error| format!("{error:?}"));
                let variant = variant.unwrap_or_else(|| "Other".to_owned());
                let end = variant.find(|c: char| !c.is_alphanumeric()).unwrap_or(variant.len());
                say(&format!("error {} {error}", &variant[..end]))?;
            }
        }
    }
    Ok(())
}

/// One line to whoever steers this process.
fn say(line: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", line.replace('\n', " "))?;
    stdout.flush()
}

struct Client {
    socket: PathBuf,
    brain: Option<Brain>,
    held: Vec<Object>,
    bytes: Option<Writable>,
    table: Option<TableWriter>,
}

impl Client {
    fn obey(&mut self, line: &str) -> Answer {
        let arguments: Vec<&str> = line.split(' ').collect();
        if arguments == ["connect"] {
            self.brain = Some(Brain::builder().path(&self.socket).connect()?);
            return Ok(String::new());
        }
        if arguments == ["rights"] {
            return text(rights(&self.socket));
        }
        if let ["write-after-commit", name] = arguments[..] {
            return write_after_commit(&self.socket, name);
        }
        if let ["attach", times] = arguments[..] {
            self.brain = None;
            return attach(&self.socket, times.parse()?);
        }
        if let ["learn-garbage", name] = arguments[..] {
            return learn_garbage(&self.socket, name);
        }
        let brain = self.brain.as_ref().ok_or("the first command is connect")?;
        match arguments[..] {
            ["learn", name, len, fill] => text(brain.learn(name, &words(len.parse()?, fill.parse()?))?),
            ["learn-many", prefix, count, len, fill] => {
                let value = words(len.parse()?, fill.parse()?);
                for number in 0..count.parse::<u64>()? {
                    match brain.learn(&format!("{prefix}{number}"), &value) {
                        Ok(_) => {}
                        Err(Error::StoreFull(_)) => return text(number),
                        Err(error) => return Err(error.into()),
                    }
                }
                text(count)
            }
            ["learn-int", name, value] => text(brain.learn(name, &value.parse::<i64>()?)?),
            ["forget", name] => text(brain.forget(name)?),
            ["hold", name] => {
                let object: Object = brain.recall(name)?;
                let checksum = checksum_of(&object)?;
                self.held.push(object);
                text(checksum)
            }
            ["checksums"] => {
                let checksums: Result<Vec<String>, _> =
                    self.held.iter().map(|object| checksum_of(object).map(|sum| sum.to_string())).collect();
                text(checksums?.join(" "))
            }
            ["drop"] => {
                self.held.clear();
                drop((self.bytes.take(), self.table.take()));
                text("")
            }
            ["half", name, len] => {
                let mut writable = brain.create(name, len.parse()?)?;
                let half = writable.len() / 2;
                writable[..half].fill(7);
                self.bytes = Some(writable);
                text("")
            }
            ["finish"] => text(self.table.take().ok_or("no table is being written")?.finish()?),
            ["batch", prefix, count, len, fill] => {
                let value = words(len.parse()?, fill.parse()?);
                let mut batch = brain.batch()?;
                for number in 0..count.parse::<u64>()? {
                    batch = batch.learn(&format!("{prefix}{number}"), &value)?;
                }
                text(batch.commit()?)
            }
            ["half-table", name, len] => {
                self.table = Some(half_table(brain, name, len.parse()?)?);
                text("")
            }
            ["seal"] => {
                let mut writable = self.bytes.take().ok_or("nothing is being written")?;
                let half = writable.len() / 2;
                writable[half..].fill(8);
                text(writable.seal()?)
            }
            ["ends", name] => {
                let bytes: Blob = brain.recall(name)?;
                let (first, last) = (bytes.first().ok_or("no bytes")?, bytes.last().ok_or("no bytes")?);
                text(format!("{} {first} {last}", bytes.len()))
            }
            ["overwrite", name] => {
                let object: Object = brain.recall(name)?;
                let mut own = object.copy_on_write()?.ok_or("it stands in the index")?;
                own.fill(0xEE);
                text(own.iter().all(|&byte| byte == 0xEE) && object.as_ipc()?[..] != own[..])
            }
            ["wait", name, ms] => {
                let object: Object = brain.recall_within(name, Duration::from_millis(ms.parse()?))?;
                text(object.version())
            }
            ["increment", name, times] => text(increment(brain, name, times.parse()?)?),
            ["claim", prefix, count, value] => {
                let (mut won, value) = (0, value.parse::<i64>()?);
                for number in 0..count.parse::<u64>()? {
                    let only_if_free = LearnOptions::new().if_absent();
                    match brain.learn_with(&format!("{prefix}{number}"), &value, &only_if_free) {
                        Ok(_) => won += 1,
                        Err(Error::ConditionFailed { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                text(won)
            }
            ["learn-ephemeral", name, value] => {
                let ephemeral = LearnOptions::new().ephemeral();
                text(brain.learn_with(name, &value.parse::<i64>()?, &ephemeral)?)
            }
            ["wait-change", name, version, ms] => {
                let timeout = Duration::from_millis(ms.parse()?);
                text(brain.wait_change(name, version.parse()?, timeout)?.unwrap_or(0))
            }
            ["leave"] => {
                brain.disconnect();
                text("")
            }
            ["rebind", first, last] => {
                for round in first.parse::<u64>()?..=last.parse()? {
                    for (name, len) in STEADY {
                        brain.learn(name, &words(len, round))?;
                    }
                    for name in NUMBERS {
                        brain.learn(name, &i64::try_from(round)?)?;
                    }
                }
                text("")
            }
            ["watch", looks] => {
                let Watched { recalls, news, torn, misses, backwards } = watch(brain, looks.parse()?)?;
                text(format!("{recalls} {news} {torn} {misses} {backwards}"))
            }
            ["rebind-pair", rounds] => {
                for round in 0..rounds.parse::<i64>()? {
                    rebind_pair(brain, round)?;
                }
                text("")
            }
            ["look-at-pair", looks] => text(look_at_pair(brain, looks.parse()?)?),
            ["watch-namespace", namespace, ref names @ ..] => text(watch_namespace(brain, namespace, names)?),
            // Moves amounts between names in transactions; says how often it was tried again.
            ["transfer", count, seed] => {
                let mut random = Random::new(seed.parse()?);
                let mut tries = 0_u64;
                for _ in 0..count.parse::<u64>()? {
                    let (from, to, amount) =
                        (random.below(ACCOUNTS), random.below(ACCOUNTS), random.below(50));
                    let amount = i64::try_from(amount)?;
                    brain.transact(|t| {
                        tries += 1;
                        t.learn(&account(from), &(t.recall::<i64>(&account(from))? - amount))?;
                        t.learn(&account(to), &(t.recall::<i64>(&account(to))? + amount))
                    })?;
                }
                text(tries)
            }
            // Sums all of them at one moment, by turns at a view and by many at once; says how often.
            ["sum-until", name] => {
                let names: Vec<String> = (0..ACCOUNTS).map(account).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let mut looks = 0_u64;
                while !brain.exists(name)? {
                    let view = brain.view()?;
                    let at_view =
                        names.iter().map(|name| view.recall::<i64>(name)).sum::<Result<i64, _>>()?;
                    let objects = brain.recall_many(&names)?;
                    let objects = objects.into_iter().map(|object| object.expect("it is bound").to::<i64>());
                    let at_once = objects.sum::<Result<i64, Error>>()?;
                    if (at_view, at_once) != (0, 0) {
                        return Err(format!("the sums are {at_view} and {at_once}").into());
                    }
                    looks += 1;
                }
                text(looks)
            }
            ["incr", name, count] => {
                (0..count.parse::<u64>()?).try_for_each(|_| brain.incr(name, 1).map(drop))?;
                text(count)
            }
            // Takes a lock, and adds to two names as if nobody else did.
            ["locked", count] => {
                for _ in 0..count.parse::<u64>()? {
                    let lock = brain.lock("the lock", Duration::from_secs(60))?;
                    for name in ["locked one", "locked two"] {
                        let value = brain.recall::<i64>(name)?;
                        brain.learn(name, &(value + 1))?;
                    }
                    if !lock.release()? {
                        return Err("the lock was lost".into());
                    }
                }
                text(count)
            }
            // Takes a lock and keeps it.
            ["keep-lock", name] => {
                let lock = brain.lock(name, Duration::from_secs(60))?;
                let version = lock.version();
                std::mem::forget(lock);
                text(version)
            }
            ["learn-samples"] => {
                samples::learn(brain)?;
                text("")
            }
            ["check-samples"] => {
                samples::check(brain)?;
                text("")
            }
            _ => Err(format!("unknown command {line:?}").into()),
        }
    }
}

/// Names that amounts are moved between.
pub const ACCOUNTS: u64 = 100;

/// The name of an account.
#[must_use]
pub fn account(number: u64) -> String {
    format!("account {number}")
}

fn text(value: impl ToString) -> Answer {
    Ok(value.to_string())
}

fn half_table(brain: &Brain, name: &str, len: usize) -> Answer<TableWriter> {
    let numbers = arrow_array::Int64Array::from_value(7, 1 << 20);
    let batch = arrow_array::RecordBatch::try_from_iter([("n", Arc::new(numbers) as _)])?;
    let mut writer = brain.writer(name, &batch.schema())?;
    while writer.len_bytes() < len as u64 / 2 {
        writer.write(&batch)?;
    }
    Ok(writer)
}

/// Adds one to a number `times`, by compare and set.
fn increment(brain: &Brain, name: &str, times: u64) -> Answer<u64> {
    let (mut done, mut lost) = (0, 0);
    while done < times {
        // One recall gives value and version together.
        let object: Object = brain.recall(name)?;
        let number = number_in(&object)?;
        match brain.learn_with(name, &(number + 1), &LearnOptions::new().if_version(object.version())) {
            Ok(_) => done += 1,
            Err(Error::ConditionFailed { .. }) => lost += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(lost)
}

/// The integer that is the object.
fn number_in(object: &Object) -> Answer<i64> {
    let table = object.table()?;
    let column = table.first().ok_or("no batch")?.column(0).clone();
    let column = column.as_any().downcast_ref::<arrow_array::Int64Array>().ok_or("not an integer")?;
    Ok(column.value(0))
}

fn watch(brain: &Brain, looks: u64) -> Answer<Watched> {
    let mut seen = Watched::default();
    let mut held: [Option<(u64, Blob)>; STEADY.len()] = [const { None }; STEADY.len()];
    let mut last = [(0, 0); NUMBERS.len()];
    for _ in 0..looks {
        for ((name, len), held) in STEADY.into_iter().zip(&mut held) {
            let blob: Blob = match brain.recall(name) {
                Ok(blob) => blob,
                Err(Error::NameNotFound { .. }) => {
                    seen.misses += 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            seen.recalls += 1;
            let Some(fill) = fill_of(&blob).filter(|_| blob.len() == len) else {
                seen.torn += 1;
                continue;
            };
            // What was recalled last time has been held since, while its name was rebound.
            if let Some((before, blob)) = &*held {
                seen.torn += u64::from(fill_of(blob) != Some(*before));
                seen.news += u64::from(fill > *before);
                seen.backwards += u64::from(fill < *before);
            }
            *held = Some((fill, blob));
        }
        for (name, last) in NUMBERS.into_iter().zip(&mut last) {
            let object: Object = match brain.recall(name) {
                Ok(object) => object,
                Err(Error::NameNotFound { .. }) => {
                    seen.misses += 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            seen.recalls += 1;
            let now = (object.version(), number_in(&object)?);
            seen.news += u64::from(now.0 > last.0);
            // A newer version has a newer number, and the same version the same.
            let agree = (now.0 > last.0 && now.1 > last.1) || now == *last || *last == (0, 0);
            seen.backwards += u64::from(!agree);
            *last = now;
        }
    }
    Ok(seen)
}

/// Two names that always hold the same number, and two of which exactly one is bound, all rebound at one moment.
fn rebind_pair(brain: &Brain, round: i64) -> plasmon::Result<()> {
    let (come, go) = if round % 2 == 0 { ("even", "odd") } else { ("odd", "even") };
    let large = words(100_000, round.unsigned_abs());
    let batch = brain.batch()?.learn("left", &round)?.learn("right", &round)?.learn("large", &large)?;
    batch.learn(come, &round)?.forget(go)?.commit().map(drop)
}

/// Recalls what [`rebind_pair`] rebinds, `looks` times, and fails if it ever sees a part of one commit with a part of
/// another. Returns how many commits it saw.
fn look_at_pair(brain: &Brain, looks: u64) -> Answer<u64> {
    let (mut commits, mut last) = (0, 0);
    for look in 0..looks {
        let found = brain.recall_many(&["left", "even", "large", "odd", "right"])?;
        let versions: Vec<Option<u64>> =
            found.iter().map(|object| object.as_ref().map(Object::version)).collect();
        let [Some(left), even, Some(large), odd, Some(right)] = versions[..] else {
            return Err(format!("look {look}: {versions:?}").into());
        };
        let either = if even.is_some() { even } else { odd };
        if even.is_some() == odd.is_some() || [Some(left); 3] != [Some(large), either, Some(right)] {
            return Err(format!("look {look}: {versions:?}").into());
        }
        if left < last {
            return Err(format!("look {look}: version {left} after {last}").into());
        }
        commits += u64::from(left > last);
        last = left;
    }
    Ok(commits)
}

fn watch_namespace(brain: &Brain, namespace: &str, names: &[&str]) -> Answer<u64> {
    let brain = brain.in_namespace(namespace)?;
    for look in 1.. {
        match brain.recall_many(names)?.iter().flatten().count() {
            0 => return Ok(look),
            bound if bound < names.len() => {
                return Err(format!("look {look}: {bound} of {} names are bound", names.len()).into());
            }
            _ if look == 1 => say("ok ")?,
            _ => {}
        }
    }
    unreachable!("looks are not counted that far")
}

/// Whether this process may write through the descriptors of a session, as they are or opened again.
fn rights(socket: &Path) -> String {
    let may_write = |fd: &OwnedFd| {
        let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap_or(0));
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        flags.intersects(OFlag::O_RDWR | OFlag::O_WRONLY) || OpenOptions::new().write(true).open(path).is_ok()
    };
    let session = RawSession::begin(socket);
    format!("{:?}", session.fds.iter().map(may_write).collect::<Vec<bool>>())
}

/// Connects, recalls and leaves, so often.
fn attach(socket: &Path, times: u64) -> Answer {
    for _ in 0..times {
        let brain = Brain::builder().path(socket).connect()?;
        let held: Blob = brain.recall("a")?;
        drop(brain);
        fill_of(&held).ok_or("what it recalled is not whole")?;
    }
    let descriptors = std::fs::read_dir("/proc/self/fd")?.count();
    let mappings = std::fs::read_to_string("/proc/self/maps")?.lines().count();
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = pages.split(' ').nth(1).ok_or("resident pages")?.parse()?;
    text(format!("{descriptors} {mappings} {}", pages * 4_096))
}

/// Binds what no encoder would write, under headers that vouch for it. Inline values, whose bytes are never looked at,
/// are left out.
fn learn_garbage(socket: &Path, name: &str) -> Answer {
    let mut session = RawSession::begin(socket);
    let (kinds, mut number) =
        ([Kind::TABLE, Kind::BYTES, Kind::TEXT, Kind::JSON, Kind::TENSOR, Kind::PICKLE], 0);
    let value: Vec<u8> = arrow_file();
    let mut files = vec![vec![0xff; 1_000], b"ARROW1\0\0".repeat(50), value[..value.len() - 9].to_vec()];
    for at in [8, value.len() / 2, value.len() - 20] {
        let mut damaged = value.clone();
        damaged[at..at + 8].fill(0xfe);
        files.push(damaged);
    }
    for kind in kinds {
        for file in &files {
            let mut header = Header::new(kind);
            header.flags = Flags::OUR_ENCODER.with(Flags::BUFFER);
            header.buffer_offset = 64;
            header.dims = [u64::MAX / 2, 3, 1 << 40, 7];
            header.ndim = 3;
            let payload = Payload::Inline { bytes: file.clone().into() };
            let (namespace, name) = (Namespace::default(), Name::new(&format!("{name}{number}"))?);
            let bind =
                Bind { namespace, name, description: None, metadata: None, header, ttl: None, payload };
            let commit = Commit { conditions: vec![], changes: vec![Change::Bind(bind)], end_leases: vec![] };
            session.requests.call(&commit).map_err(|failure| format!("{failure:?}"))?;
            number += 1;
        }
    }
    text(number)
}

/// A table as a file, of which every byte is where an encoder would put it.
fn arrow_file() -> Vec<u8> {
    let numbers = arrow_array::Int64Array::from_iter_values(0..100);
    let texts = arrow_array::StringArray::from_iter_values((0..100).map(|n| n.to_string()));
    let columns = [("n", Arc::new(numbers) as _), ("t", Arc::new(texts) as _)];
    let batch = arrow_array::RecordBatch::try_from_iter(columns).expect("two columns");
    let mut writer =
        arrow_ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema()).expect("a writer to memory");
    writer.write(&batch).expect("a write to memory");
    writer.into_inner().expect("a write to memory")
}

/// Learns an object of bytes 0x11 as one who may not write the arena, and tries everything to change it later. Returns
/// what it is recalled as.
fn write_after_commit(socket: &Path, name: &str) -> Answer {
    const LEN: usize = 100_000;
    let mut session = RawSession::begin(socket);
    if session.welcome.writable || session.fds.len() != 3 {
        return Err("the store gave a way to write the arena".into());
    }
    let (granted, fds) = session.requests.call_with_fds(&Reserve { len_bytes: LEN as u64 });
    let [staging] = &fds[..] else { return Err(format!("{} descriptors", fds.len()).into()) };
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    if ftruncate(staging, 0).is_ok() || fcntl(staging, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)).is_ok()
    {
        return Err("the region can be shortened, or sealed".into());
    }
    pwrite(staging, &[0x11; LEN], 0)?;
    let header = Header::new(Kind::BYTES);
    let Granted { lease, offset, len_bytes, .. } = granted;
    let bind = |offset, len_bytes| {
        let payload = Payload::Leased { lease, offset, len_bytes };
        let (namespace, name) = (Namespace::default(), Name::new(name)?);
        let bind = Bind { namespace, name, description: None, metadata: None, header, ttl: None, payload };
        Ok::<_, NameError>(Commit {
            conditions: vec![],
            changes: vec![Change::Bind(bind)],
            end_leases: vec![],
        })
    };
    if session.requests.call(&bind(offset, len_bytes + 64)?).is_ok() {
        return Err("a piece that is longer than the lease was bound".into());
    }
    session.requests.call(&bind(offset, LEN as u64)?).map_err(|failure| format!("{failure:?}"))?;
    pwrite(staging, &[0x22; LEN], 0)?;
    fallocate(staging, punch, 0, i64::try_from(LEN)?)?;
    // Each such lease takes a descriptor of the store's, so there are not too many of them.
    for _ in 1..128 {
        session.requests.call_with_fds(&Reserve { len_bytes: 1 });
    }
    let one_more = session.requests.call(&Reserve { len_bytes: 1 });
    if !matches!(one_more, Err(Failure::TooMany { limit: 128, .. })) {
        return Err(format!("one lease too many: {one_more:?}").into());
    }
    let mut byte = [0];
    pread(&session.fds[1], &mut byte, i64::try_from(offset)?)?;
    text(format!("{:#x}", byte[0]))
}

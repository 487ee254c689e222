//! Client processes for campaigns of faults: those that must never notice one, and those that are struck.
//!
//! Whatever is learned here says by itself what it must be: all of its words are one number, which gives its length. So
//! everybody can check everything, also what others learned.
//!
//! `load SOCKET SEED` works until it is told otherwise, by a line on standard input each:
//!
//! | command | answer |
//! | --- | --- |
//! | `count` | how many operations it has done |
//! | `pause` | lets go of everything, says what [`Done`] says, and waits |
//! | `go` | goes on |
//! | `end` | ends |
//!
//! `victim SOCKET SEED ROUNDS POINT` does everything that a client can do, `ROUNDS` times, and is meant to be struck
//! meanwhile, or the store at what it does for it, at `POINT` (`plasmon_shm::FaultPoint`).

use crate::{
    random::Random,
    worker::{fill_of, words},
};
use arrow_array::{Int64Array, RecordBatch};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    time::{ClockId, clock_gettime},
    unistd::{ForkResult, alarm, fork},
};
use plasmon::{Blob, Brain, Error, History, LearnOptions, NamespaceOptions, Object, Table};
use plasmon_shm::{FaultPoint, fault_point};
use std::{
    collections::HashMap,
    io::{BufRead, Write},
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError, channel},
    },
    time::{Duration, Instant},
};

/// Lengths that values have, a little more or less: in the index, in a request, through a kept lease, through a lease
/// of their own.
const LENS: [usize; 8] = [16, 100, 3_000, 60_000, 70_000, 90_000, 250_000, 600_000];

/// Names that everybody rebinds.
const SHARED: u64 = 6;

/// Names that a loading process has to itself.
const OWN: u64 = 6;

/// A namespace whose names give way when room is short. Campaigns remove its names as they do those of `default`.
pub const CACHE: &str = "campaign-cache";

/// A namespace with a history, of which moments are kept. Campaigns remove it.
pub const PAST: &str = "campaign-past";

/// Objects that a loading process holds at most.
const HELD_MAX: usize = 12;

/// A victim exits with this if it was a child of it that was struck.
pub const CHILD_WAS_STRUCK: u8 = 33;

/// A process that waits for what does not come is ended by SIGALRM: far longer than any of this takes.
const GIVES_UP_AFTER_SECS: u32 = 120;

/// What a loading process has done since it was last paused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Operations.
    pub operations: u64,
    /// Values looked at, each word of them.
    pub checked: u64,
    /// How often the store went away.
    pub outages: u64,
    /// The longest that a call took which failed because the store was gone, in microseconds.
    pub slowest_failure_us: u64,
}

impl Done {
    /// Reads what `pause` answered.
    ///
    /// # Panics
    /// If it is something else.
    #[must_use]
    pub fn parse(answer: &str) -> Done {
        let numbers: Vec<u64> = answer.split(' ').map(|number| number.parse().expect("a number")).collect();
        let [operations, checked, outages, slowest_failure_us] = numbers[..] else { panic!("{answer}") };
        Done { operations, checked, outages, slowest_failure_us }
    }
}

/// What went wrong, in words: none of it may happen.
type Outcome<T = ()> = Result<T, String>;

/// A value by its number.
fn value(fill: u64) -> Vec<u8> {
    words(len_of(fill), fill)
}

fn len_of(fill: u64) -> usize {
    let index = usize::try_from(fill % LENS.len() as u64).expect("small");
    LENS[index] + usize::try_from((fill >> 8) % 64).expect("small")
}

/// The number of the value that `bytes` are.
fn number_of(name: &str, bytes: &[u8]) -> Outcome<u64> {
    match fill_of(bytes) {
        Some(fill) if len_of(fill) == bytes.len() => Ok(fill),
        fill => Err(format!("`{name}` has {} bytes of {fill:x?}", bytes.len())),
    }
}

/// See the [module](self).
///
/// # Errors
/// What it found that must not be.
pub fn load(socket: &Path, seed: u64) -> Outcome {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    let brain = connect(socket).map_err(|error| error.to_string())?;
    let cache = cache_of(&brain).map_err(|error| error.to_string())?;
    let store = brain.stats().map_err(|error| error.to_string())?.store_uuid;
    say("ready");
    let mut load = Load {
        brain,
        cache,
        store,
        random: Random::new(seed),
        me: std::process::id(),
        stores: 1,
        own: HashMap::new(),
        brief: HashMap::new(),
        cached: HashMap::new(),
        versions: HashMap::new(),
        held: Vec::new(),
        done: Done::default(),
    };
    loop {
        match told.try_recv() {
            Ok(command) => {
                if !load.obey(&command, &told)? {
                    return Ok(());
                }
            }
            Err(TryRecvError::Empty) => load.turn()?,
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
    }
}

fn connect(socket: &Path) -> plasmon::Result<Brain> {
    Brain::builder().path(socket).connect()
}

fn cache_of(brain: &Brain) -> plasmon::Result<Brain> {
    let cache = brain.in_namespace(CACHE)?;
    cache.declare(&NamespaceOptions::new().cache())?;
    Ok(cache)
}

/// The clock by which bindings expire.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).expect("there is such a clock").into()
}

fn say(text: impl std::fmt::Display) {
    let mut stdout = std::io::stdout().lock();
    // Whoever does not listen any more has ended.
    let _ = writeln!(stdout, "ok {text}").and_then(|()| stdout.flush());
}

struct Load {
    brain: Brain,
    /// The same store, where names give way.
    cache: Brain,
    /// Which store it is.
    store: [u8; 16],
    random: Random,
    me: u32,
    /// How many stores it has known. Its names are new in each: of what it learned in one before it saw that this is
    /// another one, it knows nothing.
    stores: u32,
    /// What its own names are bound to.
    own: HashMap<String, u64>,
    /// What those of its names that expire are bound to, and between which moments they do.
    brief: HashMap<String, (u64, [Duration; 2])>,
    /// What its names in the cache are bound to, unless they gave way.
    cached: HashMap<String, u64>,
    /// The last version that it saw of each shared name.
    versions: HashMap<String, u64>,
    held: Vec<(u64, Blob)>,
    done: Done,
}

impl Load {
    /// Does what it is told. Returns whether it goes on.
    fn obey(&mut self, command: &str, told: &Receiver<String>) -> Outcome<bool> {
        match command {
            "count" => say(self.done.operations),
            "pause" => {
                self.check_held()?;
                self.held.clear();
                // One connection for requests, whatever it did before.
                let _ = self.brain.stats();
                let Done { operations, checked, outages, slowest_failure_us } =
                    std::mem::take(&mut self.done);
                say(format!("{operations} {checked} {outages} {slowest_failure_us}"));
                // Whoever paused it forgets all names.
                self.know_nothing();
                return match told.recv() {
                    Ok(next) if next == "go" => {
                        say("");
                        Ok(true)
                    }
                    _ => Ok(false),
                };
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// One operation, whatever becomes of it.
    fn turn(&mut self) -> Outcome {
        let start = Instant::now();
        match self.operate() {
            Ok(Ok(())) => {}
            Ok(Err(wrong)) if self.is_the_same_store() => return Err(wrong),
            // Another store has taken the place of the one that was, between two calls: it knows nothing.
            Ok(Err(_)) => self.sit_out()?,
            Err(error) if is_outage(&error) => {
                let took = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.done.slowest_failure_us = self.done.slowest_failure_us.max(took);
                self.sit_out()?;
            }
            Err(error) => return Err(format!("{error:?}: {error}")),
        }
        self.done.operations += 1;
        Ok(())
    }

    fn know_nothing(&mut self) {
        self.own.clear();
        self.brief.clear();
        self.cached.clear();
        self.versions.clear();
    }

    fn is_the_same_store(&self) -> bool {
        self.brain.stats().is_ok_and(|stats| stats.store_uuid == self.store)
    }

    /// The store is gone: what is held stays as it is, and calls work again when there is another one.
    fn sit_out(&mut self) -> Outcome {
        self.done.outages += 1;
        self.check_held()?;
        let start = Instant::now();
        loop {
            match cache_of(&self.brain).and_then(|_| self.brain.stats()) {
                Ok(stats) => {
                    self.store = stats.store_uuid;
                    break;
                }
                Err(error) if is_outage(&error) && start.elapsed() < Duration::from_secs(60) => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(format!("after an outage: {error}")),
            }
        }
        self.check_held()?;
        self.know_nothing();
        self.stores += 1;
        Ok(())
    }

    fn operate(&mut self) -> plasmon::Result<Outcome> {
        let own = format!("own {} {} {}", self.me, self.stores, self.random.below(OWN));
        let shared = format!("shared {}", self.random.below(SHARED));
        match self.random.below(18) {
            0..=2 => {
                let fill = self.random.word();
                // Some would expire if nobody recalled them for a long time.
                let options = match fill % 3 {
                    0 => LearnOptions::new().sliding_ttl(Duration::from_secs(600)),
                    _ => LearnOptions::new(),
                };
                // Not known until it is answered: an outage clears what is known anyway.
                self.brain.learn_with(&own, &value(fill), &options)?;
                self.own.insert(own, fill);
            }
            3..=4 => {
                self.brain.learn(&shared, &value(self.random.word())).map(drop)?;
            }
            5..=6 => return self.look_at_own(&own),
            7..=8 => return self.look_at_shared(&shared),
            9 => {
                let (first, second) = (self.random.word(), self.random.word());
                let other = format!("{own} other");
                let batch = self.brain.batch()?.learn(&own, &value(first))?.learn(&other, &value(second))?;
                batch.commit()?;
                self.own.insert(own, first);
                self.own.insert(other, second);
            }
            10 => {
                let was_bound = self.brain.forget(&own)?;
                if self.own.remove(&own).is_some() != was_bound {
                    return Ok(Err(format!("`{own}` was bound: {was_bound}")));
                }
            }
            11 => return self.table(),
            12 => return Ok(self.check_held()),
            13 => {
                let (fill, ttl) = (self.random.word(), Duration::from_millis(1 + self.random.below(60)));
                let from = now();
                self.brain.learn_with(
                    &format!("brief {own}"),
                    &value(fill),
                    &LearnOptions::new().ttl(ttl),
                )?;
                self.brief.insert(format!("brief {own}"), (fill, [from + ttl, now() + ttl]));
            }
            14 => return self.look_at_brief(&format!("brief {own}")),
            15 => {
                let fill = self.random.word();
                self.cache.learn(&own, &value(fill))?;
                self.cached.insert(own, fill);
            }
            16 => return self.look_at_cached(&own),
            _ => self.held.truncate(HELD_MAX / 2),
        }
        Ok(Ok(()))
    }

    fn look_at_own(&mut self, name: &str) -> plasmon::Result<Outcome> {
        let found = blob(&self.brain, name)?;
        let expected = self.own.get(name).copied();
        let Some(blob) = found else {
            return Ok(if expected.is_none() { Ok(()) } else { Err(format!("`{name}` is lost")) });
        };
        self.done.checked += 1;
        Ok(number_of(name, &blob).and_then(|fill| {
            if Some(fill) != expected {
                return Err(format!("`{name}` is {fill:x} and not {expected:x?}"));
            }
            self.hold(fill, blob);
            Ok(())
        }))
    }

    /// It is bound until its time is over, to the millisecond, and never again.
    fn look_at_brief(&mut self, name: &str) -> plasmon::Result<Outcome> {
        let from = now();
        let found = blob(&self.brain, name)?;
        let (expected, to) = (self.brief.get(name).copied(), now());
        let Some(blob) = found else {
            self.brief.remove(name);
            let early = expected.is_some_and(|(_, [earliest, _])| to < earliest);
            return Ok(if early { Err(format!("`{name}` expired before its time")) } else { Ok(()) });
        };
        self.done.checked += 1;
        Ok(number_of(name, &blob).and_then(|fill| match expected {
            Some((expected, [_, latest])) if fill == expected && from < latest => {
                self.hold(fill, blob);
                Ok(())
            }
            _ => Err(format!("`{name}` is {fill:x} at {from:?} and not {expected:x?}")),
        }))
    }

    /// It is what it was, or gave way, and then for good.
    fn look_at_cached(&mut self, name: &str) -> plasmon::Result<Outcome> {
        let Some(blob) = blob(&self.cache, name)? else {
            self.cached.remove(name);
            return Ok(Ok(()));
        };
        self.done.checked += 1;
        let expected = self.cached.get(name).copied();
        Ok(number_of(name, &blob).and_then(|fill| {
            if Some(fill) != expected {
                return Err(format!("`{name}` of the cache is {fill:x} and not {expected:x?}"));
            }
            self.hold(fill, blob);
            Ok(())
        }))
    }

    fn look_at_shared(&mut self, name: &str) -> plasmon::Result<Outcome> {
        let object: Object = match self.brain.recall(name) {
            Ok(object) => object,
            Err(Error::NameNotFound { .. }) => return Ok(Ok(())),
            Err(error) => return Err(error),
        };
        let (version, blob) = (object.version(), object.to::<Blob>()?);
        let last = self.versions.insert(name.to_owned(), version).unwrap_or(0);
        if version < last {
            return Ok(Err(format!("`{name}` has version {version} after {last}")));
        }
        self.done.checked += 1;
        Ok(number_of(name, &blob).map(|fill| self.hold(fill, blob)))
    }

    fn table(&mut self) -> plasmon::Result<Outcome> {
        let name = format!("table {}", self.me);
        let number = i64::try_from(self.random.below(1 << 40)).expect("small");
        let rows = usize::try_from(self.random.below(30_000)).expect("small") + 1;
        self.brain.learn(&name, &table_of(number, rows))?;
        let table: Table = self.brain.recall(&name)?;
        self.done.checked += 1;
        Ok(check_table(&name, &table, number, rows))
    }

    fn hold(&mut self, fill: u64, blob: Blob) {
        if self.held.len() >= HELD_MAX {
            self.held.remove(0);
        }
        self.held.push((fill, blob));
    }

    fn check_held(&mut self) -> Outcome {
        for (fill, blob) in &self.held {
            self.done.checked += 1;
            let found = number_of("what is held", blob)?;
            if found != *fill {
                return Err(format!("what is held was {fill:x} and is {found:x}"));
            }
        }
        Ok(())
    }
}

fn blob(brain: &Brain, name: &str) -> plasmon::Result<Option<Blob>> {
    match brain.recall(name) {
        Ok(blob) => Ok(Some(blob)),
        Err(Error::NameNotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Errors that say that the store is not there, or was not when it should have answered.
fn is_outage(error: &Error) -> bool {
    error.is_unavailable() || matches!(error, Error::OutcomeUnknown { .. })
}

fn table_of(number: i64, rows: usize) -> RecordBatch {
    let column = Arc::new(Int64Array::from_value(number, rows));
    RecordBatch::try_from_iter([("n", column as _)]).expect("one column")
}

fn check_table(name: &str, table: &Table, number: i64, rows: usize) -> Outcome {
    let column = table.first().and_then(|batch| batch.column(0).as_any().downcast_ref::<Int64Array>());
    match column {
        Some(column) if column.len() == rows && column.values().iter().all(|&n| n == number) => Ok(()),
        _ => Err(format!("`{name}` is not {rows} times {number}")),
    }
}

/// See the [module](self). Returns the exit code.
///
/// # Errors
/// What it found that must not be.
pub fn victim(socket: &Path, seed: u64, rounds: u64, point: &str) -> Outcome<u8> {
    alarm::set(GIVES_UP_AFTER_SECS);
    let mut random = Random::new(seed);
    let mut exit = 0;
    for round in 0..rounds {
        match play_in_session(socket, &mut random, round, point) {
            Ok(Ok(true)) => exit = CHILD_WAS_STRUCK,
            Ok(Ok(false)) => {}
            Ok(Err(wrong)) => return Err(wrong),
            // The store was struck.
            Err(error) if is_outage(&error) => return Ok(exit),
            Err(error) => return Err(format!("{error:?}: {error}")),
        }
    }
    Ok(exit)
}

/// As [`play`], in a session of its own. If another store has taken the place of the one that was, which knows nothing of
/// what was learned, that is the end of the round.
fn play_in_session(
    socket: &Path,
    random: &mut Random,
    round: u64,
    point: &str,
) -> plasmon::Result<Outcome<bool>> {
    let brain = connect(socket)?;
    let store = brain.stats()?.store_uuid;
    match play(&brain, random, round, point) {
        Err(Error::NameNotFound { .. }) if brain.stats()?.store_uuid != store => Ok(Ok(false)),
        played => played,
    }
}

/// Everything that a client can do. Returns whether a child that it forked was struck.
fn play(brain: &Brain, random: &mut Random, round: u64, point: &str) -> plasmon::Result<Outcome<bool>> {
    // Few names, so that those who die do not fill the store; and not those of who died a moment ago.
    let me = std::process::id() % 16;
    let mut held = Vec::new();
    for (index, len) in LENS.into_iter().enumerate() {
        let name = format!("victim {me} {index}");
        // Of the length that was meant, twice: the second time a lease may be kept.
        for _ in 0..2 {
            let fill = (random.word() & !7) | index as u64;
            brain.learn(&name, &value(fill))?;
            let blob: Blob = brain.recall(&name)?;
            match number_of(&name, &blob) {
                Ok(found) if found == fill && len_of(fill) >= len => held.push(blob),
                found => return Ok(Err(format!("`{name}` is {found:x?} and not {fill:x}"))),
            }
        }
    }
    brain.learn(&format!("shared {}", random.below(SHARED)), &value(random.word()))?;
    brain.learn(&format!("victim {me} table"), &table_of(7, 50_000))?;
    let mut writable = brain.create(&format!("victim {me} in place"), 400_000)?;
    writable[..200_000].fill(1);
    fault_point(FaultPoint::CopyHalf);
    writable[200_000..].fill(1);
    writable.seal()?;
    let mut batch = brain.batch()?;
    for index in 0..3 {
        batch = batch.learn(&format!("victim {me} batch {index}"), &value(random.word()))?;
    }
    batch.commit()?;
    drop(brain.recall_many(&[&format!("victim {me} 0"), &format!("victim {me} 3"), "nothing"])?);
    if let Err(wrong) = watch_it_expire(brain, &format!("victim {me} brief"))? {
        return Ok(Err(wrong));
    }
    if let Err(wrong) = look_back(brain, random, me)? {
        return Ok(Err(wrong));
    }
    // What only a store can be struck in, and takes long, mostly where it is.
    let is_of_store = round == 0 && point.starts_with("store-");
    let needs_full_cache = ["store-sliding", "store-evicting", "store-evicted"].contains(&point);
    if ((is_of_store && random.below(8) == 0) || needs_full_cache)
        && let Err(wrong) = fill_cache(brain, me)?
    {
        return Ok(Err(wrong));
    }
    // A batch that is too long for a frame.
    if (is_of_store && random.below(4) == 0) || point == "store-copied" {
        let text = LearnOptions::new().description("x".repeat(60_000));
        let mut batch = brain.batch()?;
        for index in 0..300 {
            batch = batch.learn_with(&format!("victim {me} long {index}"), &index, &text)?;
        }
        match batch.commit() {
            // It needs 18 MB in one piece, which there need not be.
            Ok(_) | Err(Error::StoreFull(_)) => {}
            Err(error) => return Err(error),
        }
        let mut batch = brain.batch()?;
        for index in 0..300 {
            batch = batch.forget(&format!("victim {me} long {index}"))?;
        }
        batch.commit()?;
    }
    // More pins than a region has: too slow to be done for nothing.
    if point == "region-added" {
        let name = format!("victim {me} 1");
        let pins: Result<Vec<Blob>, Error> = (0..66_000).map(|_| brain.recall(&name)).collect();
        drop(pins?);
    }
    let child = fork_a_child(brain, &held);
    for index in 0..LENS.len() {
        brain.forget(&format!("victim {me} {index}"))?;
    }
    for blob in &held {
        if let Err(wrong) = number_of("what the victim holds", blob) {
            return Ok(Err(wrong));
        }
    }
    Ok(child)
}

/// Learns a name that expires at once, or nearly, and recalls it until it has.
fn watch_it_expire(brain: &Brain, name: &str) -> plasmon::Result<Outcome> {
    let (fill, ttl) = (3, Duration::from_millis(10)); // not over before it is recalled the first time
    let from = now();
    brain.learn_with(name, &value(fill), &LearnOptions::new().ttl(ttl))?;
    let latest = now() + ttl;
    let mut held = None;
    loop {
        let looked = now();
        match blob(brain, name)? {
            Some(blob) if number_of(name, &blob) == Ok(fill) && looked < latest => held = Some(blob),
            Some(blob) => return Ok(Err(format!("`{name}` is there for too long, {} bytes", blob.len()))),
            None if now() < from + ttl => return Ok(Err(format!("`{name}` expired before its time"))),
            None => break,
        }
    }
    Ok(held.map_or(Ok(()), |blob| number_of("what has expired and is held", &blob).map(drop)))
}

/// Binds names anew that have a past, and looks at it: by a view, a snapshot, and their history.
fn look_back(brain: &Brain, random: &mut Random, me: u32) -> plasmon::Result<Outcome> {
    // Others with the same number of their own may be doing the same, or have died in it.
    let past = brain.in_namespace(&format!("{PAST}-{}-{me}", std::process::id()))?;
    let store = brain.stats()?.store_uuid;
    let label = format!("victim-{}-{:x}", std::process::id(), random.word());
    let names: Vec<String> = (0..4).map(|index| format!("victim {index}")).collect();
    let fills: Vec<u64> = names.iter().map(|_| random.word() & !7 | 1).collect();
    past.keep_history(Some(&History { versions: Some(2), age_ns: None, bytes: None }))?;
    for (name, fill) in names.iter().zip(&fills) {
        past.learn(name, &value(*fill))?;
    }
    past.snapshot(&label)?;
    let view = past.view()?;
    for name in &names {
        past.learn(name, &value(2))?;
    }
    past.forget(&names[0])?;
    past.learn(&names[1], &value(3))?;
    let looked = || {
        for (name, fill) in names.iter().zip(&fills) {
            let then = number_of(name, &view.recall::<Blob>(name)?);
            if then != Ok(*fill) {
                return Ok(Err(format!("`{name}` was {fill:x}, and {then:x?} at a view")));
            }
        }
        past.restore_snapshot(&label)?;
        for (name, fill) in names.iter().zip(&fills) {
            let now = number_of(name, &past.recall::<Blob>(name)?);
            if now != Ok(*fill) {
                return Ok(Err(format!("`{name}` was {fill:x}, and is {now:x?}, restored")));
            }
        }
        past.drop_snapshot(&label)?;
        past.remove_namespace()?;
        Ok(Ok(()))
    };
    match looked() {
        // Another store has taken the place of the one that was.
        Err(_) if brain.stats()?.store_uuid != store => Ok(Ok(())),
        looked => looked,
    }
}

/// Learns more than the store has room for where names give way, while it holds the first and recalls one name that
/// lives on for as long as it is recalled.
fn fill_cache(brain: &Brain, me: u32) -> plasmon::Result<Outcome> {
    const LEN: usize = 2 << 20;
    let store = brain.stats()?.store_uuid;
    let sliding = LearnOptions::new().sliding_ttl(Duration::from_secs(600));
    brain.learn_with(&format!("victim {me} sliding"), &value(1), &sliding)?;
    let mut held: Option<Blob> = None;
    let name = |index| format!("victim {me} {index}");
    for index in 0..110 {
        // Each time, for another store may have taken the place of the one that was.
        let cache = cache_of(brain)?;
        match cache.learn(&name(index), &words(LEN, index)) {
            // It needs room in one piece, which there need not be between what others keep.
            Ok(_) | Err(Error::StoreFull(_)) => {}
            Err(error) => return Err(error),
        }
        drop(blob(brain, &format!("victim {me} sliding"))?);
        if index == 0 {
            held = blob(&cache, &name(0))?;
        }
    }
    let is_bound = cache_of(brain)?.exists(&name(0))?;
    let Some(held) = held.filter(|_| brain.stats().is_ok_and(|stats| stats.store_uuid == store)) else {
        return Ok(Ok(()));
    };
    Ok(match fill_of(&held) {
        Some(0) if held.len() == LEN && is_bound => Ok(()),
        found => Err(format!("what is held of the cache is {found:?}, and bound: {is_bound}")),
    })
}

/// Forks a child that uses what it inherited and the store. Returns whether it was struck.
fn fork_a_child(brain: &Brain, held: &[Blob]) -> Outcome<bool> {
    // SAFETY: `fork` asks that the child of a process with threads call only what is safe there. This process has none.
    let child = match unsafe { fork() }.map_err(|error| error.to_string())? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            alarm::set(GIVES_UP_AFTER_SECS);
            let all_there = held.iter().all(|blob| number_of("what was inherited", blob).is_ok());
            let me = std::process::id();
            let used = brain.learn(&format!("child {me}"), &value(5));
            let well = all_there && used.as_ref().map_or_else(is_outage, |_| true);
            // It leaves as those do who close all they have: its lifeline ends, and it lives on for a moment.
            // SAFETY: `close_range` asks that nobody use the descriptors any more: the client's are not used again.
            unsafe { nix::libc::close_range(3, nix::libc::c_uint::MAX, 0) };
            std::thread::sleep(Duration::from_millis(2));
            // SAFETY: `_exit` ends the process; nothing of it is needed any more.
            unsafe { nix::libc::_exit(i32::from(!well)) }
        }
    };
    let mut struck = false;
    loop {
        match waitpid(child, Some(WaitPidFlag::WUNTRACED)).map_err(|error| error.to_string())? {
            WaitStatus::Exited(_, 0) => return Ok(struck),
            WaitStatus::Signaled(_, Signal::SIGKILL, _) => return Ok(true),
            WaitStatus::Stopped(..) => {
                struck = true;
                // Meanwhile its parent goes on as if nothing were.
                let (fill, name) = (6, "while the child is stopped");
                let learned = brain.learn(name, &value(fill)).and_then(|_| brain.recall::<Blob>(name));
                match learned {
                    Ok(blob) if number_of(name, &blob) == Ok(fill) => {}
                    Err(error) if is_outage(&error) => {}
                    other => return Err(format!("{name}: {other:?}")),
                }
                kill(child, Signal::SIGCONT).map_err(|error| error.to_string())?;
            }
            ended => return Err(format!("a child ended so: {ended:?}")),
        }
    }
}

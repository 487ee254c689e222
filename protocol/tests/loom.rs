#![cfg(loom)]

use loom::{cell::Cell, model::Builder, thread};
use plasmon_protocol::{
    id::NameId,
    index::{Entry, IndexReader, IndexWriter, Lookup},
    layout::{IndexShape, bucket, entry, session},
    object::{Header, Kind},
    pins::{All, Moved, SessionRegion, Steps, offset_of, pin_for, reclaim_fence_with},
    sync::{AtomicU64, Ordering, Words},
};
use std::{
    collections::BTreeSet,
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering as StdOrdering},
    },
};

// ---------------------------------------------------------------- The models

/// A name is bound to extent 0, then to extent 1, which lets extent 0 be reused, while `READERS` threads of one
/// client recall it.
fn rebind<S: Steps + 'static, const READERS: u32>(seen: &Seen) {
    let shape = IndexShape::for_entries(1).unwrap();
    let index = region(shape.words());
    let mut writer = IndexWriter::prepare(&index, shape, [0; 16], 128);
    let number = writer.insert(&index, &id(1), &object(1, 0)).unwrap();
    let session = region(session::words(0));
    SessionRegion::prepare(&session).unwrap();
    let extents = Arc::new([Extent::holding(1), Extent::holding(2)]);

    let readers: Vec<_> = (0..READERS)
        .map(|slot| {
            let (index, session, extents, seen) = (index.clone(), session.clone(), extents.clone(), seen.clone());
            thread::spawn(move || {
                let index = Focus::on(&index, shape, &[entry::NAME_ID + 2, entry::VERSION, entry::OFFSET]);
                let publish = |entry: &Entry| Ok::<_, Infallible>(Pin::publish(&session, slot, entry.offset));
                match IndexReader::open(index).unwrap().lookup_with::<S, _, _>(&id(1), || 0, publish, 2).unwrap() {
                    Lookup::Held { entry, pin, .. } => {
                        let content = extents[usize::try_from(entry.offset / 64).unwrap()].read();
                        drop(pin);
                        assert_eq!(content, entry.version, "an extent was reused under its reader");
                        seen.note(if content == 1 { "read the old object" } else { "read the new object" });
                    }
                    Lookup::Absent => panic!("a name that is always bound was reported absent"),
                    Lookup::Unsteady => seen.note("gave up"),
                }
            })
        })
        .collect();

    writer.replace(&index, &id(1), number, &object(2, 64));
    reclaim_fence_with::<S>();
    if is_pinned(&session, 0) {
        seen.note("limbo");
    } else {
        extents[0].write(3);
        seen.note("reused");
    }
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

const REBIND_OUTCOMES: &[&str] = &["gave up", "limbo", "read the new object", "read the old object", "reused"];

fn main_probe() {}

#[test]
fn an_extent_is_not_reused_under_its_reader() {
    main_probe();
    explore(None, REBIND_OUTCOMES, rebind::<All, 1>);
}

#[test]
fn without_the_readers_fence_an_extent_is_reused_under_its_reader() {
    let violation = violation_in(rebind::<NoPinFence, 1>);
    assert!(violation.contains("reused") || violation.contains("Causality"), "{violation}");
}

#[test]
fn without_the_daemons_fence_an_extent_is_reused_under_its_reader() {
    let violation = violation_in(rebind::<NoReclaimFence, 1>);
    assert!(violation.contains("reused") || violation.contains("Causality"), "{violation}");
}

// ---------------------------------------------------------------- What the models are made of

enum NoPinFence {}
impl Steps for NoPinFence {
    const PIN_FENCE: bool = false;
}

enum NoReclaimFence {}
impl Steps for NoReclaimFence {
    const RECLAIM_FENCE: bool = false;
}

enum NoMissCheck {}
impl Steps for NoMissCheck {
    const CHECK_MISS: bool = false;
}

/// Explores `model` to the end. `outcomes` are what it must have noted on the way, all of them and no others: a model
/// in which nothing happens would prove nothing.
fn explore(preemptions: Option<usize>, outcomes: &[&'static str], model: fn(&Seen)) {
    let seen = Seen::default();
    run(preemptions, &seen, model);
    let noted = seen.0.lock().unwrap();
    assert_eq!(noted.iter().copied().collect::<Vec<_>>(), outcomes);
}

/// Explores `model` until it fails, and returns what it failed with.
fn violation_in(model: fn(&Seen)) -> String {
    let seen = Seen::default();
    let failure = catch_unwind(AssertUnwindSafe(|| run(None, &seen, model)))
        .expect_err("the model holds although a step is left out: it does not show what the step is for");
    match failure.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => (*other.downcast::<&'static str>().expect("panics carry text")).to_owned(),
    }
}

fn run(preemptions: Option<usize>, seen: &Seen, model: fn(&Seen)) {
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 10_000;
    let executions = Arc::new(AtomicUsize::new(0));
    let count = executions.clone();
    let seen = seen.clone();
    builder.check(move || {
        count.fetch_add(1, StdOrdering::Relaxed);
        model(&seen);
    });
    eprintln!("{} executions", executions.load(StdOrdering::Relaxed));
}

/// What has happened in some execution of a model.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeSet<&'static str>>>);

impl Seen {
    fn note(&self, outcome: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(outcome);
    }
}

/// The bytes of an object. Loom reports a write that is not ordered with every read.
struct Extent(Mutex<Cell<u64>>); // std's mutex, never contended: it tells the compiler what loom already ensures

impl Extent {
    fn holding(content: u64) -> Self {
        Extent(Mutex::new(Cell::new(content)))
    }

    fn read(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get()
    }

    fn write(&self, content: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).set(content);
    }
}

/// A pin, withdrawn when dropped.
struct Pin<'a> {
    session: &'a [AtomicU64],
    slot: u32,
}

impl<'a> Pin<'a> {
    fn publish(session: &'a [AtomicU64], slot: u32, offset: u64) -> Self {
        SessionRegion::assume_checked(session).publish(slot, pin_for(offset));
        Pin { session, slot }
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // A model that has failed is over: loom's atomics cannot be used any more.
            SessionRegion::assume_checked(self.session).withdraw(self.slot);
        }
    }
}

fn is_pinned(session: &[AtomicU64], offset: u64) -> bool {
    let mut found = false;
    SessionRegion::assume_checked(session).scan(|pin| found |= offset_of(pin) == Some(offset));
    found
}

fn region(words: usize) -> Arc<[AtomicU64]> {
    (0..words).map(|_| AtomicU64::new(0)).collect()
}

/// The index as the reader of a model sees it: of an entry only `fields`, the others read as zero.
///
/// The sequence protects all words of an entry alike, so a model need not try all ways to tear all sixteen.
struct Focus<'a> {
    words: &'a [AtomicU64],
    entries_start: usize,
    fields: &'static [usize],
}

impl<'a> Focus<'a> {
    fn on(words: &'a [AtomicU64], shape: IndexShape, fields: &'static [usize]) -> Self {
        Focus { words, entries_start: shape.entry(1).unwrap(), fields }
    }
}

impl Words for Focus<'_> {
    fn count(&self) -> usize {
        self.words.len()
    }

    fn load(&self, index: usize, order: Ordering) -> u64 {
        match index.checked_sub(self.entries_start) {
            Some(distance) if !self.fields.contains(&(distance % entry::WORDS)) => 0,
            _ => self.words[index].load(order),
        }
    }
}

/// An id whose third word is `number` and the others zero, so that one word of an entry tells names apart.
fn id(number: u64) -> NameId {
    let mut bytes = [0; 32];
    bytes[16..24].copy_from_slice(&number.to_le_bytes());
    NameId::from_bytes(bytes)
}

fn object(version: u64, offset: u64) -> Entry {
    Entry {
        version,
        offset,
        len_bytes: version,
        created_ns: 0,
        expires_ns: 0,
        writer_uid: 0,
        header: Header::new(Kind::BYTES),
    }
}

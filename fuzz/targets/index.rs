//! The index is a map, whatever is bound and unbound; and any words, in it or in a session region, are read without harm.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use plasmon_protocol::{
    id::NameId,
    index::{Entry, IndexReader, IndexWriter, Lookup, PoolEmpty},
    layout::{IndexShape, index_header, session},
    name::Namespace,
    object::{Dtype, Flags, Header, Kind},
    pins::{SessionRegion, offset_of},
    sync::{AtomicU64, Ordering},
};
use std::{collections::HashMap, convert::Infallible};

#[derive(Arbitrary, Debug)]
struct Input {
    entries: u8,
    steps: Vec<Step>,
    now_ns: u64,
    /// Then these words are overwritten.
    garbage: Vec<(u16, u64)>,
    session: Vec<(u16, u64)>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Bind(u8, [u64; 4], u32, [u8; 4]),
    Unbind(u8),
    Epoch,
    Look(u8),
    LookAtMany(Vec<u8>),
}

fn name(number: u8) -> NameId {
    NameId::new(&Namespace::default(), &format!("name {}", number % 40))
}

fn words(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

fuzz_target!(|input: Input| {
    let entries = u32::from(input.entries % 32) + 1;
    let shape = IndexShape::for_entries(entries).expect("few entries");
    let words = words(shape.words());
    let mut writer = IndexWriter::prepare(&words, shape, [7; 16], 1 << 20);
    let reader = IndexReader::open(&words[..]).expect("it is one");
    let mut model: HashMap<NameId, Entry> = HashMap::new();
    let is_live = |entry: &Entry| entry.expires_ns == 0 || entry.expires_ns > input.now_ns;
    let publish = |_: &Entry| Ok::<(), Infallible>(());
    for step in &input.steps {
        match step {
            Step::Bind(
                number,
                [version, offset, len_bytes, expires_ns],
                writer_uid,
                [kind, dtype, ndim, flags],
            ) => {
                let id = name(*number);
                let header = Header {
                    kind: Kind::from_number(*kind),
                    dtype: Dtype::from_number(*dtype),
                    ndim: *ndim,
                    flags: Flags::from_bits(*flags),
                    buffer_offset: *writer_uid,
                    dims: [*version, *offset, *len_bytes, *expires_ns],
                };
                let (version, offset, len_bytes) = (*version, *offset, *len_bytes);
                let (created_ns, expires_ns, writer_uid) = (version, *expires_ns, *writer_uid);
                let entry = Entry { version, offset, len_bytes, created_ns, expires_ns, writer_uid, header };
                match writer.find(&words, &id) {
                    Some(number) => writer.replace(&words, &id, number, &entry),
                    None if model.len() == entries as usize => {
                        assert_eq!(writer.insert(&words, &id, &entry), Err(PoolEmpty));
                        continue;
                    }
                    None => drop(writer.insert(&words, &id, &entry).expect("there is room")),
                }
                model.insert(id, entry);
            }
            Step::Unbind(number) => {
                let id = name(*number);
                assert_eq!(writer.remove(&words, &id).is_some(), model.remove(&id).is_some());
            }
            Step::Epoch => {
                writer.open_epoch(&words);
                let many = reader.snapshot(&[name(0)], || 0, publish).expect("infallible");
                assert!(many.is_none());
                writer.close_epoch(&words);
            }
            Step::Look(number) => {
                let id = name(*number);
                let expected = model.get(&id).filter(|entry| is_live(entry)).copied();
                match reader.lookup(&id, || input.now_ns, publish).expect("infallible") {
                    Lookup::Held { entry, .. } => assert_eq!(Some(entry), expected),
                    Lookup::Absent => assert_eq!(expected, None),
                    Lookup::Unsteady => panic!("nobody is writing"),
                }
            }
            Step::LookAtMany(numbers) => {
                let ids: Vec<NameId> = numbers.iter().map(|&number| name(number)).collect();
                let found = reader.snapshot(&ids, || input.now_ns, publish).expect("infallible");
                for (id, found) in ids.iter().zip(found.expect("nobody is writing")) {
                    let expected = model.get(id).filter(|entry| is_live(entry)).copied();
                    match found {
                        Lookup::Held { entry, .. } => assert_eq!(Some(entry), expected),
                        _ => assert_eq!(expected, None),
                    }
                }
            }
        }
        assert_eq!(writer.room() as usize, entries as usize - model.len());
    }
    hostile_index(&words, &input, publish);
    hostile_session(&input.session);
});

/// A reader comes to no harm, whatever stands in the index, its header as well.
fn hostile_index(
    words: &[AtomicU64],
    input: &Input,
    publish: impl Fn(&Entry) -> Result<(), Infallible> + Copy,
) {
    for &(at, value) in &input.garbage {
        if let Some(word) = words.get(usize::from(at) % words.len()) {
            word.store(value, Ordering::Relaxed);
        }
    }
    let Ok(reader) = IndexReader::open(words) else { return };
    assert!(reader.shape().words() <= words.len());
    let _ = (reader.epoch(), reader.is_closed());
    for number in 0..4 {
        let _ = reader.lookup(&name(number), || input.now_ns, publish).expect("infallible");
    }
    let _ = reader.snapshot(&[name(0), name(1)], || input.now_ns, publish).expect("infallible");
    words[index_header::MAGIC].store(0, Ordering::Relaxed);
    assert!(IndexReader::open(words).is_err());
}

/// Nor does the daemon, whatever a client writes into its session region.
fn hostile_session(garbage: &[(u16, u64)]) {
    const ENTRIES: u32 = 100;
    thread_local! {
        static WORDS: Vec<AtomicU64> = words(session::words(ENTRIES));
    }
    WORDS.with(|words| {
        words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        let region = SessionRegion::prepare(words).expect("it is long enough");
        for &(at, value) in garbage {
            // The header, some lease states and pins, the last words.
            let at = match at {
                0xff00.. => words.len() - 1 - usize::from(at & 0xff),
                at => usize::from(at),
            };
            if let Some(word) = words.get(at) {
                word.store(value, Ordering::Relaxed);
            }
        }
        region.scan(|pin| {
            let _ = offset_of(pin);
        });
        for slot in [0, 1, 5, 1_023, 1_024, u32::MAX] {
            if let Some(state) = region.lease(slot, 9) {
                let _ = (state.is_idle(), state.take(), state.claim());
                state.revoke();
            }
        }
        let _ = (region.hand_over(), region.has_accesses());
        region.take_accesses(|number| assert!(number <= ENTRIES.next_multiple_of(64)));
        region.set_ended();
    });
}

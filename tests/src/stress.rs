//! Pinned reads against a daemon that reuses memory as fast as it can, without the client library in between.
//!
//! The writer rebinds a handful of names with objects of the same length in a small arena, so that every freed extent
//! is overwritten at once. Each object is filled with one word of its own; a reader that ever sees two words in one
//! object, or a word older than one it has seen, has read memory that was reused under its pin. The names are always
//! bound, so every `Absent` is a false miss.

use crate::raw::RawSession;
use plasmon_protocol::{
    id::NameId,
    index::{IndexReader, Lookup},
    message::{Bind, Change, Commit, Payload},
    name::{Name, Namespace},
    object::{Header, Kind},
    pins::{SessionRegion, pin_for},
};
use plasmon_shm::{BytesMapping, ClientRegion, WordsMapping};
use std::{convert::Infallible, path::Path};

/// Names that the writer rebinds. Few buckets, so that entries move from chain to chain.
pub const NAMES: u32 = 6;

/// Words in each object: four pages, so that an overwrite takes a while.
const WORDS: usize = 2_048;

/// What a reader saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Reads of a pinned object.
    pub reads: u64,
    /// Different versions among them.
    pub versions: u64,
    /// Objects that were not one word all over, or older than one seen before.
    pub violations: u64,
    /// Names found absent although they are always bound.
    pub false_misses: u64,
}

fn name(number: u32) -> Name {
    Name::new(&format!("name {number}")).expect("a valid name")
}

/// Rebinds all names `rounds` times; odd rounds also move a name from one entry to another.
///
/// # Panics
/// If the daemon refuses.
pub fn write(socket: &Path, rounds: u64) {
    let mut session = RawSession::begin(socket);
    for round in 1..=rounds {
        for number in 0..NAMES {
            let fill = round * u64::from(NAMES) + u64::from(number);
            let bytes: Vec<u8> = std::iter::repeat_n(fill.to_le_bytes(), WORDS).flatten().collect();
            let payload = Payload::Inline { bytes: bytes.into() };
            let bind = |name| {
                Change::Bind(Bind {
                    namespace: Namespace::default(),
                    name,
                    description: None,
                    metadata: None,
                    header: Header::new(Kind::BYTES),
                    ttl: None,
                    payload: payload.clone(),
                })
            };
            // A name that comes and goes takes entries from bucket to bucket through the free list.
            let visitor = Name::new(&format!("visitor {}", fill % 97)).expect("a valid name");
            let leaving = Change::Unbind { namespace: Namespace::default(), name: visitor.clone() };
            for changes in [vec![bind(name(number))], vec![bind(visitor)], vec![leaving]] {
                let commit = Commit { conditions: vec![], changes, end_leases: vec![] };
                session.requests.call(&commit).expect("there is room");
            }
        }
    }
}

/// Reads until the writer's last round has been seen for every name, at least `reads_min` times.
///
/// # Panics
/// If the daemon refuses, or if the writer's last round never comes.
#[must_use]
pub fn read(socket: &Path, rounds: u64, reads_min: u64) -> Seen {
    let session = RawSession::begin(socket);
    let open = |number: usize, bytes| {
        let fd = session.fds[number].try_clone().expect("a descriptor");
        ClientRegion::from_fd(fd, bytes).expect("a sealed region")
    };
    let index = open(0, session.welcome.index_bytes).map_words_read_only().expect("a mapping");
    let arena = open(1, session.welcome.arena_bytes).map_bytes_read_only().expect("a mapping");
    let region = open(2, session.welcome.session_bytes).map_words().expect("a mapping");
    let pins = SessionRegion::open(region.words()).expect("a session region");
    let reader = IndexReader::open(&index).expect("an index");
    let ids: Vec<NameId> = (0..NAMES).map(|n| NameId::new(&Namespace::default(), &name(n))).collect();
    let mut latest = vec![0; ids.len()];
    let mut seen = Seen::default();
    let mut slot = 0;
    while seen.reads < reads_min || latest.iter().any(|&fill| fill < rounds * u64::from(NAMES)) {
        for (id, latest) in ids.iter().zip(&mut latest) {
            slot = (slot + 1) % 4; // not always the same word
            let publish = |entry: &plasmon_protocol::index::Entry| {
                pins.publish(slot, pin_for(entry.offset));
                Ok::<_, Infallible>(Pinned { pins: &region, slot })
            };
            let Ok(found) = reader.lookup(id, || 0, publish);
            match found {
                Lookup::Held { entry, pin: Some(_pin), .. } => {
                    let fills = object(&arena, entry.offset, entry.len_bytes);
                    let fill = fills[0];
                    if fills.iter().any(|&other| other != fill) || fill < *latest {
                        seen.violations += 1;
                    }
                    seen.versions += u64::from(fill > *latest);
                    *latest = fill.max(*latest);
                    seen.reads += 1;
                }
                Lookup::Held { pin: None, .. } => unreachable!("nothing here is held in its entry"),
                // Before its first version a name is rightly absent.
                Lookup::Absent => seen.false_misses += u64::from(*latest > 0),
                Lookup::Unsteady => {}
            }
        }
    }
    seen
}

struct Pinned<'a> {
    pins: &'a WordsMapping,
    slot: u32,
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        SessionRegion::assume_checked(self.pins.words()).withdraw(self.slot);
    }
}

/// Copies the words of an object, one volatile load each: the point of the test is that the memory might change.
fn object(arena: &BytesMapping, offset: u64, len_bytes: u64) -> Vec<u64> {
    let start = arena.pointer(offset, len_bytes).expect("the index names bytes of the arena").cast::<u64>();
    let words = usize::try_from(len_bytes / 8).expect("64 bits");
    // A sample of the words: both ends of each page, and the middle.
    (0..words)
        .step_by(61)
        .chain([words - 1])
        .map(|word| {
            let address = start.as_ptr().wrapping_add(word);
            // SAFETY: `pointer` checked that the object lies inside the mapping, `word` is inside the object, and
            // extents are 64-byte-aligned. The load is volatile: whether somebody writes meanwhile is the question.
            u64::from_le(unsafe { address.read_volatile() })
        })
        .collect()
}

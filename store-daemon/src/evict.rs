//! Which bindings of cache namespaces give way when room is short.
//!
//! Those that were used least recently go first: the queue of [`Catalog::next_cached`] is FIFO with a second chance (as
//! in F. J. Corbató, "A Paging Experiment with the Multics System", 1968), whose entries go back not to its end but to
//! where their last use belongs. A last use is noted when an entry comes up in the queue, and never when it is made; so a
//! recall costs nothing here, and the order is that of least recent use as exactly as recalls are known.
//!
//! Nothing is unbound before it is clear that room will come of it. Candidates are taken one after the other, as if their
//! extents were free, until somewhere there is room; then those go that lie there, and no others. So no more go than are
//! needed, and none where all of them would not be enough. An object of several names counts once all that hold it may
//! give way. Values that stand in the index give way only where entries of
//! that are short: they have a queue of their own.
//!
//! `state/room.rs` makes a [`Choice`] when something finds no room and a scan has told what is pinned. It calls
//! [`Choice::go_on`] until the choice is made.

use crate::{
    allocator::{Extent, FreeSpace, GRANULE_BYTES, Room},
    catalog::{Cached, Catalog, Next},
    objects::{ObjectNumber, Objects},
    reclaim::Pinned,
    slice::Slice,
    space::Space,
};
use std::{collections::BTreeMap, sync::Arc};

/// What is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// Room in the arena.
    Room(Room),
    /// So many entries of the index.
    Entries(u64),
}

/// A binding that is to give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Victim {
    /// Its index entry.
    pub(crate) number: u32,
    pub(crate) version: u64,
    /// Its object; `None` where the value stands in the index entry, which no pin names.
    pub(crate) object: Option<ObjectNumber>,
}

/// An object whose room there may be.
#[derive(Clone, Copy, Debug)]
enum Candidate {
    /// Only this binding holds it.
    One(Victim),
    /// Several names hold it, and all of them may give way.
    Names(ObjectNumber),
}

/// A choice on its way.
#[derive(Debug)]
pub(crate) struct Choice {
    shortage: Shortage,
    /// What the last scan found pinned: it stays.
    pinned: Arc<Pinned>,
    /// Where in the queues the choice is: in that of objects in the arena, and in that of values in the index.
    at: [Cached; 2],
    /// By index entry: those that give way for entries of the index.
    entries: BTreeMap<u32, Victim>,
    /// By extent: those of which some may give way for room.
    candidates: BTreeMap<Extent, Candidate>,
    /// Names of objects that have several, as far as they were taken, and how many of each object.
    names: BTreeMap<(ObjectNumber, u32), Victim>,
    name_counts: BTreeMap<ObjectNumber, u32>,
    candidate_bytes: u64,
    /// What would be free without the candidates.
    free: FreeSpace,
    /// What is known to be enough, and of those that give way for it these have been gathered.
    enough: Option<Enough>,
    victims: Vec<Victim>,
}

/// Which of those that may give way are enough.
#[derive(Clone, Copy, Debug)]
enum Enough {
    /// All that were taken for entries of the index, from this one on.
    Entries { next: u32 },
    /// The candidates that lie between here and there, in bytes from the start of the arena.
    Room { next: u64, end: u64 },
    /// The names of this candidate from this entry on, and then as above.
    Names { object: ObjectNumber, next_entry: u32, next: u64, end: u64 },
}

/// What a slice of choosing came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// There is more to do.
    More,
    /// Without these there is room.
    These(Vec<Victim>),
    /// There would not be enough room without all of them.
    Nothing,
}

impl Choice {
    pub(crate) fn new(shortage: Shortage, pinned: Arc<Pinned>) -> Choice {
        Choice {
            shortage,
            pinned,
            at: [Cached::FIRST, Cached::FIRST_IN_INDEX],
            entries: BTreeMap::new(),
            candidates: BTreeMap::new(),
            names: BTreeMap::new(),
            name_counts: BTreeMap::new(),
            candidate_bytes: 0,
            free: FreeSpace::default(),
            enough: None,
            victims: Vec::new(),
        }
    }

    /// Whether so much was gathered that freeing it takes a while.
    pub(crate) fn is_large(&self) -> bool {
        self.candidates.len() + self.names.len() + self.entries.len() > 1_024
    }

    /// Goes on for as long as `slice` lasts.
    pub(crate) fn go_on(
        &mut self,
        catalog: &mut Catalog,
        objects: &Objects,
        space: &Space,
        slice: &mut Slice,
    ) -> Chosen {
        while self.enough.is_none() && slice.spend() {
            let next = match self.shortage {
                Shortage::Room(_) => catalog.next_cached(self.at[0], slice),
                Shortage::Entries(_) => catalog.next_of_both(&mut self.at, slice),
            };
            let cached = match next {
                Next::This(cached) => cached,
                Next::End => return Chosen::Nothing,
                Next::NoTime => return Chosen::More,
            };
            if let Shortage::Room(_) = self.shortage {
                self.at[0] = cached;
            }
            let Some(victim) = catalog.cached_binding(cached) else { continue };
            let object = victim.object.and_then(|number| Some((number, objects.get(number)?)));
            let root = object.map(|(_, object)| object.homes.root());
            if root.is_some_and(|root| self.pinned.contains(root.offset)) {
                continue;
            }
            let room = match self.shortage {
                Shortage::Room(room) => room,
                Shortage::Entries(count) => {
                    self.entries.insert(victim.number, victim);
                    if self.entries.len() as u64 == count {
                        self.enough = Some(Enough::Entries { next: 0 });
                    }
                    continue;
                }
            };
            let Some((extent, (number, object))) = root.zip(object) else { continue };
            let candidate = if object.holders() == 1 {
                Candidate::One(victim)
            } else if self.take_name(victim, number) == object.holders() {
                Candidate::Names(number)
            } else {
                continue;
            };
            // In a lease, it would go back to that.
            if space.is_leased(extent) || self.free.first_overlap(extent).is_some() {
                continue;
            }
            self.candidates.insert(extent, candidate);
            self.candidate_bytes += extent.len_bytes;
            let mut run = self.free.insert(extent);
            // What is free beside it, unless another candidate has brought that.
            for beside in space.free_beside(extent) {
                if self.free.first_overlap(beside).is_none() {
                    run = self.free.insert(beside);
                }
            }
            if let Some(place) = space.place_in(run, room)
                && space.free_bytes() + self.candidate_bytes >= room.total_bytes
            {
                self.enough = Some(self.those_in(place, room));
            }
        }
        self.gather(slice)
    }

    /// Takes one of several names of an object. Returns how many of them are taken.
    fn take_name(&mut self, victim: Victim, object: ObjectNumber) -> u32 {
        let taken = self.name_counts.entry(object).or_default();
        *taken += u32::from(self.names.insert((object, victim.number), victim).is_none());
        *taken
    }

    fn those_in(&self, place: Extent, room: Room) -> Enough {
        // If the room is to be in several pieces, only its total is known to be enough: every candidate must go.
        if room.total_bytes > room.len_bytes.next_multiple_of(GRANULE_BYTES) {
            return Enough::Room { next: 0, end: u64::MAX };
        }
        // A candidate may lie across the beginning of the place.
        let before = self.candidates.range(..extent_at(place.offset)).next_back();
        let across = before.filter(|(extent, _)| extent.end() > place.offset);
        let next = across.map_or(place.offset, |(extent, _)| extent.offset);
        Enough::Room { next, end: place.end() }
    }

    /// Gathers those that are enough.
    fn gather(&mut self, slice: &mut Slice) -> Chosen {
        let Some(mut enough) = self.enough else { return Chosen::More };
        while slice.spend() {
            let next = match &mut enough {
                Enough::Entries { next } => {
                    let found = self.entries.range(*next..).next();
                    found.map(|(&number, victim)| {
                        *next = number + 1;
                        victim
                    })
                }
                &mut Enough::Room { next, end } => {
                    // The last one may lie across the end of the place.
                    let rest = extent_at(next)..extent_at(end.max(next));
                    let found = self.candidates.range(rest).next();
                    let next = found.map_or(next, |(extent, _)| extent.end());
                    enough = Enough::Room { next, end };
                    match found {
                        Some((_, &Candidate::Names(object))) => {
                            enough = Enough::Names { object, next_entry: 0, next, end };
                            continue;
                        }
                        Some((_, Candidate::One(victim))) => Some(victim),
                        None => None,
                    }
                }
                &mut Enough::Names { object, next_entry, next, end } => {
                    let rest = (object, next_entry)..=(object, u32::MAX);
                    let Some((&(_, entry), victim)) = self.names.range(rest).next() else {
                        enough = Enough::Room { next, end };
                        continue;
                    };
                    enough = Enough::Names { object, next_entry: entry + 1, next, end };
                    Some(victim)
                }
            };
            match next {
                Some(victim) => self.victims.push(*victim),
                None => return Chosen::These(std::mem::take(&mut self.victims)),
            }
        }
        self.enough = Some(enough);
        Chosen::More
    }
}

/// The first of all extents that begin at `offset`.
fn extent_at(offset: u64) -> Extent {
    Extent { offset, len_bytes: 0 }
}

//! Which bindings of cache namespaces give way when room is short.
//!
//! Those that were used least recently go first: the queue of [`Catalog::next_cached`] is FIFO with a second chance (as
//! in F. J. Corbató, "A Paging Experiment with the Multics System", 1968), whose entries go back not to its end but to
//! where their last use belongs. A last use is noted when an entry comes up in the queue, and never when it is made; so a
//! recall costs nothing here, and the order is that of least recent use as exactly as recalls are known.
//!
//! Nothing is unbound before it is clear that room will come of it. Candidates are taken one after the other, as if their
//! extents were free, until somewhere there is room; then those go that lie there, and no others. So no more go than are
//! needed, and none where all of them would not be enough.

use crate::{
    allocator::{Extent, FreeSpace, GRANULE_BYTES, Room},
    catalog::{Cached, Catalog},
    reclaim::Holders,
    slice::Slice,
    space::Space,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// What is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// Room in the arena.
    Room(Room),
    /// So many entries of the index.
    Entries(u64),
}

/// A binding that is to give way: its index entry, and the offset of its object.
pub(crate) type Victim = (u32, u64);

/// A choice on its way.
#[derive(Debug)]
pub(crate) struct Choice {
    shortage: Shortage,
    /// What the last scan found pinned: it stays.
    pinned: Arc<HashMap<u64, Holders>>,
    /// Where in the queue the choice is.
    at: Cached,
    /// What would be free without the candidates.
    free: FreeSpace,
    /// Their extents, and their index entries.
    candidates: BTreeMap<Extent, u32>,
    candidate_bytes: u64,
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
    pub(crate) fn new(shortage: Shortage, pinned: Arc<HashMap<u64, Holders>>) -> Choice {
        Choice {
            shortage,
            pinned,
            at: Cached::default(),
            free: FreeSpace::default(),
            candidates: BTreeMap::new(),
            candidate_bytes: 0,
        }
    }

    /// Goes on for as long as `slice` lasts.
    pub(crate) fn go_on(&mut self, catalog: &mut Catalog, space: &Space, slice: &mut Slice) -> Chosen {
        while slice.spend() {
            let Some(cached) = catalog.next_cached(self.at) else { return Chosen::Nothing };
            self.at = cached;
            let Some(offset) = catalog.cached_object(cached) else { continue };
            let Some((extent, is_leased)) = space.extent_of(offset) else { continue };
            if self.pinned.contains_key(&offset) || self.free.first_overlap(extent).is_some() {
                continue;
            }
            let room = match self.shortage {
                Shortage::Room(_) if is_leased => continue, // it would go back to the lease
                Shortage::Room(room) => room,
                Shortage::Entries(count) => {
                    self.candidates.insert(extent, cached.number);
                    if self.candidates.len() as u64 == count {
                        return Chosen::These(
                            self.candidates.iter().map(|(it, &n)| (n, it.offset)).collect(),
                        );
                    }
                    continue;
                }
            };
            self.candidates.insert(extent, cached.number);
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
                return Chosen::These(self.those_in(place, room));
            }
        }
        Chosen::More
    }

    fn those_in(&self, place: Extent, room: Room) -> Vec<Victim> {
        // What is to be placed in more than one piece needs all of them.
        let in_pieces = room.total_bytes > room.len_bytes.next_multiple_of(GRANULE_BYTES);
        let is_needed =
            |extent: &Extent| in_pieces || (extent.offset < place.end() && place.offset < extent.end());
        let needed = self.candidates.iter().filter(|(extent, _)| is_needed(extent));
        needed.map(|(extent, &number)| (number, extent.offset)).collect()
    }
}

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
    allocator::{Extent, FreeSpace, Room},
    catalog::{Cached, Catalog},
    reclaim::Holders,
    slice::Slice,
    space::Space,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// A choice on its way.
#[derive(Debug)]
pub(crate) struct Choice {
    room: Room,
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
    /// Without these there is room: their index entries, and the offsets of their objects.
    These(Vec<(u32, u64)>),
    /// There would not be enough room without all of them.
    Nothing,
}

impl Choice {
    pub(crate) fn new(room: Room, pinned: Arc<HashMap<u64, Holders>>) -> Choice {
        Choice {
            room,
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
            let Some(extent) = space.would_be_free(offset) else { continue };
            if self.pinned.contains_key(&offset) || self.free.first_overlap(extent).is_some() {
                continue;
            }
            self.candidates.insert(extent, cached.number);
            self.candidate_bytes += extent.len_bytes;
            let mut run = self.free.insert(extent);
            // What is free beside it, unless another candidate has brought that.
            for beside in space.free_beside(extent) {
                if self.free.first_overlap(beside).is_none() {
                    run = self.free.insert(beside);
                }
            }
            if let Some(place) = space.place_in(run, self.room)
                && space.free_bytes() + self.candidate_bytes >= self.room.total_bytes
            {
                return Chosen::These(self.those_in(place));
            }
        }
        Chosen::More
    }

    fn those_in(&self, place: Extent) -> Vec<(u32, u64)> {
        // What is to be placed in more than one piece needs all of them.
        let in_pieces = self.room.total_bytes > self.room.len_bytes;
        let is_needed =
            |extent: &Extent| in_pieces || (extent.offset < place.end() && place.offset < extent.end());
        let needed = self.candidates.iter().filter(|(extent, _)| is_needed(extent));
        needed.map(|(extent, &number)| (number, extent.offset)).collect()
    }
}

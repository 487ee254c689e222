//! Which parts of the arena are taken, which are lent to whom, and which are free. What stands in the parts that are taken,
//! [`objects`](crate::objects) knows.
//!
//! Commits and requests for leases take room here (`commit/place.rs`, `request/lease.rs`). `Objects` gives extents back
//! when a scan has found them unpinned, and `state/lifetimes.rs` gives leases back when a session ends.

use crate::{
    allocator::{Allocator, Extent, FreeSpace, GRANULE_BYTES, PAGE_BYTES, Room},
    budget::take_some,
    copy::Run,
    fast_hash::FastMap,
    populate::Populated,
    session::SessionId,
    slice::Slice,
};
use plasmon_protocol::pins::{Moved, SessionRegion};
use plasmon_shm::{Region, WordsMapping};
use std::{collections::BTreeMap, sync::Arc};

/// A lease's number, unique while the daemon lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LeaseId(pub(crate) u64);

/// Whole pages lent to one session.
#[derive(Debug)]
pub(crate) struct Lease {
    id: LeaseId,
    pub(crate) session: SessionId,
    pub(crate) slot: u32,
    pub(crate) extent: Extent,
    /// What of it no commit has claimed: objects, and pieces that are about to become some.
    rest: FreeSpace,
    /// Where a session writes that has no way to write the arena: a region of its own, as long as the lease.
    pub(crate) staging: Option<Arc<Region>>,
    region: Arc<WordsMapping>,
}

/// Why a part of a lease cannot become an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PieceError {
    #[error("no such lease of this session")]
    Unknown,
    #[error("the piece is not inside the lease of {} bytes at {}", .lease.len_bytes, .lease.offset)]
    Outside { lease: Extent },
    #[error("the piece does not begin at a multiple of {GRANULE_BYTES}")]
    Misaligned,
    #[error("the piece overlaps another one of the same lease")]
    Overlapping,
}

/// The figures of the arena, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SpaceFigures {
    pub(crate) used: u64,
    pub(crate) free: u64,
    pub(crate) largest_free: u64,
    pub(crate) leased: u64,
    pub(crate) populated: u64,
}

/// Pieces of an ended lease that are freed at once. A writer that fills its leases leaves one.
const PIECES_AT_ONCE: usize = 8;

/// The arena as the daemon sees it. All of it stands in private memory.
#[derive(Debug)]
pub(crate) struct Space {
    capacity_bytes: u64,
    allocator: Allocator,
    pub(crate) populated: Populated,
    /// What is left to be freed of leases that have ended.
    ended: Vec<FreeSpace>,
    let_go: Vec<Arc<Region>>,
    leases: FastMap<LeaseId, Lease>,
    leases_by_offset: BTreeMap<u64, LeaseId>,
    /// By session and slot.
    leases_by_slot: BTreeMap<(SessionId, u32), LeaseId>,
    /// How many each session has that has any.
    lease_counts: FastMap<SessionId, usize>,
    next_lease: u64,
}

impl Space {
    pub(crate) fn new(capacity_bytes: u64, populated: Populated) -> Self {
        Space {
            capacity_bytes,
            allocator: Allocator::new(capacity_bytes),
            populated,
            ended: Vec::new(),
            let_go: Vec::new(),
            leases: FastMap::default(),
            leases_by_offset: BTreeMap::new(),
            leases_by_slot: BTreeMap::new(),
            lease_counts: FastMap::default(),
            next_lease: 1,
        }
    }

    /// Room for an object that travelled in a message. Idle leases are taken back where nothing else is left.
    pub(crate) fn allocate(&mut self, len_bytes: u64) -> Option<Extent> {
        let mark = self.populated.mark();
        self.with_idle_leases(len_bytes, |allocator| allocator.allocate(len_bytes, mark))
    }

    /// Gives back an extent that became no object.
    pub(crate) fn release(&mut self, extent: Extent) {
        if let Err(error) = self.allocator.free(extent) {
            // Our own defect: the extent stays used, which harms less than handing it out twice.
            tracing::error!(?extent, ?error, "an extent was given back twice");
        }
    }

    /// Whole pages for a lease of `session`, whose state word is in slot `slot` of `region`.
    pub(crate) fn lease(
        &mut self,
        session: SessionId,
        slot: u32,
        region: &Arc<WordsMapping>,
        len_bytes: u64,
    ) -> Option<LeaseId> {
        let mark = self.populated.mark();
        let extent =
            self.with_idle_leases(len_bytes, |allocator| allocator.allocate_pages(len_bytes, mark))?;
        let id = LeaseId(self.next_lease);
        self.next_lease += 1;
        let mut rest = FreeSpace::default();
        rest.insert(extent);
        let lease = Lease { id, session, slot, extent, rest, staging: None, region: Arc::clone(region) };
        lease.state()?.grant();
        self.leases.insert(id, lease);
        self.leases_by_offset.insert(extent.offset, id);
        self.leases_by_slot.insert((session, slot), id);
        *self.lease_counts.entry(session).or_default() += 1;
        Some(id)
    }

    /// The lease, if it is one of `session`'s.
    pub(crate) fn lease_of(&self, session: SessionId, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id).filter(|lease| lease.session == session)
    }

    /// Makes a lease longer where it stands. What comes behind it must be free.
    pub(crate) fn extend_lease(&mut self, id: LeaseId, len_bytes: u64) -> Option<Extent> {
        let lease = self.leases.get_mut(&id)?;
        if len_bytes <= lease.extent.len_bytes {
            return Some(lease.extent);
        }
        let longer = self.allocator.extend(lease.extent, len_bytes)?;
        lease.rest.insert(Extent::between(lease.extent.end(), longer.end()));
        lease.extent = longer;
        Some(longer)
    }

    /// Claims `len_bytes` at `offset` of a lease for an object, and returns the object's extent. From here on the
    /// piece outlives its lease; what becomes no object is given back by [`unclaim`](Self::unclaim).
    pub(crate) fn claim_piece(
        &mut self,
        session: SessionId,
        id: LeaseId,
        offset: u64,
        len_bytes: u64,
    ) -> Result<Extent, PieceError> {
        let known = self.leases.get_mut(&id).filter(|lease| lease.session == session);
        let lease = known.ok_or(PieceError::Unknown)?;
        let outside = PieceError::Outside { lease: lease.extent };
        if !offset.is_multiple_of(GRANULE_BYTES) {
            return Err(PieceError::Misaligned);
        }
        let rounded = len_bytes.checked_next_multiple_of(GRANULE_BYTES).filter(|&bytes| bytes > 0);
        let Some(end) = rounded.and_then(|bytes| offset.checked_add(bytes)) else { return Err(outside) };
        let extent = Extent { offset, len_bytes: end - offset };
        let staged_bytes = lease.staging.as_ref().map_or(u64::MAX, |region| region.len_bytes());
        let end_max = lease.extent.end().min(lease.extent.offset.saturating_add(staged_bytes));
        if offset < lease.extent.offset || end > end_max {
            return Err(outside);
        }
        if lease.rest.range_at(offset).is_none_or(|range| range.end() < end) {
            return Err(PieceError::Overlapping);
        }
        lease.rest.take(offset, end);
        Ok(extent)
    }

    /// What is written for this lease is written into `region`.
    pub(crate) fn stage(&mut self, id: LeaseId, region: Arc<Region>) {
        if let Some(lease) = self.leases.get_mut(&id) {
            self.let_go.extend(lease.staging.replace(region));
        }
    }

    /// Regions that no lease needs any more. Freeing them takes as long as they are large.
    pub(crate) fn let_go(&mut self) -> Vec<Arc<Region>> {
        std::mem::take(&mut self.let_go)
    }

    /// Whether there are such regions.
    pub(crate) fn has_let_go(&self) -> bool {
        !self.let_go.is_empty()
    }

    /// Where the bytes of a claimed piece are, if not in the arena yet.
    pub(crate) fn staged(&self, id: LeaseId, piece: Extent) -> Option<Run> {
        let lease = self.leases.get(&id)?;
        let from = Arc::clone(lease.staging.as_ref()?);
        Some(Run { from, offset: piece.offset - lease.extent.offset, to: piece })
    }

    /// Gives back a piece of a lease: to the lease while it lasts, because the writer may still map these pages; else
    /// it is free.
    pub(crate) fn unclaim(&mut self, piece: Extent) {
        match self.lease_around(piece.offset) {
            Some(lease) => drop(lease.rest.insert(piece)),
            None => self.release(piece),
        }
    }

    /// Whether `extent` lies in a lease: then it goes back to that when it is freed.
    pub(crate) fn is_leased(&self, extent: Extent) -> bool {
        let offset = extent.offset;
        let before = self.leases_by_offset.range(..=offset).next_back();
        before.and_then(|(_, id)| self.leases.get(id)).is_some_and(|lease| lease.extent.end() > offset)
    }

    /// What is free right before and right behind an object's extent.
    pub(crate) fn free_beside(&self, extent: Extent) -> impl Iterator<Item = Extent> {
        self.allocator.free_beside(extent)
    }

    /// Where in `run`, if all of it were free, there would be `room`.
    pub(crate) fn place_in(&self, run: Extent, room: Room) -> Option<Extent> {
        self.allocator.place_in(run, room)
    }

    /// Bytes that are free now.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.allocator.free_bytes()
    }

    /// Whether parts of ended leases wait to be freed.
    pub(crate) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Frees what is left of ended leases, for as long as `slice` lasts. Returns whether all of it is free.
    pub(crate) fn free_some(&mut self, slice: &mut Slice) -> bool {
        while let Some(rest) = self.ended.last_mut() {
            if !slice.spend() {
                return false;
            }
            match rest.take_first() {
                Some(extent) => self.release(extent),
                None => drop(self.ended.pop()),
            }
        }
        true
    }

    /// Takes back what a lease was extended by: from `len_bytes` on, or from the end of a piece that lies across that.
    /// What was claimed there stays claimed.
    pub(crate) fn shrink_lease(&mut self, id: LeaseId, len_bytes: u64) {
        let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.extent.len_bytes > len_bytes) else {
            return;
        };
        let tail = Extent::between(lease.extent.offset + len_bytes, lease.extent.end());
        // A piece that lies across the new end stays inside: the lease ends with its last page.
        let end = lease.rest.first_overlap(tail).map_or(tail.end(), |free| {
            free.offset.max(tail.offset).next_multiple_of(PAGE_BYTES).min(tail.end())
        });
        let tail = Extent::between(end, tail.end());
        lease.extent.len_bytes = end - lease.extent.offset;
        let mut free = FreeSpace::default();
        while let Some(range) = lease.rest.first_overlap(tail) {
            let range = Extent::between(range.offset.max(tail.offset), range.end());
            lease.rest.take(range.offset, range.end());
            free.insert(range);
        }
        self.release_all(free);
    }

    /// Ends a lease: what no commit has claimed of it is free.
    pub(crate) fn end_lease(&mut self, id: LeaseId) {
        if let Some(lease) = self.leases.remove(&id) {
            if let Some(state) = lease.state() {
                state.revoke();
            }
            self.leases_by_offset.remove(&lease.extent.offset);
            self.leases_by_slot.remove(&(lease.session, lease.slot));
            take_some(&mut self.lease_counts, lease.session, 1);
            self.let_go.extend(lease.staging);
            self.release_all(lease.rest);
        }
    }

    /// Gives back what is left of a lease, at once if it is not too many pieces.
    fn release_all(&mut self, mut rest: FreeSpace) {
        for _ in 0..PIECES_AT_ONCE {
            let Some(extent) = rest.take_first() else { return };
            self.release(extent);
        }
        self.ended.push(rest);
    }

    /// The leases of one session.
    pub(crate) fn leases_of(&self, session: SessionId) -> Vec<LeaseId> {
        self.leases_by_slot.range((session, 0)..=(session, u32::MAX)).map(|(_, &id)| id).collect()
    }

    /// A lease slot of `session` below `slots` that is not in use: the one behind the last, or else the first gap.
    pub(crate) fn free_lease_slot(&self, session: SessionId, slots: u32) -> Option<u32> {
        let mut used =
            self.leases_by_slot.range((session, 0)..=(session, u32::MAX)).map(|(&(_, slot), _)| slot);
        let behind = used.clone().next_back().map_or(0, |last| last + 1);
        if behind < slots {
            return Some(behind);
        }
        (0..slots).find(|&slot| used.next() != Some(slot))
    }

    /// Number of leases of one session.
    pub(crate) fn lease_count_of(&self, session: SessionId) -> usize {
        self.lease_counts.get(&session).copied().unwrap_or(0)
    }

    /// Number of leases.
    pub(crate) fn lease_count(&self) -> u64 {
        self.leases.len() as u64
    }

    pub(crate) fn figures(&self) -> SpaceFigures {
        let (mut leased, mut idle) = (0, 0);
        for lease in self.leases.values() {
            let rest = lease.rest.total_bytes();
            if lease.state().is_some_and(|state| state.is_idle()) { idle += rest } else { leased += rest }
        }
        let used = self.allocator.used_bytes() - idle;
        SpaceFigures {
            used,
            free: self.capacity_bytes - used,
            largest_free: self.allocator.largest_free_bytes(),
            leased,
            populated: self.populated.bytes(),
        }
    }

    /// Tries to place `len_bytes`; while that fails, takes back one lease after the other that its client has laid
    /// down. Each lease is looked at once.
    fn with_idle_leases(
        &mut self,
        len_bytes: u64,
        mut place: impl FnMut(&mut Allocator) -> Option<Extent>,
    ) -> Option<Extent> {
        if len_bytes > self.capacity_bytes {
            return None; // nothing that is taken back could make room
        }
        if let Some(extent) = place(&mut self.allocator) {
            return Some(extent);
        }
        for id in self.leases.keys().copied().collect::<Vec<_>>() {
            let state = self.leases.get(&id).and_then(Lease::state);
            if state.is_some_and(|state| state.is_idle() && state.take() == Moved::Yes) {
                self.end_lease(id);
                if let Some(extent) = place(&mut self.allocator) {
                    return Some(extent);
                }
            }
        }
        None
    }

    /// The parts of the arena that none of `kept` needs, whole pages only; for giving memory back at the end.
    pub(crate) fn all_but(&self, mut kept: Vec<Extent>) -> Vec<Extent> {
        kept.sort_unstable();
        let mut holes = Vec::new();
        let mut from = 0;
        for extent in kept {
            let end = extent.offset / PAGE_BYTES * PAGE_BYTES;
            if end > from {
                holes.push(Extent { offset: from, len_bytes: end - from });
            }
            from = from.max(extent.end().next_multiple_of(PAGE_BYTES));
        }
        if from < self.capacity_bytes {
            holes.push(Extent { offset: from, len_bytes: self.capacity_bytes - from });
        }
        holes
    }

    fn lease_around(&mut self, offset: u64) -> Option<&mut Lease> {
        let (_, id) = self.leases_by_offset.range(..=offset).next_back()?;
        self.leases.get_mut(id).filter(|lease| lease.extent.end() > offset)
    }
}

impl Lease {
    fn state(&self) -> Option<plasmon_protocol::pins::LeaseState<'_>> {
        SessionRegion::assume_checked(self.region.words()).lease(self.slot, self.id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use plasmon_shm::{Backend, Kernel, Region};

    /// A client may commit a piece of what it was not granted yet, and that then cannot be backed with memory.
    #[test]
    fn a_piece_across_the_end_of_a_lease_that_shrinks_is_not_lost() {
        let words = plasmon_protocol::layout::session::words(64) as u64 * 8;
        let region = Region::create("plasmon-test", words, Backend::Memfd, &Kernel::detect()).unwrap();
        let region = Arc::new(region.map_words().unwrap());
        let mut space = Space::new(1 << 20, Populated::by_writers(1 << 20));
        let session = SessionId(1);
        let id = space.lease(session, 0, &region, PAGE_BYTES).unwrap();
        let extent = space.extend_lease(id, 4 * PAGE_BYTES).unwrap();
        let across = space.claim_piece(session, id, extent.offset + 64, PAGE_BYTES).unwrap();
        let beyond = space.claim_piece(session, id, extent.offset + 3 * PAGE_BYTES, 64).unwrap();
        space.shrink_lease(id, PAGE_BYTES);
        assert_eq!(space.lease_of(session, id).unwrap().extent.len_bytes, 2 * PAGE_BYTES);
        assert_eq!(space.figures().used, 2 * PAGE_BYTES + 64);
        space.unclaim(beyond);
        space.end_lease(id);
        assert_eq!(space.figures().used, PAGE_BYTES);
        space.unclaim(across);
        assert_eq!(space.figures().used, 0);
    }
}

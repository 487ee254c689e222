//! Who has which part of the arena: objects, leases, limbo, and what is free.

use crate::{
    allocator::{Allocator, Extent, GRANULE_BYTES, PAGE_BYTES},
    catalog::Catalog,
    populate::Populated,
    session::SessionId,
};
use plasmon_protocol::pins::{Moved, SessionRegion};
use plasmon_shm::WordsMapping;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// A lease's number, unique while the daemon lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LeaseId(pub(crate) u64);

/// An object's extent and what became of its name.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) extent: Extent,
    pub(crate) len_bytes: u64,
    pub(crate) version: u64,
    pub(crate) name: ObjectName,
}

impl Object {
    /// Whether no name refers to it any more.
    pub(crate) fn is_nameless(&self) -> bool {
        matches!(self.name, ObjectName::Lost(_))
    }
}

/// What an object is called.
#[derive(Clone, Debug)]
pub(crate) enum ObjectName {
    /// It is what this index entry says.
    Bound(u32),
    /// It has lost its name, which was this.
    Lost(Box<str>),
}

/// Whole pages lent to one session.
#[derive(Debug)]
pub(crate) struct Lease {
    id: LeaseId,
    pub(crate) session: SessionId,
    pub(crate) slot: u32,
    pub(crate) extent: Extent,
    /// What commits have claimed and still need, by offset: objects, and pieces that are about to become some.
    pieces: BTreeMap<u64, Extent>,
    region: Arc<WordsMapping>,
}

impl Lease {
    /// What no object takes up.
    fn rest(&self) -> Vec<Extent> {
        let mut rest = Vec::new();
        let mut from = self.extent.offset;
        for piece in self.pieces.values() {
            if piece.offset > from {
                rest.push(Extent { offset: from, len_bytes: piece.offset - from });
            }
            from = piece.end();
        }
        if from < self.extent.end() {
            rest.push(Extent { offset: from, len_bytes: self.extent.end() - from });
        }
        rest
    }

    fn rest_bytes(&self) -> u64 {
        self.rest().iter().map(|extent| extent.len_bytes).sum()
    }

    fn overlaps_a_piece(&self, extent: Extent) -> bool {
        let before = self.pieces.range(..extent.end()).next_back();
        before.is_some_and(|(_, piece)| piece.end() > extent.offset)
    }
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
    pub(crate) limbo: u64,
    pub(crate) leased: u64,
    pub(crate) populated: u64,
}

/// The arena as the daemon sees it. All of it stands in private memory.
#[derive(Debug)]
pub(crate) struct Space {
    capacity_bytes: u64,
    allocator: Allocator,
    pub(crate) populated: Populated,
    objects: HashMap<u64, Object>,
    /// Objects without a name that no scan has looked at yet.
    retired: Vec<u64>,
    /// Objects without a name that the last scan found pinned.
    limbo: HashSet<u64>,
    limbo_bytes: u64,
    leases: HashMap<LeaseId, Lease>,
    leases_by_offset: BTreeMap<u64, LeaseId>,
    /// By session and slot.
    leases_by_slot: BTreeMap<(SessionId, u32), LeaseId>,
    next_lease: u64,
}

impl Space {
    pub(crate) fn new(capacity_bytes: u64, populated: Populated) -> Self {
        Space {
            capacity_bytes,
            allocator: Allocator::new(capacity_bytes),
            populated,
            objects: HashMap::new(),
            retired: Vec::new(),
            limbo: HashSet::new(),
            limbo_bytes: 0,
            leases: HashMap::new(),
            leases_by_offset: BTreeMap::new(),
            leases_by_slot: BTreeMap::new(),
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
        let lease = Lease { id, session, slot, extent, pieces: BTreeMap::new(), region: Arc::clone(region) };
        lease.state()?.grant();
        self.leases.insert(id, lease);
        self.leases_by_offset.insert(extent.offset, id);
        self.leases_by_slot.insert((session, slot), id);
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
        lease.extent = self.allocator.extend(lease.extent, len_bytes)?;
        Some(lease.extent)
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
        let lease = self.lease_of(session, id).ok_or(PieceError::Unknown)?;
        let outside = PieceError::Outside { lease: lease.extent };
        if !offset.is_multiple_of(GRANULE_BYTES) {
            return Err(PieceError::Misaligned);
        }
        let rounded = len_bytes.checked_next_multiple_of(GRANULE_BYTES).filter(|&bytes| bytes > 0);
        let Some(end) = rounded.and_then(|bytes| offset.checked_add(bytes)) else { return Err(outside) };
        let extent = Extent { offset, len_bytes: end - offset };
        if offset < lease.extent.offset || end > lease.extent.end() {
            return Err(outside);
        }
        if lease.overlaps_a_piece(extent) {
            return Err(PieceError::Overlapping);
        }
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.pieces.insert(extent.offset, extent);
        }
        Ok(extent)
    }

    /// Gives back a piece of a lease: to the lease while it lasts, for the writer may still map these pages; else it
    /// is free.
    pub(crate) fn unclaim(&mut self, piece: Extent) {
        match self.lease_around(piece.offset) {
            Some(lease) => drop(lease.pieces.remove(&piece.offset)),
            None => self.release(piece),
        }
    }

    /// Turns a claimed piece of a lease, or an extent from [`allocate`](Self::allocate), into an object.
    pub(crate) fn add_object(&mut self, object: Object) {
        self.objects.insert(object.extent.offset, object);
    }

    /// The object at `offset` is what index entry `number` says.
    pub(crate) fn name_object(&mut self, offset: u64, number: u32) {
        if let Some(object) = self.objects.get_mut(&offset) {
            object.name = ObjectName::Bound(number);
        }
    }

    /// The object at `offset` has lost its name: it is free as soon as a scan finds it unpinned.
    pub(crate) fn retire(&mut self, offset: u64, name: String) {
        if let Some(object) = self.objects.get_mut(&offset) {
            object.name = ObjectName::Lost(name.into());
            self.retired.push(offset);
        }
    }

    /// The object at `offset`.
    pub(crate) fn object(&self, offset: u64) -> Option<&Object> {
        self.objects.get(&offset)
    }

    /// Number of objects, with a name or without.
    pub(crate) fn object_count(&self) -> usize {
        self.objects.len()
    }

    /// Everything without a name, for the next scan.
    pub(crate) fn candidates(&mut self) -> Vec<u64> {
        self.retired.drain(..).chain(self.limbo.iter().copied()).collect()
    }

    /// Whether the next scan could free anything.
    pub(crate) fn has_candidates(&self) -> bool {
        !self.retired.is_empty() || !self.limbo.is_empty()
    }

    /// Whether objects were retired that no scan has looked at.
    pub(crate) fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// Whether pins hold objects without a name.
    pub(crate) fn has_limbo(&self) -> bool {
        !self.limbo.is_empty()
    }

    /// Frees what a scan found unpinned.
    pub(crate) fn reclaim(&mut self, unpinned: &[u64]) {
        for offset in unpinned {
            let Some(object) = self.objects.remove(offset) else { continue };
            if self.limbo.remove(offset) {
                self.limbo_bytes -= object.extent.len_bytes;
            }
            self.unclaim(object.extent);
        }
    }

    /// Puts what a scan found pinned into limbo. Offsets that are no nameless object of ours are ignored.
    pub(crate) fn hold(&mut self, offset: u64) {
        if let Some(Object { extent, name: ObjectName::Lost(_), .. }) = self.objects.get(&offset)
            && self.limbo.insert(offset)
        {
            self.limbo_bytes += extent.len_bytes;
        }
    }

    /// Takes back what a lease was extended by: from `len_bytes` on. What was claimed there stays claimed.
    pub(crate) fn shrink_lease(&mut self, id: LeaseId, len_bytes: u64) {
        let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.extent.len_bytes > len_bytes) else {
            return;
        };
        let end = lease.extent.offset + len_bytes;
        let tail = lease.rest().into_iter().filter(|rest| rest.end() > end).map(|rest| {
            let offset = rest.offset.max(end);
            Extent { offset, len_bytes: rest.end() - offset }
        });
        let tail: Vec<Extent> = tail.collect();
        lease.extent.len_bytes = len_bytes;
        lease.pieces.retain(|&offset, _| offset < end);
        tail.into_iter().for_each(|extent| self.release(extent));
    }

    /// Ends a lease: what no commit has claimed of it is free.
    pub(crate) fn end_lease(&mut self, id: LeaseId) {
        if let Some(lease) = self.leases.remove(&id) {
            if let Some(state) = lease.state() {
                state.revoke();
            }
            self.leases_by_offset.remove(&lease.extent.offset);
            self.leases_by_slot.remove(&(lease.session, lease.slot));
            lease.rest().into_iter().for_each(|extent| self.release(extent));
        }
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

    /// Number of leases.
    pub(crate) fn lease_count(&self) -> u64 {
        self.leases.len() as u64
    }

    pub(crate) fn figures(&self) -> SpaceFigures {
        let (mut leased, mut idle) = (0, 0);
        for lease in self.leases.values() {
            let rest = lease.rest_bytes();
            if lease.state().is_some_and(|state| state.is_idle()) { idle += rest } else { leased += rest }
        }
        let used = self.allocator.used_bytes() - idle;
        SpaceFigures {
            used,
            free: self.capacity_bytes - used,
            largest_free: self.allocator.largest_free_bytes(),
            limbo: self.limbo_bytes,
            leased,
            populated: self.populated.bytes(),
        }
    }

    /// What an object is called, for people: `NAMESPACE/NAME`, and whether it has lost that name.
    pub(crate) fn label(&self, catalog: &Catalog, object: &Object) -> (String, bool) {
        match &object.name {
            ObjectName::Bound(number) => (catalog.label(*number).unwrap_or_default(), false),
            ObjectName::Lost(name) => (name.to_string(), true),
        }
    }

    /// Tries to place `len_bytes`; while that fails, takes back one lease after the other that its client has laid
    /// down.
    fn with_idle_leases(
        &mut self,
        len_bytes: u64,
        mut place: impl FnMut(&mut Allocator) -> Option<Extent>,
    ) -> Option<Extent> {
        if len_bytes > self.capacity_bytes {
            return None; // nothing that is taken back could make room
        }
        loop {
            if let Some(extent) = place(&mut self.allocator) {
                return Some(extent);
            }
            let taken = self.leases.iter().find(|(_, lease)| {
                lease.state().is_some_and(|state| state.is_idle() && state.take() == Moved::Yes)
            });
            let id = taken.map(|(&id, _)| id)?;
            self.end_lease(id);
        }
    }

    /// The parts of the arena that none of `kept` needs, whole pages only; for giving memory back at the end.
    pub(crate) fn all_but(&self, kept: impl IntoIterator<Item = u64>) -> Vec<Extent> {
        let mut kept: Vec<Extent> =
            kept.into_iter().filter_map(|offset| Some(self.objects.get(&offset)?.extent)).collect();
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

//! Which bytes of the arena are free, and where the next object or lease goes.
//!
//! All state is in the daemon's private heap: nothing is ever written into the arena, so nothing a client does to
//! shared memory can corrupt it (invariant 1). There is no I/O here, no clock, and no record of who holds what:
//! every byte is free or it is not, and whoever was handed an [`Extent`] gives it back, whole or in pieces.
//!
//! ```text
//! arena     0                                                            capacity
//! general   ........####........          ........######..........................
//! chunks                       [#..##....]
//! small                          ..  ....
//! ```
//!
//! Free bytes (dots) belong to one of two spaces. `general` is what lies outside all chunks. `small` is what lies
//! inside a chunk: a page-aligned piece of the arena set aside for small objects, so that these do not pin holes
//! between large ones. Chunks are a preference and never a partition: when the general space has no room, anything
//! may be placed in a chunk, or across the edge of one. *No room* therefore means that the arena as a whole has no
//! such run of free bytes (invariant 6).
//!
//! Placement is best fit: the shortest free range that has room, the lowest address among equals; and within it
//! the lowest address.
//!
//! `Space` (`space.rs`) is the only caller: it asks for every extent and every lease, and gives their bytes back.

mod free_space;
#[cfg(test)]
mod model;

use std::collections::BTreeSet;
use std::fmt;

pub(crate) use free_space::FreeSpace;
use free_space::Wanted;

/// Unit of all offsets and lengths in the arena.
pub(crate) const GRANULE_BYTES: u64 = 64;
/// Unit of leases: what can be mapped writable without exposing a neighbour.
pub(crate) const PAGE_BYTES: u64 = 4096;
/// Unit of population, and the boundary on which long leases start where one is free.
pub(crate) const STEP_BYTES: u64 = 2 << 20;

/// Leases of at least this length start on a step where one is free. Shorter ones do not: what they leave between
/// them would be a large part of the arena (half of it for leases just above one step), and mapping gains little.
const LONG_LEASE_BYTES: u64 = 8 * STEP_BYTES;

/// A chunk is never longer than this...
const CHUNK_BYTES_MAX: u64 = 1 << 20;
/// ...nor than this part of the arena, so that even small arenas lose little to half-filled chunks.
const CHUNKS_PER_ARENA: u64 = 256;
/// An object is small if at least this many of its size fit into a chunk.
const SMALL_PER_CHUNK: u64 = 8;

// Rounding an offset to a page keeps it on a granule, and the same for steps and pages.
const _: () = assert!(PAGE_BYTES.is_multiple_of(GRANULE_BYTES) && STEP_BYTES.is_multiple_of(PAGE_BYTES));

/// A contiguous, 64-byte-aligned piece of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Extent {
    /// Where it starts, in bytes from the start of the arena; a multiple of 64.
    pub(crate) offset: u64,
    /// Its length in bytes; a multiple of 64, never zero in an extent that the allocator hands out.
    pub(crate) len_bytes: u64,
}

impl Extent {
    /// The offset of the first byte after the extent.
    ///
    /// Saturates for an extent that no arena can hold; those the allocator hands out end at or before its capacity.
    #[must_use]
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.len_bytes)
    }

    /// The extent from `offset` to `end`; empty if they are the wrong way round.
    pub(crate) fn between(offset: u64, end: u64) -> Self {
        Self { offset, len_bytes: end.saturating_sub(offset) }
    }

    fn contains(&self, offset: u64) -> bool {
        self.offset <= offset && offset < self.end()
    }
}

/// Room that something needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Length of the extent that is needed next, in bytes.
    pub(crate) len_bytes: u64,
    /// Of whole pages, as [`Allocator::allocate_pages`] gives them.
    pub(crate) in_pages: bool,
    /// What is needed with what comes after it, in bytes: more extents of any length.
    pub(crate) total_bytes: u64,
}

/// Why [`Allocator::free`] refused. Nothing has changed.
///
/// Always a defect of the daemon: what clients send is checked before it gets here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum BadFree {
    /// The extent is empty, or does not start and end on a granule.
    NotGranular {
        /// What was to be freed.
        extent: Extent,
    },
    /// The extent ends after the arena does.
    OutsideArena {
        /// What was to be freed.
        extent: Extent,
        /// The arena's usable capacity in bytes.
        capacity_bytes: u64,
    },
    /// Some of the extent is free already: it was freed twice, or never allocated.
    AlreadyFree {
        /// What was to be freed.
        extent: Extent,
        /// The first free range that overlaps it.
        free: Extent,
    },
}

impl fmt::Display for BadFree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGranular { extent: Extent { offset, len_bytes } } => write!(
                f,
                "cannot free {len_bytes} bytes at offset {offset}: both must be multiples of {GRANULE_BYTES}, and \
                 the length not zero"
            ),
            Self::OutsideArena { extent: Extent { offset, len_bytes }, capacity_bytes } => write!(
                f,
                "cannot free {len_bytes} bytes at offset {offset}: the arena ends at {capacity_bytes} bytes"
            ),
            Self::AlreadyFree { extent: Extent { offset, len_bytes }, free } => write!(
                f,
                "cannot free {len_bytes} bytes at offset {offset}: {} bytes at offset {} are free already",
                free.len_bytes, free.offset
            ),
        }
    }
}

impl std::error::Error for BadFree {}

/// The allocator of one arena of fixed capacity.
///
/// The *mark* that placing calls take is the population mark: memory below it is populated. Places wholly below it
/// come first, whatever their fit; places that reach above it only if nothing below has room. A mark at or above the
/// capacity, such as `u64::MAX`, makes no difference between places.
///
/// Every call takes time logarithmic in the number of free ranges, except that a call which finds no room (also: no
/// room below the mark) may look at every free range that is long enough.
#[derive(Clone, Debug)]
pub(crate) struct Allocator {
    capacity_bytes: u64,
    /// Free bytes outside all chunks.
    general: FreeSpace,
    /// Free bytes inside chunks. It never holds all of a chunk: `free` returns such a one to `general`.
    small: FreeSpace,
    /// Where the chunks start. All are `chunk_bytes` long.
    chunks: BTreeSet<u64>,
    /// Whole pages; zero in an arena too small to have chunks.
    chunk_bytes: u64,
}

impl Allocator {
    /// An arena of `capacity_bytes`, all free.
    ///
    /// The usable part is the capacity rounded down to 64 bytes. Arenas of less than 1 MiB have no chunks.
    #[must_use]
    pub(crate) fn new(capacity_bytes: u64) -> Self {
        let chunk_bytes = CHUNK_BYTES_MAX.min(capacity_bytes / CHUNKS_PER_ARENA);
        Self::with_chunks_of(chunk_bytes, capacity_bytes)
    }

    fn with_chunks_of(chunk_bytes: u64, capacity_bytes: u64) -> Self {
        let capacity_bytes = round_down(capacity_bytes, GRANULE_BYTES);
        let mut general = FreeSpace::default();
        if capacity_bytes > 0 {
            general.insert(Extent::between(0, capacity_bytes));
        }
        Self {
            capacity_bytes,
            general,
            small: FreeSpace::default(),
            chunks: BTreeSet::new(),
            chunk_bytes: round_down(chunk_bytes, PAGE_BYTES),
        }
    }

    /// Room for one object of `len_bytes`, rounded up to 64 bytes; `None` if there is no such run of free bytes, or
    /// if `len_bytes` is zero.
    ///
    /// The extent may share its first and last page with others. An object of at most an eighth of a chunk goes
    /// into a chunk (a new one if need be), and anywhere else only if no chunk can be had.
    pub(crate) fn allocate(&mut self, len_bytes: u64, mark: u64) -> Option<Extent> {
        let len_bytes = self.round_up(len_bytes, GRANULE_BYTES)?;
        let wanted = Wanted {
            len_bytes,
            least_bytes: len_bytes,
            align_bytes: GRANULE_BYTES,
            arena_end: self.capacity_bytes,
            limit: self.capacity_bytes,
        };
        let place = self.limits(mark).into_iter().flatten().find_map(|limit| {
            let wanted = Wanted { limit, ..wanted };
            self.place_small(wanted)
                .or_else(|| self.general.find(wanted).map(Place::Free))
                .or_else(|| self.place_anywhere(wanted).map(Place::Free))
        })?;
        let extent = match place {
            Place::Free(extent) => extent,
            Place::NewChunk { chunk, extent } => {
                self.take(chunk);
                self.chunks.insert(chunk.offset);
                self.small.insert(chunk);
                extent
            }
        };
        self.take(extent);
        Some(extent)
    }

    /// Whole pages for a lease of `len_bytes`; `None` if there is no such run of free pages, or if `len_bytes` is
    /// zero.
    ///
    /// The extent starts on a page and is `len_bytes` rounded up to pages long; only at the end of an arena that
    /// ends inside a page does it end there, with the arena. It shares no page with any other extent. One of at
    /// least 16 MiB starts on a 2 MiB boundary where one is free (below the mark, if it can go there at all), else
    /// on any page.
    pub(crate) fn allocate_pages(&mut self, len_bytes: u64, mark: u64) -> Option<Extent> {
        let wanted = Wanted {
            len_bytes: self.round_up_to_pages(len_bytes)?,
            least_bytes: self.round_up(len_bytes, GRANULE_BYTES)?,
            align_bytes: PAGE_BYTES,
            arena_end: self.capacity_bytes,
            limit: self.capacity_bytes,
        };
        let extent = self.limits(mark).into_iter().flatten().find_map(|limit| {
            let wanted = Wanted { limit, ..wanted };
            let on_a_step = Wanted { align_bytes: STEP_BYTES, ..wanted };
            (len_bytes >= LONG_LEASE_BYTES)
                .then(|| self.general.find(on_a_step))
                .flatten()
                .or_else(|| self.general.find(wanted))
                .or_else(|| self.place_anywhere(wanted))
        })?;
        self.take(extent);
        Some(extent)
    }

    /// Makes an extent of whole pages longer without moving it: `new_len_bytes` are rounded as by
    /// [`Allocator::allocate_pages`], and the longer extent is returned.
    ///
    /// An extent that is long enough is returned as it is. `None`, and nothing has changed, if what follows is not
    /// free, or if `extent` does not start on a page or is not all allocated.
    pub(crate) fn extend(&mut self, extent: Extent, new_len_bytes: u64) -> Option<Extent> {
        if !extent.offset.is_multiple_of(PAGE_BYTES) || self.check_allocated(extent).is_err() {
            return None;
        }
        if new_len_bytes <= extent.len_bytes {
            return Some(extent);
        }
        let least_bytes = self.round_up(new_len_bytes, GRANULE_BYTES)?;
        let wanted_end = extent.offset.saturating_add(self.round_up_to_pages(new_len_bytes)?);
        let longer = Extent::between(extent.offset, wanted_end.min(self.capacity_bytes));
        if longer.len_bytes < least_bytes || !self.is_free(extent.end(), longer.end()) {
            return None;
        }
        self.take(Extent::between(extent.end(), longer.end()));
        Some(longer)
    }

    /// Gives back allocated space: an extent, any granule-aligned part of one, or several that adjoin.
    ///
    /// A page of which a part was freed may be shared from then on. So while a lease is mapped writable, whoever
    /// holds it keeps the pieces it no longer needs, and frees them when the lease ends.
    ///
    /// # Errors
    /// [`BadFree`] if any of it is not allocated. Nothing has changed; the space that should have been freed may
    /// be lost until the store stops, but nobody's bytes are handed out twice.
    pub(crate) fn free(&mut self, extent: Extent) -> Result<(), BadFree> {
        self.check_allocated(extent)?;
        let mut at = extent.offset;
        while at < extent.end() {
            if let Some(chunk) = self.chunk_at(at) {
                let piece = Extent::between(at, chunk.end().min(extent.end()));
                let range = self.small.insert(piece);
                // `range` may reach into the chunks on either side, but not across them: they are not empty.
                if range.offset <= chunk.offset && chunk.end() <= range.end() {
                    self.small.take(chunk.offset, chunk.end());
                    self.chunks.remove(&chunk.offset);
                    self.general.insert(chunk);
                }
                at = piece.end();
            } else {
                let next_chunk = self.chunks.range(at..).next().copied().unwrap_or(u64::MAX);
                let piece = Extent::between(at, next_chunk.min(extent.end()));
                self.general.insert(piece);
                at = piece.end();
            }
        }
        Ok(())
    }

    /// The runs of free bytes that end where `extent`, which is allocated, begins, and begin where it ends.
    pub(crate) fn free_beside(&self, extent: Extent) -> impl Iterator<Item = Extent> {
        let (mut start, mut end) = (extent.offset, extent.end());
        let before = |at| self.general.range_that_ends_at(at).or_else(|| self.small.range_that_ends_at(at));
        while let Some(range) = before(start) {
            start = range.offset;
        }
        while let Some(range) = self.general.range_at(end).or_else(|| self.small.range_at(end)) {
            end = range.end();
        }
        let beside = [Extent::between(start, extent.offset), Extent::between(extent.end(), end)];
        beside.into_iter().filter(|extent| extent.len_bytes > 0)
    }

    /// Where in `run`, if all of it were free, there would be `room`.
    pub(crate) fn place_in(&self, run: Extent, room: Room) -> Option<Extent> {
        let least_bytes = self.round_up(room.len_bytes, GRANULE_BYTES)?;
        let (len_bytes, align_bytes) = match room.in_pages {
            true => (self.round_up_to_pages(room.len_bytes)?, PAGE_BYTES),
            false => (least_bytes, GRANULE_BYTES),
        };
        let (arena_end, limit) = (self.capacity_bytes, self.capacity_bytes);
        Wanted { len_bytes, least_bytes, align_bytes, arena_end, limit }.place_in(run)
    }

    /// The usable capacity in bytes: free and used bytes together.
    #[cfg(test)]
    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// All bytes not handed out, in chunks and outside.
    #[must_use]
    pub(crate) fn free_bytes(&self) -> u64 {
        self.general.total_bytes() + self.small.total_bytes()
    }

    /// All bytes handed out and not yet given back.
    #[must_use]
    pub(crate) fn used_bytes(&self) -> u64 {
        self.capacity_bytes - self.free_bytes()
    }

    /// Length in bytes of the longest run of free bytes, in chunks, outside, or across their edges: the longest
    /// object that [`Allocator::allocate`] has room for now.
    ///
    /// [`Allocator::allocate_pages`] has room for as much only if the run starts on a page and ends on one.
    #[must_use]
    pub(crate) fn largest_free_bytes(&self) -> u64 {
        let mut largest_bytes = self.general.longest_bytes().max(self.small.longest_bytes());
        if self.small.total_bytes() > 0 {
            for range in self.general.longest_first() {
                if range.len_bytes.saturating_add(self.joined_bytes_max()) <= largest_bytes {
                    break;
                }
                largest_bytes = largest_bytes.max(self.join(range).len_bytes);
            }
        }
        largest_bytes
    }

    /// Checks everything this module takes for granted about its own state. Linear in the number of free ranges:
    /// for tests.
    ///
    /// # Panics
    /// If the state contradicts itself, which is a defect of this module.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.general.check(self.capacity_bytes);
        self.small.check(self.capacity_bytes);
        assert!(self.free_bytes() <= self.capacity_bytes);
        assert!(self.chunk_bytes.is_multiple_of(PAGE_BYTES));
        let mut end_of_last = 0;
        for &offset in &self.chunks {
            let chunk = Extent { offset, len_bytes: self.chunk_bytes };
            assert!(offset.is_multiple_of(PAGE_BYTES), "chunk {chunk:?} does not start on a page");
            assert!(offset >= end_of_last, "chunk {chunk:?} overlaps the one before");
            end_of_last = chunk.end();
            assert_eq!(self.general.first_overlap(chunk), None, "the general space reaches into {chunk:?}");
            let all_free = self.small.range_at(offset).is_some_and(|range| range.end() >= chunk.end());
            assert!(!all_free, "chunk {chunk:?} is empty");
        }
        assert!(end_of_last <= self.capacity_bytes);
        for range in self.small.ranges() {
            let mut at = range.offset;
            while at < range.end() {
                at = self.chunk_at(at).map(|chunk| chunk.end()).expect("the small space lies inside chunks");
            }
        }
    }

    /// Where the ends of places may lie, in order of preference.
    fn limits(&self, mark: u64) -> [Option<u64>; 2] {
        [(mark < self.capacity_bytes).then_some(mark), Some(self.capacity_bytes)]
    }

    /// A place for a small object, in a chunk there is or in a new one; `None` also if the object is not small.
    fn place_small(&self, wanted: Wanted) -> Option<Place> {
        if wanted.len_bytes > self.chunk_bytes / SMALL_PER_CHUNK {
            return None;
        }
        if let Some(extent) = self.small.find(wanted) {
            return Some(Place::Free(extent));
        }
        let chunk = self.general.find(Wanted {
            len_bytes: self.chunk_bytes,
            least_bytes: self.chunk_bytes,
            align_bytes: PAGE_BYTES,
            ..wanted
        })?;
        Some(Place::NewChunk { chunk, extent: Extent { offset: chunk.offset, len_bytes: wanted.len_bytes } })
    }

    /// The last resort: a place inside chunks, or across the edge of one, for what need not be small.
    ///
    /// Together with the search of the general space that came before, it leaves no run of free bytes untried: one
    /// that lies in a single space is a range of that space, and any other is a general range and what adjoins it.
    fn place_anywhere(&self, wanted: Wanted) -> Option<Extent> {
        if self.small.total_bytes() == 0 {
            return None;
        }
        self.small.find(wanted).or_else(|| {
            self.general
                .no_shorter_than(wanted.least_bytes.saturating_sub(self.joined_bytes_max()))
                .map(|range| self.join(range))
                .filter_map(|run| wanted.place_in(run).map(|extent| (run.len_bytes, extent)))
                .min()
                .map(|(_run_bytes, extent)| extent)
        })
    }

    /// The run of free bytes around a range of the general space.
    ///
    /// One range of the small space on either side is all there can be: as no chunk is empty, each of them has its
    /// other end inside the chunk that adjoins `range`.
    fn join(&self, range: Extent) -> Extent {
        let before = self.small.range_that_ends_at(range.offset);
        let after = self.small.range_at(range.end());
        Extent::between(
            before.map_or(range.offset, |before| before.offset),
            after.map_or(range.end(), |after| after.end()),
        )
    }

    /// A bound on how much longer than its range a run returned by `join` can be.
    fn joined_bytes_max(&self) -> u64 {
        2 * self.chunk_bytes
    }

    /// Whether all bytes from `offset` to `end` are free, in whatever space.
    fn is_free(&self, offset: u64, end: u64) -> bool {
        let mut at = offset;
        while at < end {
            match self.general.range_at(at).or_else(|| self.small.range_at(at)) {
                Some(range) => at = range.end(),
                None => return false,
            }
        }
        true
    }

    /// Takes an extent, all of it free, out of whatever spaces it lies in.
    fn take(&mut self, extent: Extent) {
        let mut at = extent.offset;
        while at < extent.end() {
            at = self
                .general
                .take(at, extent.end())
                .or_else(|| self.small.take(at, extent.end()))
                .expect("every caller found the whole extent free in the same call");
        }
    }

    /// Whether `extent` is a piece of the arena that is all allocated, and if not, why not.
    fn check_allocated(&self, extent: Extent) -> Result<(), BadFree> {
        let granular =
            extent.offset.is_multiple_of(GRANULE_BYTES) && extent.len_bytes.is_multiple_of(GRANULE_BYTES);
        if !granular || extent.len_bytes == 0 {
            return Err(BadFree::NotGranular { extent });
        }
        // An end that saturates is outside, too: the capacity is a multiple of 64, `u64::MAX` is not.
        if extent.end() > self.capacity_bytes {
            return Err(BadFree::OutsideArena { extent, capacity_bytes: self.capacity_bytes });
        }
        let free = [self.general.first_overlap(extent), self.small.first_overlap(extent)];
        match free.into_iter().flatten().min() {
            Some(free) => Err(BadFree::AlreadyFree { extent, free }),
            None => Ok(()),
        }
    }

    /// The chunk that holds the byte at `offset`.
    fn chunk_at(&self, offset: u64) -> Option<Extent> {
        let &start = self.chunks.range(..=offset).next_back()?;
        let chunk = Extent { offset: start, len_bytes: self.chunk_bytes };
        chunk.contains(offset).then_some(chunk)
    }

    /// `len_bytes` rounded up to a multiple of `unit_bytes`; `None` if that is zero or more than the capacity.
    fn round_up(&self, len_bytes: u64, unit_bytes: u64) -> Option<u64> {
        let rounded_bytes = len_bytes.checked_next_multiple_of(unit_bytes)?;
        (0 < rounded_bytes && rounded_bytes <= self.capacity_bytes).then_some(rounded_bytes)
    }

    /// `len_bytes` rounded up to pages, but not beyond the capacity; `None` if it is zero.
    fn round_up_to_pages(&self, len_bytes: u64) -> Option<u64> {
        let rounded_bytes = len_bytes.checked_next_multiple_of(PAGE_BYTES).unwrap_or(u64::MAX);
        (rounded_bytes > 0).then_some(rounded_bytes.min(self.capacity_bytes))
    }
}

/// Where an object goes.
enum Place {
    /// Into free bytes of either space, or of both.
    Free(Extent),
    /// To the start of a new chunk, which is to come out of the general space.
    NewChunk { chunk: Extent, extent: Extent },
}

fn round_down(bytes: u64, unit_bytes: u64) -> u64 {
    bytes - bytes % unit_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mark that makes no difference between places.
    const ALL: u64 = u64::MAX;
    const MIB: u64 = 1 << 20;

    fn extent(offset: u64, len_bytes: u64) -> Extent {
        Extent { offset, len_bytes }
    }

    /// An arena of `capacity_bytes` without chunks, all allocated but for `free`.
    fn only_free(capacity_bytes: u64, free: &[Extent]) -> Allocator {
        let mut allocator = Allocator::with_chunks_of(0, capacity_bytes);
        assert_eq!(allocator.allocate(capacity_bytes, ALL), Some(extent(0, capacity_bytes)));
        for &range in free {
            assert_eq!(allocator.free(range), Ok(()));
        }
        allocator.check();
        allocator
    }

    fn assert_all_free(allocator: &Allocator) {
        allocator.check();
        assert_eq!(allocator.used_bytes(), 0);
        assert_eq!(allocator.free_bytes(), allocator.capacity_bytes());
        assert_eq!(allocator.general.ranges().count(), usize::from(allocator.capacity_bytes() > 0));
        assert_eq!(allocator.largest_free_bytes(), allocator.capacity_bytes());
        assert!(allocator.chunks.is_empty());
    }

    /// Invariant 6: all of the advertised capacity is usable.
    #[test]
    fn one_object_can_fill_the_whole_arena() {
        for capacity_bytes in [64, 4096, 4096 + 64, 50_000_000, 64 * MIB, 1 << 45] {
            let mut allocator = Allocator::new(capacity_bytes);
            let whole = extent(0, allocator.capacity_bytes());
            assert_eq!(allocator.allocate(whole.len_bytes, ALL), Some(whole));
            assert_eq!((allocator.free_bytes(), allocator.largest_free_bytes()), (0, 0));
            assert_eq!(allocator.allocate(1, ALL), None);
            assert_eq!(allocator.allocate_pages(1, ALL), None);
            assert_eq!(allocator.free(whole), Ok(()));
            assert_all_free(&allocator);
        }
    }

    /// Invariant 6: all of the advertised capacity is usable.
    #[test]
    fn one_lease_can_fill_the_whole_arena() {
        for capacity_bytes in [64, 4096, 4096 + 64, 50_000_000, 64 * MIB, 1 << 45, u64::MAX] {
            let mut allocator = Allocator::new(capacity_bytes);
            let whole = extent(0, allocator.capacity_bytes());
            assert_eq!(allocator.allocate_pages(whole.len_bytes, ALL), Some(whole));
            assert_eq!(allocator.used_bytes(), whole.len_bytes);
            assert_eq!(allocator.free(whole), Ok(()));
            assert_all_free(&allocator);
        }
    }

    #[test]
    fn a_capacity_is_rounded_down_to_a_granule() {
        for (capacity_bytes, usable_bytes) in
            [(0, 0), (63, 0), (64, 64), (127, 64), (4095, 4032), (4100, 4096), (u64::MAX, u64::MAX - 63)]
        {
            let allocator = Allocator::new(capacity_bytes);
            assert_eq!(allocator.capacity_bytes(), usable_bytes);
            assert_all_free(&allocator);
        }
    }

    #[test]
    fn an_arena_without_a_granule_has_no_room() {
        for capacity_bytes in [0, 63] {
            let mut allocator = Allocator::new(capacity_bytes);
            assert_eq!(allocator.allocate(1, ALL), None);
            assert_eq!(allocator.allocate_pages(1, ALL), None);
            assert_eq!(allocator.extend(extent(0, 0), 64), None);
            assert_all_free(&allocator);
        }
    }

    #[test]
    fn an_arena_of_less_than_a_page_can_be_leased() {
        let mut allocator = Allocator::new(130);
        assert_eq!(allocator.allocate_pages(1, ALL), Some(extent(0, 128)));
        assert_eq!(allocator.allocate_pages(1, ALL), None);
    }

    #[test]
    fn a_partial_last_page_belongs_to_whoever_has_it_all() {
        let capacity_bytes = 2 * PAGE_BYTES + 128;
        let last = extent(2 * PAGE_BYTES, 128);
        let mut allocator = only_free(capacity_bytes, &[last]);
        assert_eq!(allocator.clone().allocate_pages(129, ALL), None);
        assert_eq!(allocator.clone().allocate_pages(65, ALL), Some(last));
        assert_eq!(allocator.allocate(64, ALL), Some(extent(last.offset, 64)));
        assert_eq!(allocator.allocate_pages(64, ALL), None, "the page is shared now");
    }

    /// Invariant 6: what users of the predecessor could not do with a store of 50 MB.
    #[test]
    fn a_store_of_50_mb_takes_48_leases_of_one_megabyte() {
        let mut allocator = Allocator::new(50_000_000);
        let leases: Vec<_> = std::iter::from_fn(|| allocator.allocate_pages(1_001_500, ALL)).collect();
        assert!(leases.len() >= 48, "only {}", leases.len());
        allocator.check();
        leases.into_iter().for_each(|lease| assert_eq!(allocator.free(lease), Ok(())));
        assert_all_free(&allocator);
    }

    #[test]
    fn no_length_is_too_short_or_too_long_to_be_answered() {
        for capacity_bytes in [0, 4096, 50_000_000, u64::MAX] {
            let mut allocator = Allocator::new(capacity_bytes);
            for len_bytes in [0, u64::MAX, u64::MAX - 62] {
                assert_eq!(allocator.allocate(len_bytes, ALL), None);
                assert_eq!(allocator.allocate(len_bytes, 0), None);
                assert_eq!(allocator.allocate_pages(len_bytes, ALL), None);
            }
            let hostile = [0, 1, 63, 64, 4096, u64::MAX - 63, u64::MAX];
            for (offset, len_bytes) in hostile.iter().flat_map(|&a| hostile.map(|b| (a, b))) {
                assert_eq!(allocator.extend(extent(offset, len_bytes), u64::MAX), None);
                assert!(allocator.free(extent(offset, len_bytes)).is_err());
            }
            assert_all_free(&allocator);
        }
    }

    #[test]
    fn an_object_takes_whole_granules() {
        let mut allocator = Allocator::with_chunks_of(0, MIB);
        assert_eq!(allocator.allocate(1, ALL), Some(extent(0, 64)));
        assert_eq!(allocator.allocate(65, ALL), Some(extent(64, 128)));
        assert_eq!(allocator.used_bytes(), 192);
    }

    #[test]
    fn the_shortest_range_that_fits_is_taken_and_the_lowest_of_those() {
        let mut allocator = only_free(
            MIB,
            &[extent(0, 4096), extent(8192, 256), extent(16384, 128), extent(32768, 128), extent(65536, 64)],
        );
        assert_eq!(allocator.allocate(128, ALL), Some(extent(16384, 128)));
        assert_eq!(allocator.allocate(128, ALL), Some(extent(32768, 128)));
        assert_eq!(allocator.allocate(128, ALL), Some(extent(8192, 128)));
        assert_eq!(allocator.allocate(192, ALL), Some(extent(0, 192)));
    }

    #[test]
    fn neighbours_that_are_freed_in_any_order_become_one() {
        let pieces = [extent(0, 4096), extent(4096, 64), extent(4160, 8192)];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut allocator = only_free(12352, &[]);
            for piece in order {
                assert_eq!(allocator.free(pieces[piece]), Ok(()));
            }
            assert_all_free(&allocator);
        }
    }

    #[test]
    fn the_freed_part_of_an_extent_is_used_again() {
        let mut allocator = Allocator::new(50_000_000);
        let lease = allocator.allocate_pages(10 * MIB, ALL).expect("an empty arena has room");
        let part = extent(lease.offset + MIB, MIB);
        assert_eq!(allocator.free(part), Ok(()));
        assert_eq!(allocator.allocate_pages(MIB, ALL), Some(part));
        assert_eq!(allocator.free(lease), Ok(()), "two extents that adjoin, freed as one");
        assert_all_free(&allocator);
    }

    #[test]
    fn small_objects_share_a_chunk_and_give_it_back() {
        let mut allocator = Allocator::new(64 * MIB);
        let chunk_bytes = 64 * MIB / 256;
        let large = allocator.allocate(MIB, ALL).expect("room");
        let small: Vec<_> = (0..16).map(|_| allocator.allocate(1000, ALL).expect("room")).collect();
        let after = allocator.allocate(MIB, ALL).expect("room");
        assert_eq!(allocator.chunks.iter().copied().collect::<Vec<_>>(), [large.end()]);
        assert!(small.iter().all(|object| object.end() <= large.end() + chunk_bytes), "{small:?}");
        assert_eq!(after.offset, large.end() + chunk_bytes);
        assert_eq!(allocator.free_bytes(), 62 * MIB - 16 * 1024);
        allocator.check();
        for object in small {
            assert_eq!(allocator.free(object), Ok(()));
        }
        assert!(allocator.chunks.is_empty());
        assert_eq!(allocator.allocate(chunk_bytes, ALL), Some(extent(large.end(), chunk_bytes)));
    }

    #[test]
    fn small_objects_that_fill_several_chunks_give_them_all_back() {
        let mut allocator = Allocator::with_chunks_of(8192, 100_000);
        let objects: Vec<_> = std::iter::from_fn(|| allocator.allocate(1000, ALL)).collect();
        assert_eq!(objects.len(), 97, "chunks first, and what is left of the arena after them");
        assert_eq!(allocator.chunks.len(), 12);
        allocator.check();
        for object in objects.iter().step_by(2).chain(objects.iter().skip(1).step_by(2)) {
            assert_eq!(allocator.free(*object), Ok(()));
            allocator.check();
        }
        assert_all_free(&allocator);
    }

    /// Invariant 6: chunks withhold nothing.
    #[test]
    fn a_large_object_may_lie_across_chunks_when_there_is_no_other_room() {
        let mut allocator = Allocator::with_chunks_of(8192, 4 * 8192);
        let first = allocator.allocate(64, ALL).expect("room");
        assert_eq!(first, extent(0, 64));
        let rest = extent(64, 4 * 8192 - 64);
        assert_eq!(allocator.largest_free_bytes(), rest.len_bytes);
        assert_eq!(allocator.clone().allocate_pages(7 * PAGE_BYTES, ALL).map(|e| e.offset), Some(4096));
        assert_eq!(allocator.allocate(rest.len_bytes, ALL), Some(rest));
        allocator.check();
        assert_eq!(allocator.free(first), Ok(()));
        assert_eq!(allocator.free(rest), Ok(()));
        assert_all_free(&allocator);
    }

    #[test]
    fn an_extent_across_the_edges_of_chunks_is_freed_into_both_spaces() {
        let mut allocator = Allocator::with_chunks_of(8192, 4 * 8192);
        let before = allocator.allocate(8192, ALL).expect("room");
        let small = [1024, 1024].map(|len_bytes| allocator.allocate(len_bytes, ALL).expect("room"));
        let after = allocator.allocate(2 * 8192, ALL).expect("room");
        assert_eq!((before.end(), small[1].end()), (small[0].offset, 8192 + 2048));
        for gone in [before, small[0], after] {
            assert_eq!(allocator.free(gone), Ok(()));
        }
        let over_its_start =
            allocator.allocate(8192 + 1024, 16384).expect("the chunk's first kilobyte is free");
        let over_its_end = allocator.allocate(2 * 8192 + 6144, ALL).expect("and so is the rest of it");
        assert_eq!((over_its_start.offset, over_its_end.end()), (0, 4 * 8192));
        assert_eq!(allocator.free_bytes(), 0);
        allocator.check();
        for gone in [over_its_start, over_its_end] {
            assert_eq!(allocator.free(gone), Ok(()));
            allocator.check();
            assert_eq!(allocator.chunks.len(), 1);
        }
        assert_eq!(allocator.free(small[1]), Ok(()));
        assert_all_free(&allocator);
    }

    #[test]
    fn a_long_lease_starts_on_a_step_where_one_is_free() {
        let mut allocator = Allocator::new(128 * MIB);
        assert_eq!(allocator.allocate_pages(PAGE_BYTES, ALL), Some(extent(0, PAGE_BYTES)));
        assert_eq!(allocator.allocate_pages(17 * MIB, ALL), Some(extent(STEP_BYTES, 17 * MIB)));
        assert_eq!(allocator.allocate_pages(70 * MIB, ALL), Some(extent(20 * MIB, 70 * MIB)));
        assert_eq!(allocator.allocate_pages(15 * MIB, ALL), Some(extent(90 * MIB, 15 * MIB)));
        assert_eq!(
            allocator.allocate_pages(3 * MIB, ALL),
            Some(extent(105 * MIB, 3 * MIB)),
            "a short one needs no step"
        );
        allocator.check();
        // No step is free with enough after it, so any page does; and a step is preferred to a better fit.
        let mut allocator = only_free(64 * MIB, &[extent(MIB, 17 * MIB), extent(31 * MIB, 20 * MIB)]);
        assert_eq!(allocator.allocate_pages(17 * MIB, ALL), Some(extent(32 * MIB, 17 * MIB)));
        assert_eq!(allocator.allocate_pages(17 * MIB, ALL), Some(extent(MIB, 17 * MIB)));
        assert_eq!(allocator.allocate_pages(17 * MIB, ALL), None);
    }

    /// Invariant 6: leases just above one step leave no gaps between them.
    #[test]
    fn leases_just_above_a_step_fill_the_arena() {
        let mut allocator = Allocator::new(50_000_000);
        let served = (0..).take_while(|_| allocator.allocate_pages(STEP_BYTES + 704, ALL).is_some()).count();
        assert_eq!(served, 23);
    }

    #[test]
    fn places_below_the_mark_come_first_whatever_their_fit() {
        let ranges = [extent(0, 65536), extent(131_072, 8192), extent(262_144, 4096)];
        let mut allocator = only_free(MIB, &ranges);
        assert_eq!(allocator.allocate(4096, 70_000), Some(extent(0, 4096)));
        assert_eq!(allocator.allocate_pages(4096, 140_000), Some(extent(131_072, 4096)));
        // A place has to lie below the mark, not the range that it is in.
        assert_eq!(allocator.allocate_pages(4096, 8192), Some(extent(4096, 4096)));
        // Nothing below the mark fits.
        assert_eq!(allocator.allocate_pages(4096, 8192), Some(extent(135_168, 4096)));
        assert_eq!(allocator.allocate(4096, 0), Some(extent(262_144, 4096)));
        assert_eq!(allocator.allocate(57_344, 0), Some(extent(8192, 57_344)), "a mark withholds nothing");
        assert_eq!(allocator.free_bytes(), 0);
    }

    #[test]
    fn a_long_lease_prefers_populated_memory_to_a_step() {
        let mut allocator = only_free(64 * MIB, &[extent(MIB, 17 * MIB), extent(32 * MIB, 24 * MIB)]);
        assert_eq!(allocator.allocate_pages(17 * MIB, 18 * MIB), Some(extent(MIB, 17 * MIB)));
        assert_eq!(allocator.allocate_pages(17 * MIB, 18 * MIB), Some(extent(32 * MIB, 17 * MIB)));
    }

    #[test]
    fn a_small_object_prefers_populated_memory_to_a_chunk() {
        let mut allocator = Allocator::with_chunks_of(8192, MIB);
        assert_eq!(allocator.allocate(512, 4096), Some(extent(0, 512)));
        assert!(allocator.chunks.is_empty());
        assert_eq!(allocator.allocate(512, 0), Some(extent(4096, 512)), "the first whole chunk");
        assert_eq!(allocator.chunks.len(), 1);
        allocator.check();
    }

    #[test]
    fn an_aligned_exact_fit_is_found_among_many_ranges_that_fail() {
        // Two pages each, but starting inside a page; only the last has a whole two pages.
        let mut ranges: Vec<_> = (0..200).map(|i| extent(i * 32768 + 64, 2 * PAGE_BYTES)).collect();
        ranges.push(extent(200 * 32768, 2 * PAGE_BYTES));
        let mut allocator = only_free(8 * MIB, &ranges);
        assert_eq!(allocator.allocate_pages(2 * PAGE_BYTES, ALL), ranges.last().copied());
        assert_eq!(allocator.allocate_pages(2 * PAGE_BYTES, ALL), None);
        assert_eq!(allocator.allocate_pages(PAGE_BYTES, 0), Some(extent(PAGE_BYTES, PAGE_BYTES)));
    }

    #[test]
    fn a_lease_grows_in_place_while_what_follows_is_free() {
        let mut allocator = Allocator::new(MIB - 1024);
        let lease = allocator.allocate_pages(1, ALL).expect("room");
        assert_eq!(allocator.extend(lease, 100), Some(lease), "long enough as it is");
        let lease = allocator.extend(lease, 10_000).expect("nothing is in the way");
        assert_eq!(lease, extent(0, 3 * PAGE_BYTES));
        let object = allocator.allocate(64, ALL).expect("room");
        assert_eq!(object.offset, lease.end());
        assert_eq!(allocator.extend(lease, 12_289), None);
        assert_eq!(allocator.free(object), Ok(()));
        assert_eq!(allocator.extend(lease, allocator.capacity_bytes() + 1), None);
        let whole = extent(0, allocator.capacity_bytes());
        assert_eq!(allocator.extend(lease, whole.len_bytes), Some(whole), "to an end inside a page");
        assert_eq!(allocator.free(whole), Ok(()));
        assert_all_free(&allocator);
    }

    #[test]
    fn freeing_what_is_not_allocated_is_refused_and_changes_nothing() {
        let mut allocator = Allocator::new(MIB);
        let kept = allocator.allocate(8192, ALL).expect("room");
        let freed = allocator.allocate(8192, ALL).expect("room");
        assert_eq!(allocator.free(freed), Ok(()));
        let before = format!("{allocator:?}");
        let rest = extent(8192, MIB - 8192);
        let overlap = extent(4096, 8192);
        assert_eq!(allocator.free(freed), Err(BadFree::AlreadyFree { extent: freed, free: rest }));
        assert_eq!(allocator.free(overlap), Err(BadFree::AlreadyFree { extent: overlap, free: rest }));
        for ragged in [extent(0, 0), extent(32, 64), extent(0, 65), extent(0, u64::MAX)] {
            assert_eq!(allocator.free(ragged), Err(BadFree::NotGranular { extent: ragged }));
        }
        for beyond in [extent(MIB, 64), extent(0, MIB + 64), extent(u64::MAX - 63, 128)] {
            let refusal = BadFree::OutsideArena { extent: beyond, capacity_bytes: MIB };
            assert_eq!(allocator.free(beyond), Err(refusal));
        }
        assert_eq!(format!("{allocator:?}"), before);
        assert_eq!(allocator.free(kept), Ok(()));
        assert_all_free(&allocator);
    }

    #[test]
    fn a_refusal_says_what_was_asked_and_what_was_found() {
        let mut allocator = Allocator::new(4096);
        let refusal = allocator.free(extent(64, 128)).expect_err("nothing is allocated");
        assert_eq!(
            refusal.to_string(),
            "cannot free 128 bytes at offset 64: 4096 bytes at offset 0 are free already"
        );
    }
}

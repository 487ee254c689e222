//! A set of free bytes, kept as ranges that neither overlap nor touch, in order of offset and in order of length.
//!
//! The allocator keeps its free bytes in two such sets, `Space` the unused rest of each lease. An eviction (`evict.rs`)
//! keeps the ranges in one that its candidates would free.

use std::collections::{BTreeMap, BTreeSet};

use super::{Extent, GRANULE_BYTES};

/// How many ranges that may turn out too short once aligned a search tries, before it goes on to those that
/// certainly are long enough.
const UNCERTAIN_TRIES: usize = 64;

/// What a search looks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Length of the extent; a multiple of the granule, not zero.
    pub(super) len_bytes: u64,
    /// What must be left of that length where the extent is cut off at the arena's end; a multiple of the granule,
    /// not zero, at most `len_bytes`.
    pub(super) least_bytes: u64,
    /// The extent starts at a multiple of this, which is itself a multiple of the granule.
    pub(super) align_bytes: u64,
    /// Where the arena ends.
    pub(super) arena_end: u64,
    /// The extent ends here or before.
    pub(super) limit: u64,
}

impl Wanted {
    /// The lowest place inside `range`, if it has room.
    pub(super) fn place_in(&self, range: Extent) -> Option<Extent> {
        let offset = range.offset.checked_next_multiple_of(self.align_bytes)?;
        let end = offset.saturating_add(self.len_bytes).min(self.arena_end);
        let extent = Extent::between(offset, end);
        (extent.len_bytes >= self.least_bytes && end <= range.end() && end <= self.limit).then_some(extent)
    }

    /// A range of this length has room wherever it starts, if it lies below the limit.
    fn certain_bytes(&self) -> u64 {
        // As both are multiples of a granule, so is what alignment costs: at most a granule less than itself.
        self.len_bytes.saturating_add(self.align_bytes - GRANULE_BYTES)
    }
}

/// Free ranges by offset and by length. Ranges that touch become one.
#[derive(Clone, Debug, Default)]
pub(crate) struct FreeSpace {
    /// Offset to length.
    by_offset: BTreeMap<u64, u64>,
    /// The same ranges as (length, offset).
    by_len: BTreeSet<(u64, u64)>,
    total_bytes: u64,
}

impl FreeSpace {
    /// The best fit: the shortest range with room, and the lowest of those.
    ///
    /// Where alignment makes more than 64 ranges fail that are long enough without, a longer one may be chosen, or
    /// a range among the rest; `None` always means that no range has room.
    pub(super) fn find(&self, wanted: Wanted) -> Option<Extent> {
        let place = |&(len_bytes, offset): &(u64, u64)| wanted.place_in(Extent { offset, len_bytes });
        // The limit would otherwise be found out range by range.
        if wanted.limit < wanted.least_bytes {
            return None;
        }
        let certain = (wanted.certain_bytes(), 0);
        let mut uncertain = self.by_len.range((wanted.least_bytes, 0)..certain);
        uncertain
            .by_ref()
            .take(UNCERTAIN_TRIES)
            .find_map(place)
            .or_else(|| self.by_len.range(certain..).find_map(place))
            .or_else(|| uncertain.find_map(place))
    }

    /// Adds `extent`, none of which is in the space, and returns the range that it became part of.
    pub(crate) fn insert(&mut self, extent: Extent) -> Extent {
        let before = self.range_that_ends_at(extent.offset);
        let after = self.range_at(extent.end());
        for neighbour in [before, after].into_iter().flatten() {
            self.remove_range(neighbour);
        }
        let range = Extent::between(
            before.map_or(extent.offset, |before| before.offset),
            after.map_or(extent.end(), |after| after.end()),
        );
        self.insert_range(range);
        range
    }

    /// Takes out what is free from `offset` on, up to `end` or to the end of the range that holds `offset`,
    /// whichever comes first, and returns where that is. `None` if the byte at `offset` is not free.
    pub(crate) fn take(&mut self, offset: u64, end: u64) -> Option<u64> {
        let range = self.range_at(offset)?;
        let end = end.min(range.end());
        self.remove_range(range);
        self.insert_range(Extent::between(range.offset, offset));
        self.insert_range(Extent::between(end, range.end()));
        Some(end)
    }

    /// The range that holds the byte at `offset`.
    pub(crate) fn range_at(&self, offset: u64) -> Option<Extent> {
        let (&start, &len_bytes) = self.by_offset.range(..=offset).next_back()?;
        let range = Extent { offset: start, len_bytes };
        range.contains(offset).then_some(range)
    }

    /// The range whose last byte is the one before `end`.
    pub(super) fn range_that_ends_at(&self, end: u64) -> Option<Extent> {
        self.range_at(end.checked_sub(1)?).filter(|range| range.end() == end)
    }

    /// The lowest range that has a byte in common with `extent`.
    pub(crate) fn first_overlap(&self, extent: Extent) -> Option<Extent> {
        self.range_at(extent.offset).or_else(|| {
            let mut later = self.by_offset.range(extent.offset..extent.end());
            later.next().map(|(&offset, &len_bytes)| Extent { offset, len_bytes })
        })
    }

    /// Takes out the lowest range.
    pub(crate) fn take_first(&mut self) -> Option<Extent> {
        let (&offset, &len_bytes) = self.by_offset.first_key_value()?;
        let range = Extent { offset, len_bytes };
        self.remove_range(range);
        Some(range)
    }

    /// All ranges, the lowest first.
    #[cfg(test)]
    pub(super) fn ranges(&self) -> impl Iterator<Item = Extent> {
        self.by_offset.iter().map(|(&offset, &len_bytes)| Extent { offset, len_bytes })
    }

    /// All ranges, the longest first.
    pub(super) fn longest_first(&self) -> impl Iterator<Item = Extent> {
        self.by_len.iter().rev().map(|&(len_bytes, offset)| Extent { offset, len_bytes })
    }

    /// The ranges of at least `len_bytes`, the shortest first.
    pub(super) fn no_shorter_than(&self, len_bytes: u64) -> impl Iterator<Item = Extent> {
        self.by_len.range((len_bytes, 0)..).map(|&(len_bytes, offset)| Extent { offset, len_bytes })
    }

    /// Length of the longest range; zero if there is none.
    pub(super) fn longest_bytes(&self) -> u64 {
        self.by_len.last().map_or(0, |&(len_bytes, _offset)| len_bytes)
    }

    /// All ranges together.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Panics if the space contradicts itself or reaches beyond `arena_end`.
    #[cfg(test)]
    pub(super) fn check(&self, arena_end: u64) {
        assert_eq!(self.by_offset.len(), self.by_len.len());
        let (mut total_bytes, mut end_of_last) = (0, None);
        for range in self.ranges() {
            assert!(
                self.by_len.contains(&(range.len_bytes, range.offset)),
                "{range:?} is not listed by length"
            );
            assert!(range.len_bytes > 0, "{range:?} is empty");
            assert!(
                range.offset.is_multiple_of(GRANULE_BYTES) && range.len_bytes.is_multiple_of(GRANULE_BYTES)
            );
            assert!(end_of_last < Some(range.offset), "{range:?} touches or overlaps the range before");
            assert!(range.end() <= arena_end, "{range:?} reaches beyond the arena");
            end_of_last = Some(range.end());
            total_bytes += range.len_bytes;
        }
        assert_eq!(self.total_bytes, total_bytes);
    }

    /// Lists a range as it is; an empty one is not listed.
    fn insert_range(&mut self, range: Extent) {
        if range.len_bytes > 0 {
            self.by_offset.insert(range.offset, range.len_bytes);
            self.by_len.insert((range.len_bytes, range.offset));
            self.total_bytes += range.len_bytes;
        }
    }

    /// Unlists a range, which must be listed exactly so.
    fn remove_range(&mut self, range: Extent) {
        self.by_offset.remove(&range.offset);
        self.by_len.remove(&(range.len_bytes, range.offset));
        self.total_bytes -= range.len_bytes;
    }
}

//! Where every word of the shared regions lies. docs/layout.md says who writes and reads each, in which order, and
//! what a reader sees if the writer dies in between.
//!
//! Regions are arrays of 64-bit words; all offsets here are in words. Words are in the machine's own byte order: a
//! region never leaves its machine.

/// Version of the layout of index and session regions. A client with another version does not attach.
pub const LAYOUT_VERSION: u64 = 1;

/// First word of the index region, stored last when it is made: `"PLSMNIDX"`.
pub const INDEX_MAGIC: u64 = u64::from_le_bytes(*b"PLSMNIDX");

/// First word of a session region, stored last when it is made: `"PLSMNSES"`.
pub const SESSION_MAGIC: u64 = u64::from_le_bytes(*b"PLSMNSES");

/// Words of the index region's header.
pub mod index_header {
    /// [`INDEX_MAGIC`](super::INDEX_MAGIC).
    pub const MAGIC: usize = 0;
    /// [`LAYOUT_VERSION`](super::LAYOUT_VERSION).
    pub const LAYOUT_VERSION: usize = 1;
    /// First half of the store's UUID.
    pub const STORE_UUID_LOW: usize = 2;
    /// Second half of the store's UUID.
    pub const STORE_UUID_HIGH: usize = 3;
    /// Number of buckets, a power of two.
    pub const BUCKET_COUNT: usize = 4;
    /// Number of entries in the pool.
    pub const ENTRY_COUNT: usize = 5;
    /// Capacity of the arena in bytes.
    pub const CAPACITY_BYTES: usize = 6;
    /// Commit epoch: odd while a commit of several names is being made visible. On a cache line of its own.
    pub const EPOCH: usize = 16;
    /// Not zero once the store has shut down cleanly. On a cache line of its own.
    pub const CLOSED: usize = 24;
    /// Length of the header.
    pub const WORDS: usize = 64;
}

/// Words of a bucket.
pub mod bucket {
    /// Seqlock: odd while the daemon changes the chain or an entry on it.
    pub const SEQUENCE: usize = 0;
    /// Number of the first entry of the chain, counted from 1; 0 ends it.
    pub const HEAD: usize = 1;
    /// Length of a bucket.
    pub const WORDS: usize = 2;
}

/// Words of an entry: 128 bytes, two cache lines.
pub mod entry {
    /// The NameId, four words.
    pub const NAME_ID: usize = 0;
    /// Low half: number of the next entry of the chain, counted from 1, 0 ends it. High half, byte by byte from the
    /// low end: kind, dtype, ndim, flags.
    pub const NEXT_AND_KIND: usize = 4;
    /// Version of the binding.
    pub const VERSION: usize = 5;
    /// Offset of the object's root extent in the arena, in bytes.
    pub const OFFSET: usize = 6;
    /// Length of the object, in bytes.
    pub const LEN: usize = 7;
    /// When the binding was made: CLOCK_REALTIME, in nanoseconds. For people.
    pub const CREATED: usize = 8;
    /// When the binding expires: the daemon's CLOCK_BOOTTIME, in nanoseconds; 0 never.
    pub const EXPIRES: usize = 9;
    /// Low half: uid of the writer as the daemon sees it. High half: buffer offset.
    pub const WRITER_AND_BUFFER: usize = 10;
    /// Four dimensions, or the inline value.
    pub const DIMS: usize = 11;
    /// Zero, for later.
    pub const RESERVED: usize = 15;
    /// Length of an entry.
    pub const WORDS: usize = 16;
}

/// Words of a session region.
pub mod session {
    use crate::limits;

    /// [`SESSION_MAGIC`](super::SESSION_MAGIC).
    pub const MAGIC: usize = 0;
    /// [`LAYOUT_VERSION`](super::LAYOUT_VERSION).
    pub const LAYOUT_VERSION: usize = 1;
    /// Number of pin slots that may be in use: a slot's number is below it before a pin is stored there. Never falls.
    pub const PIN_HIGH_WATER: usize = 8;
    /// How far pins have been handed over to the forked child that this region is for. On a cache line of its own.
    pub const HAND_OVER: usize = 16;
    /// Bit `p % 64`: new access bits may stand in page `p` of the region. On a cache line of its own.
    pub const ACCESS_PAGES: usize = 24;
    /// State words of the leases, one for each of [`limits::LEASE_SLOTS`].
    pub const LEASES: usize = 64;
    /// Pin slots, [`limits::PIN_SLOTS`] of them.
    pub const PINS: usize = LEASES + crate::index_of(limits::LEASE_SLOTS as u64);
    /// Access bits, one for each entry of the index, 64 to a word.
    pub const ACCESS_BITS: usize = PINS + crate::index_of(limits::PIN_SLOTS as u64);

    /// Length of a session region for an index of `entry_count` entries, in words.
    #[must_use]
    pub const fn words(entry_count: u32) -> usize {
        ACCESS_BITS + crate::index_of(entry_count as u64).div_ceil(64)
    }
}

/// Bytes in a word.
pub const WORD_BYTES: u64 = 8;

/// Shape of an index region: how many buckets and entries it has, and so where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexShape {
    bucket_count: u64,
    entry_count: u32,
}

impl IndexShape {
    /// Most entries an index may have. Links are 32 bits wide and 0 ends a chain.
    pub const ENTRIES_MAX: u32 = u32::MAX - 1;

    /// The shape for a pool of `entry_count` entries (1 to [`ENTRIES_MAX`](Self::ENTRIES_MAX)): half as many buckets,
    /// rounded up to a power of two. `None` outside that range.
    #[must_use]
    pub const fn for_entries(entry_count: u32) -> Option<Self> {
        if entry_count == 0 || entry_count > Self::ENTRIES_MAX {
            return None;
        }
        let bucket_count = (entry_count as u64).next_power_of_two() / 2;
        Some(IndexShape { bucket_count: if bucket_count == 0 { 1 } else { bucket_count }, entry_count })
    }

    /// The shape that a header claims, if the region of `word_count` words can hold it.
    #[must_use]
    pub fn checked(bucket_count: u64, entry_count: u64, word_count: usize) -> Option<Self> {
        let shape = Self::for_entries(u32::try_from(entry_count).ok()?)?;
        (shape.bucket_count == bucket_count && shape.words() <= word_count).then_some(shape)
    }

    /// Number of buckets, a power of two.
    #[must_use]
    pub const fn bucket_count(self) -> u64 {
        self.bucket_count
    }

    /// Number of entries in the pool.
    #[must_use]
    pub const fn entry_count(self) -> u32 {
        self.entry_count
    }

    /// Length of the index region, in words.
    #[must_use]
    pub const fn words(self) -> usize {
        self.entries_start() + crate::index_of(self.entry_count as u64) * entry::WORDS
    }

    /// First word of bucket `bucket` (below [`bucket_count`](Self::bucket_count)).
    #[inline]
    #[must_use]
    pub const fn bucket(self, bucket: u64) -> usize {
        index_header::WORDS + crate::index_of(bucket) * bucket::WORDS
    }

    /// First word of entry `number`, counted from 1; `None` for 0 and for numbers beyond the pool.
    #[inline]
    #[must_use]
    pub const fn entry(self, number: u32) -> Option<usize> {
        if number == 0 || number > self.entry_count {
            return None;
        }
        Some(self.entries_start() + crate::index_of(number as u64 - 1) * entry::WORDS)
    }

    #[inline]
    const fn entries_start(self) -> usize {
        // Entries begin on an entry's own alignment, so that each takes exactly two cache lines.
        (index_header::WORDS + crate::index_of(self.bucket_count) * bucket::WORDS)
            .next_multiple_of(entry::WORDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_128_bytes_and_all_its_fields_lie_inside() {
        assert_eq!(entry::WORDS * 8, 128);
        assert_eq!(entry::DIMS + 4, entry::RESERVED);
    }

    #[test]
    fn the_default_index_of_a_small_store_takes_nine_megabytes_of_address_space() {
        let shape = IndexShape::for_entries(65_536).unwrap();
        assert_eq!(shape.bucket_count(), 32_768);
        assert_eq!(shape.words() * 8, 512 + 32_768 * 16 + 65_536 * 128);
    }

    #[test]
    fn links_outside_the_pool_lead_nowhere() {
        let shape = IndexShape::for_entries(3).unwrap();
        assert_eq!((shape.entry(0), shape.entry(4)), (None, None));
        assert!(shape.entry(3).unwrap() + entry::WORDS <= shape.words());
        assert_eq!(IndexShape::for_entries(0), None);
        assert_eq!(IndexShape::checked(2, 3, shape.words() - 1), None);
    }
}

//! The shared index: a hash table that the daemon writes and that clients read without asking anyone.
//!
//! # How a reader gets a steady look
//!
//! Each bucket has a sequence, odd while the daemon changes the bucket's chain or an entry on it: a seqlock
//! (H.-J. Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012).
//!
//! ```text
//! daemon                                     reader
//! W1  sequence := odd       (Relaxed)        L1  read the sequence    (Acquire; odd: again)   PAIRS: W4
//! W2  fence(Release)                         L2  walk, copy the entry (Relaxed)
//! W3  links and fields      (Relaxed)        L3  fence(Acquire, or SeqCst behind a pin)       PAIRS: W2
//! W4  sequence := even      (Release)        L4  re-read the sequence (Relaxed): same as L1?
//! ```
//!
//! If the walk read anything that a change wrote in W3, then L3 synchronizes with that change's W2 and L4 sees its
//! odd sequence or a later one. So an unchanged sequence proves that everything read between belongs together.
//!
//! **Whatever the verdict, it counts only if the sequence is unchanged.** That goes for a miss as well: the entry a
//! reader stands on can be unlinked and reused in another bucket, whose chain the reader then follows to its end.
//! Links are bounds-checked and a walk takes at most as many steps as there are entries, so that a chain that moves
//! under the reader cannot hold it. A daemon that dies between W1 and W4 leaves the sequence odd for ever; readers
//! give up after [`LOOKUP_TRIES_MAX`] tries and ask the daemon, whose death they then notice.
//!
//! # How a reader knows that a binding has expired
//!
//! Its entry says when, by the daemon's CLOCK_BOOTTIME. The reader reads that clock **between L2 and L4**: then there
//! is a moment, that of the clock, at which the entry was in the index and the deadline had passed, or had not. Were it
//! read after L4, the name could have been bound anew in between, or its deadline moved on, and a name that was bound
//! all the time would be found absent. So nobody has to unbind a binding for it to be gone, and it is gone for all at
//! one moment. The models fail when the clock is read last.
//!
//! A found object must also be kept from being reused: the reader publishes a pin before L3, which is then the fence
//! R2 of [`crate::pins`], where the argument stands.

use crate::{
    codec::codec_struct,
    id::NameId,
    layout::{INDEX_MAGIC, IndexShape, LAYOUT_VERSION, bucket, entry, index_header},
    limits::LOOKUP_TRIES_MAX,
    object::{Dtype, Flags, Header, Kind},
    pins::{All, RegionError, Steps, pin_fence},
    sync::{AtomicU64, Ordering, Words, fence},
};
use alloc::vec::Vec;

/// The offset in an entry whose value stands in its header: outside every arena.
pub const NO_EXTENT: u64 = u64::MAX;

/// A binding as the index holds it, and as the answer to a look-up tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Version of the binding.
    pub version: u64,
    /// Offset of the object's root extent in the arena, in bytes; [`NO_EXTENT`] where the value stands in the header.
    pub offset: u64,
    /// Length of the object, in bytes; of a value that stands in the header, its own.
    pub len_bytes: u64,
    /// When the binding was made: CLOCK_REALTIME, in nanoseconds.
    pub created_ns: u64,
    /// When it expires: the daemon's CLOCK_BOOTTIME, in nanoseconds; 0 never.
    pub expires_ns: u64,
    /// Uid of the writer as the daemon sees it.
    pub writer_uid: u32,
    /// Kind and shortcuts.
    pub header: Header,
}

codec_struct!(Entry { version, offset, len_bytes, created_ns, expires_ns, writer_uid, header });

impl Entry {
    /// Where in the arena the object lies; `None` where the value stands in the header.
    #[inline]
    #[must_use]
    pub fn extent_offset(&self) -> Option<u64> {
        (self.offset != NO_EXTENT).then_some(self.offset)
    }

    /// Bytes that the object has in the arena: none where the value stands in the header.
    #[must_use]
    pub fn arena_bytes(&self) -> u64 {
        self.extent_offset().map_or(0, |_| self.len_bytes)
    }

    /// Whether the binding is gone, unbound or not, at `now_ns` of the daemon's CLOCK_BOOTTIME.
    #[inline]
    #[must_use]
    pub fn has_expired(&self, now_ns: u64) -> bool {
        self.expires_ns != 0 && self.expires_ns <= now_ns
    }
}

/// What a look at the index proved.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Lookup<P> {
    /// The name is bound, and `pin` holds its object in place. `pin` is `None` where the value stands in the entry.
    Held {
        /// The binding.
        entry: Entry,
        /// Number of the index entry, for [`SessionRegion::note_access`](crate::pins::SessionRegion::note_access).
        number: u32,
        /// What `publish` returned.
        pin: Option<P>,
    },
    /// The name is not bound, or its binding has expired.
    Absent,
    /// The bucket never held still: ask the daemon.
    Unsteady,
}

/// The index as a reader sees it. Never stores.
#[derive(Clone, Copy, Debug)]
pub struct IndexReader<W> {
    words: W,
    shape: IndexShape,
    key: HashKey,
}

impl<W: Words> IndexReader<W> {
    /// Checks that `words` is an index region of this layout.
    ///
    /// # Errors
    /// [`RegionError`].
    pub fn open(words: W) -> Result<Self, RegionError> {
        let word_count = words.count();
        if word_count < index_header::WORDS {
            return Err(RegionError::TooShort { words: word_count, needed: index_header::WORDS });
        }
        let found = words.load(index_header::MAGIC, Ordering::Acquire);
        if found != INDEX_MAGIC {
            return Err(RegionError::Magic { found });
        }
        let found = words.load(index_header::LAYOUT_VERSION, Ordering::Relaxed);
        if found != LAYOUT_VERSION {
            return Err(RegionError::Version { found });
        }
        let bucket_count = words.load(index_header::BUCKET_COUNT, Ordering::Relaxed);
        let entry_count = words.load(index_header::ENTRY_COUNT, Ordering::Relaxed);
        match IndexShape::checked(bucket_count, entry_count, word_count) {
            Some(shape) => {
                let key = HashKey::of_header(&words);
                Ok(IndexReader { words, shape, key })
            }
            None => Err(RegionError::Shape { bucket_count, entry_count, words: word_count }),
        }
    }

    /// The index's shape.
    #[must_use]
    pub fn shape(&self) -> IndexShape {
        self.shape
    }

    /// The commit epoch. Odd while a commit of several names is being made visible.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.words.load(index_header::EPOCH, Ordering::Acquire) // PAIRS: epoch
    }

    /// Whether the store has shut down cleanly.
    #[inline]
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.words.load(index_header::CLOSED, Ordering::Relaxed) != 0
    }

    /// Looks `id` up, without a lock and without asking the daemon.
    ///
    /// `publish` stores a pin for the entry's object and returns a guard that withdraws it when dropped; it is called
    /// again for every try that found the name, and not at all for a value that stands in the entry or for a binding that
    /// has expired. `now_ns` is asked only for a binding that expires, and is the daemon's CLOCK_BOOTTIME.
    ///
    /// # Errors
    /// What `publish` failed with.
    #[inline]
    pub fn lookup<P, E>(
        &self,
        id: &NameId,
        now_ns: impl Fn() -> u64,
        publish: impl FnMut(&Entry) -> Result<P, E>,
    ) -> Result<Lookup<P>, E> {
        self.lookup_with::<All, P, E>(id, now_ns, publish, LOOKUP_TRIES_MAX)
    }

    #[doc(hidden)]
    pub fn lookup_with<S: Steps, P, E>(
        &self,
        id: &NameId,
        now_ns: impl Fn() -> u64,
        mut publish: impl FnMut(&Entry) -> Result<P, E>,
        tries: u32,
    ) -> Result<Lookup<P>, E> {
        let id = id.words();
        let bucket = self.bucket_of(id);
        for _ in 0..tries {
            let sequence = self.words.load(bucket + bucket::SEQUENCE, Ordering::Acquire); // L1
            if sequence % 2 == 1 {
                core::hint::spin_loop();
                continue;
            }
            let Some((number, entry)) = self.walk(bucket, id) else {
                fence(Ordering::Acquire); // L3
                if !S::CHECK_MISS || self.unchanged(bucket, sequence) {
                    return Ok(Lookup::Absent);
                }
                continue;
            };
            // Between L2 and L4.
            let has_expired = || entry.expires_ns != 0 && entry.has_expired(now_ns());
            if S::CLOCK_FIRST && has_expired() {
                fence(Ordering::Acquire); // L3
                if self.unchanged(bucket, sequence) {
                    return Ok(Lookup::Absent);
                }
                continue;
            }
            let pin = if entry.header.flags.has(Flags::INLINE) {
                fence(Ordering::Acquire); // L3
                None
            } else {
                let pin = publish(&entry)?; // R1
                pin_fence::<S>(); // R2 and L3
                Some(pin)
            };
            if self.unchanged(bucket, sequence) {
                if !S::CLOCK_FIRST && has_expired() {
                    return Ok(Lookup::Absent);
                }
                return Ok(Lookup::Held { entry, number, pin });
            }
            drop(pin);
        }
        Ok(Lookup::Unsteady)
    }

    /// Looks many names up and proves that the answers were all true at one moment: the one between the last look
    /// and the first re-read. `None` if the index did not hold still, and then all pins are withdrawn.
    ///
    /// Single-name commits do not move the epoch, so every sequence is read again; commits of several names hold
    /// the epoch odd, so none of them is seen half done.
    ///
    /// # Errors
    /// What `publish` failed with.
    pub fn snapshot<P, E>(
        &self,
        ids: &[NameId],
        now_ns: impl Fn() -> u64,
        mut publish: impl FnMut(&Entry) -> Result<P, E>,
    ) -> Result<Option<Vec<Lookup<P>>>, E> {
        let epoch = self.epoch();
        if epoch % 2 == 1 {
            core::hint::spin_loop();
            return Ok(None);
        }
        let mut seen = Vec::with_capacity(ids.len());
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            let id = id.words();
            let bucket = self.bucket_of(id);
            let sequence = self.words.load(bucket + bucket::SEQUENCE, Ordering::Acquire);
            if sequence % 2 == 1 {
                return Ok(None);
            }
            seen.push((bucket, sequence));
            found.push(match self.walk(bucket, id) {
                None => Lookup::Absent,
                Some((number, entry)) => {
                    let inline = entry.header.flags.has(Flags::INLINE);
                    let pin = if inline { None } else { Some(publish(&entry)?) };
                    Lookup::Held { entry, number, pin }
                }
            });
        }
        let expires = |one: &Lookup<P>| matches!(one, Lookup::Held { entry, .. } if entry.expires_ns != 0);
        // The moment of all answers: behind every look, and before the sequences are read again.
        let now = if found.iter().any(expires) { now_ns() } else { 0 };
        pin_fence::<All>();
        let steady = seen.iter().all(|&(bucket, sequence)| self.unchanged(bucket, sequence));
        if !steady || self.words.load(index_header::EPOCH, Ordering::Relaxed) != epoch {
            return Ok(None);
        }
        for one in &mut found {
            if matches!(one, Lookup::Held { entry, .. } if entry.has_expired(now)) {
                *one = Lookup::Absent;
            }
        }
        Ok(Some(found))
    }

    #[inline]
    fn unchanged(&self, bucket: usize, sequence: u64) -> bool {
        self.words.load(bucket + bucket::SEQUENCE, Ordering::Relaxed) == sequence // L4
    }

    #[inline]
    fn bucket_of(&self, id: [u64; 4]) -> usize {
        self.shape.bucket(self.key.hash(id) & (self.shape.bucket_count() - 1))
    }

    /// Follows the chain to `id` and copies its entry. What it returns means nothing until the sequence was re-read.
    #[inline]
    fn walk(&self, bucket: usize, id: [u64; 4]) -> Option<(u32, Entry)> {
        let mut number = low_half(self.words.load(bucket + bucket::HEAD, Ordering::Relaxed));
        for _ in 0..self.shape.entry_count() {
            let at = self.shape.entry(number)?;
            let word = |field: usize| self.words.load(at + field, Ordering::Relaxed);
            // The hash half first: it is where two names of one bucket differ.
            let same = word(2) == id[2] && word(3) == id[3] && word(0) == id[0] && word(1) == id[1];
            if same {
                return Some((number, decode_entry(word)));
            }
            number = low_half(word(entry::NEXT_AND_KIND));
        }
        None
    }
}

/// What spreads ids over the buckets: the store's UUID, which is random and another one at every start.
///
/// Without a key, a client could compute 65,000 namespaces whose names all share one bucket, and every look at it would
/// take as many steps. With the key they have to be searched for anew in every store, one by one, in as many tries each
/// as there are buckets.
#[derive(Clone, Copy, Debug)]
struct HashKey([u64; 2]);

impl HashKey {
    fn of_header<W: Words>(words: &W) -> HashKey {
        let half = |word| words.load(word, Ordering::Relaxed);
        HashKey([half(index_header::STORE_UUID_LOW), half(index_header::STORE_UUID_HIGH)])
    }

    /// The name half of an id is a cryptographic hash: its bits are as good as random, and nobody can choose them but by
    /// search. The namespace half is what a client wrote, so it goes through SipHash-1-3 (Aumasson and Bernstein,
    /// "SipHash: a fast short-input PRF", 2012), without the block for the length, because the length is always 16 bytes.
    #[inline]
    fn hash(self, id: [u64; 4]) -> u64 {
        let HashKey([k0, k1]) = self;
        let mut v = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        for word in [id[0], id[1]] {
            v[3] ^= word;
            sip_round(&mut v);
            v[0] ^= word;
        }
        v[2] ^= 0xff;
        for _ in 0..3 {
            sip_round(&mut v);
        }
        v[0] ^ v[1] ^ v[2] ^ v[3] ^ id[2]
    }
}

#[inline]
fn sip_round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
const fn low_half(word: u64) -> u32 {
    word as u32
}

#[inline]
const fn high_half(word: u64) -> u32 {
    low_half(word >> 32)
}

#[inline]
fn decode_entry(word: impl Fn(usize) -> u64) -> Entry {
    let [kind, dtype, ndim, flags] = high_half(word(entry::NEXT_AND_KIND)).to_le_bytes();
    let writer_and_buffer = word(entry::WRITER_AND_BUFFER);
    Entry {
        version: word(entry::VERSION),
        offset: word(entry::OFFSET),
        len_bytes: word(entry::LEN),
        created_ns: word(entry::CREATED),
        expires_ns: word(entry::EXPIRES),
        writer_uid: low_half(writer_and_buffer),
        header: Header {
            kind: Kind::from_number(kind),
            dtype: Dtype::from_number(dtype),
            ndim,
            flags: Flags::from_bits(flags),
            buffer_offset: high_half(writer_and_buffer),
            dims: [0, 1, 2, 3].map(|dim| word(entry::DIMS + dim)),
        },
    }
}

/// The pool is empty: as many names are bound as the index can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolEmpty;

/// The daemon's side of the index: the only writer, with the list of unused entries in private memory.
///
/// Every method takes the words of the same region.
#[derive(Debug)]
pub struct IndexWriter {
    shape: IndexShape,
    key: HashKey,
    unused: Vec<u32>,
    never_used: u32,
}

impl IndexWriter {
    /// Makes a zeroed region of at least `shape.words()` words ready.
    ///
    /// # Panics
    /// If the region is shorter.
    #[must_use]
    pub fn prepare(
        words: &[AtomicU64],
        shape: IndexShape,
        store_uuid: [u8; 16],
        capacity_bytes: u64,
    ) -> Self {
        assert!(words.len() >= shape.words(), "an index of this shape needs {} words", shape.words());
        let (uuid, _) = store_uuid.as_chunks::<8>();
        for (word, value) in [
            (index_header::LAYOUT_VERSION, LAYOUT_VERSION),
            (index_header::STORE_UUID_LOW, u64::from_le_bytes(uuid[0])),
            (index_header::STORE_UUID_HIGH, u64::from_le_bytes(uuid[1])),
            (index_header::BUCKET_COUNT, shape.bucket_count()),
            (index_header::ENTRY_COUNT, shape.entry_count().into()),
            (index_header::CAPACITY_BYTES, capacity_bytes),
        ] {
            words[word].store(value, Ordering::Relaxed);
        }
        words[index_header::MAGIC].store(INDEX_MAGIC, Ordering::Release); // ready is published last
        IndexWriter {
            shape,
            key: HashKey::of_header(&words),
            unused: Vec::new(),
            never_used: shape.entry_count(),
        }
    }

    /// Entries not in use.
    #[must_use]
    pub fn room(&self) -> u32 {
        // At most `entry_count`, which is a u32.
        self.never_used + u32::try_from(self.unused.len()).unwrap_or(u32::MAX - self.never_used)
    }

    /// The number of the entry that holds `id`.
    #[must_use]
    pub fn find(&self, words: &[AtomicU64], id: &NameId) -> Option<u32> {
        let reader = self.reader(words);
        let id = id.words();
        reader.walk(reader.bucket_of(id), id).map(|(number, _)| number)
    }

    /// Binds `id`, which is not in the index, to `entry`. Returns the number of its entry.
    ///
    /// # Errors
    /// [`PoolEmpty`]; nothing has changed.
    pub fn insert(&mut self, words: &[AtomicU64], id: &NameId, entry: &Entry) -> Result<u32, PoolEmpty> {
        debug_assert!(self.find(words, id).is_none(), "{id} is bound already");
        let number = match self.unused.pop() {
            Some(number) => number,
            // Entries that were never used are taken in order, so that a store of few names touches few pages.
            None if self.never_used > 0 => {
                self.never_used -= 1;
                self.shape.entry_count() - self.never_used
            }
            None => return Err(PoolEmpty),
        };
        let id = id.words();
        let at = self.entry_at(number);
        self.change(words, id, |bucket| {
            // All of the entry is written inside the odd phase of its new bucket. A reader of the bucket it came from
            // may still stand on it: that bucket's sequence moved when the entry was unlinked.
            for (word, value) in words[at + entry::NAME_ID..].iter().zip(id) {
                word.store(value, Ordering::Relaxed);
            }
            let head = words[bucket + bucket::HEAD].load(Ordering::Relaxed);
            write_entry(&words[at..at + entry::WORDS], low_half(head), entry);
            words[bucket + bucket::HEAD].store(number.into(), Ordering::Relaxed);
        });
        Ok(number)
    }

    /// Replaces what entry `number`, which holds `id`, says.
    ///
    /// # Panics
    /// If there is no such entry.
    pub fn replace(&mut self, words: &[AtomicU64], id: &NameId, number: u32, entry: &Entry) {
        let at = self.entry_at(number);
        self.change(words, id.words(), |_| {
            let next = low_half(words[at + entry::NEXT_AND_KIND].load(Ordering::Relaxed));
            write_entry(&words[at..at + entry::WORDS], next, entry);
        });
    }

    /// Unlinks `id`, and returns the number its entry had. The entry may be reused at once; the *extent* it named may
    /// not, before the pins were scanned.
    pub fn remove(&mut self, words: &[AtomicU64], id: &NameId) -> Option<u32> {
        let number = self.find(words, id)?;
        let at = self.entry_at(number);
        let next = low_half(words[at + entry::NEXT_AND_KIND].load(Ordering::Relaxed));
        self.change(words, id.words(), |bucket| {
            let head = &words[bucket + bucket::HEAD];
            if low_half(head.load(Ordering::Relaxed)) == number {
                head.store(next.into(), Ordering::Relaxed);
                return;
            }
            let mut before = low_half(head.load(Ordering::Relaxed));
            // `find` reached `number` along this chain, so it has a predecessor.
            while let Some(at) = self.shape.entry(before) {
                let link = &words[at + entry::NEXT_AND_KIND];
                let value = link.load(Ordering::Relaxed);
                if low_half(value) == number {
                    link.store((value & !u64::from(u32::MAX)) | u64::from(next), Ordering::Relaxed);
                    return;
                }
                before = low_half(value);
            }
        });
        self.unused.push(number);
        Some(number)
    }

    /// Makes the epoch odd: a commit of several names begins. PAIRS: epoch
    pub fn open_epoch(&self, words: &[AtomicU64]) {
        let epoch = words[index_header::EPOCH].load(Ordering::Relaxed);
        debug_assert!(epoch.is_multiple_of(2), "one commit at a time");
        words[index_header::EPOCH].store(epoch + 1, Ordering::Relaxed);
        fence(Ordering::Release); // a reader that sees any change of this commit sees the odd epoch at its re-read
    }

    /// Makes the epoch even: all of the commit is visible. PAIRS: epoch
    pub fn close_epoch(&self, words: &[AtomicU64]) {
        let epoch = words[index_header::EPOCH].load(Ordering::Relaxed);
        debug_assert!(!epoch.is_multiple_of(2), "a commit is open");
        words[index_header::EPOCH].store(epoch + 1, Ordering::Release);
    }

    /// Tells readers that the store has shut down, and leaves every sequence odd, so that nothing can be found any
    /// more: what no pin holds after [`reclaim_fence`](crate::pins::reclaim_fence) may then be given back.
    pub fn close(&mut self, words: &[AtomicU64]) {
        words[index_header::CLOSED].store(1, Ordering::Release);
        for bucket in 0..self.shape.bucket_count() {
            let sequence = &words[self.shape.bucket(bucket) + bucket::SEQUENCE];
            sequence.store(sequence.load(Ordering::Relaxed) | 1, Ordering::Relaxed);
        }
    }

    /// W1 to W4 around `write`, which gets the first word of the bucket.
    fn change(&self, words: &[AtomicU64], id: [u64; 4], write: impl FnOnce(usize)) {
        let bucket = self.reader(words).bucket_of(id);
        let sequence = &words[bucket + bucket::SEQUENCE];
        let even = sequence.load(Ordering::Relaxed);
        sequence.store(even + 1, Ordering::Relaxed); // W1
        fence(Ordering::Release); // W2
        write(bucket); // W3
        sequence.store(even + 2, Ordering::Release); // W4
    }

    fn reader<'a>(&self, words: &'a [AtomicU64]) -> IndexReader<&'a [AtomicU64]> {
        IndexReader { words, shape: self.shape, key: self.key }
    }

    fn entry_at(&self, number: u32) -> usize {
        self.shape.entry(number).expect("entry numbers come from this pool")
    }
}

fn write_entry(words: &[AtomicU64], next: u32, entry: &Entry) {
    let Header { kind, dtype, ndim, flags, buffer_offset, dims } = entry.header;
    let kind = u32::from_le_bytes([kind.number(), dtype.number(), ndim, flags.bits()]);
    let halves = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let [d0, d1, d2, d3] = dims;
    for (field, value) in [
        (entry::NEXT_AND_KIND, halves(next, kind)),
        (entry::VERSION, entry.version),
        (entry::OFFSET, entry.offset),
        (entry::LEN, entry.len_bytes),
        (entry::CREATED, entry.created_ns),
        (entry::EXPIRES, entry.expires_ns),
        (entry::WRITER_AND_BUFFER, halves(entry.writer_uid, buffer_offset)),
        (entry::DIMS, d0),
        (entry::DIMS + 1, d1),
        (entry::DIMS + 2, d2),
        (entry::DIMS + 3, d3),
    ] {
        words[field].store(value, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Clients and daemons of different builds must compute the same. The number was computed by another program from
    /// the definition of SipHash; that program gives the paper's vector for SipHash-2-4.
    #[test]
    fn buckets_are_the_same_in_every_build() {
        let key = HashKey([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
        let id = *b"default\0\0\0\0\0\0\0\0\0name name name !";
        assert_eq!(key.hash(NameId::from_bytes(id).words()), 0x29f8_b8b6_93e6_4b67);
    }

    /// Half of 65,536 ids lie in namespaces that differ in a few bits only, as an attacker would choose them.
    #[test]
    fn namespaces_that_resemble_each_other_are_spread() {
        const BUCKETS: usize = 4_096;
        for key in [HashKey([0, 0]), HashKey([u64::MAX, 1])] {
            let mut chains = [0_u32; BUCKETS];
            for number in 0..8 * BUCKETS as u64 {
                let id = [number & 0xff, (number >> 8) << 40, 7, 7];
                chains[crate::index_of(key.hash(id) % BUCKETS as u64)] += 1;
            }
            // Of 32,768 balls in 4,096 urns the fullest has about 22.
            assert!(chains.iter().max() < Some(&32), "{:?}", chains.iter().max());
        }
    }
}

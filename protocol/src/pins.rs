//! Pins and leases: what a client writes into its session region, and how the daemon reads it.
//!
//! # Why an extent is never reused under a reader
//!
//! This is hazard pointers (M. Michael, "Hazard Pointers: Safe Memory Reclamation for Lock-Free Objects", IEEE TPDS
//! 15(6), 2004) between processes. A reader and the daemon each do two things with a fence between them:
//!
//! ```text
//! reader                                     daemon
//! R1  store the pin          (Relaxed)       D1  unlink: bucket sequence := odd .. even
//! R2  fence(SeqCst)                          D2  fence(SeqCst)              PAIRS: pin-fence
//! R3  re-read the sequence   (Relaxed)       D3  load every pin slot        (Acquire)
//! ```
//!
//! The two fences are ordered one way or the other in the single order of sequentially consistent fences.
//!
//! * R2 before D2: the store R1 comes before D2, so the load D3 sees the pin (or a later value of that slot, which
//!   only the reader writes). The daemon leaves the extent in limbo.
//! * D2 before R2: the stores D1 happen before D2, so the load R3 sees a sequence at least as new. It differs from
//!   the one the reader began with, because a sequence only rises. The reader withdraws its pin and tries again; it
//!   has not touched the extent.
//!
//! So no reader uses an extent that the daemon found unpinned after unlinking it. D1 and D2 may run on different
//! threads of the daemon as long as D1 happens before D2. When a reader is done it stores 0 (Release); the load D3
//! that sees the 0 (Acquire) therefore comes after the reader's last access, and what is written into the extent
//! afterwards cannot be seen by it.
//!
//! A reader that dies between R1 and R3 leaves a pin that delays, never one that is missing: its slots count as free
//! once its process is gone. The models in `tests/loom.rs` fail when either fence is left out.
//!
//! # How pins are handed over at a fork
//!
//! A forked child has every handle of its parent, so every pin must go on holding when the parent drops its own. The
//! child gets a session region of its own before the fork, and fills it with copies of its parent's pins:
//!
//! ```text
//! child                                      parent                                  daemon
//! F1  store the pins   (Relaxed)             P1  hand-over over? (Acquire)  fork     S1  scan the parent's slots
//! F2  filled           (Release)  fork       P2  withdraw        (Release)  unpin    S2  scan the child's slots
//! ```
//!
//! The parent withdraws a pin it had at the fork only after it has seen F2. So if S1 finds the slot empty (Acquire,
//! paired with P2), F1 happened before S2, which finds the copy: the daemon scans a child's regions after its
//! parent's, whose session is the older one. A scan that began before the child's session existed leaves the child's
//! region out, and its verdict is thrown away. If the parent dies first, its regions are scanned in its stead, before
//! the child's, until the daemon sees F2. A child that dies before F2 is noticed by the daemon, which then says that
//! the hand-over is over. No fence is needed: each step hangs on the one before it by Release and Acquire. The models
//! of the hand-over fail when the parent does not wait, and when the child is scanned first.

use crate::{
    index_of,
    layout::{LAYOUT_VERSION, SESSION_MAGIC, session},
    limits::{LEASE_SLOTS, PIN_SLOTS},
    sync::{AtomicU64, Ordering, fence},
};

/// Which steps of the algorithms are taken. Only models of what goes wrong without a step use anything but [`All`].
#[doc(hidden)]
pub trait Steps {
    /// R2 above.
    const PIN_FENCE: bool = true;
    /// D2 above.
    const RECLAIM_FENCE: bool = true;
    /// The re-read of the sequence after a miss.
    const CHECK_MISS: bool = true;
    /// That the clock is read before the sequence is read again.
    const CLOCK_FIRST: bool = true;
}

/// Every step: what all code but the negative models uses.
#[doc(hidden)]
#[derive(Debug)]
pub enum All {}

impl Steps for All {}

/// What a slot holds for the object whose root extent begins at `offset` (in bytes, a multiple of 64).
#[inline]
#[must_use]
pub const fn pin_for(offset: u64) -> u64 {
    offset / 64 + 1
}

/// The offset that a pin names; `None` for an empty slot.
#[inline]
#[must_use]
pub const fn offset_of(pin: u64) -> Option<u64> {
    match pin {
        0 => None,
        // A hostile client can store anything; a wild offset names no extent and so delays nothing.
        pin => (pin - 1).checked_mul(64),
    }
}

/// The daemon's fence between unlinking and scanning (D2).
#[inline]
pub fn reclaim_fence() {
    reclaim_fence_with::<All>();
}

#[doc(hidden)]
#[inline]
pub fn reclaim_fence_with<S: Steps>() {
    if S::RECLAIM_FENCE {
        fence(Ordering::SeqCst); // PAIRS: pin-fence
    }
}

/// The reader's fence between publishing pins and re-reading sequences (R2).
#[inline]
pub(crate) fn pin_fence<S: Steps>() {
    if S::PIN_FENCE {
        fence(Ordering::SeqCst); // PAIRS: pin-fence
    }
}

/// A session region: the words of one client process.
///
/// The client writes them; the daemon reads them and treats what it finds as hostile.
#[derive(Clone, Copy, Debug)]
pub struct SessionRegion<'a> {
    words: &'a [AtomicU64],
}

/// Why a region is not a session region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegionError {
    /// It is shorter than its layout.
    TooShort {
        /// Words it has.
        words: usize,
        /// Words it needs.
        needed: usize,
    },
    /// It does not begin with the magic word: it is something else, or not ready.
    Magic {
        /// What was found.
        found: u64,
    },
    /// It has another layout.
    Version {
        /// The region's.
        found: u64,
    },
    /// The numbers of buckets and entries in its header do not fit together, or not into the region.
    Shape {
        /// Buckets the header claims.
        bucket_count: u64,
        /// Entries the header claims.
        entry_count: u64,
        /// Words the region has.
        words: usize,
    },
}

impl core::fmt::Display for RegionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            RegionError::TooShort { words, needed } => {
                write!(f, "the shared region has {words} words and its layout needs {needed}")
            }
            RegionError::Magic { found } => {
                write!(f, "the shared region begins with {found:#x}, not with its magic word")
            }
            RegionError::Version { found } => {
                write!(
                    f,
                    "the store's shared memory has layout {found}, this program knows layout {LAYOUT_VERSION}"
                )
            }
            RegionError::Shape { bucket_count, entry_count, words } => write!(
                f,
                "the shared index claims {bucket_count} buckets and {entry_count} entries, which do not fit together \
                 in its {words} words"
            ),
        }
    }
}

impl core::error::Error for RegionError {}

impl<'a> SessionRegion<'a> {
    /// Makes a zeroed region ready. Daemon only, before the client gets it.
    ///
    /// # Errors
    /// [`RegionError::TooShort`].
    pub fn prepare(words: &'a [AtomicU64]) -> Result<Self, RegionError> {
        let region = SessionRegion::sized(words)?;
        words[session::LAYOUT_VERSION].store(LAYOUT_VERSION, Ordering::Relaxed);
        words[session::MAGIC].store(SESSION_MAGIC, Ordering::Release); // ready is published last
        Ok(region)
    }

    /// Checks that `words` is a session region of this layout.
    ///
    /// # Errors
    /// [`RegionError`].
    pub fn open(words: &'a [AtomicU64]) -> Result<Self, RegionError> {
        let region = SessionRegion::sized(words)?;
        let found = words[session::MAGIC].load(Ordering::Acquire);
        if found != SESSION_MAGIC {
            return Err(RegionError::Magic { found });
        }
        let found = words[session::LAYOUT_VERSION].load(Ordering::Relaxed);
        if found != LAYOUT_VERSION {
            return Err(RegionError::Version { found });
        }
        Ok(region)
    }

    /// The words of a region that [`prepare`](Self::prepare) or [`open`](Self::open) has already accepted.
    #[inline]
    #[must_use]
    pub fn assume_checked(words: &'a [AtomicU64]) -> Self {
        SessionRegion { words }
    }

    fn sized(words: &'a [AtomicU64]) -> Result<Self, RegionError> {
        let needed = session::words(0);
        if words.len() < needed {
            return Err(RegionError::TooShort { words: words.len(), needed });
        }
        Ok(SessionRegion { words })
    }

    /// Stores `pin` into slot `slot` (R1). It protects nothing until the fence and the re-read have followed.
    ///
    /// # Panics
    /// If `slot` is not below [`PIN_SLOTS`].
    #[inline]
    pub fn publish(&self, slot: u32, pin: u64) {
        assert!(slot < PIN_SLOTS, "pin slots of a region are numbered below {PIN_SLOTS}");
        let high_water = &self.words[session::PIN_HIGH_WATER];
        // Raised before the pin is stored, both before the fence: a daemon that must see the pin sees the mark.
        if high_water.load(Ordering::Relaxed) <= u64::from(slot) {
            high_water.fetch_max(u64::from(slot) + 1, Ordering::Relaxed);
        }
        self.words[session::PINS + index_of(slot.into())].store(pin, Ordering::Relaxed);
    }

    /// Stores `pin` into slot `slot` if that is free, and returns whether it was. Daemon only, for a client that asked
    /// it to pin; a slot that the client uses for something else keeps its pin. `false` also for a number beyond the
    /// slots.
    ///
    /// Needs no fence: the scan that could free the object is handed over to its thread after this. PAIRS: unpin
    #[must_use]
    pub fn claim(&self, slot: u32, pin: u64) -> bool {
        if slot >= PIN_SLOTS {
            return false;
        }
        self.words[session::PIN_HIGH_WATER].fetch_max(u64::from(slot) + 1, Ordering::Relaxed);
        self.words[session::PINS + index_of(slot.into())]
            .compare_exchange(0, pin, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Empties slot `slot`: the reader's last access comes before it. PAIRS: unpin
    ///
    /// # Panics
    /// If `slot` is not below [`PIN_SLOTS`].
    #[inline]
    pub fn withdraw(&self, slot: u32) {
        assert!(slot < PIN_SLOTS, "pin slots of a region are numbered below {PIN_SLOTS}");
        self.words[session::PINS + index_of(slot.into())].store(0, Ordering::Release);
    }

    /// Child: copies of all pins of its parent are published here (F2). PAIRS: fork
    pub fn set_filled(&self) {
        self.words[session::HAND_OVER].store(FILLED, Ordering::Release);
    }

    /// Daemon: the session that this region was for has ended. PAIRS: fork
    pub fn set_ended(&self) {
        self.words[session::HAND_OVER].store(ENDED, Ordering::Release);
    }

    /// How far the hand-over to a forked child has come (P1). PAIRS: fork
    #[must_use]
    pub fn hand_over(&self) -> HandOver {
        match self.words[session::HAND_OVER].load(Ordering::Acquire) {
            0 => HandOver::Waiting,
            FILLED => HandOver::Filled,
            _ => HandOver::Ended,
        }
    }

    /// What slot `slot` holds; `None` for a number beyond the slots.
    #[must_use]
    pub fn pin(&self, slot: u32) -> Option<u64> {
        (slot < PIN_SLOTS).then(|| self.words[session::PINS + index_of(slot.into())].load(Ordering::Acquire))
    }

    /// Calls `found` with every pin (D3). Comes after [`reclaim_fence`]. PAIRS: unpin
    pub fn scan(&self, mut found: impl FnMut(u64)) {
        let high_water = self.words[session::PIN_HIGH_WATER].load(Ordering::Relaxed).min(PIN_SLOTS.into());
        let slots = &self.words[session::PINS..session::PINS + index_of(high_water)];
        for slot in slots {
            match slot.load(Ordering::Acquire) {
                0 => {}
                pin => found(pin),
            }
        }
    }

    /// The state of the lease numbered `lease` in lease slot `slot`; `None` for a number beyond the slots.
    ///
    /// The state word holds the lease's number as well, so that a client which still remembers a lease that was taken
    /// from it never mistakes a later lease in the same slot for its own.
    #[must_use]
    pub fn lease(&self, slot: u32, lease: u64) -> Option<LeaseState<'a>> {
        (slot < LEASE_SLOTS)
            .then(|| LeaseState { word: &self.words[session::LEASES + index_of(slot.into())], lease })
    }

    /// Notes that the binding in index entry `number` (counted from 1) was recalled: one bit, set only if clear, so
    /// that a hot recall writes nothing. Numbers beyond the region are ignored. PAIRS: access
    #[inline]
    pub fn note_access(&self, number: u32) {
        let bit = u64::from(number.wrapping_sub(1));
        let at = session::ACCESS_BITS + index_of(bit / 64);
        if let Some(word) = self.words.get(at) {
            let mask = 1 << (bit % 64);
            if word.load(Ordering::Relaxed) & mask == 0 {
                word.fetch_or(mask, Ordering::Relaxed);
                // Even if the page's bit is set: the daemon may be taking it at this moment, without this access.
                self.words[session::ACCESS_PAGES].fetch_or(access_page(at), Ordering::Release);
            }
        }
    }

    /// Whether accesses may have been noted that were not taken.
    #[must_use]
    pub fn has_accesses(&self) -> bool {
        self.words[session::ACCESS_PAGES].load(Ordering::Relaxed) != 0
    }

    /// Daemon: clears the access bits, and calls `found` with the number of each entry whose bit was set. Reads one
    /// word where there is nothing new, and else the pages in which there may be. PAIRS: access
    pub fn take_accesses(&self, mut found: impl FnMut(u32)) {
        if !self.has_accesses() {
            return;
        }
        let pages = self.words[session::ACCESS_PAGES].swap(0, Ordering::Acquire);
        let mut at = session::ACCESS_BITS;
        while at < self.words.len() {
            let end = (at + 1).next_multiple_of(ACCESS_PAGE_WORDS).min(self.words.len());
            if pages & access_page(at) != 0 {
                for (at, word) in (at..end).zip(&self.words[at..end]) {
                    if word.load(Ordering::Relaxed) != 0 {
                        take_bits(at, word.swap(0, Ordering::Relaxed), &mut found);
                    }
                }
            }
            at = end;
        }
    }
}

/// Words of a page, as far as [`session::ACCESS_PAGES`] goes.
const ACCESS_PAGE_WORDS: usize = 512;

/// The bit in [`session::ACCESS_PAGES`] of the page that word `at` is in.
#[inline]
const fn access_page(at: usize) -> u64 {
    1 << (at / ACCESS_PAGE_WORDS % 64)
}

/// Calls `found` with the number of each entry that `bits`, the access bits in word `at`, stand for.
fn take_bits(at: usize, mut bits: u64, found: &mut impl FnMut(u32)) {
    let first = (at - session::ACCESS_BITS) as u64 * 64 + 1;
    while bits != 0 {
        if let Ok(number) = u32::try_from(first + u64::from(bits.trailing_zeros())) {
            found(number);
        }
        bits &= bits - 1;
    }
}

/// How far the pins of a process have been handed over to a child that it forked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOver {
    /// The child has not filled its region: its handles rest on its parent's pins.
    Waiting,
    /// The child's handles rest on its own pins.
    Filled,
    /// There is no child (any more).
    Ended,
}

const FILLED: u64 = 1;
const ENDED: u64 = 2;

/// The state word of one lease: who may use it now.
///
/// ```text
///            claim (client)
///      idle ---------------> busy
///        |  <---------------
///        |    lay down (client)
///        | take (daemon)
///        v
///      taken
/// ```
///
/// The client writes into the lease only while it is busy. The daemon takes a lease back only while it is idle, at
/// any time. Both moves away from idle are compare-and-set, so one of them wins. A client that dies leaves whatever
/// state it was in; the daemon ends the leases of dead sessions without looking at it.
#[derive(Clone, Copy, Debug)]
pub struct LeaseState<'a> {
    word: &'a AtomicU64,
    lease: u64,
}

const IDLE: u64 = 1;
const BUSY: u64 = 2;
const TAKEN: u64 = 3;

/// Whether a move away from idle succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Moved {
    /// The lease is the caller's.
    Yes,
    /// It was not idle.
    No,
}

impl LeaseState<'_> {
    /// A new lease belongs to the client. Daemon only, before it answers.
    pub fn grant(&self) {
        self.word.store(self.word_for(BUSY), Ordering::Relaxed); // the socket orders it before the client's first look
    }

    /// Client: idle to busy, before it writes.
    pub fn claim(&self) -> Moved {
        self.leave_idle(BUSY)
    }

    /// Client: busy to idle, after its last write. PAIRS: lease-take
    pub fn lay_down(&self) {
        self.word.store(self.word_for(IDLE), Ordering::Release);
    }

    /// Daemon: idle to taken. PAIRS: lease-take
    pub fn take(&self) -> Moved {
        self.leave_idle(TAKEN)
    }

    /// Daemon: the lease has ended, whatever its state was; no claim succeeds any more.
    pub fn revoke(&self) {
        self.word.store(self.word_for(TAKEN), Ordering::Release);
    }

    /// Daemon: whether the lease is idle, and so counts as free.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.word.load(Ordering::Relaxed) == self.word_for(IDLE)
    }

    fn leave_idle(&self, state: u64) -> Moved {
        let (idle, state) = (self.word_for(IDLE), self.word_for(state));
        match self.word.compare_exchange(idle, state, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Moved::Yes,
            Err(_) => Moved::No,
        }
    }

    /// The lease's number and a state in one word: two bits are the state. Numbers count from 1 and never reach 2^62.
    fn word_for(&self, state: u64) -> u64 {
        self.lease << 2 | state
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn region() -> Vec<AtomicU64> {
        (0..session::words(128)).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn a_scan_sees_exactly_the_published_pins() {
        let words = region();
        let region = SessionRegion::prepare(&words).unwrap();
        region.publish(3, pin_for(64));
        region.publish(0, pin_for(0));
        region.publish(7, pin_for(128));
        region.withdraw(3);
        let mut found = Vec::new();
        region.scan(|pin| found.push(offset_of(pin).unwrap()));
        assert_eq!(found, [0, 128]);
    }

    #[test]
    fn a_slot_that_is_taken_is_not_claimed() {
        let words = region();
        let region = SessionRegion::prepare(&words).unwrap();
        assert!(region.claim(5, pin_for(64)));
        assert!(!region.claim(5, pin_for(128)) && !region.claim(PIN_SLOTS, pin_for(128)));
        let mut found = Vec::new();
        region.scan(|pin| found.push(offset_of(pin).unwrap()));
        assert_eq!(found, [64]);
        region.withdraw(5);
        assert!(region.claim(5, pin_for(128)));
    }

    /// The daemon treats a session region as hostile.
    #[test]
    fn a_wild_high_water_mark_and_wild_pins_are_harmless() {
        let words = region();
        let region = SessionRegion::prepare(&words).unwrap();
        words[session::PIN_HIGH_WATER].store(u64::MAX, Ordering::Relaxed);
        words[session::PINS].store(u64::MAX, Ordering::Relaxed);
        let mut count = 0;
        region.scan(|pin| {
            assert_eq!(offset_of(pin), None);
            count += 1;
        });
        assert_eq!(count, 1);
        assert!(region.pin(PIN_SLOTS).is_none());
        assert!(region.lease(LEASE_SLOTS, 1).is_none());
        region.note_access(0);
        region.note_access(u32::MAX);
    }

    #[test]
    fn accesses_are_taken_once() {
        let entries = 200_000;
        let words: Vec<_> = (0..session::words(entries)).map(|_| AtomicU64::new(0)).collect();
        let region = SessionRegion::prepare(&words).unwrap();
        let take = || {
            let mut found = Vec::new();
            region.take_accesses(|number| found.push(number));
            found
        };
        let noted = [1, 64, 65, 24_000, 32_768, 100_000, entries];
        noted.iter().chain(&noted).for_each(|&number| region.note_access(number));
        assert!(region.has_accesses());
        assert_eq!(take(), noted);
        assert!(!region.has_accesses() && take().is_empty());
        region.note_access(65);
        assert_eq!(take(), [65]);
    }

    #[test]
    fn a_lease_is_claimed_or_taken_but_not_both() {
        let words = region();
        let region = SessionRegion::prepare(&words).unwrap();
        let lease = region.lease(0, 7).unwrap();
        lease.grant();
        assert_eq!(lease.take(), Moved::No, "busy");
        lease.lay_down();
        assert_eq!(lease.claim(), Moved::Yes);
        lease.lay_down();
        assert_eq!(lease.take(), Moved::Yes);
        assert_eq!(lease.claim(), Moved::No, "taken");
        let later = region.lease(0, 8).unwrap();
        later.grant();
        later.lay_down();
        assert_eq!(lease.claim(), Moved::No, "another lease has the slot now");
    }

    #[test]
    fn a_region_that_is_short_foreign_or_of_another_layout_is_refused() {
        let words = region();
        assert_eq!(SessionRegion::open(&words).unwrap_err(), RegionError::Magic { found: 0 });
        assert!(matches!(SessionRegion::open(&words[..9]), Err(RegionError::TooShort { .. })));
        SessionRegion::prepare(&words).unwrap();
        words[session::LAYOUT_VERSION].store(2, Ordering::Relaxed);
        assert_eq!(SessionRegion::open(&words).unwrap_err(), RegionError::Version { found: 2 });
    }
}

//! Pin slots: which are in use, and what they hold, in memory of this process alone.
//!
//! A bit for each slot says whether it is taken. Beside it stands the *shadow*: what the slot holds, set before the
//! pin is published and cleared after it is withdrawn, so that at any instant the shadow covers every pin of the
//! process. All of it is atomics without a lock, so that no thread ever waits here and a copy made at any instant (by
//! a fork) is a consistent one.

use plasmon_protocol::{index_of, limits::PIN_SLOTS};
use plasmon_shm::WordsMapping;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const WORDS: usize = index_of(PIN_SLOTS as u64) / 64;

/// The slots of one session region.
#[derive(Debug)]
pub(crate) struct Slots {
    /// One bit for each slot: taken.
    taken: Box<[AtomicU64]>,
    /// What each slot holds: a mapping of its own, which takes memory only where slots are in use.
    shadow: WordsMapping,
    /// Where the last free slot was found or given back: low, so that the daemon scans few.
    hint: AtomicUsize,
}

impl Slots {
    /// All slots below `count` are free; those from there on can never be taken.
    ///
    /// # Errors
    /// If there is no memory.
    pub(crate) fn new(count: u32) -> Result<Self, plasmon_shm::Error> {
        let beyond = |word: usize| match index_of(count.into()).saturating_sub(word * 64) {
            free @ 0..64 => u64::MAX << free,
            _ => 0,
        };
        let taken = (0..WORDS).map(|word| AtomicU64::new(beyond(word))).collect();
        let shadow = WordsMapping::private(index_of(PIN_SLOTS.into()))?;
        Ok(Slots { taken, shadow, hint: AtomicUsize::new(0) })
    }

    /// Takes a free slot; `None` if all are taken.
    #[inline]
    pub(crate) fn take(&self) -> Option<u32> {
        let start = self.hint.load(Ordering::Relaxed);
        for step in 0..WORDS {
            let index = (start + step) % WORDS;
            let word = &self.taken[index];
            let mut bits = word.load(Ordering::Relaxed);
            while bits != u64::MAX {
                let bit = bits.trailing_ones();
                // Acquire: what the last owner of the slot did with it comes before what we do.
                bits = word.fetch_or(1 << bit, Ordering::Acquire);
                if bits & (1 << bit) == 0 {
                    if step > 0 {
                        self.hint.store(index, Ordering::Relaxed);
                    }
                    return u32::try_from(index * 64).ok().map(|first| first + bit);
                }
            }
        }
        None
    }

    /// Notes what `slot` is about to hold, before it is published.
    #[inline]
    pub(crate) fn note(&self, slot: u32, pin: u64) {
        self.shadow.words()[index_of(slot.into())].store(pin, Ordering::Relaxed);
    }

    /// The slots that hold something, and what.
    pub(crate) fn held(&self) -> impl Iterator<Item = (u32, u64)> {
        let taken = self.taken.iter().zip((0..).step_by(64));
        let taken = taken.filter(|(bits, _)| bits.load(Ordering::Relaxed) != 0);
        taken.flat_map(|(_, first)| first..first + 64).filter_map(|slot: u32| {
            match self.shadow.words()[index_of(slot.into())].load(Ordering::Relaxed) {
                0 => None,
                pin => Some((slot, pin)),
            }
        })
    }

    /// Gives a slot back, whose pin is withdrawn.
    #[inline]
    pub(crate) fn give_back(&self, slot: u32) {
        let index = index_of(slot.into()) / 64;
        self.shadow.words()[index_of(slot.into())].store(0, Ordering::Relaxed);
        self.taken[index].fetch_and(!(1 << (slot % 64)), Ordering::Release);
        if index < self.hint.load(Ordering::Relaxed) {
            self.hint.store(index, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_slot_can_be_taken_once_and_the_lowest_comes_first() {
        let slots = Slots::new(PIN_SLOTS).unwrap();
        let taken: HashSet<u32> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(taken.len(), 65_536);
        assert_eq!(slots.take(), None);
        slots.give_back(4_711);
        slots.give_back(7);
        assert_eq!((slots.take(), slots.take(), slots.take()), (Some(7), Some(4_711), None));
    }

    #[test]
    fn no_more_slots_are_taken_than_may_be() {
        for count in [0, 1, 63, 64, 65, 100, 65_535] {
            let slots = Slots::new(count).unwrap();
            let taken: HashSet<u32> = std::iter::from_fn(|| slots.take()).collect();
            assert_eq!(taken, (0..count).collect(), "{count}");
        }
    }

    #[test]
    fn the_shadow_says_what_is_held() {
        let slots = Slots::new(PIN_SLOTS).unwrap();
        let taken: Vec<u32> = std::iter::from_fn(|| slots.take()).take(130).collect();
        for &slot in &taken {
            slots.note(slot, u64::from(slot) + 1);
        }
        slots.give_back(64);
        let held: Vec<(u32, u64)> = slots.held().collect();
        assert_eq!(held.len(), 129);
        assert!(held.iter().all(|&(slot, pin)| pin == u64::from(slot) + 1 && slot != 64));
    }

    #[test]
    fn threads_never_share_a_slot() {
        let slots = Slots::new(PIN_SLOTS).unwrap();
        let owners: Vec<AtomicU64> = (0..65_536).map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..20_000 {
                        let slot = slots.take().expect("there are more slots than threads");
                        slots.note(slot, round);
                        assert_eq!(owners[index_of(slot.into())].swap(1, Ordering::Relaxed), 0);
                        owners[index_of(slot.into())].store(0, Ordering::Relaxed);
                        slots.give_back(slot);
                    }
                });
            }
        });
    }
}

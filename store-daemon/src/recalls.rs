//! When each name was last recalled, as far as readers have noted it.
//!
//! Readers set a bit in their session region for the index entry that they recall, if it is clear. Every second the
//! scan thread collects and clears the bits of all sessions, which is a *round*, and notes the time for each. So a
//! last recall is right within a second, and a recall costs its reader no store that it has already made in the
//! same round. What a hostile client stores makes a last recall wrong, and nothing else.
//!
//! # Why a name does not inherit the recalls of another
//!
//! After an unbinding, another name may reuse the entry before the scan thread has collected the bits that readers of
//! the old name have set. So unbinding marks the entry with the number `r` of the last round that has begun. Round
//! `r + 1` collects every bit set before the unbinding: its job has all sessions that live, and those that ended since
//! round `r`. Rounds up to `r + 1` therefore ignore an entry that is marked `r`. They also ignore recalls of the new
//! name. For the order of caches that is harmless, because a name that was just bound counts as used.

use plasmon_protocol::{index_of, pins::SessionRegion};
use plasmon_shm::WordsMapping;
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Entries whose times are allocated together.
const CHUNK: u32 = 4_096;

/// Set in the word of an entry that was unbound: the rest is the round last begun then.
const UNBOUND: u64 = 1 << 63;

/// When the binding in each index entry was last recalled, shared by the loop and the scan thread.
///
/// A word holds 0 or the time, by CLOCK_BOOTTIME in nanoseconds (which nobody sets, so that what was recalled later has
/// the later time), or [`UNBOUND`] and a round. Each stands for itself
/// and orders nothing else, so all accesses are relaxed.
#[derive(Debug)]
pub(crate) struct Recalls {
    entry_count: u32,
    chunks: Box<[OnceLock<Box<[AtomicU64]>>]>,
    /// One bit for each entry whose time to live slides.
    sliding: Box<[AtomicU64]>,
}

impl Recalls {
    pub(crate) fn new(entry_count: u32) -> Recalls {
        let chunks = (0..entry_count.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect();
        let sliding = (0..entry_count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Recalls { entry_count, chunks, sliding }
    }

    /// When the binding in entry `number` was last recalled, in nanoseconds of CLOCK_BOOTTIME; `None` if nobody has
    /// noted that it was.
    pub(crate) fn last(&self, number: u32) -> Option<u64> {
        let (chunk, at) = self.place(number)?;
        let word = chunk.get()?[at].load(Relaxed);
        (word != 0 && word & UNBOUND == 0).then_some(word)
    }

    /// The binding in entry `number` was recalled at `now_ns`, as the daemon itself knows.
    pub(crate) fn note(&self, number: u32, now_ns: u64) {
        if let Some(word) = self.word(number) {
            word.store(now_ns, Relaxed);
        }
    }

    /// Entry `number` is unbound when `round` was the last one begun.
    pub(crate) fn unbind(&self, number: u32, round: u64) {
        if let Some(word) = self.word(number) {
            word.store(UNBOUND | round, Relaxed);
        }
    }

    /// Whether recalls of the binding in entry `number` prolong its life.
    pub(crate) fn set_sliding(&self, number: u32, is_sliding: bool) {
        let Some((word, bit)) = self.sliding_bit(number) else { return };
        // Almost always as it is.
        if (word.load(Relaxed) & bit != 0) != is_sliding {
            word.fetch_xor(bit, Relaxed); // written by the loop alone
        }
    }

    fn is_sliding(&self, number: u32) -> bool {
        self.sliding_bit(number).is_some_and(|(word, bit)| word.load(Relaxed) & bit != 0)
    }

    fn sliding_bit(&self, number: u32) -> Option<(&AtomicU64, u64)> {
        let number = number.checked_sub(1)?;
        Some((self.sliding.get(index_of((number / 64).into()))?, 1 << (number % 64)))
    }

    /// Returns whether that counts, and is the first of this round, which began at `now_ns`.
    fn collected(&self, number: u32, round: u64, now_ns: u64) -> bool {
        let Some(word) = self.word(number) else { return false };
        let before = word.load(Relaxed);
        if before == now_ns || before & UNBOUND != 0 && round <= (before & !UNBOUND) + 1 {
            return false;
        }
        // If it is unbound at this moment, that counts.
        word.compare_exchange(before, now_ns, Relaxed, Relaxed).is_ok()
    }

    fn word(&self, number: u32) -> Option<&AtomicU64> {
        let (chunk, at) = self.place(number)?;
        let zeros = || (0..CHUNK).map(|_| AtomicU64::new(0)).collect();
        Some(&chunk.get_or_init(zeros)[at])
    }

    /// Entries count from 1; a hostile client notes any number.
    fn place(&self, number: u32) -> Option<(&OnceLock<Box<[AtomicU64]>>, usize)> {
        let number = number.checked_sub(1).filter(|&number| number < self.entry_count)?;
        let chunk = self.chunks.get(index_of((number / CHUNK).into()))?;
        Some((chunk, index_of((number % CHUNK).into())))
    }
}

/// One round.
#[derive(Debug)]
pub(crate) struct CollectJob {
    pub(crate) round: u64,
    pub(crate) recalls: Arc<Recalls>,
    /// The first region of every session, and of those that have ended since the round before.
    pub(crate) regions: Vec<Arc<WordsMapping>>,
}

/// Does one round, at `now_ns` of CLOCK_BOOTTIME. Reads one word of each session, and a page more for each page with something new in it. Returns the
/// entries whose time to live slides and that were recalled: each once, whoever recalled it, so that there are never more
/// of them than entries. The loop begins the next round when it has moved the deadlines of all of these.
pub(crate) fn collect(job: &CollectJob, now_ns: u64) -> Vec<u32> {
    let mut slid = Vec::new();
    for region in &job.regions {
        let region = SessionRegion::assume_checked(region.words());
        region.take_accesses(|number| {
            if job.recalls.collected(number, job.round, now_ns) && job.recalls.is_sliding(number) {
                slid.push(number);
            }
        });
    }
    slid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_reused_does_not_inherit_recalls() {
        let recalls = Recalls::new(5_000);
        assert_eq!(recalls.last(4_999), None);
        recalls.collected(4_999, 3, 70);
        assert_eq!((recalls.last(4_999), recalls.last(5_000)), (Some(70), None));
        recalls.unbind(4_999, 3);
        assert_eq!(recalls.last(4_999), None);
        recalls.collected(4_999, 3, 80); // the round that was under way
        recalls.collected(4_999, 4, 81); // recalled before it was unbound, perhaps
        assert_eq!(recalls.last(4_999), None);
        recalls.collected(4_999, 5, 82);
        assert_eq!(recalls.last(4_999), Some(82));
    }

    /// However many sessions say that they recall it: what a round comes to is bounded by the entries.
    #[test]
    fn an_entry_counts_once_in_a_round() {
        let recalls = Recalls::new(100);
        assert!(recalls.collected(7, 1, 70));
        assert!(!recalls.collected(7, 1, 70));
        assert!(recalls.collected(8, 1, 70));
        assert!(recalls.collected(7, 2, 80));
    }

    #[test]
    fn numbers_beyond_the_entries_are_ignored() {
        let recalls = Recalls::new(1);
        for number in [0, 2, u32::MAX] {
            recalls.collected(number, 1, 1);
            recalls.note(number, 1);
            assert_eq!(recalls.last(number), None);
        }
        recalls.note(1, 1);
        assert!(recalls.last(1).is_some());
    }
}

//! Which ranges of a region this process has mapped writable, so that none is mapped twice.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Error;

/// The writable ranges of one region, by offset; they never overlap.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<BTreeMap<u64, u64>>);

impl Claims {
    /// Claims `range`, which must not be empty, until the claim is dropped.
    pub(crate) fn claim(self: &Arc<Self>, range: Range<u64>) -> Result<Claim, Error> {
        let mut ends_by_offset = self.lock();
        // Ranges do not overlap, so of those that begin before `range` ends, the last one ends last.
        if ends_by_offset.range(..range.end).next_back().is_some_and(|(_, end)| *end > range.start) {
            return Err(Error::LeaseOverlap { offset: range.start, len_bytes: range.end - range.start });
        }
        ends_by_offset.insert(range.start, range.end);
        Ok(Claim { claims: Arc::clone(self), offset: range.start, mapped_by: process::id() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        // Every change is one call, so that a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One range that is mapped writable. Dropped after its mapping.
#[derive(Debug)]
pub(crate) struct Claim {
    claims: Arc<Claims>,
    offset: u64,
    mapped_by: u32,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // In a forked child another thread of the parent may have held the lock for ever.
        if self.mapped_by == process::id() {
            self.claims.lock().remove(&self.offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_ranges_are_refused_and_neighbours_are_not() {
        let claims = Arc::new(Claims::default());
        let middle = claims.claim(100..200).unwrap();
        for overlapping in [100..200, 99..101, 199..201, 150..160, 0..1000] {
            assert!(claims.claim(overlapping.clone()).is_err(), "{overlapping:?}");
        }
        let _before = claims.claim(50..100).unwrap();
        let _after = claims.claim(200..201).unwrap();
        drop(middle);
        assert!(claims.claim(100..200).is_ok());
    }
}

//! A slice of the loop's time: how much of long work is done between two looks at the sockets.

use crate::connection::Peer;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Length of a slice.
const SLICE: Duration = Duration::from_millis(1);

/// Entries worked off between two looks at the clock. An entry takes microseconds at most.
const ENTRIES_PER_LOOK: u32 = 32;

/// What each process has had of a turn of the loop: whatever one of them sends, through however many connections, the
/// others get their turn after about a slice.
#[derive(Debug, Default)]
pub(crate) struct Shares(HashMap<Peer, Duration>);

impl Shares {
    /// Everybody has a share again.
    pub(crate) fn begin_turn(&mut self) {
        self.0.clear();
    }

    /// Whether the process has had its share of this turn.
    pub(crate) fn is_spent(&self, process: Peer) -> bool {
        self.0.get(&process).is_some_and(|&spent| spent >= SLICE)
    }

    pub(crate) fn spend(&mut self, process: Peer, time: Duration) {
        *self.0.entry(process).or_default() += time;
    }
}

/// A slice of time, spent entry by entry.
#[derive(Debug)]
pub(crate) struct Slice {
    until: Instant,
    unlooked: u32,
    /// Whether nobody looks at the clock: the slice ends with its entries.
    #[cfg(test)]
    is_counted: bool,
}

impl Slice {
    /// A slice that begins now.
    pub(crate) fn begin() -> Slice {
        Slice {
            until: Instant::now() + SLICE,
            unlooked: ENTRIES_PER_LOOK,
            #[cfg(test)]
            is_counted: false,
        }
    }

    /// A slice of so many entries, however long they take.
    #[cfg(test)]
    pub(crate) fn of_entries(entries: u32) -> Slice {
        Slice { until: Instant::now(), unlooked: entries, is_counted: true }
    }

    /// A slice in which there is time for everything.
    #[cfg(test)]
    pub(crate) fn endless() -> Slice {
        Slice::of_entries(u32::MAX)
    }

    /// A slice in which there is time for a few entries only: the shortest there is.
    #[cfg(test)]
    pub(crate) fn shortest() -> Slice {
        Slice::of_entries(ENTRIES_PER_LOOK)
    }

    /// Whether the slice is over, for entries of which each may take long.
    pub(crate) fn is_over(&mut self) -> bool {
        #[cfg(test)]
        if self.is_counted {
            return !self.spend();
        }
        Instant::now() >= self.until
    }

    /// Whether there is time for one more entry. The first few always have it, so that every slice gets on.
    pub(crate) fn spend(&mut self) -> bool {
        if self.unlooked == 0 {
            if Instant::now() >= self.until {
                return false;
            }
            self.unlooked = ENTRIES_PER_LOOK;
        }
        self.unlooked -= 1;
        true
    }
}

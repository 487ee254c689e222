//! A slice of the loop's time: how much of long work is done between two looks at the sockets.
//!
//! The loop begins a slice for each step of long work. The step spends it entry by entry, and stops when it is spent.

use crate::{connection::Peer, fast_hash::FastMap};
use std::time::{Duration, Instant};

/// Length of a slice.
const SLICE: Duration = Duration::from_millis(1);

/// Entries worked off between two looks at the clock. An entry takes microseconds at most.
const ENTRIES_PER_LOOK: u32 = 32;

/// How long the requests of all processes together are handled between two looks at the sockets.
const HANDLING: Duration = Duration::from_millis(2);

/// What a process has had of the loop's time.
#[derive(Clone, Copy, Debug)]
struct Had {
    /// In all, and for its last request.
    time: Duration,
    last: Duration,
    /// It waits for its turn: what others have meanwhile makes no difference to it.
    waits: bool,
    /// In the turn of this number.
    of_turn: Duration,
    turn: u64,
}

/// How long a request is thought to take of a process that has made none.
const UNKNOWN: Duration = Duration::from_millis(4);

/// Processes of which it is remembered what they have had.
const REMEMBERED_MAX: usize = 4_096;

/// What each process has had of the loop's time: whatever one of them sends, through however many connections, the
/// others get their turn after about a slice; and however many processes ask at once, who has had least comes first, so
/// that somebody who asks for little does not wait for all those who ask for much.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    /// Fair queueing, by virtual time.
    had: FastMap<Peer, Had>,
    /// The number of this turn, and how much a process may have of it.
    turn: u64,
    share: Duration,
    /// What all processes have had since the last look at the sockets, or at those that wait for the next turn.
    handled: Duration,
    /// What those had had at least whose turn it was. Who begins to ask counts as having had as much.
    least: Duration,
}

impl Shares {
    /// Everybody has a share again: a slice, or one request if the turn before `was_crowded`, so that nobody waits for a
    /// slice of everybody else.
    pub(crate) fn begin_turn(&mut self, was_crowded: bool) {
        self.turn += 1;
        self.share = if was_crowded { Duration::ZERO } else { SLICE };
        self.handled = Duration::ZERO;
        if self.had.len() > REMEMBERED_MAX {
            self.had.clear();
        }
    }

    /// Those who wait for this turn are handled from here on.
    pub(crate) fn begin_waiting(&mut self) {
        self.handled = Duration::ZERO;
    }

    /// Whether the process has had its share of this turn.
    pub(crate) fn is_spent(&self, process: Peer) -> bool {
        self.had.get(&process).is_some_and(|had| had.turn == self.turn && had.of_turn >= self.share)
    }

    /// Whether whoever has not been handled yet waits, so that the sockets are looked at.
    pub(crate) fn are_spent(&self) -> bool {
        self.handled >= HANDLING
    }

    /// `process` has asked, and waits for its turn. Returns what those who wait are ordered by, least first: what each
    /// will have had, if its next request takes as long as its last one.
    pub(crate) fn wait(&mut self, process: Peer) -> Duration {
        let had = self.had(process);
        had.waits = true;
        had.time + had.last
    }

    /// `process` comes next.
    pub(crate) fn serve(&mut self, process: Peer) {
        let had = self.had(process);
        had.waits = false;
        let time = had.time;
        self.least = self.least.max(time);
    }

    /// A request of `process` took so long.
    pub(crate) fn spend(&mut self, process: Peer, time: Duration) {
        let turn = self.turn;
        let had = self.had(process);
        had.of_turn = if had.turn == turn { had.of_turn + time } else { time };
        had.turn = turn;
        had.time += time;
        had.last = time;
        self.handled += time;
    }

    fn had(&mut self, process: Peer) -> &mut Had {
        let new = Had { time: Duration::ZERO, last: UNKNOWN, waits: false, of_turn: Duration::ZERO, turn: 0 };
        let had = self.had.entry(process).or_insert(new);
        if !had.waits {
            had.time = had.time.max(self.least);
        }
        had
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

#[cfg(test)]
mod tests {
    use super::*;

    /// 200 processes ask for long answers without end. One that asks for a short one now and then waits for few of them.
    #[test]
    fn who_asks_for_little_does_not_wait_for_all_who_ask_for_much() {
        let (long, short) = (Duration::from_millis(2), Duration::from_micros(20));
        let process = |pid| Peer { pid, uid: 7 };
        let small = process(1_000);
        let mut shares = Shares::default();
        shares.spend(small, short); // it was there before them
        let mut longest = Duration::ZERO;
        let (mut asks, mut waited) = (false, Duration::ZERO);
        for turn in 0..2_000 {
            shares.begin_turn(true);
            let mut asking: Vec<Peer> = (1..=200).map(process).collect();
            asks |= turn % 10 == 0;
            asking.extend(asks.then_some(small));
            asking.sort_by_key(|&process| shares.wait(process));
            for process in asking {
                if shares.are_spent() {
                    break;
                }
                shares.serve(process);
                let time = if process == small { short } else { long };
                shares.spend(process, time);
                asks &= process != small;
                waited = if asks { waited + time } else { Duration::ZERO };
                longest = longest.max(waited);
            }
        }
        assert!(longest <= 2 * long, "waited for {longest:?}");
    }

    /// However little others ask for at a time.
    #[test]
    fn nobody_waits_for_ever() {
        let process = |pid| Peer { pid, uid: 7 };
        let mut shares = Shares::default();
        let mut waits = 0;
        while waits < 10_000 && (waits < 50 || shares.wait(process(0)) > shares.wait(process(waits % 50 + 1)))
        {
            shares.begin_turn(false);
            shares.serve(process(waits % 50 + 1));
            shares.spend(process(waits % 50 + 1), Duration::from_micros(100));
            waits += 1;
        }
        assert!(waits < 10_000, "a process that has never been handled waits behind all others");
    }

    /// Time that nobody else wanted is not held against anybody.
    #[test]
    fn who_was_alone_is_not_behind_those_who_come() {
        let process = |pid| Peer { pid, uid: 7 };
        let mut shares = Shares::default();
        for _ in 0..1_000 {
            shares.begin_turn(false);
            shares.serve(process(1));
            shares.spend(process(1), SLICE);
            assert!(shares.is_spent(process(1)) && !shares.is_spent(process(2)));
        }
        assert!(shares.wait(process(1)) <= shares.wait(process(2)) + SLICE);
    }

    #[test]
    fn processes_are_not_remembered_without_end() {
        let mut shares = Shares::default();
        for pid in 0..10 * 4_096 {
            shares.begin_turn(false);
            shares.spend(Peer { pid, uid: 7 }, SLICE);
            assert!(shares.had.len() <= REMEMBERED_MAX + 1);
        }
    }
}

//! A queue in which processes take turns, so that nobody waits behind all that another process has asked for.
//!
//! `State` keeps long listings in one. `state/commits.rs` has one of commits that are being prepared, and one of
//! commits and look-ups that wait for their turn.

use crate::{connection::Peer, fast_hash::FastMap};
use std::collections::VecDeque;

/// What waits, in order for each process. Processes come round robin.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    /// What waits alone, as almost always. Then nothing is below.
    alone: Option<(Peer, T)>,
    by_process: FastMap<Peer, VecDeque<T>>,
    /// Those who have something in the queue, whose turn is next first.
    turns: VecDeque<Peer>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        FairQueue { alone: None, by_process: FastMap::default(), turns: VecDeque::new() }
    }
}

impl<T> FairQueue<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.alone.is_none() && self.turns.is_empty()
    }

    /// `item` waits behind what else `process` has in the queue.
    pub(crate) fn push(&mut self, process: Peer, item: T) {
        if self.is_empty() {
            self.alone = Some((process, item));
            return;
        }
        if let Some((first, alone)) = self.alone.take() {
            self.push_behind(first, alone);
        }
        self.push_behind(process, item);
    }

    fn push_behind(&mut self, process: Peer, item: T) {
        let items = self.by_process.entry(process).or_default();
        if items.is_empty() {
            self.turns.push_back(process);
        }
        items.push_back(item);
    }

    /// Takes what the process has waiting longest whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<T> {
        if let Some((_, item)) = self.alone.take() {
            return Some(item);
        }
        let process = self.turns.pop_front()?;
        let items = self.by_process.get_mut(&process)?;
        let item = items.pop_front();
        if items.is_empty() {
            self.by_process.remove(&process);
        } else {
            self.turns.push_back(process);
        }
        item
    }

    /// Takes everything.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.pop())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_behind_all_that_another_process_asks_for() {
        let process = |pid| Peer { pid, uid: 7 };
        let mut queue = FairQueue::default();
        (0..1_000).for_each(|n| queue.push(process(1), (1, n)));
        queue.push(process(2), (2, 0));
        queue.push(process(2), (2, 1));
        queue.push(process(3), (3, 0));
        let first: Vec<_> = (0..6).filter_map(|_| queue.pop()).collect();
        assert_eq!(first, [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (1, 2)]);
        queue.push(process(3), (3, 1));
        assert_eq!((queue.pop(), queue.pop()), (Some((1, 3)), Some((3, 1))));
        assert_eq!(queue.drain().count(), 996);
        assert!(queue.is_empty() && queue.by_process.is_empty() && queue.pop().is_none());
    }
}

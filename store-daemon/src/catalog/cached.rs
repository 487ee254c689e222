//! The bindings of caches, the least recently used first.
//!
//! `Catalog` queues a binding here when it is bound in a cache, and removes it when it is unbound. Evictions
//! (`evict.rs`) walk the queue when room is short.

use super::{NamespaceId, present::Present};
use crate::slice::Slice;
use std::{collections::BTreeSet, ops::Bound};

/// A place in the queue of cached bindings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cached {
    /// Whether its value stands in the index. Those have a queue of their own, behind the other: no room in the arena would
    /// come of them.
    in_index: bool,
    /// When the binding was last used, as far as was known when it was queued: CLOCK_BOOTTIME, in nanoseconds.
    used_ns: u64,
    /// Its index entry.
    pub(crate) number: u32,
}

impl Cached {
    /// Where the queue of objects in the arena begins.
    pub(crate) const FIRST: Cached = Cached { in_index: false, used_ns: 0, number: 0 };

    /// Where the queue of values that stand in the index begins.
    pub(crate) const FIRST_IN_INDEX: Cached = Cached { in_index: true, used_ns: 0, number: 0 };
}

/// What a look into a queue of cached bindings came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// This one comes next.
    This(Cached),
    /// None is left.
    End,
    /// The slice is over, and it is not known yet.
    NoTime,
}

/// Bindings of cache namespaces, and stale ones of namespaces that were caches. Ordered by the last use that was known
/// when each was queued; [`next`](Self::next) corrects the order when it comes to a binding.
#[derive(Debug, Default)]
pub(super) struct Queue(BTreeSet<Cached>);

impl Queue {
    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Queues the binding in entry `number`, which was last used at `used_ns`, unless it is queued already, or ends with a
    /// session: such a binding does not give way.
    pub(super) fn add(&mut self, present: &mut Present, number: u32, used_ns: u64) {
        let Some(record) = present.get_mut(number) else { return };
        let cached = Cached { in_index: record.object.is_none(), used_ns, number };
        if record.owner.is_some() || record.queued.is_some_and(|queued| queued.in_index == cached.in_index) {
            return;
        }
        record.queued.replace(cached).map(|queued| self.0.remove(&queued));
        self.0.insert(cached);
    }

    /// Takes a binding out that is not bound any more.
    pub(super) fn remove(&mut self, queued: Option<Cached>) {
        if let Some(cached) = queued {
            self.0.remove(&cached);
        }
    }

    /// Returns the binding after `at` in its queue, the least recently used first. Bindings that were used since they were
    /// queued are moved to their true place on the way, as long as `slice` lasts: their second chance.
    pub(super) fn next(
        &mut self,
        at: Cached,
        slice: &mut Slice,
        present: &mut Present,
        is_cache: impl Fn(NamespaceId) -> bool,
        last_use: impl Fn(u32, u64) -> u64,
    ) -> Next {
        let end = if at.in_index { Bound::Unbounded } else { Bound::Excluded(Cached::FIRST_IN_INDEX) };
        while slice.spend() {
            let Some(&cached) = self.0.range((Bound::Excluded(at), end)).next() else {
                return Next::End;
            };
            let Cached { used_ns, number, .. } = cached;
            let record = present.get_mut(number).expect("only what is bound is queued");
            let last_ns = last_use(number, record.learned_ns);
            let gives_way = record.owner.is_none() && is_cache(record.namespace);
            if gives_way && last_ns <= used_ns {
                return Next::This(cached);
            }
            self.0.remove(&cached);
            record.queued = gives_way.then_some(Cached { used_ns: last_ns, ..cached });
            self.0.extend(record.queued);
        }
        Next::NoTime
    }

    /// The one of two places that comes first, and which queue it is in.
    pub(super) fn first_of(places: [Option<Cached>; 2]) -> Option<(usize, Cached)> {
        let first = places.into_iter().flatten().min_by_key(|next| (next.used_ns, next.number))?;
        Some((usize::from(first.in_index), first))
    }
}

//! Requests that wait for a name.
//!
//! A wait ends in one of three ways: the name comes to be as it was waited for ([`Waits::take_met`], called whenever a
//! name is bound or unbound), its time is up ([`Waits::take_late`]), or its connection ends ([`Waits::take_of`]). Each of
//! them costs as much as it finds, however many others wait: one process may wait 64,000 times for one name.

use crate::{commit::ReplyTo, connection::ConnectionId};
use plasmon_protocol::id::NameId;
use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// The name is bound with a version above this one.
    Above(u64),
    /// The name is bound with another version than this one, or not at all; 0 is not being bound.
    Not(u64),
}

impl Until {
    /// Whether it has come, now that the name is bound with `version`; 0 if it is not bound.
    pub(crate) fn has_come(self, version: u64) -> bool {
        match self {
            Until::Above(known) => version > known,
            Until::Not(known) => version != known,
        }
    }
}

/// A request that waits for a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    pub(crate) reply_to: ReplyTo,
    pub(crate) until: Until,
    pub(crate) deadline: Option<Instant>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    by_number: HashMap<u64, (NameId, Waiter)>,
    by_name: HashMap<NameId, Known>,
    by_deadline: BTreeSet<(Instant, u64)>,
    by_connection: HashMap<ConnectionId, BTreeSet<u64>>,
    next: u64,
}

/// The waits for one name, by the version that each knows and its number.
#[derive(Debug, Default)]
struct Known {
    above: BTreeSet<(u64, u64)>,
    not: BTreeSet<(u64, u64)>,
}

impl Waits {
    /// Whether somebody waits for `id`.
    pub(crate) fn has(&self, id: &NameId) -> bool {
        self.by_name.contains_key(id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// When the first of them has waited long enough.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|&(at, _)| at)
    }

    pub(crate) fn add(&mut self, id: NameId, waiter: Waiter) {
        let number = self.next;
        self.next += 1;
        self.by_name.entry(id).or_default().entries(waiter.until).insert((known(waiter.until), number));
        self.by_deadline.extend(waiter.deadline.map(|at| (at, number)));
        self.by_connection.entry(waiter.reply_to.connection).or_default().insert(number);
        self.by_number.insert(number, (id, waiter));
    }

    /// Takes one of those that are met, now that `id` is bound with `version`; 0 if it is not bound.
    pub(crate) fn take_met(&mut self, id: &NameId, version: u64) -> Option<Waiter> {
        let number = self.by_name.get(id)?.met(version)?;
        self.take(number)
    }

    /// Takes one whose time is up at `now`.
    pub(crate) fn take_late(&mut self, now: Instant) -> Option<Waiter> {
        let &(at, number) = self.by_deadline.first()?;
        if at <= now { self.take(number) } else { None }
    }

    /// Takes one of `connection`.
    pub(crate) fn take_of(&mut self, connection: ConnectionId) -> Option<Waiter> {
        let &number = self.by_connection.get(&connection)?.first()?;
        self.take(number)
    }

    /// Takes any.
    pub(crate) fn take_any(&mut self) -> Option<Waiter> {
        let &number = self.by_number.keys().next()?;
        self.take(number)
    }

    fn take(&mut self, number: u64) -> Option<Waiter> {
        let (id, waiter) = self.by_number.remove(&number)?;
        if let Some(of_name) = self.by_name.get_mut(&id) {
            of_name.entries(waiter.until).remove(&(known(waiter.until), number));
            if of_name.above.is_empty() && of_name.not.is_empty() {
                self.by_name.remove(&id);
            }
        }
        if let Some(at) = waiter.deadline {
            self.by_deadline.remove(&(at, number));
        }
        let connection = waiter.reply_to.connection;
        if let Some(of_connection) = self.by_connection.get_mut(&connection) {
            of_connection.remove(&number);
            if of_connection.is_empty() {
                self.by_connection.remove(&connection);
            }
        }
        Some(waiter)
    }
}

impl Known {
    fn entries(&mut self, until: Until) -> &mut BTreeSet<(u64, u64)> {
        match until {
            Until::Above(_) => &mut self.above,
            Until::Not(_) => &mut self.not,
        }
    }

    /// The number of one that is met by `version`: the one that knows the lowest version, or for those that wait for any
    /// other version the highest.
    fn met(&self, version: u64) -> Option<u64> {
        let above = self.above.first().filter(|&&(known, _)| version > known);
        let other = || {
            [self.not.first(), self.not.last()].into_iter().flatten().find(|&&(known, _)| known != version)
        };
        above.or_else(other).map(|&(_, number)| number)
    }
}

fn known(until: Until) -> u64 {
    match until {
        Until::Above(version) | Until::Not(version) => version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Held;
    use proptest::prelude::*;
    use std::time::Duration;

    #[derive(Clone, Debug)]
    enum Step {
        Add { name: u8, connection: u64, until: Until, deadline_ms: Option<u64> },
        Changed { name: u8, version: u64 },
        Ended { connection: u64 },
        Passed { ms: u64 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let until = prop_oneof![(0..4_u64).prop_map(Until::Above), (0..4_u64).prop_map(Until::Not)];
        let step = prop_oneof![
            3 => (0..3_u8, 0..3_u64, until, proptest::option::of(0..50_u64)).prop_map(
                |(name, connection, until, deadline_ms)| Step::Add { name, connection, until, deadline_ms }
            ),
            1 => (0..3_u8, 0..5_u64).prop_map(|(name, version)| Step::Changed { name, version }),
            1 => (0..3_u64).prop_map(|connection| Step::Ended { connection }),
            1 => (0..50_u64).prop_map(|ms| Step::Passed { ms }),
        ];
        proptest::collection::vec(step, 0..60)
    }

    fn id(name: u8) -> NameId {
        NameId::from_bytes([name; 32])
    }

    proptest! {
        /// Against a plain list that is looked through from end to end.
        #[test]
        fn each_wait_ends_once_and_for_its_own_reason(steps in steps()) {
            let start = Instant::now();
            let at = |ms| start + Duration::from_millis(ms);
            let (mut waits, mut list) = (Waits::default(), Vec::<(u8, Waiter)>::new());
            for (request_id, step) in (0..).zip(steps) {
                let mut ended = Vec::new();
                let expected: Vec<u64> = match step {
                    Step::Add { name, connection, until, deadline_ms } => {
                        let reply_to = ReplyTo { connection: ConnectionId(connection), request_id, held: Held::default() };
                        let waiter = Waiter { reply_to, until, deadline: deadline_ms.map(at) };
                        waits.add(id(name), waiter);
                        list.push((name, waiter));
                        Vec::new()
                    }
                    Step::Changed { name, version } => {
                        ended.extend(std::iter::from_fn(|| waits.take_met(&id(name), version)));
                        take(&mut list, |known, waiter| known == name && waiter.until.has_come(version))
                    }
                    Step::Ended { connection } => {
                        let connection = ConnectionId(connection);
                        ended.extend(std::iter::from_fn(|| waits.take_of(connection)));
                        take(&mut list, |_, waiter| waiter.reply_to.connection == connection)
                    }
                    Step::Passed { ms } => {
                        ended.extend(std::iter::from_fn(|| waits.take_late(at(ms))));
                        take(&mut list, |_, waiter| waiter.deadline.is_some_and(|deadline| deadline <= at(ms)))
                    }
                };
                let mut ended: Vec<u64> = ended.iter().map(|waiter| waiter.reply_to.request_id).collect();
                ended.sort_unstable();
                prop_assert_eq!(ended, expected);
                prop_assert_eq!(waits.len(), list.len());
                prop_assert_eq!(waits.next_deadline(), list.iter().filter_map(|(_, waiter)| waiter.deadline).min());
                for name in 0..3 {
                    prop_assert_eq!(waits.has(&id(name)), list.iter().any(|&(known, _)| known == name));
                }
            }
            while waits.take_any().is_some() {}
            prop_assert!(waits.by_name.is_empty() && waits.by_connection.is_empty() && waits.by_deadline.is_empty());
        }
    }

    fn take(list: &mut Vec<(u8, Waiter)>, ends: impl Fn(u8, &Waiter) -> bool) -> Vec<u64> {
        list.extract_if(.., |(name, waiter)| ends(*name, waiter))
            .map(|(_, waiter)| waiter.reply_to.request_id)
            .collect()
    }
}

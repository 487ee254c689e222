//! Learns that were refused: counted by reason and namespace, and logged.
//!
//! A store that is full refuses thousands of learns in a second, so of each reason one line a second is logged, which
//! says how many were not. Namespaces that a client makes up cost memory, so only some of them are counted by name.
//!
//! `State` notes a learn here when it answers with a failure. `request/operator.rs` reads the counts for statistics.

use crate::log::Throttle;
use plasmon_protocol::{
    message::{Failure, RefusedLearns},
    name::Namespace,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

/// Namespaces that are counted by name. What is refused in others is counted without one.
const NAMESPACES_MAX: usize = 100;

/// What was refused since the start.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    learns: u64,
    /// By reason and namespace; `None` where it is not known, or one of too many.
    counts: BTreeMap<(&'static str, Option<Namespace>), u64>,
    namespaces: BTreeSet<Namespace>,
    logged: BTreeMap<&'static str, Throttle>,
}

/// What is to be logged: so many more were refused for the same reason since the line before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) reason: &'static str,
    pub(crate) unlogged: u64,
}

impl Refusals {
    /// Counts a learn into `namespace`, where that is known, that was refused at `now`. Returns what is to be logged, if
    /// anything is.
    pub(crate) fn note(
        &mut self,
        namespace: Option<&Namespace>,
        failure: &Failure,
        now: Instant,
    ) -> Option<Line> {
        let reason = reason(failure)?;
        self.learns += 1;
        let namespace = namespace.filter(|&namespace| {
            self.namespaces.contains(namespace)
                || self.namespaces.len() < NAMESPACES_MAX && self.namespaces.insert(namespace.clone())
        });
        *self.counts.entry((reason, namespace.cloned())).or_default() += 1;
        let unlogged = self.logged.entry(reason).or_default().pass(now)?;
        Some(Line { reason, unlogged })
    }

    /// All that were refused.
    pub(crate) fn learns(&self) -> u64 {
        self.learns
    }

    /// How many were refused, by reason and namespace.
    pub(crate) fn list(&self) -> Vec<RefusedLearns> {
        let each = self.counts.iter().map(|((reason, namespace), &learns)| RefusedLearns {
            reason: (*reason).to_owned(),
            namespace: namespace.clone(),
            learns,
        });
        each.collect()
    }
}

/// A word for why a learn was refused. `None` for what is an answer and no refusal: a condition that does not hold is
/// what its caller asked about; and where nobody is there any more, or the store stops, nobody is refused.
fn reason(failure: &Failure) -> Option<&'static str> {
    Some(match failure {
        Failure::StoreFull(_) | Failure::FullOfPast(_) => {
            let is_of_machine = failure.no_room().is_some_and(|room| room.populated_bytes.is_some());
            if is_of_machine { "machine_full" } else { "store_full" }
        }
        Failure::TooManyKept { .. } => "too_many_kept",
        Failure::IndexFull { .. } => "index_full",
        Failure::TooLarge { .. } => "too_large",
        Failure::TooMany { .. } => "too_many",
        Failure::BadLease { .. } => "bad_lease",
        Failure::IdTaken { .. } => "id_taken",
        Failure::NamedTwice { .. } => "named_twice",
        Failure::UnknownNamespace { .. } => "unknown_namespace",
        Failure::DefaultNamespace => "default_namespace",
        Failure::Malformed { .. } => "malformed",
        Failure::Internal { .. } => "internal",
        Failure::ConditionFailed { .. }
        | Failure::ConditionsFailed { .. }
        | Failure::NotBound { .. }
        | Failure::ShuttingDown
        | Failure::UnknownSession => {
            return None;
        }
        _ => "other",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn namespace(number: usize) -> Namespace {
        Namespace::new(&format!("space-{number}")).unwrap()
    }

    fn index_full() -> Failure {
        Failure::IndexFull { requested: 1, used: 2, limit: 2 }
    }

    #[test]
    fn each_reason_is_logged_once_a_second_and_all_are_counted() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let mut note = |ms, failure: &Failure| {
            refusals.note(Some(&namespace(1)), failure, start + Duration::from_millis(ms))
        };
        let line = |reason, unlogged| Some(Line { reason, unlogged });
        assert_eq!(note(0, &index_full()), line("index_full", 0));
        assert_eq!(note(999, &index_full()), None);
        assert_eq!(note(999, &Failure::DefaultNamespace), line("default_namespace", 0));
        assert_eq!(note(999, &index_full()), None);
        assert_eq!(note(1_000, &index_full()), line("index_full", 2));
        assert_eq!(note(2_000, &index_full()), line("index_full", 0));
        assert_eq!(refusals.learns(), 6);
        let counts: Vec<_> = refusals.list().into_iter().map(|it| (it.reason, it.learns)).collect();
        assert_eq!(counts, [("default_namespace".to_owned(), 1), ("index_full".to_owned(), 5)]);
    }

    #[test]
    fn namespaces_that_are_made_up_are_bounded() {
        let mut refusals = Refusals::default();
        for number in 0..NAMESPACES_MAX + 7 {
            refusals.note(Some(&namespace(number)), &index_full(), Instant::now());
        }
        refusals.note(Some(&namespace(0)), &index_full(), Instant::now());
        let list = refusals.list();
        assert_eq!(list.len(), NAMESPACES_MAX + 1);
        let of = |wanted| list.iter().find(|it| it.namespace == wanted).map(|it| it.learns);
        assert_eq!((of(Some(namespace(0))), of(None)), (Some(2), Some(7)));
    }

    #[test]
    fn an_answer_is_no_refusal() {
        let mut refusals = Refusals::default();
        let namespace = Namespace::default();
        assert_eq!(refusals.note(Some(&namespace), &Failure::ShuttingDown, Instant::now()), None);
        assert_eq!((refusals.learns(), refusals.list().len()), (0, 0));
    }
}

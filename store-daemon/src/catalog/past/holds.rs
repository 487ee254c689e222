//! Moments that somebody keeps: labels and views.
//!
//! A *label* keeps the moment of some namespaces until it is dropped: a snapshot. A *view* keeps that of all of them, or,
//! of a label, that of the label's, until its session ends. There is no other difference. [`Past`](super::Past) asks which moments are kept; requests in
//! `request/past.rs` make, list and end them.

use crate::session::SessionId;
use plasmon_protocol::name::{Label, Namespace};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A moment, and when it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The number of the last change that it shows.
    pub(crate) version: u64,
    /// By CLOCK_BOOTTIME: what had expired by then is absent from it, unbound or not.
    pub(crate) taken_ns: u64,
}

/// A snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) moment: Moment,
    /// CLOCK_REALTIME, in nanoseconds.
    pub(crate) created_ns: u64,
    pub(crate) namespaces: BTreeSet<Namespace>,
    /// Names and bytes that were bound in them then.
    pub(crate) names: u64,
    pub(crate) bytes: u64,
    /// Who made it: pid and uid.
    pub(crate) made_by: (u32, u32),
}

/// What a session keeps.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) session: SessionId,
    pub(crate) moment: Moment,
    /// Of which namespaces; `None` is all.
    pub(crate) namespaces: Option<Arc<BTreeSet<Namespace>>>,
    /// CLOCK_REALTIME, in nanoseconds.
    pub(crate) began_ns: u64,
}

/// A set of moments, each as often as it is kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Moments(BTreeMap<u64, u32>);

impl Moments {
    pub(super) fn add(&mut self, moment: u64) {
        *self.0.entry(moment).or_default() += 1;
    }

    pub(super) fn remove(&mut self, moment: u64) {
        let Some(count) = self.0.get_mut(&moment) else { return };
        *count -= 1;
        if *count == 0 {
            self.0.remove(&moment);
        }
    }

    pub(super) fn contains(&self, moment: u64) -> bool {
        self.0.contains_key(&moment)
    }

    /// The last one from `born` on that is before `end`; 0 if there is none.
    pub(super) fn last_between(&self, born: u64, end: u64) -> u64 {
        if born >= end {
            return 0;
        }
        self.0.range(born..end).next_back().map_or(0, |(&moment, _)| moment)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// All labels and views.
#[derive(Debug, Default)]
pub(super) struct Holds {
    pub(super) labels: BTreeMap<Label, Snapshot>,
    pub(super) views: BTreeMap<u64, View>,
    by_session: BTreeSet<(SessionId, u64)>,
    /// The moments that are held of all namespaces.
    pub(super) of_all: Moments,
    last_view: u64,
}

impl Holds {
    /// Returns the view's number.
    pub(super) fn add_view(&mut self, view: View) -> u64 {
        self.last_view += 1;
        self.by_session.insert((view.session, self.last_view));
        self.views.insert(self.last_view, view);
        self.last_view
    }

    pub(super) fn remove_view(&mut self, number: u64) -> Option<View> {
        let view = self.views.remove(&number)?;
        self.by_session.remove(&(view.session, number));
        Some(view)
    }

    /// A view of `session`.
    pub(super) fn first_of(&self, session: SessionId) -> Option<u64> {
        self.by_session.range((session, 0)..=(session, u64::MAX)).next().map(|&(_, number)| number)
    }

    pub(super) fn count_of(&self, session: SessionId) -> usize {
        self.by_session.range((session, 0)..=(session, u64::MAX)).count()
    }
}

//! The first look at a commit's bytes: whether they can be read, and what they ask for.
//!
//! `CommitJob::prepare` runs this stage first, before the commit takes any room.

use super::{Entries, Lists, Stage, Step, place::Placing};
use crate::{allocator::GRANULE_BYTES, slice::Slice};
use bytes::Bytes;
use plasmon_protocol::{
    codec::DecodeError,
    message::{Change, Commit, Condition, Failure, Payload},
    name::Namespace,
};

/// What is known of a commit's changes once they were read.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// Bytes of the payloads that came in the message.
    pub(super) inline_bytes: u64,
    /// The namespace of the first name that it binds, if it binds any.
    pub(super) learns_in: Option<Namespace>,
    /// Whether a change unbinds names.
    pub(super) unbinds: bool,
    /// The leases that end with the commit.
    pub(super) end_leases: Vec<u64>,
}

/// The conditions are read.
#[derive(Debug)]
pub(super) struct ReadingConditions {
    body_bytes: usize,
    conditions: Entries<Condition>,
}

/// The changes are read.
#[derive(Debug)]
pub(super) struct ReadingChanges {
    lists: Box<Lists>,
    /// Bytes of extents that the payloads need which came in the message.
    unplaced_bytes: u64,
}

pub(super) fn malformed(error: &DecodeError) -> Failure {
    Failure::Malformed { reason: error.to_string() }
}

fn refused(error: &DecodeError) -> Step {
    Step::Next(Stage::Abandoning(Vec::new(), Box::new(malformed(error))))
}

impl ReadingConditions {
    pub(super) fn begin(body: Bytes) -> Result<Self, DecodeError> {
        let body_bytes = body.len();
        Ok(ReadingConditions { body_bytes, conditions: Entries::new(Commit::conditions(body)?, body_bytes) })
    }

    #[inline]
    pub(super) fn run(mut self, slice: &mut Slice) -> Step {
        while slice.spend() {
            match self.conditions.read() {
                Ok(Some(_)) => {}
                Ok(None) => {
                    return match Commit::changes(self.conditions.rest()) {
                        Ok(changes) => {
                            let changes = Entries::new(changes, self.body_bytes);
                            let lists = Box::new(Lists { conditions: self.conditions, changes });
                            Step::Next(Stage::ReadingChanges(ReadingChanges { lists, unplaced_bytes: 0 }))
                        }
                        Err(error) => refused(&error),
                    };
                }
                Err(error) => return refused(&error),
            }
        }
        Step::NoTime(Stage::ReadingConditions(self))
    }
}

impl ReadingChanges {
    #[inline]
    pub(super) fn run(mut self, summary: &mut Summary, slice: &mut Slice) -> Step {
        while slice.spend() {
            match self.lists.changes.read() {
                Ok(Some(change)) => self.note(summary, &change),
                Ok(None) => {
                    return match Commit::end_leases(self.lists.changes.rest()) {
                        Ok(end_leases) => {
                            summary.end_leases = end_leases;
                            let placing = Placing::begin(self.lists, self.unplaced_bytes);
                            Step::Next(Stage::Placing(placing))
                        }
                        Err(error) => refused(&error),
                    };
                }
                Err(error) => return refused(&error),
            }
        }
        Step::NoTime(Stage::ReadingChanges(self))
    }

    fn note(&mut self, summary: &mut Summary, change: &Change) {
        match change {
            Change::Bind(bind) | Change::BindEphemeral(bind) | Change::Replace(bind) => {
                summary.learns_in.get_or_insert_with(|| bind.namespace.clone());
                if let Payload::Inline { bytes } = &bind.payload {
                    summary.inline_bytes += bytes.len() as u64;
                    self.unplaced_bytes += (bytes.len() as u64).next_multiple_of(GRANULE_BYTES);
                }
            }
            Change::SameAs(same) => {
                summary.learns_in.get_or_insert_with(|| same.namespace.clone());
            }
            Change::RegisterNamespace { .. }
            | Change::DeclareNamespace { .. }
            | Change::DeclareHistory { .. }
            | Change::PurgeHistory { .. }
            | Change::EnsureCache { .. } => {}
            Change::RestoreNamespace { .. }
            | Change::Unbind { .. }
            | Change::RemoveNamespace { .. }
            | Change::RemoveEmptyNamespace { .. }
            | Change::ClearNamespace { .. } => summary.unbinds = true,
        }
    }
}

//! The bindings whose objects a commit binds other names to.
//!
//! `checks.rs` resolves them, against the state right before the commit. `apply.rs` holds their objects before it changes
//! anything, because the commit itself may unbind or replace a source: a name can be moved, and two names swapped.

use crate::{
    catalog::{Kept, Record, Text},
    objects::ObjectNumber,
    session::SessionId,
};
use plasmon_protocol::{index::Entry, message::Ttl};

/// What a binding hands on to another name.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) entry: Entry,
    pub(super) object: Option<ObjectNumber>,
    pub(super) object_uuid: [u8; 16],
    pub(super) writer_pid: u32,
    pub(super) description: Text,
    pub(super) metadata: Text,
    pub(super) ttl: Option<Ttl>,
    pub(super) owner: Option<SessionId>,
}

impl Source {
    pub(super) fn of(record: &Record) -> Source {
        Source {
            entry: record.entry,
            object: record.object,
            object_uuid: record.object_uuid,
            writer_pid: record.writer_pid,
            description: record.description.clone(),
            metadata: record.metadata.clone(),
            ttl: record.ttl.clone(),
            owner: record.owner,
        }
    }

    /// What a binding that has ended hands on: no deadline, and no session that it ends with.
    pub(super) fn of_kept(kept: &Kept) -> Source {
        Source {
            entry: Entry { expires_ns: 0, ..kept.entry },
            object: kept.object,
            object_uuid: kept.object_uuid,
            writer_pid: kept.writer_pid,
            description: kept.description.clone(),
            metadata: kept.metadata.clone(),
            ttl: None,
            owner: None,
        }
    }

    /// As if it had ended already.
    pub(super) fn without_end(mut self) -> Source {
        (self.entry.expires_ns, self.ttl, self.owner) = (0, None, None);
        self
    }
}

/// What a commit has to know whose changes bind names to objects that are there. Most commits have none.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// What the changes that name another name found there.
    pub(super) sources: Sources,
    /// How many of the sources have been used.
    pub(super) used: usize,
    /// Whether a change names an earlier one.
    pub(super) refers: bool,
    /// The objects that the changes before have made, if one does.
    pub(super) made: Vec<Option<ObjectNumber>>,
}

/// Sources that are allocated together, so that none moves when there are more.
const CHUNK: usize = 1_024;

/// The sources of a commit, in the order of the changes that name them.
#[derive(Debug, Default)]
pub(super) struct Sources {
    chunks: Vec<Vec<Source>>,
}

impl Sources {
    pub(super) fn push(&mut self, source: Source) {
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(source),
            _ => {
                let mut chunk = Vec::with_capacity(if self.chunks.is_empty() { 1 } else { CHUNK });
                chunk.push(source);
                self.chunks.push(chunk);
            }
        }
    }

    /// The source that comes `at` this place.
    pub(super) fn get(&self, at: usize) -> Option<&Source> {
        self.chunks.get(at / CHUNK)?.get(at % CHUNK)
    }
}

//! Bindings that lost their name, and are kept.
//!
//! [`Past`](super::Past) keeps them; `Catalog` and the requests in `request/past.rs` look at them.

use super::PastId;
use crate::{
    catalog::{End, Text},
    objects::ObjectNumber,
};
use plasmon_protocol::index::Entry;
use std::sync::Arc;

/// A binding that has ended.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(in crate::catalog) of: PastId,
    pub(crate) name: Arc<str>,
    /// What the index showed, with the version that it was born with.
    pub(crate) entry: Entry,
    /// Its object, which it holds; `None` if its value stands in the entry.
    pub(crate) object: Option<ObjectNumber>,
    pub(crate) object_uuid: [u8; 16],
    pub(crate) writer_pid: u32,
    /// Who made the binding: pid and uid.
    pub(crate) bound_by: (u32, u32),
    pub(crate) description: Text,
    pub(crate) metadata: Text,
    pub(crate) end: End,
    /// Bytes that its successor does not show: what it costs history.
    pub(in crate::catalog) bytes: u64,
    /// The last moment that somebody holds at which it was bound; 0 if nobody does.
    pub(in crate::catalog) held_at: u64,
    /// Which of all kept bindings it is, in the order in which they were kept.
    pub(in crate::catalog) sequence: u64,
    /// Whether history wants it.
    pub(crate) in_history: bool,
}

impl Kept {
    /// The version that it was born with.
    pub(crate) fn born(&self) -> u64 {
        self.entry.version
    }

    /// Whether its name meant it at `moment`.
    pub(crate) fn was_bound_at(&self, moment: u64) -> bool {
        self.born() <= moment && moment < self.end.version
    }

    /// Where it stands among all that history wants.
    pub(super) fn place_in_history(&self) -> (u64, u64) {
        (self.end.version, self.sequence)
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.held_at != 0 || self.in_history
    }

    pub(crate) fn text_bytes(&self) -> u64 {
        (self.description.len() + self.metadata.len()) as u64
    }
}

/// Kept bindings that are allocated together, so that none moves when there are more.
const CHUNK: usize = 1_024;

/// Kept bindings by number. A number is used again once its binding is gone.
#[derive(Debug, Default)]
pub(super) struct Slab {
    chunks: Vec<Vec<Option<Kept>>>,
    free: Vec<u32>,
}

impl Slab {
    pub(super) fn insert(&mut self, kept: Kept) -> u32 {
        if let Some(number) = self.free.pop() {
            let (chunk, at) = place(number);
            self.chunks[chunk][at] = Some(kept);
            return number;
        }
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(Some(kept)),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(Some(kept));
                self.chunks.push(chunk);
            }
        }
        let len = self.chunks.last().map_or(0, Vec::len) + (self.chunks.len() - 1) * CHUNK;
        u32::try_from(len - 1).expect("their number is bounded by that of index entries")
    }

    pub(super) fn get(&self, number: u32) -> Option<&Kept> {
        let (chunk, at) = place(number);
        self.chunks.get(chunk)?.get(at)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Kept> {
        let (chunk, at) = place(number);
        self.chunks.get_mut(chunk)?.get_mut(at)?.as_mut()
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<Kept> {
        let (chunk, at) = place(number);
        let kept = self.chunks.get_mut(chunk)?.get_mut(at)?.take()?;
        self.free.push(number);
        Some(kept)
    }
}

fn place(number: u32) -> (usize, usize) {
    let at = plasmon_protocol::index_of(number.into());
    (at / CHUNK, at % CHUNK)
}

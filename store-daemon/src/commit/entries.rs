//! The lists of a commit, which every stage goes through anew.
//!
//! A short list is decoded once. A long one is never decoded as a whole: each stage reads it anew, from memory that only
//! the daemon has. That costs less than to keep a million decoded changes, and to free them.
//!
//! The stages in `read.rs`, `checks.rs`, `apply.rs` and `mod.rs` go through these lists.

use super::LARGE_BYTES;
use bytes::Bytes;
use plasmon_protocol::{
    codec::{BoundedList, Codec, DecodeError, ListReader},
    message::Commit,
    name::NAMESPACE_BYTES_MIN,
};
use std::sync::Arc;

/// A list of a commit, and how far a stage has gone through it.
#[derive(Debug)]
pub(super) struct Entries<T> {
    start: ListReader<T>,
    rest: ListReader<T>,
    /// The entries as far as they were read, if the list is short.
    kept: Option<Vec<Arc<T>>>,
    at: usize,
}

/// Lists of at most so many entries are decoded once.
const KEPT_ENTRIES_MAX: usize = 1_024;

/// No entry of a commit is shorter: a change with the shortest namespace, and nothing besides.
const ENTRY_BYTES_MIN: usize = 1 + 4 + NAMESPACE_BYTES_MIN;

/// Whether a list that claims so many entries is decoded once.
fn is_short(claimed: usize, body_bytes: usize) -> bool {
    claimed <= KEPT_ENTRIES_MAX && body_bytes < LARGE_BYTES
}

/// At most so many entries of a commit are kept decoded. `body` is its body, which nobody has looked at yet.
pub(crate) fn kept_entries_max(body: &Bytes) -> usize {
    if !is_short(0, body.len()) {
        return 0;
    }
    let room = body.len() / ENTRY_BYTES_MIN;
    let kept = |claimed: usize| if is_short(claimed, body.len()) { claimed.min(room) } else { 0 };
    let Ok(conditions) = Commit::conditions(body.clone()) else { return 0 };
    match conditions.left() {
        0 => Commit::changes(conditions).map_or(0, |changes| kept(changes.left())),
        // Behind conditions, nobody knows yet how many changes there are.
        claimed => kept(claimed) + KEPT_ENTRIES_MAX.min(room),
    }
}

impl<T: Codec + BoundedList + Clone> Entries<T> {
    /// A list that nobody has read yet, of a body of so many bytes.
    pub(super) fn new(start: ListReader<T>, body_bytes: usize) -> Self {
        let is_short = is_short(start.left(), body_bytes);
        let kept = is_short.then(|| Vec::with_capacity(start.left()));
        Entries { rest: start.clone(), kept, start, at: 0 }
    }

    /// Whether it is decoded once.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// How many entries it claims to have.
    pub(super) fn claimed(&self) -> usize {
        self.start.left()
    }

    /// How many entries this stage has seen.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The next entry of a list that nobody has read yet.
    pub(super) fn read(&mut self) -> Result<Option<Arc<T>>, DecodeError> {
        let entry = self.rest.read()?.map(Arc::new);
        if let Some(kept) = &mut self.kept {
            kept.extend(entry.clone());
        }
        Ok(entry)
    }

    /// What follows the list in the body, once all of it was read.
    pub(super) fn rest(&self) -> ListReader<T> {
        self.rest.clone()
    }

    /// Another stage begins to go through it.
    pub(super) fn rewind(&mut self) {
        self.at = 0;
        if self.kept.is_none() {
            self.rest = self.start.clone();
        }
    }

    /// The next entry of a list that was read to its end before.
    pub(super) fn again(&mut self) -> Option<Arc<T>> {
        let at = self.at;
        self.at += 1;
        match &self.kept {
            Some(kept) => kept.get(at).cloned(),
            None => {
                let entry = self.rest.read();
                entry.expect("every entry was read before, in memory that nobody else has").map(Arc::new)
            }
        }
    }

    /// How many entries are kept decoded.
    #[cfg(test)]
    pub(super) fn kept_len(&self) -> usize {
        self.kept.as_ref().map_or(0, Vec::len)
    }
}

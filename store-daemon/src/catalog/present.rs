//! What names are bound to now, and the shared index, which shows it to clients.
//!
//! The index is a mirror: the daemon writes it and never learns from it what a name is bound to. All that it takes from
//! the index is which entry has an id, because the index is a hash table and there is no need for a second one.
//!
//! `Catalog` calls this for every binding that it makes, changes, looks up or removes. `cached.rs` notes here where a
//! binding is queued.

use super::{Cached, NamespaceId};
use crate::{objects::ObjectNumber, session::SessionId};
use plasmon_protocol::{
    id::NameId,
    index::{Entry, IndexWriter},
    layout::IndexShape,
    message::Ttl,
};
use plasmon_shm::WordsMapping;
use std::sync::Arc;

/// A description or metadata. Bindings that were made of one another share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text(Option<Arc<str>>);

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text((!text.is_empty()).then(|| text.into()))
    }
}

impl std::ops::Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

/// What a name is bound to.
#[derive(Debug)]
pub(crate) struct Record {
    pub(super) namespace: NamespaceId,
    pub(crate) name: Arc<str>,
    /// What the index shows to clients.
    pub(crate) entry: Entry,
    /// The object, if that has a place in the arena: if not, the value stands in the entry.
    pub(crate) object: Option<ObjectNumber>,
    pub(crate) object_uuid: [u8; 16],
    /// Process that wrote the bytes; the entry has its uid.
    pub(crate) writer_pid: u32,
    /// Who made the binding: pid and uid. Never used for trust.
    pub(crate) bound_by: (u32, u32),
    pub(crate) description: Text,
    pub(crate) metadata: Text,
    /// The time to live of a binding that expires.
    pub(crate) ttl: Option<Ttl>,
    /// When it was learned, by CLOCK_BOOTTIME: what the entry says is for people, and goes by a clock that is set.
    pub(super) learned_ns: u64,
    /// The session that it ends with, if it does.
    pub(crate) owner: Option<SessionId>,
    /// Its place in the queue of cached bindings, if it has one.
    pub(super) queued: Option<Cached>,
}

impl Record {
    pub(super) fn text_bytes(&self) -> u64 {
        (self.description.len() + self.metadata.len()) as u64
    }

    /// Whether its time to live begins anew with each recall.
    pub(super) fn is_sliding(&self) -> bool {
        self.ttl.as_ref().is_some_and(|ttl| ttl.is_sliding)
    }
}

/// Records that are allocated together, so that none moves when there are more.
const CHUNK: usize = 1_024;

/// All bindings, by the number of their index entry.
#[derive(Debug)]
pub(super) struct Present {
    index: WordsMapping,
    writer: IndexWriter,
    /// Of [`CHUNK`] records each; the record of entry 1 stands first.
    chunks: Vec<Box<[Option<Record>]>>,
    len: u64,
}

impl Present {
    /// No binding, over a fresh index region.
    pub(super) fn new(
        index: WordsMapping,
        shape: IndexShape,
        store_uuid: [u8; 16],
        capacity_bytes: u64,
    ) -> Self {
        let writer = IndexWriter::prepare(index.words(), shape, store_uuid, capacity_bytes);
        Present { index, writer, chunks: Vec::new(), len: 0 }
    }

    /// Names bound.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Index entries not in use.
    pub(super) fn room(&self) -> u64 {
        self.writer.room().into()
    }

    /// The binding of the name with this id, and the number of its entry.
    pub(super) fn find(&self, id: &NameId) -> Option<(u32, &Record)> {
        let number = self.writer.find(self.index.words(), id)?;
        Some((number, self.get(number)?))
    }

    /// The binding in entry `number`.
    pub(super) fn get(&self, number: u32) -> Option<&Record> {
        let (chunk, at) = place(number);
        self.chunks.get(chunk)?[at].as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Record> {
        let (chunk, at) = place(number);
        self.chunks.get_mut(chunk)?[at].as_mut()
    }

    /// Binds a name that is not bound, for which there is room. Returns the number of its entry.
    pub(super) fn insert(&mut self, id: &NameId, record: Record) -> u32 {
        let number = self.writer.insert(self.index.words(), id, &record.entry);
        let number = number.expect("room was counted before");
        let (chunk, at) = place(number);
        while self.chunks.len() <= chunk {
            self.chunks.push((0..CHUNK).map(|_| None).collect());
        }
        self.chunks[chunk][at] = Some(record);
        self.len += 1;
        number
    }

    /// Binds the name in entry `number` anew. Returns what it was bound to.
    pub(super) fn replace(&mut self, id: &NameId, number: u32, record: Record) -> Record {
        self.writer.replace(self.index.words(), id, number, &record.entry);
        let bound = self.get_mut(number).expect("a name that is bound anew has a record");
        std::mem::replace(bound, record)
    }

    /// Moves the deadline of the binding in entry `number`.
    pub(super) fn set_expiry(&mut self, id: &NameId, number: u32, expires_ns: u64) {
        let Some(record) = self.get_mut(number) else { return };
        record.entry.expires_ns = expires_ns;
        let entry = record.entry;
        self.writer.replace(self.index.words(), id, number, &entry);
    }

    /// Unbinds the name with this id.
    pub(super) fn remove(&mut self, id: &NameId) -> Option<Record> {
        let number = self.writer.remove(self.index.words(), id)?;
        let (chunk, at) = place(number);
        self.len -= 1;
        self.chunks.get_mut(chunk)?[at].take()
    }

    /// Begins to make a commit of several names visible.
    pub(super) fn open_epoch(&self) {
        self.writer.open_epoch(self.index.words());
    }

    /// All of the commit is visible.
    pub(super) fn close_epoch(&self) {
        self.writer.close_epoch(self.index.words());
    }

    /// Tells all readers that the store has shut down; nothing can be found in the index any more.
    pub(super) fn close(&mut self) {
        self.writer.close(self.index.words());
    }
}

/// In which chunk the record of entry `number` (counted from 1) stands, and where in it.
fn place(number: u32) -> (usize, usize) {
    let at = plasmon_protocol::index_of(u64::from(number) - 1);
    (at / CHUNK, at % CHUNK)
}

//! The daemon's own record of namespaces, names and what they are bound to. The shared index mirrors it.

use crate::recalls::{CollectJob, Recalls};
use plasmon_protocol::{
    id::{NameId, NamespacePrefix, ObjectId},
    index::{Entry, IndexWriter},
    layout::{IndexShape, WORD_BYTES},
    message::{BindingInfo, NamespaceInfo},
    name::{Name, Namespace},
    object::Header,
};
use plasmon_shm::WordsMapping;
use std::{collections::BTreeMap, ops::Bound, sync::Arc};

/// A namespace's number, unique while the daemon lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NamespaceId(u64);

/// A namespace or a name has the id of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdTaken {
    pub(crate) holder: String,
}

/// What a name is bound to, beyond what its index entry says.
#[derive(Debug)]
pub(crate) struct Record {
    namespace: NamespaceId,
    name: Arc<str>,
    object_uuid: [u8; 16],
    pub(crate) writer_pid: u32,
    pub(crate) description: Box<str>,
    pub(crate) metadata: Box<str>,
}

impl Record {
    fn text_bytes(&self) -> u64 {
        (self.description.len() + self.metadata.len()) as u64
    }
}

/// A binding about to be made.
#[derive(Debug)]
pub(crate) struct NewBinding {
    pub(crate) version: u64,
    pub(crate) offset: u64,
    pub(crate) len_bytes: u64,
    pub(crate) created_ns: u64,
    pub(crate) object_uuid: [u8; 16],
    pub(crate) writer_pid: u32,
    pub(crate) writer_uid: u32,
    pub(crate) header: Header,
    /// `None` keeps the description of the binding before.
    pub(crate) description: Option<String>,
    /// `None` keeps the metadata of the binding before.
    pub(crate) metadata: Option<String>,
}

/// A binding that was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundTo {
    /// Number of its index entry.
    pub(crate) number: u32,
    /// Offset of the object that the name was bound to before.
    pub(crate) replaced: Option<u64>,
}

#[derive(Debug)]
struct NamespaceState {
    namespace: Namespace,
    names: BTreeMap<Arc<str>, u32>,
    bytes: u64,
}

/// Namespaces, names and bindings, and the index that shows them to clients.
#[derive(Debug)]
pub(crate) struct Catalog {
    index: WordsMapping,
    writer: IndexWriter,
    /// Parallel to the index's pool: the record of entry `number` stands at `number - 1`.
    records: Vec<Option<Record>>,
    by_name: BTreeMap<Namespace, NamespaceId>,
    by_prefix: BTreeMap<NamespacePrefix, NamespaceId>,
    namespaces: BTreeMap<NamespaceId, NamespaceState>,
    next_namespace: u64,
    objects: u64,
    objects_max: u32,
    pub(crate) recalls: Arc<Recalls>,
    /// Rounds of collecting recalls begun.
    rounds: u64,
    namespaces_max: u64,
    /// Bytes of all descriptions and metadata.
    text_bytes: u64,
    text_bytes_max: u64,
}

impl Catalog {
    /// An empty catalog, which holds the namespace `default`, over a fresh index region.
    pub(crate) fn new(
        index: WordsMapping,
        shape: IndexShape,
        store_uuid: [u8; 16],
        capacity_bytes: u64,
    ) -> Self {
        let writer = IndexWriter::prepare(index.words(), shape, store_uuid, capacity_bytes);
        let mut catalog = Catalog {
            index,
            writer,
            records: Vec::new(),
            by_name: BTreeMap::new(),
            by_prefix: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            next_namespace: 0,
            objects: 0,
            objects_max: shape.entry_count(),
            recalls: Arc::new(Recalls::new(shape.entry_count())),
            rounds: 0,
            namespaces_max: u64::MAX,
            text_bytes: 0,
            text_bytes_max: u64::MAX,
        };
        catalog.register(&Namespace::default()).expect("an empty catalog has no other namespace");
        catalog
    }

    /// Bounds what it takes of the daemon's own memory, beside what the number of names bounds.
    pub(crate) fn with_limits(mut self, namespaces_max: u64, text_bytes_max: u64) -> Self {
        self.namespaces_max = namespaces_max;
        self.text_bytes_max = text_bytes_max;
        self
    }

    /// Whether `namespaces` more fit.
    ///
    /// # Errors
    /// The limit.
    pub(crate) fn check_namespaces(&self, namespaces: u64) -> Result<(), u64> {
        let fits = namespaces == 0 || self.namespace_count() + namespaces <= self.namespaces_max;
        if fits { Ok(()) } else { Err(self.namespaces_max) }
    }

    /// Whether descriptions and metadata that are so much longer, and shorter, than those before fit.
    ///
    /// # Errors
    /// The limit.
    pub(crate) fn check_texts(&self, longer_bytes: u64, shorter_bytes: u64) -> Result<(), u64> {
        let grows = longer_bytes > shorter_bytes;
        let fits = !grows || self.text_bytes + (longer_bytes - shorter_bytes) <= self.text_bytes_max;
        if fits { Ok(()) } else { Err(self.text_bytes_max) }
    }

    /// Length of an index region of `shape`, in bytes.
    pub(crate) fn index_bytes(shape: IndexShape) -> u64 {
        shape.words() as u64 * WORD_BYTES
    }

    /// Names bound, and how many can be.
    pub(crate) fn objects(&self) -> (u64, u64) {
        (self.objects, self.objects_max.into())
    }

    /// Number of namespaces.
    pub(crate) fn namespace_count(&self) -> u64 {
        self.by_name.len() as u64
    }

    /// Index entries not in use.
    pub(crate) fn room(&self) -> u64 {
        self.writer.room().into()
    }

    /// The number of a registered namespace.
    pub(crate) fn namespace(&self, namespace: &Namespace) -> Option<NamespaceId> {
        self.by_name.get(namespace).copied()
    }

    /// Names bound in a namespace.
    pub(crate) fn names_in(&self, namespace: NamespaceId) -> u64 {
        self.namespaces.get(&namespace).map_or(0, |state| state.names.len() as u64)
    }

    /// Makes sure that `namespace` exists.
    ///
    /// # Errors
    /// [`IdTaken`] if another namespace has its prefix.
    pub(crate) fn register(&mut self, namespace: &Namespace) -> Result<NamespaceId, IdTaken> {
        self.check_prefix(namespace)?;
        if let Some(id) = self.namespace(namespace) {
            return Ok(id);
        }
        let id = NamespaceId(self.next_namespace);
        self.next_namespace += 1;
        self.by_name.insert(namespace.clone(), id);
        self.by_prefix.insert(NamespacePrefix::new(namespace), id);
        let state = NamespaceState { namespace: namespace.clone(), names: BTreeMap::new(), bytes: 0 };
        self.namespaces.insert(id, state);
        Ok(id)
    }

    /// Whether `namespace` could be registered, or is.
    pub(crate) fn check_prefix(&self, namespace: &Namespace) -> Result<(), IdTaken> {
        match self.by_prefix.get(&NamespacePrefix::new(namespace)) {
            Some(id) if self.namespaces[id].namespace != *namespace => {
                Err(IdTaken { holder: self.namespaces[id].namespace.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// Removes an empty namespace.
    pub(crate) fn unregister(&mut self, id: NamespaceId) {
        if let Some(state) = self.namespaces.remove(&id) {
            debug_assert!(state.names.is_empty(), "its names are unbound first");
            self.by_name.remove(&state.namespace);
            self.by_prefix.remove(&NamespacePrefix::new(&state.namespace));
        }
    }

    /// The name that is first in `namespace`, for taking a namespace apart piece by piece.
    pub(crate) fn first_name(&self, namespace: NamespaceId) -> Option<Arc<str>> {
        self.namespaces.get(&namespace)?.names.first_key_value().map(|(name, _)| Arc::clone(name))
    }

    /// What `name` is bound to: the entry's number, its record and its entry.
    pub(crate) fn find(&self, namespace: NamespaceId, name: &str) -> Option<(u32, &Record, Entry)> {
        let number = *self.namespaces.get(&namespace)?.names.get(name)?;
        let entry = self.writer.read(self.index.words(), number)?;
        Some((number, self.record(number)?, entry))
    }

    /// As [`find`](Self::find), by the namespace's own name.
    pub(crate) fn find_in(&self, namespace: &Namespace, name: &str) -> Option<(u32, &Record, Entry)> {
        self.find(self.namespace(namespace)?, name)
    }

    /// Whether `name` could be bound in `namespace` as far as ids go.
    pub(crate) fn check_id(&self, namespace: &Namespace, name: &Name) -> Result<(), IdTaken> {
        self.check_prefix(namespace)?;
        let Some(number) = self.writer.find(self.index.words(), &NameId::new(namespace, name)) else {
            return Ok(());
        };
        match self.record(number) {
            Some(record) if *record.name != **name => Err(IdTaken { holder: record.name.to_string() }),
            _ => Ok(()),
        }
    }

    /// Binds `name`, whose ids were checked and for which there is room.
    pub(crate) fn bind(&mut self, namespace: NamespaceId, name: &Name, new: NewBinding) -> BoundTo {
        let entry = Entry {
            version: new.version,
            offset: new.offset,
            len_bytes: new.len_bytes,
            created_ns: new.created_ns,
            expires_ns: 0,
            writer_uid: new.writer_uid,
            header: new.header,
        };
        let known = self.find(namespace, name).map(|(number, _, before)| (number, before));
        let state = self.namespaces.get_mut(&namespace).expect("a commit registers its namespaces first");
        let id = NameId::new(&state.namespace, name);
        state.bytes += new.len_bytes;
        if let Some((number, before)) = known {
            state.bytes -= before.len_bytes;
            self.writer.replace(self.index.words(), &id, number, &entry);
            let record = self.records[slot(number)].as_mut().expect("a bound name has a record");
            record.object_uuid = new.object_uuid;
            record.writer_pid = new.writer_pid;
            let before_bytes = record.text_bytes();
            new.description.into_iter().for_each(|text| record.description = text.into());
            new.metadata.into_iter().for_each(|text| record.metadata = text.into());
            self.text_bytes = self.text_bytes - before_bytes + record.text_bytes();
            return BoundTo { number, replaced: Some(before.offset) };
        }
        let number = self.writer.insert(self.index.words(), &id, &entry).expect("room was counted before");
        let name: Arc<str> = name.as_str().into();
        state.names.insert(Arc::clone(&name), number);
        let record = Record {
            namespace,
            name,
            object_uuid: new.object_uuid,
            writer_pid: new.writer_pid,
            description: new.description.unwrap_or_default().into(),
            metadata: new.metadata.unwrap_or_default().into(),
        };
        self.text_bytes += record.text_bytes();
        if self.records.len() <= slot(number) {
            self.records.resize_with(slot(number) + 1, || None);
        }
        self.records[slot(number)] = Some(record);
        self.objects += 1;
        BoundTo { number, replaced: None }
    }

    /// Unbinds `name`. Returns what it was bound to.
    pub(crate) fn unbind(&mut self, namespace: NamespaceId, name: &str) -> Option<Entry> {
        let (number, _, entry) = self.find(namespace, name)?;
        let state = self.namespaces.get_mut(&namespace).expect("it was found there");
        state.names.remove(name);
        state.bytes -= entry.len_bytes;
        self.writer.remove(self.index.words(), &NameId::new(&state.namespace, name));
        let record = self.records[slot(number)].take();
        self.text_bytes -= record.map_or(0, |record| record.text_bytes());
        self.recalls.unbind(number, self.rounds);
        self.objects -= 1;
        Some(entry)
    }

    /// Begins to make a commit of several names visible.
    pub(crate) fn open_epoch(&self) {
        self.writer.open_epoch(self.index.words());
    }

    /// All of the commit is visible.
    pub(crate) fn close_epoch(&self) {
        self.writer.close_epoch(self.index.words());
    }

    /// Tells all readers that the store has shut down; nothing can be found in the index any more.
    pub(crate) fn close(&mut self) {
        self.writer.close(self.index.words());
    }

    /// What there is to know about one binding.
    pub(crate) fn info(&self, number: u32) -> Option<BindingInfo> {
        let record = self.record(number)?;
        let entry = self.writer.read(self.index.words(), number)?;
        let namespace = &self.namespaces.get(&record.namespace)?.namespace;
        Some(BindingInfo {
            namespace: namespace.clone(),
            name: Name::new(&record.name).ok()?,
            version: entry.version,
            object_id: *ObjectId::as_bytes(&NamespacePrefix::new(namespace).object_id(record.object_uuid)),
            len_bytes: entry.len_bytes,
            kind: entry.header.kind,
            created_ns: entry.created_ns,
            writer_pid: record.writer_pid,
            writer_uid: entry.writer_uid,
            recalled_ns: self.recalls.last(number).unwrap_or(0),
        })
    }

    /// Begins a round of collecting recalls from `regions`. One at a time.
    pub(crate) fn begin_round(&mut self, regions: Vec<Arc<WordsMapping>>) -> CollectJob {
        self.rounds += 1;
        CollectJob { round: self.rounds, recalls: Arc::clone(&self.recalls), regions }
    }

    /// `NAMESPACE/NAME` of a binding, for people.
    pub(crate) fn label(&self, number: u32) -> Option<String> {
        let record = self.record(number)?;
        Some(format!("{}/{}", self.namespaces.get(&record.namespace)?.namespace, record.name))
    }

    /// One page of the names of `namespace` that begin with `prefix`, in order, after `after`.
    pub(crate) fn page(
        &self,
        namespace: NamespaceId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<u32> {
        self.names_from(namespace, prefix, after).take(limit).map(|(_, number)| number).collect()
    }

    /// The names of `namespace` that begin with `prefix`, in order, after `after`; and their entries' numbers.
    pub(crate) fn names_from<'a>(
        &'a self,
        namespace: NamespaceId,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a str, u32)> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let state = self.namespaces.get(&namespace).into_iter();
        state
            .flat_map(move |state| state.names.range::<str, _>((start, Bound::Unbounded)))
            .take_while(move |(name, _)| name.starts_with(prefix))
            .map(|(name, &number)| (&**name, number))
    }

    /// The namespaces after `after`, in order.
    pub(crate) fn namespaces_after(&self, after: Option<&Namespace>) -> impl Iterator<Item = NamespaceInfo> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_name.range((start, Bound::Unbounded)).map(|(namespace, id)| {
            let state = &self.namespaces[id];
            NamespaceInfo {
                namespace: namespace.clone(),
                names: state.names.len() as u64,
                bytes: state.bytes,
            }
        })
    }

    /// The namespaces at and after `from`, in order, for listings over all of them.
    pub(crate) fn namespaces_from(
        &self,
        from: Option<&Namespace>,
    ) -> impl Iterator<Item = (&Namespace, NamespaceId)> {
        let start = from.map_or(Bound::Unbounded, Bound::Included);
        self.by_name.range((start, Bound::Unbounded)).map(|(namespace, &id)| (namespace, id))
    }

    fn record(&self, number: u32) -> Option<&Record> {
        self.records.get(slot(number))?.as_ref()
    }
}

/// Where the record of entry `number` (counted from 1) stands.
fn slot(number: u32) -> usize {
    plasmon_protocol::index_of(u64::from(number) - 1)
}

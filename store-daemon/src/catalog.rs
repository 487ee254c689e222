//! The daemon's own record of namespaces, names and what they are bound to. The shared index mirrors it.

use crate::{
    evict::Victim,
    recalls::{CollectJob, Recalls},
    session::SessionId,
    slice::Slice,
    standing::Cache,
};
use plasmon_protocol::{
    id::{NameId, NamespacePrefix, ObjectId},
    index::{Entry, IndexWriter},
    layout::{IndexShape, WORD_BYTES},
    limits::SLIDING_SLACK_NS,
    message::{BindingInfo, NamespaceInfo, Ttl},
    name::{Name, Namespace},
    object::Header,
};
use plasmon_shm::WordsMapping;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Nanoseconds since 1970, by the clock that people set: to be shown, never to be compared.
pub(crate) fn realtime_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

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
    /// The time to live of a binding that expires.
    ttl: Option<Ttl>,
    /// When it was learned, by CLOCK_BOOTTIME: what the index says is for people, and goes by a clock that is set.
    learned_ns: u64,
    /// The session that it ends with, if it does.
    owner: Option<SessionId>,
    /// Its place in the queue of cached bindings, if it has one.
    queued: Option<Cached>,
}

impl Record {
    fn text_bytes(&self) -> u64 {
        (self.description.len() + self.metadata.len()) as u64
    }
}

/// A binding about to be made.
#[derive(Debug)]
pub(crate) struct NewBinding<'a> {
    pub(crate) version: u64,
    pub(crate) offset: u64,
    pub(crate) len_bytes: u64,
    pub(crate) created_ns: u64,
    pub(crate) object_uuid: [u8; 16],
    pub(crate) writer_pid: u32,
    pub(crate) writer_uid: u32,
    pub(crate) header: Header,
    /// The moment of the commit, by CLOCK_BOOTTIME.
    pub(crate) now_ns: u64,
    /// `None` lives as long as the namespace has declared.
    pub(crate) ttl: Option<Ttl>,
    /// Whether a binding that it replaces hands on its time to live and its deadline.
    pub(crate) keeps_ttl: bool,
    /// The session that the binding ends with, if it does.
    pub(crate) owner: Option<SessionId>,
    /// `None` keeps the description of the binding before.
    pub(crate) description: Option<&'a str>,
    /// `None` keeps the metadata of the binding before.
    pub(crate) metadata: Option<&'a str>,
}

/// A place in the queue of cached bindings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
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
    /// Where the queue begins of values that stand in the index. The other one begins at the default.
    pub(crate) const FIRST_IN_INDEX: Cached = Cached { in_index: true, used_ns: 0, number: 0 };
}

/// A binding that was ended by the store itself: it had expired, gave way, or went with its session.
#[derive(Debug)]
pub(crate) struct Unbound {
    pub(crate) id: NameId,
    /// `NAMESPACE/NAME`.
    pub(crate) label: String,
    /// What the name was bound to.
    pub(crate) entry: Entry,
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

/// A binding that was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundTo {
    /// Number of its index entry.
    pub(crate) number: u32,
    /// Offset of the object that the name was bound to before, if that had an extent.
    pub(crate) replaced: Option<u64>,
}

#[derive(Debug)]
struct NamespaceState {
    namespace: Namespace,
    prefix: NamespacePrefix,
    names: BTreeMap<Arc<str>, u32>,
    /// Bytes of its objects, and of these those in the arena.
    bytes: u64,
    arena_bytes: u64,
    /// What was declared for it.
    is_cache: bool,
    ttl: Option<Ttl>,
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
    /// The operator's caches, and how long names live in them.
    standing: BTreeMap<Namespace, Option<Ttl>>,
    namespaces: BTreeMap<NamespaceId, NamespaceState>,
    next_namespace: u64,
    /// When bindings expire, and their index entries.
    deadlines: BTreeSet<(u64, u32)>,
    /// The sessions that bindings end with, and these bindings' index entries.
    ephemeral: BTreeSet<(SessionId, u32)>,
    /// The bindings of cache namespaces, and such as were in one. The least recently used is first, once the first ones
    /// have been looked at: [`next_cached`](Self::next_cached).
    cached: BTreeSet<Cached>,
    /// Bytes in the arena of the objects in cache namespaces.
    cached_bytes: u64,
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
            standing: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            next_namespace: 0,
            deadlines: BTreeSet::new(),
            ephemeral: BTreeSet::new(),
            cached: BTreeSet::new(),
            cached_bytes: 0,
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

    /// Has these caches for good: whatever is declared for them, and each time that they are registered.
    ///
    /// # Errors
    /// The namespace that has the id of another one.
    pub(crate) fn with_caches(mut self, caches: &[Cache]) -> Result<Self, (String, IdTaken)> {
        for Cache { namespace, ttl } in caches {
            self.standing.insert(namespace.clone(), ttl.clone());
            let id = self.register(namespace).map_err(|taken| (namespace.to_string(), taken))?;
            self.declare(id, true, ttl.clone()); // `default` is there already
        }
        Ok(self)
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

    /// Names bound in a namespace at `now_ns`. Names that have expired are no names; where very many of them still take
    /// room, they count.
    pub(crate) fn living_names_in(&self, namespace: NamespaceId, now_ns: u64) -> u64 {
        const LOOKED_AT_MAX: usize = 1_024;
        let names = self.names_in(namespace);
        if names > LOOKED_AT_MAX as u64 || self.next_expiry().is_none_or(|at| at > now_ns) {
            return names;
        }
        self.names_from(namespace, "", None, now_ns).count() as u64
    }

    /// Makes sure that a namespace is a cache, as [`declare`](Self::declare).
    pub(crate) fn ensure_cache(&mut self, id: NamespaceId) -> bool {
        let ttl = self.namespaces.get(&id).and_then(|state| state.ttl.clone());
        self.declare(id, true, ttl)
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
        let prefix = NamespacePrefix::new(namespace);
        self.by_prefix.insert(prefix, id);
        let state = NamespaceState {
            namespace: namespace.clone(),
            prefix,
            names: BTreeMap::new(),
            bytes: 0,
            arena_bytes: 0,
            is_cache: self.standing.contains_key(namespace),
            ttl: self.standing.get(namespace).cloned().flatten(),
        };
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
            self.by_prefix.remove(&state.prefix);
        }
    }

    /// The name that is first in `namespace`, for taking a namespace apart piece by piece.
    pub(crate) fn first_name(&self, namespace: NamespaceId) -> Option<Arc<str>> {
        self.namespaces.get(&namespace)?.names.first_key_value().map(|(name, _)| Arc::clone(name))
    }

    /// Declares what holds for a namespace. If it returns true, the names that it has are to be
    /// [queued](Self::queue_after).
    pub(crate) fn declare(&mut self, id: NamespaceId, is_cache: bool, ttl: Option<Ttl>) -> bool {
        let Some(state) = self.namespaces.get_mut(&id) else { return false };
        let standing = self.standing.get(&state.namespace);
        let (is_cache, ttl) = (is_cache || standing.is_some(), ttl.or_else(|| standing.cloned().flatten()));
        let was_cache = std::mem::replace(&mut state.is_cache, is_cache);
        state.ttl = ttl;
        match (was_cache, is_cache) {
            (false, true) => self.cached_bytes += state.arena_bytes,
            (true, false) => self.cached_bytes -= state.arena_bytes,
            _ => {}
        }
        !was_cache && is_cache
    }

    /// Queues the name of a cache namespace that is first after `after`, and returns it.
    pub(crate) fn queue_after(&mut self, id: NamespaceId, after: Option<&str>) -> Option<Arc<str>> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = &self.namespaces.get(&id)?.names;
        let (name, &number) = names.range::<str, _>((start, Bound::Unbounded)).next()?;
        let name = Arc::clone(name);
        self.queue(number);
        Some(name)
    }

    /// Puts a binding into its queue of cached ones, unless it is there, or ends with a session: then it does not give way.
    fn queue(&mut self, number: u32) {
        let used_ns = self.last_use(number);
        let Some(entry) = self.writer.read(self.index.words(), number) else { return };
        let cached = Cached { in_index: entry.extent_offset().is_none(), used_ns, number };
        let Some(record) = self.records.get_mut(slot(number)).and_then(Option::as_mut) else { return };
        if record.owner.is_some() || record.queued.is_some_and(|queued| queued.in_index == cached.in_index) {
            return;
        }
        record.queued.replace(cached).map(|queued| self.cached.remove(&queued));
        self.cached.insert(cached);
    }

    /// When a binding was last recalled or learned, as far as is known.
    fn last_use(&self, number: u32) -> u64 {
        let learned_ns = self.record(number).map_or(0, |record| record.learned_ns);
        self.recalls.last(number).map_or(learned_ns, |recalled_ns| recalled_ns.max(learned_ns))
    }

    /// The binding behind `at` in its queue of cached ones, the least recently used first. Those that were recalled since
    /// they were queued are moved to where they belong on the way, as long as `slice` lasts.
    pub(crate) fn next_cached(&mut self, at: Cached, slice: &mut Slice) -> Next {
        let end = if at.in_index { Bound::Unbounded } else { Bound::Excluded(Cached::FIRST_IN_INDEX) };
        while slice.spend() {
            let Some(&cached) = self.cached.range((Bound::Excluded(at), end)).next() else {
                return Next::End;
            };
            let Cached { used_ns, number, .. } = cached;
            let last_ns = self.last_use(number);
            let gives_way = |it: &Record| it.owner.is_none() && self.namespaces[&it.namespace].is_cache;
            let is_cached = self.record(number).is_some_and(gives_way);
            if is_cached && last_ns <= used_ns {
                return Next::This(cached);
            }
            self.cached.remove(&cached);
            let record = self.records[slot(number)].as_mut().expect("only what is bound is queued");
            record.queued = is_cached.then_some(Cached { used_ns: last_ns, ..cached });
            self.cached.extend(record.queued); // its second chance
        }
        Next::NoTime
    }

    /// As [`next_cached`](Self::next_cached), of both queues: `at` says where each is. Moves that on.
    pub(crate) fn next_of_both(&mut self, at: &mut [Cached; 2], slice: &mut Slice) -> Next {
        let mut first: Option<Cached> = None;
        for from in *at {
            match self.next_cached(from, slice) {
                Next::This(next) => {
                    let firsts = first.into_iter().chain([next]);
                    first = firsts.min_by_key(|next| (next.used_ns, next.number));
                }
                Next::End => {}
                Next::NoTime => return Next::NoTime,
            }
        }
        let Some(next) = first else { return Next::End };
        at[usize::from(next.in_index)] = next;
        Next::This(next)
    }

    /// A cached binding, as one that may give way.
    pub(crate) fn cached_binding(&self, Cached { number, .. }: Cached) -> Option<Victim> {
        let entry = self.writer.read(self.index.words(), number)?;
        Some(Victim { number, version: entry.version, offset: entry.extent_offset() })
    }

    /// Unbinds a cached binding, if it has not been bound anew.
    pub(crate) fn evict(&mut self, victim: Victim) -> Option<Unbound> {
        let Victim { number, version, .. } = victim;
        let record = self.record(number)?;
        let (namespace, name) = (record.namespace, Arc::clone(&record.name));
        let entry = self.writer.read(self.index.words(), number)?;
        if entry.version != version || !self.namespaces[&namespace].is_cache {
            return None;
        }
        self.unbind_labelled(number, namespace, &name)
    }

    /// At most so many bindings are cached.
    pub(crate) fn cached_count_max(&self) -> u64 {
        self.cached.len() as u64
    }

    /// Bytes in the arena of the objects in cache namespaces.
    pub(crate) fn cached_bytes(&self) -> u64 {
        self.cached_bytes
    }

    /// What `name` is bound to at `now_ns`: the entry's number, its record and its entry.
    pub(crate) fn find(
        &self,
        namespace: &Namespace,
        name: &str,
        now_ns: u64,
    ) -> Option<(u32, &Record, Entry)> {
        let found = self.linked(self.namespace(namespace)?, name);
        found.filter(|(_, _, entry)| !entry.has_expired(now_ns))
    }

    /// What `name` is or was bound to: a binding that has expired takes room until it is unbound.
    pub(crate) fn linked(&self, namespace: NamespaceId, name: &str) -> Option<(u32, &Record, Entry)> {
        // By its id: a hash table is quicker than the tree of names, and there is one at hand.
        let id = self.namespaces.get(&namespace)?.prefix.name_id(name);
        let (number, record) = self.holder(&id).filter(|(_, record)| *record.name == *name)?;
        Some((number, record, self.writer.read(self.index.words(), number)?))
    }

    /// What `name` with this id is or was bound to, if that is itself. Its namespace's prefix has been
    /// [checked](Self::check_prefix).
    pub(crate) fn check_id(&self, id: &NameId, name: &Name) -> Result<Option<&Record>, IdTaken> {
        match self.holder(id) {
            Some((_, record)) if *record.name != **name => Err(IdTaken { holder: record.name.to_string() }),
            found => Ok(found.map(|(_, record)| record)),
        }
    }

    /// Which name has this id, and its entry's number.
    fn holder(&self, id: &NameId) -> Option<(u32, &Record)> {
        let number = self.writer.find(self.index.words(), id)?;
        Some((number, self.record(number)?))
    }

    /// Binds `name`, whose id was checked and for which there is room.
    pub(crate) fn bind(
        &mut self,
        namespace: NamespaceId,
        id: &NameId,
        name: &Name,
        new: NewBinding<'_>,
    ) -> BoundTo {
        let state = self.namespaces.get_mut(&namespace).expect("a commit registers its namespaces first");
        let number = self.writer.find(self.index.words(), id);
        let known = number.and_then(|number| Some((number, self.writer.read(self.index.words(), number)?)));
        let kept = known.filter(|(_, before)| new.keeps_ttl && !before.has_expired(new.now_ns));
        let (ttl, expires_ns) = match kept {
            Some((number, before)) => {
                let record = self.records[slot(number)].as_ref();
                (record.and_then(|record| record.ttl.clone()), Some(before.expires_ns).filter(|&at| at != 0))
            }
            None => {
                let ttl = new.ttl.or_else(|| state.ttl.clone());
                let expires_ns = ttl.as_ref().and_then(|ttl| deadline(ttl, new.now_ns));
                (ttl.filter(|_| expires_ns.is_some()), expires_ns)
            }
        };
        let entry = Entry {
            version: new.version,
            offset: new.offset,
            len_bytes: new.len_bytes,
            created_ns: new.created_ns,
            expires_ns: expires_ns.unwrap_or(0),
            writer_uid: new.writer_uid,
            header: new.header,
        };
        let before = known.as_ref().map(|(_, before)| before);
        let replaced_bytes = before.map_or(0, |before| before.len_bytes);
        let arena_replaced_bytes = before.map_or(0, Entry::arena_bytes);
        state.bytes = state.bytes + new.len_bytes - replaced_bytes;
        state.arena_bytes = state.arena_bytes + entry.arena_bytes() - arena_replaced_bytes;
        let is_cache = state.is_cache;
        if is_cache {
            self.cached_bytes = self.cached_bytes + entry.arena_bytes() - arena_replaced_bytes;
        }
        if let Some((number, before)) = known {
            self.writer.replace(self.index.words(), id, number, &entry);
            self.recalls.set_sliding(number, ttl.as_ref().is_some_and(|ttl| ttl.is_sliding));
            self.deadlines.remove(&(before.expires_ns, number));
            self.deadlines.extend(expires_ns.map(|at| (at, number)));
            let record = self.records[slot(number)].as_mut().expect("a bound name has a record");
            record.owner.map(|owner| self.ephemeral.remove(&(owner, number)));
            self.ephemeral.extend(new.owner.map(|owner| (owner, number)));
            record.owner = new.owner;
            record.ttl = ttl;
            record.learned_ns = new.now_ns;
            record.object_uuid = new.object_uuid;
            record.writer_pid = new.writer_pid;
            let before_bytes = record.text_bytes();
            if before.has_expired(new.now_ns) {
                // The name is new.
                self.recalls.unbind(number, self.rounds);
                (record.description, record.metadata) = (Box::default(), Box::default());
            }
            new.description.into_iter().for_each(|text| record.description = text.into());
            new.metadata.into_iter().for_each(|text| record.metadata = text.into());
            self.text_bytes = self.text_bytes - before_bytes + record.text_bytes();
            if is_cache {
                self.queue(number);
            }
            return BoundTo { number, replaced: before.extent_offset() };
        }
        let number = self.writer.insert(self.index.words(), id, &entry).expect("room was counted before");
        let name: Arc<str> = name.as_str().into();
        state.names.insert(Arc::clone(&name), number);
        let record = Record {
            namespace,
            name,
            object_uuid: new.object_uuid,
            writer_pid: new.writer_pid,
            description: new.description.unwrap_or_default().into(),
            metadata: new.metadata.unwrap_or_default().into(),
            ttl,
            learned_ns: new.now_ns,
            owner: new.owner,
            queued: None,
        };
        self.recalls.set_sliding(number, record.ttl.as_ref().is_some_and(|ttl| ttl.is_sliding));
        self.deadlines.extend(expires_ns.map(|at| (at, number)));
        self.ephemeral.extend(new.owner.map(|owner| (owner, number)));
        self.text_bytes += record.text_bytes();
        if self.records.len() <= slot(number) {
            self.records.resize_with(slot(number) + 1, || None);
        }
        self.records[slot(number)] = Some(record);
        self.objects += 1;
        if is_cache {
            self.queue(number);
        }
        BoundTo { number, replaced: None }
    }

    /// Unbinds `name`, whether it has expired or not. Returns what it was bound to.
    pub(crate) fn unbind(&mut self, namespace: NamespaceId, name: &str) -> Option<Entry> {
        let (number, _, entry) = self.linked(namespace, name)?;
        let state = self.namespaces.get_mut(&namespace).expect("it was found there");
        state.names.remove(name);
        state.bytes -= entry.len_bytes;
        state.arena_bytes -= entry.arena_bytes();
        self.cached_bytes -= if state.is_cache { entry.arena_bytes() } else { 0 };
        self.writer.remove(self.index.words(), &state.prefix.name_id(name));
        let record = self.records[slot(number)].take();
        if let Some(record) = record {
            self.text_bytes -= record.text_bytes();
            record.queued.map(|cached| self.cached.remove(&cached));
            record.owner.map(|owner| self.ephemeral.remove(&(owner, number)));
        }
        self.recalls.unbind(number, self.rounds);
        self.recalls.set_sliding(number, false);
        self.deadlines.remove(&(entry.expires_ns, number));
        self.objects -= 1;
        Some(entry)
    }

    /// When the first binding expires, or has expired that is not unbound yet: CLOCK_BOOTTIME, in nanoseconds.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// Unbinds the binding that expired first, if one has at `now_ns`.
    pub(crate) fn expire(&mut self, now_ns: u64) -> Option<Unbound> {
        let &(at, number) = self.deadlines.first()?;
        if at > now_ns {
            return None;
        }
        let record = self.record(number).expect("an entry with a deadline is bound");
        let (namespace, name) = (record.namespace, Arc::clone(&record.name));
        self.unbind_labelled(number, namespace, &name)
    }

    /// Unbinds one of the bindings that end with `session`, if there is one.
    pub(crate) fn end_one_of(&mut self, session: SessionId) -> Option<Unbound> {
        let &(_, number) = self.ephemeral.range((session, 0)..=(session, u32::MAX)).next()?;
        let record = self.record(number).expect("what ends with a session is bound");
        let (namespace, name) = (record.namespace, Arc::clone(&record.name));
        self.unbind_labelled(number, namespace, &name)
    }

    /// Whether bindings end with `session`.
    pub(crate) fn has_ephemeral(&self, session: SessionId) -> bool {
        self.ephemeral.range((session, 0)..=(session, u32::MAX)).next().is_some()
    }

    fn unbind_labelled(&mut self, number: u32, namespace: NamespaceId, name: &str) -> Option<Unbound> {
        let id = self.namespaces[&namespace].prefix.name_id(name);
        let label = self.label(number).unwrap_or_default();
        Some(Unbound { id, label, entry: self.unbind(namespace, name)? })
    }

    /// The binding in entry `number` was recalled: if its time to live slides, it begins anew at `now_ns`. What has
    /// expired stays gone.
    pub(crate) fn slide(&mut self, number: u32, now_ns: u64) {
        let Some(record) = self.record(number) else { return };
        let Some(ttl) = record.ttl.as_ref().filter(|ttl| ttl.is_sliding) else { return };
        let (Some(entry), Some(at)) = (self.writer.read(self.index.words(), number), deadline(ttl, now_ns))
        else {
            return;
        };
        if entry.has_expired(now_ns) || at <= entry.expires_ns {
            return;
        }
        let id = self.namespaces[&record.namespace].prefix.name_id(&record.name);
        self.writer.replace(self.index.words(), &id, number, &Entry { expires_ns: at, ..entry });
        self.deadlines.remove(&(entry.expires_ns, number));
        self.deadlines.insert((at, number));
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

    /// What there is to know at `now_ns` about one binding.
    pub(crate) fn info(&self, number: u32, now_ns: u64) -> Option<BindingInfo> {
        let record = self.record(number)?;
        let entry = self.writer.read(self.index.words(), number)?;
        let NamespaceState { namespace, prefix, .. } = self.namespaces.get(&record.namespace)?;
        Some(BindingInfo {
            namespace: namespace.clone(),
            name: Name::new(&record.name).ok()?,
            version: entry.version,
            object_id: *ObjectId::as_bytes(&prefix.object_id(record.object_uuid)),
            len_bytes: entry.len_bytes,
            kind: entry.header.kind,
            created_ns: entry.created_ns,
            writer_pid: record.writer_pid,
            writer_uid: entry.writer_uid,
            recalled_ns: self
                .recalls
                .last(number)
                .map_or(0, |at| realtime_ns().saturating_sub(now_ns.saturating_sub(at))),
            ttl: record.ttl.clone(),
            left_ns: (entry.expires_ns != 0).then(|| entry.expires_ns.saturating_sub(now_ns)),
        })
    }

    /// As [`info`](Self::info), with description and metadata.
    pub(crate) fn info_and_texts(&self, number: u32, now_ns: u64) -> Option<(BindingInfo, &str, &str)> {
        let record = self.record(number)?;
        Some((self.info(number, now_ns)?, &record.description, &record.metadata))
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

    /// One page of the names of `namespace` that are bound at `now_ns` and begin with `prefix`, in order, after `after`.
    pub(crate) fn page(
        &self,
        namespace: NamespaceId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        now_ns: u64,
    ) -> Vec<u32> {
        self.names_from(namespace, prefix, after, now_ns).take(limit).map(|(_, number)| number).collect()
    }

    /// The names of `namespace` that are bound at `now_ns` and begin with `prefix`, in order, after `after`; and their entries' numbers.
    pub(crate) fn names_from<'a>(
        &'a self,
        namespace: NamespaceId,
        prefix: &'a str,
        after: Option<&'a str>,
        now_ns: u64,
    ) -> impl Iterator<Item = (&'a str, u32)> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let state = self.namespaces.get(&namespace).into_iter();
        let some_have_expired = self.next_expiry().is_some_and(|at| at <= now_ns);
        let has_expired = move |number| {
            let entry = self.writer.read(self.index.words(), number);
            entry.is_some_and(|entry| entry.has_expired(now_ns))
        };
        state
            .flat_map(move |state| state.names.range::<str, _>((start, Bound::Unbounded)))
            // Comparing nothing is not free: of 10,000 names it took half the time (a masked load with an empty mask).
            .take_while(move |(name, _)| prefix.is_empty() || name.starts_with(prefix))
            .map(|(name, &number)| (&**name, number))
            .filter(move |&(_, number)| !some_have_expired || !has_expired(number))
    }

    /// The namespaces after `after`, in order.
    pub(crate) fn namespaces_after(&self, after: Option<&Namespace>) -> impl Iterator<Item = NamespaceInfo> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_name
            .range((start, Bound::Unbounded))
            .map(|(namespace, id)| info_of(namespace, &self.namespaces[id]))
    }

    /// What there is to know of one namespace.
    pub(crate) fn namespace_info(&self, namespace: &Namespace) -> Option<NamespaceInfo> {
        let (namespace, id) = self.by_name.get_key_value(namespace)?;
        Some(info_of(namespace, self.namespaces.get(id)?))
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

fn info_of(namespace: &Namespace, state: &NamespaceState) -> NamespaceInfo {
    NamespaceInfo {
        namespace: namespace.clone(),
        names: state.names.len() as u64,
        bytes: state.bytes,
        is_cache: state.is_cache,
        ttl: state.ttl.clone(),
    }
}

/// When a binding expires whose time to live begins at `now_ns`; `None` if the clock never gets there.
fn deadline(ttl: &Ttl, now_ns: u64) -> Option<u64> {
    let slack_ns = if ttl.is_sliding { SLIDING_SLACK_NS } else { 0 };
    now_ns.checked_add(ttl.ttl_ns)?.checked_add(slack_ns)
}

/// Where the record of entry `number` (counted from 1) stands.
fn slot(number: u32) -> usize {
    plasmon_protocol::index_of(u64::from(number) - 1)
}

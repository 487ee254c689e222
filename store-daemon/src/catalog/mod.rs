//! The daemon's own record of namespaces, names and what they are bound to.
//!
//! Commits ([`crate::commit`]) bind and unbind names here; the loop unbinds what has expired, what gives way and what
//! ends with a session; requests look things up. Every change goes through [`Catalog::bind`] or [`Catalog::unbind`],
//! which keep all rooms of the catalog in step:
//!
//! | room | what it knows |
//! | --- | --- |
//! | `namespaces` | numbers, prefixes and declarations of namespaces, and the names in each |
//! | `present` | the binding of each name, and the index that mirrors it for clients |
//! | `endings` | deadlines, and bindings that end with a session |
//! | `cached` | the bindings of caches, the least recently used first |
//! | `listing` | answers about names and namespaces, in order |
//! | `past` | bindings that have ended and are kept, and for whom |

mod cached;
mod endings;
mod listing;
mod namespaces;
mod past;
mod present;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use self::{
    cached::{Cached, Next},
    past::{End, Kept, Moment, Past, Snapshot, View},
    present::{Record, Text},
};

use self::{
    cached::Queue,
    endings::Endings,
    namespaces::Namespaces,
    past::{Judged, Purged, Want},
    present::Present,
};
use crate::{
    evict::Victim,
    objects::{ObjectNumber, Objects},
    recalls::{CollectJob, Recalls},
    session::SessionId,
    slice::Slice,
    standing::Cache,
};
use plasmon_protocol::{
    id::{NameId, NamespacePrefix},
    index::Entry,
    layout::{IndexShape, WORD_BYTES},
    limits::SLIDING_SLACK_NS,
    message::{History, Reason, Ttl},
    name::{Label, Name, Namespace},
};
use plasmon_shm::WordsMapping;
use std::{
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

/// A binding about to be made.
#[derive(Debug)]
pub(crate) struct NewBinding {
    /// What the index is to show, but for the deadline, which the catalog knows.
    pub(crate) entry: Entry,
    /// The object, if it has a place in the arena. The binding becomes its holder.
    pub(crate) object: Option<ObjectNumber>,
    pub(crate) object_uuid: [u8; 16],
    pub(crate) writer_pid: u32,
    /// Who makes the binding: pid and uid.
    pub(crate) bound_by: (u32, u32),
    /// The moment of the commit, by CLOCK_BOOTTIME.
    pub(crate) now_ns: u64,
    pub(crate) term: Term,
    /// The session that the binding ends with, if it does.
    pub(crate) owner: Option<SessionId>,
    /// `None` keeps the description of the binding before.
    pub(crate) description: Option<Text>,
    /// `None` keeps the metadata of the binding before.
    pub(crate) metadata: Option<Text>,
}

/// How long a new binding lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Term {
    /// So long from the moment of the commit; `None` is as long as the namespace has declared.
    For(Option<Ttl>),
    /// As long as the binding that it replaces. If there is none, as above.
    AsBefore(Option<Ttl>),
    /// Until this deadline, with this time to live: those of another binding. 0 and `None` is for ever.
    Until(u64, Option<Ttl>),
}

/// A binding that was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundTo {
    /// Number of its index entry.
    pub(crate) number: u32,
    /// What became of the binding that the name had before.
    replaced: Option<Ended>,
}

impl BoundTo {
    /// Tells `objects` that the name, which people know as `label`, is bound to `object` now.
    pub(crate) fn settle(
        self,
        objects: &mut Objects,
        object: Option<ObjectNumber>,
        label: impl FnOnce() -> String,
    ) {
        let Ended { object: old, is_kept, made_way, .. } = self.replaced.unwrap_or_default();
        objects.rebind(self.number, old, object, is_kept, label);
        objects.release_if_any(made_way);
    }
}

/// What became of a binding that has ended.
#[derive(Clone, Copy, Debug, Default)]
struct Ended {
    /// The number of the change that ended it.
    version: u64,
    /// Its object, if that has a place in the arena.
    object: Option<ObjectNumber>,
    /// Whether the past keeps the binding, and so the object. If not, nobody holds that for the binding any more.
    is_kept: bool,
    /// The object of an older binding that the past kept until this one came.
    made_way: Option<ObjectNumber>,
}

/// A binding that was ended.
#[derive(Debug)]
pub(crate) struct Unbound {
    /// Number of the index entry that it had.
    pub(crate) number: u32,
    pub(crate) id: NameId,
    pub(crate) namespace: Namespace,
    pub(crate) name: Arc<str>,
    /// What the name was bound to.
    pub(crate) entry: Entry,
    ended: Ended,
}

/// What came of ending a binding that has to end.
#[derive(Debug)]
pub(crate) enum Ending {
    /// It has ended.
    Unbound(Box<Unbound>),
    /// It would have to be kept, and there is no room for that. To readers it is gone.
    PutOff,
    /// There is none.
    Nothing,
}

/// What a name was bound to at some moment.
#[derive(Debug)]
pub(crate) enum Then<'a> {
    /// What it is bound to still.
    Now(&'a Record),
    /// What the past keeps.
    Kept(&'a Kept),
}

impl Unbound {
    /// The number of the change that ended it.
    pub(crate) fn ended_by(&self) -> u64 {
        self.ended.version
    }

    /// Tells `objects` that the name is not bound to its object any more. Returns whether nothing needs that any more.
    pub(crate) fn settle(&self, objects: &mut Objects) -> bool {
        let Ended { object, is_kept, made_way, .. } = self.ended;
        objects.release_if_any(made_way);
        match object {
            Some(object) if is_kept => {
                objects.unname(object, self.number, || self.label());
                false
            }
            Some(object) => objects.unbind(object, self.number, || self.label()),
            None => false,
        }
    }

    /// `NAMESPACE/NAME`, for people.
    pub(crate) fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Namespaces, names and bindings, and the index that shows them to clients.
#[derive(Debug)]
pub(crate) struct Catalog {
    namespaces: Namespaces,
    present: Present,
    endings: Endings,
    cached: Queue,
    pub(crate) past: Past,
    /// The last change that removed a namespace.
    last_removal: u64,
    pub(crate) recalls: Arc<Recalls>,
    /// Rounds of collecting recalls begun.
    rounds: u64,
    objects_max: u32,
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
        Catalog {
            namespaces: Namespaces::new(),
            present: Present::new(index, shape, store_uuid, capacity_bytes),
            endings: Endings::default(),
            cached: Queue::default(),
            past: Past::with_max(shape.entry_count().into()),
            last_removal: 0,
            recalls: Arc::new(Recalls::new(shape.entry_count())),
            rounds: 0,
            objects_max: shape.entry_count(),
            namespaces_max: u64::MAX,
            text_bytes: 0,
            text_bytes_max: u64::MAX,
        }
    }

    /// Has these caches for good: whatever is declared for them, and each time that they are registered.
    ///
    /// # Errors
    /// The namespace that has the id of another one.
    pub(crate) fn with_caches(mut self, caches: &[Cache]) -> Result<Self, (String, IdTaken)> {
        for cache in caches {
            self.namespaces.keep_cache(cache).map_err(|taken| (cache.namespace.to_string(), taken))?;
        }
        Ok(self)
    }

    /// Bounds what it takes of the daemon's own memory, beside what the number of names bounds.
    pub(crate) fn with_limits(mut self, namespaces_max: u64, text_bytes_max: u64, kept_max: u64) -> Self {
        self.namespaces_max = namespaces_max;
        self.text_bytes_max = text_bytes_max;
        self.past = Past::with_max(kept_max);
        self
    }

    /// Whether `namespaces` more fit. `is_own`: whether the store's own uid or root asks; others leave it half of them.
    ///
    /// # Errors
    /// The limit.
    pub(crate) fn check_namespaces(&self, namespaces: u64, is_own: bool) -> Result<(), u64> {
        let max = limit_for(self.namespaces_max, is_own);
        let fits = namespaces == 0 || self.namespace_count() + namespaces <= max;
        if fits { Ok(()) } else { Err(max) }
    }

    /// Whether descriptions and metadata that are so much longer, and shorter, than those before fit. `is_own`: as above.
    ///
    /// # Errors
    /// The limit.
    pub(crate) fn check_texts(&self, longer_bytes: u64, shorter_bytes: u64, is_own: bool) -> Result<(), u64> {
        let max = limit_for(self.text_bytes_max, is_own);
        let grows = longer_bytes > shorter_bytes;
        let fits = !grows || self.text_bytes + (longer_bytes - shorter_bytes) <= max;
        if fits { Ok(()) } else { Err(max) }
    }

    /// Length of an index region of `shape`, in bytes.
    pub(crate) fn index_bytes(shape: IndexShape) -> u64 {
        shape.words() as u64 * WORD_BYTES
    }

    /// Names bound, and how many can be.
    pub(crate) fn objects(&self) -> (u64, u64) {
        (self.present.len(), self.objects_max.into())
    }

    /// Number of namespaces.
    pub(crate) fn namespace_count(&self) -> u64 {
        self.namespaces.len()
    }

    /// Index entries not in use.
    pub(crate) fn room(&self) -> u64 {
        self.present.room()
    }

    /// The number of a registered namespace.
    pub(crate) fn namespace(&self, namespace: &Namespace) -> Option<NamespaceId> {
        self.namespaces.id(namespace)
    }

    /// Names bound in a namespace.
    pub(crate) fn names_in(&self, namespace: NamespaceId) -> u64 {
        self.namespaces.get(namespace).map_or(0, |state| state.names.len() as u64)
    }

    /// Names bound in a namespace at `now_ns`. Names that have expired are no names; where very many of them still take
    /// room, they count.
    pub(crate) fn living_names_in(&self, namespace: NamespaceId, now_ns: u64) -> u64 {
        const LOOKED_AT_MAX: usize = 1_024;
        let names = self.names_in(namespace);
        if names > LOOKED_AT_MAX as u64 || !self.has_expired_ones(now_ns) {
            return names;
        }
        self.names_from(namespace, "", None, now_ns).count() as u64
    }

    /// Makes sure that `namespace` exists. If it does not, change number `version` makes it.
    ///
    /// # Errors
    /// [`IdTaken`] if another namespace has its prefix.
    pub(crate) fn register(&mut self, namespace: &Namespace, version: u64) -> Result<NamespaceId, IdTaken> {
        self.namespaces.register(namespace, version)
    }

    /// Whether `namespace` could be registered, or is. The prefix of one that was removed stays taken while something is
    /// kept of it: names that share one would share their past.
    pub(crate) fn check_prefix(&self, namespace: &Namespace) -> Result<(), IdTaken> {
        match self.past.holder_of(&NamespacePrefix::new(namespace)) {
            Some(holder) if holder != namespace => Err(IdTaken { holder: holder.to_string() }),
            _ => self.namespaces.check_prefix(namespace),
        }
    }

    /// Change number `version` is about to remove a namespace: what was to be kept of it is not kept any more, but for views.
    pub(crate) fn drop_rules(&mut self, id: NamespaceId, version: u64) {
        if let Some(state) = self.namespaces.get(id) {
            self.past.drop_rules(&state.namespace, version);
        }
    }

    /// Change number `version` removes an empty namespace.
    pub(crate) fn unregister(&mut self, id: NamespaceId, version: u64) {
        self.namespaces.unregister(id);
        self.last_removal = version;
    }

    /// Whether no name of `namespace` was bound or unbound after change number `since`. Of a namespace that is unknown, or
    /// was made since, that is known only if no namespace was removed since.
    ///
    /// # Errors
    /// The change that did, as far as is known.
    pub(crate) fn check_unchanged(&self, namespace: &Namespace, since: u64) -> Result<(), u64> {
        let state = self.namespace(namespace).and_then(|id| self.namespaces.get(id));
        if let Some(state) = state.filter(|state| state.changed() > since) {
            return Err(state.changed());
        }
        let is_older = state.is_some_and(|state| state.made() <= since);
        if is_older || self.last_removal <= since { Ok(()) } else { Err(self.last_removal) }
    }

    /// The name that is first in `namespace`, for taking a namespace apart piece by piece.
    pub(crate) fn first_name(&self, namespace: NamespaceId) -> Option<Arc<str>> {
        self.namespaces.get(namespace)?.names.first_key_value().map(|(name, _)| Arc::clone(name))
    }

    /// Declares what holds for a namespace. If it returns true, the names that it has are to be
    /// [queued](Self::queue_after).
    pub(crate) fn declare(&mut self, id: NamespaceId, is_cache: bool, ttl: Option<Ttl>) -> bool {
        self.namespaces.declare(id, is_cache, ttl)
    }

    /// Makes sure that a namespace is a cache, as [`declare`](Self::declare).
    pub(crate) fn ensure_cache(&mut self, id: NamespaceId) -> bool {
        let ttl = self.namespaces.get(id).and_then(|state| state.ttl.clone());
        self.declare(id, true, ttl)
    }

    /// Queues the name of a cache namespace that is first after `after`, and returns it.
    pub(crate) fn queue_after(&mut self, id: NamespaceId, after: Option<&str>) -> Option<Arc<str>> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = &self.namespaces.get(id)?.names;
        let (name, &number) = names.range::<str, _>((start, Bound::Unbounded)).next()?;
        let name = Arc::clone(name);
        self.queue(number);
        Some(name)
    }

    /// Puts a binding into its queue of cached ones.
    fn queue(&mut self, number: u32) {
        let learned_ns = self.present.get(number).map_or(0, |record| record.learned_ns);
        self.cached.add(&mut self.present, number, last_use(&self.recalls, number, learned_ns));
    }

    /// The binding behind `at` in its queue of cached ones, the least recently used first, unless `slice` is over before
    /// that is known.
    pub(crate) fn next_cached(&mut self, at: Cached, slice: &mut Slice) -> Next {
        let is_cache = |id| self.namespaces.registered(id).is_cache;
        let used = |number, learned_ns| last_use(&self.recalls, number, learned_ns);
        self.cached.next(at, slice, &mut self.present, is_cache, used)
    }

    /// As [`next_cached`](Self::next_cached), of both queues: `at` says where each is. Moves that on.
    pub(crate) fn next_of_both(&mut self, at: &mut [Cached; 2], slice: &mut Slice) -> Next {
        let mut places = [None; 2];
        for (place, from) in places.iter_mut().zip(*at) {
            match self.next_cached(from, slice) {
                Next::This(next) => *place = Some(next),
                Next::End => {}
                Next::NoTime => return Next::NoTime,
            }
        }
        let Some((which, next)) = Queue::first_of(places) else { return Next::End };
        at[which] = next;
        Next::This(next)
    }

    /// A cached binding, as one that may give way.
    pub(crate) fn cached_binding(&self, Cached { number, .. }: Cached) -> Option<Victim> {
        let Record { entry, object, .. } = self.present.get(number)?;
        Some(Victim { number, version: entry.version, object: *object })
    }

    /// Unbinds a cached binding, if it has not been bound anew.
    pub(crate) fn evict(&mut self, victim: Victim, end: End) -> Option<Unbound> {
        let record = self.present.get(victim.number)?;
        if record.entry.version != victim.version || !self.namespaces.registered(record.namespace).is_cache {
            return None;
        }
        self.unbind_entry(victim.number, end)
    }

    /// At most so many bindings are cached.
    pub(crate) fn cached_count_max(&self) -> u64 {
        self.cached.len()
    }

    /// Bytes in the arena of the objects in cache namespaces.
    pub(crate) fn cached_bytes(&self) -> u64 {
        self.namespaces.cached_bytes()
    }

    /// What `name` is bound to at `now_ns`, and the number of its index entry.
    pub(crate) fn find(&self, namespace: &Namespace, name: &str, now_ns: u64) -> Option<(u32, &Record)> {
        let found = self.linked(self.namespace(namespace)?, name);
        found.filter(|(_, record)| !record.entry.has_expired(now_ns))
    }

    /// The version that the name with this id has at `now_ns`; 0 if it is not bound.
    pub(crate) fn version_of(&self, id: &NameId, now_ns: u64) -> u64 {
        let entry = self.present.find(id).map(|(_, record)| &record.entry);
        entry.filter(|entry| !entry.has_expired(now_ns)).map_or(0, |entry| entry.version)
    }

    /// What `name` is or was bound to: a binding that has expired takes room until it is unbound.
    pub(crate) fn linked(&self, namespace: NamespaceId, name: &str) -> Option<(u32, &Record)> {
        // By its id: a hash table is quicker than the tree of names, and there is one at hand.
        let id = self.namespaces.get(namespace)?.name_id(name);
        self.present.find(&id).filter(|(_, record)| *record.name == *name)
    }

    /// What `name` with this id is or was bound to, if that is itself. Its namespace's prefix has been
    /// [checked](Self::check_prefix).
    pub(crate) fn check_id(&self, id: &NameId, name: &Name) -> Result<Option<(u32, &Record)>, IdTaken> {
        match self.present.find(id) {
            Some((_, record)) if *record.name != **name => Err(IdTaken { holder: record.name.to_string() }),
            found => Ok(found),
        }
    }

    /// Binds `name`, whose id was checked and for which there is room. A binding that has expired is replaced as if it were
    /// not there.
    pub(crate) fn bind(
        &mut self,
        namespace: NamespaceId,
        id: &NameId,
        name: &Name,
        new: NewBinding,
    ) -> BoundTo {
        let known = self.present.find(id);
        let living = known.map(|(_, before)| before).filter(|before| !before.entry.has_expired(new.now_ns));
        let (ttl, expires_ns) = match (new.term, living) {
            (Term::Until(at, ttl), _) => (ttl, at),
            (Term::AsBefore(_), Some(before)) => (before.ttl.clone(), before.entry.expires_ns),
            (Term::For(ttl) | Term::AsBefore(ttl), _) => {
                let declared = || self.namespaces.get(namespace).and_then(|state| state.ttl.clone());
                let lives = ttl.or_else(declared).and_then(|ttl| Some((deadline(&ttl, new.now_ns)?, ttl)));
                lives.map_or((None, 0), |(at, ttl)| (Some(ttl), at))
            }
        };
        let text = |given: Option<Text>, before: Option<&Text>| given.or_else(|| before.cloned());
        let record = Record {
            namespace,
            name: known.map_or_else(|| name.as_str().into(), |(_, before)| Arc::clone(&before.name)),
            entry: Entry { expires_ns, ..new.entry },
            object: new.object,
            object_uuid: new.object_uuid,
            writer_pid: new.writer_pid,
            bound_by: new.bound_by,
            description: text(new.description, living.map(|before| &before.description)).unwrap_or_default(),
            metadata: text(new.metadata, living.map(|before| &before.metadata)).unwrap_or_default(),
            ttl,
            learned_ns: new.now_ns,
            owner: new.owner,
            queued: known.and_then(|(_, before)| before.queued),
        };
        let is_new = living.is_none();
        let number = known.map(|(number, _)| number);
        let reason = if is_new { Reason::Expired } else { Reason::Rebound };
        let end = End { version: new.entry.version, reason, now_ns: new.now_ns };
        self.put(id, number, record, is_new, end)
    }

    /// Binds a name to `record`, in entry `number` if it is bound already: that binding ends with `end`. `is_new` tells
    /// whether to readers it is not.
    fn put(&mut self, id: &NameId, number: Option<u32>, record: Record, is_new: bool, end: End) -> BoundTo {
        let (namespace, name, entry) = (record.namespace, Arc::clone(&record.name), record.entry);
        let (is_sliding, text_bytes, object) = (record.is_sliding(), record.text_bytes(), record.object);
        let (number, before) = match number {
            Some(number) => (number, Some(self.present.replace(id, number, record))),
            None => (self.present.insert(id, record), None),
        };
        let want =
            before.as_ref().map_or_else(Want::default, |before| self.want(number, before, end.version));
        // It may have ended before.
        let end = self.endings.end_of(number).unwrap_or(end);
        if let Some(before) = &before {
            self.endings.remove(number, before);
            if is_new {
                self.recalls.unbind(number, self.rounds);
            }
        }
        self.text_bytes += text_bytes;
        self.recalls.set_sliding(number, is_sliding);
        self.namespaces.bound(namespace, &name, number, &entry, before.as_ref().map(|before| &before.entry));
        let replaced = before.map(|before| self.end(before, end, want, object));
        if let Some(record) = self.present.get(number) {
            self.endings.add(number, record);
        }
        if self.namespaces.registered(namespace).is_cache {
            self.queue(number);
        }
        BoundTo { number, replaced }
    }

    /// Unbinds `name`, whether it has expired or not. If the past is to keep what it is bound to, there is room for that.
    pub(crate) fn unbind(&mut self, namespace: NamespaceId, name: &str, end: End) -> Option<Unbound> {
        let (number, record) = self.linked(namespace, name)?;
        let reason = if record.entry.has_expired(end.now_ns) { Reason::Expired } else { end.reason };
        self.unbind_entry(number, End { reason, ..end })
    }

    /// Unbinds the name in entry `number`.
    fn unbind_entry(&mut self, number: u32, end: End) -> Option<Unbound> {
        let record = self.present.get(number)?;
        let state = self.namespaces.registered(record.namespace);
        let (id, namespace) = (state.name_id(&record.name), state.namespace.clone());
        let record = self.present.remove(&id)?;
        self.namespaces.unbound(record.namespace, &record.name, &record.entry, end.version);
        let want = self.want(number, &record, end.version);
        let end = self.endings.end_of(number).unwrap_or(end);
        self.endings.remove(number, &record);
        self.cached.remove(record.queued);
        self.recalls.unbind(number, self.rounds);
        self.recalls.set_sliding(number, false);
        let (name, entry) = (Arc::clone(&record.name), record.entry);
        let ended = self.end(record, end, want, None);
        Some(Unbound { number, id, namespace, name, entry, ended })
    }

    /// Who wants the binding in entry `number` if it ends with change number `ended`, or if it has ended before.
    fn want(&self, number: u32, record: &Record, ended: u64) -> Want {
        if self.past.is_idle() {
            return Want::default();
        }
        let state = self.namespaces.registered(record.namespace);
        if state.is_cache {
            return Want::default();
        }
        let ended = self.endings.end_of(number).map_or(ended, |end| end.version);
        let want = self.past.want(&state.namespace, record.entry.version, ended);
        if self.endings.is_purged(number) { want.without_history() } else { want }
    }

    /// How many bindings more the past keeps when the one in entry `number` ends now.
    pub(crate) fn keeps(&self, number: u32, record: &Record) -> u64 {
        if self.want(number, record, u64::MAX).is_none() {
            return 0;
        }
        let state = self.namespaces.registered(record.namespace);
        u64::from(!self.past.makes_way(&state.namespace, &record.name))
    }

    /// `record` is bound no more: the past keeps it if somebody wants it. `successor` is the object that its name got.
    fn end(&mut self, record: Record, end: End, want: Want, successor: Option<ObjectNumber>) -> Ended {
        let object = record.object;
        if want.is_none() {
            self.text_bytes -= record.text_bytes();
            return Ended { version: end.version, object, is_kept: false, made_way: None };
        }
        let state = self.namespaces.registered(record.namespace);
        let bytes = if object.is_some() && object == successor { 0 } else { record.entry.len_bytes };
        let gone = self.past.keep(&state.namespace, *state.prefix(), want, |of| Kept {
            of,
            name: record.name,
            entry: record.entry,
            object,
            object_uuid: record.object_uuid,
            writer_pid: record.writer_pid,
            bound_by: record.bound_by,
            description: record.description,
            metadata: record.metadata,
            end,
            bytes,
            held_at: 0,
            sequence: 0,
            in_history: false,
        });
        let made_way = gone.and_then(|gone| self.forget_kept(&gone));
        Ended { version: end.version, object, is_kept: true, made_way }
    }

    /// The past keeps this no more. Returns its object.
    fn forget_kept(&mut self, gone: &Kept) -> Option<ObjectNumber> {
        self.text_bytes -= gone.text_bytes();
        gone.object
    }

    /// What `name` was bound to at `moment`. A cache has no past: there it is what it is bound to at `now_ns`.
    pub(crate) fn find_at(
        &self,
        namespace: &Namespace,
        name: &str,
        moment: u64,
        now_ns: u64,
    ) -> Option<Then<'_>> {
        let id = self.namespace(namespace);
        if let Some((number, record)) = id.and_then(|id| self.linked(id, name)) {
            let has_ended = || self.endings.end_of(number).is_some_and(|end| end.version <= moment);
            let was_bound = match self.namespaces.registered(record.namespace).is_cache {
                true => !record.entry.has_expired(now_ns),
                false => record.entry.version <= moment && !has_ended(),
            };
            if was_bound {
                return Some(Then::Now(record));
            }
        }
        self.past.at(namespace, name, moment).map(Then::Kept)
    }

    /// The name that comes first after `after`, of those that are bound in a namespace and those that something is kept of.
    pub(crate) fn next_name(&self, namespace: &Namespace, after: Option<&str>) -> Option<Arc<str>> {
        self.first_name_in(namespace, after.map_or(Bound::Unbounded, Bound::Excluded))
    }

    /// As [`next_name`](Self::next_name), with `from` itself.
    pub(crate) fn name_from(&self, namespace: &Namespace, from: &str) -> Option<Arc<str>> {
        self.first_name_in(namespace, Bound::Included(from))
    }

    fn first_name_in(&self, namespace: &Namespace, start: Bound<&str>) -> Option<Arc<str>> {
        let state = self.namespace(namespace).and_then(|id| self.namespaces.get(id));
        let bound = state.and_then(|state| state.names.range::<str, _>((start, Bound::Unbounded)).next());
        let kept = self.past.names_from(namespace, start).next();
        bound.map(|(name, _)| name).into_iter().chain(kept).min().cloned()
    }

    /// How many bindings more the past keeps at most when all names of a namespace are unbound. `removed`: its history and
    /// its snapshots go with it.
    pub(crate) fn keeps_all(&self, id: NamespaceId, removed: bool) -> u64 {
        let Some(state) = self.namespaces.get(id).filter(|state| !state.is_cache && !self.past.is_idle())
        else {
            return 0;
        };
        let is_wanted = match removed {
            true => self.past.has_views_of(&state.namespace),
            false => self.past.is_kept(&state.namespace) || self.past.has_views_of(&state.namespace),
        };
        if is_wanted { state.names.len() as u64 } else { 0 }
    }

    /// Whether `namespace` is a cache, or will be as soon as there is one of that name.
    pub(crate) fn is_cache(&self, namespace: &Namespace) -> bool {
        self.namespaces.is_cache(namespace)
    }

    /// From change number `version` on so much is kept of a namespace.
    pub(crate) fn declare_history(&mut self, id: NamespaceId, history: Option<History>, version: u64) {
        let state = self.namespaces.registered(id);
        self.past.declare(&state.namespace, *state.prefix(), history, version);
    }

    /// Takes a snapshot of some namespaces, which exist, under a label that is not taken.
    pub(crate) fn take_snapshot(&mut self, label: &Label, mut snapshot: Snapshot) {
        for namespace in &snapshot.namespaces {
            let Some(state) = self.namespace(namespace).and_then(|id| self.namespaces.get(id)) else {
                continue;
            };
            let info = state.info();
            snapshot.names += info.names;
            snapshot.bytes += info.bytes;
        }
        self.past.hold(label, snapshot, NamespacePrefix::new);
    }

    /// History does not want one of the bindings any more that it has of a name. Returns the object of one that nobody wants
    /// then; `None` if history has nothing of the name.
    pub(crate) fn purge_one(&mut self, namespace: &Namespace, name: &str) -> Option<Option<ObjectNumber>> {
        if let Some((number, _)) = self.namespace(namespace).and_then(|id| self.linked(id, name)) {
            self.endings.purge(number);
        }
        match self.past.purge_one(namespace, name) {
            Purged::Nothing => None,
            Purged::One(gone) => Some(gone.and_then(|gone| self.forget_kept(&gone))),
        }
    }

    /// Looks for a binding of the past that nobody wants any more, for as long as `slice` lasts. Returns its object; `None`
    /// if there was none in time, or there is none.
    pub(crate) fn judge_past(&mut self, now_ns: u64, slice: &mut Slice) -> Option<Option<ObjectNumber>> {
        match self.past.judge(now_ns, slice) {
            Judged::Gone(gone) => Some(self.forget_kept(&gone)),
            Judged::Nothing | Judged::NoTime => None,
        }
    }

    /// When the first binding expires, or has expired that is not unbound yet: CLOCK_BOOTTIME, in nanoseconds.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.endings.first_deadline().map(|(at, _)| at)
    }

    /// Whether something that has expired at `now_ns` is not unbound yet.
    fn has_expired_ones(&self, now_ns: u64) -> bool {
        self.next_expiry().is_some_and(|at| at <= now_ns) || self.endings.first_put_off().is_some()
    }

    /// Unbinds the binding that expired first, if one has by the time of `end`.
    pub(crate) fn expire(&mut self, end: End) -> Ending {
        match self.endings.first_deadline() {
            Some((at, number)) if at <= end.now_ns => self.end_entry(number, end),
            _ => Ending::Nothing,
        }
    }

    /// Unbinds one of the bindings that end with `session`, if there is one.
    pub(crate) fn end_one_of(&mut self, session: SessionId, end: End) -> Ending {
        let Some(number) = self.endings.first_of(session) else { return Ending::Nothing };
        self.end_entry(number, end)
    }

    /// Unbinds a binding that had to be unbound before, when there was no room to keep it, and there is now.
    pub(crate) fn end_put_off(&mut self) -> Ending {
        match self.endings.first_put_off().filter(|_| self.past.room() > 0) {
            Some((number, end)) => self.end_entry(number, end),
            None => Ending::Nothing,
        }
    }

    /// Whether [`end_put_off`](Self::end_put_off) has something to do.
    pub(crate) fn has_put_off(&self) -> bool {
        self.endings.first_put_off().is_some() && self.past.room() > 0
    }

    /// How many have to be unbound when there is room to keep them.
    #[cfg(test)]
    pub(crate) fn put_off_count(&self) -> usize {
        self.endings.put_off_count()
    }

    /// Unbinds the binding in entry `number`, which has to end, or notes that it will be unbound later: from now on it is
    /// expired.
    fn end_entry(&mut self, number: u32, end: End) -> Ending {
        let Some(record) = self.present.get(number) else { return Ending::Nothing };
        if self.keeps(number, record) <= self.past.room() {
            let unbound = self.unbind_entry(number, end);
            return unbound.map_or(Ending::Nothing, |unbound| Ending::Unbound(Box::new(unbound)));
        }
        self.endings.put_off_unbinding(number, record, end);
        let (has_expired, namespace) = (record.entry.has_expired(end.now_ns), record.namespace);
        let id = self.namespaces.registered(namespace).name_id(&record.name);
        if !has_expired {
            self.present.set_expiry(&id, number, end.now_ns);
        }
        if let Some(record) = self.present.get_mut(number) {
            record.owner = None;
        }
        self.namespaces.note_change(namespace, end.version);
        Ending::PutOff
    }

    /// Whether bindings end with `session`.
    pub(crate) fn has_ephemeral(&self, session: SessionId) -> bool {
        self.endings.first_of(session).is_some()
    }

    /// The binding in entry `number` was recalled: if its time to live slides, it begins anew at `now_ns`. What has
    /// expired stays gone.
    pub(crate) fn slide(&mut self, number: u32, now_ns: u64) {
        let Some(record) = self.present.get(number).filter(|record| record.is_sliding()) else { return };
        let before_ns = record.entry.expires_ns;
        let Some(at) = record.ttl.as_ref().and_then(|ttl| deadline(ttl, now_ns)) else { return };
        if record.entry.has_expired(now_ns) || at <= before_ns {
            return;
        }
        let id = self.namespaces.registered(record.namespace).name_id(&record.name);
        self.present.set_expiry(&id, number, at);
        self.endings.put_off(number, before_ns, at);
    }

    /// Begins to make a commit of several names visible.
    pub(crate) fn open_epoch(&self) {
        self.present.open_epoch();
    }

    /// All of the commit is visible.
    pub(crate) fn close_epoch(&self) {
        self.present.close_epoch();
    }

    /// Tells all readers that the store has shut down; nothing can be found in the index any more.
    pub(crate) fn close(&mut self) {
        self.present.close();
    }

    /// Begins a round of collecting recalls from `regions`. One at a time.
    pub(crate) fn begin_round(&mut self, regions: Vec<Arc<WordsMapping>>) -> CollectJob {
        self.rounds += 1;
        CollectJob { round: self.rounds, recalls: Arc::clone(&self.recalls), regions }
    }
}

/// When the binding in entry `number`, learned at `learned_ns`, was last recalled or learned, as far as is known.
fn last_use(recalls: &Recalls, number: u32, learned_ns: u64) -> u64 {
    recalls.last(number).map_or(learned_ns, |recalled_ns| recalled_ns.max(learned_ns))
}

/// When a binding expires whose time to live begins at `now_ns`; `None` if the clock never gets there.
fn deadline(ttl: &Ttl, now_ns: u64) -> Option<u64> {
    let slack_ns = if ttl.is_sliding { SLIDING_SLACK_NS } else { 0 };
    now_ns.checked_add(ttl.ttl_ns)?.checked_add(slack_ns)
}

/// What a limit on names of all is for whoever asks: users that are merely admitted cannot use up what the store's own has.
fn limit_for(max: u64, is_own: bool) -> u64 {
    if is_own { max } else { max / 2 }
}

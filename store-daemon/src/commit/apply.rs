//! Making a commit visible: names are unbound, then namespaces are made and names bound. Nothing here can fail.
//!
//! `CommitJob::work` runs this stage when the checks have passed.

use super::{
    Announcing, Extents, Ids, Lists, Stage, Step, Workbench, Writer,
    restore::{Restored, moment_of, restored},
    sources::{Sharing, Source},
};
use crate::{
    catalog::{End, NamespaceId, NewBinding, Term, Text, realtime_ns},
    objects::ObjectNumber,
    slice::Slice,
};
use plasmon_protocol::{
    id::NameId,
    index::{Entry, NO_EXTENT},
    index_of, limits,
    message::{Bind, Change, Committed, Lives, Payload, Reason, SameAs},
    name::{Label, Name, Namespace},
    object::Header,
};
use plasmon_shm::{FaultPoint, fault_point};
use std::sync::Arc;

/// Some of the changes are visible, and others are not.
#[derive(Debug)]
pub(super) struct Applying {
    lists: Box<Lists>,
    extents: Extents,
    ids: Ids,
    /// When its turn came, by CLOCK_BOOTTIME.
    moment_ns: u64,
    created_ns: u64,
    /// The time in the ids of its objects, in milliseconds since 1970.
    id_ms: u64,
    committed: Committed,
    /// Of the names that were unbound or restored those that somebody waits for.
    changed_waited: Vec<NameId>,
    /// Whether the index says that a commit of several names is being made visible.
    epoch_is_open: bool,
    phase: Phase,
    /// Whether a change unbinds names.
    unbinds: bool,
    /// What names get whose changes bring nothing of their own.
    sharing: Option<Box<Sharing>>,
    /// A change that takes longer than an entry, and is gone on with.
    held_back: Option<Arc<Change>>,
    /// How far the names of a namespace are queued that becomes a cache, or restored.
    last_name: Option<Arc<str>>,
}

/// What the changes are gone through for.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Objects that get further names are held, so that none goes with a name that it loses. So many are.
    Holding(usize),
    Unbinding,
    Binding,
}

/// Changes of a commit are counted with this many bits.
const COMMIT_ENTRIES_BITS: u32 = limits::COMMIT_ENTRIES_MAX.ilog2() + 1;

impl Applying {
    /// The commit gets its version.
    pub(super) fn begin(
        bench: &mut Workbench<'_>,
        mut lists: Box<Lists>,
        extents: Extents,
        ids: Ids,
        moment_ns: u64,
    ) -> Self {
        let version = bench.versions.next();
        let created_ns = realtime_ns();
        // Ids sort by age, also while the clock stands before where it was.
        let id_ms = (created_ns / 1_000_000).max(bench.versions.last_id_ms);
        bench.versions.last_id_ms = id_ms;
        lists.changes.rewind();
        Applying {
            lists,
            extents,
            ids,
            moment_ns,
            created_ns,
            id_ms,
            committed: Committed { version, unbound: 0, unbound_bytes: 0 },
            changed_waited: Vec::new(),
            epoch_is_open: false,
            phase: Phase::Holding(0),
            unbinds: false,
            sharing: None,
            held_back: None,
            last_name: None,
        }
    }

    /// Readers of several names are told that they have to wait, if several names change.
    pub(super) fn of_several_names(mut self, bench: &Workbench<'_>, are_several: bool) -> Self {
        if are_several {
            bench.catalog.open_epoch();
            self.epoch_is_open = true;
        }
        self
    }

    /// The changes are gone through for names that are unbound, if there are any, before names are bound.
    pub(super) fn unbinding_first(mut self, unbinds: bool) -> Self {
        self.unbinds = unbinds;
        self
    }

    /// Names get objects that are there, or those of earlier changes.
    pub(super) fn sharing(mut self, sharing: Option<Box<Sharing>>) -> Self {
        self.sharing = sharing;
        if let Some(sharing) = self.sharing.as_mut().filter(|sharing| sharing.refers) {
            sharing.made.reserve_exact(self.extents.len());
        }
        self
    }

    #[inline]
    pub(super) fn run(
        mut self: Box<Self>,
        bench: &mut Workbench<'_>,
        writer: Writer,
        slice: &mut Slice,
    ) -> Step {
        while slice.spend() {
            if let Phase::Holding(held) = self.phase {
                self.hold(bench, held);
                continue;
            }
            match (self.held_back.take().or_else(|| self.lists.changes.again()), self.phase) {
                (Some(change), Phase::Unbinding) => self.unbind(bench, change),
                (Some(change), _) => {
                    self.bind(bench, writer, &change);
                    fault_point(FaultPoint::CommitHalfVisible);
                }
                (None, Phase::Unbinding) => {
                    self.phase = Phase::Binding;
                    self.lists.changes.rewind();
                }
                (None, _) => return self.end(bench),
            }
        }
        Step::NoTime(Stage::Applying(self))
    }

    /// Holds the object of source number `held`. The binding that is made of it takes this holder over.
    fn hold(&mut self, bench: &mut Workbench<'_>, held: usize) {
        self.phase = match self.sharing.as_ref().and_then(|sharing| sharing.sources.get(held)) {
            Some(source) => {
                source.object.into_iter().for_each(|object| bench.objects.hold(object));
                Phase::Holding(held + 1)
            }
            None if self.unbinds => Phase::Unbinding,
            None => Phase::Binding,
        };
    }

    fn end(self, bench: &Workbench<'_>) -> Step {
        if self.epoch_is_open {
            bench.catalog.close_epoch();
        }
        let Applying { mut lists, ids, committed, changed_waited, .. } = self;
        lists.changes.rewind();
        Step::Next(Stage::Announcing(Announcing { lists, ids, committed, changed_waited }))
    }

    /// Unbinds one name, if the change is to.
    fn unbind(&mut self, bench: &mut Workbench<'_>, change: Arc<Change>) {
        match &*change {
            Change::Unbind { namespace, name } => {
                if let Some(id) = bench.catalog.namespace(namespace) {
                    self.unbind_one(bench, id, name, Reason::Forgotten);
                }
            }
            Change::RemoveNamespace { namespace }
            | Change::RemoveEmptyNamespace { namespace }
            | Change::ClearNamespace { namespace } => {
                let Some(id) = bench.catalog.namespace(namespace) else { return };
                if !matches!(*change, Change::ClearNamespace { .. }) {
                    bench.catalog.drop_rules(id, self.committed.version);
                }
                match bench.catalog.first_name(id) {
                    Some(name) => {
                        self.unbind_one(bench, id, &name, Reason::Cleared);
                        self.held_back = Some(change); // again, until the namespace is empty
                    }
                    None if matches!(*change, Change::ClearNamespace { .. }) => {}
                    None => bench.catalog.unregister(id, self.committed.version),
                }
            }
            Change::Bind(_)
            | Change::BindEphemeral(_)
            | Change::Replace(_)
            | Change::SameAs(_)
            | Change::RegisterNamespace { .. }
            | Change::DeclareNamespace { .. }
            | Change::DeclareHistory { .. }
            | Change::PurgeHistory { .. }
            | Change::RestoreNamespace { .. }
            | Change::EnsureCache { .. } => {}
        }
    }

    /// Unbinds one name. One that had expired does not count.
    fn unbind_one(&mut self, bench: &mut Workbench<'_>, id: NamespaceId, name: &str, reason: Reason) {
        let end = End { version: self.committed.version, reason, now_ns: self.moment_ns };
        let Some(unbound) = bench.catalog.unbind(id, name, end) else { return };
        if bench.parked.has_waiter(&unbound.id) {
            self.changed_waited.push(unbound.id);
        }
        let is_last = unbound.settle(bench.objects);
        if !unbound.entry.has_expired(self.moment_ns) {
            self.committed.unbound += 1;
            self.committed.unbound_bytes += if is_last { unbound.entry.arena_bytes() } else { 0 };
        }
    }

    /// Makes a namespace or binds a name, if the change is to.
    fn bind(&mut self, bench: &mut Workbench<'_>, writer: Writer, change: &Arc<Change>) {
        match &**change {
            Change::Bind(bind) => {
                let term = Term::For(bind.ttl.clone());
                self.bind_new(bench, writer, bind, How { term, is_ephemeral: false });
            }
            Change::BindEphemeral(bind) => {
                let term = Term::For(bind.ttl.clone());
                self.bind_new(bench, writer, bind, How { term, is_ephemeral: true });
            }
            Change::Replace(bind) => {
                let term = Term::AsBefore(bind.ttl.clone());
                self.bind_new(bench, writer, bind, How { term, is_ephemeral: false });
            }
            Change::SameAs(same) => self.bind_same(bench, writer, same),
            Change::RegisterNamespace { namespace } => {
                self.register(bench, namespace);
            }
            Change::DeclareNamespace { namespace, is_cache, ttl } => {
                let id = self.register(bench, namespace);
                let queues = self.last_name.is_some() || bench.catalog.declare(id, *is_cache, ttl.clone());
                self.queue_name(bench, change, queues.then_some(id));
            }
            Change::EnsureCache { namespace } => {
                let id = self.register(bench, namespace);
                let queues = self.last_name.is_some() || bench.catalog.ensure_cache(id);
                self.queue_name(bench, change, queues.then_some(id));
            }
            Change::DeclareHistory { namespace, history } => {
                let id = self.register(bench, namespace);
                bench.catalog.declare_history(id, history.clone(), self.committed.version);
            }
            Change::PurgeHistory { namespace, name } => {
                if let Some(gone) = bench.catalog.purge_one(namespace, name) {
                    bench.objects.release_if_any(gone);
                    self.held_back = Some(Arc::clone(change)); // again, until there is nothing left of it
                }
            }
            Change::RestoreNamespace { namespace, label } => {
                self.restore_name(bench, writer, change, namespace, label);
            }
            Change::Unbind { .. }
            | Change::RemoveNamespace { .. }
            | Change::RemoveEmptyNamespace { .. }
            | Change::ClearNamespace { .. } => {}
        }
    }

    /// Binds a name to a new object, to a value, or to an object that an earlier change has made.
    #[inline]
    fn bind_new(&mut self, bench: &mut Workbench<'_>, writer: Writer, bind: &Bind, how: How) {
        let at = self.lists.changes.at() - 1;
        let extent = self.extents.get_mut(at).and_then(Option::take);
        let version = self.committed.version;
        let object = match bind.payload {
            // The object is known before it is visible: whoever finds it may pin and release it at once.
            Payload::Inline { ref bytes } => {
                extent.map(|extent| bench.objects.add(extent, bytes.len() as u64, version))
            }
            Payload::Leased { len_bytes, .. } => {
                extent.map(|extent| bench.objects.add(extent, len_bytes, version))
            }
            Payload::AsChange { index } => {
                let sharing = self.sharing.as_ref();
                let made = sharing.and_then(|sharing| sharing.made.get(index_of(index.into())));
                made.copied().flatten().inspect(|object| bench.objects.hold(*object))
            }
            Payload::InHeader => None,
        };
        if let Some(sharing) = self.sharing.as_mut().filter(|sharing| sharing.refers) {
            sharing.made.resize(at, None);
            sharing.made.push(object);
        }
        let object_uuid = self.object_uuid(bench.uuid_seed);
        let new = NewBinding {
            entry: self.entry(bench, object, bind.header, writer.uid),
            object,
            object_uuid,
            writer_pid: writer.pid,
            bound_by: (writer.pid, writer.uid),
            now_ns: self.moment_ns,
            term: how.term,
            owner: how.is_ephemeral.then_some(writer.session),
            description: bind.description.as_deref().map(Text::from),
            metadata: bind.metadata.as_deref().map(Text::from),
        };
        self.bind_name(bench, &bind.namespace, &bind.name, new);
    }

    /// Binds a name to the object of another one. What was resolved before stands in the sources, in the same order.
    fn bind_same(&mut self, bench: &mut Workbench<'_>, writer: Writer, same: &SameAs) {
        let sharing = self.sharing.as_mut().expect("every source was resolved");
        let source = sharing.sources.get(sharing.used).cloned().expect("every source was resolved");
        sharing.used += 1;
        let text = |given: &Option<String>, its: Text| Some(given.as_deref().map_or(its, Text::from));
        let (term, owner) = match &same.lives {
            Lives::AsDeclared => (Term::For(None), None),
            Lives::For(ttl) => (Term::For(Some(ttl.clone())), None),
            Lives::AsSource => (Term::Until(source.entry.expires_ns, source.ttl), source.owner),
        };
        let new = NewBinding {
            entry: self.entry(bench, source.object, source.entry.header, source.entry.writer_uid),
            object: source.object,
            object_uuid: source.object_uuid,
            writer_pid: source.writer_pid,
            bound_by: (writer.pid, writer.uid),
            now_ns: self.moment_ns,
            term,
            owner,
            description: text(&same.description, source.description),
            metadata: text(&same.metadata, source.metadata),
        };
        self.bind_name(bench, &same.namespace, &same.name, new);
    }

    /// Makes the next name of a namespace what it was at the moment of a snapshot. That is done again while there are more.
    fn restore_name(
        &mut self,
        bench: &mut Workbench<'_>,
        writer: Writer,
        change: &Arc<Change>,
        namespace: &Namespace,
        label: &Label,
    ) {
        let moment = moment_of(bench.catalog, namespace, label).expect("the snapshot was checked, and stays");
        let id = self.register(bench, namespace);
        self.last_name = bench.catalog.next_name(namespace, self.last_name.as_deref());
        let Some(name) = self.last_name.clone() else { return };
        self.held_back = Some(Arc::clone(change));
        match restored(bench.catalog, namespace, &name, moment, self.moment_ns) {
            Restored::Stays => {}
            Restored::Unbound => self.unbind_one(bench, id, &name, Reason::Forgotten),
            Restored::Bound(source) => {
                let Source { entry, object, object_uuid, writer_pid, description, metadata, .. } = *source;
                object.into_iter().for_each(|object| bench.objects.hold(object));
                let new = NewBinding {
                    entry: self.entry(bench, object, entry.header, entry.writer_uid),
                    object,
                    object_uuid,
                    writer_pid,
                    bound_by: (writer.pid, writer.uid),
                    now_ns: self.moment_ns,
                    term: Term::For(None),
                    owner: None,
                    description: Some(description),
                    metadata: Some(metadata),
                };
                let name = Name::new(&name).expect("it is one already");
                let name_id = NameId::new(namespace, &name);
                if bench.parked.has_waiter(&name_id) {
                    self.changed_waited.push(name_id);
                }
                self.bind_with_id(bench, namespace, &name, &name_id, new);
                fault_point(FaultPoint::NameRestored);
            }
        }
    }

    /// Makes sure that a namespace exists.
    fn register(&self, bench: &mut Workbench<'_>, namespace: &Namespace) -> NamespaceId {
        bench.catalog.register(namespace, self.committed.version).expect("its prefix was checked")
    }

    /// What the index is to show of a binding to `object`, or to a value in its header.
    fn entry(
        &self,
        bench: &Workbench<'_>,
        object: Option<ObjectNumber>,
        header: Header,
        writer_uid: u32,
    ) -> Entry {
        let object = object.and_then(|object| bench.objects.get(object));
        Entry {
            version: self.committed.version,
            offset: object.map_or(NO_EXTENT, |object| object.homes.root().offset),
            len_bytes: object.map_or(header.ndim.into(), |object| object.len_bytes),
            created_ns: self.created_ns,
            expires_ns: 0, // the catalog knows
            writer_uid,
            header,
        }
    }

    #[inline]
    fn bind_name(&mut self, bench: &mut Workbench<'_>, namespace: &Namespace, name: &Name, new: NewBinding) {
        let id = self.ids.of(self.lists.changes.at() - 1, namespace, name);
        self.bind_with_id(bench, namespace, name, &id, new);
    }

    #[inline]
    fn bind_with_id(
        &self,
        bench: &mut Workbench<'_>,
        namespace: &Namespace,
        name: &Name,
        id: &NameId,
        new: NewBinding,
    ) {
        let object = new.object;
        let number = self.register(bench, namespace);
        let bound = bench.catalog.bind(number, id, name, new);
        bound.settle(bench.objects, object, || format!("{namespace}/{name}"));
    }

    /// Queues a name of a namespace that has become a cache with `change`, which is done again while there are more.
    fn queue_name(&mut self, bench: &mut Workbench<'_>, change: &Arc<Change>, cache: Option<NamespaceId>) {
        let Some(id) = cache else { return };
        self.last_name = bench.catalog.queue_after(id, self.last_name.as_deref());
        if self.last_name.is_some() {
            self.held_back = Some(Arc::clone(change));
        }
    }

    /// A UUIDv7 for the object of the change that is being made: the version and the change's place in the commit make
    /// it unique in this store, the seed among all. (Asking the kernel for random bytes would take longer than binding.)
    fn object_uuid(&self, seed: [u8; 16]) -> [u8; 16] {
        let number = (self.committed.version << COMMIT_ENTRIES_BITS) | self.lists.changes.at() as u64;
        let tail = u128::from_le_bytes(seed).wrapping_add(number.into()).to_be_bytes();
        let tail = tail.last_chunk().expect("16 bytes end with 10");
        uuid::Builder::from_unix_timestamp_millis(self.id_ms, tail).into_uuid().into_bytes()
    }
}

/// How a name is bound to something new.
#[derive(Clone, Debug)]
struct How {
    term: Term,
    is_ephemeral: bool,
}

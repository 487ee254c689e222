//! Making a commit visible: names are unbound, then namespaces are made and names bound. Nothing here can fail.
//!
//! `CommitJob::work` runs this stage when the checks have passed.

use super::{Announcing, Extents, Ids, Lists, Stage, Step, Workbench, Writer};
use crate::{
    catalog::{NamespaceId, NewBinding, realtime_ns},
    slice::Slice,
};
use plasmon_protocol::{
    id::NameId,
    index::{Entry, NO_EXTENT},
    limits,
    message::{Bind, Change, Committed, Payload},
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
    /// Of the names that were unbound those that somebody waits for.
    unbound_waited: Vec<NameId>,
    /// Whether the index says that a commit of several names is being made visible.
    epoch_is_open: bool,
    /// Whether names are still being unbound.
    is_unbinding: bool,
    /// A change that takes longer than an entry, and is gone on with.
    held_back: Option<Arc<Change>>,
    /// How far the names of a namespace are queued that becomes a cache.
    queued: Option<Arc<str>>,
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
        bench.versions.last += 1;
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
            committed: Committed { version: bench.versions.last, unbound: 0, unbound_bytes: 0 },
            unbound_waited: Vec::new(),
            epoch_is_open: false,
            is_unbinding: false,
            held_back: None,
            queued: None,
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
        self.is_unbinding = unbinds;
        self
    }

    pub(super) fn run(mut self, bench: &mut Workbench<'_>, writer: Writer, slice: &mut Slice) -> Step {
        while slice.spend() {
            match self.held_back.take().or_else(|| self.lists.changes.again()) {
                Some(change) if self.is_unbinding => self.unbind(bench, change),
                Some(change) => {
                    self.bind(bench, writer, &change);
                    fault_point(FaultPoint::CommitHalfVisible);
                }
                None if self.is_unbinding => {
                    self.is_unbinding = false;
                    self.lists.changes.rewind();
                }
                None => return self.end(bench),
            }
        }
        Step::NoTime(Stage::Applying(self))
    }

    fn end(self, bench: &Workbench<'_>) -> Step {
        if self.epoch_is_open {
            bench.catalog.close_epoch();
        }
        let Applying { mut lists, ids, committed, unbound_waited, .. } = self;
        lists.changes.rewind();
        Step::Next(Stage::Announcing(Announcing { lists, ids, committed, unbound_waited }))
    }

    /// Unbinds one name, if the change is to.
    fn unbind(&mut self, bench: &mut Workbench<'_>, change: Arc<Change>) {
        match &*change {
            Change::Unbind { namespace, name } => {
                if let Some(id) = bench.catalog.namespace(namespace) {
                    self.unbind_one(bench, id, name);
                }
            }
            Change::RemoveNamespace { namespace }
            | Change::RemoveEmptyNamespace { namespace }
            | Change::ClearNamespace { namespace } => {
                let Some(id) = bench.catalog.namespace(namespace) else { return };
                match bench.catalog.first_name(id) {
                    Some(name) => {
                        self.unbind_one(bench, id, &name);
                        self.held_back = Some(change); // again, until the namespace is empty
                    }
                    None if matches!(*change, Change::ClearNamespace { .. }) => {}
                    None => bench.catalog.unregister(id),
                }
            }
            Change::Bind(_)
            | Change::BindEphemeral(_)
            | Change::Replace(_)
            | Change::RegisterNamespace { .. }
            | Change::DeclareNamespace { .. }
            | Change::EnsureCache { .. } => {}
        }
    }

    /// Unbinds one name. One that had expired does not count.
    fn unbind_one(&mut self, bench: &mut Workbench<'_>, id: NamespaceId, name: &str) {
        let Some(unbound) = bench.catalog.unbind(id, name) else { return };
        if bench.parked.has_waiter(&unbound.id) {
            self.unbound_waited.push(unbound.id);
        }
        if let Some(object) = unbound.object {
            bench.objects.release(object, || unbound.label());
        }
        if !unbound.entry.has_expired(self.moment_ns) {
            self.committed.unbound += 1;
            self.committed.unbound_bytes += unbound.entry.arena_bytes();
        }
    }

    /// Makes a namespace or binds a name, if the change is to.
    fn bind(&mut self, bench: &mut Workbench<'_>, writer: Writer, change: &Arc<Change>) {
        match &**change {
            Change::Bind(bind) => self.bind_name(bench, writer, bind, Binding::default()),
            Change::BindEphemeral(bind) => {
                self.bind_name(bench, writer, bind, Binding { is_ephemeral: true, keeps_ttl: false });
            }
            Change::Replace(bind) => {
                self.bind_name(bench, writer, bind, Binding { is_ephemeral: false, keeps_ttl: true });
            }
            Change::RegisterNamespace { namespace } => {
                bench.catalog.register(namespace).expect("its prefix was checked");
            }
            Change::DeclareNamespace { namespace, is_cache, ttl } => {
                let id = bench.catalog.register(namespace).expect("its prefix was checked");
                let queues = self.queued.is_some() || bench.catalog.declare(id, *is_cache, ttl.clone());
                self.queue_name(bench, change, queues.then_some(id));
            }
            Change::EnsureCache { namespace } => {
                let id = bench.catalog.register(namespace).expect("its prefix was checked");
                let queues = self.queued.is_some() || bench.catalog.ensure_cache(id);
                self.queue_name(bench, change, queues.then_some(id));
            }
            Change::Unbind { .. }
            | Change::RemoveNamespace { .. }
            | Change::RemoveEmptyNamespace { .. }
            | Change::ClearNamespace { .. } => {}
        }
    }

    fn bind_name(&mut self, bench: &mut Workbench<'_>, writer: Writer, bind: &Bind, how: Binding) {
        let at = self.lists.changes.at() - 1;
        let namespace = bench.catalog.register(&bind.namespace).expect("its prefix was checked");
        let extent = self.extents.get_mut(at).and_then(Option::take);
        let len_bytes = match bind.payload {
            Payload::Inline { ref bytes } => bytes.len() as u64,
            Payload::Leased { len_bytes, .. } => len_bytes,
            Payload::InHeader => bind.header.ndim.into(),
        };
        let version = self.committed.version;
        // The object is known before it is visible: whoever finds it may pin and release it at once.
        let object = extent.map(|extent| bench.objects.add(extent, len_bytes, version));
        let new = NewBinding {
            entry: Entry {
                version,
                offset: extent.map_or(NO_EXTENT, |extent| extent.offset),
                len_bytes,
                created_ns: self.created_ns,
                expires_ns: 0, // the catalog knows
                writer_uid: writer.uid,
                header: bind.header,
            },
            object,
            object_uuid: self.object_uuid(bench.uuid_seed),
            writer_pid: writer.pid,
            now_ns: self.moment_ns,
            ttl: bind.ttl.clone(),
            keeps_ttl: how.keeps_ttl,
            owner: how.is_ephemeral.then_some(writer.session),
            description: bind.description.as_deref(),
            metadata: bind.metadata.as_deref(),
        };
        let bound = bench.catalog.bind(namespace, &self.ids.of(at, bind), &bind.name, new);
        if let Some(object) = object {
            bench.objects.name(object, bound.number);
        }
        if let Some(replaced) = bound.replaced {
            bench.objects.release(replaced, || format!("{}/{}", bind.namespace, bind.name));
        }
    }

    /// Queues a name of a namespace that has become a cache with `change`, which is done again while there are more.
    fn queue_name(&mut self, bench: &mut Workbench<'_>, change: &Arc<Change>, cache: Option<NamespaceId>) {
        let Some(id) = cache else { return };
        self.queued = bench.catalog.queue_after(id, self.queued.as_deref());
        if self.queued.is_some() {
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

/// How a name is bound, besides plainly.
#[derive(Clone, Copy, Debug, Default)]
struct Binding {
    is_ephemeral: bool,
    keeps_ttl: bool,
}

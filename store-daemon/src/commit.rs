//! One commit on its way: its room is taken first, then it waits its turn, then it happens or it does not.
//!
//! A commit at the head of the queue is the only one that changes the catalog, so its checks hold until it is done,
//! even where it is worked off in slices. After the checks nothing can fail.

use crate::{
    allocator::Extent,
    catalog::{Catalog, NamespaceId, NewBinding},
    connection::ConnectionId,
    session::SessionId,
    space::{LeaseId, Object, ObjectName, Space},
};
use plasmon_protocol::{
    id::{NameId, NamespacePrefix},
    limits,
    message::{Bind, Change, Commit, Committed, Condition, Expect, Failure, Payload},
    name::Namespace,
    object::Flags,
};
use plasmon_shm::Region;
use std::{
    collections::{HashMap, HashSet},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Where a reply goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplyTo {
    pub(crate) connection: ConnectionId,
    pub(crate) request_id: u64,
}

/// Who asked for a commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer {
    pub(crate) session: SessionId,
    pub(crate) pid: u32,
    pub(crate) uid: u32,
}

/// What the daemon lends to a commit while it works.
pub(crate) struct Workbench<'a> {
    pub(crate) catalog: &'a mut Catalog,
    pub(crate) space: &'a mut Space,
    pub(crate) arena: &'a Region,
    pub(crate) last_version: &'a mut u64,
}

/// How far a commit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Copying payloads that came in the message into the arena.
    Write,
    /// Checking conditions and changes.
    Check,
    /// Unbinding.
    Unbind,
    /// Registering and binding.
    Bind,
}

/// What a slice of work came to.
#[derive(Debug)]
pub(crate) enum Slice {
    /// There is more to do.
    More,
    /// It is over.
    Done(Result<Committed, Failure>),
}

/// One commit on its way.
#[derive(Debug)]
pub(crate) struct CommitJob {
    pub(crate) reply_to: ReplyTo,
    pub(crate) writer: Writer,
    pub(crate) commit: Commit,
    /// Parallel to the changes: the extent of each object that is to be bound.
    extents: Vec<Option<Extent>>,
    stage: Stage,
    at: usize,
    checks: Checks,
    /// 0 until the checks are passed.
    version: u64,
    created_ns: u64,
    unbound: u64,
    unbound_bytes: u64,
    epoch_is_open: bool,
}

/// What checking has gathered.
#[derive(Debug, Default)]
struct Checks {
    touched: HashSet<NameId>,
    emptied: HashSet<Namespace>,
    bound_in: HashSet<Namespace>,
    prefixes: HashMap<NamespacePrefix, Namespace>,
    new_names: u64,
    /// Names that are unbound one by one.
    unbound_names: u64,
    /// Names that go with all others of their namespace.
    emptied_names: u64,
}

/// Entries worked off between two looks at the clock.
const ENTRIES_PER_LOOK: usize = 32;

impl CommitJob {
    /// Takes room for the payloads that came in the message.
    ///
    /// # Errors
    /// [`NotPlaced`], with the commit as it was; nothing has changed.
    pub(crate) fn place(
        reply_to: ReplyTo,
        writer: Writer,
        commit: Commit,
        space: &mut Space,
    ) -> Result<Box<CommitJob>, Box<NotPlaced>> {
        let mut extents = Vec::with_capacity(commit.changes.len());
        for change in &commit.changes {
            let extent = match change {
                Change::Bind { bind: Bind { payload: Payload::Inline { bytes }, .. } } => {
                    let len_bytes = bytes.len() as u64;
                    let limit_bytes = u64::from(limits::INLINE_BYTES_MAX);
                    let problem = if len_bytes == 0 || len_bytes > limit_bytes {
                        let what = "a payload that travels in a message (at least 1 byte)".to_owned();
                        Err(NoPlace::Failure(Failure::TooLarge { what, found_bytes: len_bytes, limit_bytes }))
                    } else {
                        space.allocate(len_bytes).ok_or(NoPlace::NoRoom { len_bytes })
                    };
                    match problem {
                        Ok(extent) => Some(extent),
                        Err(problem) => {
                            extents.into_iter().flatten().for_each(|extent| space.release(extent));
                            return Err(Box::new(NotPlaced { commit, problem }));
                        }
                    }
                }
                _ => None,
            };
            extents.push(extent);
        }
        Ok(Box::new(CommitJob {
            reply_to,
            writer,
            commit,
            extents,
            stage: Stage::Write,
            at: 0,
            checks: Checks::default(),
            version: 0,
            created_ns: 0,
            unbound: 0,
            unbound_bytes: 0,
            epoch_is_open: false,
        }))
    }

    /// The extents that must be populated before the payloads are written.
    pub(crate) fn placed(&self) -> impl Iterator<Item = Extent> {
        self.extents.iter().flatten().copied()
    }

    /// Gives back the room of a commit that will not happen.
    pub(crate) fn abandon(&mut self, space: &mut Space) {
        for extent in self.extents.iter_mut().filter_map(Option::take) {
            space.unclaim(extent);
        }
    }

    /// Whether some of its changes are visible, and others are not.
    pub(crate) fn is_half_visible(&self) -> bool {
        self.version != 0
    }

    /// The ids of the names that the commit binds.
    pub(crate) fn bound_ids(&self) -> impl Iterator<Item = NameId> {
        self.commit.changes.iter().filter_map(|change| match change {
            Change::Bind { bind } => Some(NameId::new(&bind.namespace, &bind.name)),
            _ => None,
        })
    }

    /// Works until it is done, or until `until` has passed.
    pub(crate) fn work(&mut self, bench: &mut Workbench<'_>, until: Instant) -> Slice {
        loop {
            for _ in 0..ENTRIES_PER_LOOK {
                match self.step(bench) {
                    Ok(true) => {}
                    Ok(false) => return Slice::Done(Ok(self.finish(bench))),
                    Err(failure) => {
                        self.abandon(bench.space);
                        return Slice::Done(Err(failure));
                    }
                }
            }
            if Instant::now() >= until {
                return Slice::More;
            }
        }
    }

    /// One entry. Returns whether there is more to do.
    fn step(&mut self, bench: &mut Workbench<'_>) -> Result<bool, Failure> {
        let at = self.at;
        self.at += 1;
        match self.stage {
            Stage::Write => match self.commit.changes.get(at) {
                Some(_) => self.write(bench, at)?,
                None => self.enter(Stage::Check),
            },
            Stage::Check => {
                let conditions = self.commit.conditions.len();
                match self.commit.conditions.get(at) {
                    Some(condition) => check_condition(bench.catalog, condition)?,
                    None if at - conditions < self.commit.changes.len() => {
                        self.check(bench, at - conditions)?
                    }
                    None => self.begin(bench)?,
                }
            }
            Stage::Unbind => match self.commit.changes.get(at) {
                Some(_) => self.unbind(bench, at),
                None => self.enter(Stage::Bind),
            },
            Stage::Bind => match self.commit.changes.get(at) {
                Some(_) => self.bind(bench, at),
                None => return Ok(false),
            },
        }
        Ok(true)
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.at = 0;
    }

    fn write(&mut self, bench: &mut Workbench<'_>, at: usize) -> Result<(), Failure> {
        if let (Change::Bind { bind: Bind { payload: Payload::Inline { bytes }, .. } }, Some(extent)) =
            (&self.commit.changes[at], self.extents[at])
        {
            let written = bench.arena.write_at(extent.offset, bytes);
            written.map_err(|error| Failure::Internal { reason: error.to_string() })?;
        }
        Ok(())
    }

    /// Checks one change against the catalog, and against the changes before it.
    fn check(&mut self, bench: &mut Workbench<'_>, at: usize) -> Result<(), Failure> {
        let checks = &mut self.checks;
        match &self.commit.changes[at] {
            Change::Bind { bind } => {
                let Bind { namespace, name, payload, header, .. } = bind;
                if header.flags.has(Flags::INLINE) && header.inline().is_none() {
                    let reason = format!("{name:?} claims an inline value of {} bytes", header.ndim);
                    return Err(Failure::Malformed { reason });
                }
                checks.touch(namespace, name)?;
                checks.register(bench.catalog, namespace)?;
                checks.bound_in.insert(namespace.clone());
                bench
                    .catalog
                    .check_id(namespace, name)
                    .map_err(|taken| Failure::IdTaken { wanted: name.to_string(), holder: taken.holder })?;
                if bench.catalog.find_in(namespace, name).is_none() {
                    checks.new_names += 1;
                }
                if let Payload::Leased { lease, offset, len_bytes } = *payload {
                    let piece =
                        bench.space.claim_piece(self.writer.session, LeaseId(lease), offset, len_bytes);
                    let piece =
                        piece.map_err(|error| Failure::BadLease { lease, reason: error.to_string() })?;
                    self.extents[at] = Some(piece);
                }
            }
            Change::Unbind { namespace, name } => {
                checks.touch(namespace, name)?;
                checks.bound_in.insert(namespace.clone());
                if bench.catalog.find_in(namespace, name).is_some() {
                    checks.unbound_names += 1;
                }
            }
            Change::RemoveNamespace { namespace } if **namespace == *Namespace::DEFAULT => {
                return Err(Failure::DefaultNamespace {});
            }
            Change::RemoveNamespace { namespace } | Change::ClearNamespace { namespace } => {
                let unknown = || Failure::UnknownNamespace { namespace: namespace.clone() };
                let id = bench.catalog.namespace(namespace).ok_or_else(unknown)?;
                if checks.emptied.insert(namespace.clone()) {
                    checks.emptied_names += bench.catalog.names_in(id);
                }
            }
            Change::RegisterNamespace { namespace } => checks.register(bench.catalog, namespace)?,
        }
        Ok(())
    }

    /// The last checks, over all changes together; behind them nothing fails any more.
    fn begin(&mut self, bench: &mut Workbench<'_>) -> Result<(), Failure> {
        let checks = &mut self.checks;
        if let Some(namespace) = checks.bound_in.intersection(&checks.emptied).next() {
            let name = self.commit.changes.iter().find_map(|change| match change {
                Change::Bind { bind } if bind.namespace == *namespace => Some(bind.name.clone()),
                Change::Unbind { namespace: inside, name } if inside == namespace => Some(name.clone()),
                _ => None,
            });
            let name = name.expect("a namespace is only in `bound_in` for a change of one of its names");
            return Err(Failure::NamedTwice { namespace: namespace.clone(), name });
        }
        let room = bench.catalog.room() + checks.unbound_names + checks.emptied_names;
        if checks.new_names > room {
            let (used, limit) = bench.catalog.objects();
            return Err(Failure::IndexFull { requested: checks.new_names, used, limit });
        }
        *bench.last_version += 1;
        self.version = *bench.last_version;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.created_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        if self.checks.touched.len() as u64 + self.checks.emptied_names > 1 {
            bench.catalog.open_epoch();
            self.epoch_is_open = true;
        }
        self.enter(Stage::Unbind);
        Ok(())
    }

    fn unbind(&mut self, bench: &mut Workbench<'_>, at: usize) {
        match &self.commit.changes[at] {
            Change::Unbind { namespace, name } => {
                if let Some(id) = bench.catalog.namespace(namespace) {
                    self.unbound_bytes += unbind_one(bench, id, namespace, name, &mut self.unbound);
                }
            }
            change @ (Change::RemoveNamespace { namespace } | Change::ClearNamespace { namespace }) => {
                let Some(id) = bench.catalog.namespace(namespace) else { return };
                match bench.catalog.first_name(id) {
                    Some(name) => {
                        self.unbound_bytes += unbind_one(bench, id, namespace, &name, &mut self.unbound);
                        self.at = at; // this change again, until the namespace is empty
                    }
                    None if matches!(change, Change::RemoveNamespace { .. }) => bench.catalog.unregister(id),
                    None => {}
                }
            }
            Change::Bind { .. } | Change::RegisterNamespace { .. } => {}
        }
    }

    fn bind(&mut self, bench: &mut Workbench<'_>, at: usize) {
        let bind = match &mut self.commit.changes[at] {
            Change::Bind { bind } => bind,
            Change::RegisterNamespace { namespace } => {
                bench.catalog.register(namespace).expect("its prefix was checked");
                return;
            }
            _ => return,
        };
        let namespace = bench.catalog.register(&bind.namespace).expect("its prefix was checked");
        let extent = self.extents[at].take().expect("every object was placed");
        let len_bytes = match bind.payload {
            Payload::Inline { ref bytes } => bytes.len() as u64,
            Payload::Leased { len_bytes, .. } => len_bytes,
        };
        let new = NewBinding {
            version: self.version,
            offset: extent.offset,
            len_bytes,
            created_ns: self.created_ns,
            object_uuid: uuid::Uuid::now_v7().into_bytes(),
            writer_pid: self.writer.pid,
            writer_uid: self.writer.uid,
            header: bind.header,
            description: bind.description.take(),
            metadata: bind.metadata.take(),
        };
        // The object is known before it is visible: whoever finds it may pin and release it at once.
        let object = Object { extent, len_bytes, version: self.version, name: ObjectName::Bound(0) };
        bench.space.add_object(object);
        let bound = bench.catalog.bind(namespace, &bind.name, new);
        bench.space.name_object(extent.offset, bound.number);
        if let Some(offset) = bound.replaced {
            bench.space.retire(offset, format!("{}/{}", bind.namespace, bind.name));
        }
    }

    fn finish(&mut self, bench: &mut Workbench<'_>) -> Committed {
        if std::mem::take(&mut self.epoch_is_open) {
            bench.catalog.close_epoch();
        }
        Committed { version: self.version, unbound: self.unbound, unbound_bytes: self.unbound_bytes }
    }
}

/// A commit that found no room.
#[derive(Debug)]
pub(crate) struct NotPlaced {
    pub(crate) commit: Commit,
    pub(crate) problem: NoPlace,
}

/// Why a payload found no room.
#[derive(Debug)]
pub(crate) enum NoPlace {
    /// These bytes do not fit.
    NoRoom { len_bytes: u64 },
    /// Something that more room would not mend.
    Failure(Failure),
}

impl Checks {
    fn touch(&mut self, namespace: &Namespace, name: &plasmon_protocol::name::Name) -> Result<(), Failure> {
        if self.touched.insert(NameId::new(namespace, name)) {
            return Ok(());
        }
        Err(Failure::NamedTwice { namespace: namespace.clone(), name: name.clone() })
    }

    /// `namespace` will exist after this commit: no other one, in the catalog or in this commit, may have its prefix.
    fn register(&mut self, catalog: &Catalog, namespace: &Namespace) -> Result<(), Failure> {
        let taken = |holder: String| Failure::IdTaken { wanted: namespace.to_string(), holder };
        catalog.check_prefix(namespace).map_err(|error| taken(error.holder))?;
        let prefix = NamespacePrefix::new(namespace);
        match self.prefixes.entry(prefix).or_insert_with(|| namespace.clone()) {
            known if known == namespace => Ok(()),
            known => Err(taken(known.to_string())),
        }
    }
}

fn check_condition(catalog: &Catalog, condition: &Condition) -> Result<(), Failure> {
    let Condition { namespace, name, expect } = condition;
    let found = catalog.find_in(namespace, name).map(|(_, _, entry)| entry.version);
    let holds = match expect {
        Expect::Absent {} => found.is_none(),
        Expect::Present {} => found.is_some(),
        Expect::Version { version } => found == Some(*version),
    };
    if holds {
        return Ok(());
    }
    let (namespace, name, expect) = (namespace.clone(), name.clone(), expect.clone());
    Err(Failure::ConditionFailed { namespace, name, expect, found })
}

/// Unbinds one name and returns the bytes of its object.
fn unbind_one(
    bench: &mut Workbench<'_>,
    id: NamespaceId,
    namespace: &Namespace,
    name: &str,
    unbound: &mut u64,
) -> u64 {
    match bench.catalog.unbind(id, name) {
        Some(entry) => {
            bench.space.retire(entry.offset, format!("{namespace}/{name}"));
            *unbound += 1;
            entry.len_bytes
        }
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::populate::Populated;
    use plasmon_protocol::{
        index::{IndexReader, Lookup},
        layout::IndexShape,
        name::Name,
        object::{Header, Kind},
    };
    use plasmon_shm::{Backend, ClientRegion, Kernel, ReadOnlyWords};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const CAPACITY_BYTES: u64 = 1 << 20;
    const ENTRIES: u32 = 12;

    /// A store without sockets, and beside it what it should hold.
    struct Model {
        arena: Region,
        catalog: Catalog,
        space: Space,
        last_version: u64,
        index: ReadOnlyWords,
        bound: BTreeMap<(Namespace, Name), (u64, Vec<u8>)>,
        namespaces: HashSet<Namespace>,
    }

    impl Model {
        fn new() -> Model {
            let kernel = Kernel::detect();
            let shape = IndexShape::for_entries(ENTRIES).expect("in range");
            let bytes = Catalog::index_bytes(shape);
            let index = Region::create("plasmon-index", bytes, Backend::Memfd, &kernel).expect("memory");
            let (words, opening) =
                (index.map_words().expect("a mapping"), index.open_read_only().expect("an opening"));
            index.seal(plasmon_shm::Seals::ShrinkGrowFutureWriteSeal).expect("a fresh region");
            let reader = ClientRegion::from_fd(opening, bytes).expect("a sealed region");
            Model {
                arena: Region::create("plasmon-arena", CAPACITY_BYTES, Backend::Memfd, &kernel)
                    .expect("memory"),
                catalog: Catalog::new(words, shape, [7; 16], CAPACITY_BYTES),
                space: Space::new(CAPACITY_BYTES, Populated::by_writers(CAPACITY_BYTES)),
                last_version: 0,
                index: reader.map_words_read_only().expect("a mapping"),
                bound: BTreeMap::new(),
                namespaces: HashSet::from([Namespace::default()]),
            }
        }

        /// Does `commit`, and says whether it should have happened.
        fn apply(&mut self, commit: &Commit) {
            let reply_to = ReplyTo { connection: ConnectionId(1), request_id: 1 };
            let writer = Writer { session: SessionId(1), pid: 1, uid: 1 };
            let before = self.last_version;
            let result = match CommitJob::place(reply_to, writer, commit.clone(), &mut self.space) {
                Ok(mut job) => self.work(&mut job),
                Err(refused) => {
                    assert!(matches!(refused.problem, NoPlace::NoRoom { .. }), "{refused:?}");
                    return self.check();
                }
            };
            match self.expect(commit) {
                Some((bound, namespaces, unbound)) => {
                    let committed = result.expect("the model allows it");
                    assert_eq!(
                        committed,
                        Committed {
                            version: before + 1,
                            unbound: unbound.len() as u64,
                            unbound_bytes: unbound.iter().sum(),
                        }
                    );
                    (self.bound, self.namespaces) = (bound, namespaces);
                }
                None => {
                    result.expect_err("the model refuses it");
                    assert_eq!(self.last_version, before, "a commit that did not happen has no version");
                }
            }
            // Nobody pins anything here, so whatever lost its name is free after the next scan.
            let candidates = self.space.candidates();
            self.space.reclaim(&candidates);
            self.check();
        }

        /// In slices of one entry or a few, as a busy loop would.
        fn work(&mut self, job: &mut CommitJob) -> Result<Committed, Failure> {
            loop {
                let mut bench = Workbench {
                    catalog: &mut self.catalog,
                    space: &mut self.space,
                    arena: &self.arena,
                    last_version: &mut self.last_version,
                };
                if let Slice::Done(result) = job.work(&mut bench, Instant::now()) {
                    return result;
                }
            }
        }

        /// What the bindings and namespaces should be after `commit`, and the lengths of the objects that it unbinds
        /// without replacing them; `None` if it must not happen.
        #[expect(clippy::type_complexity, reason = "three answers of one model")]
        fn expect(
            &self,
            commit: &Commit,
        ) -> Option<(BTreeMap<(Namespace, Name), (u64, Vec<u8>)>, HashSet<Namespace>, Vec<u64>)> {
            for Condition { namespace, name, expect } in &commit.conditions {
                let found = self.bound.get(&(namespace.clone(), name.clone())).map(|(version, _)| *version);
                let holds = match expect {
                    Expect::Absent {} => found.is_none(),
                    Expect::Present {} => found.is_some(),
                    Expect::Version { version } => found == Some(*version),
                };
                if !holds {
                    return None;
                }
            }
            let (mut bound, mut namespaces) = (self.bound.clone(), self.namespaces.clone());
            let mut unbound = Vec::new();
            let (mut touched, mut emptied, mut inside) = (HashSet::new(), HashSet::new(), HashSet::new());
            for change in &commit.changes {
                match change {
                    Change::Unbind { namespace, name } => {
                        let key = (namespace.clone(), name.clone());
                        unbound.extend(bound.remove(&key).map(|(_, bytes)| bytes.len() as u64));
                        inside.insert(namespace.clone());
                        if !touched.insert(key) {
                            return None;
                        }
                    }
                    Change::RemoveNamespace { namespace } | Change::ClearNamespace { namespace } => {
                        let removes = matches!(change, Change::RemoveNamespace { .. });
                        if !self.namespaces.contains(namespace)
                            || (removes && **namespace == *Namespace::DEFAULT)
                        {
                            return None;
                        }
                        emptied.insert(namespace.clone());
                        bound.retain(|(of, _), (_, bytes)| {
                            if of == namespace {
                                unbound.push(bytes.len() as u64);
                            }
                            of != namespace
                        });
                        if removes {
                            namespaces.remove(namespace);
                        }
                    }
                    Change::Bind { .. } | Change::RegisterNamespace { .. } => {}
                }
            }
            for change in &commit.changes {
                match change {
                    Change::Bind {
                        bind: Bind { namespace, name, payload: Payload::Inline { bytes }, .. },
                    } => {
                        let key = (namespace.clone(), name.clone());
                        bound.insert(key.clone(), (self.last_version, bytes.to_vec()));
                        namespaces.insert(namespace.clone());
                        inside.insert(namespace.clone());
                        if !touched.insert(key) {
                            return None;
                        }
                    }
                    Change::RegisterNamespace { namespace } => drop(namespaces.insert(namespace.clone())),
                    _ => {}
                }
            }
            let fits = bound.len() <= ENTRIES as usize;
            (fits && inside.is_disjoint(&emptied)).then_some((bound, namespaces, unbound))
        }

        /// Index, catalog, space and arena say what the model says.
        fn check(&self) {
            let used: u64 =
                self.bound.values().map(|(_, bytes)| bytes.len().next_multiple_of(64) as u64).sum();
            assert_eq!(self.space.figures().used, used);
            assert_eq!(self.catalog.objects().0, self.bound.len() as u64);
            assert_eq!(self.catalog.namespace_count(), self.namespaces.len() as u64);
            let reader = IndexReader::open(&self.index).expect("an index");
            for number in 0..16 {
                for namespace in all_namespaces() {
                    let name = name(number);
                    let id = NameId::new(&namespace, &name);
                    let found =
                        reader.lookup(&id, || 0, |_| Ok::<_, ()>(())).expect("publishing cannot fail");
                    let expected = self.bound.get(&(namespace.clone(), name.clone()));
                    let Lookup::Held { entry, .. } = found else {
                        assert_eq!((found, expected), (Lookup::Absent, None));
                        continue;
                    };
                    let (version, bytes) = expected.expect("the model has it as well");
                    assert_eq!((entry.version, entry.len_bytes), (*version, bytes.len() as u64));
                    let mut stored = vec![0; bytes.len()];
                    self.arena.read_at(entry.offset, &mut stored).expect("inside the arena");
                    assert_eq!(stored, *bytes);
                }
            }
        }
    }

    fn all_namespaces() -> [Namespace; 3] {
        ["default", "other", "a-namespace-of-more-than-sixteen-bytes"]
            .map(|text| Namespace::new(text).expect("a valid namespace"))
    }

    fn name(number: u8) -> Name {
        Name::new(&format!("name {number}")).expect("a valid name")
    }

    fn any_change() -> impl Strategy<Value = Change> {
        let place = || (proptest::sample::select(all_namespaces().to_vec()), (0_u8..16).prop_map(name));
        let bind = (place(), proptest::collection::vec(any::<u8>(), 1..3_000)).prop_map(
            |((namespace, name), bytes)| {
                let payload = Payload::Inline { bytes: bytes.into() };
                let header = Header::new(Kind::BYTES);
                Change::Bind {
                    bind: Bind { namespace, name, description: None, metadata: None, header, payload },
                }
            },
        );
        let namespace = || proptest::sample::select(all_namespaces().to_vec());
        prop_oneof![
            8 => bind,
            4 => place().prop_map(|(namespace, name)| Change::Unbind { namespace, name }),
            1 => namespace().prop_map(|namespace| Change::RemoveNamespace { namespace }),
            1 => namespace().prop_map(|namespace| Change::ClearNamespace { namespace }),
            1 => namespace().prop_map(|namespace| Change::RegisterNamespace { namespace }),
        ]
    }

    fn any_commit() -> impl Strategy<Value = Commit> {
        let place = (proptest::sample::select(all_namespaces().to_vec()), (0_u8..16).prop_map(name));
        let expect = prop_oneof![
            Just(Expect::Absent {}),
            Just(Expect::Present {}),
            (0_u64..20).prop_map(|version| Expect::Version { version }),
        ];
        let condition =
            (place, expect).prop_map(|((namespace, name), expect)| Condition { namespace, name, expect });
        (proptest::collection::vec(condition, 0..2), proptest::collection::vec(any_change(), 0..5))
            .prop_map(|(conditions, changes)| Commit { conditions, changes, end_leases: vec![] })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Invariants 3 and 6: whatever is committed, the catalog, the index and the arena hold exactly what a map
        /// of names would, and nothing else takes room.
        #[test]
        fn commits_do_what_they_would_to_a_map(commits in proptest::collection::vec(any_commit(), 1..30)) {
            let mut model = Model::new();
            commits.iter().for_each(|commit| model.apply(commit));
        }
    }
}

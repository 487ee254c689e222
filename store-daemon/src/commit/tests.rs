//! Commits against a map of names, and how much of one is done in a slice.

use super::*;
use crate::{
    budget::Held,
    catalog::{self, Cached, Next},
    connection::ConnectionId,
    populate::Populated,
    standing::Cache,
};
use plasmon_protocol::{
    codec::Codec,
    index::{IndexReader, Lookup},
    limits::SLIDING_SLACK_NS,
    message::{Bind, Commit, Expect, Lives, Payload, SameAs, Ttl},
    name::Name,
    object::{Header, Kind},
};
use plasmon_shm::{Backend, Kernel, ReadOnlyWords};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashSet};

const CAPACITY_BYTES: u64 = 1 << 20;
const ENTRIES: u32 = 12;

/// Slices that were not enough: the last one of each kind is not counted.
#[derive(Debug, Default)]
struct Slices {
    preparing: u32,
    working: u32,
    freeing: u32,
}

/// A store without sockets, and beside it what it should hold.
struct Model {
    arena: Region,
    entries: u32,
    catalog: Catalog,
    objects: Objects,
    space: Space,
    versions: Versions,
    index: ReadOnlyWords,
    /// What takes room: a binding that has expired does until it is unbound.
    bound: BTreeMap<(Namespace, Name), Bound>,
    /// What there is, and what was declared for it.
    namespaces: BTreeMap<Namespace, Declared>,
    now_ns: u64,
    parked: Parked,
}

#[derive(Clone, Debug, Default)]
struct Declared {
    is_cache: bool,
    ttl: Option<Ttl>,
}

#[derive(Clone, Debug, PartialEq)]
struct Bound {
    version: u64,
    bytes: Vec<u8>,
    in_header: bool,
    /// Which object it is: the version of the commit that made it, and the number of the change.
    object: (u64, usize),
    learned_ns: u64,
    description: String,
    expires_ns: Option<u64>,
    is_ephemeral: bool,
}

impl Bound {
    fn lives(&self, now_ns: u64) -> bool {
        self.expires_ns.is_none_or(|at| at > now_ns)
    }

    fn arena_bytes(&self) -> u64 {
        if self.in_header { 0 } else { self.bytes.len() as u64 }
    }
}

impl Model {
    fn new() -> Model {
        Model::of(CAPACITY_BYTES, ENTRIES, Populated::by_writers(CAPACITY_BYTES))
    }

    fn of(capacity_bytes: u64, entries: u32, populated: Populated) -> Model {
        let (catalog, index) = catalog::tests::fresh(entries, capacity_bytes);
        Model {
            arena: Region::create("plasmon-arena", capacity_bytes, Backend::Memfd, &Kernel::detect())
                .expect("memory"),
            entries,
            catalog: catalog.with_caches(&[standing()]).expect("no other namespace has its id"),
            objects: Objects::default(),
            space: Space::new(capacity_bytes, populated),
            versions: Versions::default(),
            index,
            bound: BTreeMap::new(),
            namespaces: [Namespace::default(), standing().namespace]
                .map(|namespace| (namespace.clone(), declared(&namespace, Declared::default())))
                .into(),
            now_ns: 1_000,
            parked: Parked::default(),
        }
    }

    /// Does `commit`, and checks that it happened if it should have. Returns what it took.
    fn apply(&mut self, commit: &Commit) -> Slices {
        let reply_to = ReplyTo { connection: ConnectionId(1), request_id: 1, held: Held::default() };
        let writer = Writer { session: SessionId(1), pid: 1, uid: 1, is_own: true };
        let before = self.versions.last;
        let mut body = Vec::new();
        commit.encode(&mut body);
        let body = Bytes::from(body);
        let kept_max = kept_entries_max(&body);
        let mut job = CommitJob::new(reply_to, writer, body);
        let mut slices = Slices::default();
        let result = self.work(&mut job, kept_max, &mut slices);
        let Some(result) = result else {
            self.check(); // there was no room
            return slices;
        };
        match self.expect(commit) {
            Some((bound, namespaces, unbound)) => {
                let committed = result.expect("the model allows it");
                assert_eq!(
                    committed,
                    Committed {
                        version: before + u64::from(!commit.changes.is_empty()),
                        unbound: unbound.len() as u64,
                        unbound_bytes: unbound.iter().sum(),
                    }
                );
                (self.bound, self.namespaces) = (bound, namespaces);
            }
            None => {
                result.expect_err("the model refuses it");
                assert_eq!(self.versions.last, before, "a commit that did not happen has no version");
            }
        }
        // Nobody pins anything here, so whatever lost its name is free after the next scan.
        let retired = self.objects.take_retired();
        self.objects.reclaim(retired);
        while !self.objects.free_some(&mut self.space, &mut Slice::shortest()) {
            slices.freeing += 1;
        }
        self.check();
        slices
    }

    /// In the shortest slices there are, as on a busy loop. `None` if there was no room.
    fn work(
        &mut self,
        job: &mut CommitJob,
        kept_max: usize,
        slices: &mut Slices,
    ) -> Option<Result<Committed, Failure>> {
        let mut has_room = true;
        loop {
            let mut bench = Workbench {
                catalog: &mut self.catalog,
                objects: &mut self.objects,
                space: &mut self.space,
                arena: &self.arena,
                versions: &mut self.versions,
                now_ns: self.now_ns,
                parked: &self.parked,
                uuid_seed: [7; 16],
            };
            match job.prepare(&mut bench, &mut Slice::shortest()) {
                Prepared::More => slices.preparing += 1,
                Prepared::Placed { .. } => {} // nobody minds whether the pages are there
                Prepared::NoRoom(_) => {
                    has_room = false;
                    job.fail(Failure::Internal { reason: "no room".to_owned() });
                }
                Prepared::Failed(failure) => return has_room.then_some(Err(*failure)),
                Prepared::Ready => loop {
                    assert!(job.kept_len() <= kept_max, "what is kept is held against its session");
                    match job.work(&mut bench, &mut Slice::shortest()) {
                        Worked::More => slices.working += 1,
                        Worked::Done => return job.committed().cloned().map(Ok),
                        Worked::NoEntries(missing) => {
                            job.fail(Failure::Internal { reason: format!("{missing} entries are missing") });
                            break;
                        }
                        Worked::Expired { .. } => unreachable!("no condition asks for it"),
                        Worked::Failed(failure) => {
                            job.fail(failure);
                            break;
                        }
                    }
                },
            }
        }
    }

    /// What the bindings and namespaces should be after `commit`, and the lengths of the objects that it unbinds
    /// without replacing them; `None` if it must not happen.
    #[expect(clippy::type_complexity, reason = "three answers of one model")]
    fn expect(
        &self,
        commit: &Commit,
    ) -> Option<(BTreeMap<(Namespace, Name), Bound>, BTreeMap<Namespace, Declared>, Vec<u64>)> {
        for Condition { namespace, name, expect } in &commit.conditions {
            let found = self.bound.get(&(namespace.clone(), name.clone()));
            let found = found.filter(|bound| bound.lives(self.now_ns)).map(|bound| bound.version);
            let holds = match expect {
                Expect::Absent => found.is_none(),
                Expect::Present => found.is_some(),
                Expect::Version { version } => found == Some(*version),
                Expect::NamespaceUnchanged { .. } => unreachable!("it is tried elsewhere"),
            };
            if !holds {
                return None;
            }
        }
        // What names get that are to have the object of another one: all at the same moment, before anything changes.
        let mut sources = Vec::new();
        for change in &commit.changes {
            if let Change::SameAs(same) = change {
                let source = self.bound.get(&(same.of_namespace.clone(), same.of_name.clone()));
                let is_cache = self.namespaces.get(&same.of_namespace).is_some_and(|it| it.is_cache);
                let is_meant = |bound: &&Bound| match same.at {
                    Some(at) if !is_cache => bound.version <= at,
                    _ => bound.lives(self.now_ns),
                };
                let mut source = source.filter(is_meant)?.clone();
                if !source.lives(self.now_ns) {
                    (source.expires_ns, source.is_ephemeral) = (None, false);
                }
                sources.push(source);
            }
        }
        let (mut bound, mut namespaces) = (self.bound.clone(), self.namespaces.clone());
        let mut unbound = Vec::new();
        let mut gone = |bound: &BTreeMap<_, Bound>, gone: &Bound| {
            let is_held = |other: &Bound| !other.in_header && other.object == gone.object;
            if gone.lives(self.now_ns) {
                let is_held = bound.values().any(is_held) || sources.iter().any(is_held);
                unbound.push(if is_held { 0 } else { gone.arena_bytes() });
            }
        };
        let (mut touched, mut emptied, mut inside) = (HashSet::new(), HashSet::new(), HashSet::new());
        for change in &commit.changes {
            match change {
                Change::Unbind { namespace, name } => {
                    let key = (namespace.clone(), name.clone());
                    bound.remove(&key).into_iter().for_each(|it| gone(&bound, &it));
                    inside.insert(namespace.clone());
                    if !touched.insert(key) {
                        return None;
                    }
                }
                Change::RemoveNamespace { namespace }
                | Change::RemoveEmptyNamespace { namespace }
                | Change::ClearNamespace { namespace } => {
                    let removes = !matches!(change, Change::ClearNamespace { .. });
                    let empties = matches!(change, Change::RemoveEmptyNamespace { .. });
                    let lives = |((of, _), bound): (&(Namespace, Name), &Bound)| {
                        of == namespace && bound.lives(self.now_ns)
                    };
                    if !self.namespaces.contains_key(namespace)
                        || (removes && **namespace == *Namespace::DEFAULT)
                        || (empties && self.bound.iter().any(lives))
                    {
                        return None;
                    }
                    emptied.insert(namespace.clone());
                    let names: Vec<_> = bound.keys().filter(|(of, _)| of == namespace).cloned().collect();
                    for name in names {
                        bound.remove(&name).into_iter().for_each(|it| gone(&bound, &it));
                    }
                    if removes {
                        namespaces.remove(namespace);
                    }
                }
                Change::Bind(_)
                | Change::BindEphemeral(_)
                | Change::Replace(_)
                | Change::SameAs(_)
                | Change::DeclareHistory { .. }
                | Change::PurgeHistory { .. }
                | Change::RestoreNamespace { .. }
                | Change::RegisterNamespace { .. }
                | Change::DeclareNamespace { .. }
                | Change::EnsureCache { .. } => {}
            }
        }
        let (mut used, mut made) = (sources.iter(), BTreeMap::new());
        for (at, change) in commit.changes.iter().enumerate() {
            match change {
                Change::Bind(bind) | Change::BindEphemeral(bind) | Change::Replace(bind) => {
                    let Bind { namespace, name, description, ttl, header, payload, .. } = bind;
                    let is_ephemeral = matches!(change, Change::BindEphemeral(_));
                    let key = (namespace.clone(), name.clone());
                    let version = self.versions.last;
                    let (bytes, in_header, object) = match (payload, header.inline()) {
                        (Payload::Inline { bytes }, None) => (bytes.to_vec(), false, (version, at)),
                        (Payload::InHeader, Some((value, len))) => (value[..len].to_vec(), true, (0, 0)),
                        (&Payload::AsChange { index }, None) => {
                            let earlier: &Vec<u8> = made.get(&usize::try_from(index).expect("few"))?;
                            (earlier.clone(), false, (version, usize::try_from(index).expect("few")))
                        }
                        _ => return None,
                    };
                    if let Payload::Inline { .. } = payload {
                        made.insert(at, bytes.clone());
                    }
                    let new = || declared(namespace, Declared::default());
                    let declared = namespaces.entry(namespace.clone()).or_insert_with(new);
                    let ttl = ttl.as_ref().or(declared.ttl.as_ref());
                    let slack_ns = |ttl: &Ttl| if ttl.is_sliding { SLIDING_SLACK_NS } else { 0 };
                    let expires_ns =
                        ttl.and_then(|ttl| (self.now_ns + slack_ns(ttl)).checked_add(ttl.ttl_ns));
                    let before = bound.get(&key).filter(|before| before.lives(self.now_ns));
                    let expires_ns = match (change, before) {
                        (Change::Replace(_), Some(before)) => before.expires_ns,
                        _ => expires_ns,
                    };
                    let kept = before.map_or(String::new(), |before| before.description.clone());
                    let description = description.clone().unwrap_or(kept);
                    let learned_ns = self.now_ns;
                    let now = Bound {
                        version,
                        bytes,
                        in_header,
                        object,
                        learned_ns,
                        description,
                        expires_ns,
                        is_ephemeral,
                    };
                    bound.insert(key.clone(), now);
                    inside.insert(namespace.clone());
                    if !touched.insert(key) {
                        return None;
                    }
                }
                Change::SameAs(same) => {
                    let source = used.next().expect("each has one");
                    let SameAs { namespace, name, description, lives, .. } = same;
                    let new = || declared(namespace, Declared::default());
                    let declared = namespaces.entry(namespace.clone()).or_insert_with(new);
                    let ttl = match lives {
                        Lives::AsDeclared | Lives::AsSource => declared.ttl.as_ref(),
                        Lives::For(ttl) => Some(ttl),
                    };
                    let slack_ns = |ttl: &Ttl| if ttl.is_sliding { SLIDING_SLACK_NS } else { 0 };
                    let expires_ns =
                        ttl.and_then(|ttl| (self.now_ns + slack_ns(ttl)).checked_add(ttl.ttl_ns));
                    let is_as_source = matches!(lives, Lives::AsSource);
                    let now = Bound {
                        version: self.versions.last,
                        learned_ns: self.now_ns,
                        description: description.clone().unwrap_or_else(|| source.description.clone()),
                        expires_ns: if is_as_source { source.expires_ns } else { expires_ns },
                        is_ephemeral: is_as_source && source.is_ephemeral,
                        ..source.clone()
                    };
                    let key = (namespace.clone(), name.clone());
                    bound.insert(key.clone(), now);
                    inside.insert(namespace.clone());
                    if !touched.insert(key) {
                        return None;
                    }
                }
                Change::RegisterNamespace { namespace } => {
                    let new = || declared(namespace, Declared::default());
                    namespaces.entry(namespace.clone()).or_insert_with(new);
                }
                Change::DeclareNamespace { namespace, is_cache, ttl } => {
                    let said = Declared { is_cache: *is_cache, ttl: ttl.clone() };
                    namespaces.insert(namespace.clone(), declared(namespace, said));
                }
                Change::EnsureCache { namespace } => {
                    let new = || declared(namespace, Declared::default());
                    namespaces.entry(namespace.clone()).or_insert_with(new).is_cache = true;
                }
                _ => {}
            }
        }
        let fits = bound.len() <= self.entries as usize;
        (fits && inside.is_disjoint(&emptied)).then_some((bound, namespaces, unbound))
    }

    /// Ends the session that makes all commits, of which the model has one after the other.
    fn end_session(&mut self) {
        let mut ended = BTreeSet::new();
        while let catalog::Ending::Unbound(unbound) = self.catalog.end_one_of(SessionId(1), self.end()) {
            unbound.settle(&mut self.objects);
            ended.insert(unbound.label());
        }
        let label = |(namespace, name): &(Namespace, Name)| format!("{namespace}/{name}");
        let expected = self.bound.extract_if(.., |_, bound| bound.is_ephemeral);
        assert_eq!(ended, expected.map(|(key, _)| label(&key)).collect());
        self.settle();
    }

    /// Lets time pass, and unbinds so many of what has expired: the first first.
    fn pass(&mut self, ns: u64, at_most: usize) {
        self.now_ns += ns;
        let mut expired: Vec<(u64, (Namespace, Name))> = self
            .bound
            .iter()
            .filter(|(_, bound)| !bound.lives(self.now_ns))
            .map(|(key, bound)| (bound.expires_ns.unwrap_or(0), key.clone()))
            .collect();
        expired.sort();
        for number in 0..at_most {
            let catalog::Ending::Unbound(unbound) = self.catalog.expire(self.end()) else {
                assert_eq!(number, expired.len(), "all that has expired is unbound");
                break;
            };
            assert_eq!(unbound.entry.expires_ns, expired[number].0, "in the order of their deadlines");
            let name = |(namespace, name): &(Namespace, Name)| format!("{namespace}/{name}");
            self.bound.retain(|key, _| name(key) != unbound.label());
            unbound.settle(&mut self.objects);
        }
        let next = self.bound.values().filter_map(|bound| bound.expires_ns).min();
        assert_eq!(self.catalog.next_expiry(), next);
        self.settle();
    }

    /// How what ends now ends.
    fn end(&self) -> catalog::End {
        let reason = plasmon_protocol::message::Reason::Expired;
        catalog::End { version: self.versions.last, reason, now_ns: self.now_ns }
    }

    /// Frees what has lost its name, and checks.
    fn settle(&mut self) {
        let retired = self.objects.take_retired();
        self.objects.reclaim(retired);
        while !self.objects.free_some(&mut self.space, &mut Slice::shortest()) {}
        self.check();
    }

    /// Index, catalog, space and arena say what the model says.
    fn check(&mut self) {
        let is_cached =
            |((namespace, _), _): &(&(Namespace, Name), &Bound)| self.namespaces[namespace].is_cache;
        let cached: Vec<_> = self.bound.iter().filter(is_cached).collect();
        let cached_bytes = cached.iter().map(|(_, bound)| bound.arena_bytes()).sum::<u64>();
        assert_eq!(self.catalog.cached_bytes(), cached_bytes);
        let cached: Vec<_> = cached.into_iter().filter(|(_, bound)| !bound.is_ephemeral).collect();
        let mut expected: Vec<u64> = cached.iter().map(|(_, bound)| bound.version).collect();
        let (mut at, mut queued) = ([Cached::FIRST, Cached::FIRST_IN_INDEX], Vec::new());
        while let Next::This(next) = self.catalog.next_of_both(&mut at, &mut Slice::endless()) {
            queued.push(self.catalog.cached_binding(next).expect("what is queued is bound").version);
        }
        let (mut at, mut in_arena) = (Cached::FIRST, 0);
        while let Next::This(next) = self.catalog.next_cached(at, &mut Slice::endless()) {
            let binding = self.catalog.cached_binding(next).expect("what is queued is bound");
            let object = binding.object.and_then(|object| self.objects.get(object));
            assert!(object.is_some_and(|object| object.version <= binding.version));
            (at, in_arena) = (next, in_arena + 1);
        }
        assert_eq!(in_arena, cached.iter().filter(|(_, bound)| !bound.in_header).count());
        // Nobody recalls anything here, so the order is that of learning.
        let learned: BTreeMap<u64, u64> =
            cached.iter().map(|(_, bound)| (bound.version, bound.learned_ns)).collect();
        assert!(queued.is_sorted_by_key(|version| learned[version]), "the least recently used is first");
        queued.sort_unstable();
        expected.sort_unstable();
        assert_eq!(queued, expected);
        let in_arena = || self.bound.values().filter(|bound| !bound.in_header);
        let objects: BTreeMap<_, _> =
            in_arena().map(|bound| (bound.object, bound.bytes.len().next_multiple_of(64) as u64)).collect();
        assert_eq!((self.space.figures().used, self.objects.len()), (objects.values().sum(), objects.len()));
        assert_eq!(self.catalog.objects().0, self.bound.len() as u64);
        assert_eq!(self.catalog.namespace_count(), self.namespaces.len() as u64);
        let reader = IndexReader::open(&self.index).expect("an index");
        for number in 0..16 {
            for namespace in all_namespaces() {
                let name = name(number);
                let id = NameId::new(&namespace, &name);
                let found =
                    reader.lookup(&id, || self.now_ns, |_| Ok::<_, ()>(())).expect("publishing cannot fail");
                let expected = self.bound.get(&(namespace.clone(), name.clone()));
                let expected = expected.filter(|bound| bound.lives(self.now_ns));
                let known = self.catalog.find(&namespace, &name, self.now_ns);
                assert_eq!(known.is_some(), expected.is_some());
                let Lookup::Held { entry, .. } = found else {
                    assert_eq!((found, expected), (Lookup::Absent, None));
                    continue;
                };
                let Bound { version, bytes, in_header, description, expires_ns, .. } =
                    expected.expect("the model has it as well");
                assert_eq!(known.map(|(_, record)| &*record.description), Some(description.as_str()));
                assert_eq!((entry.version, entry.len_bytes), (*version, bytes.len() as u64));
                assert_eq!(entry.expires_ns, expires_ns.unwrap_or(0));
                let inline = entry.header.inline().map(|(value, len)| value[..len].to_vec());
                let stored = entry.extent_offset().map(|offset| {
                    let mut stored = vec![0; bytes.len()];
                    self.arena.read_at(offset, &mut stored).expect("inside the arena");
                    stored
                });
                let expected = if *in_header { (Some(bytes), None) } else { (None, Some(bytes)) };
                assert_eq!((inline.as_ref(), stored.as_ref()), expected);
            }
        }
    }
}

/// A cache of the operator's.
fn standing() -> Cache {
    let [.., namespace] = all_namespaces();
    Cache { namespace, ttl: Some(Ttl { ttl_ns: 50, is_sliding: false }) }
}

/// What holds for a namespace of which this was said.
fn declared(namespace: &Namespace, said: Declared) -> Declared {
    match standing() {
        standing if standing.namespace == *namespace => {
            Declared { is_cache: true, ttl: said.ttl.or(standing.ttl) }
        }
        _ => said,
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
    let description = proptest::option::of("[a-c]{0,2}");
    let length = prop_oneof![4 => 1..3_000_usize, 3 => 0..33_usize];
    let bytes = length.prop_flat_map(|len| proptest::collection::vec(any::<u8>(), len));
    // Where the value stands, and, now and then, where else it is said to stand.
    let place_of_value = (any::<bool>(), proptest::bool::weighted(0.05));
    let how = (any_ttl(), description, 0_u8..12);
    let bind = (place(), bytes, place_of_value, how).prop_map(
        |((namespace, name), bytes, (in_header, lies), (ttl, description, how))| {
            let plain = Header::new(Kind::BYTES);
            let inline = plain.with_inline(&bytes).filter(|_| in_header || bytes.is_empty());
            let payload = match (inline.is_some() != lies, how) {
                (true, _) => Payload::InHeader,
                (false, 2) => Payload::AsChange { index: 0 },
                (false, 3) => Payload::AsChange { index: 1 },
                (false, _) => Payload::Inline { bytes: bytes.into() },
            };
            let header = inline.unwrap_or(plain);
            let bind = Bind { namespace, name, description, metadata: None, header, ttl, payload };
            match how {
                0 => Change::BindEphemeral(bind),
                1 => Change::Replace(bind),
                _ => Change::Bind(bind),
            }
        },
    );
    let namespace = || proptest::sample::select(all_namespaces().to_vec());
    let lives = prop_oneof![
        2 => Just(Lives::AsSource),
        1 => Just(Lives::AsDeclared),
        1 => any_ttl().prop_map(|ttl| ttl.map_or(Lives::AsDeclared, Lives::For)),
    ];
    let same = (
        place(),
        place(),
        proptest::option::of("[a-c]{0,2}"),
        lives,
        proptest::option::weighted(0.2, 0_u64..30),
    );
    let same = same.prop_map(|((namespace, name), (of_namespace, of_name), description, lives, at)| {
        Change::SameAs(SameAs {
            namespace,
            name,
            description,
            metadata: None,
            lives,
            of_namespace,
            of_name,
            at,
        })
    });
    prop_oneof![
        8 => bind,
        4 => same,
        4 => place().prop_map(|(namespace, name)| Change::Unbind { namespace, name }),
        1 => namespace().prop_map(|namespace| Change::RemoveNamespace { namespace }),
        1 => namespace().prop_map(|namespace| Change::RemoveEmptyNamespace { namespace }),
        1 => namespace().prop_map(|namespace| Change::ClearNamespace { namespace }),
        1 => namespace().prop_map(|namespace| Change::EnsureCache { namespace }),
        1 => namespace().prop_map(|namespace| Change::RegisterNamespace { namespace }),
        1 => (namespace(), any::<bool>(), any_ttl()).prop_map(|(namespace, is_cache, ttl)| {
            Change::DeclareNamespace { namespace, is_cache, ttl }
        }),
    ]
}

fn any_pass() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..60, 1 => SLIDING_SLACK_NS - 60..SLIDING_SLACK_NS]
}

fn any_ttl() -> impl Strategy<Value = Option<Ttl>> {
    let ttl_ns = prop_oneof![4 => 1_u64..100, 1 => u64::MAX - 1_000..=u64::MAX];
    proptest::option::of((ttl_ns, any::<bool>()).prop_map(|(ttl_ns, is_sliding)| Ttl { ttl_ns, is_sliding }))
}

fn any_commit() -> impl Strategy<Value = Commit> {
    let place = (proptest::sample::select(all_namespaces().to_vec()), (0_u8..16).prop_map(name));
    let expect = prop_oneof![
        Just(Expect::Absent),
        Just(Expect::Present),
        (0_u64..20).prop_map(|version| Expect::Version { version }),
    ];
    let condition =
        (place, expect).prop_map(|((namespace, name), expect)| Condition { namespace, name, expect });
    (proptest::collection::vec(condition, 0..2), proptest::collection::vec(any_change(), 0..5))
        .prop_map(|(conditions, changes)| Commit { conditions, changes, end_leases: vec![] })
}

/// The client is gone, or its connection is. It has unmapped its leases already, so nobody else would end them.
#[test]
fn a_commit_that_fails_before_it_was_read_still_ends_its_leases() {
    let mut model = Model::new();
    let [register, ..] = all_namespaces().map(|namespace| Change::RegisterNamespace { namespace });
    let commit = Commit { conditions: vec![], changes: vec![register], end_leases: vec![5, 6] };
    let mut body = Vec::new();
    commit.encode(&mut body);
    let reply_to = ReplyTo { connection: ConnectionId(1), request_id: 1, held: Held::default() };
    let writer = Writer { session: SessionId(1), pid: 1, uid: 1, is_own: true };
    let mut job = CommitJob::new(reply_to, writer, body.into());
    job.fail(Failure::UnknownSession);
    let result = model.work(&mut job, usize::MAX, &mut Slices::default());
    assert_eq!(result, Some(Err(Failure::UnknownSession)));
    assert_eq!((job.end_leases(), model.versions.last), (&[5, 6][..], 0));
}

/// Invariant 9: whatever takes time for each change is done in slices, giving back included. 32 entries fit into
/// the shortest slice.
#[test]
fn everything_in_proportion_to_the_number_of_changes_is_done_in_slices() {
    const CHANGES: u32 = 3_200;
    let stages = |slices: u32| slices / (CHANGES / 32);
    // Nothing is populated, so that writing is a stage of its own.
    let mut model = Model::of(4 << 20, CHANGES, Populated::nothing(4 << 20));
    let bind = |number: u32| {
        Change::Bind(Bind {
            namespace: Namespace::default(),
            name: Name::new(&number.to_string()).expect("a valid name"),
            description: None,
            metadata: None,
            header: Header::new(Kind::BYTES),
            ttl: None,
            payload: Payload::Inline { bytes: vec![7; 100].into() },
        })
    };
    let commit = |changes| Commit { conditions: vec![], changes, end_leases: vec![] };
    // Reading, placing and writing; checking and binding.
    let slices = model.apply(&commit((0..CHANGES).map(bind).collect()));
    assert_eq!((stages(slices.preparing), stages(slices.working), slices.freeing), (3, 2, 0), "{slices:?}");
    // The same with new objects: the old ones are freed.
    let slices = model.apply(&commit((0..CHANGES).map(bind).collect()));
    assert_eq!(
        (stages(slices.preparing), stages(slices.working), stages(slices.freeing + 1)),
        (3, 2, 1),
        "{slices:?}"
    );
    // One that fails at its last change: checking, and giving back its room.
    let twice = (0..CHANGES).chain([0]).map(bind).collect();
    let slices = model.apply(&commit(twice));
    assert_eq!((stages(slices.preparing), stages(slices.working)), (4, 1), "{slices:?}");
    let clear = Change::ClearNamespace { namespace: Namespace::default() };
    let slices = model.apply(&commit(vec![clear]));
    assert_eq!(
        (slices.preparing, stages(slices.working), stages(slices.freeing + 1)),
        (0, 1, 1),
        "{slices:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Invariants 3 and 6: whatever is committed, the catalog, the index and the arena hold exactly what a map
    /// of names would, and nothing else takes room.
    #[test]
    fn commits_do_what_they_would_to_a_map(
        steps in proptest::collection::vec(
            (any_commit(), any_pass(), 0_usize..20, proptest::bool::weighted(0.1)), 1..30
        ),
    ) {
        let mut model = Model::new();
        for (commit, ns, expire_at_most, ends) in &steps {
            model.apply(commit);
            model.pass(*ns, *expire_at_most);
            if *ends {
                model.end_session();
            }
        }
    }
}

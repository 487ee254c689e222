//! The catalog against a map of names, and each of its rooms at its edges.

use super::*;
use crate::objects::Objects;
use crate::{allocator::Extent, slice::Slice};
use plasmon_protocol::{
    index::{IndexReader, Lookup, NO_EXTENT},
    object::{Header, Kind},
};
use plasmon_shm::{Backend, ClientRegion, Kernel, ReadOnlyWords, Region, Seals};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// A catalog over an index of `entries`, and what a client sees of that.
pub(crate) fn fresh(entries: u32, capacity_bytes: u64) -> (Catalog, ReadOnlyWords) {
    let shape = IndexShape::for_entries(entries).expect("in range");
    let bytes = Catalog::index_bytes(shape);
    let region = Region::create("plasmon-index", bytes, Backend::Memfd, &Kernel::detect()).expect("memory");
    let words = region.map_words().expect("a mapping");
    let opening = region.open_read_only().expect("an opening");
    region.seal(Seals::ShrinkGrowFutureWriteSeal).expect("a fresh region");
    let seen = ClientRegion::from_fd(opening, bytes).expect("a sealed region");
    let seen = seen.map_words_read_only().expect("a mapping");
    (Catalog::new(words, shape, [7; 16], capacity_bytes), seen)
}

const ENTRIES: u32 = 10;
const NAMES: u8 = 14;

#[derive(Clone, Debug)]
enum Step {
    Bind {
        place: (u8, u8),
        len_bytes: u64,
        ttl: Option<Ttl>,
        keeps_ttl: bool,
        owner: Option<u64>,
        text: Option<String>,
    },
    Unbind {
        place: (u8, u8),
    },
    Declare {
        namespace: u8,
        is_cache: bool,
        ttl: Option<Ttl>,
    },
    Pass {
        ns: u64,
        expire_at_most: usize,
    },
    /// The daemon learns that a name was recalled just now.
    Recalled {
        place: (u8, u8),
    },
    EndSession {
        session: u64,
    },
    Evict,
}

fn any_place() -> impl Strategy<Value = (u8, u8)> {
    (0..3_u8, 0..NAMES)
}

fn any_ttl() -> impl Strategy<Value = Option<Ttl>> {
    let ttl_ns = prop_oneof![6 => 1_u64..100, 1 => u64::MAX - 1_000..=u64::MAX];
    let ttl = (ttl_ns, any::<bool>()).prop_map(|(ttl_ns, is_sliding)| Ttl { ttl_ns, is_sliding });
    proptest::option::of(ttl)
}

fn any_step() -> impl Strategy<Value = Step> {
    let owner = proptest::option::weighted(0.2, 1..3_u64);
    let bind =
        (any_place(), 0..3_000_u64, any_ttl(), any::<bool>(), owner, proptest::option::of("[a-c]{0,2}"));
    prop_oneof![
        8 => bind.prop_map(|(place, len_bytes, ttl, keeps_ttl, owner, text)| {
            Step::Bind { place, len_bytes, ttl, keeps_ttl, owner, text }
        }),
        3 => any_place().prop_map(|place| Step::Unbind { place }),
        1 => (0..3_u8, any::<bool>(), any_ttl())
            .prop_map(|(namespace, is_cache, ttl)| Step::Declare { namespace, is_cache, ttl }),
        3 => (prop_oneof![4 => 0..60_u64, 1 => Just(SLIDING_SLACK_NS)], 0..5_usize)
            .prop_map(|(ns, expire_at_most)| Step::Pass { ns, expire_at_most }),
        2 => any_place().prop_map(|place| Step::Recalled { place }),
        1 => (1..3_u64).prop_map(|session| Step::EndSession { session }),
        1 => Just(Step::Evict),
    ]
}

/// A binding as the model knows it. Objects of up to 32 bytes stand in the index.
#[derive(Clone, Debug)]
struct Known {
    version: u64,
    len_bytes: u64,
    ttl: Option<Ttl>,
    expires_ns: u64,
    owner: Option<u64>,
    text: String,
    /// When it was learned.
    learned_ns: u64,
}

impl Known {
    fn arena_bytes(&self) -> u64 {
        if self.len_bytes > 32 { self.len_bytes } else { 0 }
    }

    fn lives(&self, now_ns: u64) -> bool {
        self.expires_ns == 0 || self.expires_ns > now_ns
    }
}

struct Model {
    catalog: Catalog,
    objects: Objects,
    seen: ReadOnlyWords,
    now_ns: u64,
    version: u64,
    names: BTreeMap<(u8, u8), Known>,
    declared: [(bool, Option<Ttl>); 3],
}

fn namespace(number: u8) -> Namespace {
    Namespace::new(&format!("namespace-{number}")).expect("a valid namespace")
}

fn name(number: u8) -> Name {
    Name::new(&format!("name {number}")).expect("a valid name")
}

fn expiry(ttl: &Ttl, now_ns: u64) -> u64 {
    let slack_ns = if ttl.is_sliding { SLIDING_SLACK_NS } else { 0 };
    now_ns.checked_add(ttl.ttl_ns).and_then(|at| at.checked_add(slack_ns)).unwrap_or(0)
}

impl Model {
    fn new() -> Model {
        let (mut catalog, seen) = fresh(ENTRIES, 1 << 20);
        for number in 0..3 {
            catalog.register(&namespace(number), 0).expect("no other namespace has its id");
        }
        let (objects, names) = (Objects::default(), BTreeMap::new());
        Model {
            catalog,
            objects,
            seen,
            now_ns: 1_000,
            version: 0,
            names,
            declared: [const { (false, None) }; 3],
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Bind { place, len_bytes, ttl, keeps_ttl, owner, text } => {
                if self.names.contains_key(&place) || self.catalog.room() > 0 {
                    self.bind(place, len_bytes, ttl, keeps_ttl, owner, text);
                }
            }
            Step::Unbind { place } => {
                let id = self.catalog.namespace(&namespace(place.0)).expect("it is registered");
                let unbound = self.catalog.unbind(id, &name(place.1), self.end());
                let known = self.names.remove(&place);
                assert_eq!(unbound.as_ref().map(|it| it.entry.version), known.map(|known| known.version));
                self.let_go(unbound);
            }
            Step::Declare { namespace: number, is_cache, ttl } => {
                let id = self.catalog.namespace(&namespace(number)).expect("it is registered");
                let becomes = self.catalog.declare(id, is_cache, ttl.clone());
                let declared = &mut self.declared[usize::from(number)];
                assert_eq!(becomes, is_cache && !declared.0);
                *declared = (is_cache, ttl);
                let mut after: Option<Arc<str>> = None;
                while becomes && let Some(name) = self.catalog.queue_after(id, after.as_deref()) {
                    after = Some(name);
                }
            }
            Step::Pass { ns, expire_at_most } => self.pass(ns, expire_at_most),
            Step::Recalled { place } => {
                let found = self.catalog.find(&namespace(place.0), &name(place.1), self.now_ns);
                if let Some((number, _)) = found {
                    self.catalog.slide(number, self.now_ns);
                }
                let known = self.names.get_mut(&place).filter(|known| known.lives(self.now_ns));
                if let Some(known) = known
                    && let Some(ttl) = known.ttl.as_ref().filter(|ttl| ttl.is_sliding)
                {
                    known.expires_ns = known.expires_ns.max(expiry(ttl, self.now_ns));
                }
            }
            Step::EndSession { session } => {
                let mut ended = BTreeSet::new();
                while let Ending::Unbound(unbound) = self.catalog.end_one_of(SessionId(session), self.end()) {
                    ended.insert(unbound.entry.version);
                    self.let_go(Some(*unbound));
                }
                let gone = self.names.extract_if(.., |_, known| known.owner == Some(session));
                assert_eq!(ended, gone.map(|(_, known)| known.version).collect());
                assert!(!self.catalog.has_ephemeral(SessionId(session)));
            }
            Step::Evict => {
                let next = self.catalog.next_of_both(&mut FIRSTS.clone(), &mut Slice::endless());
                let Next::This(cached) = next else { return };
                let victim = self.catalog.cached_binding(cached).expect("what is queued is bound");
                let end = self.end();
                let unbound = self.catalog.evict(victim, end).expect("it was not bound anew");
                assert!(self.catalog.evict(victim, end).is_none(), "it is bound no more");
                self.names.retain(|_, known| known.version != unbound.entry.version);
                self.let_go(Some(unbound));
            }
        }
    }

    fn bind(
        &mut self,
        place: (u8, u8),
        len_bytes: u64,
        ttl: Option<Ttl>,
        keeps_ttl: bool,
        owner: Option<u64>,
        text: Option<String>,
    ) {
        self.version += 1;
        let in_index = len_bytes <= 32;
        let plain = Header::new(Kind::BYTES);
        let value = vec![7; plasmon_protocol::index_of(len_bytes)];
        let header = if in_index { plain.with_inline(&value).expect("at most 32 bytes") } else { plain };
        // Nothing here is freed, so extents may lie anywhere.
        let extent = Extent { offset: self.version * 4_096, len_bytes: len_bytes.next_multiple_of(64) };
        let object = (!in_index).then(|| self.objects.add(extent, len_bytes, self.version));
        let entry = Entry {
            version: self.version,
            offset: if in_index { NO_EXTENT } else { extent.offset },
            len_bytes,
            created_ns: 5,
            expires_ns: 0,
            writer_uid: 3,
            header,
        };
        let new = NewBinding {
            entry,
            object,
            object_uuid: [9; 16],
            writer_pid: 4,
            bound_by: (4, 3),
            now_ns: self.now_ns,
            term: if keeps_ttl { Term::AsBefore(ttl.clone()) } else { Term::For(ttl.clone()) },
            owner: owner.map(SessionId),
            description: text.as_deref().map(Text::from),
            metadata: None,
        };
        let (of, called) = (namespace(place.0), name(place.1));
        let id = self.catalog.namespace(&of).expect("it is registered");
        let bound = self.catalog.bind(id, &NameId::new(&of, &called), &called, new);
        let before = self.names.get(&place);
        let replaced = bound.replaced.and_then(|replaced| replaced.object);
        assert_eq!(replaced.is_some(), before.is_some_and(|before| before.arena_bytes() > 0));
        let before = before.filter(|before| before.lives(self.now_ns));
        let ttl = ttl.or_else(|| self.declared[usize::from(place.0)].1.clone());
        let (ttl, expires_ns) = match before.filter(|_| keeps_ttl) {
            Some(before) => (before.ttl.clone(), before.expires_ns),
            None => {
                let at = ttl.as_ref().map_or(0, |ttl| expiry(ttl, self.now_ns));
                (ttl.filter(|_| at != 0), at)
            }
        };
        let kept = before.map(|before| before.text.clone()).unwrap_or_default();
        let text = text.unwrap_or(kept);
        let (version, learned_ns) = (self.version, self.now_ns);
        self.names.insert(place, Known { version, len_bytes, ttl, expires_ns, owner, text, learned_ns });
        bound.settle(&mut self.objects, object, String::new);
    }

    fn pass(&mut self, ns: u64, expire_at_most: usize) {
        self.now_ns += ns;
        let expired = self.names.values().filter(|known| !known.lives(self.now_ns));
        let mut expired: Vec<u64> = expired.map(|known| known.expires_ns).collect();
        expired.sort_unstable();
        for number in 0..expire_at_most {
            let unbound = match self.catalog.expire(self.end()) {
                Ending::Unbound(unbound) => Some(*unbound),
                _ => None,
            };
            let deadline = unbound.as_ref().map(|unbound| unbound.entry.expires_ns);
            assert_eq!(deadline, expired.get(number).copied(), "the first first, and nothing else");
            let Some(unbound) = unbound else { break };
            self.names.retain(|_, known| known.version != unbound.entry.version);
            self.let_go(Some(unbound));
        }
    }

    /// How what ends now ends.
    fn end(&self) -> End {
        End { version: self.version, reason: Reason::Forgotten, now_ns: self.now_ns }
    }

    fn let_go(&mut self, unbound: Option<Unbound>) {
        let Some(unbound) = unbound else { return };
        unbound.settle(&mut self.objects);
    }

    /// What the catalog answers is what the model knows, and the index shows the same.
    fn check(&mut self) {
        let reader = IndexReader::open(&self.seen).expect("an index");
        for place in (0..3).flat_map(|of| (0..NAMES).map(move |number| (of, number))) {
            let (of, called) = (namespace(place.0), name(place.1));
            let known = self.names.get(&place).filter(|known| known.lives(self.now_ns));
            let found = self.catalog.find(&of, &called, self.now_ns);
            let seen = reader.lookup(&NameId::new(&of, &called), || self.now_ns, |_| Ok::<_, ()>(()));
            let Some(known) = known else {
                assert!(found.is_none());
                assert_eq!(seen, Ok(Lookup::Absent));
                continue;
            };
            let (number, record) = found.expect("the model has it");
            let Ok(Lookup::Held { entry, number: shown, .. }) = seen else {
                panic!("the index lacks {called}")
            };
            assert_eq!((shown, entry), (number, record.entry), "the index is a mirror");
            assert_eq!(
                (entry.version, entry.len_bytes, entry.expires_ns),
                (known.version, known.len_bytes, known.expires_ns)
            );
            assert_eq!(*record.description, *known.text);
            let info = self.catalog.info(number, self.now_ns).expect("it is bound");
            assert_eq!((info.namespace, info.name, info.version), (of, called, known.version));
            assert_eq!(info.left_ns, (known.expires_ns != 0).then(|| known.expires_ns - self.now_ns));
            // An object has one holder for each name, and shows what it is called.
            let object = record.object.and_then(|object| self.objects.get(object));
            assert_eq!(object.is_some(), known.arena_bytes() > 0);
            assert!(object.is_none_or(|object| !object.is_released() && object.version == known.version));
        }
        for number in 0..3 {
            let of_it =
                || self.names.iter().filter(move |((of, _), _)| *of == number).map(|(_, known)| known);
            let info = self.catalog.namespace_info(&namespace(number)).expect("it is registered");
            let bytes: u64 = of_it().map(|known| known.len_bytes).sum();
            assert_eq!((info.names, info.bytes), (of_it().count() as u64, bytes));
            let id = self.catalog.namespace(&namespace(number)).expect("it is registered");
            let listed = self.catalog.names_from(id, "", None, self.now_ns).map(|(name, _)| name.to_owned());
            let mut living: Vec<String> = (self.names.iter())
                .filter(|((of, _), known)| *of == number && known.lives(self.now_ns))
                .map(|((_, called), _)| name(*called).as_str().to_owned())
                .collect();
            living.sort_unstable();
            assert_eq!(listed.collect::<Vec<_>>(), living);
        }
        assert_eq!(self.catalog.objects().0, self.names.len() as u64);
        assert_eq!(self.catalog.room(), u64::from(ENTRIES) - self.names.len() as u64);
        assert_eq!(self.catalog.text_bytes, self.names.values().map(|known| known.text.len() as u64).sum());
        let deadlines = self.names.values().map(|known| known.expires_ns).filter(|&at| at != 0);
        assert_eq!(self.catalog.next_expiry(), deadlines.min());
        self.check_cached();
    }

    fn check_cached(&mut self) {
        let cached = self.names.iter().filter(|((of, _), _)| self.declared[usize::from(*of)].0);
        let cached: Vec<&Known> = cached.map(|(_, known)| known).collect();
        let bytes: u64 = cached.iter().map(|known| known.arena_bytes()).sum();
        assert_eq!(self.catalog.cached_bytes(), bytes);
        let mut expected: Vec<u64> =
            cached.iter().filter(|known| known.owner.is_none()).map(|known| known.version).collect();
        let learned: BTreeMap<u64, u64> =
            cached.iter().map(|known| (known.version, known.learned_ns)).collect();
        let (mut at, mut queued) = (FIRSTS, Vec::new());
        while let Next::This(next) = self.catalog.next_of_both(&mut at, &mut Slice::endless()) {
            queued.push(self.catalog.cached_binding(next).expect("what is queued is bound").version);
        }
        assert!(queued.is_sorted_by_key(|version| learned[version]), "the least recently used is first");
        expected.sort_unstable();
        queued.sort_unstable();
        assert_eq!(queued, expected);
    }
}

/// Where both queues of cached bindings begin.
const FIRSTS: [Cached; 2] = [Cached::FIRST, Cached::FIRST_IN_INDEX];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Whatever is bound, unbound, expires, is prolonged, gives way or ends with a session: catalog and index say what a
    /// map of names says, and every object has the holders that it should have.
    #[test]
    fn the_catalog_is_a_map_of_names_and_the_index_its_mirror(
        steps in proptest::collection::vec(any_step(), 1..60),
    ) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
            model.check();
        }
    }
}

#[test]
fn a_namespace_is_removed_and_made_again_under_another_number() {
    let (mut catalog, _seen) = fresh(ENTRIES, 1 << 20);
    let of = namespace(1);
    let first = catalog.register(&of, 1).unwrap();
    assert_eq!(catalog.register(&of, 1), Ok(first), "it is there already");
    catalog.unregister(first, 2);
    assert_eq!((catalog.namespace(&of), catalog.names_in(first)), (None, 0));
    let second = catalog.register(&of, 1).unwrap();
    assert_ne!(first, second);
    assert_eq!(catalog.namespace_count(), 2, "`default` is always there");
}

#[test]
fn what_the_operator_declared_holds_whatever_others_declare() {
    let standing = Cache { namespace: namespace(0), ttl: Some(Ttl { ttl_ns: 50, is_sliding: false }) };
    let (catalog, _seen) = fresh(ENTRIES, 1 << 20);
    let mut catalog = catalog.with_caches(std::slice::from_ref(&standing)).unwrap();
    let id = catalog.namespace(&standing.namespace).unwrap();
    assert!(!catalog.declare(id, false, None), "it was a cache before");
    let info = catalog.namespace_info(&standing.namespace).unwrap();
    assert_eq!((info.is_cache, info.ttl), (true, standing.ttl.clone()));
    catalog.unregister(id, 2);
    catalog.register(&standing.namespace, 3).unwrap();
    assert!(catalog.namespace_info(&standing.namespace).unwrap().is_cache, "also when it is made again");
}

#[test]
fn limits_are_counted_with_what_is_there() {
    let (catalog, _seen) = fresh(ENTRIES, 1 << 20);
    let catalog = catalog.with_limits(3, 10, 0);
    assert_eq!(catalog.check_namespaces(2, true), Ok(()));
    assert_eq!(catalog.check_namespaces(3, true), Err(3), "`default` counts");
    assert_eq!(catalog.check_texts(10, 0, true), Ok(()));
    assert_eq!(catalog.check_texts(11, 0, true), Err(10));
    assert_eq!(catalog.check_texts(11, 1, true), Ok(()), "what is replaced counts");
}

/// Users that are merely admitted leave half of both to the store's own.
#[test]
fn other_users_have_half_of_a_limit() {
    let (catalog, _seen) = fresh(ENTRIES, 1 << 20);
    let catalog = catalog.with_limits(8, 10, 0);
    assert_eq!((catalog.check_namespaces(3, false), catalog.check_namespaces(4, false)), (Ok(()), Err(4)));
    assert_eq!((catalog.check_texts(5, 0, false), catalog.check_texts(6, 0, false)), (Ok(()), Err(5)));
    assert_eq!((catalog.check_namespaces(7, true), catalog.check_texts(10, 0, true)), (Ok(()), Ok(())));
}

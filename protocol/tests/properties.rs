//! Properties: whatever bytes come in, whatever is bound and unbound in whatever order.
#![cfg(not(loom))]

use bytes::Bytes;
use plasmon_protocol::{
    frame::{FrameError, FrameHeader, HEADER_BYTES},
    id::NameId,
    index::{Entry, IndexReader, IndexWriter, Lookup, PoolEmpty},
    layout::{IndexShape, WORD_BYTES, bucket, index_header, session},
    limits,
    message::*,
    name::{Label, NAME_BYTES_MAX, Name, Namespace},
    object::{Dtype, Flags, Header, INLINE_VALUE_BYTES_MAX, Kind},
    pins::{Moved, RegionError, SessionRegion, offset_of, pin_for},
    sync::{AtomicU64, Ordering},
};
use proptest::{collection::vec, prelude::*, sample::Index};
use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    fmt::Debug,
};

// ---------------------------------------------------------------- Messages

/// Calls a generic function for every message.
macro_rules! for_every_message {
    ($call:ident($($argument:expr),*)) => {
        for_every_message!(@ $call($($argument),*)
            Failed Hello Welcome Attached Goodbye Commit LongCommit Committed Reserve Granted ExtendLease EndLease LeaseEnded
            AddRegion RegionAdded Find Found FindMany FoundMany Wait Bound ListNames NamesPage ListNamespaces
            NamespacesListed Describe Described ReadStats Stats ListPins PinsPage Kick Kicked
            ListBareNames BareNamesPage WaitChange Changed ListDescribed DescribedPage DescribeNamespace
            NamespaceDescribed BeginView ViewBegun EndHold HoldEnded FindAt TakeSnapshot SnapshotTaken DropSnapshot
            ListSnapshots SnapshotsPage ListViews ViewsPage ListVersions VersionsPage ListAt ThenPage DescribePast
            PastDescribed)
    };
    (@ $call:ident $arguments:tt $($message:ident)*) => {
        $( for_every_message!(% $call $message $arguments); )*
    };
    (% $call:ident $message:ident ($($argument:expr),*)) => { $call::<$message>($($argument),*)? };
}

proptest! {
    /// Invariant 7. A header is what it says or is refused.
    #[test]
    fn any_sixteen_bytes_are_a_header_or_refused(bytes: [u8; HEADER_BYTES]) {
        match FrameHeader::parse(&bytes) {
            Ok(header) => {
                prop_assert!(header.len_bytes <= limits::FRAME_BYTES_MAX);
                prop_assert_eq!(header.to_bytes(), bytes);
            }
            Err(FrameError::TooLong { len_bytes }) => prop_assert!(len_bytes > limits::FRAME_BYTES_MAX),
            Err(FrameError::Reserved { found }) => prop_assert_ne!(found, 0),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    /// Invariant 7. No bytes make the daemon panic, and what it accepts has one encoding.
    #[test]
    fn any_bytes_are_a_request_or_refused(kind in prop_oneof![0_u16..40, any::<u16>()], body in vec(any::<u8>(), 0..200)) {
        let Some(parsed) = AnyRequest::parse(kind, body.into()) else {
            return Ok(());
        };
        match parsed {
            Ok(request) => prop_assert!(!request.name().is_empty()),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn any_bytes_are_a_message_or_refused(body in vec(prop_oneof![0_u8..4, any::<u8>()], 0..200)) {
        for_every_message!(accepts_only_what_it_would_write(&body));
    }

    #[test]
    fn every_message_survives_the_round_trip(words in vec(any::<u64>(), 0..300), request_id: u64) {
        for_every_message!(survives_the_round_trip(&words, request_id));
    }

    /// Near the valid ones is where bytes are most likely to be taken for something they are not.
    #[test]
    fn a_damaged_message_is_refused_or_another_message(
        words in vec(any::<u64>(), 0..300),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
        cut: Option<Index>,
    ) {
        for_every_message!(survives_damage(&words, &damage, cut));
    }
}

fn accepts_only_what_it_would_write<M: Message>(body: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(message) = M::parse(Bytes::copy_from_slice(body)) {
        let mut again = Vec::new();
        message.encode(&mut again);
        prop_assert_eq!(again, body, "message {}", M::KIND);
    }
    Ok(())
}

fn survives_the_round_trip<M: Message + Make + Debug + PartialEq>(
    words: &[u64],
    request_id: u64,
) -> Result<(), TestCaseError> {
    let message = M::make(&mut Source(words));
    let mut frame = vec![7; 3]; // a frame is appended to what is queued already
    message.frame(request_id, &mut frame).unwrap();
    let (header, body) = frame[3..].split_first_chunk().unwrap();
    let header = FrameHeader::parse(header).unwrap();
    prop_assert_eq!((header.kind, header.request_id), (M::KIND, request_id));
    prop_assert_eq!(header.len_bytes as usize, body.len());
    prop_assert_eq!(M::parse(Bytes::copy_from_slice(body)).unwrap(), message);
    Ok(())
}

fn survives_damage<M: Message + Make>(
    words: &[u64],
    damage: &[(Index, u8)],
    cut: Option<Index>,
) -> Result<(), TestCaseError> {
    let mut body = Vec::new();
    M::make(&mut Source(words)).encode(&mut body);
    if !body.is_empty() {
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = *byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
    }
    accepts_only_what_it_would_write::<M>(&body)
}

// ---------------------------------------------------------------- Valid messages of any kind

/// Random words that values are made from; zeros when they run out, so that shrinking the words shrinks the value.
struct Source<'a>(&'a [u64]);

impl Source<'_> {
    fn word(&mut self) -> u64 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.word() % end as u64).unwrap()
    }

    fn text(&mut self, alphabet: &[char], len: usize) -> String {
        (0..len).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }
}

/// A value that can be made from random words.
trait Make: Sized {
    fn make(source: &mut Source<'_>) -> Self;
}

macro_rules! make {
    ($($type:ty: |$source:ident| $value:expr;)*) => {
        $( impl Make for $type { fn make($source: &mut Source<'_>) -> Self { $value } } )*
    };
}
make! {
    u8: |source| source.word().to_le_bytes()[0];
    u16: |source| u16::from(u8::make(source)) << 8 | u16::from(u8::make(source));
    u32: |source| u32::try_from(source.word() >> 32).unwrap();
    u64: |source| source.word();
    bool: |source| source.word() % 2 == 1;
    [u64; 4]: |source| [0; 4].map(|_| source.word());
    String: |source| { let len = source.below(9); source.text(&['a', '\0', 'ß', '€', '🦀'], len) };
    Namespace: |source| {
        let len = 5 + source.below(60);
        Namespace::new(&source.text(&['a', 'Z', '0', '_', '.', '-'], len)).unwrap()
    };
    Label: |source| {
        let len = 1 + source.below(64);
        Label::new(&source.text(&['a', 'Z', '0', '_', '.', '-'], len)).unwrap()
    };
    Name: |source| {
        let len = [1, 2, 17, NAME_BYTES_MAX / 4][source.below(4)];
        Name::new(&source.text(&['n', ' ', '/', 'é', '🦀'], len)).unwrap()
    };
    Bytes: |source| { let len = source.below(99); (0..len).map(|_| u8::make(source)).collect() };
    Kind: |source| Kind::from_number(u8::make(source));
    Dtype: |source| Dtype::from_number(u8::make(source));
    Flags: |source| Flags::from_bits(u8::make(source));
}

impl<const N: usize> Make for [u8; N] {
    fn make(source: &mut Source<'_>) -> Self {
        [0; N].map(|_| u8::make(source))
    }
}

impl<T: Make> Make for Option<T> {
    fn make(source: &mut Source<'_>) -> Self {
        bool::make(source).then(|| T::make(source))
    }
}

impl<T: Make> Make for Box<T> {
    fn make(source: &mut Source<'_>) -> Self {
        Box::new(T::make(source))
    }
}

impl<T: Make> Make for Vec<T> {
    fn make(source: &mut Source<'_>) -> Self {
        (0..source.below(4)).map(|_| T::make(source)).collect()
    }
}

macro_rules! make_structs {
    ($($name:ident { $($field:ident)* })*) => {
        $( impl Make for $name {
            fn make(source: &mut Source<'_>) -> Self {
                let _ = &source;
                $( let $field = Make::make(source); )*
                $name { $($field),* }
            }
        } )*
    };
}
make_structs! {
    Failed { failure }
    Hello { magic version role }
    Welcome {
        version session_id token store_uuid uid store_pid boottime_ns capacity_bytes arena_bytes index_bytes
        session_bytes pins_max writable populated region_names
    }
    Attached { session_id }
    Goodbye {}
    Commit { conditions changes end_leases }
    LongCommit { lease offset len_bytes }
    Committed { version unbound unbound_bytes }
    Reserve { len_bytes }
    Granted { lease slot offset len_bytes }
    ExtendLease { lease len_bytes }
    EndLease { lease }
    LeaseEnded {}
    AddRegion {}
    RegionAdded { region name }
    Find { namespace name slot }
    Found { location }
    FindMany { names }
    FoundMany { locations }
    Wait { namespace name above_version wait_ms }
    Bound { version }
    WaitChange { namespace name version wait_ms }
    Changed { version }
    ListNames { namespace prefix after limit }
    NamesPage { names more }
    ListBareNames { namespace prefix after }
    BareNamesPage { names lengths more }
    ListDescribed { namespace prefix after }
    DescribedPage { names more }
    DescribeNamespace { namespace }
    NamespaceDescribed { info }
    ListNamespaces { after }
    NamespacesListed { namespaces more }
    Describe { namespace name }
    Described { binding description metadata }
    ReadStats {}
    Stats {
        capacity_bytes used_bytes free_bytes largest_free_bytes limbo_bytes leased_bytes pinned_bytes populated_bytes
        objects objects_max namespaces pins sessions orphaned_sessions connections leases waits version commits
        requests refused expired cached_bytes evicted evicted_bytes uptime_s store_pid rss_bytes pss_bytes descriptors
        store_uuid refused_learns refusals kept kept_max past_bytes snapshots views
    }
    ListPins { after }
    PinsPage { pins next }
    Kick { pid }
    Kicked { sessions }
    BeginView { at }
    ViewBegun { view moment taken_ns namespaces }
    EndHold { view }
    HoldEnded {}
    FindAt { namespace name at slot }
    TakeSnapshot { label namespaces }
    SnapshotTaken { moment }
    DropSnapshot { label }
    ListSnapshots { after }
    SnapshotsPage { snapshots more }
    ListViews { after }
    ViewsPage { views more }
    ListVersions { namespace name all below }
    VersionsPage { versions more }
    ListAt { namespace at prefix after }
    ThenPage { names next }
    DescribePast { namespace }
    PastDescribed { history kept version }
    RefusedLearns { reason namespace learns }

    Condition { namespace name expect }
    FailedCondition { namespace name expect found }
    SameAs { namespace name description metadata lives of_namespace of_name at }
    History { versions age_ns bytes }
    SnapshotInfo { label moment created_ns namespaces names bytes pid uid }
    ViewInfo { view moment began_ns pid uid command kept }
    ThenInfo { name version }
    VersionInfo {
        version object_id len_bytes kind created_ns writer_pid writer_uid bound_by_pid bound_by_uid description metadata
        ended ttl
    }
    EndInfo { version reason ago_ns in_history }
    Bind { namespace name description metadata header ttl payload }
    Ttl { ttl_ns is_sliding }
    NoRoom {
        requested_bytes capacity_bytes used_bytes free_bytes largest_free_bytes limbo_bytes cached_bytes populated_bytes
        holders
    }
    FullOfPast { room past_bytes keepers }
    Holder { pid command bytes }
    PinPlace { session offset }
    NameSlot { namespace name slot }
    ListedName { namespace name }
    DescribedName { binding description metadata }
    BindingInfo { namespace name version object_id len_bytes kind created_ns writer_pid writer_uid recalled_ns ttl left_ns }
    NamespaceInfo { namespace names bytes is_cache ttl }
    PinInfo { pid uid command orphaned session_age_s name limbo version len_bytes pins seen_for_s }
    Header { kind dtype ndim flags buffer_offset dims }
    Entry { version offset len_bytes created_ns expires_ns writer_uid header }
}

macro_rules! make_choices {
    ($($name:ident { $($item:ident $( ($value:ident) )? $( { $($field:ident)* } )?)* })*) => {
        $( impl Make for $name {
            fn make(source: &mut Source<'_>) -> Self {
                let makers: &[fn(&mut Source<'_>) -> Self] = &[
                    $( |source| {
                        let _ = &source;
                        $( let $value = Make::make(source); )?
                        $( $( let $field = Make::make(source); )* )?
                        $name::$item { $( 0: $value )? $( $($field),* )? }
                    } ),*
                ];
                makers[source.below(makers.len())](source)
            }
        } )*
    };
}
make_choices! {
    Role { Lifeline Requests { token } }
    Expect { Absent Version { version } Present NamespaceUnchanged { since } }
    Lives { AsDeclared For(ttl) AsSource }
    Reason { Rebound Forgotten Expired Evicted Cleared }
    MomentOf { Now Snapshot { label } Held { moment } }
    When { View { view } Version { version } }
    Keeper {
        History { namespace bytes } Snapshot { label bytes } View { view pid command bytes }
    }
    Change {
        Bind(bind) Unbind { namespace name } RemoveNamespace { namespace } ClearNamespace { namespace }
        RegisterNamespace { namespace } DeclareNamespace { namespace is_cache ttl } BindEphemeral(bind)
        RemoveEmptyNamespace { namespace } EnsureCache { namespace } Replace(bind) SameAs(same)
        DeclareHistory { namespace history } PurgeHistory { namespace name } RestoreNamespace { namespace label }
    }
    Payload { Inline { bytes } Leased { lease offset len_bytes } InHeader AsChange { index } }
    FoundOne { Absent At(location) }
    Failure {
        VersionMismatch { client store } NotAdmitted { uid store_uid } TooMany { what limit } UnknownSession
        Malformed { reason } UnknownRequest { kind } ConditionFailed { namespace name expect found }
        StoreFull(room) IndexFull { requested used limit } UnknownNamespace { namespace } DefaultNamespace
        BadLease { lease reason } IdTaken { wanted holder } NamedTwice { namespace name }
        TooLarge { what found_bytes limit_bytes } BadSlot { slot } WaitTimeout
        UnknownProcess { pid } ShuttingDown Internal { reason } NamespaceInUse { namespace names }
        NotBound { namespace name } ConditionsFailed { failed more } SnapshotExists { label } SnapshotNotFound { label }
        ViewEnded { view } CacheHasNoPast { namespace } TooManyKept { namespace requested kept limit }
        FullOfPast(full)
    }
}

// ---------------------------------------------------------------- The index

/// What is done to an index; names are numbers into a short list, so that they meet often.
#[derive(Clone, Debug)]
enum Step {
    Bind(Index, Vec<u64>),
    Unbind(Index),
}

fn changes() -> impl Strategy<Value = Vec<Step>> {
    let bind = (any::<Index>(), vec(any::<u64>(), 0..15)).prop_map(|(name, words)| Step::Bind(name, words));
    let unbind = any::<Index>().prop_map(Step::Unbind);
    vec(prop_oneof![3 => bind, 2 => unbind], 0..100)
}

proptest! {
    /// Invariant 3. The index is a map: with a pool of one entry, with a full pool, and with every name in one bucket.
    #[test]
    fn an_index_is_a_map(
        entry_count in prop_oneof![Just(1_u32), 2_u32..9, 60_u32..70],
        crowded: bool,
        changes in changes(),
        now_ns: u64,
    ) {
        let shape = IndexShape::for_entries(entry_count).unwrap();
        let ids = ids(shape, crowded);
        let words = words(shape.words());
        let mut writer = IndexWriter::prepare(&words, shape, [0; 16], 1 << 20);
        let reader = IndexReader::open(&words[..]).unwrap();
        let mut model: HashMap<NameId, Entry> = HashMap::new();

        for change in &changes {
            match change {
                Step::Bind(name, values) => {
                    let (id, entry) = (name.get(&ids), Entry::make(&mut Source(values)));
                    match writer.find(&words, id) {
                        Some(number) => writer.replace(&words, id, number, &entry),
                        None => {
                            let full = model.len() == entry_count as usize;
                            let inserted = writer.insert(&words, id, &entry);
                            prop_assert_eq!(inserted.err(), full.then_some(PoolEmpty));
                            if full {
                                continue;
                            }
                        }
                    }
                    model.insert(*id, entry);
                }
                Step::Unbind(name) => {
                    let id = name.get(&ids);
                    prop_assert_eq!(writer.remove(&words, id).is_some(), model.remove(id).is_some());
                }
            }
            prop_assert_eq!(writer.room() as usize, entry_count as usize - model.len());
        }

        let mut numbers = BTreeMap::new();
        for id in &ids {
            let (found, live) = (model.get(id), model.get(id).filter(|entry| is_live(entry, now_ns)));
            let number = writer.find(&words, id);
            let bound = reader.lookup(id, || 0, |_| Ok::<_, Infallible>(())).unwrap(); // nothing has expired at 0
            prop_assert_eq!(held(&bound), found.copied().zip(number));
            if let Some(number) = number {
                prop_assert!(numbers.insert(number, id).is_none(), "two names share entry {}", number);
            }
            let pins = Cell::new(0);
            let looked = reader.lookup(id, || now_ns, |entry| publish(&pins, entry)).unwrap();
            prop_assert_eq!(held(&looked), live.map(|entry| (*entry, number.unwrap())));
            let pinned = live.is_some_and(|entry| !entry.header.flags.has(Flags::INLINE));
            prop_assert_eq!(pins.get(), i32::from(pinned), "a look at an absent name leaves no pin");
        }

        let pins = Cell::new(0);
        let snapshot = reader.snapshot(&ids, || now_ns, |entry| publish(&pins, entry)).unwrap().unwrap();
        for (id, looked) in ids.iter().zip(&snapshot) {
            let live = model.get(id).filter(|entry| is_live(entry, now_ns)).copied();
            prop_assert_eq!(held(looked).map(|(entry, _)| entry), live);
        }
        drop(snapshot);
        prop_assert_eq!(pins.get(), 0);

        writer.open_epoch(&words);
        prop_assert!(reader.snapshot(&ids, || now_ns, |entry| publish(&pins, entry)).unwrap().is_none());
        writer.close_epoch(&words);
        prop_assert!(reader.snapshot(&ids, || now_ns, |entry| publish(&pins, entry)).unwrap().is_some());
    }

    /// A publisher that has no slot fails the look; whatever it had published is withdrawn.
    #[test]
    fn a_failed_publish_leaves_no_pin(bound in 1_usize..8, slots in 0_i32..8) {
        let shape = IndexShape::for_entries(8).unwrap();
        let ids = ids(shape, false);
        let words = words(shape.words());
        let mut writer = IndexWriter::prepare(&words, shape, [0; 16], 1 << 20);
        for id in &ids[..bound] {
            writer.insert(&words, id, &Entry::make(&mut Source(&[]))).unwrap();
        }
        let pins = Cell::new(0);
        let publish = |entry: &Entry| if pins.get() < slots { publish(&pins, entry).map_err(|_| ()) } else { Err(()) };
        let looked = IndexReader::open(&words[..]).unwrap().snapshot(&ids[..bound], || 0, publish);
        prop_assert_eq!(looked.is_err(), bound > slots as usize);
        drop(looked);
        prop_assert_eq!(pins.get(), 0);
    }

    /// Links are bounds-checked and walks are bounded: no index, however torn, harms its reader.
    #[test]
    fn any_words_are_read_without_harm(
        entry_count in 1_u32..9,
        garbage in vec(prop_oneof![0_u64..10, any::<u64>()], 250),
        even: bool,
    ) {
        let shape = IndexShape::for_entries(entry_count).unwrap();
        let words = words(shape.words());
        let _ = IndexWriter::prepare(&words, shape, [0; 16], 1 << 20);
        for (word, value) in words[index_header::WORDS..].iter().zip(&garbage) {
            word.store(*value, Ordering::Relaxed);
        }
        if even {
            for number in 0..shape.bucket_count() {
                words[shape.bucket(number) + bucket::SEQUENCE].store(2, Ordering::Relaxed);
            }
        }
        let reader = IndexReader::open(&words[..]).unwrap();
        let pins = Cell::new(0);
        for id in ids(shape, false) {
            let looked = reader.lookup(&id, || 0, |entry| publish(&pins, entry)).unwrap();
            prop_assert!(!even || !matches!(looked, Lookup::Unsteady));
        }
        prop_assert_eq!(pins.get(), 0);
    }

    /// A header that claims more than its region has is refused, whatever it claims.
    #[test]
    fn any_header_is_an_index_or_refused(
        bucket_count in prop_oneof![0_u64..10, any::<u64>()],
        entry_count in prop_oneof![0_u64..10, any::<u64>()],
    ) {
        let shape = IndexShape::for_entries(4).unwrap();
        let words = words(shape.words());
        let _ = IndexWriter::prepare(&words, shape, [0; 16], 1 << 20);
        words[index_header::BUCKET_COUNT].store(bucket_count, Ordering::Relaxed);
        words[index_header::ENTRY_COUNT].store(entry_count, Ordering::Relaxed);
        match IndexReader::open(&words[..]) {
            Ok(reader) => {
                prop_assert!(reader.shape().words() <= words.len());
                prop_assert_eq!(reader.shape().bucket_count(), bucket_count);
            }
            Err(error) => {
                let words = words.len();
                prop_assert_eq!(error, RegionError::Shape { bucket_count, entry_count, words });
            }
        }
    }

    #[test]
    fn a_shape_has_a_bucket_for_one_to_two_entries_and_nothing_overlaps(entry_count in 1..=IndexShape::ENTRIES_MAX) {
        let shape = IndexShape::for_entries(entry_count).unwrap();
        let (buckets, entries) = (shape.bucket_count(), u64::from(entry_count));
        prop_assert!(buckets.is_power_of_two() && buckets <= entries && entries <= 2 * buckets);
        let first = shape.entry(1).unwrap();
        prop_assert!(shape.bucket(buckets - 1) + bucket::WORDS <= first);
        prop_assert_eq!(first * 8 % 128, 0, "an entry takes exactly two cache lines");
        prop_assert_eq!(shape.entry(entry_count).unwrap() + 16, shape.words());
        prop_assert_eq!(WORD_BYTES, 8);
    }

    #[test]
    fn an_inline_value_is_read_as_it_was_written(value in vec(any::<u8>(), 0..40)) {
        match Header::new(Kind::BYTES).with_inline(&value) {
            Some(header) => {
                let (bytes, len_bytes) = header.inline().unwrap();
                prop_assert_eq!(&bytes[..len_bytes], value);
            }
            None => prop_assert!(value.len() > INLINE_VALUE_BYTES_MAX),
        }
    }
}

fn is_live(entry: &Entry, now_ns: u64) -> bool {
    entry.expires_ns == 0 || entry.expires_ns > now_ns
}

fn held<P>(looked: &Lookup<P>) -> Option<(Entry, u32)> {
    match looked {
        Lookup::Held { entry, number, pin } => {
            assert_eq!(pin.is_none(), entry.header.flags.has(Flags::INLINE));
            Some((*entry, *number))
        }
        Lookup::Absent => None,
        Lookup::Unsteady => panic!("nobody is writing"),
    }
}

/// Counts pins that are held.
struct Counted<'a>(&'a Cell<i32>);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn publish<'a>(pins: &'a Cell<i32>, _: &Entry) -> Result<Counted<'a>, Infallible> {
    pins.set(pins.get() + 1);
    Ok(Counted(pins))
}

/// Names to bind; `crowded` ones all fall into the first bucket.
fn ids(shape: IndexShape, crowded: bool) -> Vec<NameId> {
    let namespace = Namespace::default();
    let words = words(shape.words());
    let mut writer = IndexWriter::prepare(&words, shape, [0; 16], 0);
    let falls_into_first_bucket = |id: &NameId| {
        writer.insert(&words, id, &Entry::make(&mut Source(&[]))).unwrap();
        let first = words[shape.bucket(0) + bucket::HEAD].load(Ordering::Relaxed) != 0;
        writer.remove(&words, id).unwrap();
        first
    };
    let ids = (0..).map(|number| NameId::new(&namespace, &format!("name {number}")));
    if crowded { ids.filter(falls_into_first_bucket).take(24).collect() } else { ids.take(24).collect() }
}

// ---------------------------------------------------------------- Session regions

proptest! {
    /// A scan finds the pins that are held, as often as they are held, and no others.
    #[test]
    fn a_scan_finds_exactly_the_pins_held(
        steps in vec((prop_oneof![0_u32..8, 0..limits::PIN_SLOTS], proptest::option::of(0_u64..1 << 50)), 0..40),
    ) {
        let words = words(session::words(0));
        let region = SessionRegion::prepare(&words).unwrap();
        let mut model = BTreeMap::new();
        for (slot, object) in steps {
            match object {
                Some(granule) => {
                    region.publish(slot, pin_for(granule * 64));
                    model.insert(slot, granule * 64);
                }
                None => {
                    region.withdraw(slot);
                    model.remove(&slot);
                }
            }
            prop_assert_eq!(region.pin(slot).and_then(offset_of), model.get(&slot).copied());
        }
        let mut found = Vec::new();
        SessionRegion::open(&words).unwrap().scan(|pin| found.push(offset_of(pin).unwrap()));
        prop_assert_eq!(found, model.into_values().collect::<Vec<_>>());
    }

    /// Invariant 7. The daemon scans what a client may have filled with anything.
    #[test]
    fn any_session_region_is_scanned_without_harm(high_water: u64, pins in vec(any::<u64>(), 16)) {
        let words = words(session::words(0));
        let region = SessionRegion::prepare(&words).unwrap();
        words[session::PIN_HIGH_WATER].store(high_water, Ordering::Relaxed);
        for (word, pin) in words[session::PINS..].iter().zip(&pins) {
            word.store(*pin, Ordering::Relaxed);
        }
        let mut found = Vec::new();
        region.scan(|pin| found.push(pin));
        let expected = pins.iter().copied().take(usize::try_from(high_water).unwrap()).filter(|&pin| pin != 0);
        prop_assert_eq!(&found, &expected.collect::<Vec<_>>());
        for pin in found {
            prop_assert!(offset_of(pin).is_none_or(|offset| offset % 64 == 0 && pin_for(offset) == pin));
        }
    }

    #[test]
    fn an_access_is_one_bit_of_its_own(entry_count in 1_u32..300, number in 0_u32..400) {
        let words = words(session::words(entry_count));
        let region = SessionRegion::prepare(&words).unwrap();
        region.note_access(number);
        region.note_access(number);
        let bits: u32 = words[session::ACCESS_BITS..].iter().map(|w| w.load(Ordering::Relaxed).count_ones()).sum();
        // The last word has bits to spare: entries that do not exist may leave one there, and it is never read.
        let fits = number >= 1 && number <= entry_count.next_multiple_of(64);
        prop_assert_eq!(bits, u32::from(fits));
    }

    /// A lease is the client's while it is busy and the daemon's once it is taken, and nobody leaves a state not its own.
    #[test]
    fn a_lease_moves_only_along_its_drawing(steps in vec(0..3, 0..20)) {
        #[derive(Clone, Copy, PartialEq)]
        enum State { Idle, Busy, Taken }
        let words = words(session::words(0));
        let lease = SessionRegion::prepare(&words).unwrap().lease(limits::LEASE_SLOTS - 1, 9).unwrap();
        lease.grant();
        let mut state = State::Busy;
        for step in steps {
            match step {
                0 => {
                    prop_assert_eq!(lease.claim() == Moved::Yes, state == State::Idle);
                    state = if state == State::Idle { State::Busy } else { state };
                }
                1 => {
                    prop_assert_eq!(lease.take() == Moved::Yes, state == State::Idle);
                    state = if state == State::Idle { State::Taken } else { state };
                }
                _ if state == State::Busy => {
                    lease.lay_down();
                    state = State::Idle;
                }
                _ => {}
            }
            prop_assert_eq!(lease.is_idle(), state == State::Idle);
        }
    }
}

fn words(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

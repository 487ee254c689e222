//! The bytes of every message are known: `golden/v1` holds a frame of each, of each variant of each choice.

#[path = "../../tests/support/golden.rs"]
mod golden;

use super::*;
use crate::{
    codec::{BoundedList, Problem},
    frame::{FrameHeader, HEADER_BYTES},
    index::Entry,
    limits,
    name::{Label, Name, Namespace},
    object::{Dtype, Flags, Header, Kind},
};
use core::fmt::Debug;
use golden::assert_golden;
use std::{
    boxed::Box,
    collections::BTreeSet,
    format, fs,
    string::{String, ToString},
    vec,
    vec::Vec,
};

/// Who sends a message, and what answers it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// From client to store; answered by one of these replies if it succeeds.
    Request(&'static [u16]),
    /// From store to client.
    Reply,
}
use Way::{Reply, Request};

/// The numbers of protocol 1. What stands here stays: a number is never reused.
const NUMBERS: &[(u16, &str, Way)] = &[
    (1, "Failed", Reply),
    (2, "Hello", Request(&[3, 5, 7])),
    (3, "Welcome", Reply),
    (5, "Attached", Reply),
    (6, "Goodbye", Request(&[])),
    (7, "ChildAdded", Reply),
    (8, "Commit", Request(&[9])),
    (9, "Committed", Reply),
    (10, "Reserve", Request(&[11])),
    (11, "Granted", Reply),
    (12, "ExtendLease", Request(&[11])),
    (14, "EndLease", Request(&[15])),
    (15, "LeaseEnded", Reply),
    (16, "AddRegion", Request(&[17])),
    (17, "RegionAdded", Reply),
    (18, "Find", Request(&[19])),
    (19, "Found", Reply),
    (20, "FindMany", Request(&[21])),
    (21, "FoundMany", Reply),
    (22, "Wait", Request(&[23])),
    (23, "Bound", Reply),
    (24, "ListNames", Request(&[25])),
    (25, "NamesPage", Reply),
    (26, "ListNamespaces", Request(&[27])),
    (27, "NamespacesListed", Reply),
    (28, "Describe", Request(&[29])),
    (29, "Described", Reply),
    (30, "ReadStats", Request(&[31])),
    (31, "Stats", Reply),
    (32, "ListPins", Request(&[33])),
    (33, "PinsPage", Reply),
    (34, "Kick", Request(&[35])),
    (35, "Kicked", Reply),
    (36, "LongCommit", Request(&[9])),
    (40, "ListBareNames", Request(&[41])),
    (41, "BareNamesPage", Reply),
    (42, "WaitChange", Request(&[43])),
    (43, "Changed", Reply),
    (44, "ListDescribed", Request(&[45])),
    (45, "DescribedPage", Reply),
    (46, "DescribeNamespace", Request(&[47])),
    (47, "NamespaceDescribed", Reply),
    (48, "BeginView", Request(&[49])),
    (49, "ViewBegun", Reply),
    (50, "EndHold", Request(&[51])),
    (51, "HoldEnded", Reply),
    (52, "FindAt", Request(&[19])),
    (54, "TakeSnapshot", Request(&[55])),
    (55, "SnapshotTaken", Reply),
    (56, "DropSnapshot", Request(&[51])),
    (58, "ListSnapshots", Request(&[59])),
    (59, "SnapshotsPage", Reply),
    (60, "ListViews", Request(&[61])),
    (61, "ViewsPage", Reply),
    (62, "ListVersions", Request(&[63])),
    (63, "VersionsPage", Reply),
    (64, "ListAt", Request(&[65])),
    (65, "ThenPage", Reply),
    (66, "DescribePast", Request(&[67])),
    (67, "PastDescribed", Reply),
];

#[test]
fn every_message_has_its_number_and_its_direction() {
    macro_rules! in_code {
        (requests { $($request:ident)* } requests without a reply { $($silent:ident)* } replies { $($reply:ident)* }) => {
            [
                $( ($request::KIND, stringify!($request), Request(&[<$request as super::Request>::Reply::KIND])), )*
                $( ($silent::KIND, stringify!($silent), Request(&[])), )*
                $( ($reply::KIND, stringify!($reply), Reply), )*
            ]
        };
    }
    let mut in_code = in_code! {
        requests {
            Hello Commit LongCommit Reserve ExtendLease EndLease AddRegion Find FindMany Wait ListNames ListNamespaces
            Describe ReadStats ListPins Kick ListBareNames WaitChange ListDescribed DescribeNamespace
            BeginView EndHold FindAt TakeSnapshot DropSnapshot ListSnapshots ListViews ListVersions ListAt DescribePast
        }
        requests without a reply { Goodbye }
        replies {
            Failed Welcome Attached ChildAdded Committed Granted LeaseEnded RegionAdded Found FoundMany Bound NamesPage
            NamespacesListed Described Stats PinsPage Kicked BareNamesPage Changed DescribedPage NamespaceDescribed
            ViewBegun HoldEnded SnapshotTaken SnapshotsPage ViewsPage VersionsPage ThenPage PastDescribed
        }
    };
    // The one request that three replies answer: its type names the first.
    assert_eq!(in_code[0], (Hello::KIND, "Hello", Request(&[Welcome::KIND])));
    in_code[0].2 = Request(&[Welcome::KIND, Attached::KIND, ChildAdded::KIND]);
    in_code.sort_by_key(|&(number, ..)| number);
    assert_eq!(in_code, NUMBERS);

    for &(number, name, way) in NUMBERS {
        assert_eq!(number % 2 == 0, matches!(way, Request(_)), "{name}: requests are even, replies are odd");
    }
    for kind in 0..=u16::MAX {
        let listed = NUMBERS.iter().any(|&(number, _, way)| number == kind && matches!(way, Request(_)));
        // These are read item by item.
        let whole = listed && ![Commit::KIND, FindMany::KIND].contains(&kind);
        assert_eq!(AnyRequest::parse(kind, Bytes::new()).is_some(), whole, "request {kind}");
    }
}

#[test]
fn the_table_of_numbers_is_the_documented_one() {
    let mut table =
        String::from("# Messages of protocol 1: number, name, direction, answer if it succeeds\n");
    for &(number, name, way) in NUMBERS {
        let (direction, answer) = match way {
            Reply => ("store to client", String::new()),
            Request([]) => ("client to store", "not answered".into()),
            Request(replies) => {
                let names =
                    NUMBERS.iter().filter(|(number, ..)| replies.contains(number)).map(|&(_, name, _)| name);
                ("client to store", names.collect::<Vec<_>>().join(" or "))
            }
        };
        table.push_str(format!("{number:>2}  {name:<17} {direction}  {answer}").trim_end());
        table.push('\n');
    }
    assert_golden(&golden::folder(VERSION.into()).join("NUMBERS.txt"), &table);
}

/// The sources are where messages are defined, so one that is in no table here is found there.
#[test]
fn no_message_is_missing_from_the_table() {
    let sources = [
        include_str!("commit.rs"),
        include_str!("failure.rs"),
        include_str!("handshake.rs"),
        include_str!("lease.rs"),
        include_str!("listing.rs"),
        include_str!("lookup.rs"),
        include_str!("operator.rs"),
        include_str!("past.rs"),
    ];
    assert_eq!(
        sources.iter().map(|source| source.matches("\nmessage! {").count()).sum::<usize>(),
        NUMBERS.len()
    );
    assert_eq!(
        sources.iter().map(|source| source.matches("\nchoice! {").count()).sum::<usize>(),
        11,
        "see `samples`"
    );
    let modules =
        include_str!("mod.rs").lines().filter(|line| line.starts_with("mod ") && *line != "mod tests;");
    assert_eq!(modules.count(), sources.len());
}

#[test]
fn every_message_has_its_golden_bytes() {
    let samples = samples();
    for sample in &samples {
        assert_golden(&golden::folder(VERSION.into()).join(format!("{}.hex", sample.file)), &sample.hex());
    }
    let sampled: BTreeSet<_> = samples.iter().map(|sample| sample.kind).collect();
    assert!(sampled.iter().eq(NUMBERS.iter().map(|(number, ..)| number)), "a message has no sample");
}

/// Whoever answers many look-ups one by one sends the bytes of an answer that is made in one piece.
#[test]
fn answers_one_by_one_are_the_same_bytes() {
    for sample in samples().iter().filter(|sample| sample.kind == FoundMany::KIND) {
        let whole = FoundMany::parse(sample.body()).unwrap();
        let mut one_by_one = FoundOneByOne::default();
        whole.locations.iter().for_each(|found| one_by_one.locations.push(found));
        assert_eq!(FoundOneByOne::parse(sample.body()).unwrap(), one_by_one);
        let (mut frame, mut expected) = (Vec::new(), Vec::new());
        one_by_one.frame(7, &mut frame).unwrap();
        whole.frame(7, &mut expected).unwrap();
        assert_eq!(frame, expected);
    }
}

#[test]
fn no_golden_file_is_left_over() {
    let samples = samples();
    for entry in fs::read_dir(golden::folder(VERSION.into())).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let known = ["NUMBERS.txt", "KINDS.txt", "layout.txt"].contains(&file.as_str())
            || file.strip_suffix(".hex").is_some_and(|file| samples.iter().any(|sample| sample.file == file));
        assert!(known, "no message has the golden file {file}: what was released once is still tested");
    }
}

#[test]
fn every_variant_has_a_sample() {
    let samples = samples();
    let sampled = |choice: &str| -> BTreeSet<u8> {
        samples
            .iter()
            .flat_map(|sample| &sample.choices)
            .filter(|(of, _)| *of == choice)
            .map(|(_, n)| *n)
            .collect()
    };
    assert_eq!(sampled("Role"), numbers_of::<Role>("Role"));
    assert_eq!(sampled("Expect"), numbers_of::<Expect>("Expect"));
    assert_eq!(sampled("Change"), numbers_of::<Change>("Change"));
    assert_eq!(sampled("Payload"), numbers_of::<Payload>("Payload"));
    assert_eq!(sampled("FoundOne"), numbers_of::<FoundOne>("FoundOne"));
    assert_eq!(sampled("Failure"), numbers_of::<Failure>("Failure"));
}

#[test]
fn every_message_is_read_as_it_was_written() {
    samples().iter().for_each(|sample| (sample.check)(sample));
}

/// Invariant 7. A body that ends early is refused, at every length, and says so.
#[test]
fn every_strict_prefix_of_a_message_is_refused() {
    for sample in samples() {
        for len_bytes in 0..sample.body().len() {
            let error = (sample.parse)(sample.body().slice(..len_bytes)).unwrap_err();
            assert!(
                matches!(error.problem, Problem::Truncated { .. }),
                "{} at {len_bytes}: {error}",
                sample.file
            );
        }
    }
}

#[test]
fn a_byte_after_the_last_field_is_refused() {
    for sample in samples() {
        let longer = [&sample.body()[..], &[0]].concat();
        let error = (sample.parse)(longer.into()).unwrap_err();
        assert_eq!(error.problem, Problem::Trailing { bytes: 1 }, "{}", sample.file);
    }
}

/// Read piece by piece or at once, a commit is the same, and the same bytes are refused.
#[test]
fn a_commit_read_piece_by_piece_is_the_commit() {
    fn pieces(body: Bytes) -> Result<Commit, DecodeError> {
        let mut reading = Commit::conditions(body)?;
        let mut conditions = Vec::new();
        while let Some(condition) = reading.read()? {
            conditions.push(condition);
        }
        let mut reading = Commit::changes(reading)?;
        let mut changes = Vec::new();
        while let Some(change) = reading.read()? {
            changes.push(change);
        }
        Ok(Commit { conditions, changes, end_leases: Commit::end_leases(reading)? })
    }
    for sample in samples().iter().filter(|sample| sample.file.starts_with("Commit.")) {
        let body = Bytes::from(sample.body().to_vec());
        for len in 0..=body.len() {
            assert_eq!(pieces(body.slice(..len)), Commit::parse(body.slice(..len)), "{}, {len}", sample.file);
        }
        let longer = Bytes::from([&body[..], &[0]].concat());
        assert_eq!(pieces(longer.clone()), Commit::parse(longer), "{}", sample.file);
    }
}

/// Invariant 7. What a peer claims about counts reserves nothing.
#[test]
fn counts_beyond_their_bounds_are_refused() {
    let samples = samples();
    for (file, at, limit) in [
        ("Commit.empty", 0, limits::COMMIT_ENTRIES_MAX),
        ("Commit.empty", 4, limits::COMMIT_ENTRIES_MAX),
        ("Commit.empty", 8, limits::LEASE_SLOTS),
        ("FindMany", 0, limits::RECALL_NAMES_MAX),
        ("FoundMany", 0, limits::RECALL_NAMES_MAX),
        ("NamesPage", 0, limits::PAGE_NAMES_MAX),
        ("NamespacesListed", 0, limits::PAGE_NAMES_MAX),
        ("PinsPage", 0, limits::PAGE_PINS_MAX),
        ("Welcome", 98, String::ITEMS_MAX),
        ("Failed.StoreFull", 58, Holder::ITEMS_MAX),
    ] {
        let sample = samples.iter().find(|sample| sample.file == file).unwrap();
        for count in [limit + 1, u32::MAX] {
            let mut body = sample.body().to_vec();
            body[at..at + 4].copy_from_slice(&count.to_le_bytes());
            let problem = Problem::TooLong { found: count.into(), limit: limit.into() };
            assert_eq!((sample.parse)(body.into()).unwrap_err().problem, problem, "{file} at {at}");
        }
    }
}

#[test]
fn unknown_variants_and_flags_are_refused() {
    let location = |flags: u8| {
        let mut body = vec![1];
        location().encode(&mut body);
        body[1 + 5 * 8 + 4 + 3] = flags;
        Found::parse(body.into())
    };
    assert!(location(0b1111).is_ok());
    assert_eq!(
        location(0b1_0000).unwrap_err(),
        DecodeError { field: "flags", problem: Problem::BadValue { found: 16 } }
    );
    let unknown = DecodeError { field: "Failure", problem: Problem::BadValue { found: 200 } };
    assert_eq!(Failed::parse(Bytes::from_static(&[200])).unwrap_err(), unknown);
}

// ---------------------------------------------------------------- Samples

/// One message of the golden files.
struct Sample {
    /// Name of its file.
    file: String,
    kind: u16,
    frame: Bytes,
    /// The choices it shows: which, and the number chosen.
    choices: Vec<(&'static str, u8)>,
    parse: fn(Bytes) -> Result<(), DecodeError>,
    check: Box<dyn Fn(&Sample)>,
}

const REQUEST_ID: u64 = 0x0102_0304_0506_0708;

impl Sample {
    fn of<M: Message + Clone + Debug + PartialEq + 'static>(file: &str, message: M) -> Self {
        let mut frame = Vec::new();
        message.frame(REQUEST_ID, &mut frame).unwrap();
        Sample {
            file: file.to_string(),
            kind: M::KIND,
            frame: frame.into(),
            choices: Vec::new(),
            parse: |body| M::parse(body).map(drop),
            check: Box::new(move |sample| {
                let header = FrameHeader::parse(sample.frame[..HEADER_BYTES].try_into().unwrap()).unwrap();
                assert_eq!((header.kind, header.request_id), (M::KIND, REQUEST_ID));
                assert_eq!(crate::index_of(header.len_bytes.into()), sample.body().len());
                let parsed = M::parse(sample.body()).unwrap();
                assert_eq!(parsed, message);
                let mut again = Vec::new();
                parsed.frame(REQUEST_ID, &mut again).unwrap();
                assert_eq!(again, sample.frame);
            }),
        }
    }

    /// Notes that the sample shows `chosen`, a variant of `choice`.
    fn showing<C: Codec>(mut self, choice: &'static str, chosen: &C) -> Self {
        let mut bytes = Vec::new();
        chosen.encode(&mut bytes);
        self.choices.push((choice, bytes[0]));
        self
    }

    fn body(&self) -> Bytes {
        self.frame.slice(HEADER_BYTES..)
    }

    /// The frame for people: the header in the first line, then 16 bytes a line with their place in the body.
    fn hex(&self) -> String {
        let (_, name, _) = NUMBERS.iter().find(|(number, ..)| *number == self.kind).unwrap();
        let mut text = format!("# {name} = {}, request id {REQUEST_ID:#018x}\n", self.kind);
        for (line, bytes) in self.frame.chunks(16).enumerate() {
            let place = if line == 0 { "head".to_string() } else { format!("{:04x}", (line - 1) * 16) };
            let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let shown: String = bytes
                .iter()
                .map(|&byte| if byte.is_ascii_graphic() { char::from(byte) } else { '.' })
                .collect();
            text.push_str(&format!("{place}  {:<47}  {shown}\n", hex.join(" ")));
        }
        text
    }
}

/// The numbers that `C` knows, found by offering it every number and nothing behind it.
fn numbers_of<C: Codec>(choice: &'static str) -> BTreeSet<u8> {
    (0..=u8::MAX)
        .filter(|&number| {
            let unknown = DecodeError { field: choice, problem: Problem::BadValue { found: number.into() } };
            C::decode(&mut Reader::new(vec![number].into())).err() != Some(unknown)
        })
        .collect()
}

fn label() -> Label {
    Label::new("before-the-run").unwrap()
}

fn history() -> History {
    History { versions: Some(10), age_ns: None, bytes: Some(1 << 33) }
}

fn ended() -> EndInfo {
    EndInfo { version: 41, reason: Reason::Forgotten, ago_ns: 1_000_000_000, in_history: true }
}

fn version_info(ended: Option<EndInfo>) -> VersionInfo {
    VersionInfo {
        version: 40,
        object_id: [7; 32],
        len_bytes: 1 << 33,
        kind: Kind::TABLE,
        created_ns: 1_700_000_000_000_000_000,
        writer_pid: 4_242,
        writer_uid: 1_000,
        bound_by_pid: 4_243,
        bound_by_uid: 0,
        description: String::from("of today"),
        metadata: String::from("{}"),
        ttl: ended.is_none().then(ttl),
        ended,
    }
}

fn same(lives: Lives, at: Option<u64>) -> SameAs {
    SameAs {
        namespace: namespace(),
        name: name("prices of yesterday"),
        description: None,
        metadata: at.map(|_| String::from("{}")),
        lives,
        of_namespace: Namespace::default(),
        of_name: name("prices"),
        at,
    }
}

fn samples() -> Vec<Sample> {
    let mut samples = vec![
        hello("Hello.Lifeline", Role::Lifeline),
        hello("Hello.Requests", Role::Requests { token: *b"sixteen byte tok" }),
        hello("Hello.Child", Role::Child { token: *b"sixteen byte tok", regions: 2 }),
        Sample::of("Welcome", welcome()),
        Sample::of(
            "Welcome.named",
            Welcome {
                writable: false,
                populated: false,
                region_names: ["/plasmon-index", "/plasmon-arena", "/plasmon-session"]
                    .map(String::from)
                    .into(),
                ..welcome()
            },
        ),
        Sample::of("Attached", Attached { session_id: 7 }),
        Sample::of(
            "ChildAdded",
            ChildAdded { session_id: 8, token: *b"sixteen byte tok", region_names: Vec::new() },
        ),
        Sample::of("Goodbye", Goodbye {}),
        Sample::of("Commit.empty", Commit { conditions: vec![], changes: vec![], end_leases: vec![] }),
        condition("Commit.Absent", Expect::Absent),
        condition("Commit.Version", Expect::Version { version: 41 }),
        condition("Commit.Present", Expect::Present),
        condition("Commit.NamespaceUnchanged", Expect::NamespaceUnchanged { since: 41 }),
        bind(
            "Commit.Bind.Inline",
            header(),
            Payload::Inline { bytes: Bytes::from_static(b"ARROW1\0\0...ARROW1") },
        ),
        bind("Commit.Bind.Leased", header(), Payload::Leased { lease: 3, offset: 4_096, len_bytes: 100_000 }),
        bind(
            "Commit.Bind.InHeader",
            Header::new(Kind::TEXT).with_inline(b"daily").unwrap(),
            Payload::InHeader,
        ),
        bind("Commit.Bind.AsChange", header(), Payload::AsChange { index: 3 }),
        change("Commit.SameAs", Change::SameAs(same(Lives::AsSource, None))),
        change("Commit.SameAs.at", Change::SameAs(same(Lives::For(ttl()), Some(41)))),
        change("Commit.SameAs.declared", Change::SameAs(same(Lives::AsDeclared, None))),
        change(
            "Commit.DeclareHistory",
            Change::DeclareHistory { namespace: namespace(), history: Some(history()) },
        ),
        change(
            "Commit.DeclareHistory.none",
            Change::DeclareHistory { namespace: namespace(), history: None },
        ),
        change("Commit.PurgeHistory", Change::PurgeHistory { namespace: namespace(), name: name("prices") }),
        change(
            "Commit.RestoreNamespace",
            Change::RestoreNamespace { namespace: namespace(), label: label() },
        ),
        Sample::of("BeginView.now", BeginView { at: MomentOf::Now }),
        Sample::of("BeginView.snapshot", BeginView { at: MomentOf::Snapshot { label: label() } }),
        Sample::of("BeginView.held", BeginView { at: MomentOf::Held { moment: 41 } }),
        Sample::of(
            "ViewBegun",
            ViewBegun { view: 3, moment: 41, taken_ns: 1 << 50, namespaces: vec![namespace()] },
        ),
        Sample::of("EndHold", EndHold { view: 3 }),
        Sample::of("HoldEnded", HoldEnded {}),
        Sample::of(
            "FindAt.view",
            FindAt { namespace: namespace(), name: name("prices"), at: When::View { view: 3 }, slot: 65_537 },
        ),
        Sample::of(
            "FindAt.version",
            FindAt {
                namespace: namespace(),
                name: name("prices"),
                at: When::Version { version: 41 },
                slot: 9,
            },
        ),
        Sample::of(
            "TakeSnapshot",
            TakeSnapshot { label: label(), namespaces: vec![Namespace::default(), namespace()] },
        ),
        Sample::of("SnapshotTaken", SnapshotTaken { moment: 41 }),
        Sample::of("DropSnapshot", DropSnapshot { label: label() }),
        Sample::of("ListSnapshots", ListSnapshots { after: Some(label()) }),
        Sample::of(
            "SnapshotsPage",
            SnapshotsPage {
                snapshots: vec![SnapshotInfo {
                    label: label(),
                    moment: 41,
                    created_ns: 1_700_000_000_000_000_000,
                    namespaces: vec![namespace()],
                    names: 7,
                    bytes: 1 << 33,
                    pid: 4_242,
                    uid: 1_000,
                }],
                more: true,
            },
        ),
        Sample::of("ListViews", ListViews { after: 3 }),
        Sample::of(
            "ViewsPage",
            ViewsPage {
                views: vec![ViewInfo {
                    view: 3,
                    moment: 41,
                    began_ns: 1_700_000_000_000_000_000,
                    pid: 4_242,
                    uid: 1_000,
                    command: String::from("python"),
                    kept: 7,
                }],
                more: false,
            },
        ),
        Sample::of(
            "ListVersions",
            ListVersions { namespace: namespace(), name: name("prices"), all: true, below: 41 },
        ),
        Sample::of(
            "VersionsPage",
            VersionsPage { versions: vec![version_info(None), version_info(Some(ended()))], more: true },
        ),
        Sample::of(
            "ListAt",
            ListAt {
                namespace: namespace(),
                at: Some(When::View { view: 3 }),
                prefix: String::from("pri"),
                after: Some(name("prices")),
            },
        ),
        Sample::of(
            "ListAt.deleted",
            ListAt { namespace: namespace(), at: None, prefix: String::new(), after: None },
        ),
        Sample::of(
            "ThenPage",
            ThenPage {
                names: vec![ThenInfo { name: name("prices"), version: version_info(Some(ended())) }],
                next: Some(name("prices")),
            },
        ),
        Sample::of("DescribePast", DescribePast { namespace: namespace() }),
        Sample::of("PastDescribed", PastDescribed { history: Some(history()), kept: 7, version: 42 }),
        Sample::of("PastDescribed.none", PastDescribed { history: None, kept: 0, version: 42 }),
        change("Commit.Unbind", Change::Unbind { namespace: namespace(), name: name("prices") }),
        change("Commit.RemoveNamespace", Change::RemoveNamespace { namespace: namespace() }),
        change("Commit.ClearNamespace", Change::ClearNamespace { namespace: namespace() }),
        change("Commit.RegisterNamespace", Change::RegisterNamespace { namespace: namespace() }),
        change(
            "Commit.DeclareNamespace",
            Change::DeclareNamespace { namespace: namespace(), is_cache: true, ttl: Some(ttl()) },
        ),
        change(
            "Commit.DeclareNamespace.plain",
            Change::DeclareNamespace { namespace: namespace(), is_cache: false, ttl: None },
        ),
        change("Commit.BindEphemeral", Change::BindEphemeral(in_header())),
        change("Commit.Replace", Change::Replace(in_header())),
        change("Commit.RemoveEmptyNamespace", Change::RemoveEmptyNamespace { namespace: namespace() }),
        change("Commit.EnsureCache", Change::EnsureCache { namespace: namespace() }),
        Sample::of("LongCommit", LongCommit { lease: 3, offset: 4_096, len_bytes: 100_000_000 }),
        Sample::of("Committed", Committed { version: 42, unbound: 2, unbound_bytes: 1 << 33 }),
        Sample::of("Reserve", Reserve { len_bytes: 1 << 32 }),
        Sample::of(
            "Granted",
            Granted { lease: 3, slot: 1_023, offset: 1 << 21, len_bytes: (1 << 32) + 4_096 },
        ),
        Sample::of("ExtendLease", ExtendLease { lease: 3, len_bytes: 1 << 33 }),
        Sample::of("EndLease", EndLease { lease: 3 }),
        Sample::of("LeaseEnded", LeaseEnded {}),
        Sample::of("AddRegion", AddRegion {}),
        Sample::of("RegionAdded", RegionAdded { region: 1, name: String::new() }),
        Sample::of("Find", Find { namespace: namespace(), name: name("prices"), slot: 65_537 }),
        Sample::of("Found", Found { location: Some(location()) }),
        Sample::of("Found.none", Found { location: None }),
        Sample::of(
            "FindMany",
            FindMany {
                names: ["prices", "größen"]
                    .map(|text| NameSlot { namespace: namespace(), name: name(text), slot: 9 })
                    .into(),
            },
        ),
        found_many(),
        Sample::of(
            "Wait",
            Wait { namespace: namespace(), name: name("prices"), above_version: 41, wait_ms: u64::MAX },
        ),
        Sample::of("Bound", Bound { version: 42 }),
        Sample::of(
            "WaitChange",
            WaitChange { namespace: namespace(), name: name("prices"), version: 41, wait_ms: u64::MAX },
        ),
        Sample::of("Changed", Changed { version: 42 }),
        Sample::of(
            "ListNames",
            ListNames {
                namespace: Some(namespace()),
                prefix: "pri".into(),
                after: Some(ListedName { namespace: namespace(), name: name("prices") }),
                limit: 100,
            },
        ),
        Sample::of(
            "ListNames.all",
            ListNames { namespace: None, prefix: String::new(), after: None, limit: 0 },
        ),
        Sample::of("NamesPage", NamesPage { names: vec![binding_info()], more: true }),
        Sample::of(
            "ListBareNames",
            ListBareNames { namespace: namespace(), prefix: "pri".into(), after: Some(name("prices")) },
        ),
        Sample::of("BareNamesPage", {
            let mut names = BareNames::default();
            ["prices", "prïces"].into_iter().for_each(|name| names.push(name));
            names.into_page(true)
        }),
        Sample::of("ListNamespaces", ListNamespaces { after: Some(namespace()) }),
        Sample::of(
            "NamespacesListed",
            NamespacesListed {
                namespaces: vec![NamespaceInfo {
                    namespace: namespace(),
                    names: 2,
                    bytes: 1 << 33,
                    is_cache: true,
                    ttl: Some(ttl()),
                }],
                more: false,
            },
        ),
        Sample::of("Describe", Describe { namespace: namespace(), name: name("prices") }),
        Sample::of(
            "Described",
            Described {
                binding: Some(binding_info()),
                description: "daily close".into(),
                metadata: r#"{"unit":"€"}"#.into(),
            },
        ),
        Sample::of(
            "ListDescribed",
            ListDescribed { namespace: namespace(), prefix: "pri".into(), after: Some(name("prices")) },
        ),
        Sample::of(
            "DescribedPage",
            DescribedPage {
                names: vec![DescribedName {
                    binding: binding_info(),
                    description: "daily close".into(),
                    metadata: r#"{"unit":"€"}"#.into(),
                }],
                more: true,
            },
        ),
        Sample::of("DescribeNamespace", DescribeNamespace { namespace: namespace() }),
        Sample::of(
            "NamespaceDescribed",
            NamespaceDescribed {
                info: Some(NamespaceInfo {
                    namespace: namespace(),
                    names: 2,
                    bytes: 1 << 33,
                    is_cache: true,
                    ttl: Some(ttl()),
                }),
            },
        ),
        Sample::of("ReadStats", ReadStats {}),
        Sample::of("Stats", stats()),
        Sample::of("ListPins", ListPins { after: Some(PinPlace { session: 7, offset: 4_096 }) }),
        Sample::of(
            "PinsPage",
            PinsPage {
                pins: vec![PinInfo {
                    pid: 1_234,
                    uid: 1_000,
                    command: "python3".into(),
                    orphaned: true,
                    session_age_s: 86_400,
                    name: "default/prices".into(),
                    limbo: false,
                    version: 42,
                    len_bytes: 1 << 33,
                    pins: 3,
                    seen_for_s: 60,
                }],
                next: Some(PinPlace { session: 7, offset: 8_192 }),
            },
        ),
        Sample::of("Kick", Kick { pid: 1_234 }),
        Sample::of("Kicked", Kicked { sessions: 2 }),
    ];
    samples.extend(failures());
    samples
}

fn hello(file: &str, role: Role) -> Sample {
    Sample::of(file, Hello { magic: MAGIC, version: VERSION, role: role.clone() }).showing("Role", &role)
}

fn welcome() -> Welcome {
    Welcome {
        version: VERSION,
        session_id: 7,
        token: *b"sixteen byte tok",
        store_uuid: *b"the store's uuid",
        uid: 1_000,
        store_pid: 4_321,
        boottime_ns: 1 << 50,
        capacity_bytes: 50_000_000,
        arena_bytes: 50_003_968,
        index_bytes: 8_913_408,
        session_bytes: 541_184,
        pins_max: 1_048_576,
        writable: true,
        populated: true,
        region_names: vec![],
    }
}

fn condition(file: &str, expect: Expect) -> Sample {
    let condition = Condition { namespace: namespace(), name: name("prices"), expect: expect.clone() };
    Sample::of(file, Commit { conditions: vec![condition], changes: vec![], end_leases: vec![] })
        .showing("Expect", &expect)
}

fn change(file: &str, change: Change) -> Sample {
    Sample::of(file, Commit { conditions: vec![], changes: vec![change.clone()], end_leases: vec![3, 4] })
        .showing("Change", &change)
}

fn bind(file: &str, header: Header, payload: Payload) -> Sample {
    let bind = Bind {
        namespace: namespace(),
        name: name("prices"),
        description: Some("daily close".into()),
        metadata: None,
        header,
        ttl: Some(ttl()),
        payload: payload.clone(),
    };
    change(file, Change::Bind(bind)).showing("Payload", &payload)
}

fn in_header() -> Bind {
    Bind {
        namespace: namespace(),
        name: name("leader"),
        description: None,
        metadata: None,
        header: Header::new(Kind::TEXT).with_inline(b"daily").unwrap(),
        ttl: None,
        payload: Payload::InHeader,
    }
}

fn found_many() -> Sample {
    let locations = vec![FoundOne::Absent, FoundOne::At(location())];
    Sample::of("FoundMany", FoundMany { locations: locations.clone() })
        .showing("FoundOne", &locations[0])
        .showing("FoundOne", &locations[1])
}

fn failures() -> impl Iterator<Item = Sample> {
    let reason = String::from("for people");
    let room = NoRoom {
        requested_bytes: 1 << 33,
        capacity_bytes: 50_000_000,
        used_bytes: 49_000_000,
        free_bytes: 1_000_000,
        largest_free_bytes: 999_936,
        limbo_bytes: 4_096,
        cached_bytes: 8_192,
        populated_bytes: None,
        holders: vec![],
    };
    let holder = Holder { pid: 1_234, command: "python3".into(), bytes: 4_096 };
    let failures = vec![
        ("VersionMismatch", Failure::VersionMismatch { client: 2, store: 1 }),
        ("NotAdmitted", Failure::NotAdmitted { uid: 1_001, store_uid: 1_000 }),
        ("TooMany", Failure::TooMany { what: "sessions (--max-sessions)".into(), limit: 1_024 }),
        ("UnknownSession", Failure::UnknownSession),
        ("Malformed", Failure::Malformed { reason: reason.clone() }),
        ("UnknownRequest", Failure::UnknownRequest { kind: 998 }),
        (
            "ConditionFailed",
            Failure::ConditionFailed {
                namespace: namespace(),
                name: name("prices"),
                expect: Expect::Version { version: 41 },
                found: Some(42),
            },
        ),
        ("StoreFull", Failure::StoreFull(room.clone())),
        (
            "StoreFull.unpopulated",
            Failure::StoreFull(NoRoom {
                populated_bytes: Some(2 << 20),
                holders: vec![holder],
                ..room.clone()
            }),
        ),
        ("IndexFull", Failure::IndexFull { requested: 2, used: 65_535, limit: 65_536 }),
        ("UnknownNamespace", Failure::UnknownNamespace { namespace: namespace() }),
        ("DefaultNamespace", Failure::DefaultNamespace),
        ("BadLease", Failure::BadLease { lease: 3, reason: reason.clone() }),
        ("IdTaken", Failure::IdTaken { wanted: "one".into(), holder: "another".into() }),
        ("NamedTwice", Failure::NamedTwice { namespace: namespace(), name: name("prices") }),
        (
            "TooLarge",
            Failure::TooLarge { what: "description".into(), found_bytes: 65_537, limit_bytes: 65_536 },
        ),
        ("BadSlot", Failure::BadSlot { slot: 65_536 }),
        ("WaitTimeout", Failure::WaitTimeout),
        ("UnknownProcess", Failure::UnknownProcess { pid: 1_234 }),
        ("ShuttingDown", Failure::ShuttingDown),
        ("Internal", Failure::Internal { reason }),
        ("NamespaceInUse", Failure::NamespaceInUse { namespace: namespace(), names: 3 }),
        (
            "ConditionsFailed",
            Failure::ConditionsFailed {
                failed: [(Expect::Absent, Some(41)), (Expect::NamespaceUnchanged { since: 40 }, None)]
                    .map(|(expect, found)| FailedCondition {
                        namespace: namespace(),
                        name: name("prices"),
                        expect,
                        found,
                    })
                    .into(),
                more: 7,
            },
        ),
        ("SnapshotExists", Failure::SnapshotExists { label: label() }),
        ("SnapshotNotFound", Failure::SnapshotNotFound { label: label() }),
        ("ViewEnded", Failure::ViewEnded { view: 3 }),
        ("CacheHasNoPast", Failure::CacheHasNoPast { namespace: namespace() }),
        (
            "TooManyKept",
            Failure::TooManyKept { namespace: namespace(), requested: 7, kept: 65_530, limit: 65_536 },
        ),
        (
            "FullOfPast",
            Failure::FullOfPast(Box::new(FullOfPast {
                room: room.clone(),
                past_bytes: 1 << 33,
                keepers: vec![
                    Keeper::History { namespace: namespace(), bytes: 1 << 32 },
                    Keeper::Snapshot { label: label(), bytes: 1 << 31 },
                    Keeper::View { view: 3, pid: 4_242, command: String::from("python"), bytes: 1 << 30 },
                ],
            })),
        ),
        ("NotBound", Failure::NotBound { namespace: namespace(), name: name("prices") }),
    ];
    failures.into_iter().map(|(file, failure)| {
        Sample::of(&format!("Failed.{file}"), Failed { failure: failure.clone() })
            .showing("Failure", &failure)
    })
}

fn stats() -> Stats {
    Stats {
        capacity_bytes: 101,
        used_bytes: 102,
        free_bytes: 103,
        largest_free_bytes: 104,
        limbo_bytes: 105,
        leased_bytes: 106,
        pinned_bytes: 107,
        populated_bytes: 108,
        objects: 109,
        objects_max: 110,
        namespaces: 111,
        pins: 112,
        sessions: 113,
        orphaned_sessions: 114,
        connections: 115,
        leases: 116,
        waits: 117,
        version: 118,
        commits: 119,
        requests: 120,
        refused: 121,
        expired: 127,
        cached_bytes: 128,
        evicted: 129,
        evicted_bytes: 130,
        uptime_s: 122,
        store_pid: 123,
        rss_bytes: 124,
        pss_bytes: 125,
        descriptors: 126,
        store_uuid: *b"the store's uuid",
        refused_learns: 131,
        refusals: vec![
            RefusedLearns { reason: "store_full".into(), namespace: Some(namespace()), learns: 100 },
            RefusedLearns { reason: "store_full".into(), namespace: None, learns: 31 },
        ],
        kept: 132,
        kept_max: 133,
        past_bytes: 134,
        snapshots: 135,
        views: 136,
    }
}

fn location() -> Entry {
    Entry {
        version: 42,
        offset: 1 << 21,
        len_bytes: 100_000,
        created_ns: 1_785_542_400_000_000_000,
        expires_ns: 0,
        writer_uid: 1_000,
        header: header(),
    }
}

fn binding_info() -> BindingInfo {
    BindingInfo {
        namespace: namespace(),
        name: name("prices"),
        version: 42,
        object_id: *b"user-42\0\0\0\0\0\0\0\0\0the object's uuid"[..].first_chunk().unwrap(),
        len_bytes: 100_000,
        kind: Kind::TENSOR,
        created_ns: 1_785_542_400_000_000_000,
        writer_pid: 1_234,
        writer_uid: 1_000,
        recalled_ns: 1_785_542_401_000_000_000,
        ttl: Some(ttl()),
        left_ns: Some(59_000_000_000),
    }
}

fn ttl() -> Ttl {
    Ttl { ttl_ns: 60_000_000_000, is_sliding: true }
}

fn header() -> Header {
    Header {
        kind: Kind::TENSOR,
        dtype: Dtype::FLOAT32,
        ndim: 3,
        flags: Flags::OUR_ENCODER.with(Flags::BUFFER).with(Flags::COLUMN_MAJOR),
        buffer_offset: 576,
        dims: [1, 2, 3, 0],
    }
}

fn namespace() -> Namespace {
    Namespace::new("user-42").unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn bare_names_are_read_as_they_were_written_and_a_page_that_contradicts_itself_is_refused() {
    let page = |names: &[&str]| {
        let mut page = BareNames::default();
        names.iter().for_each(|name| page.push(name));
        page.into_page(false)
    };
    for (names, joined) in [
        (&["a", "ü\n"][..], Some("a\0ü\n")),
        (&["a"], Some("a")),
        (&[], None),
        (&["a", "\0"], None),
        (&["a\0b", "c"], None),
    ] {
        let read = BareNames::of_page(&page(names)).unwrap();
        assert_eq!((read.iter().collect::<Vec<_>>(), read.joined()), (names.to_vec(), joined));
    }
    let good = page(&["a", "ü"]);
    for (names, lengths) in [
        (&b"a\0\xc3\xbc"[..], &[1, 0, 2, 0][..]), // no zero behind the last
        (b"a\0\xc3\xbc\0", &[1, 0, 1, 0]),        // in the middle of a character
        (b"a\0\xc3\xbc\0", &[1, 0]),              // one that has no length
        (b"a\0\xc3\xbc\0", &[1, 0, 2]),           // half a length
        (b"a\0\xc3\xbc\0", &[0xff, 0xff]),        // longer than all
        (b"a\0\xff\0", &[1, 0, 1, 0]),            // no text
    ] {
        let names = Bytes::from_static(names);
        let broken = BareNamesPage { names, lengths: Bytes::from_static(lengths), ..good.clone() };
        assert_eq!(BareNames::of_page(&broken), None, "{broken:?}");
    }
}

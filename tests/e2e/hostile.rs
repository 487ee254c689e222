//! Clients that break the protocol, by accident or on purpose: they harm only themselves (invariants 5 and 7).

use crate::{CLIENT, STORE};
use plasmon_protocol::{
    frame::FrameHeader,
    index::NO_EXTENT,
    message::{
        AddRegion, Attached, Change, ChildAdded, Commit, Condition, Describe, EndLease, Expect, Failed,
        Failure, Find, FindMany, Goodbye, Hello, Kick, Kicked, ListNames, ListPins, MAGIC, Message, NameSlot,
        Payload, ReadStats, Reserve, Role, Stats, VERSION, Wait,
    },
    name::Namespace,
    object::{Header, Kind},
};
use plasmon_tests::{
    bystander::Bystander,
    client::Client,
    daemon::Daemon,
    raw::{Raw, RawSession, bind, commit, inline, name},
};
use std::time::Instant;

fn namespace(text: &str) -> Namespace {
    Namespace::new(text).expect("a valid namespace")
}

fn stats(session: &mut RawSession) -> Stats {
    session.requests.call(&ReadStats {}).expect("the store answers")
}

fn version_of(session: &mut RawSession, text: &str) -> Option<u64> {
    let find = Find { namespace: Namespace::default(), name: name(text), slot: 9 };
    let found = session.requests.call(&find).expect("the slot is free");
    let words = map_region(session);
    plasmon_protocol::pins::SessionRegion::open(words.words()).expect("a session region").withdraw(9);
    found.location.map(|location| location.version)
}

/// The session region, mapped as a client has it.
fn map_region(session: &RawSession) -> plasmon_shm::WordsMapping {
    let fd = session.fds[2].try_clone().expect("a descriptor");
    let region = plasmon_shm::ClientRegion::from_fd(fd, session.welcome.session_bytes).expect("our region");
    region.map_words().expect("it can be mapped")
}

/// What every test here ends with: the daemon lives, and an honest client is served.
fn assert_serves(daemon: &mut Daemon) {
    let mut honest = RawSession::begin(daemon.socket());
    let committed = honest.requests.call(&commit(vec![inline("honest", 100)])).expect("there is room");
    assert_eq!(version_of(&mut honest, "honest"), Some(committed.version));
    assert!(daemon.is_alive());
}

#[test]
fn garbage_in_place_of_a_handshake_ends_that_connection_only() {
    let mut daemon = Daemon::start(STORE, "4MiB");
    let bystander = Bystander::start(CLIENT, &daemon);
    let hello = |magic, version| Hello { magic, version, role: Role::Lifeline };
    let frame = |len_bytes, kind| FrameHeader { len_bytes, kind, request_id: 1 }.to_bytes();
    for bytes in [
        vec![0xff; 64],
        frame(0, 8).to_vec(),
        [frame(4, 2).as_slice(), b"shor"].concat(),
        [frame(13, 2).as_slice(), b"PLASMON\0\x01\0\0\0\x09"].concat(),
        b"GET / HTTP/1.1\r\nHost: plasma\r\n\r\n".to_vec(),
    ] {
        let mut raw = Raw::connect(daemon.socket());
        raw.send_bytes(&bytes);
        assert!(raw.is_closed_by_peer(), "{bytes:?}");
    }
    let mut raw = Raw::connect(daemon.socket());
    raw.send(1, &hello(*b"PLASMA\0\0", VERSION));
    assert!(matches!(raw.receive::<Stats>(), Err(Failure::Malformed { .. })));
    assert!(raw.is_closed_by_peer());
    let mut raw = Raw::connect(daemon.socket());
    raw.send(1, &hello(MAGIC, 99));
    let refusal = raw.receive::<Stats>();
    assert_eq!(refusal, Err(Failure::VersionMismatch { client: 99, store: VERSION }));
    assert!(raw.is_closed_by_peer());
    assert_serves(&mut daemon);
    drop(raw);
    bystander.was_not_disturbed(&mut daemon);
}

#[test]
fn an_announced_length_beyond_the_limit_ends_the_connection_with_an_error() {
    let mut daemon = Daemon::start(STORE, "4MiB");
    let bystander = Bystander::start(CLIENT, &daemon);
    let mut session = RawSession::begin(daemon.socket());
    session.requests.send_bytes(&[0xff, 0xff, 0xff, 0x7f, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let refusal = session.requests.receive::<Stats>().expect_err("the length is refused");
    assert!(matches!(&refusal, Failure::Malformed { reason } if reason.contains("16777216")), "{refusal:?}");
    assert!(session.requests.is_closed_by_peer());
    // The session itself goes on: another connection joins it.
    let mut again = Raw::connect(daemon.socket());
    again.join(session.welcome.token).expect("the session lives");
    assert_serves(&mut daemon);
    drop((session, again));
    bystander.was_not_disturbed(&mut daemon);
}

#[test]
fn half_a_frame_then_silence_is_given_up() {
    let mut daemon = Daemon::start_with(STORE, &["--size", "4MiB", "--frame-time-ms", "200"]);
    let bystander = Bystander::start(CLIENT, &daemon);
    let mut session = RawSession::begin(daemon.socket());
    let mut silent = Raw::connect(daemon.socket()); // not even a handshake
    session.requests.send_bytes(&FrameHeader { len_bytes: 100, kind: 8, request_id: 1 }.to_bytes());
    session.requests.send_bytes(&[1, 2, 3]);
    assert!(session.requests.is_closed_by_peer());
    assert!(silent.is_closed_by_peer());
    assert_serves(&mut daemon);
    drop((session, silent));
    bystander.was_not_disturbed(&mut daemon);
}

#[test]
fn malformed_messages_are_answered_and_the_connection_goes_on() {
    let mut daemon = Daemon::start(STORE, "4MiB");
    let bystander = Bystander::start(CLIENT, &daemon);
    let mut session = RawSession::begin(daemon.socket());
    for (kind, body) in [(8_u16, &b"zz"[..]), (999, b""), (30, b"trailing"), (18, &[255; 40]), (10, b"")] {
        let len_bytes = u32::try_from(body.len()).expect("short");
        session.requests.send_bytes(&FrameHeader { len_bytes, kind, request_id: 5 }.to_bytes());
        session.requests.send_bytes(body);
        let refusal = session.requests.receive::<Stats>().expect_err("it is malformed");
        assert!(
            matches!(refusal, Failure::Malformed { .. } | Failure::UnknownRequest { kind: 999 }),
            "{refusal:?}"
        );
    }
    assert_eq!(stats(&mut session).refused, 5);
    assert_serves(&mut daemon);
    drop(session);
    bystander.was_not_disturbed(&mut daemon);
}

#[test]
fn bytes_on_a_lifeline_end_it_but_not_the_process_pins() {
    let mut daemon = Daemon::start(STORE, "4MiB");
    let mut session = RawSession::begin(daemon.socket());
    let mut operator = RawSession::begin(daemon.socket());
    session.requests.call(&commit(vec![inline("held", 1_000)])).expect("there is room");
    let find = Find { namespace: Namespace::default(), name: name("held"), slot: 0 };
    session.requests.call(&find).expect("it is bound");
    let mapped = map_region(&session);
    session.lifeline.send_bytes(b"surprise");
    assert!(session.lifeline.is_closed_by_peer());
    assert!(session.requests.is_closed_by_peer(), "its requests end with it");
    let forget = Change::Unbind { namespace: Namespace::default(), name: name("held") };
    operator.requests.call(&commit(vec![forget])).expect("it is bound");
    let after = stats(&mut operator);
    assert_eq!((after.orphaned_sessions, after.limbo_bytes), (1, 1_024), "{after:?}");
    let mut late = Raw::connect(daemon.socket());
    assert_eq!(late.join(session.welcome.token), Err(Failure::UnknownSession));
    assert_serves(&mut daemon);
    // A process that no longer maps its region, as after exec, holds nothing.
    drop(mapped);
    plasmon_tests::eventually("the orphaned session has ended", || {
        let after = stats(&mut operator);
        (after.orphaned_sessions, after.limbo_bytes) == (0, 0)
    });
}

/// A process that has become another program, and a client of another store as such, holds nothing of the first.
#[test]
fn an_orphaned_session_is_not_kept_by_a_session_region_of_another_store() {
    let stores = [Daemon::start(STORE, "4MiB"), Daemon::start(STORE, "4MiB")];
    let mut sessions = stores.each_ref().map(|daemon| RawSession::begin(daemon.socket()));
    assert_eq!(sessions[0].welcome.session_id, sessions[1].welcome.session_id, "their regions look alike");
    let theirs = map_region(&sessions[1]);
    let mut operator = RawSession::begin(stores[0].socket());
    sessions[0].lifeline.send_bytes(b"surprise");
    assert!(sessions[0].lifeline.is_closed_by_peer());
    plasmon_tests::eventually("the orphaned session has ended", || stats(&mut operator).sessions == 1);
    drop(theirs);
}

#[test]
fn a_client_cannot_use_what_is_not_its_own() {
    let mut daemon = Daemon::start(STORE, "4MiB");
    let bystander = Bystander::start(CLIENT, &daemon);
    let mut mine = RawSession::begin(daemon.socket());
    let mut theirs = RawSession::begin(daemon.socket());
    let lease = theirs.requests.call(&Reserve { len_bytes: 10_000 }).expect("there is room");
    let piece = |lease, offset, len_bytes| bind("stolen", Payload::Leased { lease, offset, len_bytes });
    for change in [piece(lease.lease, lease.offset, 100), piece(777, 0, 100)] {
        let refusal = mine.requests.call(&commit(vec![change]));
        assert!(matches!(refusal, Err(Failure::BadLease { .. })), "{refusal:?}");
    }
    let refusal = mine.requests.call(&EndLease { lease: lease.lease });
    assert!(matches!(refusal, Err(Failure::BadLease { .. })), "{refusal:?}");
    // Nor more of its own lease than it was granted, nor the same bytes twice.
    let (offset, len_bytes) = (lease.offset, lease.len_bytes);
    for changes in [
        vec![piece(lease.lease, offset, len_bytes + 1)],
        vec![piece(lease.lease, offset + 1, 100)],
        vec![piece(lease.lease, offset, 0)],
        vec![piece(lease.lease, u64::MAX - 63, 128)],
        vec![piece(lease.lease, offset, u64::MAX)],
        vec![
            bind("one", Payload::Leased { lease: lease.lease, offset, len_bytes: 200 }),
            bind("two", Payload::Leased { lease: lease.lease, offset: offset + 64, len_bytes: 200 }),
        ],
    ] {
        let refusal = theirs.requests.call(&commit(changes));
        assert!(matches!(refusal, Err(Failure::BadLease { .. })), "{refusal:?}");
    }
    let before = stats(&mut theirs);
    assert_eq!((before.objects, before.leases), (1, 1), "the bystander's object: {before:?}");
    theirs.requests.call(&commit(vec![piece(lease.lease, offset, len_bytes)])).expect("all of it is its own");
    assert_serves(&mut daemon);
    drop((mine, theirs));
    bystander.was_not_disturbed(&mut daemon);
}

#[test]
fn leases_of_a_session_are_limited_and_their_slots_come_back() {
    let mut daemon = Daemon::start(STORE, "8MiB");
    let mut session = RawSession::begin(daemon.socket());
    let reserve = Reserve { len_bytes: 1 };
    let leases: Vec<_> =
        (0..1_024).map(|_| session.requests.call(&reserve).expect("there is room")).collect();
    let slots: std::collections::BTreeSet<u32> = leases.iter().map(|lease| lease.slot).collect();
    assert_eq!(slots, (0..1_024).collect(), "each has a slot of its own");
    let refusal = session.requests.call(&reserve);
    assert!(matches!(refusal, Err(Failure::TooMany { limit: 1_024, .. })), "{refusal:?}");
    for lease in [&leases[500], &leases[1_023], &leases[0]] {
        session.requests.call(&EndLease { lease: lease.lease }).expect("it is this session's");
        assert_eq!(session.requests.call(&reserve).expect("there is room").slot, lease.slot);
    }
    session.requests.send(1, &Goodbye {});
    assert!(session.lifeline.is_closed_by_peer());
    let mut other = RawSession::begin(daemon.socket());
    assert_eq!((stats(&mut other).leases, stats(&mut other).leased_bytes), (0, 0));
    assert_serves(&mut daemon);
}

#[test]
fn pin_slots_that_are_taken_or_absent_are_refused() {
    let mut daemon = Daemon::start(STORE, "4MiB");
    let mut session = RawSession::begin(daemon.socket());
    session.requests.call(&commit(vec![inline("held", 10)])).expect("there is room");
    let find = |slot| Find { namespace: Namespace::default(), name: name("held"), slot };
    session.requests.call(&find(3)).expect("the slot is free");
    for slot in [3, 65_536, u32::MAX] {
        assert_eq!(session.requests.call(&find(slot)), Err(Failure::BadSlot { slot }));
    }
    let slot = |slot| NameSlot { namespace: Namespace::default(), name: name("held"), slot };
    let many = FindMany { names: vec![slot(4), slot(5), slot(3)] };
    assert_eq!(session.requests.call(&many), Err(Failure::BadSlot { slot: 3 }));
    let twice = FindMany { names: vec![slot(4), slot(4)] };
    assert_eq!(session.requests.call(&twice), Err(Failure::BadSlot { slot: 4 }));
    assert_eq!(stats(&mut session).pins, 1, "the pins of a refused request are withdrawn");
    assert_serves(&mut daemon);
}

/// A value that stands in its header is found like any other, and takes neither room nor the slot that was offered; what it
/// replaces stays in place while somebody holds it (invariant 2).
#[test]
fn a_value_without_an_extent_is_found_and_pins_nothing() {
    let mut daemon = Daemon::start(STORE, "4MiB");
    let mut session = RawSession::begin(daemon.socket());
    let short = |value: &[u8]| {
        let Change::Bind(mut bind) = bind("short", Payload::InHeader) else { unreachable!("it binds") };
        bind.header = bind.header.with_inline(value).expect("it is short");
        commit(vec![Change::Bind(bind)])
    };
    let find = |slot| Find { namespace: Namespace::default(), name: name("short"), slot };
    let slot = |slot| NameSlot { namespace: Namespace::default(), name: name("short"), slot };
    for value in [&b"first"[..], b""] {
        session.requests.call(&short(value)).expect("there is room");
        for _ in 0..2 {
            let found =
                session.requests.call(&find(3)).expect("the slot is free").location.expect("it is bound");
            let (held, len) = found.header.inline().expect("it stands in the header");
            assert_eq!((&held[..len], found.offset, found.len_bytes), (value, NO_EXTENT, value.len() as u64));
            let many = FindMany { names: vec![slot(3), slot(3)] };
            session.requests.call(&many).expect("the slot is free");
        }
    }
    let figures = stats(&mut session);
    assert_eq!((figures.objects, figures.pins, figures.used_bytes), (1, 0, 0));
    // To an extent, and back.
    session.requests.call(&commit(vec![inline("short", 100)])).expect("there is room");
    session.requests.call(&find(3)).expect("the slot is free");
    session.requests.call(&short(b"again")).expect("there is room");
    let figures = stats(&mut session);
    assert_eq!((figures.pins, figures.used_bytes, figures.limbo_bytes), (1, 128, 128));
    let words = map_region(&session);
    plasmon_protocol::pins::SessionRegion::open(words.words()).expect("a session region").withdraw(3);
    assert_eq!(stats(&mut session).used_bytes, 0);
    let unbind = Change::Unbind { namespace: Namespace::default(), name: name("short") };
    let committed = session.requests.call(&commit(vec![unbind])).expect("nothing hinders it");
    assert_eq!((committed.unbound, committed.unbound_bytes), (1, 0));
    assert_serves(&mut daemon);
}

/// All or nothing: a commit that fails at its last entry has changed nothing.
#[test]
fn a_commit_that_fails_leaves_everything_as_it_was() {
    let mut daemon = Daemon::start(STORE, "4MiB");
    let mut session = RawSession::begin(daemon.socket());
    let first = session.requests.call(&commit(vec![inline("kept", 500)])).expect("there is room");
    let before = stats(&mut session);
    let condition =
        |text: &str, expect| Condition { namespace: Namespace::default(), name: name(text), expect };
    let rebind = || inline("kept", 600);
    let cases = [
        Commit { conditions: vec![condition("kept", Expect::Absent)], ..commit(vec![rebind()]) },
        Commit { conditions: vec![condition("gone", Expect::Present)], ..commit(vec![rebind()]) },
        Commit {
            conditions: vec![condition("kept", Expect::Version { version: 77 })],
            ..commit(vec![rebind()])
        },
        commit(vec![rebind(), inline("kept", 700)]),
        commit(vec![rebind(), Change::Unbind { namespace: Namespace::default(), name: name("kept") }]),
        commit(vec![rebind(), Change::RemoveNamespace { namespace: namespace("nobody") }]),
        commit(vec![rebind(), Change::RemoveNamespace { namespace: Namespace::default() }]),
        commit(vec![rebind(), Change::ClearNamespace { namespace: Namespace::default() }]),
        commit(vec![rebind(), inline("empty", 0)]),
        commit(vec![rebind(), inline("long", 65_537)]),
        commit(vec![rebind(), bind("leased", Payload::Leased { lease: 5, offset: 0, len_bytes: 1 })]),
        commit((0..200).map(|number| inline(&format!("name {number}"), 65_000)).collect()),
    ];
    for case in cases {
        let refusal = session.requests.call(&case);
        assert!(refusal.is_err(), "{refusal:?}");
        assert_eq!(version_of(&mut session, "kept"), Some(first.version), "{refusal:?}");
        let after = stats(&mut session);
        assert_eq!((after.objects, after.used_bytes, after.version), (1, before.used_bytes, before.version));
    }
    assert_serves(&mut daemon);
}

#[test]
fn more_names_than_the_index_holds_are_refused_by_name_of_the_option() {
    let mut daemon = Daemon::start_with(STORE, &["--size", "4MiB", "--max-objects", "10"]);
    let mut session = RawSession::begin(daemon.socket());
    let names = |range: std::ops::Range<u32>| range.map(|n| inline(&format!("name {n}"), 10)).collect();
    session.requests.call(&commit(names(0..8))).expect("there is room");
    let refusal = session.requests.call(&commit(names(8..11)));
    assert_eq!(refusal, Err(Failure::IndexFull { requested: 3, used: 8, limit: 10 }));
    // Rebinding needs no entries, and what one commit unbinds makes room for what it binds.
    session.requests.call(&commit(names(0..8))).expect("the names are bound already");
    let forget = |n| Change::Unbind { namespace: Namespace::default(), name: name(&format!("name {n}")) };
    let mut changes: Vec<Change> = names(8..11);
    changes.push(forget(0));
    session.requests.call(&commit(changes)).expect("one goes, three come");
    assert_eq!(stats(&mut session).objects, 10);
    let empty = commit(vec![forget(1)]);
    session.requests.call(&empty).expect("it is bound");
    assert_serves(&mut daemon);
}

#[test]
fn sessions_and_connections_are_limited() {
    let arguments = ["--size", "4MiB", "--max-sessions-per-uid", "3", "--max-connections", "8"];
    let mut daemon = Daemon::start_with(STORE, &arguments);
    let sessions: Vec<_> = (0..3).map(|_| RawSession::begin(daemon.socket())).collect();
    let mut fourth = Raw::connect(daemon.socket());
    fourth.send(1, &Hello { magic: MAGIC, version: VERSION, role: Role::Lifeline });
    let refusal = fourth.receive::<Stats>();
    assert!(
        matches!(&refusal, Err(Failure::TooMany { what, limit: 3 }) if what.contains("--max-sessions-per-uid"))
    );
    let mut idle: Vec<_> = (0..2).map(|_| Raw::connect(daemon.socket())).collect();
    idle[0].send(1, &Hello { magic: MAGIC, version: VERSION, role: Role::Requests { token: [0; 16] } });
    assert_eq!(idle[0].receive::<Stats>(), Err(Failure::UnknownSession));
    drop((sessions, fourth, idle));
    plasmon_tests::eventually("the daemon has let go of them", || {
        let mut raw = Raw::connect(daemon.socket());
        raw.send(1, &Hello { magic: MAGIC, version: VERSION, role: Role::Lifeline });
        raw.receive_frame().is_some_and(|(header, _)| header.kind == 3)
    });
    assert!(daemon.is_alive());
}

#[test]
fn replies_that_nobody_reads_close_that_connection() {
    let mut daemon = Daemon::start_with(STORE, &["--size", "16MiB", "--max-queued-output", "100000"]);
    let bystander = Bystander::start(CLIENT, &daemon);
    let mut session = RawSession::begin(daemon.socket());
    let named = |batch, n| format!("a name of some length {batch} {n}");
    for batch in 0..20 {
        let names = (0..500).map(|n| inline(&named(batch, n), 1)).collect();
        session.requests.call(&commit(names)).expect("there is room");
    }
    let mut deaf = Raw::connect(daemon.socket());
    deaf.join(session.welcome.token).expect("the session lives");
    let list = ListNames { namespace: None, prefix: String::new(), after: None, limit: 0 };
    let connections = stats(&mut session).connections;
    (0..60).for_each(|id| deaf.send(id, &list));
    // It reads nothing before: the store answers by turns, and a reader might keep up with that.
    plasmon_tests::eventually("the store has closed it", || stats(&mut session).connections < connections);
    assert!(deaf.is_closed_by_peer());
    assert_eq!(stats(&mut session).objects, 10_001, "the bystander's among them");
    assert_serves(&mut daemon);
    // A list of all of them may be too long for a connection, whoever asks for it.
    for batch in 0..20 {
        let unbind = |n| Change::Unbind { namespace: Namespace::default(), name: name(&named(batch, n)) };
        session.requests.call(&commit((0..500).map(unbind).collect())).expect("they are bound");
    }
    drop((session, deaf));
    bystander.was_not_disturbed(&mut daemon);
}

/// Descriptors wait with their message, behind replies that the client has not read yet.
#[test]
fn a_region_is_added_behind_unread_replies() {
    let mut daemon = Daemon::start(STORE, "16MiB");
    let mut session = RawSession::begin(daemon.socket());
    for batch in 0..8 {
        let names = (0..500).map(|n| inline(&format!("a name of some length {batch} {n}"), 1)).collect();
        session.requests.call(&commit(names)).expect("there is room");
    }
    let list = ListNames { namespace: None, prefix: String::new(), after: None, limit: 0 };
    (0..10).for_each(|id| session.requests.send(id, &list));
    (10..13).for_each(|id| session.requests.send(id, &AddRegion {}));
    session.requests.send(13, &list);
    // Each descriptor comes with the frame that it belongs to.
    let answers: Vec<(u64, u16, usize)> = (0..14)
        .map(|_| {
            let (header, _, fds) = session.requests.receive_with_fds();
            (header.request_id, header.kind, fds.len())
        })
        .collect();
    let wanted: Vec<_> =
        (0..14).map(|id| if (10..13).contains(&id) { (id, 17, 1) } else { (id, 25, 0) }).collect();
    assert_eq!(answers, wanted);
    assert_serves(&mut daemon);
}

#[test]
fn waiting_blocks_no_other_request_and_ends_in_time() {
    let mut daemon = Daemon::start(STORE, "4MiB");
    let mut session = RawSession::begin(daemon.socket());
    let wait =
        |wait_ms| Wait { namespace: Namespace::default(), name: name("late"), above_version: 0, wait_ms };
    session.requests.send(1, &wait(u64::MAX));
    session.requests.send(2, &wait(1));
    let (header, _) = session.requests.receive_frame().expect("the short wait ends");
    assert_eq!((header.kind, header.request_id), (1, 2));
    let bound = session.requests.call(&commit(vec![inline("other", 1)])).expect("there is room");
    assert_eq!(bound.version, 1);
    session.requests.send(3, &commit(vec![inline("late", 1)]));
    let mut answered: Vec<u64> = (0..2)
        .filter_map(|_| session.requests.receive_frame())
        .map(|(header, _)| header.request_id)
        .collect();
    answered.sort_unstable();
    assert_eq!(answered, [1, 3]);
    assert_serves(&mut daemon);
}

#[test]
fn goodbye_frees_everything_at_once() {
    let mut daemon = Daemon::start(STORE, "4MiB");
    let mut leaving = RawSession::begin(daemon.socket());
    let mut staying = RawSession::begin(daemon.socket());
    leaving.requests.call(&Reserve { len_bytes: 1 << 20 }).expect("there is room");
    leaving.requests.send(1, &Goodbye {});
    assert!(leaving.requests.is_closed_by_peer());
    assert!(leaving.lifeline.is_closed_by_peer());
    let after = stats(&mut staying);
    assert_eq!((after.sessions, after.used_bytes, after.leases), (1, 0, 0));
    assert_serves(&mut daemon);
}

#[test]
fn only_clients_of_the_store_can_be_kicked() {
    let mut daemon = Daemon::start(STORE, "4MiB");
    let mut session = RawSession::begin(daemon.socket());
    for pid in [0, 1, daemon.pid(), u32::MAX] {
        assert_eq!(session.requests.call(&Kick { pid }), Err(Failure::UnknownProcess { pid }));
    }
    assert_serves(&mut daemon);
}

/// By its pidfd, or by its number where there is none.
#[test]
fn a_process_that_is_kicked_ends() {
    for missing in ["", "peer_pidfd", "peer_pidfd,pidfd_open"] {
        let mut daemon = Daemon::start_with(STORE, &["--size", "4MiB", "--pretend-missing", missing]);
        let mut session = RawSession::begin(daemon.socket());
        let mut client = Client::start(CLIENT, daemon.socket());
        let pid = client.pid();
        assert_eq!(stats(&mut session).sessions, 2);
        assert_eq!(session.requests.call(&Kick { pid }), Ok(Kicked { sessions: 1 }), "{missing}");
        client.wait_for_end();
        plasmon_tests::eventually("its session has ended", || stats(&mut session).sessions == 1);
        assert_eq!(session.requests.call(&Kick { pid }), Err(Failure::UnknownProcess { pid }));
        assert_serves(&mut daemon);
    }
}

/// 1,000 connections that say nothing cost the others nothing but descriptors.
#[test]
fn a_thousand_silent_connections_disturb_nobody() {
    let mut daemon = Daemon::start(STORE, "4MiB");
    let bystander = Bystander::start(CLIENT, &daemon);
    let silent: Vec<_> = (0..1_000).map(|_| Raw::connect(daemon.socket())).collect();
    let start = Instant::now();
    assert_serves(&mut daemon);
    drop(silent);
    bystander.was_not_disturbed(&mut daemon);
    assert!(start.elapsed().as_secs() < 30);
    let mut session = RawSession::begin(daemon.socket());
    plasmon_tests::eventually("their descriptors are closed", || stats(&mut session).connections == 2);
}

/// Read-only in the kernel's sense: a client cannot write the index, whatever it tries.
#[test]
fn the_index_and_sealed_memory_are_read_only_for_clients() {
    use nix::fcntl::{FallocateFlags, fallocate};
    let mut daemon = Daemon::start(STORE, "4MiB");
    let bystander = Bystander::start(CLIENT, &daemon);
    let session = RawSession::begin(daemon.socket());
    let [index, arena, region, _] = &session.fds[..] else { panic!("four descriptors") };
    for fd in [index, arena] {
        let len_bytes =
            if std::ptr::eq(fd, index) { session.welcome.index_bytes } else { session.welcome.arena_bytes };
        let copy = fd.try_clone().expect("a descriptor");
        let client = plasmon_shm::ClientRegion::from_fd(copy, len_bytes).expect("a region");
        assert!(client.map_words().is_err(), "no writable mapping");
        assert!(nix::unistd::ftruncate(fd, 0).is_err());
        assert!(nix::sys::uio::pwrite(fd, b"x", 0).is_err());
        assert!(
            fallocate(
                fd,
                FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE,
                0,
                4_096
            )
            .is_err()
        );
    }
    assert!(
        nix::unistd::ftruncate(region, 0).is_err(),
        "a session region cannot be taken from under the daemon"
    );
    // Not even through /proc, which makes a new opening.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(index));
    if let Ok(reopened) = std::fs::File::options().read(true).write(true).open(path) {
        let client = plasmon_shm::ClientRegion::from_fd(reopened.into(), session.welcome.index_bytes)
            .expect("a region");
        assert!(client.map_words().is_err(), "the seal holds for every opening");
    }
    assert_serves(&mut daemon);
    drop(session);
    bystander.was_not_disturbed(&mut daemon);
}

/// A lease may end at any moment; a piece that a commit has claimed outlives it.
#[test]
fn a_lease_that_ends_under_a_commit_gives_its_pieces_to_nobody_else() {
    let mut daemon = Daemon::start(STORE, "4MiB");
    let mut mine = RawSession::begin(daemon.socket());
    let mut second = Raw::connect(daemon.socket());
    second.join(mine.welcome.token).expect("the session lives");
    let mut theirs = RawSession::begin(daemon.socket());
    for batch in 0..20 {
        let names = (0..2_000).map(|n| inline(&format!("filler {batch} {n}"), 1)).collect();
        mine.requests.call(&commit(names)).expect("there is room");
    }
    for round in 0..20 {
        let lease = mine.requests.call(&Reserve { len_bytes: 4_096 }).expect("there is room");
        // The piece is claimed first, and what follows takes the daemon a while.
        let mut changes = vec![bind(
            "piece",
            Payload::Leased { lease: lease.lease, offset: lease.offset, len_bytes: 4_096 },
        )];
        changes.extend((0..2_000).map(|n| Change::Unbind {
            namespace: Namespace::default(),
            name: name(&format!("filler {round} {n}")),
        }));
        mine.requests.send(1, &commit(changes));
        second.send(2, &EndLease { lease: lease.lease });
        second.receive_frame().expect("an answer, either way");
        let other = theirs.requests.call(&Reserve { len_bytes: 4_096 }).expect("there is room");
        let (header, _) = mine.requests.receive_frame().expect("the commit is answered");
        let find = Find { namespace: Namespace::default(), name: name("piece"), slot: 0 };
        if header.kind == 9 {
            let found = theirs.requests.call(&find).expect("the slot is free").location.expect("it is bound");
            assert_ne!(found.offset, other.offset, "two owners of one page, round {round}");
            let words = map_region(&theirs);
            plasmon_protocol::pins::SessionRegion::open(words.words()).expect("a session region").withdraw(0);
        }
        theirs.requests.call(&EndLease { lease: other.lease }).expect("it is theirs");
    }
    assert_serves(&mut daemon);
}

/// Room that a running scan is about to free counts as room.
#[test]
fn what_was_just_forgotten_can_be_reserved_at_once() {
    let mut daemon = Daemon::start(STORE, "4MiB");
    let mut session = RawSession::begin(daemon.socket());
    for round in 0..200 {
        let lease = session.requests.call(&Reserve { len_bytes: 3 << 20 }).expect("all but a rest is free");
        let (offset, len_bytes) = (lease.offset, lease.len_bytes);
        let learn = Commit {
            conditions: vec![],
            changes: vec![bind("large", Payload::Leased { lease: lease.lease, offset, len_bytes })],
            end_leases: vec![lease.lease],
        };
        session.requests.call(&learn).expect("it is written");
        let forget = Change::Unbind { namespace: Namespace::default(), name: name("large") };
        session
            .requests
            .call(&commit(vec![forget]))
            .unwrap_or_else(|error| panic!("round {round}: {error:?}"));
    }
    assert_serves(&mut daemon);
}

#[test]
fn many_requests_in_one_write_are_all_answered() {
    let mut daemon = Daemon::start(STORE, "4MiB");
    let mut session = RawSession::begin(daemon.socket());
    let mut frames = Vec::new();
    for id in 0..1_000 {
        use plasmon_protocol::message::Message;
        let find = ListNames { namespace: None, prefix: "none".to_owned(), after: None, limit: 1 };
        find.frame(id, &mut frames).expect("it fits");
    }
    session.requests.send_bytes(&frames);
    for id in 0..1_000 {
        let (header, _) = session.requests.receive_frame().expect("every request is answered");
        assert_eq!(header.request_id, id, "in order");
    }
    assert_serves(&mut daemon);
}

/// Invariant 5: pins of a living process are never dropped, whatever it sent.
#[test]
fn goodbye_does_not_drop_pins() {
    let mut daemon = Daemon::start(STORE, "4MiB");
    let mut holding = RawSession::begin(daemon.socket());
    let mut operator = RawSession::begin(daemon.socket());
    holding.requests.call(&commit(vec![inline("held", 1_000)])).expect("there is room");
    let find = Find { namespace: Namespace::default(), name: name("held"), slot: 0 };
    holding.requests.call(&find).expect("it is bound");
    holding.requests.send(1, &Goodbye {});
    assert!(holding.lifeline.is_closed_by_peer());
    let forget = Change::Unbind { namespace: Namespace::default(), name: name("held") };
    operator.requests.call(&commit(vec![forget])).expect("it is bound");
    assert_eq!(stats(&mut operator).limbo_bytes, 1_024);
    let words = map_region(&holding);
    plasmon_protocol::pins::SessionRegion::open(words.words()).expect("a session region").withdraw(0);
    plasmon_tests::eventually("the last pin is gone, and the session with it", || {
        let after = stats(&mut operator);
        (after.limbo_bytes, after.sessions) == (0, 1)
    });
    assert_serves(&mut daemon);
}

#[test]
fn a_hello_of_another_version_is_refused_by_version_whatever_else_it_says() {
    let mut daemon = Daemon::start(STORE, "4MiB");
    let bystander = Bystander::start(CLIENT, &daemon);
    let mut raw = Raw::connect(daemon.socket());
    let body = [&MAGIC[..], &7_u32.to_le_bytes(), b"fields of a later version"].concat();
    let len_bytes = u32::try_from(body.len()).expect("short");
    raw.send_bytes(&FrameHeader { len_bytes, kind: 2, request_id: 1 }.to_bytes());
    raw.send_bytes(&body);
    assert_eq!(raw.receive::<Stats>(), Err(Failure::VersionMismatch { client: 7, store: VERSION }));
    assert_serves(&mut daemon);
    drop(raw);
    bystander.was_not_disturbed(&mut daemon);
}

/// A header that contradicts itself never gets into the index, where readers would act on it.
#[test]
fn a_value_that_is_not_where_it_is_said_to_be_is_refused() {
    let mut daemon = Daemon::start(STORE, "4MiB");
    let mut session = RawSession::begin(daemon.socket());
    let plain = Header::new(Kind::BYTES);
    let in_header = plain.with_inline(&[7; 32]).expect("it fits");
    let bytes = Payload::Inline { bytes: vec![7; 10].into() };
    let lease = session.requests.call(&Reserve { len_bytes: 4_096 }).expect("there is room");
    let leased = Payload::Leased { lease: lease.lease, offset: lease.offset, len_bytes: 4_096 };
    for (header, payload, what) in [
        (Header { ndim: 33, ..in_header }, Payload::InHeader, "more than 32 bytes"),
        (plain, Payload::InHeader, "no value in its header"),
        (in_header, bytes, "has bytes, and a value"),
        (in_header, leased, "has bytes, and a value"),
    ] {
        let Change::Bind(mut bind) = bind("wrong", payload) else { unreachable!("it binds") };
        bind.header = header;
        let refusal = session.requests.call(&commit(vec![Change::Bind(bind)]));
        assert!(
            matches!(&refusal, Err(Failure::Malformed { reason }) if reason.contains(what)),
            "{refusal:?}"
        );
    }
    session.requests.call(&EndLease { lease: lease.lease }).expect("it is this session's");
    assert_eq!(stats(&mut session).used_bytes, 0);
    assert_serves(&mut daemon);
}

fn too_many<T: std::fmt::Debug>(answer: &Result<T, Failure>, option: &str) -> bool {
    matches!(answer, Err(Failure::TooMany { what, .. }) if what.contains(option))
}

#[test]
fn namespaces_are_limited_by_name_of_the_option() {
    let mut daemon = Daemon::start_with(STORE, &["--size", "4MiB", "--max-namespaces", "3"]);
    let mut session = RawSession::begin(daemon.socket());
    let register = |text| Change::RegisterNamespace { namespace: namespace(text) };
    let into = |text| {
        let Change::Bind(mut bind) = inline("n", 10) else { unreachable!("it binds") };
        bind.namespace = namespace(text);
        Change::Bind(bind)
    };
    let both = commit(vec![register("first"), into("first"), into("first2")]);
    session.requests.call(&both).expect("with default these are three");
    for change in [register("third"), into("third")] {
        let refusal = session.requests.call(&commit(vec![change]));
        assert!(too_many(&refusal, "--max-namespaces"), "{refusal:?}");
    }
    session.requests.call(&commit(vec![into("first")])).expect("it is there already");
    let remove = Change::RemoveNamespace { namespace: namespace("first") };
    session.requests.call(&commit(vec![remove])).expect("it is there");
    session.requests.call(&commit(vec![into("third")])).expect("there is room again");
    assert_serves(&mut daemon);
}

#[test]
fn descriptions_and_metadata_are_limited_by_name_of_the_option() {
    let mut daemon = Daemon::start_with(STORE, &["--size", "4MiB", "--max-text-bytes", "100000"]);
    let mut session = RawSession::begin(daemon.socket());
    let described = |text: &str, description: usize, metadata: usize| {
        let Change::Bind(mut bind) = inline(text, 10) else { unreachable!("it binds") };
        bind.description = Some("d".repeat(description));
        bind.metadata = Some("m".repeat(metadata));
        Change::Bind(bind)
    };
    session.requests.call(&commit(vec![described("a", 50_000, 50_000)])).expect("it fits exactly");
    let refusal = session.requests.call(&commit(vec![described("b", 1, 0)]));
    assert!(too_many(&refusal, "--max-text-bytes"), "{refusal:?}");
    // What replaces other text counts as the difference, and what is forgotten does not count.
    session.requests.call(&commit(vec![described("a", 60_000, 40_000)])).expect("no more than before");
    session
        .requests
        .call(&commit(vec![described("a", 60_000, 0), described("b", 20_000, 20_000)]))
        .expect("as much");
    let forget = Change::Unbind { namespace: Namespace::default(), name: name("a") };
    session.requests.call(&commit(vec![forget])).expect("it is bound");
    session.requests.call(&commit(vec![described("c", 60_000, 0)])).expect("there is room again");
    assert_serves(&mut daemon);
}

/// A process that takes all connections it can get leaves some to the others, also where descriptors are few.
#[test]
fn one_process_cannot_take_all_connections() {
    let limited = "ulimit -n 256 && exec \"$0\" \"$@\"";
    for (program, arguments, taken) in
        [(STORE, &["--size", "4MiB"][..], 1_024), ("sh", &["-c", limited, STORE, "--size", "4MiB"], 24)]
    {
        let mut daemon = Daemon::start_with(program, arguments);
        let mut session = RawSession::begin(daemon.socket());
        let mut connections: Vec<Raw> = (0..2 * taken).map(|_| Raw::connect(daemon.socket())).collect();
        let refusal = connections.last_mut().expect("there are many").receive::<Stats>();
        assert!(too_many(&refusal, "--max-connections-per-process"), "{refusal:?}");
        assert_eq!(stats(&mut session).connections, taken);
        let mut other = Client::start(CLIENT, daemon.socket());
        other.ask("learn theirs 100000 1");
        drop(connections);
        plasmon_tests::eventually("they are counted no longer", || stats(&mut session).connections < 10);
        assert_serves(&mut daemon);
    }
}

/// Sessions and their regions take descriptors of the daemon; those of others, of connections and its own are not touched.
#[test]
fn sessions_of_a_process_cannot_take_all_descriptors() {
    let limited = "ulimit -n 256 && exec \"$0\" \"$@\"";
    let mut daemon =
        Daemon::start_with("sh", &["-c", limited, STORE, "--size", "4MiB", "--max-pins", "67108864"]);
    let mut sessions: Vec<RawSession> = (0..7).map(|_| RawSession::begin(daemon.socket())).collect();
    let refusal = sessions.iter_mut().find_map(|session| {
        (0..15).find_map(|id| {
            session.requests.send(id, &AddRegion {});
            let (header, body, _) = session.requests.receive_with_fds();
            (header.kind == 1).then(|| Err::<Stats, _>(Failed::parse(body.into()).expect("valid").failure))
        })
    });
    assert!(too_many(&refusal.expect("it is refused at some time"), "ulimit -n"));
    let mut lifeline = Raw::connect(daemon.socket());
    lifeline.send(1, &Hello { magic: MAGIC, version: VERSION, role: Role::Lifeline });
    assert!(too_many(&lifeline.receive::<Stats>(), "ulimit -n"));
    stats(&mut sessions[0]);
    Client::start(CLIENT, daemon.socket()).ask("learn theirs 100000 1");
    drop(sessions.split_off(1));
    let mut daemon_serves = || {
        let mut raw = Raw::connect(daemon.socket());
        raw.send(1, &Hello { magic: MAGIC, version: VERSION, role: Role::Lifeline });
        raw.receive_frame().is_some_and(|(header, _)| header.kind == 3)
    };
    plasmon_tests::eventually("their descriptors are free", &mut daemon_serves);
    assert_serves(&mut daemon);
}

#[test]
fn a_first_message_that_is_long_is_refused() {
    let mut daemon = Daemon::start(STORE, "4MiB");
    let mut raw = Raw::connect(daemon.socket());
    raw.send_bytes(&FrameHeader { len_bytes: 10_000, kind: 2, request_id: 1 }.to_bytes());
    let refusal = raw.receive::<Stats>();
    assert!(matches!(&refusal, Err(Failure::Malformed { reason }) if reason.contains("4096")), "{refusal:?}");
    assert!(raw.is_closed_by_peer());
    assert_serves(&mut daemon);
}

/// Who leaves most unread pays where all leave too much.
#[test]
fn unread_replies_of_all_connections_are_limited() {
    let arguments = ["--size", "16MiB", "--max-queued-output-in-all", "4000000"];
    let mut daemon = Daemon::start_with(STORE, &arguments);
    let bystander = Bystander::start(CLIENT, &daemon);
    let mut modest = RawSession::begin(daemon.socket());
    for batch in 0..4 {
        let names = (0..500).map(|n| inline(&format!("a name of some length {batch} {n}"), 1)).collect();
        modest.requests.call(&commit(names)).expect("there is room");
    }
    let greedy = RawSession::begin(daemon.socket());
    let list = ListNames { namespace: None, prefix: String::new(), after: None, limit: 0 };
    (0..5).for_each(|id| modest.requests.send(id, &list));
    let mut connections: Vec<Raw> = (0..4)
        .map(|_| {
            let mut raw = Raw::connect(daemon.socket());
            raw.join(greedy.welcome.token).expect("the session lives");
            (0..8).for_each(|id| raw.send(id, &list));
            raw
        })
        .collect();
    assert!(connections.iter_mut().any(Raw::is_closed_by_peer));
    for id in 0..5 {
        let answered = modest.requests.receive_frame().map(|(header, _)| header.request_id);
        assert_eq!(answered, Some(id), "who leaves little is served");
    }
    assert_serves(&mut daemon);
    drop((modest, greedy, connections));
    bystander.was_not_disturbed(&mut daemon);
}

/// Standard error is a pipe that somebody has open and does not read: the store serves all the same, hears SIGTERM, and
/// says how much of its log is missing once somebody reads.
#[test]
fn a_log_that_nobody_reads_holds_up_nobody() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("store.sock");
    let mut store = std::process::Command::new(STORE)
        .args(["--size", "4MiB", "--log", "trace", "--socket"])
        .arg(&socket)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the daemon starts");
    plasmon_tests::eventually("the daemon answers", || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    let mut session = RawSession::begin(&socket);
    // Each of these requests is a line of the log, and a pipe holds some hundred.
    let requests = 5_000;
    for _ in 0..requests {
        session
            .requests
            .call(&Describe { namespace: Namespace::default(), name: name("absent") })
            .expect("it is answered");
    }
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(store.id().cast_signed()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .expect("the daemon is there");
    assert!(session.requests.is_closed_by_peer());
    let mut log = String::new();
    std::io::Read::read_to_string(&mut store.stderr.take().expect("a pipe"), &mut log).expect("text");
    assert!(store.wait().expect("it ends").success(), "{}", log.lines().last().unwrap_or_default());
    let lines = log.lines().filter(|line| line.contains("request")).count();
    assert!(lines < requests && log.contains(" lines of the log are missing here"), "{lines} lines");
}

/// Every scan reads all pins: what a process may have of them beyond the first region of each session holds for all its
/// sessions together.
#[test]
fn sessions_of_a_process_share_its_pins() {
    let daemon = Daemon::start_with(STORE, &["--size", "4MiB", "--max-pins", "196608"]);
    let mut sessions: Vec<RawSession> = (0..2).map(|_| RawSession::begin(daemon.socket())).collect();
    let mut add = |session: usize| {
        let requests = &mut sessions[session].requests;
        requests.send(1, &AddRegion {});
        let (header, body, _) = requests.receive_with_fds();
        (header.kind == 1).then(|| Err::<Stats, _>(Failed::parse(body.into()).expect("valid").failure))
    };
    assert!(add(0).is_none() && add(1).is_none(), "a session has one, and a process two more of three");
    for session in 0..2 {
        assert!(too_many(&add(session).expect("the fourth is refused"), "--max-pins"));
    }
}

/// Scans read for a child that has not filled its regions those of its parent: if that could be a parent as well, those of
/// all before it would be read for each of a long line.
#[test]
fn who_rests_on_its_parents_pins_hands_none_over() {
    let daemon = Daemon::start(STORE, "4MiB");
    let parent = RawSession::begin(daemon.socket());
    let mut lifeline = Raw::connect(daemon.socket());
    lifeline.send(1, &hello_child(&parent));
    let (_, body, mut fds) = lifeline.receive_with_fds();
    let child = ChildAdded::parse(body.into()).expect("a session for the child");
    let mut requests = Raw::connect(daemon.socket());
    requests.send(1, &Hello { magic: MAGIC, version: VERSION, role: Role::Requests { token: child.token } });
    requests.receive::<Attached>().expect("the child is there");
    let grandchild = || {
        let mut lifeline = Raw::connect(daemon.socket());
        let role = Role::Child { token: child.token, regions: 1 };
        lifeline.send(1, &Hello { magic: MAGIC, version: VERSION, role });
        let (header, body, _) = lifeline.receive_with_fds();
        (header.kind == Failed::KIND).then(|| Failed::parse(body.into()).expect("a failure").failure)
    };
    assert_eq!(grandchild(), Some(Failure::UnknownSession));
    let region = plasmon_shm::ClientRegion::from_fd(fds.remove(0), parent.welcome.session_bytes);
    let words = region.expect("our region").map_words().expect("it can be mapped");
    plasmon_protocol::pins::SessionRegion::open(words.words()).expect("a session region").set_filled();
    assert_eq!(grandchild(), None, "it has pins of its own now");
}

/// Asks for a session for a child that is about to be forked.
fn hello_child(parent: &RawSession) -> Hello {
    let role = Role::Child { token: parent.welcome.token, regions: 1 };
    Hello { magic: MAGIC, version: VERSION, role }
}

/// Sessions for children that nobody has seen count for the process that had them made.
#[test]
fn a_process_has_so_many_sessions_made_for_children_and_no_more() {
    let mut daemon = Daemon::start_with(STORE, &["--size", "4MiB", "--max-sessions-per-process", "8"]);
    let bystander = Bystander::start(CLIENT, &daemon);
    let parent = RawSession::begin(daemon.socket());
    let mut children = Vec::new();
    let refusal = loop {
        assert!(children.len() <= 8, "{} children", children.len());
        let mut child = Raw::connect(daemon.socket());
        child.send(1, &hello_child(&parent));
        let (header, body, _) = child.receive_with_fds();
        if header.kind == Failed::KIND {
            break Failed::parse(body.into()).expect("a failure").failure;
        }
        children.push(child);
    };
    assert_eq!(children.len(), 8);
    assert!(
        matches!(&refusal, Failure::TooMany { what, limit: 8 } if what.contains("children")),
        "{refusal:?}"
    );
    drop((children, parent));
    assert_serves(&mut daemon);
    bystander.was_not_disturbed(&mut daemon);
}

/// A connection that says Hello for a child and is closed, in a loop: others are served meanwhile, and the store stops when
/// it is told to.
#[test]
fn who_has_sessions_made_for_children_in_a_loop_keeps_nobody_out() {
    let daemon = Daemon::start(STORE, "4MiB");
    let parent = RawSession::begin(daemon.socket());
    let mut honest = RawSession::begin(daemon.socket());
    let stop = std::sync::atomic::AtomicBool::new(false);
    let socket = daemon.socket();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // The daemon may be gone, at the end.
                let Ok(mut connection) = std::os::unix::net::UnixStream::connect(socket) else {
                    return;
                };
                let mut hello = Vec::new();
                hello_child(&parent).frame(1, &mut hello).expect("it fits");
                let _ = std::io::Write::write_all(&mut connection, &hello);
            }
        });
        for number in 0..200 {
            let text = format!("honest-{number}");
            honest.requests.call(&commit(vec![inline(&text, 10)])).expect("there is room");
        }
        daemon.signal(nix::sys::signal::Signal::SIGTERM);
        assert!(honest.requests.is_closed_by_peer(), "the store does not stop");
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// A listing over more namespaces than one turn looks through is complete, and so is one that finds nothing.
#[test]
fn a_listing_that_is_made_in_slices_is_complete() {
    let daemon = Daemon::start_with(STORE, &["--size", "16MiB"]);
    let mut session = RawSession::begin(daemon.socket());
    let in_namespace = |number: usize| match inline("only-name", 8) {
        Change::Bind(bind) => Change::Bind(plasmon_protocol::message::Bind {
            namespace: namespace(&format!("space-{number:05}")),
            ..bind
        }),
        other => other,
    };
    let count = 20_000;
    for first in (0..count).step_by(2_000) {
        let changes = (first..first + 2_000).map(in_namespace).collect();
        session.requests.call(&commit(changes)).expect("there is room");
    }
    let list = |prefix: &str| ListNames { namespace: None, prefix: prefix.to_owned(), after: None, limit: 0 };
    let nothing = session.requests.call(&list("zz")).expect("a page");
    assert!(nothing.names.is_empty() && !nothing.more);
    let (mut list, mut found) = (list("only"), 0);
    loop {
        let page = session.requests.call(&list).expect("a page");
        for info in &page.names {
            assert_eq!(info.namespace.as_str(), format!("space-{found:05}"));
            found += 1;
        }
        if !page.more {
            break;
        }
        let last = page.names.last().expect("a page with more has names");
        list.after = Some(plasmon_protocol::message::ListedName {
            namespace: last.namespace.clone(),
            name: last.name.clone(),
        });
    }
    assert_eq!(found, count);
}

/// Who waits for room until what had expired is unbound is woken also if a commit that is under way binds that name anew.
#[test]
fn room_that_is_waited_for_until_a_name_expires_is_answered_if_the_name_is_rebound() {
    let daemon = Daemon::start(STORE, "4MiB");
    let mut writer = RawSession::begin(daemon.socket());
    let mut learner = RawSession::begin(daemon.socket());
    let granted = learner.requests.call(&Reserve { len_bytes: 3 << 20 }).expect("there is room");
    let ttl = plasmon_protocol::message::Ttl { ttl_ns: 20_000_000, is_sliding: false };
    let brief = |ttl| match inline("brief", 8) {
        Change::Bind(bind) => Change::Bind(plasmon_protocol::message::Bind { ttl, ..bind }),
        other => other,
    };
    writer.requests.call(&commit(vec![brief(Some(ttl))])).expect("there is room");
    let begun = Instant::now();
    // Takes longer than the name lives: a slice of a millisecond at a time.
    let unbind =
        |number| Change::Unbind { namespace: Namespace::default(), name: name(&format!("{number:06}")) };
    let mut changes: Vec<Change> = (0..200_000).map(unbind).collect();
    changes.push(brief(None));
    writer.requests.send(7, &commit(changes));
    while begun.elapsed() < std::time::Duration::from_millis(25) {
        std::thread::yield_now();
    }
    let refusal = learner.requests.call(&Reserve { len_bytes: 2 << 20 }).expect_err("there is no room");
    assert!(matches!(refusal, Failure::StoreFull(_)), "{refusal:?}");
    writer.requests.be_patient();
    writer.requests.receive::<plasmon_protocol::message::Committed>().expect("it is answered as well");
    assert!(granted.len_bytes >= 3 << 20);
}

/// A list of pins is made by a scan that began after it was asked for, also while processes leave all the time, each of
/// which is looked for by a scan of its own.
#[test]
fn a_list_of_pins_has_those_of_now_whoever_leaves_meanwhile() {
    let daemon = Daemon::start(STORE, "4MiB");
    let mut holder = RawSession::begin(daemon.socket());
    let learn = |text: &str| commit(vec![inline(text, 64)]);
    for text in ["forgotten", "held"] {
        holder.requests.call(&learn(text)).expect("there is room");
    }
    let words = map_region(&holder);
    let table = plasmon_protocol::pins::SessionRegion::open(words.words()).expect("a session region");
    let mut pin = |slot: u32, text: &str| {
        let find = Find { namespace: Namespace::default(), name: name(text), slot };
        holder.requests.call(&find).expect("the slot is free").location.expect("it is bound");
    };
    pin(0, "forgotten"); // in limbo from now on, so that every process that leaves begins a scan
    let mut asking = RawSession::begin(daemon.socket());
    asking.requests.call(&learn("forgotten")).expect("there is room");
    let is_done = std::sync::atomic::AtomicBool::new(false);
    let socket = daemon.socket();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                    let mut leaving = RawSession::begin(socket);
                    leaving.requests.send(1, &Goodbye {});
                    assert!(leaving.requests.is_closed_by_peer());
                }
            });
        }
        let mut wrong = 0;
        for round in 0..1_000 {
            let is_held = round % 2 == 0;
            if is_held {
                pin(1, "held");
            }
            let listed = asking.requests.call(&ListPins { after: None }).expect("the store answers").pins;
            wrong += u32::from(listed.iter().any(|pin| pin.name == "default/held") != is_held);
            table.withdraw(1);
        }
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(wrong, 0, "lists of another moment");
    });
}

/// Invariant 5. A child that closes all descriptors right after the fork has said before that which session is its own,
/// however many have connected before it.
#[test]
fn a_child_is_heard_before_its_session_is_given_up_whoever_connected_before() {
    let daemon = Daemon::start(STORE, "4MiB");
    let mut parent = RawSession::begin(daemon.socket());
    let mut lifeline = Raw::connect(daemon.socket());
    lifeline.send(1, &hello_child(&parent));
    let (header, body, mut fds) = lifeline.receive_with_fds();
    assert_eq!(header.kind, ChildAdded::KIND);
    let region = plasmon_shm::ClientRegion::from_fd(fds.remove(0), parent.welcome.session_bytes);
    let mapped = region.and_then(|region| region.map_words()).expect("a session region");
    let added = ChildAdded::parse(body.into()).expect("a valid answer");
    daemon.signal(nix::sys::signal::Signal::SIGSTOP);
    let silent: Vec<_> = (0..500).map(|_| Raw::connect(daemon.socket())).collect();
    let mut child = Raw::connect(daemon.socket());
    child.send(1, &Hello { magic: MAGIC, version: VERSION, role: Role::Requests { token: added.token } });
    drop(lifeline);
    daemon.signal(nix::sys::signal::Signal::SIGCONT);
    // It is known who the child is, so its session lasts as long as it does, though without a lifeline it asks nothing.
    assert_eq!(child.receive::<Attached>(), Err(Failure::UnknownSession));
    let after = stats(&mut parent);
    assert_eq!((after.sessions, after.orphaned_sessions), (2, 1));
    drop((silent, mapped));
}

/// A TCP socket with bytes that nobody reads. Whoever closes it last waits for `linger_s` seconds.
fn lingering(linger_s: i32) -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let near = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
    let (far, _) = listener.accept().expect("it has connected");
    near.set_nonblocking(true).expect("a socket");
    while std::io::Write::write(&mut &near, &[7; 65_536]).is_ok() {}
    near.set_nonblocking(false).expect("a socket");
    let linger = nix::libc::linger { l_onoff: 1, l_linger: linger_s };
    nix::sys::socket::setsockopt(&near, nix::sys::socket::sockopt::Linger, &linger).expect("a socket");
    (near, far)
}

/// Invariant 9. Nobody asks clients for descriptors. One that comes all the same is closed, and closing may take a minute.
#[test]
fn descriptors_that_take_long_to_close_hold_up_nobody() {
    const LINGER_S: i32 = 60;
    let mut daemon = Daemon::start(STORE, "4MiB");
    let mut other = RawSession::begin(daemon.socket());
    let began = Instant::now();
    // One that is read, and one in what is never read, because the connection is closed before.
    let (near, _far) = lingering(LINGER_S);
    let raw = Raw::connect(daemon.socket());
    plasmon_shm::send(&raw, &[0; 3], &[std::os::fd::AsFd::as_fd(&near)]).expect("it is taken");
    drop(near);
    stats(&mut other);
    let mut waiting = RawSession::begin(daemon.socket());
    for number in 0..64 {
        let wait =
            Wait { namespace: Namespace::default(), name: name("never"), above_version: 0, wait_ms: 600_000 };
        waiting.requests.send(number, &wait);
    }
    plasmon_tests::eventually("all of them wait", || stats(&mut other).waits == 64);
    let (near, _far) = lingering(LINGER_S);
    plasmon_shm::send(&waiting.requests, &[0; 3], &[std::os::fd::AsFd::as_fd(&near)]).expect("it is taken");
    drop((near, waiting, raw));
    plasmon_tests::eventually("their connections are closed", || stats(&mut other).connections == 2);
    assert_serves(&mut daemon);
    assert!(began.elapsed().as_secs() < 30, "others have waited for {:?}", began.elapsed());
}

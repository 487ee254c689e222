//! The table of what waits, against a plain list that is looked through from end to end.

use super::*;
use plasmon_protocol::message::Goodbye;
use proptest::prelude::*;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Step {
    Name { name: u8, connection: u64, until: Until, deadline_ms: Option<u64> },
    Need { key: Key, connection: u64 },
    Changed { name: u8, version: u64 },
    Moment { scans_done: u64, first_expiry_ns: u64, is_mid_commit: bool },
    Ended { connection: u64 },
    Passed { ms: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let until = prop_oneof![(0..4_u64).prop_map(Until::Above), (0..4_u64).prop_map(Until::Not)];
    let key = prop_oneof![
        (1..4_u64).prop_map(Key::Scan),
        (1..4_u64).prop_map(Key::Expiry),
        Just(Key::WholeCommits),
        Just(Key::Pages),
        Just(Key::Copy),
        Just(Key::LongCommit),
    ];
    let step = prop_oneof![
        3 => (0..3_u8, 0..3_u64, until, proptest::option::of(0..50_u64)).prop_map(
            |(name, connection, until, deadline_ms)| Step::Name { name, connection, until, deadline_ms }
        ),
        3 => (key, 0..3_u64).prop_map(|(key, connection)| Step::Need { key, connection }),
        1 => (0..3_u8, 0..5_u64).prop_map(|(name, version)| Step::Changed { name, version }),
        2 => (0..5_u64, 0..5_u64, any::<bool>()).prop_map(|(scans_done, first_expiry_ns, is_mid_commit)| {
            Step::Moment { scans_done, first_expiry_ns, is_mid_commit }
        }),
        1 => (0..3_u64).prop_map(|connection| Step::Ended { connection }),
        1 => (0..50_u64).prop_map(|ms| Step::Passed { ms }),
    ];
    proptest::collection::vec(step, 0..80)
}

fn id(name: u8) -> NameId {
    NameId::from_bytes([name; 32])
}

/// What the list knows of one that waits.
#[derive(Clone, Copy, Debug)]
struct Known {
    request_id: u64,
    connection: u64,
    wants: Result<(u8, Until), Key>,
    deadline: Option<Instant>,
}

impl Known {
    fn is_met(&self, scans_done: u64, first_expiry_ns: u64, is_mid_commit: bool) -> bool {
        match self.wants {
            Err(Key::Scan(number)) => number <= scans_done,
            Err(Key::Expiry(as_of_ns)) => as_of_ns < first_expiry_ns,
            Err(Key::WholeCommits | Key::NoCommit) => !is_mid_commit,
            _ => false,
        }
    }
}

fn request(reply_to: ReplyTo) -> Suspended {
    let request = AnyRequest::Goodbye(Goodbye {});
    let (session, as_of_ns, tried) = (SessionId(1), None, Tried::Nothing);
    Suspended { reply_to, what: What::Request(Box::new(Request { session, request, as_of_ns, tried })) }
}

fn take(list: &mut Vec<Known>, ends: impl Fn(&Known) -> bool) -> Vec<u64> {
    list.extract_if(.., |known| ends(known)).map(|known| known.request_id).collect()
}

proptest! {
    #[test]
    fn whatever_waits_goes_on_once_and_for_its_own_reason(steps in steps()) {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let (mut parked, mut list) = (Parked::default(), Vec::<Known>::new());
        for (request_id, step) in (0..).zip(steps) {
            let reply_to = |connection| ReplyTo {
                connection: ConnectionId(connection), request_id, held: Held::default()
            };
            let mut ended: Vec<Suspended> = Vec::new();
            let expected: Vec<u64> = match step {
                Step::Name { name, connection, until, deadline_ms } => {
                    let deadline = deadline_ms.map(at);
                    parked.add_wait(reply_to(connection), id(name), until, deadline);
                    list.push(Known { request_id, connection, wants: Ok((name, until)), deadline });
                    Vec::new()
                }
                Step::Need { key, connection } => {
                    parked.add(request(reply_to(connection)), key, None);
                    list.push(Known { request_id, connection, wants: Err(key), deadline: None });
                    Vec::new()
                }
                Step::Changed { name, version } => {
                    parked.name_changed(&id(name), version);
                    while let Some((who, answer)) = parked.take_come() {
                        prop_assert_eq!(answer, version);
                        ended.push(who);
                    }
                    take(&mut list, |known| {
                        known.wants.is_ok_and(|(waited, until)| waited == name && until.has_come(version))
                    })
                }
                Step::Moment { scans_done, first_expiry_ns, is_mid_commit } => {
                    let moment =
                        Moment { scans_done, first_expiry_ns, is_mid_commit, is_commit_under_way: is_mid_commit };
                    let any = list.iter().any(|it| it.is_met(scans_done, first_expiry_ns, is_mid_commit));
                    prop_assert_eq!(parked.can_go_on(moment), any);
                    parked.wake(moment, &mut Slice::endless());
                    ended.extend(std::iter::from_fn(|| parked.take_ready()));
                    take(&mut list, |known| known.is_met(scans_done, first_expiry_ns, is_mid_commit))
                }
                Step::Ended { connection } => {
                    ended.extend(std::iter::from_fn(|| parked.take_of(ConnectionId(connection))));
                    let goes_on = |known: &Known| [Err(Key::Copy), Err(Key::LongCommit)].contains(&known.wants);
                    take(&mut list, |known| known.connection == connection && !goes_on(known))
                }
                Step::Passed { ms } => {
                    ended.extend(std::iter::from_fn(|| parked.take_late(at(ms))));
                    take(&mut list, |known| known.deadline.is_some_and(|deadline| deadline <= at(ms)))
                }
            };
            let mut ended: Vec<u64> = ended.iter().map(|who| who.reply_to.request_id).collect();
            ended.sort_unstable();
            prop_assert_eq!(ended, expected);
            prop_assert_eq!(parked.by_ticket.len(), list.len());
            prop_assert_eq!(parked.wait_count(), list.iter().filter(|known| known.wants.is_ok()).count() as u64);
            prop_assert_eq!(parked.next_deadline(), list.iter().filter_map(|known| known.deadline).min());
            for name in 0..3 {
                let waits = list.iter().any(|known| known.wants.is_ok_and(|(waited, _)| waited == name));
                prop_assert_eq!(parked.has_waiter(&id(name)), waits);
            }
        }
        let rest = std::iter::from_fn(|| parked.take_any()).count();
        prop_assert_eq!(rest, list.len());
        prop_assert!(parked.by_name.is_empty() && parked.by_connection.is_empty());
        prop_assert!(parked.by_need.is_empty() && parked.by_deadline.is_empty());
        prop_assert!(parked.by_process.is_empty());
    }
}

/// A process that lets a thousand requests wait holds up nobody else, whatever comes first.
#[test]
fn processes_take_turns() {
    let mut parked = Parked::default();
    let add = |parked: &mut Parked, pid, request_id| {
        let held = Held { peer: Peer { pid, uid: 7 }, bytes: 0 };
        let reply_to = ReplyTo { connection: ConnectionId(pid.into()), request_id, held };
        parked.add(request(reply_to), Key::WholeCommits, None);
    };
    (0..1_000).for_each(|request_id| add(&mut parked, 1, request_id));
    let (is_mid_commit, is_commit_under_way) = (false, false);
    let moment = Moment { scans_done: 0, first_expiry_ns: u64::MAX, is_mid_commit, is_commit_under_way };
    parked.wake(moment, &mut Slice::endless());
    let next = |parked: &mut Parked| parked.take_ready().unwrap().reply_to;
    (0..100).for_each(|request_id| assert_eq!(next(&mut parked).request_id, request_id));
    // Another process comes, and what it lets wait is ready later than all of that.
    (2_000..2_003).for_each(|request_id| add(&mut parked, 2, request_id));
    parked.wake(moment, &mut Slice::endless());
    let served: Vec<u64> = (0..6).map(|_| next(&mut parked).request_id).collect();
    assert_eq!(served, [100, 2_000, 101, 2_001, 102, 2_002]);
}

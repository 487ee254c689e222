//! What a turn of the daemon's loop costs depends on what has changed, and not on what is held (invariant 9): others are
//! served while a million pins are held, a million recalled names are cached, or many names are looked up at once.
//!
//! The times are printed (`--nocapture`); what is asserted are round trips that others made in the meantime, which were
//! none or few when such work was done in one piece.

use crate::{
    STORE,
    bulk::{self, written},
};
use plasmon_protocol::{
    limits::{PAGE_NAMES_MAX, PIN_SLOTS, RECALL_NAMES_MAX},
    message::{
        AddRegion, Bind, Change, Committed, Describe, Failure, FindMany, FoundMany, FoundOne, ListNames,
        ListPins, NameSlot, NamesPage, Payload, ReadStats, Reserve,
    },
    name::{Name, Namespace},
    object::{Header, Kind},
    pins::{SessionRegion, pin_for},
};
use plasmon_shm::{ClientRegion, WordsMapping};
use plasmon_tests::{
    daemon::Daemon,
    raw::{RawSession, commit, inline, name},
};
use std::{
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread::scope,
    time::{Duration, Instant},
};

/// Somebody who has nothing to do with it, and how long each of his round trips took.
struct Others {
    session: RawSession,
}

impl Others {
    fn begin(daemon: &Daemon) -> Others {
        Others { session: RawSession::begin(daemon.socket()) }
    }

    /// Makes round trips until `done` is set, and returns how long each took, the shortest first.
    fn served_until(&mut self, done: &AtomicBool) -> Vec<Duration> {
        let ask = Describe { namespace: Namespace::default(), name: name("nobody") };
        let mut times = Vec::new();
        while !done.load(Relaxed) {
            let before = Instant::now();
            self.session.requests.call(&ask).expect("the store answers");
            times.push(before.elapsed());
        }
        times.sort_unstable();
        times
    }

    /// Makes round trips while `work` is done.
    fn served_during<T: Send>(&mut self, what: &str, work: impl FnOnce() -> T + Send) -> (Vec<Duration>, T) {
        let done = AtomicBool::new(false);
        let (times, result, took) = scope(|scope| {
            let working = scope.spawn(|| {
                let before = Instant::now();
                let result = work();
                done.store(true, Relaxed);
                (result, before.elapsed())
            });
            let times = self.served_until(&done);
            let (result, took) = working.join().expect("it is done");
            (times, result, took)
        });
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        eprintln!(
            "{what}, {took:?}: {} round trips of others, median {:?}, 99 of 100 {:?}, worst {:?}",
            times.len(),
            at(50),
            at(99),
            at(100)
        );
        (times, result)
    }
}

fn map(fd: OwnedFd, session: &RawSession) -> WordsMapping {
    let region = ClientRegion::from_fd(fd, session.welcome.session_bytes).expect("a session region");
    region.map_words().expect("it can be mapped")
}

/// A session's own region.
fn own_region(session: &RawSession) -> WordsMapping {
    map(session.fds[2].try_clone().expect("a descriptor"), session)
}

/// One process pins everything a million times, and others rebind a quarter of a million names 64 bytes long: all of that
/// is in limbo. Each scan reads a million pins, and none of it is the loop's.
#[test]
fn a_million_pins_on_what_was_forgotten_cost_others_nothing() {
    const OBJECTS: u32 = 262_144;
    const REGIONS: u32 = 16;
    let daemon = Daemon::start(STORE, "64MiB");
    let mut others = Others::begin(&daemon);
    let mut asking = RawSession::begin(daemon.socket());
    asking.requests.be_patient();
    let (before, _) = others.served_during("nothing is held: stats a hundred times", || {
        (0..100).for_each(|_| drop(asking.requests.call(&ReadStats {}).expect("the store answers")));
    });

    let mut holder = RawSession::begin(daemon.socket());
    let mut regions = vec![own_region(&holder)];
    for _ in 1..REGIONS {
        let (_, mut fds) = holder.requests.call_with_fds(&AddRegion {});
        regions.push(map(fds.remove(0), &holder));
    }
    for (region, number) in regions.iter().zip(0..) {
        let table = SessionRegion::open(region.words()).expect("a session region");
        let first = number % (OBJECTS / PIN_SLOTS) * PIN_SLOTS;
        (0..PIN_SLOTS).for_each(|slot| table.publish(slot, pin_for(u64::from(first + slot) * 64)));
    }
    let mut writer = RawSession::begin(daemon.socket());
    for first in (0..OBJECTS).step_by(2_048) {
        // The same names again and again.
        let learn =
            commit((first..first + 2_048).map(|number| inline(&format!("{}", number % 2_048), 64)).collect());
        writer.requests.call(&learn).expect("there is room");
    }
    let (during, stats) = others.served_during("a million pins are held: stats four times", || {
        let mut ask = || asking.requests.call(&ReadStats {}).expect("the store answers");
        (0..3).for_each(|_| drop(ask()));
        ask()
    });
    assert_eq!(stats.pins, u64::from(REGIONS * PIN_SLOTS));
    // The last 2,048 have their names.
    assert_eq!(stats.limbo_bytes, u64::from(OBJECTS - 2_048) * 64);
    assert_eq!(stats.pinned_bytes, u64::from(OBJECTS) * 64);
    let median = |times: &[Duration]| times[times.len() / 2];
    let bound = median(&before).max(Duration::from_micros(100)) * 50;
    assert!(median(&during) < bound, "{:?} and {:?} before", median(&during), median(&before));

    let (_, refused) = others.served_during("a million pins are held: a full store", || {
        asking.requests.call(&Reserve { len_bytes: 64 << 20 })
    });
    let Err(Failure::StoreFull(room)) = refused else { panic!("{refused:?}") };
    assert_eq!(room.limbo_bytes, stats.limbo_bytes);
    assert_eq!((room.holders.len(), room.holders[0].bytes), (1, stats.limbo_bytes));

    let (_, (pages, lines, pins)) =
        others.served_during("a million pins are held: all pages of pins", || {
            let (mut pages, mut lines, mut pins, mut after) = (0, 0, 0, None);
            loop {
                let page = asking.requests.call(&ListPins { after }).expect("the store answers");
                pages += 1;
                lines += page.pins.len();
                pins += page.pins.iter().map(|pin| u64::from(pin.pins)).sum::<u64>();
                after = page.next;
                if after.is_none() {
                    return (pages, lines, pins);
                }
            }
        });
    assert_eq!((lines, pins), (OBJECTS as usize, stats.pins));
    assert!(pages > 64, "{pages} pages");

    // All of it is free when it is let go, and that holds up nobody either.
    let (served, ()) = others.served_during("a million pins are let go", || {
        for region in &regions {
            let table = SessionRegion::open(region.words()).expect("a session region");
            (0..PIN_SLOTS).for_each(|slot| table.withdraw(slot));
        }
        plasmon_tests::eventually("limbo is empty", || {
            asking.requests.call(&ReadStats {}).expect("the store answers").limbo_bytes == 0
        });
    });
    assert!(served.len() > 10, "{} round trips", served.len());
}

/// The queue of what gives way is put in order when somebody needs room for the first time: a million moves.
#[test]
fn the_first_eviction_from_a_million_recalled_names_holds_up_nobody() {
    const NAMES: u32 = 1_000_000;
    let daemon = Daemon::start_with(STORE, &["--size", "256MiB", "--max-objects", "1000010"]);
    let mut others = Others::begin(&daemon);
    let mut writer = RawSession::begin(daemon.socket());
    writer.requests.be_patient();
    let cache = Change::DeclareNamespace { namespace: bulk::namespace(), is_cache: true, ttl: None };
    writer.requests.call(&commit(vec![cache])).expect("it is declared");
    let learn = written(&mut writer, NAMES);
    writer.requests.call(&learn).expect("all of it is bound");
    let region = own_region(&writer);
    let table = SessionRegion::open(region.words()).expect("a session region");
    (1..=NAMES).for_each(|number| table.note_access(number));
    let last = Describe { namespace: bulk::namespace(), name: bulk::name(NAMES - 1) };
    plasmon_tests::eventually("the recalls are known", || {
        let described = writer.requests.call(&last).expect("the store answers");
        described.binding.is_some_and(|binding| binding.recalled_ns != 0)
    });
    let free_bytes = writer.requests.call(&ReadStats {}).expect("the store answers").free_bytes;
    writer.requests.call(&Reserve { len_bytes: free_bytes }).expect("it is free");
    let (served, granted) = others.served_during("first eviction from a million recalled names", || {
        writer.requests.call(&Reserve { len_bytes: 1 << 20 })
    });
    granted.expect("cached names give way");
    let stats = writer.requests.call(&ReadStats {}).expect("the store answers");
    assert_eq!(stats.evicted, (1 << 20) / 64);
    assert!(served.len() > 100, "{} round trips", served.len());
}

/// What a client asks that recalls 65,536 names while others write: all of one moment, and not in one turn.
#[test]
fn many_names_are_looked_up_at_one_moment_while_others_are_served() {
    const NAMES: u32 = RECALL_NAMES_MAX;
    let daemon = Daemon::start(STORE, "64MiB");
    let mut others = Others::begin(&daemon);
    let mut reader = RawSession::begin(daemon.socket());
    reader.requests.be_patient();
    let learn = written(&mut reader, NAMES);
    reader.requests.call(&learn).expect("all of it is bound");
    let region = own_region(&reader);
    let table = SessionRegion::open(region.words()).expect("a session region");
    let slot = |number| NameSlot { namespace: bulk::namespace(), name: bulk::name(number), slot: number };
    let wanted = FindMany { names: (0..NAMES).map(slot).collect() };
    let mut ends = RawSession::begin(daemon.socket());
    let is_done = AtomicBool::new(false);
    let mut look_up = || {
        let found: FoundMany = reader.requests.call(&wanted).expect("the slots are free");
        (0..NAMES).for_each(|slot| table.withdraw(slot));
        let version = |found: &FoundOne| match found {
            FoundOne::At(location) => location.version,
            FoundOne::Absent => panic!("it is bound"),
        };
        assert_eq!(found.locations.len(), NAMES as usize);
        (version(&found.locations[0]), version(&found.locations[NAMES as usize - 1]))
    };
    let (served, (versions, commits)) =
        others.served_during("5 look-ups of 65,536 names under writes", || {
            scope(|scope| {
                // The first name and the last one always change together.
                let writing = scope.spawn(|| {
                    let bind = |number| rebind(bulk::namespace(), bulk::name(number));
                    let mut commits = 0;
                    while !is_done.load(Relaxed) {
                        let both = commit(vec![bind(0), bind(NAMES - 1)]);
                        let _: Committed = ends.requests.call(&both).expect("there is room");
                        commits += 1;
                    }
                    commits
                });
                let versions: Vec<_> = (0..5).map(|_| look_up()).collect();
                is_done.store(true, Relaxed);
                (versions, writing.join().expect("it is done"))
            })
        });
    assert!(versions.iter().all(|(first, last)| first == last), "{versions:?}");
    assert!(commits >= 4, "{commits} commits had their turn between the look-ups");
    assert!(served.len() > 50, "{} round trips", served.len());

    // A bad slot at the very end: nothing stays pinned.
    let mut bad = wanted;
    bad.names[NAMES as usize - 1].slot = 0;
    let refusal = reader.requests.call(&bad);
    assert_eq!(refusal, Err(Failure::BadSlot { slot: 0 }));
    assert_eq!(reader.requests.call(&ReadStats {}).expect("the store answers").pins, 0);
}

/// Requests that must not see half of a commit wait until it is whole. However many these are, they are not answered in one
/// turn.
#[test]
fn listings_that_have_waited_for_a_long_commit_hold_up_nobody() {
    const NAMES: u32 = 50_000;
    const PAGES: usize = 32;
    let daemon = Daemon::start(STORE, "32MiB");
    let mut others = Others::begin(&daemon);
    let mut writer = RawSession::begin(daemon.socket());
    writer.requests.be_patient();
    let mut listing: Vec<_> = (0..8).map(|_| RawSession::begin(daemon.socket())).collect();
    let learn = written(&mut writer, NAMES);
    writer.requests.send(1, &learn);
    let first = Describe { namespace: bulk::namespace(), name: bulk::name(0) };
    let list = ListNames { namespace: Some(bulk::namespace()), prefix: String::new(), after: None, limit: 0 };
    plasmon_tests::eventually("a part of the commit is visible", || {
        others.session.requests.call(&first).expect("the store answers").binding.is_some()
    });
    let (times, pages) = others.served_during("256 listings wait for a long commit", || {
        for session in &mut listing {
            session.requests.be_patient();
            (0..PAGES).for_each(|number| session.requests.send(number as u64, &list));
        }
        let pages = listing.iter_mut().flat_map(|session| {
            (0..PAGES).map(|_| session.requests.receive::<NamesPage>().expect("a page")).collect::<Vec<_>>()
        });
        pages.map(|page| page.names.len()).collect::<Vec<_>>()
    });
    writer.requests.receive::<Committed>().expect("all of it is bound");
    assert_eq!(pages, [PAGE_NAMES_MAX as usize; 8 * PAGES]);
    let (worst, all) = (times[times.len() - 1], times.iter().sum::<Duration>());
    assert!(worst * 4 < all, "one round trip took {worst:?} of {all:?}");
}

fn rebind(namespace: Namespace, name: Name) -> Change {
    let payload = Payload::Inline { bytes: vec![7; 64].into() };
    let header = Header::new(Kind::BYTES);
    let (description, metadata, ttl) = (None, None, None);
    Change::Bind(Bind { namespace, name, description, metadata, header, ttl, payload })
}

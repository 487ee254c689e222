//! Models of what runs on shared memory, explored by [loom](https://docs.rs/loom) over the real code: `IndexWriter`,
//! `IndexReader`, `SessionRegion` and `LeaseState`, whose atomics and fences are loom's when built with `--cfg loom`.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p plasmon-protocol --test loom --release
//! ```
//!
//! # What is modelled
//!
//! Each model is one daemon (the main thread) and one client thread, or two where the name says so. The "bytes of an
//! object" are a cell in which loom reports every write that is not ordered with every read, so a model fails also
//! where the value read happens to be right. Each model notes what happened, and must have seen all its outcomes.
//!
//! * Pins against reuse, `rebind`, `forget_and_learn_again`, `unpin_then_reuse`, `snapshot_against_reuse`:
//!   look up, pin, read and withdraw against unlink, fence, scan and overwrite (invariant 2; `pins`, R1-R3 and D1-D3).
//! * The seqlock, `neighbour_moves` and `rebind_twice`: a bound name is never missed and an entry never torn, held by a
//!   pin or inline (invariant 3; `index`, W1-W4 and L1-L4).
//! * The clock, `rebind_before_the_deadline` and `expire_then_unbind`: a name that is bound is not taken for one that has
//!   expired, and one that has is not found.
//! * `one_commit` and `two_commits`: a snapshot is true at one moment, in one bucket and in two.
//! * Leases: `claim_against_take`. Slots that the daemon pins in: `claim_against_withdraw`. Forks: `hand_over` and
//!   `hand_over_by_a_dead_parent`. The death of a process between any two steps of a recall or a lease, heard from the
//!   kernel at any instant: `death_of_a_reader`, `death_of_a_writer`.
//!
//! Four steps can be left out through `Steps`, and the models named `without_…` demand that loom then finds the
//! violation: the reader's fence, the daemon's fence, the second look after a miss, and that the clock is read before
//! it. Two more demand it where a parent does not wait for its child, and where the child is scanned before its parent;
//! and two where the end of a process is heard without what it did before.
//!
//! # How far
//!
//! Every model is explored to its end, without a bound on preemptions; only the one with two readers is bounded, to
//! three preemptions. The shapes are small: one to three entries in one or two buckets, two pin slots and one lease slot
//! (`limits` says so under `cfg(loom)`), one or two tries of a lookup where the real one takes 64, one of a snapshot.
//! A reader sees only those words of an entry that its model is about (`Focus`), since one sequence protects them all.
//!
//! # What is not modelled
//!
//! * More than one writer: there is none. More than one session, but for forks: the daemon scans them one after the
//!   other.
//! * Loom never lets a load see a store that has not run yet, and takes a fence together with the access before it.
//!   It orders two SeqCst fences as if the earlier released to the later, which is more than the language says; the
//!   argument in `pins` uses only what it says.
//! * Real hardware, which is for stress tests in real processes, and death in the middle of a step, which is for the
//!   campaign of faults (`scripts/faults`). Hostile words are in `tests/properties.rs`.
#![cfg(loom)]

use loom::{cell::Cell, model::Builder, thread};
use plasmon_protocol::{
    id::NameId,
    index::{Entry, IndexReader, IndexWriter, Lookup},
    layout::{IndexShape, bucket, entry, session},
    object::{Flags, Header, Kind},
    pins::{All, HandOver, Moved, SessionRegion, Steps, offset_of, pin_for, reclaim_fence_with},
    sync::{AtomicU64, Ordering, Words},
};
use std::{
    collections::BTreeSet,
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering as StdOrdering},
    },
};

// ---------------------------------------------------------------- Recall against reuse

/// Invariant 2. A name is bound to extent 0, then to extent 1, and extent 0 is reused if no pin holds it, while
/// `READERS` threads of one client recall the name.
fn rebind<S: Steps + 'static, const READERS: u32>(seen: &Seen) {
    let (index, mut writer) = index(ONE_BUCKET);
    let number = writer.insert(&index, &id(1), &object(1, 0)).unwrap();
    let session = session_region();
    let extents = Arc::new([Extent::holding(1), Extent::holding(2)]);

    let readers: Vec<_> = (0..READERS)
        .map(|slot| {
            let (index, session, extents, seen) =
                (index.clone(), session.clone(), extents.clone(), seen.clone());
            thread::spawn(move || {
                let reader =
                    Focus::on(&index, ONE_BUCKET, &[entry::NAME_ID + 2, entry::VERSION, entry::OFFSET]);
                let tries = 3 - READERS;
                match reader
                    .lookup_with::<S, _, _>(&id(1), || 0, |entry| pin(&session, slot, entry), tries)
                    .unwrap()
                {
                    Lookup::Held { entry, pin, .. } => {
                        let content = extents[extent_of(&entry)].read();
                        drop(pin);
                        assert_eq!(content, entry.version, "an extent was reused under its reader");
                        seen.note(if content == 1 { "read the old object" } else { "read the new object" });
                    }
                    Lookup::Absent => panic!("a name that is always bound was reported absent"),
                    Lookup::Unsteady => seen.note("gave up"),
                }
            })
        })
        .collect();

    writer.replace(&index, &id(1), number, &object(2, 64));
    reclaim_fence_with::<S>();
    if is_pinned(&session, 0) {
        seen.note("left in limbo");
    } else {
        extents[0].write(3);
        seen.note("reused");
    }
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

const REBIND_OUTCOMES: &[&str] =
    &["gave up", "left in limbo", "read the new object", "read the old object", "reused"];

#[test]
fn an_extent_is_not_reused_under_its_reader() {
    explore(None, REBIND_OUTCOMES, rebind::<All, 1>);
}

/// The pin of one thread may lie below a high-water mark that another thread raised.
#[test]
fn an_extent_is_not_reused_under_one_of_two_readers() {
    explore(Some(3), REBIND_OUTCOMES, rebind::<All, 2>);
}

#[test]
fn without_the_readers_fence_an_extent_is_reused_under_its_reader() {
    assert_eq!(violation_in(rebind::<NoPinFence, 1>), Violation::Race);
}

#[test]
fn without_the_daemons_fence_an_extent_is_reused_under_its_reader() {
    assert_eq!(violation_in(rebind::<NoReclaimFence, 1>), Violation::Race);
}

/// Invariant 2. A name is unbound, its extent reused and bound to the same name again, all in the same index entry.
fn forget_and_learn_again<S: Steps + 'static>(seen: &Seen) {
    let (index, mut writer) = index(ONE_BUCKET);
    writer.insert(&index, &id(1), &object(1, 0)).unwrap();
    let session = session_region();
    let extent = Arc::new(Extent::holding(1));

    let reader = {
        let (index, session, extent, seen) = (index.clone(), session.clone(), extent.clone(), seen.clone());
        thread::spawn(move || {
            let reader = Focus::on(&index, ONE_BUCKET, &[entry::NAME_ID + 2, entry::VERSION]);
            match reader.lookup_with::<S, _, _>(&id(1), || 0, |entry| pin(&session, 0, entry), 1).unwrap() {
                Lookup::Held { entry, pin, .. } => {
                    let content = extent.read();
                    drop(pin);
                    assert_eq!(content, entry.version, "an extent was reused under its reader");
                    seen.note(if content == 1 { "read the old object" } else { "read the new object" });
                }
                Lookup::Absent => seen.note("absent"),
                Lookup::Unsteady => seen.note("gave up"),
            }
        })
    };

    writer.remove(&index, &id(1)).unwrap();
    reclaim_fence_with::<S>();
    if !is_pinned(&session, 0) {
        extent.write(2);
        writer.insert(&index, &id(1), &object(2, 0)).unwrap();
        seen.note("reused");
    } else {
        seen.note("left in limbo");
    }
    reader.join().unwrap();
}

#[test]
fn an_extent_that_comes_back_under_the_same_name_is_read_whole() {
    let outcomes =
        &["absent", "gave up", "left in limbo", "read the new object", "read the old object", "reused"];
    explore(None, outcomes, forget_and_learn_again::<All>);
}

#[test]
fn without_the_readers_fence_an_extent_comes_back_under_its_reader() {
    assert_eq!(violation_in(forget_and_learn_again::<NoPinFence>), Violation::Race);
}

#[test]
fn without_the_daemons_fence_an_extent_comes_back_under_its_reader() {
    assert_eq!(violation_in(forget_and_learn_again::<NoReclaimFence>), Violation::Race);
}

/// Invariant 2. A pin that is held when its name goes; the daemon scans twice, and reuses the extent when the pin is
/// gone. The last read comes before the overwrite.
fn unpin_then_reuse(seen: &Seen) {
    let session = session_region();
    let extent = Arc::new(Extent::holding(1));
    SessionRegion::assume_checked(&session).publish(0, pin_for(0));

    let reader = {
        let (session, extent) = (session.clone(), extent.clone());
        thread::spawn(move || {
            let held = Pin { session: &session, slot: 0 };
            let content = extent.read();
            drop(held);
            assert_eq!(content, 1, "an extent was reused under its reader");
        })
    };

    for scan in ["reused after the first scan", "reused after the second scan"] {
        reclaim_fence_with::<All>();
        if !is_pinned(&session, 0) {
            extent.write(2);
            seen.note(scan);
            break;
        }
        seen.note("left in limbo");
    }
    reader.join().unwrap();
}

#[test]
fn the_last_read_comes_before_the_reuse() {
    let outcomes = &["left in limbo", "reused after the first scan", "reused after the second scan"];
    explore(None, outcomes, unpin_then_reuse);
}

/// The daemon pins in a slot that the client named and is just giving up (`Find`): it never overwrites a pin that is
/// held, and the last read under the old pin comes before whatever follows the claim.
fn claim_against_withdraw(seen: &Seen) {
    let session = session_region();
    let extents = Arc::new([Extent::holding(1), Extent::holding(2)]);
    SessionRegion::assume_checked(&session).publish(0, pin_for(0));

    let reader = {
        let (session, extents) = (session.clone(), extents.clone());
        thread::spawn(move || {
            let held = Pin { session: &session, slot: 0 };
            let content = extents[0].read();
            drop(held);
            assert_eq!(content, 1, "an extent was reused under its reader");
        })
    };

    if SessionRegion::assume_checked(&session).claim(0, pin_for(64)) {
        seen.note("claimed");
        extents[0].write(3);
        assert!(is_pinned(&session, 64), "the daemon's pin is seen by its own scan");
    } else {
        seen.note("refused");
    }
    reader.join().unwrap();
}

#[test]
fn a_claimed_slot_overwrites_no_pin() {
    explore(None, &["claimed", "refused"], claim_against_withdraw);
}

// ---------------------------------------------------------------- One name: whole, and never missing

/// Invariant 3. The chain of bucket 0 leads over a neighbour to a name that is always bound. The neighbour is unbound
/// and its entry reused for a name in bucket 1, whose chain ends there.
fn neighbour_moves<S: Steps + 'static>(seen: &Seen) {
    let [[bound, neighbour], [other, _]] = ids_by_bucket();
    let (index, mut writer) = index(TWO_BUCKETS);
    writer.insert(&index, &bound, &object(1, 0)).unwrap();
    let number = writer.insert(&index, &neighbour, &object(2, 64)).unwrap();

    let reader = {
        let (index, seen) = (index.clone(), seen.clone());
        thread::spawn(move || {
            let reader =
                Focus::on(&index, TWO_BUCKETS, &[entry::NAME_ID + 2, entry::NEXT_AND_KIND, entry::VERSION]);
            match reader.lookup_with::<S, _, _>(&bound, || 0, no_pin, 2).unwrap() {
                Lookup::Held { entry, .. } => {
                    assert_eq!(entry.version, 1, "another name's binding was returned");
                    seen.note("found");
                }
                Lookup::Absent => panic!("{MISSED}"),
                Lookup::Unsteady => seen.note("gave up"),
            }
        })
    };

    writer.remove(&index, &neighbour).unwrap();
    assert_eq!(
        writer.insert(&index, &other, &object(3, 128)),
        Ok(number),
        "the model needs the entry to be reused"
    );
    reader.join().unwrap();
}

const MISSED: &str = "a name that is always bound was reported absent";

#[test]
fn a_bound_name_is_never_reported_absent_while_its_neighbours_move() {
    explore(None, &["found", "gave up"], neighbour_moves::<All>);
}

#[test]
fn without_the_second_look_a_bound_name_is_reported_absent() {
    assert_eq!(violation_in(neighbour_moves::<NoMissCheck>), Violation::Assertion(MISSED.into()));
}

/// Invariant 3. A name is rebound twice; every look at it is all of one binding. `OLD` and `NEW` say which of the
/// bindings stand inline in the entry, where no pin and no fence of a pin is in play.
fn rebind_twice<const OLD_INLINE: bool, const NEW_INLINE: bool>(seen: &Seen) {
    let binding = |version: u64| {
        let mut binding = object(version, version * 64);
        if if version == 2 { NEW_INLINE } else { OLD_INLINE } {
            binding.header = Header::new(Kind::INT64).with_inline(&[0; 32]).unwrap();
        }
        binding.header.dims[3] = version;
        binding
    };
    let (index, mut writer) = index(ONE_BUCKET);
    let number = writer.insert(&index, &id(1), &binding(1)).unwrap();

    let reader = {
        let (index, seen) = (index.clone(), seen.clone());
        thread::spawn(move || {
            let fields = &[entry::NAME_ID + 2, entry::NEXT_AND_KIND, entry::VERSION, entry::DIMS + 3];
            let reader = Focus::on(&index, ONE_BUCKET, fields);
            match reader.lookup_with::<All, _, _>(&id(1), || 0, no_pin, 1).unwrap() {
                Lookup::Held { entry, pin, .. } => {
                    let whole = binding(entry.version);
                    assert_eq!(
                        (entry.header.dims[3], entry.header.flags),
                        (entry.version, whole.header.flags)
                    );
                    assert_eq!(pin.is_none(), entry.header.flags.has(Flags::INLINE));
                    seen.note(["", "first", "second", "third"][usize::try_from(entry.version).unwrap()]);
                }
                Lookup::Absent => panic!("{MISSED}"),
                Lookup::Unsteady => seen.note("gave up"),
            }
        })
    };

    writer.replace(&index, &id(1), number, &binding(2));
    writer.replace(&index, &id(1), number, &binding(3));
    reader.join().unwrap();
}

const REBIND_TWICE_OUTCOMES: &[&str] = &["first", "gave up", "second", "third"];

#[test]
fn an_entry_is_never_seen_torn() {
    explore(None, REBIND_TWICE_OUTCOMES, rebind_twice::<false, false>);
}

#[test]
fn an_inline_value_is_never_seen_torn() {
    explore(None, REBIND_TWICE_OUTCOMES, rebind_twice::<true, true>);
}

#[test]
fn an_entry_that_becomes_inline_and_back_is_never_seen_torn() {
    explore(None, REBIND_TWICE_OUTCOMES, rebind_twice::<false, true>);
}

// ---------------------------------------------------------------- Expiry against rebinding

/// Invariant 3. A binding that expires at 10 is replaced in time by one that does not, then the clock goes to 20: the name
/// is bound all the time, and every look finds it. The clock is one that all see alike: who reads 20 sees what was done
/// before it was 20.
fn rebind_before_the_deadline<S: Steps + 'static>(seen: &Seen) {
    let (index, mut writer) = index(ONE_BUCKET);
    let number = writer.insert(&index, &id(1), &Entry { expires_ns: 10, ..object(1, 0) }).unwrap();
    let clock = Arc::new(AtomicU64::new(5));

    let reader = {
        let (index, clock, seen) = (index.clone(), clock.clone(), seen.clone());
        thread::spawn(move || {
            let fields = &[entry::NAME_ID + 2, entry::VERSION, entry::EXPIRES];
            let reader = Focus::on(&index, ONE_BUCKET, fields);
            let now = || clock.load(Ordering::Acquire);
            match reader.lookup_with::<S, _, _>(&id(1), now, no_pin, 1).unwrap() {
                Lookup::Held { entry, .. } => seen.note(if entry.version == 1 { "first" } else { "second" }),
                Lookup::Absent => panic!("{MISSED}"),
                Lookup::Unsteady => seen.note("gave up"),
            }
        })
    };

    writer.replace(&index, &id(1), number, &object(2, 64));
    clock.store(20, Ordering::Release);
    reader.join().unwrap();
}

#[test]
fn a_name_that_is_rebound_before_its_deadline_is_never_missed() {
    explore(None, &["first", "gave up", "second"], rebind_before_the_deadline::<All>);
}

#[test]
fn with_the_clock_read_last_a_name_that_is_rebound_before_its_deadline_is_missed() {
    let missed = Violation::Assertion(MISSED.to_owned());
    assert_eq!(violation_in(rebind_before_the_deadline::<ClockLast>), missed);
}

/// A binding expires, and is unbound some time later: whoever begins to look after its deadline does not find it.
fn expire_then_unbind(seen: &Seen) {
    let (index, mut writer) = index(ONE_BUCKET);
    writer.insert(&index, &id(1), &Entry { expires_ns: 10, ..object(1, 0) }).unwrap();
    let clock = Arc::new(AtomicU64::new(5));

    let reader = {
        let (index, clock, seen) = (index.clone(), clock.clone(), seen.clone());
        thread::spawn(move || {
            let fields = &[entry::NAME_ID + 2, entry::VERSION, entry::EXPIRES];
            let reader = Focus::on(&index, ONE_BUCKET, fields);
            let now = || clock.load(Ordering::Acquire);
            let began = now();
            match reader.lookup_with::<All, _, _>(&id(1), now, no_pin, 1).unwrap() {
                Lookup::Held { .. } => {
                    assert!(began < 10, "a binding was found after it had expired");
                    seen.note("held");
                }
                Lookup::Absent => seen.note(if began < 10 { "expired meanwhile" } else { "absent" }),
                Lookup::Unsteady => seen.note("gave up"),
            }
        })
    };

    clock.store(20, Ordering::Release);
    writer.remove(&index, &id(1)).unwrap();
    reader.join().unwrap();
}

#[test]
fn a_binding_is_not_found_after_its_deadline() {
    explore(None, &["absent", "expired meanwhile", "gave up", "held"], expire_then_unbind);
}

// ---------------------------------------------------------------- Many names at one moment

/// A snapshot of two names while `daemon` rebinds both of them. It must be one of `allowed`, or none.
fn snapshot_during(
    seen: &Seen,
    names: [NameId; 2],
    allowed: &'static [([u64; 2], &'static str)],
    daemon: impl FnOnce(&mut IndexWriter, &[AtomicU64], [u32; 2]),
) {
    let (index, mut writer) = index(TWO_BUCKETS);
    let numbers = names.map(|name| writer.insert(&index, &name, &object(1, 0)).unwrap());

    let reader = {
        let (index, seen) = (index.clone(), seen.clone());
        thread::spawn(move || {
            let reader =
                Focus::on(&index, TWO_BUCKETS, &[entry::NAME_ID + 2, entry::NEXT_AND_KIND, entry::VERSION]);
            let Some(found) = reader.snapshot(&names, || 0, no_pin).unwrap() else {
                return seen.note("gave up");
            };
            let versions = [0, 1].map(|at| match &found[at] {
                Lookup::Held { entry, .. } => entry.version,
                other => panic!("a name that is always bound was reported {other:?}"),
            });
            let moment = allowed.iter().find(|(allowed, _)| *allowed == versions);
            seen.note(moment.unwrap_or_else(|| panic!("versions {versions:?} never stood together")).1);
        })
    };

    daemon(&mut writer, &index, numbers);
    reader.join().unwrap();
}

const WHOLE_COMMIT: &[([u64; 2], &str)] = &[([1, 1], "before"), ([2, 2], "after")];

fn one_commit(seen: &Seen, names: [NameId; 2]) {
    snapshot_during(seen, names, WHOLE_COMMIT, |writer, index, numbers| {
        writer.open_epoch(index);
        for (name, number) in names.iter().zip(numbers) {
            writer.replace(index, name, number, &object(2, 0));
        }
        writer.close_epoch(index);
    });
}

fn two_commits(seen: &Seen, names: [NameId; 2]) {
    let allowed = &[([1, 1], "before"), ([2, 1], "between"), ([2, 2], "after")];
    snapshot_during(seen, names, allowed, |writer, index, numbers| {
        for (name, number) in names.iter().zip(numbers) {
            writer.replace(index, name, number, &object(2, 0));
        }
    });
}

/// Invariant 3, for a commit of several names.
#[test]
fn a_snapshot_sees_all_of_a_commit_or_nothing() {
    explore(None, &["after", "before", "gave up"], |seen| {
        one_commit(seen, ids_by_bucket().map(|[name, _]| name))
    });
}

/// Between the two changes the bucket's sequence is even: only the epoch tells.
#[test]
fn a_snapshot_sees_all_of_a_commit_in_one_bucket_or_nothing() {
    explore(None, &["after", "before", "gave up"], |seen| one_commit(seen, ids_by_bucket()[0]));
}

/// Single commits do not move the epoch: only the sequences tell.
#[test]
fn a_snapshot_sees_single_commits_in_their_order() {
    explore(None, &["after", "before", "between", "gave up"], |seen| {
        two_commits(seen, ids_by_bucket().map(|[name, _]| name));
    });
}

#[test]
fn a_snapshot_sees_single_commits_in_one_bucket_in_their_order() {
    explore(None, &["after", "before", "between", "gave up"], |seen| two_commits(seen, ids_by_bucket()[0]));
}

/// Invariant 2 for a snapshot: one fence serves all of its pins.
fn snapshot_against_reuse(seen: &Seen) {
    let names = ids_by_bucket().map(|[name, _]| name);
    let (index, mut writer) = index(TWO_BUCKETS);
    let numbers = [0, 1].map(|at| writer.insert(&index, &names[at], &object(1, 64 * at as u64)).unwrap());
    let session = session_region();
    let extents = Arc::new([Extent::holding(1), Extent::holding(1), Extent::holding(2)]);

    let reader = {
        let (index, session, extents, seen) = (index.clone(), session.clone(), extents.clone(), seen.clone());
        thread::spawn(move || {
            let reader = Focus::on(&index, TWO_BUCKETS, &[entry::NAME_ID + 2, entry::VERSION, entry::OFFSET]);
            let mut slots = 0..;
            let publish = |entry: &Entry| pin(&session, slots.next().unwrap(), entry);
            let Some(found) = reader.snapshot(&names, || 0, publish).unwrap() else {
                return seen.note("gave up");
            };
            for one in &found {
                let Lookup::Held { entry, .. } = one else { panic!("{MISSED}") };
                assert_eq!(
                    extents[extent_of(entry)].read(),
                    entry.version,
                    "an extent was reused under its reader"
                );
            }
            drop(found);
            seen.note("read both");
        })
    };

    writer.replace(&index, &names[0], numbers[0], &object(2, 128));
    reclaim_fence_with::<All>();
    if is_pinned(&session, 0) {
        seen.note("left in limbo");
    } else {
        extents[0].write(3);
        seen.note("reused");
    }
    reader.join().unwrap();
}

#[test]
fn an_extent_is_not_reused_under_a_snapshot() {
    explore(None, &["gave up", "left in limbo", "read both", "reused"], snapshot_against_reuse);
}

// ---------------------------------------------------------------- Leases

/// The client lays its lease down and claims it again, the daemon takes
/// it back when it is idle: never do both have it, and what each writes is ordered.
fn claim_against_take(seen: &Seen) {
    let session = session_region();
    let bytes = Arc::new(Extent::holding(0));
    SessionRegion::assume_checked(&session).lease(0, 7).unwrap().grant();

    let client = {
        let (session, bytes, seen) = (session.clone(), bytes.clone(), seen.clone());
        thread::spawn(move || {
            let lease = SessionRegion::assume_checked(&session).lease(0, 7).unwrap();
            bytes.write(1);
            lease.lay_down();
            match lease.claim() {
                Moved::Yes => {
                    assert_eq!(bytes.read(), 1, "the daemon wrote into a lease that it has not taken");
                    bytes.write(2);
                    seen.note("claimed");
                }
                Moved::No => seen.note("not claimed"),
            }
        })
    };

    let region = SessionRegion::assume_checked(&session);
    let lease = region.lease(0, 7).unwrap();
    let was_idle = lease.is_idle();
    let taken = lease.take();
    if taken == Moved::Yes {
        seen.note("taken");
        assert_eq!(bytes.read(), 1, "the client wrote into a lease that was taken from it");
        bytes.write(3);
        // The slot goes to another lease; the client, which still remembers the first, must not claim this one.
        let later = region.lease(0, 8).unwrap();
        later.grant();
        later.lay_down();
    } else {
        seen.note(if was_idle { "not taken, though it was idle" } else { "not taken" });
    }
    client.join().unwrap();
    if taken == Moved::Yes {
        assert_eq!(bytes.read(), 3, "the client wrote into a lease that was taken from it");
        assert!(region.lease(0, 8).unwrap().is_idle(), "the client claimed another lease than its own");
    }
}

#[test]
fn a_lease_is_claimed_or_taken_but_never_both() {
    let outcomes = &["claimed", "not claimed", "not taken", "not taken, though it was idle", "taken"];
    explore(None, outcomes, claim_against_take);
}

// ---------------------------------------------------------------- Forks

/// Invariant 2 across a fork. Parent and child each have a handle of an object without a name; the child copies its
/// parent's pin, the parent drops its own, and the daemon reuses the extent if it finds neither.
fn hand_over<const PARENT_WAITS: bool, const PARENT_IS_SCANNED_FIRST: bool>(seen: &Seen) {
    let (parents, childs) = (session_region(), session_region());
    let extent = Arc::new(Extent::holding(1));
    SessionRegion::assume_checked(&parents).publish(0, pin_for(0));

    let parent = {
        let (parents, childs, seen) = (parents.clone(), childs.clone(), seen.clone());
        thread::spawn(move || {
            let waiting = SessionRegion::assume_checked(&childs).hand_over() == HandOver::Waiting;
            if PARENT_WAITS && waiting {
                seen.note("the parent queues");
            } else {
                SessionRegion::assume_checked(&parents).withdraw(0);
            }
        })
    };
    let child = {
        let (childs, extent) = (childs.clone(), extent.clone());
        thread::spawn(move || {
            let region = SessionRegion::assume_checked(&childs);
            region.publish(0, pin_for(0));
            let held = Pin { session: &childs, slot: 0 };
            region.set_filled();
            let content = extent.read();
            drop(held);
            assert_eq!(content, 1, "an extent was reused under a forked child");
        })
    };

    reclaim_fence_with::<All>();
    let order = if PARENT_IS_SCANNED_FIRST { [&parents, &childs] } else { [&childs, &parents] };
    if order.iter().any(|session| is_pinned(session, 0)) {
        seen.note("in limbo");
    } else {
        extent.write(2);
        seen.note("reused");
    }
    parent.join().unwrap();
    child.join().unwrap();
}

#[test]
fn an_extent_is_not_reused_under_a_forked_child() {
    explore(None, &["in limbo", "reused", "the parent queues"], hand_over::<true, true>);
}

#[test]
fn if_the_parent_does_not_wait_an_extent_is_reused_under_its_child() {
    assert_eq!(violation_in(hand_over::<false, true>), Violation::Race);
}

#[test]
fn if_the_child_is_scanned_first_an_extent_is_reused_under_it() {
    assert_eq!(violation_in(hand_over::<true, false>), Violation::Race);
}

/// The parent is dead, and its slots say what they said: they are scanned until the child has filled its own.
fn hand_over_by_a_dead_parent(seen: &Seen) {
    let (parents, childs) = (session_region(), session_region());
    let extent = Arc::new(Extent::holding(1));
    SessionRegion::assume_checked(&parents).publish(0, pin_for(0));
    let child = {
        let (childs, extent) = (childs.clone(), extent.clone());
        thread::spawn(move || {
            let region = SessionRegion::assume_checked(&childs);
            region.publish(0, pin_for(0));
            let held = Pin { session: &childs, slot: 0 };
            region.set_filled();
            let content = extent.read();
            drop(held);
            assert_eq!(content, 1, "an extent was reused under a forked child");
        })
    };

    let waiting = SessionRegion::assume_checked(&childs).hand_over() == HandOver::Waiting;
    reclaim_fence_with::<All>();
    if waiting && is_pinned(&parents, 0) {
        seen.note("rests on its parent's pin");
    } else if is_pinned(&childs, 0) {
        seen.note("rests on its own pin");
    } else {
        extent.write(2);
        seen.note("reused");
    }
    child.join().unwrap();
}

#[test]
fn an_extent_is_not_reused_under_the_child_of_a_dead_parent() {
    let outcomes = &["rests on its own pin", "rests on its parent's pin", "reused"];
    explore(None, outcomes, hand_over_by_a_dead_parent);
}

// ---------------------------------------------------------------- Death

/// Whether a client's process has ended, as the daemon hears it from the kernel: by the pidfd, or the end of the
/// lifeline. Whatever the process did comes before what whoever hears of its end does; `HEARD` says how it is heard.
struct Death(AtomicU64);

impl Death {
    fn die(&self) {
        self.0.store(1, Ordering::Release);
    }

    fn is_heard(&self, heard: Ordering) -> bool {
        self.0.load(heard) == 1
    }
}

/// Invariant 5. A client dies `AT` some step: while it holds a pin, when it has read, when it has withdrawn it. The
/// daemon reuses the extent when it finds no pin, or hears that whoever held it has ended.
fn death_of_a_reader<const AT: u32, const ORDERED: bool>(seen: &Seen) {
    let session = session_region();
    let extent = Arc::new(Extent::holding(1));
    let death = Arc::new(Death(AtomicU64::new(0)));
    SessionRegion::assume_checked(&session).publish(0, pin_for(0));
    let reader = {
        let (session, extent, death) = (session.clone(), extent.clone(), death.clone());
        thread::spawn(move || {
            if AT > 0 {
                assert_eq!(extent.read(), 1, "an extent was reused under its reader");
            }
            if AT > 1 {
                SessionRegion::assume_checked(&session).withdraw(0);
            }
            death.die();
        })
    };

    reclaim_fence_with::<All>();
    if !is_pinned(&session, 0) {
        extent.write(2);
        seen.note("reused when it was withdrawn");
    } else if death.is_heard(if ORDERED { Ordering::Acquire } else { Ordering::Relaxed }) {
        extent.write(2);
        seen.note("reused when its reader had died");
    } else {
        seen.note("left in limbo");
    }
    reader.join().unwrap();
}

#[test]
fn what_a_dead_process_held_is_reused_and_nothing_of_a_living_one() {
    let holds = &["left in limbo", "reused when its reader had died"];
    explore(None, holds, death_of_a_reader::<0, true>);
    explore(None, holds, death_of_a_reader::<1, true>);
    let all = &["left in limbo", "reused when it was withdrawn", "reused when its reader had died"];
    explore(None, all, death_of_a_reader::<2, true>);
}

#[test]
fn without_the_order_of_a_death_an_extent_is_reused_under_its_reader() {
    assert_eq!(violation_in(death_of_a_reader::<1, false>), Violation::Race);
}

/// Invariant 5. A client dies `AT` some step of its lease: before it writes, when it has written, when it has laid the
/// lease down, when it has claimed it again and written. The daemon takes the lease if it is idle, and ends it if it
/// hears of the death, whatever its state says.
fn death_of_a_writer<const AT: u32, const ORDERED: bool>(seen: &Seen) {
    let session = session_region();
    let bytes = Arc::new(Extent::holding(0));
    let death = Arc::new(Death(AtomicU64::new(0)));
    SessionRegion::assume_checked(&session).lease(0, 7).unwrap().grant();
    let writer = {
        let (session, bytes, death) = (session.clone(), bytes.clone(), death.clone());
        thread::spawn(move || {
            let lease = SessionRegion::assume_checked(&session).lease(0, 7).unwrap();
            if AT > 0 {
                bytes.write(1);
            }
            if AT > 1 {
                lease.lay_down();
            }
            if AT > 2 && lease.claim() == Moved::Yes {
                assert_eq!(bytes.read(), 1, "the daemon wrote into a lease that it has not taken");
                bytes.write(2);
            }
            death.die();
        })
    };

    let lease = SessionRegion::assume_checked(&session).lease(0, 7).unwrap();
    if lease.take() == Moved::Yes {
        bytes.write(3);
        seen.note("taken");
    } else if death.is_heard(if ORDERED { Ordering::Acquire } else { Ordering::Relaxed }) {
        lease.revoke();
        bytes.write(3);
        seen.note("ended with its writer");
    } else {
        seen.note("still the writer's");
    }
    writer.join().unwrap();
    assert!(!lease.is_idle() || AT > 1, "a lease is idle that nobody has laid down");
}

#[test]
fn a_lease_of_a_dead_process_ends_whatever_its_state_says() {
    let ends = &["ended with its writer", "still the writer's"];
    explore(None, ends, death_of_a_writer::<0, true>);
    explore(None, ends, death_of_a_writer::<1, true>);
    let all = &["ended with its writer", "still the writer's", "taken"];
    explore(None, all, death_of_a_writer::<2, true>);
    explore(None, all, death_of_a_writer::<3, true>);
}

#[test]
fn without_the_order_of_a_death_a_lease_is_written_by_two() {
    assert_eq!(violation_in(death_of_a_writer::<1, false>), Violation::Race);
}

// ---------------------------------------------------------------- What the models are made of

enum NoPinFence {}
impl Steps for NoPinFence {
    const PIN_FENCE: bool = false;
}

enum NoReclaimFence {}
impl Steps for NoReclaimFence {
    const RECLAIM_FENCE: bool = false;
}

/// The clock is read after the second look.
enum ClockLast {}

impl Steps for ClockLast {
    const CLOCK_FIRST: bool = false;
}

enum NoMissCheck {}
impl Steps for NoMissCheck {
    const CHECK_MISS: bool = false;
}

/// Explores `model` to the end. `outcomes` are what it must have noted on the way, all of them and no others: a model
/// in which nothing happens would prove nothing.
fn explore(preemptions: Option<usize>, outcomes: &[&'static str], model: fn(&Seen)) {
    let seen = Seen::default();
    run(preemptions, &seen, model);
    let noted = seen.0.lock().unwrap();
    assert_eq!(noted.iter().copied().collect::<Vec<_>>(), outcomes);
}

/// Explores `model` until it fails, and returns what it failed with.
fn violation_in(model: fn(&Seen)) -> Violation {
    let seen = Seen::default();
    let failure = catch_unwind(AssertUnwindSafe(|| run(None, &seen, model)))
        .expect_err("the model holds although a step is left out: it does not show what the step is for");
    let text = match failure.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => (*other.downcast::<&'static str>().expect("panics carry text")).to_owned(),
    };
    if text.starts_with("Causality violation: Concurrent") {
        Violation::Race
    } else {
        Violation::Assertion(text)
    }
}

/// How a model fails.
#[derive(Debug, PartialEq)]
enum Violation {
    /// Loom found a read and a write of an extent that nothing orders.
    Race,
    /// An assertion of the model, with this message.
    Assertion(String),
}

fn run(preemptions: Option<usize>, seen: &Seen, model: fn(&Seen)) {
    ids_by_bucket();
    let executions = Arc::new(AtomicUsize::new(0));
    let count = executions.clone();
    let seen = seen.clone();
    builder(preemptions).check(move || {
        count.fetch_add(1, StdOrdering::Relaxed);
        model(&seen);
    });
    eprintln!("{} executions", executions.load(StdOrdering::Relaxed));
}

fn builder(preemptions: Option<usize>) -> Builder {
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 10_000;
    builder
}

/// What has happened in some execution of a model.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeSet<&'static str>>>);

impl Seen {
    fn note(&self, outcome: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(outcome);
    }
}

/// The bytes of an object. Loom reports a write that is not ordered with every read.
struct Extent(Mutex<Cell<u64>>); // std's mutex, never contended: it tells the compiler what loom already ensures

impl Extent {
    fn holding(content: u64) -> Self {
        Extent(Mutex::new(Cell::new(content)))
    }

    fn read(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get()
    }

    fn write(&self, content: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).set(content);
    }
}

/// A pin, withdrawn when dropped.
struct Pin<'a> {
    session: &'a [AtomicU64],
    slot: u32,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // A model that has failed is over: loom's atomics cannot be used any more.
            SessionRegion::assume_checked(self.session).withdraw(self.slot);
        }
    }
}

fn is_pinned(session: &[AtomicU64], offset: u64) -> bool {
    let mut found = false;
    SessionRegion::assume_checked(session).scan(|pin| found |= offset_of(pin) == Some(offset));
    found
}

fn pin<'a>(session: &'a [AtomicU64], slot: u32, entry: &Entry) -> Result<Pin<'a>, Infallible> {
    SessionRegion::assume_checked(session).publish(slot, pin_for(entry.offset));
    Ok(Pin { session, slot })
}

/// For models in which no extent is reused.
fn no_pin(_: &Entry) -> Result<(), Infallible> {
    Ok(())
}

fn extent_of(entry: &Entry) -> usize {
    usize::try_from(entry.offset / 64).unwrap()
}

const ONE_BUCKET: IndexShape = IndexShape::for_entries(1).unwrap();
const TWO_BUCKETS: IndexShape = IndexShape::for_entries(3).unwrap();

fn index(shape: IndexShape) -> (Arc<[AtomicU64]>, IndexWriter) {
    let words = region(shape.words());
    let writer = IndexWriter::prepare(&words, shape, [0; 16], 1 << 20);
    (words, writer)
}

fn session_region() -> Arc<[AtomicU64]> {
    let words = region(session::words(0));
    SessionRegion::prepare(&words).unwrap();
    words
}

fn region(words: usize) -> Arc<[AtomicU64]> {
    (0..words).map(|_| AtomicU64::new(0)).collect()
}

/// The index as the reader of a model sees it: of an entry only `fields`, the others read as zero.
///
/// The sequence protects all words of an entry alike, so a model need not try all ways to tear all sixteen.
struct Focus<'a> {
    words: &'a [AtomicU64],
    entries_start: usize,
    fields: &'static [usize],
}

impl<'a> Focus<'a> {
    fn on(words: &'a [AtomicU64], shape: IndexShape, fields: &'static [usize]) -> IndexReader<Self> {
        IndexReader::open(Focus { words, entries_start: shape.entry(1).unwrap(), fields }).unwrap()
    }
}

impl Words for Focus<'_> {
    fn count(&self) -> usize {
        self.words.len()
    }

    fn load(&self, index: usize, order: Ordering) -> u64 {
        match index.checked_sub(self.entries_start) {
            Some(distance) if !self.fields.contains(&(distance % entry::WORDS)) => 0,
            _ => self.words[index].load(order),
        }
    }
}

/// An id whose third word is `number` and the others zero, so that one word of an entry tells names apart.
fn id(number: u64) -> NameId {
    let mut bytes = [0; 32];
    bytes[16..24].copy_from_slice(&number.to_le_bytes());
    NameId::from_bytes(bytes)
}

fn object(version: u64, offset: u64) -> Entry {
    Entry {
        version,
        offset,
        len_bytes: version,
        created_ns: 0,
        expires_ns: 0,
        writer_uid: 0,
        header: Header::new(Kind::BYTES),
    }
}

/// Two ids for each of the buckets of [`TWO_BUCKETS`]. The first call must come from outside a model.
fn ids_by_bucket() -> [[NameId; 2]; 2] {
    static IDS: OnceLock<[[NameId; 2]; 2]> = OnceLock::new();
    *IDS.get_or_init(|| {
        let found = Arc::new(Mutex::new([const { Vec::new() }; 2]));
        let ids = found.clone();
        builder(None).check(move || {
            let (words, mut writer) = index(TWO_BUCKETS);
            for id in (1..20).map(id) {
                writer.insert(&words, &id, &object(1, 0)).unwrap();
                let head = words[TWO_BUCKETS.bucket(0) + bucket::HEAD].load(Ordering::Relaxed);
                ids.lock().unwrap()[usize::from(head == 0)].push(id);
                writer.remove(&words, &id).unwrap();
            }
        });
        let found = found.lock().unwrap();
        [0, 1].map(|bucket: usize| [found[bucket][0], found[bucket][1]])
    })
}

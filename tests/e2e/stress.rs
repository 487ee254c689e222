//! Time-independent correctness: readers against a writer, as fast as both can.

use crate::{CLIENT, STORE};
use plasmon::Brain;
use plasmon_tests::{bystander::is_as_before, daemon::Daemon, stress};
use std::process::Command;

/// Invariants 2 and 3: millions of pinned reads of memory that is reused all the time.
#[test]
fn no_pinned_read_sees_reused_memory_and_no_bound_name_is_missed() {
    const ROUNDS: u64 = 1_500;
    const READS_MIN: u64 = 2_000_000;
    // A small arena and few entries, so that both are reused at once.
    let mut daemon = Daemon::start_with(STORE, &["--size", "1MiB", "--max-objects", "8"]);
    let brain = Brain::builder().path(daemon.socket()).connect().expect("the store answers");
    let before = brain.stats().expect("the store answers");
    let mut writer = Command::new(CLIENT)
        .arg("stress-write")
        .arg(daemon.socket())
        .arg(ROUNDS.to_string())
        .spawn()
        .expect("the writer starts");
    let seen = stress::read(daemon.socket(), ROUNDS, READS_MIN);
    assert!(writer.wait().expect("the writer ends").success());
    eprintln!("{seen:?}");
    assert_eq!((seen.violations, seen.false_misses), (0, 0), "{seen:?}");
    assert!(seen.reads >= READS_MIN && seen.versions > u64::from(stress::NAMES), "{seen:?}");
    brain.clear().expect("the store answers");
    is_as_before(&brain, &before);
    assert!(daemon.is_alive());
}

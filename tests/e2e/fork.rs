//! Clients that fork.

use crate::STORE;
use plasmon_tests::daemon::{Daemon, run};

/// Invariant 2 across a fork: what a child inherited rests on its parent's pins, and neither disturbs the other.
#[test]
fn parent_and_child_both_go_on_after_a_fork() {
    let mut daemon = Daemon::start(STORE, "16MiB");
    let socket = daemon.socket().display().to_string();
    let (code, _, stderr) = run(env!("CARGO_BIN_EXE_fork-under-test"), &[&socket]);
    assert_eq!(code, 0, "{stderr}");
    assert!(daemon.is_alive());
}

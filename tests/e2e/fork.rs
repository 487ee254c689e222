//! Clients that fork (invariant 2; `client/src/session/fork.rs` says how). Each scenario is a process of its own, which forks
//! and says whether all was as it must be: `tests/src/bin/fork-under-test.rs`.

use crate::STORE;
use plasmon::Brain;
use plasmon_tests::{
    bystander::is_as_before,
    daemon::{Daemon, run},
};

fn goes_well(scenario: &str, flags: &[&str]) {
    let mut daemon = Daemon::start_with(STORE, &[&["--size", "16MiB"], flags].concat());
    let connect = || Brain::builder().path(daemon.socket()).connect().expect("the store answers");
    let before = connect().stats().expect("the store answers");
    let socket = daemon.socket().display().to_string();
    let (code, _, stderr) = run(env!("CARGO_BIN_EXE_fork-under-test"), &[scenario, &socket]);
    assert_eq!(code, 0, "{stderr}");
    let brain = connect();
    brain.clear().expect("the store answers");
    is_as_before(&brain, &before);
    assert!(daemon.is_alive());
}

#[test]
fn parent_and_child_both_go_on_after_a_fork() {
    goes_well("both-go-on", &[]);
}

#[test]
fn what_a_child_inherited_stays_when_its_parent_lets_go() {
    goes_well("parent-forgets", &[]);
}

#[test]
fn what_a_child_inherited_copy_on_write_stays_when_its_parent_lets_go() {
    goes_well("copy-on-write", &[]);
}

#[test]
fn what_a_child_inherited_stays_with_named_segments_too() {
    goes_well("parent-forgets", &["--arena", "named"]);
}

#[test]
fn what_a_child_inherited_stays_when_its_parent_is_killed() {
    goes_well("parent-dies-first", &[]);
}

#[test]
fn what_a_child_is_about_to_inherit_stays_when_its_parent_lets_go() {
    goes_well("held-up", &[]);
}

#[test]
fn what_a_child_is_about_to_inherit_stays_when_its_parent_is_killed() {
    goes_well("held-up-and-orphaned", &[]);
}

#[test]
fn a_child_that_is_killed_before_it_inherits_keeps_nothing() {
    goes_well("held-up-and-killed", &[]);
}

#[test]
fn a_child_that_becomes_another_program_holds_nothing() {
    goes_well("child-executes", &[]);
}

#[test]
fn what_a_grandchild_inherited_stays_when_the_child_has_ended() {
    goes_well("twice", &[]);
}

#[test]
fn a_child_that_closes_every_descriptor_keeps_what_it_holds() {
    goes_well("daemoniser", &[]);
}

#[test]
fn handles_stay_whatever_other_threads_do_at_the_fork() {
    goes_well("threads", &[]);
}

#[test]
fn every_region_of_pins_is_handed_over() {
    goes_well("many-pins", &[]);
}

#[test]
fn without_a_session_for_the_child_its_parent_keeps_the_pins() {
    goes_well("without-a-session", &["--max-sessions", "1"]);
}

#[test]
fn a_child_and_its_parent_each_write_what_is_theirs() {
    goes_well("unwritten", &[]);
}

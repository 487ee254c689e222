//! The harness of the end-to-end tests: a real daemon in a process of its own, client processes that can be steered
//! and killed, and raw connections that can misbehave.

pub mod bystander;
pub mod cgroup;
pub mod client;
pub mod clock;
pub mod daemon;
pub mod load;
pub mod random;
pub mod raw;
pub mod samples;
pub mod stress;
pub mod worker;

/// What tests return.
pub type TestResult = Result<(), Box<dyn std::error::Error>>;

/// Waits until `holds` is true.
///
/// # Panics
/// If it is not after 30 seconds; `what` says what was waited for.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed().as_secs() < 30, "waited 30 seconds until {what}");
        std::thread::yield_now();
    }
}

//! Somebody who has nothing to do with it: what every failure must leave as it was.

use crate::{client::Client, daemon::Daemon, eventually};
use plasmon::{Brain, Stats};

/// The name that it has for itself.
const NAME: &str = "bystander";

/// A process that used the store before something went wrong, holds an object, and goes on; and what the store had in
/// use when it began.
#[derive(Debug)]
pub struct Bystander {
    client: Client,
    held: String,
    brain: Brain,
    before: Stats,
}

impl Bystander {
    /// Begins, by `program`, before anything goes wrong.
    ///
    /// # Panics
    /// If the store does not serve it.
    #[must_use]
    pub fn start(program: &str, daemon: &Daemon) -> Bystander {
        let mut client = Client::start(program, daemon.socket());
        client.ask(&format!("learn {NAME} 100000 7"));
        let held = client.ask(&format!("hold {NAME}"));
        let brain = Brain::builder().path(daemon.socket()).connect().expect("the store answers");
        let before = brain.stats().expect("the store answers");
        Bystander { client, held, brain, before }
    }

    /// Ends: the daemon lives; this process has noticed nothing; and when what others have learned is forgotten, used
    /// bytes, limbo, pins, waits, leases, sessions, orphans and the daemon's descriptors are back where they were.
    ///
    /// # Panics
    /// If that is not so.
    pub fn was_not_disturbed(mut self, daemon: &mut Daemon) {
        assert!(daemon.is_alive(), "the daemon has ended");
        assert_eq!(self.client.ask("checksums"), self.held, "what it holds has changed");
        assert_eq!(self.client.ask(&format!("ends {NAME}")), "100000 7 0");
        for len in [100, 100_000] {
            self.client.ask(&format!("learn {NAME}-2 {len} 8"));
            assert_eq!(self.client.ask(&format!("ends {NAME}-2")), format!("{len} 8 0"));
        }
        let names = self.brain.list_all("").expect("the store answers");
        let others = names.iter().filter(|it| &*it.name != NAME);
        for found in others {
            let brain = self.brain.in_namespace(&found.namespace).expect("it is one");
            brain.forget(&found.name).expect("the store answers");
        }
        is_as_before(&self.brain, &self.before);
    }
}

/// Waits until nothing is in use that was not when `before` was taken, of all that a failure could leave behind.
///
/// # Panics
/// If something stays in use, or the store does not answer.
pub fn is_as_before(brain: &Brain, before: &Stats) {
    let mut last = ([u64::MAX; 7], u64::MAX);
    eventually("all is as before", || {
        let stats = brain.stats().expect("the store answers");
        let now = (in_use(&stats), stats.descriptors);
        if now != last {
            eprintln!("in use: {now:?}, before ({:?}, {})", in_use(before), before.descriptors);
            last = now;
        }
        // A connection that the store had not yet seen the end of may have counted before.
        now.0 == in_use(before) && now.1 <= before.descriptors
    });
}

/// What has to be the same. The rest of a lease that a client keeps is free.
fn in_use(stats: &Stats) -> [u64; 7] {
    let Stats { used_bytes, limbo_bytes, pins, waits, sessions, orphaned_sessions, objects, .. } = *stats;
    [used_bytes, limbo_bytes, pins, waits, sessions, orphaned_sessions, objects]
}

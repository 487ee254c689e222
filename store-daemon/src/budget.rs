//! How much clients may make the daemon hold: bytes of requests that are incomplete or unanswered, connections, and
//! descriptors.
//!
//! A connection beyond a limit on bytes is read no further until something was answered; one beyond a limit on numbers
//! is refused. Limits apply to each process and uid before they apply to all, so that whoever asks too much
//! is stopped before the others notice.
//!
//! The loop asks [`Connections`] when it accepts a connection, and [`HeldRequests`] when it reads frames and when their
//! requests are answered.

use crate::{commit::kept_entries_max, connection::Peer, fast_hash::FastMap, options::Options};
use bytes::Bytes;
use plasmon_protocol::message::Failure;
use plasmon_protocol::{index_of, limits::PIN_SLOTS, name::NAMESPACE_BYTES_MIN};

/// Bytes that a process may always have on their way, also while others use up what there is in all.
const ALWAYS_BYTES: usize = 128 << 10;

/// No name that is looked up takes less in a frame: lengths of namespace and name, the shortest of both, and a slot.
const NAME_SLOT_BYTES_MIN: usize = 4 + NAMESPACE_BYTES_MIN + 4 + 1 + 4;

/// The longest answer to one name of many.
const FOUND_BYTES: usize = 1 + 8 * 5 + 4 + 40;

/// What an entry of a decoded list takes, beside its bytes in the frame.
const ENTRY_BYTES: usize = 512;

/// Descriptors that are neither of connections nor of sessions: regions, sockets, what helpers open, and some to spare.
const RESERVED_DESCRIPTORS: usize = 64;

/// Fewer descriptors would leave no process the connections that a client with a few threads makes.
pub(crate) const DESCRIPTORS_MIN: u64 = 96;

/// What a request is held against. Given back when it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Who sent it. A process has one limit, however many sessions and connections it has.
    pub(crate) peer: Peer,
    pub(crate) bytes: usize,
}

/// Bytes of requests that are incomplete or unanswered.
#[derive(Debug)]
pub(crate) struct HeldRequests {
    by_process: FastMap<Peer, usize>,
    by_uid: FastMap<u32, usize>,
    bytes: usize,
    process_max: usize,
    uid_max: usize,
    max: usize,
}

impl HeldRequests {
    /// No process holds more than a quarter of what there is in all, and no uid more than half.
    pub(crate) fn new(options: &Options) -> Self {
        HeldRequests::with_max(options.max_held_requests, options.max_held_requests_in_all)
    }

    fn with_max(process_max: usize, max: usize) -> Self {
        HeldRequests {
            by_process: FastMap::default(),
            by_uid: FastMap::default(),
            bytes: 0,
            process_max: process_max.min(max / 4),
            uid_max: max / 2,
            max,
        }
    }

    /// Holds `more`, if it fits. The first request of a process fits its own limit in any case.
    #[must_use]
    pub(crate) fn take(&mut self, more: Held) -> bool {
        let own = self.by_process.get(&more.peer).copied().unwrap_or(0);
        let of_uid = self.by_uid.get(&more.peer.uid).copied().unwrap_or(0);
        let fits_process = own == 0 || own + more.bytes <= self.process_max;
        let fits_others = of_uid + more.bytes <= self.uid_max && self.bytes + more.bytes <= self.max;
        let fits = fits_process && (own + more.bytes <= ALWAYS_BYTES || fits_others);
        if fits {
            self.add(more);
        }
        fits
    }

    /// Holds `more` in any case: what a request turns out to take once it is decoded.
    pub(crate) fn add(&mut self, more: Held) {
        *self.by_process.entry(more.peer).or_default() += more.bytes;
        *self.by_uid.entry(more.peer.uid).or_default() += more.bytes;
        self.bytes += more.bytes;
    }

    pub(crate) fn give_back(&mut self, less: Held) {
        take_some(&mut self.by_process, less.peer, less.bytes);
        take_some(&mut self.by_uid, less.peer.uid, less.bytes);
        self.bytes -= less.bytes;
    }
}

/// What a commit takes beside the bytes of its frame.
pub(crate) fn decoded_commit_bytes(body: &Bytes) -> usize {
    (1 + kept_entries_max(body)) * ENTRY_BYTES
}

/// What the answer takes to a [`FindMany`](plasmon_protocol::message::FindMany) that claims so many names in so many
/// bytes.
pub(crate) fn found_many_bytes(claimed: usize, body_bytes: usize) -> usize {
    ENTRY_BYTES + claimed.min(body_bytes / NAME_SLOT_BYTES_MIN) * FOUND_BYTES
}

/// What any other request takes beside the bytes of its frame.
pub(crate) const DECODED_BYTES: usize = ENTRY_BYTES;

/// Connections, by who made them.
#[derive(Debug)]
pub(crate) struct Connections {
    by_uid: FastMap<u32, usize>,
    by_process: FastMap<Peer, usize>,
    count: usize,
    max: usize,
    uid_max: usize,
    process_max: usize,
}

impl Connections {
    /// `descriptors` is how many the daemon may open: half of them are for connections. No process takes more than a
    /// quarter of what there is, and no uid more than half, whatever the options say.
    pub(crate) fn new(options: &Options, descriptors: usize) -> Self {
        let room = half_of(descriptors);
        if options.max_connections > room {
            tracing::warn!("{descriptors} descriptors (ulimit -n) allow {room} connections");
        }
        Connections {
            by_uid: FastMap::default(),
            by_process: FastMap::default(),
            count: 0,
            max: options.max_connections.min(room),
            uid_max: options.max_connections_per_uid.min(room / 2),
            process_max: options.max_connections_per_process.min(room / 4),
        }
    }

    /// Counts a connection of `peer`.
    ///
    /// # Errors
    /// `TooMany`, which names the limit; it is not counted.
    pub(crate) fn add(&mut self, peer: Peer) -> Result<(), Failure> {
        let too_many = |what: String, limit: usize| Err(Failure::TooMany { what, limit: limit as u64 });
        let Peer { pid, uid } = peer;
        let of_process = self.by_process.get(&peer).copied().unwrap_or(0);
        // Processes that this daemon cannot tell apart (pid 0: another pid namespace) share the limit of their uid.
        if pid != 0 && of_process >= self.process_max {
            let what = format!("connections of process {pid} (--max-connections-per-process, ulimit -n)");
            return too_many(what, self.process_max);
        }
        let of_uid = self.by_uid.get(&uid).copied().unwrap_or(0);
        if of_uid >= self.uid_max {
            let what = format!("connections of uid {uid} (--max-connections-per-uid, ulimit -n)");
            return too_many(what, self.uid_max);
        }
        if self.count >= self.max {
            return too_many("connections (--max-connections, ulimit -n)".to_owned(), self.max);
        }
        self.by_process.insert(peer, of_process + 1);
        self.by_uid.insert(uid, of_uid + 1);
        self.count += 1;
        Ok(())
    }

    pub(crate) fn remove(&mut self, peer: Peer) {
        self.count -= 1;
        take_some(&mut self.by_process, peer, 1);
        take_some(&mut self.by_uid, peer.uid, 1);
    }
}

/// Takes `less` off a count, which is forgotten once it is zero.
pub(crate) fn take_some<K: std::hash::Hash + Eq>(counts: &mut FastMap<K, usize>, key: K, less: usize) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= less;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// As many regions beyond the first of each session has a uid as so many processes may have.
const UID_PROCESSES: usize = 4;

/// How many session regions, of `PIN_SLOTS` pins each, a process may have, and a uid beyond the first of each session.
pub(crate) fn regions_max(pins_max: u32) -> (usize, usize) {
    let of_process = index_of(pins_max.div_ceil(PIN_SLOTS).max(1).into());
    (of_process, UID_PROCESSES * of_process)
}

/// What connections, or sessions, may take of the daemon's descriptors.
pub(crate) fn half_of(descriptors: usize) -> usize {
    descriptors.saturating_sub(RESERVED_DESCRIPTORS) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(pid: u32, uid: u32, bytes: usize) -> Held {
        Held { peer: Peer { pid, uid }, bytes }
    }

    #[test]
    fn a_process_that_asks_too_much_stops_nobody_else() {
        const MIB: usize = 1 << 20;
        let mut requests = HeldRequests::with_max(10 * MIB, 64 * MIB);
        assert!(requests.take(held(1, 7, 16 * MIB)), "the first request of a process, whatever its length");
        assert!(!requests.take(held(1, 7, 1)), "beyond its own limit");
        assert!(requests.take(held(2, 7, 9 * MIB)) && !requests.take(held(2, 7, 2 * MIB)));
        assert!(!requests.take(held(3, 7, 8 * MIB)), "beyond half of all, for one uid");
        assert!(requests.take(held(3, 7, 64 << 10)), "small requests always go");
        while requests.take(held(3, 7, 64 << 10)) {} // beside what the uid holds, while that is below half of all
        assert!(requests.by_uid[&7] <= 32 * MIB && !requests.take(held(3, 7, 1)), "but not without end");
        assert!(
            requests.take(held(5, 7, 128 << 10)) && !requests.take(held(5, 7, 1)),
            "also of another process"
        );
        assert!(requests.take(held(4, 8, 10 * MIB)), "another uid has room");
        for less in [held(1, 7, 16 * MIB), held(2, 7, 9 * MIB), held(4, 8, 10 * MIB), held(5, 7, 128 << 10)] {
            requests.give_back(less);
        }
        let rest = requests.bytes;
        requests.give_back(held(3, 7, rest));
        assert_eq!((requests.bytes, requests.by_process.len(), requests.by_uid.len()), (0, 0, 0));
    }

    #[test]
    fn no_process_has_more_than_a_quarter_whatever_the_options_say() {
        let mut requests = HeldRequests::with_max(64 << 20, 64 << 20);
        assert!(requests.take(held(1, 7, 16 << 20)) && !requests.take(held(1, 7, 1)));
        assert!(requests.take(held(2, 7, 16 << 20)), "another process");
    }

    #[test]
    fn with_the_fewest_descriptors_a_process_has_a_lifeline_and_three_connections() {
        let options = Options::new(1 << 20, "socket".into());
        let descriptors = usize::try_from(DESCRIPTORS_MIN).unwrap();
        let mut connections = Connections::new(&options, descriptors);
        (0..4).for_each(|_| connections.add(Peer { pid: 1, uid: 7 }).unwrap());
    }

    #[test]
    fn a_process_and_a_uid_leave_room_for_others() {
        let mut options = Options::new(1 << 20, "socket".into());
        options.max_connections_per_process = 3;
        let mut connections = Connections::new(&options, RESERVED_DESCRIPTORS + 2 * 20);
        let peer = |pid, uid| Peer { pid, uid };
        (0..3).for_each(|_| connections.add(peer(1, 7)).unwrap());
        let refusal = connections.add(peer(1, 7)).unwrap_err();
        assert!(
            matches!(&refusal, Failure::TooMany { what, limit: 3 } if what.contains("process 1")),
            "{refusal:?}"
        );
        // 20 descriptors are for connections: half of them for one uid.
        (2..9).for_each(|pid| connections.add(peer(pid, 7)).unwrap());
        let refusal = connections.add(peer(9, 7)).unwrap_err();
        assert!(
            matches!(&refusal, Failure::TooMany { what, limit: 10 } if what.contains("uid 7")),
            "{refusal:?}"
        );
        (0..10).for_each(|_| connections.add(peer(0, 8)).unwrap());
        let refusal = connections.add(peer(5, 9)).unwrap_err();
        assert!(matches!(&refusal, Failure::TooMany { limit: 20, .. }), "{refusal:?}");
        connections.remove(peer(1, 7));
        connections.add(peer(1, 7)).unwrap();
    }
}

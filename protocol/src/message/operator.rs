use super::{message, part};
use crate::{codec::BoundedList, limits, name::Namespace};
use alloc::{string::String, vec::Vec};

message! {
    /// Reads the store's figures, after a scan of the pins. Request 30, since protocol 1. Answered by [`Stats`].
    ReadStats = 30 answered by Stats {}
}

message! {
    /// The store's figures at one moment. Reply 31, since protocol 1.
    Stats = 31 {
        /// What the operator asked for, in bytes.
        capacity_bytes: u64,
        /// Bytes of objects, of leases being written and of limbo.
        used_bytes: u64,
        /// Bytes that are neither used nor held back.
        free_bytes: u64,
        /// Largest single extent that can be granted, in bytes.
        largest_free_bytes: u64,
        /// Bytes of objects without a name that a pin still holds.
        limbo_bytes: u64,
        /// Bytes of leases being written.
        leased_bytes: u64,
        /// Bytes of the objects that some pin holds, in limbo or not.
        pinned_bytes: u64,
        /// Bytes populated so far.
        populated_bytes: u64,
        /// Names bound.
        objects: u64,
        /// Most names that can be bound.
        objects_max: u64,
        /// Namespaces.
        namespaces: u64,
        /// Pins held, by all sessions.
        pins: u64,
        /// Sessions, the asking one included.
        sessions: u64,
        /// Sessions whose lifeline is closed while the process lives.
        orphaned_sessions: u64,
        /// Open connections, lifelines included.
        connections: u64,
        /// Leases held.
        leases: u64,
        /// Requests that wait for a name.
        waits: u64,
        /// Version of the last commit.
        version: u64,
        /// Commits since the start.
        commits: u64,
        /// Requests since the start.
        requests: u64,
        /// Requests and frames that were refused as malformed.
        refused: u64,
        /// Bindings that have expired since the start.
        expired: u64,
        /// Bytes in the arena of the objects in cache namespaces.
        cached_bytes: u64,
        /// Bindings of cache namespaces that were unbound to make room since the start.
        evicted: u64,
        /// Bytes in the arena of their objects.
        evicted_bytes: u64,
        /// Seconds since the start.
        uptime_s: u64,
        /// The daemon's pid.
        store_pid: u32,
        /// Resident memory of the daemon, in bytes; shared pages it maps included.
        rss_bytes: u64,
        /// Proportional set size of the daemon, in bytes.
        pss_bytes: u64,
        /// Descriptors the daemon has open.
        descriptors: u64,
        /// Identity of this store.
        store_uuid: [u8; 16],
        /// Learns that were refused since the start, because the store was full or for another reason.
        refused_learns: u64,
        /// The same, by reason and namespace.
        refusals: Vec<RefusedLearns>,
        /// Versions of names that have ended and are kept, for history, snapshots and views.
        kept: u64,
        /// Most of them that can be kept.
        kept_max: u64,
        /// Bytes in the arena of the objects that only they need.
        past_bytes: u64,
        /// Snapshots.
        snapshots: u64,
        /// Views.
        views: u64,
    }
}

part! {
    /// How many learns were refused for one reason.
    RefusedLearns {
        /// The reason in a word: `store_full`, `index_full`, `machine_full` and so on.
        reason: String,
        /// The namespace. `None` where it was not known, as for memory that is asked for in advance, and for all beyond
        /// the first 100.
        namespace: Option<Namespace>,
        /// How many.
        learns: u64,
    }
}

/// One of the store's figures, as [`Stats::figures`] lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// The field's name, which is its name everywhere: in Rust, in Python, in JSON and in tables. What ends in `_bytes`
    /// is bytes, in `_s` seconds.
    pub name: &'static str,
    /// Whether it only rises, from zero at the store's start.
    pub is_counter: bool,
    /// What it says, for people.
    pub meaning: &'static str,
    /// Its value.
    pub value: u64,
}

/// The figures of `$stats`: each a field, a gauge that goes up and down or a counter, and its meaning. A field that is
/// neither listed nor in `without` does not compile.
macro_rules! figures {
    ($stats:expr, without { $($other:ident),* }, $( $field:ident: $kind:ident, $meaning:literal; )*) => {{
        let Stats { $($field,)* $($other: _),* } = *$stats;
        [$( Figure {
            name: stringify!($field),
            is_counter: figures!(@ $kind),
            meaning: $meaning,
            value: $field,
        }, )*]
    }};
    (@ gauge) => { false };
    (@ counter) => { true };
}

impl Stats {
    /// The figures one by one, so that every place that shows them shows all of them, under the same names.
    #[must_use]
    #[rustfmt::skip]
    pub fn figures(&self) -> [Figure; 35] {
        figures! { self, without { store_pid, store_uuid, refusals },
            uptime_s: gauge, "Seconds since the store was started.";
            capacity_bytes: gauge, "Capacity of the store.";
            used_bytes: gauge, "Bytes of objects, forgotten ones that are still held included.";
            free_bytes: gauge, "Bytes that can be granted.";
            largest_free_bytes: gauge, "Largest free piece: the largest object there is room for.";
            limbo_bytes: gauge, "Bytes of forgotten objects that some process still holds.";
            leased_bytes: gauge, "Bytes that are being written.";
            pinned_bytes: gauge, "Bytes of objects that some process holds.";
            populated_bytes: gauge, "Bytes of the arena that are backed by memory of the machine.";
            objects: gauge, "Names that are bound.";
            objects_max: gauge, "Most names that can be bound (--max-objects).";
            namespaces: gauge, "Namespaces.";
            pins: gauge, "Handles that hold an object.";
            sessions: gauge, "Processes that use the store.";
            orphaned_sessions: gauge, "Processes that have left and still hold objects.";
            connections: gauge, "Connections.";
            leases: gauge, "Leases: memory lent to writers.";
            waits: gauge, "Requests that wait for a name.";
            version: counter, "Version of the last commit.";
            commits: counter, "Changes of names.";
            requests: counter, "Requests; recalls that hit need none.";
            refused: counter, "Connections and requests that were refused.";
            refused_learns: counter, "Learns that were refused, because the store was full or for another reason.";
            expired: counter, "Names whose time was over.";
            cached_bytes: gauge, "Bytes of cache namespaces that may give way.";
            evicted: counter, "Names of cache namespaces that gave way.";
            evicted_bytes: counter, "Bytes that they had.";
            kept: gauge, "Versions of names that have ended and are kept, for history, snapshots and views.";
            kept_max: gauge, "Most of them that can be kept (--max-kept).";
            past_bytes: gauge, "Bytes that only they need.";
            snapshots: gauge, "Snapshots.";
            views: gauge, "Views: moments that processes keep for themselves.";
            rss_bytes: gauge, "Resident memory of the daemon, what it shares included.";
            pss_bytes: gauge, "The daemon's share of that memory, where several processes map the same page.";
            descriptors: gauge, "Descriptors that the daemon has open.";
        }
    }
}

message! {
    /// Lists who pins what, a page at a time. Request 32, since protocol 1. Answered by [`PinsPage`].
    ListPins = 32 answered by PinsPage {
        /// Go on after this place, the `next` of the page before.
        after: Option<PinPlace>,
    }
}

part! {
    /// Where a page of pins ends.
    PinPlace {
        /// The session's number.
        session: u64,
        /// Offset of the object, in bytes.
        offset: u64,
    }
}

message! {
    /// One page of pins, ordered by session, then by object. Reply 33, since protocol 1.
    PinsPage = 33 {
        /// The pins.
        pins: Vec<PinInfo>,
        /// Where the next page goes on; `None` on the last one.
        next: Option<PinPlace>,
    }
}

part! {
    /// The pins of one session on one object.
    PinInfo {
        /// Process of the session, as the daemon sees it.
        pid: u32,
        /// Its uid, as the daemon sees it.
        uid: u32,
        /// Its command name, if /proc told.
        command: String,
        /// Whether the session's lifeline is closed while its process lives.
        orphaned: bool,
        /// Seconds since the session began.
        session_age_s: u64,
        /// `NAMESPACE/NAME` of the object; for one without a name any more, that which it last had.
        name: String,
        /// Whether the object has lost its name.
        limbo: bool,
        /// Version of the binding that made the object.
        version: u64,
        /// Length of the object, in bytes.
        len_bytes: u64,
        /// Slots of the session that name it.
        pins: u32,
        /// Seconds since the daemon first saw the pin in a scan.
        seen_for_s: u64,
    }
}

message! {
    /// Ends a process that holds memory, with SIGKILL; what its sessions held is free once the kernel has ended it.
    ///
    /// Request 34, since protocol 1. For the store's own uid and root. Answered by [`Kicked`], or by failure
    /// `NotAdmitted` or `UnknownProcess`: the process must have a session here.
    Kick = 34 answered by Kicked {
        /// The process, as the daemon sees it.
        pid: u32,
    }
}

message! {
    /// The process was sent the signal, or had ended before. Reply 35, since protocol 1.
    Kicked = 35 {
        /// Sessions it had.
        sessions: u32,
    }
}

impl BoundedList for RefusedLearns {
    const ITEMS_MAX: u32 = limits::REFUSALS_MAX;
}

impl BoundedList for PinInfo {
    const ITEMS_MAX: u32 = limits::PAGE_PINS_MAX;
}

use super::{choice, message};
use alloc::{string::String, vec::Vec};

/// First eight bytes of the first frame's body on every connection, whatever the version: `"PLASMON\0"`.
pub const MAGIC: [u8; 8] = *b"PLASMON\0";

/// Version of the protocol that this crate speaks.
pub const VERSION: u32 = 1;

choice! {
    /// What a connection is for.
    Role {
        /// Begins a session; this connection becomes its lifeline and carries nothing after the reply.
        1 = Lifeline,
        /// Joins the session with this token; requests follow.
        2 = Requests {
            /// The token from [`Welcome`] or [`ChildAdded`].
            token: [u8; 16],
        },
        /// Begins a session for a child that the process behind this token is about to fork; this connection becomes
        /// its lifeline. Until the child has filled its session region, its handles rest on its parent's pins. The
        /// first connection that joins with the child's token tells the store which process the child is.
        3 = Child {
            /// The token of the parent's session.
            token: [u8; 16],
            /// How many session regions the child needs: as many as its parent has.
            regions: u32,
        },
    }
}

message! {
    /// The first message on every connection.
    ///
    /// Request 2, since protocol 1. Magic and version keep their place in every version, so that a mismatch can be
    /// refused with both versions named. Answered by [`Welcome`] (a lifeline; with the descriptors of index, arena,
    /// session region and, if [`Welcome::writable`], of the writable arena, in this order), by [`Attached`]
    /// (a connection for requests), by [`ChildAdded`] (a child's lifeline; with the descriptors of its session
    /// regions), or by failure `VersionMismatch`, `NotAdmitted`, `TooMany` or `UnknownSession`.
    Hello = 2 answered by Welcome {
        /// [`MAGIC`].
        magic: [u8; 8],
        /// [`VERSION`] of the client.
        version: u32,
        /// What the connection is for.
        role: Role,
    }
}

message! {
    /// The session that was begun. Reply 3, since protocol 1.
    Welcome = 3 {
        /// Version of the protocol that the store speaks.
        version: u32,
        /// Number of the session, unique while the store lives.
        session_id: u64,
        /// What other connections show to join this session.
        token: [u8; 16],
        /// Identity of this store: changes with every start.
        store_uuid: [u8; 16],
        /// The client's uid as the daemon sees it. Trust compares with this number, never with `getuid()`.
        uid: u32,
        /// The store's pid, as it sees itself.
        store_pid: u32,
        /// The daemon's CLOCK_BOOTTIME now, in nanoseconds.
        boottime_ns: u64,
        /// Capacity of the arena, in bytes: what the operator asked for.
        capacity_bytes: u64,
        /// Length of the arena region, in bytes.
        arena_bytes: u64,
        /// Length of the index region, in bytes.
        index_bytes: u64,
        /// Length of each session region, in bytes.
        session_bytes: u64,
        /// Most pins the client may hold, over all its regions.
        pins_max: u32,
        /// Whether the client may write its leases in the arena; if not, each comes with a region to be written instead.
        writable: bool,
        /// Whether granted pages are populated already, so that mapping them eagerly costs no memory. Not so with
        /// `--reserve lazy`.
        populated: bool,
        /// Names of the regions index, arena, session, where they are named segments; empty where descriptors were
        /// passed.
        region_names: Vec<String>,
    }
}

message! {
    /// The connection belongs to the session now. Reply 5 to [`Hello`], since protocol 1.
    Attached = 5 {
        /// Number of the session.
        session_id: u64,
    }
}

message! {
    /// The session of a child that is about to be forked. Reply 7 to [`Hello`], since protocol 1.
    ///
    /// Index and arena are those of its parent, which it inherits; so is all else that [`Welcome`] said.
    ChildAdded = 7 {
        /// Number of the session.
        session_id: u64,
        /// What the child's connections show to join this session.
        token: [u8; 16],
        /// Names of its session regions, where they are named segments; empty where descriptors were passed.
        region_names: Vec<String>,
    }
}

message! {
    /// The client needs nothing any more, it says. Its leases and waits end.
    ///
    /// Pins stay: the session ends when a scan that begins after this finds none, or with the process. Request 6, since
    /// protocol 1. Not answered; the store closes the session's connections.
    Goodbye = 6 {}
}

impl crate::codec::BoundedList for String {
    const ITEMS_MAX: u32 = 64;
}

/// The version that the first message of a connection claims, if it is a [`Hello`] of any version: magic and version
/// keep their place in all of them.
#[must_use]
pub fn hello_version(kind: u16, body: &[u8]) -> Option<u32> {
    let rest = body.strip_prefix(&MAGIC)?;
    let version = rest.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes))?;
    (kind == <Hello as super::Message>::KIND).then_some(version)
}

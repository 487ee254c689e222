use super::message;

message! {
    /// Asks for a lease: whole pages of free arena to write an object into.
    ///
    /// Request 10, since protocol 1. The answer may wait until the pages are populated. Answered by [`Granted`], or
    /// by failure `StoreFull`, `TooMany` or, for 0 bytes, `TooLarge`.
    Reserve = 10 answered by Granted {
        /// Bytes wanted, at least 1; rounded up to whole pages.
        len_bytes: u64,
    }
}

message! {
    /// A lease. Reply 11, since protocol 1.
    ///
    /// A session that is not [`writable`](crate::message::Welcome::writable) gets one descriptor with it: a region as
    /// long as the lease, to be written in its place. When a commit names a piece of the lease, the store copies the
    /// bytes that are at the same distance from the region's beginning into the arena.
    Granted = 11 {
        /// The lease's number, unique while the store lives.
        lease: u64,
        /// Its state word in the session region, below [`LEASE_SLOTS`](crate::limits::LEASE_SLOTS). The daemon set it
        /// to busy.
        slot: u32,
        /// Offset in the arena, in bytes, a multiple of the page size.
        offset: u64,
        /// Length in bytes: whole pages, but for a lease that ends where the arena ends.
        len_bytes: u64,
    }
}

message! {
    /// Asks for a longer lease: extended in place, or a new one for what is to come.
    ///
    /// Request 12, since protocol 1. If the offset in the answer is the old one, the lease was extended in place;
    /// else the answer is another lease, to which the client copies what it has written, and the old one still
    /// stands until the client ends it. A region that comes with the answer is a new one in any case. Answered by [`Granted`], or by failure `StoreFull`, `BadLease` or `TooMany`.
    ExtendLease = 12 answered by Granted {
        /// The lease.
        lease: u64,
        /// Bytes wanted in all.
        len_bytes: u64,
    }
}

message! {
    /// Ends a lease that the client has unmapped; what was not committed of it is free again.
    ///
    /// Request 14, since protocol 1. Answered by [`LeaseEnded`], or by failure `BadLease`.
    EndLease = 14 answered by LeaseEnded {
        /// The lease.
        lease: u64,
    }
}

message! {
    /// The lease has ended. Reply 15, since protocol 1.
    LeaseEnded = 15 {}
}

message! {
    /// Asks for another session region, for its pin slots only: the slots of the others are in use.
    ///
    /// Request 16, since protocol 1. Answered by [`RegionAdded`] with one descriptor, or by failure `TooMany`.
    AddRegion = 16 answered by RegionAdded {}
}

message! {
    /// A further session region. Reply 17, since protocol 1.
    RegionAdded = 17 {
        /// Its number in the session, from 1.
        region: u32,
        /// Its name, where it is a named segment; empty where a descriptor was passed.
        name: alloc::string::String,
    }
}

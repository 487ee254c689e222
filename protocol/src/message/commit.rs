use super::{History, choice, message, part};
use crate::{
    codec::{BoundedList, Codec, DecodeError, ListReader, Reader},
    limits,
    name::{Label, Name, Namespace},
    object::Header,
};
use alloc::{string::String, vec::Vec};
use bytes::Bytes;

message! {
    /// Changes bindings: the only mutation there is. All of it happens or nothing does.
    ///
    /// Request 8, since protocol 1. A commit without changes only has its conditions checked: it gets no version, and is
    /// answered with the last one. All conditions are checked first, at one moment, then all room is taken, then
    /// everything becomes visible; a name may be changed once. Answered by [`Committed`], or by failure
    /// `ConditionFailed`, `ConditionsFailed`, `StoreFull`, `IndexFull`, `UnknownNamespace`, `DefaultNamespace`, `BadLease`, `IdTaken`,
    /// `NamedTwice`, `NamespaceInUse`, `NotBound` or `TooLarge`, after which nothing has changed but that the leases in
    /// `end_leases` have ended.
    Commit = 8 answered by Committed {
        /// What must hold.
        conditions: Vec<Condition>,
        /// What changes.
        changes: Vec<Change>,
        /// Leases that end with this commit, whether it succeeds or not: the client has unmapped them. What the
        /// changes do not name of them is free again.
        end_leases: Vec<u64>,
    }
}

impl Commit {
    /// Begins to read a body piece by piece: first its conditions, then its [changes](Self::changes), then the
    /// [leases that end](Self::end_leases).
    ///
    /// # Errors
    /// [`DecodeError`], which names the field.
    pub fn conditions(body: Bytes) -> Result<ListReader<Condition>, DecodeError> {
        let mut reader = Reader::new(body);
        reader.enter("conditions");
        ListReader::begin(reader)
    }

    /// The changes, behind all conditions.
    ///
    /// # Errors
    /// [`DecodeError`], which names the field.
    pub fn changes(conditions: ListReader<Condition>) -> Result<ListReader<Change>, DecodeError> {
        let mut reader = conditions.rest();
        reader.enter("changes");
        ListReader::begin(reader)
    }

    /// The leases that end, behind all changes; nothing may follow.
    ///
    /// # Errors
    /// [`DecodeError`], which names the field.
    pub fn end_leases(changes: ListReader<Change>) -> Result<Vec<u64>, DecodeError> {
        let mut reader = changes.rest();
        reader.enter("end_leases");
        let leases = Vec::decode(&mut reader)?;
        reader.finish()?;
        Ok(leases)
    }
}

message! {
    /// A [`Commit`] that is too long for a frame: its body stands in a lease of the session.
    ///
    /// Request 36, since protocol 1. The store copies the body before it looks at it, so changing it later changes
    /// nothing; from there everything is as with a [`Commit`], whose `end_leases` may name this lease too. The store
    /// works on one such body at a time, others wait. Answered by [`Committed`], or by the failures of [`Commit`];
    /// after `Malformed`, `BadLease` for this lease or `TooLarge` for this body the leases have not ended.
    LongCommit = 36 answered by Committed {
        /// The lease.
        lease: u64,
        /// Where the body begins: an offset in the arena, in bytes, a multiple of 64 inside the lease.
        offset: u64,
        /// Length of the body in bytes: 1 to [`limits::COMMIT_BYTES_MAX`].
        len_bytes: u64,
    }
}

message! {
    /// The commit is visible. Reply 9, since protocol 1.
    Committed = 9 {
        /// The commit's version: that of every binding it made. Of a commit without changes the version of the last change.
        version: u64,
        /// Names that were unbound.
        unbound: u64,
        /// Bytes in the arena of the objects that nothing needs any more: they are free once no pin holds them.
        unbound_bytes: u64,
    }
}

part! {
    /// What must hold for a commit to happen.
    Condition {
        /// Namespace of the name.
        namespace: Namespace,
        /// The name.
        name: Name,
        /// What must hold for it.
        expect: Expect,
    }
}

choice! {
    /// What must hold for a name.
    Expect {
        /// It is not bound, or its binding has expired.
        1 = Absent,
        /// It is bound, with exactly this version.
        2 = Version {
            /// The version.
            version: u64,
        },
        /// It is bound.
        3 = Present,
        /// No name of its namespace was bound or unbound since: the name itself is of no account. What has expired counts
        /// as unbound. A namespace that is unknown, or was made since, was not changed if no namespace was removed since.
        4 = NamespaceUnchanged {
            /// The version that was the last one when the names were listed.
            since: u64,
        },
    }
}

choice! {
    /// One change of a commit.
    Change {
        /// Binds a name to a new object.
        1 = Bind(bind: Bind),
        /// Unbinds a name; nothing happens if it is not bound.
        2 = Unbind {
            /// Namespace of the name.
            namespace: Namespace,
            /// The name.
            name: Name,
        },
        /// Unbinds all names of a namespace and removes it. The namespace must exist and must not be `default`.
        3 = RemoveNamespace {
            /// The namespace.
            namespace: Namespace,
        },
        /// Unbinds all names of a namespace and keeps it.
        4 = ClearNamespace {
            /// The namespace.
            namespace: Namespace,
        },
        /// Makes sure that a namespace exists.
        5 = RegisterNamespace {
            /// The namespace.
            namespace: Namespace,
        },
        /// Declares what holds for a namespace, in the place of what was declared before; registers it if it is new.
        /// It holds until the namespace is removed.
        6 = DeclareNamespace {
            /// The namespace.
            namespace: Namespace,
            /// Whether it is a cache: its bindings may be unbound when room is short.
            is_cache: bool,
            /// Time to live of bindings that are made from now on and name none; `None` has no end.
            ttl: Option<Ttl>,
        },
        /// Binds a name to a new object for as long as the session lives that commits it: the name is unbound when the
        /// client says goodbye, or its process ends. It does not give way in a cache, and counts as any other binding
        /// otherwise; rebound, it is what the last change made of it.
        7 = BindEphemeral(bind: Bind),
        /// Removes a namespace that has no names. The namespace must exist and must not be `default`; failure
        /// `NamespaceInUse` if a name is bound in it.
        8 = RemoveEmptyNamespace {
            /// The namespace.
            namespace: Namespace,
        },
        /// Makes sure that a namespace exists and is a cache; what else was declared for it stays.
        9 = EnsureCache {
            /// The namespace.
            namespace: Namespace,
        },
        /// As `Bind`, but a name that is bound keeps its time to live and its deadline, or that it has none. For a name
        /// that is not bound, `ttl` is what it is for `Bind`.
        10 = Replace(bind: Bind),
        /// Binds a name to an object that another name is bound to, or was. No bytes move.
        11 = SameAs(same: SameAs),
        /// Declares what is kept of the versions of a namespace's names that have ended, in the place of what was declared
        /// before; `None` is nothing. Registers the namespace if it is new.
        12 = DeclareHistory {
            /// The namespace.
            namespace: Namespace,
            /// What is kept.
            history: Option<History>,
        },
        /// Drops what history keeps of a name. What snapshots and views want of it stays.
        13 = PurgeHistory {
            /// Namespace of the name.
            namespace: Namespace,
            /// The name.
            name: Name,
        },
        /// Makes every name of a namespace what it was at the moment of a snapshot: names that were not bound then are
        /// unbound. Names that mean the same object as then keep their binding.
        14 = RestoreNamespace {
            /// The namespace: one of the snapshot's.
            namespace: Namespace,
            /// The snapshot's label.
            label: Label,
        },
    }
}

impl Change {
    /// The binding that it makes of bytes or a value of its own, if it makes one.
    #[must_use]
    pub fn bind(&self) -> Option<&Bind> {
        match self {
            Change::Bind(bind) | Change::BindEphemeral(bind) | Change::Replace(bind) => Some(bind),
            _ => None,
        }
    }

    /// The name that it binds, if it binds one.
    #[must_use]
    pub fn bound_name(&self) -> Option<(&Namespace, &Name)> {
        match self {
            Change::SameAs(same) => Some((&same.namespace, &same.name)),
            _ => self.bind().map(|bind| (&bind.namespace, &bind.name)),
        }
    }

    /// As [`bind`](Self::bind), to be changed.
    pub fn bind_mut(&mut self) -> Option<&mut Bind> {
        match self {
            Change::Bind(bind) | Change::BindEphemeral(bind) | Change::Replace(bind) => Some(bind),
            _ => None,
        }
    }
}

part! {
    /// A name, and the name whose object it gets. The namespace is registered if it is new.
    ///
    /// The source is what its name is bound to right before the commit, whatever else the commit changes: two names can be
    /// swapped. The binding gets the source's header and the uid of who wrote its bytes, and the object stays the same.
    SameAs {
        /// Namespace of the name.
        namespace: Namespace,
        /// The name.
        name: Name,
        /// Description for people; `None` takes the source's, an empty one clears it.
        description: Option<String>,
        /// User metadata, the text of a JSON object; `None` takes the source's, an empty text clears it.
        metadata: Option<String>,
        /// How long the binding lives.
        lives: Lives,
        /// Namespace of the source.
        of_namespace: Namespace,
        /// Name of the source.
        of_name: Name,
        /// The moment at which the source had the binding that is meant: the number of a commit. `None` means its binding
        /// of now.
        at: Option<u64>,
    }
}

choice! {
    /// How long a binding lives that is made of another one.
    Lives {
        /// As long as its namespace has declared.
        1 = AsDeclared,
        /// So long, from the moment of the commit.
        2 = For(ttl: Ttl),
        /// As long as the source: it gets the source's time to live and deadline, and ends with the session that the
        /// source ends with. Of a binding that has ended, it gets neither.
        3 = AsSource,
    }
}

part! {
    /// How long a binding lives.
    Ttl {
        /// Its time to live, in nanoseconds, at least 1. What the store's clock cannot express has no end.
        ttl_ns: u64,
        /// Whether a recall begins the time anew. Recalls are collected about once a second, so such a binding expires
        /// between `ttl_ns` and `ttl_ns` and [`limits::SLIDING_SLACK_NS`] and about a second after its last recall.
        is_sliding: bool,
    }
}

part! {
    /// A name and its new object. The namespace is registered if it is new.
    Bind {
        /// Namespace of the name.
        namespace: Namespace,
        /// The name.
        name: Name,
        /// Description for people; `None` keeps the one the name has, an empty one clears it.
        description: Option<String>,
        /// User metadata, the text of a JSON object; `None` keeps what the name has, an empty text clears it.
        metadata: Option<String>,
        /// Kind and shortcuts.
        header: Header,
        /// How long the binding lives, from the moment of the commit; `None` as long as the namespace has declared.
        ttl: Option<Ttl>,
        /// The object's bytes: an Arrow IPC file, unless the value stands in the header.
        payload: Payload,
    }
}

choice! {
    /// Where the bytes of a new object are.
    Payload {
        /// In the message: at least 1 and at most [`limits::INLINE_BYTES_MAX`] bytes.
        1 = Inline {
            /// The bytes.
            bytes: Bytes,
        },
        /// In a lease of this session.
        2 = Leased {
            /// The lease.
            lease: u64,
            /// Offset in the arena, in bytes: a multiple of 64 inside the lease.
            offset: u64,
            /// Length in bytes, at least 1. Pieces of one lease are disjoint.
            len_bytes: u64,
        },
        /// Nowhere: the value stands in the header, which says so with [`Flags::INLINE`](crate::object::Flags::INLINE).
        /// A header that does has no other payload.
        3 = InHeader,
        /// Where those of an earlier change of this commit are, which brings bytes: both names are bound to one object.
        4 = AsChange {
            /// The change, counted from 0.
            index: u32,
        },
    }
}

impl BoundedList for Condition {
    const ITEMS_MAX: u32 = limits::COMMIT_ENTRIES_MAX;
}

impl BoundedList for Change {
    const ITEMS_MAX: u32 = limits::COMMIT_ENTRIES_MAX;
}

impl BoundedList for u64 {
    const ITEMS_MAX: u32 = limits::LEASE_SLOTS;
}

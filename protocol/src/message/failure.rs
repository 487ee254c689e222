use super::{Expect, choice, message, part};
use crate::{
    codec::BoundedList,
    limits,
    name::{Label, Name, Namespace},
};
use alloc::{boxed::Box, string::String, vec::Vec};

message! {
    /// Why a request did not do what was asked. Reply 1 to any request, since protocol 1.
    Failed = 1 {
        /// The reason.
        failure: Failure,
    }
}

part! {
    /// The figures of a full store.
    NoRoom {
        /// Bytes that were asked for.
        requested_bytes: u64,
        /// Capacity of the store.
        capacity_bytes: u64,
        /// Bytes used, limbo included.
        used_bytes: u64,
        /// Bytes free.
        free_bytes: u64,
        /// Largest extent that can be granted.
        largest_free_bytes: u64,
        /// Bytes without a name that pins still hold.
        limbo_bytes: u64,
        /// Bytes in the arena of the objects in cache namespaces: unbinding all of them would not have been enough.
        cached_bytes: u64,
        /// Set if there is room in the arena but not enough memory in the machine to populate it: what was
        /// populated so far.
        populated_bytes: Option<u64>,
        /// The processes that hold most of limbo, largest first.
        holders: Vec<Holder>,
    }
}

part! {
    /// A process that holds memory no name refers to.
    Holder {
        /// The process, as the daemon sees it.
        pid: u32,
        /// Its command name, if /proc told.
        command: String,
        /// Bytes it holds in limbo.
        bytes: u64,
    }
}

choice! {
    /// Why a request did not do what was asked.
    Failure {
        /// Client and store speak different versions.
        1 = VersionMismatch {
            /// The client's.
            client: u32,
            /// The store's.
            store: u32,
        },
        /// This uid may not do this.
        2 = NotAdmitted {
            /// The client's uid as the daemon sees it.
            uid: u32,
            /// The store's own.
            store_uid: u32,
        },
        /// A limit on a number of things is reached.
        3 = TooMany {
            /// What there are too many of, and the option that sets the limit.
            what: String,
            /// The limit.
            limit: u64,
        },
        /// No session has this token: it has ended.
        4 = UnknownSession,
        /// The message could not be read.
        5 = Malformed {
            /// Which field, and what was found.
            reason: String,
        },
        /// The number of the message is unknown to this version.
        6 = UnknownRequest {
            /// The number.
            kind: u16,
        },
        /// A condition did not hold.
        7 = ConditionFailed {
            /// Namespace of the name.
            namespace: Namespace,
            /// The name.
            name: Name,
            /// What the condition asked for.
            expect: Expect,
            /// The version the name has; `None` if it is not bound.
            found: Option<u64>,
        },
        /// The objects do not fit. Nothing has changed.
        8 = StoreFull(room: NoRoom),
        /// There are as many names as the index can hold.
        9 = IndexFull {
            /// New names that the commit needs.
            requested: u64,
            /// Names bound.
            used: u64,
            /// Most names that can be bound (`--max-objects`).
            limit: u64,
        },
        /// There is no such namespace.
        10 = UnknownNamespace {
            /// The namespace.
            namespace: Namespace,
        },
        /// The namespace `default` cannot be removed.
        11 = DefaultNamespace,
        /// The lease is not this session's, has ended, or was asked for more than it has.
        12 = BadLease {
            /// The lease.
            lease: u64,
            /// What was wrong.
            reason: String,
        },
        /// Another namespace or name has the same id.
        13 = IdTaken {
            /// What was asked for.
            wanted: String,
            /// What has the id.
            holder: String,
        },
        /// One commit changes a name twice.
        14 = NamedTwice {
            /// Namespace of the name.
            namespace: Namespace,
            /// The name.
            name: Name,
        },
        /// Something is longer than allowed.
        15 = TooLarge {
            /// What.
            what: String,
            /// Its length in bytes.
            found_bytes: u64,
            /// The limit in bytes.
            limit_bytes: u64,
        },
        /// The pin slot is not free or does not exist.
        16 = BadSlot {
            /// The slot.
            slot: u32,
        },
        /// The time ran out before the name was bound.
        17 = WaitTimeout,
        /// No session of this process is known.
        19 = UnknownProcess {
            /// The process.
            pid: u32,
        },
        /// The store is shutting down; nothing has changed.
        20 = ShuttingDown,
        /// Something failed in the daemon that is not the client's fault.
        21 = Internal {
            /// What, for the log and for a report.
            reason: String,
        },
        /// The namespace that was to be removed if it is empty is not. Nothing has changed.
        22 = NamespaceInUse {
            /// The namespace.
            namespace: Namespace,
            /// Names bound in it.
            names: u64,
        },
        /// A name that is to share its object is not bound, or was not at the moment that is meant. Nothing has changed.
        23 = NotBound {
            /// Namespace of the name.
            namespace: Namespace,
            /// The name.
            name: Name,
        },
        /// Several conditions did not hold. Nothing has changed.
        24 = ConditionsFailed {
            /// Those that come first, at most [`limits::FAILED_CONDITIONS_MAX`].
            failed: Vec<FailedCondition>,
            /// How many more there are.
            more: u64,
        },
        /// There is a snapshot with this label. Drop it first, or take another label.
        25 = SnapshotExists {
            /// The label.
            label: Label,
        },
        /// There is no snapshot with this label, or the namespace is none of its.
        26 = SnapshotNotFound {
            /// The label.
            label: Label,
        },
        /// This session has no such view, or nobody holds that moment: it has ended.
        27 = ViewEnded {
            /// The number of the view, or of the moment.
            view: u64,
        },
        /// A cache has no past: it has neither history nor snapshots.
        28 = CacheHasNoPast {
            /// The namespace.
            namespace: Namespace,
        },
        /// More bindings that have ended would have to be kept than can be. Nothing has changed.
        29 = TooManyKept {
            /// The namespace of the names that change.
            namespace: Namespace,
            /// Bindings that would end and have to be kept.
            requested: u64,
            /// Bindings that are kept.
            kept: u64,
            /// Most bindings that can be kept (`--max-kept`).
            limit: u64,
        },
        /// The objects do not fit, and the past has some of what is used. Nothing has changed.
        30 = FullOfPast(full: Box<FullOfPast>),
    }
}

part! {
    /// The figures of a full store, some of which only the past keeps.
    FullOfPast {
        /// The figures of a full store.
        room: NoRoom,
        /// Bytes of objects that only the past keeps.
        past_bytes: u64,
        /// For whom, those first that keep most.
        keepers: Vec<Keeper>,
    }
}

impl Failure {
    /// The figures of a full store, if that is the reason.
    #[must_use]
    pub fn no_room(&self) -> Option<&NoRoom> {
        match self {
            Failure::StoreFull(room) => Some(room),
            Failure::FullOfPast(full) => Some(&full.room),
            _ => None,
        }
    }
}

choice! {
    /// Who keeps something of the past.
    Keeper {
        /// The history of a namespace.
        1 = History {
            /// The namespace.
            namespace: Namespace,
            /// Bytes of the versions that it keeps.
            bytes: u64,
        },
        /// A snapshot.
        2 = Snapshot {
            /// Its label.
            label: Label,
            /// Bytes of the versions that are kept with its moment as the last one that wants them.
            bytes: u64,
        },
        /// A view.
        3 = View {
            /// Its number.
            view: u64,
            /// Process that holds it, as the daemon sees it.
            pid: u32,
            /// Its command name, if /proc told.
            command: String,
            /// As of a snapshot.
            bytes: u64,
        },
    }
}

impl BoundedList for Keeper {
    const ITEMS_MAX: u32 = 16;
}

part! {
    /// A condition that did not hold.
    FailedCondition {
        /// Namespace of the name.
        namespace: Namespace,
        /// The name.
        name: Name,
        /// What the condition asked for.
        expect: Expect,
        /// The version the name has; `None` if it is not bound. Where the namespace has changed, the version of that change.
        found: Option<u64>,
    }
}

impl BoundedList for FailedCondition {
    const ITEMS_MAX: u32 = limits::FAILED_CONDITIONS_MAX;
}

impl BoundedList for Holder {
    const ITEMS_MAX: u32 = 16;
}

use super::{Found, Ttl, choice, message, part};
use crate::{
    codec::BoundedList,
    limits,
    name::{Label, Name, Namespace},
    object::Kind,
};
use alloc::{string::String, vec::Vec};

part! {
    /// What is kept of the versions of a namespace's names that have ended. Each bound that is `None` is none.
    History {
        /// So many versions of each name, besides the one it has. At least 1.
        versions: Option<u32>,
        /// So long after each ended, in nanoseconds. At least 1.
        age_ns: Option<u64>,
        /// So many bytes of all names together. A version counts with the bytes that its successor does not show.
        bytes: Option<u64>,
    }
}

choice! {
    /// Why a binding ended.
    Reason {
        /// The name was bound anew.
        1 = Rebound,
        /// The name was unbound.
        2 = Forgotten,
        /// Its time was over, or its session.
        3 = Expired,
        /// It gave way in a cache.
        4 = Evicted,
        /// Its namespace was cleared or removed.
        5 = Cleared,
    }
}

impl Copy for Reason {}

message! {
    /// Begins a view: a moment that the store keeps for this session, until the session ends or [`EndHold`] says so.
    ///
    /// Request 48, since protocol 1. Answered by [`ViewBegun`], or by failure `SnapshotNotFound`, `ViewEnded` (for a moment
    /// that no view holds) or `TooMany`. For the moment that is now it waits until no commit is under way, and until all is
    /// unbound that had expired.
    BeginView = 48 answered by ViewBegun {
        /// Which moment.
        at: MomentOf,
    }
}

choice! {
    /// The moment of a view.
    MomentOf {
        /// The one that is now.
        1 = Now,
        /// That of a snapshot: the view shows the snapshot's namespaces, and keeps them when the snapshot is dropped.
        2 = Snapshot {
            /// Its label.
            label: Label,
        },
        /// One that a view of another session holds.
        3 = Held {
            /// Its number.
            moment: u64,
        },
    }
}

message! {
    /// The view has begun. Reply 49, since protocol 1.
    ViewBegun = 49 {
        /// Its number, never used twice while the store lives.
        view: u64,
        /// The number of the last change that it shows.
        moment: u64,
        /// When the moment was taken: the daemon's CLOCK_BOOTTIME, in nanoseconds. An index entry whose version is at most
        /// the moment's, and which had not expired by then, is what the name was bound to.
        taken_ns: u64,
        /// The namespaces that it shows; empty for all.
        namespaces: Vec<Namespace>,
    }
}

message! {
    /// Ends a view. Request 50, since protocol 1. Answered by [`HoldEnded`], or by failure `ViewEnded` or `NotAdmitted`: who is
    /// neither its session nor of the store's own uid or root may not end it.
    EndHold = 50 answered by HoldEnded {
        /// The view's number.
        view: u64,
    }
}

message! {
    /// The view has ended, or the snapshot is gone. Reply 51, since protocol 1. What only it kept is free as soon as the
    /// store has looked at it, and no pin holds it.
    HoldEnded = 51 {}
}

message! {
    /// Looks up what a name was bound to, and pins its object for the client.
    ///
    /// Request 52, since protocol 1. Never waits for a commit. Answered by [`Found`], or by failure `BadSlot`
    /// or `ViewEnded`. In a cache, which has no past, it finds what the name is bound to now.
    FindAt = 52 answered by Found {
        /// Namespace of the name.
        namespace: Namespace,
        /// The name.
        name: Name,
        /// When.
        at: When,
        /// As in [`Find::slot`](super::Find::slot).
        slot: u32,
    }
}

choice! {
    /// Which moment a look into the past is at.
    When {
        /// That of a view of this session.
        1 = View {
            /// Its number.
            view: u64,
        },
        /// Right after the change of this number, as far as what was bound then is kept.
        2 = Version {
            /// The number.
            version: u64,
        },
    }
}

message! {
    /// Keeps the moment that is now of some namespaces, under a label, until that is dropped: a snapshot.
    ///
    /// Request 54, since protocol 1. It waits as [`BeginView`]. Answered by [`SnapshotTaken`], or by failure `SnapshotExists`,
    /// `UnknownNamespace`, `CacheHasNoPast` or `TooMany`.
    TakeSnapshot = 54 answered by SnapshotTaken {
        /// The label.
        label: Label,
        /// The namespaces: at least one.
        namespaces: Vec<Namespace>,
    }
}

message! {
    /// The snapshot is taken. Reply 55, since protocol 1.
    SnapshotTaken = 55 {
        /// The number of the last change that it shows.
        moment: u64,
    }
}

message! {
    /// Drops a snapshot. Request 56, since protocol 1. Answered by [`HoldEnded`], or by failure `SnapshotNotFound`.
    DropSnapshot = 56 answered by HoldEnded {
        /// Its label.
        label: Label,
    }
}

message! {
    /// Lists the snapshots, in order of their labels. Request 58, since protocol 1. Answered by [`SnapshotsPage`].
    ListSnapshots = 58 answered by SnapshotsPage {
        /// Go on after this label, the last of the page before.
        after: Option<Label>,
    }
}

message! {
    /// One page of snapshots. Reply 59, since protocol 1.
    SnapshotsPage = 59 {
        /// The snapshots.
        snapshots: Vec<SnapshotInfo>,
        /// Whether more follow.
        more: bool,
    }
}

part! {
    /// A snapshot.
    SnapshotInfo {
        /// Its label.
        label: Label,
        /// The number of the last change that it shows.
        moment: u64,
        /// When it was taken: CLOCK_REALTIME, in nanoseconds.
        created_ns: u64,
        /// Its namespaces, at most [`limits::SNAPSHOT_NAMESPACES_MAX`].
        namespaces: Vec<Namespace>,
        /// Names that were bound in them then.
        names: u64,
        /// Bytes of their objects.
        bytes: u64,
        /// Process that took it, as the daemon sees it.
        pid: u32,
        /// Uid of that process, as the daemon sees it.
        uid: u32,
    }
}

message! {
    /// Lists the views, the one that began first coming first. Request 60, since protocol 1. Answered by [`ViewsPage`].
    ListViews = 60 answered by ViewsPage {
        /// Go on after the view of this number, the last of the page before; 0 begins.
        after: u64,
    }
}

message! {
    /// One page of views. Reply 61, since protocol 1.
    ViewsPage = 61 {
        /// The views.
        views: Vec<ViewInfo>,
        /// Whether more follow.
        more: bool,
    }
}

part! {
    /// A view.
    ViewInfo {
        /// Its number.
        view: u64,
        /// The number of the last change that it shows.
        moment: u64,
        /// When it began: CLOCK_REALTIME, in nanoseconds.
        began_ns: u64,
        /// Process that holds it, as the daemon sees it.
        pid: u32,
        /// Uid of that process, as the daemon sees it.
        uid: u32,
        /// Its command name, if /proc told.
        command: String,
        /// Bindings that have ended, and that are kept with its moment as the last one that wants them.
        kept: u64,
    }
}

message! {
    /// Lists what a name was bound to, the last version coming first. Request 62, since protocol 1. Answered by
    /// [`VersionsPage`].
    ListVersions = 62 answered by VersionsPage {
        /// Namespace of the name.
        namespace: Namespace,
        /// The name.
        name: Name,
        /// Also those that only a snapshot or a view keeps.
        all: bool,
        /// Go on with versions below this one, the last of the page before; 0 begins with the present one.
        below: u64,
    }
}

message! {
    /// One page of what a name was bound to. Reply 63, since protocol 1.
    VersionsPage = 63 {
        /// The versions, the last one first.
        versions: Vec<VersionInfo>,
        /// Whether more follow.
        more: bool,
    }
}

message! {
    /// Lists the names of a namespace in order, a page at a time, with what each was bound to at a moment.
    ///
    /// Request 64, since protocol 1. Never waits for a commit. Answered by [`ThenPage`], or by failure `UnknownNamespace` or
    /// `ViewEnded`.
    ListAt = 64 answered by ThenPage {
        /// The namespace.
        namespace: Namespace,
        /// Which moment; `None` is now: then names are listed that history has something of, and that are not bound.
        at: Option<When>,
        /// Only names that begin with this text.
        prefix: String,
        /// Go on after this name, where the page before came.
        after: Option<Name>,
    }
}

message! {
    /// One page of names at a moment. Reply 65, since protocol 1.
    ThenPage = 65 {
        /// The bindings, in order of their names.
        names: Vec<ThenInfo>,
        /// Where the next page goes on; `None` on the last one. A page looks at no more than
        /// [`limits::PAGE_THEN_LOOKS_MAX`] names, so that it may have none.
        next: Option<Name>,
    }
}

part! {
    /// What a name was bound to.
    ThenInfo {
        /// The name.
        name: Name,
        /// The binding.
        version: VersionInfo,
    }
}

part! {
    /// A binding, present or ended.
    VersionInfo {
        /// Its version.
        version: u64,
        /// The object's id: namespace prefix and UUIDv7.
        object_id: [u8; 32],
        /// Length of the object, in bytes.
        len_bytes: u64,
        /// Kind of the value.
        kind: Kind,
        /// When the binding was made: CLOCK_REALTIME, in nanoseconds.
        created_ns: u64,
        /// Process that wrote the bytes, as the daemon sees it.
        writer_pid: u32,
        /// Uid of that process, as the daemon sees it.
        writer_uid: u32,
        /// Process that made the binding, as the daemon sees it: another one if it was made of another binding.
        bound_by_pid: u32,
        /// Uid of that process, as the daemon sees it.
        bound_by_uid: u32,
        /// Its description.
        description: String,
        /// Its user metadata, the text of a JSON object, or empty.
        metadata: String,
        /// How it ended; `None` if the name is bound to it now.
        ended: Option<EndInfo>,
        /// The time to live that it has; `None` if it does not expire, or has ended.
        ttl: Option<Ttl>,
    }
}

part! {
    /// How a binding ended.
    EndInfo {
        /// The number of the change that ended it.
        version: u64,
        /// Why.
        reason: Reason,
        /// How long ago, in nanoseconds.
        ago_ns: u64,
        /// Whether history keeps it; if not, only snapshots and views do.
        in_history: bool,
    }
}

message! {
    /// Asks what is kept of the past of a namespace. Request 66, since protocol 1. Answered by [`PastDescribed`].
    DescribePast = 66 answered by PastDescribed {
        /// The namespace.
        namespace: Namespace,
    }
}

message! {
    /// What is kept of the past of a namespace. Reply 67, since protocol 1.
    PastDescribed = 67 {
        /// What was declared; `None` if it has no history.
        history: Option<History>,
        /// Bindings that have ended and are kept, for history, snapshots or views.
        kept: u64,
        /// The number of the last change of the store.
        version: u64,
    }
}

impl BoundedList for Namespace {
    const ITEMS_MAX: u32 = limits::SNAPSHOT_NAMESPACES_MAX;
}

impl BoundedList for SnapshotInfo {
    const ITEMS_MAX: u32 = limits::PAGE_SNAPSHOTS_MAX;
}

impl BoundedList for ViewInfo {
    const ITEMS_MAX: u32 = limits::PAGE_VIEWS_MAX;
}

impl BoundedList for VersionInfo {
    const ITEMS_MAX: u32 = limits::PAGE_DESCRIBED_MAX;
}

impl BoundedList for ThenInfo {
    const ITEMS_MAX: u32 = limits::PAGE_DESCRIBED_MAX;
}

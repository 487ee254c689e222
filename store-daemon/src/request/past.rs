//! The past: views, snapshots, and what names were bound to.
//!
//! [`handle`](super::handle) calls these. What takes a moment waits until no commit is under way; what looks at one that was
//! taken before never waits, because no commit changes what a moment shows.

use crate::{
    catalog::{Kept, Moment, Record, Snapshot, Then, View, realtime_ns},
    effect::Answer,
    parked::{Need, Request},
    session::SessionId,
    state::State,
};
use plasmon_protocol::{
    id::{NamespacePrefix, ObjectId},
    index::Entry,
    index_of,
    limits::{
        PAGE_DESCRIBED_BYTES_MAX, PAGE_DESCRIBED_MAX, PAGE_SNAPSHOTS_MAX, PAGE_THEN_LOOKS_MAX,
        PAGE_VIEWS_MAX, SNAPSHOTS_MAX, VIEWS_MAX,
    },
    message::{
        BeginView, DescribePast, DropSnapshot, EndHold, EndInfo, Failure, FindAt, Found, HoldEnded, ListAt,
        ListSnapshots, ListVersions, ListViews, MomentOf, PastDescribed, SnapshotInfo, SnapshotTaken,
        SnapshotsPage, TakeSnapshot, ThenInfo, ThenPage, VersionInfo, VersionsPage, ViewBegun, ViewInfo,
        ViewsPage, When,
    },
    name::{Name, Namespace},
};
use plasmon_shm::{FaultPoint, fault_point};
use std::{ops::Bound, sync::Arc};

/// What a request needs that takes the moment that is now: no commit may be under way, and what had expired must be unbound.
pub(super) fn moment_need(state: &State, asked: &mut Request) -> Option<Need> {
    if state.is_commit_under_way() { Some(Need::NoCommit) } else { super::unbound_need(state, asked) }
}

/// The moment that is now.
fn now(state: &State) -> Moment {
    Moment { version: state.versions.last, taken_ns: state.clock.boottime_ns() }
}

/// Begins a view.
pub(super) fn begin_view(state: &mut State, session: SessionId, begin: &BeginView) -> Answer {
    if state.catalog.past.views_of(session) >= VIEWS_MAX {
        let (what, limit) = ("views of one process".to_owned(), VIEWS_MAX as u64);
        return Answer::fail(Failure::TooMany { what, limit });
    }
    let (moment, namespaces) = match &begin.at {
        MomentOf::Now => (now(state), None),
        MomentOf::Snapshot { label } => match state.catalog.past.snapshots().get(label) {
            Some(snapshot) => (snapshot.moment, Some(Arc::new(snapshot.namespaces.clone()))),
            None => return Answer::fail(Failure::SnapshotNotFound { label: label.clone() }),
        },
        &MomentOf::Held { moment } => match state.catalog.past.held_by_a_view(moment) {
            Some(moment) => (moment, None),
            None => return Answer::fail(Failure::ViewEnded { view: moment }),
        },
    };
    let shown = namespaces.iter().flat_map(|namespaces| namespaces.iter().cloned()).collect();
    let view = state.catalog.past.begin_view(View { session, moment, namespaces, began_ns: realtime_ns() });
    fault_point(FaultPoint::MomentHeld);
    let Moment { version, taken_ns } = moment;
    Answer::reply(&ViewBegun { view, moment: version, taken_ns, namespaces: shown })
}

/// Ends a view of the session that asks, or, for the store's own users, of any.
pub(super) fn end_hold(state: &mut State, session: SessionId, end: &EndHold) -> Answer {
    let Some(view) = state.catalog.past.view(end.view) else {
        return Answer::fail(Failure::ViewEnded { view: end.view });
    };
    let uid = state.sessions.get(session).map_or(u32::MAX, |session| session.uid);
    if view.session != session && !state.facts.is_own(uid) {
        return Answer::fail(Failure::NotAdmitted { uid, store_uid: state.facts.own_uid });
    }
    state.catalog.past.end_view(end.view);
    Answer::reply(&HoldEnded {})
}

/// The moment of a look into the past, for a session; and which namespaces it shows, if not all.
fn moment_of(state: &State, session: SessionId, at: &When, namespace: &Namespace) -> Result<u64, Failure> {
    match *at {
        When::Version { version } => Ok(version),
        When::View { view: number } => {
            let view = state.catalog.past.view(number).filter(|view| view.session == session);
            let shows = |view: &&View| {
                view.namespaces.as_ref().is_none_or(|namespaces| namespaces.contains(namespace))
            };
            match view.filter(shows) {
                Some(view) => Ok(view.moment.version),
                None if view.is_some() => Err(Failure::UnknownNamespace { namespace: namespace.clone() }),
                None => Err(Failure::ViewEnded { view: number }),
            }
        }
    }
}

/// Tells what a name was bound to, and pins its object for the client.
pub(super) fn find_at(state: &mut State, session: SessionId, find: &FindAt) -> Answer {
    let FindAt { namespace, name, at, slot } = find;
    let moment = match moment_of(state, session, at, namespace) {
        Ok(moment) => moment,
        Err(failure) => return Answer::fail(failure),
    };
    let now_ns = state.clock.boottime_ns();
    // A moment knows no deadlines: what was bound then is that, however long ago it has expired.
    let found = state.catalog.find_at(namespace, name, moment, now_ns).map(|then| match then {
        Then::Now(record) => Entry { expires_ns: 0, ..record.entry },
        Then::Kept(kept) => {
            let object = kept.object.and_then(|object| state.objects.get(object));
            let offset = object.map_or(kept.entry.offset, |object| object.homes.root().offset);
            Entry { offset, expires_ns: 0, ..kept.entry }
        }
    });
    match state.pin_for(session, *slot, found.as_ref()) {
        Ok(()) => Answer::reply(&Found { location: found }),
        Err(failure) => Answer::fail(failure),
    }
}

/// Takes a snapshot.
pub(super) fn take_snapshot(state: &mut State, session: SessionId, take: &TakeSnapshot) -> Answer {
    let TakeSnapshot { label, namespaces } = take;
    let snapshots = state.catalog.past.snapshots();
    if snapshots.contains_key(label) {
        return Answer::fail(Failure::SnapshotExists { label: label.clone() });
    }
    if snapshots.len() as u64 >= SNAPSHOTS_MAX {
        return Answer::fail(Failure::TooMany { what: "snapshots".to_owned(), limit: SNAPSHOTS_MAX });
    }
    if namespaces.is_empty() {
        return Answer::fail(Failure::Malformed {
            reason: "a snapshot has at least one namespace".to_owned(),
        });
    }
    for namespace in namespaces {
        let namespace = || namespace.clone();
        if state.catalog.namespace(&namespace()).is_none() {
            return Answer::fail(Failure::UnknownNamespace { namespace: namespace() });
        }
        if state.catalog.is_cache(&namespace()) {
            return Answer::fail(Failure::CacheHasNoPast { namespace: namespace() });
        }
    }
    let made_by = state.sessions.get(session).map_or((0, u32::MAX), |session| (session.pid, session.uid));
    let moment = now(state);
    let snapshot = Snapshot {
        moment,
        created_ns: realtime_ns(),
        namespaces: namespaces.iter().cloned().collect(),
        names: 0,
        bytes: 0,
        made_by,
    };
    state.catalog.take_snapshot(label, snapshot);
    fault_point(FaultPoint::MomentHeld);
    Answer::reply(&SnapshotTaken { moment: moment.version })
}

/// Drops a snapshot.
pub(super) fn drop_snapshot(state: &mut State, drop: &DropSnapshot) -> Answer {
    match state.catalog.past.drop_snapshot(&drop.label) {
        Some(_) => Answer::reply(&HoldEnded {}),
        None => Answer::fail(Failure::SnapshotNotFound { label: drop.label.clone() }),
    }
}

/// Answers with a page of snapshots.
pub(super) fn list_snapshots(state: &State, list: &ListSnapshots) -> Answer {
    let start = list.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut following = state.catalog.past.snapshots().range((start, Bound::Unbounded));
    let snapshots = following.by_ref().take(index_of(PAGE_SNAPSHOTS_MAX.into()));
    let snapshots = snapshots.map(|(label, snapshot)| {
        let Snapshot { moment, created_ns, namespaces, names, bytes, made_by: (pid, uid) } = snapshot;
        SnapshotInfo {
            label: label.clone(),
            moment: moment.version,
            created_ns: *created_ns,
            namespaces: namespaces.iter().cloned().collect(),
            names: *names,
            bytes: *bytes,
            pid: *pid,
            uid: *uid,
        }
    });
    let snapshots = snapshots.collect();
    Answer::reply(&SnapshotsPage { snapshots, more: following.next().is_some() })
}

/// Answers with a page of views.
pub(super) fn list_views(state: &State, list: &ListViews) -> Answer {
    let start = Bound::Excluded(list.after);
    let mut following = state.catalog.past.views().range((start, Bound::Unbounded));
    let views = following.by_ref().take(index_of(PAGE_VIEWS_MAX.into())).map(|(&number, view)| {
        let session = state.sessions.get(view.session);
        ViewInfo {
            view: number,
            moment: view.moment.version,
            began_ns: view.began_ns,
            pid: session.map_or(0, |session| session.pid),
            uid: session.map_or(u32::MAX, |session| session.uid),
            command: session.map(|session| session.command.clone()).unwrap_or_default(),
            kept: state.catalog.past.weight_of(view.moment.version).kept,
        }
    });
    let views = views.collect();
    Answer::reply(&ViewsPage { views, more: following.next().is_some() })
}

/// Answers with a page of what a name was bound to.
pub(super) fn list_versions(state: &State, list: &ListVersions) -> Answer {
    let ListVersions { namespace, name, all, below } = list;
    let now_ns = state.clock.boottime_ns();
    let prefix = NamespacePrefix::new(namespace);
    let is_below = |version: u64| *below == 0 || version < *below;
    let present = state.catalog.find(namespace, name, now_ns).map(|(_, record)| record);
    let present = present.filter(|record| is_below(record.entry.version));
    let present = present.map(|record| version_of_record(&prefix, record));
    let kept = state.catalog.past.versions_of(namespace, name);
    let kept = kept.filter(|kept| is_below(kept.born()) && (*all || state.catalog.past.is_in_history(kept)));
    let kept = kept.map(|kept| version_of_kept(state, &prefix, kept, now_ns));
    let (mut versions, mut page, mut more) = (Vec::new(), Page::default(), false);
    for version in present.into_iter().chain(kept) {
        if page.is_full() {
            more = true;
            break;
        }
        page.add(&version);
        versions.push(version);
    }
    Answer::reply(&VersionsPage { versions, more })
}

/// Answers with a page of names, with what each was bound to at a moment.
pub(super) fn list_at(state: &State, session: SessionId, list: &ListAt) -> Answer {
    let ListAt { namespace, at, prefix, after } = list;
    let moment = match at.as_ref().map(|at| moment_of(state, session, at, namespace)).transpose() {
        Ok(moment) => moment,
        Err(failure) => return Answer::fail(failure),
    };
    if state.catalog.namespace(namespace).is_none() && state.catalog.past.kept_of(namespace) == 0 {
        return Answer::fail(Failure::UnknownNamespace { namespace: namespace.clone() });
    }
    let (now_ns, of) = (state.clock.boottime_ns(), NamespacePrefix::new(namespace));
    let (mut names, mut page, mut looks) = (Vec::new(), Page::default(), 0);
    let mut last =
        after.as_ref().map(|after| Arc::from(after.as_str())).filter(|after: &Arc<str>| **after >= **prefix);
    let is_first = last.is_none();
    let mut at_prefix = is_first && !prefix.is_empty();
    loop {
        let next = match std::mem::take(&mut at_prefix) {
            true => state.catalog.name_from(namespace, prefix),
            false => state.catalog.next_name(namespace, last.as_deref()),
        };
        let Some(name) = next.filter(|name| name.starts_with(prefix.as_str())) else {
            return Answer::reply(&ThenPage { names, next: None });
        };
        if page.is_full() || looks == PAGE_THEN_LOOKS_MAX {
            let next = last.and_then(|last| Name::new(&last).ok());
            return Answer::reply(&ThenPage { names, next });
        }
        looks += 1;
        let version = match moment {
            Some(moment) => match state.catalog.find_at(namespace, &name, moment, now_ns) {
                Some(Then::Now(record)) => Some(version_of_record(&of, record)),
                Some(Then::Kept(kept)) => Some(version_of_kept(state, &of, kept, now_ns)),
                None => None,
            },
            None if state.catalog.find(namespace, &name, now_ns).is_some() => None,
            None => {
                let mut versions = state.catalog.past.versions_of(namespace, &name);
                let latest = versions.find(|kept| state.catalog.past.is_in_history(kept));
                latest.map(|kept| version_of_kept(state, &of, kept, now_ns))
            }
        };
        if let (Some(version), Ok(name)) = (version, Name::new(&name)) {
            page.add(&version);
            names.push(ThenInfo { name, version });
        }
        last = Some(name);
    }
}

/// Answers with what is kept of the past of a namespace.
pub(super) fn describe_past(state: &State, describe: &DescribePast) -> Answer {
    let past = &state.catalog.past;
    let (history, kept) = (past.history_of(&describe.namespace).cloned(), past.kept_of(&describe.namespace));
    Answer::reply(&PastDescribed { history, kept, version: state.versions.last })
}

/// How full a page is.
#[derive(Default)]
struct Page {
    count: usize,
    texts_bytes: usize,
}

impl Page {
    fn is_full(&self) -> bool {
        self.count == index_of(PAGE_DESCRIBED_MAX.into()) || self.texts_bytes >= PAGE_DESCRIBED_BYTES_MAX
    }

    fn add(&mut self, version: &VersionInfo) {
        self.count += 1;
        self.texts_bytes += version.description.len() + version.metadata.len();
    }
}

fn version_of_record(of: &NamespacePrefix, record: &Record) -> VersionInfo {
    let (bound_by_pid, bound_by_uid) = record.bound_by;
    VersionInfo {
        version: record.entry.version,
        object_id: *ObjectId::as_bytes(&of.object_id(record.object_uuid)),
        len_bytes: record.entry.len_bytes,
        kind: record.entry.header.kind,
        created_ns: record.entry.created_ns,
        writer_pid: record.writer_pid,
        writer_uid: record.entry.writer_uid,
        bound_by_pid,
        bound_by_uid,
        description: (*record.description).to_owned(),
        metadata: (*record.metadata).to_owned(),
        ended: None,
        ttl: record.ttl.clone(),
    }
}

fn version_of_kept(state: &State, of: &NamespacePrefix, kept: &Kept, now_ns: u64) -> VersionInfo {
    let (bound_by_pid, bound_by_uid) = kept.bound_by;
    VersionInfo {
        version: kept.born(),
        object_id: *ObjectId::as_bytes(&of.object_id(kept.object_uuid)),
        len_bytes: kept.entry.len_bytes,
        kind: kept.entry.header.kind,
        created_ns: kept.entry.created_ns,
        writer_pid: kept.writer_pid,
        writer_uid: kept.entry.writer_uid,
        bound_by_pid,
        bound_by_uid,
        description: (*kept.description).to_owned(),
        metadata: (*kept.metadata).to_owned(),
        ended: Some(EndInfo {
            version: kept.end.version,
            reason: kept.end.reason,
            ago_ns: now_ns.saturating_sub(kept.end.now_ns),
            in_history: state.catalog.past.is_in_history(kept),
        }),
        ttl: None,
    }
}

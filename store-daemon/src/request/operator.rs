//! What operators ask: figures, who holds what, and ending a process that holds too much.
//!
//! [`handle`](super::handle) calls these, some of them only when a scan has reported.

use crate::{
    effect::Answer,
    memory::Usage,
    objects::Label,
    reclaim::Pin,
    session::{Session, SessionId},
    state::State,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use plasmon_protocol::{
    limits,
    message::{Failure, Kick, Kicked, ListPins, PinInfo, PinPlace, PinsPage, Stats},
};

/// The store's figures, right after a scan.
pub(super) fn stats(state: &State) -> Answer {
    let figures = state.space.figures();
    let (objects, objects_max) = state.catalog.objects();
    let (kept, kept_max) = state.catalog.past.len_and_max();
    let Usage { rss_bytes, pss_bytes, descriptors } = state.scans.usage;
    let stats = Stats {
        capacity_bytes: state.facts.capacity_bytes,
        used_bytes: figures.used,
        free_bytes: figures.free,
        largest_free_bytes: figures.largest_free,
        limbo_bytes: state.objects.limbo().bytes,
        leased_bytes: figures.leased,
        pinned_bytes: state.scans.pinned_bytes,
        populated_bytes: if state.facts.populates { figures.populated } else { 0 },
        objects,
        objects_max,
        namespaces: state.catalog.namespace_count(),
        pins: state.scans.pin_count(),
        sessions: state.sessions.len() as u64,
        orphaned_sessions: state.sessions.orphan_count() as u64,
        connections: state.open.len() as u64,
        leases: state.space.lease_count(),
        waits: state.parked.wait_count(),
        version: state.versions.last,
        commits: state.counters.commits,
        requests: state.counters.requests,
        refused: state.counters.refused,
        expired: state.counters.expired,
        cached_bytes: state.catalog.cached_bytes(),
        evicted: state.counters.evicted,
        evicted_bytes: state.counters.evicted_bytes,
        uptime_s: state.facts.started.elapsed().as_secs(),
        store_pid: std::process::id(),
        rss_bytes,
        pss_bytes,
        descriptors,
        store_uuid: state.facts.store_uuid,
        refused_learns: state.refusals.learns(),
        refusals: state.refusals.list(),
        kept,
        kept_max,
        past_bytes: state.objects.past_bytes(),
        snapshots: state.catalog.past.snapshots().len() as u64,
        views: state.catalog.past.views().len() as u64,
    };
    Answer::reply(&stats)
}

/// Whether this page of pins is one of a list that is there: only the first page of each list waits for a scan.
pub(super) fn is_listed(state: &State, list: &ListPins) -> bool {
    list.after.is_some() && state.scans.listed.is_some()
}

/// A page of who holds what: of the list that was made last, which the scan thread did.
pub(super) fn list_pins(state: &State, list: &ListPins) -> Answer {
    let listed = state.scans.listed.clone().unwrap_or_default();
    let after = list.after.as_ref().map(|after| (SessionId(after.session), after.offset));
    let page = page_after(&listed, after);
    // What is no object, a client made up; it has no line.
    let pins = page.iter().filter_map(|pin| pin_info(state, pin)).collect();
    let is_last = page.last() == listed.last();
    let next = page.last().filter(|_| !is_last);
    let next = next.map(|last| PinPlace { session: last.session.0, offset: last.offset });
    Answer::reply(&PinsPage { pins, next })
}

/// Ends a client process, for the store's own users.
pub(super) fn kick(state: &State, asking: SessionId, kick: &Kick) -> Answer {
    let uid = state.sessions.get(asking).map_or(u32::MAX, |session| session.uid);
    if !state.facts.is_own(uid) {
        return Answer::fail(Failure::NotAdmitted { uid, store_uid: state.facts.own_uid });
    }
    let pid = kick.pid;
    let sessions: Vec<&Session> =
        state.sessions.iter().map(|(_, session)| session).filter(|session| session.pid == pid).collect();
    // 0 is a process whose pid this daemon cannot know; the daemon itself is no client to be ended.
    if sessions.is_empty() || pid == 0 || pid == std::process::id() {
        return Answer::fail(Failure::UnknownProcess { pid });
    }
    tracing::warn!(pid, uid, "ending a client process on request");
    match sessions.iter().try_for_each(|session| end_process(session)) {
        Ok(()) => {
            let sessions = u32::try_from(sessions.len()).unwrap_or(u32::MAX);
            Answer::reply(&Kicked { sessions })
        }
        Err(error) => {
            let reason = format!("process {pid} cannot be ended: {error}");
            Answer::fail(Failure::Internal { reason })
        }
    }
}

fn pin_info(state: &State, pin: &Pin) -> Option<PinInfo> {
    let session = state.sessions.get(pin.session)?;
    let object = state.objects.at(pin.offset)?;
    let (name, limbo) = match &object.label {
        Label::Bound(number) => {
            let name = state.catalog.label(*number).unwrap_or_default();
            (with_further_names(name, object.names()), false)
        }
        Label::Lost(name) if object.is_released() => (name.to_string(), true),
        // It has no name any more, and the past keeps it.
        Label::Lost(name) => (format!("{name} (past)"), false),
    };
    Some(PinInfo {
        pid: session.pid,
        uid: session.uid,
        command: session.command.clone(),
        orphaned: session.is_orphaned(),
        session_age_s: session.began.elapsed().as_secs(),
        name,
        limbo,
        version: object.version,
        len_bytes: object.len_bytes,
        pins: pin.count,
        seen_for_s: pin.since.elapsed().as_secs(),
    })
}

/// What an object is called that is bound to so many names, of which this is one.
fn with_further_names(name: String, names: u32) -> String {
    match names {
        0 | 1 => name,
        2 => name + " (+ 1 name)",
        more => format!("{name} (+ {} names)", more - 1),
    }
}

/// The lines of `listed` that come after `after`, as many as are looked at for one page.
fn page_after(listed: &[Pin], after: Option<(SessionId, u64)>) -> &[Pin] {
    let rest = &listed[after.map_or(0, |after| listed.partition_point(|pin| pin.place() <= after))..];
    &rest[..rest.len().min(PAGE_LINES)]
}

/// Lines of a page of pins: fewer than fit into one, because each costs a look at the object and its name.
const PAGE_LINES: usize = 1_024;
const _: () = assert!(PAGE_LINES <= limits::PAGE_PINS_MAX as usize);

/// Ends the process of a session, with SIGKILL. By its pidfd, for its number may be another process's by now; by number
/// only where there is no pidfd.
fn end_process(session: &Session) -> Result<(), Box<dyn std::error::Error>> {
    match &session.pidfd {
        // A process that is gone already leaves nothing to do.
        Some(pidfd) => drop(plasmon_shm::kill_process(pidfd)?),
        None => kill(Pid::from_raw(i32::try_from(session.pid)?), Signal::SIGKILL)?,
    }
    Ok(())
}

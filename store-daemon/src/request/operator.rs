//! What operators ask: figures, who holds what, and ending a process that holds too much.

use crate::{
    commit::ReplyTo,
    memory::Usage,
    objects::Label,
    reclaim::Pin,
    server::Server,
    session::{Session, SessionId},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use plasmon_protocol::{
    limits,
    message::{Failure, Kick, Kicked, ListPins, PinInfo, PinPlace, PinsPage, Stats},
};

impl Server {
    /// The store's figures, right after a scan.
    pub(crate) fn stats(&mut self, reply_to: ReplyTo) {
        let figures = self.space.figures();
        let (objects, objects_max) = self.catalog.objects();
        let Usage { rss_bytes, pss_bytes, descriptors } = self.scans.usage;
        let stats = Stats {
            capacity_bytes: self.capacity_bytes,
            used_bytes: figures.used,
            free_bytes: figures.free,
            largest_free_bytes: figures.largest_free,
            limbo_bytes: self.objects.limbo().bytes,
            leased_bytes: figures.leased,
            pinned_bytes: self.scans.pinned_bytes,
            populated_bytes: if self.populates { figures.populated } else { 0 },
            objects,
            objects_max,
            namespaces: self.catalog.namespace_count(),
            pins: self.scans.pin_count(),
            sessions: self.sessions.len() as u64,
            orphaned_sessions: self.sessions.orphan_count() as u64,
            connections: self.connections.len() as u64,
            leases: self.space.lease_count(),
            waits: self.wait_count(),
            version: self.last_version,
            commits: self.counters.commits,
            requests: self.counters.requests,
            refused: self.counters.refused,
            expired: self.counters.expired,
            cached_bytes: self.catalog.cached_bytes(),
            evicted: self.counters.evicted,
            evicted_bytes: self.counters.evicted_bytes,
            uptime_s: self.started.elapsed().as_secs(),
            store_pid: std::process::id(),
            rss_bytes,
            pss_bytes,
            descriptors,
            store_uuid: self.store_uuid,
            refused_learns: self.refusals.learns(),
            refusals: self.refusals.list(),
        };
        self.reply(reply_to, &stats);
    }

    /// Whether this page of pins is one of a list that is there: only the first page of each list waits for a scan.
    pub(crate) fn is_listed(&self, list: &ListPins) -> bool {
        list.after.is_some() && self.scans.listed.is_some()
    }

    /// A page of who holds what: of the list that was made last, which the scan thread did.
    pub(crate) fn list_pins(&mut self, reply_to: ReplyTo, list: &ListPins) {
        let listed = self.scans.listed.clone().unwrap_or_default();
        let after = list.after.as_ref().map(|after| (SessionId(after.session), after.offset));
        let page = page_after(&listed, after);
        // What is no object, a client made up; it has no line.
        let pins = page.iter().filter_map(|pin| self.pin_info(pin)).collect();
        let is_last = page.last() == listed.last();
        let next = page.last().filter(|_| !is_last);
        let next = next.map(|last| PinPlace { session: last.session.0, offset: last.offset });
        self.reply(reply_to, &PinsPage { pins, next });
    }

    pub(crate) fn kick(&mut self, reply_to: ReplyTo, asking: SessionId, kick: &Kick) {
        let uid = self.sessions.get(asking).map_or(u32::MAX, |session| session.uid);
        if !self.is_own(uid) {
            return self.fail(reply_to, Failure::NotAdmitted { uid, store_uid: self.own_uid });
        }
        let pid = kick.pid;
        let sessions: Vec<&Session> =
            self.sessions.iter().map(|(_, session)| session).filter(|session| session.pid == pid).collect();
        // 0 is a process whose pid this daemon cannot know; the daemon itself is no client to be ended.
        if sessions.is_empty() || pid == 0 || pid == std::process::id() {
            return self.fail(reply_to, Failure::UnknownProcess { pid });
        }
        tracing::warn!(pid, uid, "ending a client process on request");
        match sessions.iter().try_for_each(|session| end_process(session)) {
            Ok(()) => {
                let sessions = u32::try_from(sessions.len()).unwrap_or(u32::MAX);
                self.reply(reply_to, &Kicked { sessions });
            }
            Err(error) => {
                let reason = format!("process {pid} cannot be ended: {error}");
                self.fail(reply_to, Failure::Internal { reason });
            }
        }
    }

    fn pin_info(&self, pin: &Pin) -> Option<PinInfo> {
        let session = self.sessions.get(pin.session)?;
        let object = self.objects.at(pin.offset)?;
        let (name, limbo) = match &object.label {
            Label::Bound(number) => (self.catalog.label(*number).unwrap_or_default(), false),
            Label::Lost(name) => (name.to_string(), true),
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

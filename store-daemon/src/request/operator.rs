//! What operators ask: figures, who holds what, and ending a process that holds too much.

use crate::{
    commit::ReplyTo,
    memory::Usage,
    server::Server,
    session::{Session, SessionId},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use plasmon_protocol::{
    index_of,
    limits::PAGE_PINS_MAX,
    message::{Failure, Kick, Kicked, ListPins, PinInfo, PinPlace, PinsPage, Stats},
};
use std::time::Instant;

impl Server {
    /// The store's figures, right after a scan.
    pub(crate) fn stats(&mut self, reply_to: ReplyTo) {
        let figures = self.space.figures();
        let (objects, objects_max) = self.catalog.objects();
        let pinned = self.scans.done.pinned.keys().filter_map(|&offset| self.space.object(offset));
        let Usage { rss_bytes, pss_bytes, descriptors } = self.scans.usage;
        let stats = Stats {
            capacity_bytes: self.capacity_bytes,
            used_bytes: figures.used,
            free_bytes: figures.free,
            largest_free_bytes: figures.largest_free,
            limbo_bytes: figures.limbo,
            leased_bytes: figures.leased,
            pinned_bytes: pinned.map(|object| object.len_bytes).sum(),
            populated_bytes: if self.populates { figures.populated } else { 0 },
            objects,
            objects_max,
            namespaces: self.catalog.namespace_count(),
            pins: self.scans.done.pins.iter().map(|(_, count)| count).sum(),
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
        };
        self.reply(reply_to, &stats);
    }

    /// Who holds what, right after a scan.
    pub(crate) fn list_pins(&mut self, reply_to: ReplyTo, list: &ListPins) {
        let mut held: Vec<(SessionId, u64, u32)> = Vec::new();
        for (&offset, holders) in self.scans.done.pinned.iter() {
            if self.space.object(offset).is_some() {
                held.extend(holders.iter().map(|&(session, pins)| (session, offset, pins)));
            }
        }
        let after = list.after.as_ref().map(|after| (SessionId(after.session), after.offset));
        held.retain(|&(session, offset, _)| after.is_none_or(|after| (session, offset) > after));
        held.sort_unstable();
        let page = index_of(PAGE_PINS_MAX.into());
        let last = held.get(page - 1).filter(|_| held.len() > page);
        let next = last.map(|&(session, offset, _)| PinPlace { session: session.0, offset });
        held.truncate(page);
        let pins =
            held.into_iter().filter_map(|(session, offset, count)| self.pin_info(session, offset, count));
        let pins = pins.collect();
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

    fn pin_info(&self, id: SessionId, offset: u64, pins: u32) -> Option<PinInfo> {
        let session = self.sessions.get(id)?;
        let object = self.space.object(offset)?;
        let (name, limbo) = self.space.label(&self.catalog, object);
        let since = self.scans.seen_since.get(&(id, offset)).copied().unwrap_or_else(Instant::now);
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
            pins,
            seen_for_s: since.elapsed().as_secs(),
        })
    }
}

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

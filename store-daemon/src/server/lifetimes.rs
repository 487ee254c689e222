//! How sessions end, and what ends with them.

use super::{LEFT_BEHIND_MAX, Server, tokens};
use crate::connection::Broken;
use crate::reclaim::Report;
use crate::session::SessionId;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use plasmon_shm::{FaultPoint, fault_point};
use std::os::fd::AsFd;
use std::sync::Arc;

impl Server {
    pub(crate) fn watch_process(&mut self, id: SessionId) {
        let Some(pidfd) = self.sessions.get(id).and_then(|session| session.pidfd.as_ref()) else { return };
        let event = EpollEvent::new(EpollFlags::EPOLLIN, tokens::PROCESS | id.0);
        if let Err(error) = self.epoll.add(pidfd.as_fd(), event) {
            tracing::warn!(%error, session = id.0, "cannot watch a client's process; it is looked at now and then");
        }
    }

    /// The process is gone, or holds nothing any more and has said goodbye: everything it held is free.
    pub(crate) fn end_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(id) else { return };
        fault_point(FaultPoint::SessionEnding);
        tracing::debug!(session = id.0, pid = session.pid, "session ended");
        session.end_hand_over();
        if session.has_recalls() && self.scans.left_behind.len() < LEFT_BEHIND_MAX {
            self.scans.left_behind.push(Arc::clone(&session.regions[0].words));
        }
        if let Some(pidfd) = &session.pidfd {
            let _ = self.epoll.delete(pidfd.as_fd());
        }
        self.end_leases_of(id);
        self.depart(id);
        for connection in session.connections.iter().copied().chain(session.lifeline) {
            self.break_off(connection, Broken::Closed);
        }
        if self.objects.has_candidates() {
            self.start_scan(Report::Limbo);
        }
    }

    /// The client needs nothing any more, it says. Pins of a living process are never dropped, whatever it sent: the
    /// session ends when a scan that begins from now on finds none, or with the process.
    pub(crate) fn say_goodbye(&mut self, id: SessionId) {
        let scans = self.scans.started;
        self.sessions.leave(id, scans);
        let Some(session) = self.sessions.get(id) else { return };
        for connection in session.connections.clone().into_iter().chain(session.lifeline) {
            self.break_off(connection, Broken::Closed);
        }
        self.end_leases_of(id);
        self.depart(id);
        self.start_scan(Report::Limbo);
    }

    /// What ends with the session will be unbound.
    pub(super) fn depart(&mut self, id: SessionId) {
        if self.catalog.has_ephemeral(id) {
            self.departed.push(id);
        }
    }

    /// The lifeline is closed and the process lives, or is just ending: its pins stay until that is known.
    pub(super) fn orphan_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id) else { return };
        tracing::debug!(session = id.0, pid = session.pid, "lifeline closed");
        fault_point(FaultPoint::Orphaned);
        self.looks.is_due = true;
        for connection in session.connections.clone() {
            self.break_off(connection, Broken::Closed);
        }
        self.end_leases_of(id);
    }

    pub(super) fn end_leases_of(&mut self, id: SessionId) {
        let leases = self.space.leases_of(id);
        leases.into_iter().for_each(|lease| self.space.end_lease(lease));
    }
}

//! How sessions end, and what ends with them.
//!
//! These run when a client says goodbye, when a connection ends, when a pidfd fires, and when a look at a process
//! (`state/scans.rs`) has found it gone.

use super::State;
use crate::{connection::ConnectionId, effect::Effect, reclaim::Report, session::SessionId};
use plasmon_shm::{FaultPoint, fault_point};

impl State {
    /// The process is gone, or holds nothing any more and has said goodbye: everything it held is free.
    pub(crate) fn end_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(id) else { return };
        fault_point(FaultPoint::SessionEnding);
        tracing::debug!(session = id.0, pid = session.pid, "session ended");
        session.end_hand_over();
        if session.has_recalls() {
            self.scans.leave_behind(&session.regions[0].words);
        }
        self.end_leases_of(id);
        self.depart(id);
        for connection in session.connections.iter().copied().chain(session.lifeline) {
            self.effect(Effect::HangUp(connection));
        }
        if self.objects.has_candidates() {
            self.start_scan(Report::Limbo);
        }
    }

    /// The client needs nothing any more, it says. Pins of a living process are never dropped, whatever it sent: the
    /// session ends when a scan that begins from now on finds none, or with the process.
    pub(crate) fn say_goodbye(&mut self, id: SessionId) {
        let scans = self.scans.started();
        self.sessions.leave(id, scans);
        let Some(session) = self.sessions.get(id) else { return };
        let connections: Vec<ConnectionId> =
            session.connections.iter().copied().chain(session.lifeline).collect();
        connections.into_iter().for_each(|connection| self.effect(Effect::HangUp(connection)));
        self.end_leases_of(id);
        self.depart(id);
        self.start_scan(Report::Limbo);
    }

    /// A connection of this session is closed.
    pub(super) fn connection_left(&mut self, connection: ConnectionId, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.connections.remove(&connection);
        if session.lifeline == Some(connection) {
            session.lifeline = None;
            if session.is_awaited {
                // A child that joined at the last moment may stand in the queue of those who have connected.
                self.effect(Effect::HearNewcomers(vec![id]));
            } else {
                self.settle_closed(id);
            }
        }
    }

    /// Decides what becomes of a session whose lifeline is closed.
    pub(crate) fn settle_closed(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id) else { return };
        if session.is_leaving() {
            return; // it said so; its pins, if it has any, are looked at
        }
        if session.process_has_ended() {
            self.end_session(id);
        } else {
            self.orphan_session(id);
        }
    }

    /// The lifeline is closed and the process lives, or is just ending: its pins stay until that is known.
    fn orphan_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id) else { return };
        tracing::debug!(session = id.0, pid = session.pid, "lifeline closed");
        fault_point(FaultPoint::Orphaned);
        let connections = session.connections.clone();
        self.looks.is_due = true;
        connections.into_iter().for_each(|connection| self.effect(Effect::HangUp(connection)));
        self.end_leases_of(id);
    }

    fn end_leases_of(&mut self, id: SessionId) {
        let leases = self.space.leases_of(id);
        leases.into_iter().for_each(|lease| self.space.end_lease(lease));
    }
}

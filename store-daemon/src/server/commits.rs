//! Commits on their way, and the requests that wait for a name.

use super::{Grant, Parked, SLICE, Server, Waiter};
use crate::commit::{CommitJob, NoPlace, NotPlaced, ReplyTo, Slice, Workbench, Writer};
use crate::connection::{Broken, Connection, ConnectionId};
use crate::session::SessionId;
use crate::space::LeaseId;
use nix::sys::epoll::EpollFlags;
use plasmon_protocol::id::NameId;
use plasmon_protocol::message::{AnyRequest, Bound, Commit, Committed, Failure};
use std::time::{Duration, Instant};

impl Server {
    /// Begins a commit; `scanned` says that everything reclaimable has just been reclaimed for it.
    pub(crate) fn begin_commit(
        &mut self,
        reply_to: ReplyTo,
        session_id: SessionId,
        commit: Commit,
        scanned: bool,
    ) {
        let Some(session) = self.sessions.get(session_id) else { return };
        let writer = Writer { session: session_id, pid: session.pid, uid: session.uid };
        match CommitJob::place(reply_to, writer, commit, &mut self.space) {
            Ok(job) => {
                let missing = job.placed().flat_map(|extent| self.space.populated.missing(extent)).collect();
                self.when_populated(Grant::Commit(job), missing);
            }
            Err(not_placed) => {
                let NotPlaced { commit, problem } = *not_placed;
                match problem {
                    NoPlace::NoRoom { .. } if !scanned && self.scan_may_help() => {
                        let request = AnyRequest::Commit(commit);
                        self.park_for_scan(Parked { reply_to, session: session_id, request });
                    }
                    problem => {
                        self.end_leases(session_id, &commit.end_leases);
                        let failure = match problem {
                            NoPlace::NoRoom { len_bytes } => self.store_full(len_bytes, false),
                            NoPlace::Failure(failure) => failure,
                        };
                        self.fail(reply_to, failure);
                    }
                }
            }
        }
    }

    pub(crate) fn end_leases(&mut self, session: SessionId, leases: &[u64]) {
        for &lease in leases {
            if self.space.lease_of(session, LeaseId(lease)).is_some() {
                self.space.end_lease(LeaseId(lease));
            }
        }
    }

    pub(super) fn work_off_commits(&mut self) {
        let until = Instant::now() + SLICE;
        while let Some(mut job) = self.commits.pop_front() {
            let mut bench = Workbench {
                catalog: &mut self.catalog,
                space: &mut self.space,
                arena: &self.arena,
                last_version: &mut self.last_version,
            };
            match job.work(&mut bench, until) {
                Slice::More => {
                    self.commits.push_front(job);
                    return;
                }
                Slice::Done(result) => self.finish_commit(&job, result),
            }
            if Instant::now() >= until {
                return;
            }
        }
    }

    /// Works off a commit that is half visible when the store stops, within a second: nothing can fail in it any more.
    pub(super) fn finish_half_visible(&mut self) {
        let patience = Instant::now() + Duration::from_secs(1);
        while self.is_mid_commit() && Instant::now() < patience {
            self.work_off_commits();
        }
    }

    /// Answers everything that waits, and what has come until now, with `ShuttingDown`. Waits for nobody: what a client
    /// does not take at once, because it reads too little, is lost to it.
    pub(super) fn refuse_the_rest(&mut self) {
        let granted = self.grants.drain().map(|(_, grant)| match grant {
            Grant::Lease { reply_to, .. } => reply_to,
            Grant::Commit(job) => job.reply_to,
        });
        // Of a commit that could not be finished its client must not believe that nothing has happened.
        let queued = self.commits.drain(..).filter(|job| !job.is_half_visible()).map(|job| job.reply_to);
        let parked = [&mut self.deferred, &mut self.scans.current, &mut self.scans.next];
        let parked = parked.into_iter().flat_map(|parked| parked.drain(..)).map(|parked| parked.reply_to);
        let waiting = self.waits.drain().flat_map(|(_, waiters)| waiters).map(|waiter| waiter.reply_to);
        for reply_to in granted.chain(queued).chain(parked).chain(waiting).collect::<Vec<_>>() {
            self.fail(reply_to, Failure::ShuttingDown {});
        }
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            self.on_connection(id, EpollFlags::EPOLLIN);
        }
        while let Some(id) = self.ready.pop() {
            self.take_backlog(id);
        }
    }

    pub(super) fn finish_commit(&mut self, job: &CommitJob, result: Result<Committed, Failure>) {
        self.end_leases(job.writer.session, &job.commit.end_leases);
        match result {
            Ok(committed) => {
                self.counters.commits += 1;
                tracing::trace!(version = committed.version, pid = job.writer.pid, "committed");
                if !self.waits.is_empty() {
                    for id in job.bound_ids() {
                        self.answer_waits(&id, committed.version);
                    }
                }
                self.reply(job.reply_to, &committed);
            }
            Err(failure) => self.fail(job.reply_to, failure),
        }
        for parked in std::mem::take(&mut self.deferred) {
            self.on_request(parked, false);
        }
    }

    /// Whether a commit is half visible, so that what reads more than one name must wait for it.
    pub(crate) fn is_mid_commit(&self) -> bool {
        self.commits.front().is_some_and(|job| job.is_half_visible())
    }

    /// Answers `parked` once the commit that is half visible is done.
    pub(crate) fn defer(&mut self, parked: Parked) {
        self.deferred.push(parked);
    }

    pub(crate) fn wait_for(
        &mut self,
        id: NameId,
        reply_to: ReplyTo,
        above_version: u64,
        deadline: Option<Instant>,
    ) {
        let Some(connection) = self.connections.get_mut(&reply_to.connection) else { return };
        connection.waits.push(id);
        self.waits.entry(id).or_default().push(Waiter { reply_to, above_version, deadline });
        self.note_deadline(deadline);
    }

    pub(super) fn answer_waits(&mut self, id: &NameId, version: u64) {
        let Some(waiters) = self.waits.remove(id) else { return };
        let (met, still): (Vec<_>, Vec<_>) =
            waiters.into_iter().partition(|waiter| waiter.above_version < version);
        if !still.is_empty() {
            self.waits.insert(*id, still);
        }
        for waiter in met {
            self.forget_wait(waiter.reply_to.connection, id);
            self.reply(waiter.reply_to, &Bound { version });
        }
    }

    fn forget_wait(&mut self, connection: ConnectionId, id: &NameId) {
        let Some(connection) = self.connections.get_mut(&connection) else { return };
        if let Some(at) = connection.waits.iter().position(|name| name == id) {
            connection.waits.swap_remove(at);
        }
    }

    pub(crate) fn wait_count(&self) -> u64 {
        self.waits.values().map(|waiters| waiters.len() as u64).sum()
    }

    /// What has run out of time: waits, frames, handshakes.
    pub(super) fn expire(&mut self, now: Instant) {
        let mut late = Vec::new();
        for (&id, waiters) in &mut self.waits {
            let expired = waiters.extract_if(.., |waiter| waiter.deadline.is_some_and(|at| at <= now));
            late.extend(expired.map(|waiter| (id, waiter)));
        }
        if !late.is_empty() {
            self.waits.retain(|_, waiters| !waiters.is_empty());
        }
        for (id, waiter) in late {
            self.forget_wait(waiter.reply_to.connection, &id);
            self.fail(waiter.reply_to, Failure::WaitTimeout {});
        }
        for (&id, connection) in &self.connections {
            if connection.deadline().is_some_and(|at| at <= now) {
                self.broken.push((id, Broken::TooSlow));
            }
        }
        let frames = self.connections.values().filter_map(Connection::deadline).filter(|&at| at > now);
        let waits = self.waits.values().flatten().filter_map(|waiter| waiter.deadline);
        self.earliest_deadline = frames.chain(waits).min();
    }
}

//! Commits, and look-ups of many names: from a message's body to the answer.
//!
//! A commit is *prepared*, which means read and given its room, and then waits its turn. All that are being prepared take
//! turns slice by slice, so that a small one does not wait behind a large one. Where many wait, processes take turns. Turns come one after the other: while one
//! is under way, nothing else changes the catalog. What a commit needs meanwhile (a scan, room, pages, a copy) it waits for
//! among everything else that waits.
//!
//! `server/connections.rs` hands commits and look-ups in when their message has come. `state/turn.rs` works them off at
//! the end of each turn.

use super::State;
use crate::{
    commit::{CommitJob, Prepared, Workbench, Worked, Writer},
    copy::{Copied, CopyJob, Run},
    effect::{Answer, Effect},
    evict::Shortage,
    fair_queue::FairQueue,
    parked::{Key, LongCommit, Need, ReplyTo, Suspended, Ticket, What},
    request::LookUp,
    session::{Session, SessionId},
    slice::Slice,
    space::LeaseId,
};
use bytes::Bytes;
use plasmon_protocol::{
    id::NameId,
    limits::COMMIT_BYTES_MAX,
    message::{self, Failure},
};
use plasmon_shm::{FaultPoint, fault_point};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Commits that wait for nothing but their turns.
#[derive(Default)]
pub(super) struct Commits {
    /// Those that are read, take their room or give it back.
    preparing: FairQueue<Box<CommitJob>>,
    /// The one whose turn it is.
    turn: Option<Turn>,
    /// Those that have their room, and look-ups of many names.
    queue: FairQueue<Turn>,
    /// Whether a long commit is on its way. One at a time is in private memory, so that a few clients cannot fill it.
    has_long: bool,
}

/// What has a turn of its own: while it is under way, nothing else changes the catalog.
enum Turn {
    Commit(Box<CommitJob>),
    LookUp(Box<LookUp>),
}

impl Commits {
    /// Goes on preparing `job` when the turn of its process comes.
    fn prepare(&mut self, job: Box<CommitJob>) {
        self.preparing.push(job.reply_to.process(), job);
    }

    pub(super) fn has_preparing(&self) -> bool {
        !self.preparing.is_empty()
    }

    pub(super) fn has_turns(&self) -> bool {
        self.turn.is_some() || !self.queue.is_empty()
    }

    /// Whether the turn of one has come and it is not done.
    pub(super) fn is_under_way(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| match turn {
            Turn::Commit(job) => job.is_under_way(),
            Turn::LookUp(look_up) => look_up.is_under_way(),
        })
    }

    /// Whether one is half visible.
    fn is_half_visible(&self) -> bool {
        matches!(&self.turn, Some(Turn::Commit(job)) if job.is_half_visible())
    }

    /// Drops all of them, and returns who must not wait for an answer any more: nothing has changed. Of a commit that
    /// is half visible its client must not believe that, nor that of one that is visible and unanswered.
    pub(super) fn drain(&mut self) -> Vec<ReplyTo> {
        let preparing = self.preparing.drain().map(Turn::Commit);
        let turns = preparing.chain(self.turn.take()).chain(self.queue.drain());
        let unanswered = turns.filter_map(|turn| match turn {
            Turn::Commit(job) => (!job.is_visible()).then_some(job.reply_to),
            Turn::LookUp(look_up) => Some(look_up.reply_to),
        });
        unanswered.collect()
    }
}

impl State {
    /// Begins a commit, whose body nobody else can write.
    pub(crate) fn begin_commit(&mut self, reply_to: ReplyTo, session: SessionId, body: Bytes) {
        if self.closing {
            return self.fail(reply_to, Failure::ShuttingDown);
        }
        match self.new_commit(reply_to, session, body) {
            Some(job) => self.prepare_later(job),
            None => self.fail(reply_to, Failure::UnknownSession),
        }
    }

    fn new_commit(&self, reply_to: ReplyTo, id: SessionId, body: Bytes) -> Option<Box<CommitJob>> {
        let session = self.sessions.get(id)?;
        let (pid, uid, is_own) = (session.pid, session.uid, session.writable);
        let writer = Writer { session: id, pid, uid, is_own };
        Some(Box::new(CommitJob::new(reply_to, writer, body)))
    }

    /// Begins to look many names up.
    pub(crate) fn begin_look_up(&mut self, look_up: LookUp) {
        if self.closing {
            return self.fail(look_up.reply_to, Failure::ShuttingDown);
        }
        self.commits.queue.push(look_up.reply_to.process(), Turn::LookUp(Box::new(look_up)));
    }

    /// Begins a commit whose body stands in a lease.
    pub(crate) fn begin_long_commit(
        &mut self,
        reply_to: ReplyTo,
        session: SessionId,
        long: &message::LongCommit,
    ) -> Answer {
        let message::LongCommit { lease, offset, len_bytes } = *long;
        if len_bytes > COMMIT_BYTES_MAX {
            let (what, limit_bytes) = ("a commit (make it in parts)".to_owned(), COMMIT_BYTES_MAX);
            return Answer::fail(Failure::TooLarge { what, found_bytes: len_bytes, limit_bytes });
        }
        let piece = match self.space.claim_piece(session, LeaseId(lease), offset, len_bytes) {
            Ok(piece) => piece,
            Err(error) => return Answer::fail(Failure::BadLease { lease, reason: error.to_string() }),
        };
        let in_arena = || Run { from: Arc::clone(&self.facts.arena), offset, to: piece };
        let mut run = self.space.staged(LeaseId(lease), piece).unwrap_or_else(in_arena);
        run.to.len_bytes = len_bytes; // and not what the piece is rounded up by
        let who = Suspended { reply_to, what: What::LongCommit(LongCommit { session, piece, run }) };
        self.parked.add(who, Key::LongCommit, None);
        self.next_long_commit();
        Answer::Later
    }

    fn next_long_commit(&mut self) {
        if self.commits.has_long {
            return;
        }
        let Some(who) = self.parked.take_long_commit() else { return };
        let What::LongCommit(LongCommit { run, .. }) = &who.what else { return };
        let run = run.clone();
        self.commits.has_long = true;
        let ticket = self.parked.add(who, Key::Copy, None);
        self.effect(Effect::Copy(CopyJob::Body { ticket: ticket.0, run }));
    }

    pub(super) fn on_copied(&mut self, copied: Copied) {
        match copied {
            Copied::Objects { ticket, done } => {
                let who = self.parked.take(Ticket(ticket));
                let Some(Suspended { what: What::Commit(mut job), .. }) = who else { return };
                if let Err(reason) = done {
                    job.fail(Failure::Internal { reason });
                }
                self.prepare_later(job);
            }
            Copied::Body { ticket, body } => {
                let who = self.parked.take(Ticket(ticket));
                let Some(Suspended { reply_to, what: What::LongCommit(long) }) = who else { return };
                let LongCommit { session, piece, run } = long;
                self.space.unclaim(piece);
                self.let_go(Box::new(run));
                let job = match body {
                    Ok(body) => self.new_commit(reply_to, session, body).ok_or(Failure::UnknownSession),
                    Err(reason) => Err(Failure::Internal { reason }),
                };
                match job {
                    Ok(mut job) => {
                        job.is_long = true;
                        self.prepare_later(job);
                    }
                    Err(failure) => {
                        self.fail(reply_to, failure);
                        self.end_long_commit();
                    }
                }
            }
        }
    }

    fn end_long_commit(&mut self) {
        self.commits.has_long = false;
        self.next_long_commit();
    }

    fn end_leases(&mut self, session: SessionId, leases: &[u64]) {
        for &lease in leases {
            if self.space.lease_of(session, LeaseId(lease)).is_some() {
                self.space.end_lease(LeaseId(lease));
            }
        }
    }

    /// Another thread frees this, because it may take long.
    pub(super) fn let_go(&mut self, large: Box<dyn std::any::Any + Send>) {
        self.effect(Effect::Copy(CopyJob::LetGo(large)));
    }

    /// Reads commits and takes their room until the slice is spent.
    pub(super) fn prepare_commits(&mut self) {
        let mut slice = self.clock.slice();
        // One that needs nothing more goes on at once.
        let mut at_hand = None;
        while let Some(mut job) = at_hand.take().or_else(|| self.commits.preparing.pop()) {
            if !self.open.contains(&job.reply_to.connection) {
                job.fail(Failure::UnknownSession); // nobody will hear it
            }
            let (mut bench, commits) = self.workbench();
            match job.prepare(&mut bench, &mut slice) {
                Prepared::More => return commits.prepare(job),
                Prepared::Ready => {
                    fault_point(FaultPoint::CommitPlaced);
                    commits.queue.push(job.reply_to.process(), Turn::Commit(job));
                }
                Prepared::Placed { missing } if missing.is_empty() || !self.facts.populates => {
                    at_hand = self.copy_first(job);
                }
                Prepared::Placed { missing } => {
                    let who = Suspended { reply_to: job.reply_to, what: What::Commit(job) };
                    let ticket = self.parked.add(who, Key::Pages, None);
                    self.effect(Effect::Populate(ticket, missing));
                }
                Prepared::NoRoom(room) => {
                    let shortage = Shortage::Room(room);
                    let who = Suspended { reply_to: job.reply_to, what: What::Commit(job) };
                    self.park(who, Need::Room(shortage));
                }
                Prepared::Failed(failure) => {
                    // With the figures of now, when its own room is free again.
                    let short_of_memory = failure.no_room().map(|room| room.populated_bytes.is_some());
                    let failure = match short_of_memory {
                        Some(short_of_memory) => self.store_full(job.inline_bytes(), short_of_memory),
                        None => *failure,
                    };
                    self.finish_commit(job, Err(failure));
                }
            }
            if !slice.spend() {
                at_hand.into_iter().for_each(|job| self.prepare_later(job));
                return;
            }
        }
    }

    /// A commit goes on being prepared when the turn of its process comes.
    pub(super) fn prepare_later(&mut self, job: Box<CommitJob>) {
        self.commits.prepare(job);
    }

    /// Has a commit give back its room, slice by slice, and then answers why.
    pub(super) fn abandon_commit(&mut self, mut job: Box<CommitJob>, failure: Failure) {
        job.fail(failure);
        self.prepare_later(job);
    }

    /// A commit has its room, and the pages of it are there: what must be copied into the arena is copied. Returns the
    /// commit if there is nothing to be copied.
    fn copy_first(&mut self, mut job: Box<CommitJob>) -> Option<Box<CommitJob>> {
        let runs = job.take_runs();
        if runs.is_empty() {
            return Some(job);
        }
        let who = Suspended { reply_to: job.reply_to, what: What::Commit(job) };
        let ticket = self.parked.add(who, Key::Copy, None);
        self.effect(Effect::Copy(CopyJob::Objects { ticket: ticket.0, runs }));
        None
    }

    /// The pages of a commit's room are there.
    pub(super) fn write_commit(&mut self, job: Box<CommitJob>) {
        if let Some(job) = self.copy_first(job) {
            self.prepare_later(job);
        }
    }

    /// Works off the commits that have their room until the slice is spent.
    pub(super) fn work_off_commits(&mut self) {
        let mut slice = self.clock.slice();
        while let Some(turn) = self.commits.turn.take().or_else(|| self.commits.queue.pop()) {
            let rest = match turn {
                Turn::Commit(job) => self.work_off_commit(job, &mut slice).map(Turn::Commit),
                Turn::LookUp(look_up) => self.look_up(look_up, &mut slice).map(Turn::LookUp),
            };
            if let Some(rest) = rest {
                self.commits.turn = Some(rest);
                return;
            }
            // What has expired, is to give way, or has what it needs has waited long enough: it comes before the next
            // commit.
            let is_behind = std::mem::take(&mut self.unbinding.is_behind);
            if is_behind || self.parked.can_go_on(self.moment()) || !slice.spend() {
                return;
            }
        }
    }

    /// Goes on with a commit whose turn it is. Returns what is left to do.
    fn work_off_commit(&mut self, mut job: Box<CommitJob>, slice: &mut Slice) -> Option<Box<CommitJob>> {
        let (mut bench, _) = self.workbench();
        match job.work(&mut bench, slice) {
            Worked::More => return Some(job),
            Worked::NoEntries(missing) => {
                let shortage = Shortage::Entries(missing);
                let who = Suspended { reply_to: job.reply_to, what: What::Commit(job) };
                self.park(who, Need::Room(shortage));
            }
            Worked::Expired { as_of_ns } => {
                let who = Suspended { reply_to: job.reply_to, what: What::Commit(job) };
                self.park(who, Need::Expiry { as_of_ns });
            }
            Worked::Failed(failure) => self.abandon_commit(job, failure),
            Worked::Done => {
                fault_point(FaultPoint::CommitVisible);
                let version = job.committed().map_or(0, |committed| committed.version);
                let is_waited_for = !self.parked.has_no_waiters();
                let tell = |id: &NameId| self.parked.name_changed(id, version);
                if is_waited_for && !job.announce(slice, tell) {
                    return Some(job);
                }
                self.finish_commit(job, Ok(()));
            }
        }
        None
    }

    /// Works off a commit that is half visible when the store stops, within a second: nothing can fail in it any more.
    pub(super) fn finish_half_visible(&mut self) {
        let patience = Instant::now() + Duration::from_secs(1);
        while self.is_mid_commit() && Instant::now() < patience {
            self.work_off_commits();
        }
    }

    fn finish_commit(&mut self, mut job: Box<CommitJob>, result: Result<(), Failure>) {
        self.end_leases(job.writer.session, job.end_leases());
        self.unbinding.untold.append(&mut job.take_changed_waited());
        let writer = job.writer.session;
        if self.sessions.get(writer).is_none_or(Session::is_leaving) {
            self.depart(writer); // it has bound what ends with it after it ended
        }
        match result {
            Ok(()) => {
                self.counters.commits += 1;
                let Some(committed) = job.committed() else { return };
                tracing::trace!(version = committed.version, pid = job.writer.pid, "committed");
                self.reply(job.reply_to, committed);
                fault_point(FaultPoint::CommitAnswered);
            }
            Err(failure) => {
                self.counters.refused += u64::from(matches!(failure, Failure::Malformed { .. }));
                if let Some(namespace) = job.learns_in() {
                    self.note_refusal(Some(namespace), job.writer.pid, &failure);
                }
                self.fail(job.reply_to, failure);
            }
        }
        if job.is_long {
            self.end_long_commit();
        }
        if job.is_large() {
            self.let_go(job);
        }
    }

    fn workbench(&mut self) -> (Workbench<'_>, &mut Commits) {
        let bench = Workbench {
            catalog: &mut self.catalog,
            objects: &mut self.objects,
            space: &mut self.space,
            arena: &self.facts.arena,
            versions: &mut self.versions,
            now_ns: self.clock.boottime_ns(),
            parked: &self.parked,
            uuid_seed: self.facts.store_uuid,
        };
        (bench, &mut self.commits)
    }

    /// Whether a long commit is in private memory.
    pub(super) fn commits_have_long(&self) -> bool {
        self.commits.has_long
    }

    /// Whether the turn of a commit has come and it is not done: what is kept of the past must stay as it is.
    pub(crate) fn is_commit_under_way(&self) -> bool {
        self.commits.is_under_way()
    }

    /// Whether a commit is half visible, so that what reads more than one name must wait for it.
    pub(crate) fn is_mid_commit(&self) -> bool {
        self.commits.is_half_visible()
    }
}

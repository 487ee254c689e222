//! Commits on their way, and the requests that wait for a name.

use super::{AfterScan, Grant, Parked, Server, Tried};
use crate::allocator::Extent;
use crate::commit::{CommitJob, Prepared, ReplyTo, Workbench, Worked, Writer};
use crate::connection::{Broken, Connection, ConnectionId};
use crate::copy::{Copied, CopyJob, Run};
use crate::evict::Shortage;
use crate::refusals::Line;
use crate::request::LookUp;
use crate::session::{Session, SessionId};
use crate::slice::Slice;
use crate::space::LeaseId;
use crate::waits::{Until, Waiter};
use bytes::Bytes;
use nix::sys::epoll::EpollFlags;
use plasmon_protocol::id::NameId;
use plasmon_protocol::limits::COMMIT_BYTES_MAX;
use plasmon_protocol::message::{AnyRequest, Bound, Changed, Failure, LongCommit};
use plasmon_protocol::name::Namespace;
use plasmon_shm::{FaultPoint, boottime_ns, fault_point};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// All commits that are on their way, but those that wait for a scan or for pages.
#[derive(Default)]
pub(super) struct Commits {
    /// Those that are read, take their room or give it back: they take turns slice by slice, so that a small one does
    /// not wait behind a large one.
    preparing: VecDeque<Box<CommitJob>>,
    /// Those that have their room, and look-ups of many names: they happen one after the other.
    queue: VecDeque<Turn>,
    /// Those whose objects are being copied into the arena, by ticket.
    copying: HashMap<u64, Box<CommitJob>>,
    /// Those whose body stands in a lease. One at a time is in private memory, so that a few clients cannot fill it.
    long: VecDeque<LongBody>,
    /// The one whose body is being copied.
    copying_long: Option<LongBody>,
    long_is_on_its_way: bool,
}

/// What has a turn of its own: while it is under way, nothing else changes the catalog.
enum Turn {
    Commit(Box<CommitJob>),
    LookUp(Box<LookUp>),
}

/// A commit whose body stands in a lease.
struct LongBody {
    reply_to: ReplyTo,
    session: SessionId,
    /// Claimed, so that nobody else writes there until it is copied.
    piece: Extent,
    run: Run,
}

impl Commits {
    /// Whether there is something to be done now.
    pub(super) fn are_due(&self) -> bool {
        !self.preparing.is_empty() || !self.queue.is_empty()
    }

    /// Whether the turn of one has come and it is not done.
    pub(super) fn is_under_way(&self) -> bool {
        self.queue.front().is_some_and(|turn| match turn {
            Turn::Commit(job) => job.is_under_way(),
            Turn::LookUp(look_up) => look_up.is_under_way(),
        })
    }

    /// Drops all of them, and returns who must not wait for an answer any more: nothing has changed. Of a commit that
    /// is half visible its client must not believe that, nor that of one that is visible and unanswered.
    fn drain(&mut self) -> Vec<ReplyTo> {
        let (mut queued, mut look_ups) = (Vec::new(), Vec::new());
        for turn in self.queue.drain(..) {
            match turn {
                Turn::Commit(job) => queued.push(job),
                Turn::LookUp(look_up) => look_ups.push(look_up.reply_to),
            }
        }
        let jobs = self.preparing.drain(..).chain(queued);
        let jobs = jobs.chain(self.copying.drain().map(|(_, job)| job)).filter(|job| job.version() == 0);
        let bodies = self.long.drain(..).chain(self.copying_long.take());
        jobs.map(|job| job.reply_to).chain(bodies.map(|body| body.reply_to)).chain(look_ups).collect()
    }
}

impl Server {
    /// Begins a commit, whose body nobody else can write.
    pub(crate) fn begin_commit(&mut self, reply_to: ReplyTo, session: SessionId, body: Bytes) {
        if self.closing {
            return self.fail(reply_to, Failure::ShuttingDown {});
        }
        match self.new_commit(reply_to, session, body) {
            Some(job) => self.commits.preparing.push_back(job),
            None => self.fail(reply_to, Failure::UnknownSession {}),
        }
    }

    fn new_commit(&self, reply_to: ReplyTo, id: SessionId, body: Bytes) -> Option<Box<CommitJob>> {
        let session = self.sessions.get(id)?;
        let writer = Writer { session: id, pid: session.pid, uid: session.uid };
        Some(Box::new(CommitJob::new(reply_to, writer, body)))
    }

    /// Begins to look many names up.
    pub(super) fn begin_look_up(&mut self, look_up: LookUp) {
        if self.closing {
            return self.fail(look_up.reply_to, Failure::ShuttingDown {});
        }
        self.commits.queue.push_back(Turn::LookUp(Box::new(look_up)));
    }

    /// Begins a commit whose body stands in a lease.
    pub(crate) fn begin_long_commit(&mut self, reply_to: ReplyTo, session: SessionId, long: &LongCommit) {
        let LongCommit { lease, offset, len_bytes } = *long;
        if len_bytes > COMMIT_BYTES_MAX {
            let (what, limit_bytes) = ("a commit (make it in parts)".to_owned(), COMMIT_BYTES_MAX);
            return self.fail(reply_to, Failure::TooLarge { what, found_bytes: len_bytes, limit_bytes });
        }
        let piece = match self.space.claim_piece(session, LeaseId(lease), offset, len_bytes) {
            Ok(piece) => piece,
            Err(error) => {
                return self.fail(reply_to, Failure::BadLease { lease, reason: error.to_string() });
            }
        };
        let in_arena = || Run { from: Arc::clone(&self.arena), offset, to: piece };
        let mut run = self.space.staged(LeaseId(lease), piece).unwrap_or_else(in_arena);
        run.to.len_bytes = len_bytes; // and not what the piece is rounded up by
        self.commits.long.push_back(LongBody { reply_to, session, piece, run });
        self.next_long_commit();
    }

    fn next_long_commit(&mut self) {
        if self.commits.long_is_on_its_way {
            return;
        }
        let Some(body) = self.commits.long.pop_front() else { return };
        self.copies.ask(CopyJob::Body(body.run.clone()));
        self.commits.copying_long = Some(body);
        self.commits.long_is_on_its_way = true;
    }

    pub(super) fn on_copied(&mut self, copied: Copied) {
        match copied {
            Copied::Objects { ticket, done } => {
                let Some(mut job) = self.commits.copying.remove(&ticket) else { return };
                if let Err(reason) = done {
                    job.fail(Failure::Internal { reason });
                }
                self.commits.preparing.push_back(job);
            }
            Copied::Body(body) => {
                let Some(LongBody { reply_to, session, piece, run }) = self.commits.copying_long.take()
                else {
                    return;
                };
                self.space.unclaim(piece);
                self.copies.ask(CopyJob::LetGo(Box::new(run)));
                let unknown = Failure::UnknownSession {};
                let job = match body {
                    Ok(body) => self.new_commit(reply_to, session, body).ok_or(unknown),
                    Err(reason) => Err(Failure::Internal { reason }),
                };
                match job {
                    Ok(mut job) => {
                        job.is_long = true;
                        self.commits.preparing.push_back(job);
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
        self.commits.long_is_on_its_way = false;
        self.next_long_commit();
    }

    pub(crate) fn end_leases(&mut self, session: SessionId, leases: &[u64]) {
        for &lease in leases {
            if self.space.lease_of(session, LeaseId(lease)).is_some() {
                self.space.end_lease(LeaseId(lease));
            }
        }
    }

    /// Reads commits and takes their room, for a slice.
    pub(super) fn prepare_commits(&mut self) {
        let mut slice = Slice::begin();
        while let Some(mut job) = self.commits.preparing.pop_front() {
            if !self.connections.contains_key(&job.reply_to.connection) {
                job.fail(Failure::UnknownSession {}); // nobody will hear it
            }
            let (mut bench, commits) = self.workbench();
            match job.prepare(&mut bench, &mut slice) {
                Prepared::More => return commits.preparing.push_back(job),
                Prepared::Ready => {
                    fault_point(FaultPoint::CommitPlaced);
                    commits.queue.push_back(Turn::Commit(job));
                }
                Prepared::Placed { missing } => self.when_populated(Grant::Commit(job), missing),
                Prepared::NoRoom => {
                    let shortage = Shortage::Room(job.wanted_room());
                    self.make_room(shortage, AfterScan::Commit(job));
                }
                // With the figures of now, when its own room is free again.
                Prepared::Failed(Failure::StoreFull { room }) => {
                    let failure = self.store_full(job.inline_bytes(), room.populated_bytes.is_some());
                    self.finish_commit(job, Err(failure));
                }
                Prepared::Failed(failure) => self.finish_commit(job, Err(failure)),
            }
            if !slice.spend() {
                return;
            }
        }
    }

    /// Goes on with a commit that waited for a scan.
    pub(super) fn resume_commit(&mut self, job: Box<CommitJob>) {
        self.commits.preparing.push_back(job);
    }

    /// Has a commit give back its room, slice by slice, and then answers why.
    pub(super) fn abandon_commit(&mut self, mut job: Box<CommitJob>, failure: Failure) {
        job.fail(failure);
        self.commits.preparing.push_back(job);
    }

    /// A commit has its room, and the pages of it are there.
    pub(super) fn write_commit(&mut self, mut job: Box<CommitJob>) {
        let runs = job.take_runs();
        if runs.is_empty() {
            return self.commits.preparing.push_back(job);
        }
        let ticket = self.next_ticket();
        self.commits.copying.insert(ticket, job);
        self.copies.ask(CopyJob::Objects { ticket, runs });
    }

    /// Works off the commits that have their room, for a slice.
    pub(super) fn work_off_commits(&mut self) {
        let mut slice = Slice::begin();
        while let Some(turn) = self.commits.queue.pop_front() {
            let rest = match turn {
                Turn::Commit(job) => self.work_off_commit(job, &mut slice).map(Turn::Commit),
                Turn::LookUp(look_up) => self.look_up(look_up, &mut slice).map(Turn::LookUp),
            };
            if let Some(rest) = rest {
                return self.commits.queue.push_front(rest);
            }
            // What has expired, is to give way, or goes on has waited long enough: it comes before the next commit.
            let is_behind = std::mem::take(&mut self.unbinding_is_behind) || !self.resumable.is_empty();
            if is_behind || !slice.spend() {
                return;
            }
        }
    }

    /// Goes on with a commit whose turn it is. Returns what is left to do.
    fn work_off_commit(&mut self, mut job: Box<CommitJob>, slice: &mut Slice) -> Option<Box<CommitJob>> {
        let (mut bench, _) = self.workbench();
        match job.work(&mut bench, slice) {
            Worked::More => return Some(job),
            Worked::Failed(Failure::IndexFull { .. }) => {
                let shortage = Shortage::Entries(job.give_up_turn());
                self.make_room(shortage, AfterScan::Commit(job));
            }
            Worked::Failed(failure) => self.abandon_commit(job, failure),
            Worked::Done => {
                fault_point(FaultPoint::CommitVisible);
                let version = job.version();
                if !self.waits.is_empty() && !job.announce(slice, |id| self.answer_waits(id, version)) {
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

    /// Answers everything that waits, and what has come until now, with `ShuttingDown`. Waits for nobody: what a client
    /// does not take at once, because it reads too little, is lost to it.
    pub(super) fn refuse_the_rest(&mut self) {
        let granted = self.grants.drain().map(|(_, grant)| match grant {
            Grant::Lease { reply_to, .. } => reply_to,
            Grant::Commit(job) => job.reply_to,
        });
        let commits = self.commits.drain();
        let parked =
            self.scans.current.drain(..).chain(self.scans.next.drain(..)).chain(self.resumable.drain(..));
        let parked = parked.map(|parked| parked.reply_to());
        let short = self.after_expiry.drain(..).map(|(_, who)| who.reply_to());
        let short = short.chain(self.eviction.take().map(|eviction| eviction.reply_to()));
        let short = short.chain(self.evictions.drain(..).map(|short| short.who.reply_to()));
        let deferred = self.deferred.drain(..).map(|parked| parked.reply_to);
        let waiting =
            std::iter::from_fn(|| self.waits.take_any()).chain(self.met.drain(..).map(|(waiter, _)| waiter));
        let waiting = waiting.map(|waiter| waiter.reply_to);
        let listing = self.listings.drain(..).map(|listing| listing.reply_to);
        let all =
            granted.chain(commits).chain(parked).chain(short).chain(deferred).chain(waiting).chain(listing);
        for reply_to in all.collect::<Vec<_>>() {
            self.fail(reply_to, Failure::ShuttingDown {});
        }
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            self.on_connection(id, EpollFlags::EPOLLIN);
        }
        while let Some(id) = self.ready.pop() {
            self.shares.begin_turn(); // everybody is answered, and nobody waits for others any more
            self.take_backlog(id);
        }
    }

    fn finish_commit(&mut self, job: Box<CommitJob>, result: Result<(), Failure>) {
        self.end_leases(job.writer.session, &job.end_leases);
        self.unbound_waited.extend_from_slice(&job.unbound_waited);
        let writer = job.writer.session;
        if self.sessions.get(writer).is_none_or(Session::is_leaving) {
            self.depart(writer); // it has bound what ends with it after it ended
        }
        match result {
            Ok(()) => {
                self.counters.commits += 1;
                tracing::trace!(version = job.version(), pid = job.writer.pid, "committed");
                self.reply(job.reply_to, &job.committed());
                fault_point(FaultPoint::CommitAnswered);
                self.resume_deferred();
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
            self.copies.ask(CopyJob::LetGo(job));
        }
    }

    /// A learn was refused; so it is to a client that does not get the memory that it asks for.
    pub(crate) fn note_refusal(&mut self, namespace: Option<&Namespace>, pid: u32, failure: &Failure) {
        if let Some(Line { reason, unlogged }) = self.refusals.note(namespace, failure, Instant::now()) {
            let namespace = namespace.map_or("", Namespace::as_str);
            tracing::warn!(reason, namespace, pid, unlogged, ?failure, "refused a learn");
        }
    }

    /// Refuses `session` the memory that it asked for in advance.
    pub(crate) fn fail_lease(&mut self, reply_to: ReplyTo, session: SessionId, failure: Failure) {
        let pid = self.sessions.get(session).map_or(0, |session| session.pid);
        self.note_refusal(None, pid, &failure);
        self.fail(reply_to, failure);
    }

    fn workbench(&mut self) -> (Workbench<'_>, &mut Commits) {
        let bench = Workbench {
            catalog: &mut self.catalog,
            space: &mut self.space,
            arena: &self.arena,
            last_version: &mut self.last_version,
            last_id_ms: &mut self.last_id_ms,
            now_ns: boottime_ns(),
            waits: &self.waits,
            uuid_seed: self.store_uuid,
        };
        (bench, &mut self.commits)
    }

    /// Whether a commit is half visible, so that what reads more than one name must wait for it.
    pub(crate) fn is_mid_commit(&self) -> bool {
        matches!(self.commits.queue.front(), Some(Turn::Commit(job)) if job.is_half_visible())
    }

    /// Whether a request that reads more than one name must wait: for a commit that is half visible; or, where it counts
    /// or lists names, for what has expired to be unbound.
    pub(crate) fn must_wait(&self, request: &AnyRequest, as_of_ns: &mut Option<u64>) -> bool {
        if self.is_mid_commit() {
            return true;
        }
        let (AnyRequest::ListNames(_)
        | AnyRequest::ListBareNames(_)
        | AnyRequest::ListDescribed(_)
        | AnyRequest::ListNamespaces(_)
        | AnyRequest::DescribeNamespace(_)
        | AnyRequest::ReadStats(_)) = request
        else {
            return false;
        };
        let Some(first) = self.catalog.next_expiry() else { return false };
        first <= *as_of_ns.get_or_insert_with(boottime_ns)
    }

    /// What was deferred will be answered, as far as it need not wait any more.
    pub(super) fn resume_deferred(&mut self) {
        let first = self.catalog.next_expiry().unwrap_or(u64::MAX);
        let ready = self.deferred.extract_if(.., |parked| parked.as_of_ns.is_none_or(|as_of| as_of < first));
        self.resumable.extend(ready.map(AfterScan::Request));
    }

    /// Answers `parked` once it need not wait any more.
    pub(crate) fn defer(&mut self, parked: Parked) {
        self.deferred.push(Parked { tried: Tried::Nothing, ..parked });
    }

    pub(crate) fn wait_for(
        &mut self,
        id: NameId,
        reply_to: ReplyTo,
        until: Until,
        deadline: Option<Instant>,
    ) {
        let Some(connection) = self.connections.get(&reply_to.connection) else {
            return self.give_back(reply_to.held);
        };
        if connection.is_broken {
            return self.give_back(reply_to.held);
        }
        self.waits.add(id, Waiter { reply_to, until, deadline });
        self.note_deadline(deadline);
    }

    /// Tells those who wait for names that were unbound, for a slice, once what unbound them is all visible.
    pub(super) fn announce_unbound(&mut self) {
        if self.unbound_waited.is_empty() || self.is_mid_commit() {
            return;
        }
        let mut slice = Slice::begin();
        while slice.spend()
            && let Some(id) = self.unbound_waited.pop()
        {
            self.answer_waits(&id, 0);
        }
    }

    /// Those who wait for what has come, now that the name is bound with `version` (0 if it is not bound), will be
    /// answered.
    pub(super) fn answer_waits(&mut self, id: &NameId, version: u64) {
        self.met
            .extend(std::iter::from_fn(|| self.waits.take_met(id, version)).map(|waiter| (waiter, version)));
    }

    /// Answers those who wait for what has come, for a slice.
    pub(super) fn answer_met(&mut self) {
        if self.met.is_empty() {
            return;
        }
        let slice = Slice::begin();
        while let Some((waiter, version)) = self.met.pop_front() {
            match waiter.until {
                Until::Above(_) => self.reply(waiter.reply_to, &Bound { version }),
                Until::Not(_) => self.reply(waiter.reply_to, &Changed { version }),
            }
            if slice.is_over() {
                return;
            }
        }
    }

    pub(crate) fn wait_count(&self) -> u64 {
        (self.waits.len() + self.met.len()) as u64
    }

    /// What has run out of time: waits, frames, handshakes.
    pub(super) fn expire(&mut self, now: Instant) {
        let slice = Slice::begin();
        while let Some(waiter) = self.waits.take_late(now) {
            self.fail(waiter.reply_to, Failure::WaitTimeout {});
            if slice.is_over() {
                break;
            }
        }
        let mut late = Vec::new();
        for (&id, connection) in &self.connections {
            if connection.deadline().is_some_and(|at| at <= now) {
                late.push(id);
            }
        }
        late.into_iter().for_each(|id| self.break_off(id, Broken::TooSlow));
        let frames = self.connections.values().filter(|connection| !connection.is_broken);
        let frames = frames.filter_map(Connection::deadline).filter(|&at| at > now);
        self.earliest_deadline = frames.chain(self.waits.next_deadline()).min();
    }
}

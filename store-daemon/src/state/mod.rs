//! What the store is, apart from its sockets and threads: everything that the loop decides with.
//!
//! The loop ([`crate::server`]) hands in what comes: requests, the ends of connections and processes, reports of helper
//! threads. Each of these methods does what can be done at once, parks what must wait ([`crate::parked`]), and leaves
//! behind what is to be done outside ([`Effect`]). What takes longer is done in steps at the end of every turn, slice by
//! slice: `STEPS` in `state/turn.rs`.

mod commits;
mod lifetimes;
mod room;
mod scans;
#[cfg(test)]
mod tests;
mod turn;
mod unbinding;

pub(crate) use self::{
    scans::Scans,
    turn::{Due, STEPS},
};

use self::{commits::Commits, room::Eviction, scans::Looks, unbinding::Unbinding};
use crate::{
    catalog::Catalog,
    clock::Clock,
    connection::ConnectionId,
    copy::Copied,
    effect::{Answer, Effect, Reply},
    fair_queue::FairQueue,
    fast_hash::FastSet,
    limits::MemoryLimit,
    objects::Objects,
    options::Options,
    parked::{Grant, Key, Moment, Need, Parked, ReplyTo, Request, Suspended, Ticket, Tried, Until, What},
    populate::Progress,
    reclaim::ScanDone,
    refusals::{Line, Refusals},
    request::{self, Listing},
    session::{SessionId, Sessions},
    socket::Labels,
    space::Space,
};
use plasmon_protocol::{
    codec::DecodeError,
    message::{AnyRequest, Bound, Changed, Failure, FullOfPast, Holder, Keeper, Message, NoRoom},
    name::Namespace,
};
use plasmon_shm::{Kernel, Region};
use std::{collections::VecDeque, os::fd::OwnedFd, sync::Arc, time::Instant};

/// What does not change while the store runs.
pub(crate) struct Facts {
    pub(crate) options: Options,
    pub(crate) kernel: Kernel,
    pub(crate) own_uid: u32,
    /// What the kernel shows for uids that have no number here: nobody's own.
    pub(crate) overflow_uid: u32,
    pub(crate) store_uuid: [u8; 16],
    pub(crate) started: Instant,
    pub(crate) capacity_bytes: u64,
    pub(crate) arena: Arc<Region>,
    pub(crate) index: Region,
    pub(crate) labels: Labels,
    pub(crate) session_bytes: u64,
    /// Separate openings, never the daemon's own: index and arena read-only, arena writable. `None` where the
    /// regions are named segments.
    pub(crate) openings: Option<[Arc<OwnedFd>; 3]>,
    /// Whether a helper populates what is granted; if not, everything counts as populated.
    pub(crate) populates: bool,
    pub(crate) memory_limit: Option<MemoryLimit>,
    /// Descriptors that sessions may take.
    pub(crate) session_descriptors: usize,
}

impl Facts {
    /// Whether this uid is the store's own or root: such a client may write the arena and see to the store.
    pub(crate) fn is_own(&self, uid: u32) -> bool {
        plasmon_protocol::trust::is_own(uid, self.own_uid, self.overflow_uid)
    }

    /// Whether this uid may connect at all.
    pub(crate) fn admits(&self, uid: u32) -> bool {
        self.is_own(uid) || self.options.allow_uids.contains(&uid)
    }
}

/// Figures that only count up.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commits: u64,
    pub(crate) requests: u64,
    pub(crate) refused: u64,
    pub(crate) expired: u64,
    pub(crate) evicted: u64,
    pub(crate) evicted_bytes: u64,
}

/// The last numbers that changes have got: commits, and what the store unbinds by itself in one turn.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    pub(crate) last: u64,
    /// The latest time in an object's id, in milliseconds since 1970.
    pub(crate) last_id_ms: u64,
}

impl Versions {
    /// The number of a change that begins now.
    pub(crate) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

/// Everything that the loop decides with.
pub(crate) struct State {
    pub(crate) facts: Facts,
    pub(crate) clock: Clock,
    pub(crate) catalog: Catalog,
    pub(crate) objects: Objects,
    pub(crate) space: Space,
    pub(crate) sessions: Sessions,
    pub(crate) scans: Scans,
    looks: Looks,
    commits: Commits,
    /// The eviction under way, for the request that has waited longest for room.
    eviction: Option<Box<Eviction>>,
    unbinding: Unbinding,
    pub(crate) parked: Parked,
    /// Listings that look through more namespaces than a slice of time is long enough for.
    pub(crate) listings: FairQueue<Listing>,
    /// Connections that are open.
    pub(crate) open: FastSet<ConnectionId>,
    /// Connections that have closed, and for which something may still be parked.
    ended: Vec<ConnectionId>,
    pub(crate) counters: Counters,
    pub(crate) refusals: Refusals,
    pub(crate) versions: Versions,
    next_housekeeping: Instant,
    /// Every request is answered with `ShuttingDown`.
    pub(crate) closing: bool,
    effects: VecDeque<Effect>,
}

impl State {
    pub(crate) fn new(facts: Facts, clock: Clock, catalog: Catalog, space: Space) -> State {
        let now = clock.now();
        State {
            facts,
            catalog,
            objects: Objects::default(),
            space,
            sessions: Sessions::default(),
            scans: Scans::new(now),
            looks: Looks::default(),
            commits: Commits::default(),
            eviction: None,
            unbinding: Unbinding::default(),
            parked: Parked::default(),
            listings: FairQueue::default(),
            open: FastSet::default(),
            ended: Vec::new(),
            counters: Counters::default(),
            refusals: Refusals::default(),
            versions: Versions::default(),
            next_housekeeping: now + turn::HOUSEKEEPING_EVERY,
            closing: false,
            effects: VecDeque::new(),
            clock,
        }
    }

    /// Takes the next effect, which the loop carries out.
    pub(crate) fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The loop has accepted a connection.
    pub(crate) fn connection_began(&mut self, id: ConnectionId) {
        self.open.insert(id);
    }

    /// A connection has closed. The next turns drop what was parked for it.
    pub(crate) fn connection_ended(&mut self, id: ConnectionId, session: Option<SessionId>) {
        self.open.remove(&id);
        self.ended.push(id);
        if let Some(session) = session {
            self.connection_left(id, session);
        }
    }

    /// Handles a request of a session.
    pub(crate) fn on_request(&mut self, reply_to: ReplyTo, mut request: Box<Request>) {
        if !self.open.contains(&reply_to.connection) {
            return self.drop_request(reply_to); // it has closed while the request was parked
        }
        if self.closing {
            return match request.request {
                AnyRequest::Goodbye(_) => self.drop_request(reply_to), // is not answered
                _ => self.fail(reply_to, Failure::ShuttingDown),
            };
        }
        tracing::trace!(session = request.session.0, request = request.request.name(), "request");
        match request::handle(self, reply_to, &mut request) {
            Answer::Reply(reply) => self.send(reply_to, reply),
            Answer::Grant(grant) => self.grant(reply_to, grant),
            Answer::Wait(need) => self.park(Suspended { reply_to, what: What::Request(request) }, need),
            Answer::Later => {}
            Answer::None => self.drop_request(reply_to),
        }
    }

    /// What a helper thread reports.
    pub(crate) fn on_report(&mut self, report: HelperReport) {
        match report {
            HelperReport::Populated(Progress::Steps(steps)) => {
                steps.into_iter().for_each(|step| self.space.populated.add(step));
            }
            HelperReport::Populated(Progress::Met(ticket)) => self.on_populated(Ticket(ticket), true),
            HelperReport::Populated(Progress::Short(ticket)) => self.on_populated(Ticket(ticket), false),
            HelperReport::Scanned(done) => self.on_scanned(done),
            HelperReport::Copied(copied) => self.on_copied(copied),
            HelperReport::Collected(slid) => self.on_collected(slid),
            HelperReport::Looked(gone) => self.on_looked(&gone),
        }
    }

    /// Lets `who` wait for what it needs.
    pub(crate) fn park(&mut self, who: Suspended, need: Need) {
        match need {
            Need::Scan { report, usage } => {
                let number = self.want_scan(report, usage);
                let mut who = who;
                who.set_tried(Tried::Scan);
                self.parked.add(who, Key::Scan(number), None);
            }
            Need::Expiry { as_of_ns } => drop(self.parked.add(who, Key::Expiry(as_of_ns), None)),
            Need::WholeCommits => drop(self.parked.add(who, Key::WholeCommits, None)),
            Need::NoCommit => drop(self.parked.add(who, Key::NoCommit, None)),
            Need::Room(shortage) => self.make_room(shortage, who),
        }
    }

    /// Goes on with something that has what it needs.
    fn resume(&mut self, Suspended { reply_to, what }: Suspended) {
        match what {
            What::Request(request) => self.on_request(reply_to, request),
            What::Commit(job) => self.prepare_later(job),
            What::Hello(hello) => {
                let (hello, newcomer) = *hello;
                self.hello(reply_to, &hello, newcomer, true);
            }
            What::Lease(grant) => self.give(reply_to, grant),
            What::LongCommit(_) | What::Name(_) => {
                debug_assert!(false, "neither waits for what is looked at here");
                self.fail(reply_to, Failure::UnknownSession);
            }
        }
    }

    /// Drops something of a connection that is not there any more.
    fn abandon(&mut self, Suspended { reply_to, what }: Suspended) {
        match what {
            What::Commit(job) => return self.abandon_commit(job, Failure::UnknownSession),
            What::LongCommit(long) => self.space.unclaim(long.piece),
            What::Lease(grant) => self.take_back(grant),
            What::Request(_) | What::Hello(_) | What::Name(_) => {}
        }
        self.drop_request(reply_to);
    }

    /// Goes on with `listing` in another turn, behind the others.
    pub(crate) fn put_off_listing(&mut self, listing: Listing) {
        if self.open.contains(&listing.reply_to.connection) {
            self.listings.push(listing.reply_to.process(), listing);
        } else {
            self.drop_request(listing.reply_to); // nobody will hear of it
        }
    }

    /// A request whose body is not what it claims to be.
    pub(crate) fn refuse_request(&mut self, reply_to: ReplyTo, error: &DecodeError) {
        self.counters.refused += 1;
        self.fail(reply_to, Failure::Malformed { reason: error.to_string() });
    }

    /// What decides which needs are met.
    fn moment(&self) -> Moment {
        Moment {
            scans_done: self.scans.done(),
            first_expiry_ns: self.catalog.next_expiry().unwrap_or(u64::MAX),
            is_mid_commit: self.is_mid_commit(),
            is_commit_under_way: self.is_commit_under_way(),
        }
    }

    /// Answers who waited for a name.
    fn answer_wait(&mut self, who: Suspended, version: u64) {
        match who.what {
            What::Name(Until::Above(_)) => self.reply(who.reply_to, &Bound { version }),
            _ => self.reply(who.reply_to, &Changed { version }),
        }
    }

    pub(crate) fn reply<M: Message>(&mut self, to: ReplyTo, message: &M) {
        self.send(to, Reply::new(message));
    }

    pub(crate) fn fail(&mut self, to: ReplyTo, failure: Failure) {
        self.send(to, Reply::failed(failure));
    }

    pub(crate) fn send(&mut self, to: ReplyTo, reply: Reply) {
        self.effects.push_back(Effect::Reply { to, reply, grant: None });
    }

    /// The request is not answered.
    pub(crate) fn drop_request(&mut self, reply_to: ReplyTo) {
        self.effects.push_back(Effect::Drop(reply_to));
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    /// Answers with a lease once its pages are there.
    fn grant(&mut self, reply_to: ReplyTo, grant: Grant) {
        let lease = self.space.lease_of(grant.session, grant.lease);
        let missing = lease.map(|lease| self.space.populated.missing(lease.extent)).unwrap_or_default();
        if missing.is_empty() || !self.facts.populates {
            return self.give(reply_to, grant);
        }
        let who = Suspended { reply_to, what: What::Lease(grant) };
        let ticket = self.parked.add(who, Key::Pages, None);
        self.effect(Effect::Populate(ticket, missing));
    }

    /// Answers with a lease whose pages are there. The session may have ended while they were made.
    fn give(&mut self, reply_to: ReplyTo, grant: Grant) {
        match request::lease::granted(self, &grant) {
            Ok(reply) => self.effects.push_back(Effect::Reply { to: reply_to, reply, grant: Some(grant) }),
            Err(failure) => {
                self.take_back(grant);
                self.fail(reply_to, failure);
            }
        }
    }

    /// Nobody knows of this lease: it is as if it had not been granted.
    pub(crate) fn take_back(&mut self, grant: Grant) {
        if self.space.lease_of(grant.session, grant.lease).is_none() {
            return;
        }
        match grant.grown_from {
            Some(before_bytes) => self.space.shrink_lease(grant.lease, before_bytes),
            None => self.space.end_lease(grant.lease),
        }
    }

    fn on_populated(&mut self, ticket: Ticket, enough: bool) {
        let Some(Suspended { reply_to, what }) = self.parked.take(ticket) else { return };
        match what {
            What::Lease(grant) if enough => self.give(reply_to, grant),
            What::Lease(grant) => {
                let lease = self.space.lease_of(grant.session, grant.lease);
                let len_bytes = lease.map_or(0, |lease| lease.extent.len_bytes);
                self.take_back(grant);
                let failure = self.store_full(len_bytes, true);
                self.fail_lease(reply_to, grant.session, failure);
            }
            What::Commit(job) if enough => self.write_commit(job),
            What::Commit(job) => {
                let failure = self.store_full(job.inline_bytes(), true);
                self.abandon_commit(job, failure);
            }
            what => self.resume(Suspended { reply_to, what }),
        }
    }

    /// A learn was refused; so it is to a client that does not get the memory that it asks for.
    pub(crate) fn note_refusal(&mut self, namespace: Option<&Namespace>, pid: u32, failure: &Failure) {
        if let Some(Line { reason, unlogged }) = self.refusals.note(namespace, failure, self.clock.now()) {
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

    /// The figures of a full store. `short_of_memory`: there is room in the arena, but the machine cannot back it.
    pub(crate) fn store_full(&self, requested_bytes: u64, short_of_memory: bool) -> Failure {
        let figures = self.space.figures();
        let holder = |&(session, bytes)| {
            let session = self.sessions.get(session)?;
            Some(Holder { pid: session.pid, command: session.command.clone(), bytes })
        };
        let holders = self.objects.limbo().holders.iter().filter_map(holder).collect();
        let room = NoRoom {
            requested_bytes,
            capacity_bytes: self.facts.capacity_bytes,
            used_bytes: figures.used,
            free_bytes: figures.free,
            largest_free_bytes: figures.largest_free,
            limbo_bytes: self.objects.limbo().bytes,
            cached_bytes: self.catalog.cached_bytes(),
            populated_bytes: short_of_memory.then_some(figures.populated),
            holders,
        };
        match self.objects.past_bytes() {
            0 => Failure::StoreFull(room),
            past_bytes => {
                let keepers = self.keepers();
                Failure::FullOfPast(Box::new(FullOfPast { room, past_bytes, keepers }))
            }
        }
    }

    /// For whom the past is kept: the three that most is kept for.
    fn keepers(&self) -> Vec<Keeper> {
        let past = &self.catalog.past;
        let histories = past
            .histories()
            .map(|(namespace, bytes)| (bytes, Keeper::History { namespace: namespace.clone(), bytes }));
        let snapshots = past.snapshots().iter().map(|(label, snapshot)| {
            let bytes = past.weight_of(snapshot.moment.version).bytes;
            (bytes, Keeper::Snapshot { label: label.clone(), bytes })
        });
        let views = past.views().iter().map(|(&view, of)| {
            let (bytes, session) = (past.weight_of(of.moment.version).bytes, self.sessions.get(of.session));
            let pid = session.map_or(0, |session| session.pid);
            let command = session.map(|session| session.command.clone()).unwrap_or_default();
            (bytes, Keeper::View { view, pid, command, bytes })
        });
        let mut keepers: Vec<_> =
            histories.chain(snapshots).chain(views).filter(|(bytes, _)| *bytes > 0).collect();
        keepers.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        keepers.into_iter().take(3).map(|(_, keeper)| keeper).collect()
    }

    /// The store shuts down: readers are told, and everything that waits is answered with `ShuttingDown`. Of a commit that
    /// is half visible its client must not believe that, so that one is worked off first.
    pub(crate) fn close(&mut self) {
        self.closing = true;
        self.finish_half_visible();
        self.catalog.close();
        let mut listings = std::mem::take(&mut self.listings);
        let waiting: Vec<ReplyTo> = std::iter::from_fn(|| self.parked.take_any().map(|who| who.reply_to))
            .chain(listings.drain().map(|listing| listing.reply_to))
            .collect();
        let commits = self.commits.drain();
        waiting.into_iter().chain(commits).for_each(|to| self.fail(to, Failure::ShuttingDown));
    }
}

/// What helper threads report to the loop.
pub(crate) enum HelperReport {
    Populated(Progress),
    Scanned(ScanDone),
    Copied(Copied),
    /// A round of collecting recalls is over: these entries were recalled, and live on.
    Collected(Vec<u32>),
    /// The sessions whose process is gone.
    Looked(Vec<SessionId>),
}

impl Suspended {
    fn tried(&self) -> Tried {
        match &self.what {
            What::Request(request) => request.tried,
            What::Commit(job) => job.tried,
            _ => Tried::Scan, // it wants no room
        }
    }

    fn set_tried(&mut self, tried: Tried) {
        match &mut self.what {
            What::Request(request) => request.tried = tried,
            What::Commit(job) => job.tried = tried,
            _ => {}
        }
    }
}

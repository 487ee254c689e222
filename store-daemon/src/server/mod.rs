//! The event loop: the only thread that touches catalog, space and sessions.
//!
//! It never waits for anything but events. What takes time (population, scans of the pin tables) happens on helper
//! threads, and the request that needs it is parked until the helper reports.

mod commits;
mod connections;
mod eviction;
mod expiry;
mod helpers;
mod lifetimes;

use commits::Commits;
use eviction::Eviction;

use crate::{
    budget::{Connections, HeldRequests, half_of},
    catalog::Catalog,
    commit::{CommitJob, ReplyTo},
    connection::{Broken, Connection, ConnectionId},
    copy::{Copied, Copies, CopyJob},
    evict::{Shortage, Victim},
    limits::MemoryLimit,
    log::Throttle,
    memory::Usage,
    options::Options,
    owner::Owner,
    populate::{Demands, Progress},
    reclaim::{Job, Pin, Pinned, Report, ScanDone, pinned_of},
    refusals::Refusals,
    request::Listing,
    session::{Orphan, SessionId, Sessions},
    signals::Signals,
    slice::Shares,
    socket::Labels,
    space::{LeaseId, Space},
    waits::{Waiter, Waits},
};
use interprocess::local_socket::Listener;
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    eventfd::EventFd,
    resource::{Resource, getrlimit},
};
use plasmon_protocol::{
    id::NameId,
    message::{AnyRequest, Hello},
};
use plasmon_shm::{Kernel, Polling, Region, WordsMapping};
use std::{
    collections::{HashMap, VecDeque},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{Receiver, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How often pins are scanned while limbo holds something, or little was retired.
const LIMBO_EVERY: Duration = Duration::from_millis(100);

/// Where so many pins are held that a scan takes long, scans that nobody waits for are made so rarely that they take one
/// part in so many of the scan thread's time; but not more rarely than that.
const SCAN_ONE_IN: u32 = 8;
const LIMBO_EVERY_MAX: Duration = Duration::from_secs(2);

/// How often all pins are looked at while there are sessions, so that `pins` can say since when they are held, and
/// how often the processes behind closed lifelines are looked at.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(1);

/// Most sessions that ended within a second whose last recalls are collected.
const LEFT_BEHIND_MAX: usize = 256;

/// Most pins that are looked at every second.
const HOUSEKEEPING_PINS_MAX: u64 = 65_536;

/// How long accepting rests after descriptors ran out.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Connections accepted in one turn of the loop.
const ACCEPTS_PER_TURN: usize = 64;

/// Frames of one connection handled in one turn of the loop.
const FRAMES_PER_TURN: usize = 64;

/// What a helper thread, or whoever runs the server, tells the loop.
pub(crate) enum Event {
    Populate(Progress),
    Scanned(ScanDone),
    Copied(Copied),
    /// A round of collecting recalls is over: these entries were recalled, and live on.
    Collected(Vec<u32>),
    /// The sessions whose process is gone.
    Looked(Vec<SessionId>),
    /// The helper thread of this name has panicked.
    HelperFailed(&'static str),
    Stop,
}

/// Why a store stopped that nobody had told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A helper thread panicked: requests that need it would wait for ever.
    #[error(
        "helper thread {name} failed; this is a defect of the store, please report it with the lines above"
    )]
    Helper {
        /// The thread's name.
        name: &'static str,
    },
    /// The loop itself panicked.
    #[error("the store failed; this is a defect of it, please report it with the lines above")]
    Loop,
    /// The kernel refused to wait for events.
    #[error("waiting for events failed: {0}")]
    Events(#[from] nix::Error),
}

/// What wakes the loop.
#[derive(Clone)]
pub(crate) struct Notifier {
    pub(crate) events: Sender<Event>,
    pub(crate) wake: Arc<EventFd>,
}

impl Notifier {
    pub(crate) fn tell(&self, event: Event) {
        // The loop may have ended already, and then nobody needs to know.
        if self.events.send(event).is_ok() {
            let _ = self.wake.write(1);
        }
    }
}

/// A request that waits for a helper, or for a commit to finish.
pub(crate) struct Parked {
    pub(crate) reply_to: ReplyTo,
    pub(crate) session: SessionId,
    pub(crate) request: AnyRequest,
    /// Set for a request that counts or lists names: what had expired by then, by CLOCK_BOOTTIME, is unbound before it is
    /// answered.
    pub(crate) as_of_ns: Option<u64>,
    pub(crate) tried: Tried,
}

/// What was done for something that finds no room, or that must know what is pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tried {
    #[default]
    Nothing,
    /// A scan was made, and what it found unpinned is free.
    Scan,
    /// Cached bindings gave way so many times.
    Evicting(u8),
}

/// What goes on when a scan is done, or something else that it waited for.
pub(crate) enum AfterScan {
    Request(Parked),
    Commit(Box<CommitJob>),
    /// Cached bindings give way, now that it is known which are pinned; these, if they were chosen already.
    Evict(Short, Vec<Victim>),
    /// Who begins a session, and may when sessions that have said goodbye have ended.
    Hello(ReplyTo, Hello),
}

/// What found no room.
pub(crate) struct Short {
    shortage: Shortage,
    /// A request or a commit.
    who: Box<AfterScan>,
}

impl AfterScan {
    fn reply_to(&self) -> ReplyTo {
        match self {
            AfterScan::Request(parked) => parked.reply_to,
            AfterScan::Commit(job) => job.reply_to,
            AfterScan::Evict(short, _) => short.who.reply_to(),
            AfterScan::Hello(reply_to, _) => *reply_to,
        }
    }

    fn is_stats(&self) -> bool {
        matches!(self, AfterScan::Request(Parked { request: AnyRequest::ReadStats(_), .. }))
    }
}

/// What waits for pages.
enum Grant {
    /// `grown_from` is the length before, in bytes, of a lease that was extended.
    Lease {
        reply_to: ReplyTo,
        session: SessionId,
        lease: LeaseId,
        grown_from: Option<u64>,
    },
    Commit(Box<CommitJob>),
}

/// Scans of the pin tables: one at a time, and who waits for which.
pub(crate) struct Scans {
    pub(crate) jobs: Sender<Job>,
    busy: bool,
    /// Answered when the scan that runs is done.
    current: Vec<AfterScan>,
    /// Answered when the scan after that is done.
    next: Vec<AfterScan>,
    /// What the scan found that runs, while the loop works that off.
    ending: Option<EndingScan>,
    last: Instant,
    /// How often scans are made that nobody waits for.
    every: Duration,
    /// Scans begun.
    started: u64,
    /// Sessions of forked children begun, in all, and when the last scan began. A scan that leaves one out is void.
    pub(crate) children: u64,
    children_scanned: u64,
    /// Pins of each session, as of the last scan.
    pub(crate) pins: Vec<(SessionId, u64)>,
    /// What was pinned when that was last asked for, and bytes of these objects.
    pub(crate) pinned: Arc<Pinned>,
    pub(crate) pinned_bytes: u64,
    /// Who pinned what when that was last asked for.
    pub(crate) listed: Option<Arc<Vec<Pin>>>,
    /// Objects with a name that the last scan did not know, for the next one.
    named: Vec<(u64, u64)>,
    /// What the daemon itself took from the machine when somebody last asked.
    pub(crate) usage: Usage,
    /// Whether a round of collecting recalls is under way, on the same thread.
    collecting: bool,
    /// Regions of sessions that ended with recalls that no round has collected.
    left_behind: Vec<Arc<WordsMapping>>,
}

impl Scans {
    pub(crate) fn new(jobs: Sender<Job>) -> Self {
        Scans {
            jobs,
            busy: false,
            current: Vec::new(),
            next: Vec::new(),
            ending: None,
            last: Instant::now(),
            every: LIMBO_EVERY,
            started: 0,
            children: 0,
            children_scanned: 0,
            pins: Vec::new(),
            pinned: Arc::default(),
            pinned_bytes: 0,
            listed: None,
            named: Vec::new(),
            usage: Usage::default(),
            collecting: false,
            left_behind: Vec::new(),
        }
    }

    /// Pins held by all sessions, as of the last scan.
    pub(crate) fn pin_count(&self) -> u64 {
        self.pins.iter().map(|(_, count)| count).sum()
    }
}

/// A scan whose results the loop works off.
struct EndingScan {
    done: ScanDone,
    /// How many of the offsets that the scan did not know are looked up.
    looked_up: usize,
    /// Bytes of the objects among them.
    bytes: u64,
}

/// Looks at processes that live on without their lifeline: one at a time.
pub(crate) struct Looks {
    pub(crate) jobs: Sender<Vec<Orphan>>,
    busy: bool,
    is_due: bool,
}

impl Looks {
    pub(crate) fn new(jobs: Sender<Vec<Orphan>>) -> Self {
        Looks { jobs, busy: false, is_due: false }
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

/// The daemon.
pub(crate) struct Server {
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

    pub(crate) catalog: Catalog,
    pub(crate) space: Space,
    pub(crate) sessions: Sessions,
    pub(crate) connections: HashMap<ConnectionId, Connection>,
    pub(crate) scans: Scans,
    looks: Looks,
    pub(crate) counters: Counters,
    pub(crate) refusals: Refusals,
    pub(crate) last_version: u64,
    pub(crate) last_id_ms: u64,

    pub(crate) demands: Demands,
    pub(crate) copies: Copies,
    grants: HashMap<u64, Grant>,
    tickets: u64,
    commits: Commits,
    /// What has expired, or is to give way, waits for a long commit; the next one waits for it.
    unbinding_is_behind: bool,
    /// Entries that were recalled and live on, for their deadlines to be moved.
    slid: Vec<u32>,
    /// What waits for room until all is unbound that had expired by then.
    after_expiry: Vec<(u64, AfterScan)>,
    /// What waits for cached bindings to give way, one after the other.
    evictions: VecDeque<Short>,
    /// Whether one of them is at work: it waits for a scan, or here.
    evicting: bool,
    eviction: Option<Box<Eviction>>,
    deferred: Vec<Parked>,
    /// What goes on, because what it waited for has come.
    resumable: VecDeque<AfterScan>,
    /// Listings that look through more namespaces than a slice of time is long enough for.
    listings: VecDeque<Listing>,
    /// Sessions that were made for a child, and whose lifeline was closed before anybody has joined them: a child that
    /// joined at the last moment may stand in the queue of those who have connected.
    childless: Vec<SessionId>,
    waits: Waits,
    /// Waits that are met and not answered yet, each with the version that it is answered with.
    met: VecDeque<(Waiter, u64)>,
    /// Names that were unbound while somebody waited for them, who is still to be told.
    unbound_waited: Vec<NameId>,
    /// Sessions that have ended, or are leaving, whose bindings are to be unbound that end with them.
    departed: Vec<SessionId>,
    broken: Vec<(ConnectionId, Broken)>,
    held: HeldRequests,
    /// Connections whose next frame waits until less is held.
    starved: Vec<ConnectionId>,
    /// Whether less is held than when the starved were looked at.
    gave_back: bool,
    counts: Connections,
    /// Bytes of replies that all connections leave unread.
    queued_output: usize,
    /// Descriptors that sessions may take.
    pub(crate) session_descriptors: usize,
    /// Connections with frames that wait for the next turn.
    ready: Vec<ConnectionId>,
    /// No wait, frame or handshake runs out of time before this moment.
    earliest_deadline: Option<Instant>,

    listener: Option<Listener>,
    listening: bool,
    /// What each process has had of this turn.
    shares: Shares,
    /// How often it is logged that a connection was refused.
    refusals_logged: Throttle,
    accept_at: Option<Instant>,
    next_connection: u64,
    next_housekeeping: Instant,
    epoll: Epoll,
    signals: Option<Signals>,
    /// The process that the store ends with.
    owner: Option<Owner>,
    pub(crate) memory_limit: Option<MemoryLimit>,
    wake: Arc<EventFd>,
    events: Receiver<Event>,
    helpers: Vec<JoinHandle<()>>,
    /// Every request is answered with `ShuttingDown`.
    pub(crate) closing: bool,
    /// Set when the loop is to end, and how.
    end: Option<Result<(), ServeError>>,
}

/// What start-up has made ready for the loop.
pub(crate) struct Parts {
    pub(crate) options: Options,
    pub(crate) kernel: Kernel,
    pub(crate) own_uid: u32,
    /// What the kernel shows for uids that have no number here: nobody's own.
    pub(crate) overflow_uid: u32,
    pub(crate) store_uuid: [u8; 16],
    pub(crate) capacity_bytes: u64,
    pub(crate) arena: Arc<Region>,
    pub(crate) index: Region,
    pub(crate) labels: Labels,
    pub(crate) session_bytes: u64,
    pub(crate) openings: Option<[Arc<OwnedFd>; 3]>,
    pub(crate) populates: bool,
    pub(crate) catalog: Catalog,
    pub(crate) space: Space,
    pub(crate) scan_jobs: Sender<Job>,
    pub(crate) look_jobs: Sender<Vec<Orphan>>,
    pub(crate) demands: Demands,
    pub(crate) copies: Copies,
    pub(crate) listener: Listener,
    pub(crate) signals: Option<Signals>,
    pub(crate) owner: Option<Owner>,
    pub(crate) memory_limit: Option<MemoryLimit>,
    pub(crate) wake: Arc<EventFd>,
    pub(crate) events: Receiver<Event>,
    pub(crate) helpers: Vec<JoinHandle<()>>,
}

/// What the event loop's tokens mean. Connections count from [`tokens::FIRST_CONNECTION`].
mod tokens {
    pub(super) const LISTENER: u64 = 0;
    pub(super) const WAKE: u64 = 1;
    pub(super) const SIGNALS: u64 = 2;
    pub(super) const OWNER: u64 = 3;
    pub(super) const FIRST_CONNECTION: u64 = 16;
    /// Pidfds have this bit and the session's number.
    pub(super) const PROCESS: u64 = 1 << 63;
}

impl Server {
    pub(crate) fn new(parts: Parts) -> nix::Result<Server> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let readable = |token| EpollEvent::new(EpollFlags::EPOLLIN, token);
        epoll.add(listener_fd(&parts.listener), readable(tokens::LISTENER))?;
        epoll.add(parts.wake.as_fd(), readable(tokens::WAKE))?;
        if let Some(signals) = &parts.signals {
            epoll.add(signals.as_fd(), readable(tokens::SIGNALS))?;
        }
        if let Some(pidfd) = parts.owner.as_ref().and_then(Owner::pidfd) {
            epoll.add(pidfd, readable(tokens::OWNER))?;
        }
        let now = Instant::now();
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft);
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        Ok(Server {
            kernel: parts.kernel,
            own_uid: parts.own_uid,
            overflow_uid: parts.overflow_uid,
            store_uuid: parts.store_uuid,
            started: now,
            capacity_bytes: parts.capacity_bytes,
            arena: parts.arena,
            index: parts.index,
            labels: parts.labels,
            session_bytes: parts.session_bytes,
            openings: parts.openings,
            populates: parts.populates,
            catalog: parts.catalog,
            space: parts.space,
            sessions: Sessions::default(),
            connections: HashMap::new(),
            scans: Scans::new(parts.scan_jobs),
            looks: Looks::new(parts.look_jobs),
            counters: Counters::default(),
            refusals: Refusals::default(),
            last_version: 0,
            last_id_ms: 0,
            demands: parts.demands,
            copies: parts.copies,
            grants: HashMap::new(),
            tickets: 0,
            commits: Commits::default(),
            unbinding_is_behind: false,
            slid: Vec::new(),
            after_expiry: Vec::new(),
            evictions: VecDeque::new(),
            evicting: false,
            eviction: None,
            deferred: Vec::new(),
            resumable: VecDeque::new(),
            listings: VecDeque::new(),
            childless: Vec::new(),
            shares: Shares::default(),
            waits: Waits::default(),
            met: VecDeque::new(),
            unbound_waited: Vec::new(),
            departed: Vec::new(),
            broken: Vec::new(),
            held: HeldRequests::new(&parts.options),
            starved: Vec::new(),
            gave_back: false,
            counts: Connections::new(&parts.options, descriptors),
            queued_output: 0,
            session_descriptors: half_of(descriptors),
            ready: Vec::new(),
            earliest_deadline: None,
            listener: Some(parts.listener),
            listening: true,
            refusals_logged: Throttle::default(),
            accept_at: None,
            next_connection: tokens::FIRST_CONNECTION,
            next_housekeeping: now + HOUSEKEEPING_EVERY,
            epoll,
            signals: parts.signals,
            owner: parts.owner,
            memory_limit: parts.memory_limit,
            wake: parts.wake,
            events: parts.events,
            helpers: parts.helpers,
            options: parts.options,
            closing: false,
            end: None,
        })
    }

    /// Serves until it is told to stop, then closes the store: tells readers, and gives back all memory that no pin
    /// holds.
    ///
    /// # Errors
    /// [`ServeError`] if it stopped for another reason; it has closed the store all the same.
    pub(crate) fn run(mut self) -> Result<(), ServeError> {
        let mut ready = vec![EpollEvent::empty(); 256];
        let mut polling = Polling::default();
        let mut requests = 0;
        let end = loop {
            let timeout = self.timeout();
            // Who has just been answered often asks again at once.
            let asked = std::mem::replace(&mut requests, self.counters.requests) != requests;
            let mut wait = |timeout| self.epoll.wait(&mut ready, timeout);
            let came = match asked && timeout != EpollTimeout::ZERO {
                true => polling
                    .look(Duration::ZERO, || Some(wait(EpollTimeout::ZERO)).filter(|came| *came != Ok(0))),
                false => None,
            };
            let count = match came.unwrap_or_else(|| wait(timeout)) {
                Ok(count) => count,
                Err(nix::Error::EINTR) => 0,
                Err(error) => break Err(error.into()),
            };
            self.shares.begin_turn();
            for event in &ready[..count] {
                self.on_event(event.data(), event.events());
            }
            if let Some(end) = self.end.take() {
                break end;
            }
            self.end_turn();
        };
        self.close();
        end
    }

    /// Ends the loop, unless something worse has ended it.
    fn stop(&mut self) {
        self.end.get_or_insert(Ok(()));
    }

    fn on_event(&mut self, token: u64, flags: EpollFlags) {
        match token {
            tokens::LISTENER => self.accept(),
            tokens::WAKE => self.on_wake(),
            tokens::SIGNALS => match self.signals.as_ref().and_then(Signals::next) {
                Some(came) if came.stops => {
                    tracing::info!("stopping: {came}");
                    self.stop();
                }
                Some(came) => tracing::info!("{came}: the store goes on; SIGTERM ends it"),
                None => {}
            },
            tokens::OWNER => self.on_owner_ended(),
            token if token & tokens::PROCESS != 0 => self.end_session(SessionId(token & !tokens::PROCESS)),
            token => self.on_connection(ConnectionId(token), flags),
        }
    }

    fn on_owner_ended(&mut self) {
        // Its pidfd is readable for good: once is enough.
        if self.owner.take().is_some() {
            tracing::info!("stopping: the owner has ended");
            self.stop();
        }
    }

    /// Whether the owner must be asked for: the kernel tells nobody when it ends.
    fn watches_owner(&self) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.pidfd().is_none())
    }

    /// What is due at the end of every turn.
    fn end_turn(&mut self) {
        for id in std::mem::take(&mut self.ready) {
            self.take_backlog(id);
        }
        self.free_backlog();
        self.resume_some();
        self.slide_deadlines();
        self.expire_bindings();
        self.unbind_ephemeral();
        self.evict();
        self.prepare_commits();
        self.work_off_commits();
        self.announce_unbound();
        self.answer_met();
        self.resume_after_expiry();
        self.list_on();
        for region in self.space.let_go() {
            self.copies.ask(CopyJob::LetGo(Box::new(region)));
        }
        let now = Instant::now();
        if self.earliest_deadline.is_some_and(|at| at <= now) {
            self.expire(now);
        }
        self.close_broken();
        if self.gave_back {
            self.feed_the_starved();
        }
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept_at = None;
            self.listen(true);
        }
        if now >= self.next_housekeeping {
            self.next_housekeeping = now + HOUSEKEEPING_EVERY;
            if self.watches_owner() && self.owner.as_ref().is_some_and(Owner::has_ended) {
                self.on_owner_ended();
            }
            self.start_collecting();
            self.looks.is_due |= self.sessions.orphan_count() > 0;
            // Since when a pin is held is known only where somebody looks. Many pins are looked at when asked for.
            if self.sessions.len() > 0 && self.scans.pin_count() <= HOUSEKEEPING_PINS_MAX {
                self.start_scan(Report::Listed);
            }
        }
        if self.looks.is_due && !self.looks.busy {
            self.start_look();
        }
        let waits_for_scan = self.space.has_candidates() || self.sessions.any_leaving();
        let scan_is_due = waits_for_scan && now.duration_since(self.scans.last) >= self.scans.every;
        if self.space.has_much_retired() || scan_is_due {
            self.start_scan(Report::Limbo);
        }
    }

    /// How long the loop may sleep.
    fn timeout(&self) -> EpollTimeout {
        let work = self.end.is_some()
            || self.commits.are_due()
            || self.space.has_backlog()
            || self.scans.ending.is_some();
        let work = work || !self.slid.is_empty() || self.eviction.is_some();
        let work = work || !self.departed.is_empty() || !self.unbound_waited.is_empty();
        let work = work || !self.resumable.is_empty() || !self.met.is_empty();
        let work = work || !self.listings.is_empty() || !self.childless.is_empty();
        debug_assert!(work || self.nothing_waits_in_vain(), "something waits that could go on");
        let can_feed = self.gave_back && !self.starved.is_empty();
        if work || !self.broken.is_empty() || !self.ready.is_empty() || can_feed {
            return EpollTimeout::ZERO;
        }
        let waits_for_scan = self.space.has_candidates() || self.sessions.any_leaving();
        let limbo = (waits_for_scan && !self.scans.busy).then(|| self.scans.last + self.scans.every);
        let keeps_house =
            self.sessions.len() > 0 || !self.scans.left_behind.is_empty() || self.watches_owner();
        let housekeeping = keeps_house.then_some(self.next_housekeeping);
        let next =
            self.earliest_deadline.into_iter().chain(limbo).chain(housekeeping).chain(self.accept_at).min();
        let next = next.map(|at| at.saturating_duration_since(Instant::now()));
        match next.into_iter().chain(self.until_next_expiry()).min() {
            None => EpollTimeout::NONE,
            Some(Duration::ZERO) => EpollTimeout::ZERO,
            Some(left) => {
                // Rounded up: waking a moment early would only mean another turn for nothing. A minute at most, for this
                // clock stands still while the machine is suspended, and that of expiry goes on.
                let ms = left.as_millis().saturating_add(1);
                EpollTimeout::try_from(ms.min(60_000)).unwrap_or(EpollTimeout::ZERO)
            }
        }
    }

    /// A listing that was put off, whose turn it is, unless a commit is half visible.
    pub(crate) fn next_listing(&mut self) -> Option<Listing> {
        if self.is_mid_commit() { None } else { self.listings.pop_front() }
    }

    /// Goes on with `listing` in another turn, behind the others.
    pub(crate) fn put_off_listing(&mut self, listing: Listing) {
        if self.connections.contains_key(&listing.reply_to.connection) {
            self.listings.push_back(listing);
        } else {
            self.give_back(listing.reply_to.held); // nobody will hear of it
        }
    }

    /// Whether what waits for the loop itself has a reason to. Each of these is looked at when its reason may have gone;
    /// one that was forgotten would be found here by every test that runs a store.
    fn nothing_waits_in_vain(&self) -> bool {
        let first = self.catalog.next_expiry().unwrap_or(u64::MAX);
        let is_mid_commit = self.is_mid_commit();
        self.after_expiry.iter().all(|&(as_of_ns, _)| as_of_ns >= first)
            && self
                .deferred
                .iter()
                .all(|it| is_mid_commit || it.as_of_ns.is_some_and(|as_of_ns| as_of_ns >= first))
            && (self.evicting || self.evictions.is_empty())
            && (self.scans.busy || (self.scans.current.is_empty() && self.scans.next.is_empty()))
    }

    fn next_ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    fn close(mut self) {
        self.listener = None;
        self.closing = true;
        self.finish_half_visible();
        self.catalog.close();
        self.refuse_the_rest();
        // The helpers end with their channels; population must not take back what is given back below.
        drop((self.demands, self.copies, self.scans.jobs, self.looks.jobs));
        for helper in self.helpers {
            let _ = helper.join(); // its panic was told to the loop
        }
        // The last scan is made here: there is no loop any more that it could hold up.
        let sessions = self.sessions.pin_regions();
        let pinned = pinned_of(self.space.offsets(), sessions);
        for hole in self.space.all_but(pinned) {
            if let Err(error) = self.arena.punch_hole(hole.offset, hole.len_bytes) {
                tracing::warn!(%error, "cannot give back the arena's memory; it goes with the last process that maps it");
                break;
            }
        }
        tracing::info!("stopped");
    }
}

fn listener_fd(listener: &Listener) -> std::os::fd::BorrowedFd<'_> {
    match listener {
        Listener::UdSocket(socket) => socket.as_fd(),
    }
}

//! The event loop: sockets, signals and helper threads on one side, the [state](crate::state) of the store on the other.
//!
//! The loop waits for events and for nothing else. In each turn it hands the events to the state, lets the state do
//! what is due (`STEPS` in `state/turn.rs`), and carries out the effects that the state leaves behind ([`Effect`]).
//! Slow work (population, scans of the pin tables, copies) happens on helper threads, which report to the loop.
//!
//! `Ready::serve` runs the loop once a store is prepared; it returns when the store has ended.

mod connections;

use crate::{
    budget::{Connections, HeldRequests},
    connection::{Broken, Connection, ConnectionId, READ_BYTES},
    copy::Copies,
    effect::Effect,
    fast_hash::FastMap,
    log::Throttle,
    owner::Owner,
    populate::Demands,
    reclaim::{Job, pinned_of},
    session::{Orphan, SessionId},
    signals::Signals,
    slice::Shares,
    state::{self, Due, HelperReport, State},
};
use interprocess::local_socket::Listener;
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    eventfd::EventFd,
};
use plasmon_shm::Polling;
use std::{
    os::fd::AsFd,
    sync::{
        Arc,
        mpsc::{Receiver, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How long accepting rests after descriptors ran out.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Connections accepted in one turn of the loop.
const ACCEPTS_PER_TURN: usize = 64;

/// Events noticed in one turn of the loop.
const EVENTS_PER_TURN: usize = 1_024;

/// Frames of one connection handled in one turn of the loop.
const FRAMES_PER_TURN: usize = 64;

/// How often each connection is read when the store stops: as often as empties the longest queue that the kernel keeps,
/// and no oftener, because a client that goes on asking must not keep the store from stopping.
const READS_AT_THE_END: usize = 256;

/// How often it is asked for the owner where the kernel tells nobody when it ends.
const OWNER_EVERY: Duration = Duration::from_secs(1);

/// What a helper thread, or whoever runs the server, tells the loop.
pub(crate) enum Event {
    Report(HelperReport),
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

    pub(crate) fn report(&self, report: HelperReport) {
        self.tell(Event::Report(report));
    }
}

/// The helper threads: where their work goes, and what they are waited for by.
pub(crate) struct Helpers {
    pub(crate) scans: Sender<Job>,
    pub(crate) looks: Sender<Vec<Orphan>>,
    pub(crate) demands: Demands,
    pub(crate) copies: Copies,
    pub(crate) threads: Vec<JoinHandle<()>>,
}

impl Helpers {
    /// Waits for the end of all of them: they end with their channels.
    fn join(self) {
        let Helpers { scans, looks, demands, copies, threads } = self;
        drop((scans, looks, demands, copies));
        for thread in threads {
            let _ = thread.join(); // its panic was told to the loop
        }
    }
}

/// The daemon.
pub(crate) struct Server {
    state: State,
    helpers: Helpers,

    connections: FastMap<ConnectionId, Connection>,
    /// Where the kernel puts what is read.
    read_buffer: Box<[u8]>,
    next_connection: u64,
    /// Bytes of requests that are incomplete or unanswered.
    held: HeldRequests,
    /// Connections whose next frame waits until less is held.
    starved: Vec<ConnectionId>,
    /// Whether less is held than when the starved were looked at.
    gave_back: bool,
    counts: Connections,
    /// Bytes of replies that all connections leave unread.
    queued_output: usize,
    /// Connections with frames that wait for the next turn.
    ready: Vec<ConnectionId>,
    broken: Vec<(ConnectionId, Broken)>,
    /// Sessions that were made for a child, and whose lifeline was closed before anybody has joined them.
    childless: Vec<SessionId>,
    /// What each process has had of the loop's time.
    shares: Shares,
    /// Whether there was more to be handled in the turn before than there was time for.
    is_crowded: bool,
    /// No frame or handshake runs out of time before this moment.
    earliest_deadline: Option<Instant>,

    listener: Option<Listener>,
    listening: bool,
    accept_at: Option<Instant>,
    /// How often it is logged that a connection was refused.
    refusals_logged: Throttle,

    epoll: Epoll,
    signals: Option<Signals>,
    /// The process that the store ends with.
    owner: Option<Owner>,
    ask_for_owner_at: Instant,
    wake: Arc<EventFd>,
    events: Receiver<Event>,
    /// Set when the loop is to end, and how.
    end: Option<Result<(), ServeError>>,
}

/// What start-up has made ready for the loop.
pub(crate) struct Parts {
    pub(crate) state: State,
    pub(crate) helpers: Helpers,
    /// Descriptors that the daemon may open.
    pub(crate) descriptors: usize,
    pub(crate) listener: Listener,
    pub(crate) signals: Option<Signals>,
    pub(crate) owner: Option<Owner>,
    pub(crate) wake: Arc<EventFd>,
    pub(crate) events: Receiver<Event>,
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

/// When something is to be done for connections or the owner, and how.
type Step = (fn(&Server) -> Due, fn(&mut Server));

/// What is done at the end of a turn besides what the state has to do, in this order.
const STEPS: &[Step] = &[
    (|server| Due::at(server.earliest_deadline), Server::break_off_late),
    (
        |server| Due::now_if(!server.broken.is_empty() || (server.listening && !server.childless.is_empty())),
        Server::close_broken,
    ),
    (|server| Due::now_if(server.gave_back && !server.starved.is_empty()), Server::feed_the_starved),
    (|server| Due::at(server.accept_at), Server::accept_again),
    (
        |server| if server.watches_owner() { Due::At(server.ask_for_owner_at) } else { Due::Never },
        Server::ask_for_owner,
    ),
];

impl Server {
    pub(crate) fn new(parts: Parts) -> nix::Result<Server> {
        let Parts { state, helpers, descriptors, listener, signals, owner, wake, events } = parts;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let readable = |token| EpollEvent::new(EpollFlags::EPOLLIN, token);
        epoll.add(listener_fd(&listener), readable(tokens::LISTENER))?;
        epoll.add(wake.as_fd(), readable(tokens::WAKE))?;
        if let Some(signals) = &signals {
            epoll.add(signals.as_fd(), readable(tokens::SIGNALS))?;
        }
        if let Some(pidfd) = owner.as_ref().and_then(Owner::pidfd) {
            epoll.add(pidfd, readable(tokens::OWNER))?;
        }
        Ok(Server {
            connections: FastMap::default(),
            read_buffer: vec![0; READ_BYTES].into(),
            next_connection: tokens::FIRST_CONNECTION,
            held: HeldRequests::new(&state.facts.options),
            starved: Vec::new(),
            gave_back: false,
            counts: Connections::new(&state.facts.options, descriptors),
            queued_output: 0,
            ready: Vec::new(),
            broken: Vec::new(),
            childless: Vec::new(),
            shares: Shares::default(),
            is_crowded: false,
            earliest_deadline: None,
            listener: Some(listener),
            listening: true,
            accept_at: None,
            refusals_logged: Throttle::default(),
            epoll,
            signals,
            owner,
            ask_for_owner_at: Instant::now() + OWNER_EVERY,
            wake,
            events,
            end: None,
            state,
            helpers,
        })
    }

    /// Serves until it is told to stop, then closes the store: tells readers, and gives back all memory that no pin
    /// holds.
    ///
    /// # Errors
    /// [`ServeError`] if it stopped for another reason; it has closed the store all the same.
    pub(crate) fn run(mut self) -> Result<(), ServeError> {
        let mut ready = vec![EpollEvent::empty(); EVENTS_PER_TURN];
        let mut polling = Polling::default();
        let mut requests = 0;
        let end = loop {
            let timeout = self.timeout();
            // Who has just been answered often asks again at once.
            let asked = std::mem::replace(&mut requests, self.state.counters.requests) != requests;
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
            // What there is no time for is noticed again in the next turn.
            let was_crowded = std::mem::take(&mut self.is_crowded);
            self.shares.begin_turn(was_crowded);
            if was_crowded {
                ready[..count].sort_by_cached_key(|event| self.place_of(event.data()));
            }
            for event in &ready[..count] {
                self.on_event(event.data(), event.events());
                self.carry_out();
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
            tokens::LISTENER => drop(self.accept()),
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
            token if token & tokens::PROCESS != 0 => {
                self.state.end_session(SessionId(token & !tokens::PROCESS));
            }
            token if self.shares.are_spent() => {
                self.is_crowded = true;
                self.place_of(token);
            }
            token => drop(self.on_connection(ConnectionId(token), flags)),
        }
    }

    /// What events are ordered by where there is no time for all of them: what concerns no connection comes first, then
    /// who has had least.
    pub(super) fn place_of(&mut self, token: u64) -> Option<Duration> {
        self.connections.get(&ConnectionId(token)).map(|connection| self.shares.wait(connection.peer))
    }

    fn on_wake(&mut self) {
        let _ = self.wake.read();
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Report(report) => {
                    self.state.on_report(report);
                    self.carry_out();
                }
                Event::HelperFailed(name) => self.end = Some(Err(ServeError::Helper { name })),
                Event::Stop => self.stop(),
            }
        }
    }

    fn on_owner_ended(&mut self) {
        // Its pidfd is readable for good: once is enough.
        if self.owner.take().is_some() {
            tracing::info!("stopping: the owner has ended");
            self.stop();
        }
    }

    fn ask_for_owner(&mut self) {
        self.ask_for_owner_at = Instant::now() + OWNER_EVERY;
        if self.owner.as_ref().is_some_and(Owner::has_ended) {
            self.on_owner_ended();
        }
    }

    /// Whether the owner must be asked for: the kernel tells nobody when it ends.
    fn watches_owner(&self) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.pidfd().is_none())
    }

    /// Does what is due, for a slice each: first frames that have come, then what the state has to do, then what
    /// connections need.
    fn end_turn(&mut self) {
        self.take_backlogs();
        self.turn_state();
        for (due, run) in STEPS {
            if due(self).is_now(&self.state.clock) {
                run(self);
                self.carry_out();
            }
        }
    }

    /// Has the state do what is due.
    fn turn_state(&mut self) {
        for step in state::STEPS {
            if step.run_if_due(&mut self.state) {
                self.carry_out();
            }
        }
    }

    /// How long the loop may sleep.
    fn timeout(&self) -> EpollTimeout {
        let own = STEPS.iter().map(|(due, _)| due(self)).min().unwrap_or(Due::Never);
        let ready = Due::now_if(!self.ready.is_empty() || self.end.is_some());
        match self.state.due().min(own).min(ready) {
            Due::Now => EpollTimeout::ZERO,
            Due::Never => EpollTimeout::NONE,
            Due::At(at) => match at.saturating_duration_since(Instant::now()) {
                Duration::ZERO => EpollTimeout::ZERO,
                left => {
                    // Rounded up: waking a moment early would only mean another turn for nothing. A minute at
                    // most, because this clock stands still while the machine is suspended, and that of expiry goes on.
                    let ms = left.as_millis().saturating_add(1);
                    EpollTimeout::try_from(ms.min(60_000)).unwrap_or(EpollTimeout::ZERO)
                }
            },
        }
    }

    /// Carries out what the state has left behind.
    fn carry_out(&mut self) {
        while let Some(effect) = self.state.next_effect() {
            self.carry_out_one(effect);
        }
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::Reply { to, reply, grant } => {
                let went_out = self.send(to, reply);
                if let Some(grant) = grant.filter(|_| !went_out) {
                    self.state.take_back(grant);
                }
            }
            Effect::Drop(to) => self.give_back(to.held),
            Effect::Settle(id, role) => {
                self.connections.get_mut(&id).into_iter().for_each(|connection| connection.settle(role));
            }
            Effect::CloseSoon(id) => {
                self.connections.get_mut(&id).into_iter().for_each(Connection::close_soon);
            }
            Effect::HangUp(id) => self.break_off(id, Broken::Closed),
            Effect::HearNewcomers(sessions) => self.childless.extend(sessions),
            Effect::WatchProcess(session) => self.watch_process(session),
            // Helpers end only when their channels are dropped.
            Effect::Scan(job) => drop(self.helpers.scans.send(job)),
            Effect::Look(orphans) => drop(self.helpers.looks.send(orphans)),
            Effect::Populate(ticket, steps) => self.helpers.demands.ask(ticket.0, steps),
            Effect::Copy(job) => self.helpers.copies.ask(job),
        }
    }

    fn watch_process(&mut self, id: SessionId) {
        let session = self.state.sessions.get(id);
        let Some(pidfd) = session.and_then(|session| session.pidfd.as_ref()) else { return };
        let event = EpollEvent::new(EpollFlags::EPOLLIN, tokens::PROCESS | id.0);
        if let Err(error) = self.epoll.add(pidfd.as_fd(), event) {
            tracing::warn!(%error, session = id.0, "cannot watch a client's process; it is looked at now and then");
        }
    }

    fn close(mut self) {
        self.listener = None;
        self.state.close();
        self.carry_out();
        self.refuse_the_rest();
        let Server { mut state, helpers, .. } = self;
        // The helpers end with their channels; population must not take back what is given back below.
        helpers.join();
        // The last scan is made here: there is no loop any more that it could hold up.
        let sessions = state.sessions.pin_regions();
        let pinned = pinned_of(state.objects.offsets(), sessions);
        let pinned = pinned.into_iter().filter_map(|offset| state.objects.at(offset));
        for hole in state.space.all_but(pinned.map(|object| object.homes.root()).collect()) {
            if let Err(error) = state.facts.arena.punch_hole(hole.offset, hole.len_bytes) {
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

//! This process's membership of a store: what is mapped, which connections are idle, which pins are held.

use crate::{
    connection::{CallError, Connection, Reached},
    error::{Error, Result},
    lease::KeptLease,
    process::unforked,
    slots::Slots,
};
use arc_swap::{ArcSwap, Guard};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use plasmon_protocol::{
    index::{Entry, IndexReader},
    index_of,
    limits::PIN_SLOTS,
    message::{AddRegion, Failure, Goodbye, Request, Welcome},
    pins::{HandOver, SessionRegion, pin_for},
};
use plasmon_shm::{
    BytesMapping, ClientRegion, CopyOnWriteMapping, FaultPoint, ForkMark, ReadOnlyWords, WordsMapping,
    boottime_ns, fault_point, monotonic_coarse_ns,
};
use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How long a look at the lifeline is good for.
const LOOK_AGAIN_AFTER_NS: u64 = 50_000_000;

/// Idle connections that are kept for the next call.
const IDLE_CONNECTIONS_MAX: usize = 8;

/// One region of pin slots.
#[derive(Debug)]
struct PinRegion {
    words: WordsMapping,
    slots: Slots,
}

/// This process's membership of a store.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) socket: PathBuf,
    pub(crate) store_uid: u32,
    /// Whether the store is run by this user or root.
    pub(crate) store_is_own: bool,
    pub(crate) welcome: Welcome,
    pub(crate) index: IndexReader<ReadOnlyWords>,
    /// Opened for reading only.
    arena: ClientRegion,
    bytes: BytesMapping,
    here: ArcSwap<Here>,
    regions: Vec<OnceLock<PinRegion>>,
    /// What to add to this process's CLOCK_BOOTTIME to get the daemon's, wrapping: time namespaces shift it.
    clock_offset_ns: u64,
    looked_ns: AtomicU64,
    gone: AtomicBool,
    /// Whether a child was forked that may still rest on pins of this process: they are not simply given back.
    hands_over: AtomicBool,
    /// Set in the process that began the session, or inherited it. A forked child that has not must touch neither its
    /// sockets nor its slots.
    mark: ForkMark,
    overflow_uid: u32,
    patience: Duration,
}

/// What of a session belongs to one process: a forked child that inherits the session gets its own.
#[derive(Debug)]
pub(crate) struct Here {
    token: [u8; 16],
    lifeline: Connection,
    /// `None` where this client may not write the arena itself: each lease then comes with a region to write into.
    pub(crate) writable: Option<ClientRegion>,
    /// Held while a region is asked for.
    growing: Mutex<()>,
    /// Locked by [`Session::private`] alone.
    private: Mutex<Private>,
}

/// What changes under a lock that no fork finds held.
#[derive(Debug, Default)]
pub(crate) struct Private {
    idle: Vec<Connection>,
    pub(crate) kept_lease: Option<KeptLease>,
    hand_overs: HandOvers,
}

/// Pins of this process that its children may rest on.
#[derive(Debug, Default)]
struct HandOvers {
    /// The first regions of children that have not filled them yet.
    waiting: Vec<WordsMapping>,
    /// Slots whose handles were dropped meanwhile.
    queued: Vec<u32>,
    /// Slots that a child rests on which has no session for it: they are never given back.
    kept: HashSet<u32>,
}

/// What the store has made ready for a child that is about to be forked.
#[derive(Debug)]
pub(crate) struct Heir {
    here: Arc<Here>,
    /// One for each of the parent's.
    regions: Vec<ClientRegion>,
    /// The first of them, for the parent to look at.
    first: Option<WordsMapping>,
}

impl Here {
    fn new(token: [u8; 16], lifeline: Connection, writable: Option<ClientRegion>) -> Here {
        Here { token, lifeline, writable, growing: Mutex::default(), private: Mutex::default() }
    }
}

impl Session {
    /// Begins a session on `lifeline`.
    pub(crate) fn begin(
        socket: &Path,
        store_uid: u32,
        mut lifeline: Connection,
        patience: Duration,
    ) -> Result<Session, CallError> {
        let asked_ns = boottime_ns();
        let (welcome, fds) = lifeline.begin_session(patience).map_err(|error| match error {
            // The first that is heard of it makes no sense.
            CallError::Other(said) => {
                CallError::Other(Error::NotAStore { socket: socket.to_owned(), said: said.to_string() })
            }
            error => error,
        })?;
        fault_point(FaultPoint::Welcomed);
        let clock_offset_ns = clock_offset_ns(asked_ns, welcome.boottime_ns, boottime_ns());
        Session::attach(socket, store_uid, lifeline, welcome, clock_offset_ns, fds, patience)
            .map_err(CallError::Other)
    }

    fn attach(
        socket: &Path,
        store_uid: u32,
        lifeline: Connection,
        welcome: Welcome,
        clock_offset_ns: u64,
        fds: Vec<OwnedFd>,
        patience: Duration,
    ) -> Result<Session> {
        let named = |number: usize| welcome.region_names.get(number).map(String::as_str);
        let mut fds = fds.into_iter();
        let mut region = |number: usize, len_bytes: u64, writable: bool| -> Result<ClientRegion> {
            match named(number) {
                Some(name) => Ok(ClientRegion::from_name(name, len_bytes, writable)?),
                None => {
                    let fd =
                        fds.next().ok_or_else(|| Error::internal("the store sent too few descriptors"))?;
                    Ok(ClientRegion::from_fd(fd, len_bytes)?)
                }
            }
        };
        let index = region(0, welcome.index_bytes, false)?;
        let arena = region(1, welcome.arena_bytes, false)?;
        let pins = region(2, welcome.session_bytes, true)?;
        let writable = match (welcome.writable, welcome.region_names.is_empty()) {
            (false, _) => None,
            (true, true) => Some(region(3, welcome.arena_bytes, true)?),
            (true, false) => Some(region(1, welcome.arena_bytes, true)?),
        };
        let words = pins.map_words()?;
        SessionRegion::open(words.words())?;
        let regions_max = index_of(u64::from(welcome.pins_max.div_ceil(PIN_SLOTS))).max(1);
        let regions: Vec<OnceLock<PinRegion>> = (0..regions_max).map(|_| OnceLock::new()).collect();
        let slots = Slots::new(slots_of_region(0, welcome.pins_max))?;
        regions[0].get_or_init(|| PinRegion { words, slots });
        Ok(Session {
            socket: socket.to_owned(),
            store_uid,
            store_is_own: crate::store::is_own(store_uid),
            index: IndexReader::open(index.map_words_read_only()?)?,
            bytes: arena.map_bytes_read_only()?,
            arena,
            here: ArcSwap::from_pointee(Here::new(welcome.token, lifeline, writable)),
            regions,
            clock_offset_ns,
            looked_ns: AtomicU64::new(monotonic_coarse_ns()),
            gone: AtomicBool::new(false),
            hands_over: AtomicBool::new(false),
            mark: ForkMark::new()?,
            overflow_uid: plasmon_shm::overflow_uid(),
            patience,
            welcome,
        })
    }

    /// Whether the store still answers for this session, as far as a look at most 50 ms old can tell. Costs some
    /// nanoseconds, and a system call each 50 ms.
    ///
    /// Never alive in a forked child that has not inherited it: that begins a session of its own.
    #[inline]
    pub(crate) fn is_alive(&self) -> bool {
        if !self.mark.is_here() {
            return false;
        }
        let now_ns = monotonic_coarse_ns();
        let looked_ns = self.looked_ns.load(Ordering::Relaxed);
        if now_ns.wrapping_sub(looked_ns) >= LOOK_AGAIN_AFTER_NS {
            self.look(now_ns);
        }
        !self.gone.load(Ordering::Relaxed) && !self.index.is_closed()
    }

    #[cold]
    fn look(&self, now_ns: u64) {
        self.looked_ns.store(now_ns, Ordering::Relaxed);
        let here = self.here();
        let mut fds = [PollFd::new(here.lifeline.as_fd(), PollFlags::POLLIN)];
        // The lifeline carries nothing: whatever happens on it is its end. So is its being closed by something else in
        // this process, or that of the regions from which mappings are still to be made.
        let are_ours = here.lifeline.is_ours()
            && self.arena.fd().is_ok()
            && here.writable.as_ref().is_none_or(|arena| arena.fd().is_ok());
        if !are_ours || poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
            self.lose();
        }
    }

    /// What of the session belongs to this process.
    pub(crate) fn here(&self) -> Guard<Arc<Here>> {
        self.here.load()
    }

    /// Does something that a fork must not find half done. It never waits, and drops neither a handle nor a session.
    pub(crate) fn private<T>(&self, what: impl FnOnce(&mut Private) -> T) -> T {
        let _unforked = unforked();
        let here = self.here();
        let mut private = here.private.lock().unwrap_or_else(PoisonError::into_inner);
        what(&mut private)
    }

    /// Whether the lifeline is still open: something else in this process may have closed it, which the store takes for
    /// the session's end.
    pub(crate) fn is_ours(&self) -> bool {
        self.here().lifeline.is_ours()
    }

    /// Whether the store has not hung up, whatever else was lost.
    pub(crate) fn store_lives(&self) -> bool {
        let here = self.here();
        let mut fds = [PollFd::new(here.lifeline.as_fd(), PollFlags::POLLIN)];
        self.is_here() && here.lifeline.is_ours() && poll(&mut fds, PollTimeout::ZERO) == Ok(0)
    }

    /// Whether this process began the session or inherited it whole: false in other forked children.
    pub(crate) fn is_here(&self) -> bool {
        self.mark.is_here()
    }

    /// Notes that the store is gone.
    pub(crate) fn lose(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// The daemon's CLOCK_BOOTTIME now, in nanoseconds.
    pub(crate) fn store_clock_ns(&self) -> u64 {
        let now_ns = boottime_ns().wrapping_add(self.clock_offset_ns);
        fault_point(FaultPoint::ClockRead);
        now_ns
    }

    /// Whether what this uid wrote is believed: it is this user, as the daemon sees him, or root.
    pub(crate) fn trusts(&self, writer_uid: u32) -> bool {
        plasmon_protocol::trust::is_own(writer_uid, self.welcome.uid, self.overflow_uid)
    }

    // Requests.

    /// Sends a request on a connection of its own and waits for the answer, as long as is usual.
    pub(crate) fn call<R: Request>(&self, request: &R) -> Result<R::Reply, CallError> {
        self.call_for(request, Some(self.patience))
    }

    /// As [`call`](Self::call), with the longest wait given.
    pub(crate) fn call_for<R: Request>(
        &self,
        request: &R,
        patience: Option<Duration>,
    ) -> Result<R::Reply, CallError> {
        self.on_a_connection(|connection| connection.call(request, patience))
    }

    /// Sends a request on a connection of its own, which [`finish_call`](Self::finish_call) hears the answer on.
    pub(crate) fn begin_call<R: Request>(&self, request: &R) -> Result<Connection, CallError> {
        let mut connection = self.check_out()?;
        connection.send(request)?;
        Ok(connection)
    }

    /// Waits for the answer to a request that was begun, for as long as it takes.
    pub(crate) fn finish_call<R: Request>(&self, mut connection: Connection) -> Result<R::Reply, CallError> {
        if !self.mark.is_here() {
            // A forked child: the answer is its parent's.
            return Err(CallError::Lost { source: io::ErrorKind::NotConnected.into(), sent: false });
        }
        let result = connection.receive(None);
        self.keep(connection, &result);
        result
    }

    /// As [`call`](Self::call), for an answer that takes as long as it takes: a store that answers others meanwhile is at
    /// work on it.
    pub(crate) fn call_at_length<R: Request>(&self, request: &R) -> Result<R::Reply, CallError> {
        self.on_a_connection(|connection| {
            connection.call_at_length(request, self.patience, || self.answers_others())
        })
    }

    /// As [`call_at_length`](Self::call_at_length), for an answer that comes with descriptors.
    pub(crate) fn call_with_fds<R: Request>(
        &self,
        request: &R,
    ) -> Result<(R::Reply, Vec<OwnedFd>), CallError> {
        self.on_a_connection(|connection| {
            connection.call_with_fds(request, self.patience, || self.answers_others())
        })
    }

    /// Fails if the store stands still: it does not answer on a new connection either. That it is gone is seen by who
    /// waits.
    fn answers_others(&self) -> Result<(), CallError> {
        let another = self.join(self.patience).and_then(|mut another| {
            another.joined(self.patience)?;
            Ok(another)
        });
        match another {
            Ok(another) => self.check_in(another),
            Err(CallError::TimedOut) => return Err(CallError::TimedOut),
            // So many wait to be accepted that this one cannot even wait.
            Err(CallError::Lost { source, .. }) if source.kind() == io::ErrorKind::TimedOut => {
                return Err(CallError::TimedOut);
            }
            Err(_) => {}
        }
        Ok(())
    }

    fn on_a_connection<T>(
        &self,
        call: impl FnOnce(&mut Connection) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let mut connection = self.check_out()?;
        let result = call(&mut connection);
        self.keep(connection, &result);
        result
    }

    /// Keeps a connection for the next request, unless this one broke it.
    fn keep<T>(&self, connection: Connection, result: &Result<T, CallError>) {
        if connection.is_usable() && matches!(result, Ok(_) | Err(CallError::Failed(_))) {
            self.check_in(connection);
        }
    }

    fn check_out(&self) -> Result<Connection, CallError> {
        let not_sent = |source| CallError::Lost { source, sent: false };
        if !self.mark.is_here() {
            return Err(not_sent(io::ErrorKind::NotConnected.into())); // a forked child: the connections are its parent's
        }
        if self.hands_over.load(Ordering::Relaxed) {
            self.private(|private| self.settle(&mut private.hand_overs));
        }
        let idle = self.private(|private| private.idle.pop()).filter(Connection::is_ours);
        let joining = match idle {
            Some(connection) => Ok(connection),
            None => self.join(self.patience),
        };
        let joined = joining.and_then(|mut connection| {
            connection.joined(self.patience)?;
            Ok(connection)
        });
        match joined {
            Ok(connection) => Ok(connection),
            // Whatever happened here, the request itself was not sent.
            Err(CallError::Lost { source, .. }) => Err(not_sent(source)),
            // Another store listens there now, or this one is about to end.
            Err(CallError::Failed(Failure::UnknownSession | Failure::ShuttingDown)) => {
                Err(not_sent(io::ErrorKind::ConnectionReset.into()))
            }
            Err(error) => Err(error),
        }
    }

    /// A connection that has asked to join this session.
    fn join(&self, patience: Duration) -> Result<Connection, CallError> {
        let not_sent = |source| CallError::Lost { source, sent: false };
        let Reached { mut connection, store_uid } =
            Connection::open(&self.socket, patience).map_err(not_sent)?;
        if store_uid != self.store_uid {
            // Somebody else listens there now. It gets neither the token nor the request.
            return Err(not_sent(io::ErrorKind::PermissionDenied.into()));
        }
        connection.join(self.here().token)?;
        Ok(connection)
    }

    fn check_in(&self, connection: Connection) {
        let surplus = self.private(|private| {
            if private.idle.len() >= IDLE_CONNECTIONS_MAX {
                return Some(connection);
            }
            private.idle.push(connection);
            None
        });
        drop(surplus);
    }

    // Pins.

    /// Takes a free pin slot, asking for another region if all are in use.
    #[inline]
    pub(crate) fn take_slot(self: &Arc<Self>) -> Result<Slot, Error> {
        if self.hands_over.load(Ordering::Relaxed) {
            self.private(|private| self.settle(&mut private.hand_overs));
        }
        loop {
            for (number, region) in self.regions.iter().enumerate() {
                let Some(region) = region.get() else {
                    self.grow(number)?;
                    break; // and try from the beginning: others may have given slots back
                };
                if let Some(slot) = region.slots.take() {
                    // Fits: there are at most `pins_max` slots, a u32.
                    let number = u32::try_from(number).unwrap_or(u32::MAX);
                    let number = number * PIN_SLOTS + slot;
                    fault_point(FaultPoint::SlotTaken);
                    return Ok(Slot { session: Arc::clone(self), number });
                }
                if number + 1 == self.regions.len() {
                    let what =
                        "pins of one process (--max-pins); drop handles that are no longer needed".to_owned();
                    return Err(Error::TooMany { what, limit: self.welcome.pins_max.into() });
                }
            }
        }
    }

    #[cold]
    fn grow(&self, number: usize) -> Result<()> {
        let here = self.here();
        let _growing = here.growing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.regions[number].get().is_some() {
            return Ok(()); // another thread was faster
        }
        let answer = self.call_with_fds(&AddRegion {});
        let (added, fds) = answer.map_err(|error| self.explain(error))?;
        fault_point(FaultPoint::RegionAdded);
        let region = match fds.into_iter().next() {
            Some(fd) => ClientRegion::from_fd(fd, self.welcome.session_bytes)?,
            None => ClientRegion::from_name(&added.name, self.welcome.session_bytes, true)?,
        };
        let words = region.map_words()?;
        SessionRegion::open(words.words())?;
        match self.regions.get(index_of(added.region.into())) {
            Some(place) => {
                let slots = Slots::new(slots_of_region(added.region, self.welcome.pins_max))?;
                let _unforked = unforked();
                drop(place.set(PinRegion { words, slots }));
            }
            None => return Err(Error::internal(format!("the store added region {}", added.region))),
        }
        Ok(())
    }

    fn region(&self, slot: u32) -> (&PinRegion, u32) {
        let region = self.regions[index_of(u64::from(slot / PIN_SLOTS))].get();
        (region.expect("a slot was taken from a region that is there"), slot % PIN_SLOTS)
    }

    fn give_back(&self, number: u32) {
        let (region, slot) = self.region(number);
        fault_point(FaultPoint::Unpin);
        SessionRegion::assume_checked(region.words.words()).withdraw(slot);
        fault_point(FaultPoint::Unpinned);
        region.slots.give_back(slot);
    }

    // Forks. `process` says what is done when.

    /// Whether this process has handles that a forked child would inherit.
    pub(crate) fn holds_pins(&self) -> bool {
        self.mark.is_here()
            && self
                .regions
                .iter()
                .filter_map(OnceLock::get)
                .any(|region| region.slots.held().next().is_some())
    }

    fn regions_in_use(&self) -> usize {
        self.regions.iter().take_while(|region| region.get().is_some()).count()
    }

    /// Has the store make a session for a child that is about to be forked. `None` if it does not, or not in time.
    pub(crate) fn make_heir(&self, deadline: Instant) -> Option<Heir> {
        if !self.is_alive() {
            return None;
        }
        let here = self.here.load_full();
        let left = || self.patience.min(deadline.saturating_duration_since(Instant::now()));
        let Reached { mut connection, store_uid } = Connection::open(&self.socket, left()).ok()?;
        if store_uid != self.store_uid {
            return None;
        }
        let count = self.regions_in_use();
        let (added, fds) = connection.begin_child(here.token, u32::try_from(count).ok()?, left()).ok()?;
        let len_bytes = self.welcome.session_bytes;
        let regions = match added.region_names.is_empty() {
            true => fds.into_iter().map(|fd| ClientRegion::from_fd(fd, len_bytes)).collect(),
            false => {
                added.region_names.iter().map(|name| ClientRegion::from_name(name, len_bytes, true)).collect()
            }
        };
        let regions: Vec<ClientRegion> = Result::ok(regions)?;
        let first = regions.first()?.map_words().ok()?;
        SessionRegion::open(first.words()).ok()?;
        let writable = here.writable.as_ref().map(ClientRegion::for_child).transpose().ok()?;
        let here = Arc::new(Here::new(added.token, connection, writable));
        (regions.len() == count).then_some(Heir { here, regions, first: Some(first) })
    }

    /// Before the fork, with the gate closed: from now on no pin of this process is given back before the child has its
    /// own. Takes the heir back if it does not fit any more.
    pub(crate) fn begin_hand_over(&self, heir: &mut Option<Heir>) {
        let here = self.here();
        let mut private = here.private.lock().unwrap_or_else(PoisonError::into_inner);
        *heir = heir.take().filter(|heir| heir.regions.len() == self.regions_in_use());
        match heir.as_mut().and_then(|heir| heir.first.take()) {
            Some(first) => private.hand_overs.waiting.push(first),
            None => private.hand_overs.kept.extend(self.held().map(|(_, slot, _)| slot)),
        }
        // Seen by whoever drops a handle after the fork: the kernel makes all of this process's memory read-only for
        // the child's copy, on every processor, between this store and anything that the copy misses.
        self.hands_over.store(true, Ordering::SeqCst);
    }

    /// In the child, with the gate closed: the session is this process's from now on.
    pub(crate) fn inherit(&self, heir: Heir) {
        let Heir { here, regions, .. } = heir;
        for (mine, of_child) in self.regions.iter().zip(&regions) {
            if mine.get().is_none_or(|mine| mine.words.replace(of_child).is_err()) {
                // As if there had been no heir; but its lifeline stays open, so that the parent keeps its pins.
                std::mem::forget(here);
                return;
            }
        }
        fault_point(FaultPoint::ForkMapped);
        let of_parent = self.here.swap(here);
        let mut private = of_parent.private.lock().unwrap_or_else(PoisonError::into_inner);
        for number in std::mem::take(&mut private.hand_overs.queued) {
            let (region, slot) = self.region(number);
            region.slots.give_back(slot); // dropped before the fork
        }
        drop(private);
        for (region, _, (slot, pin)) in self.held() {
            SessionRegion::assume_checked(region.words.words()).publish(slot, pin);
        }
        fault_point(FaultPoint::ForkCopied);
        self.lease_words().set_filled();
        fault_point(FaultPoint::ForkFilled);
        self.hands_over.store(false, Ordering::Relaxed);
        self.looked_ns.store(monotonic_coarse_ns(), Ordering::Relaxed);
        self.gone.store(false, Ordering::Relaxed);
        self.mark.renew();
    }

    /// In the child: tells the store which process it is. Waits for nobody; what does not succeed, the child's first
    /// request will do.
    pub(crate) fn introduce(&self) {
        if self.is_here()
            && let Ok(connection) = self.join(Duration::ZERO)
        {
            self.check_in(connection);
        }
    }

    /// All that is pinned: region, number of the slot through all regions, slot in the region and pin.
    fn held(&self) -> impl Iterator<Item = (&PinRegion, u32, (u32, u64))> {
        let regions =
            self.regions.iter().filter_map(OnceLock::get).zip((0..).step_by(index_of(PIN_SLOTS.into())));
        regions.flat_map(|(region, first): (_, u32)| {
            region.slots.held().map(move |(slot, pin)| (region, first + slot, (slot, pin)))
        })
    }

    /// The handle in slot `number` was dropped while a child may rest on its pin.
    #[cold]
    fn give_back_later(&self, number: u32) {
        self.private(|Private { hand_overs, .. }| {
            if !hand_overs.kept.contains(&number) {
                hand_overs.queued.push(number);
            }
            self.settle(hand_overs);
        });
    }

    /// Gives back what was queued, once every child has filled its regions or is gone.
    #[cold]
    fn settle(&self, hand_overs: &mut HandOvers) {
        let is_waiting = |first: &WordsMapping| {
            SessionRegion::assume_checked(first.words()).hand_over() == HandOver::Waiting
        };
        hand_overs.waiting.retain(is_waiting);
        if hand_overs.waiting.is_empty() {
            hand_overs.queued.drain(..).for_each(|number| self.give_back(number));
            self.hands_over.store(!hand_overs.kept.is_empty(), Ordering::Relaxed);
        }
    }

    /// Notes that the binding in index entry `number` was recalled.
    #[inline]
    pub(crate) fn note_access(&self, number: u32) {
        if let Some(region) = self.regions[0].get() {
            SessionRegion::assume_checked(region.words.words()).note_access(number);
        }
    }

    /// The words of the first session region, where lease states are.
    pub(crate) fn lease_words(&self) -> SessionRegion<'_> {
        let region = self.regions[0].get().expect("a session begins with a region");
        SessionRegion::assume_checked(region.words.words())
    }

    /// Where the bytes of an object lie in this process, if they lie inside the arena. They may be read only while a
    /// pin for the object is held.
    pub(crate) fn pointer(&self, offset: u64, len_bytes: u64) -> Option<NonNull<u8>> {
        self.bytes.pointer(offset, len_bytes)
    }

    /// Maps the bytes of an object once more, to be written by this process without changing them. As for
    /// [`pointer`](Self::pointer), a pin for the object is held as long as they are read.
    pub(crate) fn map_copy_on_write(&self, offset: u64, len_bytes: u64) -> Result<CopyOnWriteMapping> {
        Ok(self.arena.map_copy_on_write(offset, len_bytes)?)
    }

    /// What a failed call means to the caller, for calls that change nothing.
    pub(crate) fn explain(&self, error: CallError) -> Error {
        match error {
            CallError::Failed(failure) => match failure.into() {
                Error::StoreUnavailable { .. } => {
                    self.lose();
                    Error::StoreUnavailable { sockets: vec![self.socket.clone()], source: None }
                }
                error => error,
            },
            CallError::Lost { source, .. } => {
                self.lose();
                Error::StoreUnavailable { sockets: vec![self.socket.clone()], source: Some(source) }
            }
            CallError::TimedOut => Error::NoAnswer { socket: self.socket.clone(), waited: self.patience },
            CallError::Other(error) => error,
        }
    }
}

/// Slots of region number `region` that may be used, so that all regions together have `pins_max`.
fn slots_of_region(region: u32, pins_max: u32) -> u32 {
    pins_max.saturating_sub(region.saturating_mul(PIN_SLOTS)).min(PIN_SLOTS)
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.mark.is_here() {
            return; // the session is the parent's
        }
        // Unmapped before the store lends the pages to others. Pins that a forked child may still rest on stay, and the
        // session with them, until this process ends.
        let kept = self.private(|private| {
            self.settle(&mut private.hand_overs);
            private.kept_lease.take()
        });
        drop(kept);
        // No handle is left. The store would notice the end of the process by itself; saying goodbye frees what this
        // session holds while the process lives on.
        if let Ok(mut connection) = self.check_out() {
            fault_point(FaultPoint::Goodbye);
            let _ = connection.send(&Goodbye {});
        }
    }
}

/// The number of no slot: there are at most `u32::MAX` of them, counted from 0.
const ABANDONED: u32 = u32::MAX;

/// A pin slot of this process, given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    session: Arc<Session>,
    /// Or [`ABANDONED`]: a field of its own would cost every recall a fifteenth of its time.
    number: u32,
}

impl Slot {
    /// The slot's number, counted through all regions.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Publishes a pin for the object that `entry` names. It protects nothing until the index was looked at again.
    #[inline]
    pub(crate) fn publish(&self, entry: &Entry) {
        self.publish_at(entry.offset);
    }

    /// Publishes a pin for the object that begins at `offset`.
    #[inline]
    pub(crate) fn publish_at(&self, offset: u64) {
        let (region, slot) = self.session.region(self.number);
        let pin = pin_for(offset);
        region.slots.note(slot, pin);
        SessionRegion::assume_checked(region.words.words()).publish(slot, pin);
        fault_point(FaultPoint::PinPublished);
    }

    /// Notes that the daemon has published a pin here on this client's behalf.
    pub(crate) fn published_by_store(&self, offset: u64) {
        let (region, slot) = self.session.region(self.number);
        region.slots.note(slot, pin_for(offset));
    }

    /// Never gives the slot back, for the store was asked to pin in it and has not answered.
    ///
    /// It may still do so: if the slot were in use for another object by then, its pin would be overwritten, and that
    /// object reused under its reader. Left alone, the worst is that an object stays until this session ends.
    pub(crate) fn abandon(mut self) {
        self.number = ABANDONED;
    }
}

impl Drop for Slot {
    #[inline]
    fn drop(&mut self) {
        // In a forked child the slot is the parent's, and the object rests on the parent's pin.
        if self.number == ABANDONED || !self.session.mark.is_here() {
            return;
        }
        if self.session.hands_over.load(Ordering::Relaxed) {
            self.session.give_back_later(self.number);
        } else {
            self.session.give_back(self.number);
        }
    }
}

/// What the daemon's CLOCK_BOOTTIME is ahead of this process's, wrapping: it said `said_ns` between `asked_ns` and
/// `heard_ns` here. Nothing, where that is the same clock; in another time namespace so much that what has expired there
/// has expired here, and by the time that the answer took too much.
fn clock_offset_ns(asked_ns: u64, said_ns: u64, heard_ns: u64) -> u64 {
    if (asked_ns..=heard_ns).contains(&said_ns) { 0 } else { said_ns.wrapping_sub(asked_ns) }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::{Blob, Brain, testing::Store};
    use plasmon_store::testing::Running;

    /// The store may still pin in a slot that it was asked to and gave no answer about.
    #[test]
    fn an_abandoned_slot_is_never_taken_again_and_a_dropped_one_is() {
        let store = Store::start(1 << 20).unwrap();
        let session = store.connect().unwrap().session().unwrap();
        let first = session.take_slot().unwrap();
        let number = first.number();
        drop(first);
        let again = session.take_slot().unwrap();
        assert_eq!(again.number(), number);
        again.abandon();
        let slots: Vec<Slot> = (0..200).map(|_| session.take_slot().unwrap()).collect();
        assert!(slots.iter().all(|slot| slot.number() != number));
    }

    #[test]
    fn the_same_clock_is_told_from_another_one() {
        assert_eq!(clock_offset_ns(100, 100, 130), 0);
        assert_eq!(clock_offset_ns(100, 130, 130), 0);
        // What another one shows is taken as late as it can be: nothing is found after its deadline.
        assert_eq!(clock_offset_ns(100, 5_000, 130), 4_900);
        assert_eq!(5_000_u64.wrapping_add(clock_offset_ns(5_000, 100, 5_030)), 100);
    }

    #[test]
    fn as_many_objects_are_held_as_the_store_allows_and_dropping_one_makes_room() {
        for (pins_max, allowed) in [(100, 100), (65_546, 65_546)] {
            let store = Running::start_with(1 << 20, |options| options.max_pins = pins_max).unwrap();
            let brain = Brain::builder().path(store.socket()).connect().unwrap();
            brain.learn("a", &[1_u8; 100]).unwrap();
            let mut held: Vec<Blob> = (0..allowed).map(|_| brain.recall("a").unwrap()).collect();
            let refused = brain.recall::<Blob>("a");
            assert!(matches!(refused, Err(Error::TooMany { .. })), "{refused:?}");
            held.pop();
            held.push(brain.recall("a").unwrap());
            assert_eq!(brain.stats().unwrap().pins, u64::from(pins_max));
        }
    }
}

//! This process's membership of a store: what is mapped, which connections are idle, which pins are held.

mod fork;
mod pins;
mod pool;

use crate::{
    connection::{CallError, Connection},
    error::{Error, Result},
    gate::{self, Known, unforked},
    kept::KeptLease,
    slots::Slots,
    trust,
};
use arc_swap::{ArcSwap, Guard};
use fork::HandOvers;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pins::{PinRegion, slots_of_region};
use plasmon_protocol::{
    index::IndexReader,
    index_of,
    limits::PIN_SLOTS,
    message::{Goodbye, Welcome},
    pins::SessionRegion,
};
use plasmon_shm::{
    BytesMapping, ClientRegion, CopyOnWriteMapping, FaultPoint, ForkMark, ReadOnlyWords, boottime_ns,
    fault_point, monotonic_coarse_ns,
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

pub(crate) use pins::Slot;

/// All sessions of this process. Nothing here can be configured.
static SESSIONS: Known<Session> = Known::new();

/// How long a look at the lifeline is good for.
const LOOK_AGAIN_AFTER_NS: u64 = 50_000_000;

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
    /// How many forks lie between the process that began the session and this one, which inherited it.
    forks: AtomicU32,
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
            store_is_own: trust::is_own(store_uid),
            index: IndexReader::open(index.map_words_read_only()?)?,
            bytes: arena.map_bytes_read_only()?,
            arena,
            here: ArcSwap::from_pointee(Here::new(welcome.token, lifeline, writable)),
            forks: AtomicU32::new(0),
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

    /// All sessions that something of this process holds, inherited ones as well.
    pub(crate) fn all() -> Vec<Arc<Session>> {
        SESSIONS.all()
    }

    /// From now on the session is handed over at every fork.
    ///
    /// # Errors
    /// If the C library cannot note that it is to tell of forks.
    pub(crate) fn become_known(self: &Arc<Self>) -> io::Result<()> {
        gate::tell(&SESSIONS)?;
        SESSIONS.add(self);
        Ok(())
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

    /// How many forks lie between the process that began the session and this one: what the store keeps for one of them it
    /// does not keep for the others.
    pub(crate) fn forks(&self) -> u32 {
        self.forks.load(Ordering::Relaxed)
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

/// How far the daemon's CLOCK_BOOTTIME is ahead of this process's, wrapping. The daemon read `said_ns` on its clock
/// between `asked_ns` and `heard_ns` on ours.
///
/// The result is zero if `said_ns` lies between our two readings, because both clocks are then taken for the same.
/// Otherwise the daemon is in another time namespace, and the result is the largest lead that the answer allows. This
/// process may then see a binding expire too early, by at most the time that the answer took, but never too late.
fn clock_offset_ns(asked_ns: u64, said_ns: u64, heard_ns: u64) -> u64 {
    if (asked_ns..=heard_ns).contains(&said_ns) { 0 } else { said_ns.wrapping_sub(asked_ns) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_clock_is_told_from_another_one() {
        assert_eq!(clock_offset_ns(100, 100, 130), 0);
        assert_eq!(clock_offset_ns(100, 130, 130), 0);
        // What another one shows is taken as late as it can be: nothing is found after its deadline.
        assert_eq!(clock_offset_ns(100, 5_000, 130), 4_900);
        assert_eq!(5_000_u64.wrapping_add(clock_offset_ns(5_000, 100, 5_030)), 100);
    }
}

//! The gate of forks: what of this process a forked child must not find half done, and who is told of a fork.
//!
//! A forked child has a copy of everything, at one instant. Whoever does something for a moment that a copy must not be
//! made of holds the gate open for so long ([`unforked`]); a fork begins with nobody inside. Before it, in the thread
//! that forks (*prepare*), everybody who is to be told makes ready what he hands over; after it, the parent and the
//! child each go on with that. What is handed over is no matter of this module: for sessions it stands in
//! `session/fork.rs`.

use plasmon_shm::{FaultPoint, fault_point};
use std::{
    cell::RefCell,
    io,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak},
    time::{Duration, Instant},
};

/// How long a fork waits for what is made ready, at most.
const PREPARE_TIME_MAX: Duration = Duration::from_secs(1);

/// Who is told of forks. The lock is the gate itself.
static GATE: RwLock<Vec<&'static dyn AtFork>> = RwLock::new(Vec::new());

/// Who is told when this process is about to be forked.
pub(crate) trait AtFork: Sync {
    /// In the thread that forks, with the gate open: makes ready what is handed over, by `deadline`.
    fn prepare(&'static self, deadline: Instant) -> Box<dyn Handed>;
}

/// What is handed over at one fork. It is dropped with the gate open.
pub(crate) trait Handed {
    /// In the parent, right before the fork, with the gate closed.
    fn begin(&mut self) {}

    /// In the child, with the gate closed.
    fn inherit(&mut self);

    /// In the child, with the gate open again.
    fn introduce(&mut self) {}
}

/// From now on `observer` is told of every fork.
///
/// # Errors
/// If the C library cannot note that it is to tell.
pub(crate) fn tell(observer: &'static dyn AtFork) -> io::Result<()> {
    let mut told = close();
    if told.iter().any(|known| std::ptr::addr_eq(*known, observer)) {
        return Ok(());
    }
    if told.is_empty() {
        plasmon_shm::at_fork(prepare, parent, child).map_err(io::Error::other)?;
    }
    told.push(observer);
    Ok(())
}

/// While it lives no fork of this process begins.
pub(crate) struct Unforked(
    #[expect(dead_code, reason = "held, not looked at")] RwLockReadGuard<'static, Vec<&'static dyn AtFork>>,
);

/// Keeps forks out, so that a child never finds what is done meanwhile half done. For moments only: what is done never
/// waits, drops no handle, and asks for this no second time.
pub(crate) fn unforked() -> Unforked {
    Unforked(GATE.read().unwrap_or_else(PoisonError::into_inner))
}

fn close() -> RwLockWriteGuard<'static, Vec<&'static dyn AtFork>> {
    GATE.write().unwrap_or_else(PoisonError::into_inner)
}

/// All of one kind that something of this process holds. No fork finds the list half changed, and what is taken out of it
/// is dropped with the gate open: the last reference to a session says goodbye to its store.
pub(crate) struct Known<T>(Mutex<Vec<Weak<T>>>);

impl<T> Known<T> {
    pub(crate) const fn new() -> Known<T> {
        Known(Mutex::new(Vec::new()))
    }

    /// All that are held, inherited ones as well.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        let _unforked = unforked();
        self.all_behind_gate()
    }

    /// As [`all`](Self::all), for a fork's own thread with the gate closed: then nobody else is at the list.
    pub(crate) fn all_behind_gate(&self) -> Vec<Arc<T>> {
        self.list().iter().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn add(&self, new: &Arc<T>) {
        let _unforked = unforked();
        let mut list = self.list();
        list.retain(|known| known.strong_count() > 0);
        list.push(Arc::downgrade(new));
    }

    /// The one that `is_it` says; made and added if there is none.
    pub(crate) fn find_or_add(&self, is_it: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> Arc<T> {
        let unforked = unforked();
        let mut list = self.list();
        list.retain(|known| known.strong_count() > 0);
        let all: Vec<Arc<T>> = list.iter().filter_map(Weak::upgrade).collect();
        let found = all.iter().find(|known| is_it(known)).cloned().unwrap_or_else(|| {
            let new = Arc::new(make());
            list.push(Arc::downgrade(&new));
            new
        });
        drop((list, unforked)); // and then `all`
        found
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Weak<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fork on its way.
struct Fork {
    gate: RwLockWriteGuard<'static, Vec<&'static dyn AtFork>>,
    handed: Vec<Box<dyn Handed>>,
}

thread_local! {
    /// The fork that this thread is about to make.
    static FORK: RefCell<Option<Fork>> = const { RefCell::new(None) };
}

fn take() -> Option<Fork> {
    FORK.try_with(RefCell::take).ok().flatten()
}

extern "C" fn prepare() {
    if FORK.try_with(|_| ()).is_err() {
        return; // a thread that forks as it ends
    }
    let deadline = Instant::now() + PREPARE_TIME_MAX;
    let told = GATE.read().unwrap_or_else(PoisonError::into_inner).clone();
    let mut handed: Vec<_> = told.into_iter().map(|observer| observer.prepare(deadline)).collect();
    fault_point(FaultPoint::ForkPrepared);
    let gate = close();
    handed.iter_mut().for_each(|handed| handed.begin());
    fault_point(FaultPoint::ForkBegun);
    FORK.with_borrow_mut(|fork| *fork = Some(Fork { gate, handed }));
}

extern "C" fn parent() {
    let Some(Fork { gate, handed }) = take() else { return };
    fault_point(FaultPoint::ForkParent);
    drop(gate);
    drop(handed); // and with it the parent's descriptors of the child's lifelines
}

extern "C" fn child() {
    let Some(Fork { gate, mut handed }) = take() else { return };
    fault_point(FaultPoint::ForkChild);
    handed.iter_mut().for_each(|handed| handed.inherit());
    drop(gate);
    handed.iter_mut().for_each(|handed| handed.introduce());
}

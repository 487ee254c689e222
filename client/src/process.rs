//! What all `Brain`s of this process share, and what becomes of it at a fork.
//!
//! A forked child has a copy of everything, and of its sessions must use nothing: sockets and session regions are its
//! parent's. So every session that holds pins is handed over. Before the fork, in the thread that forks (*prepare*),
//! the store makes a session for the child, with session regions and a lifeline. After it, the *child* puts its own
//! regions in the place of its parent's and copies into them every pin that the parent had, before `fork` returns,
//! waiting for nobody; and the *parent* lets none of those pins go until the child has done so. Why no object is
//! reused meanwhile stands in `plasmon_protocol::pins`.
//!
//! Every handle in the child was one in the parent at the instant of the fork, and the shadow of its pin is as old as
//! the handle (`slots.rs`): so the shadow that the child finds covers all its handles. Handles that other threads of
//! the parent were about to make or drop leave pins that no handle of the child gives back; they go with the child.
//!
//! Where there is nothing to hand over, or no store to make a session, the child begins one of its own with its first
//! call; so does a child that was made without these functions being called. What it inherited rests on its parent's
//! pins, which the parent, if it was told of the fork, then keeps until it ends.

use crate::{
    session::{Heir, Session},
    store::Store,
};
use plasmon_shm::{FaultPoint, fault_point};
use std::{
    cell::RefCell,
    io,
    path::Path,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak},
    time::{Duration, Instant},
};

/// How long a fork waits for the store, at most.
const PREPARE_TIME_MAX: Duration = Duration::from_secs(1);

/// The stores and sessions of this process, so that all its `Brain`s on one socket share a session. Nothing here can
/// be configured.
///
/// The lock is also the gate of forks: a fork begins with nobody inside.
static PROCESS: RwLock<Process> =
    RwLock::new(Process { stores: Vec::new(), sessions: Vec::new(), told: false });

struct Process {
    /// By their sockets. A store leaves when its last `Brain` and its last handle go.
    stores: Vec<Weak<Store>>,
    sessions: Vec<Weak<Session>>,
    /// Whether this module is told of forks.
    told: bool,
}

/// While it lives no fork of this process begins.
pub(crate) struct Unforked(
    #[expect(dead_code, reason = "held, not looked at")] RwLockReadGuard<'static, Process>,
);

/// Keeps forks out, so that a child never finds what is done meanwhile half done. For moments only: what is done never
/// waits, drops no handle, and asks for this no second time.
pub(crate) fn unforked() -> Unforked {
    Unforked(PROCESS.read().unwrap_or_else(PoisonError::into_inner))
}

fn change() -> RwLockWriteGuard<'static, Process> {
    PROCESS.write().unwrap_or_else(PoisonError::into_inner)
}

/// The store at `socket`, as this process knows it.
pub(crate) fn store_at(socket: &Path, make: impl FnOnce() -> Store) -> Arc<Store> {
    let mut process = change();
    process.stores.retain(|store| store.strong_count() > 0);
    // Dropped behind the gate: the last reference to a store says goodbye to it.
    let known: Vec<Arc<Store>> = process.stores.iter().filter_map(Weak::upgrade).collect();
    let store = known.iter().find(|store| store.socket() == socket).cloned().unwrap_or_else(|| {
        let store = Arc::new(make());
        process.stores.push(Arc::downgrade(&store));
        store
    });
    drop(process);
    store
}

/// From now on the session is handed over at every fork.
///
/// # Errors
/// If the C library cannot note that it is to tell.
pub(crate) fn add_session(session: &Arc<Session>) -> io::Result<()> {
    let mut process = change();
    if !process.told {
        plasmon_shm::at_fork(prepare, parent, child).map_err(io::Error::other)?;
        process.told = true;
    }
    process.sessions.retain(|session| session.strong_count() > 0);
    process.sessions.push(Arc::downgrade(session));
    Ok(())
}

/// All sessions that something of this process holds, inherited ones as well. They are dropped with the gate open: the
/// last reference to one says goodbye to its store.
pub(crate) fn sessions() -> Vec<Arc<Session>> {
    let process = PROCESS.read().unwrap_or_else(PoisonError::into_inner);
    process.sessions.iter().filter_map(Weak::upgrade).collect()
}

/// A fork on its way. What must be dropped with nobody waiting at the gate comes last.
struct Fork {
    gate: RwLockWriteGuard<'static, Process>,
    /// Sessions that hold pins, and for each what the store made for the child.
    sessions: Vec<(Arc<Session>, Option<Heir>)>,
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
    let sessions = sessions();
    let heir = |session: Arc<Session>| {
        let heir = session.make_heir(deadline);
        (session, heir)
    };
    let mut sessions: Vec<_> =
        sessions.into_iter().filter(|session| session.holds_pins()).map(heir).collect();
    fault_point(FaultPoint::ForkPrepared);
    let gate = change();
    for (session, heir) in &mut sessions {
        session.begin_hand_over(heir);
    }
    fault_point(FaultPoint::ForkBegun);
    FORK.with_borrow_mut(|fork| *fork = Some(Fork { gate, sessions }));
}

extern "C" fn parent() {
    let Some(Fork { gate, sessions }) = take() else { return };
    fault_point(FaultPoint::ForkParent);
    drop(gate);
    drop(sessions); // and with them the parent's descriptors of the child's lifelines
}

extern "C" fn child() {
    let Some(Fork { gate, sessions }) = take() else { return };
    fault_point(FaultPoint::ForkChild);
    let mut inherited = Vec::new();
    for (session, heir) in sessions {
        if let Some(heir) = heir {
            session.inherit(heir);
        }
        inherited.push(session);
    }
    let stores: Vec<Arc<Store>> = gate.stores.iter().filter_map(Weak::upgrade).collect();
    stores.iter().for_each(|store| store.forget_parent());
    drop(gate);
    inherited.iter().for_each(|session| session.introduce());
}

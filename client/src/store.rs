//! One store as this process knows it: its socket, and the session that all `Brain`s of the process share.

use crate::{
    connection::{CallError, Connection, Reached},
    error::{Error, Result, SocketDeleted},
    gate::{self, AtFork, Handed, Known},
    paths::Surroundings,
    session::Session,
    trust::Trust,
};
use arc_swap::{ArcSwap, ArcSwapOption};
use plasmon_protocol::message::{Failure, Request};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// All stores of this process, so that all its `Brain`s on one socket share a session. One leaves when its last `Brain` and
/// its last handle go.
static STORES: Known<Store> = Known::new();

/// One store as this process knows it.
#[derive(Debug)]
pub(crate) struct Store {
    socket: PathBuf,
    patience: Duration,
    current: ArcSwapOption<Session>,
    /// Held while a session is begun: by one thread of this process, never by one of its parent's.
    connecting: ArcSwap<Mutex<()>>,
}

impl Store {
    /// The store at `socket`, or at the first default place where one answers; connected.
    pub(crate) fn find(socket: Option<&Path>, trust: &Trust, patience: Duration) -> Result<Arc<Store>> {
        let here = Surroundings::of_this_process();
        let explicit = socket.is_some() || here.socket.is_some();
        let candidates = socket.map_or_else(|| here.candidates(), |socket| vec![socket.to_owned()]);
        let mut last = None;
        for candidate in &candidates {
            if !explicit && !here.owns_directory_of(candidate) {
                if candidate.parent().is_some_and(Path::exists) {
                    let why = format!("the directory of {} is another user's", candidate.display());
                    last = Some(io::Error::new(io::ErrorKind::PermissionDenied, why));
                }
                continue;
            }
            let store = Store::at(candidate, patience);
            match store.session(trust) {
                Ok(_) => return Ok(store),
                Err(Error::StoreUnavailable { source, .. }) => last = source.or(last),
                Err(error) => return Err(error),
            }
        }
        Err(Error::StoreUnavailable { sockets: candidates, source: last })
    }

    fn at(socket: &Path, patience: Duration) -> Arc<Store> {
        // One store, however its path is spelled.
        let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
        let make = || {
            let (current, connecting) = (ArcSwapOption::empty(), ArcSwap::default());
            Store { socket: socket.clone(), patience, current, connecting }
        };
        STORES.find_or_add(|store| store.socket == socket, make)
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The session that is alive now; a new one if the last was lost.
    pub(crate) fn session(&self, trust: &Trust) -> Result<Arc<Session>> {
        let session = self.with_session(trust, |session| Ok(Arc::clone(session)))?;
        if session.is_ours() {
            return Ok(session);
        }
        session.lose();
        self.with_session(trust, |session| Ok(Arc::clone(session)))
    }

    /// As [`session`](Self::session), lent: the hot path counts no references.
    #[inline]
    pub(crate) fn with_session<T>(
        &self,
        trust: &Trust,
        use_it: impl FnOnce(&Arc<Session>) -> Result<T>,
    ) -> Result<T> {
        let current = self.current.load();
        match &*current {
            Some(session) if session.is_alive() && trust.covers(session.store_is_own, session.store_uid) => {
                use_it(session)
            }
            _ => {
                drop(current);
                use_it(&self.connect(trust)?)
            }
        }
    }

    /// As [`with_session`](Self::with_session), but never connects: `None` if there is no session that is alive.
    #[inline]
    pub(crate) fn with_live_session<T>(
        &self,
        trust: &Trust,
        use_it: impl FnOnce(&Arc<Session>) -> T,
    ) -> Option<T> {
        let current = self.current.load();
        current
            .as_ref()
            .filter(|session| session.is_alive() && trust.covers(session.store_is_own, session.store_uid))
            .map(use_it)
    }

    #[cold]
    fn connect(&self, trust: &Trust) -> Result<Arc<Session>> {
        let connecting = self.connecting.load_full();
        let _connecting = connecting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = &*self.current.load()
            && session.is_alive()
        {
            // Another thread was faster, or this `Brain` trusts less than the one that connected.
            trust.check(&self.socket, session.store_uid)?;
            return Ok(Arc::clone(session));
        }
        let before = self.current.swap(None);
        let unavailable =
            |source| Error::StoreUnavailable { sockets: vec![self.socket.clone()], source: Some(source) };
        let Reached { connection, store_uid } =
            Connection::open(&self.socket, self.patience).map_err(|source| match before {
                Some(before) if source.kind() == io::ErrorKind::NotFound && before.store_lives() => {
                    let store_pid = before.welcome.store_pid;
                    self.current.store(Some(before)); // so that it is known the next time as well
                    unavailable(io::Error::new(source.kind(), SocketDeleted { store_pid }))
                }
                _ => unavailable(source),
            })?;
        trust.check(&self.socket, store_uid)?;
        let begun = Session::begin(&self.socket, store_uid, connection, self.patience);
        let session = Arc::new(begun.map_err(|error| match error {
            CallError::Failed(Failure::ShuttingDown) => unavailable(io::ErrorKind::ConnectionReset.into()),
            CallError::Failed(failure) => failure.into(),
            CallError::Lost { source, .. } => unavailable(source),
            CallError::TimedOut => unavailable(io::ErrorKind::TimedOut.into()),
            CallError::Other(error) => error,
        })?);
        gate::tell(&STORES).and_then(|()| session.become_known()).map_err(unavailable)?;
        self.current.store(Some(Arc::clone(&session)));
        Ok(session)
    }

    /// Asks something that changes nothing; once more, in a new session, if the connection is lost.
    pub(crate) fn ask<R: Request>(&self, trust: &Trust, request: &R) -> Result<R::Reply> {
        self.retry(trust, |session| session.call(request))
    }

    /// Makes a request that changes nothing; once more, in a new session, if the connection is lost.
    pub(crate) fn retry<T>(
        &self,
        trust: &Trust,
        mut request: impl FnMut(&Arc<Session>) -> Result<T, CallError>,
    ) -> Result<T> {
        let mut session = self.session(trust)?;
        let mut result = request(&session);
        if let Err(CallError::Lost { .. }) = result {
            session.lose();
            session = self.session(trust)?;
            result = request(&session);
        }
        result.map_err(|error| session.explain(error))
    }

    /// In a forked child: whatever thread of the parent was about to connect is not here.
    fn forget_parent(&self) {
        self.connecting.store(Arc::default());
    }

    /// Lets go of the session: it ends when no handle needs it any more.
    pub(crate) fn leave(&self) {
        self.current.store(None);
    }
}

impl AtFork for Known<Store> {
    fn prepare(&'static self, _deadline: Instant) -> Box<dyn Handed> {
        Box::new(HandedStores { stores: Vec::new() })
    }
}

/// What a fork does to the stores of this process.
struct HandedStores {
    /// Dropped with the gate open.
    stores: Vec<Arc<Store>>,
}

impl Handed for HandedStores {
    fn inherit(&mut self) {
        self.stores = STORES.all_behind_gate();
        self.stores.iter().for_each(|store| store.forget_parent());
    }
}

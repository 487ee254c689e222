//! Waiting for a name to be bound, or to change.

use super::Brain;
use crate::{
    connection::{CallError, Connection},
    error::{Error, Result},
    session::Session,
};
use plasmon_protocol::{
    message::{Failure, Request, Wait, WaitChange},
    name::Name,
};
use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
};

/// How much longer than a wait its answer may take.
const GRACE: Duration = Duration::from_secs(5);

impl Brain {
    /// Waits until `name` is bound with a version above `after_version` (0 for any), and returns that version.
    ///
    /// # Errors
    /// [`Error::WaitTimeout`] if that does not happen within `timeout`.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// let brain = plasmon::testing::brain()?;
    /// let first = brain.learn("result", &1)?;
    /// let (writer, waiter) = (brain.clone(), brain);
    /// let waiting = std::thread::spawn(move || waiter.wait("result", first, Duration::from_secs(30)));
    /// let second = writer.learn("result", &2)?;
    /// assert_eq!(waiting.join().unwrap()?, second);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn wait(&self, name: &str, after_version: u64, timeout: Duration) -> Result<u64> {
        self.wait_for(name, after_version, timeout, timeout)
    }

    /// Waits until `name` has another version than `version` (0 if it is known not to be bound), and returns the version
    /// that it has then; `None` if it is not bound any more, be it that somebody forgot it, it expired, made room, or ended
    /// with the [session](crate::LearnOptions::ephemeral) that bound it.
    ///
    /// # Errors
    /// [`Error::WaitTimeout`] if that does not happen within `timeout`.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// let brain = plasmon::testing::brain()?;
    /// let claim = brain.learn("claim", &1)?;
    /// let waiter = brain.clone();
    /// let waiting = std::thread::spawn(move || waiter.wait_change("claim", claim, Duration::from_secs(30)));
    /// brain.forget("claim")?;
    /// assert_eq!(waiting.join().unwrap()?, None);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn wait_change(&self, name: &str, version: u64, timeout: Duration) -> Result<Option<u64>> {
        let checked = Name::new(name)?;
        let wait = |wait_ms| WaitChange {
            namespace: self.namespace.clone(),
            name: checked.clone(),
            version,
            wait_ms,
        };
        let changed = self.call_within(name, timeout, timeout, wait)?;
        Ok(Some(changed.version).filter(|&version| version != 0))
    }

    /// Begins to [wait for a change](Self::wait_change) and returns at once: for programs that wait for many things, or
    /// want to give up. There is no timeout.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`], [`Error::BadName`].
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// let claim = brain.learn("claim", &1)?;
    /// let waiting = brain.begin_wait_change("claim", claim)?;
    /// brain.forget("claim")?;
    /// assert_eq!(waiting.finish()?, None);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn begin_wait_change(&self, name: &str, version: u64) -> Result<PendingWait> {
        let (namespace, name) = (self.namespace.clone(), Name::new(name)?);
        let wait = WaitChange { namespace, name, version, wait_ms: u64::MAX };
        let (session, connection) = self.begin_call(&wait)?;
        Ok(PendingWait { session, connection })
    }

    /// Begins to [wait](Self::wait) and returns at once: for programs that wait for other things as well, or want to give
    /// up.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`], [`Error::BadName`].
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// let brain = plasmon::testing::brain()?;
    /// let given_up = brain.begin_wait("never", 0, Duration::from_secs(3_600))?;
    /// drop(given_up);
    /// let waiting = brain.begin_wait("result", 0, Duration::from_secs(30))?;
    /// let version = brain.learn("result", &1)?;
    /// assert_eq!(waiting.finish()?, version);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn begin_wait(&self, name: &str, after_version: u64, timeout: Duration) -> Result<PendingBinding> {
        let wait = Wait {
            namespace: self.namespace.clone(),
            name: Name::new(name)?,
            above_version: after_version,
            wait_ms: whole_ms(timeout),
        };
        let (session, connection) = self.begin_call(&wait)?;
        let timed_out = self.wait_timeout(name, timeout);
        Ok(PendingBinding { session, connection, timed_out })
    }

    pub(super) fn wait_for(
        &self,
        name: &str,
        above_version: u64,
        left: Duration,
        asked: Duration,
    ) -> Result<u64> {
        let checked = Name::new(name)?;
        let wait = |wait_ms| Wait {
            namespace: self.namespace.clone(),
            name: checked.clone(),
            above_version,
            wait_ms,
        };
        Ok(self.call_within(name, left, asked, wait)?.version)
    }

    /// Makes a request that the store answers within the milliseconds that `wait` is given, or with `WaitTimeout`.
    fn call_within<R: Request>(
        &self,
        name: &str,
        left: Duration,
        asked: Duration,
        wait: impl Fn(u64) -> R,
    ) -> Result<R::Reply> {
        let start = Instant::now();
        self.store.retry(&self.trust, |session| {
            let left = left.saturating_sub(start.elapsed());
            let wait = wait(whole_ms(left));
            let patience =
                left.checked_add(GRACE).filter(|patience| patience.as_secs() < u64::from(u32::MAX));
            session.call_for(&wait, patience).map_err(|error| match error {
                CallError::Failed(Failure::WaitTimeout) => CallError::Other(self.wait_timeout(name, asked)),
                error => error,
            })
        })
    }

    /// Sends a request whose answer may come much later.
    fn begin_call<R: Request>(&self, request: &R) -> Result<(Arc<Session>, Connection)> {
        self.store.retry(&self.trust, |session| Ok((Arc::clone(session), session.begin_call(request)?)))
    }

    pub(crate) fn wait_timeout(&self, name: &str, waited: Duration) -> Error {
        Error::WaitTimeout { namespace: self.namespace.to_string(), name: name.to_owned(), waited }
    }
}

/// A wait that goes on by itself. Made by [`Brain::begin_wait_change`]. Its descriptor is readable when it is over; dropped,
/// it waits no longer.
#[derive(Debug)]
pub struct PendingWait {
    session: Arc<Session>,
    connection: Connection,
}

impl PendingWait {
    /// Blocks until it is over, and returns the version that the name has then, `None` if it is not bound.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the store has ended.
    pub fn finish(self) -> Result<Option<u64>> {
        let PendingWait { session, connection } = self;
        match session.finish_call::<WaitChange>(connection) {
            Ok(changed) => Ok(Some(changed.version).filter(|&version| version != 0)),
            Err(error) => Err(session.explain(error)),
        }
    }
}

impl AsFd for PendingWait {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// A wait for a binding that goes on by itself. Made by [`Brain::begin_wait`]. Its descriptor is readable when it is over;
/// dropped, it waits no longer.
#[derive(Debug)]
pub struct PendingBinding {
    session: Arc<Session>,
    connection: Connection,
    timed_out: Error,
}

impl PendingBinding {
    /// Blocks until it is over, and returns the version of the binding.
    ///
    /// # Errors
    /// [`Error::WaitTimeout`]; [`Error::StoreUnavailable`] if the store has ended.
    pub fn finish(self) -> Result<u64> {
        let PendingBinding { session, connection, timed_out } = self;
        match session.finish_call::<Wait>(connection) {
            Ok(bound) => Ok(bound.version),
            Err(CallError::Failed(Failure::WaitTimeout)) => Err(timed_out),
            Err(error) => Err(session.explain(error)),
        }
    }
}

impl AsFd for PendingBinding {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// Milliseconds, rounded up: a wait never ends early.
fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::testing::Store;

    #[test]
    fn a_wait_ends_in_time_and_holds_up_nobody() {
        let store = Store::start(8 << 20).unwrap();
        let brain = store.connect().unwrap();
        let start = Instant::now();
        let waited = brain.recall_within::<i64>("never", Duration::from_millis(100));
        assert!(matches!(waited, Err(Error::WaitTimeout { .. })), "{waited:?}");
        let waited = brain.recall_within::<i64>("never", Duration::ZERO);
        assert!(matches!(waited, Err(Error::WaitTimeout { .. })), "{waited:?}");
        assert!(start.elapsed() >= Duration::from_millis(100));
        let version = brain.learn("a", &1).unwrap();
        assert_eq!(brain.wait("a", 0, Duration::MAX).unwrap(), version);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| brain.wait("a", version, Duration::from_secs(30)));
            while brain.stats().unwrap().waits == 0 {
                std::thread::yield_now();
            }
            let next = brain.learn("a", &2).unwrap();
            assert_eq!(waiting.join().unwrap().unwrap(), next);
        });
    }
}

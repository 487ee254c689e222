//! Small changes that depend on what is there: each of them is one moment, whoever else changes the same name.

use super::Brain;
use crate::{
    error::{Error, Result},
    lock::Lock,
    object::{FromObject, Object},
    options::LearnOptions,
};
use plasmon_protocol::message::Expect;
use std::time::Duration;

impl Brain {
    /// The version that `name` has; `None` if nothing is bound to it. One look at the shared index.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// let version = brain.learn("a", &1)?;
    /// assert_eq!((brain.version("a")?, brain.version("b")?), (Some(version), None));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn version(&self, name: &str) -> Result<Option<u64>> {
        self.look_for_version(name)
    }

    /// Unbinds `name`, and returns what it was bound to: exactly that, whoever binds it meanwhile.
    ///
    /// # Errors
    /// [`Error::NameNotFound`]; else as [`recall`](Self::recall) and [`forget`](Self::forget).
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("job", "do it")?;
    /// assert_eq!(brain.pop::<String>("job")?, "do it");
    /// assert!(brain.pop::<String>("job").unwrap_err().is_not_found());
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn pop<T: FromObject>(&self, name: &str) -> Result<T> {
        loop {
            let object = self.recall::<Object>(name)?;
            match self.forget_if_version(name, object.version()) {
                Err(Error::ConditionFailed { .. }) => {}
                forgotten => {
                    forgotten?;
                    return self.convert(name, object);
                }
            }
        }
    }

    /// Adds `by` to the integer that `name` is bound to, 0 if it is not bound, and returns the sum. A name that is bound
    /// keeps its time to live.
    ///
    /// # Errors
    /// [`Error::WrongKind`] if it is bound to something else; [`Error::Overflow`] if the sum has more than 64 bits; else as
    /// [`learn`](Self::learn).
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// assert_eq!((brain.incr("visits", 1)?, brain.incr("visits", 10)?), (1, 11));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn incr(&self, name: &str, by: i64) -> Result<i64> {
        loop {
            let (before, options) = match self.recall::<Object>(name) {
                Ok(object) => {
                    let options = LearnOptions::new().keep_ttl().if_version(object.version());
                    (self.convert::<i64>(name, object)?, options)
                }
                Err(Error::NameNotFound { .. }) => (0, LearnOptions::new().if_absent()),
                Err(error) => return Err(error),
            };
            let overflow =
                || Error::Overflow { namespace: self.namespace.to_string(), name: name.to_owned() };
            let sum = before.checked_add(by).ok_or_else(overflow)?;
            match self.learn_with(name, &sum, &options) {
                Err(Error::ConditionFailed { .. }) => {}
                learned => {
                    learned?;
                    return Ok(sum);
                }
            }
        }
    }

    /// Takes the lock of this name, waiting for it until `timeout` has passed. It is released when it is dropped, when this
    /// process ends however it does, and when its session does. Waiting polls nothing.
    ///
    /// The lock is an ephemeral binding of the name: nothing else must be learned under it. It does not serve those who wait
    /// in the order in which they came. Whoever must not act once the lock is lost depends on it with
    /// [`LearnOptions::if_held`] and [`Lock::version`].
    ///
    /// # Errors
    /// [`Error::WaitTimeout`]; else as [`learn`](Self::learn).
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// let brain = plasmon::testing::brain()?;
    /// let lock = brain.lock("the printer", Duration::from_secs(10))?;
    /// assert!(brain.lock("the printer", Duration::ZERO).is_err());
    /// drop(lock);
    /// brain.lock("the printer", Duration::ZERO)?.release()?;
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn lock(&self, name: &str, timeout: Duration) -> Result<Lock> {
        Lock::take(self, name, timeout)
    }

    /// Unbinds `name` if it has this version. Returns whether it had.
    pub(crate) fn forget_version(&self, name: &str, version: u64) -> Result<bool> {
        match self.batch()?.expect(name, Expect::Version { version })?.forget(name)?.commit() {
            Err(Error::ConditionFailed { .. }) => Ok(false),
            forgotten => forgotten.map(|_| true),
        }
    }
}

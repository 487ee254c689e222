//! `Lock`: a name that belongs to one process for as long as it lives.

use crate::{
    brain::Brain,
    error::{Error, Result},
    options::LearnOptions,
};
use std::time::{Duration, Instant};

/// A lock that this process holds. Made by [`Brain::lock`]; released when it is dropped.
///
/// A forked child inherits the handle and not the lock: there, dropping it does nothing.
#[derive(Debug)]
#[must_use = "it is released when it is dropped"]
pub struct Lock {
    brain: Brain,
    name: String,
    version: u64,
    /// The process that holds it.
    pid: u32,
    is_released: bool,
}

impl Lock {
    pub(crate) fn take(brain: &Brain, name: &str, timeout: Duration) -> Result<Lock> {
        let (start, pid) = (Instant::now(), std::process::id());
        let claim = LearnOptions::new().ephemeral().if_absent();
        loop {
            let held_by = match brain.learn_with(name, &i64::from(pid), &claim) {
                Ok(version) => {
                    let (brain, name, is_released) = (brain.clone(), name.to_owned(), false);
                    return Ok(Lock { brain, name, version, pid, is_released });
                }
                Err(Error::ConditionFailed { found, .. }) => found,
                Err(error) => return Err(error),
            };
            let Some(left) = timeout.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) else {
                return Err(brain.wait_timeout(name, timeout));
            };
            match brain.wait_change(name, held_by.unwrap_or(0), left) {
                Ok(_) => {}
                Err(Error::WaitTimeout { .. }) => return Err(brain.wait_timeout(name, timeout)),
                Err(error) => return Err(error),
            }
        }
    }

    /// The version of the binding that stands for it: for [`LearnOptions::if_held`].
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether this process still holds it, as far as a look at the index can tell.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub fn is_held(&self) -> Result<bool> {
        Ok(self.pid == std::process::id() && self.brain.version(&self.name)? == Some(self.version))
    }

    /// Releases it. Returns whether it was still held: somebody may have forgotten its name, or the store may have ended.
    ///
    /// # Errors
    /// [`Error::NotTheHolder`] in a forked child, which does not hold it; [`Error::StoreUnavailable`].
    pub fn release(mut self) -> Result<bool> {
        if self.pid != std::process::id() {
            return Err(Error::NotTheHolder { name: self.name.clone(), pid: self.pid });
        }
        self.is_released = true;
        self.brain.forget_version(&self.name, self.version)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if !self.is_released && self.pid == std::process::id() {
            // Where the store does not answer, the lock ends with the session.
            let _ = self.brain.forget_version(&self.name, self.version);
        }
    }
}

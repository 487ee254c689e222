//! A store for tests: a real daemon with a socket of its own, on a thread of the test's process.

use crate::{
    brain::Brain,
    error::{Error, Result},
};
use plasmon_store::testing::Running;
use std::{ops::Deref, path::Path};

/// A real store with a socket of its own, stopped when dropped. Handles stay valid.
///
/// ```
/// let store = plasmon::testing::Store::start(1 << 20)?; // capacity in bytes
/// let brain = store.connect()?;
/// brain.learn("answer", &42)?;
/// assert_eq!(brain.recall::<i64>("answer")?, 42);
/// # Ok::<(), plasmon::Error>(())
/// ```
pub struct Store {
    running: Running,
}

impl Store {
    /// Starts a store of `capacity_bytes`.
    ///
    /// # Errors
    /// [`Error::Internal`] saying why it could not start.
    pub fn start(capacity_bytes: u64) -> Result<Store> {
        Ok(Store { running: Running::start(capacity_bytes).map_err(Error::internal)? })
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.running.socket()
    }

    /// Connects to it. All connections of this process share one session.
    ///
    /// # Errors
    /// As [`Builder::connect`](crate::Builder::connect).
    pub fn connect(&self) -> Result<Brain> {
        Brain::builder().path(self.socket()).connect()
    }
}

/// A `Brain` and the real store that it alone is connected to: see [`brain`].
pub struct OnOwnStore {
    brain: Brain,
    _store: Store,
}

/// A `Brain` connected to a store of its own of 8 MiB, which is stopped when the result is dropped.
///
/// # Errors
/// As [`Store::start`] and [`Store::connect`].
///
/// # Examples
/// ```
/// let brain = plasmon::testing::brain()?;
/// brain.learn("answer", &42)?;
/// assert_eq!(brain.recall::<i64>("answer")?, 42);
/// # Ok::<(), plasmon::Error>(())
/// ```
pub fn brain() -> Result<OnOwnStore> {
    let store = Store::start(8 << 20)?;
    Ok(OnOwnStore { brain: store.connect()?, _store: store })
}

impl Deref for OnOwnStore {
    type Target = Brain;

    fn deref(&self) -> &Brain {
        &self.brain
    }
}

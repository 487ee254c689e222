//! What operators ask a store: its figures, and who holds what.

use super::{Brain, Pin, Stats};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use plasmon_protocol::message::{Kick, ListPins, ReadStats};

impl Brain {
    /// The store's figures, after a look at every pin. One round trip.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let stats = store.connect()?.stats()?;
    /// assert_eq!((stats.capacity_bytes, stats.used_bytes), (8 << 20, 0));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn stats(&self) -> Result<Stats> {
        self.store.ask(&self.trust, &ReadStats {})
    }

    /// Which process holds which object, by the object's name.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("held", &[7_u8; 1_000])?;
    /// let bytes: plasmon::Blob = brain.recall("held")?;
    /// let pins = brain.pins()?;
    /// assert_eq!((pins[0].name.as_str(), pins[0].pid), ("default/held", std::process::id()));
    /// # drop(bytes);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn pins(&self) -> Result<Vec<Pin>> {
        let mut pins = Vec::new();
        let mut after = None;
        loop {
            let page = self.store.ask(&self.trust, &ListPins { after })?;
            pins.extend(page.pins);
            after = page.next;
            if after.is_none() {
                return Ok(pins);
            }
        }
    }

    /// Ends a process that holds memory, with SIGKILL, and frees what it held. Returns how many sessions it had.
    ///
    /// # Errors
    /// [`Error::UnknownProcess`] if it is no client of this store; [`Error::NotAdmitted`] for other users than the
    /// store's own and root.
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let nobody = store.connect()?.kick(u32::MAX);
    /// assert!(matches!(nobody, Err(plasmon::Error::UnknownProcess { .. })));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn kick(&self, pid: u32) -> Result<u32> {
        let session = self.session()?;
        let kicked = session.call(&Kick { pid }).map_err(|error| session.explain(error))?;
        Ok(kicked.sessions)
    }
}

//! Which users may run the store that is connected to.

use crate::error::{Error, Result};
use std::path::Path;

/// Who may run the store that is connected to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    /// Besides this user and root.
    pub(crate) uids: Vec<u32>,
}

impl Trust {
    /// As [`check`](Self::check), for the hot path, where it is known whether the store is this user's own or root's: a
    /// session is only ever begun with a store that some `Brain` of this process trusts, and nearly always none names
    /// other uids.
    #[inline]
    pub(crate) fn covers(&self, store_is_own: bool, store_uid: u32) -> bool {
        store_is_own || self.uids.contains(&store_uid)
    }

    pub(crate) fn check(&self, socket: &Path, uid: u32) -> Result<()> {
        if self.covers(is_own(uid), uid) {
            return Ok(());
        }
        Err(Error::UntrustedStore { socket: socket.to_owned(), uid })
    }
}

/// Whether a store of `uid` is this user's own, or root's.
pub(crate) fn is_own(uid: u32) -> bool {
    plasmon_protocol::trust::is_own(uid, nix::unistd::getuid().as_raw(), plasmon_shm::overflow_uid())
}

//! Writing an object into leased memory: a part of the arena, or a region that the store copies into it.

use crate::{
    connection::CallError,
    error::{Error, Result},
    kept::KeptLease,
    session::Session,
};
use plasmon_protocol::{
    limits::INLINE_BYTES_MAX,
    message::{EndLease, ExtendLease, Granted, Payload, Request, Reserve},
    pins::Moved,
};
use plasmon_shm::{ClientRegion, FaultPoint, LeaseMapping, SealedMapping, fault_point};
use std::{os::fd::OwnedFd, sync::Arc};

/// Longest lease that a session keeps for the next learn, in bytes; at most a 64th of the arena.
const KEPT_BYTES_MAX: u64 = 4 << 20;

/// A lease being written. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Lease {
    session: Arc<Session>,
    grant: Granted,
    /// `None` once it is unmapped.
    mapping: Option<LeaseMapping>,
    /// Where the lease is a region of its own, which the store copies into the arena.
    staging: Option<ClientRegion>,
    /// Where the next object begins in the lease: behind the objects that were written before it.
    start_bytes: u64,
    ended: bool,
}

/// How much of a lease its owner is going to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writes {
    All,
    Some,
}

/// What becomes of a lease that nothing more is written into.
#[derive(Debug)]
pub(crate) enum Closed {
    /// It is unmapped, and ends with the commit.
    Ends(u64),
    /// It may be kept, if the commit succeeds.
    Rest(KeptLease),
}

impl Lease {
    /// Gets room for `len_bytes`: from the kept lease if that is possible, else from the store. May wait until the
    /// store has made the pages.
    pub(crate) fn get(session: &Arc<Session>, len_bytes: u64) -> Result<Lease, CallError> {
        let kept_max = KEPT_BYTES_MAX.min(session.welcome.capacity_bytes / 64);
        let keeps = session.welcome.writable && len_bytes > INLINE_BYTES_MAX.into() && len_bytes <= kept_max;
        if keeps && let Some(lease) = Lease::claim_kept(session, len_bytes) {
            return Ok(lease);
        }
        // Room for the next ones as well, if it is to be kept; if there is no room for that, for this one.
        if keeps && let Ok(lease) = Lease::reserve(session, kept_max) {
            return Ok(lease);
        }
        Lease::reserve(session, len_bytes)
    }

    /// Gets a lease of its own for `len_bytes`, all of which will be written. May wait until the store has made the
    /// pages.
    pub(crate) fn reserve(session: &Arc<Session>, len_bytes: u64) -> Result<Lease, CallError> {
        Lease::reserve_for(session, len_bytes, Writes::All)
    }

    /// As [`reserve`](Self::reserve), where some of it may never be written: that takes no memory in a store which
    /// leaves memory to the writers.
    pub(crate) fn reserve_sparse(session: &Arc<Session>, len_bytes: u64) -> Result<Lease, CallError> {
        Lease::reserve_for(session, len_bytes, Writes::Some)
    }

    fn reserve_for(session: &Arc<Session>, len_bytes: u64, writes: Writes) -> Result<Lease, CallError> {
        fault_point(FaultPoint::Reserve);
        let (grant, staging) = Lease::ask(session, &Reserve { len_bytes })?;
        fault_point(FaultPoint::LeaseGranted);
        Lease::map(session, grant, staging, writes).map_err(CallError::Other)
    }

    /// Asks for a lease. With it comes the region to write into, if that is not the arena. The answer may wait for
    /// population, which takes as long as it takes while the store answers others.
    fn ask<R: Request<Reply = Granted>>(
        session: &Session,
        request: &R,
    ) -> Result<(Granted, Option<OwnedFd>), CallError> {
        if session.welcome.writable {
            return Ok((session.call_at_length(request)?, None));
        }
        let (grant, fds) = session.call_with_fds(request)?;
        Ok((grant, fds.into_iter().next()))
    }

    fn map(
        session: &Arc<Session>,
        grant: Granted,
        staging: Option<OwnedFd>,
        writes: Writes,
    ) -> Result<Lease> {
        let mut lease = Lease {
            session: Arc::clone(session),
            grant,
            mapping: None,
            staging: None,
            start_bytes: 0,
            ended: false,
        };
        let here = session.here();
        let (offset, len_bytes) = (lease.grant.offset, lease.grant.len_bytes);
        let mapping = match (&here.writable, staging) {
            (Some(arena), _) => {
                Lease::drop_kept_if_taken(session);
                let populate = writes == Writes::All || session.welcome.populated;
                arena.map_lease(offset, len_bytes, populate).inspect_err(|error| {
                    if matches!(error, plasmon_shm::Error::Taken { .. }) {
                        session.lose(); // the next call begins another one
                    }
                })?
            }
            (None, Some(staging)) => {
                let staging = lease.staging.insert(ClientRegion::from_fd(staging, len_bytes)?);
                staging.map_lease(0, len_bytes, writes == Writes::All)?
            }
            (None, None) => return Err(Error::internal("the store granted a lease that cannot be written")),
        };
        lease.mapping = Some(mapping);
        Ok(lease)
    }

    fn claim_kept(session: &Arc<Session>, len_bytes: u64) -> Option<Lease> {
        let kept = session.private(|private| {
            let kept = private.kept_lease.take()?;
            let state = session.lease_words().lease(kept.grant.slot, kept.grant.lease);
            // If it was taken back, nothing of it is ours any more. It is unmapped before another thread, which may have
            // been granted these very pages, is let in.
            state.is_some_and(|state| state.claim() == Moved::Yes).then_some(kept)
        });
        let KeptLease { grant, mapping, written_bytes } = kept?;
        fault_point(FaultPoint::LeaseClaimed);
        let fits = written_bytes + len_bytes <= grant.len_bytes;
        let lease = Lease {
            session: Arc::clone(session),
            grant,
            mapping: Some(mapping),
            staging: None,
            start_bytes: written_bytes,
            ended: false,
        };
        // One that is too full is given back as it is dropped.
        fits.then_some(lease)
    }

    /// The session it belongs to: only a commit of that session may name it.
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.grant.lease
    }

    /// Where in the arena the first byte is that can be written.
    pub(crate) fn offset(&self) -> u64 {
        self.grant.offset + self.start_bytes
    }

    /// Length of what can be written, in bytes.
    pub(crate) fn len_bytes(&self) -> u64 {
        self.grant.len_bytes - self.start_bytes
    }

    /// The bytes to write: leased to this process alone.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let start = plasmon_protocol::index_of(self.start_bytes);
        let mapping = self.mapping.as_mut().expect("a lease is mapped until it is written");
        &mut mapping.bytes_mut()[start..]
    }

    /// The bytes as they are now.
    pub(crate) fn bytes(&self) -> &[u8] {
        let start = plasmon_protocol::index_of(self.start_bytes);
        let mapping = self.mapping.as_ref().expect("a lease is mapped until it is written");
        &mapping.bytes()[start..]
    }

    /// Makes the lease at least `len_bytes` long, in place or by moving what is written (`written_bytes`).
    ///
    /// After [`CallError::Failed`] the lease is as it was. After any other error it may be unmapped: its owner drops
    /// it without another look.
    pub(crate) fn extend(&mut self, written_bytes: u64, len_bytes: u64) -> Result<(), CallError> {
        let request = ExtendLease { lease: self.grant.lease, len_bytes: self.start_bytes + len_bytes };
        let (grant, staging) = Lease::ask(&self.session, &request)?;
        let map = |grant| Lease::map(&self.session, grant, staging, Writes::Some).map_err(CallError::Other);
        let in_place = grant.lease == self.grant.lease;
        if in_place && self.session.welcome.writable {
            // The same lease, longer: mapped anew, since the old mapping ends too early. Whoever maps it answers for
            // it, also if that fails.
            self.mapping = None;
            self.ended = true;
            let mut longer = map(grant)?;
            longer.start_bytes = self.start_bytes;
            *self = longer;
            return Ok(());
        }
        // Another one; or the same, with a longer region to write into.
        self.ended |= in_place;
        let start_bytes = if in_place { self.start_bytes } else { 0 };
        let mut other = map(grant)?;
        other.start_bytes = start_bytes;
        let written = plasmon_protocol::index_of(written_bytes);
        other.bytes_mut()[..written].copy_from_slice(&self.bytes_mut()[..written]);
        *self = other; // the old one is given back as it is dropped, unless it is the same
        Ok(())
    }

    /// The first `len_bytes` are an object now: what the commit that binds it must say. The next one goes behind it.
    pub(crate) fn piece(&mut self, len_bytes: u64) -> Payload {
        let offset = self.offset();
        self.start_bytes = (self.start_bytes + len_bytes).next_multiple_of(64).min(self.grant.len_bytes);
        Payload::Leased { lease: self.grant.lease, offset, len_bytes }
    }

    /// Nothing more is written, and the bytes go on being readable where they are, for views of them. The lease ends
    /// with the commit.
    ///
    /// After an error the lease stays until this process's session ends: a view of it may still be written.
    pub(crate) fn seal_in_place(mut self) -> Result<(u64, SealedMapping)> {
        let mapping = self.mapping.take().expect("a lease is mapped until it is written");
        self.ended = true;
        let here = self.session.here();
        let memory =
            here.writable.as_ref().or(self.staging.as_ref()).expect("a lease was mapped from one of them");
        Ok((self.grant.lease, mapping.seal_in_place(memory)?))
    }

    /// Nothing more is written. A short lease with room left may be kept, if the commit names no other.
    pub(crate) fn close(mut self, keep: bool) -> Closed {
        let kept_max = KEPT_BYTES_MAX.min(self.session.welcome.capacity_bytes / 64);
        let room_left = self.len_bytes() > u64::from(INLINE_BYTES_MAX);
        let short = self.grant.len_bytes <= kept_max.next_multiple_of(4_096);
        self.ended = true;
        match self.mapping.take() {
            Some(mapping) if keep && room_left && short && self.session.welcome.writable => {
                let (grant, written_bytes) = (self.grant.clone(), self.start_bytes);
                Closed::Rest(KeptLease { grant, mapping, written_bytes })
            }
            // Unmapped before the commit that ends the lease is sent.
            mapping => {
                drop(mapping);
                Closed::Ends(self.grant.lease)
            }
        }
    }
}

/// The lease that a session keeps.
impl Lease {
    /// Unmaps the lease that was laid down if the store has taken it back, perhaps to grant its pages to this very
    /// session.
    fn drop_kept_if_taken(session: &Session) {
        let is_ours = |kept: &mut KeptLease| {
            let state = session.lease_words().lease(kept.grant.slot, kept.grant.lease);
            state.is_some_and(|state| state.is_idle())
        };
        session.private(|private| {
            if !private.kept_lease.as_mut().is_some_and(is_ours) {
                private.kept_lease = None;
            }
        });
    }

    /// Lays `kept` down for the next learn. If another one is kept already, this one is given back.
    pub(crate) fn lay_down(kept: KeptLease, session: &Arc<Session>) {
        let surplus = session.private(|private| {
            if private.kept_lease.is_some() {
                return Some(kept);
            }
            if let Some(state) = session.lease_words().lease(kept.grant.slot, kept.grant.lease) {
                state.lay_down();
                private.kept_lease = Some(kept);
            }
            None
        });
        fault_point(FaultPoint::LeaseLaidDown);
        if let Some(surplus) = surplus {
            Lease::give_back(surplus, session);
        }
    }

    /// Gives `kept` back.
    pub(crate) fn give_back(kept: KeptLease, session: &Arc<Session>) {
        let KeptLease { grant, mapping, .. } = kept;
        drop(mapping);
        let _ = session.call(&EndLease { lease: grant.lease });
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.ended && self.session.is_here() {
            self.mapping = None; // unmapped first: the pages may be somebody else's as soon as the store knows
            let _ = self.session.call(&EndLease { lease: self.grant.lease });
        }
    }
}

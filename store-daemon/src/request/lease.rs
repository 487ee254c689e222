//! Leases: whole pages of free arena for a client to write into, itself or by way of a region of its own.
//!
//! [`handle`](super::handle) calls these for `Reserve`, `ExtendLease` and `EndLease`. `State` calls [`granted`] when
//! the pages of a grant are populated.

use crate::{
    allocator::{Extent, Room},
    effect::{Answer, Reply},
    evict::Shortage,
    parked::{Grant, Need},
    session::SessionId,
    space::LeaseId,
    state::State,
};
use plasmon_protocol::{
    limits::LEASE_SLOTS,
    message::{EndLease, ExtendLease, Failure, Granted, LeaseEnded, Reserve},
};
use plasmon_shm::{Error, FaultPoint, Region, Seals, fault_point};
use std::sync::Arc;

/// Lends whole pages to `session`.
pub(super) fn reserve(state: &mut State, session: SessionId, reserve: &Reserve) -> Answer {
    lend(state, session, reserve.len_bytes)
}

/// Makes a lease longer where it stands; where that is not possible, lends other pages besides.
pub(super) fn extend(state: &mut State, session: SessionId, extend: &ExtendLease) -> Answer {
    let ExtendLease { lease, len_bytes } = *extend;
    let lease = LeaseId(lease);
    let Some(before_bytes) = state.space.lease_of(session, lease).map(|found| found.extent.len_bytes) else {
        return Answer::fail(unknown(lease));
    };
    match state.space.extend_lease(lease, len_bytes) {
        Some(_) => Answer::Grant(Grant { session, lease, grown_from: Some(before_bytes) }),
        None => lend(state, session, len_bytes),
    }
}

/// Ends a lease: what no commit has claimed of it is free.
pub(super) fn end(state: &mut State, session: SessionId, end: &EndLease) -> Answer {
    let lease = LeaseId(end.lease);
    if state.space.lease_of(session, lease).is_none() {
        return Answer::fail(unknown(lease));
    }
    state.space.end_lease(lease);
    Answer::reply(&LeaseEnded {})
}

fn lend(state: &mut State, session_id: SessionId, len_bytes: u64) -> Answer {
    match find_lease(state, session_id, len_bytes) {
        Ok(Some(lease)) => Answer::Grant(Grant { session: session_id, lease, grown_from: None }),
        Ok(None) => Answer::Wait(Need::Room(pages(len_bytes))),
        Err(failure) => {
            let pid = state.sessions.get(session_id).map_or(0, |session| session.pid);
            state.note_refusal(None, pid, &failure);
            Answer::fail(failure)
        }
    }
}

/// A lease of `len_bytes` for a session; `None` if there is no room now.
fn find_lease(state: &mut State, session_id: SessionId, len_bytes: u64) -> Result<Option<LeaseId>, Failure> {
    let Some(session) = state.sessions.get(session_id) else { return Err(Failure::UnknownSession) };
    if len_bytes == 0 {
        let what = "a lease (at least 1 byte)".to_owned();
        let limit_bytes = state.facts.capacity_bytes;
        return Err(Failure::TooLarge { what, found_bytes: 0, limit_bytes });
    }
    let limit = if session.writable { LEASE_SLOTS } else { STAGING_LEASES_MAX };
    let Some(slot) = state.space.free_lease_slot(session_id, limit) else {
        return Err(Failure::TooMany { what: "leases of one session".to_owned(), limit: limit.into() });
    };
    if !session.writable {
        state.check_descriptors(session.owner(), 1)?; // for a region of its own
    }
    let region = Arc::clone(&session.regions.first().expect("a session begins with a region").words);
    Ok(state.space.lease(session_id, slot, &region, len_bytes))
}

/// Regions of their own that the leases of one session may have. Each takes a descriptor of the daemon's.
const STAGING_LEASES_MAX: u32 = 128;

/// The answer that grants a lease whose pages are there; to a session that has no way to write the arena, with a region
/// to write it into.
///
/// # Errors
/// The session may have ended meanwhile; the region may not be made.
pub(crate) fn granted(state: &mut State, grant: &Grant) -> Result<Reply, Failure> {
    let &Grant { session, lease, .. } = grant;
    let found = state.space.lease_of(session, lease).ok_or(Failure::UnknownSession)?;
    let (slot, Extent { offset, len_bytes }) = (found.slot, found.extent);
    let granted = Granted { lease: lease.0, slot, offset, len_bytes };
    fault_point(FaultPoint::LeaseReserved);
    if state.sessions.get(session).is_none_or(|session| session.writable) {
        return Ok(Reply::new(&granted));
    }
    let make = || -> Result<_, Error> {
        let (facts, label) = (&state.facts, state.facts.labels.region("staging"));
        let region = Region::create(&label, len_bytes, facts.arena.backend(), &facts.kernel)?;
        region.seal(Seals::ShrinkGrow)?;
        let fd = region.open_read_write()?;
        Ok((region, fd))
    };
    let (region, fd) = make().map_err(|error| Failure::Internal { reason: error.to_string() })?;
    state.space.stage(lease, Arc::new(region));
    Ok(Reply::with_fds(&granted, vec![Arc::new(fd)]))
}

fn pages(len_bytes: u64) -> Shortage {
    Shortage::Room(Room { len_bytes, in_pages: true, total_bytes: len_bytes })
}

fn unknown(lease: LeaseId) -> Failure {
    Failure::BadLease { lease: lease.0, reason: "no such lease of this session".to_owned() }
}

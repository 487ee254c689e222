//! Leases: whole pages of free arena for a client to write into, itself or by way of a region of its own.

use crate::{
    allocator::Room,
    commit::ReplyTo,
    evict::Shortage,
    server::{AfterScan, Parked, Server, Tried},
    session::SessionId,
    space::LeaseId,
};
use plasmon_protocol::{
    limits::LEASE_SLOTS,
    message::{AnyRequest, EndLease, ExtendLease, Failure, Granted, LeaseEnded, Reserve},
};
use plasmon_shm::{Error, FaultPoint, Region, Seals, fault_point};
use std::sync::Arc;

impl Server {
    pub(crate) fn reserve(&mut self, reply_to: ReplyTo, session: SessionId, reserve: Reserve, tried: Tried) {
        match self.lease(session, reserve.len_bytes) {
            Ok(Some(lease)) => self.grant_lease(reply_to, session, lease, None),
            Ok(None) => {
                let len_bytes = reserve.len_bytes;
                let request = AnyRequest::Reserve(reserve);
                let parked = Parked { reply_to, session, request, as_of_ns: None, tried };
                self.make_room(pages(len_bytes), AfterScan::Request(parked));
            }
            Err(failure) => self.fail_lease(reply_to, session, failure),
        }
    }

    pub(crate) fn extend_lease(
        &mut self,
        reply_to: ReplyTo,
        session: SessionId,
        extend: ExtendLease,
        tried: Tried,
    ) {
        let ExtendLease { lease, len_bytes } = extend;
        let Some(before) = self.space.lease_of(session, LeaseId(lease)).map(|found| found.extent.len_bytes)
        else {
            return self.fail(reply_to, unknown(lease));
        };
        let in_place = self.space.extend_lease(LeaseId(lease), len_bytes).is_some();
        if in_place {
            return self.grant_lease(reply_to, session, LeaseId(lease), Some(before));
        }
        match self.lease(session, len_bytes) {
            Ok(Some(other)) => self.grant_lease(reply_to, session, other, None),
            Ok(None) => {
                let request = AnyRequest::ExtendLease(extend);
                let parked = Parked { reply_to, session, request, as_of_ns: None, tried };
                self.make_room(pages(len_bytes), AfterScan::Request(parked));
            }
            Err(failure) => self.fail_lease(reply_to, session, failure),
        }
    }

    pub(crate) fn end_lease(&mut self, reply_to: ReplyTo, session: SessionId, end: &EndLease) {
        if self.space.lease_of(session, LeaseId(end.lease)).is_none() {
            return self.fail(reply_to, unknown(end.lease));
        }
        self.space.end_lease(LeaseId(end.lease));
        self.reply(reply_to, &LeaseEnded {});
    }

    /// A lease of `len_bytes` for `session`; `None` if there is no room now.
    fn lease(&mut self, session_id: SessionId, len_bytes: u64) -> Result<Option<LeaseId>, Failure> {
        let Some(session) = self.sessions.get(session_id) else { return Err(Failure::UnknownSession {}) };
        if len_bytes == 0 {
            let what = "a lease (at least 1 byte)".to_owned();
            return Err(Failure::TooLarge { what, found_bytes: 0, limit_bytes: self.capacity_bytes });
        }
        let limit = if session.writable { LEASE_SLOTS } else { STAGING_LEASES_MAX };
        let Some(slot) = self.space.free_lease_slot(session_id, limit) else {
            return Err(Failure::TooMany { what: "leases of one session".to_owned(), limit: limit.into() });
        };
        let region = Arc::clone(&session.regions.first().expect("a session begins with a region").words);
        Ok(self.space.lease(session_id, slot, &region, len_bytes))
    }
}

/// Regions of their own that the leases of one session may have. Each takes a descriptor of the daemon's.
const STAGING_LEASES_MAX: u32 = 128;

impl Server {
    /// Answers with a lease; if the session has no way to write the arena, with a region to write it into. Returns
    /// whether that went out.
    pub(crate) fn tell_granted(&mut self, reply_to: ReplyTo, session: SessionId, granted: &Granted) -> bool {
        fault_point(FaultPoint::LeaseReserved);
        if self.sessions.get(session).is_none_or(|session| session.writable) {
            return self.try_reply(reply_to, granted, Vec::new());
        }
        let make = || -> Result<_, Error> {
            let label = self.labels.region("staging");
            let region = Region::create(&label, granted.len_bytes, self.arena.backend(), &self.kernel)?;
            region.seal(Seals::ShrinkGrow)?;
            let fd = region.open_read_write()?;
            Ok((region, fd))
        };
        match make() {
            Ok((region, fd)) => {
                self.space.stage(LeaseId(granted.lease), Arc::new(region));
                self.try_reply(reply_to, granted, vec![Arc::new(fd)])
            }
            Err(error) => {
                self.fail(reply_to, Failure::Internal { reason: error.to_string() });
                false
            }
        }
    }
}

fn pages(len_bytes: u64) -> Shortage {
    Shortage::Room(Room { len_bytes, in_pages: true, total_bytes: len_bytes })
}

fn unknown(lease: u64) -> Failure {
    Failure::BadLease { lease, reason: "no such lease of this session".to_owned() }
}

//! Leases: whole pages of free arena for a client to write into.

use crate::{
    commit::ReplyTo,
    server::{AfterScan, Parked, Server},
    session::SessionId,
    space::LeaseId,
};
use plasmon_protocol::{
    limits::LEASE_SLOTS,
    message::{AnyRequest, EndLease, ExtendLease, Failure, LeaseEnded, Reserve},
};
use std::sync::Arc;

impl Server {
    pub(crate) fn reserve(&mut self, reply_to: ReplyTo, session: SessionId, reserve: Reserve, scanned: bool) {
        match self.lease(session, reserve.len_bytes) {
            Ok(Some(lease)) => self.grant_lease(reply_to, session, lease, None),
            Ok(None) if !scanned && self.scan_may_help() => {
                let request = AnyRequest::Reserve(reserve);
                self.park_for_scan(AfterScan::Request(Parked { reply_to, session, request }));
            }
            Ok(None) => {
                let failure = self.store_full(reserve.len_bytes, false);
                self.fail(reply_to, failure);
            }
            Err(failure) => self.fail(reply_to, failure),
        }
    }

    pub(crate) fn extend_lease(
        &mut self,
        reply_to: ReplyTo,
        session: SessionId,
        extend: ExtendLease,
        scanned: bool,
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
            Ok(None) if !scanned && self.scan_may_help() => {
                let request = AnyRequest::ExtendLease(extend);
                self.park_for_scan(AfterScan::Request(Parked { reply_to, session, request }));
            }
            Ok(None) => {
                let failure = self.store_full(len_bytes, false);
                self.fail(reply_to, failure);
            }
            Err(failure) => self.fail(reply_to, failure),
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
        if !session.writable {
            return Err(Failure::NotWritable {});
        }
        if len_bytes == 0 {
            let what = "a lease (at least 1 byte)".to_owned();
            return Err(Failure::TooLarge { what, found_bytes: 0, limit_bytes: self.capacity_bytes });
        }
        let Some(slot) = self.space.free_lease_slot(session_id, LEASE_SLOTS) else {
            return Err(Failure::TooMany {
                what: "leases of one session".to_owned(),
                limit: LEASE_SLOTS.into(),
            });
        };
        let region = Arc::clone(&session.regions.first().expect("a session begins with a region").words);
        Ok(self.space.lease(session_id, slot, &region, len_bytes))
    }
}

fn unknown(lease: u64) -> Failure {
    Failure::BadLease { lease, reason: "no such lease of this session".to_owned() }
}

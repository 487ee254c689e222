//! Where the objects of a batch travel or stay: in the message, or in leases.

use super::Batch;
use crate::{
    codec::Prepared,
    connection::CallError,
    error::Result,
    lease::{Closed, Lease},
};
use plasmon_protocol::{
    index_of,
    limits::{FRAME_BYTES_MAX, INLINE_BYTES_MAX},
    message::{Failure, Payload},
    object::{Flags, Header},
};

/// Room in a frame that is left for names, descriptions and headers.
const INLINE_BATCH_BYTES_MAX: usize = FRAME_BYTES_MAX as usize / 2;

impl Batch {
    /// Copies the object to where it travels or stays: small ones into the message, others into a lease. A value that
    /// stands in the header is there already.
    pub(super) fn place(&mut self, prepared: &Prepared<'_>) -> Result<Payload> {
        if prepared.header().flags.has(Flags::INLINE) {
            return Ok(Payload::InHeader);
        }
        let len_bytes = prepared.len_bytes_max();
        if self.travels(len_bytes) {
            return Ok(Payload::Inline { bytes: prepared.to_vec()?.into() });
        }
        self.write_placed(len_bytes, |room| Ok(prepared.write_into(room)?))
    }

    /// As [`place`](Self::place), of an object that was encoded before.
    pub(super) fn place_bytes(&mut self, header: Header, bytes: &[u8]) -> Result<Payload> {
        if header.flags.has(Flags::INLINE) {
            return Ok(Payload::InHeader);
        }
        let len_bytes = bytes.len() as u64;
        if self.travels(len_bytes) {
            return Ok(Payload::Inline { bytes: bytes.to_vec().into() });
        }
        self.write_placed(len_bytes, |room| {
            room.copy_from_slice(bytes);
            Ok(bytes.len())
        })
    }

    /// Whether an object of this length travels in the message. Counts it, if so.
    fn travels(&mut self, len_bytes: u64) -> bool {
        let len = index_of(len_bytes);
        let travels =
            len_bytes <= INLINE_BYTES_MAX.into() && self.inline_bytes + len <= INLINE_BATCH_BYTES_MAX;
        if travels {
            self.inline_bytes += len;
            self.placed_bytes += len_bytes;
        }
        travels
    }

    /// Has an object of at most `len_bytes` written into a lease.
    fn write_placed(
        &mut self,
        len_bytes: u64,
        write: impl FnOnce(&mut [u8]) -> Result<usize>,
    ) -> Result<Payload> {
        let len = index_of(len_bytes);
        let mut lease = match self.open.take() {
            Some(lease) if lease.len_bytes() >= len_bytes => lease,
            filled => {
                if let Some(filled) = filled {
                    self.close(filled, false);
                }
                self.lease(len_bytes).map_err(|error| self.session.explain(error))?
            }
        };
        let written_bytes = write(&mut lease.bytes_mut()[..len])? as u64;
        let payload = lease.piece(written_bytes);
        self.open = Some(lease);
        self.placed_bytes += written_bytes;
        Ok(payload)
    }

    /// A lease for an object of `len_bytes` and, in a long batch, for more of its kind: an eighth of what the batch
    /// has so far, so that a batch of any length takes few leases and holds little that it does not need. Where there
    /// is no room for that, the longest piece there is.
    fn lease(&mut self, len_bytes: u64) -> Result<Lease, CallError> {
        let object_bytes = len_bytes.next_multiple_of(64);
        let ahead_bytes = (self.placed_bytes / 8).next_multiple_of(object_bytes);
        if ahead_bytes <= len_bytes {
            return Lease::get(&self.session, len_bytes);
        }
        let mut wanted_bytes = ahead_bytes;
        loop {
            match Lease::reserve(&self.session, wanted_bytes) {
                Err(CallError::Failed(failure))
                    if wanted_bytes > object_bytes
                        && let Some(room) = failure.no_room().cloned() =>
                {
                    let longest_bytes = room.largest_free_bytes.min(wanted_bytes / 2);
                    wanted_bytes = (longest_bytes / object_bytes * object_bytes).max(object_bytes);
                    self.short = Some(room);
                }
                // There is room in more pieces than there are leases: what is short is room in one piece.
                Err(CallError::Failed(Failure::TooMany { .. })) if self.short.is_some() => {
                    let room = self.short.take().expect("it is some");
                    return Err(CallError::Failed(Failure::StoreFull(room)));
                }
                result => return result,
            }
        }
    }

    /// Nothing more is written into `lease`, which is unmapped unless it may be kept.
    pub(super) fn close(&mut self, lease: Lease, keep: bool) {
        match lease.close(keep) {
            Closed::Ends(lease) => self.end_leases.push(lease),
            Closed::Rest(rest) => self.rest = Some(rest),
        }
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use crate::{Blob, Error, testing::Store};

    /// Invariant 6: all of the capacity is usable, also by one batch.
    #[test]
    fn a_batch_of_many_objects_takes_few_leases_and_little_more_memory_than_they_have() {
        const LEN: usize = 70 << 10;
        let store = Store::start(256 << 20).unwrap();
        let brain = store.connect().unwrap();
        let value = |number: u8| vec![number; LEN + usize::from(number)];
        let mut batch = brain.batch().unwrap();
        for number in 0..1_100_usize {
            let value = value(u8::try_from(number % 251).unwrap());
            batch = batch.learn(&number.to_string(), &value).unwrap();
        }
        let stats = brain.stats().unwrap();
        let needed = 1_100 * LEN as u64;
        assert!(stats.leases < 60, "{} leases", stats.leases);
        assert!(stats.leased_bytes < needed + needed / 4, "{} of {needed}", stats.leased_bytes);
        let version = batch.commit().unwrap();
        for number in 0..1_100_usize {
            let object = brain.recall::<Blob>(&number.to_string()).unwrap();
            assert!(*object == value(u8::try_from(number % 251).unwrap()), "object {number}");
        }
        assert_eq!(brain.metadata("1099").unwrap().unwrap().version, version);
        assert_eq!(brain.stats().unwrap().leases, 0);
    }

    /// Invariant 6: a store that is full says so with its figures, however a batch comes upon it.
    #[test]
    fn a_batch_of_100_000_small_values_finds_a_nearly_full_store_full() {
        let store = Store::start(64 << 20).unwrap();
        let brain = store.connect().unwrap();
        let fill = |len: usize| {
            let mut count = 0;
            while brain.learn(&format!("{len} {count}"), &vec![1_u8; len]).is_ok() {
                count += 1;
            }
            count
        };
        let learn_all = || {
            let value = vec![7_u8; 200];
            let mut batch = brain.batch()?;
            for number in 0..100_000 {
                batch = batch.learn(&number.to_string(), &value)?;
            }
            batch.commit()
        };
        // In one piece there is far too little; then there is half of the store, in pieces that hold a few values each.
        for (len, is_fragmented) in [(1 << 20, false), (4_000, true)] {
            let count = fill(len);
            for odd in (1..count).step_by(2).filter(|_| is_fragmented) {
                brain.forget(&format!("{len} {odd}")).unwrap();
            }
            let before = brain.stats().unwrap();
            let refused = learn_all();
            let Err(Error::StoreFull(room)) = &refused else { panic!("{len}: {refused:?}") };
            assert!(room.capacity_bytes >= 64 << 20 && room.largest_free_bytes < 1 << 20, "{room:?}");
            let after = brain.stats().unwrap();
            let in_use = |stats: &crate::Stats| (stats.leases, stats.used_bytes, stats.objects);
            assert_eq!(in_use(&after), in_use(&before));
            brain.clear().unwrap();
        }
    }

    /// A kept lease gives the next learn its room without a request, until it is full or taken back.
    #[test]
    fn learns_of_every_length_one_after_the_other_come_back_whole() {
        let store = Store::start(64 << 20).unwrap();
        let brain = store.connect().unwrap();
        for round in 0..200_usize {
            let len = (round * 7_919) % 400_000 + round;
            let value: Vec<u8> =
                (0..len).map(|index| u8::try_from((index ^ round) & 0xff).unwrap()).collect();
            let name = (round % 50).to_string();
            brain.learn(&name, &value).unwrap();
            assert!(*brain.recall::<Blob>(&name).unwrap() == *value, "round {round}");
        }
        assert!(brain.stats().unwrap().leases <= 1);
    }
}

//! Batches that are too long for a frame.

use super::Batch;
use crate::{
    connection::CallError,
    error::{Error, Result},
    lease::{Closed, Lease},
};
use plasmon_protocol::{
    codec::Codec,
    limits::COMMIT_BYTES_MAX,
    message::{Bind, Change, Commit, Committed, Condition, LongCommit, Payload, SameAs},
};

/// What an entry of a commit has at most beyond its texts and its payload, in bytes.
const ENTRY_BYTES_MAX: usize = 128;

impl Batch {
    /// At most so many bytes has the commit's body.
    pub(super) fn body_bytes_max(&self) -> usize {
        let conditions = self.conditions.iter().map(|condition| {
            let Condition { namespace, name, .. } = condition;
            ENTRY_BYTES_MAX + namespace.len() + name.len()
        });
        let changes = self.changes.iter().map(|change| match change {
            Change::Bind(bind) | Change::BindEphemeral(bind) | Change::Replace(bind) => {
                let Bind { namespace, name, description, metadata, payload, .. } = bind;
                let texts = [description, metadata].into_iter().flatten().map(String::len).sum::<usize>();
                let inline = if let Payload::Inline { bytes } = payload { bytes.len() } else { 0 };
                ENTRY_BYTES_MAX + namespace.len() + name.len() + texts + inline
            }
            Change::SameAs(same) => {
                let SameAs { namespace, name, description, metadata, of_namespace, of_name, .. } = same;
                let texts = [description, metadata].into_iter().flatten().map(String::len).sum::<usize>();
                let names = namespace.len() + name.len() + of_namespace.len() + of_name.len();
                2 * ENTRY_BYTES_MAX + names + texts
            }
            Change::RestoreNamespace { namespace, label } => {
                ENTRY_BYTES_MAX + namespace.len() + label.as_str().len()
            }
            Change::PurgeHistory { namespace, name } | Change::Unbind { namespace, name } => {
                ENTRY_BYTES_MAX + namespace.len() + name.len()
            }
            Change::RemoveNamespace { namespace }
            | Change::RemoveEmptyNamespace { namespace }
            | Change::ClearNamespace { namespace }
            | Change::RegisterNamespace { namespace }
            | Change::EnsureCache { namespace }
            | Change::DeclareHistory { namespace, .. }
            | Change::DeclareNamespace { namespace, .. } => ENTRY_BYTES_MAX + namespace.len(),
        });
        conditions.chain(changes).sum::<usize>() + self.end_leases.len() * 8 + ENTRY_BYTES_MAX
    }

    /// Writes what would have travelled in the message into a lease, as everything else of a long batch.
    pub(super) fn move_inline_payloads(&mut self) -> Result<()> {
        let rounded = |change: &Change| match change.bind() {
            Some(Bind { payload: Payload::Inline { bytes }, .. }) => {
                (bytes.len() as u64).next_multiple_of(64)
            }
            _ => 0,
        };
        let len_bytes: u64 = self.changes.iter().map(rounded).sum();
        if len_bytes == 0 {
            return Ok(());
        }
        let lease = Lease::reserve(&self.session, len_bytes);
        let mut lease = lease.map_err(|error| self.session.explain(error))?;
        for change in &mut self.changes {
            if let Some(Bind { payload, .. }) = change.bind_mut()
                && let Payload::Inline { bytes } = payload
            {
                lease.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
                *payload = lease.piece(bytes.len() as u64);
            }
        }
        self.close(lease, false);
        Ok(())
    }

    /// Writes the commit into a lease, which ends with it, and has the store read it there.
    pub(super) fn send_long(&self, commit: &mut Commit) -> Result<Committed, CallError> {
        commit.end_leases.push(0); // the last eight bytes of the body: filled in when the lease is known
        let mut body = Vec::new();
        commit.encode(&mut body);
        commit.end_leases.pop();
        let len_bytes = body.len() as u64;
        if len_bytes > COMMIT_BYTES_MAX {
            let what = "a batch (names, descriptions and metadata; commit it in parts)".to_owned();
            let too_large = Error::TooLarge { what, found_bytes: len_bytes, limit_bytes: COMMIT_BYTES_MAX };
            return Err(CallError::Other(too_large));
        }
        // Not a failure of the commit: that would have ended the leases.
        let lease = Lease::reserve(&self.session, len_bytes);
        let mut lease = lease.map_err(|error| CallError::Other(self.session.explain(error)))?;
        let (number, offset) = (lease.number(), lease.offset());
        if let Some(last) = body.last_chunk_mut() {
            *last = number.to_le_bytes();
        }
        lease.bytes_mut()[..body.len()].copy_from_slice(&body);
        drop(body);
        if let Closed::Ends(number) = lease.close(false) {
            commit.end_leases.push(number);
        }
        // As long as it takes: a million names take seconds, and others may come first.
        self.session.call_at_length(&LongCommit { lease: number, offset, len_bytes })
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::{Blob, LearnOptions, testing::Store};
    use plasmon_protocol::limits::COMMIT_ENTRIES_MAX;

    /// Invariant 3: a batch of any length is visible at one moment or not at all.
    #[test]
    fn a_batch_beyond_a_frame_is_committed_like_any_other() {
        let store = Store::start(128 << 20).unwrap();
        let brain = store.connect().unwrap();
        let long = LearnOptions::new().description("x".repeat(60 << 10));
        let big = vec![9_u8; 1 << 20];
        let mut batch = brain.batch().unwrap().learn("big", &big).unwrap();
        for number in 0..300_i64 {
            batch = batch.learn_with(&number.to_string(), &number, &long.clone().if_absent()).unwrap();
        }
        let version = batch.commit().unwrap();
        for number in 0..300_i64 {
            assert_eq!(brain.recall::<i64>(&number.to_string()).unwrap(), number);
        }
        assert!(*brain.recall::<Blob>("big").unwrap() == *big);
        let metadata = brain.metadata("299").unwrap().unwrap();
        assert_eq!((metadata.version, metadata.description.len()), (version, 60 << 10));
        let before = brain.stats().unwrap();
        assert_eq!((before.leases, before.objects), (0, 301));

        // One condition among many does not hold.
        let mut batch = brain.batch().unwrap().learn("big", &1).unwrap();
        for number in (1_000..1_300).chain([7]) {
            batch = batch.learn_with(&number.to_string(), &1, &long.clone().if_absent()).unwrap();
        }
        let refused = batch.commit();
        assert!(matches!(&refused, Err(Error::ConditionFailed { name, .. }) if name == "7"), "{refused:?}");
        let after = brain.stats().unwrap();
        assert_eq!(
            (after.leases, after.objects, after.used_bytes, after.version),
            (0, 301, before.used_bytes, version)
        );
    }

    #[test]
    fn a_long_batch_that_cannot_be_sent_gives_its_memory_back() {
        let store = Store::start(24 << 20).unwrap();
        let brain = store.connect().unwrap();
        let long = LearnOptions::new().description("x".repeat(64 << 10));
        let mut batch = brain.batch().unwrap().learn("big", &vec![0_u8; 8 << 20]).unwrap();
        for number in 0..300 {
            batch = batch.learn_with(&number.to_string(), &1, &long).unwrap();
        }
        let refused = batch.commit();
        assert!(matches!(refused, Err(Error::StoreFull(_))), "{refused:?}");
        let stats = brain.stats().unwrap();
        assert_eq!((stats.leases, stats.used_bytes, stats.objects), (0, 0, 0));
    }

    #[test]
    fn a_batch_beyond_the_bounds_says_what_to_do() {
        let store = Store::start(8 << 20).unwrap();
        let brain = store.connect().unwrap();
        let mut batch = brain.batch().unwrap();
        for number in 0..=COMMIT_ENTRIES_MAX {
            batch = batch.forget(&number.to_string()).unwrap();
        }
        let refused = batch.commit().unwrap_err();
        assert!(matches!(&refused, Error::TooMany { limit: 2_097_152, .. }), "{refused:?}");
        assert!(refused.to_string().contains("in parts"), "{refused}");
        let long = LearnOptions::new().description("x".repeat(64 << 10));
        let mut batch = brain.batch().unwrap();
        for number in 0..=4_096 {
            batch = batch.learn_with(&number.to_string(), &1, &long).unwrap();
        }
        let refused = batch.commit().unwrap_err();
        assert!(matches!(&refused, Error::TooLarge { limit_bytes: COMMIT_BYTES_MAX, .. }), "{refused:?}");
        assert!(refused.to_string().contains("in parts"), "{refused}");
        assert_eq!(brain.stats().unwrap().used_bytes, 0);
    }
}

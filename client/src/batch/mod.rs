//! Batches: many changes at one moment. A learn is a batch of one.

mod long;
mod place;

use crate::{
    brain::Brain,
    codec::Learn,
    connection::CallError,
    error::{Error, Result},
    kept::KeptLease,
    lease::Lease,
    options::{LearnOptions, checked_ttl, metadata_text},
    session::{Session, Slot},
};
use plasmon_protocol::{
    index_of,
    limits::{COMMIT_ENTRIES_MAX, DESCRIPTION_BYTES_MAX, FRAME_BYTES_MAX, METADATA_BYTES_MAX},
    message::{
        Bind, Change, Commit, Committed, Condition, EndLease, Expect, Failure, Lives, NoRoom, Payload, SameAs,
    },
    name::{Name, Namespace},
    object::Header,
};
use plasmon_shm::{FaultPoint, SealedMapping, fault_point};
use std::{io, sync::Arc};

/// Many changes that become visible at one moment, or not at all. Made by [`Brain::batch`].
///
/// ```
/// let brain = plasmon::testing::brain()?;
/// let version = brain.batch()?.learn("from", &100)?.learn("to", &200)?.forget("draft")?.commit()?;
/// let objects = brain.recall_many(&["from", "to"])?;
/// assert!(objects.iter().flatten().all(|object| object.version() == version));
/// # Ok::<(), plasmon::Error>(())
/// ```
#[must_use = "nothing happens before `commit`"]
pub struct Batch {
    brain: Brain,
    session: Arc<Session>,
    conditions: Vec<Condition>,
    changes: Vec<Change>,
    /// What objects are being written into, one behind the other.
    open: Option<Lease>,
    /// Leases that were filled before it, unmapped.
    end_leases: Vec<u64>,
    /// What may be kept of the open lease, once it is closed.
    rest: Option<KeptLease>,
    /// Whether a change makes sure that the namespace is a cache.
    ensures_cache: bool,
    /// Bytes of payloads that travel in the message.
    inline_bytes: usize,
    /// Bytes of payloads, wherever they are.
    placed_bytes: u64,
    /// What the store said when there was no room for as much as was wanted.
    short: Option<NoRoom>,
}

/// Bytes that were written in place and are sealed: the mapping that they were written through, read-only now, and a
/// pin, so that pointers into it stay good. Made by [`Writable::seal_in_place`](crate::Writable::seal_in_place).
#[derive(Debug)]
pub struct SealedView {
    // Unmapped before the pin goes: fields are dropped in this order.
    _bytes: SealedMapping,
    _pin: Slot,
}

impl Batch {
    pub(crate) fn new(brain: &Brain) -> Result<Batch> {
        Ok(Batch::in_session(brain, brain.session()?))
    }

    fn in_session(brain: &Brain, session: Arc<Session>) -> Batch {
        Batch {
            brain: brain.clone(),
            session,
            conditions: Vec::new(),
            changes: Vec::new(),
            open: None,
            end_leases: Vec::new(),
            rest: None,
            ensures_cache: false,
            inline_bytes: 0,
            placed_bytes: 0,
            short: None,
        }
    }

    /// Binds `name` to the object of `len_bytes` that `lease` begins with, in the session that has the lease: in
    /// another one its number may stand for somebody else's.
    pub(crate) fn bind_written(
        brain: &Brain,
        name: &str,
        options: &LearnOptions,
        header: Header,
        mut lease: Lease,
        len_bytes: u64,
    ) -> Result<u64> {
        let mut batch = Batch::in_session(brain, Arc::clone(lease.session()));
        let name = batch.add_condition(name, options)?;
        let payload = lease.piece(len_bytes);
        batch.bind(name, options, header, payload)?;
        batch.close(lease, false);
        batch.commit()
    }

    /// As [`bind_written`](Self::bind_written), with the lease's bytes left where they are, read-only and pinned.
    ///
    /// Returns the outcome of the commit and a view of the sealed bytes. The view is `None` if there was no
    /// pin slot or if sealing failed. Then nothing is bound, and the lease is gone.
    pub(crate) fn bind_in_place(
        brain: &Brain,
        name: &str,
        options: &LearnOptions,
        header: Header,
        mut lease: Lease,
        len_bytes: u64,
    ) -> (Result<u64>, Option<SealedView>) {
        let session = Arc::clone(lease.session());
        let slot = match session.take_slot() {
            Ok(slot) => slot,
            Err(error) => return (Err(error), None),
        };
        let payload = lease.piece(len_bytes);
        if let Payload::Leased { offset, .. } = &payload {
            // Before the commit: from the moment the object can be forgotten, its extent is held.
            slot.publish_at(*offset);
        }
        let mut batch = Batch::in_session(brain, session);
        let bytes = match lease.seal_in_place() {
            Ok((lease, bytes)) => {
                batch.end_leases.push(lease);
                bytes
            }
            Err(error) => return (Err(error), None),
        };
        let bound = batch
            .add_condition(name, options)
            .and_then(|name| batch.bind(name, options, header, payload))
            .and_then(|()| batch.commit());
        (bound, Some(SealedView { _bytes: bytes, _pin: slot }))
    }

    /// Makes room for so many more changes, which is quicker than bit by bit.
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let mut batch = store.connect()?.batch()?.reserve(1_000);
    /// for number in 0..1_000 {
    ///     batch = batch.learn(&number.to_string(), &number)?;
    /// }
    /// batch.commit()?;
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn reserve(mut self, changes: usize) -> Batch {
        self.changes.reserve(changes);
        self
    }

    /// Binds `name` to a new object made of `value`. The value is copied now, into the batch or into shared memory.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::Codec`], [`Error::StoreFull`].
    pub fn learn<V: Learn + ?Sized>(self, name: &str, value: &V) -> Result<Batch> {
        self.learn_with(name, value, &LearnOptions::default())
    }

    /// As [`learn`](Self::learn), with what `options` add.
    ///
    /// # Errors
    /// As [`learn`](Self::learn).
    pub fn learn_with<V: Learn + ?Sized>(
        mut self,
        name: &str,
        value: &V,
        options: &LearnOptions,
    ) -> Result<Batch> {
        let prepared = value.prepare()?;
        let name = self.add_condition(name, options)?;
        let payload = self.place(&prepared)?;
        self.bind(name, options, prepared.header(), payload)?;
        Ok(self)
    }

    /// Unbinds `name`; nothing happens if it is not bound.
    ///
    /// # Errors
    /// [`Error::BadName`].
    pub fn forget(mut self, name: &str) -> Result<Batch> {
        let (namespace, name) = (self.brain.namespace_checked().clone(), Name::new(name)?);
        self.changes.push(Change::Unbind { namespace, name });
        Ok(self)
    }

    /// Binds `target` to the object that `source` is bound to before this batch. No bytes move, whatever its length.
    /// `target` gets the description and the metadata of `source`, and lives as its namespace has declared.
    ///
    /// The batch fails with [`Error::NotBound`] if `source` is not bound when it is committed.
    ///
    /// # Errors
    /// [`Error::BadName`].
    pub fn copy(self, source: &str, target: &str) -> Result<Batch> {
        let namespace = self.brain.namespace_checked().clone();
        self.same_as(source, namespace, target, Lives::AsDeclared)
    }

    /// As [`copy`](Self::copy), into another namespace, which is registered if it is new.
    ///
    /// # Errors
    /// [`Error::BadName`].
    pub fn copy_to(self, source: &str, namespace: &str, target: &str) -> Result<Batch> {
        self.same_as(source, Namespace::new(namespace)?, target, Lives::AsDeclared)
    }

    /// Moves what `old` is bound to before this batch to `new`: time to live and deadline go with it. If `new` is bound, it
    /// is bound anew.
    ///
    /// The batch fails with [`Error::NotBound`] if `old` is not bound when it is committed.
    ///
    /// # Errors
    /// [`Error::BadName`].
    pub fn rename(self, old: &str, new: &str) -> Result<Batch> {
        let namespace = self.brain.namespace_checked().clone();
        let batch = self.same_as(old, namespace, new, Lives::AsSource)?;
        if old == new { Ok(batch) } else { batch.forget(old) }
    }

    /// Binds `name` to what it was bound to at `moment`, the number of a change: right after that, as far as that is kept. The
    /// number of a version that is kept is such a moment. It lives as its namespace has declared.
    ///
    /// The batch fails with [`Error::NotBound`] if nothing was bound to the name then, or that is not kept.
    ///
    /// # Errors
    /// [`Error::BadName`].
    pub fn restore(mut self, name: &str, moment: u64) -> Result<Batch> {
        let namespace = self.brain.namespace_checked().clone();
        self = self.same_as(name, namespace, name, Lives::AsDeclared)?;
        if let Some(Change::SameAs(same)) = self.changes.last_mut() {
            same.at = Some(moment);
        }
        Ok(self)
    }

    /// Only if this holds.
    pub(crate) fn condition(mut self, condition: Condition) -> Batch {
        self.conditions.push(condition);
        self
    }

    /// Binds a name of any namespace to a value that was encoded before; `bytes` is empty where it stands in the header.
    pub(crate) fn learn_encoded(
        mut self,
        namespace: &Namespace,
        name: Name,
        header: Header,
        bytes: &[u8],
        options: &LearnOptions,
    ) -> Result<Batch> {
        let payload = self.place_bytes(header, bytes)?;
        if let Some(expect) = options.expect.clone() {
            let (namespace, name) = (namespace.clone(), name.clone());
            self.conditions.push(Condition { namespace, name, expect });
        }
        if let Some((held, version)) = &options.held {
            let (namespace, name, expect) =
                (namespace.clone(), Name::new(held)?, Expect::Version { version: *version });
            self.conditions.push(Condition { namespace, name, expect });
        }
        self.bind_in(namespace.clone(), name, options, header, payload)?;
        Ok(self)
    }

    fn same_as(mut self, source: &str, namespace: Namespace, target: &str, lives: Lives) -> Result<Batch> {
        let of_namespace = self.brain.namespace_checked().clone();
        let (of_name, name) = (Name::new(source)?, Name::new(target)?);
        let (description, metadata, at) = (None, None, None);
        let same = SameAs { namespace, name, description, metadata, lives, of_namespace, of_name, at };
        self.changes.push(Change::SameAs(same));
        Ok(self)
    }

    /// Makes everything visible, and returns the version that all new bindings have. Blocks for as long as that takes:
    /// some seconds for a million names. The batch also takes some memory of the store while it is on its way, where it
    /// is too long for a request: about as much as its names, descriptions and metadata have, and 90 bytes for each.
    ///
    /// # Errors
    /// [`Error::ConditionFailed`], [`Error::StoreFull`], [`Error::IndexFull`], [`Error::NamedTwice`];
    /// [`Error::TooMany`] for more than 2,097,152 changes, and [`Error::TooLarge`] for names, descriptions and metadata
    /// of more than 256 MiB; and others. Then nothing has changed. [`Error::OutcomeUnknown`] if the store went away
    /// before it answered.
    pub fn commit(self) -> Result<u64> {
        Ok(self.send()?.version)
    }

    pub(crate) fn change(mut self, change: Change) -> Batch {
        self.changes.push(change);
        self
    }

    pub(crate) fn expect(mut self, name: &str, expect: Expect) -> Result<Batch> {
        let (namespace, name) = (self.brain.namespace_checked().clone(), Name::new(name)?);
        self.conditions.push(Condition { namespace, name, expect });
        Ok(self)
    }

    fn add_condition(&mut self, name: &str, options: &LearnOptions) -> Result<Name> {
        let name = Name::new(name)?;
        if let Some(expect) = options.expect.clone() {
            let namespace = self.brain.namespace_checked().clone();
            self.conditions.push(Condition { namespace, name: name.clone(), expect });
        }
        if let Some((held, version)) = &options.held {
            let (namespace, name) = (self.brain.namespace_checked().clone(), Name::new(held)?);
            self.conditions.push(Condition {
                namespace,
                name,
                expect: Expect::Version { version: *version },
            });
        }
        Ok(name)
    }

    fn bind(&mut self, name: Name, options: &LearnOptions, header: Header, payload: Payload) -> Result<()> {
        self.bind_in(self.brain.namespace_checked().clone(), name, options, header, payload)
    }

    fn bind_in(
        &mut self,
        namespace: Namespace,
        name: Name,
        options: &LearnOptions,
        header: Header,
        payload: Payload,
    ) -> Result<()> {
        let too_long = |what: &str, text: &str, limit: u32| {
            let (what, found_bytes, limit_bytes) = (what.to_owned(), text.len() as u64, limit.into());
            if found_bytes > limit_bytes {
                Err(Error::TooLarge { what, found_bytes, limit_bytes })
            } else {
                Ok(())
            }
        };
        let description = options.description.clone();
        if let Some(text) = &description {
            too_long("a description", text, DESCRIPTION_BYTES_MAX)?;
        }
        let metadata = options.metadata.as_ref().map(metadata_text).transpose()?;
        if let Some(text) = &metadata {
            too_long("metadata", text, METADATA_BYTES_MAX)?;
        }
        let ttl = checked_ttl(options.ttl.as_ref())?;
        if options.in_cache && !std::mem::replace(&mut self.ensures_cache, true) {
            self.changes.push(Change::EnsureCache { namespace: namespace.clone() });
        }
        let bind = Bind { namespace, name, description, metadata, header, ttl, payload };
        self.changes.push(match options {
            LearnOptions { is_ephemeral: true, .. } => Change::BindEphemeral(bind),
            LearnOptions { keeps_ttl: true, .. } => Change::Replace(bind),
            _ => Change::Bind(bind),
        });
        Ok(())
    }

    pub(crate) fn send(mut self) -> Result<Committed> {
        let changes = self.changes.len().max(self.conditions.len()) as u64;
        if changes > COMMIT_ENTRIES_MAX.into() {
            let what = format!("changes in one batch ({changes}; commit it in parts)");
            return Err(Error::TooMany { what, limit: COMMIT_ENTRIES_MAX.into() });
        }
        let is_long = self.body_bytes_max() > index_of(FRAME_BYTES_MAX.into());
        if let Some(lease) = self.open.take() {
            // The only lease of a batch may be kept for the next learn.
            let keep = self.end_leases.is_empty() && !is_long;
            self.close(lease, keep);
        }
        if is_long {
            self.move_inline_payloads()?;
        }
        let conditions = std::mem::take(&mut self.conditions);
        let changes = std::mem::take(&mut self.changes);
        let end_leases = std::mem::take(&mut self.end_leases);
        let has_leases = !end_leases.is_empty() || self.rest.is_some();
        let mut commit = Commit { conditions, changes, end_leases };
        fault_point(FaultPoint::CommitReady);
        let result = match is_long {
            true => self.send_long(&mut commit),
            // What was written for the store to copy is copied first: as long as it takes.
            false if has_leases && !self.session.welcome.writable => self.session.call_at_length(&commit),
            false => self.session.call(&commit),
        };
        let mut outcome = outcome(result, has_leases || is_long);
        if let Outcome::Unsent = outcome {
            self.session.lose();
            self.session = self.brain.session()?;
            outcome = self::outcome(self.session.call(&commit), true);
        }
        self.conclude(outcome, commit)
    }

    /// Does with the leases of `commit` what `outcome` asks for, and says what became of the batch.
    fn conclude(&mut self, outcome: Outcome, commit: Commit) -> Result<Committed> {
        let rest = match &outcome {
            Outcome::Committed(_) | Outcome::Refused(_) => self.rest.take(),
            _ => None,
        };
        match outcome {
            Outcome::Committed(committed) => {
                fault_point(FaultPoint::Committed);
                if let Some(rest) = rest {
                    Lease::lay_down(rest, &self.session);
                }
                Ok(committed)
            }
            Outcome::Refused(failure) => {
                if let Some(rest) = rest {
                    Lease::give_back(rest, &self.session);
                }
                Err(self.session.explain(CallError::Failed(failure)))
            }
            Outcome::Unknown(source) => {
                self.session.lose();
                Err(Error::OutcomeUnknown { socket: self.session.socket.clone(), source })
            }
            Outcome::Unanswered => Err(self.session.explain(CallError::TimedOut)),
            Outcome::Undone(error) => {
                self.end_leases = commit.end_leases;
                Err(self.session.explain(error))
            }
            Outcome::Unsent => unreachable!("a commit that was not sent is sent once more, and then undone"),
        }
    }
}

/// What became of a commit, and so of the leases that it names.
#[derive(Debug)]
enum Outcome {
    /// It was made, and its leases have ended.
    Committed(Committed),
    /// The store refused it: nothing has changed, but its leases have ended.
    Refused(Failure),
    /// The request never left and names no lease: it can be made again, in a new session.
    Unsent,
    /// The connection broke: nobody knows whether it was made.
    Unknown(io::Error),
    /// No answer came in time: it may still be made, and its leases are left alone.
    Unanswered,
    /// The request never left, or its answer made no sense: its leases are given back, as far as they have not ended.
    Undone(CallError),
}

/// What the answer to a commit means. `has_leases`: whether it names leases, which belong to the session that it was made
/// in, or must not be made again for another reason.
fn outcome(result: Result<Committed, CallError>, has_leases: bool) -> Outcome {
    match result {
        Ok(committed) => Outcome::Committed(committed),
        Err(CallError::Failed(failure)) => Outcome::Refused(failure),
        Err(CallError::Lost { sent: false, .. }) if !has_leases => Outcome::Unsent,
        Err(CallError::Lost { source, sent: true }) => Outcome::Unknown(source),
        Err(CallError::TimedOut) => Outcome::Unanswered,
        Err(error @ (CallError::Lost { sent: false, .. } | CallError::Other(_))) => Outcome::Undone(error),
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // Not committed: what was written goes back.
        for lease in self.end_leases.drain(..) {
            let _ = self.session.call(&EndLease { lease });
        }
        if let Some(rest) = self.rest.take() {
            Lease::give_back(rest, &self.session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(sent: bool) -> CallError {
        CallError::Lost { source: io::ErrorKind::BrokenPipe.into(), sent }
    }

    #[test]
    fn only_a_request_that_never_left_and_names_no_lease_is_made_again() {
        assert!(matches!(outcome(Err(lost(false)), false), Outcome::Unsent));
        assert!(matches!(
            outcome(Err(lost(false)), true),
            Outcome::Undone(CallError::Lost { sent: false, .. })
        ));
        for has_leases in [false, true] {
            assert!(matches!(outcome(Err(lost(true)), has_leases), Outcome::Unknown(_)));
        }
    }

    /// Leases are given back only where the store has not ended them and will not write them any more.
    #[test]
    fn leases_are_given_back_only_after_what_was_not_done() {
        for has_leases in [false, true] {
            let refused = outcome(Err(CallError::Failed(Failure::ShuttingDown)), has_leases);
            assert!(matches!(refused, Outcome::Refused(Failure::ShuttingDown)), "{refused:?}");
            let unanswered = outcome(Err(CallError::TimedOut), has_leases);
            assert!(matches!(unanswered, Outcome::Unanswered), "{unanswered:?}");
            let odd = outcome(Err(CallError::Other(Error::internal("odd"))), has_leases);
            assert!(matches!(odd, Outcome::Undone(CallError::Other(_))), "{odd:?}");
            let made = outcome(Ok(Committed { version: 7, unbound: 1, unbound_bytes: 64 }), has_leases);
            assert!(matches!(made, Outcome::Committed(Committed { version: 7, unbound: 1, .. })), "{made:?}");
        }
    }
}

//! Learning: one commit, of one binding or of many.

use crate::{
    brain::Brain,
    codec::{Learn, Prepared, Table, with_room},
    connection::CallError,
    error::{Error, Result},
    kept::KeptLease,
    lease::{Closed, Lease},
    session::{Session, Slot},
};
use plasmon_protocol::{
    codec::Codec,
    index_of,
    limits::{
        COMMIT_BYTES_MAX, COMMIT_ENTRIES_MAX, DESCRIPTION_BYTES_MAX, FRAME_BYTES_MAX, INLINE_BYTES_MAX,
        METADATA_BYTES_MAX,
    },
    message::{
        Bind, Change, Commit, Committed, Condition, EndLease, Expect, Failure, LongCommit, NoRoom, Payload,
        Ttl,
    },
    name::Name,
    object::{Flags, Header},
};
use plasmon_shm::{FaultPoint, SealedMapping, fault_point};
use std::{sync::Arc, time::Duration};

/// What goes with a value when it is learned. The default changes nothing about a plain learn.
///
/// ```
/// use plasmon::LearnOptions;
///
/// let brain = plasmon::testing::brain()?;
/// brain.learn_with("rate", &0.5, &LearnOptions::new().description("per hour").if_absent())?;
/// let again = brain.learn_with("rate", &0.7, &LearnOptions::new().if_absent());
/// assert!(matches!(again, Err(plasmon::Error::ConditionFailed { .. })));
/// # Ok::<(), plasmon::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct LearnOptions {
    description: Option<String>,
    metadata: Option<serde_json::Value>,
    expect: Option<Expect>,
    /// Another name, and the version that it must have.
    held: Option<(String, u64)>,
    ttl: Option<Ttl>,
    keeps_ttl: bool,
    is_ephemeral: bool,
    in_cache: bool,
}

impl LearnOptions {
    /// Nothing goes with the value.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A description for people, at most 64 KiB. Without one, a rebound name keeps the one it has; an empty one
    /// clears it.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// Metadata of the user: a JSON object of at most 64 KiB as text. Without it, a rebound name keeps what it has;
    /// an empty object clears it.
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// let unit = serde_json::json!({ "unit": "EUR" });
    /// brain.learn_with("price", &19.5, &plasmon::LearnOptions::new().metadata(unit.clone()))?;
    /// assert_eq!(brain.metadata("price")?.map(|it| it.metadata), Some(unit));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn metadata(mut self, object: serde_json::Value) -> Self {
        self.metadata = Some(object);
        self
    }

    /// The binding lives for `ttl`, which is longer than zero, and is gone then for everybody at one moment, as if it had
    /// been forgotten. Who holds its value keeps it. Time goes on while the machine is suspended.
    ///
    /// Without it the binding lives as long as its namespace has [declared](Brain::declare), or without end;
    /// [`Duration::MAX`] has no end whatever is declared. Learning the name anew begins anew.
    ///
    /// # Examples
    /// ```
    /// use plasmon::LearnOptions;
    /// use std::time::Duration;
    ///
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn_with("token", "secret", &LearnOptions::new().ttl(Duration::from_millis(50)))?;
    /// while brain.exists("token")? {
    ///     std::thread::yield_now();
    /// }
    /// assert_eq!(brain.len()?, 0);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl_of(ttl, false));
        self
    }

    /// As [`ttl`](Self::ttl), but every recall begins the time anew. The store hears of recalls about once a second, so
    /// the binding expires between `ttl` and `ttl` and 4 seconds after the last one, never earlier.
    #[must_use]
    pub fn sliding_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl_of(ttl, true));
        self
    }

    /// A name that is bound keeps its time to live and the moment at which it expires, or that it never does: for counters.
    /// For a name that is not bound, [`ttl`](Self::ttl) holds, or what its namespace has declared. Not for what is
    /// [ephemeral](Self::ephemeral).
    ///
    /// # Examples
    /// ```
    /// use plasmon::LearnOptions;
    /// use std::time::Duration;
    ///
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn_with("hits", &1, &LearnOptions::new().ttl(Duration::from_secs(60)))?;
    /// let expires = brain.metadata("hits")?.and_then(|it| it.expires);
    /// brain.learn_with("hits", &2, &LearnOptions::new().keep_ttl())?;
    /// assert_eq!(brain.metadata("hits")?.and_then(|it| it.ttl), Some(Duration::from_secs(60)));
    /// # assert!(expires.is_some());
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn keep_ttl(mut self) -> Self {
        self.keeps_ttl = true;
        self
    }

    /// The binding ends with this process's session: when the process ends, however it ends, or
    /// [leaves](Brain::disconnect) the store. Whoever [waits for a change](Brain::wait_change) is told. So it says that
    /// somebody is there or at work, and is never left behind; in a cache it does not give way. A forked child's session is
    /// another one.
    ///
    /// # Examples
    /// ```
    /// use plasmon::LearnOptions;
    ///
    /// let brain = plasmon::testing::brain()?;
    /// let leader = LearnOptions::new().ephemeral().if_absent();
    /// let mine = brain.learn_with("leader", "this process", &leader)?;
    /// assert!(brain.learn_with("leader", &0, &leader).is_err()); // there is one already
    /// brain.forget_if_version("leader", mine)?;
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn ephemeral(mut self) -> Self {
        self.is_ephemeral = true;
        self
    }

    /// Makes sure in the same commit that the namespace is a cache, whatever became of what was
    /// [declared](Brain::declare): the store may have been started anew, or the namespace been removed. What else was
    /// declared for it stays.
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let results = store.connect()?.in_namespace("results")?;
    /// results.learn_with("a", &1, &plasmon::LearnOptions::new().in_cache())?;
    /// assert!(results.namespaces()?.iter().any(|it| it.is_cache && &*it.namespace == "results"));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn in_cache(mut self) -> Self {
        self.in_cache = true;
        self
    }

    /// Only if nothing is bound to the name.
    #[must_use]
    pub fn if_absent(mut self) -> Self {
        self.expect = Some(Expect::Absent);
        self
    }

    /// Only if the name has exactly this version, as returned by an earlier learn or recall: compare and set.
    ///
    /// # Examples
    /// ```
    /// use plasmon::{LearnOptions, Object};
    ///
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("counter", &1)?;
    /// let (seen, value) = (brain.recall::<Object>("counter")?.version(), brain.recall::<i64>("counter")?);
    /// brain.learn_with("counter", &(value + 1), &LearnOptions::new().if_version(seen))?;
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn if_version(mut self, version: u64) -> Self {
        self.expect = Some(Expect::Version { version });
        self
    }

    /// Only if another name of the namespace has exactly this version: as long as a claim is held that this process made,
    /// mostly an [ephemeral](Self::ephemeral) one.
    ///
    /// # Examples
    /// ```
    /// use plasmon::LearnOptions;
    ///
    /// let brain = plasmon::testing::brain()?;
    /// let claim = brain.learn_with("claim", &1, &LearnOptions::new().ephemeral().if_absent())?;
    /// brain.learn_with("result", &42, &LearnOptions::new().if_held("claim", claim))?;
    /// brain.forget("claim")?; // somebody takes it away
    /// assert!(brain.learn_with("result", &43, &LearnOptions::new().if_held("claim", claim)).is_err());
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn if_held(mut self, name: impl Into<String>, version: u64) -> Self {
        self.held = Some((name.into(), version));
        self
    }
}

/// What is declared for a namespace: see [`Brain::declare`]. The default is what holds for one of which nothing was said.
#[derive(Clone, Debug, Default)]
pub struct NamespaceOptions {
    is_cache: bool,
    ttl: Option<Ttl>,
}

impl NamespaceOptions {
    /// Bindings stay until they are unbound.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The namespace is a cache: when room is short, bindings of cache namespaces go that were recalled least recently
    /// and whose values nobody holds, as many as are needed. No other namespace ever loses one.
    #[must_use]
    pub fn cache(mut self) -> Self {
        self.is_cache = true;
        self
    }

    /// How long bindings live of which their writer says nothing: as [`LearnOptions::ttl`].
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl_of(ttl, false));
        self
    }

    /// As [`ttl`](Self::ttl), but every recall begins the time anew: as [`LearnOptions::sliding_ttl`].
    #[must_use]
    pub fn sliding_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl_of(ttl, true));
        self
    }
}

fn ttl_of(ttl: Duration, is_sliding: bool) -> Ttl {
    Ttl { ttl_ns: u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX), is_sliding }
}

fn checked(ttl: Option<&Ttl>) -> Result<Option<Ttl>> {
    match ttl {
        Some(Ttl { ttl_ns: 0, .. }) => Err(Error::NoTimeToLive),
        ttl => Ok(ttl.cloned()),
    }
}

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

/// Room in a frame that is left for names, descriptions and headers.
const INLINE_BATCH_BYTES_MAX: usize = FRAME_BYTES_MAX as usize / 2;

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
    /// The second part is `None` only if nothing was changed: then `lease` is as it was, but lost.
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

    /// Copies the object to where it travels or stays: small ones into the message, others into a lease. A value that
    /// stands in the header is there already.
    fn place(&mut self, prepared: &Prepared<'_>) -> Result<Payload> {
        if prepared.header().flags.has(Flags::INLINE) {
            return Ok(Payload::InHeader);
        }
        let len_bytes = prepared.len_bytes_max();
        let len = index_of(len_bytes);
        if len_bytes <= INLINE_BYTES_MAX.into() && self.inline_bytes + len <= INLINE_BATCH_BYTES_MAX {
            self.inline_bytes += len;
            self.placed_bytes += len_bytes;
            return Ok(Payload::Inline { bytes: prepared.to_vec()?.into() });
        }
        let mut lease = match self.open.take() {
            Some(lease) if lease.len_bytes() >= len_bytes => lease,
            filled => {
                if let Some(filled) = filled {
                    self.close(filled, false);
                }
                self.lease(len_bytes).map_err(|error| self.session.explain(error))?
            }
        };
        let written_bytes = prepared.write_into(&mut lease.bytes_mut()[..len])? as u64;
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
                Err(CallError::Failed(Failure::StoreFull(room))) if wanted_bytes > object_bytes => {
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
    fn close(&mut self, lease: Lease, keep: bool) {
        match lease.close(keep) {
            Closed::Ends(lease) => self.end_leases.push(lease),
            Closed::Rest(rest) => self.rest = Some(rest),
        }
    }

    fn bind(&mut self, name: Name, options: &LearnOptions, header: Header, payload: Payload) -> Result<()> {
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
        let namespace = self.brain.namespace_checked().clone();
        let ttl = checked(options.ttl.as_ref())?;
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
        let result = match result {
            // The request never left, so it can be made again, in a new session; leases belong to the old one.
            Err(CallError::Lost { sent: false, .. }) if !has_leases && !is_long => {
                self.session.lose();
                self.session = self.brain.session()?;
                self.session.call(&commit)
            }
            result => result,
        };
        match result {
            Ok(committed) => {
                fault_point(FaultPoint::Committed);
                if let Some(rest) = self.rest.take() {
                    Lease::lay_down(rest, &self.session);
                }
                Ok(committed)
            }
            Err(CallError::Failed(failure)) => {
                if let Some(rest) = self.rest.take() {
                    Lease::give_back(rest, &self.session);
                }
                Err(self.session.explain(CallError::Failed(failure)))
            }
            Err(CallError::Lost { source, sent: true }) => {
                self.session.lose();
                Err(Error::OutcomeUnknown { socket: self.session.socket.clone(), source })
            }
            Err(error) => {
                if !matches!(error, CallError::TimedOut) {
                    // Given back now, as far as they have not ended: the request never left, or its answer made no sense.
                    self.end_leases = commit.end_leases;
                }
                Err(self.session.explain(error))
            }
        }
    }
}

/// Batches that are too long for a frame.
impl Batch {
    /// At most so many bytes has the commit's body.
    fn body_bytes_max(&self) -> usize {
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
            Change::Unbind { namespace, name } => ENTRY_BYTES_MAX + namespace.len() + name.len(),
            Change::RemoveNamespace { namespace }
            | Change::RemoveEmptyNamespace { namespace }
            | Change::ClearNamespace { namespace }
            | Change::RegisterNamespace { namespace }
            | Change::EnsureCache { namespace }
            | Change::DeclareNamespace { namespace, .. } => ENTRY_BYTES_MAX + namespace.len(),
        });
        conditions.chain(changes).sum::<usize>() + self.end_leases.len() * 8 + ENTRY_BYTES_MAX
    }

    /// Writes what would have travelled in the message into a lease, as everything else of a long batch.
    fn move_inline_payloads(&mut self) -> Result<()> {
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
            if let Change::Bind(bind) | Change::BindEphemeral(bind) | Change::Replace(bind) = change
                && let Bind { payload, .. } = bind
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
    fn send_long(&self, commit: &mut Commit) -> Result<Committed, CallError> {
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

/// What an entry of a commit has at most beyond its texts and its payload, in bytes.
const ENTRY_BYTES_MAX: usize = 128;

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

/// The text of a JSON object; empty for an empty one, which clears.
fn metadata_text(metadata: &serde_json::Value) -> Result<String> {
    let found = match metadata {
        serde_json::Value::Object(fields) if fields.is_empty() => return Ok(String::new()),
        serde_json::Value::Object(_) => return Ok(with_room(|| metadata.to_string())),
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "a truth value",
        serde_json::Value::Number(_) => "a number",
        serde_json::Value::String(_) => "a string",
        serde_json::Value::Array(_) => "an array",
    };
    Err(Error::MetadataNotAnObject { found })
}

impl Brain {
    /// Binds `name` to a new object made of `value`, and returns the binding's version.
    ///
    /// A value of up to 64 KiB encoded travels inside one request; a larger one is copied once, into shared memory.
    /// Other readers see the old binding or the new one, never a mixture. Blocks for one round trip, or two; longer
    /// only if memory has to be made first.
    ///
    /// # Errors
    /// [`Error::BadName`]; [`Error::Codec`] if the value cannot be encoded; [`Error::StoreFull`] if there is no room;
    /// then nothing has changed. [`Error::OutcomeUnknown`] if the store went away before it answered.
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// let first = brain.learn("greeting", "hello")?;
    /// let second = brain.learn("greeting", "hello again")?;
    /// assert!(second > first);
    /// assert_eq!(brain.recall::<String>("greeting")?, "hello again");
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn learn<V: Learn + ?Sized>(&self, name: &str, value: &V) -> Result<u64> {
        self.learn_with(name, value, &LearnOptions::default())
    }

    /// As [`learn`](Self::learn), with a description, metadata or a condition.
    ///
    /// # Errors
    /// As [`learn`](Self::learn); [`Error::ConditionFailed`] if the condition did not hold.
    pub fn learn_with<V: Learn + ?Sized>(
        &self,
        name: &str,
        value: &V,
        options: &LearnOptions,
    ) -> Result<u64> {
        self.batch()?.learn_with(name, value, options)?.commit()
    }

    /// Binds `name` to the table in `file`, an Arrow IPC file from anywhere. Its contents are validated once, now.
    ///
    /// # Errors
    /// [`Error::Codec`] if it is not a valid IPC file; else as [`learn`](Self::learn).
    ///
    /// # Examples
    /// ```
    /// use arrow_array::record_batch;
    ///
    /// let batch = record_batch!(("a", Int32, [1, 2, 3])).unwrap();
    /// let mut writer = arrow_ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    /// writer.write(&batch).unwrap();
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn_ipc("table", &writer.into_inner().unwrap(), &plasmon::LearnOptions::new())?;
    /// assert_eq!(brain.recall::<plasmon::Table>("table")?[0], batch);
    /// assert!(matches!(brain.learn_ipc("no", b"no file", &Default::default()), Err(plasmon::Error::Codec(_))));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn learn_ipc(&self, name: &str, file: &[u8], options: &LearnOptions) -> Result<u64> {
        let table = Table::from_ipc(file.to_vec())?;
        self.learn_with(name, &table, options)
    }

    /// Declares what holds for this namespace, in the place of what was declared before, and registers it if it is new. It
    /// holds until the namespace is removed; a time to live, for what is learned from now on.
    ///
    /// # Errors
    /// [`Error::NoTimeToLive`]; [`Error::IdTaken`], [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// use plasmon::NamespaceOptions;
    /// use std::time::Duration;
    ///
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let cache = store.connect()?.in_namespace("results")?;
    /// cache.declare(&NamespaceOptions::new().cache().ttl(Duration::from_secs(3_600)))?;
    /// cache.learn("a", &1)?;
    /// assert_eq!(cache.metadata("a")?.and_then(|it| it.ttl), Some(Duration::from_secs(3_600)));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn declare(&self, options: &NamespaceOptions) -> Result<()> {
        let (namespace, is_cache) = (self.namespace_checked().clone(), options.is_cache);
        let ttl = checked(options.ttl.as_ref())?;
        self.batch()?.change(Change::DeclareNamespace { namespace, is_cache, ttl }).commit().map(drop)
    }

    /// Begins a batch: many changes at one moment.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub fn batch(&self) -> Result<Batch> {
        Batch::new(self)
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::{object::Blob, testing::Store};

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

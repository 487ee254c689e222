//! `Brain`: a store as a dictionary.

use crate::{
    codec,
    connection::{CallError, Connection},
    error::{Error, Result},
    object::{FromObject, Object},
    session::{Session, Slot},
    store::{Store, Trust},
};
use plasmon_protocol::{
    id::{NameId, NamespacePrefix, ObjectId},
    index::{Entry, Lookup},
    index_of,
    limits::{RECALL_NAMES_MAX, SNAPSHOT_TRIES_MAX},
    message::{
        BareNames, BareNamesPage, Change, Describe, DescribeNamespace, DescribedName, Expect, Failure, Find,
        FindMany, FoundOne, Kick, ListBareNames, ListDescribed, ListNames, ListNamespaces, ListPins,
        ListedName, NameSlot, PinInfo, ReadStats, Request, Wait, WaitChange,
    },
    name::{NAME_BYTES_MAX, Name, Namespace},
    object::{Flags, Kind},
};
use plasmon_shm::{FaultPoint, fault_point};
use std::{
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

pub use plasmon_protocol::message::{Figure, NamespaceInfo, PinInfo as Pin, RefusedLearns, Stats};

/// How long a call waits for its answer, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest such time: who says [`Duration::MAX`] means no end, and clocks have one.
const PATIENCE_MAX: Duration = Duration::from_secs(u32::MAX as u64);

/// How much longer than a wait its answer may take.
const GRACE: Duration = Duration::from_secs(5);

/// A store as a dictionary: learns, recalls and forgets named objects in one namespace.
///
/// Cheap to clone and safe to share between threads; all `Brain`s of a process on one store share a session. A call
/// that waits in one thread holds up no other. Nothing has to be closed.
///
/// ```
/// use plasmon::Brain;
///
/// let store = plasmon::testing::Store::start(8 << 20)?;
/// let brain = Brain::builder().path(store.socket()).connect()?;
/// brain.learn("pi", &3.14)?;
/// assert_eq!(brain.recall::<f64>("pi")?, 3.14);
/// assert!(brain.forget("pi")?);
/// assert!(brain.recall::<f64>("pi").unwrap_err().is_not_found());
/// # Ok::<(), plasmon::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Brain {
    store: Arc<Store>,
    trust: Arc<Trust>,
    namespace: Namespace,
    prefix: NamespacePrefix,
}

/// How to connect. Made by [`Brain::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing is connected before `connect`"]
pub struct Builder {
    path: Option<PathBuf>,
    namespace: String,
    timeout: Duration,
    trust: Trust,
}

impl Builder {
    /// The store's socket. Without it: `$PLASMON_SOCKET`, or else `plasmon/store.sock` in `$XDG_RUNTIME_DIR` or in
    /// `/run/user/UID`, or `/tmp/plasmon-UID/store.sock`, the first where a store answers.
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = plasmon::Brain::builder().path(store.socket()).connect()?;
    /// assert_eq!(brain.path(), store.socket());
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn path(mut self, socket: impl AsRef<Path>) -> Self {
        self.path = Some(socket.as_ref().to_owned());
        self
    }

    /// The namespace, `default` if none is named. It is registered if it is new.
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = plasmon::Brain::builder().path(store.socket()).namespace("user-42").connect()?;
    /// assert_eq!(brain.namespace(), "user-42");
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// How long a call waits for its answer, 30 seconds if nothing is said. Memory that has to be made first, and long
    /// batches, may take longer: there it is how long the store may stand still, which is looked at whenever that long has
    /// passed. The first `Brain` of a process on a store decides for all.
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// use std::time::Duration;
    ///
    /// let patient = plasmon::Brain::builder().timeout(Duration::from_secs(300));
    /// patient.path(store.socket()).connect()?;
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(PATIENCE_MAX);
        self
    }

    /// Talks to a store that this uid runs as well, not only to this user's own or root's.
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = plasmon::Brain::builder().path(store.socket()).trust_store_of(1_000).connect()?;
    /// # drop(brain);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn trust_store_of(mut self, uid: u32) -> Self {
        self.trust.uids.push(uid);
        self
    }

    /// Connects, unless this process is connected already.
    ///
    /// # Errors
    /// [`Error::BadName`] if the namespace breaks its rule; [`Error::StoreUnavailable`] if no store answers, with all
    /// places that were tried; [`Error::UntrustedStore`], [`Error::NotAdmitted`], [`Error::VersionMismatch`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// plasmon::Brain::builder().path(store.socket()).connect()?;
    /// let nobody = plasmon::Brain::builder().path("/nowhere/store.sock").connect();
    /// assert!(matches!(nobody, Err(plasmon::Error::StoreUnavailable { .. })));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn connect(self) -> Result<Brain> {
        let namespace = Namespace::new(&self.namespace)?;
        let store = Store::find(self.path.as_deref(), &self.trust, self.timeout)?;
        let prefix = NamespacePrefix::new(&namespace);
        let brain = Brain { store, trust: Arc::new(self.trust), namespace, prefix };
        if *brain.namespace != *Namespace::DEFAULT {
            brain.register()?;
        }
        Ok(brain)
    }
}

/// Everything there is to know about a name.
///
/// # Examples
/// ```
/// let store = plasmon::testing::Store::start(8 << 20)?;
/// let brain = store.connect()?;
/// let options = plasmon::LearnOptions::new().description("per hour");
/// let version = brain.learn_with("rate", &0.5, &options)?;
/// let metadata = brain.metadata("rate")?.expect("it was just learned");
/// assert_eq!((metadata.version, metadata.kind), (version, plasmon::Kind::FLOAT64));
/// assert_eq!((metadata.writer_pid, metadata.description.as_str()), (std::process::id(), "per hour"));
/// # Ok::<(), plasmon::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Metadata {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// Version of the binding.
    pub version: u64,
    /// The object's id.
    pub object_id: ObjectId,
    /// Length of the object, in bytes.
    pub len_bytes: u64,
    /// Kind of the value.
    pub kind: Kind,
    /// When the binding was made, by the clock of the store's machine.
    pub created: SystemTime,
    /// Process that made it, as the store sees it.
    pub writer_pid: u32,
    /// Uid of that process, as the store sees it.
    pub writer_uid: u32,
    /// When the name was last recalled, within about a second, by the clock of the store's machine. `None` if it was
    /// not, as far as the store has heard. Learning the name anew keeps it, forgetting it ends it.
    pub recalled: Option<SystemTime>,
    /// The time to live that the binding has, if it expires.
    pub ttl: Option<Duration>,
    /// Whether every recall begins it anew.
    pub is_sliding: bool,
    /// When the binding expires, if it is not learned or, where that counts, recalled before: by this process's clock,
    /// which may be set meanwhile; the store goes by one that is not.
    pub expires: Option<SystemTime>,
    /// Its description, or nothing. Empty in listings.
    pub description: String,
    /// The user's own metadata, a JSON object, or null; a text if another client wrote what is no JSON. Null in listings.
    pub metadata: serde_json::Value,
}

/// Some names, in order: one page of [`Brain::name_pages`].
#[derive(Clone, Debug)]
pub struct NamePage {
    names: BareNames,
    more: bool,
}

impl NamePage {
    fn new(page: &BareNamesPage) -> Result<NamePage> {
        match BareNames::of_page(page) {
            Some(names) => Ok(NamePage { names, more: page.more }),
            None => Err(Error::internal("a page of names from the store cannot be read")),
        }
    }

    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter()
    }

    /// Whether more names follow this page.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// All names as one text, a zero between each two, for languages whose texts are quicker made from one than one by
    /// one. `None` if there are none, or if one has a zero of its own.
    #[must_use]
    pub fn joined(&self) -> Option<&str> {
        self.names.joined()
    }
}

impl Brain {
    /// Connects to the store of this user: see [`Builder::path`] for where it looks.
    ///
    /// # Errors
    /// As [`Builder::connect`].
    pub fn connect() -> Result<Brain> {
        Brain::builder().connect()
    }

    /// Begins to say how to connect.
    pub fn builder() -> Builder {
        let namespace = Namespace::DEFAULT.to_owned();
        Builder { path: None, namespace, timeout: PATIENCE, trust: Trust::default() }
    }

    /// A second view on the same session, in another namespace, which is registered when something is learned in it.
    ///
    /// # Errors
    /// [`Error::BadName`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// let user = brain.in_namespace("user-42")?;
    /// user.learn("theme", "dark")?;
    /// assert!(!brain.exists("theme")?);
    /// user.remove_namespace()?;
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn in_namespace(&self, namespace: &str) -> Result<Brain> {
        let namespace = Namespace::new(namespace)?;
        let prefix = NamespacePrefix::new(&namespace);
        Ok(Brain { store: Arc::clone(&self.store), trust: Arc::clone(&self.trust), namespace, prefix })
    }

    /// The namespace of this view.
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// assert_eq!(store.connect()?.namespace(), "default");
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The store's socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.store.socket()
    }

    /// This process's uid as the store sees it.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// brain.learn("mine", "hello")?;
    /// assert_eq!(brain.recall::<plasmon::Object>("mine")?.writer_uid(), brain.uid()?);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn uid(&self) -> Result<u32> {
        Ok(self.session()?.welcome.uid)
    }

    /// Capacity of the store's arena, in bytes: what its operator asked for. It is known from the moment of connecting.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// assert_eq!(store.connect()?.capacity_bytes()?, 8 << 20);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn capacity_bytes(&self) -> Result<u64> {
        Ok(self.session()?.welcome.capacity_bytes)
    }

    /// Recalls what is bound to `name`.
    ///
    /// Asks the store nothing: one look at the shared index, whatever the size of the object and the number of names.
    /// No column is copied. What is returned stays valid and unchanged until it is dropped, even if the name is
    /// rebound or forgotten or the store ends.
    ///
    /// # Errors
    /// [`Error::NameNotFound`]; [`Error::WrongKind`] if the object is not a `T`; [`Error::Codec`] if it is malformed;
    /// [`Error::StoreUnavailable`]; [`Error::TooMany`] if this process holds as many objects as it may.
    ///
    /// # Examples
    /// ```
    /// use arrow_array::{Int64Array, RecordBatch};
    /// use plasmon::Table;
    /// use std::sync::Arc;
    ///
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let (writer, reader) = (store.connect()?, store.connect()?);
    /// let numbers = Int64Array::from_iter_values(0..1_000);
    /// writer.learn("numbers", &RecordBatch::try_from_iter([("n", Arc::new(numbers) as _)]).unwrap())?;
    ///
    /// let table: Table = reader.recall("numbers")?;
    /// writer.forget("numbers")?;
    /// assert_eq!(table.num_rows(), 1_000); // still there
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[inline]
    pub fn recall<T: FromObject>(&self, name: &str) -> Result<T> {
        match self.look_up(name, true)? {
            Some(object) => self.convert(name, object),
            None => Err(self.not_found(name)),
        }
    }

    /// As [`recall`](Self::recall) of an [`Object`], for those who only describe it: it does not count as a recall.
    ///
    /// # Errors
    /// As [`recall`](Self::recall).
    ///
    /// # Examples
    /// ```
    /// # let store = plasmon::testing::Store::start(16 << 20)?;
    /// # let brain = store.connect()?;
    /// brain.learn("text", "abc")?;
    /// assert_eq!(brain.inspect("text")?.kind(), plasmon::Kind::TEXT);
    /// assert_eq!(brain.metadata("text")?.expect("bound").recalled, None);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn inspect(&self, name: &str) -> Result<Object> {
        self.look_up(name, false)?.ok_or_else(|| self.not_found(name))
    }

    /// As [`recall`](Self::recall), but only if that needs no word from the store: `None` where it would have to connect
    /// first or to ask, for which a caller may want to let go of a lock.
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// brain.learn("answer", &42)?;
    /// assert_eq!(brain.recall_at_once::<i64>("answer").transpose()?, Some(42));
    /// brain.disconnect();
    /// assert!(brain.recall_at_once::<i64>("answer").is_none());
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[inline]
    pub fn recall_at_once<T: FromObject>(&self, name: &str) -> Option<Result<T>> {
        let id = match Name::check(name) {
            Ok(name) => self.prefix.name_id(name),
            Err(error) => return Some(Err(error.into())),
        };
        let found = self.store.with_live_session(&self.trust, |session| {
            match session.index.lookup(&id, || session.store_clock_ns(), |entry| pin(session, entry)) {
                Ok(Lookup::Unsteady) => None,
                Ok(found) => Some(self.held(session, found, true)),
                Err(error) => Some(Err(error)),
            }
        })??;
        Some(
            found
                .and_then(|found| found.ok_or_else(|| self.not_found(name)))
                .and_then(|it| self.convert(name, it)),
        )
    }

    /// Recalls what is bound to `name`, waiting for it until `timeout` has passed. Waiting holds up no other thread.
    ///
    /// # Errors
    /// [`Error::WaitTimeout`]; else as [`recall`](Self::recall).
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let (writer, reader) = (store.connect()?, store.connect()?);
    /// let waiting = std::thread::spawn(move || reader.recall_within::<i64>("result", Duration::from_secs(30)));
    /// writer.learn("result", &42)?;
    /// assert_eq!(waiting.join().unwrap()?, 42);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn recall_within<T: FromObject>(&self, name: &str, timeout: Duration) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(object) = self.look_up(name, true)? {
                return self.convert(name, object);
            }
            let Some(left) = timeout.checked_sub(start.elapsed()) else {
                return Err(self.wait_timeout(name, timeout));
            };
            // What is bound now may be forgotten again before it is looked up: then wait once more.
            self.wait_for(name, 0, left, timeout)?;
        }
    }

    /// Waits until `name` is bound with a version above `after_version` (0 for any), and returns that version.
    ///
    /// # Errors
    /// [`Error::WaitTimeout`] if that does not happen within `timeout`.
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// use std::time::Duration;
    ///
    /// let brain = store.connect()?;
    /// let first = brain.learn("result", &1)?;
    /// let (writer, waiter) = (brain.clone(), brain);
    /// let waiting = std::thread::spawn(move || waiter.wait("result", first, Duration::from_secs(30)));
    /// let second = writer.learn("result", &2)?;
    /// assert_eq!(waiting.join().unwrap()?, second);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn wait(&self, name: &str, after_version: u64, timeout: Duration) -> Result<u64> {
        self.wait_for(name, after_version, timeout, timeout)
    }

    /// Waits until `name` has another version than `version` (0 if it is known not to be bound), and returns the version
    /// that it has then; `None` if it is not bound any more, be it that somebody forgot it, it expired, made room, or ended
    /// with the [session](crate::LearnOptions::ephemeral) that bound it.
    ///
    /// # Errors
    /// [`Error::WaitTimeout`] if that does not happen within `timeout`.
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// use std::time::Duration;
    ///
    /// let brain = store.connect()?;
    /// let claim = brain.learn("claim", &1)?;
    /// let waiter = brain.clone();
    /// let waiting = std::thread::spawn(move || waiter.wait_change("claim", claim, Duration::from_secs(30)));
    /// brain.forget("claim")?;
    /// assert_eq!(waiting.join().unwrap()?, None);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn wait_change(&self, name: &str, version: u64, timeout: Duration) -> Result<Option<u64>> {
        let checked = Name::new(name)?;
        let wait = |wait_ms| WaitChange {
            namespace: self.namespace.clone(),
            name: checked.clone(),
            version,
            wait_ms,
        };
        let changed = self.call_within(name, timeout, timeout, wait)?;
        Ok(Some(changed.version).filter(|&version| version != 0))
    }

    /// Begins to [wait for a change](Self::wait_change) and returns at once: for programs that wait for many things, or
    /// want to give up. There is no timeout.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`], [`Error::BadName`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// let claim = brain.learn("claim", &1)?;
    /// let waiting = brain.begin_wait_change("claim", claim)?;
    /// brain.forget("claim")?;
    /// assert_eq!(waiting.finish()?, None);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn begin_wait_change(&self, name: &str, version: u64) -> Result<PendingWait> {
        let (namespace, name) = (self.namespace.clone(), Name::new(name)?);
        let wait = WaitChange { namespace, name, version, wait_ms: u64::MAX };
        let (session, connection) = self.begin_call(&wait)?;
        Ok(PendingWait { session, connection })
    }

    /// Begins to [wait](Self::wait) and returns at once: for programs that wait for other things as well, or want to give
    /// up.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`], [`Error::BadName`].
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// let given_up = brain.begin_wait("never", 0, Duration::from_secs(3_600))?;
    /// drop(given_up);
    /// let waiting = brain.begin_wait("result", 0, Duration::from_secs(30))?;
    /// let version = brain.learn("result", &1)?;
    /// assert_eq!(waiting.finish()?, version);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn begin_wait(&self, name: &str, after_version: u64, timeout: Duration) -> Result<PendingBinding> {
        let wait = Wait {
            namespace: self.namespace.clone(),
            name: Name::new(name)?,
            above_version: after_version,
            wait_ms: whole_ms(timeout),
        };
        let (session, connection) = self.begin_call(&wait)?;
        let timed_out = self.wait_timeout(name, timeout);
        Ok(PendingBinding { session, connection, timed_out })
    }

    /// Sends a request whose answer may come much later.
    fn begin_call<R: Request>(&self, request: &R) -> Result<(Arc<Session>, Connection)> {
        let mut session = self.session()?;
        let connection = match session.begin_call(request) {
            Err(CallError::Lost { .. }) => {
                session.lose();
                session = self.session()?;
                session.begin_call(request)
            }
            begun => begun,
        };
        match connection {
            Ok(connection) => Ok((session, connection)),
            Err(error) => Err(session.explain(error)),
        }
    }

    /// Recalls many names from one moment: no commit is seen half done, and no name is older than another.
    ///
    /// # Errors
    /// As [`recall`](Self::recall), but that a name which is not bound is `None`.
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// brain.learn("a", &1)?;
    /// let objects = brain.recall_many(&["a", "b"])?;
    /// assert!(objects[0].is_some() && objects[1].is_none());
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn recall_many(&self, names: &[&str]) -> Result<Vec<Option<Object>>> {
        let session = self.session()?;
        let ids = names.iter().map(|name| Ok(self.prefix.name_id(Name::check(name)?)));
        let ids = ids.collect::<Result<Vec<NameId>>>()?;
        for _ in 0..SNAPSHOT_TRIES_MAX {
            let found =
                session.index.snapshot(&ids, || session.store_clock_ns(), |entry| pin(&session, entry))?;
            if let Some(found) = found {
                return found.into_iter().map(|one| self.held(&session, one, true)).collect();
            }
        }
        self.find_many(names)
    }

    /// Whether something is bound to `name`. One look at the shared index.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// brain.learn("here", &true)?;
    /// assert!(brain.exists("here")? && !brain.exists("there")?);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn exists(&self, name: &str) -> Result<bool> {
        let id = self.prefix.name_id(Name::check(name)?);
        // Nothing of the object is read, so nothing is pinned.
        let found = self.store.with_session(&self.trust, |session| {
            session.index.lookup(&id, || session.store_clock_ns(), |_| Ok(()))
        })?;
        match found {
            Lookup::Held { .. } => Ok(true),
            Lookup::Absent => Ok(false),
            Lookup::Unsteady => Ok(self.metadata(name)?.is_some()),
        }
    }

    /// Unbinds `name`, and returns whether it was bound. Its memory is free once nobody holds the object.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::StoreUnavailable`], [`Error::OutcomeUnknown`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// brain.learn("draft", "text")?;
    /// assert!(brain.forget("draft")?);
    /// assert!(!brain.forget("draft")?); // not bound any more
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn forget(&self, name: &str) -> Result<bool> {
        Ok(self.batch()?.forget(name)?.send()?.unbound > 0)
    }

    /// Unbinds `name` only if it has exactly this version.
    ///
    /// # Errors
    /// [`Error::ConditionFailed`]; else as [`forget`](Self::forget).
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// let seen = brain.learn("job", "waiting")?;
    /// brain.learn("job", "taken by somebody else")?;
    /// assert!(matches!(brain.forget_if_version("job", seen), Err(plasmon::Error::ConditionFailed { .. })));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn forget_if_version(&self, name: &str, version: u64) -> Result<()> {
        self.batch()?.expect(name, Expect::Version { version })?.forget(name)?.commit().map(drop)
    }

    /// Number of names bound in this namespace; 0 if there is no such namespace.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// brain.learn("a", &1)?;
    /// assert_eq!((brain.len()?, brain.in_namespace("other")?.len()?), (1, 0));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn len(&self) -> Result<u64> {
        Ok(self.namespace_info()?.map_or(0, |info| info.names))
    }

    /// What there is to know of this namespace; `None` if there is no such namespace. One round trip.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// assert_eq!(brain.namespace_info()?.map(|info| info.names), Some(0));
    /// assert_eq!(brain.in_namespace("other")?.namespace_info()?, None);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn namespace_info(&self) -> Result<Option<NamespaceInfo>> {
        let describe = DescribeNamespace { namespace: self.namespace.clone() };
        Ok(self.store.ask(&self.trust, &describe)?.info)
    }

    /// Whether no name is bound in this namespace.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// assert!(store.connect()?.is_empty()?);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// The names bound in this namespace that begin with `prefix` (an empty one for all), in order.
    ///
    /// They are fetched a page at a time, so names that come or go meanwhile may or may not be among them.
    ///
    /// # Errors
    /// [`Error::NamespaceNotFound`], [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// for name in ["b", "a2", "a1"] {
    ///     brain.learn(name, &true)?;
    /// }
    /// assert_eq!(brain.names("a")?, ["a1", "a2"]);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for page in self.name_pages(prefix) {
            names.extend(page?.iter().map(str::to_owned));
        }
        Ok(names)
    }

    /// As [`names`](Self::names), a page of thousands at a time, which is one round trip each.
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// brain.batch()?.learn("b", &1)?.learn("a", &2)?.commit()?;
    /// for page in brain.name_pages("") {
    ///     assert_eq!(page?.iter().collect::<Vec<_>>(), ["a", "b"]);
    /// }
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn name_pages(&self, prefix: &str) -> impl Iterator<Item = Result<NamePage>> {
        let mut next = (prefix.len() <= NAME_BYTES_MAX).then(|| ListBareNames {
            namespace: self.namespace.clone(),
            prefix: prefix.to_owned(),
            after: None,
        });
        std::iter::from_fn(move || {
            let list = next.take()?;
            let page = self.store.ask(&self.trust, &list).and_then(|page| NamePage::new(&page));
            next = match &page {
                Ok(page) if page.more => {
                    let after = page.iter().last().and_then(|name| Name::new(name).ok());
                    after.map(|after| ListBareNames { after: Some(after), ..list })
                }
                _ => None,
            };
            Some(page)
        })
    }

    /// As [`names`](Self::names), with what the store knows about each.
    ///
    /// # Errors
    /// As [`names`](Self::names).
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// brain.learn("a", "five!")?;
    /// assert_eq!(brain.list("")?[0].kind, plasmon::Kind::TEXT);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn list(&self, prefix: &str) -> Result<Vec<Metadata>> {
        self.list_pages(Some(&self.namespace), prefix)
    }

    /// As [`list`](Self::list), at most the first `limit` of them, and no more than one page. One round trip.
    ///
    /// # Errors
    /// As [`names`](Self::names).
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// brain.batch()?.learn("b", &1)?.learn("a", &2)?.commit()?;
    /// assert_eq!(brain.list_first("", 1)?[0].name, "a");
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn list_first(&self, prefix: &str, limit: u32) -> Result<Vec<Metadata>> {
        if limit == 0 || prefix.len() > NAME_BYTES_MAX {
            return Ok(Vec::new());
        }
        let namespace = Some(self.namespace.clone());
        let list = ListNames { namespace, prefix: prefix.to_owned(), after: None, limit };
        Ok(self.store.ask(&self.trust, &list)?.names.into_iter().map(Metadata::from).collect())
    }

    /// As [`list`](Self::list), with descriptions and metadata: a thousand names in a round trip.
    ///
    /// # Errors
    /// As [`names`](Self::names).
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// brain.learn_with("rate", &0.5, &plasmon::LearnOptions::new().description("per hour"))?;
    /// assert_eq!(brain.list_described("")?[0].description, "per hour");
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn list_described(&self, prefix: &str) -> Result<Vec<Metadata>> {
        let mut described = Vec::new();
        if prefix.len() > NAME_BYTES_MAX {
            return Ok(described); // no name is that long
        }
        let mut list =
            ListDescribed { namespace: self.namespace.clone(), prefix: prefix.to_owned(), after: None };
        loop {
            let page = self.store.ask(&self.trust, &list)?;
            list.after = page.names.last().map(|last| last.binding.name.clone());
            for DescribedName { binding, description, metadata } in page.names {
                described.push(Metadata {
                    description,
                    metadata: read_metadata(&metadata),
                    ..binding.into()
                });
            }
            if !page.more || list.after.is_none() {
                return Ok(described);
            }
        }
    }

    /// As [`list`](Self::list), over all namespaces.
    ///
    /// # Errors
    /// As [`names`](Self::names).
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// brain.learn("a", &1)?;
    /// brain.in_namespace("other")?.learn("b", &2)?;
    /// let all: Vec<String> = brain.list_all("")?.into_iter().map(|it| format!("{}/{}", it.namespace, it.name)).collect();
    /// assert_eq!(all, ["default/a", "other/b"]);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn list_all(&self, prefix: &str) -> Result<Vec<Metadata>> {
        self.list_pages(None, prefix)
    }

    /// The namespaces, in order, and what each holds.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// brain.in_namespace("other")?.learn("b", &2)?;
    /// let names: Vec<u64> = brain.namespaces()?.iter().map(|info| info.names).collect();
    /// assert_eq!(names, [0, 1]); // default, other
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn namespaces(&self) -> Result<Vec<NamespaceInfo>> {
        let mut namespaces: Vec<NamespaceInfo> = Vec::new();
        loop {
            let after = namespaces.last().map(|info| info.namespace.clone());
            let page = self.store.ask(&self.trust, &ListNamespaces { after })?;
            let is_last = !page.more || page.namespaces.is_empty();
            namespaces.extend(page.namespaces);
            if is_last {
                return Ok(namespaces);
            }
        }
    }

    /// Makes sure that this namespace exists.
    ///
    /// # Errors
    /// [`Error::IdTaken`], [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let other = store.connect()?.in_namespace("other")?;
    /// assert!(other.names("").unwrap_err().is_not_found()); // there is no such namespace yet
    /// other.register()?;
    /// assert!(other.names("")?.is_empty());
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn register(&self) -> Result<()> {
        let change = Change::RegisterNamespace { namespace: self.namespace.clone() };
        self.batch()?.change(change).commit().map(drop)
    }

    /// Unbinds all names of this namespace and removes it, at one moment. Returns how many names there were.
    ///
    /// # Errors
    /// [`Error::DefaultNamespace`] for `default`, which can only be cleared; [`Error::NamespaceNotFound`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let other = store.connect()?.in_namespace("other")?;
    /// other.learn("a", &1)?;
    /// assert_eq!(other.remove_namespace()?, 1);
    /// assert_eq!(other.namespaces()?.len(), 1); // default
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn remove_namespace(&self) -> Result<u64> {
        let change = Change::RemoveNamespace { namespace: self.namespace.clone() };
        Ok(self.batch()?.change(change).send()?.unbound)
    }

    /// Removes this namespace if no name is bound in it.
    ///
    /// # Errors
    /// [`Error::NamespaceInUse`] if one is; else as [`remove_namespace`](Self::remove_namespace).
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let other = store.connect()?.in_namespace("other")?;
    /// other.learn("a", &1)?;
    /// assert!(matches!(other.remove_namespace_if_empty(), Err(plasmon::Error::NamespaceInUse { .. })));
    /// other.forget("a")?;
    /// other.remove_namespace_if_empty()?;
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn remove_namespace_if_empty(&self) -> Result<()> {
        let change = Change::RemoveEmptyNamespace { namespace: self.namespace.clone() };
        self.batch()?.change(change).commit().map(drop)
    }

    /// Unbinds all names of this namespace, at one moment. Returns how many there were.
    ///
    /// # Errors
    /// [`Error::NamespaceNotFound`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// brain.learn("a", &1)?;
    /// assert_eq!((brain.clear()?, brain.len()?), (1, 0));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn clear(&self) -> Result<u64> {
        let change = Change::ClearNamespace { namespace: self.namespace.clone() };
        Ok(self.batch()?.change(change).send()?.unbound)
    }

    /// Everything there is to know about `name`; `None` if it is not bound. One round trip.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// brain.learn("a", "text")?;
    /// assert_eq!(brain.metadata("a")?.map(|it| it.kind), Some(plasmon::Kind::TEXT));
    /// assert_eq!(brain.metadata("b")?, None);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn metadata(&self, name: &str) -> Result<Option<Metadata>> {
        let describe = Describe { namespace: self.namespace.clone(), name: Name::new(name)? };
        let described = self.store.ask(&self.trust, &describe)?;
        let metadata = read_metadata(&described.metadata);
        Ok(described.binding.map(|binding| Metadata {
            description: described.description,
            metadata,
            ..Metadata::from(binding)
        }))
    }

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
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// brain.learn("held", &[7_u8; 1_000])?;
    /// let bytes: plasmon::Blob = brain.recall("held")?;
    /// let pins = brain.pins()?;
    /// assert_eq!((pins[0].name.as_str(), pins[0].pid), ("default/held", std::process::id()));
    /// # drop(bytes);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn pins(&self) -> Result<Vec<PinInfo>> {
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

    /// Leaves the store: this process's session ends as soon as no handle needs it. A later call connects again.
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// brain.learn("kept", &[7_u8; 1_000])?;
    /// let bytes: plasmon::Blob = brain.recall("kept")?;
    /// brain.disconnect();
    /// assert_eq!(bytes[999], 7); // what is held stays
    /// assert!(brain.exists("kept")?); // and this connects again
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn disconnect(&self) {
        self.store.leave();
    }

    pub(crate) fn session(&self) -> Result<Arc<Session>> {
        self.store.session(&self.trust)
    }

    /// The first page of namespaces.
    pub(crate) fn first_namespaces(&self) -> Result<Vec<NamespaceInfo>> {
        Ok(self.store.ask(&self.trust, &ListNamespaces { after: None })?.namespaces)
    }

    pub(crate) fn namespace_checked(&self) -> &Namespace {
        &self.namespace
    }

    #[inline]
    fn look_up(&self, name: &str, is_recall: bool) -> Result<Option<Object>> {
        let id = self.prefix.name_id(Name::check(name)?);
        let looked = self.store.with_session(&self.trust, |session| {
            match session.index.lookup(&id, || session.store_clock_ns(), |entry| pin(session, entry))? {
                Lookup::Unsteady => Ok(None),
                found => self.held(session, found, is_recall).map(Some),
            }
        })?;
        match looked {
            Some(found) => Ok(found),
            None => self.find(name),
        }
    }

    #[inline]
    fn held(&self, session: &Arc<Session>, found: Lookup<Slot>, is_recall: bool) -> Result<Option<Object>> {
        match found {
            Lookup::Held { entry, number, pin } => {
                if is_recall {
                    session.note_access(number);
                }
                fault_point(FaultPoint::Held);
                Object::new(session, entry, pin).map(Some)
            }
            Lookup::Absent | Lookup::Unsteady => Ok(None),
        }
    }

    /// The index did not hold still: the store looks the name up and stores the pin.
    #[cold]
    fn find(&self, name: &str) -> Result<Option<Object>> {
        let name = Name::new(name)?;
        let mut session = self.session()?;
        for last in [false, true] {
            let slot = session.take_slot()?;
            let find = Find { namespace: self.namespace.clone(), name: name.clone(), slot: slot.number() };
            match session.call(&find) {
                Ok(found) => {
                    return found.location.map(|location| located(&session, location, slot)).transpose();
                }
                Err(error) => {
                    if may_still_pin(&error) {
                        slot.abandon();
                    }
                    if last || !matches!(error, CallError::Lost { .. }) {
                        return Err(session.explain(error));
                    }
                    session.lose();
                    session = self.session()?;
                }
            }
        }
        unreachable!("the last try returns")
    }

    #[cold]
    fn find_many(&self, names: &[&str]) -> Result<Vec<Option<Object>>> {
        if names.len() > index_of(RECALL_NAMES_MAX.into()) {
            let what = format!("names recalled at one moment while they change ({})", names.len());
            return Err(Error::TooMany { what, limit: RECALL_NAMES_MAX.into() });
        }
        let mut session = self.session()?;
        for last in [false, true] {
            let slots = names.iter().map(|_| session.take_slot()).collect::<Result<Vec<Slot>>>()?;
            let asked = names.iter().zip(&slots).map(|(name, slot)| {
                Ok(NameSlot {
                    namespace: self.namespace.clone(),
                    name: Name::new(name)?,
                    slot: slot.number(),
                })
            });
            let asked = asked.collect::<Result<Vec<NameSlot>>>()?;
            let error = match session.call(&FindMany { names: asked }) {
                Ok(found) if found.locations.len() == names.len() => {
                    let located = found.locations.into_iter().zip(slots).map(|(found, slot)| match found {
                        FoundOne::At(location) => located(&session, location, slot).map(Some),
                        FoundOne::Absent => Ok(None),
                    });
                    return located.collect();
                }
                Ok(found) => {
                    let what =
                        format!("the store answered for {} of {} names", found.locations.len(), names.len());
                    CallError::Other(Error::internal(what))
                }
                Err(error) => error,
            };
            if may_still_pin(&error) {
                slots.into_iter().for_each(Slot::abandon);
            }
            if last || !matches!(error, CallError::Lost { .. }) {
                return Err(session.explain(error));
            }
            session.lose();
            session = self.session()?;
        }
        unreachable!("the last try returns")
    }

    fn wait_for(&self, name: &str, above_version: u64, left: Duration, asked: Duration) -> Result<u64> {
        let checked = Name::new(name)?;
        let wait = |wait_ms| Wait {
            namespace: self.namespace.clone(),
            name: checked.clone(),
            above_version,
            wait_ms,
        };
        Ok(self.call_within(name, left, asked, wait)?.version)
    }

    /// Makes a request that the store answers within the milliseconds that `wait` is given, or with `WaitTimeout`.
    fn call_within<R: Request>(
        &self,
        name: &str,
        left: Duration,
        asked: Duration,
        wait: impl Fn(u64) -> R,
    ) -> Result<R::Reply> {
        let start = Instant::now();
        let mut session = self.session()?;
        for last in [false, true] {
            let left = left.saturating_sub(start.elapsed());
            let wait = wait(whole_ms(left));
            let patience =
                left.checked_add(GRACE).filter(|patience| patience.as_secs() < u64::from(u32::MAX));
            match session.call_for(&wait, patience) {
                Ok(reply) => return Ok(reply),
                Err(CallError::Failed(Failure::WaitTimeout)) => return Err(self.wait_timeout(name, asked)),
                Err(CallError::Lost { .. }) if !last => {
                    session.lose();
                    session = self.session()?;
                }
                Err(error) => return Err(session.explain(error)),
            }
        }
        unreachable!("the last try returns")
    }

    fn list_pages(&self, namespace: Option<&Namespace>, prefix: &str) -> Result<Vec<Metadata>> {
        let mut bindings: Vec<Metadata> = Vec::new();
        if prefix.len() > NAME_BYTES_MAX {
            return Ok(bindings); // no name is that long
        }
        let mut after: Option<ListedName> = None;
        loop {
            let list =
                ListNames { namespace: namespace.cloned(), prefix: prefix.to_owned(), after, limit: 0 };
            let page = self.store.ask(&self.trust, &list)?;
            after = page
                .names
                .last()
                .map(|last| ListedName { namespace: last.namespace.clone(), name: last.name.clone() });
            bindings.extend(page.names.into_iter().map(Metadata::from));
            if !page.more || after.is_none() {
                return Ok(bindings);
            }
        }
    }

    #[inline]
    fn convert<T: FromObject>(&self, name: &str, object: Object) -> Result<T> {
        if !T::is_kind(object.kind()) {
            let (namespace, name) = (self.namespace.to_string(), name.to_owned());
            return Err(Error::WrongKind { namespace, name, asked: T::ASKED, found: object.kind() });
        }
        Ok(T::from_object(object)?)
    }

    #[cold]
    fn not_found(&self, name: &str) -> Error {
        Error::NameNotFound { namespace: self.namespace.to_string(), name: name.to_owned() }
    }

    fn wait_timeout(&self, name: &str, waited: Duration) -> Error {
        Error::WaitTimeout { namespace: self.namespace.to_string(), name: name.to_owned(), waited }
    }
}

/// A wait that goes on by itself. Made by [`Brain::begin_wait_change`]. Its descriptor is readable when it is over; dropped,
/// it waits no longer.
#[derive(Debug)]
pub struct PendingWait {
    session: Arc<Session>,
    connection: Connection,
}

impl PendingWait {
    /// Blocks until it is over, and returns the version that the name has then, `None` if it is not bound.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the store has ended.
    pub fn finish(self) -> Result<Option<u64>> {
        let PendingWait { session, connection } = self;
        match session.finish_call::<WaitChange>(connection) {
            Ok(changed) => Ok(Some(changed.version).filter(|&version| version != 0)),
            Err(error) => Err(session.explain(error)),
        }
    }
}

impl AsFd for PendingWait {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// A wait for a binding that goes on by itself. Made by [`Brain::begin_wait`]. Its descriptor is readable when it is over;
/// dropped, it waits no longer.
#[derive(Debug)]
pub struct PendingBinding {
    session: Arc<Session>,
    connection: Connection,
    timed_out: Error,
}

impl PendingBinding {
    /// Blocks until it is over, and returns the version of the binding.
    ///
    /// # Errors
    /// [`Error::WaitTimeout`]; [`Error::StoreUnavailable`] if the store has ended.
    pub fn finish(self) -> Result<u64> {
        let PendingBinding { session, connection, timed_out } = self;
        match session.finish_call::<Wait>(connection) {
            Ok(bound) => Ok(bound.version),
            Err(CallError::Failed(Failure::WaitTimeout)) => Err(timed_out),
            Err(error) => Err(session.explain(error)),
        }
    }
}

impl AsFd for PendingBinding {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// Milliseconds, rounded up: a wait never ends early.
fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// The user's metadata, from its text: another client may have written what is no JSON.
fn read_metadata(text: &str) -> serde_json::Value {
    match text {
        "" => serde_json::Value::Null,
        text => codec::with_room(|| serde_json::from_str(text)).unwrap_or_else(|_| text.into()),
    }
}

/// Takes a slot and publishes a pin for `entry` in it.
#[inline]
fn pin(session: &Arc<Session>, entry: &Entry) -> Result<Slot> {
    let slot = session.take_slot()?;
    slot.publish(entry);
    Ok(slot)
}

/// Whether a store that was asked to pin, and gave no answer to that, may still do it.
fn may_still_pin(error: &CallError) -> bool {
    match error {
        CallError::Failed(_) | CallError::Lost { sent: false, .. } => false,
        CallError::Lost { sent: true, .. } | CallError::TimedOut | CallError::Other(_) => true,
    }
}

/// An object that the store has looked up, and pinned in `slot` unless its value stands in the entry.
fn located(session: &Arc<Session>, entry: Entry, slot: Slot) -> Result<Object> {
    // By the flag alone, as the store decided whether to pin.
    if entry.header.flags.has(Flags::INLINE) {
        return Object::new(session, entry, None);
    }
    slot.published_by_store(entry.offset);
    Object::new(session, entry, Some(slot))
}

impl From<plasmon_protocol::message::BindingInfo> for Metadata {
    fn from(info: plasmon_protocol::message::BindingInfo) -> Self {
        Metadata {
            namespace: info.namespace.to_string(),
            name: info.name.to_string(),
            version: info.version,
            object_id: ObjectId::from_bytes(info.object_id),
            len_bytes: info.len_bytes,
            kind: info.kind,
            created: SystemTime::UNIX_EPOCH + Duration::from_nanos(info.created_ns),
            writer_pid: info.writer_pid,
            writer_uid: info.writer_uid,
            recalled: (info.recalled_ns != 0)
                .then(|| SystemTime::UNIX_EPOCH + Duration::from_nanos(info.recalled_ns)),
            is_sliding: info.ttl.as_ref().is_some_and(|ttl| ttl.is_sliding),
            ttl: info.ttl.map(|ttl| Duration::from_nanos(ttl.ttl_ns)),
            expires: info.left_ns.and_then(|left| SystemTime::now().checked_add(Duration::from_nanos(left))),
            description: String::new(),
            metadata: serde_json::Value::Null,
        }
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::{Blob, testing::Store};
    use plasmon_store::testing::Running;

    /// Handles outlive the store, and a later call finds its successor.
    #[test]
    fn a_store_that_ends_is_noticed_and_its_successor_is_found() {
        let mut first = Running::start(8 << 20).unwrap();
        let socket = first.socket().to_owned();
        let brain = Brain::builder().path(&socket).connect().unwrap();
        brain.learn("old", &[7_u8; 100_000]).unwrap();
        let held: Blob = brain.recall("old").unwrap();
        first.stop();
        for error in [
            brain.recall::<Blob>("old").unwrap_err(),
            brain.recall_many(&["old"]).unwrap_err(),
            brain.stats().unwrap_err(),
            brain.learn("new", &[8_u8; 100_000]).unwrap_err(),
            brain.wait("new", 0, Duration::from_secs(5)).unwrap_err(),
        ] {
            assert!(matches!(error, Error::StoreUnavailable { .. }), "{error:?}");
        }
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let mut second =
            Running::start_with(8 << 20, |options| options.socket = Some(socket.clone())).unwrap();
        assert!(!brain.exists("old").unwrap());
        brain.learn("new", &[8_u8; 100_000]).unwrap();
        assert_eq!(brain.recall::<Blob>("new").unwrap()[99_999], 8);
        assert!(held.iter().all(|&byte| byte == 7));
        second.stop();
        let _ = std::fs::remove_dir_all(socket.parent().unwrap());
    }

    /// A page of names always fits a frame, also if all of them are as long as names may be; what is between names in a
    /// page may also be in them.
    #[test]
    fn names_are_listed_however_long_and_odd_they_are() {
        let store = Store::start(64 << 20).unwrap();
        let brain = store.connect().unwrap();
        let long = (0..17_000).map(|number| format!("{number:01024}"));
        let mut names: Vec<String> = long.chain(["a\0b", "\0", "ü\0"].map(String::from)).collect();
        let batch = names.iter().try_fold(brain.batch().unwrap(), |batch, name| batch.learn(name, &()));
        batch.unwrap().commit().unwrap();
        names.sort_unstable();
        assert_eq!(brain.names("").unwrap(), names);
        assert_eq!(brain.names("0").unwrap(), names[1..17_001]);
    }

    /// Reads that had no answer are made again: here the idle connections are dead, and nobody has looked yet.
    #[test]
    fn a_restart_between_two_calls_goes_unnoticed_by_reads_and_small_learns() {
        let mut first = Running::start(8 << 20).unwrap();
        let socket = first.socket().to_owned();
        let brain = Brain::builder().path(&socket).connect().unwrap();
        let other = brain.in_namespace("other").unwrap();
        brain.stats().unwrap();
        first.stop();
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let mut second =
            Running::start_with(8 << 20, |options| options.socket = Some(socket.clone())).unwrap();
        assert_eq!(brain.metadata("a").unwrap(), None);
        brain.learn("a", &1).unwrap();
        other.learn("a", &2).unwrap();
        assert_eq!((brain.recall::<i64>("a").unwrap(), other.recall::<i64>("a").unwrap()), (1, 2));
        second.stop();
        let _ = std::fs::remove_dir_all(socket.parent().unwrap());
    }

    #[test]
    fn a_prefix_longer_than_any_name_finds_nothing() {
        let store = Store::start(1 << 20).unwrap();
        let brain = store.connect().unwrap();
        let long = "x".repeat(1_024);
        brain.learn(&long, &1).unwrap();
        assert_eq!(brain.names(&long).unwrap(), [long.as_str()]);
        assert!(brain.names(&"x".repeat(1_025)).unwrap().is_empty());
        assert!(brain.names(&"x".repeat(1 << 20)).unwrap().is_empty());
        assert!(matches!(brain.learn(&"x".repeat(1_025), &1), Err(Error::BadName(_))));
    }

    #[test]
    fn a_wait_ends_in_time_and_holds_up_nobody() {
        let store = Store::start(8 << 20).unwrap();
        let brain = store.connect().unwrap();
        let start = Instant::now();
        let waited = brain.recall_within::<i64>("never", Duration::from_millis(100));
        assert!(matches!(waited, Err(Error::WaitTimeout { .. })), "{waited:?}");
        let waited = brain.recall_within::<i64>("never", Duration::ZERO);
        assert!(matches!(waited, Err(Error::WaitTimeout { .. })), "{waited:?}");
        assert!(start.elapsed() >= Duration::from_millis(100));
        let version = brain.learn("a", &1).unwrap();
        assert_eq!(brain.wait("a", 0, Duration::MAX).unwrap(), version);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| brain.wait("a", version, Duration::from_secs(30)));
            while brain.stats().unwrap().waits == 0 {
                std::thread::yield_now();
            }
            let next = brain.learn("a", &2).unwrap();
            assert_eq!(waiting.join().unwrap().unwrap(), next);
        });
    }

    /// Invariants 2 and 3 from many threads of one session, whose slots, connections and leases they share.
    #[test]
    fn threads_that_share_a_session_never_see_torn_or_changing_objects() {
        let store = Store::start(32 << 20).unwrap();
        let brain = store.connect().unwrap();
        let first = vec![0_u8; 100_000];
        brain.batch().unwrap().learn("a", &first).unwrap().learn("b", &first).unwrap().commit().unwrap();
        let whole = |object: &Blob| object.iter().all(|byte| *byte == object[0]);
        std::thread::scope(|scope| {
            for thread in 0..2_u8 {
                let brain = brain.clone();
                scope.spawn(move || {
                    for round in 0..300_u16 {
                        let value = vec![thread.wrapping_add(round.to_le_bytes()[0]); 100_000];
                        let batch = brain.batch().unwrap().learn("a", &value).unwrap();
                        batch.learn("b", &value).unwrap().commit().unwrap();
                    }
                });
            }
            for _ in 0..2 {
                let brain = brain.clone();
                scope.spawn(move || {
                    for _ in 0..300 {
                        let held: Blob = brain.recall("a").unwrap();
                        let before = held[0];
                        assert!(whole(&held));
                        let both = brain.recall_many(&["a", "b"]).unwrap();
                        let versions: Vec<u64> = both.iter().flatten().map(Object::version).collect();
                        assert!(versions.len() == 2 && versions[0] == versions[1], "{versions:?}");
                        assert!(whole(&held) && held[0] == before);
                    }
                });
            }
        });
        let stats = brain.stats().unwrap();
        assert_eq!((stats.pins, stats.limbo_bytes), (0, 0));
    }
}

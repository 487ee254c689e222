//! `Brain`: a store as a dictionary.

mod admin;
mod atomic;
mod fallback;
mod learn;
mod listing;
mod names;
mod past;
mod recall;
mod wait;

#[cfg(doc)]
use crate::error::Error;
use crate::{error::Result, session::Session, store::Store, trust::Trust};
use plasmon_protocol::{id::NamespacePrefix, name::Namespace};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use listing::{Metadata, NamePage};
pub use past::{Diff, Ended, Version};
pub use plasmon_protocol::message::{
    Figure, History, Keeper, NamespaceInfo, PinInfo as Pin, Reason, RefusedLearns, SnapshotInfo, Stats,
    ViewInfo,
};
pub use wait::{PendingBinding, PendingWait};

/// How long a call waits for its answer, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest timeout. A caller that passes [`Duration::MAX`] means no end, but adding that to a clock overflows.
const PATIENCE_MAX: Duration = Duration::from_secs(u32::MAX as u64);

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
    /// let brain = plasmon::testing::brain()?;
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
    /// let brain = plasmon::testing::brain()?;
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

    /// Leaves the store: this process's session ends as soon as no handle needs it. A later call connects again.
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
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

    pub(crate) fn namespace_checked(&self) -> &Namespace {
        &self.namespace
    }
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

    /// Sets how long a call waits for its answer. The default is 30 seconds.
    ///
    /// Calls that have to wait for memory, and long batches, may take longer. Each time `timeout` has passed, such a
    /// call checks whether the store answers on another connection, and fails only if it does not. All `Brain`s of a
    /// process on one store share the timeout of the first.
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

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::{Blob, error::Error};
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
}

//! Why a call on the store did not do what was asked.

use crate::codec::{CodecError, Kind};
use nix::unistd::{AccessFlags, access};
use plasmon_protocol::{
    codec::DecodeError,
    frame::FrameError,
    message::{Expect, FailedCondition, Failure, FullOfPast, Keeper, NoRoom},
    name::NameError,
    pins::RegionError,
};
use std::{
    fmt, fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

/// What a call on the store returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call on the store did not do what was asked. After any of these nothing has changed, unless the variant says
/// otherwise.
///
/// The `Debug` form is the variant's name and the message: a person reads what `main` returns and `unwrap` finds in it.
#[derive(thiserror::Error)]
#[expect(missing_docs, reason = "the fields' names and the message say it")]
#[non_exhaustive]
pub enum Error {
    /// Nothing is bound to the name.
    #[error(
        "nothing is bound to {name:?} in namespace {namespace:?}; learn it first, or wait for it with a timeout"
    )]
    NameNotFound { namespace: String, name: String },
    /// That version of the name is not kept, or never was.
    #[error(
        "version {version} of {name:?} in namespace {namespace:?} is not kept; history() lists those that are"
    )]
    VersionNotKept { namespace: String, name: String, version: u64 },
    /// A name that is to share its object is not bound.
    #[error("nothing is bound to {name:?} in namespace {namespace:?}, so no other name can have its object")]
    NotBound { namespace: String, name: String },
    /// There is no such namespace.
    #[error("there is no namespace {namespace:?}; learning in it makes it")]
    NamespaceNotFound { namespace: String },
    /// The namespace was to be removed if it is empty, and is not.
    #[error("namespace {namespace:?} is not empty, so it was not removed: names are bound in it ({names})")]
    NamespaceInUse { namespace: String, names: u64 },
    /// The namespace `default` always exists.
    #[error("the namespace \"default\" cannot be removed; clear it instead")]
    DefaultNamespace,
    /// A namespace or a name breaks its rule.
    #[error(transparent)]
    BadName(#[from] NameError),
    /// The objects do not fit.
    #[error("{0}")]
    StoreFull(Box<Full>),
    /// As many names are bound as the store can hold.
    #[error(
        "no room for {requested} new names: {used} of {limit} are bound; forget some, or start the store with a larger \
         --max-objects"
    )]
    IndexFull { requested: u64, used: u64, limit: u64 },
    /// A condition (`if_absent`, `if_version`) did not hold.
    #[error("{}", conditional(.namespace, .name, .expect, *.found))]
    ConditionFailed { namespace: String, name: String, expect: Expect, found: Option<u64> },
    /// Several conditions did not hold.
    #[error("{}", conditions(.failed, *.more))]
    ConditionsFailed { failed: Vec<FailedCondition>, more: u64 },
    /// What a transaction has read does not hold any more: nothing of it has happened.
    #[error("{}", conflicting(.conflicts, *.more))]
    TransactionConflict { conflicts: Vec<Conflict>, more: u64 },
    /// The transaction was committed or rolled back before.
    #[error("this transaction has ended; begin another one")]
    TransactionEnded,
    /// Others changed what a transaction read, each time it was tried.
    #[error("others changed what the transaction had read, each of the {tries} times that it was tried")]
    Contended { tries: u32 },
    /// The sum is no integer of 64 bits.
    #[error("{name:?} in namespace {namespace:?} would have more than 64 bits")]
    Overflow { namespace: String, name: String },
    /// A forked child does not hold the lock of its parent.
    #[error(
        "the lock {name:?} is held by process {pid}, and this is a child of it; only its holder can release it"
    )]
    NotTheHolder { name: String, pid: u32 },
    /// There is a snapshot with this label.
    #[error("there is a snapshot {label:?} already; drop it first, or take another label")]
    SnapshotExists { label: String },
    /// There is no snapshot with this label, or not of this namespace.
    #[error("there is no snapshot {label:?} of this namespace")]
    SnapshotNotFound { label: String },
    /// The view has ended, or nobody holds the moment that it was to show.
    #[error("view {view} has ended: its session did, or somebody ended it; begin another one")]
    ViewEnded { view: u64 },
    /// A cache has neither history nor snapshots.
    #[error("namespace {namespace:?} is a cache, and a cache has no past: neither history nor snapshots")]
    CacheHasNoPast { namespace: String },
    /// More versions that have ended would have to be kept than can be.
    #[error(
        "this would end {requested} bindings of namespace {namespace:?} (and maybe others) that history, snapshots or \
         views want, and {kept} of {limit} are kept already; drop a snapshot or a view, keep a shorter history, or start \
         the store with a larger --max-kept"
    )]
    TooManyKept { namespace: String, requested: u64, kept: u64, limit: u64 },
    /// The name was not bound in time.
    #[error("{name:?} in namespace {namespace:?} was not bound within {}", seconds(*.waited))]
    WaitTimeout { namespace: String, name: String, waited: Duration },
    /// No store answers. Values already recalled stay valid; a later call connects again when a store is back.
    #[error("{}", unavailable(.sockets, .source.as_ref()))]
    StoreUnavailable { sockets: Vec<PathBuf>, source: Option<io::Error> },
    /// The store went away after the change was sent and before it answered: it may or may not have happened.
    #[error(
        "the store at {} went away before it answered: the change may or may not have happened; look, or make it again \
         with if_version", .socket.display()
    )]
    OutcomeUnknown { socket: PathBuf, source: io::Error },
    /// The store did not answer in time; a change that was sent may or may not have happened.
    #[error("the store at {} did not answer within {} seconds", .socket.display(), .waited.as_secs_f64())]
    NoAnswer { socket: PathBuf, waited: Duration },
    /// What listens there speaks another language: it is no store.
    #[error(
        "what listens at {} is no plasmon-store, or a broken one: {said}; name another path, or stop that program",
        .socket.display()
    )]
    NotAStore { socket: PathBuf, said: String },
    /// The store belongs to another user, who could show this process anything.
    #[error(
        "the store at {} is run by uid {uid}, not by this user or root; name the uid with trust_store_of if you trust it",
        .socket.display()
    )]
    UntrustedStore { socket: PathBuf, uid: u32 },
    /// The store does not admit this user.
    #[error(
        "the store of uid {store_uid} does not admit uid {uid}; its operator can, with --allow-uid {uid}"
    )]
    NotAdmitted { uid: u32, store_uid: u32 },
    /// Client and store speak different versions of the protocol.
    #[error("this client speaks protocol {client}, the store speaks {store}; bring both to the same release")]
    VersionMismatch { client: u32, store: u32 },
    /// A limit on a number of things is reached.
    #[error("too many {what}: the limit is {limit}")]
    TooMany { what: String, limit: u64 },
    /// Something is longer than allowed.
    #[error("{what} of {found_bytes} bytes is longer than {limit_bytes} bytes")]
    TooLarge { what: String, found_bytes: u64, limit_bytes: u64 },
    /// The object is of another kind than what it was recalled as.
    #[error("{name:?} in namespace {namespace:?} holds a value of kind {found}, and was recalled as {asked}")]
    WrongKind { namespace: String, name: String, asked: &'static str, found: Kind },
    /// A value could not be encoded, or an object could not be decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A batch of a [`TableWriter`](crate::TableWriter) was written in part, so the table cannot be finished.
    #[error(
        "an earlier batch of {name:?} could not be written, so the table is not whole; begin a new writer"
    )]
    WriterFailed { name: String },
    /// One commit changes a name twice.
    #[error("{name:?} in namespace {namespace:?} is changed twice in one batch")]
    NamedTwice { namespace: String, name: String },
    /// Another namespace or name has the same id.
    #[error("{wanted:?} has the same id as {holder:?}; choose another name")]
    IdTaken { wanted: String, holder: String },
    /// User metadata is not a JSON object.
    #[error("metadata is a JSON object, and this is {found}")]
    MetadataNotAnObject { found: &'static str },
    /// A time to live of zero.
    #[error("a time to live is longer than 0 seconds")]
    NoTimeToLive,
    /// No client of the store is this process.
    #[error("process {pid} has no session here")]
    UnknownProcess { pid: u32 },
    /// Client and store misunderstand each other, or the machine refused something: a defect, worth a report.
    #[error("{what}")]
    Internal { what: String },
}

/// What a transaction has read and does not hold any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The namespace.
    pub namespace: String,
    /// The name; `None` where the names of the namespace were listed, and one was bound or unbound since.
    pub name: Option<String>,
    /// The version that the name has now; `None` if it is not bound. Of a namespace, the number of its last change.
    pub found: Option<u64>,
}

/// The figures of a full store.
///
/// # Examples
/// ```
/// let store = plasmon::testing::Store::start(8 << 20)?;
/// let full = store.connect()?.learn("huge", &vec![0_u8; 9 << 20]).unwrap_err();
/// let plasmon::Error::StoreFull(full) = full else { unreachable!() };
/// assert!(full.requested_bytes > full.capacity_bytes);
/// # Ok::<(), plasmon::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Full {
    /// Bytes that were asked for.
    pub requested_bytes: u64,
    /// Capacity of the store.
    pub capacity_bytes: u64,
    /// Bytes used, limbo included.
    pub used_bytes: u64,
    /// Bytes free.
    pub free_bytes: u64,
    /// Largest single object that would fit.
    pub largest_free_bytes: u64,
    /// Bytes without a name that processes still hold.
    pub limbo_bytes: u64,
    /// Bytes in the arena of objects in cache namespaces: giving them all up would not have made enough room.
    pub cached_bytes: u64,
    /// Set if there is room in the arena but not enough memory in the machine to back it: bytes backed so far.
    pub populated_bytes: Option<u64>,
    /// The processes that hold most of limbo: pid, command, bytes.
    pub holders: Vec<(u32, String, u64)>,
    /// Bytes of versions that have ended, and that only history, snapshots or views keep.
    pub past_bytes: u64,
    /// The histories, snapshots and views that keep most of them.
    pub keepers: Vec<Keeper>,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Full {
            requested_bytes,
            capacity_bytes,
            used_bytes,
            free_bytes,
            largest_free_bytes,
            limbo_bytes,
            ..
        } = self;
        write!(
            f,
            "no room for {requested_bytes} bytes: {used_bytes} of {capacity_bytes} bytes are used, {free_bytes} bytes are free, \
             the largest free extent is {largest_free_bytes} bytes, and {limbo_bytes} bytes are forgotten but still held"
        )?;
        for (pid, command, bytes) in &self.holders {
            write!(f, "; process {pid} ({command}) holds {bytes} of them")?;
        }
        if self.past_bytes > 0 {
            write!(f, "; only the past keeps {} bytes of what is used", self.past_bytes)?;
        }
        for keeper in &self.keepers {
            match keeper {
                Keeper::History { namespace, bytes } => {
                    write!(f, "; the history of namespace {namespace:?} keeps {bytes} bytes")?;
                }
                Keeper::Snapshot { label, bytes } => {
                    write!(f, "; snapshot \"{label}\" keeps {bytes} bytes")?;
                }
                Keeper::View { view, pid, command, bytes } => {
                    write!(f, "; view {view} of process {pid} ({command}) keeps {bytes} bytes")?;
                }
            }
        }
        if self.cached_bytes > 0 {
            let cached = self.cached_bytes;
            write!(
                f,
                "; {cached} bytes in cache namespaces would not make enough room, as far as nobody holds them"
            )?;
        }
        match self.populated_bytes {
            Some(populated) => write!(
                f,
                "; the machine has too little memory to back more than {populated} bytes of the arena: free some, or \
                 start the store with a smaller --size"
            ),
            None if requested_bytes > capacity_bytes => write!(f, "; start the store with a larger --size"),
            None => write!(f, "; forget something, or start the store with a larger --size"),
        }
    }
}

impl Error {
    /// Whether a name or a namespace was not there.
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// assert!(store.connect()?.recall::<i64>("nothing").unwrap_err().is_not_found());
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Error::NameNotFound { .. }
                | Error::NotBound { .. }
                | Error::VersionNotKept { .. }
                | Error::NamespaceNotFound { .. }
        )
    }

    /// Whether no store can be reached now, and a later call may succeed.
    ///
    /// # Examples
    /// ```
    /// let store = plasmon::testing::Store::start(8 << 20)?;
    /// let brain = store.connect()?;
    /// drop(store);
    /// assert!(brain.stats().unwrap_err().is_unavailable());
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Error::StoreUnavailable { .. } | Error::OutcomeUnknown { .. } | Error::NoAnswer { .. })
    }

    /// Whether the same call may succeed later without anybody changing how it is made.
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// let full = brain.learn("huge", &vec![0_u8; 9 << 20]).unwrap_err();
    /// assert!(full.is_transient()); // others may forget something
    /// assert!(!brain.learn("", &1).unwrap_err().is_transient());
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Error::StoreFull(_)
            | Error::IndexFull { .. }
            | Error::WaitTimeout { .. }
            | Error::StoreUnavailable { .. }
            | Error::OutcomeUnknown { .. }
            | Error::NoAnswer { .. }
            | Error::TooMany { .. }
            | Error::NameNotFound { .. }
            | Error::NotBound { .. }
            | Error::VersionNotKept { .. }
            | Error::NamespaceNotFound { .. }
            | Error::NamespaceInUse { .. }
            | Error::ConditionsFailed { .. }
            | Error::TransactionConflict { .. }
            | Error::Contended { .. }
            | Error::SnapshotExists { .. }
            | Error::SnapshotNotFound { .. }
            | Error::TooManyKept { .. }
            | Error::ConditionFailed { .. } => true,
            Error::DefaultNamespace
            | Error::TransactionEnded
            | Error::Overflow { .. }
            | Error::NotTheHolder { .. }
            | Error::ViewEnded { .. }
            | Error::CacheHasNoPast { .. }
            | Error::BadName(_)
            | Error::UntrustedStore { .. }
            | Error::NotAdmitted { .. }
            | Error::VersionMismatch { .. }
            | Error::NotAStore { .. }
            | Error::TooLarge { .. }
            | Error::WrongKind { .. }
            | Error::Codec(_)
            | Error::WriterFailed { .. }
            | Error::NamedTwice { .. }
            | Error::IdTaken { .. }
            | Error::MetadataNotAnObject { .. }
            | Error::NoTimeToLive
            | Error::UnknownProcess { .. }
            | Error::Internal { .. } => false,
        }
    }

    /// The message, with the cure as its reader knows it.
    #[doc(hidden)]
    #[must_use]
    pub fn text_for(&self, reader: Reader) -> String {
        let said = match (self, reader) {
            (_, Reader::Rust) => None,
            (Error::NameNotFound { namespace, name }, Reader::CommandLine) => Some(format!(
                "nothing is bound to {name:?} in namespace {namespace:?}; put it first, or wait for it with: plasmon \
                 wait NAME"
            )),
            (Error::UntrustedStore { socket, uid }, Reader::Python) => Some(format!(
                "the store at {} is run by uid {uid}, not by this user or root; connect with trust=[{uid}] if you \
                 trust it",
                socket.display()
            )),
            (Error::UntrustedStore { socket, uid }, Reader::CommandLine) => Some(format!(
                "the store at {} is run by uid {uid}, not by this user or root; if you trust it, repeat this with \
                 --trust-uid {uid}",
                socket.display()
            )),
            (Error::OutcomeUnknown { socket, .. }, Reader::CommandLine) => Some(format!(
                "the store at {} went away before it answered: the change may or may not have happened; look with: \
                 plasmon stat NAME",
                socket.display()
            )),
            (Error::DefaultNamespace, Reader::Python) => {
                Some("the namespace \"default\" cannot be removed; clear() empties it".to_owned())
            }
            (Error::DefaultNamespace, Reader::CommandLine) => {
                Some("the namespace \"default\" cannot be removed; plasmon rm forgets its names".to_owned())
            }
            (Error::Codec(CodecError::NotBool { index, found }), _) => {
                Some(format!("element {index} of the array of truth values is the byte {found}, not 0 or 1"))
            }
            (Error::Codec(CodecError::Misaligned { what, needed_bytes }), _) => Some(format!(
                "{what} is not aligned to {needed_bytes} bytes and cannot be read in place; learn it again with a \
                 client of this store"
            )),
            _ => None,
        };
        said.unwrap_or_else(|| self.to_string())
    }

    pub(crate) fn internal(what: impl fmt::Display) -> Error {
        Error::Internal { what: what.to_string() }
    }
}

/// Who reads a message: what there is to do has another name for each.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A program that calls this crate: what `Display` says.
    Rust,
    /// A program in Python.
    Python,
    /// Somebody at a terminal.
    CommandLine,
}

/// Why no store can be reached although one runs.
#[derive(Debug, thiserror::Error)]
#[error("the socket was deleted while the store, process {store_pid}, runs")]
pub(crate) struct SocketDeleted {
    pub(crate) store_pid: u32,
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variant = match self {
            Error::NameNotFound { .. } => "NameNotFound",
            Error::NotBound { .. } => "NotBound",
            Error::VersionNotKept { .. } => "VersionNotKept",
            Error::NamespaceNotFound { .. } => "NamespaceNotFound",
            Error::NamespaceInUse { .. } => "NamespaceInUse",
            Error::DefaultNamespace => "DefaultNamespace",
            Error::BadName(..) => "BadName",
            Error::StoreFull(..) => "StoreFull",
            Error::IndexFull { .. } => "IndexFull",
            Error::ConditionFailed { .. } => "ConditionFailed",
            Error::ConditionsFailed { .. } => "ConditionsFailed",
            Error::TransactionConflict { .. } => "TransactionConflict",
            Error::TransactionEnded => "TransactionEnded",
            Error::Contended { .. } => "Contended",
            Error::Overflow { .. } => "Overflow",
            Error::NotTheHolder { .. } => "NotTheHolder",
            Error::SnapshotExists { .. } => "SnapshotExists",
            Error::SnapshotNotFound { .. } => "SnapshotNotFound",
            Error::ViewEnded { .. } => "ViewEnded",
            Error::CacheHasNoPast { .. } => "CacheHasNoPast",
            Error::TooManyKept { .. } => "TooManyKept",
            Error::WaitTimeout { .. } => "WaitTimeout",
            Error::StoreUnavailable { .. } => "StoreUnavailable",
            Error::OutcomeUnknown { .. } => "OutcomeUnknown",
            Error::NoAnswer { .. } => "NoAnswer",
            Error::NotAStore { .. } => "NotAStore",
            Error::UntrustedStore { .. } => "UntrustedStore",
            Error::NotAdmitted { .. } => "NotAdmitted",
            Error::VersionMismatch { .. } => "VersionMismatch",
            Error::TooMany { .. } => "TooMany",
            Error::TooLarge { .. } => "TooLarge",
            Error::WrongKind { .. } => "WrongKind",
            Error::Codec(..) => "Codec",
            Error::WriterFailed { .. } => "WriterFailed",
            Error::NamedTwice { .. } => "NamedTwice",
            Error::IdTaken { .. } => "IdTaken",
            Error::MetadataNotAnObject { .. } => "MetadataNotAnObject",
            Error::NoTimeToLive => "NoTimeToLive",
            Error::UnknownProcess { .. } => "UnknownProcess",
            Error::Internal { .. } => "Internal",
        };
        write!(f, "{variant}: {self}")
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::VersionMismatch { client, store } => Error::VersionMismatch { client, store },
            Failure::NotAdmitted { uid, store_uid } => Error::NotAdmitted { uid, store_uid },
            Failure::TooMany { what, limit } => Error::TooMany { what, limit },
            Failure::ConditionFailed { namespace, name, expect, found } => {
                let (namespace, name) = (namespace.to_string(), name.to_string());
                Error::ConditionFailed { namespace, name, expect, found }
            }
            Failure::ConditionsFailed { failed, more } => Error::ConditionsFailed { failed, more },
            Failure::SnapshotExists { label } => Error::SnapshotExists { label: label.to_string() },
            Failure::SnapshotNotFound { label } => Error::SnapshotNotFound { label: label.to_string() },
            Failure::ViewEnded { view } => Error::ViewEnded { view },
            Failure::CacheHasNoPast { namespace } => {
                Error::CacheHasNoPast { namespace: namespace.to_string() }
            }
            Failure::TooManyKept { namespace, requested, kept, limit } => {
                Error::TooManyKept { namespace: namespace.to_string(), requested, kept, limit }
            }
            Failure::StoreFull(room) => Error::StoreFull(Box::new(room.into())),
            Failure::FullOfPast(full) => {
                let FullOfPast { room, past_bytes, keepers } = *full;
                Error::StoreFull(Box::new(Full { past_bytes, keepers, ..room.into() }))
            }
            Failure::IndexFull { requested, used, limit } => Error::IndexFull { requested, used, limit },
            Failure::UnknownNamespace { namespace } => {
                Error::NamespaceNotFound { namespace: namespace.to_string() }
            }
            Failure::NotBound { namespace, name } => {
                Error::NotBound { namespace: namespace.to_string(), name: name.to_string() }
            }
            Failure::NamespaceInUse { namespace, names } => {
                Error::NamespaceInUse { namespace: namespace.to_string(), names }
            }
            Failure::DefaultNamespace => Error::DefaultNamespace,
            Failure::IdTaken { wanted, holder } => Error::IdTaken { wanted, holder },
            Failure::NamedTwice { namespace, name } => {
                Error::NamedTwice { namespace: namespace.to_string(), name: name.to_string() }
            }
            Failure::TooLarge { what, found_bytes, limit_bytes } => {
                Error::TooLarge { what, found_bytes, limit_bytes }
            }
            Failure::UnknownProcess { pid } => Error::UnknownProcess { pid },
            Failure::UnknownSession | Failure::ShuttingDown => {
                Error::StoreUnavailable { sockets: Vec::new(), source: None }
            }
            Failure::Malformed { reason } => {
                Error::internal(format!("the store did not understand a request: {reason}"))
            }
            Failure::UnknownRequest { kind } => {
                Error::internal(format!("the store does not know request {kind}"))
            }
            Failure::BadLease { lease, reason } => Error::internal(format!("lease {lease}: {reason}")),
            Failure::BadSlot { slot } => Error::internal(format!("pin slot {slot} was not free")),
            Failure::WaitTimeout => Error::internal("a wait ended that was not asked for"),
            Failure::Internal { reason } => Error::internal(format!("the store failed: {reason}")),
        }
    }
}

impl From<NoRoom> for Full {
    fn from(room: NoRoom) -> Full {
        Full {
            requested_bytes: room.requested_bytes,
            capacity_bytes: room.capacity_bytes,
            used_bytes: room.used_bytes,
            free_bytes: room.free_bytes,
            largest_free_bytes: room.largest_free_bytes,
            limbo_bytes: room.limbo_bytes,
            cached_bytes: room.cached_bytes,
            populated_bytes: room.populated_bytes,
            holders: room
                .holders
                .into_iter()
                .map(|holder| (holder.pid, holder.command, holder.bytes))
                .collect(),
            past_bytes: 0,
            keepers: Vec::new(),
        }
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Error {
        Error::internal(format!("the store sent what cannot be read: {error}"))
    }
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Error {
        match error {
            FrameError::TooLong { len_bytes } => Error::TooLarge {
                what: "a request".to_owned(),
                found_bytes: len_bytes.into(),
                limit_bytes: plasmon_protocol::limits::FRAME_BYTES_MAX.into(),
            },
            other => Error::internal(other),
        }
    }
}

impl From<RegionError> for Error {
    fn from(error: RegionError) -> Error {
        Error::internal(error)
    }
}

impl From<plasmon_shm::Error> for Error {
    fn from(error: plasmon_shm::Error) -> Error {
        match error {
            // As when the store has ended: the next call connects anew.
            plasmon_shm::Error::Taken { .. } => {
                Error::StoreUnavailable { sockets: Vec::new(), source: Some(io::Error::other(error)) }
            }
            error => Error::internal(error),
        }
    }
}

fn seconds(waited: Duration) -> String {
    let seconds = if waited == Duration::from_secs(1) { "second" } else { "seconds" };
    format!("{} {seconds}", waited.as_secs_f64())
}

fn conditional(namespace: &str, name: &str, expect: &Expect, found: Option<u64>) -> String {
    let wanted = match expect {
        Expect::Absent => "to be absent".to_owned(),
        Expect::Present => "to be bound".to_owned(),
        Expect::Version { version } => format!("to have version {version}"),
        Expect::NamespaceUnchanged { since } => {
            let changed =
                found.map_or_else(String::new, |version| format!(", the last time by change {version}"));
            return format!("names of namespace {namespace:?} have changed since version {since}{changed}");
        }
    };
    let found =
        found.map_or_else(|| "it is not bound".to_owned(), |version| format!("it has version {version}"));
    format!("{name:?} in namespace {namespace:?} was expected {wanted}, and {found}")
}

fn conflicting(conflicts: &[Conflict], more: u64) -> String {
    let each = conflicts.iter().take(10).map(|conflict| match &conflict.name {
        Some(name) => format!("{name:?} in namespace {:?}", conflict.namespace),
        None => format!("the names of namespace {:?}", conflict.namespace),
    });
    let each = each.collect::<Vec<_>>().join(", ");
    let more = match more + conflicts.len().saturating_sub(10) as u64 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "others have changed what this transaction read: {each}{more}; nothing of it has happened, try it again"
    )
}

fn conditions(failed: &[FailedCondition], more: u64) -> String {
    let each = failed.iter().take(10).map(|failed| {
        let FailedCondition { namespace, name, expect, found } = failed;
        conditional(namespace, name, expect, *found)
    });
    let each = each.collect::<Vec<_>>().join("; ");
    match more + failed.len().saturating_sub(10) as u64 {
        0 => each,
        more => format!("{each}; and {more} conditions more did not hold"),
    }
}

fn unavailable(sockets: &[PathBuf], source: Option<&io::Error>) -> String {
    match sockets {
        [] if source.is_some() => {
            "this process's way to the store was lost; the next call connects anew".to_owned()
        }
        [] => "no store answers at the socket it had".to_owned(),
        [socket] => source.map_or_else(|| start_one(socket), |source| unreachable_at(socket, source)),
        sockets => {
            let tried = sockets.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
            format!(
                "no store answers at {}; start one with: plasmon-store --size 1GiB",
                tried.join(", nor at ")
            )
        }
    }
}

fn start_one(socket: &Path) -> String {
    let socket = socket.display();
    format!("no store answers at {socket}; start one with: plasmon-store --size 1GiB --socket {socket}")
}

/// Why nobody could be spoken to at `socket`, and what to do.
fn unreachable_at(socket: &Path, source: &io::Error) -> String {
    let shown = socket.display();
    if let Some(SocketDeleted { store_pid }) = source.get_ref().and_then(|source| source.downcast_ref()) {
        return format!(
            "the socket {shown} was deleted, while the store that listens there, process {store_pid}, still runs: \
             nobody can connect to it any more; learn what is to be kept elsewhere, end it, and start it again"
        );
    }
    let directory = socket.parent().filter(|directory| !directory.as_os_str().is_empty());
    match source.kind() {
        io::ErrorKind::PermissionDenied => match directory.and_then(closed_to_this_user) {
            Some(closed) => format!(
                "this user may not enter {0}, and so not reach the store at {shown}; whoever owns that directory can \
                 let others in with: chmod o+x {0}",
                closed.display()
            ),
            None => format!(
                "this user may not connect to the store at {shown}; whoever runs it can admit others with: \
                 plasmon-store --allow-uid {}",
                nix::unistd::getuid()
            ),
        },
        io::ErrorKind::NotFound if directory.is_some_and(|directory| !directory.exists()) => format!(
            "no store answers at {shown}: its directory is not there, either. A private store (of Python's \
             plasmon.start) takes it along when it is closed, or when its process ends: start another. Or: mkdir -p \
             {} && plasmon-store --size 1GiB --socket {shown}",
            directory.unwrap_or(socket).display()
        ),
        io::ErrorKind::NotFound => match lock_holder(socket) {
            Some(pid) => format!(
                "there is no socket at {shown}, but process {pid} holds its lock: a store that is about to listen, or one \
                 whose socket was deleted, to which nobody can connect any more; end that one, and start it again"
            ),
            None => start_one(socket),
        },
        io::ErrorKind::ConnectionRefused => match fs::metadata(socket) {
            Ok(there) if !there.file_type().is_socket() => format!(
                "no store answers at {shown}: that is a {}, and no socket; name the socket of a store",
                if there.is_dir() { "directory" } else { "file" }
            ),
            _ => format!("{} (what is there was left by one that has ended)", start_one(socket)),
        },
        io::ErrorKind::TimedOut => format!(
            "something listens at {shown} and says nothing: a store that was stopped (look with: ps -o stat), or no \
             plasmon-store"
        ),
        io::ErrorKind::UnexpectedEof => format!(
            "what listens at {shown} hung up without a word: a store that is about to end, or no plasmon-store"
        ),
        _ => start_one(socket),
    }
}

/// The process that holds the lock of the store at `socket`, as far as this process may see it.
fn lock_holder(socket: &Path) -> Option<u32> {
    // Trying the lock would take it for a moment, and refuse it to a store that starts in that moment.
    let lock = fs::metadata(format!("{}.lock", socket.display())).ok()?;
    let (major, minor) = (nix::sys::stat::major(lock.dev()), nix::sys::stat::minor(lock.dev()));
    holder_in(&fs::read_to_string("/proc/locks").ok()?, &format!("{major:02x}:{minor:02x}:{}", lock.ino()))
}

/// Who holds the lock on a file, by the lines of `/proc/locks`; `file` is its device and inode as they are written there.
fn holder_in(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1); // the lock's number
        let kind = words.next()?; // `->` is one who waits
        let pid = words.nth(2)?.parse().ok()?; // behind ADVISORY and WRITE
        (kind == "FLOCK" && words.next()? == file).then_some(pid)
    })
}

/// The first directory on the way to `directory`, and it included, that this user may not enter.
fn closed_to_this_user(directory: &Path) -> Option<PathBuf> {
    let way: Vec<&Path> = directory.ancestors().filter(|part| !part.as_os_str().is_empty()).collect();
    let is_closed = |part: &&Path| access(*part, AccessFlags::X_OK) == Err(nix::Error::EACCES);
    way.into_iter().rev().find(is_closed).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_not_there_and_one_that_may_not_be_asked_are_told_apart() {
        let error = |errno| Error::StoreUnavailable {
            sockets: vec!["/run/store.sock".into()],
            source: Some(io::Error::from_raw_os_error(errno)),
        };
        let refused = error(nix::libc::EACCES).to_string();
        assert!(refused.contains("may not connect") && refused.contains("--allow-uid"), "{refused}");
        let absent = error(nix::libc::ENOENT).to_string();
        assert!(absent.ends_with("plasmon-store --size 1GiB --socket /run/store.sock"), "{absent}");
    }

    /// The message names the cause, and what to do about that one.
    #[test]
    fn each_cause_of_silence_has_its_own_cure() {
        let at = |socket: &str, kind: io::ErrorKind| {
            Error::StoreUnavailable { sockets: vec![socket.into()], source: Some(kind.into()) }.to_string()
        };
        let closed = at("/no-such-directory-here/x/store.sock", io::ErrorKind::NotFound);
        assert!(closed.contains("private store") && closed.contains("mkdir -p /no-such"), "{closed}");
        let stale = at("/tmp/store.sock", io::ErrorKind::ConnectionRefused);
        assert!(stale.contains("left by one that has ended"), "{stale}");
        let silent = at("/tmp/store.sock", io::ErrorKind::TimedOut);
        assert!(silent.contains("says nothing"), "{silent}");
        let source = io::Error::new(io::ErrorKind::NotFound, SocketDeleted { store_pid: 7 });
        let deleted =
            Error::StoreUnavailable { sockets: vec!["/tmp/store.sock".into()], source: Some(source) };
        assert!(deleted.to_string().contains("was deleted"), "{deleted}");
        assert!(deleted.to_string().contains("process 7"), "{deleted}");
    }

    #[test]
    fn what_is_no_socket_is_named() {
        let there = |path: &str| {
            let source = Some(io::ErrorKind::ConnectionRefused.into());
            Error::StoreUnavailable { sockets: vec![path.into()], source }.to_string()
        };
        assert!(there("/").contains("a directory, and no socket"), "{}", there("/"));
        assert!(
            there("/proc/self/status").contains("a file, and no socket"),
            "{}",
            there("/proc/self/status")
        );
    }

    #[test]
    fn who_holds_a_lock_is_found_in_the_kernels_list() {
        let locks = "1: FLOCK  ADVISORY  WRITE 12 fd:00:77 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 13 fd:00:78 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 14 fd:00:78 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 15 fd:00:78 0 EOF\n";
        assert_eq!(holder_in(locks, "fd:00:78"), Some(15));
        assert_eq!(holder_in(locks, "fd:00:7"), None);
    }

    /// What `main` returns and `unwrap` finds is shown in the `Debug` form.
    #[test]
    fn an_error_that_nobody_handles_says_what_to_do() {
        let error = Error::StoreUnavailable { sockets: vec!["/a".into(), "/b".into()], source: None };
        let shown = format!("{error:?}");
        assert!(shown.starts_with("StoreUnavailable: no store answers at /a, nor at /b"), "{shown}");
        assert!(shown.ends_with("start one with: plasmon-store --size 1GiB"), "{shown}");
    }

    /// Nobody is told of something that his language does not have.
    #[test]
    fn the_cure_is_named_as_its_reader_knows_it() {
        let untrusted = Error::UntrustedStore { socket: "/tmp/s".into(), uid: 7 };
        assert!(untrusted.text_for(Reader::Rust).contains("trust_store_of"));
        assert!(untrusted.text_for(Reader::Python).contains("trust=[7]"));
        assert!(untrusted.text_for(Reader::CommandLine).contains("--trust-uid 7"));
        let codec = Error::Codec(CodecError::NotBool { index: 3, found: 7 });
        for reader in [Reader::Python, Reader::CommandLine] {
            assert!(!codec.text_for(reader).contains("::"), "{}", codec.text_for(reader));
        }
    }
}

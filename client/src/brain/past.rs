//! The past: versions of names that have ended, snapshots, and how to make them the present again.

use super::{Brain, listing::read_metadata};
#[cfg(doc)]
use crate::options::NamespaceOptions;
use crate::{
    connection::CallError,
    error::{Error, Result},
    object::{FromObject, Object},
    session::Session,
    view::View,
};
use plasmon_protocol::{
    id::ObjectId,
    message::{
        Change, DescribePast, DropSnapshot, EndHold, FindAt, History, ListAt, ListSnapshots, ListVersions,
        ListViews, MomentOf, Reason, SnapshotInfo, TakeSnapshot, ThenPage, VersionInfo, ViewInfo, When,
    },
    name::{Label, NAME_BYTES_MAX, Name, Namespace},
    object::Kind,
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// One version of a name: what it is bound to, or was.
///
/// # Examples
/// ```
/// use plasmon::{History, Reason};
///
/// let brain = plasmon::testing::brain()?;
/// brain.keep_history(Some(&History { versions: Some(10), age_ns: None, bytes: None }))?;
/// brain.learn("rate", &0.5)?;
/// brain.learn("rate", &0.25)?;
/// let versions = brain.history("rate")?;
/// assert!(versions[0].ended.is_none()); // the present one
/// assert_eq!(versions[1].ended.as_ref().map(|ended| ended.reason), Some(Reason::Rebound));
/// assert_eq!(brain.recall_version::<f64>("rate", versions[1].version)?, 0.5);
/// # Ok::<(), plasmon::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Version {
    /// Its number: that of the commit that made the binding.
    pub version: u64,
    /// The object's id.
    pub object_id: ObjectId,
    /// Length of the object, in bytes.
    pub len_bytes: u64,
    /// Kind of the value.
    pub kind: Kind,
    /// When the binding was made, by the clock of the store's machine.
    pub created: SystemTime,
    /// Process that wrote the bytes, as the store sees it.
    pub writer_pid: u32,
    /// Uid of that process, as the store sees it.
    pub writer_uid: u32,
    /// Process that made the binding, as the store sees it: another one for a copy, or a restored version.
    pub bound_by_pid: u32,
    /// Uid of that process, as the store sees it.
    pub bound_by_uid: u32,
    /// Its description, or nothing.
    pub description: String,
    /// The user's own metadata, a JSON object, or null.
    pub metadata: serde_json::Value,
    /// How it ended; `None` for what the name is bound to now.
    pub ended: Option<Ended>,
}

/// How a version ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ended {
    /// The number of the change that ended it.
    pub version: u64,
    /// Why it ended.
    pub reason: Reason,
    /// When, by this process's clock.
    pub at: SystemTime,
    /// Whether history keeps it; if not, only snapshots and views do.
    pub in_history: bool,
}

/// How two moments of a namespace differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Names that only the later one has.
    pub added: Vec<String>,
    /// Names that both have, bound anew in between.
    pub changed: Vec<String>,
    /// Names that only the earlier one has.
    pub removed: Vec<String>,
}

impl Brain {
    /// Declares what is kept of the versions of this namespace's names once they have ended; `None` keeps nothing, and drops
    /// what was kept. The namespace is registered if it is new. What [`declare`](Self::declare) said stays.
    ///
    /// # Errors
    /// [`Error::CacheHasNoPast`]; [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// use plasmon::History;
    ///
    /// let brain = plasmon::testing::brain()?;
    /// brain.keep_history(Some(&History { versions: Some(3), age_ns: None, bytes: None }))?;
    /// for number in 0..10 {
    ///     brain.learn("n", &number)?;
    /// }
    /// assert_eq!(brain.history("n")?.len(), 1 + 3);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn keep_history(&self, history: Option<&History>) -> Result<()> {
        let (namespace, history) = (self.namespace.clone(), history.cloned());
        self.batch()?.change(Change::DeclareHistory { namespace, history }).commit().map(drop)
    }

    /// What is kept of this namespace's past; `None` if it has no history.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub fn kept_history(&self) -> Result<Option<History>> {
        let describe = DescribePast { namespace: self.namespace.clone() };
        Ok(self.store.ask(&self.trust, &describe)?.history)
    }

    /// The versions of a name that history keeps, the present one first. Empty if there is none. One round trip for each
    /// 1,024.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::StoreUnavailable`].
    pub fn history(&self, name: &str) -> Result<Vec<Version>> {
        self.versions(name, false)
    }

    /// As [`history`](Self::history), with the versions that only snapshots and views keep.
    ///
    /// # Errors
    /// As [`history`](Self::history).
    pub fn all_versions(&self, name: &str) -> Result<Vec<Version>> {
        self.versions(name, true)
    }

    fn versions(&self, name: &str, all: bool) -> Result<Vec<Version>> {
        let name = Name::new(name)?;
        let (mut versions, mut below) = (Vec::<Version>::new(), 0);
        loop {
            let list = ListVersions { namespace: self.namespace.clone(), name: name.clone(), all, below };
            let page = self.store.ask(&self.trust, &list)?;
            versions.extend(page.versions.into_iter().map(Version::from));
            match versions.last() {
                Some(last) if page.more => below = last.version,
                _ => return Ok(versions),
            }
        }
    }

    /// Recalls a version of a name that is kept, or the present one. One round trip.
    ///
    /// # Errors
    /// [`Error::VersionNotKept`]; else as [`recall`](Self::recall).
    pub fn recall_version<T: FromObject>(&self, name: &str, version: u64) -> Result<T> {
        let object = self.find_at(name, &When::Version { version })?;
        match object.filter(|object| object.version() == version) {
            Some(object) => self.convert(name, object),
            None => Err(self.not_kept(name, version)),
        }
    }

    /// Recalls what a name was bound to at some time, by the clock of the store's machine: the last version that was made by
    /// then, unless that had ended by then. Two round trips.
    ///
    /// # Errors
    /// [`Error::NameNotFound`] if nothing was bound to the name then, or it is not kept; else as [`recall`](Self::recall).
    ///
    /// # Examples
    /// ```
    /// use plasmon::History;
    ///
    /// let brain = plasmon::testing::brain()?;
    /// brain.keep_history(Some(&History { versions: None, age_ns: None, bytes: None }))?;
    /// brain.learn("n", &1)?;
    /// let then = brain.history("n")?[0].created;
    /// brain.learn("n", &2)?;
    /// assert_eq!(brain.recall_as_of::<i64>("n", then)?, 1);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn recall_as_of<T: FromObject>(&self, name: &str, at: SystemTime) -> Result<T> {
        let version = self.version_as_of(name, at)?;
        self.recall_version(name, version)
    }

    /// The version that a name had at some time: see [`recall_as_of`](Self::recall_as_of).
    ///
    /// # Errors
    /// [`Error::NameNotFound`] if it had none that is kept.
    pub fn version_as_of(&self, name: &str, at: SystemTime) -> Result<u64> {
        // The order of versions decides, and not that of clocks: the first one, from the last one back, that was made by then.
        let then = self.all_versions(name)?.into_iter().find(|version| version.created <= at);
        let then = then.filter(|version| version.ended.as_ref().is_none_or(|ended| ended.at > at));
        then.map(|version| version.version).ok_or_else(|| self.not_found(name))
    }

    /// Binds a name to one of its versions that are kept, and returns the new binding's version. No bytes move.
    ///
    /// # Errors
    /// [`Error::VersionNotKept`], [`Error::BadName`], [`Error::OutcomeUnknown`].
    ///
    /// # Examples
    /// ```
    /// use plasmon::History;
    ///
    /// let brain = plasmon::testing::brain()?;
    /// brain.keep_history(Some(&History { versions: Some(5), age_ns: None, bytes: None }))?;
    /// let first = brain.learn("config", "good")?;
    /// brain.learn("config", "bad")?;
    /// brain.restore("config", first)?;
    /// assert_eq!(brain.recall::<String>("config")?, "good");
    /// brain.forget("config")?;
    /// brain.undelete("config")?;
    /// assert_eq!(brain.recall::<String>("config")?, "good");
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn restore(&self, name: &str, version: u64) -> Result<u64> {
        let kept = self.all_versions(name)?;
        if !kept.iter().any(|kept| kept.version == version) {
            return Err(self.not_kept(name, version));
        }
        self.batch()?.restore(name, version)?.commit()
    }

    /// Binds a name that is not bound to the last version that history keeps of it, and returns the new binding's version.
    ///
    /// # Errors
    /// [`Error::NameNotFound`] if history has none; [`Error::ConditionFailed`] if the name is bound.
    pub fn undelete(&self, name: &str) -> Result<u64> {
        let versions = self.history(name)?;
        let last = versions.first().ok_or_else(|| self.not_found(name))?;
        let absent = plasmon_protocol::message::Expect::Absent;
        self.batch()?.expect(name, absent)?.restore(name, last.version)?.commit()
    }

    /// Drops what history keeps of a name, at once. What the name is bound to stays, and so does what snapshots and views
    /// want of it.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// use plasmon::History;
    ///
    /// let brain = plasmon::testing::brain()?;
    /// brain.keep_history(Some(&History { versions: Some(5), age_ns: None, bytes: None }))?;
    /// brain.learn("secret", "hunter2")?;
    /// brain.forget("secret")?;
    /// assert_eq!(brain.deleted_names("")?, ["secret"]);
    /// brain.purge("secret")?;
    /// assert!(brain.deleted_names("")?.is_empty() && brain.history("secret")?.is_empty());
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn purge(&self, name: &str) -> Result<()> {
        let (namespace, name) = (self.namespace.clone(), Name::new(name)?);
        self.batch()?.change(Change::PurgeHistory { namespace, name }).commit().map(drop)
    }

    /// The names that begin with `prefix`, that are not bound, and that history has something of: what can be
    /// [undeleted](Self::undelete). In order.
    ///
    /// # Errors
    /// [`Error::NamespaceNotFound`].
    pub fn deleted_names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = self.list_at(None, prefix, |page| self.store.ask(&self.trust, page))?;
        Ok(names.into_keys().collect())
    }

    /// Keeps this moment of this namespace under a label, until [`drop_snapshot`](Self::drop_snapshot). Costs the same for
    /// ten names and for a million; what is learned and forgotten later takes room for as long as the snapshot needs what was
    /// there before. Returns the moment: the number of the last change that it shows. Blocks until no commit is under way.
    ///
    /// # Errors
    /// [`Error::SnapshotExists`], [`Error::BadName`] for the label (1 to 64 ASCII letters, digits, `_`, `.` and `-`),
    /// [`Error::NamespaceNotFound`], [`Error::CacheHasNoPast`].
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("a", &1)?;
    /// brain.snapshot("before")?;
    /// brain.learn("a", &2)?;
    /// assert_eq!(brain.at("before")?.recall::<i64>("a")?, 1);
    /// brain.restore_snapshot("before")?;
    /// assert_eq!(brain.recall::<i64>("a")?, 1);
    /// brain.drop_snapshot("before")?;
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn snapshot(&self, label: &str) -> Result<u64> {
        self.snapshot_of(label, &[&self.namespace])
    }

    /// As [`snapshot`](Self::snapshot), of several namespaces at one moment: 1 to 1,024.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot).
    pub fn snapshot_of(&self, label: &str, namespaces: &[&str]) -> Result<u64> {
        let namespaces = namespaces.iter().map(|namespace| Namespace::new(namespace));
        let take =
            TakeSnapshot { label: Label::new(label)?, namespaces: namespaces.collect::<Result<_, _>>()? };
        let session = self.session()?;
        match session.call(&take) {
            Ok(taken) => Ok(taken.moment),
            Err(CallError::Lost { sent: false, .. }) => {
                session.lose();
                let session = self.session()?;
                session.call(&take).map(|taken| taken.moment).map_err(|error| session.explain(error))
            }
            Err(error) => Err(session.explain(error)),
        }
    }

    /// All snapshots of the store, in order of their labels.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        let mut snapshots: Vec<SnapshotInfo> = Vec::new();
        loop {
            let after = snapshots.last().map(|last| last.label.clone());
            let page = self.store.ask(&self.trust, &ListSnapshots { after })?;
            let is_last = !page.more || page.snapshots.is_empty();
            snapshots.extend(page.snapshots);
            if is_last {
                return Ok(snapshots);
            }
        }
    }

    /// Drops a snapshot. What only it kept is free as soon as the store has looked at it; views that show it keep what they
    /// need.
    ///
    /// # Errors
    /// [`Error::SnapshotNotFound`].
    pub fn drop_snapshot(&self, label: &str) -> Result<()> {
        self.store.ask(&self.trust, &DropSnapshot { label: Label::new(label)? }).map(drop)
    }

    /// Makes every name of this namespace what it was at a snapshot, at one moment, and returns that change's version. Names
    /// that were not bound then are unbound. No bytes move.
    ///
    /// # Errors
    /// [`Error::SnapshotNotFound`] if there is none with this label, or this namespace is none of its;
    /// [`Error::TooManyKept`].
    pub fn restore_snapshot(&self, label: &str) -> Result<u64> {
        let (namespace, label) = (self.namespace.clone(), Label::new(label)?);
        self.batch()?.change(Change::RestoreNamespace { namespace, label }).commit()
    }

    /// As [`restore_snapshot`](Self::restore_snapshot), of some names only: what was not bound then is unbound. All at one
    /// moment.
    ///
    /// # Errors
    /// As [`restore_snapshot`](Self::restore_snapshot).
    pub fn restore_names(&self, label: &str, names: &[&str]) -> Result<u64> {
        let view = self.at(label)?;
        let mut batch = self.batch()?;
        for name in names {
            batch = match view.version(name)? {
                Some(_) => batch.restore(name, view.moment())?,
                None => batch.forget(name)?,
            };
        }
        batch.commit()
    }

    /// How this namespace differs between a snapshot and another one, or now. Costs a look at each name of both.
    ///
    /// # Errors
    /// [`Error::SnapshotNotFound`].
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("stays", &1)?;
    /// brain.learn("goes", &1)?;
    /// brain.snapshot("then")?;
    /// brain.forget("goes")?;
    /// brain.learn("comes", &1)?;
    /// let diff = brain.diff("then", None)?;
    /// assert_eq!((diff.added, diff.changed, diff.removed), (vec!["comes".into()], vec![], vec!["goes".into()]));
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn diff(&self, label: &str, other: Option<&str>) -> Result<Diff> {
        let (before, after) = (self.at(label)?, other.map_or_else(|| self.view(), |label| self.at(label))?);
        let (before, after) = (before.versions("")?, after.versions("")?);
        let mut diff = Diff::default();
        for (name, then) in &before {
            match after.get(name) {
                None => diff.removed.push(name.clone()),
                Some(now) if now.version != then.version && now.object_id != then.object_id => {
                    diff.changed.push(name.clone());
                }
                Some(_) => {}
            }
        }
        diff.added.extend(after.into_keys().filter(|name| !before.contains_key(name)));
        Ok(diff)
    }

    /// Begins a view of the moment that is now: all namespaces as they are, whatever happens to them. It ends when it is
    /// dropped. Blocks until no commit is under way.
    ///
    /// # Errors
    /// [`Error::TooMany`] for more than 1,024 views of this process, [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.learn("a", &1)?;
    /// let view = brain.view()?;
    /// brain.learn("a", &2)?;
    /// brain.learn("b", &2)?;
    /// assert_eq!(view.recall::<i64>("a")?, 1);
    /// assert!(!view.exists("b")?);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn view(&self) -> Result<View> {
        View::begin(self, MomentOf::Now)
    }

    /// Begins a view of a snapshot. It shows the snapshot's namespaces, also when the snapshot is dropped meanwhile.
    ///
    /// # Errors
    /// [`Error::SnapshotNotFound`]; else as [`view`](Self::view).
    pub fn at(&self, label: &str) -> Result<View> {
        View::begin(self, MomentOf::Snapshot { label: Label::new(label)? })
    }

    /// Begins a view of a moment that a view of another process holds: two processes can look at the same moment.
    ///
    /// # Errors
    /// [`Error::ViewEnded`] if nobody holds that moment of all namespaces; else as [`view`](Self::view).
    pub fn view_of(&self, moment: u64) -> Result<View> {
        View::begin(self, MomentOf::Held { moment })
    }

    /// All views of the store's clients, the one that began first coming first.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub fn views(&self) -> Result<Vec<ViewInfo>> {
        let mut views: Vec<ViewInfo> = Vec::new();
        loop {
            let after = views.last().map_or(0, |last| last.view);
            let page = self.store.ask(&self.trust, &ListViews { after })?;
            let is_last = !page.more || page.views.is_empty();
            views.extend(page.views);
            if is_last {
                return Ok(views);
            }
        }
    }

    /// Ends a view, of any process: for the store's own user and root. Whoever looks through it gets
    /// [`Error::ViewEnded`].
    ///
    /// # Errors
    /// [`Error::ViewEnded`] if there is no such view, [`Error::NotAdmitted`].
    pub fn end_view(&self, view: u64) -> Result<()> {
        self.store.ask(&self.trust, &EndHold { view }).map(drop)
    }

    /// What a name was bound to: the store looks it up, and pins it.
    fn find_at(&self, name: &str, at: &When) -> Result<Option<Object>> {
        let name = Name::new(name)?;
        self.store.retry(&self.trust, |session| self.find_at_in(session, &name, at))
    }

    /// As [`find_at`](Self::find_at), asking for this session.
    pub(crate) fn find_at_in(
        &self,
        session: &Arc<Session>,
        name: &Name,
        at: &When,
    ) -> Result<Option<Object>, CallError> {
        self.find_pinned(session, |slot| FindAt {
            namespace: self.namespace.clone(),
            name: name.clone(),
            at: at.clone(),
            slot,
        })
    }

    /// What the names were bound to that begin with `prefix`, by name. `ask` asks for a page.
    pub(crate) fn list_at(
        &self,
        at: Option<&When>,
        prefix: &str,
        ask: impl Fn(&ListAt) -> Result<ThenPage>,
    ) -> Result<BTreeMap<String, Version>> {
        let (mut versions, mut after) = (BTreeMap::new(), None);
        if prefix.len() > NAME_BYTES_MAX {
            return Ok(versions); // no name is that long
        }
        loop {
            let (namespace, prefix) = (self.namespace.clone(), prefix.to_owned());
            let page = ask(&ListAt { namespace, at: at.cloned(), prefix, after })?;
            versions.extend(page.names.into_iter().map(|then| (then.name.to_string(), then.version.into())));
            after = page.next;
            if after.is_none() {
                return Ok(versions);
            }
        }
    }

    #[cold]
    fn not_kept(&self, name: &str, version: u64) -> Error {
        let (namespace, name) = (self.namespace.to_string(), name.to_owned());
        Error::VersionNotKept { namespace, name, version }
    }
}

impl From<VersionInfo> for Version {
    fn from(info: VersionInfo) -> Version {
        let ended = info.ended.map(|ended| {
            let at = SystemTime::now().checked_sub(Duration::from_nanos(ended.ago_ns));
            Ended {
                version: ended.version,
                reason: ended.reason,
                at: at.unwrap_or(SystemTime::UNIX_EPOCH),
                in_history: ended.in_history,
            }
        });
        Version {
            version: info.version,
            object_id: ObjectId::from_bytes(info.object_id),
            len_bytes: info.len_bytes,
            kind: info.kind,
            created: SystemTime::UNIX_EPOCH + Duration::from_nanos(info.created_ns),
            writer_pid: info.writer_pid,
            writer_uid: info.writer_uid,
            bound_by_pid: info.bound_by_pid,
            bound_by_uid: info.bound_by_uid,
            description: info.description,
            metadata: read_metadata(&info.metadata),
            ended,
        }
    }
}

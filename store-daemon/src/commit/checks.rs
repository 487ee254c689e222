//! Checks before a commit changes anything: behind them nothing fails any more.
//!
//! `CommitJob::work` runs this stage first when the commit's turn comes.

use super::{
    Announcing, Extents, Ids, Lists, Refused, Stage, Step, Why, Workbench,
    apply::Applying,
    restore::{Restored, moment_of, restored},
    sources::{Sharing, Source},
};
use crate::{
    catalog::{Catalog, Record, Then},
    slice::Slice,
};
use plasmon_protocol::{
    id::{NameId, NamespacePrefix},
    index_of, limits,
    message::{
        Bind, Change, Committed, Condition, Expect, FailedCondition, Failure, History, Lives, Payload,
        SameAs, Ttl,
    },
    name::{Name, Namespace},
    object::{Flags, Header},
};
use plasmon_shm::{FaultPoint, fault_point};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet, btree_map::Entry},
    sync::Arc,
};

/// The conditions are held against the catalog. From here it is the commit's turn.
#[derive(Debug)]
pub(super) struct CheckingConditions {
    lists: Box<Lists>,
    extents: Extents,
    /// When its turn came, by CLOCK_BOOTTIME: what has expired by then is absent to it.
    moment_ns: u64,
    /// Those that do not hold, if there are some.
    failed: Option<Box<FailedConditions>>,
}

/// The changes are held against the catalog, and against each other.
#[derive(Debug)]
pub(super) struct CheckingChanges {
    lists: Box<Lists>,
    extents: Extents,
    moment_ns: u64,
    checks: Checks,
    ids: Ids,
    /// A change that takes longer than an entry, and how far that is.
    restoring: Option<Box<Restoring>>,
}

/// Conditions that do not hold: the first ones, and how many there are.
#[derive(Debug, Default)]
struct FailedConditions {
    first: Vec<FailedCondition>,
    count: u64,
}

impl CheckingConditions {
    pub(super) fn begin(mut lists: Box<Lists>, extents: Extents, moment_ns: u64) -> Self {
        lists.conditions.rewind();
        CheckingConditions { lists, extents, moment_ns, failed: None }
    }

    pub(super) fn into_extents(self) -> Extents {
        self.extents
    }

    #[inline]
    pub(super) fn run(
        mut self,
        bench: &Workbench<'_>,
        unbinds: bool,
        as_of_ns: Option<u64>,
        slice: &mut Slice,
    ) -> Result<Step, Box<Refused>> {
        while slice.spend() {
            let Some(condition) = self.lists.conditions.again() else { return self.end(unbinds) };
            let Condition { namespace, name, expect } = &*condition;
            let expect = expect.clone();
            let found = match expect {
                Expect::NamespaceUnchanged { since } => {
                    if bench.catalog.next_expiry().is_some_and(|at| at <= as_of_ns.unwrap_or(self.moment_ns))
                    {
                        return Err(self.refuse(Why::Expired));
                    }
                    bench.catalog.check_unchanged(namespace, since).map_err(Some)
                }
                _ => check_condition(bench.catalog, &condition, self.moment_ns),
            };
            if let Err(found) = found {
                let failed = self.failed.get_or_insert_default();
                failed.count += 1;
                if failed.first.len() < index_of(limits::FAILED_CONDITIONS_MAX.into()) {
                    let (namespace, name) = (namespace.clone(), name.clone());
                    failed.first.push(FailedCondition { namespace, name, expect, found });
                }
            }
        }
        Ok(Step::NoTime(Stage::CheckingConditions(self)))
    }

    /// Either all of them hold, or the commit does not happen.
    #[inline]
    fn end(mut self, unbinds: bool) -> Result<Step, Box<Refused>> {
        let Some(FailedConditions { mut first, count }) = self.failed.take().map(|failed| *failed) else {
            let CheckingConditions { lists, extents, moment_ns, .. } = self;
            let checking = CheckingChanges::begin(lists, extents, moment_ns, unbinds);
            return Ok(Step::Next(Stage::CheckingChanges(Box::new(checking))));
        };
        let failure = match first.pop() {
            Some(FailedCondition { namespace, name, expect, found }) if count == 1 => {
                Failure::ConditionFailed { namespace, name, expect, found }
            }
            last => {
                first.extend(last);
                let more = count - first.len() as u64;
                Failure::ConditionsFailed { failed: first, more }
            }
        };
        Err(self.refuse(Why::Failure(failure)))
    }

    fn refuse(self, why: Why) -> Box<Refused> {
        Box::new(Refused { lists: self.lists, extents: self.extents, why })
    }
}

impl CheckingChanges {
    pub(super) fn begin(mut lists: Box<Lists>, extents: Extents, moment_ns: u64, unbinds: bool) -> Self {
        lists.changes.rewind();
        // The set is never moved, because that would take long.
        let touched = HashSet::with_capacity(extents.len());
        let checks = Checks { touched, empties: unbinds, ..Checks::default() };
        CheckingChanges { lists, extents, moment_ns, checks, ids: Ids::default(), restoring: None }
    }

    pub(super) fn into_extents(self) -> Extents {
        self.extents
    }

    #[inline]
    pub(super) fn run(
        mut self: Box<Self>,
        bench: &mut Workbench<'_>,
        unbinds: bool,
        is_own: bool,
        slice: &mut Slice,
    ) -> Result<Step, Box<Refused>> {
        while slice.spend() {
            if let Some(restoring) = self.restoring.take() {
                self.restoring = self.checks.restore_name(bench.catalog, restoring, self.moment_ns);
                continue;
            }
            let Some(change) = self.lists.changes.again() else {
                return self.end(bench, unbinds, is_own);
            };
            if let Change::RestoreNamespace { .. } = &*change {
                self.restoring = Some(Box::new(Restoring { change: Arc::clone(&change), after: None }));
            }
            let at = self.lists.changes.at() - 1;
            match self.checks.add(bench.catalog, &self.extents, at, &change, self.moment_ns) {
                Ok(id) if self.lists.changes.is_kept() => self.ids.0.push(id),
                Ok(_) => {}
                Err(failure) => return Err(self.refuse(Why::Failure(failure))),
            }
        }
        Ok(Step::NoTime(Stage::CheckingChanges(self)))
    }

    /// The last check, over all changes together; behind it nothing fails any more.
    fn end(
        self: Box<Self>,
        bench: &mut Workbench<'_>,
        unbinds: bool,
        is_own: bool,
    ) -> Result<Step, Box<Refused>> {
        if let Err(why) = self.checks.check_room(bench.catalog, is_own) {
            return Err(self.refuse(why));
        }
        let CheckingChanges { lists, extents, moment_ns, checks, ids, .. } = *self;
        if lists.changes.claimed() == 0 {
            let committed = Committed { version: bench.versions.last, unbound: 0, unbound_bytes: 0 };
            let changed_waited = Vec::new();
            return Ok(Step::Next(Stage::Announcing(Announcing { lists, ids, committed, changed_waited })));
        }
        let applying = Applying::begin(bench, lists, extents, ids, moment_ns)
            .of_several_names(bench, checks.names() > 1)
            .unbinding_first(unbinds)
            .sharing(checks.sharing);
        fault_point(FaultPoint::CommitBegun);
        Ok(Step::Next(Stage::Applying(Box::new(applying))))
    }

    fn refuse(self: Box<Self>, why: Why) -> Box<Refused> {
        Box::new(Refused { lists: self.lists, extents: self.extents, why })
    }
}

/// What checking has gathered.
#[derive(Debug, Default)]
struct Checks {
    touched: HashSet<NameId>,
    /// Whether a change may empty a namespace: only then [`changed_in`](Self::changed_in) is kept.
    empties: bool,
    emptied: BTreeSet<Namespace>,
    /// Namespaces of names that are changed, and the first such name of each.
    changed_in: BTreeMap<Namespace, Name>,
    /// Namespaces that this commit makes.
    new_namespaces: BTreeMap<NamespacePrefix, Namespace>,
    /// The last of them: the next change is mostly in it, too.
    last_new_namespace: Option<Namespace>,
    new_names: u64,
    /// Bytes of new descriptions and metadata, and of those that they replace.
    longer_bytes: u64,
    shorter_bytes: u64,
    /// Names that are unbound one by one.
    unbound_names: u64,
    /// Names that go with all others of their namespace.
    emptied_names: u64,
    /// What names get whose changes bring nothing of their own.
    sharing: Option<Box<Sharing>>,
    /// What touches the past, if anything does.
    past: Option<Box<PastChecks>>,
}

/// What checking has gathered of the past.
#[derive(Debug, Default)]
struct PastChecks {
    /// Bindings that would end, and that the past would keep; and the first namespace that has some.
    kept: u64,
    kept_in: Option<Namespace>,
    /// Names that are restored, or unbound because they were not bound then.
    restored_names: u64,
    /// Namespaces that become caches, and those that get a history.
    caches: BTreeSet<Namespace>,
    histories: BTreeSet<Namespace>,
}

/// A namespace that is being restored, and the name that the last look was at.
#[derive(Debug)]
struct Restoring {
    change: Arc<Change>,
    after: Option<Arc<str>>,
}

impl Checks {
    /// Names that are changed, with those that go with their namespace.
    fn names(&self) -> u64 {
        let restored_names = self.past.as_ref().map_or(0, |past| past.restored_names);
        self.touched.len() as u64 + self.emptied_names + restored_names
    }

    /// Whether the catalog has room for all changes together, of a writer whose uid is the store's own or root, or is not.
    fn check_room(&self, catalog: &Catalog, is_own: bool) -> Result<(), Why> {
        let room = catalog.room() + self.unbound_names + self.emptied_names;
        if self.new_names > room {
            return Err(Why::NoEntries(self.new_names - room));
        }
        let too_many = |what: &str, limit| Why::Failure(Failure::TooMany { what: what.to_owned(), limit });
        let namespaces = catalog.check_namespaces(self.new_namespaces.len() as u64, is_own);
        namespaces.map_err(|limit| too_many("namespaces (--max-namespaces)", limit))?;
        let texts = catalog.check_texts(self.longer_bytes, self.shorter_bytes, is_own);
        texts.map_err(|limit| too_many("bytes of descriptions and metadata (--max-text-bytes)", limit))?;
        let Some(PastChecks { kept: requested, kept_in: Some(namespace), .. }) = self.past.as_deref() else {
            return Ok(());
        };
        let ((kept, limit), requested) = (catalog.past.len_and_max(), *requested);
        if requested <= limit.saturating_sub(kept) {
            return Ok(());
        }
        let namespace = namespace.clone();
        Err(Why::Failure(Failure::TooManyKept { namespace, requested, kept, limit }))
    }

    /// A binding would end. Returns whether the past would not keep it.
    fn end_binding(
        &mut self,
        catalog: &Catalog,
        namespace: &Namespace,
        (number, record): (u32, &Record),
    ) -> bool {
        let kept = catalog.keeps(number, record);
        self.keep(namespace, kept);
        kept == 0
    }

    fn keep(&mut self, namespace: &Namespace, kept: u64) {
        if kept > 0 {
            let past = self.past.get_or_insert_default();
            past.kept += kept;
            past.kept_in.get_or_insert_with(|| namespace.clone());
        }
    }

    /// The next name of a namespace is restored. Returns where that goes on.
    fn restore_name(
        &mut self,
        catalog: &Catalog,
        mut restoring: Box<Restoring>,
        now_ns: u64,
    ) -> Option<Box<Restoring>> {
        let change = Arc::clone(&restoring.change);
        let Change::RestoreNamespace { namespace, label } = &*change else { return None };
        let moment = moment_of(catalog, namespace, label).ok()?;
        let name = catalog.next_name(namespace, restoring.after.as_deref())?;
        let linked = catalog.namespace(namespace).and_then(|id| catalog.linked(id, &name));
        match restored(catalog, namespace, &name, moment, now_ns) {
            Restored::Stays => {}
            Restored::Unbound => {
                self.past.get_or_insert_default().restored_names += 1;
                if let Some(linked) = linked {
                    self.end_binding(catalog, namespace, linked);
                }
            }
            Restored::Bound(source) => {
                self.past.get_or_insert_default().restored_names += 1;
                self.new_names += u64::from(linked.is_none());
                self.longer_bytes += (source.description.len() + source.metadata.len()) as u64;
                if let Some(linked) = linked {
                    self.end_binding(catalog, namespace, linked);
                }
            }
        }
        restoring.after = Some(name);
        Some(restoring)
    }

    /// Checks change number `at` against the catalog, and against the changes before it, which have these extents. Returns
    /// the id of a name that it binds.
    fn add(
        &mut self,
        catalog: &Catalog,
        extents: &Extents,
        at: usize,
        change: &Change,
        now_ns: u64,
    ) -> Result<Option<NameId>, Failure> {
        match change {
            Change::Bind(bind) | Change::BindEphemeral(bind) | Change::Replace(bind) => {
                let Bind { namespace, name, header, description, metadata, ttl, payload } = bind;
                check_ttl(ttl.as_ref())?;
                check_header(name, header, payload)?;
                if let Payload::AsChange { index } = payload {
                    check_reference(name, extents, at, *index)?;
                    self.sharing.get_or_insert_default().refers = true;
                }
                let texts = [description.as_deref(), metadata.as_deref()];
                return self.bind(catalog, namespace, name, texts).map(Some);
            }
            Change::SameAs(same) => {
                let SameAs { namespace, name, description, metadata, lives, .. } = same;
                if let Lives::For(ttl) = lives {
                    check_ttl(Some(ttl))?;
                }
                let source = source_of(catalog, same, now_ns)?;
                let description = description.as_deref().unwrap_or(&source.description);
                let metadata = metadata.as_deref().unwrap_or(&source.metadata);
                let id = self.bind(catalog, namespace, name, [Some(description), Some(metadata)])?;
                self.sharing.get_or_insert_default().sources.push(source);
                return Ok(Some(id));
            }
            Change::Unbind { namespace, name } => {
                self.touch(namespace, name)?;
                let linked = catalog.namespace(namespace).and_then(|id| catalog.linked(id, name));
                if let Some(linked) = linked {
                    self.unbound_names += 1;
                    self.end_binding(catalog, namespace, linked);
                }
            }
            Change::RestoreNamespace { namespace, label } => {
                moment_of(catalog, namespace, label)?;
                self.register(catalog, namespace)?;
                self.empty(namespace)?;
            }
            Change::PurgeHistory { .. } => {}
            Change::DeclareHistory { namespace, history } => {
                let is_zero = |history: &History| history.versions == Some(0) || history.age_ns == Some(0);
                if history.as_ref().is_some_and(is_zero) {
                    let reason = "a history has at least 1 version, and an age of at least 1 ns".to_owned();
                    return Err(Failure::Malformed { reason });
                }
                self.register(catalog, namespace)?;
                if history.is_some() {
                    self.past.get_or_insert_default().histories.insert(namespace.clone());
                    self.check_past(catalog.is_cache(namespace), namespace)?;
                }
            }
            Change::RemoveNamespace { namespace } | Change::RemoveEmptyNamespace { namespace }
                if **namespace == *Namespace::DEFAULT =>
            {
                return Err(Failure::DefaultNamespace);
            }
            Change::RemoveNamespace { namespace }
            | Change::RemoveEmptyNamespace { namespace }
            | Change::ClearNamespace { namespace } => {
                let unknown = || Failure::UnknownNamespace { namespace: namespace.clone() };
                let id = catalog.namespace(namespace).ok_or_else(unknown)?;
                if matches!(change, Change::RemoveEmptyNamespace { .. }) {
                    let names = catalog.living_names_in(id, now_ns);
                    if names > 0 {
                        return Err(Failure::NamespaceInUse { namespace: namespace.clone(), names });
                    }
                }
                if self.empty(namespace)? {
                    self.emptied_names += catalog.names_in(id);
                    let is_removed = !matches!(change, Change::ClearNamespace { .. });
                    self.keep(namespace, catalog.keeps_all(id, is_removed));
                }
            }
            Change::RegisterNamespace { namespace } => self.register(catalog, namespace)?,
            Change::EnsureCache { namespace } => {
                self.register(catalog, namespace)?;
                self.past.get_or_insert_default().caches.insert(namespace.clone());
                self.check_past(catalog.past.is_kept(namespace), namespace)?;
            }
            Change::DeclareNamespace { namespace, ttl, is_cache } => {
                check_ttl(ttl.as_ref())?;
                self.register(catalog, namespace)?;
                if *is_cache {
                    self.past.get_or_insert_default().caches.insert(namespace.clone());
                    self.check_past(catalog.past.is_kept(namespace), namespace)?;
                }
            }
        }
        Ok(None)
    }

    /// The names of `namespace` go or are restored, and none of them is changed besides. Returns whether that is new.
    fn empty(&mut self, namespace: &Namespace) -> Result<bool, Failure> {
        match self.changed_in.get(namespace) {
            Some(name) => Err(Failure::NamedTwice { namespace: namespace.clone(), name: name.clone() }),
            None => Ok(self.emptied.insert(namespace.clone())),
        }
    }

    /// A cache has neither history nor snapshots, also after this commit.
    fn check_past(&self, is_both: bool, namespace: &Namespace) -> Result<(), Failure> {
        let is_said =
            |past: &PastChecks| past.caches.contains(namespace) && past.histories.contains(namespace);
        let is_both = is_both || self.past.as_deref().is_some_and(is_said);
        if is_both { Err(Failure::CacheHasNoPast { namespace: namespace.clone() }) } else { Ok(()) }
    }

    /// `name` will be bound, with these texts: description and metadata. Returns its id.
    #[inline]
    fn bind(
        &mut self,
        catalog: &Catalog,
        namespace: &Namespace,
        name: &Name,
        texts: [Option<&str>; 2],
    ) -> Result<NameId, Failure> {
        let id = self.touch(namespace, name)?;
        self.register(catalog, namespace)?;
        let known = catalog
            .check_id(&id, name)
            .map_err(|taken| Failure::IdTaken { wanted: name.to_string(), holder: taken.holder })?;
        self.new_names += u64::from(known.is_none());
        let goes = known.filter(|&known| self.end_binding(catalog, namespace, known));
        let before = goes.map(|(_, record)| [&record.description, &record.metadata]);
        for (at, new) in texts.into_iter().enumerate() {
            if let Some(new) = new {
                self.longer_bytes += new.len() as u64;
                self.shorter_bytes += before.map_or(0, |before| before[at].len() as u64);
            }
        }
        Ok(id)
    }

    /// `name` is changed: once, and not beside the removal of its namespace. Returns its id.
    fn touch(&mut self, namespace: &Namespace, name: &Name) -> Result<NameId, Failure> {
        let id = NameId::new(namespace, name);
        let new = self.touched.insert(id);
        if !new || self.emptied.contains(namespace) {
            return Err(Failure::NamedTwice { namespace: namespace.clone(), name: name.clone() });
        }
        if self.empties && !self.changed_in.contains_key(namespace) {
            self.changed_in.insert(namespace.clone(), name.clone());
        }
        Ok(id)
    }

    /// `namespace` will exist after this commit: no other one, in the catalog or in this commit, may have its prefix.
    fn register(&mut self, catalog: &Catalog, namespace: &Namespace) -> Result<(), Failure> {
        let is_last = self.last_new_namespace.as_ref() == Some(namespace);
        if is_last || catalog.namespace(namespace).is_some() {
            return Ok(());
        }
        let taken = |holder: String| Failure::IdTaken { wanted: namespace.to_string(), holder };
        catalog.check_prefix(namespace).map_err(|error| taken(error.holder))?;
        match self.new_namespaces.entry(NamespacePrefix::new(namespace)) {
            Entry::Occupied(known) if known.get() != namespace => {
                return Err(taken(known.get().to_string()));
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(unknown) => {
                unknown.insert(namespace.clone());
            }
        }
        self.last_new_namespace = Some(namespace.clone());
        Ok(())
    }
}

/// A value stands in the header, or it has bytes: never both.
fn check_header(name: &Name, header: &Header, payload: &Payload) -> Result<(), Failure> {
    let claims = header.flags.has(Flags::INLINE);
    let reason = match payload {
        Payload::InHeader if !claims => "has no bytes, and no value in its header",
        Payload::InHeader if header.inline().is_none() => {
            "claims a value in its header of more than 32 bytes"
        }
        Payload::Inline { .. } | Payload::Leased { .. } | Payload::AsChange { .. } if claims => {
            "has bytes, and a value in its header"
        }
        _ => return Ok(()),
    };
    Err(Failure::Malformed { reason: format!("the object for {name:?} {reason}") })
}

/// Change number `at` gets the object of change number `index`: an earlier one, which brings bytes.
fn check_reference(name: &Name, extents: &Extents, at: usize, index: u32) -> Result<(), Failure> {
    let index = index_of(index.into());
    if index < at && extents.get(index).is_some_and(Option::is_some) {
        return Ok(());
    }
    let reason = format!(
        "{name:?} is to have the object of change {index}, which is no earlier one that brings bytes"
    );
    Err(Failure::Malformed { reason })
}

/// The binding whose object another name is to have.
fn source_of(catalog: &Catalog, same: &SameAs, now_ns: u64) -> Result<Source, Failure> {
    let SameAs { of_namespace, of_name, at, .. } = same;
    let found = match *at {
        None => catalog.find(of_namespace, of_name, now_ns).map(|(_, record)| Source::of(record)),
        Some(version) => catalog.find_at(of_namespace, of_name, version, now_ns).map(|then| match then {
            Then::Now(record) if record.entry.has_expired(now_ns) => Source::of(record).without_end(),
            Then::Now(record) => Source::of(record),
            Then::Kept(kept) => Source::of_kept(kept),
        }),
    };
    let not_bound = || Failure::NotBound { namespace: of_namespace.clone(), name: of_name.clone() };
    found.ok_or_else(not_bound)
}

fn check_ttl(ttl: Option<&Ttl>) -> Result<(), Failure> {
    match ttl {
        Some(Ttl { ttl_ns: 0, .. }) => {
            Err(Failure::Malformed { reason: "a time to live is at least 1 ns, and this is 0".to_owned() })
        }
        _ => Ok(()),
    }
}

/// Returns what was found instead.
fn check_condition(catalog: &Catalog, condition: &Condition, now_ns: u64) -> Result<(), Option<u64>> {
    let Condition { namespace, name, expect } = condition;
    let found = catalog.find(namespace, name, now_ns).map(|(_, record)| record.entry.version);
    let holds = match expect {
        Expect::Absent => found.is_none(),
        Expect::Present => found.is_some(),
        Expect::Version { version } => found == Some(*version),
        Expect::NamespaceUnchanged { .. } => true,
    };
    if holds { Ok(()) } else { Err(found) }
}

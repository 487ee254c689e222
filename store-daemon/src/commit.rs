//! One commit on its way: it is read, its room is taken, then it waits its turn, and then it happens or it does not.
//!
//! A commit at the head of the queue is the only one that changes the catalog, so its checks hold until it is done,
//! even where it is worked off in slices. After the checks nothing can fail.
//!
//! Whatever takes time for each change is done change by change, in slices, from the first look at the bytes to
//! giving back the room of a commit that fails. A short list is decoded once; a long one is never decoded as a whole:
//! each stage reads it anew, from memory that only the daemon has. That costs less than to keep a million decoded
//! changes, and to free them.

use crate::{
    allocator::{Extent, GRANULE_BYTES, Room},
    catalog::{Catalog, NamespaceId, NewBinding, realtime_ns},
    copy::Run,
    objects::Objects,
    parked::{Parked, ReplyTo, Tried},
    session::SessionId,
    slice::Slice,
    space::{LeaseId, PieceError, Space},
    state::Versions,
};
use bytes::Bytes;
use plasmon_protocol::{
    codec::{BoundedList, Codec, DecodeError, ListReader},
    id::{NameId, NamespacePrefix},
    index::{self, NO_EXTENT},
    limits,
    message::{Bind, Change, Commit, Committed, Condition, Expect, Failure, Payload, Ttl},
    name::{NAMESPACE_BYTES_MIN, Name, Namespace},
    object::{Flags, Header},
};
use plasmon_shm::{FaultPoint, Region, fault_point};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque, btree_map::Entry},
    sync::Arc,
};

/// Who asked for a commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer {
    pub(crate) session: SessionId,
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    /// Whether the uid is the store's own or root.
    pub(crate) is_own: bool,
}

/// What the daemon lends to a commit while it works.
pub(crate) struct Workbench<'a> {
    pub(crate) catalog: &'a mut Catalog,
    pub(crate) objects: &'a mut Objects,
    pub(crate) space: &'a mut Space,
    pub(crate) arena: &'a Region,
    pub(crate) versions: &'a mut Versions,
    /// CLOCK_BOOTTIME now, in nanoseconds.
    pub(crate) now_ns: u64,
    /// Knows which names somebody waits for.
    pub(crate) parked: &'a Parked,
    /// Random, and other in every store.
    pub(crate) uuid_seed: [u8; 16],
}

/// How far a commit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Finding out whether it can be read.
    ReadConditions,
    ReadChanges,
    /// Taking room for payloads: extents for those that came in the message, pieces of leases for the others. What
    /// came in the message is written at once, if its pages are there.
    Place,
    /// Writing the rest of what came in the message.
    Write,
    /// Checking conditions and changes: from here it is the commit's turn.
    CheckConditions,
    CheckChanges,
    /// Left out if there is nothing to unbind.
    Unbind,
    /// Registering and binding.
    Bind,
    /// All of it is visible: those who wait for its names are told.
    Announce,
    /// It will not happen, and gives back its room.
    Abandon,
}

/// What a slice of preparing came to.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// There is more to do.
    More,
    /// A payload finds no room. Preparing goes on with that payload, when there may be some.
    NoRoom,
    /// It has its room, of which these steps of the arena must be populated before anything is written.
    Placed { missing: VecDeque<usize> },
    /// It can take its turn.
    Ready,
    /// It is over, and everything is as it was.
    Failed(Failure),
}

/// What a slice of work came to.
#[derive(Debug)]
pub(crate) enum Worked {
    /// There is more to do.
    More,
    /// All of it is visible.
    Done,
    /// It cannot happen. Nothing has changed; its room must be given back.
    Failed(Failure),
}

/// A list of the commit, which every stage goes through anew.
#[derive(Debug)]
struct Entries<T> {
    start: ListReader<T>,
    next: ListReader<T>,
    /// The entries as far as they were read, if the list is short.
    kept: Option<Vec<Arc<T>>>,
}

/// Lists of at most so many entries are decoded once.
const KEPT_ENTRIES_MAX: usize = 1_024;

/// No entry of a commit is shorter: a change with the shortest namespace, and nothing besides.
const ENTRY_BYTES_MIN: usize = 1 + 4 + NAMESPACE_BYTES_MIN;

/// Whether a list that claims so many entries is decoded once.
fn is_short(claimed: usize, body_bytes: usize) -> bool {
    claimed <= KEPT_ENTRIES_MAX && body_bytes < LARGE_BYTES
}

/// At most so many entries of a commit are kept decoded. `body` is its body, which nobody has looked at yet.
pub(crate) fn kept_entries_max(body: &Bytes) -> usize {
    if !is_short(0, body.len()) {
        return 0;
    }
    let room = body.len() / ENTRY_BYTES_MIN;
    let kept = |claimed: usize| if is_short(claimed, body.len()) { claimed.min(room) } else { 0 };
    let Ok(conditions) = Commit::conditions(body.clone()) else { return 0 };
    match conditions.left() {
        0 => Commit::changes(conditions).map_or(0, |changes| kept(changes.left())),
        // Behind conditions, nobody knows yet how many changes there are.
        claimed => kept(claimed) + KEPT_ENTRIES_MAX.min(room),
    }
}

impl<T: Codec + BoundedList + Clone> Entries<T> {
    fn new(start: ListReader<T>, body_bytes: usize) -> Self {
        let is_short = is_short(start.left(), body_bytes);
        Entries { next: start.clone(), kept: is_short.then(|| Vec::with_capacity(start.left())), start }
    }

    /// The next entry of a list that nobody has read yet.
    fn read(&mut self) -> Result<Option<Arc<T>>, DecodeError> {
        let entry = self.next.read()?.map(Arc::new);
        if let Some(kept) = &mut self.kept {
            kept.extend(entry.clone());
        }
        Ok(entry)
    }

    fn rewind(&mut self) {
        if self.kept.is_none() {
            self.next = self.start.clone();
        }
    }

    /// The next entry, number `at`, of a list that was read to its end before.
    fn again(&mut self, at: usize) -> Option<Arc<T>> {
        match &self.kept {
            Some(kept) => kept.get(at).cloned(),
            None => {
                let entry = self.next.read();
                entry.expect("every entry was read before, in memory that nobody else has").map(Arc::new)
            }
        }
    }
}

/// One commit on its way.
#[derive(Debug)]
pub(crate) struct CommitJob {
    pub(crate) reply_to: ReplyTo,
    pub(crate) writer: Writer,
    /// Known once the commit was read.
    pub(crate) end_leases: Vec<u64>,
    /// Its body stood in a lease.
    pub(crate) is_long: bool,
    /// What was done to make room for the payload that finds none.
    pub(crate) tried: Tried,
    body: Bytes,
    conditions: Option<Entries<Condition>>,
    changes: Option<Entries<Change>>,
    stage: Stage,
    /// The change that found no room.
    held_back: Option<Arc<Change>>,
    /// Parallel to the changes, as far as these were placed: the extent of each object that is to be bound, and has one.
    extents: Vec<Option<Extent>>,
    /// Entries of this stage that are done.
    at: usize,
    /// Bytes of payloads that came in the message.
    inline_bytes: u64,
    /// Bytes of extents that those need which have none.
    unplaced_bytes: u64,
    /// Entries of the index that it did not find.
    missing_entries: u64,
    /// How far the names of a namespace are queued that becomes a cache.
    queued: Option<Arc<str>>,
    /// Whether a change unbinds names.
    unbinds: bool,
    /// The namespace of the first name that it binds, if it binds any.
    learns_in: Option<Namespace>,
    /// Steps of the arena that must be populated before the objects in them are written.
    missing: BTreeSet<usize>,
    runs: Vec<Run>,
    checks: Checks,
    /// Parallel to the changes of a short commit, once these were checked: the id of each name that is bound.
    ids: Vec<Option<NameId>>,
    /// When its turn came, by CLOCK_BOOTTIME: what has expired by then is absent to it. 0 before.
    moment_ns: u64,
    /// 0 until the checks are passed.
    version: u64,
    created_ns: u64,
    /// The time in the ids of its objects, in milliseconds since 1970.
    id_ms: u64,
    unbound: u64,
    unbound_bytes: u64,
    /// Of these the names that somebody waits for.
    pub(crate) unbound_waited: Vec<NameId>,
    epoch_is_open: bool,
    failure: Option<Failure>,
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
    prefixes: BTreeMap<NamespacePrefix, Namespace>,
    /// The last namespace that was found to be in order: mostly that of the next change, too.
    registered: Option<Namespace>,
    new_namespaces: u64,
    new_names: u64,
    /// Bytes of new descriptions and metadata, and of those that they replace.
    longer_bytes: u64,
    shorter_bytes: u64,
    /// Names that are unbound one by one.
    unbound_names: u64,
    /// Names that go with all others of their namespace.
    emptied_names: u64,
}

/// Bodies from this length on are freed by a helper.
const LARGE_BYTES: usize = 256 << 10;

impl CommitJob {
    /// A commit that nobody has looked at yet. `body` is memory that nobody else can write.
    pub(crate) fn new(reply_to: ReplyTo, writer: Writer, body: Bytes) -> CommitJob {
        CommitJob {
            reply_to,
            writer,
            end_leases: Vec::new(),
            is_long: false,
            tried: Tried::default(),
            body,
            conditions: None,
            changes: None,
            stage: Stage::ReadConditions,
            held_back: None,
            extents: Vec::new(),
            at: 0,
            inline_bytes: 0,
            unplaced_bytes: 0,
            missing_entries: 0,
            queued: None,
            unbinds: false,
            learns_in: None,
            missing: BTreeSet::new(),
            runs: Vec::new(),
            checks: Checks::default(),
            ids: Vec::new(),
            moment_ns: 0,
            version: 0,
            created_ns: 0,
            id_ms: 0,
            unbound: 0,
            unbound_bytes: 0,
            unbound_waited: Vec::new(),
            epoch_is_open: false,
            failure: None,
        }
    }

    /// Bytes of the payloads that came in the message.
    pub(crate) fn inline_bytes(&self) -> u64 {
        self.inline_bytes
    }

    /// The namespace that it learns in, if it learns anything.
    pub(crate) fn learns_in(&self) -> Option<&Namespace> {
        self.learns_in.as_ref()
    }

    /// The room that it did not find.
    pub(crate) fn wanted_room(&self) -> Room {
        let len_bytes = match self.held_back.as_deref().and_then(Change::bind) {
            Some(Bind { payload: Payload::Inline { bytes }, .. }) => bytes.len() as u64,
            _ => 0,
        };
        Room { len_bytes, in_pages: false, total_bytes: self.unplaced_bytes }
    }

    /// Gives up its turn because it did not find so many entries in the index: it is checked anew when its turn comes again.
    pub(crate) fn give_up_turn(&mut self) -> u64 {
        debug_assert!(self.version == 0, "a commit that is visible in part keeps its turn");
        self.checks = Checks::default();
        self.ids.clear();
        self.moment_ns = 0;
        self.enter(Stage::CheckConditions);
        std::mem::take(&mut self.missing_entries)
    }

    /// What must be copied into the arena from where the client wrote it, once it has its room.
    pub(crate) fn take_runs(&mut self) -> Vec<Run> {
        std::mem::take(&mut self.runs)
    }

    /// Whether it takes long to free its memory.
    pub(crate) fn is_large(&self) -> bool {
        self.body.len() >= LARGE_BYTES
    }

    /// Whether its turn has come and it is not all visible: nothing else changes the catalog.
    pub(crate) fn is_under_way(&self) -> bool {
        self.moment_ns != 0 && self.stage != Stage::Announce
    }

    /// Whether some of its changes are visible, and others are not.
    pub(crate) fn is_half_visible(&self) -> bool {
        self.version != 0 && self.stage != Stage::Announce
    }

    /// The version that its bindings have.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// It will not happen: [`prepare`](Self::prepare) gives back its room, and then says why.
    pub(crate) fn fail(&mut self, failure: Failure) {
        debug_assert!(self.version == 0, "a commit that is visible in part cannot fail");
        self.stage = Stage::Abandon;
        self.failure.get_or_insert(failure);
    }

    /// Reads the commit and takes its room, or gives it back, for as long as `slice` lasts.
    pub(crate) fn prepare(&mut self, bench: &mut Workbench<'_>, slice: &mut Slice) -> Prepared {
        while slice.spend() {
            match self.prepare_one(bench) {
                Ok(None) => {}
                Ok(Some(prepared)) => return prepared,
                Err(failure) => self.fail(failure),
            }
        }
        Prepared::More
    }

    /// One entry. `None` if there is more to do.
    fn prepare_one(&mut self, bench: &mut Workbench<'_>) -> Result<Option<Prepared>, Failure> {
        match self.stage {
            Stage::ReadConditions | Stage::ReadChanges => {
                self.read().map_err(|error| Failure::Malformed { reason: error.to_string() })?;
            }
            Stage::Place => return self.place(bench),
            Stage::Write => match self.next_change().as_deref().map(Change::bind) {
                Some(Some(Bind { payload: Payload::Inline { bytes }, .. })) => {
                    let extent = self.extents[self.at - 1].expect("every object was placed");
                    write(bench.arena, extent, bytes)?;
                }
                Some(_) => {}
                None => self.enter(Stage::CheckConditions),
            },
            Stage::Abandon => match self.extents.pop() {
                Some(extent) => extent.into_iter().for_each(|extent| bench.space.unclaim(extent)),
                None => {
                    let failure = self.failure.take().expect("a commit is abandoned because of a failure");
                    return Ok(Some(Prepared::Failed(failure)));
                }
            },
            _ => return Ok(Some(Prepared::Ready)),
        }
        Ok(None)
    }

    fn read(&mut self) -> Result<(), DecodeError> {
        if self.conditions.is_none() {
            let conditions = Commit::conditions(self.body.clone())?;
            self.conditions = Some(Entries::new(conditions, self.body.len()));
        }
        let conditions = self.conditions.as_mut().expect("it was just made");
        let Some(changes) = &mut self.changes else {
            if conditions.read()?.is_none() {
                let changes = Commit::changes(conditions.next.clone())?;
                self.changes = Some(Entries::new(changes, self.body.len()));
                self.stage = Stage::ReadChanges;
            }
            return Ok(());
        };
        match changes.read()?.as_deref() {
            Some(Change::Bind { bind } | Change::BindEphemeral { bind } | Change::Replace { bind }) => {
                self.learns_in.get_or_insert_with(|| bind.namespace.clone());
                if let Payload::Inline { bytes } = &bind.payload {
                    self.inline_bytes += bytes.len() as u64;
                    self.unplaced_bytes += (bytes.len() as u64).next_multiple_of(GRANULE_BYTES);
                }
            }
            Some(
                Change::RegisterNamespace { .. }
                | Change::DeclareNamespace { .. }
                | Change::EnsureCache { .. },
            ) => {}
            Some(
                Change::Unbind { .. }
                | Change::RemoveNamespace { .. }
                | Change::RemoveEmptyNamespace { .. }
                | Change::ClearNamespace { .. },
            ) => self.unbinds = true,
            None => {
                self.end_leases = Commit::end_leases(changes.next.clone())?;
                self.extents.reserve_exact(changes.start.left());
                self.enter(Stage::Place);
            }
        }
        Ok(())
    }

    /// Takes room for one payload.
    fn place(&mut self, bench: &mut Workbench<'_>) -> Result<Option<Prepared>, Failure> {
        let Some(change) = self.held_back.take().or_else(|| self.next_change()) else {
            let missing: VecDeque<usize> = std::mem::take(&mut self.missing).into_iter().collect();
            self.enter(if missing.is_empty() { Stage::CheckConditions } else { Stage::Write });
            return Ok(Some(Prepared::Placed { missing }));
        };
        let extent = match change.bind().map(|bind| &bind.payload) {
            Some(Payload::Inline { bytes }) => {
                let len_bytes = bytes.len() as u64;
                let limit_bytes = u64::from(limits::INLINE_BYTES_MAX);
                if len_bytes == 0 || len_bytes > limit_bytes {
                    let what = "a payload that travels in a message (at least 1 byte)".to_owned();
                    return Err(Failure::TooLarge { what, found_bytes: len_bytes, limit_bytes });
                }
                let Some(extent) = bench.space.allocate(len_bytes) else {
                    self.held_back = Some(change);
                    return Ok(Some(Prepared::NoRoom));
                };
                self.unplaced_bytes -= extent.len_bytes;
                self.tried = Tried::default();
                let missing = bench.space.populated.missing(extent);
                if missing.is_empty()
                    && let Err(failure) = write(bench.arena, extent, bytes)
                {
                    self.extents.push(Some(extent)); // to be given back
                    return Err(failure);
                }
                self.missing.extend(missing);
                Some(extent)
            }
            Some(Payload::Leased { lease, offset, len_bytes }) => {
                let refused =
                    |error: PieceError| Failure::BadLease { lease: *lease, reason: error.to_string() };
                let id = LeaseId(*lease);
                let piece = bench.space.claim_piece(self.writer.session, id, *offset, *len_bytes);
                let piece = piece.map_err(refused)?;
                if let Some(run) = bench.space.staged(id, piece) {
                    join(&mut self.runs, run);
                }
                Some(piece)
            }
            _ => None,
        };
        self.extents.push(extent);
        Ok(None)
    }

    /// Works until it is done, or for as long as `slice` lasts. It must be its turn.
    pub(crate) fn work(&mut self, bench: &mut Workbench<'_>, slice: &mut Slice) -> Worked {
        if self.stage == Stage::Announce {
            return Worked::Done;
        }
        if self.moment_ns == 0 {
            self.moment_ns = bench.now_ns;
        }
        while slice.spend() {
            match self.step(bench) {
                Ok(true) => {}
                Ok(false) => return Worked::Done,
                Err(failure) => return Worked::Failed(failure),
            }
        }
        Worked::More
    }

    /// One entry. Returns whether there is more to do.
    fn step(&mut self, bench: &mut Workbench<'_>) -> Result<bool, Failure> {
        match self.stage {
            Stage::CheckConditions => match next(&mut self.conditions, &mut self.at) {
                Some(condition) => check_condition(bench.catalog, &condition, self.moment_ns)?,
                None => {
                    // Never moved, for that would take long.
                    self.checks.touched.reserve(self.extents.len());
                    self.checks.empties = self.unbinds;
                    self.enter(Stage::CheckChanges);
                }
            },
            Stage::CheckChanges => match self.next_change() {
                Some(change) => {
                    let id = self.checks.add(bench.catalog, &change, self.moment_ns)?;
                    if self.changes.as_ref().is_some_and(|changes| changes.kept.is_some()) {
                        self.ids.push(id);
                    }
                }
                None => {
                    self.begin(bench)?;
                    fault_point(FaultPoint::CommitBegun);
                }
            },
            Stage::Unbind => match self.unbind(bench) {
                true => {}
                false => self.enter(Stage::Bind),
            },
            Stage::Bind => match self.held_back.take().or_else(|| self.next_change()) {
                Some(change) => {
                    self.bind(bench, &change);
                    fault_point(FaultPoint::CommitHalfVisible);
                }
                None => {
                    if std::mem::take(&mut self.epoch_is_open) {
                        bench.catalog.close_epoch();
                    }
                    self.enter(Stage::Announce);
                    return Ok(false);
                }
            },
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Hands the ids of the names that it bound to `tell`, for as long as `slice` lasts. Returns whether that was all.
    pub(crate) fn announce(&mut self, slice: &mut Slice, mut tell: impl FnMut(&NameId)) -> bool {
        while slice.spend() {
            match self.next_change().as_deref().map(Change::bind) {
                Some(Some(bind)) => tell(&self.name_id(bind)),
                Some(None) => {}
                None => return true,
            }
        }
        false
    }

    /// What it came to.
    pub(crate) fn committed(&self) -> Committed {
        Committed { version: self.version, unbound: self.unbound, unbound_bytes: self.unbound_bytes }
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.at = 0;
        match stage {
            Stage::CheckConditions => self.conditions.iter_mut().for_each(Entries::rewind),
            _ => self.changes.iter_mut().for_each(Entries::rewind),
        }
    }

    fn next_change(&mut self) -> Option<Arc<Change>> {
        next(&mut self.changes, &mut self.at)
    }

    /// The id of the name that the change binds which is being done.
    fn name_id(&self, bind: &Bind) -> NameId {
        let known = self.ids.get(self.at - 1).copied().flatten();
        known.unwrap_or_else(|| NameId::new(&bind.namespace, &bind.name))
    }

    /// The last check, over all changes together; behind it nothing fails any more.
    fn begin(&mut self, bench: &mut Workbench<'_>) -> Result<(), Failure> {
        let checks = &mut self.checks;
        let room = bench.catalog.room() + checks.unbound_names + checks.emptied_names;
        if checks.new_names > room {
            self.missing_entries = checks.new_names - room;
            let (used, limit) = bench.catalog.objects();
            return Err(Failure::IndexFull { requested: checks.new_names, used, limit });
        }
        let too_many = |what: &str, limit| Failure::TooMany { what: what.to_owned(), limit };
        let is_own = self.writer.is_own;
        let namespaces = bench.catalog.check_namespaces(checks.new_namespaces, is_own);
        namespaces.map_err(|limit| too_many("namespaces (--max-namespaces)", limit))?;
        let texts = bench.catalog.check_texts(checks.longer_bytes, checks.shorter_bytes, is_own);
        texts.map_err(|limit| too_many("bytes of descriptions and metadata (--max-text-bytes)", limit))?;
        bench.versions.last += 1;
        self.version = bench.versions.last;
        self.created_ns = realtime_ns();
        // Ids sort by age, also while the clock stands before where it was.
        self.id_ms = (self.created_ns / 1_000_000).max(bench.versions.last_id_ms);
        bench.versions.last_id_ms = self.id_ms;
        if checks.touched.len() as u64 + checks.emptied_names > 1 {
            bench.catalog.open_epoch();
            self.epoch_is_open = true;
        }
        self.enter(if self.unbinds { Stage::Unbind } else { Stage::Bind });
        Ok(())
    }

    /// Unbinds one name. Returns whether there may be more.
    fn unbind(&mut self, bench: &mut Workbench<'_>) -> bool {
        let Some(change) = self.held_back.take().or_else(|| self.next_change()) else { return false };
        match &*change {
            Change::Unbind { namespace, name } => {
                if let Some(id) = bench.catalog.namespace(namespace) {
                    self.unbind_one(bench, id, name);
                }
            }
            Change::RemoveNamespace { namespace }
            | Change::RemoveEmptyNamespace { namespace }
            | Change::ClearNamespace { namespace } => {
                let Some(id) = bench.catalog.namespace(namespace) else { return true };
                match bench.catalog.first_name(id) {
                    Some(name) => {
                        self.unbind_one(bench, id, &name);
                        self.held_back = Some(change); // again, until the namespace is empty
                    }
                    None if matches!(*change, Change::ClearNamespace { .. }) => {}
                    None => bench.catalog.unregister(id),
                }
            }
            Change::Bind { .. }
            | Change::BindEphemeral { .. }
            | Change::Replace { .. }
            | Change::RegisterNamespace { .. }
            | Change::DeclareNamespace { .. }
            | Change::EnsureCache { .. } => {}
        }
        true
    }

    /// Unbinds one name. One that had expired does not count.
    fn unbind_one(&mut self, bench: &mut Workbench<'_>, id: NamespaceId, name: &str) {
        let Some(unbound) = bench.catalog.unbind(id, name) else { return };
        if bench.parked.has_waiter(&unbound.id) {
            self.unbound_waited.push(unbound.id);
        }
        if let Some(object) = unbound.object {
            bench.objects.release(object, || unbound.label());
        }
        if !unbound.entry.has_expired(self.moment_ns) {
            self.unbound += 1;
            self.unbound_bytes += unbound.entry.arena_bytes();
        }
    }

    fn bind(&mut self, bench: &mut Workbench<'_>, change: &Arc<Change>) {
        let (bind, owner) = match &**change {
            Change::Bind { bind } | Change::Replace { bind } => (bind, None),
            Change::BindEphemeral { bind } => (bind, Some(self.writer.session)),
            Change::RegisterNamespace { namespace } => {
                bench.catalog.register(namespace).expect("its prefix was checked");
                return;
            }
            Change::DeclareNamespace { namespace, is_cache, ttl } => {
                let id = bench.catalog.register(namespace).expect("its prefix was checked");
                let queues = self.queued.is_some() || bench.catalog.declare(id, *is_cache, ttl.clone());
                return self.queue_name(bench, change, queues.then_some(id));
            }
            Change::EnsureCache { namespace } => {
                let id = bench.catalog.register(namespace).expect("its prefix was checked");
                let queues = self.queued.is_some() || bench.catalog.ensure_cache(id);
                return self.queue_name(bench, change, queues.then_some(id));
            }
            _ => return,
        };
        let namespace = bench.catalog.register(&bind.namespace).expect("its prefix was checked");
        let extent = self.extents[self.at - 1].take();
        let len_bytes = match bind.payload {
            Payload::Inline { ref bytes } => bytes.len() as u64,
            Payload::Leased { len_bytes, .. } => len_bytes,
            Payload::InHeader {} => bind.header.ndim.into(),
        };
        let entry = index::Entry {
            version: self.version,
            offset: extent.map_or(NO_EXTENT, |extent| extent.offset),
            len_bytes,
            created_ns: self.created_ns,
            expires_ns: 0, // the catalog knows
            writer_uid: self.writer.uid,
            header: bind.header,
        };
        // The object is known before it is visible: whoever finds it may pin and release it at once.
        let object = extent.map(|extent| bench.objects.add(extent, len_bytes, self.version));
        let new = NewBinding {
            entry,
            object,
            object_uuid: self.object_uuid(bench.uuid_seed),
            writer_pid: self.writer.pid,
            now_ns: self.moment_ns,
            ttl: bind.ttl.clone(),
            keeps_ttl: matches!(**change, Change::Replace { .. }),
            owner,
            description: bind.description.as_deref(),
            metadata: bind.metadata.as_deref(),
        };
        let bound = bench.catalog.bind(namespace, &self.name_id(bind), &bind.name, new);
        if let Some(object) = object {
            bench.objects.name(object, bound.number);
        }
        if let Some(replaced) = bound.replaced {
            bench.objects.release(replaced, || format!("{}/{}", bind.namespace, bind.name));
        }
    }

    /// Queues a name of a namespace that has become a cache with `change`, which is done again while there are more.
    fn queue_name(&mut self, bench: &mut Workbench<'_>, change: &Arc<Change>, cache: Option<NamespaceId>) {
        let Some(id) = cache else { return };
        self.queued = bench.catalog.queue_after(id, self.queued.as_deref());
        if self.queued.is_some() {
            self.held_back = Some(Arc::clone(change));
        }
    }
}

impl CommitJob {
    /// A UUIDv7 for the object of the change that is being made: the version and the change's place in the commit make
    /// it unique in this store, the seed among all. (Asking the kernel for random bytes would take longer than binding.)
    fn object_uuid(&self, seed: [u8; 16]) -> [u8; 16] {
        let number = (self.version << COMMIT_ENTRIES_BITS) | self.at as u64;
        let tail = u128::from_le_bytes(seed).wrapping_add(number.into()).to_be_bytes();
        let tail = tail.last_chunk().expect("16 bytes end with 10");
        uuid::Builder::from_unix_timestamp_millis(self.id_ms, tail).into_uuid().into_bytes()
    }
}

/// Changes of a commit are counted with this many bits.
const COMMIT_ENTRIES_BITS: u32 = limits::COMMIT_ENTRIES_MAX.ilog2() + 1;

fn write(arena: &Region, extent: Extent, bytes: &[u8]) -> Result<(), Failure> {
    let written = arena.write_at(extent.offset, bytes);
    written.map_err(|error| Failure::Internal { reason: error.to_string() })
}

/// The next entry of a list, of which `at` were seen.
fn next<T: Codec + BoundedList + Clone>(list: &mut Option<Entries<T>>, at: &mut usize) -> Option<Arc<T>> {
    let entry = list.as_mut()?.again(*at);
    *at += 1;
    entry
}

/// Adds a run, which often goes on where the last one ends.
fn join(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last)
            if Arc::ptr_eq(&last.from, &run.from)
                && last.to.end() == run.to.offset
                && last.offset + last.to.len_bytes == run.offset =>
        {
            last.to.len_bytes += run.to.len_bytes;
        }
        _ => runs.push(run),
    }
}

impl Checks {
    /// Checks one change against the catalog, and against the changes before it. Returns the id of a name that it binds.
    fn add(&mut self, catalog: &Catalog, change: &Change, now_ns: u64) -> Result<Option<NameId>, Failure> {
        match change {
            Change::Bind { bind } | Change::BindEphemeral { bind } | Change::Replace { bind } => {
                let Bind { namespace, name, header, description, metadata, ttl, payload } = bind;
                check_ttl(ttl.as_ref())?;
                check_header(name, header, payload)?;
                let id = self.touch(namespace, name)?;
                self.register(catalog, namespace)?;
                let known = catalog
                    .check_id(&id, name)
                    .map_err(|taken| Failure::IdTaken { wanted: name.to_string(), holder: taken.holder })?;
                self.new_names += u64::from(known.is_none());
                let texts = [
                    (description, known.map(|record| &record.description)),
                    (metadata, known.map(|record| &record.metadata)),
                ];
                for (new, before) in texts {
                    if let Some(new) = new {
                        self.longer_bytes += new.len() as u64;
                        self.shorter_bytes += before.map_or(0, |before| before.len() as u64);
                    }
                }
                return Ok(Some(id));
            }
            Change::Unbind { namespace, name } => {
                self.touch(namespace, name)?;
                if catalog.namespace(namespace).is_some_and(|id| catalog.linked(id, name).is_some()) {
                    self.unbound_names += 1;
                }
            }
            Change::RemoveNamespace { namespace } | Change::RemoveEmptyNamespace { namespace }
                if **namespace == *Namespace::DEFAULT =>
            {
                return Err(Failure::DefaultNamespace {});
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
                if let Some(name) = self.changed_in.get(namespace) {
                    return Err(Failure::NamedTwice { namespace: namespace.clone(), name: name.clone() });
                }
                if self.emptied.insert(namespace.clone()) {
                    self.emptied_names += catalog.names_in(id);
                }
            }
            Change::RegisterNamespace { namespace } | Change::EnsureCache { namespace } => {
                self.register(catalog, namespace)?;
            }
            Change::DeclareNamespace { namespace, ttl, .. } => {
                check_ttl(ttl.as_ref())?;
                self.register(catalog, namespace)?;
            }
        }
        Ok(None)
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
        if self.registered.as_ref() == Some(namespace) {
            return Ok(());
        }
        let taken = |holder: String| Failure::IdTaken { wanted: namespace.to_string(), holder };
        catalog.check_prefix(namespace).map_err(|error| taken(error.holder))?;
        match self.prefixes.entry(NamespacePrefix::new(namespace)) {
            Entry::Occupied(known) if known.get() != namespace => {
                return Err(taken(known.get().to_string()));
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(unknown) => {
                unknown.insert(namespace.clone());
                self.new_namespaces += u64::from(catalog.namespace(namespace).is_none());
            }
        }
        self.registered = Some(namespace.clone());
        Ok(())
    }
}

/// A value stands in the header, or it has bytes: never both.
fn check_header(name: &Name, header: &Header, payload: &Payload) -> Result<(), Failure> {
    let claims = header.flags.has(Flags::INLINE);
    let reason = match payload {
        Payload::InHeader {} if !claims => "has no bytes, and no value in its header",
        Payload::InHeader {} if header.inline().is_none() => {
            "claims a value in its header of more than 32 bytes"
        }
        Payload::Inline { .. } | Payload::Leased { .. } if claims => "has bytes, and a value in its header",
        _ => return Ok(()),
    };
    Err(Failure::Malformed { reason: format!("the object for {name:?} {reason}") })
}

fn check_ttl(ttl: Option<&Ttl>) -> Result<(), Failure> {
    match ttl {
        Some(Ttl { ttl_ns: 0, .. }) => {
            Err(Failure::Malformed { reason: "a time to live is at least 1 ns, and this is 0".to_owned() })
        }
        _ => Ok(()),
    }
}

fn check_condition(catalog: &Catalog, condition: &Condition, now_ns: u64) -> Result<(), Failure> {
    let Condition { namespace, name, expect } = condition;
    let found = catalog.find(namespace, name, now_ns).map(|(_, record)| record.entry.version);
    let holds = match expect {
        Expect::Absent {} => found.is_none(),
        Expect::Present {} => found.is_some(),
        Expect::Version { version } => found == Some(*version),
    };
    if holds {
        return Ok(());
    }
    let (namespace, name, expect) = (namespace.clone(), name.clone(), expect.clone());
    Err(Failure::ConditionFailed { namespace, name, expect, found })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        budget::Held,
        catalog::{self, Cached, Next, Unbound},
        connection::ConnectionId,
        populate::Populated,
        standing::Cache,
    };
    use plasmon_protocol::limits::SLIDING_SLACK_NS;
    use plasmon_protocol::{
        index::{IndexReader, Lookup},
        name::Name,
        object::{Header, Kind},
    };
    use plasmon_shm::{Backend, Kernel, ReadOnlyWords};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const CAPACITY_BYTES: u64 = 1 << 20;
    const ENTRIES: u32 = 12;

    /// Slices that were not enough: the last one of each kind is not counted.
    #[derive(Debug, Default)]
    struct Slices {
        preparing: u32,
        working: u32,
        freeing: u32,
    }

    /// A store without sockets, and beside it what it should hold.
    struct Model {
        arena: Region,
        entries: u32,
        catalog: Catalog,
        objects: Objects,
        space: Space,
        versions: Versions,
        index: ReadOnlyWords,
        /// What takes room: a binding that has expired does until it is unbound.
        bound: BTreeMap<(Namespace, Name), Bound>,
        /// What there is, and what was declared for it.
        namespaces: BTreeMap<Namespace, Declared>,
        now_ns: u64,
        parked: Parked,
    }

    #[derive(Clone, Debug, Default)]
    struct Declared {
        is_cache: bool,
        ttl: Option<Ttl>,
    }

    #[derive(Clone, Debug, PartialEq)]
    struct Bound {
        version: u64,
        bytes: Vec<u8>,
        in_header: bool,
        learned_ns: u64,
        description: String,
        expires_ns: Option<u64>,
        is_ephemeral: bool,
    }

    impl Bound {
        fn lives(&self, now_ns: u64) -> bool {
            self.expires_ns.is_none_or(|at| at > now_ns)
        }

        fn arena_bytes(&self) -> u64 {
            if self.in_header { 0 } else { self.bytes.len() as u64 }
        }
    }

    impl Model {
        fn new() -> Model {
            Model::of(CAPACITY_BYTES, ENTRIES, Populated::by_writers(CAPACITY_BYTES))
        }

        fn of(capacity_bytes: u64, entries: u32, populated: Populated) -> Model {
            let (catalog, index) = catalog::tests::fresh(entries, capacity_bytes);
            Model {
                arena: Region::create("plasmon-arena", capacity_bytes, Backend::Memfd, &Kernel::detect())
                    .expect("memory"),
                entries,
                catalog: catalog.with_caches(&[standing()]).expect("no other namespace has its id"),
                objects: Objects::default(),
                space: Space::new(capacity_bytes, populated),
                versions: Versions::default(),
                index,
                bound: BTreeMap::new(),
                namespaces: [Namespace::default(), standing().namespace]
                    .map(|namespace| (namespace.clone(), declared(&namespace, Declared::default())))
                    .into(),
                now_ns: 1_000,
                parked: Parked::default(),
            }
        }

        /// Does `commit`, and checks that it happened if it should have. Returns what it took.
        fn apply(&mut self, commit: &Commit) -> Slices {
            let reply_to = ReplyTo { connection: ConnectionId(1), request_id: 1, held: Held::default() };
            let writer = Writer { session: SessionId(1), pid: 1, uid: 1, is_own: true };
            let before = self.versions.last;
            let mut body = Vec::new();
            commit.encode(&mut body);
            let body = Bytes::from(body);
            let kept_max = kept_entries_max(&body);
            let mut job = CommitJob::new(reply_to, writer, body);
            let mut slices = Slices::default();
            let result = self.work(&mut job, &mut slices);
            let conditions = job.conditions.iter().flat_map(|list| &list.kept).map(Vec::len);
            let changes = job.changes.iter().flat_map(|list| &list.kept).map(Vec::len);
            let kept: usize = conditions.chain(changes).sum();
            assert!(kept <= kept_max, "what is kept is held against its session");
            let Some(result) = result else {
                self.check(); // there was no room
                return slices;
            };
            match self.expect(commit) {
                Some((bound, namespaces, unbound)) => {
                    let committed = result.expect("the model allows it");
                    assert_eq!(
                        committed,
                        Committed {
                            version: before + 1,
                            unbound: unbound.len() as u64,
                            unbound_bytes: unbound.iter().sum(),
                        }
                    );
                    (self.bound, self.namespaces) = (bound, namespaces);
                }
                None => {
                    result.expect_err("the model refuses it");
                    assert_eq!(self.versions.last, before, "a commit that did not happen has no version");
                }
            }
            // Nobody pins anything here, so whatever lost its name is free after the next scan.
            let retired = self.objects.take_retired();
            self.objects.reclaim(retired);
            while !self.objects.free_some(&mut self.space, &mut Slice::shortest()) {
                slices.freeing += 1;
            }
            self.check();
            slices
        }

        /// In the shortest slices there are, as on a busy loop. `None` if there was no room.
        fn work(&mut self, job: &mut CommitJob, slices: &mut Slices) -> Option<Result<Committed, Failure>> {
            let mut has_room = true;
            loop {
                let mut bench = Workbench {
                    catalog: &mut self.catalog,
                    objects: &mut self.objects,
                    space: &mut self.space,
                    arena: &self.arena,
                    versions: &mut self.versions,
                    now_ns: self.now_ns,
                    parked: &self.parked,
                    uuid_seed: [7; 16],
                };
                match job.prepare(&mut bench, &mut Slice::shortest()) {
                    Prepared::More => slices.preparing += 1,
                    Prepared::Placed { .. } => {} // nobody minds whether the pages are there
                    Prepared::NoRoom => {
                        has_room = false;
                        job.fail(Failure::Internal { reason: "no room".to_owned() });
                    }
                    Prepared::Failed(failure) => return has_room.then_some(Err(failure)),
                    Prepared::Ready => loop {
                        match job.work(&mut bench, &mut Slice::shortest()) {
                            Worked::More => slices.working += 1,
                            Worked::Done => return Some(Ok(job.committed())),
                            Worked::Failed(failure) => {
                                job.fail(failure);
                                break;
                            }
                        }
                    },
                }
            }
        }

        /// What the bindings and namespaces should be after `commit`, and the lengths of the objects that it unbinds
        /// without replacing them; `None` if it must not happen.
        #[expect(clippy::type_complexity, reason = "three answers of one model")]
        fn expect(
            &self,
            commit: &Commit,
        ) -> Option<(BTreeMap<(Namespace, Name), Bound>, BTreeMap<Namespace, Declared>, Vec<u64>)> {
            for Condition { namespace, name, expect } in &commit.conditions {
                let found = self.bound.get(&(namespace.clone(), name.clone()));
                let found = found.filter(|bound| bound.lives(self.now_ns)).map(|bound| bound.version);
                let holds = match expect {
                    Expect::Absent {} => found.is_none(),
                    Expect::Present {} => found.is_some(),
                    Expect::Version { version } => found == Some(*version),
                };
                if !holds {
                    return None;
                }
            }
            let (mut bound, mut namespaces) = (self.bound.clone(), self.namespaces.clone());
            let mut unbound = Vec::new();
            let (mut touched, mut emptied, mut inside) = (HashSet::new(), HashSet::new(), HashSet::new());
            for change in &commit.changes {
                match change {
                    Change::Unbind { namespace, name } => {
                        let key = (namespace.clone(), name.clone());
                        let gone = bound.remove(&key).filter(|gone| gone.lives(self.now_ns));
                        unbound.extend(gone.map(|gone| gone.arena_bytes()));
                        inside.insert(namespace.clone());
                        if !touched.insert(key) {
                            return None;
                        }
                    }
                    Change::RemoveNamespace { namespace }
                    | Change::RemoveEmptyNamespace { namespace }
                    | Change::ClearNamespace { namespace } => {
                        let removes = !matches!(change, Change::ClearNamespace { .. });
                        let empties = matches!(change, Change::RemoveEmptyNamespace { .. });
                        let lives = |((of, _), bound): (&(Namespace, Name), &Bound)| {
                            of == namespace && bound.lives(self.now_ns)
                        };
                        if !self.namespaces.contains_key(namespace)
                            || (removes && **namespace == *Namespace::DEFAULT)
                            || (empties && self.bound.iter().any(lives))
                        {
                            return None;
                        }
                        emptied.insert(namespace.clone());
                        bound.retain(|(of, _), gone| {
                            if of == namespace && gone.lives(self.now_ns) {
                                unbound.push(gone.arena_bytes());
                            }
                            of != namespace
                        });
                        if removes {
                            namespaces.remove(namespace);
                        }
                    }
                    Change::Bind { .. }
                    | Change::BindEphemeral { .. }
                    | Change::Replace { .. }
                    | Change::RegisterNamespace { .. }
                    | Change::DeclareNamespace { .. }
                    | Change::EnsureCache { .. } => {}
                }
            }
            for change in &commit.changes {
                match change {
                    Change::Bind { bind } | Change::BindEphemeral { bind } | Change::Replace { bind } => {
                        let Bind { namespace, name, description, ttl, header, payload, .. } = bind;
                        let is_ephemeral = matches!(change, Change::BindEphemeral { .. });
                        let key = (namespace.clone(), name.clone());
                        let (bytes, in_header) = match (payload, header.inline()) {
                            (Payload::Inline { bytes }, None) => (bytes.to_vec(), false),
                            (Payload::InHeader {}, Some((value, len))) => (value[..len].to_vec(), true),
                            _ => return None,
                        };
                        let new = || declared(namespace, Declared::default());
                        let declared = namespaces.entry(namespace.clone()).or_insert_with(new);
                        let ttl = ttl.as_ref().or(declared.ttl.as_ref());
                        let slack_ns = |ttl: &Ttl| if ttl.is_sliding { SLIDING_SLACK_NS } else { 0 };
                        let expires_ns =
                            ttl.and_then(|ttl| (self.now_ns + slack_ns(ttl)).checked_add(ttl.ttl_ns));
                        let before = bound.get(&key).filter(|before| before.lives(self.now_ns));
                        let expires_ns = match (change, before) {
                            (Change::Replace { .. }, Some(before)) => before.expires_ns,
                            _ => expires_ns,
                        };
                        let kept = before.map_or(String::new(), |before| before.description.clone());
                        let description = description.clone().unwrap_or(kept);
                        let version = self.versions.last;
                        let learned_ns = self.now_ns;
                        let now = Bound {
                            version,
                            bytes,
                            in_header,
                            learned_ns,
                            description,
                            expires_ns,
                            is_ephemeral,
                        };
                        bound.insert(key.clone(), now);
                        inside.insert(namespace.clone());
                        if !touched.insert(key) {
                            return None;
                        }
                    }
                    Change::RegisterNamespace { namespace } => {
                        let new = || declared(namespace, Declared::default());
                        namespaces.entry(namespace.clone()).or_insert_with(new);
                    }
                    Change::DeclareNamespace { namespace, is_cache, ttl } => {
                        let said = Declared { is_cache: *is_cache, ttl: ttl.clone() };
                        namespaces.insert(namespace.clone(), declared(namespace, said));
                    }
                    Change::EnsureCache { namespace } => {
                        let new = || declared(namespace, Declared::default());
                        namespaces.entry(namespace.clone()).or_insert_with(new).is_cache = true;
                    }
                    _ => {}
                }
            }
            let fits = bound.len() <= self.entries as usize;
            (fits && inside.is_disjoint(&emptied)).then_some((bound, namespaces, unbound))
        }

        /// Ends the session that makes all commits, of which the model has one after the other.
        fn end_session(&mut self) {
            let mut ended = BTreeSet::new();
            while let Some(unbound) = self.catalog.end_one_of(SessionId(1)) {
                self.let_go(&unbound);
                ended.insert(unbound.label());
            }
            let label = |(namespace, name): &(Namespace, Name)| format!("{namespace}/{name}");
            let expected = self.bound.extract_if(.., |_, bound| bound.is_ephemeral);
            assert_eq!(ended, expected.map(|(key, _)| label(&key)).collect());
            self.settle();
        }

        /// Lets time pass, and unbinds so many of what has expired: the first first.
        fn pass(&mut self, ns: u64, at_most: usize) {
            self.now_ns += ns;
            let mut expired: Vec<(u64, (Namespace, Name))> = self
                .bound
                .iter()
                .filter(|(_, bound)| !bound.lives(self.now_ns))
                .map(|(key, bound)| (bound.expires_ns.unwrap_or(0), key.clone()))
                .collect();
            expired.sort();
            for number in 0..at_most {
                let Some(unbound) = self.catalog.expire(self.now_ns) else {
                    assert_eq!(number, expired.len(), "all that has expired is unbound");
                    break;
                };
                assert_eq!(unbound.entry.expires_ns, expired[number].0, "in the order of their deadlines");
                let name = |(namespace, name): &(Namespace, Name)| format!("{namespace}/{name}");
                self.bound.retain(|key, _| name(key) != unbound.label());
                self.let_go(&unbound);
            }
            let next = self.bound.values().filter_map(|bound| bound.expires_ns).min();
            assert_eq!(self.catalog.next_expiry(), next);
            self.settle();
        }

        fn let_go(&mut self, unbound: &Unbound) {
            if let Some(object) = unbound.object {
                self.objects.release(object, || unbound.label());
            }
        }

        /// Frees what has lost its name, and checks.
        fn settle(&mut self) {
            let retired = self.objects.take_retired();
            self.objects.reclaim(retired);
            while !self.objects.free_some(&mut self.space, &mut Slice::shortest()) {}
            self.check();
        }

        /// Index, catalog, space and arena say what the model says.
        fn check(&mut self) {
            let is_cached =
                |((namespace, _), _): &(&(Namespace, Name), &Bound)| self.namespaces[namespace].is_cache;
            let cached: Vec<_> = self.bound.iter().filter(is_cached).collect();
            let cached_bytes = cached.iter().map(|(_, bound)| bound.arena_bytes()).sum::<u64>();
            assert_eq!(self.catalog.cached_bytes(), cached_bytes);
            let cached: Vec<_> = cached.into_iter().filter(|(_, bound)| !bound.is_ephemeral).collect();
            let mut expected: Vec<u64> = cached.iter().map(|(_, bound)| bound.version).collect();
            let (mut at, mut queued) = ([Cached::FIRST, Cached::FIRST_IN_INDEX], Vec::new());
            while let Next::This(next) = self.catalog.next_of_both(&mut at, &mut Slice::endless()) {
                queued.push(self.catalog.cached_binding(next).expect("what is queued is bound").version);
            }
            let (mut at, mut in_arena) = (Cached::FIRST, 0);
            while let Next::This(next) = self.catalog.next_cached(at, &mut Slice::endless()) {
                let binding = self.catalog.cached_binding(next).expect("what is queued is bound");
                let object = binding.object.and_then(|object| self.objects.get(object));
                assert_eq!(object.map(|object| object.version), Some(binding.version));
                (at, in_arena) = (next, in_arena + 1);
            }
            assert_eq!(in_arena, cached.iter().filter(|(_, bound)| !bound.in_header).count());
            // Nobody recalls anything here, so the order is that of learning.
            let learned: BTreeMap<u64, u64> =
                cached.iter().map(|(_, bound)| (bound.version, bound.learned_ns)).collect();
            assert!(queued.is_sorted_by_key(|version| learned[version]), "the least recently used is first");
            queued.sort_unstable();
            expected.sort_unstable();
            assert_eq!(queued, expected);
            let in_arena = || self.bound.values().filter(|bound| !bound.in_header);
            let used: u64 = in_arena().map(|bound| bound.bytes.len().next_multiple_of(64) as u64).sum();
            assert_eq!((self.space.figures().used, self.objects.len()), (used, in_arena().count()));
            assert_eq!(self.catalog.objects().0, self.bound.len() as u64);
            assert_eq!(self.catalog.namespace_count(), self.namespaces.len() as u64);
            let reader = IndexReader::open(&self.index).expect("an index");
            for number in 0..16 {
                for namespace in all_namespaces() {
                    let name = name(number);
                    let id = NameId::new(&namespace, &name);
                    let found = reader
                        .lookup(&id, || self.now_ns, |_| Ok::<_, ()>(()))
                        .expect("publishing cannot fail");
                    let expected = self.bound.get(&(namespace.clone(), name.clone()));
                    let expected = expected.filter(|bound| bound.lives(self.now_ns));
                    let known = self.catalog.find(&namespace, &name, self.now_ns);
                    assert_eq!(known.is_some(), expected.is_some());
                    let Lookup::Held { entry, .. } = found else {
                        assert_eq!((found, expected), (Lookup::Absent, None));
                        continue;
                    };
                    let Bound { version, bytes, in_header, description, expires_ns, .. } =
                        expected.expect("the model has it as well");
                    assert_eq!(known.map(|(_, record)| &*record.description), Some(description.as_str()));
                    assert_eq!((entry.version, entry.len_bytes), (*version, bytes.len() as u64));
                    assert_eq!(entry.expires_ns, expires_ns.unwrap_or(0));
                    let inline = entry.header.inline().map(|(value, len)| value[..len].to_vec());
                    let stored = entry.extent_offset().map(|offset| {
                        let mut stored = vec![0; bytes.len()];
                        self.arena.read_at(offset, &mut stored).expect("inside the arena");
                        stored
                    });
                    let expected = if *in_header { (Some(bytes), None) } else { (None, Some(bytes)) };
                    assert_eq!((inline.as_ref(), stored.as_ref()), expected);
                }
            }
        }
    }

    /// A cache of the operator's.
    fn standing() -> Cache {
        let [.., namespace] = all_namespaces();
        Cache { namespace, ttl: Some(Ttl { ttl_ns: 50, is_sliding: false }) }
    }

    /// What holds for a namespace of which this was said.
    fn declared(namespace: &Namespace, said: Declared) -> Declared {
        match standing() {
            standing if standing.namespace == *namespace => {
                Declared { is_cache: true, ttl: said.ttl.or(standing.ttl) }
            }
            _ => said,
        }
    }

    fn all_namespaces() -> [Namespace; 3] {
        ["default", "other", "a-namespace-of-more-than-sixteen-bytes"]
            .map(|text| Namespace::new(text).expect("a valid namespace"))
    }

    fn name(number: u8) -> Name {
        Name::new(&format!("name {number}")).expect("a valid name")
    }

    fn any_change() -> impl Strategy<Value = Change> {
        let place = || (proptest::sample::select(all_namespaces().to_vec()), (0_u8..16).prop_map(name));
        let description = proptest::option::of("[a-c]{0,2}");
        let length = prop_oneof![4 => 1..3_000_usize, 3 => 0..33_usize];
        let bytes = length.prop_flat_map(|len| proptest::collection::vec(any::<u8>(), len));
        // Where the value stands, and, now and then, where else it is said to stand.
        let place_of_value = (any::<bool>(), proptest::bool::weighted(0.05));
        let how = (any_ttl(), description, 0_u8..6);
        let bind = (place(), bytes, place_of_value, how).prop_map(
            |((namespace, name), bytes, (in_header, lies), (ttl, description, how))| {
                let plain = Header::new(Kind::BYTES);
                let inline = plain.with_inline(&bytes).filter(|_| in_header || bytes.is_empty());
                let payload = match inline.is_some() != lies {
                    true => Payload::InHeader {},
                    false => Payload::Inline { bytes: bytes.into() },
                };
                let header = inline.unwrap_or(plain);
                let bind = Bind { namespace, name, description, metadata: None, header, ttl, payload };
                match how {
                    0 => Change::BindEphemeral { bind },
                    1 => Change::Replace { bind },
                    _ => Change::Bind { bind },
                }
            },
        );
        let namespace = || proptest::sample::select(all_namespaces().to_vec());
        prop_oneof![
            8 => bind,
            4 => place().prop_map(|(namespace, name)| Change::Unbind { namespace, name }),
            1 => namespace().prop_map(|namespace| Change::RemoveNamespace { namespace }),
            1 => namespace().prop_map(|namespace| Change::RemoveEmptyNamespace { namespace }),
            1 => namespace().prop_map(|namespace| Change::ClearNamespace { namespace }),
            1 => namespace().prop_map(|namespace| Change::EnsureCache { namespace }),
            1 => namespace().prop_map(|namespace| Change::RegisterNamespace { namespace }),
            1 => (namespace(), any::<bool>(), any_ttl()).prop_map(|(namespace, is_cache, ttl)| {
                Change::DeclareNamespace { namespace, is_cache, ttl }
            }),
        ]
    }

    fn any_pass() -> impl Strategy<Value = u64> {
        prop_oneof![4 => 0_u64..60, 1 => SLIDING_SLACK_NS - 60..SLIDING_SLACK_NS]
    }

    fn any_ttl() -> impl Strategy<Value = Option<Ttl>> {
        let ttl_ns = prop_oneof![4 => 1_u64..100, 1 => u64::MAX - 1_000..=u64::MAX];
        proptest::option::of(
            (ttl_ns, any::<bool>()).prop_map(|(ttl_ns, is_sliding)| Ttl { ttl_ns, is_sliding }),
        )
    }

    fn any_commit() -> impl Strategy<Value = Commit> {
        let place = (proptest::sample::select(all_namespaces().to_vec()), (0_u8..16).prop_map(name));
        let expect = prop_oneof![
            Just(Expect::Absent {}),
            Just(Expect::Present {}),
            (0_u64..20).prop_map(|version| Expect::Version { version }),
        ];
        let condition =
            (place, expect).prop_map(|((namespace, name), expect)| Condition { namespace, name, expect });
        (proptest::collection::vec(condition, 0..2), proptest::collection::vec(any_change(), 0..5))
            .prop_map(|(conditions, changes)| Commit { conditions, changes, end_leases: vec![] })
    }

    /// Invariant 9: whatever takes time for each change is done in slices, giving back included. 32 entries fit into
    /// the shortest slice.
    #[test]
    fn everything_in_proportion_to_the_number_of_changes_is_done_in_slices() {
        const CHANGES: u32 = 3_200;
        let stages = |slices: u32| slices / (CHANGES / 32);
        // Nothing is populated, so that writing is a stage of its own.
        let mut model = Model::of(4 << 20, CHANGES, Populated::nothing(4 << 20));
        let bind = |number: u32| Change::Bind {
            bind: Bind {
                namespace: Namespace::default(),
                name: Name::new(&number.to_string()).expect("a valid name"),
                description: None,
                metadata: None,
                header: Header::new(Kind::BYTES),
                ttl: None,
                payload: Payload::Inline { bytes: vec![7; 100].into() },
            },
        };
        let commit = |changes| Commit { conditions: vec![], changes, end_leases: vec![] };
        // Reading, placing and writing; checking and binding.
        let slices = model.apply(&commit((0..CHANGES).map(bind).collect()));
        assert_eq!(
            (stages(slices.preparing), stages(slices.working), slices.freeing),
            (3, 2, 0),
            "{slices:?}"
        );
        // The same with new objects: the old ones are freed.
        let slices = model.apply(&commit((0..CHANGES).map(bind).collect()));
        assert_eq!(
            (stages(slices.preparing), stages(slices.working), stages(slices.freeing + 1)),
            (3, 2, 1),
            "{slices:?}"
        );
        // One that fails at its last change: checking, and giving back its room.
        let twice = (0..CHANGES).chain([0]).map(bind).collect();
        let slices = model.apply(&commit(twice));
        assert_eq!((stages(slices.preparing), stages(slices.working)), (4, 1), "{slices:?}");
        let clear = Change::ClearNamespace { namespace: Namespace::default() };
        let slices = model.apply(&commit(vec![clear]));
        assert_eq!(
            (slices.preparing, stages(slices.working), stages(slices.freeing + 1)),
            (0, 1, 1),
            "{slices:?}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Invariants 3 and 6: whatever is committed, the catalog, the index and the arena hold exactly what a map
        /// of names would, and nothing else takes room.
        #[test]
        fn commits_do_what_they_would_to_a_map(
            steps in proptest::collection::vec(
                (any_commit(), any_pass(), 0_usize..20, proptest::bool::weighted(0.1)), 1..30
            ),
        ) {
            let mut model = Model::new();
            for (commit, ns, expire_at_most, ends) in &steps {
                model.apply(commit);
                model.pass(*ns, *expire_at_most);
                if *ends {
                    model.end_session();
                }
            }
        }
    }
}

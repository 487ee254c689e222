//! One commit on its way: it is read, its room is taken, then it waits its turn, and then it happens or it does not.
//!
//! The loop calls [`CommitJob::prepare`] until the commit has its room, and then, when its turn comes, [`CommitJob::work`]
//! until it is done. A commit whose turn it is is the only one that changes the catalog, so its checks hold until it is
//! done, even where it is worked off in slices. After the checks nothing can fail.
//!
//! | stage | what is done | file |
//! | --- | --- | --- |
//! | reading | the lists are gone through once, to see whether they can be read | `read.rs` |
//! | placing, writing | each payload gets room; what came in the message is written | `place.rs` |
//! | checking | conditions and changes are held against the catalog | `checks.rs` |
//! | applying | objects that get further names are held, then names are unbound and bound | `apply.rs` |
//! | announcing | who waits for the names is told | here |
//! | abandoning | the room is given back of a commit that does not happen | here |
//!
//! Each stage is a type, which has what that stage needs and no more.
//!
//! Whatever takes time for each change is done change by change, in slices, from the first look at the bytes to
//! giving back the room of a commit that fails.

mod apply;
mod checks;
mod entries;
#[cfg(test)]
mod past_tests;
mod place;
mod read;
mod restore;
mod sources;
#[cfg(test)]
mod tests;

pub(crate) use self::entries::kept_entries_max;

use self::{
    apply::Applying,
    checks::{CheckingChanges, CheckingConditions},
    entries::Entries,
    place::{Asked, Placing, Writing},
    read::{ReadingChanges, ReadingConditions, Summary},
};
use crate::{
    allocator::{Extent, Room},
    catalog::Catalog,
    copy::Run,
    objects::Objects,
    parked::{Parked, ReplyTo, Tried},
    session::SessionId,
    slice::Slice,
    space::Space,
    state::Versions,
};
use bytes::Bytes;
use plasmon_protocol::{
    id::NameId,
    message::{Change, Committed, Condition, Failure},
    name::{Name, Namespace},
};
use plasmon_shm::Region;
use std::collections::VecDeque;

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

/// What a slice of preparing came to.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// There is more to do.
    More,
    /// A payload finds no room. Preparing goes on with that payload, when there may be some.
    NoRoom(Room),
    /// It has its room, of which these steps of the arena must be populated before anything is written.
    Placed { missing: VecDeque<usize> },
    /// It can take its turn.
    Ready,
    /// It is over, and everything is as it was.
    Failed(Box<Failure>),
}

/// What a slice of work came to.
#[derive(Debug)]
pub(crate) enum Worked {
    /// There is more to do.
    More,
    /// All of it is visible.
    Done,
    /// The index has no room for so many names more. Nothing has changed; it is checked anew when its turn comes again.
    NoEntries(u64),
    /// Its conditions can be checked when all is unbound that had expired by then, by CLOCK_BOOTTIME. Nothing has changed.
    Expired { as_of_ns: u64 },
    /// It cannot happen. Nothing has changed; its room must be given back.
    Failed(Failure),
}

/// The lists of a commit that was read.
#[derive(Debug)]
struct Lists {
    conditions: Entries<Condition>,
    changes: Entries<Change>,
}

/// What the objects of the changes have, in the order of these: an extent, unless a change makes no object or one whose
/// value stands in the index.
type Extents = Vec<Option<Extent>>;

/// How far a commit is. It is moved whenever the commit goes on, so what is large in it is boxed.
#[derive(Debug)]
enum Stage {
    ReadingConditions(ReadingConditions),
    ReadingChanges(ReadingChanges),
    Placing(Placing),
    Writing(Writing),
    /// It has its room, and waits for its turn.
    Ready(Box<Lists>, Extents),
    CheckingConditions(CheckingConditions),
    CheckingChanges(Box<CheckingChanges>),
    Applying(Box<Applying>),
    Announcing(Announcing),
    Abandoning(Extents, Box<Failure>),
    /// Between two stages.
    Over,
}

/// What a stage comes to in a slice.
enum Step {
    /// The slice is over.
    NoTime(Stage),
    /// That is done, and this comes next.
    Next(Stage),
    /// The loop has to do something before this goes on.
    Stop(Stage, Prepared),
}

/// All of the commit is visible: those who wait for its names are told.
#[derive(Debug)]
struct Announcing {
    lists: Box<Lists>,
    ids: Ids,
    committed: Committed,
    /// Of the names that were unbound or restored those that somebody waits for.
    changed_waited: Vec<NameId>,
}

/// The ids of the names that are bound, in the order of the changes; only of a short commit.
#[derive(Debug, Default)]
struct Ids(Vec<Option<NameId>>);

impl Ids {
    /// The id of `name`, which change number `at` binds.
    fn of(&self, at: usize, namespace: &Namespace, name: &Name) -> NameId {
        let known = self.0.get(at).copied().flatten();
        known.unwrap_or_else(|| NameId::new(namespace, name))
    }
}

/// One commit on its way.
#[derive(Debug)]
pub(crate) struct CommitJob {
    pub(crate) reply_to: ReplyTo,
    pub(crate) writer: Writer,
    /// Its body stood in a lease.
    pub(crate) is_long: bool,
    /// What was done to make room for the payload that finds none.
    pub(crate) tried: Tried,
    body: Bytes,
    /// What must be copied into the arena from where the client wrote it.
    runs: Vec<Run>,
    /// What is known of its changes, once they were read.
    summary: Summary,
    /// Why it will not happen, if that is known before it was read.
    doom: Option<Box<Failure>>,
    /// What had expired by then, by CLOCK_BOOTTIME, must be unbound before its conditions are checked. Known when that was
    /// first needed.
    as_of_ns: Option<u64>,
    stage: Stage,
}

/// Bodies from this length on are freed by a helper.
const LARGE_BYTES: usize = 256 << 10;

impl CommitJob {
    /// A commit that nobody has looked at yet. `body` is memory that nobody else can write.
    pub(crate) fn new(reply_to: ReplyTo, writer: Writer, body: Bytes) -> CommitJob {
        let stage = match ReadingConditions::begin(body.clone()) {
            Ok(reading) => Stage::ReadingConditions(reading),
            Err(error) => Stage::Abandoning(Vec::new(), Box::new(read::malformed(&error))),
        };
        let (summary, tried, runs) = (Summary::default(), Tried::default(), Vec::new());
        let (doom, as_of_ns) = (None, None);
        CommitJob { reply_to, writer, is_long: false, tried, body, runs, summary, doom, as_of_ns, stage }
    }

    /// Bytes of the payloads that came in the message.
    pub(crate) fn inline_bytes(&self) -> u64 {
        self.summary.inline_bytes
    }

    /// The namespace that it learns in, if it learns anything.
    pub(crate) fn learns_in(&self) -> Option<&Namespace> {
        self.summary.learns_in.as_ref()
    }

    /// The leases that end with it. Known once it was read.
    pub(crate) fn end_leases(&self) -> &[u64] {
        &self.summary.end_leases
    }

    /// What must be copied into the arena from where the client wrote it, once the commit has its room.
    pub(crate) fn take_runs(&mut self) -> Vec<Run> {
        std::mem::take(&mut self.runs)
    }

    /// Whether it takes long to free its memory.
    pub(crate) fn is_large(&self) -> bool {
        self.body.len() >= LARGE_BYTES
    }

    /// Whether its turn has come and it is not all visible: nothing else changes the catalog.
    pub(crate) fn is_under_way(&self) -> bool {
        matches!(self.stage, Stage::CheckingConditions(_) | Stage::CheckingChanges(_) | Stage::Applying(_))
    }

    /// Whether some of its changes are visible, and others are not.
    pub(crate) fn is_half_visible(&self) -> bool {
        matches!(self.stage, Stage::Applying(_))
    }

    /// Whether some of its changes are visible.
    pub(crate) fn is_visible(&self) -> bool {
        matches!(self.stage, Stage::Applying(_) | Stage::Announcing(_))
    }

    /// It will not happen: [`prepare`](Self::prepare) gives back its room, and then says why. One that was not read is read
    /// first, because it says which leases end with it.
    pub(crate) fn fail(&mut self, failure: Failure) {
        let failure = Box::new(failure);
        let (extents, failure) = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Placing(placing) => (placing.into_extents(), failure),
            Stage::Writing(writing) => (writing.into_extents(), failure),
            Stage::Ready(_, extents) => (extents, failure),
            Stage::CheckingConditions(checking) => (checking.into_extents(), failure),
            Stage::CheckingChanges(checking) => (checking.into_extents(), failure),
            Stage::Abandoning(extents, first) => (extents, first),
            reading @ (Stage::ReadingConditions(_) | Stage::ReadingChanges(_)) => {
                self.doom.get_or_insert(failure);
                self.stage = reading;
                return;
            }
            Stage::Over => (Vec::new(), failure),
            visible @ (Stage::Applying(_) | Stage::Announcing(_)) => {
                debug_assert!(false, "a commit that is visible cannot fail");
                self.stage = visible;
                return;
            }
        };
        self.stage = Stage::Abandoning(extents, failure);
    }

    /// Reads the commit and takes its room, or gives it back, for as long as `slice` lasts.
    pub(crate) fn prepare(&mut self, bench: &mut Workbench<'_>, slice: &mut Slice) -> Prepared {
        loop {
            let step = match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::ReadingConditions(reading) => reading.run(slice),
                Stage::ReadingChanges(reading) => reading.run(&mut self.summary, slice),
                Stage::Placing(placing) => match self.doom.take() {
                    Some(failure) => Step::Next(Stage::Abandoning(placing.into_extents(), failure)),
                    None => {
                        let session = self.writer.session;
                        let asked = Asked { session, tried: &mut self.tried, runs: &mut self.runs };
                        placing.run(bench, asked, slice)
                    }
                },
                Stage::Writing(writing) => writing.run(bench, slice),
                Stage::Abandoning(extents, failure) => abandon(extents, failure, bench, slice),
                ready => Step::Stop(ready, Prepared::Ready),
            };
            match step {
                Step::Next(stage) => self.stage = stage,
                Step::NoTime(stage) => {
                    self.stage = stage;
                    return Prepared::More;
                }
                Step::Stop(stage, prepared) => {
                    self.stage = stage;
                    return prepared;
                }
            }
        }
    }

    /// Works until it is done, or for as long as `slice` lasts. It must be its turn.
    pub(crate) fn work(&mut self, bench: &mut Workbench<'_>, slice: &mut Slice) -> Worked {
        loop {
            let step = match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Ready(lists, extents) if lists.conditions.claimed() == 0 => {
                    let unbinds = self.summary.unbinds;
                    let checking = CheckingChanges::begin(lists, extents, bench.now_ns, unbinds);
                    Ok(Step::Next(Stage::CheckingChanges(Box::new(checking))))
                }
                Stage::Ready(lists, extents) => {
                    let checking = CheckingConditions::begin(lists, extents, bench.now_ns);
                    Ok(Step::Next(Stage::CheckingConditions(checking)))
                }
                Stage::CheckingConditions(checking) => {
                    checking.run(bench, self.summary.unbinds, self.as_of_ns, slice)
                }
                Stage::CheckingChanges(checking) => {
                    checking.run(bench, self.summary.unbinds, self.writer.is_own, slice)
                }
                Stage::Applying(applying) => Ok(applying.run(bench, self.writer, slice)),
                done => {
                    self.stage = done;
                    return Worked::Done;
                }
            };
            match step {
                Ok(Step::Next(stage)) => self.stage = stage,
                Ok(Step::NoTime(stage) | Step::Stop(stage, _)) => {
                    self.stage = stage;
                    return Worked::More;
                }
                Err(refused) => {
                    let Refused { lists, extents, why } = *refused;
                    self.stage = Stage::Ready(lists, extents);
                    return match why {
                        Why::NoEntries(missing) => Worked::NoEntries(missing),
                        Why::Expired => {
                            let as_of_ns = *self.as_of_ns.get_or_insert(bench.now_ns);
                            Worked::Expired { as_of_ns }
                        }
                        Why::Failure(failure) => Worked::Failed(failure),
                    };
                }
            }
        }
    }

    /// Hands the ids of the names that it bound to `tell`, for as long as `slice` lasts. Returns whether that was all.
    pub(crate) fn announce(&mut self, slice: &mut Slice, mut tell: impl FnMut(&NameId)) -> bool {
        let Stage::Announcing(Announcing { lists, ids, .. }) = &mut self.stage else { return true };
        let changes = &mut lists.changes;
        while slice.spend() {
            let at = changes.at();
            match changes.again() {
                Some(change) => {
                    let bound = change.bound_name();
                    bound.into_iter().for_each(|(namespace, name)| tell(&ids.of(at, namespace, name)));
                }
                None => return true,
            }
        }
        false
    }

    /// How many entries of its lists are kept decoded, while it waits for its turn.
    #[cfg(test)]
    fn kept_len(&self) -> usize {
        match &self.stage {
            Stage::Ready(lists, _) => lists.conditions.kept_len() + lists.changes.kept_len(),
            _ => 0,
        }
    }

    /// What it came to; `None` unless it is all visible.
    pub(crate) fn committed(&self) -> Option<&Committed> {
        match &self.stage {
            Stage::Announcing(announcing) => Some(&announcing.committed),
            _ => None,
        }
    }

    /// Of the names that it unbound or restored those that somebody waits for.
    pub(crate) fn take_changed_waited(&mut self) -> Vec<NameId> {
        match &mut self.stage {
            Stage::Announcing(announcing) => std::mem::take(&mut announcing.changed_waited),
            _ => Vec::new(),
        }
    }
}

/// A commit whose checks have failed. It keeps its room.
struct Refused {
    lists: Box<Lists>,
    extents: Extents,
    why: Why,
}

enum Why {
    /// The index has no room for so many names more.
    NoEntries(u64),
    /// Something that has expired is not unbound.
    Expired,
    Failure(Failure),
}

/// Gives back the room of a commit that does not happen.
fn abandon(
    mut extents: Extents,
    failure: Box<Failure>,
    bench: &mut Workbench<'_>,
    slice: &mut Slice,
) -> Step {
    while slice.spend() {
        match extents.pop() {
            Some(extent) => extent.into_iter().for_each(|extent| bench.space.unclaim(extent)),
            None => return Step::Stop(Stage::Over, Prepared::Failed(failure)),
        }
    }
    Step::NoTime(Stage::Abandoning(extents, failure))
}

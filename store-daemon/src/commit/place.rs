//! Taking room for payloads: extents for those that came in the message, pieces of leases for the others. What came in
//! the message is written at once where its pages are there, and else when they are.
//!
//! `CommitJob::prepare` runs this stage when the commit has been read, and again when what it waited for is there.

use super::{Extents, Lists, Prepared, Stage, Step, Workbench};
use crate::{
    allocator::{Extent, Room},
    copy::Run,
    parked::Tried,
    session::SessionId,
    slice::Slice,
    space::{LeaseId, PieceError},
};
use plasmon_protocol::{
    limits,
    message::{Bind, Change, Failure, Payload},
};
use plasmon_shm::Region;
use std::{collections::BTreeSet, sync::Arc};

/// Payloads get their room, one after the other.
#[derive(Debug)]
pub(super) struct Placing {
    lists: Box<Lists>,
    extents: Extents,
    /// The change that found no room.
    held_back: Option<Arc<Change>>,
    /// Bytes of extents that the payloads need which have none.
    unplaced_bytes: u64,
    /// Steps of the arena that must be populated before the objects in them are written.
    missing: BTreeSet<usize>,
}

/// The pages are there: what came in the message is written.
#[derive(Debug)]
pub(super) struct Writing {
    lists: Box<Lists>,
    extents: Extents,
}

/// What placing has to know of the commit, and tells it.
pub(super) struct Asked<'a> {
    pub(super) session: SessionId,
    /// What was done to make room: nothing, for a payload that finds some.
    pub(super) tried: &'a mut Tried,
    /// What must be copied into the arena from where the client wrote it.
    pub(super) runs: &'a mut Vec<Run>,
}

/// What placing a payload came to.
enum Placed {
    Done,
    /// It finds no room.
    NoRoom(Room),
}

impl Placing {
    pub(super) fn begin(mut lists: Box<Lists>, unplaced_bytes: u64) -> Self {
        lists.changes.rewind();
        let extents = Vec::with_capacity(lists.changes.claimed());
        let (held_back, missing) = (None, BTreeSet::new());
        Placing { lists, extents, held_back, unplaced_bytes, missing }
    }

    pub(super) fn into_extents(self) -> Extents {
        self.extents
    }

    #[inline]
    pub(super) fn run(mut self, bench: &mut Workbench<'_>, mut job: Asked<'_>, slice: &mut Slice) -> Step {
        while slice.spend() {
            let Some(change) = self.held_back.take().or_else(|| self.lists.changes.again()) else {
                return self.end();
            };
            match self.place(bench, &mut job, change) {
                Ok(Placed::Done) => {}
                Ok(Placed::NoRoom(room)) => return Step::Stop(Stage::Placing(self), Prepared::NoRoom(room)),
                Err(failure) => return Step::Next(Stage::Abandoning(self.extents, Box::new(failure))),
            }
        }
        Step::NoTime(Stage::Placing(self))
    }

    /// All payloads have their room.
    fn end(self) -> Step {
        let Placing { mut lists, extents, missing, .. } = self;
        let is_written = missing.is_empty();
        let next = if is_written {
            Stage::Ready(lists, extents)
        } else {
            lists.changes.rewind();
            Stage::Writing(Writing { lists, extents })
        };
        Step::Stop(next, Prepared::Placed { missing: missing.into_iter().collect() })
    }

    /// Takes room for one payload.
    fn place(
        &mut self,
        bench: &mut Workbench<'_>,
        job: &mut Asked<'_>,
        change: Arc<Change>,
    ) -> Result<Placed, Failure> {
        let extent = match change.bind().map(|bind| &bind.payload) {
            Some(Payload::Inline { bytes }) => {
                let len_bytes = bytes.len() as u64;
                let limit_bytes = u64::from(limits::INLINE_BYTES_MAX);
                if len_bytes == 0 || len_bytes > limit_bytes {
                    let what = "a payload that travels in a message (at least 1 byte)".to_owned();
                    return Err(Failure::TooLarge { what, found_bytes: len_bytes, limit_bytes });
                }
                let Some(extent) = bench.space.allocate(len_bytes) else {
                    let room = Room { len_bytes, in_pages: false, total_bytes: self.unplaced_bytes };
                    self.held_back = Some(change);
                    return Ok(Placed::NoRoom(room));
                };
                self.unplaced_bytes -= extent.len_bytes;
                *job.tried = Tried::default();
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
                let piece = bench.space.claim_piece(job.session, id, *offset, *len_bytes).map_err(refused)?;
                if let Some(run) = bench.space.staged(id, piece) {
                    join(job.runs, run);
                }
                Some(piece)
            }
            _ => None,
        };
        self.extents.push(extent);
        Ok(Placed::Done)
    }
}

impl Writing {
    pub(super) fn into_extents(self) -> Extents {
        self.extents
    }

    #[inline]
    pub(super) fn run(mut self, bench: &mut Workbench<'_>, slice: &mut Slice) -> Step {
        while slice.spend() {
            let extent = self.extents.get(self.lists.changes.at()).copied().flatten();
            let Some(change) = self.lists.changes.again() else {
                return Step::Next(Stage::Ready(self.lists, self.extents));
            };
            if let (Some(extent), Some(Bind { payload: Payload::Inline { bytes }, .. })) =
                (extent, change.bind())
                && let Err(failure) = write(bench.arena, extent, bytes)
            {
                return Step::Next(Stage::Abandoning(self.extents, Box::new(failure)));
            }
        }
        Step::NoTime(Stage::Writing(self))
    }
}

fn write(arena: &Region, extent: Extent, bytes: &[u8]) -> Result<(), Failure> {
    let written = arena.write_at(extent.offset, bytes);
    written.map_err(|error| Failure::Internal { reason: error.to_string() })
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

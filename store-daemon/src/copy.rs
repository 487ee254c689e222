//! Copies what would hold up the loop, and lets go of what is large, on a thread of its own.
//!
//! What a client writes into shared memory may change while it is looked at, so nobody looks at it there: the body of
//! a long commit is copied into private memory, and an object of a session that has no way to write the arena from
//! its staging region into the arena, where nobody else can write it any more. Both by reading and writing files:
//! nothing is mapped, and no client can make the daemon touch a page that is not there.
//!
//! Jobs take turns step by step, so that a small one does not wait behind a large one.
//!
//! `startup/helpers.rs` starts the thread. The loop sends it jobs when it carries out effects of the state, and hears
//! the reports at a later turn.

use crate::allocator::Extent;
use bytes::Bytes;
use plasmon_shm::{Error, FaultPoint, Region, fault_point};
use std::{
    any::Any,
    collections::VecDeque,
    fmt,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, TryRecvError},
    },
};

/// Bytes copied in one step.
const STEP_BYTES: u64 = 1 << 20;

/// A run of bytes of a region.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) from: Arc<Region>,
    /// Offset in that region.
    pub(crate) offset: u64,
    /// Where they belong in the arena.
    pub(crate) to: Extent,
}

/// What is to be done.
pub(crate) enum CopyJob {
    /// Copy a run into private memory, for the ticket.
    Body { ticket: u64, run: Run },
    /// Copy runs into the arena, for the ticket.
    Objects { ticket: u64, runs: Vec<Run> },
    /// Free the memory of something large.
    LetGo(Box<dyn Any + Send>),
}

/// What the helper tells the loop.
pub(crate) enum Copied {
    /// The body that was asked for.
    Body { ticket: u64, body: Result<Bytes, String> },
    /// The objects are in the arena, or why not.
    Objects { ticket: u64, done: Result<(), String> },
}

/// The loop's side: where jobs go.
#[derive(Debug)]
pub(crate) struct Copies(pub(crate) Sender<CopyJob>);

impl Copies {
    pub(crate) fn ask(&self, job: CopyJob) {
        // The thread ends only when this sender is dropped.
        let _ = self.0.send(job);
    }
}

/// A job that has begun.
enum Begun {
    Body { ticket: u64, run: Run, body: Vec<u8> },
    Objects { ticket: u64, runs: VecDeque<Run> },
}

/// Does what it is asked until the loop is gone.
pub(crate) fn run(arena: &Region, jobs: &Receiver<CopyJob>, mut tell: impl FnMut(Copied)) {
    let mut begun: VecDeque<Begun> = VecDeque::new();
    let mut buffer = Vec::new();
    loop {
        let next = match begun.is_empty() {
            true => jobs.recv().map_err(|_| TryRecvError::Disconnected),
            false => jobs.try_recv(),
        };
        match next {
            Ok(CopyJob::LetGo(large)) => drop(large),
            Ok(CopyJob::Body { ticket, run }) => {
                begun.push_back(Begun::Body { ticket, run, body: Vec::new() });
            }
            Ok(CopyJob::Objects { ticket, runs }) => {
                begun.push_back(Begun::Objects { ticket, runs: runs.into() });
            }
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => {}
        }
        if let Some(job) = begun.pop_front()
            && let Some(more) = step(job, arena, &mut buffer, &mut tell)
        {
            begun.push_back(more);
        }
        if begun.is_empty() {
            buffer = Vec::new();
        }
    }
}

/// One step of a job; what is left of it, if anything.
fn step(job: Begun, arena: &Region, buffer: &mut Vec<u8>, tell: &mut impl FnMut(Copied)) -> Option<Begun> {
    match job {
        Begun::Body { ticket, run, mut body } => {
            let done = body.len() as u64;
            let len_bytes = (run.to.len_bytes - done).min(STEP_BYTES);
            let wanted = plasmon_protocol::index_of(run.to.len_bytes);
            body.reserve_exact(wanted - body.len());
            body.resize(plasmon_protocol::index_of(done + len_bytes), 0);
            let read = run.from.read_at(run.offset + done, &mut body[plasmon_protocol::index_of(done)..]);
            fault_point(FaultPoint::Copied);
            let body = match read {
                Ok(()) if body.len() < wanted => return Some(Begun::Body { ticket, run, body }),
                Ok(()) => Ok(body.into()),
                Err(error) => Err(error.to_string()),
            };
            tell(Copied::Body { ticket, body });
        }
        Begun::Objects { ticket, mut runs } => {
            let done = match runs.front_mut().map(|run| copy_step(run, arena, buffer)) {
                Some(Ok(())) => {
                    if runs.front().is_some_and(|run| run.to.len_bytes == 0) {
                        runs.pop_front();
                    }
                    return Some(Begun::Objects { ticket, runs });
                }
                Some(Err(error)) => Err(error.to_string()),
                None => Ok(()),
            };
            tell(Copied::Objects { ticket, done });
        }
    }
    None
}

/// Copies the beginning of `run`, and shortens it by that.
fn copy_step(run: &mut Run, arena: &Region, buffer: &mut Vec<u8>) -> Result<(), Error> {
    let len_bytes = run.to.len_bytes.min(STEP_BYTES);
    buffer.resize(plasmon_protocol::index_of(len_bytes), 0);
    run.from.read_at(run.offset, buffer)?;
    arena.write_at(run.to.offset, buffer)?;
    fault_point(FaultPoint::Copied);
    run.offset += len_bytes;
    run.to = Extent { offset: run.to.offset + len_bytes, len_bytes: run.to.len_bytes - len_bytes };
    Ok(())
}

impl fmt::Debug for CopyJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CopyJob::Body { ticket, run } => write!(f, "Body({ticket}, {run:?})"),
            CopyJob::Objects { ticket, runs } => write!(f, "Objects({ticket}, {} runs)", runs.len()),
            CopyJob::LetGo(_) => write!(f, "LetGo"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plasmon_shm::{Backend, Kernel};
    use std::sync::mpsc;

    fn region(len_bytes: u64) -> Arc<Region> {
        Arc::new(Region::create("plasmon-test", len_bytes, Backend::Memfd, &Kernel::detect()).unwrap())
    }

    #[test]
    fn bodies_and_objects_are_copied_whole() {
        let (arena, staging) = (region(8 << 20), region(4 << 20));
        let bytes: Vec<u8> = (0..4_u32 << 18).flat_map(u32::to_le_bytes).collect();
        staging.write_at(0, &bytes).unwrap();
        let extent = |offset, len_bytes| Extent { offset, len_bytes };
        let run = |offset, to| Run { from: Arc::clone(&staging), offset, to };
        let (ask, jobs) = mpsc::channel();
        let all = run(0, extent(0, 4 << 20));
        ask.send(CopyJob::Body { ticket: 1, run: all }).unwrap();
        let runs = vec![run(64, extent(4096, 128)), run(1 << 20, extent(64 << 10, (1 << 20) + 64))];
        ask.send(CopyJob::Objects { ticket: 2, runs }).unwrap();
        ask.send(CopyJob::LetGo(Box::new(bytes.clone()))).unwrap();
        ask.send(CopyJob::Body { ticket: 2, run: run(0, extent(0, 5 << 20)) }).unwrap(); // longer than the region
        let mut answers = Vec::new();
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            let arena = &arena;
            scope.spawn(move || super::run(arena, &jobs, |copied| tell.send(copied).unwrap()));
            (0..3).for_each(|_| answers.push(told.recv().unwrap()));
            drop(ask);
        });
        let mut seen = Vec::new();
        for answer in answers {
            match answer {
                Copied::Body { body: Ok(body), .. } => {
                    assert!(body == bytes);
                    seen.push(1);
                }
                Copied::Objects { ticket, done } => {
                    done.unwrap();
                    seen.push(ticket);
                }
                Copied::Body { body: Err(_), .. } => seen.push(3),
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3]);
        let mut copied = vec![0; (1 << 20) + 64];
        arena.read_at(64 << 10, &mut copied).unwrap();
        assert!(copied[..] == bytes[1 << 20..(2 << 20) + 64]);
        arena.read_at(4096, &mut copied[..128]).unwrap();
        assert!(copied[..128] == bytes[64..192]);
    }
}

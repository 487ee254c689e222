//! Claims the arena's memory from the machine, on a thread of its own.
//!
//! Population goes up from the low end in steps of 2 MiB. A grant that needs pages not yet populated is served first:
//! its request waits, the event loop does not. Demands take turns step by step, so that a small one does not wait
//! behind a large one. Before each 64 MiB the thread compares what it is about to take with what machine and cgroups
//! leave, because trying would be answered by SIGKILL, not by an error.
//!
//! `startup/helpers.rs` starts the thread, and the loop sends it demands. With `--reserve now`, `startup::prepare`
//! populates everything itself before there is a thread.

use crate::{
    allocator::{Extent, STEP_BYTES},
    memory::{Bounds, Headroom},
};
use plasmon_shm::{FaultPoint, Region, fault_point};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError},
    },
    time::Duration,
};

/// Bytes populated between two looks at the machine's memory.
const CHECK_EVERY_BYTES: u64 = 64 << 20;

/// Steps that the background reports at once, so that it seldom wakes the loop.
const REPORT_EVERY_STEPS: usize = 16;

/// How long the background rests when memory does not suffice, before it looks again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Which steps of the arena are populated.
#[derive(Clone, Debug)]
pub(crate) struct Populated {
    steps: Vec<bool>,
    first_missing: usize,
    count: usize,
    capacity_bytes: u64,
}

impl Populated {
    /// Nothing of `capacity_bytes` is populated.
    #[must_use]
    pub(crate) fn nothing(capacity_bytes: u64) -> Self {
        let steps = vec![false; plasmon_protocol::index_of(capacity_bytes.div_ceil(STEP_BYTES))];
        Populated { steps, first_missing: 0, count: 0, capacity_bytes }
    }

    /// Everything counts as populated: the policy is to leave it to the writers.
    #[must_use]
    pub(crate) fn by_writers(capacity_bytes: u64) -> Self {
        let mut populated = Populated::nothing(capacity_bytes);
        (0..populated.steps.len()).for_each(|step| populated.add(step));
        populated
    }

    /// Notes that `step` is populated.
    pub(crate) fn add(&mut self, step: usize) {
        if let Some(known @ false) = self.steps.get_mut(step) {
            *known = true;
            self.count += 1;
            while self.steps.get(self.first_missing) == Some(&true) {
                self.first_missing += 1;
            }
        }
    }

    /// The population mark: everything below it, in bytes, is populated.
    #[must_use]
    pub(crate) fn mark(&self) -> u64 {
        (self.first_missing as u64 * STEP_BYTES).min(self.capacity_bytes)
    }

    /// Bytes populated.
    #[must_use]
    pub(crate) fn bytes(&self) -> u64 {
        (self.count as u64 * STEP_BYTES).min(self.capacity_bytes)
    }

    /// The steps that `extent` needs and that are not populated.
    #[must_use]
    pub(crate) fn missing(&self, extent: Extent) -> VecDeque<usize> {
        if extent.end() <= self.mark() {
            return VecDeque::new();
        }
        let first = plasmon_protocol::index_of(extent.offset / STEP_BYTES);
        let end = plasmon_protocol::index_of(extent.end().div_ceil(STEP_BYTES));
        (first..end).filter(|&step| self.steps.get(step) == Some(&false)).collect()
    }

    fn next_missing(&self) -> Option<usize> {
        (self.first_missing < self.steps.len()).then_some(self.first_missing)
    }

    fn extent_of(&self, step: usize) -> Extent {
        let offset = step as u64 * STEP_BYTES;
        Extent { offset, len_bytes: STEP_BYTES.min(self.capacity_bytes - offset) }
    }
}

/// A grant that waits for its pages.
#[derive(Debug)]
pub(crate) struct Demand {
    /// Given back with the answer.
    pub(crate) ticket: u64,
    /// The steps to populate.
    pub(crate) steps: VecDeque<usize>,
}

/// What the helper thread tells the loop.
#[derive(Debug)]
pub(crate) enum Progress {
    /// These steps are populated now.
    Steps(Vec<usize>),
    /// The demand with this ticket is met.
    Met(u64),
    /// The demand cannot be met: populating more would exceed what machine or cgroup leaves.
    Short(u64),
}

/// The helper's side.
pub(crate) struct Populator<Report> {
    arena: Arc<Region>,
    bounds: Bounds,
    populated: Populated,
    demands: VecDeque<Demand>,
    background: bool,
    allowance_bytes: u64,
    unreported: Vec<usize>,
    report: Report,
}

impl<Report: FnMut(Progress)> Populator<Report> {
    pub(crate) fn new(arena: Arc<Region>, capacity_bytes: u64, bounds: Bounds, report: Report) -> Self {
        Populator {
            arena,
            bounds,
            populated: Populated::nothing(capacity_bytes),
            demands: VecDeque::new(),
            background: false,
            allowance_bytes: 0,
            unreported: Vec::new(),
            report,
        }
    }

    /// Lets [`run`](Self::run) populate the rest whenever nobody asks for pages.
    pub(crate) fn in_background(mut self) -> Self {
        self.background = true;
        self
    }

    /// Populates everything before it returns, or what it can until `interrupted` says so. Returns whether it was not.
    ///
    /// # Errors
    /// What is left where it did not fit.
    pub(crate) fn populate_all(&mut self, interrupted: impl Fn() -> bool) -> Result<bool, Headroom> {
        while let Some(step) = self.populated.next_missing() {
            if interrupted() {
                return Ok(false);
            }
            self.step(step)?;
        }
        Ok(true)
    }

    pub(crate) fn populated_bytes(&self) -> u64 {
        self.populated.bytes()
    }

    /// Serves demands, and the background where that is the policy, until the loop is gone.
    pub(crate) fn run(mut self, demands: &Receiver<Demand>) {
        let mut resting = false;
        loop {
            let idle = self.demands.is_empty();
            let has_background = self.background && self.populated.next_missing().is_some();
            let received = match (idle, has_background, resting) {
                (false, _, _) | (true, true, false) => demands.try_recv().map_err(|error| match error {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                }),
                (true, true, true) => demands.recv_timeout(RETRY_AFTER),
                (true, false, _) => demands.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match received {
                Ok(demand) => self.demands.push_back(demand),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => resting = false,
            }
            if let Some(demand) = self.demands.pop_front() {
                self.serve(demand);
            } else if has_background && !resting {
                let step = self.populated.next_missing().expect("the background has a step left");
                resting = self.step(step).is_err();
                let done = self.populated.next_missing().is_none();
                if resting || done || self.unreported.len() >= REPORT_EVERY_STEPS {
                    self.tell_steps();
                }
            }
        }
    }

    /// One step of one demand, which then goes to the back of the queue.
    fn serve(&mut self, mut demand: Demand) {
        let step = demand.steps.pop_front();
        if step.is_some_and(|step| self.step(step).is_err()) {
            self.tell_steps();
            (self.report)(Progress::Short(demand.ticket));
        } else if demand.steps.is_empty() {
            self.tell_steps();
            (self.report)(Progress::Met(demand.ticket));
        } else {
            self.demands.push_back(demand);
        }
    }

    fn step(&mut self, step: usize) -> Result<(), Headroom> {
        if self.populated.steps.get(step) != Some(&false) {
            return Ok(());
        }
        let extent = self.populated.extent_of(step);
        self.allow(extent.len_bytes)?;
        let failed = |error: &dyn std::fmt::Display| Headroom { bytes: 0, bound_by: error.to_string() };
        // A huge page first; small pages only after another look at what is left: a failed collapse may mean
        // that memory is short, and populating small pages beyond a limit is answered by SIGKILL.
        if self.arena.populate_step(extent.offset, extent.len_bytes, false).is_err() {
            self.allowance_bytes = 0;
            self.allow(extent.len_bytes)?;
            let fallback = self.arena.populate_step(extent.offset, extent.len_bytes, true);
            fallback.map_err(|error| failed(&error))?;
        }
        fault_point(FaultPoint::Populated);
        self.allowance_bytes -= extent.len_bytes;
        self.populated.add(step);
        self.unreported.push(step);
        Ok(())
    }

    /// Makes sure that `len_bytes` more may be taken.
    fn allow(&mut self, len_bytes: u64) -> Result<(), Headroom> {
        if self.allowance_bytes >= len_bytes {
            return Ok(());
        }
        let headroom = self.bounds.headroom();
        if headroom.bytes < len_bytes {
            return Err(headroom);
        }
        self.allowance_bytes = headroom.bytes.min(CHECK_EVERY_BYTES).max(len_bytes);
        Ok(())
    }

    fn tell_steps(&mut self) {
        if !self.unreported.is_empty() {
            (self.report)(Progress::Steps(std::mem::take(&mut self.unreported)));
        }
    }
}

/// The loop's side: where demands go.
#[derive(Debug)]
pub(crate) struct Demands(pub(crate) Sender<Demand>);

impl Demands {
    /// Asks for `steps`; the answer carries `ticket`.
    pub(crate) fn ask(&self, ticket: u64, steps: VecDeque<usize>) {
        // The thread ends only when this sender is dropped.
        let _ = self.0.send(Demand { ticket, steps });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_rises_over_steps_that_were_populated_out_of_order() {
        let mut populated = Populated::nothing(5 * STEP_BYTES + 1);
        populated.add(1);
        assert_eq!((populated.mark(), populated.bytes()), (0, STEP_BYTES));
        populated.add(0);
        populated.add(0);
        assert_eq!((populated.mark(), populated.bytes()), (2 * STEP_BYTES, 2 * STEP_BYTES));
        let extent = Extent { offset: STEP_BYTES, len_bytes: 3 * STEP_BYTES };
        assert_eq!(populated.missing(extent), [2, 3]);
        (2..6).for_each(|step| populated.add(step));
        assert_eq!(populated.mark(), 5 * STEP_BYTES + 1);
        assert!(populated.missing(extent).is_empty());
    }

    #[test]
    fn steps_beyond_the_arena_are_ignored() {
        let mut populated = Populated::nothing(10);
        populated.add(7);
        assert_eq!(populated.bytes(), 0);
        populated.add(0);
        assert_eq!(populated.bytes(), 10);
    }
}

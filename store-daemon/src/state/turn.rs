//! What is due at the end of a turn of the loop, and when the loop must wake for it: one list.
//!
//! The loop runs each of the [`STEPS`] that is due, after it has handed in what has come. Before it sleeps it asks
//! [`State::due`] when it must wake.

use super::State;
use crate::{clock::Clock, copy::CopyJob, effect::Effect, parked::Key, reclaim::Report};
use plasmon_protocol::message::Failure;
use std::time::{Duration, Instant};

/// How often all pins are looked at while there are sessions, so that `pins` can say since when they are held, and
/// how often the processes behind closed lifelines are looked at.
pub(super) const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(1);

/// When something is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    Now,
    At(Instant),
    Never,
}

impl Due {
    pub(crate) fn now_if(is_due: bool) -> Due {
        if is_due { Due::Now } else { Due::Never }
    }

    pub(crate) fn at(at: Option<Instant>) -> Due {
        at.map_or(Due::Never, Due::At)
    }

    /// Whether it is to be done now.
    pub(crate) fn is_now(self, clock: &Clock) -> bool {
        match self {
            Due::Now => true,
            Due::At(at) => at <= clock.now(),
            Due::Never => false,
        }
    }
}

/// One thing that the loop does at the end of a turn, for a slice at most.
pub(crate) struct Step {
    /// When it is to be done.
    due: fn(&State) -> Due,
    run: fn(&mut State),
}

impl Step {
    /// Does it if it is due. Returns whether it was.
    pub(crate) fn run_if_due(&self, state: &mut State) -> bool {
        let is_due = (self.due)(state).is_now(&state.clock);
        if is_due {
            (self.run)(state);
        }
        is_due
    }
}

/// All of them, in the order in which a turn does them.
pub(crate) const STEPS: &[Step] = &[
    Step {
        due: |state| Due::now_if(state.has_backlog() || state.scans.is_ending()),
        run: State::free_backlog,
    },
    Step { due: |state| Due::now_if(state.parked.can_go_on(state.moment())), run: State::resume_met },
    Step { due: |state| Due::now_if(state.unbinding.has_slid()), run: State::slide_deadlines },
    Step { due: State::expiry_due, run: State::expire_bindings },
    Step { due: State::judging_due, run: State::judge_past },
    Step { due: |state| Due::now_if(state.unbinding.has_departed()), run: State::unbind_ephemeral },
    Step { due: |state| Due::now_if(state.can_evict()), run: State::evict },
    Step { due: |state| Due::now_if(state.commits.has_preparing()), run: State::prepare_commits },
    Step { due: |state| Due::now_if(state.commits.has_turns()), run: State::work_off_commits },
    Step { due: |state| Due::now_if(state.unbinding.has_untold()), run: State::tell_unbound },
    Step { due: |state| Due::now_if(!state.listings.is_empty()), run: State::list_on },
    Step { due: |state| Due::at(state.parked.next_deadline()), run: State::end_late_waits },
    Step { due: |state| Due::now_if(!state.ended.is_empty()), run: State::drop_ended },
    Step { due: |state| Due::now_if(state.space.has_let_go()), run: State::let_go_of_regions },
    Step { due: State::housekeeping_due, run: State::keep_house },
    Step { due: |state| Due::now_if(state.looks.can_begin()), run: State::start_look },
    Step { due: |state| Due::at(state.scan_due()), run: |state| state.start_scan(Report::Limbo) },
];

impl State {
    /// When the next turn is due.
    pub(crate) fn due(&self) -> Due {
        let due = STEPS.iter().map(|step| (step.due)(self)).min().unwrap_or(Due::Never);
        debug_assert!(due == Due::Now || self.nothing_waits_in_vain(), "something waits that could go on");
        due
    }

    /// Whether what waits has somebody who will wake it. What waits for the state itself is compared with that in every
    /// turn; a helper's job that was forgotten would be found here by every test that runs a store.
    fn nothing_waits_in_vain(&self) -> bool {
        self.scans_are_on_their_way()
            && (self.eviction.is_some() || !self.parked.needs(Key::Room, Key::Room))
            && (self.commits_have_long() || !self.parked.needs(Key::LongCommit, Key::LongCommit))
    }

    fn expiry_due(&self) -> Due {
        if self.catalog.has_put_off() {
            return Due::Now;
        }
        Due::at(self.catalog.next_expiry().map(|at_ns| self.clock.at_boottime(at_ns)))
    }

    fn judging_due(&self) -> Due {
        if self.catalog.past.has_loosened() {
            return Due::Now;
        }
        Due::at(self.catalog.past.next_too_old().map(|at_ns| self.clock.at_boottime(at_ns)))
    }

    fn housekeeping_due(&self) -> Due {
        let keeps_house = self.sessions.len() > 0 || self.scans.has_left_behind();
        if keeps_house { Due::At(self.next_housekeeping) } else { Due::Never }
    }

    fn keep_house(&mut self) {
        self.next_housekeeping = self.clock.now() + HOUSEKEEPING_EVERY;
        self.start_collecting();
        self.looks.is_due |= self.sessions.orphan_count() > 0;
        self.list_few_pins();
    }

    /// Goes on with what has what it needs, for a slice.
    fn resume_met(&mut self) {
        let mut slice = self.clock.slice();
        while let Some((who, version)) = self.parked.take_come() {
            self.answer_wait(who, version);
            if slice.is_over() {
                return;
            }
        }
        self.parked.wake(self.moment(), &mut slice);
        while let Some(who) = self.parked.take_ready() {
            self.resume(who);
            if slice.is_over() {
                return;
            }
        }
    }

    /// Ends waits that have lasted long enough, for a slice.
    fn end_late_waits(&mut self) {
        let mut slice = self.clock.slice();
        let now = self.clock.now();
        while let Some(who) = self.parked.take_late(now) {
            self.fail(who.reply_to, Failure::WaitTimeout);
            if slice.is_over() {
                return;
            }
        }
    }

    /// Drops what connections wait for that are not there any more, for a slice.
    fn drop_ended(&mut self) {
        let mut slice = self.clock.slice();
        while slice.spend()
            && let Some(&connection) = self.ended.last()
        {
            match self.parked.take_of(connection) {
                Some(who) => self.abandon(who),
                None => drop(self.ended.pop()),
            }
        }
    }

    /// Regions that no lease needs any more are freed elsewhere: that takes as long as they are large.
    fn let_go_of_regions(&mut self) {
        for region in self.space.let_go() {
            self.effect(Effect::Copy(CopyJob::LetGo(Box::new(region))));
        }
    }
}

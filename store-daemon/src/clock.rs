//! The clocks that the loop goes by. Tests of the loop go by one of their own, which stands still until they move it.
//!
//! `State` has the clock, and everything that it calls asks that one for the time and for slices.

use crate::slice::Slice;
#[cfg(test)]
use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};
use std::time::{Duration, Instant};

/// What time it is, and how long a slice of time is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    #[cfg(test)]
    simulated: Option<Arc<Simulated>>,
}

/// A clock that stands still.
#[cfg(test)]
#[derive(Debug)]
struct Simulated {
    start: Instant,
    passed_ns: AtomicU64,
    slice_entries: AtomicU32,
}

/// What CLOCK_BOOTTIME shows when a simulated clock starts, in nanoseconds.
#[cfg(test)]
const SIMULATED_BOOTTIME_NS: u64 = 1_000_000_000_000;

impl Clock {
    /// The clock that deadlines of waits, scans and connections go by. It stands still while the machine is suspended.
    pub(crate) fn now(&self) -> Instant {
        #[cfg(test)]
        if let Some(simulated) = &self.simulated {
            return simulated.start + Duration::from_nanos(simulated.passed_ns.load(Ordering::Relaxed));
        }
        Instant::now()
    }

    /// CLOCK_BOOTTIME, in nanoseconds: what bindings expire by.
    pub(crate) fn boottime_ns(&self) -> u64 {
        #[cfg(test)]
        if let Some(simulated) = &self.simulated {
            return SIMULATED_BOOTTIME_NS + simulated.passed_ns.load(Ordering::Relaxed);
        }
        plasmon_shm::boottime_ns()
    }

    /// When it will be `boottime_ns` of CLOCK_BOOTTIME, unless the machine is suspended meanwhile.
    pub(crate) fn at_boottime(&self, boottime_ns: u64) -> Instant {
        self.now() + Duration::from_nanos(boottime_ns.saturating_sub(self.boottime_ns()))
    }

    /// A slice of time that begins now.
    pub(crate) fn slice(&self) -> Slice {
        #[cfg(test)]
        if let Some(simulated) = &self.simulated {
            return Slice::of_entries(simulated.slice_entries.load(Ordering::Relaxed));
        }
        Slice::begin()
    }
}

#[cfg(test)]
impl Clock {
    /// A clock that stands still, and slices of so many entries.
    pub(crate) fn simulated(slice_entries: u32) -> Clock {
        let (start, passed_ns) = (Instant::now(), AtomicU64::new(0));
        let slice_entries = AtomicU32::new(slice_entries);
        Clock { simulated: Some(Arc::new(Simulated { start, passed_ns, slice_entries })) }
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, time: Duration) {
        let simulated = self.simulated.as_ref().expect("a simulated clock");
        let ns = u64::try_from(time.as_nanos()).expect("less than 500 years");
        simulated.passed_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

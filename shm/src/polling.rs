//! Looking a few times before sleeping.

use std::time::{Duration, Instant};

/// How long is looked before sleeping: longer than the other side needs for most requests and answers, and about what
/// falling asleep and being woken costs both sides of a quiet machine's socket (10 to 40 µs where an idle processor
/// must be woken by another one).
const LOOK_FOR: Duration = Duration::from_micros(20);

/// A processor lent for so long went to somebody who has work to do.
const LENT_LONG: Duration = Duration::from_micros(500);

/// For so many times as long it is slept without looking, if meanwhile something has come that had to wait.
const IN_PEACE: u32 = 16;

/// Decides between looking for an answer that is about to come and sleeping until it is there.
///
/// Two processes that answer each other in a few microseconds spend more time on falling asleep and on waking each
/// other than on their work. So each side looks again and again, for 20 microseconds and what the other side is known to
/// need beyond that, and lends its processor to whoever wants it between two looks: where both share one processor, that
/// is what lets the other side answer at all. A processor that comes back late was wanted by somebody with more to do;
/// whoever lends one is put behind by the kernel's scheduler. If something has come meanwhile, lending has done harm: then
/// it is slept at once for 16 times as long as that took, so that at most about a 16th of the time is lost in this way.
///
/// This changes when a system call is made, never which: it needs no shared memory and no agreement with the other
/// side, which may look, or sleep, as it likes.
///
/// # Example
///
/// ```
/// use std::{sync::mpsc::channel, time::Duration};
///
/// let (sender, receiver) = channel();
/// let thread = std::thread::spawn(move || sender.send(7));
/// let mut polling = plasmon_shm::Polling::default();
/// let word = match polling.look(Duration::ZERO, || receiver.try_recv().ok()) {
///     Some(word) => word,
///     None => receiver.recv()?, // not within that short time
/// };
/// assert_eq!(word, 7);
/// # thread.join().unwrap().unwrap();
/// # Ok::<(), std::sync::mpsc::RecvError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Polling {
    /// Others want the processors: no looking until then.
    busy_until: Option<Instant>,
}

impl Polling {
    /// Looks until there is something or it is time to sleep. Looks once at the least.
    ///
    /// `work` is how long the other side needs beyond what most requests take.
    pub fn look<T>(&mut self, work: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        let found = look();
        if found.is_some() {
            return found;
        }
        let mut now = Instant::now();
        if self.busy_until.is_some_and(|until| now < until) {
            return None;
        }
        self.busy_until = None;
        let end = now + LOOK_FOR + work;
        while now < end {
            std::thread::yield_now();
            let found = look();
            let back = Instant::now();
            if found.is_some() {
                let lent = back.duration_since(now);
                self.busy_until = (lent > LENT_LONG).then(|| back + lent * IN_PEACE);
                return found;
            }
            now = back;
        }
        None
    }
}

//! Points at which tests have a process die or stop: real processes, by real signals, at the worst moments.
//!
//! Client and daemon call [`fault_point`] at each step after which somebody else has to clean up. Without the feature
//! `fault-points`, which only tests ask for, the call is an empty function. With it, the environment says at which
//! point this process is struck: `PLASMON_FAULT=POINT:COUNT:kill` sends SIGKILL to the process itself when it comes to
//! the point the COUNTth time, and `stop` SIGSTOP. What is struck once is not struck again.
//!
//! It stands in this crate because both sides have it, and nothing else does.

/// Declares the points: each variant has a name and a sentence.
macro_rules! points {
    ($($(#[doc = $text:literal])+ $variant:ident = $name:literal,)+) => {
        /// A step at which a process can be struck.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FaultPoint { $($(#[doc = $text])+ $variant,)+ }

        impl FaultPoint {
            /// All of them.
            pub const ALL: &[FaultPoint] = &[$(FaultPoint::$variant),+];

            /// Its name in `PLASMON_FAULT`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(FaultPoint::$variant => $name,)+ }
            }
        }
    };
}

points! {
    /// A session was asked for, and the store's answer is unread.
    HelloSent = "hello-sent",
    /// A session has begun, and nothing of it is mapped.
    Welcomed = "welcomed",
    /// Another region of pins was granted, and is not mapped.
    RegionAdded = "region-added",
    /// Room is about to be asked for.
    Reserve = "reserve",
    /// Room was granted, and is not mapped.
    LeaseGranted = "lease-granted",
    /// The lease that was kept is claimed, and its state says busy.
    LeaseClaimed = "lease-claimed",
    /// A part of an object is in its place.
    CopyHalf = "copy-half",
    /// An object is in its place, and the store was not told.
    CommitReady = "commit-ready",
    /// A request is on its way, whatever it is.
    RequestSent = "request-sent",
    /// The beginning of an answer is read.
    ReplyHalfRead = "reply-half-read",
    /// A commit was answered, and nobody has heard of it.
    Committed = "committed",
    /// A lease was laid down for the next learn.
    LeaseLaidDown = "lease-laid-down",
    /// A pin slot is taken, and nothing is published.
    SlotTaken = "slot-taken",
    /// A pin is published, and the index was not looked at again.
    PinPublished = "pin-published",
    /// An object is held.
    Held = "held",
    /// The clock is read for a binding that expires, and nothing is held.
    ClockRead = "clock-read",
    /// A pin is about to be withdrawn.
    Unpin = "unpin",
    /// A pin is withdrawn, and its slot still counts as taken.
    Unpinned = "unpinned",
    /// The store is about to be told that the session ends.
    Goodbye = "goodbye",
    /// Before a fork: the store has made a session for the child.
    ForkPrepared = "fork-prepared",
    /// Before a fork: no pin is given back from now on.
    ForkBegun = "fork-begun",
    /// After a fork, in the parent.
    ForkParent = "fork-parent",
    /// After a fork, in the child: all it has rests on its parent's pins.
    ForkChild = "fork-child",
    /// In the child: its regions stand where its parent's were, and are empty.
    ForkMapped = "fork-mapped",
    /// In the child: its pins are copied, and the region does not say so.
    ForkCopied = "fork-copied",
    /// In the child: its region says filled, and the store does not know the process.
    ForkFilled = "fork-filled",

    /// A connection is accepted.
    Accepted = "store-accepted",
    /// A session is made, and its client not told.
    SessionMade = "store-session-made",
    /// A session for a forked child is made, and its parent not told.
    ChildSessionMade = "store-child-session-made",
    /// A lease is reserved, and its client not told.
    LeaseReserved = "store-lease-reserved",
    /// A commit has its room.
    CommitPlaced = "store-commit-placed",
    /// A commit is about to become visible: its version is taken.
    CommitBegun = "store-commit-begun",
    /// A part of a commit is visible.
    CommitHalfVisible = "store-commit-half-visible",
    /// A commit is visible, and not answered.
    CommitVisible = "store-commit-visible",
    /// A commit is answered.
    CommitAnswered = "store-commit-answered",
    /// A scan of the pins begins.
    Scan = "store-scan",
    /// A scan is done, and the loop not told.
    Scanned = "store-scanned",
    /// What a scan found free is about to be given back.
    Reclaim = "store-reclaim",
    /// A step of the arena is populated, and the loop not told.
    Populated = "store-populated",
    /// A part of an object is copied into the arena, or of a long commit out of it.
    Copied = "store-copied",
    /// A recall was heard of that prolongs a binding's life, and its deadline is where it was.
    Sliding = "store-sliding",
    /// A binding whose time is over is unbound, and its memory not given back.
    Expired = "store-expired",
    /// It is known which bindings of a cache give way, and none is unbound.
    Evicting = "store-evicting",
    /// A binding of a cache gave way, and its memory is not given back.
    Evicted = "store-evicted",
    /// A moment is kept for a session or under a label, and its client not told.
    MomentHeld = "store-moment-held",
    /// A name is what it was at a snapshot, and others of its namespace are not yet.
    NameRestored = "store-name-restored",
    /// A binding of the past is taken off, which nobody wants any more, and its memory not given back.
    PastDropped = "store-past-dropped",
    /// A lifeline was closed.
    Orphaned = "store-orphaned",
    /// A session is taken off the list, and what it held is not free.
    SessionEnding = "store-session-ending",
}

/// Strikes this process, if the environment says so. Empty without the feature `fault-points`.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub fn fault_point(_point: FaultPoint) {}

/// Strikes this process, if the environment says so. Empty without the feature `fault-points`.
#[cfg(feature = "fault-points")]
pub fn fault_point(point: FaultPoint) {
    if let Some(fault) = armed::FAULT.as_ref() {
        fault.come_to(point);
    }
}

#[cfg(feature = "fault-points")]
mod armed {
    use super::FaultPoint;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// What the environment says, read when the first point is come to.
    pub(super) static FAULT: LazyLock<Option<Fault>> = LazyLock::new(|| {
        let text = std::env::var("PLASMON_FAULT").ok()?;
        Some(
            Fault::parse(&text)
                .unwrap_or_else(|| panic!("PLASMON_FAULT=POINT:COUNT:kill|stop, not {text:?}")),
        )
    });

    pub(super) struct Fault {
        point: FaultPoint,
        left: AtomicU64,
        signal: Signal,
    }

    impl Fault {
        fn parse(text: &str) -> Option<Fault> {
            let mut parts = text.split(':');
            let name = parts.next()?;
            let point = FaultPoint::ALL.iter().copied().find(|point| point.name() == name)?;
            let left = AtomicU64::new(parts.next()?.parse().ok()?);
            let signal = match parts.next()? {
                "kill" => Signal::SIGKILL,
                "stop" => Signal::SIGSTOP,
                _ => return None,
            };
            parts.next().is_none().then_some(Fault { point, left, signal })
        }

        pub(super) fn come_to(&self, point: FaultPoint) {
            if point == self.point && self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
                kill(Pid::this(), self.signal).expect("a process may signal itself");
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_environment_names_a_point_a_count_and_a_signal() {
            let fault = Fault::parse("held:3:stop").unwrap();
            assert_eq!((fault.point, fault.signal), (FaultPoint::Held, Signal::SIGSTOP));
            for wrong in
                ["", "held", "held:1", "nowhere:1:kill", "held:x:kill", "held:1:term", "held:1:kill:1"]
            {
                assert!(Fault::parse(wrong).is_none(), "{wrong}");
            }
        }
    }
}

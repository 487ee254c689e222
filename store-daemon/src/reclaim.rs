//! Decides which retired extents no reader can use any more, on a thread of its own.
//!
//! The loop unlinks objects from the index and hands over their offsets in batches. The thread does the fence and
//! one scan of every pin table for the whole batch (the argument stands in `plasmon_protocol::pins`), and answers
//! with the offsets that some pin still names. The hand-over through a channel makes the unlinking happen before the
//! fence. A scan never runs on the loop: a thousand sessions of a hostile client can make it read gigabytes.

use crate::{
    memory::{self, Usage},
    recalls::CollectJob,
    session::SessionId,
};
use plasmon_protocol::pins::{SessionRegion, offset_of, reclaim_fence};
use plasmon_shm::{FaultPoint, WordsMapping, fault_point};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

/// What the scan thread does.
#[derive(Debug)]
pub(crate) enum Job {
    Scan(ScanJob),
    Collect(CollectJob),
}

/// The pin regions of one session, kept mapped while a scan may read them.
#[derive(Clone, Debug)]
pub(crate) struct PinRegions {
    pub(crate) session: SessionId,
    pub(crate) regions: Vec<Arc<WordsMapping>>,
}

/// What the loop asks: which of `candidates` are pinned, by the sessions as they were after the unlinking?
///
/// A session that begins later cannot find the candidates in the index, and so cannot pin them.
#[derive(Debug)]
pub(crate) struct ScanJob {
    pub(crate) candidates: Vec<u64>,
    pub(crate) sessions: Vec<PinRegions>,
    pub(crate) report: Report,
    /// Most offsets reported besides the candidates. A hostile client can pin any number.
    pub(crate) others_max: usize,
    /// Whether the daemon's own use of the machine is wanted as well.
    pub(crate) usage: bool,
}

/// What a scan reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Report {
    /// The pins on the candidates.
    #[default]
    Candidates,
    /// The pins on everything: costs memory for each, and is asked for by people.
    Everything,
}

/// Room in a report, besides that for all objects, for pins of what is no object yet: who seals in place pins first.
pub(crate) const UNBOUND_PINS_MAX: usize = 65_536;

/// Which sessions pin an object, and how often.
pub(crate) type Holders = Vec<(SessionId, u32)>;

/// What a scan found.
#[derive(Debug, Default)]
pub(crate) struct ScanDone {
    /// The candidates that no pin names: they can be reused.
    pub(crate) unpinned: Vec<u64>,
    /// The candidates that are pinned; with [`Report::Everything`] every offset that is, also such as a hostile
    /// client made up.
    pub(crate) pinned: Arc<HashMap<u64, Holders>>,
    /// Pins of each session.
    pub(crate) pins: Vec<(SessionId, u64)>,
    /// What the job asked for.
    pub(crate) report: Report,
    /// The daemon's own use of the machine, if the job asked for it.
    pub(crate) usage: Option<Usage>,
}

/// Does one scan. Blocks for as long as reading all pin tables takes: microseconds for ordinary clients.
pub(crate) fn scan(job: ScanJob) -> ScanDone {
    let mut found: HashMap<u64, Holders> =
        job.candidates.into_iter().map(|offset| (offset, Vec::new())).collect();
    let found_max = match job.report {
        Report::Everything => found.len() + job.others_max,
        Report::Candidates => found.len(),
    };
    let mut pins = Vec::with_capacity(job.sessions.len());
    fault_point(FaultPoint::Scan);
    reclaim_fence(); // PAIRS: pin-fence
    for PinRegions { session, regions } in job.sessions {
        let mut count = 0;
        for region in &regions {
            SessionRegion::assume_checked(region.words()).scan(|pin| {
                count += 1;
                let Some(offset) = offset_of(pin) else { return };
                let is_full = found.len() >= found_max;
                let holders = match found.entry(offset) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(_) if is_full => return,
                    Entry::Vacant(unknown) => unknown.insert(Vec::new()),
                };
                match holders.last_mut() {
                    Some((last, count)) if *last == session => *count += 1,
                    _ => holders.push((session, 1)),
                }
            });
        }
        pins.push((session, count));
    }
    let unpinned =
        found.iter().filter(|(_, holders)| holders.is_empty()).map(|(&offset, _)| offset).collect();
    found.retain(|_, holders| !holders.is_empty());
    let usage = job.usage.then(memory::own_usage);
    fault_point(FaultPoint::Scanned);
    ScanDone { unpinned, pinned: Arc::new(found), pins, report: job.report, usage }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plasmon_protocol::{layout::session, pins::pin_for};
    use plasmon_shm::{Backend, Kernel, Region};

    fn session(number: u64, pinned: &[u64]) -> PinRegions {
        let bytes = session::words(64) as u64 * 8;
        let region = Region::create("plasmon-test", bytes, Backend::Memfd, &Kernel::detect()).unwrap();
        let mapping = region.map_words().unwrap();
        let table = SessionRegion::prepare(mapping.words()).unwrap();
        for (slot, offset) in (0..).zip(pinned) {
            table.publish(slot, pin_for(*offset));
        }
        PinRegions { session: SessionId(number), regions: vec![Arc::new(mapping)] }
    }

    #[test]
    fn a_scan_tells_pinned_from_unpinned_and_who_holds() {
        let sessions = vec![session(1, &[0, 64]), session(2, &[64, 64])];
        let job = |candidates, report, others_max| ScanJob {
            candidates,
            sessions: sessions.clone(),
            report,
            others_max,
            usage: false,
        };
        let done = scan(job(vec![64, 128], Report::Candidates, 10));
        assert_eq!(done.unpinned, [128]);
        assert_eq!(*done.pinned, HashMap::from([(64, vec![(SessionId(1), 1), (SessionId(2), 2)])]));
        assert_eq!(done.pins, [(SessionId(1), 2), (SessionId(2), 2)]);
        let all = scan(job(vec![], Report::Everything, 10));
        assert_eq!((&all.pinned[&0], all.pinned.len()), (&vec![(SessionId(1), 1)], 2));
        // What a hostile client makes up is bounded, and hides no candidate.
        let bounded = scan(job(vec![64], Report::Everything, 0));
        assert_eq!(bounded.pinned.keys().collect::<Vec<_>>(), [&64]);
    }
}

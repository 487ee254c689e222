//! Decides which retired extents no reader can use any more, and who pins what, on a thread of its own.
//!
//! The loop unlinks objects from the index and hands them over in batches. The thread owns all that was handed over and
//! is pinned still, which is limbo: the loop sends what was retired since the last scan, and hears what has become free
//! since. Each scan is one fence and one look at every pin table (the argument stands in `plasmon_protocol::pins`). The
//! hand-over through a channel makes the unlinking happen before the fence.
//!
//! Nothing of this is the loop's, because a client may pin a million objects: what the loop does for a scan depends on
//! what has changed, and the sums and lists that it answers with are made here. A list that the loop has read is freed
//! here, too.
//!
//! `startup/helpers.rs` starts the thread. `state/scans.rs` makes its jobs and takes its reports.

use crate::{
    memory::{self, Usage},
    recalls::CollectJob,
    session::SessionId,
};
use plasmon_protocol::pins::{SessionRegion, offset_of, reclaim_fence};
use plasmon_shm::{FaultPoint, WordsMapping, fault_point};
use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
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

/// An object without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retired {
    pub(crate) offset: u64,
    /// Bytes of its extent.
    pub(crate) extent_bytes: u64,
    /// Bytes of the object.
    pub(crate) len_bytes: u64,
}

/// Any number of retired objects, in pieces: no push moves more than a piece, and no drop frees more.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RetiredList {
    /// None of them is empty.
    pieces: Vec<Vec<Retired>>,
    len: usize,
}

impl RetiredList {
    const PIECE: usize = 4_096;

    pub(crate) fn push(&mut self, object: Retired) {
        match self.pieces.last_mut() {
            Some(piece) if piece.len() < Self::PIECE => piece.push(object),
            _ => self.pieces.push(vec![object]),
        }
        self.len += 1;
    }

    pub(crate) fn pop(&mut self) -> Option<Retired> {
        let piece = self.pieces.last_mut()?;
        let object = piece.pop();
        if piece.is_empty() {
            self.pieces.pop();
        }
        self.len -= 1;
        object
    }

    /// Takes over all of `others`.
    pub(crate) fn append(&mut self, mut others: RetiredList) {
        self.len += others.len;
        self.pieces.append(&mut others.pieces);
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl IntoIterator for RetiredList {
    type Item = Retired;
    type IntoIter = std::iter::Flatten<std::vec::IntoIter<Vec<Retired>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.pieces.into_iter().flatten()
    }
}

/// What the loop asks: which objects without a name are pinned, by the sessions as they were after the unlinking?
///
/// A session that begins later cannot find these objects in the index, and so cannot pin them.
#[derive(Debug)]
pub(crate) struct ScanJob {
    /// What was retired since the job before.
    pub(crate) retired: RetiredList,
    /// Objects with a name that the thread asked for in [`Pinned::unknown`]: offset, and length in bytes.
    pub(crate) named: Vec<(u64, u64)>,
    pub(crate) sessions: Vec<PinRegions>,
    pub(crate) report: Report,
    /// Most offsets reported besides those in limbo. A hostile client can pin any number.
    pub(crate) others_max: usize,
    /// Whether the daemon's own use of the machine is wanted as well.
    pub(crate) usage: bool,
}

/// How much a scan reports, each more than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Report {
    /// What is free, and sums of limbo and of pins.
    #[default]
    Limbo,
    /// Which offsets are pinned.
    Pinned,
    /// Who pins each of them, and since when: is asked for by people.
    Listed,
}

/// How many offsets a full report may have beyond one for each object. A client that seals in place publishes its pin
/// before it commits, so a pin can name an extent that is not an object yet.
pub(crate) const UNBOUND_PINS_MAX: usize = 65_536;

/// Most lines in a list of pins. Nobody reads more, and each takes memory.
const LISTED_MAX: usize = 4 << 20;

/// Sessions that hold most of limbo, of which the loop is told.
pub(crate) const HOLDERS_SHOWN: usize = 8;

/// That a session pins an object, or what a client made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    pub(crate) session: SessionId,
    pub(crate) offset: u64,
    /// Slots of the session that name it.
    pub(crate) count: u32,
    /// When a scan first listed it.
    pub(crate) since: Instant,
}

impl Pin {
    /// What lists of pins are ordered by.
    pub(crate) fn place(&self) -> (SessionId, u64) {
        (self.session, self.offset)
    }
}

/// What was pinned at one moment. Never changes; the loop shares it with the scan thread, which frees it.
#[derive(Debug, Default)]
pub(crate) struct Pinned {
    /// Offsets that are pinned, but for what is in limbo.
    others: HashSet<u64>,
    /// Offsets that are pinned and of which the thread does not know whether they are an object with a name.
    pub(crate) unknown: Vec<u64>,
    /// Bytes of the objects that are pinned, but for the unknown ones.
    pub(crate) known_bytes: u64,
}

impl Pinned {
    /// Whether the object at `offset` is pinned, which has a name.
    pub(crate) fn contains(&self, offset: u64) -> bool {
        self.others.contains(&offset)
    }
}

/// What a scan found.
#[derive(Debug)]
pub(crate) struct ScanDone {
    /// The objects without a name that no pin names any more: they can be reused.
    pub(crate) unpinned: RetiredList,
    pub(crate) limbo: Limbo,
    /// Pins of each session.
    pub(crate) pins: Vec<(SessionId, u64)>,
    /// What the job asked for.
    pub(crate) report: Report,
    /// With [`Report::Pinned`] and more.
    pub(crate) pinned: Option<Arc<Pinned>>,
    /// With [`Report::Listed`]: ordered by session, then by offset.
    pub(crate) listed: Option<Arc<Vec<Pin>>>,
    /// The daemon's own use of the machine, if the job asked for it.
    pub(crate) usage: Option<Usage>,
    /// How long the scan took.
    pub(crate) took: Duration,
}

/// Sums of what has no name and is pinned.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limbo {
    pub(crate) objects: usize,
    /// Bytes of their extents.
    pub(crate) bytes: u64,
    /// Who holds most of it, and how many bytes, most first.
    pub(crate) holders: Vec<(SessionId, u64)>,
}

/// The state of the scan thread.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    /// By offset: objects without a name that were pinned when they were last looked at, or were just handed over.
    limbo: HashMap<u64, InLimbo>,
    /// Bytes of their extents, and of the objects.
    limbo_bytes: u64,
    limbo_len_bytes: u64,
    /// Lengths, in bytes, of objects with a name that were pinned when that was last looked at, by offset. One that is
    /// retired moves to limbo.
    named: HashMap<u64, u64>,
    /// The number of the scan.
    scan: u64,
    /// The last list, which says since when.
    listed: Arc<Vec<Pin>>,
    /// Lists that the loop may be reading.
    lists: Vec<Arc<Vec<Pin>>>,
    pinned: Vec<Arc<Pinned>>,
}

#[derive(Debug)]
struct InLimbo {
    object: Retired,
    /// The last scan that found it pinned, and the last session that scan found it pinned by.
    scan: u64,
    session: SessionId,
}

/// What a scan that reports more than limbo gathers.
#[derive(Debug, Default)]
struct Gathered {
    /// Whether it lists pins.
    lists: bool,
    /// Offsets that are not in limbo, and how many of them are gathered at most.
    others: HashSet<u64>,
    others_max: usize,
    /// Those of the session that is looked at.
    of_session: Vec<u64>,
    listed: Vec<Pin>,
}

impl Scanner {
    /// Does one scan. Blocks for as long as reading all pin tables takes: microseconds for ordinary clients.
    pub(crate) fn scan(&mut self, job: ScanJob) -> ScanDone {
        let began = Instant::now();
        self.scan += 1;
        // Whatever the loop has let go of is freed here.
        self.lists.retain(|list| Arc::strong_count(list) > 1);
        self.pinned.retain(|pinned| Arc::strong_count(pinned) > 1);
        self.named.extend(job.named);
        for object in job.retired {
            self.named.remove(&object.offset);
            self.limbo_bytes += object.extent_bytes;
            self.limbo_len_bytes += object.len_bytes;
            let (scan, session) = (0, SessionId::default());
            self.limbo.insert(object.offset, InLimbo { object, scan, session });
        }
        let lists = job.report == Report::Listed;
        let mut gathered = (job.report > Report::Limbo).then(|| Gathered {
            lists,
            others_max: job.others_max,
            ..Gathered::default()
        });
        let mut pins = Vec::with_capacity(job.sessions.len());
        let mut holders = Vec::new();
        fault_point(FaultPoint::Scan);
        reclaim_fence(); // PAIRS: pin-fence
        for PinRegions { session, regions } in job.sessions {
            let (mut count, mut limbo_bytes) = (0, 0);
            for_each_pin(&regions, |offset| {
                count += 1;
                let Some(offset) = offset else { return };
                let in_limbo = self.limbo.get_mut(&offset);
                let is_in_limbo = in_limbo.is_some();
                if let Some(held) = in_limbo {
                    if held.scan != self.scan || held.session != session {
                        limbo_bytes += held.object.len_bytes;
                    }
                    (held.scan, held.session) = (self.scan, session);
                }
                if let Some(gathered) = &mut gathered {
                    gathered.add(offset, is_in_limbo);
                }
            });
            pins.push((session, count));
            if limbo_bytes > 0 {
                holders.push((session, limbo_bytes));
            }
            if let Some(gathered) = gathered.as_mut().filter(|_| lists) {
                gathered.list(session, &self.listed, began);
            }
        }
        let mut unpinned = RetiredList::default();
        for (_, free) in self.limbo.extract_if(|_, held| held.scan != self.scan) {
            self.limbo_bytes -= free.object.extent_bytes;
            self.limbo_len_bytes -= free.object.len_bytes;
            unpinned.push(free.object);
        }
        // Going through a table takes as long as there was ever much in it.
        if self.limbo.capacity() > 8 * (self.limbo.len() + 1_024) {
            self.limbo.shrink_to(2 * self.limbo.len());
        }
        holders.sort_unstable_by_key(|&(session, bytes)| (Reverse(bytes), session));
        holders.truncate(HOLDERS_SHOWN);
        let limbo = Limbo { objects: self.limbo.len(), bytes: self.limbo_bytes, holders };
        let (pinned, listed) = gathered.map(|gathered| self.report(gathered, job.report)).unwrap_or_default();
        let usage = job.usage.then(memory::own_usage);
        fault_point(FaultPoint::Scanned);
        ScanDone { unpinned, limbo, pins, report: job.report, pinned, listed, usage, took: began.elapsed() }
    }

    fn report(&mut self, gathered: Gathered, report: Report) -> (Option<Arc<Pinned>>, Option<Arc<Vec<Pin>>>) {
        let Gathered { others, listed, .. } = gathered;
        self.named.retain(|offset, _| others.contains(offset));
        let unknown = others.iter().copied().filter(|offset| !self.named.contains_key(offset)).collect();
        let known_bytes = self.limbo_len_bytes + self.named.values().sum::<u64>();
        let pinned = Arc::new(Pinned { others, unknown, known_bytes });
        self.pinned.push(Arc::clone(&pinned));
        let listed = (report == Report::Listed).then(|| {
            self.listed = Arc::new(listed);
            self.lists.push(Arc::clone(&self.listed));
            Arc::clone(&self.listed)
        });
        (Some(pinned), listed)
    }
}

impl Gathered {
    fn add(&mut self, offset: u64, is_in_limbo: bool) {
        if !is_in_limbo {
            if self.others.len() >= self.others_max && !self.others.contains(&offset) {
                return;
            }
            self.others.insert(offset);
        }
        if self.lists {
            self.of_session.push(offset);
        }
    }

    /// Lists the pins of `session`. Those that are on the list before are held since then.
    fn list(&mut self, session: SessionId, before: &[Pin], now: Instant) {
        self.of_session.sort_unstable();
        let first = before.partition_point(|pin| pin.session < session);
        let mut before = before[first..].iter().take_while(|pin| pin.session == session).peekable();
        for same in self.of_session.chunk_by(|a, b| a == b) {
            if self.listed.len() == LISTED_MAX {
                break;
            }
            let offset = same[0];
            while before.next_if(|pin| pin.offset < offset).is_some() {}
            let since = before.next_if(|pin| pin.offset == offset).map_or(now, |pin| pin.since);
            let count = u32::try_from(same.len()).unwrap_or(u32::MAX);
            self.listed.push(Pin { session, offset, count, since });
        }
        self.of_session.clear();
    }
}

/// Which of `candidates` some session pins, for the end of the store: it needs no thread any more.
pub(crate) fn pinned_of(candidates: Vec<u64>, sessions: Vec<PinRegions>) -> HashSet<u64> {
    let candidates: HashSet<u64> = candidates.into_iter().collect();
    let mut pinned = HashSet::new();
    reclaim_fence(); // PAIRS: pin-fence
    for PinRegions { regions, .. } in sessions {
        for_each_pin(&regions, |offset| {
            pinned.extend(offset.filter(|offset| candidates.contains(offset)));
        });
    }
    pinned
}

/// Looks at every pin; `None` is one that can name no object.
fn for_each_pin(regions: &[Arc<WordsMapping>], mut look: impl FnMut(Option<u64>)) {
    for region in regions {
        SessionRegion::assume_checked(region.words()).scan(|pin| look(offset_of(pin)));
    }
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

    fn withdraw_all(session: &PinRegions) {
        let table = SessionRegion::assume_checked(session.regions[0].words());
        (0..64).for_each(|slot| table.withdraw(slot));
    }

    fn retired(offsets: &[u64]) -> RetiredList {
        let mut list = RetiredList::default();
        offsets.iter().for_each(|&offset| list.push(Retired { offset, extent_bytes: 128, len_bytes: 100 }));
        list
    }

    fn offsets(list: RetiredList) -> Vec<u64> {
        let mut offsets: Vec<u64> = list.into_iter().map(|object| object.offset).collect();
        offsets.sort_unstable();
        offsets
    }

    fn job(objects: &[u64], sessions: &[&PinRegions], report: Report) -> ScanJob {
        ScanJob {
            retired: retired(objects),
            named: vec![],
            sessions: sessions.iter().copied().cloned().collect(),
            report,
            others_max: 10,
            usage: false,
        }
    }

    #[test]
    fn what_is_pinned_stays_in_limbo_until_it_is_not() {
        let (one, two) = (session(1, &[0, 64]), session(2, &[64, 64]));
        let mut scanner = Scanner::default();
        let done = scanner.scan(job(&[64, 128], &[&one, &two], Report::Limbo));
        assert_eq!(offsets(done.unpinned), [128]);
        assert_eq!(done.pins, [(SessionId(1), 2), (SessionId(2), 2)]);
        assert_eq!((done.limbo.objects, done.limbo.bytes), (1, 128));
        // Who pins an object twice holds it once.
        assert_eq!(done.limbo.holders, [(SessionId(1), 100), (SessionId(2), 100)]);
        // It is not handed over again.
        withdraw_all(&one);
        let done = scanner.scan(job(&[], &[&one, &two], Report::Limbo));
        assert_eq!((done.unpinned.len(), done.limbo.objects), (0, 1));
        assert_eq!(done.limbo.holders, [(SessionId(2), 100)]);
        let done = scanner.scan(job(&[], &[&one], Report::Limbo));
        assert_eq!(offsets(done.unpinned), [64]);
        assert_eq!((done.limbo.objects, done.limbo.bytes, done.limbo.holders.len()), (0, 0, 0));
    }

    #[test]
    fn lengths_of_named_objects_are_asked_for_once() {
        let one = session(1, &[0, 64, 192]);
        let mut scanner = Scanner::default();
        let done = scanner.scan(job(&[64], &[&one], Report::Pinned));
        let pinned = done.pinned.unwrap();
        let mut unknown = pinned.unknown.clone();
        unknown.sort_unstable();
        assert_eq!((unknown, pinned.known_bytes), (vec![0, 192], 100));
        assert!(pinned.contains(0) && pinned.contains(192) && !pinned.contains(128));
        // 192 is what a client made up.
        let told = ScanJob { named: vec![(0, 7)], ..job(&[], &[&one], Report::Pinned) };
        let pinned = scanner.scan(told).pinned.unwrap();
        assert_eq!((pinned.unknown.as_slice(), pinned.known_bytes), ([192].as_slice(), 107));
        // It is in one sum when it loses its name, and in none when it is pinned no more.
        let pinned = scanner.scan(job(&[0], &[&one], Report::Pinned)).pinned.unwrap();
        assert_eq!(pinned.known_bytes, 200);
        let pinned = scanner.scan(job(&[], &[], Report::Pinned)).pinned.unwrap();
        assert_eq!((pinned.known_bytes, pinned.contains(0)), (0, false));
    }

    #[test]
    fn lists_are_in_order_and_say_since_when() {
        let (one, two) = (session(1, &[192, 64, 64]), session(2, &[64]));
        let mut scanner = Scanner::default();
        let first = scanner.scan(job(&[], &[&one], Report::Listed)).listed.unwrap();
        let places =
            |list: &[Pin]| list.iter().map(|pin| (pin.session.0, pin.offset, pin.count)).collect::<Vec<_>>();
        assert_eq!(places(&first), [(1, 64, 2), (1, 192, 1)]);
        SessionRegion::assume_checked(one.regions[0].words()).withdraw(0);
        let second = scanner.scan(job(&[], &[&one, &two], Report::Listed)).listed.unwrap();
        assert_eq!(places(&second), [(1, 64, 2), (2, 64, 1)]);
        assert_eq!(second[0].since, first[0].since);
        assert!(second[1].since > first[0].since);
    }

    /// What a hostile client makes up is bounded, and hides nothing that is in limbo.
    #[test]
    fn what_is_made_up_is_bounded() {
        let one = session(1, &[0, 128, 192, 64]);
        let bounded = ScanJob { others_max: 0, ..job(&[64], &[&one], Report::Listed) };
        let done = Scanner::default().scan(bounded);
        assert_eq!(done.listed.unwrap().len(), 1);
        assert_eq!((done.unpinned.len(), done.limbo.objects, done.pins[0].1), (0, 1, 4));
    }

    /// The loop frees no list: the scan thread has each until nobody else has.
    #[test]
    fn what_the_loop_lets_go_of_is_freed_by_the_thread() {
        let one = session(1, &[64]);
        let mut scanner = Scanner::default();
        let done = scanner.scan(job(&[], &[&one], Report::Listed));
        let (pinned, listed) = (done.pinned.unwrap(), done.listed.unwrap());
        scanner.scan(job(&[], &[&one], Report::Listed));
        assert_eq!((Arc::strong_count(&pinned), Arc::strong_count(&listed)), (2, 2));
        drop((pinned, listed));
        scanner.scan(job(&[], &[&one], Report::Limbo));
        assert_eq!((scanner.pinned.len(), scanner.lists.len()), (0, 1));
    }

    #[test]
    fn a_list_of_retired_objects_is_as_long_as_what_was_put_in() {
        let many: Vec<u64> = (0..10_000).map(|number| number * 64).collect();
        let mut list = retired(&many);
        assert!(list.pieces.iter().all(|piece| piece.len() <= RetiredList::PIECE));
        list.append(retired(&[64_000_000]));
        assert_eq!(list.len(), 10_001);
        assert_eq!(list.pop().unwrap().offset, 64_000_000);
        assert_eq!(offsets(list), many);
    }
}

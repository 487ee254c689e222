//! The allocator against a model that cannot be wrong: one flag per granule.

use proptest::prelude::*;

use super::{Allocator, Extent, GRANULE_BYTES, LONG_LEASE_BYTES, PAGE_BYTES, STEP_BYTES};

#[derive(Clone, Debug)]
enum Step {
    Allocate {
        len_bytes: u64,
        mark: u64,
    },
    AllocatePages {
        len_bytes: u64,
        mark: u64,
    },
    /// Extends a live page extent.
    Extend {
        which: usize,
        by_bytes: u64,
    },
    Free {
        which: usize,
    },
    /// Frees these granules of a live extent (as far as it has them), and keeps the rest.
    FreePart {
        which: usize,
        skip: u64,
        granules: u64,
    },
}

/// An extent that was handed out and not given back.
#[derive(Clone, Copy, Debug)]
struct Live {
    extent: Extent,
    /// Whether it still has all its pages to itself.
    is_pages: bool,
}

/// The arena as one flag per granule.
struct Model {
    is_used: Vec<bool>,
    live: Vec<Live>,
}

impl Model {
    fn new(capacity_bytes: u64) -> Self {
        Self { is_used: vec![false; index(capacity_bytes)], live: Vec::new() }
    }

    fn capacity_bytes(&self) -> u64 {
        bytes(self.is_used.len())
    }

    fn free_bytes(&self) -> u64 {
        bytes(self.is_used.iter().filter(|&&used| !used).count())
    }

    /// All maximal runs of free granules.
    fn runs(&self) -> Vec<Extent> {
        let mut offset = 0;
        let mut runs = Vec::new();
        for run in self.is_used.chunk_by(|a, b| a == b) {
            if !run[0] {
                runs.push(Extent { offset, len_bytes: bytes(run.len()) });
            }
            offset += bytes(run.len());
        }
        runs
    }

    fn has_room(&self, len_bytes: u64, limit: u64) -> bool {
        len_bytes > 0
            && self.runs().iter().any(|run| {
                len_bytes.next_multiple_of(GRANULE_BYTES) <= run.end().min(limit).saturating_sub(run.offset)
            })
    }

    /// Whether the pages that `len_bytes` touch are free somewhere, starting on a multiple of `align_bytes`.
    fn has_pages(&self, len_bytes: u64, align_bytes: u64, limit: u64) -> bool {
        len_bytes > 0
            && self.runs().iter().any(|run| {
                let offset = run.offset.next_multiple_of(align_bytes);
                let end = offset + len_bytes.next_multiple_of(PAGE_BYTES);
                let end = if offset + len_bytes <= self.capacity_bytes() {
                    end.min(self.capacity_bytes())
                } else {
                    end
                };
                end <= run.end().min(limit)
            })
    }

    fn set(&mut self, extent: Extent, used: bool) {
        for flag in &mut self.is_used[index(extent.offset)..index(extent.end())] {
            assert_ne!(*flag, used, "{extent:?} overlaps what it must not");
            *flag = used;
        }
    }

    /// Notes an extent that was handed out; panics if it is not a whole free piece of the arena.
    fn hand_out(&mut self, extent: Extent, is_pages: bool) {
        assert!(
            extent.offset.is_multiple_of(GRANULE_BYTES) && extent.len_bytes.is_multiple_of(GRANULE_BYTES)
        );
        assert!(extent.len_bytes > 0 && extent.end() <= self.capacity_bytes());
        self.set(extent, true);
        self.live.push(Live { extent, is_pages });
    }

    fn give_back(&mut self, extent: Extent) {
        self.set(extent, false);
    }

    fn check_pages_of(&self, len_bytes: u64, extent: Extent) {
        assert!(extent.offset.is_multiple_of(PAGE_BYTES));
        assert!(len_bytes <= extent.len_bytes && extent.len_bytes <= len_bytes.next_multiple_of(PAGE_BYTES));
        assert!(extent.end().is_multiple_of(PAGE_BYTES) || extent.end() == self.capacity_bytes());
    }

    /// No page of a page extent holds a byte of another extent.
    fn check_exclusive_pages(&self) {
        let mut sorted = self.live.clone();
        sorted.sort_by_key(|live| live.extent);
        for pair in sorted.windows(2) {
            let same_page = (pair[0].extent.end() - 1) / PAGE_BYTES == pair[1].extent.offset / PAGE_BYTES;
            assert!(!same_page || !(pair[0].is_pages || pair[1].is_pages), "{pair:?} share a page");
        }
    }
}

/// Does one step in both and compares what can be seen.
fn run_step(allocator: &mut Allocator, model: &mut Model, step: &Step) {
    match *step {
        Step::Allocate { len_bytes, mark } => match allocator.allocate(len_bytes, mark) {
            Some(extent) => {
                assert_eq!(extent.len_bytes, len_bytes.next_multiple_of(GRANULE_BYTES));
                assert!(extent.end() <= mark || !model.has_room(len_bytes, mark), "room below the mark");
                model.hand_out(extent, false);
            }
            None => assert!(!model.has_room(len_bytes, u64::MAX), "a false failure"),
        },
        Step::AllocatePages { len_bytes, mark } => match allocator.allocate_pages(len_bytes, mark) {
            Some(extent) => {
                model.check_pages_of(len_bytes, extent);
                assert!(
                    extent.end() <= mark || !model.has_pages(len_bytes, PAGE_BYTES, mark),
                    "room below the mark"
                );
                if len_bytes >= LONG_LEASE_BYTES && allocator.chunks.is_empty() {
                    let limit = if extent.end() <= mark { mark } else { u64::MAX };
                    let on_a_step = extent.offset.is_multiple_of(STEP_BYTES);
                    assert_eq!(on_a_step, model.has_pages(len_bytes, STEP_BYTES, limit));
                }
                model.hand_out(extent, true);
            }
            None => assert!(!model.has_pages(len_bytes, PAGE_BYTES, u64::MAX), "a false failure"),
        },
        Step::Extend { which, by_bytes } => {
            let leases: Vec<_> = (0..model.live.len()).filter(|&i| model.live[i].is_pages).collect();
            if leases.is_empty() {
                return;
            }
            let Live { extent, .. } = model.live.swap_remove(leases[which % leases.len()]);
            let new_len_bytes = extent.len_bytes + by_bytes;
            let wanted = (extent.offset + new_len_bytes).next_multiple_of(PAGE_BYTES);
            let end = if extent.offset + new_len_bytes > model.capacity_bytes() {
                wanted
            } else {
                wanted.min(model.capacity_bytes())
            };
            model.give_back(extent);
            let has_room = model
                .runs()
                .iter()
                .any(|run| run.offset <= extent.offset && run.end() >= end.max(extent.end()));
            match allocator.extend(extent, new_len_bytes) {
                Some(longer) => {
                    assert_eq!(longer.offset, extent.offset);
                    model.check_pages_of(new_len_bytes, longer);
                    model.hand_out(longer, true);
                }
                None => {
                    assert!(!has_room, "a false failure");
                    model.hand_out(extent, true);
                }
            }
        }
        Step::Free { which } => {
            if !model.live.is_empty() {
                let Live { extent, .. } = model.live.swap_remove(which % model.live.len());
                assert_eq!(allocator.free(extent), Ok(()));
                assert!(allocator.free(extent).is_err(), "a double free");
                model.give_back(extent);
            }
        }
        Step::FreePart { which, skip, granules } => {
            if !model.live.is_empty() {
                let Live { extent, is_pages } = model.live.swap_remove(which % model.live.len());
                let start = extent.offset + (skip * GRANULE_BYTES) % extent.len_bytes;
                let part = Extent::between(start, (start + granules * GRANULE_BYTES).min(extent.end()));
                assert_eq!(allocator.free(part), Ok(()));
                assert!(allocator.free(extent).is_err(), "a part was free");
                model.give_back(part);
                for rest in [Extent::between(extent.offset, start), Extent::between(part.end(), extent.end())]
                {
                    if rest.len_bytes > 0 {
                        let whole_pages = rest.offset.is_multiple_of(PAGE_BYTES)
                            && (rest.end() == extent.end() || rest.end().is_multiple_of(PAGE_BYTES));
                        model.live.push(Live { extent: rest, is_pages: is_pages && whole_pages });
                    }
                }
            }
        }
    }
}

fn check_against_model(mut allocator: Allocator, steps: &[Step]) {
    let mut model = Model::new(allocator.capacity_bytes());
    for step in steps {
        run_step(&mut allocator, &mut model, step);
        allocator.check();
        model.check_exclusive_pages();
        assert_eq!(allocator.free_bytes(), model.free_bytes());
        assert_eq!(allocator.used_bytes() + allocator.free_bytes(), allocator.capacity_bytes());
        let longest_bytes = model.runs().iter().map(|run| run.len_bytes).max().unwrap_or(0);
        assert_eq!(allocator.largest_free_bytes(), longest_bytes);
        if longest_bytes > 0 {
            assert!(allocator.clone().allocate(longest_bytes, u64::MAX).is_some(), "it said there was room");
        }
    }
    for Live { extent, .. } in model.live.drain(..) {
        assert_eq!(allocator.free(extent), Ok(()));
    }
    allocator.check();
    assert!(allocator.chunks.is_empty());
    let whole = Extent { offset: 0, len_bytes: allocator.capacity_bytes() };
    assert!(
        allocator.general.ranges().eq((whole.len_bytes > 0).then_some(whole)),
        "one free range in the end"
    );
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes / GRANULE_BYTES).expect("test arenas are small")
}

fn bytes(granules: usize) -> u64 {
    u64::try_from(granules).expect("usize has at most 64 bits") * GRANULE_BYTES
}

/// Lengths from nothing to more than the arena, most of them short.
fn len_bytes(capacity_bytes: u64) -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..=600_u64,
        12 => 300..=512_u64, // eight to a dozen fill a chunk of one page
        4 => 0..=5 * PAGE_BYTES,
        4 => (0..=6_u64).prop_map(|pages| pages * PAGE_BYTES),
        2 => 0..=capacity_bytes / 4,
        1 => 0..=capacity_bytes + 100,
    ]
}

fn mark(capacity_bytes: u64) -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => Just(u64::MAX),
        1 => Just(0_u64),
        3 => 0..=capacity_bytes,
        1 => (0..=capacity_bytes / PAGE_BYTES).prop_map(|pages| pages * PAGE_BYTES),
    ]
}

fn steps(capacity_bytes: u64, max: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        9 => (len_bytes(capacity_bytes), mark(capacity_bytes))
            .prop_map(|(len_bytes, mark)| Step::Allocate { len_bytes, mark }),
        3 => (len_bytes(capacity_bytes), mark(capacity_bytes))
            .prop_map(|(len_bytes, mark)| Step::AllocatePages { len_bytes, mark }),
        1 => (any::<usize>(), len_bytes(capacity_bytes))
            .prop_map(|(which, by_bytes)| Step::Extend { which, by_bytes }),
        5 => any::<usize>().prop_map(|which| Step::Free { which }),
        2 => (any::<usize>(), 0..500_u64, 1..200_u64)
            .prop_map(|(which, skip, granules)| Step::FreePart { which, skip, granules }),
    ];
    proptest::collection::vec(step, 1..max)
}

/// Invariants 1 and 6, on arenas so small that they are full most of the time.
#[test]
fn a_small_arena_with_chunks_agrees_with_the_model() {
    let arena = (0..40 * PAGE_BYTES, prop_oneof![1 => Just(0), 3 => Just(1), 2 => Just(2), 1 => Just(5)]);
    let case = arena.prop_flat_map(|(capacity_bytes, chunk_pages)| {
        (Just((capacity_bytes, chunk_pages)), steps(capacity_bytes, 200))
    });
    proptest!(|(((capacity_bytes, chunk_pages), steps) in case)| {
        check_against_model(Allocator::with_chunks_of(chunk_pages * PAGE_BYTES, capacity_bytes), &steps);
    });
}

/// Invariants 1 and 6, on arenas with room for long leases, as a store would make them.
#[test]
fn an_arena_of_several_steps_agrees_with_the_model() {
    let case = (10 * STEP_BYTES..18 * STEP_BYTES)
        .prop_flat_map(|capacity_bytes| (Just(capacity_bytes), steps_with_long_leases(capacity_bytes)));
    proptest!(ProptestConfig::with_cases(24), |((capacity_bytes, steps) in case)| {
        check_against_model(Allocator::new(capacity_bytes), &steps);
    });
}

fn steps_with_long_leases(capacity_bytes: u64) -> impl Strategy<Value = Vec<Step>> {
    let long = (STEP_BYTES / 2..=LONG_LEASE_BYTES + STEP_BYTES, mark(capacity_bytes))
        .prop_map(|(len_bytes, mark)| Step::AllocatePages { len_bytes, mark });
    (steps(capacity_bytes, 30), proptest::collection::vec(long, 1..15)).prop_map(|(mut steps, long)| {
        // Spread the long leases among the others.
        for (i, lease) in long.into_iter().enumerate() {
            let at = (3 * i).min(steps.len());
            steps.insert(at, lease);
        }
        steps
    })
}

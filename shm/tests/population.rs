//! Taking memory for an arena before anybody writes it, and while somebody does.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use nix::sys::stat::fstat;
use plasmon_shm::{Backend, ClientRegion, Error, Kernel, Populated, Region, STEP_BYTES, Seals};

fn arena(steps: u64, kernel: &Kernel) -> Region {
    let region = Region::create("plasmon-population", steps * STEP_BYTES, Backend::Memfd, kernel).unwrap();
    region.seal(Seals::ShrinkGrow).unwrap();
    region
}

/// Memory that the region takes.
fn taken_bytes(region: &Region) -> u64 {
    let blocks = fstat(region.open_read_only().unwrap()).unwrap().st_blocks;
    u64::try_from(blocks).unwrap() * 512
}

#[test]
fn a_step_becomes_a_huge_page() {
    let kernel = Kernel::detect();
    if !kernel.collapse {
        return; // the fallback has its own test
    }
    let region = arena(8, &kernel);
    let done: Vec<_> =
        (0..8).map(|step| region.populate_step(step * STEP_BYTES, STEP_BYTES, false)).collect();
    let huge = done.iter().filter(|result| matches!(result, Ok(Populated::HugePage))).count() as u64;
    assert!(huge > 0, "not one of 8 steps: {done:?}");
    assert!(taken_bytes(&region) >= huge * STEP_BYTES);
}

#[test]
fn without_collapse_a_step_becomes_small_pages() {
    let kernel = Kernel::detect().pretend_missing("collapse").unwrap();
    let region = arena(2, &kernel);
    assert_eq!(region.populate_step(STEP_BYTES, STEP_BYTES, false).unwrap(), Populated::SmallPages);
    assert_eq!(taken_bytes(&region), STEP_BYTES);
}

#[test]
fn the_fallback_is_small_pages_whatever_the_kernel_can_do() {
    let region = arena(1, &Kernel::detect());
    assert_eq!(region.populate_step(0, STEP_BYTES, true).unwrap(), Populated::SmallPages);
    assert_eq!(taken_bytes(&region), STEP_BYTES);
}

#[test]
fn a_part_of_a_step_is_populated_and_no_more() {
    let region =
        Region::create("plasmon-population", STEP_BYTES + 12_300, Backend::Memfd, &Kernel::detect()).unwrap();
    assert_eq!(region.populate_step(STEP_BYTES, 12_300, false).unwrap(), Populated::SmallPages);
    assert_eq!(taken_bytes(&region), 16_384);
    region.populate_step(0, 4096, false).unwrap();
    assert_eq!(taken_bytes(&region), 20_480);
}

#[test]
fn a_step_is_aligned_short_and_inside_the_region() {
    let region = arena(2, &Kernel::detect());
    assert!(matches!(region.populate_step(4096, 4096, false), Err(Error::Unaligned { found: 4096, .. })));
    assert!(matches!(region.populate_step(0, STEP_BYTES + 1, false), Err(Error::StepLength { .. })));
    assert!(matches!(region.populate_step(2 * STEP_BYTES, 1, false), Err(Error::OutOfBounds { .. })));
    assert!(matches!(region.populate_step(0, 0, false), Err(Error::OutOfBounds { .. })));
    assert_eq!(taken_bytes(&region), 0);
}

#[test]
fn population_keeps_the_bytes_that_are_there() {
    let region = arena(1, &Kernel::detect());
    for fallback in [true, false] {
        region.write_at(1_000_000, b"written before").unwrap();
        match region.populate_step(0, STEP_BYTES, fallback) {
            Ok(_) | Err(Error::CollapseFailed { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        let mut read = [0; 14];
        region.read_at(1_000_000, &mut read).unwrap();
        assert_eq!(&read, b"written before");
    }
}

/// Design review 7: a store by the populating thread would take a writer's words away.
///
/// One thread counts every word up, and checks that it finds what it stored; meanwhile another populates the same
/// memory, first into small pages, then into huge ones.
#[test]
fn population_never_changes_bytes_under_a_live_writer() {
    const STEPS: u64 = 4;
    const ROUNDS: usize = 12;
    const STEP_WORDS: usize = (STEP_BYTES / 8) as usize;
    const FIRST_WORD_COUNTS: u64 = 20_000;
    for kernel in [Kernel::detect(), Kernel::detect().pretend_missing("collapse").unwrap()] {
        for _ in 0..ROUNDS {
            let region = arena(STEPS, &kernel);
            let client =
                ClientRegion::from_fd(region.open_read_write().unwrap(), region.len_bytes()).unwrap();
            let words = client.map_words().unwrap();
            let populated = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    let words = words.words();
                    let count_up = |index: usize, count: u64| {
                        assert_eq!(words[index].load(Relaxed), count, "word {index}");
                        words[index].store(count + 1, Relaxed);
                    };
                    let mut sweeps = 0;
                    while !populated.load(Relaxed) || sweeps == 0 {
                        // The first word of a step is where populating would store, if it did: most often counted.
                        for count in sweeps * FIRST_WORD_COUNTS..(sweeps + 1) * FIRST_WORD_COUNTS {
                            (0..words.len()).step_by(STEP_WORDS).for_each(|index| count_up(index, count));
                        }
                        for index in (0..words.len()).step_by(61).filter(|index| index % STEP_WORDS != 0) {
                            count_up(index, sweeps);
                        }
                        sweeps += 1;
                    }
                });
                for fallback in [true, false, false] {
                    for step in 0..STEPS {
                        match region.populate_step(step * STEP_BYTES, STEP_BYTES, fallback) {
                            Ok(_) | Err(Error::CollapseFailed { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
                populated.store(true, Relaxed);
            });
        }
    }
}

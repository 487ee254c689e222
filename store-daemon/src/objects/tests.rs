//! Objects against a naive count of who holds what.

use super::*;
use crate::populate::Populated;
use proptest::prelude::*;

const CAPACITY_BYTES: u64 = 1 << 20;

#[derive(Clone, Debug)]
enum Step {
    Add {
        len_bytes: u64,
    },
    Hold {
        which: usize,
    },
    Release {
        which: usize,
    },
    /// A scan that finds every second retired home pinned, or none.
    Scan {
        half_pinned: bool,
    },
    Free,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..5_000_u64).prop_map(|len_bytes| Step::Add { len_bytes }),
        2 => any::<usize>().prop_map(|which| Step::Hold { which }),
        5 => any::<usize>().prop_map(|which| Step::Release { which }),
        2 => any::<bool>().prop_map(|half_pinned| Step::Scan { half_pinned }),
        2 => Just(Step::Free),
    ];
    proptest::collection::vec(step, 0..120)
}

/// What the model knows of an object.
#[derive(Debug)]
struct Known {
    number: ObjectNumber,
    offset: u64,
    extent_bytes: u64,
    holders: u32,
    was_unpinned: bool,
}

proptest! {
    /// An object takes room from when it is made until nobody holds it, a scan has found it unpinned and it was freed;
    /// not for less long, and not for longer. No number comes twice.
    #[test]
    fn an_object_is_kept_while_somebody_holds_or_pins_it(steps in steps()) {
        let mut space = Space::new(CAPACITY_BYTES, Populated::by_writers(CAPACITY_BYTES));
        let mut objects = Objects::default();
        let mut known = Vec::<Known>::new();
        let mut numbers = Vec::new();
        // What the scan thread would know: all that was handed to it and not found unpinned.
        let mut in_limbo = Vec::<Retired>::new();
        for step in steps {
            match step {
                Step::Add { len_bytes } => {
                    let Some(extent) = space.allocate(len_bytes) else { continue };
                    let number = objects.add(extent, len_bytes, 7);
                    let Extent { offset, len_bytes: extent_bytes } = extent;
                    known.push(Known { number, offset, extent_bytes, holders: 1, was_unpinned: false });
                    numbers.push(number);
                }
                Step::Hold { which } => {
                    let mut held: Vec<_> = known.iter_mut().filter(|it| it.holders > 0).collect();
                    let count = held.len();
                    if count > 0 {
                        objects.hold(held[which % count].number);
                        held[which % count].holders += 1;
                    }
                }
                Step::Release { which } => {
                    let mut held: Vec<_> = known.iter_mut().filter(|it| it.holders > 0).collect();
                    let count = held.len();
                    if count > 0 {
                        objects.release(held[which % count].number, || "default/x".to_owned());
                        held[which % count].holders -= 1;
                    }
                }
                Step::Scan { half_pinned } => {
                    in_limbo.extend(objects.take_retired());
                    let mut unpinned = RetiredList::default();
                    let mut number = 0;
                    in_limbo.retain(|home| {
                        number += 1;
                        let is_pinned = half_pinned && number % 2 == 0;
                        if !is_pinned {
                            unpinned.push(*home);
                        }
                        is_pinned
                    });
                    for it in &mut known {
                        let pinned = in_limbo.iter().any(|home| home.offset == it.offset);
                        it.was_unpinned |= it.holders == 0 && !pinned;
                    }
                    objects.set_limbo(Limbo { objects: in_limbo.len(), ..Limbo::default() });
                    objects.reclaim(unpinned);
                }
                Step::Free => {
                    while !objects.free_some(&mut space, &mut Slice::shortest()) {}
                    known.retain(|it| !it.was_unpinned);
                }
            }
            let used: u64 = known.iter().map(|it| it.extent_bytes).sum();
            prop_assert_eq!((space.figures().used, objects.len()), (used, known.len()));
            for it in &known {
                let object = objects.get(it.number).expect("it is kept");
                prop_assert_eq!(object.is_released(), it.holders == 0);
                prop_assert_eq!(object.homes.root().offset, it.offset);
                prop_assert!(objects.at(it.offset).is_some());
            }
            let not_handed_over = known.iter().filter(|it| it.holders == 0 && !it.was_unpinned).count();
            prop_assert_eq!(objects.has_candidates(), not_handed_over > 0);
        }
        let before = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        prop_assert_eq!(numbers.len(), before);
    }
}

/// No limit counts the objects in limbo but that of pins, so what each costs is bounded.
#[test]
fn names_that_were_lost_are_shortened_when_there_are_many() {
    let long = "default/".to_owned() + &"ä".repeat(500);
    assert_eq!(*lost_name(long.clone(), 0), long);
    let short = lost_name(long, LOST_NAMES_BYTES_MAX);
    assert!(short.starts_with("default/ää") && short.ends_with("ä…") && short.len() <= LOST_NAME_BYTES_MAX);
    assert_eq!(&*lost_name("default/x".to_owned(), LOST_NAMES_BYTES_MAX), "default/x");
}

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
    /// Something holds an object that is no name.
    Hold {
        which: usize,
    },
    LetGo {
        which: usize,
    },
    /// A name is bound to an object that is there, or to none.
    Bind {
        entry: u32,
        which: Option<usize>,
    },
    /// A scan that finds every second retired home pinned, or none.
    Scan {
        half_pinned: bool,
    },
    Free,
}

/// Names are bound in so many index entries.
const ENTRIES: u32 = 6;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bind = (1..=ENTRIES, proptest::option::weighted(0.6, any::<usize>()));
    let step = prop_oneof![
        4 => (1..5_000_u64).prop_map(|len_bytes| Step::Add { len_bytes }),
        1 => any::<usize>().prop_map(|which| Step::Hold { which }),
        5 => any::<usize>().prop_map(|which| Step::LetGo { which }),
        8 => bind.prop_map(|(entry, which)| Step::Bind { entry, which }),
        2 => any::<bool>().prop_map(|half_pinned| Step::Scan { half_pinned }),
        2 => Just(Step::Free),
    ];
    proptest::collection::vec(step, 0..160)
}

/// What the model knows of an object.
#[derive(Debug)]
struct Known {
    number: ObjectNumber,
    offset: u64,
    extent_bytes: u64,
    /// Holders that are no names.
    others: u32,
    /// Names that are bound to it.
    names: BTreeSet<u32>,
    /// The name that was bound to it last.
    last_name: u32,
    was_unpinned: bool,
}

impl Known {
    fn is_held(&self) -> bool {
        self.others > 0 || !self.names.is_empty()
    }
}

/// The one that `which` chooses of those that somebody holds.
fn held(known: &mut [Known], which: usize) -> Option<&mut Known> {
    let mut held: Vec<_> = known.iter_mut().filter(|it| it.is_held()).collect();
    let at = which.checked_rem(held.len())?;
    Some(held.swap_remove(at))
}

proptest! {
    /// An object takes room from when it is made until nobody holds it, a scan has found it unpinned and it was freed;
    /// not for less long, and not for longer. No number comes twice. It is called what a name is that is bound to it, or
    /// what the last one was.
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
                    let (names, others, last_name, was_unpinned) = (BTreeSet::new(), 1, 0, false);
                    known.push(Known { number, offset, extent_bytes, others, names, last_name, was_unpinned });
                    numbers.push(number);
                }
                Step::Hold { which } => {
                    if let Some(it) = held(&mut known, which) {
                        objects.hold(it.number);
                        it.others += 1;
                    }
                }
                Step::LetGo { which } => {
                    if let Some(it) = held(&mut known, which).filter(|it| it.others > 0) {
                        it.others -= 1;
                        let was_last = objects.release(it.number);
                        prop_assert_eq!(was_last, !it.is_held());
                    }
                }
                Step::Bind { entry, which } => {
                    let new = which.and_then(|which| held(&mut known, which)).map(|it| it.number);
                    new.into_iter().for_each(|number| objects.hold(number));
                    let old = known.iter_mut().find(|it| it.names.contains(&entry)).map(|it| it.number);
                    match (old, new) {
                        (Some(old), None) => {
                            let was_last = objects.unbind(old, entry, || entry.to_string());
                            let it = known.iter().find(|it| it.number == old).expect("it is known");
                            prop_assert_eq!(was_last, it.others == 0 && it.names.len() == 1);
                        }
                        _ => objects.rebind(entry, old, new, false, || entry.to_string()),
                    }
                    for it in &mut known {
                        if Some(it.number) == new && it.names.insert(entry) {
                            it.last_name = entry;
                        } else if Some(it.number) == old && old != new {
                            it.names.remove(&entry);
                        }
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
                        it.was_unpinned |= !it.is_held() && !pinned;
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
                prop_assert_eq!(object.is_released(), !it.is_held());
                prop_assert_eq!((object.names() as usize, object.holders()), (it.names.len(), it.others + object.names()));
                match &object.label {
                    Label::Bound(entry) if !it.names.is_empty() => {
                        let is_last = it.names.contains(&it.last_name).then_some(it.last_name);
                        prop_assert!(is_last.map_or(it.names.contains(entry), |last| last == *entry));
                    }
                    Label::Bound(entry) => prop_assert_eq!((*entry, it.last_name), (0, 0)),
                    Label::Lost(name) => {
                        prop_assert!(it.names.is_empty() && name.parse::<u32>().is_ok());
                    }
                }
                prop_assert_eq!(object.homes.root().offset, it.offset);
                prop_assert!(objects.at(it.offset).is_some());
            }
            let past = known.iter().filter(|it| it.is_held() && it.names.is_empty() && it.last_name > 0);
            let past_bytes = past.map(|it| objects.get(it.number).map_or(0, |object| object.len_bytes)).sum::<u64>();
            prop_assert_eq!(objects.past_bytes(), past_bytes);
            let not_handed_over = known.iter().filter(|it| !it.is_held() && !it.was_unpinned).count();
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

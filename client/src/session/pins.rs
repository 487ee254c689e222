//! Pins of a session: regions of slots, and handles on slots.

use super::Session;
use crate::{
    error::{Error, Result},
    gate::unforked,
    slots::Slots,
};
use plasmon_protocol::{
    index::Entry,
    index_of,
    limits::PIN_SLOTS,
    message::AddRegion,
    pins::{SessionRegion, pin_for},
};
use plasmon_shm::{ClientRegion, FaultPoint, WordsMapping, fault_point};
use std::sync::{Arc, PoisonError, atomic::Ordering};

/// One region of pin slots.
#[derive(Debug)]
pub(super) struct PinRegion {
    pub(super) words: WordsMapping,
    pub(super) slots: Slots,
}

impl Session {
    /// Takes a free pin slot, asking for another region if all are in use.
    #[inline]
    pub(crate) fn take_slot(self: &Arc<Self>) -> Result<Slot, Error> {
        if self.hands_over.load(Ordering::Relaxed) {
            self.private(|private| self.settle(&mut private.hand_overs));
        }
        loop {
            for (number, region) in self.regions.iter().enumerate() {
                let Some(region) = region.get() else {
                    self.grow(number)?;
                    break; // and try from the beginning: others may have given slots back
                };
                if let Some(slot) = region.slots.take() {
                    // Fits: there are at most `pins_max` slots, a u32.
                    let number = u32::try_from(number).unwrap_or(u32::MAX);
                    let number = number * PIN_SLOTS + slot;
                    fault_point(FaultPoint::SlotTaken);
                    return Ok(Slot { session: Arc::clone(self), number });
                }
                if number + 1 == self.regions.len() {
                    let what =
                        "pins of one process (--max-pins); drop handles that are no longer needed".to_owned();
                    return Err(Error::TooMany { what, limit: self.welcome.pins_max.into() });
                }
            }
        }
    }

    #[cold]
    fn grow(&self, number: usize) -> Result<()> {
        let here = self.here();
        let _growing = here.growing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.regions[number].get().is_some() {
            return Ok(()); // another thread was faster
        }
        let answer = self.call_with_fds(&AddRegion {});
        let (added, fds) = answer.map_err(|error| self.explain(error))?;
        fault_point(FaultPoint::RegionAdded);
        let region = match fds.into_iter().next() {
            Some(fd) => ClientRegion::from_fd(fd, self.welcome.session_bytes)?,
            None => ClientRegion::from_name(&added.name, self.welcome.session_bytes, true)?,
        };
        let words = region.map_words()?;
        SessionRegion::open(words.words())?;
        match self.regions.get(index_of(added.region.into())) {
            Some(place) => {
                let slots = Slots::new(slots_of_region(added.region, self.welcome.pins_max))?;
                let _unforked = unforked();
                drop(place.set(PinRegion { words, slots }));
            }
            None => return Err(Error::internal(format!("the store added region {}", added.region))),
        }
        Ok(())
    }

    pub(super) fn region(&self, slot: u32) -> (&PinRegion, u32) {
        let region = self.regions[index_of(u64::from(slot / PIN_SLOTS))].get();
        (region.expect("a slot was taken from a region that is there"), slot % PIN_SLOTS)
    }

    pub(super) fn give_back(&self, number: u32) {
        let (region, slot) = self.region(number);
        fault_point(FaultPoint::Unpin);
        SessionRegion::assume_checked(region.words.words()).withdraw(slot);
        fault_point(FaultPoint::Unpinned);
        region.slots.give_back(slot);
    }
}

/// Slots of region number `region` that may be used, so that all regions together have `pins_max`.
pub(super) fn slots_of_region(region: u32, pins_max: u32) -> u32 {
    pins_max.saturating_sub(region.saturating_mul(PIN_SLOTS)).min(PIN_SLOTS)
}

/// The number of no slot: there are at most `u32::MAX` of them, counted from 0.
const ABANDONED: u32 = u32::MAX;

/// A pin slot of this process, given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    session: Arc<Session>,
    /// Or [`ABANDONED`]: a field of its own would cost every recall a fifteenth of its time.
    number: u32,
}

impl Slot {
    /// The slot's number, counted through all regions.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Publishes a pin for the object that `entry` names. It protects nothing until the index was looked at again.
    #[inline]
    pub(crate) fn publish(&self, entry: &Entry) {
        self.publish_at(entry.offset);
    }

    /// Publishes a pin for the object that begins at `offset`.
    #[inline]
    pub(crate) fn publish_at(&self, offset: u64) {
        let (region, slot) = self.session.region(self.number);
        let pin = pin_for(offset);
        region.slots.note(slot, pin);
        SessionRegion::assume_checked(region.words.words()).publish(slot, pin);
        fault_point(FaultPoint::PinPublished);
    }

    /// Notes that the daemon has published a pin here on this client's behalf.
    pub(crate) fn published_by_store(&self, offset: u64) {
        let (region, slot) = self.session.region(self.number);
        region.slots.note(slot, pin_for(offset));
    }

    /// Never gives the slot back, because the store was asked to pin in it and has not answered.
    ///
    /// It may still do so: if the slot were in use for another object by then, its pin would be overwritten, and that
    /// object reused under its reader. Left alone, the worst is that an object stays until this session ends.
    pub(crate) fn abandon(mut self) {
        self.number = ABANDONED;
    }
}

impl Drop for Slot {
    #[inline]
    fn drop(&mut self) {
        // In a forked child the slot is the parent's, and the object rests on the parent's pin.
        if self.number == ABANDONED || !self.session.mark.is_here() {
            return;
        }
        if self.session.hands_over.load(Ordering::Relaxed) {
            self.session.give_back_later(self.number);
        } else {
            self.session.give_back(self.number);
        }
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::{Blob, Brain, testing::Store};
    use plasmon_store::testing::Running;

    /// The store may still pin in a slot that it was asked to and gave no answer about.
    #[test]
    fn an_abandoned_slot_is_never_taken_again_and_a_dropped_one_is() {
        let store = Store::start(1 << 20).unwrap();
        let session = store.connect().unwrap().session().unwrap();
        let first = session.take_slot().unwrap();
        let number = first.number();
        drop(first);
        let again = session.take_slot().unwrap();
        assert_eq!(again.number(), number);
        again.abandon();
        let slots: Vec<Slot> = (0..200).map(|_| session.take_slot().unwrap()).collect();
        assert!(slots.iter().all(|slot| slot.number() != number));
    }

    #[test]
    fn as_many_objects_are_held_as_the_store_allows_and_dropping_one_makes_room() {
        for (pins_max, allowed) in [(100, 100), (65_546, 65_546)] {
            let store = Running::start_with(1 << 20, |options| options.max_pins = pins_max).unwrap();
            let brain = Brain::builder().path(store.socket()).connect().unwrap();
            brain.learn("a", &[1_u8; 100]).unwrap();
            let mut held: Vec<Blob> = (0..allowed).map(|_| brain.recall("a").unwrap()).collect();
            let refused = brain.recall::<Blob>("a");
            assert!(matches!(refused, Err(Error::TooMany { .. })), "{refused:?}");
            held.pop();
            held.push(brain.recall("a").unwrap());
            assert_eq!(brain.stats().unwrap().pins, u64::from(pins_max));
        }
    }
}

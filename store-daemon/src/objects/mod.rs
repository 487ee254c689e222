//! What the store keeps: objects by number, who holds each, where its bytes stand, and how they go.
//!
//! A commit makes an object of bytes that have a place in the arena ([`Objects::add`]). Whatever needs the object holds
//! it: the binding of each name that means it, and a commit that is about to bind it to another name. The holder that
//! lets go last ([`Objects::release`]) retires the object's homes: they go to the scan thread ([`Objects::take_retired`]).
//! A home that a scan finds unpinned comes back ([`Objects::reclaim`]), and the loop gives its extent back to the space,
//! slice by slice ([`Objects::free_some`]).
//!
//! Index entries and pins name an object by the offset of its *root*. Everything in the daemon names it by its number,
//! because that is never used for another object, and stays the same if the bytes move.

#[cfg(test)]
mod tests;

use crate::{
    allocator::Extent,
    reclaim::{Limbo, Retired, RetiredList},
    slice::Slice,
    space::Space,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU64,
};

/// An object's number, never used twice while the daemon lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ObjectNumber(NonZeroU64);

/// Bytes that may be recalled, for as long as somebody holds them or pins their root.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) homes: Homes,
    pub(crate) len_bytes: u64,
    /// Version of the commit that made it.
    pub(crate) version: u64,
    pub(crate) label: Label,
    /// Names that are bound to it.
    names: u32,
    /// How many need it. At 0 it waits for the last pin to go.
    holders: u32,
}

impl Object {
    /// How many need it.
    pub(crate) fn holders(&self) -> u32 {
        self.holders
    }

    /// How many names are bound to it.
    pub(crate) fn names(&self) -> u32 {
        self.names
    }

    /// Whether nobody holds it any more.
    pub(crate) fn is_released(&self) -> bool {
        self.holders == 0
    }
}

/// The extents in which an object's bytes stand: one, in memory. All that take an object apart go through
/// [`all`](Self::all), so that further homes need no change to them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Homes {
    memory: Extent,
}

impl Homes {
    /// The extent that index entries and pins name.
    pub(crate) fn root(&self) -> Extent {
        self.memory
    }

    /// All of them.
    fn all(&self) -> impl Iterator<Item = Extent> + use<> {
        [self.memory].into_iter()
    }
}

/// What an object is called where people ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    /// What this index entry is called: of several names the one that was bound last.
    Bound(u32),
    /// It has no name any more. The last one was this.
    Lost(Box<str>),
}

/// All objects that have a place in the arena. A value that stands in its index entry needs none.
///
/// Maps are trees, because they grow with the number of names: a hash table would now and then move all of it at once.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    by_number: BTreeMap<ObjectNumber, Object>,
    /// By the offset of each home: pins name offsets.
    by_home: BTreeMap<u64, ObjectNumber>,
    /// The index entries of names that are bound to an object beside the one in its label.
    further_names: BTreeSet<(ObjectNumber, u32)>,
    last_number: u64,
    /// Bytes of objects without a name that somebody holds.
    past_bytes: u64,
    /// Homes that nobody holds and that the scan thread was not told of yet. It knows all others.
    retired: RetiredList,
    retired_bytes: u64,
    /// What the last scan found pinned of those that nobody holds.
    limbo: Limbo,
    /// Homes that a scan found unpinned, to be freed.
    unpinned: RetiredList,
    /// Bytes of the names in [`Label::Lost`].
    lost_name_bytes: usize,
}

/// Retired homes that are looked at by the end of the turn: less wait for others, at most 100 ms. A scan wakes another
/// thread, which costs more than a small learn has to.
const SCAN_AT_ONCE_BYTES: u64 = 256 << 10;
const SCAN_AT_ONCE_OBJECTS: usize = 1_024;

impl Objects {
    /// Makes an object of `len_bytes` in `extent`, which the space has handed out. Its first holder is the caller.
    pub(crate) fn add(&mut self, extent: Extent, len_bytes: u64, version: u64) -> ObjectNumber {
        self.last_number += 1;
        let number = ObjectNumber(NonZeroU64::new(self.last_number).expect("it was counted up"));
        let homes = Homes { memory: extent };
        for home in homes.all() {
            self.by_home.insert(home.offset, number);
        }
        // What it is called until it has a name, nobody asks.
        let label = Label::Bound(0);
        self.by_number.insert(number, Object { homes, len_bytes, version, label, names: 0, holders: 1 });
        number
    }

    /// The name in index entry `entry` is bound to the object.
    pub(crate) fn name(&mut self, number: ObjectNumber, entry: u32) {
        let Some(object) = self.by_number.get_mut(&number) else { return };
        object.names += 1;
        match std::mem::replace(&mut object.label, Label::Bound(entry)) {
            Label::Bound(before) if object.names > 1 => drop(self.further_names.insert((number, before))),
            Label::Bound(_) => {}
            Label::Lost(name) => {
                self.lost_name_bytes -= name.len();
                self.past_bytes -= object.len_bytes;
            }
        }
    }

    /// One more needs the object.
    pub(crate) fn hold(&mut self, number: ObjectNumber) {
        if let Some(object) = self.by_number.get_mut(&number) {
            debug_assert!(object.holders > 0, "what was released can only be freed");
            object.holders += 1;
        }
    }

    /// The name in index entry `entry`, which people know as `name`, is not bound to the object any more. Its binding
    /// [holds](Self::release) the object still.
    pub(crate) fn unname(&mut self, number: ObjectNumber, entry: u32, name: impl FnOnce() -> String) {
        let Some(object) = self.by_number.get_mut(&number) else { return };
        object.names -= 1;
        if object.label != Label::Bound(entry) {
            self.further_names.remove(&(number, entry));
            return;
        }
        let others = (number, 0)..=(number, u32::MAX);
        if let Some(&(_, other)) = self.further_names.range(others).next() {
            self.further_names.remove(&(number, other));
            object.label = Label::Bound(other);
            return;
        }
        let name = lost_name(name(), self.lost_name_bytes);
        self.lost_name_bytes += name.len();
        self.past_bytes += object.len_bytes;
        object.label = Label::Lost(name);
    }

    /// Bytes of objects without a name that somebody holds: the past does.
    pub(crate) fn past_bytes(&self) -> u64 {
        self.past_bytes
    }

    /// One that held the object needs it no more. If that was the last one, the object goes as soon as a scan finds it
    /// unpinned. Returns whether it was.
    pub(crate) fn release(&mut self, number: ObjectNumber) -> bool {
        let Some(object) = self.by_number.get_mut(&number) else { return false };
        object.holders -= 1;
        if object.holders > 0 {
            return false;
        }
        debug_assert_eq!(object.names, 0, "a name that is bound to it holds it");
        let len_bytes = object.len_bytes;
        if let Label::Lost(_) = object.label {
            self.past_bytes -= len_bytes;
        }
        for home in object.homes.all() {
            self.retired.push(Retired { offset: home.offset, extent_bytes: home.len_bytes, len_bytes });
        }
        self.retired_bytes += len_bytes;
        true
    }

    /// As [`release`](Self::release), for what may have no object.
    pub(crate) fn release_if_any(&mut self, number: Option<ObjectNumber>) -> bool {
        number.is_some_and(|number| self.release(number))
    }

    /// The binding in index entry `entry` has ended, which people know as `name`. Returns whether nothing needs the object
    /// any more.
    pub(crate) fn unbind(&mut self, number: ObjectNumber, entry: u32, name: impl FnOnce() -> String) -> bool {
        self.unname(number, entry, name);
        self.release(number)
    }

    /// The binding in index entry `entry`, which people know as `name`, means `new` now, and meant `old` until now. There is
    /// a holder for each; from here on `old` has that one no more, unless the past keeps what it was bound by.
    pub(crate) fn rebind(
        &mut self,
        entry: u32,
        old: Option<ObjectNumber>,
        new: Option<ObjectNumber>,
        keeps_old: bool,
        name: impl FnOnce() -> String,
    ) {
        if old != new {
            new.into_iter().for_each(|new| self.name(new, entry));
            if let Some(old) = old {
                self.unname(old, entry, name);
            }
        }
        if let Some(old) = old.filter(|_| !keeps_old) {
            self.release(old);
        }
    }

    /// The object with this number.
    pub(crate) fn get(&self, number: ObjectNumber) -> Option<&Object> {
        self.by_number.get(&number)
    }

    /// The object that has a home at `offset`, which a pin names.
    pub(crate) fn at(&self, offset: u64) -> Option<&Object> {
        self.get(*self.by_home.get(&offset)?)
    }

    /// How many there are, held or not.
    pub(crate) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Where all homes begin.
    pub(crate) fn offsets(&self) -> Vec<u64> {
        self.by_home.keys().copied().collect()
    }

    /// Takes what was retired since this was last asked for, to hand it to the scan thread.
    pub(crate) fn take_retired(&mut self) -> RetiredList {
        self.retired_bytes = 0;
        std::mem::take(&mut self.retired)
    }

    /// What a scan found unpinned cannot be freed after all: the next scan looks at it again.
    pub(crate) fn retire_again(&mut self, unpinned: RetiredList) {
        self.retired.append(unpinned);
    }

    /// Whether the next scan could free anything.
    pub(crate) fn has_candidates(&self) -> bool {
        !self.retired.is_empty() || self.limbo.objects > 0
    }

    /// Whether so much was retired since the last scan that the next one is worth its while at once.
    pub(crate) fn has_much_retired(&self) -> bool {
        self.retired_bytes >= SCAN_AT_ONCE_BYTES || self.retired.len() >= SCAN_AT_ONCE_OBJECTS
    }

    /// Notes what a scan found pinned of what nobody holds.
    pub(crate) fn set_limbo(&mut self, limbo: Limbo) {
        self.limbo = limbo;
    }

    /// What the last scan found pinned of what nobody holds.
    pub(crate) fn limbo(&self) -> &Limbo {
        &self.limbo
    }

    /// A scan found these homes unpinned: [`free_some`](Self::free_some) frees them.
    pub(crate) fn reclaim(&mut self, unpinned: RetiredList) {
        self.unpinned.append(unpinned);
    }

    /// Whether homes wait to be freed.
    pub(crate) fn has_unpinned(&self) -> bool {
        !self.unpinned.is_empty()
    }

    /// Gives the extents of unpinned homes back to `space`, for as long as `slice` lasts. Returns whether none is left.
    pub(crate) fn free_some(&mut self, space: &mut Space, slice: &mut Slice) -> bool {
        while !self.unpinned.is_empty() {
            if !slice.spend() {
                return false;
            }
            if let Some(home) = self.unpinned.pop() {
                self.free(home.offset, space);
            }
        }
        true
    }

    /// Frees one home. The object goes with the last of them.
    fn free(&mut self, offset: u64, space: &mut Space) {
        let Some(number) = self.by_home.remove(&offset) else { return };
        let Some(object) = self.by_number.remove(&number) else { return };
        debug_assert!(object.is_released(), "only what nobody holds is retired");
        if let Label::Lost(name) = &object.label {
            self.lost_name_bytes -= name.len();
        }
        object.homes.all().for_each(|home| space.unclaim(home));
    }
}

/// Bytes of names that objects may keep which have lost them; beyond that, each keeps [`LOST_NAME_BYTES_MAX`].
const LOST_NAMES_BYTES_MAX: usize = 8 << 20;

/// What is kept of a name that was lost when many were.
const LOST_NAME_BYTES_MAX: usize = 32;

/// What is kept of the name of an object that loses it, when those that others have lost take `kept_bytes`: people read
/// it who ask what is in limbo. There can be as many of them as there are pins.
fn lost_name(mut name: String, kept_bytes: usize) -> Box<str> {
    if kept_bytes + name.len() > LOST_NAMES_BYTES_MAX && name.len() > LOST_NAME_BYTES_MAX {
        name.truncate(name.floor_char_boundary(LOST_NAME_BYTES_MAX - '…'.len_utf8()));
        name.push('…');
    }
    name.into()
}

use super::{Message, choice, message, part};
use crate::{
    codec::{BoundedList, DecodeError, ListReader, ListWriter, Reader, codec_struct},
    index::Entry,
    limits,
    name::{Name, Namespace},
};
use alloc::vec::Vec;
use bytes::Bytes;

message! {
    /// Looks one name up and pins its object for the client, who did not get a steady look at the index.
    ///
    /// Request 18, since protocol 1. Answered by [`Found`], or by failure `BadSlot`.
    Find = 18 answered by Found {
        /// Namespace of the name.
        namespace: Namespace,
        /// The name.
        name: Name,
        /// A pin slot of the client's that is free; the daemon stores the pin there before it answers. A slot's
        /// number counts on through the session's regions.
        slot: u32,
    }
}

message! {
    /// What the name is bound to. Reply 19, since protocol 1.
    Found = 19 {
        /// `None` if the name is not bound.
        location: Option<Entry>,
    }
}

part! {
    /// A name to look up, and the free pin slot for it.
    NameSlot {
        /// Namespace of the name.
        namespace: Namespace,
        /// The name.
        name: Name,
        /// As in [`Find::slot`].
        slot: u32,
    }
}

message! {
    /// Looks many names up at one moment and pins their objects.
    ///
    /// Request 20, since protocol 1. Answered by [`FoundMany`], or by failure `BadSlot`.
    FindMany = 20 answered by FoundMany {
        /// The names.
        names: Vec<NameSlot>,
    }
}

message! {
    /// What the names are bound to, in the order asked, at one moment. Reply 21, since protocol 1.
    FoundMany = 21 {
        /// `Absent` for a name that is not bound.
        locations: Vec<FoundOne>,
    }
}

impl FindMany {
    /// Begins to read the body of a frame name by name. Behind the last one nothing must be
    /// [left](Reader::finish).
    ///
    /// # Errors
    /// [`DecodeError`], which names the field.
    pub fn read(body: Bytes) -> Result<ListReader<NameSlot>, DecodeError> {
        let mut reader = Reader::new(body);
        reader.enter("names");
        ListReader::begin(reader)
    }
}

/// A [`FoundMany`] that is encoded answer by answer: the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundOneByOne {
    /// As in [`FoundMany`].
    pub locations: ListWriter<FoundOne>,
}

codec_struct!(FoundOneByOne { locations });

impl Message for FoundOneByOne {
    const KIND: u16 = FoundMany::KIND;
}

choice! {
    /// One answer of many.
    FoundOne {
        /// The name is not bound.
        0 = Absent,
        /// Where its object is.
        1 = At(location: Entry),
    }
}

message! {
    /// Waits until a name is bound with a version above `above_version`.
    ///
    /// Request 22, since protocol 1. Blocks no other request. Answered by [`Bound`], or by failure `WaitTimeout`.
    Wait = 22 answered by Bound {
        /// Namespace of the name; it need not exist.
        namespace: Namespace,
        /// The name.
        name: Name,
        /// The binding's version must be above this; 0 waits for any.
        above_version: u64,
        /// Longest wait, in milliseconds; `u64::MAX` has no end.
        wait_ms: u64,
    }
}

message! {
    /// The name is bound. Reply 23, since protocol 1.
    Bound = 23 {
        /// Version of the binding.
        version: u64,
    }
}

message! {
    /// Waits until a name is bound with another version than `version`, or not bound any more.
    ///
    /// Request 42, since protocol 1. Blocks no other request. Answered by [`Changed`], or by failure `WaitTimeout`.
    WaitChange = 42 answered by Changed {
        /// Namespace of the name; it need not exist.
        namespace: Namespace,
        /// The name.
        name: Name,
        /// The version that the client knows; 0 if it knows the name as not bound.
        version: u64,
        /// Longest wait, in milliseconds; `u64::MAX` has no end.
        wait_ms: u64,
    }
}

message! {
    /// What the client knew holds no more. Reply 43, since protocol 1.
    Changed = 43 {
        /// Version of the binding that was found then; 0 if there was none. It may have changed again.
        version: u64,
    }
}

impl BoundedList for NameSlot {
    const ITEMS_MAX: u32 = limits::RECALL_NAMES_MAX;
}

impl BoundedList for FoundOne {
    const ITEMS_MAX: u32 = limits::RECALL_NAMES_MAX;
}

//! The messages of the control protocol, each defined once with its number, direction, meaning and errors.
//!
//! Requests go from client to store and have even numbers, replies odd ones. Each request but [`Goodbye`] is answered
//! by one reply under its id: the one its documentation names, mostly that of the next number, or [`Failed`]. Numbers
//! are never reused (`golden/v1/NUMBERS.txt` lists them); reserved fields are zero and refused otherwise.
//! docs/protocol.md has the handshake, the limits and the history of versions.

mod commit;
mod failure;
mod handshake;
mod lease;
mod listing;
mod lookup;
mod operator;
mod past;

pub use commit::{
    Bind, Change, Commit, Committed, Condition, Expect, Lives, LongCommit, Payload, SameAs, Ttl,
};
pub use failure::{Failed, FailedCondition, Failure, FullOfPast, Holder, Keeper, NoRoom};
pub use handshake::{Attached, ChildAdded, Goodbye, Hello, MAGIC, Role, VERSION, Welcome, hello_version};
pub use lease::{AddRegion, EndLease, ExtendLease, Granted, LeaseEnded, RegionAdded, Reserve};
pub use listing::{
    BareNames, BareNamesPage, BindingInfo, Describe, DescribeNamespace, Described, DescribedName,
    DescribedPage, ListBareNames, ListDescribed, ListNames, ListNamespaces, ListedName, NamesPage,
    NamespaceDescribed, NamespaceInfo, NamespacesListed,
};
pub use lookup::{
    Bound, Changed, Find, FindMany, Found, FoundMany, FoundOne, FoundOneByOne, NameSlot, Wait, WaitChange,
};
pub use operator::{
    Figure, Kick, Kicked, ListPins, PinInfo, PinPlace, PinsPage, ReadStats, RefusedLearns, Stats,
};

pub use past::{
    BeginView, DescribePast, DropSnapshot, EndHold, EndInfo, FindAt, History, HoldEnded, ListAt,
    ListSnapshots, ListVersions, ListViews, MomentOf, PastDescribed, Reason, SnapshotInfo, SnapshotTaken,
    SnapshotsPage, TakeSnapshot, ThenInfo, ThenPage, VersionInfo, VersionsPage, ViewBegun, ViewInfo,
    ViewsPage, When,
};

use crate::codec::{Codec, DecodeError, Reader};
use alloc::vec::Vec;
use bytes::Bytes;

/// A message with a number of its own.
pub trait Message: Codec {
    /// The number, in the frame's header.
    const KIND: u16;

    /// Appends the frame of this message.
    ///
    /// # Errors
    /// [`FrameError::TooLong`](crate::frame::FrameError::TooLong) if it does not fit into a frame.
    fn frame(&self, request_id: u64, out: &mut Vec<u8>) -> Result<(), crate::frame::FrameError> {
        crate::frame::append(out, Self::KIND, request_id, |out| self.encode(out))
    }

    /// Reads the body of a frame, all of it.
    ///
    /// # Errors
    /// [`DecodeError`], which names the field.
    fn parse(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let message = Self::decode(&mut reader)?;
        reader.finish()?;
        Ok(message)
    }
}

/// A request, and the reply that answers it if it succeeds.
pub trait Request: Message {
    /// The reply.
    type Reply: Message;
}

/// Defines a message: its documentation, number and fields stand in one place.
macro_rules! message {
    (
        $(#[$doc:meta])*
        $name:ident = $kind:literal $(answered by $reply:ident)? {
            $( $(#[$field_doc:meta])* $field:ident: $type:ty, )*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $( $(#[$field_doc])* pub $field: $type, )*
        }

        $crate::codec::codec_struct!($name { $($field),* });

        impl $crate::message::Message for $name {
            const KIND: u16 = $kind;
        }

        $( impl $crate::message::Request for $name { type Reply = $reply; } )?
    };
}
pub(crate) use message;

/// Defines a part of messages: a struct without a number.
macro_rules! part {
    (
        $(#[$doc:meta])*
        $name:ident {
            $( $(#[$field_doc:meta])* $field:ident: $type:ty, )*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $( $(#[$field_doc])* pub $field: $type, )*
        }

        $crate::codec::codec_struct!($name { $($field),* });
    };
}
pub(crate) use part;

/// Defines a choice, one numbered byte and then what belongs to the one chosen: nothing (`1 = Absent`), one value
/// (`1 = Bind(bind: Bind)`, whose name is what errors call it), or fields (`2 = Requests { token: [u8; 16], }`).
macro_rules! choice {
    (
        $(#[$doc:meta])*
        $name:ident {
            $(
                $(#[$item_doc:meta])*
                $number:literal = $item:ident
                    $( ( $value:ident: $value_type:ty ) )?
                    $( { $( $(#[$field_doc:meta])* $field:ident: $type:ty, )* } )?,
            )*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $(
                $(#[$item_doc])*
                $item $( ($value_type) )? $( { $( $(#[$field_doc])* $field: $type, )* } )?,
            )*
        }

        impl $crate::codec::Codec for $name {
            fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
                match self {
                    $( $name::$item { $( 0: $value )? $( $($field),* )? } => {
                        let number: u8 = $number;
                        number.encode(out);
                        $( $value.encode(out); )?
                        $( $( $field.encode(out); )* )?
                    } )*
                }
            }

            fn decode(
                reader: &mut $crate::codec::Reader,
            ) -> Result<Self, $crate::codec::DecodeError> {
                reader.enter(stringify!($name));
                match u8::decode(reader)? {
                    $( $number => {
                        $(
                            reader.enter(stringify!($value));
                            let $value = $crate::codec::Codec::decode(reader)?;
                        )?
                        $( $(
                            reader.enter(stringify!($field));
                            let $field = $crate::codec::Codec::decode(reader)?;
                        )* )?
                        Ok($name::$item { $( 0: $value )? $( $($field),* )? })
                    } )*
                    other => Err(reader.bad_value(stringify!($name), other.into())),
                }
            }
        }
    };
}
pub(crate) use choice;

/// Requests as the daemon reads them.
macro_rules! requests {
    ($($name:ident)*) => {
        /// A request as the daemon reads it from a frame: any but [`Commit`] and [`FindMany`], which it reads item by item.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each variant is the message of the same name")]
        #[non_exhaustive]
        pub enum AnyRequest { $( $name($name), )* }

        impl AnyRequest {
            /// Reads the body of a frame whose header says `kind`. `None` for a [`Commit`], a [`FindMany`], and for a number that this
            /// version does not know.
            ///
            /// # Errors
            /// [`DecodeError`], which names the field.
            pub fn parse(kind: u16, body: Bytes) -> Option<Result<Self, DecodeError>> {
                match kind {
                    $( $name::KIND => Some($name::parse(body).map(AnyRequest::$name)), )*
                    _ => None,
                }
            }

            /// The name of the message, for logs.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $( AnyRequest::$name(_) => stringify!($name), )* }
            }
        }
    };
}
requests! {
    Hello Goodbye LongCommit Reserve ExtendLease EndLease AddRegion Find Wait ListNames ListNamespaces
    Describe ReadStats ListPins Kick ListBareNames WaitChange ListDescribed DescribeNamespace
    BeginView EndHold FindAt TakeSnapshot DropSnapshot ListSnapshots ListViews ListVersions ListAt DescribePast
}

#[cfg(test)]
mod tests;

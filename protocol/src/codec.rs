//! How the fields of a message become bytes: little-endian numbers, length-prefixed text, counted lists.
//!
//! All parsing stands on [`Codec`] and on a [`Reader`] that cannot overrun its bytes. Nothing is allocated for a
//! length before the bytes behind it are known to be there.

use crate::{
    limits,
    name::{Label, NAME_BYTES_MAX, NAMESPACE_BYTES_MAX, Name, NameError, Namespace},
};
use alloc::{boxed::Box, string::String, vec::Vec};
use bytes::{Buf, Bytes};
use core::fmt;

/// Why bytes are not the message they claim to be: which field, and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// The field of the message that could not be read.
    pub field: &'static str,
    /// What was wrong with it.
    pub problem: Problem,
}

/// What was wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The bytes end inside the field.
    Truncated {
        /// Bytes the field needs.
        needed_bytes: u64,
        /// Bytes that are left.
        left_bytes: u64,
    },
    /// A length or a count is beyond its bound.
    TooLong {
        /// What was claimed.
        found: u64,
        /// The bound.
        limit: u64,
    },
    /// A number that has no meaning here.
    BadValue {
        /// The number.
        found: u64,
    },
    /// Text that is not UTF-8.
    NotUtf8,
    /// A namespace or a name that breaks its rule.
    BadName(NameError),
    /// Bytes after the last field.
    Trailing {
        /// How many.
        bytes: u64,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.field;
        match &self.problem {
            Problem::Truncated { needed_bytes, left_bytes } => {
                write!(f, "field `{field}` needs {needed_bytes} bytes and {left_bytes} are left")
            }
            Problem::TooLong { found, limit } => {
                write!(f, "field `{field}` is {found} long, the limit is {limit}")
            }
            Problem::BadValue { found } => write!(f, "field `{field}` has the unknown value {found}"),
            Problem::NotUtf8 => write!(f, "field `{field}` is not UTF-8"),
            Problem::BadName(error) => write!(f, "field `{field}`: {error}"),
            Problem::Trailing { bytes } => write!(f, "{bytes} bytes follow the last field"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// A cursor over the body of one frame.
#[derive(Clone, Debug)]
pub struct Reader {
    rest: Bytes,
    field: &'static str,
    /// The last namespace that was read: in a list it is mostly that of the next item, too, which then shares its text.
    namespace: Option<Namespace>,
}

impl Reader {
    /// Starts at the beginning of `body`.
    #[must_use]
    pub fn new(body: Bytes) -> Self {
        Reader { rest: body, field: "", namespace: None }
    }

    /// Names the field that is read next, for errors.
    pub fn enter(&mut self, field: &'static str) {
        self.field = field;
    }

    /// Takes the next `len_bytes` without copying them.
    ///
    /// # Errors
    /// [`Problem::Truncated`].
    pub fn take(&mut self, len_bytes: usize) -> Result<Bytes, DecodeError> {
        if len_bytes > self.rest.len() {
            let (needed_bytes, left_bytes) = (len_bytes as u64, self.rest.len() as u64);
            return Err(self.fail(Problem::Truncated { needed_bytes, left_bytes }));
        }
        Ok(self.rest.split_to(len_bytes))
    }

    /// Takes a length word and checks it against `limit`.
    ///
    /// # Errors
    /// [`Problem::Truncated`] or [`Problem::TooLong`].
    pub fn length(&mut self, limit: u32) -> Result<usize, DecodeError> {
        let found = u32::decode(self)?;
        if found > limit {
            return Err(self.fail(Problem::TooLong { found: found.into(), limit: limit.into() }));
        }
        Ok(crate::index_of(found.into()))
    }

    /// Demands that nothing is left.
    ///
    /// # Errors
    /// [`Problem::Trailing`].
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() as u64 {
            0 => Ok(()),
            bytes => Err(DecodeError { field: "", problem: Problem::Trailing { bytes } }),
        }
    }

    /// The error that `found` has no meaning in the field `field`.
    #[must_use]
    pub fn bad_value(&self, field: &'static str, found: u64) -> DecodeError {
        DecodeError { field, problem: Problem::BadValue { found } }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some(array) = self.rest.first_chunk().copied() else {
            let (needed_bytes, left_bytes) = (N as u64, self.rest.len() as u64);
            return Err(self.fail(Problem::Truncated { needed_bytes, left_bytes }));
        };
        self.rest.advance(N);
        Ok(array)
    }

    fn fail(&self, problem: Problem) -> DecodeError {
        DecodeError { field: self.field, problem }
    }
}

/// A value that can be a field of a message.
pub trait Codec: Sized {
    /// Appends the value.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads the value.
    ///
    /// # Errors
    /// [`DecodeError`], which names the field.
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError>;
}

macro_rules! codec_numbers {
    ($($number:ty)*) => {$(
        impl Codec for $number {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
                Ok(<$number>::from_le_bytes(reader.array()?))
            }
        }
    )*};
}
codec_numbers!(u8 u16 u32 u64);

impl<const N: usize> Codec for [u8; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.array()
    }
}

impl Codec for [u64; 4] {
    fn encode(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|word| word.encode(out));
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok([u64::decode(reader)?, u64::decode(reader)?, u64::decode(reader)?, u64::decode(reader)?])
    }
}

impl Codec for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        u8::from(*self).encode(out);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        match u8::decode(reader)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(reader.fail(Problem::BadValue { found: other.into() })),
        }
    }
}

impl<T: Codec> Codec for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.is_some().encode(out);
        if let Some(value) = self {
            value.encode(out);
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(if bool::decode(reader)? { Some(T::decode(reader)?) } else { None })
    }
}

fn encode_text(text: &str, limit: u32, out: &mut Vec<u8>) {
    let len_bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
    debug_assert!(
        len_bytes <= limit,
        "a text of {len_bytes} bytes is checked before it is put into a message"
    );
    len_bytes.encode(out);
    out.extend_from_slice(text.as_bytes());
}

/// Reads a text of at most `limit` bytes, of which `make` makes what it stands for.
fn decode_text<T>(
    reader: &mut Reader,
    limit: u32,
    make: impl FnOnce(&str) -> Result<T, Problem>,
) -> Result<T, DecodeError> {
    let len_bytes = reader.length(limit)?;
    let Some(bytes) = reader.rest.get(..len_bytes) else {
        let (needed_bytes, left_bytes) = (len_bytes as u64, reader.rest.len() as u64);
        return Err(reader.fail(Problem::Truncated { needed_bytes, left_bytes }));
    };
    let made = core::str::from_utf8(bytes).map_err(|_| Problem::NotUtf8).and_then(make);
    let made = made.map_err(|problem| reader.fail(problem))?;
    reader.rest.advance(len_bytes);
    Ok(made)
}

/// Longest text field that is neither a name nor a namespace: a description, metadata, a message for people.
const TEXT_BYTES_MAX: u32 = limits::METADATA_BYTES_MAX;

impl Codec for String {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_text(self, TEXT_BYTES_MAX, out);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        decode_text(reader, TEXT_BYTES_MAX, |text| Ok(text.into()))
    }
}

impl Codec for Name {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_text(self, 1_024, out);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        decode_text(reader, 1_024, |text| Name::new(text).map_err(Problem::BadName))
    }
}

impl Codec for Label {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_text(self.as_str(), 64, out);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        decode_text(reader, 64, |text| Label::new(text).map_err(Problem::BadName))
    }
}

impl Codec for Namespace {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_text(self, 64, out);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let known = reader.namespace.take();
        let namespace = decode_text(reader, 64, |text| match known {
            Some(known) if *known == *text => Ok(known),
            _ => Namespace::new(text).map_err(Problem::BadName),
        })?;
        reader.namespace = Some(namespace.clone());
        Ok(namespace)
    }
}
const _: () = assert!(NAMESPACE_BYTES_MAX == 64 && NAME_BYTES_MAX == 1_024);

impl<T: Codec> Codec for Box<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        (**self).encode(out);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        T::decode(reader).map(Box::new)
    }
}

impl Codec for Bytes {
    fn encode(&self, out: &mut Vec<u8>) {
        let len_bytes = u32::try_from(self.len()).unwrap_or(u32::MAX);
        debug_assert!(
            len_bytes <= limits::FRAME_BYTES_MAX,
            "payloads are checked before they are put into a message"
        );
        len_bytes.encode(out);
        out.extend_from_slice(self);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let len_bytes = reader.length(limits::FRAME_BYTES_MAX)?;
        reader.take(len_bytes)
    }
}

/// A counted list whose length has a bound of its own.
pub trait BoundedList {
    /// Most items.
    const ITEMS_MAX: u32;
}

impl<T: Codec + BoundedList> Codec for Vec<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        u32::try_from(self.len()).unwrap_or(u32::MAX).encode(out);
        self.iter().for_each(|item| item.encode(out));
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let count = reader.length(T::ITEMS_MAX)?;
        // Every item has at least one byte, so a count beyond the bytes left is a lie and reserves nothing.
        let mut items = Vec::with_capacity(count.min(reader.rest.len()).min(1_024));
        for _ in 0..count {
            items.push(T::decode(reader)?);
        }
        Ok(items)
    }
}

/// A counted list that is encoded item by item, so that whoever has many items can do other things in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListWriter<T> {
    count: u32,
    encoded: Vec<u8>,
    items: core::marker::PhantomData<T>,
}

impl<T> Default for ListWriter<T> {
    fn default() -> Self {
        ListWriter { count: 0, encoded: Vec::new(), items: core::marker::PhantomData }
    }
}

impl<T: Codec> ListWriter<T> {
    /// Puts `item` behind the last one.
    pub fn push(&mut self, item: &T) {
        self.count += 1;
        item.encode(&mut self.encoded);
    }
}

impl<T: Codec + BoundedList> Codec for ListWriter<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.count.encode(out);
        out.extend_from_slice(&self.encoded);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut list = ListWriter::default();
        for item in Vec::<T>::decode(reader)? {
            list.push(&item);
        }
        Ok(list)
    }
}

/// Reads a counted list item by item, so that whoever reads one of a million items can do other things in between.
#[derive(Clone, Debug)]
pub struct ListReader<T> {
    reader: Reader,
    left: usize,
    items: core::marker::PhantomData<T>,
}

impl<T: Codec + BoundedList> ListReader<T> {
    /// Takes the list's count.
    ///
    /// # Errors
    /// [`Problem::Truncated`] or [`Problem::TooLong`].
    pub fn begin(mut reader: Reader) -> Result<Self, DecodeError> {
        let left = reader.length(T::ITEMS_MAX)?;
        Ok(ListReader { reader, left, items: core::marker::PhantomData })
    }

    /// Items that are still to come.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }

    /// The next item; `None` behind the last one.
    ///
    /// # Errors
    /// [`DecodeError`], which names the field.
    pub fn read(&mut self) -> Result<Option<T>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        T::decode(&mut self.reader).map(Some)
    }

    /// What follows the list, all of whose items were read.
    pub fn rest(self) -> Reader {
        debug_assert_eq!(self.left, 0, "what follows is known once all items were read");
        self.reader
    }
}

/// Implements [`Codec`] for a struct as its fields in order.
macro_rules! codec_struct {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::codec::Codec for $name {
            fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
                let _ = &out;
                $( self.$field.encode(out); )*
            }

            fn decode(
                reader: &mut $crate::codec::Reader,
            ) -> Result<Self, $crate::codec::DecodeError> {
                let _ = &reader;
                $(
                    reader.enter(stringify!($field));
                    let $field = $crate::codec::Codec::decode(reader)?;
                )*
                Ok($name { $($field),* })
            }
        }
    };
}
pub(crate) use codec_struct;

/// A number with names: unknown values are kept, since a newer peer may know them.
macro_rules! open_numbers {
    ($(#[$doc:meta])* $name:ident: $repr:ty { $( $(#[$item_doc:meta])* $item:ident = $value:literal, )* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name($repr);

        impl $name {
            $( $(#[$item_doc])* pub const $item: $name = $name($value); )*

            /// All that this version knows.
            pub const KNOWN: &'static [$name] = &[$( $name::$item, )*];

            /// The number.
            #[inline]
            #[must_use]
            pub const fn number(self) -> $repr {
                self.0
            }

            /// The value with this number, known or not.
            #[inline]
            #[must_use]
            pub const fn from_number(number: $repr) -> Self {
                $name(number)
            }

            /// The name in lower case, or `None` for a number this version does not know.
            #[must_use]
            pub fn name(self) -> Option<alloc::string::String> {
                match self.0 {
                    $( $value => Some(stringify!($item).to_ascii_lowercase()), )*
                    _ => None,
                }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.name() {
                    Some(name) => f.pad(&name),
                    None => f.pad(&alloc::format!("unknown-{}", self.0)),
                }
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{self}")
            }
        }

        impl $crate::codec::Codec for $name {
            fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
                self.0.encode(out);
            }

            fn decode(
                reader: &mut $crate::codec::Reader,
            ) -> Result<Self, $crate::codec::DecodeError> {
                Ok($name(<$repr>::decode(reader)?))
            }
        }
    };
}
pub(crate) use open_numbers;

#[cfg(test)]
mod tests {
    use super::*;

    fn decode<T: Codec>(bytes: &'static [u8]) -> Result<T, Problem> {
        T::decode(&mut Reader::new(Bytes::from_static(bytes))).map_err(|error| error.problem)
    }

    #[test]
    fn a_text_that_claims_more_than_is_there_is_truncated() {
        assert_eq!(
            decode::<String>(&[9, 0, 0, 0, b'a']),
            Err(Problem::Truncated { needed_bytes: 9, left_bytes: 1 })
        );
    }

    #[test]
    fn a_length_beyond_its_bound_is_refused_before_anything_is_read() {
        let found = u64::from(u32::MAX);
        assert_eq!(decode::<Bytes>(&[255; 4]), Err(Problem::TooLong { found, limit: 16 << 20 }));
        assert_eq!(decode::<Name>(&[255; 4]), Err(Problem::TooLong { found, limit: 1_024 }));
    }

    #[test]
    fn a_boolean_is_zero_or_one() {
        assert_eq!(decode::<bool>(&[2]), Err(Problem::BadValue { found: 2 }));
        assert_eq!(decode::<Option<u8>>(&[1, 7]), Ok(Some(7)));
    }

    #[test]
    fn a_name_that_breaks_its_rule_is_refused() {
        assert_eq!(decode::<Name>(&[0; 4]), Err(Problem::BadName(NameError::NameEmpty)));
        assert_eq!(decode::<Name>(&[1, 0, 0, 0, 0xff]), Err(Problem::NotUtf8));
    }
}

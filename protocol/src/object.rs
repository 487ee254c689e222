//! What the index knows of an object besides where it lies: its kind, and shortcuts into its bytes.
//!
//! The numbers here are on the wire, in shared memory and in files; docs/layout.md has the table with the Arrow form
//! of each kind. They are never reused. A reader that meets a kind it does not know can still read the object as
//! Arrow.

use crate::codec::{Codec, DecodeError, Reader, open_numbers};
use alloc::vec::Vec;

open_numbers! {
    /// What kind of value an object is.
    Kind: u8 {
        /// Record batches of one schema.
        TABLE = 1,
        /// Raw bytes: one row of a `LargeBinary` column.
        BYTES = 2,
        /// A dense array of numbers.
        TENSOR = 3,
        /// The absence of a value: one row of a `Null` column.
        NULL = 4,
        /// One Boolean: one row of a `Boolean` column.
        BOOL = 5,
        /// One signed 64-bit integer: one row of an `Int64` column.
        INT64 = 6,
        /// One double: one row of a `Float64` column.
        FLOAT64 = 7,
        /// One text: one row of a `LargeUtf8` column.
        TEXT = 8,
        /// A JSON value: one row of an `arrow.json` column (storage `LargeUtf8`).
        JSON = 9,
        /// A Python value pickled with protocol 5: one row, a column for each out-of-band buffer.
        PICKLE = 10,
    }
}

open_numbers! {
    /// The element type of a tensor.
    Dtype: u8 {
        /// Not a tensor.
        NONE = 0,
        /// One byte, 0 or 1 (`arrow.bool8`).
        BOOL8 = 1,
        /// Signed, 8 bits.
        INT8 = 2,
        /// Signed, 16 bits.
        INT16 = 3,
        /// Signed, 32 bits.
        INT32 = 4,
        /// Signed, 64 bits.
        INT64 = 5,
        /// Unsigned, 8 bits.
        UINT8 = 6,
        /// Unsigned, 16 bits.
        UINT16 = 7,
        /// Unsigned, 32 bits.
        UINT32 = 8,
        /// Unsigned, 64 bits.
        UINT64 = 9,
        /// IEEE 754 half precision.
        FLOAT16 = 10,
        /// IEEE 754 single precision.
        FLOAT32 = 11,
        /// IEEE 754 double precision.
        FLOAT64 = 12,
    }
}

impl Dtype {
    /// Width of one element in bytes, where the dtype is a known one.
    #[must_use]
    pub const fn width_bytes(self) -> Option<u64> {
        match self {
            Dtype::BOOL8 | Dtype::INT8 | Dtype::UINT8 => Some(1),
            Dtype::INT16 | Dtype::UINT16 | Dtype::FLOAT16 => Some(2),
            Dtype::INT32 | Dtype::UINT32 | Dtype::FLOAT32 => Some(4),
            Dtype::INT64 | Dtype::UINT64 | Dtype::FLOAT64 => Some(8),
            _ => None,
        }
    }
}

/// Bits that say how far a reader may rely on the shortcuts. Unknown bits are refused by the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// Our own encoder wrote the payload; a reader that trusts the writer decodes it without validating contents.
    pub const OUR_ENCODER: Flags = Flags(1);
    /// The value stands in [`Header::dims`]; its recall touches neither arena nor pins.
    pub const INLINE: Flags = Flags(1 << 1);
    /// `buffer_offset` locates the value's only data buffer.
    pub const BUFFER: Flags = Flags(1 << 2);
    /// The tensor is in column-major order.
    pub const COLUMN_MAJOR: Flags = Flags(1 << 3);
    const KNOWN: u8 = 0b1111;

    /// Both sets of bits.
    #[must_use]
    pub const fn with(self, more: Flags) -> Flags {
        Flags(self.0 | more.0)
    }

    /// Whether all of `bits` are set.
    #[inline]
    #[must_use]
    pub const fn has(self, bits: Flags) -> bool {
        self.0 & bits.0 == bits.0
    }

    /// The bits as they stand in memory.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Flags from memory. Bits this version does not know are dropped: a reader may not rely on them.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Flags {
        Flags(bits & Self::KNOWN)
    }
}

impl Codec for Flags {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let bits = u8::decode(reader)?;
        if bits & !Self::KNOWN != 0 {
            return Err(reader.bad_value("flags", u64::from(bits)));
        }
        Ok(Flags(bits))
    }
}

/// Longest value that can stand in the index entry itself, in bytes.
pub const INLINE_VALUE_BYTES_MAX: usize = 32;

/// The shortcuts of one object, 40 bytes of its index entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What kind of value it is.
    pub kind: Kind,
    /// Element type of a tensor, [`Dtype::NONE`] for everything else.
    pub dtype: Dtype,
    /// Dimensions of a tensor; with [`Flags::INLINE`] the length of the inline value in bytes (0 to 32).
    pub ndim: u8,
    /// How far the fields may be relied on.
    pub flags: Flags,
    /// Distance in bytes from the object's first byte to its data buffer, if [`Flags::BUFFER`].
    pub buffer_offset: u32,
    /// A tensor's first four dimensions; for bytes and texts `dims[0]` is the length of the value in bytes; with
    /// [`Flags::INLINE`] the value itself, its bytes in memory order, padded with zeros.
    pub dims: [u64; 4],
}

impl Header {
    /// A header without shortcuts.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Header { kind, dtype: Dtype::NONE, ndim: 0, flags: Flags(0), buffer_offset: 0, dims: [0; 4] }
    }

    /// This header with `value` held in the entry itself. `None` if it has more than 32 bytes.
    #[must_use]
    pub fn with_inline(mut self, value: &[u8]) -> Option<Self> {
        let mut bytes = [0; INLINE_VALUE_BYTES_MAX];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        self.ndim = u8::try_from(value.len()).ok()?;
        self.flags = self.flags.with(Flags::INLINE);
        let (words, _) = bytes.as_chunks::<8>();
        self.dims = [words[0], words[1], words[2], words[3]].map(u64::from_le_bytes);
        Some(self)
    }

    /// The value held in the entry, and its length; `None` if there is none.
    #[must_use]
    pub fn inline(&self) -> Option<([u8; INLINE_VALUE_BYTES_MAX], usize)> {
        let len_bytes = usize::from(self.ndim);
        if !self.flags.has(Flags::INLINE) || len_bytes > INLINE_VALUE_BYTES_MAX {
            return None;
        }
        let mut bytes = [0; INLINE_VALUE_BYTES_MAX];
        for (chunk, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.dims) {
            *chunk = word.to_le_bytes();
        }
        Some((bytes, len_bytes))
    }
}

crate::codec::codec_struct!(Header { kind, dtype, ndim, flags, buffer_offset, dims });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_32_bytes_fits_into_the_header_and_33_do_not() {
        let value = [7; 32];
        let header = Header::new(Kind::BYTES).with_inline(&value).unwrap();
        assert_eq!(header.inline(), Some((value, 32)));
        assert_eq!(Header::new(Kind::BYTES).with_inline(&[7; 33]), None);
        assert_eq!(Header::new(Kind::TEXT).with_inline(b"abc").unwrap().inline().unwrap().1, 3);
    }
}

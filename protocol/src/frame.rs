//! Frames: a 16-byte header, then the body of one message.
//!
//! ```text
//! offset  0        4       6          8                16
//!         len_bytes kind   reserved   request_id       body (len_bytes)
//! ```

use crate::limits;
use alloc::vec::Vec;
use core::fmt;

/// Length of a frame's header, in bytes.
pub const HEADER_BYTES: usize = 16;

/// The checked header of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Length of the body, at most [`limits::FRAME_BYTES_MAX`].
    pub len_bytes: u32,
    /// Number of the message (see [`crate::message`]).
    pub kind: u16,
    /// Chosen by the client, repeated in the reply.
    pub request_id: u64,
}

/// Why a frame's header was refused. The connection cannot go on: where the next frame begins is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The body is longer than allowed.
    TooLong {
        /// What the header claims.
        len_bytes: u32,
    },
    /// Reserved bits are set.
    Reserved {
        /// What was found.
        found: u16,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::TooLong { len_bytes } => {
                write!(
                    f,
                    "a frame of {len_bytes} bytes was announced, the limit is {}",
                    limits::FRAME_BYTES_MAX
                )
            }
            FrameError::Reserved { found } => {
                write!(f, "reserved bits of the frame header are set: {found:#06x}")
            }
        }
    }
}

impl core::error::Error for FrameError {}

impl FrameHeader {
    /// Checks a header.
    ///
    /// # Errors
    /// [`FrameError`]; the connection must be closed.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let [l0, l1, l2, l3, k0, k1, r0, r1, id @ ..] = *bytes;
        let len_bytes = u32::from_le_bytes([l0, l1, l2, l3]);
        let found = u16::from_le_bytes([r0, r1]);
        if len_bytes > limits::FRAME_BYTES_MAX {
            return Err(FrameError::TooLong { len_bytes });
        }
        if found != 0 {
            return Err(FrameError::Reserved { found });
        }
        Ok(FrameHeader { len_bytes, kind: u16::from_le_bytes([k0, k1]), request_id: u64::from_le_bytes(id) })
    }

    /// The header as bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.len_bytes.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.kind.to_le_bytes());
        bytes[8..].copy_from_slice(&self.request_id.to_le_bytes());
        bytes
    }
}

/// Appends one frame whose body `encode` writes.
///
/// # Errors
/// [`FrameError::TooLong`] if the body is beyond the limit; `out` is as it was.
pub fn append(
    out: &mut Vec<u8>,
    kind: u16,
    request_id: u64,
    encode: impl FnOnce(&mut Vec<u8>),
) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    encode(out);
    let len_bytes = u32::try_from(out.len() - start - HEADER_BYTES).unwrap_or(u32::MAX);
    if len_bytes > limits::FRAME_BYTES_MAX {
        out.truncate(start);
        return Err(FrameError::TooLong { len_bytes });
    }
    let header = FrameHeader { len_bytes, kind, request_id }.to_bytes();
    out[start..start + HEADER_BYTES].copy_from_slice(&header);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_round_trip() {
        let header = FrameHeader { len_bytes: 16 << 20, kind: 7, request_id: u64::MAX - 1 };
        assert_eq!(FrameHeader::parse(&header.to_bytes()), Ok(header));
    }

    #[test]
    fn an_oversized_length_and_reserved_bits_are_refused() {
        let mut bytes = FrameHeader { len_bytes: (16 << 20) + 1, kind: 0, request_id: 0 }.to_bytes();
        assert_eq!(FrameHeader::parse(&bytes), Err(FrameError::TooLong { len_bytes: (16 << 20) + 1 }));
        bytes[..4].fill(0);
        bytes[6] = 1;
        assert_eq!(FrameHeader::parse(&bytes), Err(FrameError::Reserved { found: 1 }));
    }
}

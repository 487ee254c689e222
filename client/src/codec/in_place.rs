//! Objects whose values are written where they stay, by whoever makes them.

use super::{error::CodecError, frame::Frame, prepared, schema, tensor};
use plasmon_protocol::object::{Dtype, Header, Kind};

/// The Arrow IPC file around bytes or a tensor of known length, so that they can be made in place.
///
/// Write [`prefix`](Self::prefix) at the start of the extent, the bytes at [`data_offset`](Self::data_offset) and
/// [`suffix`](Self::suffix) behind them: the result is what [`Learn`](super::Learn) writes for the same value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InPlaceFrame(Frame, Header);

impl InPlaceFrame {
    /// Frames `len_bytes` bytes, which may be more than 4 GiB. The index says where they are, never the bytes
    /// themselves, however few, and that they are a buffer of one dimension rather than a value.
    pub(crate) fn bytes(len_bytes: u64) -> Result<InPlaceFrame, CodecError> {
        let frame = Frame::of_value(schema::of(Kind::BYTES), len_bytes)?;
        let header = Header { ndim: 1, ..prepared::value_header(Kind::BYTES, &frame) };
        Ok(InPlaceFrame(frame, header))
    }

    /// Frames a tensor.
    pub(crate) fn tensor(
        dtype: Dtype,
        shape: &[usize],
        column_major: bool,
    ) -> Result<InPlaceFrame, CodecError> {
        let (frame, header) = tensor::frame_and_header(dtype, shape, column_major)?;
        Ok(InPlaceFrame(frame, prepared::by_our_encoder(header)))
    }

    /// What stands before the bytes.
    pub(crate) fn prefix(&self) -> &[u8] {
        self.0.prefix()
    }

    /// Distance of the bytes from the start of the object: a multiple of 64, and the length of the prefix.
    pub(crate) fn data_offset(&self) -> u64 {
        u64::from(self.0.data_offset())
    }

    /// Length of the data, as asked for.
    pub(crate) fn data_len(&self) -> u64 {
        self.0.data_len()
    }

    /// What stands behind the bytes.
    pub(crate) fn suffix(&self) -> &[u8] {
        self.0.suffix()
    }

    /// Length of the whole object.
    pub(crate) fn len_bytes(&self) -> u64 {
        self.0.len_bytes()
    }

    /// What the index will say of the object.
    pub(crate) fn header(&self) -> Header {
        self.1
    }
}

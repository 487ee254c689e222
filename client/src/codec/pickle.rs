//! Pickled Python values: carried here, never looked into.

use super::{
    decode,
    error::CodecError,
    learn::{Prepared, value_header_of_batches},
    schema,
    table::Table,
    value::value_buffer,
};
use arrow_array::{Array, ArrayRef, LargeBinaryArray, RecordBatch, cast::AsArray};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, SchemaRef};
use plasmon_protocol::object::{Flags, Header, Kind};
use std::{borrow::Cow, sync::Arc};

/// A Python value pickled with protocol 5: the stream, and its out-of-band buffers one by one.
///
/// What is recalled is a view of the store's memory. Each buffer starts at a multiple of 64 bytes, so that arrays can
/// use it in place. Whoever unpickles a stream runs what it says: look at [`Object::writer_uid`] first.
///
/// [`Object::writer_uid`]: crate::Object::writer_uid
///
/// # Examples
/// ```
/// use plasmon::Pickle;
///
/// let store = plasmon::testing::Store::start(8 << 20)?;
/// let brain = store.connect()?;
/// let none = Pickle::new(b"\x80\x05N.".to_vec(), vec![])?;
/// brain.learn("none", &none)?;
/// assert_eq!(brain.recall::<Pickle>("none")?, none);
/// # Ok::<(), plasmon::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pickle {
    stream: Buffer,
    buffers: Vec<Buffer>,
}

impl Pickle {
    /// Most out-of-band buffers of one value: each is a column, and a schema of thousands costs more than it saves.
    pub const BUFFERS_MAX: usize = 256;

    /// A pickled value.
    ///
    /// # Errors
    /// [`CodecError::Unsupported`] for more than [`BUFFERS_MAX`](Self::BUFFERS_MAX) buffers.
    pub fn new(stream: impl Into<Buffer>, buffers: Vec<Buffer>) -> Result<Pickle, CodecError> {
        if buffers.len() > Self::BUFFERS_MAX {
            return Err(CodecError::Unsupported {
                what: format!("a pickle with {} out-of-band buffers", buffers.len()),
                advice: "pickle all but 256 of them in-band",
            });
        }
        Ok(Pickle { stream: stream.into(), buffers })
    }

    /// The stream, which names the buffers in order.
    #[must_use]
    pub fn stream(&self) -> &Buffer {
        &self.stream
    }

    /// The out-of-band buffers.
    #[must_use]
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    pub(super) fn prepare_pickle(&self) -> Result<Prepared<'_>, CodecError> {
        if self.buffers.is_empty() {
            return Prepared::value(Kind::PICKLE, Cow::Borrowed(&self.stream));
        }
        let schema: SchemaRef = Arc::new(schema::of_pickle(self.buffers.len()));
        let parts = std::iter::once(&self.stream).chain(&self.buffers);
        let columns = parts.map(one_row).collect::<Result<Vec<ArrayRef>, CodecError>>()?;
        let batch =
            RecordBatch::try_new(schema.clone(), columns).map_err(CodecError::arrow("build a pickle"))?;
        Prepared::owned_batches(value_header_of_batches(Kind::PICKLE), schema, vec![batch])
    }
}

/// A `LargeBinary` column whose only row is all of `bytes`.
fn one_row(bytes: &Buffer) -> Result<ArrayRef, CodecError> {
    let len = i64::try_from(bytes.len()).map_err(|_| CodecError::malformed("a buffer is too long"))?;
    let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0, len]));
    Ok(Arc::new(LargeBinaryArray::new(offsets, bytes.clone(), None)))
}

/// The pickle in `file`, without copying it; `trusted` as for [`decode_table`](super::decode_table).
pub(crate) fn decode_pickle(file: &Buffer, header: &Header, trusted: bool) -> Result<Pickle, CodecError> {
    if header.kind != Kind::PICKLE {
        return Err(CodecError::WrongKind { asked: Kind::PICKLE, found: header.kind });
    }
    if header.flags.has(Flags::INLINE) || header.flags.has(Flags::BUFFER) {
        return Ok(Pickle { stream: value_buffer(file, header, Kind::PICKLE)?, buffers: Vec::new() });
    }
    let table: Table = decode::decode_table(file, trusted)?;
    let [batch] = &table[..] else {
        return Err(CodecError::malformed(format!("a pickle has {} batches instead of one", table.len())));
    };
    let mut parts = batch.columns().iter().map(|column| {
        if *column.data_type() != DataType::LargeBinary || column.len() != 1 || column.is_null(0) {
            return Err(CodecError::malformed("a column of a pickle is not one row of LargeBinary"));
        }
        let column = column.as_binary::<i64>();
        let (start, end) = (column.value_offsets()[0], column.value_offsets()[1]);
        super::value::slice_of(column.values(), start.unsigned_abs(), (end - start).unsigned_abs())
    });
    let stream = parts.next().ok_or_else(|| CodecError::malformed("a pickle has no column"))??;
    Ok(Pickle { stream, buffers: parts.collect::<Result<_, _>>()? })
}

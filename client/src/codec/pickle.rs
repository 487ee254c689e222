//! Pickled Python values: carried here, never looked into.

use super::{
    decode,
    error::CodecError,
    frame::{Frame, padded},
    prepared::{Prepared, value_header_of_batches},
    schema,
    source::Source,
    table::Table,
    value::{slice_of, value_buffer},
};
use arrow_array::{Array, ArrayRef, LargeBinaryArray, RecordBatch, cast::AsArray, types::UInt64Type};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_ipc::FieldNode;
use arrow_schema::{DataType, SchemaRef};
use plasmon_protocol::{
    index_of,
    object::{Flags, Header, Kind},
};
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
/// let brain = plasmon::testing::brain()?;
/// let none = Pickle::new(b"\x80\x05N.".to_vec(), vec![]);
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
    /// A pickled value. It may have any number of out-of-band buffers.
    #[must_use]
    pub fn new(stream: impl Into<Buffer>, buffers: Vec<Buffer>) -> Pickle {
        Pickle { stream: stream.into(), buffers }
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
        if self.buffers.len() > COLUMNS_MAX {
            return self.prepare_packed();
        }
        let schema: SchemaRef = Arc::new(schema::of_pickle(self.buffers.len()));
        let parts = std::iter::once(&self.stream).chain(&self.buffers);
        let columns = parts.map(one_row).collect::<Result<Vec<ArrayRef>, CodecError>>()?;
        let batch =
            RecordBatch::try_new(schema.clone(), columns).map_err(CodecError::arrow("build a pickle"))?;
        Prepared::owned_batches(value_header_of_batches(Kind::PICKLE), schema, vec![batch])
    }

    /// Many buffers in one column, one behind the other, and their lengths in a column beside it.
    fn prepare_packed(&self) -> Result<Prepared<'_>, CodecError> {
        let lens: Vec<u64> = self.buffers.iter().map(|buffer| buffer.len() as u64).collect();
        let zeros = Buffer::from_vec(vec![0_u8; 64]);
        let mut pieces = Vec::with_capacity(2 * lens.len());
        for buffer in &self.buffers {
            let len = buffer.len() as u64;
            pieces.push(buffer.clone());
            pieces.push(zeros.slice_with_length(0, index_of(padded(len) - len)));
        }
        let value = |pieces: Vec<Buffer>| {
            let len = pieces.iter().map(Buffer::len).sum();
            [none(), offsets_of_one_row(len), Source::Pieces(pieces)]
        };
        let lengths = [none(), offsets_of_one_row(lens.len()), none(), whole(Buffer::from_vec(lens))];
        let sources: Vec<Source> =
            [value(vec![self.stream.clone()]).as_slice(), &value(pieces), &lengths].concat();
        let count =
            i64::try_from(self.buffers.len()).map_err(|_| CodecError::malformed("too many buffers"))?;
        let nodes = [1, 1, 1, count].map(|len| FieldNode::new(len, 0));
        let lens: Vec<u64> = sources.iter().map(Source::len_bytes).collect();
        let frame = Frame::of_columns(&schema::of_packed_pickle(), &[], 1, &nodes, &lens)?;
        Ok(Prepared::gathered(value_header_of_batches(Kind::PICKLE), Arc::new(frame), sources))
    }
}

/// Up to so many buffers are columns of their own. A schema of more columns would cost more than what it describes.
const COLUMNS_MAX: usize = 256;

/// The buffer of validity of a column without nulls.
fn none() -> Source {
    Source::Pieces(Vec::new())
}

fn whole(buffer: Buffer) -> Source {
    Source::Pieces(vec![buffer])
}

/// The offsets of a column whose only row has `len` bytes or values.
fn offsets_of_one_row(len: usize) -> Source {
    whole(Buffer::from_vec(vec![0, len as u64]))
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
    if batch.schema().fields().get(1).is_some_and(|field| field.name() == schema::PACKED) {
        return decode_packed(batch);
    }
    let mut parts = batch.columns().iter().map(only_row);
    let stream = parts.next().ok_or_else(|| CodecError::malformed("a pickle has no column"))??;
    Ok(Pickle { stream, buffers: parts.collect::<Result<_, _>>()? })
}

/// The pickle in a batch that [`Pickle::prepare_packed`] describes.
fn decode_packed(batch: &RecordBatch) -> Result<Pickle, CodecError> {
    let malformed =
        || CodecError::malformed("a pickle's buffers are not a column of bytes and one of lengths");
    let [stream, packed, lengths] = batch.columns() else { return Err(malformed()) };
    let (stream, packed) = (only_row(stream)?, only_row(packed)?);
    let lists = lengths.as_list_opt::<i64>().filter(|lists| lists.len() == 1 && lists.is_valid(0));
    let lists = lists.ok_or_else(malformed)?;
    let range =
        index_of(lists.value_offsets()[0].unsigned_abs())..index_of(lists.value_offsets()[1].unsigned_abs());
    let lengths =
        lists.values().as_primitive_opt::<UInt64Type>().and_then(|lengths| lengths.values().get(range));
    let mut start = 0_u64;
    let mut next = |len: &u64| {
        let buffer = slice_of(&packed, start, *len)?;
        start += padded(*len); // no overflow: both are lengths of what lies in memory
        Ok(buffer)
    };
    let buffers = lengths.ok_or_else(malformed)?.iter().map(&mut next);
    Ok(Pickle { stream, buffers: buffers.collect::<Result<_, _>>()? })
}

/// The value of a `LargeBinary` column of one row, in place.
fn only_row(column: &ArrayRef) -> Result<Buffer, CodecError> {
    if *column.data_type() != DataType::LargeBinary || column.len() != 1 || column.is_null(0) {
        return Err(CodecError::malformed("a column of a pickle is not one row of LargeBinary"));
    }
    let column = column.as_binary::<i64>();
    let (start, end) = (column.value_offsets()[0], column.value_offsets()[1]);
    slice_of(column.values(), start.unsigned_abs(), (end - start).unsigned_abs())
}

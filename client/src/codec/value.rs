//! Recalling what is one value: bytes, texts, JSON, numbers.

use super::{decode, error::CodecError, json::Json, stack::with_room, table::Table, text::Text};
use arrow_array::{Array, ArrayRef, cast::AsArray, types};
use arrow_buffer::Buffer;
use arrow_schema::{DataType, Field};
use plasmon_protocol::{
    index_of,
    object::{Flags, Header, Kind},
};

/// The bytes in `file`, without copying them unless they stand in the header itself.
pub(crate) fn decode_bytes(file: &Buffer, header: &Header) -> Result<Buffer, CodecError> {
    value_buffer(file, header, Kind::BYTES)
}

/// The text in `file`, without copying it unless it stands in the header itself.
///
/// `trusted` as for [`decode_table`](super::decode_table): the text is then not checked to be UTF-8.
pub(crate) fn decode_text(file: &Buffer, header: &Header, trusted: bool) -> Result<Text, CodecError> {
    Text::checked(value_buffer(file, header, Kind::TEXT)?, header, trusted)
}

/// The JSON value in `file`.
pub(crate) fn decode_json(file: &Buffer, header: &Header) -> Result<serde_json::Value, CodecError> {
    let text = value_buffer(file, header, Kind::JSON)?;
    with_room(|| serde_json::from_slice(&text)).map_err(CodecError::Json)
}

/// The text of the JSON value in `file`, without copying it unless it stands in the header itself.
pub(crate) fn decode_json_text(file: &Buffer, header: &Header, trusted: bool) -> Result<Json, CodecError> {
    let text = value_buffer(file, header, Kind::JSON)?;
    Ok(Json::from_stored(Text::checked(text, header, trusted)?))
}

/// Checks that the object is the absence of a value.
pub(crate) fn decode_null(header: &Header) -> Result<(), CodecError> {
    expect_kind(Kind::NULL, header)
}

/// The Boolean in `file`.
pub(crate) fn decode_bool(file: &Buffer, header: &Header) -> Result<bool, CodecError> {
    expect_kind(Kind::BOOL, header)?;
    match inline(header)? {
        Some([byte @ (0 | 1)]) => Ok(byte == 1),
        Some([byte]) => Err(CodecError::malformed(format!("a Boolean is the byte {byte}"))),
        None => Ok(one_row(file, &DataType::Boolean)?.as_boolean().value(0)),
    }
}

/// The integer in `file`.
pub(crate) fn decode_i64(file: &Buffer, header: &Header) -> Result<i64, CodecError> {
    expect_kind(Kind::INT64, header)?;
    match inline(header)? {
        Some(bytes) => Ok(i64::from_le_bytes(bytes)),
        None => Ok(one_row(file, &DataType::Int64)?.as_primitive::<types::Int64Type>().value(0)),
    }
}

/// The double in `file`.
pub(crate) fn decode_f64(file: &Buffer, header: &Header) -> Result<f64, CodecError> {
    expect_kind(Kind::FLOAT64, header)?;
    match inline(header)? {
        Some(bytes) => Ok(f64::from_le_bytes(bytes)),
        None => Ok(one_row(file, &DataType::Float64)?.as_primitive::<types::Float64Type>().value(0)),
    }
}

/// Refuses an object of another kind.
pub(super) fn expect_kind(asked: Kind, header: &Header) -> Result<(), CodecError> {
    if header.kind == asked { Ok(()) } else { Err(CodecError::WrongKind { asked, found: header.kind }) }
}

/// The bytes of a value of `kind`: those in the header, those it leads to, or those that Arrow finds.
pub(super) fn value_buffer(file: &Buffer, header: &Header, kind: Kind) -> Result<Buffer, CodecError> {
    expect_kind(kind, header)?;
    if header.flags.has(Flags::INLINE) {
        let Some((bytes, len_bytes)) = header.inline() else {
            return Err(CodecError::malformed(format!("an inline value has {} bytes", header.ndim)));
        };
        return Ok(Buffer::from(&bytes[..len_bytes]));
    }
    if header.flags.has(Flags::BUFFER) {
        return slice_of(file, u64::from(header.buffer_offset), header.dims[0]);
    }
    let (values, start, end) = match kind {
        Kind::BYTES | Kind::PICKLE => {
            let column = one_row(file, &DataType::LargeBinary)?;
            let column = column.as_binary::<i64>();
            (column.values().clone(), column.value_offsets()[0], column.value_offsets()[1])
        }
        _ => {
            let column = one_row(file, &DataType::LargeUtf8)?;
            let column = column.as_string::<i64>();
            (column.values().clone(), column.value_offsets()[0], column.value_offsets()[1])
        }
    };
    slice_of(&values, start.unsigned_abs(), (end - start).unsigned_abs())
}

/// The value in the header, which must have exactly the width of its type; `None` if it has none.
fn inline<const N: usize>(header: &Header) -> Result<Option<[u8; N]>, CodecError> {
    if !header.flags.has(Flags::INLINE) {
        return Ok(None);
    }
    match header.inline() {
        Some((bytes, len_bytes)) if len_bytes == N => Ok(bytes.first_chunk().copied()),
        _ => Err(CodecError::malformed(format!(
            "an inline value of kind {} has {} bytes instead of {N}",
            header.kind, header.ndim
        ))),
    }
}

/// The column of a file of one row, which must be of type `asked` and not null. All of the file is checked.
fn one_row(file: &Buffer, asked: &DataType) -> Result<ArrayRef, CodecError> {
    let table = decode::decode_file(file, decode::Trust::NONE)?;
    let (_, column) = only_column(&table)?;
    if column.data_type() != asked || column.len() != 1 || column.is_null(0) {
        return Err(CodecError::malformed(format!(
            "one value of type {asked} was expected, and {} of type {} found",
            column.len(),
            column.data_type()
        )));
    }
    Ok(column.clone())
}

/// The only column of a table's only batch.
pub(super) fn only_column(table: &Table) -> Result<(&Field, &ArrayRef), CodecError> {
    match &table[..] {
        [batch] if batch.num_columns() == 1 => Ok((table.schema().field(0), batch.column(0))),
        _ => Err(CodecError::malformed(format!(
            "one batch with one column was expected, and {} with {} found",
            table.len(),
            table.schema().fields().len()
        ))),
    }
}

/// `len` bytes of `file` from `start` on, which are checked to lie in it. Copies nothing.
pub(super) fn slice_of(file: &Buffer, start: u64, len: u64) -> Result<Buffer, CodecError> {
    if start.checked_add(len).is_none_or(|end| end > file.len() as u64) {
        return Err(CodecError::malformed(format!(
            "{len} bytes at {start} do not lie within the object's {} bytes",
            file.len()
        )));
    }
    Ok(file.slice_with_length(index_of(start), index_of(len)))
}

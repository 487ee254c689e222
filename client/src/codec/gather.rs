//! Columns of several arrays each: what they are made of, for [`Source`] to gather.

use super::{dictionary::contains_dictionary, error::CodecError, source::Source};
use arrow_array::{Array, ArrayRef, OffsetSizeTrait, RecordBatch, cast::AsArray};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBuffer, OffsetBuffer};
use arrow_ipc::{
    FieldNode,
    writer::{DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteContext, IpcWriteOptions},
};
use arrow_schema::{DataType, Field, SchemaRef};
use std::sync::Arc;

/// The dictionaries of a table as messages: copied, because they are small beside what refers to them. `first_rows` are
/// its columns, of which a row is enough.
pub(super) fn dictionaries(
    schema: &SchemaRef,
    first_rows: impl Iterator<Item = ArrayRef>,
) -> Result<Vec<EncodedData>, CodecError> {
    if !schema.fields().iter().any(|field| contains_dictionary(field.data_type())) {
        return Ok(Vec::new());
    }
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let schema = Arc::new(arrow_schema::Schema::new(fields.collect::<Vec<_>>()));
    let options = IpcWriteOptions::default();
    let (generator, mut tracker) = (IpcDataGenerator::default(), DictionaryTracker::new(true));
    generator.schema_to_bytes_with_dictionary_tracker(&schema, &mut tracker, &options);
    RecordBatch::try_new(schema, first_rows.collect())
        .and_then(|batch| generator.encode(&batch, &mut tracker, &options, &mut IpcWriteContext::default()))
        .map(|(dictionaries, _)| dictionaries)
        .map_err(CodecError::arrow("encode the dictionaries"))
}

/// Whether `chunks` are a column of `rows` that can be written in pieces.
pub(super) fn check(chunks: &[ArrayRef], field: &Field, rows: usize) -> Result<(), CodecError> {
    let mismatch = |found: String| CodecError::ColumnMismatch {
        column: field.name().clone(),
        asked: format!("{rows} rows of {}", field.data_type()),
        found,
    };
    if let Some(other) = chunks.iter().find(|chunk| chunk.data_type() != field.data_type()) {
        return Err(mismatch(format!("a chunk of {}", other.data_type())));
    }
    let found = chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
    if found != rows {
        return Err(mismatch(format!("{found} rows")));
    }
    let is_dictionary = matches!(field.data_type(), DataType::Dictionary(..));
    match is_gatherable(field.data_type()) || (is_dictionary && chunks.len() == 1 && rows > 0) {
        true => Ok(()),
        false => Err(cannot_be_gathered(field)),
    }
}

/// The node of a column, and the sources of its buffers as Arrow orders them.
pub(super) fn sources(chunks: &[ArrayRef], field: &Field) -> Result<(FieldNode, Vec<Source>), CodecError> {
    let rows = chunks.iter().map(|chunk| chunk.len()).sum();
    let nulls = nulls(chunks, rows);
    let null_count = nulls.as_ref().map_or(0, NullBuffer::null_count);
    let node = FieldNode::new(length(rows)?, length(null_count)?);
    let validity = nulls.filter(|nulls| nulls.null_count() > 0);
    let mut sources = vec![Source::Pieces(validity.iter().map(|nulls| nulls.inner().sliced()).collect())];
    push_values(chunks, field, &mut sources)?;
    Ok((node, sources))
}

/// Which rows are null. An eighth of a byte for each row is all that is put together here.
fn nulls(chunks: &[ArrayRef], rows: usize) -> Option<NullBuffer> {
    match chunks {
        [chunk] => chunk.nulls().cloned(),
        chunks if chunks.iter().all(|chunk| chunk.null_count() == 0) => None,
        chunks => {
            let mut bits = BooleanBufferBuilder::new(rows);
            for chunk in chunks {
                match chunk.nulls() {
                    Some(nulls) => bits.append_buffer(nulls.inner()),
                    None => bits.append_n(chunk.len(), true),
                }
            }
            Some(NullBuffer::new(bits.finish()))
        }
    }
}

/// Appends the sources of a column's buffers but its validity, as Arrow orders them.
fn push_values(chunks: &[ArrayRef], field: &Field, sources: &mut Vec<Source>) -> Result<(), CodecError> {
    let too_long = || cannot_be_gathered(field);
    match field.data_type() {
        DataType::Boolean => {
            let mut bits = BooleanBufferBuilder::new(0);
            chunks.iter().for_each(|chunk| bits.append_buffer(chunk.as_boolean().values()));
            sources.push(Source::Pieces(vec![bits.finish().into_inner()]));
        }
        DataType::Utf8 => {
            let parts = chunks.iter().map(|chunk| chunk.as_string::<i32>());
            texts(parts.map(|it| (it.offsets(), it.values())), Source::Offsets32, sources)
                .ok_or_else(too_long)?;
        }
        DataType::LargeUtf8 => {
            let parts = chunks.iter().map(|chunk| chunk.as_string::<i64>());
            texts(parts.map(|it| (it.offsets(), it.values())), Source::Offsets64, sources)
                .ok_or_else(too_long)?;
        }
        DataType::Binary => {
            let parts = chunks.iter().map(|chunk| chunk.as_binary::<i32>());
            texts(parts.map(|it| (it.offsets(), it.values())), Source::Offsets32, sources)
                .ok_or_else(too_long)?;
        }
        DataType::LargeBinary => {
            let parts = chunks.iter().map(|chunk| chunk.as_binary::<i64>());
            texts(parts.map(|it| (it.offsets(), it.values())), Source::Offsets64, sources)
                .ok_or_else(too_long)?;
        }
        fixed => {
            let width = width_of(fixed).ok_or_else(|| cannot_be_gathered(field))?;
            let piece = |chunk: &ArrayRef| {
                let data = chunk.to_data();
                data.buffers()[0].slice_with_length(data.offset() * width, data.len() * width)
            };
            sources.push(Source::Pieces(chunks.iter().map(piece).collect()));
        }
    }
    Ok(())
}

/// Appends the sources of offsets and bytes. `None` if there are more bytes than an offset can number.
fn texts<'a, O: OffsetSizeTrait>(
    parts: impl Iterator<Item = (&'a OffsetBuffer<O>, &'a Buffer)>,
    source: impl Fn(Vec<OffsetBuffer<O>>) -> Source,
    sources: &mut Vec<Source>,
) -> Option<()> {
    let (mut offsets, mut values, mut len) = (Vec::new(), Vec::new(), 0_usize);
    for (part, bytes) in parts {
        let (start, end) = (part[0].as_usize(), part[part.len() - 1].as_usize());
        len = len.checked_add(end - start)?;
        O::from_usize(len)?;
        values.push(bytes.slice_with_length(start, end - start));
        offsets.push(part.clone());
    }
    sources.extend([source(offsets), Source::Pieces(values)]);
    Some(())
}

/// Whether chunks of a type are put together by writing one behind the other, offsets counted on.
fn is_gatherable(data_type: &DataType) -> bool {
    use DataType::{Binary, Boolean, Dictionary, LargeBinary, LargeUtf8, Utf8};
    matches!(data_type, Boolean | Utf8 | LargeUtf8 | Binary | LargeBinary)
        || (!matches!(data_type, Dictionary(..)) && width_of(data_type).is_some())
}

/// Bytes of a value, or of an index into a dictionary.
fn width_of(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::FixedSizeBinary(width) => usize::try_from(*width).ok(),
        DataType::Dictionary(indices, _) => indices.primitive_width(),
        _ => data_type.primitive_width(),
    }
}

fn cannot_be_gathered(field: &Field) -> CodecError {
    CodecError::Unsupported {
        what: format!("column `{}` of type {} in pieces", field.name(), field.data_type()),
        advice: "put its chunks together first, and learn a `Table`",
    }
}

fn length(len: usize) -> Result<i64, CodecError> {
    i64::try_from(len).map_err(|_| CodecError::malformed("a column is longer than Arrow can say"))
}

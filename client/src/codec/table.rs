//! Tables: record batches of one schema.

use super::{dictionary, error::CodecError};
use arrow_array::RecordBatch;
use arrow_ipc::{
    MetadataVersion,
    writer::{FileWriter, IpcWriteOptions},
};
use arrow_schema::{FieldRef, Schema, SchemaRef};
use std::{borrow::Cow, io, ops::Deref, sync::Arc};

/// Record batches of one schema; also an empty list of them, which still has a schema.
///
/// A recalled table's columns are views of the store's memory, which they keep in place for as long as they live.
///
/// # Examples
/// ```
/// use arrow_array::record_batch;
/// use plasmon::Table;
///
/// let batch = record_batch!(("a", Int32, [1, 2, 3]))?;
/// let table = Table::new(batch.schema(), vec![batch.clone(), batch])?;
/// assert_eq!(table.num_rows(), 6);
/// assert_eq!(table[1].num_columns(), 1); // a table is also a slice of its batches
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl Table {
    /// A table of `batches`, each of which must have `schema`.
    ///
    /// # Errors
    /// [`CodecError::SchemaMismatch`] names the first batch that has another schema.
    pub fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<Table, CodecError> {
        check_same_schema(&schema, &batches)?;
        Ok(Table { schema, batches })
    }

    /// The schema of every batch.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows of all batches together.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        // Rows without columns take no room, so that their number may be anything.
        self.batches.iter().fold(0, |rows, batch| rows.saturating_add(batch.num_rows()))
    }

    /// The batches, without the schema they have in common.
    #[must_use]
    pub fn into_batches(self) -> Vec<RecordBatch> {
        self.batches
    }

    /// A table of batches that were made with this very schema.
    pub(super) fn from_parts(schema: SchemaRef, batches: Vec<RecordBatch>) -> Table {
        Table { schema, batches }
    }
}

impl Deref for Table {
    type Target = [RecordBatch];

    fn deref(&self) -> &[RecordBatch] {
        &self.batches
    }
}

impl From<RecordBatch> for Table {
    fn from(batch: RecordBatch) -> Table {
        Table { schema: batch.schema(), batches: vec![batch] }
    }
}

/// Names the first batch whose schema is not `schema`, metadata included.
pub(super) fn check_same_schema(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<(), CodecError> {
    for (index, batch) in batches.iter().enumerate() {
        let found = batch.schema_ref();
        if !Arc::ptr_eq(found, schema) && found != schema {
            return Err(CodecError::SchemaMismatch {
                batch: index,
                asked: describe(schema),
                found: describe(found),
            });
        }
    }
    Ok(())
}

/// The batches as a file can hold them: with one dictionary for each dictionary column.
pub(super) fn with_one_dictionary_each<'a>(
    schema: &SchemaRef,
    batches: &'a [RecordBatch],
) -> Result<Cow<'a, [RecordBatch]>, CodecError> {
    if batches.len() < 2
        || !schema.fields().iter().any(|field| dictionary::contains_dictionary(field.data_type()))
    {
        return Ok(Cow::Borrowed(batches));
    }
    Ok(dictionary::unify(schema, batches)?.map_or(Cow::Borrowed(batches), Cow::Owned))
}

/// Writes `batches` as an Arrow IPC file with every buffer at a multiple of 64 bytes.
///
/// arrow-ipc hands each buffer to `sink` where it lies: it copies only what a slice forces it to (offsets that do
/// not start at zero, bits that do not start at a byte).
pub(super) fn write(
    schema: &Schema,
    batches: &[RecordBatch],
    sink: &mut impl io::Write,
) -> Result<(), CodecError> {
    let options = IpcWriteOptions::try_new(64, false, MetadataVersion::V5)
        .map_err(CodecError::arrow("write files with 64-byte alignment"))?;
    let mut writer = FileWriter::try_new_with_options(sink, schema, options)
        .map_err(CodecError::arrow("encode the schema"))?;
    for batch in batches {
        writer.write(batch).map_err(CodecError::arrow("encode a batch"))?;
    }
    writer.finish().map_err(CodecError::arrow("encode the footer"))
}

/// A schema for people, cut to what fits into a message.
fn describe(schema: &Schema) -> String {
    const CHARS_MAX: usize = 300;
    let describe = |field: &FieldRef| {
        let nullable = if field.is_nullable() { "" } else { " not null" };
        let metadata = if field.metadata().is_empty() { "" } else { " with metadata" };
        format!("{}: {}{nullable}{metadata}", field.name(), field.data_type())
    };
    let fields: Vec<String> = schema.fields().iter().map(describe).collect();
    let mut text = format!("[{}]", fields.join(", "));
    if !schema.metadata().is_empty() {
        text.push_str(" with metadata");
    }
    if let Some((end, _)) = text.char_indices().nth(CHARS_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

//! [`BlockTable`]: a table of one batch, made of parts; and what is found again of it.

use super::{
    blocks::{BlockFile, Body, TablePart},
    dictionary::contains_dictionary,
    ends::Ends,
    error::CodecError,
    gather, layout,
    prepared::{Prepared, by_our_encoder},
    value::slice_of,
};
use arrow_array::{Array, ArrayRef, cast::AsArray};
use arrow_ipc::writer::EncodedData;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use plasmon_protocol::{
    index_of,
    object::{Flags, Header, Kind},
};
use std::sync::Arc;

/// A table of one batch, made of parts: blocks of columns of one type, and single columns.
///
/// A NaN in a block of floats, and the least integer in a block of times or durations, is what pandas takes for a missing
/// value: it keeps its bits, and its column says that there is none.
///
/// # Examples
/// ```
/// use arrow_array::{ArrayRef, StringArray, cast::AsArray, types::Float64Type};
/// use arrow_schema::{DataType, Field, Schema};
/// use plasmon::{BlockTable, Dtype, Strided, Table, TablePart};
/// use std::sync::Arc;
///
/// let brain = plasmon::testing::brain()?;
/// let matrix: Vec<u8> = [1.0_f64, 2.0, f64::NAN, 4.0].iter().flat_map(|it| it.to_le_bytes()).collect();
/// let block = TablePart::Block(Strided::new(Dtype::FLOAT64, &[2, 2], &[16, 8], 0, matrix)?);
/// let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
/// let schema = Arc::new(Schema::new(vec![Field::new("", DataType::Float64, true)]));
/// let table = BlockTable::new(schema, 2, names, vec![(block, vec![1, 0])], vec![], serde_json::Map::new())?;
/// brain.learn("frame", &table)?;
/// let found = brain.recall::<Table>("frame")?;
/// assert_eq!(found[0]["b"].as_primitive::<Float64Type>().values(), &[1.0, 2.0]);
/// assert_eq!(found[0]["a"].null_count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct BlockTable {
    /// A field for each part.
    schema: SchemaRef,
    rows: usize,
    names: ArrayRef,
    parts: Vec<TablePart>,
    labels: Vec<TablePart>,
    /// For each column the part that it is in, and its number there.
    columns: Vec<(usize, usize)>,
    description: serde_json::Map<String, serde_json::Value>,
}

impl BlockTable {
    /// A table of `rows`. `schema` has a field for each of `parts`, whose name is not used: columns have the `names`, an
    /// array of texts. With each part come the numbers of its columns among them. `labels` are no columns, but are stored
    /// with the table: what is one for each column, say. The `description` says what the table is made of to whoever
    /// knows its kind; where each part and each label stands is added to it as `places`.
    ///
    /// # Errors
    /// [`CodecError::ColumnMismatch`] names the first part that is of another type or size than it should be;
    /// [`CodecError::Unsupported`] the first of a type that cannot be written in pieces.
    pub fn new(
        schema: SchemaRef,
        rows: usize,
        names: ArrayRef,
        parts: Vec<(TablePart, Vec<u64>)>,
        labels: Vec<TablePart>,
        description: serde_json::Map<String, serde_json::Value>,
    ) -> Result<BlockTable, CodecError> {
        layout::check_types(schema.fields())?;
        let count = |what: &str, asked: usize, found: usize| CodecError::ColumnMismatch {
            column: "the table".to_owned(),
            asked: format!("{asked} {what}"),
            found: found.to_string(),
        };
        if parts.len() != schema.fields().len() {
            return Err(count("parts", schema.fields().len(), parts.len()));
        }
        if names.null_count() > 0 || !matches!(names.data_type(), DataType::Utf8 | DataType::LargeUtf8) {
            return Err(count("names", names.len(), names.len() - names.null_count()));
        }
        let mut columns = vec![None; names.len()];
        for (number, ((part, placed), field)) in parts.iter().zip(schema.fields()).enumerate() {
            part.check(field, placed.len(), rows)?;
            for (at, place) in placed.iter().enumerate() {
                match columns.get_mut(index_of(*place)) {
                    Some(free @ None) => *free = Some((number, at)),
                    _ => return Err(count("columns, each in one part", names.len(), index_of(*place))),
                }
            }
        }
        let columns: Option<Vec<_>> = columns.into_iter().collect();
        let placed = parts.iter().map(|(_, placed)| placed.len()).sum();
        let columns = columns.ok_or_else(|| count("columns", names.len(), placed))?;
        let parts = parts.into_iter().map(|(part, _)| part).collect();
        Ok(BlockTable { schema, rows, names, parts, labels, columns, description })
    }

    pub(super) fn prepare_blocks(&self) -> Result<Prepared<'static>, CodecError> {
        let mut body = Body::new(self.rows);
        for (part, field) in self.parts.iter().zip(self.schema.fields()) {
            body.push(part, field)?;
        }
        for label in &self.labels {
            body.push(label, &Field::new("labels", label.data_type(), true))?;
        }
        let mut description = self.description.clone();
        description.insert("places".to_owned(), body.places().into());
        let text = serde_json::Value::from(description).to_string();
        let metadata = self.schema.metadata().clone().into_iter().chain([(DESCRIPTION_KEY.to_owned(), text)]);
        let metadata = metadata.collect::<std::collections::HashMap<_, _>>();
        let schema = Schema::new_with_metadata(self.schema.fields().clone(), metadata);
        let part_of_column: Vec<usize> = self.columns.iter().map(|(part, _)| *part).collect();
        let names: Vec<&str> = match self.names.as_string_opt::<i32>() {
            Some(names) => names.iter().flatten().collect(),
            None => self.names.as_string::<i64>().iter().flatten().collect(),
        };
        let ends = Ends::new(&schema, &names, &part_of_column, &self.dictionaries()?, DESCRIPTION_KEY)?;
        let file = BlockFile::new(ends, self.columns.clone(), body)?;
        let prefix_bytes = file.prefix_bytes();
        let (offset, len) = file.description();
        let header = by_our_encoder(Header {
            flags: Flags::BUFFER,
            buffer_offset: offset,
            dims: [len, prefix_bytes, 0, 0],
            ..Header::new(Kind::TABLE)
        });
        let len_bytes_max = file.len_bytes_max();
        Ok(Prepared::blocks(header, len_bytes_max, Arc::new(file)))
    }

    /// The dictionaries as messages.
    fn dictionaries(&self) -> Result<Vec<EncodedData>, CodecError> {
        let first_rows = self.parts.iter().zip(self.schema.fields()).map(|(part, field)| match part {
            TablePart::Column(chunks) if contains_dictionary(field.data_type()) => chunks[0].slice(0, 1),
            _ => arrow_array::new_null_array(field.data_type(), 1),
        });
        gather::dictionaries(&self.schema, first_rows)
    }
}

/// The description of a table of blocks in `file`, and the bytes that its places refer to. Copies nothing.
pub(crate) fn decode_blocks(
    file: &arrow_buffer::Buffer,
    header: &Header,
) -> Result<(arrow_buffer::Buffer, arrow_buffer::Buffer), CodecError> {
    let [description_bytes, body_start, ..] = header.dims;
    let description = slice_of(file, header.buffer_offset.into(), description_bytes)?;
    let body_bytes = (file.len() as u64).saturating_sub(body_start);
    Ok((description, slice_of(file, body_start, body_bytes)?))
}

/// Key of the schema's metadata under which the description stands.
const DESCRIPTION_KEY: &str = "plasmon.python";

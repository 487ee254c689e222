//! The checks that make a batch's metadata safe to build arrays from: O(columns), without a look at the contents.
//!
//! Arrow's metadata is a list of nodes (a length and a count of nulls for each array, depth first) and a list of
//! buffers (an offset and a length within the body). Which belongs to which follows from the schema alone, so the
//! walk here reads both lists exactly as arrow-ipc's reader will, and checks on the way what that reader and the
//! arrays built by it rely on:
//!
//! * every list is as long as the schema asks, neither shorter nor longer;
//! * every buffer lies within the body, is aligned for its type, and is long enough for its array's length;
//! * children have the lengths their parents imply; dictionaries that are used exist and have the type they need;
//! * the types themselves make sense (`check_types`): widths and precisions in range, maps of entries.

use super::error::CodecError;
use arrow_array::ArrayRef;
use arrow_buffer::Buffer;
use arrow_ipc::{FieldNode, RecordBatch};
use arrow_schema::{DataType, Field, FieldRef, Fields, IntervalUnit, Schema, UnionMode};
use std::{collections::HashMap, sync::Arc};

/// The metadata of one batch, being checked.
pub(super) struct Layout<'a> {
    rows: usize,
    nodes: flatbuffers::VectorIter<'a, FieldNode>,
    buffers: flatbuffers::VectorIter<'a, arrow_ipc::Buffer>,
    variadic_counts: Option<flatbuffers::VectorIter<'a, i64>>,
    body: &'a Buffer,
    dictionaries: &'a HashMap<i64, ArrayRef>,
    require_alignment: bool,
}

/// The checked length of an array, and how many of it are null.
#[derive(Clone, Copy)]
struct Node {
    len: usize,
    nulls: usize,
}

impl<'a> Layout<'a> {
    pub(super) fn new(
        batch: &RecordBatch<'a>,
        body: &'a Buffer,
        dictionaries: &'a HashMap<i64, ArrayRef>,
        require_alignment: bool,
    ) -> Result<Layout<'a>, CodecError> {
        if batch.compression().is_some() {
            return Err(CodecError::Unsupported {
                what: "a compressed batch".to_owned(),
                advice: "write the file without compression",
            });
        }
        let missing = |what| move || CodecError::malformed(format!("a batch has no {what}"));
        Ok(Layout {
            rows: length(batch.length())?,
            nodes: batch.nodes().ok_or_else(missing("nodes"))?.iter(),
            buffers: batch.buffers().ok_or_else(missing("buffers"))?.iter(),
            variadic_counts: batch.variadicBufferCounts().map(|counts| counts.iter()),
            body,
            dictionaries,
            require_alignment,
        })
    }

    /// Checks that the batch has exactly the columns `fields`.
    pub(super) fn check(mut self, fields: &[FieldRef]) -> Result<(), CodecError> {
        for field in fields {
            let column = self.array(field)?;
            self.child_len(field, column.len, self.rows)?;
        }
        let counts_left = self.variadic_counts.is_some_and(|mut counts| counts.next().is_some());
        if self.nodes.next().is_some() || self.buffers.next().is_some() || counts_left {
            return Err(CodecError::malformed("a batch has more arrays or buffers than its schema"));
        }
        Ok(())
    }

    fn array(&mut self, field: &Field) -> Result<Node, CodecError> {
        let node = self.node(field)?;
        let len = node.len;
        match field.data_type() {
            DataType::Null => {
                if node.nulls != len {
                    return Err(CodecError::malformed(format!(
                        "column `{}` of nulls has values",
                        field.name()
                    )));
                }
                return Ok(node);
            }
            DataType::RunEndEncoded(run_ends, values) => {
                let (ends, runs) = (self.array(run_ends)?, self.array(values)?);
                self.child_len(field, runs.len, ends.len)?;
                if ends.nulls != 0 || node.nulls != 0 || (ends.len == 0 && len != 0) {
                    return Err(CodecError::malformed(format!(
                        "column `{}` has runs without ends",
                        field.name()
                    )));
                }
                return Ok(node);
            }
            DataType::Union(fields, mode) => {
                self.buffer(field, Some(len), 1)?;
                if *mode == UnionMode::Dense {
                    // arrow-ipc copies misaligned buffers of every other type where that is allowed; here it panics.
                    let require_alignment = std::mem::replace(&mut self.require_alignment, true);
                    self.buffer(field, len.checked_mul(4), 4)?;
                    self.require_alignment = require_alignment;
                }
                for (_, child) in fields.iter() {
                    let child_len = self.array(child)?.len;
                    if *mode == UnionMode::Sparse {
                        self.child_len(child, child_len, len)?;
                    }
                }
                return Ok(node);
            }
            _ => {}
        }

        let validity_len = if node.nulls > 0 { len.div_ceil(8) } else { 0 };
        self.buffer(field, Some(validity_len), 1)?;
        match field.data_type() {
            DataType::Boolean => self.buffer(field, Some(len.div_ceil(8)), 1)?,
            DataType::Utf8 | DataType::Binary => {
                self.offsets(field, len, 4)?;
                self.buffer(field, Some(0), 1)?;
            }
            DataType::LargeUtf8 | DataType::LargeBinary => {
                self.offsets(field, len, 8)?;
                self.buffer(field, Some(0), 1)?;
            }
            DataType::Utf8View | DataType::BinaryView => {
                let count = self.variadic_counts.as_mut().and_then(Iterator::next);
                let count = count.and_then(|count| usize::try_from(count).ok());
                let count = count.filter(|count| *count < self.buffers.len()).ok_or_else(|| {
                    CodecError::malformed(format!("column `{}` does not have its buffers", field.name()))
                })?;
                self.buffer(field, len.checked_mul(16), align_of::<u128>())?;
                for _ in 0..count {
                    self.buffer(field, Some(0), 1)?;
                }
            }
            DataType::List(child) | DataType::Map(child, _) => {
                self.offsets(field, len, 4)?;
                self.array(child)?;
            }
            DataType::LargeList(child) => {
                self.offsets(field, len, 8)?;
                self.array(child)?;
            }
            DataType::ListView(child) => {
                self.buffer(field, len.checked_mul(4), 4)?;
                self.buffer(field, len.checked_mul(4), 4)?;
                self.array(child)?;
            }
            DataType::LargeListView(child) => {
                self.buffer(field, len.checked_mul(8), 8)?;
                self.buffer(field, len.checked_mul(8), 8)?;
                self.array(child)?;
            }
            DataType::FixedSizeList(child, list_len) => {
                let child_len = self.array(child)?.len;
                let needed = usize::try_from(*list_len).ok().and_then(|list_len| len.checked_mul(list_len));
                let needed = needed.ok_or_else(|| too_long(field))?;
                self.child_len(child, child_len, needed)?;
            }
            DataType::Struct(children) => {
                for child in children {
                    let child_len = self.array(child)?.len;
                    self.child_len(child, child_len, len)?;
                }
            }
            DataType::Dictionary(key, _) => {
                self.fixed_width(field, key, len)?;
                if !self.dictionaries.contains_key(&dictionary_id(field)) && node.nulls != len {
                    return Err(CodecError::malformed(format!(
                        "column `{}` has no dictionary",
                        field.name()
                    )));
                }
            }
            DataType::FixedSizeBinary(width) => {
                self.buffer(field, usize::try_from(*width).ok().and_then(|width| len.checked_mul(width)), 1)?;
            }
            fixed => self.fixed_width(field, fixed, len)?,
        }
        Ok(node)
    }

    fn node(&mut self, field: &Field) -> Result<Node, CodecError> {
        let node = self.nodes.next().ok_or_else(|| {
            CodecError::malformed(format!(
                "a batch has fewer arrays than its schema: `{}` is missing",
                field.name()
            ))
        })?;
        let node = Node { len: length(node.length())?, nulls: length(node.null_count())? };
        if node.nulls > node.len {
            return Err(CodecError::malformed(format!("column `{}` has more nulls than rows", field.name())));
        }
        Ok(node)
    }

    /// Checks the next buffer: within the body, at least `needed` bytes, of values of `alignment` bytes.
    fn buffer(&mut self, field: &Field, needed: Option<usize>, alignment: usize) -> Result<(), CodecError> {
        let needed = needed.ok_or_else(|| too_long(field))?;
        let buffer = self.next_buffer(field)?;
        if buffer.len < needed {
            return Err(CodecError::malformed(format!(
                "column `{}` needs a buffer of {needed} bytes and has one of {}",
                field.name(),
                buffer.len
            )));
        }
        self.aligned(field, &buffer, alignment)
    }

    /// Checks the next buffer to have the offsets of `len` lists or texts: one more than there are, or none if empty.
    fn offsets(&mut self, field: &Field, len: usize, width: usize) -> Result<(), CodecError> {
        let buffer = self.next_buffer(field)?;
        let needed =
            len.checked_add(1).and_then(|count| count.checked_mul(width)).ok_or_else(|| too_long(field))?;
        if buffer.len < needed && (len > 0 || buffer.len > 0) {
            return Err(CodecError::malformed(format!(
                "column `{}` needs {needed} bytes of offsets and has {}",
                field.name(),
                buffer.len
            )));
        }
        self.aligned(field, &buffer, width)
    }

    /// Checks the next buffer to have `len` values of a type of fixed width.
    fn fixed_width(&mut self, field: &Field, data_type: &DataType, len: usize) -> Result<(), CodecError> {
        let width = data_type.primitive_width().ok_or_else(|| CodecError::Unsupported {
            what: format!("column `{}` of type {data_type}", field.name()),
            advice: "cast it to another type",
        })?;
        let alignment = match data_type {
            DataType::Interval(IntervalUnit::DayTime) => 4,
            DataType::Interval(IntervalUnit::MonthDayNano) => 8,
            _ => width.min(align_of::<i128>()),
        };
        self.buffer(field, len.checked_mul(width), alignment)
    }

    fn next_buffer(&mut self, field: &Field) -> Result<Extent, CodecError> {
        let buffer = self.buffers.next().ok_or_else(|| {
            CodecError::malformed(format!(
                "a batch has fewer buffers than its schema: `{}` lacks one",
                field.name()
            ))
        })?;
        let extent = || {
            let extent = Extent {
                offset: usize::try_from(buffer.offset()).ok()?,
                len: usize::try_from(buffer.length()).ok()?,
            };
            (extent.offset.checked_add(extent.len)? <= self.body.len()).then_some(extent)
        };
        extent().ok_or_else(|| {
            CodecError::malformed(format!(
                "a buffer of column `{}`, {} bytes at {}, is not within the body of {} bytes",
                field.name(),
                buffer.length(),
                buffer.offset(),
                self.body.len()
            ))
        })
    }

    /// Checks that a buffer can be taken for values of `alignment` bytes: its start is aligned, its length whole.
    fn aligned(&self, field: &Field, buffer: &Extent, alignment: usize) -> Result<(), CodecError> {
        // Arrow allows a part of a value at the end; arrow-rs asserts that there is none.
        if !buffer.len.is_multiple_of(alignment) {
            return Err(CodecError::malformed(format!(
                "a buffer of column `{}` has {} bytes, no multiple of {alignment}",
                field.name(),
                buffer.len
            )));
        }
        let address = self.body.as_ptr().addr() + buffer.offset;
        if self.require_alignment && !address.is_multiple_of(alignment) {
            return Err(CodecError::Misaligned {
                what: format!("a buffer of column `{}`", field.name()),
                needed_bytes: alignment,
            });
        }
        Ok(())
    }

    fn child_len(&self, field: &Field, found: usize, needed: usize) -> Result<(), CodecError> {
        if found == needed {
            return Ok(());
        }
        Err(CodecError::malformed(format!("`{}` has {found} rows where {needed} are needed", field.name())))
    }
}

/// A buffer's place within the body.
struct Extent {
    offset: usize,
    len: usize,
}

/// The values of each dictionary of a schema, as a column without a name.
///
/// # Errors
/// [`CodecError::Malformed`] if columns of different types claim the same dictionary.
pub(super) fn dictionary_types(schema: &Schema) -> Result<HashMap<i64, FieldRef>, CodecError> {
    fn visit(field: &Field, found: &mut HashMap<i64, FieldRef>) -> Result<(), CodecError> {
        if let DataType::Dictionary(_, values) = field.data_type() {
            let id = dictionary_id(field);
            let values = Arc::new(Field::new("", values.as_ref().clone(), true));
            visit(&values, found)?;
            match found.get(&id) {
                Some(known) if known.data_type() != values.data_type() => {
                    return Err(CodecError::malformed(format!(
                        "columns of two types share the dictionary {id}"
                    )));
                }
                Some(_) => {}
                None => {
                    found.insert(id, values);
                }
            }
            return Ok(());
        }
        children(field.data_type()).try_for_each(|child| visit(child, found))
    }
    let mut found = HashMap::new();
    schema.fields().iter().try_for_each(|field| visit(field, &mut found))?;
    Ok(found)
}

/// Checks of a field's flatbuffer that must come before arrow-ipc reads it, because it panics where they fail.
pub(super) fn check_field(field: arrow_ipc::Field<'_>) -> Result<(), CodecError> {
    let children = field.children();
    if let Some(union) = field.type_as_union()
        && union.typeIds().is_none()
        && children.is_some_and(|children| children.len() > UNION_FIELDS_MAX)
    {
        return Err(CodecError::malformed(format!("a union has more than {UNION_FIELDS_MAX} fields")));
    }
    children.iter().flatten().try_for_each(check_field)
}

/// A union's type ids are the numbers 0 to 127.
const UNION_FIELDS_MAX: usize = 128;

/// Deepest nesting of types within each other that is read and written.
pub(super) const NESTING_MAX: usize = 64;

/// Checks that types are what their arrays rely on, at any depth. The encoder asks as well, so that what was learned
/// can be recalled.
pub(super) fn check_types(fields: &Fields) -> Result<(), CodecError> {
    fields.iter().try_for_each(|field| check_type(field, field.data_type(), NESTING_MAX))
}

fn check_type(field: &Field, data_type: &DataType, levels_left: usize) -> Result<(), CodecError> {
    let Some(levels_left) = levels_left.checked_sub(1) else {
        return Err(CodecError::Unsupported {
            what: format!("a type nested deeper than {NESTING_MAX} levels"),
            advice: "flatten the column",
        });
    };
    let makes_sense = match data_type {
        DataType::FixedSizeBinary(width) | DataType::FixedSizeList(_, width) => *width >= 0,
        DataType::Decimal32(precision, scale) => decimal(*precision, *scale, 9),
        DataType::Decimal64(precision, scale) => decimal(*precision, *scale, 18),
        DataType::Decimal128(precision, scale) => decimal(*precision, *scale, 38),
        DataType::Decimal256(precision, scale) => decimal(*precision, *scale, 76),
        DataType::RunEndEncoded(ends, _) => {
            !ends.is_nullable()
                && matches!(ends.data_type(), DataType::Int16 | DataType::Int32 | DataType::Int64)
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => pair.len() == 2 && !pair[0].is_nullable() && !entries.is_nullable(),
            _ => false,
        },
        DataType::Dictionary(_, values) => {
            check_type(field, values, levels_left)?;
            !matches!(values.as_ref(), DataType::Dictionary(..))
        }
        _ => true,
    };
    if !makes_sense {
        return Err(CodecError::malformed(format!(
            "the type {data_type} of column `{}` is impossible",
            field.name()
        )));
    }
    children(data_type).try_for_each(|child| check_type(child, child.data_type(), levels_left))
}

fn decimal(precision: u8, scale: i8, precision_max: u8) -> bool {
    (1..=precision_max).contains(&precision) && i16::from(scale) <= i16::from(precision)
}

/// The fields nested directly in a type.
fn children(data_type: &DataType) -> impl Iterator<Item = &Field> {
    let mut found: Vec<&Field> = Vec::new();
    match data_type {
        DataType::List(child)
        | DataType::LargeList(child)
        | DataType::ListView(child)
        | DataType::LargeListView(child)
        | DataType::FixedSizeList(child, _)
        | DataType::Map(child, _) => found.push(child),
        DataType::Struct(fields) => found.extend(fields.iter().map(AsRef::as_ref)),
        DataType::Union(fields, _) => found.extend(fields.iter().map(|(_, field)| field.as_ref())),
        DataType::RunEndEncoded(ends, values) => found.extend([ends.as_ref(), values.as_ref()]),
        _ => {}
    }
    found.into_iter()
}

/// The id that the file's schema gives to the dictionary of a column.
fn dictionary_id(field: &Field) -> i64 {
    #[expect(deprecated, reason = "arrow-ipc keeps the file's ids nowhere else")]
    field.dict_id().unwrap_or_default()
}

/// A length or count of the metadata: not negative, and small enough that adding a few to it cannot overflow.
fn length(found: i64) -> Result<usize, CodecError> {
    usize::try_from(found)
        .ok()
        .filter(|length| *length <= LENGTH_MAX)
        .ok_or_else(|| CodecError::malformed(format!("a length of {found}")))
}

const LENGTH_MAX: usize = 1 << 60;

fn too_long(field: &Field) -> CodecError {
    CodecError::malformed(format!("column `{}` is longer than memory can be", field.name()))
}

//! One dictionary for each dictionary column of a file.
//!
//! The file format has a single dictionary per column, while batches that were made one by one often have one each.
//! Where they differ, the values are put into one dictionary, in the order in which they first occur, and the
//! indices are rewritten; equal values share an entry. Nothing is copied where all batches already agree.

use super::error::CodecError;
use arrow_array::{Array, ArrayRef, RecordBatch, make_array};
use arrow_buffer::Buffer;
use arrow_data::{ArrayData, transform::MutableArrayData};
use arrow_schema::{DataType, SchemaRef};
use std::collections::HashMap;

/// Whether a column of this type has a dictionary, at any depth.
pub(super) fn contains_dictionary(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(..) => true,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _)
        | DataType::RunEndEncoded(_, field) => contains_dictionary(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| contains_dictionary(field.data_type())),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| contains_dictionary(field.data_type())),
        _ => false,
    }
}

/// The batches with one dictionary per column, or `None` if they already have.
///
/// # Errors
/// [`CodecError::Unsupported`] naming the column whose dictionaries differ and cannot be put into one.
pub(super) fn unify(
    schema: &SchemaRef,
    batches: &[RecordBatch],
) -> Result<Option<Vec<RecordBatch>>, CodecError> {
    let mut columns: Vec<Vec<ArrayRef>> = batches.iter().map(|batch| batch.columns().to_vec()).collect();
    let mut changed = false;
    for (index, field) in schema.fields().iter().enumerate() {
        if !contains_dictionary(field.data_type()) {
            continue;
        }
        let arrays: Vec<ArrayData> = batches.iter().map(|batch| batch.column(index).to_data()).collect();
        let Some(unified) = unify_arrays(field.name(), &arrays)? else { continue };
        changed = true;
        for (columns, data) in columns.iter_mut().zip(unified) {
            columns[index] = make_array(data);
        }
    }
    if !changed {
        return Ok(None);
    }
    columns
        .into_iter()
        .map(|columns| RecordBatch::try_new(schema.clone(), columns))
        .collect::<Result<_, _>>()
        .map(Some)
        .map_err(CodecError::arrow("put the dictionaries of the batches into one"))
}

/// Unifies all dictionaries within `arrays`, which are the same column of each batch. `None`: nothing to do.
fn unify_arrays(column: &str, arrays: &[ArrayData]) -> Result<Option<Vec<ArrayData>>, CodecError> {
    let Some(first) = arrays.first() else { return Ok(None) };
    if matches!(first.data_type(), DataType::Dictionary(..)) {
        return unify_dictionaries(column, arrays);
    }
    if !contains_dictionary(first.data_type()) {
        return Ok(None);
    }
    let mut unified: Option<Vec<ArrayData>> = None;
    for child in 0..first.child_data().len() {
        let children: Vec<ArrayData> = arrays.iter().map(|array| array.child_data()[child].clone()).collect();
        let Some(children) = unify_arrays(column, &children)? else { continue };
        let whole = unified.get_or_insert_with(|| arrays.to_vec());
        for (array, replacement) in whole.iter_mut().zip(children) {
            let mut all = array.child_data().to_vec();
            all[child] = replacement;
            *array = rebuild(array.clone(), all)?;
        }
    }
    Ok(unified)
}

fn unify_dictionaries(column: &str, arrays: &[ArrayData]) -> Result<Option<Vec<ArrayData>>, CodecError> {
    let dictionaries: Vec<&ArrayData> = arrays.iter().map(|array| &array.child_data()[0]).collect();
    let same = |a: &ArrayData, b: &ArrayData| a.ptr_eq(b) || a == b;
    if dictionaries.windows(2).all(|pair| same(pair[0], pair[1])) {
        return Ok(None);
    }

    // Where each value of each dictionary stands in the one dictionary, and where the new ones come from.
    let mut places: HashMap<Option<&[u8]>, usize> = HashMap::new();
    let mut origins: Vec<(usize, usize)> = Vec::new();
    let mut translations: Vec<Vec<usize>> = Vec::with_capacity(arrays.len());
    for (which, dictionary) in dictionaries.iter().enumerate() {
        let values = ValueBytes::new(dictionary).ok_or_else(|| CodecError::Unsupported {
            what: format!(
                "column `{column}`, whose dictionaries of type {} differ between batches,",
                dictionary.data_type()
            ),
            advice: "give all batches the same dictionary, or decode the column",
        })?;
        let mut translation = Vec::with_capacity(dictionary.len());
        for index in 0..dictionary.len() {
            let next = origins.len();
            let place = *places.entry(values.at(index)).or_insert(next);
            if place == next {
                origins.push((which, index));
            }
            translation.push(place);
        }
        translations.push(translation);
    }

    let mut one = MutableArrayData::new(dictionaries.clone(), false, origins.len());
    for run in origins.chunk_by(|a, b| a.0 == b.0 && a.1 + 1 == b.1) {
        let (which, start) = run[0];
        one.try_extend(which, start, start + run.len())
            .map_err(CodecError::arrow("put the dictionaries of the batches into one"))?;
    }
    let one = one.freeze();

    let mut unified = Vec::with_capacity(arrays.len());
    for (array, translation) in arrays.iter().zip(&translations) {
        let DataType::Dictionary(key_type, _) = array.data_type() else {
            unreachable!("all batches have the schema, and the first one's column is a dictionary")
        };
        let keys = translate_keys(key_type, array, translation).ok_or_else(|| CodecError::Unsupported {
            what: format!(
                "column `{column}`, whose batches have {} different values together, more than its indices of type \
                 {key_type} can number,",
                origins.len()
            ),
            advice: "use a wider index type, or decode the column",
        })?;
        // The keys were rewritten for exactly the rows of the array: its offset becomes zero.
        let data = ArrayData::builder(array.data_type().clone())
            .len(array.len())
            .nulls(array.nulls().cloned())
            .add_buffer(keys)
            .add_child_data(one.clone())
            .build()
            .map_err(CodecError::arrow("rewrite dictionary indices"))?;
        unified.push(data);
    }
    Ok(Some(unified))
}

/// The array's indices after `translation`; indices of nulls become zero. `None` if one does not fit its type.
fn translate_keys(key_type: &DataType, array: &ArrayData, translation: &[usize]) -> Option<Buffer> {
    fn translated<K>(array: &ArrayData, translation: &[usize]) -> Option<Buffer>
    where
        K: arrow_buffer::ArrowNativeType + TryFrom<usize>,
    {
        let keys = array.buffer::<K>(0).get(..array.len())?;
        let key = |(row, key): (usize, &K)| {
            if array.is_null(row) {
                return Some(K::default());
            }
            K::try_from(*translation.get(key.as_usize())?).ok()
        };
        keys.iter().enumerate().map(key).collect::<Option<Vec<K>>>().map(Buffer::from_vec)
    }
    match key_type {
        DataType::Int8 => translated::<i8>(array, translation),
        DataType::Int16 => translated::<i16>(array, translation),
        DataType::Int32 => translated::<i32>(array, translation),
        DataType::Int64 => translated::<i64>(array, translation),
        DataType::UInt8 => translated::<u8>(array, translation),
        DataType::UInt16 => translated::<u16>(array, translation),
        DataType::UInt32 => translated::<u32>(array, translation),
        DataType::UInt64 => translated::<u64>(array, translation),
        _ => None,
    }
}

/// A dictionary's values as bytes that are equal exactly if the values are.
enum ValueBytes<'a> {
    Small(&'a ArrayData, &'a [i32], &'a [u8]),
    Large(&'a ArrayData, &'a [i64], &'a [u8]),
    View(&'a ArrayData, &'a [u128]),
    Fixed(&'a ArrayData, &'a [u8], usize),
}

impl<'a> ValueBytes<'a> {
    /// `None` for nested values and for bits, which no writer of dictionaries makes.
    fn new(values: &'a ArrayData) -> Option<Self> {
        Some(match values.data_type() {
            DataType::Utf8 | DataType::Binary if values.is_empty() => ValueBytes::Fixed(values, &[], 0),
            DataType::LargeUtf8 | DataType::LargeBinary if values.is_empty() => {
                ValueBytes::Fixed(values, &[], 0)
            }
            DataType::Utf8 | DataType::Binary => {
                ValueBytes::Small(values, values.buffer::<i32>(0), values.buffers()[1].as_slice())
            }
            DataType::LargeUtf8 | DataType::LargeBinary => {
                ValueBytes::Large(values, values.buffer::<i64>(0), values.buffers()[1].as_slice())
            }
            DataType::Utf8View | DataType::BinaryView => ValueBytes::View(values, values.buffer::<u128>(0)),
            DataType::FixedSizeBinary(width) => {
                let width = usize::try_from(*width).ok()?;
                ValueBytes::Fixed(values, &values.buffers()[0].as_slice()[values.offset() * width..], width)
            }
            fixed => {
                let width = fixed.primitive_width()?;
                ValueBytes::Fixed(values, &values.buffers()[0].as_slice()[values.offset() * width..], width)
            }
        })
    }

    /// The value at `index`, or `None` if it is null.
    fn at(&self, index: usize) -> Option<&'a [u8]> {
        match *self {
            ValueBytes::Small(data, ..)
            | ValueBytes::Large(data, ..)
            | ValueBytes::View(data, ..)
            | ValueBytes::Fixed(data, ..)
                if data.is_null(index) =>
            {
                None
            }
            ValueBytes::Small(_, offsets, values) => Some(
                &values[usize::try_from(offsets[index]).ok()?..usize::try_from(offsets[index + 1]).ok()?],
            ),
            ValueBytes::Large(_, offsets, values) => Some(
                &values[usize::try_from(offsets[index]).ok()?..usize::try_from(offsets[index + 1]).ok()?],
            ),
            ValueBytes::View(data, views) => Some(view_bytes(data, views, index)),
            ValueBytes::Fixed(_, values, width) => Some(&values[index * width..(index + 1) * width]),
        }
    }
}

/// The bytes that the view at `index` stands for: within the view if there are at most twelve, else in a buffer.
fn view_bytes<'a>(data: &'a ArrayData, views: &'a [u128], index: usize) -> &'a [u8] {
    let view = arrow_data::ByteView::from(views[index]);
    let len = view.length as usize;
    if len <= 12 {
        let start = (data.offset() + index) * 16 + 4;
        return &data.buffers()[0].as_slice()[start..start + len];
    }
    let start = view.offset as usize;
    &data.buffers()[1 + view.buffer_index as usize].as_slice()[start..start + len]
}

/// `array` with other children of the same types and lengths.
fn rebuild(array: ArrayData, children: Vec<ArrayData>) -> Result<ArrayData, CodecError> {
    array
        .into_builder()
        .child_data(children)
        .build()
        .map_err(CodecError::arrow("put the dictionaries of the batches into one"))
}

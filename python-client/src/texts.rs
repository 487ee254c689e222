//! Columns of Python's texts as Arrow's, and back. No Python code runs here, nor code that gives the interpreter lock away.

use crate::memory::{self, TableStream};
use arrow_array::{Array, ArrayRef, RecordBatch, builder::LargeStringBuilder, cast::AsArray};
use arrow_schema::DataType;
use plasmon::Table;
use pyo3::{
    exceptions::PyValueError,
    prelude::*,
    types::{PyBytes, PyFloat, PyNone, PyString},
};
use std::{collections::HashMap, sync::Arc};

/// What of the texts of a column is missing, by which of the things that stand for it: numbers of `texts_of`'s bytes.
const TEXT: u8 = 0;
const NONE: u8 = 1;
const NAN: u8 = 2;
const NA: u8 = 3;

/// The exact texts in `values`, a one-dimensional ndarray of objects, as a table with one column, in which all else is
/// null; what each value is: a byte of 0 for a text, 1 for `None`, 2 for a float that is not a number, 3 for `na`; and how
/// many there are of each. `None` if there is anything else among them, or a text that has no UTF-8.
#[pyfunction]
pub(crate) fn texts_of<'py>(
    values: &Bound<'py, PyAny>,
    na: &Bound<'py, PyAny>,
) -> PyResult<Option<Texts<'py>>> {
    let values = memory::objects(values)?;
    let mut texts = LargeStringBuilder::with_capacity(values.len(), 8 * values.len());
    let mut kinds = Vec::with_capacity(values.len());
    let mut counts = [0; 4];
    for value in values {
        let kind = match value.cast_exact::<PyString>() {
            Ok(text) => {
                let Ok(text) = text.to_str() else { return Ok(None) };
                texts.append_value(text);
                TEXT
            }
            Err(_) => {
                texts.append_null();
                match value.cast_exact::<PyFloat>() {
                    Ok(number) if number.value().is_nan() => NAN,
                    Ok(_) => return Ok(None),
                    Err(_) if value.is_exact_instance_of::<PyNone>() => NONE,
                    Err(_) if value.is(na) => NA,
                    Err(_) => return Ok(None),
                }
            }
        };
        kinds.push(kind);
        counts[usize::from(kind)] += 1;
    }
    let column: ArrayRef = Arc::new(texts.finish());
    let batch = RecordBatch::try_from_iter([("texts", column)])
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(Some((TableStream::new(Table::from(batch)), PyBytes::new(na.py(), &kinds), counts)))
}

/// Texts and nulls, what each is, and how many there are of each.
type Texts<'py> = (TableStream, Bound<'py, PyBytes>, [u64; 4]);

/// Puts the texts in the only column of `source`, an object with `__arrow_c_stream__`, into `values`, a one-dimensional
/// ndarray of as many objects; `missing` for each null.
///
/// Texts that come again and again are made once.
#[pyfunction]
pub(crate) fn put_texts(
    source: &Bound<'_, PyAny>,
    missing: &Bound<'_, PyAny>,
    values: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = source.py();
    let table = memory::import_table(source)?;
    let mut places = memory::ObjectPlaces::of(values, table.num_rows())?;
    for batch in table.iter() {
        let column = batch.column(0);
        match column.data_type() {
            DataType::Utf8 => places.put(objects(py, column.as_string::<i32>().iter(), missing)),
            DataType::LargeUtf8 => places.put(objects(py, column.as_string::<i64>().iter(), missing)),
            other => return Err(PyValueError::new_err(format!("{other} is no type of texts"))),
        }
    }
    Ok(())
}

fn objects<'a, 'py>(
    py: Python<'py>,
    texts: impl Iterator<Item = Option<&'a str>>,
    missing: &Bound<'py, PyAny>,
) -> impl Iterator<Item = Bound<'py, PyAny>> {
    // Looking a text up takes half as long as making it, and in vain if no text comes twice.
    let mut known: Option<HashMap<&str, Bound<'py, PyAny>, foldhash::fast::RandomState>> =
        Some(HashMap::default());
    let mut count = 0_usize;
    texts.map(move |text| {
        let Some(text) = text else { return missing.clone() };
        count += 1;
        // Again and again, because texts that differ may begin anywhere.
        if count.is_multiple_of(SAMPLE_TEXTS) && known.as_ref().is_some_and(|known| known.len() > count / 2) {
            known = None;
        }
        match &mut known {
            Some(known) => known.entry(text).or_insert_with(|| PyString::new(py, text).into_any()).clone(),
            None => PyString::new(py, text).into_any(),
        }
    })
}

/// After so many texts each it is decided anew whether further ones are looked up.
const SAMPLE_TEXTS: usize = 4_096;

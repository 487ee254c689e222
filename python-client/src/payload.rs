//! From Python values to what is learned.

use crate::{errors::OrRaise, exit::detached, json, memory, numpy};
use plasmon::{
    BlockTable, CodecError, Described, Dtype, Json, Learn, Pickle, Strided, Table, TablePart, Tensor,
};
use pyo3::{
    buffer::{PyBuffer, PyUntypedBuffer},
    exceptions::{PyBufferError, PyValueError},
    prelude::*,
    pybacked::{PyBackedBytes, PyBackedStr},
    types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyNone, PyString},
};
use std::io;

/// A value in the form in which it is stored, its large parts still where they are.
///
/// Made by `plasmon._forms`.
#[pyclass(frozen, module = "plasmon._plasmon")]
pub(crate) struct Payload(Form);

/// The form of a value.
pub(crate) enum Form {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(PyBackedStr),
    Bytes(PyBackedBytes),
    Json(Json),
    Tensor {
        dtype: Dtype,
        shape: Vec<usize>,
        column_major: bool,
        data: arrow_buffer::Buffer,
    },
    Strided(Strided),
    Table(Table),
    /// A table with a description of what it was in Python, by the code that made its columns.
    Described(Table),
    Blocks(BlockTable),
    Pickle(Pickle),
}

#[pymethods]
impl Payload {
    /// A plain value: an exact `None`, `bool`, `int` of 64 bits, `float`, `str` without surrogates, `bytes`, and `dict`
    /// and `list` as far as JSON says them exactly, ndarrays of the dtypes of tensors. `None` for all others.
    #[staticmethod]
    fn plain(value: &Bound<'_, PyAny>) -> PyResult<Option<Payload>> {
        Ok(plain(value)?.map(Payload))
    }

    /// An array with elements of `dtype` (its number in docs/layout.md): the elements of `data`, a buffer with dimensions
    /// of its own, in `shape`, which has as many.
    #[staticmethod]
    fn tensor(dtype: u8, shape: Vec<usize>, data: &Bound<'_, PyAny>) -> PyResult<Payload> {
        Ok(Payload(of_tensor(Dtype::from_number(dtype), shape, PyUntypedBuffer::get(data)?)?))
    }

    /// A table: any object with `__arrow_c_stream__`. `described` vouches that its columns are what the description in
    /// its metadata says, so that a reader need not look.
    #[staticmethod]
    #[pyo3(signature = (source, described=false))]
    fn table(source: &Bound<'_, PyAny>, described: bool) -> PyResult<Payload> {
        let table = memory::import_table(source)?;
        Ok(Payload(if described { Form::Described(table) } else { Form::Table(table) }))
    }

    /// A table of one batch that is made of parts; `None` if one is of a type that cannot be written in pieces.
    ///
    /// `schema` is an object with `__arrow_c_stream__` that has a field for each part, `names` one with a column of the
    /// columns' names. A part is such an object with one column, or a two-dimensional buffer of values of fixed width, in
    /// which a row is a column; with each come the numbers of its columns, as a buffer of integers of 64 bits. `labels` are
    /// parts that are no columns. `description` is JSON, and gets the places of parts and labels.
    #[staticmethod]
    fn blocks(
        schema: &Bound<'_, PyAny>,
        rows: usize,
        names: &Bound<'_, PyAny>,
        parts: Vec<(Bound<'_, PyAny>, Bound<'_, PyAny>)>,
        labels: Vec<Bound<'_, PyAny>>,
        description: &str,
    ) -> PyResult<Option<Payload>> {
        let py = schema.py();
        let schema = memory::import_table(schema)?.schema().clone();
        let names = memory::import_table(names)?;
        let [names] = &names[..] else { return Err(PyValueError::new_err("the names come in one batch")) };
        let placed = |(part, numbers): &(Bound<'_, PyAny>, Bound<'_, PyAny>)| {
            let numbers = PyBuffer::<i64>::get(numbers)?.to_vec(py)?;
            // A negative one is none of the numbers that there are.
            Ok((part_of(part)?, numbers.into_iter().map(i64::cast_unsigned).collect()))
        };
        let parts = parts.iter().map(placed).collect::<PyResult<_>>()?;
        let labels = labels.iter().map(part_of).collect::<PyResult<_>>()?;
        let description =
            serde_json::from_str(description).map_err(|error| PyValueError::new_err(error.to_string()))?;
        match BlockTable::new(schema, rows, names.column(0).clone(), parts, labels, description) {
            Err(CodecError::Unsupported { .. }) => Ok(None),
            made => Ok(Some(Payload(Form::Blocks(
                made.map_err(|error| PyValueError::new_err(error.to_string()))?,
            )))),
        }
    }

    /// A pickle of protocol 5 with its out-of-band buffers.
    #[staticmethod]
    fn pickle(stream: &Bound<'_, PyAny>, buffers: Vec<Bound<'_, PyAny>>) -> PyResult<Payload> {
        let buffers = buffers.iter().map(memory::borrow).collect::<PyResult<Vec<_>>>()?;
        Ok(Payload(Form::Pickle(Pickle::new(memory::borrow(stream)?, buffers))))
    }

    /// BLAKE3 of the object that learning the value would write: 32 bytes.
    fn digest<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let digest = detached(py, || {
            let mut digest = Digest(blake3::Hasher::new());
            self.0.with_learn(|value| value.prepare()?.write_to(&mut digest))??;
            Ok::<_, CodecError>(digest.0.finalize())
        });
        Ok(PyBytes::new(py, digest.or_raise_learning(py)?.as_bytes()))
    }
}

/// What is written goes into a digest.
struct Digest(blake3::Hasher);

impl io::Write for Digest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Payload {
    /// Its form.
    pub(crate) fn form(&self) -> &Form {
        &self.0
    }
}

impl Form {
    /// The value, for the Rust client.
    pub(crate) fn with_learn<R>(&self, give: impl FnOnce(&dyn Learn) -> R) -> Result<R, CodecError> {
        Ok(match self {
            Form::Null => give(&()),
            Form::Bool(value) => give(value),
            Form::Int(value) => give(value),
            Form::Float(value) => give(value),
            Form::Text(value) => give(&&**value),
            Form::Bytes(value) => give(&&**value),
            Form::Json(value) => give(value),
            Form::Tensor { dtype, shape, column_major, data } => {
                give(&Tensor::from_bytes(*dtype, shape, *column_major, data)?)
            }
            Form::Strided(value) => give(value),
            Form::Table(value) => give(value),
            Form::Described(value) => give(&Described(value)),
            Form::Blocks(value) => give(value),
            Form::Pickle(value) => give(value),
        })
    }
}

/// The form of exact instances of the plain types; `None` for all others.
pub(crate) fn plain(value: &Bound<'_, PyAny>) -> PyResult<Option<Form>> {
    if let Ok(text) = value.cast_exact::<PyString>() {
        // Surrogates have no UTF-8: a pickle has them.
        return Ok(PyBackedStr::try_from(text.clone()).ok().map(Form::Text));
    }
    if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        return Ok(Some(Form::Bytes(bytes.clone().into())));
    }
    if value.is_exact_instance_of::<PyBool>() {
        return Ok(Some(Form::Bool(value.is_truthy()?)));
    }
    if let Ok(number) = value.cast_exact::<PyInt>() {
        return Ok(number.extract().ok().map(Form::Int));
    }
    if let Ok(number) = value.cast_exact::<PyFloat>() {
        return Ok(Some(Form::Float(number.value())));
    }
    if value.is_exact_instance_of::<PyNone>() {
        return Ok(Some(Form::Null));
    }
    if value.is_exact_instance_of::<PyDict>() || value.is_exact_instance_of::<PyList>() {
        return Ok(json::from_python(value)?.map(Form::Json));
    }
    tensor(value)
}

/// The form of an exact ndarray of a dtype that tensors have; `None` for all others.
fn tensor(value: &Bound<'_, PyAny>) -> PyResult<Option<Form>> {
    let Some(ndarray) = numpy::ndarray_of(value)? else { return Ok(None) };
    // NumPy has one object for each of these dtypes, unless it carries metadata or is of another byte order.
    let Some(dtype) = numpy::dtype_of(ndarray)? else { return Ok(None) };
    // An array without dimensions cannot be exported this way.
    let Ok(exported) = PyUntypedBuffer::get(ndarray) else { return Ok(None) };
    let shape = exported.shape().to_vec();
    of_tensor(dtype, shape, exported).map(Some)
}

/// The form of an exported array, its elements where they are.
fn of_tensor(dtype: Dtype, shape: Vec<usize>, exported: PyUntypedBuffer) -> PyResult<Form> {
    let column_major = !exported.is_c_contiguous();
    if column_major && !exported.is_fortran_contiguous() {
        return Ok(Form::Strided(memory::borrow_strided(exported, dtype)?));
    }
    Ok(Form::Tensor { dtype, shape, column_major, data: memory::borrow_exported(exported) })
}

/// A part of a table of blocks.
fn part_of(part: &Bound<'_, PyAny>) -> PyResult<TablePart> {
    let Ok(exported) = PyUntypedBuffer::get(part) else {
        let table = memory::import_table(part)?;
        return Ok(TablePart::Column(table.iter().map(|batch| batch.column(0).clone()).collect()));
    };
    let dtype = match exported.item_size() {
        1 => Dtype::INT8,
        2 => Dtype::INT16,
        4 => Dtype::INT32,
        8 => Dtype::INT64,
        width => return Err(PyBufferError::new_err(format!("no column has values of {width} bytes"))),
    };
    Ok(TablePart::Block(memory::borrow_strided(exported, dtype)?))
}

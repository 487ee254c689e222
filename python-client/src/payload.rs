//! From Python values to what is learned.

use crate::{errors::OrRaise, exit::detached, json, memory, numpy};
use plasmon::{Dtype, Json, Learn, Pickle, Table, Tensor};
use pyo3::{
    buffer::PyUntypedBuffer,
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
    Tensor { dtype: Dtype, shape: Vec<usize>, column_major: bool, data: arrow_buffer::Buffer },
    Table(Table),
    Pickle(Pickle),
}

#[pymethods]
impl Payload {
    /// A plain value: an exact `None`, `bool`, `int` of 64 bits, `float`, `str` without surrogates, `bytes`, and `dict`
    /// and `list` as far as JSON says them exactly, C-contiguous ndarrays of the dtypes of tensors. `None` for all others.
    #[staticmethod]
    fn plain(value: &Bound<'_, PyAny>) -> PyResult<Option<Payload>> {
        Ok(plain(value)?.map(Payload))
    }

    /// A dense array with elements of `dtype` (its number in docs/layout.md): `data` has its elements, C-contiguous, or in column-major order if `column_major`.
    #[staticmethod]
    fn tensor(
        dtype: u8,
        shape: Vec<usize>,
        column_major: bool,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<Payload> {
        let dtype = Dtype::from_number(dtype);
        let data = memory::borrow(data)?;
        Ok(Payload(Form::Tensor { dtype, shape, column_major, data }))
    }

    /// A table: any object with `__arrow_c_stream__`.
    #[staticmethod]
    fn table(source: &Bound<'_, PyAny>) -> PyResult<Payload> {
        Ok(Payload(Form::Table(memory::import_table(source)?)))
    }

    /// A pickle of protocol 5 with its out-of-band buffers.
    #[staticmethod]
    fn pickle(stream: &Bound<'_, PyAny>, buffers: Vec<Bound<'_, PyAny>>) -> PyResult<Payload> {
        let py = stream.py();
        let buffers = buffers.iter().map(memory::borrow).collect::<PyResult<Vec<_>>>()?;
        Ok(Payload(Form::Pickle(Pickle::new(memory::borrow(stream)?, buffers).or_raise_learning(py)?)))
    }

    /// BLAKE3 of the object that learning the value would write: 32 bytes.
    fn digest<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let digest = detached(py, || {
            let mut digest = Digest(blake3::Hasher::new());
            self.0.with_learn(|value| value.prepare()?.write_to(&mut digest))??;
            Ok::<_, plasmon::CodecError>(digest.0.finalize())
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
    pub(crate) fn with_learn<R>(&self, give: impl FnOnce(&dyn Learn) -> R) -> Result<R, plasmon::CodecError> {
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
            Form::Table(value) => give(value),
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

/// The form of an exact, C-contiguous ndarray of a dtype that tensors have; `None` for all others.
fn tensor(value: &Bound<'_, PyAny>) -> PyResult<Option<Form>> {
    let Some(ndarray) = numpy::ndarray_of(value)? else { return Ok(None) };
    // NumPy has one object for each of these dtypes, unless it carries metadata or is of another byte order.
    let Some(dtype) = numpy::dtype_of(ndarray)? else { return Ok(None) };
    // An array without dimensions cannot be exported this way.
    let Ok(exported) = PyUntypedBuffer::get(ndarray) else { return Ok(None) };
    if !exported.is_c_contiguous() {
        return Ok(None);
    }
    let shape = exported.shape().to_vec();
    Ok(Some(Form::Tensor { dtype, shape, column_major: false, data: memory::borrow_exported(exported) }))
}

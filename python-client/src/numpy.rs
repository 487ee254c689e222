//! What is needed of NumPy, looked up once.

use crate::errors::raise;
use plasmon::Dtype;
use pyo3::{
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyCapsule, PyType},
};

/// NumPy's class of arrays.
pub(crate) fn ndarray(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static NDARRAY: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    NDARRAY.import(py, "numpy", "ndarray")
}

/// NumPy's C interface: a table of pointers to its functions, in a capsule.
pub(crate) fn c_interface(py: Python<'_>) -> PyResult<Bound<'_, PyCapsule>> {
    let module = py.import("numpy._core._multiarray_umath");
    let module = module.or_else(|_| py.import("numpy.core._multiarray_umath"))?; // before NumPy 2
    Ok(module.getattr("_ARRAY_API")?.cast_into()?)
}

/// `value`, if it is an exact ndarray.
pub(crate) fn ndarray_of<'a, 'py>(value: &'a Bound<'py, PyAny>) -> PyResult<Option<&'a Bound<'py, PyAny>>> {
    static IS_LOADED: PyOnceLock<()> = PyOnceLock::new();
    let py = value.py();
    if IS_LOADED.get(py).is_none() {
        // Nothing is an ndarray before somebody has imported NumPy, and that is not for us to do.
        let modules = py.import("sys")?.getattr(intern!(py, "modules"))?;
        if !modules.contains(intern!(py, "numpy"))? {
            return Ok(None);
        }
        IS_LOADED.get_or_init(py, || ());
    }
    Ok(value.is_exact_instance(ndarray(py)?).then_some(value))
}

/// NumPy's dtype for `dtype`.
pub(crate) fn dtype<'py>(py: Python<'py>, dtype: Dtype) -> PyResult<Bound<'py, PyAny>> {
    let index = usize::from(dtype.number()).checked_sub(1);
    let dtypes = dtypes(py)?;
    match index.and_then(|index| dtypes.get(index)) {
        Some(found) => Ok(found.bind(py).clone()),
        None => Err(raise(py, "WrongKind", &format!("elements of type {dtype} need a newer version"), None)),
    }
}

/// The type of an array's elements, if NumPy's dtype of it is the very one that [`dtype`] gives.
pub(crate) fn dtype_of(array: &Bound<'_, PyAny>) -> PyResult<Option<Dtype>> {
    let py = array.py();
    let found = array.getattr(intern!(py, "dtype"))?;
    let index = dtypes(py)?.iter().position(|known| known.is(&found));
    Ok(index.and_then(|index| u8::try_from(index + 1).ok()).map(Dtype::from_number))
}

/// In the order of their numbers, from 1 on.
fn dtypes(py: Python<'_>) -> PyResult<&Vec<Py<PyAny>>> {
    static DTYPES: PyOnceLock<Vec<Py<PyAny>>> = PyOnceLock::new();
    DTYPES.get_or_try_init(py, || {
        let make = py.import("numpy")?.getattr("dtype")?;
        let codes = ["?", "<i1", "<i2", "<i4", "<i8", "<u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8"];
        codes.iter().map(|code| Ok(make.call1((code,))?.unbind())).collect()
    })
}

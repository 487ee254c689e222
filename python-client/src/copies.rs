//! Copies of values that are made for Python, and how many bytes were copied.

use crate::exit::detached;
use pyo3::{
    prelude::*,
    types::{PyByteArray, PyBytes},
};
use std::sync::atomic::{AtomicU64, Ordering};

/// Copies of more bytes than this are made without the interpreter lock.
const COPY_DETACHED_BYTES: usize = 64 << 10;

/// Bytes of values that recalls of this process have copied out of shared memory.
static COPIED_BYTES: AtomicU64 = AtomicU64::new(0);

/// Counts bytes that a recall copies.
#[pyfunction]
pub(crate) fn count_copied(nbytes: u64) {
    COPIED_BYTES.fetch_add(nbytes, Ordering::Relaxed);
}

/// Return how many bytes of values recalls of this process have copied out of shared memory so far.
///
/// Recalling an array, a table or a frame counts nothing: its columns stay where they are. ``str``, ``bytes``, what
/// consists of them, and the parts of a pickle that are not buffers are copied.
#[pyfunction]
pub(crate) fn copied_bytes() -> u64 {
    COPIED_BYTES.load(Ordering::Relaxed)
}

/// A copy of `bytes`, which counts.
pub(crate) fn copied<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    count_copied(bytes.len() as u64);
    if bytes.len() <= COPY_DETACHED_BYTES {
        return Ok(PyBytes::new(py, bytes));
    }
    PyBytes::new_with(py, bytes.len(), |new| {
        detached(py, || new.copy_from_slice(bytes)); // nobody else has seen `new` yet
        Ok(())
    })
}

/// A copy of `bytes` that can be written to.
pub(crate) fn copied_writable<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyByteArray>> {
    PyByteArray::new_with(py, bytes.len(), |new| {
        match bytes.len() <= COPY_DETACHED_BYTES {
            true => new.copy_from_slice(bytes),
            false => detached(py, || new.copy_from_slice(bytes)), // nobody else has seen `new` yet
        }
        Ok(())
    })
}

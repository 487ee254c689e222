//! From objects to Python values.

use crate::{
    copies::{copied, count_copied},
    errors::{OrRaise, raise},
    json,
    memory::{self, Buffer, Recall, TableStream},
    numpy,
    stack::with_room,
};
use plasmon::{Blob, Json, Kind, Pickle, TensorView, Text};
use plasmon_protocol::name::Namespace;
use pyo3::{
    IntoPyObjectExt,
    prelude::*,
    types::{PyBytes, PyMemoryView, PyString},
};
use std::{sync::Arc, time::UNIX_EPOCH};

/// Whose pickles may be unpickled: they run code.
#[derive(Debug)]
pub(crate) struct Unpickling {
    /// Besides this process's own user and root.
    pub(crate) uids: Vec<u32>,
}

impl Unpickling {
    fn check(&self, py: Python<'_>, object: &plasmon::Object) -> PyResult<()> {
        let writer = object.writer_uid();
        if object.is_of_own_user() || self.uids.contains(&writer) {
            return Ok(());
        }
        let text = format!(
            "uid {writer} learned this value, which has to be unpickled, and that runs whatever code its writer chose; \
             connect with trust=[{writer}] if you trust that user, or recall it with as_=\"buffer\""
        );
        Err(raise(py, "UntrustedPickle", &text, None))
    }
}

/// A recalled object that has not been made a Python value yet. It stays where it is, unchanged, until it and
/// everything made from it are dropped.
#[pyclass(frozen, module = "plasmon._plasmon")]
pub(crate) struct Object {
    pub(crate) object: plasmon::Object,
    pub(crate) name: Py<PyAny>,
    pub(crate) namespace: Namespace,
    pub(crate) unpickling: Arc<Unpickling>,
}

#[pymethods]
impl Object {
    /// The name of its kind, as docs/layout.md has it.
    #[getter]
    fn kind(&self) -> String {
        self.object.kind().to_string()
    }

    /// The name that it was recalled by.
    #[getter]
    fn name(&self, py: Python<'_>) -> Py<PyAny> {
        self.name.clone_ref(py)
    }

    /// The namespace of that name.
    #[getter]
    fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Version of the binding that it was recalled by.
    #[getter]
    fn version(&self) -> u64 {
        self.object.version()
    }

    /// When the binding was made, in nanoseconds since 1970: it tells one store's versions from another's, which was
    /// started at the same place later.
    #[getter]
    fn created_ns(&self) -> u128 {
        self.object.created().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
    }

    /// Its length in the store, in bytes.
    #[getter]
    fn nbytes(&self) -> u64 {
        self.object.len_bytes()
    }

    /// Whether a table's columns are known to be what the description in its metadata says.
    #[getter]
    fn described(&self) -> bool {
        self.object.is_described()
    }

    /// Uid of the process that learned it, as the store sees it.
    #[getter]
    fn writer_uid(&self) -> u32 {
        self.object.writer_uid()
    }

    /// The value, its large parts in place; `None` where it takes Python to make a value of it.
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        to_python(py, &self.object)
    }

    /// A pickle's stream and its out-of-band buffers: in place until somebody wants to write to them; or copies.
    ///
    /// # Errors
    /// `UntrustedPickle` if another user wrote it.
    fn pickle(&self, py: Python<'_>, copies: bool) -> PyResult<(Buffer, Vec<Buffer>)> {
        self.unpickling.check(py, &self.object)?;
        let pickle = with_room(|| self.object.to::<Pickle>()).or_raise(py)?;
        if !copies {
            count_copied(pickle.stream().len() as u64);
        }
        let len_bytes = pickle.buffers().iter().map(arrow_buffer::Buffer::len).sum();
        let recall = Recall::new(self.object.clone(), len_bytes, copies);
        let buffers = pickle.buffers().iter().map(|bytes| Buffer::of_pickle(bytes.clone(), &recall));
        Ok((Buffer::new(pickle.stream().clone()), buffers.collect()))
    }

    /// The object as a table, whatever its kind: an object with `__arrow_c_stream__`.
    fn table(&self, py: Python<'_>) -> PyResult<TableStream> {
        Ok(TableStream::new(with_room(|| self.object.table()).or_raise(py)?))
    }

    /// The object as an Arrow IPC file, in place, if its writer is trusted to have written a valid one; `None` if not.
    fn trusted_file(&self) -> Option<Buffer> {
        self.object.trusted_file().cloned().map(Buffer::new)
    }

    /// Of a table that was learned as blocks, if its writer is trusted to have written what the description says: the
    /// description, and the bytes that the places in it refer to. `None` of all others.
    fn blocks(&self, py: Python<'_>) -> PyResult<Option<(Buffer, Buffer)>> {
        let found = with_room(|| self.object.blocks()).or_raise(py)?;
        Ok(found.map(|(description, body)| (Buffer::new(description), Buffer::new(body))))
    }

    /// The value's bytes in place: the only data buffer of bytes, texts, JSON and tensors, a pickle's stream.
    fn buffer(&self, py: Python<'_>) -> PyResult<Option<Buffer>> {
        let object = &self.object;
        let bytes = match object.kind() {
            Kind::BYTES => object.to::<Blob>().map(Blob::into_buffer),
            Kind::TEXT => object.to::<Text>().map(Text::into_buffer),
            Kind::TENSOR => object.to::<TensorView>().map(TensorView::into_buffer),
            Kind::PICKLE => object.to::<Pickle>().map(|pickle| pickle.stream().clone()),
            _ => return Ok(None),
        };
        Ok(Some(Buffer::new(bytes.or_raise(py)?)))
    }

    /// The object as an Arrow IPC file, copied.
    fn ipc<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let file = with_room(|| self.object.as_ipc()).or_raise(py)?;
        copied(py, &file)
    }
}

/// The value that `object` holds; `None` for tables, pickles, and kinds this version does not know.
///
/// No Python code runs here: were the interpreter to end this thread meanwhile, Rust could not unwind.
pub(crate) fn to_python<'py>(
    py: Python<'py>,
    object: &plasmon::Object,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let value = match object.kind() {
        Kind::NULL => {
            object.to::<()>().or_raise(py)?;
            py.None().into_bound_py_any(py)
        }
        Kind::BOOL => object.to::<bool>().or_raise(py)?.into_bound_py_any(py),
        Kind::INT64 => object.to::<i64>().or_raise(py)?.into_bound_py_any(py),
        Kind::FLOAT64 => object.to::<f64>().or_raise(py)?.into_bound_py_any(py),
        Kind::TEXT => {
            let text = object.to::<Text>().or_raise(py)?;
            count_copied(text.len() as u64);
            Ok(PyString::new(py, &text).into_any())
        }
        Kind::JSON => {
            let text = object.to::<Json>().or_raise(py)?;
            count_copied(text.len() as u64);
            let value = json::to_python(py, &text);
            Ok(value.map_err(plasmon::CodecError::Json).or_raise(py)?.into_bound(py))
        }
        Kind::BYTES => {
            let bytes = object.to::<Blob>().or_raise(py)?;
            if object.is_made_in_place() {
                Ok(PyMemoryView::from(Bound::new(py, Buffer::new(bytes.into_buffer()))?.as_any())?.into_any())
            } else {
                Ok(copied(py, &bytes)?.into_any())
            }
        }
        Kind::TENSOR => to_ndarray(py, &object.to::<TensorView>().or_raise(py)?),
        _ => return Ok(None),
    };
    value.map(Some)
}

/// An ndarray over the tensor, in place and read-only.
fn to_ndarray<'py>(py: Python<'py>, tensor: &TensorView) -> PyResult<Bound<'py, PyAny>> {
    let dtype = numpy::dtype(py, tensor.dtype())?;
    let buffer = Bound::new(py, Buffer::new(tensor.clone().into_buffer()))?; // the clone is of a pointer
    memory::ndarray_over(buffer, dtype, tensor.shape(), tensor.is_column_major()).map_err(|error| {
        let text = format!(
            "NumPy has no array of shape {:?}: {}; as_=\"arrow\" reads it",
            tensor.shape(),
            error.value(py)
        );
        raise(py, "WrongKind", &text, None)
    })
}

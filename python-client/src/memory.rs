//! The buffer protocol, both ways, Arrow's C interface, both ways, ndarrays over recalled bytes, and objects in ndarrays:
//! the only unsafe code of the package.

use crate::{
    copies::{copied_writable, count_copied},
    exit::detached_here,
    numpy,
    stack::{in_thread_with_room, with_room},
};
use arrow_array::{
    RecordBatchReader,
    ffi_stream::{FFI_ArrowArrayStream, RecordBatchStreamReader},
};
use arrow_schema::ArrowError;
use plasmon::{Dtype, Strided, Table};
use pyo3::{
    buffer::PyUntypedBuffer,
    exceptions::{PyBufferError, PyValueError},
    ffi,
    prelude::*,
    sync::PyOnceLock,
    types::{PyByteArray, PyByteArrayMethods, PyCapsule},
};
use std::{
    ffi::CStr,
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Name of the capsules that hold a C stream, as Arrow's PyCapsule interface has it.
const STREAM_NAME: &CStr = c"arrow_array_stream";

/// Recalled bytes in the store's shared memory, which they hold in place and unchanged: read-only, by the buffer
/// protocol.
///
/// Out-of-band buffers of a pickle can be written to besides, by who asks for a writable buffer, as NumPy does: then the
/// bytes are this buffer's own, and nobody else sees what is written.
#[pyclass(frozen, module = "plasmon._plasmon")]
pub(crate) struct Buffer {
    bytes: arrow_buffer::Buffer,
    /// The recall that it comes from, if it is a part of a pickle.
    recall: Option<Arc<Recall>>,
    /// Bytes of this buffer's own, made for the first who asks for them.
    own: PyOnceLock<Own>,
}

/// One recall of a pickle.
pub(crate) struct Recall {
    object: plasmon::Object,
    parts: Parts,
    /// All of the object once more, for parts that are to be written to; `None` if it cannot be had.
    mapping: OnceLock<Option<Arc<Mapping>>>,
}

/// What the parts of a recalled pickle are made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parts {
    /// The store's bytes; who wants to write gets pages that are copied when they are first written.
    Mapped,
    /// The store's bytes; who wants to write gets a copy, which is quicker had than a mapping.
    Short,
    /// Copies, from the start.
    Copies,
}

/// Bytes that nobody else has.
enum Own {
    /// This range of the recalled object, whose pages are copied when they are first written.
    Mapped(Arc<Mapping>, Range<usize>),
    /// A copy. Nobody but the buffer ever sees the object, so that it never changes its length.
    Copied(Py<PyByteArray>),
}

/// A copy-on-write mapping, one of those that are counted.
struct Mapping(plasmon::CopyOnWrite);

/// Parts that together have no more bytes than this are copied for writing. A mapping takes three system calls and a page
/// fault for each 64 KiB that are read: that is what a copy of so many bytes takes.
const SHORT_BYTES: usize = 64 << 10;

/// Most mappings at a time: half of what Linux allows a process (65,530) is left to the rest of the program.
const MAPPINGS_MAX: usize = 32_000;

/// How many there are.
static MAPPINGS: AtomicUsize = AtomicUsize::new(0);

impl Mapping {
    /// Maps `object`; `None` if there are too many mappings, or if the kernel refuses another.
    fn new(object: &plasmon::Object) -> Option<Arc<Mapping>> {
        let taken = MAPPINGS.fetch_add(1, Ordering::Relaxed);
        let made = match taken < MAPPINGS_MAX {
            true => object.copy_on_write().ok().flatten(),
            false => None,
        };
        if made.is_none() {
            MAPPINGS.fetch_sub(1, Ordering::Relaxed);
        }
        made.map(|made| Arc::new(Mapping(made)))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        MAPPINGS.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Recall {
    /// A recall of `object`, whose parts have `len_bytes` bytes together. `copies`: nothing of them shall be the store's.
    pub(crate) fn new(object: plasmon::Object, len_bytes: usize, copies: bool) -> Arc<Recall> {
        let parts = match copies {
            true => Parts::Copies,
            false if len_bytes <= SHORT_BYTES => Parts::Short,
            false => Parts::Mapped,
        };
        Arc::new(Recall { object, parts, mapping: OnceLock::new() })
    }

    /// `bytes`, a part of the object, for writing: in place if it is worth a mapping and one can be had, else copied.
    fn own(&self, py: Python<'_>, bytes: &arrow_buffer::Buffer) -> PyResult<Own> {
        let range = self.object.range_of(bytes).filter(|_| self.parts == Parts::Mapped);
        if let Some(range) = range
            && let Some(mapping) = self.mapping.get_or_init(|| Mapping::new(&self.object))
        {
            return Ok(Own::Mapped(Arc::clone(mapping), range));
        }
        if self.parts != Parts::Copies {
            count_copied(bytes.len() as u64); // else all of the object was counted
        }
        Ok(Own::Copied(copied_writable(py, bytes)?.unbind()))
    }
}

impl Own {
    fn as_ptr(&self, py: Python<'_>) -> *mut u8 {
        match self {
            Own::Mapped(mapping, range) => mapping.0.as_ptr().as_ptr().wrapping_add(range.start),
            Own::Copied(bytes) => bytes.bind(py).data(),
        }
    }
}

impl Buffer {
    pub(crate) fn new(bytes: arrow_buffer::Buffer) -> Buffer {
        Buffer { bytes, recall: None, own: PyOnceLock::new() }
    }

    pub(crate) fn of_pickle(bytes: arrow_buffer::Buffer, recall: &Arc<Recall>) -> Buffer {
        Buffer { bytes, recall: Some(Arc::clone(recall)), own: PyOnceLock::new() }
    }

    /// The first byte, for one who only reads or, if `writes`, for one who writes too. `None` if nobody may write.
    fn pointer(&self, py: Python<'_>, writes: bool) -> PyResult<Option<*mut u8>> {
        let own = match &self.recall {
            Some(recall) if writes || recall.parts == Parts::Copies => {
                Some(self.own.get_or_try_init(py, || recall.own(py, &self.bytes))?)
            }
            _ => self.own.get(py),
        };
        Ok(match own {
            Some(own) => Some(own.as_ptr(py)),
            None => (!writes).then(|| self.bytes.as_ptr().cast_mut()),
        })
    }
}

#[pymethods]
impl Buffer {
    fn __len__(&self) -> usize {
        self.bytes.len()
    }

    fn __repr__(&self) -> String {
        format!("<plasmon buffer of {} bytes>", self.bytes.len())
    }

    /// Whether it is a part of a copy, which nobody else has, and can always be written to.
    #[getter]
    fn is_copy(&self) -> bool {
        self.recall.as_ref().is_some_and(|recall| recall.parts == Parts::Copies)
    }

    /// Fills in `view` with all of the bytes.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: std::ffi::c_int,
    ) -> PyResult<()> {
        let (py, buffer) = (slf.py(), slf.get());
        let len = ffi::Py_ssize_t::try_from(buffer.bytes.len())
            .map_err(|_| PyBufferError::new_err("too long for a buffer"))?;
        let writes = flags & ffi::PyBUF_WRITABLE != 0;
        let Some(start) = buffer.pointer(py, writes)? else {
            return Err(PyBufferError::new_err("a recalled value is read-only; copy=True makes a copy"));
        };
        let read_only = std::ffi::c_int::from(!writes);
        // SAFETY: `PyBuffer_FillInfo` asks for a `Py_buffer` to fill in, which the interpreter hands to
        // `__getbuffer__`, for an object to own the view, and for `len` bytes at the pointer for as long as that object
        // lives, readable and, for a view that wants to write, writable. It takes a reference to `slf`, which is frozen
        // and owns an Arrow buffer of that length and, for one who writes, as many bytes of its own, at a place that
        // stays (`Own`): those of a mapping, or of a `bytearray` that nobody can change the length of. A view that does
        // not want to write is marked read-only.
        let filled =
            unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start.cast(), len, read_only, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(py)) }
    }
}

/// An ndarray over all of `buffer`, read-only: `dtype`'s elements in C order, or in column-major order.
///
/// By NumPy's C interface, which takes half the time of calling its class. Crate `numpy` has the same numbers,
/// but brings `ndarray` and others along, and takes 12 ns more of a recall's 480.
///
/// # Errors
/// What NumPy raises.
pub(crate) fn ndarray_over<'py>(
    buffer: Bound<'py, Buffer>,
    dtype: Bound<'py, PyAny>,
    shape: &[usize],
    column_major: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let py = buffer.py();
    let functions = numpy_functions(py)?;
    let mut dims = [0; DIMENSIONS_MAX];
    let Some(dims) = dims.get_mut(..shape.len()) else {
        return Err(PyValueError::new_err(format!("an ndarray has at most {DIMENSIONS_MAX} dimensions")));
    };
    for (dim, len) in dims.iter_mut().zip(shape) {
        *dim = isize::try_from(*len)?;
    }
    let class = numpy::ndarray(py)?.as_type_ptr();
    let order = if column_major { ARRAY_F_CONTIGUOUS } else { ARRAY_C_CONTIGUOUS };
    let data = buffer.get().bytes.as_ptr().cast_mut().cast();
    let (ndim, strides, like) =
        (std::ffi::c_int::try_from(shape.len())?, std::ptr::null(), std::ptr::null_mut());
    let flags = order | ARRAY_ALIGNED; // not writeable
    // SAFETY: `PyArray_NewFromDescr` asks for a subtype of ndarray, for a dtype, whose reference it takes over, for
    // `ndim` lengths, and for data that holds that many elements, aligned, for as long as the array lives: the tensor
    // that the buffer comes from was checked to have them (`TensorView`), and the array holds the buffer from the next
    // call on. Without the flag that says so, NumPy writes nothing through the pointer.
    let array = unsafe {
        (functions.new_from_descr)(class, dtype.into_ptr(), ndim, dims.as_ptr(), strides, data, flags, like)
    };
    // SAFETY: it returned a reference that is ours, or null with an exception set.
    let array = unsafe { Bound::from_owned_ptr_or_err(py, array) }?;
    // SAFETY: `PyArray_SetBaseObject` asks for an ndarray that has no base, and takes over the reference to the base.
    let based = unsafe { (functions.set_base_object)(array.as_ptr(), buffer.into_ptr()) };
    if based == 0 { Ok(array) } else { Err(PyErr::fetch(py)) }
}

/// As NumPy 2 has it; NumPy 1 has fewer, and says so itself.
const DIMENSIONS_MAX: usize = 64;

const ARRAY_C_CONTIGUOUS: std::ffi::c_int = 0x1;
const ARRAY_F_CONTIGUOUS: std::ffi::c_int = 0x2;
const ARRAY_ALIGNED: std::ffi::c_int = 0x100;

/// What of NumPy's C interface is used.
struct NumpyFunctions {
    new_from_descr: NewFromDescr,
    set_base_object: SetBaseObject,
}

type NewFromDescr = unsafe extern "C" fn(
    class: *mut ffi::PyTypeObject,
    dtype: *mut ffi::PyObject,
    ndim: std::ffi::c_int,
    dims: *const isize,
    strides: *const isize,
    data: *mut std::ffi::c_void,
    flags: std::ffi::c_int,
    like: *mut ffi::PyObject,
) -> *mut ffi::PyObject;
type SetBaseObject =
    unsafe extern "C" fn(array: *mut ffi::PyObject, base: *mut ffi::PyObject) -> std::ffi::c_int;

/// Where `PyArray_NewFromDescr` and `PyArray_SetBaseObject` stand in NumPy's table, in every version since 1.7.
const NEW_FROM_DESCR: usize = 94;
const SET_BASE_OBJECT: usize = 282;

fn numpy_functions(py: Python<'_>) -> PyResult<&NumpyFunctions> {
    static FUNCTIONS: PyOnceLock<NumpyFunctions> = PyOnceLock::new();
    FUNCTIONS.get_or_try_init(py, || {
        let capsule = numpy::c_interface(py)?;
        let table = capsule.pointer_checked(None)?.cast::<[*const std::ffi::c_void; SET_BASE_OBJECT + 1]>();
        // SAFETY: NumPy promises of `_ARRAY_API` that it points to a table, which lives as long as the process, of at
        // least so many entries, each of which stays what it is.
        let table = unsafe { table.as_ref() };
        let (new_from_descr, set_base_object) = (table[NEW_FROM_DESCR], table[SET_BASE_OBJECT]);
        Ok(NumpyFunctions {
            // SAFETY: this entry is a pointer to a function of this type, as NumPy documents it.
            new_from_descr: unsafe {
                std::mem::transmute::<*const std::ffi::c_void, NewFromDescr>(new_from_descr)
            },
            // SAFETY: this entry is a pointer to a function of this type, as NumPy documents it.
            set_base_object: unsafe {
                std::mem::transmute::<*const std::ffi::c_void, SetBaseObject>(set_base_object)
            },
        })
    })
}

/// The bytes of a Python object as an Arrow buffer, which keeps the object's buffer exported for as long as it lives.
/// Copies nothing.
///
/// # Errors
/// `BufferError` if the object is no contiguous buffer.
pub(crate) fn borrow(object: &Bound<'_, PyAny>) -> PyResult<arrow_buffer::Buffer> {
    let exported = PyUntypedBuffer::get(object)?;
    if !exported.is_c_contiguous() && !exported.is_fortran_contiguous() {
        return Err(PyBufferError::new_err("the buffer is not contiguous"));
    }
    Ok(borrow_exported(exported))
}

/// As [`borrow`], of a contiguous buffer that is exported already.
pub(crate) fn borrow_exported(exported: PyUntypedBuffer) -> arrow_buffer::Buffer {
    debug_assert!(exported.is_c_contiguous() || exported.is_fortran_contiguous());
    let (start, len) = (exported.buf_ptr().cast::<u8>(), exported.len_bytes());
    borrow_span(exported, start, len)
}

/// An exported array with whatever strides, where it is.
///
/// # Errors
/// `BufferError` if its elements are not at regular distances.
pub(crate) fn borrow_strided(exported: PyUntypedBuffer, dtype: Dtype) -> PyResult<Strided> {
    if exported.suboffsets().is_some() {
        return Err(PyBufferError::new_err("the buffer has its elements behind pointers"));
    }
    let (shape, strides) = (exported.shape().to_vec(), exported.strides().to_vec());
    let first = exported.buf_ptr().cast::<u8>();
    let (mut below, mut above) = (0, 0);
    if exported.len_bytes() > 0 {
        above = exported.item_size();
        for (len, stride) in shape.iter().zip(&strides) {
            let farthest = stride.unsigned_abs() * (len - 1);
            *(if *stride < 0 { &mut below } else { &mut above }) += farthest;
        }
    }
    let bytes = borrow_span(exported, first.wrapping_sub(below), below + above);
    Strided::new(dtype, &shape, &strides, below, bytes)
        .map_err(|error| PyBufferError::new_err(error.to_string()))
}

/// The bytes from the first to the last that an export's elements have.
fn borrow_span(exported: PyUntypedBuffer, start: *mut u8, len: usize) -> arrow_buffer::Buffer {
    let Some(start) = std::ptr::NonNull::new(start).filter(|_| len > 0) else {
        return arrow_buffer::Buffer::default();
    };
    let owner = Arc::new(Exported(exported));
    // SAFETY: `Buffer::from_custom_allocation` asks that `start` be valid for reads of `len` bytes until `owner` is
    // dropped: the buffer protocol promises that of an export's elements until it is released, and `owner` releases it
    // when it is dropped. Trusted, not proven: that what lies between elements which are apart can be read as well, as it
    // can where they are a part of one allocation (NumPy makes no others); and that nobody writes to the bytes meanwhile.
    // Another Python thread can, as it can under any C function that reads a buffer without the interpreter lock; what
    // is then stored is some mixture of old and new bytes of the caller's own value.
    unsafe { arrow_buffer::Buffer::from_custom_allocation(start, len, owner) }
}

/// An export that lasts until it is dropped, from whichever thread: its own drop attaches to the interpreter.
struct Exported(#[expect(dead_code, reason = "it is held")] PyUntypedBuffer);

// Nothing in an export can be left half done by a panic: it is only held.
impl std::panic::RefUnwindSafe for Exported {}

/// The objects in a one-dimensional ndarray of objects, at whatever distance. NumPy has `None` where there is a null pointer.
///
/// # Errors
/// `BufferError` if it is none.
pub(crate) fn objects<'py>(
    array: &Bound<'py, PyAny>,
) -> PyResult<impl ExactSizeIterator<Item = Bound<'py, PyAny>> + use<'py>> {
    let py = array.py();
    let exported = exported_objects(array)?;
    let (len, stride) = (exported.shape()[0], exported.strides()[0]);
    let element = move |at: usize| {
        let first = exported.buf_ptr().cast::<u8>();
        let place = first.wrapping_offset(stride.wrapping_mul(at.cast_signed())).cast::<*mut ffi::PyObject>();
        // SAFETY: `ptr::read_unaligned` asks for a pointer that is valid for reads of an initialised value: the buffer
        // protocol promises that of this place of an export (`at` is less than its length), which lasts as long as this
        // closure, and what it holds is a pointer by the export's format.
        let object = unsafe { place.read_unaligned() };
        // SAFETY: `Bound::from_borrowed_ptr_or_opt` asks for null or an object: NumPy's arrays own a reference to each
        // of theirs. Trusted, not proven: that nobody puts another one into the array just now. With an interpreter lock,
        // which is held, none can; without, it is as in NumPy's own functions, which take no lock either.
        let object = unsafe { Bound::from_borrowed_ptr_or_opt(py, object) };
        object.unwrap_or_else(|| py.None().into_bound(py))
    };
    Ok((0..len).map(element))
}

/// Places of a one-dimensional ndarray of objects that is being filled, from the first on.
pub(crate) struct ObjectPlaces<'py> {
    py: Python<'py>,
    exported: PyUntypedBuffer,
    filled: usize,
}

impl<'py> ObjectPlaces<'py> {
    /// Those of `array`, an ndarray that can be written to and has its objects one behind the other, `len` of them.
    ///
    /// # Errors
    /// `BufferError` if it is none; ValueError if it has another length.
    pub(crate) fn of(array: &Bound<'py, PyAny>, len: usize) -> PyResult<ObjectPlaces<'py>> {
        let exported = exported_objects(array)?;
        if exported.readonly() || !exported.is_c_contiguous() {
            return Err(PyBufferError::new_err("the array cannot be filled"));
        }
        if exported.shape() != [len] {
            return Err(PyValueError::new_err(format!(
                "{len} objects go into an array of {:?}",
                exported.shape()
            )));
        }
        Ok(ObjectPlaces { py: array.py(), exported, filled: 0 })
    }

    /// Puts `objects` into the next places, as far as there are any.
    pub(crate) fn put(&mut self, objects: impl Iterator<Item = Bound<'py, PyAny>>) {
        let start = self.exported.buf_ptr().cast::<*mut ffi::PyObject>();
        for (at, object) in (self.filled..self.exported.shape()[0]).zip(objects) {
            let place = start.wrapping_add(at);
            // SAFETY: `ptr::replace` asks for a pointer that is aligned and valid for reads and writes of an initialised
            // value: the buffer protocol promises that of a writable export's places, `exported_objects` saw that they
            // are aligned pointers, and `at` is less than their number. Trusted, not proven, and only in interpreters
            // without a lock: that nobody else has the array, which was made for this.
            let before = unsafe { place.replace(object.into_ptr()) };
            // SAFETY: `Bound::from_owned_ptr_or_opt` asks for null or an object with a reference to take over: the array
            // owned one to what was there, as NumPy's do, and owns the new one's instead.
            drop(unsafe { Bound::from_owned_ptr_or_opt(self.py, before) });
            self.filled = at + 1;
        }
    }
}

/// The export of a one-dimensional ndarray of objects.
fn exported_objects(array: &Bound<'_, PyAny>) -> PyResult<PyUntypedBuffer> {
    let none = || PyBufferError::new_err("this is no one-dimensional ndarray of objects");
    // Others may export pointers to objects that they hold no reference to.
    let array = numpy::ndarray_of(array)?.ok_or_else(none)?;
    let exported = PyUntypedBuffer::get(array)?;
    let is_aligned = exported.buf_ptr().cast::<*mut ffi::PyObject>().is_aligned();
    let is_of_objects = exported.format() == c"O" && exported.item_size() == size_of::<*mut ffi::PyObject>();
    if !is_of_objects || !is_aligned || exported.dimensions() != 1 || exported.suboffsets().is_some() {
        return Err(none());
    }
    Ok(exported)
}

/// All batches of an object with `__arrow_c_stream__`.
///
/// # Errors
/// What the object raises; ValueError if its stream is broken.
pub(crate) fn import_table(source: &Bound<'_, PyAny>) -> PyResult<Table> {
    let capsule = source.call_method0(pyo3::intern!(source.py(), "__arrow_c_stream__"))?;
    let capsule = capsule.cast::<PyCapsule>()?;
    let stream = capsule.pointer_checked(Some(STREAM_NAME))?.cast::<FFI_ArrowArrayStream>();
    // SAFETY: `FFI_ArrowArrayStream::from_raw` asks for a valid C stream, which it moves out, leaving a released one
    // behind. A capsule of this name holds a pointer to one, as Arrow's PyCapsule interface promises; a released one is
    // refused. Trusted, not proven: that the producer, code of this process, keeps that promise.
    let stream = unsafe { FFI_ArrowArrayStream::from_raw(stream.as_ptr()) };
    // The producer may take as long as it likes, and may need the interpreter itself.
    let read = || {
        let reader = RecordBatchStreamReader::try_new(stream)?;
        Ok((reader.schema(), reader.collect::<Result<Vec<_>, _>>()?))
    };
    let (schema, batches) = detached_here(source.py(), || in_thread_with_room(read)).map_err(broken)?;
    with_room(|| Table::new(schema, batches)).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn broken(error: ArrowError) -> PyErr {
    PyValueError::new_err(format!("its Arrow stream cannot be read: {error}"))
}

/// A table for other libraries, by Arrow's PyCapsule interface. Copies nothing.
#[pyclass(frozen, module = "plasmon._plasmon")]
pub(crate) struct TableStream(Table);

impl TableStream {
    pub(crate) fn new(table: Table) -> TableStream {
        TableStream(table)
    }
}

#[pymethods]
impl TableStream {
    /// The table as a capsule that holds a C stream. No other schema can be asked for.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        drop(requested_schema); // a request, which the interface lets producers leave unmet
        let batches: Vec<_> = self.0.iter().cloned().map(Ok).collect(); // they outlive the table
        let reader = arrow_array::RecordBatchIterator::new(batches, self.0.schema().clone());
        let stream = FFI_ArrowArrayStream::new(Box::new(reader));
        PyCapsule::new_with_value(py, stream, STREAM_NAME)
    }
}

/// Writable bytes for the buffer protocol: what [`expose_writable`] needs of their owner.
pub(crate) trait WritableBytes: pyo3::PyClass {
    /// The bytes, while they may be written.
    fn bytes(slf: &Bound<'_, Self>) -> PyResult<(*mut u8, usize)>;
}

/// Fills in `view` with the bytes that `slf` is writing.
///
/// # Safety
/// `view` is a `Py_buffer` to fill in; the owner keeps the bytes mapped until it is dropped.
pub(crate) unsafe fn expose_writable<T: WritableBytes>(
    slf: &Bound<'_, T>,
    view: *mut ffi::Py_buffer,
    flags: std::ffi::c_int,
) -> PyResult<()> {
    let (start, len) = T::bytes(slf)?;
    let len = ffi::Py_ssize_t::try_from(len).map_err(|_| PyBufferError::new_err("too long for a buffer"))?;
    // SAFETY: as in `Buffer::__getbuffer__`; that the bytes stay mapped while views live is the caller's promise.
    let filled = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start.cast(), len, 0, flags) };
    if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
}

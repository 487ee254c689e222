//! Objects that are written in place, in shared memory that no other process sees yet.

use crate::{
    errors::{OrRaise, raise},
    exit::detached,
    memory::{self, WritableBytes},
    options::Options,
};
use pyo3::{exceptions::PyBufferError, ffi, prelude::*};
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

/// Bytes being written in place. The buffer protocol has them, writable until they are sealed.
#[pyclass(frozen, module = "plasmon._plasmon")]
pub(crate) struct Writable {
    state: Mutex<State>,
    /// Whether the buffer protocol has given out a view. Some keep the pointer after they have released the view
    /// (NumPy does, beside a reference to this), so that nobody can say when the last one is gone.
    exposed: AtomicBool,
}

enum State {
    Open(Box<plasmon::Writable>),
    /// Sealed after it was exposed: views go on reading the bytes where they are.
    Sealed(#[expect(dead_code, reason = "it is held for the views")] plasmon::SealedView),
    /// Given up after it was exposed: the memory is kept for the views.
    Abandoned(#[expect(dead_code, reason = "it is held for the views")] Box<plasmon::Writable>),
    Gone,
}

impl Writable {
    pub(crate) fn new(writable: plasmon::Writable) -> Writable {
        Writable { state: Mutex::new(State::Open(Box::new(writable))), exposed: AtomicBool::new(false) }
    }

    fn take(&self) -> Option<Box<plasmon::Writable>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::Gone) {
            State::Open(writable) => Some(writable),
            other => {
                *state = other;
                None
            }
        }
    }

    fn put(&self, new: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = new;
    }
}

#[pymethods]
impl Writable {
    /// Makes the bytes immutable and binds the name to them. Returns the version. Views of them stay, read-only.
    #[pyo3(signature = (options=None))]
    fn seal(&self, py: Python<'_>, options: Option<&Bound<'_, Options>>) -> PyResult<u64> {
        let options = Options::or_none(options);
        let Some(writable) = self.take() else { return Err(closed(py)) };
        // From here on no view can be made: the state is gone.
        if !self.exposed.load(Ordering::Acquire) {
            return detached(py, || writable.seal_with(&options)).or_raise_learning(py);
        }
        let (version, view) = detached(py, || writable.seal_in_place(&options));
        if let Some(view) = view {
            self.put(State::Sealed(view));
        }
        version.or_raise_learning(py)
    }

    /// Gives the memory back, at once or when nothing refers to this any more; nothing is learned.
    pub(crate) fn abort(&self, py: Python<'_>) {
        if let Some(writable) = self.take() {
            if !self.exposed.load(Ordering::Acquire) {
                detached(py, || drop(writable));
            } else {
                self.put(State::Abandoned(writable));
            }
        }
    }

    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: std::ffi::c_int,
    ) -> PyResult<()> {
        // SAFETY: the interpreter hands over a `Py_buffer` to fill in. The bytes stay mapped while this object lives:
        // `seal` and `abort`, the only ways for them to go, keep the mapping of what was exposed.
        unsafe { memory::expose_writable(&slf, view, flags) }
    }
}

impl WritableBytes for Writable {
    fn bytes(slf: &Bound<'_, Self>) -> PyResult<(*mut u8, usize)> {
        match &mut *slf.get().state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Open(writable) => {
                // Under the lock: `seal` and `abort`, which take the bytes away under it, see this.
                slf.get().exposed.store(true, Ordering::Release);
                Ok((writable.as_mut_ptr(), writable.len()))
            }
            _ => Err(PyBufferError::new_err("this buffer is sealed or given up already")),
        }
    }
}

/// A table being written batch by batch.
#[pyclass(frozen, module = "plasmon._plasmon")]
pub(crate) struct TableWriter(Mutex<Option<plasmon::TableWriter>>);

impl TableWriter {
    pub(crate) fn new(writer: plasmon::TableWriter) -> TableWriter {
        TableWriter(Mutex::new(Some(writer)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<plasmon::TableWriter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl TableWriter {
    /// Appends all batches of an object with `__arrow_c_stream__`. Returns the rows written so far.
    fn write(&self, py: Python<'_>, source: &Bound<'_, PyAny>) -> PyResult<u64> {
        let table = memory::import_table(source)?;
        let written = detached(py, || {
            let mut writer = self.lock();
            let writer = writer.as_mut()?;
            let written = table.iter().try_for_each(|batch| writer.write(batch));
            Some(written.map(|()| writer.rows()))
        });
        match written {
            Some(written) => written.or_raise_learning(py),
            None => Err(closed(py)),
        }
    }

    /// Makes the table immutable and binds the name to it. Returns the version.
    #[pyo3(signature = (options=None))]
    fn seal(&self, py: Python<'_>, options: Option<&Bound<'_, Options>>) -> PyResult<u64> {
        let options = Options::or_none(options);
        let finished = detached(py, || self.lock().take().map(|writer| writer.finish_with(&options)));
        match finished {
            Some(version) => version.or_raise_learning(py),
            None => Err(closed(py)),
        }
    }

    /// Gives the memory back; nothing is learned.
    fn abort(&self, py: Python<'_>) {
        detached(py, || drop(self.lock().take()));
    }
}

fn closed(py: Python<'_>) -> PyErr {
    raise(py, "WriterClosed", "it is sealed or given up already: nothing more can be written to it", None)
}

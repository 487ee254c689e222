//! Waits that end when they are told to: by what is waited for, by a signal, by another thread.
//!
//! A wait is one request. The store answers it when there is something to say; until then this thread sleeps in one
//! system call that looks at that answer, and at who may cancel the wait, and sends nothing more.

use crate::{
    errors::{OrRaise, raise},
    exit::detached,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};
use plasmon::{Brain, Error};
use pyo3::{
    exceptions::{PyOSError, PyValueError},
    intern,
    prelude::*,
};
use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How much longer than a wait its answer may take.
const GRACE: Duration = Duration::from_secs(5);

/// How often the main thread asks whether a signal has come: one that comes while this thread sleeps wakes it at once,
/// but the kernel may give one to another thread, or just before this one sleeps.
const LOOK_FOR_SIGNALS_AFTER: Duration = Duration::from_millis(250);

/// Lets other threads end waits.
#[pyclass(frozen, module = "plasmon")]
pub(crate) struct Cancel {
    event: EventFd,
}

#[pymethods]
impl Cancel {
    #[new]
    fn new() -> PyResult<Cancel> {
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        Ok(Cancel { event: event.map_err(|errno| PyOSError::new_err(errno.desc()))? })
    }

    /// Ends the waits that were given this, and those that will be.
    fn cancel(&self) {
        let _ = self.event.write(1); // fails only where it has been written to 2^64 times
    }

    /// A descriptor that is readable once it was cancelled.
    fn fileno(&self) -> RawFd {
        self.event.as_fd().as_raw_fd()
    }

    /// Whether it was cancelled.
    #[getter]
    fn is_cancelled(&self) -> bool {
        let mut fds = [PollFd::new(self.event.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

/// A wait that goes on by itself; its descriptor is readable when it is over. Dropped, it waits no longer.
#[pyclass(frozen, module = "plasmon._plasmon")]
pub(crate) struct PendingWait {
    fd: RawFd,
    pending: Mutex<Option<plasmon::PendingWait>>,
}

impl PendingWait {
    pub(crate) fn new(pending: plasmon::PendingWait) -> PendingWait {
        PendingWait { fd: pending.as_fd().as_raw_fd(), pending: Mutex::new(Some(pending)) }
    }
}

#[pymethods]
impl PendingWait {
    fn fileno(&self) -> RawFd {
        self.fd
    }

    /// Returns the version that the name has when it is over, 0 if it is not bound.
    fn finish(&self, py: Python<'_>) -> PyResult<u64> {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(pending) = pending else { return Err(PyValueError::new_err("this wait is over")) };
        Ok(detached(py, || pending.finish()).or_raise(py)?.unwrap_or(0))
    }

    /// Waits no longer, whoever still refers to this.
    fn give_up(&self, py: Python<'_>) {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
        detached(py, || drop(pending));
    }
}

/// Begins a wait and waits for its end, without the interpreter lock.
///
/// `begin` is given how long the wait may take; `finish` is called when there is an answer to be read.
pub(crate) fn patiently<P: AsFd + Send + Sync, T: Send>(
    py: Python<'_>,
    brain: &Brain,
    timeout: Duration,
    cancels: &[PyRef<'_, Cancel>],
    begin: impl Fn(Duration) -> plasmon::Result<P> + Sync,
    finish: impl Fn(P) -> plasmon::Result<T> + Sync,
) -> PyResult<T> {
    let began = Instant::now();
    let cancels: Vec<&EventFd> = cancels.iter().map(|cancel| &cancel.event).collect();
    let handles_signals = is_main_thread(py)?;
    let mut is_last = false;
    loop {
        let left = timeout.saturating_sub(began.elapsed());
        let pending = detached(py, || begin(left)).or_raise(py)?;
        wait_for(py, pending.as_fd(), &cancels, left + GRACE, handles_signals, || Error::NoAnswer {
            socket: brain.path().to_owned(),
            waited: began.elapsed(),
        })?;
        match detached(py, || finish(pending)) {
            // It ended, and another one may be there: it is asked once.
            Err(Error::StoreUnavailable { .. }) if !is_last => is_last = true,
            finished => return finished.or_raise(py),
        }
    }
}

fn wait_for(
    py: Python<'_>,
    answer: BorrowedFd<'_>,
    cancels: &[&EventFd],
    patience: Duration,
    handles_signals: bool,
    no_answer: impl Fn() -> Error,
) -> PyResult<()> {
    let began = Instant::now();
    loop {
        py.check_signals()?;
        let left = patience.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Err(no_answer()).or_raise(py);
        }
        let nap = if handles_signals { left.min(LOOK_FOR_SIGNALS_AFTER) } else { left };
        let nap = PollTimeout::try_from(nap + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let woken = detached(py, || {
            let mut fds = vec![PollFd::new(answer, PollFlags::POLLIN)];
            fds.extend(cancels.iter().map(|cancel| PollFd::new(cancel.as_fd(), PollFlags::POLLIN)));
            poll(&mut fds, nap).map(|_| fds.iter().position(|fd| fd.any().unwrap_or(true)))
        });
        match woken {
            Ok(Some(0)) => return Ok(()),
            Ok(Some(_)) => {
                let text = "the wait was cancelled; what was waited for may still come";
                return Err(raise(py, "WaitCancelled", text, None));
            }
            Ok(None) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(PyOSError::new_err(errno.desc())),
        }
    }
}

/// Whether this is the thread in which Python handles signals.
fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import(intern!(py, "threading"))?;
    let here = threading.call_method0(intern!(py, "get_ident"))?;
    let main = threading.call_method0(intern!(py, "main_thread"))?.getattr(intern!(py, "ident"))?;
    here.eq(main)
}

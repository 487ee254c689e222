//! From `plasmon::Error` to the exceptions of `plasmon.exceptions`.

use plasmon::{CodecError, Error, Reader};
use pyo3::{prelude::*, sync::PyOnceLock, types::PyDict};
use std::error::Error as _;

/// What a call does that may fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    /// A value that cannot be encoded cannot be stored.
    Learning,
    /// An object that cannot be decoded is damaged.
    Other,
}

/// The exception for `error`, with its figures as attributes.
pub(crate) fn exception(py: Python<'_>, error: &Error, doing: Doing) -> PyErr {
    let (class, attributes) = match describe(py, error, doing) {
        Ok(described) => described,
        Err(broken) => return broken,
    };
    raise(py, class, &text_of(error), Some(&attributes))
}

/// An exception of `plasmon.exceptions` by its name.
pub(crate) fn raise(
    py: Python<'_>,
    class: &str,
    text: &str,
    attributes: Option<&Bound<'_, PyDict>>,
) -> PyErr {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let make = || {
        let module = MODULE.get_or_try_init(py, || py.import("plasmon.exceptions").map(Bound::unbind))?;
        let exception = module.bind(py).getattr(class)?.call1((text,))?;
        for (name, value) in attributes.into_iter().flatten() {
            exception.setattr(name.cast::<pyo3::types::PyString>()?, value)?;
        }
        Ok(PyErr::from_value(exception))
    };
    make().unwrap_or_else(|broken| broken)
}

fn describe<'py>(
    py: Python<'py>,
    error: &Error,
    doing: Doing,
) -> PyResult<(&'static str, Bound<'py, PyDict>)> {
    let attributes = PyDict::new(py);
    let set_name = |namespace: &str, name: &str| {
        attributes.set_item("namespace", namespace)?;
        attributes.set_item("name", name)
    };
    let class = match error {
        Error::NameNotFound { namespace, name } => {
            set_name(namespace, name)?;
            "NameNotFound"
        }
        Error::NotBound { namespace, name } => {
            set_name(namespace, name)?;
            "NotBound"
        }
        Error::NamespaceNotFound { namespace } => {
            attributes.set_item("namespace", namespace)?;
            "NamespaceNotFound"
        }
        Error::NamespaceInUse { namespace, names } => {
            attributes.set_item("namespace", namespace)?;
            attributes.set_item("names", *names)?;
            "NamespaceInUse"
        }
        Error::DefaultNamespace => "DefaultNamespaceError",
        Error::BadName(why) if why.is_of_namespace() => "BadNamespace",
        Error::BadName(_) => "BadName",
        Error::StoreFull(full) => {
            attributes.set_item("requested_bytes", full.requested_bytes)?;
            attributes.set_item("capacity_bytes", full.capacity_bytes)?;
            attributes.set_item("used_bytes", full.used_bytes)?;
            attributes.set_item("free_bytes", full.free_bytes)?;
            attributes.set_item("largest_free_bytes", full.largest_free_bytes)?;
            attributes.set_item("limbo_bytes", full.limbo_bytes)?;
            attributes.set_item("cached_bytes", full.cached_bytes)?;
            attributes.set_item("past_bytes", full.past_bytes)?;
            "StoreFull"
        }
        Error::IndexFull { .. } => "IndexFull",
        Error::ConditionFailed { namespace, name, found, .. } => {
            set_name(namespace, name)?;
            attributes.set_item("found_version", *found)?;
            "ConditionFailed"
        }
        Error::ConditionsFailed { failed, .. } => {
            if let Some(first) = failed.first() {
                set_name(&first.namespace, &first.name)?;
                attributes.set_item("found_version", first.found)?;
            }
            "ConditionFailed"
        }
        Error::VersionNotKept { namespace, name, version } => {
            set_name(namespace, name)?;
            attributes.set_item("version", *version)?;
            "VersionGone"
        }
        Error::SnapshotExists { label } => {
            attributes.set_item("label", label)?;
            "SnapshotExists"
        }
        Error::SnapshotNotFound { label } => {
            attributes.set_item("label", label)?;
            "SnapshotNotFound"
        }
        Error::ViewEnded { .. } => "ViewEnded",
        Error::CacheHasNoPast { namespace } => {
            attributes.set_item("namespace", namespace)?;
            "CacheHasNoPast"
        }
        Error::TooManyKept { .. } => "TooManyKept",
        Error::WaitTimeout { namespace, name, .. } => {
            set_name(namespace, name)?;
            "WaitTimeout"
        }
        Error::StoreUnavailable { .. } | Error::NotAStore { .. } => "StoreUnavailable",
        Error::OutcomeUnknown { .. } => "OutcomeUnknown",
        Error::NoAnswer { .. } => "NoAnswer",
        Error::UntrustedStore { .. } | Error::NotAdmitted { .. } => "NotAdmitted",
        Error::VersionMismatch { .. } => "VersionMismatch",
        Error::TooMany { .. } | Error::TooLarge { .. } => "LimitExceeded",
        Error::WrongKind { .. } => "WrongKind",
        Error::Codec(_) if doing == Doing::Learning => "NotStorable",
        Error::Codec(CodecError::WrongKind { .. }) => "WrongKind",
        Error::Codec(_) => "MalformedObject",
        Error::MetadataNotAnObject { .. } => "MetadataTypeError",
        Error::NamedTwice { .. } | Error::IdTaken { .. } => "BadName",
        _ => "PlasmonError",
    };
    Ok((class, attributes))
}

/// The message, and in brackets the causes that it does not repeat.
fn text_of(error: &Error) -> String {
    let mut text = error.text_for(Reader::Python);
    let causes: Vec<String> =
        std::iter::successors(error.source(), |&cause| cause.source()).map(ToString::to_string).collect();
    if !causes.is_empty() {
        text += &format!(" ({})", causes.join(": "));
    }
    text
}

/// Turns results of the Rust client into results of Python.
pub(crate) trait OrRaise<T> {
    /// Raises what went wrong.
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
    /// As [`or_raise`](Self::or_raise), for what stores a value.
    fn or_raise_learning(self, py: Python<'_>) -> PyResult<T>;
}

impl<T, E: Into<Error>> OrRaise<T> for Result<T, E> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| exception(py, &error.into(), Doing::Other))
    }

    fn or_raise_learning(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| exception(py, &error.into(), Doing::Learning))
    }
}

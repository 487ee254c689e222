//! What goes with a value when it is learned.

use crate::json;
use plasmon::LearnOptions;
use pyo3::{exceptions::PyValueError, prelude::*};
use std::time::Duration;

/// What `Brain.learn` takes besides a name and a value.
#[pyclass(frozen, module = "plasmon._plasmon")]
pub(crate) struct Options(LearnOptions);

#[pymethods]
impl Options {
    /// `metadata` is the text of a JSON object, `ttl` a number of seconds.
    #[new]
    #[pyo3(signature = (
        description=None, metadata=None, if_absent=false, if_version=None, ttl=None, sliding=false,
        ephemeral=false, cache=false, keep_ttl=false, if_held=None
    ))]
    #[expect(
        clippy::too_many_arguments,
        clippy::fn_params_excessive_bools,
        reason = "they have names in Python"
    )]
    fn new(
        description: Option<&str>,
        metadata: Option<&str>,
        if_absent: bool,
        if_version: Option<u64>,
        ttl: Option<f64>,
        sliding: bool,
        ephemeral: bool,
        cache: bool,
        keep_ttl: bool,
        if_held: Option<(String, u64)>,
    ) -> PyResult<Options> {
        let mut options = LearnOptions::new();
        if ephemeral && keep_ttl {
            return Err(PyValueError::new_err("ephemeral and keep_ttl exclude each other"));
        }
        if ephemeral {
            options = options.ephemeral();
        }
        if cache {
            options = options.in_cache();
        }
        if keep_ttl {
            options = options.keep_ttl();
        }
        if let Some((name, version)) = if_held {
            options = options.if_held(name, version);
        }
        if let Some(description) = description {
            options = options.description(description);
        }
        if let Some(metadata) = metadata {
            let object = json::value_of(metadata);
            options = options.metadata(object.map_err(|error| PyValueError::new_err(error.to_string()))?);
        }
        if if_absent && if_version.is_some() {
            return Err(PyValueError::new_err("if_absent and if_version exclude each other"));
        }
        if if_absent {
            options = options.if_absent();
        }
        if let Some(version) = if_version {
            options = options.if_version(version);
        }
        if let Some(ttl) = time_to_live(ttl, sliding)? {
            options = if sliding { options.sliding_ttl(ttl) } else { options.ttl(ttl) };
        }
        Ok(Options(options))
    }
}

impl Options {
    /// What was given, or nothing at all.
    pub(crate) fn or_none(given: Option<&Bound<'_, Options>>) -> LearnOptions {
        given.map_or_else(LearnOptions::new, |options| options.get().0.clone())
    }
}

/// A time to live in seconds. Infinity, and what is longer than anybody waits, has no end.
pub(crate) fn time_to_live(ttl: Option<f64>, sliding: bool) -> PyResult<Option<Duration>> {
    let refused = |what: String| Err(PyValueError::new_err(what));
    match ttl {
        None if sliding => refused("sliding is said of a ttl, and none is given".to_owned()),
        None => Ok(None),
        Some(ttl) if ttl > 0.0 => match Duration::try_from_secs_f64(ttl) {
            Ok(Duration::ZERO) => {
                refused(format!("a ttl is a nanosecond or more, and this is {ttl} seconds"))
            }
            Ok(ttl) => Ok(Some(ttl)),
            Err(_) => Ok(Some(Duration::MAX)),
        },
        Some(ttl) => refused(format!("a ttl is more than 0 seconds, and this is {ttl}")),
    }
}

//! The command line, inside the interpreter that starts it.

use pyo3::prelude::*;
use std::ffi::OsString;

/// Runs the command line, and returns its exit code. `argv` begins with the program's name.
#[pyfunction]
pub(crate) fn run_plasmon(py: Python<'_>, argv: Vec<OsString>) -> u8 {
    py.detach(|| plasmon::cli::run(argv))
}

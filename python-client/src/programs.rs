//! The daemon and the command line, inside the interpreter that starts them.

use pyo3::prelude::*;
use std::ffi::OsString;

/// Runs the daemon until it is stopped, and returns its exit code. `argv` begins with the program's name.
///
/// It takes over SIGINT and SIGTERM, so it must be called while the process has one thread.
#[pyfunction]
pub(crate) fn run_store(py: Python<'_>, argv: Vec<OsString>) -> u8 {
    py.detach(|| plasmon_store::run(argv))
}

/// Runs the command line, and returns its exit code. `argv` begins with the program's name.
#[pyfunction]
pub(crate) fn run_plasmon(py: Python<'_>, argv: Vec<OsString>) -> u8 {
    py.detach(|| plasmon::cli::run(argv))
}

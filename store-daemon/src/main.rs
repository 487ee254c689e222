//! `plasmon-store`: see `plasmon-store --help`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    plasmon_store::main()
}

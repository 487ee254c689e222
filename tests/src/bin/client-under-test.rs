//! A client process that tests steer and kill: `client-under-test COMMAND SOCKET [ARGUMENT ...]`.

use plasmon_tests::worker;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match worker::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("client-under-test: {error}");
            ExitCode::FAILURE
        }
    }
}

//! What client processes do in tests, by command.

use crate::stress;
use std::path::Path;

/// Runs one command: `COMMAND SOCKET [ARGUMENT ...]`.
///
/// # Errors
/// What went wrong.
pub fn run(arguments: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let [command, socket, rest @ ..] = arguments else { return Err("COMMAND SOCKET [ARGUMENT ...]".into()) };
    let socket = Path::new(socket);
    match (command.as_str(), rest) {
        ("stress-write", [rounds]) => stress::write(socket, rounds.parse()?),
        _ => return Err(format!("unknown command {arguments:?}").into()),
    }
    Ok(())
}

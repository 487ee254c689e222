//! Behaviour seen from outside: a real daemon, real client processes, real sockets.

mod hostile;
mod startup;

/// The daemon.
const STORE: &str = env!("CARGO_BIN_EXE_store-under-test");

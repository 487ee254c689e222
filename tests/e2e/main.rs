//! Behaviour seen from outside: a real daemon, real client processes, real sockets.

mod bulk;
mod cli;
mod conformance;
mod copies;
mod ephemeral;
mod eviction;
mod expiry;
mod faults;
mod fork;
mod hostile;
mod machine;
mod memory;
mod other_users;
mod past;
mod sharing;
mod startup;
mod stress;
mod survival;
mod transactions;
mod turns;
mod units;

/// The daemon.
const STORE: &str = env!("CARGO_BIN_EXE_store-under-test");

/// A client process.
const CLIENT: &str = env!("CARGO_BIN_EXE_client-under-test");

/// The command line.
const PLASMON: &str = env!("CARGO_BIN_EXE_plasmon-under-test");

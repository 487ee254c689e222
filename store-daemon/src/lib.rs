//! The daemon of Plasmon: owns the arena, the catalog and the shared index, and serves clients over a Unix socket.
//!
//! One event loop (`server`) is the only thread that touches catalog, objects, space and sessions. Helpers do what takes time:
//! `populate` claims memory from the machine, `reclaim` scans pin tables, `copy` copies bytes and frees what is large.
//! All allocator and catalog state lies in private memory; nothing that a client writes into shared memory can corrupt
//! it.
//!
//! Where to look: `startup` for how it begins, `server` for the loop, `request/` for what each request does,
//! `commit` for the only mutation there is, `space` for who has which bytes, `allocator` for where they go.
//!
//! # Example
//!
//! ```
//! use plasmon_store::{Host, Options, prepare};
//!
//! let directory = tempfile::tempdir()?;
//! let ready = prepare(Options::new(1 << 20, directory.path().join("store.sock")), Host::Thread)?;
//! let stopper = ready.stopper();
//! let store = std::thread::spawn(move || ready.serve());
//! stopper.stop();
//! store.join().unwrap()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod allocator;
mod budget;
mod catalog;
mod clock;
mod commit;
mod connection;
mod copy;
mod effect;
mod evict;
mod fair_queue;
mod fast_hash;
mod limits;
mod log;
mod memory;
mod objects;
mod options;
mod owner;
mod parked;
mod populate;
mod recalls;
mod reclaim;
mod refusals;
mod request;
mod server;
mod session;
mod signals;
mod size;
mod slice;
mod socket;
mod space;
mod standing;
mod startup;
mod state;
pub mod testing;

pub use limits::LimitError;
pub use options::{Arena, Options, Reserve};
pub use server::ServeError;
pub use size::{Human, Size, SizeError};
pub use socket::SocketError;
pub use standing::{Cache, CacheError};
pub use startup::{Host, Ready, StartError, Stopper, prepare, probe};

use clap::{Parser, ValueEnum};
use std::{
    ffi::OsString,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
};

/// What `plasmon-store` does: reads its command line, serves until stopped, and says in its exit code how it went.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::from(run(std::env::args_os()))
}

/// As [`main`], with a command line from elsewhere, of which the first word is the program's name. Returns the exit
/// code; wrong usage, `--help` and `--version` end the process.
///
/// It takes over the signals of the process, so it must be called while the process has no other thread.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    if let Err(error) = limits::raise_stack() {
        print_error(&format!("plasmon-store: {error}"));
        return 1;
    }
    let options = Options::parse_from(arguments);
    if options.probe {
        print_out(&probe(&options));
        return 0;
    }
    let log = log::Log::default();
    tracing_subscriber::fmt()
        .with_max_level(options.log)
        .with_target(false)
        .with_ansi(false)
        .with_writer(log.clone())
        // What cannot be logged, because the disk is full or nobody reads, is no reason to end.
        .log_internal_errors(false)
        .init();
    let (arena, reserve) = (options.arena, options.reserve);
    if options.tidy {
        return match startup::tidy(&options) {
            Ok(()) => 0,
            Err(error) => {
                print_error(&format!("plasmon-store: {error}"));
                StartError::from(error).exit_code()
            }
        };
    }
    let tell_ready = options.tell_ready;
    let ready = match prepare(options, Host::Process) {
        Ok(ready) => ready,
        Err(error) => {
            print_error(&format!("plasmon-store: {error}"));
            return error.exit_code();
        }
    };
    let capacity_bytes = ready.capacity_bytes();
    // Signals are taken over by now, and nobody has been served.
    if let Err(error) = log.start_thread() {
        print_error(&format!("plasmon-store: cannot start the thread that writes the log: {error}"));
        return 1;
    }
    tracing::info!(
        "ready: {} ({capacity_bytes} bytes) at {}, arena {}, reserve {}, pid {}",
        Human(capacity_bytes),
        ready.socket().display(),
        spelled(arena),
        spelled(reserve),
        std::process::id(),
    );
    notify_systemd();
    if tell_ready && let Err(error) = say_ready(ready.socket()) {
        // Whoever started this store has gone, or has given up: nobody would ever stop it.
        print_error(&format!("plasmon-store: nobody reads that the store is ready, so it ends: {error}"));
        return 1;
    }
    // A panic of the loop is told as one of a helper is. Nothing of the store is used afterwards.
    let end = catch_unwind(AssertUnwindSafe(|| ready.serve())).unwrap_or(Err(ServeError::Loop));
    let code = match end {
        Ok(()) => 0,
        Err(error) => {
            log.line(&format_args!("plasmon-store: {error}"));
            6
        }
    };
    log.finish();
    code
}

/// Tells the service manager, where there is one, that the store is ready.
fn notify_systemd() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// A value of an option, as it is written there.
fn spelled(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Tells whoever started the store, and reads its standard output, that it is ready.
fn say_ready(socket: &Path) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(b"ready ")?;
    out.write_all(socket.as_os_str().as_encoded_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

#[expect(clippy::print_stdout, reason = "what --probe prints is for standard output")]
fn print_out(text: &str) {
    print!("{text}");
}

fn print_error(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}"); // nobody may listen
}

//! The command line `plasmon`: [`main`] is all of it, so that the tests can build the same program.
//!
//! A file for each group of commands (`put`, `get`, `list`, `change`, `past`, `operator`, `doctor`, `completions`); `show` is how values look,
//! `trouble` what the exit codes mean, `format` which file formats there are, of which `csv`, `npy` and `packing`
//! (compressed files) have a module each.

mod change;
mod completions;
mod csv;
mod doctor;
mod format;
mod get;
mod list;
mod npy;
mod operator;
mod packing;
mod past;
mod preview;
mod progress;
mod prometheus;
mod put;
mod show;
mod target;
mod trouble;
mod value;

use crate::{Brain, Error, Near};
use clap::{Args, Parser, Subcommand};
use clap_complete::ArgValueCompleter;
use show::Out;
use std::{
    ffi::OsString,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};
use trouble::Trouble;

const EXAMPLES: &str = "\
Examples:
  plasmon put flights flights.csv                a table, from CSV, Parquet, Arrow IPC, JSON lines
  plasmon put logo logo.png --format raw         bytes as they are
  plasmon put big big.csv.gz                     unpacked on the way: .gz and .zst
  plasmon get flights                            its first rows
  plasmon get flights -o flights.parquet
  plasmon ls fl                                  names that begin with fl
  plasmon wait result --timeout 60 && plasmon get result
  plasmon put rate rate.json --ttl 10m           forgets it by itself
  plasmon declare results --cache --ttl 1h       names that may go when room is short
  plasmon snapshot create before-the-run         a moment, for plasmon ls --at, get --at, snapshot restore
  plasmon stats; plasmon pins                    how full the store is, and who holds what
  plasmon doctor                                 what this machine offers, and what to change

Without --socket the store is looked for at $PLASMON_SOCKET if that is set, else at
plasmon/store.sock in $XDG_RUNTIME_DIR and in /run/user/UID, and at /tmp/plasmon-UID/store.sock.

Exit codes:
  0  done
  1  something failed that has no code of its own
  2  wrong usage
  3  no such name, namespace, version or snapshot
  4  no store answers
  5  the store is full
  6  the time is up
  7  a condition did not hold (--if-absent, --if-version), or a snapshot has this label already";

/// Puts data into a Plasmon store, gets it out, and shows what the store holds.
#[derive(Debug, Parser)]
#[command(name = "plasmon", version, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Store")]
struct Common {
    /// Socket of the store
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// Talk to a store of this user too, by uid or by name (repeatable)
    #[arg(long = "trust-uid", global = true, value_name = "USER", env = "PLASMON_TRUST_UID", value_delimiter = ',',
        value_parser = plasmon_shm::uid_of)]
    trust_uids: Vec<u32>,

    /// Namespace of the names
    #[arg(long, global = true, value_name = "NS", default_value = plasmon_protocol::name::Namespace::DEFAULT)]
    #[arg(add = ArgValueCompleter::new(completions::namespaces))]
    namespace: String,

    /// Answer with one JSON document
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bind a name to what a file holds
    Put(put::Put),
    /// Show what a name is bound to, or write it to a file
    Get(get::Get),
    /// List names
    Ls(list::Ls),
    /// Show everything about a name
    Stat(list::Stat),
    /// List namespaces
    Namespaces,
    /// Forget names
    Rm(change::Rm),
    /// Declare a namespace: whether it is a cache, how long its names live
    Declare(change::Declare),
    /// Remove a namespace with all its names
    Rmns(change::Rmns),
    /// Wait until a name is bound, and print its version
    Wait(change::Wait),
    /// List the versions of a name that are kept
    History(past::History),
    /// Keep moments of namespaces, look at them, and bring them back
    Snapshot(past::Snapshot),
    /// Show which process keeps which moment for itself
    Views(past::Views),
    /// Show the store's figures
    Stats(operator::StatsOptions),
    /// Show which process holds which object
    Pins,
    /// End a process that holds memory, and free what it held
    Kick(operator::Kick),
    /// Wait until a store answers
    Ping(operator::Ping),
    /// Check what this machine offers and whether a store answers
    Doctor,
    /// Print what makes a shell complete commands, options, and names of the store
    Completions(completions::Completions),
}

/// What `plasmon` does: reads its command line, does it, and says in its exit code how it went.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::from(run(std::env::args_os()))
}

/// As [`main`], with a command line from elsewhere, of which the first word is the program's name. Returns the exit
/// code; wrong usage, `--help` and `--version` end the process.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(code) = completions::answer(&arguments) {
        return code;
    }
    let Cli { common, command } = Cli::parse_from(arguments);
    let mut context = Context { common, out: Out::new() };
    let result = command.run(&mut context).and_then(|()| Ok(context.out.finish()?));
    match result {
        Ok(()) => 0,
        // Whoever read this has seen enough.
        Err(_) if context.out.is_broken() => 0,
        Err(trouble) => {
            // What was written before still counts.
            let _ = context.out.finish();
            let near = near(&context, &trouble).map(|near| format!("; {near}"));
            eprintln!("plasmon: {}{}", trouble.line(), near.unwrap_or_default());
            trouble.exit_code()
        }
    }
}

/// Names that are like one that is not bound, if there are any.
fn near(context: &Context, trouble: &Trouble) -> Option<Near> {
    let (namespace, name) = match trouble {
        Trouble::Store(
            Error::NameNotFound { namespace, name } | Error::WaitTimeout { namespace, name, .. },
        ) => (namespace, name),
        Trouble::NothingToForget { namespace, names, .. } => (namespace, names.first()?),
        _ => return None,
    };
    let near = context.brain().ok()?.in_namespace(namespace).ok()?.near(name).ok()?;
    (!near.is_empty()).then_some(near)
}

impl Command {
    fn run(&self, context: &mut Context) -> Result<(), Trouble> {
        match self {
            Command::Put(put) => put.run(context),
            Command::Get(get) => get.run(context),
            Command::Ls(ls) => ls.run(context),
            Command::Stat(stat) => stat.run(context),
            Command::Namespaces => list::namespaces(context),
            Command::Rm(rm) => rm.run(context),
            Command::Declare(declare) => declare.run(context),
            Command::Rmns(rmns) => rmns.run(context),
            Command::Wait(wait) => wait.run(context),
            Command::History(history) => history.run(context),
            Command::Snapshot(snapshot) => snapshot.run(context),
            Command::Views(views) => views.run(context),
            Command::Stats(options) => operator::stats(context, options),
            Command::Pins => operator::pins(context),
            Command::Kick(kick) => kick.run(context),
            Command::Ping(ping) => ping.run(context),
            Command::Doctor => doctor::run(context),
            Command::Completions(completions) => completions.run(context),
        }
    }
}

/// What a command works with.
struct Context {
    common: Common,
    out: Out,
}

impl Context {
    /// Connects. The namespace need not exist: only learning in it makes it.
    fn brain(&self) -> Result<Brain, Error> {
        self.connect(None)?.in_namespace(&self.common.namespace)
    }

    /// Connects; a store that accepts and then says nothing is given up after `patience`.
    fn connect(&self, patience: Option<Duration>) -> Result<Brain, Error> {
        let mut builder = Brain::builder();
        if let Some(socket) = &self.common.socket {
            builder = builder.path(socket);
        }
        if let Some(patience) = patience {
            builder = builder.timeout(patience);
        }
        for &uid in &self.common.trust_uids {
            builder = builder.trust_store_of(uid);
        }
        builder.connect()
    }
}

/// Reads how long to wait: as a lifetime, or none at all.
fn seconds(text: &str) -> Result<Duration, String> {
    plasmon_protocol::lifetime::length(text)
        .ok_or_else(|| "write a time, such as 30, 0.5, 90s, 10m or 1h30m".to_owned())
}

/// Reads how long something lives.
fn lifetime(text: &str) -> Result<Duration, String> {
    plasmon_protocol::lifetime::parse(text).map_err(|error| error.to_string())
}

/// What is left of `timeout` since `start`; `None` once it is over.
fn left_of(timeout: Duration, start: Instant) -> Option<Duration> {
    timeout.checked_sub(start.elapsed()).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn seconds_are_read_with_decimals_and_nonsense_is_refused() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["", "-1", "NaN", "inf", "1e400", "soon"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}

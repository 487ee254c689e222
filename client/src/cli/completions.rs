//! Completion in shells: of commands, of options, and of names and namespaces of the store.
//!
//! What `plasmon completions SHELL` prints has the shell call `plasmon` again for each TAB, with what was typed so far.

use super::{Cli, Context, trouble::Trouble};
use crate::Brain;
use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::{
    CompletionCandidate,
    env::{CompleteEnv, Shells},
};
use std::{
    ffi::{OsStr, OsString},
    io::Write as _,
    time::Duration,
};

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell. Put this into its startup file: source <(plasmon completions bash), or for fish: plasmon completions fish
    /// | source
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// The variable by which the shell says that it wants completions, and of which shell's kind.
const ASKS: &str = "PLASMON_COMPLETE";

/// How long a store may take to answer somebody who has pressed TAB.
const PATIENCE: Duration = Duration::from_secs(1);

/// Most names that are offered: a shell asks again after the next letter.
const NAMES_MAX: usize = 1_000;

impl Completions {
    /// Prints what makes the shell ask.
    pub(super) fn run(&self, context: &mut Context) -> Result<(), Trouble> {
        let name = match self.shell {
            Shell::Bash => "bash",
            Shell::Zsh => "zsh",
            Shell::Fish => "fish",
        };
        let shells = Shells::builtins();
        let shell = shells.completer(name).expect("each shell of ours is one of those that are built in");
        Ok(shell.write_registration(ASKS, "plasmon", "plasmon", "plasmon", &mut context.out)?)
    }
}

/// Answers a shell that asks for completions; `None` if this is no such question. The exit code otherwise.
pub(super) fn answer(arguments: &[OsString]) -> Option<u8> {
    let here = std::env::current_dir().ok();
    let asked = CompleteEnv::with_factory(Cli::command).var(ASKS);
    match asked.try_complete(arguments.iter().cloned(), here.as_deref()) {
        Ok(false) => None,
        // Rust flushes standard output when its own main returns, and nobody does when an interpreter runs this.
        Ok(true) => Some(u8::from(std::io::stdout().flush().is_err())),
        Err(_) => Some(1), // the person is still typing: this is no moment for messages
    }
}

/// Names of the store that begin with what was typed.
pub(super) fn names(typed: &OsStr) -> Vec<CompletionCandidate> {
    let found = || {
        let namespace = option("--namespace").unwrap_or_else(|| "default".into());
        let brain = brain()?.in_namespace(namespace.to_str()?).ok()?;
        brain.name_pages(typed.to_str()?).next()?.ok()
    };
    found().iter().flat_map(|page| page.iter()).take(NAMES_MAX).map(CompletionCandidate::new).collect()
}

/// Namespaces of the store that begin with what was typed.
pub(super) fn namespaces(typed: &OsStr) -> Vec<CompletionCandidate> {
    let found = || Some((typed.to_str()?, brain()?.first_namespaces().ok()?));
    let Some((typed, namespaces)) = found() else { return Vec::new() };
    let names = namespaces.iter().map(|info| info.namespace.as_str()).filter(|name| name.starts_with(typed));
    names.take(NAMES_MAX).map(CompletionCandidate::new).collect()
}

/// Labels of snapshots that begin with what was typed.
pub(super) fn labels(typed: &OsStr) -> Vec<CompletionCandidate> {
    let found = || Some((typed.to_str()?, brain()?.snapshots().ok()?));
    let Some((typed, snapshots)) = found() else { return Vec::new() };
    let labels = snapshots.iter().map(|it| it.label.as_str()).filter(|label| label.starts_with(typed));
    labels.take(NAMES_MAX).map(CompletionCandidate::new).collect()
}

fn brain() -> Option<Brain> {
    let mut builder = Brain::builder().timeout(PATIENCE);
    if let Some(socket) = option("--socket") {
        builder = builder.path(socket);
    }
    builder.connect().ok()
}

/// The value of an option on the line that is being typed: what completes one argument is not told of the others.
fn option(name: &str) -> Option<OsString> {
    option_in(std::env::args_os(), name)
}

fn option_in(mut line: impl Iterator<Item = OsString>, name: &str) -> Option<OsString> {
    while let Some(word) = line.next() {
        if word == name {
            return line.next();
        }
        if let Some(value) = word.to_str().and_then(|word| word.strip_prefix(name)?.strip_prefix('=')) {
            return Some(value.into());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_found_on_the_line_in_both_spellings() {
        let line = |words: &str| words.split(' ').map(OsString::from).collect::<Vec<_>>().into_iter();
        let found = |words| option_in(line(words), "--socket");
        assert_eq!(found("plasmon get --socket /a b"), Some("/a".into()));
        assert_eq!(found("plasmon --socket=/a get b"), Some("/a".into()));
        assert_eq!(found("plasmon get b --socket"), None);
        assert_eq!(found("plasmon get --socketed=/a"), None);
    }
}

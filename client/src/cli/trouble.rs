//! Why a command did not do what was asked, and the exit code that says so to scripts.

use crate::{Error, Reader};
use std::{
    error::Error as _,
    io,
    path::{Path, PathBuf},
};

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The store, or the library, refused.
    #[error(transparent)]
    Store(#[from] Error),
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// A file could not be opened, read or written.
    #[error("cannot {doing} {}", .path.display())]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    /// A file is not what it should be.
    #[error("cannot read {} as {format}; another --format may help", .path.display())]
    Unreadable { path: PathBuf, format: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    /// A value has no such form, or it could not be written.
    #[error("cannot write {name:?}, a value of kind {kind}, as {format}{advice}")]
    Unwritable {
        name: String,
        kind: crate::Kind,
        format: &'static str,
        advice: &'static str,
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Some of the names were not bound; the others are forgotten.
    #[error(
        "nothing is bound to {} in namespace {namespace:?}{}; --missing-ok ignores that",
        quoted(.names), others(*.forgotten)
    )]
    NothingToForget { namespace: String, names: Vec<String>, forgotten: usize },
    /// The person at the terminal said no.
    #[error("nothing was done")]
    Declined,
    /// Standard output could not be written.
    #[error("cannot write to standard output")]
    Out(#[from] io::Error),
}

impl Trouble {
    /// One line for standard error: what was asked, what was found, what to do, and in brackets the causes.
    pub(super) fn line(&self) -> String {
        let mut line = match self {
            Trouble::Store(error) => error.text_for(Reader::CommandLine),
            trouble => trouble.to_string(),
        };
        let causes: Vec<String> =
            std::iter::successors(self.source(), |&cause| cause.source()).map(ToString::to_string).collect();
        if !causes.is_empty() {
            line += &format!(" ({})", causes.join(": "));
        }
        line.lines().map(str::trim).collect::<Vec<_>>().join(" ")
    }

    /// The exit code; `plasmon --help` has the table.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Trouble::Usage(_) => 2,
            Trouble::NothingToForget { .. } => 3,
            Trouble::Store(error) => match error {
                Error::BadName(_) | Error::MetadataNotAnObject { .. } | Error::NoTimeToLive => 2,
                Error::NameNotFound { .. }
                | Error::NotBound { .. }
                | Error::SnapshotNotFound { .. }
                | Error::VersionNotKept { .. }
                | Error::NamespaceNotFound { .. } => 3,
                Error::StoreUnavailable { .. }
                | Error::NotAStore { .. }
                | Error::OutcomeUnknown { .. }
                | Error::NoAnswer { .. } => 4,
                Error::StoreFull(_) | Error::IndexFull { .. } => 5,
                Error::WaitTimeout { .. } => 6,
                Error::ConditionFailed { .. }
                | Error::ConditionsFailed { .. }
                | Error::SnapshotExists { .. }
                | Error::NamespaceInUse { .. } => 7,
                _ => 1,
            },
            _ => 1,
        }
    }
}

/// What has become of the other names.
fn others(forgotten: usize) -> String {
    match forgotten {
        0 => String::new(),
        1 => ", and the other name is forgotten".to_owned(),
        n => format!(", and the {n} others are forgotten"),
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

/// What [`Trouble`] it is that a file could not be dealt with so.
pub(super) fn file_trouble(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Trouble {
    move |source| Trouble::File { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_causes_in_brackets() {
        let source = io::Error::other("the disk\nis on fire");
        let trouble = Trouble::File { doing: "read", path: "a.csv".into(), source };
        assert_eq!(trouble.line(), "cannot read a.csv (the disk is on fire)");
    }
}

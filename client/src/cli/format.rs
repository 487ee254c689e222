//! The file formats there are, and how one is told from another.

use clap::{Args, ValueEnum};
use std::path::Path;

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Arrow IPC file (.arrow, .feather, .ipc): the form in which everything is stored
    Ipc,
    /// Arrow IPC stream (.arrows, .stream)
    Stream,
    /// Parquet (.parquet, .pq)
    Parquet,
    /// CSV (.csv, .tsv)
    Csv,
    /// The bytes of the value itself (.bin, .raw)
    Raw,
    /// UTF-8 text (.txt); of a table, its first rows
    Text,
    /// JSON (.json); of a table, an array of its rows
    Json,
}

impl Format {
    pub(super) fn name(self) -> &'static str {
        match self {
            Format::Ipc => "an Arrow IPC file",
            Format::Stream => "an Arrow IPC stream",
            Format::Parquet => "Parquet",
            Format::Csv => "CSV",
            Format::Raw => "raw bytes",
            Format::Text => "text",
            Format::Json => "JSON",
        }
    }

    /// The format that the name of a file promises.
    pub(super) fn of_path(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "arrow" | "feather" | "ipc" => Some(Format::Ipc),
            "arrows" | "stream" => Some(Format::Stream),
            "parquet" | "pq" => Some(Format::Parquet),
            "csv" | "tsv" => Some(Format::Csv),
            "bin" | "raw" => Some(Format::Raw),
            "txt" => Some(Format::Text),
            "json" => Some(Format::Json),
            _ => None,
        }
    }

    /// The format that the first bytes of a file prove.
    pub(super) fn of_head(head: &[u8]) -> Option<Format> {
        match head {
            [b'A', b'R', b'R', b'O', b'W', b'1', ..] => Some(Format::Ipc),
            [0xff, 0xff, 0xff, 0xff, ..] => Some(Format::Stream),
            [b'P', b'A', b'R', b'1', ..] => Some(Format::Parquet),
            _ => None,
        }
    }
}

/// How CSV is written, by us or by others.
#[derive(Clone, Debug, Args)]
pub(super) struct CsvLook {
    /// CSV has no line of column names
    #[arg(long, help_heading = "CSV")]
    pub(super) no_header: bool,

    /// What stands between the fields of CSV [default: a comma; a tab for .tsv files]
    #[arg(long, value_name = "CHAR", value_parser = delimiter, help_heading = "CSV")]
    delimiter: Option<u8>,
}

impl CsvLook {
    pub(super) fn delimiter(&self, path: Option<&Path>) -> u8 {
        let is_tsv =
            path.and_then(Path::extension).is_some_and(|extension| extension.eq_ignore_ascii_case("tsv"));
        self.delimiter.unwrap_or(if is_tsv { b'\t' } else { b',' })
    }
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [b'\\', b't'] => Ok(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Ok(*byte),
        _ => Err("write one ASCII character, such as ; or \\t".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_promise_a_format() {
        assert_eq!(Format::of_path(Path::new("/a/b.PARQUET")), Some(Format::Parquet));
        assert_eq!(Format::of_path(Path::new("b.feather")), Some(Format::Ipc));
        assert_eq!(Format::of_path(Path::new("csv")), None);
    }

    #[test]
    fn delimiters_are_one_ascii_character() {
        assert_eq!((delimiter(";"), delimiter("\\t"), delimiter("\t")), (Ok(b';'), Ok(b'\t'), Ok(b'\t')));
        for text in ["", "ab", "é", "\"", "\n"] {
            assert!(delimiter(text).is_err(), "{text:?}");
        }
    }
}

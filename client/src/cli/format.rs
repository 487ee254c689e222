//! The file formats there are, and how one is told from another.

use clap::ValueEnum;
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
    /// JSON, a line for each row of a table (.jsonl, .ndjson)
    Jsonl,
    /// NumPy's file of one array (.npy)
    Npy,
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
            Format::Jsonl => "JSON lines",
            Format::Npy => "an .npy file",
        }
    }

    /// Whether a terminal would show nothing that a person can read.
    pub(super) fn is_binary(self) -> bool {
        match self {
            Format::Ipc | Format::Stream | Format::Parquet | Format::Npy => true,
            // Raw bytes may be text.
            Format::Csv | Format::Raw | Format::Text | Format::Json | Format::Jsonl => false,
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
            "jsonl" | "ndjson" => Some(Format::Jsonl),
            "npy" => Some(Format::Npy),
            _ => None,
        }
    }

    /// The format that the first bytes of a file prove.
    pub(super) fn of_head(head: &[u8]) -> Option<Format> {
        match head {
            [b'A', b'R', b'R', b'O', b'W', b'1', ..] => Some(Format::Ipc),
            [0xff, 0xff, 0xff, 0xff, ..] => Some(Format::Stream),
            [b'P', b'A', b'R', b'1', ..] => Some(Format::Parquet),
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Some(Format::Npy),
            _ => None,
        }
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
}

//! CSV as others write it: what stands between the fields, which types the columns have, where times have a zone.

use super::progress::{Counted, Progress};
use arrow_array::{StringArray, cast::AsArray, timezone::Tz};
use arrow_csv::reader::{BufReader as CsvReader, Format, ReaderBuilder};
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef};
use clap::Args;
use regex::Regex;
use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
};

/// How CSV is written, by us or by others.
#[derive(Clone, Debug, Args)]
pub(super) struct CsvLook {
    /// CSV has no line of column names
    #[arg(long, help_heading = "CSV")]
    pub(super) no_header: bool,

    /// What stands between the fields of CSV [default: what the first lines of a file show; a comma is written, and a
    /// tab to .tsv files]
    #[arg(long, value_name = "CHAR", value_parser = delimiter, help_heading = "CSV")]
    delimiter: Option<u8>,
}

impl CsvLook {
    /// What is written between fields.
    pub(super) fn delimiter(&self, path: Option<&Path>) -> u8 {
        self.delimiter.unwrap_or(if path.is_some_and(is_tsv) { b'\t' } else { b',' })
    }
}

/// How a file of CSV is read.
#[derive(Debug, Args)]
pub(super) struct CsvInput {
    #[command(flatten)]
    look: CsvLook,

    /// Fields of CSV that are null: those that match this from end to end
    #[arg(long, value_name = "REGEX", default_value = "(NA)?", value_parser = whole_field, help_heading = "CSV")]
    null: Regex,

    /// Columns of CSV that are text, whatever stands in them
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', help_heading = "CSV")]
    text: Vec<String>,

    /// Zone of CSV columns whose times say an offset, such as Europe/Berlin [default: the offset; UTC where a column
    /// has several]
    #[arg(long, value_name = "ZONE", value_parser = zone, help_heading = "CSV")]
    zone: Option<String>,

    /// Find out the types of CSV columns from this many rows [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "CSV")]
    infer_rows: Option<u64>,
}

/// Rows in a batch.
const BATCH_ROWS: usize = 64 << 10;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Bytes of a file that are looked at to find what stands between its fields, and lines.
const SNIFF_BYTES: u64 = 256 << 10;
const SNIFF_LINES: usize = 64;

/// What may stand between fields where nobody says: of those that divide lines equally the one with the most fields,
/// and the first of equals.
const DELIMITERS: [u8; 4] = [b',', b'\t', b';', b'|'];

impl CsvInput {
    /// Finds out delimiter and types, and begins again: `file` is read twice, and once more if there are times.
    pub(super) fn open<'a>(
        &self,
        path: &Path,
        file: &'a File,
        progress: &'a Progress,
    ) -> Result<CsvFile<'a>, ArrowError> {
        let (start, delimiter) = self.sniff(path, file)?;
        let format = Format::default()
            .with_header(!self.look.no_header)
            .with_delimiter(delimiter)
            .with_null_regex(self.null.clone());
        let begin = || {
            let mut file = file;
            file.seek(SeekFrom::Start(start))?;
            Ok::<_, ArrowError>(BufReader::with_capacity(PIECE_BYTES, Counted { inner: file, progress }))
        };
        let explain = |error| with_delimiter(error, delimiter);
        let rows_max = self.infer_rows.map(plasmon_protocol::index_of);
        let (schema, _) = format.infer_schema(begin()?, rows_max).map_err(explain)?;
        if schema.fields().is_empty() {
            return Err(ArrowError::CsvError("the file has no line".to_owned()));
        }
        let schema = self.with_text(&schema)?;
        let schema = self.with_zones(schema, &format, begin).map_err(explain)?;
        let builder = ReaderBuilder::new(schema).with_format(format).with_batch_size(BATCH_ROWS);
        Ok(CsvFile { reader: builder.build_buffered(begin()?)?, delimiter })
    }

    /// Where the text begins, and what stands between its fields.
    fn sniff(&self, path: &Path, mut file: &File) -> Result<(u64, u8), ArrowError> {
        let mut head = Vec::new();
        file.rewind()?;
        file.take(SNIFF_BYTES).read_to_end(&mut head)?;
        let (start, text) = match head.as_slice() {
            [0xef, 0xbb, 0xbf, text @ ..] => (3, text), // the mark some programs put before UTF-8
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
                let what = "the file is UTF-16; make it UTF-8 first: iconv -f UTF-16 -t UTF-8";
                return Err(ArrowError::CsvError(what.to_owned()));
            }
            text => (0, text),
        };
        let delimiter = self.look.delimiter.unwrap_or_else(|| {
            let lines = if head.len() as u64 == SNIFF_BYTES { whole_lines(text) } else { text };
            sniffed(lines).unwrap_or(if is_tsv(path) { b'\t' } else { b',' })
        });
        Ok((start, delimiter))
    }

    /// The schema with the columns that were asked to be text, and those of which nothing is known.
    fn with_text(&self, schema: &Schema) -> Result<Schema, ArrowError> {
        if let Some(absent) = self.text.iter().find(|name| schema.index_of(name).is_err()) {
            return Err(ArrowError::CsvError(format!(
                "--text names {absent:?}, and there is no such column"
            )));
        }
        let fields = schema.fields().iter().map(|field| {
            let seen_all = self.infer_rows.is_none();
            let is_text = self.text.contains(field.name()) || (!seen_all && field.data_type().is_null());
            let field = field.as_ref().clone();
            if is_text { field.with_data_type(DataType::Utf8) } else { field }
        });
        Ok(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The schema with a zone for columns in which every time says an offset. Arrow's inference leaves it out, so that
    /// an offset would be applied and forgotten. A column in which only some times say one stays text, because nobody
    /// knows when the others are.
    fn with_zones<R: BufRead>(
        &self,
        schema: Schema,
        format: &Format,
        begin: impl Fn() -> Result<R, ArrowError>,
    ) -> Result<SchemaRef, ArrowError> {
        let is_time = |data_type: &DataType| matches!(data_type, DataType::Timestamp(..));
        let times: Vec<usize> =
            (0..schema.fields().len()).filter(|&at| is_time(schema.field(at).data_type())).collect();
        if times.is_empty() {
            return Ok(Arc::new(schema));
        }
        let as_text = schema.fields().iter().map(|field| {
            let field = field.as_ref().clone().with_nullable(true);
            if is_time(field.data_type()) { field.with_data_type(DataType::Utf8) } else { field }
        });
        let mut builder = ReaderBuilder::new(Arc::new(Schema::new(as_text.collect::<Vec<_>>())))
            .with_format(format.clone())
            .with_batch_size(BATCH_ROWS)
            .with_projection(times.clone());
        if let Some(rows) = self.infer_rows {
            builder = builder.with_bounds(0, plasmon_protocol::index_of(rows));
        }
        let mut zones = vec![Zone::Unseen; times.len()];
        for batch in builder.build_buffered(begin()?)? {
            let batch = batch?;
            for (zone, column) in zones.iter_mut().zip(batch.columns()) {
                zone.see(column.as_string());
            }
        }
        let mut fields: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        for (at, zone) in times.into_iter().zip(zones) {
            let data_type = zone.apply(fields[at].data_type(), self.zone.as_deref());
            fields[at].set_data_type(data_type);
        }
        Ok(Arc::new(Schema::new(fields)))
    }
}

/// The batches of a file of CSV. Errors say what was taken for the delimiter.
pub(super) struct CsvFile<'a> {
    reader: CsvReader<BufReader<Counted<'a, &'a File>>>,
    delimiter: u8,
}

impl CsvFile<'_> {
    pub(super) fn schema(&self) -> SchemaRef {
        self.reader.schema()
    }
}

impl Iterator for CsvFile<'_> {
    type Item = Result<arrow_array::RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.reader.next()?;
        Some(batch.map_err(|error| with_delimiter(error, self.delimiter)))
    }
}

/// What the times of a column say of their zone.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Zone {
    /// There was no time yet.
    Unseen,
    /// None says one.
    None,
    /// All say this one.
    One(String),
    /// All say one, and not the same.
    Several,
    /// Some say one and some do not, or what stands behind the time is none.
    Unclear,
}

impl Zone {
    fn see(&mut self, column: &StringArray) {
        for text in column.iter().flatten() {
            if *self == Zone::Unclear {
                return;
            }
            self.join(suffix(text));
        }
    }

    fn join(&mut self, suffix: &str) {
        let is_zone = || suffix.parse::<Tz>().is_ok();
        *self = match (std::mem::replace(self, Zone::Unclear), suffix) {
            (Zone::Unseen | Zone::None, "") => Zone::None,
            // Most columns have one zone, which is parsed once.
            (Zone::One(zone), suffix) if zone == named(suffix) => Zone::One(zone),
            (Zone::Unseen, suffix) if !suffix.is_empty() && (is_utc(suffix) || is_zone()) => {
                Zone::One(named(suffix).to_owned())
            }
            (Zone::One(_) | Zone::Several, suffix) if !suffix.is_empty() && (is_utc(suffix) || is_zone()) => {
                Zone::Several
            }
            _ => Zone::Unclear,
        };
    }

    /// The type of a column that was taken for times of type `inferred`.
    fn apply(self, inferred: &DataType, asked: Option<&str>) -> DataType {
        let DataType::Timestamp(unit, _) = *inferred else {
            return inferred.clone();
        };
        let zone = match self {
            Zone::Unclear => return DataType::Utf8,
            Zone::Unseen | Zone::None => None,
            Zone::One(zone) => Some(zone),
            Zone::Several => Some("UTC".to_owned()),
        };
        DataType::Timestamp(unit, zone.map(|zone| asked.map_or(zone.into(), Into::into)))
    }
}

/// What stands behind the digits of a time: `+02:00`, `Z`, or nothing.
fn suffix(text: &str) -> &str {
    /// Characters of `2024-07-01T12:00:00`.
    const SECONDS_CHARS: usize = 19;
    let rest = text.get(SECONDS_CHARS..).unwrap_or_default();
    let fraction =
        rest.strip_prefix('.').map(|digits| digits.trim_start_matches(|c: char| c.is_ascii_digit()));
    fraction.unwrap_or(rest).trim()
}

fn is_utc(suffix: &str) -> bool {
    suffix.eq_ignore_ascii_case("z")
}

fn named(suffix: &str) -> &str {
    if is_utc(suffix) { "UTC" } else { suffix }
}

/// The delimiter that gives every line of `text` the same number of fields, above one.
fn sniffed(text: &[u8]) -> Option<u8> {
    let fields = |delimiter| {
        let format = Format::default().with_header(true).with_delimiter(delimiter);
        let (schema, _) = format.infer_schema(text, Some(SNIFF_LINES)).ok()?;
        Some((schema.fields().len(), delimiter)).filter(|&(fields, _)| fields > 1)
    };
    // `max_by_key` gives the last of equals.
    DELIMITERS.into_iter().rev().filter_map(fields).max_by_key(|&(fields, _)| fields).map(|(_, it)| it)
}

/// `text` without a last line that is cut off.
fn whole_lines(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|&byte| byte == b'\n').map_or(text.len(), |at| at + 1);
    &text[..end]
}

fn with_delimiter(error: ArrowError, delimiter: u8) -> ArrowError {
    match error {
        ArrowError::CsvError(what) => {
            let cure = if what.contains("UTF-8") {
                "the file is in another encoding; make it UTF-8 with, say: iconv -f latin1 -t utf-8"
                    .to_owned()
            } else {
                let delimiter = char::from(delimiter).escape_default();
                format!("fields were divided at '{delimiter}': --delimiter changes that")
            };
            ArrowError::CsvError(format!("{what}; {cure}"))
        }
        other => other,
    }
}

fn is_tsv(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tsv"))
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [b'\\', b't'] => Ok(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Ok(*byte),
        _ => Err("write one ASCII character, such as ; or \\t".to_owned()),
    }
}

fn zone(text: &str) -> Result<String, String> {
    match text.parse::<Tz>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("write a zone, such as Europe/Berlin, UTC or +02:00".to_owned()),
    }
}

/// A pattern that matches a field from end to end.
fn whole_field(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!("^(?:{pattern})$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_patterns_match_whole_fields() {
        let null = whole_field("(NA)?").unwrap();
        assert!(null.is_match("") && null.is_match("NA"));
        assert!(!null.is_match("NAME") && !null.is_match(" "));
        assert!(whole_field("(").is_err());
    }

    #[test]
    fn delimiters_are_one_ascii_character() {
        assert_eq!((delimiter(";"), delimiter("\\t"), delimiter("\t")), (Ok(b';'), Ok(b'\t'), Ok(b'\t')));
        for text in ["", "ab", "é", "\"", "\n"] {
            assert!(delimiter(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_delimiter_is_what_divides_all_lines_equally() {
        assert_eq!(sniffed(b"a;b\n1,5;2\n"), Some(b';'));
        assert_eq!(sniffed(b"a,b\n1;2,3\n"), Some(b','));
        assert_eq!(sniffed(b"a|b|c\n1|2|3"), Some(b'|'));
        assert_eq!(sniffed(b"a\tb, c\n1\t2, 3\n"), Some(b','), "two of each: the comma");
        assert_eq!(sniffed(b"a\tb\tc, d\n1\t2\t3, 4\n"), Some(b'\t'));
        assert_eq!(sniffed(b"\"a;b\";c\n1;2\n"), Some(b';'), "what is quoted divides nothing");
        assert_eq!(sniffed(b"a\n1\n"), None);
        assert_eq!(sniffed(b""), None);
    }

    #[test]
    fn a_column_has_the_zone_that_all_its_times_say() {
        let zone = |texts: &[&str]| {
            let mut zone = Zone::Unseen;
            zone.see(&StringArray::from_iter(texts.iter().map(|text| (!text.is_empty()).then_some(*text))));
            zone
        };
        let one = |zone: &str| Zone::One(zone.to_owned());
        assert_eq!(zone(&["2024-07-01T12:00:00", "", "2024-07-01 12:00:00.5"]), Zone::None);
        assert_eq!(zone(&["2024-07-01T12:00:00Z", "2024-07-01T12:00:00.123z"]), one("UTC"));
        assert_eq!(zone(&["2024-07-01T12:00:00+05:30", "", "2024-07-01T12:00:00.1+05:30"]), one("+05:30"));
        assert_eq!(zone(&["2024-07-01T12:00:00+02:00", "2024-12-01T12:00:00+01:00"]), Zone::Several);
        assert_eq!(zone(&["2024-07-01 12:00:00 Europe/Berlin"]), one("Europe/Berlin"));
        assert_eq!(zone(&["2024-07-01T12:00:00", "2024-07-01T12:00:00Z"]), Zone::Unclear);
        assert_eq!(zone(&["2024-07-01T12:00:00Z", "2024-07-01T12:00:00"]), Zone::Unclear);
        assert_eq!(zone(&["2024-07-01T12:00:00 noon"]), Zone::Unclear);
        assert_eq!(zone(&[""]), Zone::Unseen);
    }
}

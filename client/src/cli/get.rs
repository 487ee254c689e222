//! `plasmon get`: out of the store, to a file, to a pipe, or in front of a person.

use super::{
    Context,
    csv::CsvLook,
    format::Format,
    npy,
    packing::{Packed, Packing},
    progress::{Counted, Progress, Unit},
    put::file_trouble,
    show::{Column, Human, Out, count, cut, grid, plain, took},
    trouble::Trouble,
};
use crate::{Brain, Dtype, Error, Kind, Object, Table};
use arrow_array::RecordBatch;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use clap::Args;
use parquet::arrow::ArrowWriter;
use serde_json::json;
use std::{
    collections::HashSet,
    fs::{self, File},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

#[derive(Debug, Args)]
pub(super) struct Get {
    /// Name to look up
    #[arg(add = clap_complete::ArgValueCompleter::new(super::completions::names))]
    name: String,

    /// File to write; - writes to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Format to write [default: by the file's name, else Arrow IPC for tables and tensors, the value itself for
    /// bytes, text and JSON; on a terminal, text]. What Python pickled only Python reads
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// Rows of a table that text shows [default: 10], or that JSON does [default: all]
    #[arg(long, value_name = "N")]
    rows: Option<usize>,

    #[command(flatten)]
    csv: CsvLook,
}

/// Rows that text shows of a table.
const PREVIEW_ROWS: usize = 10;

/// Characters of a cell that text shows.
const CELL_CHARS_MAX: usize = 40;

/// Characters of a line of text where nobody knows the width of the terminal.
const LINE_CHARS: usize = 120;

/// Rows that are written at a time.
const PIECE_ROWS: usize = 64 << 10;

/// Bytes that are written at a time.
const PIECE_BYTES: usize = 4 << 20;

impl Get {
    pub(super) fn run(&self, context: &mut Context) -> Result<(), Trouble> {
        let began = Instant::now();
        let path = self.output.as_deref().filter(|&path| path != Path::new("-"));
        let json = context.common.json;
        if json && path.is_none() && (self.output.is_some() || self.format.is_some()) {
            let what = "--json and the value cannot both go to standard output; add -o FILE";
            return Err(Trouble::Usage(what.to_owned()));
        }
        let brain = context.brain()?;
        let object: Object = brain.recall(&self.name)?;
        let in_words = match self.format {
            None => context.out.is_terminal(),
            Some(format) => format == Format::Text,
        };
        if object.kind() == Kind::PICKLE && !(in_words && path.is_none() && !json) {
            return Err(self.unreadable(path));
        }
        let Some(path) = path else {
            return if json {
                self.document(&brain, &object, &mut context.out)
            } else {
                self.show(context, &object)
            };
        };
        // Bytes stay what they are, whatever their file is called.
        let as_it_is = self.format.map_or(object.kind() == Kind::BYTES, |format| format == Format::Raw);
        let packed = Packing::of_path(path).filter(|_| !as_it_is);
        let (packing, inner) =
            packed.map_or((None, path.to_owned()), |(packing, inner)| (Some(packing), inner));
        let format = self.format.unwrap_or_else(|| default_format(object.kind(), Some(&inner)));
        let mut target = Target::open(path)?;
        let doing = format!("getting {}", plain(&self.name));
        let mut sink = Packed::new(target.file(), packing).map_err(file_trouble("write", path))?;
        self.write(&object, format, Some(&inner), LINE_CHARS, &doing, &mut sink)?;
        sink.finish().map_err(file_trouble("write", path))?;
        let len_bytes = target.finish(path)?;
        let (version, kind) = (object.version(), object.kind());
        if json {
            let document = json!({
                "namespace": brain.namespace(), "name": self.name, "version": version, "kind": kind.to_string(),
                "file": path.display().to_string(), "format": format.name(), "bytes": len_bytes,
                "seconds": began.elapsed().as_secs_f64(),
            });
            return Ok(context.out.json(&document)?);
        }
        let (name, size, took) = (plain(&self.name), Human(len_bytes), took(began.elapsed()));
        let (path, format) = (path.display(), format.name());
        Ok(context.out.line(format!("{name}: version {version} to {path}, {size} of {format} in {took}"))?)
    }

    /// A pickle has no data that is written: its bytes are not the value's.
    fn unreadable(&self, path: Option<&Path>) -> Trouble {
        let format = self.format.or_else(|| path.and_then(Format::of_path));
        Trouble::Unwritable {
            name: self.name.clone(),
            kind: Kind::PICKLE,
            format: format.map_or("data", Format::name),
            advice: ", because only Python reads it: plasmon.Brain()[name]; docs/values.md says which values others read",
            source: None,
        }
    }

    /// To standard output.
    fn show(&self, context: &mut Context, object: &Object) -> Result<(), Trouble> {
        let person = context.out.is_terminal();
        let default = || if person { Format::Text } else { default_format(object.kind(), None) };
        let format = self.format.unwrap_or_else(default);
        if person && (format.is_binary() || (format == Format::Raw && !is_readable(object)?)) {
            let what = format!(
                "standard output is a terminal, which {} would only disturb; add -o FILE, or a pipe",
                format.name()
            );
            return Err(Trouble::Usage(what));
        }
        let columns = context.out.columns().unwrap_or(LINE_CHARS);
        // No progress bar: what is written is the progress, where somebody sees it.
        let doing = if person { String::new() } else { format!("getting {}", plain(&self.name)) };
        self.write(object, format, None, columns, &doing, &mut context.out)
    }

    /// One JSON document about the object, with its value.
    fn document(&self, brain: &Brain, object: &Object, out: &mut Out) -> Result<(), Trouble> {
        let head = json!({
            "namespace": brain.namespace(), "name": self.name, "version": object.version(),
            "kind": object.kind().to_string(), "bytes": object.len_bytes(),
        });
        let head = head.to_string();
        // The value can be long, so it is written as it is made, behind the rest of the document.
        write!(out, "{},\"value\":", head.trim_end_matches('}'))?;
        self.write_json(object, out)?;
        Ok(out.line("}")?)
    }

    fn write(
        &self,
        object: &Object,
        format: Format,
        path: Option<&Path>,
        columns: usize,
        doing: &str,
        sink: &mut (impl Write + Send),
    ) -> Result<(), Trouble> {
        let unwritable =
            |source: Box<dyn std::error::Error + Send + Sync>| self.unwritable(object, format, source);
        let arrow = |error: ArrowError| unwritable(error.into());
        match format {
            Format::Ipc => self.pieces(&object.as_ipc()?, object, format, doing, sink),
            Format::Raw => match raw_bytes(object)? {
                Some(bytes) => self.pieces(&bytes, object, format, doing, sink),
                None => Err(Trouble::Unwritable {
                    name: self.name.clone(),
                    kind: object.kind(),
                    format: format.name(),
                    advice: "; use --format ipc, stream, parquet, csv, json, jsonl or text",
                    source: None,
                }),
            },
            Format::Text => {
                let text = self.text(object, columns)?;
                sink.write_all(text.as_bytes()).map_err(|error| unwritable(error.into()))
            }
            Format::Json => {
                self.write_json(object, sink)?;
                sink.write_all(b"\n").map_err(|error| unwritable(error.into()))
            }
            Format::Jsonl => self.write_json_lines(object, sink),
            Format::Npy => {
                let tensor = (object.kind() == Kind::TENSOR).then(|| decode::<crate::TensorView>(object));
                let tensor = tensor.transpose()?;
                let Some((header, tensor)) = tensor.and_then(|it| Some((npy::header(&it)?, it))) else {
                    return Err(Trouble::Unwritable {
                        name: self.name.clone(),
                        kind: object.kind(),
                        format: format.name(),
                        advice: ", which holds one tensor; use --format parquet, csv or json",
                        source: None,
                    });
                };
                sink.write_all(&header).map_err(|error| unwritable(error.into()))?;
                self.pieces(tensor.as_bytes(), object, format, doing, sink)
            }
            Format::Stream => {
                let table = object.table()?;
                let progress = rows_of(&table, doing);
                let mut writer = StreamWriter::try_new(sink, table.schema()).map_err(arrow)?;
                // Whole batches: a stream keeps the batches that the object has.
                for batch in table.iter() {
                    writer.write(batch).map_err(arrow)?;
                    progress.add(batch.num_rows() as u64);
                }
                writer.finish().map_err(arrow)
            }
            Format::Parquet => {
                let table = object.table()?;
                let progress = rows_of(&table, doing);
                let parquet = |error: parquet::errors::ParquetError| unwritable(error.into());
                let properties = parquet::file::properties::WriterProperties::builder()
                    .set_compression(parquet::basic::Compression::SNAPPY)
                    .build();
                let schema = table.schema().clone();
                let mut writer = ArrowWriter::try_new(sink, schema, Some(properties)).map_err(parquet)?;
                for piece in pieces_of(&table) {
                    writer.write(&piece).map_err(parquet)?;
                    progress.add(piece.num_rows() as u64);
                }
                writer.close().map(drop).map_err(parquet)
            }
            Format::Csv => {
                let table = with_truth_values(object.table()?).map_err(arrow)?;
                let progress = rows_of(&table, doing);
                let builder = arrow_csv::WriterBuilder::new()
                    .with_header(!self.csv.no_header)
                    .with_delimiter(self.csv.delimiter(path));
                let mut writer = builder.build(sink);
                if table.num_rows() == 0 {
                    // Without a batch nobody would write the line of names.
                    let empty = RecordBatch::new_empty(table.schema().clone());
                    writer.write(&empty).map_err(arrow)?;
                }
                for piece in pieces_of(&table) {
                    writer.write(&piece).map_err(arrow)?;
                    progress.add(piece.num_rows() as u64);
                }
                Ok(())
            }
        }
    }

    fn pieces(
        &self,
        bytes: &[u8],
        object: &Object,
        format: Format,
        doing: &str,
        sink: &mut impl Write,
    ) -> Result<(), Trouble> {
        let progress = Progress::new(doing, Unit::Bytes, Some(bytes.len() as u64));
        let mut counted = Counted { inner: sink, progress: &progress };
        let mut pieces = bytes.chunks(PIECE_BYTES);
        let result = pieces.try_for_each(|piece| counted.write_all(piece));
        result.map_err(|error| self.unwritable(object, format, error.into()))
    }

    /// The value as JSON: an array of rows for whatever is a table.
    fn write_json(&self, object: &Object, sink: &mut impl Write) -> Result<(), Trouble> {
        let unwritable =
            |source: Box<dyn std::error::Error + Send + Sync>| self.unwritable(object, Format::Json, source);
        if let Some(value) = json_value(object)? {
            return serde_json::to_writer(sink, &value).map_err(|error| unwritable(error.into()));
        }
        let table = self.members(object, Format::Json)?;
        let builder = arrow_json::WriterBuilder::new().with_explicit_nulls(true);
        let mut writer = builder.build::<_, arrow_json::writer::JsonArray>(sink);
        let rows_max = self.rows.unwrap_or(usize::MAX);
        first_rows(&table, rows_max, |piece| writer.write(piece))
            .map_err(|error| unwritable(error.into()))?;
        writer.finish().map_err(|error| unwritable(error.into()))
    }

    /// The rows of a table, or the items of a list, a line each; another value in one line.
    fn write_json_lines(&self, object: &Object, sink: &mut impl Write) -> Result<(), Trouble> {
        let unwritable =
            |source: Box<dyn std::error::Error + Send + Sync>| self.unwritable(object, Format::Jsonl, source);
        let rows_max = self.rows.unwrap_or(usize::MAX);
        if let Some(value) = json_value(object)? {
            let lines = match value {
                serde_json::Value::Array(items) => items,
                value => vec![value],
            };
            for line in lines.iter().take(rows_max) {
                writeln!(sink, "{line}").map_err(|error| unwritable(error.into()))?;
            }
            return Ok(());
        }
        let table = self.members(object, Format::Jsonl)?;
        let builder = arrow_json::WriterBuilder::new().with_explicit_nulls(true);
        let mut writer = builder.build::<_, arrow_json::writer::LineDelimited>(sink);
        first_rows(&table, rows_max, |piece| writer.write(piece))
            .map_err(|error| unwritable(error.into()))?;
        writer.finish().map_err(|error| unwritable(error.into()))
    }

    /// The object as a table whose columns are the members of JSON objects: no two have one name.
    fn members(&self, object: &Object, format: Format) -> Result<Table, Trouble> {
        let table = with_truth_values(object.table()?)
            .map_err(|error| self.unwritable(object, format, error.into()))?;
        let mut names = HashSet::new();
        let twice = table.schema().fields().iter().find(|field| !names.insert(field.name().as_str()));
        match twice.map(|field| field.name()) {
            Some(name) => {
                let why = format!("several columns are called {name:?}; --format csv and ipc have them all");
                Err(self.unwritable(object, format, why.into()))
            }
            None => Ok(table),
        }
    }

    /// The value, or the first of it, for people.
    fn text(&self, object: &Object, columns: usize) -> Result<String, Trouble> {
        let kind = object.kind();
        let (size, version) = (Human(object.len_bytes()), object.version());
        Ok(match kind {
            Kind::TABLE => {
                let table = with_truth_values(object.table()?)
                    .map_err(|error| self.unwritable(object, Format::Text, error.into()))?;
                let rows = self.rows.unwrap_or(PREVIEW_ROWS);
                let preview = preview(&table, rows, columns)
                    .map_err(|error| self.unwritable(object, Format::Text, error.into()))?;
                let (rows, fields) = (table.num_rows() as u64, table.schema().fields().len() as u64);
                let (rows, fields) = (count(rows, "row"), count(fields, "column"));
                format!("{preview}{rows}, {fields}, version {version}, {size}\n")
            }
            Kind::TEXT => format!("{}\n", readable(&decode::<crate::Text>(object)?)),
            Kind::BYTES => {
                let bytes: crate::Blob = decode(object)?;
                let head: Vec<String> = bytes.iter().take(32).map(|byte| format!("{byte:02x}")).collect();
                let more = if bytes.len() > 32 { " …" } else { "" };
                format!(
                    "{}{more}\n{}, version {version}\n",
                    head.join(" "),
                    count(bytes.len() as u64, "byte")
                )
            }
            Kind::TENSOR => {
                let tensor: crate::TensorView = decode(object)?;
                let elements = elements(&tensor, self.rows.unwrap_or(PREVIEW_ROWS), columns)?;
                let (shape, dtype) = (tensor.shape(), dtype(&tensor));
                format!("{elements}tensor of shape {shape:?}, {dtype}, version {version}, {size}\n")
            }
            _ => match json_value(object)? {
                Some(value) => format!("{value:#}\n"),
                None => format!("a value of kind {kind}, version {version}, {size}\n"),
            },
        })
    }

    fn unwritable(
        &self,
        object: &Object,
        format: Format,
        source: Box<dyn std::error::Error + Send + Sync>,
    ) -> Trouble {
        let (name, kind, format) = (self.name.clone(), object.kind(), format.name());
        Trouble::Unwritable { name, kind, format, advice: "", source: Some(source) }
    }
}

/// The object as a value of a Rust type that its kind is known to be.
fn decode<T: crate::FromObject>(object: &Object) -> Result<T, Error> {
    Ok(T::from_object(object.clone())?)
}

pub(super) fn dtype(tensor: &crate::TensorView) -> String {
    let order = if tensor.is_column_major() { ", column-major" } else { "" };
    let dtype: Dtype = tensor.dtype();
    format!("{dtype}{order}")
}

/// The value of an object that is no table, as JSON; `None` where it has no short one.
pub(super) fn json_value(object: &Object) -> Result<Option<serde_json::Value>, Error> {
    Ok(Some(match object.kind() {
        Kind::NULL => serde_json::Value::Null,
        Kind::BOOL => decode::<bool>(object)?.into(),
        Kind::INT64 => decode::<i64>(object)?.into(),
        // What JSON has no number for is a text.
        Kind::FLOAT64 => match decode::<f64>(object)? {
            value if value.is_finite() => value.into(),
            value => value.to_string().into(),
        },
        Kind::TEXT => decode::<String>(object)?.into(),
        Kind::JSON => decode::<serde_json::Value>(object)?,
        _ => return Ok(None),
    }))
}

/// The bytes of the value itself, for kinds that are bytes.
fn raw_bytes(object: &Object) -> Result<Option<arrow_buffer::Buffer>, Error> {
    Ok(Some(match object.kind() {
        Kind::BYTES => decode::<crate::Blob>(object)?.into_buffer(),
        Kind::TEXT => decode::<crate::Text>(object)?.into_buffer(),
        Kind::TENSOR => decode::<crate::TensorView>(object)?.into_buffer(),
        Kind::JSON => {
            arrow_buffer::Buffer::from_vec(decode::<serde_json::Value>(object)?.to_string().into_bytes())
        }
        _ => return Ok(None),
    }))
}

/// The format in which a value of `kind` leaves the store where nobody says.
fn default_format(kind: Kind, path: Option<&Path>) -> Format {
    match kind {
        Kind::BYTES => Format::Raw,
        // A text can be that of a file of any kind, as long as that is a text.
        Kind::TEXT => {
            path.and_then(Format::of_path).filter(|format| format.is_binary()).unwrap_or(Format::Raw)
        }
        Kind::JSON => {
            let format = path.and_then(Format::of_path).filter(|&format| format != Format::Json);
            format.unwrap_or(Format::Raw)
        }
        Kind::NULL | Kind::BOOL | Kind::INT64 | Kind::FLOAT64 => {
            path.and_then(Format::of_path).unwrap_or(Format::Json)
        }
        _ => path.and_then(Format::of_path).unwrap_or(Format::Ipc),
    }
}

/// The table with truth values as Arrow has them, of a bit each. Ours take a byte, as those of other programs do, and are
/// an extension that writers of text do not know.
fn with_truth_values(table: Table) -> Result<Table, ArrowError> {
    let is_ours = |field: &Field| {
        field.extension_type_name() == Some("arrow.bool8") && *field.data_type() == DataType::Int8
    };
    if !table.schema().fields().iter().any(|field| is_ours(field)) {
        return Ok(table);
    }
    let fields = table.schema().fields().iter().map(|field| match is_ours(field) {
        true => Arc::new(Field::new(field.name(), DataType::Boolean, field.is_nullable())),
        false => Arc::clone(field),
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let batches = table.iter().map(|batch| {
        let columns = batch.columns().iter().zip(schema.fields());
        let columns = columns.map(|(column, field)| match (column.data_type(), field.data_type()) {
            (DataType::Int8, DataType::Boolean) => arrow_cast::cast(column, &DataType::Boolean),
            _ => Ok(Arc::clone(column)),
        });
        RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<_, _>>()?)
    });
    let batches = batches.collect::<Result<Vec<_>, _>>()?;
    Table::new(schema, batches).map_err(|error| ArrowError::SchemaError(error.to_string()))
}

fn rows_of(table: &Table, doing: &str) -> Progress {
    Progress::new(doing, Unit::Rows, Some(table.num_rows() as u64))
}

/// The batches, cut so that none is long.
fn pieces_of(table: &Table) -> impl Iterator<Item = RecordBatch> {
    table.iter().flat_map(|batch| {
        let starts = (0..batch.num_rows()).step_by(PIECE_ROWS);
        starts.map(|start| batch.slice(start, PIECE_ROWS.min(batch.num_rows() - start)))
    })
}

/// The first elements of a tensor, a line for each step in its first dimension.
fn elements(tensor: &crate::TensorView, rows_max: usize, line_columns: usize) -> Result<String, Error> {
    macro_rules! shown {
        ($($dtype:ident: $type:ty,)*) => {
            match tensor.dtype() {
                $(Dtype::$dtype => lines_of(tensor, tensor.as_slice::<$type>()?, rows_max, line_columns),)*
                _ => String::new(),
            }
        };
    }
    Ok(shown! {
        BOOL8: bool, INT8: i8, INT16: i16, INT32: i32, INT64: i64, UINT8: u8, UINT16: u16, UINT32: u32, UINT64: u64,
        FLOAT16: half::f16, FLOAT32: f32, FLOAT64: f64,
    })
}

fn lines_of<T: std::fmt::Display>(
    tensor: &crate::TensorView,
    elements: &[T],
    rows_max: usize,
    line_columns: usize,
) -> String {
    let (&rows, inner) = tensor.shape().split_first().unwrap_or((&1, &[]));
    let in_row: usize = inner.iter().product();
    // Where the element that is `column`th of its row lies.
    let place = |row: usize, column: usize| {
        if !tensor.is_column_major() {
            return row * in_row + column;
        }
        let (mut rest, mut place, mut step) = (column, row, elements.len());
        for &dim in inner.iter().rev() {
            step /= dim;
            place += rest % dim * step;
            rest /= dim;
        }
        place
    };
    let mut text = String::new();
    for row in 0..rows.min(rows_max).min(elements.len()) {
        let mut line = String::new();
        for column in 0..in_row {
            let cell = elements[place(row, column)].to_string();
            if column > 0 && line.len() + cell.len() + " …".len() > line_columns {
                line += " …";
                break;
            }
            line += if column > 0 { " " } else { "" };
            line += &cell;
        }
        text += &line;
        text.push('\n');
    }
    text
}

/// Hands the first rows of a table to `write`, piece by piece.
fn first_rows(
    table: &Table,
    rows_max: usize,
    mut write: impl FnMut(&RecordBatch) -> Result<(), ArrowError>,
) -> Result<(), ArrowError> {
    let mut left = rows_max;
    for piece in pieces_of(table) {
        if left == 0 {
            break;
        }
        let rows = left.min(piece.num_rows());
        write(&piece.slice(0, rows))?;
        left -= rows;
    }
    Ok(())
}

/// Whether the raw bytes of a value are text that a terminal shows and does not obey.
fn is_readable(object: &Object) -> Result<bool, Error> {
    let bytes = raw_bytes(object)?;
    let text = bytes.as_ref().map(|bytes| std::str::from_utf8(bytes));
    // Where there are no raw bytes the error says so.
    Ok(text.is_none_or(|text| text.is_ok_and(|text| text == readable(text))))
}

/// `text` with its lines, without other characters that a terminal would obey.
fn readable(text: &str) -> String {
    text.split_inclusive(['\n', '\t'])
        .map(|piece| {
            let (line, end) = match piece.as_bytes().last() {
                Some(b'\n' | b'\t') => piece.split_at(piece.len() - 1),
                _ => (piece, ""),
            };
            plain(line) + end
        })
        .collect()
}

/// The first rows of a table, in as many columns as fit on a line.
fn preview(table: &Table, rows_max: usize, line_chars: usize) -> Result<String, ArrowError> {
    let options = FormatOptions::default().with_null("null").with_display_error(true);
    let fields = table.schema().fields();
    let mut headings: Vec<String> =
        fields.iter().map(|field| cut(&plain(field.name()), CELL_CHARS_MAX)).collect();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for batch in table.iter() {
        let formatters =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
        let formatters = formatters.collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows().min(rows_max - rows.len()) {
            let cell = |formatter: &ArrayFormatter<'_>| {
                cut(&plain(&formatter.value(row).to_string()), CELL_CHARS_MAX)
            };
            rows.push(formatters.iter().map(cell).collect());
        }
    }
    let mut used = 0;
    let width = |column: usize| {
        let cells = rows.iter().map(|row| &row[column]).chain([&headings[column]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0) + 2
    };
    let fitting = (0..fields.len())
        .take_while(|&column| {
            used += width(column);
            column == 0 || used <= line_chars + 2
        })
        .count();
    let hidden = headings.split_off(fitting);
    rows.iter_mut().for_each(|row| row.truncate(fitting));
    let columns: Vec<Column> = headings
        .into_iter()
        .zip(fields)
        .map(|(heading, field)| match field.data_type().is_numeric() {
            true => Column::Right(heading),
            false => Column::Left(heading),
        })
        .collect();
    let mut text = if columns.is_empty() { String::new() } else { grid(&columns, &rows) };
    if !hidden.is_empty() {
        text += &cut(&format!("… and {}", hidden.join(", ")), line_chars);
        text.push('\n');
    }
    Ok(text)
}

/// A file being written: beside where it will stand, so that nobody sees half of it.
enum Target {
    Beside {
        file: tempfile::NamedTempFile,
        place: PathBuf,
    },
    /// A device or a pipe, which can only be written to.
    Itself(File),
}

impl Target {
    fn open(path: &Path) -> Result<Target, Trouble> {
        let there = fs::metadata(path).ok();
        if there.as_ref().is_some_and(|there| !there.is_file() && !there.is_dir()) {
            let file = File::options().write(true).open(path).map_err(file_trouble("open", path))?;
            return Ok(Target::Itself(file));
        }
        if there.as_ref().is_some_and(fs::Metadata::is_dir) {
            return Err(Trouble::Usage(format!("{} is a directory; name a file in it", path.display())));
        }
        // Where a link leads, not the link, is replaced; the file keeps the mode it had.
        let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = place.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        fs::metadata(folder).map_err(file_trouble("write into", folder))?;
        let mode = there.map_or(0o666, |there| there.permissions().mode() & 0o777);
        let mut builder = tempfile::Builder::new();
        builder.prefix(".plasmon-").permissions(fs::Permissions::from_mode(mode));
        let file = builder.tempfile_in(folder).map_err(file_trouble("make", path))?;
        Ok(Target::Beside { file, place })
    }

    fn file(&mut self) -> &mut File {
        match self {
            Target::Beside { file, .. } => file.as_file_mut(),
            Target::Itself(file) => file,
        }
    }

    /// Puts the file where it belongs, and returns its length.
    fn finish(self, path: &Path) -> Result<u64, Trouble> {
        match self {
            Target::Beside { file, place } => {
                let file = file.persist(place).map_err(|error| file_trouble("make", path)(error.error))?;
                Ok(file.metadata().map_err(file_trouble("look at", path))?.len())
            }
            Target::Itself(mut file) => {
                file.flush().map_err(file_trouble("write", path))?;
                Ok(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::record_batch;

    #[test]
    fn a_preview_shows_the_first_rows_and_names_the_columns_that_do_not_fit() {
        let batch =
            record_batch!(("n", Int32, [1, 22, 3]), ("name", Utf8, [Some("a\tb"), None, Some("c")])).unwrap();
        let table = Table::from(batch);
        assert_eq!(preview(&table, 2, 80).unwrap(), " n  name\n 1  a\\tb\n22  null\n");
        assert_eq!(preview(&table, 1, 4).unwrap(), "n\n1\n… a…\n");
        assert_eq!(preview(&table, 0, 80).unwrap(), "n  name\n");
    }

    #[test]
    fn the_first_elements_of_a_tensor_are_shown_in_the_order_of_their_indices() {
        let store = crate::testing::Store::start(8 << 20).unwrap();
        let brain = store.connect().unwrap();
        let shown = |tensor: crate::Tensor<'_>, rows, width| {
            brain.learn("t", &tensor).unwrap();
            elements(&brain.recall("t").unwrap(), rows, width).unwrap()
        };
        let count: Vec<i16> = (0..24).collect();
        let row_major = crate::Tensor::new(&[2, 3, 4], &count).unwrap();
        assert_eq!(
            shown(row_major.clone(), 9, 80),
            "0 1 2 3 4 5 6 7 8 9 10 11\n12 13 14 15 16 17 18 19 20 21 22 23\n"
        );
        assert_eq!(shown(row_major, 1, 12), "0 1 2 3 4 …\n");
        // Element (i, j, k) lies at i + 2 (j + 3 k).
        let column_major = crate::Tensor::column_major(&[2, 3, 4], &count).unwrap();
        assert_eq!(shown(column_major, 1, 80), "0 6 12 18 2 8 14 20 4 10 16 22\n");
        assert_eq!(shown(crate::Tensor::new(&[2], &[0.5, f64::NAN]).unwrap(), 9, 80), "0.5\nNaN\n");
        assert_eq!(shown(crate::Tensor::new(&[], &[true]).unwrap(), 9, 80), "true\n");
        assert_eq!(shown(crate::Tensor::new::<u8>(&[3, 0], &[]).unwrap(), 9, 80), "");
        assert_eq!(shown(crate::Tensor::new::<u8>(&[0, 3], &[]).unwrap(), 9, 80), "");
    }

    #[test]
    fn a_text_is_shown_in_its_lines_and_steers_no_terminal() {
        assert_eq!(readable("a\tb\n\u{1b}[2Jc\r\n"), "a\tb\n\\u{1b}[2Jc\\r\n");
        assert_eq!(readable(""), "");
    }

    #[test]
    fn a_long_batch_is_cut_into_pieces() {
        let numbers = arrow_array::Int64Array::from_iter_values(0..PIECE_ROWS as i64 + 5);
        let batch = RecordBatch::try_from_iter([("n", Arc::new(numbers) as _)]).unwrap();
        let pieces: Vec<usize> = pieces_of(&Table::from(batch)).map(|piece| piece.num_rows()).collect();
        assert_eq!(pieces, [PIECE_ROWS, 5]);
    }
}

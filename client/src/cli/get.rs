//! `plasmon get`: out of the store, to a file, to a pipe, or in front of a person.

use super::{
    Context,
    csv::CsvLook,
    format::Format,
    npy,
    packing::{Packed, Packing},
    preview::{elements, first_rows, pieces_of, preview},
    progress::{Counted, Progress, Unit},
    show::{Human, Out, count, plain, took},
    target::Target,
    trouble::{Trouble, file_trouble},
    value::{decode, dtype, is_readable, json_value, raw_bytes, readable},
};

use crate::{Brain, Kind, Object, Table};

use arrow_array::RecordBatch;

use arrow_ipc::writer::StreamWriter;

use arrow_schema::{ArrowError, DataType, Field, Schema};

use clap::Args;

use parquet::arrow::ArrowWriter;

use serde_json::json;

use std::{
    collections::HashSet,
    io::Write,
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

    /// This version of the name, which is kept: plasmon history lists them
    #[arg(long, value_name = "N", conflicts_with = "at")]
    version: Option<u64>,

    /// What the name was bound to at this snapshot
    #[arg(long, value_name = "LABEL", add = clap_complete::ArgValueCompleter::new(super::completions::labels))]
    at: Option<String>,

    #[command(flatten)]
    csv: CsvLook,
}

/// Rows that text shows of a table.
const PREVIEW_ROWS: usize = 10;

/// Characters of a line of text where nobody knows the width of the terminal.
const LINE_CHARS: usize = 120;

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
        let object: Object = match (self.version, &self.at) {
            (Some(version), _) => brain.recall_version(&self.name, version)?,
            (None, Some(label)) => brain.at(label)?.recall(&self.name)?,
            (None, None) => brain.recall(&self.name)?,
        };
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

//! `plasmon put`: from files into the store, batch by batch.

use super::{
    Context,
    change::Lifetime,
    csv::CsvInput,
    format::Format,
    npy::Npy,
    packing::Packing,
    progress::{Counted, Progress, Unit},
    show::{Human, count, plain, took},
    trouble::{Trouble, file_trouble},
};
use crate::{Brain, Error, LearnOptions, Table};
use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef};
use clap::Args;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use plasmon_protocol::message::Expect;
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

#[derive(Debug, Args)]
pub(super) struct Put {
    /// Name to bind; what it was bound to before stays as it is for those who hold it
    name: String,

    /// File to read; - reads standard input
    file: PathBuf,

    /// Format of the file [default: by what it begins with, else by its name]
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// Description for people [default: that which the name has]
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,

    /// Metadata of yours, a JSON object [default: that which the name has]
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,

    /// Only if the name is not bound yet
    #[arg(long)]
    if_absent: bool,

    /// Only if the name has exactly this version
    #[arg(long, value_name = "VERSION", conflicts_with = "if_absent")]
    if_version: Option<u64>,

    #[command(flatten)]
    lifetime: Lifetime,

    #[command(flatten)]
    csv: CsvInput,
}

/// Rows in a batch that this makes, where the file has no batches itself.
const BATCH_ROWS: usize = 64 << 10;

/// Bytes that are copied at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Bytes up to which a value travels by message; larger ones are written in place.
const SMALL_BYTES: u64 = 32 << 10;

/// What was learned.
struct Learned {
    version: u64,
    rows: Option<u64>,
    len_bytes: u64,
}

impl Put {
    pub(super) fn run(&self, context: &mut Context) -> Result<(), Trouble> {
        let began = Instant::now();
        let options = self.options()?;
        let input = Input::open(&self.file, self.format)?;
        let brain = context.brain()?;
        self.check_absent(&brain)?;
        let mut learned = self.learn(&brain, &options, input)?;
        let found = brain.metadata(&self.name)?;
        // Unless somebody has rebound it meanwhile.
        if let Some(found) = found.filter(|found| found.version == learned.version) {
            learned.len_bytes = found.len_bytes;
        }
        let Learned { version, rows, len_bytes } = learned;
        if context.common.json {
            let document = serde_json::json!({
                "namespace": brain.namespace(), "name": self.name, "version": version, "rows": rows,
                "bytes": len_bytes, "seconds": began.elapsed().as_secs_f64(),
            });
            return Ok(context.out.json(&document)?);
        }
        let rows = rows.map(|rows| format!("{}, ", count(rows, "row"))).unwrap_or_default();
        let (name, took) = (plain(&self.name), took(began.elapsed()));
        Ok(context.out.line(format!("{name}: version {version}, {rows}{} in {took}", Human(len_bytes)))?)
    }

    fn options(&self) -> Result<LearnOptions, Trouble> {
        let mut options = LearnOptions::new();
        if let Some(text) = &self.description {
            options = options.description(text);
        }
        if let Some(text) = &self.metadata {
            let object = serde_json::from_str(text)
                .map_err(|error| Trouble::Usage(format!("--metadata is not JSON: {error}")))?;
            options = options.metadata(object);
        }
        if self.if_absent {
            options = options.if_absent();
        }
        if let Some(version) = self.if_version {
            options = options.if_version(version);
        }
        if let Some(ttl) = self.lifetime.ttl {
            options = if self.lifetime.sliding { options.sliding_ttl(ttl) } else { options.ttl(ttl) };
        }
        Ok(options)
    }

    /// Looks before a long file is read in vain; the store checks again when it binds the name.
    fn check_absent(&self, brain: &Brain) -> Result<(), Trouble> {
        if !self.if_absent || !brain.exists(&self.name)? {
            return Ok(());
        }
        let found = brain.metadata(&self.name)?.map(|found| found.version);
        let (namespace, name) = (brain.namespace().to_owned(), self.name.clone());
        Err(Error::ConditionFailed { namespace, name, expect: Expect::Absent, found }.into())
    }

    fn learn(&self, brain: &Brain, options: &LearnOptions, input: Input) -> Result<Learned, Trouble> {
        let (path, format) = (&self.file, input.format);
        let unreadable = |source| Trouble::Unreadable { path: path.clone(), format: format.name(), source };
        let arrow = |error: ArrowError| unreadable(error.into());
        let doing = format!("putting {}", plain(&self.name));
        let learn = Learner { put: self, brain, options, format };
        match (format, input.content) {
            (Format::Stream, content) => {
                let progress = Progress::new(doing, Unit::Bytes, content.len_bytes());
                let counted = Counted { inner: content.into_read(), progress: &progress };
                let reader = StreamReader::try_new(BufReader::with_capacity(PIECE_BYTES, counted), None);
                let reader = reader.map_err(arrow)?;
                learn.table(&reader.schema(), reader)
            }
            (_, Content::Pipe(_)) => Err(unreadable("a pipe cannot be read twice".into())),
            (Format::Ipc, Content::File { file, len_bytes }) => {
                let progress = Progress::new(doing, Unit::Bytes, Some(len_bytes));
                let counted = Counted { inner: file, progress: &progress };
                let reader = FileReader::try_new(BufReader::with_capacity(PIECE_BYTES, counted), None);
                let reader = reader.map_err(arrow)?;
                learn.table(&reader.schema(), reader)
            }
            (Format::Parquet, Content::File { file, .. }) => {
                let builder = ParquetRecordBatchReaderBuilder::try_new(file)
                    .map_err(|error| unreadable(error.into()))?;
                let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).ok();
                let progress = Progress::new(doing, Unit::Rows, rows);
                let reader = builder.with_batch_size(BATCH_ROWS).build();
                let reader = reader.map_err(|error| unreadable(error.into()))?;
                let counted = |batch: &RecordBatch| progress.add(batch.num_rows() as u64);
                let schema = reader.schema();
                learn.table(&schema, reader.inspect(|batch| batch.iter().for_each(counted)))
            }
            (Format::Csv, Content::File { file, len_bytes }) => {
                // Read twice: once for the types of the columns.
                let progress = Progress::new(doing, Unit::Bytes, Some(len_bytes * 2));
                let reader = self.csv.open(path, &file, &progress).map_err(arrow)?;
                learn.table(&reader.schema(), reader)
            }
            (Format::Jsonl, Content::File { file, len_bytes }) => {
                let progress = Progress::new(doing, Unit::Bytes, Some(len_bytes * 2));
                let counted =
                    |inner| BufReader::with_capacity(PIECE_BYTES, Counted { inner, progress: &progress });
                let (schema, _) =
                    arrow_json::reader::infer_json_schema(counted(&file), None).map_err(arrow)?;
                let schema = Arc::new(schema);
                (&file).rewind().map_err(file_trouble("read", path))?;
                let builder = arrow_json::ReaderBuilder::new(Arc::clone(&schema)).with_batch_size(BATCH_ROWS);
                learn.table(&schema, builder.build(counted(&file)).map_err(arrow)?)
            }
            (Format::Npy, Content::File { mut file, len_bytes }) => {
                let npy = Npy::read(&mut file).map_err(|error| unreadable(error.into()))?;
                let header_bytes = file.stream_position().map_err(file_trouble("read", path))?;
                let (found, said) = (len_bytes - header_bytes.min(len_bytes), npy.len_bytes());
                if said != Some(found) {
                    let said = said.map_or("more than there can be".to_owned(), |bytes| bytes.to_string());
                    let what =
                        format!("the header says that {said} bytes of elements follow it, and {found} do");
                    return Err(unreadable(what.into()));
                }
                learn.tensor(file, &npy, found, &doing)
            }
            (Format::Raw, Content::File { file, len_bytes }) => learn.raw(file, len_bytes, &doing),
            (Format::Text, Content::File { file, len_bytes }) => {
                let text = String::from_utf8(read_all(path, file, len_bytes)?);
                learn.value(&text.map_err(|error| unreadable(error.into()))?)
            }
            (Format::Json, Content::File { file, len_bytes }) => {
                let value = serde_json::from_slice(&read_all(path, file, len_bytes)?);
                learn.value::<serde_json::Value>(&value.map_err(|error| unreadable(error.into()))?)
            }
        }
    }
}

/// What is the same for all formats.
struct Learner<'a> {
    put: &'a Put,
    brain: &'a Brain,
    options: &'a LearnOptions,
    format: Format,
}

impl Learner<'_> {
    /// Writes batches into the store as they come, so that no more than one of them is held twice.
    fn table(
        &self,
        schema: &SchemaRef,
        batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
    ) -> Result<Learned, Trouble> {
        let Learner { put: Put { file, name, .. }, brain, options, format } = self;
        let format = format.name();
        let unreadable =
            |error: ArrowError| Trouble::Unreadable { path: file.clone(), format, source: error.into() };
        let mut batches = batches.map(|batch| batch.map_err(unreadable));
        if has_dictionaries(schema) {
            // An object has one dictionary for each column, so all batches have to be seen before one is written.
            let batches = batches.collect::<Result<Vec<_>, _>>()?;
            let table = Table::new(Arc::clone(schema), batches).map_err(Error::from)?;
            let rows = Some(table.num_rows() as u64);
            return Ok(Learned { rows, ..self.value(&table)? });
        }
        let mut writer = brain.writer(name, schema)?;
        batches.try_for_each(|batch| Ok::<_, Trouble>(writer.write(&batch?)?))?;
        let (rows, len_bytes) = (Some(writer.rows()), writer.len_bytes());
        Ok(Learned { version: writer.finish_with(options)?, rows, len_bytes })
    }

    /// Reads bytes straight into shared memory.
    fn raw(&self, file: File, len_bytes: u64, doing: &str) -> Result<Learned, Trouble> {
        let Learner { put: Put { file: path, name, .. }, brain, options, .. } = self;
        if len_bytes <= SMALL_BYTES {
            return self.value(&read_all(path, file, len_bytes)?);
        }
        let mut writable = brain.create(name, len_bytes)?;
        self.fill(&mut writable, file, len_bytes, doing)?;
        Ok(Learned { version: writable.seal_with(options)?, rows: None, len_bytes })
    }

    /// Reads the elements of an array straight into shared memory.
    fn tensor(&self, file: File, npy: &Npy, len_bytes: u64, doing: &str) -> Result<Learned, Trouble> {
        let mut writable =
            self.brain.create_tensor(&self.put.name, npy.dtype, &npy.shape, npy.column_major)?;
        self.fill(&mut writable, file, len_bytes, doing)?;
        npy.to_little_endian(&mut writable);
        Ok(Learned { version: writable.seal_with(self.options)?, rows: None, len_bytes })
    }

    fn fill(&self, memory: &mut [u8], mut file: File, len_bytes: u64, doing: &str) -> Result<(), Trouble> {
        let progress = Progress::new(doing, Unit::Bytes, Some(len_bytes));
        for piece in memory.chunks_mut(PIECE_BYTES) {
            file.read_exact(piece).map_err(file_trouble("read all of", &self.put.file))?;
            progress.add(piece.len() as u64);
        }
        Ok(())
    }

    fn value<V: crate::Learn + ?Sized>(&self, value: &V) -> Result<Learned, Trouble> {
        let version = self.brain.learn_with(&self.put.name, value, self.options)?;
        Ok(Learned { version, rows: None, len_bytes: 0 })
    }
}

/// A file to read, and what it is.
struct Input {
    format: Format,
    content: Content,
}

enum Content {
    /// Can be read in any order, and as often as needed.
    File { file: File, len_bytes: u64 },
    /// Can be read once.
    Pipe(Box<dyn Read>),
}

impl Input {
    fn open(path: &Path, asked: Option<Format>) -> Result<Input, Trouble> {
        let (mut reader, file): (Box<dyn Read>, Option<File>) = if path == Path::new("-") {
            (Box::new(io::stdin()), None)
        } else {
            let file = File::open(path).map_err(file_trouble("open", path))?;
            let metadata = file.metadata().map_err(file_trouble("look at", path))?;
            if metadata.is_dir() {
                return Err(Trouble::Usage(format!("{} is a directory; name a file in it", path.display())));
            }
            let regular = metadata.is_file().then(|| file.try_clone()).transpose();
            (Box::new(file), regular.map_err(file_trouble("open", path))?)
        };
        let mut head = head_of(path, &mut reader)?;
        let inner = Packing::of_path(path).map_or_else(|| path.to_owned(), |(_, inner)| inner);
        // Bytes stay what they are, whatever they are.
        let as_it_is = asked.or_else(|| Format::of_path(&inner)) == Some(Format::Raw);
        let mut content = None;
        if let Some(packing) = Packing::of_head(&head).filter(|_| !as_it_is) {
            let packed = io::Cursor::new(head).chain(reader);
            reader = packing.unpack(packed).map_err(file_trouble("unpack", path))?;
            head = head_of(path, &mut reader)?;
        } else if let Some(mut file) = file {
            file.rewind().map_err(file_trouble("read", path))?;
            let len_bytes = file.metadata().map_err(file_trouble("look at", path))?.len();
            content = Some(Content::File { file, len_bytes });
        }
        let guessed = Format::of_head(&head).or_else(|| Format::of_path(&inner));
        let Some(format) = asked.or(guessed) else {
            return Err(unknown_format(path, &head));
        };
        let content = match content {
            Some(content) => content,
            None => {
                let whole = io::Cursor::new(head).chain(reader);
                if format == Format::Stream { Content::Pipe(Box::new(whole)) } else { set_down(path, whole)? }
            }
        };
        Ok(Input { format, content })
    }
}

/// The first bytes of what `reader` reads, enough to know a format by.
fn head_of(path: &Path, reader: &mut dyn Read) -> Result<Vec<u8>, Trouble> {
    let mut head = Vec::new();
    reader.take(8).read_to_end(&mut head).map_err(file_trouble("read", path))?;
    Ok(head)
}

fn unknown_format(path: &Path, head: &[u8]) -> Trouble {
    let packed = match head {
        [b'B', b'Z', b'h', ..] => Some("bzcat"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Some("xzcat"),
        _ => None,
    };
    let path = path.display();
    Trouble::Usage(match packed {
        Some(cat) => {
            format!("{path} is packed; unpack it first: {cat} {path} | plasmon put NAME - --format FORMAT")
        }
        None => format!(
            "the format of {path} is not known by its name; say --format ipc, stream, parquet, csv, json, jsonl, npy, \
             raw or text"
        ),
    })
}

impl Content {
    fn len_bytes(&self) -> Option<u64> {
        match self {
            Content::File { len_bytes, .. } => Some(*len_bytes),
            Content::Pipe(_) => None,
        }
    }

    fn into_read(self) -> Box<dyn Read> {
        match self {
            Content::File { file, .. } => Box::new(file),
            Content::Pipe(pipe) => pipe,
        }
    }
}

/// Writes what can be read only once into a file without a name, because its format needs to be read twice, or its
/// length be known.
fn set_down(path: &Path, mut pipe: impl Read) -> Result<Content, Trouble> {
    let mut file = tempfile::tempfile().map_err(file_trouble("make a temporary file for", path))?;
    let progress = Progress::new("reading", Unit::Bytes, None);
    let mut counted = Counted { inner: &mut pipe, progress: &progress };
    let len_bytes = io::copy(&mut counted, &mut file)
        .map_err(file_trouble("copy into a temporary file ($TMPDIR may be elsewhere) all of", path))?;
    file.rewind().map_err(file_trouble("read", path))?;
    Ok(Content::File { file, len_bytes })
}

fn read_all(path: &Path, mut file: File, len_bytes: u64) -> Result<Vec<u8>, Trouble> {
    let mut bytes = Vec::with_capacity(plasmon_protocol::index_of(len_bytes));
    file.read_to_end(&mut bytes).map_err(file_trouble("read", path))?;
    Ok(bytes)
}

fn has_dictionaries(schema: &Schema) -> bool {
    let is_dictionary = |data_type: &DataType| matches!(data_type, DataType::Dictionary(..));
    schema.flattened_fields().iter().any(|field| is_dictionary(field.data_type()))
}

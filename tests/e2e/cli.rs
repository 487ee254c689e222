//! The command line, against a real daemon and with real files.

use crate::{CLIENT, PLASMON, STORE};
use arrow_array::{
    Array, DictionaryArray, Int64Array, RecordBatch, StringArray, record_batch, types::Int32Type,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use plasmon::{Brain, Error, History, LearnOptions, Table};
use plasmon_protocol::{
    message::{Bind, Change, Commit, Payload},
    name::{Name, Namespace},
    object::{Header, Kind},
};
use plasmon_tests::{
    TestResult,
    client::Client,
    daemon::{Daemon, run},
    eventually,
    raw::RawSession,
};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

/// A store, a directory for files, and the command line that talks to the one about the other.
struct Bench {
    daemon: Daemon,
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench::with_size("32MiB")
    }

    fn with_size(size: &str) -> Bench {
        Bench { daemon: Daemon::start(STORE, size), directory: tempfile::tempdir().expect("a directory") }
    }

    fn socket(&self) -> &str {
        self.daemon.socket().to_str().expect("temporary paths are text")
    }

    fn brain(&self) -> Brain {
        Brain::builder().path(self.socket()).connect().expect("the store answers")
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// A file with this content.
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), content).expect("a file");
        self.path(name)
    }

    /// Exit code, standard output, standard error.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        run(PLASMON, &[&["--socket", self.socket()], arguments].concat())
    }

    /// Standard output of what must succeed without a word on standard error.
    fn ok(&self, arguments: &[&str]) -> String {
        let (code, stdout, stderr) = self.run(arguments);
        assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}: {stdout}");
        stdout
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let stdout = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {stdout}"))
    }

    /// What must fail with this code, and one line on standard error that says all of `parts`.
    fn fails(&self, code: i32, arguments: &[&str], parts: &[&str]) {
        let (found, _, stderr) = self.run(arguments);
        assert_eq!(found, code, "{arguments:?}: {stderr}");
        assert_one_line(&stderr, parts);
    }

    /// Standard output, bytes as they are, with `input` on standard input.
    fn pipe(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new(PLASMON)
            .args(["--socket", self.socket()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.to_vec();
        let writing = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{arguments:?}");
        writing.join().expect("no panic").expect("it read all");
        output.stdout
    }

    /// A process that holds `name`.
    fn holder(&self, name: &str) -> Client {
        let mut holder = Client::start(CLIENT, self.daemon.socket());
        holder.ask(&format!("hold {name}"));
        holder
    }
}

fn assert_one_line(stderr: &str, parts: &[&str]) {
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{part:?} is not in {stderr:?}");
    }
}

fn parquet_batches(path: impl AsRef<Path>) -> Vec<RecordBatch> {
    let file = File::open(path).expect("a file");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("Parquet");
    reader.collect::<Result<_, _>>().expect("valid batches")
}

fn ipc_file(batches: &[RecordBatch], options: arrow_ipc::writer::IpcWriteOptions) -> Vec<u8> {
    let mut writer =
        arrow_ipc::writer::FileWriter::try_new_with_options(Vec::new(), &batches[0].schema(), options)
            .expect("a file");
    batches.iter().for_each(|batch| writer.write(batch).expect("room"));
    writer.into_inner().expect("a whole file")
}

fn ipc_stream(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer =
        arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &batches[0].schema()).expect("a stream");
    batches.iter().for_each(|batch| writer.write(batch).expect("room"));
    writer.into_inner().expect("a whole stream")
}

fn numbers(count: i64) -> RecordBatch {
    let numbers = Int64Array::from_iter_values(0..count);
    RecordBatch::try_from_iter([("n", Arc::new(numbers) as _)]).expect("one column")
}

/// To describe a name is not to recall it.
#[test]
fn stat_says_when_a_name_was_last_recalled() {
    let bench = Bench::new();
    let brain = bench.brain();
    brain.learn("described", &[1_u8; 1_000]).expect("there is room");
    brain.learn("recalled", &[2_u8; 1_000]).expect("there is room");
    assert!(bench.ok(&["stat", "described"]).contains("last recall  none\n"));
    bench.ok(&["get", "recalled"]); // noted after what `stat` would have noted
    let last_recall = |name: &str| bench.json(&["stat", name])["recalled"].clone();
    eventually("the recall is known", || last_recall("recalled").is_number());
    assert_eq!(last_recall("described"), Value::Null);
    assert!(bench.ok(&["stat", "recalled"]).contains(" s ago\n"));
}

#[test]
fn a_csv_file_comes_out_as_parquet_with_types_and_nulls() -> TestResult {
    let bench = Bench::new();
    let csv = bench.file(
        "in.csv",
        "\u{feff}city,people,share,day\nOslo,700000,0.5,2024-01-31\n\"a, b\",NA,,NA\nNAME,3,1,2024-02-01\n",
    );
    let line = bench.ok(&["put", "cities", &csv, "--description", "of the north"]);
    assert!(line.starts_with("cities: version 1, 3 rows, "), "{line}");

    let out = bench.path("out.parquet");
    let line = bench.ok(&["get", "cities", "-o", &out]);
    assert!(line.contains("version 1") && line.contains("Parquet"), "{line}");
    let batches = parquet_batches(&out);
    let expected = record_batch!(
        ("city", Utf8, [Some("Oslo"), Some("a, b"), Some("NAME")]),
        ("people", Int64, [Some(700_000), None, Some(3)]),
        ("share", Float64, [Some(0.5), None, Some(1.0)])
    )?;
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].project(&[0, 1, 2])?.columns(), expected.columns());
    assert_eq!(batches[0].schema().field(3).data_type(), &arrow_schema::DataType::Date32);
    assert_eq!(batches[0].column(3).null_count(), 1);

    // And back as CSV, and Parquet in again.
    assert_eq!(
        bench.ok(&["get", "cities", "--format", "csv"]),
        "city,people,share,day\nOslo,700000,0.5,2024-01-31\n\"a, b\",,,\nNAME,3,1.0,2024-02-01\n"
    );
    bench.ok(&["put", "again", &out]);
    assert_eq!(bench.brain().recall::<Table>("again")?[..], batches);
    Ok(())
}

#[test]
fn csv_is_read_as_it_is_said_to_be() -> TestResult {
    let bench = Bench::new();
    let csv = bench.file("in.txt", "007;x;\n008;-;1\n");
    let arguments = [
        "put",
        "t",
        &csv,
        "--format",
        "csv",
        "--delimiter",
        ";",
        "--no-header",
        "--null=-|",
        "--text",
        "column_1",
    ];
    bench.ok(&arguments);
    assert_eq!(
        bench.ok(&["get", "t", "--format", "csv", "--no-header", "--delimiter", "\\t"]),
        "007\tx\t\n008\t\t1\n"
    );
    let tsv = bench.file("in.tsv", "a\tb\n1\t2\n");
    assert_eq!(bench.json(&["put", "tsv", &tsv])["rows"], 1);
    assert_eq!(bench.brain().recall::<Table>("tsv")?.schema().fields().len(), 2);
    // Only names.
    let empty = bench.file("empty.csv", "a,b\n");
    bench.ok(&["put", "empty", &empty]);
    assert_eq!(bench.ok(&["get", "empty", "--format", "csv"]), "a,b\n");
    // A value that looks like a date and is none is named, and --text helps.
    let odd = bench.file("odd.csv", "d\n2024-02-30\n");
    bench.fails(1, &["put", "odd", &odd], &["odd.csv", "as CSV", "2024-02-30"]);
    bench.ok(&["put", "odd", &odd, "--text", "d"]);
    bench.fails(1, &["put", "odd", &odd, "--text", "e"], &["no such column"]);
    Ok(())
}

/// Times with a zone are moments: they are the same moments, and have a zone, when they have been text in between.
#[test]
fn csv_keeps_the_zones_of_times_there_and_back() -> TestResult {
    let bench = Bench::new();
    let type_of = |name: &str, column: &str| {
        let table: Table = bench.brain().recall(name).expect("a table");
        table.schema().field_with_name(column).expect("a column").data_type().to_string()
    };
    let csv = bench.file(
        "times.csv",
        "utc,fixed,summer,naive,mixed\n\
         2024-07-01T12:00:00Z,2024-07-01T12:00:00+05:30,2024-07-01T12:00:00+02:00,2024-07-01T12:00:00,2024-07-01T12:00:00Z\n\
         ,2024-12-01T12:00:00.250+05:30,2024-12-01T12:00:00+01:00,,2024-07-01T12:00:00\n",
    );
    bench.ok(&["put", "times", &csv]);
    let types = ["utc", "fixed", "summer", "naive", "mixed"].map(|column| type_of("times", column));
    let expected = [
        "Timestamp(s, \"UTC\")",
        "Timestamp(ms, \"+05:30\")",
        "Timestamp(s, \"UTC\")",
        "Timestamp(s)",
        "Utf8", // nobody knows when the second one is
    ];
    assert_eq!(types, expected);
    let again = bench.path("again.csv");
    bench.ok(&["get", "times", "-o", &again]);
    assert_eq!(
        fs::read_to_string(&again)?,
        "utc,fixed,summer,naive,mixed\n\
         2024-07-01T12:00:00Z,2024-07-01T12:00:00+05:30,2024-07-01T10:00:00Z,2024-07-01T12:00:00,2024-07-01T12:00:00Z\n\
         ,2024-12-01T12:00:00.250+05:30,2024-12-01T11:00:00Z,,2024-07-01T12:00:00\n"
    );
    bench.ok(&["put", "again", &again]);
    assert_eq!(bench.brain().recall::<Table>("again")?[..], bench.brain().recall::<Table>("times")?[..]);

    // A zone with a name stands in Parquet and Arrow; a reader of CSV says it anew.
    bench.ok(&["put", "berlin", &csv, "--zone", "Europe/Berlin"]);
    assert_eq!(type_of("berlin", "summer"), "Timestamp(s, \"Europe/Berlin\")");
    let berlin = bench.path("berlin.csv");
    bench.ok(&["get", "berlin", "-o", &berlin]);
    assert!(fs::read_to_string(&berlin)?.contains("2024-07-01T12:00:00+02:00"));
    bench.ok(&["put", "berlin-again", &berlin, "--zone", "Europe/Berlin"]);
    assert_eq!(
        bench.brain().recall::<Table>("berlin-again")?[..],
        bench.brain().recall::<Table>("berlin")?[..]
    );
    assert!(bench.ok(&["get", "berlin", "--format", "jsonl"]).contains("2024-07-01T12:00:00+02:00"));
    let (code, _, stderr) = bench.run(&["put", "x", &csv, "--zone", "Mars/Olympus"]);
    assert!(code == 2 && stderr.contains("such as Europe/Berlin"), "{stderr}");
    Ok(())
}

#[test]
fn what_stands_between_the_fields_of_csv_is_found_or_named() -> TestResult {
    let bench = Bench::new();
    for (name, text) in
        [("semicolon", "a;b;c\n1,5;2;x\n2,5;3;y\n"), ("tab", "a\tb\tc\n1\t2\t3\n"), ("bar", "a|b|c\n1|2|3\n")]
    {
        bench.ok(&["put", name, &bench.file(&format!("{name}.csv"), text)]);
        assert_eq!(bench.brain().recall::<Table>(name)?.schema().fields().len(), 3, "{name}");
    }
    let ragged = bench.file("ragged.csv", "a,b\n1,2\n1,2,3\n");
    bench.fails(1, &["put", "ragged", &ragged], &["ragged.csv", "line", "','", "--delimiter"]);
    let utf16 = bench.file("utf16.csv", b"\xff\xfea\0\n\0");
    bench.fails(1, &["put", "utf16", &utf16], &["UTF-16", "iconv"]);
    Ok(())
}

#[test]
fn packed_files_go_in_and_come_out() -> TestResult {
    let bench = Bench::new();
    let batch = numbers(100_000);
    bench.brain().learn("t", &batch)?;
    for (file, magic) in
        [("t.csv.gz", &[0x1f, 0x8b][..]), ("t.jsonl.zst", &[0x28, 0xb5]), ("t.parquet.gz", &[0x1f, 0x8b])]
    {
        let path = bench.path(file);
        bench.ok(&["get", "t", "-o", &path]);
        let packed = fs::read(&path)?;
        assert!(packed.starts_with(magic) && packed.len() < 400_000, "{file}: {} bytes", packed.len());
        assert_eq!(bench.json(&["put", "again", &path])["rows"], 100_000, "{file}");
        let column: Vec<i64> = bench
            .brain()
            .recall::<Table>("again")?
            .iter()
            .flat_map(|batch| {
                batch.column(0).as_any().downcast_ref::<Int64Array>().expect("int64").values().to_vec()
            })
            .collect();
        assert_eq!(column, (0..100_000).collect::<Vec<i64>>(), "{file}");
        bench.pipe(
            &[
                "put",
                "piped",
                "-",
                "--format",
                if file.contains("csv") {
                    "csv"
                } else if file.contains("jsonl") {
                    "jsonl"
                } else {
                    "parquet"
                },
            ],
            &packed,
        );
        assert_eq!(bench.brain().recall::<Table>("piped")?.num_rows(), 100_000, "{file}");
    }
    // Bytes stay what they are.
    let packed = fs::read(bench.path("t.csv.gz"))?;
    bench.ok(&["put", "bytes", &bench.path("t.csv.gz"), "--format", "raw"]);
    assert_eq!(bench.brain().recall::<plasmon::Blob>("bytes")?[..], packed[..]);
    bench.ok(&["get", "bytes", "-o", &bench.path("bytes.gz")]);
    assert_eq!(fs::read(bench.path("bytes.gz"))?, packed);
    // Cut off, and packed in a way that is not read here.
    let half = bench.file("half.csv.gz", &packed[..packed.len() / 2]);
    bench.fails(1, &["put", "half", &half], &["half.csv.gz"]);
    assert!(!bench.brain().exists("half")?);
    bench.fails(2, &["put", "b", &bench.file("b.csv.bz2", b"BZh91AY&SY")], &["bzcat", "--format"]);
    Ok(())
}

#[test]
fn json_lines_are_rows() -> TestResult {
    let bench = Bench::new();
    let lines = "{\"a\":1,\"b\":\"x\"}\n{\"a\":2,\"b\":null}\n";
    assert_eq!(bench.json(&["put", "t", &bench.file("t.jsonl", lines)])["rows"], 2);
    let out = bench.path("out.ndjson");
    bench.ok(&["get", "t", "-o", &out]);
    assert_eq!(fs::read_to_string(&out)?, lines);
    assert_eq!(bench.ok(&["get", "t", "--format", "jsonl", "--rows", "1"]).lines().count(), 1);
    bench.fails(1, &["put", "bad", &bench.file("bad.jsonl", "[1,2\n")], &["bad.jsonl", "as JSON lines"]);
    Ok(())
}

#[test]
fn npy_files_are_tensors() -> TestResult {
    let bench = Bench::new();
    let count: Vec<f32> = (0..600_u16).map(f32::from).collect();
    bench.brain().learn("c", &plasmon::Tensor::new(&[20, 30], &count)?)?;
    bench.brain().learn("f", &plasmon::Tensor::column_major(&[20, 30], &count)?)?;
    for name in ["c", "f"] {
        let path = bench.path(&format!("{name}.npy"));
        bench.ok(&["get", name, "-o", &path]);
        bench.ok(&["put", "again", &path]);
        let (before, after): (plasmon::TensorView, plasmon::TensorView) =
            (bench.brain().recall(name)?, bench.brain().recall("again")?);
        assert_eq!(after, before);
    }
    let whole = fs::read(bench.path("c.npy"))?;
    let cut = bench.file("cut.npy", &whole[..whole.len() - 1]);
    bench.fails(1, &["put", "cut", &cut], &["cut.npy", "2400", "2399"]);
    bench.brain().learn("t", &numbers(3))?;
    bench.fails(1, &["get", "t", "-o", &bench.path("t.npy")], &["an .npy file", "one tensor"]);
    Ok(())
}

/// What `plasmon` writes to a terminal of `columns` columns, and its exit code.
fn on_terminal(bench: &Bench, columns: u16, arguments: &[&str]) -> (String, i32) {
    let size = nix::pty::Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(Some(&size), None).expect("a terminal");
    let mut child = Command::new(PLASMON)
        .args(["--socket", bench.socket()])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(pty.slave)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let (mut shown, mut master) = (Vec::new(), File::from(pty.master));
    // The error that says that the last writer has gone ends the reading.
    let _ = master.read_to_end(&mut shown);
    let code = child.wait().expect("it ends").code().expect("no signal");
    (String::from_utf8(shown).expect("text").replace("\r\n", "\n"), code)
}

#[test]
fn a_terminal_is_shown_rows_and_no_bytes() -> TestResult {
    let bench = Bench::new();
    bench.brain().learn("t", &numbers(1_000))?;
    bench.brain().learn("tensor", &plasmon::Tensor::new(&[2, 2], &[1.5_f64, 2.0, 3.0, 4.0])?)?;
    bench.brain().learn("bytes", &[0_u8, 27, 255][..])?;
    bench.brain().learn("text", "red\u{1b}[31m\n")?;
    let (shown, code) = on_terminal(&bench, 80, &["get", "t"]);
    assert!(code == 0 && shown.starts_with("n\n0\n1\n"), "{shown}");
    let (shown, _) = on_terminal(&bench, 80, &["get", "tensor"]);
    assert!(shown.starts_with("1.5 2\n3 4\ntensor of shape [2, 2], float64"), "{shown}");
    assert_eq!(on_terminal(&bench, 80, &["get", "text"]), ("red\\u{1b}[31m\n\n".to_owned(), 0));
    for arguments in [
        &["get", "t", "--format", "ipc"][..],
        &["get", "t", "--format", "parquet", "-o", "-"],
        &["get", "tensor", "--format", "npy"],
        &["get", "bytes", "--format", "raw"],
        &["get", "text", "--format", "raw"],
    ] {
        assert_eq!(on_terminal(&bench, 80, arguments), (String::new(), 2), "{arguments:?}");
    }
    let (shown, code) = on_terminal(&bench, 80, &["get", "t", "--format", "csv"]);
    assert!(code == 0 && shown.lines().count() == 1_001);
    Ok(())
}

#[test]
fn ls_takes_patterns_sorts_and_fits_the_terminal() -> TestResult {
    let bench = Bench::new();
    let brain = bench.brain();
    let long = format!("measurements/{}/2024-07-01", "site".repeat(20));
    for (name, bytes) in [("day-1", 100), ("day-10", 300), ("day-2", 200), ("week[1]", 40), (&long, 50)] {
        brain.learn(name, &vec![7_u8; bytes])?;
    }
    let names = |arguments: &[&str]| -> Vec<String> {
        let rows = bench.json(&[&["ls"], arguments].concat());
        rows.as_array()
            .expect("a list")
            .iter()
            .map(|row| row["name"].as_str().expect("a text").to_owned())
            .collect()
    };
    assert_eq!(names(&["day-?"]), ["day-1", "day-2"]);
    assert_eq!(names(&["*1"]), ["day-1", &long]);
    assert_eq!(names(&["week[[]*"]), ["week[1]"]);
    assert_eq!(names(&["day-1"]), ["day-1", "day-10"], "a prefix, as ever");
    assert_eq!(names(&["day*", "--sort", "bytes"]), ["day-10", "day-2", "day-1"]);
    assert_eq!(names(&["day*", "--sort", "version", "--reverse"]), ["day-1", "day-10", "day-2"]);
    assert_eq!(names(&["day*", "-r"]), ["day-2", "day-10", "day-1"]);
    bench.fails(2, &["ls", "a["], &["a[", "pattern"]);
    for arguments in [&["ls"][..], &["ls", "--all"]] {
        let (shown, code) = on_terminal(&bench, 60, arguments);
        assert_eq!(code, 0);
        let widest = shown.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(60), "{widest:?}: {shown}");
        assert!(shown.contains("day-10") && shown.contains("…") && shown.contains("24-07-01"), "{shown}");
    }
    assert!(bench.ok(&["ls"]).contains(&long), "a pipe has no width");
    Ok(())
}

#[test]
fn ipc_files_and_streams_go_in_and_come_out() -> TestResult {
    let bench = Bench::new();
    let batches = [numbers(10), numbers(3)];
    let plain = ipc_file(&batches, arrow_ipc::writer::IpcWriteOptions::default());
    // Feather files are compressed unless told otherwise.
    let options = arrow_ipc::writer::IpcWriteOptions::default()
        .try_with_compression(Some(arrow_ipc::CompressionType::LZ4_FRAME))?;
    let compressed = ipc_file(&batches, options);
    for (name, file) in [("plain.arrow", &plain), ("compressed.feather", &compressed)] {
        assert_eq!(bench.json(&["put", name, &bench.file(name, file)])["rows"], 13);
        assert_eq!(bench.brain().recall::<Table>(name)?[..], batches);
    }
    // Through pipes, in every form that is known by its first bytes.
    for (name, input) in [("a", &plain), ("b", &ipc_stream(&batches))] {
        bench.pipe(&["put", name, "-"], input);
        assert_eq!(bench.brain().recall::<Table>(name)?[..], batches);
    }
    bench.pipe(&["put", "c", "-", "--format", "csv"], b"n\n1\n2\n");
    assert_eq!(bench.brain().recall::<Table>("c")?.num_rows(), 2);

    // Out to a pipe: the object as it is.
    let piped = bench.pipe(&["get", "a"], b"");
    assert_eq!(piped, *bench.brain().recall::<plasmon::Object>("a")?.as_ipc()?);
    assert_eq!(Table::from_ipc(piped)?[..], batches);
    let stream = bench.path("out.arrows");
    bench.ok(&["get", "a", "-o", &stream]);
    let reader = arrow_ipc::reader::StreamReader::try_new(File::open(stream)?, None)?;
    assert_eq!(reader.collect::<Result<Vec<_>, _>>()?, batches);
    Ok(())
}

/// An object has one dictionary for each column; a stream may replace it from batch to batch.
#[test]
fn a_stream_with_changing_dictionaries_is_stored_with_one() -> TestResult {
    let bench = Bench::new();
    let batch = |words: &[&str]| {
        let words: DictionaryArray<Int32Type> = words.iter().copied().collect();
        RecordBatch::try_from_iter([("word", Arc::new(words) as _)])
    };
    let stream = ipc_stream(&[batch(&["a", "b"])?, batch(&["c", "b"])?]);
    bench.pipe(&["put", "words", "-"], &stream);
    assert_eq!(bench.ok(&["get", "words", "--format", "csv"]), "word\na\nb\nc\nb\n");
    Ok(())
}

#[test]
fn bytes_text_and_json_come_back_as_they_were() -> TestResult {
    let bench = Bench::new();
    let long: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    for (name, content) in [("empty", &[][..]), ("short", &[0, 255, 10]), ("long", &long)] {
        let file = bench.file(name, content);
        bench.ok(&["put", name, &file, "--format", "raw"]);
        assert_eq!(bench.pipe(&["get", name], b""), content, "{name}");
        bench.pipe(&["put", "piped", "-", "--format", "raw"], content);
        let out = bench.path("out.csv"); // bytes stay bytes, whatever their file is called
        bench.ok(&["get", "piped", "-o", &out]);
        assert_eq!(fs::read(&out)?, content, "{name}");
    }
    bench.pipe(&["put", "text", "-", "--format", "text"], "zwölf\n".as_bytes());
    assert_eq!(bench.brain().recall::<String>("text")?, "zwölf\n");
    bench.ok(&["put", "config", &bench.file("config.json", r#"{"b": [1, 2.5, null]}"#)]);
    assert_eq!(bench.brain().recall::<Value>("config")?, json!({"b": [1, 2.5, null]}));
    assert_eq!(bench.ok(&["get", "config"]), r#"{"b":[1,2.5,null]}"#);
    bench.brain().learn("answer", &42)?;
    assert_eq!(bench.ok(&["get", "answer"]), "42\n");
    bench.fails(1, &["put", "bad", &bench.file("bad.txt", [0xff])], &["bad.txt", "as text", "utf-8"]);
    bench.fails(1, &["get", "answer", "--format", "raw"], &["\"answer\"", "int64", "--format ipc"]);
    Ok(())
}

#[test]
fn a_get_that_fails_leaves_the_file_as_it_was() {
    let bench = Bench::new();
    bench.brain().learn("t", &numbers(3)).expect("there is room");
    let out = bench.file("out.bin", "precious");
    bench.fails(1, &["get", "t", "-o", &out], &["kind table", "raw bytes"]);
    bench.fails(3, &["get", "absent", "-o", &out], &["absent"]);
    assert_eq!(fs::read_to_string(&out).expect("it is there"), "precious");
    assert_eq!(fs::read_dir(bench.directory.path()).expect("a directory").count(), 1, "nothing half written");
    bench.fails(2, &["get", "t", "-o", &bench.path("")], &["is a directory"]);
    bench.fails(1, &["get", "t", "-o", &bench.path("no/such/folder.csv")], &["no/such ("]);
}

/// A file is what its name says, whatever the kind of the value; or nothing is written.
#[test]
fn json_and_texts_go_into_files_as_their_names_say() -> TestResult {
    let bench = Bench::new();
    bench.brain().learn("listed", &plasmon::Json::new("[1,{\"a\":2}]".to_owned())?)?;
    bench.brain().learn("said", "a,b\n1,2\n")?;
    let got = |name: &str, file: &str| {
        bench.ok(&["get", name, "-o", &bench.path(file)]);
        fs::read_to_string(bench.path(file))
    };
    assert_eq!(got("listed", "out.json")?, "[1,{\"a\":2}]");
    assert_eq!(got("listed", "out.jsonl")?, "1\n{\"a\":2}\n");
    assert_eq!(got("listed", "out.csv")?, "value\n\"[1,{\"\"a\"\":2}]\"\n");
    assert_eq!(got("said", "out.csv")?, "a,b\n1,2\n");
    for name in ["listed", "said"] {
        bench.ok(&["get", name, "-o", &bench.path("out.parquet")]);
        assert_eq!(parquet_batches(bench.path("out.parquet"))[0].num_rows(), 1);
        bench.fails(1, &["get", name, "-o", &bench.path("out.npy")], &["one tensor"]);
    }
    Ok(())
}

/// Ours take a byte, and are an extension of Arrow's.
#[test]
fn truth_values_are_written_as_such() -> TestResult {
    let bench = Bench::new();
    bench.brain().learn("true", &plasmon::Tensor::new(&[2], &[true, false])?)?;
    assert_eq!(bench.ok(&["get", "true", "--format", "csv"]), "value\ntrue\nfalse\n");
    assert_eq!(bench.ok(&["get", "true", "--format", "jsonl"]), "{\"value\":true}\n{\"value\":false}\n");
    Ok(())
}

#[test]
fn two_columns_of_one_name_are_no_members_of_an_object() -> TestResult {
    let bench = Bench::new();
    bench.ok(&["put", "twice", &bench.file("in.csv", "a,b,a\n1,2,3\n")]);
    for format in ["json", "jsonl"] {
        bench.fails(1, &["get", "twice", "--format", format], &["\"twice\"", "several columns", "\"a\""]);
    }
    assert_eq!(bench.ok(&["get", "twice", "--format", "csv"]), "a,b,a\n1,2,3\n");
    Ok(())
}

#[test]
fn text_shows_the_first_rows_and_how_much_there_is() {
    let bench = Bench::new();
    bench.brain().learn("t", &numbers(1_000)).expect("there is room");
    let text = bench.ok(&["get", "t", "--format", "text", "--rows", "2"]);
    assert!(text.starts_with("n\n0\n1\n1000 rows, 1 column, version 1, "), "{text}");
    assert_eq!(bench.ok(&["get", "t", "--format", "text"]).lines().count(), 12);
}

#[test]
fn every_answer_in_json_is_one_document() -> TestResult {
    let bench = Bench::new();
    let csv = bench.file("t.csv", "n,s\n1,a\n2,\n");
    let put =
        bench.json(&["put", "t", &csv, "--metadata", r#"{"from": "here"}"#, "--description", "two rows"]);
    assert_eq!((&put["name"], &put["version"], &put["rows"]), (&json!("t"), &json!(1), &json!(2)));
    let got = bench.json(&["get", "t"]);
    assert_eq!(got["value"], json!([{"n": 1, "s": "a"}, {"n": 2, "s": null}]));
    assert_eq!(bench.json(&["get", "t", "--rows", "1"])["value"], json!([{"n": 1, "s": "a"}]));
    assert_eq!(bench.json(&["get", "t", "-o", &bench.path("t.parquet")])["format"], "Parquet");
    let ls = bench.json(&["ls"]);
    assert_eq!(
        (&ls[0]["name"], &ls[0]["kind"], &ls[0]["bytes"]),
        (&json!("t"), &json!("table"), &put["bytes"])
    );
    let stat = bench.json(&["stat", "t"]);
    assert_eq!((&stat["rows"], &stat["description"]), (&json!(2), &json!("two rows")));
    assert_eq!((&stat["metadata"]["from"], &stat["pinned_by"]), (&json!("here"), &json!([])));
    assert_eq!(stat["schema"][0], json!({"name": "n", "type": "Int64", "nullable": true}));
    assert_eq!(stat["object_id"].as_str().map(str::len), Some(64));
    let stats = bench.json(&["stats"]);
    assert_eq!((&stats["capacity_bytes"], &stats["objects"]), (&json!(32 << 20), &json!(1)));
    assert_eq!(
        bench.json(&["pins"]),
        json!({"pins": [], "processes": [], "pinned_bytes": 0, "limbo_bytes": 0})
    );
    assert_eq!(bench.json(&["namespaces"])[0]["names"], 1);
    assert_eq!(bench.json(&["wait", "t", "--timeout", "0"])["version"], 1);
    assert_eq!(bench.json(&["ping"])["store_pid"], bench.daemon.pid());
    assert!(bench.json(&["doctor"])["findings"].as_array().is_some_and(|findings| findings.len() > 8));
    assert_eq!(bench.json(&["rm", "t", "u", "--missing-ok"]), json!({"removed": ["t"], "missing": ["u"]}));
    bench.json(&["put", "t", &csv, "--namespace", "elsewhere"]);
    assert_eq!(bench.json(&["rmns", "elsewhere", "--yes"]), json!({"namespace": "elsewhere", "names": 1}));
    bench.brain().learn("nan", &f64::NAN)?;
    assert_eq!(bench.json(&["get", "nan"])["value"], "NaN");
    Ok(())
}

/// Another client may say anything in metadata; ours show it.
#[test]
fn metadata_that_are_no_json_are_a_text() -> TestResult {
    let bench = Bench::new();
    let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
    for text in ["not { JSON", deep.as_str(), "7"] {
        let (namespace, name) = (Namespace::default(), Name::new("foreign")?);
        let header = Header::new(Kind::BYTES);
        let payload = Payload::Inline { bytes: b"x".to_vec().into() };
        let metadata = Some(text.to_owned());
        let bind = Bind { namespace, name, description: None, metadata, header, ttl: None, payload };
        let commit = Commit { conditions: vec![], changes: vec![Change::Bind(bind)], end_leases: vec![] };
        let mut session = RawSession::begin(bench.daemon.socket());
        session.requests.call(&commit).expect("it is admitted");
        let read = serde_json::from_str::<Value>(text).unwrap_or_else(|_| text.into());
        assert_eq!(bench.brain().metadata("foreign")?.map(|found| found.metadata), Some(read.clone()));
        assert_eq!(bench.json(&["stat", "foreign"])["metadata"], read);
        assert!(bench.ok(&["stat", "foreign"]).contains("metadata"));
    }
    Ok(())
}

/// The bytes of a pickle are not the data of its value.
#[test]
fn a_pickle_is_not_written_as_data() -> TestResult {
    let bench = Bench::new();
    let stream = [b"\x80\x05X\x28\0\0\0".as_slice(), &[b'x'; 40], b"."].concat();
    let pickles = [
        ("small", plasmon::Pickle::new(b"\x80\x05N.".to_vec(), vec![])),
        ("large", plasmon::Pickle::new(stream.clone(), vec![])),
        ("buffers", plasmon::Pickle::new(stream, vec![vec![7_u8; 5_000].into()])),
    ];
    for (name, pickle) in pickles {
        let brain = bench.brain();
        brain.learn(name, &pickle)?;
        let object: plasmon::Object = brain.recall(name)?;
        for refused in
            [object.table().map(drop), object.to::<Table>().map(drop), brain.recall::<Table>(name).map(drop)]
        {
            let error = refused.expect_err("it is no table").to_string();
            assert!(error.contains("pickle"), "{error}");
        }
        for file in [
            "x.csv",
            "x.parquet",
            "x.arrow",
            "x.arrows",
            "x.json",
            "x.jsonl",
            "x.txt",
            "x.bin",
            "x.csv.gz",
            "x",
        ] {
            bench.fails(1, &["get", name, "-o", &bench.path(file)], &["kind pickle", "only Python reads it"]);
            assert!(!Path::new(&bench.path(file)).exists());
        }
        for format in ["ipc", "stream", "parquet", "csv", "raw", "json", "jsonl", "npy"] {
            bench.fails(1, &["get", name, "--format", format], &["kind pickle", "only Python reads it"]);
        }
        bench.fails(1, &["get", name, "--json"], &["kind pickle"]);
        bench.fails(1, &["get", name], &["kind pickle"]);
        let shown = bench.ok(&["get", name, "--format", "text"]);
        assert!(shown.starts_with("a value of kind pickle"), "{shown}");
        assert_eq!(bench.json(&["stat", name])["kind"], "pickle");
    }
    Ok(())
}

#[test]
fn exit_codes_say_what_went_wrong() {
    let bench = Bench::with_size("1MiB");
    let csv = bench.file("t.csv", "n\n1\n");
    bench.ok(&["put", "t", &csv]);
    // 1
    bench.fails(1, &["put", "u", "/nonexistent.csv"], &["/nonexistent.csv"]);
    bench.fails(1, &["kick", "4000000", "--yes"], &["4000000", "no session"]);
    // 2
    for arguments in [
        &["put"][..],
        &["frobnicate"],
        &["put", "u", &csv, "--delimiter", "ab"],
        &["wait", "t", "--timeout", "-1"],
    ] {
        assert_eq!(bench.run(arguments).0, 2, "{arguments:?}");
    }
    bench.fails(2, &["put", "u", &bench.file("data.xyz", "?")], &["data.xyz", "--format"]);
    bench.fails(2, &["get", ""], &["name"]);
    bench.fails(2, &["get", "t", "--namespace", "x"], &["namespace"]);
    bench.fails(2, &["get", "t", "--json", "--format", "csv"], &["--json", "-o"]);
    bench.fails(2, &["put", "u", &csv, "--metadata", "[]"], &["metadata", "object"]);
    bench.fails(2, &["rmns", "some-namespace"], &["--yes"]);
    bench.fails(2, &["rmns", "default", "--yes"], &["default"]);
    bench.fails(2, &["kick", "1"], &["--yes"]);
    // 3
    bench.fails(3, &["get", "u"], &["\"u\"", "\"default\""]);
    bench.fails(3, &["stat", "u"], &["\"u\""]);
    bench.fails(3, &["rm", "u", "t"], &["\"u\"", "and the other name is forgotten", "--missing-ok"]);
    bench.fails(3, &["ls", "--namespace", "nowhere"], &["\"nowhere\""]);
    bench.fails(3, &["rmns", "nowhere", "--yes"], &["\"nowhere\""]);
    assert_eq!(bench.json(&["ls"]), json!([]), "rm forgets what it can");
    assert_eq!(bench.json(&["namespaces"]).as_array().map(Vec::len), Some(1), "looking makes no namespace");
    // 5, and nothing stays behind
    let long = bench.file("long", vec![7; 2 << 20]);
    bench.fails(5, &["put", "long", &long, "--format", "raw"], &["no room for", "--size"]);
    let many = (0..300_000).fold(String::from("n\n"), |text, n| text + &format!("{n}\n"));
    bench.fails(5, &["put", "many", &bench.file("many.csv", many)], &["no room for", "--size"]);
    eventually("nothing of them is left", || bench.json(&["stats"])["used_bytes"] == 0);
    // 6
    bench.fails(6, &["wait", "u", "--timeout", "0.05"], &["\"u\"", "0.05 seconds"]);
    // 7
    bench.ok(&["put", "t", &csv, "--if-absent"]);
    bench.fails(7, &["put", "t", &csv, "--if-absent"], &["absent", "version"]);
    let version = bench.json(&["stat", "t"])["version"].to_string();
    bench.ok(&["put", "t", &csv, "--if-version", &version]);
    bench.fails(7, &["put", "t", &csv, "--if-version", &version], &[&version]);
    // 4
    let socket = bench.socket().to_owned();
    drop(bench);
    for arguments in [&["ls"][..], &["ping"], &["ping", "--timeout", "0.1"], &["get", "t"], &["stats"]] {
        let (code, _, stderr) = run(PLASMON, &[&["--socket", &socket], arguments].concat());
        assert_eq!(code, 4, "{stderr}");
        assert_one_line(&stderr, &[&socket, "plasmon-store --size"]);
    }
}

#[test]
fn the_help_has_examples_and_the_exit_codes() {
    let (code, help, _) = run(PLASMON, &["--help"]);
    assert_eq!(code, 0);
    for part in ["Examples:", "plasmon put flights", "Exit codes:", "7  a condition", "PLASMON_SOCKET"] {
        assert!(help.contains(part), "{part}");
    }
}

#[test]
fn ls_shows_a_prefix_or_all_namespaces() -> TestResult {
    let bench = Bench::new();
    let (brain, other) = (bench.brain(), bench.brain().in_namespace("other")?);
    for name in ["ab", "aa", "b"] {
        brain.learn(name, &true)?;
    }
    other.learn("ac\n\u{1b}[2J", &numbers(5))?;
    let names = |listed: Value| -> Vec<String> {
        let name = |one: &Value| format!("{}/{}", one["namespace"], one["name"]).replace('"', "");
        listed.as_array().expect("an array").iter().map(name).collect()
    };
    assert_eq!(names(bench.json(&["ls"])), ["default/aa", "default/ab", "default/b"]);
    assert_eq!(names(bench.json(&["ls", "a"])), ["default/aa", "default/ab"]);
    assert_eq!(names(bench.json(&["ls", "a", "--all"])).len(), 3);
    assert_eq!(names(bench.json(&["ls", "--namespace", "other"])).len(), 1);
    let text = bench.ok(&["ls", "--all", "-l"]);
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.starts_with("NAMESPACE") && text.contains(r"ac\n\u{1b}[2J"), "{text}");
    assert!(text.contains(&std::process::id().to_string()), "the writer is named: {text}");
    assert_eq!(bench.ok(&["ls", "zzz"]), "");
    let text = bench.ok(&["namespaces"]);
    assert!(text.lines().nth(2).is_some_and(|line| line.starts_with("other")), "{text}");
    Ok(())
}

#[test]
fn stat_describes_every_kind() -> TestResult {
    let bench = Bench::new();
    let brain = bench.brain();
    brain.learn("table", &numbers(5))?;
    brain.learn("tensor", &plasmon::Tensor::new(&[2, 3], &[1_f32; 6])?)?;
    brain.learn("text", "hello")?;
    brain.learn("bytes", &vec![1_u8; 1_000])?;
    for (name, parts) in [
        ("table", &["kind         table", "rows         5", "n       Int64  no"][..]),
        ("tensor", &["float32, shape [2, 3]"]),
        ("text", &["value        \"hello\"", "held by      nobody"]),
        ("bytes", &["kind         bytes"]),
    ] {
        let text = bench.ok(&["stat", name]);
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    }
    assert_eq!(bench.json(&["stat", "tensor"])["shape"], json!([2, 3]));
    Ok(())
}

/// Invariant 5, by hand: who holds what is told by name, and ending the holder frees it.
#[test]
fn pins_name_the_holder_and_kick_frees_what_it_held() -> TestResult {
    let bench = Bench::new();
    bench.brain().learn("held", &vec![1_u8; 1 << 20])?;
    let holder = bench.holder("held");
    let pid = holder.pid();

    let pins = bench.json(&["pins"]);
    assert_eq!(pins["pins"].as_array().map(Vec::len), Some(1), "{pins}");
    let pin = &pins["pins"][0];
    assert_eq!(
        (&pin["pid"], &pin["name"], &pin["limbo"]),
        (&json!(pid), &json!("default/held"), &json!(false))
    );
    assert_eq!(pins["processes"][0]["bytes"], pin["bytes"]);
    assert_eq!(bench.json(&["stat", "held"])["pinned_by"][0]["pid"], pid);

    bench.ok(&["rm", "held"]);
    let text = bench.ok(&["pins"]);
    assert!(text.contains("limbo") && text.contains(&format!("pid {pid} (")), "{text}");
    assert!(bench.ok(&["stats"]).contains("forgotten but still pinned"));
    assert!(bench.json(&["stats"])["limbo_bytes"].as_u64() > Some(1 << 20));

    bench.fails(2, &["kick", &pid.to_string()], &["1.0 MiB in 1 object", "--yes"]);
    let kicked = bench.json(&["kick", &pid.to_string(), "--yes"]);
    assert_eq!((&kicked["objects"], &kicked["gone"]), (&json!(1), &json!(true)));
    eventually("the holder has ended", || {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    });
    eventually("its memory is free", || bench.json(&["stats"])["used_bytes"] == 0);
    assert_eq!(bench.ok(&["pins"]), "nobody holds an object\n");
    Ok(())
}

#[test]
fn wait_wakes_up_when_the_name_is_bound() -> TestResult {
    let bench = Bench::new();
    let mut command = Command::new(PLASMON);
    command.args(["--socket", bench.socket(), "wait", "result", "--timeout", "30", "--json"]);
    let waiting = command.stdout(Stdio::piped()).spawn()?;
    eventually("it waits", || bench.json(&["stats"])["waits"] == 1);
    let version = bench.brain().learn("result", &1)?;
    let output = waiting.wait_with_output()?;
    assert!(output.status.success());
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout)?["version"], version);
    bench.fails(6, &["wait", "result", "--after", &version.to_string(), "--timeout", "0"], &["result"]);
    Ok(())
}

/// What is typed wrong is often nearly right.
#[test]
fn a_wrong_name_brings_near_ones() -> TestResult {
    let bench = Bench::new();
    bench.brain().learn("prices", &1)?;
    bench.brain().in_namespace("elsewhere")?.learn("volume", &2)?;
    for arguments in [&["get", "price"][..], &["stat", "Prices"], &["rm", "prics"]] {
        let (code, _, said) = bench.run(arguments);
        assert!(code == 3 && said.contains(r#"did you mean "prices"?"#), "{arguments:?}: {code} {said}");
    }
    let (code, _, said) = bench.run(&["wait", "price", "--timeout", "1ms"]);
    assert!(code == 6 && said.contains(r#"within 0.001 seconds; did you mean "prices"?"#), "{code}: {said}");
    let (_, _, said) = bench.run(&["get", "volume"]);
    assert!(said.contains(r#"it is bound in namespace "elsewhere""#), "{said}");
    let (_, _, said) = bench.run(&["get", "temperature"]);
    assert!(!said.contains("mean"), "{said}");
    Ok(())
}

/// What the shell runs when somebody presses <TAB> behind these words.
fn completed(bench: &Bench, words: &[&str]) -> Vec<String> {
    let line = [&["plasmon", "--socket", bench.socket()][..], words].concat();
    let output = Command::new(PLASMON)
        .arg("--")
        .args(&line)
        .envs([("PLASMON_COMPLETE", "bash"), ("_CLAP_IFS", "\n"), ("_CLAP_COMPLETE_COMP_TYPE", "9")])
        .env("_CLAP_COMPLETE_INDEX", (line.len() - 1).to_string())
        .env("_CLAP_COMPLETE_SPACE", "true")
        .output()
        .expect("the command line runs");
    let text = String::from_utf8(output.stdout).expect("completions are text");
    text.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn shells_complete_commands_and_names_of_the_store() -> TestResult {
    let bench = Bench::new();
    bench.brain().batch()?.learn("prices", &1)?.learn("prices-2", &2)?.learn("volume", &3)?.commit()?;
    bench.brain().in_namespace("elsewhere")?.learn("private", &4)?;
    for command in ["get", "stat", "wait", "rm", "ls"] {
        assert_eq!(completed(&bench, &[command, "pri"]), ["prices", "prices-2"], "{command}");
    }
    assert_eq!(completed(&bench, &["--namespace", "elsewhere", "get", "pri"]), ["private"]);
    assert_eq!(completed(&bench, &["--namespace", "else"]), ["elsewhere"]);
    assert_eq!(completed(&bench, &["rmns", "else"]), ["elsewhere"]);
    assert_eq!(completed(&bench, &["names"]), ["namespaces"]);
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = bench.run(&["completions", shell]);
        assert!(code == 0 && script.contains("PLASMON_COMPLETE"), "{shell}: {script}");
    }
    Ok(())
}

/// Whoever is told what is wrong should know what to do.
#[test]
fn what_is_there_instead_of_a_store_is_named() -> TestResult {
    let directory = tempfile::tempdir()?;
    let at = |name: &str| directory.path().join(name).display().to_string();
    let said = |socket: &str| {
        let (code, _, said) = run(PLASMON, &["--socket", socket, "ls"]);
        assert_eq!(code, 4, "{said}");
        said
    };
    let gone = said(&at("gone/store.sock"));
    assert!(gone.contains("its directory is not there") && gone.contains("mkdir -p"), "{gone}");

    assert!(said(&at("")).contains("a directory, and no socket"));
    fs::write(at("a-file"), "")?;
    assert!(said(&at("a-file")).contains("a file, and no socket"));

    let stale = at("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale)?);
    assert!(said(&stale).contains("left by one that has ended"));

    for answer in ["HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "-ERR unknown command\r\n"] {
        let foreign = at("foreign.sock");
        let listener = std::os::unix::net::UnixListener::bind(&foreign)?;
        let server = std::thread::spawn(move || {
            let mut client = listener.accept()?.0;
            let mut hello = [0; 16];
            client.read_exact(&mut hello)?;
            client.write_all(answer.as_bytes())
        });
        let told = said(&foreign);
        assert!(told.contains("is no plasmon-store"), "{told}");
        server.join().expect("the server does not panic")?;
        fs::remove_file(foreign)?;
    }

    let bench = Bench::new();
    let brain = bench.brain();
    brain.learn("a", &1)?;
    fs::remove_file(bench.socket())?;
    let _waiting = brain.begin_wait("never", 0, std::time::Duration::from_secs(600))?; // on the idle connection
    let unseen = said(bench.socket()); // by somebody who never spoke to that store
    assert!(unseen.contains(&format!("process {} holds its lock", bench.daemon.pid())), "{unseen}");
    for _ in 0..2 {
        let deleted = brain.stats().expect_err("nobody can connect any more").to_string();
        assert!(deleted.contains("was deleted") && deleted.contains("still runs"), "{deleted}");
    }
    Ok(())
}

#[test]
fn ping_waits_for_a_store_that_starts_later() -> TestResult {
    let directory = tempfile::tempdir()?;
    let socket: PathBuf = directory.path().join("store.sock");
    let mut command = Command::new(PLASMON);
    command.arg("--socket").arg(&socket).args(["ping", "--timeout", "30"]);
    let mut ping = command.stdout(Stdio::null()).spawn()?;
    let mut command = Command::new(STORE);
    command.args(["--size", "1MiB", "--socket"]).arg(&socket).stderr(Stdio::null());
    let mut store = command.spawn()?;
    assert!(ping.wait()?.success());
    store.kill()?;
    store.wait()?;
    Ok(())
}

#[test]
fn rm_forgets_names_and_rmns_whole_namespaces() -> TestResult {
    let bench = Bench::new();
    let other = bench.brain().in_namespace("other")?;
    for name in ["a", "b", "c"] {
        bench.brain().learn(name, &1)?;
        other.learn(name, &2)?;
    }
    assert_eq!(bench.ok(&["rm", "a", "b"]), "");
    assert_eq!(bench.brain().names("")?, ["c"]);
    assert_eq!(bench.ok(&["rm", "a", "--missing-ok"]), "");
    assert_eq!(bench.ok(&["--namespace", "other", "rm", "a"]), "");
    assert_eq!(bench.ok(&["rmns", "other", "--yes"]), "other: removed with 2 names\n");
    assert_eq!(bench.brain().namespaces()?.len(), 1);
    Ok(())
}

#[test]
fn doctor_works_with_a_store_and_without() -> TestResult {
    let bench = Bench::new();
    let text = bench.ok(&["doctor"]);
    for part in
        ["kernel", "memory", "descriptors", "/dev/shm", "answers, pid", "speak 1", "of 32.0 MiB are used"]
    {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(text.lines().all(|line| line.starts_with("ok ") || line.starts_with("warn ")), "{text}");

    let nowhere = bench.path("nowhere.sock");
    let (code, text, stderr) = run(PLASMON, &["--socket", &nowhere, "doctor"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(text.contains(&format!("{nowhere} is not there")), "{text}");
    assert!(
        text.lines().any(|line| line.starts_with("warn") && line.contains("plasmon-store --size")),
        "{text}"
    );

    let file = bench.file("file.sock", "");
    let (_, text, _) = run(PLASMON, &["--socket", &file, "doctor"]);
    assert!(text.contains("is not a socket; remove it"), "{text}");
    // A store that was killed leaves its socket behind.
    let stale = bench.path("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale)?);
    let (code, text, _) = run(PLASMON, &["--socket", &stale, "doctor"]);
    assert!(code == 0 && text.contains("no store answers"), "{text}");
    Ok(())
}

#[test]
fn whoever_reads_only_the_beginning_ends_it_quietly() -> TestResult {
    let bench = Bench::new();
    bench.brain().learn("long", &numbers(500_000))?;
    for format in ["csv", "ipc", "stream", "parquet", "json"] {
        let mut command = Command::new(PLASMON);
        command.args(["--socket", bench.socket(), "get", "long", "--format", format]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut stdout = child.stdout.take().ok_or("a pipe")?;
        stdout.read_exact(&mut [0; 4])?;
        drop(stdout);
        let output = child.wait_with_output()?;
        assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()), "{format}");
    }
    Ok(())
}

/// What the columns of a table hold is the same whichever way it came in.
#[test]
fn the_same_table_in_csv_parquet_and_ipc_is_the_same_object() -> TestResult {
    let bench = Bench::new();
    let people = record_batch!(("n", Int64, [1, 2]), ("s", Utf8, ["x", "y"]))?;
    bench.brain().learn("one", &people)?;
    for extension in ["csv", "parquet", "arrow", "arrows"] {
        let file = bench.path(&format!("one.{extension}"));
        bench.ok(&["get", "one", "-o", &file]);
        bench.ok(&["put", extension, &file]);
        let table: Table = bench.brain().recall(extension)?;
        assert_eq!(table[0].columns(), people.columns(), "{extension}");
        let strings: &StringArray = table[0].column(1).as_any().downcast_ref().ok_or("strings")?;
        assert_eq!(strings.value(1), "y");
    }
    Ok(())
}

#[test]
fn what_is_declared_is_told_as_the_store_has_it() {
    let daemon = Daemon::start_with(STORE, &["--size", "16MiB", "--cache", "pages=10m"]);
    let bench = Bench { daemon, directory: tempfile::tempdir().expect("a directory") };
    assert_eq!(bench.ok(&["declare", "pages"]).trim(), "pages: a cache; names live 10 min");
    assert_eq!(bench.ok(&["declare", "plain", "--ttl", "1h"]).trim(), "plain: no cache; names live 60 min");
}

#[test]
fn names_that_expire_and_namespaces_that_are_caches_are_declared_and_shown() -> TestResult {
    let bench = Bench::new();
    let csv = bench.file("t.csv", "n\n1\n");
    bench.ok(&["put", "lasting", &csv]);
    bench.ok(&["put", "hourly", &csv, "--ttl", "1h"]);
    bench.ok(&["put", "used", &csv, "--ttl", "90s", "--sliding"]);
    let stat = bench.json(&["stat", "hourly"]);
    assert_eq!((&stat["ttl_s"], &stat["sliding"]), (&json!(3_600.0), &json!(false)));
    let left = stat["expires"].as_f64().unwrap_or(0.0) - stat["created"].as_f64().unwrap_or(0.0);
    assert!((3_500.0..3_700.0).contains(&left), "{stat}");
    let stat = bench.json(&["stat", "lasting"]);
    assert_eq!((&stat["ttl_s"], &stat["expires"]), (&json!(null), &json!(null)));
    assert!(bench.ok(&["stat", "used"]).contains("(time to live 90 s, begun anew by every recall)"));
    let text = bench.ok(&["ls"]);
    assert!(text.contains("EXPIRES") && text.contains("in 59 min") && text.contains("never"), "{text}");

    bench.ok(&["declare", "results", "--cache", "--ttl", "1.5h", "--sliding"]);
    let info = bench.json(&["namespaces"])[1].clone();
    assert_eq!(
        info,
        json!({"namespace": "results", "names": 0, "bytes": 0, "cache": true, "ttl_s": 5_400.0, "sliding": true})
    );
    assert!(bench.ok(&["namespaces"]).contains("yes    90 min, sliding"), "{}", bench.ok(&["namespaces"]));
    bench.ok(&["put", "r", &csv, "--namespace", "results"]);
    assert_eq!(bench.json(&["stat", "r", "--namespace", "results"])["ttl_s"], 5_400.0);
    assert!(bench.json(&["stats"])["cached_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    let declared = bench.json(&["declare", "results"]);
    assert_eq!(declared, json!({"namespace": "results", "cache": false, "ttl_s": null, "sliding": false}));
    assert_eq!(bench.json(&["stats"])["cached_bytes"], 0);
    for ttl in ["0", "soon", "5x"] {
        let (code, _, stderr) = bench.run(&["put", "x", &csv, "--ttl", ttl]);
        assert!(code == 2 && stderr.contains("10m"), "{ttl}: {stderr}");
    }
    let (code, _, stderr) = bench.run(&["put", "x", &csv, "--sliding"]);
    assert!(code == 2 && stderr.contains("--ttl"), "{stderr}");
    Ok(())
}

#[test]
fn the_versions_of_a_name_are_listed_and_got() -> TestResult {
    let bench = Bench::new();
    let brain = bench.brain();
    brain.keep_history(Some(&History { versions: Some(10), age_ns: None, bytes: None }))?;
    let options = |text: &str| LearnOptions::new().description(text);
    let first = brain.learn_with("n", &1, &options("the first"))?;
    let second = brain.learn("n", &2)?;
    brain.forget("n")?;
    let versions = bench.json(&["history", "n"]);
    let said = |at: usize, what: &str| versions[at][what].clone();
    assert_eq!(versions.as_array().map(Vec::len), Some(2), "{versions}");
    assert_eq!((said(0, "version"), said(0, "reason")), (json!(second), json!("forgotten")));
    assert_eq!((said(1, "version"), said(1, "reason")), (json!(first), json!("rebound")));
    assert_eq!((said(1, "description"), said(1, "bytes")), (json!("the first"), json!(8)));
    assert!(said(0, "ended").as_f64() >= said(0, "created").as_f64(), "{versions}");
    brain.learn("n", &3)?;
    let text = bench.ok(&["history", "n"]);
    assert!(text.starts_with("VERSION") && text.contains("bound") && text.contains("the first"), "{text}");
    assert_eq!(text.lines().count(), 1 + 3);
    assert_eq!(bench.ok(&["get", "n", "--version", &first.to_string()]).trim(), "1");
    assert_eq!(bench.ok(&["get", "n"]).trim(), "3");
    bench.fails(3, &["get", "n", "--version", "4096"], &["4096", "not kept"]);
    bench.fails(3, &["history", "nobody"], &["nobody"]);
    // What only a snapshot keeps is no history.
    brain.keep_history(None)?;
    brain.snapshot("s")?;
    brain.learn("n", &4)?;
    assert_eq!(bench.json(&["history", "n"]).as_array().map(Vec::len), Some(1));
    let all = bench.json(&["history", "n", "--all"]);
    assert_eq!((&all[1]["reason"], &all[1]["in_history"]), (&json!("rebound"), &json!(false)));
    Ok(())
}

#[test]
fn snapshots_are_made_listed_compared_restored_and_removed() -> TestResult {
    let bench = Bench::new();
    let (brain, other) = (bench.brain(), bench.brain().in_namespace("other")?);
    brain.learn("stays", &1)?;
    brain.learn("changes", &1)?;
    brain.learn("goes", &vec![1_u8; 1_000])?;
    other.learn("x", &1)?;
    assert!(bench.ok(&["snapshot", "ls"]).is_empty());
    let line = bench.ok(&["snapshot", "create", "then"]);
    assert!(line.starts_with("then: moment ") && line.trim_end().ends_with("of default"), "{line}");
    bench.ok(&["snapshot", "create", "both", "default", "other"]);
    let made = bench.json(&["snapshot", "create", "--namespace", "other"]);
    let label = made["label"].as_str().expect("a label").to_owned();
    assert!(label.ends_with('Z') && made["namespaces"] == json!(["other"]), "{made}");
    bench.fails(7, &["snapshot", "create", "then"], &["then"]);
    bench.fails(2, &["snapshot", "create", "a/b"], &["a/b"]);
    bench.fails(3, &["snapshot", "create", "s", "nowhere"], &["nowhere"]);
    let listed = bench.json(&["snapshot", "ls"]);
    assert_eq!((&listed[1]["label"], &listed[1]["names"]), (&json!("both"), &json!(4)), "{listed}");
    assert!(bench.ok(&["snapshot", "ls"]).contains("default, other"));

    brain.learn("changes", &2)?;
    brain.forget("goes")?;
    brain.learn("comes", &3)?;
    other.forget("x")?;
    assert_eq!(bench.ok(&["snapshot", "diff", "then"]), "~ changes\n+ comes\n- goes\n");
    let diff = json!({"added": ["comes"], "changed": ["changes"], "removed": ["goes"]});
    assert_eq!(bench.json(&["snapshot", "diff", "then"]), diff);
    assert_eq!(bench.ok(&["snapshot", "diff", "then", "both"]), "");

    let names = |arguments: &[&str]| {
        let listed = bench.json(arguments);
        listed.as_array().expect("a list").iter().map(|it| it["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&["ls", "--at", "then"]), ["changes", "goes", "stays"]);
    assert_eq!(names(&["ls", "--at", "then", "*s", "--reverse"]), ["stays", "goes", "changes"]);
    assert_eq!(names(&["ls", "--at", "both", "--all"]), ["changes", "goes", "stays", "x"]);
    assert_eq!(names(&["ls", "--at", &label, "--namespace", "other"]), ["x"]);
    assert!(bench.ok(&["ls", "--at", "then", "go"]).contains("goes"));
    assert_eq!(bench.ok(&["get", "changes", "--at", "then"]).trim(), "1");
    bench.fails(3, &["get", "comes", "--at", "then"], &["comes"]);
    bench.fails(3, &["get", "x", "--at", "then", "--namespace", "other"], &["other"]);
    bench.fails(3, &["ls", "--at", "nowhen"], &["nowhen"]);

    let text = bench.ok(&["stats"]);
    assert!(text.lines().any(|line| line.starts_with("past ") && line.contains("3 snapshots")), "{text}");
    let stats = bench.json(&["stats"]);
    assert_eq!((&stats["snapshots"], &stats["kept"]), (&json!(3), &json!(3)), "{stats}");
    assert!(stats["past_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{stats}");

    let line = bench.ok(&["snapshot", "restore", "then", "goes", "comes", "goes"]);
    assert!(line.starts_with("2 names: as at then, version "), "{line}");
    assert_eq!(names(&["ls"]), ["changes", "goes", "stays"]);
    let line = bench.ok(&["snapshot", "restore", "then"]);
    assert!(line.starts_with("namespace default: as at then"), "{line}");
    assert_eq!((brain.recall::<i64>("changes")?, other.exists("x")?), (1, false));
    for label in ["then", "both", &label] {
        bench.ok(&["snapshot", "rm", label]);
        bench.fails(3, &["snapshot", "rm", label], &[label]);
    }
    bench.fails(3, &["snapshot", "restore", "then"], &["then"]);
    Ok(())
}

#[test]
fn views_are_listed_and_ended() -> TestResult {
    let bench = Bench::new();
    let brain = bench.brain();
    assert_eq!(bench.ok(&["views"]), "nobody has a view\n");
    let (first, second) = (brain.view()?, brain.view()?);
    let listed = bench.json(&["views"]);
    assert_eq!((&listed[0]["id"], &listed[0]["pid"]), (&json!(first.number()), &json!(std::process::id())));
    assert!(bench.ok(&["views"]).lines().count() == 3);
    bench.ok(&["views", "--end", &first.number().to_string()]);
    assert!(matches!(first.names(""), Err(Error::ViewEnded { .. })));
    assert!(second.names("")?.is_empty());
    bench.fails(1, &["views", "--end", "4096"], &["4096"]);
    Ok(())
}

#[test]
fn shells_complete_labels() -> TestResult {
    let bench = Bench::new();
    let brain = bench.brain();
    brain.snapshot("before-the-run")?;
    brain.snapshot("after")?;
    assert_eq!(completed(&bench, &["snapshot", "restore", "be"]), ["before-the-run"]);
    assert_eq!(completed(&bench, &["ls", "--at", ""]), ["after", "before-the-run"]);
    Ok(())
}

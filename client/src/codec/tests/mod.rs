//! Tests of the codec as a whole: every kind and type, there and back, and what malformed bytes do.

mod format;
mod frames;
mod malformed;
mod pieces;
mod tables;
mod tensors;
mod values;

use super::*;
use crate::codec::{
    decode::{Trust, decode_file},
    frame::{MAGIC, padded},
};
use arrow_array::{
    builder::{
        FixedSizeBinaryBuilder, Int32Builder, ListBuilder, ListViewBuilder, MapBuilder, StringBuilder,
        StringDictionaryBuilder, StringViewBuilder, UnionBuilder,
    },
    cast::AsArray,
    types::{Float64Type, Int8Type, Int16Type, Int32Type, UInt8Type},
    *,
};
use arrow_buffer::{Buffer, IntervalDayTime, IntervalMonthDayNano, MutableBuffer, i256};
use arrow_data::{ArrayData, transform::MutableArrayData};
use arrow_ipc::reader::FileReader;
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use half::f16;
use plasmon_protocol::object::{Flags, Header};
use proptest::prelude::*;
use serde_json::json;
use std::{fs, io::Cursor, path::Path, sync::Arc};

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// The object as it will lie in an extent: exactly as long as it said, at a multiple of 64 bytes.
fn encode(value: &(impl Learn + ?Sized)) -> (Buffer, Header) {
    let prepared = value.prepare().unwrap();
    let written = prepared.to_vec().unwrap();
    let is_inline = prepared.header().flags.has(Flags::INLINE);
    let len_max = if is_inline { written.len() } else { usize::try_from(prepared.len_bytes_max()).unwrap() };
    let mut extent = MutableBuffer::from_len_zeroed(len_max);
    extent.as_slice_mut().fill(0xa5); // shows a byte that is left unwritten
    assert_eq!(prepared.write_into(&mut extent).unwrap(), written.len());
    extent.truncate(written.len());
    assert_eq!(extent.as_slice(), written);
    let mut streamed = Vec::new();
    prepared.write_to(&mut streamed).unwrap();
    assert!(streamed == written, "one way of writing differs from the other");
    assert!(extent.as_ptr().addr().is_multiple_of(64));
    (extent.into(), prepared.header())
}

/// Without its shortcuts an object has to be decoded through Arrow.
fn without_shortcuts(header: &Header) -> Header {
    Header::new(header.kind)
}

/// What another implementation of Arrow reads.
fn read_with_arrow(file: &Buffer) -> (SchemaRef, Vec<RecordBatch>) {
    let reader = FileReader::try_new(Cursor::new(file.as_slice()), None).unwrap();
    (reader.schema(), reader.collect::<Result<_, _>>().unwrap())
}

fn every_buffer(data: &ArrayData, visit: &mut impl FnMut(&Buffer)) {
    data.buffers().iter().for_each(&mut *visit);
    if let Some(nulls) = data.nulls() {
        visit(nulls.buffer());
    }
    data.child_data().iter().for_each(|child| every_buffer(child, visit));
}

/// Every buffer of `table` is a piece of `file` and begins at a multiple of 64 bytes of it.
fn assert_in_place(table: &Table, file: &Buffer) {
    let memory = file.as_slice().as_ptr_range();
    for batch in table.iter() {
        for column in batch.columns() {
            every_buffer(&column.to_data(), &mut |buffer| {
                let range = buffer.as_slice().as_ptr_range();
                if !range.is_empty() {
                    assert!(memory.start <= range.start && range.end <= memory.end, "a buffer was copied");
                    assert_eq!((range.start.addr() - memory.start.addr()) % 64, 0, "a buffer is not aligned");
                }
            });
        }
    }
}

fn round_trip(table: &Table) -> Buffer {
    let (file, header) = encode(table);
    assert_eq!(header.kind, Kind::TABLE);
    assert!(header.flags.has(Flags::OUR_ENCODER));
    let (schema, batches) = read_with_arrow(&file);
    assert_eq!(&schema, table.schema());
    assert_eq!(batches, **table);
    for trusted in [false, true] {
        let decoded = decode_table(&file, trusted).unwrap();
        assert_eq!(&decoded, table, "trusted: {trusted}");
        assert_in_place(&decoded, &file);
    }
    file
}

fn column(array: impl Array + 'static) -> (&'static str, ArrayRef) {
    ("a", Arc::new(array))
}

/// A column of every kind of layout that Arrow has, five rows each.
fn columns() -> Vec<(&'static str, ArrayRef)> {
    let mut lists = ListBuilder::new(Int32Builder::new());
    let mut views = ListViewBuilder::new(Int32Builder::new());
    let mut maps = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    let mut binaries = FixedSizeBinaryBuilder::new(3);
    let mut dense = UnionBuilder::new_dense();
    let mut sparse = UnionBuilder::new_sparse();
    for row in 0..5_i32 {
        lists.values().append_slice(&[row, row + 1]);
        lists.append(row != 2);
        views.values().append_value(row);
        views.append(row != 3);
        maps.keys().append_value(format!("key {row}"));
        maps.values().append_option((row != 1).then_some(row));
        maps.append(row != 4).unwrap();
        binaries.append_value([b'x', b'y', b'z']).unwrap();
        dense.append::<Int32Type>("i", row).unwrap();
        sparse.append::<Float64Type>("f", f64::from(row)).unwrap();
    }
    let nested = StructArray::from(vec![
        (Arc::new(Field::new("x", DataType::Int32, true)), Arc::new(Int32Array::from_iter(0..5)) as ArrayRef),
        (
            Arc::new(Field::new("words", DataType::Utf8View, true)),
            Arc::new(StringViewArray::from(vec![
                None,
                Some("a"),
                Some("a text longer than twelve bytes"),
                None,
                Some(""),
            ])),
        ),
    ]);
    let fixed = FixedSizeListArray::from_iter_primitive::<Int16Type, _, _>(
        (0..5).map(|row| (row != 1).then(|| vec![Some(row), None, Some(1)])),
        3,
    );
    let runs: RunArray<Int32Type> = ["a", "a", "b", "b", "b"].into_iter().collect();
    let words: DictionaryArray<Int8Type> =
        [Some("x"), None, Some("y"), Some("x"), Some("x")].into_iter().collect();
    vec![
        ("null", Arc::new(NullArray::new(5))),
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true), None]))),
        ("i8", Arc::new(Int8Array::from_iter_values(0..5))),
        ("u64", Arc::new(UInt64Array::from(vec![Some(1), None, Some(u64::MAX), None, Some(0)]))),
        ("f16", Arc::new(Float16Array::from_iter_values((0..5_u8).map(f16::from)))),
        (
            "f64",
            Arc::new(Float64Array::from_iter_values([f64::MIN, -0.0, f64::EPSILON, 1e300, f64::INFINITY])),
        ),
        (
            "decimal",
            Arc::new(Decimal128Array::from_iter_values(0..5).with_precision_and_scale(38, 2).unwrap()),
        ),
        ("decimal256", Arc::new(Decimal256Array::from_iter_values((0..5).map(i256::from_i128)))),
        ("date", Arc::new(Date32Array::from_iter_values(0..5))),
        (
            "timestamp",
            Arc::new(TimestampNanosecondArray::from_iter_values(0..5).with_timezone("Europe/Berlin")),
        ),
        (
            "interval",
            Arc::new(IntervalMonthDayNanoArray::from_iter_values(
                (0..5).map(|i| IntervalMonthDayNano::new(i, 1, 2)),
            )),
        ),
        (
            "day-time",
            Arc::new(IntervalDayTimeArray::from_iter_values((0..5).map(|i| IntervalDayTime::new(i, 1)))),
        ),
        ("text", Arc::new(StringArray::from(vec![Some("a"), None, Some(""), Some("größer"), Some("e")]))),
        ("large text", Arc::new(LargeStringArray::from_iter_values(["a", "b", "c", "d", "e"]))),
        ("binary", Arc::new(BinaryArray::from_iter_values([&b"\xff\x00"[..], b"", b"c", b"d", b"e"]))),
        ("fixed binary", Arc::new(binaries.finish())),
        ("list", Arc::new(lists.finish())),
        ("list view", Arc::new(views.finish())),
        ("map", Arc::new(maps.finish())),
        ("struct", Arc::new(nested)),
        ("fixed list", Arc::new(fixed)),
        ("runs", Arc::new(runs)),
        ("dictionary", Arc::new(words)),
        ("dense union", Arc::new(dense.build().unwrap())),
        ("sparse union", Arc::new(sparse.build().unwrap())),
    ]
}

fn every_type() -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns().into_iter().map(|(name, array)| (name, array, true)))
        .unwrap()
}

fn words(words: &[Option<&str>]) -> ArrayRef {
    let mut builder = StringDictionaryBuilder::<Int8Type>::new();
    words.iter().for_each(|word| builder.append_option(*word));
    Arc::new(builder.finish())
}

fn assert_value_in_place(value: &Buffer, file: &Buffer) {
    let (value, file) = (value.as_slice().as_ptr_range(), file.as_slice().as_ptr_range());
    assert!(file.start <= value.start && value.end <= file.end, "the value was copied");
    assert_eq!((value.start.addr() - file.start.addr()) % 64, 0);
}

/// The one column of a single value, as another implementation sees it.
fn seen_by_arrow(file: &Buffer, kind: Kind) -> (Field, ArrayRef) {
    let (schema, batches) = read_with_arrow(file);
    assert_eq!(schema.metadata().get("plasmon.kind").map(|name| name.to_string()), kind.name());
    assert_eq!((batches.len(), schema.fields().len(), batches[0].num_columns()), (1, 1, 1));
    assert_eq!(schema.field(0).name(), "value");
    (schema.field(0).clone(), batches[0].column(0).clone())
}

fn le_bytes(values: impl IntoIterator<Item = f64>) -> Vec<u8> {
    values.into_iter().flat_map(f64::to_le_bytes).collect()
}

fn description() -> serde_json::Map<String, serde_json::Value> {
    json!({ "type": "a test" }).as_object().unwrap().clone()
}

/// Two blocks whose columns take turns, of which one is a matrix in row order, a column of texts in pieces, a dictionary,
/// and labels.
fn blocks() -> BlockTable {
    let floats: Vec<f64> = (0..30).map(|n| if n % 7 == 3 { f64::NAN } else { f64::from(n) }).collect();
    let row_order = Strided::new(Dtype::FLOAT64, &[3, 10], &[8, 24], 0, le_bytes(floats)).unwrap();
    let ticks: Vec<i64> = (0..20).map(|n| if n == 11 { i64::MIN } else { n }).collect();
    let ticks = ticks.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let times = Strided::new(Dtype::INT64, &[2, 10], &[80, 8], 0, ticks).unwrap();
    let texts = |range: std::ops::Range<i32>| {
        let texts = range.map(|n| (n % 3 != 0).then(|| "x".repeat(usize::try_from(n).unwrap())));
        Arc::new(StringArray::from_iter(texts)) as ArrayRef
    };
    let words =
        words(&[Some("b"), None, Some("a"), Some("b"), None, None, Some("a"), Some("c"), None, Some("b")]);
    let field = |data_type| Field::new("", data_type, true);
    let schema = Schema::new(vec![
        field(DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))).with_metadata(
            [("unit".to_owned(), "tick".to_owned())].into_iter().collect::<std::collections::HashMap<_, _>>(),
        ),
        field(DataType::Float64),
        field(DataType::Utf8),
        field(words.data_type().clone()),
    ]);
    let names = ["t0", "f0", "f1", "text", "", "t1", "wörd"];
    BlockTable::new(
        Arc::new(schema),
        10,
        Arc::new(StringArray::from_iter_values(names)),
        vec![
            (TablePart::Block(times), vec![0, 5]),
            (TablePart::Block(row_order), vec![1, 2, 4]),
            (TablePart::Column(vec![texts(0..4), texts(4..10)]), vec![3]),
            (TablePart::Column(vec![words]), vec![6]),
        ],
        vec![TablePart::Column(vec![Arc::new(StringArray::from(vec!["label", "labels"]))])],
        description(),
    )
    .unwrap()
}

/// A file of every kind, for the tests of malformed bytes and of the format.
fn samples() -> Vec<(&'static str, Buffer, Header)> {
    let sample = |name, value: &dyn Learn| {
        let prepared = value.prepare().unwrap();
        (name, Buffer::from(prepared.to_vec().unwrap().as_slice()), prepared.header())
    };
    let table = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef),
        ("name", Arc::new(StringArray::from(vec![Some("ada"), None, Some("grace")]))),
        ("city", words(&[Some("London"), Some("New York"), Some("New York")])),
    ])
    .unwrap();
    vec![
        ("table", &table as &dyn Learn),
        ("bytes", b"forty bytes that do not fit in the entry"),
        ("tensor", &Tensor::new(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap()),
        ("null", &()),
        ("bool", &true),
        ("int64", &-42_i64),
        ("float64", &0.5_f64),
        ("text", &"größer als zweiunddreißig Bytes"),
        ("json", &json!({ "list": [1, 2.5, null], "text": "größer" })),
        ("pickle", &pickle_with(2)),
        ("pickle-of-many-buffers", &pickle_with(300)),
        ("table-of-blocks", &blocks()),
    ]
    .into_iter()
    .map(|(name, value)| sample(name, value))
    .collect()
}

/// A pickle with as many out-of-band buffers, some of them empty.
fn pickle_with(buffers: usize) -> Pickle {
    let buffers = (0..buffers).map(|at| Buffer::from_vec(vec![at.to_le_bytes()[0]; 70 * (at % 3)]));
    Pickle::new(b"\x80\x05a stream with as many buffers as it says.".to_vec(), buffers.collect())
}

/// What happens to a byte: bits of it are kept, others changed, and something is added.
fn change() -> impl Strategy<Value = (u8, u8, u8)> {
    prop_oneof![
        (0..8_u8).prop_map(|bit| (0xff, 1 << bit, 0)),
        any::<u8>().prop_map(|new| (0, new, 0)),
        prop::sample::select(vec![0, 1, 0x7f, 0x80, 0xff]).prop_map(|new| (0, new, 0)),
        prop::sample::select(vec![1_u8, 4, 8, 0xff, 0xfc]).prop_map(|step| (0xff, 0, step)),
    ]
}

fn cases(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(default)
}

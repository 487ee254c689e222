//! Tests of the codec as a whole: every kind and type, there and back, and what malformed bytes do.

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

/// Invariant 8, and a recall that copies nothing.
#[test]
fn a_table_of_every_type_comes_back_equal_and_in_place() {
    round_trip(&every_type().into());
}

#[test]
fn slices_of_batches_come_back_equal() {
    let batch = every_type();
    for (start, len) in [(0, 5), (1, 3), (4, 1), (2, 0), (0, 0)] {
        round_trip(&batch.slice(start, len).into());
    }
    let long = Int32Array::from_iter_values(0..100_000);
    let table = Table::from(RecordBatch::try_from_iter([column(long)]).unwrap().slice(99_000, 10));
    assert!(encode(&table).0.len() < 4096, "what a slice leaves out is not stored");
    let bits = BooleanArray::from_iter((0..100).map(|i| Some(i % 3 == 0)));
    round_trip(&RecordBatch::try_from_iter([column(bits)]).unwrap().slice(3, 50).into());
}

#[test]
fn tables_without_rows_columns_or_batches_come_back() {
    let schema = every_type().schema();
    round_trip(&Table::new(schema.clone(), vec![]).unwrap());
    round_trip(&RecordBatch::new_empty(schema).into());
    let none = Arc::new(Schema::empty());
    round_trip(&Table::new(none.clone(), vec![]).unwrap());
    let rows = RecordBatchOptions::new().with_row_count(Some(7));
    round_trip(&RecordBatch::try_new_with_options(none, vec![], &rows).unwrap().into());
}

#[test]
fn metadata_of_schema_and_fields_comes_back() {
    let field = Field::new("a", DataType::Int8, false)
        .with_metadata(std::collections::HashMap::from([("unit".to_owned(), "m".to_owned())]));
    let metadata = std::collections::HashMap::from([("pandas".to_owned(), "{}".to_owned())]);
    let schema = Arc::new(Schema::new_with_metadata(vec![field], metadata));
    let batch = RecordBatch::try_new(schema, vec![Arc::new(Int8Array::from(vec![1]))]).unwrap();
    round_trip(&table_of([batch.clone(), batch]));
}

fn table_of<const N: usize>(batches: [RecordBatch; N]) -> Table {
    Table::new(batches[0].schema(), batches.into()).unwrap()
}

#[test]
fn batches_of_another_schema_are_refused_by_their_number() {
    let one = RecordBatch::try_from_iter([column(Int8Array::from(vec![1]))]).unwrap();
    let other = RecordBatch::try_from_iter([column(Int16Array::from(vec![1]))]).unwrap();
    let error = [one.clone(), one, other].as_slice().prepare().unwrap_err();
    assert!(matches!(error, CodecError::SchemaMismatch { batch: 2, .. }), "{error}");
    assert!(error.to_string().contains("Int16"), "{error}");
    assert!(matches!(Vec::<RecordBatch>::new().prepare(), Err(CodecError::NoSchema)));
}

fn words(words: &[Option<&str>]) -> ArrayRef {
    let mut builder = StringDictionaryBuilder::<Int8Type>::new();
    words.iter().for_each(|word| builder.append_option(*word));
    Arc::new(builder.finish())
}

#[test]
fn dictionaries_that_differ_between_batches_become_one() {
    let lists = |array: ArrayRef| {
        let field = Arc::new(Field::new("item", array.data_type().clone(), true));
        let ends = arrow_buffer::OffsetBuffer::from_lengths([array.len()]);
        Arc::new(ListArray::new(field, ends, array, None)) as ArrayRef
    };
    let batches: Vec<RecordBatch> = [
        &[Some("a"), Some("b"), None][..],
        &[Some("c"), Some("a"), Some("c")],
        &[None, None, None],
        &[Some("b"), Some("a"), Some("d")],
    ]
    .map(|row| [("flat", words(row).slice(1, 1), true), ("nested", lists(words(row)), true)])
    .map(|columns| RecordBatch::try_from_iter_with_nullable(columns).unwrap())
    .into();
    let (file, _) = encode(&batches);
    let table = decode_table(&file, true).unwrap();
    assert_eq!(table, decode_table(&file, false).unwrap());
    assert_in_place(&table, &file);
    assert_eq!(read_with_arrow(&file).1, *table);
    for (found, expected) in table.iter().zip(&batches) {
        for (found, expected) in found.columns().iter().zip(expected.columns()) {
            let texts = |array: &ArrayRef| {
                let array =
                    array.as_any().downcast_ref::<ListArray>().map_or(array.clone(), |list| list.value(0));
                let array = array.as_any().downcast_ref::<DictionaryArray<Int8Type>>().unwrap().clone();
                let array = array.downcast_dict::<StringArray>().unwrap();
                array.into_iter().map(|text| text.map(str::to_owned)).collect::<Vec<_>>()
            };
            assert_eq!(texts(found), texts(expected));
        }
    }
    let flat = table[3].column(0).as_any().downcast_ref::<DictionaryArray<Int8Type>>().unwrap();
    assert_eq!(flat.values().len(), 4, "equal words share an entry");
}

#[test]
fn dictionaries_of_numbers_and_views_become_one() {
    let views = |texts: &[&str]| {
        let mut builder = StringViewBuilder::new();
        texts.iter().for_each(|text| builder.append_value(text));
        let keys = Int32Array::from_iter_values(0..i32::try_from(texts.len()).unwrap());
        Arc::new(DictionaryArray::new(keys, Arc::new(builder.finish()))) as ArrayRef
    };
    let numbers = |numbers: &[i64]| {
        let keys = Int32Array::from_iter_values(0..i32::try_from(numbers.len()).unwrap());
        Arc::new(DictionaryArray::new(keys, Arc::new(Int64Array::from(numbers.to_vec())))) as ArrayRef
    };
    let first = [("v", views(&["short", "longer than twelve bytes"])), ("n", numbers(&[7, 8]))];
    let second = [("v", views(&["longer than twelve bytes", "new"])), ("n", numbers(&[8, -1]))];
    let batches = [first, second].map(|columns| RecordBatch::try_from_iter(columns).unwrap());
    let table = decode_table(&encode(batches.as_slice()).0, false).unwrap();
    let values = |column: usize| {
        table[1]
            .column(column)
            .as_any()
            .downcast_ref::<DictionaryArray<Int32Type>>()
            .unwrap()
            .values()
            .clone()
    };
    assert_eq!(
        *values(0),
        *(Arc::new(StringViewArray::from(vec!["short", "longer than twelve bytes", "new"])) as ArrayRef)
    );
    assert_eq!(*values(1), *(Arc::new(Int64Array::from(vec![7, 8, -1])) as ArrayRef));
}

#[test]
fn dictionaries_that_cannot_become_one_name_their_column() {
    let many = |prefix: &str| {
        let texts: Vec<String> = (0..100).map(|i| format!("{prefix}{i}")).collect();
        let texts: Vec<Option<&str>> = texts.iter().map(|text| Some(text.as_str())).collect();
        RecordBatch::try_from_iter([("city", words(&texts))]).unwrap()
    };
    let error = vec![many("a"), many("b")].prepare().unwrap_err().to_string();
    assert!(error.contains("`city`") && error.contains("200") && error.contains("Int8"), "{error}");
}

#[test]
fn equal_dictionaries_are_stored_once_and_not_rewritten() {
    let batch = || RecordBatch::try_from_iter([("a", words(&[Some("x"), Some("y")]))]).unwrap();
    let table = table_of([batch(), batch()]);
    let file = round_trip(&table);
    let trailer = file.len() - 10;
    let footer_len = u32::from_le_bytes(file[trailer..trailer + 4].try_into().unwrap()) as usize;
    let footer = arrow_ipc::root_as_footer(&file[trailer - footer_len..trailer]).unwrap();
    assert_eq!(footer.dictionaries().unwrap().len(), 1);
}

fn nested_types(levels: usize) -> RecordBatch {
    let mut array: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    for _ in 1..levels {
        let field = Arc::new(Field::new("x", array.data_type().clone(), true));
        array = Arc::new(StructArray::from(vec![(field, array)]));
    }
    RecordBatch::try_from_iter([("a", array)]).unwrap()
}

#[test]
fn types_nested_deeper_than_can_be_read_are_refused_at_learn() {
    let deepest = Table::from(nested_types(64));
    let (file, _) = encode(&deepest);
    assert_eq!(decode_table(&file, false).unwrap(), deepest);
    assert!(matches!(nested_types(65).prepare(), Err(CodecError::Unsupported { .. })));
}

/// What recurses takes room elsewhere where a thread has little.
#[test]
fn what_is_nested_is_written_and_read_on_a_short_stack() {
    let deepest = Table::from(nested_types(64));
    let text = format!("{}1{}", "[".repeat(127), "]".repeat(127));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let work = move || {
        let (file, _) = encode(&deepest);
        let trusted = decode_table(&file, true).unwrap();
        let checked = decode_table(&file, false).unwrap();
        let (json, header) = encode(&value);
        let read = decode_json(&json, &header).unwrap();
        let text = decode_json_text(&json, &header, false).unwrap();
        (deepest, trusted, checked, value, read, text)
    };
    let thread = std::thread::Builder::new().stack_size(64 << 10).spawn(work).unwrap();
    let (deepest, trusted, checked, value, read, found) = thread.join().unwrap();
    assert!(trusted == deepest && checked == deepest && read == value);
    assert_eq!(&*found, text);
}

#[test]
fn a_text_is_json_as_deep_as_every_client_reads_it() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let nested = |levels: usize| format!(r#"{}"]}}\"[{{"{}"#, open.repeat(levels), close.repeat(levels));
        let deepest = Json::new(nested(127)).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&deepest).is_ok());
        for levels in [128, 100_000] {
            assert!(matches!(Json::new(nested(levels)), Err(CodecError::Unsupported { .. })), "{levels}");
        }
    }
}

#[test]
fn a_thousand_columns_are_read_back() {
    let columns = (0..1000).map(|i| (format!("column {i}"), Arc::new(Int32Array::from(vec![i])) as ArrayRef));
    round_trip(&RecordBatch::try_from_iter(columns).unwrap().into());
}

// ---- single values

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

#[test]
fn bytes_of_every_length_come_back_by_every_way() {
    for len in [0, 1, 31, 32, 33, 63, 64, 65, 4096, 100_000] {
        let value: Vec<u8> = (0..=255).cycle().take(len).collect();
        let (file, header) = encode(&value);
        assert_eq!(header.flags.has(Flags::INLINE), len <= 32);
        assert_eq!(header.flags.has(Flags::BUFFER), len > 32);
        assert!(header.flags.has(Flags::OUR_ENCODER));
        let found = decode_bytes(&file, &header).unwrap();
        assert_eq!(found.as_slice(), value);
        if len > 32 {
            assert_eq!(header.dims, [len as u64, 0, 0, 0]);
            assert_value_in_place(&found, &file);
        }
        let slow = decode_bytes(&file, &without_shortcuts(&header)).unwrap();
        assert_eq!(slow.as_slice(), value);
        assert_value_in_place(&slow, &file);
        let (field, column) = seen_by_arrow(&file, Kind::BYTES);
        assert_eq!(field.data_type(), &DataType::LargeBinary);
        assert_eq!(column.as_any().downcast_ref::<LargeBinaryArray>().unwrap().value(0), value);
        assert_eq!(decode_table(&file, true).unwrap(), decode_table(&file, false).unwrap());
        assert_eq!(encode(&bytes::Bytes::from(value)).0, file);
    }
    assert_eq!(encode(b"abc").0, encode(&b"abc"[..]).0);
}

#[test]
fn texts_come_back_and_must_be_utf_8() {
    for value in
        ["", "a", "größer als zweiunddreißig Bytes, also nicht im Kopf", &"€".repeat(10), &"€".repeat(11)]
    {
        let (file, header) = encode(value);
        for header in [header, without_shortcuts(&header)] {
            for trusted in [false, true] {
                let found = decode_text(&file, &header, trusted).unwrap();
                assert_eq!(found, value);
                assert_eq!(found.to_string(), value);
            }
        }
        assert_eq!(header.flags.has(Flags::INLINE), value.len() <= 32);
        assert_eq!(seen_by_arrow(&file, Kind::TEXT).0.data_type(), &DataType::LargeUtf8);
        assert_eq!(encode(&value.to_owned()).0, file);
    }
    let (file, bytes_header) = encode(&[0xff_u8; 40]);
    let header = Header { kind: Kind::TEXT, ..bytes_header };
    assert!(matches!(decode_text(&file, &header, false), Err(CodecError::NotUtf8(_))));
    let unvouched = Header { flags: Flags::BUFFER, ..header };
    assert!(matches!(decode_text(&file, &unvouched, true), Err(CodecError::NotUtf8(_))));
    let inline = Header::new(Kind::TEXT).with_inline(&[0xff]).unwrap();
    assert!(matches!(decode_text(&file, &inline, false), Err(CodecError::NotUtf8(_))));
}

#[test]
fn json_comes_back_exactly() {
    let long =
        json!({ "a": [1, -1, u64::MAX, i64::MIN, 0.1, 1e300, -0.0, null, true], "ключ": { "": "\u{0}\"" } });
    for value in [json!(null), json!({}), json!(0.1), json!("text"), long] {
        let (file, header) = encode(&value);
        assert_eq!(decode_json(&file, &header).unwrap(), value);
        assert_eq!(decode_json(&file, &without_shortcuts(&header)).unwrap(), value);
        let (field, _) = seen_by_arrow(&file, Kind::JSON);
        assert_eq!(field.data_type(), &DataType::LargeUtf8);
        assert_eq!(field.extension_type_name(), Some("arrow.json"));
    }
}

/// Nothing is learned that could not be recalled.
#[test]
fn json_nested_deeper_than_can_be_read_is_refused_at_learn() {
    let nested = |levels: usize, innermost| {
        (0..levels).fold(
            innermost,
            |value, level| if level % 2 == 0 { json!([value]) } else { json!({ "a": value }) },
        )
    };
    for (levels, innermost) in [(127, json!(1)), (126, json!([]))] {
        let deepest = nested(levels, innermost.clone());
        let (file, header) = encode(&deepest);
        assert_eq!(decode_json(&file, &header).unwrap(), deepest);
        assert!(matches!(nested(levels + 1, innermost).prepare(), Err(CodecError::Unsupported { .. })));
    }
}

#[test]
fn scalars_come_back_by_every_way() {
    for value in [i64::MIN, -1, 0, i64::MAX] {
        let (file, header) = encode(&value);
        assert_eq!(header.inline().unwrap().1, 8);
        assert_eq!(decode_i64(&file, &header).unwrap(), value);
        assert_eq!(decode_i64(&file, &without_shortcuts(&header)).unwrap(), value);
        assert_eq!(seen_by_arrow(&file, Kind::INT64).0.data_type(), &DataType::Int64);
    }
    for value in [f64::NEG_INFINITY, -0.0, 0.1, f64::from_bits(0x7ff8_0000_dead_beef)] {
        let (file, header) = encode(&value);
        assert_eq!(decode_f64(&file, &header).unwrap().to_bits(), value.to_bits());
        assert_eq!(decode_f64(&file, &without_shortcuts(&header)).unwrap().to_bits(), value.to_bits());
        assert_eq!(seen_by_arrow(&file, Kind::FLOAT64).0.data_type(), &DataType::Float64);
    }
    for value in [false, true] {
        let (file, header) = encode(&value);
        assert_eq!(
            header.inline().unwrap(),
            Header::new(Kind::BOOL).with_inline(&[value.into()]).unwrap().inline().unwrap()
        );
        assert_eq!(decode_bool(&file, &header).unwrap(), value);
        assert_eq!(decode_bool(&file, &without_shortcuts(&header)).unwrap(), value);
        assert_eq!(seen_by_arrow(&file, Kind::BOOL).0.data_type(), &DataType::Boolean);
    }
    let (file, header) = encode(&());
    assert_eq!(header.inline().unwrap().1, 0);
    decode_null(&header).unwrap();
    assert_eq!(seen_by_arrow(&file, Kind::NULL).1.logical_null_count(), 1);
    assert_eq!(decode_table(&file, true).unwrap().num_rows(), 1);
}

#[test]
fn a_value_of_another_kind_is_refused_with_both_named() {
    let (file, header) = encode("a text");
    let error = decode_bytes(&file, &header).unwrap_err().to_string();
    assert!(error.contains("`bytes`") && error.contains("`text`"), "{error}");
    assert!(decode_i64(&file, &header).is_err());
    assert!(decode_tensor(&file, &header, false).is_err());
    assert!(decode_null(&header).is_err());
    // Headers that do not fit their file.
    assert!(decode_i64(&file, &Header::new(Kind::INT64).with_inline(&[1; 4]).unwrap()).is_err());
    assert!(decode_bool(&file, &Header::new(Kind::BOOL).with_inline(&[2]).unwrap()).is_err());
    assert!(decode_i64(&file, &Header::new(Kind::INT64)).is_err());
    for (buffer_offset, len) in [(0, u64::MAX), (u32::MAX, 1), (1, file.len() as u64), (1, u64::MAX)] {
        let header =
            Header { flags: Flags::BUFFER, buffer_offset, dims: [len, 0, 0, 0], ..Header::new(Kind::BYTES) };
        assert!(matches!(decode_bytes(&file, &header), Err(CodecError::Malformed { .. })));
    }
}

// ---- tensors

fn check_tensor<T: TensorElement + PartialEq + std::fmt::Debug>(shape: &[usize], data: &[T]) {
    for column_major in [false, true] {
        let tensor =
            if column_major { Tensor::column_major(shape, data) } else { Tensor::new(shape, data) }.unwrap();
        let (file, header) = encode(&tensor);
        assert_eq!((header.dtype, usize::from(header.ndim)), (T::DTYPE, shape.len()));
        assert_eq!(header.flags.has(Flags::COLUMN_MAJOR), column_major);
        assert!(header.flags.has(Flags::BUFFER.with(Flags::OUR_ENCODER)));
        if shape.len() <= 4 {
            assert!(shape.iter().zip(header.dims).all(|(len, dim)| *len as u64 == dim));
        }
        for header in [header, without_shortcuts(&header)] {
            let found = decode_tensor(&file, &header, false).unwrap();
            assert_eq!((found.shape(), found.dtype()), (shape, T::DTYPE));
            assert_eq!(found.is_column_major(), column_major);
            assert_eq!(found.as_slice::<T>().unwrap(), data);
            assert_eq!(found.as_tensor(), tensor);
            assert_value_in_place(&found.clone().into_buffer(), &file);
            assert_eq!(encode(&found).0, file);
        }
        seen_by_arrow(&file, Kind::TENSOR);
        assert_in_place(&decode_table(&file, false).unwrap(), &file);
        assert_in_place(&decode_table(&file, true).unwrap(), &file);
    }
}

#[test]
fn tensors_of_every_dimension_come_back_in_place() {
    let data: Vec<f64> = (0..720).map(f64::from).collect();
    for shape in
        [&[][..], &[1], &[720], &[24, 30], &[2, 3, 120], &[2, 3, 4, 30], &[2, 3, 4, 5, 6], &[1, 1, 720]]
    {
        check_tensor(shape, &data[..shape.iter().product()]);
    }
    check_tensor(&[1; 255], &[1.5]);
    assert!(Tensor::new(&[1; 256], &[1.5]).is_err());
}

#[test]
fn tensors_without_elements_come_back_with_their_shape() {
    for shape in
        [&[0][..], &[0, 3], &[3, 0], &[0, 0], &[2, 0, 3], &[usize::MAX, 0, usize::MAX], &[5, 4, 3, 2, 0]]
    {
        check_tensor::<i32>(shape, &[]);
    }
}

#[test]
fn tensors_of_every_element_come_back() {
    check_tensor(&[2, 2], &[i8::MIN, -1, 0, i8::MAX]);
    check_tensor(&[4], &[i16::MIN, -1, 0, i16::MAX]);
    check_tensor(&[4, 1], &[i32::MIN, -1, 0, i32::MAX]);
    check_tensor(&[1, 4], &[i64::MIN, -1, 0, i64::MAX]);
    check_tensor(&[2], &[0_u8, u8::MAX]);
    check_tensor(&[2], &[0_u16, u16::MAX]);
    check_tensor(&[2], &[0_u32, u32::MAX]);
    check_tensor(&[2], &[0_u64, u64::MAX]);
    check_tensor(&[2, 1], &[f16::ONE, f16::NEG_INFINITY]);
    check_tensor(&[2, 1], &[1.5_f32, f32::MAX]);
    check_tensor(&[3], &[true, false, true]);
    check_tensor(&[2, 2], &[true, false, true, true]);
    check_tensor(&[], &[true]);
}

#[test]
fn tensors_have_arrows_own_form_where_it_has_one() {
    let form = |shape: &[usize]| {
        let tensor =
            Tensor::from_bytes(Dtype::BOOL8, shape, false, &[1; 24][..shape.iter().product()]).unwrap();
        let (field, column) = seen_by_arrow(&encode(&tensor).0, Kind::TENSOR);
        let description = field.metadata().get("plasmon.tensor").unwrap().to_string();
        (
            field.extension_type_name().unwrap().to_owned(),
            column.data_type().clone(),
            column.len(),
            description,
        )
    };
    let (name, data_type, rows, description) = form(&[4, 3, 2]);
    assert_eq!((name.as_str(), rows), ("arrow.fixed_shape_tensor", 4));
    assert!(matches!(data_type, DataType::FixedSizeList(_, 6)));
    assert_eq!(description, r#"{"dtype":"bool8","shape":[4,3,2],"order":"C"}"#);
    for (shape, rows) in [(&[24][..], 24), (&[][..], 1), (&[3, 0][..], 0)] {
        let (name, data_type, found, _) = form(shape);
        assert_eq!((name.as_str(), data_type, found), ("arrow.bool8", DataType::Int8, rows));
    }
    assert_eq!(form(&[0, 3]).2, 0);
}

#[test]
fn tensors_of_the_wrong_length_or_type_are_refused() {
    assert!(matches!(Tensor::new(&[2, 2], &[1.0]), Err(CodecError::ShapeMismatch { elements: 1, .. })));
    assert!(Tensor::new(&[usize::MAX, 2], &[1_u8]).is_err());
    assert!(Tensor::from_bytes(Dtype::NONE, &[1], false, &[0]).is_err());
    assert!(Tensor::from_bytes(Dtype::INT16, &[1], false, &[0]).is_err());
    let (file, header) = encode(&Tensor::new(&[2], &[2_u8, 1]).unwrap());
    let view = decode_tensor(&file, &header, false).unwrap();
    let error = view.as_slice::<i8>().unwrap_err().to_string();
    assert!(error.contains("int8") && error.contains("uint8"), "{error}");
    let truth = Header { dtype: Dtype::BOOL8, ..header };
    assert!(matches!(decode_tensor(&file, &truth, false), Err(CodecError::NotBool { index: 0, found: 2 })));
    let view = decode_tensor(&file, &truth, true).unwrap();
    assert!(matches!(view.as_slice::<bool>(), Err(CodecError::NotBool { index: 0, found: 2 })));
    for bad in [
        Header { dims: [u64::MAX, 2, 0, 0], ndim: 2, ..header },
        Header { dims: [1 << 20, 0, 0, 0], ..header },
        Header { buffer_offset: u32::MAX, ..header },
        Header { dtype: Dtype::NONE, ..header },
        Header { dtype: Dtype::from_number(200), ..header },
        Header { ndim: 255, ..header },
    ] {
        let decoded = decode_tensor(&file, &bad, false);
        assert!(decoded.is_err() || bad.ndim > 4, "{bad:?}: {decoded:?}");
    }
    let odd = Header {
        dtype: Dtype::UINT16,
        buffer_offset: header.buffer_offset + 1,
        dims: [1, 0, 0, 0],
        ..header
    };
    let (file, _) = encode(&Tensor::new(&[4], &[2_u8, 1, 2, 3]).unwrap());
    assert!(matches!(decode_tensor(&file, &odd, false), Err(CodecError::Misaligned { needed_bytes: 2, .. })));
}

// ---- what does not lie in one piece

/// The rows as an array of its own, with nothing before them.
fn rebuilt(array: &ArrayRef, start: usize, len: usize) -> ArrayRef {
    let data = array.to_data();
    let mut rows = MutableArrayData::new(vec![&data], false, len);
    rows.try_extend(0, start, start + len).unwrap();
    make_array(rows.freeze())
}

fn is_gathered(data_type: &DataType) -> bool {
    !(data_type.is_nested() || data_type.is_null() || matches!(data_type, DataType::RunEndEncoded(..)))
}

/// A table of these columns, each of which comes in pieces.
fn in_pieces(schema: &Schema, rows: usize, columns: Vec<Vec<ArrayRef>>) -> Result<BlockTable, CodecError> {
    let names = StringArray::from_iter_values(schema.fields().iter().map(|field| field.name()));
    let parts = columns.into_iter().zip(0..).map(|(chunks, at)| (TablePart::Column(chunks), vec![at]));
    let schema = Arc::new(schema.clone());
    BlockTable::new(schema, rows, Arc::new(names), parts.collect(), vec![], description())
}

/// arrow-ipc's own reader has the last word here as well.
#[test]
fn a_column_in_pieces_is_what_its_whole_is() {
    for (name, whole) in columns() {
        let schema = Schema::new(vec![Field::new(name, whole.data_type().clone(), true)]);
        for cuts in [&[0_usize, 5][..], &[0, 2, 5], &[0, 0, 1, 1, 3, 4, 5, 5], &[0, 0], &[0]] {
            let pairs = || cuts.windows(2).map(|cut| (cut[0], cut[1] - cut[0]));
            let slices: Vec<ArrayRef> = pairs().map(|(start, len)| whole.slice(start, len)).collect();
            let arrays: Vec<ArrayRef> = pairs().map(|(start, len)| rebuilt(&whole, start, len)).collect();
            let rows = *cuts.last().unwrap();
            for chunks in [slices, arrays] {
                let is_whole = chunks.len() == 1 && rows > 0;
                let table = in_pieces(&schema, rows, vec![chunks]);
                if !is_gathered(whole.data_type())
                    || (matches!(whole.data_type(), DataType::Dictionary(..)) && !is_whole)
                {
                    assert!(matches!(table, Err(CodecError::Unsupported { .. })), "{name}");
                    continue;
                }
                let (file, _) = encode(&table.unwrap());
                let (_, found) = read_with_arrow(&file);
                assert_eq!(found[0].column(0), &whole.slice(0, rows), "{name} {cuts:?}");
                assert_eq!(found, decode_table(&file, false).unwrap()[..], "{name} {cuts:?}");
            }
        }
    }
}

#[test]
fn many_columns_in_pieces_are_what_their_whole_is() {
    let whole = every_type();
    let kept = (0..whole.num_columns()).filter(|at| is_gathered(whole.schema().field(*at).data_type()));
    let kept: Vec<usize> = kept.collect();
    let twice: Vec<usize> = kept.iter().chain(&kept).copied().collect(); // two dictionaries
    let whole = whole.project(&twice).unwrap();
    let columns = whole.columns().iter().map(|column| {
        let cuts = if matches!(column.data_type(), DataType::Dictionary(..)) {
            vec![(0, 5)]
        } else {
            vec![(0, 3), (3, 2)]
        };
        cuts.into_iter().map(|(start, len)| rebuilt(column, start, len)).collect()
    });
    let (file, _) = encode(&in_pieces(&whole.schema(), 5, columns.collect()).unwrap());
    let found = decode_table(&file, true).unwrap();
    assert_in_place(&found, &file);
    assert_eq!(found[0].columns(), whole.columns());
    assert_eq!(read_with_arrow(&file).1, found[..]);
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

#[test]
fn a_table_of_blocks_is_a_table_of_columns_to_arrow() {
    let (file, header) = encode(&blocks());
    let table = decode_table(&file, true).unwrap();
    assert_in_place(&table, &file);
    let (schema, batches) = read_with_arrow(&file);
    assert_eq!((&schema, &batches[..]), (table.schema(), &table[..]));
    assert_eq!(decode_table(&file, false).unwrap(), table);
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["t0", "f0", "f1", "text", "", "t1", "wörd"]);
    assert_eq!(schema.field(5).metadata()["unit"], "tick");
    let batch = &batches[0];
    let nulls: Vec<usize> = batch.columns().iter().map(|column| column.null_count()).collect();
    assert_eq!(nulls, [0, 2, 1, 4, 1, 1, 4]); // of 0..30, 3, 10, 17 and 24 are NaN
    for (at, first) in [(1, 0), (2, 1), (4, 2)] {
        let column = batch.column(at).as_primitive::<Float64Type>();
        for row in 0..10 {
            let n = u32::try_from(first + 3 * row).unwrap();
            assert_eq!(column.is_null(row), n % 7 == 3, "{n}");
            assert!(
                column.values()[row].is_nan() == (n % 7 == 3)
                    && (n % 7 == 3 || column.value(row) == f64::from(n))
            );
        }
        assert_eq!(column.nulls().map(|it| it.buffer().len()), (column.null_count() > 0).then_some(2));
    }

    let (text, body) = decode_blocks(&file, &header).unwrap();
    assert_eq!(schema.metadata()["plasmon.python"].as_bytes(), text.as_slice());
    let said: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(said["type"], "a test");
    // The columns of a block lie side by side, padded to multiples of 64 bytes.
    assert_eq!(said["places"][0], json!([0, 128]));
    assert_eq!(said["places"][1], json!([256, 128]));
    let place = |at: usize| body.as_ptr().addr() + 256 + 128 * at;
    let ours = decode_table(&file, true).unwrap();
    let in_place = |at: usize| ours[0].column(at).to_data().buffers()[0].as_ptr().addr();
    assert_eq!([in_place(1), in_place(2), in_place(4)], [place(0), place(1), place(2)]);
    let label = |at: usize| usize::try_from(said["places"][4][2][at].as_u64().unwrap()).unwrap();
    assert_eq!(&body[label(0)..label(0) + label(1)], b"labellabels");
}

#[test]
fn values_that_are_missing_anywhere_are_null_and_columns_without_have_no_validity() {
    for rows in [0_usize, 1, 7, 8, 9, 255, 256, 257, 8191, 8192, 8193, 20_000] {
        let last = rows.saturating_sub(1);
        for missing in [vec![], vec![0], vec![last], vec![rows / 2, last], (0..rows).collect()] {
            let mut missing: Vec<usize> = missing.into_iter().filter(|at| *at < rows).collect();
            missing.dedup();
            for (column, row) in [(8 * rows, 8_usize), (8, 16)] {
                let mut values = vec![1.5_f64; 2 * rows];
                for at in &missing {
                    values[(column + at * row) / 8] = f64::NAN; // in the second column
                }
                let strides = [column.cast_signed(), row.cast_signed()];
                let block = Strided::new(Dtype::FLOAT64, &[2, rows], &strides, 0, le_bytes(values)).unwrap();
                let schema = Arc::new(Schema::new(vec![Field::new("", DataType::Float64, true)]));
                let names = Arc::new(StringArray::from(vec!["whole", "missing"]));
                let parts = vec![(TablePart::Block(block), vec![0, 1])];
                let table = BlockTable::new(schema, rows, names, parts, vec![], description()).unwrap();
                let (file, _) = encode(&table);
                let table = decode_table(&file, true).unwrap();
                assert!(table[0].column(0).nulls().is_none());
                let nulls = table[0].column(1).nulls();
                let found: Vec<usize> =
                    (0..rows).filter(|at| nulls.is_some_and(|it| it.is_null(*at))).collect();
                assert_eq!(found, missing, "{rows} {strides:?}");
                assert_eq!(nulls.is_some(), !missing.is_empty());
            }
        }
    }
}

#[test]
fn every_type_of_a_block_has_its_own_missing_value() {
    let nan16 = [0x00, 0x3c, 0x01, 0xfc].to_vec();
    let nan32: Vec<u8> = [1.5_f32, f32::NAN].iter().flat_map(|it| it.to_le_bytes()).collect();
    let least: Vec<u8> = [0_i64, i64::MIN].iter().flat_map(|it| it.to_le_bytes()).collect();
    for (data_type, dtype, bytes, nulls) in [
        (DataType::Float16, Dtype::FLOAT16, nan16, 1),
        (DataType::Float32, Dtype::FLOAT32, nan32, 1),
        (DataType::Duration(TimeUnit::Second), Dtype::INT64, least.clone(), 1),
        (DataType::Timestamp(TimeUnit::Nanosecond, None), Dtype::INT64, least.clone(), 1),
        (DataType::Int64, Dtype::INT64, least, 0),
    ] {
        let width = isize::try_from(bytes.len() / 2).unwrap();
        let block = Strided::new(dtype, &[1, 2], &[2 * width, width], 0, bytes).unwrap();
        let schema = Arc::new(Schema::new(vec![Field::new("", data_type.clone(), true)]));
        let names = Arc::new(LargeStringArray::from(vec!["a"]));
        let parts = vec![(TablePart::Block(block), vec![0])];
        let (file, _) = encode(&BlockTable::new(schema, 2, names, parts, vec![], description()).unwrap());
        let table = decode_table(&file, false).unwrap();
        assert_eq!(table[0].column(0).null_count(), nulls, "{data_type}");
        assert!(table[0].column(0).is_valid(0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(100)))]

    #[test]
    fn what_is_null_in_a_block_is_what_is_missing_one_by_one(
        rows in prop_oneof![0..200_usize, 4_050..4_170_usize, 8_180..8_260_usize],
        pattern in prop::collection::vec(0..12_usize, 1..200),
    ) {
        // Of each type: what is missing, and what is not though it comes near.
        let nan16 = ([0x7c01_u64, 0xfe00, 0x7fff, 0xffff], [0x3c00_u64, 0x7c00, 0xfc00, 0x8000]);
        let nan32 = ([0x7f80_0001, 0xffc0_0000, 0x7fff_ffff, 0xffff_ffff], [0, 0x7f80_0000, 0xff80_0000, 0x8000_0000]);
        let nan64 = ([0x7ff0 << 48 | 1, 0xfff8 << 48, u64::MAX >> 1, u64::MAX], [0, 0x7ff0 << 48, 0xfff0 << 48, 1 << 63]);
        let least = ([1_u64 << 63; 4], [0, u64::MAX >> 1, 1 << 63 | 1, u64::MAX]);
        for (data_type, dtype, width, (missing, others)) in [
            (DataType::Float16, Dtype::FLOAT16, 2, nan16),
            (DataType::Float32, Dtype::FLOAT32, 4, nan32),
            (DataType::Float64, Dtype::FLOAT64, 8, nan64),
            (DataType::Timestamp(TimeUnit::Second, None), Dtype::INT64, 8, least),
        ] {
            // Patterns of small numbers have few missing values, or none.
            let is_missing = |at: usize| pattern[at % pattern.len()] > 9;
            let of = |at: usize| if is_missing(at) { missing[at % 4] } else { others[at % 4] };
            let expected: Vec<u8> = (0..rows).flat_map(|at| of(at).to_le_bytes()[..width].to_vec()).collect();
            for step in [1_isize, 3, -1] {
                let mut bytes = vec![0; width * (rows * step.unsigned_abs()).max(1)];
                let first = if step < 0 { rows.saturating_sub(1) } else { 0 };
                for (at, value) in expected.chunks(width).enumerate() {
                    let place = first.strict_add_signed(at.cast_signed() * step) * width;
                    bytes[place..place + width].copy_from_slice(value);
                }
                let strides = [0, step * width.cast_signed()];
                let block = Strided::new(dtype, &[1, rows], &strides, first * width, bytes).unwrap();
                let schema = Arc::new(Schema::new(vec![Field::new("", data_type.clone(), true)]));
                let names = Arc::new(StringArray::from(vec!["a"]));
                let parts = vec![(TablePart::Block(block), vec![0])];
                let (file, _) = encode(&BlockTable::new(schema, rows, names, parts, vec![], description()).unwrap());
                let table = decode_table(&file, false).unwrap();
                let column = table[0].column(0);
                let nulls: Vec<usize> = (0..rows).filter(|at| column.is_null(*at)).collect();
                prop_assert_eq!(&nulls, &(0..rows).filter(|at| is_missing(*at)).collect::<Vec<_>>());
                prop_assert_eq!(column.null_count(), nulls.len());
                let data = column.to_data();
                prop_assert_eq!(&data.buffers()[0].as_slice()[..expected.len()], &expected[..]);
            }
        }
    }
}

#[test]
fn a_table_of_blocks_may_have_10_000_columns() {
    let columns = 10_000_usize;
    let values = Strided::new(Dtype::UINT8, &[columns, 1], &[1, 1], 0, vec![7_u8; columns]).unwrap();
    let schema = Arc::new(Schema::new(vec![Field::new("", DataType::UInt8, true)]));
    let names = StringArray::from_iter_values((0..columns).map(|n| format!("column {n}")));
    let parts = vec![(TablePart::Block(values), (0..columns as u64).rev().collect())];
    let table = BlockTable::new(schema, 1, Arc::new(names), parts, vec![], description()).unwrap();
    let table = decode_table(&encode(&table).0, false).unwrap();
    assert_eq!(table.schema().field(9_999).name(), "column 9999");
    assert!(table[0].columns().iter().all(|column| column.as_primitive::<UInt8Type>().value(0) == 7));
}

#[test]
fn parts_that_make_no_table_are_refused() {
    let schema = Arc::new(Schema::new(vec![Field::new("", DataType::Float64, true)]));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let block = |columns: usize| {
        TablePart::Block(Strided::new(Dtype::FLOAT64, &[columns, 1], &[8, 8], 0, vec![0; 64]).unwrap())
    };
    let make = |parts| BlockTable::new(schema.clone(), 1, names.clone(), parts, vec![], description());
    make(vec![(block(2), vec![1, 0])]).unwrap();
    for parts in [
        vec![],
        vec![(block(1), vec![0])],
        vec![(block(3), vec![0, 1, 2])],
        vec![(block(2), vec![0, 0])],
        vec![(block(2), vec![0, u64::MAX])],
        vec![(block(1), vec![0, 1])],
        vec![(TablePart::Column(vec![Arc::new(Int64Array::from(vec![1]))]), vec![0])],
        vec![(TablePart::Column(vec![Arc::new(Float64Array::from(vec![1.0; 2]))]), vec![0])],
    ] {
        let refused = make(parts);
        assert!(matches!(refused, Err(CodecError::ColumnMismatch { .. })), "{refused:?}");
    }
    let other = BlockTable::new(
        schema.clone(),
        1,
        names.clone(),
        vec![(block(2), vec![0, 1]); 2],
        vec![],
        description(),
    );
    assert!(matches!(other, Err(CodecError::ColumnMismatch { .. })));
}

#[test]
fn places_outside_the_object_are_refused() {
    let (file, header) = encode(&blocks());
    for (offset, dims) in [
        (u32::MAX, header.dims),
        (header.buffer_offset, [u64::MAX, header.dims[1], 0, 0]),
        (header.buffer_offset, [header.dims[0], file.len() as u64 + 1, 0, 0]),
    ] {
        let refused = decode_blocks(&file, &Header { buffer_offset: offset, dims, ..header });
        assert!(matches!(refused, Err(CodecError::Malformed { .. })), "{refused:?}");
    }
}

/// A dimension of a strided array: its length, and its stride in elements.
fn dimensions() -> impl Strategy<Value = Vec<(usize, isize)>> {
    prop::collection::vec((0..5_usize, -9..9_isize), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(200)))]

    #[test]
    fn a_strided_array_is_what_its_elements_are_one_by_one(dims in dimensions(), wide in 1..3000_usize) {
        for (dtype, width) in [(Dtype::UINT8, 1), (Dtype::INT16, 2), (Dtype::FLOAT32, 4), (Dtype::UINT64, 8)] {
            // A long last dimension, so that there is more than one block.
            let dims: Vec<(usize, isize)> = dims.iter().copied().chain([(wide, 2)]).collect();
            let reach = |sign: isize| -> isize {
                dims.iter().filter(|(len, _)| *len > 0).map(|(len, stride)| (stride * (len.cast_signed() - 1) * sign).max(0)).sum()
            };
            let (below, above) = (reach(-1).unsigned_abs(), reach(1).unsigned_abs());
            let bytes: Vec<u8> = (0..(below + above + 1) * width).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
            let shape: Vec<usize> = dims.iter().map(|(len, _)| *len).collect();
            let strides: Vec<isize> = dims.iter().map(|(_, stride)| stride * width.cast_signed()).collect();
            let mut expected: Vec<u8> = Vec::new();
            let mut places = vec![below.cast_signed()];
            for (len, stride) in &dims {
                places = places.iter().flat_map(|place| (0..len.cast_signed()).map(move |at| place + at * stride)).collect();
            }
            places.iter().for_each(|place| expected.extend(&bytes[place.unsigned_abs() * width..][..width]));
            let array = Strided::new(dtype, &shape, &strides, below * width, bytes.clone()).unwrap();
            prop_assert_eq!(encode(&array), encode(&Tensor::from_bytes(dtype, &shape, false, &expected).unwrap()));
            if !expected.is_empty() {
                let short = bytes[..bytes.len() - 1].to_vec();
                let refused = Strided::new(dtype, &shape, &strides, below * width, short);
                let is_refused = matches!(refused, Err(CodecError::OutOfBounds { .. }));
                prop_assert!(is_refused);
            }
        }
    }
}

#[test]
fn a_strided_array_of_long_runs_or_of_no_sense_is_written_or_refused() {
    let bytes: Vec<u8> = (0..300_000_usize).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let rows = Strided::new(Dtype::UINT8, &[3, 70_000], &[100_000, 1], 5, bytes.clone()).unwrap();
    let expected: Vec<u8> = (0..3).flat_map(|row| &bytes[row * 100_000 + 5..][..70_000]).copied().collect();
    assert_eq!(encode(&rows), encode(&Tensor::new(&[3, 70_000], &expected).unwrap()));
    for (shape, strides, first) in [
        (&[2_usize][..], &[isize::MIN][..], 0_usize),
        (&[usize::MAX], &[1], 0),
        (&[1], &[1], usize::MAX),
        (&[2, 2], &[1], 0),
        (&[2], &[-1], 0),
        (&[usize::MAX, usize::MAX], &[0, 0], 0),
    ] {
        let refused = Strided::new(Dtype::UINT8, shape, strides, first, bytes.clone());
        assert!(matches!(refused, Err(CodecError::OutOfBounds { .. })), "{shape:?}");
    }
}

// ---- frames

#[test]
fn a_frame_around_the_bytes_is_what_learning_them_writes() {
    for len in [0_usize, 1, 63, 64, 65, 1000] {
        let value = vec![7; len];
        let frame = InPlaceFrame::bytes(len as u64).unwrap();
        let file = [frame.prefix(), &value, frame.suffix()].concat();
        assert_eq!(encode(&value).0.as_slice(), file);
        assert_eq!(frame.len_bytes(), file.len() as u64);
        let file = Buffer::from(file.as_slice());
        assert_eq!(decode_bytes(&file, &frame.header()).unwrap().as_slice(), value);
        assert_eq!(frame.header().dims[0], len as u64);
    }
}

/// arrow-ipc's own writer has the last word on what a file looks like.
#[test]
fn a_frame_is_byte_for_byte_what_arrow_writes_for_the_same_column() {
    let rewritten = |file: &Buffer| {
        let (schema, batches) = read_with_arrow(file);
        encode(&Table::new(schema, batches).unwrap()).0
    };
    let tensor = Tensor::new(&[2, 3], &[1_i32, 2, 3, 4, 5, 6]).unwrap();
    for file in [
        encode("text").0,
        encode(&[0_u8; 100]).0,
        encode(&()).0,
        encode(&true).0,
        encode(&1_i64).0,
        encode(&1.0_f64).0,
        encode(&json!([1])).0,
        encode(&tensor).0,
    ] {
        assert_eq!(rewritten(&file), file);
    }
}

#[test]
fn more_than_4_gib_are_framed_from_their_length_alone() {
    let len = (1_u64 << 32) + 1;
    let frame = InPlaceFrame::bytes(len).unwrap();
    assert_eq!(frame.data_offset() % 64, 0);
    assert_eq!(frame.data_offset(), frame.prefix().len() as u64);
    assert_eq!(frame.len_bytes(), frame.data_offset() + len + frame.suffix().len() as u64);
    assert_eq!(frame.header().dims[0], len);

    let suffix = frame.suffix().strip_suffix(MAGIC).unwrap();
    let (rest, footer_len) = suffix.split_last_chunk::<4>().unwrap();
    let footer_start = rest.len() - u32::from_le_bytes(*footer_len) as usize;
    let footer = arrow_ipc::root_as_footer(&rest[footer_start..]).unwrap();
    let block = footer.recordBatches().unwrap().get(0);
    let body_start = u64::try_from(block.offset()).unwrap() + u64::try_from(block.metaDataLength()).unwrap();
    assert_eq!(u64::try_from(block.bodyLength()).unwrap(), 64 + padded(len));
    assert_eq!(body_start + 64, frame.data_offset());
    // The padding of the values, then the end of the stream, then the footer.
    assert_eq!(u64::try_from(footer_start).unwrap(), padded(len) - len + 8);

    let head = &frame.prefix()[usize::try_from(block.offset()).unwrap() + 8..];
    let batch = arrow_ipc::root_as_message(head).unwrap().header_as_record_batch().unwrap();
    let buffers: Vec<(i64, i64)> =
        batch.buffers().unwrap().iter().map(|b| (b.offset(), b.length())).collect();
    assert_eq!(buffers, [(0, 0), (0, 16), (64, i64::try_from(len).unwrap())]);
    let offsets = &frame.prefix()[usize::try_from(body_start).unwrap()..][..16];
    assert_eq!(offsets, [0_u64.to_le_bytes(), len.to_le_bytes()].concat());
    assert!(InPlaceFrame::bytes(u64::MAX).is_err());
}

#[test]
fn a_destination_of_another_length_is_refused_untouched() {
    let prepared = "text".prepare().unwrap();
    let mut out = vec![1; usize::try_from(prepared.len_bytes_max()).unwrap() + 1];
    assert!(matches!(prepared.write_into(&mut out), Err(CodecError::WrongLength { .. })));
    assert!(out.iter().all(|byte| *byte == 1));
}

// ---- foreign and malformed files

fn foreign(alignment: usize, batch: &RecordBatch) -> Vec<u8> {
    let options =
        arrow_ipc::writer::IpcWriteOptions::try_new(alignment, false, arrow_ipc::MetadataVersion::V5)
            .unwrap();
    let mut writer =
        arrow_ipc::writer::FileWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn a_file_from_elsewhere_is_read_whatever_its_alignment() {
    let batch = every_type();
    for shift in 0..8 {
        let mut memory = vec![0; shift];
        memory.extend(foreign(8, &batch));
        let file = Buffer::from(memory).slice(shift);
        assert_eq!(Table::from_ipc(file.clone()).unwrap()[0], batch);
        if shift > 0 {
            assert!(matches!(decode_table(&file, false), Err(CodecError::Misaligned { .. })));
            assert!(matches!(decode_table(&file, true), Err(CodecError::Misaligned { .. })));
        }
    }
    round_trip(&Table::from_ipc(foreign(8, &batch)).unwrap());
}

/// A few bytes of footer must not keep a reader busy with the same block again and again.
#[test]
fn a_footer_that_names_a_block_twice_is_refused() {
    let batch = every_type();
    let (file, _) = encode(&vec![batch.clone(), batch]);
    let blocks = |file: &[u8]| {
        let trailer = file.len() - 10;
        let start = trailer - u32::from_le_bytes(file[trailer..][..4].try_into().unwrap()) as usize;
        let footer = arrow_ipc::root_as_footer(&file[start..trailer]).unwrap();
        let blocks = footer.recordBatches().unwrap();
        (blocks.bytes().as_ptr().addr() - file.as_ptr().addr(), blocks.bytes().len())
    };
    let (at, len) = blocks(&file);
    let mut twice = file.to_vec();
    twice.copy_within(at..at + len / 2, at + len / 2);
    assert!(matches!(Table::from_ipc(twice), Err(CodecError::Malformed { .. })));
}

#[test]
fn what_is_no_arrow_file_is_refused() {
    for bytes in [
        &b""[..],
        b"ARROW1",
        b"ARROW1ARROW1",
        b"ARROW1\0\0\0\0ARROW1",
        b"ARROW1\xff\xff\xff\xffARROW1",
        &[0; 1000],
    ] {
        assert!(matches!(Table::from_ipc(bytes), Err(CodecError::Malformed { .. })), "{bytes:?}");
    }
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

/// Each buffer is found again, at a place where arrays can be over it.
#[test]
fn a_pickle_may_have_any_number_of_buffers() {
    for count in [1, 2, 256, 257, 1000] {
        let pickle = pickle_with(count);
        let (file, header) = encode(&pickle);
        let found = decode_pickle(&file, &header, false).unwrap();
        assert_eq!(found, pickle, "{count} buffers");
        for buffer in found.buffers() {
            let place = buffer.as_ptr().addr() - file.as_ptr().addr();
            assert!(place.is_multiple_of(64) && place + buffer.len() <= file.len());
        }
        assert!(decode_table(&file, false).unwrap().schema().fields().len() <= 257);
    }
}

/// Invariant 7: lengths that somebody else wrote are looked at.
#[test]
fn lengths_of_a_pickles_buffers_that_lead_beyond_them_are_refused() {
    let (file, header) = encode(&pickle_with(300));
    let lengths: Vec<u8> = (0..300_u64).flat_map(|at| (70 * (at % 3)).to_le_bytes()).collect();
    let at = file.windows(lengths.len()).position(|bytes| bytes == lengths).unwrap();
    for wrong in [u64::MAX, u64::MAX - 100, 1 << 40, file.len() as u64] {
        for which in [0, 1, 299] {
            let mut bytes = MutableBuffer::new(file.len());
            bytes.extend_from_slice(&file);
            bytes.as_slice_mut()[at + 8 * which..][..8].copy_from_slice(&wrong.to_le_bytes());
            assert!(decode_pickle(&bytes.into(), &header, false).is_err(), "{wrong} bytes in buffer {which}");
        }
    }
}

fn decode_anyhow(file: &Buffer, header: &Header) {
    for header in [*header, without_shortcuts(header)] {
        let _ = decode_blocks(file, &header);
        let _ = decode_bytes(file, &header);
        let _ = decode_text(file, &header, false);
        let _ = decode_json(file, &header);
        let _ = decode_bool(file, &header);
        let _ = decode_i64(file, &header);
        let _ = decode_f64(file, &header);
        let _ = decode_pickle(file, &header, false);
        if let Ok(tensor) = decode_tensor(file, &header, false) {
            let _ = tensor.as_slice::<f64>();
            assert_in_memory(&tensor.into_buffer(), file);
        }
    }
    // What is not validated is not looked at here either: the structure alone must hold.
    if let Ok(table) = decode_table(file, true) {
        for column in table.iter().flat_map(|batch| batch.columns()) {
            every_buffer(&column.to_data(), &mut |buffer| assert_in_memory(buffer, file));
        }
    }
    for trust in [Trust::NONE, Trust::FOREIGN] {
        if let Ok(table) = decode_file(file, trust) {
            for column in table.iter().flat_map(|batch| batch.columns()) {
                column.to_data().validate_full().unwrap();
            }
            let _ = table.prepare().map(|prepared| prepared.to_vec());
        }
    }
}

fn assert_in_memory(buffer: &Buffer, file: &Buffer) {
    let (buffer, file) = (buffer.as_slice().as_ptr_range(), file.as_slice().as_ptr_range());
    assert!(buffer.is_empty() || (file.start <= buffer.start && buffer.end <= file.end));
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let mut samples = samples();
    samples.push(("every type", encode(&every_type()).0, Header::new(Kind::TABLE)));
    for (name, file, header) in samples {
        for len in 0..file.len() {
            let cut = file.slice_with_length(0, len);
            assert!(decode_table(&cut, true).is_err(), "{name} cut to {len}");
            if len % 97 == 0 {
                decode_anyhow(&cut, &header);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(512), failure_persistence: None, ..ProptestConfig::default() })]

    /// Invariant 7: whatever a few bytes are changed to, the answer is a value or an error.
    #[test]
    fn a_file_with_changed_bytes_is_read_or_refused_but_never_panics(
        which in 0..13_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), change()), 1..6),
    ) {
        let mut all = SAMPLES.with(Clone::clone);
        let (_, file, header) = all.swap_remove(which);
        let mut bytes = MutableBuffer::new(file.len());
        bytes.extend_from_slice(&file);
        for (place, in_metadata, (keep, flip, add)) in changes {
            let at = place.index(bytes.len());
            // Half of the changes go where they hurt most: into the footer.
            let footer = bytes.len().saturating_sub(1 + at % (bytes.len() / 2).min(4096));
            let at = if in_metadata { footer } else { at };
            bytes.as_slice_mut()[at] = ((bytes.as_slice()[at] & keep) ^ flip).wrapping_add(add);
        }
        decode_anyhow(&bytes.into(), &header);
    }
}

thread_local! {
    static SAMPLES: Vec<(&'static str, Buffer, Header)> = {
        let mut samples = samples();
        samples.push(("every type", encode(&every_type()).0, Header::new(Kind::TABLE)));
        samples
    };
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

// ---- the format

/// The Arrow form of every kind is a promise to other versions and other languages. A change needs new files beside
/// these: `PLASMON_WRITE_GOLDEN=1 cargo test -p plasmon golden` writes those that are missing.
#[test]
fn golden_files_of_every_kind_are_unchanged() -> TestResult {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/codec/golden"));
    for (name, file, header) in samples() {
        let path = folder.join(format!("{name}.arrow"));
        if !path.exists() && std::env::var_os("PLASMON_WRITE_GOLDEN").is_some() {
            fs::create_dir_all(folder)?;
            fs::write(&path, file.as_slice())?;
        }
        let golden = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        assert!(golden == file.as_slice(), "{name}: the format has changed");
        assert_eq!(header.kind.name().as_deref(), name.split('-').next());
    }
    Ok(())
}

//! Tables of every type, there and back.

use super::*;

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

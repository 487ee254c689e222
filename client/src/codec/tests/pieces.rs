//! Arrays and tables that do not lie in one piece.

use super::*;

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

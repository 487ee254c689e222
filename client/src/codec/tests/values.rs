//! Single values, there and back.

use super::*;

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

//! What stands around values.

use super::*;

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

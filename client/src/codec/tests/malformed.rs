//! Files from elsewhere, and malformed ones.

use super::*;

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

//! Any stream of bytes is split into frames or refused, and what is accepted is what would be written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plasmon_protocol::{
    frame::{FrameHeader, HEADER_BYTES, append},
    limits::FRAME_BYTES_MAX,
    message::AnyRequest,
};

fuzz_target!(|stream: &[u8]| {
    let mut rest = stream;
    while let Some((header, behind)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let Ok(header) = FrameHeader::parse(header) else { return };
        assert!(header.len_bytes <= FRAME_BYTES_MAX);
        let Some((body, behind)) = behind.split_at_checked(header.len_bytes as usize) else { return };
        let mut again = Vec::new();
        append(&mut again, header.kind, header.request_id, |out| out.extend_from_slice(body))
            .expect("it fitted");
        assert_eq!(again, &rest[..HEADER_BYTES + body.len()]);
        if let Some(Err(error)) = AnyRequest::parse(header.kind, body.to_vec().into()) {
            assert!(!error.to_string().is_empty());
        }
        rest = behind;
    }
});

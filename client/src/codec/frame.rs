//! The Arrow IPC file around one buffer of values, or the columns of one batch, built from their lengths alone.
//!
//! ```text
//! 0              magic, padding
//! 64             schema message, padding
//! 64 n           head of the record batch message, padding
//! 64 n           first part of its body: the offsets, where the type has them, padding
//! data_offset    the values: `data_len` bytes that this module never sees; of columns, all buffers of the body
//!                padding, end of stream, footer, its length, magic
//! ```
//!
//! What stands before the values is the *prefix*, what follows them the *suffix*. Both are small and their lengths do
//! not depend on `data_len` except for the padding, so an object of any length can be framed before its bytes exist.

use super::error::CodecError;
use arrow_ipc::{
    Block, Buffer, FieldNode, FooterBuilder, MessageBuilder, MessageHeader, MetadataVersion,
    RecordBatchBuilder,
    convert::IpcSchemaEncoder,
    writer::{DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteOptions},
};
use arrow_schema::Schema;
use flatbuffers::FlatBufferBuilder;
use plasmon_protocol::object::{Dtype, Kind};
use std::{borrow::Cow, cell::RefCell, collections::VecDeque, sync::Arc};

/// Every message, body and buffer of a file starts at a multiple of this.
pub(crate) const ALIGNMENT_BYTES: u64 = 64;

/// First and last bytes of an Arrow IPC file.
pub(crate) const MAGIC: &[u8; 6] = b"ARROW1";

/// What precedes the metadata of a message since Arrow 0.15; alone, with a length of zero, the end of the stream.
pub(crate) const CONTINUATION: [u8; 4] = [0xff; 4];

/// Bytes of a message before its metadata: the continuation, and the length.
pub(super) const MESSAGE_HEAD_BYTES: usize = 8;

/// Longest buffer of values, in bytes: lengths are signed in Arrow, and the frame needs some room besides.
const DATA_BYTES_MAX: u64 = 1 << 62;

/// An Arrow IPC file without its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    prefix: Vec<u8>,
    data_len: u64,
    suffix: Vec<u8>,
}

/// What a frame depends on.
#[derive(Debug, PartialEq)]
pub(super) enum Key<'a> {
    /// One value of this many bytes.
    Value {
        kind: Kind,
        len_bytes: u64,
    },
    Tensor {
        dtype: Dtype,
        shape: Cow<'a, [usize]>,
        column_major: bool,
    },
}

impl Key<'_> {
    fn into_owned(self) -> Key<'static> {
        match self {
            Key::Value { kind, len_bytes } => Key::Value { kind, len_bytes },
            Key::Tensor { dtype, shape, column_major } => {
                Key::Tensor { dtype, shape: Cow::Owned(shape.into_owned()), column_major }
            }
        }
    }
}

/// The frame that `key` stands for, made if it is not among the last few of this thread: whoever learns values of one
/// form again and again has their schema encoded once.
pub(super) fn recent(
    key: Key<'_>,
    make: impl FnOnce() -> Result<Frame, CodecError>,
) -> Result<Arc<Frame>, CodecError> {
    const KEPT: usize = 16;
    thread_local! {
        static RECENT: RefCell<VecDeque<(Key<'static>, Arc<Frame>)>> = const { RefCell::new(VecDeque::new()) };
    }
    RECENT.with_borrow_mut(|recent| {
        if let Some((_, frame)) = recent.iter().find(|(known, _)| *known == key) {
            return Ok(Arc::clone(frame));
        }
        let frame = Arc::new(make()?);
        recent.truncate(KEPT - 1);
        recent.push_front((key.into_owned(), Arc::clone(&frame)));
        Ok(frame)
    })
}

impl Frame {
    /// Frames the one row of a `LargeBinary` or `LargeUtf8` column whose value has `data_len` bytes.
    pub(super) fn of_value(schema: &Schema, data_len: u64) -> Result<Frame, CodecError> {
        let len = arrow_length(data_len)?;
        let mut offsets = [0; 16];
        offsets[8..].copy_from_slice(&len.to_le_bytes());
        Self::build(schema, 1, &[FieldNode::new(1, 0)], &offsets, Some(data_len), 1)
    }

    /// Frames a column of `rows` fixed-width values without nulls, `data_len` bytes together.
    pub(super) fn of_column(schema: &Schema, rows: u64, data_len: u64) -> Result<Frame, CodecError> {
        Self::build(schema, rows, &[FieldNode::new(arrow_length(rows)?, 0)], &[], Some(data_len), 1)
    }

    /// Frames a column of `rows` fixed-size lists of `row_len` values each, without nulls.
    pub(super) fn of_lists(
        schema: &Schema,
        rows: u64,
        row_len: u64,
        data_len: u64,
    ) -> Result<Frame, CodecError> {
        let values = rows.checked_mul(row_len).ok_or_else(too_long)?;
        let nodes = [FieldNode::new(arrow_length(rows)?, 0), FieldNode::new(arrow_length(values)?, 0)];
        Self::build(schema, rows, &nodes, &[], Some(data_len), 2)
    }

    /// Frames one row of a `Null` column, which has no buffers at all.
    pub(super) fn of_null(schema: &Schema) -> Result<Frame, CodecError> {
        Self::build(schema, 1, &[FieldNode::new(1, 1)], &[], None, 0)
    }

    fn build(
        schema: &Schema,
        rows: u64,
        nodes: &[FieldNode],
        head: &[u8],
        data_len: Option<u64>,
        validity_buffers: usize,
    ) -> Result<Frame, CodecError> {
        let mut buffers = vec![Buffer::new(0, 0); validity_buffers];
        let mut body_len = 0;
        for len in (!head.is_empty()).then_some(head.len() as u64).into_iter().chain(data_len) {
            buffers.push(Buffer::new(arrow_length(body_len)?, arrow_length(len)?));
            body_len = padded(body_len + len);
        }
        let mut file = FileStart::new(schema, &[])?;
        let block = file.push_head(rows, nodes, &buffers, body_len)?;
        let FileStart { bytes: mut prefix, dictionaries } = file;
        prefix.extend_from_slice(head);
        pad(&mut prefix, 0);
        let data_len = data_len.unwrap_or(0);
        let suffix = suffix(schema, data_len, &dictionaries, &block)?;
        Ok(Frame { prefix, data_len, suffix })
    }

    /// Frames the columns of one batch of `rows`: `lens` are those of its buffers in bytes, which are padded to multiples
    /// of 64 between each other.
    pub(super) fn of_columns(
        schema: &Schema,
        dictionaries: &[EncodedData],
        rows: u64,
        nodes: &[FieldNode],
        lens: &[u64],
    ) -> Result<Frame, CodecError> {
        let mut buffers = Vec::with_capacity(lens.len());
        let mut data_len = 0;
        for len in lens {
            data_len = padded(data_len);
            buffers.push(Buffer::new(arrow_length(data_len)?, arrow_length(*len)?));
            data_len += len;
        }
        let mut file = FileStart::new(schema, dictionaries)?;
        let block = file.push_head(rows, nodes, &buffers, padded(data_len))?;
        let suffix = suffix(schema, data_len, &file.dictionaries, &block)?;
        Ok(Frame { prefix: file.bytes, data_len, suffix })
    }

    /// What precedes the values.
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Length of the values, in bytes.
    pub(crate) fn data_len(&self) -> u64 {
        self.data_len
    }

    /// Distance of the values from the first byte of the file: a multiple of 64, and the length of the prefix.
    pub(crate) fn data_offset(&self) -> u32 {
        u32::try_from(self.prefix.len()).expect("a prefix is the schema of one column: a few KiB at most")
    }

    /// What follows the values.
    pub(crate) fn suffix(&self) -> &[u8] {
        &self.suffix
    }

    /// Length of the whole file, in bytes.
    pub(crate) fn len_bytes(&self) -> u64 {
        self.prefix.len() as u64 + self.data_len + self.suffix.len() as u64
    }
}

/// The flatbuffer of a record batch message.
pub(super) fn batch_message(rows: i64, nodes: &[FieldNode], buffers: &[Buffer], body_len: i64) -> Vec<u8> {
    let mut fbb = FlatBufferBuilder::new();
    let buffers = fbb.create_vector(buffers);
    let nodes = fbb.create_vector(nodes);
    let mut batch = RecordBatchBuilder::new(&mut fbb);
    batch.add_length(rows);
    batch.add_nodes(nodes);
    batch.add_buffers(buffers);
    let batch = batch.finish().as_union_value();
    let mut message = MessageBuilder::new(&mut fbb);
    message.add_version(MetadataVersion::V5);
    message.add_header_type(MessageHeader::RecordBatch);
    message.add_bodyLength(body_len);
    message.add_header(batch);
    let message = message.finish();
    fbb.finish(message, None);
    fbb.finished_data().to_vec()
}

/// A file up to its record batch.
struct FileStart {
    bytes: Vec<u8>,
    /// Where the dictionaries are.
    dictionaries: Vec<Block>,
}

impl FileStart {
    fn new(schema: &Schema, dictionaries: &[EncodedData]) -> Result<FileStart, CodecError> {
        let mut bytes = Vec::with_capacity(1024);
        bytes.extend_from_slice(MAGIC);
        pad(&mut bytes, 0);
        let mut tracker = DictionaryTracker::new(true);
        let message = IpcDataGenerator::default()
            .schema_to_bytes_with_dictionary_tracker(schema, &mut tracker, &IpcWriteOptions::default())
            .ipc_message;
        push_message(&mut bytes, &message)?;
        let dictionaries = push_dictionaries(&mut bytes, dictionaries)?;
        Ok(FileStart { bytes, dictionaries })
    }

    /// Appends the head of the record batch, whose body follows.
    fn push_head(
        &mut self,
        rows: u64,
        nodes: &[FieldNode],
        buffers: &[Buffer],
        body_len: u64,
    ) -> Result<Block, CodecError> {
        let message = batch_message(arrow_length(rows)?, nodes, buffers, arrow_length(body_len)?);
        push_block(&mut self.bytes, &message, body_len)
    }
}

/// Appends dictionaries to a file, and returns where they are.
pub(super) fn push_dictionaries(
    out: &mut Vec<u8>,
    dictionaries: &[EncodedData],
) -> Result<Vec<Block>, CodecError> {
    let push = |EncodedData { ipc_message, arrow_data }: &EncodedData| {
        let block = push_block(out, ipc_message, padded(arrow_data.len() as u64))?;
        out.extend_from_slice(arrow_data);
        pad(out, 0);
        Ok(block)
    };
    dictionaries.iter().map(push).collect()
}

fn push_block(out: &mut Vec<u8>, message: &[u8], body_len: u64) -> Result<Block, CodecError> {
    let start = out.len();
    push_message(out, message)?;
    let head_len = i32::try_from(out.len() - start).map_err(|_| too_long())?;
    Ok(Block::new(arrow_length(start as u64)?, head_len, arrow_length(body_len)?))
}

/// What follows the `data_len` bytes that a file's record batch ends with.
fn suffix(
    schema: &Schema,
    data_len: u64,
    dictionaries: &[Block],
    batch: &Block,
) -> Result<Vec<u8>, CodecError> {
    let mut suffix = Vec::with_capacity(1024);
    pad(&mut suffix, data_len);
    suffix.extend_from_slice(&CONTINUATION);
    suffix.extend_from_slice(&[0; 4]);
    let footer = footer(schema, dictionaries, batch);
    suffix.extend_from_slice(&footer);
    suffix.extend_from_slice(&u32::try_from(footer.len()).map_err(|_| too_long())?.to_le_bytes());
    suffix.extend_from_slice(MAGIC);
    Ok(suffix)
}

/// The flatbuffer of the footer of a file with one record batch.
fn footer(schema: &Schema, dictionaries: &[Block], batch: &Block) -> Vec<u8> {
    let mut fbb = FlatBufferBuilder::new();
    let dictionaries = fbb.create_vector(dictionaries);
    let batches = fbb.create_vector(&[*batch]);
    let mut tracker = DictionaryTracker::new(true);
    let schema =
        IpcSchemaEncoder::new().with_dictionary_tracker(&mut tracker).schema_to_fb_offset(&mut fbb, schema);
    let mut footer = FooterBuilder::new(&mut fbb);
    footer.add_version(MetadataVersion::V5);
    footer.add_schema(schema);
    footer.add_dictionaries(dictionaries);
    footer.add_recordBatches(batches);
    let footer = footer.finish();
    fbb.finish(footer, None);
    fbb.finished_data().to_vec()
}

/// Appends a message: continuation marker, length of the padded metadata, metadata, padding.
pub(super) fn push_message(out: &mut Vec<u8>, metadata: &[u8]) -> Result<(), CodecError> {
    let len = padded(metadata.len() as u64 + 8) - 8;
    out.extend_from_slice(&CONTINUATION);
    out.extend_from_slice(&i32::try_from(len).map_err(|_| too_long())?.to_le_bytes());
    out.extend_from_slice(metadata);
    pad(out, 0);
    Ok(())
}

/// Appends zeros until `before` bytes and `out` together end at a multiple of 64.
pub(super) fn pad(out: &mut Vec<u8>, before: u64) {
    let len = before + out.len() as u64;
    out.resize(out.len() + plasmon_protocol::index_of(padded(len) - len), 0);
}

/// `len` rounded up to a multiple of 64.
pub(crate) fn padded(len: u64) -> u64 {
    len.next_multiple_of(ALIGNMENT_BYTES)
}

/// A length as Arrow writes it.
pub(super) fn arrow_length(len: u64) -> Result<i64, CodecError> {
    if len > DATA_BYTES_MAX {
        return Err(too_long());
    }
    i64::try_from(len).map_err(|_| too_long())
}

fn too_long() -> CodecError {
    CodecError::Unsupported { what: "a value of more than 2^62 bytes".to_owned(), advice: "split it" }
}

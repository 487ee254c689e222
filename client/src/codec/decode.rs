//! From the bytes of an Arrow IPC file to record batches, without copying a column.
//!
//! Three steps, of which only the last is Arrow's:
//!
//! 1. [`File::parse`] finds footer, schema and blocks, and checks that each lies within the file.
//! 2. [`Layout`](super::layout::Layout) walks the metadata of each batch beside the schema and checks every length,
//!    count, offset and alignment in it: O(columns), whatever the number of rows.
//! 3. arrow-ipc builds the arrays over slices of the file, and looks into their contents unless they are trusted.
//!
//! Step 2 is there because step 3 alone would panic, or with its own checks turned off read out of bounds, on metadata
//! that does not match: arrow-ipc 60 slices buffers with an assertion and leaves lengths of children unchecked then.

use super::{
    error::CodecError,
    frame::{CONTINUATION, MAGIC},
    layout::{self, Layout, NESTING_MAX},
    stack::with_room,
    table::Table,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::Buffer;
use arrow_data::UnsafeFlag;
use arrow_ipc::{
    Block, Message, MetadataVersion, convert,
    reader::{RecordBatchDecoder, read_dictionary_impl},
    root_as_footer_with_opts, root_as_message_with_opts,
};
use arrow_schema::SchemaRef;
use flatbuffers::VerifierOptions;
use plasmon_protocol::index_of;
use std::{collections::HashMap, sync::Arc};

impl Table {
    /// Reads an Arrow IPC file from elsewhere, checking all of it.
    ///
    /// Buffers of `file` that are aligned as their type needs are not copied, others are. Learn the result to keep
    /// it: what is stored is then laid out so that every reader can use it in place.
    ///
    /// # Errors
    /// [`CodecError::Malformed`] or [`CodecError::Arrow`] if the bytes are not a valid Arrow IPC file, and
    /// [`CodecError::Unsupported`] if they are compressed, big-endian, or older than Arrow 1.0.
    ///
    /// # Examples
    /// ```
    /// # let batch = arrow_array::record_batch!(("a", Int32, [1, 2, 3]))?;
    /// # let mut writer = arrow_ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema())?;
    /// # writer.write(&batch)?;
    /// # let file = writer.into_inner()?;
    /// let table = plasmon::Table::from_ipc(file)?; // a Vec<u8>, a Bytes, or a Buffer
    /// assert_eq!(table[0], batch);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_ipc(file: impl Into<Buffer>) -> Result<Table, CodecError> {
        let mut file = file.into();
        if !file.as_ptr().addr().is_multiple_of(FOREIGN_ALIGNMENT_BYTES) {
            file = Buffer::from(file.as_slice());
        }
        decode_file(&file, Trust::FOREIGN)
    }
}

/// What every writer aligns buffers to within a file. Arrow's reader can copy a buffer to where its type needs more.
const FOREIGN_ALIGNMENT_BYTES: usize = 8;

/// Decodes all batches of an Arrow IPC file without copying column data.
///
/// `trusted` says that our own encoder wrote the bytes (the entry's flag [`OUR_ENCODER`]) and that its writer is
/// trusted (its uid is ours or root's). Contents (offsets, UTF-8, dictionary indices, views) are then not looked at,
/// and the cost does not depend on the number of rows. Structure and bounds are checked in any case.
///
/// [`OUR_ENCODER`]: plasmon_protocol::object::Flags::OUR_ENCODER
///
/// # Errors
/// [`CodecError::Malformed`], [`CodecError::Misaligned`], [`CodecError::Unsupported`] or [`CodecError::Arrow`].
pub(crate) fn decode_table(file: &Buffer, trusted: bool) -> Result<Table, CodecError> {
    decode_file(file, Trust { contents: trusted, copy_misaligned: false })
}

/// How far the bytes of a file are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trust {
    /// Contents are not validated.
    contents: bool,
    /// Buffers that are not aligned for their type are copied instead of refused.
    copy_misaligned: bool,
}

impl Trust {
    /// Everything is checked, nothing copied.
    pub(super) const NONE: Trust = Trust { contents: false, copy_misaligned: false };
    /// Everything is checked, and what another implementation aligned differently is copied.
    pub(super) const FOREIGN: Trust = Trust { contents: false, copy_misaligned: true };
}

pub(super) fn decode_file(file: &Buffer, trust: Trust) -> Result<Table, CodecError> {
    with_room(|| decode_nested(file, trust))
}

fn decode_nested(file: &Buffer, trust: Trust) -> Result<Table, CodecError> {
    let File { schema, dictionaries: dictionary_blocks, batches } = File::parse(file)?;
    let mut skip_validation = UnsafeFlag::new();
    if trust.contents {
        // SAFETY: `UnsafeFlag::set` asks nothing by itself; whoever reads the flag (`RecordBatchDecoder`) asks that
        // the data be valid Arrow. For the structure that is proven by `Layout` below, which every batch and every
        // dictionary passes before arrow-ipc sees it. Trusted, not proven: for the contents, that our own encoder
        // wrote them from valid arrays and that the writer, a process of this user or of root, has kept its hands off
        // them since (`decode_table`; docs/SECURITY.md).
        unsafe { skip_validation.set(true) };
    }

    let dictionary_types = layout::dictionary_types(&schema)?;
    let mut dictionaries: HashMap<i64, ArrayRef> = HashMap::new();
    for block in dictionary_blocks {
        let message = block.message(file)?;
        let batch = message
            .header_as_dictionary_batch()
            .ok_or_else(|| CodecError::malformed("a dictionary block holds another message"))?;
        let body = block.body(file);
        if batch.isDelta() {
            return Err(CodecError::Unsupported {
                what: "a file whose dictionaries come in pieces (delta dictionaries)".to_owned(),
                advice: "write it with one dictionary for each column",
            });
        }
        let values = dictionary_types
            .get(&batch.id())
            .ok_or_else(|| CodecError::malformed(format!("no column has the dictionary {}", batch.id())))?;
        let data = batch.data().ok_or_else(|| CodecError::malformed("a dictionary block holds no values"))?;
        Layout::new(&data, &body, &dictionaries, !trust.copy_misaligned)?
            .check(std::slice::from_ref(values))?;
        if dictionaries.contains_key(&batch.id()) {
            return Err(CodecError::malformed(format!("the dictionary {} comes twice", batch.id())));
        }
        read_dictionary_impl(
            &body,
            batch,
            &schema,
            &mut dictionaries,
            &MetadataVersion::V5,
            !trust.copy_misaligned,
            skip_validation.clone(),
        )
        .map_err(CodecError::arrow("decode a dictionary"))?;
    }

    let batches = batches.into_iter().map(|block| {
        let message = block.message(file)?;
        let batch = message
            .header_as_record_batch()
            .ok_or_else(|| CodecError::malformed("a record batch block holds another message"))?;
        let body = block.body(file);
        Layout::new(&batch, &body, &dictionaries, !trust.copy_misaligned)?.check(schema.fields())?;
        RecordBatchDecoder::try_new(&body, batch, schema.clone(), &dictionaries, &MetadataVersion::V5)
            .map(|decoder| {
                decoder
                    .with_require_alignment(!trust.copy_misaligned)
                    .with_skip_validation(skip_validation.clone())
            })
            .and_then(RecordBatchDecoder::read_record_batch)
            .map_err(CodecError::arrow("decode a batch"))
    });
    let batches: Vec<RecordBatch> = batches.collect::<Result<_, CodecError>>()?;
    Ok(Table::from_parts(schema, batches))
}

/// Where everything stands in a file. Blocks are checked to lie between the leading magic and the footer.
struct File {
    schema: SchemaRef,
    dictionaries: Vec<Place>,
    batches: Vec<Place>,
}

/// The checked place of one message and its body.
#[derive(Clone, Copy)]
struct Place {
    message_start: usize,
    body_start: usize,
    body_end: usize,
}

impl File {
    fn parse(file: &Buffer) -> Result<File, CodecError> {
        let bytes = file.as_slice();
        let too_short = || CodecError::malformed(format!("{} bytes are too few for one", bytes.len()));
        let inner = bytes
            .strip_prefix(MAGIC)
            .ok_or_else(|| CodecError::malformed("it does not begin with ARROW1"))?;
        let inner =
            inner.strip_suffix(MAGIC).ok_or_else(|| CodecError::malformed("it does not end with ARROW1"))?;
        let (inner, footer_len) = inner.split_last_chunk::<4>().ok_or_else(too_short)?;
        let footer_len = i32::from_le_bytes(*footer_len);
        let footer = usize::try_from(footer_len)
            .ok()
            .and_then(|len| inner.len().checked_sub(len))
            .ok_or_else(|| CodecError::malformed(format!("its footer claims {footer_len} bytes")))?;
        let blocks_end = MAGIC.len() + footer;
        let footer = &inner[footer..];

        let footer = root_as_footer_with_opts(&verifier(footer), footer).map_err(not_flatbuffer("footer"))?;
        if footer.version() != MetadataVersion::V5 {
            return Err(CodecError::Unsupported {
                what: format!("Arrow metadata of version {:?}", footer.version()),
                advice: "write the file with Arrow 1.0 or newer",
            });
        }
        let schema = footer.schema().ok_or_else(|| CodecError::malformed("its footer has no schema"))?;
        if schema.endianness() != arrow_ipc::Endianness::Little {
            return Err(CodecError::Unsupported {
                what: "a big-endian file".to_owned(),
                advice: "write it in little-endian order",
            });
        }
        for field in schema.fields().iter().flatten() {
            layout::check_field(field)?;
        }
        let schema = convert::try_fb_to_schema(schema).map_err(CodecError::arrow("decode the schema"))?;
        layout::check_types(schema.fields())?;

        let places = |blocks: Option<flatbuffers::Vector<'_, Block>>| {
            blocks.iter().flatten().map(|block| Place::new(block, blocks_end)).collect::<Result<Vec<_>, _>>()
        };
        let dictionaries = places(footer.dictionaries())?;
        let batches = places(footer.recordBatches())?;
        // Each block is read whole: a footer that named one again and again would keep the reader busy.
        let mut in_order: Vec<&Place> = dictionaries.iter().chain(&batches).collect();
        in_order.sort_by_key(|place| place.message_start);
        if in_order.windows(2).any(|pair| pair[0].body_end > pair[1].message_start) {
            return Err(CodecError::malformed("its blocks overlap"));
        }
        Ok(File { schema: Arc::new(schema), dictionaries, batches })
    }
}

impl Place {
    fn new(block: &Block, blocks_end: usize) -> Result<Place, CodecError> {
        let place = || {
            let start = usize::try_from(block.offset()).ok().filter(|start| *start >= MAGIC.len())?;
            let head = usize::try_from(block.metaDataLength()).ok()?;
            let body_len = usize::try_from(block.bodyLength()).ok()?;
            let body_start = start.checked_add(head)?;
            let body_end = body_start.checked_add(body_len).filter(|end| *end <= blocks_end)?;
            Some(Place { message_start: start, body_start, body_end })
        };
        place().ok_or_else(|| {
            CodecError::malformed(format!(
                "a block of {} + {} bytes at {} does not lie before the footer, which is at {blocks_end}",
                block.metaDataLength(),
                block.bodyLength(),
                block.offset()
            ))
        })
    }

    /// The message at the start of the block.
    fn message<'a>(&self, file: &'a Buffer) -> Result<Message<'a>, CodecError> {
        let head = &file.as_slice()[self.message_start..self.body_start];
        let Some((&CONTINUATION, rest)) = head.split_first_chunk() else {
            return Err(CodecError::malformed("a block does not begin with a message"));
        };
        let metadata = rest
            .split_first_chunk()
            .and_then(|(len, metadata)| metadata.get(..usize::try_from(i32::from_le_bytes(*len)).ok()?));
        let metadata = metadata.ok_or_else(|| CodecError::malformed("a message is longer than its block"))?;
        let message =
            root_as_message_with_opts(&verifier(metadata), metadata).map_err(not_flatbuffer("message"))?;
        if message.version() != MetadataVersion::V5 {
            return Err(CodecError::malformed("a message has another version than the footer"));
        }
        if message.bodyLength() < 0
            || index_of(message.bodyLength().unsigned_abs()) > self.body_end - self.body_start
        {
            return Err(CodecError::malformed("a message's body is longer than its block"));
        }
        Ok(message)
    }

    /// The bytes after the message, without copying them.
    fn body(&self, file: &Buffer) -> Buffer {
        file.slice_with_length(self.body_start, self.body_end - self.body_start)
    }
}

/// Bounds for the verifier of flatbuffers: it follows references as often as it meets them, so that a few bytes that
/// refer to each other could keep it and everything after it busy. Writers share layouts of tables, but no table, and
/// each has at least 4 bytes.
fn verifier(bytes: &[u8]) -> VerifierOptions {
    VerifierOptions {
        max_depth: VERIFIER_DEPTH_PER_TYPE * (NESTING_MAX + 2),
        max_tables: bytes.len() / 4 + 1,
        max_apparent_size: bytes.len().saturating_mul(16),
        ..VerifierOptions::default()
    }
}

/// The verifier counts a step for a field's table and for what leads to it.
const VERIFIER_DEPTH_PER_TYPE: usize = 4;

fn not_flatbuffer(what: &'static str) -> impl FnOnce(flatbuffers::InvalidFlatbuffer) -> CodecError {
    move |error| CodecError::malformed(format!("its {what} is no valid flatbuffer: {error}"))
}

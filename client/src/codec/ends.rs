//! What stands before and behind the values of a table of blocks: its schema, twice, and the head of its batch.
//!
//! A table may have tens of thousands of columns of a few types. Their fields are written here and not by arrow-ipc, which
//! takes a microsecond for each: a field is 28 bytes and a name, and type, children, dictionary and metadata are those of
//! the *template*, a schema that arrow-ipc has written with one field for each part of the table. In flatbuffers whatever
//! lies behind a table may be a part of it, and of several tables; the template lies behind all fields.

use super::{
    error::CodecError,
    frame::{self, CONTINUATION, MAGIC, pad, push_message},
};
use arrow_ipc::{
    Block, Buffer, Field, FieldNode, MessageHeader, MetadataVersion,
    convert::IpcSchemaEncoder,
    writer::{DictionaryTracker, EncodedData},
};
use arrow_schema::Schema;
use flatbuffers::{FlatBufferBuilder, Table, VOffsetT};
use plasmon_protocol::index_of;

/// The parts of a file that do not depend on values.
#[derive(Debug)]
pub(super) struct Ends {
    /// The file up to the head of the batch.
    start: Vec<u8>,
    dictionaries: Vec<Block>,
    schema: SchemaBytes,
    /// Where in the file the description stands, and its length.
    description: (u32, u64),
}

impl Ends {
    /// Of a table whose columns have `names`, each of the type of the field of `template` with the number in `fields`. The
    /// description is what the template's metadata has under `description_key`.
    pub(super) fn new(
        template: &Schema,
        names: &[&str],
        fields: &[usize],
        dictionaries: &[EncodedData],
        description_key: &str,
    ) -> Result<Ends, CodecError> {
        let schema = SchemaBytes::new(template, names, fields, description_key)?;
        let message = message(&schema.bytes);
        let mut start = Vec::with_capacity(message.len() + 192);
        start.extend_from_slice(MAGIC);
        pad(&mut start, 0);
        let message_start = start.len() + frame::MESSAGE_HEAD_BYTES;
        push_message(&mut start, &message)?;
        let dictionaries = frame::push_dictionaries(&mut start, dictionaries)?;
        let (offset, len) = schema.description;
        let offset = u32::try_from(message_start + MESSAGE_TABLE_BYTES + offset).map_err(|_| too_many())?;
        Ok(Ends { start, dictionaries, schema, description: (offset, len as u64) })
    }

    /// What stands before the head of the batch.
    pub(super) fn start(&self) -> &[u8] {
        &self.start
    }

    pub(super) fn description(&self) -> (u32, u64) {
        self.description
    }

    /// The head of the batch. Its length depends only on how many nodes and buffers there are, and on there being values.
    pub(super) fn head(
        &self,
        rows: u64,
        nodes: &[FieldNode],
        buffers: &[Buffer],
        body_bytes: u64,
    ) -> Result<Vec<u8>, CodecError> {
        let mut head = Vec::with_capacity(256 + 16 * (nodes.len() + buffers.len()));
        let (rows, body_bytes) = (frame::arrow_length(rows)?, frame::arrow_length(body_bytes)?);
        push_message(&mut head, &frame::batch_message(rows, nodes, buffers, body_bytes))?;
        Ok(head)
    }

    /// What follows a body of `body_bytes`, which `head_bytes` stand before.
    pub(super) fn suffix(&self, head_bytes: usize, body_bytes: u64) -> Result<Vec<u8>, CodecError> {
        let message_bytes = i32::try_from(head_bytes).map_err(|_| too_many())?;
        let start = frame::arrow_length(self.start.len() as u64)?;
        let batch = Block::new(start, message_bytes, frame::arrow_length(body_bytes)?);
        let mut suffix = Vec::with_capacity(self.suffix_bytes());
        suffix.extend_from_slice(&CONTINUATION);
        suffix.extend_from_slice(&[0; 4]);
        push_footer(&mut suffix, &self.schema.bytes, &self.dictionaries, &batch);
        let footer = suffix.len() - frame::MESSAGE_HEAD_BYTES;
        suffix.extend_from_slice(&u32::try_from(footer).map_err(|_| too_many())?.to_le_bytes());
        suffix.extend_from_slice(MAGIC);
        debug_assert_eq!(suffix.len(), self.suffix_bytes());
        Ok(suffix)
    }

    /// Length of the suffix.
    pub(super) fn suffix_bytes(&self) -> usize {
        let footer = footer_table_bytes(self.dictionaries.len()) + self.schema.bytes.len();
        frame::MESSAGE_HEAD_BYTES + footer + 4 + MAGIC.len()
    }
}

/// The flatbuffer table of a schema, and what belongs to it: it can stand behind any table that has it.
#[derive(Debug)]
struct SchemaBytes {
    bytes: Vec<u8>,
    /// Where the description is, and its length.
    description: (usize, usize),
}

impl SchemaBytes {
    fn new(
        template: &Schema,
        names: &[&str],
        fields: &[usize],
        description_key: &str,
    ) -> Result<SchemaBytes, CodecError> {
        let encoded = encoded(template);
        let read = flatbuffers::root::<arrow_ipc::Schema<'_>>(&encoded).expect("arrow-ipc has written it");
        let shared: Vec<Shared> =
            read.fields().into_iter().flatten().map(|field| Shared::of(&field)).collect();

        // Places of everything, in this order.
        let table = SCHEMA_VTABLE.len() * 2;
        let vector = table + SCHEMA_TABLE_BYTES;
        let vtables = vector + 4 + 4 * fields.len();
        let tables = vtables + FIELD_VTABLE_BYTES * shared.len();
        let texts = tables + FIELD_TABLE_BYTES * fields.len();
        let text_bytes = |text: &str| (4 + text.len() + 1).next_multiple_of(4);
        let texts_end = texts + names.iter().map(|name| text_bytes(name)).sum::<usize>();
        let template_start = texts_end.next_multiple_of(8);
        u32::try_from(template_start + encoded.len()).map_err(|_| too_many())?;

        let mut out = Writer(Vec::with_capacity(template_start + encoded.len()));
        SCHEMA_VTABLE.iter().for_each(|slot| out.u16(*slot));
        out.back_to(0);
        out.reference(vector);
        match slot_target(&read._tab, arrow_ipc::Schema::VT_CUSTOM_METADATA) {
            Some(metadata) => out.reference(template_start + metadata),
            None => out.u32(0), // never followed: there is a description
        }
        out.u32(length(fields.len()));
        (0..fields.len()).for_each(|at| out.reference(tables + FIELD_TABLE_BYTES * at));
        shared.iter().for_each(|shared| shared.write_vtable(&mut out));
        let mut text = texts;
        for (field, name) in fields.iter().zip(names) {
            let Shared { type_type, targets, .. } = &shared[*field];
            out.back_to(vtables + FIELD_VTABLE_BYTES * field);
            out.reference(text);
            for target in targets {
                match target {
                    Some(target) => out.reference(template_start + target),
                    None => out.u32(0),
                }
            }
            let is_nullable = 1;
            out.0.extend_from_slice(&[is_nullable, *type_type, 0, 0]);
            text += text_bytes(name);
        }
        for name in names {
            out.u32(length(name.len()));
            out.0.extend_from_slice(name.as_bytes());
            out.0.resize(out.0.len() - name.len() - 4 + text_bytes(name), 0);
        }
        out.0.resize(template_start, 0);
        out.0.extend_from_slice(&encoded);

        let described = read.custom_metadata().into_iter().flatten();
        let described = described.filter(|pair| pair.key() == Some(description_key));
        let text = described.filter_map(|pair| pair.value()).next().unwrap_or_default();
        let offset = text.as_ptr().addr().saturating_sub(encoded.as_ptr().addr());
        Ok(SchemaBytes { bytes: out.0, description: (template_start + offset, text.len()) })
    }
}

/// A schema as arrow-ipc writes it.
fn encoded(schema: &Schema) -> Vec<u8> {
    let mut fbb = FlatBufferBuilder::new();
    let mut tracker = DictionaryTracker::new(true);
    let root =
        IpcSchemaEncoder::new().with_dictionary_tracker(&mut tracker).schema_to_fb_offset(&mut fbb, schema);
    fbb.finish(root, None);
    fbb.finished_data().to_vec()
}

/// What all columns of a part have in common.
struct Shared {
    type_type: u8,
    /// Where in the template type, children, dictionary and metadata are.
    targets: [Option<usize>; 4],
}

impl Shared {
    fn of(field: &Field<'_>) -> Shared {
        let slots = [Field::VT_TYPE_, Field::VT_CHILDREN, Field::VT_DICTIONARY, Field::VT_CUSTOM_METADATA];
        let targets = slots.map(|slot| slot_target(&field._tab, slot));
        Shared { type_type: field.type_type().0, targets }
    }

    /// Where a field's table has what. Zero: it has no such thing.
    fn write_vtable(&self, out: &mut Writer) {
        let [type_, children, dictionary, metadata] =
            [0, 1, 2, 3].map(|at| if self.targets[at].is_some() { 8 + 4 * length16(at) } else { 0 });
        let slots = [
            length16(FIELD_VTABLE_SLOTS * 2),
            length16(FIELD_TABLE_BYTES),
            4,  // name
            24, // nullable
            25, // type_type
            type_,
            dictionary,
            children,
            metadata,
        ];
        slots.iter().for_each(|slot| out.u16(*slot));
        out.u16(0); // so that the next one begins at a multiple of 4
    }
}

const FIELD_VTABLE_SLOTS: usize = 9;
const FIELD_VTABLE_BYTES: usize = 20;
/// Where its vtable is; name, type, children, dictionary, metadata; nullable, type_type.
const FIELD_TABLE_BYTES: usize = 28;

/// Length, the table's length, endianness (little is the default), fields, metadata, features (none).
const SCHEMA_VTABLE: [u16; 6] = [12, 12, 0, 4, 8, 0];
/// Where its vtable is, fields, metadata.
const SCHEMA_TABLE_BYTES: usize = 12;

/// Where in its buffer what the slot refers to is.
fn slot_target(table: &Table<'_>, slot: VOffsetT) -> Option<usize> {
    let offset = usize::from(table.vtable().get(slot));
    if offset == 0 {
        return None;
    }
    let place = table.loc() + offset;
    let reference = table.buf()[place..].first_chunk().expect("it was verified");
    Some(place + index_of(u32::from_le_bytes(*reference).into()))
}

/// The flatbuffer of a message with a schema: root, vtable, table, schema.
fn message(schema: &[u8]) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(MESSAGE_TABLE_BYTES + schema.len()));
    out.reference(16);
    // Length, the table's length, version, header_type, header, bodyLength (0 is the default).
    [12, 12, 8, 10, 4, 0].iter().for_each(|slot| out.u16(*slot));
    out.back_to(4);
    out.reference(MESSAGE_TABLE_BYTES + SCHEMA_VTABLE.len() * 2);
    out.version();
    out.0.extend_from_slice(&[MessageHeader::Schema.0, 0]);
    out.0.resize(MESSAGE_TABLE_BYTES, 0);
    out.0.extend_from_slice(schema);
    out.0
}

const MESSAGE_TABLE_BYTES: usize = 32;

/// Appends the flatbuffer of a footer: root, vtable, table, blocks of dictionaries and of the batch, schema.
fn push_footer(out: &mut Vec<u8>, schema: &[u8], dictionaries: &[Block], batch: &Block) {
    let mut footer = Writer(Vec::with_capacity(footer_table_bytes(dictionaries.len()) + schema.len()));
    footer.reference(16);
    // Length, the table's length, version, schema, dictionaries, recordBatches.
    [12, 20, 16, 4, 8, 12].iter().for_each(|slot| footer.u16(*slot));
    footer.back_to(4);
    footer.reference(footer_table_bytes(dictionaries.len()) + SCHEMA_VTABLE.len() * 2);
    let blocks = FOOTER_TABLE_BYTES + 4; // so that what follows the vector's length begins at a multiple of 8
    let batches = blocks + 4 + dictionaries.len() * BLOCK_BYTES + 4;
    footer.reference(blocks);
    footer.reference(batches);
    footer.version();
    footer.0.resize(blocks, 0);
    footer.u32(length(dictionaries.len()));
    dictionaries.iter().for_each(|block| footer.0.extend_from_slice(&block.0));
    footer.0.resize(batches, 0);
    footer.u32(1);
    footer.0.extend_from_slice(&batch.0);
    footer.0.extend_from_slice(schema);
    out.extend_from_slice(&footer.0);
}

const FOOTER_TABLE_BYTES: usize = 40;
const BLOCK_BYTES: usize = size_of::<Block>();

/// Where the schema begins in a footer with so many dictionaries.
fn footer_table_bytes(dictionaries: usize) -> usize {
    FOOTER_TABLE_BYTES + 8 + dictionaries * BLOCK_BYTES + 8 + BLOCK_BYTES
}

/// Flatbuffers: little-endian numbers, and references as distances.
struct Writer(Vec<u8>);

impl Writer {
    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Refers to what stands, or will stand, at `target`, which is not before this place.
    fn reference(&mut self, target: usize) {
        self.u32(length(target - self.0.len()));
    }

    /// Begins a table whose vtable is at `vtable`, before it.
    fn back_to(&mut self, vtable: usize) {
        self.u32(length(self.0.len() - vtable));
    }

    fn version(&mut self) {
        self.0.extend_from_slice(&MetadataVersion::V5.0.to_le_bytes());
    }
}

fn length(length: usize) -> u32 {
    u32::try_from(length).expect("`SchemaBytes::new` refuses what is longer")
}

fn length16(length: usize) -> u16 {
    u16::try_from(length).expect("a table has a few dozen bytes")
}

fn too_many() -> CodecError {
    CodecError::Unsupported {
        what: "a table whose columns' names have more than 2 GiB".to_owned(),
        advice: "shorten them",
    }
}

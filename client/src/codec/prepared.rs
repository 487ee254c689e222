//! Objects that are ready to be written.

use super::{
    blocks::BlockFile,
    error::CodecError,
    frame::{self, Frame, Key},
    layout, schema,
    source::{self, Source},
    stack::with_room,
    table,
};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use plasmon_protocol::object::{Flags, Header, Kind};
use plasmon_shm::{FaultPoint, fault_point};
use std::{borrow::Cow, io, sync::Arc};

/// An encoded object ready to be written: how long it is at most is known, its values are not copied yet.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Prepared<'a> {
    header: Header,
    len_bytes_max: u64,
    content: Content<'a>,
}

#[derive(Clone, Debug)]
enum Content<'a> {
    /// The value stands in the header. Its file is made only if somebody wants it.
    InHeader,
    /// One buffer of values, and the file around it.
    Framed(Arc<Frame>, Cow<'a, [u8]>),
    /// Buffers that do not lie in one piece, and the file around them.
    Gathered(Arc<Frame>, Vec<Source>),
    /// Blocks of columns, and the file around them.
    Blocks(Arc<BlockFile>),
    /// Columns, which arrow-ipc writes.
    Batches(SchemaRef, Cow<'a, [RecordBatch]>),
}

impl<'a> Prepared<'a> {
    /// Prepares batches that are known to have `schema`.
    pub(super) fn batches(schema: SchemaRef, batches: &'a [RecordBatch]) -> Result<Self, CodecError> {
        with_room(|| {
            layout::check_types(schema.fields())?;
            let batches = table::with_one_dictionary_each(&schema, batches)?;
            Self::counted(value_header_of_batches(Kind::TABLE), schema, batches)
        })
    }

    /// Prepares batches that were made with `schema`, for a kind that is no table but has columns.
    pub(super) fn owned_batches(
        header: Header,
        schema: SchemaRef,
        batches: Vec<RecordBatch>,
    ) -> Result<Self, CodecError> {
        Self::counted(header, schema, Cow::Owned(batches))
    }

    fn counted(
        header: Header,
        schema: SchemaRef,
        batches: Cow<'a, [RecordBatch]>,
    ) -> Result<Self, CodecError> {
        let mut count = CountingSink(0);
        table::write(&schema, &batches, &mut count)?;
        Ok(Prepared { header, len_bytes_max: count.0, content: Content::Batches(schema, batches) })
    }

    /// Prepares one buffer of values with shortcuts that lead to it; `dims` are those of [`Header`].
    pub(super) fn framed(mut header: Header, frame: Arc<Frame>, data: Cow<'a, [u8]>) -> Self {
        debug_assert_eq!(frame.data_len(), data.len() as u64);
        header = by_our_encoder(header);
        Prepared { header, len_bytes_max: frame.len_bytes(), content: Content::Framed(frame, data) }
    }

    /// Prepares buffers that are gathered one after the other.
    pub(super) fn gathered(header: Header, frame: Arc<Frame>, sources: Vec<Source>) -> Self {
        let header = by_our_encoder(header);
        Prepared { header, len_bytes_max: frame.len_bytes(), content: Content::Gathered(frame, sources) }
    }

    /// Prepares blocks of columns.
    pub(super) fn blocks(header: Header, len_bytes_max: u64, file: Arc<BlockFile>) -> Self {
        Prepared { header, len_bytes_max, content: Content::Blocks(file) }
    }

    /// Prepares a single value of a kind whose Arrow type has offsets: in the header if it is short, else by its buffer.
    pub(super) fn value(kind: Kind, data: Cow<'a, [u8]>) -> Result<Self, CodecError> {
        if let Some(in_header) = Self::in_header(kind, &data) {
            return Ok(in_header);
        }
        let frame = frame_of(kind, data.len() as u64)?;
        let header = value_header(kind, &frame);
        Ok(Self::framed(header, frame, data))
    }

    /// Prepares a value that stands in the header, if it fits.
    pub(super) fn in_header(kind: Kind, value: &[u8]) -> Option<Self> {
        let header = by_our_encoder(Header::new(kind)).with_inline(value)?;
        Some(Prepared { header, len_bytes_max: value.len() as u64, content: Content::InHeader })
    }

    /// Prepares a single value of fixed width, given in memory order.
    pub(super) fn scalar(kind: Kind, value: &[u8]) -> Result<Self, CodecError> {
        Ok(Self::in_header(kind, value).expect("scalars have at most 8 bytes"))
    }

    /// The file of a value that stands in the header.
    fn file_of_value(&self) -> Result<Prepared<'static>, CodecError> {
        let (value, len) = self.header.inline().expect("its value stands there");
        let frame = frame_of(self.header.kind, len as u64)?;
        Ok(Prepared::framed(self.header, frame, Cow::Owned(value[..len].to_vec())))
    }

    /// Says in the header what `ndim` says there for this kind.
    pub(super) fn with_ndim(mut self, ndim: u8) -> Self {
        self.header.ndim = ndim;
        self
    }

    /// What the index will say of the object.
    #[must_use]
    pub fn header(&self) -> Header {
        self.header
    }

    /// The length of the object in bytes, of a value that stands in the header its own: exact, but for a
    /// [`BlockTable`], which may turn out to be shorter.
    #[must_use]
    pub fn len_bytes_max(&self) -> u64 {
        self.len_bytes_max
    }

    /// Writes the object's file, all of it and in order, each byte of a value copied once, straight from where it is.
    ///
    /// # Errors
    /// [`CodecError::Arrow`] with the sink's own error; how much was written is then unknown.
    pub fn write_to(&self, sink: &mut impl io::Write) -> Result<(), CodecError> {
        match &self.content {
            Content::InHeader => self.file_of_value()?.write_to(sink),
            Content::Framed(frame, data) => [frame.prefix(), data, frame.suffix()]
                .into_iter()
                .try_for_each(|part| sink.write_all(part).map(|()| fault_point(FaultPoint::CopyHalf)))
                .map_err(not_written),
            Content::Gathered(frame, sources) => {
                sink.write_all(frame.prefix()).map_err(not_written)?;
                fault_point(FaultPoint::CopyHalf);
                source::write(sources, sink).map_err(not_written)?;
                fault_point(FaultPoint::CopyHalf);
                sink.write_all(frame.suffix()).map_err(not_written)
            }
            Content::Blocks(file) => file.write_to(sink),
            Content::Batches(schema, batches) => with_room(|| table::write(schema, batches, sink)),
        }
    }

    /// Writes the object into `out`, which must have room for the longest it can be, and returns its length. Every byte of
    /// it is written, padding as well.
    ///
    /// # Errors
    /// [`CodecError::WrongLength`] if `out` is shorter or longer; nothing has been written then.
    pub fn write_into(&self, out: &mut [u8]) -> Result<usize, CodecError> {
        if let Content::InHeader = self.content {
            return self.file_of_value()?.write_into(out);
        }
        let wrong_length = |found_bytes: usize| CodecError::WrongLength {
            needed_bytes: self.len_bytes_max,
            found_bytes: found_bytes as u64,
        };
        if out.len() as u64 != self.len_bytes_max {
            return Err(wrong_length(out.len()));
        }
        if let Content::Blocks(file) = &self.content {
            return file.write_into(out);
        }
        let mut rest = &mut *out;
        self.write_to(&mut rest)?;
        // The second pass over the same immutable arrays writes what the first one counted.
        let left = rest.len();
        if left == 0 { Ok(out.len()) } else { Err(wrong_length(out.len() - left)) }
    }

    /// The object's file in memory of its own, for values that travel inside a request.
    ///
    /// # Errors
    /// As [`write_to`](Self::write_to).
    pub fn to_vec(&self) -> Result<Vec<u8>, CodecError> {
        if let Content::InHeader = self.content {
            return self.file_of_value()?.to_vec();
        }
        let len_max = plasmon_protocol::index_of(self.len_bytes_max);
        if let Content::Blocks(file) = &self.content {
            let mut out = vec![0; len_max];
            let len = file.write_into(&mut out)?;
            out.truncate(len);
            return Ok(out);
        }
        let mut out = Vec::with_capacity(len_max);
        self.write_to(&mut out)?;
        debug_assert_eq!(out.len(), len_max);
        Ok(out)
    }
}

fn not_written(error: io::Error) -> CodecError {
    CodecError::arrow("write the object")(error.into())
}

/// The file around a single value of `len_bytes`.
fn frame_of(kind: Kind, len_bytes: u64) -> Result<Arc<Frame>, CodecError> {
    frame::recent(Key::Value { kind, len_bytes }, || match kind {
        Kind::NULL => Frame::of_null(schema::of(kind)),
        Kind::BOOL | Kind::INT64 | Kind::FLOAT64 => Frame::of_column(schema::of(kind), 1, len_bytes),
        _ => Frame::of_value(schema::of(kind), len_bytes),
    })
}

/// The header of a value of `frame.data_len()` bytes.
pub(super) fn value_header(kind: Kind, frame: &Frame) -> Header {
    Header {
        flags: Flags::OUR_ENCODER.with(Flags::BUFFER),
        buffer_offset: frame.data_offset(),
        dims: [frame.data_len(), 0, 0, 0],
        ..Header::new(kind)
    }
}

/// A header that says who wrote the object.
pub(super) fn by_our_encoder(header: Header) -> Header {
    Header { flags: header.flags.with(Flags::OUR_ENCODER), ..header }
}

/// The header of an object that is found by its columns alone.
pub(super) fn value_header_of_batches(kind: Kind) -> Header {
    Header { flags: Flags::OUR_ENCODER, ..Header::new(kind) }
}

/// Counts what is written to it and keeps nothing.
struct CountingSink(u64);

impl io::Write for CountingSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

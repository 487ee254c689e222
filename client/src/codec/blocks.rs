//! Tables whose columns of one type lie side by side, as pandas keeps them: a block is learned in one go, whatever the
//! number of its columns, and found again without a look at any of them.
//!
//! ```text
//! schema message     a field for each column; of all that columns of one block have in common there is one copy
//! batch message      a node and two buffers for each column
//! body               the blocks, column after column, each padded to a multiple of 64 bytes; buffers of other columns;
//!                    labels, which no column is made of; at the end the validity of columns with missing values
//! ```
//!
//! To readers of Arrow these are columns as any others. Whoever knows the description (`docs/layout.md`) finds each part
//! at the place that the description says.
//!
//! Which values are missing is seen while they are copied, so that no value is read twice. The head of the batch says
//! which columns have validity: it stands before the values, has the same length in any case, and is written last.

use super::{
    ends::Ends,
    error::CodecError,
    frame::padded,
    gather,
    source::{Source, Strided},
};
use arrow_array::{Array, ArrayRef};
use arrow_ipc::{Buffer, FieldNode};
use arrow_schema::{DataType, Field, TimeUnit};
use plasmon_protocol::index_of;
use plasmon_shm::{FaultPoint, fault_point};
use std::io;

/// A part of a [`BlockTable`](super::BlockTable).
#[derive(Clone, Debug)]
pub enum TablePart {
    /// Columns of one type of fixed width: an array of two dimensions, the first of which counts columns.
    Block(Strided),
    /// One column: arrays one behind the other.
    Column(Vec<ArrayRef>),
}

impl TablePart {
    pub(super) fn check(&self, field: &Field, columns: usize, rows: usize) -> Result<(), CodecError> {
        let mismatch = |found: String| CodecError::ColumnMismatch {
            column: field.name().clone(),
            asked: format!("{columns} columns of {rows} rows of {}", field.data_type()),
            found,
        };
        match self {
            TablePart::Column(chunks) => {
                if columns != 1 {
                    return Err(mismatch("1 column".to_owned()));
                }
                gather::check(chunks, field, rows)
            }
            TablePart::Block(values) => {
                let width = field.data_type().primitive_width();
                if width != Some(values.width()) || values.shape() != [columns, rows] {
                    return Err(mismatch(format!("{} of shape {:?}", values.dtype(), values.shape())));
                }
                Ok(())
            }
        }
    }

    pub(super) fn data_type(&self) -> DataType {
        match self {
            TablePart::Column(chunks) => chunks.first().map_or(DataType::Null, |it| it.data_type().clone()),
            TablePart::Block(_) => DataType::Int8, // of which nothing is missing
        }
    }
}

/// A table's file, the values still where they are.
#[derive(Debug)]
pub(super) struct BlockFile {
    ends: Ends,
    columns: Vec<(usize, usize)>,
    body: Body,
    /// Length of the batch's head.
    head_bytes: usize,
}

impl BlockFile {
    /// A file of `body`, whose columns are each the one of that number in a part of that number.
    pub(super) fn new(ends: Ends, columns: Vec<(usize, usize)>, body: Body) -> Result<BlockFile, CodecError> {
        let mut file = BlockFile { ends, columns, body, head_bytes: 0 };
        file.head_bytes = file.head(&file.body.without_missing())?.len();
        Ok(file)
    }

    /// Length of what stands before the body.
    pub(super) fn prefix_bytes(&self) -> u64 {
        (self.ends.start().len() + self.head_bytes) as u64
    }

    /// Where in the file the description stands, and its length.
    pub(super) fn description(&self) -> (u32, u64) {
        self.ends.description()
    }

    pub(super) fn len_bytes_max(&self) -> u64 {
        self.prefix_bytes() + self.body.len_bytes_max() + self.ends.suffix_bytes() as u64
    }

    /// Writes the file into `out`, which has room for the longest it can be, and returns its length.
    pub(super) fn write_into(&self, out: &mut [u8]) -> Result<usize, CodecError> {
        let (start, rest) = out.split_at_mut(self.ends.start().len());
        let (head, rest) = rest.split_at_mut(self.head_bytes);
        fault_point(FaultPoint::CopyHalf);
        let found = self.body.write_into(rest)?;
        start.copy_from_slice(self.ends.start());
        head.copy_from_slice(&self.head(&found)?);
        fault_point(FaultPoint::CopyHalf);
        let mut tail = &mut rest[index_of(found.end_bytes)..];
        self.write_tail(&found, &mut tail)?;
        let left = tail.len();
        Ok(out.len() - left)
    }

    /// Writes the file in order. Where values may be missing they are looked at before.
    pub(super) fn write_to(&self, sink: &mut impl io::Write) -> Result<(), CodecError> {
        let found = self.body.scan();
        sink.write_all(self.ends.start()).map_err(not_written)?;
        sink.write_all(&self.head(&found)?).map_err(not_written)?;
        self.body.write_to(sink).map_err(not_written)?;
        self.write_tail(&found, sink)
    }

    /// The head of the batch. Its length does not depend on which values are missing.
    fn head(&self, found: &Found) -> Result<Vec<u8>, CodecError> {
        let rows = self.body.rows as u64;
        let (mut nodes, mut buffers) =
            (Vec::with_capacity(self.columns.len()), Vec::with_capacity(2 * self.columns.len()));
        for (part, column) in &self.columns {
            self.body.describe(*part, *column, found, &mut nodes, &mut buffers);
        }
        self.ends.head(rows, &nodes, &buffers, found.end_bytes + found.validity_bytes())
    }

    /// Writes what follows the values.
    fn write_tail(&self, found: &Found, sink: &mut impl io::Write) -> Result<(), CodecError> {
        for Nulls { valid, .. } in found.missing.iter().flatten() {
            sink.write_all(valid).map_err(not_written)?;
            sink.write_all(padding(valid.len() as u64)).map_err(not_written)?;
        }
        let suffix = self.ends.suffix(self.head_bytes, found.end_bytes + found.validity_bytes())?;
        sink.write_all(&suffix).map_err(not_written)
    }
}

/// The values of all parts, and where in the body they go.
#[derive(Debug)]
pub(super) struct Body {
    rows: usize,
    parts: Vec<Planned>,
    /// Columns of blocks whose values may be missing: each has a number.
    nullable: usize,
    len_bytes: u64,
}

/// A part that has its place.
#[derive(Debug)]
enum Planned {
    Block {
        values: Strided,
        missing: Option<Missing>,
        /// Number of its first nullable column.
        first_nullable: usize,
        start: u64,
        /// From one column to the next, in bytes.
        stride: u64,
    },
    Column {
        node: FieldNode,
        /// With their places.
        sources: Vec<(Source, u64)>,
    },
}

impl Body {
    pub(super) fn new(rows: usize) -> Body {
        Body { rows, parts: Vec::new(), nullable: 0, len_bytes: 0 }
    }

    pub(super) fn push(&mut self, part: &TablePart, field: &Field) -> Result<(), CodecError> {
        match part {
            TablePart::Block(values) => {
                let missing = Missing::of(field.data_type());
                let [columns, rows] = values.shape() else {
                    return Err(CodecError::malformed("a block has two dimensions"));
                };
                let stride = padded((rows * values.width()) as u64);
                let len = stride.checked_mul(*columns as u64);
                let end = len.and_then(|len| self.len_bytes.checked_add(len)).filter(|end| *end < 1 << 61);
                let end = end.ok_or_else(|| CodecError::malformed("a block is longer than Arrow can say"))?;
                let (start, first_nullable) = (self.len_bytes, self.nullable);
                self.len_bytes = end;
                self.nullable += if missing.is_some() { *columns } else { 0 };
                self.parts.push(Planned::Block {
                    values: values.clone(),
                    missing,
                    first_nullable,
                    start,
                    stride,
                });
            }
            TablePart::Column(chunks) => {
                let (node, found) = gather::sources(chunks, field)?;
                let mut sources = Vec::with_capacity(found.len());
                for source in found {
                    let (start, len) = (self.len_bytes, source.len_bytes());
                    sources.push((source, start));
                    self.len_bytes = padded(start + len);
                }
                self.parts.push(Planned::Column { node, sources });
            }
        }
        Ok(())
    }

    /// For each part where it stands in the body: of a block its start and the distance of its columns, of a column the
    /// start and the length of each buffer.
    pub(super) fn places(&self) -> Vec<serde_json::Value> {
        let place = |part: &Planned| match part {
            Planned::Block { start, stride, .. } => serde_json::json!([start, stride]),
            Planned::Column { sources, .. } => {
                sources.iter().map(|(source, start)| serde_json::json!([start, source.len_bytes()])).collect()
            }
        };
        self.parts.iter().map(place).collect()
    }

    /// Appends the node and the buffers of a column of a part.
    fn describe(
        &self,
        part: usize,
        column: usize,
        found: &Found,
        nodes: &mut Vec<FieldNode>,
        buffers: &mut Vec<Buffer>,
    ) {
        let signed = u64::cast_signed; // `push` keeps lengths below 2^61
        match &self.parts[part] {
            Planned::Block { values, missing, first_nullable, start, stride } => {
                let nulls = missing.and_then(|_| found.missing[first_nullable + column].as_ref());
                let (validity, count) = match nulls {
                    Some(nulls) => (Buffer::new(signed(nulls.start), nulls.valid.len() as i64), nulls.count),
                    None => (Buffer::new(0, 0), 0),
                };
                nodes.push(FieldNode::new(self.rows as i64, count as i64));
                buffers.push(validity);
                let len = (self.rows * values.width()) as i64;
                buffers.push(Buffer::new(signed(start + column as u64 * stride), len));
            }
            Planned::Column { node, sources } => {
                nodes.push(*node);
                buffers.extend(
                    sources.iter().map(|(it, start)| Buffer::new(signed(*start), signed(it.len_bytes()))),
                );
            }
        }
    }

    fn validity_bytes(&self) -> u64 {
        padded(self.rows.div_ceil(8) as u64)
    }

    fn len_bytes_max(&self) -> u64 {
        self.len_bytes + self.nullable as u64 * self.validity_bytes()
    }

    fn without_missing(&self) -> Found {
        Found { missing: vec![None; self.nullable], end_bytes: self.len_bytes }
    }

    /// Copies all values to their places in `out`, and returns what is missing.
    fn write_into(&self, out: &mut [u8]) -> Result<Found, CodecError> {
        let mut found = self.without_missing();
        for part in &self.parts {
            match part {
                Planned::Column { sources, .. } => {
                    for (source, start) in sources {
                        let len = source.len_bytes();
                        let mut place = &mut out[index_of(*start)..index_of(padded(start + len))];
                        source.write(&mut place).map_err(not_written)?;
                        place.fill(0);
                    }
                }
                Planned::Block { values, missing, first_nullable, start, stride } => {
                    let (start, stride) = (index_of(*start), index_of(*stride));
                    let columns = values.shape()[0];
                    let out = &mut out[start..start + stride * columns];
                    let nulls = &mut found.missing[*first_nullable..][..missing.map_or(0, |_| columns)];
                    copy_block(values, *missing, self.rows, stride, out, nulls);
                }
            }
        }
        found.place();
        Ok(found)
    }

    /// Looks which values are missing.
    fn scan(&self) -> Found {
        let mut found = self.without_missing();
        let mut column = Vec::new();
        for part in &self.parts {
            if let Planned::Block { values, missing: Some(missing), first_nullable, stride, .. } = part {
                column.resize(index_of(*stride), 0);
                for (at, nulls) in
                    found.missing[*first_nullable..][..values.shape()[0]].iter_mut().enumerate()
                {
                    let nulls = std::slice::from_mut(nulls);
                    copy_block(
                        &values.column(at),
                        Some(*missing),
                        self.rows,
                        index_of(*stride),
                        &mut column,
                        nulls,
                    );
                }
            }
        }
        found.place();
        found
    }

    /// Writes all values in order.
    fn write_to(&self, sink: &mut impl io::Write) -> io::Result<()> {
        let mut column = Vec::new();
        for part in &self.parts {
            match part {
                Planned::Column { sources, .. } => {
                    for (source, _) in sources {
                        source.write(sink)?;
                        sink.write_all(padding(source.len_bytes()))?;
                    }
                }
                Planned::Block { values, stride, .. } => {
                    column.resize(index_of(*stride), 0);
                    for at in 0..values.shape()[0] {
                        copy_block(
                            &values.column(at),
                            None,
                            self.rows,
                            index_of(*stride),
                            &mut column,
                            &mut [],
                        );
                        sink.write_all(&column)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// What is missing, column by column of those of blocks that can have missing values.
#[derive(Clone, Debug)]
struct Found {
    missing: Vec<Option<Nulls>>,
    /// Where the values end.
    end_bytes: u64,
}

/// The validity of a column that has missing values.
#[derive(Clone, Debug)]
struct Nulls {
    valid: Vec<u8>,
    count: usize,
    /// Its place in the body.
    start: u64,
}

impl Found {
    fn place(&mut self) {
        let mut start = self.end_bytes;
        for nulls in self.missing.iter_mut().flatten() {
            nulls.start = start;
            start += padded(nulls.valid.len() as u64);
        }
    }

    fn validity_bytes(&self) -> u64 {
        self.missing.iter().flatten().map(|nulls| padded(nulls.valid.len() as u64)).sum()
    }
}

/// Copies a block such that its columns lie `stride` bytes apart, zeros between them, and notes what is missing.
///
/// `nulls` has an entry for each column, or none if nothing can be missing.
fn copy_block(
    values: &Strided,
    missing: Option<Missing>,
    rows: usize,
    stride: usize,
    out: &mut [u8],
    nulls: &mut [Option<Nulls>],
) {
    let width = values.width();
    let columns = values.shape()[0];
    if rows == 0 || columns == 0 {
        return;
    }
    // Elements of one row lie in one line of the cache more often than not: some rows of all columns, then the next.
    let is_whole = values.strides_bytes()[1] == width.cast_signed();
    let tile_rows = match (is_whole, missing) {
        (true, None) => rows,
        (true, Some(_)) => TILE_ROWS,
        (false, _) => STRIDED_TILE_ROWS,
    };
    let tiles = (0..rows).step_by(tile_rows).map(|first| (first, tile_rows.min(rows - first)));
    let mut copy = |column: usize, (first, count): (usize, usize)| {
        let start = column * stride + first * width;
        let place = &mut out[start..start + count * width];
        let run: &[u8] = match is_whole {
            true => values.run(column, first, count),
            false => {
                values.copy_run(column, first, place);
                place
            }
        };
        if let Some(missing) = missing {
            let nulls = &mut nulls[column];
            // Looking for one is cheaper than noting which, and in vain where there was one.
            if nulls.is_some() || missing.any(run) {
                missing.mark(run, first, rows, nulls);
            }
        }
        if is_whole {
            place.copy_from_slice(values.run(column, first, count));
        }
        if first + count == rows {
            out[start + count * width..(column + 1) * stride].fill(0);
        }
    };
    if is_whole {
        (0..columns).for_each(|column| tiles.clone().for_each(|tile| copy(column, tile)));
    } else {
        tiles.for_each(|tile| (0..columns).for_each(|column| copy(column, tile)));
    }
}

/// Rows of a column that are looked at, for whether any is missing and which, and then copied: they stay in the processor's
/// cache meanwhile. A multiple of 8, so that each tile's validity begins with a byte.
const TILE_ROWS: usize = 4 << 10;

/// Rows of a block that are copied, column after column, before the next: a line of the cache for each stays there. A
/// multiple of 8, so that each tile's validity begins with a byte.
const STRIDED_TILE_ROWS: usize = 256;

/// Zeros up to the next multiple of 64.
fn padding(len: u64) -> &'static [u8] {
    &[0; 64][..index_of(padded(len) - len)]
}

/// Which values pandas takes for missing ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    NaN16,
    NaN32,
    NaN64,
    /// The least integer of 64 bits: NaT.
    Least64,
}

impl Missing {
    fn of(data_type: &DataType) -> Option<Missing> {
        use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
        match data_type {
            DataType::Float16 => Some(Missing::NaN16),
            DataType::Float32 => Some(Missing::NaN32),
            DataType::Float64 => Some(Missing::NaN64),
            DataType::Timestamp(Second | Millisecond | Microsecond | Nanosecond, _)
            | DataType::Duration(_) => Some(Missing::Least64),
            _ => None,
        }
    }

    /// Whether any of the values is missing.
    fn any(self, values: &[u8]) -> bool {
        fn any<const WIDTH: usize>(values: &[u8], is_missing: impl Fn([u8; WIDTH]) -> bool) -> bool {
            values.as_chunks().0.iter().fold(false, |any, value| any | is_missing(*value))
        }
        match self {
            Missing::NaN16 => any(values, is_nan16),
            Missing::NaN32 => any(values, is_nan32),
            Missing::NaN64 => any(values, is_nan64),
            Missing::Least64 => any(values, is_least64),
        }
    }

    /// Notes which of the values, those of a column's rows from `first` on, are missing.
    fn mark(self, values: &[u8], first: usize, rows: usize, nulls: &mut Option<Nulls>) {
        fn mark<const WIDTH: usize>(
            values: &[u8],
            valid: &mut [u8],
            is_missing: impl Fn([u8; WIDTH]) -> bool,
        ) -> usize {
            let (values, rest) = values.as_chunks().0.as_chunks::<64>();
            let (words, last) = valid.split_at_mut(8 * values.len());
            let mut count = 0;
            for (values, valid) in values.iter().zip(words.as_chunks_mut().0) {
                let missing = word(values, &is_missing);
                *valid = (!missing).to_le_bytes();
                count += missing.count_ones() as usize;
            }
            let mut padded = [[0; WIDTH]; 64]; // a zero is not missing
            padded[..rest.len()].copy_from_slice(rest);
            let missing = word(&padded, &is_missing);
            last.iter_mut().zip(missing.to_le_bytes()).for_each(|(valid, missing)| *valid &= !missing);
            count + missing.count_ones() as usize
        }
        let nulls = nulls.get_or_insert_with(|| {
            let mut valid = vec![0xff; rows.div_ceil(8)];
            if let (Some(last), used @ 1..) = (valid.last_mut(), rows % 8) {
                *last >>= 8 - used;
            }
            Nulls { valid, count: 0, start: 0 }
        });
        let valid = &mut nulls.valid[first / 8..];
        nulls.count += match self {
            Missing::NaN16 => mark(values, valid, is_nan16),
            Missing::NaN32 => mark(values, valid, is_nan32),
            Missing::NaN64 => mark(values, valid, is_nan64),
            Missing::Least64 => mark(values, valid, is_least64),
        };
    }
}

/// Which of the values are missing, the first in the lowest bit. Their number is fixed and nothing depends on one of them,
/// so that the compiler looks at several at once, in lanes of their width: only those of 64 bits have room for the bit.
fn word<const WIDTH: usize>(values: &[[u8; WIDTH]; 64], is_missing: impl Fn([u8; WIDTH]) -> bool) -> u64 {
    if WIDTH == 8 {
        let bits: [u64; 64] = std::array::from_fn(|at| 1 << at);
        return values
            .iter()
            .zip(bits)
            .fold(0, |word, (value, bit)| word | if is_missing(*value) { bit } else { 0 });
    }
    let mut each = [0; 64];
    each.iter_mut().zip(values).for_each(|(each, value)| *each = u8::from(is_missing(*value)));
    let mut word = [0; 8];
    word.iter_mut().zip(each.as_chunks().0).for_each(|(bits, each)| *bits = packed(*each));
    u64::from_le_bytes(word)
}

/// Bytes of 0 and 1 as bits: the product moves byte k to bit k of the highest byte, and nothing else there.
fn packed(each: [u8; 8]) -> u8 {
    let [.., highest] = u64::from_le_bytes(each).wrapping_mul(0x0102_0408_1020_4080).to_le_bytes();
    highest
}

fn is_nan16(value: [u8; 2]) -> bool {
    half::f16::from_le_bytes(value).is_nan()
}

fn is_nan32(value: [u8; 4]) -> bool {
    f32::from_le_bytes(value).is_nan()
}

fn is_nan64(value: [u8; 8]) -> bool {
    f64::from_le_bytes(value).is_nan()
}

fn is_least64(value: [u8; 8]) -> bool {
    i64::from_le_bytes(value) == i64::MIN
}

fn not_written(error: io::Error) -> CodecError {
    CodecError::arrow("write the object")(error.into())
}

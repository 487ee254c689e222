//! Arrays and columns whose bytes do not lie in one piece: they are gathered while they are written, block by block, so
//! that no second copy of them ever exists.

use super::{error::CodecError, frame::padded, shape};
use arrow_array::OffsetSizeTrait;
use arrow_buffer::{Buffer, OffsetBuffer, ToByteSlice};
use plasmon_protocol::{index_of, object::Dtype};
use std::io;

/// An array of numbers whose elements lie anywhere within some bytes, at regular distances: a column of a matrix, every
/// second row. It is learned as a tensor in C order, gathered straight into the store's memory.
///
/// # Examples
/// ```
/// use plasmon::{Dtype, Strided, TensorView};
///
/// let brain = plasmon::testing::brain()?;
/// let matrix = [1_u8, 2, 3, 4, 5, 6].to_vec(); // two rows of three
/// let last_column = Strided::new(Dtype::UINT8, &[2], &[3], 2, matrix)?;
/// brain.learn("last", &last_column)?;
/// assert_eq!(brain.recall::<TensorView>("last")?.as_bytes(), [3, 6]);
/// # Ok::<(), plasmon::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Strided {
    dtype: Dtype,
    shape: Vec<usize>,
    strides_bytes: Vec<isize>,
    first_byte: usize,
    bytes: Buffer,
}

impl Strided {
    /// An array of `shape` over `bytes`. Its first element is at `first_byte`; one step along a dimension is as many
    /// bytes as `strides_bytes` says, which may be negative or zero.
    ///
    /// # Errors
    /// [`CodecError::OutOfBounds`] unless all elements are within the bytes; [`CodecError::Unsupported`] for more than
    /// 255 dimensions and for a dtype without a width.
    pub fn new(
        dtype: Dtype,
        shape: &[usize],
        strides_bytes: &[isize],
        first_byte: usize,
        bytes: impl Into<Buffer>,
    ) -> Result<Strided, CodecError> {
        let bytes = bytes.into();
        shape::check_dimensions(shape)?;
        let width = shape::width_of(dtype)?;
        let within = || {
            shape::len_bytes(shape, width)?;
            let (mut lowest, mut highest) = (first_byte, first_byte.checked_add(width)?);
            for (dim, stride) in shape.iter().zip(strides_bytes) {
                let farthest = stride.unsigned_abs().checked_mul(dim.saturating_sub(1))?;
                match *stride < 0 {
                    true => lowest = lowest.checked_sub(farthest)?,
                    false => highest = highest.checked_add(farthest)?,
                }
            }
            (highest <= bytes.len() && lowest <= highest).then_some(())
        };
        if shape.len() != strides_bytes.len() || (!shape.contains(&0) && within().is_none()) {
            return Err(CodecError::OutOfBounds {
                shape: shape.to_vec(),
                strides_bytes: strides_bytes.to_vec(),
                first_byte,
                found_bytes: bytes.len(),
            });
        }
        let (shape, strides_bytes) = (shape.to_vec(), strides_bytes.to_vec());
        Ok(Strided { dtype, shape, strides_bytes, first_byte, bytes })
    }

    pub(super) fn dtype(&self) -> Dtype {
        self.dtype
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(super) fn strides_bytes(&self) -> &[isize] {
        &self.strides_bytes
    }

    /// The element of the first dimension with the number `at`, as an array that has one such element.
    pub(super) fn column(&self, at: usize) -> Strided {
        let mut column = self.clone();
        column.shape[0] = 1;
        column.first_byte = column.first_byte.wrapping_add_signed(offset(at, column.strides_bytes[0]));
        column
    }

    /// Where the element of an array of two dimensions is, in its bytes.
    fn place(&self, row: usize, at: usize) -> usize {
        let steps = offset(row, self.strides_bytes[0]).wrapping_add(offset(at, self.strides_bytes[1]));
        self.first_byte.wrapping_add_signed(steps)
    }

    /// The bytes of `len` elements of an array of two dimensions that follow each other along the second without a gap.
    pub(super) fn run(&self, row: usize, first: usize, len: usize) -> &[u8] {
        debug_assert_eq!(self.strides_bytes[1], self.width().cast_signed());
        let start = self.place(row, first);
        &self.bytes[start..start + len * self.width()]
    }

    /// Copies elements of an array of two dimensions that follow each other along the second, at whatever distance, as
    /// many as `out` has room for.
    pub(super) fn copy_run(&self, row: usize, first: usize, out: &mut [u8]) {
        fn of_width<const WIDTH: usize>(bytes: &[u8], places: impl Iterator<Item = usize>, out: &mut [u8]) {
            for (element, place) in out.as_chunks_mut::<WIDTH>().0.iter_mut().zip(places) {
                *element = *bytes[place..].first_chunk().expect("`Strided::new` saw to it");
            }
        }
        let (start, stride, width) = (self.place(row, first), self.strides_bytes[1], self.width());
        let places = (0..out.len() / width).map(|at| start.wrapping_add_signed(offset(at, stride)));
        match width {
            1 => of_width::<1>(&self.bytes, places, out),
            2 => of_width::<2>(&self.bytes, places, out),
            4 => of_width::<4>(&self.bytes, places, out),
            _ => of_width::<8>(&self.bytes, places, out),
        }
    }

    pub(super) fn width(&self) -> usize {
        shape::width_of(self.dtype).expect("`new` refuses what has none")
    }

    fn len_bytes(&self) -> usize {
        shape::len_bytes(&self.shape, self.width()).expect("`new` refuses what is longer than its bytes")
    }

    /// Writes the elements in C order.
    fn write(&self, sink: &mut impl io::Write) -> io::Result<()> {
        if self.len_bytes() == 0 {
            return Ok(());
        }
        let Runs { run_bytes, row: (row_len, stride), outer: dims } = Runs::of(self);
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        let mut outer = vec![0; dims.len()];
        loop {
            let steps = outer.iter().zip(&dims).map(|(at, (_, stride))| offset(*at, *stride));
            let row = self.first_byte.wrapping_add_signed(steps.sum());
            let mut done = 0;
            while done < row_len {
                let start = row.wrapping_add_signed(offset(done, stride));
                let fitting = (BLOCK_BYTES - block.len()) / run_bytes;
                if fitting > 0 {
                    let count = fitting.min(row_len - done);
                    gather(&self.bytes, start, stride, run_bytes, count, &mut block);
                    done += count;
                } else if run_bytes > BLOCK_BYTES {
                    sink.write_all(&self.bytes[start..start + run_bytes])?;
                    done += 1;
                } else {
                    sink.write_all(&block)?;
                    block.clear();
                }
            }
            if !advance(&mut outer, &dims) {
                return sink.write_all(&block);
            }
        }
    }
}

/// Bytes that are gathered before they are written: they stay in the processor's cache.
const BLOCK_BYTES: usize = 32 << 10;

/// A strided array as rows of runs of bytes, as few and as long as they can be.
struct Runs {
    /// Bytes that lie one behind the other.
    run_bytes: usize,
    /// How many runs a row has, and how far apart they are.
    row: (usize, isize),
    /// Lengths and strides of the dimensions around the rows.
    outer: Vec<(usize, isize)>,
}

impl Runs {
    fn of(array: &Strided) -> Runs {
        let mut run_bytes = array.width();
        let mut outer: Vec<(usize, isize)> = Vec::with_capacity(array.shape.len());
        for (&len, &stride) in array.shape.iter().zip(&array.strides_bytes).filter(|(len, _)| **len != 1) {
            match outer.last_mut() {
                // One dimension goes on where the next one ends: they are one.
                Some(last) if last.1 == stride.wrapping_mul(len.cast_signed()) => {
                    *last = (last.0 * len, stride)
                }
                _ => outer.push((len, stride)),
            }
        }
        if let Some((len, _)) = outer.pop_if(|(_, stride)| *stride == run_bytes.cast_signed()) {
            run_bytes *= len;
        }
        let row = outer.pop().unwrap_or((1, 0));
        Runs { run_bytes, row, outer }
    }
}

/// So far from the start is a place; within the array's bytes, so that nothing overflows.
fn offset(at: usize, stride: isize) -> isize {
    at.cast_signed().wrapping_mul(stride)
}

/// Moves to the next place, the last dimension fastest. `false` after the last one.
fn advance(at: &mut [usize], dims: &[(usize, isize)]) -> bool {
    for (at, (len, _)) in at.iter_mut().zip(dims).rev() {
        *at += 1;
        if *at < *len {
            return true;
        }
        *at = 0;
    }
    false
}

/// Appends `count` runs, the first of them at `start`.
fn gather(bytes: &[u8], start: usize, stride: isize, run_bytes: usize, count: usize, block: &mut Vec<u8>) {
    fn of_width<const WIDTH: usize>(bytes: &[u8], places: impl Iterator<Item = usize>, block: &mut Vec<u8>) {
        let run = |place| -> [u8; WIDTH] { *bytes[place..].first_chunk().expect("`Strided::new` saw to it") };
        block.extend(places.flat_map(run));
    }
    let places = (0..count).map(|at| start.wrapping_add_signed(offset(at, stride)));
    match run_bytes {
        1 => of_width::<1>(bytes, places, block),
        2 => of_width::<2>(bytes, places, block),
        4 => of_width::<4>(bytes, places, block),
        8 => of_width::<8>(bytes, places, block),
        _ => places.for_each(|place| block.extend_from_slice(&bytes[place..place + run_bytes])),
    }
}

/// Where the bytes of one buffer are.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// One behind the other.
    Pieces(Vec<Buffer>),
    Strided(Strided),
    /// Offsets of texts or bytes in several arrays, each of which begins anew.
    Offsets32(Vec<OffsetBuffer<i32>>),
    Offsets64(Vec<OffsetBuffer<i64>>),
}

impl Source {
    pub(super) fn len_bytes(&self) -> u64 {
        fn offsets<O: OffsetSizeTrait>(parts: &[OffsetBuffer<O>]) -> usize {
            (1 + parts.iter().map(|part| part.len() - 1).sum::<usize>()) * size_of::<O>()
        }
        let len = match self {
            Source::Pieces(pieces) => pieces.iter().map(Buffer::len).sum(),
            Source::Strided(values) => values.len_bytes(),
            Source::Offsets32(parts) => offsets(parts),
            Source::Offsets64(parts) => offsets(parts),
        };
        len as u64
    }

    pub(super) fn write(&self, sink: &mut impl io::Write) -> io::Result<()> {
        match self {
            Source::Pieces(pieces) => pieces.iter().try_for_each(|piece| sink.write_all(piece)),
            Source::Strided(values) => values.write(sink),
            Source::Offsets32(parts) => write_offsets(parts, sink),
            Source::Offsets64(parts) => write_offsets(parts, sink),
        }
    }
}

/// Writes the sources one after the other, each padded to a multiple of 64 bytes but the last, which the frame pads.
pub(super) fn write(sources: &[Source], sink: &mut impl io::Write) -> io::Result<()> {
    let mut len = 0;
    for source in sources {
        sink.write_all(&[0; 64][..index_of(padded(len) - len)])?;
        source.write(sink)?;
        len = source.len_bytes();
    }
    Ok(())
}

/// Writes offsets that count on from one array to the next.
fn write_offsets<O: OffsetSizeTrait>(parts: &[OffsetBuffer<O>], sink: &mut impl io::Write) -> io::Result<()> {
    sink.write_all(O::zero().to_byte_slice())?;
    let mut base = O::zero();
    let mut block = Vec::with_capacity(BLOCK_BYTES / size_of::<O>());
    for part in parts {
        let (first, last) = (part[0], part[part.len() - 1]);
        if first == base {
            sink.write_all(part[1..].to_byte_slice())?;
        } else {
            for some in part[1..].chunks(block.capacity()) {
                block.clear();
                block.extend(some.iter().map(|offset| *offset - first + base));
                sink.write_all(block.to_byte_slice())?;
            }
        }
        base += last - first;
    }
    Ok(())
}

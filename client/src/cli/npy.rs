//! NumPy's file of one array: a header, then the elements as they lie in memory. The format is described in
//! `numpy.lib.format` (NEP 1).

use crate::{Dtype, TensorView};
use npyz::{DType, Endianness, NpyHeader, Order, TypeChar, TypeStr};
use std::{
    fmt::Write as _,
    io::{self, Read},
};

/// What a header says of the elements that follow it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Npy {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) column_major: bool,
    /// Whether each element's most significant byte comes first.
    pub(super) big_endian: bool,
}

impl Npy {
    /// Reads a header, and leaves `file` at the first element.
    ///
    /// # Errors
    /// `InvalidData` if it is no header, or if no tensor has such elements.
    pub(super) fn read(file: impl Read) -> io::Result<Npy> {
        let header = NpyHeader::from_reader(file)?;
        let said = header.dtype();
        let DType::Plain(element) = &said else {
            return Err(no_tensor(&said));
        };
        let dtype = dtype_of(element).ok_or_else(|| no_tensor(&said))?;
        let shape = header.shape().iter().map(|&dim| usize::try_from(dim));
        let shape = shape.collect::<Result<_, _>>().map_err(io::Error::other)?;
        let big_endian = element.endianness() == Endianness::Big;
        Ok(Npy { dtype, shape, column_major: header.order() == Order::Fortran, big_endian })
    }

    /// Bytes of all elements; `None` where no memory holds so many.
    pub(super) fn len_bytes(&self) -> Option<u64> {
        let width = self.dtype.width_bytes()?;
        self.shape.iter().try_fold(width, |bytes, &dim| bytes.checked_mul(u64::try_from(dim).ok()?))
    }

    /// Turns elements of a big-endian file, as they were read, into little-endian ones.
    pub(super) fn to_little_endian(&self, elements: &mut [u8]) {
        let width = self.dtype.width_bytes().map_or(1, plasmon_protocol::index_of);
        if self.big_endian {
            elements.chunks_exact_mut(width).for_each(<[u8]>::reverse);
        }
    }
}

/// The header of a file of `tensor`; its bytes follow. `None` for a dtype that NumPy does not have.
pub(super) fn header(tensor: &TensorView) -> Option<Vec<u8>> {
    let descr = match tensor.dtype() {
        Dtype::BOOL8 => "|b1",
        Dtype::INT8 => "|i1",
        Dtype::INT16 => "<i2",
        Dtype::INT32 => "<i4",
        Dtype::INT64 => "<i8",
        Dtype::UINT8 => "|u1",
        Dtype::UINT16 => "<u2",
        Dtype::UINT32 => "<u4",
        Dtype::UINT64 => "<u8",
        Dtype::FLOAT16 => "<f2",
        Dtype::FLOAT32 => "<f4",
        Dtype::FLOAT64 => "<f8",
        _ => return None,
    };
    let order = if tensor.is_column_major() { "True" } else { "False" };
    let mut dims = String::new();
    tensor.shape().iter().for_each(|dim| {
        let _ = write!(dims, "{dim}, "); // a String takes everything
    });
    let mut text =
        format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({}), }}", dims.trim_end());
    // The elements begin at a multiple of 64 bytes, behind a line break.
    text.extend(std::iter::repeat_n(' ', 63 - (PREFIX_BYTES + text.len()) % 64));
    text.push('\n');
    let len_bytes = u16::try_from(text.len()).ok()?;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend(len_bytes.to_le_bytes());
    header.extend(text.as_bytes());
    Some(header)
}

/// Magic, version and the length of what follows, of version 1.0.
const PREFIX_BYTES: usize = 10;

fn dtype_of(element: &TypeStr) -> Option<Dtype> {
    Some(match (element.type_char(), element.size_field()) {
        (TypeChar::Bool, 1) => Dtype::BOOL8,
        (TypeChar::Int, 1) => Dtype::INT8,
        (TypeChar::Int, 2) => Dtype::INT16,
        (TypeChar::Int, 4) => Dtype::INT32,
        (TypeChar::Int, 8) => Dtype::INT64,
        (TypeChar::Uint, 1) => Dtype::UINT8,
        (TypeChar::Uint, 2) => Dtype::UINT16,
        (TypeChar::Uint, 4) => Dtype::UINT32,
        (TypeChar::Uint, 8) => Dtype::UINT64,
        (TypeChar::Float, 2) => Dtype::FLOAT16,
        (TypeChar::Float, 4) => Dtype::FLOAT32,
        (TypeChar::Float, 8) => Dtype::FLOAT64,
        _ => return None,
    })
}

fn no_tensor(said: &DType) -> io::Error {
    let what = format!(
        "elements of type {} make no tensor, which has bool, int8 to int64, uint8 to uint64 and float16 to float64; \
         load such an array with numpy and learn it from Python",
        said.descr()
    );
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Brain, Tensor, testing::Store};

    fn learned(brain: &Brain, shape: &[usize], column_major: bool) -> TensorView {
        let data = vec![1_u16; shape.iter().product()];
        let new = if column_major { Tensor::column_major } else { Tensor::new };
        brain.learn("t", &new(shape, &data).unwrap()).unwrap();
        brain.recall("t").unwrap()
    }

    #[test]
    fn a_header_is_read_as_it_was_written_and_the_elements_are_aligned() {
        let store = Store::start(8 << 20).unwrap();
        let brain = store.connect().unwrap();
        for (shape, column_major) in
            [(vec![3], false), (vec![2, 3], true), (vec![], false), (vec![0, 7], false)]
        {
            let header = header(&learned(&brain, &shape, column_major)).unwrap();
            assert_eq!(header.len() % 64, 0);
            let read = Npy::read(header.as_slice()).unwrap();
            let column_major = column_major && read.column_major;
            assert_eq!(read, Npy { dtype: Dtype::UINT16, shape, column_major, big_endian: false });
        }
    }

    #[test]
    fn big_endian_elements_are_turned_and_foreign_ones_refused() {
        let file = |descr: &str| {
            let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2,), }}\n");
            let mut file = b"\x93NUMPY\x01\x00".to_vec();
            file.extend(u16::try_from(text.len()).unwrap().to_le_bytes());
            file.extend(text.as_bytes());
            file
        };
        let npy = Npy::read(file(">i2").as_slice()).unwrap();
        let mut elements = [1, 2, 3, 4];
        npy.to_little_endian(&mut elements);
        assert_eq!((elements, npy.len_bytes()), ([2, 1, 4, 3], Some(4)));
        for foreign in ["|O", "<U5", "<M8[ns]", "<c16", "|V8"] {
            let error = Npy::read(file(foreign).as_slice()).unwrap_err();
            assert!(error.to_string().contains("make no tensor"), "{foreign}: {error}");
        }
        assert!(Npy::read(b"PNG".as_slice()).is_err());
    }
}

//! Dense arrays of numbers.

use super::{
    decode,
    error::CodecError,
    frame::{self, Frame, Key},
    prepared::Prepared,
    schema,
    shape::{DIMENSIONS_MAX, check_dimensions, len_bytes, unknown_dtype, width_of},
    source::{Source, Strided},
    stack::with_room,
    value::{expect_kind, only_column, slice_of},
};
use arrow_array::Array;
use arrow_buffer::{Buffer, ToByteSlice};
use arrow_data::ArrayData;
use arrow_schema::DataType;
use half::f16;
use plasmon_protocol::{
    index_of,
    object::{Dtype, Flags, Header, Kind},
};
use std::{borrow::Cow, sync::Arc};

/// A dense array of numbers that is to be learned: a shape over a slice. Copies nothing.
///
/// # Examples
/// ```
/// use plasmon::Tensor;
///
/// let tensor = Tensor::new(&[2, 3], &[1_i32, 2, 3, 4, 5, 6])?; // two rows of three
/// assert_eq!(tensor.shape(), [2, 3]);
/// let single = Tensor::new(&[], &[1.5])?; // no dimensions: one element
/// let empty = Tensor::new(&[0, 7], &[0_u8; 0])?;
/// # Ok::<(), plasmon::CodecError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    column_major: bool,
    data: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// A tensor of `shape` over `data`, the last dimension varying fastest (C order).
    ///
    /// # Errors
    /// [`CodecError::ShapeMismatch`] unless `data` has as many elements as the shape's product;
    /// [`CodecError::Unsupported`] for more than 255 dimensions.
    pub fn new<T: TensorElement>(shape: &[usize], data: &'a [T]) -> Result<Tensor<'a>, CodecError> {
        Self::from_bytes(T::DTYPE, shape, false, T::bytes_of(data))
    }

    /// A tensor of `shape` over `data`, the first dimension varying fastest (Fortran order).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    ///
    /// # Examples
    /// ```
    /// use plasmon::Tensor;
    ///
    /// let columns = [1.0, 3.0, 2.0, 4.0];
    /// let tensor = Tensor::column_major(&[2, 2], &columns)?; // rows (1, 2) and (3, 4)
    /// assert!(tensor.is_column_major());
    /// # Ok::<(), plasmon::CodecError>(())
    /// ```
    pub fn column_major<T: TensorElement>(shape: &[usize], data: &'a [T]) -> Result<Tensor<'a>, CodecError> {
        Self::from_bytes(T::DTYPE, shape, true, T::bytes_of(data))
    }

    /// A tensor whose element type is known only at run time; `data` has its elements in little-endian order.
    ///
    /// # Errors
    /// As [`new`](Self::new); also [`CodecError::Unsupported`] for a dtype without a width.
    ///
    /// # Examples
    /// ```
    /// use plasmon::{Dtype, Tensor};
    ///
    /// let tensor = Tensor::from_bytes(Dtype::UINT16, &[2], false, &[1, 0, 2, 0])?;
    /// assert_eq!(tensor, Tensor::new(&[2], &[1_u16, 2])?);
    /// # Ok::<(), plasmon::CodecError>(())
    /// ```
    pub fn from_bytes(
        dtype: Dtype,
        shape: &[usize],
        column_major: bool,
        data: &'a [u8],
    ) -> Result<Tensor<'a>, CodecError> {
        let width = width_of(dtype)?;
        check_dimensions(shape)?;
        if len_bytes(shape, width) != Some(data.len()) {
            return Err(CodecError::ShapeMismatch { shape: shape.to_vec(), elements: data.len() / width });
        }
        Ok(Tensor { dtype, shape: shape.to_vec(), column_major, data })
    }

    /// Type of the elements.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Elements in each dimension.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Whether the first dimension varies fastest.
    #[must_use]
    pub fn is_column_major(&self) -> bool {
        self.column_major
    }

    pub(super) fn prepare_tensor(&self) -> Result<Prepared<'a>, CodecError> {
        let (frame, header) = recent_frame(self.dtype, &self.shape, self.column_major)?;
        Ok(Prepared::framed(header, frame, Cow::Borrowed(self.data)))
    }
}

impl Strided {
    pub(super) fn prepare_strided(&self) -> Result<Prepared<'static>, CodecError> {
        let (frame, header) = recent_frame(self.dtype(), self.shape(), false)?;
        Ok(Prepared::gathered(header, frame, vec![Source::Strided(self.clone())]))
    }
}

/// As [`frame_and_header`], remembered for the next tensor of the kind.
pub(super) fn recent_frame(
    dtype: Dtype,
    shape: &[usize],
    column_major: bool,
) -> Result<(Arc<Frame>, Header), CodecError> {
    let key = Key::Tensor { dtype, shape: Cow::Borrowed(shape), column_major };
    let frame = frame::recent(key, || Ok(frame_and_header(dtype, shape, column_major)?.0))?;
    let header = header(&frame, dtype, shape, column_major);
    Ok((frame, header))
}

/// The file around a tensor whose elements do not exist yet, and what the index says of it.
pub(super) fn frame_and_header(
    dtype: Dtype,
    shape: &[usize],
    column_major: bool,
) -> Result<(Frame, Header), CodecError> {
    let width = width_of(dtype)?;
    check_dimensions(shape)?;
    let data_len = len_bytes(shape, width).ok_or_else(|| CodecError::Unsupported {
        what: format!("a tensor of shape {shape:?}"),
        advice: "it has more bytes than an address can have",
    })?;
    let frame = frame(dtype, shape, column_major, data_len)?;
    let header = header(&frame, dtype, shape, column_major);
    Ok((frame, header))
}

/// The file around a tensor: fixed-size lists where Arrow has them for this shape, else a flat column.
///
/// Arrow has `arrow.fixed_shape_tensor` for tensors with rows; it cannot say rows without elements, or with more than
/// 2³¹ − 1 of them. A column-major tensor is stored as its transpose, which has the same bytes.
fn frame(dtype: Dtype, shape: &[usize], column_major: bool, data_len: usize) -> Result<Frame, CodecError> {
    let description = Description { dtype, shape: shape.to_vec(), column_major };
    let mut stored = shape.to_vec();
    if column_major {
        stored.reverse();
    }
    let (rows, inner) = match stored.split_first() {
        Some((rows, inner)) if !inner.is_empty() => (*rows, inner),
        _ => (0, &[][..]),
    };
    let row_len = inner.iter().try_fold(1_usize, |product, dim| product.checked_mul(*dim));
    let row_len = row_len.and_then(|len| i32::try_from(len).ok()).filter(|len| !inner.is_empty() && *len > 0);
    let schema = schema::of_tensor(dtype, inner, row_len, description.to_json())
        .ok_or_else(|| unknown_dtype(dtype))?;
    let data_len = data_len as u64;
    match row_len {
        Some(row_len) => Frame::of_lists(&schema, rows as u64, u64::from(row_len.unsigned_abs()), data_len),
        None => Frame::of_column(&schema, data_len / width_of(dtype)? as u64, data_len),
    }
}

fn header(frame: &Frame, dtype: Dtype, shape: &[usize], column_major: bool) -> Header {
    let mut dims = [0; 4];
    if shape.len() <= dims.len() {
        for (dim, len) in dims.iter_mut().zip(shape) {
            *dim = *len as u64;
        }
    }
    let flags = if column_major { Flags::BUFFER.with(Flags::COLUMN_MAJOR) } else { Flags::BUFFER };
    Header {
        dtype,
        ndim: u8::try_from(shape.len()).expect("Tensor::from_bytes refuses more than 255 dimensions"),
        flags,
        buffer_offset: frame.data_offset(),
        dims,
        ..Header::new(Kind::TENSOR)
    }
}

/// A recalled tensor: a read-only view of the store's memory, which it keeps in place for as long as it lives.
///
/// # Examples
/// ```
/// use plasmon::TensorView;
///
/// fn sum(tensor: &TensorView) -> Result<f64, plasmon::CodecError> {
///     Ok(tensor.as_slice::<f64>()?.iter().sum()) // copies nothing
/// }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TensorView {
    dtype: Dtype,
    shape: Vec<usize>,
    column_major: bool,
    data: Buffer,
}

impl TensorView {
    /// A view whose buffer is known to fit its shape and to be aligned for its elements.
    fn new(
        dtype: Dtype,
        shape: Vec<usize>,
        column_major: bool,
        data: Buffer,
    ) -> Result<TensorView, CodecError> {
        let width = width_of(dtype)?;
        if len_bytes(&shape, width) != Some(data.len()) {
            return Err(CodecError::malformed(format!(
                "a tensor of shape {shape:?} and type {dtype} does not have {} bytes",
                data.len()
            )));
        }
        if data.as_ptr().align_offset(width) != 0 {
            return Err(CodecError::Misaligned { what: "the tensor's data".to_owned(), needed_bytes: width });
        }
        Ok(TensorView { dtype, shape, column_major, data })
    }

    /// Type of the elements.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Elements in each dimension.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Whether the first dimension varies fastest (Fortran order), rather than the last one (C order).
    #[must_use]
    pub fn is_column_major(&self) -> bool {
        self.column_major
    }

    /// The elements as they lie in memory; see [`is_column_major`](Self::is_column_major). Copies nothing.
    ///
    /// For `bool` each call reads all elements once, since a byte other than 0 and 1 is no `bool` in Rust.
    ///
    /// # Errors
    /// [`CodecError::WrongDtype`] if the elements are of another type; [`CodecError::NotBool`] for such a byte.
    pub fn as_slice<T: TensorElement>(&self) -> Result<&[T], CodecError> {
        if T::DTYPE != self.dtype {
            return Err(CodecError::WrongDtype { asked: T::DTYPE, found: self.dtype });
        }
        T::slice_of(&self.data)
    }

    /// The bytes of the elements, little-endian.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.data
    }

    /// The bytes of the elements, which keep the object in place. Cloning it copies nothing.
    #[must_use]
    pub fn into_buffer(self) -> Buffer {
        self.data
    }

    /// This tensor as something to learn, for example under another name.
    #[must_use]
    pub fn as_tensor(&self) -> Tensor<'_> {
        Tensor {
            dtype: self.dtype,
            shape: self.shape.clone(),
            column_major: self.column_major,
            data: &self.data,
        }
    }
}

/// The types that can be elements of a tensor: `i8` to `i64`, `u8` to `u64`, `f16`, `f32`, `f64` and `bool`. Sealed.
pub trait TensorElement: element::Element {
    /// Its number in the store.
    const DTYPE: Dtype;
}

mod element {
    use super::{Buffer, CodecError};

    pub trait Element: Copy + 'static {
        /// The elements' bytes.
        fn bytes_of(elements: &[Self]) -> &[u8];

        /// The elements that `bytes` are; the caller has checked their alignment and length.
        fn slice_of(bytes: &Buffer) -> Result<&[Self], CodecError>;
    }
}

macro_rules! elements {
    ($($type:ty: $dtype:ident,)*) => {$(
        impl element::Element for $type {
            fn bytes_of(elements: &[Self]) -> &[u8] {
                elements.to_byte_slice()
            }

            fn slice_of(bytes: &Buffer) -> Result<&[Self], CodecError> {
                Ok(bytes.typed_data())
            }
        }

        impl TensorElement for $type {
            const DTYPE: Dtype = Dtype::$dtype;
        }
    )*};
}

elements! {
    i8: INT8, i16: INT16, i32: INT32, i64: INT64,
    u8: UINT8, u16: UINT16, u32: UINT32, u64: UINT64,
    f16: FLOAT16, f32: FLOAT32, f64: FLOAT64,
}

impl element::Element for bool {
    fn bytes_of(elements: &[bool]) -> &[u8] {
        // SAFETY: `slice::from_raw_parts` asks for one readable, initialised, aligned allocation that is not written
        // during the lifetime: `bool` has size and alignment 1 and no padding, every `bool` is the byte 0 or 1, and
        // the result borrows `elements`.
        unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), elements.len()) }
    }

    fn slice_of(bytes: &Buffer) -> Result<&[bool], CodecError> {
        if let Some((index, found)) = bytes.iter().enumerate().find(|(_, byte)| **byte > 1) {
            return Err(CodecError::NotBool { index, found: *found });
        }
        // SAFETY: `slice::from_raw_parts` asks, besides what `bytes` promises of its own memory, that each byte be a
        // valid `bool`: the search above found none but 0 and 1, and `bytes` does not change while it is borrowed
        // (a recalled object never changes while it is held: invariant 2).
        Ok(unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) })
    }
}

impl TensorElement for bool {
    const DTYPE: Dtype = Dtype::BOOL8;
}

/// The tensor in `file`, without copying it; `trusted` as for [`decode_table`](super::decode_table): truth values are
/// then not looked at.
pub(crate) fn decode_tensor(file: &Buffer, header: &Header, trusted: bool) -> Result<TensorView, CodecError> {
    let tensor = find_tensor(file, header)?;
    if !trusted && tensor.dtype == Dtype::BOOL8 {
        // NumPy counts the bytes of a mask and then walks it: one that is neither 0 nor 1 leads it out of bounds.
        tensor.as_slice::<bool>()?;
    }
    Ok(tensor)
}

/// By the header's shortcut, or through Arrow where there is none.
fn find_tensor(file: &Buffer, header: &Header) -> Result<TensorView, CodecError> {
    expect_kind(Kind::TENSOR, header)?;
    let ndim = usize::from(header.ndim);
    if header.flags.has(Flags::BUFFER)
        && let Some(dims) = header.dims.get(..ndim)
    {
        let shape: Vec<usize> = dims.iter().map(|dim| index_of(*dim)).collect();
        let len = len_bytes(&shape, width_of(header.dtype)?).ok_or_else(|| {
            CodecError::malformed(format!("a tensor of shape {shape:?} has more than 2^64 bytes"))
        })?;
        let data = slice_of(file, u64::from(header.buffer_offset), len as u64)?;
        return TensorView::new(header.dtype, shape, header.flags.has(Flags::COLUMN_MAJOR), data);
    }

    let table = decode::decode_file(file, decode::Trust::NONE)?;
    let (field, column) = only_column(&table)?;
    let description =
        field.metadata().get(schema::TENSOR_KEY).and_then(|text| Description::from_json(text)).ok_or_else(
            || CodecError::malformed(format!("the column lacks metadata `{}`", schema::TENSOR_KEY)),
        )?;
    let Description { dtype, shape, column_major } = description;
    let mut values: ArrayData = column.to_data();
    if let DataType::FixedSizeList(..) = values.data_type() {
        values = values.child_data()[0].clone();
    }
    if schema::element_type(dtype).as_ref() != Some(values.data_type()) || values.null_count() != 0 {
        return Err(CodecError::malformed(format!(
            "a tensor of {dtype} is stored as {}",
            column.data_type()
        )));
    }
    let width = width_of(dtype)?;
    let data =
        slice_of(&values.buffers()[0], (values.offset() * width) as u64, (values.len() * width) as u64)?;
    TensorView::new(dtype, shape, column_major, data)
}

/// What the metadata [`schema::TENSOR_KEY`] says.
struct Description {
    dtype: Dtype,
    shape: Vec<usize>,
    column_major: bool,
}

impl Description {
    fn to_json(&self) -> String {
        // Written by hand, so that the order of the keys is that of docs/layout.md.
        let order = if self.column_major { "F" } else { "C" };
        let shape: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        format!(r#"{{"dtype":"{}","shape":[{}],"order":"{order}"}}"#, self.dtype, shape.join(","))
    }

    fn from_json(text: &str) -> Option<Description> {
        let value: serde_json::Value = with_room(|| serde_json::from_str(text)).ok()?;
        let shape = value.get("shape")?.as_array()?.iter().map(|dim| Some(index_of(dim.as_u64()?)));
        let shape: Vec<usize> = shape.collect::<Option<_>>()?;
        let dtype = value.get("dtype")?.as_str()?;
        let mut elements = Dtype::KNOWN.iter().filter(|known| known.width_bytes().is_some());
        let dtype = *elements.find(|known| known.name().as_deref() == Some(dtype))?;
        let column_major = match value.get("order")?.as_str()? {
            "C" => false,
            "F" => true,
            _ => return None,
        };
        (shape.len() <= DIMENSIONS_MAX).then_some(Description { dtype, shape, column_major })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_ipc::convert::try_schema_from_ipc_buffer;

    fn stored_as(shape: &[usize]) -> DataType {
        let len = len_bytes(shape, 1).unwrap();
        let frame = frame(Dtype::UINT8, shape, false, len).unwrap();
        assert!(frame.len_bytes() > len as u64);
        try_schema_from_ipc_buffer(&frame.prefix()[64..]).unwrap().field(0).data_type().clone()
    }

    #[test]
    fn rows_beyond_what_arrows_lists_can_number_are_stored_flat() {
        let max = i32::MAX.unsigned_abs() as usize;
        assert!(matches!(stored_as(&[3, max]), DataType::FixedSizeList(_, i32::MAX)));
        assert_eq!(stored_as(&[3, max + 1]), DataType::UInt8);
        assert_eq!(stored_as(&[1, 1 << 16, 1 << 16]), DataType::UInt8);
    }
}

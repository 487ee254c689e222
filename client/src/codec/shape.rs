//! How many elements and bytes an array has, by its shape and its dtype.

use super::error::CodecError;
use plasmon_protocol::{index_of, object::Dtype};

pub(super) fn check_dimensions(shape: &[usize]) -> Result<(), CodecError> {
    if shape.len() > DIMENSIONS_MAX {
        return Err(CodecError::Unsupported {
            what: format!("a tensor of {} dimensions", shape.len()),
            advice: "use at most 255",
        });
    }
    Ok(())
}

/// The number of dimensions is one byte of the index entry.
pub(super) const DIMENSIONS_MAX: usize = u8::MAX as usize;

pub(super) fn width_of(dtype: Dtype) -> Result<usize, CodecError> {
    dtype.width_bytes().map(index_of).ok_or_else(|| unknown_dtype(dtype))
}

pub(super) fn unknown_dtype(dtype: Dtype) -> CodecError {
    CodecError::Unsupported {
        what: format!("a tensor with elements of type {dtype}"),
        advice: "use a newer version of this library, or read the object as a table",
    }
}

/// Bytes of a tensor; `None` if there are more than an address can count.
pub(super) fn len_bytes(shape: &[usize], width: usize) -> Option<usize> {
    // A dimension of zero makes any tensor empty, also one whose other dimensions have no product.
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(width, |product, dim| product.checked_mul(*dim))
}

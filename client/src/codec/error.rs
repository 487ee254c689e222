//! What can go wrong between a value and its bytes.

use plasmon_protocol::object::{Dtype, Kind};

/// Why a value could not be encoded, or an object's bytes could not be decoded.
///
/// Nothing has changed in the store after any of these: encoding and decoding touch no name.
///
/// # Examples
/// ```
/// use plasmon::{CodecError, Tensor};
///
/// let error = Tensor::new(&[2, 2], &[1.0, 2.0, 3.0]).unwrap_err();
/// assert!(matches!(error, CodecError::ShapeMismatch { elements: 3, .. }));
/// ```
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields' names and the message say it")]
#[non_exhaustive]
pub enum CodecError {
    /// The object holds a value of another kind.
    #[error("asked for a value of kind `{asked}`, but the object is of kind `{found}`; recall it as that")]
    WrongKind { asked: Kind, found: Kind },
    /// The tensor's elements are of another type.
    #[error(
        "asked for elements of type {asked}, but the tensor holds {found}; `TensorView::dtype` says which"
    )]
    WrongDtype { asked: Dtype, found: Dtype },
    /// The bytes are not what they claim to be. Whoever wrote them did not use this library, or has a defect.
    #[error(
        "the object is not a well-formed Arrow IPC file: {what}; learn it again with a client of this store"
    )]
    Malformed { what: String },
    /// A buffer does not lie where its type needs it, so that it could only be read by copying it.
    #[error(
        "{what} is not aligned to {needed_bytes} bytes and cannot be read in place; \
         `Table::from_ipc` copies it to where it can"
    )]
    Misaligned { what: String, needed_bytes: usize },
    /// Arrow allows it, or a later version of this library wrote it; this version cannot read or write it.
    #[error("{what} is not supported; {advice}")]
    Unsupported { what: String, advice: &'static str },
    /// A batch does not have the schema of the table it is part of.
    #[error("batch {batch} has another schema than the table: asked for {asked}, found {found}")]
    SchemaMismatch { batch: usize, asked: String, found: String },
    /// A list of batches without any batch does not say what its columns are.
    #[error("a list without batches has no schema; learn `Table::new(schema, vec![])` instead")]
    NoSchema,
    /// The shape of a tensor asks for another number of elements than there are.
    #[error(
        "a tensor of shape {shape:?} does not have {elements} elements; pass as many as the shape's product"
    )]
    ShapeMismatch { shape: Vec<usize>, elements: usize },
    /// Elements of a strided array would lie outside of the bytes they are in.
    #[error(
        "an array of shape {shape:?} with strides of {strides_bytes:?} bytes from byte {first_byte} on does not lie \
         within {found_bytes} bytes; pass one stride for each dimension, and bytes that hold every element"
    )]
    OutOfBounds { shape: Vec<usize>, strides_bytes: Vec<isize>, first_byte: usize, found_bytes: usize },
    /// A column is not what the table's schema and its rows ask for.
    #[error("column `{column}` is no part of the table: asked for {asked}, found {found}")]
    ColumnMismatch { column: String, asked: String, found: String },
    /// A byte of a Boolean tensor is neither 0 nor 1.
    #[error(
        "element {index} of the Boolean tensor is the byte {found}, not 0 or 1; read it with `TensorView::as_bytes`"
    )]
    NotBool { index: usize, found: u8 },
    /// A text that is not UTF-8.
    #[error("the text is not UTF-8; recall it as bytes")]
    NotUtf8(#[source] std::str::Utf8Error),
    /// A JSON object whose text is not JSON, or a value that has no JSON text.
    #[error("the value has no exact JSON text")]
    Json(#[source] serde_json::Error),
    /// Arrow refused the columns.
    #[error("Arrow could not {doing}")]
    Arrow { doing: &'static str, source: arrow_schema::ArrowError },
    /// The destination is not as long as the encoded value. A defect of the caller; part of it may have been written.
    #[error("the encoded value has {needed_bytes} bytes, but the destination has {found_bytes}")]
    WrongLength { needed_bytes: u64, found_bytes: u64 },
}

impl CodecError {
    pub(crate) fn malformed(what: impl Into<String>) -> Self {
        CodecError::Malformed { what: what.into() }
    }

    pub(crate) fn arrow(doing: &'static str) -> impl FnOnce(arrow_schema::ArrowError) -> Self {
        move |source| CodecError::Arrow { doing, source }
    }
}

//! What can be learned, and how it becomes bytes.

use super::{
    block_table::BlockTable,
    error::CodecError,
    json::{self, Json},
    pickle::Pickle,
    prepared::Prepared,
    source::Strided,
    stack::with_room,
    table::{self, Table},
    tensor::{Tensor, TensorView},
};
use arrow_array::RecordBatch;
use bytes::Bytes;
use plasmon_protocol::object::Kind;
use std::borrow::Cow;

/// A value that can be learned.
///
/// Tables: [`RecordBatch`], lists of them, [`Table`], [`BlockTable`]. Arrays: [`Tensor`], [`TensorView`], [`Strided`].
/// Single values: `[u8]`, `Vec<u8>`, [`Bytes`], `str`, `String`, `bool`, `i64`, `f64`, `()`, [`serde_json::Value`],
/// [`Json`] and [`Pickle`].
///
/// Every value is stored as an Arrow IPC file that any Arrow implementation can read, and its bytes are copied once,
/// from where they are into the store. The trait is sealed: what is stored is a promise between all clients.
///
/// # Examples
/// ```
/// fn learnable<T: plasmon::Learn + ?Sized>(_: &T) {}
///
/// learnable("a text");
/// learnable(&b"bytes"[..]);
/// learnable(&serde_json::json!({ "a": [1, 2, 3] }));
/// learnable(&plasmon::Tensor::new(&[2, 2], &[1.0, 2.0, 3.0, 4.0])?);
/// # Ok::<(), plasmon::CodecError>(())
/// ```
pub trait Learn: sealed::Sealed {
    /// The value ready to be written. Copies no values; for our own use.
    ///
    /// # Errors
    /// [`CodecError`] if the value has no Arrow form; see the variants.
    #[doc(hidden)]
    fn prepare(&self) -> Result<Prepared<'_>, CodecError>;
}

mod sealed {
    pub trait Sealed {}
}

/// Refuses JSON that its reader would refuse, without recursion.
fn check_nesting(value: &serde_json::Value) -> Result<(), CodecError> {
    use serde_json::Value;
    let nests = |value: &&Value| matches!(value, Value::Array(_) | Value::Object(_));
    let mut level: Vec<&Value> = Some(value).into_iter().filter(nests).collect();
    for _ in 0..Json::NESTING_MAX {
        let mut inner = Vec::new();
        for value in level {
            match value {
                Value::Array(values) => inner.extend(values.iter().filter(nests)),
                Value::Object(values) => inner.extend(values.values().filter(nests)),
                _ => {}
            }
        }
        if inner.is_empty() {
            return Ok(());
        }
        level = inner;
    }
    Err(json::too_deep())
}

macro_rules! learn {
    ($($(#[$doc:meta])* $type:ty, |$value:ident| $prepare:expr;)*) => {$(
        impl sealed::Sealed for $type {}

        $(#[$doc])*
        impl Learn for $type {
            fn prepare(&self) -> Result<Prepared<'_>, CodecError> {
                let $value = self;
                $prepare
            }
        }
    )*};
}

learn! {
    RecordBatch, |batch| Prepared::batches(batch.schema(), std::slice::from_ref(batch));
    [RecordBatch], |batches| {
        let schema = batches.first().ok_or(CodecError::NoSchema)?.schema();
        table::check_same_schema(&schema, batches)?;
        Prepared::batches(schema, batches)
    };
    Vec<RecordBatch>, |batches| batches.as_slice().prepare();
    Table, |table| Prepared::batches(table.schema().clone(), table);
    Tensor<'_>, |tensor| tensor.prepare_tensor();
    TensorView, |view| view.as_tensor().prepare_tensor();
    Strided, |array| array.prepare_strided();
    BlockTable, |table| table.prepare_blocks();
    [u8], |bytes| Prepared::value(Kind::BYTES, Cow::Borrowed(bytes));
    Vec<u8>, |bytes| bytes.as_slice().prepare();
    Bytes, |bytes| bytes.as_ref().prepare();
    str, |text| Prepared::value(Kind::TEXT, Cow::Borrowed(text.as_bytes()));
    String, |text| text.as_str().prepare();
    serde_json::Value, |value| {
        check_nesting(value)?;
        let text = with_room(|| serde_json::to_vec(value)).map_err(CodecError::Json)?;
        Prepared::value(Kind::JSON, Cow::Owned(text))
    };
    Json, |text| Prepared::value(Kind::JSON, Cow::Borrowed(text.as_bytes()));
    Pickle, |pickle| pickle.prepare_pickle();
    (), |_unit| Prepared::scalar(Kind::NULL, &[]);
    bool, |value| Prepared::scalar(Kind::BOOL, &[u8::from(*value)]);
    i64, |value| Prepared::scalar(Kind::INT64, &value.to_le_bytes());
    f64, |value| Prepared::scalar(Kind::FLOAT64, &value.to_le_bytes());
}

/// A table of a Python client, whose metadata say what it was there: the mark in its header vouches that the columns are
/// what a reader then takes them for. For our own use.
#[doc(hidden)]
pub struct Described<'a>(pub &'a dyn Learn);

impl sealed::Sealed for Described<'_> {}

impl Learn for Described<'_> {
    fn prepare(&self) -> Result<Prepared<'_>, CodecError> {
        let prepared = self.0.prepare()?;
        debug_assert_eq!(prepared.header().kind, Kind::TABLE);
        Ok(prepared.with_ndim(DESCRIBED))
    }
}

/// Stands in `ndim` of a table that is [`Described`].
pub(crate) const DESCRIBED: u8 = 1;

impl<const N: usize> sealed::Sealed for [u8; N] {}

impl<const N: usize> Learn for [u8; N] {
    fn prepare(&self) -> Result<Prepared<'_>, CodecError> {
        self.as_slice().prepare()
    }
}

impl<T: Learn + ?Sized> sealed::Sealed for &T {}

impl<T: Learn + ?Sized> Learn for &T {
    fn prepare(&self) -> Result<Prepared<'_>, CodecError> {
        (**self).prepare()
    }
}

//! Names, extension names and metadata keys of the Arrow form of every kind that is one value.
//!
//! docs/layout.md has them as a table; the files in `golden/` show what they make of a value.

use arrow_schema::{DataType, Field, Schema};
use plasmon_protocol::object::{Dtype, Kind};
use std::sync::{Arc, LazyLock};

/// Name of the only column of a value that is no table.
pub(crate) const COLUMN: &str = "value";

/// Key of the schema's metadata under which the kind's name stands.
pub(crate) const KIND_KEY: &str = "plasmon.kind";

/// Key of the column's metadata under which a tensor's element type, shape and order stand, as JSON.
pub(crate) const TENSOR_KEY: &str = "plasmon.tensor";

const EXTENSION_NAME: &str = "ARROW:extension:name";
const EXTENSION_METADATA: &str = "ARROW:extension:metadata";

/// The schema of a kind whose schema does not depend on the value.
///
/// # Panics
/// For tables and tensors, and for kinds this version does not know.
pub(crate) fn of(kind: Kind) -> &'static Schema {
    static SCHEMAS: LazyLock<[(Kind, Schema); 8]> = LazyLock::new(|| {
        [
            Kind::BYTES,
            Kind::NULL,
            Kind::BOOL,
            Kind::INT64,
            Kind::FLOAT64,
            Kind::TEXT,
            Kind::JSON,
            Kind::PICKLE,
        ]
        .map(|kind| (kind, one_column(kind, value_field(kind))))
    });
    let found = SCHEMAS.iter().find(|(candidate, _)| *candidate == kind);
    &found.expect("only called for the kinds listed above").1
}

/// The schema of a pickle with `buffers` out-of-band buffers.
pub(super) fn of_pickle(buffers: usize) -> Schema {
    let buffer = |index| Field::new(format!("buffer_{index}"), DataType::LargeBinary, false);
    let fields: Vec<Field> =
        std::iter::once(value_field(Kind::PICKLE)).chain((0..buffers).map(buffer)).collect();
    Schema::new_with_metadata(fields, kind_metadata(Kind::PICKLE))
}

/// Name of the column that has all out-of-band buffers of a pickle, if they are many.
pub(super) const PACKED: &str = "buffers";

/// The schema of a pickle whose out-of-band buffers lie in one column: each starts at a multiple of 64 bytes.
pub(super) fn of_packed_pickle() -> Schema {
    let length = Arc::new(Field::new("item", DataType::UInt64, ITEM_IS_NULLABLE));
    let fields = vec![
        value_field(Kind::PICKLE),
        Field::new(PACKED, DataType::LargeBinary, false),
        Field::new("lengths", DataType::LargeList(length), false),
    ];
    Schema::new_with_metadata(fields, kind_metadata(Kind::PICKLE))
}

/// The schema of a tensor with elements of `dtype`: a flat column, or a column of lists if `inner` has dimensions.
/// `inner` has those of the rows, as they lie in memory; `description` is the JSON of [`TENSOR_KEY`].
pub(super) fn of_tensor(
    dtype: Dtype,
    inner: &[usize],
    row_len: Option<i32>,
    description: String,
) -> Option<Schema> {
    let storage = element_type(dtype)?;
    let mut metadata = vec![(TENSOR_KEY.to_owned(), description)];
    let field = match row_len {
        None => {
            if dtype == Dtype::BOOL8 {
                metadata.extend(extension("arrow.bool8", String::new()));
            }
            Field::new(COLUMN, storage, false)
        }
        Some(row_len) => {
            let inner = serde_json::json!({ "shape": inner });
            metadata.extend(extension("arrow.fixed_shape_tensor", inner.to_string()));
            let item = Field::new("item", storage, ITEM_IS_NULLABLE);
            Field::new(COLUMN, DataType::FixedSizeList(Arc::new(item), row_len), false)
        }
    };
    let field = field.with_metadata(metadata.into_iter().collect::<std::collections::HashMap<_, _>>());
    Some(one_column(Kind::TENSOR, field))
}

/// Arrow's specification leaves it open; pyarrow and arrow-rs both read this.
const ITEM_IS_NULLABLE: bool = false;

/// The Arrow type that stores elements of `dtype`; `None` if this version does not know the dtype.
pub(crate) fn element_type(dtype: Dtype) -> Option<DataType> {
    Some(match dtype {
        Dtype::BOOL8 | Dtype::INT8 => DataType::Int8,
        Dtype::INT16 => DataType::Int16,
        Dtype::INT32 => DataType::Int32,
        Dtype::INT64 => DataType::Int64,
        Dtype::UINT8 => DataType::UInt8,
        Dtype::UINT16 => DataType::UInt16,
        Dtype::UINT32 => DataType::UInt32,
        Dtype::UINT64 => DataType::UInt64,
        Dtype::FLOAT16 => DataType::Float16,
        Dtype::FLOAT32 => DataType::Float32,
        Dtype::FLOAT64 => DataType::Float64,
        _ => return None,
    })
}

fn value_field(kind: Kind) -> Field {
    match kind {
        Kind::BYTES => Field::new(COLUMN, DataType::LargeBinary, false),
        Kind::NULL => Field::new(COLUMN, DataType::Null, true),
        Kind::BOOL => Field::new(COLUMN, DataType::Boolean, false),
        Kind::INT64 => Field::new(COLUMN, DataType::Int64, false),
        Kind::FLOAT64 => Field::new(COLUMN, DataType::Float64, false),
        Kind::JSON => Field::new(COLUMN, DataType::LargeUtf8, false).with_metadata(
            extension("arrow.json", String::new()).into_iter().collect::<std::collections::HashMap<_, _>>(),
        ),
        Kind::PICKLE => Field::new(COLUMN, DataType::LargeBinary, false).with_metadata(
            extension("plasmon.pickle", "5".to_owned())
                .into_iter()
                .collect::<std::collections::HashMap<_, _>>(),
        ),
        _ => Field::new(COLUMN, DataType::LargeUtf8, false),
    }
}

fn extension(name: &str, metadata: String) -> [(String, String); 2] {
    [(EXTENSION_NAME.to_owned(), name.to_owned()), (EXTENSION_METADATA.to_owned(), metadata)]
}

fn one_column(kind: Kind, field: Field) -> Schema {
    Schema::new_with_metadata(vec![field], kind_metadata(kind))
}

fn kind_metadata(kind: Kind) -> std::collections::HashMap<String, String> {
    std::collections::HashMap::from([(KIND_KEY.to_owned(), kind.to_string())])
}

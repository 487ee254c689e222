//! What another user may have learned: any header over any bytes is decoded to valid Arrow or refused.
//!
//! The input says which table is made and encoded, and where it is damaged then; or it is the file itself.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use arrow_array::{Array, ArrayRef, RecordBatch, *};
use arrow_schema::DataType;
use libfuzzer_sys::fuzz_target;
use plasmon::{Blob, Json, Learn, Object, Pickle, Table, TensorView, Text};
use plasmon_protocol::object::{Dtype, Flags, Header, Kind};
use std::sync::Arc;

fuzz_target!(|data: &[u8]| {
    // Seeds are files as they are; what does not begin like one says how to make one.
    if data.starts_with(b"ARROW1") {
        decode(Header::new(Kind::TABLE), data);
        let Some((_, header)) = data.split_last_chunk::<32>() else { return };
        if let Ok(header) = MadeHeader::arbitrary(&mut Unstructured::new(header)) {
            decode(header.header(), data);
        }
        return;
    }
    let Ok(made) = Made::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let Some((header, mut file)) = made.file() else { return };
    for (at, with) in &made.damage {
        let len = file.len();
        file[*at as usize % len] ^= with;
    }
    if let Some(cut) = made.cut {
        file.truncate(cut as usize % file.len());
    }
    decode(header, &file);
    decode(made.header.header(), &file);
});

#[derive(Arbitrary, Debug)]
struct Made {
    value: Value,
    damage: Vec<(u16, u8)>,
    cut: Option<u16>,
    header: MadeHeader,
}

#[derive(Arbitrary, Debug)]
enum Value {
    Table(Vec<Column>, u8),
    Bytes(Vec<u8>),
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    Tensor(u8, u8, u8),
}

#[derive(Arbitrary, Debug)]
enum Column {
    Int8,
    Int64(bool),
    Float,
    Bool(bool),
    Text(String),
    LargeText(String),
    View(String),
    Binary(Vec<u8>),
    Fixed(u8),
    List,
    Struct,
    Dictionary(String),
    Null,
    Date,
    Decimal,
}

#[derive(Arbitrary, Debug)]
struct MadeHeader {
    kind: u8,
    dtype: u8,
    ndim: u8,
    flags: u8,
    buffer_offset: u16,
    dims: [u16; 4],
}

impl MadeHeader {
    fn header(&self) -> Header {
        Header {
            kind: Kind::from_number(self.kind % 12),
            dtype: Dtype::from_number(self.dtype % 20),
            ndim: self.ndim,
            flags: Flags::from_bits(self.flags),
            buffer_offset: self.buffer_offset.into(),
            dims: self.dims.map(u64::from),
        }
    }
}

impl Made {
    fn file(&self) -> Option<(Header, Vec<u8>)> {
        fn of<V: Learn + ?Sized>(value: &V) -> Option<(Header, Vec<u8>)> {
            let prepared = value.prepare().ok()?;
            Some((prepared.header(), prepared.to_vec().ok()?))
        }
        match &self.value {
            Value::Table(columns, rows) => {
                let rows = usize::from(*rows);
                let columns =
                    columns.iter().enumerate().map(|(n, column)| (n.to_string(), column.array(rows)));
                of(&RecordBatch::try_from_iter(columns).ok()?)
            }
            Value::Bytes(bytes) => of(&bytes[..]),
            Value::Text(text) => of(text.as_str()),
            Value::Integer(number) => of(number),
            Value::Float(number) => of(number),
            Value::Bool(truth) => of(truth),
            &Value::Tensor(first, second, third) => {
                let shape = [first % 8, second % 8, third % 8].map(usize::from);
                let elements = vec![1.5_f32; shape.iter().product()];
                of(&plasmon::Tensor::new(&shape, &elements).ok()?)
            }
        }
    }
}

impl Column {
    fn array(&self, rows: usize) -> ArrayRef {
        let some = |row: usize| row % 3 != 1;
        let texts =
            |text: &str| (0..rows).map(|row| some(row).then(|| text.repeat(row % 3))).collect::<Vec<_>>();
        match self {
            Column::Int8 => Arc::new(Int8Array::from_iter_values((0..rows).map(|row| row as i8))),
            Column::Int64(nulls) => Arc::new(
                (0..rows).map(|row| (!nulls || some(row)).then_some(row as i64)).collect::<Int64Array>(),
            ),
            Column::Float => Arc::new(Float64Array::from_iter_values((0..rows).map(|row| row as f64))),
            Column::Bool(nulls) => Arc::new(
                (0..rows).map(|row| (!nulls || some(row)).then_some(row % 2 == 0)).collect::<BooleanArray>(),
            ),
            Column::Text(text) => Arc::new(StringArray::from(texts(text))),
            Column::LargeText(text) => Arc::new(LargeStringArray::from(texts(text))),
            Column::View(text) => Arc::new(StringViewArray::from_iter(texts(text))),
            Column::Binary(bytes) => Arc::new(BinaryArray::from_iter_values((0..rows).map(|_| bytes))),
            Column::Fixed(width) => {
                let values = (0..rows).map(|_| vec![7; usize::from(width % 9) + 1]);
                match FixedSizeBinaryArray::try_from_iter(values) {
                    Ok(array) => Arc::new(array),
                    Err(_) => Arc::new(NullArray::new(rows)),
                }
            }
            Column::List => Arc::new(ListArray::from_iter_primitive::<types::Int32Type, _, _>(
                (0..rows).map(|row| some(row).then(|| (0..row % 4).map(|item| Some(item as i32)))),
            )),
            Column::Struct => {
                let field = |name: &str| arrow_schema::Field::new(name, DataType::Int64, true);
                let child = || Column::Int64(true).array(rows);
                Arc::new(StructArray::from(vec![
                    (Arc::new(field("a")), child()),
                    (Arc::new(field("b")), child()),
                ]))
            }
            Column::Dictionary(text) => {
                let values = texts(text);
                Arc::new(values.iter().map(Option::as_deref).collect::<DictionaryArray<types::Int8Type>>())
            }
            Column::Null => Arc::new(NullArray::new(rows)),
            Column::Date => Arc::new(Date32Array::from_iter_values((0..rows).map(|row| row as i32))),
            Column::Decimal => Arc::new(Decimal128Array::from_iter_values((0..rows).map(|row| row as i128))),
        }
    }
}

/// Decodes it as everything that it might be said to be.
fn decode(header: Header, bytes: &[u8]) {
    let object = Object::of_stranger(header, bytes);
    if let Ok(table) = object.table() {
        valid(&table);
    }
    if let Ok(table) = object.to::<Table>() {
        valid(&table);
    }
    if let Ok(bytes) = object.to::<Blob>() {
        read(&bytes);
    }
    if let Ok(text) = object.to::<Text>() {
        assert!(str::from_utf8(text.as_bytes()).is_ok());
    }
    if let Ok(json) = object.to::<Json>() {
        assert!(str::from_utf8(json.as_bytes()).is_ok());
    }
    if let Ok(pickle) = object.to::<Pickle>() {
        let _ = format!("{pickle:?}");
    }
    if let Ok(tensor) = object.to::<TensorView>() {
        let _ = format!("{tensor:?}");
    }
    let _ = object.to::<serde_json::Value>();
    let _ = (object.to::<i64>(), object.to::<f64>(), object.to::<bool>(), object.to::<()>());
    let _ = object.as_ipc();
    if let Ok(table) = Table::from_ipc(bytes.to_vec()) {
        valid(&table);
    }
}

/// Every byte may be read.
fn read(bytes: &[u8]) {
    std::hint::black_box(bytes.iter().fold(0_u8, |sum, byte| sum ^ byte));
}

/// What was accepted is valid Arrow all through.
fn valid(table: &Table) {
    for column in table.iter().flat_map(RecordBatch::columns) {
        column.to_data().validate_full().expect("what was accepted is valid");
    }
}

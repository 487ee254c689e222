//! A value of every kind, in every size that is stored in a way of its own.

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use plasmon::{Blob, Brain, Kind, Object, Table, Tensor, TensorView, Text};
use std::sync::Arc;

type Checked = Result<(), Box<dyn std::error::Error>>;

/// Longer than what stands in the index, longer than what travels in a message, longer than a kept lease's pages.
const LENGTHS: [usize; 7] = [0, 1, 32, 33, 5_000, 70_000, 3_000_000];

fn bytes(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

fn letters(len: usize) -> String {
    "Plasmön 🦀 ".chars().cycle().take(len).collect()
}

fn batch(rows: usize) -> RecordBatch {
    let numbers: Int64Array = (0..).take(rows).map(|n: i64| (n % 3 > 0).then_some(n)).collect();
    let words: StringArray = (0..rows).map(|n| (n % 5 > 0).then(|| format!("word {n}"))).collect();
    let columns = [("number", Arc::new(numbers) as ArrayRef), ("word", Arc::new(words))];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
        .expect("columns of one length")
}

fn tables() -> [(&'static str, Table); 4] {
    let of = |batches: Vec<RecordBatch>| Table::new(batch(0).schema(), batches).expect("one schema");
    [
        ("table-without-batches", of(vec![])),
        ("table-empty", of(vec![batch(0)])),
        ("table-small", of(vec![batch(3), batch(0), batch(5)])),
        ("table-large", of(vec![batch(20_000), batch(10_000)])),
    ]
}

fn json() -> [(&'static str, serde_json::Value); 3] {
    let many: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    [
        ("json-empty", serde_json::json!({})),
        ("json-small", serde_json::json!({"a": [1, -2.5, 1e300, null, true, {"ü": ""}], "b": u64::MAX})),
        ("json-large", serde_json::json!({ "many": many })),
    ]
}

const INTEGERS: [i64; 4] = [0, -1, i64::MIN, i64::MAX];
const FLOATS: [f64; 6] = [0.0, -0.0, 1.5, f64::NAN, f64::NEG_INFINITY, f64::MIN_POSITIVE];

/// Learns all of them.
///
/// # Errors
/// The first refusal.
pub fn learn(brain: &Brain) -> Checked {
    for len in LENGTHS {
        brain.learn(&format!("bytes-{len}"), &bytes(len))?;
        brain.learn(&format!("text-{len}"), letters(len).as_str())?;
        let rows = vec![0.25; len / 8];
        brain.learn(&format!("tensor-{len}"), &Tensor::new(&[len / 8], &rows)?)?;
    }
    for (name, table) in tables() {
        brain.learn(name, &table)?;
    }
    for (name, value) in json() {
        brain.learn(name, &value)?;
    }
    brain.learn("tensor-scalar", &Tensor::new(&[], &[7_u8])?)?;
    brain.learn("tensor-no-rows", &Tensor::new::<i16>(&[0, 7], &[])?)?;
    brain.learn("tensor-rows", &Tensor::new(&[2, 3], &[1_i32, 2, 3, 4, 5, 6])?)?;
    brain.learn("tensor-columns", &Tensor::column_major(&[2, 3], &[1_i32, 4, 2, 5, 3, 6])?)?;
    brain.learn("tensor-5d", &Tensor::new(&[1, 2, 1, 2, 1], &[1_u16, 2, 3, 4])?)?;
    brain.learn("null", &())?;
    brain.learn("true", &true)?;
    brain.learn("false", &false)?;
    for (number, value) in INTEGERS.iter().enumerate() {
        brain.learn(&format!("integer-{number}"), value)?;
    }
    for (number, value) in FLOATS.iter().enumerate() {
        brain.learn(&format!("float-{number}"), value)?;
    }
    Ok(())
}

/// Recalls all of them, as what they are, and as the Arrow tables that they are stored as.
///
/// # Errors
/// The first refusal.
///
/// # Panics
/// If one is not what was learned.
pub fn check(brain: &Brain) -> Checked {
    for len in LENGTHS {
        assert_eq!(*brain.recall::<Blob>(&format!("bytes-{len}"))?, bytes(len)[..]);
        assert_eq!(brain.recall::<Vec<u8>>(&format!("bytes-{len}"))?, bytes(len));
        assert_eq!(brain.recall::<Text>(&format!("text-{len}"))?, letters(len).as_str());
        assert_eq!(brain.recall::<String>(&format!("text-{len}"))?, letters(len));
        let tensor: TensorView = brain.recall(&format!("tensor-{len}"))?;
        assert_eq!((tensor.shape(), tensor.as_slice::<f64>()?), (&[len / 8][..], &vec![0.25; len / 8][..]));
    }
    for (name, table) in tables() {
        let recalled: Table = brain.recall(name)?;
        assert_eq!(recalled.schema(), table.schema());
        // Some libraries leave batches without rows out.
        assert!(
            recalled
                .iter()
                .filter(|batch| batch.num_rows() > 0)
                .eq(table.iter().filter(|batch| batch.num_rows() > 0))
        );
        assert_eq!(brain.recall::<Object>(name)?.copied_bytes(&recalled), 0);
    }
    for (name, value) in json() {
        assert_eq!(brain.recall::<serde_json::Value>(name)?, value);
    }
    let tensor = |name: &str| brain.recall::<TensorView>(name);
    assert_eq!(tensor("tensor-scalar")?.as_tensor(), Tensor::new(&[], &[7_u8])?);
    assert_eq!(tensor("tensor-no-rows")?.as_tensor(), Tensor::new::<i16>(&[0, 7], &[])?);
    assert_eq!(tensor("tensor-rows")?.as_tensor(), Tensor::new(&[2, 3], &[1_i32, 2, 3, 4, 5, 6])?);
    let columns = Tensor::column_major(&[2, 3], &[1_i32, 4, 2, 5, 3, 6])?;
    assert_eq!(tensor("tensor-columns")?.as_tensor(), columns);
    assert_eq!(tensor("tensor-5d")?.as_tensor(), Tensor::new(&[1, 2, 1, 2, 1], &[1_u16, 2, 3, 4])?);
    brain.recall::<()>("null")?;
    assert!(brain.recall::<bool>("true")? && !brain.recall::<bool>("false")?);
    for (number, value) in INTEGERS.iter().enumerate() {
        assert_eq!(brain.recall::<i64>(&format!("integer-{number}"))?, *value);
    }
    for (number, value) in FLOATS.iter().enumerate() {
        assert_eq!(brain.recall::<f64>(&format!("float-{number}"))?.to_bits(), value.to_bits());
    }
    for binding in brain.list("")? {
        let object: Object = brain.recall(&binding.name)?;
        assert_eq!((object.kind(), object.version()), (binding.kind, binding.version), "{}", binding.name);
        assert_eq!(object.len_bytes(), binding.len_bytes, "{}", binding.name);
        // Invariant 8: any reader of Arrow files can read it, and checks all of it.
        let table = Table::from_ipc(object.as_ipc()?.into_owned())?;
        if object.kind() != Kind::TENSOR {
            assert_eq!(table, object.table()?, "{}", binding.name);
        }
    }
    Ok(())
}

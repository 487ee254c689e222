//! Aggregates the frames that `measure.py` makes, as they come, and sends it the means.

use arrow_array::{Array, LargeStringArray, StringArray, cast::AsArray, types::Float64Type};
use plasmon::{Brain, Table};
use std::{collections::BTreeMap, time::Duration};

const BATCHES: u32 = 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let brain = Brain::connect()?.in_namespace("pipeline")?;
    let mut stations: BTreeMap<String, (f64, u32)> = BTreeMap::new();
    for number in 0..BATCHES {
        let name = format!("measurements-{number}");
        let frame: Table = brain.recall_within(&name, Duration::from_mins(1))?; // nothing is copied
        for batch in frame.iter() {
            let celsius = batch.column_by_name("celsius").ok_or("there is no column celsius")?;
            let station = batch.column_by_name("station").ok_or("there is no column station")?;
            for (station, &celsius) in texts(station)?.zip(celsius.as_primitive::<Float64Type>().values()) {
                let (sum, count) = stations.entry(station.to_owned()).or_default();
                *sum += celsius;
                *count += 1;
            }
        }
        brain.forget(&name)?;
    }
    let means: BTreeMap<&str, f64> =
        stations.iter().map(|(station, (sum, count))| (station.as_str(), sum / f64::from(*count))).collect();
    brain.learn("means", &serde_json::json!(means))?;
    Ok(())
}

/// A column of text: pandas has one kind of it, polars another.
fn texts(column: &dyn Array) -> Result<Box<dyn Iterator<Item = &str> + '_>, String> {
    if let Some(column) = column.as_any().downcast_ref::<StringArray>() {
        return Ok(Box::new(column.iter().flatten()));
    }
    let large = column.as_any().downcast_ref::<LargeStringArray>();
    let large = large.ok_or_else(|| format!("{} is not text", column.data_type()))?;
    Ok(Box::new(large.iter().flatten()))
}

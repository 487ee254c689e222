//! Recalls a table that another process has put into the store, and aggregates it where it lies.
//!
//! `scripts/quickstart` starts the store, puts the flights that left New York in 2013 into it, and runs this.

use arrow_array::{
    Array, RecordBatch, StringArray,
    cast::AsArray,
    types::{Float64Type, Int64Type},
};
use plasmon::{Brain, Object};
use std::{collections::BTreeMap, time::Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let brain = Brain::connect()?;
    let start = Instant::now();
    let object: Object = brain.recall("flights")?;
    let flights = object.table()?;
    let took = start.elapsed();

    let mut delays: BTreeMap<&str, (f64, u32)> = BTreeMap::new();
    for batch in flights.iter() {
        let carriers: &StringArray =
            column(batch, "carrier")?.as_string_opt().ok_or("carrier is not text")?;
        for (carrier, minutes) in carriers.iter().zip(minutes(batch, "arr_delay")?) {
            // Flights that were cancelled never arrived.
            if let (Some(carrier), Some(minutes)) = (carrier, minutes) {
                let (sum, count) = delays.entry(carrier).or_default();
                *sum += minutes;
                *count += 1;
            }
        }
    }
    let mean = |(carrier, (sum, count)): (_, (f64, u32))| (sum / f64::from(count), count, carrier);
    let mut means: Vec<(f64, u32, &str)> = delays.into_iter().map(mean).collect();
    means.sort_by(|one, other| other.0.total_cmp(&one.0));

    let mut report = String::from("mean delay on arrival, the worst five carriers:\n");
    for (mean, count, carrier) in means.iter().take(5) {
        report += &format!("  {carrier} {mean:6.1} minutes over {count:6} flights\n");
    }
    let (rows, bytes, copied) = (flights.num_rows(), object.len_bytes(), object.copied_bytes(&flights));
    report +=
        &format!("recalled {rows} flights ({bytes} bytes) in {} µs, {copied} bytes copied", took.as_micros());
    show(&report);
    Ok(())
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a dyn Array, String> {
    batch.column_by_name(name).map(AsRef::as_ref).ok_or_else(|| format!("there is no column {name:?}"))
}

/// A column of minutes, whole ones or not: how a CSV file's numbers are read depends on what stands in it.
fn minutes<'a>(
    batch: &'a RecordBatch,
    name: &str,
) -> Result<Box<dyn Iterator<Item = Option<f64>> + 'a>, String> {
    let column = column(batch, name)?;
    if let Some(whole) = column.as_primitive_opt::<Int64Type>() {
        return Ok(Box::new(whole.iter().map(|minutes| minutes.map(|minutes| minutes as f64))));
    }
    let exact =
        column.as_primitive_opt::<Float64Type>().ok_or_else(|| format!("{name:?} is not a number"))?;
    Ok(Box::new(exact.iter()))
}

#[expect(clippy::print_stdout, reason = "the program's answer")]
fn show(report: &str) {
    println!("{report}");
}

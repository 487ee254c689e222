//! Recalls a table that another process has put into the store, and aggregates it without copying it.
//!
//! `scripts/quickstart` starts the store, puts the flights that left New York in 2013 into it, and runs this.

use arrow_array::{Array, Float64Array, Int64Array, RecordBatch, cast::AsArray, types::Float64Type, types::Int64Type};
use plasmon::{Brain, Table};
use std::{collections::BTreeMap, time::Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let brain = Brain::connect()?;
    let start = Instant::now();
    let flights: Table = brain.recall("flights")?;
    let took = start.elapsed();

    let mut delays: BTreeMap<String, (f64, u64)> = BTreeMap::new();
    for batch in flights.iter() {
        let carriers = batch.column_by_name("carrier").ok_or("no column carrier")?;
        let delay = numbers(batch, "arr_delay")?;
        for row in 0..batch.num_rows() {
            if let Some(minutes) = delay.get(row) {
                let carrier = text(carriers.as_ref(), row).ok_or("carrier is not text")?;
                let (sum, count) = delays.entry(carrier.to_owned()).or_default();
                *sum += minutes;
                *count += 1;
            }
        }
    }
    let mut means: Vec<_> = delays.into_iter().map(|(carrier, (sum, count))| (sum / count as f64, count, carrier)).collect();
    means.sort_by(|one, other| other.0.total_cmp(&one.0));

    println!("{} flights recalled in {:.1} µs, {} bytes copied", flights.num_rows(), took.as_secs_f64() * 1e6, flights.copied_bytes());
    println!("mean delay on arrival, by carrier:");
    for (mean, count, carrier) in means.iter().take(5) {
        println!("  {carrier}  {mean:6.1} minutes over {count:6} flights");
    }
    Ok(())
}

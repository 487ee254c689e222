//! Produces batches of a random walk, which `plot.py` waits for and plots.

use arrow_array::{Float64Array, Int64Array, RecordBatch};
use plasmon::Brain;
use std::sync::Arc;

const BATCHES: i64 = 10;
const ROWS: i64 = 100_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let brain = Brain::connect()?.in_namespace("pipeline")?;
    let mut walk = Walk { position: 0.0, random: 1 };
    for number in 0..BATCHES {
        let step = Int64Array::from_iter_values(number * ROWS..(number + 1) * ROWS);
        let position = Float64Array::from_iter_values(walk.by_ref().take(step.len()));
        let batch = RecordBatch::try_from_iter([
            ("step", Arc::new(step) as _),
            ("position", Arc::new(position) as _),
        ])?;
        brain.learn(&format!("walk-{number}"), &batch)?; // whoever waits for the name has it now
    }
    Ok(())
}

/// One step to the left or to the right, by a xorshift generator.
struct Walk {
    position: f64,
    random: u64,
}

impl Iterator for Walk {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.position += if self.random >> 63 == 0 { -1.0 } else { 1.0 };
        Some(self.position)
    }
}

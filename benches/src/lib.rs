//! Benchmarks live beside this file; the floor that scripts/bench measures is in `bin`. There is no library.

//! The Rust half of the Python package `plasmon`: it converts and calls.
//!
//! * `client`: the class that `plasmon.Brain` stands on, one call for each of its methods.
//! * `past`: history, snapshots and views. `options`: what goes with a value. `payload`: from Python values to what is learned. `recalled`: back, from objects to Python values. `copies`: what of that is copied.
//! * `numpy`: what is needed of NumPy, looked up once.
//! * `json`: JSON-like Python values as JSON text, and back. `texts`: columns of texts. `memory`: the buffer protocol and Arrow's C interface.
//! * `waiting`: waits that can be given up. `exit`: the end of the interpreter. `stack`: threads whose stack is short. `errors`: the exceptions of `plasmon.exceptions`. `programs`: `plasmon-store` and `plasmon`.
//!
//! Which form a value takes, beyond the plain types, is decided in Python (`plasmon/_forms.py`).
#![deny(unsafe_code)]

mod client;
mod copies;
mod errors;
mod exit;
mod json;
#[expect(unsafe_code, reason = "buffers of other owners: each place has its proof")]
mod memory;
mod numpy;
mod options;
mod past;
mod payload;
mod programs;
mod recalled;
mod stack;
mod texts;
mod waiting;
#[expect(unsafe_code, reason = "the buffer protocol's methods are unsafe to call")]
mod writing;

/// What `plasmon` and its modules import from here.
#[pyo3::pymodule(gil_used = false)]
mod _plasmon {
    #[pymodule_export]
    use crate::{
        client::{Client, name_id},
        copies::{copied_bytes, count_copied},
        exit::{Undisturbed, forget_other_threads, prepare_exit},
        json::parse_json,
        memory::{Buffer, TableStream},
        options::Options,
        past::{Past, View},
        payload::Payload,
        programs::run_plasmon,
        recalled::Object,
        texts::{put_texts, texts_of},
        waiting::{Cancel, PendingWait},
        writing::{TableWriter, Writable},
    };
}

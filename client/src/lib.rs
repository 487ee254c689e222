//! Share Arrow data between the processes of one machine without copying it: the Rust client of Plasmon.
//!
//! A [`Brain`] learns, recalls and forgets named objects in a store that a daemon (`plasmon-store`) keeps. A recall is
//! a look at a shared index: it asks the daemon nothing, copies no column, and takes as long for a gigabyte as for a
//! kilobyte. What was recalled never changes and never moves while it is held.
//!
//! * [`Brain`]: connecting, recalling, listing, waiting, forgetting.
//! * [`Learn`] and [`FromObject`]: what can be learned, and what an object can be recalled as.
//! * [`Batch`]: many changes at one moment. [`Writable`] and [`TableWriter`]: writing an object in place.
//! * [`Error`]: why a call did not do what was asked.
//! * [`testing`]: a real store for tests (feature `testing`).
//!
//! # What this crate does not do
//!
//! It starts no thread, writes nothing to any file, and keeps no state of a process but which sessions it has.
//!
//! # Example
//!
//! ```
//! use arrow_array::{Float64Array, RecordBatch};
//! use plasmon::Table;
//! use std::sync::Arc;
//!
//! let store = plasmon::testing::Store::start(64 << 20)?; // or: plasmon-store --size 64MiB
//! let brain = store.connect()?; // or: Brain::connect()
//! let prices = Float64Array::from(vec![19.5, 20.25, 18.0]);
//! brain.learn("prices", &RecordBatch::try_from_iter([("price", Arc::new(prices) as _)]).unwrap())?;
//!
//! let prices: Table = brain.recall("prices")?;
//! assert_eq!(prices.num_rows(), 3);
//! # Ok::<(), plasmon::Error>(())
//! ```
#![deny(unsafe_code)]

mod batch;
mod brain;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[expect(unsafe_code, reason = "validated once, decoded without validation: each place has its proof")]
mod codec;
mod connection;
mod create;
mod error;
mod gate;
mod kept;
mod lease;
mod lock;
mod near;
mod object;
mod options;
mod paths;
mod session;
mod slots;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod transaction;
mod trust;
mod view;

pub use batch::{Batch, SealedView};
pub use brain::{
    Brain, Builder, Diff, Ended, Figure, History, Keeper, Metadata, NamePage, NamespaceInfo, PendingBinding,
    PendingWait, Pin, Reason, RefusedLearns, SnapshotInfo, Stats, Version, ViewInfo,
};
pub use codec::{
    BlockTable, CodecError, Described, Dtype, Json, Kind, Learn, Pickle, Prepared, Strided, Table, TablePart,
    Tensor, TensorElement, TensorView, Text,
};
pub use create::{TableWriter, Writable};
#[doc(hidden)]
pub use error::Reader;
pub use error::{Conflict, Error, Full, Result};
pub use lock::Lock;
pub use near::Near;
pub use object::{Blob, CopyOnWrite, FromObject, Object};
pub use options::{LearnOptions, NamespaceOptions};
pub use plasmon_protocol::{
    id::ObjectId,
    message::{Expect, Ttl},
    name::NameError,
};
pub use transaction::Transaction;
pub use view::View;

/// The examples of the README must compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

//! Values as Arrow IPC files, and back.
//!
//! Every object of a store is an Arrow IPC file that any Arrow implementation can read (invariant 8), with every buffer
//! at a multiple of 64 bytes, so that an extent aligned to 64 bytes gives aligned columns. docs/layout.md has the table
//! of the Arrow form of each kind; `golden/` has one file of each, and the tests compare bytes with them.
//!
//! * [`Learn`]: what can be learned. [`Prepared`] knows its length, or how long it can be, before a byte is copied.
//! * [`Strided`] and [`BlockTable`]: arrays and tables that do not lie in one piece, gathered while they are written.
//! * [`Table`], [`Tensor`] and [`TensorView`], [`Text`]: values that plain Rust has no type for.
//! * `decode_*`: from an object's bytes to a value, by the shortcuts of its [`Header`](plasmon_protocol::object::Header)
//!   where it has them. Nothing is copied but values of at most 32 bytes.
//!
//! # What this module does not do
//!
//! It maps nothing, pins nothing and talks to no store: a decoded value holds the [`Buffer`](arrow_buffer::Buffer) it
//! was given, and whoever made that buffer frees it. It never copies a column to make it fit, except in
//! [`Table::from_ipc`]. It writes no compression, no big-endian numbers and no delta dictionaries, and reads none.

#[cfg(target_endian = "big")]
compile_error!("objects are little-endian in memory, and recalled without copying");

mod block_table;
mod blocks;
mod decode;
mod dictionary;
mod ends;
mod error;
mod frame;
mod gather;
mod in_place;
mod json;
mod layout;
mod learn;
mod pickle;
mod prepared;
mod schema;
mod shape;
mod source;
mod stack;
mod table;
mod tensor;
#[cfg(test)]
mod tests;
mod text;
mod value;

pub use block_table::BlockTable;
pub use blocks::TablePart;
pub use error::CodecError;
pub use json::Json;
pub use learn::{Described, Learn};
pub use pickle::Pickle;
pub use plasmon_protocol::object::{Dtype, Kind};
pub use prepared::Prepared;
pub use source::Strided;
pub use table::Table;
pub use tensor::{Tensor, TensorElement, TensorView};
pub use text::Text;

pub(crate) use block_table::decode_blocks;
pub(crate) use decode::decode_table;
pub(crate) use in_place::InPlaceFrame;
pub(crate) use learn::DESCRIBED;
pub(crate) use pickle::decode_pickle;
pub(crate) use stack::with_room;
pub(crate) use tensor::decode_tensor;
pub(crate) use value::{
    decode_bool, decode_bytes, decode_f64, decode_i64, decode_json, decode_json_text, decode_null,
    decode_text,
};

//! What Plasmon's daemon and its clients agree on.
//!
//! * [`name`] and [`id`]: namespaces, names, and the 32-byte ids made from them.
//! * [`frame`] and [`message`]: the control protocol on the Unix socket, each message defined once.
//! * [`object`]: kinds, dtypes and flags, and the few fields of an object that travel in the index.
//! * [`layout`]: where every word of the shared regions lies.
//! * [`index`] and [`pins`]: the two algorithms that run on shared memory, over `&[AtomicU64]`.
//! * [`limits`]: every bound, beside the reason for it; [`lifetime`]: times to live as people write them.
//! * [`trust`]: whose bytes are believed.
//!
//! # What this crate does not do
//!
//! It opens nothing, maps nothing, reads no clock, allocates no arena and decides no policy. It has no `unsafe`
//! and needs no operating system, so that the same code runs over a mapping, over a `Vec`, and over loom's atomics.
//!
//! # Example
//!
//! ```
//! use plasmon_protocol::{id::NameId, name::Namespace};
//!
//! let namespace = Namespace::new("default").unwrap();
//! let id = NameId::new(&namespace, "prices");
//! assert_eq!(&id.as_bytes()[..7], b"default");
//! ```
#![no_std]
#![forbid(unsafe_code)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("Plasmon maps arenas larger than 4 GiB and needs a 64-bit target");

extern crate alloc;
#[cfg(any(test, loom))]
extern crate std;

pub mod codec;
pub mod frame;
pub mod id;
pub mod index;
pub mod layout;
pub mod lifetime;
pub mod limits;
pub mod message;
pub mod name;
pub mod object;
pub mod pins;
pub mod sync;
pub mod trust;

/// Turns a length or an offset of the 64-bit address space into an index. Cannot truncate: the target has 64 bits.
#[inline]
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the crate refuses to build where usize has fewer than 64 bits"
)]
pub const fn index_of(value: u64) -> usize {
    value as usize
}

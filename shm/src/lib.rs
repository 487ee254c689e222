//! The small unsafe core of Plasmon: shared regions, their rights, their mappings, and the sockets that carry them.
//!
//! The daemon makes a [`Region`], passes openings of it through a socket, and a client turns what it received into a
//! [`ClientRegion`] and maps that. Everything above this crate sees atomics, a pointer with checked bounds, or a
//! slice of memory it alone may write; no other crate calls `mmap`.
//!
//! # What is absent
//!
//! - No policy: no allocator, no pins, no leases as the store means them, no message formats. A lease here is a range
//!   somebody was granted; who grants it is decided elsewhere.
//! - No globals and no threads: which newer kernel calls are used is a value, [`Kernel`], passed to what needs it.
//!   (But for what the feature `fault-points`, for tests, reads from the environment.)
//! - No waiting: nothing here blocks except a system call on a blocking socket, page population, which is done in
//!   steps of at most [`STEP_BYTES`], and [`Polling`], for some microseconds.
//! - No plain loads or stores of memory that another process may write. Words are `AtomicU64`s; bytes are handed out
//!   as pointers, and reading those is the caller's `unsafe`, because only a pin makes it sound.
//! - Nothing but 64-bit Linux, 5.14 or newer.
//!
//! # Example
//!
//! ```
//! use plasmon_shm::{Backend, ClientRegion, Kernel, Region, Seals};
//!
//! let kernel = Kernel::detect();
//! let region = Region::create("plasmon-arena", 4 << 20, Backend::Memfd, &kernel)?;
//! let (read_only, read_write) = (region.open_read_only()?, region.open_read_write()?);
//! region.seal(Seals::ShrinkGrow)?;
//! region.restrict_mode()?;
//!
//! // In a client, once the descriptors have crossed the socket:
//! let writer = ClientRegion::from_fd(read_write, 4 << 20)?;
//! let mut lease = writer.map_lease(4096, 8192, true)?;
//! lease.bytes_mut()[..5].copy_from_slice(b"prime");
//!
//! let reader = ClientRegion::from_fd(read_only, 4 << 20)?.map_bytes_read_only()?;
//! let bytes = reader.pointer(4096, 5).expect("inside the region");
//! // SAFETY: the mapping lives, and nobody writes these bytes now.
//! assert_eq!(unsafe { core::slice::from_raw_parts(bytes.as_ptr(), 5) }, b"prime");
//! # Ok::<(), plasmon_shm::Error>(())
//! ```

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("plasmon-shm needs 64-bit Linux: regions are mapped whole, and rights rest on memfd seals");

mod at_fork;
mod claim;
mod client_region;
mod error;
mod fault;
mod fork_mark;
mod kept_fd;
mod kernel;
mod limits;
mod mapping;
mod polling;
mod process;
mod region;
mod socket;
mod socket_path;

pub use at_fork::at_fork;
pub use client_region::ClientRegion;
pub use error::Error;
pub use fault::{FaultPoint, fault_point};
pub use fork_mark::ForkMark;
pub use kept_fd::KeptFd;
pub use kernel::Kernel;
pub use limits::{Limit, keep_one_heap};
pub use mapping::{
    BytesMapping, CopyOnWriteMapping, LeaseMapping, ReadOnlyWords, SealedMapping, WordsMapping,
};
pub use polling::Polling;
pub use process::{
    boottime_ns, kill_process, maps_any, monotonic_coarse_ns, open_process, overflow_uid, set_not_dumpable,
    uid_of,
};
pub use region::{
    Backend, LEN_BYTES_MAX, Populated, Region, RegionId, STEP_BYTES, Seals, named_room_bytes, page_bytes,
    remove_named,
};
pub use socket::{FDS_MAX, Peer, discard_unread, peer, receive, receive_bytes, send};
pub use socket_path::{SOCKET_PATH_BYTES_MAX, ShortPath, default_sockets};

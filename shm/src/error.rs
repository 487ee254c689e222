//! Why an operation on shared memory or its sockets did not happen.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::limits::Limit;
use crate::{FDS_MAX, LEN_BYTES_MAX, SOCKET_PATH_BYTES_MAX};

/// Why an operation on shared memory or its sockets did not happen.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields' names and the message say it")]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused; `cause` says why. The message has it, and the limit that may be behind it, because a refusal
    /// without its reason helps nobody: so it is no `source`, which would say it twice.
    #[error("{operation} failed ({asked}): {cause}{}", limit_behind(.cause))]
    System { operation: &'static str, asked: String, cause: io::Error },
    /// The socket is non-blocking and nothing can be sent or received now. Nothing has happened.
    #[error("the socket is not ready")]
    WouldBlock,
    /// A region has at least one byte, and no more than fits an address space.
    #[error("a region of {asked_bytes} bytes is not possible: it has 1 to {LEN_BYTES_MAX} bytes")]
    RegionLength { asked_bytes: u64 },
    /// Labels become file names that must also fit where names are short.
    #[error("{label:?} is no label: it has 1 to 21 ASCII letters, digits, '-', '_' or '.', and no '.' first")]
    Label { label: String },
    /// Not the name of a named region.
    #[error(
        "{name:?} is no name of a region: it is a '/' and 1 to 30 ASCII letters, digits, '-', '_' or '.'"
    )]
    RegionName { name: String },
    /// `/dev/shm` is too small. Nothing was made.
    #[error(
        "a named region of {requested_bytes} bytes does not fit: {available_bytes} bytes are free in /dev/shm; \
         enlarge it (docker: --shm-size), or use the memfd backend"
    )]
    NoRoom { requested_bytes: u64, available_bytes: u64 },
    /// A range that is not inside its region.
    #[error("{len_bytes} bytes at offset {offset} are not inside a region of {region_bytes} bytes")]
    OutOfBounds { offset: u64, len_bytes: u64, region_bytes: u64 },
    /// A number that must be a multiple of another.
    #[error("{what} is {found}, which is no multiple of {alignment}")]
    Unaligned { what: &'static str, found: u64, alignment: u64 },
    /// A population step longer than [`STEP_BYTES`](crate::STEP_BYTES).
    #[error("a population step of {asked_bytes} bytes: at most {max_bytes} bytes are populated at once")]
    StepLength { asked_bytes: u64, max_bytes: u64 },
    /// The kernel had no huge page to give. The range holds the bytes it held, and may be partly populated.
    #[error("no huge page for the {len_bytes} bytes at offset {offset}: {cause}")]
    CollapseFailed { offset: u64, len_bytes: u64, cause: io::Error },
    /// A named region has no descriptors to pass: its name is passed instead.
    #[error("{operation} needs a memfd, and this region is named; pass its name instead")]
    NotMemfd { operation: &'static str },
    /// What the peer sent is not the region it announced.
    #[error("a region of {expected_bytes} bytes was announced, and the one received has {found_bytes} bytes")]
    LengthMismatch { expected_bytes: u64, found_bytes: u64 },
    /// The memory could be truncated under a mapping, which would end this process by SIGBUS.
    #[error("the region received is not sealed against shrinking")]
    NotSealed,
    /// The range, or a part of it, is already mapped writable through the same [`ClientRegion`](crate::ClientRegion).
    #[error("the {len_bytes} bytes at offset {offset} overlap a lease that is still mapped")]
    LeaseOverlap { offset: u64, len_bytes: u64 },
    /// A region's descriptor is of other memory than the lease that was to be sealed with it.
    #[error("the region's descriptor is of other memory than what is mapped already")]
    OtherRegion,
    /// Something else in this process has closed the descriptor, and the number may be another file's by now.
    #[error(
        "descriptor {number} was closed by something else in this process, as programs do that become daemons: connect \
         after that"
    )]
    Taken { number: i32 },
    /// The lease belongs to the parent of this forked process, in which it is not mapped.
    #[error(
        "the lease was mapped by process {mapped_by}, and this is process {here}: leases do not cross a fork"
    )]
    Forked { mapped_by: u32, here: u32 },
    /// Descriptors travel with bytes.
    #[error("{count} descriptors cannot be sent without at least one byte")]
    DescriptorsAlone { count: usize },
    /// More descriptors than anything in the protocol carries. All that arrived are closed.
    #[error("{count} descriptors at once: at most {FDS_MAX} are sent or accepted")]
    TooManyDescriptors { count: usize },
    /// Some descriptors were lost, most likely because this process may open no more. Those that came are closed.
    #[error("descriptors of a message were lost; this process may have reached its limit (ulimit -n)")]
    DescriptorsLost,
    /// The kernel takes no path this long, and it could not be shortened.
    #[error(
        "the socket path {} has {len_bytes} bytes, and the kernel takes {SOCKET_PATH_BYTES_MAX}; choose a shorter one (a \
         longer one works where /proc is mounted, if its last part is shorter than 80 bytes)", .path.display()
    )]
    SocketPath { path: PathBuf, len_bytes: usize },
    /// Neither a number nor the name of a user.
    #[error("{name:?} is no user of this machine; name one, or write a uid")]
    NoUser { name: String },
    /// The process at the other end of the socket has ended.
    #[error("process {pid} has ended")]
    PeerEnded { pid: i32 },
    /// Not one of the kernel calls that can be pretended missing.
    #[error("{name:?} is no optional kernel call: they are {known}")]
    UnknownKernelCall { name: String, known: String },
    /// Neither "memfd" nor "named".
    #[error("{given:?} is no backend: it is \"memfd\" or \"named\"")]
    UnknownBackend { given: String },
}

impl Error {
    /// Whether the same call may succeed once the socket is ready.
    #[must_use]
    pub fn is_would_block(&self) -> bool {
        matches!(self, Self::WouldBlock)
    }

    /// Whether the socket's other end is gone, so that the connection is over and nothing is wrong here.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        match self {
            Self::System { cause, .. } => {
                matches!(cause.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
            }
            Self::PeerEnded { .. } => true,
            _ => false,
        }
    }

    /// The kernel's error number, if the kernel refused.
    ///
    /// ```
    /// use plasmon_shm::{ClientRegion, Error};
    ///
    /// let Err(error) = ClientRegion::from_name("/plasmon-nothing-here", 4096, false) else { panic!() };
    /// assert_eq!(error.errno(), Some(2)); // ENOENT
    /// ```
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::System { cause, .. } | Self::CollapseFailed { cause, .. } => cause.raw_os_error(),
            _ => None,
        }
    }
}

/// Makes an [`Error::System`] out of an error number, saying what was asked only if it is needed.
pub(crate) fn refused(
    operation: &'static str,
    asked: impl FnOnce() -> String,
) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::System { operation, asked: asked(), cause: errno.into() }
}

/// The limit that may be why the kernel refused, as the end of a sentence; else nothing.
fn limit_behind(cause: &io::Error) -> String {
    let limit = cause.raw_os_error().and_then(|errno| Limit::behind(Errno::from_raw(errno)));
    limit.map_or_else(String::new, |limit| format!("; {limit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_refuses_is_told_with_its_reason() {
        let refusal = refused("mmap", || "4096 bytes".to_owned())(Errno::ENODEV).to_string();
        assert_eq!(refusal, "mmap failed (4096 bytes): No such device (os error 19)");
    }
}

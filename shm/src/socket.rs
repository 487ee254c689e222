//! Bytes and descriptors through a Unix stream socket, and who is at its other end.
//!
//! Descriptors travel with the first byte of what is sent. What arrives is owned before anything else is looked at,
//! so that no error path can leak a descriptor.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, MsgFlags, Shutdown, getsockopt, recvmsg, sendmsg, setsockopt, shutdown, sockopt,
};

use crate::error::{Error, refused};
use crate::kernel::{Kernel, open_pidfd};

/// Most descriptors sent or accepted at once: all session regions of a process with a million pins, and some to spare.
pub const FDS_MAX: usize = 24;

/// Sends `bytes`, and `fds` with the first of them; returns how many bytes were sent.
///
/// On a blocking socket that is all of them. On a non-blocking one it may be fewer: send the rest later, and without
/// `fds`, which have crossed as soon as one byte has. A peer that is gone is an error, never a signal.
///
/// # Errors
/// [`Error::WouldBlock`] if not even one byte could be sent; [`Error::TooManyDescriptors`] above [`FDS_MAX`];
/// [`Error::DescriptorsAlone`] if `bytes` is empty and `fds` is not; [`Error::System`] otherwise. After the last one
/// a part may have been sent, and the connection is of no more use.
///
/// ```
/// use std::os::{fd::AsFd, unix::net::UnixStream};
/// use plasmon_shm::{receive, send};
///
/// let (here, there) = UnixStream::pair()?;
/// assert_eq!(send(&here, b"hello", &[here.as_fd()])?, 5);
/// let mut buffer = [0; 64];
/// let (len, fds) = receive(&there, &mut buffer)?;
/// assert_eq!((&buffer[..len], fds.len()), (&b"hello"[..], 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Error> {
    if fds.len() > FDS_MAX {
        return Err(Error::TooManyDescriptors { count: fds.len() });
    }
    if bytes.is_empty() {
        return if fds.is_empty() { Ok(0) } else { Err(Error::DescriptorsAlone { count: fds.len() }) };
    }
    let socket = socket.as_fd().as_raw_fd();
    let mut raw_fds = [-1; FDS_MAX];
    for (raw, fd) in raw_fds.iter_mut().zip(fds) {
        *raw = fd.as_raw_fd();
    }
    let rights = [ControlMessage::ScmRights(&raw_fds[..fds.len()])];
    let mut sent = 0;
    while sent < bytes.len() {
        let control = if sent == 0 && !fds.is_empty() { &rights[..] } else { &[] };
        match sendmsg::<()>(socket, &[IoSlice::new(&bytes[sent..])], control, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(count) => sent += count,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if sent == 0 => return Err(Error::WouldBlock),
            Err(Errno::EAGAIN) => break,
            Err(errno) => {
                let asked =
                    || format!("{} bytes and {} descriptors, {sent} bytes sent", bytes.len(), fds.len());
                return Err(refused("sendmsg", asked)(errno));
            }
        }
    }
    Ok(sent)
}

/// Receives into `buffer` once; returns how many bytes came, and the descriptors that came with them.
///
/// No byte means that the other end closed the connection (or that `buffer` is empty). The descriptors are
/// close-on-exec from the start.
///
/// # Errors
/// [`Error::WouldBlock`] if nothing has come yet. [`Error::TooManyDescriptors`] and [`Error::DescriptorsLost`] close
/// every descriptor that came, and the bytes are gone: end the connection. [`Error::System`] otherwise.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Error> {
    let socket = socket.as_fd().as_raw_fd();
    let mut control = Control([0; CONTROL_BYTES]);
    let asked = buffer.len();
    let (len, flags) = loop {
        match recvmsg::<()>(
            socket,
            &mut [IoSliceMut::new(buffer)],
            Some(&mut control.0),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Ok(message) => break (message.bytes, message.flags),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Err(Error::WouldBlock),
            Err(errno) => return Err(refused("recvmsg", || format!("up to {asked} bytes"))(errno)),
        }
    };
    let fds = control.into_descriptors();
    if flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(Error::DescriptorsLost);
    }
    if fds.len() > FDS_MAX {
        return Err(Error::TooManyDescriptors { count: fds.len() });
    }
    Ok((len, fds))
}

/// Receives into `buffer` once, without waiting, and wants no descriptors; returns how many bytes came.
///
/// Descriptors that came with the bytes are closed. A descriptor's last close may wait, as that of a TCP socket does that
/// is told to linger; one that a peer sends here holds up nobody by that.
///
/// No byte means that the other end closed the connection (or that `buffer` is empty).
///
/// # Errors
/// [`Error::WouldBlock`] if nothing has come yet; [`Error::System`] otherwise.
///
/// ```
/// use std::os::{fd::AsFd, unix::net::UnixStream};
/// use plasmon_shm::{receive_bytes, send};
///
/// let (here, there) = UnixStream::pair()?;
/// send(&here, b"hello", &[here.as_fd()])?;
/// assert_eq!(receive_bytes(&there, &mut [0; 64])?, 5);
/// assert!(receive_bytes(&there, &mut [0; 64]).is_err_and(|error| error.is_would_block()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn receive_bytes(socket: impl AsFd, buffer: &mut [u8]) -> Result<usize, Error> {
    let socket = socket.as_fd().as_raw_fd();
    let mut control = Control([0; CONTROL_BYTES]);
    let asked = buffer.len();
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let received = loop {
        match recvmsg::<()>(socket, &mut [IoSliceMut::new(buffer)], Some(&mut control.0), flags) {
            Ok(message) => break message.bytes,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Err(Error::WouldBlock),
            Err(errno) => return Err(refused("recvmsg", || format!("up to {asked} bytes"))(errno)),
        }
    };
    if control.is_empty() {
        return Ok(received);
    }
    for fd in control.into_descriptors() {
        // Refused by what is no socket, which does not linger.
        let _ = setsockopt(&fd, sockopt::Linger, &libc::linger { l_onoff: 0, l_linger: 0 });
    }
    Ok(received)
}

/// Reads what nobody wants any more of a connection that is about to be closed, so that closing it does not wait for
/// descriptors that came with that: they are closed as [`receive_bytes`] closes them.
///
/// Takes the longer, the more there are: their number is bounded by what the kernel lets a user have on their way
/// (`RLIMIT_NOFILE`), and by the length of the connection's queue.
pub fn discard_unread(socket: impl AsFd) {
    let _ = shutdown(socket.as_fd().as_raw_fd(), Shutdown::Read); // nothing more comes
    let mut buffer = [0; 4_096];
    while receive_bytes(&socket, &mut buffer).is_ok_and(|len| len > 0) {}
}

/// The process at the other end of a connection, as it was when the connection was made.
#[derive(Debug)]
pub struct Peer {
    /// Its pid as this process sees it; 0 if this process cannot see it (another pid namespace).
    pub pid: i32,
    /// Its effective uid as this process sees it; the overflow uid if it has none here.
    pub uid: u32,
    /// Its effective gid as this process sees it.
    pub gid: u32,
    /// A descriptor that becomes readable when the process ends. `None` where the kernel or a sandbox gives none.
    ///
    /// Where the kernel is older than 6.5 it is opened by pid, and would be of another process if the peer ended, and
    /// its number was given out again, between the connection and this call.
    pub pidfd: Option<OwnedFd>,
}

/// Who is at the other end of `socket`.
///
/// # Errors
/// [`Error::PeerEnded`] if the process is gone; [`Error::System`] if `socket` is no connected Unix socket.
///
/// ```
/// use plasmon_shm::{Kernel, peer};
///
/// let (here, _there) = std::os::unix::net::UnixStream::pair()?;
/// let myself = peer(&here, &Kernel::detect())?;
/// assert_eq!(u32::try_from(myself.pid)?, std::process::id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn peer(socket: impl AsFd, kernel: &Kernel) -> Result<Peer, Error> {
    let socket = socket.as_fd();
    let credentials = getsockopt(&socket, sockopt::PeerCredentials)
        .map_err(refused("getsockopt(SO_PEERCRED)", || "credentials of the peer".to_owned()))?;
    let pid = credentials.pid();
    let opened = if kernel.peer_pidfd {
        getsockopt(&socket, sockopt::PeerPidfd)
    } else if kernel.pidfd_open && pid > 0 {
        open_pidfd(pid)
    } else {
        Err(Errno::ENOSYS)
    };
    let pidfd = match opened {
        Ok(pidfd) => Some(pidfd),
        // SO_PEERPIDFD of a process that was already reaped has answered with each of these.
        Err(Errno::ESRCH | Errno::ENODATA) => return Err(Error::PeerEnded { pid }),
        Err(_) => None,
    };
    Ok(Peer { pid, uid: credentials.uid(), gid: credentials.gid(), pidfd })
}

/// Room for every descriptor that Linux lets one message carry (SCM_MAX_FD), so that a peer cannot have some lost.
const CONTROL_BYTES: usize = CONTROL_HEADER_BYTES + align_control(253 * size_of::<RawFd>());

/// A `cmsghdr` as 64-bit Linux writes it: length with the header (8 bytes), level (4), type (4).
const CONTROL_HEADER_BYTES: usize = 16;

const _: () = assert!(size_of::<libc::cmsghdr>() == CONTROL_HEADER_BYTES);

const fn align_control(len: usize) -> usize {
    len.next_multiple_of(size_of::<usize>())
}

/// What the kernel writes beside a message. Starts as zeros, which read as "no message".
///
/// nix's iterator is not used: it refuses a truncated message, and with it hides descriptors that did come.
#[repr(align(8))]
struct Control([u8; CONTROL_BYTES]);

impl Control {
    /// Whether nothing but bytes came.
    fn is_empty(&self) -> bool {
        self.0.starts_with(&[0; size_of::<usize>()]) // the length of the first message
    }

    /// The descriptors, owned. `self` must hold what `recvmsg` wrote, once.
    fn into_descriptors(self) -> Vec<OwnedFd> {
        let mut fds = Vec::new();
        let mut rest = &self.0[..];
        while let Some((header, after)) = rest.split_first_chunk::<CONTROL_HEADER_BYTES>() {
            let [l0, l1, l2, l3, l4, l5, l6, l7, v0, v1, v2, v3, t0, t1, t2, t3] = *header;
            let len = native_usize([l0, l1, l2, l3, l4, l5, l6, l7]);
            if len < CONTROL_HEADER_BYTES {
                break;
            }
            let data_len = (len - CONTROL_HEADER_BYTES).min(after.len());
            let kind = (native_i32([v0, v1, v2, v3]), native_i32([t0, t1, t2, t3]));
            if kind == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let (numbers, _) = after[..data_len].as_chunks::<{ size_of::<RawFd>() }>();
                fds.extend(numbers.iter().map(|number| {
                    // SAFETY: `from_raw_fd` asks for an open descriptor that nothing else owns. The kernel made it
                    // for this message, each number stands in it once, and `self` is consumed, so it is taken once.
                    unsafe { OwnedFd::from_raw_fd(native_i32(*number)) }
                }));
            }
            rest = after.get(align_control(data_len)..).unwrap_or_default();
        }
        fds
    }
}

#[expect(clippy::host_endian_bytes, reason = "the kernel writes control messages in the machine's own order")]
fn native_usize(bytes: [u8; 8]) -> usize {
    usize::from_ne_bytes(bytes)
}

#[expect(clippy::host_endian_bytes, reason = "the kernel writes control messages in the machine's own order")]
fn native_i32(bytes: [u8; 4]) -> i32 {
    i32::from_ne_bytes(bytes)
}

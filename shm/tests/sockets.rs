//! Descriptors through sockets, and who is at their other end.
//!
//! Tests named `child_…` are run by others, in a process of their own.

use std::env;
use std::io::{IoSlice, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};

use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{Gid, Uid};
use plasmon_shm::{Error, FDS_MAX, Kernel, kill_process, peer, receive, send};

/// Fails if somebody still has a copy of the writer, which the caller has dropped: a leaked descriptor.
fn assert_no_copy_is_left(mut reader: PipeReader) {
    let mut ready = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut ready, PollTimeout::ZERO), Ok(1), "a copy of the descriptor is still open");
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

/// Sends more than `send` would, as a hostile peer may.
fn send_raw(socket: &UnixStream, fds: &[BorrowedFd<'_>]) {
    let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None).unwrap();
}

fn writers(writer: &PipeWriter, count: usize) -> Vec<BorrowedFd<'_>> {
    vec![writer.as_fd(); count]
}

#[test]
fn descriptors_cross_and_are_closed_on_exec() {
    let (here, there) = UnixStream::pair().unwrap();
    let (mut reader, writer) = pipe().unwrap();
    assert_eq!(send(&here, b"take these", &writers(&writer, FDS_MAX)).unwrap(), 10);
    drop(writer);
    let mut buffer = [0; 64];
    let (len, fds) = receive(&there, &mut buffer).unwrap();
    assert_eq!((&buffer[..len], fds.len()), (&b"take these"[..], FDS_MAX));
    for fd in &fds {
        assert_eq!(fcntl(fd, FcntlArg::F_GETFD), Ok(libc::FD_CLOEXEC));
    }
    PipeWriter::from(fds.into_iter().next().unwrap()).write_all(b"it works").unwrap();
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(said, "it works");
}

#[test]
fn descriptors_come_with_the_first_byte_however_little_is_received() {
    let (here, there) = UnixStream::pair().unwrap();
    let (_reader, writer) = pipe().unwrap();
    send(&here, b"abc", &[writer.as_fd()]).unwrap();
    let mut buffer = [0; 1];
    assert!(matches!(receive(&there, &mut buffer), Ok((1, fds)) if fds.len() == 1));
    assert!(matches!(receive(&there, &mut buffer), Ok((1, fds)) if fds.is_empty()));
}

#[test]
fn too_many_descriptors_are_an_error_for_the_receiver_and_all_are_closed() {
    for count in [FDS_MAX + 1, 100, 253] {
        let (here, there) = UnixStream::pair().unwrap();
        let (reader, writer) = pipe().unwrap();
        send_raw(&here, &writers(&writer, count));
        drop(writer);
        let refusal = receive(&there, &mut [0; 8]).unwrap_err();
        assert!(matches!(refusal, Error::TooManyDescriptors { count: found } if found == count), "{refusal}");
        assert_no_copy_is_left(reader);
    }
}

#[test]
fn too_many_descriptors_and_lonely_ones_are_not_sent() {
    let (here, there) = UnixStream::pair().unwrap();
    let (_reader, writer) = pipe().unwrap();
    let refusal = send(&here, b"x", &writers(&writer, FDS_MAX + 1)).unwrap_err();
    assert!(matches!(refusal, Error::TooManyDescriptors { count } if count == FDS_MAX + 1));
    assert!(matches!(send(&here, b"", &[writer.as_fd()]), Err(Error::DescriptorsAlone { count: 1 })));
    assert_eq!(send(&here, b"", &[]).unwrap(), 0);
    there.set_nonblocking(true).unwrap();
    assert!(matches!(receive(&there, &mut [0; 8]), Err(Error::WouldBlock)));
}

/// At the limit the kernel delivers some descriptors and drops the others: exactly when a leak would hurt most.
#[test]
fn descriptors_lost_at_the_limit_of_a_process_are_an_error_and_none_leaks() {
    let limited =
        "ulimit -n 40 && PLASMON_TEST_CHILD=1 exec \"$0\" --exact child_receives_at_its_limit --ignored";
    let status = Command::new("sh").arg("-c").arg(limited).arg(env::current_exe().unwrap()).status().unwrap();
    assert!(status.success());
}

#[test]
#[ignore = "run by descriptors_lost_at_the_limit_of_a_process_are_an_error_and_none_leaks"]
fn child_receives_at_its_limit() {
    if env::var_os("PLASMON_TEST_CHILD").is_none() {
        return;
    }
    let (here, there) = UnixStream::pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    send(&here, b"x", &writers(&writer, FDS_MAX)).unwrap();
    let mut hoard: Vec<OwnedFd> = Vec::new();
    while let Ok(fd) = writer.as_fd().try_clone_to_owned() {
        hoard.push(fd);
    }
    hoard.truncate(hoard.len() - 3);
    let refusal = receive(&there, &mut [0; 8]).unwrap_err();
    assert!(matches!(refusal, Error::DescriptorsLost), "{refusal}");
    drop((hoard, writer));
    assert_no_copy_is_left(reader);
}

#[test]
fn a_full_socket_takes_a_part_and_then_nothing() {
    let (here, mut there) = UnixStream::pair().unwrap();
    here.set_nonblocking(true).unwrap();
    let message: Vec<u8> = (0..=u8::MAX).cycle().take(8 << 20).collect();
    let sent = send(&here, &message, &[here.as_fd()]).unwrap();
    assert!(0 < sent && sent < message.len());
    let refusal = send(&here, &message[sent..], &[]).unwrap_err();
    assert!(refusal.is_would_block() && !refusal.is_disconnected());
    drop(here);

    let mut received = vec![0; sent];
    let (first, fds) = receive(&there, &mut received).unwrap();
    assert_eq!(fds.len(), 1);
    there.read_exact(&mut received[first..]).unwrap();
    assert_eq!(received, message[..sent]);
    drop(fds);
    assert!(matches!(receive(&there, &mut [0; 8]), Ok((0, fds)) if fds.is_empty()));
}

#[test]
fn a_blocking_socket_takes_everything() {
    let (here, mut there) = UnixStream::pair().unwrap();
    let message = vec![7; 4 << 20];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut received = vec![0; message.len()];
            there.read_exact(&mut received).unwrap();
            assert_eq!(received, message);
        });
        assert_eq!(send(&here, &message, &[]).unwrap(), message.len());
    });
}

#[test]
fn a_gone_peer_is_an_error_and_no_signal() {
    let (here, there) = UnixStream::pair().unwrap();
    drop(there);
    let refusal = send(&here, b"anybody?", &[]).unwrap_err();
    assert!(refusal.is_disconnected() && !refusal.is_would_block(), "{refusal}");
    assert!(matches!(receive(&here, &mut [0; 8]), Ok((0, _))));
}

/// A child process that is connected until the stream is closed.
fn connected_child() -> (Child, UnixStream) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "child_connects", "--ignored"])
        .env("PLASMON_TEST_SOCKET", &path)
        .spawn()
        .unwrap();
    (child, listener.accept().unwrap().0)
}

#[test]
#[ignore = "run by the tests of peers"]
fn child_connects() {
    let Some(path) = env::var_os("PLASMON_TEST_SOCKET") else { return };
    let mut stream = UnixStream::connect(path).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_peer_is_known_by_its_ids_and_its_end_is_seen() {
    for missing in ["", "peer_pidfd"] {
        let kernel = Kernel::detect().pretend_missing(missing).unwrap();
        let (mut child, stream) = connected_child();
        let peer = peer(&stream, &kernel).unwrap();
        assert_eq!(u32::try_from(peer.pid).unwrap(), child.id());
        assert_eq!((peer.uid, peer.gid), (Uid::effective().as_raw(), Gid::effective().as_raw()));

        let pidfd = peer.pidfd.expect("this kernel has one of the two ways");
        assert_eq!(fcntl(&pidfd, FcntlArg::F_GETFD), Ok(libc::FD_CLOEXEC));
        let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut ended, PollTimeout::ZERO), Ok(0), "it lives");
        drop(stream);
        assert_eq!(
            poll(&mut ended, PollTimeout::from(10_000_u16)),
            Ok(1),
            "its end is seen: missing {missing:?}"
        );
        child.wait().unwrap();
    }
}

#[test]
fn a_process_is_killed_by_its_pidfd_and_no_other_in_its_place() {
    let (mut child, stream) = connected_child();
    let pidfd = peer(&stream, &Kernel::detect()).unwrap().pidfd.expect("this kernel has one of the two ways");
    assert!(kill_process(&pidfd).unwrap());
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    assert!(!kill_process(&pidfd).unwrap(), "it has ended");
    let refusal = kill_process(&stream).unwrap_err();
    assert_eq!(refusal.errno(), Some(libc::EBADF), "{refusal}");
}

#[test]
fn a_peer_without_any_pidfd_is_known_by_its_ids() {
    let kernel = Kernel::detect().pretend_missing("peer_pidfd,pidfd_open").unwrap();
    let (here, _there) = UnixStream::pair().unwrap();
    let peer = peer(&here, &kernel).unwrap();
    assert_eq!(u32::try_from(peer.pid).unwrap(), std::process::id());
    assert!(peer.pidfd.is_none());
}

#[test]
fn a_peer_that_has_ended_is_not_mistaken_for_another_process() {
    let kernel = Kernel::detect();
    let (mut child, stream) = connected_child();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    child.wait().unwrap();
    let refusal = peer(&stream, &kernel.pretend_missing("peer_pidfd").unwrap()).unwrap_err();
    assert!(matches!(refusal, Error::PeerEnded { .. }) && refusal.is_disconnected(), "{refusal}");
    // Newer kernels still give a descriptor of it, which says at once that it has ended.
    match peer(&stream, &kernel).map(|peer| peer.pidfd) {
        Err(Error::PeerEnded { .. }) | Ok(None) => {}
        Ok(Some(pidfd)) => {
            let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut ended, PollTimeout::ZERO), Ok(1));
        }
        Err(other) => panic!("{other}"),
    }
}

//! Descriptors that are kept for long, which somebody else in the process may close.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::stat::fstat;

use crate::error::{Error, refused};

/// A descriptor that knows what it is of.
///
/// Programs that become daemons close every number up to some limit, and the next file that they open gets such a
/// number. A library that then writes to *its* socket writes into that file, and closes it in the end. So the number is
/// compared with what it was of, before it is used ([`get`](Self::get)) and before it is closed, which is left out if it
/// is not that any more. One system call of some hundred nanoseconds; another thread that closes numbers in that very
/// moment is not noticed.
///
/// # Examples
/// ```
/// use plasmon_shm::KeptFd;
///
/// let (ours, _theirs) = std::os::unix::net::UnixStream::pair()?;
/// let kept = KeptFd::new(ours.into())?;
/// assert!(kept.get().is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct KeptFd {
    /// Taken out when it is dropped.
    fd: Option<OwnedFd>,
    of: FileId,
}

/// Which file, socket or memory a descriptor is of, whoever opened it and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// What `fd` is of, and its length in bytes.
    pub(crate) fn of(fd: impl AsFd) -> Result<(FileId, u64), Error> {
        let status = fstat(fd).map_err(refused("fstat", || "what a descriptor is of".to_owned()))?;
        let id = FileId { device: status.st_dev, inode: status.st_ino };
        Ok((id, u64::try_from(status.st_size).unwrap_or(0)))
    }
}

impl KeptFd {
    /// Keeps a descriptor.
    ///
    /// # Errors
    /// [`Error::System`] if the kernel does not say what it is of. It is closed then.
    pub fn new(fd: OwnedFd) -> Result<KeptFd, Error> {
        let (of, _) = FileId::of(&fd)?;
        Ok(KeptFd { fd: Some(fd), of })
    }

    /// The descriptor, after a look whether it is still of what it was of.
    ///
    /// # Errors
    /// [`Error::Taken`] if it is not.
    pub fn get(&self) -> Result<BorrowedFd<'_>, Error> {
        let fd = self.unchecked();
        match FileId::of(fd) {
            Ok((found, _)) if found == self.of => Ok(fd),
            _ => Err(Error::Taken { number: fd.as_raw_fd() }),
        }
    }

    /// The descriptor without that look, for who has just made it.
    #[must_use]
    pub fn unchecked(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("it is there until it is dropped").as_fd()
    }

    pub(crate) fn of_what(&self) -> FileId {
        self.of
    }
}

impl Drop for KeptFd {
    fn drop(&mut self) {
        let is_ours = self.get().is_ok();
        if let Some(fd) = self.fd.take()
            && !is_ours
        {
            std::mem::forget(fd); // the number is somebody else's by now, or nobody's
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use nix::unistd::dup2_raw;

    use super::*;

    /// As when a program has closed all numbers, and opened a file of its own.
    #[test]
    fn a_number_that_is_another_file_now_is_neither_used_nor_closed() {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let number = ours.as_raw_fd();
        let kept = KeptFd::new(ours.into()).unwrap();
        let (mut theirs, other) = UnixStream::pair().unwrap();
        // The number is `other`'s from now on, and stays open in its name.
        std::mem::forget(take_number(&other, number));
        drop(other);
        assert!(matches!(kept.get(), Err(Error::Taken { number: found }) if found == number));
        drop(kept);
        assert_eq!(peer.read(&mut [0]).unwrap(), 0); // what we had is closed: its last number was taken
        theirs.write_all(b"x").unwrap(); // what they have is not
    }

    fn take_number(of: &UnixStream, number: i32) -> OwnedFd {
        // SAFETY: `dup2_raw` asks that nobody uses `number` as what it was of: that it is used is what is tested.
        unsafe { dup2_raw(of, number) }.unwrap()
    }
}

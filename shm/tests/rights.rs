//! What the holder of each descriptor can and cannot do: DESIGN.md section 3, the table of regions.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, SealFlag, fallocate, fcntl, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fstat};
use nix::sys::uio::pwrite;
use nix::unistd::{Uid, ftruncate};
use plasmon_protocol::sync::Words;
use plasmon_shm::{Backend, ClientRegion, Error, Kernel, Region, Seals};

const LEN_BYTES: u64 = 64 << 10;

fn region() -> Region {
    Region::create("plasmon-rights", LEN_BYTES, Backend::Memfd, &Kernel::detect()).unwrap()
}

fn errno(error: &Error) -> Errno {
    Errno::from_raw(error.errno().unwrap_or_else(|| panic!("not from the kernel: {error}")))
}

fn reopen(fd: impl AsFd, access: OFlag) -> Result<OwnedFd, Errno> {
    open(
        format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).as_str(),
        access | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

fn punch(fd: impl AsFd) -> Result<(), Errno> {
    fallocate(fd, FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, 4096)
}

#[test]
fn a_read_only_opening_maps_for_reading_only() {
    let region = region();
    let opening = region.open_read_only().unwrap();
    region.seal(Seals::ShrinkGrow).unwrap();
    let client = ClientRegion::from_fd(opening, LEN_BYTES).unwrap();
    assert_eq!(errno(&client.map_words().unwrap_err()), Errno::EACCES);
    assert_eq!(errno(&client.map_lease(0, 4096, false).unwrap_err()), Errno::EACCES);
    client.map_words_read_only().unwrap();
    client.map_bytes_read_only().unwrap();
}

#[test]
fn a_read_only_opening_cannot_write_truncate_or_punch() {
    let region = region();
    let opening = region.open_read_only().unwrap();
    assert_eq!(pwrite(&opening, b"x", 0), Err(Errno::EBADF));
    assert_eq!(ftruncate(&opening, 0), Err(Errno::EINVAL));
    assert_eq!(punch(&opening), Err(Errno::EBADF));
    let seals = FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE);
    assert_eq!(fcntl(&opening, seals), Err(Errno::EPERM));
}

/// Also for the same uid and for root: this is what keeps clients from writing the index.
#[test]
fn an_index_reopened_through_proc_still_cannot_be_written() {
    let region = region();
    let words = region.map_words().unwrap();
    let opening = region.open_read_only().unwrap();
    region.seal(Seals::ShrinkGrowFutureWriteSeal).unwrap();
    let Ok(writable) = reopen(&opening, OFlag::O_RDWR) else { return }; // not root, and refused earlier: as good
    assert_eq!(pwrite(&writable, b"x", 0), Err(Errno::EPERM));
    assert_eq!(punch(&writable), Err(Errno::EPERM));
    assert_eq!(ftruncate(&writable, 0), Err(Errno::EPERM));
    let client = ClientRegion::from_fd(writable, LEN_BYTES).unwrap();
    assert_eq!(errno(&client.map_words().unwrap_err()), Errno::EPERM);
    assert_eq!(words.words()[0].load(Relaxed), 0);
}

#[test]
fn an_index_sealed_against_writing_keeps_its_first_mapping_writable() {
    let region = region();
    let words = region.map_words().unwrap();
    region.seal(Seals::ShrinkGrowFutureWriteSeal).unwrap();
    assert_eq!(errno(&region.map_words().unwrap_err()), Errno::EPERM);
    assert_eq!(errno(&region.write_at(0, b"x").unwrap_err()), Errno::EPERM);

    let client = ClientRegion::from_fd(region.open_read_only().unwrap(), LEN_BYTES).unwrap();
    let reader = client.map_words_read_only().unwrap();
    words.words()[3].store(0xFEED, Relaxed);
    assert_eq!(reader.load(3, Relaxed), 0xFEED);
}

#[test]
fn without_the_future_write_seal_the_length_is_sealed_all_the_same() {
    let kernel = Kernel::detect().pretend_missing("future_write_seal").unwrap();
    let region = Region::create("plasmon-rights", LEN_BYTES, Backend::Memfd, &kernel).unwrap();
    region.seal(Seals::ShrinkGrowFutureWriteSeal).unwrap();
    assert_eq!(ftruncate(region.open_read_write().unwrap(), 0), Err(Errno::EPERM));
    let client = ClientRegion::from_fd(region.open_read_only().unwrap(), LEN_BYTES).unwrap();
    assert_eq!(errno(&client.map_words().unwrap_err()), Errno::EACCES);
}

#[test]
fn sealed_length_holds_against_a_writer_and_no_seal_can_be_added() {
    let region = region();
    region.seal(Seals::ShrinkGrow).unwrap();
    let writable = region.open_read_write().unwrap();
    assert_eq!(ftruncate(&writable, 4096), Err(Errno::EPERM));
    assert_eq!(ftruncate(&writable, 1 << 20), Err(Errno::EPERM));
    let stop_the_daemon = FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_FUTURE_WRITE);
    assert_eq!(fcntl(&writable, stop_the_daemon), Err(Errno::EPERM));
    assert_eq!(errno(&region.seal(Seals::ShrinkGrow).unwrap_err()), Errno::EPERM);
    region.write_at(0, b"still writable").unwrap();
}

#[test]
fn openings_do_not_share_their_flags_with_the_daemon() {
    let region = region();
    let opening = region.open_read_write().unwrap();
    fcntl(&opening, FcntlArg::F_SETFL(OFlag::O_APPEND)).unwrap();
    region.seal(Seals::ShrinkGrow).unwrap();
    region.write_at(0, b"a duplicate would be refused").unwrap();
}

#[test]
fn openings_are_closed_on_exec() {
    let region = region();
    for opening in [region.open_read_only().unwrap(), region.open_read_write().unwrap()] {
        assert_eq!(fcntl(&opening, FcntlArg::F_GETFD), Ok(libc::FD_CLOEXEC));
    }
}

/// The kernel offers modes 0777 and 0666; with either, any reader could reopen the memory for writing.
#[test]
fn only_the_owner_has_rights_with_and_without_the_noexec_seal() {
    let kernel = Kernel::detect();
    for kernel in [kernel, kernel.pretend_missing("noexec_seal").unwrap()] {
        let region = Region::create("plasmon-rights", LEN_BYTES, Backend::Memfd, &kernel).unwrap();
        let opening = region.open_read_only().unwrap();
        assert_eq!(fstat(&opening).unwrap().st_mode & 0o777, 0o600);
        region.restrict_mode().unwrap();
        assert_eq!(fstat(&opening).unwrap().st_mode & 0o777, 0o400);
    }
}

/// Another uid if the tests run as root, whom modes do not stop; else the same.
#[test]
fn a_restricted_region_cannot_be_reopened_for_writing_by_who_reads_it() {
    let region = region();
    region.write_at(0, b"arena").unwrap();
    let opening = region.open_read_only().unwrap();
    region.restrict_mode().unwrap();
    let as_reader = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).stderr(Stdio::null()).stdout(Stdio::null());
        shell.stdin(Stdio::from(opening.try_clone().unwrap()));
        if Uid::effective().is_root() {
            shell.uid(65534).gid(65534);
        }
        shell.status().unwrap().success()
    };
    assert!(as_reader("test \"$(head -c 5)\" = arena"), "the control: the descriptor itself can be read");
    assert!(!as_reader(": <> /proc/self/fd/0"));
}

#[test]
fn memory_that_could_be_truncated_is_refused() {
    let unsealed = region().open_read_only().unwrap();
    assert!(matches!(ClientRegion::from_fd(unsealed, LEN_BYTES), Err(Error::NotSealed)));
    let file = File::open("/proc/self/exe").unwrap();
    let len_bytes = file.metadata().unwrap().len();
    assert!(matches!(ClientRegion::from_fd(file.into(), len_bytes), Err(Error::NotSealed)));
}

/// Huge-page memfds can be sealed, but touching them is SIGBUS where no huge pages are reserved.
#[test]
fn memory_of_reserved_huge_pages_is_refused() {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_HUGETLB;
    let Ok(fd) = memfd_create("plasmon-hostile", flags) else { return }; // a kernel without them
    ftruncate(&fd, 2 << 20).unwrap();
    fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
    assert!(matches!(ClientRegion::from_fd(fd, 2 << 20), Err(Error::NotSealed)));
}

#[test]
fn a_region_of_another_length_is_refused_and_both_lengths_are_named() {
    let region = region();
    region.seal(Seals::ShrinkGrow).unwrap();
    let refusal = ClientRegion::from_fd(region.open_read_only().unwrap(), LEN_BYTES + 8).unwrap_err();
    assert!(
        matches!(refusal, Error::LengthMismatch { expected_bytes, found_bytes }
            if expected_bytes == LEN_BYTES + 8 && found_bytes == LEN_BYTES),
        "{refusal}"
    );
}

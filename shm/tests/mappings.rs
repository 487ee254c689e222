//! What mappings show, where they lie, and what becomes of them at seal and at fork.

use std::fs;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::thread;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use plasmon_protocol::sync::Words;
use plasmon_shm::{
    Backend, BytesMapping, ClientRegion, CopyOnWriteMapping, Error, Kernel, LEN_BYTES_MAX, Region,
    STEP_BYTES, Seals, page_bytes,
};

/// An arena, and the two ways in which a writing client has it.
fn arena(len_bytes: u64) -> (Region, ClientRegion, ClientRegion) {
    arena_labelled("plasmon-mappings", len_bytes)
}

fn arena_labelled(label: &str, len_bytes: u64) -> (Region, ClientRegion, ClientRegion) {
    let region = Region::create(label, len_bytes, Backend::Memfd, &Kernel::detect()).unwrap();
    region.seal(Seals::ShrinkGrow).unwrap();
    let writer = ClientRegion::from_fd(region.open_read_write().unwrap(), len_bytes).unwrap();
    let reader = ClientRegion::from_fd(region.open_read_only().unwrap(), len_bytes).unwrap();
    (region, writer, reader)
}

fn copy_of(mapping: &BytesMapping, offset: u64, len: usize) -> Vec<u8> {
    let start = mapping.pointer(offset, len as u64).expect("inside the region");
    // SAFETY: the pointer is good for `len` bytes while `mapping` lives, and no test writes while it reads.
    unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }.to_vec()
}

/// The line of `/proc/self/maps` for the mapping that begins at `start`.
fn maps_line(start: NonNull<u8>) -> Option<String> {
    let address = format!("{:x}-", start.addr());
    fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .find(|line| line.starts_with(&address))
        .map(str::to_owned)
}

/// The kernel's flags of the mapping that begins at `start`: `dd` is "not dumped", `dc` is "not copied by fork".
fn kernel_flags(start: NonNull<u8>) -> Vec<String> {
    let address = format!("{:x}-", start.addr());
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let flags = smaps
        .lines()
        .skip_while(|line| !line.starts_with(&address))
        .find_map(|line| line.strip_prefix("VmFlags:"))
        .expect("mapped, by a kernel that tells flags");
    flags.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn words_written_by_the_daemon_are_read_by_a_client() {
    let (region, _, reader) = arena(4096);
    let (words, read_only) = (region.map_words().unwrap(), reader.map_words_read_only().unwrap());
    assert_eq!((words.words().len(), read_only.count()), (512, 512));
    for (index, word) in words.words().iter().enumerate() {
        word.store(index as u64 * 3, Relaxed);
    }
    for index in 0..512 {
        let value = index as u64 * 3;
        assert_eq!((read_only.load(index, Relaxed), read_only.load(index, Acquire)), (value, value));
    }
}

#[test]
#[should_panic(expected = "index out of bounds")]
fn a_word_behind_the_last_cannot_be_loaded() {
    let (_region, _, reader) = arena(4096);
    let _ = reader.map_words_read_only().unwrap().load(512, Relaxed);
}

/// std promises only relaxed loads from read-only memory; `Acquire` is made of one.
#[test]
#[should_panic(expected = "Relaxed or Acquire")]
fn a_read_only_word_is_not_loaded_in_sequential_consistency() {
    let (_region, _, reader) = arena(4096);
    let _ = reader.map_words_read_only().unwrap().load(0, SeqCst);
}

#[test]
fn a_region_that_is_not_in_words_is_not_mapped_as_words() {
    let (region, writer, reader) = arena(4099);
    assert!(matches!(region.map_words(), Err(Error::Unaligned { found: 4099, alignment: 8, .. })));
    assert!(matches!(writer.map_words(), Err(Error::Unaligned { .. })));
    assert!(matches!(reader.map_words_read_only(), Err(Error::Unaligned { .. })));
    assert_eq!(reader.map_bytes_read_only().unwrap().len_bytes(), 4099);
}

#[test]
fn mappings_outlive_the_region_and_its_descriptors() {
    let (region, writer, reader) = arena(4096);
    let (words, bytes) = (writer.map_words().unwrap(), reader.map_bytes_read_only().unwrap());
    drop((region, writer, reader));
    words.words()[0].store(u64::MAX, Relaxed);
    assert_eq!(copy_of(&bytes, 0, 9), [255, 255, 255, 255, 255, 255, 255, 255, 0]);
}

#[test]
fn a_pointer_exists_only_for_bytes_inside_the_region() {
    let (_region, _, reader) = arena(10_000);
    let bytes = reader.map_bytes_read_only().unwrap();
    let start = bytes.pointer(0, 10_000).unwrap();
    assert_eq!(bytes.pointer(9_999, 1).unwrap().addr().get() - start.addr().get(), 9_999);
    assert!(bytes.pointer(10_000, 0).is_some());
    for (offset, len_bytes) in [(0, 10_001), (10_000, 1), (10_001, 0), (u64::MAX, 1), (1, u64::MAX)] {
        assert_eq!(bytes.pointer(offset, len_bytes), None, "{len_bytes} at {offset}");
    }
}

/// Design review 33: at another address the same write takes three times as long.
#[test]
fn mappings_are_congruent_to_their_offsets_modulo_a_huge_page() {
    let (_region, writer, reader) = arena(4 * STEP_BYTES);
    let whole = reader.map_bytes_read_only().unwrap().pointer(0, 1).unwrap();
    assert_eq!(whole.addr().get() as u64 % STEP_BYTES, 0);
    for offset in [0, 4096, STEP_BYTES - 4096, STEP_BYTES, 2 * STEP_BYTES + 40_960] {
        let lease = writer.map_lease(offset, 8192, false).unwrap();
        assert_eq!(lease.as_ptr().addr().get() as u64 % STEP_BYTES, offset % STEP_BYTES, "offset {offset}");
        assert_eq!((lease.offset(), lease.len_bytes()), (offset, 8192));
    }
}

#[test]
fn what_is_written_into_a_lease_is_seen_by_a_reader() {
    for populate in [false, true] {
        let (region, writer, reader) = arena(2 * STEP_BYTES);
        let bytes = reader.map_bytes_read_only().unwrap();
        let mut lease = writer.map_lease(STEP_BYTES - 4096, 12_288, populate).unwrap();
        lease.bytes_mut().fill(0xA5);
        assert_eq!(copy_of(&bytes, STEP_BYTES - 4096, 12_288), [0xA5; 12_288]);
        assert_eq!(copy_of(&bytes, STEP_BYTES - 4097, 1), [0], "populate: {populate}");
        let mut end = [0; 2];
        region.read_at(STEP_BYTES + 8191, &mut end).unwrap();
        assert_eq!(end, [0xA5, 0]);
    }
}

#[test]
fn populating_a_lease_keeps_the_bytes_that_are_there() {
    let (region, writer, _) = arena(STEP_BYTES);
    region.write_at(8000, b"already here").unwrap();
    let mut lease = writer.map_lease(4096, 8192, true).unwrap();
    assert_eq!(&lease.bytes_mut()[8000 - 4096..][..12], b"already here");
}

#[test]
fn a_lease_is_whole_pages_unless_the_region_ends_in_one() {
    let page = page_bytes();
    let (_region, writer, _) = arena(3 * page + 8);
    assert!(matches!(writer.map_lease(64, page, false), Err(Error::Unaligned { found: 64, .. })));
    assert!(matches!(writer.map_lease(0, page + 64, false), Err(Error::Unaligned { .. })));
    assert!(matches!(writer.map_lease(3 * page, page, false), Err(Error::OutOfBounds { .. })));
    assert!(matches!(writer.map_lease(page, 0, false), Err(Error::OutOfBounds { .. })));
    assert!(matches!(writer.map_lease(u64::MAX - page + 1, page, false), Err(Error::OutOfBounds { .. })));
    let mut last = writer.map_lease(3 * page, 8, true).unwrap();
    assert_eq!(last.bytes_mut(), [0; 8]);
}

#[test]
fn no_byte_is_in_two_leases_at_once() {
    let (_region, writer, _) = arena(STEP_BYTES);
    let first = writer.map_lease(8192, 8192, false).unwrap();
    assert!(matches!(
        writer.map_lease(12_288, 8192, false),
        Err(Error::LeaseOverlap { offset: 12_288, len_bytes: 8192 })
    ));
    writer.map_lease(16_384, 4096, false).unwrap();
    drop(first);
    writer.map_lease(12_288, 8192, false).unwrap();
}

/// Design review 15: arrays exported before the seal must stay readable after it.
#[test]
fn sealing_in_place_makes_the_same_address_read_only_with_the_same_bytes() {
    let (_region, writer, reader) = arena_labelled("plasmon-sealed", 2 * STEP_BYTES);
    let mut lease = writer.map_lease(STEP_BYTES, 8192, true).unwrap();
    lease.bytes_mut().fill(0x5A);
    let exported = lease.as_ptr();
    assert!(maps_line(exported).unwrap().contains(" rw-s "));

    let sealed = lease.seal_in_place(&reader).unwrap();
    assert_eq!((sealed.as_ptr(), sealed.offset(), sealed.len_bytes()), (exported, STEP_BYTES, 8192));
    let line = maps_line(exported).unwrap();
    assert!(line.contains(" r--s ") && line.contains("/memfd:plasmon-sealed"), "{line}");
    // SAFETY: no other test has this region, and this one writes it no more.
    assert_eq!(unsafe { sealed.as_slice() }, [0x5A; 8192]);

    // SAFETY: making these pages writable would change nothing by itself; it is refused, which is the test.
    let upgraded = unsafe { mprotect(exported.cast(), 8192, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE) };
    assert_eq!(upgraded, Err(Errno::EACCES));
    drop(sealed);
    assert!(!fs::read_to_string("/proc/self/maps").unwrap().contains("plasmon-sealed"), "it is unmapped");
}

#[test]
fn a_sealed_range_can_be_leased_again() {
    let (_region, writer, reader) = arena(STEP_BYTES);
    let sealed = writer.map_lease(0, 4096, false).unwrap().seal_in_place(&reader).unwrap();
    let mut again = writer.map_lease(0, 4096, false).unwrap();
    again.bytes_mut()[0] = 9;
    // SAFETY: the byte is not written while the slice lives.
    assert_eq!(unsafe { sealed.as_slice() }[0], 9);
}

/// An exported view may exist, so a refused seal leaves the mapping where it is.
#[test]
fn a_lease_is_not_sealed_with_other_memory_and_stays_mapped() {
    let (_region, writer, _) = arena(STEP_BYTES);
    let (_other_region, _, other) = arena(STEP_BYTES);
    let lease = writer.map_lease(0, 4096, true).unwrap();
    let exported = lease.as_ptr();
    assert!(matches!(lease.seal_in_place(&other), Err(Error::OtherRegion)));
    assert!(maps_line(exported).unwrap().contains(" rw-s "));
}

/// Design review 27 and 3.
#[test]
fn nothing_is_dumped_and_only_leases_are_kept_from_children() {
    let (region, writer, reader) = arena(STEP_BYTES);
    let flags_of = |start, kept_from_children| {
        let flags = kernel_flags(start);
        assert!(flags.iter().any(|flag| flag == "dd"), "{flags:?}");
        assert_eq!(flags.iter().any(|flag| flag == "dc"), kept_from_children, "{flags:?}");
    };
    let words = region.map_words().unwrap();
    flags_of(NonNull::from(&words.words()[0]).cast(), false);
    let bytes = reader.map_bytes_read_only().unwrap();
    flags_of(bytes.pointer(0, 1).unwrap(), false);
    let lease = writer.map_lease(0, 4096, true).unwrap();
    flags_of(lease.as_ptr(), true);
    let sealed = lease.seal_in_place(&reader).unwrap();
    flags_of(sealed.as_ptr(), false);
    let own = reader.map_copy_on_write(0, 4096).unwrap();
    flags_of(own.as_ptr(), false);
}

/// Pages beside the range, other mappings and the region itself see nothing of what is written.
#[test]
fn what_is_written_into_a_copy_on_write_mapping_stays_there() {
    let (region, writer, reader) = arena(2 * STEP_BYTES);
    let (offset, len) = (STEP_BYTES - 6000, 12_000_usize);
    region.write_at(offset, &[7; 12_000]).unwrap();
    let bytes = reader.map_bytes_read_only().unwrap();
    for region_of_client in [&reader, &writer] {
        let mut own = region_of_client.map_copy_on_write(offset, 12_000).unwrap();
        let beside = region_of_client.map_copy_on_write(offset, 12_000).unwrap();
        let place = |own: &CopyOnWriteMapping, modulus| own.as_ptr().addr().get() as u64 % modulus;
        // Too short for a huge page, it lies anywhere.
        assert_eq!((own.len_bytes(), place(&own, page_bytes())), (12_000, offset % page_bytes()));
        let long = region_of_client.map_copy_on_write(6000, STEP_BYTES).unwrap();
        assert_eq!((long.len_bytes(), place(&long, STEP_BYTES)), (STEP_BYTES, 6000));
        // SAFETY: nobody writes the region now, and pointers are not read or written through.
        let written = unsafe { own.as_mut_slice() };
        written[1..].fill(9);
        assert_eq!(written, [&[7][..], &[9; 11_999]].concat());
        // SAFETY: as above.
        assert_eq!(unsafe { beside.as_slice() }, [7; 12_000]);
        assert_eq!(copy_of(&bytes, offset, len), [7; 12_000]);
        let mut found = [0; 12_000];
        region.read_at(offset, &mut found).unwrap();
        assert_eq!(found, [7; 12_000]);
    }
}

#[test]
fn a_copy_on_write_mapping_shows_the_region_until_it_is_written_and_outlives_it() {
    let (region, _, reader) = arena_labelled("plasmon-own", STEP_BYTES);
    let mut own = reader.map_copy_on_write(64, 128).unwrap();
    assert!(
        fs::read_to_string("/proc/self/maps")
            .unwrap()
            .lines()
            .any(|line| { line.contains(" rw-p ") && line.contains("/memfd:plasmon-own") })
    );
    region.write_at(64, &[3; 128]).unwrap();
    drop((region, reader));
    // SAFETY: the region has gone, and pointers are not read or written through.
    assert_eq!(unsafe { own.as_slice() }, [3; 128]);
    // SAFETY: as above.
    unsafe { own.as_mut_slice() }.fill(4);
    // SAFETY: as above.
    assert_eq!(unsafe { own.as_slice() }, [4; 128]);
    drop(own);
    assert!(!fs::read_to_string("/proc/self/maps").unwrap().contains("plasmon-own"), "it is unmapped");
}

#[test]
fn a_copy_on_write_mapping_lies_inside_the_region() {
    let (_region, _, reader) = arena(10_000);
    for (offset, len_bytes) in [(0, 10_001), (10_000, 1), (9_999, 2), (0, 0), (u64::MAX, 1), (1, u64::MAX)] {
        let refused = reader.map_copy_on_write(offset, len_bytes);
        assert!(matches!(refused, Err(Error::OutOfBounds { .. })), "{len_bytes} at {offset}: {refused:?}");
    }
    assert_eq!(reader.map_copy_on_write(9_999, 1).unwrap().len_bytes(), 1);
}

/// Some programs close every descriptor they have, and open others: the bytes of such a file are not the region's.
#[test]
fn a_descriptor_that_has_become_another_files_is_not_mapped() {
    let (_region, _, reader) = arena(STEP_BYTES);
    let (_other_region, _, other) = arena(STEP_BYTES);
    let number = reader.fd().unwrap().as_raw_fd();
    // SAFETY: `dup2` puts another file in the place of one that nobody but `reader` uses; that is what is tried.
    let replaced = unsafe { libc::dup2(other.fd().unwrap().as_raw_fd(), number) };
    assert_eq!(replaced, number);
    assert!(matches!(reader.map_copy_on_write(0, 4096), Err(Error::Taken { .. })));
}

#[test]
fn a_forked_child_inherits_what_was_written_and_shares_no_later_write() {
    let (region, _, reader) = arena(STEP_BYTES);
    let mut own = reader.map_copy_on_write(0, 8192).unwrap();
    // SAFETY: nobody writes the region, and pointers are not read or written through.
    let bytes = unsafe { own.as_mut_slice() };
    bytes[0] = 1;
    // SAFETY: the child reads and writes its own memory and exits; it allocates nothing and takes no lock.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let inherited = bytes[0] == 1 && bytes[4096] == 0;
            bytes.fill(2);
            // SAFETY: `_exit` ends the process, running nothing of the parent's.
            unsafe { libc::_exit(i32::from(!inherited)) }
        }
        ForkResult::Parent { child } => assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0))),
    }
    assert_eq!((bytes[0], bytes[4096]), (1, 0));
    let mut found = [9; 8192];
    region.read_at(0, &mut found).unwrap();
    assert_eq!(found, [0; 8192]);
}

/// In a child a lease's addresses are free, and soon hold something else, which dropping the lease must not unmap.
#[test]
fn a_forked_child_neither_has_a_lease_nor_unmaps_its_address() {
    let (_region, writer, _) = arena(STEP_BYTES);
    let lease = writer.map_lease(0, 4096, true).unwrap();
    let place = lease.as_ptr();
    // SAFETY: the child makes system calls, drops the lease (which only asks for its pid) and exits; it allocates
    // nothing and takes no lock.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE;
            let (page, rights) =
                (4096.try_into().expect("not zero"), ProtFlags::PROT_READ | ProtFlags::PROT_WRITE);
            // SAFETY: `MAP_FIXED_NOREPLACE` changes nothing that exists.
            let taken = unsafe { mmap_anonymous(Some(place.addr()), page, rights, flags) };
            let survived = taken.is_ok_and(|other| {
                let other = other.cast::<u8>();
                // SAFETY: the page was mapped for writing by the line above.
                unsafe { other.write_volatile(7) };
                drop(lease);
                // SAFETY: as above; had the page been unmapped, the child would end by SIGSEGV, and the test fail.
                unsafe { other.read_volatile() == 7 }
            });
            // SAFETY: `_exit` ends the process, running nothing of the parent's.
            unsafe { libc::_exit(i32::from(!survived)) }
        }
        ForkResult::Parent { child } => assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0))),
    }
    assert!(maps_line(place).is_some(), "the parent still has it");
}

/// Each mapping looks for a free place and then takes it; another thread may be quicker.
#[test]
fn threads_that_map_at_once_do_not_get_in_each_others_way() {
    let (_region, writer, _) = arena(8 * STEP_BYTES);
    thread::scope(|scope| {
        for step in 0..8 {
            let writer = &writer;
            scope.spawn(move || {
                for round in 0..200_u8 {
                    let mut lease = writer.map_lease(step * STEP_BYTES, 8192, false).unwrap();
                    assert!(round == 0 || lease.bytes_mut()[4096] == round - 1);
                    lease.bytes_mut()[4096] = round;
                }
            });
        }
    });
}

#[test]
fn regions_have_a_length_that_can_be_mapped() {
    let kernel = Kernel::detect();
    for asked in [0, LEN_BYTES_MAX + 1, u64::MAX] {
        let refusal = Region::create("plasmon", asked, Backend::Memfd, &kernel).unwrap_err();
        assert!(matches!(refusal, Error::RegionLength { asked_bytes } if asked_bytes == asked), "{refusal}");
    }
}

#[test]
fn labels_are_short_and_plain() {
    let kernel = Kernel::detect();
    for label in ["", "a/b", "../up", ".hidden", "a b", "é", "nul\0", "twenty-two-characters."] {
        for backend in [Backend::Memfd, Backend::Named] {
            let refusal = Region::create(label, 4096, backend, &kernel).unwrap_err();
            assert!(matches!(refusal, Error::Label { .. }), "{label:?}: {refusal}");
        }
    }
}

#[test]
fn bytes_are_written_and_read_inside_the_region_only() {
    let (region, ..) = arena(10_000);
    region.write_at(9_990, b"0123456789").unwrap();
    let mut end = [0; 10];
    region.read_at(9_990, &mut end).unwrap();
    assert_eq!(&end, b"0123456789");
    region.write_at(10_000, b"").unwrap();
    for offset in [9_991, 10_001, u64::MAX] {
        assert!(matches!(region.write_at(offset, &end), Err(Error::OutOfBounds { .. })));
        assert!(matches!(region.read_at(offset, &mut end), Err(Error::OutOfBounds { .. })));
    }
    assert_eq!(&end, b"0123456789");
}

#[test]
fn punching_frees_whole_pages_and_keeps_the_bytes_around_them() {
    let page = page_bytes();
    let len = usize::try_from(4 * page + 100).unwrap();
    let (region, _, reader) = arena(len as u64);
    let bytes = reader.map_bytes_read_only().unwrap();
    let expect = |zeros: &[std::ops::Range<u64>], why: &str| {
        let found = copy_of(&bytes, 0, len);
        let wrong = (0..len as u64).zip(&found).find(|(offset, byte)| {
            **byte != if zeros.iter().any(|range| range.contains(offset)) { 0 } else { 1 }
        });
        assert_eq!(wrong, None, "{why}");
    };
    region.write_at(0, &vec![1; len]).unwrap();
    region.punch_hole(1, page - 1).unwrap();
    region.punch_hole(64, page).unwrap();
    region.punch_hole(page, 0).unwrap();
    expect(&[], "no whole page was inside");
    region.punch_hole(1, 2 * page).unwrap();
    expect(std::slice::from_ref(&(page..2 * page)), "one page was");
    region.punch_hole(3 * page + 1, page + 99).unwrap();
    expect(&[page..2 * page, 4 * page..4 * page + 100], "the last page is whole, though cut off");
    assert!(matches!(region.punch_hole(page, len as u64), Err(Error::OutOfBounds { .. })));
}

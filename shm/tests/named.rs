//! The named backend: DESIGN.md section 3 says what it promises and what it cannot.
//!
//! Tests named `child_…` are run by others, in a process of their own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::{env, fs, mem};

use plasmon_protocol::sync::Words;
use plasmon_shm::{
    Backend, ClientRegion, Error, Kernel, Populated, Region, STEP_BYTES, Seals, named_room_bytes, page_bytes,
    remove_named,
};

fn region(len_bytes: u64) -> Region {
    Region::create("plasmon-named", len_bytes, Backend::Named, &Kernel::detect()).unwrap()
}

fn path_of(region: &Region) -> PathBuf {
    Path::new("/dev/shm").join(region.name().unwrap().strip_prefix('/').unwrap())
}

#[test]
fn a_named_region_is_written_by_one_and_read_by_another() {
    let len_bytes = 2 * STEP_BYTES;
    let region = region(len_bytes);
    region.seal(Seals::ShrinkGrow).unwrap();
    region.restrict_mode().unwrap();
    assert_eq!((region.backend(), region.len_bytes()), (Backend::Named, len_bytes));
    let name = region.name().unwrap();
    let reader = ClientRegion::from_name(name, len_bytes, false).unwrap();
    let writer = ClientRegion::from_name(name, len_bytes, true).unwrap();

    region.write_at(0, &7_u64.to_le_bytes()).unwrap();
    assert_eq!(reader.map_words_read_only().unwrap().load(0, Relaxed), 7);
    writer.map_words().unwrap().words()[0].store(8, Relaxed);
    assert_eq!(region.map_words().unwrap().words()[0].load(Relaxed), 8);

    let mut lease = writer.map_lease(STEP_BYTES, 4096, true).unwrap();
    lease.bytes_mut().fill(9);
    let sealed = lease.seal_in_place(&reader).unwrap();
    // SAFETY: nobody writes the region any more.
    assert_eq!(unsafe { sealed.as_slice() }, [9; 4096]);
    let mut read = [0; 2];
    region.read_at(STEP_BYTES + 4095, &mut read).unwrap();
    assert_eq!(read, [9, 0]);
    region.punch_hole(STEP_BYTES, 4096).unwrap();
    region.read_at(STEP_BYTES, &mut read).unwrap();
    assert_eq!(read, [0, 0]);
}

#[test]
fn a_named_region_opened_for_reading_is_not_mapped_for_writing() {
    let region = region(4096);
    let reader = ClientRegion::from_name(region.name().unwrap(), 4096, false).unwrap();
    assert_eq!(reader.map_words().unwrap_err().errno(), Some(libc::EACCES));
    assert_eq!(reader.map_lease(0, 4096, false).unwrap_err().errno(), Some(libc::EACCES));
}

#[test]
fn a_named_region_is_populated_like_any_other() {
    let region = region(STEP_BYTES);
    assert_eq!(region.populate_step(0, STEP_BYTES, true).unwrap(), Populated::SmallPages);
    match region.populate_step(0, STEP_BYTES, false) {
        Ok(_) | Err(Error::CollapseFailed { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn nothing_is_left_in_dev_shm_and_mappings_live_on() {
    let region = region(8192);
    let path = path_of(&region);
    assert!(fs::metadata(&path).is_ok_and(|found| found.len() == 8192));
    let words = region.map_words().unwrap();
    drop(region);
    assert!(!path.exists());
    words.words()[1023].store(5, Relaxed);
    assert_eq!(words.words()[1023].load(Relaxed), 5);
}

#[test]
fn what_a_killed_process_left_can_be_removed_by_its_name() {
    let region = region(4096);
    let (path, name) = (path_of(&region), region.name().unwrap().to_owned());
    mem::forget(region); // as SIGKILL would
    assert!(path.exists());
    assert!(remove_named(&name).unwrap());
    assert!(!path.exists());
    assert!(!remove_named(&name).unwrap());
}

#[test]
fn names_cannot_leave_dev_shm() {
    for name in
        ["", "/", "plain", "/..", "/../etc/passwd", "/a/b", "/.hidden", "/thirty-one-characters-are-too-l"]
    {
        assert!(matches!(remove_named(name), Err(Error::RegionName { .. })), "{name:?}");
        assert!(matches!(ClientRegion::from_name(name, 1, false), Err(Error::RegionName { .. })), "{name:?}");
    }
}

#[test]
fn a_named_region_has_no_descriptors_to_pass() {
    let region = region(4096);
    assert!(matches!(region.open_read_only(), Err(Error::NotMemfd { .. })));
    assert!(matches!(region.open_read_write(), Err(Error::NotMemfd { .. })));
}

#[test]
fn a_named_region_of_another_length_is_refused() {
    let region = region(4096);
    assert!(matches!(
        ClientRegion::from_name(region.name().unwrap(), 8192, false),
        Err(Error::LengthMismatch { expected_bytes: 8192, found_bytes: 4096 })
    ));
}

#[test]
fn backends_are_called_what_the_option_calls_them() {
    for backend in [Backend::Memfd, Backend::Named] {
        assert_eq!(backend.to_string().parse::<Backend>().unwrap(), backend);
    }
    assert!(matches!("shm".parse::<Backend>(), Err(Error::UnknownBackend { given }) if given == "shm"));
}

#[test]
fn more_than_dev_shm_holds_is_an_error_that_names_both_numbers() {
    let asked = 32 << 40;
    let refusal = Region::create("plasmon-named", asked, Backend::Named, &Kernel::detect()).unwrap_err();
    let message = refusal.to_string();
    assert!(
        matches!(refusal, Error::NoRoom { requested_bytes, .. } if requested_bytes == asked),
        "{message}"
    );
    assert!(message.contains(&asked.to_string()) && message.contains("free in /dev/shm"), "{message}");
}

/// Docker's default, made small: what fits is used to the last byte, and what does not is no SIGBUS.
#[test]
fn a_small_dev_shm_is_an_error_and_no_signal() {
    let unshare = ["--user", "--map-root-user", "--mount"];
    if !Command::new("unshare").args(unshare).arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user may not make namespaces");
        return;
    }
    let script = "mount -t tmpfs -o size=1m tmpfs /dev/shm && \
                  PLASMON_TEST_CHILD=1 exec \"$0\" --exact child_fills_a_small_dev_shm --ignored";
    let mut command = Command::new("unshare");
    command.args(unshare).args(["sh", "-c", script]).arg(env::current_exe().unwrap());
    assert!(command.status().unwrap().success());
}

#[test]
#[ignore = "run by a_small_dev_shm_is_an_error_and_no_signal"]
fn child_fills_a_small_dev_shm() {
    if env::var_os("PLASMON_TEST_CHILD").is_none() {
        return;
    }
    assert!(named_room_bytes().unwrap() <= 1 << 20);
    let refusal = Region::create("plasmon-named", 2 << 20, Backend::Named, &Kernel::detect()).unwrap_err();
    assert!(
        matches!(refusal, Error::NoRoom { requested_bytes: 0x20_0000, available_bytes: 0x10_0000 }),
        "{refusal}"
    );

    // Each fits alone, and not both: nothing is taken before it is used.
    let (first, second) = (region(768 << 10), region(768 << 10));
    first.write_at(0, &vec![1; 768 << 10]).unwrap();
    assert_eq!(second.write_at(0, &vec![1; 768 << 10]).unwrap_err().errno(), Some(libc::ENOSPC));
    let refusal = second.populate_step(0, second.len_bytes(), false).unwrap_err();
    assert!(matches!(refusal, Error::System { .. }), "{refusal}");
    let client = ClientRegion::from_name(second.name().unwrap(), second.len_bytes(), true).unwrap();
    let refusal = client.map_lease(0, second.len_bytes(), true).unwrap_err();
    assert!(matches!(refusal, Error::System { .. }), "{refusal}");

    assert_eq!(second.reserve().unwrap_err().errno(), Some(libc::ENOSPC));

    second.punch_hole(0, second.len_bytes()).unwrap();
    first.punch_hole(0, first.len_bytes()).unwrap();
    assert_eq!(named_room_bytes().unwrap(), (1 << 20) / page_bytes() * page_bytes());
    second.reserve().unwrap();
    assert_eq!(named_room_bytes().unwrap(), (1 << 20) - second.len_bytes());
    second.populate_step(0, second.len_bytes(), false).unwrap();
}

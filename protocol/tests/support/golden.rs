//! Golden files: what is on the wire and in shared memory, committed. A change of version adds files beside the old
//! ones and rewrites none, so the ones there are never overwritten.

use std::{
    env, format, fs,
    path::{Path, PathBuf},
    string::String,
};

/// `golden/v{version}`.
pub(crate) fn folder(version: u64) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/v{version}"))
}

/// Demands that `file` holds `text`.
///
/// A file that is not there fails the test, unless `PLASMON_WRITE_GOLDEN=1` asks for it to be written.
pub(crate) fn assert_golden(file: &Path, text: &str) {
    if !file.exists() && env::var("PLASMON_WRITE_GOLDEN").is_ok_and(|value| value == "1") {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let golden: String = match fs::read_to_string(file) {
        Ok(golden) => golden,
        Err(error) => {
            panic!("{}: {error}; PLASMON_WRITE_GOLDEN=1 writes missing golden files", file.display())
        }
    };
    assert!(
        golden == text,
        "{} differs from what this code makes of it. Released bytes do not change: raise the version instead.\n\
         --- golden\n{golden}--- now\n{text}",
        file.display()
    );
}

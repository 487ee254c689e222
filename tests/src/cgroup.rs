//! A folder that a daemon takes for a cgroup of its own (`--pretend-cgroup`), and that tests can change step by step.

use nix::{sys::stat::Mode, unistd::mkfifo};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// What the daemon leaves free below a limit.
pub const MARGIN_BYTES: u64 = 128 << 20;

/// A folder with a limit, and a usage that stays 0.
#[derive(Debug)]
pub struct PretendCgroup {
    folder: tempfile::TempDir,
}

/// A limit that is answered to one reader only, who waits for it.
#[derive(Debug)]
pub struct NextRead(PathBuf);

impl PretendCgroup {
    /// A cgroup that leaves `left_bytes`.
    ///
    /// # Panics
    /// If the folder cannot be made.
    #[must_use]
    pub fn leaving(left_bytes: u64) -> PretendCgroup {
        let folder = tempfile::tempdir().expect("a temporary directory");
        fs::write(folder.path().join("memory.current"), "0\n").expect("a new file");
        let cgroup = PretendCgroup { folder };
        cgroup.leave(left_bytes);
        cgroup
    }

    /// The folder, for `--pretend-cgroup`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// From now on the limit leaves `left_bytes`.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn leave(&self, left_bytes: u64) {
        let new = self.folder().join("new");
        fs::write(&new, limit_for(left_bytes)).expect("a new file");
        fs::rename(new, self.limit()).expect("its place");
    }

    /// Whoever looks at the limit next, waits.
    ///
    /// # Panics
    /// If it cannot be made so.
    #[must_use]
    pub fn hold_next_read(&self) -> NextRead {
        let held = self.folder().join("held");
        mkfifo(&held, Mode::S_IRUSR | Mode::S_IWUSR).expect("a new pipe");
        fs::rename(held, self.limit()).expect("its place");
        NextRead(self.limit())
    }

    fn limit(&self) -> PathBuf {
        self.folder().join("memory.max")
    }
}

impl NextRead {
    /// Waits for the reader, does `meanwhile` (which must put something else in this limit's place), and answers that
    /// `left_bytes` are left.
    ///
    /// # Panics
    /// If the limit cannot be written.
    pub fn answer<T>(self, left_bytes: u64, meanwhile: impl FnOnce() -> T) -> T {
        let mut pipe = fs::OpenOptions::new().write(true).open(self.0).expect("a reader comes");
        let result = meanwhile();
        pipe.write_all(limit_for(left_bytes).as_bytes()).expect("the reader is there");
        result
    }
}

fn limit_for(left_bytes: u64) -> String {
    // The margin is a twentieth of what is left where that is more.
    let limit =
        if left_bytes < 19 * MARGIN_BYTES { left_bytes + MARGIN_BYTES } else { left_bytes / 19 * 20 + 20 };
    format!("{limit}\n")
}

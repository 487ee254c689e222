//! Programs whose clock is set while they run: what CLOCK_REALTIME shows them is as far off as a file says.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What takes the place of the C library's `clock_gettime` in such a program.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *off_s;

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("CLOCK_OFF_BY"), O_RDONLY | O_CLOEXEC);
    void *page = mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
    if (file < 0 || page == MAP_FAILED) abort();
    off_s = page;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && off_s && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *off_s;
    return failed;
}
"#;

/// A clock that tests set.
#[derive(Debug)]
pub struct Clock {
    directory: tempfile::TempDir,
    shim: PathBuf,
}

impl Clock {
    /// One that shows the time. Needs the C compiler that Rust links with.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn new() -> Clock {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (source, shim) = (directory.path().join("clock.c"), directory.path().join("clock.so"));
        fs::write(&source, SHIM).expect("a file");
        let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&shim).arg(&source).status();
        assert!(compiled.is_ok_and(|status| status.success()), "cc cannot compile {}", source.display());
        let clock = Clock { directory, shim };
        clock.set(0);
        clock
    }

    /// Steps it: from now on it is `off_s` seconds ahead of the time.
    ///
    /// # Panics
    /// If that cannot be written.
    pub fn set(&self, off_s: i64) {
        // In place: whoever goes by it has the file mapped.
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(self.file());
        let written =
            file.and_then(|file| std::os::unix::fs::FileExt::write_all_at(&file, &off_s.to_le_bytes(), 0));
        written.expect("the file can be written");
    }

    /// Arguments of `env` that make what is run behind them go by this clock.
    #[must_use]
    pub fn variables(&self) -> [String; 2] {
        [format!("LD_PRELOAD={}", self.shim.display()), format!("CLOCK_OFF_BY={}", self.file().display())]
    }

    fn file(&self) -> PathBuf {
        Path::join(self.directory.path(), "off")
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

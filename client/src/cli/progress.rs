//! A progress bar on standard error, for what takes long while somebody is looking.

use indicatif::{ProgressBar, ProgressStyle};
use std::{
    cell::RefCell,
    io::{self, IsTerminal, Read, Seek, SeekFrom, Write},
    time::{Duration, Instant},
};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Rows,
}

/// How far something has got. Shows nothing unless standard error is a terminal, and nothing of what is done at once.
pub(super) struct Progress {
    state: Option<RefCell<State>>,
}

struct State {
    doing: String,
    unit: Unit,
    total: Option<u64>,
    done: u64,
    began: Instant,
    bar: Option<ProgressBar>,
}

const QUIET: Duration = Duration::from_millis(500);

impl Progress {
    /// `total` is `None` where nobody knows it.
    pub(super) fn new(doing: impl Into<String>, unit: Unit, total: Option<u64>) -> Progress {
        let state = || State { doing: doing.into(), unit, total, done: 0, began: Instant::now(), bar: None };
        Progress { state: io::stderr().is_terminal().then(state).map(RefCell::new) }
    }

    pub(super) fn add(&self, more: u64) {
        let Some(state) = &self.state else { return };
        let mut state = state.borrow_mut();
        state.done += more;
        if state.bar.is_none() && state.began.elapsed() >= QUIET {
            state.bar = Some(state.begin());
        }
        if let Some(bar) = &state.bar {
            bar.set_position(state.done);
        }
    }
}

impl State {
    fn begin(&self) -> ProgressBar {
        let template = match (self.unit, self.total) {
            (Unit::Bytes, Some(_)) => "{msg} [{bar:30}] {bytes} of {total_bytes}, {eta} left",
            (Unit::Rows, Some(_)) => "{msg} [{bar:30}] {pos} of {len} rows, {eta} left",
            (Unit::Bytes, None) => "{msg} {spinner} {bytes}",
            (Unit::Rows, None) => "{msg} {spinner} {pos} rows",
        };
        let bar = self.total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("#>."));
        bar.set_message(self.doing.clone());
        bar.with_elapsed(self.began.elapsed())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.state.as_ref().and_then(|state| state.borrow_mut().bar.take()) {
            bar.finish_and_clear();
        }
    }
}

/// A reader or writer whose bytes are counted.
pub(super) struct Counted<'a, T> {
    pub(super) inner: T,
    pub(super) progress: &'a Progress,
}

impl<T: Read> Read for Counted<'_, T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(bytes)?;
        self.progress.add(len as u64);
        Ok(len)
    }
}

impl<T: Write> Write for Counted<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.inner.write(bytes)?;
        self.progress.add(len as u64);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Seek> Seek for Counted<'_, T> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

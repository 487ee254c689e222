//! The log: lines to standard error, which a thread of its own writes.
//!
//! Standard error may be a pipe that nobody reads, or a terminal after Ctrl-S: a write to it then blocks for as long as
//! that lasts. So the loop hands each line to the thread `plasmon-log`, and goes on. A line that finds the queue full is
//! dropped and counted; the thread says how many were, at the place where they are missing.
//!
//! `run` in `lib.rs` starts the log. `refusals.rs` and the loop use [`Throttle`] for lines that come too often.

use std::{
    fmt::Display,
    io::{self, Write},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait for standard error at most.
const LINES_MAX: usize = 1_024;

/// How long the end of the program waits for the last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Where lines go: to standard error at once until the thread is started, and to the thread from then on. Clones are the
/// same log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    queue: OnceLock<Sender<Message>>,
    counts: Arc<Counts>,
}

/// What both sides of the queue count. The counts order nothing else, so that they may be relaxed.
#[derive(Debug, Default)]
struct Counts {
    /// Lines in the queue.
    queued: AtomicUsize,
    /// Lines that found [`LINES_MAX`] in it, and of which nobody was told yet.
    dropped: AtomicU64,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Answered when all lines before it are written.
    Flush(Sender<()>),
}

impl Log {
    /// Starts the thread, which inherits the caller's signal mask: the signals must be taken over before.
    ///
    /// # Errors
    /// The kernel's, if it starts no further thread; lines are then written at once, as before.
    pub(crate) fn start_thread(&self) -> io::Result<()> {
        self.write_on_thread(io::stderr())
    }

    fn write_on_thread(&self, out: impl Write + Send + 'static) -> io::Result<()> {
        let (queue, messages) = channel();
        let counts = Arc::clone(&self.0.counts);
        thread::Builder::new()
            .name("plasmon-log".to_owned())
            .spawn(move || write_all(&messages, &counts, out))?;
        let _ = self.0.queue.set(queue); // it is started once
        Ok(())
    }

    /// Writes a line that is not of a level: what the program ends with.
    pub(crate) fn line(&self, line: &dyn Display) {
        self.write(format!("{line}\n").as_bytes());
    }

    /// Waits until what was logged is written, but no longer than a second: nobody may read it.
    pub(crate) fn finish(&self) {
        let Some(queue) = self.0.queue.get() else { return };
        let (done, is_done) = channel();
        if queue.send(Message::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(LAST_LINES);
        }
    }

    fn write(&self, line: &[u8]) {
        match self.0.queue.get() {
            // What cannot be written, because the disk is full or nobody reads, is no reason to end.
            None => drop(io::stderr().write_all(line)),
            Some(queue) => {
                let Counts { queued, dropped } = &*self.0.counts;
                if queued.fetch_add(1, Ordering::Relaxed) < LINES_MAX {
                    // The thread ends with the process.
                    let _ = queue.send(Message::Line(line.to_vec()));
                } else {
                    queued.fetch_sub(1, Ordering::Relaxed);
                    dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// A line that is being formatted; `tracing_subscriber` writes it in one piece.
impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        Log::write(self, line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        self.clone()
    }
}

/// What the thread does.
fn write_all(messages: &Receiver<Message>, counts: &Counts, mut out: impl Write) {
    for message in messages {
        match message {
            Message::Line(line) => {
                drop(out.write_all(&line));
                counts.queued.fetch_sub(1, Ordering::Relaxed);
            }
            Message::Flush(done) => drop(done.send(())),
        }
        let missing = counts.dropped.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let line = format!(
                "{missing} lines of the log are missing here: they came faster than they were read\n"
            );
            drop(out.write_all(line.as_bytes()));
        }
    }
}

/// Lets one line of a kind pass in a while, so that nobody can fill a disk with it.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    passed: Option<Instant>,
    left_out: u64,
}

/// How often a throttled line is logged at most.
const THROTTLED_EVERY: Duration = Duration::from_secs(1);

impl Throttle {
    /// Whether the line of `now` is to be logged: then how many were left out since the one before.
    pub(crate) fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.passed.is_some_and(|passed| now < passed + THROTTLED_EVERY) {
            self.left_out += 1;
            return None;
        }
        self.passed = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a line whenever the test lets it, and hands it to the test.
    struct Pipe {
        may: Receiver<()>,
        lines: Sender<String>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.may.recv(); // blocks until somebody reads; at the end everything may pass
            let _ = self.lines.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_cannot_be_written_blocks_nobody_and_is_counted() {
        let (read, may) = channel();
        let (lines, written) = channel();
        let log = Log::default();
        log.write_on_thread(Pipe { may, lines }).unwrap();
        let sent = LINES_MAX + 500;
        (0..sent).for_each(|number| log.line(&number));
        drop(read); // now somebody reads all of it
        drop(log);
        let written: Vec<String> = written.iter().collect();
        let missing: Vec<&str> = written
            .iter()
            .filter_map(|line| line.split_once(" lines of the log are missing"))
            .map(|(count, _)| count)
            .collect();
        let count: usize = missing.iter().map(|count| count.parse::<usize>().unwrap()).sum();
        assert_eq!(written.len() - missing.len() + count, sent, "{missing:?}");
        assert_eq!(count, 500);
        assert_eq!(written[0], "0\n");
    }

    #[test]
    fn a_flood_of_one_kind_is_a_line_a_second_that_says_how_many() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let mut pass = |ms| throttle.pass(start + Duration::from_millis(ms));
        assert_eq!(
            [pass(0), pass(1), pass(999), pass(1_000), pass(2_500)],
            [Some(0), None, None, Some(2), Some(0)]
        );
    }
}

//! The daemon in a process of its own.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

/// A running daemon with a socket of its own; stopped when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    socket: PathBuf,
    log: mpsc::Receiver<String>,
    /// Goes with it.
    directory: Option<tempfile::TempDir>,
}

impl Daemon {
    /// Starts `program` with `--size SIZE` and a socket in a directory of its own, and waits for its ready line.
    ///
    /// # Panics
    /// If it does not become ready.
    #[must_use]
    pub fn start(program: &str, size: &str) -> Daemon {
        Daemon::start_with(program, &["--size", size])
    }

    /// Starts `program` with `arguments` and a socket in a directory of its own, and waits for its ready line.
    ///
    /// # Panics
    /// If it does not become ready.
    #[must_use]
    pub fn start_with(program: &str, arguments: &[&str]) -> Daemon {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("store.sock");
        let mut daemon = Daemon::start_at(program, arguments, &socket);
        daemon.directory = Some(directory);
        daemon
    }

    /// As [`start_with`](Self::start_with), with this socket.
    ///
    /// # Panics
    /// If it does not become ready.
    #[must_use]
    pub fn start_at(program: &str, arguments: &[&str], socket: &Path) -> Daemon {
        let (child, log) = launch(program, arguments, socket).unwrap_or_else(|error| panic!("{error}"));
        Daemon { child, socket: socket.to_owned(), log, directory: None }
    }

    /// Kills it with SIGKILL, and waits until it is gone. With `--arena named` its segments stay until a successor
    /// [starts](Self::start_again).
    ///
    /// # Panics
    /// If it cannot be waited for.
    pub fn kill(&mut self) {
        self.child.kill().expect("the daemon is there");
        self.child.wait().expect("the daemon can be waited for");
    }

    /// Starts another one on the path of one that was [killed](Self::kill).
    ///
    /// # Panics
    /// If that one does not become ready.
    pub fn start_again(&mut self, program: &str, arguments: &[&str]) {
        self.try_start_again(program, arguments).unwrap_or_else(|error| panic!("{error}"));
    }

    /// As [`start_again`](Self::start_again), for one that may die or be stopped before it is ready.
    ///
    /// # Errors
    /// That it did, and what it logged.
    pub fn try_start_again(&mut self, program: &str, arguments: &[&str]) -> Result<(), String> {
        (self.child, self.log) = launch(program, arguments, &self.socket)?;
        Ok(())
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is still running.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How it ended, if it has, and what it logged since it was ready and nobody has asked for.
    pub fn last_words(&mut self) -> (Option<ExitStatus>, Vec<String>) {
        (self.child.try_wait().ok().flatten(), self.log.try_iter().collect())
    }

    /// Whether a signal has stopped it.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        is_stopped(self.pid())
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it is gone already.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("pids fit");
        kill(Pid::from_raw(pid), signal).expect("the daemon is there");
    }

    /// Stops it with SIGTERM, and returns how it ended and what it logged since it was ready.
    ///
    /// # Panics
    /// If it cannot be waited for.
    #[must_use]
    pub fn stop(self) -> (ExitStatus, Vec<String>) {
        self.stop_with(Signal::SIGTERM)
    }

    /// As [`stop`](Self::stop), with another signal.
    ///
    /// # Panics
    /// If it cannot be waited for.
    #[must_use]
    pub fn stop_with(mut self, signal: Signal) -> (ExitStatus, Vec<String>) {
        self.signal(signal);
        let status = self.child.wait().expect("the daemon can be waited for");
        (status, self.log.iter().collect())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Asked to stop, it removes its segments from /dev/shm; killed, it could not.
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("pids fit"));
        let patience = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < patience {
            let _ = kill(pid, Signal::SIGTERM);
            let _ = kill(pid, Signal::SIGCONT);
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(
    program: &str,
    arguments: &[&str],
    socket: &Path,
) -> Result<(Child, mpsc::Receiver<String>), String> {
    let mut command = Command::new(program);
    command.args(arguments).arg("--socket").arg(socket).env_remove("PLASMON_SOCKET");
    let mut child = command.stderr(Stdio::piped()).spawn().expect("the daemon starts");
    let stderr = child.stderr.take().expect("its standard error is a pipe");
    let (tell, log) = mpsc::channel();
    // Reads for as long as the daemon writes, so that it never blocks on a full pipe.
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    let (start, mut seen) = (Instant::now(), Vec::new());
    while !seen.last().is_some_and(|line: &String| line.contains("ready:")) {
        match log.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => seen.push(line),
            // It becomes ready when somebody wakes it.
            Err(RecvTimeoutError::Timeout) if is_stopped(child.id()) => break,
            Err(RecvTimeoutError::Timeout) if start.elapsed() < Duration::from_secs(60) => {}
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("the daemon did not become ready ({error}): {seen:?}"));
            }
        }
    }
    Ok((child, log))
}

/// Whether a signal has stopped the process.
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

/// Runs `program` to its end and returns its exit code, standard output and standard error.
///
/// # Panics
/// If it cannot be started.
#[must_use]
pub fn run(program: &str, arguments: &[&str]) -> (i32, String, String) {
    let mut child = Command::new(program)
        .args(arguments)
        .env_remove("PLASMON_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stderr = child.stderr.take().expect("a pipe");
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let mut out = String::new();
    let _ = child.stdout.take().expect("a pipe").read_to_string(&mut out);
    let status = child.wait().expect("the program can be waited for");
    (status.code().unwrap_or(-1), out, errors.join().expect("reading ended"))
}

//! A client in a process of its own, which does what it is told and can be killed.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel},
    time::Duration,
};

/// Longest time that any one command may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A client process; killed when dropped. See [`worker`](crate::worker) for its commands.
#[derive(Debug)]
pub struct Client {
    child: Child,
    commands: ChildStdin,
    answers: Receiver<String>,
}

impl Client {
    /// Starts `program` as a client of the store at `socket`, and waits until it is connected.
    ///
    /// # Panics
    /// If it does not connect.
    #[must_use]
    pub fn start(program: &str, socket: &Path) -> Client {
        let mut client = Client::spawn(Command::new(program), socket);
        client.ask("connect");
        client
    }

    /// Starts `program` as user `uid`, which only root can. It is not connected: `connect` is its first command.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_as(uid: u32, program: &str, socket: &Path) -> Client {
        let mut command = Command::new(program);
        command.uid(uid).gid(uid);
        Client::spawn(command, socket)
    }

    /// Starts a client by `command`, which runs it in some other way. It is not connected.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_by(command: Command, socket: &Path) -> Client {
        Client::spawn(command, socket)
    }

    fn spawn(mut command: Command, socket: &Path) -> Client {
        command.arg("serve").arg(socket).env_remove("PLASMON_SOCKET");
        Client::run(command).expect("the client starts")
    }

    /// Runs `command` as it is: a client that takes commands and answers each, whichever they are.
    ///
    /// # Errors
    /// If it does not start.
    ///
    /// # Panics
    /// If it has no pipes, which it was started with.
    pub fn run(mut command: Command) -> std::io::Result<Client> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let commands = child.stdin.take().expect("a pipe");
        let stdout = child.stdout.take().expect("a pipe");
        let (tell, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        Ok(Client { child, commands, answers })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it do `command`, and returns what it answered.
    ///
    /// # Panics
    /// If it failed, or did not answer.
    pub fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.answer()
    }

    /// As [`ask`](Self::ask), for an answer that is a number.
    ///
    /// # Panics
    /// Also if it is none.
    pub fn ask_for_number(&mut self, command: &str) -> u64 {
        self.ask(command).parse().expect("the answer is a number")
    }

    /// Has it do `command`, which must fail, and returns the error: the variant's name, then its message.
    ///
    /// # Panics
    /// If it did not fail.
    pub fn ask_for_error(&mut self, command: &str) -> String {
        self.tell(command);
        self.failure()
    }

    /// Has it begin `command`; the answer is fetched with [`answer`](Self::answer).
    ///
    /// # Panics
    /// If it is gone.
    pub fn tell(&mut self, command: &str) {
        self.try_tell(command).expect("the client takes commands");
    }

    /// As [`tell`](Self::tell), for a client that may be gone.
    ///
    /// # Errors
    /// If it is.
    pub fn try_tell(&mut self, command: &str) -> std::io::Result<()> {
        writeln!(self.commands, "{command}")
    }

    /// Waits for its next answer.
    ///
    /// # Panics
    /// If it failed, or did not answer.
    pub fn answer(&mut self) -> String {
        let answer = self.next_line();
        answer.strip_prefix("ok ").unwrap_or_else(|| panic!("the client answered: {answer}")).to_owned()
    }

    /// Waits for its next answer, which must be an error: the variant's name, then its message.
    ///
    /// # Panics
    /// If it did not fail.
    pub fn failure(&mut self) -> String {
        let answer = self.next_line();
        answer.strip_prefix("error ").unwrap_or_else(|| panic!("the client answered: {answer}")).to_owned()
    }

    /// Waits for its next answer, whichever it is: what it came to, or the variant's name and its message.
    ///
    /// # Errors
    /// If it failed.
    ///
    /// # Panics
    /// If it did not answer.
    pub fn outcome(&mut self) -> Result<String, String> {
        let answer = self.next_line();
        match answer.strip_prefix("ok ") {
            Some(answer) => Ok(answer.to_owned()),
            None => Err(answer),
        }
    }

    /// Its next answer, if it has one by now.
    ///
    /// # Panics
    /// If it failed, or is gone.
    pub fn answer_by_now(&mut self) -> Option<String> {
        match self.answers.try_recv() {
            Ok(answer) => match answer.strip_prefix("ok ") {
                Some(answer) => Some(answer.to_owned()),
                None => panic!("the client answered: {answer}"),
            },
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => panic!("the client is gone"),
        }
    }

    /// Whether it waits in the system call with this number.
    #[must_use]
    pub fn waits_in(&self, call: i64) -> bool {
        let now = std::fs::read_to_string(format!("/proc/{}/syscall", self.pid())).unwrap_or_default();
        now.split(' ').next() == Some(call.to_string().as_str())
    }

    /// Sends it a signal, and waits for nothing.
    ///
    /// # Panics
    /// If it was gone before.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("pids fit");
        kill(Pid::from_raw(pid), signal).expect("the client is there");
    }

    /// Kills it with SIGKILL, and waits until it is gone.
    ///
    /// # Panics
    /// If it was gone before.
    pub fn kill(mut self) {
        let pid = i32::try_from(self.pid()).expect("pids fit");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the client is there");
        self.child.wait().expect("the client can be waited for");
    }

    /// Waits until it has ended, which somebody else brings about.
    ///
    /// # Panics
    /// If it cannot be waited for.
    pub fn wait_for_end(&mut self) {
        self.child.wait().expect("the client can be waited for");
    }

    /// How it has ended, if it has.
    ///
    /// # Errors
    /// If it cannot be asked for.
    pub fn ended(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its next answer, as it wrote it.
    ///
    /// # Errors
    /// If it is gone, or does not answer.
    pub fn try_next_line(&mut self) -> Result<String, String> {
        self.answers.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("no answer within {PATIENCE:?}"),
            RecvTimeoutError::Disconnected => "the client is gone".to_owned(),
        })
    }

    fn next_line(&mut self) -> String {
        self.try_next_line().unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

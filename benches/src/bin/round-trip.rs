//! The floor under a small learn: a request of 48 bytes and a reply of 64 over a Unix socket, blocking, between two
//! processes, with 5 µs of work at the asking side between. Prints the times of single round trips, in nanoseconds, as a
//! JSON list.

use std::{
    hint::{black_box, spin_loop},
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const TIMES: usize = 20_000;
const WORK: Duration = Duration::from_micros(5);

fn main() -> std::io::Result<()> {
    if std::env::args().nth(1).is_some() {
        return echo();
    }
    let (mut asking, answering) = UnixStream::pair()?;
    let mut other = Command::new(std::env::current_exe()?)
        .arg("echo")
        .stdin(OwnedFd::from(answering.try_clone()?))
        .stdout(OwnedFd::from(answering))
        .stderr(Stdio::inherit())
        .spawn()?;
    let mut reply = [0; 64];
    let mut nanoseconds = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let work = Instant::now();
        while work.elapsed() < WORK {
            spin_loop();
        }
        let start = Instant::now();
        asking.write_all(black_box(&[7; 48]))?;
        asking.read_exact(&mut reply)?;
        nanoseconds.push(start.elapsed().as_nanos().to_string());
    }
    drop(asking);
    other.wait()?;
    writeln!(std::io::stdout(), "[{}]", nanoseconds.join(","))
}

fn echo() -> std::io::Result<()> {
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut request = [0; 48];
    while input.read_exact(&mut request).is_ok() {
        output.write_all(&[8; 64])?;
        output.flush()?;
    }
    Ok(())
}

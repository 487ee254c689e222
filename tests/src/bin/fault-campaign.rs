//! A campaign of faults against a real store with real clients, or several side by side, each with a store of its own.
//! `fault-campaign --seconds N --seed S`; `--attempts N` in place of the time, `--jobs N`, `--point POINT`, `--soak`.
//!
//! Three processes load the store all the time and check every word of what they see (`plasmon_tests::load`). Round for
//! round another process, or the store itself, is struck at one of the [`FaultPoint`]s: killed, or stopped for a while.
//! After each round nobody else may have noticed (if the store was killed: may have noticed more than an error), and what
//! the store has in use must be what it was before.
//!
//! With `--soak` nothing is aimed at: four processes do mixed work for as long as is asked, and now and then one of
//! them is killed wherever it is.
//!
//! Prints a table, and fails if anything was lost.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use nix::{
    sys::{
        signal::{Signal, kill, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use plasmon::{Brain, Stats};
use plasmon_shm::FaultPoint;
use plasmon_tests::{
    client::Client,
    daemon::Daemon,
    load::{CACHE, CHILD_WAS_STRUCK, Done, PAST},
    random::Random,
};
use std::{
    collections::BTreeMap,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// What went wrong, in words.
type Outcome<T = ()> = Result<T, String>;

/// Longest time that anything here may take that does not depend on chance.
const PATIENCE: Duration = Duration::from_secs(60);

const STORE_FLAGS: [&str; 2] = ["--size", "192MiB"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(asked) = Asked::parse(&arguments) else {
        eprintln!("fault-campaign [--soak | --jobs N] [--point POINT] (--seconds N | --attempts N) --seed S");
        return ExitCode::from(2);
    };
    let lost = if asked.soak { soak_for(asked.lasts, asked.seed) } else { campaigns(&asked) };
    match lost {
        0 => ExitCode::SUCCESS,
        lost => {
            eprintln!("fault-campaign: {lost} lost");
            ExitCode::FAILURE
        }
    }
}

/// What the command line asks for.
struct Asked {
    soak: bool,
    jobs: u64,
    lasts: Duration,
    /// Attempts in all, if that is the measure.
    attempts: Option<u64>,
    seed: u64,
    /// Begin with this all points at which it strikes.
    point: String,
}

impl Asked {
    fn parse(arguments: &[String]) -> Option<Asked> {
        let (mut soak, mut jobs, mut seconds, mut attempts, mut seed) = (false, 1, None, None, None);
        let (mut point, mut rest) = (String::new(), arguments.iter());
        while let Some(option) = rest.next() {
            if option == "--soak" {
                soak = true;
                continue;
            }
            if option == "--point" {
                point.clone_from(rest.next()?);
                continue;
            }
            let number: u64 = rest.next()?.parse().ok()?;
            match option.as_str() {
                "--jobs" => jobs = number,
                "--seconds" => seconds = Some(number),
                "--attempts" => attempts = Some(number),
                "--seed" => seed = Some(number),
                _ => return None,
            }
        }
        let lasts = match (seconds, attempts) {
            (Some(seconds), None) => Duration::from_secs(seconds),
            (None, Some(_)) if !soak => Duration::MAX,
            _ => return None,
        };
        let is_some = FaultPoint::ALL.iter().any(|it| it.name().starts_with(&point));
        (jobs > 0 && is_some).then_some(Asked { soak, jobs, lasts, attempts, seed: seed?, point })
    }
}

// The campaign.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Strike {
    Kill,
    Stop,
}

impl Strike {
    const ALL: [Strike; 2] = [Strike::Kill, Strike::Stop];

    fn name(self) -> &'static str {
        match self {
            Strike::Kill => "kill",
            Strike::Stop => "stop",
        }
    }
}

/// What became of the attempts at one step with one strike.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    attempts: u64,
    /// Attempts in which the point was not come to.
    missed: u64,
    survived: u64,
}

impl Row {
    fn add(&mut self, other: Row) {
        self.attempts += other.attempts;
        self.missed += other.missed;
        self.survived += other.survived;
    }
}

/// What campaigns have come to.
#[derive(Default)]
struct Tally {
    rows: BTreeMap<(usize, Strike), Row>,
    /// Times when the store was killed wherever it was.
    kills_anywhere: u64,
    outages: Outages,
    lost: u64,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        for (key, row) in other.rows {
            self.rows.entry(key).or_default().add(row);
        }
        self.kills_anywhere += other.kills_anywhere;
        self.outages.add(other.outages);
        self.lost += other.lost;
    }

    /// Prints it as a table in Markdown.
    fn print(&self) {
        let mut sum = Row::default();
        println!("| step | killed | survived | stopped | survived |");
        println!("| --- | --: | --: | --: | --: |");
        for (index, point) in FaultPoint::ALL.iter().enumerate() {
            let [killed, stopped] = Strike::ALL.map(|strike| self.rows.get(&(index, strike)).copied());
            let (killed, stopped) = (killed.unwrap_or_default(), stopped.unwrap_or_default());
            println!(
                "| `{}` | {} | {} | {} | {} |",
                point.name(),
                killed.attempts,
                killed.survived,
                stopped.attempts,
                stopped.survived
            );
            sum.add(killed);
            sum.add(stopped);
        }
        println!("\n{} attempts, {} survived, {} not come to", sum.attempts, sum.survived, sum.missed);
        println!("beside them the store was killed {} times wherever it was", self.kills_anywhere);
        self.outages.print();
    }

    /// How many steps nobody comes to: they are not tried, and the campaign is to be mended. Some few misses are chance.
    fn not_tried(&self) -> u64 {
        let missed = self.rows.iter().filter(|(_, row)| row.missed * 2 > row.attempts);
        let name = |((index, strike), _): (&(usize, Strike), &Row)| {
            println!("LOST {} {}: nobody comes there", strike.name(), FaultPoint::ALL[*index].name());
        };
        missed.map(name).count() as u64
    }
}

/// As many campaigns as are asked for, side by side. Returns what was lost.
fn campaigns(asked: &Asked) -> u64 {
    let start = Instant::now();
    let begun = AtomicU64::new(0);
    let goes_on = || {
        start.elapsed() < asked.lasts
            && asked.attempts.is_none_or(|attempts| begun.fetch_add(1, Ordering::Relaxed) < attempts)
    };
    let mut seeds = Random::new(asked.seed);
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let jobs: Vec<_> = (0..asked.jobs)
            .map(|_| seeds.word())
            .map(|seed| scope.spawn(move || campaign(goes_on, &asked.point, seed)))
            .collect();
        for job in jobs {
            tally.add(job.join().expect("a campaign does not panic"));
        }
    });
    tally.print();
    println!("seed {}, {} side by side, {} s", asked.seed, asked.jobs, start.elapsed().as_secs());
    tally.lost + tally.not_tried()
}

fn campaign(goes_on: impl Fn() -> bool, only: &str, seed: u64) -> Tally {
    let mut random = Random::new(seed);
    let mut tally = Tally::default();
    let mut world = World::new(&mut random, 3);
    let mut turn: Vec<(usize, Strike)> = Vec::new();
    while goes_on() {
        if turn.is_empty() {
            // Every point once for each strike, in some order, and then again.
            let points = 0..FaultPoint::ALL.len();
            let points = points.filter(|&point| FaultPoint::ALL[point].name().starts_with(only));
            turn = points.flat_map(|point| Strike::ALL.map(|strike| (point, strike))).collect();
            random.shuffle(&mut turn);
        }
        let (index, strike) = turn.pop().expect("it was filled");
        let point = FaultPoint::ALL[index];
        let round = match is_of_store(point) {
            true => {
                tally.kills_anywhere += 1;
                world.strike_store(point, strike, &mut random)
            }
            false => world.strike_client(point, strike, &mut random),
        };
        let settled = round.and_then(|struck| world.settle(&mut tally.outages).map(|()| struck));
        let row = tally.rows.entry((index, strike)).or_default();
        row.attempts += 1;
        match settled {
            Ok(true) => row.survived += 1,
            Ok(false) => row.missed += 1,
            Err(wrong) => {
                tally.lost += 1;
                println!("LOST {} {}: {wrong}", strike.name(), point.name());
                println!("the store: {:?}", world.store.last_words());
                drop(world);
                world = World::new(&mut random, 3);
            }
        }
    }
    tally
}

/// What the loading processes saw when the store was killed.
#[derive(Debug, Default)]
struct Outages {
    count: u64,
    checked: u64,
    slowest_us: u64,
}

impl Outages {
    fn add(&mut self, other: Outages) {
        self.count += other.count;
        self.checked += other.checked;
        self.slowest_us = self.slowest_us.max(other.slowest_us);
    }

    fn print(&self) {
        println!(
            "{} values checked; {} times a store was gone, and the slowest call that failed for it took {} ms",
            self.checked,
            self.count,
            self.slowest_us / 1_000
        );
    }
}

fn is_of_store(point: FaultPoint) -> bool {
    point.name().starts_with("store-")
}

/// The store, and those who load it.
struct World {
    store: Daemon,
    program: String,
    client: PathBuf,
    brain: Brain,
    loads: Vec<Load>,
    /// Descriptors that the store has open when all is quiet.
    descriptors: Option<u64>,
}

impl World {
    fn new(random: &mut Random, loads: usize) -> World {
        let beside = std::env::current_exe().expect("this program is a file");
        let program = beside.with_file_name("store-under-test").display().to_string();
        let client = beside.with_file_name("client-under-test");
        let store = Daemon::start_with(&program, &STORE_FLAGS);
        let brain = Brain::builder().path(store.socket()).connect().expect("the store answers");
        let start = |_| Load::start(&client, store.socket(), random.word()).expect("a client starts");
        let loads = (0..loads).map(start).collect();
        World { store, program, client, brain, loads, descriptors: None }
    }

    /// Has a client struck at `point`. Returns whether it came there.
    fn strike_client(&mut self, point: FaultPoint, strike: Strike, random: &mut Random) -> Outcome<bool> {
        let count = match point {
            // Once in each process. A child counts for itself.
            FaultPoint::RegionAdded | FaultPoint::ForkChild | FaultPoint::ForkMapped => 1,
            FaultPoint::ForkCopied | FaultPoint::ForkFilled => 1,
            // Once in each session.
            FaultPoint::HelloSent | FaultPoint::Welcomed | FaultPoint::Goodbye => 1 + random.below(2),
            // At least once for a name that expires, also where that takes no time.
            FaultPoint::ClockRead => 1 + random.below(2),
            FaultPoint::ForkPrepared | FaultPoint::ForkBegun | FaultPoint::ForkParent => 1 + random.below(2),
            FaultPoint::Reserve | FaultPoint::LeaseGranted | FaultPoint::LeaseClaimed => 1 + random.below(5),
            _ => 1 + random.below(12),
        };
        let fault = format!("{}:{count}:{}", point.name(), strike.name());
        let mut victim = self.victim(point, Some(&fault), 2, random)?;
        let pid = Pid::from_raw(i32::try_from(victim.id()).expect("pids fit"));
        match waitpid(pid, Some(WaitPidFlag::WUNTRACED)).map_err(|error| error.to_string())? {
            WaitStatus::Exited(_, 0) => Ok(false),
            WaitStatus::Exited(_, code) if code == i32::from(CHILD_WAS_STRUCK) => Ok(true),
            WaitStatus::Signaled(_, Signal::SIGKILL, _) => Ok(true),
            WaitStatus::Stopped(..) => {
                self.others_go_on()?;
                let goes_on = random.below(2) == 0;
                let signal = if goes_on { Signal::SIGCONT } else { Signal::SIGKILL };
                kill(pid, signal).map_err(|error| error.to_string())?;
                // A child that it forked may be stopped as well, and nobody else would wake it.
                let _ = killpg(pid, Signal::SIGCONT);
                let ended = victim.wait().map_err(|error| error.to_string())?;
                // A child that it forked may have been struck before.
                if goes_on && ![Some(0), Some(CHILD_WAS_STRUCK.into())].contains(&ended.code()) {
                    return Err(format!("the victim was stopped, went on, and ended with {ended}"));
                }
                Ok(true)
            }
            ended => Err(format!("the victim ended with {ended:?}")),
        }
    }

    /// Removes what victims that died have kept of the past.
    fn forget_the_past(&self) -> plasmon::Result<()> {
        for info in self.brain.namespaces()?.iter().filter(|info| info.namespace.starts_with(PAST)) {
            self.brain.in_namespace(&info.namespace)?.remove_namespace()?;
        }
        Ok(())
    }

    /// Has the store struck at `point`. Returns whether it came there.
    fn strike_store(&mut self, point: FaultPoint, strike: Strike, random: &mut Random) -> Outcome<bool> {
        // This death is at any instant.
        self.store.kill();
        let count = match point {
            FaultPoint::ChildSessionMade => 1,
            // A few for each victim.
            FaultPoint::Orphaned | FaultPoint::SessionEnding | FaultPoint::SessionMade => 1 + random.below(3),
            FaultPoint::Evicting | FaultPoint::Sliding => 1 + random.below(3),
            FaultPoint::Accepted => 1 + random.below(8),
            FaultPoint::Copied => 1 + random.below(10),
            FaultPoint::Populated => 1 + random.below(50),
            _ => 1 + random.below(30),
        };
        let fault = format!("PLASMON_FAULT={}:{count}:{}", point.name(), strike.name());
        let armed = [&[fault.as_str(), &self.program], &STORE_FLAGS[..]].concat();
        let mut struck = self.store.try_start_again("env", &armed).is_err();
        let until = Instant::now() + PATIENCE;
        let mut victim: Option<Child> = None;
        while !struck && Instant::now() < until {
            // There is always somebody who does everything, or dies meanwhile.
            match victim.as_mut().map(|victim| (victim.try_wait(), victim)) {
                Some((Ok(None), victim)) if random.below(200) == 0 => drop(victim.kill()),
                Some((Ok(None), _)) => {}
                Some((Ok(Some(ended)), _)) if !is_well(ended) => {
                    return Err(format!("a client ended with {ended}"));
                }
                _ => victim = Some(self.victim(point, None, 1, random)?),
            }
            struck = match strike {
                Strike::Kill => !self.store.is_alive(),
                Strike::Stop => self.store.is_stopped(),
            };
            std::thread::sleep(Duration::from_millis(1));
        }
        if strike == Strike::Stop && struck {
            std::thread::sleep(Duration::from_millis(random.below(100)));
            self.store.signal(Signal::SIGCONT);
        } else {
            // If it did not come there, it must not do so later.
            self.store.kill();
            let started = self.store.try_start_again(&self.program, &STORE_FLAGS);
            started.map_err(|error| format!("after its death: {error}"))?;
        }
        if let Some(mut victim) = victim {
            let ended = victim.wait().map_err(|error| error.to_string())?;
            if !is_well(ended) {
                return Err(format!("a client ended with {ended}"));
            }
        }
        self.others_go_on()?;
        Ok(struck)
    }

    fn victim(
        &self,
        point: FaultPoint,
        fault: Option<&str>,
        rounds: u64,
        random: &mut Random,
    ) -> Outcome<Child> {
        let mut command = Command::new(&self.client);
        command
            .arg("victim")
            .arg(self.store.socket())
            .arg(random.word().to_string())
            .arg(rounds.to_string())
            .arg(point.name());
        command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        command.env_remove("PLASMON_FAULT").envs(fault.map(|fault| ("PLASMON_FAULT", fault)));
        command.spawn().map_err(|error| format!("no victim: {error}"))
    }

    /// The loading processes do more than they have done.
    fn others_go_on(&mut self) -> Outcome {
        for load in &mut self.loads {
            let before = load.count()?;
            let start = Instant::now();
            while load.count()? < before + 3 {
                if start.elapsed() > PATIENCE {
                    return Err("a client that was not struck does nothing any more".to_owned());
                }
            }
        }
        Ok(())
    }

    /// Everybody rests, all names are forgotten, and then nothing must be left.
    fn settle(&mut self, outages: &mut Outages) -> Outcome {
        for load in &mut self.loads {
            load.tell("pause")?;
        }
        for load in &mut self.loads {
            let done = Done::parse(&load.answer()?);
            outages.count += done.outages;
            outages.checked += done.checked;
            outages.slowest_us = outages.slowest_us.max(done.slowest_failure_us);
        }
        let start = Instant::now();
        loop {
            let cleared = self.brain.clear().and_then(|_| self.brain.in_namespace(CACHE)?.clear());
            self.forget_the_past().map_err(|error| format!("the past: {error}"))?;
            cleared.map_err(|error| format!("clear: {error}"))?;
            let stats = self.brain.stats().map_err(|error| format!("stats: {error}"))?;
            match self.left(&stats) {
                None => {
                    self.descriptors = Some(stats.descriptors);
                    break;
                }
                Some(left) if start.elapsed() > PATIENCE => return Err(left),
                Some(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        for load in &mut self.loads {
            load.tell("go")?;
        }
        self.loads.iter_mut().try_for_each(|load| load.answer().map(drop))
    }

    /// What is left behind, if anything is.
    fn left(&self, stats: &Stats) -> Option<String> {
        let members = self.loads.len() as u64 + 1;
        let descriptors = self.descriptors.unwrap_or(stats.descriptors);
        let checks = [
            ("used bytes", stats.used_bytes, 0),
            ("bytes in limbo", stats.limbo_bytes, 0),
            ("pins", stats.pins, 0),
            ("names", stats.objects, 0),
            ("waits", stats.waits, 0),
            ("views", stats.views, 0),
            ("snapshots", stats.snapshots, 0),
            ("versions of the past", stats.kept, 0),
            ("orphaned sessions", stats.orphaned_sessions, 0),
            ("sessions", stats.sessions, members),
            // A lifeline and a connection for requests each.
            ("connections", stats.connections, 2 * members),
            ("descriptors", stats.descriptors, descriptors),
        ];
        let wrong = checks.into_iter().filter(|(_, found, expected)| found != expected);
        let mut wrong: Vec<String> =
            wrong.map(|(what, found, expected)| format!("{what}: {found}, and not {expected}")).collect();
        // Each who loads may keep one lease, idle.
        if stats.leases > members {
            wrong.push(format!("{} leases", stats.leases));
        }
        (!wrong.is_empty()).then(|| wrong.join("; "))
    }
}

/// Whether a process that was not struck by itself ended as it should: in its own time, or killed from here.
fn is_well(ended: ExitStatus) -> bool {
    ended.success() || ended.signal() == Some(Signal::SIGKILL as i32)
}

/// A process that loads the store.
struct Load(Client);

impl Load {
    fn start(client: &Path, socket: &Path, seed: u64) -> Outcome<Load> {
        let mut command = Command::new(client);
        command.arg("load").arg(socket).arg(seed.to_string()).env_remove("PLASMON_FAULT");
        let mut load = Load(Client::run(command).map_err(|error| format!("no client: {error}"))?);
        load.answer()?;
        Ok(load)
    }

    fn tell(&mut self, command: &str) -> Outcome {
        self.0.try_tell(command).map_err(|error| format!("a client that was not struck: {error}"))
    }

    fn answer(&mut self) -> Outcome<String> {
        let line = self.0.try_next_line();
        let line = line.map_err(|error| format!("a client that was not struck gave no answer: {error}"))?;
        line.strip_prefix("ok ").map(str::to_owned).ok_or(line)
    }

    fn count(&mut self) -> Outcome<u64> {
        self.tell("count")?;
        Ok(self.answer()?.parse().expect("a number"))
    }
}

// The soak.

fn soak_for(lasts: Duration, seed: u64) -> u64 {
    let start = Instant::now();
    let mut random = Random::new(seed);
    let mut world = World::new(&mut random, 4);
    let mut outages = Outages::default();
    let (mut kills, mut settled) = (0_u64, 0_u64);
    let mut rss: Option<(u64, u64, u64)> = None;
    let mut lost = 0;
    while start.elapsed() < lasts {
        let round = (|| {
            for _ in 0..25 {
                std::thread::sleep(Duration::from_millis(random.below(200)));
                let load = usize::try_from(random.below(world.loads.len() as u64)).expect("an index");
                // What it had checked is not told any more; whether it found something wrong, its death tells.
                let status = world.loads[load].0.ended().map_err(|error| error.to_string())?;
                if let Some(status) = status {
                    return Err(format!("a client ended with {status}"));
                }
                world.loads[load] = Load::start(&world.client, world.store.socket(), random.word())?;
                kills += 1;
            }
            world.settle(&mut outages)
        })();
        if let Err(wrong) = round {
            lost += 1;
            println!("LOST after {} s: {wrong}", start.elapsed().as_secs());
            break;
        }
        settled += 1;
        let now = world.brain.stats().map_or(0, |stats| stats.rss_bytes);
        let (first, _, most) = rss.unwrap_or((now, now, now));
        rss = Some((first, now, most.max(now)));
    }
    let (first, last, most) = rss.unwrap_or_default();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("soak of {} s, seed {seed}: 4 processes", start.elapsed().as_secs());
    println!("kills                      {kills}");
    println!("rests, each without a leak {settled}");
    println!("values checked             {} by those that lived to tell", outages.checked);
    println!("checksum errors            {lost}");
    println!("store gone                 {} times", outages.count);
    println!(
        "RSS of the store           {:.1} MiB at the start, {:.1} at the end, {:.1} at most",
        mib(first),
        mib(last),
        mib(most)
    );
    lost + outages.count
}

//! What operators ask: `stats`, `pins`, `kick`, `ping`.

use super::{
    Context,
    change::confirm,
    left_of, prometheus, seconds,
    show::{Human, age, count, grid, left, plain, right, took},
    trouble::Trouble,
};
use crate::{Brain, Error, Pin, Stats};
use clap::Args;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::Write,
    time::{Duration, Instant},
};

#[derive(Debug, Args)]
pub(super) struct StatsOptions {
    /// In Prometheus' text form, for its node exporter's textfile collector or any other way there
    #[arg(long, conflicts_with = "json")]
    prometheus: bool,
}

pub(super) fn stats(context: &mut Context, options: &StatsOptions) -> Result<(), Trouble> {
    let brain = context.brain()?;
    let stats = brain.stats()?;
    if options.prometheus {
        return Ok(context.out.write_all(prometheus::text(&brain, &stats)?.as_bytes())?);
    }
    if context.common.json {
        return Ok(context.out.json(&stats_json(&brain, &stats))?);
    }
    let lines = stats_lines(&brain, &stats);
    lines.iter().try_for_each(|(what, text)| Ok(context.out.line(format!("{what:<8} {text}").trim_end())?))
}

/// The figures for people, in the words of [`Stats::figures`].
fn stats_lines(brain: &Brain, stats: &Stats) -> Vec<(&'static str, String)> {
    let Stats { capacity_bytes, used_bytes, limbo_bytes, leased_bytes, .. } = *stats;
    let percent = u128::from(used_bytes) * 1_000 / u128::from(capacity_bytes.max(1));
    let bar = bar(used_bytes, limbo_bytes, capacity_bytes);
    let (used, capacity) = (Human(used_bytes), Human(capacity_bytes));
    let (free, largest) = (Human(stats.free_bytes), Human(stats.largest_free_bytes));
    let populated = Human(stats.populated_bytes);
    let mut lines = vec![
        ("store", format!("{}, pid {}, up {}", brain.path().display(), stats.store_pid, age(stats.uptime_s))),
        (
            "memory",
            format!("[{bar}] {}.{} %, {used} used of {capacity} capacity", percent / 10, percent % 10),
        ),
        ("", format!("{free} free, {largest} largest free piece, {populated} populated")),
    ];
    let pins = count(stats.pins, "pin");
    lines.push(("pinned", format!("{} by {pins}; plasmon pins tells by whom", Human(stats.pinned_bytes))));
    if limbo_bytes > 0 {
        lines.push(("limbo", format!("{} forgotten but still pinned (! in the bar)", Human(limbo_bytes))));
    }
    if leased_bytes > 0 {
        let leases = count(stats.leases, "lease");
        lines.push(("leased", format!("{} being written in {leases}", Human(leased_bytes))));
    }
    let namespaces = count(stats.namespaces, "namespace");
    let (objects, most, version) = (stats.objects, stats.objects_max, stats.version);
    lines.push(("objects", format!("{objects} of {most} in {namespaces}, last version {version}")));
    if stats.refused_learns > 0 {
        lines.push(("refused", refused(stats)));
    }
    if stats.expired > 0 {
        lines.push(("expired", count(stats.expired, "name")));
    }
    if stats.cached_bytes > 0 || stats.evicted > 0 {
        let (evicted, bytes) = (count(stats.evicted, "name"), Human(stats.evicted_bytes));
        lines.push(("cached", format!("{}; evicted: {evicted} of {bytes}", Human(stats.cached_bytes))));
    }
    if stats.kept > 0 || stats.snapshots > 0 || stats.views > 0 {
        let (bytes, versions) = (Human(stats.past_bytes), count(stats.kept, "ended version"));
        let (snapshots, views) = (count(stats.snapshots, "snapshot"), count(stats.views, "view"));
        lines.push((
            "past",
            format!("{bytes} only in {versions} of at most {}, {snapshots}, {views}", stats.kept_max),
        ));
    }
    let sessions = count(stats.sessions, "session");
    let orphaned = match stats.orphaned_sessions {
        0 => String::new(),
        orphaned => format!(" ({orphaned} of them orphaned)"),
    };
    let (connections, waits) = (count(stats.connections, "connection"), count(stats.waits, "wait"));
    lines.push(("clients", format!("{sessions}{orphaned}, {connections}, {waits}")));
    let (commits, requests) = (count(stats.commits, "commit"), count(stats.requests, "request"));
    lines.push(("traffic", format!("{commits}, {requests}, {} refused", stats.refused)));
    let (rss, pss) = (Human(stats.rss_bytes), Human(stats.pss_bytes));
    lines.push(("daemon", format!("{rss} rss, {pss} pss, {}", count(stats.descriptors, "descriptor"))));
    lines
}

/// The learns that were refused, and for which reasons most.
fn refused(stats: &Stats) -> String {
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for refusal in &stats.refusals {
        *reasons.entry(&refusal.reason).or_default() += refusal.learns;
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|&(_, learns)| std::cmp::Reverse(learns));
    let reasons: Vec<String> = reasons.iter().map(|(reason, learns)| format!("{reason} {learns}")).collect();
    format!("{}: {}", count(stats.refused_learns, "learn"), reasons.join(", "))
}

/// Used memory as a bar of 30 characters, `!` for what is in limbo. What is not zero shows.
fn bar(used_bytes: u64, limbo_bytes: u64, capacity_bytes: u64) -> String {
    const CHARS: u128 = 30;
    let chars = |bytes: u64| {
        let chars = (u128::from(bytes) * CHARS).div_ceil(u128::from(capacity_bytes.max(1))).min(CHARS);
        usize::try_from(chars).unwrap_or(0)
    };
    let (used, limbo) = (chars(used_bytes), chars(limbo_bytes).min(chars(used_bytes)));
    let all = usize::try_from(CHARS).unwrap_or(0);
    "#".repeat(used - limbo) + &"!".repeat(limbo) + &".".repeat(all - used)
}

fn stats_json(brain: &Brain, stats: &Stats) -> Value {
    let uuid: String = stats.store_uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut document = json!({
        "socket": brain.path().display().to_string(), "store_pid": stats.store_pid, "store_uuid": uuid,
    });
    for figure in stats.figures() {
        document[figure.name] = figure.value.into();
    }
    let refusals = stats.refusals.iter().map(|it| {
        let namespace = it.namespace.as_ref().map(|namespace| namespace.as_str());
        json!({ "reason": it.reason, "namespace": namespace, "learns": it.learns })
    });
    document["refusals"] = refusals.collect();
    document
}

pub(super) fn pins(context: &mut Context) -> Result<(), Trouble> {
    let brain = context.brain()?;
    let (pins, stats) = (brain.pins()?, brain.stats()?);
    let mut processes: BTreeMap<u32, Vec<&Pin>> = BTreeMap::new();
    for pin in &pins {
        processes.entry(pin.pid).or_default().push(pin);
    }
    let bytes = |pins: &[&Pin]| pins.iter().map(|pin| pin.len_bytes).sum::<u64>();
    let limbo = |pins: &[&Pin]| pins.iter().filter(|pin| pin.limbo).map(|pin| pin.len_bytes).sum::<u64>();
    if context.common.json {
        let process = |(pid, pins): (&u32, &Vec<&Pin>)| {
            json!({
                "pid": pid, "command": pins[0].command, "objects": pins.len(), "bytes": bytes(pins),
                "limbo_bytes": limbo(pins),
            })
        };
        let document = json!({
            "pins": pins.iter().map(pin_json).collect::<Vec<_>>(),
            "processes": processes.iter().map(process).collect::<Vec<_>>(),
            "pinned_bytes": stats.pinned_bytes, "limbo_bytes": stats.limbo_bytes,
        });
        return Ok(context.out.json(&document)?);
    }
    if pins.is_empty() {
        return Ok(context.out.line("nobody holds an object")?);
    }
    let mut text = pin_grid(&pins);
    text.push('\n');
    for (pid, pins) in &processes {
        let (command, objects) = (plain(&pins[0].command), count(pins.len() as u64, "object"));
        text += &format!("pid {pid} ({command}) holds {} in {objects}", Human(bytes(pins)));
        if limbo(pins) > 0 {
            text += &format!(", {} of it in limbo: forgotten, and free once it lets go", Human(limbo(pins)));
        }
        text.push('\n');
    }
    let (pinned, limbo) = (Human(stats.pinned_bytes), Human(stats.limbo_bytes));
    text += &format!("in all {pinned} are held, {limbo} of them in limbo");
    Ok(context.out.line(text)?)
}

fn pin_grid(pins: &[Pin]) -> String {
    let columns = [
        right("PID"),
        left("COMMAND"),
        right("BYTES"),
        right("SINCE"),
        right("HANDLES"),
        left("NAME"),
        left("STATE"),
    ];
    grid(&columns, &pins.iter().map(pin_row).collect::<Vec<_>>())
}

fn pin_row(pin: &Pin) -> Vec<String> {
    let state = match (pin.limbo, pin.orphaned) {
        (false, false) => "",
        (true, false) => "limbo",
        (false, true) => "orphaned",
        (true, true) => "limbo, orphaned",
    };
    vec![
        pin.pid.to_string(),
        plain(&pin.command),
        Human(pin.len_bytes).to_string(),
        age(pin.seen_for_s),
        pin.pins.to_string(),
        plain(&pin.name),
        state.to_owned(),
    ]
}

fn pin_json(pin: &Pin) -> Value {
    json!({
        "pid": pin.pid, "uid": pin.uid, "command": pin.command, "name": pin.name, "version": pin.version,
        "bytes": pin.len_bytes, "pins": pin.pins, "limbo": pin.limbo, "orphaned": pin.orphaned,
        "seen_for_s": pin.seen_for_s, "session_age_s": pin.session_age_s,
    })
}

#[derive(Debug, Args)]
pub(super) struct Kick {
    /// Process to end, with SIGKILL
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pid: u32,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// How long to wait until a process that was killed holds nothing any more.
const ENDING: Duration = Duration::from_secs(5);

impl Kick {
    pub(super) fn run(&self, context: &mut Context) -> Result<(), Trouble> {
        let brain = context.brain()?;
        let held = self.held(&brain)?;
        let (objects, bytes) = (held.len() as u64, held.iter().map(|pin| pin.len_bytes).sum());
        if !self.yes {
            let command = held.first().map(|pin| format!(" ({})", plain(&pin.command))).unwrap_or_default();
            let shown = if held.is_empty() { String::new() } else { pin_grid(&held) };
            let holds = format!("holds {} in {}", Human(bytes), count(objects, "object"));
            confirm(&shown, &format!("end process {}{command} with SIGKILL, which {holds}?", self.pid))?;
        }
        brain.kick(self.pid)?;
        let began = Instant::now();
        while !self.held(&brain)?.is_empty() && began.elapsed() < ENDING {
            std::thread::sleep(Duration::from_millis(5));
        }
        let freed = self.held(&brain)?.is_empty();
        if context.common.json {
            let document = json!({ "pid": self.pid, "objects": objects, "bytes": bytes, "gone": freed });
            return Ok(context.out.json(&document)?);
        }
        let end = if freed { "holds nothing any more" } else { "has been killed but still lingers" };
        let (held, objects) = (Human(bytes), count(objects, "object"));
        Ok(context.out.line(format!("process {}: {end}; it held {held} in {objects}", self.pid))?)
    }

    fn held(&self, brain: &Brain) -> Result<Vec<Pin>, Error> {
        let mut pins = brain.pins()?;
        pins.retain(|pin| pin.pid == self.pid);
        Ok(pins)
    }
}

#[derive(Debug, Args)]
pub(super) struct Ping {
    /// Longest time to wait for a store
    #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "0")]
    timeout: Duration,
}

/// Between two looks for a store.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long a store that accepts may take to say something, if nothing else is asked for.
const ANSWER: Duration = Duration::from_secs(5);

impl Ping {
    pub(super) fn run(&self, context: &mut Context) -> Result<(), Trouble> {
        let began = Instant::now();
        let (brain, stats, took_it) = loop {
            let patience = left_of(self.timeout, began).unwrap_or(ANSWER);
            let asked = Instant::now();
            let answer = context.connect(Some(patience)).and_then(|brain| Ok((brain.stats()?, brain)));
            match answer {
                Ok((stats, brain)) => break (brain, stats, asked.elapsed()),
                Err(error) if !error.is_unavailable() => return Err(error.into()),
                Err(error) => match left_of(self.timeout, began) {
                    Some(left) => std::thread::sleep(LOOK_AGAIN.min(left)),
                    None => return Err(error.into()),
                },
            }
        };
        let (socket, pid) = (brain.path().display(), stats.store_pid);
        if context.common.json {
            let document = json!({
                "socket": socket.to_string(), "store_pid": pid, "answer_s": took_it.as_secs_f64(),
                "waited_s": began.elapsed().as_secs_f64(),
            });
            return Ok(context.out.json(&document)?);
        }
        Ok(context.out.line(format!("the store at {socket} answers, pid {pid}, in {}", took(took_it)))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_as_long_whatever_it_shows() {
        assert_eq!(bar(0, 0, 100), ".".repeat(30));
        assert_eq!(bar(1, 1, u64::MAX), format!("!{}", ".".repeat(29)));
        assert_eq!(bar(100, 50, 100), "#".repeat(15) + &"!".repeat(15));
        assert_eq!(bar(7, 0, 0), "#".repeat(30));
    }
}

//! What was: `history`, `snapshot`, `views`.

use super::{
    Context,
    show::{Human, age, count, grid, left, plain, right, seconds_since, unix_seconds},
    trouble::Trouble,
};
use crate::{Brain, Error, Reason, SnapshotInfo, Version, ViewInfo};
use arrow_array::temporal_conversions::timestamp_us_to_datetime;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Debug, Args)]
pub(super) struct History {
    /// Name whose versions to list, the newest first: of a namespace that has declared a history, also one that is not
    /// bound any more
    #[arg(add = ArgValueCompleter::new(super::completions::names))]
    name: String,

    /// Versions that only snapshots and views keep as well
    #[arg(short, long)]
    all: bool,
}

impl History {
    pub(super) fn run(&self, context: &mut Context) -> Result<(), Trouble> {
        let brain = context.brain()?;
        let versions = if self.all { brain.all_versions(&self.name)? } else { brain.history(&self.name)? };
        if versions.is_empty() {
            let (namespace, name) = (brain.namespace().to_owned(), self.name.clone());
            return Err(Error::NameNotFound { namespace, name }.into());
        }
        if context.common.json {
            return Ok(context.out.json(&versions.iter().map(version_json).collect())?);
        }
        let row = |version: &Version| {
            let (ended, reason) = match &version.ended {
                Some(ended) => (age(seconds_since(ended.at)), word(ended.reason)),
                None => (String::new(), "bound"),
            };
            vec![
                version.version.to_string(),
                version.kind.to_string(),
                Human(version.len_bytes).to_string(),
                age(seconds_since(version.created)),
                ended,
                reason.to_owned(),
                version.writer_pid.to_string(),
                plain(&version.description),
            ]
        };
        let headings = [
            right("VERSION"),
            left("KIND"),
            right("BYTES"),
            right("AGE"),
            right("ENDED"),
            left("STATE"),
            right("WRITER"),
            left("DESCRIPTION"),
        ];
        let rows: Vec<Vec<String>> = versions.iter().map(row).collect();
        write_text(context, &grid(&headings, &rows))
    }
}

fn version_json(version: &Version) -> Value {
    let ended = version.ended.as_ref();
    json!({
        "version": version.version, "kind": version.kind.to_string(), "bytes": version.len_bytes,
        "object_id": version.object_id.to_string(), "created": unix_seconds(version.created),
        "ended": ended.map(|ended| unix_seconds(ended.at)), "reason": ended.map(|ended| word(ended.reason)),
        "in_history": ended.is_none_or(|ended| ended.in_history),
        "writer_pid": version.writer_pid, "writer_uid": version.writer_uid,
        "description": version.description, "metadata": version.metadata,
    })
}

fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::Rebound => "rebound",
        Reason::Forgotten => "forgotten",
        Reason::Expired => "expired",
        Reason::Evicted => "evicted",
        Reason::Cleared => "cleared",
    }
}

#[derive(Debug, Args)]
pub(super) struct Snapshot {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Keep this moment of some namespaces
    Create {
        /// Label: 1 to 64 letters, digits, _, . and - [default: the time, UTC]
        label: Option<String>,

        /// Namespaces to keep [default: that of --namespace]
        #[arg(value_name = "NAMESPACE", add = ArgValueCompleter::new(super::completions::namespaces))]
        namespaces: Vec<String>,
    },
    /// List snapshots
    Ls,
    /// Drop a snapshot; what only it kept is free then
    Rm {
        /// Label of the snapshot
        #[arg(add = ArgValueCompleter::new(super::completions::labels))]
        label: String,
    },
    /// Show how a namespace differs between a snapshot and another one, or now: + added, ~ changed, - removed
    Diff {
        /// Label of the snapshot
        #[arg(add = ArgValueCompleter::new(super::completions::labels))]
        label: String,

        /// Label of another snapshot [default: now]
        #[arg(add = ArgValueCompleter::new(super::completions::labels))]
        other: Option<String>,
    },
    /// Make a namespace, or some of its names, what they were; what was not bound then is forgotten
    Restore {
        /// Label of the snapshot
        #[arg(add = ArgValueCompleter::new(super::completions::labels))]
        label: String,

        /// Only these names
        #[arg(value_name = "NAME", add = ArgValueCompleter::new(super::completions::names))]
        names: Vec<String>,
    },
}

impl Snapshot {
    pub(super) fn run(&self, context: &mut Context) -> Result<(), Trouble> {
        let brain = context.brain()?;
        match &self.what {
            What::Create { label, namespaces } => create(context, &brain, label.as_deref(), namespaces),
            What::Ls => list(context, &brain),
            What::Rm { label } => {
                brain.drop_snapshot(label)?;
                if context.common.json {
                    context.out.json(&json!({ "removed": label }))?;
                }
                Ok(())
            }
            What::Diff { label, other } => diff(context, &brain, label, other.as_deref()),
            What::Restore { label, names } => restore(context, &brain, label, names),
        }
    }
}

fn create(
    context: &mut Context,
    brain: &Brain,
    label: Option<&str>,
    namespaces: &[String],
) -> Result<(), Trouble> {
    let own = [brain.namespace().to_owned()];
    let namespaces = if namespaces.is_empty() { &own[..] } else { namespaces };
    let names: Vec<&str> = namespaces.iter().map(String::as_str).collect();
    let (label, moment) = match label {
        Some(label) => (label.to_owned(), brain.snapshot_of(label, &names)?),
        None => loop {
            let label = label_of(SystemTime::now());
            match brain.snapshot_of(&label, &names) {
                Err(Error::SnapshotExists { .. }) => {} // it is later by now
                taken => break (label, taken?),
            }
        },
    };
    if context.common.json {
        let document = json!({ "label": label, "moment": moment, "namespaces": namespaces });
        return Ok(context.out.json(&document)?);
    }
    Ok(context.out.line(format!("{label}: moment {moment} of {}", namespaces.join(", ")))?)
}

/// Of two times the later has the greater label.
fn label_of(time: SystemTime) -> String {
    let micros = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let time = i64::try_from(micros).ok().and_then(timestamp_us_to_datetime);
    time.map_or_else(|| micros.to_string(), |time| time.format("%Y-%m-%dT%H.%M.%S%.6fZ").to_string())
}

fn list(context: &mut Context, brain: &Brain) -> Result<(), Trouble> {
    let snapshots = brain.snapshots()?;
    let namespaces = |it: &SnapshotInfo| it.namespaces.iter().map(ToString::to_string).collect::<Vec<_>>();
    if context.common.json {
        let one = |it: &SnapshotInfo| {
            json!({
                "label": it.label.as_str(), "moment": it.moment, "created": unix_seconds(since_1970(it.created_ns)),
                "namespaces": namespaces(it), "names": it.names, "bytes": it.bytes, "pid": it.pid, "uid": it.uid,
            })
        };
        return Ok(context.out.json(&snapshots.iter().map(one).collect())?);
    }
    if snapshots.is_empty() {
        return Ok(());
    }
    let row = |it: &SnapshotInfo| {
        vec![
            it.label.to_string(),
            it.moment.to_string(),
            age(seconds_since(since_1970(it.created_ns))),
            it.names.to_string(),
            Human(it.bytes).to_string(),
            namespaces(it).join(", "),
        ]
    };
    let headings =
        [left("LABEL"), right("MOMENT"), right("AGE"), right("NAMES"), right("BYTES"), left("NAMESPACES")];
    let rows: Vec<Vec<String>> = snapshots.iter().map(row).collect();
    write_text(context, &grid(&headings, &rows))
}

fn diff(context: &mut Context, brain: &Brain, label: &str, other: Option<&str>) -> Result<(), Trouble> {
    let diff = brain.diff(label, other)?;
    if context.common.json {
        let document = json!({ "added": diff.added, "changed": diff.changed, "removed": diff.removed });
        return Ok(context.out.json(&document)?);
    }
    let marked = |mark, names: &[String]| names.iter().map(|name| (name.clone(), mark)).collect::<Vec<_>>();
    let mut lines =
        [marked('+', &diff.added), marked('~', &diff.changed), marked('-', &diff.removed)].concat();
    lines.sort_unstable();
    lines.iter().try_for_each(|(name, mark)| Ok(context.out.line(format!("{mark} {}", plain(name)))?))
}

fn restore(context: &mut Context, brain: &Brain, label: &str, names: &[String]) -> Result<(), Trouble> {
    let mut chosen: Vec<&str> = names.iter().map(String::as_str).collect();
    chosen.sort_unstable();
    chosen.dedup();
    let version = match &chosen[..] {
        [] => brain.restore_snapshot(label)?,
        names => brain.restore_names(label, names)?,
    };
    if context.common.json {
        let document = json!({ "label": label, "namespace": brain.namespace(), "version": version });
        return Ok(context.out.json(&document)?);
    }
    let what = match chosen.len() as u64 {
        0 => format!("namespace {}", brain.namespace()),
        names => count(names, "name"),
    };
    Ok(context.out.line(format!("{what}: as at {label}, version {version}"))?)
}

#[derive(Debug, Args)]
pub(super) struct Views {
    /// End a view, of any process, by its number; whoever looks through it is told. For the store's user and root
    #[arg(long, value_name = "ID")]
    end: Option<u64>,
}

impl Views {
    /// Who keeps the past for himself, or an end to it.
    pub(super) fn run(&self, context: &mut Context) -> Result<(), Trouble> {
        let brain = context.brain()?;
        if let Some(view) = self.end {
            brain.end_view(view)?;
            if context.common.json {
                context.out.json(&json!({ "ended": view }))?;
            }
            return Ok(());
        }
        let views = brain.views()?;
        if context.common.json {
            let one = |it: &ViewInfo| {
                json!({
                    "id": it.view, "moment": it.moment, "created": unix_seconds(since_1970(it.began_ns)),
                    "pid": it.pid, "uid": it.uid, "command": it.command, "kept": it.kept,
                })
            };
            return Ok(context.out.json(&views.iter().map(one).collect())?);
        }
        if views.is_empty() {
            return Ok(context.out.line("nobody has a view")?);
        }
        let row = |it: &ViewInfo| {
            vec![
                it.view.to_string(),
                it.moment.to_string(),
                age(seconds_since(since_1970(it.began_ns))),
                it.kept.to_string(),
                it.pid.to_string(),
                plain(&it.command),
            ]
        };
        let headings =
            [right("ID"), right("MOMENT"), right("AGE"), right("KEPT"), right("PID"), left("COMMAND")];
        let rows: Vec<Vec<String>> = views.iter().map(row).collect();
        write_text(context, &grid(&headings, &rows))
    }
}

fn since_1970(ns: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(ns)
}

fn write_text(context: &mut Context, text: &str) -> Result<(), Trouble> {
    Ok(std::io::Write::write_all(&mut context.out, text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_says_the_time_and_is_one() {
        let label = label_of(UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001));
        assert_eq!(label, "2023-11-14T22.13.20.000001Z");
        assert!(plasmon_protocol::name::Label::new(&label).is_ok());
    }
}

//! `plasmon doctor`: what this machine offers, and whether a store answers.

use super::{
    Context,
    show::{Human, age},
    trouble::Trouble,
};
use crate::{Error, paths::Surroundings};
use nix::{
    sys::{
        resource::{Resource, getrlimit},
        statvfs::statvfs,
        utsname::uname,
    },
    unistd::getuid,
};
use plasmon_protocol::message::VERSION;
use plasmon_shm::Kernel;
use serde_json::json;
use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// One thing that was looked at.
struct Finding {
    what: &'static str,
    found: String,
    /// What to change, if something should be.
    advice: Option<String>,
}

/// How long a store that accepts may take to say something.
const ANSWER: Duration = Duration::from_secs(5);

/// Descriptors below which a daemon with many clients runs out.
const DESCRIPTORS_MIN: u64 = 4_096;

pub(super) fn run(context: &mut Context) -> Result<(), Trouble> {
    let mut findings = kernel();
    findings.extend(memory());
    findings.extend([descriptors(), dev_shm()]);
    findings.extend(sockets(context));
    findings.extend(store(context));
    let warnings = findings.iter().filter(|finding| finding.advice.is_some()).count();
    if context.common.json {
        let finding = |Finding { what, found, advice }: &Finding| json!({ "what": what, "ok": advice.is_none(), "found": found, "advice": advice });
        let findings: Vec<_> = findings.iter().map(finding).collect();
        return Ok(context.out.json(&json!({ "warnings": warnings, "findings": findings }))?);
    }
    for Finding { what, found, advice } in &findings {
        let verdict = if advice.is_some() { "warn" } else { "ok" };
        let advice = advice.as_ref().map(|advice| format!("; {advice}")).unwrap_or_default();
        context.out.line(format!("{verdict:<5} {what:<12} {found}{advice}"))?;
    }
    Ok(())
}

fn ok(what: &'static str, found: impl Into<String>) -> Finding {
    Finding { what, found: found.into(), advice: None }
}

fn warn(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { what, found: found.into(), advice: Some(advice.into()) }
}

fn kernel() -> Vec<Finding> {
    let release =
        uname().map_or_else(|_| "unknown".to_owned(), |uname| uname.release().display().to_string());
    let mut findings = vec![match Kernel::check_minimum() {
        Ok(()) => ok("kernel", format!("Linux {release}, at least 5.14")),
        Err(_) => warn("kernel", format!("Linux {release}"), "the store needs Linux 5.14 or newer"),
    }];
    for (call, used, otherwise) in Kernel::detect().report() {
        findings.push(if used {
            ok("kernel call", call)
        } else {
            let advice = "a newer kernel, or a sandbox that allows it, would do better";
            warn("kernel call", format!("{call} is missing: {otherwise} instead"), advice)
        });
    }
    findings
}

/// What the machine and each cgroup above this process leave, and so how large a store can be.
fn memory() -> Vec<Finding> {
    let total = meminfo("MemTotal:").unwrap_or(0);
    let available = meminfo("MemAvailable:").unwrap_or(0);
    let mut findings = vec![ok("memory", format!("{} of {} are available", Human(available), Human(total)))];
    let mut smallest = available;
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    for folder in cgroup_folders(&cgroups) {
        let Some((limit, used)) = cgroup_limit(&folder).filter(|&(limit, _)| limit < total) else { continue };
        let left = limit.saturating_sub(used);
        smallest = smallest.min(left);
        let found = format!("{} leaves {} of its limit of {}", folder.display(), Human(left), Human(limit));
        findings.push(ok("cgroup", found));
    }
    // The daemon keeps the same margin (plasmon-store --probe).
    let fits = smallest.saturating_sub((smallest / 20).max(128 << 20));
    findings.push(match fits {
        0..0x400_0000 => warn(
            "store size",
            format!("{} would fit", Human(fits)),
            "free memory, or raise the cgroup's limit",
        ),
        _ => ok("store size", format!("{} would fit in what is free now", Human(fits))),
    });
    findings
}

fn meminfo(field: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// The folders of this process's memory cgroups, of version 1 or 2, from its own up to the root.
fn cgroup_folders(cgroups: &str) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in cgroups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let mount = match controllers {
            "" => "/sys/fs/cgroup",
            _ if controllers.split(',').any(|name| name == "memory") => "/sys/fs/cgroup/memory",
            _ => continue,
        };
        let below = Path::new(path.trim_start_matches('/'));
        folders.extend(below.ancestors().map(|ancestor| Path::new(mount).join(ancestor)));
    }
    folders
}

/// The limit of one cgroup, and what counts against it and could not be dropped.
fn cgroup_limit(folder: &Path) -> Option<(u64, u64)> {
    let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let (limit, used) = match number("memory.max") {
        Some(limit) => (limit, number("memory.current")?),
        None => (number("memory.limit_in_bytes")?, number("memory.usage_in_bytes")?),
    };
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let droppable = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse::<u64>().ok());
    Some((limit, used.saturating_sub(droppable.unwrap_or(0))))
}

fn descriptors() -> Finding {
    let what = "descriptors";
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if hard >= DESCRIPTORS_MIN => {
            ok(what, format!("{soft} are allowed, up to {hard} where asked for (RLIMIT_NOFILE)"))
        }
        Ok((_, hard)) => {
            let advice = "raise it for the daemon (ulimit -Hn, LimitNOFILE=) if many processes use the store";
            warn(what, format!("at most {hard} are allowed (RLIMIT_NOFILE)"), advice)
        }
        Err(error) => warn(what, format!("RLIMIT_NOFILE cannot be read: {error}"), "look at ulimit -n"),
    }
}

fn dev_shm() -> Finding {
    let what = "/dev/shm";
    match statvfs("/dev/shm") {
        Ok(room) => {
            let free = room.blocks_available().saturating_mul(room.fragment_size());
            ok(what, format!("{} are free; only --arena named needs them", Human(free)))
        }
        Err(error) => ok(what, format!("cannot be used ({error}); only --arena named would need it")),
    }
}

fn sockets(context: &Context) -> Vec<Finding> {
    let here = Surroundings::of_this_process();
    let (candidates, named) = match &context.common.socket {
        Some(socket) => (vec![socket.clone()], true),
        None => (here.candidates(), here.socket.is_some()),
    };
    let mut findings: Vec<Finding> = candidates.iter().map(|path| socket(path, named, &here)).collect();
    if named && context.common.socket.is_none() {
        findings.insert(0, ok("socket", "$PLASMON_SOCKET is set, so no other place is looked at"));
    }
    findings
}

fn socket(path: &Path, named: bool, here: &Surroundings) -> Finding {
    let what = "socket";
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() && !there.file_type().is_symlink() => {
            warn(what, format!("{shown} is not a socket"), "remove it, or name the store's --socket")
        }
        Ok(_) if !named && !here.owns_directory_of(path) => {
            let owner =
                path.parent().and_then(|folder| fs::metadata(folder).ok()).map_or(0, |folder| folder.uid());
            let found =
                format!("{shown} is passed over: its directory is of uid {owner}, not of {}", getuid());
            warn(what, found, "name it with --socket, and the user with --trust-uid, if you trust that user")
        }
        Ok(_) => ok(what, format!("{shown} is there")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            ok(what, format!("{shown} is not there"))
        }
        Err(error) => {
            warn(what, format!("{shown} cannot be looked at: {error}"), "let this user into its directory")
        }
    }
}

fn store(context: &Context) -> Vec<Finding> {
    let answer = context.connect(Some(ANSWER)).and_then(|brain| Ok((brain.stats()?, brain)));
    let (stats, brain) = match answer {
        Ok(answer) => answer,
        Err(error @ Error::VersionMismatch { .. }) => {
            return vec![warn("protocol", error.to_string(), "restart the store with the new release")];
        }
        Err(error) => {
            let advice = match &error {
                Error::UntrustedStore { uid, .. } => format!("add --trust-uid {uid} if you trust that user"),
                Error::StoreUnavailable { .. } => "or name the socket of one with --socket".to_owned(),
                _ => "see the log of the store".to_owned(),
            };
            return vec![
                ok("protocol", format!("this program speaks {VERSION}")),
                warn("store", error.to_string(), advice),
            ];
        }
    };
    let (socket, pid, up) = (brain.path().display(), stats.store_pid, age(stats.uptime_s));
    let mut findings = vec![
        ok("store", format!("{socket} answers, pid {pid}, up {up}")),
        ok("protocol", format!("store and program speak {VERSION}")),
    ];
    let (used, capacity) = (stats.used_bytes, stats.capacity_bytes.max(1));
    let room = format!("{} of {} are used", Human(used), Human(capacity));
    findings.push(if u128::from(used) * 10 > u128::from(capacity) * 9 {
        warn("room", room, "forget something (plasmon ls), or start the store with a larger --size")
    } else {
        ok("room", room)
    });
    if stats.limbo_bytes > capacity / 10 {
        let found = format!("{} are forgotten but still held", Human(stats.limbo_bytes));
        findings.push(warn("limbo", found, "plasmon pins tells by whom; plasmon kick PID frees it"));
    }
    if stats.orphaned_sessions > 0 {
        let found = format!("{} processes hold objects without a connection", stats.orphaned_sessions);
        findings.push(warn("orphans", found, "plasmon pins tells which"));
    }
    if stats.objects * 10 > stats.objects_max * 9 {
        let found = format!("{} of {} names are bound", stats.objects, stats.objects_max);
        findings.push(warn("names", found, "start the store with a larger --max-objects"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ancestor_of_both_kinds_of_cgroup_is_looked_at() {
        let folders = cgroup_folders("0::/user/me\n4:cpu,memory:/docker\n7:cpu:/x\nnonsense\n");
        let shown: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        assert_eq!(
            shown,
            [
                "/sys/fs/cgroup/user/me",
                "/sys/fs/cgroup/user",
                "/sys/fs/cgroup/",
                "/sys/fs/cgroup/memory/docker",
                "/sys/fs/cgroup/memory/"
            ]
        );
    }

    #[test]
    fn this_machine_is_described_without_a_store() {
        let findings: Vec<Finding> =
            kernel().into_iter().chain(memory()).chain([descriptors(), dev_shm()]).collect();
        assert!(findings.len() >= 9);
        assert!(findings.iter().all(|finding| !finding.found.is_empty()));
    }
}

//! How much memory the machine, and every cgroup above this process, can still give.
//!
//! Linux has no atomic reservation of shared memory: asking for too much is answered by the OOM killer, not by an
//! error. So the daemon compares before it populates, and keeps a margin.
//!
//! `startup` asks before it makes the regions, and the population thread before each 64 MiB. The scan thread asks how
//! much the daemon itself uses, when somebody asks for statistics.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What this process may still use, and what sets that limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Headroom {
    /// Bytes that can be used, the margin already taken off.
    pub(crate) bytes: u64,
    /// What is short: `MemAvailable`, or a cgroup's path.
    pub(crate) bound_by: String,
}

/// What bounds the arena's memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bounds {
    /// Whether the arena lies in `/dev/shm`, whose own size bounds it as well.
    pub(crate) dev_shm: bool,
    /// A folder that passes for a cgroup of this process, for tests.
    pub(crate) pretend_cgroup: Option<PathBuf>,
}

impl Bounds {
    /// The memory that a share (`--size 25%`) is of: the machine's, or what the tightest cgroup above this process may
    /// have, if that is less.
    #[must_use]
    pub(crate) fn total_bytes(&self) -> u64 {
        let limits = self.cgroup_folders().into_iter().filter_map(|folder| cgroup_limit(&folder));
        limits.chain(meminfo("MemTotal:")).min().unwrap_or(0)
    }

    /// Every cgroup of this process whose limit can be read here.
    fn cgroup_folders(&self) -> Vec<PathBuf> {
        let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        cgroup_folders(&cgroups).into_iter().chain(self.pretend_cgroup.clone()).collect()
    }

    /// Reads what is left now: the minimum of what the machine, every ancestor cgroup and `/dev/shm` (where the arena
    /// lies there) leave, less a margin: 5 % or 128 MiB, whichever is larger, of memory, and 8 MiB of `/dev/shm`, for the
    /// regions of sessions. Reads a few small files of /proc and /sys; takes some 100 µs.
    #[must_use]
    pub(crate) fn headroom(&self) -> Headroom {
        let machine = Headroom {
            bytes: meminfo("MemAvailable:").unwrap_or(u64::MAX),
            bound_by: "the memory available in the machine (MemAvailable)".into(),
        };
        let tightest = self
            .cgroup_folders()
            .into_iter()
            .filter_map(|folder| {
                let bytes = cgroup_left(&folder)?;
                Some(Headroom { bytes, bound_by: format!("the memory limit of cgroup {}", folder.display()) })
            })
            .chain([machine])
            .min_by_key(|headroom| headroom.bytes)
            .expect("the machine itself is one of them");
        let margin = (tightest.bytes / 20).max(128 << 20);
        let memory = Headroom { bytes: tightest.bytes.saturating_sub(margin), ..tightest };
        let dev_shm = self.dev_shm.then(plasmon_shm::named_room_bytes).and_then(Result::ok);
        match dev_shm.map(|bytes| bytes.saturating_sub(8 << 20)) {
            Some(bytes) if bytes < memory.bytes => {
                Headroom { bytes, bound_by: "the room in /dev/shm (docker: --shm-size)".into() }
            }
            _ => memory,
        }
    }
}

/// Every cgroup folder, v1 or v2, from this process's own up to the root.
fn cgroup_folders(cgroups: &str) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in cgroups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let mount = match controllers {
            "" => "/sys/fs/cgroup",
            _ if controllers.split(',').any(|name| name == "memory") => "/sys/fs/cgroup/memory",
            _ => continue,
        };
        // What lies above the root that this process sees is shown as `..`, and cannot be looked at.
        let mut relative = path.trim_matches('/').trim_start_matches("../").trim_start_matches("..");
        loop {
            folders.push(PathBuf::from(mount).join(relative));
            match relative.rsplit_once('/') {
                Some((parent, _)) => relative = parent,
                None if relative.is_empty() => break,
                None => relative = "",
            }
        }
    }
    folders
}

/// The limit of one cgroup, of either version; `None` if it has none. Beyond `memory.high` the kernel slows down who
/// takes memory, without end: for a store that is a limit as well.
fn cgroup_limit(folder: &Path) -> Option<u64> {
    let limits = ["memory.max", "memory.high", "memory.limit_in_bytes"];
    limits.into_iter().filter_map(|name| number(folder, name)).min()
}

/// What the limit of one cgroup leaves; `None` if it has none. Page cache that could be dropped counts as left.
fn cgroup_left(folder: &Path) -> Option<u64> {
    let limit = cgroup_limit(folder)?;
    let usage = number(folder, "memory.current").or_else(|| number(folder, "memory.usage_in_bytes"))?;
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let inactive_file =
        stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse::<u64>().ok());
    Some(limit.saturating_sub(usage.saturating_sub(inactive_file.unwrap_or(0))))
}

fn number(folder: &Path, name: &str) -> Option<u64> {
    fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok()
}

fn meminfo(field: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    let kib: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1_024)
}

/// What the daemon itself takes from the machine, for `stats`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Resident memory, in bytes.
    pub(crate) rss_bytes: u64,
    /// Proportional set size, in bytes.
    pub(crate) pss_bytes: u64,
    /// Open descriptors.
    pub(crate) descriptors: u64,
}

/// Reads what the daemon takes. Walks its page tables, and so is not for the loop.
#[must_use]
pub(crate) fn own_usage() -> Usage {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1_024)
    };
    Usage {
        rss_bytes: field("Rss:").unwrap_or(0),
        pss_bytes: field("Pss:").unwrap_or(0),
        descriptors: fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ancestor_of_both_kinds_of_cgroup_is_looked_at() {
        let folders = cgroup_folders("0::/user.slice/session\n4:memory:/docker/abc\n7:cpu:/x\n");
        let shown: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        assert_eq!(
            shown,
            [
                "/sys/fs/cgroup/user.slice/session",
                "/sys/fs/cgroup/user.slice",
                "/sys/fs/cgroup/",
                "/sys/fs/cgroup/memory/docker/abc",
                "/sys/fs/cgroup/memory/docker",
                "/sys/fs/cgroup/memory/",
            ]
        );
    }

    #[test]
    fn what_a_cgroup_path_has_above_the_root_of_this_process_is_left_out() {
        let folders = cgroup_folders("0::/../../pod\n4:memory:/..\n");
        assert!(folders.iter().all(|folder| folder.starts_with("/sys/fs/cgroup")), "{folders:?}");
        assert!(folders.iter().all(|folder| !folder.to_string_lossy().contains("..")), "{folders:?}");
    }

    #[test]
    fn this_machine_has_memory_left() {
        let headroom = Bounds::default().headroom();
        assert!(headroom.bytes > 0 && headroom.bytes < Bounds::default().total_bytes(), "{headroom:?}");
    }
}

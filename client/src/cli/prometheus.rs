//! The store's figures in Prometheus' text form: `plasmon stats --prometheus`. docs/operations.md lists them.

use crate::{Brain, Error, NamespaceInfo, Stats};
use std::fmt::{Display, Write};

/// Above so many namespaces there are no figures for each: one for each user's session would drown whoever collects
/// them.
const NAMESPACES_MAX: usize = 100;

/// Name, type, meaning, and where it is in [`Stats`].
type Metric = (&'static str, &'static str, &'static str, fn(&Stats) -> u64);

/// A counter rises until the store is started anew; a gauge goes up and down.
#[rustfmt::skip]
const METRICS: &[Metric] = &[
    ("plasmon_uptime_seconds", "gauge", "Time since the store was started.", |stats| stats.uptime_s),
    ("plasmon_capacity_bytes", "gauge", "Capacity of the store.", |stats| stats.capacity_bytes),
    ("plasmon_used_bytes", "gauge", "Bytes of objects, forgotten ones that are still held included.", |stats| stats.used_bytes),
    ("plasmon_free_bytes", "gauge", "Bytes that can be granted.", |stats| stats.free_bytes),
    ("plasmon_largest_free_bytes", "gauge", "Largest free piece: the largest object there is room for.", |stats| stats.largest_free_bytes),
    ("plasmon_limbo_bytes", "gauge", "Bytes of forgotten objects that some process still holds.", |stats| stats.limbo_bytes),
    ("plasmon_leased_bytes", "gauge", "Bytes that are being written.", |stats| stats.leased_bytes),
    ("plasmon_pinned_bytes", "gauge", "Bytes of objects that some process holds.", |stats| stats.pinned_bytes),
    ("plasmon_populated_bytes", "gauge", "Bytes of the arena that are backed by memory of the machine.", |stats| stats.populated_bytes),
    ("plasmon_objects", "gauge", "Names that are bound.", |stats| stats.objects),
    ("plasmon_objects_max", "gauge", "Most names that can be bound (--max-objects).", |stats| stats.objects_max),
    ("plasmon_namespaces", "gauge", "Namespaces.", |stats| stats.namespaces),
    ("plasmon_pins", "gauge", "Handles that hold an object.", |stats| stats.pins),
    ("plasmon_sessions", "gauge", "Processes that use the store.", |stats| stats.sessions),
    ("plasmon_orphaned_sessions", "gauge", "Processes that have left and still hold objects.", |stats| stats.orphaned_sessions),
    ("plasmon_connections", "gauge", "Connections.", |stats| stats.connections),
    ("plasmon_leases", "gauge", "Leases: memory lent to writers.", |stats| stats.leases),
    ("plasmon_waits", "gauge", "Requests that wait for a name.", |stats| stats.waits),
    ("plasmon_commits_total", "counter", "Changes of names.", |stats| stats.commits),
    ("plasmon_requests_total", "counter", "Requests; recalls that hit need none.", |stats| stats.requests),
    ("plasmon_refused_total", "counter", "Connections and requests that were refused.", |stats| stats.refused),
    ("plasmon_cached_bytes", "gauge", "Bytes of cache namespaces that may give way.", |stats| stats.cached_bytes),
    ("plasmon_expired_total", "counter", "Names whose time was over.", |stats| stats.expired),
    ("plasmon_evicted_total", "counter", "Names of cache namespaces that gave way.", |stats| stats.evicted),
    ("plasmon_evicted_bytes_total", "counter", "Bytes that they had.", |stats| stats.evicted_bytes),
    ("plasmon_daemon_resident_bytes", "gauge", "Resident memory of the daemon, what it shares included.", |stats| stats.rss_bytes),
    ("plasmon_daemon_proportional_bytes", "gauge", "Its share of it, where several processes map the same page.", |stats| stats.pss_bytes),
    ("plasmon_daemon_descriptors", "gauge", "Descriptors that the daemon has open.", |stats| stats.descriptors),
];

/// All of it. Ends with a line break, as the form demands.
pub(super) fn text(brain: &Brain, stats: &Stats) -> Result<String, Error> {
    let mut text = String::new();
    let path = brain.path().display().to_string();
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("socket", &path)];
    metric(&mut text, "plasmon_info", "gauge", "The store that the figures are of; always 1.", [(labels, 1)]);
    for (name, kind, help, value) in METRICS {
        metric(&mut text, name, kind, help, [([], value(stats))]);
    }
    let namespaces = brain.namespaces()?;
    if namespaces.len() <= NAMESPACES_MAX {
        let each = |value: fn(&NamespaceInfo) -> u64| {
            namespaces.iter().map(move |info| ([("namespace", info.namespace.as_str())], value(info)))
        };
        let (names, bytes) = (each(|info| info.names), each(|info| info.bytes));
        metric(
            &mut text,
            "plasmon_namespace_objects",
            "gauge",
            "Names that are bound in a namespace.",
            names,
        );
        metric(&mut text, "plasmon_namespace_bytes", "gauge", "Bytes of the objects of a namespace.", bytes);
    }
    Ok(text)
}

/// A metric with a line for each of its values.
fn metric<'a, const N: usize>(
    text: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    values: impl IntoIterator<Item = ([(&'a str, &'a str); N], u64)>,
) {
    let mut put = |line: &dyn Display| {
        let _ = writeln!(text, "{line}"); // a String takes everything
    };
    put(&format_args!("# HELP {name} {help}"));
    put(&format_args!("# TYPE {name} {kind}"));
    for (labels, value) in values {
        let labels: Vec<String> =
            labels.iter().map(|(key, label)| format!("{key}=\"{}\"", escape(label))).collect();
        let braces = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        put(&format_args!("{name}{braces} {value}"));
    }
}

/// A label's value, in which these three characters mean something.
fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_lines_stand_below_their_help() {
        let mut text = String::new();
        metric(&mut text, "m", "gauge", "What.", [([("a", "x\"\\\n"), ("b", "")], 7)]);
        metric(&mut text, "n_total", "counter", "Else.", [([], 8)]);
        let expected = "# HELP m What.\n# TYPE m gauge\nm{a=\"x\\\"\\\\\\n\",b=\"\"} 7\n\
                        # HELP n_total Else.\n# TYPE n_total counter\nn_total 8\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn every_metric_stands_in_the_document_with_its_meaning() {
        let document = include_str!("../../../docs/operations.md");
        for (name, kind, help, _) in METRICS {
            assert!(document.contains(&format!("| `{name}` | {kind} | {help} |")), "{name}");
        }
    }
}

//! The store's figures in Prometheus' text form: `plasmon stats --prometheus`. docs/operations.md lists them.

use crate::{Brain, Error, Figure, NamespaceInfo, Stats};
use std::fmt::{Display, Write};

/// Above so many namespaces there are no figures for each: one for each user's session would drown whoever collects
/// them.
const NAMESPACES_MAX: usize = 100;

/// All of it. Ends with a line break, as the form demands.
pub(super) fn text(brain: &Brain, stats: &Stats) -> Result<String, Error> {
    let mut text = String::new();
    let path = brain.path().display().to_string();
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("socket", &path)];
    metric(&mut text, "plasmon_info", "gauge", "The store that the figures are of; always 1.", [(labels, 1)]);
    for figure in stats.figures() {
        metric(&mut text, &name_of(&figure), kind_of(&figure), figure.meaning, [([], figure.value)]);
    }
    let refusals = stats.refusals.iter().map(|it| {
        let namespace = it.namespace.as_ref().map_or("", |namespace| namespace.as_str());
        ([("reason", it.reason.as_str()), ("namespace", namespace)], it.learns)
    });
    let help = "The same, by reason and namespace.";
    metric(&mut text, "plasmon_refusals_total", "counter", help, refusals);
    let namespaces = brain.namespaces()?;
    if namespaces.len() <= NAMESPACES_MAX {
        let each = |value: fn(&NamespaceInfo) -> u64| {
            namespaces.iter().map(move |info| ([("namespace", info.namespace.as_str())], value(info)))
        };
        let (names, bytes) = (each(|info| info.names), each(|info| info.bytes));
        metric(&mut text, "plasmon_namespace_names", "gauge", "Names that are bound in a namespace.", names);
        metric(&mut text, "plasmon_namespace_bytes", "gauge", "Bytes of the objects of a namespace.", bytes);
    }
    Ok(text)
}

/// The figure's own name, which ends in `_total` where it only rises, as Prometheus wants it.
fn name_of(figure: &Figure) -> String {
    format!("plasmon_{}{}", figure.name, if figure.is_counter { "_total" } else { "" })
}

fn kind_of(figure: &Figure) -> &'static str {
    if figure.is_counter { "counter" } else { "gauge" }
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
        let store = crate::testing::Store::start(8 << 20).unwrap();
        let document = include_str!("../../../docs/operations.md");
        for figure in store.connect().unwrap().stats().unwrap().figures() {
            let (name, kind) = (name_of(&figure), kind_of(&figure));
            assert!(document.contains(&format!("| `{name}` | {kind} | {} |", figure.meaning)), "{name}");
        }
    }
}

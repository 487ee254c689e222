"""The figures for Prometheus are what its own parser reads."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import plasmon
import pytest
from prometheus_client.parser import text_string_to_metric_families


def scraped(path: str) -> tuple[dict[str, float], dict[str, dict[str, str]]]:
    program = Path(sysconfig.get_path("scripts"), "plasmon")
    done = subprocess.run(
        [program, "--socket", path, "stats", "--prometheus"], capture_output=True, text=True, check=True
    )
    values, labels = {}, {}
    for family in text_string_to_metric_families(done.stdout):
        assert family.documentation and family.type in ("gauge", "counter"), family
        for sample in family.samples:
            key = ":".join([sample.name, *(sample.labels.values() if "namespace" in sample.labels else [])])
            values[key], labels[key] = sample.value, sample.labels
    return values, labels


def test_prometheus_reads_the_figures(store: plasmon.Store) -> None:
    brain = store.connect("namespace-1")
    brain["a"], brain["b"] = np.zeros(100_000), 1
    held = brain["a"]
    values, labels = scraped(store.path)
    stats = brain.stats()
    for name in ("capacity_bytes", "used_bytes", "free_bytes", "largest_free_bytes", "limbo_bytes", "objects", "pins"):
        assert values[f"plasmon_{name}"] == stats[name], name
    for name in stats.keys() - {"store_pid", "refusals"}:  # nothing was refused, so there is nothing to count
        assert f"plasmon_{name}" in values or f"plasmon_{name}_total" in values, name
    assert values["plasmon_pinned_bytes"] > 800_000 and held.nbytes == 800_000
    assert (
        values["plasmon_namespace_names:namespace-1"] == 2 and values["plasmon_namespace_bytes:namespace-1"] > 800_000
    )
    assert labels["plasmon_info"]["socket"] == store.path
    before = values["plasmon_commits_total"]
    brain["c"] = 1
    assert scraped(store.path)[0]["plasmon_commits_total"] == before + 1


def test_refused_learns_are_counted_by_reason_and_namespace(store: plasmon.Store) -> None:
    brain = store.connect("namespace-1")
    for _ in range(2):
        with pytest.raises(plasmon.StoreFull):
            brain["large"] = np.zeros(2 * brain.size())
    (refused,) = brain.stats()["refusals"]  # of memory that was asked for in advance, before there was a name
    values, labels = scraped(store.path)
    (key,) = (key for key in values if key.startswith("plasmon_refusals_total"))
    assert values[key] == refused["learns"] == 2
    assert labels[key]["reason"] == refused["reason"] == "store_full"


def test_with_many_namespaces_there_are_no_figures_of_each(store: plasmon.Store) -> None:
    for number in range(110):
        store.connect(f"session-{number}")["a"] = number
    values, _ = scraped(store.path)
    assert values["plasmon_namespaces"] > 110
    assert not any(name.startswith("plasmon_namespace_") for name in values)

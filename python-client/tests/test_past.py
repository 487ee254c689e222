"""History, snapshots and views, through real stores and processes."""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pandas as pd
import plasmon
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plasmon import exceptions


@pytest.fixture
def brain() -> Iterator[plasmon.Brain]:
    with plasmon.Store(size="64MB") as store:
        yield store.connect()


def eventually(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def views(brain: plasmon.Brain) -> int:
    return len(brain.views())


# ---- history


def test_history_has_every_version_and_why_it_ended(brain: plasmon.Brain) -> None:
    brain.learn("n", 0)
    brain["n"] = 1
    assert [entry.reason for entry in brain.history("n")] == [None], "nothing is kept unless it is declared"
    brain.declare(history=plasmon.History(versions=2))
    versions = [brain.learn("n", value, f"is {value}", metadata={"n": value}) for value in (2, 3)]
    del brain["n"]
    last, before = brain.history("n")
    assert (last.version, last.reason, last.description, last.metadata) == (versions[1], "forgotten", "is 3", {"n": 3})
    assert (before.version, before.reason, before.kind, before.bytes) == (versions[0], "rebound", "int64", 8)
    assert (last.writer, last.owner) == (os.getpid(), os.getuid())
    assert last.ended is not None and before.created <= last.created <= last.ended
    assert abs(last.created - time.time()) < 3600
    brain["n"] = 4
    brain.clear()
    assert brain.history("n")[0].reason == "cleared"
    brain.learn("short", 1, ttl=0.001)
    eventually(lambda: "short" not in brain and len(brain.history("short")) == 1)
    assert brain.history("short")[0].reason == "expired"
    assert brain.history("nobody") == []
    with pytest.raises(AttributeError):
        last.version = 7  # type: ignore[misc]


def test_a_version_is_recalled_in_every_form(brain: plasmon.Brain) -> None:
    brain.declare(history=plasmon.History())
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    version = brain.learn("frame", frame)
    brain["frame"] = frame * 2
    pd.testing.assert_frame_equal(brain.recall("frame", version=version), frame)
    assert brain.recall("frame", version=version, as_="arrow", columns=["a"]).column_names == ["a"]
    first = brain.learn("array", np.arange(1000))
    brain["array"] = np.zeros(1000)
    held, copy = brain.recall("array", version=first), brain.recall("array", version=first, copy=True)
    assert not held.flags.writeable and copy.flags.writeable and (held == copy).all()
    brain.purge("array")
    assert held.sum() == 499_500, "what was recalled stays"
    other = brain.in_namespace("other")
    other.declare(history=plasmon.History())
    there = other.learn("n", object)
    other["n"] = 1
    assert brain.recall("n", version=there, namespace="other") is object
    assert [entry.version for entry in brain.history("n", namespace="other")][1] == there


def test_as_of_is_a_moment_by_the_clock(brain: plasmon.Brain) -> None:
    brain.declare(history=plasmon.History())
    for value in range(20):
        brain["n"] = value
    for value, entry in enumerate(reversed(brain.history("n"))):
        # A float and a datetime say less than the store knows, and a version's own time means that version, or one that
        # was made before the time that the number can say had passed.
        assert value <= brain.recall("n", as_of=entry.created) <= value + 1
        aware = datetime.fromtimestamp(entry.created, timezone(timedelta(hours=7)))
        naive = datetime.fromtimestamp(entry.created)
        assert value <= brain.recall("n", as_of=aware) == brain.recall("n", as_of=naive) <= value + 1
    del brain["n"]
    ended = brain.history("n")[0].ended
    assert ended is not None
    for nothing in (0, -1e12, -math.inf, math.inf, ended + 3600, datetime(1960, 1, 1)):
        with pytest.raises(plasmon.NameNotFound):
            brain.recall("n", as_of=nothing)
    with pytest.raises(ValueError, match="NaN"):
        brain.recall("n", as_of=math.nan)
    assert brain.restore("n", as_of=brain.history("n")[0].created) > 20
    assert brain["n"] == 19


def test_what_is_no_version_is_refused_and_said(brain: plasmon.Brain) -> None:
    brain["n"] = 1
    with pytest.raises(plasmon.VersionGone, match=r"version 4096 .* not kept") as caught:
        brain.recall("n", version=4096)
    assert (caught.value.name, caught.value.namespace, caught.value.version) == ("n", "default", 4096)
    assert pickle.loads(pickle.dumps(caught.value)).version == 4096
    wrong: list[Callable[[], Any]] = [
        lambda: brain.recall("n", version=1, as_of=1.0),
        lambda: brain.recall("n", version=1, timeout=1),
        lambda: brain.recall("n", version="1"),  # type: ignore[arg-type]
        lambda: brain.recall("n", as_of="yesterday"),  # type: ignore[arg-type]
        lambda: brain.restore("n"),
        lambda: brain.snapshot(7),  # type: ignore[arg-type]
        lambda: brain.snapshot("s", "default"),
        lambda: brain.view("s"),  # type: ignore[arg-type]
        lambda: brain.declare(history=3),  # type: ignore[arg-type]
        lambda: plasmon.History(versions=1.5),  # type: ignore[arg-type]
    ]
    for call in wrong:
        with pytest.raises(TypeError):
            call()
    for bounds in ({"versions": 0}, {"bytes": 0}, {"age": 0}, {"age": 1e-12}, {"age": -1}, {"age": "soon"}):
        with pytest.raises(ValueError, match=r"is|not"):
            plasmon.History(**bounds)  # type: ignore[arg-type]
    for label in ("", "a/b", "x" * 65):
        with pytest.raises(exceptions.BadName):
            brain.snapshot(label)


def test_what_is_not_named_stays_declared(brain: plasmon.Brain) -> None:
    brain.declare(ttl="1h", sliding=True)
    brain.declare(history=plasmon.History(versions=3, age=timedelta(days=7), bytes=1 << 70))
    assert brain.kept_history() == plasmon.History(versions=3, age="7d")
    brain["n"] = 1
    assert (brain.stat("n")["ttl"], brain.stat("n")["sliding"]) == (3600.0, True)
    with pytest.raises(plasmon.CacheHasNoPast) as caught:
        brain.declare(cache=True)
    assert caught.value.namespace == "default"
    brain.declare(ttl=None)
    brain["n"] = 2
    assert brain.stat("n")["ttl"] is None and len(brain.history("n")) == 2
    brain.declare(cache=True, history=None)
    assert brain.kept_history() is None and len(brain.history("n")) == 1
    with pytest.raises(plasmon.CacheHasNoPast):
        brain.declare(history=plasmon.History())
    brain.declare(cache=False, history=plasmon.History(age=math.inf))
    assert brain.kept_history() == plasmon.History()
    # What is refused has changed nothing.
    kept = brain.recall("n")
    brain["n"] = 3
    brain.snapshot("s")
    refused: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"cache": True, "history": None}, plasmon.CacheHasNoPast),
        ({"cache": True, "history": plasmon.History(versions=1)}, plasmon.CacheHasNoPast),
        ({"ttl": 0, "history": None}, ValueError),
        ({"sliding": True, "history": None}, ValueError),
        ({"ttl": 5, "cache": True}, plasmon.CacheHasNoPast),
    ]
    for wrong, error in refused:
        with pytest.raises(error):
            brain.declare(**wrong)
        brain.learn("lives", 1)
        assert brain.stat("lives")["ttl"] is None and brain.kept_history() == plasmon.History()
    assert brain.recall("n", version=brain.history("n")[1].version) == kept
    brain.declare("a-cache", cache=True)
    with pytest.raises(plasmon.CacheHasNoPast):
        brain.declare("a-cache", ttl=5, history=plasmon.History())
    brain.learn("lives", 1, namespace="a-cache")
    assert brain.stat("lives", namespace="a-cache")["ttl"] is None
    brain.declare("other", history=plasmon.History(versions=1))
    assert brain.in_namespace("other").kept_history() == brain.kept_history("other") == plasmon.History(versions=1)
    brain.declare("third")
    assert "third" in brain.namespaces()


def test_what_was_is_restored_undeleted_and_purged(brain: plasmon.Brain) -> None:
    brain.declare(history=plasmon.History())
    good = brain.learn("config", np.ones(100_000))
    brain["config"] = np.zeros(100_000)
    used = brain.used()
    assert brain.restore("config", version=good) > good
    assert brain["config"].sum() == 100_000 and brain.used() == used, "no bytes move"
    with pytest.raises(plasmon.ConditionFailed):
        brain.undelete("config")
    brain.forget_many(["config"])
    brain["bound"] = 1
    assert brain.names(deleted=True) == brain.names(deleted=True, prefix="co", match="*fig") == ["config"]
    assert brain.names(deleted=True, prefix="x") == brain.names("nowhere", deleted=True) == []
    with pytest.raises(ValueError, match="all"):
        brain.names("all", deleted=True)
    brain.undelete("config")
    assert brain["config"].sum() == 100_000
    brain.purge("config")
    assert len(brain.history("config")) == 1
    del brain["config"]
    brain.purge("config")
    assert brain.history("config") == brain.names(deleted=True) == []
    with pytest.raises(plasmon.NameNotFound):
        brain.undelete("config")
    eventually(lambda: brain.stats()["past_bytes"] == 0)


# ---- snapshots


def test_a_snapshot_is_seen_compared_restored_and_dropped(brain: plasmon.Brain) -> None:
    brain.update(stays=1, changes=1, goes=np.arange(1000))
    assert brain.snapshot("then") == "then"
    (known,) = brain.snapshots()
    assert (known.label, known.names, known.namespaces, known.pid) == ("then", 3, ["default"], os.getpid())
    assert known.bytes >= 8000 and abs(known.created - time.time()) < 3600
    with pytest.raises(plasmon.SnapshotExists) as exists:
        brain.snapshot("then")
    assert exists.value.label == "then"
    brain["changes"], brain["comes"] = 2, 3
    del brain["goes"]
    differs = brain.diff("then")
    assert differs and (differs.added, differs.changed, differs.removed) == (["comes"], ["changes"], ["goes"])
    brain.snapshot("later")
    assert brain.diff("later", "then").added == ["goes"] and not brain.diff("later")
    with brain.at("then") as then:
        assert then.moment == known.moment and (then["goes"] == np.arange(1000)).all() and "comes" not in then
        assert brain.restore_snapshot("then", ["goes", "comes", "goes"]) > known.moment
        assert (sorted(brain), brain["changes"]) == (["changes", "goes", "stays"], 2)
        brain.restore_snapshot("then")
        assert not brain.diff("then") and brain["changes"] == 1
        brain.drop_snapshot("then")
        brain["changes"] = 5
        assert then["changes"] == 1, "a view stays when its snapshot is dropped"
    with pytest.raises(plasmon.SnapshotNotFound) as missing:
        brain.drop_snapshot("then")
    assert missing.value.label == "then" and isinstance(missing.value, KeyError)
    brain.drop_snapshot("then", missing_ok=True)
    for call in (brain.at, brain.restore_snapshot, brain.diff):
        with pytest.raises(plasmon.SnapshotNotFound):
            call("then")


def test_a_label_is_made_of_the_time(brain: plasmon.Brain) -> None:
    labels = [brain.snapshot() for _ in range(5)]
    assert labels == sorted(set(labels)) == [known.label for known in brain.snapshots()]
    assert datetime.strptime(labels[0], "%Y-%m-%dT%H.%M.%S.%fZ").year >= 2024


def test_a_snapshot_is_of_the_namespaces_that_were_named(brain: plasmon.Brain) -> None:
    other = brain.in_namespace("other")
    brain["n"], other["n"], brain.in_namespace("third")["n"] = 1, 2, 3
    with pytest.raises(plasmon.NamespaceNotFound):
        brain.snapshot("s", ["default", "nowhere"])
    brain.snapshot("s", ["default", "other"])
    brain["n"], other["n"] = 10, 20
    view = brain.at("s")
    assert (view["n"], view.in_namespace("other")["n"], other.at("s").namespace) == (1, 2, "other")
    uses: list[Callable[[plasmon.View], Any]] = [
        lambda it: it["n"],
        len,
        lambda it: "n" in it,
        lambda it: it.metadata(),
    ]
    for use in uses:
        with pytest.raises(plasmon.NamespaceNotFound):
            use(view.in_namespace("third"))
    other.restore_snapshot("s")
    assert (brain["n"], other["n"]) == (10, 2)
    other.declare(cache=False)
    with pytest.raises(plasmon.CacheHasNoPast):
        other.declare(cache=True)


# ---- views


def test_a_view_is_a_mapping_that_stays_as_it_is(brain: plasmon.Brain) -> None:
    before: dict[str, Any] = {"a": 1, "b": {"x": [1]}, "c": None}
    brain.update(before)
    brain.learn("d", 4, "four", metadata={"n": 4})
    with brain.view() as view:
        known = brain.metadata("d")
        brain["a"], brain["e"] = 10, 5
        brain.forget_many(["b", "d"])
        assert view == before | {"d": 4} and {**view} == dict(view.items()) == before | {"d": 4}
        assert list(view) == view.names() == ["a", "b", "c", "d"] == list(view.keys()) and len(view) == 4
        assert list(view.values()) == [1, {"x": [1]}, None, 4] and view.names(prefix="b") == ["b"]
        assert "b" in view and "e" not in view and 7 not in view and "" not in view
        assert view.get("e") is None and view.get("", 3) == 3 and view.get("c", 3) is None
        with pytest.raises(plasmon.NameNotFound) as caught:
            view["e"]
        assert (caught.value.name, caught.value.namespace) == ("e", "default")
        then = view.metadata("d")
        assert then == {key: known[key] for key in then} and len(then) == len(known) - 3
        assert (then["description"], then["metadata"]) == ("four", {"n": 4})
        assert list(view.metadata()) == list(view) and view.metadata("a", "e")["e"] is None
        assert [it["name"] for it in view.metadata(output="list")] == list(view)
        assert isinstance(view, Mapping) and view and not hasattr(view, "__setitem__")
        assert repr(view) == f"<plasmon.View of moment {view.moment}, namespace 'default'>"
        assert view.in_namespace("nowhere") == {}
    assert dict(brain) == {"a": 10, "c": None, "e": 5}
    with pytest.raises(TypeError, match="view"):
        plasmon.View()


def test_a_view_recalls_in_every_form(brain: plasmon.Brain) -> None:
    brain["array"], brain["frame"] = np.arange(10), pd.DataFrame({"a": [1], "b": [2]})
    view = brain.view()
    brain.clear()
    array = view.recall("array")
    assert not array.flags.writeable and view.recall("array", copy=True).flags.writeable
    assert view.recall("frame", as_="arrow").num_rows == 1
    assert list(view.recall("frame", columns=["b"]).columns) == ["b"]
    assert view.recall("array", as_="buffer").nbytes == 80
    view.close()
    assert array.sum() == 45, "what was recalled stays"


def test_an_ended_view_says_so_whoever_ended_it(brain: plasmon.Brain) -> None:
    brain["n"] = 1
    uses: list[Callable[[plasmon.View], Any]] = [
        lambda view: view["n"],
        lambda view: view.get("n"),
        lambda view: "n" in view,
        len,
        lambda view: view.recall("n", copy=True),
        lambda view: view.metadata("n"),
        lambda view: view.in_namespace("other").names(),
    ]
    view, other = brain.view(), brain.view()
    sibling = view.in_namespace("default")
    view.close()
    view.close()
    for use in uses:
        for ended in (view, sibling):
            with pytest.raises(plasmon.ViewEnded):
                use(ended)
    assert [it.id for it in brain.views()] == [other.id]
    brain.end_view(other.id)
    with pytest.raises(plasmon.ViewEnded):
        len(other)
    with pytest.raises(plasmon.ViewEnded):
        brain.end_view(other.id)
    with pytest.raises(plasmon.ViewEnded):
        brain.view(moment=brain.view().moment + 1)
    stays = brain.view()
    brain.sleep()
    for call in (brain.views, brain.view, brain.snapshots, lambda: brain.history("n")):
        with pytest.raises(exceptions.ClientAsleep):
            call()
    assert stays["n"] == 1 and len(stays) == 1
    brain.wake_up()
    brain["n"] = 2
    assert stays["n"] == 1 and dict(stays) == {"n": 1}
    stays.close()
    assert views(brain) == 0


def test_a_view_ends_when_it_is_collected(brain: plasmon.Brain) -> None:
    brain["n"] = np.zeros(10_000)
    view = brain.view()
    sibling = view.in_namespace("other")
    del brain["n"]
    del view
    assert views(brain) == 1 and brain.stats()["past_bytes"] > 0
    del sibling
    assert views(brain) == 0
    cycle: list[Any] = [brain.view()]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert views(brain) == 0
    eventually(lambda: brain.stats()["past_bytes"] == 0)


def test_a_view_does_not_outlive_a_fork(brain: plasmon.Brain) -> None:
    brain["n"] = 1
    view = brain.view()
    ours, its = multiprocessing.Pipe()
    child = os.fork()
    if child == 0:
        try:
            told: list[Any] = []
            for call in (lambda: view["n"], lambda: len(view)):
                try:
                    told.append(call())
                except plasmon.ViewEnded:
                    told.append("ended")
            with brain.view(moment=view.moment) as same:
                told.append(dict(same))
            its.send(told)
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0 and ours.poll(0)
    assert ours.recv() == ["ended", "ended", {"n": 1}]
    assert view["n"] == 1
    eventually(lambda: views(brain) == 1)


def test_a_view_ends_with_its_store() -> None:
    store = plasmon.Store(size="64MB")
    brain = store.connect()
    brain.update(n=np.arange(1000), changes=1)
    view = brain.view()
    brain["changes"] = 2
    held = view["n"]
    store.close()
    uses: list[Callable[[], Any]] = [lambda: view["n"], lambda: view["changes"], lambda: len(view)]
    for use in uses:
        with pytest.raises(plasmon.ViewEnded):
            use()
    view.close()
    assert held.sum() == 499_500


def joins(path: str, moment: int, pipe: Connection) -> None:
    """Look at a moment that another process holds, until the pipe says that it is enough."""
    view = plasmon.Brain(path).view(moment=moment)
    pipe.send(dict(view))
    pipe.recv()
    pipe.send(dict(view))
    pipe.recv()


def test_a_view_is_joined_by_another_process_and_ends_when_that_is_killed(brain: plasmon.Brain) -> None:
    brain.update(a=1, b=2)
    view = brain.view()
    brain.update(a=10, c=3)
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=joins, args=(brain.path, view.moment, its), daemon=True)
    process.start()
    its.close()
    assert ours.recv() == {"a": 1, "b": 2}
    view.close()
    del brain["b"]
    ours.send("again")
    assert ours.recv() == {"a": 1, "b": 2}, "who joined holds the moment, too"
    (left,) = brain.views()
    assert (left.pid, left.owner, left.moment) == (process.pid, os.getuid(), view.moment)
    eventually(lambda: brain.views()[0].kept == 2)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    eventually(lambda: views(brain) == 0)
    eventually(lambda: brain.stats()["kept"] == 0)


# ---- everything at once: whole states against snapshots and views

NAMES = [f"name-{number}" for number in range(6)]
CALLS = ["learn", "learn", "learn", "forget", "forget", "snapshot", "view", "restore", "restore-some", "drop", "close"]
Step = tuple[str, int, int]
steps = st.lists(
    st.tuples(st.sampled_from(CALLS), st.integers(0, len(NAMES) - 1), st.integers(0, 1 << 20)), max_size=60
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_snapshots_and_views_show_whole_states(brain: plasmon.Brain, steps: list[Step]) -> None:
    brain.clear()
    state: dict[str, int] = {}
    labels: dict[str, dict[str, int]] = {}
    seen: list[tuple[plasmon.View, dict[str, int]]] = []
    for what, number, value in steps:
        name, labelled = NAMES[number], list(labels)[value % max(len(labels), 1) :][:1]
        if what == "learn":
            brain[name] = state[name] = value
        elif what == "forget":
            brain.forget(name)
            state.pop(name, None)
        elif what == "snapshot":
            labels[brain.snapshot()] = dict(state)
        elif what == "view":
            seen.append((brain.view(), dict(state)))
        elif what == "close" and seen:
            seen.pop(value % len(seen))[0].close()
        elif what == "drop" and labelled:
            brain.drop_snapshot(labelled[0])
            del labels[labelled[0]]
        elif what == "restore" and labelled:
            brain.restore_snapshot(labelled[0])
            state = dict(labels[labelled[0]])
            assert not brain.diff(labelled[0])
        elif what == "restore-some" and labelled:
            some, then = NAMES[:number], labels[labelled[0]]
            if some:
                brain.restore_snapshot(labelled[0], some)
            state = {key: old for key, old in state.items() if key not in some}
            state |= {key: old for key, old in then.items() if key in some}
        assert dict(brain) == state
        for view, then in seen:
            assert view.get(name) == then.get(name)
    for view, then in seen:
        assert dict(view) == then and len(view) == len(then)
        view.close()
    for label, then in labels.items():
        assert dict(brain.at(label)) == then
        differs = brain.diff(label)
        assert differs.added == sorted(state.keys() - then.keys())
        assert differs.removed == sorted(then.keys() - state.keys())
        assert set(differs.changed) >= {key for key in state.keys() & then.keys() if state[key] != then[key]}
        brain.drop_snapshot(label)
    eventually(lambda: brain.stats()["kept"] == 0)

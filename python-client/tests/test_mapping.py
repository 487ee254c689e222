"""A brain is a dictionary also while others change it; what cannot be had says so, and by its name."""

from __future__ import annotations

import collections
import datetime
import math
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import plasmon
import pytest

# ---- names that are no names


@pytest.mark.parametrize("no_name", ["", "x" * 1025, "é" * 513, "\udcff.csv", "a\ud800"])
def test_what_cannot_be_a_name_is_bound_nowhere(brain: plasmon.Brain, no_name: str) -> None:
    assert no_name not in brain
    assert no_name not in collections.ChainMap(brain)
    assert brain.get(no_name, 7) == 7
    assert brain.pop(no_name, 7) == 7
    assert (no_name, 1) not in brain.items()
    with pytest.raises(plasmon.exceptions.BadName):
        brain[no_name]


@pytest.mark.parametrize("item", [5, None, "ab", ("a",), ("a", 1, 2), (5, 1), (None, 1), ([], 1), ["a", 1]])
def test_what_is_no_item_is_none_of_the_items(brain: plasmon.Brain, item: Any) -> None:
    brain["a"] = 1
    assert ("a", 1) in brain.items()
    assert item not in brain.items()


# ---- others bind and unbind meanwhile


@contextmanager
def _changed_all_the_time(store: plasmon.Store, brain: plasmon.Brain) -> Iterator[None]:
    """Another thread binds and forgets forty names as long as the block runs."""
    other = store.connect(brain.namespace)
    over, begun = threading.Event(), threading.Event()

    def change() -> None:
        while not over.is_set():
            other.learn_many({f"n{number}": [number] * 20 for number in range(40)})
            begun.set()
            for number in range(40):
                other.forget(f"n{number}")

    thread = threading.Thread(target=change)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()


_COPIES: list[Callable[[plasmon.Brain], Any]] = [
    dict,
    lambda brain: {**brain},
    lambda brain: {} | brain,
    collections.OrderedDict,
    lambda brain: dict(brain.items()),
    lambda brain: dict.fromkeys(brain),
    lambda brain: [*brain.values()],
    lambda brain: brain.metadata(),
    lambda brain: sorted(brain.items()),
    lambda brain: [1] in brain.values(),
]


@pytest.mark.parametrize("copy", _COPIES)
def test_copies_beside_a_writer_never_miss_a_name(
    store: plasmon.Store, brain: plasmon.Brain, copy: Callable[[plasmon.Brain], Any]
) -> None:
    brain["stays"] = [7]
    with _changed_all_the_time(store, brain):
        for _ in range(30):
            copied = copy(brain)
            if isinstance(copied, dict):
                assert "stays" in copied
                assert all(type(name) is str for name in copied)


def test_a_dictionary_made_of_a_brain_has_one_moment_and_holds_nothing(
    store: plasmon.Store, brain: plasmon.Brain, nothing_is_left: None
) -> None:
    brain.update({"a": np.arange(1000), "b": np.arange(1000), "c": np.arange(1000)})
    names = brain.keys()
    assert [*names] == ["a", "b", "c"]
    other = store.connect(brain.namespace)
    seen = []
    for name, value in brain.items():
        seen.append(name)
        other.forget("c")
        assert value.sum() == 499_500
    assert seen == ["a", "b"]
    copied = dict(brain)
    assert [*copied] == ["a", "b"]
    other.forget("b")
    with pytest.raises(plasmon.NameNotFound):
        brain["b"]  # the copy is made: nothing is held for it any more
    brain.clear()


def test_a_brain_is_joined_with_dictionaries(brain: plasmon.Brain) -> None:
    brain.update({"a": 1, "b": 2})
    assert brain | {"b": 3} == {"a": 1, "b": 3}
    assert {"b": 3, "c": 4} | brain == {"a": 1, "b": 2, "c": 4}
    same = brain
    brain |= {"d": 5}
    assert brain is same
    assert brain["d"] == 5
    with pytest.raises(TypeError):
        brain | 5


def test_popitem_takes_the_first_name(brain: plasmon.Brain) -> None:
    brain.update({"b": 2, "a": 1})
    assert brain.popitem() == ("a", 1)
    assert brain.popitem() == ("b", 2)
    with pytest.raises(KeyError, match="no name is bound"):
        brain.popitem()


# ---- values that cannot be made anew


class _Broken:
    """A value whose unpickling does what it is told to."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.code,)


_WAYS: list[Callable[[plasmon.Brain], Any]] = [
    lambda brain: brain["broken"],
    lambda brain: brain.get("broken", 5),
    lambda brain: brain.pop("broken", 5),
    lambda brain: brain.setdefault("broken", 5),
    lambda brain: brain.recall("broken"),
    lambda brain: brain.recall("broken", timeout=1),
    lambda brain: brain.recall("broken", copy=True),
    lambda brain: brain.recall("broken", as_="numpy"),
    lambda brain: brain.recall_many(["broken"]),
    lambda brain: list(brain.items()),
    lambda brain: list(brain.values()),
    lambda brain: dict(brain),
    lambda brain: brain.popitem(),
]


@pytest.mark.parametrize("recall", _WAYS)
@pytest.mark.parametrize(
    "code", ["raise KeyError('x')", "raise AttributeError('x')", "import no_such_module_here", "raise RecursionError"]
)
def test_a_value_that_cannot_be_unpickled_is_no_missing_name(
    brain: plasmon.Brain, recall: Callable[[plasmon.Brain], Any], code: str
) -> None:
    brain["broken"] = _Broken(code)
    with pytest.raises(plasmon.UnpicklingFailed) as raised:
        recall(brain)
    error = raised.value
    assert (error.name, error.namespace, error.type_name) == ("broken", brain.namespace, "builtins.exec")
    assert type(error.__cause__).__name__ in str(error)
    assert "'broken'" in str(error)
    assert not isinstance(error, KeyError)
    assert isinstance(error, pickle.UnpicklingError)
    assert "broken" in brain  # pop and popitem take nothing that they cannot give


def test_an_exception_that_cannot_say_what_it_is_is_named(brain: plasmon.Brain) -> None:
    says_nothing = "class Silent(Exception):\n def __str__(self): raise ValueError\nraise Silent"
    brain["broken"] = _Broken(says_nothing)
    with pytest.raises(plasmon.UnpicklingFailed, match="Silent"):
        brain["broken"]


def test_a_memoized_result_that_cannot_be_unpickled_is_not_taken_for_missing(brain: plasmon.Brain) -> None:
    calls = []

    @brain.memoize(namespace=brain.namespace)
    def broken() -> Any:
        calls.append(1)
        return _Broken("raise KeyError('x')")

    for _ in range(2):
        with pytest.raises(plasmon.UnpicklingFailed):
            broken()
    assert len(calls) == 2  # a result that nobody can read is computed anew


# ---- names that are like another


def test_a_wait_for_a_wrong_name_brings_near_ones(brain: plasmon.Brain) -> None:
    brain["daily-prices"] = 1
    with pytest.raises(plasmon.WaitTimeout, match=r'within 0\.01 seconds; did you mean "daily-prices"\?') as raised:
        brain.recall("daily_prices", timeout=0.01)
    copied = pickle.loads(pickle.dumps(raised.value))
    assert (str(copied), copied.name) == (str(raised.value), "daily_prices")


def test_a_wrong_name_brings_near_ones(store: plasmon.Store, brain: plasmon.Brain) -> None:
    brain.update({"daily-prices": 1, "volume": 2})
    store.connect("elsewhere")["monthly"] = 3
    for wrong in ("daily_prices", "dialy-prices", "Daily-Prices"):
        with pytest.raises(KeyError, match='did you mean "daily-prices"') as raised:
            brain[wrong]
        assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    for look in (
        lambda: brain["monthly"],
        lambda: brain.recall("monthly"),
        lambda: brain.pop("monthly"),
        lambda: brain.stat("monthly"),
        lambda: brain.forget("monthly", missing_ok=False),
        lambda: brain.recall_many(["monthly"]),
    ):
        with pytest.raises(KeyError, match='bound in namespace "elsewhere"'):
            look()
    with pytest.raises(KeyError) as raised:
        brain["temperature"]
    assert "mean" not in str(raised.value)


def test_near_names_are_found_among_very_many(brain: plasmon.Brain) -> None:
    brain.learn_many({f"measurement-{number}": number for number in range(40_000)})
    with pytest.raises(KeyError, match="measurement-3999"):
        brain["measurement-3999x"]


# ---- how long


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5_400),
        ("2d", 172_800),
        ("1w 500ms", 604_800.5),
        (datetime.timedelta(hours=2), 7_200),
        (np.timedelta64(90, "m"), 5_400),
        (np.float64(2.5), 2.5),
        (3, 3),
        ("3.5", 3.5),
        (math.inf, None),
        (1e300, None),
        (10**400, None),
    ],
)
def test_a_length_of_time_is_said_in_many_ways(brain: plasmon.Brain, ttl: Any, seconds: float | None) -> None:
    brain.learn("a", 1, ttl=ttl)
    brain.learn_many({"b": 1}, ttl=ttl)
    brain.declare(ttl=ttl)
    brain.learn("c", 1)
    assert {brain.stat(name)["ttl"] for name in "abc"} == {seconds}
    assert brain.recall("a", timeout=ttl) == 1
    assert brain.wait("a", timeout=ttl) > 0
    assert plasmon.Brain(brain.path, brain.namespace, timeout=ttl)["a"] == 1


@pytest.mark.parametrize("wrong", [-1, math.nan, -math.inf, "", "nan", "ten minutes", "1h-5m", datetime.timedelta(-1)])
def test_what_is_no_length_of_time_is_refused(store: plasmon.Store, brain: plasmon.Brain, wrong: Any) -> None:
    for use in (
        lambda: brain.learn("a", 1, ttl=wrong),
        lambda: brain.declare(ttl=wrong),
        lambda: brain.memoize(ttl=wrong),
        lambda: brain.recall("a", timeout=wrong),
        lambda: brain.wait("a", timeout=wrong),
        lambda: brain.wait_change("a", version=0, timeout=wrong),
        lambda: plasmon.Brain(store.path, timeout=wrong),
        lambda: plasmon.Store(size="16MB", timeout=wrong),
    ):
        with pytest.raises(ValueError, match=r"seconds or more|a time is a number"):
            use()
    with pytest.raises(TypeError, match="number of seconds"):
        brain.learn("a", 1, ttl=[])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="more than 0"):
        brain.memoize(ttl=0)


@pytest.mark.parametrize("timeout", ["1m", datetime.timedelta(minutes=1), math.inf, 10**400])
def test_a_store_is_waited_for_as_long_as_is_said(timeout: Any) -> None:
    with plasmon.Store(size="16MB", timeout=timeout) as store:
        assert store.connect().learn("a", 1)


def test_a_size_that_is_none_is_named() -> None:
    with pytest.raises(plasmon.StoreUnavailable, match="-1.* is not a size"):
        plasmon.Store(size=-1)


# ---- figures


def test_figures_of_one_namespace_and_of_the_store(store: plasmon.Store, brain: plasmon.Brain) -> None:
    assert len(brain) == 0
    brain.learn("a", np.arange(100_000), "a text", metadata={"unit": "€"})
    brain["b"] = 1
    assert len(brain) == 2
    assert len(store.connect().in_namespace("never-used")) == 0
    assert brain.size() == brain.bytes == brain.stats()["capacity_bytes"]
    assert brain.used() >= 800_000
    known = brain.metadata()
    assert known == {name: brain.metadata(name) for name in "ab"}
    assert known["a"]["description"] == "a text"
    assert known["a"]["metadata"] == {"unit": "€"}


def test_everything_about_many_names_comes_in_pages(brain: plasmon.Brain) -> None:
    long = "x" * 60_000
    brain.learn_many({f"{number:05}": number for number in range(2_500)})
    for number in range(0, 2_500, 100):
        brain.learn(f"{number:05}", number, long)
    known = brain.metadata(output="list")
    assert [one["name"] for one in known] == [f"{number:05}" for number in range(2_500)]
    assert sum(one["description"] == long for one in known) == 25


# ---- no store


def test_what_is_there_instead_of_a_store_is_named(tmp_path: Path) -> None:
    closed = plasmon.Store(size="64MB")
    closed.close()
    with pytest.raises(plasmon.StoreUnavailable, match="private store"):
        plasmon.Brain(closed.path)

    socket_path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(socket_path)
        server.listen()

        def answer() -> None:
            client, _ = server.accept()
            with client:
                client.recv(16)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(plasmon.StoreUnavailable, match="is no plasmon-store"):
            plasmon.Brain(socket_path)
        thread.join()


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user, which only root can")
def test_a_directory_that_may_not_be_entered_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    code = f"""
import os, plasmon
os.setuid(65534)
try:
    plasmon.Brain({str(closed / "store.sock")!r})
except plasmon.StoreUnavailable as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "may not enter" in said
    assert "chmod o+x" in said


def test_messages_name_nothing_of_rust(brain: plasmon.Brain) -> None:
    with pytest.raises(plasmon.exceptions.DefaultNamespaceError, match=r"clear\(\)"):
        brain.remove_namespace("default")

"""Results are kept in the store; equal calls at once compute once, whoever dies."""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plasmon
import polars as pl
import pyarrow as pa
import pytest
from plasmon._memoize import digest


@pytest.fixture
def memoize(brain: plasmon.Brain) -> Callable[..., Any]:
    def decorator(function: Any, **options: Any) -> Any:
        return brain.memoize(namespace=brain.namespace, **options)(function)

    return decorator


def test_a_result_is_computed_once_and_shared(memoize: Callable[..., Any], brain: plasmon.Brain) -> None:
    calls = []

    def frame(rows: int, *, scale: float = 1.0) -> pd.DataFrame:
        """Make a frame."""
        calls.append((rows, scale))
        return pd.DataFrame({"x": np.arange(rows) * scale})

    remembered = memoize(frame)
    assert (remembered.__name__, remembered.__doc__, remembered.__wrapped__) == ("frame", "Make a frame.", frame)
    assert "frame" in repr(remembered)
    first, second = remembered(1000), remembered(rows=1000, scale=1.0)
    pd.testing.assert_frame_equal(first, second)
    with pytest.raises(ValueError, match="read-only"):
        first["x"].to_numpy()[0] = 1
    assert calls == [(1000, 1.0)] and list(brain) == [remembered.name(1000)]
    remembered(1000, scale=2.0)
    assert len(calls) == 2
    remembered.forget(1000)
    remembered(1000)
    assert len(calls) == 3
    remembered.clear()
    assert list(brain) == []


def test_a_function_written_anew_starts_anew(memoize: Callable[..., Any]) -> None:
    def versions() -> list[Any]:
        def f(x: str) -> Any:
            return x in {"a", "b", "c"}

        old = memoize(f)

        def f(x: str) -> Any:  # type: ignore[no-redef]
            return x in {"a", "b", "d"}

        return [old, memoize(f)]

    old, new = versions()
    assert (old("c"), new("c"), old("d"), new("d")) == (True, False, False, True)
    assert old.name("c") == versions()[0].name("c")


def test_a_key_may_stand_for_the_arguments(memoize: Callable[..., Any]) -> None:
    remembered = memoize(lambda connection, query: (id(connection), query), key=lambda connection, query: query)
    assert remembered(object(), "q") == remembered(object(), "q")
    assert remembered(object(), "other")[1] == "other"


def test_methods_can_be_memoized(brain: plasmon.Brain) -> None:
    calls = []

    class Model:
        def __init__(self, size: int) -> None:
            self.size = size

        @brain.memoize(namespace=brain.namespace, key=lambda self, x: (self.size, x))
        def predict(self, x: int) -> int:
            calls.append(x)
            return self.size * x

    assert [Model(2).predict(3), Model(2).predict(3), Model(3).predict(3)] == [6, 6, 9] and len(calls) == 2


def test_results_expire(memoize: Callable[..., Any], brain: plasmon.Brain) -> None:
    calls: list[int] = []
    remembered = memoize(lambda n: calls.append(n), ttl=0.2)
    remembered(1)
    assert brain.metadata(remembered.name(1))["ttl"] == 0.2
    deadline = time.monotonic() + 60
    while brain.exists(remembered.name(1)):
        assert time.monotonic() < deadline
    remembered(1)
    assert calls == [1, 1]
    assert memoize(lambda: 1, ttl=60, sliding=True)() == 1
    assert [brain.metadata(name)["sliding"] for name in brain if brain.metadata(name)["ttl"] == 60] == [True]


def test_an_exception_is_not_a_result(memoize: Callable[..., Any], brain: plasmon.Brain) -> None:
    calls = []

    def fails(n: int) -> int:
        calls.append(n)
        raise LookupError(n)

    remembered = memoize(fails)
    for _ in range(2):
        with pytest.raises(LookupError):
            remembered(1)
    assert calls == [1, 1] and len(brain) == 0


def test_a_result_that_does_not_fit_is_returned_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    with plasmon.Store(size="8MB") as store:
        brain = store.connect()
        large = brain.memoize()(lambda: np.zeros(2_000_000))
        assert large().nbytes == 16_000_000 and "is not kept" in caplog.text
        assert len(brain.in_namespace("memoized")) == 0
        brain["filler"] = np.zeros(brain.free() - 4096, "u1")
        while brain.free() > 1024:
            brain[f"filler-{brain.free()}"] = np.zeros(64, "u1")
        assert brain.memoize()(lambda: 1)() == 1 and "without memory" in caplog.text


DIFFERENT: list[Any] = [
    None, True, 1, 1.0, "1", b"1", [1], (1,), {1}, frozenset({1}), {1: 1}, [[1], 2], [1, [2]], [1, 2], ["ab"],
    ["a", "b"], {"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a"}, {"b"}, np.zeros(4), np.zeros(4, "f4"), np.zeros((2, 2)),
    np.zeros((4, 4)), np.arange(16).reshape(4, 4), np.arange(16).reshape(4, 4).T, np.arange(8)[::2], np.array(["a"]),
    pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1, 3]}), pd.DataFrame({"b": [1, 2]}), pd.Series([1, 2]),
    pd.DataFrame({"a": [1.0, 2.0]}), pd.DataFrame({"a": [1, 2]}, index=[1, 2]), pl.DataFrame({"a": [1, 2]}),
    pa.table({"a": [1, 2]}), pd.DataFrame({"a": ["x", "y"]}), datetime.date(2024, 1, 1), datetime.date(2024, 1, 2),
]  # fmt: skip


def test_keys_are_equal_for_equal_arguments_and_only_for_those() -> None:
    keys = [digest(value) for value in DIFFERENT]
    assert len(set(keys)) == len(keys)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"x", "y", "z"}) == digest({"z", "y", "x"})
    assert digest(np.arange(8)[::2]) == digest(np.arange(0, 8, 2))
    frame = pd.DataFrame({"a": range(1000), "b": np.arange(1000.0), "c": ["x"] * 1000})
    assert digest(frame) == digest(frame.copy()) == digest(pd.concat([frame[:500], frame[500:]]))
    changed = frame.copy()
    changed.loc[777, "b"] += 1e-9
    assert digest(changed) != digest(frame)


def test_keys_of_frames_are_not_made_of_what_they_look_like(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> str:
        raise AssertionError("shown")

    for kind in (pd.DataFrame, pl.DataFrame, pa.Table, np.ndarray):
        if kind not in (pa.Table, np.ndarray):
            monkeypatch.setattr(kind, "__repr__", refuse)
            monkeypatch.setattr(kind, "__str__", refuse)
    digest(pd.DataFrame({"a": [1]})), digest(pl.DataFrame({"a": [1]}))


KEY = """
import sys, numpy as np, pandas as pd, plasmon
from plasmon._memoize import digest
print(digest([{"k": "v", "j": {"a", "b", "c"}}, np.arange(5), pd.DataFrame({"t": ["x", "y"]})]).hex())
def f(x):
    return x in {"a", "b", "c"}, (1, ("x", 2.0))
print(plasmon.Brain(sys.argv[1]).memoize()(f).name(1))
"""


def test_keys_are_the_same_in_every_process(brain: plasmon.Brain) -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", KEY, brain.path],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


def test_100_equal_calls_of_threads_compute_once(memoize: Callable[..., Any]) -> None:
    barrier, calls = threading.Barrier(100), []

    def slow(n: int) -> list[int]:
        calls.append(n)
        threading.Event().wait(0.3)
        return [n]

    remembered = memoize(slow)

    def work(_: int) -> list[int]:
        barrier.wait(60)
        result: list[int] = remembered(7)
        return result

    with ThreadPoolExecutor(100) as pool:
        assert list(pool.map(work, range(100))) == [[7]] * 100
    assert calls == [7]


CALLER = """
import os, sys, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np, plasmon
brain = plasmon.Brain(sys.argv[1], sys.argv[2])
calls = sys.argv[3]
@brain.memoize(namespace=sys.argv[2])
def slow(n):
    with open(calls, "a") as log:
        print(os.getpid(), file=log)
    if len(open(calls).readlines()) <= int(sys.argv[4]):
        print("computing", flush=True)
        time.sleep(600)
    return np.full(1000, n)
print("ready", flush=True)
sys.stdin.readline()
with ThreadPoolExecutor(10) as pool:
    found = set(pool.map(lambda _: int(slow(7).sum()), range(10)))
print(*found, flush=True)
"""


def callers(brain: plasmon.Brain, log: Path, number: int, stuck: int) -> list[subprocess.Popen[str]]:
    command = [sys.executable, "-c", textwrap.dedent(CALLER), brain.path, brain.namespace, str(log), str(stuck)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(number)
    ]
    assert all(process.stdout and process.stdout.readline() == "ready\n" for process in started)
    return started


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def test_100_equal_calls_of_10_processes_compute_once(brain: plasmon.Brain, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    started = callers(brain, log, 10, 0)
    for process in started:
        go(process)
    assert [process.communicate(timeout=60)[0] for process in started] == ["7000\n"] * 10
    assert len(log.read_text().splitlines()) == 1
    assert len(brain) == 1


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_another_takes_over_from_a_process_that_ends_while_it_computes(
    brain: plasmon.Brain, tmp_path: Path, end: signal.Signals
) -> None:
    log = tmp_path / "calls"
    first, *others = callers(brain, log, 5, 1)
    go(first)
    assert first.stdout and first.stdout.readline() == "computing\n"
    for process in others:
        go(process)
    assert brain.wait(next(name for name in brain if name.endswith("computed")), timeout=10)
    first.send_signal(end)
    first.communicate(timeout=60)
    assert [process.communicate(timeout=60)[0] for process in others] == ["7000\n"] * 4
    assert len(log.read_text().splitlines()) == 2
    assert len(brain) == 1 and not next(iter(brain)).endswith("computed")

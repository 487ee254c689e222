"""Results are kept in the store; equal calls at once compute once, whoever dies."""

from __future__ import annotations

import asyncio
import datetime
import inspect
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
from plasmon import _memoize
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


def test_the_decorator_needs_no_parentheses() -> None:
    with plasmon.start(size="16MB") as store:
        brain = store.connect()

        @brain.memoize
        def doubled(number: int) -> int:
            return 2 * number

        assert (doubled(4), doubled(4)) == (8, 8) and len(brain.in_namespace("memoized")) == 1
        with pytest.raises(TypeError, match=r"memoize\(ttl='10m'\), and this is '10m'"):
            brain.memoize("10m")  # type: ignore[call-overload]


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
        caplog.clear()
        assert brain.memoize()(lambda: "x" * 200)() == "x" * 200 and "is not kept" in caplog.text
        caplog.clear()
        assert brain.memoize()(lambda: 1)() == 1 and not caplog.text  # which stands in the index


def test_a_full_index_costs_a_computation(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []
    with plasmon.Store(size="8MB", options=["--max-objects", "4"]) as store:
        brain = store.connect()
        remembered = brain.memoize()(lambda n: calls.append(n) or n)
        brain.update({str(n): n for n in range(4)})
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(remembered, [1] * 4)) == [1] * 4
        assert len(calls) == 4 and "without memory" in caplog.text and len(brain) == 4


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


# ---- waiting


def test_memoized_calls_below_equal_ones_compute(memoize: Callable[..., Any]) -> None:
    depth = []

    def function(n: int) -> int:
        depth.append(n)
        return n if len(depth) == 3 else int(remembered(n))

    remembered = memoize(function)
    assert remembered(7) == 7 and depth == [7, 7, 7] and remembered(7) == 7 and len(depth) == 3


def test_calls_that_wait_for_each_other_in_a_circle_compute(memoize: Callable[..., Any]) -> None:
    both = threading.Barrier(2)
    depth: list[str] = []

    def one(n: int) -> str:
        depth.append("one")
        both.wait(60) if len(depth) <= 2 else None
        return "one" + (other_remembered(n) if len(depth) <= 3 else "")

    def other(n: int) -> str:
        depth.append("other")
        both.wait(60) if len(depth) <= 2 else None
        return "other" + (one_remembered(n) if len(depth) <= 3 else "")

    one_remembered, other_remembered = memoize(one), memoize(other)
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(one_remembered, 1), pool.submit(other_remembered, 1)]
        texts = [future.result(60) for future in found]
    assert texts[0].startswith("one") and texts[1].startswith("other")


def in_a_process(brain: plasmon.Brain, code: str, *arguments: str) -> str:
    """Run a program; what it prints."""
    head = "import sys, plasmon\nbrain = plasmon.Brain(sys.argv[1], sys.argv[2])\nmemoize = brain.memoize(namespace=sys.argv[2])\n"
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        head + textwrap.dedent(code),
        brain.path,
        brain.namespace,
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_signal_handler_may_call_what_it_interrupts(brain: plasmon.Brain) -> None:
    code = """
    import os, signal
    calls = []
    @memoize
    def function(n):
        calls.append(n)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return n
    signal.signal(signal.SIGUSR1, lambda *_: calls.append(function(1)))
    function(1)
    print(calls)
    """
    assert in_a_process(brain, code) == "[1, 1, 1]"


def test_a_signal_between_two_steps_leaves_nobody_waiting(
    memoize: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Any) -> None:
        raise KeyboardInterrupt  # as a signal handler may where any function begins

    async def fetch(n: int) -> int:
        return n

    remembered, awaited = memoize(lambda n: n), memoize(fetch)
    with monkeypatch.context() as patched:
        patched.setattr(_memoize._Flight, "__enter__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            remembered(1)
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(awaited(1))
    assert _memoize._flights == {}
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(remembered, 1).result(60) == 1


def test_a_wait_for_another_process_handles_signals_at_once(brain: plasmon.Brain) -> None:
    code = """
    import os, signal, threading, time
    @memoize
    def function(n):
        raise AssertionError("another process computes it")
    claim = function.name(1) + " is being computed"
    version = brain.learn(claim, b"of another process")
    def interrupt():
        while brain.stats()["waits"] == 0:
            pass
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    try:
        function(1)
    except KeyboardInterrupt:
        print("interrupted")
    while brain.stats()["waits"]:
        pass
    """
    assert in_a_process(brain, code) == "interrupted"


def test_greenlets_wait_for_each_other(brain: plasmon.Brain) -> None:
    code = """
    from gevent import monkey; monkey.patch_all()
    import gevent
    calls = []
    @memoize
    def function(n):
        calls.append(n)
        gevent.sleep(0.05)
        return n
    # One that another process is said to compute: waiting for it lets the others run.
    claim = function.name(7) + " is being computed"
    brain.learn(claim, b"of another process")
    waiting = gevent.spawn(function, 7)
    greenlets = [gevent.spawn(function, n % 3) for n in range(30)]
    gevent.joinall(greenlets, raise_error=True)
    print([greenlet.value for greenlet in greenlets] == [n % 3 for n in range(30)], sorted(calls), waiting.ready())
    brain.forget(claim)
    print(waiting.get(timeout=60), sorted(calls))
    """
    assert in_a_process(brain, code).splitlines() == ["True [0, 1, 2] False", "7 [0, 1, 2, 7]"]


def test_greenlets_of_a_program_that_is_not_patched_compute(brain: plasmon.Brain) -> None:
    code = """
    import gevent
    calls = []
    @memoize
    def function(n):
        calls.append(n)
        gevent.sleep(0.05)
        return n
    greenlets = [gevent.spawn(function, 1) for _ in range(3)]
    gevent.joinall(greenlets, raise_error=True)
    print([greenlet.value for greenlet in greenlets], len(calls))
    """
    assert in_a_process(brain, code) == "[1, 1, 1] 3"


def test_a_forked_child_does_not_hold_its_parents_claim(brain: plasmon.Brain) -> None:
    code = """
    import os, warnings
    warnings.simplefilter("ignore")
    @memoize
    def function(n):
        child = os.fork()
        if child == 0:
            return "child"  # goes on with the call, as if it were its own
        assert os.waitpid(child, 0)[1] == 0
        claims = [name for name in brain if name.endswith("computed")]
        return f"parent, {len(claims)} claim"
    found = function(1)
    if found == "child":
        os._exit(0)
    print(found, function(1), len(brain))
    """
    assert in_a_process(brain, code) == "parent, 1 claim parent, 1 claim 1"


def test_who_waits_asks_for_nothing(memoize: Callable[..., Any], brain: plasmon.Brain) -> None:
    remembered = memoize(lambda n: n)
    claim = f"{remembered.name(1)} is being computed"
    brain.learn(claim, b"of another process")
    with ThreadPoolExecutor(20) as pool:
        found = [pool.submit(remembered, 1) for _ in range(20)]
        while brain.stats()["waits"] != 1:  # one of them, for all
            pass
        before, looks = brain.stats()["requests"], 3000
        for _ in range(looks):
            last = brain.stats()
        assert (last["requests"] - before, last["waits"]) == (looks, 1)
        brain.forget(claim)
        assert [future.result(60) for future in found] == [1] * 20


def test_what_is_forgotten_while_it_is_computed_is_not_kept(memoize: Callable[..., Any], brain: plasmon.Brain) -> None:
    made: list[Any] = []
    for forget in (lambda: made[-1].forget(1), lambda: made[-1].clear(), brain.clear):
        calls: list[int] = []

        def function(n: int, forget: Any = forget, calls: Any = calls) -> int:
            calls.append(n)
            if len(calls) == 1:
                forget()
            return len(calls)

        remembered = memoize(function, key=lambda n, **_: n)
        made.append(remembered)
        assert remembered(1) == 1 and len(brain) == 0
        assert remembered(1) == 2 and remembered(1) == 2
        brain.clear()


# ---- coroutine functions


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline


def test_coroutine_functions_are_awaited_and_compute_once(memoize: Callable[..., Any], brain: plasmon.Brain) -> None:
    calls = []

    async def fetch(key: int) -> list[int]:
        calls.append(key)
        await asyncio.sleep(0.05)
        return [key]

    remembered = memoize(fetch)
    assert inspect.iscoroutinefunction(remembered) or sys.version_info < (3, 12)

    async def main() -> list[Any]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        ticking = asyncio.create_task(tick())
        found = await asyncio.gather(*(remembered(n % 3) for n in range(60)))
        ticking.cancel()
        assert ticks > 1  # others went on meanwhile
        return found

    assert asyncio.run(main()) == [[n % 3] for n in range(60)] and sorted(calls) == [0, 1, 2]
    assert asyncio.run(remembered(1)) == [1] and len(calls) == 3  # in another loop
    assert len(brain) == 3


def test_a_task_that_is_cancelled_leaves_its_key_to_others(memoize: Callable[..., Any], brain: plasmon.Brain) -> None:
    calls = []

    async def fetch(key: int) -> int:
        calls.append(key)
        await asyncio.sleep(600 if len(calls) == 1 else 0)
        return key

    remembered = memoize(fetch)

    async def main() -> None:
        first = asyncio.create_task(remembered(1))
        while not calls:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(remembered(1)) for _ in range(3)]
        await asyncio.sleep(0)
        others.pop().cancel()  # one that waits: nobody minds
        first.cancel()
        assert await asyncio.gather(*others) == [1, 1] and len(calls) == 2
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(main())
    eventually(lambda: list(brain) == [remembered.name(1)])


def test_a_task_waits_for_another_process_without_a_thread(memoize: Callable[..., Any], brain: plasmon.Brain) -> None:
    async def fetch(key: int) -> int:
        return key

    remembered = memoize(fetch)
    keys = range(40)  # more than there are threads for what asks the store
    for key in keys:
        brain.learn(f"{remembered.name(key)} is being computed", b"of another process")

    async def main() -> None:
        waiting = [asyncio.create_task(remembered(key)) for key in keys]
        while brain.stats()["waits"] < len(keys):
            await asyncio.sleep(0.001)
        assert await asyncio.wait_for(remembered(-1), 60) == -1  # whoever has nothing to wait for goes on
        waiting[0].cancel()
        brain.forget_many([f"{remembered.name(key)} is being computed" for key in keys])
        assert await asyncio.gather(*waiting[1:]) == list(keys[1:])

    asyncio.run(main())
    assert brain.stats()["waits"] == 0


def test_coroutine_functions_below_equal_calls_compute(memoize: Callable[..., Any]) -> None:
    depth = []

    async def fetch(key: int) -> int:
        depth.append(key)
        if len(depth) == 3:
            return key
        return int(await asyncio.create_task(remembered(key)) if len(depth) == 2 else await remembered(key))

    remembered = memoize(fetch)
    assert asyncio.run(asyncio.wait_for(remembered(1), 60)) == 1 and len(depth) == 3


def test_an_exception_of_a_coroutine_is_not_a_result(memoize: Callable[..., Any], brain: plasmon.Brain) -> None:
    calls = []

    async def fails(key: int) -> int:
        calls.append(key)
        await asyncio.sleep(0)
        raise LookupError(key)

    remembered = memoize(fails)

    async def main() -> list[Any]:
        return await asyncio.gather(*(remembered(1) for _ in range(3)), return_exceptions=True)

    assert [type(error) for error in asyncio.run(main())] == [LookupError] * 3 and len(calls) == 3

    eventually(lambda: len(brain) == 0)


def test_coroutine_functions_are_for_asyncio(memoize: Callable[..., Any]) -> None:
    async def fetch(key: int) -> int:
        return key

    awaited = memoize(fetch)(1)
    with pytest.raises(plasmon.NotMemoizable, match="asyncio"):
        awaited.send(None)


# ---- a store that is away, full, or started anew


def test_a_store_that_is_away_costs_a_computation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "store.sock"
    calls = []

    def function(n: int) -> list[int]:
        calls.append(n)
        return [n] * 100

    async def awaited(n: int) -> int:
        return n

    with plasmon.Store(size="64MB", path=path) as store:
        brain = store.connect()
        remembered, strict = brain.memoize()(function), brain.memoize(strict=True)(function)
        asynchronous = brain.memoize()(awaited)
        assert remembered(1) == strict(1) == [1] * 100 and calls == [1]
    for _ in range(3):
        assert remembered(1) == [1] * 100 and asyncio.run(asynchronous(1)) == 1
    assert len(calls) == 4 and caplog.text.count("function is called without memory") == 1
    with pytest.raises(plasmon.StoreUnavailable):
        strict(1)
    # Back again, it is a cache again, in which room is made.
    with plasmon.Store(size="64MB", path=path):
        large = brain.memoize()(lambda n: np.full(1_000_000, n))
        assert [int(large(n)[0]) for n in range(20)] == list(range(20))
        assert brain.stats()["evicted"] > 10 and remembered(2) == remembered(2) and calls[-2:] == [1, 2]
        brain.remove_namespace("memoized")
        assert [int(large(n)[0]) for n in range(20)] == list(range(20))


def test_a_store_that_ends_while_a_result_is_computed_or_waited_for_costs_nothing_else(tmp_path: Path) -> None:
    store = plasmon.Store(size="64MB", path=tmp_path / "store.sock")
    brain = store.connect()

    def ends(n: int) -> int:
        store.close()
        return n

    assert brain.memoize()(ends)(1) == 1
    store = plasmon.Store(size="64MB", path=tmp_path / "store.sock")
    remembered = brain.memoize()(lambda n: n)
    brain.learn(f"{remembered.name(1)} is being computed", b"of another process", namespace="memoized")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(remembered, 1)
        while brain.stats()["waits"] == 0:
            pass
        store.close()
        assert waiting.result(60) == 1


def test_a_brain_that_sleeps_computes_and_leaves_no_claim_behind(brain: plasmon.Brain, store: plasmon.Store) -> None:
    mine = store.connect(namespace=brain.namespace)
    mine["held"] = np.zeros(1000)
    held = mine["held"]  # keeps the session alive

    def function(n: int) -> int:
        mine.sleep()
        return n

    remembered = mine.memoize(namespace=brain.namespace)(function)
    assert remembered(1) == 1 and remembered(1) == 1
    assert [name for name in brain if name.endswith("computed")] == [] and held[0] == 0
    mine.wake_up()

"""Nothing is copied, and what is held stays: within a process, between processes, over fork and spawn, to the end."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plasmon
import polars as pl
import pyarrow as pa
import pytest
from memory import buffers_of, in_arena
from plasmon import _plasmon

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.mark.parametrize(
    "array",
    [
        np.arange(100_000),
        np.ones((100, 200), "f4", order="F"),
        np.arange(100_000)[::-3],
        np.zeros(100_000, bool),
        np.arange(100_000).astype("M8[D]"),
        np.arange(100_000) * 1j,
        np.zeros(10_000, [("a", "i4"), ("b", "f8")]),
        np.array(["abc"] * 10_000),
    ],
    ids=lambda array: str(array.dtype),
)
def test_recalled_arrays_lie_in_the_arena_and_are_read_only(brain: plasmon.Brain, array: np.ndarray) -> None:
    brain["array"] = array
    found = brain["array"]
    assert in_arena(found.__array_interface__["data"][0], found.nbytes)
    assert not found.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        found[0] = found[1]
    mine = brain.recall("array", copy=True)
    assert mine.flags.writeable and not in_arena(mine.__array_interface__["data"][0])
    mine[0] = mine[1]
    assert not in_arena(plasmon.compact(found[:3]).__array_interface__["data"][0])


def test_recalled_frames_lie_in_the_arena(brain: plasmon.Brain) -> None:
    rows = 100_000
    frame = pd.DataFrame(
        {
            "int": np.arange(rows),
            "float": np.random.default_rng(0).random(rows),
            "bool": np.zeros(rows, bool),
            "time": pd.date_range("2000", periods=rows, freq="s"),
            "zone": pd.date_range("2000", periods=rows, freq="s", tz="Europe/Zurich"),
            "category": pd.Categorical(["a", "b"] * (rows // 2)),
            "text": pd.array([f"row {n}" for n in range(rows)], dtype="str"),
        }
    )
    frame.loc[5, "time"] = pd.NaT
    brain["frame"] = frame
    found = brain["frame"]
    for name in ("int", "float", "bool", "time"):
        values = found[name].to_numpy()
        assert in_arena(values.__array_interface__["data"][0], values.nbytes), name
    zone, codes = found["zone"].array._ndarray, found["category"].cat.codes.to_numpy()
    assert in_arena(zone.__array_interface__["data"][0], zone.nbytes)
    assert in_arena(found["category"].array.codes.__array_interface__["data"][0], codes.nbytes)
    assert all(in_arena(*buffer) for buffer in buffers_of(found["text"].array._pa_array))
    objects = pd.DataFrame({"float": np.arange(10_000.0), "object": [object] * 10_000})
    brain["objects"] = objects
    values = brain["objects"]["float"].to_numpy()
    assert in_arena(values.__array_interface__["data"][0], values.nbytes)


@pytest.mark.parametrize("extra", [[], [object] * 5_000], ids=["table", "pickle"])
def test_writing_to_a_frame_copies_the_column_and_changes_nothing_in_the_store(
    brain: plasmon.Brain, extra: list[Any]
) -> None:
    columns = {"a": np.arange(5_000), "b": np.arange(5_000.0), "time": pd.date_range("2000", periods=5_000)}
    frame = pd.DataFrame({**columns, "text": pd.array(["x"] * 5_000, "str")} | ({"extra": extra} if extra else {}))
    frame["category"] = frame["text"].astype("category")
    brain["frame"], brain["series"] = frame, frame["a"]
    assert brain.metadata("frame")["kind"] == ("pickle" if extra else "table")
    found = brain["frame"]
    found.loc[0, "a"] = 7
    found.loc[0, "time"] = pd.NaT
    found.loc[0, "text"] = "y"
    found.loc[0, "category"] = None
    renamed = brain["frame"].rename(columns={"b": "c"})  # what it came from is gone
    renamed.loc[0, "c"] = -1
    series = brain["series"]
    series += 1
    assert (found["a"][0], renamed["c"][0], series[0]) == (7, -1, 1)
    assert brain["frame"].equals(frame) and brain["series"].equals(frame["a"])
    untouched = found["b"].to_numpy()
    assert in_arena(untouched.__array_interface__["data"][0], untouched.nbytes)


def test_recalled_tables_lie_in_the_arena(brain: plasmon.Brain) -> None:
    table = pa.table(
        {
            "int": range(10_000),
            "text": [str(n) for n in range(10_000)],
            "list": [[n] for n in range(10_000)],
            "dictionary": pa.array(["a", "b"] * 5000).dictionary_encode(),
        }
    )
    brain["table"] = table
    for found in (brain["table"], brain.recall("table", columns=["text"]), brain.recall("table", as_="arrow")):
        assert all(in_arena(*buffer) for column in found.columns for buffer in buffers_of(column))
    assert not any(in_arena(*buffer) for buffer in buffers_of(plasmon.compact(found["text"])))
    brain["polars"] = pl.DataFrame({"n": range(10_000)})
    assert all(in_arena(*buffer) for buffer in buffers_of(pa.table(brain["polars"])["n"]))
    brain["bytes"] = bytes(100_000)
    view = np.frombuffer(brain.recall("bytes", as_="buffer"), "u1")
    assert in_arena(view.__array_interface__["data"][0], view.nbytes)


def test_what_is_held_never_changes_and_is_given_back(brain: plasmon.Brain) -> None:
    brain.clear()
    other = brain.in_namespace("going-away")
    other["array"] = np.full(1_000_000, 7)
    other["table"] = pa.table({"n": np.full(1_000_000, 7)})
    other["frame"] = pd.DataFrame({"n": np.full(1_000_000, 7)})
    held = [other["array"], other["table"]["n"].to_numpy(), other["frame"]["n"].to_numpy(), other["array"][5:10]]
    other["array"] = 1
    del other["table"]
    other.remove_namespace()
    for number in range(20):
        brain[f"filler-{number}"] = np.full(1_000_000, number)
    assert all((array == 7).all() for array in held)
    brain.clear()
    del held
    gc.collect()
    assert brain.stats()["limbo_bytes"] == 0


def test_pins_of_what_is_not_bound_hide_nobodys(brain: plasmon.Brain) -> None:
    brain["held"] = np.arange(10_000)
    held = brain["held"]
    views = []
    for _ in range(20):
        writable = brain.client.create_tensor("held", 6, (100,), False)
        views.append(memoryview(writable))  # pinned before it is bound, which it will never be
        with pytest.raises(plasmon.ConditionFailed):
            writable.seal(_plasmon.Options(if_absent=True))
    assert [pin["name"] for pin in brain.pins()] == [f"{brain.namespace}/held"]
    assert held[-1] == 9_999 and len(views) == 20


def test_arrays_outlive_the_store() -> None:
    with plasmon.Store(size="64MB") as store:
        brain = store.connect()
        brain["array"] = np.arange(1_000_000)
        array = brain["array"]
        os.kill(store.pid, signal.SIGKILL)
    assert array.sum() == np.arange(1_000_000).sum()
    with pytest.raises(plasmon.StoreUnavailable):
        brain["array"]
        brain.stats()


def test_the_garbage_collector_may_drop_values_in_any_order(brain: plasmon.Brain) -> None:
    brain["array"] = np.arange(10_000)
    cycle: list[Any] = [brain, brain["array"]]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert brain["array"][5] == 5


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_an_interpreter_that_holds_values_exits_cleanly(brain: plasmon.Brain) -> None:
    brain["array"], brain["table"] = np.arange(10_000), pa.table({"n": [1]})
    brain["frame"] = pd.DataFrame({"n": [1.5]})
    out = run(
        """
        import sys, plasmon, builtins
        brain = plasmon.Brain(sys.argv[1], sys.argv[2])
        held = [brain[name] for name in brain]
        builtins.held = held, brain
        class Late:
            def __del__(self, held=held, print=print): print(held[0][9])
        late = Late()
        """,
        brain.path,
        brain.namespace,
    )
    assert out == "9\n"
    run(
        """
        import sys, plasmon, threading
        brain = plasmon.Brain(sys.argv[1], sys.argv[2])
        held = [brain[name] for name in brain]
        begun = threading.Event()
        def work():
            while True:
                brain["array"], brain["table"], brain["frame"]
                brain["new"] = brain["table"]
                begun.set()
        threading.Thread(target=work, daemon=True).start()
        threading.Thread(target=lambda: brain.recall("never", timeout=300), daemon=True).start()
        begun.wait()
        """,
        brain.path,
        brain.namespace,
    )


def test_an_interpreter_exits_cleanly_while_values_are_being_pickled(brain: plasmon.Brain) -> None:
    run(
        """
        import sys, plasmon, threading
        brain = plasmon.Brain(sys.argv[1], sys.argv[2])
        begun = threading.Barrier(9)
        class Endless:
            def __reduce__(self):
                begun.wait()
                while True: pass
        for learn in 4 * [lambda: brain.learn("a", Endless()), lambda: brain.learn_many({"a": Endless()})]:
            threading.Thread(target=learn, daemon=True).start()
        begun.wait()
        """,
        brain.path,
        brain.namespace,
    )


def test_recalls_of_arrays_and_tables_copy_nothing(brain: plasmon.Brain) -> None:
    numbers = {"int": np.arange(1000), "float": np.arange(1000) / 3, "bool": np.arange(1000) % 3 == 0}
    texts = pd.array([f"row {n}" for n in range(1000)], dtype="str")
    values = {
        "array": np.arange(1000),
        "table": pa.table(numbers),
        "frame": pd.DataFrame({**numbers, "text": texts}),
        "series": pd.Series(texts),
        "polars": pl.DataFrame(numbers),
    }
    brain.update(values)
    before = plasmon.copied_bytes()
    held = [brain[name] for name in values]
    assert plasmon.copied_bytes() == before
    brain["text"] = "\u00fc" * 10
    assert brain["text"] and plasmon.copied_bytes() == before + 20
    del held


def test_recall_of_a_gigabyte_takes_no_memory() -> None:
    text = pa.array(["eight by"]).take(pa.nulls(8 << 20, "i4").fill_null(0))
    batch = pa.record_batch({"n": np.ones(8 << 20), "text": text})
    with plasmon.Store(size=(1 << 30) + (1 << 28), options=["--reserve", "lazy"]) as store:
        brain = store.connect()
        brain["array warm"], brain["table warm"] = np.ones(3), pa.table(batch[:3])
        for kind in ("array", "table"):
            if kind == "array":
                with brain.empty("array", 1 << 27) as array:
                    array.fill(1)
                del array  # it would hold its memory
            else:
                with brain.writer("table", batch.schema) as writer:
                    while writer.write(batch) < 56 << 20:
                        pass
            grown = run(
                """
                import sys, plasmon, numpy, pyarrow
                def resident():
                    with open("/proc/self/status") as status:
                        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
                brain = plasmon.Brain(sys.argv[1])
                brain[sys.argv[2] + " warm"]
                before = resident()
                value = brain[sys.argv[2]]
                print(resident() - before)
                assert value.nbytes >= 1 << 30
                assert value[-1] == 1 if sys.argv[2] == "array" else value["n"][-1].as_py() == 1
                """,
                brain.path,
                kind,
            )
            assert int(grown) < 5_000  # KiB
            del brain[kind]


@pytest.mark.parametrize("kind", ["columns", "a block", "every second row", "chunks", "a table", "an array"])
def test_learning_takes_no_memory_but_the_stores(brain: plasmon.Brain, kind: str) -> None:
    out = run(
        """
        import ctypes, os, resource, sys
        os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # for others take memory ahead
        ctypes.CDLL(None).mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD: nothing is kept that could be used again
        import numpy as np, pandas as pd, plasmon, pyarrow as pa
        brain, kind, rows = plasmon.Brain(sys.argv[1], sys.argv[2]), sys.argv[3], 1_000_000
        text = pa.array(["some text"]).take(pa.nulls(rows // 4, "i4").fill_null(0))
        texts = pa.chunked_array([text] * 4)
        if kind == "an array":
            value = np.random.rand(rows, 16)[:, ::2]
        elif kind == "a block":
            value = pd.DataFrame(np.random.rand(rows, 8), columns=list("abcdefgh"), copy=False)
        elif kind == "every second row":
            value = pd.DataFrame(np.random.rand(2 * rows, 8), columns=list("abcdefgh"))[::2]
        elif kind == "a table":
            value = pa.table({**{str(at): np.random.rand(rows) for at in range(8)}, "texts": texts})
        else:
            value = pd.DataFrame({f"n{at}": np.arange(rows) * float(at) for at in range(8)})
            value["text"] = pd.array(texts.combine_chunks() if kind == "columns" else texts, dtype="str")
        nbytes = int(value.memory_usage(index=False).sum()) if isinstance(value, pd.DataFrame) else value.nbytes
        brain["warm"] = value[:10]  # modules are loaded, threads have their stacks
        with open("/proc/self/status") as status:
            data = next(int(line.split()[1]) for line in status if line.startswith("VmData")) << 10
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (data + nbytes // 20, hard))  # more private memory is refused
        brain["value"] = value
        try:
            bytearray(nbytes // 16)
        except MemoryError:
            print(nbytes)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        same = np.array_equal if kind == "an array" else type(value).equals
        assert same(brain["value"], value)
        """,
        brain.path,
        brain.namespace,
        kind,
    )
    assert brain.metadata("value")["size"] > 0.99 * int(out) > 60_000_000


def _work(path: str, namespace: str, number: int) -> tuple[int, float]:
    brain = plasmon.Brain(path, namespace)
    shared = float(brain["shared"].sum())
    brain[f"child-{number}"] = np.full(1000, number)
    return int(brain[f"child-{number}"].sum()), shared


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pools_of_processes_share_a_store(brain: plasmon.Brain, method: str) -> None:
    brain["shared"] = np.arange(100_000.0)
    expected = float(np.arange(100_000.0).sum())
    with ProcessPoolExecutor(3, multiprocessing.get_context(method)) as pool:
        jobs = [pool.submit(_work, brain.path, brain.namespace, number) for number in range(12)]
        assert [job.result(120) for job in jobs] == [(1000 * number, expected) for number in range(12)]
    assert len(brain) == 13


def test_parent_and_child_go_on_after_a_fork(brain: plasmon.Brain) -> None:
    brain["array"] = np.full(100_000, 7)
    inherited = brain["array"]
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(write)
            os.read(read, 1)  # the parent has rebound the name and used the space again
            assert (inherited == 7).all()
            brain["from the child"] = np.arange(50_000)
            assert brain["from the child"].sum() == np.arange(50_000).sum() and brain["array"][0] == 1
            assert (inherited == 7).all()
            status = 0
        finally:
            os._exit(status)
    os.close(read)
    brain["array"] = np.full(100_000, 1)
    for number in range(50):
        brain["filler"] = np.full(1_000_000, number)
    os.close(write)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (inherited == 7).all() and brain["from the child"][-1] == 49_999


def _start(path: str, number: int, barrier: Any, out: Any) -> None:
    try:
        barrier.wait(120)
        mine = plasmon.Brain(path, f"worker-{number}")
        mine["own"] = number
        shared = plasmon.Brain(path, "everybody")
        shared[f"from-{number}"] = number
        out.put((number, mine["own"], shared[f"from-{number}"]))
    except BaseException as error:  # noqa: BLE001
        out.put(repr(error))


def test_64_processes_that_start_at_once_lose_nothing(store: plasmon.Store) -> None:
    context = multiprocessing.get_context("fork")
    barrier, out = context.Barrier(64), context.Queue()
    workers = [context.Process(target=_start, args=(store.path, number, barrier, out)) for number in range(64)]
    for worker in workers:
        worker.start()
    assert sorted((out.get(timeout=120) for _ in workers), key=str) == sorted(((n, n, n) for n in range(64)), key=str)
    for worker in workers:
        worker.join()
    brain = store.connect("everybody")
    assert len(brain) == 64 and {f"worker-{n}" for n in range(64)} <= brain.namespaces()
    for namespace in ["everybody", *(f"worker-{n}" for n in range(64))]:
        brain.in_namespace(namespace).remove_namespace()


def test_threads_share_a_brain(brain: plasmon.Brain) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for round_ in range(100):
                brain[f"t{number}"] = np.full(5000, round_)
                found = brain[f"t{number}"]
                brain["shared"] = {"number": number}
                assert found[0] == found[-1] == round_ and brain["shared"]["number"] in range(8)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_wait_holds_up_no_other_thread_and_hears_signals(brain: plasmon.Brain) -> None:
    signalled: list[int] = []

    class Heard(Exception):
        pass

    def hear(*_: Any) -> None:
        signalled.append(1)
        raise Heard

    before = signal.signal(signal.SIGALRM, hear)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Heard):
            brain.recall("never", timeout=300)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert signalled == [1]


APP = """
import json, os, numpy as np, plasmon
brain = plasmon.Brain(os.environ["STORE"], "gunicorn")
inherited = brain["array"]

def app(environ, start_response):
    brain[f"worker-{os.getpid()}"] = np.full(1000, os.getpid())
    found = [int(inherited.sum()), int(brain["array"].sum()), int(brain[f"worker-{os.getpid()}"][-1]), os.getpid()]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(found).encode()]
"""


def test_gunicorn_workers_share_what_was_loaded_before_they_were_forked(store: plasmon.Store, tmp_path: Path) -> None:
    brain = store.connect("gunicorn")
    brain["array"] = np.full(100_000, 2)
    (tmp_path / "app.py").write_text(APP)
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--preload",
        "--workers",
        "4",
        "--threads",
        "2",
        "--chdir",
        str(tmp_path),
    ]
    command += ["--bind", "127.0.0.1:0", "app:app"]
    server = subprocess.Popen(command, env={**os.environ, "STORE": store.path}, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        address = next(match for line in server.stderr if (match := re.search(r"http://127.0.0.1:(\d+)", line)))
        workers: set[int] = set()
        asked = 0
        while len(workers) < 4 or asked < 200:
            with urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/", timeout=60) as answer:
                inherited, shared, own, pid = json.load(answer)
            assert (inherited, own) == (200_000, pid) and shared in (200_000, 300_000)
            workers.add(pid)
            asked += 1
            if asked == 50:
                brain["array"] = np.full(100_000, 3)
                for number in range(50):
                    brain["filler"] = np.full(1_000_000, number)
        assert shared == 300_000
        assert {f"worker-{pid}" for pid in workers} <= set(brain)
    finally:
        server.terminate()
        _, said = server.communicate(timeout=60)
    assert "Traceback" not in said
    brain.remove_namespace()

"""Waits end when they are told to, and send one request; descriptors that others have closed are left alone."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import plasmon
import pytest

#: Far longer than any test may take: who waits for it has not been woken.
_LONG = 600


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _waits(brain: plasmon.Brain) -> int:
    return brain.stats()["waits"]


@pytest.fixture(params=["recall", "wait", "wait_change"])
def wait(request: pytest.FixtureRequest, brain: plasmon.Brain) -> Iterator[Callable[..., object]]:
    def recall(name: str, timeout: float, cancel: plasmon.Cancel | None = None) -> object:
        return brain.recall(name, timeout=timeout, cancel=cancel)

    def wait(name: str, timeout: float, cancel: plasmon.Cancel | None = None) -> object:
        return brain.wait(name, timeout=timeout, cancel=cancel)

    def wait_change(name: str, timeout: float, cancel: plasmon.Cancel | None = None) -> object:
        return brain.wait_change(name, version=0, timeout=timeout, cancel=cancel)

    before = _waits(brain)
    yield {"recall": recall, "wait": wait, "wait_change": wait_change}[request.param]
    _until(lambda: _waits(brain) == before)  # and the store waits for nobody any more


def test_another_thread_cancels_a_wait(brain: plasmon.Brain, wait: Callable[..., object]) -> None:
    cancel = plasmon.Cancel()
    with concurrent.futures.ThreadPoolExecutor() as threads:
        waiting = [threads.submit(wait, "later", _LONG, cancel) for _ in range(3)]
        _until(lambda: _waits(brain) >= 3)
        assert not cancel.is_cancelled
        cancel.cancel()
        for one in waiting:
            assert isinstance(one.exception(), plasmon.WaitCancelled)
    with pytest.raises(plasmon.WaitCancelled):
        wait("later", _LONG, cancel)


def test_a_future_that_is_cancelled_ends_the_wait_of_its_thread(
    brain: plasmon.Brain, wait: Callable[..., object]
) -> None:
    with concurrent.futures.ThreadPoolExecutor() as threads:
        waiting = threads.submit(wait, "later", _LONG)
        _until(lambda: _waits(brain) >= 1)
        assert not waiting.cancel()  # it runs
        assert isinstance(waiting.exception(), plasmon.WaitCancelled)
        assert "cancel" not in vars(waiting)


def test_a_task_that_gives_up_leaves_no_thread_waiting(brain: plasmon.Brain, wait: Callable[..., object]) -> None:
    async def give_up() -> None:
        waiting = asyncio.create_task(asyncio.to_thread(wait, "later", _LONG))
        while _waits(brain) == 0:
            await asyncio.sleep(0.001)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(give_up())  # which waits for the thread


def test_a_signal_interrupts_a_wait_at_once(wait: Callable[..., object]) -> None:
    class Rang(Exception):
        pass

    def ring(*_: object) -> None:
        raise Rang

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Rang):
            wait("later", _LONG)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("timeout", [math.inf, 1e300, "2w"])
def test_a_wait_of_any_length_ends_with_what_it_waits_for(
    brain: plasmon.Brain, wait: Callable[..., object], timeout: float
) -> None:
    with concurrent.futures.ThreadPoolExecutor() as threads:
        waiting = threads.submit(wait, "later", timeout)
        _until(lambda: _waits(brain) >= 1)
        version = brain.learn("later", 7)
        assert waiting.result() in (7, version)


def test_a_wait_of_no_time_says_what_is_there(brain: plasmon.Brain) -> None:
    version = brain.learn("there", 1)
    for _ in range(100):
        assert brain.wait_change("there", version=0, timeout=0) == version
        assert brain.wait_change("nothing", version=version, timeout=0) is None
    for name, known in [("there", version), ("nothing", 0)]:
        with pytest.raises(plasmon.WaitTimeout):
            brain.wait_change(name, version=known, timeout=0)


def test_a_waiting_thread_sends_one_request_and_sleeps(brain: plasmon.Brain) -> None:
    woken = []

    def wait() -> None:
        def voluntary_switches() -> int:
            with open("/proc/thread-self/status") as status:
                return next(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches"))

        before = voluntary_switches()
        with pytest.raises(plasmon.WaitTimeout):
            brain.recall("later", timeout=1.5)
        woken.append(voluntary_switches() - before)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    assert woken[0] < 12  # with ten looks a second it was 30


_CLOSES = """
import os, stat, sys
import numpy as np, plasmon
brain = plasmon.Brain(sys.argv[1], "closes-descriptors")
brain["x"] = np.arange(100_000)
held = brain["x"]
which, learned = sys.argv[2], int(sys.argv[3])
def of_plasmon(number):
    try:
        found = os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return False
    return found.startswith("socket") if which == "sockets" else which == "all" or "plasmon" in found
numbers = [number for number in range(3, 64) if of_plasmon(number)]
assert numbers
for number in numbers:
    os.close(number)
path = sys.argv[4]
files = [open(f"{path}/{number}", "wb", buffering=0) for number in range(64)]
assert {file.fileno() for file in files} >= set(numbers)
def retried(call):
    try:
        return call()
    except plasmon.StoreUnavailable:
        return call()
retried(lambda: brain.__setitem__("y", np.ones(learned)))
assert retried(lambda: brain["y"]).sum() == learned
assert held[99_999] == 99_999
brain["small"] = 1
assert len(brain) == 3
del held
brain.sleep()
for file in files:
    status = os.fstat(file.fileno())
    assert stat.S_ISREG(status.st_mode) and status.st_size == 0, file
"""


@pytest.mark.parametrize("which", ["all", "sockets", "regions"])
@pytest.mark.parametrize("learned", [3, 1_000, 1_000_000])
def test_descriptors_that_something_else_has_closed_are_left_to_whoever_has_them(
    store: plasmon.Store, which: str, learned: int, tmp_path: object
) -> None:
    command = [sys.executable, "-c", _CLOSES, store.path, which, str(learned), str(tmp_path)]
    subprocess.run(command, check=True, timeout=120)

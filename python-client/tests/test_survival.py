"""What killed, hung or leaked other stores, as it looks from Python. docs/RELIABILITY.md has the whole list."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import plasmon
import pytest

pytestmark = pytest.mark.usefixtures("nothing_is_left")

WRITES = """
import ctypes, sys
import plasmon

array = plasmon.Brain(sys.argv[1], sys.argv[2])["array"]
try:
    array[0] = 1
except ValueError as error:
    assert "read-only" in str(error), error
else:
    sys.exit("an assignment went through")
print("refused", flush=True)
# As torch.from_numpy(array).add_(1) does: whoever ignores the flag meets the kernel.
ctypes.memset(array.ctypes.data, 1, array.nbytes)
"""


def test_who_writes_into_a_recalled_array_all_the_same_harms_only_himself(brain: plasmon.Brain) -> None:
    brain["array"] = np.arange(100_000)
    held = brain["array"]
    done = subprocess.run([sys.executable, "-c", WRITES, brain.path, brain.namespace], capture_output=True, timeout=60)
    assert (done.stdout.split(), done.returncode) == ([b"refused"], -11), done.stderr
    assert np.array_equal(held, np.arange(100_000)) and np.array_equal(brain["array"], held)
    brain["array"] = np.zeros(10)
    assert not brain["array"].any()


def test_other_threads_run_while_a_large_value_is_learned(brain: plasmon.Brain) -> None:
    array = np.ones(25_000_000)  # 200 MB
    gaps: list[float] = []
    learning, over = threading.Event(), threading.Event()

    def look_at_the_clock() -> None:
        longest, last = 0.0, time.perf_counter()
        learning.set()
        while not over.is_set():
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        gaps.append(longest)

    other = threading.Thread(target=look_at_the_clock)
    other.start()
    learning.wait()
    start = time.perf_counter()
    brain["large"] = array
    took = time.perf_counter() - start
    over.set()
    other.join()
    # With the interpreter's lock held all the while, the other thread would have stood still for as long.
    assert gaps[0] < took / 2, f"stood still for {gaps[0]} of {took} s"

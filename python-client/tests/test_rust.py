"""What Python learns a Rust process reads as what it is, and the other way round (tests/src/samples.rs)."""

from __future__ import annotations

import itertools
import os
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import plasmon
import pyarrow as pa
import pytest
from test_values import same

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The Rust program; scripts/test builds it and says where it is.
CLIENT = os.environ["PLASMON_CLIENT_UNDER_TEST"]

LENGTHS = [0, 1, 32, 33, 5_000, 70_000, 3_000_000]


def _batch(rows: int) -> pa.RecordBatch:
    numbers = [n if n % 3 else None for n in range(rows)]
    texts = [f"word {n}" if n % 5 else None for n in range(rows)]
    return pa.record_batch({"number": pa.array(numbers, "int64"), "word": pa.array(texts, "string")})


def _samples() -> Iterator[tuple[str, Any]]:
    for length in LENGTHS:
        yield f"bytes-{length}", bytes(itertools.islice(itertools.cycle(range(251)), length))
        yield f"text-{length}", "".join(itertools.islice(itertools.cycle("Plasmön 🦀 "), length))
        yield f"tensor-{length}", np.full(length // 8, 0.25)
    schema = _batch(0).schema
    for name, rows in [("without-batches", []), ("empty", [0]), ("small", [3, 0, 5]), ("large", [20_000, 10_000])]:
        yield f"table-{name}", pa.Table.from_batches([_batch(n) for n in rows], schema)
    yield "json-empty", {}
    yield "json-small", {"a": [1, -2.5, 1e300, None, True, {"ü": ""}], "b": 2**64 - 1}
    yield "json-large", {"many": [str(n) for n in range(20_000)]}
    yield "tensor-scalar", np.array(7, "u1")
    yield "tensor-no-rows", np.empty((0, 7), "i2")
    yield "tensor-rows", np.arange(1, 7, dtype="i4").reshape(2, 3)
    yield "tensor-columns", np.asfortranarray(np.arange(1, 7, dtype="i4").reshape(2, 3))
    yield "tensor-5d", np.array([1, 2, 3, 4], "u2").reshape(1, 2, 1, 2, 1)
    yield from [("null", None), ("true", True), ("false", False)]
    for number, integer in enumerate([0, -1, -(2**63), 2**63 - 1]):
        yield f"integer-{number}", integer
    for number, real in enumerate([0.0, -0.0, 1.5, float("nan"), float("-inf"), 2.0**-1022]):
        yield f"float-{number}", real


SAMPLES = dict(_samples())


@pytest.fixture
def brain() -> Iterator[plasmon.Brain]:
    with plasmon.Store(size="64MB") as store:
        yield store.connect()


def ask(brain: plasmon.Brain, command: str) -> str:
    asked = f"connect\n{command}\n"
    done = subprocess.run([CLIENT, "serve", brain.path], input=asked, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


def test_rust_reads_what_python_learned(brain: plasmon.Brain) -> None:
    for name, value in SAMPLES.items():
        brain[name] = value
    assert ask(brain, "check-samples").split() == ["ok", "ok"]
    brain["integer-2"] = 5
    assert "assertion" in ask(brain, "check-samples")  # it does look


def test_python_reads_what_rust_learned(brain: plasmon.Brain) -> None:
    assert ask(brain, "learn-samples").split() == ["ok", "ok"]
    assert set(brain) == set(SAMPLES)
    for name, value in SAMPLES.items():
        assert same(brain[name], value), name
        assert isinstance(brain.recall(name, as_="arrow"), pa.Table), name
    assert not brain["tensor-columns"].flags.c_contiguous

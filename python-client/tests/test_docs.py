"""docs/values.md says what the tests show."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plasmon
import pyarrow as pa
import pytest
import scipy.sparse
from plasmon import _pickles
from values import CASES, Case, Trade

DOCUMENT = Path(__file__).parents[2] / "docs" / "values.md"
COPIED = {
    "tensor": "nothing",
    "table": "nothing",
    "text": "all of it, once",
    "bytes": "all of it, once",
    "json": "all of it: it is parsed",
}


ALL = "all of it"
ALL_BUT_ARRAYS = "all but arrays and columns, if they have more than 64 KiB together"
NOTHING_OF_ARRAYS = "nothing, from 4 KiB on"


def copied(case: Case) -> str:
    """What the table says of a recall's copies."""
    if case.copies is not None:
        return case.copies
    if case.kind != "pickle":
        return COPIED.get(case.kind, "–")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_pickles, "OUT_OF_BAND_BYTES", 0)  # so that short values show what long ones would have
        _, buffers = _pickles.pickled(case.value)
    if not buffers or isinstance(case.value, bytearray):
        return ALL
    return NOTHING_OF_ARRAYS if type(case.value) is np.ndarray else ALL_BUT_ARRAYS


def table() -> str:
    lines = ["| value | kind | a recall copies |", "| --- | --- | --- |"]
    group = None
    for case in CASES:
        if case.group != group:
            group = case.group
            lines.append(f"| **{group}** | | |")
        lines.append(f"| {case.label} | `{case.kind}` | {copied(case)} |")
    return "\n".join(lines) + "\n"


ROWS = 100_000

#: Long values of what the table lists.
LONG: dict[str, Callable[[], Any]] = {
    "str: long": lambda: "x" * ROWS,
    "bytes: long": lambda: b"x" * ROWS,
    "bytearray": lambda: bytearray(ROWS),
    "memoryview": lambda: memoryview(bytes(ROWS)),
    "dict of arrays": lambda: {"a": np.arange(ROWS), "b": [np.ones(9_000)]},
    "dataclass": lambda: Trade("A", [1.0] * ROWS, dt.datetime(2024, 1, 1)),
    "set, frozenset": lambda: set(range(ROWS)),
    "ndarray of float64": lambda: np.arange(ROWS) / 3,
    "ndarray: strided": lambda: np.arange(2 * ROWS)[::2],
    "ndarray of complex128": lambda: np.arange(ROWS) * 1j,
    "ndarray of datetime64": lambda: np.arange(ROWS).astype("M8[s]"),
    "ndarray of timedelta64": lambda: np.arange(ROWS).astype("m8[s]"),
    "ndarray, big-endian": lambda: np.arange(ROWS).astype(">i4"),
    "ndarray, structured": lambda: np.zeros(ROWS, [("a", "i4"), ("b", "f8", (2,))]),
    "ndarray of U and S": lambda: [np.array(["ab"] * ROWS)],
    "ndarray of object": lambda: np.array([*range(ROWS)], object),
    "masked array": lambda: np.ma.masked_array(np.arange(ROWS), np.arange(ROWS) % 2 == 0),
    "matrix, recarray": lambda: [np.zeros(ROWS, [("a", "i8")]).view(np.recarray), np.ones(ROWS).view(np.matrix)],
    "DataFrame": lambda: pd.DataFrame({"a": np.arange(ROWS), "b": pd.array(["x"] * ROWS, "str")}),
    "DataFrame of extension dtypes": lambda: pd.DataFrame({"a": pd.array(np.arange(ROWS), "Int64")}),
    "DataFrame of mixed objects": lambda: pd.DataFrame({"a": [(n,) for n in range(ROWS)]}),
    "DataFrame: columns of MultiIndex": lambda: pd.concat({"a": pd.DataFrame({1: np.arange(ROWS)})}, axis=1),
    "index: categorical": lambda: pd.DataFrame({"a": np.ones(ROWS)}, index=pd.CategoricalIndex(["x"] * ROWS)),
    "Series of categories": lambda: pd.Series(pd.Categorical(["a", "b"] * ROWS)),
    "Series of Sparse": lambda: pd.Series(pd.arrays.SparseArray(np.arange(ROWS) % 2)),
    "Index": lambda: pd.MultiIndex.from_product([range(ROWS), ["a", "b"]]),
    "Table": lambda: pa.table({"a": np.arange(ROWS)}),
    "Array": lambda: pa.array(np.arange(ROWS)),
    "Tensor": lambda: pa.Tensor.from_numpy(np.ones((ROWS, 2))),
    "scipy: sparse matrix": lambda: scipy.sparse.eye(ROWS, format="csr"),
}


@pytest.mark.parametrize("label", LONG)
def test_a_recall_copies_what_the_table_says(brain: plasmon.Brain, label: str) -> None:
    (said,) = {copied(case) for case in CASES if case.label == label and case.group != "polars"}
    brain["value"] = LONG[label]()
    size, before = brain.metadata("value")["size"], plasmon.copied_bytes()
    found = brain["value"]
    part = (plasmon.copied_bytes() - before) / size
    assert found is not None
    if said.startswith("all of it"):
        assert 0.9 < part < 1.1
    elif said == "nothing":
        assert part == 0
    else:
        assert part < (0.05 if label != "DataFrame of mixed objects" else 1.1)  # there are objects in its columns


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.kind in ("table", "tensor")], ids=lambda case: case.label
)
def test_a_recall_of_columns_copies_what_the_table_says(brain: plasmon.Brain, case: Case) -> None:
    brain["value"] = case.value
    before = plasmon.copied_bytes()
    found = brain["value"]
    nbytes = plasmon.copied_bytes() - before
    assert found is not None
    assert nbytes == 0 if copied(case) == "nothing" else 0 < nbytes <= brain.metadata("value")["size"]


def test_the_table_of_values_is_what_the_tests_store() -> None:
    text = DOCUMENT.read_text()
    before, found = text.split("<!-- table -->\n", 1)
    if os.environ.get("PLASMON_WRITE_DOCS"):
        DOCUMENT.write_text(f"{before}<!-- table -->\n{table()}")
        pytest.skip("written")
    assert found == table(), "write it anew with PLASMON_WRITE_DOCS=1 pytest python-client/tests/test_docs.py"

"""The values that are stored, and what a reader reads of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

KIB, MIB = 1 << 10, 1 << 20

#: Rows of the table and the frame: 87 MB with eight float64 and two string columns.
ROWS = 1_000_000


def make(kind: str) -> Any:
    """Return a value of a kind: ``array:BYTES``, or a word below."""
    import numpy as np

    word, _, size = kind.partition(":")
    if word == "array":
        return np.arange(int(size) // 8, dtype=np.float64)
    if word == "int":
        return 1_234_567
    if word == "str":
        return "a short text"
    if word == "dict":
        return {f"key {number}": number * 1.5 if number % 2 else f"value {number}" for number in range(20)}
    if word == "bytes":
        return bytes(range(100))
    if word == "table":
        return _table()
    if word == "pandas":
        return _table().to_pandas()
    if word == "polars":
        import polars as pl

        return pl.DataFrame(_table())
    raise ValueError(f"there is no kind of value {kind!r}")


def _table() -> Any:
    import numpy as np
    import pyarrow as pa

    random = np.random.default_rng(7)
    columns = {f"f{number}": pa.array(random.random(ROWS)) for number in range(8)}
    words = pa.array([f"w{number:05d}" for number in range(10_000)])
    for name in ("s0", "s1"):
        columns[name] = words.take(pa.array(random.integers(0, 10_000, ROWS)))
    return pa.table(columns)


def reading(kind: str) -> Callable[[Any], Any]:
    """Return what a reader does with a value that it got: it reads one element."""
    word = kind.partition(":")[0]
    if word == "array":
        return lambda value: value[0]
    if word == "table":
        return lambda value: value.column(0)[0]
    if word == "pandas":
        return lambda value: value.iat[0, 0]
    if word == "polars":
        return lambda value: value.item(0, 0)
    return lambda value: value


def check(kind: str, value: Any) -> None:
    """Raise if `value`, as it was got, is not what was put."""
    word = kind.partition(":")[0]
    expected = make(kind)
    if word in ("array", "dict", "int", "str", "bytes"):
        import numpy as np

        same = np.array_equal(value, expected) if word == "array" else value == expected
    elif word == "table":
        same = (
            value.num_rows == ROWS and value.column("s1")[ROWS - 1].as_py() == expected.column("s1")[ROWS - 1].as_py()
        )
    elif word == "pandas":
        same = len(value) == ROWS and value["s1"].iat[-1] == expected["s1"].iat[-1]
    else:
        same = value.height == ROWS and value.item(ROWS - 1, "s1") == expected.item(ROWS - 1, "s1")
    if not same:
        raise AssertionError(f"a value of kind {kind} came back as something else: {str(value)[:100]}")

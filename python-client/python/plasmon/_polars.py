"""Frames and series of polars as tables, and back."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa

from plasmon import _pickles, _plasmon, _tables


def encode(value: Any) -> _plasmon.Payload | None:
    """Return the form of a frame or a series; `None` if Arrow cannot say all of it."""
    if type(value) is pl.DataFrame:
        frame, description = value, {"type": "polars.DataFrame"}
    elif type(value) is pl.Series:
        frame, description = value.to_frame(), {"type": "polars.Series"}
    else:
        return None
    if not all(_arrow_has(dtype) for dtype in set(frame.dtypes)):
        return None  # and asked for objects of Python as Arrow, polars ends the process
    if not frame.width:
        return _tables.encode_rows(frame.height, description)
    empty = pa.table(frame.clear())
    if pl.DataFrame(empty).schema != frame.schema:
        return None
    try:
        return _tables.encode_table(pa.table(frame), description)
    except ValueError:
        return None  # a type that Rust's Arrow does not have


def decode(table: pa.Table, description: dict[str, Any], copy: bool) -> Any:
    """Return the frame or series that `encode` made a table of."""
    if not table.num_columns:
        return pl.DataFrame(height=table.num_rows) if table.num_rows else pl.DataFrame()
    if copy:
        table = _pickles.compact(table)
    frame = read(_tables.without_description(table))
    for column in frame.get_columns():
        if _has_categories(column.dtype):
            # Their numbers are this process's own, so that polars writes the codes anew.
            _plasmon.count_copied(int(column.to_physical().estimated_size()))
    return frame if description["type"] == "polars.DataFrame" else frame.to_series(0)


def read(source: Any) -> pl.DataFrame:
    """Return the frame of an object that exports Arrow.

    Raises:
        ValueError: polars cannot read it. It has panics for that as well, which are no `Exception`.

    """
    try:
        return pl.DataFrame(source)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise ValueError(f"polars cannot read it: {_tables.one_line(error)}") from error


#: Element types that polars has and Arrow has not.
_NOT_IN_ARROW = [getattr(pl, name) for name in ("Object", "Int128", "UInt128") if hasattr(pl, name)]


def _has_categories(dtype: Any) -> bool:
    if isinstance(dtype, pl.List | pl.Array):
        return _has_categories(dtype.inner)
    if isinstance(dtype, pl.Struct):
        return any(_has_categories(field.dtype) for field in dtype.fields)
    return isinstance(dtype, pl.Categorical) and not isinstance(dtype, pl.Enum)


def _arrow_has(dtype: Any) -> bool:
    if isinstance(dtype, pl.List | pl.Array):
        if 0 in getattr(dtype, "shape", ()):
            raise TypeError("polars does not read back what it writes of arrays of no elements")
        return _arrow_has(dtype.inner)
    if isinstance(dtype, pl.Struct):
        return all(_arrow_has(field.dtype) for field in dtype.fields)
    return dtype not in _NOT_IN_ARROW

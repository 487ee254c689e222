"""Frames and series of polars as tables, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from plasmon import _forms

if TYPE_CHECKING:
    from plasmon import _plasmon


def encode(value: Any) -> _plasmon.Payload | None:
    """Return the form of a frame or a series; `None` if Arrow cannot say all of it."""
    if type(value) is pl.DataFrame:
        frame, description = value, {"type": "polars.DataFrame"}
    elif type(value) is pl.Series:
        frame, description = value.to_frame(), {"type": "polars.Series"}
    else:
        return None
    empty = pa.table(frame.clear())
    if pl.DataFrame(empty).schema != frame.schema:
        return None
    try:
        return _forms.encode_table(pa.table(frame), description)
    except ValueError:
        return None  # a type that Rust's Arrow does not have


def decode(table: pa.Table, description: dict[str, Any], copy: bool) -> Any:
    """Return the frame or series that `encode` made a table of."""
    if copy:
        table = _forms.compact(table)
    frame = pl.DataFrame(_forms.without_description(table))
    return frame if description["type"] == "polars.DataFrame" else frame.to_series(0)

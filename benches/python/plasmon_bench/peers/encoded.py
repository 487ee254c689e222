"""Values as bytes, for peers that store bytes: arrays, tables and frames as Arrow IPC, all else pickled."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa


def is_polars(value: Any) -> bool:
    """Whether it is a polars frame."""
    return type(value).__module__.startswith("polars")


def encode(value: Any) -> Any:
    """Return bytes or a buffer."""
    if type(value) is bytes:
        return b"b" + value
    if type(value) is np.ndarray:
        sink = pa.BufferOutputStream()
        sink.write(b"a".ljust(64))
        pa.ipc.write_tensor(pa.Tensor.from_numpy(value), sink)
        return sink.getvalue()
    for head, kind in ((b"t", pa.Table), (b"d", pd.DataFrame)):
        if type(value) is kind:
            return _ipc(head, value if head == b"t" else pa.Table.from_pandas(value))
    if is_polars(value):
        return _ipc(b"x", pa.table(value))
    return b"p" + pickle.dumps(value, 5)


def _ipc(head: bytes, table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    sink.write(head.ljust(64))
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def decode(data: Any) -> Any:
    """Return the value; arrays and tables over `data` itself."""
    view = memoryview(data)
    head = view[:1].tobytes()
    if head == b"b":
        return view[1:].tobytes()
    if head == b"p":
        return pickle.loads(view[1:])
    body = pa.py_buffer(view)[64:]
    if head == b"a":
        return pa.ipc.read_tensor(pa.BufferReader(body)).to_numpy()
    table = pa.ipc.open_stream(body).read_all()
    if head == b"d":
        return table.to_pandas()
    if head == b"x":
        import polars as pl

        return pl.from_arrow(table)
    return table

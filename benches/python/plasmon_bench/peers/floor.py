"""What the machine allows: not a store."""

from __future__ import annotations

import mmap
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from plasmon_bench.peers import Peer, Unsupported
from plasmon_bench.values import make


class Floor(Peer):
    """A numpy copy into one mapping whose pages exist; an array over it. No names, no protocol, no safety."""

    title = "floor: copy into a warm mapping"
    how = (
        "not a store: put is a numpy copy into a mapping whose pages exist (tables: an IPC file written there), get an "
        "array, or pyarrow.ipc.open_file, over it."
    )
    distributions: ClassVar[tuple[str, ...]] = ("numpy", "pyarrow")
    is_floor = True

    def connect(self) -> None:
        """Make the mapping and touch all of its pages."""
        self.memory = mmap.mmap(-1, 600 << 20)
        self.bytes = np.frombuffer(self.memory, np.uint8)
        self.bytes[:] = 1
        self.table: Any = None

    def put(self, name: str, value: Any) -> None:
        """Copy."""
        del name
        if type(value) is np.ndarray:
            np.ndarray(value.shape, value.dtype, self.memory)[:] = value
        elif type(value) is pa.Table:
            sink = pa.FixedSizeBufferWriter(pa.py_buffer(self.memory))
            with pa.ipc.new_stream(sink, value.schema) as writer:
                writer.write_table(value)
        else:
            raise Unsupported("a copy has no types")

    def get(self, name: str) -> Any:
        """Look at what is there."""
        word, _, size = name.rpartition("~")[0].partition(":")
        if word == "array":
            return np.ndarray((int(size) // 8,), np.float64, self.memory)
        if word == "table":
            if self.table is None:
                sink = pa.BufferOutputStream()
                table = make("table")
                with pa.ipc.new_file(sink, table.schema) as writer:
                    writer.write_table(table)
                self.table = sink.getvalue()
            return pa.ipc.open_file(self.table).read_all()
        raise Unsupported("a copy has no types")

    def delete(self, name: str) -> None:
        """Nothing is there to delete."""
        del name

"""multiprocessing.shared_memory."""

from __future__ import annotations

import contextlib
import os
import pickle
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa

from plasmon_bench.peers import Peer
from plasmon_bench.peers.encoded import is_polars

HEAD = 64


class SharedMemory(Peer):
    """One POSIX segment per name."""

    title = "multiprocessing.shared_memory"
    how = (
        "one segment per name: a 64-byte header and the raw array (IPC stream for tables and frames, pickle for "
        "builtins); Python's resource tracker is switched off, as every cross-process user must before 3.13."
    )
    distributions: ClassVar[tuple[str, ...]] = ("numpy", "pyarrow")

    def connect(self) -> None:
        """Switch off the resource tracker, which would remove segments when this process ends."""
        resource_tracker.register = lambda *_: None
        resource_tracker.unregister = lambda *_: None
        self.held: Any = None

    def _name(self, name: str) -> str:
        return f"{self.directory.name}-{name}"

    def put(self, name: str, value: Any) -> None:
        """Make a segment and write it."""
        if type(value) is np.ndarray:
            segment = shared_memory.SharedMemory(self._name(name), create=True, size=HEAD + value.nbytes)
            _bytes(segment)[:1] = b"a"
            np.ndarray(value.shape, value.dtype, _bytes(segment), HEAD)[:] = value
        elif isinstance(value, pa.Table | pd.DataFrame) or is_polars(value):
            head = b"t" if type(value) is pa.Table else b"d" if type(value) is pd.DataFrame else b"x"
            table = pa.Table.from_pandas(value) if head == b"d" else pa.table(value) if head == b"x" else value
            counted = pa.MockOutputStream()
            with pa.ipc.new_stream(counted, table.schema) as writer:
                writer.write_table(table)
            segment = shared_memory.SharedMemory(self._name(name), create=True, size=HEAD + counted.size())
            _bytes(segment)[:1] = head
            view = _bytes(segment)[HEAD:]
            sink = pa.FixedSizeBufferWriter(pa.py_buffer(view))
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            del sink, view, writer
        else:
            data = pickle.dumps(value, 5)
            segment = shared_memory.SharedMemory(self._name(name), create=True, size=HEAD + len(data))
            _bytes(segment)[:1] = b"p"
            _bytes(segment)[HEAD : HEAD + len(data)] = data
        with contextlib.suppress(BufferError):
            segment.close()

    def replace(self, name: str, value: Any) -> None:
        """Segments cannot be replaced: delete, then put."""
        self.delete(name)
        self.put(name, value)

    def get(self, name: str) -> Any:
        """Map the segment."""
        segment = self.held = shared_memory.SharedMemory(self._name(name))
        buffer = _bytes(segment)
        head = buffer[0]
        if head == 97:
            return np.ndarray(((segment.size - HEAD) // 8,), np.float64, buffer, HEAD)
        if head == 112:
            return pickle.loads(buffer[HEAD:])
        table = pa.ipc.open_stream(pa.py_buffer(buffer)[HEAD:]).read_all()
        if head == 100:
            return table.to_pandas()
        if head == 120:
            import polars as pl

            return pl.from_arrow(table)
        return table

    def release(self) -> None:
        """Unmap it, if nothing else uses it."""
        if self.held is not None:
            with contextlib.suppress(BufferError):
                self.held.close()
            self.held = None

    def delete(self, name: str) -> None:
        """Unlink the segment."""
        os.unlink(f"/dev/shm/{self._name(name)}")

    def exists(self, name: str) -> bool:
        """Ask the file system."""
        return os.path.exists(f"/dev/shm/{self._name(name)}")

    def names(self) -> list[Any]:
        """List /dev/shm."""
        own = f"{self.directory.name}-"
        return [name.removeprefix(own) for name in os.listdir(Path("/dev/shm")) if name.startswith(own)]


def _bytes(segment: shared_memory.SharedMemory) -> memoryview:
    assert segment.buf is not None
    return segment.buf

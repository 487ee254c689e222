"""Arrow IPC files in /dev/shm."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa

from plasmon_bench.peers import Peer
from plasmon_bench.peers.encoded import is_polars


class ArrowFile(Peer):
    """One file per name, written beside and renamed, read through a memory map."""

    title = "Arrow IPC file + memory_map"
    how = (
        "one file per name in /dev/shm, written beside and renamed; arrays as an IPC tensor, tables and frames as an "
        "IPC file, read through pyarrow.memory_map; builtins pickled."
    )
    distributions: ClassVar[tuple[str, ...]] = ("pyarrow", "pandas", "polars")

    def connect(self) -> None:
        """Make the directory."""
        self.path = Path("/dev/shm", self.directory.name, "files")
        self.path.mkdir(parents=True, exist_ok=True)

    def put(self, name: str, value: Any) -> None:
        """Write a file and give it its name."""
        kind, target = _kind(value), os.fspath(self.path / name)
        beside = f"{target}~{os.getpid()}"
        if kind == "pickle":
            Path(beside).write_bytes(b"p" + pickle.dumps(value, 5))
        else:
            with pa.OSFile(beside, "wb") as sink:
                sink.write(kind[0].encode().ljust(64))
                if kind == "array":
                    pa.ipc.write_tensor(pa.Tensor.from_numpy(value), sink)
                else:
                    table = (
                        value if kind == "table" else pa.table(value) if kind == "x" else pa.Table.from_pandas(value)
                    )
                    with pa.ipc.new_file(sink, table.schema) as writer:
                        writer.write_table(table)
        os.rename(beside, target)

    def get(self, name: str) -> Any:
        """Map the file."""
        path = os.fspath(self.path / name)
        with open(path, "rb") as file:
            head = file.read(1)
            if head == b"p":
                return pickle.loads(file.read())
        source = pa.memory_map(path)
        if head == b"a":
            source.seek(64)
            return pa.ipc.read_tensor(source).to_numpy()
        table = pa.ipc.open_file(source.read_buffer().slice(64)).read_all()
        if head == b"d":
            return table.to_pandas()
        if head == b"x":
            import polars as pl

            return pl.from_arrow(table)
        return table

    def delete(self, name: str) -> None:
        """Remove the file."""
        os.unlink(self.path / name)

    def exists(self, name: str) -> bool:
        """Ask the file system."""
        return os.path.exists(f"{self.path}/{name}")

    def names(self) -> list[Any]:
        """List the directory."""
        return os.listdir(self.path)


def _kind(value: Any) -> str:
    if type(value) is np.ndarray:
        return "array"
    if type(value) is pa.Table:
        return "table"
    if type(value) is pd.DataFrame:
        return "dataframe"
    return "x" if is_polars(value) else "pickle"

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
        target = f"{self.path}/{name}"
        beside = f"{target}~{os.getpid()}"
        if type(value) is np.ndarray:
            with pa.OSFile(beside, "wb") as sink:
                pa.ipc.write_tensor(pa.Tensor.from_numpy(value), sink)
        elif isinstance(value, pa.Table | pd.DataFrame) or is_polars(value):
            table = pa.Table.from_pandas(value) if type(value) is pd.DataFrame else pa.table(value)
            with pa.OSFile(beside, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
        else:
            Path(beside).write_bytes(pickle.dumps(value, 5))
        os.rename(beside, target)

    def get(self, name: str) -> Any:
        """Map the file, or read it; what it is stands in its name."""
        path, word = f"{self.path}/{name}", name.partition("~")[0].partition(":")[0]
        if word == "array":
            return pa.ipc.read_tensor(pa.memory_map(path)).to_numpy()
        if word not in ("table", "pandas", "polars"):
            with open(path, "rb") as file:
                return pickle.loads(file.read())
        table = pa.ipc.open_file(pa.memory_map(path)).read_all()
        if word == "pandas":
            return table.to_pandas()
        if word == "polars":
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

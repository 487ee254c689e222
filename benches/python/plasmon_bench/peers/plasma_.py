"""Apache Plasma, as pyarrow 11 had it, and brain-plasma over it."""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from pathlib import Path
from typing import Any, ClassVar

from plasmon_bench.peers import CAPACITY_BYTES, Peer, Store
from plasmon_bench.peers.processes import Daemon

warnings.simplefilter("ignore")


class Plasma(Peer):
    """The store that Plasmon succeeds."""

    title = "plasma (pyarrow 11)"
    how = (
        "client.put and get (pyarrow.serialize) for arrays and builtins, an IPC stream for tables and frames; names "
        "are hashed to ids, so listing gives ids; no overwrite: delete, then put; pandas 2.1."
    )
    distributions: ClassVar[tuple[str, ...]] = ("pyarrow", "numpy", "pandas")
    modules: ClassVar[tuple[str, ...]] = ("pyarrow.plasma", "numpy", "pandas")

    @property
    def _socket(self) -> str:
        return os.fspath(self.directory / "plasma.sock")

    def start(self) -> Store:
        """Start `plasma_store`."""
        program = Path(sys.executable).parent / "plasma_store"
        command = [os.fspath(program), "-m", str(CAPACITY_BYTES), "-s", self._socket]
        return Daemon(command, self.directory, lambda: os.path.exists(self._socket))

    def connect(self) -> None:
        """Connect."""
        from pyarrow import plasma

        self.plasma = plasma
        self.client = plasma.connect(self._socket)

    def _id(self, name: str) -> Any:
        return self.plasma.ObjectID(hashlib.sha1(name.encode(), usedforsecurity=False).digest())

    def put(self, name: str, value: Any) -> None:
        """Put, or create and seal."""
        import pandas as pd
        import pyarrow as pa

        if not isinstance(value, pa.Table | pd.DataFrame):
            self.client.put(value, self._id(name))
            return
        table = pa.Table.from_pandas(value) if isinstance(value, pd.DataFrame) else value
        counted = pa.MockOutputStream()
        with pa.ipc.new_stream(counted, table.schema) as writer:
            writer.write_table(table)
        head = b"d" if isinstance(value, pd.DataFrame) else b"t"
        buffer = self.client.create(self._id(name), counted.size(), head)
        sink = pa.FixedSizeBufferWriter(buffer)
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        self.client.seal(self._id(name))

    def replace(self, name: str, value: Any) -> None:
        """Objects cannot be replaced: delete, then put."""
        self.delete(name)
        self.put(name, value)

    def get(self, name: str) -> Any:
        """Get."""
        if not name.startswith(("table", "pandas")):
            return self.client.get(self._id(name))
        import pyarrow as pa

        [(head, data)] = self.client.get_buffers([self._id(name)], with_meta=True)
        table = pa.ipc.open_stream(data).read_all()
        return table.to_pandas() if head == b"d" else table

    def delete(self, name: str) -> None:
        """Delete."""
        self.client.delete([self._id(name)])

    def exists(self, name: str) -> bool:
        """Ask."""
        return bool(self.client.contains(self._id(name)))

    def names(self) -> list[Any]:
        """List the ids."""
        return list(self.client.list())


class BrainPlasma(Plasma):
    """Names over Plasma."""

    title = "brain-plasma 0.3.3"
    how = "brain[name] = value over plasma 11: a second object per name holds the metadata; pandas 2.1."
    distributions: ClassVar[tuple[str, ...]] = ("brain-plasma", "pyarrow")
    modules: ClassVar[tuple[str, ...]] = ("brain_plasma", "numpy")

    def connect(self) -> None:
        """Make a brain."""
        from brain_plasma import Brain

        self.brain = Brain(path=self._socket)

    def put(self, name: str, value: Any) -> None:
        """Learn."""
        self.brain[name] = value

    def replace(self, name: str, value: Any) -> None:
        """Learn again."""
        self.brain[name] = value

    def get(self, name: str) -> Any:
        """Recall."""
        return self.brain[name]

    def delete(self, name: str) -> None:
        """Forget."""
        self.brain.forget(name)

    def exists(self, name: str) -> bool:
        """Ask."""
        return name in self.brain

    def names(self) -> list[Any]:
        """List."""
        return list(self.brain.names())

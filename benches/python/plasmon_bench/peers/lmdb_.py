"""LMDB in /dev/shm."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import lmdb

from plasmon_bench.peers import CAPACITY_BYTES, Peer
from plasmon_bench.peers.encoded import decode, encode

if TYPE_CHECKING:
    from collections.abc import Mapping


class Lmdb(Peer):
    """A database file in memory; readers look into its pages."""

    title = "lmdb"
    how = (
        "values are Arrow IPC bytes (builtins pickled) in an LMDB in /dev/shm, sync off; readers get zero-copy buffers "
        "(buffers=True) that live as long as the read transaction."
    )
    distributions: ClassVar[tuple[str, ...]] = ("lmdb", "pyarrow")

    def connect(self) -> None:
        """Open the environment."""
        path = Path("/dev/shm", self.directory.name, "lmdb")
        path.mkdir(parents=True, exist_ok=True)
        self.env = lmdb.open(
            os.fspath(path), map_size=CAPACITY_BYTES, sync=False, metasync=False, max_readers=64, max_spare_txns=8
        )
        self.transaction: Any = None

    def put(self, name: str, value: Any) -> None:
        """Write in one transaction."""
        with self.env.begin(write=True) as transaction:
            transaction.put(name.encode(), encode(value))

    def put_many(self, values: Mapping[str, Any]) -> None:
        """Write all in one transaction."""
        with self.env.begin(write=True) as transaction:
            for name, value in values.items():
                transaction.put(name.encode(), encode(value))

    def get(self, name: str) -> Any:
        """Read in a transaction that lasts until `release`."""
        self.transaction = self.env.begin(buffers=True)
        return decode(self.transaction.get(name.encode()))

    def release(self) -> None:
        """End the read transaction."""
        if self.transaction is not None:
            self.transaction.abort()
            self.transaction = None

    def delete(self, name: str) -> None:
        """Delete in one transaction."""
        with self.env.begin(write=True) as transaction:
            transaction.delete(name.encode())

    def exists(self, name: str) -> bool:
        """Read without looking at the value."""
        with self.env.begin(buffers=True) as transaction:
            return transaction.get(name.encode()) is not None

    def names(self) -> list[Any]:
        """Walk the keys."""
        with self.env.begin() as transaction, transaction.cursor() as cursor:
            return [name.decode() for name in cursor.iternext(values=False)]

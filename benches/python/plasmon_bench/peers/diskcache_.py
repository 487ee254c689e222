"""diskcache in /dev/shm."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import diskcache

from plasmon_bench.peers import CAPACITY_BYTES, Peer


class Diskcache(Peer):
    """SQLite, and files for what is large."""

    title = "diskcache"
    how = "diskcache.Cache in /dev/shm, eviction off; values pickled, those over 32 KiB in files of their own."
    distributions: ClassVar[tuple[str, ...]] = ("diskcache",)

    def connect(self) -> None:
        """Open the cache."""
        path = Path("/dev/shm", self.directory.name, "diskcache")
        path.mkdir(parents=True, exist_ok=True)
        self.cache = diskcache.Cache(str(path), size_limit=CAPACITY_BYTES, eviction_policy="none")

    def put(self, name: str, value: Any) -> None:
        """Set."""
        self.cache.set(name, value)

    def put_many(self, values: Any) -> None:
        """Set all in one transaction."""
        with self.cache.transact():
            super().put_many(values)

    def get(self, name: str) -> Any:
        """Get."""
        return self.cache.get(name)

    def delete(self, name: str) -> None:
        """Delete."""
        self.cache.delete(name)

    def exists(self, name: str) -> bool:
        """Ask."""
        return name in self.cache

    def names(self) -> list[Any]:
        """List the keys."""
        return list(self.cache)

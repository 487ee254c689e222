"""Plasmon."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

from plasmon_bench.peers import CAPACITY_BYTES, Peer, Store

if TYPE_CHECKING:
    from collections.abc import Mapping


class Plasmon(Peer):
    """Plasmon, through its Python package."""

    title = "Plasmon"
    how = "brain[name] = value and brain[name] over a store of its own, default options."
    distributions: ClassVar[tuple[str, ...]] = ("plasmon", "numpy", "pandas", "pyarrow", "polars")
    modules: ClassVar[tuple[str, ...]] = ("plasmon", "numpy")

    def start(self) -> Store:
        """Start `plasmon-store`."""
        import plasmon

        store = plasmon.Store(size=CAPACITY_BYTES, path=self._socket)

        class Running(Store):
            def close(self) -> None:
                store.close()

        return Running([store.pid])

    @property
    def _socket(self) -> str:
        return os.fspath(self.directory / "store.sock")

    def connect(self) -> None:
        """Make a brain."""
        import plasmon

        self.brain = plasmon.Brain(self._socket)

    def put(self, name: str, value: Any) -> None:
        """Learn."""
        self.brain[name] = value

    def get(self, name: str) -> Any:
        """Recall."""
        return self.brain[name]

    def delete(self, name: str) -> None:
        """Forget."""
        self.brain.forget(name)

    def put_many(self, values: Mapping[str, Any]) -> None:
        """Learn in one commit."""
        self.brain.learn_many(values)

    def exists(self, name: str) -> bool:
        """Ask the index."""
        return name in self.brain

    def names(self) -> list[Any]:
        """List them."""
        return self.brain.names()

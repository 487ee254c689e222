"""One module per peer, all with the same interface: `Peer`."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Capacity that every store is given.
CAPACITY_BYTES = 4 << 30


class Unsupported(Exception):
    """The peer cannot do that."""


class Store:
    """A running daemon, or the absence of one."""

    def __init__(self, pids: list[int] | None = None) -> None:
        self.pids = pids or []

    def close(self) -> None:
        """End it."""


class Peer(ABC):
    """A way to share named values between processes. `start` runs in a process of its own, all else in clients."""

    #: As it is called in tables.
    title: ClassVar[str]
    #: How it is used here, for the notes under the tables.
    how: ClassVar[str]
    #: Distributions whose versions are reported.
    distributions: ClassVar[tuple[str, ...]] = ()
    #: Modules that clients import before anything is timed.
    modules: ClassVar[tuple[str, ...]] = ()
    #: Whether it is a limit of the machine rather than a store.
    is_floor: ClassVar[bool] = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def start(self) -> Store:
        """Start a store in `directory`; it answers when this returns."""
        return Store()

    @abstractmethod
    def connect(self) -> None:
        """Connect this process."""

    @abstractmethod
    def put(self, name: str, value: Any) -> None:
        """Bind a name that is not bound."""

    def replace(self, name: str, value: Any) -> None:
        """Bind a name that is bound."""
        self.put(name, value)

    @abstractmethod
    def get(self, name: str) -> Any:
        """Return a value, which may be used until `release`."""

    def release(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of what the last `get` needed."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Unbind a name."""

    def put_many(self, values: Mapping[str, Any]) -> None:
        """Bind many names, at one moment where the peer has such a thing."""
        for name, value in values.items():
            self.put(name, value)

    def exists(self, name: str) -> bool:
        """Whether a name is bound."""
        raise Unsupported(f"exists({name})")

    def names(self) -> list[Any]:
        """List all names."""
        raise Unsupported("names")


#: Word on the command line, module and class of each peer.
PEERS = {
    "floor": "floor.Floor",
    "plasmon": "plasmon_.Plasmon",
    "plasma": "plasma_.Plasma",
    "brain-plasma": "plasma_.BrainPlasma",
    "arrow-file": "arrow_file.ArrowFile",
    "lmdb": "lmdb_.Lmdb",
    "shared-memory": "shared_memory_.SharedMemory",
    "diskcache": "diskcache_.Diskcache",
    "redis": "redis_.Redis",
    "valkey": "redis_.Valkey",
    "vineyard": "vineyard_.Vineyard",
    "ray": "ray_.Ray",
}


def peer_class(word: str) -> type[Peer]:
    """Return the class of a peer; its libraries are imported only when it is used."""
    module, _, name = PEERS[word].partition(".")
    found: type[Peer] = getattr(importlib.import_module(f"plasmon_bench.peers.{module}"), name)
    return found

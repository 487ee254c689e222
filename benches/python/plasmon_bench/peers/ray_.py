"""Ray's object store, with names in an actor."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any, ClassVar

from plasmon_bench.peers import CAPACITY_BYTES, Peer, Store

if TYPE_CHECKING:
    from pathlib import Path


class Ray(Peer):
    """References kept under their names in a named actor."""

    title = "ray (named through an actor)"
    how = (
        "ray.put, the reference kept under its name in a named actor; get asks the actor, then ray.get; writer and "
        "reader are two drivers of one local cluster, dashboard off."
    )
    distributions: ClassVar[tuple[str, ...]] = ("ray", "numpy", "pandas", "pyarrow")
    modules: ClassVar[tuple[str, ...]] = ("ray", "numpy")

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        # Read when Ray is imported. Its clusters ask for a token: this one has its own.
        token = directory / "token"
        os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token))
        if not token.exists():
            token.touch(mode=0o600)
            token.write_text(secrets.token_hex(32))

    def start(self) -> Store:
        """Start a local cluster and the actor."""
        import ray

        made = ray.init(
            num_cpus=2,
            object_store_memory=CAPACITY_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            namespace="bench",
            _node_ip_address="127.0.0.1",
        )
        (self.directory / "address").write_text(made.address_info["address"])
        self.actor = _registry(ray).options(name="registry", lifetime="detached").remote()
        ray.get(self.actor.names.remote())

        class Running(Store):
            def close(self) -> None:
                ray.shutdown()

        return Running(_daemons())

    def connect(self) -> None:
        """Become a driver of the cluster."""
        import ray

        self.ray = ray
        address = (self.directory / "address").read_text()
        ray.init(address=address, log_to_driver=False, namespace="bench", _node_ip_address="127.0.0.1")
        self.actor = ray.get_actor("registry")

    def put(self, name: str, value: Any) -> None:
        """Put, and tell the actor."""
        self.ray.get(self.actor.put.remote(name, [self.ray.put(value)]))

    def get(self, name: str) -> Any:
        """Ask the actor, and get."""
        [reference] = self.ray.get(self.actor.get.remote(name))
        return self.ray.get(reference)

    def delete(self, name: str) -> None:
        """Have the actor forget it."""
        self.ray.get(self.actor.delete.remote(name))

    def exists(self, name: str) -> bool:
        """Ask the actor."""
        return bool(self.ray.get(self.actor.exists.remote(name)))

    def names(self) -> list[Any]:
        """Ask the actor."""
        return list(self.ray.get(self.actor.names.remote()))


def _registry(ray: Any) -> Any:
    @ray.remote(num_cpus=0)
    class Registry:
        def __init__(self) -> None:
            self.references: dict[str, Any] = {}

        def put(self, name: str, reference: Any) -> None:
            self.references[name] = reference

        def get(self, name: str) -> Any:
            return self.references[name]

        def delete(self, name: str) -> None:
            del self.references[name]

        def exists(self, name: str) -> bool:
            return name in self.references

        def names(self) -> list[str]:
            return list(self.references)

    return Registry


def _daemons() -> list[int]:
    """Return the processes of the cluster: this process's descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    parent = int(stat.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry))
    found, pending = [], [os.getpid()]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found

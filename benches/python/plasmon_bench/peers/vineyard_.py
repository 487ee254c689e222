"""vineyard (v6d)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from plasmon_bench.peers import CAPACITY_BYTES, Peer, Store
from plasmon_bench.peers.processes import Daemon


class Vineyard(Peer):
    """An immutable object store for data frames."""

    title = "vineyard"
    how = (
        "vineyardd with local metadata and the IPC client: client.put(v, name=, persist=True), get(name=); bytes as a "
        "uint8 array, since blobs cannot be named; replacing = put under the name, then delete the old object."
    )
    distributions: ClassVar[tuple[str, ...]] = ("vineyard", "pyarrow", "pandas", "numpy")
    modules: ClassVar[tuple[str, ...]] = ("vineyard", "numpy", "pandas")

    @property
    def _socket(self) -> str:
        return os.fspath(self.directory / "vineyard.sock")

    def start(self) -> Store:
        """Start `vineyardd`."""
        import vineyard

        program = Path(str(vineyard.__file__)).parent / "bdist" / "vineyardd"
        options = ["--socket", self._socket, "--size", str(CAPACITY_BYTES), "--meta", "local", "--rpc", "false"]

        def answers() -> bool:
            try:
                self.connect()
            except Exception:
                return False
            return True

        return Daemon([os.fspath(program), *options], self.directory, answers)

    def connect(self) -> None:
        """Connect."""
        import vineyard

        self.client = vineyard.connect(self._socket)

    def put(self, name: str, value: Any) -> None:
        """Put and name."""
        if type(value) is bytes:
            import numpy as np

            value = np.frombuffer(value, np.uint8)
        self.client.put(value, name=name, persist=True)

    def replace(self, name: str, value: Any) -> None:
        """Put under the name, then delete the old object."""
        old = self.client.get_name(name)
        self.put(name, value)
        self.client.delete([old])

    def get(self, name: str) -> Any:
        """Get by name."""
        found = self.client.get(name=name)
        return found.tobytes() if name.startswith("bytes") else found

    def delete(self, name: str) -> None:
        """Drop the name and the object."""
        number = self.client.get_name(name)
        self.client.drop_name(name)
        self.client.delete([number])

    def exists(self, name: str) -> bool:
        """Ask for the name."""
        try:
            self.client.get_name(name)
        except Exception:
            return False
        return True

    def names(self) -> list[Any]:
        """List names."""
        return list(self.client.list_names("*", False, 1_000_000))

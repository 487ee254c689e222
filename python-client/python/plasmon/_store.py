"""A private store: a daemon that ends with the process that started it."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plasmon._brain import Brain
from plasmon._programs import STORE_PROGRAM
from plasmon.exceptions import StoreUnavailable

if TYPE_CHECKING:
    from types import TracebackType


class Store:
    """A private store: a daemon of this process's own, which ends when it is closed or this process has ended.

    It ends with this process however that ends, by SIGKILL as well. What was recalled from it stays valid.

    Args:
        size: Capacity: a number of bytes, or a text such as ``"256MB"``, ``"4GiB"`` or ``"25%"`` (of memory).
        path: Where its socket is. Without it, in a new directory that only this user can enter.
        options: More options of ``plasmon-store``, such as ``["--reserve", "now"]``.
        timeout: Longest wait for it to be ready, in seconds.

    Raises:
        StoreUnavailable: It could not start; the message has the daemon's own words.

    Examples:
        >>> import plasmon
        >>> with plasmon.Store(size="64MB") as store:
        ...     brain = store.connect()
        ...     brain["answer"] = 42
        ...     brain["answer"]
        42

    """

    def __init__(
        self,
        size: int | str = "1GiB",
        *,
        path: str | os.PathLike[str] | None = None,
        options: list[str] | None = None,
        timeout: float = 60.0,
    ) -> None:
        self._owner = os.getpid()
        self._directory = tempfile.mkdtemp(prefix="plasmon-", dir=_runtime_directory())
        self.path = os.fspath(path) if path is not None else str(Path(self._directory, "store.sock"))
        self._log = Path(self._directory, "store.log")
        try:
            self._process = self._start(str(size), options or [], timeout)
        except BaseException:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise
        _started.add(self)

    def _start(self, size: str, options: list[str], timeout: float) -> subprocess.Popen[bytes]:
        ready_path = str(Path(self._directory, "ready"))
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as ready, self._log.open("wb") as log:
            ready.bind(ready_path)
            own = ["--size", size, "--socket", self.path, "--owner", str(self._owner)]
            process = subprocess.Popen(  # noqa: S603
                [STORE_PROGRAM, *own, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(ready_path),
                start_new_session=True,  # Ctrl-C is for this process
            )
            ended = os.pidfd_open(process.pid)
            try:
                readable, _, _ = select.select([ready.fileno(), ended], [], [], timeout)
            finally:
                os.close(ended)
            Path(ready_path).unlink()
            if ready.fileno() in readable:
                return process
        process.kill()
        process.wait()
        said = self._log.read_text(errors="replace").strip()
        raise StoreUnavailable(f"the store did not start: {said or f'it was not ready in {timeout} seconds'}")

    def connect(self, namespace: str = "default", **options: Any) -> Brain:
        """Return a `Brain` of this store; ``options`` are those of `Brain`."""
        return Brain(self.path, namespace, **options)

    @property
    def pid(self) -> int:
        """Number of the daemon's process."""
        return self._process.pid

    def close(self) -> None:
        """Stop the store. What was recalled from it stays valid; everything else is gone.

        A process that was forked from the one that started the store leaves it alone.
        """
        if os.getpid() != self._owner or self not in _started:
            return
        _started.discard(self)
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Store:
        """Return the store itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Show where it is."""
        state = f"pid={self.pid}" if self in _started else "closed"
        return f"<plasmon.Store at {self.path!r}, {state}>"


#: Stores that this process has to close before it ends.
_started: set[Store] = set()


@atexit.register
def _close_all() -> None:
    for store in list(_started):
        store.close()


def _runtime_directory() -> str | None:
    directory = os.environ.get("XDG_RUNTIME_DIR")
    return directory if directory and os.access(directory, os.W_OK) else None


def _environment(ready_path: str) -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if key != "PLASMON_SOCKET"}
    return {**environment, "NOTIFY_SOCKET": ready_path}


def start(size: int | str = "1GiB", **options: Any) -> Store:
    """Start a private store, which ends with this process. ``options`` are those of `Store`.

    Examples:
        >>> import plasmon
        >>> store = plasmon.start(size="64MB")
        >>> brain = store.connect()
        >>> brain["x"] = {"a": [1, 2, 3]}
        >>> brain["x"]
        {'a': [1, 2, 3]}
        >>> store.close()

    """
    return Store(size, **options)

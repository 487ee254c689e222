"""A private store: a daemon that ends with the process that started it."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from plasmon._brain import Brain
from plasmon._programs import STORE_PROGRAM
from plasmon._times import Time, seconds
from plasmon.exceptions import StoreUnavailable

if TYPE_CHECKING:
    from types import TracebackType


class Store:
    """A private store: a daemon of this process's own, which ends when it is closed or this process has ended.

    It ends with this process however that ends, by SIGKILL as well. What was recalled from it stays valid.

    Args:
        size: Capacity: a number of bytes, or a text such as ``"256MB"``, ``"4GiB"`` or ``"25%"`` (of the memory of the
            machine, or of the container).
        path: Where its socket is. Without it, in a new directory that only this user can enter.
        options: More options of ``plasmon-store``, such as ``["--reserve", "now"]``.
        timeout: Longest wait for it to be ready: seconds, or as ``ttl`` of `Brain.learn`.

    Raises:
        TypeError: ``options`` is a text, not a list of texts.
        StoreUnavailable: It could not start; the message says how it ended, and has the daemon's own words. Nothing is
            left running or lying about, also when this is interrupted.

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
        timeout: Time = 60.0,
    ) -> None:
        if isinstance(options, str):
            raise TypeError(f"options are a list, such as {options.split()!r}, and this is one str: {options!r}")
        patience = seconds("a timeout", timeout)
        self._owner = os.getpid()
        self._daemon = _Daemon(None if path is None else os.fspath(path), str(size), options or [])
        try:
            self._daemon.start(patience)
            self.path = self._daemon.path
            _started.add(self)
        except BaseException:
            _started.discard(self)
            self._daemon.stop()
            raise

    def connect(self, namespace: str = "default", **options: Any) -> Brain:
        """Return a `Brain` of this store; ``options`` are those of `Brain`."""
        try:
            return Brain(self.path, namespace, **options)
        except StoreUnavailable as error:
            ended = self._daemon.ended(_ENDING_SECONDS) if os.getpid() == self._owner and self in _started else None
            if ended is None:
                raise
            raise StoreUnavailable(f"the store of this process has ended: {ended}") from error

    @property
    def pid(self) -> int:
        """Number of the daemon's process."""
        return self._daemon.pid

    def close(self) -> None:
        """Stop the store. What was recalled from it stays valid; everything else is gone.

        A process that was forked from the one that started the store leaves it alone.
        """
        if os.getpid() != self._owner or self not in _started:
            return
        _started.discard(self)
        self._daemon.stop()

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


class _Daemon:
    """The process of a private store, from before it is there until nothing of it is left."""

    def __init__(self, path: str | None, size: str, options: list[str]) -> None:
        self._asked_path = path
        self._arguments = [f"--size={size}", *options]  # so that -1 is no option
        self._directory: str | None = None
        self._log: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._failed: BaseException | None = None
        # Whether the process is being started, or must not be any more; the lock is held to decide which.
        self._lock = threading.Lock()
        self._is_begun = False
        self._is_given_up = False
        self._is_spawned = threading.Event()

    @property
    def path(self) -> str:
        """Where its socket is."""
        return self._asked_path if self._asked_path is not None else str(Path(self._directory or "", "store.sock"))

    @property
    def pid(self) -> int:
        """Number of its process, once it was started."""
        return 0 if self._process is None else self._process.pid

    def start(self, timeout: float) -> None:
        """Start it, and wait until it is ready.

        What is begun here is undone by `stop`, whatever interrupts it where. A signal handler raises in the main
        thread, also between the start of a process and the assignment of its number, so another thread does that.
        """
        deadline = time.monotonic() + timeout
        try:
            threading.Thread(target=self._spawn, name="plasmon-start").start()
        except RuntimeError:  # no thread can be started, or the interpreter is ending
            self._spawn()
        self._is_spawned.wait()
        process = self._process
        if process is None or process.stdout is None:
            raise StoreUnavailable(f"the store could not be started: {_explained(self._failed)}") from self._failed
        if not _is_ready(process, process.stdout, deadline):
            said = self._words()
            how = self.ended() or f"it was not ready in {timeout:g} seconds{f': {said}' if said else ''}"
            raise StoreUnavailable(f"the store did not start: {how}")

    def stop(self) -> None:
        """Stop it, wait for its end, and remove what it leaves."""
        with self._lock:
            self._is_given_up = True
        if self._is_begun:
            self._is_spawned.wait()
        process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
            if process.returncode < 0:
                self._tidy()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        if self._log is not None:
            self._log.close()

    def ended(self, timeout: float = 0.0) -> str | None:
        """Return how it ended, with its last words; `None` if it lives on for ``timeout`` seconds."""
        if self._process is None:
            return None
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        if code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = "a signal"
            how = f"it was ended by {name} (signal {-code})"
        else:
            how = f"it ended with exit code {code}"
        said = self._words()
        return f"{how}: {said}" if said else f"{how}, and said nothing"

    def _spawn(self) -> None:
        with self._lock:
            if self._is_given_up:
                return
            self._is_begun = True
        try:
            if self._asked_path is None:
                self._directory = _private_directory()
            self._log = _log_file()
            own = ["--socket", self.path, "--owner", str(os.getpid()), "--tell-ready"]
            if self._directory is not None:
                own.append("--remove-directory")
            self._process = subprocess.Popen(  # noqa: S603
                [STORE_PROGRAM, *self._arguments, *own],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for this process
            )
        except BaseException as error:  # it is raised in the thread that waits
            self._failed = error
        finally:
            self._is_spawned.set()

    def _words(self) -> str:
        """Return what it said last."""
        if self._log is None or self._log.closed:
            return ""
        # By position, because the daemon writes where this descriptor stands.
        length = os.fstat(self._log.fileno()).st_size
        begin = max(0, length - _WORDS_BYTES)
        words = os.pread(self._log.fileno(), length - begin, begin).decode(errors="replace")
        return words.strip().removesuffix("For more information, try '--help'.").rstrip()  # nobody here typed a command

    def _tidy(self) -> None:
        """Remove what a daemon that was killed could not: its socket, its lock, and named regions."""
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(  # noqa: S603
                [STORE_PROGRAM, "--tidy", "--socket", self.path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                check=False,
                timeout=10,
            )


#: How long a daemon that answers no more may take to end: its sockets close before its parent hears of its end.
_ENDING_SECONDS = 1.0

#: Of what a daemon said, as much as stands in a message.
_WORDS_BYTES = 4096

#: Stores that this process has to close before it ends.
_started: set[Store] = set()


@atexit.register
def _close_all() -> None:
    for store in list(_started):
        store.close()


def _is_ready(process: subprocess.Popen[bytes], out: IO[bytes], deadline: float) -> bool:
    """Whether a daemon says that it is ready; not, if it ends before or takes too long."""
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(out, selectors.EVENT_READ)
        while b"\n" not in said:
            left = deadline - time.monotonic()
            # A process that was forked meanwhile may keep the pipe open, so that its end shows nothing.
            if left <= 0 or process.poll() is not None:
                return False
            if selector.select(min(left, 0.1)):
                some = os.read(out.fileno(), 4096)
                if not some:  # it is ending
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(timeout=left)
                    return False
                said += some
    return True


def _private_directory() -> str:
    """Make a directory for this user alone, in the first place that has room for one."""
    places = [os.environ.get("XDG_RUNTIME_DIR"), None, f"/run/user/{os.getuid()}", "/tmp", "/dev/shm"]  # noqa: S108
    first: OSError | None = None
    for place in places:
        if place == "":
            continue
        try:
            return tempfile.mkdtemp(prefix="plasmon-", dir=place or tempfile.gettempdir())
        except OSError as error:
            # The place that this user chose is what a message should name.
            first = first or error
    raise first or FileNotFoundError("no place for a directory")


def _log_file() -> IO[bytes]:
    """Open what the daemon's words go to: in memory, so that a full disk keeps none of them back."""
    try:
        return open(os.memfd_create("plasmon-log"), "w+b", buffering=0)
    except (AttributeError, OSError):
        return tempfile.TemporaryFile(buffering=0)


def _explained(error: BaseException | None) -> str:
    """Say what is wrong, and what to do about it."""
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EAGAIN:
        return f"{error}; this user, or this container, may have no more processes (ulimit -u, pids.max)"
    if number in (errno.EMFILE, errno.ENFILE):
        return f"{error}; this process may have no more descriptors (ulimit -n)"
    if number == errno.ENOSPC:
        return f"{error}; name another directory with $XDG_RUNTIME_DIR or $TMPDIR"
    if number in (errno.ENOENT, errno.EACCES, errno.ENOEXEC) and not os.access(STORE_PROGRAM, os.X_OK):
        return f"{error}; the program belongs to this package: install plasmon again"
    return str(error) or type(error).__name__


def _environment() -> dict[str, str]:
    # The service manager of this process is not to hear of a store of its own.
    foreign = {"PLASMON_SOCKET", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"}
    return {key: value for key, value in os.environ.items() if key not in foreign}


def start(
    size: int | str = "1GiB",
    *,
    path: str | os.PathLike[str] | None = None,
    options: list[str] | None = None,
    timeout: Time = 60.0,
) -> Store:
    """Start a private store, which ends with this process. The arguments are those of `Store`.

    Examples:
        >>> import plasmon
        >>> store = plasmon.start(size="64MB")
        >>> brain = store.connect()
        >>> brain["x"] = {"a": [1, 2, 3]}
        >>> brain["x"]
        {'a': [1, 2, 3]}
        >>> store.close()

    """
    return Store(size, path=path, options=options, timeout=timeout)

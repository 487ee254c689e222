"""The processes of one peer: its store and its clients."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, Any

#: Longest wait for an answer, in seconds.
PATIENCE = 180


class Failed(Exception):
    """A worker could not do what it was told."""


class Process:
    """A worker in the peer's virtual environment."""

    def __init__(self, python: Path, word: str, directory: Path, log: Path) -> None:
        command = [os.fspath(python), "-m", "plasmon_bench.worker", word, os.fspath(directory)]
        path = os.environ | {"PYTHONPATH": os.fspath(Path(__file__).parent.parent)}
        pipe, self._log = subprocess.PIPE, log.open("ab")
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._log, env=path)
        self._pending = b""

    def tell(self, do: str, **arguments: Any) -> None:
        """Have it begin something."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        """Wait for the answer."""
        out: IO[bytes] | None = self._process.stdout
        assert out is not None
        while b"\n" not in self._pending:
            readable, _, _ = select.select([out], [], [], PATIENCE)
            got = os.read(out.fileno(), 1 << 20) if readable else b""
            if not got:
                self.end()
                raise Failed("it ended" if readable else f"no answer in {PATIENCE} s")
            self._pending += got
        line, _, self._pending = self._pending.partition(b"\n")
        answer = json.loads(line)
        if "answer" in answer:
            return answer["answer"]
        raise Failed(answer.get("unsupported") or answer["error"])

    def call(self, do: str, **arguments: Any) -> Any:
        """Have it do something, and wait for the answer."""
        self.tell(do, **arguments)
        return self.hear()

    def end(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


#: A store that uses less of a processor than this is done with its beginnings.
IDLE_SHARE = 0.05

#: How long is waited for that.
SETTLE_SECONDS_MAX = 60


class Session:
    """A new store of one peer, and its clients."""

    def __init__(self, word: str, python: Path, log: Path) -> None:
        self.word, self.python, self.log = word, python, log
        self.directory = Path(tempfile.mkdtemp(prefix="plasmon-bench-"))
        self.workers: list[Process] = []
        self.pids: list[int] = []
        self.start_seconds: float | None = None
        self.connect_seconds: list[float] = []

    def begin(self) -> None:
        """Start the store."""
        started = self.worker().call("start")
        if started["pids"]:
            self.pids, self.start_seconds = started["pids"], started["seconds"]

    def settle(self) -> None:
        """Wait until the store is done with what it does in the background after its start, for a minute at most."""
        patience = time.monotonic() + SETTLE_SECONDS_MAX
        used = self._cpu_seconds()
        while self.pids and time.monotonic() < patience:
            time.sleep(1)  # the second of which IDLE_SHARE is a share
            used, before = self._cpu_seconds(), used
            if used - before < IDLE_SHARE:
                return

    def _cpu_seconds(self) -> float:
        ticks = 0
        for pid in self.pids:
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def restart(self) -> None:
        """End the store and start a new one."""
        self.workers[0].call("stop")
        started = self.workers[0].call("start")
        self.pids, self.start_seconds = started["pids"], started["seconds"] if started["pids"] else None

    def worker(self) -> Process:
        """Return a process that is not connected."""
        made = Process(self.python, self.word, self.directory, self.log)
        self.workers.append(made)
        return made

    def client(self, kinds: list[str] | None = None) -> Process:
        """Return a process that is connected."""
        made = self.worker()
        made.call("prepare", kinds=kinds or [])
        self.connect_seconds.append(made.call("connect"))
        return made

    def memory_bytes(self) -> int:
        """Proportional set size of the daemon."""
        total = 0
        for pid in self.pids:
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) << 10
        return total

    def __enter__(self) -> Session:
        """Return the session; `begin` starts its store."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all of it, the store last."""
        for worker in self.workers[1:]:
            worker.end()
        for worker in self.workers[:1]:
            with contextlib.suppress(Failed, OSError):
                worker.call("stop")
            worker.end()
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(Path("/dev/shm", self.directory.name), ignore_errors=True)
        for left in Path("/dev/shm").glob(f"{self.directory.name}*"):
            with contextlib.suppress(OSError):
                left.unlink()

"""A process of one peer: hosts its store, or is a client of it. Does what it reads from standard input, and times it.

Run in the peer's own virtual environment: ``python -m plasmon_bench.worker PEER DIRECTORY``. Commands and answers are
lines of JSON; times are seconds of single operations, without what reading the clock costs.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plasmon_bench.peers import Unsupported, peer_class
from plasmon_bench.values import check, make, reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from plasmon_bench.peers import Store

    Times = list[float]

_clock = time.perf_counter_ns

#: Of what only reads, no more samples are taken after so many seconds.
ENOUGH_SECONDS = 10


class Worker:
    """What can be commanded: each method that has no underscore."""

    def __init__(self, word: str, directory: Path) -> None:
        self._class = peer_class(word)
        self._peer = self._class(directory)
        self._store: Store | None = None
        self._values: dict[str, Any] = {}
        self._clock_costs = statistics.median(-(_clock() - _clock()) for _ in range(2_000))

    def _timed(
        self,
        operation: Callable[[Any], Any],
        arguments: Iterable[Any],
        after: Callable[[], None],
        may_stop: bool = False,
    ) -> Times:
        times: Times = []
        begun = _clock()
        for argument in arguments:
            start = _clock()
            result = operation(argument)
            end = _clock()
            del result
            after()
            times.append(max(end - start - self._clock_costs, 1) / 1e9)
            if may_stop and end - begun > ENOUGH_SECONDS * 1e9:
                break
        return times

    def _value(self, kind: str) -> Any:
        if kind not in self._values:
            self._values[kind] = make(kind)
        return self._values[kind]

    # ---- the store's process

    def start(self) -> dict[str, Any]:
        """Start the store; how long it took, and which processes it is."""
        for module in self._class.modules:
            importlib.import_module(module)
        start = _clock()
        self._store = self._peer.start()
        return {"seconds": (_clock() - start) / 1e9, "pids": self._store.pids}

    def stop(self) -> None:
        """End the store."""
        if self._store is not None:
            self._store.close()

    # ---- clients

    def about(self) -> dict[str, Any]:
        """Say how the peer is used, and in which versions."""
        versions = {}
        for name in self._class.distributions:
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        return {
            "title": self._class.title,
            "how": self._class.how,
            "is_floor": self._class.is_floor,
            "versions": versions,
        }

    def prepare(self, kinds: list[str]) -> None:
        """Import what is needed, and make values."""
        for module in self._class.modules:
            importlib.import_module(module)
        for kind in kinds:
            self._value(kind)

    def connect(self) -> float:
        """Connect."""
        start = _clock()
        self._peer.connect()
        return (_clock() - start) / 1e9

    def put(self, kind: str, first: int, count: int) -> Times:
        """Put a value under new names."""
        value, put = self._value(kind), self._peer.put
        return self._timed(lambda name: put(name, value), _names(kind, first, count), _nothing)

    def replace(self, kind: str, count: int) -> Times:
        """Put a value under one bound name, again and again."""
        value, replace = self._value(kind), self._peer.replace
        return self._timed(lambda name: replace(name, value), _names(kind, 0, 1) * count, _nothing)

    def put_many(self, kind: str, count: int, times: int) -> Times:
        """Put batches under new names; seconds for each value."""
        value = self._value(kind)
        batches = [dict.fromkeys(_names(kind, 1_000_000 + at * count, count), value) for at in range(times)]
        return [seconds / count for seconds in self._timed(self._peer.put_many, batches, _nothing)]

    def get(self, kind: str, first: int, count: int, passes: int = 1) -> Times:
        """Get values and read an element of each."""
        get, read = self._peer.get, reading(kind)
        names = _names(kind, first, count)
        if not self._class.is_floor:
            check(kind, get(names[0]))
        self._peer.release()
        times: Times = []
        for _ in range(passes):
            times += self._timed(_reading(get, read), names, self._peer.release, may_stop=True)
        return times

    def delete(self, kind: str, first: int, count: int) -> Times:
        """Delete values."""
        return self._timed(self._peer.delete, _names(kind, first, count), _nothing)

    def exists(self, kind: str, count: int, passes: int) -> Times:
        """Ask for names that are bound."""
        names = _names(kind, 0, count)
        if not self._peer.exists(names[0]):
            raise AssertionError(f"{names[0]} does not exist")
        return self._timed(self._peer.exists, names * passes, _nothing, may_stop=True)

    def names(self, least: int, times: int) -> Times:
        """List all names."""
        found = len(self._peer.names())
        if found < least:
            raise AssertionError(f"{found} names are listed of {least}")
        return self._timed(lambda _: self._peer.names(), range(times), _nothing, may_stop=True)

    def rate(self, what: str, kind: str, seconds: float, begin: float, client: int) -> float:
        """Put or get small values for some time, from a moment on; how many per second."""
        value, peer = self._value(kind), self._peer
        names = _names(kind, 0, 1_000) if what == "get" else _names(f"{kind}-of-{client}", 0, 10_000)
        while time.time() < begin:
            pass
        done, start = 0, _clock()
        deadline = start + int(seconds * 1e9)
        while _clock() < deadline:
            for name in names[done % len(names) :][:50]:
                if what == "get":
                    peer.get(name)
                    peer.release()
                elif done < len(names):
                    peer.put(name, value)
                else:
                    peer.replace(name, value)
                done += 1
        return done / (_clock() - start) * 1e9


def _names(kind: str, first: int, count: int) -> list[str]:
    return [f"{kind}~{number}" for number in range(first, first + count)]


def _reading(get: Callable[[str], Any], read: Callable[[Any], Any]) -> Callable[[str], Any]:
    def get_and_read(name: str) -> Any:
        value = get(name)
        read(value)
        return value

    return get_and_read


def _nothing() -> None:
    pass


def main() -> None:
    """Do as told until the standard input ends."""
    # What libraries print must not be taken for answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker(sys.argv[1], Path(sys.argv[2]))
    gc.disable()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"answer": getattr(worker, command.pop("do"))(**command)}
        except Unsupported as why:
            answer = {"unsupported": str(why)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}".partition("\n")[0][:200]}
        gc.collect()
        print(json.dumps(answer), file=answers, flush=True)
    os._exit(0)  # some peers wait for others when they end


if __name__ == "__main__":
    main()

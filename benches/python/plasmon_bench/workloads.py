"""What is measured. Each workload takes a peer's session and gives samples for cells of the tables."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plasmon_bench.session import Failed, Session
from plasmon_bench.values import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from plasmon_bench.session import Process

    #: A cell and its samples: seconds, operations per second, or bytes.
    Samples = Iterator[tuple[str, list[float]]]


@dataclass(frozen=True)
class Clients:
    """What a workload works with: two processes on one store, and how long it may take."""

    session: Session
    writer: Process
    reader: Process
    quick: bool

    def times(self, full: int, quick: int) -> int:
        """Return how often something is done."""
        return quick if self.quick else full


def small(clients: Clients) -> Samples:
    """Builtins and small arrays: learned, recalled and forgotten one by one, under many names."""
    count = clients.times(1_000, 300)
    for kind in ("int", "str", "dict", f"array:{KIB}", f"array:{64 * KIB}"):
        yield f"learn.{kind}", clients.writer.call("put", kind=kind, first=0, count=count)
        yield f"recall.{kind}", clients.reader.call("get", kind=kind, first=0, count=count, passes=3)
        forgotten = clients.writer.call("delete", kind=kind, first=0, count=count)
        if kind == f"array:{KIB}":
            yield "forget", forgotten


def medium(clients: Clients) -> Samples:
    """Arrays of 1 MiB: learned, recalled, rebound."""
    kind, count = f"array:{MIB}", clients.times(60, 30)
    for turn in range(3):
        yield f"learn.{kind}", clients.writer.call("put", kind=kind, first=0, count=count)
        yield f"recall.{kind}", clients.reader.call("get", kind=kind, first=0, count=count, passes=2)
        if turn == 2:
            yield "rebind", clients.writer.call("replace", kind=kind, count=count)
        clients.writer.call("delete", kind=kind, first=0, count=count)


def _one_at_a_time(clients: Clients, kind: str, times: int) -> Samples:
    for turn in range(times):
        learned = clients.writer.call("put", kind=kind, first=turn, count=1)
        if turn > 0:
            yield f"learn.{kind}", learned  # the first is on new memory: `first` has those
        yield f"recall.{kind}", clients.reader.call("get", kind=kind, first=turn, count=1, passes=4)
        clients.writer.call("delete", kind=kind, first=turn, count=1)


def large(clients: Clients) -> Samples:
    """Arrays of 64 and 512 MiB, one at a time, so that memory is warm."""
    yield from _one_at_a_time(clients, f"array:{64 * MIB}", clients.times(12, 6))
    yield from _one_at_a_time(clients, f"array:{512 * MIB}", clients.times(5, 3))


def tables(clients: Clients) -> Samples:
    """A table of 87 MB as Arrow, pandas and polars, one at a time."""
    for kind in ("table", "pandas", "polars"):
        try:
            yield from _one_at_a_time(clients, kind, clients.times(8, 5))
        except Failed:
            if kind == "table":
                raise


def names(clients: Clients) -> Samples:
    """Exists, batches, and the list of 10,000 names."""
    clients.writer.call("put", kind="int", first=0, count=1_000)
    yield "exists", clients.reader.call("exists", kind="int", count=1_000, passes=clients.times(5, 2))
    yield "memory.idle", [clients.session.memory_bytes()] if clients.session.pids else []
    yield "learn_many", clients.writer.call("put_many", kind="int", count=100, times=90)
    yield "memory.10k", [clients.session.memory_bytes()] if clients.session.pids else []
    yield "names", clients.reader.call("names", least=10_000, times=clients.times(40, 15))


def rates(clients: Clients) -> Samples:
    """Values of 100 bytes, learned and recalled by 1, 2 and 4 processes at once."""
    kind, seconds = "bytes", 1.0 if clients.quick else 2.0
    clients.writer.call("put", kind=kind, first=0, count=1_000)
    others = [clients.session.client([kind]) for _ in range(4)]
    for what in ("get", "put"):
        for count in (1, 2, 4):
            for turn in range(1 if clients.quick else 2):
                begin = time.time() + 0.2
                for number, client in enumerate(others[:count]):
                    unique = turn * 100 + count * 10 + number
                    client.tell("rate", what=what, kind=kind, seconds=seconds, begin=begin, client=unique)
                total = [client.hear() for client in others[:count]]
                yield f"rate.{'recall' if what == 'get' else 'learn'}.{count}", [sum(total)]


#: By their names on the command line. Each begins with a new store.
WORKLOADS: dict[str, Callable[[Clients], Samples]] = {
    "small": small,
    "medium": medium,
    "large": large,
    "tables": tables,
    "names": names,
    "rates": rates,
}


def on_clients(word: str, python: Path, log: Path, workload: Callable[[Clients], Samples], quick: bool) -> Samples:
    """Run a workload on a new store."""
    with Session(word, python, log) as session:
        session.begin()
        session.settle()
        yield from workload(Clients(session, session.client(), session.client(), quick))
        yield from _beginnings(session)


def first(word: str, python: Path, log: Path, quick: bool) -> Samples:
    """The first learn on a new store, at once and two seconds after it is ready."""
    for size, label in ((64 * MIB, "64 MiB"), (512 * MIB, "512 MiB")):
        for settle in (0.0, 2.0):
            for _ in range(2 if quick else 4):
                with Session(word, python, log) as session:
                    session.begin()
                    kind = f"array:{size}"
                    writer = session.worker()
                    writer.call("prepare", kinds=[kind])
                    if settle == 0:
                        # The value takes longer to make than the store to start: another one, now.
                        session.restart()
                    writer.call("connect")
                    time.sleep(settle)
                    when = "at once" if settle == 0 else "after 2 s"
                    yield f"first.{label}.{when}", writer.call("put", kind=kind, first=0, count=1)
                    yield from _beginnings(session)


def _beginnings(session: Session) -> Samples:
    if session.start_seconds is not None:
        yield "start", [session.start_seconds]
    yield "connect", session.connect_seconds

"""What was measured."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Results:
    """Samples by peer and cell, and all that is said about them."""

    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Peers that could not be installed, and why.
    absent: dict[str, str] = field(default_factory=dict)
    #: Workloads that ended early, by peer, and why.
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)
    run: str = ""

    def add(self, peer: str, cells: dict[str, list[float]]) -> None:
        """Add samples."""
        for cell, samples in cells.items():
            self.samples.setdefault(peer, {}).setdefault(cell, []).extend(samples)

    def median(self, peer: str, cell: str) -> float | None:
        """Return the median of a cell."""
        samples = self.samples.get(peer, {}).get(cell)
        return statistics.median(samples) if samples else None

    def range(self, peer: str, cell: str) -> tuple[float, float]:
        """Return the least and the greatest sample."""
        samples = self.samples[peer][cell]
        return min(samples), max(samples)

    def is_floor(self, peer: str) -> bool:
        """Whether it is a limit of the machine."""
        return peer == "round-trip" or bool(self.about.get(peer, {}).get("is_floor"))

    def title(self, peer: str) -> str:
        """Return the peer as tables call it."""
        if peer == "round-trip":
            return "floor: bare socket ping-pong"
        return str(self.about.get(peer, {}).get("title", peer))

    def best(self, cell: str, more_is_better: bool, among: tuple[str, ...] = ()) -> tuple[str, float] | None:
        """Return the best peer of a cell, of all or among some, and its median."""
        found = [
            (median, peer)
            for peer in self.samples
            if peer != "plasmon" and not self.is_floor(peer) and (not among or peer in among)
            if (median := self.median(peer, cell)) is not None
        ]
        if not found:
            return None
        median, peer = max(found) if more_is_better else min(found)
        return peer, median

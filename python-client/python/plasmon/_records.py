"""What the store tells of the past: records, which cannot be changed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plasmon import _plasmon
from plasmon._times import Time, seconds_or_none

if TYPE_CHECKING:
    from typing import Self

_VERSIONS_MAX = (1 << 32) - 1
_NS_MAX = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What is kept of the versions of a namespace's names once they have ended: for ``declare(history=…)``.

    A version goes when it is over one of the bounds. Without any, all are kept, for as long as there is room: then
    learning fails (`StoreFull`, `TooManyKept`), and nothing that is kept gives way.

    Args:
        versions: So many of each name, besides the one it has; 1 or more.
        age: So long after each ended: seconds, a ``timedelta``, or a text like ``"7d"``, as ``ttl`` of `Brain.learn`.
        bytes: So many bytes of all names together. A version counts with the bytes that its successor does not show.

    Raises:
        ValueError: A bound is not more than 0.

    Examples:
        >>> import plasmon
        >>> plasmon.History(versions=10, age="7d")
        History(versions=10, age=604800.0, bytes=None)

    """

    versions: int | None = None
    age: Time | None = None
    bytes: int | None = None

    def __post_init__(self) -> None:
        """Check the bounds, and make the age seconds."""
        for what, bound in (("versions", self.versions), ("bytes", self.bytes)):
            if bound is not None and (not isinstance(bound, int) or isinstance(bound, bool)):
                raise TypeError(f"{what} is an int or None, and this is {type(bound).__name__}: {bound!r}")
            if bound is not None and bound < 1:
                raise ValueError(f"{what} is 1 or more, and this is {bound}")
        age = seconds_or_none("an age", self.age)
        if age is not None and round(min(age, 1.0) * 1e9) < 1:
            raise ValueError(f"an age is a nanosecond or more, and this is {self.age!r}")
        object.__setattr__(self, "age", age)

    def _bounds(self) -> tuple[int | None, int | None, int | None]:
        """Return what the client takes: what is beyond all numbers is no bound."""
        versions, age, bytes_ = self.versions, self.age, self.bytes
        age_ns = None if age is None or age == math.inf else round(float(age) * 1e9)  # type: ignore[arg-type]
        return (
            None if versions is None or versions > _VERSIONS_MAX else versions,
            None if age_ns is None or age_ns > _NS_MAX else age_ns,
            None if bytes_ is None or bytes_ > _NS_MAX else bytes_,
        )

    @classmethod
    def _of(cls, bounds: tuple[int | None, int | None, int | None]) -> Self:
        versions, age_ns, bytes_ = bounds
        return cls(versions=versions, age=None if age_ns is None else age_ns / 1e9, bytes=bytes_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What a name is bound to, or was: an entry of `Brain.history`.

    Attributes:
        version: Its number, which `Brain.learn` has returned.
        created: When the name was bound to it, in seconds since 1970, by the clock of the store's machine.
        ended: When that ended, or ``None`` of what the name is bound to now.
        reason: Why: ``"rebound"``, ``"forgotten"``, ``"expired"`` (or its process ended), ``"evicted"`` or
            ``"cleared"``; ``None`` of what the name is bound to now.
        writer: Process that wrote the value.
        owner: Uid of that process.
        kind: As `Brain.metadata` has it.
        bytes: Length of the value in the store.
        description: As it was learned with; ``""`` for none.
        metadata: As it was learned with; ``{}`` for none.

    """

    version: int
    created: float
    ended: float | None
    reason: str | None
    writer: int
    owner: int
    kind: str
    bytes: int
    description: str
    metadata: Any

    @classmethod
    def _of(cls, told: dict[str, Any]) -> Self:
        same = {key: told[key] for key in ("version", "created", "ended", "reason", "kind", "description")}
        metadata = _plasmon.parse_json(told["metadata"] or "{}")
        writer, owner, length = told["writer_pid"], told["writer_uid"], told["nbytes"]
        return cls(**same, writer=writer, owner=owner, bytes=length, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A moment that is kept under a label: an entry of `Brain.snapshots`.

    Attributes:
        label: Its label.
        moment: The number of the last change that it shows.
        created: When it was taken, in seconds since 1970.
        names: How many names were bound then.
        bytes: How many bytes their values have.
        namespaces: The namespaces that it keeps.
        pid: Process that took it.
        owner: Uid of that process.

    """

    label: str
    moment: int
    created: float
    names: int
    bytes: int
    namespaces: list[str]
    pid: int
    owner: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewInfo:
    """A view of some process: an entry of `Brain.views`.

    Attributes:
        id: Its number, for `Brain.end_view`.
        moment: The number of the last change that it shows.
        created: When it began, in seconds since 1970.
        pid: Process that holds it.
        owner: Uid of that process.
        command: What that process is called; ``""`` if nobody knows.
        kept: How many versions that have ended are kept with this moment as the last one that wants them.

    """

    id: int
    moment: int
    created: float
    pid: int
    owner: int
    command: str
    kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """How two moments of a namespace differ: what `Brain.diff` returns. True if they do.

    Attributes:
        added: Names that only the later one has.
        changed: Names that both have, bound anew in between.
        removed: Names that only the earlier one has.

    """

    added: list[str]
    changed: list[str]
    removed: list[str]

    def __bool__(self) -> bool:
        """Return whether anything differs."""
        return bool(self.added or self.changed or self.removed)

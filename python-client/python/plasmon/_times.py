"""How long: seconds, a ``timedelta``, or a text such as ``"1h30m"``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TypeAlias

#: A length of time: a number of seconds (``math.inf`` has no end), a ``timedelta``, or a text of numbers with units,
#: ``ms``, ``s``, ``m`` or ``min``, ``h``, ``d`` and ``w``: ``"90s"``, ``"10m"``, ``"1h30m"``, ``"2d"``. Without a unit:
#: seconds.
Time: TypeAlias = float | timedelta | str

_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)\s*", re.ASCII)


def seconds(what: str, given: object) -> float:
    """Return ``given`` in seconds; ``what`` it is stands in the error.

    Raises:
        ValueError: It is a text that does not say how long, not a number (NaN), or negative.
        TypeError: It is something else.

    """
    found = _seconds(given)
    if found is None:
        raise TypeError(
            f"{what} is a number of seconds, a timedelta, or a text like '10m' or '1h30m', "
            f"and this is {type(given).__name__}: {given!r}"
        )
    if not found >= 0:  # NaN as well
        raise ValueError(f"{what} is 0 seconds or more, and this is {given!r}")
    return found


def seconds_or_none(what: str, given: object) -> float | None:
    """Return ``given`` in seconds, ``None`` if it is that."""
    return None if given is None else seconds(what, given)


def _seconds(given: object) -> float | None:
    if isinstance(given, timedelta):
        return given.total_seconds()
    if isinstance(given, str):
        return _read(given)
    if type(given).__name__ == "timedelta64":  # NumPy's, in any unit
        import numpy as np

        return float(given / np.timedelta64(1, "s"))  # type: ignore[operator]
    try:
        return float(given)  # type: ignore[arg-type]
    except TypeError:
        return None
    except OverflowError:  # an int beyond all floats
        return float("inf") if given > 0 else -1.0  # type: ignore[operator]


def _read(text: str) -> float:
    try:
        return float(text)  # as on the command line
    except ValueError:
        pass
    found, at = 0.0, 0
    while part := _PART.match(text, at):
        found, at = found + float(part[1]) * _UNITS_S[part[2]], part.end()
    if at == 0 or at < len(text):
        raise ValueError(f"a time is a number with a unit (ms, s, m, h, d, w), like '10m' or '1h30m', not {text!r}")
    return found

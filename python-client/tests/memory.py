"""Where values lie in this process's memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


def in_arena(address: int, nbytes: int = 1) -> bool:
    """Whether memory lies in a mapping of a store's arena in this process."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, *_, name = line.split(maxsplit=5)
            start, end = (int(part, 16) for part in span.split("-"))
            if start <= address and address + nbytes <= end:
                return "plasmon" in name
    return False


def array_in_arena(array: np.ndarray) -> bool:
    """Whether all of an array lies there."""
    return in_arena(array.__array_interface__["data"][0], array.nbytes)


def copy_on_write_mappings() -> int:
    """How many copy-on-write mappings of stores' memory this process has."""
    with open("/proc/self/maps") as maps:
        return sum("plasmon-arena" in line and " rw-p " in line for line in maps)


def own_bytes() -> int:
    """How much memory this process has that is nobody else's."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) << 10


def buffers_of(value: Any) -> list[tuple[int, int]]:
    """Address and length of every buffer of an Arrow array."""
    found = []
    chunks = value.chunks if isinstance(value, pa.ChunkedArray) else [value]
    for chunk in chunks:
        found += [(buffer.address, buffer.size) for buffer in chunk.buffers() if buffer is not None and buffer.size]
        if isinstance(chunk, pa.DictionaryArray):
            found += buffers_of(chunk.dictionary)
    return found

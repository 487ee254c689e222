"""A cache of cachelib's kind in a store, for whatever takes one of these; Flask-Caching does.

cache = Cache(app, config={"CACHE_TYPE": "plasmon.cachelib.PlasmonCache"})
"""

from __future__ import annotations

import hashlib
import logging
import math
from typing import TYPE_CHECKING, Any

from cachelib import BaseCache

from plasmon._brain import Brain
from plasmon.exceptions import ConditionFailed, NameNotFound, StoreFull

if TYPE_CHECKING:
    import datetime
    import os

_log = logging.getLogger("plasmon")

#: Longest name, in bytes of UTF-8.
_NAME_BYTES_MAX = 1024


class PlasmonCache(BaseCache):
    """A cache in a namespace of a store, shared by all processes that use the same store and namespace.

    The namespace is declared a cache: when room is short, what nobody has used for longest goes. Arrays and frames are
    kept and returned without pickling; what is returned is shared and read-only, or a copy of one's own with ``copy``.

    Args:
        path: The store's socket; without it, the store of this user, as `Brain` finds it.
        namespace: Where the entries are.
        default_timeout: Seconds after which an entry expires that is set without another number; 0 is never.
        sliding: Whether every use of an entry begins that time anew.
        copy: Whether ``get`` returns private copies that can be written to.
        ignore_delete_many_errors: As cachelib has it.

    Examples:
        >>> import plasmon
        >>> from plasmon.cachelib import PlasmonCache
        >>> store = plasmon.start(size="64MB")
        >>> cache = PlasmonCache(store.path)
        >>> cache.set("answer", 42), cache.get("answer"), cache.get("question")
        (True, 42, None)
        >>> store.close()

    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        namespace: str = "cache",
        *,
        default_timeout: int | datetime.timedelta = 300,
        sliding: bool = False,
        copy: bool = False,
        ignore_delete_many_errors: bool = True,
    ) -> None:
        super().__init__(default_timeout, ignore_delete_many_errors)
        self.brain = Brain(path, namespace)
        self.brain.declare(cache=True)
        self._sliding = sliding
        self._copy = copy

    def get(self, key: str) -> Any:
        """Return the value of a key, or ``None``."""
        try:
            return self.brain.recall(_name(key), copy=self._copy)
        except NameNotFound:
            return None

    def get_many(self, *keys: str) -> list[Any]:
        """Return the values of all keys as they were at one moment, ``None`` where there is none."""
        if self._copy:
            return [self.get(key) for key in keys]
        found = self.brain.recall_many(map(_name, keys), missing_ok=True)
        return [found.get(_name(key)) for key in keys]

    def has(self, key: str) -> bool:
        """Return whether a key has a value. One look at the shared index."""
        return self.brain.exists(_name(key))

    def set(self, key: str, value: Any, timeout: int | datetime.timedelta | None = None) -> bool:
        """Keep a value; return whether there was room."""
        try:
            self._learn(key, value, timeout)
        except StoreFull as full:
            _log.warning("%r is not cached: %s", key, full)
            return False
        return True

    def add(self, key: str, value: Any, timeout: int | datetime.timedelta | None = None) -> bool:
        """Keep a value if the key has none; return whether it is kept. Of two callers at once, one is told so."""
        try:
            return bool(self._learn(key, value, timeout, if_absent=True))
        except ConditionFailed:
            return False
        except StoreFull as full:
            _log.warning("%r is not cached: %s", key, full)
            return False

    def delete(self, key: str) -> bool:
        """Forget a key; return whether it had a value."""
        try:
            self.brain.forget(_name(key), missing_ok=False)
        except NameNotFound:
            return False
        return True

    def clear(self) -> bool:
        """Forget everything, at one moment."""
        self.brain.clear()
        return True

    def inc(self, key: str, delta: int = 1) -> int | None:
        """Add to a number, 0 if there is none, and return the sum. Nobody's addition is lost."""
        while True:
            known = self.brain.metadata(_name(key))
            try:
                value = (self.brain[_name(key)] if known else 0) + delta
                how = {"if_version": known["version"]} if known else {"if_absent": True}
                self._learn(key, value, None, **how)
            except (ConditionFailed, NameNotFound):
                continue  # somebody else was faster
            except StoreFull:
                return None
            return int(value)

    def dec(self, key: str, delta: int = 1) -> int | None:
        """Subtract from a number: `inc`."""
        return self.inc(key, -delta)

    def _learn(self, key: str, value: Any, timeout: int | datetime.timedelta | None, **how: Any) -> int:
        seconds = self._normalize_timeout(timeout)
        ttl = math.inf if seconds == 0 else max(seconds, 1e-9)  # a negative one has expired
        return self.brain.learn(_name(key), value, ttl=ttl, sliding=self._sliding, **how)


def _name(key: str) -> str:
    """Return the name of a key: itself, or what stands for one that cannot be a name, or not be read in a list."""
    encoded = key.encode("utf-8", "surrogatepass")
    if 0 < len(encoded) <= _NAME_BYTES_MAX and key.isprintable():
        return key
    return f"digest {hashlib.blake2b(encoded, digest_size=32).hexdigest()}"

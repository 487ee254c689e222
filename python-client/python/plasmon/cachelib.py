"""A cache of cachelib's kind in a store, for whatever takes one of these; Flask-Caching does.

cache = Cache(app, config={"CACHE_TYPE": "plasmon.cachelib.PlasmonCache"})
"""

from __future__ import annotations

import hashlib
import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

try:
    from cachelib import BaseCache
except ModuleNotFoundError as error:
    text = f"{error}; plasmon.cachelib needs it: pip install cachelib"
    raise ModuleNotFoundError(text, name=error.name) from error

from plasmon import _conversions
from plasmon._brain import Brain
from plasmon.exceptions import (
    ConditionFailed,
    LimitExceeded,
    NameNotFound,
    NamespaceNotFound,
    StoreFull,
    StoreUnavailable,
    UnpicklingFailed,
    UntrustedPickle,
)

if TYPE_CHECKING:
    import datetime
    import os
    from collections.abc import Callable

    from plasmon import _plasmon

_Answer = TypeVar("_Answer")

_log = logging.getLogger("plasmon")

#: Longest name, in bytes of UTF-8.
_NAME_BYTES_MAX = 1024


class PlasmonCache(BaseCache):
    """A cache in a namespace of a store, shared by all processes that use the same store and namespace.

    The namespace is a cache: when room is short, what nobody has used for longest goes. Arrays and frames are kept and
    returned without pickling; what is returned is shared and read-only, or a copy of one's own with ``copy``.

    A store that is away, from the beginning or later, is a cache that has nothing and keeps nothing; the log says so,
    and when it is back, it is a cache again. A store that is full keeps nothing new. A value that cannot be
    unpickled, because its class is gone or another user wrote it, counts as none.

    Args:
        path: The store's socket; without it, the store of this user, as `Brain` finds it.
        namespace: Where the entries are.
        default_timeout: Seconds after which an entry expires that is set without another number; 0 is never.
        sliding: Whether every use of an entry begins that time anew.
        copy: Whether ``get`` returns private copies that can be written to.
        strict: Whether a store that is away or full, and a value that cannot be unpickled, is an error
            (`StoreUnavailable`, `StoreFull`, `UnpicklingFailed`, `UntrustedPickle`), now and later.
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
        strict: bool = False,
        ignore_delete_many_errors: bool = True,
    ) -> None:
        super().__init__(default_timeout, ignore_delete_many_errors)
        self._path = path
        self._namespace = namespace
        self._sliding = sliding
        self._copy = copy
        self._strict = strict
        self._brain: Brain | None = None
        self._is_away = False
        self._unless_away(lambda: self.brain, None)

    @property
    def brain(self) -> Brain:
        """The entries, as a dictionary of this cache's namespace.

        Raises:
            StoreUnavailable: No store has answered yet.

        """
        if self._brain is None:
            self._brain = Brain(self._path, self._namespace)
        return self._brain

    def get(self, key: str) -> Any:
        """Return the value of a key, or ``None``."""
        try:
            return self._unless_away(lambda: self._read(lambda: self.brain.recall(_name(key), copy=self._copy)), None)
        except NameNotFound:
            return None

    def get_many(self, *keys: str) -> list[Any]:
        """Return the values of all keys as they were at one moment, ``None`` where there is none."""
        found: list[_plasmon.Object | None] = [None] * len(keys)
        found = self._unless_away(lambda: self.brain.client.objects([_name(key) for key in keys]), found)
        reads = [None if one is None else partial(_conversions.convert, one, None, None, self._copy) for one in found]
        return [None if read is None else self._read(read) for read in reads]

    def has(self, key: str) -> bool:
        """Return whether a key has a value. One look at the shared index."""
        return self._unless_away(lambda: self.brain.exists(_name(key)), False)

    def set(self, key: str, value: Any, timeout: int | datetime.timedelta | None = None) -> bool:
        """Keep a value; return whether it is kept."""
        return self._learn(key, value, timeout)

    def add(self, key: str, value: Any, timeout: int | datetime.timedelta | None = None) -> bool:
        """Keep a value if the key has none; return whether it is kept. Of two callers at once, one is told so."""
        try:
            return self._learn(key, value, timeout, if_absent=True)
        except ConditionFailed:
            return False

    def delete(self, key: str) -> bool:
        """Forget a key; return whether it had a value."""
        return self._unless_away(lambda: self.brain.client.forget(_name(key)), False)

    def clear(self) -> bool:
        """Forget everything, at one moment; return whether nothing is kept now."""
        try:
            return self._unless_away(lambda: self.brain.client.clear() >= 0, False)
        except NamespaceNotFound:
            return True

    def inc(self, key: str, delta: int = 1) -> int | None:
        """Add to a number, 0 if there is none, and return the sum; ``None`` if it cannot be kept.

        Nobody's addition is lost. A number that is there keeps the time at which it expires.
        """
        while True:
            try:
                known = self._unless_away(lambda: self.brain.metadata(_name(key)), None)
                value = (self.brain[_name(key)] if known else 0) + delta
                how = {"if_version": known["version"], "keep_ttl": True} if known else {"if_absent": True}
                return int(value) if self._learn(key, value, None, **how) else None
            except (ConditionFailed, NameNotFound):
                continue  # somebody else was faster
            except StoreUnavailable as error:
                if self._strict:
                    raise
                self._note_away(error)
                return None

    def dec(self, key: str, delta: int = 1) -> int | None:
        """Subtract from a number: `inc`."""
        return self.inc(key, -delta)

    def _learn(self, key: str, value: Any, timeout: int | datetime.timedelta | None, **how: Any) -> bool:
        """Keep a value, in a namespace that is a cache whatever has become of it; return whether it is kept."""
        seconds = self._normalize_timeout(timeout)
        ttl = math.inf if seconds == 0 else max(seconds, 1e-9)  # a negative one has expired
        how = {"ttl": ttl, "sliding": self._sliding, "cache": True, **how}
        try:
            return self._unless_away(lambda: self.brain.learn(_name(key), value, **how) > 0, False)
        except (StoreFull, LimitExceeded) as full:
            if self._strict:
                raise
            _log.warning("%r is not cached: %s", key, full)
            return False

    def _read(self, read: Callable[[], Any]) -> Any:
        """Return a value that is kept, or ``None`` if it cannot be unpickled: that is as good as none."""
        try:
            return read()
        except (UnpicklingFailed, UntrustedPickle) as error:
            if self._strict:
                raise
            _log.warning("what cannot be read counts as not cached: %s", error)
            return None

    def _unless_away(self, ask: Callable[[], _Answer], otherwise: _Answer) -> _Answer:
        """Ask the store; if it is away, that costs an answer, and no error."""
        try:
            answer = ask()
        except StoreUnavailable as error:
            if self._strict:
                raise
            self._note_away(error)
            return otherwise
        self._is_away = False
        return answer

    def _note_away(self, error: StoreUnavailable) -> None:
        if not self._is_away:  # once, until it is back
            _log.warning("the cache %r has and keeps nothing: %s", self._namespace, error)
        self._is_away = True


def _name(key: str) -> str:
    """Return the name of a key: itself, or what stands for one that cannot be a name, or not be read in a list."""
    encoded = key.encode("utf-8", "surrogatepass")
    if 0 < len(encoded) <= _NAME_BYTES_MAX and key.isprintable():
        return key
    return f"digest {hashlib.blake2b(encoded, digest_size=32).hexdigest()}"

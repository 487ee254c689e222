"""A brain's keys, values and items, beside others who bind and unbind names meanwhile.

Each name gets one look: its value is recalled, or it is left out. A look whether it is there, and another one for its
value, could be told two different things.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import ItemsView, KeysView, ValuesView
from opcode import opmap
from typing import TYPE_CHECKING, Any, overload

from plasmon.exceptions import LimitExceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from plasmon import _plasmon
    from plasmon._brain import Brain

_MISSING = object()


class Values(ValuesView[Any]):
    """The values of a brain. One whose name is unbound before its turn is left out."""

    _mapping: Brain

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._mapping.items())

    def __contains__(self, value: object) -> bool:
        return any(found is value or found == value for found in self)


class Items(ItemsView[str, Any]):
    """The names and values of a brain. A name that is unbound before its turn is left out."""

    _mapping: Brain

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self._mapping._bound()

    def __contains__(self, item: object) -> bool:
        if not (isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)):
            return False
        name, value = item
        found = self._mapping.get(name, _MISSING)
        return found is value or bool(found == value)


class Keys:
    """`Brain.keys`, which knows who asks: a Python program, or C code that is about to copy the brain.

    ``dict(brain)``, ``{**brain}`` and ``d.update(brain)`` ask for all names and then for the value of each, and fail if
    one is not there any more. So the values of that first moment are held for them until they are done. Such code looks
    the method up and calls it in one instruction of the program that runs it, a program in Python in two. Only
    ``f(**brain)`` goes without: it takes no name twice, which is how the end of a copy is noticed.
    """

    @overload
    def __get__(self, brain: None, owner: type[Brain]) -> Keys: ...
    @overload
    def __get__(self, brain: Brain, owner: type[Brain]) -> Callable[[], KeysView[str]]: ...
    def __get__(self, brain: Brain | None, owner: type[Brain]) -> Keys | Callable[[], KeysView[str]]:
        return self if brain is None else _BoundKeys(brain, _instruction())

    def __call__(self, brain: Brain) -> KeysView[str]:
        """Return the names of a brain: a view that looks anew each time."""
        return KeysView(brain)


class _BoundKeys:
    """Return the names that are bound, in order: a view that looks anew each time."""

    __slots__ = ("__self__", "_looked_up_by")
    __name__ = "keys"

    def __init__(self, brain: Brain, looked_up_by: tuple[int, int] | None) -> None:
        self.__self__ = brain
        self._looked_up_by = looked_up_by

    def __call__(self) -> KeysView[str]:
        by = _instruction()
        if by is None or by != self._looked_up_by or _is_call_with_keywords(sys._getframe(1)):
            return KeysView(self.__self__)
        return _KeysToCopy(self.__self__, by)


class _KeysToCopy(KeysView[str]):
    """The names of a brain, for C code that copies it."""

    __slots__ = ("_by",)
    _mapping: Brain

    def __init__(self, brain: Brain, by: tuple[int, int] | None) -> None:
        super().__init__(brain)
        self._by = by

    def __iter__(self) -> Iterator[str]:
        names = list(self._mapping)
        if not names or _instruction() != self._by:
            return iter(names)
        client = self._mapping.client
        try:
            found = client.objects(names)
        except LimitExceeded:  # more than this process may hold: a name may then be missing
            return iter(names)
        held = {name: one for name, one in zip(names, found, strict=True) if one is not None}
        if not held:
            return iter(())
        last = _Last(next(reversed(held)))
        last.client, last.held = client, held
        _copying.last = weakref.ref(last)
        return iter([*held, last])


class _Last(str):
    """The last name once more, which a dictionary does not keep, for it has it: so this goes when the copy is made."""

    client: _plasmon.Client
    held: dict[str, _plasmon.Object]


class _Copying(threading.local):
    """What this thread copies."""

    last: Callable[[], _Last | None] = staticmethod(lambda: None)


_copying = _Copying()


def held_for_copy(client: _plasmon.Client, name: str) -> _plasmon.Object | None:
    """Return what was bound to a name when C code in this thread began to copy the brain; `None` if none does."""
    last = _copying.last()
    return last.held.get(name) if last is not None and last.client is client else None


def _is_call_with_keywords(frame: FrameType) -> bool:
    return frame.f_code.co_code[frame.f_lasti] == opmap["DICT_MERGE"]


def _instruction() -> tuple[int, int] | None:
    """The frame that called the caller, and where it is in its code."""
    try:
        frame = sys._getframe(2)
    except ValueError:
        return None  # called by C code alone
    return id(frame), frame.f_lasti

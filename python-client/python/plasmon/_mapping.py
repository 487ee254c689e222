"""A brain's keys, values and items, beside others who bind and unbind names meanwhile.

Each name gets one look: its value is recalled, or it is left out. A look whether it is there, and another one for its
value, could be told two different things.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import ItemsView, KeysView, Mapping, MutableMapping, ValuesView
from fnmatch import fnmatchcase
from opcode import opmap
from typing import TYPE_CHECKING, Any, overload

from plasmon import _forms, _plasmon
from plasmon._place import Place
from plasmon.exceptions import LimitExceeded, NameNotFound, NamespaceNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Self


_MISSING = object()


def value_of(recalled: Any) -> Any:
    """Return the value of what a client has recalled."""
    return _forms.decode(recalled) if type(recalled) is _plasmon.Object else recalled


class Values(ValuesView[Any]):
    """The values of a brain. One whose name is unbound before its turn is left out."""

    _mapping: Bindings

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._mapping.items())

    def __contains__(self, value: object) -> bool:
        return any(found is value or found == value for found in self)


class Items(ItemsView[str, Any]):
    """The names and values of a brain. A name that is unbound before its turn is left out."""

    _mapping: Bindings

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
    def __get__(self, brain: None, owner: type[Bindings]) -> Keys: ...
    @overload
    def __get__(self, brain: Bindings, owner: type[Bindings]) -> Callable[[], KeysView[str]]: ...
    def __get__(self, brain: Bindings | None, owner: type[Bindings]) -> Keys | Callable[[], KeysView[str]]:
        return self if brain is None else _BoundKeys(brain, _instruction())

    def __call__(self, brain: Bindings) -> KeysView[str]:
        """Return the names of a brain: a view that looks anew each time."""
        return KeysView(brain)


class Bindings(Place, MutableMapping[str, Any]):
    """The names of a namespace, and their values by name. What `Brain` has of it as a mapping."""

    __slots__ = ()

    def names(
        self,
        namespace: str | None = None,
        *,
        prefix: str = "",
        match: str | None = None,
        deleted: bool = False,
        namespaces: str | None = None,
    ) -> list[str]:
        """Return the names of a namespace, in order.

        Args:
            namespace: The namespace; this brain's if it is not given. ``"all"`` joins all, names may then repeat.
            prefix: Only names that begin with it.
            match: Only names that match a pattern with ``*``, ``?`` and ``[...]``.
            deleted: Names that are not bound, and that history has something of: what `Brain.undelete` brings back.
            namespaces: Another spelling of ``namespace``, for programs written for brain-plasma.

        Raises:
            NamespaceNotFound: There is no such namespace.
            ValueError: Deleted names of all namespaces are asked for, which are listed namespace by namespace.

        """
        namespace = namespaces if namespace is None else namespace
        if deleted:
            if namespace == "all":
                raise ValueError("deleted names are listed of one namespace at a time, and this is 'all'")
            found = _deleted_names(self._in(namespace), prefix)
        elif namespace == "all":
            found = [entry["name"] for entry in self._client.entries(prefix, True)]
        elif namespace is None:
            try:
                found = self._client.names(prefix)
            except NamespaceNotFound:
                found = []  # another client removed it; learning in it makes it again
        else:
            found = self._in(namespace).names(prefix)
        return found if match is None else [name for name in found if fnmatchcase(name, match)]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names that are bound now, in order."""
        return iter(self.names())

    keys = Keys()  # pyright: ignore[reportAssignmentType]  # a descriptor in the place of a method

    def values(self) -> ValuesView[Any]:
        """Return a view of the values. Each is recalled when it has its turn; those unbound by then are left out."""
        return Values(self)

    def items(self) -> ItemsView[str, Any]:
        """Return a view of names and values. Each is recalled when it has its turn; those unbound by then are left out.

        ``dict(brain)`` copies what was bound at one moment; `recall_many` gives some of it as it was at one moment.
        """
        return Items(self)

    def _bound(self) -> Iterator[tuple[str, Any]]:
        client = self._client
        for name in self:
            try:
                found = client.recall(name)
            except NameNotFound:
                continue
            yield name, value_of(found)

    def __len__(self) -> int:
        """Return how many names are bound in this namespace."""
        return self._client.count()

    def __bool__(self) -> bool:
        """Return true: a brain is there also if it is empty."""
        return True

    def popitem(self) -> tuple[str, Any]:
        """Unbind the first name and return it with its value.

        Raises:
            NameNotFound: There is none.

        """
        while True:
            name = self._first_name()
            try:
                return name, self.pop(name)
            except NameNotFound:
                continue

    def _first_name(self) -> str:
        try:
            first: str = self._client.first_entries("", 1)[0]["name"]
        except (NamespaceNotFound, IndexError):
            error = NameNotFound(f"no name is bound in namespace {self.namespace!r}")
            error.name, error.namespace = "", self.namespace
            raise error from None
        return first

    def __or__(self, other: Any) -> dict[str, Any]:
        """Return a dictionary of what is bound here and what ``other`` has, which counts where both have a name."""
        return dict(self) | dict(other) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> dict[str, Any]:
        """Return a dictionary of what ``other`` has and what is bound here, which counts where both have a name."""
        return dict(other) | dict(self) if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Any) -> Self:
        """Bind all names at one moment, or none of them: `update`."""
        self.update(other)
        return self


def _deleted_names(client: _plasmon.Client, prefix: str) -> list[str]:
    try:
        return _plasmon.Past(client).deleted_names(prefix)
    except NamespaceNotFound:
        return []


class _BoundKeys:
    """Return the names that are bound, in order: a view that looks anew each time."""

    __slots__ = ("__self__", "_looked_up_by")
    __name__ = "keys"

    def __init__(self, brain: Bindings, looked_up_by: tuple[int, int] | None) -> None:
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
    _mapping: Bindings

    def __init__(self, brain: Bindings, by: tuple[int, int] | None) -> None:
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

"""`View`: a moment of a store, which stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, final

from plasmon import _conversions
from plasmon._arguments import As, text
from plasmon._knowledge import known_then
from plasmon._mapping import value_of
from plasmon.exceptions import BadName, NameNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from plasmon import _plasmon


@final
class View(Mapping[str, Any]):
    """A moment of a store, as a dictionary that cannot be changed: what `Brain.view` and `Brain.at` return.

    Whatever happens to the names, it stays as it is. A name that has not changed since costs what `Brain.recall` costs,
    another one a round trip. While the view is there, what is forgotten or learned anew takes room in the store.

    It ends with `close`, at the end of a ``with`` block, when it is collected, and when its process ends, however it
    does; not with `Brain.sleep`, which leaves what is held. In a forked child it has ended, too. There, and in any
    other process, ``brain.view(moment=view.moment)`` begins one of the same moment, as long as this one holds it. What
    was recalled stays valid.

    A cache has no past: its names are seen as they are now.

    Raises:
        ViewEnded: By every use once it has ended.
        NamespaceNotFound: By every use, where it is of a snapshot that does not keep the namespace.

    Examples:
        >>> import plasmon
        >>> with plasmon.Store(size="64MB") as store:
        ...     brain = store.connect()
        ...     brain.update(a=1, b=2)
        ...     with brain.view() as view:
        ...         brain["a"], brain["c"] = 10, 3
        ...         del brain["b"]
        ...         dict(view), dict(brain)
        ({'a': 1, 'b': 2}, {'a': 10, 'c': 3})

    """

    __slots__ = ("__weakref__", "_view")
    _view: _plasmon.View

    def __init__(self) -> None:
        """Raise: a store makes views.

        Raises:
            TypeError: Always.

        """
        raise TypeError("brain.view() begins a view, brain.at(label) one of a snapshot")

    @classmethod
    def _of(cls, view: _plasmon.View) -> Self:
        new = cls.__new__(cls)
        new._view = view
        return new

    @property
    def moment(self) -> int:
        """The number of the last change that it shows: for ``brain.view(moment=…)``, also in other processes."""
        return self._view.moment

    @property
    def id(self) -> int:
        """The number by which `Brain.views` lists it."""
        return self._view.id

    @property
    def namespace(self) -> str:
        """The namespace of which it shows names."""
        return self._view.namespace

    def in_namespace(self, namespace: str) -> View:
        """Return the same view of another namespace, which ends with this one and not before.

        Raises:
            BadNamespace: It breaks its rule.

        """
        return View._of(self._view.in_namespace(text(namespace)))

    def recall(
        self,
        name: str,
        *,
        as_: As | None = None,
        columns: list[str] | None = None,
        copy: bool = False,
    ) -> Any:
        """Return the value that was bound to ``name``, in every form in which `Brain.recall` returns it.

        Raises:
            NameNotFound: Nothing was bound to it.

        """
        if as_ is None and columns is None and not copy:
            return value_of(self._view.recall(name))
        return _conversions.convert(self._view.object(name), as_, columns, copy)

    def __getitem__(self, name: str) -> Any:
        """Return the value that was bound to ``name``: `recall`."""
        return value_of(self._view.recall(name))

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of ``name``, or ``default`` if nothing was bound to it."""
        try:
            return self[name]
        except (NameNotFound, BadName):
            return default

    def __contains__(self, name: object) -> bool:
        """Return whether something was bound to ``name``."""
        return isinstance(name, str) and self._view.contains(name)

    def names(self, *, prefix: str = "") -> list[str]:
        """Return the names that were bound, in order.

        Args:
            prefix: Only names that begin with it.

        """
        return self._view.names(prefix)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names that were bound, in order."""
        return iter(self.names())

    def __len__(self) -> int:
        """Return how many names were bound. Costs a look at each."""
        return len(self.names())

    def __bool__(self) -> bool:
        """Return true: a view is there also if it is empty."""
        return True

    def metadata(self, *names: str, output: Literal["dict", "list"] = "dict") -> Any:
        """Return what the store knows of names, as `Brain.metadata`, without ``ttl``, ``sliding`` and ``expires_at``.

        Raises:
            TypeError: ``output`` is neither ``"dict"`` nor ``"list"``.

        """
        if output not in ("dict", "list"):
            raise TypeError(f'output is "dict" or "list", and this is {output!r}')
        if len(names) == 1 and output == "dict":
            return known_then(self._view.describe(names[0]))
        if names:
            found = {name: known_then(self._view.describe(name)) for name in names}
        else:
            found = {known["name"]: known_then(known) for known in self._view.described()}
        return found if output == "dict" else [found[name] for name in (names or found)]

    def close(self) -> None:
        """End the view, also under other namespaces. What only it kept is free then. Again, it does nothing."""
        self._view.close()

    def __enter__(self) -> Self:
        """Return the view itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the view: `close`."""
        self.close()

    def __repr__(self) -> str:
        """Show what it is of."""
        return f"<plasmon.View of moment {self.moment}, namespace {self.namespace!r}>"

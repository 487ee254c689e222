"""References to values: what pools and queues pass instead of bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from plasmon import _conversions, _forms, _plasmon
from plasmon.exceptions import NameNotFound, VersionGone

if TYPE_CHECKING:
    from plasmon._arguments import As


@final
class Ref:
    """A reference to a value in a store. Made by `Brain.ref`; called, it recalls the value.

    It pickles as a few words, whatever the size of the value: who unpickles it recalls the value from the store,
    without copying it. It holds nothing: the name has to be bound until the last of those who use it has recalled it.
    """

    __slots__ = ("_connected", "_created_ns", "_place", "name", "version")

    def __init__(
        self,
        place: tuple[str, str, float, tuple[int, ...]],
        name: str,
        version: int | None,
        created_ns: int | None = None,
    ) -> None:
        self._place = place
        self._connected: _plasmon.Client | None = None
        #: When that version was made: a store that was started anew begins anew with its versions.
        self._created_ns = created_ns
        #: The name of the value.
        self.name = name
        #: The version that it is of, as `Brain.learn` returned it; ``None`` for whatever is the newest.
        self.version = version

    @property
    def path(self) -> str:
        """The store's socket."""
        return self._place[0]

    @property
    def namespace(self) -> str:
        """The namespace of the name."""
        return self._place[1]

    def __call__(self, *, as_: As | None = None, columns: list[str] | None = None, copy: bool = False) -> Any:
        """Return the value, as `Brain.recall` does.

        Raises:
            VersionGone: The name has another version by now, or is not bound any more (also a ``KeyError``).
            StoreUnavailable: No store answers.

        """
        found = self._found(self._client())
        if as_ is None and columns is None and not copy:
            return _forms.decode(found)
        return _conversions.convert(found, as_, columns, copy)

    def newest(self) -> Ref:
        """Return a reference to whatever the name is bound to when it is called."""
        return Ref(self._place, self.name, None)

    def _client(self) -> _plasmon.Client:
        if self._connected is None:
            path, namespace, timeout, trust = self._place
            # The namespace is not registered anew: if it is gone, so is the value.
            self._connected = _plasmon.Client(path, "default", timeout, list(trust)).in_namespace(namespace)
        return self._connected

    def _found(self, client: _plasmon.Client) -> _plasmon.Object:
        try:
            found = client.object(self.name)
        except NameNotFound as missing:
            if self.version is None:
                missing._client = client
                raise
            raise self._gone(None) from None
        if self.version is not None and (found.version, found.created_ns) != (self.version, self._created_ns):
            raise self._gone(found.version)
        return found

    def _gone(self, found: int | None) -> VersionGone:
        if found is None:
            now = "it is not bound any more"
        elif found == self.version:
            now = "the store has been started anew since, and this is another value"
        else:
            now = f"it has version {found} by now"
        error = VersionGone(
            f"version {self.version} of {self.name!r} in namespace {self.namespace!r} is gone: {now}; keep a name "
            "bound and unchanged while references to it are in use, or take newest() of the reference"
        )
        error.name, error.namespace = self.name, self.namespace
        error.version, error.found_version = self.version, found
        return error

    def __eq__(self, other: object) -> bool:
        """Whether both refer to the same version of the same name of the same store."""
        if not isinstance(other, Ref):
            return NotImplemented
        return self._referred_to == other._referred_to

    def __hash__(self) -> int:
        """Hash by what it refers to."""
        return hash(self._referred_to)

    @property
    def _referred_to(self) -> tuple[object, ...]:
        return (*self._place[:2], self.name, self.version, self._created_ns)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a reference; who unpickles it connects when the value is used."""
        return Ref, (self._place, self.name, self.version, self._created_ns)

    def __repr__(self) -> str:
        """Show what it refers to."""
        version = "newest" if self.version is None else f"version {self.version}"
        return f"<plasmon.Ref to {self.name!r} in namespace {self.namespace!r} at {self.path!r}, {version}>"

"""Where a brain is: a namespace of a store, and how it moves to others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plasmon._arguments import text

if TYPE_CHECKING:
    from typing import Self

    from plasmon import _plasmon


class Place:
    """A namespace of a store. What `Brain` has of it."""

    __slots__ = ("_client", "_timeout")
    _client: _plasmon.Client
    _timeout: float

    @classmethod
    def _of(cls, client: _plasmon.Client, timeout: float) -> Self:
        new = cls.__new__(cls)
        new._client = client
        new._timeout = timeout
        return new

    def _in(self, namespace: str | None) -> _plasmon.Client:
        return self._client if namespace is None else self._client.in_namespace(text(namespace))

    @property
    def namespace(self) -> str:
        """The namespace of this brain."""
        return self._client.namespace

    def namespaces(self) -> set[str]:
        """Return the names of all namespaces. ``default`` is always among them."""
        return {name for name, _ in self._client.namespaces()}

    def set_namespace(self, namespace: str | None = None) -> str:
        """Move to a namespace, register it if it is new, and return its name; without one, return the current one's.

        Raises:
            BadNamespace: It breaks its rule.

        """
        if namespace is not None:
            client = self._client.in_namespace(text(namespace))
            client.register()
            self._client = client
        return self._client.namespace

    def in_namespace(self, namespace: str) -> Self:
        """Return a second brain on the same session, in another namespace, which is registered when it is used."""
        return self._of(self._client.in_namespace(text(namespace)), self._timeout)

    def remove_namespace(self, namespace: str | None = None, *, if_empty: bool = False) -> str:
        """Remove a namespace with all its names, at one moment; without one, the current one.

        Who removes the current namespace is in ``default`` then. Returns a sentence that says so.

        Args:
            namespace: The namespace.
            if_empty: Only if no name is bound in it at that moment.

        Raises:
            NamespaceInUse: A name is, and ``if_empty`` is said (also a `ConditionFailed`).
            DefaultNamespaceError: ``default`` cannot be removed, only cleared.
            NamespaceNotFound: There is no such namespace.

        """
        removed = self.namespace if namespace is None else text(namespace)
        client = self._client.in_namespace(removed)
        if if_empty:
            client.remove_namespace_if_empty()
        else:
            client.remove_namespace()
        if removed == self.namespace:
            self._client = self._client.in_namespace("default")
        return f"Removed namespace {removed}; the current namespace is {self.namespace}"

    @property
    def path(self) -> str:
        """The store's socket."""
        return self._client.path

    @property
    def client(self) -> _plasmon.Client:
        """The low-level client, whose interface may change."""
        return self._client

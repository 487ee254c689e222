"""What the store knows: of names and values, and of itself."""

from __future__ import annotations

from typing import Any, Literal, final

from plasmon import _forms, _plasmon
from plasmon._arguments import not_found
from plasmon._place import Place
from plasmon.exceptions import PlasmonError


class Knowing(Place):
    """Asking what the store knows. What `Brain` has of it."""

    __slots__ = ()

    def metadata(
        self,
        *names: str,
        output: Literal["dict", "list"] = "dict",
        namespace: str | None = None,
    ) -> Any:
        """Return what the store knows of names: of one a dictionary, or ``None`` if it is not bound.

        Of several, or of all names of the namespace if none is given: a dictionary by name, or a list in order.
        Each has ``name``, ``namespace``, ``metadata_id`` and ``value_id`` (bytes), ``description``, ``metadata``,
        ``version``, ``kind``, ``size`` (bytes), ``created`` (seconds since 1970, UTC), ``ttl`` (seconds) and
        ``expires_at`` (as ``created``; both ``None`` for what does not expire), ``sliding``, ``owner`` (uid), ``pid``.

        Raises:
            TypeError: ``output`` is neither ``"dict"`` nor ``"list"``.

        """
        if output not in ("dict", "list"):
            raise TypeError(f'output is "dict" or "list", and this is {output!r}')
        client = self._in(namespace)
        if len(names) == 1 and output == "dict":
            return _metadata(client.describe(names[0]))
        if names:
            found = {name: _metadata(client.describe(name)) for name in names}
        else:
            found = {known["name"]: _metadata(known) for known in client.described()}
        return found if output == "dict" else [found[name] for name in (names or found)]

    def stat(self, name: str, *, namespace: str | None = None) -> dict[str, Any]:
        """Return what the store knows of ``name``, as `metadata`, with its ``shape`` and who holds its value.

        ``shape`` is ``None`` for what is neither an array nor a table. ``held_by`` lists processes, as `pins`.

        Raises:
            NameNotFound: It is not bound.

        """
        client = self._in(namespace)
        known = _metadata(client.describe(name))
        if known is None:
            raise not_found(name, client)
        full = f"{client.namespace}/{name}"
        held_by = [pin for pin in client.pins() if pin["name"] == full]
        return {**known, "shape": _shape(client, name), "held_by": held_by}

    def pins(self) -> list[dict[str, Any]]:
        """Return which process holds which value: ``pid``, ``command``, ``name`` (``namespace/name``), ``nbytes``.

        A slice of an array or table holds the whole value; `plasmon.compact` makes one that holds nothing.
        """
        return self._client.pins()

    def object_id(self, name: str, *, namespace: str | None = None) -> _ObjectId | None:
        """Return the id of the value of ``name``, or ``None`` if it is not bound."""
        known = self._in(namespace).describe(name)
        return None if known is None else _ObjectId(known["object_id"])

    def object_ids(self, *, namespace: str | None = None) -> dict[str, _ObjectId]:
        """Return the ids of all values, by name."""
        return {entry["name"]: _ObjectId(entry["object_id"]) for entry in self._in(namespace).entries("", False)}

    def ids(self, *, namespace: str | None = None) -> list[_ObjectId]:
        """Return the ids of all values, in the order of their names."""
        return list(self.object_ids(namespace=namespace).values())

    def stats(self) -> dict[str, Any]:
        """Return the store's figures of one moment.

        They have the names that docs/operations.md lists under "Metrics", without ``plasmon_`` and ``_total``; those
        that end in ``_bytes`` are bytes, in ``_s`` seconds. ``store_pid`` is the daemon's process. ``refusals`` is a
        list of dictionaries: the refused learns, by ``reason`` and ``namespace`` (``None`` where the memory was asked
        for in advance).
        """
        return self._client.stats()

    def size(self) -> int:
        """Return the capacity of the store, in bytes."""
        return self._client.capacity_bytes

    def used(self) -> int:
        """Return how many bytes of the store are used, forgotten values that somebody still holds included."""
        stats = self.stats()
        return int(stats["capacity_bytes"] - stats["free_bytes"])

    def free(self) -> int:
        """Return how many bytes of the store are free."""
        return int(self.stats()["free_bytes"])

    @property
    def bytes(self) -> int:
        """The capacity of the store, in bytes."""
        return self.size()

    @property
    def mb(self) -> str:
        """The capacity of the store as a text, in megabytes of a million bytes: ``'50 MB'``."""
        return f"{round(self.size() / 1_000_000)} MB"


@final
class _ObjectId:
    """The id of a value: its namespace, then a UUID that rises with time. Never used again."""

    __slots__ = ("_binary",)

    def __init__(self, binary: bytes) -> None:
        self._binary = binary

    def binary(self) -> bytes:
        """Return its 32 bytes."""
        return self._binary

    def hex(self) -> str:
        """Return them in hexadecimal digits."""
        return self._binary.hex()

    def __eq__(self, other: object) -> bool:
        return self._binary == other._binary if isinstance(other, _ObjectId) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._binary)

    def __repr__(self) -> str:
        return f"ObjectId({self.hex()})"


def known_then(described: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return what is known of a name at any moment, as `Knowing.metadata` has it."""
    if described is None:
        return None
    namespace, name = described["namespace"], described["name"]
    return {
        "name": name,
        "namespace": namespace,
        "metadata_id": _plasmon.name_id(namespace, name),
        "value_id": described["object_id"],
        "description": described["description"],
        "metadata": _plasmon.parse_json(described["metadata"] or "{}"),
        "version": described["version"],
        "kind": described["kind"],
        "size": described["nbytes"],
        "created": described["created"],
        "owner": described["writer_uid"],
        "pid": described["writer_pid"],
    }


def _metadata(described: dict[str, Any] | None) -> dict[str, Any] | None:
    known = known_then(described)
    if described is None or known is None:
        return None
    return known | {key: described[key] for key in ("ttl", "sliding", "expires_at")}


def _shape(client: _plasmon.Client, name: str) -> tuple[int, ...] | None:
    """Return the shape of an array or a table; `None` for what has none, or is gone, or cannot be read."""
    try:
        found = client.inspect(name)
        return None if found is None else _forms.shape(found)
    except PlasmonError:
        return None

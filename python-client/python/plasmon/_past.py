"""The past of a brain: versions that have ended, snapshots and views."""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

from plasmon import _plasmon
from plasmon._arguments import checked_version, name_list, text
from plasmon._place import Place
from plasmon._records import Diff, History, Snapshot, Version, ViewInfo
from plasmon._times import seconds
from plasmon._view import View
from plasmon.exceptions import CacheHasNoPast, SnapshotExists, SnapshotNotFound

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import EllipsisType

    from plasmon._times import Time

#: A moment by the clock: a ``datetime``, of local time if it has no time zone, or seconds since 1970.
At: TypeAlias = datetime | float

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NS_MAX = (1 << 63) - 1


class Remembering(Place):
    """History, snapshots and views. What `Brain` has of it."""

    __slots__ = ()

    def declare(
        self,
        namespace: str | None = None,
        *,
        cache: bool | EllipsisType = ...,
        ttl: Time | EllipsisType | None = ...,
        sliding: bool = False,
        history: History | EllipsisType | None = ...,
    ) -> None:
        """Declare what holds for a namespace, and register it if it is new. What is not named (``...``) stays.

        It holds until the namespace is removed. History and the rest are two changes, where both are named; of two
        processes that declare something for one namespace at the same time, one may undo what the other said.

        Args:
            namespace: Another namespace than this brain's.
            cache: When room is short, names of cache namespaces go that were recalled least recently and whose values
                nobody holds, as many as are needed. No other namespace ever loses one. A cache has no past.
            ttl: Time to live, as in `learn`, of what is learned from now on without one; ``None`` takes it away.
            sliding: As in `learn`.
            history: What is kept of versions once they have ended. ``None`` takes it away, with all that it kept.

        Raises:
            ValueError: ``ttl`` is not more than 0, or ``sliding`` is said without it.
            CacheHasNoPast: It would be a cache with history or snapshots.

        Examples:
            >>> import plasmon
            >>> with plasmon.Store(size="64MB") as store:
            ...     results = store.connect(namespace="results")
            ...     results.declare(ttl=3600)
            ...     results.declare(history=plasmon.History(versions=10))
            ...     version = results.learn("a", 1)
            ...     results["a"] = 2
            ...     results.stat("a")["ttl"], results.recall("a", version=version)
            (3600.0, 1)

        """
        if history is not None and history is not ... and not isinstance(history, History):
            raise TypeError(f"history is a plasmon.History or None, and this is {history!r}")
        client = self._in(namespace)
        past = _plasmon.Past(client)
        lifetime = None if ttl is ... and not sliding else (_seconds_or_none(ttl), sliding)
        if lifetime is not None:
            _plasmon.Options(ttl=lifetime[0], sliding=sliding)  # says what is wrong before anything changes
        if cache is True and (isinstance(history, History) or (history is None and _has_snapshot(past, client))):
            raise _cache_has_no_past(client.namespace)

        def declare_rest() -> None:
            if lifetime is not None or cache is not ...:
                client.declare(None if cache is ... else bool(cache), lifetime)

        # What may be refused comes first; and what was a cache is none before it has a history, and the reverse.
        if history is ...:
            declare_rest()
            if lifetime is None and cache is ...:
                client.register()
        elif cache is ... or history is None:
            past.keep_history(None if history is None else history._bounds())
            declare_rest()
        else:
            declare_rest()
            past.keep_history(history._bounds())

    def kept_history(self, namespace: str | None = None) -> History | None:
        """Return what `declare` said is kept of versions that have ended; ``None`` if nothing is."""
        bounds = _plasmon.Past(self._in(namespace)).kept_history()
        return None if bounds is None else History._of(bounds)

    def history(
        self,
        name: str,
        *,
        all: bool = False,  # noqa: A002
        namespace: str | None = None,
    ) -> list[Version]:
        """Return the versions of a name that history keeps, the newest first: what it is bound to now, if it is.

        Empty if there are none. One round trip for each 1,024.

        Args:
            name: The name.
            all: Also the versions that only snapshots and views keep.
            namespace: Another namespace than this brain's.

        Examples:
            >>> import plasmon
            >>> with plasmon.Store(size="64MB") as store:
            ...     brain = store.connect()
            ...     brain.declare(history=plasmon.History(versions=10))
            ...     brain["rate"] = 0.5
            ...     brain["rate"] = 0.25
            ...     del brain["rate"]
            ...     [(entry.reason, brain.recall("rate", version=entry.version)) for entry in brain.history("rate")]
            [('forgotten', 0.25), ('rebound', 0.5)]

        """
        return [Version._of(told) for told in _plasmon.Past(self._in(namespace)).history(name, all)]

    def restore(
        self,
        name: str,
        *,
        version: int | None = None,
        as_of: At | None = None,
        namespace: str | None = None,
    ) -> int:
        """Bind a name to one of its versions that are kept, and return the new binding's version. No bytes move.

        It lives as its namespace has declared.

        Args:
            name: The name.
            version: Which version; or else:
            as_of: What it was bound to at that time, as in `recall`.
            namespace: Another namespace than this brain's.

        Raises:
            VersionGone: That version is not kept (also a `NameNotFound`).
            NameNotFound: Nothing was bound to the name then, or it is not kept.
            TypeError: Not one of ``version`` and ``as_of`` is given.

        """
        past = _plasmon.Past(self._in(namespace))
        return past.restore(name, which(past, name, version, as_of))

    def undelete(self, name: str, *, namespace: str | None = None) -> int:
        """Bind a name that is not bound to the last version that history keeps of it; return the new binding's version.

        Raises:
            NameNotFound: History has none.
            ConditionFailed: The name is bound.

        """
        return _plasmon.Past(self._in(namespace)).undelete(name)

    def purge(self, name: str, *, namespace: str | None = None) -> None:
        """Drop what history keeps of a name, at once: for secrets.

        What the name is bound to stays, and so does what snapshots and views show of it.
        """
        _plasmon.Past(self._in(namespace)).purge(name)

    def snapshot(self, label: str | None = None, namespaces: Iterable[str] | None = None) -> str:
        """Keep this moment under a label, until `drop_snapshot`, and return the label.

        Costs the same for ten names and for a million. What is forgotten and learned anew later takes room for as long
        as the snapshot needs what was there before. Blocks until no commit is under way.

        Args:
            label: 1 to 64 of the ASCII letters, digits, ``_``, ``.`` and ``-``. ``None`` makes one of the time, UTC.
            namespaces: The namespaces that it keeps, at most 1,024; this brain's if it is not given.

        Raises:
            SnapshotExists: There is one with this label.
            BadName: The label breaks its rule.
            NamespaceNotFound: There is no such namespace.
            CacheHasNoPast: One of them is a cache.

        Examples:
            >>> import plasmon
            >>> with plasmon.Store(size="64MB") as store:
            ...     brain = store.connect()
            ...     brain.update(a=1, b=2)
            ...     label = brain.snapshot("before")
            ...     del brain["a"]
            ...     brain.at("before")["a"], brain.diff("before").removed
            ...     version = brain.restore_snapshot("before")
            ...     dict(brain)
            (1, ['a'])
            {'a': 1, 'b': 2}

        """
        past = _plasmon.Past(self._client)
        chosen = [self.namespace] if namespaces is None else [text(one) for one in name_list(namespaces)]
        if label is not None:
            past.snapshot(text_of_label(label), chosen)
            return label
        while True:
            label = datetime.now(UTC).strftime("%Y-%m-%dT%H.%M.%S.%fZ")
            with suppress(SnapshotExists):
                past.snapshot(label, chosen)
                return label

    def snapshots(self) -> list[Snapshot]:
        """Return all snapshots of the store, in order of their labels."""
        return [Snapshot(**told) for told in _plasmon.Past(self._client).snapshots()]

    def at(self, label: str) -> View:
        """Begin a view of a snapshot: what was bound then, as a dictionary that cannot be changed.

        It shows the snapshot's namespaces, also when the snapshot is dropped meanwhile.

        Raises:
            SnapshotNotFound: There is none with this label.

        """
        return View._of(_plasmon.Past(self._client).at(text_of_label(label)))

    def restore_snapshot(self, label: str, names: Iterable[str] | None = None) -> int:
        """Make this namespace what it was at a snapshot, at one moment, and return that change's version.

        Names that were not bound then are forgotten. No bytes move.

        Args:
            label: The snapshot.
            names: Only these names.

        Raises:
            SnapshotNotFound: There is none with this label, or this namespace is none of its.
            TooManyKept: More versions would have to be kept than can be.

        """
        chosen = None if names is None else list(dict.fromkeys(name_list(names)))
        return _plasmon.Past(self._client).restore_snapshot(text_of_label(label), chosen)

    def drop_snapshot(self, label: str, *, missing_ok: bool = False) -> None:
        """Drop a snapshot. What only it kept is free then; views that show it keep what they need.

        Raises:
            SnapshotNotFound: There is none with this label, and ``missing_ok`` is false.

        """
        try:
            _plasmon.Past(self._client).drop_snapshot(text_of_label(label))
        except SnapshotNotFound:
            if not missing_ok:
                raise

    def diff(self, label: str, other: str | None = None) -> Diff:
        """Return how this namespace differs between a snapshot and another one, or now. Costs a look at each name.

        Raises:
            SnapshotNotFound: There is none with this label.

        """
        later = None if other is None else text_of_label(other)
        added, changed, removed = _plasmon.Past(self._client).diff(text_of_label(label), later)
        return Diff(added=added, changed=changed, removed=removed)

    def view(self, moment: int | None = None) -> View:
        """Begin a view: the store as it is now, whatever happens to it. Blocks until no commit is under way.

        Args:
            moment: The `View.moment` of a view that somebody holds, of this process or another: then both look at the
                same.

        Raises:
            ViewEnded: Nobody holds that moment.
            LimitExceeded: This process holds 1,024 views.

        Examples:
            >>> import plasmon
            >>> with plasmon.Store(size="64MB") as store:
            ...     brain = store.connect()
            ...     brain["a"] = 1
            ...     with brain.view() as view:
            ...         brain["a"] = 2
            ...         view["a"], brain["a"], "b" in view
            (1, 2, False)

        """
        if moment is not None and not isinstance(moment, int):
            raise TypeError(f"a moment is an int, the moment of a view, and this is {moment!r}")
        return View._of(_plasmon.Past(self._client).view(checked_version(moment)))

    def views(self) -> list[ViewInfo]:
        """Return the views of all processes, the one that began first coming first."""
        return [ViewInfo(**told) for told in _plasmon.Past(self._client).views()]

    def end_view(self, id: int) -> None:  # noqa: A002
        """End a view, of any process: for the store's own user and root. Who looks through it gets `ViewEnded`.

        A name that has not changed since the view began may still be read through it.

        Raises:
            ViewEnded: There is no such view.
            NotAdmitted: This is another user.

        """
        _plasmon.Past(self._client).end_view(id)


def which(past: _plasmon.Past, name: str, version: int | None, as_of: At | None) -> int:
    """Return the version of a name that is meant."""
    if (version is None) == (as_of is None):
        given = "both are" if as_of is not None else "neither is"
        raise TypeError(f"say which version: version=, as learn returned it, or as_of=, a time; {given} given")
    if as_of is not None:
        return past.version_as_of(name, _nanoseconds(as_of))
    known = checked_version(version)
    if not isinstance(known, int):
        raise TypeError(f"a version is an int, as learn returns it, and this is {version!r}")
    return known


def _has_snapshot(past: _plasmon.Past, client: _plasmon.Client) -> bool:
    return any(client.namespace in told["namespaces"] for told in past.snapshots())


def _cache_has_no_past(namespace: str) -> CacheHasNoPast:
    text = f"namespace {namespace!r} would be a cache, and a cache has no past: neither history nor snapshots"
    error = CacheHasNoPast(text)
    error.namespace = namespace
    return error


def text_of_label(label: object) -> str:
    if not isinstance(label, str):
        raise TypeError(f"a label is a str, and this is {type(label).__name__}: {label!r}")
    return label


def _seconds_or_none(ttl: Time | EllipsisType | None) -> float | None:
    return None if ttl is None or ttl is ... else seconds("a ttl", ttl)


def _nanoseconds(at: object) -> int:
    """Return the last nanosecond that such a time means: a `Version.created` is rounded, and means itself."""
    if isinstance(at, datetime):
        last = (at.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1) * 1_000 + 999
    elif isinstance(at, (int, float)) and not isinstance(at, bool):
        if math.isnan(at):
            raise ValueError("as_of is a time, and this is NaN")
        if math.isinf(at):
            return _NS_MAX if at > 0 else -_NS_MAX
        last = math.ceil(Fraction(math.nextafter(at, math.inf)) * 1_000_000_000)
    else:
        raise TypeError(f"as_of is a datetime or seconds since 1970, and this is {type(at).__name__}: {at!r}")
    return max(-_NS_MAX, min(last, _NS_MAX))

"""`Brain`: a store as a dictionary."""

from __future__ import annotations

import os
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from plasmon import _conversions, _forms, _overview, _plasmon
from plasmon._arguments import As, checked_version, name_list, not_found, options, text
from plasmon._creation import Creating
from plasmon._knowledge import Knowing
from plasmon._mapping import Bindings, held_for_copy, value_of
from plasmon._past import Remembering, which
from plasmon._ref import Ref
from plasmon._times import Time, seconds, seconds_or_none
from plasmon._waiting import Waiting, cancelling
from plasmon.exceptions import (
    BadName,
    ConditionFailed,
    NameNotFound,
    NamespaceNotFound,
    PlasmonError,
    WaitTimeout,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from plasmon._memoize import Memoized
    from plasmon._past import At
    from plasmon._plasmon import Cancel

_MISSING = object()

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Brain(Waiting, Creating, Knowing, Remembering, Bindings):
    """A store as a dictionary: learns, recalls and forgets named values in one namespace.

    What is recalled is equal to what was learned, and of the same type. Arrays, tables and frames are views of the
    store's shared memory: recalling them copies nothing, and takes as long for a gigabyte as for a kilobyte.
    Nothing that is written to a frame comes into the store, and arrays and tables are read-only. They stay valid
    when their name is rebound or forgotten, and when the store ends.

    Safe to share between threads, and over ``fork``; pickled, it is a reference to its store and namespace. All brains
    of a process on one store share one session. Nothing has to be closed.

    Args:
        path: The store's socket. Without it: ``$PLASMON_SOCKET``, or else ``plasmon/store.sock`` in
            ``$XDG_RUNTIME_DIR`` and in ``/run/user/UID``, and ``/tmp/plasmon-UID/store.sock``, the first where a store
            answers.
        namespace: 5 to 64 of the ASCII letters, digits, ``_``, ``.`` and ``-``. It is registered if it is new.
        timeout: Longest wait for the store's answer to a request, in seconds, or as ``ttl`` of `learn`. The first
            brain of a process on a store decides for all.
        trust: Uids of users, besides this one and root, whose store may be talked to and whose values may be unpickled,
            which runs their code.

    Raises:
        StoreUnavailable: No store answers; the message lists what was tried and says what to type.
        BadNamespace: The namespace breaks its rule.

    Examples:
        >>> import plasmon
        >>> store = plasmon.start(size="64MB")
        >>> brain = plasmon.Brain(store.path)
        >>> brain["answer"] = 42
        >>> brain["answer"], "answer" in brain, len(brain), brain.get("question", "?")
        (42, True, 1, '?')
        >>> store.close()

    """

    __slots__ = ()

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        namespace: str = "default",
        *,
        timeout: Time = 30.0,
        trust: Iterable[int] = (),
    ) -> None:
        socket = None if path is None else os.fspath(path)
        self._timeout = seconds("a timeout", timeout)
        self._client = _plasmon.Client(socket, text(namespace), self._timeout, list(trust))

    # ---- learning

    def learn(
        self,
        name: str,
        thing: Any,
        description: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        if_absent: bool = False,
        if_version: int | None = None,
        ttl: Time | None = None,
        sliding: bool = False,
        keep_ttl: bool = False,
        ephemeral: bool = False,
        cache: bool = False,
        if_held: tuple[str, int] | None = None,
        namespace: str | None = None,
    ) -> int:
        """Bind ``name`` to ``thing`` and return the binding's version, which rises with every change of the store.

        Other readers see the old value or the new one, never a mixture. The value is copied once, into shared memory;
        changing ``thing`` later changes nothing there. Blocks for a round trip or two.

        Args:
            name: 1 to 1,024 bytes of UTF-8.
            thing: Any value that docs/values.md lists, which is any that pickles.
            description: A text for people. ``None`` keeps the one the name has, ``""`` clears it.
            metadata: What JSON can say, by ``str``. ``None`` keeps what the name has, ``{}`` clears it.
            if_absent: Only if nothing is bound to the name.
            if_version: Only if the name has this version: compare and set.
            ttl: Time to live, more than 0: seconds, a ``timedelta``, or a text like ``"90s"``, ``"10m"``, ``"1h30m"``,
                ``"2d"``. Then the name is gone for everybody at one moment, as if it had been forgotten. ``None`` is
                what the namespace has declared (`declare`), ``math.inf`` has no end. Time goes on while the machine is
                suspended. Learning the name anew begins anew.
            sliding: Whether every recall begins ``ttl`` anew. Such a name goes between ``ttl`` and ``ttl`` and 4
                seconds after its last recall, never earlier.
            keep_ttl: Whether a name that is bound keeps its time to live and the moment at which it goes: for counters.
            ephemeral: Whether the name goes with this process, however it ends, or with `sleep`: for claims, locks and
                leaders. `wait_change` wakes who waits for that. In a cache it does not give way.
            cache: Whether to make sure, at the same moment, that the namespace is a cache, whatever became of what
                `declare` said: the store may have been started anew. What else was declared stays.
            if_held: Only if another name has this version: ``("claim", version)``, as long as a claim is held.
            namespace: Another namespace than this brain's.

        Raises:
            ValueError: ``ttl`` is not more than 0, or ``sliding`` is said without it.
            NotStorable: The value cannot be stored (also a ``TypeError``).
            StoreFull: It does not fit (also a ``MemoryError``).
            ConditionFailed: ``if_absent``, ``if_version`` or ``if_held`` did not hold.
            BadName: The name breaks its rule (also a ``ValueError``).
            OutcomeUnknown: The store went away: the change may or may not have happened. After all others it has not.

        """
        client = self._client if namespace is None else self._in(namespace)
        given = options(
            description,
            metadata,
            ttl,
            sliding,
            if_absent=if_absent,
            if_version=if_version,
            ephemeral=ephemeral,
            cache=cache,
            keep_ttl=keep_ttl,
            if_held=if_held,
        )
        return _learn(client, name, thing, given)

    def __setitem__(self, name: str, thing: Any) -> None:
        """Bind ``name`` to ``thing``: `learn`."""
        _learn(self._client, name, thing)

    def learn_many(
        self,
        things: Mapping[str, Any] | Iterable[tuple[str, Any]],
        *,
        ttl: Time | None = None,
        sliding: bool = False,
        namespace: str | None = None,
    ) -> int:
        """Bind all names at one moment, or none of them; return the version that all bindings have.

        Args:
            things: Values by name, or pairs of a name and a value, as for a `dict`.
            ttl: As in `learn`; all of them expire at one moment.
            sliding: As in `learn`.
            namespace: Another namespace than this brain's.

        Raises:
            As `learn`.

        """
        client = self._in(namespace)
        options = _plasmon.Options(ttl=seconds_or_none("a ttl", ttl), sliding=sliding)
        by_name: Any = things if isinstance(things, dict) else dict(things)
        pairs: list[tuple[str, Any]] = list(by_name.items())
        version: int | None = client.learn_many(pairs, options)
        if version is not None:  # plain values: in one call
            return version
        return client.learn_many([(name, _forms.encode(thing)) for name, thing in pairs], options)

    def update(self, other: Any = (), /, **things: Any) -> None:
        """Bind all names at one moment, or none of them: `learn_many`."""
        self.learn_many(dict(other, **things))

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return the value of ``name``; if it is not bound, bind it to ``default`` first. Two callers get one value."""
        while True:
            try:
                return self.recall(name)
            except NameNotFound:
                try:
                    self.learn(name, default, if_absent=True)
                except ConditionFailed:
                    continue  # somebody else was faster

    # ---- recalling

    def recall(
        self,
        name: str,
        *,
        timeout: Time | None = None,
        as_: As | None = None,
        columns: list[str] | None = None,
        copy: bool = False,
        cancel: Cancel | None = None,
        version: int | None = None,
        as_of: At | None = None,
        namespace: str | None = None,
    ) -> Any:
        """Return the value bound to ``name``.

        Arrays, tables and frames are views of shared memory; no column is copied. ``str``, ``bytes`` and what consists
        of such objects is copied once. Arrays and tables are read-only. Frames can be written to, and so can arrays and
        frames within other objects: a column or a page is copied when it is first written, and the store keeps what it
        has.

        Args:
            name: 1 to 1,024 bytes of UTF-8.
            timeout: How long to wait for the name to be bound, in seconds or as ``ttl`` of `learn`; ``None`` does not
                wait.
            as_: What to return instead of what was learned: ``"arrow"`` (a ``pyarrow.Table``, of what was stored or, of
                a frame that was pickled, of its rows), ``"pandas"``, ``"polars"`` (of tables), ``"numpy"``, or
                ``"buffer"`` (a read-only ``memoryview`` of the bytes of a ``bytes``, ``str`` or array, not copied).
            columns: Of a table, only these columns.
            copy: Whether to return a private copy that can be written to.
            cancel: Who can end the wait from another thread. A wait in a thread of an executor ends with its future,
                and so with the task that waits for it: ``await asyncio.to_thread(brain.recall, name, timeout=60)``.
            version: Which version, if it is kept: what `learn` has returned, and `history` lists. A round trip.
            as_of: What was bound to ``name`` at this time, by the clock of the store's machine, as far as it is kept: a
                ``datetime``, of local time if it has no time zone, or seconds since 1970. Two round trips.
            namespace: Another namespace than this brain's.

        Raises:
            NameNotFound: Nothing is bound to ``name`` (also a ``KeyError``), or was at that time.
            VersionGone: That version is not kept (also a `NameNotFound`).
            WaitTimeout: ``timeout`` seconds passed first (also a ``TimeoutError``).
            WaitCancelled: The wait was cancelled.
            UnpicklingFailed: The value is there, but cannot be made here: its class, or a module of it, is missing.
            UntrustedPickle: Another user learned the value, and reading it would run that user's code.
            WrongKind: The value cannot be had ``as_`` that (also a ``TypeError``).
            StoreUnavailable: No store answers (also a ``ConnectionError``).

        """
        client = self._client if namespace is None else self._in(namespace)
        if timeout is None and as_ is None and columns is None and not copy and version is None and as_of is None:
            try:
                found = client.recall(name)
            except NameNotFound as error:
                error._client = client
                raise
            return value_of(found)
        if version is not None or as_of is not None:
            if timeout is not None:
                raise TypeError("timeout goes with neither version nor as_of: what is not kept does not come")
            past = _plasmon.Past(client)
            return _conversions.convert(past.object(name, which(past, name, version, as_of)), as_, columns, copy)
        try:
            if timeout is not None:
                with cancelling(cancel) as cancels:
                    found = client.object(name, seconds("a timeout", timeout), cancels)
            else:
                found = client.object(name)
        except (NameNotFound, WaitTimeout) as error:
            error._client = client
            raise
        if as_ is None and columns is None and not copy:
            return value_of(found)
        return _conversions.convert(found, as_, columns, copy)

    def __getitem__(self, name: str) -> Any:
        """Return the value bound to ``name``: `recall`."""
        try:
            found = self._client.recall(name)
        except NameNotFound as error:
            found = held_for_copy(self._client, name)
            if found is None:
                error._client = self._client
                raise
        return value_of(found)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of ``name``, or ``default`` if nothing is bound to it; nothing is to what can be no name.

        Raises:
            UnpicklingFailed: It is bound, and its value cannot be made here.

        """
        try:
            return self[name]
        except (NameNotFound, BadName):
            return default

    def recall_many(
        self,
        names: Iterable[str],
        *,
        missing_ok: bool = False,
        namespace: str | None = None,
    ) -> dict[str, Any]:
        """Return the values of all names as they were at one moment: no change is seen half done.

        Args:
            names: The names.
            missing_ok: Whether names that are not bound are left out, instead of an error.
            namespace: Another namespace than this brain's.

        Raises:
            NameNotFound: One of them is not bound.

        """
        names = name_list(names)
        client = self._in(namespace)
        found = client.objects(names)
        if not missing_ok and None in found:
            name = names[found.index(None)]
            raise not_found(name, client)
        return {name: _forms.decode(one) for name, one in zip(names, found, strict=True) if one is not None}

    def ref(self, name: str, *, namespace: str | None = None) -> Ref:
        """Return a reference to the value that is bound to ``name`` now: a few words that pickle, for other processes.

        What is passed to pools and through queues is then a name, not the bytes of an array. Called, it recalls the
        value. If the name has another version by then it raises `VersionGone`; ``brain.ref(name).newest()`` takes what
        is there.

        Raises:
            NameNotFound: Nothing is bound to ``name``.

        Examples:
            >>> import pickle, plasmon
            >>> import numpy as np
            >>> with plasmon.Store(size="64MB") as store:
            ...     brain = store.connect()
            ...     brain["numbers"] = np.arange(1_000_000)
            ...     ref = brain.ref("numbers")
            ...     len(pickle.dumps(ref)) < 200, pickle.loads(pickle.dumps(ref))().sum().item()
            (True, 499999500000)

        """
        client = self._in(namespace)
        found = client.inspect(name)
        if found is None:
            raise not_found(name, client)
        place = (client.path, client.namespace, self._timeout, tuple(client.trust))
        return Ref(place, name, found.version, found.created_ns)

    def exists(self, name: str, *, namespace: str | None = None) -> bool:
        """Return whether something is bound to ``name``. One look at the shared index."""
        return self._in(namespace).exists(name)

    def __contains__(self, name: object) -> bool:
        """Return whether something is bound to ``name``; ``False`` for what is no name."""
        return isinstance(name, str) and self._client.contains(name)

    @overload
    def memoize(self, function: Callable[_Arguments, _Result], /) -> Memoized[_Arguments, _Result]: ...

    @overload
    def memoize(
        self,
        *,
        ttl: Time | None = None,
        sliding: bool = False,
        key: Callable[..., Any] | None = None,
        strict: bool = False,
        namespace: str = "memoized",
    ) -> Callable[[Callable[_Arguments, _Result]], Memoized[_Arguments, _Result]]: ...

    def memoize(  # type: ignore[misc]  # mypy finds no common form of two signatures with a ParamSpec
        self,
        function: Callable[_Arguments, _Result] | None = None,
        /,
        *,
        ttl: Time | None = None,
        sliding: bool = False,
        key: Callable[..., Any] | None = None,
        strict: bool = False,
        namespace: str = "memoized",
    ) -> Memoized[_Arguments, _Result] | Callable[[Callable[_Arguments, _Result]], Memoized[_Arguments, _Result]]:
        """Return a decorator that keeps what a function returns in the store, for all processes.

        ``@brain.memoize`` is ``@brain.memoize()``.

        Equal calls at once, from any number of threads, greenlets, tasks and processes, compute once: the others wait
        for the result. If the process that computes ends, another takes over; if the function raises, the exception
        goes to its caller and another call tries. Results are recalled: arrays and frames are read-only and shared, for
        the first caller too. A coroutine function is awaited, and its result is kept; the event loop is never blocked.

        Calls are equal if their arguments are and the function is. Arrays and frames count by their content, which is
        read for that. A function counts by its code, what it encloses, its defaults, what it wraps or is bound to, and
        the functions, classes and other things to be called that it names in its own module and others that are not
        installed as a package; a class, by its methods and constants: one that is written anew starts anew, as does
        one that calls it. A variable that it encloses counts by the value it has at the call; a list, dictionary or
        object that is changed in place, and an attribute of a class, as it was when first seen. What else the function
        reads (global variables, files, what it finds as ``module.name``) does not count: give it a ``ttl``, or
        ``forget`` a result.

        A store that is away or full costs a call its computation and no error; the log says so.

        The decorated function has ``forget(*args)``, ``clear()`` and ``name(*args)``, the result's name in the store.

        Args:
            function: What ``@brain.memoize`` without parentheses decorates.
            ttl: How long after that a result is forgotten, as in `learn`; ``None`` keeps it as long as there is room.
            sliding: Whether the time starts anew with each use.
            key: Called with the arguments, returns what counts instead of them. What the function holds and has no
                digest (a connection, say) does not count then, instead of being refused.
            strict: Whether a store that is away is an error (`StoreUnavailable`).
            namespace: Where results are. It is a cache: what was used least recently makes room for the new.

        Raises:
            NotMemoizable: For a generator function, and one of which cannot be known what it computes: it says why.

        Examples:
            >>> import plasmon
            >>> with plasmon.Store(size="64MB") as store:
            ...     brain = store.connect()
            ...     @brain.memoize(ttl=60)
            ...     def squares(n):
            ...         print("computing")
            ...         return [i * i for i in range(n)]
            ...     squares(3), squares(n=3)
            computing
            ([0, 1, 4], [0, 1, 4])

        """
        from plasmon._memoize import Memoized

        times: dict[str, Any] = {} if ttl is None else {"ttl": seconds("a ttl", ttl), "sliding": sliding}
        _plasmon.Options(**times)  # what cannot be kept for so long is said now
        brain = self.in_namespace(namespace)
        given: Any = function
        if given is not None and not callable(given) and not isinstance(given, classmethod):
            raise TypeError(f"memoize takes its options by name, as in memoize(ttl='10m'), and this is {given!r}")

        def decorate(function: Callable[_Arguments, _Result]) -> Memoized[_Arguments, _Result]:
            return Memoized(function, brain, key, times, strict)

        return decorate if function is None else decorate(function)

    # ---- forgetting

    def forget(
        self,
        name: str,
        *,
        missing_ok: bool = True,
        if_version: int | None = None,
        namespace: str | None = None,
    ) -> None:
        """Unbind ``name``. Who holds its value keeps it; its memory is free when nobody does.

        Args:
            name: The name.
            missing_ok: Whether a name that is not bound is fine.
            if_version: Only if the name has this version.
            namespace: Another namespace than this brain's.

        Raises:
            NameNotFound: It is not bound, and ``missing_ok`` is false.
            ConditionFailed: It has another version.

        """
        client = self._in(namespace)
        if not client.forget(name, checked_version(if_version)) and not missing_ok:
            raise not_found(name, client)

    def __delitem__(self, name: str) -> None:
        """Unbind ``name``.

        Raises:
            NameNotFound: It is not bound.

        """
        self.forget(name, missing_ok=False)

    def forget_many(self, names: Iterable[str], *, namespace: str | None = None) -> None:
        """Unbind all names at one moment; those that are not bound are ignored."""
        self._in(namespace).forget_many(list(dict.fromkeys(name_list(names))))

    def pop(self, name: str, default: Any = _MISSING, /) -> Any:
        """Unbind ``name`` and return its value. Of two callers, one gets it.

        Raises:
            NameNotFound: It is not bound, and no default is given.

        """
        while True:
            try:
                found = self._client.object(name)
            except (NameNotFound, BadName) as error:
                if default is not _MISSING:
                    return default
                if isinstance(error, NameNotFound):
                    error._client = self._client
                raise
            value = _forms.decode(found)
            try:
                self._client.forget(name, found.version)
            except ConditionFailed:
                continue  # somebody else was faster
            return value

    def clear(self) -> None:
        """Unbind all names of this namespace, at one moment."""
        with suppress(NamespaceNotFound):  # another client removed it, with all its names
            self._client.clear()

    # ---- names and namespaces

    # ---- life

    def sleep(self) -> None:
        """Leave the store. What was recalled stays valid; calls raise `ClientAsleep` until `wake_up`."""
        self._client.sleep()

    def wake_up(self) -> None:
        """Connect again after `sleep`.

        Raises:
            StoreUnavailable: No store answers.

        """
        self._client.wake_up()

    def __enter__(self) -> Brain:
        """Return the brain itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the store: `sleep`."""
        self.sleep()

    def __eq__(self, other: object) -> bool:
        """Whether two brains are the same namespace of the same store."""
        if not isinstance(other, Brain):
            return NotImplemented
        return (self.path, self.namespace) == (other.path, other.namespace)

    def __hash__(self) -> int:
        """Hash by store: equal brains have equal hashes, also after one has moved to another namespace."""
        return hash(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a reference: who unpickles it connects to the store at the same path."""
        return _connect, (self.path, self.namespace, self._timeout, tuple(self._client.trust))

    def __repr__(self) -> str:
        """Show where it is."""
        asleep = ", asleep" if self._client.is_asleep else ""
        return f"<plasmon.Brain at {self.path!r}, namespace {self.namespace!r}{asleep}>"

    def _as_text(self) -> str:
        """Return what `_repr_html_` shows, where there is no HTML."""
        try:
            return _overview.as_text(repr(self), _overview.look(self._client))
        except PlasmonError as error:
            return f"{self!r}: {error}"

    def _repr_html_(self) -> str:
        """Show names, kinds, shapes, sizes and holders, and how full the store is, in a notebook; or why it cannot."""
        try:
            return _overview.as_html(self.path, self.namespace, _overview.look(self._client))
        except PlasmonError as error:
            return f"<div>{escape(repr(self))}: {escape(str(error))}</div>"

    def _ipython_key_completions_(self) -> list[str]:
        """Return names for ``brain["<TAB>``: the first thousands, for completion must not be slow."""
        try:
            return self._client.first_names("")
        except PlasmonError:
            return []


def _learn(client: _plasmon.Client, name: str, thing: Any, options: _plasmon.Options | None = None) -> int:
    version: int | None = client.learn(name, thing, options)
    if version is not None:  # a plain value: in one call
        return version
    return client.learn(name, _forms.encode(thing), options)


def _connect(path: str, namespace: str, timeout: float, trust: tuple[int, ...]) -> Brain:
    return Brain(path, namespace, timeout=timeout, trust=trust)

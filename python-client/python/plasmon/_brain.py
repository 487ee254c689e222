"""`Brain`: a store as a dictionary."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, MutableMapping, ValuesView
from contextlib import suppress
from fnmatch import fnmatchcase
from html import escape
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, final, overload

from plasmon import _forms, _mapping, _overview, _plasmon
from plasmon._ref import Ref
from plasmon._times import Time, seconds, seconds_or_none
from plasmon._waiting import cancelling
from plasmon.exceptions import (
    BadName,
    ConditionFailed,
    MetadataTypeError,
    NameNotFound,
    NamespaceNotFound,
    NameTypeError,
    NotStorable,
    PlasmonError,
    WaitTimeout,
)

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    import pyarrow as pa

    from plasmon._memoize import Memoized
    from plasmon._plasmon import Cancel

_MISSING = object()

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

As = Literal["arrow", "pandas", "polars", "numpy", "buffer"]


class Brain(MutableMapping[str, Any]):
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

    __slots__ = ("_client", "_timeout")

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
        self._client = _plasmon.Client(socket, _text(namespace), self._timeout, list(trust))

    @classmethod
    def _of(cls, client: _plasmon.Client, timeout: float) -> Brain:
        brain = cls.__new__(cls)
        brain._client = client
        brain._timeout = timeout
        return brain

    def _in(self, namespace: str | None) -> _plasmon.Client:
        return self._client if namespace is None else self._client.in_namespace(_text(namespace))

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
        options = _options(
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
        return _learn(client, name, thing, options)

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
            namespace: Another namespace than this brain's.

        Raises:
            NameNotFound: Nothing is bound to ``name`` (also a ``KeyError``).
            WaitTimeout: ``timeout`` seconds passed first (also a ``TimeoutError``).
            WaitCancelled: The wait was cancelled.
            UnpicklingFailed: The value is there, but cannot be made here: its class, or a module of it, is missing.
            UntrustedPickle: Another user learned the value, and reading it would run that user's code.
            WrongKind: The value cannot be had ``as_`` that (also a ``TypeError``).
            StoreUnavailable: No store answers (also a ``ConnectionError``).

        """
        client = self._client if namespace is None else self._in(namespace)
        try:
            if timeout is not None:
                with cancelling(cancel) as cancels:
                    found = client.object(name, seconds("a timeout", timeout), cancels)
            elif as_ is None and columns is None and not copy:
                found = client.recall(name)
            else:
                found = client.object(name)
        except (NameNotFound, WaitTimeout) as error:
            error._client = client
            raise
        if as_ is None and columns is None and not copy:
            return _value(found)
        return _forms.convert(found, as_, columns, copy)

    def __getitem__(self, name: str) -> Any:
        """Return the value bound to ``name``: `recall`."""
        try:
            found = self._client.recall(name)
        except NameNotFound as error:
            found = _mapping.held_for_copy(self._client, name)
            if found is None:
                error._client = self._client
                raise
        return _value(found)

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
        names = _names(names)
        client = self._in(namespace)
        found = client.objects(names)
        if not missing_ok and None in found:
            name = names[found.index(None)]
            raise _not_found(name, client)
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
            raise _not_found(name, client)
        place = (client.path, client.namespace, self._timeout, tuple(client.trust))
        return Ref(place, name, found.version, found.created_ns)

    def wait(
        self,
        name: str,
        *,
        after: int = 0,
        timeout: Time,
        cancel: Cancel | None = None,
        namespace: str | None = None,
    ) -> int:
        """Wait until ``name`` has a version above ``after``, and return that version.

        Raises:
            WaitTimeout: ``timeout`` passed first: seconds, or as ``ttl`` of `learn`.
            WaitCancelled: The wait was cancelled, as in `recall`.

        """
        client = self._in(namespace)
        with cancelling(cancel) as cancels:
            return client.wait(name, after, seconds("a timeout", timeout), cancels)

    def wait_change(
        self,
        name: str,
        *,
        version: int,
        timeout: Time,
        cancel: Cancel | None = None,
        namespace: str | None = None,
    ) -> int | None:
        """Wait until ``name`` has another version than ``version``; return it, or ``None`` if it is not bound any more.

        Args:
            name: The name.
            version: What is known; 0 is that it is not bound.
            timeout: In seconds, or as ``ttl`` of `learn`.
            cancel: As in `recall`.
            namespace: Another namespace than this brain's.

        Raises:
            WaitTimeout: ``timeout`` passed first.
            WaitCancelled: The wait was cancelled, as in `recall`.

        """
        from plasmon._memoize import until_readable

        client = self._in(namespace)
        time_left = seconds("a timeout", timeout)
        pending = client.begin_wait_change(name, _version(version) or 0)
        try:
            with cancelling(cancel) as cancels:
                if until_readable(pending, time_left, cancels):
                    return pending.finish() or None
        finally:
            pending.give_up()  # the trace of an exception refers to it
        error = WaitTimeout(f"{name!r} in namespace {client.namespace!r} did not change within {timeout!r}")
        error.name, error.namespace = name, client.namespace
        raise error

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
        if not client.forget(name, _version(if_version)) and not missing_ok:
            raise _not_found(name, client)

    def __delitem__(self, name: str) -> None:
        """Unbind ``name``.

        Raises:
            NameNotFound: It is not bound.

        """
        self.forget(name, missing_ok=False)

    def forget_many(self, names: Iterable[str], *, namespace: str | None = None) -> None:
        """Unbind all names at one moment; those that are not bound are ignored."""
        self._in(namespace).forget_many(list(dict.fromkeys(_names(names))))

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

    def clear(self) -> None:
        """Unbind all names of this namespace, at one moment."""
        with suppress(NamespaceNotFound):  # another client removed it, with all its names
            self._client.clear()

    # ---- writing in place

    def create(
        self,
        name: str,
        nbytes: int,
        *,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: Time | None = None,
        sliding: bool = False,
        namespace: str | None = None,
    ) -> Creation[memoryview]:
        """Return a context manager that gives ``nbytes`` of shared memory to write into.

        At the end of the block the bytes become immutable and ``name`` is bound to them; views of them go on reading.
        After an exception nothing is bound. They are recalled as a read-only ``memoryview``. ``ttl`` and ``sliding`` as
        in `learn`, from the end of the block on.

        Raises:
            StoreFull: There is no room.
            ValueError: ``nbytes`` is negative.

        Examples:
            >>> import plasmon
            >>> with plasmon.Store(size="64MB") as store:
            ...     brain = store.connect()
            ...     with brain.create("image", 3) as buffer:
            ...         buffer[:] = b"abc"
            ...     bytes(brain["image"])
            b'abc'

        """
        if nbytes < 0:
            raise ValueError(f"nbytes is 0 or more, and this is {nbytes}")
        options = _options(description, metadata, ttl, sliding)
        writable = self._in(namespace).create(name, nbytes)
        return Creation(writable, memoryview(writable), options)

    def empty(
        self,
        name: str,
        shape: int | tuple[int, ...],
        dtype: Any = "float64",
        *,
        order: Literal["C", "F"] = "C",
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: Time | None = None,
        sliding: bool = False,
        namespace: str | None = None,
    ) -> Creation[np.ndarray[Any, Any]]:
        """Return a context manager that gives an ndarray in shared memory to fill in: its elements are arbitrary.

        At the end of the block it becomes read-only and ``name`` is bound to it. After an exception nothing is bound.

        Args:
            name: The name.
            shape: Number of elements in each dimension.
            dtype: A dtype of integers, floats or truth values.
            order: ``"C"`` or ``"F"``.
            description: As in `learn`.
            metadata: As in `learn`.
            ttl: As in `learn`, from the end of the block on.
            sliding: As in `learn`.
            namespace: Another namespace than this brain's.

        Raises:
            StoreFull: There is no room.
            TypeError: Arrays of this dtype are stored as pickles, which cannot be made in place.
            ValueError: A dimension is negative, or ``order`` is another.

        Examples:
            >>> import plasmon
            >>> with plasmon.Store(size="64MB") as store:
            ...     brain = store.connect()
            ...     with brain.empty("ones", (2, 3), "int32") as array:
            ...         array[...] = 1
            ...     brain["ones"].sum().item()
            6

        """
        import numpy as np

        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        element = np.dtype(dtype)
        number = _forms.tensor_dtype(element)
        if number is None:
            raise TypeError(f"an array of {element} cannot be made in place; make it and learn it")
        if any(dim < 0 for dim in shape) or order not in ("C", "F"):
            raise ValueError(f'an array has no dimension below 0 and order "C" or "F"; this is {shape}, {order!r}')
        options = _options(description, metadata, ttl, sliding)
        writable = self._in(namespace).create_tensor(name, number, shape, order == "F")
        array = np.ndarray(shape, element, memoryview(writable), order=order)
        return Creation(writable, array, options)

    def writer(
        self,
        name: str,
        schema: pa.Schema,
        *,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: Time | None = None,
        sliding: bool = False,
        namespace: str | None = None,
    ) -> TableCreation:
        """Return a context manager that takes a table batch by batch, straight into shared memory.

        At the end of the block ``name`` is bound to the table. After an exception nothing is bound. ``ttl`` and
        ``sliding`` as in `learn`, from the end of the block on.

        Raises:
            StoreFull: There is no room, also on ``write``.

        Examples:
            >>> import plasmon, pyarrow as pa
            >>> with plasmon.Store(size="64MB") as store:
            ...     brain = store.connect()
            ...     with brain.writer("numbers", pa.schema([("n", pa.int64())])) as writer:
            ...         for start in (0, 10):
            ...             rows = writer.write(pa.record_batch({"n": range(start, start + 10)}))
            ...     brain["numbers"].num_rows
            20

        """
        options = _options(description, metadata, ttl, sliding)
        writer = self._in(namespace).writer(name, schema.empty_table())
        return TableCreation(writer, options)

    # ---- names and namespaces

    def names(
        self,
        namespace: str | None = None,
        *,
        prefix: str = "",
        match: str | None = None,
        namespaces: str | None = None,
    ) -> list[str]:
        """Return the names of a namespace, in order.

        Args:
            namespace: The namespace; this brain's if it is not given. ``"all"`` joins all, names may then repeat.
            prefix: Only names that begin with it.
            match: Only names that match a pattern with ``*``, ``?`` and ``[...]``.
            namespaces: Another spelling of ``namespace``, for programs written for brain-plasma.

        Raises:
            NamespaceNotFound: There is no such namespace.

        """
        namespace = namespaces if namespace is None else namespace
        if namespace == "all":
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

    keys = _mapping.Keys()  # pyright: ignore[reportAssignmentType]  # a descriptor in the place of a method

    def values(self) -> ValuesView[Any]:
        """Return a view of the values. Each is recalled when it has its turn; those unbound by then are left out."""
        return _mapping.Values(self)

    def items(self) -> ItemsView[str, Any]:
        """Return a view of names and values. Each is recalled when it has its turn; those unbound by then are left out.

        ``dict(brain)`` copies what was bound at one moment; `recall_many` gives some of it as it was at one moment.
        """
        return _mapping.Items(self)

    def _bound(self) -> Iterator[tuple[str, Any]]:
        client = self._client
        for name in self:
            try:
                found = client.recall(name)
            except NameNotFound:
                continue
            yield name, _value(found)

    def __or__(self, other: Any) -> dict[str, Any]:
        """Return a dictionary of what is bound here and what ``other`` has, which counts where both have a name."""
        return dict(self) | dict(other) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> dict[str, Any]:
        """Return a dictionary of what ``other`` has and what is bound here, which counts where both have a name."""
        return dict(other) | dict(self) if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Any) -> Brain:
        """Bind all names at one moment, or none of them: `update`."""
        self.update(other)
        return self

    def __len__(self) -> int:
        """Return how many names are bound in this namespace."""
        return self._client.count()

    def __bool__(self) -> bool:
        """Return true: a brain is there also if it is empty."""
        return True

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
            client = self._client.in_namespace(_text(namespace))
            client.register()
            self._client = client
        return self._client.namespace

    def in_namespace(self, namespace: str) -> Brain:
        """Return a second brain on the same session, in another namespace, which is registered when it is used."""
        return Brain._of(self._client.in_namespace(_text(namespace)), self._timeout)

    def declare(
        self,
        *,
        cache: bool = False,
        ttl: Time | None = None,
        sliding: bool = False,
        namespace: str | None = None,
    ) -> None:
        """Declare what holds for a namespace, in the place of what was declared before; register it if it is new.

        It holds until the namespace is removed. Without arguments: what holds for one of which nothing was said.

        Args:
            cache: When room is short, names of cache namespaces go that were recalled least recently and whose values
                nobody holds, as many as are needed. No other namespace ever loses one.
            ttl: Time to live, as in `learn`, of what is learned from now on without one.
            sliding: As in `learn`.
            namespace: Another namespace than this brain's.

        Raises:
            ValueError: ``ttl`` is not more than 0, or ``sliding`` is said without it.

        Examples:
            >>> import plasmon
            >>> with plasmon.Store(size="64MB") as store:
            ...     results = store.connect(namespace="results")
            ...     results.declare(cache=True, ttl=3600)
            ...     version = results.learn("a", 1)
            ...     results.stat("a")["ttl"]
            3600.0

        """
        self._in(namespace).declare(cache, seconds_or_none("a ttl", ttl), sliding)

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
        removed = self.namespace if namespace is None else _text(namespace)
        client = self._client.in_namespace(removed)
        if if_empty:
            client.remove_namespace_if_empty()
        else:
            client.remove_namespace()
        if removed == self.namespace:
            self._client = self._client.in_namespace("default")
        return f"Removed namespace {removed}; the current namespace is {self.namespace}"

    # ---- what the store knows

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
            raise _not_found(name, client)
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

    @property
    def path(self) -> str:
        """The store's socket."""
        return self._client.path

    @property
    def client(self) -> _plasmon.Client:
        """The low-level client, whose interface may change."""
        return self._client

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


_T = TypeVar("_T")


class _InPlace:
    """An object being made in place: sealed at the end of a ``with`` block, given up after an exception."""

    __slots__ = ("_options", "_writer")

    def __init__(self, writer: _plasmon.Writable | _plasmon.TableWriter, options: _plasmon.Options) -> None:
        self._writer = writer
        self._options = options

    def seal(self) -> int:
        """Make the object immutable, bind its name to it, and return the version.

        Raises:
            WriterClosed: It is sealed or given up already.

        """
        return self._writer.seal(self._options)

    def abort(self) -> None:
        """Give the object up: nothing is bound, and its memory is free when no view of it is left."""
        self._writer.abort()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Seal it, or give it up after an exception."""
        if kind is None:
            self.seal()
        else:
            self.abort()


@final
class Creation(_InPlace, Generic[_T]):
    """An object being made in place, as a context manager. Made by `Brain.create` and `Brain.empty`.

    Without a ``with`` block: write into ``value``, then `seal` or `abort`. Views go on reading what was sealed.
    """

    __slots__ = ("value",)

    def __init__(self, writable: _plasmon.Writable, value: _T, options: _plasmon.Options) -> None:
        super().__init__(writable, options)
        #: The memory to write into.
        self.value = value

    def seal(self) -> int:
        flags = getattr(self.value, "flags", None)
        if flags is not None:
            flags.writeable = False  # NumPy would not notice, and its next write would end the process
        return super().seal()

    def __enter__(self) -> _T:
        """Return the memory to write into."""
        return self.value


@final
class TableCreation(_InPlace):
    """A table being written batch by batch, as a context manager. Made by `Brain.writer`.

    Without a ``with`` block: `write`, then `seal` or `abort`.
    """

    __slots__ = ()
    _writer: _plasmon.TableWriter

    def write(self, data: Any) -> int:
        """Append a record batch, a table, or anything with ``__arrow_c_stream__``; return the rows written so far.

        Raises:
            NotStorable: It is no table, or has another schema; the next batch may follow.
            StoreFull: It does not fit; the table cannot be sealed.

        """
        import pyarrow as pa

        if isinstance(data, pa.RecordBatch):
            data = pa.Table.from_batches([data])
        if not hasattr(data, "__arrow_c_stream__"):
            raise NotStorable(f"a table has __arrow_c_stream__, and this is {type(data).__name__}: {data!r:.100}")
        return self._writer.write(data)

    def __enter__(self) -> TableCreation:
        """Return the writer itself."""
        return self


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


def _learn(client: _plasmon.Client, name: str, thing: Any, options: _plasmon.Options | None = None) -> int:
    version: int | None = client.learn(name, thing, options)
    if version is not None:  # a plain value: in one call
        return version
    return client.learn(name, _forms.encode(thing), options)


def _options(
    description: str | None,
    metadata: Mapping[str, Any] | None,
    ttl: Time | None,
    sliding: bool,
    *,
    if_absent: bool = False,
    if_version: int | None = None,
    **how: Any,
) -> _plasmon.Options:
    if description is not None and not isinstance(description, str):
        raise MetadataTypeError(f"a description is a str, and this is {type(description).__name__}: {description!r}")
    time_to_live = None if ttl is None else seconds("a ttl", ttl)
    return _plasmon.Options(
        description, _json_object(metadata), if_absent, _version(if_version), time_to_live, sliding, **how
    )


def _version(version: int | None) -> int | None:
    if isinstance(version, int) and not 0 <= version < 1 << 64:
        raise ValueError(f"a version is a number from 0 to 2**64 - 1, as learn returns it, and this is {version}")
    return version


def _value(recalled: Any) -> Any:
    return _forms.decode(recalled) if type(recalled) is _plasmon.Object else recalled


def _connect(path: str, namespace: str, timeout: float, trust: tuple[int, ...]) -> Brain:
    return Brain(path, namespace, timeout=timeout, trust=trust)


def _text(namespace: object) -> str:
    if not isinstance(namespace, str):
        raise NameTypeError(f"a namespace is a str, and this is {type(namespace).__name__}: {namespace!r}")
    return namespace


def _names(names: Iterable[str]) -> list[str]:
    if isinstance(names, str):  # its characters are names as well
        raise NameTypeError(f"names are a list of str, and this is one str: {names!r}")
    return list(names)


def _not_found(name: str, client: _plasmon.Client) -> NameNotFound:
    asked, namespace = json.dumps(name, ensure_ascii=False), json.dumps(client.namespace)
    text = f"nothing is bound to {asked} in namespace {namespace}; learn it first, or wait for it with a timeout"
    error = NameNotFound(text)
    error.name, error.namespace, error._client = name, client.namespace, client
    return error


def _json_object(metadata: Mapping[str, Any] | None) -> str | None:
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise MetadataTypeError(f"metadata is a dictionary, and this is {type(metadata).__name__}: {metadata!r}")
    try:
        text = json.dumps(dict(metadata), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise MetadataTypeError(f"metadata is a dictionary that JSON can say: {error}") from error
    if json.loads(text) != dict(metadata):
        raise MetadataTypeError("metadata is a dictionary that JSON can say, with str keys, lists and no tuples")
    return text


def _metadata(described: dict[str, Any] | None) -> dict[str, Any] | None:
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
        "ttl": described["ttl"],
        "sliding": described["sliding"],
        "expires_at": described["expires_at"],
        "owner": described["writer_uid"],
        "pid": described["writer_pid"],
    }


def _shape(client: _plasmon.Client, name: str) -> tuple[int, ...] | None:
    """Return the shape of an array or a table; `None` for what has none, or is gone, or cannot be read."""
    try:
        found = client.inspect(name)
        return None if found is None else _forms.shape(found)
    except PlasmonError:
        return None

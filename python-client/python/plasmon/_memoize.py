"""`Brain.memoize`: what a function returns is kept in the store, and equal calls at once compute once.

Within a process a key has a *flight* while it is being computed, or while another process's computing is waited for.
Whoever finds one waits for its end, unless it is below on his own stack: then nobody could end it, and he computes.

Between processes a key is *claimed*: who claims binds a second name, ephemerally. It ends with its process, however
that ends, so that there is no lock that could be left behind, and no time after which one is taken to be; the store
wakes those who wait for its end. A claim belongs to the process that made it, and not to a forked child.

Waiting is for a descriptor to become readable, in the way of those who wait: a thread blocks (and handles signals), a
greenlet of a program that is patched for greenlets lets others run, a task awaits.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import itertools
import logging
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, final

from plasmon._identity import combined, digest, digest_of_function, inner_of, name_of
from plasmon._waiting import until_readable
from plasmon.exceptions import (
    ConditionFailed,
    LimitExceeded,
    NameNotFound,
    NamespaceNotFound,
    NotMemoizable,
    NotStorable,
    PlasmonError,
    StoreFull,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from plasmon import _plasmon
    from plasmon._times import Time

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_log = logging.getLogger("plasmon")

#: Nothing is kept.
_NOTHING = object()

#: Longest name of a function in the store, in characters: the name of a claim has to fit as well.
_NAME_MAX = 200


class Results(Protocol):
    """Where results are kept: what a `Brain` has of it."""

    @property
    def path(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def client(self) -> _plasmon.Client: ...
    def recall(self, name: str) -> Any: ...
    def learn(
        self,
        name: str,
        thing: Any,
        *,
        ttl: Time | None = None,
        sliding: bool = False,
        if_absent: bool = False,
        ephemeral: bool = False,
        cache: bool = False,
        if_held: tuple[str, int] | None = None,
    ) -> int: ...
    def names(self, *, prefix: str = "") -> list[str]: ...
    def forget_many(self, names: Iterable[str]) -> None: ...


@final
class Memoized(Generic[_Arguments, _Result]):
    """A function whose results are kept in a store. Made by `Brain.memoize`."""

    def __init__(
        self,
        function: Callable[_Arguments, _Result],
        brain: Results,
        key: Callable[..., Any] | None,
        times: dict[str, Any],
        strict: bool,
    ) -> None:
        self._is_static = isinstance(function, staticmethod)
        self._is_of_class = isinstance(function, classmethod)
        called: Any = function.__func__ if isinstance(function, (staticmethod, classmethod)) else function
        if not callable(called):
            raise NotMemoizable(f"memoize takes a function, and this is a {type(called).__name__}: {called!r:.100}")
        inner = inner_of(called)
        if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
            raise NotMemoizable(f"{name_of(called)} is a generator function; memoize one that returns a list of it")
        functools.update_wrapper(self, called)
        self.__wrapped__ = called
        self._function = called
        self._brain = brain
        self._key = key
        self._times = times
        self._strict = strict
        self._signature = _signature(called)
        self._name = name_of(called)[:_NAME_MAX]
        self._is_away = False
        self._is_async = inspect.iscoroutinefunction(called) or inspect.iscoroutinefunction(inner)
        if self._is_async and sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(self)
        self._known = digest_of_function(called, lenient=key is not None)  # what cannot be known is said now

    def __call__(self, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        """Return what the function has returned for these arguments, or call it."""
        call: Any = self._awaited if self._is_async else self._called
        return call(args, kwargs)  # type: ignore[no-any-return]

    def _called(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = self.name(*args, **kwargs)
        while True:
            kept = self._recall(name)
            if kept is _AWAY:
                return self._alone(args, kwargs)
            if kept is not _NOTHING:
                return kept
            mine = _Flight((self._brain.path, self._brain.namespace, name))
            try:
                flight = _flights.setdefault(mine.key, mine)  # at one moment, for signal handlers and greenlets as well
                if flight is mine:
                    with mine:
                        return self._lead(mine, name, args, kwargs)
            finally:
                mine.end()
            if flight.ident == threading.get_ident() or not flight.wait():
                return self._alone(args, kwargs)

    def _lead(self, flight: _Flight, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        while True:
            claim = self._claim(flight, name)
            if isinstance(claim, _Claim):
                with claim:
                    kept = self._recall(name)  # somebody else may have been done between our look and our claim
                    if kept is _NOTHING or kept is _AWAY:
                        kept = self._keep(flight, claim, name, self._function(*args, **kwargs))
                    return kept
            if claim is None:
                return self._alone(args, kwargs)
            with contextlib.suppress(StoreUnavailable):  # the next look finds out
                pending = claim.wait()
                until_readable(pending)
                pending.finish()
            kept = self._recall(name)
            if kept is not _NOTHING and kept is not _AWAY:
                return kept

    async def _awaited(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise NotMemoizable(f"{self._name} is memoized and a coroutine function: asyncio must run it") from None
        name = self.name(*args, **kwargs)
        while True:
            kept = self._recall(name)
            if kept is _AWAY:
                return await self._alone(args, kwargs)
            if kept is not _NOTHING:
                return kept
            mine = _Flight((self._brain.path, self._brain.namespace, name))
            try:
                flight = _flights.setdefault(mine.key, mine)
                if flight is mine:
                    with mine:
                        return await self._lead_awaited(mine, name, args, kwargs)
            finally:
                mine.end()
            if not await flight.awaited():
                return await self._alone(args, kwargs)

    async def _lead_awaited(self, flight: _Flight, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        while True:
            claim = await _in_thread(self._claim, flight, name)
            if isinstance(claim, _Claim):
                try:
                    kept = self._recall(name)
                    if kept is _NOTHING or kept is _AWAY:
                        function: Any = self._function  # which returns an awaitable, as `_is_async` says
                        result = await function(*args, **kwargs)
                        kept = await _in_thread(self._keep, flight, claim, name, result)
                    await _in_thread(claim.end)
                    return kept
                except BaseException:
                    _threads().submit(claim.end)  # nothing may be awaited any more
                    raise
            if claim is None:
                return await self._alone(args, kwargs)
            with contextlib.suppress(StoreUnavailable):
                await _readable(await _in_thread(claim.wait))
            kept = self._recall(name)
            if kept is not _NOTHING and kept is not _AWAY:
                return kept

    def _alone(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._function(*args, **kwargs)

    def _recall(self, name: str) -> Any:
        """Return what is kept; `_NOTHING` if nothing is that can be read, `_AWAY` if no store answers."""
        try:
            kept = self._brain.recall(name)
        except NameNotFound:
            kept = _NOTHING
        except StoreUnavailable as error:
            self._note_away(error)
            return _AWAY
        except PlasmonError as error:
            _log.warning("a result of %s cannot be read, and is computed anew: %s", self._name, error)
            kept = _NOTHING
        self._is_away = False
        return kept

    def _claim(self, flight: _Flight, name: str) -> _Claim | _OthersClaim | None:
        """Claim a key: `None` if the store cannot take part, or it would be waited for somebody below on the stack."""
        flight.leaves_others_alone = False
        try:
            claim = None if flight.is_within_its_like() else _claim(self._brain, f"{name} is being computed")
        except (StoreFull, LimitExceeded) as full:
            claim = None
            _log.warning("%s is called without memory of its results: %s", self._name, full)
        except StoreUnavailable as error:
            claim = None
            self._note_away(error)
        flight.leaves_others_alone = claim is None
        return claim

    def _keep(self, flight: _Flight, claim: _Claim, name: str, result: Any) -> Any:
        """Keep a result; return it as all others have it: shared and read-only."""
        if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
            if inspect.iscoroutine(result):
                result.close()  # it is not awaited any more
            text = f"{self._name} has returned a {type(result).__name__}, which can be used only once"
            raise NotMemoizable(f"{text}; memoize the function beneath, or one that returns a list")
        if claim.version is None or not claim.is_ours:
            return result  # in a forked child, that goes on with its parent's call
        try:
            held = (claim.name, claim.version)
            self._brain.learn(name, result, cache=True, if_held=held, **self._times)
            return self._brain.recall(name)
        except (NameNotFound, ConditionFailed):
            return result  # expired, or made room, already; or was forgotten while it was computed
        except (StoreFull, LimitExceeded) as full:
            _log.warning("a result of %s is not kept: %s", self._name, full)
        except StoreUnavailable as error:
            self._note_away(error)
        flight.leaves_others_alone = True
        return result

    def _note_away(self, error: StoreUnavailable) -> None:
        if self._strict:
            raise error
        if not self._is_away:  # once, until it is back
            _log.warning("%s is called without memory of its results: %s", self._name, error)
        self._is_away = True

    def name(self, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> str:
        """Return the name under which the result for these arguments is, or would be, in the store.

        Raises:
            NotStorable: An argument has no digest.
            NotMemoizable: It cannot be known any more what the function computes.

        """
        known = digest_of_function(self._function, lenient=self._key is not None, before=self._known)
        self._known = known
        return f"{self._name}:{combined(b'call', [known.digest, self._digest(args, kwargs)]).hex()}"

    def _digest(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        if self._key is not None:
            return digest(self._key(*args, **kwargs))
        given: dict[str, Any] = {"args": args, "kwargs": kwargs}
        if self._signature is not None:
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
        try:
            return digest(given)
        except NotStorable as error:
            for name, value in given.items():
                try:
                    digest(value)
                except NotStorable as why:
                    text = (
                        f"argument {name!r} of {self._name}: {why}; key=, a function of the arguments, may leave it out"
                    )
                    raise NotStorable(text) from error
            raise

    def forget(self, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        """Forget the result for these arguments: the next call computes it. One that is being computed is not kept."""
        name = self.name(*args, **kwargs)
        self._brain.forget_many([name, f"{name} is being computed"])

    def clear(self) -> None:
        """Forget all results of the function. Those that are being computed are not kept."""
        with contextlib.suppress(NamespaceNotFound):
            self._brain.forget_many(self._brain.names(prefix=f"{self._name}:"))

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind as a method, as functions do; the instance is the first argument then, and has to have a digest."""
        if self._is_static:
            return self
        if self._is_of_class:
            return _Bound(self, owner)
        return self if instance is None else _Bound(self, instance)

    def __repr__(self) -> str:
        """Show what it is of."""
        return f"<plasmon memoized {self._name}>"


class _Bound(functools.partial[_Result]):
    """A memoized method of an object."""

    def name(self, *args: Any, **kwargs: Any) -> str:
        """Return the name of the result: `Memoized.name`."""
        return str(self._memoized.name(*self.args, *args, **kwargs))

    def forget(self, *args: Any, **kwargs: Any) -> None:
        """Forget the result for these arguments: `Memoized.forget`."""
        self._memoized.forget(*self.args, *args, **kwargs)

    def clear(self) -> None:
        """Forget all results of the method, of all objects: `Memoized.clear`."""
        self._memoized.clear()

    @property
    def _memoized(self) -> Memoized[..., _Result]:
        memoized: Any = self.func
        return memoized  # type: ignore[no-any-return]


#: No store answers.
_AWAY = object()


def _signature(function: Any) -> inspect.Signature | None:
    """Return how a function is called; not how one is that it wraps, which it may give more to."""
    try:
        return inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return None  # of C, and does not say


# ---- within a process


@final
class _Flight:
    """A key that is being computed, or whose computing by another process is waited for. Its maker ends it."""

    def __init__(self, key: tuple[str, str, str]) -> None:
        self.key = key
        self.ident = threading.get_ident()
        #: Whether who waits had better compute on his own: the result will not be in the store.
        self.leaves_others_alone = False
        #: The flights whose end must come before this one's.
        self._waits_for: list[_Flight] = []
        self._ended: Future[bool] = Future()
        self._ended.set_running_or_notify_cancel()  # nobody who waits can cancel it
        #: The flights that its maker is in.
        self._within = _aboard.get()

    def is_within_its_like(self) -> bool:
        """Whether its maker is computing that very key, in the process that this one was forked from."""
        return any(one.key == self.key for one in self._within)

    def __enter__(self) -> None:
        self._token = _aboard.set((*self._within, self))

    def __exit__(self, *_: object) -> None:
        self.end()
        with contextlib.suppress(ValueError):  # a task that was given up, somewhere else
            _aboard.reset(self._token)

    def end(self) -> None:
        """End it, if it has not ended: a signal handler may raise also before it is entered, and others wait."""
        if _flights.get(self.key) is self:
            del _flights[self.key]
        if not self._ended.done():
            self._ended.set_result(not self.leaves_others_alone)

    def wait(self) -> bool:
        """Wait for its end; return whether to look again, and not to compute on one's own."""
        with self._expected() as will_end:
            return will_end and self._ended.result()

    async def awaited(self) -> bool:
        """As `wait`, for tasks."""
        with self._expected() as will_end:
            return will_end and await asyncio.wrap_future(self._ended)

    @contextlib.contextmanager
    def _expected(self) -> Iterator[bool]:
        """Whether it can end before the caller goes on: not if it waits for one that the caller is in."""
        within = _aboard.get()
        for one in within:
            one._waits_for.append(self)
        try:
            yield not any(one in within for one in self._chain())
        finally:
            for one in within:
                one._waits_for.remove(self)

    def _chain(self) -> list[_Flight]:
        chain, left = list[_Flight](), [self]
        while left:
            one = left.pop()
            if one not in chain:
                chain.append(one)
                left += one._waits_for
        return chain


#: The flights that whoever runs is in: of calls below on the stack, and of the task that made this one.
_aboard: ContextVar[tuple[_Flight, ...]] = ContextVar("plasmon_aboard", default=())

_flights: dict[tuple[str, str, str], _Flight] = {}


# ---- between processes


@final
class _Claim:
    """The right to compute the value of a key, as a context manager. It goes with whoever has it."""

    def __init__(self, brain: Results, name: str) -> None:
        self._brain = brain
        self._process = _here.process
        self._value = _here.process + next(_here.numbers).to_bytes(8, "little")
        self._is_over = False
        self.name = name
        self.version: int | None = None

    def make(self) -> None:
        """Make it.

        Raises:
            ConditionFailed: Somebody else has it.

        """
        _here.claims[self._value] = threading.get_ident()
        try:
            self.version = self._brain.learn(self.name, self._value, ephemeral=True, if_absent=True, cache=True)
        except ConditionFailed:
            self._is_over = True
            _here.claims.pop(self._value, None)
            raise

    @property
    def is_ours(self) -> bool:
        """Whether this process made it, and not the one that it was forked from."""
        return self._process == _here.process

    def __enter__(self) -> None:
        """Compute."""

    def __exit__(self, *_: object) -> None:
        """Give it back, whatever came out."""
        self.end()

    def end(self) -> None:
        """Give it back, once. What cannot be given back now is when the next one is made."""
        if self._is_over or not self.is_ours:
            return
        self._is_over = True
        _here.claims.pop(self._value, None)
        client = self._brain.client
        try:
            version = self.version
            if version is None and (known := client.describe(self.name)) is not None:
                # Nobody has said whether it was made.
                version = known["version"] if self._brain.recall(self.name) == self._value else None
            if version is not None:
                client.end_claim(self.name, version)
        except (ConditionFailed, NameNotFound):
            pass  # taken away from us
        except StoreUnavailable:
            self._is_over = False
            _here.left_behind.append(self)

    def __del__(self) -> None:
        """Give it back if nobody has: whoever made it was interrupted, or cancelled."""
        with contextlib.suppress(Exception):
            self.end()


@final
class _OthersClaim:
    """A claim that somebody else has made."""

    def __init__(self, brain: Results, name: str, version: int) -> None:
        self._client = brain.client
        self._name = name
        self._version = version

    def wait(self) -> _plasmon.PendingWait:
        """Begin to wait for its end."""
        return self._client.begin_wait_change(self._name, self._version)


def _claim(brain: Results, name: str) -> _Claim | _OthersClaim | None:
    """Make a claim; or return who has it, `None` if that is this very thread, by another path to the store."""
    while _here.left_behind:
        left = _here.left_behind.pop()
        left.end()
        if _here.left_behind:
            break  # the store is away
    claim = _Claim(brain, name)
    try:
        claim.make()
    except ConditionFailed as failed:
        with contextlib.suppress(NameNotFound):
            value = brain.recall(name)
            if isinstance(value, bytes) and _here.claims.get(value) == threading.get_ident():
                return None
        return _OthersClaim(brain, name, failed.found_version or 0)
    return claim


class _Here:
    """What a process has; a forked child begins anew."""

    def __init__(self) -> None:
        #: Tells this process from all others.
        self.process = os.urandom(16)
        self.numbers = itertools.count()
        #: The claims of this process, by their value, and the threads that made them.
        self.claims: dict[Any, int] = {}
        #: Claims that could not be given back.
        self.left_behind: list[_Claim] = []
        self.threads: ThreadPoolExecutor | None = None


_here = _Here()


def _begin_anew() -> None:
    _flights.clear()
    _here.__init__()  # type: ignore[misc]


os.register_at_fork(after_in_child=_begin_anew)


# ---- waiting


async def _readable(pending: _plasmon.PendingWait) -> None:
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    loop.add_reader(pending.fileno(), lambda: None if over.done() else over.set_result(None))
    try:
        await over
    finally:
        loop.remove_reader(pending.fileno())
    pending.finish()


async def _in_thread(function: Callable[..., _Result], *args: Any) -> _Result:
    """Call what asks the store something: not on the event loop, nor where the program's own work may be queued."""
    return await asyncio.wrap_future(_threads().submit(copy_context().run, function, *args))


def _threads() -> ThreadPoolExecutor:
    if _here.threads is None:
        _here.threads = ThreadPoolExecutor(8, "plasmon")
    return _here.threads

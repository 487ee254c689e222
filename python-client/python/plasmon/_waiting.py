"""Waits that can be given up: by another thread, and with the future or the task to which they belong."""

from __future__ import annotations

import math
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from plasmon._arguments import checked_version
from plasmon._place import Place
from plasmon._plasmon import Cancel
from plasmon._times import Time, seconds
from plasmon.exceptions import WaitCancelled, WaitTimeout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future
    from typing import Any

    from plasmon import _plasmon


class Waiting(Place):
    """Waiting for a name. What `Brain` has of it."""

    __slots__ = ()

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
        client = self._in(namespace)
        time_left, known = seconds("a timeout", timeout), checked_version(version) or 0
        pending = client.begin_wait_change(name, known)
        try:
            with cancelling(cancel) as cancels:
                if until_readable(pending, time_left, cancels):
                    return pending.finish() or None
        finally:
            pending.give_up()  # the trace of an exception refers to it
        # The store may not have come to answer: with no timeout at all it hardly can.
        bound = client.inspect(name)
        now = 0 if bound is None else bound.version
        if now != known:
            return now or None
        error = WaitTimeout(f"{name!r} in namespace {client.namespace!r} did not change within {timeout!r}")
        error.name, error.namespace = name, client.namespace
        raise error


@contextmanager
def cancelling(cancel: Cancel | None) -> Iterator[list[Cancel]]:
    """Give who can cancel what this thread waits for in the block: the caller's own, and the future that it works for.

    A thread of an executor works for a future, whose ``cancel()`` does nothing any more once it runs. So a task of
    asyncio that is cancelled while it waits for such a thread (``asyncio.to_thread``) would leave it waiting, and a
    program that ends would wait for it. In the block that method ends the wait as well.
    """
    told = [] if cancel is None else [cancel]
    future = _future_of_this_thread()
    if future is None:
        yield told
        return
    with_future = Cancel()
    cancel_future = future.cancel

    def cancel_wait_and_future() -> bool:
        with_future.cancel()
        return cancel_future()

    future.cancel = cancel_wait_and_future  # type: ignore[method-assign]
    try:
        yield [*told, with_future]
    finally:
        future.__dict__.pop("cancel", None)


def _future_of_this_thread() -> Future[Any] | None:
    """Return the future whose call an executor runs in this thread; `None` if it runs none."""
    executors = sys.modules.get("concurrent.futures.thread")
    run = getattr(getattr(executors, "_WorkItem", None), "run", None)
    if run is None:
        return None
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code is run.__code__:
            return getattr(frame.f_locals.get("self"), "future", None)
    return None


#: Longest time to select for: systems take no number of milliseconds above 2**31.
_SELECT_SECONDS_MAX = 86_400.0


def until_readable(pending: _plasmon.PendingWait, timeout: float = math.inf, cancels: Iterable[Cancel] = ()) -> bool:
    """Wait until a wait is over, at most so many seconds; return whether it is.

    Raises:
        WaitCancelled: One of ``cancels`` was cancelled.

    """
    import selectors

    deadline = time.monotonic() + timeout
    # Looked up when it is needed: programs for greenlets put another selector in the place of this one.
    with selectors.DefaultSelector() as selector:
        selector.register(pending, selectors.EVENT_READ)
        for cancel in cancels:
            selector.register(cancel, selectors.EVENT_READ)
        while True:
            left = max(deadline - time.monotonic(), 0.0)
            ready = [key.fileobj for key, _ in selector.select(min(left, _SELECT_SECONDS_MAX))]
            if pending in ready:
                return True
            if ready:
                raise WaitCancelled("the wait was cancelled; what was waited for may still come")
            if left == 0:
                return False

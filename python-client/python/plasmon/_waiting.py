"""Waits that can be given up: by another thread, and with the future or the task to which they belong."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from plasmon._plasmon import Cancel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from typing import Any


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

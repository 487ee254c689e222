"""For Dash: data that stays on the server, shared by all workers without copying.

`PlasmonBackend` is a backend for the ``Serverside`` outputs of dash-extensions, `Sessions` keeps the state of each
user's session apart. `Brain.memoize` and `plasmon.cachelib` have nothing of Dash in them and go well with it.
"""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

try:
    from dash_extensions.enrich import ServersideBackend
except ModuleNotFoundError as error:
    text = f"{error}; plasmon.dash needs it: pip install dash-extensions"
    raise ModuleNotFoundError(text, name=error.name) from error

from plasmon._times import seconds
from plasmon.cachelib import PlasmonCache
from plasmon.exceptions import NameNotFound, NamespaceInUse, NamespaceNotFound, StoreUnavailable

if TYPE_CHECKING:
    import datetime
    import os

    from plasmon._brain import Brain
    from plasmon._times import Time

__all__ = ["PlasmonBackend", "PlasmonCache", "Sessions"]


class PlasmonBackend(PlasmonCache, ServersideBackend):
    """Keeps what callbacks return as ``Serverside(value)`` in a store, where the next callback finds it.

    Frames and arrays come to the next callback without pickling and without a copy, in whichever worker it runs. An
    entry goes when nobody has used it for ``default_timeout`` seconds.

        app = DashProxy(transforms=[ServersideOutputTransform(backends=[PlasmonBackend()])])

    ``Serverside(value, key=...)`` with a key of the session's own replaces its value; without one, every run of the
    callback leaves an entry until it expires.

    Args:
        path: The store's socket; without it, the store of this user, as `Brain` finds it.
        namespace: Where the entries are.
        default_timeout: Seconds after which an entry goes that nobody has used.
        sliding: Whether every use of an entry begins that time anew.
        copy: Whether callbacks get private copies that can be written to.
        strict: Whether a store that is away or full is an error (`StoreUnavailable`, `StoreFull`). Without it, what a
            callback returns is lost then, with a line in the log: the next one finds ``None``.

    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        namespace: str = "dash-serverside",
        *,
        default_timeout: int | datetime.timedelta = 24 * 3600,
        sliding: bool = True,
        copy: bool = False,
        strict: bool = False,
    ) -> None:
        super().__init__(path, namespace, default_timeout=default_timeout, sliding=sliding, copy=copy, strict=strict)

    @property
    def uid(self) -> str:
        """Name of the backend in pages: the namespace tells one from another."""
        return f"{type(self).__name__}:{self._namespace}"

    def get(self, key: str | None, ignore_expired: bool = False) -> Any:  # noqa: ARG002 (what has expired is gone)
        """Return the value of a key, or ``None``."""
        return None if key is None else super().get(key)


class Sessions:
    """A namespace for each user's session: no session sees another's state, and what is idle goes by itself.

    A session's state is not computed anew, so that no call hides what happened: a store that is away or full is an
    error (`StoreUnavailable`, `StoreFull`), and of a session that has ended, or that a store had which was started anew
    since, `recall` says so. Learning begins it anew.

    Args:
        brain: Whose store it is in.
        ttl: How long after its last use a session's state goes: seconds, or as ``ttl`` of `Brain.learn`.
        prefix: What the namespaces' names begin with.

    Examples:
        >>> import plasmon
        >>> from plasmon.dash import Sessions
        >>> store = plasmon.start(size="64MB")
        >>> sessions = Sessions(store.connect(), ttl=1800)
        >>> mine, yours = sessions.begin(), sessions.begin()
        >>> version = sessions.learn(mine, "choice", "JFK")
        >>> sessions.recall(mine, "choice"), sessions.get(yours, "choice")
        ('JFK', None)
        >>> sessions.end(mine)
        >>> store.close()

    """

    def __init__(self, brain: Brain, *, ttl: Time = 1800, prefix: str = "session-") -> None:
        self._brain = brain
        self._ttl = seconds("a ttl", ttl)
        self._prefix = prefix
        self._swept = time.monotonic()

    def begin(self) -> str:
        """Return the id of a new session, which nobody can guess."""
        if time.monotonic() - self._swept > min(self._ttl, 60):
            self._swept = time.monotonic()
            with contextlib.suppress(StoreUnavailable):  # learning will say so
                self.sweep()
        return uuid.uuid4().hex

    def learn(self, session: str, name: str, value: Any) -> int:
        """Keep a value of a session, in the place of the one that had the name; return its version."""
        return self._brain.learn(name, value, namespace=self._namespace(session), ttl=self._ttl, sliding=True)

    def recall(self, session: str, name: str) -> Any:
        """Return a value of a session.

        Raises:
            NameNotFound: The session never had it, or was idle for too long, or the store was started anew.

        """
        namespace = self._namespace(session)
        try:
            return self._brain.recall(name, namespace=namespace)
        except NameNotFound as error:
            text = (
                f"this session has no {name!r}: it never learned it, or has not used it for {self._ttl:g} seconds, or "
                "the store has been started anew since"
            )
            missing = NameNotFound(text)
            missing.name, missing.namespace = name, namespace
            raise missing from error

    def get(self, session: str, name: str, default: Any = None) -> Any:
        """Return a value of a session, or the default."""
        return self._brain.in_namespace(self._namespace(session)).get(name, default)

    def end(self, session: str) -> None:
        """Forget everything of a session, at one moment."""
        with contextlib.suppress(NamespaceNotFound):
            self._brain.remove_namespace(self._namespace(session))

    def sweep(self) -> None:
        """Remove the namespaces of sessions of which everything has expired. Done now and then by `begin`.

        One that is used again meanwhile stays.
        """
        for namespace, names in self._brain.client.namespaces():
            if names == 0 and namespace.startswith(self._prefix):
                with contextlib.suppress(NamespaceNotFound, NamespaceInUse):
                    self._brain.in_namespace("default").remove_namespace(namespace, if_empty=True)

    def _namespace(self, session: str) -> str:
        # It comes from a browser.
        if not isinstance(session, str) or not re.fullmatch("[0-9a-f]{32}", session):
            raise ValueError(f"a session's id is what Sessions.begin() returned, and this is {session!r}")
        return self._prefix + session

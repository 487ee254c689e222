"""Share arrays, tables and any other Python values between the processes of one machine without copying them.

A store (``plasmon-store``) keeps values in shared memory; a `Brain` is that store as a dictionary::

    >>> import plasmon
    >>> store = plasmon.start(size="64MB")  # a private store; or run: plasmon-store --size 64MB
    >>> brain = store.connect()             # or: plasmon.Brain()
    >>> brain["prices"] = {"AAPL": 187.2, "MSFT": 402.5}
    >>> brain["prices"]
    {'AAPL': 187.2, 'MSFT': 402.5}
    >>> store.close()

What is recalled is the value itself, of the same type. Arrays, tables and frames are views of the shared memory: not
copied, and valid for as long as they are held, whatever happens to their name or to the store. Arrays and tables are
read-only; of a frame that is written to, this process gets a copy of what it writes.
"""

import atexit as _atexit
import os as _os
from typing import Any as _Any

from plasmon import _plasmon, exceptions
from plasmon._brain import Brain
from plasmon._creation import Creation, TableCreation
from plasmon._pickles import compact
from plasmon._plasmon import Cancel, copied_bytes
from plasmon._records import Diff, History, Snapshot, Version, ViewInfo
from plasmon._ref import Ref
from plasmon._store import Store, start
from plasmon._view import View
from plasmon.exceptions import (
    CacheHasNoPast,
    ConditionFailed,
    MalformedObject,
    NameNotFound,
    NamespaceNotFound,
    NotBound,
    NotMemoizable,
    NotStorable,
    OutcomeUnknown,
    PlasmonError,
    SnapshotExists,
    SnapshotNotFound,
    StoreFull,
    StoreUnavailable,
    TooManyKept,
    UnpicklingFailed,
    UntrustedPickle,
    VersionGone,
    ViewEnded,
    WaitCancelled,
    WaitTimeout,
)

__version__ = "0.1.0"

__all__ = [
    "Brain",
    "CacheHasNoPast",
    "Cancel",
    "ConditionFailed",
    "Creation",
    "Diff",
    "History",
    "MalformedObject",
    "NameNotFound",
    "NamespaceNotFound",
    "NotBound",
    "NotMemoizable",
    "NotStorable",
    "OutcomeUnknown",
    "PlasmonError",
    "Ref",
    "Snapshot",
    "SnapshotExists",
    "SnapshotNotFound",
    "Store",
    "StoreFull",
    "StoreUnavailable",
    "TableCreation",
    "TooManyKept",
    "UnpicklingFailed",
    "UntrustedPickle",
    "Version",
    "VersionGone",
    "View",
    "ViewEnded",
    "ViewInfo",
    "WaitCancelled",
    "WaitTimeout",
    "__version__",
    "compact",
    "copied_bytes",
    "exceptions",
    "start",
]


def load_ipython_extension(shell: _Any) -> None:
    """Give a notebook ``%learn``, ``%recall`` and ``%brain``: what ``%load_ext plasmon`` calls."""
    from plasmon import _magics

    _magics.load(shell)


# Daemon threads that are waiting when the interpreter ends stay where they are (src/exit.rs).
_atexit.register(_plasmon.prepare_exit)
_os.register_at_fork(after_in_child=_plasmon.forget_other_threads)

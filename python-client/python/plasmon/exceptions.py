"""The exceptions of this package: one tree, whose leaves are also the built-in exceptions that people expect.

brain-plasma's names are here as well. They are these same classes, or their bases, so that ``except`` clauses
written for it go on working.
"""

from __future__ import annotations

from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plasmon._plasmon import Client


class PlasmonError(Exception):
    """Base of all exceptions of this package. After one of them nothing has changed, unless it says otherwise."""

    def __str__(self) -> str:
        """The message as it is: KeyError would show it quoted."""
        return str(self.args[0]) if len(self.args) == 1 else Exception.__str__(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as class, message and attributes: OSError would look at its own arguments."""
        return (type(self), self.args, self.__dict__)


# What went wrong with a name or a namespace.


class _NearNames(PlasmonError):
    """A name was not there. The text has names that are like it, as far as a store answers when it is asked for."""

    name: str
    namespace: str
    #: Where to look for names like it: who catches the exception unread should not have paid for that.
    _client: Client | None = None

    def __str__(self) -> str:
        """The message, and which names are like it."""
        client, self._client = self._client, None
        if client is not None:
            try:
                near = client.near(self.name)
            except Exception:  # the store is away by now: then there is nothing to add
                near = None
            if near is not None:
                self.args = (f"{self.args[0]}; {near}", *self.args[1:])
        return super().__str__()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the whole text."""
        str(self)
        kept = {key: value for key, value in self.__dict__.items() if key != "_client"}
        return (type(self), self.args, kept)


class NameNotFound(_NearNames, KeyError):
    """Nothing is bound to the name. Attributes: ``name``, ``namespace``. The text has names that are like it."""


class NotBound(NameNotFound):
    """Nothing is bound to a name whose value another name was to get. Attributes as `NameNotFound`."""


class VersionGone(NameNotFound):
    """What a `plasmon.Ref` refers to is not bound any more, or that version of a name is not kept. Attributes as
    `NameNotFound`, and ``version``, which was asked for, and ``found_version``, ``None`` if the name is not bound.
    """

    version: int | None
    found_version: int | None = None


class NamespaceNotFound(PlasmonError, KeyError):
    """There is no such namespace. Attribute: ``namespace``."""

    namespace: str


class BadName(PlasmonError, ValueError):
    """A name breaks its rule (1 to 1,024 bytes of UTF-8)."""


class BadNamespace(BadName):
    """A namespace breaks its rule (5 to 64 of the ASCII letters, digits, ``_``, ``.`` and ``-``)."""


class NameTypeError(PlasmonError, TypeError):
    """A name or namespace is no ``str``."""


class DefaultNamespaceError(PlasmonError, ValueError):
    """The namespace ``default`` cannot be removed; ``clear()`` empties it."""


# What went wrong with a value.


class BrainLearnNameError(PlasmonError):
    """A value could not be bound to a new name. Nothing is bound."""


class BrainUpdateNameError(PlasmonError):
    """A value could not be bound to a name that had one. The old value stays."""


class LearnFailed(BrainLearnNameError, BrainUpdateNameError):
    """A value could not be learned. What was bound to the name, or that nothing was, stays as it was."""


class NotStorable(LearnFailed, TypeError):
    """The value cannot be stored: it does not pickle, or not exactly."""


class StoreFull(LearnFailed, MemoryError):
    """The value does not fit. Attributes in bytes: ``requested_bytes``, ``capacity_bytes``, ``used_bytes``,
    ``free_bytes``, ``largest_free_bytes``, ``limbo_bytes`` (forgotten, but still held by somebody) and ``cached_bytes``
    (in cache namespaces: giving all of it up would not have been enough) and ``past_bytes`` (of versions that have
    ended, which only history, snapshots and views keep; the text says which).
    """

    requested_bytes: int
    capacity_bytes: int
    used_bytes: int
    free_bytes: int
    largest_free_bytes: int
    limbo_bytes: int
    cached_bytes: int
    past_bytes: int


class TooManyKept(LearnFailed):
    """More versions that have ended would have to be kept than can be (``plasmon-store --max-kept``)."""


class IndexFull(StoreFull):
    """As many names are bound as the store can hold (``plasmon-store --max-objects``)."""


class LimitExceeded(LearnFailed, ValueError):
    """Something is longer, or more, than allowed."""


class MetadataTypeError(LearnFailed, TypeError):
    """Metadata is a dictionary that JSON can say."""


class WriterClosed(LearnFailed, ValueError):
    """A buffer or a table that was being written is sealed or given up already."""


class ConditionFailed(PlasmonError):
    """A condition of a learn or forget did not hold. Attributes: ``name``, ``namespace``, ``found_version``."""

    name: str
    namespace: str
    found_version: int | None


class UnpicklingFailed(PlasmonError, UnpicklingError):
    """The value is there, and Python could not make it anew; ``__cause__`` is what was raised then.

    Attributes: ``name``, ``namespace``, and ``type_name``, the first class or function that the pickle names.
    """

    name: str
    namespace: str
    type_name: str | None


class NamespaceInUse(ConditionFailed):
    """The namespace was to be removed if it is empty, and is not. Attributes: ``namespace``, ``names``."""

    names: int


class SnapshotExists(ConditionFailed):
    """There is a snapshot with this label. Attribute: ``label``."""

    label: str


class SnapshotNotFound(PlasmonError, KeyError):
    """There is no snapshot with this label, or the namespace is none of its. Attribute: ``label``."""

    label: str


class ViewEnded(PlasmonError):
    """A view has ended: its session did, or somebody ended it. In a forked child, begin one of the same moment."""


class CacheHasNoPast(PlasmonError, ValueError):
    """A cache has neither history nor snapshots. Attribute: ``namespace``."""

    namespace: str


class NotMemoizable(PlasmonError, TypeError):
    """It cannot be known what a function computes, or what it returns cannot be kept."""


class WrongKind(PlasmonError, TypeError):
    """The value cannot be recalled as what was asked for."""


class MalformedObject(PlasmonError, ValueError):
    """An object's bytes are not what they claim to be; another program wrote them."""


class UntrustedPickle(PlasmonError, PermissionError):
    """Another user learned the value, and unpickling it would run that user's code."""


# What went wrong with the store.


class WaitTimeout(_NearNames, TimeoutError):
    """The name was not bound in time. Attributes: ``name``, ``namespace``. The text has names that are like it."""


class WaitCancelled(PlasmonError):
    """Another thread cancelled the wait: with a `plasmon.Cancel`, or with the future that this thread works for."""


class StoreUnavailable(PlasmonError, ConnectionError):
    """No store answers. Values already recalled stay valid; a later call connects again when a store is back."""


class OutcomeUnknown(StoreUnavailable):
    """The store went away before it answered: the change may or may not have happened."""


class NoAnswer(StoreUnavailable, TimeoutError):
    """The store did not answer in time: a change may or may not have happened."""


class VersionMismatch(StoreUnavailable):
    """Client and store speak different versions of the protocol."""


class ClientAsleep(StoreUnavailable):
    """The brain was put to sleep; ``wake_up()`` connects it again."""


class NotAdmitted(PlasmonError, PermissionError):
    """The store does not admit this user, or is run by one that this user does not trust."""


# brain-plasma's names.

BrainError = PlasmonError
BrainNameNotExistError = NameNotFound
BrainNamespaceNotExistError = NamespaceNotFound
BrainNamespaceNameError = BadNamespace
BrainNamespaceRemoveDefaultError = DefaultNamespaceError
BrainNameLengthError = BadName
BrainNameTypeError = NameTypeError
BrainClientDisconnectedError = ClientAsleep


class BrainRemoveOldNameValueError(PlasmonError):
    """Never raised: a store takes old values away by itself."""

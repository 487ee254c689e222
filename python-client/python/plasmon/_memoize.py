"""`Brain.memoize`: what a function has returned is kept in the store, and equal calls at once compute once.

A call that finds nothing claims its key: it binds a second name to a few bytes that it holds while it computes. The
store knows who holds what, and a process that ends, however it ends, holds nothing: the next one sees that and takes
over. So there is no lock that could be left behind, and no time after which one is taken to be.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import logging
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, final

from plasmon import _forms, _plasmon
from plasmon.exceptions import ConditionFailed, NameNotFound, StoreFull, WaitTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import CodeType

    from plasmon._brain import Brain

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_log = logging.getLogger("plasmon")

#: How long a call waits for another one's result before it looks whether that one lives, in seconds.
_PATIENCE = 0.25


@final
class Memoized(Generic[_Arguments, _Result]):
    """A function whose results are kept in a store. Made by `Brain.memoize`."""

    def __init__(
        self,
        function: Callable[_Arguments, _Result],
        brain: Brain,
        key: Callable[..., Any] | None,
        times: dict[str, Any],
    ) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._brain = brain
        self._key = key
        self._times = times
        self._signature = inspect.signature(function)
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._code = _digest_of_code(function.__code__)

    def __call__(self, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        """Return what the function has returned for these arguments, or call it."""
        name = self.name(*args, **kwargs)
        while True:
            try:
                return self._recall(name)
            except NameNotFound:
                pass
            try:
                claim = _Claim(self._brain, name)
                if claim.taken:
                    with claim:
                        return self._compute(name, args, kwargs)
            except StoreFull as full:
                _log.warning("%s is called without memory of its results: %s", self._name, full)
                return self._function(*args, **kwargs)
            try:
                return self._recall(name, timeout=_PATIENCE)
            except WaitTimeout:
                claim.end_if_dead()

    def _compute(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Result:
        try:
            return self._recall(name)  # somebody else was done between our look and our claim
        except NameNotFound:
            result = self._function(*args, **kwargs)
        try:
            self._brain.learn(name, result, **self._times)
            return self._recall(name)  # as all others have it: shared and read-only
        except NameNotFound:
            return result  # expired, or made room for something else, already
        except StoreFull as full:
            _log.warning("a result of %s is not kept: %s", self._name, full)
            return result

    def _recall(self, name: str, timeout: float | None = None) -> _Result:
        result: _Result = self._brain.recall(name, timeout=timeout)
        return result

    def name(self, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> str:
        """Return the name under which the result for these arguments is, or would be, in the store."""
        if self._key is not None:
            made = self._key(*args, **kwargs)
        else:
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            made = bound.arguments
        return f"{self._name}:{_combined(b'call', [self._code, digest(made)]).hex()}"

    def forget(self, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        """Forget the result for these arguments: the next call computes it."""
        self._brain.forget(self.name(*args, **kwargs))

    def clear(self) -> None:
        """Forget all results of the function."""
        self._brain.forget_many(self._brain.names(prefix=f"{self._name}:"))

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind as a method, as functions do; the instance is the first argument then, and has to pickle."""
        return self if instance is None else functools.partial(self, instance)

    def __repr__(self) -> str:
        """Show what it is of."""
        return f"<plasmon memoized {self._name}>"


class _Claim:
    """The right to compute the value of a name, as a context manager, if it was free."""

    def __init__(self, brain: Brain, name: str) -> None:
        self._client = brain.client
        self._name = f"{name} is being computed"
        self.taken = False
        if self._client.exists(self._name):
            return
        writable = self._client.create_tensor(self._name, _forms.TENSOR_DTYPES["u1"], (64,), False)
        # What is bound is held from that very moment, for as long as the view is there.
        self._view = memoryview(writable)
        try:
            self._version = writable.seal(_plasmon.Options(if_absent=True))
            self.taken = True
        except ConditionFailed:
            self._view.release()

    def __enter__(self) -> None:
        """Compute."""

    def __exit__(self, *_: object) -> None:
        """Give it back, whatever came out."""
        with contextlib.suppress(ConditionFailed):  # taken away from us
            self._client.forget(self._name, self._version)
        self._view.release()

    def end_if_dead(self) -> None:
        """End another one's claim if the process that made it does not hold it any more."""
        known = self._client.describe(self._name)
        if known is None:
            return
        full = f"{self._client.namespace}/{self._name}"
        if any(pin["name"] == full and pin["pid"] == known["writer_pid"] for pin in self._client.pins()):
            return
        with contextlib.suppress(ConditionFailed):  # somebody else was faster
            self._client.forget(self._name, known["version"])


def digest(value: Any) -> bytes:
    """Return 32 bytes that are equal for equal arguments of functions, and only for those.

    Arrays, frames and tables count by their content and type; sets and dictionaries in any order. What is stored as a
    pickle counts as equal if it pickles alike.

    Raises:
        NotStorable: The value has no form in the store.

    """
    kind = type(value)
    tag = f"{kind.__module__}.{kind.__qualname__}".encode()
    if kind in (tuple, list):
        return _combined(tag, map(digest, value))
    if kind in (set, frozenset):
        return _combined(tag, sorted(map(digest, value)))
    if kind is dict:
        return _combined(tag, sorted(digest(key) + digest(item) for key, item in value.items()))
    return _combined(tag, [_forms.encode(value).digest()])


def _combined(tag: bytes, parts: Iterable[bytes]) -> bytes:
    combined = hashlib.blake2b(digest_size=32)
    for part in (tag, *parts):
        combined.update(len(part).to_bytes(8, "little") + part)
    return combined.digest()


def _digest_of_code(code: CodeType) -> bytes:
    """A digest of what a function does: one that is written anew has nothing of the old one's results."""
    names = [name.encode() for name in (*code.co_names, *code.co_varnames)]
    return _combined(b"code", [code.co_code, *names, *map(_digest_of_constant, code.co_consts)])


def _digest_of_constant(constant: Any) -> bytes:
    if inspect.iscode(constant):
        return _digest_of_code(constant)
    if isinstance(constant, tuple):
        return _combined(b"tuple", map(_digest_of_constant, constant))
    if isinstance(constant, frozenset):  # whose order is another one in each process
        return _combined(b"frozenset", sorted(map(_digest_of_constant, constant)))
    return _combined(type(constant).__name__.encode(), [repr(constant).encode()])

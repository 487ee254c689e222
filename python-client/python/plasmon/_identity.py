"""What a call is known by: digests of functions and of arguments, equal for equal ones, in every process.

A function is known by what it computes: its code, what it encloses, its defaults, what it wraps, and the functions and
classes of its own module that it names. A class is known by its code and its constants, an object by its class and its
state. What changes in place counts as it was when it was first seen: a function may count its calls in a list that it
encloses.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import inspect
import io
import pickle
import sys
import types
from importlib.util import MAGIC_NUMBER
from typing import TYPE_CHECKING, Any, final
from weakref import WeakKeyDictionary

from plasmon import _forms, _plasmon
from plasmon.exceptions import NotMemoizable, NotStorable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: Modules of things that only coordinate: no result depends on what they hold, so they count by their type.
_COORDINATING = {"_thread", "threading", "_asyncio", "asyncio", "_contextvars", "_queue", "queue", "gevent"}

#: Types whose instances, in a pickle, are what they are; and what stands for them.
_TAGS = {
    kind: f"builtins.{kind.__name__}".encode()
    for kind in (type(None), bool, int, float, complex, str, bytes, tuple, list, dict)
}

_CONTAINERS = frozenset({tuple, list, dict})

#: Libraries whose values have a form of their own.
_COLUMNS = frozenset({"numpy", "pandas", "polars", "pyarrow", "torch"})

#: What gives a function of Python on: what it is of is in one of `_INNER`.
_ACCESSORS = frozenset({
    staticmethod, classmethod, property, functools.cached_property, functools.partialmethod,
    functools.singledispatchmethod,
})  # fmt: skip
_CODE = _ACCESSORS | {types.FunctionType}
_INNER = ("__func__", "func", "fget", "fset", "fdel")

#: Attributes of a class that count beside its code.
_CONSTANTS = frozenset({type(None), bool, int, float, complex, str, bytes})

_BY_NAME = (
    types.BuiltinFunctionType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)

#: Set in the flags of types that are made when a program runs; those of C that are not have no Python code.
_IS_HEAP_TYPE = 1 << 9


def digest(value: Any) -> bytes:
    """Return 32 bytes that are equal for equal values, and only for those.

    Arrays, frames and tables count by their content and type; sets and dictionaries in any order; functions and classes
    as the text above says. What is stored as a pickle counts as equal if it pickles alike.

    Raises:
        NotStorable: The value has no form in the store.

    """
    return _Digester().of(value)


def digest_of_function(function: Callable[..., Any], *, lenient: bool, before: Known | None = None) -> Known:
    """Return 32 bytes that are equal for functions that compute the same, as far as can be known.

    Args:
        function: What is called.
        lenient: Whether what cannot be known counts by its type alone, instead of an error.
        before: What this has returned for the function, which holds if nothing of it has changed.

    Raises:
        NotMemoizable: It cannot be known what the function computes.

    """
    try:
        if type(function) is not types.FunctionType:  # what has a state that changes in place
            return Known([], _Digester(lenient=lenient).of(function))
        parts = list(_parts(function, set()))
        if before is not None and before.is_of(parts):
            return before
        return Known(parts, _Digester(lenient=lenient).of(function))
    except NotStorable as error:
        raise NotMemoizable(f"memoize cannot know what {name_of(function)} computes: {error}; {_CURE}") from error


_CURE = "say with key=, a function of the arguments, what counts: what has no digest does not count then"


def combined(tag: bytes, parts: Iterable[bytes]) -> bytes:
    """Return a digest of parts, each told from its neighbours."""
    whole = hashlib.blake2b(digest_size=32)
    for part in (tag, *parts):
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.digest()


def name_of(function: Any) -> str:
    """Return what a function is called, in programs and in the store."""
    if isinstance(function, functools.partial):
        return name_of(function.func)
    name = getattr(function, "__qualname__", None)
    if not isinstance(name, str):
        function = type(function)
        name = function.__qualname__
    module = getattr(function, "__module__", None)
    return f"{module}.{name}" if isinstance(module, str) else name


def inner_of(function: Any) -> Any:
    """Return what runs when something is called, beneath what only passes arguments on."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, (types.MethodType, staticmethod, classmethod)):
            function = function.__func__
        elif isinstance(function, (type, types.FunctionType)):
            return function
        else:
            called = _call_of(type(function))
            return function if called is None else called


@final
class _Digester:
    """Makes one digest.

    Functions and classes refer to each other in circles, so that each is looked at once, and counts by its number from
    then on. Numbers begin anew for each function or class that is met as a value; so its digest is always the same.
    """

    def __init__(self, *, lenient: bool = False, numbers: dict[int, int] | None = None) -> None:
        self._lenient = lenient
        #: Of the functions and classes seen, by identity; `None` where none is being looked into.
        self._numbers = numbers
        #: What is being looked at, by identity: what contains itself counts by how far above it stands.
        self._above: dict[int, int] = {}

    def of(self, value: Any) -> bytes:
        """Return the digest of a value."""
        kind = type(value)
        if kind in _TAGS and kind not in _CONTAINERS:
            return combined(_TAGS[kind], [_plain(value)])
        if id(value) in self._above:
            return combined(b"above", [str(len(self._above) - self._above[id(value)]).encode()])
        self._above[id(value)] = len(self._above)
        try:
            return self._of(kind, value)
        finally:
            del self._above[id(value)]

    def _of(self, kind: type, value: Any) -> bytes:
        if kind is tuple or kind is list:
            return combined(_TAGS[kind], map(self.of, value))
        if kind in (set, frozenset):
            return combined(_tag(kind), sorted(map(self.of, value)))
        if kind is dict:
            return combined(_TAGS[kind], sorted(self.of(key) + self.of(item) for key, item in value.items()))
        special = self.special(kind, value)
        return combined(_tag(kind), self._pickled(value)) if special is None else special

    def special(self, kind: type, value: Any) -> bytes | None:
        """Return the digest of what does not count by its pickle; `None` for anything else."""
        if kind is types.FunctionType:
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        if kind is types.MethodType:
            return combined(b"method", [self.of(value.__func__), self.of(value.__self__)])
        if isinstance(value, functools.partial):
            return combined(_tag(kind), map(self.of, (value.func, value.args, value.keywords)))
        if kind in _ACCESSORS:
            given = [getattr(value, name, None) for name in ("args", "keywords")]  # of a partialmethod
            return combined(_tag(kind), map(self.of, [*_accessors(value), given]))
        if kind in (set, frozenset):
            return self.of(value)
        if kind is types.CodeType:
            return _code(value)
        if kind is types.ModuleType:
            return combined(b"module", [value.__name__.encode(), _release(value.__name__)])
        if kind.__module__ == "plasmon._store":  # as a brain, it counts by where it is
            return combined(_tag(kind), [self.of(value.path)])
        if _coordinates(kind):
            return combined(b"coordinates", [_tag(kind)])
        if (wrapped := _wrapped(value)) is not None and not _has_code(kind):  # of C: it has no other state
            return combined(_tag(kind), [self.of(wrapped)])
        if isinstance(value, _BY_NAME) or (not _is_heap(kind) and callable(value) and _is_found_by_name(value)):
            return self._native(value)
        if kind.__module__.partition(".")[0] in _COLUMNS or hasattr(kind, "__arrow_c_stream__"):
            return combined(_tag(kind), [_forms.encode(value).digest()])
        return None

    def _function(self, function: types.FunctionType) -> bytes:
        if self._numbers is None:
            return _Digester(lenient=self._lenient, numbers={})._function(function)
        if (number := self._numbers.get(id(function))) is not None:
            return combined(b"seen", [str(number).encode()])
        self._numbers[id(function)] = len(self._numbers)
        code = function.__code__
        found = [_code(code), self._held(function, "its defaults", (function.__defaults__, function.__kwdefaults__))]
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            content = _content(cell)
            if name == "__class__":  # for super(): the class stands above its methods
                continue
            if name in _rebound(code):
                found.append(name.encode() + self._first(function, name, content))
            elif content is not _EMPTY:
                found.append(name.encode() + self._held(function, repr(name), content))
        found += [name.encode() + self._leniently(value) for name, value in _followed(function)]
        return combined(b"function", found)

    def _held(self, function: types.FunctionType, name: str, value: Any) -> bytes:
        """Return a digest of something that a function holds."""
        try:
            return self.of(value)
        except _Unknown:
            raise
        except NotStorable as error:
            raise _Unknown(f"{name_of(function)} holds {name}, and {error}") from error

    def _first(self, function: types.FunctionType, name: str, content: Any) -> bytes:
        """Return a digest of a variable that the function itself assigns: as it was when it was first seen."""
        first = _first_seen.setdefault(function, {})
        if name not in first:
            first[name] = b"" if content is _EMPTY else self._leniently(content)
        return first[name]

    def _leniently(self, value: Any) -> bytes:
        beside = _Digester(lenient=True, numbers=self._numbers)
        beside._above = self._above
        return beside.of(value)

    def _class(self, kind: type) -> bytes:
        name = [_tag(kind), _release(kind.__module__)]
        if not _is_heap(kind):
            return combined(b"class", name)
        members = [
            (f"{base.__qualname__}.{key}", value)
            for base in kind.__mro__
            if _is_heap(base)
            for key, value in sorted(vars(base).items())
        ]
        if self._numbers is None:
            # Of code alone, which refers to no class: what is kept for a class must not keep it alive.
            parts = [_code_of(value) for _, value in members]
            known = _classes.get(kind)
            if known is None or not known.is_of(parts):
                known = _classes[kind] = Known(parts, _Digester(lenient=True, numbers={})._class(kind))
            return known.digest
        if (number := self._numbers.get(id(kind))) is not None:
            return combined(b"seen", [str(number).encode()])
        self._numbers[id(kind)] = len(self._numbers)
        if type(kind).__module__ == kind.__module__:
            name.append(b"metaclass" + self._leniently(type(kind)))
        for key, value in members:
            if type(value) in _CODE or _is_code_of(kind.__module__, value):
                name.append(key.encode() + self._leniently(value))
            elif key.endswith("._member_map_"):  # of an enumeration
                name.append(key.encode() + self._leniently({one: it._value_ for one, it in value.items()}))
            elif _is_constant(value) and key.rpartition(".")[2] not in _NOT_OF_A_CLASS:
                name.append(key.encode() + self._leniently(value))
        return combined(b"class", name)

    def _native(self, value: Any) -> bytes:
        """Return a digest of what is written in C: its name and the release it comes with, and what it is bound to."""
        module = getattr(value, "__module__", None) or getattr(getattr(value, "__objclass__", None), "__module__", None)
        name = getattr(value, "__qualname__", None) or getattr(value, "__name__", "")
        parts = [str(module).encode(), str(name).encode(), _release(module), _tag(type(value))]
        bound = getattr(value, "__self__", None)
        if bound is not None and not isinstance(bound, types.ModuleType):
            parts.append(self.of(bound))
        return combined(b"native", parts)

    def _pickled(self, value: Any) -> Iterator[bytes]:
        sink, buffers = io.BytesIO(), list[pickle.PickleBuffer]()
        try:
            _Pickler(self, value, sink, buffers).dump(value)
        except _Unknown:
            raise
        except Exception as error:
            if self._lenient:
                yield b"unknown"
                return
            text = f"a value of type {_full_name(type(value))} has no digest: {str(error) or type(error).__name__}"
            raise NotStorable(text) from error
        yield sink.getvalue()
        for buffer in buffers:
            yield hashlib.blake2b(buffer, digest_size=32).digest()


class _Unknown(NotStorable):
    """What a function holds has no digest. The message says so already."""


class _Pickler(pickle.Pickler):
    """Pickles what has no other digest; what is in it and has one stands for itself by that."""

    def __init__(self, digester: _Digester, root: Any, sink: io.BytesIO, buffers: list[pickle.PickleBuffer]) -> None:
        super().__init__(sink, 5, buffer_callback=_appender(buffers))
        self.dispatch_table = _forms._Reducers(copyreg.dispatch_table)
        self._digester = digester
        self._root = root

    def persistent_id(self, value: Any) -> bytes | None:
        kind = type(value)
        return None if kind in _TAGS or value is self._root else self._digester.special(kind, value)


@final
class Known:
    """A digest, and of what it is: by identity, so that looking is quick."""

    __slots__ = ("digest", "parts")

    def __init__(self, parts: list[Any], made: bytes) -> None:
        self.parts = parts
        self.digest = made

    def is_of(self, parts: list[Any]) -> bool:
        return len(parts) == len(self.parts) and all(map(_is, parts, self.parts))


_classes: WeakKeyDictionary[type, Known] = WeakKeyDictionary()
_first_seen: WeakKeyDictionary[Any, dict[str, bytes]] = WeakKeyDictionary()

_EMPTY = object()

#: What every class has and no method reads. The order of the last is another one in each process.
_NOT_OF_A_CLASS = frozenset({"__doc__", "__module__", "__qualname__", "__firstlineno__", "__static_attributes__"})


def _is(one: Any, other: Any) -> bool:
    return one is other


def _appender(buffers: list[pickle.PickleBuffer]) -> Callable[[pickle.PickleBuffer], bool]:
    def place(buffer: pickle.PickleBuffer) -> bool:
        """Whether the buffer goes in-band."""
        try:
            buffer.raw()
        except BufferError:
            return True  # not contiguous
        buffers.append(buffer)
        return False

    return place


def _parts(function: types.FunctionType, seen: set[int]) -> Iterator[Any]:
    """Everything that a function is made of: if all of that is the same, so is its digest."""
    if id(function) in seen:
        return
    seen.add(id(function))
    code = function.__code__
    yield from (function, code, function.__defaults__, function.__kwdefaults__)
    inner: list[Any] = [value for _, value in _followed(function)]
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if name not in _rebound(code):
            content = _content(cell)
            yield content
            inner.append(content)
    for value in inner:
        yield value
        while type(value) is not types.FunctionType and (within := _within(value)) is not None:
            value = within
        if type(value) is types.FunctionType:
            yield from _parts(value, seen)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY  # not assigned yet


def _followed(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """The functions and classes of its own module that a function names, and what is made of them to be called."""
    for name in _global_names(function.__code__):
        value = function.__globals__.get(name)
        if _is_code_of(function.__module__, value):
            yield name, value


@functools.lru_cache(4096)
def _global_names(code: types.CodeType) -> tuple[str, ...]:
    """The global variables that code reads, that of nested functions included."""
    return tuple(sorted({str(it.argval) for it in _instructions(code) if it.opname in ("LOAD_GLOBAL", "LOAD_NAME")}))


@functools.lru_cache(4096)
def _rebound(code: types.CodeType) -> frozenset[str]:
    """The enclosed variables that code assigns itself: its state, and not what it was given."""
    stores = ("STORE_DEREF", "DELETE_DEREF")
    return frozenset(it.argval for it in _instructions(code) if it.opname in stores) & frozenset(code.co_freevars)


def _instructions(code: types.CodeType) -> Iterator[dis.Instruction]:
    yield from dis.get_instructions(code)
    for constant in code.co_consts:
        if inspect.iscode(constant):
            yield from _instructions(constant)


@functools.lru_cache(4096)
def _code(code: types.CodeType) -> bytes:
    """A digest of what code does, wherever it stands: bytecode means something in one release of Python only."""
    names = [name.encode() for name in (*code.co_names, "", *code.co_varnames, "", *code.co_freevars)]
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags, code.co_cellvars)
    parts = [MAGIC_NUMBER, code.co_code, code.co_exceptiontable, repr(shape).encode(), *names]
    return combined(b"code", [*parts, *map(_constant, code.co_consts)])


def _constant(constant: Any) -> bytes:
    if inspect.iscode(constant):
        return _code(constant)
    if isinstance(constant, tuple):
        return combined(b"tuple", map(_constant, constant))
    if isinstance(constant, frozenset):  # whose order is another one in each process
        return combined(b"frozenset", sorted(map(_constant, constant)))
    return combined(type(constant).__name__.encode(), [repr(constant).encode()])


def _is_code_of(module: str | None, value: Any) -> bool:
    """Whether something is code of a module, and neither data nor a library's: functions, classes, what is called."""
    if isinstance(value, (types.FunctionType, type)) or _wrapped(value) is not None:
        return getattr(value, "__module__", None) == module
    kind = type(value)
    if kind is functools.partial:
        return True
    is_used_as_code = callable(value) or hasattr(kind, "__get__")
    return is_used_as_code and _is_heap(kind) and kind.__module__ == module


def _is_constant(value: Any) -> bool:
    return type(value) in _CONSTANTS or (type(value) in (tuple, frozenset) and all(map(_is_constant, value)))


def _within(value: Any) -> Any:
    """Return what is called in the end when something is that only passes calls on; `None` of all else."""
    if (wrapped := _wrapped(value)) is not None:
        return wrapped
    is_of_one = type(value) in _ACCESSORS or type(value) is functools.partial
    return next(_accessors(value), None) if is_of_one else None


def _wrapped(value: Any) -> Any:
    """Return what a decorated function that is no plain function says that it wraps."""
    if isinstance(value, (types.FunctionType, type)):
        return None
    found = getattr(value, "__dict__", None)
    wrapped = found.get("__wrapped__") if isinstance(found, dict) else None
    return wrapped if callable(wrapped) else None


def _has_code(kind: type) -> bool:
    """Whether calling instances runs code of Python that is not ours."""
    return _call_of(kind) is not None and kind.__module__ != "plasmon._memoize"


def _call_of(kind: type) -> types.FunctionType | None:
    """Return what runs when an instance is called, if it is a function of Python."""
    found = (vars(base)["__call__"] for base in kind.__mro__ if "__call__" in vars(base))
    called = next(found, None)
    return called if isinstance(called, types.FunctionType) else None


def _accessors(value: Any) -> Iterator[Any]:
    for name in _INNER:
        if (inner := getattr(value, name, None)) is not None:
            yield inner


def _code_of(value: Any) -> Any:
    return getattr(value if type(value) is types.FunctionType else _within(value), "__code__", None)


def _is_heap(kind: type) -> bool:
    return bool(kind.__flags__ & _IS_HEAP_TYPE)


def _coordinates(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in _COORDINATING or kind.__module__ == "multiprocessing.synchronize"


def _plain(value: Any) -> bytes:
    payload = _plasmon.Payload.plain(value)
    return (_forms.encode(value) if payload is None else payload).digest()


def _tag(kind: type) -> bytes:
    return f"{kind.__module__}.{kind.__qualname__}".encode()


def _release(module: str | None) -> bytes:
    """Which release of a library a module belongs to, as far as it says so; of Python's own, that of Python."""
    top = (module or "builtins").partition(".")[0]
    if top in sys.stdlib_module_names:
        return sys.version.encode()
    version = getattr(sys.modules.get(top), "__version__", "")
    return version.encode() if isinstance(version, str) else b""


def _is_found_by_name(value: Any) -> bool:
    found: Any = sys.modules.get(getattr(value, "__module__", None) or "")
    for part in str(getattr(value, "__qualname__", "")).split("."):
        found = getattr(found, part, None)
    return found is value


def _full_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"

"""What a call is known by: digests of functions and of arguments, equal for equal ones, in every process.

A function is known by what it computes: its code, what it encloses, its defaults, what it wraps, and the code that it
names: functions, classes and other things to be called, and the classes of objects, of its own module and of others
that are not installed as a package. A class is known by its code and the constants among its attributes, an object by
its class and its state. What changes in place counts as it was when it was first seen: a function may count its calls
in a list that it encloses, and a class in an attribute.
"""

from __future__ import annotations

import copyreg
import dis
import enum
import functools
import hashlib
import inspect
import io
import operator
import pickle
import sys
import types
import weakref
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import TYPE_CHECKING, Any, final
from weakref import WeakKeyDictionary

from plasmon import _forms, _pickles, _plasmon
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

#: What cannot be changed in place, and what may consist of that.
_CONSTANTS = frozenset({type(None), bool, int, float, complex, str, bytes})
_CONTAINERS_OF_CONSTANTS = _CONTAINERS | {set, frozenset}

#: How deep constants may lie in containers: these may contain themselves.
_LEVELS_MAX = 8

_BY_NAME = (
    types.BuiltinFunctionType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)

#: Types of what is no code of a program, which are told quickly.
_DATA = frozenset({*_CONSTANTS, *_CONTAINERS_OF_CONSTANTS, *_BY_NAME, types.ModuleType})

#: Set in the flags of types that are made when a program runs; those of C that are not have no Python code.
_IS_HEAP_TYPE = 1 << 9


def digest(value: Any) -> bytes:
    """Return 32 bytes that are equal for equal values, and only for those.

    Arrays, frames and tables count by their content and type; sets and dictionaries in any order; functions and classes
    as the text above says. What is stored as a pickle counts as equal if it pickles alike.

    Raises:
        NotStorable: The value has no form in the store.

    """
    return _digest_of_value(value, lenient=False)


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
            return Known(_digest_of_value(function, lenient=lenient), [])
        if before is not None and before.still_holds():
            return before
        return Known(*_digest_of_all(function, lenient=lenient))
    except (NotStorable, RecursionError) as error:
        why = "what it names is nested too deep" if isinstance(error, RecursionError) else error
        raise NotMemoizable(f"memoize cannot know what {name_of(function)} computes: {why}; {_CURE}") from error


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

    Functions and classes refer to each other in circles and in long chains, so that each is looked at once, when its
    turn comes, and counts by its number wherever it is met. Numbers begin anew for each function or class that is met
    as a value; so its digest is always the same.
    """

    def __init__(self, *, lenient: bool = False, turns: _Turns | None = None) -> None:
        self._lenient = lenient
        #: Of the functions and classes met; `None` where none is being looked into.
        self._turns = turns
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
        if self._turns is None:
            return _digest_of_all(function, lenient=self._lenient)[0]
        return self._turns.number(function, self._lenient)

    def _class(self, kind: type) -> bytes:
        if not _is_heap(kind):
            return combined(b"class", [_tag(kind), _release(kind.__module__)])
        if self._turns is not None:
            return self._turns.number(kind, self._lenient)
        known = _classes.get(kind)
        if known is None or not known.still_holds():
            known = _classes[kind] = Known(*_digest_of_all(kind, lenient=True), keep=_weakly)
        return known.digest

    def of_parts(self, whole: types.FunctionType | type) -> bytes:
        """Return the digest of a function or class that is looked into."""
        kind, found = b"function", list[bytes]()
        if isinstance(whole, type):
            kind, found = b"class", [_tag(whole), _release(whole.__module__)]
        for name, value, how in _parts(whole):
            if how == _GIVEN:
                found.append(name.encode() + self._held(whole, name, value))
            elif how == _STATE:
                first = _first_seen.setdefault(whole, {})
                if name not in first:
                    first[name] = b"" if value is _EMPTY else self._leniently(value)
                found.append(name.encode() + first[name])
            elif how == _NAMED or _is_constant(value):
                found.append(name.encode() + self._leniently(value))
        return combined(kind, found)

    def _held(self, whole: Any, name: str, value: Any) -> bytes:
        """Return a digest of something that a function holds."""
        try:
            return self.of(value)
        except _Unknown:
            raise
        except RecursionError as error:
            raise _Unknown(f"{name_of(whole)} holds {name}, which is nested too deep") from error
        except NotStorable as error:
            raise _Unknown(f"{name_of(whole)} holds {name}, and {error}") from error

    def _leniently(self, value: Any) -> bytes:
        beside = _Digester(lenient=True, turns=self._turns)
        beside._above = self._above
        return beside.of(value)

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


def _digest_of_value(value: Any, *, lenient: bool) -> bytes:
    try:
        return _Digester(lenient=lenient).of(value)
    except RecursionError as error:
        raise NotStorable(f"a value of type {_full_name(type(value))} is nested too deep to have a digest") from error


def _digest_of_all(root: types.FunctionType | type, *, lenient: bool) -> tuple[bytes, list[types.FunctionType | type]]:
    """Return the digest of a function or class and of all that it leads to; and what these are."""
    turns = _Turns()
    turns.number(root, lenient)
    found = [_Digester(lenient=lenient, turns=turns).of_parts(one) for one, lenient in turns.met]  # which grows
    return combined(b"all", found), [one for one, _ in turns.met]


@final
class _Turns:
    """The functions and classes that a digest is of, in the order in which they were met."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        #: With whether what cannot be known of it counts by its type.
        self.met: list[tuple[types.FunctionType | type, bool]] = []

    def number(self, value: types.FunctionType | type, lenient: bool) -> bytes:
        """Return what stands for a function or a class; it is looked at when its turn comes."""
        number = self._numbers.setdefault(id(value), len(self.met))
        if number == len(self.met):
            self.met.append((value, lenient))
        return combined(b"number", [str(number).encode()])


class _Unknown(NotStorable):
    """What a function holds has no digest. The message says so already."""


class _Pickler(pickle.Pickler):
    """Pickles what has no other digest; what is in it and has one stands for itself by that."""

    def __init__(self, digester: _Digester, root: Any, sink: io.BytesIO, buffers: list[pickle.PickleBuffer]) -> None:
        super().__init__(sink, 5, buffer_callback=_appender(buffers))
        self.dispatch_table = _pickles.Reducers(copyreg.dispatch_table)
        self._digester = digester
        self._root = root

    def persistent_id(self, value: Any) -> bytes | None:
        kind = type(value)
        return None if kind in _TAGS or value is self._root else self._digester.special(kind, value)


@final
class Known:
    """A digest, and the code of which it is: by identity, so that looking is quick.

    Args:
        made: The digest.
        met: The functions and classes of which it is, the first of them first.
        keep: Returns what is kept of a part, always the same of the same; without it, the part is.

    """

    __slots__ = ("_keep", "_kept", "digest")

    def __init__(
        self, made: bytes, met: list[types.FunctionType | type], keep: Callable[[Any], Any] | None = None
    ) -> None:
        self.digest = made
        self._keep = keep
        watched = [one for one in met if one is met[0] or not _is_installed(one.__module__)]
        self._kept = [(weakref.ref(one), self._parts_of(one)) for one in watched]

    def still_holds(self) -> bool:
        """Return whether nothing of the code has been written anew, replaced or edited in place."""
        for reference, kept in self._kept:
            if (one := reference()) is None:
                return False
            parts = self._parts_of(one)
            if len(parts) != len(kept) or not all(map(operator.is_, parts, kept)):
                return False
        return True

    def _parts_of(self, one: types.FunctionType | type) -> list[Any]:
        parts = _watched(one)
        return parts if self._keep is None else list(map(self._keep, parts))


def _weakly(part: Any) -> Any:
    """Return what is kept of a part for a class: that must not keep the class alive."""
    part = next(_accessors(part), part) if type(part) in _ACCESSORS else part
    if type(part) in _CONSTANTS:
        return part
    try:
        return weakref.ref(part)
    except TypeError:
        return part if _is_constant(part) else None


#: Of classes that are met as values: their instances are met often.
_classes: WeakKeyDictionary[type, Known] = WeakKeyDictionary()
_first_seen: WeakKeyDictionary[Any, dict[str, bytes]] = WeakKeyDictionary()

_EMPTY = object()

#: Top modules that are no program's own, and the directories where installed packages are.
_NEVER_OF_A_PROGRAM = frozenset({*sys.builtin_module_names, *sys.stdlib_module_names, "plasmon"})
_PACKAGES = frozenset({"site-packages", "dist-packages"})

#: What every class has and no method reads, or what Python makes when it is asked for.
_NOT_OF_A_CLASS = frozenset({
    "__doc__", "__module__", "__qualname__", "__firstlineno__", "__static_attributes__", "__annotations__",
})  # fmt: skip


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


#: How something counts of which a function or class is made: as it is, and if that cannot be known, the function cannot
#: be; as it is, as far as that can be known; if it is constant, as it was when the digest was made; as it was when it
#: was first seen.
_GIVEN, _NAMED, _ATTRIBUTE, _STATE = range(4)
_WATCHED = frozenset({_GIVEN, _NAMED})


def _parts(whole: types.FunctionType | type) -> list[tuple[str, Any, int]]:
    """What a function or class is made of, each with a name."""
    if isinstance(whole, type):
        return _parts_of_class(whole, [base for base in whole.__mro__ if _is_heap(base)])
    return _parts_of_function(whole)


def _watched(whole: types.FunctionType | type) -> list[Any]:
    """Return the parts whose change makes another one of a function or class. Nobody edits what is installed."""
    if type(whole) is types.FunctionType:
        return [value for _, value, how in _parts_of_function(whole) if how in _WATCHED]
    parts = _parts_of_class(whole, [base for base in whole.__mro__ if not _is_installed(base.__module__)])
    return [value for _, value, how in parts if how in _WATCHED]


def _parts_of_function(function: types.FunctionType) -> list[tuple[str, Any, int]]:
    code = function.__code__
    found = [
        ("its code", code, _NAMED),
        ("its defaults", function.__defaults__, _GIVEN),
        ("its defaults", function.__kwdefaults__, _GIVEN),
    ]
    for name, cell in zip(code.co_freevars, function.__closure__, strict=True) if function.__closure__ else ():
        content = _content(cell)
        if name == "__class__":  # for super(): the class stands above its methods
            continue
        if name in _rebound(code):
            found.append((repr(name), content, _STATE))
        elif content is not _EMPTY:
            found.append((repr(name), content, _GIVEN))
    for name in _global_names(code):
        named = _code_of(function.__globals__.get(name), function.__module__)
        if named is not _EMPTY:
            found.append((name, named, _NAMED))
    return found


def _parts_of_class(kind: type, bases: list[type]) -> list[tuple[str, Any, int]]:
    found: list[tuple[str, Any, int]] = []
    if type(kind).__module__ == kind.__module__:
        found.append(("metaclass", type(kind), _NAMED))
    for base in bases:
        found.append(("base", base.__qualname__, _ATTRIBUTE))
        for name, value in sorted(vars(base).copy().items()):
            if type(value) in _CODE:
                found.append((name, value, _NAMED))
            elif type(value) not in _DATA and (named := _code_of(value, base.__module__)) is not _EMPTY:
                found.append((name, named, _NAMED))
            elif name == "_member_map_":  # of an enumeration, which makes other such names as it is used
                found += [(one, member._value_, _NAMED) for one, member in value.items()]
            elif name not in _NOT_OF_A_CLASS and not (name[:1] == "_" == name[-1:] and type(value) in _CONTAINERS):
                found.append((name, value, _ATTRIBUTE))
    return found


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY  # not assigned yet


def _code_of(value: Any, module: str | None) -> Any:
    """Return what counts of something that code of a module names: itself if it is to be called, or its class.

    `_EMPTY` if it is neither of that module, nor of another one of the program.
    """
    kind = type(value)
    if kind in _DATA:
        return _EMPTY
    if isinstance(value, functools.partial):
        return value
    if kind is types.FunctionType or isinstance(value, (type, types.MethodType)) or _wrapped(value) is not None:
        written_in = getattr(value, "__module__", None)
    else:
        written_in = kind.__module__
        value = value if callable(value) or hasattr(kind, "__get__") else kind
    return value if written_in == module or not _is_installed(written_in) else _EMPTY


@functools.lru_cache(4096)
def _is_installed(module: str | None) -> bool:
    """Whether a module belongs to Python or to an installed package, and not to the program."""
    if not isinstance(module, str) or module.partition(".")[0] in _NEVER_OF_A_PROGRAM:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and not _PACKAGES.isdisjoint(Path(file).parts)


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


def _is_constant(value: Any, levels: int = _LEVELS_MAX) -> bool:
    """Whether a value consists of what cannot be changed, and of containers, down to so many levels."""
    kind = type(value)
    if kind in _CONSTANTS or kind.__module__ in ("datetime", "decimal", "fractions"):
        return True
    if isinstance(value, enum.Enum):
        return _is_constant(value.value, levels)
    if kind is dict:
        return levels > 0 and all(_is_constant(part, levels - 1) for pair in value.items() for part in pair)
    return kind in _CONTAINERS_OF_CONSTANTS and levels > 0 and all(_is_constant(part, levels - 1) for part in value)


def _wrapped(value: Any) -> Any:
    """Return what a decorated function that is no plain function says that it wraps."""
    if isinstance(value, (types.FunctionType, type)):
        return None
    try:
        found = getattr(value, "__dict__", None)
    except Exception:  # a proxy of something that is not there
        return None
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

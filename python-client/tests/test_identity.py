"""What a function is known by: what it computes, as far as that can be known."""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import json
import math
import operator
import os
import sqlite3
import subprocess
import sys
import threading
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plasmon
import pytest
from plasmon._identity import digest, digest_of_function


def known_by(function: Callable[..., Any], *, lenient: bool = False) -> bytes:
    return digest_of_function(function, lenient=lenient).digest


def anew(source: str, name: str = "function", module: str = "written") -> Any:
    """Write a module, as if it had just been imported."""
    written = types.ModuleType(module)
    exec(compile(source, module, "exec"), written.__dict__)
    return getattr(written, name)


# ---- what tells functions apart

ENCLOSED: list[Any] = [
    1, 2, True, 1.0, "1", b"1", None, (1,), [1], {1}, {"a": 1}, {"a": 2}, np.arange(3), np.arange(4),
    pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [2]}), len, max, math.sqrt, operator.itemgetter(1), json, math,
    lambda: 1, lambda: 2, functools.partial(pow, 2), functools.partial(pow, 3), [lambda: 1], [lambda: 2], int, str,
]  # fmt: skip


def enclosing(value: Any) -> Callable[[], Any]:
    return lambda: value


def test_functions_of_one_factory_are_told_apart_by_what_they_enclose() -> None:
    keys = [known_by(enclosing(value)) for value in ENCLOSED]
    assert len(set(keys)) == len(keys)
    assert keys == [known_by(enclosing(value)) for value in ENCLOSED]
    beneath = [known_by(enclosing(enclosing(value))) for value in ENCLOSED]
    assert len({*keys, *beneath}) == 2 * len(keys)


def test_results_of_functions_of_one_factory_do_not_mix(brain: plasmon.Brain) -> None:
    def converter(rate: int) -> Any:
        return brain.memoize(namespace=brain.namespace)(lambda amount: amount * rate)

    made = [converter(rate) for rate in (2, 3, 2)]
    assert [convert(10) for convert in made] == [20, 30, 20] and len(brain) == 2
    two, twice = brain.memoize(namespace=brain.namespace)(lambda x: x + 2), brain.memoize(namespace=brain.namespace)(lambda x: x * 2)  # fmt: skip  # noqa: E501 (on one line)
    assert (two(5), twice(5)) == (7, 10)


def test_a_variable_counts_by_the_value_that_it_has_at_the_call(brain: plasmon.Brain) -> None:
    rate, calls = 2, []

    @brain.memoize(namespace=brain.namespace)
    def convert(amount: int) -> int:
        calls.append(amount)
        return amount * rate

    assert (convert(10), convert(10)) == (20, 20) and calls == [10]
    rate = 3
    assert (convert(10), convert(10)) == (30, 30) and calls == [10, 10]


def test_a_function_may_count_its_calls(brain: plasmon.Brain) -> None:
    calls, times = [], 0

    @brain.memoize(namespace=brain.namespace)
    def function(n: int) -> int:
        nonlocal times
        times += 1
        calls.append(n)
        return n

    assert [function(1) for _ in range(3)] == [1] * 3 and (calls, times) == ([1], 1)


SOURCES = {
    "itself": ("def function(x): return x + 1", "def function(x): return x + 2"),
    "a default": ("def function(x, y=1): return x", "def function(x, y=2): return x"),
    "a default by name": ("def function(x, *, y=1): return x", "def function(x, *, y=2): return x"),
    "what it calls": (
        "def helper(x): return x + 1\ndef function(x): return helper(x)",
        "def helper(x): return x + 2\ndef function(x): return helper(x)",
    ),
    "what that calls": (
        "def deep(x): return x + 1\ndef helper(x): return deep(x)\ndef function(x): return [helper(y) for y in x]",
        "def deep(x): return x + 2\ndef helper(x): return deep(x)\ndef function(x): return [helper(y) for y in x]",
    ),
    "a class": (
        "class C:\n def m(self): return 1\ndef function(x): return C().m()",
        "class C:\n def m(self): return 2\ndef function(x): return C().m()",
    ),
    "what a decorator wraps": (
        "import functools\ndef d(f):\n @functools.wraps(f)\n def w(*a): return f(*a)\n return w\n@d\ndef function(x): return 1",
        "import functools\ndef d(f):\n @functools.wraps(f)\n def w(*a): return f(*a)\n return w\n@d\ndef function(x): return 2",
    ),
    "a decorator": (
        "def d(f):\n def w(*a): return f(*a) + 1\n return w\n@d\ndef function(x): return 1",
        "def d(f):\n def w(*a): return f(*a) + 2\n return w\n@d\ndef function(x): return 1",
    ),
    "what a cache wraps": (
        "import functools\n@functools.lru_cache\ndef function(x): return 1",
        "import functools\n@functools.lru_cache\ndef function(x): return 2",
    ),
    "a nested function": (
        "def function(x):\n def g(): return 1\n return g()",
        "def function(x):\n def g(): return 2\n return g()",
    ),
    "which variable": (
        "def o(a, b):\n def f(): return a, b\n return f\nfunction = o(1, 2)",
        "def o(a, b):\n def f(): return b, a\n return f\nfunction = o(1, 2)",
    ),
    "a set": ("def function(x): return x in {'a', 'b'}", "def function(x): return x in {'a', 'c'}"),
    "minus zero": ("def function(x): return 0.0", "def function(x): return -0.0"),
    "a callable object's method": (
        "class C:\n def __call__(self, x): return self.m(x)\n def m(self, x): return 1\nfunction = C()",
        "class C:\n def __call__(self, x): return self.m(x)\n def m(self, x): return 2\nfunction = C()",
    ),
    "a callable object's state": (
        "class C:\n def __init__(self, s): self.s = s\n def __call__(self, x): return self.s\nfunction = C(1)",
        "class C:\n def __init__(self, s): self.s = s\n def __call__(self, x): return self.s\nfunction = C(2)",
    ),
    "whose method": (
        "class C:\n def __init__(self, s): self.s = s\n def m(self): return self.s\nfunction = C(1).m",
        "class C:\n def __init__(self, s): self.s = s\n def m(self): return self.s\nfunction = C(2).m",
    ),
    "what a method wraps": (
        "import functools\nclass C:\n @functools.cache\n def m(self): return 1\ndef function(x): return C().m()",
        "import functools\nclass C:\n @functools.cache\n def m(self): return 2\ndef function(x): return C().m()",
    ),
    "the arguments of a partial method": (
        "import functools\nclass C:\n def k(self, x): return x\n m = functools.partialmethod(k, 1)\nfunction = C().m",
        "import functools\nclass C:\n def k(self, x): return x\n m = functools.partialmethod(k, 2)\nfunction = C().m",
    ),
    "a method that is chosen by type": (
        "import functools\nclass C:\n @functools.singledispatchmethod\n def m(self, x): return 1\nfunction = C",
        "import functools\nclass C:\n @functools.singledispatchmethod\n def m(self, x): return 2\nfunction = C",
    ),
    "what a descriptor of one's own has": (
        "class D:\n def __init__(s, f): s.f = f\n def __get__(s, i, o): return s.f(i)\nclass C:\n @D\n def m(s): return 1\nfunction = C",
        "class D:\n def __init__(s, f): s.f = f\n def __get__(s, i, o): return s.f(i)\nclass C:\n @D\n def m(s): return 2\nfunction = C",
    ),
    "a class within a class": (
        "class C:\n class Inner:\n  def m(self): return 1\nfunction = C",
        "class C:\n class Inner:\n  def m(self): return 2\nfunction = C",
    ),
    "a metaclass": (
        "class M(type):\n def m(cls): return 1\nclass C(metaclass=M): pass\nfunction = C",
        "class M(type):\n def m(cls): return 2\nclass C(metaclass=M): pass\nfunction = C",
    ),
    "constants of a class": (
        "class C:\n names = ('a', frozenset({'b', 'c'}), None)\nfunction = C",
        "class C:\n names = ('a', frozenset({'b', 'd'}), None)\nfunction = C",
    ),
    "an enumeration": (
        "import enum\nclass C(enum.Enum):\n a = 1\ndef function(x): return C.a.value",
        "import enum\nclass C(enum.Enum):\n a = 2\ndef function(x): return C.a.value",
    ),
    "a partial function that it calls": (
        "import functools\nhelper = functools.partial(pow, 2)\ndef function(x): return helper(x)",
        "import functools\nhelper = functools.partial(pow, 3)\ndef function(x): return helper(x)",
    ),
    "an object that it calls": (
        "class D:\n def __init__(self, f): self.f = f\n def __call__(self, x): return self.f(x)\n@D\ndef helper(x): return 1\ndef function(x): return helper(x)",
        "class D:\n def __init__(self, f): self.f = f\n def __call__(self, x): return self.f(x)\n@D\ndef helper(x): return 2\ndef function(x): return helper(x)",
    ),
    "an inherited method": (
        "class B:\n def m(self): return 1\nclass C(B): pass\nfunction = C().m",
        "class B:\n def m(self): return 2\nclass C(B): pass\nfunction = C().m",
    ),
    "a bound method that it names": (
        "class C:\n def __init__(self, s): self.s = s\n def m(self, x): return self.s\nm = C(1).m\ndef function(x): return m(x)",
        "class C:\n def __init__(self, s): self.s = s\n def m(self, x): return self.s\nm = C(2).m\ndef function(x): return m(x)",
    ),
    "a partial function that it names": (
        "import functools\ndef f(a, x): return a\ng = functools.partial(f, 1)\ndef function(x): return g(x)",
        "import functools\ndef f(a, x): return a\ng = functools.partial(f, 2)\ndef function(x): return g(x)",
    ),
    "the class of an object that it names": (
        "class C:\n def m(self): return 1\nc = C()\ndef function(x): return c.m()",
        "class C:\n def m(self): return 2\nc = C()\ndef function(x): return c.m()",
    ),
}
# What a class may have.
for _what, _member in {
    "a list": "a = [{}]",
    "a tuple": "a = (0, ({}, None))",
    "a dictionary": "a = {{'a': {{'b': {}}}}}",
    "nothing or not": "a = [None, 5][{} - 1]",
    "a time": "import datetime\n a = datetime.timedelta({})",
    "a decimal number": "import decimal\n a = decimal.Decimal({})",
    "a partial function": "import functools\n a = functools.partial(pow, {})",
    "a partial method": "import functools\n def m(self, x): return x\n a = functools.partialmethod(m, {})",
    "a method with a cache": "import functools\n @functools.lru_cache\n def a(self): return {}",
    "a method for each type": "import functools\n @functools.singledispatchmethod\n def a(self, x): return {}",
    "a class within": "class a:\n  b = {}",
    "a member": "import enum\n class a(enum.Enum):\n  B = {}",
}.items():
    _source = f"class C:\n {_member}\ndef function(x): return C.a"
    SOURCES[f"a class with {_what}"] = (_source.format(1), _source.format(2))
for _what, _source in {
    "a descriptor": "class D:\n def __get__(self, *_): return {}\nclass C:\n a = D()\ndef function(x): return C().a",
    "a metaclass": "class M(type):\n def a(cls): return {}\nclass C(metaclass=M): pass\ndef function(x): return C.a()",
}.items():
    SOURCES[f"a class with {_what}"] = (_source.format(1), _source.format(2))


@pytest.mark.parametrize("what", SOURCES)
def test_what_is_written_anew_is_another_function(what: str) -> None:
    before, after = SOURCES[what]
    assert known_by(anew(before)) == known_by(anew(before)) != known_by(anew(after))


def test_a_function_that_is_edited_in_place_is_another_one(brain: plasmon.Brain) -> None:
    def helper(x: int) -> int:
        return x + 1

    def edited(x: int) -> int:
        return x + 100

    remembered = brain.memoize(namespace=brain.namespace)(lambda x: helper(x))
    assert remembered(1) == 2
    helper.__code__ = edited.__code__  # as %autoreload does
    assert remembered(1) == 101


def test_a_memoized_method_that_another_one_calls_counts(brain: plasmon.Brain) -> None:
    source = """
class Model:
    @memoize
    def predict(self, x): return self.helper(x)
    @memoize
    def helper(self, x): return x + STEP
"""
    for step in (1, 2):
        written = types.ModuleType("written")
        written.__dict__["memoize"] = brain.memoize(namespace=brain.namespace)
        exec(compile(source.replace("STEP", str(step)), "written", "exec"), written.__dict__)
        assert written.Model().predict(1) == 1 + step


def test_a_class_that_is_edited_in_place_is_another_one(brain: plasmon.Brain) -> None:
    def helper() -> int:
        return 1

    class Edited:
        def method(self) -> int:
            return helper()

    remembered = brain.memoize(namespace=brain.namespace)(lambda: Edited().method())
    takes = brain.memoize(namespace=brain.namespace)(lambda edited: edited.method())
    held = Edited()
    assert (remembered(), takes(held)) == (1, 1)
    helper.__code__ = (lambda: 2).__code__  # what %autoreload does with functions, and with methods
    assert (remembered(), takes(held)) == (2, 2)
    Edited.method.__code__ = (lambda self: helper() + 1).__code__  # type: ignore[misc]
    assert (remembered(), takes(held)) == (3, 3)
    Edited.method = lambda self: 4  # type: ignore[method-assign]
    assert (remembered(), takes(held)) == (4, 4)
    added = 1
    Edited.method = lambda self: 4 + added  # type: ignore[method-assign]
    assert (remembered(), takes(held)) == (5, 5)
    added = 2
    assert (remembered(), takes(held)) == (6, 6)


def test_a_class_may_count_its_calls(brain: plasmon.Brain) -> None:
    class Counting:
        calls = 0

        def method(self) -> int:
            Counting.calls += 1
            return Counting.calls

    remembered = brain.memoize(namespace=brain.namespace)(lambda: Counting().method())
    takes = brain.memoize(namespace=brain.namespace)(lambda counting: counting.method())
    assert [remembered(), remembered(), takes(Counting()), takes(Counting())] == [1, 1, 2, 2]


def test_a_class_that_was_an_argument_may_go(brain: plasmon.Brain) -> None:
    class Base:
        @property
        def value(self) -> int:
            return 1

    class Argument(Base):
        names = ("a",)

        @property
        def value(self) -> int:
            return super().value + len(self.names)

    assert brain.memoize(namespace=brain.namespace)(lambda argument: argument.value)(Argument()) == 2
    gone = weakref.ref(Argument)
    del Argument
    gc.collect()
    assert gone() is None


def test_functions_of_other_modules_of_the_program_count_and_those_of_packages_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site-packages").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    digests = {}
    for name, where in (("of_the_program", tmp_path), ("of_a_package", tmp_path / "site-packages")):
        for number in (1, 2):
            (where / f"{name}.py").write_text(f"def helper(x): return x + {number}")
            importlib.invalidate_caches()
            monkeypatch.delitem(sys.modules, name, raising=False)
            digests[name, number] = known_by(anew(f"from {name} import helper\ndef function(x): return helper(x)"))
    assert digests["of_the_program", 1] != digests["of_the_program", 2]
    assert digests["of_a_package", 1] == digests["of_a_package", 2]


def test_functions_that_name_each_other_may_be_many() -> None:
    chain = "".join(f"def f{number}(x): return f{number + 1}(x)\n" for number in range(2_000))
    keys = [known_by(anew(f"{chain}def f2000(x): return x + {added}", "f0")) for added in (1, 1, 2)]
    assert keys[0] == keys[1] != keys[2]


def test_a_function_among_the_arguments_counts_by_its_code(brain: plasmon.Brain) -> None:
    apply = brain.memoize(namespace=brain.namespace)(lambda function, x: function(x))
    sources = ["def function(x): return x + 1", "def function(x): return x + 2"]
    assert [apply(anew(source), 1) for source in sources] == [2, 3]

    class Holder:
        def __init__(self, function: Any) -> None:
            self.functions = {"f": [function]}

    assert digest(Holder(anew(sources[0]))) == digest(Holder(anew(sources[0]))) != digest(Holder(anew(sources[1])))


def test_what_was_looked_at_is_not_kept_alive(brain: plasmon.Brain) -> None:
    class Held:
        def __call__(self) -> int:
            return len(super().__repr__())

    def recursive(held: Any) -> Any:
        def function(n: int) -> Any:
            return (held, function)

        return function

    alive = [weakref.ref(Held)]
    function = recursive(Held())
    alive.append(weakref.ref(function))
    digest([function, Held, Held()])
    alive.append(weakref.ref(brain.memoize(namespace=brain.namespace)(function)))
    del function, Held
    gc.collect()
    assert [each() for each in alive] == [None] * 3


# ---- kinds of things that are called


def test_whatever_can_be_called_can_be_memoized(brain: plasmon.Brain) -> None:
    class Doubles:
        def __call__(self, x: int) -> int:
            return 2 * x

    memoize = brain.memoize(namespace=brain.namespace)
    array = np.array([3.0, 4.0])
    for function, arguments in (
        (functools.partial(pow, 2), (3,)),
        (functools.partial(functools.partial(pow, 2), 3), ()),
        (len, ("abc",)),
        (min, (3, 2)),
        (np.linalg.norm, (array,)),
        (np.sum, (array,)),
        (np.hypot, (3.0, 4.0)),
        ("a-b".split, ("-",)),
        (str.upper, ("a",)),
        (Doubles(), (4,)),
        (complex, (1, 2)),
        (functools.lru_cache(lambda x: x + 1), (1,)),
        (operator.methodcaller("upper"), ("a",)),
    ):
        remembered = memoize(function)
        expected = function(*arguments)  # type: ignore[operator]
        assert remembered(*arguments) == expected and remembered(*arguments) == expected
        assert brain.exists(remembered.name(*arguments)), function
    assert memoize(functools.partial(pow, 2))(5) == 32 and memoize(functools.partial(pow, 3))(5) == 243


def test_methods_static_methods_and_class_methods(brain: plasmon.Brain) -> None:
    memoize = brain.memoize(namespace=brain.namespace)
    calls: list[Any] = []

    class Model:
        rate = 2

        def __init__(self, size: int) -> None:
            self.size = size
            self.lock = threading.Lock()  # what only coordinates does not count

        @memoize
        def predict(self, x: int) -> int:
            calls.append(x)
            return self.size * x

        @memoize
        @staticmethod
        def plain(x: int) -> int:
            return x + 1

        @memoize
        @classmethod
        def of_class(cls, x: int) -> int:
            return cls.rate * x

    class Other(Model):
        rate = 3

    model = Model(2)
    assert [model.predict(3), Model(2).predict(x=3), Model(3).predict(3)] == [6, 6, 9] and calls == [3, 3]
    assert (Model.plain(1), model.plain(1)) == (2, 2) and (Model.of_class(2), Other.of_class(2)) == (4, 6)
    model.predict.forget(3)
    assert model.predict(3) == 6 and calls == [3, 3, 3] and brain.exists(model.predict.name(3))
    model.predict.clear()
    assert model.predict(3) == 6 and len(calls) == 4


def test_a_decorator_beneath_may_give_arguments_of_its_own(brain: plasmon.Brain) -> None:
    def with_connection(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function("connection", *args)

        return wrapper

    @brain.memoize(namespace=brain.namespace)
    @with_connection
    def query(connection: str, text: str) -> str:
        return connection + text

    assert query("!") == query("!") == "connection!"


# ---- what is refused


def generator(n: int) -> Any:
    yield n


async def asynchronous_generator(n: int) -> Any:
    yield n


def test_what_cannot_be_kept_is_refused_by_name(brain: plasmon.Brain) -> None:
    memoize = brain.memoize(namespace=brain.namespace)
    for function in (generator, asynchronous_generator, functools.partial(generator, 1)):
        with pytest.raises(plasmon.NotMemoizable, match="generator"):
            memoize(function)
    with pytest.raises(plasmon.NotMemoizable, match="takes a function"):
        memoize(7)  # type: ignore[arg-type]

    async def coroutine() -> int:
        return 1

    for returned in (coroutine, lambda: generator(1), lambda: asynchronous_generator(1)):
        with pytest.raises(plasmon.NotMemoizable, match="used only once"):
            memoize(functools.partial(lambda returned: returned(), returned))()
    assert len(brain) == 0


def test_what_cannot_be_known_is_refused_by_name_unless_a_key_says_what_counts(brain: plasmon.Brain) -> None:
    memoize = functools.partial(brain.memoize, namespace=brain.namespace)
    connection = sqlite3.connect(":memory:")

    def query(text: str) -> Any:
        return connection.execute(text).fetchall()

    with pytest.raises(plasmon.NotMemoizable, match=r"query holds 'connection', and .*sqlite3.Connection.*key="):
        memoize()(query)
    with pytest.raises(plasmon.NotMemoizable, match="sqlite3.Connection"):
        memoize()(functools.partial(lambda connection, text: None, connection))
    assert memoize(key=lambda text: text)(query)("select 1") == [(1,)]
    with pytest.raises(plasmon.NotStorable, match=r"argument 'connection' of .*sqlite3.Connection"):
        memoize()(lambda connection, text: None)(connection, "select 1")


def test_what_is_nested_too_deep_is_refused_by_name(brain: plasmon.Brain) -> None:
    nested: Any = 1
    for _ in range(10_000):
        nested = [nested]
    memoize = brain.memoize(namespace=brain.namespace)
    with pytest.raises(plasmon.NotMemoizable, match="holds 'value', which is nested too deep"):
        memoize(enclosing(nested))
    written = (
        "import functools\nf = lambda: 1\nfor _ in range(10_000): f = functools.cache(f)\ndef function(): return f()"
    )
    with pytest.raises(plasmon.NotMemoizable, match="what it names is nested too deep"):
        memoize(anew(written))
    with pytest.raises(plasmon.NotStorable, match="argument 'value' of .*nested too deep"):
        memoize(lambda value: 1)(nested)


def test_what_only_coordinates_does_not_count() -> None:
    def function(held: Any) -> Any:
        return lambda: held

    makers: list[Callable[[], Any]] = [threading.Lock, threading.RLock, threading.Event, threading.local, asyncio.Lock]
    for make in makers:
        assert known_by(function(make())) == known_by(function(make()))


behind: list[Any] = []


class Proxy:
    """Stands for something that is there only now and then, as Flask's request is."""

    @property
    def __dict__(self) -> Any:
        return vars(behind[0])  # an error where nothing is


proxy = Proxy()


def test_a_proxy_counts_the_same_whether_there_is_something_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def function() -> Any:
        return proxy

    known = known_by(function)
    monkeypatch.setitem(globals(), "behind", [types.SimpleNamespace(user=1)])
    assert known_by(function) == known


# ---- the same in every process

PROGRAM = """
import enum, functools, plasmon, sys
from plasmon._identity import digest, digest_of_function
import numpy as np
class Base:
    def m(self): return Other
class Color(enum.Enum):
    red, names = "r", frozenset("abc")
class Other(Base):
    names, colors = ("x", frozenset("abc")), Color
    @functools.cache
    def cached(self): return self.names
    def __init__(self): self.s = {"a", "b", "c"}; self.f = lambda: Base
def even(n): return n == 0 or odd(n - 1)
def odd(n): return n != 0 and even(n - 1)
def outer():
    tags = frozenset("abc")
    def inner(x): return inner(x - 1) if x in tags else (Other, even)
    return inner
things = [Color, even, odd, outer(), Other, Base, Other(), Other().m, functools.partial(odd, 1), np.mean, functools.lru_cache(even)]
if sys.argv[1] == "reversed":
    keys = [digest(thing).hex() for thing in reversed(things)][::-1]
else:
    keys = [digest(thing).hex() for thing in things]
assert len(set(keys)) == len(keys)
print(keys)
"""


def test_functions_that_refer_to_each_other_have_one_digest_in_every_process() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM, order],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
        for order in ("forwards", "reversed")
    }
    assert len(found) == 1

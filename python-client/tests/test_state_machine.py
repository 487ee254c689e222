"""`Brain` against dictionaries: any calls in any order, by three clients, one of which is another process."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pandas as pd
import plasmon
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from plasmon import exceptions
from test_values import same

# ---- the store as it should be


@dataclass
class Bound:
    """What a name is bound to."""

    value: Any
    version: int
    description: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    ttl: float | None = None
    sliding: bool = False


@dataclass
class Namespace:
    """A namespace that is registered, and what was declared for it."""

    names: dict[str, Bound] = field(default_factory=dict)
    ttl: float | None = None
    sliding: bool = False


# ---- calls, as any client makes them

Call = Callable[..., Any]


def sure(call: Call, *arguments: Any, **options: Any) -> Any:
    """What a call returned or raised, so that the other process can send it."""
    try:
        return call(*arguments, **options)
    except Exception as error:
        return error


class Here:
    """A client in this process, with a `Brain` of its own."""

    def __init__(self, brain: plasmon.Brain) -> None:
        self.brain = brain

    def __call__(self, namespace: str, call: Call, *arguments: Any, **options: Any) -> Any:
        return sure(call, self.brain.in_namespace(namespace), *arguments, **options)


class There:
    """A client in another process. Values go to and fro as pickles."""

    def __init__(self, path: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, its = context.Pipe()
        self.process = context.Process(target=serve, args=(path, its), daemon=True)
        self.process.start()
        its.close()

    def __call__(self, namespace: str, call: Call, *arguments: Any, **options: Any) -> Any:
        self.pipe.send((namespace, call, arguments, options))
        return self.pipe.recv()

    def end(self) -> None:
        self.pipe.close()
        self.process.join(30)
        assert self.process.exitcode == 0


def serve(path: str, pipe: Connection) -> None:
    brain = plasmon.Brain(path)
    while True:
        try:
            namespace, call, arguments, options = pipe.recv()
        except EOFError:
            return
        pipe.send(sure(call, brain.in_namespace(namespace), *arguments, **options))


def as_dict(brain: plasmon.Brain) -> dict[str, Any]:
    return dict(brain)


def merge(brain: plasmon.Brain, things: dict[str, Any]) -> None:
    brain |= things


def overview(brain: plasmon.Brain) -> tuple[list[str], int, dict[str, dict[str, Any]]]:
    return list(brain), len(brain), brain.metadata()


def values_and_items(brain: plasmon.Brain) -> tuple[list[Any], list[tuple[str, Any]]]:
    return list(brain.values()), list(brain.items())


Brain = plasmon.Brain  # its methods are the calls

# ---- what is drawn

NAMES = st.sampled_from(["a", "b", "b/c", "ä", "\U0001f600", "a\0", " ", "x" * 1024])
NAMESPACES = st.sampled_from(["first", "other", "of-a-long-name-that-does-not-fit-into-its-prefix"])
CLIENTS = st.integers(0, 2)
VALUES = st.one_of(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50) | st.binary(max_size=50),
    st.recursive(
        st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ),
    st.builds(operator.mul, st.binary(min_size=1, max_size=3), st.sampled_from([500, 5_000, 70_000])),
    st.builds(np.full, st.sampled_from([0, 3, 1_000, 40_000]), st.integers(-1000, 1000)),
    st.builds(
        lambda n, rows: pd.DataFrame({"n": [n] * rows}), st.integers(-1000, 1000), st.sampled_from([0, 5, 2_000])
    ),
)
THINGS = st.dictionaries(NAMES, VALUES, max_size=4)
DESCRIPTIONS = st.none() | st.sampled_from(["", "a text for people", "é" * 100])
METADATA = st.none() | st.sampled_from([{}, {"unit": "EUR"}, {"n": [1, {"x": None}], "é": 0.5}])
#: None of them ends within the test.
TIMES = st.sampled_from([None, math.inf, 3600, 7200.5])
WHICH_VERSION = st.sampled_from(["that", "none", "an older", "one to come"])


class Clients:
    """A store, and the three clients of all machines."""

    def __init__(self, store: plasmon.Store) -> None:
        self.there = There(store.path)
        self.observer = store.connect()
        self.all = [Here(store.connect()), Here(store.connect()), self.there]
        self.machines = itertools.count()


class Machine(RuleBasedStateMachine):
    clients: Clients

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, Namespace] = {}
        self.newest = 0
        self.held: list[tuple[Any, Any]] = []  # values that were recalled, and what they were
        self.refs: list[tuple[str, str, int, plasmon.Ref]] = []
        self.number = next(self.clients.machines)
        self.turn = 0

    def teardown(self) -> None:
        for name in list(self.model):
            self.clients.observer.remove_namespace(self.full(name))

    # ---- helpers

    def full(self, namespace: str) -> str:
        return f"m{self.number}-{namespace}"

    def ask(self, who: int, namespace: str, call: Call, *arguments: Any, **options: Any) -> Any:
        return self.clients.all[who](self.full(namespace), call, *arguments, **options)

    def names(self, namespace: str) -> dict[str, Bound]:
        return self.model[namespace].names if namespace in self.model else {}

    def version(self, namespace: str, name: str, which: str) -> int:
        bound = self.names(namespace).get(name)
        if which == "that" and bound:
            return bound.version
        return {"an older": max(self.newest - 1, 1), "one to come": self.newest + 1000}.get(which, 0)

    def holds(self, namespace: str, name: str, version: int) -> bool:
        bound = self.names(namespace).get(name)
        return bound is not None and bound.version == version

    def bind(
        self,
        namespace: str,
        name: str,
        value: Any,
        version: int,
        description: str | None = None,
        metadata: dict[str, Any] | None = None,
        ttl: float | None = None,
        sliding: bool = False,
        keep_ttl: bool = False,
    ) -> None:
        """Bind a name in the model, as `Brain.learn` says."""
        where = self.model.setdefault(namespace, Namespace())
        old = where.names.get(name)
        if ttl is None:
            ttl, sliding = where.ttl, where.sliding
        elif ttl == math.inf:
            ttl = None
        new = Bound(value, version, description or "", metadata or {}, ttl, sliding)
        if old is not None:
            if description is None:
                new.description = old.description
            if metadata is None:
                new.metadata = old.metadata
            if keep_ttl:
                new.ttl, new.sliding = old.ttl, old.sliding
        where.names[name] = new

    def saw(self, version: Any) -> None:
        """A change has this version: above all before it."""
        assert isinstance(version, int), version
        assert version > self.newest
        self.newest = version

    def saw_bound(self, who: int, namespace: str, names: dict[str, Any]) -> int:
        """The version of names that were bound at one moment, by a call that does not return it."""
        described = self.ask(who, namespace, Brain.metadata, *names, output="list")
        (version,) = {one["version"] for one in described}
        self.saw(version)
        return version

    def lacks(self, answer: Any, namespace: str, name: str) -> None:
        assert type(answer) is plasmon.NameNotFound, answer
        assert (answer.name, answer.namespace) == (name, self.full(namespace))

    def refused(self, answer: Any, namespace: str, name: str) -> None:
        assert type(answer) is exceptions.ConditionFailed, answer
        bound = self.names(namespace).get(name)
        assert (answer.name, answer.namespace) == (name, self.full(namespace))
        assert answer.found_version == (bound.version if bound else None)

    # ---- learning

    @rule(
        who=CLIENTS,
        namespace=NAMESPACES,
        name=NAMES,
        value=VALUES,
        description=DESCRIPTIONS,
        metadata=METADATA,
        ttl=TIMES,
        sliding=st.booleans(),
        keep_ttl=st.booleans(),
        cache=st.booleans(),
    )
    def learn(
        self,
        who: int,
        namespace: str,
        name: str,
        value: Any,
        description: str | None,
        metadata: dict[str, Any] | None,
        ttl: float | None,
        sliding: bool,
        keep_ttl: bool,
        cache: bool,
    ) -> None:
        options: dict[str, Any] = {"description": description, "metadata": metadata, "ttl": ttl, "keep_ttl": keep_ttl}
        options["sliding"] = sliding and ttl is not None and ttl < math.inf
        self.saw(self.ask(who, namespace, Brain.learn, name, value, cache=cache, **options))
        self.bind(namespace, name, value, self.newest, **options)

    @rule(who=CLIENTS, namespace=NAMESPACES, name=NAMES, value=VALUES)
    def set_item(self, who: int, namespace: str, name: str, value: Any) -> None:
        assert self.ask(who, namespace, Brain.__setitem__, name, value) is None
        self.bind(namespace, name, value, self.saw_bound(who, namespace, {name: value}))

    @rule(who=CLIENTS, namespace=NAMESPACES, name=NAMES, value=VALUES)
    def learn_if_absent(self, who: int, namespace: str, name: str, value: Any) -> None:
        answer = self.ask(who, namespace, Brain.learn, name, value, if_absent=True)
        if name in self.names(namespace):
            self.refused(answer, namespace, name)
        else:
            self.saw(answer)
            self.bind(namespace, name, value, answer)

    @rule(who=CLIENTS, namespace=NAMESPACES, name=NAMES, value=VALUES, which=WHICH_VERSION)
    def compare_and_set(self, who: int, namespace: str, name: str, value: Any, which: str) -> None:
        version = self.version(namespace, name, which)
        answer = self.ask(who, namespace, Brain.learn, name, value, if_version=version)
        if self.holds(namespace, name, version):
            self.saw(answer)
            self.bind(namespace, name, value, answer)
        else:
            self.refused(answer, namespace, name)

    @rule(who=CLIENTS, namespace=NAMESPACES, name=NAMES, value=VALUES, claim=NAMES, which=WHICH_VERSION)
    def learn_if_held(self, who: int, namespace: str, name: str, value: Any, claim: str, which: str) -> None:
        version = self.version(namespace, claim, which)
        answer = self.ask(who, namespace, Brain.learn, name, value, if_held=(claim, version))
        if self.holds(namespace, claim, version):
            self.saw(answer)
            self.bind(namespace, name, value, answer)
        else:
            self.refused(answer, namespace, claim)

    @rule(who=CLIENTS, namespace=NAMESPACES, things=THINGS.filter(bool), ttl=TIMES)
    def learn_many(self, who: int, namespace: str, things: dict[str, Any], ttl: float | None) -> None:
        self.saw(self.ask(who, namespace, Brain.learn_many, things, ttl=ttl))
        for name, value in things.items():
            self.bind(namespace, name, value, self.newest, ttl=ttl)

    @rule(who=CLIENTS, namespace=NAMESPACES, things=THINGS.filter(bool), call=st.sampled_from([Brain.update, merge]))
    def update(self, who: int, namespace: str, things: dict[str, Any], call: Call) -> None:
        assert self.ask(who, namespace, call, things) is None
        version = self.saw_bound(who, namespace, things)
        for name, value in things.items():
            self.bind(namespace, name, value, version)

    @rule(who=CLIENTS, namespace=NAMESPACES, name=NAMES, value=VALUES)
    def setdefault(self, who: int, namespace: str, name: str, value: Any) -> None:
        answer = self.ask(who, namespace, Brain.setdefault, name, value)
        if name not in self.names(namespace):
            self.bind(namespace, name, value, self.saw_bound(who, namespace, {name: value}))
        assert same(answer, self.names(namespace)[name].value)

    # ---- recalling

    @rule(who=CLIENTS, namespace=NAMESPACES, name=NAMES, call=st.sampled_from([Brain.recall, Brain.__getitem__]))
    def recall(self, who: int, namespace: str, name: str, call: Call) -> None:
        answer = self.ask(who, namespace, call, name)
        bound = self.names(namespace).get(name)
        if bound is None:
            self.lacks(answer, namespace, name)
            return
        assert same(answer, bound.value)
        if who != 2:  # what came through a pipe is held by nobody
            self.held = [*self.held[-4:], (answer, bound.value)]

    @rule(who=CLIENTS, namespace=NAMESPACES, name=NAMES)
    def look(self, who: int, namespace: str, name: str) -> None:
        bound = self.names(namespace).get(name)
        assert self.ask(who, namespace, Brain.__contains__, name) is (bound is not None)
        assert self.ask(who, namespace, Brain.exists, name) is (bound is not None)
        assert same(self.ask(who, namespace, Brain.get, name, "nothing"), bound.value if bound else "nothing")
        known = self.ask(who, namespace, Brain.metadata, name)
        assert (known is None) is (bound is None)
        waited = self.ask(who, namespace, Brain.wait, name, timeout=0)
        if bound is None:
            assert type(waited) is exceptions.WaitTimeout, waited
        else:
            assert waited == bound.version
            later = self.ask(who, namespace, Brain.wait, name, after=bound.version, timeout=0)
            assert type(later) is exceptions.WaitTimeout, later

    @rule(who=CLIENTS, namespace=NAMESPACES, names=st.lists(NAMES, max_size=4), missing_ok=st.booleans())
    def recall_many(self, who: int, namespace: str, names: list[str], missing_ok: bool) -> None:
        answer = self.ask(who, namespace, Brain.recall_many, names, missing_ok=missing_ok)
        bound = self.names(namespace)
        missing = [name for name in names if name not in bound]
        if missing and not missing_ok:
            self.lacks(answer, namespace, missing[0])
        else:
            assert same(answer, {name: bound[name].value for name in names if name in bound})

    @rule(who=CLIENTS, namespace=NAMESPACES)
    def copy_all(self, who: int, namespace: str) -> None:
        expected = {name: bound.value for name, bound in sorted(self.names(namespace).items())}
        assert same(self.ask(who, namespace, as_dict), expected)
        values, items = self.ask(who, namespace, values_and_items)
        assert same(values, list(expected.values())) and same(items, list(expected.items()))

    @rule(who=CLIENTS, namespace=NAMESPACES, name=NAMES)
    def take_a_reference(self, who: int, namespace: str, name: str) -> None:
        answer = self.ask(who, namespace, Brain.ref, name)
        bound = self.names(namespace).get(name)
        if bound is None:
            self.lacks(answer, namespace, name)
        else:
            self.refs = [*self.refs[-4:], (namespace, name, bound.version, answer)]

    @precondition(lambda self: self.refs)
    @rule(data=st.data())
    def follow_a_reference(self, data: st.DataObject) -> None:
        namespace, name, version, ref = data.draw(st.sampled_from(self.refs))
        answer, newest, bound = sure(ref), sure(ref.newest()), self.names(namespace).get(name)
        if bound is not None and bound.version == version:
            assert same(answer, bound.value)
        else:
            assert type(answer) is exceptions.VersionGone, answer
            assert (answer.version, answer.found_version) == (version, bound.version if bound else None)
        if bound is None:
            self.lacks(newest, namespace, name)
        else:
            assert same(newest, bound.value)

    # ---- forgetting

    @rule(who=CLIENTS, namespace=NAMESPACES, name=NAMES, missing_ok=st.booleans())
    def forget(self, who: int, namespace: str, name: str, missing_ok: bool) -> None:
        answer = self.ask(who, namespace, Brain.forget, name, missing_ok=missing_ok)
        if self.names(namespace).pop(name, None) is None and not missing_ok:
            self.lacks(answer, namespace, name)
        else:
            assert answer is None

    @rule(who=CLIENTS, namespace=NAMESPACES, name=NAMES)
    def delete(self, who: int, namespace: str, name: str) -> None:
        answer = self.ask(who, namespace, Brain.__delitem__, name)
        if self.names(namespace).pop(name, None) is None:
            self.lacks(answer, namespace, name)
        else:
            assert answer is None

    @rule(who=CLIENTS, namespace=NAMESPACES, name=NAMES, which=WHICH_VERSION)
    def compare_and_forget(self, who: int, namespace: str, name: str, which: str) -> None:
        version = self.version(namespace, name, which)
        answer = self.ask(who, namespace, Brain.forget, name, if_version=version)
        if self.holds(namespace, name, version):
            assert answer is None
            self.names(namespace).pop(name, None)
        else:
            self.refused(answer, namespace, name)

    @rule(who=CLIENTS, namespace=NAMESPACES, names=st.lists(NAMES, max_size=4))
    def forget_many(self, who: int, namespace: str, names: list[str]) -> None:
        assert self.ask(who, namespace, Brain.forget_many, names) is None
        for name in names:
            self.names(namespace).pop(name, None)

    @rule(who=CLIENTS, namespace=NAMESPACES, name=NAMES)
    def pop(self, who: int, namespace: str, name: str) -> None:
        answer = self.ask(who, namespace, Brain.pop, name)
        bound = self.names(namespace).pop(name, None)
        if bound is None:
            self.lacks(answer, namespace, name)
            assert self.ask(who, namespace, Brain.pop, name, 5) == 5
        else:
            assert same(answer, bound.value)

    @rule(who=CLIENTS, namespace=NAMESPACES)
    def popitem(self, who: int, namespace: str) -> None:
        answer = self.ask(who, namespace, Brain.popitem)
        names = self.names(namespace)
        if not names:
            self.lacks(answer, namespace, "")
        else:
            first = min(names)
            assert same(answer, (first, names.pop(first).value))

    @rule(who=CLIENTS, namespace=NAMESPACES)
    def clear(self, who: int, namespace: str) -> None:
        assert self.ask(who, namespace, Brain.clear) is None
        self.names(namespace).clear()

    # ---- namespaces

    @rule(who=CLIENTS, namespace=NAMESPACES, ttl=TIMES, sliding=st.booleans(), cache=st.booleans())
    def declare(self, who: int, namespace: str, ttl: float | None, sliding: bool, cache: bool) -> None:
        sliding = sliding and ttl is not None and ttl < math.inf
        assert self.ask(who, namespace, Brain.declare, ttl=ttl, sliding=sliding, cache=cache) is None
        where = self.model.setdefault(namespace, Namespace())
        where.ttl, where.sliding = None if ttl == math.inf else ttl, sliding

    @rule(who=CLIENTS, namespace=NAMESPACES, if_empty=st.booleans())
    def remove_namespace(self, who: int, namespace: str, if_empty: bool) -> None:
        answer = self.ask(who, namespace, Brain.remove_namespace, if_empty=if_empty)
        if namespace not in self.model:
            assert type(answer) is exceptions.NamespaceNotFound, answer
            assert answer.namespace == self.full(namespace)
        elif if_empty and self.names(namespace):
            assert type(answer) is exceptions.NamespaceInUse, answer
            assert answer.names == len(self.names(namespace))
        else:
            assert answer == f"Removed namespace {self.full(namespace)}; the current namespace is default"
            del self.model[namespace]

    # ---- what all clients see, whatever has happened

    @invariant()
    def clients_see_the_model(self) -> None:
        self.turn += 1
        who = self.turn % 3
        prefix = self.full("")
        seen = {name for name in self.ask(who, "first", Brain.namespaces) if name.startswith(prefix)}
        assert seen == {self.full(namespace) for namespace in self.model}
        for namespace, where in self.model.items():
            names, count, known = self.ask(who, namespace, overview)
            assert names == sorted(where.names) == list(known) and count == len(names)
            for name, bound in where.names.items():
                found = known[name]
                assert found["version"] == bound.version
                assert found["description"] == bound.description and found["metadata"] == bound.metadata
                assert found["ttl"] == bound.ttl and found["sliding"] is bound.sliding
                assert (found["expires_at"] is None) is (bound.ttl is None)

    @invariant()
    def what_is_held_stays(self) -> None:
        for found, value in self.held:
            assert same(found, value)


@pytest.fixture
def clients(store: plasmon.Store) -> Iterator[Clients]:
    clients = Clients(store)
    yield clients
    clients.there.end()


def test_any_calls_in_any_order_do_what_a_dictionary_would(clients: Clients) -> None:
    run_state_machine_as_test(
        type("MachineOfThisStore", (Machine,), {"clients": clients}),
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )

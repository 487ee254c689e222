"""What type checkers make of a program that uses the package: mypy and pyright read this file as such a program.

`assert_type` is theirs; the tests see that what comes is of that type indeed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, KeysView, Mapping, MutableMapping
from typing import Any, assert_type

import numpy as np
import plasmon
from plasmon import exceptions
from plasmon.exceptions import NameNotFound


def kinds(value: object) -> str:
    return type(value).__name__


def test_a_brain_is_a_mapping_of_texts_to_anything(brain: plasmon.Brain) -> None:
    mapping: MutableMapping[str, Any] = brain
    mapping["number"] = 7
    assert_type(brain["number"], Any)
    assert_type(brain.keys(), KeysView[str])
    assert_type(dict(brain), dict[str, Any])
    assert_type(brain | {"b": 1}, dict[str, Any])
    assert_type(list(brain), list[str])
    assert_type(len(brain), int)
    assert_type("number" in brain, bool)
    assert_type(brain.popitem(), tuple[str, Any])
    assert list(brain) == []


def test_what_a_store_says_has_its_types(brain: plasmon.Brain) -> None:
    version = brain.learn("number", 7, ttl="1h")
    assert_type(version, int)
    assert_type(brain.learn_many({"a": 1}), int)
    assert_type(brain.learn_many([("a", 1), ("b", "two")]), int)
    assert_type(brain.recall_many(["a", "b"]), dict[str, Any])
    assert_type(brain.wait("number", timeout=0), int)
    assert_type(brain.wait_change("number", version=0, timeout=60), int | None)
    assert_type(brain.names(prefix="n"), list[str])
    assert_type(brain.namespaces(), set[str])
    assert_type(brain.stat("number"), dict[str, Any])
    assert_type(brain.forget("b", if_version=None), None)
    ref = assert_type(brain.ref("number"), plasmon.Ref)
    assert_type(ref.version, int | None)
    assert ref() == 7 and ref.version == version
    (name,) = brain.names(prefix="n")
    assert kinds(name) == "str"


def test_a_memoized_function_keeps_its_signature(brain: plasmon.Brain) -> None:
    @brain.memoize
    def squares(n: int, *, negative: bool = False) -> list[int]:
        return [-(i * i) if negative else i * i for i in range(n)]

    @brain.memoize(ttl=60)
    async def later(n: int) -> str:
        return "x" * n

    assert_type(squares(3, negative=True), list[int])
    as_called: Callable[[int], list[int]] = squares
    assert as_called(3) == [0, 1, 4]
    assert asyncio.run(_typed(later)) == "xx"


async def _typed(later: Callable[[int], Any]) -> str:
    text: str = await later(2)
    return text


def test_what_is_written_in_place_has_its_types(brain: plasmon.Brain) -> None:
    with brain.empty("matrix", (2, 3), "f8") as matrix:
        assert_type(matrix, np.ndarray[Any, Any])
        matrix[:] = 1
    with brain.create("bytes", 3) as view:
        assert_type(view, memoryview)
        view[:] = b"abc"
    assert brain["matrix"].sum() == 6 and bytes(brain["bytes"]) == b"abc"


def test_errors_are_those_that_people_expect(brain: plasmon.Brain) -> None:
    try:
        brain["nothing"]
    except NameNotFound as error:
        as_key_error: KeyError = error
        assert_type(error.name, str)
        assert as_key_error is error and error.name == "nothing"
    try:
        brain.learn("a", 1, if_version=1 << 40)
    except exceptions.ConditionFailed as error:
        assert_type(error.found_version, int | None)
        assert error.found_version is None


def test_a_store_is_a_context_that_connects() -> None:
    def opened() -> Iterator[plasmon.Brain]:
        with plasmon.Store(size="64MB") as store:
            assert_type(store, plasmon.Store)
            assert_type(store.path, str)
            assert_type(store.pid, int)
            with store.connect("types") as brain:
                yield brain

    for brain in opened():
        assert_type(brain, plasmon.Brain)
        assert brain.namespace == "types"


def test_the_past_has_its_types(brain: plasmon.Brain) -> None:
    brain.declare(history=plasmon.History(versions=3, age="7d"))
    version = brain.learn("n", 1)
    brain["n"] = 2
    assert_type(brain.history("n"), list[plasmon.Version])
    assert_type(brain.history("n")[1].ended, float | None)
    assert_type(brain.restore("n", version=version), int)
    label = brain.snapshot()
    assert_type(label, str)
    assert_type(brain.snapshots(), list[plasmon.Snapshot])
    assert_type(brain.diff(label), plasmon.Diff)
    view = brain.view()
    assert_type(view, plasmon.View)
    mapping: Mapping[str, Any] = view
    assert_type(view["n"], Any)
    assert_type(list(view), list[str])
    assert_type(brain.views(), list[plasmon.ViewInfo])
    assert mapping == {"n": 1}
    view.close()
    brain.drop_snapshot(label)

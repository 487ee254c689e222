"""`Brain` as a dictionary, its namespaces, and what the store says of names."""

from __future__ import annotations

import math
import pickle
import threading
import time
from collections.abc import MutableMapping
from typing import Any

import numpy as np
import pandas as pd
import plasmon
import polars as pl
import pyarrow as pa
import pytest
from plasmon import exceptions


def test_a_brain_is_a_mutable_mapping(brain: plasmon.Brain) -> None:
    assert isinstance(brain, MutableMapping)
    brain["b"] = 2
    brain["a"] = 1
    assert list(brain) == ["a", "b"] == sorted(brain.keys())
    assert list(brain.values()) == [1, 2] and dict(brain.items()) == {"a": 1, "b": 2}
    assert len(brain) == 2 and brain
    assert "a" in brain and "c" not in brain and 5 not in brain and "" not in brain  # type: ignore[operator]
    assert brain.get("c") is None and brain.get("c", 7) == 7 and brain.get("a") == 1
    assert brain.setdefault("a", 9) == 1 and brain.setdefault("c", 3) == 3
    assert brain.pop("c") == 3 and brain.pop("c", None) is None
    brain.update({"d": 4}, e=5)
    assert brain.popitem() == ("a", 1)
    del brain["d"]
    for absent in (lambda: brain["d"], lambda: brain.pop("d"), lambda: brain.__delitem__("d")):
        with pytest.raises(plasmon.NameNotFound):
            absent()
    brain.clear()
    assert len(brain) == 0 and list(brain) == []
    with pytest.raises(KeyError):
        brain.popitem()


def test_what_is_gone_already_is_forgotten_without_a_word(brain: plasmon.Brain) -> None:
    brain.update({"a": 1, "b": 2})
    brain.forget_many(["a", "nothing", "a"])  # a name that is said twice as well
    assert list(brain) == ["b"]
    brain.in_namespace(brain.namespace).remove_namespace()
    brain.clear()  # the namespace with all its names
    assert list(brain) == [] and brain.namespace not in brain.namespaces()


def test_unknown_names_are_key_errors_that_say_what_was_asked(brain: plasmon.Brain) -> None:
    for kind in (plasmon.NameNotFound, KeyError, exceptions.BrainNameNotExistError):
        with pytest.raises(kind):
            brain["nothing"]
    with pytest.raises(plasmon.NameNotFound, match='^nothing is bound to "nothing" in namespace') as caught:
        brain.recall("nothing")
    assert (caught.value.name, caught.value.namespace) == ("nothing", brain.namespace)


def test_names_have_their_rule(brain: plasmon.Brain) -> None:
    for name in ("x" * 1024, "\U0001f600", "a\0b", " ", "/"):
        brain[name] = 1
        assert name in brain
    for bad in ("", "x" * 1025, "\ud800"):
        with pytest.raises(exceptions.BadName) as caught:
            brain[bad] = 1
        assert isinstance(caught.value, ValueError)
    for wrong in (1, None, b"a"):
        with pytest.raises(exceptions.BrainNameTypeError) as caught_type:
            brain[wrong] = 1  # type: ignore[index]
        assert isinstance(caught_type.value, TypeError)

    class Name(str):
        __slots__ = ()

    brain[Name("sub")] = 1
    assert brain["sub"] == 1


def test_learn_returns_rising_versions_and_keeps_descriptions(brain: plasmon.Brain) -> None:
    first = brain.learn("a", 1, "a number", metadata={"unit": "EUR", "n": [1, {"x": None}]})
    second = brain.learn("a", 2)
    assert second > first
    known = brain.metadata("a")
    assert known["description"] == "a number" and known["metadata"] == {"unit": "EUR", "n": [1, {"x": None}]}
    brain.learn("a", 3, "", metadata={})
    known = brain.metadata("a")
    assert known["description"] == "" and known["metadata"] == {}
    for bad in ({"a": object()}, {"a": float("nan")}, {"a": (1, 2)}, {1: 2}):
        with pytest.raises(TypeError):
            brain.learn("a", 4, metadata=bad)  # type: ignore[dict-item]
    assert brain["a"] == 3


def test_conditions_make_compare_and_set(brain: plasmon.Brain) -> None:
    version = brain.learn("a", 1, if_absent=True)
    with pytest.raises(plasmon.ConditionFailed) as caught:
        brain.learn("a", 2, if_absent=True)
    assert caught.value.found_version == version
    brain.learn("a", 3, if_version=version)
    with pytest.raises(plasmon.ConditionFailed):
        brain.learn("a", 4, if_version=version)
    with pytest.raises(plasmon.ConditionFailed):
        brain.forget("a", if_version=version)
    with pytest.raises(ValueError):
        brain.learn("a", 4, if_version=version, if_absent=True)
    for version in (-1, 1 << 64):
        with pytest.raises(ValueError, match="a version is a number from 0"):
            brain.learn("a", 4, if_version=version)
        with pytest.raises(ValueError, match="a version is a number from 0"):
            brain.forget("a", if_version=version)
    assert brain["a"] == 3


def test_many_names_change_at_one_moment(brain: plasmon.Brain) -> None:
    names = [f"n{i:03}" for i in range(300)]
    version = brain.learn_many({name: i for i, name in enumerate(names)})
    assert {entry["version"] for entry in brain.metadata(output="list")} == {version}
    assert brain.recall_many(names) == {name: i for i, name in enumerate(names)}
    assert brain.recall_many(["n000", "nothing"], missing_ok=True) == {"n000": 0}
    with pytest.raises(plasmon.NameNotFound):
        brain.recall_many(["n000", "nothing"])
    with pytest.raises(plasmon.NotStorable):
        brain.learn_many({"n000": "new", "bad": (n for n in ())})
    assert brain["n000"] == 0 and "bad" not in brain
    with pytest.raises(TypeError):
        brain.learn_many(5)  # type: ignore[arg-type]
    brain.learn_many([("n000", 1), ("n001", [2, None]), ("n000", {3, 4})])
    assert brain.recall_many(["n000", "n001"]) == {"n000": {3, 4}, "n001": [2, None]}
    brain.learn_many({"strided": np.arange(100)[::2], "table": pa.table({"a": [1]})})
    assert brain["strided"].sum() == np.arange(100)[::2].sum()
    brain.forget_many([*names, "nothing"])
    assert brain.names() == ["strided", "table"]


def test_recall_waits_for_a_name(brain: plasmon.Brain) -> None:
    with pytest.raises(plasmon.WaitTimeout) as caught:
        brain.recall("later", timeout=0.05)
    assert isinstance(caught.value, TimeoutError) and "0.05 seconds" in str(caught.value)
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(brain.recall("later", timeout=60)))
    waiting.start()
    while brain.stats()["waits"] == 0:
        pass
    version = brain.learn("later", [1, 2])
    waiting.join()
    assert found == [[1, 2]]
    assert brain.wait("later", timeout=60) == version
    with pytest.raises(plasmon.WaitTimeout):
        brain.wait("later", after=version, timeout=0)
    with pytest.raises(ValueError):
        brain.recall("later", timeout=-1)


def test_forget_and_del_differ_on_unknown_names(brain: plasmon.Brain) -> None:
    brain.forget("nothing")
    with pytest.raises(KeyError):
        brain.forget("nothing", missing_ok=False)
    brain["a"] = 1
    brain.forget("a")
    assert not brain.exists("a")


def test_namespaces_are_separate(store: plasmon.Store, brain: plasmon.Brain) -> None:
    other = brain.in_namespace("other-one")
    brain["this"] = 1
    other["this"] = 2
    assert (brain["this"], other["this"], brain.recall("this", namespace="other-one")) == (1, 2, 2)
    assert sorted(brain.names("all")).count("this") == 2 == brain.names(namespaces="all").count("this")
    assert brain.names("other-one") == ["this"] and brain.names(prefix="t", match="*is") == ["this"]
    assert {"default", "other-one", brain.namespace} <= brain.namespaces()
    with pytest.raises(plasmon.NamespaceNotFound):
        brain.names("nowhere")
    with pytest.raises(exceptions.BrainNamespaceNotExistError):
        brain.remove_namespace("nowhere")
    held = other.learn("held", np.arange(1000)) and other["held"]
    here = brain.namespace
    assert brain.remove_namespace("other-one") == f"Removed namespace other-one; the current namespace is {here}"
    assert held.sum() == np.arange(1000).sum() and brain.namespace == here
    assert list(other) == [] and len(other) == 0
    other["again"] = 1
    assert "other-one" in brain.namespaces()
    other.remove_namespace()
    assert other.namespace == "default"
    with pytest.raises(exceptions.BrainNamespaceRemoveDefaultError):
        other.remove_namespace()


def test_set_namespace_registers_and_returns(brain: plasmon.Brain) -> None:
    before = brain.namespace
    assert brain.set_namespace() == before
    assert brain.set_namespace("newly-made") == "newly-made" == brain.namespace
    assert "newly-made" in brain.namespaces()
    brain.remove_namespace()
    for bad in ("four", "x" * 65, "with space", ""):
        with pytest.raises(exceptions.BrainNamespaceNameError):
            brain.set_namespace(bad)
    with pytest.raises(TypeError):
        brain.set_namespace(5)  # type: ignore[arg-type]
    with pytest.raises(exceptions.BrainNamespaceNameError):
        plasmon.Brain(brain.path, "four")


def test_what_the_store_knows_of_names(brain: plasmon.Brain) -> None:
    brain.learn("a", np.zeros(100_000), "zeros")
    brain["b"] = "text"
    known = brain.metadata("a")
    assert (known["name"], known["namespace"], known["description"]) == ("a", brain.namespace, "zeros")
    assert known["kind"] == "tensor" and known["size"] > 800_000
    assert known["value_id"] == brain.object_id("a").binary() and len(known["metadata_id"]) == 32
    assert known["value_id"].startswith(brain.namespace.encode())
    assert brain.metadata("nothing") is None and brain.object_id("nothing") is None
    assert list(brain.metadata()) == ["a", "b"] == [entry["name"] for entry in brain.metadata(output="list")]
    assert brain.metadata("b", "nothing") == {"b": brain.metadata("b"), "nothing": None}
    assert brain.metadata("b", "nothing", output="list") == [brain.metadata("b"), None]
    with pytest.raises(TypeError):
        brain.metadata(output="int")  # type: ignore[arg-type]
    assert brain.object_ids() == {"a": brain.object_id("a"), "b": brain.object_id("b")}
    assert brain.ids() == [brain.object_id("a"), brain.object_id("b")]
    held = brain["a"]
    stat = brain.stat("a")
    assert [pin["name"] for pin in stat["held_by"]] == [f"{brain.namespace}/a"]
    assert any(pin["name"] == f"{brain.namespace}/a" for pin in brain.pins())
    del held
    with pytest.raises(plasmon.NameNotFound):
        brain.stat("nothing")


def test_sizes_add_up(brain: plasmon.Brain) -> None:
    assert brain.size() == brain.bytes == 512_000_000 and brain.mb == "512 MB"
    assert brain.used() + brain.free() == brain.size()
    before = brain.used()
    brain["a"] = bytes(1_000_000)
    assert 1_000_000 <= brain.used() - before < 1_200_000
    brain.forget("a")
    assert brain.used() == before


def test_recall_as_something_else(brain: plasmon.Brain) -> None:
    frame = pd.DataFrame({"a": [1.5, 2.5], "b": pd.array(["x", None], "str")})
    brain["frame"] = frame
    arrow = brain.recall("frame", as_="arrow")
    assert isinstance(arrow, pa.Table) and arrow.column_names == ["a", "b"]
    assert isinstance(brain.recall("frame", as_="polars"), pl.DataFrame)
    assert brain.recall("frame", as_="polars", columns=["b"]).columns == ["b"]
    assert brain.recall("frame", as_="arrow", columns=["b"]).column_names == ["b"]
    pd.testing.assert_frame_equal(brain.recall("frame", columns=["a"]), frame[["a"]])
    pd.testing.assert_frame_equal(brain.recall("frame", as_="pandas"), frame)
    assert brain.recall("frame", as_="numpy")["a"].tolist() == [1.5, 2.5]
    brain["table"] = pa.table({"n": [1, 2]})
    assert brain.recall("table", as_="pandas")["n"].tolist() == [1, 2]
    for value in (5, "text", b"bytes", [1, 2], None, True, 2.5, np.arange(3)):
        brain["plain"] = value
        assert brain.recall("plain", as_="arrow").num_rows >= 1
    brain["bytes"] = bytes(range(256)) * 1000
    view = brain.recall("bytes", as_="buffer")
    assert isinstance(view, memoryview) and view.readonly and view == bytes(range(256)) * 1000
    with pytest.raises(exceptions.WrongKind):
        brain.recall("table", as_="buffer")
    with pytest.raises(ValueError):
        brain.recall("table", as_="csv")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        brain.recall("bytes", columns=["a"])


def test_writing_in_place(brain: plasmon.Brain) -> None:
    with brain.create("image", 100_000, description="pixels") as buffer:
        array = np.frombuffer(buffer, "u1")
        buffer[:] = b"\7" * 100_000
        assert "image" not in brain
    assert (brain["image"] == b"\7" * 100_000) and isinstance(brain["image"], memoryview)
    assert brain.metadata("image")["description"] == "pixels"
    brain.forget("image")
    brain["other"] = bytes(100_000)
    assert array.min() == array.max() == 7  # the view goes on reading, and its memory is not used again
    with pytest.raises(ZeroDivisionError), brain.create("never", 100_000) as buffer:
        1 / 0  # noqa: B018
    assert "never" not in brain
    for order in "CF":
        with brain.empty("array", (3, 4), "f4", order=order) as filled:  # type: ignore[arg-type]
            filled[...] = np.arange(12).reshape(3, 4)
        found = brain["array"]
        assert found.flags[f"{order}_CONTIGUOUS"] and found.tolist() == np.arange(12.0).reshape(3, 4).tolist()
        with pytest.raises(ValueError):
            filled[0, 0] = 1
    with pytest.raises(TypeError):
        brain.empty("no", 3, object)
    schema = pa.schema([("n", pa.int64()), ("t", pa.string())])
    with brain.writer("table", schema) as writer:
        assert writer.write(pa.record_batch({"n": [1], "t": ["a"]}, schema=schema)) == 1
        assert writer.write(pa.table({"n": [2, 3], "t": ["b", None]}, schema=schema)) == 3
        with pytest.raises(plasmon.NotStorable):
            writer.write(pa.table({"x": [1]}))
    assert brain["table"].to_pydict() == {"n": [1, 2, 3], "t": ["a", "b", None]}
    with pytest.raises(exceptions.WriterClosed):
        writer.seal()
    with pytest.raises(ZeroDivisionError), brain.writer("never", schema):
        1 / 0  # noqa: B018
    del array, buffer, filled, found
    brain.clear()
    assert brain.stats()["leases"] <= 1


def test_sleep_and_wake_up(store: plasmon.Store) -> None:
    brain = store.connect("sleepy")
    brain["a"] = np.arange(1000)
    held = brain["a"]
    brain.sleep()
    brain.sleep()
    calls: list[Any] = [
        lambda: brain["a"], lambda: brain.learn("b", 1), brain.names, brain.size, lambda: "a" in brain, lambda: len(brain),
        lambda: brain.recall("a", timeout=1), brain.clear, brain.stats,
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(exceptions.BrainClientDisconnectedError):
            call()
    assert held.sum() == np.arange(1000).sum() and "asleep" in repr(brain)
    brain.wake_up()
    assert brain["a"].sum() == held.sum() and brain.namespace == "sleepy"
    with brain:
        assert "a" in brain
    with pytest.raises(ConnectionError):
        brain["a"]
    brain.wake_up()
    brain.remove_namespace()


def test_a_pickled_brain_is_a_reference(brain: plasmon.Brain) -> None:
    brain["a"] = 1
    again = pickle.loads(pickle.dumps(brain))
    assert again == brain and hash(again) == hash(brain) and again["a"] == 1
    assert again.namespace == brain.namespace and repr(again) == repr(brain)
    brain["brain"] = brain
    assert brain["brain"] == brain


def test_a_notebook_sees_names_and_room(brain: plasmon.Brain) -> None:
    brain["<b>name</b>"] = np.zeros((10, 3))
    brain["frame"] = pd.DataFrame({"a": [1.5, 2.5]}, index=["x", "y"])
    html = brain._repr_html_()
    assert ">(10, 3)</td>" in html and ">(2, 1)</td>" in html
    assert (brain.stat("frame")["shape"], brain.stat("<b>name</b>")["shape"]) == ((2, 1), (10, 3))
    assert "&lt;b&gt;name" in html and "<b>name" not in html and "tensor" in html


def test_without_a_store_the_error_says_what_to_type(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(plasmon.StoreUnavailable, match="plasmon-store --size 1GiB --socket") as caught:
        plasmon.Brain(str(tmp_path / "no.sock"))
    assert isinstance(caught.value, ConnectionError) and str(tmp_path) in str(caught.value)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("PLASMON_SOCKET", raising=False)
    try:
        plasmon.Brain()
    except plasmon.StoreUnavailable as error:
        assert "plasmon-store --size 1GiB" in str(error)


def test_exceptions_are_what_people_expect() -> None:
    pairs = [
        ("NameNotFound", KeyError), ("WaitTimeout", TimeoutError), ("StoreUnavailable", ConnectionError),
        ("StoreFull", MemoryError), ("BadName", ValueError), ("BadNamespace", ValueError), ("NotStorable", TypeError),
        ("NameTypeError", TypeError), ("ClientAsleep", ConnectionError), ("BrainError", Exception),
        ("BrainNameNotExistError", KeyError), ("BrainNamespaceNameError", ValueError), ("BrainNameTypeError", TypeError),
        ("BrainNamespaceNotExistError", KeyError), ("BrainNamespaceRemoveDefaultError", ValueError),
        ("BrainLearnNameError", Exception), ("BrainUpdateNameError", Exception), ("BrainNameLengthError", ValueError),
        ("BrainRemoveOldNameValueError", Exception), ("BrainClientDisconnectedError", ConnectionError),
    ]  # fmt: skip
    for name, builtin in pairs:
        kind = getattr(exceptions, name)
        assert issubclass(kind, builtin) and issubclass(kind, exceptions.BrainError), name
    for kind in (exceptions.NotStorable, exceptions.StoreFull):
        assert issubclass(kind, exceptions.BrainLearnNameError) and issubclass(kind, exceptions.BrainUpdateNameError)


# ---- time to live, and what is declared


def _gone(brain: plasmon.Brain, name: str) -> None:
    deadline = time.monotonic() + 30
    while brain.exists(name):
        assert time.monotonic() < deadline


def test_what_has_expired_is_absent_by_every_way_of_looking(brain: plasmon.Brain) -> None:
    before = brain.stats()["expired"]
    brain.learn("a", [1, 2], ttl=0.05)
    brain.learn_many({"b": 1, "c": np.arange(100_000)}, ttl=0.05)
    with brain.create("d", 100_000, ttl=0.05) as buffer:
        buffer[:3] = b"abc"
    with brain.empty("e", 3, ttl=0.05) as array:
        array[:] = 0
    with brain.writer("f", pa.schema([("n", pa.int64())]), ttl=0.05) as writer:
        writer.write(pa.record_batch({"n": [1]}))
    brain.learn("strided", np.arange(100_000)[::2], ttl=0.05)
    for name in ("a", "b", "c", "d", "e", "f", "strided"):
        _gone(brain, name)
    assert (len(brain), brain.names(), brain.metadata("a"), "a" in brain) == (0, [], None, False)
    with pytest.raises(KeyError):
        brain["a"]
    assert brain.learn("a", 2, if_absent=True) > 0
    assert brain.stats()["expired"] - before == 7


def test_a_ttl_is_shown_and_rebinding_replaces_it(brain: plasmon.Brain) -> None:
    brain.learn("a", 1, ttl=3600)
    known = brain.stat("a")
    assert (known["ttl"], known["sliding"]) == (3600.0, False)
    assert 3500 < known["expires_at"] - known["created"] < 3700
    brain.learn("a", 1, ttl=60, sliding=True)
    known = brain.stat("a")
    assert (known["ttl"], known["sliding"]) == (60.0, True)
    for endless in (None, math.inf, 1e300):
        brain.learn("a", 1, ttl=endless)
        known = brain.stat("a")
        assert (known["ttl"], known["sliding"], known["expires_at"]) == (None, False, None)


@pytest.mark.parametrize("ttl", [0, -1, math.nan, -math.inf, 1e-12])
def test_a_ttl_that_is_none_is_refused(brain: plasmon.Brain, ttl: float) -> None:
    with pytest.raises(ValueError, match="ttl"):
        brain.learn("a", 1, ttl=ttl)
    with pytest.raises(ValueError, match="ttl"):
        brain.learn_many({"a": 1}, ttl=ttl)
    with pytest.raises(ValueError, match="ttl"):
        brain.declare(ttl=ttl)
    with pytest.raises(ValueError, match="ttl"), brain.create("a", 1, ttl=ttl):
        pass
    with pytest.raises(ValueError, match="sliding"):
        brain.learn("a", 1, sliding=True)
    assert "a" not in brain


def test_a_namespace_declares_a_ttl(brain: plasmon.Brain) -> None:
    results = brain.in_namespace("results")
    results.declare(cache=True, ttl=3600, sliding=True)
    results.learn("a", 1)
    results.learn("b", 1, ttl=math.inf)
    assert (results.stat("a")["ttl"], results.stat("a")["sliding"], results.stat("b")["ttl"]) == (3600.0, True, None)
    results.declare(cache=False)
    results.learn("a", 1)
    assert results.stat("a")["ttl"] == 3600.0, "what is not named stays"
    results.declare(ttl=None)
    results.learn("a", 1)
    assert results.stat("a")["ttl"] is None


def test_a_cache_takes_more_than_it_holds_and_nothing_else_gives_way() -> None:
    with plasmon.Store(size="16MB") as store:
        cache, plain = store.connect("a-cache"), store.connect()
        cache.declare(cache=True)
        plain["kept"] = np.zeros(100_000)
        held = cache.learn("held", np.ones(100_000)) and cache["held"]
        for number in range(40):
            cache[str(number)] = np.full(100_000, number)
        stats = store.connect().stats()
        assert stats["evicted"] > 20 and stats["evicted_bytes"] > stats["evicted"] * 800_000
        assert "39" in cache and "0" not in cache and "held" in cache and "kept" in plain
        assert held.sum() == 100_000 and (cache["39"] == 39).all()
        with pytest.raises(plasmon.StoreFull) as caught:
            plain["too large"] = np.zeros(2_000_000)
        assert caught.value.cached_bytes > 8_000_000
        refused = {"reason": "store_full", "namespace": None, "learns": 1}  # asked for in advance
        assert (plain.stats()["refused_learns"], plain.stats()["refusals"]) == (1, [refused])


def test_what_is_asked_wrongly_is_refused_by_the_name_of_the_argument(brain: plasmon.Brain) -> None:
    brain.update(a=1, frame=pd.DataFrame({"a": [1]}))
    for ask, kind, word in [
        (lambda: brain.recall_many("a"), exceptions.NameTypeError, "names"),
        (lambda: brain.forget_many("a"), exceptions.NameTypeError, "names"),
        (lambda: brain.recall("frame", columns="a"), TypeError, "columns"),
        (lambda: brain.learn("a", 1, description=5), exceptions.MetadataTypeError, "description"),
        (lambda: brain.learn("a", 1, metadata=5), exceptions.MetadataTypeError, "metadata"),
        (lambda: brain.create("a", -1), ValueError, "nbytes"),
        (lambda: brain.empty("a", (2, -1)), ValueError, "dimension"),
        (lambda: brain.empty("a", 2, order="K"), ValueError, "order"),
    ]:
        with pytest.raises(kind, match=word):
            ask()
    with brain.writer("table", pa.schema([("a", pa.int64())])) as writer:
        with pytest.raises(plasmon.NotStorable, match="int: 5"):
            writer.write(5)
    assert brain["a"] == 1 and brain["table"].num_rows == 0

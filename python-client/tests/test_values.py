"""A value comes back equal and of the same type, or it is refused and nothing changes."""

from __future__ import annotations

import dataclasses
import math
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import plasmon
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from values import CASES, OWN_CLASSES, Case, Own, OwnScalar, OwnTimestamp


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal and of the same types, all the way down."""
    if type(a) is not type(b):
        return False
    if a is pd.NA or a is pd.NaT:
        return a is b
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, np.ndarray):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        if isinstance(a, np.ma.MaskedArray):
            return same(a.filled(0), b.filled(0)) and same(np.ma.getmaskarray(a), np.ma.getmaskarray(b))
        if a.dtype.hasobject:
            return all(map(same, a.ravel(), b.ravel()))
        return a.tobytes() == b.tobytes() or bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fcmM"))
    if isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b, check_exact=True, check_freq=True)
        return a.attrs == b.attrs and type(a.columns) is type(b.columns) and same(a.index, b.index)
    if isinstance(a, pd.Series):
        pd.testing.assert_series_equal(a, b, check_exact=True)
        return same(a.index, b.index)
    if isinstance(a, pd.Index):
        pd.testing.assert_index_equal(a, b, exact=True)
        return repr(getattr(a, "tz", None)) == repr(getattr(b, "tz", None))
    if isinstance(a, pl.DataFrame | pl.Series):
        schemas = (a.schema == b.schema) if isinstance(a, pl.DataFrame) else (a.name, a.dtype) == (b.name, b.dtype)
        return a.equals(b) and a.shape == b.shape and schemas
    if isinstance(a, pa.Table | pa.RecordBatch):
        return a.equals(b, check_metadata=True) and a.shape == b.shape
    if isinstance(a, pa.Array | pa.ChunkedArray):
        return a.equals(b) and a.type == b.type
    if isinstance(a, pa.Tensor):
        return a.equals(b) and (a.dim_names, a.strides) == (b.dim_names, b.strides)
    if isinstance(a, dict):
        return [*a] == [*b] and all(same(x, y) for x, y in zip([*a, *a.values()], [*b, *b.values()], strict=True))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        return same(vars(a), vars(b))
    if hasattr(a, "todense"):
        return same(a.toarray(), b.toarray())
    return bool(a == b)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.group}-{case.label}".replace(" ", "_"))
def test_every_value_comes_back_equal_and_of_the_same_type(brain: plasmon.Brain, case: Case) -> None:
    brain["value"] = case.value
    assert same(brain["value"], case.value)
    assert brain.metadata("value")["kind"] == case.kind
    assert same(brain.recall("value", copy=True), case.value)


@pytest.mark.parametrize("own", OWN_CLASSES, ids=lambda own: type(own.value).__name__)
def test_a_value_of_ones_own_class_comes_back_as_that(brain: plasmon.Brain, own: Own) -> None:
    """A form is chosen for exact types: whatever a class can be read as, it is not that."""
    brain["value"] = own.value
    brain["nested"] = {"value": [own.value]}
    for found in (brain["value"], brain.recall("value", copy=True), brain["nested"]["value"][0]):
        assert same(found, own.value)
        assert [getattr(found, name) for name in own.attributes] == [
            getattr(own.value, name) for name in own.attributes
        ]


def test_streams_and_queries_come_back_as_the_table_that_they_gave(brain: plasmon.Brain) -> None:
    table = pa.table({"a": [1, 2]})
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    for source in (
        table.to_reader(),
        pa.ipc.open_stream(stream.getvalue()),
        duckdb.sql("SELECT * FROM (VALUES (1::BIGINT), (2)) AS t(a)"),
    ):
        brain["value"] = source
        assert brain["value"].equals(table)


def test_what_neither_pickles_nor_has_a_form_is_refused_with_the_way_to_its_rows(brain: plasmon.Brain) -> None:
    class Query:
        """A stream of Arrow that nobody can make again elsewhere."""

        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
            return pa.table({"v": [1]}).__arrow_c_stream__(requested_schema)

        def __reduce__(self) -> Any:
            raise TypeError("cannot pickle Query")

    with pytest.raises(plasmon.NotStorable, match=r"Query.*pyarrow\.table\(value\)"):
        brain["value"] = Query()
    brain["value"] = pa.table(Query())
    assert brain["value"].to_pydict() == {"v": [1]}


@pytest.mark.parametrize("value", [OwnScalar(1.5), OwnTimestamp("2024-02-29")], ids=lambda value: type(value).__name__)
def test_what_pickles_as_another_class_is_refused(brain: plasmon.Brain, value: Any) -> None:
    if type(pickle.loads(pickle.dumps(value, 5))) is type(value):
        brain["value"] = value
        assert same(brain["value"], value)
        return
    with pytest.raises(plasmon.NotStorable, match="it pickles as"):
        brain["value"] = value
    assert "value" not in brain


@pytest.mark.parametrize(
    "series",
    [
        pl.Series("a", [object()], dtype=pl.Object),
        pl.Series("a", [object()], dtype=pl.Object).slice(1),
        pl.Series("a", [[], []], dtype=pl.Array(pl.Int8, 0)),
    ],
    ids=["objects", "no objects", "arrays of nothing"],
)
def test_what_polars_itself_cannot_write_or_read_is_refused(brain: plasmon.Brain, series: pl.Series) -> None:
    for value in (series, series.to_frame()):
        with pytest.raises(plasmon.NotStorable, match="polars"):
            brain["value"] = value
    assert "value" not in brain


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=JSON_LIKE)
def test_nested_values_of_every_plain_type_survive(brain: plasmon.Brain, value: Any) -> None:
    brain["value"] = value
    assert same(brain["value"], value)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(["bool", "i1", "u2", "f2", "f4", "f8", "c16", "M8[s]", "m8[D]", ">i4", "U3", "S2"]),
    shape=st.lists(st.integers(0, 5), max_size=4),
    order=st.sampled_from("CF"),
    reverse=st.booleans(),
    data=st.data(),
)
def test_arrays_of_every_dtype_and_layout_survive(
    brain: plasmon.Brain, dtype: str, shape: list[int], order: Any, reverse: bool, data: st.DataObject
) -> None:
    nbytes = np.dtype(dtype).itemsize * math.prod(shape)
    raw = data.draw(st.binary(min_size=nbytes, max_size=nbytes)) if dtype[0] not in "b>US" else b"\0" * nbytes
    array = np.array(np.ndarray(shape, dtype, raw), order=order)
    array = array[::-1] if reverse and array.ndim else array
    brain["value"] = array
    found = brain["value"]
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_frames_of_every_column_survive(brain: plasmon.Brain, data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 4))

    def column(elements: st.SearchStrategy[Any]) -> list[Any]:
        return data.draw(st.lists(elements, min_size=rows, max_size=rows))

    times = st.integers(-(2**62), 2**62).map(np.int64)
    makers = {
        "float": lambda: np.array(column(st.floats()), "f8"),
        "int": lambda: np.array(column(st.integers(-5, 5)), "i2"),
        "bool": lambda: np.array(column(st.booleans()), bool),
        "text": lambda: pd.array(column(st.none() | st.text(st.characters(exclude_categories=["Cs"]))), dtype="str"),
        "time": lambda: np.array(column(times), "i8").view("M8[ns]"),
        "nat": lambda: pd.array(column(st.none()), dtype="M8[us]"),
        "category": lambda: pd.Categorical(column(st.none() | st.sampled_from("ab"))),
        "object": lambda: np.array([*column(JSON_LIKE), None], object)[:-1],
        "nullable": lambda: pd.array(column(st.none() | st.integers(-5, 5)), dtype="Int32"),
    }
    chosen = data.draw(st.lists(st.sampled_from(sorted(makers)), max_size=4))
    frame = pd.DataFrame({at: makers[name]() for at, name in enumerate(chosen)}, index=range(rows))
    frame.columns = pd.Index([f"{name}" for name in chosen], dtype="str")
    brain["value"] = frame
    found = brain["value"]
    assert list(found.dtypes) == list(frame.dtypes)
    for at in range(len(chosen)):
        assert same(list(found.iloc[:, at]), list(frame.iloc[:, at])) or found.iloc[:, at].equals(frame.iloc[:, at])


@pytest.mark.parametrize(
    ("value", "name"),
    [((n for n in ()), "generator"), (open("/dev/null"), "TextIOWrapper"), (memoryview, None)],  # noqa: SIM115
    ids=["generator", "file", "type"],
)
def test_what_cannot_be_stored_is_named_and_changes_nothing(brain: plasmon.Brain, value: Any, name: str | None) -> None:
    if name is None:
        brain["value"] = value
        assert brain["value"] is value
        return
    brain["value"] = "old"
    before = brain.used(), brain.names(), brain.metadata("value")
    with pytest.raises(plasmon.NotStorable, match=name) as caught:
        brain["value"] = value
    assert isinstance(caught.value, TypeError)
    for new in ("value", "new"):
        with pytest.raises((plasmon.exceptions.BrainLearnNameError, plasmon.exceptions.BrainUpdateNameError)):
            brain[new] = [value]
    assert (brain.used(), brain.names(), brain.metadata("value")) == before
    assert brain["value"] == "old"


def test_a_value_larger_than_the_store_is_refused_with_the_four_numbers(brain: plasmon.Brain) -> None:
    brain["value"] = "old"
    before = brain.used()
    with pytest.raises(plasmon.StoreFull) as caught:
        brain["value"] = np.zeros(brain.size(), "u1")
    full = caught.value
    assert isinstance(full, MemoryError)
    assert full.requested_bytes > full.capacity_bytes == brain.size()
    for number in (full.requested_bytes, full.capacity_bytes, full.used_bytes, full.largest_free_bytes):
        assert str(number) in str(full)
    assert (brain["value"], brain.used()) == ("old", before)


def test_an_object_whose_own_code_fails_is_refused_with_its_cause(brain: plasmon.Brain) -> None:
    class Refuses:
        def __reduce__(self) -> Any:
            raise RuntimeError("not me")

    with pytest.raises(plasmon.NotStorable, match="not me") as caught:
        brain["value"] = Refuses()
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert "value" not in brain


def test_recursive_values_survive(brain: plasmon.Brain) -> None:
    value: list[Any] = [1]
    value.append(value)
    brain["value"] = value
    found = brain["value"]
    assert found[0] == 1 and found[1] is found


def test_a_list_at_two_places_is_one_list(brain: plasmon.Brain) -> None:
    shared = [1]
    brain["value"] = {"a": shared, "b": [shared]}
    found = brain["value"]
    assert found == {"a": [1], "b": [[1]]} and found["a"] is found["b"][0]
    bomb: list[Any] = []
    for _ in range(100):
        bomb = [bomb, bomb]
    brain["value"] = bomb
    assert brain.metadata("value")["size"] < 10_000
    found = brain["value"]
    assert found[0] is found[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_a_pickle_of_another_user_is_not_unpickled() -> None:
    other = 54_321
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    path = directory / "store.sock"
    with plasmon.Store(size="64MB", path=path, options=["--allow-uid", str(other)]):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setresgid(other, other, other)
                os.setresuid(other, other, other)
                theirs = plasmon.Brain(path)
                theirs.learn_many({"pickle": {1, 2}, "text": "fine", "array": np.arange(3)})
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        brain = plasmon.Brain(path)
        assert brain.metadata("pickle")["owner"] == other
        with pytest.raises(plasmon.UntrustedPickle, match=rf"uid {other} .*trust=\[{other}\]") as caught:
            brain["pickle"]
        assert isinstance(caught.value, PermissionError)
        assert brain["text"] == "fine" and brain["array"].sum() == 3
        assert pickle.loads(brain.recall("pickle", as_="buffer")) == {1, 2}
        assert plasmon.Brain(path, trust=[other])["pickle"] == {1, 2}
    directory.rmdir()


def test_exceptions_survive_pickling(brain: plasmon.Brain) -> None:
    with pytest.raises(plasmon.NameNotFound) as caught:
        brain["nothing"]
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is plasmon.NameNotFound
    assert (again.name, again.namespace, str(again)) == ("nothing", brain.namespace, str(caught.value))

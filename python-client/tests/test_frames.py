"""Frames of pandas lie in the store as pandas has them: block by block, and to all other readers column by column."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plasmon
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

DTYPES = ["bool", "i1", "u2", "i4", "i8", "u8", "f2", "f4", "f8", "M8[s]", "M8[ns]", "m8[us]", "object", "str", "tz"]


def blocks(frame: pd.DataFrame) -> list[tuple[str, list[int]]]:
    """Dtype and columns of each block."""
    return sorted((str(block.dtype), block.mgr_locs.as_array.tolist()) for block in frame._mgr.blocks)


def bits(values: Any) -> Any:
    """Values such that those which are equal have the same bits."""
    values = np.asarray(values)
    if values.dtype.kind in "fmM":
        return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}").tolist()
    return [repr(value) for value in values.tolist()]


def command(store: plasmon.Store, brain: plasmon.Brain, *arguments: str) -> str:
    """What the command line writes."""
    line = [sys.executable, "-m", "plasmon", "--socket", store.path, "--namespace", brain.namespace, *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=True, timeout=60).stdout


@st.composite
def matrices(draw: st.DrawFn, rows: int) -> Any:
    """A block: some columns of one dtype, in either order, with strides, with missing values or without."""
    dtype, columns = draw(st.sampled_from(DTYPES)), draw(st.integers(1, 4))
    cells = rows * columns
    if dtype in ("object", "str"):
        texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
        cell = st.one_of(texts, st.none(), st.sampled_from([np.nan, pd.NA])) if dtype == "object" else texts | st.none()
        values = draw(st.lists(cell, min_size=cells, max_size=cells))
        if dtype == "str":
            return [pd.array(values[rows * at : rows * (at + 1)], dtype="str") for at in range(columns)]
        matrix = np.empty(cells, object)
        matrix[:] = values
        return matrix.reshape(rows, columns)
    if dtype == "tz":
        ticks = draw(st.lists(st.integers(0, 10**9) | st.none(), min_size=cells, max_size=cells))
        column = pd.to_datetime(pd.Series(ticks, dtype="Int64"), unit="s", utc=True)
        return [column[rows * at : rows * (at + 1)].array for at in range(columns)]
    made = np.dtype(dtype)
    if made.kind == "b":
        matrix = np.array(draw(st.lists(st.booleans(), min_size=cells, max_size=cells)), bool)
    else:
        raw = draw(st.binary(min_size=cells * made.itemsize, max_size=cells * made.itemsize))
        matrix = np.frombuffer(raw, f"u{made.itemsize}").copy().view(dtype)
        missing = {"f": np.nan, "M": np.datetime64("NaT"), "m": np.timedelta64("NaT")}.get(made.kind)
        if missing is not None and draw(st.booleans()):
            matrix[draw(st.lists(st.integers(0, cells - 1), max_size=3)) if cells else []] = missing
    matrix = matrix.reshape((rows, columns), order=draw(st.sampled_from("CF")))
    return matrix[::-1] if draw(st.booleans()) else matrix


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    """A frame of some blocks, with labels and an index of some kind."""
    rows = draw(st.sampled_from([0, 1, 2, 7, 8, 9, 63, 64, 65, 70]))
    made = draw(st.lists(matrices(rows), min_size=1, max_size=4))
    parts = [
        pd.DataFrame(it, copy=False) if isinstance(it, np.ndarray) else pd.DataFrame(dict(enumerate(it)), copy=False)
        for it in made
    ]
    frame = pd.concat(parts, axis=1) if len(parts) > 1 else parts[0]
    if draw(st.booleans()):
        frame = frame.iloc[:, draw(st.permutations(range(frame.shape[1])))]
    width = frame.shape[1]
    labels: Any = draw(
        st.sampled_from(
            [
                pd.RangeIndex(width),
                pd.RangeIndex(3, 3 + 2 * width, 2, name="n"),
                pd.Index([f"c{at}" for at in range(width)], dtype="str", name="names"),
                pd.Index([f"ü{at}" for at in range(width)], dtype=object),
                pd.Index(["twice"] * width),
                pd.Index(np.arange(width)[::-1] * 7),
                pd.Index([at if at % 2 else str(at) for at in range(width)], dtype=object),
            ]
        )
    )
    index: Any = draw(
        st.sampled_from(
            [
                pd.RangeIndex(rows),
                pd.RangeIndex(5, 5 + 3 * rows, 3, name="r"),
                pd.Index(np.linspace(0, 1, rows), name="x"),
                pd.Index([f"row {at}" for at in range(rows)]),
                pd.Index([None if at == 3 else f"row {at}" for at in range(rows)], dtype=object),
                pd.DatetimeIndex(np.arange(rows).astype("M8[s]"), freq=None),
                pd.Index(np.where(np.arange(rows) == 2, np.nan, 1.5)),
            ]
        )
    )
    return frame.set_axis(labels, axis=1).set_axis(index, axis=0)


@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(frame=frames())
def test_a_frame_of_any_shape_comes_back_exactly_and_its_columns_say_the_same(
    brain: plasmon.Brain, frame: pd.DataFrame
) -> None:
    brain["frame"] = frame
    for found in (brain["frame"], brain.recall("frame", copy=True)):
        pd.testing.assert_frame_equal(
            found, frame, check_exact=True, check_column_type="exact", check_index_type="exact"
        )
        assert type(found.columns) is type(frame.columns) and found.columns.dtype == frame.columns.dtype
        for at in range(frame.shape[1]):
            assert bits(found.iloc[:, at]) == bits(frame.iloc[:, at])
        assert bits(found.index) == bits(frame.index)
    assert blocks(brain["frame"]) == blocks(frame)
    if brain.metadata("frame")["kind"] != "table":
        return
    table = brain.recall("frame", as_="arrow")
    table.validate(full=True)
    assert table.column_names[: frame.shape[1]] == [str(label) for label in frame.columns]
    polars = None if len(set(table.column_names)) < table.num_columns else brain.recall("frame", as_="polars")
    for at in range(frame.shape[1]):
        missing = frame.iloc[:, at].isna().to_numpy().tolist()
        assert table.column(at).is_null().to_pylist() == missing
        assert (table.column(at).chunk(0).buffers()[0] is not None) == any(missing)
        if polars is not None:
            assert polars.to_series(at).is_null().to_list() == missing
        kept = [value for value, is_missing in zip(frame.iloc[:, at].tolist(), missing, strict=True) if not is_missing]
        if frame.dtypes.iloc[at].kind in "biufO":
            assert table.column(at).drop_null().to_pylist() == kept


def test_one_block_comes_back_as_one_block_that_nothing_copies(brain: plasmon.Brain) -> None:
    for matrix in (np.random.default_rng(1).random((1000, 50)), np.ones((50, 1000), "f4").T, np.ones((3, 5000), "i8")):
        frame = pd.DataFrame(matrix)
        brain["frame"] = frame
        before = plasmon.copied_bytes()
        found = brain["frame"]
        assert plasmon.copied_bytes() == before
        assert np.shares_memory(found.to_numpy(), found.to_numpy())
        assert np.shares_memory(found.values, found.iloc[2].to_numpy())
        assert len(found._mgr.blocks) == 1
        assert np.array_equal(found.to_numpy(), matrix)


def test_writing_a_cell_of_a_recalled_block_leaves_the_store_as_it_was(brain: plasmon.Brain) -> None:
    brain["frame"] = pd.DataFrame(np.zeros((10, 4)), columns=list("abcd"))
    found = brain["frame"]
    found.loc[3, "b"] = 7.0
    found["c"] += 1
    assert found.to_numpy().sum() == 17
    assert brain["frame"].to_numpy().sum() == 0


def test_a_block_is_one_beside_columns_of_other_kinds(brain: plasmon.Brain) -> None:
    frame = pd.DataFrame(np.arange(12.0).reshape(3, 4), columns=list("abcd"))
    frame.insert(2, "text", ["x", None, "z"])
    frame.insert(0, "kind", pd.Categorical(["p", "q", "p"]))
    frame["lists"] = pd.array([[1], None, [2, 3]], pd.ArrowDtype(pa.list_(pa.int64())))
    brain["frame"] = frame.drop(columns="lists")
    assert blocks(brain["frame"]) == blocks(frame.drop(columns="lists"))
    pd.testing.assert_frame_equal(brain["frame"], frame.drop(columns="lists"))
    brain["frame"] = frame
    pd.testing.assert_frame_equal(brain["frame"], frame)


def test_what_is_missing_to_pandas_is_null_to_everybody_else(brain: plasmon.Brain) -> None:
    strange = np.array([0x7FF8_0000_0000_1234, 0x3FF0_0000_0000_0000], "u8").view("f8")
    frame = pd.DataFrame(
        {
            "double": strange,
            "single": np.array([1, np.nan], "f4"),
            "half": np.array([np.nan, 2], "f2"),
            "text": np.array(["a", np.nan], object),
            "none": np.array([None, "b"], object),
            "whole": [1.5, 2.5],
        },
        index=pd.Index([np.nan, 1.0], name="k"),
    )
    for value in (frame, frame["double"], frame[["double", "single"]][::-1]):
        brain["value"] = value
        rows = value.to_frame() if isinstance(value, pd.Series) else value
        table = brain.recall("value", as_="arrow")
        for at, name in enumerate(rows.columns):
            assert table.column(at).is_null().to_pylist() == rows[name].isna().tolist()
            assert brain.recall("value", as_="polars")[name].is_null().to_list() == rows[name].isna().tolist()
        assert table.column(table.num_columns - 1).null_count == 1  # the index
        found = brain["value"]
        assert bits(found if isinstance(found, pd.Series) else found["double"]) == bits(rows["double"])
        assert bits(brain.recall("value", as_="numpy")["double"]) == bits(rows["double"])
    # Arrays, Arrow's own and polars' say what they say.
    brain["value"] = strange
    assert brain.recall("value", as_="arrow").column(0).null_count == 0
    for columns in (pa.table({"a": strange}), pl.DataFrame({"a": strange})):
        brain["value"] = columns
        assert brain.recall("value", as_="arrow").column(0).null_count == 0


def test_the_command_line_and_rust_find_nothing_where_pandas_misses_something(
    brain: plasmon.Brain, store: plasmon.Store
) -> None:
    brain["frame"] = pd.DataFrame({"a": [1.5, np.nan], "t": np.array(["NaT", "2024-02-29"], "M8[s]")})
    lines = command(store, brain, "get", "frame", "-o", "-", "--format", "csv").splitlines()
    assert lines[:2] == ["a,t", "1.5,"]
    assert lines[2].startswith(",2024-02-29")


def test_objects_that_are_texts_come_back_as_the_same_objects(brain: plasmon.Brain) -> None:
    for values in (
        ["a", "b"] * 5000,
        [f"text {at}" for at in range(10_000)],
        ["a", None, np.nan, pd.NA, "ü" * 50],
        [None, None],
        [np.nan, "a"],
        [],
    ):
        column = np.empty(len(values), object)
        column[:] = values
        series = pd.Series(column, dtype=object)
        brain["series"] = series
        assert brain.metadata("series")["kind"] == "table"
        found = brain["series"]
        assert found.dtype == object
        if len(values) == 10_000:  # texts that come again and again are one object each
            assert len({id(one) for one in found}) == len(set(values))
        assert [type(one) for one in found] == [type(one) for one in series]
        assert found.dropna().tolist() == series.dropna().tolist()
    for value in (1, b"a", "\ud800", ("a",), np.str_("a"), pd.NaT, 1.5):
        series = pd.Series(["a", value], dtype=object)
        brain["series"] = series
        assert brain.metadata("series")["kind"] == "pickle"
        assert [type(one) for one in brain["series"]] == [type(one) for one in series]


@pytest.mark.parametrize("kinds", ["f", "fi?", "fffii?f"])
@pytest.mark.parametrize("columns", [1000, 20_000])
def test_wide_frames_cost_what_their_blocks_cost(brain: plasmon.Brain, columns: int, kinds: str) -> None:
    """Not a measurement: no call is made for each column, but for those that make the frame."""
    frame = pd.DataFrame({f"gene_{at}": np.ones(3, kinds[at % len(kinds)]) for at in range(columns)})
    assert len(frame._mgr.blocks) == len(set(kinds))
    brain["frame"] = frame
    calls = 0

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        brain["frame"] = frame
        found = brain["frame"]
    finally:
        sys.setprofile(None)
    pd.testing.assert_frame_equal(found, frame)
    assert calls < 1000
    assert brain.recall("frame", as_="arrow").column_names == frame.columns.tolist()


def test_a_frame_that_another_program_has_laid_anew_is_a_frame(
    brain: plasmon.Brain, store: plasmon.Store, tmp_path: Path
) -> None:
    frame = pd.DataFrame({"a": [1.5, np.nan], "b": [True, False], "c": ["x", None], "d": pd.Categorical(["p", "q"])})
    frame["e"] = np.array(["o", None], object)
    for value in (frame, frame["a"], frame.set_index("c")):
        brain["value"] = value
        table = brain.recall("value", as_="arrow")
        with pa.OSFile(str(tmp_path / "frame.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        command(store, brain, "put", "again", str(tmp_path / "frame.arrow"))
        if isinstance(value, pd.Series):
            pd.testing.assert_series_equal(brain["again"], value)
        else:
            pd.testing.assert_frame_equal(brain["again"], value)
        brain.forget("again")

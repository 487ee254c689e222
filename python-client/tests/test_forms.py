"""What a value is read as: data and not the bytes of a pickle, whatever others wrote, on stacks of any length."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import plasmon
import polars as pl
import pyarrow as pa
import pytest
from plasmon.exceptions import MalformedObject, WrongKind
from values import OwnFrame, Readings, Sensor

# ---- a pickle is never shown as data


class Rows:
    """A frame that is stored as a pickle, and its columns and rows as Arrow has them."""

    def __init__(self, value: Any, columns: dict[str, list[Any]] | None) -> None:
        self.value = value
        self.columns = columns


_hours = pd.date_range("2024", periods=2, freq="h")
_sales = pd.DataFrame({"shop": ["a", "a", "b"], "year": [1, 2, 1], "sum": [1.5, 2.5, 3.5]})
FRAMES = {
    "frequency": Rows(
        pd.DataFrame({"mw": [1.5, 2.5]}, index=_hours), {"mw": [1.5, 2.5], "__index_level_0__": list(_hours)}
    ),
    "MultiIndex": Rows(
        pd.DataFrame({"n": [1, 2]}, index=pd.MultiIndex.from_tuples([("x", 1), ("y", 2)], names=["k", None])),
        {"n": [1, 2], "k": ["x", "y"], "__index_level_1__": [1, 2]},
    ),
    "pivot table": Rows(
        _sales.pivot_table(index="shop", columns="year", values="sum"),
        {"1": [1.5, 3.5], "2": [2.5, None], "shop": ["a", "b"]},
    ),
    "MultiIndex of columns": Rows(
        pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2)])),
        {"('a', 1)": [1], "('a', 2)": [2]},
    ),
    "nullable": Rows(
        pd.DataFrame({"i": pd.array([1, None], "Int64"), "b": pd.array([True, None], "boolean")}),
        {"i": [1, None], "b": [True, None]},
    ),
    "objects of one type": Rows(pd.DataFrame({"t": [b"x", None]}, dtype=object), {"t": [b"x", None]}),
    "objects of many": Rows(pd.DataFrame({"t": [1, "x", (1, 2)]}, dtype=object), None),
    "sparse": Rows(pd.DataFrame({"s": pd.arrays.SparseArray([0, 0, 1])}), {"s": [0, 0, 1]}),
    "categories of intervals": Rows(pd.DataFrame({"c": pd.cut([1, 5], [0, 3, 6])}), None),
    "categories of numbers": Rows(
        pd.DataFrame({"c": pd.Categorical([3, None])}, index=_hours),
        {"c": [3, None], "__index_level_0__": list(_hours)},
    ),
    "labels of int": Rows(pd.DataFrame([[1, 2]], columns=[3, 1]), {"3": [1], "1": [2]}),
    "no columns": Rows(pd.DataFrame(index=range(3)), {}),
    "attrs": Rows(_sales.assign().set_axis(["a", "b", "c"], axis=1), None),
    "Series": Rows(
        pd.Series([1.5, None], index=_hours, name="s"), {"s": [1.5, None], "__index_level_0__": list(_hours)}
    ),
    "own class": Rows(OwnFrame({"a": [1, 2]}), {"a": [1, 2]}),
    "own export": Rows(Sensor("A7", [1, 2]), {"v": [1, 2]}),
    "own exports": Rows(Readings("A7", [1, 2]), {"v": [1, 2]}),
}
FRAMES["attrs"].value.attrs["unit"] = "EUR"
FRAMES["attrs"].columns = {"a": ["a", "a", "b"], "b": [1, 2, 1], "c": [1.5, 2.5, 3.5]}


@pytest.mark.parametrize("name", FRAMES)
def test_a_pickled_frame_gives_its_data_or_says_that_it_has_none(brain: plasmon.Brain, name: str) -> None:
    value, columns = FRAMES[name].value, FRAMES[name].columns
    brain["value"] = value
    assert brain.metadata("value")["kind"] == ("table" if name in ("labels of int", "pivot table") else "pickle")
    readings: dict[str, Callable[[Any], dict[str, list[Any]]]] = {
        "arrow": lambda found: found.to_pydict(),
        "polars": lambda found: found.to_dict(as_series=False),
    }
    for as_, columns_of in readings.items():
        if columns is None:
            with pytest.raises(WrongKind, match="Arrow cannot say|polars cannot read|is no table"):
                found = brain.recall("value", as_=as_)  # type: ignore[call-overload]
                # An extension of pandas' own, which its values are not lost in, is data as well.
                assert found.shape[0] == len(value) and "plasmon.pickle" not in str(found)
                raise WrongKind("is no table")
            continue
        found = brain.recall("value", as_=as_)  # type: ignore[call-overload]
        rows = {label: [_plain(cell) for cell in cells] for label, cells in columns_of(found).items()}
        assert rows == {label: [_plain(cell) for cell in cells] for label, cells in columns.items()}
    if isinstance(value, pd.DataFrame | pd.Series):
        assert type(brain.recall("value", as_="pandas")) is type(value)


def _plain(cell: Any) -> Any:
    return cell.replace(tzinfo=None).isoformat() if hasattr(cell, "isoformat") else cell


@pytest.mark.parametrize("value", [{1, 2}, (1, 2), 2**70, {"a": float("nan")}, np.arange(3) * 1j], ids=repr)
def test_a_pickle_that_is_no_table_is_not_read_as_one(brain: plasmon.Brain, value: Any) -> None:
    brain["value"] = value
    for as_ in ("arrow", "polars", "pandas"):
        with pytest.raises(WrongKind):
            brain.recall("value", as_=as_)
    with pytest.raises(WrongKind):
        brain.recall("value", columns=["value"])
    assert isinstance(brain.recall("value", as_="buffer"), memoryview)


@pytest.mark.parametrize(
    ("column", "as_"),
    [
        (pd.Series([2**70, 1], dtype=object), ("arrow", "polars", "numpy")),
        (pd.Series(pd.cut([1, 2, 3], 2)), ("numpy",)),
        (pd.Series([1, "a"], dtype=object), ("arrow", "polars", "numpy")),
    ],
    ids=str,
)
def test_what_another_library_refuses_is_an_error_of_ours(
    brain: plasmon.Brain, column: pd.Series[Any], as_: tuple[Any, ...]
) -> None:
    brain["value"] = column.to_frame("a")
    for way in as_:
        for copy in (False, True):
            with pytest.raises(WrongKind):
                brain.recall("value", as_=way, copy=copy)


def test_truth_values_are_those_of_the_library_that_reads_them(brain: plasmon.Brain) -> None:
    for value in (
        pd.DataFrame({"value": [True, False, True], "x": [1, 2, 3]}),
        pd.DataFrame({"value": [True, False, True], "x": [1, 2, 3]}, index=pd.date_range("2024", periods=3, freq="h")),
        np.array([True, False, True]),
    ):
        brain["value"] = value
        for copy in (False, True):
            polars = brain.recall("value", as_="polars", copy=copy)
            assert polars.schema["value"] == pl.Boolean
            assert polars["value"].to_list() == [True, False, True]
            assert brain.recall("value", as_="pandas", copy=copy)["value"].dtype == np.dtype(bool)
            if not isinstance(value, np.ndarray):
                assert brain.recall("value", as_="numpy", copy=copy)["value"].dtype == np.dtype(bool)


def test_columns_of_whatever_has_columns(brain: plasmon.Brain) -> None:
    class Selecting:
        """Has a method of that name, which is for something else."""

        def select(self, columns: Any) -> Any:
            raise AssertionError("nobody asked for this")

    for value in (
        FRAMES["frequency"].value.assign(x=1),
        OwnFrame({"mw": [1], "x": [2]}),
        pl.DataFrame({"mw": [2**70]}),
    ):
        brain["value"] = value
        assert list(brain.recall("value", columns=["mw"]).columns) == ["mw"]
        if not isinstance(value, pl.DataFrame):
            assert brain.recall("value", as_="arrow", columns=["mw"]).column_names == ["mw"]
            assert list(brain.recall("value", as_="numpy", columns=["mw"])) == ["mw"]
    brain["value"] = [Selecting()]
    with pytest.raises(WrongKind):
        brain.recall("value", columns=["mw"])


@pytest.mark.parametrize("as_", [None, "pandas", "polars", "arrow", "numpy"])
def test_a_column_that_is_not_there_is_named_with_those_that_are(brain: plasmon.Brain, as_: Any) -> None:
    brain["pandas"] = pd.DataFrame({"price": [1.0], "volume": [2]})
    brain["polars"] = pl.DataFrame({"price": [1.0], "volume": [2]})
    brain["arrow"] = pa.table({"price": [1.0], "volume": [2]})
    for name in ("pandas", "polars", "arrow"):
        with pytest.raises(WrongKind, match="asks for 'prise', and this table has 'price', 'volume'"):
            brain.recall(name, columns=["prise", "price"], as_=as_)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frame_where_its_library_is_not_installed_says_what_to_install(brain: plasmon.Brain, library: str) -> None:
    brain["frame"] = {"pandas": pd, "polars": pl}[library].DataFrame({"price": [1.0]})
    program = (
        "import plasmon, sys; sys.modules[sys.argv[3]] = None; brain = plasmon.Brain(*sys.argv[1:3])\n"
        "assert brain.recall('frame', as_='arrow').to_pydict() == {'price': [1.0]}\n"
        "try: brain['frame']\nexcept plasmon.UnpicklingFailed as error: print(error)"
    )
    command = [sys.executable, "-c", program, brain.path, brain.namespace, library]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert f"has no module {library!r}" in done.stdout and "as_='arrow'" in done.stdout, done


def test_columns_of_one_name_are_data_where_the_form_has_them(brain: plasmon.Brain) -> None:
    for index in (range(1), pd.MultiIndex.from_tuples([("x", 1)])):
        brain["value"] = pd.DataFrame([[1, 2.5]], columns=["a", "a"], index=index)
        assert [column.to_pylist() for column in brain.recall("value", as_="arrow").columns[:2]] == [[1], [2.5]]
        for as_ in ("polars", "numpy"):
            with pytest.raises(WrongKind):
                brain.recall("value", as_=as_)


def test_the_level_of_an_index_is_called_what_it_is(brain: plasmon.Brain) -> None:
    brain["value"] = pd.DataFrame({"a": [1]}, index=pd.Index(["x"], name="key"))
    assert brain.recall("value", as_="arrow").column_names == ["a", "key"]
    brain["value"] = pd.DataFrame({"key": [1]}, index=pd.Index(["x"], name="key"))
    assert brain.recall("value", as_="arrow").column_names == ["key", "__index_level_0__"]
    assert list(brain["value"].index) == ["x"] and brain["value"].index.name == "key"


@pytest.mark.parametrize(
    "flags", [["-o", "x.csv"], ["-o", "x.parquet"], ["-o", "x.arrow"], ["-o", "x.json"], ["-o", "x"]]
)
def test_the_command_line_writes_no_pickle(brain: plasmon.Brain, tmp_path: Any, flags: list[str]) -> None:
    def get(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "plasmon",
            "get",
            "value",
            "--socket",
            brain.path,
            "--namespace",
            brain.namespace,
        ]
        return subprocess.run([*command, *arguments], cwd=tmp_path, text=True, capture_output=True, check=False)

    brain["value"] = FRAMES["MultiIndex"].value
    for refused in (get(*flags), get("--json"), get("--format", "csv"), get()):
        assert refused.returncode == 1 and "only Python reads it" in refused.stderr and refused.stdout == ""
    assert list(tmp_path.iterdir()) == []
    assert "a value of kind pickle" in get("--format", "text").stdout


# ---- what others wrote


def described(columns: list[Any], said: dict[str, Any] | bytes, names: str = "abc") -> pa.RecordBatchReader:
    """Return a table with a description that nobody vouches for."""
    text = said if isinstance(said, bytes) else json.dumps(said).encode()
    table = pa.table(columns, names=list(names[: len(columns)])).replace_schema_metadata({"plasmon.python": text})
    return table.to_reader()


def frame(*columns: dict[str, Any], rows: int = 3, **more: Any) -> dict[str, Any]:
    """Return a description of a frame."""
    texts = {"kind": "texts", "dtype": "str", "name": None, "type": "string"}
    index = {"kind": "range", "start": 0, "stop": rows, "step": 1, "name": None}
    parts = [{**column, "columns": [at, at + 1]} for at, column in enumerate(columns)]
    return {
        "type": "pandas.DataFrame",
        "shape": [3, len(columns)],
        "labels": texts,
        "parts": parts,
        "index": index,
        **more,
    }


def numbers(dtype: str) -> dict[str, Any]:
    return {"kind": "numpy", "dtype": dtype}


CATEGORY = {"kind": "category", "categories": {"kind": "text_nan", "type": "string"}, "ordered": False, "name": None}


def coded(codes: list[int], valid: list[bool], dtype: str = "i1") -> pa.DictionaryArray:
    """Return a column with these codes, also where it is null."""
    values = np.array(codes, dtype)
    validity = pa.array(valid).buffers()[1]
    indices = pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(codes), [validity, pa.py_buffer(values)])
    return pa.DictionaryArray.from_arrays(indices, pa.array(["x", "y"]), safe=False)


def under_nulls(kind: pa.DataType, values: Any) -> pa.Array:
    """Return a column whose second value is null, with bits of their own there."""
    validity = pa.array([True, False, True]).buffers()[1]
    return pa.Array.from_buffers(kind, 3, [validity, pa.py_buffer(np.array(values))])


def bools(values: list[int]) -> pa.Array:
    return pa.ExtensionArray.from_storage(pa.bool8(), pa.array(values, pa.int8()))


@pytest.mark.parametrize("code", [5, -5, 17, 100, -77, 1])
@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8"])
def test_under_a_null_a_code_means_nothing(brain: plasmon.Brain, code: int, dtype: str) -> None:
    codes = coded([0, code, 1], [True, False, True], dtype)
    brain["value"] = described([codes], frame(CATEGORY))
    found = brain["value"]["a"]
    assert found.cat.codes.tolist() == [0, -1, 1]
    assert found.isna().tolist() == [False, True, False]
    assert found.astype(object).tolist()[::2] == ["x", "y"]
    brain["value"] = described([codes], {"type": "polars.DataFrame"})
    assert brain["value"]["a"].cast(pl.String).to_list() == ["x", None, "y"]


def test_under_a_null_a_time_and_a_float_mean_nothing(brain: plasmon.Brain) -> None:
    columns = [under_nulls(pa.timestamp("ns"), [1, 2, 3]), under_nulls(pa.float64(), [1.5, 2.5, 3.5])]
    brain["value"] = described(columns, frame(numbers("<M8[ns]"), numbers("<f8")))
    found = brain["value"]
    assert found.isna().to_numpy().tolist() == [[False] * 2, [True] * 2, [False] * 2]
    assert found["b"].tolist()[::2] == [1.5, 3.5]


def test_a_frame_that_went_through_other_hands_is_one_still(brain: plasmon.Brain) -> None:
    value = pd.DataFrame(
        {
            "bool": [True, False, True],
            "category": pd.Categorical(["x", None, "y"]),
            "time": pd.DatetimeIndex(["2024-01-01", None, "2024-01-03"], tz="Europe/Zurich"),
            "text": ["a", None, "b"],
            "float": [1.5, np.nan, 2.5],
        },
        index=pd.Index([3, 1, 2], name="key"),
    )
    brain["value"] = value
    brain["copy"] = brain.recall("value", as_="arrow").to_reader()
    pd.testing.assert_frame_equal(brain["copy"], value)


@pytest.mark.parametrize("index", ["range", "column"])
def test_a_description_by_columns_is_read_as_one_by_parts(brain: plasmon.Brain, index: str) -> None:
    """Tables were described so before they had blocks."""
    columns = [
        coded([0, 99, 1], [True, False, True]),
        pa.array([1.5, 2.5, 3.5]),
        pa.array(["a", None, "b"]),
        pa.array([7, 8, 9]),
    ]
    indexes: dict[str, dict[str, Any]] = {
        "range": {"kind": "range", "start": 0, "stop": 3, "step": 1, "name": None},
        "column": {"kind": "column", "name": "key", "column": numbers("<i8")},
    }
    category = {"kind": "category", "categories": {"kind": "text_nan"}, "ordered": False, "name": None}
    listed = [category, numbers("<f8"), {"kind": "text_nan"}, numbers("<i8")][: 4 if index == "range" else 3]
    labels = {"kind": "texts", "dtype": "str", "labels": list("abcd"[: len(listed)]), "name": None}
    said = {"type": "pandas.DataFrame", "labels": labels, "columns": listed, "index": indexes[index]}
    brain["value"] = described(columns, said, "abcd")
    expected = pd.DataFrame(
        {"a": pd.Categorical(["x", None, "y"], ["x", "y"]), "b": [1.5, 2.5, 3.5], "c": ["a", None, "b"], "d": [7, 8, 9]}
    )
    if index == "column":
        expected = expected.set_index(expected.pop("d").rename("key"))
    pd.testing.assert_frame_equal(brain["value"], expected)


INT = pa.array([1, 2, 3])
WRONG: dict[str, tuple[list[Any], Any]] = {
    "no JSON": ([INT], b"{"),
    "no object": ([INT], b"[]"),
    "a number": ([INT], b"7"),
    "nested": ([INT], b"[" * 100_000),
    "an empty description": ([INT], {"type": "pandas.DataFrame"}),
    "a type that is none": ([INT], {"type": ["pandas.DataFrame"]}),
    "a batch of no columns": ([], {"type": "pyarrow.Array"}),
    "too few columns": ([INT], frame(numbers("<i8"), numbers("<i8"))),
    "too many columns": ([INT, INT], frame(numbers("<i8"))),
    "another type": ([INT], frame(numbers("<f8"))),
    "a narrower type": ([INT], frame(numbers("<i4"))),
    "a wider type": ([pa.array([1, 2, 3], pa.int8())], frame(numbers("<i8"))),
    "objects": ([INT], frame(numbers("|O"))),
    "records": ([INT], frame(numbers("i4,i4"))),
    "texts of NumPy": ([INT], frame(numbers("<U2"))),
    "another unit": ([pa.array([1, 2, 3], pa.timestamp("s"))], frame(numbers("<M8[ns]"))),
    "a unit of seven days": ([INT], frame(numbers("<M8[7D]"))),
    "no zone": ([pa.array([1, 2, 3], pa.timestamp("s"))], frame({**numbers("<M8[s]"), "zone": "UTC"})),
    "an unknown zone": ([pa.array([1], pa.timestamp("s", "No/Such"))], frame({**numbers("<M8[s]"), "zone": "No/Such"})),
    "a path as a zone": ([pa.array([1], pa.timestamp("s", "/etc"))], frame({**numbers("<M8[s]"), "zone": "/etc"})),
    "bytes that are no truth values": ([bools([0, 1, 2])], frame(numbers("|b1"))),
    "negative truth values": ([bools([0, 1, -1])], frame(numbers("|b1"))),
    "integers as truth values": ([pa.array([0, 1, 2], pa.int8())], frame(numbers("|b1"))),
    "nulls of integers": ([pa.array([1, None, 3])], frame(numbers("<i8"))),
    "categories that are none": ([INT], frame(CATEGORY)),
    "codes without a sign": ([coded([0, 1, 0], [True] * 3, "u1")], frame(CATEGORY)),
    "a category twice": (
        [pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int8()), pa.array(["x", "x"]))],
        frame(CATEGORY),
    ),
    "a category that is null": (
        [pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int8()), pa.array(["x", None]))],
        frame(CATEGORY),
    ),
    "categories of another type": (
        [pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int8()), INT)],
        frame({**CATEGORY, "categories": numbers("<f8")}),
    ),
    "texts that are numbers": ([INT], frame({"kind": "text_nan", "type": "binary"})),
    "a kind that is none": ([INT], frame({"kind": "strided", "strides": [-(2**60)]})),
    "an index of another length": ([INT], frame(numbers("<i8"), rows=10**12)),
    "an index that stands still": (
        [INT],
        frame(numbers("<i8"), index={"kind": "range", "start": 0, "stop": 3, "step": 0}),
    ),
    "an index of texts": (
        [INT],
        frame(numbers("<i8"), index={"kind": "range", "start": "a", "stop": 3, "step": 1, "name": None}),
    ),
    "an index that is not there": (
        [INT],
        frame(numbers("<i8"), index={"kind": "column", "name": None}),
    ),
    "labels of lists": (
        [INT],
        frame(numbers("<i8"), labels={"kind": "list", "dtype": "object", "labels": [["a"]], "name": None}),
    ),
    "too many labels": (
        [INT],
        frame(numbers("<i8"), labels={"kind": "list", "dtype": "str", "labels": ["a", "b"], "name": None}),
    ),
    "a column twice": (
        [INT, INT],
        frame(numbers("<i8"), parts=[{**numbers("<i8"), "columns": [0, 1, 0, 1]}], shape=[3, 2]),
    ),
    "columns without end": ([INT], frame(parts=[{**numbers("<i8"), "columns": [0, 2**60]}], shape=[3, 1])),
    "columns twice as far apart as they are": (
        [INT, INT],
        frame(parts=[{**numbers("<i8"), "columns": [0, 3], "step": 2}], shape=[3, 2]),
    ),
    "columns at no distance": (
        [INT, INT],
        frame(parts=[{**numbers("<i8"), "columns": [0, 2], "step": 0}], shape=[3, 2]),
    ),
    "columns with one step in two ranges": (
        [INT, INT],
        frame(parts=[{**numbers("<i8"), "columns": [0, 1, 1, 2], "step": 2}], shape=[3, 2]),
    ),
    "columns before the first": ([INT], frame(parts=[{**numbers("<i8"), "columns": [-1, 1]}], shape=[3, 1])),
    "a text in two columns": (
        [pa.array(["a", "b", "c"])] * 2,
        frame(parts=[{"kind": "text_nan", "type": "string", "columns": [0, 2]}], shape=[3, 2]),
    ),
    "missing texts that are none": (
        [pa.array(["a", None, "c"], pa.large_string())],
        frame({"kind": "object", "missing": 77}),
    ),
    "places of missing texts beyond the last": (
        [pa.array(["a", None, "c"], pa.large_string())],
        frame({"kind": "object", "missing": 1, "others": [[2, [10**12]]]}),
    ),
    "columns of blocks of other blocks": (
        [INT],
        frame({**numbers("<i8"), "block": 0}, rows=2, shape=[2, 1]),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_description_that_does_not_fit_is_an_error_of_ours(brain: plasmon.Brain, name: str) -> None:
    columns, said = WRONG[name]
    brain["value"] = described(columns, said)
    for copy in (False, True):
        with pytest.raises(MalformedObject):
            brain.recall("value", copy=copy)
    assert brain.recall("value", as_="arrow").num_columns == len(columns)
    assert brain.stat("value")["name"] == "value"


@pytest.mark.parametrize(
    "shape", [[1] * 70, [1] * 200, [0, 2**62], [2**62, 0, 2**62]], ids=["70-d", "200-d", "long", "longer"]
)
def test_a_tensor_that_numpy_cannot_have_says_so(brain: plasmon.Brain, shape: list[int]) -> None:
    brain._client.create_tensor("value", 12, shape, False).seal()
    with pytest.raises(WrongKind, match="NumPy has no array"):
        brain["value"]
    assert isinstance(brain.recall("value", as_="arrow"), pa.Table)


def test_arrays_and_batches_of_many_pieces_lose_none(brain: plasmon.Brain) -> None:
    pieces = pa.Table.from_batches([pa.record_batch({"value": [1]}), pa.record_batch({"value": [2, 3]})])
    for kind, rows in (("pyarrow.Array", 3), ("pyarrow.RecordBatch", 3), ("pyarrow.ChunkedArray", 3)):
        said = json.dumps({"type": kind}).encode()
        brain["value"] = pieces.replace_schema_metadata({"plasmon.python": said}).to_reader()
        assert len(brain["value"]) == rows if kind != "pyarrow.RecordBatch" else brain["value"].num_rows == rows
    brain["value"] = pieces.replace_schema_metadata({"plasmon.python": b'{"type": "future.Thing"}'}).to_reader()
    with pytest.raises(WrongKind, match="newer version"):
        brain["value"]


def test_what_polars_panics_at_is_an_error_of_ours(brain: plasmon.Brain) -> None:
    wrong = {b"_PL_ENUM_VALUES2": b"999999999;x"}
    enum = pa.field("a", pa.dictionary(pa.uint8(), pa.large_string()), metadata=wrong)
    codes = pa.DictionaryArray.from_arrays(pa.array([0], pa.uint8()), pa.array(["x"], pa.large_string()))
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    extension = pa.field(
        "a", pa.int64(), metadata={b"ARROW:extension:name": b"x", b"ARROW:extension:metadata": b"\xff"}
    )
    for table in (
        pa.table({"a": pa.array([1], pa.decimal256(50, 2))}),
        pa.table({"a": union}),
        pa.table([codes], schema=pa.schema([enum])),
        pa.table([pa.array([1])], schema=pa.schema([extension])),
    ):
        brain["value"] = table
        with pytest.raises(WrongKind, match="polars cannot read"):
            brain.recall("value", as_="polars")
        said = {**(table.schema.metadata or {}), b"plasmon.python": b'{"type": "polars.DataFrame"}'}
        if table.field("a").metadata == extension.metadata:
            continue  # Rust's Arrow reads no metadata that are not text: it was a pickle
        brain["value"] = table.replace_schema_metadata(said).to_reader()
        with pytest.raises(MalformedObject):
            brain["value"]


# ---- stacks


def nested(levels: int, make: Callable[[Any], Any] = lambda inner: [inner]) -> Any:
    value: Any = "core"
    for _ in range(levels):
        value = make(value)
    return value


ON_A_SHORT_STACK = """
import threading, sys, plasmon
brain = plasmon.Brain(sys.argv[1], sys.argv[2])
{first}
threading.stack_size({stack})
out = []
def work():
    try:
        {work}
        out.append("done")
    except plasmon.exceptions.PlasmonError as error:
        out.append(type(error).__name__)
thread = threading.Thread(target=work); thread.start(); thread.join()
print(*out)
"""


def on_a_short_stack(brain: plasmon.Brain, stack: int, work: str, first: str = "") -> str:
    code = ON_A_SHORT_STACK.format(stack=stack, work=work, first=first)
    done = subprocess.run(
        [sys.executable, "-c", code, brain.path, brain.namespace], text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done
    return done.stdout.strip()


@pytest.mark.parametrize("stack", [32 << 10, 64 << 10, 256 << 10])
@pytest.mark.parametrize("levels", [1, 90, 127])
def test_what_is_nested_is_learned_on_a_short_stack_and_recalled_or_refused(
    brain: plasmon.Brain, stack: int, levels: int
) -> None:
    for wrap, make in (("[value]", lambda inner: [inner]), ("{'a': value}", lambda inner: {"a": inner})):
        value = nested(levels, make)
        build = f"value = 'core'\n        for _ in range({levels}): value = {wrap}\n        "
        assert on_a_short_stack(brain, stack, f"{build}brain['value'] = value") == "done"
        assert brain["value"] == value and brain.metadata("value")["kind"] == "json"
        said = on_a_short_stack(brain, stack, f"found = brain['value']\n        {build}assert found == value")
        assert said == "done" if levels == 1 or stack == 256 << 10 else said in ("done", "MalformedObject")


@pytest.mark.parametrize(
    "value",
    [
        "np.ones(100)",
        "np.ones((300, 300))[::2]",
        "{'array': np.ones(100_000)}",
        "pa.table({'a': [1, 2]})",
        "pd.DataFrame({'a': [1.5], 'b': ['x']})",
        "pd.DataFrame(np.ones((5, 2_000)))",
    ],
)
def test_arrays_and_frames_are_learned_and_recalled_on_the_shortest_stack(brain: plasmon.Brain, value: str) -> None:
    # Importing takes more than such a stack has.
    first = f"""import numpy as np, pandas as pd, pyarrow as pa
value = {value}
brain['value'] = value; brain['value'], brain.recall('value', copy=True), brain.stat('value')"""
    work = """brain['value'] = value
        assert type(brain['value']) is type(value)
        brain.recall('value', copy=True), brain.stat('value'), brain.names(), brain.stats()"""
    assert on_a_short_stack(brain, 32 << 10, work, first) == "done"


@pytest.mark.parametrize(("levels", "said"), [(20, "done"), (60, "done"), (90, "NotStorable")])
def test_types_of_arrow_that_are_nested_do_not_end_a_thread(brain: plasmon.Brain, levels: int, said: str) -> None:
    first = f"""import pyarrow as pa
kind = pa.int8()
for _ in range({levels}): kind = pa.list_(kind)
value = pa.table({{'a': pa.nulls(1, kind)}})"""
    work = """brain['value'] = value
        assert brain['value'].schema.field('a').type == kind"""
    assert on_a_short_stack(brain, 256 << 10, work, first) == said


def test_metadata_and_descriptions_that_are_nested_do_not_end_a_thread(brain: plasmon.Brain) -> None:
    brain["value"] = described([INT], b"[" * 120 + b"]" * 120)
    with pytest.raises(MalformedObject):
        brain["value"]
    brain.learn("value", 1, metadata={"a": nested(100)})
    assert on_a_short_stack(brain, 64 << 10, "brain.metadata('value')") in ("done", "MalformedObject")
    assert brain.metadata("value")["metadata"] == {"a": nested(100)}


def test_a_thread_of_the_usual_length_is_as_before(brain: plasmon.Brain) -> None:
    value, found = nested(127), []
    brain["value"] = value
    thread = threading.Thread(target=lambda: found.append(brain["value"]))
    thread.start()
    thread.join()
    assert found == [value]

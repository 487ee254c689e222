"""Values of every kind, with the form each takes: what test_values.py compares and docs/values.md lists."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import ipaddress
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import scipy.sparse

Pair = namedtuple("Pair", "left right")


class Point(NamedTuple):
    x: float
    y: float


class Colour(enum.Enum):
    RED = 1
    GREEN = "g"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Trade:
    symbol: str
    prices: Any
    when: dt.datetime


def double(x: int) -> int:
    return 2 * x


# Classes of one's own, each with an attribute besides what it is derived from.


class Flag:
    """What the classes below have in common."""

    unit: str


class OwnInt(int, Flag):
    pass


class OwnFloat(float, Flag):
    pass


class OwnComplex(complex, Flag):
    pass


class OwnText(str, Flag):
    pass


class OwnBytes(bytes, Flag):
    pass


class OwnBytearray(bytearray, Flag):
    pass


class OwnList(list, Flag):  # type: ignore[type-arg]
    pass


class OwnDict(dict, Flag):  # type: ignore[type-arg]
    pass


class OwnTuple(tuple, Flag):  # type: ignore[type-arg]
    pass


class OwnSet(set, Flag):  # type: ignore[type-arg]
    pass


class OwnFrozenset(frozenset, Flag):  # type: ignore[type-arg]
    pass


class OwnDate(dt.date, Flag):
    pass


class OwnTime(dt.time, Flag):
    pass


class OwnDatetime(dt.datetime, Flag):
    pass


class OwnTimedelta(dt.timedelta, Flag):
    pass


class OwnDecimal(decimal.Decimal, Flag):
    pass


class OwnFraction(fractions.Fraction, Flag):
    pass


class OwnPair(Pair, Flag):
    pass


class OwnOrderedDict(OrderedDict, Flag):  # type: ignore[type-arg]
    pass


class OwnScalar(np.float64, Flag):
    pass


class OwnTimestamp(pd.Timestamp):
    pass


class OwnArray(np.ndarray):
    pass


class OwnMasked(np.ma.MaskedArray):  # type: ignore[type-arg]
    pass


class OwnFrame(pd.DataFrame, Flag):
    _metadata: ClassVar[list[str]] = ["region"]

    @property
    def _constructor(self) -> Any:
        return OwnFrame


class OwnSeries(pd.Series, Flag):  # type: ignore[type-arg]
    @property
    def _constructor(self) -> Any:
        return OwnSeries


class OwnSeriesWithMetadata(pd.Series, Flag):  # type: ignore[type-arg]
    #: Without pandas' own `_name`, which a class that declares this replaces.
    _metadata: ClassVar[list[str]] = ["unit"]

    @property
    def _constructor(self) -> Any:
        return OwnSeriesWithMetadata


class OwnPolarsFrame(pl.DataFrame, Flag):
    pass


class OwnPolarsSeries(pl.Series, Flag):
    pass


@dataclasses.dataclass
class Sensor:
    """Its rows can be had as Arrow; it is more than they are."""

    serial: str
    values: list[int]

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return pa.table({"v": self.values}).__arrow_c_stream__(requested_schema)


class Readings(Sensor):
    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        return pa.array(self.values).__arrow_c_array__(requested_schema)


class Money(pa.ExtensionType):
    """Not registered with pyarrow, so that its columns come back only as a pickle."""

    def __init__(self) -> None:
        super().__init__(pa.int64(), "tests.money")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: Any, serialized: bytes) -> Money:
        return cls()


class Own(NamedTuple):
    """A value of a class of one's own, and the attribute it has besides its value, if it has one."""

    value: Any
    attributes: tuple[str, ...]


def _own(value: Any, **attributes: Any) -> Own:
    for name, attribute in attributes.items():
        setattr(value, name, attribute)
    return Own(value, tuple(attributes))


_money = pa.ExtensionArray.from_storage(Money(), pa.array([1, 2]))

OWN_CLASSES: list[Own] = [
    _own(OwnInt(7), unit="EUR"),
    _own(OwnFloat(7.5), unit="EUR"),
    _own(OwnComplex(1, 2), unit="EUR"),
    _own(OwnText("abc"), unit="EUR"),
    _own(OwnBytes(b"abc"), unit="EUR"),
    _own(OwnBytearray(b"abc" * 5_000), unit="EUR"),
    _own(OwnList([1, 2]), unit="EUR"),
    _own(OwnDict(a=1), unit="EUR"),
    _own(OwnTuple((1, 2)), unit="EUR"),
    _own(OwnSet({1, 2}), unit="EUR"),
    _own(OwnFrozenset({1, 2}), unit="EUR"),
    _own(OwnDate(2024, 2, 29)),
    _own(OwnTime(1, 2, 3)),
    _own(OwnDatetime(2024, 2, 29, 1)),
    _own(OwnTimedelta(1)),
    _own(OwnDecimal("1.10")),
    _own(OwnFraction(1, 3)),
    _own(OwnPair(1, "b"), unit="EUR"),
    _own(OwnOrderedDict(a=1), unit="EUR"),
    _own(np.arange(2000).view(OwnArray)),
    _own(np.ma.masked_array([1.0, 2.0], mask=[False, True]).view(OwnMasked)),
    _own(OwnFrame({"a": np.arange(2000.0)}, index=range(2000)), region="south", unit="EUR"),
    _own(OwnFrame({"a": [1, 2]}, index=["x", "y"]), region="south"),
    _own(OwnSeries([1.5, 2.5], name="s"), unit="EUR"),
    _own(OwnSeriesWithMetadata([1.5, 2.5], name="s"), unit="EUR"),
    _own(OwnPolarsFrame({"a": [1, None]}), unit="EUR"),
    _own(OwnPolarsFrame({"a": [1, None]})),
    _own(OwnPolarsSeries("s", [1.5, None]), unit="EUR"),
    _own(Sensor("A7", [1, 2])),
    _own(Readings("A8", [1, 2])),
    _own(_money),
    _own(pa.chunked_array([_money])),
    _own(pa.table({"a": _money})),
    _own(pa.table({"a": pa.StructArray.from_arrays([_money], ["b"])})),
    _own(pa.record_batch({"a": _money})),
    _own(pd.DataFrame({"a": pd.arrays.ArrowExtensionArray(pa.chunked_array([_money]))})),
]


class Case(NamedTuple):
    group: str
    label: str
    value: Any
    kind: str
    #: What a recall copies, where the kind does not say it.
    copies: str | None = None


_rng = np.random.default_rng(7)
_day = pd.Timestamp("2024-02-29 12:34:56.789012345")
_frame = pd.DataFrame(
    {
        "int": np.arange(1000),
        "float": np.where(np.arange(1000) % 7 == 0, np.nan, np.arange(1000) / 3),
        "bool": np.arange(1000) % 2 == 0,
        "text": pd.array([f"row {n}" if n % 5 else None for n in range(1000)], dtype="str"),
        "time": pd.date_range("2024-01-01", periods=1000, freq="h").where(np.arange(1000) % 9 != 0),
        "zone": pd.date_range("2024-01-01", periods=1000, freq="h", tz="Europe/Zurich"),
        "span": pd.to_timedelta(np.arange(1000), unit="s"),
        "category": pd.Categorical(["a", "b", None, "c"] * 250, ordered=True),
    }
)


def _masked() -> Any:
    return np.ma.masked_array([1.0, 2.0, 3.0], mask=[False, True, False])


def _with_attrs() -> pd.DataFrame:
    frame = pd.DataFrame({"a": [1.5, 2.5]})
    frame.attrs["unit"] = "EUR"
    return frame


def _categories() -> pl.DataFrame:
    kind = pl.Categorical(pl.Categories("colours", "tests", physical=pl.UInt8))
    return pl.DataFrame({"a": ["red", None, "blue"]}, schema={"a": kind})


def _chunked(*more: list[Any]) -> pd.DataFrame:
    def column(*chunks: list[Any]) -> Any:
        return pd.arrays.ArrowExtensionArray(pa.chunked_array(chunks))

    columns = {
        "text": pd.array(pa.chunked_array([["a", None, "größer"], pa.array([], "str"), ["d"] * 97]), dtype="str"),
        "int": column([1, None], [3] * 98),
        "bool": column([True] * 13, [None, False] * 43, [True]),
        "time": pd.date_range("2024-01-01", periods=300, freq="h")[::3],
        "category": pd.Categorical(["a", None] * 50),
    }
    return pd.DataFrame(columns | ({"more": column(*more)} if more else {}))


CASES: list[Case] = [
    Case("Python", "None", None, "null"),
    Case("Python", "bool", True, "bool"),
    Case("Python", "int of 64 bits", -(2**63), "int64"),
    Case("Python", "int of any size", 2**200 + 1, "pickle"),
    Case("Python", "float", 0.1, "float64"),
    Case("Python", "float: -0.0", -0.0, "float64"),
    Case("Python", "float: nan", float("nan"), "float64"),
    Case("Python", "float: inf", float("-inf"), "float64"),
    Case("Python", "complex", complex(1, -0.0), "pickle"),
    Case("Python", "str", "héllo \U0001f600 \0 end", "text"),
    Case("Python", "str: empty", "", "text"),
    Case("Python", "str: long", "x" * 100_000, "text"),
    Case("Python", "str with surrogates", "a\ud800b", "pickle"),
    Case("Python", "subclass of any type", [own.value for own in OWN_CLASSES[:3]], "pickle"),
    Case("Python", "bytes", b"\0\xff" * 50, "bytes"),
    Case("Python", "bytes: long", bytes(range(256)) * 4000, "bytes"),
    Case("Python", "bytearray", bytearray(b"abc"), "pickle"),
    Case("Python", "bytearray: long", bytearray(b"abc" * 10_000), "pickle"),
    Case("Python", "memoryview", memoryview(b"abc" * 10_000), "pickle"),
    Case("Python", "list, dict of JSON", {"a": [1, 2.5, None, True, "x", -0.0], "b": {"c": []}}, "json"),
    Case("Python", "list: empty", [], "json"),
    Case("Python", "dict in its order", {"z": 1, "a": 2}, "json"),
    Case("Python", "dict with other keys", {1: "a", (2, 3): "b"}, "pickle"),
    Case("Python", "dict with nan", {"a": float("nan")}, "pickle"),
    Case("Python", "dict with large int", {"a": 2**70}, "pickle"),
    Case("Python", "dict of arrays", {"a": np.arange(10_000), "b": [np.ones(3)]}, "pickle"),
    Case("Python", "tuple", (1, "a", (2.5,)), "pickle"),
    Case("Python", "list with tuple", [(1, 2), [3]], "pickle"),
    Case("Python", "set, frozenset", {1, frozenset({2, 3})}, "pickle"),
    Case("Python", "named tuple", [Pair(1, "b"), Point(1.0, 2.0)], "pickle"),
    Case("Python", "range, slice, Ellipsis", [range(3), slice(1, 2), ...], "pickle"),
    Case("Python", "date, time", [dt.date(2024, 2, 29), dt.time(1, 2, 3, 4)], "pickle"),
    Case("Python", "datetime", dt.datetime(2024, 2, 29, 1, 2, 3, 4), "pickle"),
    Case(
        "Python",
        "datetime with a zone",
        dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Zurich")),
        "pickle",
    ),
    Case("Python", "timedelta", dt.timedelta(days=-1, microseconds=1), "pickle"),
    Case("Python", "Decimal", decimal.Decimal("1.10"), "pickle"),
    Case("Python", "Fraction", fractions.Fraction(1, 3), "pickle"),
    Case("Python", "UUID", uuid.UUID(int=7), "pickle"),
    Case("Python", "IP address, path", [ipaddress.ip_address("::1"), PurePosixPath("/a/b")], "pickle"),
    Case("Python", "Enum", [Colour.RED, Colour.GREEN, Level.LOW], "pickle"),
    Case("Python", "dataclass", Trade("A", [1.0], dt.datetime(2024, 1, 1)), "pickle"),
    Case("Python", "collections", [OrderedDict(a=1), defaultdict(int, b=2), Counter("aab"), deque([1], 3)], "pickle"),
    Case("Python", "SimpleNamespace", SimpleNamespace(a=1), "pickle"),
    Case("Python", "types and functions by name", [int, dict, double, Point], "pickle"),
    Case(
        "NumPy",
        "scalars",
        [np.int64(1), np.float32(2.5), np.bool_(True), np.str_("a"), np.datetime64("2024-01-01", "D")],
        "pickle",
    ),
    *(
        Case("NumPy", f"ndarray of {dtype}", np.arange(3000).astype(dtype), "tensor")
        for dtype in (
            "bool",
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "float16",
            "float32",
            "float64",
        )
    ),
    Case("NumPy", "ndarray: 0-d", np.array(7.5), "tensor"),
    Case("NumPy", "ndarray: empty", np.zeros((0, 7), "int32"), "tensor"),
    Case("NumPy", "ndarray: 5-D", _rng.random((2, 3, 4, 5, 6)), "tensor"),
    Case("NumPy", "ndarray in Fortran order", np.asfortranarray(_rng.random((40, 50))), "tensor"),
    Case("NumPy", "ndarray: strided", _rng.random((40, 50))[::2, 5:45], "tensor"),
    Case("NumPy", "ndarray: negative strides", np.arange(5000)[::-1], "tensor"),
    Case("NumPy", "ndarray: broadcast", np.broadcast_to(np.arange(3.0), (4, 3)), "tensor"),
    Case("NumPy", "ndarray of complex128", np.arange(3000) * 1j, "pickle"),
    Case("NumPy", "ndarray of longdouble", np.arange(3000).astype("longdouble"), "pickle"),
    Case("NumPy", "ndarray of datetime64", np.array(["2024-01-01", "NaT"] * 1500, "M8[D]"), "pickle"),
    Case("NumPy", "ndarray of timedelta64", np.arange(3000).astype("m8[ns]"), "pickle"),
    Case("NumPy", "ndarray, big-endian", np.arange(3000).astype(">i4"), "pickle"),
    Case("NumPy", "ndarray, structured", np.zeros(3000, [("a", "i4"), ("b", "f8", (2,))]), "pickle"),
    Case("NumPy", "ndarray of U and S", [np.array(["a", "bcd"] * 800), np.array([b"a", b"bcd"])], "pickle"),
    *(
        [Case("NumPy", "ndarray of StringDType", np.array(["a", "bcd" * 20], dtype=np.dtypes.StringDType()), "pickle")]
        if hasattr(np.dtypes, "StringDType")  # NumPy 2
        else []
    ),
    Case("NumPy", "ndarray of object", np.array([1, "a", None], object), "pickle"),
    Case("NumPy", "masked array", _masked(), "pickle"),
    Case("NumPy", "matrix, recarray", [np.array([(1, 2.5)], [("a", "i8"), ("b", "f8")]).view(np.recarray)], "pickle"),
    Case("pandas", "DataFrame", _frame, "table"),
    Case("pandas", "DataFrame: sliced", _frame[10:20], "table"),
    Case("pandas", "DataFrame: every second row", _frame[::2], "table"),
    Case("pandas", "DataFrame of one block", pd.DataFrame(_rng.random((100, 5)), columns=list("abcde")), "table"),
    Case(
        "pandas",
        "DataFrame over a matrix",
        pd.DataFrame(_rng.random((9, 5)), columns=list("abcde"), copy=False),
        "table",
    ),
    Case("pandas", "DataFrame: rows backwards", _frame[::-3], "table"),
    Case("pandas", "DataFrame in chunks", _chunked(), "table"),
    Case("pandas", "DataFrame in chunks, of lists", _chunked([[1], None], [[2, 3]] * 98), "table"),
    Case("pandas", "DataFrame: transposed", pd.DataFrame(_rng.random((10, 5))).T, "table"),
    Case("pandas", "DataFrame: duplicate columns", pd.DataFrame([[1, 2.5]], columns=["a", "a"]), "table"),
    Case("pandas", "DataFrame without rows", pd.DataFrame({"a": np.zeros(0), "b": pd.array([], "str")}), "table"),
    Case("pandas", "DataFrame without rows, categories", _frame[:0], "pickle"),
    Case("pandas", "DataFrame without columns", pd.DataFrame(index=range(5)), "pickle"),
    Case("pandas", "DataFrame: empty", pd.DataFrame(), "pickle"),
    Case(
        "pandas",
        "DataFrame of texts as objects",
        pd.DataFrame({"a": ["x", None, "z" * 50], "b": [np.nan, "y", pd.NA], "c": [1, 2, 3]}, dtype=object)[["a", "b"]],
        "table",
        "the texts",
    ),
    Case("pandas", "DataFrame of mixed objects", pd.DataFrame({"a": [1, "x", None, (1, 2)]}, dtype=object), "pickle"),
    Case("pandas", "DataFrame with attrs", _with_attrs(), "pickle"),
    Case(
        "pandas",
        "DataFrame of extension dtypes",
        pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": pd.array([True, None], "boolean")}),
        "pickle",
    ),
    Case(
        "pandas",
        "DataFrame of ArrowDtype",
        pd.DataFrame({"a": pd.array([1, None], pd.ArrowDtype(pa.int32()))}),
        "table",
    ),
    Case("pandas", "DataFrame: labels of int", pd.DataFrame(np.ones((2, 2)), columns=[3, 1]), "table"),
    Case(
        "pandas",
        "DataFrame: columns of MultiIndex",
        pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])),
        "pickle",
    ),
    Case("pandas", "index: range", _frame[["int"]].set_axis(pd.RangeIndex(5, 5 + 3000, 3, name="n")), "table"),
    Case("pandas", "index: int", pd.DataFrame({"a": [1.5, 2.5]}, index=pd.Index([9, 7], name="k")), "table"),
    Case("pandas", "index: str", pd.DataFrame({"a": [1.5, 2.5]}, index=["x", "y"]), "table"),
    Case(
        "pandas",
        "index: datetime",
        pd.DataFrame({"a": [1.5, 2.5]}, index=pd.DatetimeIndex(["2024-01-01", "2024-01-05"])),
        "table",
    ),
    Case(
        "pandas",
        "index: datetime with freq",
        pd.DataFrame({"a": [1.5, 2.5]}, index=pd.date_range("2024", periods=2)),
        "pickle",
    ),
    Case(
        "pandas",
        "index: zone",
        pd.DataFrame({"a": [1.5, 2.5]}, index=pd.DatetimeIndex(["2024-01-01", "2024-01-05"], tz="UTC")),
        "table",
    ),
    Case(
        "pandas",
        "index: named zone",
        pd.DataFrame(
            {"a": [1.5]}, index=pd.DatetimeIndex(["2024-01-01"], tz=dt.timezone(dt.timedelta(hours=1), "Ostwind"))
        ),
        "pickle",
    ),
    Case("pandas", "index: MultiIndex", _frame[:5].set_index(["int", "text"]), "pickle"),
    Case(
        "pandas", "index: categorical", pd.DataFrame({"a": [1.5, 2.5]}, index=pd.CategoricalIndex(["x", "y"])), "pickle"
    ),
    Case("pandas", "index: interval", pd.DataFrame({"a": [1.5, 2.5]}, index=pd.interval_range(0, 2)), "pickle"),
    Case(
        "pandas",
        "index: period",
        pd.DataFrame({"a": [1.5, 2.5]}, index=pd.period_range("2024-01", periods=2, freq="M")),
        "pickle",
    ),
    Case("pandas", "Series", _frame["float"], "table"),
    Case("pandas", "Series of str", _frame["text"], "table"),
    Case("pandas", "Series of categories", _frame["category"], "table"),
    Case("pandas", "Series without name", pd.Series([1, 2, 3]), "table"),
    Case(
        "pandas",
        "Series named by an integer",
        pd.Series([1.5], index=pd.RangeIndex(1, name=-5), name=2**64 - 1),
        "table",
    ),
    Case("pandas", "Series named beyond JSON", pd.Series([1.5], index=pd.RangeIndex(1, name=2**70)), "pickle"),
    Case("pandas", "index with a surrogate", pd.DataFrame({"a": [1]}, index=pd.RangeIndex(1, name="\ud800")), "pickle"),
    Case("pandas", "Series of Sparse", pd.Series(pd.arrays.SparseArray([0, 0, 1])), "pickle"),
    Case("pandas", "Index", pd.MultiIndex.from_product([["a", "b"], [1, 2]]), "pickle"),
    Case("pandas", "Timestamp, Timedelta", [_day, _day.tz_localize("UTC"), pd.Timedelta("1ns")], "pickle"),
    Case("pandas", "Interval, Period", [pd.Interval(0, 1, "left"), pd.Period("2024-02", "M")], "pickle"),
    Case("Arrow", "Table", pa.table({"a": [1, None], "b": ["x", "y"]}, metadata={"k": "v"}), "table"),
    Case("Arrow", "Table in chunks", pa.concat_tables([pa.table({"a": [1]}), pa.table({"a": [2, 3]})]), "table"),
    Case("Arrow", "Table without rows", pa.schema([("a", pa.int8())]).empty_table(), "table"),
    Case(
        "Arrow", "Table: sliced", pa.table({"a": range(1000), "b": [str(n) for n in range(1000)]}).slice(5, 9), "table"
    ),
    Case("Arrow", "Table, nested", pa.table({"a": [[1, 2], None, []], "b": [{"x": 1}, {"x": None}, None]}), "table"),
    Case(
        "Arrow",
        "Table with dictionaries",
        pa.table({"a": pa.array(["x", "y", None, "x"]).dictionary_encode()}),
        "table",
    ),
    Case("Arrow", "Table with views", pa.table({"a": pa.array(["x" * 40, "y", None], pa.string_view())}), "table"),
    Case(
        "Arrow",
        "Table with extension types",
        pa.table({"a": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef"], pa.binary(16)))}),
        "table",
    ),
    Case("Arrow", "RecordBatch", pa.record_batch({"a": [1.5, None]}), "table"),
    Case("Arrow", "Array", pa.array([1, None, 3]), "table"),
    Case("Arrow", "Array: sliced", pa.array(range(100_000)).slice(7, 3), "table"),
    Case("Arrow", "ChunkedArray", pa.chunked_array([[1], [2, 3]]), "table"),
    Case("Arrow", "Table without columns", pa.table({"a": [1, 2]}).select([]), "table"),
    Case("Arrow", "RecordBatch without columns", pa.record_batch({"a": [1, 2]}).select([]), "table"),
    Case(
        "Arrow",
        "rows without columns, in a list",
        [pa.table({"a": [1]}).select([]), pa.record_batch({"a": [1]}).select([]), pl.DataFrame(height=3)],
        "pickle",
    ),
    Case("Arrow", "Scalar", pa.scalar(5, pa.int16()), "pickle"),
    Case("Arrow", "Tensor", pa.Tensor.from_numpy(np.arange(6.0).reshape(2, 3).T, dim_names=["x", "y"]), "pickle"),
    Case("Arrow", "Schema, type", [pa.schema([("a", pa.int8())]), pa.decimal128(5, 2)], "pickle"),
    Case(
        "polars",
        "DataFrame",
        pl.DataFrame({"a": [1, None], "b": ["x", "y"], "c": [dt.date(2024, 1, 1), None]}),
        "table",
    ),
    Case(
        "polars",
        "DataFrame with categories",
        pl.DataFrame({"a": ["x", "y"]}, schema={"a": pl.Categorical}),
        "table",
        "the codes of categories",
    ),
    Case(
        "polars",
        "DataFrame with an enum",
        pl.DataFrame({"a": ["x", "y"]}, schema={"a": pl.Enum(["x", "y", "z"])}),
        "table",
    ),
    Case("polars", "DataFrame without rows", pl.DataFrame(schema={"a": pl.Int8}), "table"),
    Case("polars", "DataFrame without columns", pl.DataFrame(height=5), "table"),
    Case("polars", "DataFrame of named categories", _categories(), "table", "the codes of categories"),
    Case(
        "polars",
        "DataFrame of nested types",
        pl.DataFrame(
            {"a": [["x"], None], "b": [{"x": 1, "y": None}, None], "c": [[1.5, 2.5], None]},
            schema={
                "a": pl.List(pl.Enum(["x", "z"])),
                "b": pl.Struct({"x": pl.Int8, "y": pl.Categorical}),
                "c": pl.Array(pl.Float32, 2),
            },
        ),
        "table",
        "the codes of categories",
    ),
    Case(
        "polars",
        "DataFrame with zones",
        pl.DataFrame({"a": [dt.datetime(2024, 2, 29)]}).select(
            pl.col("a").dt.replace_time_zone("Europe/Zurich").alias("x"), pl.col("a").dt.cast_time_unit("ms").alias("y")
        ),
        "table",
    ),
    Case(
        "polars",
        "integers of 128 bits",
        pl.DataFrame(
            {"a": [2**100, None], "b": [2**127, None], "c": [{"x": -(2**100)}, None]},
            schema={"a": pl.Int128, "b": pl.UInt128, "c": pl.Struct({"x": pl.Int128})},
        ),
        "pickle",
    ),
    Case("polars", "Series of integers of 128 bits", pl.Series("s", [2**100, None], pl.Int128), "pickle"),
    Case("polars", "Series", pl.Series("s", [1.5, None]), "table"),
    Case("others", "scipy: sparse matrix", scipy.sparse.random(100, 100, 0.05, "csr", rng=1), "pickle"),
]

"""Frames and series of pandas as tables, column by column, and back.

Columns of numbers, truth values, times, Arrow-backed strings and categories are Arrow columns over the same memory;
what does not lie in one piece there is gathered when it is learned. A frame that has any other column, or an index or
labels that Arrow cannot say, is pickled whole; its large buffers are then columns of their own, and come back without a
copy all the same.
"""

from __future__ import annotations

import contextlib
import weakref
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from plasmon import _forms, _plasmon

if TYPE_CHECKING:
    Description = dict[str, Any]


class _NoForm(Exception):
    """Arrow cannot say it: it is pickled."""


def encode(value: Any) -> _plasmon.Payload | None:
    """Return the form of a frame or a series; `None` if Arrow cannot say all of it."""
    try:
        if type(value) is pd.DataFrame:
            return _encode_frame(value)
        if type(value) is pd.Series:
            return _encode_series(value)
    except (_NoForm, ValueError, pa.ArrowException):
        return None
    return None


def decode(table: pa.Table, description: Description, copy: bool) -> Any:
    """Return the frame or series that `encode` made a table of."""
    columns = description["columns"]
    arrays = [_decode_column(table.column(at), said) for at, said in enumerate(columns)]
    if description["index"]["kind"] == "column":
        at = len(columns)
        values = _decode_column(table.column(at), description["index"]["column"])
        index = pd.Index(values, name=description["index"]["name"], copy=False)
    else:
        index = _decode_range(description["index"])
    if description["type"] == "pandas.Series":
        series = pd.Series(arrays[0], index=index, name=description["name"], copy=False)
        return _forms.compact(series) if copy else copied_on_write(series)
    frame = pd.DataFrame(dict(enumerate(arrays)), index=index, copy=False)
    frame.columns = _decode_labels(description["labels"])
    return _forms.compact(frame) if copy else copied_on_write(frame)


class _Store:
    """Stands for the store among those who share a column."""


_STORE = _Store()


def copied_on_write(value: Any) -> Any:
    """Return a frame or series, made such that pandas copies a column before the first write to it.

    Columns that others share are copied before a write (pandas' copy-on-write, always on from pandas 3); so each is
    marked as shared. Without the mark, which needs names inside pandas, a write raises: columns are read-only.
    """
    with contextlib.suppress(AttributeError):
        for block in value._mgr.blocks:
            block.refs.referenced_blocks.append(weakref.ref(_STORE))
    return value


# ---- frames and series


def _encode_frame(frame: pd.DataFrame) -> _plasmon.Payload:
    if frame.attrs or not frame.flags.allows_duplicate_labels:
        raise _NoForm
    labels = _encode_labels(frame.columns)
    encoded = [_encode_column(frame.iloc[:, at].array) for at in range(frame.shape[1])]
    names = [str(label) for label in frame.columns]
    return _encode(encoded, names, frame.index, {"type": "pandas.DataFrame", "labels": labels})


def _encode_series(series: pd.Series[Any]) -> _plasmon.Payload:
    if series.attrs or not series.flags.allows_duplicate_labels:
        raise _NoForm
    name = _label(series.name)
    description = {"type": "pandas.Series", "name": name}
    return _encode([_encode_column(series.array)], [str(name)], series.index, description)


def _encode(
    encoded: list[tuple[_Column, Description]],
    names: list[str],
    index: pd.Index[Any],
    description: Description,
) -> _plasmon.Payload:
    columns = [column for column, _ in encoded]
    description["columns"] = [said for _, said in encoded]
    if type(index) is pd.RangeIndex:
        description["index"] = {"kind": "range", **_range(index)}
    elif type(index) in (pd.Index, pd.DatetimeIndex, pd.TimedeltaIndex) and getattr(index, "freq", None) is None:
        column, said = _encode_column(index.array)
        description["index"] = {"kind": "column", "name": _label(index.name), "column": said}
        columns.append(column)
        names.append("__index_level_0__")
    else:
        raise _NoForm
    if not columns:
        raise _NoForm  # a table without columns has no rows
    if any(not isinstance(column, pa.Array) for column in columns):
        schema = pa.schema([pa.field(name, column.type) for name, column in zip(names, columns, strict=True)])
        described = _forms.with_description(schema.empty_table(), description)
        scattered = _plasmon.Payload.scattered(described, len(index), [_for_rust(column) for column in columns])
        if scattered is not None:
            return scattered
    return _forms.encode_table(pa.table([_whole(column) for column in columns], names=names), description)


def _label(label: Any) -> Any:
    if label is None or type(label) in (str, int, bool):
        return label
    raise _NoForm


def _range(index: pd.RangeIndex) -> Description:
    return {"start": index.start, "stop": index.stop, "step": index.step, "name": _label(index.name)}


def _decode_range(said: Description) -> pd.RangeIndex:
    return pd.RangeIndex(said["start"], said["stop"], said["step"], name=said["name"])


def _encode_labels(labels: pd.Index[Any]) -> Description:
    if type(labels) is pd.RangeIndex:
        return {"kind": "range", **_range(labels)}
    if type(labels) is pd.Index and str(labels.dtype) in ("object", "str") and all(type(it) is str for it in labels):
        return {"kind": "texts", "dtype": str(labels.dtype), "labels": list(labels), "name": _label(labels.name)}
    raise _NoForm


def _decode_labels(said: Description) -> pd.Index[Any]:
    if said["kind"] == "range":
        return _decode_range(said)
    return pd.Index(said["labels"], dtype=said["dtype"], name=said["name"])


# ---- columns


class _Strided(NamedTuple):
    """A column over values that do not lie one behind the other."""

    type: pa.DataType
    values: np.ndarray[Any, Any]
    validity: pa.Buffer | None


_Column: TypeAlias = pa.Array | pa.ChunkedArray | _Strided


def _for_rust(column: _Column) -> tuple[Any, Any]:
    if isinstance(column, _Strided):
        return column.values, column.validity
    return pa.table({"": column}), None


def _whole(column: _Column) -> pa.Array:
    """Return a column in one piece: a copy, if it is not."""
    if isinstance(column, _Strided):
        return _over(column.type, np.ascontiguousarray(column.values), column.validity)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _encode_column(column: Any) -> tuple[_Column, Description]:
    """Return an Arrow column over a column's own memory, and what is needed to get the column back."""
    dtype = column.dtype
    if type(column) in (pd.arrays.NumpyExtensionArray, pd.arrays.DatetimeArray, pd.arrays.TimedeltaArray):
        if type(dtype) is not pd.DatetimeTZDtype:
            return _encode_numpy(column.to_numpy())
    elif isinstance(dtype, np.dtype) or type(column) is not dtype.construct_array_type():
        raise _NoForm  # somebody's own class
    if type(dtype) is pd.DatetimeTZDtype:
        zone = pa.lib.tzinfo_to_string(dtype.tz)
        back = _zone(zone)
        # Zones of one offset are equal, whatever they are called.
        if type(back) is not type(dtype.tz) or back != dtype.tz or repr(back) != repr(dtype.tz):
            raise _NoForm
        values, said = _encode_numpy(column._ndarray, zone)
        return values, {**said, "zone": zone}
    if type(dtype) is pd.CategoricalDtype:
        return _encode_categorical(column)
    if type(dtype) is pd.ArrowDtype and _forms.comes_back([pa.field("", column._pa_array.type)]):
        return _chunks(column._pa_array), {"kind": "arrow"}
    if type(dtype) is pd.StringDtype and dtype.storage == "pyarrow":
        kind = "text_nan" if dtype.na_value is not pd.NA else "text_na"
        return _chunks(column._pa_array), {"kind": kind}
    raise _NoForm


def _chunks(chunks: pa.ChunkedArray) -> _Column:
    return chunks.chunk(0) if chunks.num_chunks == 1 else chunks


def _zone(name: str) -> tzinfo:
    # pandas has datetime's own UTC where it can.
    return UTC if name == "UTC" else pa.lib.string_to_tzinfo(name)


def _encode_numpy(values: np.ndarray[Any, Any], zone: str | None = None) -> tuple[_Column, Description]:
    dtype = values.dtype
    if dtype.metadata is not None or not dtype.isnative:
        raise _NoForm
    said: Description = {"kind": "numpy", "dtype": dtype.str}
    if dtype.kind in "Mm":
        unit, count = np.datetime_data(dtype)
        if count != 1 or unit not in ("s", "ms", "us", "ns"):
            raise _NoForm
        kind = pa.timestamp(unit, zone) if dtype.kind == "M" else pa.duration(unit)
        missing = np.isnat(values)
        valid = pa.array(~missing).buffers()[1] if missing.any() else None
        return _over(kind, values.view("i8"), valid), said
    if dtype.kind == "b":
        return _over(pa.bool8(), values.view("i1"), None), said
    if dtype.kind in "iuf" and dtype.itemsize <= 8:
        return _over(pa.from_numpy_dtype(dtype), values, None), said
    raise _NoForm


def _over(kind: pa.DataType, values: np.ndarray[Any, Any], validity: pa.Buffer | None) -> _Column:
    if not values.flags.c_contiguous:
        return _Strided(kind, values, validity)
    storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    array = pa.Array.from_buffers(storage, len(values), [validity, pa.py_buffer(values)])
    return array if storage is kind else pa.ExtensionArray.from_storage(kind, array)


def _encode_categorical(column: pd.Categorical) -> tuple[pa.Array, Description]:
    codes = np.ascontiguousarray(column.codes)
    values, said = _encode_column(column.categories.array)
    categories = _whole(values)
    if type(column.categories) is not pd.Index or len(categories) == 0 or len(codes) == 0:
        raise _NoForm  # a table without rows has no dictionaries
    missing = codes < 0
    valid = pa.array(~missing).buffers()[1] if missing.any() else None
    indices = _over(pa.from_numpy_dtype(codes.dtype), codes, valid)
    array = pa.DictionaryArray.from_arrays(indices, categories, ordered=bool(column.ordered), safe=False)
    name = _label(column.categories.name)
    return array, {"kind": "category", "categories": said, "ordered": bool(column.ordered), "name": name}


def _decode_column(chunks: pa.ChunkedArray, said: Description) -> Any:
    """Return what pandas takes as a column, over the memory of the Arrow column."""
    kind = said["kind"]
    if kind == "arrow":
        return pd.arrays.ArrowExtensionArray(chunks)
    if kind in ("text_nan", "text_na"):
        dtype = pd.StringDtype("pyarrow", na_value=np.nan if kind == "text_nan" else pd.NA)
        return dtype.construct_array_type()(chunks, dtype=dtype)
    if chunks.num_chunks == 1:
        column = chunks.chunk(0)
    else:
        column = chunks.combine_chunks()
        _plasmon.count_copied(column.nbytes)
    if kind == "category":
        codes = _numpy(column.indices, column.indices.type.to_pandas_dtype())
        values = _decode_column(pa.chunked_array([column.dictionary]), said["categories"])
        categories = pd.Index(values, name=said["name"], copy=False)
        dtype = pd.CategoricalDtype(categories, said["ordered"])
        return pd.Categorical._simple_new(codes, dtype)
    storage = column.storage if isinstance(column, pa.ExtensionArray) else column
    values = _numpy(storage, np.dtype(said["dtype"]))
    if "zone" not in said:
        return values
    dtype = pd.DatetimeTZDtype(np.datetime_data(values.dtype)[0], _zone(said["zone"]))
    return pd.arrays.DatetimeArray._simple_new(values, dtype=dtype)


def _numpy(column: pa.Array, dtype: Any) -> np.ndarray[Any, Any]:
    """Return the values buffer of a column: under a null it has the bits that were learned."""
    dtype = np.dtype(dtype)
    data = column.buffers()[1]
    if data is None or len(column) == 0:
        return np.empty(0, dtype)
    return np.frombuffer(data, dtype, len(column), column.offset * dtype.itemsize)

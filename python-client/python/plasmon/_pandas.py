"""Frames and series of pandas as tables, block by block, and back.

pandas keeps the columns of one dtype in blocks: matrices. A block of numbers, truth values or times is learned as
it is, its columns side by side, so that it costs the same whatever their number, and comes back as one block over
the store's memory. Texts are Arrow columns: those of pandas' own dtypes over the same memory, Python's objects as a
copy. So are categories and what else is Arrow already. A frame that has any other column, or an index or labels
that Arrow cannot say, is pickled whole; its large buffers are then columns of their own, and come back without a
copy all the same.

What is missing to pandas (NaN, NaT, None among texts) is null to readers of the table, and has its bits nevertheless.
"""

from __future__ import annotations

import contextlib
import json
import weakref
from collections import Counter
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from plasmon import _pickles, _plasmon, _tables
from plasmon.exceptions import WrongKind

if TYPE_CHECKING:
    Description = dict[str, Any]
    Blocks = list[tuple[Any, np.ndarray[Any, Any]]]


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


def decode(found: _plasmon.Object, description: Description, body: _plasmon.Buffer, copy: bool) -> Any:
    """Return the frame or series that `encode` made a table of, for a writer who is trusted."""
    return _decode(_Places(found, description, body), copy)


def decode_table(table: pa.Table, description: Description, copy: bool) -> Any:
    """Return the frame or series that a table was which does not lie as `encode` laid it: another program wrote it."""
    return _decode(_Columns(table, description), copy)


def by_parts(table: pa.Table, description: Description) -> Description:
    """Return a description by parts: as it is, or made of one that lists its columns, each with what it was.

    Tables were described so before they had blocks, and a program that wrote them may do so still.
    """
    if "parts" in description:
        return description
    columns, index, labels = list(description["columns"]), dict(description["index"]), description.get("labels")
    shape = [table.num_rows, len(columns)]
    if index["kind"] == "column":
        columns.append(index.pop("column"))
    parts = []
    for at, said in enumerate(columns):
        kind = table.column(at).type
        if said["kind"] == "category":
            said = {**said, "categories": {"type": str(getattr(kind, "value_type", None)), **said["categories"]}}
        parts.append({"type": str(kind), **said, "columns": [at, at + 1]})
    more = {"labels": {**labels, "kind": "list"}} if labels and labels["kind"] == "texts" else {}
    return {**description, "shape": shape, "parts": parts, "index": index, **more}


def checked(table: pa.Table, description: Description) -> pa.Table:
    """Return the table with columns that are what their description says, to the last value.

    `decode_table` takes their memory for NumPy's and pandas' own, which look at none of it: a truth value other than 0
    and 1, or a code without a category, leads them out of bounds. So what the code above did not write together is
    compared first. Under a null Arrow allows any bits; where they are not those of a missing value, the column is
    copied with these.

    Raises:
        ValueError: They are not.

    """
    rows, width = description["shape"]
    parts, index = description["parts"], description["index"]
    total = width + (index["kind"] == "column")
    if (rows, total) != table.shape:
        raise ValueError(f"{rows} rows of {total} columns are described, and there are {table.shape}")
    ranges = [numbers for part in parts for numbers in _ranges(part)]
    if sum(map(len, ranges)) != total or not all(ranges):
        raise ValueError(f"{sum(map(len, ranges))} columns are described, and there are {total}")
    if sorted(at for numbers in ranges for at in numbers) != list(range(total)):
        raise ValueError("columns are described twice, or not at all")
    if index["kind"] == "column" and parts[-1]["columns"] != [width, total]:
        raise ValueError("the last part is not the index")
    if index["kind"] != "column" and len(_decode_range(index)) != rows:
        raise ValueError(f"the index has {len(_decode_range(index))} labels, and the table {rows} rows")
    labels = description.get("labels")
    if labels is None and width != 1:
        raise ValueError("a series has one column")
    for label in (labels or {}).get("labels", ()):
        _label(label)
    for part in parts:
        places = _placed(part).tolist()
        if part["kind"] != "numpy" and len(places) != 1:
            raise ValueError(f"a part of kind {part['kind']} is one column")
        for at in places:
            chunks = table.column(at)
            if (column := _checked_column(chunks, part)) is not chunks:
                table = table.set_column(at, table.field(at), column)
    return table


def _checked_column(chunks: pa.ChunkedArray, said: Description) -> pa.Array | pa.ChunkedArray:
    """Return what `_decode_part` may take for what is said of it."""
    kind = said["kind"]
    if kind in ("arrow", "text_nan", "text_na", "object"):
        return chunks  # pandas itself looks at the type, and Arrow at the values
    column = chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()
    null = column.is_null().to_numpy(zero_copy_only=False)
    if kind == "category":
        if not (pa.types.is_dictionary(column.type) and pa.types.is_signed_integer(column.type.index_type)):
            raise ValueError(f"a column of {column.type} has no categories")
        _checked_column(pa.chunked_array([column.dictionary]), said["categories"])
        codes = _numpy(column.indices, column.indices.type.to_pandas_dtype())
        if ((codes < 0) | (codes >= len(column.dictionary)))[~null].any():
            raise ValueError("a code has no category")
        if (codes[null] == -1).all():
            return chunks
        values = np.where(null, -1, codes).astype(codes.dtype)
        indices = pa.Array.from_buffers(column.indices.type, len(values), [_bits(~null), pa.py_buffer(values)])
        return pa.DictionaryArray.from_arrays(indices, column.dictionary, ordered=column.type.ordered, safe=False)
    dtype = np.dtype(said["dtype"])
    if column.type != _arrow_type(dtype, said.get("zone")):
        raise ValueError(f"a column of {column.type} is none of {dtype}")
    values = _numpy(column.storage if isinstance(column, pa.ExtensionArray) else column, dtype)
    if dtype.kind == "b" and (values.view("u1") > 1).any():
        raise ValueError("a truth value is neither 0 nor 1")
    if pd.isna(values[null]).all():
        return chunks
    if dtype.kind not in "fMm":
        raise ValueError(f"a column of {dtype} has nulls")
    values = np.where(null, np.array("NaT" if dtype.kind in "Mm" else np.nan, dtype), values)
    return _over(column.type, values if dtype.kind == "f" else values.view("i8"))


def _bits(valid: np.ndarray[Any, Any]) -> pa.Buffer:
    """Return the bits that Arrow has for truth values."""
    return pa.array(valid).buffers()[1]


def as_table(value: Any) -> pa.Table:
    """Return the rows of any frame or series as Arrow has them: levels of the index are columns behind the others.

    Raises:
        pa.ArrowException, ValueError, TypeError: Arrow cannot say what a column holds.

    """
    frame = value.to_frame(name=str(value.name)) if isinstance(value, pd.Series) else value
    arrays = [pa.Array.from_pandas(_dense(frame.iloc[:, at])) for at in range(frame.shape[1])]
    names = [str(label) for label in frame.columns]
    index = frame.index
    if not isinstance(index, pd.RangeIndex):
        for level in range(index.nlevels):
            arrays.append(pa.Array.from_pandas(_dense(index.get_level_values(level).to_series())))
            names.append(_index_name(index.names[level], level, names))
    if not arrays:
        return _tables.bare_rows(len(frame))
    whole = [array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array for array in arrays]
    return pa.table(whole, names=names)


def _dense(series: pd.Series[Any]) -> pd.Series[Any]:
    return series.sparse.to_dense() if isinstance(series.dtype, pd.SparseDtype) else series


def _index_name(name: Any, level: int, taken: list[str]) -> str:
    """Return what the column of an index's level is called, for those who see it as a column."""
    return f"__index_level_{level}__" if name is None or str(name) in taken else str(name)


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


class _Part(NamedTuple):
    """A block of columns, or one column: its type, its values, and what is needed to get it back."""

    type: pa.DataType
    #: A matrix in which a row is a column, or what Arrow has.
    values: np.ndarray[Any, Any] | pa.Array | pa.ChunkedArray
    said: Description


def _encode_frame(frame: pd.DataFrame) -> _plasmon.Payload:
    if frame.attrs or not frame.flags.allows_duplicate_labels:
        raise _NoForm
    rows, width = frame.shape
    labels, names, texts = _encode_labels(frame.columns)
    parts, placed = [], []
    for number, block in enumerate(frame._mgr.blocks):
        places = block.mgr_locs.as_array
        of_block = _encode_values(block.values)
        if len(of_block) > 1 or of_block[0].said["kind"] == "object":  # each column of a block of texts is a part
            for part, place in zip(of_block, places, strict=True):
                part.said["block"] = number
                parts.append(part)
                placed.append(np.array([place]))
        else:
            parts.append(of_block[0])
            placed.append(np.asarray(places))
    description = {"type": "pandas.DataFrame", "shape": [rows, width], "labels": labels}
    return _encode(parts, placed, names, texts, frame.index, description)


def _encode_series(series: pd.Series[Any]) -> _plasmon.Payload:
    if series.attrs or not series.flags.allows_duplicate_labels:
        raise _NoForm
    name = _label(series.name)
    description = {"type": "pandas.Series", "shape": [len(series), 1], "name": name}
    parts = _encode_values(series.array)
    return _encode(parts, [np.array([0])], pa.array([str(name)]), [], series.index, description)


def _encode(
    parts: list[_Part],
    placed: list[np.ndarray[Any, Any]],
    names: pa.Array,
    labels: list[pa.Array],
    index: pd.Index[Any],
    description: Description,
) -> _plasmon.Payload:
    rows, width = description["shape"]
    description["index"] = _encode_index(index)
    if description["index"]["kind"] == "column":
        parts += _encode_values(index.array)
        placed.append(np.array([width]))
        name = None if index.name is None else _index_name(index.name, 0, names.to_pylist())
        names = pa.concat_arrays([names, pa.array([name or "__index_level_0__"], names.type)])
    if not parts:
        raise _NoForm
    description["parts"] = [{**part.said, **_numbered(at)} for part, at in zip(parts, placed, strict=True)]
    types = pa.schema([pa.field("", part.type) for part in parts])
    made = _plasmon.Payload.blocks(
        types.empty_table(),
        rows,
        pa.table({"": names}),
        [(_for_rust(part.values), at.astype("i8", copy=False)) for part, at in zip(parts, placed, strict=True)],
        [_for_rust(label) for label in labels],
        json.dumps(description),
    )
    return made or _encode_columns(parts, placed, names, description)


def _encode_columns(
    parts: list[_Part], placed: list[np.ndarray[Any, Any]], names: pa.Array, description: Description
) -> _plasmon.Payload:
    """Return the form of what has a column that cannot be written in pieces: what is not in one is copied before."""
    columns: list[pa.Array | None] = [None] * len(names)
    for part, places in zip(parts, placed, strict=True):
        made = [_over(part.type, row) for row in part.values] if isinstance(part.values, np.ndarray) else [part.values]
        for place, column in zip(places, made, strict=True):
            columns[place] = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return _tables.encode_table(pa.table(columns, names=names.to_pylist()), description)


def _for_rust(values: Any) -> Any:
    return values if isinstance(values, np.ndarray) else pa.table({"": values})


def _numbered(places: np.ndarray[Any, Any]) -> Description:
    """Return numbers of columns as starts and ends of ranges; or as one range with a step."""
    if len(places) == 1:
        return {"columns": [int(places[0]), int(places[0]) + 1]}
    steps = np.diff(places)
    if len(places) > 1 and (step := int(steps[0])) > 0 and (steps == step).all():
        ends = {"columns": [int(places[0]), int(places[-1]) + 1]}
        return ends if step == 1 else {**ends, "step": step}
    breaks = np.flatnonzero(steps != 1) + 1
    return {"columns": np.column_stack((places[np.r_[0, breaks]], places[np.r_[breaks - 1, -1]] + 1)).ravel().tolist()}


def _ranges(part: Description) -> list[range]:
    """Return the numbers of the columns of a part that another program may have described."""
    ends, step = part["columns"], part.get("step", 1)
    if step != 1 and len(ends) != 2:
        raise ValueError("a step is of one range")
    return [range(*pair, step) for pair in zip(ends[::2], ends[1::2], strict=True)]


def _placed(part: Description) -> np.ndarray[Any, Any]:
    """Return the numbers of the columns of a part."""
    ends = part["columns"]
    if len(ends) == 2:
        return np.arange(ends[0], ends[1], part.get("step", 1))
    starts = np.array(ends[::2])
    lengths = np.array(ends[1::2]) - starts
    before = np.cumsum(lengths) - lengths
    numbers: np.ndarray[Any, Any] = np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
    return numbers


def _label(label: Any) -> Any:
    """Return a label as the description has it, which is JSON: texts without surrogates, integers of 64 bits."""
    if type(label) is str:
        label.encode()  # or it raises a ValueError
        return label
    if label is None or type(label) is bool or (type(label) is int and -(2**63) <= label < 2**64):
        return label
    raise _NoForm


def _range(index: pd.RangeIndex) -> Description:
    return {"kind": "range", "start": index.start, "stop": index.stop, "step": index.step, "name": _label(index.name)}


def _decode_range(said: Description) -> pd.RangeIndex:
    return pd.RangeIndex(said["start"], said["stop"], said["step"], name=said["name"])


def _encode_index(index: pd.Index[Any]) -> Description:
    if type(index) is pd.RangeIndex:
        return _range(index)
    if type(index) in (pd.Index, pd.DatetimeIndex, pd.TimedeltaIndex) and getattr(index, "freq", None) is None:
        return {"kind": "column", "name": _label(index.name)}
    raise _NoForm


def _encode_labels(labels: pd.Index[Any]) -> tuple[Description, pa.Array, list[pa.Array]]:
    """Return what labels are, the names of columns, and the labels themselves if they are texts."""
    if type(labels) is pd.RangeIndex:
        return _range(labels), pa.array(list(map(str, labels)), pa.large_string()), []
    if type(labels) is not pd.Index:
        raise _NoForm
    said = {"kind": "texts", "dtype": str(labels.dtype), "name": _label(labels.name)}
    if type(labels.dtype) is pd.StringDtype and said["dtype"] == "str" and labels.dtype.storage == "pyarrow":
        texts = labels.array._pa_array.combine_chunks()
        if texts.null_count == 0:
            return {**said, "type": str(texts.type)}, texts, [texts]
    elif labels.dtype == np.dtype(object) and (found := _texts(labels.to_numpy())) and found[1] == [0]:
        return {**said, "type": "large_string"}, found[0], [found[0]]
    elif isinstance(labels.dtype, np.dtype) and labels.dtype.kind in "iub" and labels.dtype.isnative:
        listed = labels.tolist()
        return {**said, "kind": "list", "labels": listed}, pa.array(list(map(str, listed)), pa.large_string()), []
    elif labels.dtype == np.dtype(object):
        listed = [_label(label) for label in labels]
        return {**said, "kind": "list", "labels": listed}, pa.array(list(map(str, listed)), pa.large_string()), []
    raise _NoForm


# ---- values


def _encode_values(values: Any) -> list[_Part]:
    """Return the parts that the values of a block or a series are, over the memory of those values."""
    dtype = values.dtype
    if type(values) in (np.ndarray, pd.arrays.NumpyExtensionArray, pd.arrays.DatetimeArray, pd.arrays.TimedeltaArray):
        if type(dtype) is not pd.DatetimeTZDtype:
            return _encode_numpy(values if type(values) is np.ndarray else values._ndarray)
    elif isinstance(dtype, np.dtype) or type(values) is not dtype.construct_array_type():
        raise _NoForm  # somebody's own class
    if type(dtype) is pd.DatetimeTZDtype:
        zone = pa.lib.tzinfo_to_string(dtype.tz)
        back = _zone(zone)
        # Zones of one offset are equal, whatever they are called.
        if type(back) is not type(dtype.tz) or back != dtype.tz or repr(back) != repr(dtype.tz):
            raise _NoForm
        return _encode_numpy(values._ndarray, zone)
    if type(dtype) is pd.CategoricalDtype:
        return [_encode_categorical(values)]
    if type(dtype) is pd.ArrowDtype and _tables.comes_back([pa.field("", values._pa_array.type)]):
        return [_of_arrow(values._pa_array, {"kind": "arrow"})]
    if type(dtype) is pd.StringDtype and dtype.storage == "pyarrow":
        kind = "text_nan" if dtype.na_value is not pd.NA else "text_na"
        return [_of_arrow(values._pa_array, {"kind": kind, "type": str(values._pa_array.type)})]
    raise _NoForm


def _of_arrow(chunks: pa.ChunkedArray, said: Description) -> _Part:
    return _Part(chunks.type, chunks.chunk(0) if chunks.num_chunks == 1 else chunks, said)


def _zone(name: str) -> tzinfo:
    # pandas has datetime's own UTC where it can.
    return UTC if name == "UTC" else pa.lib.string_to_tzinfo(name)


def _encode_numpy(values: np.ndarray[Any, Any], zone: str | None = None) -> list[_Part]:
    matrix = values if values.ndim == 2 else values[np.newaxis]
    dtype = values.dtype
    if dtype.kind == "O" and dtype.metadata is None:
        return [_encode_objects(column) for column in matrix]
    kind = _arrow_type(dtype, zone)
    said: Description = {"kind": "numpy", "dtype": dtype.str}
    if dtype.kind in "Mm":
        return [_Part(kind, matrix.view("i8"), said if zone is None else {**said, "zone": zone})]
    return [_Part(kind, matrix.view("i1") if dtype.kind == "b" else matrix, said)]


def _arrow_type(dtype: np.dtype[Any], zone: str | None) -> pa.DataType:
    """Return the type of a column of values of `dtype`."""
    if dtype.metadata is not None or not dtype.isnative:
        raise _NoForm
    if dtype.kind in "Mm":
        unit, count = np.datetime_data(dtype)
        if count != 1 or unit not in ("s", "ms", "us", "ns"):
            raise _NoForm
        return pa.timestamp(unit, zone) if dtype.kind == "M" else pa.duration(unit)
    if dtype.kind == "b":
        return pa.bool8()
    if dtype.kind in "iuf" and dtype.itemsize <= 8:
        return pa.from_numpy_dtype(dtype)
    raise _NoForm


#: What stands for a missing text, by its number in the bytes of `_plasmon.texts_of`: 0 is a text.
_MISSING = (None, None, np.nan, pd.NA)


def _encode_objects(values: np.ndarray[Any, Any]) -> _Part:
    """Return a column of Python's texts; several things may stand for a missing one."""
    found = _texts(values)
    if found is None:
        raise _NoForm
    texts, kinds, each = found
    said: Description = {"kind": "object", "missing": kinds[-1]}
    if len([kind for kind in kinds if kind]) > 1:
        rows = {kind: np.flatnonzero(each == kind).tolist() for kind in kinds[:-1] if kind}
        said["others"] = [[kind, at] for kind, at in rows.items()]
    return _Part(texts.type, texts, said)


def _texts(values: np.ndarray[Any, Any]) -> tuple[pa.Array, list[int], np.ndarray[Any, Any]] | None:
    """Return an array of the texts, which kinds of things there are, and of which each one is."""
    found = _plasmon.texts_of(values, pd.NA)
    if found is None:
        return None
    texts, each = pa.table(found[0]).column(0).chunk(0), np.frombuffer(found[1], "u1")
    return texts, [kind for kind, count in enumerate(found[2]) if count] or [0], each


def _over(kind: pa.DataType, values: np.ndarray[Any, Any]) -> pa.Array:
    """Return an Arrow array over values, of which those are null that are missing to pandas."""
    missing = None
    if pa.types.is_floating(kind):
        missing = np.isnan(values)
    elif pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
        missing = values == np.iinfo("i8").min
    valid = pa.array(~missing).buffers()[1] if missing is not None and missing.any() else None
    storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    array = pa.Array.from_buffers(storage, len(values), [valid, pa.py_buffer(np.ascontiguousarray(values))])
    return array if storage is kind else pa.ExtensionArray.from_storage(kind, array)


def _encode_categorical(column: pd.Categorical) -> _Part:
    codes = np.ascontiguousarray(column.codes)
    if type(column.categories) is not pd.Index or len(column.categories) == 0 or len(codes) == 0:
        raise _NoForm  # a table without rows has no dictionaries
    values = _encode_values(column.categories.array)[0]
    categories = values.values
    if isinstance(categories, np.ndarray):
        categories = _over(values.type, categories[0])
    elif isinstance(categories, pa.ChunkedArray):
        categories = categories.combine_chunks()
    missing = codes < 0
    valid = pa.array(~missing).buffers()[1] if missing.any() else None
    indices = pa.Array.from_buffers(pa.from_numpy_dtype(codes.dtype), len(codes), [valid, pa.py_buffer(codes)])
    array = pa.DictionaryArray.from_arrays(indices, categories, ordered=bool(column.ordered), safe=False)
    name = _label(column.categories.name)
    said = {"kind": "category", "categories": values.said, "ordered": bool(column.ordered), "name": name}
    return _Part(array.type, array, said)


# ---- back


class _Places:
    """A table whose parts stand at the places that its description says."""

    def __init__(self, found: _plasmon.Object, description: Description, body: _plasmon.Buffer) -> None:
        self.found, self.description, self.body = found, description, body
        self.rows = description["shape"][0]

    def matrices(self, at: int, dtype: np.dtype[Any], places: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        """Return a block as matrices whose rows are its columns one after the other: as one."""
        start, stride = self.description["places"][at]
        body: Any = self.body
        # NumPy checks that all of it lies within the buffer.
        return [np.ndarray((len(places), self.rows), dtype, body, start, (stride, dtype.itemsize))]

    def texts(self, at: int, kind: pa.DataType, rows: int) -> pa.Array:
        """Return a column of texts."""
        view = memoryview(self.body)
        buffers = [pa.py_buffer(view[start : start + length]) for start, length in self.description["places"][at]]
        texts = pa.Array.from_buffers(kind, rows, [buffers[0] if buffers[0].size else None, *buffers[1:]])
        texts.validate()
        return texts

    def column(self, at: int) -> pa.ChunkedArray:
        """Return any column as Arrow has it."""
        return _tables.table_of(self.found).column(self.description["parts"][at]["columns"][0])

    def labels(self) -> pa.Array:
        """Return labels that are texts."""
        kind = pa.type_for_alias(self.description["labels"]["type"])
        return self.texts(len(self.description["parts"]), kind, self.description["shape"][1])


class _Columns:
    """A table of columns that lie as another program laid them. They were checked, unless its writer is trusted."""

    def __init__(self, table: pa.Table, description: Description) -> None:
        self.table, self.description = table, description
        self.rows = table.num_rows

    def matrices(self, _at: int, dtype: np.dtype[Any], places: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        """Return a block as matrices whose rows are its columns one after the other."""
        columns = [self.table.column(int(place)) for place in places]
        return [_numpy(_storage(column), dtype)[np.newaxis] for column in columns]

    def texts(self, at: int, kind: pa.DataType, _rows: int) -> pa.Array:
        """Return a column of texts."""
        return self.column(at).cast(kind)

    def column(self, at: int) -> pa.ChunkedArray:
        """Return any column as Arrow has it."""
        return self.table.column(self.description["parts"][at]["columns"][0])

    def labels(self) -> pa.Array:
        """Return labels that are texts."""
        return pa.array(self.table.column_names[: self.description["shape"][1]], pa.large_string())


def _decode(source: _Places | _Columns, copy: bool) -> Any:
    said = source.description
    matrices = {
        block: np.empty((count, source.rows), object)
        for block, count in Counter(part["block"] for part in said["parts"] if _is_of_objects(part)).items()
    }
    free = {block: iter(matrix) for block, matrix in matrices.items()}
    parts = [
        _decode_part(source, at, part, _placed(part), next(free[part["block"]]) if _is_of_objects(part) else None)
        for at, part in enumerate(said["parts"])
    ]
    if said["index"]["kind"] == "column":
        index = _index(parts.pop(), said["index"]["name"])
    else:
        index = _decode_range(said["index"])
    if said["type"] == "pandas.Series":
        values = _only(parts[0])
        series = pd.Series(values, index=index, dtype=values.dtype, name=said["name"], copy=False)
        return _pickles.compact(series) if copy else copied_on_write(series)
    blocks: Blocks = []
    placed: dict[int, list[np.ndarray[Any, Any]]] = {}
    for part, found in zip(said["parts"], parts, strict=False):  # the index is the last
        if _is_of_objects(part):
            placed.setdefault(part["block"], []).append(found[0][1])
        else:
            blocks.extend(found)
    blocks.extend((matrix, np.concatenate(placed[block])) for block, matrix in matrices.items())
    frame = _frame(blocks, index, _decode_labels(source))
    return _pickles.compact(frame) if copy else copied_on_write(frame)


def _is_of_objects(part: Description) -> bool:
    """Whether a part is a column of a block of objects."""
    return part["kind"] == "object" and "block" in part


def _only(part: Blocks) -> Any:
    """Return the values of a part that is one column."""
    values = part[0][0]
    return values[0] if values.ndim == 2 else values


def _index(part: Blocks, name: Any) -> pd.Index[Any]:
    values = _only(part)
    return pd.Index(values, dtype=values.dtype, name=name, copy=False)


def _frame(blocks: Blocks, index: pd.Index[Any], labels: pd.Index[Any]) -> pd.DataFrame:
    try:
        from pandas.api.internals import create_dataframe_from_blocks
    except ImportError:  # before pandas 3
        columns: dict[int, Any] = {}
        for values, places in blocks:
            columns.update(zip(places.tolist(), values if values.ndim == 2 else [values], strict=True))
        frame = pd.DataFrame({at: columns[at] for at in range(len(columns))}, index=index, copy=False)
        frame.columns = labels
        return frame
    return create_dataframe_from_blocks(blocks, index=index, columns=labels)


def _decode_labels(source: _Places | _Columns) -> pd.Index[Any]:
    said = source.description["labels"]
    if said["kind"] == "range":
        return _decode_range(said)
    if said["kind"] == "list":
        return pd.Index(said["labels"], dtype=said["dtype"], name=said["name"])
    texts = source.labels()
    if said["dtype"] == "object":
        return pd.Index(np.array(texts.to_pylist(), object), dtype=object, name=said["name"], copy=False)
    dtype = pd.StringDtype("pyarrow", na_value=np.nan)
    array = dtype.construct_array_type()(pa.chunked_array([texts]), dtype=dtype)
    return pd.Index(array, name=said["name"], copy=False)


def _decode_part(
    source: _Places | _Columns,
    at: int,
    said: Description,
    places: np.ndarray[Any, Any],
    row: np.ndarray[Any, Any] | None = None,
) -> Blocks:
    """Return what pandas takes as blocks, over the store's memory, each with the places of its columns.

    Objects are put into `row`, if there is one.
    """
    kind = said["kind"]
    if kind == "arrow":
        return [(pd.arrays.ArrowExtensionArray(source.column(at)), places)]
    if kind in ("text_nan", "text_na"):
        dtype = pd.StringDtype("pyarrow", na_value=np.nan if kind == "text_nan" else pd.NA)
        texts = source.texts(at, pa.type_for_alias(said["type"]), source.rows)
        chunks = texts if isinstance(texts, pa.ChunkedArray) else pa.chunked_array([texts])
        return [(dtype.construct_array_type()(chunks, dtype=dtype), places)]
    if kind == "object":
        values = np.empty(source.rows, object) if row is None else row
        _put_objects(source.texts(at, pa.large_string(), source.rows), said, values)
        return [(values, places)]
    if kind == "category":
        return [(_decode_categorical(_whole(source.column(at)), said), places)]
    dtype = np.dtype(said["dtype"])
    if dtype.kind not in "biufmM":
        raise WrongKind(f"a block of {dtype} needs a newer version of this package; as_='arrow' reads it")
    found: Blocks = []
    for values in source.matrices(at, dtype, places):
        found.append((_zoned(values, said), places[: len(values)]))
        places = places[len(values) :]
    return found


def _zoned(values: np.ndarray[Any, Any], said: Description) -> Any:
    if "zone" not in said:
        return values
    dtype = pd.DatetimeTZDtype(np.datetime_data(values.dtype)[0], _zone(said["zone"]))
    return pd.arrays.DatetimeArray._simple_new(values, dtype=dtype)


def _put_objects(texts: pa.Array, said: Description, values: np.ndarray[Any, Any]) -> None:
    _plasmon.count_copied(texts.nbytes)
    _plasmon.put_texts(pa.table({"": texts}), _MISSING[said["missing"]], values)
    for kind, rows in said.get("others", ()):
        values[rows] = _MISSING[kind]


def _decode_categorical(column: pa.DictionaryArray, said: Description) -> pd.Categorical:
    codes = _numpy(column.indices, column.indices.type.to_pandas_dtype())
    values = said["categories"]
    source = _Columns(pa.table({"": column.dictionary}), {"parts": [{**values, "columns": [0, 1]}]})
    categories = _index(_decode_part(source, 0, values, np.array([0])), said["name"])
    return pd.Categorical._simple_new(codes, pd.CategoricalDtype(categories, said["ordered"]))


def _whole(chunks: pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece: a copy, if it is not."""
    if chunks.num_chunks == 1:
        return chunks.chunk(0)
    column = chunks.combine_chunks()
    _plasmon.count_copied(column.nbytes)
    return column


def _storage(chunks: pa.ChunkedArray) -> pa.Array:
    column = _whole(chunks)
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def _numpy(column: pa.Array, dtype: Any) -> np.ndarray[Any, Any]:
    """Return the values buffer of a column: under a null it has the bits that were learned."""
    dtype = np.dtype(dtype)
    data = column.buffers()[1]
    if data is None or len(column) == 0:
        return np.empty(0, dtype)
    return np.frombuffer(data, dtype, len(column), column.offset * dtype.itemsize)


def floats(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    """Return a column of floats of a frame with the bits that were learned: those of a missing value, too."""
    whole = _whole(column)
    return _numpy(whole, whole.type.to_pandas_dtype())

"""Which form a value is stored in, and back. The plain types are converted in Rust.

From the top, the first that says a value exactly is taken (docs/values.md has the table):

1. ndarrays of numbers and truth values: a tensor.
2. Arrow data, pandas and polars frames: a table. `_pandas` and `_polars` have theirs.
3. Everything else that pickles: a pickle, whose large buffers lie beside it.

The first two are for exact types. What is of a class of its own is a pickle, also if it can give its rows as Arrow: its
class and attributes come back. Streams and queries alone, which are read and not kept, come back as the table that they
gave (`_is_stream`).

Only what is in use already is imported: a value can be an ndarray only if somebody has imported NumPy.
"""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

from plasmon import _plasmon
from plasmon._pickles import Alone, encode_pickle, unpickle, unpickling_failed
from plasmon._tables import (
    PYTHON_KEY,
    UNDISTURBED,
    comes_back,
    copied,
    description_of,
    encode_table,
    exports_arrow,
    full_name,
    loaded,
    one_batch,
    one_line,
    table_of,
    without_description,
)
from plasmon.exceptions import MalformedObject, NotStorable, PlasmonError, UnpicklingFailed, WrongKind

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

#: Numbers of the dtypes of tensors, by kind and size of NumPy's (docs/layout.md).
TENSOR_DTYPES = {
    "b1": 1,
    "i1": 2,
    "i2": 3,
    "i4": 4,
    "i8": 5,
    "u1": 6,
    "u2": 7,
    "u4": 8,
    "u8": 9,
    "f2": 10,
    "f4": 11,
    "f8": 12,
}


def encode(value: Any) -> _plasmon.Payload:
    """Return `value` in the form in which it is stored, its large parts still where they are.

    Raises:
        NotStorable: It has no form.

    """
    kind = type(value)
    module = kind.__module__.partition(".")[0]
    try:
        if (plain := _plasmon.Payload.plain(value)) is not None:
            return plain
        if kind is loaded("numpy", "ndarray"):
            made = _encode_ndarray(value)
        elif module in ("pandas", "polars", "pyarrow", "duckdb"):
            with UNDISTURBED:
                made = _encode_columns(module, value)
        else:
            made = None
        if made is None:
            _check_class(value)
            made = encode_pickle(Alone(value) if kind is loaded("numpy", "ndarray") else value)
        return made
    except PlasmonError:
        raise
    except Exception as error:
        text = f"a value of type {full_name(kind)} cannot be stored: {one_line(error)}"
        if exports_arrow(kind) and module not in ("pandas", "polars", "pyarrow"):
            text += "; pyarrow.table(value) has its rows, and can be"
        raise NotStorable(text) from error


def _check_class(value: Any) -> None:
    """Refuse a scalar of somebody's own class that its library pickles as one of its own."""
    kind = type(value)
    scalars = (("numpy", "generic"), ("pandas", "Timestamp"), ("pandas", "Timedelta"), ("pandas", "Period"))
    own = not kind.__module__.startswith(("numpy", "pandas"))
    if own and isinstance(value, tuple(base for at in scalars if (base := loaded(*at)))):
        found = type(pickle.loads(pickle.dumps(value, 5)))
        if found is not kind:
            raise TypeError(f"it pickles as {full_name(found)}")


def _encode_columns(module: str, value: Any) -> _plasmon.Payload | None:
    if module == "pandas":
        from plasmon import _pandas

        return _pandas.encode(value)
    if module == "polars":
        from plasmon import _polars

        return _polars.encode(value)
    if _is_stream(value):
        return _plasmon.Payload.table(value)  # which may run Python code, below a frame of Rust
    return _encode_arrow(value) if module == "pyarrow" else None


def _is_stream(value: Any) -> bool:
    """Whether a value has rows only while they are read, so that they are all there is to store."""
    if type(value) is loaded("duckdb", "DuckDBPyRelation"):
        return True
    readers = (loaded("pyarrow", "RecordBatchReader"), loaded("pyarrow.ipc", "RecordBatchStreamReader"))
    return type(value) in readers


# ---- tensors


def tensor_dtype(dtype: np.dtype[Any]) -> int | None:
    """Return the number of a dtype of tensors, `None` if tensors cannot have it."""
    if not dtype.isnative or dtype.metadata is not None:
        return None
    return TENSOR_DTYPES.get(f"{dtype.kind}{dtype.itemsize}") if type(dtype).__module__ == "numpy.dtypes" else None


def _encode_ndarray(array: np.ndarray[Any, Any]) -> _plasmon.Payload | None:
    dtype = tensor_dtype(array.dtype)
    if dtype is None:
        return None
    # An array without dimensions is no buffer for Rust.
    return _plasmon.Payload.tensor(dtype, array.shape, array if array.ndim else array.reshape(1))


# ---- tables


def _encode_arrow(value: Any) -> _plasmon.Payload | None:
    import pyarrow as pa

    try:
        if type(value) is pa.Table:
            return _plasmon.Payload.table(value) if _is_plain(value) and comes_back(value.schema) else None
        if type(value) is pa.RecordBatch:
            if not comes_back(value.schema):
                return None
            return encode_table(pa.Table.from_batches([value]), {"type": "pyarrow.RecordBatch"})
        if isinstance(value, pa.Array | pa.ChunkedArray) and not comes_back([pa.field("value", value.type)]):
            return None
        if type(value) is pa.ChunkedArray:
            return encode_table(pa.table({"value": value}), {"type": "pyarrow.ChunkedArray"})
        if isinstance(value, pa.Array):  # of whichever class its type has
            return encode_table(pa.table({"value": value}), {"type": "pyarrow.Array"})
    except ValueError:
        return None  # a type that Rust's Arrow does not have: it pickles
    return None


def _is_plain(table: pa.Table) -> bool:
    """Whether a table's metadata could not be taken for a description."""
    return PYTHON_KEY not in (table.schema.metadata or {})


def decode(found: _plasmon.Object, copy: bool = False) -> Any:
    """Return the value of a recalled object, its large parts in place, or with `copy` private and writable."""
    if found.kind == "table":
        with UNDISTURBED:
            return _decode_table(found, copy)
    if found.kind == "pickle":
        stream, buffers = found.pickle(copy)
        try:
            return unpickle(stream, buffers, copy)
        except Exception as error:  # of any class: the value's own code runs
            raise unpickling_failed(found, stream, error) from error
    value = found.value()
    if value is None and found.kind != "null":
        raise WrongKind(f"an object of kind {found.kind} needs a newer version of this package; as_='arrow' reads it")
    if copy and value is not None and found.kind == "tensor":
        return value.copy("K")
    return memoryview(bytearray(value)) if copy and type(value) is memoryview else value


def shape(found: _plasmon.Object) -> tuple[int, ...] | None:
    """Return the shape of a tensor, rows and columns of a table, `None` of anything else."""
    if found.kind == "tensor":
        return tuple(found.value().shape)
    if found.kind == "table":
        if blocks := found.blocks():
            rows, columns = json.loads(bytes(blocks[0]))["shape"]
            return rows, columns
        with UNDISTURBED:
            table = table_of(found)
        try:
            rows, columns = description_of(table).get("shape", table.shape)
            return table.num_rows, columns
        except (AttributeError, TypeError, ValueError):
            return table.num_rows, table.num_columns  # another program wrote the description
    return None


def _not_installed(found: _plasmon.Object, error: ModuleNotFoundError) -> UnpicklingFailed:
    failed = UnpicklingFailed(
        f"{found.name!r} in namespace {found.namespace!r} is there, but this Python has no module {error.name!r} to "
        "make it with: install that, or recall it with as_='arrow', which does without"
    )
    failed.name, failed.namespace, failed.type_name = found.name, found.namespace, None
    return failed


def _decode_table(found: _plasmon.Object, copy: bool) -> Any:
    """Return what a table was in Python."""
    try:
        if blocks := found.blocks():
            described, body = blocks
            description = json.loads(bytes(described))
            if description.get("type") in ("pandas.DataFrame", "pandas.Series"):
                from plasmon import _pandas

                return _pandas.decode(found, description, body, copy)
        table = table_of(found)
        return _as_described(table, description_of(table), found.described, copy)
    except (PlasmonError, MemoryError):
        raise
    except ModuleNotFoundError as error:  # nothing is wrong with the value
        raise _not_installed(found, error) from error
    except Exception as error:
        text = f"the description of what a table was in Python is wrong: {type(error).__name__}: {one_line(error)}"
        raise MalformedObject(f"{text}; as_='arrow' reads the table") from error


def _as_described(table: pa.Table, said: Any, trusted: bool, copy: bool) -> Any:
    """Return what a description says that a table was. If it is not `trusted`, it is compared with the table first."""
    kind = said.get("type", "pyarrow.Table")
    library = kind.partition(".")[0]
    if library == "pandas":
        from plasmon import _pandas

        said = _pandas.by_parts(table, said)
        if not trusted:
            table = _pandas.checked(table, said)
        return _pandas.decode_table(table, said, copy)
    if library == "polars":
        from plasmon import _polars

        return _polars.decode(table, said, copy)
    if copy:
        table = copied(table)
    if kind == "pyarrow.Table":
        return table
    table = without_description(table)
    if kind == "pyarrow.RecordBatch":
        return one_batch(table)
    column = table.column(0)
    if kind == "pyarrow.ChunkedArray":
        return column
    if kind == "pyarrow.Array":
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    raise WrongKind(f"a value of type {kind} needs a newer version of this package; as_='arrow' reads it")

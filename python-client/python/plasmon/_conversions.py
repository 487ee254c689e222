"""Recalling a value as something else than it was learned as: ``as_=`` and ``columns=`` of `Brain.recall`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from plasmon import _plasmon
from plasmon._forms import decode
from plasmon._tables import PYTHON_KEY, UNDISTURBED, copied, exports_arrow, full_name, loaded, one_line, table_of
from plasmon.exceptions import PlasmonError, WrongKind

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

#: Most columns of a table that a message names.
_COLUMNS_SHOWN = 20


def convert(found: _plasmon.Object, as_: str | None, columns: list[str] | None, copy: bool) -> Any:
    """Return a recalled object as what was asked for."""
    if isinstance(columns, str):
        raise TypeError(f"columns is a list of names, and this is one str: {columns!r}")
    if as_ not in (None, "arrow", "pandas", "polars", "numpy", "buffer"):
        raise ValueError(f'as_ is "arrow", "pandas", "polars", "numpy" or "buffer", and this is {as_!r}')
    # The code of a pickle is the user's.
    with contextlib.nullcontext() if found.kind == "pickle" else UNDISTURBED:
        if as_ is None:
            return _convert(found, as_, columns, copy)
        try:
            return _convert(found, as_, columns, copy)
        except PlasmonError:
            raise
        except (NotImplementedError, OverflowError, TypeError, ValueError) as error:  # of other libraries
            text = f"{found.name!r} cannot be had as_={as_!r}: {one_line(error)}; recall it as what it is"
            raise WrongKind(text) from error


def _convert(found: _plasmon.Object, as_: str | None, columns: list[str] | None, copy: bool) -> Any:
    if copy:
        _plasmon.count_copied(found.nbytes)
    if as_ is None:
        return _select(decode(found, copy), columns)
    if as_ == "buffer":
        buffer = found.buffer()
        if buffer is None:
            raise WrongKind(f"a value of kind {found.kind} has no single buffer; as_='arrow' gives its columns")
        return memoryview(bytearray(buffer)) if copy else memoryview(buffer)
    if as_ == "arrow":
        table = _select(_data(found), columns)
        return copied(table) if copy else table
    if as_ == "pandas":
        return _as_pandas(found, columns, copy)
    if as_ == "polars":
        return _select(_as_polars(found, copy), columns)
    return _as_numpy(found, columns, copy)


def _select(value: Any, columns: list[str] | None) -> Any:
    """Return a table of these columns, or, if none are asked for, the value itself."""
    if columns is None:
        return value
    if isinstance(value, _classes(("pyarrow", "Table"), ("pyarrow", "RecordBatch"))):
        there, select = value.column_names, value.select
    elif isinstance(value, _classes(("polars", "DataFrame"))):
        there, select = value.columns, value.select
    elif isinstance(value, _classes(("pandas", "DataFrame"))):
        there, select = value.columns, value.__getitem__
    else:
        raise WrongKind(f"columns= is for tables, and this is a {full_name(type(value))}")
    missing = [column for column in columns if column not in there]
    if missing:
        shown = ", ".join(map(repr, there[:_COLUMNS_SHOWN])) + (", …" if len(there) > _COLUMNS_SHOWN else "")
        asked = ", ".join(map(repr, missing))
        raise WrongKind(f"columns= asks for {asked}, and this table has {shown or 'no columns'}")
    return select(columns)


def _classes(*names: tuple[str, str]) -> tuple[Any, ...]:
    """Return those of these classes whose modules are imported."""
    return tuple(kind for module, name in names if (kind := loaded(module, name)))


def _data(found: _plasmon.Object) -> pa.Table:
    """Return the data of an object as a table. Of a pickle these are the value's rows, if it has any."""
    if found.kind != "pickle":
        return table_of(found)
    value = decode(found)
    with UNDISTURBED:
        return _rows_as_table(value)


def _rows_as_table(value: Any) -> pa.Table:
    import pyarrow as pa

    try:
        if isinstance(value, _classes(("pandas", "DataFrame"), ("pandas", "Series"))):
            from plasmon import _pandas

            return _pandas.as_table(value)
        if isinstance(value, pa.Array | pa.ChunkedArray):
            return pa.table({"value": value})
        if exports_arrow(type(value)) and not isinstance(value, type):
            return pa.table(value)
    except (pa.ArrowException, ValueError, TypeError, NotImplementedError) as error:
        text = f"Arrow cannot say what this {full_name(type(value))} holds: {one_line(error)}"
        raise WrongKind(f"{text}; recall it as what it is") from error
    raise WrongKind(f"a {full_name(type(value))} is no table; recall it as what it is")


def _as_pandas(found: _plasmon.Object, columns: list[str] | None, copy: bool) -> Any:
    if found.kind in ("table", "pickle"):
        value = decode(found, copy)
        if isinstance(value, _classes(("pandas", "DataFrame"), ("pandas", "Series"), ("pandas", "Index"))):
            return _select(value, columns)
    from plasmon import _pandas

    table = _with_truth_values(_select(_data(found), columns))
    return copied(table).to_pandas().copy() if copy else _pandas.copied_on_write(table.to_pandas())


def _as_polars(found: _plasmon.Object, copy: bool) -> Any:
    import polars as pl

    from plasmon import _polars

    if found.kind != "pickle":
        table = table_of(found)
        source: Any = _with_truth_values(table)
        if copy:
            source = copied(source)
        elif source is table:
            source = found.table()
    else:
        value = decode(found, copy)
        if isinstance(value, pl.DataFrame | pl.Series):
            return value if isinstance(value, pl.DataFrame) else value.to_frame()
        source = _with_truth_values(_rows_as_table(value))
    try:
        return _polars.read(source)
    except ValueError as error:
        raise WrongKind(f"{error}; as_='arrow' does") from error


def _with_truth_values(table: pa.Table) -> pa.Table:
    """Return a table with truth values of a bit each: ours take a byte, and are an extension that few readers know."""
    import pyarrow as pa

    kind = getattr(pa, "Bool8Type", ())
    for at, field in enumerate(table.schema):
        if isinstance(field.type, kind):
            chunks = [_truth_values(chunk) for chunk in table.column(at).chunks]
            values = pa.chunked_array(chunks, pa.bool_())
            _plasmon.count_copied(values.nbytes)
            table = table.set_column(at, pa.field(field.name, pa.bool_(), field.nullable), values)
    return table


def _truth_values(column: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    return pc.not_equal(column.storage, 0)  # which bytes it has its writer knows


def _as_numpy(found: _plasmon.Object, columns: list[str] | None, copy: bool) -> Any:
    import numpy as np

    def own(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return array.copy("K") if copy and not array.flags.writeable else array

    if found.kind == "tensor":
        return decode(found, copy)
    if found.kind in ("bytes", "text"):
        return own(np.frombuffer(memoryview(found.buffer() or b""), np.uint8))
    if found.kind == "table":
        return {name: own(array) for name, array in _arrays(table_of(found), columns).items()}
    value = decode(found, copy)
    if _is_rows(value):
        return {name: own(array) for name, array in _arrays(_rows_as_table(value), columns).items()}
    array = value if isinstance(value, np.ndarray) else np.asarray(value)
    if array.dtype.hasobject and not isinstance(value, np.ndarray | list):
        raise WrongKind(f"a {full_name(type(value))} is no array; recall it as what it is")
    return own(array)


def _is_rows(value: Any) -> bool:
    frames = [(module, name) for module in ("pandas", "polars") for name in ("DataFrame", "Series")]
    return isinstance(value, _classes(*frames, ("pyarrow", "Table"), ("pyarrow", "RecordBatch")))


def _arrays(table: pa.Table, columns: list[str] | None) -> dict[str, np.ndarray[Any, Any]]:
    """Return the columns of a table by name."""
    table = _select(table, columns)
    if len(set(table.column_names)) != table.num_columns:
        raise WrongKind("arrays by name cannot be had of a table with columns of one name; as_='arrow' has them all")
    is_frame = b'"pandas.' in (table.schema.metadata or {}).get(PYTHON_KEY, b"")
    found = (_column_as_numpy(column, is_frame) for column in table.columns)
    return dict(zip(table.column_names, found, strict=True))


def _column_as_numpy(column: pa.ChunkedArray, is_of_frame: bool) -> np.ndarray[Any, Any]:
    import pyarrow as pa

    if is_of_frame and pa.types.is_floating(column.type):
        from plasmon import _pandas

        return _pandas.floats(column)  # what is missing is the NaN that was learned
    array = column.combine_chunks()
    if isinstance(array.type, getattr(pa, "Bool8Type", ())):
        array = _truth_values(array)
    values: np.ndarray[Any, Any] = array.to_numpy(zero_copy_only=False)
    return values

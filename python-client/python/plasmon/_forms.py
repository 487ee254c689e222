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

import contextlib
import copyreg
import io
import itertools
import json
import pickle
import sys
from typing import TYPE_CHECKING, Any, ClassVar

from plasmon import _plasmon
from plasmon.exceptions import MalformedObject, NotStorable, PlasmonError, UnpicklingFailed, WrongKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np
    import pyarrow as pa

    _Reducer = Callable[[Any], Any]

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

#: Key of a table's schema metadata under which stands, as JSON, what it was in Python.
PYTHON_KEY = b"plasmon.python"

#: For what pyarrow, pandas, polars and other makers of columns do: they give the interpreter lock away.
_UNDISTURBED = _plasmon.Undisturbed()

#: Buffers of a pickle from this length on, in bytes, lie beside it.
OUT_OF_BAND_BYTES = 4096

#: Most columns of a table that a message names.
_COLUMNS_SHOWN = 20

#: How much of a pickle that cannot be read is looked at, to say what it is of.
_LOOK_BYTES = 64 << 10


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
        if kind is _loaded("numpy", "ndarray"):
            made = _encode_ndarray(value)
        elif module in ("pandas", "polars", "pyarrow", "duckdb"):
            with _UNDISTURBED:
                made = _encode_columns(module, value)
        else:
            made = None
        if made is None:
            _check_class(value)
            made = encode_pickle(_Alone(value) if kind is _loaded("numpy", "ndarray") else value)
        return made
    except PlasmonError:
        raise
    except Exception as error:
        text = f"a value of type {_full_name(kind)} cannot be stored: {one_line(error)}"
        if _exports_arrow(kind) and module not in ("pandas", "polars", "pyarrow"):
            text += "; pyarrow.table(value) has its rows, and can be"
        raise NotStorable(text) from error


def _check_class(value: Any) -> None:
    """Refuse a scalar of somebody's own class that its library pickles as one of its own."""
    kind = type(value)
    scalars = (("numpy", "generic"), ("pandas", "Timestamp"), ("pandas", "Timedelta"), ("pandas", "Period"))
    own = not kind.__module__.startswith(("numpy", "pandas"))
    if own and isinstance(value, tuple(base for at in scalars if (base := _loaded(*at)))):
        found = type(pickle.loads(pickle.dumps(value, 5)))
        if found is not kind:
            raise TypeError(f"it pickles as {_full_name(found)}")


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
    if type(value) is _loaded("duckdb", "DuckDBPyRelation"):
        return True
    readers = (_loaded("pyarrow", "RecordBatchReader"), _loaded("pyarrow.ipc", "RecordBatchStreamReader"))
    return type(value) in readers


def _exports_arrow(kind: type) -> bool:
    return hasattr(kind, "__arrow_c_stream__") or hasattr(kind, "__arrow_c_array__")


def _loaded(module: str, name: str) -> Any:
    """Return an attribute of a module if that is imported already."""
    return getattr(sys.modules.get(module), name, None)


def _full_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def one_line(error: BaseException) -> str:
    """Return what an exception says, for a message of ours."""
    try:
        said = str(error).strip().partition("\n")[0]
    except Exception:  # somebody's own class
        said = ""
    return said or type(error).__name__


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


def with_description(table: pa.Table, description: dict[str, Any]) -> pa.Table:
    """Return a table whose metadata say what it was in Python."""
    metadata = {**(table.schema.metadata or {}), PYTHON_KEY: json.dumps(description).encode()}
    return _with_metadata(table, metadata)


def without_description(table: pa.Table) -> pa.Table:
    """Return a table without what `with_description` added."""
    metadata = {key: value for key, value in table.schema.metadata.items() if key != PYTHON_KEY}
    return _with_metadata(table, metadata or None)


def _with_metadata(table: pa.Table, metadata: dict[bytes, bytes] | None) -> pa.Table:
    return table.replace_schema_metadata(metadata) if table.num_columns else bare_rows(table.num_rows, metadata)


def bare_rows(count: int, metadata: dict[bytes, bytes] | None = None) -> pa.Table:
    """Return rows without columns: of those, pyarrow forgets the number when it makes one table of another."""
    import pyarrow as pa

    batch = pa.RecordBatch.from_struct_array(pa.StructArray.from_buffers(pa.struct([]), count, [None]))
    return pa.Table.from_batches([batch.replace_schema_metadata(metadata)])


def encode_table(table: pa.Table, description: dict[str, Any]) -> _plasmon.Payload:
    """Return a table with a description in the form in which it is stored."""
    return _plasmon.Payload.table(with_description(table, description), described=True)


def encode_rows(rows: int, description: dict[str, Any]) -> _plasmon.Payload:
    """Return the form of rows without columns."""
    return encode_table(bare_rows(rows), description)


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


def comes_back(fields: Iterable[pa.Field]) -> bool:
    """Whether a reader gets columns of the same types: an extension type has to be registered with pyarrow for that."""
    import pyarrow as pa

    nested = [field for field in fields if field.type.num_fields or isinstance(field.type, pa.BaseExtensionType)]
    if not nested:
        return True
    schema = pa.schema(nested)
    try:
        return bool(pa.ipc.read_schema(schema.serialize()).equals(schema, check_metadata=True))
    except (pa.ArrowException, ValueError, TypeError):
        return False


def decode(found: _plasmon.Object, copy: bool = False) -> Any:
    """Return the value of a recalled object, its large parts in place, or with `copy` private and writable."""
    if found.kind == "table":
        with _UNDISTURBED:
            return _decode_table(found, copy)
    if found.kind == "pickle":
        stream, buffers = found.pickle(copy)
        try:
            return _unpickle(stream, buffers, copy)
        except Exception as error:  # of any class: the value's own code runs
            raise _unpickling_failed(found, stream, error) from error
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
        with _UNDISTURBED:
            table = table_of(found)
        try:
            rows, columns = _description(table).get("shape", table.shape)
            return table.num_rows, columns
        except (AttributeError, TypeError, ValueError):
            return table.num_rows, table.num_columns  # another program wrote the description
    return None


def _unpickle(stream: _plasmon.Buffer, buffers: list[_plasmon.Buffer], copy: bool) -> Any:
    value = pickle.loads(memoryview(stream), buffers=buffers)
    if copy and type(value) is _loaded("numpy", "ndarray") and not value.flags.writeable:
        return value.copy("K")  # it is short, and stood in the stream
    if copy and type(value) is memoryview and value.readonly:
        return compact(value)
    return value


def _unpickling_failed(found: _plasmon.Object, stream: _plasmon.Buffer, error: Exception) -> UnpicklingFailed:
    names = _names_in_pickle(memoryview(stream))
    cure = "recall it with as_='buffer' for the pickle itself"
    if isinstance(error, ModuleNotFoundError):
        cure = f"make the module {error.name!r} importable here"
    elif isinstance(error, RecursionError):
        cure = "it is nested deeply: raise sys.setrecursionlimit() for as long as it is recalled"
    elif lost := next((name for name in names if name.startswith("__main__.")), None):
        cure = (
            f"__main__ is the script or notebook that runs, and {lost[9:]} was in the one that learned this; "
            f"define it in a module which both import, or learn cloudpickle.dumps(value) and recall the bytes"
        )
    made = f", which begins with {names[0]}," if names else ""
    text = (
        f"{found.name!r} in namespace {found.namespace!r} is there, but its pickle{made} cannot be read: "
        f"{type(error).__name__}: {one_line(error)}; {cure}"
    )
    failed = UnpicklingFailed(text)
    failed.name, failed.namespace, failed.type_name = found.name, found.namespace, names[0] if names else None
    return failed


def _not_installed(found: _plasmon.Object, error: ModuleNotFoundError) -> UnpicklingFailed:
    failed = UnpicklingFailed(
        f"{found.name!r} in namespace {found.namespace!r} is there, but this Python has no module {error.name!r} to "
        "make it with: install that, or recall it with as_='arrow', which does without"
    )
    failed.name, failed.namespace, failed.type_name = found.name, found.namespace, None
    return failed


def _names_in_pickle(stream: memoryview) -> list[str]:
    """Return the classes and functions that a pickle names, as far as they stand in its first operations."""
    import pickletools

    names: list[str] = []
    texts: list[str] = []
    with contextlib.suppress(Exception):  # it was not to be read before, either
        for operation, argument, _ in itertools.islice(pickletools.genops(bytes(stream[:_LOOK_BYTES])), 1_000):
            if operation.name == "GLOBAL":
                names.append(str(argument).replace(" ", "."))
            elif operation.name == "STACK_GLOBAL" and len(texts) >= 2:
                names.append(f"{texts[-2]}.{texts[-1]}")
            elif isinstance(argument, str):
                texts.append(argument)
    return names


def table_of(found: _plasmon.Object) -> pa.Table:
    """Return the object as a table, in place."""
    import pyarrow as pa

    file = found.trusted_file()
    # What others wrote is validated first, in Rust. What need not be, pyarrow reads in half the time: by the other way
    # every column has to cross Arrow's C interface.
    source = found.table() if file is None else None
    try:
        return pa.ipc.open_file(file).read_all() if source is None else pa.table(source)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise MalformedObject(f"pyarrow cannot read the object's columns: {one_line(error)}") from error


def _description(table: pa.Table) -> Any:
    """Return what is said about the Python value in the table's metadata."""
    metadata = table.schema.metadata
    text = metadata.get(PYTHON_KEY) if metadata else None
    return _plasmon.parse_json(text.decode()) if text else {}


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
        return _as_described(table, _description(table), found.described, copy)
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
        table = _copied(table)
    if kind == "pyarrow.Table":
        return table
    table = without_description(table)
    if kind == "pyarrow.RecordBatch":
        return _one_batch(table)
    column = table.column(0)
    if kind == "pyarrow.ChunkedArray":
        return column
    if kind == "pyarrow.Array":
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    raise WrongKind(f"a value of type {kind} needs a newer version of this package; as_='arrow' reads it")


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    import pyarrow as pa

    batches = (table.combine_chunks() if table.num_columns else table).to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _copied(table: pa.Table) -> pa.Table:
    """Return a table in memory of its own."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return pa.ipc.open_stream(sink.getvalue()).read_all()


# ---- pickles


def encode_pickle(value: Any) -> _plasmon.Payload:
    """Return a pickle of `value`, its large buffers where they are."""
    return _plasmon.Payload.pickle(*_pickled(value))


def _pickled(value: Any) -> tuple[memoryview, list[pickle.PickleBuffer]]:
    """Return a pickle of `value` and its large buffers, which are still where they are."""
    buffers: list[pickle.PickleBuffer] = []

    def place(buffer: pickle.PickleBuffer) -> bool:
        """Whether the buffer goes in-band."""
        try:
            if buffer.raw().nbytes < OUT_OF_BAND_BYTES:
                return True
        except BufferError:
            return True  # not contiguous
        buffers.append(buffer)
        return False

    sink = io.BytesIO()
    pickler = pickle.Pickler(sink, protocol=5, buffer_callback=place)
    pickler.dispatch_table = _Reducers(copyreg.dispatch_table)
    try:
        pickler.dump(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        by_value = _cloudpickler()
        if by_value is None:
            raise
        sink = io.BytesIO()
        buffers.clear()
        try:
            by_value(sink, protocol=5, buffer_callback=place).dump(value)
        except Exception:
            raise error from None  # what the standard library says is clearer
    return sink.getbuffer(), buffers


def _refuse(value: Any) -> Any:
    raise TypeError(f"cannot pickle {type(value).__name__!r} object")


def _cloudpickler() -> Any:
    """Return cloudpickle's pickler, without its taste for the contents of open files; `None` if it is not there."""
    try:
        import cloudpickle
    except ImportError:
        return None

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        dispatch_table: ClassVar[Any] = _Reducers(cloudpickle.Pickler.dispatch_table)
        dispatch_table[io.TextIOWrapper] = _refuse

    return Pickler


class _Reducers(dict[type, "_Reducer"]):
    """How instances of a type are pickled: as we do it, else as `others` say."""

    def __init__(self, others: Mapping[type, _Reducer]) -> None:
        super().__init__({bytearray: _reduce_bytearray, memoryview: _reduce_memoryview})
        self._others = others
        self._unknown: set[type] = set()
        if _loaded("torch", "nn"):
            from plasmon import _torch

            self.update(_torch.reducers())

    def __missing__(self, kind: type) -> _Reducer:
        """Find what is said of a type when its first instance is met."""
        if kind not in self._unknown:
            if reducer := _reducer_of(kind):
                self[kind] = reducer
                return reducer
            self._unknown.add(kind)
        return self._others[kind]


def _reducer_of(kind: type) -> _Reducer | None:
    """Return how instances of a type of NumPy, Arrow, pandas or polars, or one derived from it, are pickled."""
    ndarray = _loaded("numpy", "ndarray")
    if ndarray is not None and issubclass(kind, ndarray):
        if kind is ndarray:
            return _reduce_ndarray
        return _reduce_subclass if _is_pickled_by_numpy(kind) else None
    if kind is _loaded("pyarrow.lib", "Tensor"):
        return _reduce_tensor
    # They forget how many rows there are where there are no columns.
    if kind in (_loaded("pyarrow", "Table"), _loaded("pyarrow", "RecordBatch"), _loaded("polars", "DataFrame")):
        return _reduce_rows
    for base in (_loaded(module, name) for module in ("pandas", "polars") for name in ("DataFrame", "Series")):
        names = ("__reduce_ex__", "__getstate__")
        if base and kind is not base and issubclass(kind, base) and _is_alike(kind, base, names):
            return _reduce_own_class
    return None


def _is_alike(kind: type, base: type, names: tuple[str, ...]) -> bool:
    """Whether a class has these attributes from the one that it is derived from."""
    return all(getattr(kind, name, None) is getattr(base, name, None) for name in names)


def _reduce_bytearray(value: bytearray) -> tuple[Any, ...]:
    if len(value) < OUT_OF_BAND_BYTES:
        return (bytearray, (bytes(value),))
    return (_bytearray, (pickle.PickleBuffer(value),))


def _bytearray(data: Any) -> bytearray:
    if type(data) is _plasmon.Buffer and not data.is_copy:
        _plasmon.count_copied(len(data))
    return bytearray(data)


def _reduce_memoryview(value: memoryview) -> tuple[Any, ...]:
    if not _is_cast_by_python(value):
        import numpy as np

        return (memoryview, (np.asarray(value),))
    flat = value if value.contiguous else memoryview(value.tobytes()).cast("B")
    return (_memoryview, (pickle.PickleBuffer(flat), value.format, value.shape, not value.readonly))


def _is_cast_by_python(view: memoryview) -> bool:
    """Whether Python makes such a view of bytes: not of all elements that NumPy has, nor of none in many dimensions."""
    try:
        memoryview(bytes(view.itemsize)).cast(view.format)  # type: ignore[call-overload]
    except ValueError:
        return False
    return 0 not in (view.shape or ()) or view.ndim == 1


def _memoryview(data: Any, form: str, shape: tuple[int, ...], writable: bool = False) -> memoryview:
    if writable:
        import numpy as np

        data = np.frombuffer(data, "u1")
    flat = memoryview(data).cast("B")
    if form == "B" and len(shape) == 1:
        return flat
    return flat.cast(form) if len(shape) == 1 else flat.cast(form, shape)  # type: ignore[call-overload,no-any-return]


class _Alone:
    """An ndarray that is a value by itself: it is recalled as tensors are, read-only and in place."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array

    def __reduce__(self) -> Any:
        array = self._array
        if array.dtype.hasobject or array.dtype.itemsize == 0:
            return array.__reduce_ex__(5)
        array = _in_one_piece(array)
        order = "C" if array.flags.c_contiguous else "F"
        return (_alone, (pickle.PickleBuffer(_bytes_of(array)), array.dtype, array.shape, order))


def _alone(data: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any) -> np.ndarray[Any, Any]:
    import numpy as np

    is_copy = type(data) is _plasmon.Buffer and data.is_copy
    buffer: Any = data if is_copy else memoryview(data).toreadonly()
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


def _in_one_piece(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.flags.c_contiguous or array.flags.f_contiguous:
        return array
    import numpy as np

    return np.ascontiguousarray(array)  # NumPy would forget their byte order


def _reduce_ndarray(array: np.ndarray[Any, Any]) -> Any:
    """Return how an array is pickled: as NumPy does it, and alike whether it can be written to or not."""
    if array.dtype.hasobject:
        return array.__reduce_ex__(5)
    array = _in_one_piece(array)
    # NumPy pickles these in-band, since the buffer protocol has no datetimes.
    if array.dtype.kind in "Mm" and array.nbytes >= OUT_OF_BAND_BYTES:
        return (_viewed, (array.view("i8"), array.dtype))
    reduced: Any = array.__reduce_ex__(5)
    make, (first, *rest) = reduced[:2]
    if array.flags.writeable or type(first) is not pickle.PickleBuffer:
        return reduced
    return (make, (pickle.PickleBuffer(_bytes_of(array)), *rest))


def _bytes_of(array: np.ndarray[Any, Any]) -> Any:
    """Return the bytes of an array in one piece, as if they could be written to: whether they can is not pickled."""
    import numpy as np

    return np.asarray(_Shown(array))


class _Shown:
    """Shows NumPy the bytes of an array, and holds them."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array
        address = array.__array_interface__["data"][0]
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (array.nbytes,), "data": (address, False)}


def _is_pickled_by_numpy(kind: type) -> bool:
    """Whether instances of a subclass of ndarray are their elements and attributes, and nothing else."""
    import numpy as np

    base = np.ma.MaskedArray if issubclass(kind, np.ma.MaskedArray) else np.ndarray
    return _is_alike(kind, base, ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"))


def _reduce_subclass(array: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    import numpy as np

    # A memmap's are the file, and the mapping of it, which are not what is stored.
    attributes = None if type(array) is np.memmap else object.__getstate__(array)
    return (_subclassed, (np.ndarray.view(array, np.ndarray), type(array)), attributes, None, None, _set_attributes)


def _subclassed(elements: np.ndarray[Any, Any], kind: type[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.ndarray.view(elements, kind)


def _set_attributes(array: Any, attributes: Any) -> None:
    """Set what `object.__getstate__` returned."""
    by_name, in_slots = attributes if type(attributes) is tuple else (attributes, None)
    if by_name:
        vars(array).update(by_name)
    for name, value in (in_slots or {}).items():
        setattr(array, name, value)


def _reduce_own_class(value: Any) -> Any:
    """Pickle a frame or series of somebody's own class with the attributes that their library forgets."""
    reduced = value.__reduce_ex__(5)
    base = next(kind for kind in type(value).__mro__ if kind.__module__.partition(".")[0] in ("pandas", "polars"))
    own = set(vars(base())) - set(getattr(base, "_metadata", ()))
    known = own.union(getattr(value, "_metadata", ()), getattr(value, "_accessors", ()))
    attributes = {name: attribute for name, attribute in vars(value).items() if name not in known}
    return (_own_class, (*reduced[:3], attributes)) if attributes else reduced


def _own_class(make: Callable[..., Any], arguments: tuple[Any, ...], state: Any, attributes: dict[str, Any]) -> Any:
    value = make(*arguments)
    value.__setstate__(state)
    vars(value).update(attributes)
    return value


def _reduce_rows(value: Any) -> Any:
    rows, columns = value.shape
    if columns or not rows:
        return value.__reduce_ex__(5)
    metadata = None if type(value).__module__.startswith("polars") else value.schema.metadata
    return _rows_of, (type(value), rows, metadata)


def _rows_of(kind: Any, rows: int, metadata: dict[bytes, bytes] | None) -> Any:
    if kind is _loaded("polars", "DataFrame"):
        return kind(height=rows)
    import pyarrow as pa

    table = bare_rows(rows, metadata)
    return table if kind is pa.Table else _one_batch(table)


def _reduce_tensor(tensor: pa.Tensor) -> tuple[Any, ...]:
    return (_tensor, (tensor.to_numpy(), tensor.dim_names or None))


def _tensor(array: np.ndarray[Any, Any], dim_names: list[str] | None) -> pa.Tensor:
    import pyarrow as pa

    return pa.Tensor.from_numpy(array, dim_names)


def _viewed(array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> Any:
    return array.view(dtype)


# ---- recalling as something else


def convert(found: _plasmon.Object, as_: str | None, columns: list[str] | None, copy: bool) -> Any:
    """Return a recalled object as what was asked for."""
    if isinstance(columns, str):
        raise TypeError(f"columns is a list of names, and this is one str: {columns!r}")
    if as_ not in (None, "arrow", "pandas", "polars", "numpy", "buffer"):
        raise ValueError(f'as_ is "arrow", "pandas", "polars", "numpy" or "buffer", and this is {as_!r}')
    # The code of a pickle is the user's.
    with contextlib.nullcontext() if found.kind == "pickle" else _UNDISTURBED:
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
        return _copied(table) if copy else table
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
        raise WrongKind(f"columns= is for tables, and this is a {_full_name(type(value))}")
    missing = [column for column in columns if column not in there]
    if missing:
        shown = ", ".join(map(repr, there[:_COLUMNS_SHOWN])) + (", …" if len(there) > _COLUMNS_SHOWN else "")
        asked = ", ".join(map(repr, missing))
        raise WrongKind(f"columns= asks for {asked}, and this table has {shown or 'no columns'}")
    return select(columns)


def _classes(*names: tuple[str, str]) -> tuple[Any, ...]:
    """Return those of these classes whose modules are imported."""
    return tuple(kind for module, name in names if (kind := _loaded(module, name)))


def _data(found: _plasmon.Object) -> pa.Table:
    """Return the data of an object as a table. Of a pickle these are the value's rows, if it has any."""
    if found.kind != "pickle":
        return table_of(found)
    value = decode(found)
    with _UNDISTURBED:
        return _rows_as_table(value)


def _rows_as_table(value: Any) -> pa.Table:
    import pyarrow as pa

    try:
        if isinstance(value, _classes(("pandas", "DataFrame"), ("pandas", "Series"))):
            from plasmon import _pandas

            return _pandas.as_table(value)
        if isinstance(value, pa.Array | pa.ChunkedArray):
            return pa.table({"value": value})
        if _exports_arrow(type(value)) and not isinstance(value, type):
            return pa.table(value)
    except (pa.ArrowException, ValueError, TypeError, NotImplementedError) as error:
        text = f"Arrow cannot say what this {_full_name(type(value))} holds: {one_line(error)}"
        raise WrongKind(f"{text}; recall it as what it is") from error
    raise WrongKind(f"a {_full_name(type(value))} is no table; recall it as what it is")


def _as_pandas(found: _plasmon.Object, columns: list[str] | None, copy: bool) -> Any:
    if found.kind in ("table", "pickle"):
        value = decode(found, copy)
        if isinstance(value, _classes(("pandas", "DataFrame"), ("pandas", "Series"), ("pandas", "Index"))):
            return _select(value, columns)
    from plasmon import _pandas

    table = _with_truth_values(_select(_data(found), columns))
    return _copied(table).to_pandas().copy() if copy else _pandas.copied_on_write(table.to_pandas())


def _as_polars(found: _plasmon.Object, copy: bool) -> Any:
    import polars as pl

    from plasmon import _polars

    if found.kind != "pickle":
        table = table_of(found)
        source: Any = _with_truth_values(table)
        if copy:
            source = _copied(source)
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
        raise WrongKind(f"a {_full_name(type(value))} is no array; recall it as what it is")
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


def compact(value: Any) -> Any:
    """Return a copy of just what `value` uses, in this process's own memory.

    A slice of a recalled array or table holds the whole object in the store. Its compact copy holds nothing, and can be
    written to where its type can. Any value that can be stored has one.
    """
    module = type(value).__module__.partition(".")[0]
    if module == "pyarrow" and hasattr(value, "slice"):
        import pyarrow as pa

        if isinstance(value, pa.Buffer):
            return pa.py_buffer(value.to_pybytes())
        if isinstance(value, pa.Table):
            return _copied(value)
        if isinstance(value, pa.RecordBatch):
            copied = _copied(pa.Table.from_batches([value])).to_batches()
            return copied[0] if copied else value
        column = _copied(pa.table({"value": value})).column(0)
        return column if isinstance(value, pa.ChunkedArray) else column.combine_chunks()
    if isinstance(value, memoryview):
        if _is_cast_by_python(value):
            return _memoryview(bytearray(value.tobytes()), value.format, value.shape or ())
        import numpy as np

        return memoryview(np.array(value))  # type: ignore[arg-type]
    if type(value) is _loaded("numpy", "ndarray"):
        return value.copy()
    stream, buffers = _pickled(value)
    return pickle.loads(stream, buffers=[bytearray(buffer) for buffer in buffers])

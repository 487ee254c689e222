"""Values as pickles, with their large buffers beside them, and back.

`_forms` stores what has no other form as a pickle; `compact` and `_identity` pickle as it does.
"""

from __future__ import annotations

import contextlib
import copyreg
import io
import itertools
import pickle
from typing import TYPE_CHECKING, Any, ClassVar

from plasmon import _plasmon
from plasmon._tables import bare_rows, copied, loaded, one_batch, one_line
from plasmon.exceptions import UnpicklingFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    import pyarrow as pa

    _Reducer = Callable[[Any], Any]

#: Buffers of a pickle from this length on, in bytes, lie beside it.
OUT_OF_BAND_BYTES = 4096

#: How much of a pickle that cannot be read is looked at, to say what it is of.
_LOOK_BYTES = 64 << 10


def encode_pickle(value: Any) -> _plasmon.Payload:
    """Return a pickle of `value`, its large buffers where they are."""
    return _plasmon.Payload.pickle(*pickled(value))


def pickled(value: Any) -> tuple[memoryview, list[pickle.PickleBuffer]]:
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
    pickler.dispatch_table = Reducers(copyreg.dispatch_table)
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


def unpickle(stream: _plasmon.Buffer, buffers: list[_plasmon.Buffer], copy: bool) -> Any:
    value = pickle.loads(memoryview(stream), buffers=buffers)
    if copy and type(value) is loaded("numpy", "ndarray") and not value.flags.writeable:
        return value.copy("K")  # it is short, and stood in the stream
    if copy and type(value) is memoryview and value.readonly:
        return compact(value)
    return value


def unpickling_failed(found: _plasmon.Object, stream: _plasmon.Buffer, error: Exception) -> UnpicklingFailed:
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
            return copied(value)
        if isinstance(value, pa.RecordBatch):
            batches = copied(pa.Table.from_batches([value])).to_batches()
            return batches[0] if batches else value
        column = copied(pa.table({"value": value})).column(0)
        return column if isinstance(value, pa.ChunkedArray) else column.combine_chunks()
    if isinstance(value, memoryview):
        if _is_cast_by_python(value):
            return _memoryview(bytearray(value.tobytes()), value.format, value.shape or ())
        import numpy as np

        return memoryview(np.array(value))  # type: ignore[arg-type]
    if type(value) is loaded("numpy", "ndarray"):
        return value.copy()
    stream, buffers = pickled(value)
    return pickle.loads(stream, buffers=[bytearray(buffer) for buffer in buffers])


def _refuse(value: Any) -> Any:
    raise TypeError(f"cannot pickle {type(value).__name__!r} object")


def _cloudpickler() -> Any:
    """Return cloudpickle's pickler, without its taste for the contents of open files; `None` if it is not there."""
    try:
        import cloudpickle
    except ImportError:
        return None

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        dispatch_table: ClassVar[Any] = Reducers(cloudpickle.Pickler.dispatch_table)
        dispatch_table[io.TextIOWrapper] = _refuse

    return Pickler


class Reducers(dict[type, "_Reducer"]):
    """How instances of a type are pickled: as we do it, else as `others` say."""

    def __init__(self, others: Mapping[type, _Reducer]) -> None:
        super().__init__({bytearray: _reduce_bytearray, memoryview: _reduce_memoryview})
        self._others = others
        self._unknown: set[type] = set()
        if loaded("torch", "nn"):
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
    ndarray = loaded("numpy", "ndarray")
    if ndarray is not None and issubclass(kind, ndarray):
        if kind is ndarray:
            return _reduce_ndarray
        return _reduce_subclass if _is_pickled_by_numpy(kind) else None
    if kind is loaded("pyarrow.lib", "Tensor"):
        return _reduce_tensor
    # They forget how many rows there are where there are no columns.
    if kind in (loaded("pyarrow", "Table"), loaded("pyarrow", "RecordBatch"), loaded("polars", "DataFrame")):
        return _reduce_rows
    for base in (loaded(module, name) for module in ("pandas", "polars") for name in ("DataFrame", "Series")):
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


class Alone:
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
    if kind is loaded("polars", "DataFrame"):
        return kind(height=rows)
    import pyarrow as pa

    table = bare_rows(rows, metadata)
    return table if kind is pa.Table else one_batch(table)


def _reduce_tensor(tensor: pa.Tensor) -> tuple[Any, ...]:
    return (_tensor, (tensor.to_numpy(), tensor.dim_names or None))


def _tensor(array: np.ndarray[Any, Any], dim_names: list[str] | None) -> pa.Tensor:
    import pyarrow as pa

    return pa.Tensor.from_numpy(array, dim_names)


def _viewed(array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> Any:
    return array.view(dtype)

"""Writing in place: objects whose memory is the store's before they are learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, final

from plasmon import _forms
from plasmon._arguments import options
from plasmon._place import Place
from plasmon.exceptions import NotStorable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    import numpy as np
    import pyarrow as pa

    from plasmon import _plasmon
    from plasmon._times import Time

_T = TypeVar("_T")


class Creating(Place):
    """Making objects in place. What `Brain` has of it."""

    __slots__ = ()

    def create(
        self,
        name: str,
        nbytes: int,
        *,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: Time | None = None,
        sliding: bool = False,
        namespace: str | None = None,
    ) -> Creation[memoryview]:
        """Return a context manager that gives ``nbytes`` of shared memory to write into.

        At the end of the block the bytes become immutable and ``name`` is bound to them; views of them go on reading.
        After an exception nothing is bound. They are recalled as a read-only ``memoryview``. ``ttl`` and ``sliding`` as
        in `learn`, from the end of the block on.

        Raises:
            StoreFull: There is no room.
            ValueError: ``nbytes`` is negative.

        Examples:
            >>> import plasmon
            >>> with plasmon.Store(size="64MB") as store:
            ...     brain = store.connect()
            ...     with brain.create("image", 3) as buffer:
            ...         buffer[:] = b"abc"
            ...     bytes(brain["image"])
            b'abc'

        """
        if nbytes < 0:
            raise ValueError(f"nbytes is 0 or more, and this is {nbytes}")
        given = options(description, metadata, ttl, sliding)
        writable = self._in(namespace).create(name, nbytes)
        return Creation(writable, memoryview(writable), given)

    def empty(
        self,
        name: str,
        shape: int | tuple[int, ...],
        dtype: Any = "float64",
        *,
        order: Literal["C", "F"] = "C",
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: Time | None = None,
        sliding: bool = False,
        namespace: str | None = None,
    ) -> Creation[np.ndarray[Any, Any]]:
        """Return a context manager that gives an ndarray in shared memory to fill in: its elements are arbitrary.

        At the end of the block it becomes read-only and ``name`` is bound to it. After an exception nothing is bound.

        Args:
            name: The name.
            shape: Number of elements in each dimension.
            dtype: A dtype of integers, floats or truth values.
            order: ``"C"`` or ``"F"``.
            description: As in `learn`.
            metadata: As in `learn`.
            ttl: As in `learn`, from the end of the block on.
            sliding: As in `learn`.
            namespace: Another namespace than this brain's.

        Raises:
            StoreFull: There is no room.
            TypeError: Arrays of this dtype are stored as pickles, which cannot be made in place.
            ValueError: A dimension is negative, or ``order`` is another.

        Examples:
            >>> import plasmon
            >>> with plasmon.Store(size="64MB") as store:
            ...     brain = store.connect()
            ...     with brain.empty("ones", (2, 3), "int32") as array:
            ...         array[...] = 1
            ...     brain["ones"].sum().item()
            6

        """
        import numpy as np

        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        element = np.dtype(dtype)
        number = _forms.tensor_dtype(element)
        if number is None:
            raise TypeError(f"an array of {element} cannot be made in place; make it and learn it")
        if any(dim < 0 for dim in shape) or order not in ("C", "F"):
            raise ValueError(f'an array has no dimension below 0 and order "C" or "F"; this is {shape}, {order!r}')
        given = options(description, metadata, ttl, sliding)
        writable = self._in(namespace).create_tensor(name, number, shape, order == "F")
        array = np.ndarray(shape, element, memoryview(writable), order=order)
        return Creation(writable, array, given)

    def writer(
        self,
        name: str,
        schema: pa.Schema,
        *,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: Time | None = None,
        sliding: bool = False,
        namespace: str | None = None,
    ) -> TableCreation:
        """Return a context manager that takes a table batch by batch, straight into shared memory.

        At the end of the block ``name`` is bound to the table. After an exception nothing is bound. ``ttl`` and
        ``sliding`` as in `learn`, from the end of the block on.

        Raises:
            StoreFull: There is no room, also on ``write``.

        Examples:
            >>> import plasmon, pyarrow as pa
            >>> with plasmon.Store(size="64MB") as store:
            ...     brain = store.connect()
            ...     with brain.writer("numbers", pa.schema([("n", pa.int64())])) as writer:
            ...         for start in (0, 10):
            ...             rows = writer.write(pa.record_batch({"n": range(start, start + 10)}))
            ...     brain["numbers"].num_rows
            20

        """
        given = options(description, metadata, ttl, sliding)
        writer = self._in(namespace).writer(name, schema.empty_table())
        return TableCreation(writer, given)


class _InPlace:
    """An object being made in place: sealed at the end of a ``with`` block, given up after an exception."""

    __slots__ = ("_options", "_writer")

    def __init__(self, writer: _plasmon.Writable | _plasmon.TableWriter, options: _plasmon.Options) -> None:
        self._writer = writer
        self._options = options

    def seal(self) -> int:
        """Make the object immutable, bind its name to it, and return the version.

        Raises:
            WriterClosed: It is sealed or given up already.

        """
        return self._writer.seal(self._options)

    def abort(self) -> None:
        """Give the object up: nothing is bound, and its memory is free when no view of it is left."""
        self._writer.abort()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Seal it, or give it up after an exception."""
        if kind is None:
            self.seal()
        else:
            self.abort()


@final
class Creation(_InPlace, Generic[_T]):
    """An object being made in place, as a context manager. Made by `Brain.create` and `Brain.empty`.

    Without a ``with`` block: write into ``value``, then `seal` or `abort`. Views go on reading what was sealed.
    """

    __slots__ = ("value",)

    def __init__(self, writable: _plasmon.Writable, value: _T, options: _plasmon.Options) -> None:
        super().__init__(writable, options)
        #: The memory to write into.
        self.value = value

    def seal(self) -> int:
        flags = getattr(self.value, "flags", None)
        if flags is not None:
            flags.writeable = False  # NumPy would not notice, and its next write would end the process
        return super().seal()

    def __enter__(self) -> _T:
        """Return the memory to write into."""
        return self.value


@final
class TableCreation(_InPlace):
    """A table being written batch by batch, as a context manager. Made by `Brain.writer`.

    Without a ``with`` block: `write`, then `seal` or `abort`.
    """

    __slots__ = ()
    _writer: _plasmon.TableWriter

    def write(self, data: Any) -> int:
        """Append a record batch, a table, or anything with ``__arrow_c_stream__``; return the rows written so far.

        Raises:
            NotStorable: It is no table, or has another schema; the next batch may follow.
            StoreFull: It does not fit; the table cannot be sealed.

        """
        import pyarrow as pa

        if isinstance(data, pa.RecordBatch):
            data = pa.Table.from_batches([data])
        if not hasattr(data, "__arrow_c_stream__"):
            raise NotStorable(f"a table has __arrow_c_stream__, and this is {type(data).__name__}: {data!r:.100}")
        return self._writer.write(data)

    def __enter__(self) -> TableCreation:
        """Return the writer itself."""
        return self

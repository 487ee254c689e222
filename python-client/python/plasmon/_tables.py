"""Tables of Arrow, and what is said in their metadata about what they were in Python.

`_forms`, `_pandas`, `_polars` and `_conversions` build on it; it knows none of them.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from plasmon import _plasmon
from plasmon.exceptions import MalformedObject

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

#: Key of a table's schema metadata under which stands, as JSON, what it was in Python.
PYTHON_KEY = b"plasmon.python"

#: For what pyarrow, pandas, polars and other makers of columns do: they give the interpreter lock away.
UNDISTURBED = _plasmon.Undisturbed()


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


def description_of(table: pa.Table) -> Any:
    """Return what is said about the Python value in the table's metadata."""
    metadata = table.schema.metadata
    text = metadata.get(PYTHON_KEY) if metadata else None
    return _plasmon.parse_json(text.decode()) if text else {}


def one_batch(table: pa.Table) -> pa.RecordBatch:
    import pyarrow as pa

    batches = (table.combine_chunks() if table.num_columns else table).to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def copied(table: pa.Table) -> pa.Table:
    """Return a table in memory of its own."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return pa.ipc.open_stream(sink.getvalue()).read_all()


def exports_arrow(kind: type) -> bool:
    return hasattr(kind, "__arrow_c_stream__") or hasattr(kind, "__arrow_c_array__")


def loaded(module: str, name: str) -> Any:
    """Return an attribute of a module if that is imported already."""
    return getattr(sys.modules.get(module), name, None)


def full_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def one_line(error: BaseException) -> str:
    """Return what an exception says, for a message of ours."""
    try:
        said = str(error).strip().partition("\n")[0]
    except Exception:  # somebody's own class
        said = ""
    return said or type(error).__name__

"""What callers give, checked; and the error for a name that is not bound."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from plasmon import _plasmon
from plasmon._times import Time, seconds
from plasmon.exceptions import MetadataTypeError, NameNotFound, NameTypeError

if TYPE_CHECKING:
    from collections.abc import Iterable

As = Literal["arrow", "pandas", "polars", "numpy", "buffer"]


def options(
    description: str | None,
    metadata: Mapping[str, Any] | None,
    ttl: Time | None,
    sliding: bool,
    *,
    if_absent: bool = False,
    if_version: int | None = None,
    **how: Any,
) -> _plasmon.Options:
    if description is not None and not isinstance(description, str):
        raise MetadataTypeError(f"a description is a str, and this is {type(description).__name__}: {description!r}")
    time_to_live = None if ttl is None else seconds("a ttl", ttl)
    return _plasmon.Options(
        description, _json_object(metadata), if_absent, checked_version(if_version), time_to_live, sliding, **how
    )


def checked_version(version: int | None) -> int | None:
    if isinstance(version, int) and not 0 <= version < 1 << 64:
        raise ValueError(f"a version is a number from 0 to 2**64 - 1, as learn returns it, and this is {version}")
    return version


def text(namespace: object) -> str:
    if not isinstance(namespace, str):
        raise NameTypeError(f"a namespace is a str, and this is {type(namespace).__name__}: {namespace!r}")
    return namespace


def name_list(names: Iterable[str]) -> list[str]:
    if isinstance(names, str):  # its characters are names as well
        raise NameTypeError(f"names are a list of str, and this is one str: {names!r}")
    return list(names)


def not_found(name: str, client: _plasmon.Client) -> NameNotFound:
    asked, namespace = json.dumps(name, ensure_ascii=False), json.dumps(client.namespace)
    text = f"nothing is bound to {asked} in namespace {namespace}; learn it first, or wait for it with a timeout"
    error = NameNotFound(text)
    error.name, error.namespace, error._client = name, client.namespace, client
    return error


def _json_object(metadata: Mapping[str, Any] | None) -> str | None:
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise MetadataTypeError(f"metadata is a dictionary, and this is {type(metadata).__name__}: {metadata!r}")
    try:
        text = json.dumps(dict(metadata), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise MetadataTypeError(f"metadata is a dictionary that JSON can say: {error}") from error
    if json.loads(text) != dict(metadata):
        raise MetadataTypeError("metadata is a dictionary that JSON can say, with str keys, lists and no tuples")
    return text

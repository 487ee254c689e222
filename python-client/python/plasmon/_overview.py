"""What a notebook shows of a brain. It keeps its shape whatever names there are, and costs what it shows."""

from __future__ import annotations

import time
import unicodedata
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from plasmon import _forms
from plasmon.exceptions import NamespaceNotFound, PlasmonError

if TYPE_CHECKING:
    from plasmon import _plasmon

#: Most rows.
ROWS_MAX = 100

#: Who holds what is asked for if there are no more pins in the store than a page has.
_PINS_MAX = 4_096

#: Longest name in the text, in columns of a terminal.
_NAME_COLUMNS_MAX = 40

#: How a cell of HTML keeps its width.
_CUT = "max-width:24em;overflow:hidden;text-overflow:ellipsis;white-space:nowrap"

_HEADINGS = ("name", "kind", "dtype", "shape", "size", "expires", "held by", "version")
_SIDES = ("left", "left", "left", "right", "right", "right", "right", "right")


class Overview(NamedTuple):
    """How full a store is, and what a namespace has."""

    used: str
    share: float
    rows: list[tuple[str, ...]]
    more: str


def look(client: _plasmon.Client) -> Overview:
    """Ask the store, in a handful of requests, whatever it holds.

    Raises:
        PlasmonError: It does not answer.

    """
    stats = client.stats()
    capacity = stats["capacity_bytes"]
    used = capacity - stats["free_bytes"]
    try:
        listed = client.first_entries("", ROWS_MAX)
    except NamespaceNotFound:
        listed = []
    names = client.count() if len(listed) == ROWS_MAX else len(listed)
    holders = _holders(client) if listed and stats["pins"] <= _PINS_MAX else {}
    rows = [_row(client, entry, holders.get(f"{entry['namespace']}/{entry['name']}", 0)) for entry in listed]
    more = f"and {names - len(rows):,} more" if names > len(rows) else ""
    return Overview(f"{human(used)} of {human(capacity)} used", used / capacity, rows, more)


def as_text(title: str, seen: Overview) -> str:
    """Return what `as_html` shows, where there is no HTML."""
    table = [_HEADINGS, *((_shortened(row[0]), *row[1:]) for row in seen.rows)]
    widths = [max(map(_columns, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(_padded, row, widths)).rstrip() for row in table]
    return "\n".join([f"{title}, {seen.used}", *lines, *([seen.more] if seen.more else [])])


def as_html(path: str, namespace: str, seen: Overview) -> str:
    """Return a table that scrolls, and how full the store is as a bar."""
    heads = "".join(
        f"<th style='text-align:{side};padding:.1em .6em;position:sticky;top:0'>{heading}</th>"
        for heading, side in zip(_HEADINGS, _SIDES, strict=True)
    )
    body = "".join(f"<tr>{_html_row(row)}</tr>" for row in seen.rows)
    return (
        f"<div><b>plasmon.Brain</b> {escape(path)}, namespace <b>{escape(namespace)}</b>"
        f"<div style='width:20em;height:.6em;margin:.4em 0;background:#8884'><div style='width:{seen.share:.1%};"
        f"height:100%;background:#4a90d9'></div></div>{seen.used}"
        f"<div style='max-height:24em;overflow:auto'>"
        f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>{seen.more}</div>"
    )


def _html_row(row: tuple[str, ...]) -> str:
    cells = []
    for cell, side in zip(row, _SIDES, strict=True):
        style = f"text-align:{side};padding:.1em .6em;{_CUT}"
        cells.append(f"<td style='{style}' title='{escape(cell)}'>{escape(cell)}</td>")
    return "".join(cells)


def _holders(client: _plasmon.Client) -> dict[str, int]:
    """How many processes hold what, by ``namespace/name``."""
    holders: dict[str, set[int]] = {}
    for pin in client.pins():
        holders.setdefault(pin["name"], set()).add(pin["pid"])
    return {name: len(pids) for name, pids in holders.items()}


def _row(client: _plasmon.Client, entry: dict[str, Any], holders: int) -> tuple[str, ...]:
    name, kind = entry["name"], entry["kind"]
    dtype, shape = _form(client, name) if kind in ("tensor", "table") else ("", "")
    expires = "" if entry["expires_at"] is None else f"in {_duration(entry['expires_at'] - time.time())}"
    held = "" if holders == 0 else f"{holders} process{'' if holders == 1 else 'es'}"
    shown = name if name.isprintable() else repr(name)[1:-1]
    return shown, kind, dtype, shape, human(entry["nbytes"]), expires, held, str(entry["version"])


def _form(client: _plasmon.Client, name: str) -> tuple[str, str]:
    """Return dtype and shape of an array, the shape of a table; nothing of what is gone, or cannot be read."""
    try:
        found = client.inspect(name)
        if found is None:
            return "", ""
        if found.kind == "tensor":
            array = found.value()
            return str(array.dtype), str(tuple(array.shape))
        return "", str(_forms.shape(found))
    except PlasmonError:
        return "", ""


def human(nbytes: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if nbytes < 1024:
            return f"{nbytes:.4g} {unit}"
        nbytes /= 1024
    return f"{nbytes:.4g} TiB"


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"


def _columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )


def _padded(text: str, columns: int) -> str:
    return text + " " * (columns - _columns(text))


def _shortened(name: str) -> str:
    """The name, or its beginning and its end."""
    if _columns(name) <= _NAME_COLUMNS_MAX:
        return name
    half = _NAME_COLUMNS_MAX // 2
    begin, end = name[:half], name[1 - half :]
    while _columns(begin) + _columns(end) >= _NAME_COLUMNS_MAX:
        begin, end = begin[:-1], end[1:]
    return f"{begin}…{end}"

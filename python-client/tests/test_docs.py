"""docs/values.md says what the tests show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from values import CASES

DOCUMENT = Path(__file__).parents[2] / "docs" / "values.md"
COPIED = {
    "tensor": "nothing",
    "table": "nothing",
    "pickle": "all but buffers of 4 KiB and more",
    "text": "all of it, once",
    "bytes": "all of it, once",
    "json": "all of it: it is parsed",
}


def table() -> str:
    lines = ["| value | kind | a recall copies |", "| --- | --- | --- |"]
    group = None
    for case in CASES:
        if case.group != group:
            group = case.group
            lines.append(f"| **{group}** | | |")
        lines.append(f"| {case.label} | `{case.kind}` | {COPIED.get(case.kind, '–')} |")
    return "\n".join(lines) + "\n"


def test_the_table_of_values_is_what_the_tests_store() -> None:
    text = DOCUMENT.read_text()
    before, found = text.split("<!-- table -->\n", 1)
    if os.environ.get("PLASMON_WRITE_DOCS"):
        DOCUMENT.write_text(f"{before}<!-- table -->\n{table()}")
        pytest.skip("written")
    assert found == table(), "write it anew with PLASMON_WRITE_DOCS=1 pytest python-client/tests/test_docs.py"

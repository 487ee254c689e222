"""The Python of README.md runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import plasmon
import pytest
from conftest import REPOSITORY

BLOCKS = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)

ASK = """
session = app.layout().children[0].data
version = pick("JFK", session)
assert show(version, session) == "111,279 flights", show(version, session)
"""


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {number}" for number in range(len(BLOCKS))])
def test_the_examples_of_the_readme_run(store: plasmon.Store, block: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(block + (ASK if "def pick" in block else ""))
    environment = {**os.environ, "PLASMON_SOCKET": store.path}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_there_are_such_examples() -> None:
    assert len(BLOCKS) == 3 and sum("def pick" in block for block in BLOCKS) == 1

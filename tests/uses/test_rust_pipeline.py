"""The pipeline of examples/rust-pipeline, in both directions, whoever is started first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import plasmon
import pytest
from conftest import REPOSITORY

PIPELINE = REPOSITORY / "examples" / "rust-pipeline"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))


@pytest.fixture(scope="module")
def programs() -> Path:
    build = ["cargo", "build", "--quiet", "--profile", "ci", "--package", "plasmon-pipeline"]
    subprocess.run(build, cwd=REPOSITORY, check=True)
    return TARGET.absolute() / "ci"


def run_both(first: list[str | Path], second: list[str | Path], store: plasmon.Store) -> tuple[str, str]:
    environment = {**os.environ, "PLASMON_SOCKET": store.path}
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for command in (first, second)
    ]
    said = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    return said[0], said[1]


@pytest.mark.parametrize("order", ["python first", "rust first"])
def test_python_plots_what_rust_makes(programs: Path, store: plasmon.Store, tmp_path: Path, order: str) -> None:
    rust, python = [programs / "produce"], [sys.executable, PIPELINE / "plot.py", tmp_path / "walk.png"]
    if order == "python first":
        said, _ = run_both(python, rust, store)
    else:
        _, said = run_both(rust, python, store)
    assert said == "1000000 rows plotted\n"
    picture = (tmp_path / "walk.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
    assert list(store.connect("pipeline")) == []


def test_rust_aggregates_what_python_makes(programs: Path, store: plasmon.Store) -> None:
    _, said = run_both([programs / "aggregate"], [sys.executable, PIPELINE / "measure.py"], store)
    assert "'Basel': 10.0" in said or "'Basel': 9.9" in said, said
    assert "Genève" in said and list(store.connect("pipeline")) == ["means"]

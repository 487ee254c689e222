"""The programs of README.md run as they stand there: what a reader sees and copies, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import plasmon
import pytest
from conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


BLOCKS = blocks("python")

#: In the place of `app.run()`, which serves until it is stopped.
ASK = """
session = app.layout().children[0].data
version = pick("JFK", session)
assert show(version, session) == "111,279 flights", show(version, session)
"""


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {number}" for number in range(len(BLOCKS))])
def test_the_examples_of_the_readme_run(store: plasmon.Store, block: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(block.replace("app.run()", ASK))
    environment = {**os.environ, "PLASMON_SOCKET": store.path}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_there_are_such_examples() -> None:
    assert len(BLOCKS) == 3 and sum("\napp.run() " in block for block in BLOCKS) == 1


def test_the_rust_program_compiles_with_the_lines_of_its_manifest(tmp_path: Path) -> None:
    (manifest,), (program,) = blocks("toml"), blocks("rust,no_run")
    manifest = manifest.replace("../plasmon/client", str(REPOSITORY / "client"))
    (tmp_path / "Cargo.toml").write_text('[package]\nname = "example"\nedition = "2024"\n' + manifest)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.rs").write_text(program)
    shutil.copy(REPOSITORY / "Cargo.lock", tmp_path)  # the versions that are fetched already
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "readme"
    check = ["cargo", "check", "--quiet", "--target-dir", target.absolute()]
    done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr


def test_processes_of_one_user_find_the_store_that_one_of_them_started(tmp_path: Path) -> None:
    (session,) = [block for block in blocks("console") if "plasmon-store --size 4GiB &" in block]
    lines = session.splitlines()
    commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    answer = [line for line in lines if not line.startswith("$ ")]
    # A small store, which is awaited and ended: a reader sees both happen.
    start, *rest = [line.replace("4GiB", "64MiB") for line in commands]
    script = "\n".join([f"{start}\ntrap 'kill $!; wait $!' EXIT", "plasmon ping --timeout 60 >&2", *rest])
    programs = Path(sys.executable).parent
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(["sh", "-ec", script], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.splitlines()) == (0, answer), done.stderr

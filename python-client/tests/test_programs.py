"""The programs that come with the package, and private stores."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import plasmon
import pytest

SCRIPTS = Path(sysconfig.get_path("scripts"))


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


@pytest.mark.parametrize("program", ["plasmon", "plasmon-store"])
def test_the_programs_are_on_the_path(program: str) -> None:
    done = run(str(SCRIPTS / program), "--version")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith(program)
    done = run(str(SCRIPTS / program), "--nonsense")
    assert done.returncode == 2 and "--nonsense" in done.stderr


def test_the_command_line_and_python_see_the_same(brain: plasmon.Brain, tmp_path: Path) -> None:
    brain["number"] = 42
    options = ["--socket", brain.path, "--namespace", brain.namespace]
    for program in ([str(SCRIPTS / "plasmon")], [sys.executable, "-m", "plasmon"]):
        done = run(*program, *options, "get", "number")
        assert (done.returncode, done.stdout.strip()) == (0, "42")
        assert run(*program, *options, "get", "nothing").returncode == 3
    (tmp_path / "t.csv").write_text("a,b\n1,x\n2,y\n")
    assert run(str(SCRIPTS / "plasmon"), *options, "put", "table", str(tmp_path / "t.csv")).returncode == 0
    assert brain["table"].to_pydict() == {"a": [1, 2], "b": ["x", "y"]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_daemon_stops_when_told(number: signal.Signals, tmp_path: Path) -> None:
    socket = tmp_path / "s.sock"
    daemon = subprocess.Popen(
        [str(SCRIPTS / "plasmon-store"), "--size", "64MB", "--socket", str(socket)], stderr=subprocess.PIPE, text=True
    )
    with daemon:
        assert daemon.stderr is not None
        while "ready:" not in daemon.stderr.readline():
            assert daemon.poll() is None
        brain = plasmon.Brain(str(socket))
        brain["a"] = 1
        daemon.send_signal(number)
        assert daemon.wait(60) == 0
    assert not socket.exists()


def test_a_private_store_ends_when_closed(tmp_path: Path) -> None:
    store = plasmon.start(size=64_000_000)
    assert store.connect().size() == 64_000_000 and str(store.pid) in repr(store)
    store.close()
    store.close()
    assert not Path(store.path).exists() and "closed" in repr(store)
    with pytest.raises(plasmon.StoreUnavailable):
        store.connect()
    with plasmon.Store(size="64MB", path=tmp_path / "mine.sock") as named:
        assert named.path == str(tmp_path / "mine.sock")
        named.connect("some-namespace")["a"] = 1


def test_a_store_that_cannot_start_says_why() -> None:
    with pytest.raises(plasmon.StoreUnavailable, match="too small"):
        plasmon.Store(size=1)
    with pytest.raises(plasmon.StoreUnavailable, match="nonsense"):
        plasmon.Store(size="nonsense")


OWNER = """
import os, sys, plasmon
store = plasmon.start(size="64MB")
brain = store.connect()
brain["a"] = 1
child = os.fork()
if child == 0:
    store.close()  # a forked child leaves it alone
    os._exit(brain["a"] - 1)
assert os.waitpid(child, 0)[1] == 0 and brain["a"] == 1
print(store.pid, store.path, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["exit", signal.SIGKILL, signal.SIGTERM])
def test_a_private_store_ends_with_its_owner_however_that_ends(end: Any) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None and owner.stdin is not None
        pid, path = owner.stdout.readline().split()
        daemon = os.pidfd_open(int(pid))
        if end == "exit":
            owner.stdin.close()
        else:
            owner.send_signal(end)
        owner.wait(60)
    import select

    readable, _, _ = select.select([daemon], [], [], 60)
    os.close(daemon)
    assert readable, "the daemon lives on"
    assert not Path(path).exists()
    shutil.rmtree(Path(path).parent, ignore_errors=True)


def test_only_the_process_that_starts_a_store_can_own_it(tmp_path: Path) -> None:
    arguments = ["--size", "64MB", "--socket", str(tmp_path / "s.sock"), "--owner", "1"]
    done = run(str(SCRIPTS / "plasmon-store"), *arguments)
    assert done.returncode == 1 and "did not start this store" in done.stderr


def test_fixtures_of_pytest_give_an_empty_brain_to_each_test(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_it(plasmon_brain, plasmon_store, number):
    assert list(plasmon_brain) == []
    assert len(plasmon_brain.namespaces()) == 2  # default, and its own: those of other tests are gone
    plasmon_brain["number"] = number
    assert plasmon_store.connect(plasmon_brain.namespace)["number"] == number
"""
    )
    done = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path), cwd=tmp_path)
    assert "3 passed" in done.stdout, done.stdout

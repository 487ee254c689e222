"""The programs that come with the package, and private stores."""

from __future__ import annotations

import json
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


def test_the_installed_program_completes_names(brain: plasmon.Brain) -> None:
    """What a shell runs for a TAB; what it reads does not end in a line end."""
    brain.update({"prices": 1, "prices-2": 2})
    line = ["plasmon", "--socket", brain.path, "--namespace", brain.namespace, "get", "pri"]
    asked = {"PLASMON_COMPLETE": "bash", "_CLAP_IFS": "|", "_CLAP_COMPLETE_COMP_TYPE": "9"}
    place = {"_CLAP_COMPLETE_INDEX": str(len(line) - 1), "_CLAP_COMPLETE_SPACE": "true"}
    done = run(str(SCRIPTS / "plasmon"), "--", *line, env={**os.environ, **asked, **place})
    assert [name.strip() for name in done.stdout.split("|")] == ["prices", "prices-2"], done


def test_a_store_in_the_background_outlives_its_terminal(tmp_path: Path) -> None:
    socket = tmp_path / "s.sock"
    master, slave = os.openpty()
    shell = f"{SCRIPTS / 'plasmon-store'} --size 64MB --log trace --socket {socket} & echo $!; read line"
    terminal = subprocess.Popen(
        ["sh", "-c", shell], stdin=slave, stdout=subprocess.PIPE, stderr=slave, text=True, start_new_session=True
    )
    os.close(slave)
    with terminal:
        assert terminal.stdout is not None
        pid = int(terminal.stdout.readline())
        said = b""
        while b"ready:" not in said:
            said += os.read(master, 4096)
        os.close(master)  # the terminal is gone, and nothing can be written to it
        os.killpg(terminal.pid, signal.SIGHUP)  # what its shell sends on leaving
        brain = plasmon.Brain(str(socket))
        brain["a"] = 1
        assert brain["a"] == 1
        os.kill(pid, signal.SIGTERM)
        assert terminal.stdout.read() == ""  # nobody holds it any more: the store has ended
    assert not socket.exists()


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
    with pytest.raises(plasmon.StoreUnavailable, match=r'"-1" is not a size'):
        plasmon.start(size=-1)
    with pytest.raises(TypeError, match=r"a list, such as \['--reserve', 'now'\]"):
        plasmon.start(options="--reserve now")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a time is a number"):
        plasmon.start(timeout="soon")


def test_how_long_a_start_may_take_is_said_as_other_times() -> None:
    with plasmon.start(size="1MB", timeout="1m30s") as store:
        assert store.connect().size() == 1_000_000


def test_where_there_is_no_socket_the_store_that_lost_it_is_named(tmp_path: Path) -> None:
    """Also to a process that never spoke to that store: to start another there would be refused."""
    with plasmon.start(size="1MB", path=tmp_path / "store.sock") as store:
        os.unlink(store.path)
        done = run(sys.executable, "-c", "import plasmon, sys; plasmon.Brain(sys.argv[1])", store.path)
        assert f"process {store.pid} holds its lock" in done.stderr and "was deleted" in done.stderr, done.stderr
    with pytest.raises(plasmon.StoreUnavailable, match="a directory, and no socket"):
        plasmon.Brain(tmp_path)
    with pytest.raises(plasmon.StoreUnavailable, match=f"mkdir -p {tmp_path}/none"):
        plasmon.start(size="1MB", path=tmp_path / "none" / "store.sock")


#: Tries something in a process of its own, whose only child a store would be, and reports what is left of it.
LEFT = """
import json, os, pathlib, resource, signal, subprocess, sys, tempfile, threading
import plasmon
from plasmon import _store
place = pathlib.Path(tempfile.mkdtemp(dir=sys.argv[1]))
os.environ["XDG_RUNTIME_DIR"] = str(place)
segments = set(os.listdir("/dev/shm"))
error, message = "", ""
try:
{body}
except BaseException as raised:
    error, message = type(raised).__name__, str(raised)
left = sorted(str(path) for path in place.rglob("*")) + sorted(set(os.listdir("/dev/shm")) - segments)
children = open(f"/proc/self/task/{{os.getpid()}}/children").read().split()
print(json.dumps([error, message, left, children]))
"""


def left_by(body: str, directory: Path) -> tuple[str, str]:
    """Run the body; return the exception it raised and its message, once it is sure that nothing is left."""
    program = LEFT.format(body="\n".join(f"    {line}" for line in body.strip().splitlines()))
    done = run(sys.executable, "-c", program, str(directory))
    assert done.returncode == 0, done.stderr
    error, message, left, children = json.loads(done.stdout)
    assert (left, children) == ([], []), (error, message)
    return error, message


def test_a_store_starts_whatever_the_process_has_and_leaves_nothing(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    use = "brain = store.connect(); brain['a'] = 1; assert brain['a'] == 1; store.close()"
    held = "held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]"
    many = f"resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)); {held}"
    refuse = "def refuse(*_): raise PermissionError(1, 'Operation not permitted')\nos.pidfd_open = refuse"
    for body in [
        f"{many}\nstore = plasmon.start(size='64MB')\n{use}",
        f"{refuse}\nstore = plasmon.start(size='64MB', options=['--pretend-missing', 'pidfd_open,peer_pidfd'])\n{use}",
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, -1))\nstore = plasmon.start(size='64MB')\n{use}",
        f"del os.environ['XDG_RUNTIME_DIR']; os.environ['TMPDIR'] = {str(deep)!r}\n"
        f"store = plasmon.start(size='64MB')\nassert len(store.path) > 107\n{use}",
        f"os.environ['XDG_RUNTIME_DIR'] = '/proc/nowhere'\nstore = plasmon.start(size='64MB')\n{use}",
        "store = plasmon.start(size='64MB', options=['--arena', 'named'])\nos.kill(store.pid, signal.SIGKILL)\n"
        "store.close()",
        "store = plasmon.Store('64MB', path=place / 'mine')\nos.kill(store.pid, signal.SIGKILL)\nstore.close()",
    ]:
        assert left_by(body, tmp_path) == ("", ""), body
    assert not list(deep.iterdir())


def test_a_store_that_did_not_start_says_how_it_ended_and_leaves_nothing(tmp_path: Path) -> None:
    hard = "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))"
    silent = "_store.STORE_PROGRAM = str(place.parent / 'silent')"
    for body, error, parts in [
        ("plasmon.start(size=1)", "StoreUnavailable", ["exit code 3", "too small"]),
        (f"{hard}\nplasmon.start(size='64MB')", "StoreUnavailable", ["exit code 3", "ulimit -f"]),
        ("plasmon.start(size='64MB', options=['--nonsense'])", "StoreUnavailable", ["exit code 2", "--nonsense"]),
        ("plasmon.start(path='/nonexistent/s.sock')", "StoreUnavailable", ["exit code 4", "/nonexistent"]),
        ("_store.STORE_PROGRAM = '/nowhere'\nplasmon.start()", "StoreUnavailable", ["/nowhere", "install plasmon"]),
        (f"{silent}\nplasmon.start()", "StoreUnavailable", ["SIGSEGV (signal 11)", "its last words"]),
        ("plasmon.start(size='64MB', timeout=0, path=place / 's')", "StoreUnavailable", ["not ready in 0 seconds"]),
    ]:
        (tmp_path / "silent").write_text("#!/bin/sh\necho its last words >&2\nkill -SEGV $$\n")
        (tmp_path / "silent").chmod(0o755)
        raised, message = left_by(body, tmp_path)
        assert raised == error and all(part in message for part in parts), (body, raised, message)


@pytest.mark.parametrize("where", ["mkdtemp", "Popen", "select"])
def test_a_start_that_is_interrupted_leaves_nothing(where: str, tmp_path: Path) -> None:
    # The signal comes while the directory is made, while the process is started, and while it is waited for.
    patched = {
        "mkdtemp": "whose, name = _store.tempfile, 'mkdtemp'",
        "Popen": "whose, name = _store.subprocess, 'Popen'",
        "select": "whose, name = _store.selectors.DefaultSelector, 'select'",
    }[where]
    body = f"""
{patched}
original = getattr(whose, name)
def interrupted(*arguments, **options):
    setattr(whose, name, original)
    done = original(*arguments, **options)
    os.kill(os.getpid(), signal.SIGINT)
    return done
setattr(whose, name, interrupted)
plasmon.start(size="64MB")
"""
    assert left_by(body, tmp_path)[0] == "KeyboardInterrupt"


def test_a_store_that_died_says_how() -> None:
    store = plasmon.start(size="64MB")
    os.kill(store.pid, signal.SIGKILL)
    with pytest.raises(plasmon.StoreUnavailable, match="ended by SIGKILL"):
        while True:  # until the signal has come
            store.connect()
    store.close()


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

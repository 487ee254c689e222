"""The example app of examples/dash, served by gunicorn."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from conftest import REPOSITORY, eventually

APP = REPOSITORY / "examples" / "dash"


@contextmanager
def served(
    app: str, directory: Path, log: Path, *, workers: int, environment: dict[str, str], config: Path | None = None
) -> Iterator[str]:
    """Serve an app with so many workers, and return its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command: list[str | Path] = [sys.executable, "-m", "gunicorn", "--chdir", directory, "--bind", f"127.0.0.1:{port}"]
    command += ["--workers", str(workers), "--error-logfile", log, "--capture-output"]
    command += ["--no-control-socket", *(["--config", config] if config else []), app]
    server = subprocess.Popen(command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}/"

        def answers() -> bool:
            assert server.poll() is None, log.read_text()
            try:
                with urlopen(f"{address}_dash-layout", timeout=60) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        eventually("the app answers", answers)
        yield address
    finally:
        server.terminate()
        server.wait(30)

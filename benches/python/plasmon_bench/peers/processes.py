"""Daemons as processes."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

from plasmon_bench.peers import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Daemon(Store):
    """A process that answers."""

    def __init__(self, command: list[str], directory: Path, answers: Callable[[], bool]) -> None:
        with (directory / "store.log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)
        super().__init__([self.process.pid])
        deadline = time.monotonic() + 30
        while not answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise RuntimeError((directory / "store.log").read_text()[-500:] or f"{command[0]} does not answer")
            time.sleep(0.001)

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

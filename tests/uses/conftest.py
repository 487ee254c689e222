"""A real store for each test module."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import plasmon
import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def store() -> Iterator[plasmon.Store]:
    with plasmon.Store(size="1GiB", options=["--debuggable"]) as store:
        yield store


@pytest.fixture
def brain(store: plasmon.Store) -> plasmon.Brain:
    return store.connect()


def eventually(what: str, holds: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} seconds: {what}"
        time.sleep(0.05)

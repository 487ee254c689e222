"""A real store for each test module, and a namespace of its own for each test."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Iterator

import plasmon
import pytest

_numbers = itertools.count()


@pytest.fixture(scope="module")
def store() -> Iterator[plasmon.Store]:
    with plasmon.Store(size="512MB", options=["--debuggable"]) as store:
        yield store


@pytest.fixture
def nothing_is_left(store: plasmon.Store) -> Iterator[None]:
    """When the test and all that it held are gone, the store has in use what it had before."""
    observer = store.connect()
    figures = ("used_bytes", "limbo_bytes", "pins", "waits", "objects")

    def in_use() -> dict[str, object]:
        gc.collect()
        stats = observer.stats()
        return {figure: stats[figure] for figure in figures}

    before = in_use()
    yield
    deadline = time.monotonic() + 30
    while in_use() != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert in_use() == before


@pytest.fixture
def brain(store: plasmon.Store) -> Iterator[plasmon.Brain]:
    namespace = f"test-{next(_numbers)}"
    brain = store.connect(namespace)
    yield brain
    if brain.namespace != "default" and brain.namespace in brain.namespaces():
        brain.remove_namespace()

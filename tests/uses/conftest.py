"""A real store for each test module."""

from __future__ import annotations

from collections.abc import Iterator
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

"""A real store for each test module, and a namespace of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import plasmon
import pytest

_numbers = itertools.count()


@pytest.fixture(scope="module")
def store() -> Iterator[plasmon.Store]:
    with plasmon.Store(size="512MB", options=["--debuggable"]) as store:
        yield store


@pytest.fixture
def brain(store: plasmon.Store) -> Iterator[plasmon.Brain]:
    namespace = f"test-{next(_numbers)}"
    brain = store.connect(namespace)
    yield brain
    if brain.namespace != "default" and brain.namespace in brain.namespaces():
        brain.remove_namespace()

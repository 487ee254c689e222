"""For the tests of programs that use a store: fixtures of pytest, found by it without an import.

``plasmon_brain`` is a `Brain` in a namespace of its own, which is removed after the test; ``plasmon_store`` is the
private store it belongs to, one for the whole run. There is no imitation of a store: a real one starts faster than a
test notices::

    def test_my_callback(plasmon_brain):
        plasmon_brain["df"] = frame
        my_callback(plasmon_brain)
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from plasmon._store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plasmon._brain import Brain

_numbers = itertools.count()


@pytest.fixture(scope="session")
def plasmon_store() -> Iterator[Store]:
    """Give a private store of 256 MB, which ends with the test run. Its memory is taken as it is used."""
    with Store(size="256MB", options=["--reserve", "lazy"]) as store:
        yield store


@pytest.fixture
def plasmon_brain(plasmon_store: Store) -> Iterator[Brain]:
    """Give a brain in a namespace that nobody else uses, and remove that afterwards."""
    namespace = f"test-{next(_numbers)}"
    yield plasmon_store.connect(namespace)
    brain = plasmon_store.connect(namespace)
    if namespace in brain.namespaces():
        brain.remove_namespace()

"""Every line of brain-plasma's document does what it says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plasmon
import pytest
from plasmon.compat.brain_plasma import Brain, exceptions


def test_basic_use(store: plasmon.Store) -> None:
    brain = Brain(store.path)
    brain["this"] = "a text object"
    assert brain["this"] == "a text object"
    del brain["this"]
    with pytest.raises(KeyError):
        brain["this"]
    brain.learn("this", [1, 2, 3], description="numbers")
    assert brain.recall("this") == [1, 2, 3] and brain.exists("this") and len(brain) == 1
    brain.forget("this")
    brain.forget("this")
    assert not brain.exists("this")
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    brain["frame"] = frame
    pd.testing.assert_frame_equal(brain["frame"], frame)
    brain["array"] = np.arange(10)
    assert brain["array"].tolist() == list(range(10))
    assert sorted(brain.names()) == ["array", "frame"]
    assert brain.metadata("frame")["description"] == ""
    brain.clear()


def test_namespaces(store: plasmon.Store) -> None:
    brain = Brain(store.path, "first")
    brain["this"] = "in the first"
    assert brain.set_namespace("second") == "second" == brain.namespace == brain.set_namespace()
    brain["this"] = "in the second"
    assert brain.names(namespace="all") == ["this", "this"] == brain.names(namespaces="all")
    assert brain.namespaces() >= {"default", "first", "second"}
    brain.set_namespace("first")
    assert brain["this"] == "in the first"
    sentence = brain.remove_namespace("second")
    assert "second" in sentence and "first" in sentence
    brain.remove_namespace()
    assert brain.namespace == "default" and brain.namespaces() == {"default"}
    with pytest.raises(exceptions.BrainNamespaceRemoveDefaultError):
        brain.remove_namespace("default")
    with pytest.raises(exceptions.BrainNamespaceNotExistError):
        brain.remove_namespace("nowhere")


@pytest.mark.parametrize(("namespace", "good"), [("four", False), ("fives", True), ("x" * 15, True), ("x" * 16, False)])
def test_namespaces_have_5_to_15_characters(store: plasmon.Store, namespace: str, good: bool) -> None:
    brain = Brain(store.path)
    if good:
        assert Brain(store.path, namespace).namespace == brain.set_namespace(namespace) == namespace
        brain.remove_namespace()
        return
    for enter in (lambda: Brain(store.path, namespace), lambda: brain.set_namespace(namespace)):
        with pytest.raises(exceptions.BrainNamespaceNameError):
            enter()
    assert brain.namespace == "default"


def test_attributes_and_capacity(store: plasmon.Store) -> None:
    brain = Brain(path=store.path, namespace="default")
    assert brain.path == store.path and brain.client is not None
    assert brain.bytes == brain.size() == 512_000_000 and brain.mb == "512 MB"
    assert brain.used() + brain.free() == brain.size()
    brain.sleep()
    with pytest.raises(exceptions.BrainClientDisconnectedError):
        brain.names()
    brain.wake_up()
    assert brain.object_id("nothing") is None and brain.object_ids() == {} and brain.ids() == []

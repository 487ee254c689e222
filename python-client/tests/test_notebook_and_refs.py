"""What notebooks show of a brain, and references to values in place of their bytes."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plasmon
import pytest
from plasmon import _overview

# ---- notebooks


def _table(brain: plasmon.Brain) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in _overview.look(brain.client).rows}


def test_the_table_says_what_is_there(store: plasmon.Store, brain: plasmon.Brain) -> None:
    brain["array"] = np.zeros((10, 3), "int16")
    brain["frame"] = pd.DataFrame({"a": [1.5, 2.5]})
    brain.learn("soon", "gone", ttl="1h")
    held = brain["array"]
    rows = _table(brain)
    assert rows["array"][:3] == ("tensor", "int16", "(10, 3)")
    assert rows["array"][5] == "1 process"
    assert rows["frame"][0] == "table"
    assert rows["frame"][2] == "(2, 1)"
    assert rows["soon"][4] == "in 60m"
    assert rows["soon"][6] == str(brain.stat("soon")["version"])
    del held
    assert _table(brain)["array"][5] == ""


@pytest.mark.parametrize("name", ["x" * 1_000, "表" * 300, "line\nbreak\ttab", "a\u0301" * 200])
def test_the_table_keeps_its_shape_with_any_name(brain: plasmon.Brain, name: str) -> None:
    brain.update({"short": 1, name: 2})
    lines = brain._as_text().splitlines()
    assert len(lines) == 4
    assert all(len(line) < 140 for line in lines[1:])
    html = brain._repr_html_()
    assert "overflow:auto" in html
    assert html.count("<tr>") == 3


def test_the_table_shows_a_hundred_of_very_many_and_says_how_many_more(brain: plasmon.Brain) -> None:
    brain.learn_many({f"{number:05}": number for number in range(10_000)})
    assert "and 9,900 more" in brain._as_text()
    assert "and 9,900 more" in brain._repr_html_()
    assert len(brain._ipython_key_completions_()) == 10_000


def test_a_brain_whose_store_is_away_is_one_line() -> None:
    store = plasmon.Store(size="64MB")
    brain = store.connect()
    store.close()
    assert len(brain._as_text().splitlines()) == 1
    assert "no store answers" in brain._as_text()
    assert "no store answers" in brain._repr_html_()
    assert "<table" not in brain._repr_html_()
    assert brain._ipython_key_completions_() == []
    brain.sleep()
    assert "asleep" in brain._as_text()


# ---- references


def _sum(ref: plasmon.Ref) -> int:
    return int(ref().sum())


def test_pools_get_names_and_not_bytes(brain: plasmon.Brain) -> None:
    brain["numbers"] = np.arange(1_000_000)
    ref = brain.ref("numbers")
    assert len(pickle.dumps(ref)) < 300
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert list(pool.map(_sum, [ref, ref.newest()])) == [499_999_500_000] * 2
    with context.Pool(1) as processes:
        assert processes.map(_sum, [ref]) == [499_999_500_000]


def test_a_reference_is_to_one_version(brain: plasmon.Brain) -> None:
    brain["a"] = [1]
    ref = pickle.loads(pickle.dumps(brain.ref("a")))
    assert ref() == [1]
    assert (ref.name, ref.namespace, ref.path) == ("a", brain.namespace, brain.path)
    assert ref == brain.ref("a")
    assert hash(ref) == hash(brain.ref("a"))
    brain["a"] = [2]
    with pytest.raises(plasmon.VersionGone, match="newest") as gone:
        ref()
    assert (gone.value.version, gone.value.found_version) == (ref.version, brain.stat("a")["version"])
    assert ref.newest()() == [2]
    assert ref != brain.ref("a")
    del brain["a"]
    with pytest.raises(KeyError, match="not bound any more"):
        ref()
    with pytest.raises(plasmon.NameNotFound):
        ref.newest()()
    with pytest.raises(plasmon.NameNotFound):
        brain.ref("a")


def test_a_reference_is_to_one_store_and_not_to_the_next_at_its_place(tmp_path: Path) -> None:
    with plasmon.Store(size="16MB", path=tmp_path / "store.sock") as store:
        store.connect()["a"] = "old"
        ref = pickle.loads(pickle.dumps(store.connect().ref("a")))
    with plasmon.Store(size="16MB", path=tmp_path / "store.sock") as store:
        assert store.connect().learn("a", "new") == ref.version  # versions begin anew
        with pytest.raises(plasmon.VersionGone, match="started anew"):
            ref()
        assert ref != store.connect().ref("a")
        assert ref.newest()() == "new"


def test_a_reference_recalls_as_a_brain_does(brain: plasmon.Brain, nothing_is_left: Any) -> None:
    brain["frame"] = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    ref = brain.ref("frame")
    assert ref(columns=["b"]).to_dict("list") == {"b": [3, 4]}
    assert ref(as_="arrow").column_names == ["a", "b"]
    mine = ref(copy=True)
    mine.loc[0, "a"] = 9
    assert ref().loc[0, "a"] == 1
    del brain["frame"], mine

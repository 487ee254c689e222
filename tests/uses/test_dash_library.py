"""plasmon.dash and plasmon.cachelib, used as the projects they are for document it."""

from __future__ import annotations

import datetime
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plasmon
import pytest
from conftest import eventually
from dash_extensions.enrich import DashProxy, Input, Output, Serverside, ServersideOutputTransform, dcc, html
from flask import Flask
from flask.testing import FlaskClient
from flask_caching import Cache
from plasmon.cachelib import PlasmonCache
from plasmon.dash import PlasmonBackend, Sessions


@pytest.fixture
def cache(store: plasmon.Store) -> Iterator[PlasmonCache]:
    cache = PlasmonCache(store.path)
    yield cache
    cache.clear()


# ---- cachelib


def test_a_cache_does_what_cachelib_promises(cache: PlasmonCache) -> None:
    assert cache.get("a") is None and not cache.has("a") and not cache.delete("a")
    assert cache.set("a", {"x": [1, 2]}) and cache.get("a") == {"x": [1, 2]} and cache.has("a")
    assert not cache.add("a", 2) and cache.add("b", 2) and cache.get_many("a", "b", "c") == [{"x": [1, 2]}, 2, None]
    assert cache.get_dict("b", "c") == {"b": 2, "c": None}
    assert cache.set_many({"c": 3, "d": 4}) == ["c", "d"] and cache.delete_many("c", "d", "e") == ["c", "d", "e"]
    assert cache.delete("a") and cache.get("a") is None
    assert [cache.inc("n"), cache.inc("n", 5), cache.dec("n", 2), cache.get("n")] == [1, 6, 4, 4]
    assert cache.clear() and not cache.has("b")


def test_any_text_is_a_key(cache: PlasmonCache) -> None:
    keys = ["", "x" * 5000, "x" * 5001, "ü" * 600, "a\nb", "\udc80", "view//a b?c=d"]
    for number, key in enumerate(keys):
        cache.set(key, number)
    assert [cache.get(key) for key in keys] == list(range(len(keys)))


def test_entries_expire_and_those_with_timeout_0_do_not(cache: PlasmonCache) -> None:
    cache.set("short", 1, timeout=1)
    cache.set("gone", 1, timeout=-1)
    cache.set("for ever", 1, timeout=0)
    cache.set("default", 1)
    assert cache.get("short") == 1 and cache.brain.metadata("for ever")["ttl"] is None
    assert cache.brain.metadata("default")["ttl"] == 300
    eventually("it has expired", lambda: not cache.has("short"))
    assert not cache.has("gone") and cache.has("for ever") and cache.has("default")


def test_frames_are_shared_or_copied(store: plasmon.Store, cache: PlasmonCache) -> None:
    frame = pd.DataFrame({"x": np.arange(10_000.0), "t": ["a", "b"] * 5000})
    cache.set("frame", frame)
    pd.testing.assert_frame_equal(cache.get("frame"), frame)
    assert cache.brain.metadata("frame")["kind"] == "table"
    cache.set("array", np.zeros(10))
    with pytest.raises(ValueError, match="read-only"):
        cache.get("array")[0] = 1
    copies = PlasmonCache(store.path, copy=True)
    mine, many = copies.get("array"), copies.get_many("array", "absent", "array")
    assert many[1] is None
    for copy in (mine, many[0], many[2]):
        copy[0] += 1
        assert copy[0] == 1 and cache.get("array")[0] == 0


def test_a_cache_makes_room_for_what_is_new_and_drops_nothing_else() -> None:
    with plasmon.Store(size="16MB") as store:
        brain, cache = store.connect(), PlasmonCache(store.path)
        brain["mine"] = np.full(500_000, 7)
        for number in range(50):
            assert cache.set(f"{number}", np.full(250_000, number))  # 2 MB each
            assert cache.get(f"{number}")[0] == number
        assert not cache.has("0") and brain["mine"].sum() == 3_500_000
        assert not cache.set("too large", np.zeros(3_000_000)) and cache.get("too large") is None
        assert not PlasmonBackend(store.path).set("too large", np.zeros(3_000_000))
        with pytest.raises(plasmon.StoreFull):
            PlasmonBackend(store.path, strict=True).set("too large", np.zeros(3_000_000))


def test_counters_keep_the_time_at_which_they_expire(cache: PlasmonCache) -> None:
    for key, timeout, ttl in (("hits", 1000, 1000.0), ("for ever", 0, None)):
        cache.set(key, 1, timeout=timeout)
        before = cache.brain.metadata(key)
        assert [cache.inc(key), cache.dec(key), cache.inc(key, 5)] == [2, 1, 6]
        after = cache.brain.metadata(key)
        assert (after["ttl"], after["version"] > before["version"]) == (ttl, True)
        if ttl is not None:  # two looks at two clocks
            assert abs(after["expires_at"] - before["expires_at"]) < 0.1
    # One that has expired, or never was, begins anew.
    cache.set("short", 41, timeout=1)
    eventually("it has expired", lambda: not cache.has("short"))
    assert cache.inc("short") == 1 and cache.brain.metadata("short")["ttl"] == 300
    assert cache.add("added", 1, timeout=7) and cache.inc("added") == 2 and cache.brain.metadata("added")["ttl"] == 7


def test_what_cannot_be_unpickled_is_not_cached(
    cache: PlasmonCache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, strict = PlasmonBackend(cache.brain.path), PlasmonCache(cache.brain.path, strict=True)
    written = types.ModuleType("written")
    exec("class Held: pass", written.__dict__)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "written", written)
        for one in (cache, backend):
            assert one.set("held", written.Held()) and one.set("kept", 1)
        assert isinstance(cache.get("held"), written.Held)
    for one in (cache, backend):
        assert one.get("held") is None and one.get_many("kept", "held", "none") == [1, None, None] and one.has("held")
    assert caplog.text.count("counts as not cached") == 4
    for read in (strict.get, strict.get_many):
        with pytest.raises(plasmon.UnpicklingFailed, match="written"):
            read("held")
    assert cache.set("held", 2) and cache.get("held") == 2 and backend.clear()


def test_a_store_that_is_away_is_a_cache_that_has_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "store.sock"
    cache, backend = PlasmonCache(path), PlasmonBackend(path)  # before there is a store
    for one in (cache, backend):
        assert one.get("a") is None and not one.set("a", 1) and not one.add("a", 1) and not one.has("a")
        assert not one.delete("a") and one.get_many("a", "b") == [None, None] and one.inc("n") is None
        assert not one.clear() and one.set_many({"a": 1}) == []
    assert caplog.text.count("has and keeps nothing") == 2 and backend.uid == "PlasmonBackend:dash-serverside"
    for strict in (PlasmonCache, PlasmonBackend):
        with pytest.raises(plasmon.StoreUnavailable):
            strict(path, strict=True)
    # There is one, one that was started anew, and one whose namespace was removed: each time they are caches.
    for _ in range(2):
        with plasmon.Store(size="16MB", path=path) as store:
            for removed in (False, True):
                for one in (cache, backend):
                    if removed:
                        store.connect().remove_namespace(one.brain.namespace)
                    for number in range(20):
                        assert one.set(f"{number}", np.full(250_000, number)) and one.get(f"{number}")[0] == number
            assert cache.inc("n") == 1 and cache.clear() and backend.clear()
    assert cache.get("a") is None and not backend.set("a", 1)


# ---- Flask-Caching


def test_flask_caching_takes_it_by_its_path(store: plasmon.Store) -> None:
    app = Flask("app")
    calls: list[Any] = []
    options = {"path": store.path, "namespace": "flask"}
    config = {"CACHE_TYPE": "plasmon.cachelib.PlasmonCache", "CACHE_DEFAULT_TIMEOUT": 50, "CACHE_OPTIONS": options}
    cache = Cache(app, config=config)

    @app.route("/view")
    @cache.cached(timeout=60)
    def view() -> str:
        calls.append("view")
        return "answer"

    @cache.memoize(30)
    def frame(rows: int) -> pd.DataFrame:
        calls.append(rows)
        return pd.DataFrame({"n": range(rows)})

    with app.test_client() as client:
        assert [client.get("/view").text for _ in range(3)] == ["answer"] * 3
    with app.app_context():
        assert len(frame(3)) == len(frame(3)) == 3 and len(frame(4)) == 4
        assert calls == ["view", 3, 4]
        cache.delete_memoized(frame, 3)
        frame(3), frame(4)
        assert calls == ["view", 3, 4, 3]
        cache.set("a", 1)
        assert cache.get("a") == 1 and cache.add("a", 2) is False and cache.has("a") and cache.delete("a")
        found = store.connect("flask")
        assert found.metadata("view//view")["ttl"] == 60 and len(found) > 2
        assert cache.clear() and len(found) == 0


# ---- dash-extensions


def callback(client: FlaskClient, output: str, changed: str, values: dict[str, Any]) -> Any:
    """Call a callback as the browser does."""
    component, prop = output.split(".")
    inputs = [{"id": key.split(".")[0], "property": key.split(".")[1], "value": value} for key, value in values.items()]
    asked = {
        "output": output,
        "outputs": {"id": component, "property": prop},
        "inputs": inputs,
        "changedPropIds": [changed],
        "state": [],
    }
    answer = client.post("/_dash-update-component", json=asked)
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text)["response"][component][prop]


def test_serverside_outputs_stay_in_the_store(store: plasmon.Store) -> None:
    backend = PlasmonBackend(store.path)

    def worker() -> FlaskClient:
        """What each worker of a server does with the program."""
        app = DashProxy("app", transforms=[ServersideOutputTransform(backends=[PlasmonBackend(store.path)])])
        app.layout = html.Div([html.Button(id="button"), dcc.Store(id="store"), html.Div(id="rows")])

        @app.callback(Output("store", "data"), Input("button", "n_clicks"), prevent_initial_call=True)
        def load(clicks: int) -> Any:
            return Serverside(pd.DataFrame({"n": np.arange(100_000 * clicks)}), key="one-session")

        @app.callback(Output("rows", "children"), Input("store", "data"))
        def show(frame: pd.DataFrame) -> str:
            return f"{len(frame)} rows, last {frame['n'].iloc[-1]}"

        app._setup_server()
        return app.server.test_client()

    one, other = worker(), worker()
    token = callback(one, "store.data", "button.n_clicks", {"button.n_clicks": 2})
    assert len(token) < 200 and "one-session" in token and "PlasmonBackend:dash-serverside" in token
    assert callback(other, "rows.children", "store.data", {"store.data": token}) == "200000 rows, last 199999"
    # The key is the session's own: a new value takes the place of the old one.
    callback(other, "store.data", "button.n_clicks", {"button.n_clicks": 1})
    assert callback(one, "rows.children", "store.data", {"store.data": token}) == "100000 rows, last 99999"
    found = store.connect("dash-serverside")
    assert list(found) == ["one-session"]
    known = found.metadata("one-session")
    assert (known["kind"], known["ttl"], known["sliding"]) == ("table", 24 * 3600, True)
    assert backend.get("one-session", ignore_expired=True) is not None and backend.get(None) is None
    assert backend.delete("one-session") and backend.get("one-session", ignore_expired=True) is None
    backend.set("a", 1)
    assert backend.clear() and len(found) == 0


# ---- sessions


def test_sessions_do_not_see_each_other_and_go_when_idle(store: plasmon.Store) -> None:
    brain = store.connect()
    assert Sessions(brain, ttl="30m").begin() != Sessions(brain, ttl=datetime.timedelta(minutes=30)).begin()
    sessions = Sessions(brain, ttl="500ms")
    mine, yours = sessions.begin(), sessions.begin()
    assert mine != yours
    version = sessions.learn(mine, "a", np.arange(1000))
    assert sessions.learn(mine, "a", np.arange(2000)) > version
    assert len(sessions.recall(mine, "a")) == 2000 and sessions.get(yours, "a", "nothing") == "nothing"
    with pytest.raises(
        plasmon.NameNotFound, match="has not used it for 0.5 seconds, or the store has been started anew"
    ):
        sessions.recall(yours, "a")
    sessions.learn(yours, "a", "yours")
    sessions.end(yours)
    sessions.end(yours)
    assert sessions.get(yours, "a") is None and f"session-{yours}" not in brain.namespaces()
    eventually("what is idle has gone", lambda: brain.names(f"session-{mine}") == [])
    sessions.sweep()
    assert f"session-{mine}" not in brain.namespaces()
    assert brain.stats()["used_bytes"] == 0


def test_a_sweep_removes_no_session_that_is_used_again(store: plasmon.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    brain = store.connect()
    sessions = Sessions(brain, ttl=1000)
    idle, back = sessions.begin(), sessions.begin()
    for session in (idle, back):
        sessions.learn(session, "a", 1)
        brain.forget("a", namespace=f"session-{session}")
    # Between the look of the sweep and what it does, its user comes back.
    remove = plasmon.Brain.remove_namespace

    def later(brain: plasmon.Brain, namespace: str, **how: Any) -> str:
        if namespace.endswith(back):
            sessions.learn(back, "a", "mine")
        return remove(brain, namespace, **how)

    monkeypatch.setattr(plasmon.Brain, "remove_namespace", later)
    sessions.sweep()
    assert sessions.recall(back, "a") == "mine" and f"session-{idle}" not in brain.namespaces()
    sessions.end(back)


def test_sessions_say_that_the_store_is_away(tmp_path: Path) -> None:
    path = tmp_path / "store.sock"
    with plasmon.Store(size="16MB", path=path) as store:
        sessions = Sessions(store.connect(), ttl=1000)
        mine = sessions.begin()
        sessions.learn(mine, "a", 1)
    for call in (
        lambda: sessions.recall(mine, "a"),
        lambda: sessions.get(mine, "a"),
        lambda: sessions.learn(mine, "a", 1),
    ):
        with pytest.raises(plasmon.StoreUnavailable):
            call()
    with plasmon.Store(size="16MB", path=path) as store:
        with pytest.raises(plasmon.NameNotFound, match="started anew"):
            sessions.recall(mine, "a")
        sessions.learn(mine, "a", 2)
        known = store.connect().metadata("a", namespace=f"session-{mine}")
        assert (sessions.recall(mine, "a"), known["ttl"], known["sliding"]) == (2, 1000, True)

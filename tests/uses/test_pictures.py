"""What people see, in a real browser. With PLASMON_WRITE_PICTURES=1 the pictures of the documentation are made anew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import plasmon
import pyarrow as pa
import pytest
from chromium import chromium
from conftest import REPOSITORY
from playwright.sync_api import Browser, Locator, expect
from serving import APP, served

IMAGES = REPOSITORY / "docs" / "images"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def picture(of: Locator, name: str, directory: Path) -> None:
    """Take a picture; it goes into the documentation if that was asked for."""
    if os.environ.get("PLASMON_WRITE_PICTURES"):
        directory = IMAGES
    png = of.screenshot(path=directory / name, animations="disabled", scale="css")
    assert png.startswith(b"\x89PNG") and len(png) < 100_000
    assert (IMAGES / name).exists(), f"make it with PLASMON_WRITE_PICTURES=1 pytest {Path(__file__).name}"


PAGE = """
<body style="font-family: system-ui, sans-serif; font-size: 14px; margin: 0">
<div id="notebook" style="padding: 1em; width: 46em">
<pre style="background: #f5f5f5; border: 1px solid #ddd; padding: .6em">%load_ext plasmon
%brain</pre>
{}
</div>
"""


def test_the_table_of_a_notebook_is_readable(tmp_path: Path, browser: Browser) -> None:
    with plasmon.Store(size="256MB", path=tmp_path / "store.sock") as store:
        brain = store.connect()
        brain["image"] = np.zeros((4000, 4000), "f4")
        brain["flights"] = pd.DataFrame({"delay": np.zeros(300_000), "origin": ["JFK"] * 300_000})
        brain["prices"] = pa.table({"t": range(100_000), "price": np.ones(100_000)})
        brain["settings"] = {"threshold": 0.5, "labels": ["a", "b"]}
        html = brain._repr_html_().replace(brain.path, "/run/user/1000/plasmon/store.sock")
        page = browser.new_page()
        page.set_content(PAGE.format(html))
        expect(page.locator("table tr")).to_have_count(5)
        expect(page.locator("#notebook")).to_contain_text("of 244.1 MiB used")
        row = page.locator("tr", has_text="image")
        expect(row).to_contain_text("(4000, 4000)")
        expect(row).to_contain_text("61.04 MiB")
        bar = page.locator("#notebook > div > div > div").bounding_box()
        whole = page.locator("#notebook > div > div").first.bounding_box()
        assert bar and whole and 0.2 < bar["width"] / whole["width"] < 0.4 and bar["height"] > 4
        picture(page.locator("#notebook"), "notebook.png", tmp_path)

        ran: list[object] = []
        page.on("dialog", lambda dialog: (ran.append(dialog), dialog.dismiss()))
        brain["<img src=x onerror=alert(1)>"] = "a name that is shown, and no more"
        page.set_content(PAGE.format(brain._repr_html_()))
        expect(page.locator("table")).to_contain_text("<img src=x onerror=alert(1)>")
        assert page.locator("table img").count() == 0 and ran == []


def test_the_dashboard_is_as_the_documentation_shows_it(tmp_path: Path, browser: Browser) -> None:
    with plasmon.Store(size="1GiB") as store:
        environment = {"PLASMON_SOCKET": store.path}
        with served("app:server()", APP, tmp_path / "log", workers=2, environment=environment) as address:
            page = browser.new_page(viewport={"width": 900, "height": 680})
            page.goto(address)
            for airport in ("Newark", "LaGuardia", "John F. Kennedy"):  # all workers have begun then
                page.get_by_label(airport).click(timeout=60_000)
                expect(page.locator("#chart .gtitle")).to_have_text(f"Flights from {airport}", timeout=60_000)
            expect(page.locator("#summary")).to_contain_text("109,416 flights")
            picture(page.locator("#page"), "dash.png", tmp_path)

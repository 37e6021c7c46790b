"""The page in a real browser: no network, no errors, figures drawn, downloads whole."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from interp.report import build_page

Build = Callable[..., Path]

sync_api = pytest.importorskip("playwright.sync_api")
BROWSER = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome on this machine")

FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield opened
        opened.close()


class Opened:
    """A page that has drawn itself, with everything it complained of or asked the network for."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.page = browser.new_context(**context).new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-drawn]", state="attached", timeout=60_000)

    @property
    def outside(self) -> list[str]:
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_draws_everything_quietly(browser: Any, build: Build, width: int, scheme: str) -> None:
    path = build_page(build(rung4={"natural-only": 0.0, "cg-high": 0.8}))
    size = {"width": width, "height": 900}
    opened = Opened(browser, path, viewport=size, color_scheme=scheme)
    page = opened.page
    figures = page.locator("figure.plot").count()
    assert figures >= 12
    assert page.locator("figure.plot .js-plotly-plot").count() == figures
    empty = page.evaluate(
        "Object.values(figures).filter(f => !document.getElementById(`canvas-${f.name}`)"
        ".querySelector('.trace, .hm, .point, .heatmaplayer image, .sankey-link')).map(f => f.name)"
    )
    assert empty == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.complaints == []
    assert opened.outside == []


def test_downloads_and_rows(browser: Any, build: Build) -> None:
    folder = build()
    page = Opened(browser, build_page(folder)).page
    for name in ("accuracy", "patching_examples"):
        with page.expect_download() as waiting:
            page.click(f'button[data-download="{name}"]')
        raw = (folder / "tables" / f"{name}.csv").read_bytes()
        assert Path(waiting.value.path()).read_bytes() == raw
        assert waiting.value.suggested_filename == f"{name}.csv"
    page.click('details[data-table="losses"] summary')
    rows = page.locator('details[data-table="losses"] tbody tr')
    rows.first.wait_for()
    assert rows.count() == 32
    page.click('details[data-table="patching_examples"] summary')
    rows = page.locator('details[data-table="patching_examples"] tbody tr')
    rows.first.wait_for()
    assert rows.count() == 200


def test_choices_change_the_figure(browser: Any, build: Build) -> None:
    opened = Opened(browser, build_page(build()))
    page = opened.page
    shown = (
        "JSON.stringify(document.getElementById('canvas-domain-map').data.filter(t => t.visible)"
    )
    before = json.loads(page.evaluate(f"{shown}.map(t => t.meta))"))
    assert len(before) == 1
    page.select_option(
        'select[data-figure="domain-map"][data-choice="1"]', label="CG high diversity"
    )
    page.wait_for_function(
        "document.getElementById('canvas-domain-map').data.find(t => t.visible).meta[1] === 3"
    )
    after = json.loads(page.evaluate(f"{shown}.map(t => t.z))"))
    assert after[0] != before
    assert opened.complaints == []


def test_names_from_data_stay_text(browser: Any, build: Build) -> None:
    import pandas as pd

    names = ("<img src=x onerror=alert(1)>", '"; alert(2); "', "זברה", "🦒", "y" * 300, "</script>")
    frame = pd.DataFrame(
        [
            {"setting": setting, "test_domain": "sketch", "domain": "sketch", "label": name}
            | {"prompts": "neutral", "candidates": "all", "value": 0.5, "n_pictures": 16}
            for setting in ("natural-only", "cg-high")
            for name in names
        ]
    )
    held_out = {"test_domains": ["sketch"], "held_out": list(names)}
    folder = build(replaced={"accuracy_by_class": frame}, specification=held_out)
    opened = Opened(browser, build_page(folder))
    page = opened.page
    ticks = page.locator("#canvas-accuracy-by-class .ytick text").all_text_contents()
    assert any("<img src=x" in tick for tick in ticks)
    page.click('details[data-table="accuracy_by_class"] summary')
    page.locator('details[data-table="accuracy_by_class"] tbody tr').first.wait_for()
    assert page.locator("img[src=x]").count() == 0
    cells = page.locator('details[data-table="accuracy_by_class"] td').all_inner_texts()
    assert names[0] in cells
    assert opened.complaints == []

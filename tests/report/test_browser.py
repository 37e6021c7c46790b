"""The page in a real browser: no network, no errors, a map to click, for every reader."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from interp.report import build_page
from interp.report.difference_page import build_difference_page
from interp.study.compare_results import compare_results

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
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome on this machine"),
]

FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()

SHOTS = Path(os.environ.get("INTERP_SHOTS", Path(__file__).parent.parent / "artefacts"))
"""Where screenshots are kept for people to look at."""

LEFT_AT_PRINT = """addEventListener('beforeprint', () => {
  const canvases = [...document.querySelectorAll('[data-canvas]')];
  const shut = document.querySelectorAll('.made details:not([open])');
  window.printed = canvases.filter((one) => !('drawn' in one.dataset)).length + shut.length;
})"""
"""Count, once the page has made itself ready for paper, what is not drawn and not open."""

PRINT_WIDTH = 794  # A4 at 96 dots per inch


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield opened
        opened.close()


class Opened:
    """A page that is ready, with everything it complained of or asked the network for."""

    def __init__(
        self,
        browser: Any,
        path: Path,
        *,
        all_drawn: bool = False,
        doors_open: bool = False,
        waits: bool = True,
        address: str = "",
        **context: Any,
    ) -> None:
        self.page = browser.new_context(**context).new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri() + address)
        if waits:  # for the map, which comes last
            ready = "html[data-map][data-unpacked]"  # figures are unpacked behind it
            self.page.wait_for_selector(ready, state="attached", timeout=60_000)
        if doors_open or all_drawn:
            self.page.evaluate("doors().forEach((one) => { one.open = true; })")
        if all_drawn:
            self.page.evaluate("drawEverything()")
            self.page.wait_for_selector("html[data-drawn]", state="attached", timeout=60_000)

    @property
    def outside(self) -> list[str]:
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]

    def shot(self, name: str) -> None:
        """Keep a picture of the whole page."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png", full_page=True)

    def violations(self) -> list[str]:
        """What the accessibility engine calls serious or critical."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright")
        found = axe.Axe().run(self.page, options={"resultTypes": ["violations"]})
        return [
            f"{each['id']}: {[node['html'][:160] for node in each['nodes'][:3]]}"
            for each in found.response["violations"]
            if each["impact"] in ("serious", "critical")
        ]


def until(page: Any, expression: str) -> None:
    """Wait for an expression to hold; the page's own policy forbids playwright's way of waiting."""
    for _ in range(100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never true: {expression}")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a page lies that several tests open."""
    return tmp_path_factory.mktemp("page") / "report.html"


@pytest.fixture
def planted(build: Build, shelf: Path) -> Path:
    """The page of a study that measured everything."""
    if not shelf.exists():
        build_page(build(rung4={"natural-only": 0.0, "cg-high": 0.8}, sheets=True), shelf)
    return shelf


@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        ("light", 1280),
        ("dark", 390),
        pytest.param("light", 390, marks=pytest.mark.long),
        pytest.param("dark", 1280, marks=pytest.mark.long),
    ],
)
def test_draws_everything_quietly(browser: Any, planted: Path, width: int, scheme: str) -> None:
    size = {"width": width, "height": 900}
    opened = Opened(browser, planted, all_drawn=True, viewport=size, color_scheme=scheme)
    page = opened.page
    figures = page.locator("figure.plot").count()
    assert figures >= 12
    assert page.locator("figure.plot .js-plotly-plot").count() == figures
    empty = page.evaluate(
        "Object.keys(figures).filter(name => !document.getElementById(`canvas-${name}`)"
        ".querySelector('.trace, .hm, .point, .heatmaplayer image'))"
    )
    assert empty == []
    page.click("#cells summary")
    page.wait_for_selector("#cells .tile")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    opened.shot(f"page-{width}-{scheme}")
    assert opened.violations() == []
    assert opened.complaints == []
    assert opened.outside == []


def test_a_long_legend_leaves_the_plot_its_height(browser: Any, planted: Path) -> None:
    """As of a study of twelve mixtures, whose names have several lines."""
    page = Opened(browser, planted, viewport={"width": 1280, "height": 900}).page
    heights = page.evaluate(
        """() => [2, 12].map((n) => {
          const data = Array.from({ length: n }, (_, at) => (
            { type: "scatter", x: [0, 1], y: [at, 1], name: `mixture ${at}<br>of half the cells` }
          ));
          const legend = { orientation: "h", x: 0, y: 1.03, yanchor: "bottom", xanchor: "left" };
          const figure = { data, layout: { height: 330, legend }, selected: [] };
          const place = document.createElement("div");
          place.style.width = "700px";
          document.body.append(place);
          const made = picture(figure, 700);
          Plotly.newPlot(place, made.data, made.layout);
          return place._fullLayout._size.h;
        })"""
    )
    assert heights[0] > 200 and heights[1] > 0.9 * heights[0]


@pytest.mark.parametrize("width", [1280, 390])
def test_a_node_of_a_circuit_shows_what_it_responds_to(
    browser: Any, planted: Path, width: int
) -> None:
    size = {"width": width, "height": 900}
    opened = Opened(browser, planted, address="#circuits&open=circuits", viewport=size)
    page, strip = opened.page, opened.page.locator("#node-strip")
    middle = "document.getElementById('canvas-circuit').scrollIntoView({ block: 'center' })"
    page.evaluate(middle)
    page.locator("#canvas-circuit .textpoint").first.wait_for()
    page.wait_for_timeout(1500)  # figures above are drawn as they come into view, and push it down
    page.evaluate(middle)
    page.wait_for_timeout(500)
    nodes = page.locator("#canvas-circuit .scatterlayer .trace").last.locator(".points path")
    assert not strip.is_visible()
    nodes.nth(1).hover(force=True)  # a0.h1; plotly lies a layer above its points
    strip.wait_for()
    box = strip.bounding_box()
    assert box and box["x"] >= 0 and box["x"] + box["width"] <= width
    assert strip.inner_text() == "most active in real, then in sketch"
    assert strip.locator("img").get_attribute("alt") == "What activates a0.h1 most"
    assert strip.locator("img").bounding_box()["height"] == 40
    nodes.nth(0).hover(force=True)  # the input has no pictures
    until(page, "document.getElementById('node-strip').hidden")
    assert opened.complaints == [] and opened.outside == []


def test_a_slider_shows_what_is_said_at_each_dose(browser: Any, planted: Path) -> None:
    opened = Opened(
        browser, planted, address="#open=steering", viewport={"width": 1280, "height": 900}
    )
    page = opened.page
    slider = page.locator("input[type=range][data-figure=steered-answers]")
    slider.scroll_into_view_if_needed()
    page.locator("#canvas-steered-answers .bars path").first.wait_for(state="attached")
    lengths = "figures['steered-answers'].data.length"
    assert page.evaluate(lengths) > 6
    drawn = "byId('canvas-steered-answers').data.map((trace) => trace.x[0])"
    assert page.evaluate(drawn) == [0, 0]
    slider.focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert page.locator("output").inner_text() == "2"
    assert page.evaluate(drawn) == [0.8, 0.8]
    until(page, "location.hash.includes('steered-answers:')")
    restored = Opened(
        browser, planted, address=page.evaluate("location.hash"),
        viewport={"width": 1280, "height": 900},
    )  # fmt: skip
    assert restored.page.locator("output").inner_text() == "2"
    assert opened.violations() == [] and opened.complaints == []


@pytest.mark.long
def test_two_results_stand_on_one_page(browser: Any, build: Build, tmp_path: Path) -> None:
    first, second = build(name="first"), build(name="second", spec_hash="another")
    found = compare_results(first, second)
    out = tmp_path / "both.html"
    build_difference_page(first, second, found.table, facts=found.facts, rest=found.rest, out=out)
    for width in (1280, 390):
        opened = Opened(
            browser, out, all_drawn=True, waits=False, viewport={"width": width, "height": 900}
        )
        page = opened.page
        assert page.locator("figure.plot .js-plotly-plot").count() == 4
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert opened.violations() == [] and opened.complaints == [] and opened.outside == []
        opened.shot(f"difference-{width}")


def test_on_a_phone_the_answers_words_keep_clear_of_one_another(
    browser: Any, planted: Path
) -> None:
    """The axis title takes two lines, and the words of two thresholds their outer sides."""
    anchors, titles = [], []
    for width in (1280, 390):
        page = Opened(browser, planted, viewport={"width": width, "height": 844}).page
        page.wait_for_selector("html[data-first]")
        drawn = page.evaluate("document.getElementById('canvas-answer').layout")
        above = sorted((n for n in drawn["annotations"] if n["y"] == 1), key=lambda n: n["x"])
        anchors.append([note["xanchor"] for note in above])
        titles.append(drawn["xaxis"]["title"]["text"])
    assert anchors == [["center", "center"], ["right", "left"]]
    assert titles[1] == titles[0].replace(" (", "<br>(")


def test_a_term_is_explained_where_a_section_first_uses_it(browser: Any, planted: Path) -> None:
    opened = Opened(browser, planted, viewport={"width": 390, "height": 844}, doors_open=True)
    page, tip = opened.page, opened.page.locator("#tip")
    page.locator("#ladder .term").first.wait_for()
    per_section = page.evaluate(
        "[...document.querySelectorAll('main > section')].map((section) => "
        "[...section.querySelectorAll('.term')].map((term) => term.textContent.toLowerCase()))"
    )
    assert sum(map(len, per_section)) > 40
    assert all(len(terms) == len(set(terms)) for terms in per_section)
    # no rung or level stands anywhere before the section that uses it has explained it
    assert {"r1", "r4", "r6"} <= {name for terms in per_section for name in terms}
    term = page.locator("#ladder .term", has_text="R4").first
    assert not tip.is_visible()
    term.focus()
    assert tip.inner_text().startswith("same causal directions")
    assert term.get_attribute("aria-describedby") == "tip"
    box = tip.bounding_box()
    assert box and box["x"] >= 0 and box["x"] + box["width"] <= 390
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    term.hover()
    assert tip.is_visible()
    term.click()
    place = term.get_attribute("href")
    assert (
        page.locator(f"{place} dt").inner_text() == "R4" and page.locator(f"{place}").is_visible()
    )
    assert opened.violations() == [] and opened.complaints == []


@pytest.mark.long
def test_pinned_figures_are_saved_as_one_picture_or_page(
    browser: Any, planted: Path, tmp_path: Path
) -> None:
    opened = Opened(
        browser, planted, viewport={"width": 1280, "height": 900}, color_scheme="dark",
        address="#open=circuits", accept_downloads=True,
    )  # fmt: skip
    page = opened.page
    assert not page.locator("#board").is_visible() and not page.locator("#to-board").is_visible()
    page.locator("[data-pin=answer]").click()
    page.locator("select[data-figure=circuit]").last.select_option("1")
    page.locator("[data-pin=circuit]").click()
    until(page, "document.querySelectorAll('#pinned figure').length === 2")
    assert page.locator("#to-board").inner_text() == "Board (2)"
    assert "Pictures: real" in page.locator("#pinned figure p").inner_text()
    # another choice of a figure is another picture, the same one is not pinned twice
    page.locator("[data-pin=circuit]").click()
    page.locator("select[data-figure=circuit]").last.select_option("2")
    page.locator("[data-pin=circuit]").click()
    until(page, "document.querySelectorAll('#pinned figure').length === 3")
    page.locator("#pinned button").last.click()
    assert page.locator("#pinned figure").count() == 2
    assert opened.violations() == []
    for button, name in (("save-picture", "board.png"), ("save-page", "board.html")):
        with page.expect_download() as download:
            page.locator(f"#{button}").click()
        assert download.value.suggested_filename == name
        download.value.save_as(tmp_path / name)
    assert opened.complaints == [] and opened.outside == []
    with Image.open(tmp_path / "board.png") as picture:
        assert picture.width == 1800 and picture.height > 1000
        assert picture.getpixel((1, 1)) == (255, 255, 255, 255)  # light, though the page is dark
        assert len(picture.convert("P").getcolors(256) or []) > 8
    saved = browser.new_context().new_page()
    saved.goto((tmp_path / "board.html").as_uri())
    assert saved.locator("figure img").count() == 2
    assert saved.evaluate("[...document.images].every((one) => one.complete && one.naturalWidth)")


@pytest.mark.parametrize(("width", "height", "screens"), [(1280, 900, 6), (390, 844, 12)])
def test_the_closed_page_is_short(
    browser: Any, planted: Path, width: int, height: int, screens: int
) -> None:
    opened = Opened(browser, planted, viewport={"width": width, "height": height})
    page = opened.page
    assert page.evaluate("document.documentElement.scrollHeight") <= screens * height
    assert page.evaluate("document.body.innerText.split(/\\s+/).length") <= 1500
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".gist").count() >= 8 and page.locator("summary .chip").count() >= 8
    opened.shot(f"closed-{width}")
    assert opened.violations() == [] and opened.complaints == []


def test_the_first_screen_says_what_was_asked_and_found(browser: Any, planted: Path) -> None:
    page = Opened(browser, planted, viewport={"width": 1280, "height": 900}).page
    for what in ("h1", ".setup", ".strip", ".answer", "#canvas-answer", ".overview"):
        box = page.locator(what).first.bounding_box()
        assert box and box["y"] + box["height"] <= 900, what
    rows = page.locator(".overview tbody tr").all_inner_texts()
    assert len(rows) == 4 and all("yes" in row and "%" in row for row in rows)
    names = page.evaluate(
        "[...document.querySelectorAll('#canvas-answer .textpoint text')]"
        ".map((one) => one.getBoundingClientRect()).map((r) => [r.left, r.top, r.right, r.bottom])"
    )
    assert len(names) == 4
    apart = [
        a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        for place, a in enumerate(names)
        for b in names[place + 1 :]
    ]
    assert all(apart)


def test_a_link_restores_what_is_open_and_chosen(browser: Any, planted: Path) -> None:
    page = Opened(browser, planted).page
    assert page.locator(".door > details[open]").count() == 0
    page.click("#similarity > details > summary")
    page.select_option(
        'select[data-figure="domain-map"][data-choice="1"]', label="CG high diversity"
    )
    until(page, "location.hash.includes('pick=')")
    address = page.evaluate("location.hash")
    assert "open=similarity" in address
    again = Opened(browser, planted, address=address).page
    until(again, "document.querySelector('#similarity > details').open")
    assert again.locator(".door > details[open]").count() == 1
    chosen = 'select[data-figure="domain-map"][data-choice="1"]'
    assert again.locator(f"{chosen} option:checked").inner_text() == "CG high diversity"
    other = Opened(browser, planted, address="#figure-certificate").page
    until(other, "document.querySelector('#certificate > details').open")


def test_search_finds_sections_classes_and_words(browser: Any, planted: Path) -> None:
    page = Opened(browser, planted, viewport={"width": 1280, "height": 900}).page
    for asked, kind in (("geometry", "section"), ("verdict", "word"), ("certificate", "table")):
        page.fill("#search", asked)
        found = page.locator("#found li").all_inner_texts()
        assert any(each.endswith(kind) and asked in each.lower() for each in found), (asked, found)
    page.fill("#search", "geometry")
    page.click("#found a >> text=Same geometry")
    until(page, "document.querySelector('#similarity > details').open")
    page.fill("#search", "no such thing")
    assert "Nothing on this page" in page.locator("#found").inner_text()
    page.fill("#search", "")
    assert page.locator("#found").is_hidden()


@pytest.mark.long
def test_print_takes_what_is_open_or_else_everything(browser: Any, planted: Path) -> None:
    page = Opened(browser, planted).page
    page.evaluate("setPrinting(true)")
    assert page.locator(".door > details:not([open])").count() == 0
    page.evaluate("setPrinting(false)")
    assert page.locator(".door > details[open]").count() == 0
    page.click("#similarity > details > summary")
    page.evaluate("setPrinting(true)")
    assert page.locator(".door > details[open]").count() == 1


def test_without_javascript_the_answer_and_the_tables_are_there(
    browser: Any, planted: Path
) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(planted.as_uri())
    assert page.locator(".answer").is_visible() and page.locator(".overview").is_visible()
    assert page.locator("noscript svg.still").count() == 1 or page.locator("svg.still").is_visible()
    page.click("#similarity > details > summary")
    assert page.locator("#similarity table.grid").first.is_visible()


def test_the_accessibility_check_can_fail(browser: Any, planted: Path) -> None:
    opened = Opened(browser, planted)
    opened.page.evaluate("document.querySelector('#theme').textContent = ''")
    assert any("button-name" in each for each in opened.violations())


def test_figures_wait_until_they_come_near(browser: Any, planted: Path) -> None:
    opened = Opened(browser, planted, viewport={"width": 1280, "height": 900})
    page = opened.page
    assert page.locator("#canvas-answer.js-plotly-plot").count() == 1
    assert page.locator("#canvas-certificate.js-plotly-plot").count() == 0
    page.click("#certificate > details > summary")
    page.locator("#figure-certificate").scroll_into_view_if_needed()
    page.wait_for_selector("#canvas-certificate.js-plotly-plot")


def test_a_click_on_the_map_changes_the_detail(browser: Any, planted: Path) -> None:
    opened = Opened(browser, planted)
    page, detail = opened.page, opened.page.locator("#map-detail")
    assert detail.locator("h3").inner_text() == "real → sketch, natural only"
    page.click("#map-more summary")
    assert "R4" in detail.inner_text() and detail.locator(".strips img").count() == 2
    page.click('#map-grid button[data-pair="0 1"]')
    assert detail.locator("h3").inner_text() == "real → clipart, natural only"
    # above R3 this pair was not measured: it says so, and what would
    note = detail.locator(".note").inner_text()
    assert "R4" in note and "--domains real,clipart" in note
    assert page.locator('#map-grid [aria-selected="true"] button').get_attribute(
        "aria-label"
    ).startswith("real to clipart")  # fmt: skip
    page.select_option("#map-model", label="CG high diversity")
    assert detail.locator("h3").inner_text() == "real → clipart, CG high diversity"
    assert opened.complaints == []


def test_the_map_says_what_the_tables_say(browser: Any, build: Build) -> None:
    folder = build(rung4={"cg-high": 0.8})
    page = Opened(browser, build_page(folder)).page
    page.select_option("#map-measure", label="R2 geometry: debiased CKA")
    page.select_option("#map-model", label="CG high diversity")
    page.select_option("#map-place", label="layer3.0.resid_post (depth 0.60)")
    rows = pd.read_csv(folder / "tables" / "similarity.csv", keep_default_na=False)
    domains = ["real", "clipart", "painting", "sketch"]
    rows = rows[(rows.setting == "cg-high") & (rows.control == "")]
    rows = rows[rows.site == "layer3.0.hook_resid_post"]
    assert len(rows)
    for row in rows.itertuples():
        a, b = domains.index(row.domain_a), domains.index(row.domain_b)
        for pair in (f"{a} {b}", f"{b} {a}"):  # CKA knows no direction
            said = page.get_attribute(f'#map-grid button[data-pair="{pair}"]', "aria-label")
            assert f"index {float(row.index):.2f}" in said.replace("−", "-")
            assert said.endswith(row.verdict)


def test_the_map_is_used_by_keyboard(browser: Any, planted: Path) -> None:
    opened = Opened(browser, planted)
    page, detail = opened.page, opened.page.locator("#map-detail h3")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.focus("#map-place")
    page.keyboard.press("Tab")
    here = "document.activeElement.dataset.pair"
    assert page.evaluate(here) == "0 3"  # one stop for the whole grid
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(here) == "1 2"
    page.keyboard.press("ArrowLeft")  # over the diagonal
    assert page.evaluate(here) == "1 0"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.keyboard.press("Enter")
    assert detail.inner_text() == "clipart → real, natural only"


def test_dark_mode_is_a_switch_and_figures_follow(browser: Any, planted: Path) -> None:
    opened = Opened(browser, planted, color_scheme="light")
    page = opened.page
    ink = "document.querySelector('#canvas-answer .xtick text').style.fill"
    light = page.evaluate(ink)
    page.click("#theme")
    assert page.get_attribute("#theme", "aria-pressed") == "true"
    until(page, f"{ink} !== '{light}'")
    page.evaluate("setPrinting(true)")  # paper is white
    until(page, f"{ink} === '{light}'")


def test_printing_draws_and_opens_everything(browser: Any, planted: Path) -> None:
    opened = Opened(browser, planted, viewport={"width": 1280, "height": 900})
    page = opened.page
    page.evaluate(LEFT_AT_PRINT)
    pdf = page.pdf(format="A4")
    assert page.evaluate("window.printed") == 0
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 5
    SHOTS.mkdir(parents=True, exist_ok=True)
    (SHOTS / "page.pdf").write_bytes(pdf)
    page.set_viewport_size({"width": PRINT_WIDTH, "height": 1123})
    page.emulate_media(media="print")
    until(page, "document.documentElement.classList.contains('printing')")
    # a figure that was being drawn when the page's width changed is drawn once more
    until(page, f"document.documentElement.scrollWidth <= {PRINT_WIDTH}")
    until(
        page,
        "[...document.querySelectorAll('.canvas .main-svg')]"
        f".every(svg => svg.getBoundingClientRect().right <= {PRINT_WIDTH})",
    )
    opened.shot("page-print")
    page.emulate_media(media="screen")
    until(page, "!document.documentElement.classList.contains('printing')")
    assert opened.complaints == []


def test_downloads_and_rows(browser: Any, build: Build) -> None:
    folder = build()
    page = Opened(browser, build_page(folder), doors_open=True).page
    for name in ("accuracy", "patching_examples"):
        with page.expect_download() as waiting:
            page.click(f'.data button[data-download="{name}"]')
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
    opened = Opened(browser, build_page(build()), all_drawn=True)
    page = opened.page
    shown = "document.getElementById('canvas-domain-map').data"
    before = page.evaluate(f"{shown}.map(t => t.meta)")
    assert len(before) == 1  # the traces of other options are not even handed over
    numbers = page.evaluate(f"{shown}[0].z")
    page.select_option(
        'select[data-figure="domain-map"][data-choice="1"]', label="CG high diversity"
    )
    until(page, f"{shown}[0].meta[1] === 3")
    assert page.evaluate(f"{shown}[0].z") != numbers
    assert opened.complaints == []


def test_rows_without_a_mark_are_left_out_of_a_forest(browser: Any, planted: Path) -> None:
    page = Opened(browser, planted).page
    assert page.evaluate("readFigure('differences').layout.meta.rows") == "y"
    closed = page.evaluate("""() => {
        const yaxis = { tickvals: [0, 1, 2], ticktext: ["a", "b", "c"], range: [3.1, -0.5] };
        const layout = { meta: { rows: "y" }, height: 250, yaxis };
        return { y: closeRows([{ y: [0.1, 1.9] }], layout)[0].y, height: layout.height, ...yaxis };
    }""")
    assert closed["y"] == pytest.approx([0.1, 0.9]) and closed["ticktext"] == ["a", "c"]
    assert closed["tickvals"] == [0, 1] and closed["height"] == 210
    assert closed["range"] == pytest.approx([2.1, -0.5])


def test_on_a_phone_names_of_rows_leave_room(browser: Any, planted: Path) -> None:
    page = Opened(browser, planted, viewport={"width": 390, "height": 844}).page
    names = page.evaluate("picture(readFigure('differences')).layout.yaxis.ticktext")
    lines = [line for name in names for line in name.split("<br>")]
    assert max(map(len, lines)) <= 24 and "leave-out-domain" in names[0]


def test_names_from_data_stay_text(browser: Any, build: Build) -> None:
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
    opened = Opened(browser, build_page(folder), all_drawn=True)
    page = opened.page
    ticks = page.locator("#canvas-accuracy-by-class .ytick text").all_text_contents()
    assert any("<img src=x" in tick for tick in ticks)
    page.click('details[data-table="accuracy_by_class"] summary')
    page.locator('details[data-table="accuracy_by_class"] tbody tr').first.wait_for()
    assert page.locator("img[src=x]").count() == 0
    cells = page.locator('details[data-table="accuracy_by_class"] td').all_inner_texts()
    assert names[0] in cells
    assert opened.complaints == []


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("<img src=x onerror=alert(1)>", 'it\'s "a" & b', "זברה"), id="markup"),
        pytest.param(
            ("z" * 300, "🦒", "<img src=x onerror=alert(1)>2"), id="long", marks=pytest.mark.long
        ),
    ],
)
def test_domains_may_be_called_anything(
    browser: Any,
    build: Build,
    study_frames: Callable[[], dict[str, pd.DataFrame]],
    names: tuple[str, str, str],
) -> None:
    words = dict(zip(("sketch", "clipart", "painting"), names, strict=True))
    frames = {table: frame.replace(words) for table, frame in study_frames().items()}
    specification = {"test_domains": [names[0]], "natural": "real"}
    folder = build(replaced=frames, specification=specification, rung4={"cg-high": 0.8})
    size = {"width": 390, "height": 900}
    opened = Opened(browser, build_page(folder), all_drawn=True, viewport=size)
    page = opened.page
    pairs = page.locator("#map-grid button")
    for place in range(pairs.count()):
        pairs.nth(place).click()
    told = page.locator("#map-grid").inner_text()
    assert all(name in told for name in names)
    assert page.locator("img[src=x]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert opened.complaints == [] and opened.outside == []

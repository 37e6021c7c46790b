"""The page of a large study: seconds to build, to its first figure, and how much it weighs."""

import shutil
import statistics
import tempfile
import time
from pathlib import Path

from interp.report import build_page
from tests.report.planted_reach import CHECKPOINTS, DOMAINS, SITES, write_reach


def page() -> None:
    """6 domains x 17 sites x 20 checkpoints, planted."""
    with tempfile.TemporaryDirectory() as name:
        folder = write_reach(Path(name))
        start, busy = time.perf_counter(), time.process_time()
        out = build_page(folder)
        taken, busy = time.perf_counter() - start, time.process_time() - busy
        size = out.stat().st_size
        print(
            f"page: {len(DOMAINS)} domains x {len(SITES)} sites x {CHECKPOINTS} checkpoints built "
            f"in {taken:.1f} s, {busy:.1f} s of one core (bar 20); {size / 1e6:.1f} MB (bar 15)"
        )
        print(f"page: first figure after {_opened(out):.2f} s, median of five (bar 2)")


def _opened(path: Path, times: int = 5) -> float:
    """Seconds from going to the page to its first figure, in headless Chromium."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--headless", "--no-sandbox"]
        )
        for _ in range(times):
            opened = browser.new_page(viewport={"width": 1280, "height": 900})
            opened.goto(path.as_uri(), wait_until="commit")
            opened.wait_for_selector("html[data-first]", state="attached", timeout=60_000)
            found.append(float(opened.evaluate("document.documentElement.dataset.first")) / 1000)
            opened.close()
        browser.close()
    return statistics.median(found)

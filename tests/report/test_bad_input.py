"""Whatever a result holds or lacks, there is a page, or an error in our own words."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from interp.core.errors import InterpError
from interp.report import build_page
from interp.report.loaded import expected_tables, shown_tables
from tests.report.conftest import ACCURACY, INDEX

pytestmark = pytest.mark.slow

Build = Callable[..., Path]
Change = Callable[[Path], object]

NAMES = {
    "HTML": "<b onmouseover=alert(1)>x</b>",
    "script": "</script><script>alert(1)</script>",
    "emoji": "👩‍🔬🦒",
    "quotes": 'it\'s "so" `called` & more',
    "long": "n" * 300,
    "right to left": "زرافة",
    "like a number": "007",
    "like nothing": "None",
}


def rename(domain: str, label: str, setting: str) -> Change:
    """Call a domain, a class and a setting something else, in every table and in the facts."""

    def change(folder: Path) -> None:
        words = {"sketch": domain, "class_03": label, "cg-high": setting}
        for path in (folder / "tables").glob("*.csv"):
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
            frame.replace(words).to_csv(path, index=False)
        specification = {"test_domains": [domain], "held_out": [label], "natural": "real"}
        facts(folder, specification=specification, question=label, strays=label, command=label)

    return change


def facts(folder: Path, **changed: Any) -> None:
    known = json.loads((folder / "facts.json").read_text())
    (folder / "facts.json").write_text(json.dumps(known | changed))


def only(keep: Callable[[pd.DataFrame], Any]) -> Change:
    """Keep some rows of every table."""

    def change(folder: Path) -> None:
        for path in (folder / "tables").glob("*.csv"):
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
            frame[keep(frame)].to_csv(path, index=False)

    return change


def one_domain(frame: pd.DataFrame) -> Any:
    kept = pd.Series(True, index=frame.index)
    for column in ("domain", "domain_a", "domain_b", "train_domain"):
        if column in frame:
            kept &= frame[column].isin(["real", ""])
    return kept


def one_setting(frame: pd.DataFrame) -> Any:
    return frame.get("setting", pd.Series("", index=frame.index)).isin(["cg-high", ""])


def drop(*names: str) -> Change:
    return lambda folder: [
        path.unlink() for name in names for path in (folder / "tables").glob(f"{name}.*")
    ]


def versions(given: Any) -> Change:
    return lambda folder: facts(folder, versions=given)


def moved_away(folder: Path) -> None:
    shutil.move(folder / "tables", folder / "elsewhere")


def half_deleted(folder: Path) -> None:
    for path in sorted((folder / "tables").iterdir())[::2]:
        path.unlink()
    shutil.rmtree(folder / "plates")


def cut_off(folder: Path) -> None:
    for path in (folder / "tables").glob("*.csv"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_sheet_keys(folder: Path) -> None:
    from PIL import Image

    from interp.core.illustrations import Plate

    plate = Plate("cells-9", Image.new("RGB", (9, 9)), "", {"kind": "cells", "labels": "{"})
    plate.save(folder / "plates")


CASES: dict[str, tuple[Change, str]] = {
    "names of markup": (rename(NAMES["HTML"], NAMES["script"], NAMES["emoji"]), ""),
    "names of markup elsewhere": (rename(NAMES["script"], NAMES["quotes"], NAMES["HTML"]), ""),
    "long names": (rename(NAMES["long"], NAMES["long"] + "2", NAMES["long"]), ""),
    "names of other scripts": (
        rename(NAMES["right to left"], NAMES["emoji"], NAMES["right to left"] + "2"),
        "",
    ),
    "names like numbers": (rename(NAMES["like a number"], NAMES["like nothing"], "1e5"), ""),
    "one checkpoint": (only(one_setting), ""),
    "one domain": (only(one_domain), ""),
    "empty tables": (only(lambda frame: [False] * len(frame)), "Nothing to draw"),
    "no tables": (drop(*shown_tables()), "Missing: "),
    "no similarity, transfer or ladder": (drop("similarity", "transfer", "rungs", "ladder"), ""),
    "ladder alone": (
        drop(*expected_tables(), "das", "overlap", "circuit_transfer", "directions"),
        "",
    ),
    "tables moved away": (moved_away, "Missing: "),
    "half deleted": (half_deleted, "Missing: "),
    "tables cut off": (cut_off, ""),
    "plates of another version": (without_sheet_keys, ""),
    "older version": (versions({"interp": "0.0.1"}), "Measured by interp 0.0.1"),
    "no versions": (versions(None), "is not recorded"),
    "versions of another form": (versions(["0.0.1"]), "is not recorded"),
    "facts of another form": (
        lambda folder: (folder / "facts.json").write_text('{"specification": 3, "seconds": []}'),
        "",
    ),
}


AGAIN = {
    *("names of markup elsewhere", "names of other scripts", "names like numbers"),
    *("no versions", "versions of another form", "plates of another version"),
    *("facts of another form", "long names", "no similarity, transfer or ladder", "one domain"),
}
"""What is much like another case; `make test-all` alone builds their pages."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.long] * (case in AGAIN)) for case in CASES]
)
def test_there_is_a_page(build: Build, case: str) -> None:
    change, said = CASES[case]
    folder = build(rung4={"cg-high": 0.8}, sheets=True)
    change(folder)
    text = build_page(folder).read_text()
    assert said in text
    assert text.rstrip().endswith("</html>") and "<h1" in text
    rest = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    for name in ("<b onmouseover", "<script>alert"):
        assert name not in rest
    # every name that the page is built from closes: a script left open would swallow the rest
    assert len(re.findall(r"<script\b", rest)) == rest.count("</script>")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "facts.json").unlink(), "no readable facts.json"),
        (lambda folder: (folder / "facts.json").write_text("{"), "no readable facts.json"),
        (lambda folder: (folder / "facts.json").write_text("[]"), "holds a list"),
        (shutil.rmtree, "no readable facts.json"),
    ],
)
def test_or_a_clear_error(build: Build, change: Change, said: str) -> None:
    folder = build()
    change(folder)
    with pytest.raises(InterpError, match=said):
        build_page(folder)


def test_the_planted_study_has_no_such_sentences(build: Build) -> None:
    text = build_page(build(accuracy=ACCURACY, index=INDEX, rung4=INDEX)).read_text()
    for said in ("Missing: ", "Nothing to draw", "Measured by interp", "is not recorded"):
        assert said not in text

"""Pages say what the kept tables say, in five minutes, and no number stands outside of it."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from interp.models.evaluation.learned_models import trained_models
from interp.verdicts.levels.l4_intervention import AMONG, BEYOND, HELD_EQUAL, TARGET
from tests.benchmarks.findings import pages
from tests.benchmarks.findings.causes import caused_in
from tests.benchmarks.findings.claims import ARMS, accuracy_findings
from tests.benchmarks.findings.language import labels_by_mixture
from tests.benchmarks.findings.pages import LARGEST_PAGE, PAGES, check_size
from tests.benchmarks.findings.sharing import domains_apart
from tests.benchmarks.findings.tables import LARGE, held_out_in, tables
from tests.benchmarks.judging import filled
from tests.study.findings.kept import claims

made_once = cache(pages.pages)


def test_a_page_that_is_too_large_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_bytes(b" " * LARGEST_PAGE)
    check_size(page)
    page.write_bytes(b" " * (LARGEST_PAGE + 1))
    with pytest.raises(ValueError, match="15,000,001 bytes"):
        check_size(page)


def test_pages_hold_what_the_kept_tables_say() -> None:
    every, used = made_once(), set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        made = {name: words for name, words in every.items() if f"<!-- {name} -->" in text}
        assert made and filled(text, made) == text
        used |= set(made)
    assert used == set(every)


def test_findings_are_read_in_five_minutes() -> None:
    """A thousand words, and fifty rows of tables to look at; README's in half of that."""
    (words, rows), (lines, beside) = _read(PAGES[0]), _read(PAGES[-1], of="What was found")
    assert 400 < words < 1000 and 20 < rows <= 52
    assert 200 < lines < 650 and 5 < beside <= 12


def _read(page: Path, *, of: str = "") -> tuple[int, int]:
    """Words, and rows of tables, of a page or of one section."""
    text = page.read_text(encoding="utf-8")
    text = text.split(f"## {of}\n")[1].split("\n## ")[0] if of else text
    text = re.sub(r"<!--.*?-->|\(\S+\)", "", text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    rest = "\n".join(set(text.splitlines()) - set(rows))
    return len(re.findall(r"[a-zA-Z]{2,}", rest)), len(rows)


NUMBERS = re.compile(r"[+−-]\d+\.\d|\[\s*-?\d|\d+\.\d+ points|(?<!\d)\.\d\d")
"""What a result looks like: a signed decimal, an interval, a correlation."""


def test_no_result_stands_outside_of_what_is_made() -> None:
    """All else in findings, the account, and README's section of them, is words."""
    *whole, readme = (page.read_text(encoding="utf-8") for page in PAGES)
    own = readme[readme.index("## What was found") : readme.index("## In Python")]
    for text in (*whole, own):
        prose = re.sub(r"<!-- (.+?) -->.*?<!-- end of \1 -->", "", text, flags=re.S)
        assert prose != text and NUMBERS.findall(prose) == []
    assert NUMBERS.findall("+1.3 [-15.6, 18.1]") and NUMBERS.findall("r = .28")


def test_words_about_layers_and_epochs_are_what_the_table_says() -> None:
    """Late layers part mixtures at the first epoch already, of the first two none at the end."""
    rows = [line.strip("| ").split(" | ") for line in made_once()["parting"].splitlines()]
    at = {(row[0], row[1]): [float(row[3]), float(row[5])] for row in rows[2:] if len(row) == 6}
    indices = {quantity for quantity, _ in at if quantity.startswith("R")}
    assert len(indices) == 2
    for quantity in indices:
        for late in ("layer4.0.resid_post", "embedding"):
            assert at[quantity, late][0] < 0.05
        for early in ("stem.pool", "layer1.0.resid_post"):
            assert at[quantity, early][1] >= 0.05


def test_words_about_the_weak_studys_layers_are_what_the_table_says() -> None:
    """Natural only is last by geometry in late layers, first by directions in the last block."""
    rows = [line.strip("| ").split(" | ") for line in made_once()["layers"].splitlines()]
    ends = {(row[0][:2], row[1]): row[4:] for row in rows[2:] if len(row) == 6}
    for late in ("layer3.0.resid_post", "layer4.0.resid_post", "embedding"):
        assert ends["R2", late][1].startswith("natural only")
    assert ends["R3", "layer4.0.resid_post"][0].startswith("natural only")


def test_words_about_gentle_are_what_the_intervention_says() -> None:
    """Held-out classes gain no more than seen ones that can be told, and not three points more;
    there are more of them than in the other study."""
    more, fewer = (int(held_out_in(name).split(" or ")[0]) for name in ("gentle", "cause"))
    assert more > fewer
    found = caused_in(tables("gentle"), "gentle").set_index(["measure", "arm"])
    row = found.loc[BEYOND.name, ARMS[0]]
    assert row["low"] < 0 < row["high"] < 0.03


def test_words_about_the_cause_are_what_the_intervention_says() -> None:
    """At weight 1 both gain, held-out classes more over wrong partners, over no term not told, and
    among themselves none."""
    found = caused_in(tables("cause"), "cause").set_index(["measure", "arm"])
    wrong, none = ARMS
    assert found.loc[TARGET.name, wrong]["low"] > 0 and found.loc[HELD_EQUAL.name, wrong]["low"] > 0
    assert found.loc[BEYOND.name, wrong]["low"] > 0 and found.loc[BEYOND.name, none]["low"] < 0
    assert found.loc[AMONG.name, wrong]["low"] < 0 and found.loc[AMONG.name, none]["low"] < 0
    gentle = caused_in(tables("gentle"), "gentle").set_index(["measure", "arm"])
    assert gentle.loc[TARGET.name, wrong]["low"] < 0  # so both conditions fail


def test_words_about_labels_are_what_the_twins_say() -> None:
    """They do better only in CG, where captions name the domain, too."""
    rows = labels_by_mixture(tables("twin"), tables("strong"))
    better = {row["against"] for row in rows if row["low"] > 0}
    assert better == {"cg-low", "cg-high"} and not any(row["high"] < 0 for row in rows)


def test_words_about_quickdraw_are_what_the_weak_study_says() -> None:
    """In leave-out-domain, too, it shares fewer directions, and does not fail more."""
    apart = domains_apart(tables("weak")["runs"]).set_index(["setting", "quantity"])
    assert apart.loc[("leave-out-domain", "R3 cosine of mean differences"), "low"] > 0
    assert claims("weak").set_index("number")["decision"][6] == "does not hold"


def test_words_about_held_out_classes_alone_are_what_the_claims_say() -> None:
    """CG low tells them at least as well as CG high, and CG high better than leave-out-domain; in
    strong most differences are smaller, and captions help less in weak and strong."""
    for name in ("weak", "strong", "vit"):
        found = accuracy_findings(tables(name)["answers"], candidates="held-out")
        alone, high = found.set_index("number")["value"], found.set_index("number")["high"]
        assert alone[2] < 0 and high[3] < 0, name
        every = claims(name).set_index("number")["value"]
        assert 5 not in every or alone[5] < every[5] / 2
        if name == "strong":
            assert (alone.abs() < every.abs()).mean() > 0.5


def test_words_about_training_pictures_are_what_the_runs_say() -> None:
    """Most of held-out classes in leave-out-domain, then in CG high."""
    for name in ("weak", "strong", "vit"):
        shown = tables(name)["runs"].groupby("setting")["exposure"].mean()
        assert shown["leave-out-domain"] > shown["cg-high"] > shown["cg-low"]
        assert shown["cg-low"] == shown["natural-only"]


def test_words_about_why_r4_is_withheld_are_what_the_runs_say() -> None:
    """Mostly since a subspace of pictures without a class does what the other domain's own does."""
    paths = [path for path in (LARGE / "strong").glob("*/*/das.csv.gz") if "upper" not in str(path)]
    rows = pd.concat(pd.read_csv(path, usecols=["reason"]) for path in paths)
    withheld = rows["reason"].dropna()
    assert len(withheld) > 500
    assert withheld.str.startswith("the reader explains it: a subspace of ").mean() > 0.75


def test_words_about_measures_that_fail_are_what_the_runs_say() -> None:
    runs = tables("strong")["runs"].query("~setting.str.startswith('upper')")
    lost = runs["index"].isna().groupby([runs["rung"], runs["setting"]]).mean()
    assert lost["R4"].min() > 0.9
    assert lost["R6"].idxmax() == "natural-only" and lost["R6"].nlargest(2).diff().iloc[1] < 0


@pytest.mark.parametrize("name", ["weak", "strong", "vit"])
def test_runs_of_a_level_are_trained_models(name: str) -> None:
    """Of measures that no run lacks: as many as accuracy was asked of, upper bounds aside, and
    blocks in which a model did not learn."""
    made = tables(name)
    runs = made["runs"][~made["runs"]["setting"].str.startswith("upper")]
    runs = runs[~runs["seed"].isin(made["failed"]["seed"])]
    n = trained_models(runs[["setting", "test_domain", "seed"]].drop_duplicates()).nunique()
    levels = made["levels"].query("level == 'L2' and measure == 'debiased CKA'")
    assert set(levels["n_runs"]) == {n}


@pytest.mark.slow
@pytest.mark.parametrize("study", ["weak", "strong"])
def test_the_notebook_decides_as_the_findings_do(
    study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cells up to the decisions, with the study that is chosen."""
    root = PAGES[-1].parent
    monkeypatch.chdir(root)
    cells = json.loads((root / "notebooks/06_read_the_answer.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    for cell in code[:4]:
        exec(cell.replace('study = "weak"', f'study = "{study}"'), names)
    found = names["found"].set_index("setting")
    for row in claims(study).to_dict("records"):
        mine = found.loc[row["contrast"]]
        assert mine["decision"] == row["decision"]
        ends = ["value", "low", "high", "p_adjusted"]
        assert mine[ends].tolist() == pytest.approx([row[end] for end in ends], rel=1e-6)
    assert len(found) == len(claims(study))

"""Manifests: withheld cells are refused by dose, domain and class; two differ in one line."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from interp.core.errors import DataError, LeakError
from interp.data.mixtures.manifest import check_manifest, check_mixture, diff_manifests
from interp.data.mixtures.mixture import make_mixture
from interp.data.mixtures.settings import MixtureSpec
from tests.data.mixtures.test_mixture import HELD_OUT, pictures, spec

HIGH = MixtureSpec("cg-high", "sketch", HELD_OUT)
BOUND = MixtureSpec("upper-bound-high", "sketch", HELD_OUT, hold="steps")


def manifest(of: MixtureSpec) -> dict[str, Any]:
    return json.loads(json.dumps(make_mixture(pictures(), of).manifest()))


@pytest.mark.parametrize("setting", ["cg-low", "cg-high", "leave-out-domain", "natural-only"])
def test_a_manifest_with_a_withheld_cell_is_refused(setting: str) -> None:
    written = manifest(spec(setting))
    check_manifest(written)
    written["counts"]["sketch/b"] = 1
    with pytest.raises(LeakError, match="b in sketch"):
        check_manifest(written)


@pytest.mark.parametrize(
    ("of", "cell", "n", "words"),
    [
        (replace(BOUND, held_out_dose=0.2), "sketch/b", 3, r"b in sketch \(3 for 2\)"),
        (replace(BOUND, held_out_dose=0.0), "sketch/b", 1, "b in sketch"),
        (replace(HIGH, seen_dose=0.45, hold="steps"), "sketch/a", 6, r"a in sketch \(6 for 5\)"),
        (replace(HIGH, seen_dose=0.0), "sketch/a", 1, "a in sketch"),
        (replace(HIGH, domains=("clipart",)), "painting/a", 1, "a in painting"),
        (replace(HIGH, domains=2), "elsewhere/a", 1, "3 domains"),
        (MixtureSpec("cg-low", "sketch", HELD_OUT), "clipart/a", 1, "a in clipart"),
        (replace(HIGH, foreign=("h",), overlap=0.8, hold="steps"), "real/h", 1, "h in real"),
        (MixtureSpec("cg-low", "sketch", ("b",), labels=("a", "b")), "real/c", 1, "c in real"),
    ],
)
def test_a_cell_above_its_dose_is_refused(of: MixtureSpec, cell: str, n: int, words: str) -> None:
    written = manifest(of)
    check_manifest(written)
    written["counts"][cell] = n
    with pytest.raises(LeakError, match=words):
        check_manifest(written)


def test_a_class_that_left_the_test_domain_may_not_come_back() -> None:
    written = manifest(replace(HIGH, foreign=("g", "h"), overlap=0.5, hold="steps"))
    gone = next(iter(written["replaced"]))
    joined = written["replaced"][gone]
    assert written["counts"][f"sketch/{joined}"] == 10
    written["counts"][f"sketch/{gone}"] = 1
    with pytest.raises(LeakError, match=f"{gone} in sketch"):
        check_manifest(written)


def test_an_edited_tsv_is_refused_even_with_its_manifest_untouched(tmp_path: Path) -> None:
    folder = make_mixture(pictures(), spec("cg-low")).write(tmp_path / "mixture").parent
    assert check_mixture(folder)["pictures"] == 140
    tsv = pd.read_csv(folder / "train.tsv", sep="\t")
    tsv.loc[0, ["label", "domain"]] = ["b", "sketch"]
    tsv.to_csv(folder / "train.tsv", sep="\t", index=False)
    with pytest.raises(LeakError, match="b in sketch"):
        check_mixture(folder)


def test_a_swapped_picture_is_refused_by_hash(tmp_path: Path) -> None:
    folder = make_mixture(pictures(), spec("cg-low")).write(tmp_path / "mixture").parent
    text = (folder / "train.tsv").read_text()
    (folder / "train.tsv").write_text(text.replace("train3.png", "train4.png", 1))
    with pytest.raises(LeakError, match="does not describe"):
        check_mixture(folder)


@pytest.mark.parametrize("name", ["train.tsv", "manifest.json"])
def test_a_mixture_with_a_missing_or_broken_file_is_refused(name: str, tmp_path: Path) -> None:
    folder = make_mixture(pictures(), spec("cg-low")).write(tmp_path / "mixture").parent
    (folder / name).write_text("{")
    with pytest.raises(DataError, match="Make the mixture again"):
        check_mixture(folder)
    (folder / name).unlink()
    with pytest.raises(DataError, match="files that do not read"):
        check_mixture(folder)


def test_a_manifest_counts_what_its_words_say() -> None:
    frame = make_mixture(pictures(), HIGH).images.frame
    written = manifest(HIGH)
    assert written["name"] == "cg-high" and written["n_domains"] == frame["domain"].nunique() == 6
    assert written["held_out_pictures"] == frame["label"].isin(HELD_OUT).sum()
    assert written["available"] == dict.fromkeys("abcdefgh", 10)
    assert written["base"] is None
    own = {
        "real": "photo|snapshot", "clipart": "clipart|illustration", "sketch": "sketch|drawing",
        "infograph": "infograph|informational chart", "painting": "painting|art",
        "quickdraw": "quickdraw|doodle",
    }  # fmt: skip
    named = [
        bool(pd.Series([text]).str.contains(rf"\b(?:{own[domain]})\b").iloc[0])
        for text, domain in zip(frame["caption"], frame["domain"], strict=True)
    ]
    assert written["captions_naming_domain"] == sum(named)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (lambda: HIGH, "the same pictures"),
        (lambda: replace(HIGH, domain_words=False), "captions that name their domain"),
        (lambda: replace(HIGH, setting="cg-low"), r"32 cells fewer \(in clipart"),
        (lambda: replace(HIGH, hold="steps"), "140 → 460 pictures"),
        (lambda: replace(HIGH, seed=1), "140 pictures each"),
        (lambda: replace(HIGH, hold="exposure"), "held-out exposure"),
        (lambda: replace(HIGH, hold="natural"), "natural share"),
    ],
)  # fmt: skip
def test_the_difference_of_two_manifests_is_one_line(
    other: Callable[[], MixtureSpec], says: str
) -> None:
    line = diff_manifests(manifest(HIGH), manifest(other()))
    assert "\n" not in line and pd.Series([line]).str.contains(says).iloc[0], line


def test_a_diff_sees_other_pictures_in_the_same_numbers_and_other_captions(tmp_path: Path) -> None:
    low = MixtureSpec("upper-bound-low", "sketch", HELD_OUT, hold="steps")
    one = manifest(low)
    assert "as many in every cell, but other pictures" in diff_manifests(
        one, {**one, "pictures_hash": "another"}
    )
    folders = [
        make_mixture(pictures(), replace(low, seed=seed)).write(tmp_path / str(seed)).parent
        for seed in (0, 1)
    ]
    line = diff_manifests(*(check_mixture(folder) for folder in folders))
    assert "the same pictures" in line and "caption" in line

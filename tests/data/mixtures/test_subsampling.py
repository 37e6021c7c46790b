"""Quotas: the paper's rule against a naive loop, what is held, doses, overlaps, real sizes."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.core.errors import DataError, SampleError
from interp.core.images import ImageTable
from interp.data.mixtures.mixture import make_mixture, make_mixtures
from interp.data.mixtures.settings import SETTINGS, MixtureSpec
from interp.data.mixtures.subsampling import MixtureCells, pool, quotas, ranks
from tests.data.domainnet import DOMAINS, counts, listed_pictures

LABELS = tuple("abcdefgh")
HELD_OUT = ("b", "e")
HIGH = MixtureSpec("cg-high", "sketch", HELD_OUT)
BOUND = MixtureSpec("upper-bound-high", "sketch", HELD_OUT)


def table(seed: int = 0, low: int = 6, high: int = 20, labels: tuple[str, ...] = LABELS) -> Any:
    """Pictures in cells of unequal size, in a list whose classes come in turns."""
    generator = np.random.default_rng(seed)
    rows = [
        (f"{domain}/{label}/{k}", label, domain)
        for domain in ("sketch", "real", *DOMAINS[:4])
        for label in generator.permutation(labels).tolist()
        for k in range(int(generator.integers(low, high)))
    ]
    frame = pd.DataFrame(rows, columns=["path", "label", "domain"])
    test = [(f"test/{d}/{c}", c, d) for d in ("real", "sketch") for c in labels]
    rest = pd.DataFrame(test, columns=frame.columns).assign(split="test")
    both = pd.concat([frame.assign(split="train"), rest], ignore_index=True)
    return ImageTable(both.assign(caption=""))


def cells(images: ImageTable) -> MixtureCells:
    train = images.frame[images.frame["split"] == "train"].reset_index(drop=True)
    return MixtureCells.count(train["label"], train["domain"])


def by_cell(frame: pd.DataFrame) -> Counter[tuple[str, str]]:
    return Counter(zip(frame["domain"], frame["label"], strict=True))


def naive_first(
    rows: list[tuple[str, str, str]], pool: set[tuple[str, str]], size: int
) -> set[str]:
    """The paper's rule as one would write it with lists: keep a share, then pop one by one."""
    kept: dict[str, dict[str, list[str]]] = {}
    total = sum((domain, label) in pool for _, label, domain in rows)
    for path, label, domain in rows:
        if (domain, label) in pool:
            kept.setdefault(domain, {}).setdefault(label, []).append(path)
    for classes in kept.values():
        for label, paths in classes.items():
            classes[label] = paths[: math.ceil(size / total * len(paths))]
    left = sum(len(paths) for classes in kept.values() for paths in classes.values())
    for domain in ("real", "quickdraw", "painting", "sketch", "infograph", "clipart"):
        for paths in kept.get(domain, {}).values():
            if left > size and paths:
                paths.pop()
                left -= 1
    return {path for classes in kept.values() for paths in classes.values() for path in paths}


def admitted(
    setting: str, test: str, labels: list[str], held_out: set[str]
) -> set[tuple[str, str]]:
    """The paper's cells, written out (study.md's table of settings)."""
    return {
        (domain, label)
        for domain in DOMAINS
        for label in labels
        if domain == "real"
        or (setting in ("cg-high", "leave-out-domain", "upper-bound-high") and domain != test)
        or (domain == test and setting.startswith("upper-bound"))
        or (domain == test and setting.startswith("cg") and label not in held_out)
    }


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("seed", range(3))
def test_the_papers_rule_is_the_naive_loop(setting: str, seed: int) -> None:
    images = table(seed)
    train = images.frame[images.frame["split"] == "train"]
    rows = list(train[["path", "label", "domain"]].itertuples(index=False, name=None))
    allowed = admitted(setting, "sketch", list(LABELS), set(HELD_OUT))
    low = admitted("cg-low", "sketch", list(LABELS), set(HELD_OUT))
    size = sum((domain, label) in low for _, label, domain in rows)
    matched = setting != "natural-only"
    total = sum((domain, label) in allowed for _, label, domain in rows)
    expected = naive_first(rows, allowed, size if matched else total)
    mixture = make_mixture(images, MixtureSpec(setting, "sketch", HELD_OUT, rule="first"))
    assert set(mixture.images.path) == expected


@pytest.mark.parametrize("n", [14, 13, 11, 12])
def test_the_papers_rule_pops_in_its_order(n: int) -> None:
    """40 cells of n pictures shrunk to 14 n: ceil(.35 n) each, less one in the first cells."""
    order = ("real", "quickdraw", "painting", "infograph", "clipart")
    rows = [(f"{d}/{c}/{k}", c, d) for d in DOMAINS for c in LABELS[::-1] for k in range(n)]
    frame = pd.DataFrame(rows, columns=["path", "label", "domain"])
    images = ImageTable(frame.assign(split="train", caption=""))
    spec = MixtureSpec("leave-out-domain", "sketch", HELD_OUT, rule="first")
    kept = by_cell(make_mixture(images, spec).images.frame)
    each = math.ceil(0.35 * n)
    surplus = 40 * each - 14 * n
    cells_in_order = [(domain, label) for domain in order for label in LABELS[::-1]]
    assert surplus in (4, 18, 6, 32)
    assert kept == {cell: each - (place < surplus) for place, cell in enumerate(cells_in_order)}


def test_the_papers_rule_leaves_nothing_to_the_seed_and_the_other_does() -> None:
    paths = {
        (rule, seed): tuple(make_mixture(table(), replace(HIGH, rule=rule, seed=seed)).images.path)
        for rule in ("first", "random")
        for seed in (0, 1)
    }
    assert paths["first", 0] == paths["first", 1]
    assert paths["random", 0] != paths["random", 1]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("rule", ["random", "first"])
def test_what_is_held_is_as_in_cg_low(setting: str, rule: str) -> None:
    images = table(low=10, high=14)
    low = make_mixture(images, MixtureSpec("cg-low", "sketch", HELD_OUT)).images
    measures = {
        "size": len,
        "natural": lambda each: int((each.domain == "real").sum()),
        "exposure": lambda each: int(each.label.isin(HELD_OUT).sum()),
    }
    for hold in measures:
        spec = MixtureSpec(setting, "sketch", HELD_OUT, hold=hold, rule=rule)
        got = make_mixture(images, spec).images
        if setting != "natural-only":
            assert len(got) == len(low)
            assert measures[hold](got) == measures[hold](low), hold
    free = make_mixture(images, MixtureSpec(setting, "sketch", HELD_OUT, hold="steps")).images
    assert by_cell(free.frame) == {
        cell: n for cell, n in by_cell(images.frame[images.split == "train"]).items()
        if cell in admitted(setting, "sketch", list(LABELS), set(HELD_OUT))
    }  # fmt: skip


def test_holding_one_thing_lets_the_others_go() -> None:
    images = table(low=10, high=14)
    made = {
        h: make_mixture(images, replace(HIGH, hold=h)).images
        for h in ("size", "natural", "exposure")
    }
    natural = {hold: int((each.domain == "real").sum()) for hold, each in made.items()}
    exposure = {hold: int(each.label.isin(HELD_OUT).sum()) for hold, each in made.items()}
    assert natural["natural"] > natural["size"] and natural["natural"] > natural["exposure"]
    assert exposure["exposure"] != exposure["size"]


@given(
    sizes=st.lists(st.integers(0, 60), min_size=48, max_size=48),
    rule=st.sampled_from(["random", "first"]),
    hold=st.sampled_from(["size", "natural", "exposure"]),
    setting=st.sampled_from(list(SETTINGS)),
)
def test_quotas_are_exact_even_and_never_more_than_there_is(
    sizes: list[int], rule: str, hold: str, setting: str
) -> None:
    rows = [
        (c, d)
        for (d, c), n in zip([(d, c) for d in DOMAINS for c in LABELS], sizes, strict=True)
        for _ in range(n)
    ]
    frame = pd.DataFrame(rows, columns=["label", "domain"])
    if {"real", "sketch"} - set(frame["domain"]):
        return
    counted = MixtureCells.count(frame["label"], frame["domain"])
    spec = MixtureSpec(setting, "sketch", HELD_OUT, rule=rule, hold=hold)
    low = pool(counted, replace(spec, setting="cg-low"))
    admits = pool(counted, spec)
    try:
        got = quotas(counted, spec)
    except SampleError:
        groups = [low >= 0]
        if hold == "natural":
            groups = [np.asarray(counted.domains)[:, None] == "real"] * 1
            groups = [groups[0] & (low >= 0), ~groups[0] & (low >= 0)]
        if hold == "exposure":
            held = np.isin(counted.labels, HELD_OUT)[None] & (low >= 0)
            groups = [held, ~held]
        assert any(admits[g].sum() < low[g].sum() for g in groups) or admits.sum() == 0
        return
    assert (got <= admits).all() and (got >= 0).all()
    if setting != "natural-only":
        assert got.sum() == low.sum()
    if hold == "size" and setting != "natural-only" and admits.sum():
        assert (np.abs(got - low.sum() / admits.sum() * admits) <= 1).all()


def test_ranks_are_places_within_cells() -> None:
    frame = table().frame.iloc[::-1].reset_index(drop=True)
    counted = MixtureCells.count(frame["label"], frame["domain"])
    for rule in ("first", "random"):
        places = ranks(counted, replace(HIGH, rule=rule))
        for _, rows in frame.groupby(["label", "domain"]).groups.items():
            within = places[rows.to_numpy()]
            assert sorted(within) == list(range(len(rows)))
            assert (rule == "random") or list(within) == sorted(within)


def test_a_cell_is_not_emptied_while_another_can_give() -> None:
    images = table(low=1, high=30)
    kept = by_cell(make_mixture(images, HIGH).images.frame)
    whole = by_cell(make_mixture(images, replace(HIGH, hold="steps")).images.frame)
    assert min(whole.values()) == 1 and set(kept) == set(whole)


@pytest.mark.parametrize("rule", ["random", "first"])
def test_doses_are_shares_and_a_larger_one_holds_a_smaller(rule: str) -> None:
    images = table()
    whole = by_cell(images.frame[images.split == "train"])
    before: set[str] = set()
    for dose in (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0):
        spec = replace(BOUND, held_out_dose=dose, hold="steps", rule=rule)
        frame = make_mixture(images, spec).images.frame
        got = by_cell(frame)
        for label in HELD_OUT:
            expected = math.ceil(round(dose * whole["sketch", label], 9))
            assert got["sketch", label] == expected
        assert got["sketch", "a"] == whole["sketch", "a"]
        held = set(frame.loc[(frame.domain == "sketch") & frame.label.isin(HELD_OUT), "path"])
        assert before <= held
        before = held
    for dose in (0.0, 0.25, 0.5):
        frame = make_mixture(
            images, replace(HIGH, seen_dose=dose, hold="steps", rule=rule)
        ).images.frame
        got = by_cell(frame)
        assert got["sketch", "a"] == math.ceil(dose * whole["sketch", "a"])
        assert got["sketch", "b"] == 0 and got["clipart", "b"] == whole["clipart", "b"]


def test_a_dose_of_nothing_is_the_setting_without() -> None:
    images = table()
    paths = lambda spec: set(make_mixture(images, replace(spec, hold="steps")).images.path)  # noqa: E731
    assert paths(replace(BOUND, held_out_dose=0.0)) == paths(HIGH)
    assert paths(replace(HIGH, seen_dose=0.0)) == paths(replace(HIGH, setting="leave-out-domain"))
    assert paths(replace(HIGH, domains=0)) == paths(replace(HIGH, setting="cg-low"))
    assert paths(replace(HIGH, domains=4)) == paths(HIGH)
    assert paths(replace(HIGH, domains=2)) < paths(replace(HIGH, domains=3)) < paths(HIGH)


def test_mixtures_of_a_seed_share_pictures_and_captions_where_they_can() -> None:
    images = table()
    specs = [HIGH, replace(HIGH, hold="steps"), replace(HIGH, domain_words=False, hold="steps")]
    size, free, aligned = (m.images.frame.set_index("path") for m in make_mixtures(images, specs))
    assert set(size.index) < set(free.index)
    pd.testing.assert_series_equal(size["caption"], free["caption"].loc[size.index])
    unnamed = free.index[~free["names_domain"]]
    assert aligned["caption"].loc[unnamed].equals(free["caption"].loc[unnamed])
    assert not aligned["names_domain"].any() and free["names_domain"].any()


FOREIGN = tuple("stuvwxyz")


def test_an_overlap_replaces_classes_one_for_one_and_as_many_pictures() -> None:
    images = table(labels=(*LABELS, *FOREIGN))
    whole = by_cell(images.frame[images.split == "train"])
    pairs_before: set[tuple[str, str]] = set()
    for overlap, n in ((1.0, 0), (0.5, 3), (0.0, 6)):
        spec = replace(HIGH, foreign=FOREIGN, overlap=overlap, hold="steps")
        mixture = make_mixture(images, spec)
        frame = mixture.images.frame
        here = frame[frame["domain"] == "sketch"]
        assert not frame[frame["domain"] != "sketch"]["label"].isin(FOREIGN).any()
        gone = set(LABELS) - set(HELD_OUT) - set(here["label"])
        joined = set(here["label"]) & set(FOREIGN)
        assert len(gone) == len(joined) == n
        assert not here["label"].isin(HELD_OUT).any()
        lost = sum(whole["sketch", label] for label in gone)
        there = sum(whole["sketch", label] for label in joined)
        assert here["label"].isin(FOREIGN).sum() == min(lost, there)
        replaced = mixture.resolved["replaced"]
        assert isinstance(replaced, dict)
        pairs = set(replaced.items())
        assert {left for left, _ in pairs} == gone and {new for _, new in pairs} == joined
        assert pairs_before <= pairs
        pairs_before = pairs
    size = len(make_mixture(images, replace(HIGH, foreign=FOREIGN)).images)
    assert size == len(
        make_mixture(images, MixtureSpec("cg-low", "sketch", HELD_OUT, foreign=FOREIGN)).images
    )


def test_a_label_set_leaves_all_other_classes_out() -> None:
    spec = MixtureSpec("upper-bound-high", "sketch", ("b",), labels=("a", "b", "c"), hold="steps")
    assert set(make_mixture(table(), spec).images.label) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"domains": ("clipart",), "seen_dose": 0.1, "thin": True}, SampleError, "at least"),
        ({"setting": "cg-low", "seen_dose": 0.5}, SampleError, "hold = 'steps'"),
        ({"foreign": ("h",), "overlap": 0.0}, SampleError, "at least 5, one for each"),
        ({"foreign": ("zebra",)}, DataError, "zebra"),
        ({"labels": ("a", "b", "e", "zebra")}, DataError, "zebra"),
        ({"held_out": ("zebra",)}, DataError, "zebra"),
        ({"test_domain": "skecth"}, DataError, "sketch"),
        ({"natural": "photo"}, DataError, "photo"),
        ({"domains": ("clipatr",)}, DataError, "clipart"),
    ],
)  # fmt: skip
def test_what_the_pictures_cannot_give_is_said(
    change: dict[str, Any], error: type[Exception], words: str
) -> None:
    change = dict(change)
    images = table()
    if change.pop("thin", False):
        images = images[((images.domain != "clipart") | (images.label == "a")).to_numpy()]
    with pytest.raises(error, match=words):
        make_mixture(images, replace(HIGH, **change))


def test_a_size_that_cannot_be_matched_is_said_in_numbers() -> None:
    images = table()
    low = len(make_mixture(images, replace(HIGH, setting="cg-low")).images)
    half = replace(HIGH, setting="cg-low", seen_dose=0.5, hold="steps")
    there = len(make_mixture(images, half).images)
    with pytest.raises(SampleError, match=f"{there} pictures in its cells, .* at least {low}"):
        make_mixture(images, replace(half, hold="size"))


def test_held_out_classes_without_pictures_where_they_are_tested_are_refused() -> None:
    images = table()
    bare = images[(~((images.domain == "sketch") & (images.label == "b"))).to_numpy()]
    with pytest.raises(DataError, match="no picture in sketch of b"):
        make_mixture(bare, HIGH)
    natural = (images.domain == "real") & (images.label == "e") & (images.split == "train")
    with pytest.raises(DataError, match="no picture for training in real of e"):
        make_mixture(images[(~natural).to_numpy()], HIGH)


SIZES = {
    # 120,906 natural pictures and those of the 330 seen classes; see tests/data/domainnet.py
    "clipart": 120_906 + 33_525 - 1_209,
    "infograph": 120_906 + 36_023 - 1_894,
    "painting": 120_906 + 50_416 - 2_666,
    "quickdraw": 120_906 + 330 * 350,
    "sketch": 120_906 + 48_212 - 1_952,
}
"""The paper's reference sizes S_d: 153,222, 155,035, 168,656, 236,406 and 167,166."""


def test_domainnets_reference_sizes_follow_from_its_counts() -> None:
    from interp.data.mixtures.subsampling import PAPER_HELD_OUT

    table = counts()
    for domain, size in SIZES.items():
        seen = table.drop(list(PAPER_HELD_OUT))[f"{domain}_train"].sum()
        assert size == table["real_train"].sum() + seen


@pytest.mark.slow
@pytest.mark.parametrize(
    "domain", ["sketch", *(pytest.param(n, marks=pytest.mark.long) for n in SIZES if n != "sketch")]
)
def test_domainnets_mixtures_have_the_papers_sizes_and_pictures(domain: str) -> None:
    from interp.data.mixtures.subsampling import PAPER_HELD_OUT

    images = listed_pictures()
    assert len(images) == 586_575
    train = images.frame[images.frame["split"] == "train"]
    rows = list(zip(*(train[name].tolist() for name in ("path", "label", "domain")), strict=True))
    labels = sorted(counts().index)
    specs = [MixtureSpec(name, domain, PAPER_HELD_OUT, rule="first") for name in SETTINGS]
    for spec, mixture in zip(specs, make_mixtures(images, specs), strict=True):
        natural_only = spec.setting == "natural-only"
        size = 120_906 if natural_only else SIZES[domain]
        assert len(mixture.images) == size
        allowed = admitted(spec.setting, domain, labels, set(PAPER_HELD_OUT))
        assert set(mixture.images.path) == naive_first(rows, allowed, size)

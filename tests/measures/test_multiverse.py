"""The multiverse: its combinations, that reuse changes nothing, and the planted truth."""

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageColor

from interp.circuits import (
    METRICS,
    UNIT_METHODS,
    Chain,
    ClassCircuits,
    Units,
    circuit_transfer,
    class_circuits,
    overlap,
)
from interp.circuits.planted.vit import Blueprint, plant
from interp.circuits.planted.weights import disguise
from interp.circuits.planted.world import as_tensor, paint
from interp.circuits.sharing.choices import (
    CHOICES,
    STEPPED,
    WAYS,
    changes,
    options_of,
    picked,
    ways_among,
)
from interp.circuits.sharing.circuit_transfer import NECESSITY_OVER_SIZES, OVER_SIZES
from interp.core.classifiers import Classifier
from interp.core.errors import DataError, SampleError, SiteError, SpecificationError
from interp.core.images import ImageTable
from interp.core.tables import Table
from interp.measures.ladder import ladder
from interp.measures.multiverse import multiverse
from interp.models.towers.vit import HookedViT
from interp.verdicts.judging import WHOLE, ladder_rows
from interp.verdicts.rungs import RUNGS
from interp.verdicts.votes import agreement_with_usual, count_votes

COLOURS = ("red", "lime", "blue", "white", "yellow", "cyan")
EACH = 4
SITE = "hook_embed"


def read(image: Image.Image) -> torch.Tensor:
    """A picture of one colour as a position with four channels for each colour, its own on."""
    colour = COLOURS.index(NAMES[image.getpixel((0, 0))])
    strength = 1 + image.width / 10 + torch.arange(EACH) / 20
    channels = torch.zeros(1, len(COLOURS) * EACH)
    channels[0, colour * EACH : (colour + 1) * EACH] = strength
    return channels


NAMES = {ImageColor.getrgb(name): name for name in COLOURS}


def coloured(colours: Sequence[str] = COLOURS) -> ImageTable:
    rows = [(name, domain, artist) for name in colours for domain in "AB" for artist in "abcd"]
    frame = pd.DataFrame(rows, columns=["label", "domain", "artist"])
    frame = frame.assign(path=range(len(rows)), split="test", caption="")
    return ImageTable(
        frame,
        reader=lambda row: Image.new("RGB", (1 + (int(row["path"]) // 3) % 3, 1), row["label"]),
    )


HEAD = Classifier(torch.eye(len(COLOURS)).repeat_interleave(EACH, dim=1), COLOURS)
TOWER = Chain([torch.nn.Identity()] * 2, axes=("batch", "pos", "channel"))
WORDS: dict[str, Any] = {"classifier": HEAD, "preprocess": read, "sites": [SITE]}
FEW: dict[str, list[Any]] = {"metric": ["mean_margin"], "corruption": [], "steps": [1]}


@cache
def small() -> Table:
    """A tower without layers to speak of, asked in four ways and at three sizes."""
    choices = {**FEW, "method": [], "size": [0.1, 0.4]}
    return multiverse(TOWER, coloured(), domains=("A", "B"), **WORDS, choices=choices)


# which combinations there are


SLOW = ("learned masks", "ensemble", "resample ablation", "random")
"""Ways to score that are tried only where they are named, and chance, which never is."""


def test_every_combination_is_there_once() -> None:
    options = options_of(None)
    naive = {
        (method, metric, corruption, steps if method in STEPPED else None)
        for method in UNIT_METHODS if method not in SLOW
        for metric in METRICS if metric not in ("clean_distance", "kl")
        for corruption in ("another class", "gaussian_noise", "blur", "mean_image")
        for steps in (1, 5, 20)
    }  # fmt: skip
    ways = ways_among(options)
    assert set(ways) == naive and len(ways) == len(naive)
    assert ways[0] == ("integrated gradients", "margin", "another class", 5)


def test_what_takes_no_steps_is_not_asked_for_them() -> None:
    ways = ways_among(options_of({**FEW, "method": ["learned masks"]}))
    masks = [way for way in ways if way.method == "learned masks"]
    assert {way.steps for way in masks} == {None} and len(masks) == 2 and len(ways) == 6
    assert changes(masks[0], ways[0]) == 1  # the method alone


def test_the_sample_is_seeded_and_nearest_first() -> None:
    ways = ways_among(options_of(None))
    near = [way for way in ways if changes(way, ways[0]) <= 1]
    some = picked(ways, len(near) + 5, seed=1)
    assert some == picked(ways, len(near) + 5, seed=1) != picked(ways, len(near) + 5, seed=2)
    assert set(near) < set(some) and len(set(some)) == len(near) + 5
    assert picked(ways, 3, seed=1)[0] == ways[0] and set(picked(ways, 3, seed=1)) < set(near)
    assert picked(ways, len(ways) + 9, seed=0) == ways and picked(ways, 1, seed=0) == ways[:1]


@pytest.mark.slow
def test_rows_are_all_combinations_and_each_once() -> None:
    table = small()
    chosen = ["rung", *CHOICES]
    assert not table.frame.duplicated(chosen).any()
    rows = table.frame.groupby("rung").size()
    # two measures of the parts kept, at two sizes; two without a size
    assert rows["R5"] == 4 * (2 * 2 + 2) and rows["R6"] == 4 * 3
    assert table.frame.groupby("rung")["default"].sum().tolist() == [1, 1]
    assert table.facts["ways"] == table.facts["ways_possible"] == 4
    assert table.frame[table.frame["rung"] == "R6"]["size"].unique().tolist() == [
        "over sizes", "10 %", "40 %",
    ]  # fmt: skip


@pytest.mark.slow
def test_fewer_ways_say_of_how_many() -> None:
    words = {**WORDS, "choices": {**FEW, "size": [], "overlap": []}, "n_ways": 2}
    table = multiverse(TOWER, coloured(), domains=("A", "B"), **words)
    assert len(table) == 4 and set(table.frame["n_possible"]) == {table.facts["ways_possible"]}
    whole = small().frame
    keys = ["rung", *CHOICES]
    both = table.frame.merge(whole, on=keys, suffixes=("", "_of_all"))
    assert len(both) == len(table)
    for name in ("index", "index_low", "p", "verdict"):  # a sample changes no number
        assert both[name].equals(both[f"{name}_of_all"])


# that reuse changes nothing


def direct(metric: str = "margin", steps: int = 5) -> list[ClassCircuits]:
    images = coloured()
    x = images.tensors(read, [0])
    cut = Units.of(TOWER, [SITE], x, steps=steps, batch_size=64)
    return [
        class_circuits(cut, images, domain=domain, classifier=HEAD, preprocess=read, n=12,
                       metric=metric)
        for domain in "AB"
    ]  # fmt: skip


def row(rung: str, **chosen: Any) -> pd.Series:
    rows = small().frame.query("rung == @rung")
    for name, option in chosen.items():
        rows = rows[rows[name] == option]
    assert len(rows) == 1
    return rows.iloc[0]


SAME = ["value", "null", "ceiling", "index", "index_low", "index_high", "p"]


@pytest.mark.parametrize(("metric", "steps"), list(product(["margin", "mean_margin"], [1, 5])))
def test_overlaps_are_those_of_direct_calls(metric: str, steps: int) -> None:
    found = direct(metric, steps)
    for size, name in [(0.1, "dice"), (0.4, "jaccard"), (0.1, "rank correlation")]:
        told = overlap(*found, share=size, measures=[name], n_permutations=199).frame.iloc[0]
        label = f"{100 * size:g} %" if name != "rank correlation" else ""
        mine = row("R5", metric=metric, steps=steps, size=label, overlap=name)
        assert mine[SAME].equals(told[SAME]) and mine["verdict"] == told["verdict"]


@pytest.mark.parametrize(("metric", "steps"), [("margin", 5), ("mean_margin", 1)])
@pytest.mark.parametrize(("label", "size"), [("over sizes", None), ("10 %", 0.1), ("40 %", 0.4)])
def test_transfers_are_those_of_direct_calls(
    metric: str, steps: int, label: str, size: float | None
) -> None:
    found, tables = direct(metric, steps), []
    for removed, name in ((False, OVER_SIZES), (True, NECESSITY_OVER_SIZES)):
        shares = [size] if size == 0.4 else None  # 10 % is one of the usual sizes
        rows = circuit_transfer(*found, shares=shares, removed=removed, n_null=3).frame
        rows = rows[rows["domain_a"] != rows["domain_b"]]  # those of one domain say how sparse
        rows = rows[rows["share"].isna() if size is None else rows["share"] == size]
        tables.append(rows.assign(measure=name))
    told = RUNGS["R6"].judged.select(pd.concat(tables))
    mine = row("R6", metric=metric, steps=steps, size=label)
    assert len(told) == 2 and mine["verdict"] == count_votes(told).verdict
    means = told[["value", "null", "ceiling", "index", "index_low"]].mean()
    assert mine[list(means.index)].astype(float).equals(means)
    assert mine["p"] == told["p"].max() and mine["n_pictures"] == 48


# refusals, and what cannot be asked


def test_pictures_that_a_corruption_leaves_alike_are_refusals_counted_apart() -> None:
    """A picture of one pixel has nothing to blur."""
    tower = Chain(
        [torch.nn.Identity()], axes=("batch", "channel", "row", "column"), pool=torch.nn.Flatten()
    )
    choices = {"metric": [], "steps": [], "method": [], "corruption": ["blur", "mean_image"]}
    words = {**WORDS, "preprocess": lambda image: read(image).reshape(-1, 1, 1)}
    table = multiverse(tower, coloured(), domains=("A", "B"), **words, choices=choices)
    frame = table.frame
    blurred = frame[frame["corruption"] == "blur"]
    assert blurred["index"].isna().all() and set(blurred["verdict"]) == {"unknown"}
    assert blurred["reason"].ne("").all() and (frame["corruption"] == "mean_image").any()
    for rung, own in frame.groupby("rung"):
        assert table.facts[rung]["refused"] >= (own["corruption"] == "blur").sum()
        assert table.facts[rung]["n"] == len(own) - 1


def test_what_agrees_is_counted_among_what_could_be_judged() -> None:
    said = ["shared", "shared", "partly shared", "not shared", "unknown", "unknown"]
    index = [0.9, 0.9, 0.5, 0.0, 0.6, np.nan]
    rows = pd.DataFrame({"default": [True] + [False] * 5, "index": index, "verdict": said})
    told = agreement_with_usual(rows)
    assert (told.n, told.refused, told.same, told.against, told.share) == (5, 1, 1, 1, 0.25)
    silent = agreement_with_usual(rows.assign(index=[np.nan, *index[1:]]))
    assert silent.usual == "" and np.isnan(silent.share)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"metrics": ["margin"]}, "mean metric"),
        ({"metric": ["margn"]}, "mean margin"),
        ({"metric": ["kl"]}, "metric 'kl'"),
        ({"metric": "margin"}, "a list"),
        ({"steps": [0]}, "whole numbers"),
        ({"steps": [2.5]}, "whole numbers"),
        ({"size": [1.5]}, "shares of parts"),
        ({"corruption": ["mean"]}, "mean_image"),
        ({"method": ["masks"]}, "learned masks"),
        ({"overlap": ["cosine"]}, "jaccard"),
    ],
)
def test_unknown_choices_and_options_are_refused(choices: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecificationError, match=said):
        multiverse(TOWER, coloured(), domains=("A", "B"), **WORDS, choices=choices)


def test_what_cannot_be_asked_is_refused() -> None:
    images = coloured()
    with pytest.raises(SpecificationError, match="two different domains"):
        multiverse(TOWER, images, domains=("A", "A"), **WORDS)
    with pytest.raises(SpecificationError, match="two different domains"):
        multiverse(TOWER, images, domains=("A",), **WORDS)
    with pytest.raises(DataError, match="domain"):
        multiverse(TOWER, images, domains=("A", "C"), **WORDS)
    with pytest.raises(SampleError, match="four or more"):
        multiverse(TOWER, coloured(COLOURS[:3]), domains=("A", "B"), **WORDS)
    with pytest.raises(SpecificationError, match="n_ways = 0"):
        multiverse(TOWER, images, domains=("A", "B"), **WORDS, n_ways=0)
    with pytest.raises(SiteError):
        multiverse(TOWER, images, domains=("A", "B"), **{**WORDS, "sites": ["hook_embd"]})
    with pytest.raises(SpecificationError, match=r"Pass sites=\[\.\.\.\]"):
        multiverse(TOWER, images, domains=("A", "B"), **{**WORDS, "sites": None})
    with pytest.raises(DataError, match="class"):
        others = Classifier(torch.eye(3), ("x", "y", "z"))
        multiverse(TOWER, images, domains=("A", "B"), **{**WORDS, "classifier": others})


# the planted truth


@cache
def planted(condition: str) -> Table:
    """A planted transformer, under both metrics, steps and corruptions, at all sizes."""
    model = disguise(plant(Blueprint(condition, 2)), seed=1)
    return multiverse(
        HookedViT(model.source),
        paint(model.world, 4, seed=4),
        domains=("A", "B"),
        classifier=model.classifier,
        preprocess=as_tensor,
        choices={"metric": ["mean_margin"], "steps": [1], "corruption": ["blur"], "method": []},
        n_ways=5,
        n=2,
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("condition", "right", "wrong"),
    [("all shared", "shared", "not shared"), ("all separate", "not shared", "shared")],
)
def test_choices_agree_on_the_planted_answer(condition: str, right: str, wrong: str) -> None:
    table = planted(condition)
    frame = table.frame
    for rung in ("R5", "R6"):
        own = frame[frame["rung"] == rung]
        assert own[own["default"]]["verdict"].tolist() == [right]
        assert wrong not in set(own["verdict"]) and table.facts[rung]["against"] == 0
        assert own["agree"].iloc[0] > 0.6
        answered = own[own["index"].notna()]  # with one step, circuits do half of the work or none
        assert len(answered) > len(own) / 2 and set(answered["verdict"]) <= {right, "unknown"}
        assert (answered["verdict"] == right).mean() > 0.8
    blurred = frame["corruption"] == "blur"
    assert frame[blurred]["reason"].str.contains("nobody took").all()
    assert not frame[~blurred]["reason"].str.contains("nobody took").any()


@pytest.mark.long
@pytest.mark.slow
def test_the_default_is_what_the_ladder_says() -> None:
    model = disguise(plant(Blueprint("all separate", 2)), seed=1)
    climbed = ladder(
        HookedViT(model.source), paint(model.world, 4, seed=4), domains=["A", "B"],
        classifier=model.classifier, preprocess=as_tensor, pool="class", n=2, n_splits=1,
        n_permutations=19,
    )  # fmt: skip
    rows = climbed.rungs.frame
    whole = rows[(rows["site"] == "") & (rows["level"] == "d_mlp")]
    for told in ladder_rows(whole[whole["rung"].isin(["R5", "R6"])]).itertuples():
        mine = planted("all separate").frame.query("rung == @told.rung and default").iloc[0]
        assert told.band == WHOLE and mine["verdict"] == told.verdict
        for name in ("index", "index_low", "index_high"):
            assert mine[name] == getattr(told, name)
    assert climbed.verdict("R5", WHOLE) == "not shared"


# the table and its figure


def test_the_table_comes_back_from_its_file(tmp_path: Any) -> None:
    table = small()
    again = Table.load(table.save(tmp_path))
    assert again.frame["default"].tolist() == table.frame["default"].tolist()
    assert again.frame["index"].equals(table.frame["index"].astype(float))
    assert set(WAYS) < set(table.describe()) and "combinations" in table.describe()["agree"]


def test_the_curve_is_the_table() -> None:
    frame = small().frame
    own = frame[(frame["rung"] == "R6") & frame["index"].notna()]
    figure = small().plot()
    points = [
        trace
        for trace in figure.data
        if trace.type == "scatter" and trace.error_y.array is not None
    ]
    drawn = sorted((x, y) for trace in points for x, y in zip(trace.x, trace.y, strict=True))
    assert [y for _, y in drawn] == sorted(own["index"])
    [matrix] = [trace for trace in figure.data if trace.type == "heatmap"]
    names = [name for name in figure.layout.yaxis2.ticktext]
    assert "<b>metric</b>" in names and "margin" in names and "<b>corruption</b>" not in names
    for name, line in zip(names, matrix.z, strict=True):
        filled = sum(cell is not None for cell in line)
        assert filled == (0 if name.startswith("<b>") else _count(frame, name))


def _count(frame: pd.DataFrame, option: str) -> int:
    rows = frame[frame["rung"] == "R6"].astype({"steps": int}).astype(str)
    return int((rows[["metric", "steps", "size"]] == option.replace(" margin", "_margin"))
               .any(axis=1).sum())  # fmt: skip

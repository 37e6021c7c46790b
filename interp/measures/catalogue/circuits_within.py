"""Which parts of one opened model make the class, found on some pictures and tested on others.

A transformer is cut edge by edge, a ResNet channel by channel. Clean and corrupt are pictures of
two classes in one domain, so what a circuit leaves out runs on as in a picture of another class.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from interp.circuits import (
    attribute,
    channel_circuit,
    channel_scores,
    discover,
    faithfulness,
    read_pairs,
    unit_faithfulness,
)
from interp.circuits.patching.localise import by_class
from interp.circuits.tasks.pairs import Read
from interp.core.artists import artist_sides
from interp.core.errors import DataError, SampleError
from interp.core.illustrations import Plate, sheet
from interp.core.images import ImageTable, Pairs
from interp.core.progress import say
from interp.core.sites import present
from interp.core.tables import Table
from interp.core.tower import Wired
from interp.declared import figures
from interp.declared.measures import MeasureSpec
from interp.declared.writing import number
from interp.measures.subject import Frames, Subject
from interp.models.attribution.overlays import square
from interp.probes.galleries.peaks import HEADS, find_peaks

SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Sizes of circuits on the page's curve."""

DRAWN = 40
"""Edges of the circuit that the page draws."""

CHANNELS = ("layer*.*.hook_resid_post",)
"""Where a ResNet is cut: at what each of its blocks hands on."""

GRAPH_PAIRS = 6
"""Pairs that a ResNet's edges are scored on, for the drawing alone."""


def measure(subject: Subject) -> Frames:
    """Tables `faithfulness` and `circuits`: a circuit of each domain, and how faithful it is.

    Of a transformer also `edges`, the scores of all edges, which other tools read as a circuit.
    Scores come from one half of a domain's pairs, faithfulness from the other; no picture is in
    both. Empty for a tower that can be cut neither way; a domain without pairs is left out.
    """
    images = subject.analysed
    tower = subject.tower
    cut = isinstance(tower, Wired)
    if not cut and not present(tower, CHANNELS):
        say(f"circuits left out: {type(tower).__name__} has neither parts nor known channels")
        return {}
    found: dict[str, list[pd.DataFrame]] = {"faithfulness": [], "circuits": [], "edges": []}
    for domain in subject.pair:
        try:
            halves = _halves(images, domain, subject.analysis.n_circuit_pairs, subject.seed)
        except (DataError, SampleError) as error:
            say(f"circuits in {domain} left out: {error}")
            continue
        how = {"classifier": subject.classifier, "preprocess": subject.preprocess}
        tasks = [read_pairs(tower, pairs, **how) for pairs in halves]
        for name, table in (_edges if cut else _channels)(subject, *tasks).items():
            found[name].append(subject.file(table).assign(domain=domain))
    return {name: pd.concat(parts, ignore_index=True) for name, parts in found.items() if parts}


def _halves(images: ImageTable, domain: str, n: int, seed: int) -> list[Pairs]:
    """Pairs of two classes in one domain, to find with and to test with, by different artists.

    An artist stands on one side in all domains: no drawing finds in one and tests in another.
    """
    here, side = (images.domain == domain).to_numpy(), artist_sides(images.frame)
    return [
        images[here & (side == half)].pairs(same="domain", differ="label", n=n, seed=seed)
        for half in (0, 1)
    ]


def _edges(subject: Subject, find: Read, test: Read) -> dict[str, Table | pd.DataFrame]:
    tower = subject.tower
    scores = attribute(tower, **find.words, method="EAP-IG-inputs")
    tested = faithfulness(tower, scores, **test.words, shares=SHARES, n_random=3, seed=subject.seed)
    circuit = discover(scores, n=min(DRAWN, scores.wiring.n_edges), prune=False)
    frame = circuit.to_table().frame
    kept = frame[frame["kept"]].drop(columns="kept").assign(n_pictures=len(find.clean))
    return {"faithfulness": tested, "circuits": kept, "edges": frame[["edge", "score", "kept"]]}


def _channels(subject: Subject, find: Read, test: Read) -> dict[str, Table | pd.DataFrame]:
    tower = subject.tower
    scores = channel_scores(
        tower, find.clean, baseline=find.corrupt, metric=find.metric, sites=list(CHANNELS)
    )
    shown = find.pairs.clean.label.to_numpy(object)
    tested = unit_faithfulness(
        tower,
        {site: over_classes(values, shown) for site, values in scores.items()},
        **test.words,
        shares=SHARES,
        n_random=3,
        seed=subject.seed,
    )
    few = np.arange(min(GRAPH_PAIRS, len(find.clean)))
    graph = channel_circuit(
        tower,
        find.clean[few],
        baseline=find.corrupt[few],
        metric=find.metric[few],
        sites=list(CHANNELS),
        keep=0.03,
        fan_in=2,
    )
    frame = graph.to_table().frame.query("measure == 'edge'")
    layer = [tower.layer(site) for site in frame["site"]]
    frame = frame.assign(
        layer=layer,
        layer_b=[n + 1 for n in layer],
        edge=frame["node"] + "->" + frame["node_b"],
        score=frame["value"],
    )
    drawn = frame[["edge", "node", "node_b", "layer", "layer_b", "score"]]
    return {"faithfulness": tested, "circuits": drawn.assign(n_pictures=len(few))}


def over_classes(scores: Tensor, labels: np.ndarray) -> Tensor:
    """How much each unit matters, from scores `unit example`: mean over classes of |their mean|.

    A unit that raises one class and lowers another matters to both; a mean over all would cancel.
    """
    means = by_class(scores.T.double().cpu().numpy(), labels)
    return torch.from_numpy(np.abs(means).mean(axis=0))


SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Sizes that the curve's axis names."""

ALONE = {"measure": "circuit alone"}
WITHOUT = {"measure": "model without the circuit"}


def size_words(row: figures.Row) -> str:
    """What a point of a curve over sizes says: parts, what they keep, and the index."""
    ends = f" ({number(row['low'])} to {number(row['high'])})"
    index = f"<br>index {number(row['index'])}" if row["index"] == row["index"] else ""
    return f"{row['n_edges']:,.0f} parts: {number(row['value'], 3)}{ends}{index}"


FAITHFUL = figures.FigureSpec(
    "faithfulness",
    "How much of the model a circuit is",
    "curve",
    method="The best-scored parts run alone, and the model runs without them, at every size.",
    null="Random circuits as large.",
    caption="{n}; bars are 95 % intervals, a class left out at a time. Circuits were chosen on "
    "other pictures. 1 is the whole model, 0 the model that sees a picture of another class. "
    "{kinds} Areas under the curve (CPR) are in the table.",
    where={"measure": [ALONE["measure"], WITHOUT["measure"]]},
    needs=("value",),
    choices=figures.OF_MODEL,
    across="share",
    series=(
        figures.SeriesSpec("circuit alone", figures.RAW, figures.BLUE, ALONE),
        figures.SeriesSpec(
            "model without the circuit", figures.RAW, figures.ORANGE, WITHOUT, "dash", "x"
        ),
        figures.null_series("random circuits of the same size", ALONE),
    ),
    hover=size_words,
    x=figures.size_axis("size, as a share of all edges (or channels)", SIZES),
    y=figures.AxisSpec("share of the metric that remains", within=(-0.5, 1.6)),
    lines=figures.NONE_TO_WHOLE,
)

STRONGEST = figures.FigureSpec(
    "circuit",
    "What the strongest circuit is made of",
    "circuit",
    ("circuits",),
    method="Every edge is scored by the gradient along the way from one picture to another.",
    null="None: whether such a circuit does the work is tested in the figure of faithfulness.",
    caption="n = {pictures} pictures. The strongest edges of one model (the first, of several "
    "blocks or seeds), {most} at most, as wide as their |score|; the strongest node of a column "
    "stands on top. Of both domains: green what both circuits have, blue what that of natural "
    "pictures alone has, orange the test domain's. Of one domain: blue where the sender raises "
    "what is scored (the metric; of a ResNet's edge, the change of the receiving channel), orange "
    "where it lowers it. Pointed at, a node shows what it responds to. Scores are estimates "
    "without an interval; whether such a circuit does the work is for the figure above to say.",
    needs=("score",),
    choices=figures.OF_CIRCUIT,
    keep=("first block",),
)

CIRCUITS = figures.SectionSpec(
    "circuits",
    "Which parts make the class: circuits",
    "Edges of a transformer are scored by EAP-IG (Hanna et al. 2024), channels of a ResNet by "
    "integrated gradients. A circuit alone runs with all else as in a picture of another "
    "class; share = (m(circuit) − m(nothing)) / (m(model) − m(nothing)), where m is the logit "
    "of the picture's class less that of the other one.",
    (FAITHFUL, STRONGEST),
    note="A circuit is faithful where it does what the model does, and complete where nothing "
    "is left without it. Whether two domains have the same one is another question.",
    gist=figures.GistSpec(
        "faithfulness",
        "Over all sizes, circuits alone keep {range} of the model's metric (CPR; 1 keeps all).",
        {"measure": "CPR"},
    ),
)

EACH, SIDE, PER_CELL = 3, 40, 8
"""Pictures of a domain in a strip, pixels of their side, and pictures of a class in a domain that
are looked through."""

NodePlace = tuple[str, str | None, int]
"""A site, what is read there (`probes.gallery`'s `of`), and the unit's number."""


def node_strips(subject: Subject, made: Mapping[str, pd.DataFrame]) -> list[Plate]:
    """A plate of strips, one for each node of a model's circuits; none for other than channels and
    heads.

    The page cuts out the strip of the node that is pointed at. It shows what activates the node
    most, first in natural pictures, then in the test domain, each drawing once. The keys say how to
    cut: `nodes` and `domains` (JSON), `each`, `size`.
    """
    tower, tables = subject.tower, ("circuits", "match_circuits")
    circuits = pd.concat([made[name] for name in tables if name in made])
    images = subject.analysed.select(domain=list(subject.pair)).few(PER_CELL, seed=0)
    by_site: dict[tuple[str, str | None], dict[str, int]] = {}
    for node in sorted({*circuits["node"], *circuits["node_b"]}):
        place = place_of(node)
        if place and place[0] in tower.sites:
            by_site.setdefault(place[:2], {})[node] = place[2]
    strips: dict[str, list[Image.Image]] = {}
    for (site, of), nodes in by_site.items():
        _, peaks, _ = find_peaks(
            tower,
            images,
            site,
            of,
            preprocess=subject.preprocess,
            batch_size=256,
            device=None,
            n_random=1,
            seed=0,
        )
        for node, unit in nodes.items():
            rows = [_most(images, peaks.values[:, unit], domain) for domain in subject.pair]
            strips[node] = [_drawn(images, row) for own in rows for row in own]
    if not strips:
        return []
    picture = sheet(list(strips.values()), SIDE, across=EACH)
    caption = (
        f"{subject.name[:1].upper()}{subject.name[1:]}: what activates each node of its circuits "
        f"most, {EACH} pictures in {' and then in '.join(subject.pair)}, of {len(images):,}."
    )
    plate = Plate.of_model("nodes", subject.place, picture, caption)
    cut = {"nodes": json.dumps(list(strips)), "domains": json.dumps(subject.pair)}
    return [replace(plate, keys={**plate.keys, **cut, "each": str(EACH), "size": str(SIDE)})]


def place_of(node: str) -> NodePlace | None:
    """Where a node of a circuit is: a channel of a site, or a head; None for others.

    >>> place_of("layer1.0.hook_resid_post:27"), place_of("a3.h5"), place_of("m3")
    (('layer1.0.hook_resid_post', None, 27), ('blocks.3.attn.hook_z', 'heads', 5), None)
    """
    if channel := re.fullmatch(r"(.+):(\d+)", node):
        return channel[1], None, int(channel[2])
    if head := re.fullmatch(r"(?:image block \d+:)?a(\d+)\.h(\d+)", node):
        return f"blocks.{head[1]}.attn.hook_z", HEADS, int(head[2])
    return None


def _most(images: ImageTable, values: np.ndarray, domain: str) -> Sequence[int | None]:
    """The rows of a domain that activate most, each drawing once; None where there are no more."""
    frame = images.frame
    drawing = frame["drawing" if "drawing" in frame else "path"].to_numpy()
    rows = np.flatnonzero((frame["domain"] == domain).to_numpy())
    order = rows[np.argsort(-values[rows], kind="stable")]
    _, first = np.unique(drawing[order], return_index=True)
    found = [int(row) for row in order[np.sort(first)][:EACH]]
    return [*found, *[None] * (EACH - len(found))]


def _drawn(images: ImageTable, row: int | None) -> Image.Image:
    if row is None:
        return Image.new("RGB", (SIDE, SIDE), "white")
    return square(images.picture(row), SIDE)


MEASURE = MeasureSpec(
    "circuits",
    measure,
    bare=("circuits",),
    option="circuits",
    seconds=5.3,
    sections=(CIRCUITS,),
    plates=node_strips,
)

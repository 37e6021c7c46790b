"""What the nodes of a drawn circuit respond to: a strip of pictures for each of them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from PIL import Image

from interp.core.illustrations import Plate, sheet
from interp.core.images import ImageTable
from interp.measures.subject import Subject
from interp.models.attribution.overlays import square
from interp.probes.galleries.peaks import HEADS, find_peaks

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

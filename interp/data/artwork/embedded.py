"""The embedded study: real artwork rendered in six domains, once, into the user's cache folder.

There are three splits. `train` and `test` share no artist within a class, so accuracy is accuracy
on unseen drawings. `analysis` holds fresh renderings by all artists: the same drawing in the same
pose and style is in every domain (`drawing`, `warp`, `style`), and a style serves several classes;
`held_back` marks artists whose drawings of the class are not trained on. Where it is wanted, a
fourth, `base`, holds natural pictures that every mixture adds whole. The study is synthetic.
"""

import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import field
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass

from interp.core.errors import SpecificationError, sequence
from interp.core.faces.doors import door
from interp.core.fields import Count, Declared, Flag, Whole, at_least
from interp.core.images import ImageTable
from interp.core.parallel import side_by_side
from interp.core.progress import say
from interp.core.seeds import rng
from interp.core.storage.store import (
    LATER,
    cache_folder,
    complete,
    content_hash,
    file_hash,
    fingerprint,
    write_atomic,
)
from interp.data.artwork.packages import (
    EDITIONS,
    LATEST,
    RASTERISER,
    Drawing,
    artwork_fingerprint,
    drawings,
    ink,
    missing_artists,
    to_install,
)
from interp.data.artwork.rendering import DOMAINS, render
from interp.data.artwork.scene import Factors
from interp.data.mixtures.settings import BASE, NATURAL
from interp.data.mixtures.templates import sentence

RENDERER = 4
"""Raise it when a picture is drawn differently, so that old caches are not taken for new."""

INDEX = "index.csv"
"""The list of all pictures, written when the last one is there."""
ENOUGH = 8
"""Artists of a class with whom halves, and a training and a test split, have hands enough."""
STYLES = 48
"""Styles of the analysis pictures, drawn anew for each class and picture: with one style for the
k-th picture of every class, halves of a class disagree."""


@dataclass(frozen=True)
class EmbeddedSpec(Declared):
    """The contents of the embedded study; all of it enters the hash of its cache.

    Args:
        n_classes: Number of classes; those that most artists drew are taken.
        n_train: Training pictures per cell (class x domain).
        n_test: Test pictures per cell.
        n_analysis: Analysis pictures per cell.
        size: Side of the pictures in pixels.
        artwork: Edition of the drawings: 2, sixteen artists; 1, seven, with which the first studies
            were made.
        colour_prior: Whether each class has a hue of its own in real, painting and clipart, a
            shortcut that a model may learn.
        seed: Seed of all draws.
        n_base: Natural pictures per class of a base set (the split `base`), which is added whole to
            every mixture; 0 is none.
        base_classes: Classes that stand in the base set alone: the next that most artists drew, as
            far as there are any.

    >>> EmbeddedSpec(n_classes=10).size
    48
    """

    asked = "make the embedded study"

    n_classes: Whole = 40
    n_train: Annotated[int, at_least(1)] = 200
    n_test: Annotated[int, at_least(1)] = 16
    n_analysis: Annotated[int, at_least(1)] = 16
    size: Annotated[int, at_least(8)] = 48
    artwork: Annotated[int, Field(strict=True, ge=EDITIONS[0], le=LATEST, description="1 or 2")] = (
        LATEST
    )
    colour_prior: Flag = False
    seed: Whole = 0
    n_base: Count = field(default=0, metadata=LATER)
    base_classes: Count = field(default=0, metadata=LATER)


@door
def open_embedded(spec: EmbeddedSpec | None = None, *, jobs: int = 2) -> ImageTable:
    """Open the embedded study, rendering it first if the cache does not hold it.

    Args:
        spec: Its contents; None takes the defaults of `EmbeddedSpec`.
        jobs: Processes that render.

    Returns:
        The image table.

    Raises:
        SpecificationError: For more classes than there are drawings for.

    Notes:
        Rendering can be interrupted: it continues by cell (class x domain) and never redraws a
        finished one.

    >>> small = EmbeddedSpec(n_classes=2, n_train=1, n_test=1, n_analysis=1, size=16)
    >>> images = open_embedded(small, jobs=1)
    >>> len(images), images.domains[:2]
    (36, ['clipart', 'infograph'])
    """
    chosen = spec or EmbeddedSpec()
    by_reason: dict[str, list[str]] = {}
    for artist, reason in missing_artists(edition=chosen.artwork).items():
        by_reason.setdefault(reason, []).append(artist)
    for reason, artists in by_reason.items():
        say(f"{sequence(artists)}: drawings are left out, since {reason}")
    key = _key(chosen)
    root, index = _root(chosen), _root(chosen) / INDEX
    if not index.exists():
        _render_all(root, chosen, jobs)
    frame = pd.read_csv(index, keep_default_na=True)
    return ImageTable(frame, root, "embedded artwork study", f"{key}-{file_hash(index)}")


def _key(spec: EmbeddedSpec) -> str:
    return fingerprint(
        spec,
        artwork_fingerprint(edition=spec.artwork),
        RENDERER,
        version("pillow"),
        version(RASTERISER) if find_spec("resvg_py") else "",
    )


def _root(spec: EmbeddedSpec) -> Path:
    return cache_folder() / f"artwork-{_key(spec)}"


def asked_pictures(spec: EmbeddedSpec) -> str:
    """A hash of what pictures are asked for and of the drawings, whatever version draws them."""
    return fingerprint(spec, artwork_fingerprint(edition=spec.artwork), RENDERER)


@dataclass(frozen=True)
class OnDemand:
    """Draws the picture of a planned row when it is asked for."""

    spec: EmbeddedSpec

    def __call__(self, row: pd.Series) -> Image.Image:
        """The picture, with the pixels that a rendered study has."""
        named = {each.name: each for each in _of_class(row["label"], self.spec.artwork)}
        return _picture(row, named[row["drawing"]], row["domain"], self.spec)[0]


@lru_cache(maxsize=512)
def _of_class(label: str, edition: int) -> tuple[Drawing, ...]:
    return tuple(each for each in drawings(edition=edition) if each.label == label)


def _drawn(spec: EmbeddedSpec) -> list[tuple[str, list[Drawing], bool]]:
    """Every class with its drawings, and whether it stands in the base set alone."""
    own = drawn = study_classes(spec.n_classes, edition=spec.artwork)
    if spec.n_base and spec.base_classes:
        there = len({drawing.label for drawing in drawings(edition=spec.artwork)})
        both = min(spec.n_classes + spec.base_classes, there)
        drawn = study_classes(both, edition=spec.artwork)
    return [(label, made, label not in own) for label, made in drawn.items()]


def _domains(*, base_alone: bool) -> tuple[str, ...]:
    return (NATURAL,) if base_alone else DOMAINS


def planned(spec: EmbeddedSpec) -> ImageTable:
    """The table of the embedded study as it will be; a picture is drawn when it is asked for.

    Args:
        spec: Its contents.

    Returns:
        A row per picture; there are no files, and the fingerprint is that of what is planned.

    Raises:
        SpecificationError: For more classes than there are.

    >>> len(planned(EmbeddedSpec(n_classes=2, n_train=1, n_test=1, n_analysis=1, size=16)))
    36
    """
    columns: dict[str, list[object]] = {}
    for label, made, base_alone in _drawn(spec):
        for domain in _domains(base_alone=base_alone):
            for name, values in _cell(label, made, domain, spec, base_alone).items():
                columns.setdefault(name, []).extend(values)
    return ImageTable(
        pd.DataFrame(columns),
        Path("planned"),
        "embedded artwork study",
        f"planned-{_key(spec)}",
        OnDemand(spec),
    )


def study_classes(n_classes: int, *, edition: int = LATEST) -> dict[str, list[Drawing]]:
    """The classes that most artists drew, each with its drawings.

    In the second edition, classes that eight artists drew come first, and among them those that
    most artists of the first edition drew: so studies of both ask about nearly the same classes.

    Args:
        n_classes: How many classes; ties are resolved by name.
        edition: Edition of the drawings.

    Returns:
        Drawings by class, sorted by name.

    Raises:
        SpecificationError: For more classes than there are, or fewer than two; the error names what
            to install where artists are missing.
    """
    by_label: dict[str, list[Drawing]] = {}
    for drawing in drawings(edition=edition):
        by_label.setdefault(drawing.label, []).append(drawing)
    if not 2 <= n_classes <= len(by_label):
        missing = missing_artists(edition=edition)
        raise SpecificationError(
            "make the embedded study",
            f"n_classes = {n_classes}",
            f"2 to {len(by_label)}, the classes that four artists drew"
            if len(by_label) > 1
            else "drawings by four artists",
            f"run {to_install(missing)}" if missing else "choose another number",
        )
    first, now = (_n_artists(drawings(edition=each)) for each in (EDITIONS[0], edition))

    def rank(label: str) -> tuple[bool, int, int, str]:
        few = now[label] < ENOUGH and edition != EDITIONS[0]
        return few, -first[label], -now[label], label

    return {label: by_label[label] for label in sorted(sorted(by_label, key=rank)[:n_classes])}


def _n_artists(listed: Iterable[Drawing]) -> Counter[str]:
    return Counter(label for label, _ in {(drawing.label, drawing.artist) for drawing in listed})


def held_back_artists(label: str, artists: list[str], seed: int, *, least: int = 2) -> set[str]:
    """Draw a quarter of a class's artists, whose drawings are never trained on.

    Args:
        label: The class.
        artists: Its artists.
        seed: Seed of the draw.
        least: At least so many.

    Returns:
        The artists of the test split.

    >>> len(held_back_artists("cat", list("abcdefghijkl"), 0))
    3
    """
    order = rng(f"held-back artists/{label}", seed).permutation(sorted(artists))
    return set(order[: max(least, len(artists) // 4)])


def plan_cell(
    label: str, made: list[Drawing], domain: str, spec: EmbeddedSpec, *, base_alone: bool = False
) -> pd.DataFrame:
    """Plan the pictures of a cell: split, drawing, and the two seeds that determine each picture.

    Args:
        label: The class.
        made: Its drawings.
        domain: The domain.
        spec: The contents of the study.
        base_alone: Whether the class stands in the base set alone.

    Returns:
        A row per picture.
    """
    return pd.DataFrame(_cell(label, made, domain, spec, base_alone))


def _cell(
    label: str, made: list[Drawing], domain: str, spec: EmbeddedSpec, base_alone: bool
) -> dict[str, list[object]]:
    """The columns of `plan_cell`."""
    artists = list({drawing.artist for drawing in made})
    held_back = held_back_artists(label, artists, spec.seed, least=min(spec.artwork, 2))
    by_split = {
        "train": ([d for d in made if d.artist not in held_back], spec.n_train),
        "test": ([d for d in made if d.artist in held_back], spec.n_test),
        "analysis": (made, spec.n_analysis),
    }
    base = {BASE: (by_split["train"][0], spec.n_base)} if domain == NATURAL else {}
    by_split = base if base_alone else by_split | base
    rows = []
    for split, (pool, count) in by_split.items():
        # poses and styles of `analysis` are drawn without the domain's name
        look = label if split == "analysis" else f"{label}/{domain}"
        warps = rng(f"warps/{split}/{look}", spec.seed).integers(2**31, size=count)
        styles = rng(f"styles/{split}/{look}", spec.seed).integers(2**31, size=count)
        if split == "analysis":
            common = rng(f"styles/{split}/", spec.seed).integers(2**31, size=STYLES)
            styles = common[styles % STYLES]
        order = _by_artist(pool, "" if spec.artwork == 1 else label, spec.seed)
        rows += [
            (split, order[k % len(order)], int(warps[k]), int(styles[k])) for k in range(count)
        ]
    return {
        "path": [f"{domain}/{label}/{split}-{k:04d}.png" for k, (split, *_) in enumerate(rows)],
        "label": [label] * len(rows),
        "domain": [domain] * len(rows),
        "split": [row[0] for row in rows],
        "caption": [sentence("a TERM of a CLASS", "image", label)] * len(rows),
        "artist": [row[1].artist for row in rows],
        "drawing": [row[1].name for row in rows],
        "glyph": [row[1].glyph for row in rows],
        "held_back": [row[1].artist in held_back for row in rows],
        "warp": [row[2] for row in rows],
        "style": [row[3] for row in rows],
    }


def _by_artist(pool: list[Drawing], label: str, seed: int) -> list[Drawing]:
    """Order drawings by turns, one per artist each time, so that artists are equally frequent.

    Artists come in an order of the class's own, or by name if no class is given.
    """
    per_artist: dict[str, list[Drawing]] = {}
    for drawing in sorted(pool, key=lambda each: (each.artist, each.glyph)):
        per_artist.setdefault(drawing.artist, []).append(drawing)
    turns = list(per_artist.values())
    if label:
        turns = [turns[at] for at in rng(f"turns/{label}", seed).permutation(len(turns))]
    longest = max(map(len, turns))
    return [own[k % len(own)] for k in range(longest) for own in turns]


def _render_all(root: Path, spec: EmbeddedSpec, jobs: int) -> None:
    """Render every missing cell, then write the index that makes the set complete."""
    each = spec.n_train + spec.n_test + spec.n_analysis
    tasks = [(root, label, made, spec, base_alone) for label, made, base_alone in _drawn(spec)]
    base = f", and {len(tasks)} of {spec.n_base} for the base set," if spec.n_base else ""
    say(f"rendering {spec.n_classes * len(DOMAINS)} cells of {each} pictures{base} into {root}")
    frames = side_by_side(_render_class, tasks, jobs=jobs, what="render")
    write_atomic(root / INDEX, pd.concat(frames, ignore_index=True).to_csv(index=False))


def _render_class(task: tuple[Path, str, list[Drawing], EmbeddedSpec, bool]) -> pd.DataFrame:
    """Render all domains of a class, whose drawings are then read once."""
    root, label, made, spec, base_alone = task
    cells = [
        _render_cell((root, label, made, domain, spec), base_alone=base_alone)
        for domain in _domains(base_alone=base_alone)
    ]
    return pd.concat(cells, ignore_index=True)


def _render_cell(
    task: tuple[Path, str, list[Drawing], str, EmbeddedSpec], *, base_alone: bool = False
) -> pd.DataFrame:
    """Render one cell into its own folder, or read it back if it is complete."""
    root, label, class_drawings, domain, spec = task
    folder = root / domain / label
    if (folder / "cell.csv").exists():
        return pd.read_csv(folder / "cell.csv")
    plan = plan_cell(label, class_drawings, domain, spec, base_alone=base_alone)
    by_name = {drawing.name: drawing for drawing in class_drawings}
    with complete(folder) as temporary:
        factors, hashes = [], []
        for _, row in plan.iterrows():
            picture, drawn = _picture(row, by_name[row["drawing"]], domain, spec)
            stored = io.BytesIO()
            picture.save(stored, "png", compress_level=1)
            (temporary / Path(row["path"]).name).write_bytes(stored.getvalue())
            factors.append(drawn)
            hashes.append(content_hash(stored.getvalue()))
        cell = pd.concat([plan, pd.DataFrame({"hash": hashes}), pd.DataFrame(factors)], axis=1)
        cell.to_csv(temporary / "cell.csv", index=False)
    return cell


def _picture(
    row: pd.Series, drawing: Drawing, domain: str, spec: EmbeddedSpec
) -> tuple[Image.Image, Factors]:
    """The picture of a planned row, and its factors."""
    label = row["label"]
    hue = float(rng(f"class hue/{label}", spec.seed).random()) if spec.colour_prior else None
    pixels, factors = render(
        ink(drawing),
        domain,
        warp_seed=int(row["warp"]),
        style_seed=int(row["style"]),
        size=spec.size,
        hue=hue,
    )
    return Image.fromarray(np.asarray(pixels)), factors

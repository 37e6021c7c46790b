"""Pictures beside the numbers: which pictures an activation moves most and least, and where.

Six pictures of a model are run again: their attention where the tower has layers of it, and the
effect of patching one position at a time. A few seconds for a small tower.
"""

from collections.abc import Sequence
from fnmatch import fnmatch

import numpy as np
import pandas as pd
from jaxtyping import Float
from PIL import Image

from interp.circuits import localise
from interp.core.errors import InterpError
from interp.core.illustrations import Plate, sheet
from interp.core.images import ImageTable, Pairs
from interp.core.progress import say
from interp.core.sites import middle_of
from interp.declared.writing import number
from interp.measures.subject import Subject
from interp.models.attribution.attention_maps import attention_maps
from interp.models.attribution.overlays import laid_over, square
from interp.models.towers.vit import HookedViT

EACH = 3
"""So many pictures that move most, and as many that move least."""

SIDE = 96
"""Pixels of a picture in a plate."""

POSITIONS = {
    "blocks.*.hook_resid_pre": ("layer", "pos"),
    "layer*.*.hook_out": ("layer", "row", "column"),
}
"""Where positions are patched one at a time: a ViT's tokens, the places of a ResNet's maps."""


def middle(examples: pd.DataFrame) -> str:
    """The site of a sweep that is nearest to half depth: fixed by its place, not its result."""
    return middle_of(dict(zip(examples["site"], examples["depth"], strict=True)))


def moved(examples: pd.DataFrame) -> pd.Series:
    """How far each example moves at the `middle` site, beyond the null donor.

    value - null where there is a null donor, else value - corrupt_metric; summed over positions.

    >>> rows = pd.DataFrame({"site": "blocks.1.hook_resid_pre", "depth": 0.5, "example": [0, 1],
    ...                      "value": [1.0, 3.0], "null": [0.5, 0.5], "corrupt_metric": 0.0})
    >>> moved(rows).tolist()
    [0.5, 2.5]
    """
    here = examples[examples["site"] == middle(examples)]
    base = here["null"] if "null" in here else here["corrupt_metric"]
    return (here["value"] - base).groupby(here["example"]).sum().dropna()


def pictured(subject: Subject, pairs: Pairs, examples: pd.DataFrame) -> list[Plate]:
    """A plate of the pictures of `pairs` that move most and least; none for fewer than two.

    `pairs` are those that `examples` (of one pairing) was measured on, in their order. Rows of the
    plate, from the top: the clean picture, the corrupt one, what the tower attends to in it (a ViT
    only), and what patching each position alone does.
    """
    far = moved(examples).sort_values(ascending=False, kind="stable")
    each = min(EACH, len(far) // 2)
    if not each:
        return []
    chosen = [*far.index[:each], *far.index[-each:]]
    rows = pairs[np.asarray(chosen, dtype=int)]
    tower = subject.tower
    strips = [_drawn(rows.clean), _drawn(rows.corrupt)]
    said = [f"the picture in {_domain(rows.clean)}", f"its partner in {_domain(rows.corrupt)}"]
    if isinstance(tower, HookedViT):
        seen = attention_maps(tower, rows.corrupt.tensors(subject.preprocess))
        maps = seen.maps()[-1].mean(dim=1).float().cpu().numpy()
        strips.append(_over(strips[1], maps))
        said.append("where the last layer looks in it, mean over heads, bright is more")
    site = middle(examples)
    try:
        effect = _by_position(subject, rows, site)
    except InterpError as error:
        say(f"effects by position left out: {error}")
    else:
        strips.append(_over(strips[1], effect))
        said.append("what patching each position there alone does, bright is more")
    words = _words(rows.corrupt.label.tolist(), far[chosen].tolist(), each)
    model = f"{subject.name[:1].upper()}{subject.name[1:]}"
    caption = (
        f"{model}: of {len(far)} pairs, those whose partner moves most (first {each}) and least "
        f"(last {each}) when {site} takes the clean picture's activation: {words}. "
        f"From the top: {'; '.join(said)}."
    )
    return [Plate.of_model("moved", subject.place, sheet(strips, SIDE, across=each), caption)]


def _domain(images: ImageTable) -> str:
    return str(images.domain.iloc[0])


def _words(labels: Sequence[str], far: Sequence[float], each: int) -> str:
    """Classes and how far they moved, in the model's own contrast.

    >>> _words(["cat", "dog"], [1.0, -0.26], 1)
    'cat 1.00; dog −0.26'
    """
    named = [f"{label} {number(value)}" for label, value in zip(labels, far, strict=True)]
    return f"{', '.join(named[:each])}; {', '.join(named[each:])}"


def _drawn(images: ImageTable) -> list[Image.Image]:
    """Pictures as the model sees them: square, their middle."""
    return [square(images.picture(row), SIDE) for row in range(len(images))]


def _over(
    pictures: Sequence[Image.Image], maps: Float[np.ndarray, "example row column"]
) -> list[Image.Image]:
    """Each picture under its map; dark is 0 or less, bright the largest of that picture."""
    return [
        laid_over(picture, np.maximum(values, 0), top=float(values.max()))
        for picture, values in zip(pictures, maps, strict=True)
    ]


def _by_position(
    subject: Subject, pairs: Pairs, site: str
) -> Float[np.ndarray, "example row column"]:
    """The effect of patching each position of a site alone."""
    tower = subject.tower
    axes = next((axes for pattern, axes in POSITIONS.items() if fnmatch(site, pattern)), ())
    swept = localise(tower, pairs, sites=[site], axes=axes, **subject.task).frame
    effect = swept.assign(effect=swept["value"] - swept["corrupt_metric"])
    if isinstance(tower, HookedViT):  # tokens before the patches, the class token, are left out
        rows, columns = (int(side) for side in tower.source.grid_size)
        laid = effect.sort_values(["example", "pos"])["effect"].to_numpy(float)
        return laid.reshape(len(pairs), -1)[:, -rows * columns :].reshape(-1, rows, columns)
    laid = effect.sort_values(["example", "row", "column"])["effect"].to_numpy(float)
    return laid.reshape(len(pairs), swept["row"].nunique(), -1)

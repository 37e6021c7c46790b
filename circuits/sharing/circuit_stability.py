"""How steady a domain's circuits are: what is found again when its pictures are drawn again."""

import numpy as np
import pandas as pd

from interp.circuits.sharing.class_circuits import ClassCircuits
from interp.circuits.sharing.cuts import Units
from interp.circuits.sharing.overlap_measures import best_of_groups
from interp.core.arguments import check_counts, check_shares
from interp.core.faces.doors import door
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Evidence
from interp.core.statistics.resampling import Interval
from interp.core.tables import Table

SURE = 0.95
"""A part that is in so large a share of draws is a sure one."""


@door
def inclusion(found: ClassCircuits, *, share: float = 0.1, n: int = 200, seed: int = 0) -> Table:
    """How often each part is in the circuit when a domain's pictures are drawn again.

    value = share of the draws in which the part is in the circuit; null = the kept share of its
    group, which a part has by chance.

    Args:
        found: The scores of a domain's classes.
        share: The share of each group that a circuit keeps: the parts with the largest mean over
            classes of |mean score|.
        n: Draws of each class's pictures, with replacement; the classes stay.
        seed: Seed of the draws.

    Returns:
        A row for each part.

    Raises:
        SpecificationError: For a share outside (0, 1] or fewer than one draw.

    >>> import pandas as pd
    >>> import torch
    >>> from PIL import Image
    >>> from interp.circuits import Chain, Classifier, Edges, Units, class_circuits
    >>> from interp.core.images import ImageTable
    >>> names = ("red", "lime", "blue", "white")
    >>> frame = pd.DataFrame({"path": range(8), "label": names * 2, "domain": "real",
    ...                       "split": "test", "caption": ""})
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))
    >>> head = Classifier(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]), names)
    >>> def preprocess(image):
    ...     return torch.tensor([image.getpixel((0, 0))]) / 255
    >>> cut = Edges(Chain([torch.nn.Identity()]))
    >>> found = class_circuits(cut, images, domain="real", classifier=head, preprocess=preprocess)
    >>> inclusion(found, share=1.0, n=9).frame[["edge", "value"]].to_numpy().tolist()
    [['input->m0', 1.0], ['input->logits', 1.0], ['m0->logits', 1.0]]
    """
    _check_draws(n, share)
    kept, drawn = _drawn_again(found, share, n, seed)
    sizes = pd.Series(kept).groupby(found.cut.groups).transform("mean")
    names = "edge" if found.cut.level == "edge" else "node"
    frame = pd.DataFrame(
        {
            names: found.cut.names,
            "measure": "inclusion probability",
            "value": drawn.mean(axis=0),
            "null": sizes,
            "kept": kept,
            "level": found.cut.level,
            "domain": found.domain,
            "n_pictures": len(found.scores.labels),
            "seed": seed,
        }
    )
    return Table("inclusion", frame, {"share": share, "draws": n})


@door
def circuit_stability(
    found: ClassCircuits, *, share: float = 0.1, n: int = 200, seed: int = 0
) -> Table:
    """How much of a domain's circuit is found again when its pictures are drawn again.

    value = mean over draws of the share of the circuit's parts that the circuit of the draw has,
    which is the mean of their `inclusion`; null = the share by chance; ceiling = 1; index = (value
    - null) / (1 - null).

    Args:
        found: The scores of a domain's classes.
        share: The share of each group that a circuit keeps.
        n: Draws of each class's pictures, with replacement; the classes stay.
        seed: Seed of the draws.

    Returns:
        A row for all parts and, for a cut by units, one for each site. `low` and `high` hold 95 %
        of the draws. The circuit has `n_edges` parts, of which `n_sure` are in 95 % of the draws or
        more.

    Raises:
        SpecificationError: For a share outside (0, 1] or fewer than one draw.

    >>> import pandas as pd
    >>> import torch
    >>> from PIL import Image
    >>> from interp.circuits import Chain, Classifier, Edges, Units, class_circuits
    >>> from interp.core.images import ImageTable
    >>> names = ("red", "lime", "blue", "white")
    >>> frame = pd.DataFrame({"path": range(8), "label": names * 2, "domain": "real",
    ...                       "split": "test", "caption": ""})
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))
    >>> head = Classifier(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]), names)
    >>> tower = Chain([torch.nn.Identity()], axes=("batch", "pos", "channel"))
    >>> cut = Units.of(tower, "hook_embed", torch.ones(1, 1, 3))
    >>> def preprocess(image):
    ...     return torch.tensor([image.getpixel((0, 0))]) / 255
    >>> found = class_circuits(cut, images, domain="real", classifier=head, preprocess=preprocess)
    >>> circuit_stability(found, share=0.5, n=9).frame[["site", "n_edges"]].to_numpy().tolist()
    [['', 2], ['hook_embed', 2]]
    """
    _check_draws(n, share)
    kept, drawn = _drawn_again(found, share, n, seed)
    places = {"": np.ones(len(kept), bool)}
    if isinstance(found.cut, Units):
        of_site = np.repeat(list(found.cut.widths), list(found.cut.widths.values()))
        places |= {site: of_site == site for site in found.cut.widths}
    about = Evidence(
        estimand="this model, other pictures of these classes",
        null_kind="parts drawn by chance",
        ceiling_kind="the same parts every time",
        unit="draw of pictures",
        seed=seed,
        n_units=n,
        n_pictures=len(found.scores.labels),
    )
    rows = []
    for site, here in places.items():
        again = drawn[:, here & kept]
        again_of = again.mean(axis=1) if again.size else np.full(n, np.nan)
        value, null = float(again_of.mean()), float(kept[here].mean())
        low, high = np.quantile(again_of, [0.025, 0.975])
        row = about.row(
            Interval(value, float(again_of.std()), float(low), float(high)),
            null=null,
            ceiling=1.0,
            index=(value - null) / (1 - null) if null < 1 else np.nan,
            reason="" if again.size else "no part of this site matters to the circuit",
        )
        sure = int((again.mean(axis=0) >= SURE).sum())
        rows.append({"site": site, **row, "n_edges": int((here & kept).sum()), "n_sure": sure})
    frame = pd.DataFrame(rows).assign(
        measure="parts found again", level=found.cut.level, domain=found.domain
    )
    facts = {"share": share, "draws": n, "sure": SURE}
    return Table.with_evidence("circuit_stability", frame, facts)


@door
def consistent_parts(
    found: ClassCircuits, *, share: float = 0.1, bar: float = SURE, n: int = 200, seed: int = 0
) -> np.ndarray:
    """Choose the parts of each class that are in its circuit however its pictures are drawn.

    A part is chosen where its inclusion probability, the share of draws of the class's pictures in
    which it is among the best of its group, is the bar or more.

    Args:
        found: The scores of a domain's classes.
        share: The share of each group that a circuit of a draw keeps: the largest |mean score|.
        bar: The inclusion probability that a part must have.
        n: Draws of each class's pictures in each half, with replacement.
        seed: Seed of the draws.

    Returns:
        Whether each part is chosen, `class half part`, as `ClassCircuits.masks` returns it: fewer
        parts than its share, the fewer the less steady they are.

    Raises:
        SpecificationError: For a share or bar outside (0, 1], or fewer than one draw.
        SampleError: For a class without pictures in a half.

    Notes:
        What has one score for all pictures of a class, such as a learned mask, is always
        consistent. Bootstrapped edges: Nikankin et al. 2025.

    >>> import pandas as pd
    >>> import torch
    >>> from PIL import Image
    >>> from interp.circuits import Chain, Classifier, Edges, class_circuits
    >>> from interp.core.images import ImageTable
    >>> names = ("red", "lime", "blue", "white")
    >>> frame = pd.DataFrame({"path": range(8), "label": names * 2, "domain": "real",
    ...                       "split": "test", "caption": ""})
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))
    >>> head = Classifier(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]), names)
    >>> def preprocess(image):
    ...     return torch.tensor([image.getpixel((0, 0))]) / 255
    >>> cut = Edges(Chain([torch.nn.Identity()]))
    >>> found = class_circuits(cut, images, domain="real", classifier=head, preprocess=preprocess)
    >>> consistent_parts(found, share=1.0, n=9).shape  # class, half, edge
    (4, 2, 3)
    """
    _check_draws(n, share, bar)
    scores, generator = found.scores, rng("consistent parts", seed)
    labels, sides = np.asarray(scores.labels, dtype=object), np.asarray(scores.sides)
    chosen = np.zeros(scores.means(found.classes).shape, bool)
    for place, side in np.ndindex(chosen.shape[:2]):
        own = scores.values[(labels == found.classes[place]) & (sides == side)]
        times = generator.multinomial(len(own), np.full(len(own), 1 / len(own)), size=n)
        drawn = _best(found, times @ own / len(own), share)
        chosen[place, side] = drawn.mean(axis=0) >= bar
    return chosen


def _drawn_again(
    found: ClassCircuits, share: float, n: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The circuit over all classes, `[part]`, and that of every draw of pictures, `[draw part]`."""
    scores, generator = found.scores, rng("inclusion", seed)
    labels = np.asarray(scores.labels, dtype=object)
    rows = [np.flatnonzero(labels == name) for name in found.classes]
    drawn = np.zeros((n, scores.values.shape[1]), bool)
    for number in range(n):
        means = [scores.values[generator.choice(own, len(own))].mean(axis=0) for own in rows]
        size = np.mean(np.abs(means), axis=0)[None]
        drawn[number] = _best(found, size, share)[0]
    size = np.abs(scores.means(found.classes)).mean(axis=(0, 1))[None]
    return _best(found, size, share)[0], drawn


def _best(found: ClassCircuits, means: np.ndarray, share: float) -> np.ndarray:
    return best_of_groups(means, found.cut.groups, share, negligible=found.scores.negligible)


def _check_draws(n: int, *shares: float) -> None:
    check_counts("draw circuits again", draws=n)
    check_shares("draw circuits again", shares, whole=True)

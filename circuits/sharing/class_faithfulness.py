"""What a class's circuit does alone on drawings by others, held against circuits of a wrong target.

A mask that is learned can learn a bias: parts that move the metric to a class whatever is shown. So
circuits are run that were found for another class, and for the class on pictures without it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from interp.circuits.discovery.curves import share_rows
from interp.circuits.patching.localise import ROUNDING, class_mean
from interp.circuits.sharing.circuit_runs import shuffled_in_groups
from interp.circuits.sharing.class_circuits import ClassCircuits, check_classes
from interp.core.arguments import check_counts, check_shares
from interp.core.artists import n_drawings
from interp.core.faces.doors import door
from interp.core.seeds import rng
from interp.core.tables import Table

OTHERS = "circuits of other classes, as large"
ABSENT = "circuits of the class found on pictures that do not show it, as large"

NEARLY = 0.02
"""Of the work, by so much a circuit may do more than a null that leaves no room for an index."""

BIAS = "a bias, or what all classes have in common"
"""What a circuit is that does no more than one of a wrong target."""


@door
def class_faithfulness(
    found: ClassCircuits,
    *,
    shares: Sequence[float] = (0.1, 0.2, 0.5),
    signed: bool = False,
    n_null: int = 3,
    seed: int = 0,
) -> Table:
    r"""Measure how much of a class's work its circuit does alone, on drawings by other artists.

    With $m(C)$ the mean of the metric over classes, M the whole model and $\emptyset$ no part (the
    corrupt run):

    value = $(m(C_c) - m(\emptyset)) / (m(M) - m(\emptyset))$ on pictures of c by the artists that
    $C_c$ was not found on; null = the same for circuits of a wrong target; ceiling = 1, the whole
    model; index = (value - null) / (ceiling - null).

    Args:
        found: The circuits of a domain's classes.
        shares: Sizes of circuits: the share of each group's parts.
        signed: Whether only parts that raise the metric are kept (`ClassCircuits.masks`).
        n_null: Other classes behind each null.
        seed: Seed of the other classes and of random parts.

    Returns:
        A row for every size. `null_kind` says which of two wrong targets did more: circuits of
        other classes, or the class's own circuit found on pictures that do not show it. `random`
        is what random parts do, as many in every group.

    Raises:
        SpecificationError: For shares outside (0, 1), or `n_null` below 1.
        SampleError: For circuits of fewer than four classes.

    Notes:
        Everything outside a circuit runs as in a picture of another class.

        Where a circuit does no more than one of a wrong target (the index's interval reaches 0), it
        has a bias or what all classes have in common: then there is no index, and `reason` says so.

        Intervals leave out a class wherever it stands; p is two-sided for value = null, by sign
        flips of whole classes, adjusted over sizes (max-T).

    >>> import torch
    >>> from PIL import Image
    >>> from interp.circuits import Chain, Classifier, Units, class_circuits
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
    >>> class_faithfulness(found, shares=[0.5]).frame["value"].round(2).tolist()
    [0.6]
    """
    _check(found, shares, n_null)
    sides = [_half(found, side, shares, signed, n_null, seed) for side in (0, 1)]
    works = np.concatenate([each for each, _ in sides], axis=-1)
    roles = np.concatenate([each for _, each in sides])
    frame = _of_a_wrong_target(_frame(works, roles, seed)).assign(
        share=list(shares),
        level=found.cut.level,
        domain=found.domain,
        metric=found.halves[0].metric.name,
        n_drawings=sum(n_drawings(half.pairs.clean.frame) for half in found.halves),
    )
    return Table.with_evidence("class_faithfulness", frame, {"signed": signed, "n_null": n_null})


def _frame(works: np.ndarray, roles: np.ndarray, seed: int) -> pd.DataFrame:
    """A row for every size, from what `_half` gives of both halves together."""
    labels = roles[:, 0]
    own, other, absent, _, gaps = works
    means = class_mean(np.moveaxis(works, -1, 0), labels)
    by_absent = (means[2] - means[1]) * means[4] > 0  # a distance falls, and so does its gap
    null = np.where(by_absent[:, None], absent, other)
    triples = np.stack([own, null, gaps], axis=-1).swapaxes(0, 1)
    frame = share_rows(
        triples,
        labels,
        roles,
        goals=np.ones(len(own)),
        seed=seed,
        rounding=ROUNDING * float(np.abs(gaps).max()),
    )
    frame.insert(0, "measure", "circuit of a class alone")
    return frame.assign(
        random=np.where(frame["value"].isna(), np.nan, means[3] / means[4]),
        null_kind=np.where(by_absent, ABSENT, OTHERS),
        ceiling_kind="the whole model",
        estimand="share of the work of a class that its circuit does alone, on other drawings",
        unit="class",
        n_units=len(np.unique(labels)),
        n_pictures=len(labels),
        n_runs=1,
        seed=seed,
    )


def _half(
    found: ClassCircuits, side: int, shares: Sequence[float], signed: bool, n_null: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Work of circuits of the other half: own, other, absent and random ones, and the whole model.

    It is `[kind share example]`; beside it stand both classes of each example, `[example 2]`.
    """
    classes = found.classes
    pairs = found.halves[side].pairs
    rows = np.flatnonzero(pairs.clean.label.isin(classes).to_numpy())
    read = found.halves[side][rows]
    roles = np.stack([read.pairs.clean.label, read.pairs.corrupt.label], axis=1)
    place = np.array([classes.index(name) for name in roles[:, 0]])
    steps = 1 + rng("other classes", seed).permutation(len(classes) - 1)[:n_null]
    others = (place[:, None] + steps) % len(classes)
    generator, masks = rng("random parts", seed), []
    for share in shares:
        own = found.masks(share, signed=signed)[:, 1 - side]
        chance = shuffled_in_groups(own, found.cut.groups, generator)
        absent = found.read_out(share, signed=signed)
        absent = np.zeros_like(own) if absent is None else absent[:, 1 - side]
        masks += [own[place], *own[others.T], absent[place], chance[place]]
    values, ends = found.cut.run(read, np.stack(masks))
    work = (values - ends[1]).reshape(len(shares), 3 + len(steps), -1)
    gap = np.broadcast_to(ends[0] - ends[1], work[:, 0].shape)
    kinds = [work[:, 0], work[:, 1:-2].mean(axis=1), work[:, -2], work[:, -1], gap]
    return np.stack(kinds), roles


def _of_a_wrong_target(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that do no more than their null lose their index, and say why."""
    no_room = frame["index"].isna() & (frame["null"] >= frame["value"] - NEARLY)
    biased = (frame["index"].notna() & ~(frame["index_low"] > 0)) | no_room
    told = [
        f"{row.null_kind}: they do {row.null:.0%} of the work, and these {row.value:.0%}: {BIAS}"
        for row in frame.itertuples()
    ]
    frame.loc[biased, ["index", "index_low", "index_high"]] = np.nan
    return frame.assign(reason=np.where(biased, told, frame["reason"]))


def _check(found: ClassCircuits, shares: Sequence[float], n_null: int) -> None:
    asked = f"run circuits of {found.domain} alone"
    check_counts(asked, circuits_of_others=n_null)
    check_shares(asked, shares)
    check_classes(asked, len(found.classes))

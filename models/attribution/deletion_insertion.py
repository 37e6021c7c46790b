"""Are the patches that a heatmap marks those that matter? Deletion and insertion, beside chance."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.core.errors import ShapeError, SpecificationError
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.progress import track
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Counts, Evidence, counts_of
from interp.core.statistics.resampling import group_means, mean_interval, sign_flip_p
from interp.core.tables import Table
from interp.models.attribution.explain import Heatmaps
from interp.models.attribution.placed_logits import covered

ASKED = "try heatmaps by deletion and insertion"
MEASURES = ("insertion", "deletion", "insertion - deletion")


@door
def deletion_insertion(
    maps: Heatmaps | Mapping[str, Heatmaps],
    *,
    sentence: Sequence[int] | None = None,
    steps: int = 12,
    n_random: int = 8,
    seed: int = 0,
    batch_size: int = 128,
) -> Table:
    """Cover a picture's patches in the order of its map, and look how the logit falls.

    deletion = mean logit while patches are covered, the most marked first; insertion = the same
    while all but those are covered; a good map makes the first low and the second high (Petsiuk,
    Das & Saenko 2018, "RISE"). Their difference is the area between the two curves.

    Args:
        maps: Maps, or several by name, of the same pictures and sentences.
        sentence: The place of the sentence that is tried for each picture; None takes the one with
            the highest logit.
        steps: How many steps a curve has.
        n_random: Random orders a picture, the null.
        seed: Of random orders and of intervals.
        batch_size: Pictures run at a time.

    Returns:
        A row for each of the maps and measures, in logits, beside random orders, and one for each
        two of them: their difference. Units are classes where a table of pictures names two or
        more, else pictures.

    Raises:
        SpecificationError: Without maps, for maps of different questions, or for no steps.
        ShapeError: If there is not a sentence for each picture.

    Notes:
        A covered patch has the picture's mean colour, which no training picture has: what a model
        makes of it is a limit of this trial, the same for all maps.

    >>> import open_clip
    >>> from interp.models.attribution.explain import explain
    >>> from interp.models.clip import Clip
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64).eval()
    >>> maps = explain(Clip(model, "ViT-S-32-alt"), torch.rand(3, 3, 64, 64), ["a cat"])
    >>> deletion_insertion(maps, n_random=2).frame["measure"].tolist()
    ['insertion', 'deletion', 'insertion - deletion']
    """
    named = {maps.method: maps} if isinstance(maps, Heatmaps) else dict(maps)
    chosen = _chosen(named, sentence)
    if steps < 1 or n_random < 1:
        raise SpecificationError(
            ASKED, f"steps={steps}, n_random={n_random}", "at least 1 of each", "ask for more"
        )
    question = next(iter(named.values())).question
    units, unit = _units(question.source, len(question))
    about = Evidence(
        estimand="these pictures, this model",
        null_kind="random orders",
        seed=seed,
        unit=unit,
        **_counts(question.source, len(set(units))),
    )
    scores, rows = {}, []
    for name, own in named.items():
        found, chance = _scores(own, chosen, steps, n_random, seed, batch_size, name)
        scores[name] = found
        rows += [
            {"method": name, "measure": measure} | _row(about, found[:, at], chance[:, at], units)
            for at, measure in enumerate(MEASURES)
        ]
    for one, other in combinations(named, 2):
        found = scores[one][:, 2] - scores[other][:, 2]
        rows.append(
            {"method": f"{one} less {other}", "measure": MEASURES[2]}
            | _row(about, found, np.zeros_like(found), units)
            | {"null_kind": "no difference"}
        )
    facts = {"steps": steps, "n_random": n_random}
    return Table.with_evidence("deletion and insertion", pd.DataFrame(rows), facts)


def _chosen(
    named: Mapping[str, Heatmaps], sentence: Sequence[int] | None
) -> Int[Tensor, "picture"]:
    """The sentence that is tried for each picture."""
    if not named:
        raise SpecificationError(ASKED, "no maps", "one or more", "make some with explain")
    first, *others = named.values()
    for other in others:
        alike = other.logits.shape == first.logits.shape
        if not alike or not torch.allclose(
            other.logits.to(first.logits), first.logits, rtol=1e-3, atol=1e-3
        ):
            given = "maps of different pictures or sentences"
            do = "explain the same pictures and sentences by each method"
            raise SpecificationError(ASKED, given, "maps of the same question", do)
    if sentence is None:
        return first.logits.argmax(dim=1)
    chosen = torch.as_tensor(np.asarray(sentence), device=first.logits.device)
    n, names = first.logits.shape
    whole = chosen.shape == (n,) and not chosen.is_floating_point()
    if not whole or not bool(((chosen >= 0) & (chosen < names)).all()):
        given = f"sentences {list(np.asarray(sentence).ravel()[:4])} of {names} for {n} pictures"
        right = f"{n} places from 0, below {names}"
        raise ShapeError(ASKED, given, right, "give one for each picture")
    return chosen


def _units(source: ImageTable | Tensor, n: int) -> tuple[np.ndarray, str]:
    labels = source.label.to_numpy() if isinstance(source, ImageTable) else np.zeros(n)
    return (labels, "class") if len(set(labels)) > 1 else (np.arange(n), "picture")


def _counts(source: ImageTable | Tensor, n_units: int) -> Counts:
    if isinstance(source, ImageTable):
        return counts_of(source.frame, n_units)
    return {"n_units": n_units, "n_pictures": len(source)}


def _row(
    about: Evidence, found: np.ndarray, chance: np.ndarray, units: np.ndarray
) -> dict[str, object]:
    interval = mean_interval(found, units, seed=about.seed)
    gained = group_means(found - chance, units)
    p = sign_flip_p(gained, seed=about.seed) if len(gained) > 1 else np.nan
    null = float(group_means(chance, units).mean())
    reason = "" if len(gained) > 1 else f"one {about.unit}: no interval"
    return about.row(interval, null=null, p=p, reason=reason)


@torch.no_grad()
def _scores(
    maps: Heatmaps,
    chosen: Int[Tensor, "picture"],
    steps: int,
    n_random: int,
    seed: int,
    batch_size: int,
    name: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Each measure of every picture in the map's order, and its mean over random orders."""
    n, _, rows, columns = maps.patches.shape
    at = torch.arange(n, device=chosen.device)
    marked = maps.patches[at, chosen].reshape(n, -1).float()
    draws = rng("orders of patches", seed).random((n_random, n, rows * columns))
    orders = [marked, *torch.as_tensor(draws, device=marked.device).float()]
    found = np.empty((len(orders), n, len(MEASURES)))
    start, each = 0, max(1, batch_size // (2 * (steps + 1)))
    for batch in track(maps.question.batches(each), f"try {name}", total=-(-n // each)):
        here = slice(start, start + len(batch))
        for number, order in enumerate(orders):
            curves = _curves(maps, batch, order[here], chosen[here], steps, (rows, columns))
            found[number, here] = curves.cpu().numpy()
        start += len(batch)
    return found[0], found[1:].mean(axis=0)


def _curves(
    maps: Heatmaps,
    x: Tensor,
    order: Float[Tensor, "batch place"],
    chosen: Int[Tensor, "batch"],
    steps: int,
    grid: tuple[int, int],
) -> Float[Tensor, "batch measure"]:
    """The areas under both curves, and between them, all covered pictures in one run."""
    n = order.shape[1]
    rank = order.argsort(dim=1, descending=True).argsort(dim=1)
    taken = torch.linspace(0, n, min(steps, n) + 1, device=x.device).round()
    first = rank[:, None] < taken[:, None]  # batch step place
    where = torch.stack([~first, first], dim=1).reshape(-1, *grid)
    each = where.shape[0] // len(x)
    repeated = x.repeat_interleave(each, dim=0)
    logits = maps.question.logits(covered(repeated, where))
    own = logits.gather(1, chosen.repeat_interleave(each)[:, None])
    curves = own.reshape(len(x), 2, -1)
    width = taken.diff() / n
    areas = ((curves[..., 1:] + curves[..., :-1]) / 2 * width.to(curves)).sum(dim=-1)
    return torch.stack([areas[:, 0], areas[:, 1], areas[:, 0] - areas[:, 1]], dim=1)

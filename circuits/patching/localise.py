"""Effects with their evidence from values per example: null, ceiling, index, interval, p.

The unit of replication is the class. Means are means of class means, intervals and p resample
whole classes, and p is adjusted over all cells of a sweep.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np
import pandas as pd

from interp.circuits.patching.sweep import sweep
from interp.circuits.tasks.metrics import MetricKind
from interp.circuits.tasks.pairs import ClassTask, ClassTaskKeywords, other_class, read, read_pairs
from interp.core.arguments import filled
from interp.core.errors import DataError, SampleError, SpecificationError
from interp.core.faces.doors import door
from interp.core.images import Pairs
from interp.core.seeds import rng
from interp.core.sites import AXES
from interp.core.statistics.index_of_sharing import NOT_SHARED, UNKNOWN, Index, sharing_index
from interp.core.statistics.resampling import Interval, jackknife, mean_interval
from interp.core.tables import Table
from interp.core.tower import Tower

ROUNDING = 1e-6
"""Effects below this share of the largest metric are float32's rounding: no sign, no ratio."""

CONSTANT = "none: a constant baseline has no run of its own"

NULL_KIND = "no patch: the effect of patching nothing, 0 by definition"


@door
def localise(
    tower: Tower,
    pairs: Pairs,
    *,
    sites: str | Sequence[str] = "blocks.*.hook_resid_pre",
    axes: Sequence[str] = ("layer", "pos"),
    metric: MetricKind | None = None,
    direction: str = "denoise",
    **task: Unpack[ClassTaskKeywords],
) -> Table:
    """Sweep between the partners of an image table's pairs, with another class as null donor.

    Args:
        tower: The tower to run.
        pairs: Pictures and their partners, from `ImageTable.pairs`.
        sites: Names of sites or patterns.
        axes: "layer", and axes of the sites along which cells are cut: "pos", "head", "channel".
        metric: A name in `METRICS`, or a function of outputs and a `Target`. None takes the
            `logit_difference` of the clean class against
            the corrupt one, or the `margin` of the class where some partners share it.
        direction: "denoise"; with "noise" clean and corrupt change places.
        **task: The keywords that follow.
        classifier: The classes as directions; its embeddings say device and dtype.
        preprocess: From a picture to what the tower takes.
        batch_size: Examples in a forward.
        memory: Bytes of activations held at a time.
        seed: Seed of the draw of null donors.

    Returns:
        The table of `sweep`, for `effects` to summarise.

    Raises:
        DataError: For classes that the classifier does not know.
        SpecificationError: For an unknown keyword, or one that is missing; `sweep` has the others.

    Notes:
        The metric is in units of the model's own contrast (`Classifier.standardised`), so that
        checkpoints compare. Null donors are pictures of the clean domain and a third class; where
        there is none, the column `null` is missing and `effects` says so.

    >>> from PIL import Image
    >>> import torch
    >>> from interp.circuits import Chain, Classifier
    >>> from interp.core.images import ImageTable
    >>> frame = pd.DataFrame({"label": ["red", "lime", "blue"]}).assign(
    ...     domain="flat", path="", split="test", caption="")
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))
    >>> table = localise(
    ...     Chain([torch.nn.Identity()]), images.pairs(same="domain", differ="label"),
    ...     classifier=Classifier(torch.eye(3), ["red", "lime", "blue"]),
    ...     preprocess=lambda image: torch.tensor([image.getpixel((0, 0))]) / 255)
    >>> bool((table.frame["value"] == table.frame["clean_metric"]).all())
    True
    """
    how = filled(localise, ClassTask, task)
    read_task = read_pairs(
        tower,
        pairs,
        classifier=how.classifier,
        preprocess=how.preprocess,
        metric=metric,
        batch_size=how.batch_size,
    )
    rows = other_class(pairs, seed=how.seed)
    like = how.classifier.embeddings
    null = None if rows is None else read(pairs.images, rows, how.preprocess, like)
    table = sweep(
        tower,
        **read_task.words,
        sites=sites,
        axes=axes,
        direction=direction,
        null=null,
        null_kind="donor of a third class, in the clean picture's domain",
        batch_size=how.batch_size,
        memory=how.memory,
    )
    facts = {**table.facts, "seed": how.seed, "contrast": read_task.contrast}
    return Table(table.name, table.frame, facts)


@door
def effects(table: Table, *, seed: int = 0) -> Table:
    """Summarise a sweep or an ablation as one row per cell with its evidence.

    value = mean over classes of (patched - base), where base is the run that was patched (corrupt
    when denoising, clean when noising); ceiling = the same mean of the whole gap, donor - base;
    null = the mean effect of the null donors, or 0 where there are none; index = (value - null) /
    (ceiling - null).

    Args:
        table: A table made by `sweep`, `localise` or `ablate`.
        seed: Seed of bootstrap and sign flips.

    Returns:
        A row per cell, in the metric's unit. An index of 1 means that the patch does all that
        replacing the whole input does.

    Raises:
        SampleError: For a table without rows.
        SpecificationError: For a table of another kind.
        DataError: For cells that were measured on different examples.

    Notes:
        There is no index where the gap, or ceiling - null, is below 3 standard errors; `reason`
        says so.

        `low` and `high` are a bootstrap over whole classes. `index_low` and `index_high` are a
        jackknife of the index that leaves a class out wherever it stands in a pair. `p` is
        two-sided for value = null: signs of whole classes are flipped jointly over all cells, and
        the largest |t| counts (Westfall and Young 1993). Without labels, the pair is the unit.

    >>> import torch
    >>> from interp.circuits import Chain, sweep
    >>> clean, corrupt = torch.ones(4, 1, 1), torch.zeros(4, 1, 1)
    >>> values = sweep(Chain([torch.nn.Identity()]), clean=clean, corrupt=corrupt,
    ...                metric=lambda output: output[:, 0], axes=("layer",))
    >>> effects(values).frame[["value", "ceiling", "index", "p"]].to_numpy().tolist()
    [[2.0, 2.0, 1.0, 0.125]]
    """
    frame = table.frame
    if not len(frame):
        raise SampleError("summarise a sweep", "no rows", "a table made by sweep", "sweep first")
    if "example" not in frame:
        given = f"the table {table.name!r}, which has no row for each example"
        right = "a table made by sweep, localise or ablate"
        raise SpecificationError("summarise a sweep", given, right, "pass what those return")
    groups = ["measure", "pairing", "metric"]
    parts = [_group(part, seed) for _, part in frame.groupby(groups, sort=False)]
    facts = {**table.facts, "p": "sign flips of whole classes, max-T over the cells of a sweep"}
    return Table.with_evidence("effects", pd.concat(parts, ignore_index=True), facts)


def _group(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    axes = {axis for kinds in AXES.values() for axis in kinds}
    keys = ["measure", "pairing", "metric", "site", "layer", "depth"]
    keys += [name for name in frame.columns if name in axes]
    cells = frame.groupby(keys, sort=False, dropna=False)
    n = len(cells.get_group(next(iter(cells.groups))))
    order = np.lexsort([cells.ngroup().to_numpy(), frame["example"].to_numpy()])
    ordered = frame.iloc[order]
    examples = ordered["example"].to_numpy().reshape(n, -1) if len(frame) % n == 0 else None
    if examples is None or (examples != examples[:, :1]).any():
        right = "the same pairs in every cell"
        do = "summarise each sweep on its own"
        raise DataError("summarise a sweep", "cells measured on different examples", right, do)
    first = ordered.iloc[:: len(ordered) // n]
    measure = str(frame["measure"].iloc[0])
    noise = measure.endswith(", noise") or measure.startswith("ablation")
    base, donor = ("clean", "corrupt") if noise else ("corrupt", "clean")
    start = first[f"{base}_metric"].to_numpy()[:, None]
    gap = first[f"{donor}_metric"].to_numpy()[:, None] - start
    effect = ordered["value"].to_numpy().reshape(n, -1) - start
    given = "null" in frame and bool(frame["null"].notna().all())
    null = ordered["null"].to_numpy().reshape(n, -1) - start if given else np.zeros_like(effect)
    labelled = "clean_label" in frame and first["clean_label"].nunique() > 1
    drawn = "drawing" in frame and bool(first["drawing"].notna().all())
    unit = "class" if labelled else "drawing" if drawn else "pair"
    labels = first["clean_label" if labelled else "drawing" if drawn else "example"].to_numpy()
    known = [name for name in ("clean_label", "corrupt_label") if name in first]
    roles = first[known].to_numpy() if labelled else labels[:, None]
    largest = np.nanmax(frame[["value", "clean_metric", "corrupt_metric"]].abs().to_numpy())
    triples = np.stack([effect, null, np.broadcast_to(gap, effect.shape)], axis=-1)
    rows = _summarise(triples, labels, roles, seed=seed, rounding=ROUNDING * largest)
    head = ordered.iloc[: len(ordered) // n][keys].reset_index(drop=True)
    drawings = first["drawing"] if "drawing" in frame else first["example"]
    return head.assign(
        **rows,
        null_kind=frame["null_kind"].iloc[0] if given else NULL_KIND,
        ceiling_kind=CONSTANT
        if np.isnan(gap).all()
        else f"whole gap: {donor} minus {base}, the effect of replacing the input",
        unit=unit,
        n_units=len(np.unique(labels)),
        n_pictures=n,
        n_drawings=drawings.nunique(),
        n_runs=1,
        estimand=f"mean over {unit}{'es' if labelled else 's'} of the change that patching makes "
        f"in the {base} run",
        seed=seed,
    )


def _summarise(
    triples: np.ndarray, labels: np.ndarray, roles: np.ndarray, *, seed: int, rounding: float
) -> pd.DataFrame:
    """A row per cell, from effect, null and gap `[example cell 3]`."""
    left_out = leave_out(triples, labels, roles)
    rows = []
    for cell, means in enumerate(class_mean(triples, labels)):
        if np.isnan(means[2]):
            index = Index(np.nan, np.nan, np.nan, UNKNOWN, CONSTANT)
        else:
            index = no_gap(means[2], left_out[:, cell, 2], rounding=rounding) or index_of(
                means, left_out[:, cell], rounding=rounding
            )
        interval = mean_interval(triples[:, cell, 0], labels, seed=seed)
        rows.append(numbers_of(means[0], means[1], means[2], index, interval))
    shift = rounded(triples[..., 0] - triples[..., 1], rounding)
    return pd.DataFrame(rows).assign(p=max_t_p(by_class(shift, labels), seed=seed))


def numbers_of(
    value: float, null: float, ceiling: float, index: Index, spread: Interval
) -> dict[str, object]:
    """The columns of a row that are numbers, and why one is missing."""
    return {
        "value": value,
        "low": spread.low,
        "high": spread.high,
        "null": null,
        "ceiling": ceiling,
        "index": index.value,
        "index_low": index.low,
        "index_high": index.high,
        "reason": index.reason,
    }


def index_of(means: np.ndarray, left_out: np.ndarray, *, rounding: float) -> Index:
    """The sharing index of (value, null, ceiling), and why there is none where there is none.

    A metric that falls towards the donor (a distance) has an index too: all three are mirrored.
    """
    sign = -1.0 if means[2] < means[1] else 1.0
    value, null, ceiling = sign * means
    rows = sign * left_out
    if len(rows) >= 4 and not np.isfinite(rows).all():
        reason = "without one of the units nothing is left to compare"
        return Index(np.nan, np.nan, np.nan, UNKNOWN, reason)
    if abs(ceiling - null) < rounding:  # a constant rounding error has no spread, so would pass
        reason = f"ceiling - null = {ceiling - null:.2g} is rounding"
        return Index(np.nan, np.nan, np.nan, UNKNOWN, reason)
    return sharing_index(value, null, ceiling, left_out=np.nan_to_num(rows))


def of_its_own(index: Index, null: float, ceiling: float) -> Index:
    """An index against other classes, without "not shared" where most is common to all classes.

    What all classes have in common is in null and ceiling alike: where it is more than half, only
    the rest was compared, and two domains may share all that matters.
    """
    if index.verdict != NOT_SHARED or null <= 0.5 * ceiling:
        return index
    reason = f"most of it serves other classes as well (null {null:.2g}, ceiling {ceiling:.2g})"
    return replace(index, verdict=UNKNOWN, reason=reason)


def no_gap(gap: float, left_out: np.ndarray, *, rounding: float) -> Index | None:
    """Why there is no index between runs that hardly differ, or None if they do.

    Null donors that do harm would leave room enough between null and ceiling even then.
    """
    error = jackknife(gap, left_out).error
    if not abs(gap) < max(3 * error if np.isfinite(error) else 0.0, rounding):
        return None
    reason = (
        f"the gap between the runs is {gap:.2g}, less than 3 of its standard errors "
        f"(3 x {error:.2g}): it is too uncertain to divide by"
    )
    return Index(np.nan, np.nan, np.nan, UNKNOWN, reason)


def rounded(values: np.ndarray, rounding: float) -> np.ndarray:
    """Values with those that are only rounding set to zero."""
    return np.where(np.abs(values) < rounding, 0.0, values)


def by_class(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Means of each class, `[class ...]`, from `[example ...]`; classes sorted."""
    return np.stack([values[labels == label].mean(axis=0) for label in np.unique(labels)])


def class_mean(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean of the classes' means."""
    return np.asarray(by_class(values, labels).mean(axis=0))


def leave_out(values: np.ndarray, labels: np.ndarray, roles: np.ndarray) -> np.ndarray:
    """`class_mean` with one class left out at a time, `[class ...]`.

    Examples in which the class plays any of the `roles` `[example role]` go: a pair of two classes
    is an observation of both, and a jackknife that left it in for one of them would be too sure.
    NaN where nothing remains.
    """
    means = []
    for label in np.unique(labels):
        keep = (roles != label).all(axis=1)
        rest = class_mean(values[keep], labels[keep]) if keep.any() else values[0] * np.nan
        means.append(rest)
    return np.stack(means)


def max_t_p(means: np.ndarray, *, seed: int = 0, n_resamples: int = 4999) -> np.ndarray:
    """Two-sided p of a zero mean for each cell, adjusted over cells, from `[class cell]`.

    The signs of whole classes are flipped, the same way in every cell; p is the share of flips
    whose largest |t| over cells reaches the cell's own. All 2^n flips where they are few enough,
    else a random sample. NaN where there is one class.

    >>> max_t_p(np.array([[1.0, 0.1], [1.2, -0.1], [0.9, 0.2], [1.1, -0.2]])).tolist()
    [0.125, 1.0]
    """
    n = len(means)
    if n < 2:
        return np.full(means.shape[1], np.nan)
    if 2**n <= n_resamples + 1:
        flips = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        drawn = rng("max-T", seed).choice([-1.0, 1.0], size=(n_resamples, n))
        flips = np.vstack([np.ones(n), drawn])  # what was observed is one of the flips
    squares = (means**2).sum(axis=0)
    largest = np.concatenate(
        [_share(part @ means, squares, n).max(axis=1) for part in np.array_split(flips, 16)]
    )
    observed = _share(means.sum(axis=0)[None], squares, n)[0]
    return (largest[:, None] >= observed - 1e-9).mean(axis=0)


def _share(sums: np.ndarray, squares: np.ndarray, n: int) -> np.ndarray:
    """(sum x)^2 / (n sum x^2), from 0 to 1: rises with |t| and, unlike it, is never infinite."""
    return np.divide(sums**2, n * squares, out=np.zeros_like(sums), where=squares > 0)

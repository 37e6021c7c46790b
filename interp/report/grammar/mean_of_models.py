"""Several trained models at one point of a figure: their mean, with an interval of them all."""

from collections.abc import Sequence

import pandas as pd

from interp.core.statistics.replication import mean_of_intervals
from interp.declared.figures import Scale
from interp.declared.writing import number, percent
from interp.report.loaded import Frame
from interp.verdicts.votes import agreement

N_MODELS, OF_MODELS, WITH_ENDS, COUNTED = "n_models", "of_models", "with_ends", "counted"
"""Columns that a mean of models has beyond the table's: how many they are, what they say, whether
it has an interval, and what is counted."""


def mean_of_models(
    rows: Frame,
    place: Sequence[str],
    scales: Sequence[Scale],
    *,
    counted: str = "models",
    share: bool = False,
) -> Frame:
    """One row for each place, the mean of the models that have a number there.

    The interval is that of `mean_of_intervals`. Where a model has several rows at one place, they
    are several points, and stay as they are; so do all where there is one model.

    Args:
        rows: A table's rows, as they are drawn.
        place: The columns that say where a row is drawn.
        scales: The columns that are drawn; what the models say is told of the first.
        counted: What a block has at one place: a model, unless told otherwise.
        share: Whether its numbers are told as percentages.
    """
    if rows["seed"].nunique(dropna=False) < 2:
        return rows
    keys = list(place)
    places = rows.groupby(keys, sort=False, dropna=False).ngroup()
    doubled = places[rows.duplicated([*keys, "seed"])]
    one_each = rows[~places.isin(doubled)]
    if not one_each[keys].duplicated().any():
        return rows
    means = [
        {name: end for scale in scales for name, end in _mean(own, scale).items()}
        | _spread(own, scales[0], counted, share)
        for _, own in one_each.groupby(keys, sort=False, dropna=False)
    ]
    first = one_each.drop_duplicates(keys)
    first = first.assign(**{name: [mean[name] for mean in means] for name in means[0]})
    if len(one_each) == len(rows):
        return first
    alone = {N_MODELS: 1, OF_MODELS: "", WITH_ENDS: False, COUNTED: counted}
    others = rows[places.isin(doubled)].assign(**alone)
    return pd.concat([first, others]).sort_index(kind="stable")


def _mean(models: Frame, scale: Scale) -> dict[str, float]:
    """The mean of one scale, and its ends where it has any."""
    known = models[models[scale.value].notna()]
    if not scale.low:
        return {scale.value: float(known[scale.value].mean())}
    if known.empty:
        return dict.fromkeys((scale.value, scale.low, scale.high), float("nan"))
    mean = mean_of_intervals(known[scale.value], known[scale.low], known[scale.high])
    return {scale.value: mean.value, scale.low: mean.low, scale.high: mean.high}


def _spread(models: Frame, scale: Scale, counted: str, share: bool) -> dict[str, object]:
    """How many models a mean is of, what it says of them, and the verdict that they agree on."""
    known = models[models[scale.value].notna()]
    verdicts = [verdict for verdict in (known if len(known) else models)["verdict"] if verdict]
    of = f" of {len(models)}" if len(known) < len(models) else ""
    words = f"{'mean of ' if len(known) > 1 else ''}{len(known)}{of} {counted}"
    if len(known) > 1:
        ends = scale.times * known[scale.value].min(), scale.times * known[scale.value].max()
        least, most = (percent(end) if share else number(end) for end in ends)
        words += f", {least} to {most}"
    return {
        "verdict": agreement(verdicts) if verdicts else "",
        N_MODELS: len(known),
        OF_MODELS: words if len(models) > 1 else "",
        WITH_ENDS: bool(scale.low),
        COUNTED: counted,
    }


def mean_sentence(drawn: Sequence[Frame]) -> str:
    """What a caption says of means; empty where none is drawn."""
    means = [rows for rows in drawn if N_MODELS in rows and len(rows)]
    largest = max(means, key=lambda rows: rows[N_MODELS].max(), default=None)
    if largest is None or (most := largest[N_MODELS].max()) < 2:
        return ""
    counted = largest[COUNTED].iloc[0]
    said = f"Of {most} {counted} the mean is drawn"
    if any(rows[WITH_ENDS].any() for rows in means):
        said += f"; its interval adds the spread of the {counted} to the intervals of each of them"
    return f"{said}."

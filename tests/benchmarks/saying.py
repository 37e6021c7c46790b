"""Tables of knowing and saying: what is known among held-out classes, and what is named.

`docs/tables/saying.csv` is read off the finished studies' archives, whose curves of seen against
held-out accuracy hold every bias; nothing is trained.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

import interp
from interp.core.statistics.replication import mean_t
from interp.models.evaluation.tradeoff import harmonic_mean

LARGE = Path(__file__).parent / "large"
STUDIES = ("weak", "strong", "vit", "cause", "gentle")
RUN = ["architecture", "setting", "test_domain", "seed"]
CELL = ["study", "architecture", "measure", "setting"]
NATURAL = "real"

KNOWING, AS_IS, NAMED = "knowing", "as it is", "domain named"
AREA, EXCESS = "AUSUC", "excess bias"
OTHERS, SEEN_AS_IS, SEEN_OTHERS = "bias of other blocks", "seen, as it is", "seen, bias of others"
ASKED = {
    KNOWING: ("held-out", "held-out", "neutral", "balanced top-1"),
    AS_IS: ("held-out", "all", "neutral", "balanced top-1"),
    NAMED: ("held-out", "all", "domain-specific", "balanced top-1"),
    SEEN_AS_IS: ("seen", "all", "neutral", "balanced top-1"),
    AREA: ("all", "all", "neutral", "AUSUC"),
}
"""Numbers that stand in `accuracy.csv`: class set, candidates, prompts, measure."""

CONTRASTS = (
    ("leave-out-domain", "natural-only"),
    ("cg-high", "cg-low"),
    ("leave-out-domain", "cg-high"),
    ("cg-high, aligned captions", "cg-high"),
    ("cg-high, aligned 1", "cg-high, shuffled 1"),
    ("cg-high, aligned 0.1", "cg-high, shuffled 0.1"),
)


def table() -> pd.DataFrame:
    """Every number by study, architecture and mixture, and differences of mixtures."""
    return summed(pd.concat([of_study(name).assign(study=name) for name in STUDIES]))


def of_study(name: str) -> pd.DataFrame:
    """A row for each trained model and number."""
    found = interp.open_runs(LARGE / f"{name}.zip", ["accuracy", "tradeoff"])
    accuracy, curves = (found[table].frame for table in ("accuracy", "tradeoff"))
    accuracy = _trained(accuracy[accuracy["domain"] == accuracy["test_domain"]])
    accuracy = accuracy[accuracy["classifier"] == "text"]
    rows = []
    for measure, where in ASKED.items():
        columns = ["class_set", "candidates", "prompts", "measure"]
        own = accuracy[(accuracy[columns] == list(where)).all(axis=1)]
        rows.append(own[[*RUN, "value"]].assign(measure=measure))
    return pd.concat([*rows, biased(_trained(curves))], ignore_index=True)


def _trained(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[(frame["control"] == "") & ~frame["setting"].str.contains("upper-bound")]


def biased(curves: pd.DataFrame) -> pd.DataFrame:
    """Excess bias, and accuracy with the mean bias of the same mixture's other blocks."""
    own = {run: frame for run, frame in curves.groupby(RUN)}
    best = {
        (run, domain): _best(own[run][own[run]["domain"] == domain])
        for run in own
        for domain in {NATURAL, run[2]}
    }
    rows = []
    for run, frame in own.items():
        here = frame[frame["domain"] == run[2]]
        rows.append((*run, best[run, run[2]] - best[run, NATURAL], EXCESS))
        others = [best[each, each[2]] for each in own if each[:3] == run[:3] and each[3] != run[3]]
        point = here[here["bias"] <= np.mean(others)].iloc[-1]
        rows.append((*run, point["accuracy_held_out"], OTHERS))
        rows.append((*run, point["accuracy_seen"], SEEN_OTHERS))
    return pd.DataFrame(rows, columns=[*RUN, "value", "measure"])


def _best(curve: pd.DataFrame) -> float:
    """The bias with the best harmonic mean, in the middle of where it holds."""
    mean = harmonic_mean(curve["accuracy_seen"].to_numpy(), curve["accuracy_held_out"].to_numpy())
    place, bias = int(mean.argmax()), curve["bias"].to_numpy()
    ends = bias[place : place + 2]
    return float(ends[np.isfinite(ends)].mean())


def summed(runs: pd.DataFrame) -> pd.DataFrame:
    """Means and differences of mixtures over blocks, by Student's t; both test domains first."""
    means = runs.groupby([*CELL, "seed"])["value"].mean()
    return pd.DataFrame([*_means(means), *_differences(means)])


def _means(means: pd.Series) -> Iterator[dict[str, object]]:
    for cell, values in means.groupby(CELL):
        yield _row(dict(zip(CELL, cell, strict=True)), values)


def _differences(means: pd.Series) -> Iterator[dict[str, object]]:
    for cell, values in means.groupby(CELL[:3]):
        wide = values.unstack("setting")
        for a, b in CONTRASTS:
            if {a, b} <= {*wide}:
                named = dict(zip(CELL, [*cell, a], strict=True)) | {"less": b}
                yield _row(named, (wide[a] - wide[b]).dropna())


def _row(named: dict[str, object], values: pd.Series) -> dict[str, object]:
    found = mean_t(values.to_numpy())
    interval = {"value": found.value, "low": found.low, "high": found.high}
    return {"less": "", **named, **interval, "n_blocks": len(values)}

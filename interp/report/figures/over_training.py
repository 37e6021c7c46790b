"""The section of training's course: how sharing and accuracy grow, and which comes first."""

from interp.declared.figures import (
    RAW,
    AxisSpec,
    FigureSpec,
    LineSpec,
    Row,
    Scale,
    SectionSpec,
    SeriesSpec,
)
from interp.declared.writing import between, number, percent
from interp.report.grammar.pieces import GREY
from interp.verdicts.levels.over_training import HELD_OUT, SEEN
from interp.verdicts.rungs import RUNGS

COLOURS = ("#56B4E9", "#0072B2", "#009E73", "#D55E00", "#CC79A7")
SYMBOLS = ("square", "diamond", "triangle-up", "x", "cross")
LINKED = {name: rung for name, rung in RUNGS.items() if rung.indexed}

LEAD = Scale("lead", "lead_low", "lead_high")


def _rungs(scale: Scale) -> tuple[SeriesSpec, ...]:
    """A line for each rung that has an index."""
    return tuple(
        SeriesSpec(f"{name} {rung.label}", scale, colour, {"rung": name}, symbol=symbol)
        for (name, rung), colour, symbol in zip(LINKED.items(), COLOURS, SYMBOLS, strict=True)
    )


def _at(row: Row, what: str) -> str:
    return f"{row['rung'] or row['measure']} after {percent(row['trained'])} of training: {what}"


def _reached(row: Row) -> str:
    ends = between(row["low"], row["high"])
    return _at(row, f"{number(row['value'])} of its final gain, {ends}")


def _ahead(row: Row) -> str:
    return _at(row, f"{number(row['lead'])} ahead, {between(row['lead_low'], row['lead_high'])}")


TRAINED = AxisSpec("share of training that is over", percent=True, limits=(0.0, 1.05))

PROGRESS = FigureSpec(
    "over-training",
    "How far sharing and accuracy have come",
    "curve",
    ("lead_and_lag",),
    method="Each number's gain over the untrained model is added up over all models that hold "
    "classes out, and divided by its gain after the last epoch: a rung's index in the middle "
    "layers between natural pictures and the test domain (counted from 0 where the untrained "
    "model has none), and accuracy above chance there.",
    null="None is drawn: 0 is the untrained model, 1 where each ends.",
    caption="{n}; bars are 95 % intervals that leave one {unit} out at a time. Upper bounds, which "
    "saw the held-out classes, do not count.",
    alt="Lines of {points} shares of training",
    needs=("value", "trained"),
    across="trained",
    series=(
        SeriesSpec(HELD_OUT, RAW, "#E69F00", {"measure": HELD_OUT}, "dash"),
        SeriesSpec(SEEN, RAW, GREY, {"measure": SEEN}, "dot"),
        *_rungs(RAW),
    ),
    hover=_reached,
    x=TRAINED,
    y=AxisSpec("share of the final gain", from_zero=True, within=(-0.5, 2.0)),
    lines=(LineSpec(1),),
)
AHEAD = FigureSpec(
    "lead-and-lag",
    "Is sharing ahead of accuracy on held-out classes?",
    "curve",
    ("lead_and_lag",),
    method="The share of its final gain that sharing has reached, less the share that accuracy on "
    "held-out classes has reached in the same models.",
    null="0: both have come equally far.",
    caption="{n}; bars are 95 % intervals that leave one {unit} out at a time. Above 0 what is "
    "shared comes first; that one comes first does not make it the cause.",
    alt="Lines of {points} shares of training",
    needs=("lead", "trained"),
    scale=LEAD,
    across="trained",
    series=_rungs(LEAD),
    hover=_ahead,
    x=TRAINED,
    y=AxisSpec("ahead of accuracy, share of the final gain", within=(-1.5, 1.5)),
    lines=(LineSpec(0),),
)
OVER_TRAINING = SectionSpec(
    "over-training",
    "Which comes first, sharing or accuracy?",
    "Kept epochs are measured as the last one is. Progress is a share of the final gain, so that "
    "an index and an accuracy can be held against each other.",
    (PROGRESS, AHEAD),
    note="What leads need not cause what follows: both may follow from training.",
    study_only=True,
    optional=("lead_and_lag",),
    part="verdict",
    also=("lead and lag", "epochs"),
)

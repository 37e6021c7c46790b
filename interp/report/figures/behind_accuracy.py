"""Accuracy by class, and what lies behind it: bias, training pictures, natural accuracy, time."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from interp.core.errors import sequence
from interp.declared import figures
from interp.declared.writing import CLASS_SETS, between, number, percent, plain, some
from interp.report.grammar import pieces
from interp.report.grammar.curves import curve_lines, curve_traces
from interp.report.grammar.figure_rows import FigureRows
from interp.report.grammar.pieces import Choice, Figure, Meta, Trace
from interp.report.loaded import Frame
from interp.report.naming import Looks, looks_of, ordered_settings, setting_label, setting_name
from interp.report.rows import final, in_test_domain, top_1

AREA = "AUSUC"
ALL_CLASSES = {"candidates": ["all", ""]}
TRADEOFF = figures.FigureSpec(
    "tradeoff",
    "Seen against held-out classes in {where} under any bias",
    "trade-off",
    ("tradeoff", "accuracy"),
    method="A growing bias is taken off the logits of seen classes; each step gives a point.",
    null="The area under the line of random logits.",
    caption="Along a line, a bias is subtracted from seen classes' logits; further blocks are "
    "faint; the marker is accuracy without bias, over all blocks. Area under the line of the first "
    "block (AUSUC): {areas}.{chance} {counted}; bars and intervals are 95 % over classes.",
    alt="Trade-off curves of {settings}",
    keep=("asked in the test domain",),
    needs=("accuracy_seen", "accuracy_held_out"),
    scale=figures.Scale("accuracy_held_out"),
    subjects="settings",
    across="accuracy_seen",
    along="bias",
    mode="lines",
    hover=lambda row: (
        f"seen {percent(row['accuracy_seen'])}, held-out {percent(row['accuracy_held_out'])}"
    ),
    x=figures.AxisSpec("balanced accuracy, seen classes", percent=True, from_zero=True),
    y=figures.AxisSpec("balanced accuracy, held-out classes", percent=True, from_zero=True),
)


def _varied(rows: Frame, options: Sequence[str]) -> int:
    """The first setting whose classes were trained on unequally: the one worth showing first."""
    first = rows[rows["exposed_in"] == rows["exposed_in"].iloc[0]]
    varied = first.groupby(first["setting"].map(setting_name))["exposure"].nunique() > 1
    return next((place for place, name in enumerate(options) if varied.get(name)), 0)


def _spearman(data: FigureRows, rows: Frame) -> str:
    """Every correlation with its interval, and where there is none, why."""
    rows = in_test_domain(data.tables.get("exposure", rows[:0]))
    rows = rows[(rows["class_set"] == "all") & (rows["candidates"].isin(["all", ""]))]
    said: list[str] = []
    without: dict[str, list[str]] = {}
    for row in rows.drop_duplicates(["test_domain", "setting", "exposed_in"]).itertuples():
        what = f"{setting_name(str(row.setting))}, {row.exposed_in}"
        what += f", {row.test_domain}" if len(data.page.tests) > 1 else ""
        if pd.isna(row.value):
            without.setdefault(str(row.reason) or "no number", []).append(what)
        else:
            said.append(f"{what}: {_with_ends(row)}")
    parts = [some(said, "exposure")] if said else []
    parts += [f"none for {len(names)}, where {why}" for why, names in without.items()]
    return "; ".join(parts) if parts else "not measured"


def _with_ends(row: Any) -> str:
    ends = between(row.low, row.high).removeprefix("95 % interval ")
    return f"{number(row.value)} ({ends})"


def _classes(data: FigureRows, rows: Frame) -> str:
    return pieces.span(rows.groupby(["test_domain", "setting"])["label"].nunique())


def _class(row: figures.Row) -> str:
    return f"{plain(row['label'])}: {percent(row['value'])}, {row['exposure']:,g} pictures"


EXPOSURE = figures.FigureSpec(
    "exposure",
    "Accuracy of each class against its training pictures",
    "curve",
    ("exposure_classes", "exposure"),
    method="Each class's accuracy is ranked against its number of training pictures.",
    null="No rank correlation, 0.",
    caption="First block; Spearman over all classes: {spearman}. n = {classes} classes per "
    "setting; single classes have no interval, those in brackets are 95 % over classes.",
    alt="Accuracy against training pictures for {settings}",
    facts={"spearman": _spearman, "classes": _classes},
    where=ALL_CLASSES,
    keep=("asked in the test domain", "first block"),
    needs=("value", "exposure"),
    scale=figures.Scale("value"),
    subjects="class_set",
    subject_names=CLASS_SETS,
    choices=(
        figures.TEST_DOMAIN,
        replace(figures.SETTING, first=_varied),
        figures.ChoiceSpec("Counted in", "exposed_in"),
    ),
    across="exposure",
    mode="markers",
    hover=_class,
    x=figures.AxisSpec("training pictures of the class", from_zero=True),
    y=figures.AxisSpec("accuracy", percent=True, limits=(-0.04, 1.04)),
    height=380,
)
ROBUSTNESS = figures.FigureSpec(
    "robustness",
    "Accuracy in {outside} against accuracy in {inside}",
    "robustness",
    ("robustness",),
    method="A line from accuracy in natural pictures to accuracy in the test domain is fitted to "
    "reference models, and each model's distance from it is taken.",
    null="The line itself, 0.",
    caption="Logit axes. Above the line: more robust than accuracy in natural pictures foretells. "
    "Line: least squares through {fitted} reference models (hollow), band: its 95 % interval. "
    "n = {models} models, one point each.",
    alt="{distances}",
    keep=("text head",),
    needs=("accuracy_in", "accuracy_out"),
    choices=(figures.ChoiceSpec("Test domain", "domain_b"),),
)
EPOCHS = figures.FigureSpec(
    "epochs",
    "Accuracy in {where} over training",
    "curve",
    ("epochs",),
    method="The accuracy of every kept epoch is taken.",
    null=figures.CHANCE,
    caption="Balanced top-1 among all classes; epoch 0 is the untrained model. Single models of "
    "several are faint. {n}; bars are 95 % intervals over classes.",
    alt="Lines of {settings} over epochs",
    where=ALL_CLASSES,
    keep=("top-1", "asked in the test domain"),
    needs=("value", "epoch"),
    subjects="settings",
    choices=(figures.TEST_DOMAIN, figures.CLASSES),
    across="epoch",
    x=figures.AxisSpec("epoch", from_zero=True),
    y=figures.SHARE,
    height=360,
)
BEHIND = figures.SectionSpec(
    "behind",
    "Behind the accuracy",
    "A bias against seen classes (Chao et al. 2016), training pictures per class, accuracy in "
    "natural pictures (Taori et al. 2020) and time in training: what else may move accuracy.",
    (TRADEOFF, EXPOSURE, ROBUSTNESS, EPOCHS),
    note="None of these was drawn at random: they say what goes with accuracy, not why.",
    study_only=True,
    optional=("tradeoff", "exposure", "exposure_classes", "robustness", "epochs"),
    part="accuracy",
    gist=figures.GistSpec(
        "accuracy",
        "On natural pictures of seen classes the models reach {range}.",
        {
            **{"measure": "balanced top-1", "domain": figures.NATURAL, "class_set": "seen"},
            **{"candidates": "all", "classifier": "text", "prompts": "neutral"},
        },
        form="percent",
    ),
)


def tradeoff_figure(data: FigureRows) -> Figure | None:
    """Accuracy of held-out against seen classes under every bias, a line per setting."""
    spec, rows = data.spec, data.rows
    if rows.empty:
        return None
    accuracy = in_test_domain(data.tables.get("accuracy", rows[:0]))
    areas = final(accuracy[accuracy["measure"] == AREA])
    traces: list[Trace] = []
    for view in data.views:
        lines = list(curve_lines(spec, view))
        traces += [trace for line in lines for trace in curve_traces(spec, *line, view.meta)]
        here = accuracy[accuracy["test_domain"] == view.test_domain]
        names = [each.where["key"] for each, *_ in lines]
        looks = looks_of(data.page.settings, names)
        traces += _unbiased(final(top_1(here)), looks, view.meta)
    null = areas["null"].dropna()
    return data.figure(
        traces,
        pieces.layout(440, xaxis=pieces.axis_of(spec.x), yaxis=pieces.axis_of(spec.y)),
        areas=_areas(areas, data.choices[0].options),
        chance=f" Random logits: {number(float(null.mean()), 3)}." if len(null) else "",
        counted=pieces.counts(areas if len(areas) else rows),
    )


def _unbiased(rows: Frame, looks: Looks, meta: Meta) -> list[Trace]:
    """The models as they are: accuracy of either kind of classes, with both intervals."""
    among_all = rows[rows["candidates"].isin(["all", ""])]
    traces = []
    for setting, look in looks.items():
        own = among_all[among_all["setting"] == setting]
        seen, held = (own[own["class_set"] == kind].head(1) for kind in ("seen", "held-out"))
        if seen.empty or held.empty:
            continue
        said = f"seen {percent(seen['value'].iloc[0])}, held-out {percent(held['value'].iloc[0])}"
        name, at = f"{setting_label(setting)}, no bias", (seen["value"], held["value"], [said])
        bars = {
            f"error_{end}": pieces.error_bars(part, color=look[0])
            for end, part in (("x", seen), ("y", held))
        }
        more = {"legendgroup": setting, "showlegend": False, **bars}
        traces.append(pieces.points(name, look, *at, meta, size=11, **more))
    return traces


def _areas(areas: Frame, options: Sequence[str]) -> str:
    said = []
    for test_domain in options:
        once = areas[areas["test_domain"] == test_domain].drop_duplicates("setting")
        where = f", {test_domain}" if len(options) > 1 else ""
        rows = {row.setting: row for row in once.itertuples()}
        said += [
            f"{setting_name(name)}{where} {_with_ends(rows[name])}"
            for name in ordered_settings(rows)
        ]
    return some(said, "accuracy") if said else "not recorded"


TICKS = (
    (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.99),
    tuple(step / 20 for step in range(1, 20)),
    tuple(step / 50 for step in range(1, 50)),
)
"""Where a logit axis carries a number: the first of these that puts three on it."""


def robustness_figure(data: FigureRows) -> Figure | None:
    """Accuracy in the test domain against accuracy in natural pictures, on logit axes."""
    rows = data.rows
    if rows.empty:
        return None
    traces: list[Trace] = []
    for view in data.views:
        traces += _fit(view.rows, view.meta)
        for setting, look in looks_of(data.page.settings, view.rows["setting"]).items():
            own = view.rows[view.rows["setting"] == setting]
            traces.append(_models(own, setting, look, view.meta))
    inside = sequence(list(dict.fromkeys(rows["domain_a"])))
    outer = [rows[name] for name in ("accuracy_out", "expected_low", "expected_high")]
    shape = pieces.layout(
        440,
        xaxis=_logit_axis(f"balanced accuracy, {inside}", [rows["accuracy_in"]]),
        yaxis=_logit_axis("balanced accuracy, test domain", outer),
    )
    distances = rows.groupby("setting")["value"].mean()
    return data.figure(
        traces,
        shape,
        inside=inside,
        outside=sequence(data.choices[0].options),
        fitted=pieces.span(rows["n_units"].dropna()),
        models=len(rows),
        distances="; ".join(
            f"{setting_name(str(setting))}: {number(100 * value, 1)} points above the line"
            for setting, value in distances.items()
        ),
    )


def _logit(values: Iterable[float]) -> np.ndarray:
    share = np.clip(np.asarray(list(values), dtype=float), 2e-3, 1 - 2e-3)
    return np.log(share / (1 - share))


def _logit_axis(title: str, shown: Sequence[pd.Series]) -> dict[str, object]:
    """An axis in logits, labelled in percent, over the values shown."""
    known = _logit(pd.concat(list(shown)).dropna())
    room = 0.08 * max(float(np.ptp(known)), 0.5)
    limits = [float(known.min()) - room, float(known.max()) + room]
    inside: list[tuple[float, str]] = []
    for ticks in TICKS:
        placed = zip(ticks, _logit(ticks), strict=True)
        inside = [(float(at), f"{s:.0%}") for s, at in placed if limits[0] <= at <= limits[1]]
        if len(inside) >= 3:
            break
    at, words = (list(each) for each in zip(*inside, strict=True)) if inside else ([], [])
    return pieces.axis(title, range=limits, tickvals=at, ticktext=words)


def _fit(rows: Frame, meta: Meta) -> list[Trace]:
    """The reference models' line, and its interval as a band."""
    known = rows.dropna(subset=["expected"]).sort_values("accuracy_in", kind="stable")
    columns = ("accuracy_in", "expected", "expected_low", "expected_high")
    x, y, low, high = (pieces.numbers(_logit(known[name])) for name in columns)
    band = pieces.ribbon("95 % interval of the line", x, low, high, pieces.GREY, meta=list(meta))
    line = pieces.level_line("line of the reference models", x, y, meta, width=1.5)
    return [band, line | {"hoverinfo": "skip"}]


def _models(rows: Frame, setting: str, look: tuple[str, str], meta: Meta) -> Trace:
    said = [
        f"{setting_label(setting)}<br>{100 * inside:.1f} % and {100 * outside:.1f} %, "
        f"{number(100 * above, 1)} points above the line"
        for inside, outside, above in zip(
            rows["accuracy_in"], rows["accuracy_out"], rows["value"], strict=True
        )
    ]
    looks = look[0], pieces.opened_option(look[1], rows["fitted"])
    at = _logit(rows["accuracy_in"]), _logit(rows["accuracy_out"])
    return pieces.points(setting_label(setting), looks, *at, said, meta, size=10)


def accuracy_by_class_figure(data: FigureRows) -> Figure | None:
    """Accuracy of every held-out class in the test domain, class by setting."""
    rows = data.rows
    if (rows["class_set"] == "held-out").any():  # which classes they are may differ by block
        rows = rows[rows["class_set"] == "held-out"]
    if rows["value"].notna().sum() == 0:
        return None
    settings = ordered_settings(rows["setting"])
    traces, most = [], 0
    domains = [name for name in data.page.tests if name in set(rows["test_domain"])]
    for place, test_domain in enumerate(domains):
        here = rows[rows["test_domain"] == test_domain]
        grid = here.pivot_table(index="label", columns="setting", values="value", dropna=False)
        grid = grid.reindex(columns=settings)
        grid = grid.loc[grid.mean(axis=1).sort_values(kind="stable").index]
        names = [setting_name(name) for name in settings]
        # a label stays its own row when names are cut: long ones get their number
        labels = [
            str(label) if len(str(label)) <= 20 else f"{str(label)[:14]}… ({number + 1})"
            for number, label in enumerate(grid.index)
        ]
        traces.append(
            pieces.heat(grid.to_numpy().tolist(), names, labels, title="accuracy", meta=[place])
        )
        most = max(most, len(grid))
    shape = pieces.layout(100 + 24 * most, xaxis=pieces.MAP, yaxis=pieces.MAP)
    choices = [Choice("Test domain", domains)]
    return data.figure(
        traces, shape, of_rows=rows, choices=choices, rows=most, columns=len(settings)
    )

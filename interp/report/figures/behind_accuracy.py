"""Figures that are lines: the seen/unseen trade-off under any bias, and accuracy over training."""

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
import pandas as pd

from interp.report.figures.pieces import (
    GREY,
    Choice,
    Figure,
    Trace,
    axis,
    counts,
    error_bars,
    layout,
    numbers,
    span,
)
from interp.report.figures.subjects import final, in_test_domain, text_head, top_1
from interp.report.loaded import Frame, LoadedResult
from interp.report.naming import (
    CLASS_SETS,
    OKABE_ITO,
    between,
    faded,
    number,
    ordered_settings,
    plain,
    sequence,
    setting_label,
    setting_look,
    setting_name,
    some,
)

AREA = "AUSUC"


def tradeoff_figure(result: LoadedResult) -> Figure | None:
    """Accuracy of held-out against seen classes under every bias, a line per setting."""
    rows = in_test_domain(result.frame("tradeoff")).dropna(
        subset=["accuracy_seen", "accuracy_held_out"]
    )
    if rows.empty:
        return None
    accuracy = in_test_domain(result.frame("accuracy"))
    areas = final(accuracy[accuracy["measure"] == AREA])
    options = [name for name in result.test_domains if name in set(rows["test_domain"])]
    traces: list[Trace] = []
    for place, test_domain in enumerate(options):
        here = rows[rows["test_domain"] == test_domain]
        plain_rows = final(top_1(accuracy[accuracy["test_domain"] == test_domain]))
        for setting, block, line, look in _lines(here):
            traces.append(
                _line(line, "accuracy_seen", "accuracy_held_out", setting, look, block, place)
                | {"mode": "lines"}
            )
        traces += _unbiased(plain_rows, ordered_settings(here["setting"]), place)
    share = axis("", tickformat=".0%", rangemode="tozero")
    null = areas["null"].dropna()
    chance = f" Random logits: {number(float(null.mean()), 3)}." if len(null) else ""
    return Figure(
        "tradeoff",
        f"Seen against held-out classes in {sequence(options)} under any bias",
        "Along a line, a bias is subtracted from seen classes' logits; further blocks are faint; "
        "the marker is accuracy without bias, over all blocks. Area under the line of the first "
        f"block (AUSUC): {_areas(areas, options)}.{chance} "
        f"{counts(areas if len(areas) else rows)}; bars and intervals are 95 % over classes.",
        f"Trade-off curves of {_named(rows)}",
        traces,
        layout(
            440,
            xaxis={**share, "title": {"text": "balanced accuracy, seen classes"}},
            yaxis={**share, "title": {"text": "balanced accuracy, held-out classes"}},
        ),
        [Choice("Test domain", options)],
    )


def _unbiased(rows: Frame, settings: Sequence[str], place: int) -> list[Trace]:
    """The models as they are: accuracy of either kind of classes, with both intervals."""
    among_all = rows[rows["candidates"].isin(["all", ""])]
    traces = []
    for number_, setting in enumerate(settings):
        own = among_all[among_all["setting"] == setting]
        seen, held = (own[own["class_set"] == kind].head(1) for kind in ("seen", "held-out"))
        if seen.empty or held.empty:
            continue
        colour, symbol = setting_look(setting, number_)
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"{setting_label(setting)}, no bias",
                "legendgroup": setting,
                "showlegend": False,
                "x": numbers(seen["value"]),
                "y": numbers(held["value"]),
                "error_x": {**error_bars(seen, "value", "low", "high"), "color": colour},
                "error_y": {**error_bars(held, "value", "low", "high"), "color": colour},
                "marker": {"color": colour, "symbol": symbol, "size": 11},
                "hovertemplate": "seen %{x:.1%}, held-out %{y:.1%}<extra>%{fullData.name}</extra>",
                "meta": [place],
            }
        )
    return traces


def _areas(areas: Frame, options: Sequence[str]) -> str:
    said = []
    for test_domain in options:
        once = areas[areas["test_domain"] == test_domain].drop_duplicates("setting")
        once = once.set_index("setting", drop=False)
        for setting in ordered_settings(once.index):
            row = once.loc[setting]
            where = f", {test_domain}" if len(options) > 1 else ""
            ends = between(row["low"], row["high"]).removeprefix("95 % interval ")
            said.append(f"{setting_name(setting)}{where} {number(row['value'])} ({ends})")
    return some(said, "accuracy") if said else "not recorded"


def epochs_figure(result: LoadedResult) -> Figure | None:
    """Accuracy in the test domain after every kept epoch, a line per setting and block."""
    rows = in_test_domain(top_1(result.frame("epochs"))).dropna(subset=["value", "epoch"])
    rows = rows[rows["candidates"].isin(["all", ""])]
    if rows.empty:
        return None
    options = [
        [name for name in result.test_domains if name in set(rows["test_domain"])],
        [name for name in CLASS_SETS if name in set(rows["class_set"])],
    ]
    traces = []
    for (d, test_domain), (c, classes) in product(*map(enumerate, options)):
        here = rows[(rows["test_domain"] == test_domain) & (rows["class_set"] == classes)]
        for setting, block, line, look in _lines(here):
            line = line.sort_values("epoch", kind="stable")
            trace = _line(line, "epoch", "value", setting, look, block, d)
            trace |= {"meta": [d, c], "mode": "lines+markers"}
            trace["marker"] = {"symbol": look[1], "size": 8, "color": look[0]}
            if not block:  # bars of one block; those of all would hide one another
                trace["error_y"] = error_bars(line, "value", "low", "high")
            traces.append(trace)
    return Figure(
        "epochs",
        f"Accuracy in {sequence(options[0])} over training",
        "Balanced top-1 among all classes; epoch 0 is the untrained model. Further blocks are "
        f"faint. {counts(rows)}; bars are 95 % intervals over classes, of the first block.",
        f"Lines of {_named(rows)} over epochs",
        traces,
        layout(
            360,
            xaxis=axis("epoch", rangemode="tozero"),
            yaxis=axis("balanced accuracy", tickformat=".0%", rangemode="tozero"),
        ),
        [
            Choice("Test domain", options[0]),
            Choice("Classes", [CLASS_SETS[one] for one in options[1]]),
        ],
    )


def _named(rows: Frame) -> str:
    return sequence([setting_name(name) for name in ordered_settings(rows["setting"])])


def _lines(rows: Frame) -> Iterable[tuple[str, int, Frame, tuple[str, str]]]:
    """Setting, number of the block, its rows, and the setting's look."""
    for place, setting in enumerate(ordered_settings(rows["setting"])):
        own = rows[rows["setting"] == setting]
        for block, (_, line) in enumerate(own.groupby("seed", dropna=False, sort=True)):
            yield setting, block, line, setting_look(setting, place)


def _line(
    rows: Frame, x: str, y: str, setting: str, look: tuple[str, str], block: int, place: int
) -> Trace:
    """A line of one block; blocks after the first are faint and share the first's legend entry."""
    name = setting_label(setting)
    return {
        "type": "scatter",
        "name": name if not block else f"{name}, block {block + 1}",
        "legendgroup": setting,
        "showlegend": not block,
        "opacity": 1.0 if not block else 0.35,
        "x": numbers(rows[x]),
        "y": numbers(rows[y]),
        "line": {"color": look[0], "width": 2},
        "hovertemplate": "%{x}: %{y:.1%}<extra>%{fullData.name}</extra>"
        if x == "epoch"
        else "seen %{x:.1%}, held-out %{y:.1%}<extra>%{fullData.name}</extra>",
        "meta": [place],
    }


def exposure_figure(result: LoadedResult) -> Figure | None:
    """Accuracy of each class against its training pictures."""
    rows = in_test_domain(result.frame("exposure_classes")).dropna(subset=["value", "exposure"])
    rows = rows[rows["candidates"].isin(["all", ""])]
    if rows.empty:
        return None
    options = [
        [name for name in result.test_domains if name in set(rows["test_domain"])],
        ordered_settings(rows["setting"]),
        list(dict.fromkeys(rows["exposed_in"])),
    ]
    classes = rows.groupby(["test_domain", "setting"])["label"].nunique()
    traces = []
    for keys in product(*map(enumerate, options)):
        (d, test_domain), (s, setting), (e, exposed_in) = keys
        own = rows[
            (rows["test_domain"] == test_domain)
            & (rows["setting"] == setting)
            & (rows["exposed_in"] == exposed_in)
        ]
        own = own[own["seed"] == own["seed"].min()] if own["seed"].notna().any() else own
        for n, (class_set, words) in enumerate(CLASS_SETS.items()):
            part = own[own["class_set"] == class_set]
            if len(part):
                traces.append(_classes(part, words, n, [d, s, e]))
    return Figure(
        "exposure",
        "Accuracy of each class against its training pictures",
        f"First block; Spearman over all classes: {_spearman(result)}. n = {span(classes)} "
        "classes per setting; single classes have no interval, those in brackets are 95 % over "
        "classes.",
        f"Accuracy against training pictures for {sequence([setting_name(s) for s in options[1]])}",
        traces,
        layout(
            380,
            xaxis=axis("training pictures of the class", rangemode="tozero"),
            yaxis=axis("accuracy", tickformat=".0%", range=[-0.04, 1.04]),
        ),
        [
            Choice("Test domain", options[0]),
            Choice(
                "Setting",
                [setting_name(one) for one in options[1]],
                _varied(rows, options[1]),
            ),
            Choice("Counted in", options[2]),
        ],
    )


def _classes(rows: Frame, words: str, place: int, meta: Sequence[int]) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": words,
        "x": numbers(rows["exposure"]),
        "y": numbers(rows["value"]),
        "text": [plain(name) for name in rows["label"]],
        "marker": {
            "size": 9,
            "color": OKABE_ITO[place],
            "symbol": ("diamond", "circle", "square")[place],
            "opacity": 0.75,
        },
        "hovertemplate": "%{text}: %{y:.1%}, %{x:,} pictures<extra>%{fullData.name}</extra>",
        "meta": list(meta),
    }


def _spearman(result: LoadedResult) -> str:
    """Every correlation with its interval, and where there is none, why."""
    rows = in_test_domain(result.frame("exposure"))
    rows = rows[(rows["class_set"] == "all") & (rows["candidates"].isin(["all", ""]))]
    said: list[str] = []
    without: dict[str, list[str]] = {}
    for _, row in rows.drop_duplicates(["test_domain", "setting", "exposed_in"]).iterrows():
        what = f"{setting_name(row['setting'])}, {row['exposed_in']}"
        what += f", {row['test_domain']}" if len(result.test_domains) > 1 else ""
        if pd.isna(row["value"]):
            without.setdefault(row["reason"] or "no number", []).append(what)
        else:
            ends = between(row["low"], row["high"]).removeprefix("95 % interval ")
            said.append(f"{what}: {number(row['value'])} ({ends})")
    parts = [some(said, "exposure")] if said else []
    parts += [f"none for {len(names)}, where {why}" for why, names in without.items()]
    return "; ".join(parts) if parts else "not measured"


def _varied(rows: Frame, settings: Sequence[str]) -> int:
    """The first setting whose classes were trained on unequally: the one worth showing first."""
    first = rows[rows["exposed_in"] == rows["exposed_in"].iloc[0]]
    varied = first.groupby("setting")["exposure"].nunique() > 1
    return next((place for place, name in enumerate(settings) if varied.get(name)), 0)


TICKS = (
    (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.99),
    tuple(step / 20 for step in range(1, 20)),
    tuple(step / 50 for step in range(1, 50)),
)
"""Where a logit axis carries a number: the first of these that puts three on it."""


def robustness_figure(result: LoadedResult) -> Figure | None:
    """Accuracy in the test domain against accuracy in natural pictures, on logit axes."""
    rows = text_head(result.frame("robustness")).dropna(subset=["accuracy_in", "accuracy_out"])
    if rows.empty:
        return None
    options = list(dict.fromkeys(rows["domain_b"]))
    traces: list[Trace] = []
    for place, domain in enumerate(options):
        here = rows[rows["domain_b"] == domain]
        traces += _fit(here, place)
        for n, setting in enumerate(ordered_settings(here["setting"])):
            traces.append(_models(here[here["setting"] == setting], setting, n, place))
    inside = sequence(list(dict.fromkeys(rows["domain_a"])))
    ends = rows[["accuracy_in", "accuracy_out", "expected_low", "expected_high"]]
    return Figure(
        "robustness",
        f"Accuracy in {sequence(options)} against accuracy in {inside}",
        "Logit axes. Above the line: more robust than accuracy in natural pictures foretells. "
        f"Line: least squares through {span(rows['n_units'].dropna())} reference models (hollow), "
        f"band: its 95 % interval. n = {len(rows)} models, one point each.",
        "; ".join(
            f"{setting_name(setting)}: {number(100 * value, 1)} points above the line"
            for setting, value in rows.groupby("setting")["value"].mean().items()
        ),
        traces,
        layout(
            440,
            xaxis=_logit_axis(f"balanced accuracy, {inside}", [ends["accuracy_in"]]),
            yaxis=_logit_axis(
                "balanced accuracy, test domain", [ends[c] for c in ends.columns[1:]]
            ),
        ),
        [Choice("Test domain", options)],
    )


def _logit(values: Iterable[float]) -> np.ndarray:
    share = np.clip(np.asarray(list(values), dtype=float), 2e-3, 1 - 2e-3)
    return np.log(share / (1 - share))


def _logit_axis(title: str, shown: Sequence[Frame]) -> dict[str, object]:
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
    return axis(
        title,
        range=limits,
        tickvals=[at for at, _ in inside],
        ticktext=[words for _, words in inside],
    )


def _fit(rows: Frame, place: int) -> list[Trace]:
    """The reference models' line, and its interval as a band."""
    line = rows.dropna(subset=["expected"]).sort_values("accuracy_in", kind="stable")
    x = numbers(_logit(line["accuracy_in"]))
    around = [*_logit(line["expected_high"]), *_logit(line["expected_low"])[::-1]]
    return [
        {
            "type": "scatter", "mode": "lines", "name": "95 % interval of the line",
            "x": [*x, *x[::-1]], "y": numbers(around), "fill": "toself", "line": {"width": 0},
            "fillcolor": faded(GREY, 0.2), "hoverinfo": "skip", "showlegend": False,
            "meta": [place],
        },
        {
            "type": "scatter", "mode": "lines", "name": "line of the reference models", "x": x,
            "y": numbers(_logit(line["expected"])), "line": {"color": GREY, "width": 1.5},
            "hoverinfo": "skip", "meta": [place],
        },
    ]  # fmt: skip


def _models(rows: Frame, setting: str, n: int, place: int) -> Trace:
    colour, symbol = setting_look(setting, n)
    said = [
        f"{setting_label(setting)}<br>{100 * inside:.1f} % and {100 * outside:.1f} %, "
        f"{number(100 * above, 1)} points above the line"
        for inside, outside, above in zip(
            rows["accuracy_in"], rows["accuracy_out"], rows["value"], strict=True
        )
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": setting_label(setting),
        "x": numbers(_logit(rows["accuracy_in"])),
        "y": numbers(_logit(rows["accuracy_out"])),
        "marker": {
            "size": 10,
            "color": colour,
            "symbol": [symbol + ("-open" if fitted else "") for fitted in rows["fitted"]],
        },
        "text": said,
        "hovertemplate": "%{text}<extra></extra>",
        "meta": [place],
    }

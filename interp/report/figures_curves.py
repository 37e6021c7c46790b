"""Figures that are lines: the seen/unseen trade-off under any bias, and accuracy over training."""

from collections.abc import Iterable, Sequence
from itertools import product

from interp.report.figures import Choice, Figure, Trace, axis, counts, errors, layout, numbers
from interp.report.naming import (
    CLASS_SETS,
    between,
    number,
    ordered_settings,
    sequence,
    setting_label,
    setting_look,
    setting_name,
    some,
)
from interp.report.primary import final, in_test_domain, top_1
from interp.report.reading import Frame, Result

AREA = "AUSUC"


def tradeoff(result: Result) -> Figure | None:
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
                "error_x": {**errors(seen, "value", "low", "high"), "color": colour},
                "error_y": {**errors(held, "value", "low", "high"), "color": colour},
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


def epochs(result: Result) -> Figure | None:
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
                trace["error_y"] = errors(line, "value", "low", "high")
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

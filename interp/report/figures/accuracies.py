"""Figures of generalization: what each setting gets right, where, and by how much they differ."""

from collections.abc import Sequence
from itertools import product

import pandas as pd

from interp.report.figures.pieces import (
    GREY,
    MAP,
    Choice,
    Figure,
    Trace,
    axis,
    counts,
    error_bars,
    heat,
    layout,
    numbers,
    reference_line,
    resampled,
    rows_axis,
)
from interp.report.figures.subjects import (
    EPOCH_0,
    TOP_1,
    final,
    held_out_differences,
    shown_prompt_sets,
    text_head,
    top_1,
)
from interp.report.loaded import Frame, LoadedResult
from interp.report.naming import (
    CANDIDATES,
    CLASS_SETS,
    CLASSIFIERS,
    OKABE_ITO,
    PROMPTS,
    SYMBOLS,
    number,
    ordered_settings,
    percent,
    plain,
    sequence,
    setting_label,
    setting_look,
    setting_name,
)


def accuracy_by_setting_figure(result: LoadedResult, *, name: str = "accuracy") -> Figure | None:
    """Balanced accuracy on held-out classes in the test domain, a point per setting."""
    frame = top_1(result.frame("accuracy"))
    rows = frame[(frame["class_set"] == "held-out") & (frame["domain"] == frame["test_domain"])]
    if rows["value"].notna().sum() == 0:
        return None
    options = [
        [one for one in result.test_domains if one in set(rows["test_domain"])],
        [one for one in CANDIDATES if one in set(rows["candidates"])],
        shown_prompt_sets(rows),
    ]
    traces: list[Trace] = []
    for keys in product(*map(enumerate, options)):
        (d, test_domain), (c, candidates), (p, prompts) = keys
        chosen = rows[
            (rows["test_domain"] == test_domain)
            & (rows["candidates"] == candidates)
            & (rows["prompts"] == prompts)
        ]
        traces += _settings(chosen, [d, c, p])
    where = sequence(result.test_domains)
    return Figure(
        name,
        f"Balanced accuracy on held-out classes in {where}",
        f"Balanced top-1: mean over classes of each class's accuracy. {counts(final(rows))}; bars "
        f"are 95 % intervals over {resampled(final(rows))}. Hollow: the same model untrained; "
        "dashed: chance.",
        _list_values(final(rows)),
        traces,
        layout(
            110 + 46 * rows["setting"].nunique(),
            yaxis=rows_axis(rows["setting"].nunique()),
            xaxis=axis("balanced accuracy", tickformat=".0%", rangemode="tozero"),
        ),
        [
            Choice("Test domain", options[0]),
            Choice("Chosen", [CANDIDATES[one] for one in options[1]]),
            Choice("Asked with", [PROMPTS.get(one, one) for one in options[2]]),
        ],
    )


def _settings(rows: Frame, meta: Sequence[int | None]) -> list[Trace]:
    """Trained models, their untrained selves, and chance, for one question."""
    trained = final(rows).drop_duplicates("setting").set_index("setting", drop=False)
    trained = trained.loc[ordered_settings(trained.index)]
    untrained = rows[rows["control"] == EPOCH_0].drop_duplicates("setting")
    looks = [setting_look(name, place) for place, name in enumerate(trained["setting"])]
    traces: list[Trace] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "trained",
            "x": numbers(trained["value"]),
            "y": [setting_label(name) for name in trained["setting"]],
            "error_x": {**error_bars(trained, "value", "low", "high"), "color": GREY},
            "marker": {
                "size": 12,
                "color": [colour for colour, _ in looks],
                "symbol": [symbol for _, symbol in looks],
            },
            "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
            "meta": list(meta),
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "untrained (epoch 0)",
            "x": numbers(untrained["value"]),
            "y": [setting_label(name) if name else "untrained" for name in untrained["setting"]],
            "marker": {"size": 9, "color": GREY, "symbol": "circle-open"},
            "hovertemplate": "%{y}, untrained: %{x:.1%}<extra></extra>",
            "meta": list(meta),
        },
    ]
    if trained["null"].notna().any():
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "chance",
                "x": numbers(trained["null"]),
                "y": traces[0]["y"],
                "line": {"color": GREY, "width": 1, "dash": "dash"},
                "hovertemplate": "chance: %{x:.1%}<extra></extra>",
                "meta": list(meta),
            }
        )
    return traces


def _list_values(rows: Frame) -> str:
    asked = rows[(rows["candidates"] == "all") & rows["prompts"].isin(shown_prompt_sets(rows)[:1])]
    return "; ".join(
        f"{setting_name(row['setting'])}, {row['test_domain']}: {percent(row['value'])}"
        for _, row in asked.iterrows()
    )


def accuracy_by_domain_figure(result: LoadedResult) -> Figure | None:
    """Balanced accuracy in every domain, a line of points per setting."""
    rows = final(top_1(result.frame("accuracy"))).dropna(subset=["value"])
    rows = rows[rows["prompts"].isin(shown_prompt_sets(rows)[:1])]
    rows = rows[rows["candidates"].isin(["all", ""])]
    if rows.empty:
        return None
    options = [
        [one for one in result.test_domains if one in set(rows["test_domain"])] or [""],
        [one for one in CLASS_SETS if one in set(rows["class_set"])] or [""],
    ]
    domains = [name for name in result.domains if name in set(rows["domain"])]
    settings = ordered_settings(rows["setting"])
    traces = [
        _by_domain(chosen, domains, place, len(settings), [d, c])
        for (d, test_domain), (c, classes) in product(*map(enumerate, options))
        for place, setting in enumerate(settings)
        for chosen in [
            rows[
                rows["test_domain"].isin([test_domain, ""])
                & rows["class_set"].isin([classes, ""])
                & (rows["setting"] == setting)
            ].drop_duplicates("domain")
        ]
        if len(chosen)
    ]
    return Figure(
        "accuracy-by-domain",
        "Balanced accuracy in each domain",
        f"Balanced top-1 among all classes, {PROMPTS['neutral']}. {counts(rows)}; bars are 95 % "
        f"intervals over {resampled(rows)}.",
        f"Accuracy of {len(settings)} settings in {sequence(domains)}",
        traces,
        layout(
            380,
            xaxis=axis("", tickvals=list(range(len(domains))), ticktext=[*map(plain, domains)]),
            yaxis=axis("balanced accuracy", tickformat=".0%", rangemode="tozero"),
        ),
        [
            Choice("Test domain", options[0]),
            Choice("Classes", [CLASS_SETS.get(one, one) for one in options[1]]),
        ],
    )


def _by_domain(
    rows: Frame, domains: Sequence[str], place: int, n: int, meta: Sequence[int | None]
) -> Trace:
    setting = rows["setting"].iloc[0]
    colour, symbol = setting_look(setting, place)
    aside = (place - (n - 1) / 2) * 0.12  # beside one another, so that intervals can be told apart
    return {
        "type": "scatter",
        "mode": "markers",
        "name": setting_label(setting),
        "x": [domains.index(name) + aside for name in rows["domain"]],
        "y": numbers(rows["value"]),
        "error_y": error_bars(rows, "value", "low", "high"),
        "marker": {"color": colour, "symbol": symbol, "size": 9},
        "text": [plain(name) for name in rows["domain"]],
        "hovertemplate": "%{text}: %{y:.1%}<extra>%{fullData.name}</extra>",
        "meta": list(meta),
    }


def classifiers_figure(result: LoadedResult) -> Figure | None:
    """Accuracy on held-out classes in the test domain by text and by what pictures teach."""
    frame = final(result.frame("accuracy"))
    rows = frame[
        (frame["measure"] == TOP_1)
        & (frame["class_set"] == "held-out")
        & (frame["candidates"] == "all")
        & (frame["domain"] == frame["test_domain"])
    ].dropna(subset=["value"])
    rows = rows[rows["prompts"].isin(["", *shown_prompt_sets(text_head(rows))[:1]])]
    names = [name for name in CLASSIFIERS if name in set(rows["classifier"])]
    if len(names) < 2:
        return None
    options = [name for name in result.test_domains if name in set(rows["test_domain"])]
    settings = ordered_settings(rows["setting"])
    traces = [
        _by_classifier(here, settings, number, len(names), place)
        for place, test_domain in enumerate(options)
        for number, name in enumerate(names)
        for here in [
            rows[
                (rows["test_domain"] == test_domain) & (rows["classifier"] == name)
            ].drop_duplicates("setting")
        ]
        if len(here)
    ]
    return Figure(
        "classifiers",
        f"Vision or alignment? Other classifiers on the same embeddings in {sequence(options)}",
        "Balanced top-1 on held-out classes among all classes. A linear probe of the own domain is "
        f"an oracle: it was taught these classes there. {counts(rows)}; bars are 95 % intervals "
        f"over {resampled(rows)}.",
        f"Accuracy of {len(settings)} settings by {sequence(names)}",
        traces,
        layout(
            120 + (24 + 14 * len(names)) * len(settings),
            xaxis=axis("balanced accuracy", tickformat=".0%", rangemode="tozero"),
            yaxis=axis(
                "",
                tickvals=list(range(len(settings))),
                ticktext=[setting_label(name) for name in settings],
                range=[len(settings) - 0.5, -0.5],
            ),
        ),
        [Choice("Test domain", options)],
    )


def _by_classifier(rows: Frame, settings: Sequence[str], number: int, n: int, place: int) -> Trace:
    name = rows["classifier"].iloc[0]
    aside = (number - (n - 1) / 2) * 0.18
    return {
        "type": "scatter",
        "mode": "markers",
        "name": CLASSIFIERS[name],
        "x": numbers(rows["value"]),
        "y": [settings.index(setting) + aside for setting in rows["setting"]],
        "error_x": error_bars(rows, "value", "low", "high"),
        "marker": {"color": OKABE_ITO[number], "symbol": SYMBOLS[number], "size": 10},
        "text": [setting_label(setting) for setting in rows["setting"]],
        "hovertemplate": "%{text}: %{x:.1%}<extra>%{fullData.name}</extra>",
        "meta": [place],
    }


def differences_figure(result: LoadedResult) -> Figure | None:
    """Paired differences between settings, in points of accuracy."""
    found = [
        held_out_differences(result, name).assign(test_domain=name) for name in result.test_domains
    ]
    rows: Frame = pd.concat(found).dropna(subset=["value"])
    if rows.empty:
        return None
    several = len(result.test_domains) > 1
    names = [
        setting_name(row["setting"]) + (f", {row['test_domain']}" if several else "")
        for _, row in rows.iterrows()
    ]
    points = rows[["value", "low", "high"]] * 100
    line, _ = reference_line("x", 0, "", "solid")
    return Figure(
        "differences",
        "Differences between settings on the same held-out classes",
        f"Paired over classes, in percentage points. {counts(rows)}; bars are 95 % intervals of "
        "the difference. An interval that reaches over 0 decides nothing.",
        "; ".join(
            f"{name}: {number(value, 1)} points"
            for name, value in zip(names, points["value"], strict=True)
        ),
        [
            {
                "type": "scatter",
                "mode": "markers",
                "x": numbers(points["value"]),
                "y": [
                    "<br>− ".join(plain(part, 48) for part in name.split(" − ")) for name in names
                ],
                "error_x": error_bars(points, "value", "low", "high"),
                "marker": {"size": 11, "color": "#0072B2"},
                "hovertemplate": "%{y}: %{x:.1f} points<extra></extra>",
            }
        ],
        layout(
            80 + 56 * len(rows),
            showlegend=False,
            shapes=[line],
            xaxis=axis("difference, percentage points"),
            yaxis=rows_axis(len(rows)),
        ),
    )


def accuracy_by_class_figure(result: LoadedResult) -> Figure | None:
    """Accuracy of every held-out class in the test domain, class by setting."""
    frame = text_head(result.frame("accuracy_by_class"))
    rows = frame[(frame["control"] == "") & (frame["domain"] == frame["test_domain"])]
    rows = rows[
        rows["prompts"].isin(shown_prompt_sets(rows)[:1]) & rows["candidates"].isin(["all", ""])
    ]
    held_out = result.specification.get("held_out")
    if (rows["class_set"] == "held-out").any():  # which classes they are may differ by block
        rows = rows[rows["class_set"] == "held-out"]
    elif isinstance(held_out, list) and held_out:
        rows = rows[rows["label"].isin([str(name) for name in held_out])]
    if rows["value"].notna().sum() == 0:
        return None
    settings = ordered_settings(rows["setting"])
    traces, most = [], 0
    domains = [name for name in result.test_domains if name in set(rows["test_domain"])]
    for place, test_domain in enumerate(domains):
        here = rows[rows["test_domain"] == test_domain]
        grid = here.pivot_table(index="label", columns="setting", values="value", dropna=False)
        grid = grid.reindex(columns=settings)
        grid = grid.loc[grid.mean(axis=1).sort_values(kind="stable").index]
        names = [setting_name(name) for name in settings]
        labels = [_distinct(str(label), number) for number, label in enumerate(grid.index)]
        traces.append(heat(grid.to_numpy().tolist(), names, labels, title="accuracy", meta=[place]))
        most = max(most, len(grid))
    return Figure(
        "accuracy-by-class",
        "Accuracy of each held-out class",
        f"Share of a class's pictures that are named rightly among all classes. {counts(rows)}; "
        "single classes have no interval. The hardest class is at the bottom.",
        f"Heat map of {most} classes by {len(settings)} settings",
        traces,
        layout(100 + 24 * most, xaxis=MAP, yaxis=MAP),
        [Choice("Test domain", domains)],
    )


def _distinct(label: str, place: int) -> str:
    """A label that stays its own row when names are cut: long ones get their number."""
    return label if len(label) <= 20 else f"{label[:14]}… ({place + 1})"

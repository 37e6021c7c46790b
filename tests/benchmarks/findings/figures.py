"""The pictures of docs/findings.md and docs/account.md.

Claims as a forest, accuracy by sharing, the classes that are shared most and least, a page.
"""

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from interp.core.illustrations import sheet
from interp.core.images import ImageTable
from interp.data.mixtures.settings import is_upper_bound
from interp.report.naming import ordered_settings, setting_looks
from tests.benchmarks.findings.claims import CLAIMS, WORTH, accuracy_findings
from tests.benchmarks.findings.writing import short, spoken

LOOKS = {"pilot": ("#8a8a8a", "square"), "weak": ("#0072B2", "circle"),
         "strong": ("#D55E00", "diamond"), "vit": ("#009E73", "triangle-up")}  # fmt: skip
"""Colour and marker of every study."""


SHOWN_POINTS = (-28, 58)
"""The points that are shown; where an interval goes on outside, an arrow says so."""


def draw_findings(answers: Mapping[str, pd.DataFrame]) -> Any:
    """A row per claim; filled among all classes, hollow among the held-out ones alone."""
    import plotly.graph_objects as go

    shown = [
        (name, candidates)
        for name, own in answers.items()
        for candidates in ("all", "held-out")
        if (own["candidates"] == candidates).any()
    ]
    figure = go.Figure()
    for place, (name, candidates) in enumerate(shown):
        found = accuracy_findings(answers[name], candidates=candidates)
        rows = found["number"] + 0.62 * (place / max(1, len(shown) - 1) - 0.5)
        n_models = answers[name]["run"].nunique()
        figure.add_scatter(**_claims_of(found, rows, name, candidates, n_models))
        if found["n_blocks"].max() > 1:
            figure.add_scatter(**_going_on(found, rows, LOOKS[name][0]))
    for claim in CLAIMS[:-1]:
        figure.add_hline(claim.number + 0.5, line={"color": "#eee", "width": 1})
    figure.add_vline(0, line={"color": "#555", "width": 1})
    figure.add_vline(100 * WORTH, line={"color": "#999", "width": 1, "dash": "dot"})
    figure.update_layout(
        template="plotly_white",
        width=960,
        height=150 + 75 * len(CLAIMS),
        margin={"l": 10, "r": 20, "t": 20, "b": 110},
        font={"size": 14},
        legend={"orientation": "h", "y": -0.16, "x": 0, "xanchor": "left"},
        xaxis={
            "title": "difference in accuracy on held-out classes in the test domain, points",
            "range": SHOWN_POINTS,
        },
        yaxis={
            "tickvals": [claim.number for claim in CLAIMS],
            "ticktext": [f"{claim.number}. {claim.says}" for claim in CLAIMS],
            "autorange": "reversed",
            "automargin": True,
            "showgrid": False,
            "zeroline": False,
        },
    )
    return figure


def _claims_of(
    found: pd.DataFrame, rows: pd.Series, name: str, candidates: str, n_models: int
) -> dict[str, Any]:
    """A study's differences with their intervals; of one block, whose interval is of these models
    alone, without."""
    colour, symbol = LOOKS[name]
    blocks = int(found["n_blocks"].max())
    n = f"{blocks} blocks" if blocks > 1 else "one block, no interval"
    among = "all classes" if candidates == "all" else "held-out classes alone"
    bars = {
        "array": 100 * (found["high"] - found["value"]),
        "arrayminus": 100 * (found["value"] - found["low"]),
    }
    return {
        "x": 100 * found["value"],
        "y": rows,
        "error_x": {"type": "data", "symmetric": False, "thickness": 1.6, "width": 0}
        | (bars if blocks > 1 else {}),
        "mode": "markers",
        "marker": {
            "color": colour,
            "size": 10,
            "symbol": symbol if candidates == "all" else f"{symbol}-open",
            "line": {"width": 2, "color": colour},
        },
        "name": f"{name}, {among} ({n}, {n_models} models)",
    }


def _going_on(found: pd.DataFrame, rows: pd.Series, colour: str) -> dict[str, Any]:
    """Arrows where an interval goes on outside the points that are shown."""
    least, most = SHOWN_POINTS
    left, right = 100 * found["low"] < least, 100 * found["high"] > most
    n = int(left.sum()), int(right.sum())
    return {
        "x": [least] * n[0] + [most] * n[1],
        "y": [*rows[left], *rows[right]],
        "mode": "markers",
        "marker": {
            "color": colour,
            "size": 9,
            "symbol": ["triangle-left"] * n[0] + ["triangle-right"] * n[1],
        },
        "cliponaxis": False,
        "showlegend": False,
    }


def draw_sharing(runs: pd.DataFrame) -> Any:
    """Accuracy against sharing across mixtures: a panel per rung and measure, a point per mixture.

    Args:
        runs: What every run shares, beside its accuracies.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    kinds = list(dict.fromkeys(zip(runs["rung"], runs["measure"], strict=True)))
    settings = ordered_settings(runs["setting"])
    looks = setting_looks(settings)
    columns = min(3, len(kinds))
    figure = make_subplots(
        rows=-(-len(kinds) // columns),
        cols=columns,
        shared_yaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=0.16,
        subplot_titles=[f"{rung} {measure}" for rung, measure in kinds],
    )
    for place, kind in enumerate(kinds):
        own = runs[(runs["rung"] == kind[0]) & (runs["measure"] == kind[1])]
        blocks = own.groupby(["setting", "seed"])[["index", "accuracy"]].mean()
        for setting in settings:
            points = blocks.loc[setting].dropna() if setting in blocks.index else own[:0]
            if points.empty:
                continue
            hollow = is_upper_bound(setting)
            figure.add_trace(
                go.Scatter(
                    x=[points["index"].mean()],
                    y=[100 * points["accuracy"].mean()],
                    mode="markers",
                    name=spoken(setting),
                    legendgroup=setting,
                    showlegend=place == 0,
                    marker={
                        "color": looks[setting][0],
                        "size": 12,
                        "symbol": "circle-open" if hollow else "circle",
                        "line": {"width": 2, "color": looks[setting][0]},
                    },
                    error_x=_spread(points["index"]),
                    error_y=_spread(100 * points["accuracy"]),
                ),
                row=place // columns + 1,
                col=place % columns + 1,
            )
    n = runs["seed"].nunique()
    figure.update_xaxes(title="sharing index")
    figure.update_yaxes(title="held-out classes, percent", col=1)
    figure.update_layout(
        template="plotly_white",
        width=1100,
        height=240 + 330 * -(-len(kinds) // columns),
        margin={"l": 10, "r": 20, "t": 80, "b": 10},
        font={"size": 13},
        legend={"orientation": "h", "y": -0.25, "entrywidth": 430, "entrywidthmode": "pixels"},
        title={"text": f"{n} blocks; bars from the least block to the most", "font": {"size": 13}},
    )
    return figure


def _spread(values: pd.Series) -> dict[str, Any]:
    """Bars from the least block to the most: of few blocks an interval would say less."""
    mean = values.mean()
    ends = {"array": [values.max() - mean], "arrayminus": [mean - values.min()]}
    return {"type": "data", "symmetric": False, "thickness": 1, "width": 0, **ends}


def draw_classes(classes: pd.DataFrame, images: ImageTable) -> Image.Image:
    """The classes that are shared most and least, a row each, as several artists draw them.

    Args:
        classes: What each class shares beyond others, by block.
        images: The pictures of a block.

    Returns:
        Natural pictures, sketches and quickdraw beside one another, with each class's number above.
    """
    images = images.select(split="analysis")
    rows, heads = [], []
    for label, value in most_and_least(classes).items():
        heads.append(f"{label}: {short(value)}")
        own = images.select(label=label)
        rows.append([picture for domain in SHOWN for picture in _by_artists(own, domain)])
    return _under(SHOWN.values(), sheet(rows, SIDE, across=N_ARTISTS, down=1, heads=heads))


def _under(names: Collection[str], picture: Image.Image) -> Image.Image:
    """A picture below the names of its columns."""
    made = Image.new("RGB", (picture.width, picture.height + 20), "white")
    made.paste(picture, (0, 20))
    for place, name in enumerate(names):
        made_at = (place * (picture.width + 16) // len(names), 2)
        ImageDraw.Draw(made).text(made_at, name, fill="#666666", font_size=13)
    return made


SHOWN = {"real": "natural pictures", "sketch": "sketch", "quickdraw": "quickdraw"}
SIDE, N_ARTISTS = 64, 4
"""Pixels of a picture's side; pictures of a class in a domain, each by another artist."""


def most_and_least(classes: pd.DataFrame) -> pd.Series:
    """What the five classes share that share most, then the five that share least: block means."""
    order = classes.groupby("label")["value"].mean().sort_values(ascending=False)
    return pd.concat([order[:5], order[-5:]])


def _by_artists(images: ImageTable, domain: str) -> list[Image.Image]:
    own = images.select(domain=domain)
    rows = np.flatnonzero(~own.frame["artist"].duplicated())[:N_ARTISTS]
    return [own.picture(row).resize((SIDE, SIDE)) for row in rows.tolist()]


def first_screen(page: Path, picture: Path) -> None:
    """The first screen of a page, as a picture of 1280 x 900 pixels.

    Args:
        page: The page.
        picture: The PNG to write.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"))
        sheet = browser.new_page(viewport={"width": 1280, "height": 900})
        sheet.goto(page.resolve().as_uri())
        sheet.wait_for_selector("html[data-first]")
        sheet.wait_for_timeout(1000)  # axes settle
        sheet.screenshot(path=picture)
        browser.close()
    Image.open(picture).quantize(256).save(picture, optimize=True)

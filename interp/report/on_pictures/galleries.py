"""The figure of a unit's gallery: its pictures in each domain, and how active it is there."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from interp.core.statistics.index_of_sharing import LEVEL
from interp.declared.figures import BLUE, GREY
from interp.declared.writing import plain
from interp.probes import Gallery

if TYPE_CHECKING:
    import plotly.graph_objects as go

CELL, GAP, LINE = 66, 8, 16
"""Pixels of a picture's side, between pictures, and of a line of words."""

BETWEEN = 60
"""Pixels between two domains' rows, with the two lines above a row and the ticks below it."""

HISTOGRAM, BINS = 180, 30
"""Pixels across the histogram, and its bars."""

LETTERS = 10
"""So many letters of a class stand under a picture; hovering shows all of it."""


def draw_gallery(gallery: Gallery, unit: int, domains: Sequence[str]) -> "go.Figure":
    """Draw what a unit responds to: a row of pictures and a histogram for each domain.

    Args:
        gallery: The gallery.
        unit: The unit's place.
        domains: The domains, from the top.

    Returns:
        A plotly figure. Pictures go from most to least active, with a frame around the place where
        the unit is most active; the class that it tells stands in blue in the histogram.
    """
    from plotly.subplots import make_subplots

    shown = {domain: gallery.shown(unit, domain) for domain in domains}
    n = max(map(len, shown.values()))
    strip, row = n * (CELL + GAP), CELL + 2 * LINE
    high = len(domains) * (row + BETWEEN) - BETWEEN
    said = {domain: _selectivity(gallery, unit, domain) for domain in domains}
    figure = make_subplots(
        rows=len(domains),
        cols=2,
        column_widths=[strip, HISTOGRAM],
        horizontal_spacing=0.07,
        vertical_spacing=BETWEEN / high,
        subplot_titles=[title for domain in domains for title in (_titled(said[domain]), "")],
    )
    bins = _bins(gallery.values(unit))
    for number, domain in enumerate(domains, start=1):
        _pictures(figure, gallery, unit, shown[domain], number, row)
        figure.update_xaxes(range=(0, strip), visible=False, row=number, col=1)
        figure.update_yaxes(range=(row, 0), visible=False, row=number, col=1)
        _histogram(figure, gallery, unit, said[domain], bins, number)
    figure.update_xaxes(title="activation", row=len(domains), col=2)
    figure.update_annotations(x=0, xanchor="left", align="left", font_size=12)
    name = f"{gallery.kind} {unit} of {gallery.site}"
    figure.update_layout(
        title={"text": f"What {name} responds to<br><sup>{_caption(gallery)}</sup>",
               "font_size": 16, "x": 0.01, "y": 1, "yanchor": "top", "pad_t": 26},
        width=strip + HISTOGRAM + 110, height=high + 150, barmode="overlay",
        margin={"l": 20, "r": 20, "t": 100, "b": 50}, template="plotly_white", showlegend=False,
        meta={"caption": _caption(gallery)},
    )  # fmt: skip
    return figure


def _pictures(
    figure: "go.Figure", gallery: Gallery, unit: int, shown: pd.DataFrame, number: int, height: int
) -> None:
    """The pictures of a domain, with the class under each and where it stands above."""
    left = np.arange(len(shown)) * (CELL + GAP)
    size = {"y": LINE, "sizex": CELL, "sizey": CELL, "xanchor": "left", "yanchor": "top"}
    axes = {"xref": f"x{2 * number - 1}", "yref": f"y{2 * number - 1}", "layer": "below"}
    for place, each in zip(left, shown.itertuples(), strict=True):
        picture = gallery.picture(int(each.row), unit, side=2 * CELL)
        figure.add_layout_image(source=picture, x=place, **size, **axes)
    middle = left + CELL / 2
    labels = [plain(str(label), LETTERS) for label in shown["label"]]
    said = [
        f"{plain(str(each.label))}<br>{plain(str(each.path), 60)}<br>"
        f"activation {each.activation:.3g} ({each.shown})"
        for each in shown.itertuples()
    ]
    words = {"mode": "text", "hoverinfo": "skip", "textfont": {"size": 11}}
    dots = {"mode": "markers", "marker": {"opacity": 0, "size": CELL / 2}}
    for at, text, look in (
        (LINE / 2, shown["shown"].tolist(), words),
        (height - LINE / 2, labels, words),
        (LINE + CELL / 2, said, dots | {"hovertemplate": "%{text}<extra></extra>"}),
    ):
        figure.add_scatter(x=middle, y=[at] * len(said), text=text, row=number, col=1, **look)


def _histogram(
    figure: "go.Figure", gallery: Gallery, unit: int, said: pd.Series, bins: np.ndarray, number: int
) -> None:
    """How active the unit is in a domain's pictures, and in those of its class."""
    rows = gallery.images.frame
    own = rows[rows["domain"] == said["domain_b"]]
    values = gallery.values(unit, said["domain_b"])
    mine = own["label"].isin([said["label"], said["label_again"]]).to_numpy()
    place = {"row": number, "col": 2}
    for name, some, colour in (
        ("other classes", values[~mine], GREY),
        ("its class", values[mine], BLUE),
    ):
        counts, _ = np.histogram(some, bins)
        middles, width = (bins[1:] + bins[:-1]) / 2, bins[1] - bins[0]
        look = {"marker_color": colour, "opacity": 1 if colour == BLUE else 0.55, "name": name}
        text = f"{name}: %{{y}} of {len(some)} pictures at %{{x:.3g}}<extra></extra>"
        figure.add_bar(x=middles, y=counts, width=width, hovertemplate=text, **look, **place)
    figure.update_yaxes(title="pictures", rangemode="tozero", **place)
    figure.update_xaxes(range=(bins[0], bins[-1]), **place)


def _bins(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    room = (high - low) or 1.0
    return np.linspace(low - 0.01 * room, high + 0.01 * room, BINS + 1)


def _selectivity(gallery: Gallery, unit: int, domain: str) -> pd.Series:
    """The unit's row of the domain alone."""
    rows = gallery.table.frame
    ends = (rows["domain_a"] == domain) & (rows["domain_b"] == domain)
    return rows[ends & (rows["feature"] == unit)].iloc[0]


def _titled(row: pd.Series) -> str:
    """A domain, the class that the unit tells there, and how well."""
    where = f"<b>{plain(row['domain_b'])}</b>"
    if row["reason"]:
        return f"{where}: {row['reason']}"
    ends = f" [{row['low']:.2f}, {row['high']:.2f}]" if np.isfinite(row["low"]) else ""
    tells = "tells" if row["p"] < LEVEL else "tells no class beyond chance; best"
    classes = " or ".join(map(plain, dict.fromkeys([row["label"], row["label_again"]])))
    return (
        f"{where}: {tells} {classes}<br>AUROC {row['value']:.2f}{ends}, "
        f"{row['n_units']:g} {row['unit']}s; another class {row['null']:.2f} (p = {row['p']:.2g}), "
        f"random directions {row['random']:.2f}"
    )


def _caption(gallery: Gallery) -> str:
    return (
        f"{len(gallery.images):,} pictures. Frames: where it is most active. Blue: the class that "
        "it tells, chosen on other artists' drawings. 95 % intervals"
    )

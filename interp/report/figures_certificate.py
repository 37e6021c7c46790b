"""The figure of the numerics certificate: how far the opened towers are from the original."""

import math
from collections.abc import Sequence

from interp.report.figures import GREY, Figure, Trace, axis, layout, rows_axis, span
from interp.report.naming import plain
from interp.report.reading import Frame, Result

LEAST = 1e-18
"""Where an error of exactly 0 is drawn on the logarithmic axis."""

POWERS = {"exponentformat": "power", "nticks": 5, "tickangle": 0}


def certificate(result: Result) -> Figure | None:
    """Worst error of each check against its bar."""
    rows = result.frame("certificate").dropna(subset=["error", "bar"])
    if rows.empty:
        return None
    worst = worst_of_checks(rows)
    names = [
        plain(f"{row.tower} {row.check}, {str(row.dtype).removeprefix('torch.')}".strip(), 60)
        for row in worst.itertuples()
    ]
    errors = [float(value) for value in worst["error"]]
    passed = [value <= bar for value, bar in zip(errors, worst["bar"], strict=True)]
    return Figure(
        "certificate",
        "Largest difference from the original model, against what may pass",
        f"n = {span(worst['n_sites'])} sites or parameters per check; of each the one nearest to "
        "its own bar, or furthest beyond, so without interval. Left of the grey bar passes. An "
        f"error of exactly 0 is drawn at {LEAST:g}.",
        "; ".join(
            f"{name}: {value:.2g} {'passes' if fine else 'FAILS'}"
            for name, value, fine in zip(names, errors, passed, strict=True)
        ),
        _traces(names, errors, [float(bar) for bar in worst["bar"]]),
        layout(
            120 + 36 * len(names),
            xaxis=axis("relative error", type="log", **POWERS),
            yaxis=rows_axis(len(names)),
        ),
    )


def worst_of_checks(rows: Frame) -> Frame:
    """One row per tower, check and precision: the site whose error is largest for its bar."""
    keys = ["tower", "check", "dtype"]
    ratio = (rows["error"] / rows["bar"]).fillna(math.inf)  # what was not compared fails
    worst = rows.loc[ratio.groupby([rows[key] for key in keys], sort=False).idxmax()]
    sizes = rows.groupby(keys, sort=False).agg(n_sites=("site", "size"), failed=("ok", "sum"))
    sizes["failed"] = sizes["n_sites"] - sizes["failed"]
    return worst.merge(sizes.reset_index(), on=keys)


def _traces(names: Sequence[str], errors: Sequence[float], bars: Sequence[float]) -> list[Trace]:
    """The errors, and the bars they must keep below."""
    passed = [value <= bar for value, bar in zip(errors, bars, strict=True)]
    drawn = [max(value, LEAST) if math.isfinite(value) else None for value in errors]
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "worst error",
            "x": drawn,
            "y": names,
            "text": [f"{value:.2g}" for value in errors],
            "marker": {
                "size": 11,
                "color": ["#009E73" if fine else "#D55E00" for fine in passed],
                "symbol": ["circle" if fine else "x" for fine in passed],
            },
            "hovertemplate": "%{y}: %{text}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "bar",
            "x": list(bars),
            "y": names,
            "marker": {"size": 20, "color": GREY, "symbol": "line-ns-open", "line": {"width": 3}},
            "hovertemplate": "bar: %{x}<extra></extra>",
        },
    ]

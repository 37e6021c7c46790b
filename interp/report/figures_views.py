"""Pictures as points in a plane, coloured by domain: to look at, never evidence."""

from itertools import product

from interp.core.band import LAST
from interp.report.figures import Choice, Figure, Trace, axis, layout, numbers
from interp.report.naming import colours, percents, plain, sequence, setting_name, site_label
from interp.report.primary import EPOCH_0
from interp.report.reading import Frame, Result
from interp.report.subjects import settings_of

UNTRAINED = "untrained (epoch 0)"


def views(result: Result) -> Figure | None:
    """Principal components of the middle site and of the embedding, a point per picture."""
    rows = result.frame("views").dropna(subset=["x", "y"])
    rows = rows[rows["seed"].eq(rows["seed"].min()) | rows["seed"].isna()]
    if rows.empty:
        return None
    tests = [name for name in result.test_domains if name in set(rows["test_domain"])] or [""]
    settings = [name for name in settings_of(result) if name in set(rows["setting"])]
    models = [(setting, "") for setting in settings if setting or not rows["control"].eq("").all()]
    models = models or [("", "")]
    if rows["control"].eq(EPOCH_0).any():
        models.append(("", EPOCH_0))
    sites = sorted(set(rows["site"]), key=lambda site: site != LAST)
    tints = colours(result.domains)
    traces: list[Trace] = []
    for (d, test), (m, (setting, control)), (p, site) in product(
        *map(enumerate, (tests, models, sites))
    ):
        chosen = rows[
            (rows["test_domain"] == test)
            & (rows["setting"] == setting)
            & (rows["control"] == control)
            & (rows["site"] == site)
        ]
        traces += [
            _points(chosen[chosen["domain"] == name], name, tints[name], [d, m, p])
            for name in result.domains
            if chosen["domain"].eq(name).any()
        ]
    per_view = int(rows.groupby(["test_domain", "setting", "control", "site"]).size().max())
    shares = rows.groupby("site")["explained"].agg(["min", "max"])
    said = sequence([
        f"{site_label(str(site))} {percents(float(row['min']), float(row['max']))}"
        for site, row in shares.iterrows()
    ])  # fmt: skip
    names = [UNTRAINED if control else setting_name(setting) for setting, control in models]
    return Figure(
        "views",
        "Pictures by their first two principal components",
        f"n = {per_view} pictures a view, of seen classes, never trained on. A view has no "
        "interval and is no evidence: how far domains lie apart is measured above, in all "
        f"coordinates. Both components hold this share of the variance: {said}.",
        f"Scatter of pictures of {sequence(result.domains)}, coloured by domain",
        traces,
        layout(460, xaxis=axis("first component"), yaxis=axis("second component")),
        [
            Choice("Test domain", tests),
            Choice("Model", names),
            Choice("Site", [site_label(site) for site in sites]),
        ],
    )


def _points(rows: Frame, domain: str, colour: str, meta: list[int | None]) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plain(domain),
        "x": numbers(rows["x"].round(4)),
        "y": numbers(rows["y"].round(4)),
        "text": [plain(label) for label in rows["label"]],
        "hovertemplate": "%{text}<extra>%{fullData.name}</extra>",
        "marker": {"color": colour, "size": 6, "opacity": 0.75},
        "meta": meta,
    }

"""The sections on what layers hold: shares of variance, features, and the domain erased."""

from itertools import product

import pandas as pd

from interp.core.declarations.figures import (
    INDEX,
    PAIR,
    TEST_DOMAIN,
    THRESHOLDS,
    ZERO,
    AxisSpec,
    ChoiceSpec,
    FigureSpec,
    LineSpec,
    Look,
    Row,
    Scale,
    SectionSpec,
)
from interp.core.declarations.writing import number, percent, percents, plain, sequence
from interp.core.sites import LAST
from interp.report.figures.grammar import finished, read_rows
from interp.report.figures.pieces import Choice, DrawnSubject, Figure, Trace, axis, layout, points
from interp.report.figures.subjects import EPOCH_0, ComparedPair, compared_pairs, settings_of
from interp.report.figures.training import FREE
from interp.report.loaded import Frame, LoadedResult
from interp.report.naming import colours, setting_name, site_label

LINES = (
    "{n}; ribbons are 95 % intervals over classes. {kinds} Dashed: the same models untrained. "
    "Grey: the middle layers."
)
FACTORS = FigureSpec(
    "factors",
    "What the pictures' variance at each layer is about",
    "depth",
    ("factorisation",),
    method="The features' variance is split into class, domain, both jointly, and the rest.",
    null="Classes permuted within each domain.",
    caption=f"{LINES} Products of two halves of the pictures by other artists hold no noise, so "
    "that a share that is not there reads 0 on average.",
    alt="Lines over depth for {names}",
    subjects="pairs",
    choices=(
        TEST_DOMAIN,
        ChoiceSpec(
            "Share of",
            looks=[
                Look(words, {"factor": factor})
                for factor, words in (
                    ("class", "class, in all domains alike"),
                    ("domain", "domain, in all classes alike"),
                    ("interaction", "class and domain only jointly"),
                    ("residual", "pictures within a class and domain"),
                )
            ],
        ),
    ),
    y=AxisSpec("share of variance", limits=(-0.05, 1.05)),
    lines=ZERO,
)
ANGLE = FigureSpec(
    "angle",
    "Do class and domain lie along the same directions?",
    "depth",
    ("factorisation",),
    method="The squared cosine between the effects of class and of domain is taken.",
    null="Random directions of the variation within a class and domain.",
    caption=f"{LINES} Drawn where both effects exceed 3 standard errors: smaller ones have no "
    "direction.",
    alt="Lines over depth for {names}",
    where={"factor": "class and domain"},
    subjects="pairs",
    y=AxisSpec("squared cosine (0 orthogonal)"),
    lines=ZERO,
)
APART = FigureSpec(
    "apart",
    "How far do domains lie apart?",
    "depth",
    ("separation", "domain_probes"),
    method="A classifier of the domain is tested on classes and artists that it never saw.",
    null="The same classifier on permuted domain labels.",
    caption=LINES,
    alt="Lines over depth for {names}",
    subjects="pairs",
    ends=PAIR,
    choices=(
        TEST_DOMAIN,
        ChoiceSpec(
            "Read",
            looks=(
                Look("which of all domains, classes not trained on", table="domain_probes",
                     ends=()),
                Look("which of the two domains, classes not trained on",
                     {"measure": "domain classifier"}),
                Look("squared distance of the two domains, in variances within a class",
                     {"measure": "squared distance of domain means"}),
            ),
        ),
    ),
    y=AxisSpec("accuracy, or distance"),
    lines=ZERO,
)  # fmt: skip
COMPONENTS = FigureSpec(
    "views",
    "Pictures by their first two principal components",
    "views",
    ("views",),
    method="Pictures are laid out by the two directions in which their features vary most.",
    null=FREE,
    caption="n = {per_view} pictures a view, of seen classes, never trained on. A view has no "
    "interval and is no evidence: how far domains lie apart is measured above, in all "
    "coordinates. Both components hold this share of the variance: {explained}.",
    alt="Scatter of pictures of {domains}, coloured by domain",
    keep=("first block",),
    needs=("x", "y"),
)
LAYERS = SectionSpec(
    "layers",
    "What the layers hold",
    "A picture's features = mean + class + domain + both jointly + rest, a two-way analysis of "
    "variance at every layer. Domains lie apart where a classifier tells them on classes and "
    "artists that it never saw (Lopez-Paz and Oquab 2017).",
    (FACTORS, ANGLE, APART, COMPONENTS),
    words=(("angles",),),
    note="Compositional generalization asks for class and domain effects that add up: little that "
    "is only joint, and directions that do not meet.",
    optional=("factorisation", "separation", "domain_probes", "views"),
)


def _code(row: Row) -> str:
    return f"{row['code']}, two seeds" if "two seeds" in row["reading"] else row["code"]


SHARED_FEATURES = FigureSpec(
    "feature-sharing",
    "Features that a class uses in both domains, at {sites}",
    "forest",
    ("feature_sharing", "dictionaries"),
    method="What a class uses of a dictionary's features in one domain is compared with the other.",
    null="Other classes that are as active; index 0 stands for them.",
    caption="{n}; bars are 95 % intervals of the index over classes. {kinds} {withheld}",
    alt="Forest of the sharing index of {labels} for each of {subjects} models",
    scale=INDEX,
    subjects="pairs",
    ends=PAIR,
    choices=(
        TEST_DOMAIN,
        ChoiceSpec(
            "Measured by",
            looks=[
                Look(words, {"measure": measure, "centred": centred})
                for words, measure, centred in (
                    ("share of the class's own activity", "shared mass", True),
                    ("share of all activity", "shared mass", False),
                    ("top features of the class", "shared top features", True),
                    ("top features of all activity", "shared top features", False),
                )
            ],
        ),
    ),
    labels=_code,
    x=AxisSpec("index (0 null, 1 ceiling)"),
    lines=THRESHOLDS,
)


def _end(row: Row) -> str:
    where = row["natural"] if row["domain"] == row["natural"] else "the other domain"
    return f"{row['ablated']} features, in {where}"


ABLATED_FEATURES = FigureSpec(
    "feature-ablation",
    "What the model loses without shared and without private features, at {sites}",
    "forest",
    ("feature_ablation",),
    method="Features are replaced by those of another picture while the model runs on.",
    null="No change, 0; matched features of the other kind stand beside it.",
    caption="Private features are matched one to one to shared ones in the variance they remove "
    "and in what that costs in {natural}. {n}; bars are 95 % intervals over classes. {matched}",
    alt="Forest of {rows} drops for each of {subjects} models",
    subjects="pairs",
    ends=("domain",),
    choices=(
        TEST_DOMAIN,
        ChoiceSpec(
            "Drop of",
            looks=(
                Look("margin of the true class", {"measure": "margin drop"}),
                Look("balanced accuracy", {"measure": "accuracy drop"}),
            ),
        ),
    ),
    labels=_end,
    x=AxisSpec("drop (standard deviations, or accuracy)"),
    lines=(LineSpec(0, dash="solid"),),
)
FEATURES = SectionSpec(
    "features",
    "Same features? (R5)",
    "Sparse dictionaries (TopK) of the middle layer, trained without the withheld cells. A "
    "class's use of features in two domains is compared with its use by other classes as "
    "active as it (null) and by other artists (ceiling); units and components beside it.",
    (SHARED_FEATURES, ABLATED_FEATURES),
    words=(("dictionaries",),),
    note="A dictionary's features differ from seed to seed: rows of two seeds say what of the "
    "sharing does not depend on the seed.",
    optional=("feature_sharing", "feature_ablation", "dictionaries"),
)


def _changed(row: Row) -> str:
    """What a row of the erasure measures, in words."""
    where = "at the site" if row["read_at"] == "site" else "in the embedding"
    if row["measure"] == "accuracy":
        return f"zero-shot accuracy, {row['domain']}"
    if row["measure"] == "transfer":
        return f"probe {row['train_domain']} → {row['domain']}, {where}"
    if row["measure"] == "similarity":
        return f"debiased CKA, {where}"
    return f"{row['measure']}, {where}"


BEYOND = Scale("beyond", "beyond_low", "beyond_high")
ERASED = FigureSpec(
    "erasure",
    "What changes when the domain is erased at {sites}",
    "forest",
    ("erasure",),
    method="The domain is projected out of one layer while the model runs on.",
    null="Erasing permuted domains, or as much variance at random.",
    caption="{n}; bars are 95 % intervals. LEACE takes {removed} of the variance out, fitted on "
    "one half of the artists and judged on the other. Beyond: less the same change under a "
    "control, paired by class, over classes and draws of the control.",
    alt="Forest of {rows} changes for each of {subjects} models",
    needs=("value",),
    subjects="pairs",
    ends=("domain", "train_domain"),
    choices=(
        TEST_DOMAIN,
        ChoiceSpec(
            "Shown",
            looks=(
                Look("beyond LEACE of permuted domains", {"against": "permuted labels"},
                     scale=BEYOND),
                Look("beyond a random subspace of equal variance", {"against": "random subspace"},
                     scale=BEYOND),
                Look("the change itself", {"against": "permuted labels"}),
            ),
        ),
    ),
    labels=_changed,
    x=AxisSpec("change (accuracy, or CKA)"),
    lines=(LineSpec(0, dash="solid"),),
)  # fmt: skip
ERASURE = SectionSpec(
    "erasure",
    "Does the model need to know the domain?",
    "LEACE (Belrose et al. 2023) takes the domain out of the middle layer while the model runs "
    "on; controls erase domains permuted over artists, or as much variance at random.",
    (ERASED,),
    note="A change beyond both controls is what the model loses, or gains, with the domain.",
    optional=("erasure",),
)


UNTRAINED = "untrained (epoch 0)"


def views_figure(result: LoadedResult, spec: FigureSpec) -> Figure | None:
    """Principal components of the middle site and of the embedding, a point per picture."""
    rows = read_rows(result, spec)
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
            _pictures(chosen[chosen["domain"] == name], name, tints[name], [d, m, p])
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
    choices = [
        Choice("Test domain", tests),
        Choice("Model", names),
        Choice("Site", [site_label(site) for site in sites]),
    ]
    shape = layout(460, xaxis=axis("first component"), yaxis=axis("second component"))
    told = {"per_view": per_view, "explained": said, "domains": sequence(result.domains)}
    return finished(spec, result, rows, traces, shape, choices, **told)


def _pictures(rows: Frame, domain: str, colour: str, meta: list[int | None]) -> Trace:
    one = DrawnSubject(plain(domain), colour, "circle", rows)
    said = [plain(label) for label in rows["label"]]
    trace = points(one, rows["x"].round(4), rows["y"].round(4), said, meta, size=6)
    return trace | {"marker": {**trace["marker"], "opacity": 0.75}}


def dictionary_words(result: LoadedResult) -> list[tuple[str, list[str]]]:
    """Each subject's dictionary: L0, explained variance, dead, recovered accuracy, stability."""
    frame = result.frame("dictionaries")
    found = []
    for test_domain in result.test_domains:
        for one in compared_pairs(result, test_domain):
            own = one.of(frame)
            own = own[(own["control"] == "") & (own["class_set"].isin(["all", ""]))]
            if own["value"].notna().any():
                name = f"{one.name}, {test_domain}" if len(result.test_domains) > 1 else one.name
                found.append((name, _described(own, one)))
    return found


def _described(own: Frame, one: ComparedPair) -> list[str]:
    whole = own[own["domain"] == ""]

    def mean(rows: Frame, measure: str) -> float:
        return float(rows.loc[rows["measure"] == measure, "value"].mean())

    stable, chance = (
        mean(whole, "mean cosine"),
        float(whole.loc[whole["measure"] == "mean cosine", "null"].mean()),
    )
    recovered = [
        f"{name} {percent(mean(own[own['domain'] == name], 'recovered accuracy'))} of "
        f"{percent(float(own.loc[_recovered(own, name), 'ceiling'].mean()))}"
        for name in (one.natural, one.domain)
        if _recovered(own, name).any()
    ]
    width = own["width"].dropna()
    return [
        f"{int(width.iloc[0])}" if len(width) else "–",
        number(mean(whole, "active features"), 1),
        percent(mean(whole, "explained variance")),
        percent(mean(whole, "dead features")),
        "; ".join(recovered) or "–",
        f"{number(stable)} (chance {number(chance)})",
    ]


def _recovered(own: Frame, domain: str) -> "pd.Series[bool]":
    return (own["measure"] == "recovered accuracy") & (own["domain"] == domain)

"""What pictures are called when their domain's mean is moved inside the model."""

from functools import partial

from interp import circuits
from interp.core.sites import stream_sites
from interp.declared import figures
from interp.declared.measures import MeasureSpec
from interp.measures.subject import PICTURES_PER_CELL, Frames, Subject

DOSES = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
FEW = 5
"""Random directions at the sites where only the shift itself is asked."""

HELD_OUT = {"class_set": "held-out"}
SITE = figures.ChoiceSpec("Site", "site")
SHIFTED = figures.FigureSpec(
    "domain-shift",
    "Held-out classes after pictures are moved to the natural domain by one vector",
    "forest",
    ("domain_shift",),
    method="Mean photograph less mean picture of the domain, over classes seen in both, is added "
    "inside the model.",
    null="Random directions of the same length.",
    caption="Change of balanced accuracy among all classes. {n}; bars are 95 % intervals over "
    "{over}; the ceiling is accuracy among held-out classes alone.",
    where={"class_set": "held-out", "way": circuits.WAYS[0], "dose": 1.0},
    keep=("in the test domain", "last epoch"),
    needs=("value",),
    choices=(figures.TEST_DOMAIN, SITE),
    labels="setting",
    x=figures.AxisSpec("change of accuracy", percent=True),
    lines=figures.NO_CHANGE,
)
DOSE = figures.FigureSpec(
    "shift-dose",
    "The vector, more and less of it",
    "curve",
    ("domain_shift",),
    method="The same vector is added so many times; below 0 it is taken off.",
    null="Random directions of the length of dose 1.",
    caption="Change of balanced accuracy among all classes. {n}; bars are 95 % intervals over "
    "{over}.",
    where={"way": circuits.WAYS[0], "swept": True},
    keep=("last epoch",),
    needs=("value",),
    choices=(figures.TEST_DOMAIN, figures.MODEL, figures.PICTURES, SITE),
    across="dose",
    series=(
        figures.SeriesSpec(
            "held-out classes", figures.RAW, figures.ORANGE, {"class_set": "held-out"}
        ),
        figures.SeriesSpec("seen classes", figures.RAW, figures.BLUE, {"class_set": "seen"}),
        figures.null_series("random directions", {"class_set": "held-out"}),
    ),
    x=figures.AxisSpec("dose"),
    y=figures.AxisSpec("change of accuracy", percent=True),
)
SECTION = figures.SectionSpec(
    "shift",
    "What undoes it?",
    "One vector for each domain, fitted on classes that were seen, is added to the stream while "
    "the model runs on. Controls have its length.",
    (SHIFTED, DOSE),
    note="What comes back was known. What does not come back was not, or is hidden otherwise.",
    gist=figures.GistSpec(
        "domain_shift",
        "Moved to the natural domain by one vector, held-out classes change by {range} points.",
        {"class_set": "held-out", "way": circuits.WAYS[0], "dose": 1.0, "swept": True},
        form="points",
    ),
)


def measure(subject: Subject) -> Frames:
    """The tables `domain_shift`, `shift_by_class` and `shift_parts`.

    Doses and controls are asked where the last block begins and at the embedding, the shift alone
    at the other sites of the stream.
    """
    natural, other = pair = list(subject.pair)
    split = next((s for s in ("analysis", "train") if s in set(subject.images.split)), "")
    if not subject.held_out or not split:
        return {}
    sites = stream_sites(subject.tower)
    main = list(dict.fromkeys([sites[max(len(sites) - 3, 0)], sites[-1]]))
    rest = [site for site in sites if site not in main]
    apart = subject.images.select(split=split).few(PICTURES_PER_CELL, seed=subject.seed)
    asked = (subject.clip, subject.test.select(domain=pair))
    whole = {
        "source": other,
        "target": natural,
        "held_out": subject.held_out,
        "fitted_on": apart,
        "class_names": subject.images.labels,
        "seed": subject.seed,
    }
    own = whole | {"fitted_on": apart.select(domain=pair)}
    few = own | {"ways": circuits.WAYS[:1], "n_random": FEW}
    shifts = [partial(circuits.shift_domain, *asked, sites=main, doses=DOSES, **whole)]
    shifts += [partial(circuits.shift_domain, *asked, sites=site, **few) for site in rest]
    classes = [partial(circuits.shift_by_class, *asked, site=site, **own) for site in main]
    parts = [partial(circuits.shift_parts, *asked, site=main[0], **own)]
    found = subject.file_parts(
        {"domain_shift": shifts, "shift_by_class": classes, "shift_parts": parts}
    )
    frame = found["domain_shift"]
    if "site" in frame:
        depth, swept = frame["site"].map(subject.depths), ~frame["site"].isin(rest)
        found["domain_shift"] = frame.assign(depth=depth, swept=swept)
    return found


MEASURE = MeasureSpec(
    "domain_shift",
    measure,
    tables=("domain_shift", "shift_by_class", "shift_parts"),
    option="erasure",
    seconds=45.0,
    sections=(SECTION,),
)

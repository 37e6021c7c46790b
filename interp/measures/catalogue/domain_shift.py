"""What pictures are called when their domain's mean is moved inside the model."""

from functools import partial

import pandas as pd

from interp import circuits
from interp.circuits.domain_shift.vectors import LEACE, ONE, PERMUTED, RANDOM, SHIFT, SPLIT
from interp.core.sites import stream_sites
from interp.declared import figures
from interp.declared.measures import MeasureSpec
from interp.measures.subject import PICTURES_PER_CELL, Frames, Subject

DOSES = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
FEW, SEEN_PER_CELL = 5, 8
"""Draws of random parts; pictures of a seen class in a domain."""

SHOWN = (SHIFT, LEACE, ONE, SPLIT, PERMUTED, RANDOM)
HELD_OUT = {"class_set": "held-out"}
SITE = figures.ChoiceSpec("Site", "site", first=lambda rows, names: 0)
LAST_MODEL = figures.ChoiceSpec("Model", "model", first=lambda rows, names: len(names) - 1)
WAY = figures.choice("Moved by", {name: {"way": name} for name in SHOWN})
SHIFTED = figures.FigureSpec(
    "domain-shift",
    "Held-out classes after pictures are moved to the natural domain by one vector",
    "forest",
    ("domain_shift",),
    method="Mean photograph less mean picture of the domain, over classes seen in both, is added "
    "inside the model.",
    null="Random directions of the same length.",
    caption="Change of balanced accuracy among all classes. {n}; bars are 95 % intervals over "
    "{over}. Controls are of the vector's length.",
    where={"class_set": "held-out", "dose": 1.0},
    keep=("in the test domain", "last epoch"),
    needs=("value",),
    choices=(figures.TEST_DOMAIN, WAY, SITE),
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
    null="Random directions as long as the dose.",
    caption="Change of balanced accuracy among all classes. {n}; bars are 95 % intervals over "
    "{over}.",
    where={"way": SHIFT},
    keep=("last epoch",),
    needs=("value",),
    choices=(figures.TEST_DOMAIN, LAST_MODEL, figures.TEST_FIRST, SITE),
    across="dose",
    series=(
        figures.SeriesSpec("held-out classes", figures.RAW, figures.ORANGE, HELD_OUT),
        figures.SeriesSpec("seen classes", figures.RAW, figures.BLUE, {"class_set": "seen"}),
        figures.null_series("held-out classes, random directions", HELD_OUT),
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
    part="accuracy",
    note="What comes back was known. What does not come back was not, or is hidden otherwise.",
    gist=figures.GistSpec(
        "domain_shift",
        "Moved to the natural domain by one vector, held-out classes change by {range} points.",
        {"class_set": "held-out", "way": SHIFT, "dose": 1.0},
        form="points",
    ),
)


def measure(subject: Subject) -> Frames:
    """The tables `domain_shift`, `shift_by_class` and `shift_parts`.

    Pictures are moved where the last block begins, and at the embedding.
    """
    natural, other = pair = list(subject.pair)
    split = next((s for s in ("analysis", "train") if s in set(subject.images.split)), "")
    if not subject.held_out or not split:
        return {}
    sites = stream_sites(subject.tower)
    main = list(dict.fromkeys([sites[max(len(sites) - 3, 0)], sites[-1]]))
    apart = subject.images.select(split=split).few(PICTURES_PER_CELL, seed=subject.seed)
    test = subject.test.select(domain=pair)
    held = test.label.isin(subject.held_out).to_numpy()
    seen = test[~held].few(SEEN_PER_CELL, seed=subject.seed)
    asked = subject.clip, test.with_frame(pd.concat([test[held].frame, seen.frame]))
    how = {
        "source": other,
        "target": natural,
        "held_out": subject.held_out,
        "fitted_on": apart,
        "class_names": subject.images.labels,
        "seed": subject.seed,
    }
    own = how | {"site": main[0], "fitted_on": apart.select(domain=pair)}
    found = subject.file_parts(
        {
            "domain_shift": [
                partial(circuits.shift_domain, *asked, sites=main, doses=DOSES, **how)
            ],
            "shift_by_class": [partial(circuits.shift_by_class, *asked, **own)],
            "shift_parts": [partial(circuits.shift_parts, *asked, n_random=FEW, **own)],
        }
    )
    frame = found["domain_shift"]
    if "site" in frame:
        found["domain_shift"] = frame.assign(depth=frame["site"].map(subject.depths))
    return found


MEASURE = MeasureSpec(
    "domain_shift",
    measure,
    tables=("domain_shift", "shift_by_class", "shift_parts"),
    option="erasure",
    seconds=60.0,
    sections=(SECTION,),
)

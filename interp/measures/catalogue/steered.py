"""What a model says when it is steered along a class's direction, in both domains."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd

from interp import probes
from interp.core.errors import SampleError
from interp.core.progress import say
from interp.core.seeds import rng
from interp.core.sites import LAST, middle_of
from interp.core.tables import Table
from interp.declared import figures
from interp.declared.measures import MeasureSpec
from interp.measures.subject import Frames, Subject

SHOWN_CLASSES = 6
"""Classes whose every answer is kept, dose by dose, for the page's slider."""

SEEN, HELD_OUT = {"class_set": "seen"}, {"class_set": "held-out"}
OWN, OTHERS = "its own domain's direction", "the other domain's direction"


STEERED = figures.FigureSpec(
    "steering",
    "How often pictures are called the class they are steered to",
    "curve",
    method="A class's direction (its mean features less the mean of the others) is fitted on one "
    "half of the artists, and added to pictures of other classes by the other half.",
    null="How often they are called another class, drawn alike.",
    caption="{n}; bars are 95 % intervals over the classes steered to. A dose of 1 adds what "
    "pictures of the class have over others, on average. {kinds}",
    needs=("value",),
    choices=(
        figures.TEST_DOMAIN,
        figures.MODEL,
        figures.choice("Steered to", {"seen classes": SEEN, "held-out classes": HELD_OUT}),
        figures.ChoiceSpec("Pictures", "domain_b"),
        figures.ChoiceSpec("Site", "site", first=lambda rows, names: len(names) - 1),
    ),
    across="dose",
    series=(
        figures.SeriesSpec(OWN, figures.RAW, figures.BLUE, {"direction": OWN}),
        figures.SeriesSpec(OTHERS, figures.RAW, figures.ORANGE, {"direction": OTHERS}, "dash", "x"),
        figures.null_series("called another class", {"direction": OTHERS}),
    ),
    x=figures.AxisSpec("dose"),
    y=figures.AxisSpec("called the class", percent=True, from_zero=True),
)

ANSWERS = figures.FigureSpec(
    "steered-answers",
    "What is said while pictures are steered to a class",
    "said",
    method="The direction of a class in natural pictures is added behind the last block; what the "
    "model then calls pictures of other classes is counted.",
    null="A dose of 0: the model as it is.",
    caption="n = {pictures} pictures of other classes in a domain, by artists whose pictures made "
    "no direction; intervals are above, of all classes together. Of several blocks the mean is "
    "drawn; what one of them does not list is among the others.",
    alt="Bars of the answers in each domain, a slider for the dose",
    needs=("share",),
    choices=(
        figures.TEST_DOMAIN,
        figures.MODEL,
        figures.ChoiceSpec("Class steered to", "label"),
        figures.ChoiceSpec("Dose", "dose", slider=True),
    ),
)

STEERING = figures.SectionSpec(
    "steering",
    "What does steering to a class do?",
    "A direction that serves both domains, added inside the model, has pictures of both called by "
    "its class: an intervention on a representation, where a probe only reads.",
    (STEERED, ANSWERS),
    note="That a direction works in the other domain does not make it the one that the model uses "
    "there: R4 asks that.",
    gist=figures.GistSpec(
        "steering",
        "Behind the last block, a dose of 2 of the other domain's direction has {range} of the "
        "pictures called its class.",
        {"dose": 2.0, "direction": OTHERS, "band": "late", **SEEN},
        form="percent",
    ),
)


def last_stream(depths: Mapping[str, float]) -> str:
    """The deepest site of the stream, behind which no block follows.

    >>> last_stream({"a": 0.5, "b": 0.9, "hook_embedding": 1.0})
    'b'
    """
    return max((site for site in depths if site != LAST), key=lambda site: depths[site])


def measure(subject: Subject) -> Frames:
    """The tables `steering` and `steered_answers`: pictures steered to classes at two sites."""
    if subject.lacks_middle("steering"):
        return {}
    images = subject.some_of_pair
    sites = list(dict.fromkeys([middle_of(subject.depths), last_stream(subject.depths)]))
    how = {
        "preprocess": subject.preprocess,
        "classifier": subject.classifier,
        "class_names": subject.images.labels,
    }
    tower = subject.tower
    apart = {"held_out": subject.held_out, "seed": subject.seed}
    made = [partial(probes.steering, tower, images, s, **apart, **how) for s in sites]
    found = subject.file_parts({"steering": made})
    frame = found["steering"]
    if "dose" not in frame:  # a reason alone
        return found
    alike = frame["domain_a"] == frame["domain_b"]
    found["steering"] = frame.assign(
        direction=np.where(alike, OWN, OTHERS),
        band=np.where(frame["site"] == sites[-1], "late", "middle"),
        depth=frame["site"].map(subject.depths),
    )
    seen = images[~images.label.isin(subject.held_out).to_numpy()]
    drawn = rng("classes whose answers are shown", subject.seed).permutation(seen.labels)
    try:
        answers = probes.steered_answers(
            tower, seen, sites[-1], sorted(drawn[:SHOWN_CLASSES]), fitted_in=subject.pair[0], **how
        )
    except SampleError as error:
        say(f"steered answers left out: {error}")
        return found
    table = Table("steered_answers", pd.DataFrame(answers).assign(site=sites[-1]))
    return found | {"steered_answers": subject.file(table)}


MEASURE = MeasureSpec(
    "steering",
    measure,
    bare=("steered_answers",),
    option="erasure",
    seconds=6,
    sections=(STEERING,),
)

"""The multiverse: parts and wiring of two domains (R5, R6) judged under every reasonable choice.

A verdict that hangs on how parts are scored, or on how many of them a circuit has, says more of
that than of the model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from interp.circuits.sharing.choices import (
    ANOTHER_CLASS,
    ASKED,
    USUAL_SIZE,
    Option,
    Way,
    options_of,
    picked,
    size_label,
    warnings_of,
    ways_among,
)
from interp.circuits.sharing.circuit_transfer import (
    KNOCKED_OUT_SHARES,
    NECESSITY,
    SUFFICIENCY,
    TRANSFER_SHARES,
)
from interp.circuits.sharing.overlap_measures import MEASURES_OF_OVERLAP
from interp.core.classifiers import Classifier
from interp.core.errors import (
    AlikeError,
    NumericsError,
    ShapeError,
    SiteError,
    SpecificationError,
    check_known,
    listed,
)
from interp.core.faces.doors import door
from interp.core.images import ImageTable, Preprocess
from interp.core.progress import track
from interp.core.sites import UNITS
from interp.core.statistics.index_of_sharing import UNKNOWN
from interp.core.tables import COLUMNS, EVIDENCE, Table
from interp.core.tower import Tower
from interp.measures.circuit_tables import PER_HALF, CircuitOptions, circuits_of, cuts_of
from interp.measures.ladder import ladder_tables
from interp.measures.subject import Subject
from interp.verdicts.judging import judged_rows, ladder_rows
from interp.verdicts.rungs import RUNGS
from interp.verdicts.votes import agreement_with_usual

N_WAYS = 24
"""Ways to score parts that are taken unless more are asked for."""

REFUSALS = (AlikeError, NumericsError, ShapeError, SiteError, SpecificationError)
"""What a way may end in that others do not: a corruption that leaves pictures alike, a method that
does not take this tower. Too few classes are too few under every choice."""

USUAL = CircuitOptions(edges=False, by_site=False, beside=False)
"""The ladder's options but for what no verdict on the whole tower by units rests on."""


@door
def multiverse(
    tower: Tower,
    images: ImageTable,
    *,
    domains: Sequence[str],
    classifier: Classifier,
    preprocess: Preprocess,
    sites: Sequence[str] | None = None,
    choices: Mapping[str, Sequence[Option]] | None = None,
    n: int = PER_HALF,
    n_ways: int = N_WAYS,
    seed: int = 0,
) -> Table:
    """Judge whether two domains share parts (R5) and wiring (R6) under every reasonable choice.

    Args:
        tower: The tower.
        images: The pictures.
        domains: The two domains.
        classifier: The classes.
        preprocess: From a picture to the tower's input.
        sites: Names or patterns of the sites whose units circuits are made of. None takes those of
            the ladder: what a ResNet's blocks hand on, a ViT's neurons.
        choices: For some choices the options to try beside the usual one. They are `method` (of
            `circuits.UNIT_METHODS`), `metric` (of `circuits.METRICS`), `corruption` (of
            `circuits.CORRUPTIONS`), `steps` of integration, `size` (shares of parts) and `overlap`
            (of `circuits.MEASURES_OF_OVERLAP`). None tries all that are quick.
        n: Pictures of each class, in each half of a domain's artists, that circuits are found on;
            at most so many.
        n_ways: Ways to score parts (combinations of method, metric, corruption and steps) that are
            taken; at most so many. Sizes and measures of overlap cross with each of them.
        seed: Seed of all draws.

    Returns:
        A row for each rung and combination of options, with a column per choice, evidence and
        verdict. `default` marks what the ladder does. `agree` is, per rung, the share of the other
        combinations with the same verdict, of those that have an index; `n_possible` counts all
        combinations there are. The facts `R5` and `R6` count refusals and opposite verdicts.

    Raises:
        DataError: For an unknown domain.
        SpecificationError: For other than two different domains, an unknown choice or option, less
            than one way, or a tower without known units where no sites are named.
        SiteError: For unknown sites, or sites without units.
        SampleError: With fewer than four classes by two artists.

    Notes:
        Where there are more ways than `n_ways`, the usual one is taken, then those that differ in
        one choice, then others; which ones is drawn.

        Circuits are those of units, of the whole tower; rungs are judged as the ladder judges them.
        Numbers of R6 are means of both directions, and p is the larger. p of one size is adjusted
        over the sizes that are run with it.

        Metrics that fall where a model does well cannot say how much of its work a circuit does,
        and are no option. Under a corruption of the picture itself, `reason` carries a warning.

    >>> import torch
    >>> from PIL import Image, ImageColor
    >>> from interp.circuits import Chain
    >>> names = ("red", "lime", "blue", "white", "yellow", "cyan")
    >>> rows = [(label, domain, artist) for label in names for domain in ("real", "sketch")
    ...         for artist in "ab"]
    >>> frame = pd.DataFrame(rows, columns=["label", "domain", "artist"])
    >>> frame = frame.assign(path=range(len(rows)), split="test", caption="")
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))
    >>> head = Classifier(torch.tensor([ImageColor.getrgb(name) for name in names]) / 255, names)
    >>> tower = Chain([torch.nn.Identity()], axes=("batch", "pos", "channel"))
    >>> table = multiverse(tower, images, domains=("real", "sketch"), classifier=head,
    ...                    preprocess=lambda image: torch.tensor([image.getpixel((0, 0))]) / 255,
    ...                    sites=["hook_embed"], n_ways=2, choices={"size": [0.5]})
    >>> table.facts["ways"], table.facts["ways_possible"]
    (2, 80)
    >>> table.frame["rung"].value_counts().to_dict()
    {'R5': 12, 'R6': 4}
    """
    choice_options = options_of(choices)
    check_known(ASKED, "domain", list(domains), images.domains)
    if len(domains) != 2 or len(set(domains)) != 2:
        raise SpecificationError(
            ASKED, f"the domains {listed(list(domains))}", "two different domains", "name two"
        )
    if n_ways < 1:
        raise SpecificationError(
            ASKED, f"n_ways = {n_ways}", "1 or more", "ask for the usual way at least"
        )
    if not images.label.isin(classifier.class_names).any():
        check_known(ASKED, "class", list(images.labels)[:1], classifier.class_names)
    subject = Subject.of_tower(
        tower, images, domains=domains, classifier=classifier, preprocess=preprocess, seed=seed
    )
    return multiverse_table(
        subject, choice_options, n_ways=n_ways, options=replace(USUAL, n=n, units=sites)
    )


def multiverse_table(
    subject: Subject,
    choices: Mapping[str, Sequence[Option]],
    *,
    n_ways: int = N_WAYS,
    options: CircuitOptions = USUAL,
) -> Table:
    """The verdicts on R5 and R6 of a subject's pair, by way to score parts and later choices.

    Args:
        subject: The model under study.
        choices: For each choice its options, the usual one first: `options_of`.
        n_ways: Ways to score parts that are taken, at most.
        options: The usual way to climb the ladder.

    Returns:
        The table that `multiverse` describes.

    Raises:
        SpecificationError: For a tower without known units where no sites are named.
        SampleError: With too few classes.
    """
    if not cuts_of(subject, options):
        given = f"a {type(subject.tower).__name__} with none of {listed(UNITS)}"
        right = "the names of sites with channels, neurons or heads"
        raise SpecificationError(ASKED, given, right, "pass sites=[...]")
    every = ways_among(choices)
    ways = picked(every, n_ways, subject.seed)
    later = {rung: _later(rung, choices) for rung in ("R5", "R6")}
    rows = []
    for way in track(ways, "choices"):
        answers = _answers(subject, way, later, options)
        for (rung, place), answer in answers.items():
            usual = way == every[0] and place == 0
            rows.append(_row(subject, rung, way, later[rung][place], answer, usual))
    parts, counts = [], {}
    for rung, own in pd.DataFrame(rows).groupby("rung", sort=False):
        agreement = agreement_with_usual(own)
        possible = round(len(own) * len(every) / len(ways))
        parts.append(own.assign(agree=agreement.share, n_possible=possible))
        counts[str(rung)] = {**asdict(agreement), "agree": agreement.share, "possible": possible}
    facts = {"choices": dict(choices), "ways": len(ways), "ways_possible": len(every), **counts}
    return Table.with_evidence("multiverse", pd.concat(parts, ignore_index=True), facts)


class Later(NamedTuple):
    """What is chosen once parts are scored; a size of None is the ladder's own."""

    size: float | None
    overlap: str = ""


def _later(rung: str, choices: Mapping[str, Sequence[Option]]) -> list[Later]:
    """What is chosen once parts are scored, without what comes to the same; the usual one first.

    The ladder itself compares a tenth of the parts (R5), and runs circuits of several sizes (R6).
    """
    usual = USUAL.share if rung == "R5" else None
    sizes = dict.fromkeys(usual if size == USUAL_SIZE else float(size) for size in choices["size"])
    if rung == "R6":
        return [Later(size) for size in sizes]
    return [
        Later(size, name)
        for name in map(str, choices["overlap"])
        for size in (sizes if MEASURES_OF_OVERLAP[name][1] else [None])
    ]


def _answers(
    subject: Subject, way: Way, later: Mapping[str, Sequence[Later]], usual: CircuitOptions
) -> dict[tuple[str, int], dict[str, object]]:
    """What one way answers, by rung and place among the later choices; or why it does not."""
    options = replace(
        usual,
        method=way.method,
        metric=way.metric,
        steps=way.steps or usual.steps,
        corruption=None if way.corruption == ANOTHER_CLASS else way.corruption,
    )
    places = [(rung, place) for rung, each in later.items() for place in range(len(each))]

    @cache
    def measured(table: str, size: float | None) -> pd.DataFrame:
        """A table at a size, or at the ladder's own."""
        sized = options if size is None else replace(options, share=size, shares=[size])
        return ladder_tables(subject, [table], pairs=[subject.pair], options=sized)[table]

    try:
        for cut in cuts_of(subject, options):
            for domain in subject.pair:
                circuits_of(subject, domain, cut, options)  # what cannot be scored is refused
        return {
            (rung, place): _answer(rung, _rows(rung, measured, *later[rung][place]))
            for rung, place in places
        }
    except REFUSALS as error:
        names = ("value", *EVIDENCE, "index_low", "index_high", "votes")
        nothing = {name: COLUMNS[name].empty for name in names}
        refused = {**nothing, "n_runs": 1, "verdict": UNKNOWN, "reason": str(error)}
        return dict.fromkeys(places, refused)


def _rows(
    rung: str,
    measured: Callable[[str, float | None], pd.DataFrame],
    size: float | None,
    overlap: str,
) -> pd.DataFrame:
    """The rows that judge a rung at a size, named as those of the ladder's own sizes."""
    if rung == "R5":
        rows = measured("overlap", size or USUAL.share)
        return rows[rows["measure"] == overlap].assign(measure=RUNGS["R5"].judged.measure)
    parts = []
    for question, sizes in ((SUFFICIENCY, TRANSFER_SHARES), (NECESSITY, KNOCKED_OUT_SHARES)):
        rows = measured("circuit_transfer", None if size in (None, *sizes) else size)
        at_size = (rows["measure"] == question.measure) & (rows["share"] == size)
        chosen = rows["measure"] == question.over_sizes if size is None else at_size
        parts.append(rows[chosen].assign(measure=question.over_sizes))
    return pd.concat(parts, ignore_index=True)


NUMBERS = ("value", "low", "high", "null", "ceiling")
"""What is averaged where several rows judge a rung: two directions, or two kinds of units."""


def _answer(rung: str, rows: pd.DataFrame) -> dict[str, object]:
    """The verdict on a rung by its rows, as the ladder gives it, with the evidence behind it."""
    verdict = ladder_rows(judged_rows({RUNGS[rung].judged.table: rows})).iloc[0]
    behind = RUNGS[rung].judged.select(rows)
    first = behind.iloc[0]
    ends = behind.groupby(["domain_a", "domain_b"], sort=False)
    return {
        **verdict[["verdict", "index", "index_low", "index_high", "votes"]],
        **{name: behind[name].astype(float).mean() for name in NUMBERS},
        **first[["null_kind", "ceiling_kind", "unit", "n_units", "n_runs"]],
        "p": behind["p"].max(),
        "n_pictures": ends["n_pictures"].max().sum(),
        "n_drawings": behind["n_drawings"].max() if "n_drawings" in behind else np.nan,
        "estimand": first["estimand"] + (", mean of both directions" if len(ends) > 1 else ""),
        "reason": verdict["reason"],
    }


def _row(
    subject: Subject, rung: str, way: Way, later: Later, answer: Mapping[str, object], usual: bool
) -> dict[str, object]:
    """A row of the table: what was chosen, and the answer then."""
    a, b = subject.pair
    reasons = filter(None, [str(answer["reason"]), *warnings_of(way)])
    return {
        "rung": rung,
        "claim": RUNGS[rung].claim,
        "domain_a": a,
        "domain_b": b,
        **way._asdict(),
        "steps": np.nan if way.steps is None else way.steps,
        "size": "" if rung == "R5" and later.size is None else size_label(later.size),
        "overlap": later.overlap,
        "default": usual,
        **answer,
        "reason": "; ".join(reasons),
        "seed": subject.seed,
    }

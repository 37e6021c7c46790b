"""Do two domains arrange the classes alike, layer by layer? Any measure, with null and ceiling."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations, product

import pandas as pd
import torch

from interp.core.errors import SampleError, SpecificationError, listed
from interp.core.images import ImageTable, Preprocess
from interp.core.model import Tower
from interp.core.progress import say, track
from interp.core.tables import Table
from interp.probes.arrangements import MOST_PAIRS, check_arrangement
from interp.probes.collecting import as_features
from interp.probes.comparison import LEAST_CLASSES, Comparison, compare
from interp.probes.features import Features, check_domains
from interp.probes.halves import meeting_halves
from interp.probes.layers import same_pictures
from interp.probes.measured import Design
from interp.probes.planning import classes_needed, interval_width, null_deviation
from interp.probes.reordered import foretell_reordering
from interp.probes.similarity_rows import comparison_rows


def similarity(
    source: Tower | Features,
    images: ImageTable | None = None,
    sites: str | Iterable[str] | None = None,
    *,
    measure: str = "cka",
    rows: str = "class mean",
    other: Features | None = None,
    other_name: str = "other",
    preprocess: Preprocess | None = None,
    pool: str = "mean",
    layers: str = "same",
    domains: Sequence[str] | None = None,
    n_splits: int = 5,
    n_permutations: int = 999,
    seed: int = 0,
    control: str = "",
    batch_size: int = 256,
    device: str | torch.device | None = None,
) -> Table:
    """Similarity between domains of class means, per site and pair of domains, with its evidence.

    Rows of the compared matrices are classes that both domains have. Each class's artists are dealt
    into halves 1 and 2 (the same deal in both domains, equally many pictures in each), so that

        value   = mean of the m(A_i, B_j) that share no artist
        ceiling = sqrt(m(A_1, A_2) m(B_1, B_2))
        null    = mean of the value over permutations of B's classes
        index   = (value - null) / (ceiling - null)

    averaged over `n_splits` deals (the two under the root before the root is taken), m debiased
    CKA, or the `measure` of a name in `MEASURES`. Intervals leave one class out at a time, of value
    and of the whole index. p counts permutations of whole classes whose largest studentised value
    over the layers of the domain pair reaches this one's. Where artists drew in both domains, A_1
    and B_1 share their drawings while the ceiling's A_1 and A_2 do not; counting them, domains that
    share nothing but marks of the drawing reach an index of .3, and domains that share all reach 2.
    So A_1 meets B_2 and A_2 meets B_1 only; with different artists in the two domains all four
    meet. An index is not clipped.

    The null of a measure that is an inner product of matrices of rows (CKA linear and RBF, biased
    too, RSA, mutual k-NN) is its exact mean over permutations of classes, 0 for debiased CKA. The
    others (Procrustes, SVCCA, PWCCA, linear predictivity, minibatch CKA) are taken anew in each
    order of the classes; how often and for how long is said beforehand. Their null is the mean over
    the `n_permutations`, and with a class left out that null moved by how 20 of the permutations
    change. PWCCA and predictivity, which differ by direction, are averaged over both directions,
    in value, null and ceiling alike; predictivity deals whole classes into folds. SVCCA and PWCCA
    are refused where two halves together keep as many dimensions as there are classes, since they
    are then 1 whatever the data; linear predictivity finds nothing in halves of a domain where the
    classes of the training folds do not span the others, and then has no index.

    "cross_validated_cka" is HSIC(A_i, B_j) / sqrt(HSIC(A_1, A_2) HSIC(B_1, B_2)), means over
    deals, with ceiling 1 and not clipped. `rows`:

        "class mean"       a row per class
        "picture pair"     up to 8 pictures of A, each with one of B of its class, no artist common
                           to both; classes move as blocks in the null, which is above 0
        "class structure"  no pairs of pictures: kernels between classes of means <m_c, m_d> and of
                           within-class covariances tr(C_c C_d), in units of the variance; CKA alone

    `other` takes domain B from another model's features of the same pictures: then domains meet
    themselves too, and A_1 its B_2. `layers="same"` compares a site with itself, `"all"` every
    site of A with every site of B (columns `site` and `site_b`). `control` names a floor, such as
    "epoch 0"; pixels name themselves. A pair that cannot be measured is a row with a `reason`. The
    deviation of CKA without sharing at this number of classes is said beforehand
    (`classes_needed`).

    Shapes: features "picture d"; CKA of 45 classes, 17 sites, 15 pairs takes seconds on one core.
    Raises `SampleError` when no pair has five classes with pictures by two artists in both domains.

    >>> import numpy as np
    >>> stream = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, d, a) for c in "abcdefgh" for d in ("real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> place = frame["label"].map({c: n for n, c in enumerate("abcdefgh")}).to_numpy()
    >>> points = stream.normal(size=(8, 16))[place] + 0.1 * stream.normal(size=(64, 16))
    >>> table = similarity(Features({"hook_embedding": points.astype(np.float32)}, frame))
    >>> table.frame["verdict"].tolist()
    ['shared']
    """
    check_arrangement(measure, rows, layers)
    features = as_features(
        source, images, sites, preprocess=preprocess, pool=pool, batch_size=batch_size,
        device=device,
    )  # fmt: skip
    if other is not None:
        other = _fitting(features, other, layers)
    names = check_domains(features, domains, "measure similarity")
    pairs = list(combinations(names, 2) if other is None else product(names, names))
    _foretell(features, names)
    design = Design(measure, rows, layers, n_splits, n_permutations, seed)
    if not design.by_matrix:
        _foretell_reordering(features, other or features, pairs, design)
    # a slow measure says itself how far it is, pair by pair
    steps = track(pairs, "similarity") if design.by_matrix else pairs
    compared = [compare(features, other or features, a, b, design) for a, b in steps]
    _refuse_nothing(compared, names)
    found = [
        row
        for comparison in compared
        for row in comparison_rows(features, other or features, comparison, design, control)
    ]
    frame = pd.DataFrame(found).assign(n_runs=1, seed=seed)
    if other is not None:
        frame["model_b"] = other_name
    facts = {**features.facts, "n_splits": n_splits, "n_permutations": n_permutations}
    return Table.with_evidence("similarity", frame, {**facts, "rows": rows})


def _fitting(features: Features, other: Features, layers: str) -> Features:
    """Another model's features of the same pictures, of the same sites where those are paired."""
    same_pictures(features, other)
    if layers == "same":
        if set(features.sites) - set(other.sites):
            raise SpecificationError(
                "compare two models layer by layer",
                f"the sites {listed(features.sites)} and {listed(other.sites)}",
                "the same sites in both",
                "pass layers='all'",
            )
        other = replace(other, values={site: other.values[site] for site in features.sites})
    return other


def _foretell(features: Features, names: Sequence[str]) -> None:
    """Say what this number of classes can show."""
    n = features.frame["label"][features.frame["domain"].isin(names)].nunique()
    if n >= LEAST_CLASSES:
        say(
            f"similarity over at most {n} classes: without sharing, debiased CKA deviates by "
            f"{null_deviation(n):.2f} and its interval is {interval_width(n):.2f} wide; a width of "
            f".4 needs {classes_needed(0.4)} classes where halves agree fully"
        )


def _foretell_reordering(
    features: Features, other: Features, pairs: Sequence[tuple[str, str]], design: Design
) -> None:
    """Say what a measure costs that is taken anew for every order of the classes."""
    frame = features.frame
    in_pairs = frame["domain"].isin({name for pair in pairs for name in pair})
    n_classes = frame["label"][in_pairs].nunique()
    cells = len(features.sites) * (len(other.sites) if design.layers == "all" else 1)
    meetings = sum(len(meeting_halves(frame, a, b)) for a, b in pairs)
    width = max(matrix.shape[1] for matrix in features.values.values())
    size = MOST_PAIRS if design.rows == "picture pair" else 1
    if n_classes >= LEAST_CLASSES:
        foretell_reordering(design, n_classes, size, width, cells * len(pairs), cells * meetings)


def _refuse_nothing(compared: Sequence[Comparison], names: Sequence[str]) -> None:
    if any(len(comparison.classes) >= LEAST_CLASSES for comparison in compared):
        return
    most = max((len(comparison.classes) for comparison in compared), default=0)
    raise SampleError(
        f"measure similarity between {listed(names)}",
        f"at most {most} classes with pictures by two artists in both of two domains",
        f"at least {LEAST_CLASSES}: four for the unbiased estimator, one to leave out",
        "give more classes, or two pictures of each class and domain",
    )

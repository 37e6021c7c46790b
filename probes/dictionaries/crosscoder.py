"""Crosscoders: one dictionary for two models, whose features are shared or one model's alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import pandas as pd

from interp.core.artists import artist_column, artist_halves
from interp.core.errors import SampleError, ShapeError, SpecificationError
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import NO_VERDICT, Evidence, counts_of
from interp.core.statistics.index_of_sharing import LEVEL
from interp.core.statistics.resampling import jackknife
from interp.core.tables import Table
from interp.probes.dictionaries.dictionary import BatchTopK, Dictionary
from interp.probes.dictionaries.dictionary_quality import match_features
from interp.probes.dictionaries.linear_code import Cells, training_rows
from interp.probes.dictionaries.train_dictionaries import DescentKeywords, train_dictionaries
from interp.probes.dictionaries.usage import only_site
from interp.probes.features.features import Features
from interp.probes.galleries.gallery import N_RANDOM, Gallery, gallery_of
from interp.probes.galleries.peaks import Peaks
from interp.probes.representational_similarity.layer_similarity import same_pictures

SHARED, ONLY_A, ONLY_B, UNCLEAR = "shared", "only A", "only B", "unclear"

BOTH = "both models"
"""The site of the activations of both, side by side."""

ALONE, ALIKE, STEADY = 0.1, 0.25, 0.7
"""Shares below which a model lacks a feature, and from which both have it; and the cosine from
which another seed's feature is the same."""

LEAST_ACTIVE = 8
"""Pictures of each half in which a feature must be active."""


@dataclass(frozen=True, eq=False)
class Crosscoder:
    """Dictionaries of two models' activations side by side, as `crosscoder` makes them.

    Args:
        dictionaries: One per seed; the first is the one whose features the table is about.
        features: The table: a row per feature that is active in pictures enough.
        values: Activations of both models, scaled alike, side by side "picture d_a + d_b".
        d_a: How many of them are A's.

    >>> import torch
    >>> eye, zero = torch.eye(2), torch.zeros(2)
    >>> one = Dictionary(eye, eye, zero, zero, zero)
    >>> Crosscoder((one,), Table("crosscoder", pd.DataFrame()), np.eye(2), 1).strengths().tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    dictionaries: tuple[Dictionary, ...]
    features: Table
    values: np.ndarray
    d_a: int

    def __repr__(self) -> str:
        d_b = self.values.shape[1] - self.d_a
        return (
            f"Crosscoder: features {len(self.features)}, pictures {len(self.values):,}, "
            f"activations {self.d_a} of A and {d_b} of B, seeds {len(self.dictionaries)}"
        )

    def strengths(self) -> np.ndarray:
        """Strengths of the features in all pictures, "picture feature", for a gallery."""
        return self.dictionaries[0](self.values)

    def gallery(self, images: ImageTable, *, seed: int = 0) -> Gallery:
        """The pictures that each feature responds to, domains side by side.

        Args:
            images: The pictures that both models' activations are of, in the same order.
            seed: Seed of halves, permutations and random directions.

        Returns:
            The gallery, whose units are the features, at all places of a picture together. Held
            against random directions of both models' activations, cut off below 0.

        Raises:
            ShapeError: For another number of pictures.
            SampleError: For fewer than two classes with drawings in both halves of the artists.
        """
        strengths = self.strengths()
        if len(images) != len(strengths):
            right = f"the {len(strengths)} that it was made of"
            do = "select the same pictures"
            raise ShapeError("make a gallery of a crosscoder", f"{len(images)} pictures", right, do)
        ways = rng("random directions of a gallery", seed).normal(
            size=(self.values.shape[1], N_RANDOM)
        )
        random = np.maximum(self.values @ (ways / np.linalg.norm(ways, axis=0)), 0)
        peaks = Peaks(strengths, np.zeros(strengths.shape, dtype=int), None)
        return gallery_of(images, BOTH, "feature", peaks, random, seed=seed)


@door
def crosscoder(
    features: Features,
    other: Features,
    *,
    site: str | tuple[str, str],
    width: int = 64,
    k: int = 8,
    seeds: Sequence[int] = (0, 1, 2),
    withheld: Cells | None = None,
    n_permutations: int = 199,
    seed: int = 0,
    **descent: Unpack[DescentKeywords],
) -> Crosscoder:
    """Find features of two models together, and say which model carries each.

        share = <w_B1, w_B2> / (<w_A1, w_A2> + <w_B1, w_B2>),    w = sum z y / sum z^2

    with z a feature's strengths and y what the other features leave of a model's activations, in
    two halves 1 and 2 of artists whose pictures the dictionary was not trained on. So share is 0
    for a feature of A alone, 1 for one of B alone, and 1/2 for one that both carry as strongly.

    Args:
        features: A's features of pictures "picture d_a".
        other: B's features of the same pictures.
        site: The site, or A's and B's.
        width: Features of the dictionary.
        k: Features of a picture, on average (`BatchTopK`); with more than there are, features split
            and other seeds do not find them.
        seeds: Seeds of dictionaries; a feature must be found again by the others.
        withheld: Cells (class, domain) that dictionaries are not trained on, as of
            `train_dictionaries`.
        n_permutations: Permutations of pictures, for p.
        seed: Seed of halves and permutations.
        steps: Steps of Adam.
        batch_size: Pictures per step.
        rate: Learning rate.

    Returns:
        The dictionaries, and a table with a row per feature: `value` is its share, with its
        interval; `role` is "shared", "only A", "only B" or "unclear"; `cosine` how far the nearest
        features of other seeds point the same way; p, for the model that carries it less, says
        whether it does at all.

    Raises:
        SpecificationError: For fewer than two seeds.
        ShapeError: For features of other pictures.
        SampleError: For too few classes or artists, or fewer pictures than `width`.
        LeakError: Where nothing says which cells are withheld.
        SiteError: For a site that the features do not have.

    References:
        Crosscoders: Lindsey et al. 2024. BatchTopK, and latent scaling as the control of features
        that seem one model's: Minder et al. 2025, arXiv 2504.02922.

    Notes:
        - Both models' activations are centred and scaled to the same mean square, and a dictionary
          is trained on them side by side.
        - Decoder norms call a feature one model's where sparsity merely made it so. So they are not
          used: what each model's activations add along a feature is measured anew, by least
          squares, on held-out pictures, and by products of halves, so that noise adds nothing.
        - Only A: the interval of the share lies below .1; only B: above .9; shared: between .25
          and .75, and p of the weaker model is below .05. A feature is unclear unless it has a
          partner of cosine .7 in every other seed, and what both carry exceeds 3 standard errors.
          Intervals leave one class out at a time. The share is not clipped.

    >>> generator = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, "real", a) for c in "abcdef" for a in range(200)],
    ...                      columns=["label", "domain", "artist"])
    >>> z = (generator.random((1200, 6)) < 0.2) * generator.gamma(4, size=(1200, 6))
    >>> ways = np.linalg.qr(generator.normal(size=(2, 16, 16)))[0][:, :6]
    >>> alone = np.array([1, 1, 1, 1, 0, 0.0]), np.array([1, 1, 0, 0, 1, 1.0])
    >>> a, b = (Features({"hook_embedding": ((z * own) @ way).astype(np.float32)}, frame)
    ...         for own, way in zip(alone, ways))
    >>> found = crosscoder(a, b, site="hook_embedding", width=8, k=1, withheld=(), steps=800)
    >>> clear = found.features.frame.query("role != 'unclear'")
    >>> sorted(clear["role"])
    ['only A', 'only A', 'only B', 'only B', 'shared', 'shared']
    """
    if len(seeds) < 2:
        given = f"{len(seeds)} seed"
        right = "two or more: a feature of one is chance"
        raise SpecificationError("train a crosscoder", given, right, "give more seeds")
    same_pictures(features, other)
    sites = (site, site) if isinstance(site, str) else site
    names = only_site(features, sites[0]), only_site(other, sites[1])
    parts = [_scaled(one.values[name]) for one, name in zip((features, other), names, strict=True)]
    values, d_a = np.concatenate(parts, axis=1), parts[0].shape[1]
    frame = features.frame
    deal = artist_halves(frame, sorted(set(frame["domain"])), seed=seed)
    allowed = np.isin(np.arange(len(frame)), training_rows(frame, withheld))
    learned = Features(
        {BOTH: values[(deal == 0) & allowed]}, frame[(deal == 0) & allowed].reset_index(drop=True)
    )
    found = train_dictionaries(
        learned, BOTH, BatchTopK(k), width=width, withheld=withheld, seeds=list(seeds), **descent
    )
    table = _carried(values, d_a, found, frame, deal == 1, n_permutations, seed)
    facts = {"sites": list(names), "width": width, "k": k, "seeds": list(seeds)}
    facts["halves by"] = artist_column(frame)
    return Crosscoder(tuple(found), Table.with_evidence("crosscoder", table, facts), values, d_a)


def _scaled(values: np.ndarray) -> np.ndarray:
    """Activations centred, with a mean square of 1 in all."""
    x = values.astype(np.float64)
    x -= x.mean(axis=0)
    return (x / np.sqrt((x**2).mean())).astype(np.float32)


def _carried(
    values: np.ndarray,
    d_a: int,
    found: Sequence[Dictionary],
    frame: pd.DataFrame,
    tried: np.ndarray,
    n_permutations: int,
    seed: int,
) -> pd.DataFrame:
    """What each model carries along each feature, on pictures that were not trained on."""
    rows = np.flatnonzero(tried)
    own = frame.iloc[rows].reset_index(drop=True)
    side = artist_halves(own, sorted(set(own["domain"])), seed=seed, split=1)
    kept = side >= 0
    rows, own, side = rows[kept], own[kept].reset_index(drop=True), side[kept]
    labels, classes = pd.factorize(own["label"])
    if len(classes) < 3:
        given = f"{len(classes)} classes by artists enough"
        right = "three or more, by four artists each"
        raise SampleError("measure features of two models", given, right, "give more pictures")
    first, y = found[0], values[rows].astype(np.float64)
    z = first(values[rows]).astype(np.float64)
    decoder = first.decoder.double().cpu().numpy()
    rest = y - z @ decoder - first.decoder_bias.double().cpu().numpy()
    partners = [match_features(first, each)[1] for each in found[1:]]
    generator = rng("pictures of features", seed)
    orders = [generator.permutation(len(rows)) for _ in range(n_permutations)]
    made = []
    for j in np.flatnonzero(
        [
            min((z[side == s, j] > 0).sum() for s in (0, 1)) >= LEAST_ACTIVE
            for j in range(first.width)
        ]
    ):
        left = rest + z[:, [j]] * decoder[j]
        carried = _products(z[:, j], left, d_a, side, labels, len(classes))
        drawn = np.array([_products(z[order, j], left, d_a, side)[0] for order in orders])
        cosine = float(min(cosines[j] for cosines in partners))
        weaker = int(carried[0, 0] > carried[0, 1])
        p = (1 + (drawn[:, weaker] >= carried[0, weaker]).sum()) / (1 + len(drawn))
        share = _share(carried)
        reason = "" if cosine >= STEADY else "not found again by another seed"
        reason = FAINT if np.isnan(share[0]) else reason
        spread = jackknife(float(share[0]), share[1:])
        active = own[z[:, j] > 0]
        about = Evidence(
            estimand="which of two models carries a feature of both",
            null_kind="carried as strongly by both; p: pictures permuted, for the weaker model",
            ceiling_kind="carried by B alone",
            seed=seed,
            **counts_of(active, len(classes)),
        )
        row = about.row(spread, null=0.5, ceiling=1.0, index=NO_VERDICT, p=float(p))
        role = UNCLEAR if reason else _role(spread.low, spread.high, p)
        made.append(
            {
                "measure": "share in B",
                "feature": int(j),
                **row,
                "role": role,
                "cosine": cosine,
                "reason": reason,
            }
        )
    if not made:
        given = "no feature that is active in pictures enough"
        right = f"{LEAST_ACTIVE} of each half at least"
        do = "give more pictures, or a larger k"
        raise SampleError("measure features of two models", given, right, do)
    return pd.DataFrame(made)


def _products(
    z: np.ndarray,
    y: np.ndarray,
    d_a: int,
    side: np.ndarray,
    labels: np.ndarray | None = None,
    n_classes: int = 0,
) -> np.ndarray:
    """<w_1, w_2> of A and of B, of all classes and with each left out: "left model"."""
    halves = []
    for half in (0, 1):
        here = side == half
        along, square = z[here, None] * y[here], z[here] ** 2
        if labels is None:
            sums, squares = along.sum(axis=0)[None], square.sum()[None]
        else:
            by_class = np.zeros((n_classes, y.shape[1]))
            np.add.at(by_class, labels[here], along)
            of_class = np.bincount(labels[here], square, minlength=n_classes)
            sums = np.vstack([by_class.sum(axis=0), by_class.sum(axis=0) - by_class])
            squares = np.append(of_class.sum(), of_class.sum() - of_class)
        halves.append(sums / np.maximum(squares, 1e-12)[:, None])
    met = halves[0] * halves[1]
    return np.column_stack([met[:, :d_a].sum(axis=1), met[:, d_a:].sum(axis=1)])


FAINT = "what both models carry is below 3 standard errors"


def _share(carried: np.ndarray) -> np.ndarray:
    """B's part of what both carry, of all classes and with each left out; NaN for too little.

    >>> _share(np.array([[3.0, 1.0], [3.0, 1.0], [3.3, 1.1]])).round(2).tolist()
    [0.25, 0.25, 0.25]
    >>> bool(np.isnan(_share(np.array([[-0.3, -0.2], [-0.4, -0.2], [-0.2, -0.2]]))).all())
    True
    """
    both = carried.sum(axis=1)
    enough = both[0] > 3 * jackknife(float(both[0]), both[1:]).error
    return carried[:, 1] / both if enough else np.full(len(both), np.nan)


def _role(low: float, high: float, p: float) -> str:
    """Which model carries a feature, by the interval of its share and p for the weaker model.

    >>> _role(-0.03, 0.05, 0.4), _role(0.4, 0.6, 0.01), _role(0.4, 0.6, 0.3), _role(0.05, 0.3, 0.01)
    ('only A', 'shared', 'unclear', 'unclear')
    """
    if high < ALONE:
        return ONLY_A
    if low > 1 - ALONE:
        return ONLY_B
    return SHARED if low > ALIKE and high < 1 - ALIKE and p < LEVEL else UNCLEAR

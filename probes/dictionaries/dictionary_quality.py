"""Quality of a dictionary: sparsity, explained variance, dead features, and kept accuracy."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment

from interp.core.edits.edits import AS_IT_IS, Classifier, edited_answers, site_rows
from interp.core.errors import SampleError, ShapeError
from interp.core.faces.doors import door
from interp.core.images import ImageTable, Preprocess
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Evidence, counts_of, leaving_out
from interp.core.statistics.resampling import Interval, jackknife, permutation_p
from interp.core.tables import Table
from interp.core.tower import Tower
from interp.probes.dictionaries.dictionary import Dictionary
from interp.probes.dictionaries.usage import only_site
from interp.probes.features.features import Features

DESCRIBED = "none: a description of the dictionary"
KEPT = "balanced accuracy with the reconstruction in place of the activation"


@door
def dictionary_quality(
    dictionaries: Dictionary | Sequence[Dictionary], features: Features
) -> Table:
    """Measure active features, explained variance and dead features, per dictionary and domain.

        active features     = mean over pictures of the number of features above 0 (L0)
        explained variance  = 1 - sum |x - x^|^2 / sum |x - mean of x|^2, mean within the rows named
        dead features       = share of the dictionary that no picture of these rows uses, 0 to 1

    Args:
        dictionaries: A dictionary, or several, each with its `site` among its facts.
        features: Features "picture d_in" that hold those sites.

    Returns:
        A table with a row per dictionary, measure and group of pictures: those of each domain and
        of all, and where the dictionary knows of withheld cells, also those (`class_set`
        "held-out") and the rest ("seen").

    Raises:
        SiteError: Where the features lack a dictionary's site.
        ShapeError: Where the activations have another width than the dictionary's.
        SampleError: For no pictures.

    Notes:
        Intervals leave out one class at a time. The share of dead features has none, since leaving
        classes out can only add to it.

    >>> generator = np.random.default_rng(0)
    >>> frame = pd.DataFrame({"label": list("abcd") * 9, "domain": "real"})
    >>> eye, zero = torch.eye(2), torch.zeros(2)
    >>> dictionary = Dictionary(eye, eye, zero, zero, zero, facts={"site": "s"})
    >>> values = np.abs(generator.normal(size=(36, 2))).astype(np.float32)
    >>> table = dictionary_quality(dictionary, Features({"s": values}, frame))
    >>> table.frame.query("domain == 'real'")["value"].round(3).tolist()
    [2.0, 1.0, 0.0]
    """
    several = [dictionaries] if isinstance(dictionaries, Dictionary) else list(dictionaries)
    rows: list[dict[str, object]] = []
    for dictionary in several:
        site = only_site(features, str(dictionary.facts["site"]))
        x = features.values[site]
        active = dictionary(x) > 0
        made = [dictionary.reconstruct(part).cpu() for part in dictionary.rows(x)]
        lacking = (x - torch.cat(made).numpy()).astype(np.float64)
        place = {"site": site, "layer": features.layer(site), "depth": features.depth(site)}
        for (domain, class_set), chosen in _groups(features.frame, dictionary).items():
            part = features.frame[chosen]
            about = Evidence(
                estimand="this dictionary on these pictures",
                null_kind=DESCRIBED,
                seed=int(dictionary.facts.get("seed", 0)),
                **counts_of(part, part["label"].nunique()),
            )
            rows += [
                place
                | {"width": dictionary.width, "sparsity": dictionary.facts.get("sparsity", "")}
                | {"domain": domain, "class_set": class_set, "measure": measure}
                | about.row(value, null=np.nan, reason=reason)
                for measure, value, reason in _described(
                    x[chosen], lacking[chosen], active[chosen], part["label"]
                )
            ]
    return Table.with_evidence("dictionaries", pd.DataFrame(rows), dict(features.facts))


@door
def recovered_accuracy(
    dictionary: Dictionary,
    tower: Tower,
    images: ImageTable,
    *,
    preprocess: Preprocess,
    classifier: Classifier,
    class_names: Sequence[str],
    batch_size: int = 256,
) -> Table:
    """Balanced accuracy per domain when the dictionary's reconstruction replaces the activation.

        value = with the reconstruction; ceiling = as it is; null = with the mean over all pictures
        index = (value - null) / (ceiling - null), the share of accuracy that is recovered

    Args:
        dictionary: The dictionary, with its `site` and `pool` among its facts.
        tower: The tower.
        images: The pictures.
        preprocess: From a picture to the tower's input, such as "channel row column".
        classifier: From embeddings "batch d_embed" to logits "batch class", as a zero-shot head
            does.
        class_names: The classes in the order of the logits.
        batch_size: Pictures per forward.

    Returns:
        A table with a row per domain. Accuracy is 0 to 1.

    Raises:
        SiteError: For a site that the tower does not have.
        SampleError: For no pictures.
        DataError: For pictures of a class without a name.
        ShapeError: Where logits and class names, or activations and dictionary, do not fit.
        NumericsError: For logits that are not finite.
        SpecificationError: For a dictionary of activations pooled by attention, which cannot be
            edited.

    Notes:
        The change is made as the activations were pooled: the mean over tokens moves all of them
        alike, the class token alone is moved, or each token by itself. Intervals leave one class
        out at a time.

    >>> from PIL import Image
    >>> from interp.circuits import Chain
    >>> frame = pd.DataFrame({"path": "", "label": ["cat", "dog"], "domain": "real",
    ...                       "split": "test", "caption": ""})
    >>> lit = {"cat": [[255, 0]], "dog": [[0, 255]]}
    >>> images = ImageTable(frame, reader=lambda row: Image.fromarray(np.uint8(lit[row.label])))
    >>> eye, zero, site = torch.eye(2), torch.zeros(2), "blocks.0.hook_resid_post"
    >>> table = recovered_accuracy(
    ...     Dictionary(eye, eye, zero, zero, zero, facts={"site": site}),
    ...     Chain([torch.nn.Identity()]), images, class_names=["cat", "dog"],
    ...     classifier=lambda embedding: embedding,
    ...     preprocess=lambda picture: torch.tensor(np.array(picture)[..., 0] / 255).float())
    >>> table.frame[["value", "null", "ceiling"]].values.tolist()
    [[1.0, 0.5, 1.0]]
    """
    site, pool = str(dictionary.facts["site"]), str(dictionary.facts.get("pool") or "mean")
    seen = site_rows(tower, images, site, preprocess=preprocess, pool=pool, batch_size=batch_size)
    mean = seen.flatten(0, 1).mean(dim=0)
    like = dictionary.to(seen.device, seen.dtype)
    edits = {
        "reconstruction": lambda x, rows: like.reconstruct(x),
        "mean": lambda x, rows: mean.expand_as(x),
    }
    found = edited_answers(
        tower,
        images,
        site,
        edits,
        preprocess=preprocess,
        classifier=classifier,
        class_names=class_names,
        pool=pool,
        batch_size=batch_size,
    )
    right = {name: found.right(name) for name in ("reconstruction", "mean", AS_IT_IS)}
    rows = []
    for domain in images.domains:
        chosen = (images.frame["domain"] == domain).to_numpy()
        part = images.frame[chosen]
        each = [by_label(values[chosen], part["label"]) for values in right.values()]
        about = Evidence(
            estimand=KEPT,
            null_kind="mean activation instead",
            ceiling_kind="the activation as it is",
            seed=int(dictionary.facts.get("seed", 0)),
            **counts_of(part, len(each[0])),
        )
        rows.append(
            {
                "measure": "recovered accuracy",
                "site": site,
                "layer": tower.layer(site),
                "width": dictionary.width,
                "sparsity": dictionary.facts.get("sparsity", ""),
                "domain": domain,
            }
            | about.with_verdict(leaving_out(np.stack(each, axis=1)))
            | {"verdict": ""}
        )
    return Table.with_evidence("recovered accuracy", pd.DataFrame(rows))


def by_label(values: np.ndarray, labels: pd.Series) -> np.ndarray:
    """Mean of each class's pictures, classes sorted.

    >>> by_label(np.array([1, 0, 1]), pd.Series(["cat", "cat", "dog"])).tolist()
    [0.5, 1.0]
    """
    return pd.Series(values, dtype=float).groupby(labels.to_numpy()).mean().to_numpy()


def _groups(frame: pd.DataFrame, dictionary: Dictionary) -> dict[tuple[str, str], np.ndarray]:
    """Pictures of all domains and of each; of each also held-out and seen cells, if there are."""
    if not len(frame):
        raise SampleError("describe a dictionary", "no pictures", "at least one", "check the rows")
    domain = frame["domain"].to_numpy(object)
    cells = pd.MultiIndex.from_frame(frame[["label", "domain"]])
    withheld = [tuple(cell) for cell in dictionary.facts.get("withheld", ())]
    out = cells.isin(withheld) if withheld else np.zeros(len(frame), dtype=bool)
    groups = {("", "all"): np.ones(len(frame), dtype=bool)}
    for name in sorted(set(domain)):
        here = domain == name
        groups[name, "all"] = here
        if (here & out).any() and (here & ~out).any():
            groups |= {(name, "held-out"): here & out, (name, "seen"): here & ~out}
    return groups


def _described(
    x: np.ndarray, lacking: np.ndarray, active: np.ndarray, labels: pd.Series
) -> list[tuple[str, Interval, str]]:
    """Measure, value with its interval, and the reason for a missing interval."""
    code = np.unique(labels.to_numpy(object).astype(str), return_inverse=True)[1]
    x = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)

    def sums(values: np.ndarray) -> np.ndarray:
        """Per class."""
        return np.bincount(code, weights=values)

    count = np.bincount(code).astype(float)
    on, error = sums(active.sum(axis=1)), sums((lacking**2).sum(axis=1))
    square, total = sums((x**2).sum(axis=1)), np.stack([sums(each) for each in x.T], axis=1)

    def explained(kept: np.ndarray) -> float:
        """From whole classes: the variance is about the mean of those kept."""
        spread = square[kept].sum() - (total[kept].sum(axis=0) ** 2).sum() / count[kept].sum()
        return float(1 - error[kept].sum() / spread) if spread > 0 else np.nan

    everyone = np.arange(len(count))
    left = [everyone != one for one in everyone] if len(count) > 1 else []
    dead = 1 - float(active.any(axis=0).mean())
    variance = jackknife(explained(everyone >= 0), [explained(kept) for kept in left])
    few = "" if left else "one class: no interval"
    return [
        (
            "active features",
            jackknife(
                float(on.sum() / count.sum()), [on[kept].sum() / count[kept].sum() for kept in left]
            ),
            few,
        ),
        (
            "explained variance",
            variance,
            few if np.isfinite(variance.value) else "activations that do not vary",
        ),
        (
            "dead features",
            Interval(dead, np.nan, np.nan, np.nan),
            "no interval: leaving classes out only adds dead features",
        ),
    ]


SAME = 0.7
"""Cosine from which two features count as one (Paulo and Belrose 2025)."""


def match_features(first: Dictionary, second: Dictionary) -> tuple[np.ndarray, np.ndarray]:
    """Match the features of two dictionaries one to one by the cosines of their directions.

    Args:
        first: A dictionary.
        second: Another dictionary of the same activations.

    Returns:
        For each feature of `first` its partner in `second`, and the cosine of their directions.

    Raises:
        ShapeError: For dictionaries of activations of different width.

    Notes:
        The assignment has the largest sum of cosines (Hungarian method). Where `second` is
        narrower, features that are left over have partner -1 and cosine 0.

    >>> import torch
    >>> eye, zero = torch.eye(3), torch.zeros(3)
    >>> one = Dictionary(eye, eye, zero, zero, zero)
    >>> other = Dictionary(eye, eye[[2, 0, 1]], zero, zero, zero)
    >>> match_features(one, other)[0].tolist()
    [1, 2, 0]
    """
    if first.d_in != second.d_in:
        given = f"activations of {first.d_in} and {second.d_in} values"
        right = "dictionaries of one site"
        do = "train both on the same activations"
        raise ShapeError("match the features of two dictionaries", given, right, do)
    return _assigned(_directions(first), _directions(second))


@door
def dictionary_stability(
    dictionaries: Sequence[Dictionary], *, n_null: int = 20, seed: int = 0
) -> Table:
    """Measure how far dictionaries of one site, trained from other seeds, hold the same features.

        mean cosine    = mean over features of the cosine with their partner in `match_features`
        same features  = share of features whose cosine with their partner is at least .7

    averaged over pairs of dictionaries.

    Args:
        dictionaries: At least two dictionaries of the same activations.
        n_null: Draws of random directions for the null.
        seed: Seed of these draws.

    Returns:
        A table with a row per measure.

    Raises:
        SampleError: For fewer than two dictionaries.
        ShapeError: For dictionaries of activations of different width.

    References:
        The cosine of .7: Paulo and Belrose 2025.

    Notes:
        For the null, the directions of one dictionary of each pair are drawn at random with the
        second moments that they have. The ceiling is 1. The interval leaves one dictionary out at a
        time and takes at least three.

    >>> import torch
    >>> eye, zero = torch.eye(8), torch.zeros(8)
    >>> one = Dictionary(eye, eye, zero, zero, zero, facts={"site": "hook_embedding"})
    >>> dictionary_stability([one, one]).frame["value"].tolist()
    [1.0, 1.0]
    """
    if len(dictionaries) < 2:
        given = f"{len(dictionaries)} of them"
        do = "train with seeds=(0, 1, 2)"
        raise SampleError("compare dictionaries over seeds", given, "at least two", do)
    pairs = list(combinations(range(len(dictionaries)), 2))
    both = [(dictionaries[i], dictionaries[j]) for i, j in pairs]
    found = np.array([_agreement(match_features(*pair)[1]) for pair in both])
    null = np.array(
        [
            [_agreement(_by_chance(*pair, seed, draw, n)) for n, pair in enumerate(both)]
            for draw in range(n_null)
        ]
    ).mean(axis=1)
    left = [
        found[[one not in pair for pair in pairs]].mean(axis=0)
        for one in range(len(dictionaries))
        if len(dictionaries) > 2
    ]
    about = Evidence(
        estimand="features that training from another seed would find again",
        null_kind=f"directions at random with the same second moments, {n_null} times",
        ceiling_kind="the same dictionary",
        unit="dictionary",
        seed=seed,
        n_units=len(dictionaries),
        n_pictures=int(dictionaries[0].facts.get("n_rows", 0)),
    )
    rows = []
    for place, measure in enumerate(("mean cosine", "same features")):
        value, chance = float(found[:, place].mean()), float(null[:, place].mean())
        rows.append(
            {
                "measure": measure,
                "site": str(dictionaries[0].facts.get("site", "")),
                "code": "dictionary",
                "width": dictionaries[0].width,
            }
            | about.row(
                jackknife(value, [each[place] for each in left]),
                null=chance,
                ceiling=1.0,
                index=(value - chance) / (1 - chance) if chance < 1 else np.nan,
                p=permutation_p(value, null[:, place]),
                reason="" if left else "two dictionaries: an interval takes three",
            )
        )
    return Table.with_evidence("dictionary stability", pd.DataFrame(rows))


def _directions(dictionary: Dictionary) -> np.ndarray:
    rows = dictionary.decoder.detach().double().cpu().numpy()
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _assigned(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cosine = a @ b.T
    mine, partner = linear_sum_assignment(-cosine)
    found, value = np.full(len(a), -1), np.zeros(len(a))
    found[mine], value[mine] = partner, cosine[mine, partner]
    return found, value


def _agreement(cosine: np.ndarray) -> tuple[float, float]:
    return float(cosine.mean()), float((cosine >= SAME).mean())


def _by_chance(
    first: Dictionary, second: Dictionary, seed: int, draw: int, pair: int
) -> np.ndarray:
    """Cosines with partners among random directions of the second moments that `second` has."""
    directions = _directions(second)
    square, axes = np.linalg.eigh(directions.T @ directions / len(directions))
    root = np.sqrt(np.maximum(square, 0))[:, None] * axes.T
    drawn = rng("dictionary directions", seed, draw, pair).normal(size=directions.shape) @ root
    drawn /= np.maximum(np.linalg.norm(drawn, axis=1, keepdims=True), 1e-12)
    return _assigned(_directions(first), drawn)[1]

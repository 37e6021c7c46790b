"""How much each class uses each feature in two domains, on halves that share no artist."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from interp.core.errors import NumericsError, ShapeError, SiteError, check_known
from interp.probes.features import Features
from interp.probes.halves import artist_halves, halved_classes, meeting_halves, n_drawings


@dataclass(frozen=True)
class Design:
    """Which pictures of domains A and B meet which, the same for every code.

    rows[domain, split, half] are row numbers, and code the class of each row (-1: not compared).
    `meetings` are the halves of A and B that share no artist.
    """

    a: str
    b: str
    classes: list[str]
    code: np.ndarray
    rows: dict[tuple[str, int, int], np.ndarray]
    meetings: list[tuple[int, int]]
    n_splits: int
    n_pictures: int
    n_drawings: int
    left_out: int

    @classmethod
    def of(cls, frame: pd.DataFrame, a: str, b: str, *, n_splits: int, seed: int) -> "Design":
        """Deal the artists of both domains' common classes into halves, `n_splits` times."""
        places = np.flatnonzero(frame["domain"].isin([a, b]).to_numpy())
        part = frame.iloc[places].reset_index(drop=True)
        deals = [artist_halves(part, [a, b], seed=seed, split=split) for split in range(n_splits)]
        label, domain = part["label"].to_numpy(object), part["domain"].to_numpy(object)
        classes = halved_classes(part, deals, (a, b))
        kept = np.isin(label, classes)
        rows = {
            (name, split, half): places[kept & (deal == half) & (domain == name)]
            for (split, deal), half, name in product(enumerate(deals), (0, 1), (a, b))
        }
        used = kept & np.any([deal >= 0 for deal in deals], axis=0)
        return cls(
            a, b, classes,
            pd.Index(classes).get_indexer(frame["label"].to_numpy(object)),
            rows,
            meeting_halves(part, a, b),
            n_splits, int(used.sum()), n_drawings(part[used]), len(set(label)) - len(classes),
        )  # fmt: skip

    def usage(self, activity: np.ndarray, domain: str, split: int, half: int) -> np.ndarray:
        """Mean activity "class feature" over the pictures of a half."""
        return self.means(activity, self.rows[domain, split, half])

    def means(self, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Mean of some rows per class, "class feature"."""
        code = self.code[rows]
        share = np.zeros((len(self.classes), len(rows)))
        share[code, np.arange(len(rows))] = 1
        share /= np.maximum(share.sum(axis=1, keepdims=True), 1)
        return share @ values[rows]

    def everyone(self, domain: str) -> np.ndarray:
        """All pictures of a domain that some half holds."""
        return np.unique(
            np.concatenate([rows for (name, _, _), rows in self.rows.items() if name == domain])
        )


def only_site(features: Features, site: str) -> str:
    """A site's name, or the error that suggests others: a code belongs to one site, no pattern."""
    check_known("use a site's activations", "site", [site], features.sites, SiteError)
    return site


def checked_activity(made: object, n: int, name: str) -> np.ndarray:
    """A code's features in float64, or the error that says why they are none."""
    activity = np.asarray(made, dtype=np.float64)
    asked = f"use {name} as features"
    if activity.ndim != 2 or len(activity) != n or not activity.shape[1]:
        raise ShapeError(
            asked, f"shape {activity.shape}", f"({n}, features), a row per picture",
            "give a code that takes activations to such a matrix",
        )  # fmt: skip
    if not np.isfinite(activity).all() or activity.min() < 0:
        raise NumericsError(
            asked, "a NaN, an infinity or a negative number", "numbers of at least 0",
            "split signed coordinates into two, as `units` does",
        )  # fmt: skip
    return activity


def activity_of(design: Design, activity: np.ndarray, domain: str) -> np.ndarray:
    """What classes are matched on in a domain: active features and mass a picture, "class 2"."""
    told = np.column_stack([(activity > 0).sum(axis=1), activity.sum(axis=1)])
    return design.means(told, design.everyone(domain))


def nearest_classes(told: np.ndarray, n: int) -> np.ndarray:
    """For each class the n others most like it in firing rate and mass, nearest first, "class n".

    Both are measured in standard deviations over classes.

    >>> nearest_classes(np.array([[1.0, 1.0], [1.1, 1.0], [5.0, 9.0]]), 1).ravel().tolist()
    [1, 0, 1]
    """
    spread = told.std(axis=0)
    z = told / np.where(spread > 0, spread, 1.0)
    apart = ((z[:, None] - z[None, :]) ** 2).sum(axis=2)
    np.fill_diagonal(apart, np.inf)
    return np.argsort(apart, axis=1, kind="stable")[:, :n]

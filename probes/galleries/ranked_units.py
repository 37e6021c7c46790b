"""AUROCs of many units at once, from ranks, with the variance that whole drawings leave them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from interp.core.artists import artist_column, artists_of


class Ranked:
    """Pictures in the order of each unit's numbers, "picture unit"; equal ones count half.

    `least` and `most` are how many pictures lie below each number, and not above it.

    >>> ranked = Ranked(np.array([[3.0], [2.0], [1.0], [1.0]]))
    >>> ranked.aurocs(np.array([[True, False, True, False]])).tolist()
    [[0.625]]
    """

    def __init__(self, values: np.ndarray) -> None:
        self.order = values.argsort(axis=0, kind="stable")
        self.least, self.most = _ties(values, self.order)
        # twice a rank is whole, and its sums are exact in float32 below 2^24
        self.twice_ranks = (self.least + self.most + 1).astype(np.float32)

    def aurocs(self, groups: np.ndarray, width: int | None = None) -> np.ndarray:
        """How often a picture of a group has the larger number than another, "group unit".

        `groups` are "group picture", the same for all units, or for the first `width` of them
        (Mann and Whitney 1947).
        """
        n = groups.sum(axis=1)[:, None]
        twice = groups.astype(np.float32) @ self.twice_ranks[:, :width]
        return (twice / 2.0 - n * (n + 1) / 2) / (n * (groups.shape[1] - n))

    def aurocs_of(self, mine: np.ndarray) -> np.ndarray:
        """The same for groups of each unit's own, "picture unit"; NaN for none or all pictures."""
        n = mine.sum(axis=0)
        above = (mine * self.twice_ranks[:, : mine.shape[1]]).sum(axis=0, dtype=float) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            return (above - n * (n + 1) / 2) / (n * (len(mine) - n))

    def placements(self, mine: np.ndarray) -> np.ndarray:
        """What share of the other side each picture exceeds, "picture unit".

        `mine` says which pictures are of each unit's own group. For a picture of the others it is
        the share of the group's pictures that lie below it.
        """
        order, least, most = (
            each[:, : mine.shape[1]] for each in (self.order, self.least, self.most)
        )
        below = np.zeros((len(mine) + 1, mine.shape[1]))
        np.cumsum(np.take_along_axis(mine, order, axis=0), axis=0, out=below[1:])
        of_group = (
            np.take_along_axis(below, least, axis=0) + np.take_along_axis(below, most, axis=0)
        ) / 2
        n = mine.sum(axis=0)
        others = (least + most) / 2 - of_group
        return np.where(mine, others / (len(mine) - n), of_group / n)

    def variance(self, mine: np.ndarray, among_mine: Any, among_others: Any) -> np.ndarray:
        """The variance of each unit's AUROC, where whole clusters of pictures may be drawn anew.

        Clusters of the group and of the others are `clusters(...)`. NaN where one side is a single
        cluster (DeLong et al. 1988; of whole clusters Obuchowski 1997).
        """
        shares, variance = self.placements(mine), np.zeros(mine.shape[1])
        for side, groups in ((mine, among_mine), (~mine, among_others)):
            n, k = side.sum(axis=0), clusters_in(side, groups)
            off = np.where(side, shares - (shares * side).sum(axis=0) / n, 0)
            with np.errstate(divide="ignore", invalid="ignore"):
                variance += ((groups @ off) ** 2).sum(axis=0) * k / (k - 1) / n**2
        return variance


def clusters(names: np.ndarray) -> Any:
    """Which pictures each cluster has, "cluster picture", as a sparse matrix."""
    codes = pd.factorize(names.astype(str))[0]
    return csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))))


def clusters_in(side: np.ndarray, groups: Any) -> np.ndarray:
    """How many clusters have a picture on a side, for each unit."""
    return ((groups @ side.astype(float)) > 0).sum(axis=0)


def drawing_column(frame: pd.DataFrame) -> str:
    """What tells drawings apart: `drawing` where all are known, else who made them."""
    known = "drawing" in frame.columns and frame["drawing"].notna().all()
    return "drawing" if known else artist_column(frame)


def drawing_of(frame: pd.DataFrame) -> np.ndarray:
    """Which drawing each picture shows, or who made it where drawings are not known."""
    if drawing_column(frame) == "drawing":
        return frame["drawing"].astype(str).to_numpy(object)
    return artists_of(frame)


def traded(frame: pd.DataFrame, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Orders of pictures in which drawings have changed places, each with another of its artist.

    A drawing in one domain may trade with one in another. Each picture of a drawing gets the place
    of one of the drawing that it trades with, in turn. Where drawings are not known a picture
    trades alone, and where artists are not, with any other.
    """
    alone = drawing_column(frame) != "drawing"
    names = np.arange(len(frame)) if alone else drawing_of(frame)
    _, first, place, size = np.unique(
        pd.factorize(pd.MultiIndex.from_arrays([names, frame["domain"]]))[0],
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    rows = np.argsort(place, kind="stable")
    begins = np.cumsum(size) - size
    turn = np.empty_like(place)
    turn[rows] = np.arange(len(place)) - begins[place[rows]]
    known = "artist" in frame.columns and frame["artist"].notna().all()
    who = frame["artist"].to_numpy(object)[first] if known else np.zeros(len(first))
    groups = [np.flatnonzero(who == name) for name in pd.unique(who)]
    while True:
        order = np.arange(len(first))
        for group in groups:
            order[group] = generator.permutation(group)
        partner = order[place]
        yield rows[begins[partner] + turn % size[partner]]


def _ties(values: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many numbers lie below each number of its column, and how many not above it."""
    ordered, n = np.take_along_axis(values, order, axis=0), len(values)
    new = np.ones((n + 1, values.shape[1]), dtype=bool)
    new[1:-1] = ordered[1:] != ordered[:-1]
    places = np.arange(n)[:, None]
    begins = np.maximum.accumulate(np.where(new[:-1], places, 0), axis=0)
    ends = np.minimum.accumulate(np.where(new[1:], places + 1, n)[::-1], axis=0)[::-1]
    least, most = np.empty_like(order), np.empty_like(order)
    np.put_along_axis(least, order, begins, axis=0)
    np.put_along_axis(most, order, ends, axis=0)
    return least, most

"""Selectivity of class probes: their accuracy beyond that on a control task with random labels."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from interp.core.artists import artists_of
from interp.core.errors import SampleError, listed
from interp.core.faces.doors import door
from interp.core.progress import track
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Evidence, counts_of, leaving_out
from interp.core.statistics.resampling import holm, jackknife, sign_flip_p
from interp.core.tables import Table
from interp.probes.features.features import Features, check_domains
from interp.probes.linear.linear_probe import (
    LEAST_CLASSES,
    TrainingSet,
    fit_probes,
    permuted_groups,
)

ESTIMAND = "accuracy of a class probe beyond what it can memorise of artists' drawings of a class"


@door
def selectivity(
    features: Features,
    sites: str | Iterable[str] | None = None,
    domains: Sequence[str] | None = None,
    *,
    n_control: int = 5,
    seed: int = 0,
    control: str = "",
) -> Table:
    """Accuracy of class probes less that of the same probes on a control task, per site and domain.

        value = accuracy - accuracy_control
        null  = 0: a probe that knows no more of classes than of random groups

    each accuracy being the mean over classes of the share of pictures named correctly.

    Args:
        features: Features "picture feature" of pictures with labels, domains and artists.
        sites: Names or patterns of sites; None takes all.
        domains: Domains, each measured by itself; None takes all.
        n_control: Draws of the control task.
        seed: Seed of deals and draws.
        control: Name of the floor that these features stand for, such as "epoch 0", for the column
            `control`; empty for none. The site "pixels" names itself.

    Returns:
        A table with a row per site and domain, and both accuracies as columns. There is no ceiling
        and no index, since this is no question of sharing. A domain with fewer than four classes of
        two groups of two pictures is a row with a `reason`.

    Raises:
        SampleError: Where no domain has four classes of two class x artist groups of two pictures.
        DataError: For an unknown domain.
        SiteError: For a site that the features do not have.

    References:
        Hewitt and Liang 2019, "Designing and interpreting probes with control tasks".

    Notes:
        - In the control task every class x artist group gets a class at random, with as many groups
          per class as before and the same classes in training and test. Only a probe that memorises
          groups can solve it.
        - Pictures are dealt into two halves *within* groups; one trains and the other tests, then
          the reverse. Both tasks share pictures, test and C, which the class task chooses within
          the training half. The column `accuracy` therefore says nothing about new artists;
          `transfer` tests those.
        - Intervals leave one class out at a time. p flips the signs of classes (two-sided) and is
          not adjusted; the column `p_adjusted` is, over the sites of a domain by Holm's method.

    >>> generator = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, "real", a) for c in "abcdefgh" for a in "wxyz" for _ in range(4)],
    ...                      columns=["label", "domain", "artist"])
    >>> place = frame["label"].map({c: n for n, c in enumerate("abcdefgh")}).to_numpy()
    >>> points = generator.normal(size=(8, 16))[place] + 0.1 * generator.normal(size=(128, 16))
    >>> table = selectivity(Features({"hook_embedding": points.astype(np.float32)}, frame))
    >>> bool(table.frame["value"].iloc[0] > 0.5)
    True
    """
    chosen = features.only(sites)
    names = check_domains(chosen, domains, "measure selectivity")
    deals = {name: _deal(chosen.frame, name, n_control, seed) for name in names}
    most = max(len(deal.classes) for deal in deals.values())
    if most < LEAST_CLASSES:
        raise SampleError(
            f"measure selectivity in {listed(names)}",
            f"at most {most} classes of two artists with two pictures each",
            f"at least {LEAST_CLASSES} in a domain: a control task is learnt on one picture of an "
            "artist and tested on another",
            "collect features of more pictures per artist",
        )
    rows: list[dict[str, object]] = []
    for site in track(chosen.sites, "selectivity"):
        for name, deal in deals.items():
            place = {"measure": "selectivity", **chosen.place(site, control), "domain": name}
            rows.append(place | _row(chosen, site, deal, seed))
    table = pd.DataFrame(rows)
    table["p_adjusted"] = table.groupby("domain")["p"].transform(holm)
    table["family"] = f"{len(chosen.sites)} sites of a domain"
    facts = {**features.facts, "n_control": n_control}
    return Table.with_evidence("selectivity", table, facts)


class _Deal:
    """Pictures of one domain in two halves that share every class x artist group."""

    def __init__(
        self, rows: np.ndarray, half: np.ndarray, label: np.ndarray, control: np.ndarray
    ) -> None:
        self.rows, self.half, self.control = rows, half, control
        self.classes, self.code = np.unique(label.astype(str), return_inverse=True)

    def training(self, side: int, seed: int) -> TrainingSet:
        """A half to train on; C is chosen between two halves of its pictures."""
        at = np.flatnonzero(self.half == side)
        inner, generator = np.zeros(len(at), dtype=np.int8), rng("selectivity, inner halves", seed)
        for one in range(len(self.classes)):
            mine = np.flatnonzero(self.code[at] == one)
            inner[mine] = generator.permutation(len(mine)) % 2
        return TrainingSet(self.rows[at], self.code[at], inner, self.control[:, at])


def _deal(frame: pd.DataFrame, domain: str, n_control: int, seed: int) -> _Deal:
    here = np.flatnonzero((frame["domain"] == domain).to_numpy())
    label, who = frame["label"].to_numpy(object)[here], artists_of(frame).astype(str)[here]
    group = pd.factorize(pd.MultiIndex.from_arrays([label, who]), sort=True)[0]
    generator = rng("selectivity", seed)
    half = np.full(len(here), -1)
    for one in range(group.max() + 1):
        at = generator.permutation(np.flatnonzero(group == one))
        even = len(at) - len(at) % 2  # an odd picture would tilt one half
        half[at[:even]] = np.arange(even) % 2
    groups = pd.Series(group[half >= 0]).groupby(label[half >= 0]).nunique()
    used = (half >= 0) & np.isin(label, groups.index[groups >= 2])
    code = np.unique(label[used].astype(str), return_inverse=True)[1]
    drawn = permuted_groups(code, who[used], n_control, rng("control task", seed))
    return _Deal(here[used], half[used], label[used], drawn)


def _row(features: Features, site: str, deal: _Deal, seed: int) -> dict[str, object]:
    """Both accuracies and their difference, per true class, averaged over the two turns."""
    k, reason = len(deal.classes), ""
    accuracy, control = np.full(k, np.nan), np.full(k, np.nan)
    if k < LEAST_CLASSES:
        reason = f"{k} classes of two artists with two pictures each, {LEAST_CLASSES} are needed"
    else:
        sets = [deal.training(side, seed) for side in (0, 1)]
        accuracy, control = np.zeros(k), np.zeros(k)
        for side, probe in enumerate(fit_probes(features.values[site], sets, k)):
            test = np.flatnonzero(deal.half == 1 - side)
            x = probe.basis.project(features.values[site][deal.rows[test]])
            code = deal.code[test]
            count = np.bincount(code, minlength=k)
            hit = probe.fitted.scores(x)[0].argmax(axis=1) == code
            accuracy += np.bincount(code, hit, minlength=k) / count / 2
            hits = (probe.null.scores(x).argmax(axis=2) == deal.control[:, test]).mean(axis=0)
            control += np.bincount(code, hits, minlength=k) / count / 2
            reason = reason or probe.reason
    apart, used = accuracy - control, features.frame.iloc[deal.rows]
    value, *left = leaving_out(apart).tolist()
    about = Evidence(
        estimand=ESTIMAND,
        null_kind="class probe as good as the same probe on random classes of class x artist "
        "groups; p flips signs of classes",
        seed=seed,
        **counts_of(used, k),
    )
    return {
        "accuracy": float(accuracy.mean()) if k else np.nan,
        "accuracy_control": float(control.mean()) if k else np.nan,
    } | about.row(
        jackknife(value, left),
        null=0.0,
        p=sign_flip_p(apart, seed=seed) if k >= LEAST_CLASSES else np.nan,
        reason=reason or "no question of sharing: no ceiling or index",
    )

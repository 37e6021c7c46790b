"""Domain probes: how well the domain of a picture is read in new classes and by new artists."""

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
import pandas as pd

from interp.core.artists import artists_of
from interp.core.errors import SampleError, listed
from interp.core.faces.doors import door
from interp.core.progress import track
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Evidence, counts_of, leaving_out
from interp.core.statistics.resampling import jackknife, max_t
from interp.core.tables import Table
from interp.probes.features.features import Features, check_domains
from interp.probes.linear.linear_probe import (
    LEAST_CLASSES,
    Probe,
    TrainingSet,
    confusion,
    fit_probes,
    permuted_groups,
)

ESTIMAND = "domains told apart by a linear probe in classes and by artists it has not seen"


@door
def domain_probes(
    features: Features,
    sites: str | Iterable[str] | None = None,
    domains: Sequence[str] | None = None,
    *,
    n_null: int = 5,
    n_permutations: int = 999,
    seed: int = 0,
    control: str = "",
) -> Table:
    """Balanced accuracy of linear probes that read a picture's domain, per site.

        value = mean over classes of the mean over domains of the share named correctly
        null  = the same probe, domain labels permuted within each class, over whole
                class x artist x domain cells

    Args:
        features: Features "picture feature" of pictures with labels and domains.
        sites: Names or patterns of sites; None takes all.
        domains: Domains to tell apart; None takes all.
        n_null: Fits of the null per turn.
        n_permutations: Permutations of the domains' names for p.
        seed: Seed of deals and permutations.
        control: Name of the floor that these features stand for, such as "epoch 0", for the column
            `control`; empty for none. The site "pixels" names itself.

    Returns:
        A table with a row per site. Accuracy is 0 to 1; chance is 1 / domains. There is no ceiling
        and no index, since this is no question of sharing.

    Raises:
        SampleError: For fewer than two domains, or fewer than four classes by artists of both
            halves in all of them.
        DataError: For an unknown domain.
        SiteError: For a site that the features do not have.

    Notes:
        - Classes are dealt into two folds and artists into two halves. A probe is trained on one
          fold and half and tested on the other fold and half, so it has seen neither the classes
          nor the artists. All four turns count. Where artists are not known, drawings or pictures
          take their place.
        - A class that some domain lacks is neither trained on nor tested on.
        - Intervals leave out the test pictures of one class at a time. p permutes the domains'
          names within each test class, independently, and is adjusted by max-T over sites.
        - Where artists drew in one domain only, their styles stand for the domain. p counts classes
          and does not know how few the artists are.

    >>> generator = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, d, a) for c in "abcdefgh" for d in ("real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> points = generator.normal(size=(64, 16)) + 4.0 * (frame[["domain"]] == "real").to_numpy()
    >>> table = domain_probes(Features({"hook_embedding": points.astype(np.float32)}, frame))
    >>> float(table.frame["value"].iloc[0]), table.frame["n_units"].tolist()
    (1.0, [8])
    """
    chosen = features.only(sites)
    names = check_domains(chosen, domains, "read domains")
    frame = chosen.frame
    code = pd.Index(names).get_indexer(frame["domain"].to_numpy(object))
    classes, cell = _cells(frame, code, names, seed)
    label = pd.Index(classes).get_indexer(frame["label"].to_numpy(object))
    fewer = frame["label"][code >= 0].nunique() - len(classes)
    sets = [_training(frame, np.flatnonzero(cell == turn), code, n_null, seed) for turn in range(4)]
    about = Evidence(
        estimand=ESTIMAND,
        null_kind="probe on domain labels permuted over whole class x artist cells within "
        f"each class, {n_null} per turn; p from {n_permutations} permutations of domain "
        "names within test classes, max-T over sites",
        seed=seed,
        **counts_of(frame[cell >= 0], len(classes)),
    )
    rows: list[dict[str, object]] = []
    answers = []
    for site in track(chosen.sites, "domain probes"):
        probes = fit_probes(chosen.values[site], sets, len(names))
        tested = [
            _answers(
                chosen.values[site],
                probe,
                np.flatnonzero(cell == 3 - turn),
                label,
                code,
                (len(classes), len(names)),
            )
            for turn, probe in enumerate(probes)
        ]
        # a class is tested in two turns: with either half of the artists
        told = np.nansum([each for each, _ in tested], axis=0) / 2
        null = np.nansum([each for _, each in tested], axis=0) / 2
        answers.append(told)
        value, *left = leaving_out(np.diagonal(told, axis1=1, axis2=2).mean(axis=1)).tolist()
        reasons = sorted({probe.reason for probe in probes} - {""})
        reasons += [f"{fewer} classes left out: not by two artists in every domain"] * (fewer > 0)
        rows.append(
            {"measure": "domain probe", **chosen.place(site, control), "domain": ", ".join(names)}
            | about.row(
                jackknife(value, left),
                null=float(null.mean()),
                reason="; ".join([*reasons, "no question of sharing: no ceiling or index"]),
            )
        )
    table = pd.DataFrame(rows)
    table["p"] = _p_values(np.stack(answers), n_permutations, seed)
    facts = {**features.facts, "n_null": n_null, "n_permutations": n_permutations}
    return Table.with_evidence("domain_probes", table, facts)


def _cells(
    frame: pd.DataFrame, code: np.ndarray, names: Sequence[str], seed: int
) -> tuple[list[str], np.ndarray]:
    """Classes that take part, and each picture's cell: 2 * class fold + artist half, or -1.

    Artists are dealt over all classes at once, so that a style that betrays its domain is new in
    the test. Cell 3 - c shares neither class nor artist with cell c.
    """
    label, who = frame["label"].to_numpy(object), artists_of(frame).astype(str)
    generator = rng("domain probes", seed)
    artists = np.unique(who[code >= 0])
    of_artist = dict(zip(generator.permutation(artists), np.arange(len(artists)) % 2, strict=True))
    half = np.array([of_artist.get(name, -1) for name in who])
    # every class must be there in every domain and by both halves, or folds would differ by it
    able = [
        name
        for name in sorted(set(label[code >= 0]))
        if all(
            ((label == name) & (code == domain) & (half == side)).any()
            for domain, side in product(range(len(names)), (0, 1))
        )
    ]
    if len(names) < 2 or len(able) < LEAST_CLASSES:
        raise SampleError(
            f"read the domain among {listed(names)}",
            f"{len(names)} domains and {len(able)} classes by artists of both halves in all of "
            "them",
            f"two domains and {LEAST_CLASSES} classes",
            "give more classes by at least two artists, or fewer domains",
        )
    fold = dict(
        zip(generator.permutation(np.array(able, object)), np.arange(len(able)) % 2, strict=True)
    )
    there = np.array([name in fold for name in label]) & (code >= 0)
    folds = np.array([fold.get(name, 0) for name in label])
    return able, np.where(there, 2 * folds + half, -1)


def _training(
    frame: pd.DataFrame, rows: np.ndarray, code: np.ndarray, n_null: int, seed: int
) -> TrainingSet:
    """One turn's training set; C is chosen between two halves of its classes."""
    label, who = frame["label"].to_numpy(object)[rows], artists_of(frame).astype(str)[rows]
    place = pd.factorize(label, sort=True)[0]
    domain, generator = code[rows], rng("permuted domains", seed)
    permuted = np.empty((n_null, len(rows)), dtype=int)
    for one in range(place.max() + 1):
        at = np.flatnonzero(place == one)
        permuted[:, at] = permuted_groups(domain[at], who[at], n_null, generator)
    return TrainingSet(rows, domain, (place % 2).astype(np.int8), permuted)


def _answers(
    values: np.ndarray,
    probe: Probe,
    rows: np.ndarray,
    label: np.ndarray,
    code: np.ndarray,
    shape: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of each class's pictures of a domain taken for each: "class domain domain"; null.

    NaN for classes that this turn does not test; of the null, accuracy per class.
    """
    k, n = shape
    x = probe.basis.project(values[rows])
    told, null = np.full((k, n, n), np.nan), np.full(k, np.nan)
    scores, drawn = probe.fitted.scores(x), probe.null.scores(x)
    for one in np.unique(label[rows]):
        at = label[rows] == one
        told[one] = confusion(scores[:, at], np.arange(n), code[rows][at])[0]
        confused = confusion(drawn[:, at], np.arange(n), code[rows][at])
        null[one] = np.diagonal(confused, axis1=1, axis2=2).mean()
    return told, null


def _p_values(told: np.ndarray, n_permutations: int, seed: int) -> np.ndarray:
    """p per site from "site class domain domain": domains' names permuted within each class."""
    _, k, n, _ = told.shape
    generator = rng("domain names", seed)
    orders = generator.random((n_permutations, k, n)).argsort(axis=2)
    drawn = told[:, np.arange(k)[:, None], np.arange(n), orders].mean(axis=(2, 3)).T
    return max_t(np.diagonal(told, axis1=2, axis2=3).mean(axis=(1, 2)), drawn)

"""Probe transfer: linear class probes trained in one domain and tested in another."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd

from interp.core.artists import artist_column, artist_halves, artists_of
from interp.core.errors import listed
from interp.core.faces.doors import door
from interp.core.progress import track
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Evidence, counts_of, leaving_out
from interp.core.statistics.resampling import class_permutations, jackknife, max_t
from interp.core.tables import Table
from interp.probes.features.features import PIXELS, Features, check_domains
from interp.probes.linear.linear_probe import (
    LEAST_CLASSES,
    Probe,
    TrainingSet,
    confusion,
    fit_probes,
    inner_halves,
    permuted_groups,
    right,
)
from interp.probes.representational_similarity.halved_pairs import (
    left_out,
    refuse_few_classes,
    too_few,
)

READ = "classes told apart by a linear probe within one domain (rung R1)"
MOVED = "classes told apart by a linear probe from another domain (rung R3)"


@door
def transfer(
    features: Features,
    sites: str | Iterable[str] | None = None,
    train_domains: Sequence[str] | None = None,
    test_domains: Sequence[str] | None = None,
    *,
    n_null: int = 5,
    n_permutations: int = 999,
    seed: int = 0,
    control: str = "",
) -> Table:
    """Balanced accuracy of class probes trained in one domain and tested in every other.

        value   = probe of train_domain, on the test half of `domain`
        ceiling = probe of `domain` itself, same n, on the same test pictures
        null    = probe of train_domain with labels permuted over whole class x artist groups
        index   = (value - null) / (ceiling - null)

    Artists are dealt into two halves, the same deal in all domains, with equally many pictures of
    each class in both. One half trains and the other tests, then the reverse; the two are averaged.

    Args:
        features: Features "picture feature" of pictures with labels and domains.
        sites: Names or patterns of sites; None takes all.
        train_domains: Domains that probes are trained in; None takes all.
        test_domains: Domains that probes are tested in; None takes all.
        n_null: Fits of the null per half of the artists.
        n_permutations: Permutations of whole test classes for p.
        seed: Seed of deals and permutations.
        control: Name of the floor that these features stand for, such as "epoch 0", for the column
            `control`; empty for none. The site "pixels" names itself.

    Returns:
        A table with a row per site, train domain, test domain and `centred`. Accuracy is 0 to 1.
        Rows with `domain == train_domain` are rung R1 and have no ceiling.

    Raises:
        SampleError: Where no pair of domains has four classes by two artists in each.
        DataError: For an unknown domain, or a picture without a label.
        SpecificationError: For a domain named twice.
        SiteError: For a site that the features do not have.

    Notes:
        - One multinomial probe (the objective of `LinearProbe`) is fitted per site, train domain
          and half. Its C is the one of `fitting.STRENGTHS` with the least held-out log loss over
          two inner halves of artists within the training half. The probe answers among the classes
          that both domains have.
        - Where `centred`, each domain's mean is subtracted, taken from its training half with
          classes weighted equally. This moves the test rows only, so the same probe serves.
        - Chance is 1 / classes. The null refits the probe `n_null` times per half. p instead
          permutes whole classes of the test labels, which is cheaper and finer; it is adjusted by
          max-T over the sites of a train domain, test domain and `centred`.
        - Intervals leave out the *test* pictures of one class at a time. Probes are not refitted,
          so the intervals hold no uncertainty of training.
        - A domain whose own probe reads no class in other pictures of that domain has nothing to
          be shared: there is no index where it trains.

    >>> generator = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, d, a) for c in "abcdefgh" for d in ("real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> place = frame["label"].map({c: n for n, c in enumerate("abcdefgh")}).to_numpy()
    >>> points = generator.normal(size=(8, 16))[place] + 0.1 * generator.normal(size=(64, 16))
    >>> table = transfer(Features({"hook_embedding": points.astype(np.float32)}, frame))
    >>> table.frame.query("train_domain != domain and centred")["verdict"].tolist()
    ['shared', 'shared']
    """
    chosen = features.only(sites)
    trains = check_domains(chosen, train_domains, "train probes")
    tests = check_domains(chosen, test_domains, "test probes")
    names = list(dict.fromkeys([*trains, *tests]))
    design = _design(chosen.frame, names, n_null, seed)
    refuse_few_classes(
        [len(design.common(a, b)) for a, b in product(trains, tests)],
        LEAST_CLASSES,
        f"test probes of {listed(trains)} in {listed(tests)}",
    )
    able = [
        (name, half)
        for name, half in product(names, (0, 1))
        if len(design.common(name, name)) >= LEAST_CLASSES
    ]
    cells: dict[tuple[str, str, bool], list[_Cell]] = {}
    for site in track(chosen.sites, "probe transfer"):
        fitted = fit_probes(
            chosen.values[site], [design.sets[key] for key in able], len(design.classes)
        )
        met = _Site(chosen.values[site], design, dict(zip(able, fitted, strict=True)))
        for a, b, centred in product(trains, tests, (False, True)):
            cell = replace(met.cell(a, b, centred=centred), site=site)
            cells.setdefault((a, b, centred), []).append(cell)
    notes = (n_null, n_permutations, seed)
    rows = [row for kind, each in cells.items() for row in _rows(chosen, design, kind, each, notes)]
    frame = pd.DataFrame(rows)
    frame["control"] = np.where(frame["site"] == PIXELS, "pixels", control)
    facts = {**features.facts, "n_null": n_null, "n_permutations": n_permutations}
    return Table.with_evidence("transfer", frame, facts)


@dataclass(frozen=True)
class _Design:
    """Who trains and who tests, the same at every site.

    half, code: per picture. there: which classes a domain has. sets: a domain's half.
    """

    frame: pd.DataFrame
    half: np.ndarray
    code: np.ndarray
    classes: list[str]
    there: dict[str, np.ndarray]
    sets: dict[tuple[str, int], TrainingSet]

    def common(self, a: str, b: str) -> np.ndarray:
        """Codes of the classes that both domains have in both halves."""
        return np.flatnonzero(self.there[a] & self.there[b])


@dataclass(frozen=True)
class _Cell:
    """What a probe of A says in B at one site, per class (code order of the common classes).

    ceiling: what B's own probe gets right there; home: what A's gets right in A.
    """

    classes: np.ndarray
    confusion: np.ndarray
    null: np.ndarray
    ceiling: np.ndarray
    home: np.ndarray
    reason: str
    site: str = ""

    @property
    def reads_nothing(self) -> bool:
        """Whether the probe reads no class at home either: its interval holds chance."""
        per_class = leaving_out(self.home)
        return not jackknife(float(per_class[0]), per_class[1:]).low > 1 / len(self.classes)

    def row(
        self, about: Evidence, p: float, note: str, *, pair: tuple[str, str]
    ) -> dict[str, object]:
        """Value, null, ceiling, index, intervals and verdict from accuracies per class."""
        terms = leaving_out(np.column_stack([np.diag(self.confusion), self.null, self.ceiling]))
        if len(self.classes) < LEAST_CLASSES:
            return about.with_verdict(terms, p=p, refused=self.reason)
        within, refused = pair[0] == pair[1], ""
        if within:
            refused = "one domain: rung R1 has no ceiling or index"
        elif self.reads_nothing:
            refused = f"a probe of {pair[0]} reads no class in {pair[0]} either"
        row = about.with_verdict(terms, p=p, refused=refused, notes=[self.reason, note])
        return row | ({"ceiling": np.nan, "verdict": ""} if within else {})


def _design(frame: pd.DataFrame, names: Sequence[str], n_null: int, seed: int) -> _Design:
    half = artist_halves(frame, names, seed=seed)
    classes = sorted(set(frame["label"]))
    code = pd.Index(classes).get_indexer(frame["label"].to_numpy(object))
    domain, who = frame["domain"].to_numpy(object), artists_of(frame).astype(str)
    there = {
        name: np.bincount(code[(half >= 0) & (domain == name)], minlength=len(classes)) > 0
        for name in names
    }
    sets = {}
    for name, side in product(names, (0, 1)):
        rows = np.flatnonzero((domain == name) & (half == side))
        generator = rng("permuted groups", seed, side)
        sets[name, side] = TrainingSet(
            rows,
            code[rows],
            inner_halves(frame, rows, name, seed),
            permuted_groups(code[rows], who[rows], n_null, generator),
        )
    return _Design(frame, half, code, classes, there, sets)


class _Site:
    """All tests at one site: a probe meets a domain's test half once, whatever is asked of it."""

    def __init__(
        self, values: np.ndarray, design: _Design, probes: dict[tuple[str, int], Probe]
    ) -> None:
        self.values, self.design, self.probes = values, design, probes
        self._met: dict[tuple[str, str, int], np.ndarray] = {}

    def coordinates(self, a: str, b: str, half: int) -> np.ndarray:
        """B's test pictures in the coordinates of A's probe."""
        key = (a, b, half)
        if key not in self._met:
            rows = self.design.sets[b, 1 - half].rows
            self._met[key] = self.probes[a, half].basis.project(self.values[rows])
        return self._met[key]

    def shift(self, a: str, b: str, half: int, classes: np.ndarray) -> np.ndarray:
        """What takes B's training mean to A's, in the same coordinates; classes count equally."""
        basis = self.probes[a, half].basis
        mean_a, mean_b = (
            _class_mean(self.values, self.design, self.design.sets[name, half].rows, classes)
            for name in (a, b)
        )
        return basis.turn(mean_a - mean_b)

    def cell(self, a: str, b: str, *, centred: bool) -> _Cell:
        """Test the probes of A, of its null and of B in B, among their common classes."""
        classes = self.design.common(a, b)
        k = len(classes)
        if k < LEAST_CLASSES:
            blank = np.full(k, np.nan)
            few = too_few(k, LEAST_CLASSES)
            return _Cell(classes, np.full((k, k), np.nan), blank, blank, blank, few)
        confused, (null, ceiling, home) = np.zeros((k, k)), np.zeros((3, k))
        reasons: set[str] = set()
        for half in (0, 1):
            code = self.design.sets[b, 1 - half].labels
            mine, own = self.probes[a, half], self.probes[b, half]
            x = self.coordinates(a, b, half)
            if centred:
                x = x + self.shift(a, b, half, classes)
            confused += confusion(mine.fitted.scores(x), classes, code)[0] / 2
            null += right(confusion(mine.null.scores(x), classes, code)) / 2
            ceiling += self._at_home(b, half, classes) / 2
            home += self._at_home(a, half, classes) / 2
            reasons |= {
                f"{probe.reason} in {name}" for name, probe in ((a, mine), (b, own)) if probe.reason
            }
        return _Cell(classes, confused, null, ceiling, home, "; ".join(sorted(reasons)))

    def _at_home(self, name: str, half: int, classes: np.ndarray) -> np.ndarray:
        """What a domain's probe gets right in its own other half, by class."""
        scores = self.probes[name, half].fitted.scores(self.coordinates(name, name, half))
        return right(confusion(scores, classes, self.design.sets[name, 1 - half].labels))


def _class_mean(
    values: np.ndarray, design: _Design, rows: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """Mean over classes of the mean over their pictures."""
    rows = rows[np.isin(design.code[rows], classes)]
    count = np.bincount(design.code[rows], minlength=len(design.classes))
    weight = 1 / (count[design.code[rows]] * len(classes))
    return weight @ values[rows].astype(np.float64)


def _rows(
    features: Features,
    design: _Design,
    kind: tuple[str, str, bool],
    cells: Sequence[_Cell],
    notes: tuple[int, int, int],
) -> list[dict[str, object]]:
    """Table rows of one train domain, test domain and centring: all sites, one family for p."""
    (a, b, centred), (n_null, n_permutations, seed) = kind, notes
    classes, here = cells[0].classes, design.frame["domain"].isin([a, b]).to_numpy()
    used = (design.half >= 0) & here & np.isin(design.code, classes)
    about = Evidence(
        estimand=READ if a == b else MOVED,
        null_kind="probe of train_domain on labels permuted over whole class x artist groups, "
        f"{n_null} per half; p from {n_permutations} permutations of whole test classes, "
        "max-T over sites",
        ceiling_kind=""
        if a == b
        else f"probe of the test domain, same n, same test pictures; halves by "
        f"{artist_column(design.frame)}",
        seed=seed,
        **counts_of(design.frame[used], len(classes)),
    )
    fewer = design.frame["label"][here].nunique() - len(classes)
    place = {"measure": "probe transfer", "train_domain": a, "domain": b, "centred": centred}
    return [
        {"site": cell.site, "layer": features.layer(cell.site), "depth": features.depth(cell.site)}
        | place
        | cell.row(about, float(p), left_out(fewer), pair=(a, b))
        for cell, p in zip(cells, _p_values(cells, n_permutations, seed), strict=True)
    ]


def _p_values(cells: Sequence[_Cell], n_permutations: int, seed: int) -> np.ndarray:
    """p per site: the same answers scored against permuted whole classes, max-T over sites."""
    if len(cells[0].classes) < LEAST_CLASSES:
        return np.full(len(cells), np.nan)
    confusion = np.stack([cell.confusion for cell in cells])
    orders = class_permutations(confusion.shape[1], n_permutations, seed)
    drawn = confusion[:, np.arange(confusion.shape[1]), orders].mean(axis=2).T
    return max_t(np.diagonal(confusion, axis1=1, axis2=2).mean(axis=1), drawn)

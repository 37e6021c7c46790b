"""Do two domains say a class in the same directions? A probe learnt in one is tested in another."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from interp.core.errors import SampleError, listed
from interp.core.progress import track
from interp.core.seeds import rng
from interp.core.statistics import CANNOT_TELL, Index, jackknife, sharing_index
from interp.core.tables import Table
from interp.probes.features import PIXELS, Features, check_domains
from interp.probes.halves import artist_halves, hand_column, hands, n_drawings
from interp.probes.linear import Basis, Fitted, fit_many
from interp.probes.permutations import class_permutations, max_t

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Values of C that are tried; the training domain alone chooses."""

LEAST_CLASSES = 4

READ = "classes told apart by a linear probe within one domain (rung R1)"
MOVED = "classes told apart by a linear probe from another domain (rung R3)"


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

    Artists are dealt into two halves per class, the same deal in all domains with equally many
    pictures of a class; one half trains, the other tests, then the reverse, and the two are
    averaged.

        value   = probe of train_domain, on the test half of `domain`
        ceiling = probe of `domain` itself, same n, on the same test pictures
        null    = probe of train_domain with labels permuted over whole class x artist groups
        index   = (value - null) / (ceiling - null)

    One multinomial probe (the objective of `LinearProbe`) is fitted per site, train domain and
    half. Its C is the one of `STRENGTHS` with the least held-out log loss inside the training half
    of the training domain, over two inner halves of artists. The probe answers among the
    classes that both domains have. `centred`: each domain's mean, taken from its training half
    with classes weighted equally, is subtracted; it moves the test rows only, so the same probe
    serves. Rows with `domain == train_domain` are rung R1 and have no ceiling.

    The null is refitted `n_null` times per half; chance is 1 / classes. p is cheaper and finer: it
    permutes whole classes of the test labels, and is adjusted by max-T over the sites of a
    train-domain, test-domain, centred cell. The intervals leave out the *test* pictures of one
    class at a time; probes are not refitted, so they hold no uncertainty of training.

    Raises `SampleError` when no pair of domains has four classes by two artists in each.

    >>> stream = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, d, a) for c in "abcdefgh" for d in ("real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> place = frame["label"].map({c: n for n, c in enumerate("abcdefgh")}).to_numpy()
    >>> points = stream.normal(size=(8, 16))[place] + 0.1 * stream.normal(size=(64, 16))
    >>> table = transfer(Features({"hook_embedding": points.astype(np.float32)}, frame))
    >>> table.frame.query("train_domain != domain and centred")["verdict"].tolist()
    ['shared', 'shared']
    """
    chosen = features if sites is None else features.only(sites)
    trains = check_domains(chosen, train_domains, "train probes")
    tests = check_domains(chosen, test_domains, "test probes")
    names = list(dict.fromkeys([*trains, *tests]))
    design = _design(chosen.frame, names, n_null, seed)
    _refuse_nothing(design, trains, tests)
    able = [
        (name, half)
        for name, half in product(names, (0, 1))
        if len(design.common(name, name)) >= LEAST_CLASSES
    ]
    cells: dict[tuple[str, str, bool], list[_Cell]] = {}
    for site in track(chosen.sites, "probe transfer"):
        probes = _fit(chosen.values[site], design, able)
        met = _Site(chosen.values[site], design, probes)
        for a, b, centred in product(trains, tests, (False, True)):
            cell = replace(met.cell(a, b, centred=centred), site=site)
            cells.setdefault((a, b, centred), []).append(cell)
    notes = (n_null, n_permutations, seed)
    rows = [
        row for kind, found in cells.items() for row in _rows(chosen, design, kind, found, notes)
    ]
    frame = pd.DataFrame(rows).assign(n_runs=1, seed=seed)
    frame["control"] = np.where(frame["site"] == PIXELS, "pixels", control)
    facts = {**features.facts, "n_null": n_null, "n_permutations": n_permutations}
    return Table.with_evidence("transfer", frame, facts)


@dataclass(frozen=True)
class _Design:
    """Who trains and who tests, the same at every site.

    half, code: per picture. there: which classes a domain has. rows: pictures of a domain's half;
    and for those, as a training half: inner halves, in which C is chosen, and permuted labels,
    "problem row".
    """

    frame: pd.DataFrame
    half: np.ndarray
    code: np.ndarray
    classes: list[str]
    there: dict[str, np.ndarray]
    rows: dict[tuple[str, int], np.ndarray]
    inner: dict[tuple[str, int], np.ndarray]
    permuted: dict[tuple[str, int], np.ndarray]

    def common(self, a: str, b: str) -> np.ndarray:
        """Codes of the classes that both domains have in both halves."""
        return np.flatnonzero(self.there[a] & self.there[b])


@dataclass(frozen=True)
class _Probe:
    """A fitted probe, those of its null, its domain's training mean, and how C was chosen."""

    basis: Basis
    fitted: Fitted
    null: Fitted
    reason: str


@dataclass(frozen=True)
class _Cell:
    """What a probe of A says in B at one site, per class (code order of the common classes)."""

    classes: np.ndarray
    confusion: np.ndarray
    null: np.ndarray
    ceiling: np.ndarray
    reason: str
    site: str = ""


def _design(frame: pd.DataFrame, names: Sequence[str], n_null: int, seed: int) -> _Design:
    half = artist_halves(frame, names, seed=seed)
    classes = sorted(set(frame["label"]))
    code = pd.Index(classes).get_indexer(frame["label"].to_numpy(object))
    domain, who = frame["domain"].to_numpy(object), hands(frame).astype(str)
    there = {
        name: np.bincount(code[(half >= 0) & (domain == name)], minlength=len(classes)) > 0
        for name in names
    }
    sides: list[tuple[str, int]] = list(product(names, (0, 1)))
    rows = {(name, side): np.flatnonzero((domain == name) & (half == side)) for name, side in sides}
    inner = {key: _inner(frame, rows[key], key[0], seed) for key in sides}
    permuted = {
        key: _shuffled(
            code[rows[key]], who[rows[key]], n_null, rng("permuted groups", seed, key[1])
        )
        for key in sides
    }
    return _Design(frame, half, code, classes, there, rows, inner, permuted)


def _shuffled(
    codes: np.ndarray, who: np.ndarray, n: int, stream: np.random.Generator
) -> np.ndarray:
    """Labels permuted over whole class x artist groups, `n` times: a group stays one group."""
    place, groups = pd.factorize(pd.MultiIndex.from_arrays([codes, who]), sort=True)
    labels = np.array([group[0] for group in groups], dtype=int)
    return np.stack([stream.permutation(labels)[place] for _ in range(n)])


def _fit(
    values: np.ndarray, design: _Design, keys: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], _Probe]:
    """The probes of domains' halves, with those of permuted labels at the same strength."""
    strengths = _strengths(values, design, keys)
    bases = [Basis.of(values[design.rows[key]]) for key in keys]
    labels = [np.vstack([design.code[design.rows[key]], design.permuted[key]]) for key in keys]
    found = fit_many(bases, labels, len(design.classes), C=[strengths[key] for key in keys])
    probes = {}
    for key, basis, fitted in zip(keys, bases, found, strict=True):
        reason = f"constant features in {key[0]}" if basis.constant else ""
        if (design.inner[key] < 0).all():
            reason = reason or f"C = {strengths[key]:g} not chosen: one training picture per class"
        probes[key] = _Probe(basis, fitted[:1], fitted[1:], reason)
    return probes


def _inner(frame: pd.DataFrame, rows: np.ndarray, domain: str, seed: int) -> np.ndarray:
    """Halves of a training half, by artists; by pictures where a class has one artist left.

    All -1 where too few classes have two pictures to choose C with.
    """
    part = frame.iloc[rows].reset_index(drop=True)
    for known in (part, part.drop(columns=["artist", "drawing"], errors="ignore")):
        inner = artist_halves(known, [domain], seed=seed, split=1)
        if len(set(part["label"][inner >= 0])) >= LEAST_CLASSES:
            return inner
    return np.full(len(rows), -1, dtype=np.int8)


def _strengths(
    values: np.ndarray, design: _Design, keys: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], float]:
    """Per training half the C with the least held-out log loss over its inner halves."""
    strengths = dict.fromkeys(keys, STRENGTHS[len(STRENGTHS) // 2])
    folds = [(key, side) for key in keys for side in (0, 1) if (design.inner[key] >= 0).any()]
    if not folds:
        return strengths
    fit = [design.rows[key][design.inner[key] == side] for key, side in folds]
    check = [design.rows[key][design.inner[key] == 1 - side] for key, side in folds]
    bases = [Basis.of(values[rows]) for rows in fit]
    held = [basis.project(values[rows]) for basis, rows in zip(bases, check, strict=True)]
    loss = {key: np.zeros(len(STRENGTHS)) for key in keys}
    found: list[Fitted] | None = None
    for place, strength in enumerate(STRENGTHS):  # each starts where the stronger one ended
        found = fit_many(
            bases, [design.code[rows][None] for rows in fit], len(design.classes), C=strength,
            start=found, tolerance=1e-4,
        )  # fmt: skip
        for (key, _), fitted, x, rows in zip(folds, found, held, check, strict=True):
            scores = fitted.scores(x)[0]
            own = scores[np.arange(len(rows)), design.code[rows]]
            loss[key][place] += (logsumexp(scores, axis=1) - own).mean()
    return strengths | {key: STRENGTHS[int(loss[key].argmin())] for key, _ in folds}


class _Site:
    """All tests at one site: a probe meets a domain's test half once, whatever is asked of it."""

    def __init__(
        self, values: np.ndarray, design: _Design, probes: dict[tuple[str, int], _Probe]
    ) -> None:
        self.values, self.design, self.probes = values, design, probes
        self._met: dict[tuple[str, str, int], np.ndarray] = {}

    def coordinates(self, a: str, b: str, half: int) -> np.ndarray:
        """B's test pictures in the coordinates of A's probe."""
        key = (a, b, half)
        if key not in self._met:
            rows = self.design.rows[b, 1 - half]
            self._met[key] = self.probes[a, half].basis.project(self.values[rows])
        return self._met[key]

    def shift(self, a: str, b: str, half: int, classes: np.ndarray) -> np.ndarray:
        """What takes B's training mean to A's, in the same coordinates; classes count equally."""
        basis = self.probes[a, half].basis
        mean_a, mean_b = (
            _class_mean(self.values, self.design, self.design.rows[name, half], classes)
            for name in (a, b)
        )
        return basis.turn(mean_a - mean_b)

    def cell(self, a: str, b: str, *, centred: bool) -> _Cell:
        """Test the probes of A, of its null and of B in B, among their common classes."""
        classes = self.design.common(a, b)
        k = len(classes)
        if k < LEAST_CLASSES:
            blank = np.full(k, np.nan)
            said = f"{k} classes by two artists in both domains, {LEAST_CLASSES} are needed"
            return _Cell(classes, np.full((k, k), np.nan), blank, blank, said)
        confusion, null, ceiling = np.zeros((k, k)), np.zeros(k), np.zeros(k)
        reasons: set[str] = set()
        for half in (0, 1):
            code = self.design.code[self.design.rows[b, 1 - half]]
            mine, own = self.probes[a, half], self.probes[b, half]
            x = self.coordinates(a, b, half)
            if centred:
                x = x + self.shift(a, b, half, classes)
            confusion += _confusion(mine.fitted.scores(x), classes, code)[0] / 2
            null += _right(_confusion(mine.null.scores(x), classes, code)) / 2
            at_home = own.fitted.scores(self.coordinates(b, b, half))
            ceiling += _right(_confusion(at_home, classes, code)) / 2
            reasons |= {mine.reason, own.reason}
        return _Cell(classes, confusion, null, ceiling, "; ".join(sorted(reasons - {""})))


def _class_mean(
    values: np.ndarray, design: _Design, rows: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """Mean over classes of the mean over their pictures."""
    kept = rows[np.isin(design.code[rows], classes)]
    count = np.bincount(design.code[kept], minlength=len(design.classes))
    weight = 1 / (count[design.code[kept]] * len(classes))
    return weight @ values[kept].astype(np.float64)


def _confusion(scores: np.ndarray, classes: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Share of each class's pictures taken for each class: "problem class class"."""
    asked = np.isin(code, classes)
    truth = np.searchsorted(classes, code[asked])
    said = scores[:, asked][:, :, classes].argmax(axis=2)
    k = len(classes)
    counts = np.stack(
        [np.bincount(truth * k + one, minlength=k * k).reshape(k, k) for one in said]
    ).astype(float)
    return counts / counts.sum(axis=2, keepdims=True)


def _right(confusion: np.ndarray) -> np.ndarray:
    """Accuracy per class, averaged over problems."""
    return np.diagonal(confusion, axis1=1, axis2=2).mean(axis=0)


def _refuse_nothing(design: _Design, trains: Sequence[str], tests: Sequence[str]) -> None:
    most = max(len(design.common(a, b)) for a in trains for b in tests)
    if most < LEAST_CLASSES:
        raise SampleError(
            f"test probes of {listed(trains)} in {listed(tests)}",
            f"at most {most} classes with pictures by two artists in both domains",
            f"at least {LEAST_CLASSES}",
            "give more classes, or two pictures of each class and domain",
        )


def _rows(
    features: Features,
    design: _Design,
    kind: tuple[str, str, bool],
    cells: Sequence[_Cell],
    notes: tuple[int, int, int],
) -> list[dict[str, object]]:
    """Table rows of one train domain, test domain and centring: all sites, one family for p."""
    (a, b, centred), (n_null, n_permutations, seed) = kind, notes
    classes = cells[0].classes
    k = len(classes)
    used = design.half >= 0
    used &= design.frame["domain"].isin([a, b]).to_numpy() & np.isin(design.code, classes)
    there = set(design.frame["label"][design.frame["domain"].isin([a, b])])
    shared = {
        "measure": "probe transfer",
        "train_domain": a,
        "domain": b,
        "centred": centred,
        "null_kind": f"probe of train_domain on labels permuted over whole class x artist groups, "
        f"{n_null} per half; p from {n_permutations} permutations of whole test classes, "
        "max-T over sites",
        "unit": "class",
        "n_units": k,
        "n_pictures": int(used.sum()),
        "n_drawings": n_drawings(design.frame.iloc[np.flatnonzero(used)]),
        "estimand": READ if a == b else MOVED,
        "ceiling_kind": ""
        if a == b
        else f"probe of the test domain, same n, same test pictures; halves by "
        f"{hand_column(design.frame)}",
    }
    fewer = len(there) - k
    note = f"{fewer} classes left out: not by two artists in both domains" if fewer else ""
    return [
        {"site": cell.site, "layer": features.layer(cell.site), "depth": features.depth(cell.site)}
        | shared
        | _evidence(cell, note, within=a == b)
        | {"p": float(p)}
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


def _evidence(cell: _Cell, note: str, *, within: bool) -> dict[str, object]:
    """Value, null, ceiling, index, intervals and verdict from accuracies per class."""
    per_class = np.column_stack([np.diag(cell.confusion), cell.null, cell.ceiling])
    k = len(per_class)
    left = (per_class.sum(axis=0) - per_class) / max(k - 1, 1)
    whole = per_class.mean(axis=0) if k else np.full(3, np.nan)
    spread = jackknife(whole[0], left[:, 0])
    blank = Index(np.nan, np.nan, np.nan, CANNOT_TELL, cell.reason)
    if k < LEAST_CLASSES:
        index = blank
    elif within:
        index = replace(blank, verdict="", reason="one domain: rung R1 has no ceiling or index")
    else:
        index = sharing_index(*whole, left_out=left)
    reasons = dict.fromkeys([index.reason, cell.reason, note if k >= LEAST_CLASSES else ""])
    return {
        "value": whole[0],
        "low": spread.low,
        "high": spread.high,
        "null": whole[1],
        "ceiling": np.nan if within else whole[2],
        "index": index.value,
        "index_low": index.low,
        "index_high": index.high,
        "verdict": index.verdict,
        "reason": "; ".join(reason for reason in reasons if reason),
    }

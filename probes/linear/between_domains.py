"""Do two domains say a class in the same directions? A probe learnt in one is tested in another."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd

from interp.core.artists import artist_column, artist_halves, artists_of, n_drawings
from interp.core.errors import SampleError, listed
from interp.core.progress import track
from interp.core.seeds import rng
from interp.core.statistics.resampling import (
    CANNOT_TELL,
    Index,
    class_permutations,
    jackknife,
    max_t,
    sharing_index,
)
from interp.core.tables import Table
from interp.probes.features.matrices import PIXELS, Features, check_domains
from interp.probes.linear.fitting import (
    LEAST_CLASSES,
    Probe,
    TrainingSet,
    confusion,
    fit_probes,
    inner_halves,
    permuted_groups,
    right,
)

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
    half. Its C is the one of `fitting.STRENGTHS` with the least held-out log loss inside the
    training half of the training domain, over two inner halves of artists. The probe answers
    among the classes that both domains have. `centred`: each domain's mean, taken from its
    training half with classes weighted equally, is subtracted; it moves the test rows only, so
    the same probe serves. Rows with `domain == train_domain` are rung R1 and have no ceiling.

    The null is refitted `n_null` times per half; chance is 1 / classes. p is cheaper and finer: it
    permutes whole classes of the test labels, and is adjusted by max-T over the sites of a
    train-domain, test-domain, centred cell. The intervals leave out the *test* pictures of one
    class at a time; probes are not refitted, so they hold no uncertainty of training.

    Raises `SampleError` when no pair of domains has four classes by two artists in each.

    >>> generator = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, d, a) for c in "abcdefgh" for d in ("real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> place = frame["label"].map({c: n for n, c in enumerate("abcdefgh")}).to_numpy()
    >>> points = generator.normal(size=(8, 16))[place] + 0.1 * generator.normal(size=(64, 16))
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
        fitted = fit_probes(
            chosen.values[site], [design.sets[key] for key in able], len(design.classes)
        )
        met = _Site(chosen.values[site], design, dict(zip(able, fitted, strict=True)))
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
            said = f"{k} classes by two artists in both domains, {LEAST_CLASSES} are needed"
            return _Cell(classes, np.full((k, k), np.nan), blank, blank, said)
        confused, null, ceiling = np.zeros((k, k)), np.zeros(k), np.zeros(k)
        reasons: set[str] = set()
        for half in (0, 1):
            code = self.design.sets[b, 1 - half].labels
            mine, own = self.probes[a, half], self.probes[b, half]
            x = self.coordinates(a, b, half)
            if centred:
                x = x + self.shift(a, b, half, classes)
            confused += confusion(mine.fitted.scores(x), classes, code)[0] / 2
            null += right(confusion(mine.null.scores(x), classes, code)) / 2
            at_home = own.fitted.scores(self.coordinates(b, b, half))
            ceiling += right(confusion(at_home, classes, code)) / 2
            reasons |= {
                f"{probe.reason} in {name}" for name, probe in ((a, mine), (b, own)) if probe.reason
            }
        return _Cell(classes, confused, null, ceiling, "; ".join(sorted(reasons)))


def _class_mean(
    values: np.ndarray, design: _Design, rows: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """Mean over classes of the mean over their pictures."""
    kept = rows[np.isin(design.code[rows], classes)]
    count = np.bincount(design.code[kept], minlength=len(design.classes))
    weight = 1 / (count[design.code[kept]] * len(classes))
    return weight @ values[kept].astype(np.float64)


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
        f"{artist_column(design.frame)}",
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


MEASURE = "probe transfer, one domain left out"


def leave_one_domain_out(
    features: Features,
    sites: str | Iterable[str] | None = None,
    domains: Sequence[str] | None = None,
    *,
    n_null: int = 5,
    n_permutations: int = 999,
    seed: int = 0,
    control: str = "",
) -> Table:
    """Balanced accuracy of class probes trained in all domains but one and tested in that one.

    Rows are those of `transfer`, with its null, index, interval and p, and with "all but sketch"
    as `train_domain`. The ceiling is a probe of the left-out domain itself. The others' pictures
    are drawn together down to as many per class as the left-out domain has in a half, so that
    value and ceiling come from equally many pictures. `centred`: each training domain's mean is
    taken out before they are put together (classes weighted equally), the left-out domain's as
    `transfer` does, from the half that is not tested.

    Raises `SampleError` for fewer than three domains (with two, `transfer` says it), and where no
    domain shares four classes by two artists with the others.

    >>> generator = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, d, a) for c in "abcdef" for d in ("ink", "real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> place = frame["label"].map({c: n for n, c in enumerate("abcdef")}).to_numpy()
    >>> points = generator.normal(size=(6, 16))[place] + 0.1 * generator.normal(size=(72, 16))
    >>> table = leave_one_domain_out(Features({"hook_embedding": points.astype(np.float32)}, frame))
    >>> table.frame.query("centred")["verdict"].tolist()
    ['shared', 'shared', 'shared']
    """
    chosen = features if sites is None else features.only(sites)
    names = check_domains(chosen, domains, "leave a domain out")
    if len(names) < 3:
        raise SampleError(
            "leave a domain out",
            f"{len(names)} domains, {listed(names)}",
            "three domains or more",
            "measure `transfer` between two domains",
        )
    here = chosen.rows(chosen.frame["domain"].isin(names))
    level = _centred(here)
    frames, refused = [], []
    for name in names:
        for centred, part in ((False, here), (True, level)):
            try:
                frame = _one(
                    part, here, name, n_null=n_null, n_permutations=n_permutations, seed=seed,
                    control=control,
                )  # fmt: skip
            except SampleError as error:
                refused.append(error)
            else:
                frames.append(frame[frame["centred"] == centred])
    if not frames:
        raise refused[0]
    frame = pd.concat(frames, ignore_index=True).assign(measure=MEASURE)
    facts = {**features.facts, "n_null": n_null, "n_permutations": n_permutations}
    if refused:
        facts["left_out"] = [str(error) for error in refused]
    return Table.with_evidence("leave_one_domain_out", frame, facts)


def _one(
    others: Features,
    own: Features,
    name: str,
    *,
    n_null: int,
    n_permutations: int,
    seed: int,
    control: str,
) -> pd.DataFrame:
    """One domain left out: `transfer` from the others as one domain, itself as it is."""
    rest = f"all but {name}"
    mine = (own.frame["domain"] == name).to_numpy()
    values = {
        site: np.where(mine[:, None], own.values[site], others.values[site]) for site in own.values
    }
    pooled = Features(
        values, own.frame.assign(domain=np.where(mine, name, rest)), own.layers, own.depths
    )
    table = transfer(
        pooled, None, [rest], [name], n_null=n_null, n_permutations=n_permutations, seed=seed,
        control=control,
    )  # fmt: skip
    return table.frame


def _centred(features: Features) -> Features:
    """Each domain less the mean of its class means; classes that some domain lacks do not count."""
    frame = features.frame
    by_domain = [set(part["label"]) for _, part in frame.groupby("domain")]
    common = frame["label"].isin(set.intersection(*by_domain)).to_numpy()
    values = {}
    for site, matrix in features.values.items():
        moved = matrix.astype(np.float64)
        for name in features.domains:
            rows = (frame["domain"] == name).to_numpy()
            counted = rows & common if common.any() else rows
            label = pd.factorize(frame["label"][counted])[0]
            weight = 1 / np.bincount(label)[label]
            moved[rows] -= weight @ moved[counted] / weight.sum()
        values[site] = moved.astype(matrix.dtype)
    return Features(values, frame, features.layers, features.depths, features.facts)

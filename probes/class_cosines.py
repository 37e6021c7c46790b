"""How much each single class shares between two domains: cosines of its contrast, class by class.

What `directions` says of all classes together, here of one class at a time, for the question
whether the classes that are shared more are also the ones that are recognised better (L3).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from interp.core.band import LAST, band_of
from interp.core.errors import SampleError, SpecificationError, listed
from interp.core.tables import Table
from interp.probes.directions import LEAST_CLASSES, class_directions
from interp.probes.features import Features, check_domains
from interp.probes.halves import artist_halves, halved_classes, n_drawings

MEASURE = "cosine of a class's mean difference"


def class_cosines(
    features: Features,
    domains: Sequence[str],
    *,
    sites: Iterable[str] | None = None,
    n_splits: int = 5,
    seed: int = 0,
) -> Table:
    """Sharing of each class between two domains in the middle layers, beyond that of other classes.

    A class's contrast is its mean less the mean of all classes, in one half of a domain's artists.
    With cos_cd the cosine of c's contrast in A and d's in B, cross-fitted,

        value  = cos_cc           (mean of A_1 with B_2 and A_2 with B_1)
        null   = mean of cos_cd and cos_dc over the other classes d
        beyond = value - null     the class's sharing
        half_1, half_2 = the same from A_1 with B_2, and from A_2 with B_1, of the first deal
        ceiling = sqrt(cos(A_1, A_2) cos(B_1, B_2)), equal n

    averaged over sites, and but for the halves over `n_splits` deals of artists. The two halves
    have no picture in common (drawings that are seen in A in the one are seen in B in the other):
    what they agree in is no noise of pictures. Without `sites`, those of the middle layers are
    read, never the final embedding.

    Raises `SpecificationError` unless two domains are named, `SampleError` when fewer than four
    classes have two artists in both, or when no site lies in the middle.

    >>> stream = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, d, a) for c in "abcdefgh" for d in ("real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> place = frame["label"].map({c: n for n, c in enumerate("abcdefgh")}).to_numpy()
    >>> points = stream.normal(size=(8, 16))[place] + 0.1 * stream.normal(size=(64, 16))
    >>> read = Features({"blocks.1.hook_resid_post": points.astype(np.float32)}, frame)
    >>> table = class_cosines(read, ["real", "sketch"], sites=read.sites).frame
    >>> len(table), bool(table["beyond"].min() > 0.9)
    (8, True)
    """
    asked = "measure the sharing of each class"
    names = check_domains(features, domains, asked)
    if len(names) != 2:
        raise SpecificationError(asked, f"the domains {listed(names)}", "two", "name two domains")
    chosen = _middle(features) if sites is None else list(sites)
    if not chosen:
        raise SampleError(
            asked, "no site in the middle layers", "a site from a third to two thirds of the depth",
            "collect one, or name `sites`",
        )  # fmt: skip
    frame = features.frame
    deals = [artist_halves(frame, names, seed=seed, split=split) for split in range(n_splits)]
    classes = halved_classes(frame, deals, names)
    if len(classes) < LEAST_CLASSES:
        raise SampleError(
            asked, f"{len(classes)} classes by two artists in both domains",
            f"at least {LEAST_CLASSES}", "give more classes, or pictures by more artists",
        )  # fmt: skip
    code = pd.Index(classes).get_indexer(frame["label"].to_numpy(object))
    found = np.mean(
        [[_one_deal(features.values[site], frame, names, code, deal) for deal in deals]
         for site in chosen], axis=0,
    )  # fmt: skip
    value, null, ceiling = found.mean(axis=0)[:3]
    used = frame["domain"].isin(names).to_numpy() & np.isin(code, range(len(classes)))
    counted = frame[used].assign(code=code[used]).groupby("code")
    rows = pd.DataFrame(
        {
            "measure": MEASURE,
            "band": "middle",
            "domain_a": names[0],
            "domain_b": names[1],
            "label": classes,
            "value": value,
            "null": null,
            "null_kind": "contrasts of the other classes",
            "ceiling": ceiling,
            "ceiling_kind": "geometric mean of the cosines within each domain, halves of artists",
            "beyond": value - null,
            "half_1": found[0, 3],
            "half_2": found[0, 4],
            "n_pictures": counted.size().to_numpy(),
            "n_drawings": [n_drawings(part) for _, part in counted],
            "seed": seed,
            "reason": "",
        }
    )
    return Table("class_sharing", rows, {"sites": chosen, "n_splits": n_splits})


def _middle(features: Features) -> list[str]:
    depths = {site: features.depth(site) for site in features.sites if site != LAST}
    return [site for site, depth in depths.items() if band_of(depth) == "middle"]


def _one_deal(
    x: np.ndarray, frame: pd.DataFrame, names: Sequence[str], code: np.ndarray, deal: np.ndarray
) -> np.ndarray:
    """Value, null, ceiling and both halves of every class: "5 class"."""
    domain = frame["domain"].to_numpy(object)
    units = {}
    for place, name in enumerate(names):
        for half in (0, 1):
            rows = np.flatnonzero((domain == name) & (deal == half) & (code >= 0))
            own = class_directions(x[rows], code[rows], shrunk=False)
            lengths = np.linalg.norm(own, axis=1, keepdims=True)
            units[place, half] = own / np.maximum(lengths, 1e-300)
    across = [units[0, half] @ units[1, 1 - half].T for half in (0, 1)]
    k = len(across[0])
    own = np.array([np.diag(each) for each in across])
    others = np.array([(each.sum(axis=0) + each.sum(axis=1) - 2 * np.diag(each)) / (2 * (k - 1))
                       for each in across])  # fmt: skip
    within = [np.maximum((units[place, 0] * units[place, 1]).sum(axis=1), 0) for place in (0, 1)]
    return np.array([own.mean(axis=0), others.mean(axis=0), np.sqrt(within[0] * within[1]),
                     *(own - others)])  # fmt: skip

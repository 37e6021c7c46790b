"""Class probes trained on all domains but one and tested on the domain that was left out."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from interp.core.errors import SampleError, listed
from interp.core.faces.doors import door
from interp.core.tables import Table
from interp.probes.features.features import Features, check_domains
from interp.probes.linear.transfer import transfer

MEASURE = "probe transfer, one domain left out"


@door
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

        index = (value - null) / (ceiling - null)

    as for `transfer`, with a probe of the left-out domain itself as the ceiling.

    Args:
        features: Features "picture feature" of pictures with labels and domains.
        sites: Names or patterns of sites; None takes all.
        domains: Domains, each of which is left out once; None takes all.
        n_null: Fits of the null per half of the artists.
        n_permutations: Permutations of whole test classes for p.
        seed: Seed of deals and permutations.
        control: Name of the floor that these features stand for, such as "epoch 0", for the column
            `control`; empty for none. The site "pixels" names itself.

    Returns:
        The rows of `transfer`, with its null, index, interval and p, and with "all but sketch"
        (say) as `train_domain`.

    Raises:
        SampleError: For fewer than three domains (with two, use `transfer`), or where no domain
            shares four classes by two artists with the others.
        DataError: For an unknown domain.
        SiteError: For a site that the features do not have.

    Notes:
        - The pictures of the other domains together are drawn down to as many per class as the
          left-out domain has in a half, so value and ceiling come from equally many pictures.
        - Where `centred`, each training domain's mean (classes weighted equally) is subtracted
          before the domains are put together. The left-out domain's mean is subtracted as in
          `transfer`, from the half that is not tested.

    >>> generator = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, d, a) for c in "abcdef" for d in ("ink", "real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> place = frame["label"].map({c: n for n, c in enumerate("abcdef")}).to_numpy()
    >>> points = generator.normal(size=(6, 16))[place] + 0.1 * generator.normal(size=(72, 16))
    >>> table = leave_one_domain_out(Features({"hook_embedding": points.astype(np.float32)}, frame))
    >>> table.frame.query("centred")["verdict"].tolist()
    ['shared', 'shared', 'shared']
    """
    chosen = features.only(sites)
    names = check_domains(chosen, domains, "leave a domain out")
    if len(names) < 3:
        given = f"{len(names)} domains, {listed(names)}"
        do = "measure `transfer` between two domains"
        raise SampleError("leave a domain out", given, "three domains or more", do)
    here = chosen.rows(chosen.frame["domain"].isin(names))
    level = _centred(here)
    drawn = {"n_null": n_null, "n_permutations": n_permutations}
    frames, refused = [], []
    for name in names:
        for centred, part in ((False, here), (True, level)):
            try:
                others = _pooled(part, here, name)
                frame = transfer(
                    others, None, [f"all but {name}"], [name], seed=seed, control=control, **drawn
                ).frame
            except SampleError as error:
                refused.append(error)
            else:
                frames.append(frame[frame["centred"] == centred])
    if not frames:
        raise refused[0]
    frame = pd.concat(frames, ignore_index=True).assign(measure=MEASURE)
    facts = {**features.facts, **drawn}
    if refused:
        facts["left_out"] = [str(error) for error in refused]
    return Table.with_evidence("leave_one_domain_out", frame, facts)


def _pooled(others: Features, own: Features, name: str) -> Features:
    """All domains but one as one domain, and that one as it is."""
    mine = (own.frame["domain"] == name).to_numpy()
    values = {
        site: np.where(mine[:, None], own.values[site], others.values[site]) for site in own.values
    }
    frame = own.frame.assign(domain=np.where(mine, name, f"all but {name}"))
    return Features(values, frame, own.layers, own.depths)


def _centred(features: Features) -> Features:
    """Each domain less the mean of its class means; classes that some domain lacks do not count.

    >>> frame = pd.DataFrame({"label": ["owl", "owl", "cat"], "domain": "real"})
    >>> given = Features({"s": np.array([[0.0], [0.0], [3.0]])}, frame, {"s": 0}, {"s": 0.5}, {})
    >>> _centred(given).values["s"].ravel().tolist()
    [-1.5, -1.5, 1.5]
    """
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

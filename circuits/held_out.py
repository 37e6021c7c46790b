"""Some artists' pictures to fit on, other artists' to test on, in all domains alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp.circuits.artists import artists_of, deal
from interp.circuits.donors import Transplants, draw_transplants
from interp.core.errors import SampleError, SpecificationError, check_known, listed
from interp.core.images import ImageTable
from interp.core.seeds import rng


@dataclass(frozen=True)
class HeldOut:
    """What is fitted on and what is tested on in each domain, by different artists.

    `fitted` are rows of `images`, equally many of each class in all domains. `tested` are
    transplants within a domain: `target` receives from `donor`, which shows `label`, or from
    `null`, which shows a third class.
    """

    images: ImageTable
    classes: Sequence[str]
    fitted: dict[str, np.ndarray]
    tested: dict[str, Transplants]
    artists: str


def hold_out(
    images: ImageTable, domains: Sequence[str], *, classes: Sequence[str], n: int, seed: int = 0
) -> HeldOut:
    """Deal the artists of all domains into those fitted on and those tested on, and draw pictures.

    An artist stands on one side with all classes and domains; the larger side is tested on,
    since base and source are by different artists there. About `n` pictures of each domain are
    fitted on, `n` receivers are tested.

    Raises `DataError` for an unknown domain, `SpecificationError` for one domain twice,
    `SampleError` for fewer than three classes on both sides in every domain, or too few artists.
    """
    check_known("fit a subspace", "domain", domains, images.domains)
    asked = f"compare the subspaces of {' and '.join(domains)}"
    if len(set(domains)) < len(domains) or n < 1:
        raise SpecificationError(
            asked,
            f"{listed(domains)}, n = {n}",
            "different domains, n of at least 1",
            "choose others",
        )
    frame = images.frame
    used = frame["domain"].isin(domains).to_numpy() & frame["label"].isin(classes).to_numpy()
    column, who = artists_of(frame)
    label, domain = (frame[name].to_numpy(object) for name in ("label", "domain"))
    side = np.full(len(frame), -1)
    if used.any():
        cells = np.array([f"{d}/{c}" for d, c in zip(domain[used], label[used], strict=True)])
        side[used] = deal(who[used], cells, seed=seed)
    rows = {
        (d, c, half): np.flatnonzero((domain == d) & (label == c) & (side == half))
        for d in domains
        for c in classes
        for half in (0, 1)
    }
    usable = [c for c in classes if all(len(rows[d, c, h]) for d in domains for h in (0, 1))]
    few = [d for d in domains if len(set(who[(side == 1) & (domain == d)])) < 2]
    if len(usable) < 3 or few:
        n_artists = {d: len(set(who[used & (domain == d)])) for d in domains}
        raise SampleError(
            asked,
            f"{len(usable)} classes by artists fitted on and others, of {n_artists} ({column})",
            "three classes and three artists in every domain: one to fit on, two to test on",
            "give more classes or more artists",
        )
    most, stream = -(-n // len(usable)), rng("fitted on", seed)
    fitted: dict[str, list[np.ndarray]] = {d: [] for d in domains}
    for c in usable:
        count = min(most, *(len(rows[d, c, 0]) for d in domains))
        for d in domains:
            fitted[d].append(np.sort(stream.choice(rows[d, c, 0], count, replace=False)))
    rest = images[np.flatnonzero(side == 1)]
    tested = {
        d: draw_transplants(rest, domain_a=d, domain_b=d, classes=usable, n=n, seed=seed)
        for d in domains
    }
    chosen = {d: np.concatenate(parts) for d, parts in fitted.items()}
    return HeldOut(images, usable, chosen, tested, column)

"""Is the truth of a planted ResNet true? Exchange channels, site by site, and read the margin."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from interp.circuits.certification import FLOOR, INSIDE, OUTSIDE, draw_partners
from interp.circuits.metrics import Metric, Target
from interp.circuits.planted_resnet import ChannelTruth, PlantedResNet
from interp.circuits.units import measure_units
from interp.core.model import Tower
from interp.core.sites import find_sites
from interp.core.tables import Table

CUTS = ("stem.*", "layer*.*.hook_resid_post")
"""Sites that everything passes through. At others, inside a block, the shortcut goes around."""


def certify_channels(planted: PlantedResNet, tower: Tower, *, n: int = 16, seed: int = 0) -> Table:
    """Hold a planted ResNet's channels against exact interchange, domain by domain, site by site.

    At one site all channels of the truth together, or all others together, take their activations
    from a picture of the same domain, drawn independently (other places, contrasts, nuisances),
    whose class shares neither P nor Q; the run goes on from there. With m the margin of the true
    class before and m' after,

        value = mean(m - m') / mean(m),   error = max |m - m'| / mean(m).

    Channels inside pass (`ok`) with value >= .3, channels outside with error <= .02; none passes in
    a domain whose mean margin is below a cosine of .01. Inside is asked only of sites that
    everything passes through (`CUTS`). `tower` is `planted.source`, opened for hooks, such as a
    `HookedResNet`; `n` pictures per domain are spread evenly over the classes. The facts hold the
    accuracy and the mean margin in each domain.

    Raises `SampleError` for less than one picture, `SiteError` for a tower without these sites.
    Source: InterpBench (Gupta et al. 2024) certifies nodes by interchange.
    """
    rows, accuracy, margins = [], {}, {}
    for domain, truth in planted.truths.items():
        scenes, partners = draw_partners(planted.world, domain, n, seed)
        cuts = find_sites(CUTS, tower.sites)
        asked = [(site, inside) for site in truth.masks for inside in (True, False)
                 if site in cuts or not inside]  # fmt: skip
        values, (margin, _) = measure_units(
            tower,
            _kept(truth, asked),
            clean=planted.world.render(scenes),
            corrupt=planted.world.render(partners),
            metric=Metric("margin", Target(planted.classifier, scenes.label)),
            batch_size=n,
        )
        accuracy[domain], margins[domain] = float((margin > 0).mean()), float(margin.mean())
        for (site, inside), lost in zip(asked, (margin - values) / margin.mean(), strict=True):
            value, error = float(lost.mean()), float(np.abs(lost).max())
            passes = value >= INSIDE if inside else error <= OUTSIDE
            kind = f"channels {'inside' if inside else 'outside'}"
            ok = passes and margins[domain] >= FLOOR
            rows.append((domain, site, kind, inside, value, error, ok))
    columns = ["domain", "component", "kind", "inside", "value", "error", "ok"]
    frame = pd.DataFrame(rows, columns=columns).assign(n_pictures=n)
    facts = {"inside": INSIDE, "outside": OUTSIDE, "accuracy": accuracy, "margin": margins,
             "seed": seed}  # fmt: skip
    return Table("planted_channels", frame, facts)


def _kept(truth: ChannelTruth, asked: Sequence[tuple[str, bool]]) -> dict[str, np.ndarray]:
    """For each exchange the channels kept: all, but at its site those outside, or inside."""
    kept = {site: np.ones((len(asked), len(mask)), bool) for site, mask in truth.masks.items()}
    for row, (site, inside) in enumerate(asked):
        kept[site][row] = truth.masks[site] != inside
    return kept

"""How long all mixtures of a DomainNet-sized list take, and how much memory, files and all."""

import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from interp.data.mixtures.manifest import check_mixture
from interp.data.mixtures.mixture import make_mixtures
from interp.data.mixtures.settings import PAPER_HELD_OUT, SETTINGS, MixtureSpec
from tests.data.domainnet import DOMAINS, listed_pictures


def all_mixtures() -> list[MixtureSpec]:
    """Settings, upper bounds and doses for all five test domains."""
    specs = []
    for domain in (each for each in DOMAINS if each != "real"):
        specs += [MixtureSpec(setting, domain, PAPER_HELD_OUT) for setting in SETTINGS]
        high = MixtureSpec("cg-high", domain, PAPER_HELD_OUT)
        bound = MixtureSpec("upper-bound-high", domain, PAPER_HELD_OUT)
        specs += [replace(high, domains=n) for n in (1, 2, 3)]
        specs += [replace(high, seen_dose=dose) for dose in (0.25, 0.5, 0.75)]
        specs += [replace(bound, held_out_dose=d) for d in (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)]
    return specs


def mix() -> None:
    """Seconds to make, write and check them all, and the peak memory of this process."""
    images, specs = listed_pictures(), all_mixtures()
    before, start, rows = _peak(), (time.perf_counter(), time.process_time()), 0
    with tempfile.TemporaryDirectory() as name:
        for mixture in make_mixtures(images, specs):
            folder = mixture.write(Path(name) / "mixture").parent
            rows += check_mixture(folder)["pictures"]
    taken, busy = time.perf_counter() - start[0], time.process_time() - start[1]
    print(
        f"mix: {len(specs)} mixtures of a list of {len(images):,} pictures, {rows:,} rows in all, "
        f"made, written and checked in {taken:.1f} s, {busy:.1f} s of one core (bar 60); "
        f"{_peak():.2f} GiB at most (bar 2), {before:.2f} of it the list"
    )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

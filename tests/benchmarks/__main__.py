"""Print the figures that the project aims at, each measured in this run.

python -m tests.benchmarks                 all of them (an hour and a half on two cores)
python -m tests.benchmarks start train     some of them
python -m tests.benchmarks truth           the truth table (BLUEPRINTS=30 judges on); when named
python -m tests.benchmarks leaderboard     methods judged on planted models; only when named
python -m tests.benchmarks seed_pairs      two seeds of a mixture, compared; only when named
python -m tests.benchmarks findings        docs/tables, from the kept tables; only when named
"""

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from tests.benchmarks.channels import channels
from tests.benchmarks.comparing import compared
from tests.benchmarks.edges import edges
from tests.benchmarks.encoding import encoders
from tests.benchmarks.findings import findings
from tests.benchmarks.judging import truth
from tests.benchmarks.layers import layers
from tests.benchmarks.opening import open_
from tests.benchmarks.paging import page
from tests.benchmarks.peers import peers
from tests.benchmarks.probing import one_probe, probe_grid
from tests.benchmarks.seed_pairs import seed_pairs
from tests.benchmarks.standing import leaderboard
from tests.benchmarks.streaming import stream
from tests.benchmarks.sweeping import sweeping
from tests.benchmarks.timing import seconds
from tests.benchmarks.training import train


def start() -> None:
    """`interp-report --help` and `import interp`, medians of seven processes."""
    help_command = [sys.executable, "-m", "interp.cli", "--help"]
    bare = [sys.executable, "-c", "pass"]
    ours = [sys.executable, "-c", "import interp"]
    for name, command, bar in (
        ("--help", help_command, 0.5),
        ("import interp", ours, 0.3),
        ("bare python", bare, None),
    ):
        times = [
            seconds(lambda c=command: subprocess.run(c, capture_output=True, check=True))
            for _ in range(7)
        ]
        print(
            f"start: {name:14} {statistics.median(times):.2f} s"
            + (f" (bar {bar} s)" if bar else "")
        )


def study() -> None:
    """The main job from an installed package: seconds, peak memory, and rebuilding the page."""
    with tempfile.TemporaryDirectory() as name:
        environment = {**os.environ, "INTERP_CACHE": f"{name}/cache"}
        command = [sys.executable, "-m", "interp.cli", "run", "--quiet", "--out", f"{name}/out"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        peak: list[float] = []
        watch = threading.Thread(target=_watch, args=(process, peak), daemon=True)
        watch.start()
        taken = seconds(process.wait)
        print(
            f"study: {taken / 60:.1f} minutes (bar 15), {max(peak):.1f} GiB at most (bar 4), exit "
            f"{process.returncode}"
        )
        again = [*command[:3], "page", "--out", f"{name}/out"]
        rebuilt = seconds(
            lambda: subprocess.run(again, env=environment, check=True, stdout=subprocess.DEVNULL)
        )
        second = seconds(
            lambda: subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        )
        print(f"study: page rebuilt in {rebuilt:.1f} s (bar 20); a second run {second:.1f} s")


def _watch(process: "subprocess.Popen[bytes]", peak: list[float]) -> None:
    """Proportional memory of the process and all its descendants, GiB, twice a second."""
    import psutil

    root = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        for each in [root, *root.children(recursive=True)]:
            try:
                total += each.memory_full_info().pss
            except psutil.Error:
                continue
        peak.append(total / 2**30)
        time.sleep(0.5)


def certificates() -> None:
    """The worst site of every form of architecture in small, and of some in full size."""
    import open_clip

    from interp import load_clip
    from interp.models.certificate.certify import certify
    from interp.models.towers.open_tower import open_tower
    from tests.architectures import forms, is_hugging_face, is_timm, small

    own = (("visual", is_timm), ("text", is_hugging_face))
    for name, names in forms().items():
        config = open_clip.get_model_config(name) or {}
        model = small(name)
        for which in (which for which, foreign in own if not foreign(config)):
            _print_worst(
                f"{name} and {len(names) - 1} more, small", certify(open_tower(model, which))
            )
    for name in ("ViT-B-32", "ViT-B-16", "RN50", "RN101"):
        _print_worst(f"{name}, full size", certify(load_clip(name).visual, batch=2))


def _print_worst(name: str, frame: Any) -> None:
    """The site whose error is largest for its bar."""
    row = frame.loc[(frame["error"] / frame["bar"]).idxmax()]
    verdict = "passed" if frame["ok"].all() else f"FAILED at {(~frame['ok']).sum()} sites"
    print(
        f"certificate: {name}: {row['tower']} {verdict}, {len(frame)} rows; worst {row['site']} "
        f"({row['check']}, {row['dtype']}) {row['error']:.1e} of a bar of {row['bar']:.1e}"
    )


WHEN_NAMED = {
    "truth": truth,
    "leaderboard": leaderboard,
    "seed_pairs": seed_pairs,
    "findings": findings,
    "encoders": encoders,
}
"""What takes hours or is asked seldom; each returns what is to be printed."""

ALWAYS = {
    "certificates": certificates,
    "channels": channels,
    "start": start,
    "train": train,
    "open": open_,
    "probes": probe_grid,
    "probe": one_probe,
    "layers": layers,
    "peers": peers,
    "sweep": sweeping,
    "edges": edges,
    "compare": compared,
    "page": page,
    "stream": stream,
    "study": study,
}
"""What prints as it goes."""

if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help=f"of {', '.join((*ALWAYS, *WHEN_NAMED))}")
    for chosen in parser.parse_args().name or ALWAYS:
        if chosen in ALWAYS:
            ALWAYS[chosen]()
        else:
            print(WHEN_NAMED[chosen]())

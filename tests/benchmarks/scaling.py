"""What the ladder costs at the paper's size: seconds, memory and forwards, by measure and rung.

Three parts. Statistics run whole, on made features of one site. A forward of a full tower is timed
on a few pictures. What runs a tower again for every class is run on a narrow tower of four blocks,
where forwards and backwards are counted; the cost of more sites and more classes is extrapolated,
by their number and by a fitted exponent, and told as such.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.benchmarks.judging import filled
from tests.benchmarks.recovering import markdown

FOLDER = Path(__file__).parent / "scale"
DOCS = Path(__file__).parents[2] / "docs"
DOMAINS, PERMUTATIONS, SPLITS = 6, 199, 5
LIMIT = int(os.environ.get("LIMIT", "300"))
"""Processor seconds after which a measurement is given up; its row then says so."""

TOWERS = {"RN50": {64: 1, 256: 3, 512: 4, 1024: 7, 2048: 3}, "ViT-B-32": {768: 12, 512: 1}}
"""Towers, and how many sites of so many features their streams have, the embedding among them."""

CLASSES, CELLS, WIDTHS = (45, 90, 180, 345), (4, 8, 16), (256, 512, 1024, 2048)
WIDTH = WIDTHS[0]
ASKED: Sequence[tuple[int, int, int]] = (
    *((classes, 4, WIDTH) for classes in CLASSES),
    *((90, cell, WIDTH) for cell in CELLS),
    *((90, 4, width) for width in WIDTHS),
)
"""Classes, pictures of a class in a domain, and features."""

RUNG_OF = {
    "transfer": "R1, R3", "similarity": "R2", "directions": "R3", "factorisation": "linear factors",
    "linear_factors": "linear factors", "domain_test": "domains", "domain_probes": "domains",
}  # fmt: skip


def scale() -> str:
    """Measure what is missing, and write the tables of the docs."""
    FOLDER.mkdir(exist_ok=True)
    for name, tasks in (
        ("forwards", [(tower,) for tower in TOWERS]),
        ("counts", [(t, part, n) for t in PARTS for part in PARTS[t] for n in FEW_CLASSES]),
        ("ranks", [(tower, n) for tower in TOWERS for n in (1, 2)]),
        ("statistics", [(m, *each) for each in dict.fromkeys(ASKED) for m in RUNG_OF]),
    ):
        _measure(name, tasks)
    page, made = DOCS / "from_embedded_to_yours.md", tables()
    page.write_text(filled(page.read_text(encoding="utf-8"), made), encoding="utf-8")
    return "\n\n".join(made.values())


def kept(part: str) -> pd.DataFrame:
    """The rows of a part that have been measured."""
    path = FOLDER / f"{part}.csv"
    return pd.read_csv(path) if path.exists() else pd.DataFrame({"task": []})


def _measure(part: str, tasks: Sequence[tuple[Any, ...]]) -> None:
    """Run every task that has no row yet in a process of its own, one after the other."""
    known = set(kept(part)["task"])
    for words in ([str(each) for each in task] for task in tasks):
        if " ".join(words) in known:
            continue
        found = _apart(part, words)
        row = pd.DataFrame([{"task": " ".join(words), **found}])
        pd.concat([kept(part), row], ignore_index=True).to_csv(FOLDER / f"{part}.csv", index=False)
        print(part, *words, found, flush=True)


def _apart(part: str, words: Sequence[str]) -> dict[str, Any]:
    """What a task finds, in a process of its own that has imported what it needs already."""
    import interp.measures.catalogue.mechanisms  # noqa: F401 - imported once for all children

    context = get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_carry_out, args=(part, words, theirs))
    child.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:  # the child is gone without a word
        found = {"said": f"over {LIMIT} processor seconds"}
    child.join()
    return found


def _carry_out(part: str, words: Sequence[str], end: Any) -> None:
    import torch

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
    try:
        found = MEASURED[part](*words)
    except Exception as error:  # a measurement that fails is a row that says so
        end.send({"said": f"{type(error).__name__}: {error}"})
        raise
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    numbers = {**found, "peak_mb": peak}
    end.send({name: float(f"{each:.9g}") for name, each in numbers.items()})


def statistics(name: str, classes: str, cell: str, width: str) -> dict[str, float]:
    """Processor seconds of a measure of one site, and what was held before it began."""
    from interp import probes

    read = made_features(int(classes), int(cell), int(width))
    options: dict[str, Any] = {"seed": 0, "n_permutations": PERMUTATIONS}
    if name == "domain_test":
        options["domains"] = read.domains[:2]
    if name in ("similarity", "directions", "factorisation", "linear_factors"):
        options["n_splits"] = SPLITS
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = _timed(lambda: getattr(probes, name)(read, **options))
    return {"seconds": seconds, "before_mb": before}


def made_features(n_classes: int, cell: int, width: int) -> Any:
    """Features of one site: class and domain effects, and noise twice as large."""
    from interp.probes import Features

    generator = np.random.default_rng(0)
    place = np.repeat(np.arange(n_classes * DOMAINS), cell)
    label, domain = place // DOMAINS, place % DOMAINS
    x = 2 * generator.standard_normal((len(place), width), dtype=np.float32)
    x += generator.standard_normal((n_classes, width), dtype=np.float32)[label]
    x += generator.standard_normal((DOMAINS, width), dtype=np.float32)[domain]
    frame = pd.DataFrame({
        "path": [f"{row}.png" for row in range(len(place))],
        "label": [f"class {each:03d}" for each in label],
        "domain": [f"domain {each}" for each in domain],
    })  # fmt: skip
    site = "blocks.0.hook_resid_post"
    return Features({site: x}, frame.assign(split="test", caption=""), {site: 0}, {site: 0.5})


def forwards(name: str) -> dict[str, float]:
    """Processor seconds a picture of a full tower with random weights, medians of three runs."""
    import open_clip
    import torch

    from interp.measures.known_sites import stream_sites
    from interp.models.towers.opening import open_tower

    torch.manual_seed(0)
    model = open_clip.create_model(name, pretrained=None).eval()
    tower, x = open_tower(model, "visual"), torch.randn(8, 3, 224, 224)
    sites = stream_sites(tower)

    def bare() -> None:
        with torch.no_grad():
            tower(x)

    def stream() -> None:
        with torch.no_grad():
            tower.run_with_cache(x, names_filter=sites)

    def backward() -> None:
        tower(x).square().sum().backward()

    taken = {}
    for key, work in (("bare", bare), ("kept", stream), ("backward", backward)):
        work()
        taken[key] = sorted(_timed(work) for _ in range(3))[1] / len(x)
    return taken


def _timed(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


FEW_CLASSES = (4, 8, 16)
PARTS = {"RN50": ("erasure", "R4", "R5 and R6"), "ViT-B-32": ("R5 and R6",)}
"""What runs a tower again for its classes, between two domains."""

SITES: Mapping[str, Callable[[int], int]] = {
    "erasure": lambda blocks: 1,
    "R4": lambda blocks: blocks - 1,
    "R5 and R6": lambda blocks: 1 + blocks,
}
"""How often a part is asked of a tower of so many blocks: at sites, and at all sites at once."""

BLOCKS, WHOLE = 4, {"RN50": 16, "ViT-B-32": 12}
"""Blocks of the narrow towers, and of the full ones."""

PER_CELL, SIDE = 24, 32
"""Pictures of a class in a domain, as many as the measures take at most; and their side."""


def counts(name: str, part: str, n: str) -> dict[str, float]:
    """Forwards and backwards of a picture through all blocks of the narrow tower."""
    from interp import probes
    from interp.measures.catalogue import mechanisms
    from interp.measures.known_sites import stream_sites

    tower, images, head, preprocess = narrow(name, int(n))
    seen = mechanisms.Seen(tower, images, head, preprocess)
    sites, pair = stream_sites(tower), (images.domains[0], images.domains[1])
    asked: Mapping[str, Callable[[], object]] = {
        "erasure": lambda: probes.erasure(
            tower, images, sites[len(sites) // 2], preprocess=preprocess, classifier=head,
            class_names=list(head.names),
        ),
        "R4": lambda: mechanisms.causal_directions(seen, [pair]),
        "R5 and R6": lambda: mechanisms._crossed(seen, [pair]),
    }  # fmt: skip
    with counted(tower) as passed:
        seconds = _timed(asked[part])
    return {"seconds": seconds, **passed}


def narrow(name: str, n_classes: int) -> tuple[Any, Any, Any, Any]:
    """A tower of four blocks, few features and pixels; pictures, head and preprocess."""
    import torch
    from open_clip.model import CLIP
    from PIL import Image

    from interp.core.classifiers import Classifier
    from interp.core.images import ImageTable
    from interp.models.towers.opening import open_tower

    torch.manual_seed(0)
    text: Any = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}
    vision: Any = {"layers": BLOCKS, "width": 48, "head_width": 4, "patch_size": 16}
    if name == "RN50":
        vision = {"layers": (1,) * BLOCKS, "width": 8, "head_width": 8}
    model = CLIP(32, {**vision, "image_size": SIDE}, text).eval()
    for module in model.visual.modules():  # the last gains of a fresh ResNet's branches are 0
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
    names = [f"class {number:02d}" for number in range(n_classes)]
    rows = [(a, b, f"{k}") for a in names for b in "AB" for k in range(PER_CELL)]
    frame = pd.DataFrame(rows, columns=["label", "domain", "path"])
    frame = frame.assign(path=[str(row) for row in range(len(rows))], split="test", caption="")
    generator = np.random.default_rng(0)
    shown = generator.integers(0, 192, (n_classes, SIDE, SIDE, 3))[np.arange(len(rows)) // 48]
    shown = (shown + generator.integers(0, 64, (len(rows), SIDE, SIDE, 3))).astype(np.uint8)
    images = ImageTable(frame, reader=lambda row: Image.fromarray(shown[int(row["path"])]))

    def preprocess(picture: Image.Image) -> torch.Tensor:
        return torch.tensor(np.array(picture)).movedim(2, 0) / 127.5 - 1

    tower = open_tower(model, "visual")
    with torch.no_grad():
        means = tower(images.tensors(preprocess, range(0, len(rows), 2 * PER_CELL)))
    return tower, images, Classifier(means - means.mean(dim=0), tuple(names)), preprocess


@contextmanager
def counted(tower: Any) -> Iterator[dict[str, float]]:
    """Count pictures through every block, forwards and backwards, as passes of the whole tower."""
    sites = [site for site in tower.sites if site.endswith("hook_resid_post")]
    found = {"forwards": 0.0, "backwards": 0.0}

    def backwards(gradient: Any) -> None:
        found["backwards"] += len(gradient) / len(sites)

    def watch(_module: Any, _inputs: Any, output: Any) -> None:
        found["forwards"] += len(output) / len(sites)
        if output.requires_grad:
            output.register_hook(backwards)

    modules = dict(tower.named_modules())
    handles = [modules[site].register_forward_hook(watch) for site in sites]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


RANKED = 32
"""Pictures that one process and two take through a full tower."""


def ranks(name: str, n: str) -> dict[str, float]:
    """Seconds of the wall clock of extraction by one process or two, each with one thread."""
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}"]
    command = [sys.executable, *start, "-m", "tests.benchmarks.scaling", name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    line = next(line for line in run.stdout.splitlines() if "extracted" in line)
    seconds, total = map(float, line.split("extracted ")[1].split())
    return {"seconds": seconds, "sum": total}


def _extract(name: str) -> None:
    """One rank's share of the pictures; the first says how long it took, and a sum of all."""
    import open_clip
    import torch

    from interp import probes
    from interp.core.parallel import this_rank
    from interp.measures.known_sites import stream_sites
    from interp.models.towers.opening import open_tower
    from tests.benchmarks.streaming import _pictures

    torch.set_num_threads(1)
    torch.manual_seed(0)
    tower = open_tower(open_clip.create_model(name, pretrained=None).eval(), "visual")
    x, rank, start = torch.randn(3, 224, 224), this_rank(), time.perf_counter()
    read = probes.collect(
        tower, _pictures(RANKED), stream_sites(tower), preprocess=lambda _: x, batch_size=8
    )
    taken = time.perf_counter() - start
    if rank.place == 0:
        total = sum(float(np.abs(each.astype(np.float64)).sum()) for each in read.values.values())
        print("extracted", taken, total)


def exponent(numbers: Sequence[float], found: Sequence[float]) -> float:
    """The power of growth between the last two sizes.

    >>> exponent([10, 20, 40], [5.0, 1.0, 4.0])
    2.0
    """
    (a, b), (before, after) = numbers[-2:], found[-2:]
    return float(np.log(after / before) / np.log(b / a))


def wider(width: int, by_width: Sequence[float]) -> float:
    """How many times as long a site of so many features takes as one of `WIDTH`.

    Between the widths that were measured, along a straight line in logarithms; a narrower one as
    long.

    >>> wider(64, [1.0, 2.0, 4.0, 8.0]), round(wider(512, [2.0, 4.0, 8.0, 16.0]), 6)
    (1.0, 2.0)
    """
    return float(np.exp(np.interp(np.log(width), np.log(WIDTHS), np.log(by_width)))) / by_width[0]


def tables() -> Mapping[str, str]:
    """The tables of the docs, from what is kept."""
    return {
        "statistics": _statistics_table(),
        "forwards": _forwards_table(),
        "counts": _counts_table(),
    }


def _cell(value: float) -> str:
    return "–" if not np.isfinite(value) else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _statistics_table() -> str:
    """Seconds of one site by classes, growth, memory, and the whole of both towers."""
    rows, lines = kept("statistics").set_index("task"), []
    for name, rung in RUNG_OF.items():
        asked = [f"{name} {' '.join(map(str, each))}" for each in dict.fromkeys(ASKED)]
        own = rows.reindex(asked)
        seconds = own["seconds"]
        by_class = [float(seconds[f"{name} {c} 4 {WIDTH}"]) for c in CLASSES]
        by_cell = [float(seconds[f"{name} 90 {k} {WIDTH}"]) for k in CELLS]
        by_width = [float(seconds[f"{name} 90 4 {width}"]) for width in WIDTHS]
        grown = ((CLASSES, by_class), (CELLS, by_cell), (WIDTHS, by_width))
        powers = [f"{exponent(*each):.1f}" for each in grown]
        memory = float((own["peak_mb"] - own["before_mb"]).max()) / 1024
        whole = [
            _cell(by_class[-1] / 60 * sum(n * wider(width, by_width) for width, n in sites.items()))
            for sites in TOWERS.values()
        ]
        ends = [f"{memory:.1f}", *whole]
        lines.append([name, rung, *map(_cell, by_class), *powers, *ends])
    heads = ["measure", "of", *(f"{c} classes, s" for c in CLASSES), "power of classes",
             "of pictures", "of features", "GiB beside features",
             "18 sites (RN50), min", "13 sites (ViT-B/32), min"]  # fmt: skip
    return markdown(heads, lines)


def _forwards_table() -> str:
    taken, both = kept("forwards").set_index("task"), kept("ranks").set_index("task")
    lines = []
    for tower in TOWERS:
        cells = [f"{1e3 * taken.loc[tower, each]:.0f}" for each in ("bare", "kept", "backward")]
        one, two = (both.loc[f"{tower} {n}"] for n in (1, 2))
        lines.append([tower, *cells, _cell(one["seconds"]), _cell(two["seconds"])])
    heads = ["tower", "forward, ms", "with the stream kept, ms", "forward and backward, ms",
             f"{RANKED} pictures, one process, s", "two, s"]  # fmt: skip
    return markdown(heads, lines)


def _counts_table() -> str:
    """Passes at the classes that were run, their growth, and what more classes would take."""
    rows, taken = kept("counts").set_index("task"), kept("forwards").set_index("task")
    lines = []
    for tower, part in [(tower, part) for tower, parts in PARTS.items() for part in parts]:
        own = rows.reindex([f"{tower} {part} {n}" for n in FEW_CLASSES])
        found = (own["forwards"] + 2 * own["backwards"]).tolist()
        sizes = [n for n, each in zip(FEW_CLASSES, found, strict=True) if np.isfinite(each)]
        run = [each for each in found if np.isfinite(each)]
        power = exponent(sizes, run) if len(run) > 1 else np.nan
        more = SITES[part](WHOLE[tower]) / SITES[part](BLOCKS)
        ends = [more * run[-1] * (n / sizes[-1]) ** power for n in (60, 345)] if run else []
        hours = [_cell(n * float(taken["bare"][tower]) / 3600) for n in ends]
        words = [f"{each:,.0f}" if np.isfinite(each) else "–" for each in (*found, *ends)]
        lines.append([tower, part, *words[:3], f"{power:.2f}", f"{more:.1f}", *words[3:], *hours])
    heads = ["tower", "part", *(f"{n} classes" for n in FEW_CLASSES), "power of classes",
             "times more sites", "60 classes", "345 classes", "hours of a core at 60",
             "at 345"]  # fmt: skip
    return markdown(heads, lines)


MEASURED: Mapping[str, Callable[..., dict[str, float]]] = {
    "statistics": statistics,
    "forwards": forwards,
    "counts": counts,
    "ranks": ranks,
}

if __name__ == "__main__":
    _extract(sys.argv[1])

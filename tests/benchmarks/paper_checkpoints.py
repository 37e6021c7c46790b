"""Knowing and saying in the checkpoints of Kempf et al. (ICML 2025), on their DomainNet.

python -m tests.benchmarks.paper_checkpoints --images DOMAINNET --held-out classes.txt
    --domains real,sketch --out paper.csv CHECKPOINT.pt [CHECKPOINT.pt ...]

The held-out classes stand one in a line. Pictures for testing are those of DomainNet's test lists;
vectors are fitted on pictures of its training lists, at most so many of a class and domain.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import interp
from interp import circuits, models
from interp.core.images import ImageTable
from interp.core.sites import stream_sites
from interp.data.mixtures.templates import PAPER, PROMPT_SETS, PromptSet


def asked(
    checkpoint: str, images: ImageTable, domains: Sequence[str], held_out: Sequence[str], most: int
) -> pd.DataFrame:
    """The bias of one checkpoint, and what the shift restores where its last block begins."""
    natural, other = domains
    clip = interp.load_clip(checkpoint)
    test, train = (images.select(split=split, domain=domains) for split in ("test", "train"))
    sets = {name: PromptSet(name, tuple(domains)) for name in PROMPT_SETS if name != PAPER}
    names = {"class_names": images.labels}
    bias = models.decision_bias(clip, test, held_out, natural=natural, prompts=sets, **names)
    sites = stream_sites(clip.visual)
    shift = circuits.shift_domain(
        clip, test, source=other, target=natural, held_out=held_out, fitted_on=train.few(most),
        sites=[sites[max(len(sites) - 3, 0)], sites[-1]], doses=(-1, 0.5, 1, 1.5, 2), **names,
    )  # fmt: skip
    parts = {"decision_bias": bias.table.frame, "domain_shift": shift.frame}
    return pd.concat(parts, names=["table"]).reset_index("table").assign(checkpoint=checkpoint)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, ask every checkpoint and write one CSV."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+")
    for name in ("--images", "--held-out", "--domains", "--out"):
        parser.add_argument(name, required=True)
    parser.add_argument("--most", type=int, default=16)
    given = parser.parse_args(arguments)
    domains, images = given.domains.split(","), interp.open_images(given.images)
    held_out = Path(given.held_out).read_text().split()
    tables = [asked(c, images, domains, held_out, given.most) for c in given.checkpoints]
    pd.concat(tables).to_csv(given.out, index=False)


if __name__ == "__main__":
    main()

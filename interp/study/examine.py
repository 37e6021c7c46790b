"""One model measured, without training, on a folder of pictures: `examine`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interp.core.artists import artist_column, artist_sides
from interp.core.errors import listed
from interp.core.illustrations import contact_sheets, thumbnails
from interp.core.images import ImageTable
from interp.core.parallel import which_device
from interp.core.progress import say
from interp.core.statistics.index_of_sharing import BARS
from interp.core.storage.store import fingerprint, writable
from interp.data import open_images
from interp.measures.subject import AnalysisSpec
from interp.study.blocks import compared_domains
from interp.study.checkpoint import Checkpoint
from interp.study.results import Result, provenance, write_result
from interp.study.study import Clock, question


def with_pictures_to_learn_from(images: ImageTable, natural: str, *, seed: int) -> ImageTable:
    """Mark the natural pictures of half of the artists as those that an encoder learns classes by.

    What these artists made in other domains is left out, where artists (or drawings) are known, and
    so is a class that none of them shows.
    """
    frame = images.frame
    theirs = artist_sides(frame, seed=seed) == 0
    learned = theirs & (frame["domain"] == natural).to_numpy()
    known = set(frame["label"][learned])
    strange = sorted(set(frame["label"]) - known)
    if strange:
        say(f"classes without pictures in {natural} to learn from, left out: {listed(strange)}")
    asked = ~learned & frame["label"].isin(list(known)).to_numpy()
    if artist_column(frame) != "picture":
        asked &= ~theirs
    marked = images.with_frame(frame.assign(split=np.where(learned, "train", "test")))
    return marked[learned | asked]


def examine(
    checkpoint: str | Path,
    images_folder: str | Path,
    out: str | Path = "interp-report",
    *,
    architecture: str | None = None,
    domains: Sequence[str] = (),
    analysis: AnalysisSpec | Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str | None = None,
    command: str = "",
) -> Result:
    """Measure one model, without training, on pictures laid out as `domain/class/*`.

    Args:
        checkpoint: What `interp.load_clip` opens: a file, an open_clip name, `hf-hub:...`; or an
            encoder without text, `timm:NAME` or `torchvision:NAME`, which learns the classes from
            half of the artists' natural pictures.
        images_folder: The pictures; all of them serve.
        out: Folder for the result and its page.
        architecture: Architecture of a checkpoint whose run does not say it; `timm:NAME` and
            `torchvision:NAME` as well.
        domains: The natural domain and the one to compare it with; by default `real` (or the
            first) and the next.
        analysis: What is measured, and how often, as in a study's `[analysis]`. Unless its `pairs`
            are "own", circuits are compared between all pairs of domains.
        seed: Seed of all draws.
        device: Where the model runs; None takes what there is.
        command: How it was called, for the page.

    Returns:
        The result, whose page is about this model alone.

    Raises:
        CheckpointError: For a checkpoint that cannot be opened.
        DataError: For pictures or domains that are not there.
        SampleError: For fewer than two domains.

    >>> examine("epoch_32.pt", "no such folder")
    Traceback (most recent call last):
    ...
    interp.core.errors.DataError: Cannot read pictures from no such folder: ... Check the path.
    """
    from interp.models.loading.load_encoder import is_encoder
    from interp.verdicts.judging import climb

    folder, clock, where = writable(Path(out), purpose="the study"), Clock(), which_device(device)
    with clock("pictures"):
        images = open_images(images_folder, seed=seed)
    pair = compared_domains(images, domains)
    pictures = images.with_frame(images.frame.assign(split="test"))
    about: dict[str, Any] = {"checkpoint": str(checkpoint), "domains": list(pair), "seed": seed}
    without_text = is_encoder(checkpoint, architecture)
    if without_text:
        pictures = with_pictures_to_learn_from(pictures, pair[0], seed=seed)
        n = len(pictures.select(split="train", domain=pair[0]))
        about["classes"] = (
            f"there is no text: the nearest class mean of {n} pictures in {pair[0]}, by half of "
            "the artists; the other half's are asked about"
        )
    options = AnalysisSpec(**analysis) if isinstance(analysis, Mapping) else analysis
    options = options or AnalysisSpec()
    model = Checkpoint(
        Path(checkpoint),
        {"setting": "", "test_domain": pair[1], "seed": seed},
        pictures,
        pair,
        (),
        options,
        folder / "steps",
        supervised=without_text,
        architecture=architecture,
        also=("pairs",) if options.pairs != "own" else (),
        device=where,
    )
    with clock("measuring"):
        tables = model.tables()
        tables |= climb(tables, natural=pair[0])
    facts = {
        "mode": "model",
        "title": f"{checkpoint} on {images.source}",
        "question": question(pair[1:]),
        "command": command or "interp.examine(...)",
        "held_out": [],
        "specification": about,
        "spec_hash": fingerprint(
            str(checkpoint), architecture, pair, options, seed, images.fingerprint, BARS
        ),
        "seed": seed,
        **provenance(images, dict(clock), where),
    }
    plates = [*thumbnails(images), *contact_sheets(images), *model.plates()]
    return write_result(folder, tables, plates, facts)

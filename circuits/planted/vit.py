"""Vision transformers written by hand, whose circuits, and what two domains share of them, are
known.

Methods that find circuits can be scored on them. They follow Tracr (Lindner et al. 2023), which
writes transformers by hand, and InterpBench (Gupta et al. 2024), which tests methods against them.
As files, models need no code of ours.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from open_clip.transformer import VisionTransformer
from PIL import Image
from safetensors.torch import load_file, save_file

from interp.circuits.planted import stages
from interp.circuits.planted.certification import certify_truth
from interp.circuits.planted.conditions import CONDITIONS, DOSES, TIERS, Lanes, can_be_planted
from interp.circuits.planted.model import (
    Outlook,
    PlantedBlueprint,
    PlantedModel,
    TowerOpener,
    Truth,
)
from interp.circuits.planted.routes import ROUTES
from interp.circuits.planted.weights import HEADS, LAYERS, Draft, disguise_transformer
from interp.circuits.planted.world import CLASSES, D_EMBED, DOMAINS, PARTS, PATCH, SIZE, World
from interp.core.classifiers import Classifier
from interp.core.errors import SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.seeds import rng
from interp.core.tables import Table
from interp.core.tower import Tower

TRANSFORMER_OUTLOOK = Outlook(
    streams=tuple(f"blocks.{layer}.hook_resid_post" for layer in range(LAYERS)),
    added=tuple(
        f"blocks.{part}_out"
        for part in ("1.hook_attn", "1.hook_mlp", "2.hook_mlp", "3.hook_attn", "3.hook_mlp")
    ),
    place={"pos": 0},
    pool="class",
    neurons="blocks.*.mlp.hook_post",
    axis="d_mlp",
)
"""Measures look at the class token: at the stream behind each block, where codes are compared, and
at what blocks add where some model has its code."""


@dataclass(frozen=True)
class Blueprint(PlantedBlueprint):
    """What to plant: a condition of `CONDITIONS`, and a seed of glyphs, directions and decoys.

    `dose` belongs to the conditions `dose`, the share of classes that the domains have in common,
    one of `DOSES`; `dose of parts`, that of each class's parts, in twentieths; and `dose of
    geometry`, how alike the classes lie, from 0 to 1. `tier` is one of `TIERS`: `easy`; `hard`,
    where the other carrier holds a random code at the same time and the model goes by the cue;
    `steep`, where neurons that combine stand on a plateau, so that gradients vanish at the clean
    picture and exchanges work as ever.
    """

    outlook: ClassVar[Outlook] = TRANSFORMER_OUTLOOK
    conditions: ClassVar[Collection[str]] = CONDITIONS

    def __post_init__(self) -> None:
        super().__post_init__()
        asked, error = "plant a model", SpecificationError
        check_known(asked, "tier", [self.tier], TIERS, error)
        if self.tier not in CONDITIONS[self.condition].tiers:
            have = [name for name, lanes in CONDITIONS.items() if self.tier in lanes.tiers]
            given = f"{self.condition!r} in the tier {self.tier!r}"
            do = f"plant it in {' or '.join(CONDITIONS[self.condition].tiers)}"
            raise error(asked, given, f"one of {', '.join(have)}", do)
        if not can_be_planted(CONDITIONS[self.condition], self.dose):
            raise error(
                asked,
                f"{self.condition!r} with dose={self.dose}",
                f"a dose of {', '.join(map(str, DOSES))} for 'dose', in twentieths for 'dose of "
                "parts', from 0 to 1 for 'dose of geometry', and none for the others",
                'write Blueprint("dose", dose=0.25)',
            )

    @property
    def lanes(self) -> Lanes:
        """What the domains share, stage by stage; in the hard tier all goes by the cue."""
        lanes = replace(CONDITIONS[self.condition], dose=self.dose or 0.0)
        return replace(lanes, cued=True, width=128) if self.tier == "hard" else lanes

    @property
    def world(self) -> World:
        """Where the pictures come from."""
        return World(self.seed, hard=self.tier == "hard")

    def make(self, open_tower: TowerOpener) -> "Planted":
        """The model, undisguised: `plant`, which needs no tower."""
        return plant(self)

    @property
    def shared_classes(self) -> frozenset[int]:
        """Places of the classes that go one way in both domains, in the condition `dose`.

        With a class there is always one that shares neither its P nor its Q.
        """
        if self.dose is None or self.lanes.dosed != "classes":
            return frozenset()
        pairs = [[p * PARTS["Q"] + q, (p + 1) * PARTS["Q"] + 1 - q] for p in (0, 2) for q in (0, 1)]
        order = rng("shared classes", self.seed).permutation(len(pairs))
        return frozenset(np.array(pairs)[order[: round(self.dose * len(pairs))]].ravel().tolist())


@dataclass(frozen=True, eq=False)
class Planted(PlantedModel[Truth]):
    """A vision transformer, open_clip's, with its true circuits.

    Those of the classes differ only in which neurons combine, and, in the condition `dose`, in the
    way that they go. `cue_head` is the head that brings the cue to the class token, in models that
    read it.
    """

    cue_head: str | None = None

    def disguised(self, seed: int) -> "Planted":
        """The same function with other weights: `disguise_transformer`."""
        source, heads, neurons = disguise_transformer(self.source, seed)
        hidden = self.moved(source, lambda truth: truth.renamed(heads, neurons))
        return replace(hidden, cue_head=self.cue_head and heads[self.cue_head])

    def certify(self, tower: Tower, *, n: int = 16, seed: int = 0) -> Table:
        """Hold nodes and neurons against exact interchange: `certify_truth`."""
        return certify_truth(self, tower, n=n, seed=seed)


@door
def planted_vit(
    condition: str,
    *,
    seed: int = 0,
    dose: float | None = None,
    tier: str = "easy",
    disguised: bool = True,
) -> "Planted":
    """Write a vision transformer whose circuits in two domains are known, to try methods on.

    Args:
        condition: What the domains share: "all shared", "all separate", ... (`CONDITIONS`).
        seed: Seed of glyphs, directions, decoys and the disguise.
        dose: In the conditions "dose", "dose of parts" and "dose of geometry": how much the domains
            have in common, from 0 to 1.
        tier: `easy`, `hard` or `steep`, see `Blueprint`.
        disguised: Whether its parts are shuffled and rotated, so that nothing shows how it was
            made.

    Returns:
        The model: `source` (open it with `interp.open_tower`), `classifier`, `truth(domain)`, and
        `pictures(n)` and `task(n, domain=...)` to run it on.

    Raises:
        SpecificationError: For an unknown condition or tier, or a dose that does not belong to it.

    >>> planted = planted_vit("all separate", seed=4)
    >>> planted.pictures(2).counts().loc["p0 q0"].tolist()
    [2, 2]
    >>> sorted(planted.task(4, domain="A"))
    ['clean', 'corrupt', 'metric']
    """
    planted = plant(Blueprint(condition, seed=seed, dose=dose, tier=tier))
    return planted.disguised(seed) if disguised else planted


@torch.no_grad()
def plant(blueprint: Blueprint) -> Planted:
    """Write a transformer by hand that tells the world's classes in both domains.

    Block 0's neurons *detect* the glyphs of P and Q in a domain's carrier; block 1's heads *bring*
    them to the class token, one head for P and one for Q; the neurons of block 2 (of block 1 for
    domain B, where it has a lane of its own) *combine* them, class = P and Q; a head of block 3
    *writes* the class's direction. R is ignored; K is carried to the class token by a head of
    block 2, where it can be decoded, and read by nobody. All other heads and neurons are decoys:
    they respond to glyphs, and nothing reads what they write.

    What of this the domains share is the blueprint's condition, see `CONDITIONS`; four conditions
    go another way, see `interp.circuits.planted.routes`. Block 0's MLP is always one node for both
    domains, if with other neurons for each: where all is separate, a measure of nodes sees that in
    the heads and in the blocks that combine, one of edges everywhere but in ("input", "m0"), one of
    neurons there too. The class's direction is the sum of two orthogonal ones: where they write
    apart, domain A writes the first and B the second.

    Scales and layer norms: see `interp.circuits.planted.weights.Draft`. Raises
    `SpecificationError` for an unknown condition. Sources: Tracr (Lindner et al. 2023), InterpBench
    (Gupta et al. 2024).

    >>> planted = plant(Blueprint("all separate", seed=1))
    >>> pictures = planted.world.draw("p3 q0", "B", 2)
    >>> logits = planted.classifier.logits(planted.source(pictures))
    >>> [planted.classifier.names[place] for place in logits.argmax(dim=1)]
    ['p3 q0', 'p3 q0']
    >>> sorted(planted.truth("A").nodes & planted.truth("B").nodes)
    ['input', 'logits', 'm0']
    """
    lanes = blueprint.lanes
    draft = Draft(width=lanes.width, steep=blueprint.tier == "steep")
    laid = ROUTES[lanes.route](draft, blueprint.world, lanes, blueprint.shared_classes)
    cue_head = stages.CUE_HEAD if draft.has("cue A") else None
    aside, hushed = lanes.sensitivity < 1, lanes.hushed
    stages.add_decoys(draft, lanes.detect, aside=aside, hushed=hushed, seed=blueprint.seed)
    classes = stages.read_out(draft, laid.written, seed=blueprint.seed)
    return Planted(blueprint, draft.model, classes, laid.truths(), cue_head)


MODEL, SHOWN, CONFIG = "model.safetensors", "pictures.safetensors", "config.json"


@dataclass(frozen=True)
class _Reader:
    """Pictures by their row."""

    pictures: np.ndarray

    def __call__(self, row: pd.Series) -> Image.Image:
        return Image.fromarray(self.pictures[int(row["path"])])


def write_planted(
    folder: Path,
    source: VisionTransformer,
    images: ImageTable,
    classifier: Classifier,
    **facts: object,
) -> None:
    """Write a planted transformer, its pictures and its classes into a folder.

    Args:
        folder: Where to.
        source: open_clip's module.
        images: Pictures with `label`, `domain` and `artist`.
        classifier: The classes.
        facts: What else `config.json` says.
    """
    weights = {name: value.contiguous() for name, value in source.state_dict().items()}
    save_file(weights, folder / MODEL)
    frame = images.frame
    artists = sorted(frame["artist"].unique())
    places = {"label": list(CLASSES), "domain": list(DOMAINS), "artist": artists}
    shown = {
        name: torch.tensor([known.index(each) for each in frame[name]])
        for name, known in places.items()
    }
    pictures = [np.asarray(images.picture(row)) for row in range(len(frame))]
    shown["pictures"] = torch.from_numpy(np.stack(pictures))
    shown["classes"] = classifier.embeddings.contiguous()
    save_file(shown, folder / SHOWN)
    transformer = {
        "image_size": SIZE,
        "patch_size": PATCH,
        "width": source.conv1.weight.shape[0],
        "layers": LAYERS,
        "heads": HEADS,
        "mlp_ratio": 4.0,
        "output_dim": D_EMBED,
    }
    config = {**facts, "transformer": transformer, **places}
    (folder / CONFIG).write_text(json.dumps(config, indent=1))


def read_planted(folder: Path) -> tuple[VisionTransformer, ImageTable, Classifier]:
    """What `write_planted` wrote: the module, its pictures, and its classes.

    Args:
        folder: Where it is.

    Returns:
        The three, the module in float64 and in eval mode.
    """
    config = json.loads((folder / CONFIG).read_text())
    shown = load_file(folder / SHOWN)
    source = VisionTransformer(**config["transformer"]).double().eval()
    source.load_state_dict(load_file(folder / MODEL))
    columns = {
        name: [config[name][place] for place in shown[name].tolist()]
        for name in ("label", "domain", "artist")
    }
    frame = pd.DataFrame(columns).assign(split="analysis", caption="")
    frame["path"] = [str(number) for number in range(len(frame))]
    images = ImageTable(frame, reader=_Reader(shown["pictures"].numpy()))
    return source, images, Classifier(shown["classes"], tuple(config["label"]))

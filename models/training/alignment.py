"""A loss term that makes classes alike, or unlike, in two domains at a layer (evidence level L4).

It is added to open_clip's loss in open_clip's epoch loop. A hook on one block keeps its output, and
each picture comes with the number of its class and domain; held-out classes have none.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from interp.core.errors import DataError, SiteError, SpecificationError, check_known
from interp.core.seeds import rng
from interp.core.storage.store import fingerprint
from interp.models.training.lists import read_tsv

KEEP = 0.9
"""How much of a running mean stays when a batch brings pictures of its class and domain."""


class Alignment:
    """The loss term: mean over classes of 1 - cosine between a class's contrasts in two domains.

    A contrast is a class mean less the mean over classes in the same domain, so that a constant
    offset between domains costs nothing:

        term = mean over (c, d) of 1 - cos(m(c, d) - centre(d), r(c, d') - centre(d'))

    m is the mean over the batch's pictures of class c in domain d, r a running mean over earlier
    batches without gradient, d' the other domain, centre the mean of r over classes.

    Args:
        n_classes: Number of classes that are aligned.
        separates: Whether classes are to be separated instead: a cell then stops counting once its
            cosine is 0 or less, since below that domains would share an axis again with its sign
            turned.
        every: How often a batch is judged before weights change, as with gradient accumulation.
        device: Where the running means are kept.

    Notes:
        A cell (c, d) counts if the batch has pictures of it and its partner was seen before.
        Running means are needed since, with six domains, a batch of 128 holds one picture or none
        of most cells: few classes meet themselves in it, and a partner made of one picture is
        mostly noise. The tests compare the gradient of both with that of all pictures. The batch's
        own mean is not smoothed, since the gradient must reach it. With `KEEP` = .9 a mean spans
        the last ten batches with its class, recent enough to follow the weights.
    """

    def __init__(
        self,
        n_classes: int,
        *,
        separates: bool = False,
        every: int = 1,
        device: str | torch.device = "cpu",
    ) -> None:
        """Start without running means."""
        self.n_classes, self.separates, self._every = n_classes, separates, every
        self._device, self._calls = device, 0
        self.running: Tensor | None = None  # "domain class feature"
        self.met = torch.zeros(2, n_classes, dtype=torch.bool, device=device)

    def __call__(
        self, features: Float[Tensor, "batch feature"], marks: Int[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """The term of a batch over all processes, after which the running means are updated."""
        x, own = gathered(features, marks)
        x = x if x.dtype == torch.float64 else x.float()
        means, present = class_means(x, own, self.n_classes)
        term = self._term(means, present, x)
        self._calls += 1
        if self._calls % self._every == 0:
            self._move(means.detach(), present)
        return term

    def _term(self, means: Tensor, present: Tensor, x: Tensor) -> Tensor:
        partners = self.met.all(dim=0)
        asked = present & partners
        if self.running is None or not asked.any() or int(partners.sum()) < 2:
            return 0.0 * x.sum()  # nothing to compare, but a gradient for every process
        centre = self.running[:, partners].mean(dim=1, keepdim=True)
        cosine = F.cosine_similarity(means - centre, (self.running - centre).flip(0), dim=-1)
        gap = 1 - cosine
        return (gap.clamp(max=1.0) if self.separates else gap)[asked].mean()

    def _move(self, means: Tensor, present: Tensor) -> None:
        if self.running is None:
            self.running = torch.zeros_like(means)
        keep = KEEP * self.met.to(means)[..., None]
        moved = keep * self.running + (1 - keep) * means
        self.running = torch.where(present[..., None], moved, self.running)
        self.met = self.met | present

    def state_dict(self) -> dict[str, object]:
        """The state that later steps depend on."""
        return {"running": self.running, "met": self.met}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        running = state["running"]
        self.running = None if running is None else running.to(self._device)
        self.met = state["met"].to(self._device)


def class_means(
    x: Float[Tensor, "batch feature"], marks: Int[Tensor, " batch"], n_classes: int
) -> tuple[Float[Tensor, "domain class feature"], Tensor]:
    """Mean features of every class in both domains.

    Args:
        x: Features.
        marks: domain * n_classes + class of each row; below 0, the picture is left out.
        n_classes: Number of classes.

    Returns:
        The means, and which of them have a picture at all, `domain class`.

    >>> x = torch.tensor([[1.0], [3.0], [5.0], [9.0]])
    >>> means, present = class_means(x, torch.tensor([0, 0, 3, -1]), 2)
    >>> means.flatten().tolist(), present.tolist()
    ([2.0, 0.0, 0.0, 5.0], [[True, False], [False, True]])
    """
    inside = marks >= 0
    own, rows = marks[inside], x[inside]
    total = x.new_zeros(2 * n_classes, x.shape[1]).index_add(0, own, rows)
    count = x.new_zeros(2 * n_classes).index_add(0, own, x.new_ones(len(rows)))
    means = total / count.clamp(min=1)[:, None]
    return means.unflatten(0, (2, n_classes)), (count > 0).unflatten(0, (2, n_classes))


def gathered(features: Tensor, marks: Tensor) -> tuple[Tensor, Tensor]:
    """The batch of all processes, with gradients crossing between them as in open_clip's loss.

    Args:
        features: Features of this process, "batch feature".
        marks: Their marks.

    Returns:
        Both, of all processes.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return features, marks
    from torch.distributed.nn.functional import all_gather

    every = [torch.empty_like(marks) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(every, marks.contiguous())
    shared = all_gather(features.contiguous())
    return torch.cat(list(shared)), torch.cat(every)


class Watched(nn.Module):
    """A model that hands marks on, and what one of its blocks gave, averaged over positions.

    Args:
        model: The model.
        block: The block whose output is kept; None keeps none.
        labels: Whether rows hold a label instead of tokens.

    Notes:
        It takes tokens (or labels) with a mark behind them. To the model's answer it adds `marks`
        and, with a block, `at_site`, "batch feature".
    """

    def __init__(
        self, model: nn.Module, block: nn.Module | None = None, *, labels: bool = False
    ) -> None:
        super().__init__()
        self.model, self._labels = model, labels
        self._kept: Tensor | None = None
        if block is not None:
            block.register_forward_hook(self._keep)

    def _keep(self, block: nn.Module, given: object, out: Tensor) -> None:
        self._kept = out.mean(dim=(2, 3)) if out.ndim == 4 else out.mean(dim=1)

    @property
    def logit_scale(self) -> Tensor:
        """The model's logit scale, which open_clip's epoch loop looks for."""
        return self.model.logit_scale  # type: ignore[return-value]

    def forward(self, images: Tensor, rows: Int[Tensor, "batch token"]) -> dict[str, Tensor]:
        """The model's answer, with features and marks for the term."""
        targets = rows[:, 0] if self._labels else rows[:, :-1]
        answer = {**self.model(images, targets), "marks": rows[:, -1]}
        if self._kept is not None:
            answer["at_site"], self._kept = self._kept, None
        return answer


class AlignedLoss(nn.Module):
    """A loss with the alignment term beside it, multiplied by its weight.

    Args:
        loss: The loss.
        term: The term.
        weight: Its weight; below 0, classes are separated.
    """

    def __init__(
        self, loss: Callable[..., dict[str, Tensor]], term: Alignment, weight: float
    ) -> None:
        super().__init__()
        self.loss, self.term, self.weight = loss, term, weight

    def forward(
        self, at_site: Tensor, marks: Tensor, output_dict: bool = True, **outputs: Tensor
    ) -> dict[str, Tensor]:
        """The parts of the loss by name, in the form of open_clip's epoch loop."""
        answer = self.loss(**outputs, output_dict=True)
        return {**answer, "alignment": self.weight * self.term(at_site, marks)}


def find_block(model: nn.Module, site: str = "") -> nn.Module:
    """Find the block of the image tower that gives a site.

    Args:
        model: The open_clip model.
        site: A site such as `blocks.3.hook_resid_post`; the default is the middle block's.

    Returns:
        The block's module.

    Raises:
        SiteError: For a site that no block gives.
        SpecificationError: For a tower whose blocks have no known names.
    """
    visual: Any = model.visual
    if isinstance(visual, ModifiedResNet):
        blocks = [*visual.layer1, *visual.layer2, *visual.layer3, *visual.layer4]
    elif isinstance(visual, VisionTransformer):
        blocks = [*visual.transformer.resblocks]
    else:
        asked, right = f"align classes in a {type(visual).__name__}", "a ViT or ModifiedResNet"
        given = "a tower whose blocks have no names here"
        raise SpecificationError(asked, given, right, "choose another preset")
    # a trainer that aligns nothing needs none
    from interp.models.towers.open_tower import open_tower

    names = [f"{block.name}.hook_resid_post" for block in open_tower(model, "visual").chain]
    check_known("align classes", "site", [site] if site else [], names, SiteError)
    return blocks[names.index(site) if site else len(blocks) // 2]


LEAST_CLASSES = 3
"""Two classes less their mean are opposites in every domain: there is nothing to align."""


@dataclass(frozen=True)
class Pairing:
    """The two domains and the classes that are aligned between them.

    Args:
        natural: The natural domain.
        domain: The test domain.
        classes: The seen classes (C1) that have pictures in both.
    """

    natural: str
    domain: str
    classes: tuple[str, ...]

    @classmethod
    def of(cls, tsv: Path) -> "Pairing":
        """Read the pairing of a mixture from its `train.tsv` and the `manifest.json` beside it.

        Args:
            tsv: The mixture's `train.tsv`.

        Returns:
            The pairing.

        Raises:
            DataError: Without a manifest.
            SpecificationError: If fewer than three seen classes are in both domains, for example
                when the test domain is left out.
        """
        natural, domain, held_out = read_manifest(tsv)
        here = read_tsv(tsv, "label").assign(domain=read_tsv(tsv, "domain")["domain"])
        labels_by_domain = [
            set(here.loc[here["domain"] == name, "label"]) for name in (natural, domain)
        ]
        classes = tuple(sorted((labels_by_domain[0] & labels_by_domain[1]) - held_out - {""}))
        if len(classes) < LEAST_CLASSES:
            raise SpecificationError(
                f"align classes between {natural} and {domain} in {tsv.parent.name}",
                f"{len(classes)} seen classes with training pictures in both",
                f"at least {LEAST_CLASSES}, since the effect is read at equal C1 x {domain}",
                "choose a mixture with seen classes in the test domain, such as cg-high",
            )
        return cls(natural, domain, classes)

    @property
    def key(self) -> str:
        """A hash that differs between pairings."""
        return fingerprint(self)

    def marks(self, tsv: Path, shuffled: bool, *, seed: int) -> Int[Tensor, " row"]:
        """The mark of each row of a training list, as `class_means` takes it.

        Args:
            tsv: The mixture's `train.tsv`.
            shuffled: Whether a class of the test domain goes by the number of another, so that
                every class has a wrong partner, the same in the whole run.
            seed: Seed of the wrong partners.

        Returns:
            A number per row; -1 for rows that are left out.
        """
        own = list(range(len(self.classes)))
        partners = derangement(len(self.classes), seed) if shuffled else own
        number = {
            (domain, label): domain_number * len(self.classes) + numbers[n]
            for domain_number, (domain, numbers) in enumerate(
                [(self.natural, own), (self.domain, partners)]
            )
            for n, label in enumerate(self.classes)
        }
        labels, domains = read_tsv(tsv, "label")["label"], read_tsv(tsv, "domain")["domain"]
        return torch.tensor([number.get(cell, -1) for cell in zip(domains, labels, strict=True)])


def read_manifest(tsv: Path) -> tuple[str, str, set[str]]:
    """Natural domain, test domain and held-out classes of a mixture.

    Args:
        tsv: The mixture's `train.tsv`, which has a `manifest.json` beside it.

    Returns:
        Their names.

    Raises:
        DataError: Without a manifest.
    """
    path = tsv.parent / "manifest.json"
    try:
        specification = json.loads(path.read_text())["specification"]
        return (
            str(specification["natural"]),
            str(specification["test_domain"]),
            set(specification["held_out"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        given = f"no manifest that says which are held out ({type(error).__name__}: {error})"
        right = f"{path.name} of the mixture beside it"
        raise DataError(f"train on {tsv}", given, right, "make the mixture again") from None


def derangement(n: int, seed: int) -> Sequence[int]:
    """Draw a permutation, a single cycle, that leaves none of n numbers in its place.

    Args:
        n: Length.
        seed: Seed of the draw.

    Returns:
        The new number of each.

    >>> sorted(derangement(4, 0)), any(k == each for k, each in enumerate(derangement(4, 0)))
    ([0, 1, 2, 3], False)
    """
    order = rng("shuffled partners", seed).permutation(n).tolist()
    after = dict(zip(order, [*order[1:], order[0]], strict=True))
    return [after[number] for number in range(n)]

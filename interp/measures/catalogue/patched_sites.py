"""Patching between domains and between classes: where the difference is carried."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch

import numpy as np
import pandas as pd
from jaxtyping import Float
from PIL import Image

from interp.circuits import effects, localise
from interp.core.errors import InterpError
from interp.core.illustrations import Plate, sheet
from interp.core.images import ImageTable, Pairs
from interp.core.progress import say
from interp.core.sites import middle_of, present
from interp.declared import figures
from interp.declared.measures import MeasureSpec, RowUnits
from interp.declared.writing import number
from interp.measures.subject import Frames, Subject
from interp.models.attribution.attention_maps import attention_maps
from interp.models.attribution.overlays import laid_over, square
from interp.models.towers.vit import HookedViT

PATCHED_SITES = figures.FigureSpec(
    "patching",
    "What patching one site does",
    "patching",
    ("patching", "patching_examples"),
    method="One activation of the corrupt run is replaced by the clean run's, pair by pair.",
    null="A donor of a third class, or no patch; index 0 stands for it.",
    caption="{n}; {bars}. Measure: {measures}. 0 is the null, 1 what replacing the whole input "
    "does. {kinds} {gaps}",
    alt="{shape}",
    where={"control": ""},
    choices=(figures.TEST_DOMAIN, figures.ChoiceSpec("Pairs", "pairing"), figures.SETTING),
)

PATCHING = figures.SectionSpec(
    "patching",
    "Where the difference is carried: patching",
    "One activation of the clean run replaces the corrupt run's (Meng et al. 2022); index = "
    "(effect − null) / (gap − null), with the class's margin as metric, mean over classes.",
    (PATCHED_SITES,),
    ("patching", "patching_examples"),
    note="Patching says where, not whether two domains share it: it carries no verdict.",
    gist=figures.GistSpec(
        "patching",
        "One layer of the other domain's run, patched in, moves {range} of the gap between the two "
        "(index, over layers and models).",
        column="index",
    ),
)

PATCHED = {"blocks.*.hook_resid_pre": ("layer", "pos"), "layer*.*.hook_out": ("layer",)}
"""Where sweeps look: token by token in a ViT's stream, and at what each ResNet stage adds."""


def measure(subject: Subject) -> Frames:
    """Sweeps between one class in two domains, and two classes in one domain; effects and examples.

    Partners are aligned where the pictures allow it: one drawing in one pose in both domains, or
    one style for both classes. The clean picture is the natural one, or of the test domain.
    """
    if subject.lacks(list(PATCHED), "patching"):
        return {}
    images, n_pairs = subject.analysed, subject.analysis.n_pairs
    drawn = {"drawing", "warp", "style"} <= set(images.frame.columns)
    within = images.select(domain=subject.pair[1]).pairs(
        same=("domain", "style") if drawn else ("domain",),
        differ="label",
        n=n_pairs,
        seed=subject.seed,
    )
    across = across_domains(images, domains=subject.pair, n_pairs=n_pairs, seed=subject.seed)
    summaries, examples = [], []
    for pairs in (across, within):
        for pattern, axes in PATCHED.items():
            if present(subject.tower, [pattern]):
                swept = localise(subject.tower, pairs, sites=pattern, axes=axes, **subject.task)
                examples.append(subject.file(swept))
                summaries.append(subject.file(effects(swept, seed=subject.seed)))
    return {
        "patching": pd.concat(summaries, ignore_index=True),
        "patching_examples": pd.concat(examples, ignore_index=True),
    }


def across_domains(
    images: ImageTable, *, domains: tuple[str, str], n_pairs: int, seed: int
) -> Pairs:
    """Pictures of the first domain with partners of their class in the second, aligned if drawn."""
    drawn = {"drawing", "warp"} <= set(images.frame.columns)
    across = images.select(domain=list(domains)).pairs(
        same=("label", "drawing", "warp") if drawn else ("label",),
        differ="domain",
        clean=domains[0],
        seed=seed,
    )
    return across.spread(n_pairs, seed=seed)


def moved_pictures(subject: Subject, made: Mapping[str, pd.DataFrame]) -> list[Plate]:
    """Pictures that patching between the two domains moves most and least."""
    examples = made["patching_examples"]
    return pictured(
        subject,
        across_domains(
            subject.analysed,
            domains=subject.pair,
            n_pairs=subject.analysis.n_pairs,
            seed=subject.seed,
        ),
        examples[examples["pairing"].str.startswith("same label, other domain")],
    )


EACH = 3
"""So many pictures that move most, and as many that move least."""

SIDE = 96
"""Pixels of a picture in a plate."""

POSITIONS = {
    "blocks.*.hook_resid_pre": ("layer", "pos"),
    "layer*.*.hook_out": ("layer", "row", "column"),
}
"""Where positions are patched one at a time: a ViT's tokens, the places of a ResNet's maps."""


def middle(examples: pd.DataFrame) -> str:
    """The site of a sweep that is nearest to half depth: fixed by its place, not its result."""
    return middle_of(dict(zip(examples["site"], examples["depth"], strict=True)))


def moved(examples: pd.DataFrame) -> pd.Series:
    """How far each example moves at the `middle` site, beyond the null donor.

    value - null where there is a null donor, else value - corrupt_metric; summed over positions.

    >>> rows = pd.DataFrame({"site": "blocks.1.hook_resid_pre", "depth": 0.5, "example": [0, 1],
    ...                      "value": [1.0, 3.0], "null": [0.5, 0.5], "corrupt_metric": 0.0})
    >>> moved(rows).tolist()
    [0.5, 2.5]
    """
    here = examples[examples["site"] == middle(examples)]
    base = here["null"] if "null" in here else here["corrupt_metric"]
    return (here["value"] - base).groupby(here["example"]).sum().dropna()


def pictured(subject: Subject, pairs: Pairs, examples: pd.DataFrame) -> list[Plate]:
    """A plate of the pictures of `pairs` that move most and least; none for fewer than two.

    `pairs` are those that `examples` (of one pairing) was measured on, in their order. Rows of the
    plate, from the top: the clean picture, the corrupt one, what the tower attends to in it (a ViT
    only), and what patching each position alone does.
    """
    far = moved(examples).sort_values(ascending=False, kind="stable")
    each = min(EACH, len(far) // 2)
    if not each:
        return []
    chosen = [*far.index[:each], *far.index[-each:]]
    rows = pairs[np.asarray(chosen, dtype=int)]
    tower = subject.tower
    strips = [_drawn(rows.clean), _drawn(rows.corrupt)]
    said = [f"the picture in {_domain(rows.clean)}", f"its partner in {_domain(rows.corrupt)}"]
    if isinstance(tower, HookedViT):
        seen = attention_maps(tower, rows.corrupt.tensors(subject.preprocess))
        maps = seen.maps()[-1].mean(dim=1).float().cpu().numpy()
        strips.append(_over(strips[1], maps))
        said.append("where the last layer looks in it, mean over heads, bright is more")
    site = middle(examples)
    try:
        effect = _by_position(subject, rows, site)
    except InterpError as error:
        say(f"effects by position left out: {error}")
    else:
        strips.append(_over(strips[1], effect))
        said.append("what patching each position there alone does, bright is more")
    words = _words(rows.corrupt.label.tolist(), far[chosen].tolist(), each)
    model = f"{subject.name[:1].upper()}{subject.name[1:]}"
    caption = (
        f"{model}: of {len(far)} pairs, those whose partner moves most (first {each}) and least "
        f"(last {each}) when {site} takes the clean picture's activation: {words}. "
        f"From the top: {'; '.join(said)}."
    )
    return [Plate.of_model("moved", subject.place, sheet(strips, SIDE, across=each), caption)]


def _domain(images: ImageTable) -> str:
    return str(images.domain.iloc[0])


def _words(labels: Sequence[str], far: Sequence[float], each: int) -> str:
    """Classes and how far they moved, in the model's own contrast.

    >>> _words(["cat", "dog"], [1.0, -0.26], 1)
    'cat 1.00; dog −0.26'
    """
    named = [f"{label} {number(value)}" for label, value in zip(labels, far, strict=True)]
    return f"{', '.join(named[:each])}; {', '.join(named[each:])}"


def _drawn(images: ImageTable) -> list[Image.Image]:
    """Pictures as the model sees them: square, their middle."""
    return [square(images.picture(row), SIDE) for row in range(len(images))]


def _over(
    pictures: Sequence[Image.Image], maps: Float[np.ndarray, "example row column"]
) -> list[Image.Image]:
    """Each picture under its map; dark is 0 or less, bright the largest of that picture."""
    return [
        laid_over(picture, np.maximum(values, 0), top=float(values.max()))
        for picture, values in zip(pictures, maps, strict=True)
    ]


def _by_position(
    subject: Subject, pairs: Pairs, site: str
) -> Float[np.ndarray, "example row column"]:
    """The effect of patching each position of a site alone."""
    tower = subject.tower
    axes = next((axes for pattern, axes in POSITIONS.items() if fnmatch(site, pattern)), ())
    swept = localise(tower, pairs, sites=[site], axes=axes, **subject.task).frame
    effect = swept.assign(effect=swept["value"] - swept["corrupt_metric"])
    if isinstance(tower, HookedViT):  # tokens before the patches, the class token, are left out
        rows, columns = (int(side) for side in tower.source.grid_size)
        laid = effect.sort_values(["example", "pos"])["effect"].to_numpy(float)
        return laid.reshape(len(pairs), -1)[:, -rows * columns :].reshape(-1, rows, columns)
    laid = effect.sort_values(["example", "row", "column"])["effect"].to_numpy(float)
    return laid.reshape(len(pairs), swept["row"].nunique(), -1)


MEASURE = MeasureSpec(
    "patching",
    measure,
    bare=("patching_examples",),
    option="patching",
    seconds=1.1,
    units={"patching": RowUnits("patching_examples", "clean_label", less="corrupt_metric")},
    sections=(PATCHING,),
    plates=moved_pictures,
)

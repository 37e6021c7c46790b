"""What changes when the domain is erased at a middle layer while the model runs on."""

from functools import partial

from interp import probes
from interp.core.sites import middle_of
from interp.declared import figures
from interp.declared.measures import MeasureSpec
from interp.measures.subject import Frames, Subject


def _changed(row: figures.Row) -> str:
    """What a row of the erasure measures, in words."""
    if row["measure"] == "accuracy":
        of_held_out = " of held-out classes" if row.get("class_set") == "held-out" else ""
        return f"zero-shot accuracy{of_held_out}, {row['domain']}"
    probe = f"probe {row['train_domain']} → {row['domain']}"
    names = {"transfer": probe, "similarity": "debiased CKA"}
    where = "at the site" if row["read_at"] == "site" else "in the embedding"
    return f"{names.get(row['measure'], row['measure'])}, {where}"


BEYOND = figures.Scale("beyond", "beyond_low", "beyond_high")

ERASED = figures.FigureSpec(
    "erasure",
    "What changes when the domain is erased at {sites}",
    "forest",
    method="The domain is projected out of one layer while the model runs on.",
    null="Erasing permuted domains, or as much variance at random.",
    caption="{n}; bars are 95 % intervals. LEACE takes {removed} of the variance out, fitted on "
    "one half of the artists and judged on the other. Beyond: less the same change under a "
    "control, paired by class, over classes and draws of the control.",
    needs=("value",),
    subjects="pairs",
    ends=("domain", "train_domain"),
    choices=(
        figures.TEST_DOMAIN,
        figures.ChoiceSpec(
            "Shown",
            looks=(
                figures.Look(
                    "beyond LEACE of permuted domains", {"against": "permuted labels"}, scale=BEYOND
                ),
                figures.Look(
                    "beyond a random subspace of equal variance",
                    {"against": "random subspace"},
                    scale=BEYOND,
                ),
                figures.Look("the change itself", {"against": "permuted labels"}),
            ),
        ),
    ),
    labels=_changed,
    x=figures.AxisSpec("change (accuracy, or CKA)"),
    lines=figures.NO_CHANGE,
)

ERASURE = figures.SectionSpec(
    "erasure",
    "Does the model need to know the domain?",
    "LEACE (Belrose et al. 2023) takes the domain out of the middle layer while the model runs "
    "on; controls erase domains permuted over artists, or as much variance at random.",
    (ERASED,),
    note="A change beyond both controls is what the model loses, or gains, with the domain.",
    gist=figures.GistSpec(
        "erasure",
        "Without what tells domains apart in the middle layer, accuracy changes by {range} points.",
        {"measure": "accuracy"},
        form="points",
    ),
)


def measure(subject: Subject) -> Frames:
    """The table `erasure`: the domain erased at the middle site, inside the model."""
    if subject.lacks_middle("erasure"):
        return {}
    made = partial(
        probes.erasure,
        subject.tower,
        subject.some_of_pair,
        middle_of(subject.depths),
        class_names=subject.images.labels,
        held_out=subject.held_out,
        n_controls=subject.analysis.n_controls,
        **subject.task,
    )
    return subject.file_parts({"erasure": [made]})


MEASURE = MeasureSpec("erasure", measure, option="erasure", seconds=3.5, sections=(ERASURE,))

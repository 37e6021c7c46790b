"""The verdicts on parts and wiring (R5, R6) of a model's own pair under every reasonable choice."""

from functools import partial

from interp.circuits.sharing.choices import CHOICES, options_of
from interp.core.progress import say
from interp.core.sites import unit_sites
from interp.declared import figures
from interp.declared.measures import MeasureSpec
from interp.declared.writing import plain
from interp.measures.multiverse import multiverse_table
from interp.measures.subject import Frames, Subject


def _model(row: figures.Row) -> str:
    """A model of a setting: its architecture, and the seed of its block."""
    seed = f"seed {row['seed']:.0f}"
    return f"{plain(row['architecture'])}, {seed}" if row["architecture"] else seed


def _curve(rung: str, title: str, choices: tuple[str, ...]) -> figures.FigureSpec:
    """The specification curve of a rung."""
    return figures.FigureSpec(
        f"choices-{rung.lower()}",
        f"{title} Under every choice ({rung})",
        "choices",
        ("multiverse",),
        method="The rung is judged again for every combination of options, of which the model's "
        "own verdict takes one.",
        null="The rung's own null under each choice, at index 0.",
        caption="{n}; bars are 95 % intervals of the index. Each column is one combination of "
        "options, sorted by index, those without one last; below it the options that it has. "
        "{counted} Purple: what the ladder does.",
        alt="{columns} combinations of options sorted by index, with their options below",
        where={"rung": rung},
        choices=(
            figures.TEST_DOMAIN,
            figures.SETTING,
            figures.ChoiceSpec("Model", ("architecture", "seed"), named=_model),
        ),
        labels=choices,
        y=figures.AxisSpec("index (0 null, 1 ceiling)", within=(-1.0, 2.0)),
        lines=figures.threshold_lines(),
    )


UNDER_CHOICES = figures.SectionSpec(
    "multiverse",
    "Does the verdict hang on a choice?",
    "Parts are scored by other methods, metrics, corruptions and steps of integration; circuits of "
    "other sizes are compared, by other measures. Parts (R5) and wiring (R6) are judged under each "
    "combination, as the ladder judges them.",
    (
        _curve("R6", "Same wiring?", tuple(name for name in CHOICES if name != "overlap")),
        _curve("R5", "Same parts?", tuple(CHOICES)),
    ),
    note="Combinations are not independent, so the share that agrees is no probability. Where a "
    "corruption is made from the picture itself, a bias of the class may pass for its circuit.",
)


def measure(subject: Subject) -> Frames:
    """The table `multiverse` for the natural and the test domain."""
    if not unit_sites(subject.tower):
        say(f"choices left out: {type(subject.tower).__name__} has no units known")
        return {}
    table = partial(multiverse_table, subject, options_of(None))
    return subject.file_parts({"multiverse": [table]})


MEASURE = MeasureSpec(
    "multiverse", measure, option="multiverse", seconds=500.0, sections=(UNDER_CHOICES,)
)

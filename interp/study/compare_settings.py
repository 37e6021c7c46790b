"""Comparisons across the models of a grid: settings, blocks, epochs, exposure, domains."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TypeAlias

import pandas as pd

from interp.core.errors import SampleError
from interp.core.progress import say
from interp.data.mixtures.settings import HOLDS, MixtureSpec, is_upper_bound
from interp.declared.measures import all_measures
from interp.models.evaluation.differences import differences, over_blocks, run_means
from interp.models.evaluation.evaluate import exposure, exposures
from interp.models.evaluation.learning import learning, that_learned
from interp.models.evaluation.robustness import robustness
from interp.study.archive import LOSSES
from interp.study.grid import UNTRAINED, Cell, mixture_table
from interp.study.specification import Specification
from interp.verdicts.levels.l4_intervention import intervene, ordinary
from interp.verdicts.rungs import RUNGS

PRIMARY = (("leave-out-domain", "natural-only"), ("cg-high", "cg-low"))
"""The paper's first finding: diversity helps both kinds of generalization."""

FURTHER = (
    ("cg-low", "natural-only"),
    ("cg-low", "leave-out-domain"),
    ("cg-high", "leave-out-domain"),
    ("upper-bound-low", "cg-low"),
    ("upper-bound-high", "cg-high"),
)
"""What some of the test domain is worth, what is left to gain, and whether CG can trail DG."""

RUN = ["setting", "test_domain", "seed"]

Tables: TypeAlias = dict[str, pd.DataFrame]
"""Tables by name."""


def compare_settings(frames: Tables, cells: Sequence[Cell]) -> Tables:
    """The tables of a study's models of one architecture, with those that compare models.

    From `accuracy` and `accuracy_by_class` of every model and epoch: `accuracy` of the last epoch
    and the untrained models (where there are several blocks, rows of all of them stand before
    those of single runs, told apart by `n_runs`), `epochs`, `differences` of settings, without
    models that did not learn, `exposure` and its `exposure_classes`, and `robustness`, against
    models of natural pictures alone.
    """
    by_class, every = frames["accuracy_by_class"], frames["accuracy"]
    last = _last(by_class)
    own = last[(last["domain"] == last["test_domain"]) & (last["class_set"] == "held-out")]
    natural = cells[0].mixture.natural
    told = learning(every, frames.get("mixtures"), natural=natural)
    made = {
        "accuracy": _last(every, untrained=True),
        "accuracy_by_class": _last(by_class, untrained=True),
        "differences": _differences(that_learned(own, told), cells),
        **_exposure(last, cells, natural),
        "robustness": _robustness(every, cells, natural),
    }
    if len(_last(every)) < (every["control"] == "").sum():  # earlier epochs were kept
        made["epochs"] = _curves(every)
    if len({cell.block.seed for cell in cells}) > 1:
        pooled = _over_blocks(made["accuracy"], made["accuracy_by_class"])
        made["accuracy"] = pd.concat([pooled, made["accuracy"]], ignore_index=True)
    return {**frames, **{name: table for name, table in made.items() if len(table)}}


def _last(frame: pd.DataFrame, *, untrained: bool = False) -> pd.DataFrame:
    """Rows of the trained models after their last epoch, and perhaps of the untrained ones."""
    trained = frame["control"] == ""
    last = frame[trained].groupby(RUN)["epoch"].max()
    of_run = pd.MultiIndex.from_frame(frame[RUN]).map(last.to_dict())
    keep = trained & (frame["epoch"].to_numpy() == of_run.to_numpy())
    return frame[keep | (~trained & untrained)].reset_index(drop=True)


def _curves(every: pd.DataFrame) -> pd.DataFrame:
    """Every kept epoch; the untrained model of a block is the beginning of all its runs."""
    trained, block = every[every["control"] == ""], ["test_domain", "seed"]
    runs = trained[RUN].drop_duplicates()
    floor = every[every["control"] == UNTRAINED].drop(columns="setting")
    begun = runs.merge(floor.assign(control=""), on=block)
    return pd.concat([begun, trained], ignore_index=True)


def _over_blocks(accuracy: pd.DataFrame, by_class: pd.DataFrame) -> pd.DataFrame:
    """Accuracy over all blocks, of the trained models at their last epoch and of the untrained."""
    parts = []
    for control in ("", UNTRAINED):
        runs, classes = (
            frame[frame["control"] == control].assign(control="") for frame in (accuracy, by_class)
        )
        if len(runs):
            pooled = pd.concat([over_blocks(classes), run_means(runs)], ignore_index=True)
            epochs = runs.groupby("setting")["epoch"].max()
            parts.append(pooled.assign(control=control, epoch=pooled["setting"].map(epochs)))
    return pd.concat(parts, ignore_index=True).assign(architecture=accuracy["architecture"].iloc[0])


def _differences(own: pd.DataFrame, cells: Sequence[Cell]) -> pd.DataFrame:
    """What one setting gains over another on held-out classes in the test domain."""
    run = {_run(cell): cell.run.name for cell in cells}
    own = own.assign(run=pd.MultiIndex.from_frame(own[RUN]).map(run))
    kinds = kinds_of([cell.mixture for cell in cells])
    parts = [
        differences(own, pairs, family=family, kinds=kinds)
        for family, pairs in contrast_tables([cell.mixture for cell in cells]).items()
    ]
    return pd.concat([part for part in parts if len(part)] or [pd.DataFrame()], ignore_index=True)


def kinds_of(mixtures: Sequence[MixtureSpec]) -> dict[str, str]:
    """The kind of every mixture: upper bounds were trained on the classes held out from others.

    >>> kinds_of([MixtureSpec(name, "sketch", ()) for name in ("cg-low", "upper-bound-low")])
    {'cg-low': '', 'upper-bound-low': 'upper bound'}
    """
    return {
        mixture.name: "upper bound" if is_upper_bound(mixture.name) else "" for mixture in mixtures
    }


def contrast_tables(mixtures: Sequence[MixtureSpec]) -> dict[str, list[tuple[str, str]]]:
    """Pairs of mixtures to compare, by name: settings changed in the same way, and each change.

    >>> specs = [MixtureSpec(name, "sketch", ()) for name in ("cg-low", "cg-high")]
    >>> specs.append(MixtureSpec("cg-high", "sketch", (), domains=2))
    >>> list(contrast_tables(specs).values())
    [[('cg-high', 'cg-low')], [('cg-high, 2 domains', 'cg-high')]]
    """
    once = {mixture.name: mixture for mixture in mixtures}
    by_setting: dict[str, list[MixtureSpec]] = {}
    for mixture in once.values():
        by_setting.setdefault(mixture.setting, []).append(mixture)

    def alike(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        return [
            (one.name, two.name)
            for a, b in pairs
            for one, two in product(by_setting.get(a, []), by_setting.get(b, []))
            if _changes(one) == _changes(two)
            # natural-only is never matched in anything, whatever the others hold
            and (one.hold == two.hold or "natural-only" in (a, b))
        ]

    plain = {name: min(own, key=lambda m: len(m.name)) for name, own in by_setting.items()}
    varied = [
        (mixture.name, plain[mixture.setting].name)
        for mixture in once.values()
        if mixture != plain[mixture.setting]
    ]
    return {"primary contrasts": alike(PRIMARY), "further contrasts": [*alike(FURTHER), *varied]}


def _changes(mixture: MixtureSpec) -> list[str]:
    """In what a mixture departs from its setting, but for what it holds."""
    return [part for part in mixture.name.split(", ")[1:] if part not in HOLDS.values()]


def _exposure(last: pd.DataFrame, cells: Sequence[Cell], natural: str) -> dict[str, pd.DataFrame]:
    """Accuracy of a class against how often it was trained on, run by run."""
    classes = []
    rows = dict(tuple(last.groupby(RUN)))
    for cell in (cell for cell in cells if _run(cell) in rows):
        counts = pd.Series(cell.manifest["counts"], dtype=int)
        based = pd.Series(cell.manifest.get("base_counts", {}), dtype=int)
        based = based.rename(lambda label: f"{natural}/{label}")
        counts = counts.add(based, fill_value=0).astype(int)
        places = [name.split("/", 1) for name in counts.index]
        trained_on = pd.DataFrame(places, columns=["domain", "label"]).assign(
            n_pictures=counts.to_numpy()
        )
        exposed = exposures(rows[_run(cell)], trained_on, natural=natural)
        classes.append(exposed.assign(**cell.place))
    table = pd.concat(classes, ignore_index=True)
    return {"exposure_classes": table, "exposure": exposure(table, keys=["architecture", *RUN])}


def _run(cell: Cell) -> tuple[str, str, int]:
    """The values of `RUN` that a cell's results are filed under."""
    return cell.setting, cell.mixture.test_domain, cell.block.seed


def _robustness(every: pd.DataFrame, cells: Sequence[Cell], natural: str) -> pd.DataFrame:
    """Accuracy in the test domain against natural accuracy, beside what natural models reach.

    The line is fitted to every kept epoch of every model of natural pictures; fewer than four that
    differ make none.
    """
    trained, parts = every[every["control"] == ""], []
    alone = {cell.mixture.name for cell in cells if cell.mixture.setting == "natural-only"}
    for domain in dict.fromkeys(cell.mixture.test_domain for cell in cells):
        try:
            made = robustness(
                trained[trained["test_domain"] == domain],
                inside=natural,
                outside=domain,
                reference=lambda row: row["setting"].isin(alone),
            )
        except SampleError as error:
            say(f"effective robustness in {domain} left out: {error.given}")
        else:
            parts.append(made)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


EVERY_EPOCH = ("accuracy", "accuracy_by_class", LOSSES)
"""Tables that keep the rows of all epochs together."""

SHARED = tuple(dict.fromkeys(measure.table for rung in RUNGS.values() for measure in rung.measures))
"""Tables that the rungs are read from."""


def at_the_end(tables: Mapping[str, pd.DataFrame], cells: Sequence[Cell]) -> tuple[Tables, Tables]:
    """The rows of an architecture's models, and apart from them those of earlier epochs."""
    ends = {_run(cell): cell.run.epochs for cell in cells}
    last, earlier = {}, {}
    for name, frame in tables.items():
        own = frame[frame["architecture"] == cells[0].training.name]
        before = pd.Series(data=False, index=own.index)
        if name not in EVERY_EPOCH and "epoch" in own:
            keys = pd.MultiIndex.from_frame(own[RUN])
            end = pd.Series(keys.map(ends), index=own.index)
            before = (own["epoch"] != 0) & (own["epoch"] != end)
        for part, rows in ((last, own[~before]), (earlier, own[before])):
            if len(rows):
                part[name] = rows.reset_index(drop=True)
    return last, earlier


def with_comparisons(
    tables: Tables, cells: Sequence[Cell], spec: Specification, *, accuracy_alone: bool
) -> Tables:
    """The tables of an architecture's models, with all that is made of them.

    In this order: what an intervention came to, whose arms are then left out of all other
    comparisons; what models were trained on; the rungs of every model; the differences between
    mixtures; the verdict across checkpoints. With accuracy alone (a grid), sharing that was
    measured for the arms' sake is left out, and so are rungs and verdict.
    """
    from interp.verdicts.judging import climb  # more than a mistaken command should wait for

    natural, made = spec.mixtures.natural, ordinary(tables)
    if spec.intervention.setting:
        made |= intervene(tables, spec.intervention, natural=natural)
    if accuracy_alone:
        others = {name for one in all_measures() if one.name != "accuracy" for name in one.tables}
        made = {name: frame for name, frame in made.items() if name not in others}
    made |= {"mixtures": mixture_table(cells)}
    if accuracy_alone:
        return compare_settings(made, cells)
    return _with_levels(compare_settings(made | climb(made, natural=natural), cells), natural)


def _with_levels(tables: Tables, natural: str) -> Tables:
    """The verdict across checkpoints; an intervention's rows come after those of other levels."""
    from interp.verdicts.levels.across_checkpoints import from_tables, verdict

    found = verdict(*from_tables(tables, natural=natural))
    made = {each.name: each.frame for each in (found.table, found.together) if len(each)}
    if "levels" in made and "levels" in tables:
        made["levels"] = pd.concat([made["levels"], tables["levels"]], ignore_index=True)
    return tables | made


def sharing_by_epoch(earlier: Tables, natural: str) -> Tables:
    """What kept epochs before the last share, by rung."""
    shared = {name: earlier[name] for name in SHARED if name in earlier}
    if not shared:
        return {}
    from interp.verdicts.judging import climb

    return {"rungs_by_epoch": climb(shared, natural=natural)["rungs"]}

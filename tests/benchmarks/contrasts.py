"""The comparisons on the committed grids: derived again from their tables, without training."""

import pandas as pd

from interp.models.evaluation.learning import trained_models
from tests.benchmarks.grids import ASKED, HERE


def compared(name: str) -> pd.DataFrame:
    """The differences between settings of a grid: all test domains averaged, then each."""
    from interp.models.evaluation.evaluate import differences
    from interp.study.setting_contrasts import contrast_tables, kinds_of
    from interp.study.specification import Specification

    spec = Specification.from_toml(HERE / f"{name}.toml").mixtures
    mixtures = [
        mixture
        for domain in spec.test_domains
        for mixture in spec.made(domain, (), foreign=("a foreign class",))
    ]
    answers = of_classes(name)
    answers = answers.assign(run=trained_models(answers))
    parts = [
        differences(answers, pairs, family=family, kinds=kinds_of(mixtures))
        for family, pairs in contrast_tables(mixtures).items()
    ]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def of_classes(name: str) -> pd.DataFrame:
    """Held-out classes' accuracy in the test domain; of whole runs where no classes are kept."""
    folder = HERE / name
    if (folder / "accuracy_by_class.csv").exists():
        frame = pd.read_csv(folder / "accuracy_by_class.csv")
    else:
        frame = pd.read_csv(folder / "accuracy.csv").query("n_runs == 1").assign(label="")
        frame = frame[frame["measure"] == "balanced top-1"]
    frame = frame.query(f"{ASKED} and class_set == 'held-out' and domain == test_domain")
    return frame.reset_index(drop=True)


def intervened() -> dict[str, pd.DataFrame]:
    """The tables `intervention` and `levels` of the committed arms."""
    from interp.study.specification import Specification
    from interp.verdicts.levels.l4_intervention import intervention

    folder = HERE / "intervention"
    frames = {
        name: pd.read_csv(folder / f"intervention_{part}.csv")
        .fillna({"arm": ""})
        .assign(control="")
        for name, part in (("accuracy_by_class", "classes"), ("directions", "directions"))
    }
    spec = Specification.from_toml(HERE / "intervention.toml").intervention
    made, levels = intervention(frames, spec)
    return {"intervention": made, "levels": levels}

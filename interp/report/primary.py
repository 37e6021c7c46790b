"""Which rows are the primary ones: held-out classes, in the test domain, asked for neutrally."""

from interp.report.naming import PROMPTS, ordered_settings
from interp.report.reading import Frame, Result

EPOCH_0 = "epoch 0"


def prompt_sets(frame: Frame) -> list[str]:
    """The prompt sets of a table, neutral first."""
    given = list(dict.fromkeys(frame["prompts"]))
    return [name for name in PROMPTS if name in given] + [n for n in given if n not in PROMPTS]


def final(frame: Frame) -> Frame:
    """Rows of the trained models, each at its last epoch; one row per setting and question."""
    trained = frame[frame["control"] == ""]
    last = trained.groupby(["setting", "test_domain"])["epoch"].transform("max")
    return trained[(trained["epoch"] == last) | last.isna()]


def held_out_accuracy(
    result: Result, test_domain: str, *, control: str = "", candidates: str = "all"
) -> Frame:
    """Accuracy on held-out classes in the test domain: one row per setting, in the page's order."""
    frame = result.frame("accuracy")
    rows = frame[frame["control"] == control] if control else final(frame)
    rows = rows[
        (rows["test_domain"] == test_domain)
        & (rows["domain"] == test_domain)
        & (rows["class_set"] == "held-out")
        & (rows["candidates"] == candidates)
    ]
    first = rows[rows["prompts"].isin(prompt_sets(rows)[:1])]
    once = first.drop_duplicates("setting").set_index("setting", drop=False)
    return once.loc[ordered_settings(once.index)]


def held_out_differences(result: Result, test_domain: str) -> Frame:
    """Contrasts of settings on the same question, one row each."""
    rows = result.frame("differences")
    rows = rows[rows["test_domain"].isin([test_domain, ""])]
    rows = rows[rows["candidates"].isin(["all", ""])]
    rows = rows[rows["prompts"].isin(prompt_sets(rows)[:1])]
    return rows.drop_duplicates("setting")

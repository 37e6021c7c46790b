"""Which rows are the primary ones: held-out classes, in the test domain, asked for neutrally."""

from interp.report.naming import PROMPTS, ordered_settings
from interp.report.reading import Frame, Result

EPOCH_0 = "epoch 0"
TOP_1, TEXT = "balanced top-1", "text"
QUESTION = [
    *("setting", "test_domain", "domain", "class_set"),
    *("candidates", "prompts", "classifier", "measure"),
]
"""What an accuracy is an answer to."""


def prompt_sets(frame: Frame) -> list[str]:
    """The prompt sets of a table, neutral first."""
    given = list(dict.fromkeys(frame["prompts"]))
    return [name for name in PROMPTS if name in given] + [n for n in given if n not in PROMPTS]


def top_1(frame: Frame) -> Frame:
    """Rows of balanced top-1 by the text head; a table that names neither holds nothing else."""
    return text_head(frame[frame["measure"].isin([TOP_1, ""])])


def text_head(frame: Frame) -> Frame:
    """Rows of answers that came through text."""
    return frame[frame["classifier"].isin([TEXT, ""])]


def final(frame: Frame) -> Frame:
    """Rows of the trained models, each at its last epoch; one row per setting and question.

    Where a question was also answered over all blocks at once, the rows of single blocks give way.
    """
    trained = frame[frame["control"] == ""]
    most = trained.groupby(QUESTION, sort=False)["n_runs"].transform("max")
    trained = trained[(trained["n_runs"] == most) | most.isna()]
    last = trained.groupby(["setting", "test_domain"])["epoch"].transform("max")
    return trained[(trained["epoch"] == last) | last.isna()]


def in_test_domain(frame: Frame) -> Frame:
    """Trained models' rows asked for through text, with the primary prompts, in the test domain."""
    rows = text_head(frame)
    rows = rows[rows["prompts"].isin(prompt_sets(rows)[:1])]
    return rows[(rows["domain"] == rows["test_domain"]) & (rows["control"] == "")]


def held_out_accuracy(
    result: Result, test_domain: str, *, control: str = "", candidates: str = "all"
) -> Frame:
    """Accuracy on held-out classes in the test domain: one row per setting, in the page's order."""
    frame = top_1(result.frame("accuracy"))
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
    rows = text_head(result.frame("differences"))
    rows = rows[rows["test_domain"].isin([test_domain, ""])]
    rows = rows[rows["candidates"].isin(["all", ""])]
    rows = rows[rows["prompts"].isin(prompt_sets(rows)[:1])]
    return rows.drop_duplicates("setting")


def primary_differences(result: Result, test_domain: str) -> Frame:
    """Of the contrasts, those of the primary family; all, where a table names no families."""
    rows = held_out_differences(result, test_domain)
    primary = rows["family"].str.startswith("primary")
    return rows[primary] if primary.any() else rows

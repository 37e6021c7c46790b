"""What is kept of the large study, the claims made of it, and answers with planted effects."""

from functools import cache

import pandas as pd

from interp.core.seeds import rng
from tests.benchmarks.findings.claims import accuracy_findings
from tests.benchmarks.findings.pages import ABOUT_ACCURACY, all_tables
from tests.benchmarks.findings.tables import STUDIES, finished_blocks

read_once = cache(all_tables)


def kept_tables() -> dict[str, dict[str, pd.DataFrame]]:
    """What is kept of every study, in dicts of the caller's own; frames are everyone's."""
    return {name: dict(own) for name, own in read_once().items()}


@cache
def claims(name: str) -> pd.DataFrame:
    """The claims about accuracy in a study."""
    return accuracy_findings(read_once()[name]["answers"])


FINISHED = [name for name in STUDIES if finished_blocks(name)]
TRAINED = [name for name in FINISHED if name in ABOUT_ACCURACY]


def with_one_block() -> tuple[dict[str, pd.DataFrame], dict[str, dict[str, pd.DataFrame]]]:
    """Claims and tables of pilot and weak, and of a study `vit` that is the weak one's block 0."""
    made = kept_tables()
    weak = made["weak"]
    first = {name: weak[name].query("seed == 0") for name in ("answers", "runs")}
    made["vit"] = first | {"levels": weak["levels"]}
    found = {name: claims(name) for name in ("pilot", "weak")}
    found["vit"] = accuracy_findings(made["vit"]["answers"])
    return found, made


def planted(effects: dict[str, float], blocks: int = 8, spread: float = 0.02) -> pd.DataFrame:
    """Answers of six mixtures in two domains, with these effects on natural only's .5."""
    draw = rng("planted findings", 0)
    rows = []
    for setting in (*effects, "natural-only"):
        for seed in range(blocks):
            own = 0.5 + effects.get(setting, 0.0) + draw.normal(0, spread)
            for domain in ("sketch", "quickdraw"):
                run = f"{setting} {domain if setting != 'natural-only' else ''} {seed}"
                rows += [
                    {"setting": setting, "test_domain": domain, "domain": domain, "seed": seed,
                     "label": f"{seed}-{k}", "candidates": "all", "prompts": "neutral",
                     "classifier": "text", "n_pictures": 16, "run": run,
                     "value": own + draw.normal(0, 0.01) - 0.2 * (domain == "quickdraw")
                     * (setting == "leave-out-domain")}
                    for k in range(5)
                ]  # fmt: skip
    return pd.DataFrame(rows)

"""What earlier blocks decided is told as it was, and what was taken back."""

import pandas as pd
import pytest

from tests.benchmarks.findings.accuracy import claim_cell
from tests.benchmarks.findings.as_blocks_came import (
    blocks_table,
    claims_as_blocks_came,
    links_as_blocks_came,
    taken_back_in_words,
)
from tests.benchmarks.findings.claims import accuracy_findings
from tests.benchmarks.findings.pages import DIRECTIONS
from tests.benchmarks.findings.tables import tables
from tests.study.findings.kept import planted


def test_a_row_of_blocks_knows_nothing_of_those_that_came_later() -> None:
    weak = tables("weak")
    answers, links = weak["answers"].query("seed < 4"), weak["links"].query("n_blocks <= 4")
    came = claims_as_blocks_came(answers)
    first, second, third = blocks_table(came, links, DIRECTIONS).splitlines()[2:]
    changed = claims_as_blocks_came(
        answers.assign(value=answers["value"].where(answers["seed"] < 3, 1))
    )
    moved = links.assign(value=links["value"].where(links["n_blocks"] < 4, 0.1))
    other = blocks_table(changed, moved, DIRECTIONS)
    assert other.splitlines()[2:4] == [first, second] and other.splitlines()[4] != third
    own = accuracy_findings(answers)
    assert third.split(" | ")[1:-1] == [claim_cell(own, number) for number in own["number"]]


def test_a_decision_that_a_later_block_takes_back_is_told() -> None:
    """Two blocks say the same of claim 2, a third turns round what CG high does; others follow."""
    steady = planted({"cg-high": 0.3, "cg-low": 0.0}, blocks=8)
    late = (steady["seed"] == 2) & (steady["setting"] == "cg-high")
    turned = steady.assign(value=steady["value"].where(~late, 0.0))

    def told(study: pd.DataFrame, blocks: int) -> str:
        asked = {"strong": study[study["seed"] < blocks], "vit": steady[steady["seed"] == 0]}
        claims = {name: claims_as_blocks_came(own) for name, own in asked.items()}
        return taken_back_in_words(claims, {})

    assert told(steady, 8) == ""
    assert told(turned, 3) == "- **Decided by fewer blocks, open again**: claim 2 in strong."
    assert told(turned, 8) == "- **Decided, then open, then decided again**: claim 2 in strong."
    later = (steady["seed"] > 1) & (steady["setting"] == "cg-high")
    contrary = steady.assign(value=steady["value"] - 1.2 * later)
    assert told(contrary, 8) == "- **Decided otherwise by fewer blocks**: claim 2 in strong."


def test_a_link_that_later_blocks_take_back_is_told() -> None:
    links = pd.DataFrame(
        {"n_blocks": [2, 3, 4], "level": "L2", "rung": "R2", "measure": "CKA",
         "verdict": ["cannot tell", "goes together", "cannot tell"]}
    )  # fmt: skip
    claims = claims_as_blocks_came(planted({"cg-high": 0.3, "cg-low": 0.0}, blocks=4))
    three = {n: own for n, own in claims.items() if n < 4}
    assert taken_back_in_words({"weak": three}, {"weak": links[:2]}) == ""
    said = "- **Decided by fewer blocks, open again**: L2 (R2 CKA) in weak."
    assert taken_back_in_words({"weak": claims}, {"weak": links}) == said


@pytest.mark.parametrize("name", ["weak", "strong"])
def test_the_last_look_at_links_is_the_verdict_of_the_study(name: str) -> None:
    """From runs that are rounded to five digits; and an earlier look is made again."""
    found = tables(name)
    links, levels = found["links"], found["levels"].query("adjusted == ''")
    keys = ["level", "rung", "measure"]
    last = links[links["n_blocks"] == links["n_blocks"].max()].set_index(keys)
    whole = levels[levels["level"].isin(["L1", "L2"])].set_index(keys).loc[last.index]
    assert last["verdict"].tolist() == whole["verdict"].tolist()
    assert last["value"].to_numpy() == pytest.approx(
        whole["value"].to_numpy(), abs=1e-4, nan_ok=True
    )
    three = links_as_blocks_came(found["runs"].query("seed < 3 and measure == 'debiased CKA'"))
    own = links.query("measure == 'debiased CKA' and n_blocks <= 3")
    assert three["value"].to_numpy() == pytest.approx(own["value"].to_numpy(), rel=1e-3)

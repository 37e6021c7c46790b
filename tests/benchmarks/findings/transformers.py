"""What the vision transformers of the large study say of the claims, and how much they know."""

from collections.abc import Mapping

import pandas as pd

from interp.core.errors import sequence
from interp.models.evaluation.learned_models import trained_models
from tests.benchmarks.findings.accuracy import qualified_cell
from tests.benchmarks.findings.claims import Decided
from tests.benchmarks.findings.links_in_short import link_cell, most_reliable
from tests.benchmarks.findings.tables import RUN, Tables, asked_blocks, finished_blocks
from tests.benchmarks.findings.writing import NO_BLOCK, blocks_of, counted, spoken


def of_vits(found: Decided, made: Tables) -> str:
    """What a vision transformer says of the claims, and how well it knows photographs at all."""
    if "vit" not in found:
        done = f"{finished_blocks('vit')} of {asked_blocks('vit')}"
        return f"Not known: {done} blocks are finished."
    own, answers = found["vit"], made["vit"]["answers"]
    blocks = int(own["n_blocks"].max())
    if blocks > 1:
        cells = [f"claim {number} {qualified_cell(own, answers, number)}"
                 for number in own["number"]]  # fmt: skip
        link = most_reliable(found, made, "L2").get("vit")
        told = "; ".join([*cells, *([] if link is None else [f"L2 {link_cell(link)}"])])
        told = f"{blocks_of('vit', blocks)} blocks: {told}"
    else:  # no interval, and "open" would say that much was known
        effects = zip(own["number"], (100 * own["value"]).round(1) + 0.0, strict=True)
        told = ", ".join(f"claim {number} {value:+.1f}" for number, value in effects)
        told = f"One block of {asked_blocks('vit')} decides nothing: {told}"
    return f"{told}. {vits_on_photographs(made)}"


def vits_on_photographs(made: Tables) -> str:
    """How well a vision transformer knows photographs, and which of its models did not learn."""
    if not made["vit"]:
        return NO_BLOCK
    shares, n = zip(*(_photographs(frame) for frame in _both_towers(made)), strict=True)
    weak = ": too weak to confirm or contradict anything" if is_too_weak(made) else ""
    return (
        f"Held-out classes in photographs: {100 * shares[0]:.0f} % ({n[0]}), *strong*'s "
        f"ResNets {100 * shares[1]:.0f} % ({n[1]}){weak}.{_left_out(made['vit'])}"
    )


def _left_out(found: Mapping[str, pd.DataFrame]) -> str:
    """Which models did not learn, so that nothing is judged for them."""
    once = found["failed"].drop_duplicates(["setting", "seed"]) if "failed" in found else None
    if once is None or once.empty:
        return ""
    rows = [f"{spoken(row.setting)} of block {row.seed}" for row in once.itertuples()]
    return f" Did not learn, left out: {sequence(rows)}."


def is_too_weak(made: Tables) -> bool:
    """Whether ViTs know photographs less than half as well as the strong study's ResNets do."""
    vit, strong = (_photographs(frame)[0] for frame in _both_towers(made))
    return vit < strong / 2


def _both_towers(made: Tables) -> list[pd.DataFrame]:
    """Runs of the ViT, and of the strong study's ResNets in the same mixtures."""
    vit, strong = (made[name]["runs"].drop_duplicates(RUN) for name in ("vit", "strong"))
    return [vit, strong[strong["setting"].isin(vit["setting"])]]


def _photographs(runs: pd.DataFrame) -> tuple[float, str]:
    """Mean accuracy of held-out classes in photographs over trained models, and how many."""
    of_models = runs.groupby(trained_models(runs))["accuracy_natural"].mean()
    return float(of_models.mean()), counted(len(of_models), "model")

"""The figure of named heads: every name is the table's, and what has none is not in bold."""

import pandas as pd
import pytest

from interp.core.errors import SpecificationError
from interp.core.tables import Table


def rows() -> pd.DataFrame:
    """Two domains, two layers of two heads and an MLP; one head with two names, one silent."""
    cells = [(d, layer, k) for d in ("real", "sketch") for layer in (2, 10) for k in (0, 1, None)]
    frame = pd.DataFrame(cells, columns=["domain", "layer", "head"])
    frame["kind"] = frame["head"].map(lambda head: "mlp" if pd.isna(head) else "head")
    frame = frame.assign(rank=1, word="dog", verdict="no name", value=0.1, low=0.0, high=0.2,
                         null=0.1, p=0.5, unit="drawing", n_units=9)  # fmt: skip
    named = (frame["domain"] == "real") & (frame["layer"] == 10) & (frame["head"] == 1)
    own = frame[named].assign(
        verdict="a <word> so long", word="a <word> so long", value=0.4, p=0.01
    )
    second = own.assign(rank=2, word="cat", verdict="cat", value=0.2)
    third = own.assign(rank=3, word="owl", verdict="no name", value=0.05)
    silent = frame[(frame["domain"] == "sketch") & (frame["layer"] == 2) & (frame["head"] == 0)]
    rest = frame[~named].drop(silent.index)
    return pd.concat([rest, own, second, third, silent.assign(word="", value=None)])


def test_names_are_bold_and_coloured_by_what_they_explain() -> None:
    figure = Table("named heads", rows()).plot(title="Names")
    real, sketch = figure.data
    assert real.y == ("2", "10") and real.x == ("0", "1", "MLP")  # by number, not by letters
    assert real.text[1][1] == "<b>a &lt;word&gt; so…</b><br>cat"
    assert real.z[1][1] == pytest.approx(0.6) and real.z[0] == [0.0, 0.0, 0.0]
    assert "<b>" not in str(sketch.text) and sketch.text[0][0] == "·"
    assert sketch.text[1][2] == "<span style='color:#8c8c8c'>dog</span>"
    assert "p = 0.010" in real.customdata[1][1] and "owl" in real.customdata[1][1]
    assert "writes nothing" in sketch.customdata[0][0]
    assert real.zmax == sketch.zmax == pytest.approx(0.6)
    title = figure.layout.title.text
    assert title.startswith("Names<br>") and "1 of 12 cells" in title and "n = 9 drawings" in title
    assert [note.text for note in figure.layout.annotations] == ["real", "sketch"]


def test_nothing_named_is_drawn_too() -> None:
    none = rows().query("rank == 1 and domain == 'sketch'")
    (heat,) = Table("named heads", none).plot().data
    assert heat.zmax == 1.0 and heat.z[0] == [0.0, 0.0, 0.0]
    with pytest.raises(SpecificationError, match="figure"):
        Table("named heads", none[:0]).plot()

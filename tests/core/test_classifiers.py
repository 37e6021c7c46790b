"""The classifier that every function takes: scikit-learn's words, by plain counting."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

from interp.core.classifiers import Classifier
from interp.core.errors import AlikeError, DataError, ShapeError

NAMES = ("ant", "bee", "cat")
HEAD = Classifier(torch.randn(3, 8, generator=torch.manual_seed(0)), NAMES, scale=20.0)
EMBEDDED = torch.randn(40, 8, generator=torch.manual_seed(1))
LABELS = [NAMES[n % 3] for n in range(40)]
DOMAINS = pd.Series(["real", "sketch"] * 20)


def test_logits_are_scaled_cosines() -> None:
    by_hand = [
        [20 * float(x @ c) / float(x.norm() * c.norm()) for c in HEAD.embeddings] for x in EMBEDDED
    ]
    torch.testing.assert_close(HEAD(EMBEDDED), torch.tensor(by_hand), atol=1e-4, rtol=1e-4)
    assert torch.equal(HEAD(EMBEDDED), HEAD.logits(EMBEDDED))
    assert HEAD.weight is HEAD.embeddings and HEAD.logit_scale == 20 and HEAD.class_names == NAMES


def test_predictions_and_scores_are_counts() -> None:
    said = HEAD.predict(EMBEDDED)
    best = [NAMES[int(row.argmax())] for row in HEAD(EMBEDDED)]
    assert said.tolist() == best
    assert HEAD.score(EMBEDDED, pd.Series(LABELS)) == np.mean(
        [a == b for a, b in zip(best, LABELS, strict=True)]
    )
    shares = HEAD.predict_proba(EMBEDDED)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    assert (np.asarray(NAMES)[shares.argmax(axis=1)] == said).all()


def test_confusion_has_a_row_and_a_column_for_every_class() -> None:
    table = HEAD.confusion(EMBEDDED, LABELS)
    said = HEAD.predict(EMBEDDED)
    for true in NAMES:
        for named in NAMES:
            pairs = zip(LABELS, said, strict=True)
            assert table.loc[true, named] == sum(pair == (true, named) for pair in pairs)
    one = HEAD.confusion(HEAD.embeddings[:1], ["ant"])
    assert one.shape == (3, 3) and one.to_numpy().sum() == 1


def test_accuracy_by_domain_has_wilsons_interval() -> None:
    table = HEAD.score_by(EMBEDDED, LABELS, DOMAINS)
    said, z = HEAD.predict(EMBEDDED), norm.ppf(0.975)
    for domain, row in table.iterrows():
        hits = [a == b for a, b, d in zip(said, LABELS, DOMAINS, strict=True) if d == domain]
        p, n = np.mean(hits), len(hits)
        middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        assert row.tolist() == pytest.approx([p, middle - half, middle + half, n])


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(DataError, match="wasp"):
        HEAD.score(EMBEDDED[:1], ["wasp"])
    with pytest.raises(ShapeError, match="2 labels for 1"):
        HEAD.score(EMBEDDED[:1], ["ant", "bee"])
    with pytest.raises(DataError, match="once"):
        Classifier(torch.eye(2), ("ant", "ant"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_classes_that_differ_by_rounding_have_no_unit(dtype: torch.dtype) -> None:
    head = Classifier(torch.eye(6, dtype=dtype), tuple("abcdef"))
    alike = torch.full((4, 6), 3.0, dtype=dtype)
    alike[:, 0] += torch.finfo(dtype).eps * 4
    assert len(set(alike[0].tolist())) == 2
    with pytest.raises(AlikeError, match="differ between classes"):
        head.standardised(alike)
    alike[0, 0] += 1e-3
    assert head.standardised(alike).scale > head.scale

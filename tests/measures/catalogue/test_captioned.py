"""Words and heads of captions: closed sums, plain loops, and what cannot be asked."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from interp.core.images import ImageTable
from interp.core.tables import EVIDENCE
from interp.measures.catalogue import captioned
from interp.measures.catalogue.captioned import CLASSES, DOMAINS, ROLES, Captions, caption
from interp.measures.subject import AnalysisSpec, Subject
from interp.models import load_clip

PAIR = ("real", "sketch")


@pytest.fixture(scope="module")
def opened(trained_checkpoint: Path, small_images: ImageTable) -> Subject:
    analysis = AnalysisSpec(n_circuit_pairs=12)
    place = {"setting": "cg-high", "seed": 0}
    clip = load_clip(trained_checkpoint)
    return Subject(clip, small_images, PAIR, analysis=analysis, place=place)


@pytest.fixture(scope="module")
def frames(opened: Subject) -> dict[str, pd.DataFrame]:
    return dict(captioned.measure(opened))


def unit(x: torch.Tensor) -> torch.Tensor:
    return F.normalize(x, dim=-1)


def mean_pictures(opened: Subject, domain: str) -> torch.Tensor:
    """Mean unit embedding of each class, the plain way."""
    images = opened.analysed.select(domain=domain)
    embedded = unit(opened.clip.embed(images))
    labels = images.label.to_numpy()
    return torch.stack(
        [embedded[torch.from_numpy(labels == name)].mean(dim=0) for name in images.labels]
    )


def test_tables_carry_their_evidence(frames: dict[str, pd.DataFrame]) -> None:
    assert set(frames) == {
        "match_faithfulness", "match_circuits", "caption_words", "caption_patching"
    }  # fmt: skip
    for name in ("match_faithfulness", "caption_words", "caption_patching"):
        assert set(EVIDENCE) <= set(frames[name].columns), name
    assert set(frames["match_faithfulness"]["tower"]) == {"visual", "text", "both"}
    assert set(frames["match_faithfulness"]["domain"]) == set(PAIR)


def test_words_sum_to_what_the_caption_tells_apart(
    opened: Subject, frames: dict[str, pd.DataFrame]
) -> None:
    """Shares sum to 1, and the whole is the difference of logits that the model gives."""
    clip, labels = opened.clip, opened.analysed.labels
    words = frames["caption_words"]
    assert words["part"].tolist()[: len(ROLES)] == list(ROLES)
    sums = words.groupby(["domain", "told_apart"])["value"].sum(min_count=len(ROLES)).dropna()
    np.testing.assert_allclose(sums, 1, atol=1e-4)
    means = {domain: mean_pictures(opened, domain) for domain in PAIR}
    with torch.no_grad():
        text = unit(clip.encode_text([caption("sketch", name) for name in labels]))
    own = means["sketch"]
    logits = clip.logit_scale * own @ text.T
    n = len(labels)
    off = (logits.sum(dim=0) - logits.diagonal()) / (n - 1)
    other = clip.logit_scale * (means["real"] * text).sum(dim=1)
    whole = words[words["domain"] == "sketch"].groupby("told_apart")["logits"].first()
    slow = {
        CLASSES: float((logits.diagonal() - off).mean()),
        DOMAINS: float((logits.diagonal() - other).mean()),
    }
    for told, value in slow.items():
        assert whole[told] == pytest.approx(value, abs=1e-3)


def test_a_word_that_both_captions_have_tells_no_more_than_in_the_null(
    frames: dict[str, pd.DataFrame],
) -> None:
    """Biases are the same in every caption, but for the length by which they are divided."""
    rows = frames["caption_words"].query("part == 'biases'").dropna(subset=["value"])
    assert (rows["value"] - rows["null"]).abs().max() < 0.2


def test_patched_heads_are_those_of_a_plain_loop(
    opened: Subject, frames: dict[str, pd.DataFrame]
) -> None:
    captions, clip = Captions(opened), opened.clip
    swap = next(swap for told, swap in captions.swaps() if told == DOMAINS)
    assert swap.texts[0][0] == caption("sketch", captions.classes[0])
    clean, corrupt = (clip.tokenizer(list(texts)) for texts in swap.texts[:2])
    direction = clip.logit_scale * (mean_pictures(opened, "sketch") - mean_pictures(opened, "real"))
    sites = {"a0.h2": "blocks.0.attn.hook_z", "m0": "blocks.0.hook_mlp_out"}
    rows = frames["caption_patching"].query("told_apart == 'domains'").set_index("part")
    assert set(rows["domain"]) == {"sketch"}
    with torch.no_grad():
        held = clip.text.run_with_cache(clean, names_filter=list(sites.values()))[1]
        start, whole = unit(clip.text(corrupt)), unit(clip.text(clean))

        def patch(own: torch.Tensor, hook: Any) -> torch.Tensor:
            if own.ndim == 3:
                return held[hook.name]
            own = own.clone()
            own[:, :, 2] = held[hook.name][:, :, 2]
            return own

        for part, site in sites.items():
            out = unit(clip.text.run_with_hooks(corrupt, fwd_hooks=[(site, patch)]))
            slow = float(((out - start) * direction).sum(dim=1).mean())
            assert rows.loc[part, "value"] == pytest.approx(slow, rel=1e-3, abs=1e-6)
        full = float(((whole - start) * direction).sum(dim=1).mean())
    assert full > 1 and rows["ceiling"].to_numpy() == pytest.approx(full, rel=1e-4)


def test_the_whole_exchange_of_classes_is_the_ceiling(
    opened: Subject, frames: dict[str, pd.DataFrame]
) -> None:
    captions, clip = Captions(opened), opened.clip
    for told, swap in captions.swaps():
        if told == CLASSES:
            means = mean_pictures(opened, swap.domain)
            place = captions.classes.index
            own, foils = (means[[place(name) for name in of]] for of in (swap.labels, swap.foils))
            with torch.no_grad():
                clean, corrupt = (unit(clip.text(captions.tokens(of))) for of in swap.texts[:2])
            full = clip.logit_scale * ((clean - corrupt) * (own - foils)).sum(dim=1)
            rows = frames["caption_patching"].query(f"told_apart == '{told}'")
            found = rows[rows["domain"] == swap.domain]["ceiling"].to_numpy()
            assert found == pytest.approx(float(full.mean()), rel=1e-3)


def test_partners_have_captions_of_one_length(opened: Subject) -> None:
    captions = Captions(opened)
    lengths = captions.lengths("image")
    for pairs in captions.halves("sketch"):
        ends = [side.label.map(lengths) for side in (pairs.clean, pairs.corrupt)]
        assert (ends[0].to_numpy() == ends[1].to_numpy()).all()
    first, second = (set(p.images.frame["artist"]) for p in captions.halves("sketch"))
    assert not first & second


def test_what_cannot_be_asked_is_left_out(opened: Subject) -> None:
    untaken = SimpleNamespace(text=torch.nn.Identity(), visual=opened.clip.visual)
    assert captioned.measure(replace(opened, clip=untaken)) == {}
    few = opened.images.select(label=list(opened.images.labels[:3]))
    assert captioned.measure(replace(opened, images=few)) == {}

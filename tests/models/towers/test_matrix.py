"""The certificate over every form of architecture that open_clip lists."""

from pathlib import Path

import open_clip
import pytest

from interp.models import certify, open_tower
from tests.architectures import forms, is_hugging_face, is_timm, small

pytestmark = pytest.mark.slow

FORMS = forms()
OWN = [
    (name, which)
    for name in FORMS
    for which, foreign in (("visual", is_timm), ("text", is_hugging_face))
    if not foreign(open_clip.get_model_config(name) or {})
]
"""Towers that are open_clip's own."""


def test_the_forms_cover_every_architecture() -> None:
    named = [name for names in FORMS.values() for name in names]
    assert sorted(named) == sorted(open_clip.list_models())
    assert len(named) >= 25


@pytest.mark.parametrize(("name", "which"), OWN)
def test_every_tower_of_open_clips_own_is_certified(name: str, which: str) -> None:
    frame = certify(open_tower(small(name), which))
    assert frame.ok.all(), frame[~frame.ok].to_string()
    assert (frame.tower == which).all() and (frame.n > 0).all()


def test_the_documents_count_what_opens() -> None:
    configs = [open_clip.get_model_config(name) or {} for name in open_clip.list_models()]
    own = [config["vision_cfg"] for config in configs if not is_timm(config)]
    resnets = sum(isinstance(vision["layers"], list) for vision in own)
    texts = sum(not is_hugging_face(config) for config in configs)
    counts = {
        "image, VisionTransformer": len(own) - resnets,
        "image, ModifiedResNet": resnets,
        "image, timm's": len(configs) - len(own),
        "text, open_clip's transformer": texts,
        "text, Hugging Face's": len(configs) - texts,
    }
    measured = (Path(__file__).parents[3] / "docs/measured.md").read_text()
    assert f"Of the {len(configs)} architectures" in measured
    for start, n in counts.items():
        (line,) = [line for line in measured.splitlines() if line.startswith(f"| {start}")]
        assert f"| {n} |" in line

"""A forecast of memory is the memory that a run then takes, to the byte."""

import pytest
import torch

from interp.core.errors import ShapeError, SiteError
from interp.core.sites import ON_DEMAND
from interp.core.storage.store import in_words
from interp.models.caching.keep import Keep, forecast, read
from tests.refusals import refuses


def test_a_forecast_is_what_run_with_cache_then_holds(kind, small_tower, small_batch):
    tower, x = small_tower(kind), small_batch(kind)
    predicted = forecast(tower, x)
    _, cache = tower.run_with_cache(x)
    assert predicted.bytes == {site: value.nbytes for site, value in cache.items()}
    assert predicted.shapes == {site: tuple(value.shape) for site, value in cache.items()}
    assert predicted.total == sum(value.nbytes for value in cache.values()) > 0
    assert predicted.largest == max(cache, key=lambda site: cache[site].nbytes)


def test_costly_sites_are_forecast_when_they_are_asked_for(small_tower, small_batch):
    tower, x = small_tower("vit"), small_batch("vit")
    costly = [site for site in tower.sites if site.endswith(ON_DEMAND)]
    assert not set(costly) & set(forecast(tower, x).bytes)
    _, cache = tower.run_with_cache(x, names_filter=costly)
    assert forecast(tower, x, Keep(costly)).bytes == {s: v.nbytes for s, v in cache.items()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, None])
def test_a_selection_in_another_format_is_forecast(dtype, kind, small_tower, small_batch):
    tower, x = small_tower(kind), small_batch(kind)
    sites = "attnpool.*" if kind == "resnet" else "blocks.1.*"
    keep = Keep(sites, pos=[0] if kind == "resnet" else slice(1, 4), head=0, dtype=dtype)
    predicted, kept = forecast(tower, x, keep), read(tower, x, keep)
    assert predicted.bytes == {site: value.nbytes for site, value in kept.items()}
    assert predicted.total < forecast(tower, x, Keep(sites, dtype=torch.float64)).total


def test_a_forecast_computes_nothing(small_tower, small_batch, monkeypatch):
    tower, x = small_tower("vit"), small_batch("vit")
    seen: list[bool] = []
    tower.add_hook("hook_embed", lambda t, hook: seen.append(type(t) is torch.Tensor))
    forecast(tower, x)
    tower(x)
    assert seen == [False, True]
    # nor does it for a batch that no machine could run: here its pictures alone are 12 TiB
    huge = x[:1].expand(2**30, 3, 32, 32)
    assert forecast(tower, huge).total == 2**30 * forecast(tower, x[:1]).total


def test_a_half_precision_tower_is_forecast_in_its_own_format(small_tower, small_batch):
    tower, x = small_tower("vit"), small_batch("vit")
    single = forecast(tower, x)
    tower.to(torch.bfloat16)
    half = forecast(tower, x.bfloat16())
    _, cache = tower.run_with_cache(x.bfloat16())
    assert half.bytes == {site: value.nbytes for site, value in cache.items()}
    assert half.total < single.total


def test_no_batch_and_no_site_are_refused(small_tower, small_batch):
    tower = small_tower("vit")
    for given in (8, torch.empty(0, 3, 32, 32), torch.tensor(1.0)):
        refuses(ShapeError, "forecast the memory", forecast, tower, given)
    with pytest.raises(SiteError, match="Try blocks"):
        forecast(tower, small_batch("vit"), Keep("blocks.0.hook_resid_prey"))
    forecast(tower, small_batch("vit"), Keep("blocks.0.hook_resid_pre"))


@pytest.mark.parametrize(
    ("n", "words"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (2**20, "1.0 MiB"), (3 * 2**40, "3.0 TiB")],
)
def test_bytes_in_words(n, words):
    assert in_words(n) == words

"""The cache of a run: its activations by site, with TransformerLens's analyses on them."""

from typing import Any

from einops import einsum
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.utilities.components_utils import get_act_name

from interp.core.errors import SiteError, nearest
from interp.core.faces.late import late


class SiteCache(dict[Any, Tensor]):
    """The activations that `run_with_cache` keeps, by site or by TransformerLens's short names.

    Args:
        tower: The tower that was run.
        x: The run's input.

    Notes:
        `cache["pattern", 0]` is `cache["blocks.0.attn.hook_pattern"]`. A head's result
        (`cache["result", 0]`) is computed from `hook_z` when it is asked for. All methods of
        TransformerLens's `ActivationCache` work on it, `accumulated_resid`, `decompose_resid`,
        `stack_head_results` and `to` among them. `logit_attrs` takes a classifier and the names of
        classes in place of tokens.

    >>> import open_clip
    >>> import torch
    >>> from interp.models import open_tower
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64)
    >>> _, cache = open_tower(model, "visual").run_with_cache(torch.rand(1, 3, 64, 64))
    >>> cache["pattern", 0].shape, cache["result", 0].shape
    (torch.Size([1, 6, 5, 5]), torch.Size([1, 5, 6, 384]))
    """

    def __init__(self, tower: Any, x: object = None) -> None:
        super().__init__()
        self.tower, self.input = tower, x

    def __missing__(self, key: object) -> Tensor:
        if isinstance(key, tuple) and len(key) > 1 and isinstance(key[1], int) and key[1] < 0:
            key = (key[0], key[1] + self.tower.n_layers, *key[2:])  # counted from the end
        site = get_act_name(*key) if isinstance(key, tuple) else str(key)
        if site in self:
            return dict.__getitem__(self, site)
        stem, _, kind = site.rpartition(".")
        if kind == "hook_result" and f"{stem}.hook_z" in self:
            weight = self.tower.get_submodule(stem).W_O.detach()
            self[site] = einsum(
                self[f"{stem}.hook_z"],
                weight,
                "batch pos head d_head, head d_head d_model -> batch pos head d_model",
            )
            return self[site]
        known = site in self.tower.hook_dict
        raise SiteError(
            f"read {site} from a cache",
            "a run that did not keep it" if known else "a name that no site has",
            "a site that was kept",
            f"ask for it by names_filter={site!r}"
            if known
            else f"did you mean {nearest(site, self.tower.sites)}?",
        )

    def logit_attrs(self, *args: object, **kwargs: object) -> Tensor:
        """What parts of the last stream add to a class's logit: `interp.models.logit_attrs`."""
        return late("logit_attrs")(self, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(ActivationCache, name):
            raise AttributeError(f"a cache has no {name!r}")
        return getattr(ActivationCache(dict(self), self.tower), name)

    def __repr__(self) -> str:
        shapes = [f"  {site}: {tuple(value.shape)}" for site, value in list(self.items())[:8]]
        more = [f"  ... {len(self) - 8} more"] if len(self) > 8 else []
        return "\n".join([f"SiteCache of {len(self)} activations", *shapes, *more])

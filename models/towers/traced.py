"""A tower for modules without hooks of their own: sites by module path, run through nnsight."""

from collections.abc import Callable, Iterable
from functools import cached_property

import torch
from torch import Tensor, nn
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.hook_points import HookPoint

from interp.core.errors import ShapeError, SiteError, SpecificationError, listed, nearest
from interp.core.sites import Site
from interp.models.towers.checked_hooks import HookRequest, ListeningPoint, Names, with_hooks
from interp.models.towers.hooked import HookedTower
from interp.models.towers.surveying import Survey, TracedSite, repeated_modules, survey
from interp.models.towers.text import check_tokens
from interp.models.towers.tracing import Net, first_tensor, with_first_tensor
from interp.models.towers.vit import check_pictures

EMBEDDING = "hook_embedding"


class TracedTower(HookedTower):
    """A module as a tower: its sites are its modules' outputs and inputs, by module path.

    Args:
        source: The module.
        example: A batch, of one row or more, of the input that the module takes. Sites are found by
            running it a few times, when they are first asked for.
        label: `visual` or `text`.
        method: The method that a run calls.
        foreign: Beginnings of paths that belong to another tower.
        longest: The largest number of tokens, where texts may be shorter than it.

    Notes:
        `trunk.blocks.3.attn` is that module's output and `trunk.blocks.3.attn.input` its first
        input, so in a timm transformer `norm2.input` is the stream in the middle of a block and
        `attn.proj.input` the heads' z. Where a module runs more than once in a forward, each call
        is a site (`act#0`, `act#1`, `act#1.input`) and the bare path is refused. Where it returns a
        tuple or a dictionary, the site is the first tensor in it. `hook_embedding` is the
        embedding, as in every tower. A cache without `names_filter` holds the outputs; ask for
        inputs by name or pattern.

        What is computed between modules cannot be reached, such as q, k, v and the pattern of a
        fused attention. `unreachable` lists the modules that are no sites, or not the whole of one,
        and why.

        The tower runs whole: `n_layers` is 0 and every site but the embedding is in layer -1,
        before the chain, so a sweep repeats the whole forward for each of its cells. Axes are
        `batch` where an axis grows with the batch, `batch_x_64` where it grows 64 times as fast
        (windows stacked on the batch), and else `axis_1`, `axis_2`. Whether these are channels or
        positions, no module says. After `name_axes`, features are pooled and sweeps run over
        positions as in any tower.

    >>> tower = TracedTower(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.zeros(1, 4))
    >>> tower.sites
    ('0.input', '0', '1.input', '1', 'hook_embedding')
    >>> embedding, cache = tower.run_with_cache(torch.ones(2, 4), names_filter="0")
    >>> torch.equal(cache["0"].relu(), embedding)
    True
    """

    def __init__(
        self,
        source: nn.Module,
        example: Tensor,
        *,
        label: str = "visual",
        method: str = "__call__",
        foreign: tuple[str, ...] = (),
        longest: int | None = None,
    ) -> None:
        super().__init__(source, foreign=foreign)
        self.label, self.longest = label, longest
        self._example, self._method = example, method
        self._given_axes: dict[str, tuple[str, ...]] = {}

    def over(self, source: nn.Module) -> "TracedTower":
        """The same tower over another copy of its module."""
        tower = TracedTower(
            source,
            self._example,
            label=self.label,
            method=self._method,
            foreign=self.foreign,
            longest=self.longest,
        )
        tower._given_axes = dict(self._given_axes)
        if self._surveyed:  # the same modules run in the same order
            tower._survey = self._survey
        return tower

    def example(self, n: int) -> Tensor:
        """`n` rows of input of the kind the tower takes, on its device and in its format."""
        like = next((p for p in self.parameters() if p.is_floating_point()), torch.empty(0))
        rows = self._example[torch.arange(n) % len(self._example)].to(like.device)
        return rows.to(like.dtype) if rows.is_floating_point() else rows

    def original(self, x: Tensor) -> Tensor:
        """The embedding as the module itself computes it, without nnsight."""
        return self._embedding(getattr(self.source, self._method)(x))

    def _embedding(self, answer: object) -> Tensor:
        tensor = first_tensor(answer)
        if tensor is None:
            given = f"a {type(answer).__name__} for its result"
            right = "a tensor, or a tuple or dictionary that holds one"
            do = "trace the part of it that gives the embedding"
            raise SpecificationError(f"trace a {type(self.source).__name__}", given, right, do)
        return tensor

    # the run

    @cached_property
    def _net(self) -> Net:
        return Net(self.source, method=self._method)

    @property
    def _surveyed(self) -> bool:
        return "_survey" in self.__dict__

    @cached_property
    def _survey(self) -> Survey:
        return survey(self.source, self._net, self.example, foreign=self.foreign)

    def _embed(self, x: Tensor) -> Tensor:
        heard = [
            (traced.place, self._visit(self.hook_dict[site], traced))
            for site, traced in (self._survey.sites if self._surveyed else {}).items()
            if with_hooks(self.hook_dict[site])
        ]
        return self._embedding(self._net.run(x, heard))

    def _visit(self, point: HookPoint, found: TracedSite) -> Callable[[object], object]:
        def visit(value: object) -> object:
            tensor = first_tensor(value)
            if tensor is None:
                given = f"a {type(value).__name__} in this run"
                right = "a tensor, as on the example"
                raise SiteError(f"hook {point.name}", given, right, "hook another site")
            new = point(tensor)
            if found.overwritten:  # what a hook has kept must stay what it was
                new = new.clone()
            return value if new is tensor else with_first_tensor(value, new)

        return visit

    def _read_out(self, stream: Tensor, tokens: Tensor | None) -> Tensor:
        return self.hook_dict[EMBEDDING](stream) if self._surveyed else stream

    def _context(self, stream: Tensor, tokens: Tensor | None) -> tuple[()]:
        return ()

    def _check_input(self, x: Tensor) -> None:
        right = self._example
        if self.label == "visual" and right.ndim == 4:
            check_pictures(x, size=(right.shape[2], right.shape[3]))
        elif self.label == "text" and right.ndim == 2:
            check_tokens(x, length=self.longest or right.shape[1], fewer=self.longest is not None)
        elif not isinstance(x, Tensor) or x.shape[1:] != right.shape[1:]:
            given = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            wanted = f"a batch of {tuple(right.shape[1:])}, as its example"
            do = "pass such a batch, or trace the module with another example"
            raise ShapeError("run a traced tower", given, wanted, do)

    def _check_stream(self, stream: Tensor, layer: int) -> None:
        right = self._survey.embedding[1:]
        if not isinstance(stream, Tensor) or tuple(stream.shape[1:]) != right:
            given = f"shape {tuple(stream.shape)}" if isinstance(stream, Tensor) else "no tensor"
            asked = "resume behind a traced tower"
            wanted = f"its embedding, (batch, {listed(right)})"
            raise ShapeError(asked, given, wanted, "pass what stop_at_layer=0 gave")

    def _span(self, start: int | None, stop: int | None) -> tuple[int, int]:
        if start not in (None, 0) or stop not in (None, 0):
            asked = "run a part of a traced tower"
            given = f"start_at_layer={start!r}, stop_at_layer={stop!r}"
            right = "neither, or 0, which is behind the whole"
            raise SiteError(asked, given, right, "read or patch its sites in whole runs")
        return 0, 0

    # names

    @cached_property
    def hook_dict(self) -> dict[str, HookPoint]:  # type: ignore[override]  # made when asked for
        """A hook point for every site."""
        points: dict[str, HookPoint] = {
            site: ListeningPoint() for site in (*self._survey.sites, EMBEDDING)
        }
        for site, point in points.items():
            point.name = site
        return points

    @cached_property
    def mod_dict(self) -> dict[str, nn.Module]:  # type: ignore[override]  # made when asked for
        """The same as `hook_dict`; TransformerLens looks in both."""
        return dict(self.hook_dict)

    @property
    def traced_sites(self) -> dict[str, TracedSite]:
        """Every site but the embedding, with its place in the tree."""
        return dict(self._survey.sites)

    @property
    def unreachable(self) -> dict[str, str]:
        """The modules that are no sites, or not the whole of one, and why.

        >>> tower = TracedTower(nn.Sequential(nn.LSTM(4, 3)), torch.zeros(1, 5, 4))
        >>> tower.unreachable
        {'0': 'gives a tuple, of which the site is the first tensor'}
        """
        return dict(self._survey.unreachable)

    def axes(self, site: str | Site) -> tuple[str, ...]:
        """The axes of a site's activation, as `name_axes` was told or neutral."""
        name = self._known(site)
        if name in self._given_axes:
            return self._given_axes[name]
        if name != EMBEDDING:
            return self._survey.sites[name].axes
        rest = range(1, len(self._survey.embedding))
        return ("batch", "d_embed") if len(rest) == 1 else ("batch", *(f"axis_{i}" for i in rest))

    def name_axes(self, names: Names, axes: Iterable[str]) -> None:
        """Name the axes of some sites, such as `batch channel row column`.

        Args:
            names: The sites, by name, pattern or filter.
            axes: A name for each axis, with the batch in its place.

        Raises:
            SiteError: For another number of axes, a repeated name, or a batch in another place.

        >>> tower = TracedTower(nn.Sequential(nn.Conv2d(3, 5, 2)), torch.zeros(1, 3, 8, 8))
        >>> tower.name_axes("0", ("batch", "channel", "row", "column"))
        >>> tower.axes("0")
        ('batch', 'channel', 'row', 'column')
        """
        words = tuple(axes)
        for site in self._match(names):
            current = self.axes(site)
            batch = [axis if axis.startswith("batch") else "" for axis in current]
            if len(set(words)) < len(words) or batch != [
                axis if axis.startswith("batch") else "" for axis in words
            ]:
                right = f"a name for each of {listed(current)}, the batch in its place"
                do = "name all of them, each by a word of its own"
                raise SiteError(f"name the axes of {site}", listed(words), right, do)
            self._given_axes[site] = words

    @cached_property
    def block_sites(self) -> tuple[str, ...]:
        """The sites that its repeated modules hand on, in order: the blocks.

        >>> block = lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        >>> net = nn.Sequential(block(), block(), nn.Linear(4, 2))
        >>> TracedTower(net, torch.zeros(1, 4)).block_sites
        ('0', '1')
        """
        paths = set(repeated_modules(self.source))
        return tuple(site for site in self._survey.sites if site in paths)

    @cached_property
    def activation_sites(self) -> tuple[str, ...]:
        """The sites behind activation functions within its blocks."""
        kinds = {name: type(module) for name, module in self.source.named_modules()}
        inside = tuple(f"{block}." for block in self.block_sites)
        return tuple(
            site
            for site, traced in self._survey.sites.items()
            if traced.place.end == "output"
            and site.startswith(inside)
            and kinds[traced.place.path].__module__ == "torch.nn.modules.activation"
            and kinds[traced.place.path] is not nn.MultiheadAttention
        )

    def layer(self, site: str | Site) -> int:
        """The layer of a site: -1, before the chain, or 0 for the embedding behind it."""
        return 0 if self._known(site) == EMBEDDING else -1

    def _match(self, names: Names) -> list[str]:
        if isinstance(names, str) and names not in self.hook_dict and names in self.unreachable:
            kin = [site for site in self.sites if site.startswith((f"{names}#", f"{names}."))]
            given = f"a module that {self.unreachable[names]}"
            do = f"try {listed(kin, limit=3) if kin else nearest(names, self.sites)}"
            raise SiteError(f"hook {names}", given, "a site of the tower", do)
        return super()._match(names)

    def _wanted(self, names_filter: Names | Iterable[Names] | None) -> dict[str, list[HookRequest]]:
        if names_filter is None:  # inputs are mostly outputs over again
            places = {site: traced.place for site, traced in self._survey.sites.items()}
            given = {site for site, place in places.items() if place.end == "input"}
            return {site: [] for site in self.sites if site not in given}
        return super()._wanted(names_filter)

    @property
    def chain(self) -> list[nn.Module]:
        """An empty list: the tower runs whole."""
        return []

    @property
    def cfg(self) -> TransformerBridgeConfig:
        """Not available: TransformerLens has no terms for a module of any kind.

        Raises:
            SpecificationError: Always.
        """
        asked = "describe a traced tower in TransformerLens's terms"
        given = f"a {type(self.source).__name__}"
        right = "a hooked transformer or ResNet"
        raise SpecificationError(asked, given, right, "read its caches as plain dictionaries")

    def __repr__(self) -> str:
        return super().__repr__() if self._surveyed else f"TracedTower({self.extra_repr()})"

    def extra_repr(self) -> str:
        """One line on the tower, which never triggers the survey of its sites."""
        sites = f"{len(self.sites)} sites" if self._surveyed else "sites not yet listed"
        return f"{type(self.source).__name__} traced through nnsight, {sites}"

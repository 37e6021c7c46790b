"""Image encoders without text: timm's, torchvision's or one's own, asked by pictures of classes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor, nn

from interp.core.classifiers import LinearClassifier
from interp.core.errors import CheckpointError, SampleError, SpecificationError, listed, nearest
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.progress import say
from interp.core.seeds import rng
from interp.core.tables import Table
from interp.models.loading.checkpoints import WEIGHTS, check_finite, is_archive, read_weights
from interp.models.loading.load_classifier import load_classifier
from interp.models.loading.load_clip import load_clip
from interp.models.loading.plain_transformers import hooked_form
from interp.models.towers.hooked import HookedTower
from interp.models.towers.open_tower import EXAMPLES, open_tower
from interp.models.towers.transformer import Unhooked

LIBRARIES = ("timm:", "torchvision:")
"""Beginnings of a name that say whose model it is."""

Preprocess = Callable[[Image.Image], Tensor]


@dataclass(frozen=True, eq=False)
class Encoder:
    """An image encoder with hooks, which is asked for classes by a head taught from pictures.

    Args:
        visual: The tower.
        preprocess: From a picture to `channel row column`.
        architecture: Its name.
        head: The classes as it was taught them; None before `teach`.
        traced: Why its tower is traced by module path; empty where it is hooked.

    Notes:
        It has `visual`, `preprocess`, `embed` and `zero_shot` as a `Clip` has, so that every
        measure of pictures takes it; what needs a text tower does not.

    >>> from interp.models import open_tower
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Flatten())
    >>> tower = open_tower(net, example=torch.rand(1, 3, 8, 8))
    >>> def read(image):
    ...     return torch.rand(3, 8, 8)
    >>> Encoder(tower, read, "mine", traced="torch's Sequential")
    Encoder('mine', traced (torch's Sequential), taught no classes)
    """

    visual: HookedTower
    preprocess: Preprocess
    architecture: str
    head: LinearClassifier | None = None
    traced: str = ""

    def __repr__(self) -> str:
        taught = f"{len(self.head.names)} classes" if self.head else "no classes"
        opened = f"traced ({self.traced})" if self.traced else "hooked"
        return f"Encoder({self.architecture!r}, {opened}, taught {taught})"

    def embed(self, images: ImageTable, *, batch_size: int = 256) -> Float[Tensor, "batch d_embed"]:
        """Embed the pictures of a table, without gradients.

        Args:
            images: The pictures.
            batch_size: Pictures embedded at a time.

        Returns:
            Embeddings in table order.
        """
        like = next(self.visual.source.parameters())
        with torch.no_grad():
            parts = [
                self.visual(batch.to(like))
                for batch in images.batches(self.preprocess, batch_size=batch_size)
            ]
        return torch.cat(parts)

    @door
    def teach(self, images: ImageTable, learner: Any = None) -> "Encoder":
        """Learn a linear head from pictures of classes.

        Args:
            images: Pictures of two classes or more, by other artists than those it is asked about.
            learner: A linear classifier of scikit-learn, with `coef_` and `intercept_` once it is
                fitted. None takes the nearest class mean, in units of the spread within classes
                (linear discriminant analysis with a shrunk covariance, Ledoit and Wolf 2004).

        Returns:
            The same encoder, with a head of these classes.

        Raises:
            SampleError: For pictures of fewer than two classes, or one of each.
        """
        return replace(self, head=taught_head(self.embed(images), images.label, learner))

    def zero_shot(
        self, class_names: Sequence[str], templates: Sequence[object] = ()
    ) -> LinearClassifier:
        """The head's rows for some of its classes.

        Args:
            class_names: The classes wanted.
            templates: Ignored, since there is no text.

        Returns:
            A head for these classes.

        Raises:
            SpecificationError: Before it was taught classes.
            DataError: For a class that it was not taught.
        """
        if self.head is None:
            asked = f"ask {self.architecture} for classes"
            given = "an encoder without text, which was taught none"
            right = "pictures of each class to learn them from"
            raise SpecificationError(asked, given, right, "call teach(images) first")
        return self.head.of(class_names)

    def certify(self, **options: int) -> Table:
        """Try the tower site by site; see `interp.models.certify`.

        Args:
            **options: Options of `interp.models.certify`.

        Returns:
            One row per site and check.
        """
        from interp.models.certificate.certify import certify

        facts = {"architecture": self.architecture}
        return Table("certificate", certify(self.visual, **options), facts)


@door
def taught_head(
    vectors: Float[Tensor, "picture d_embed"], labels: Iterable[str], learner: Any = None
) -> LinearClassifier:
    """Fit a linear classifier to embeddings, as the classifier that every function takes.

    Args:
        vectors: Embeddings of pictures.
        labels: The class of each.
        learner: As in `Encoder.teach`.

    Returns:
        The classifier, in the embeddings' format and on their device.

    Raises:
        SampleError: For pictures of fewer than two classes.

    >>> vectors = torch.tensor([[0.0, 1], [0, 1.2], [1, 0], [1.2, 0]])
    >>> taught_head(vectors, ["cat", "cat", "dog", "dog"]).predict(vectors).tolist()
    ['cat', 'cat', 'dog', 'dog']
    """
    names = np.asarray(list(labels), dtype=str)
    if len(set(names)) < 2 or len(names) <= len(set(names)):
        given = f"{len(names)} pictures of {listed(sorted(set(names))) or 'no class'}"
        right = "pictures of two classes or more, several of some class"
        raise SampleError("teach an encoder classes", given, right, "give more pictures")
    chosen = learner
    if chosen is None:  # classes count alike, however many pictures there are of each
        even = np.full(len(set(names)), 1 / len(set(names)))
        chosen = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=even)
    chosen.fit(vectors.detach().double().cpu().numpy(), names)
    weight, bias = np.asarray(chosen.coef_), np.asarray(chosen.intercept_)
    if len(weight) == 1:  # of two classes scikit-learn keeps the second's
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return LinearClassifier(
        torch.from_numpy(weight).to(vectors),
        tuple(map(str, chosen.classes_)),
        bias=torch.from_numpy(bias).to(vectors),
    )


@door
def load_encoder(
    source: str | nn.Module,
    *,
    preprocess: Preprocess | None = None,
    pretrained: bool | str | Path = False,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Encoder:
    """Open an image encoder of timm, of torchvision or of your own, with hooks.

    Args:
        source: `timm:NAME` or `torchvision:NAME`, whose classification layer is taken off; or a
            module from pictures `batch channel row column` to embeddings.
        preprocess: From a picture to the module's input. None takes the library's own for these
            weights; a module of your own needs it.
        pretrained: Whether the library downloads its weights; or a file of weights. False gives
            random ones.
        device: Where the parameters are put.
        dtype: The format that weights are converted to.

    Returns:
        The encoder, in evaluation mode. `teach` gives it classes.

    Raises:
        CheckpointError: For an unknown name, or weights of another model.
        SpecificationError: For a module without `preprocess`, or one that cannot be traced.
        NumericsError: For weights that are not finite.

    Notes:
        DINO, DINOv2, MAE, SigLIP's image towers and supervised models are all timm's names.

        A plain vision transformer (class token, learned positions, layer norms, GELU; LayerScale or
        mean pooling where it has them) is rebuilt as open_clip's, with TransformerLens's sites,
        once outputs and gradients agree with the original's; that takes some seconds and, for a
        moment, the memory of two copies in float64. Its `state_dict` has open_clip's names.

        Another network is traced, and `traced` says why: sites are named by module path, and
        `visual.block_sites` are what its blocks hand on.

    >>> load_encoder("timm:test_vit")
    Encoder('timm:test_vit', hooked, taught no classes)
    >>> encoder = load_encoder("torchvision:resnet18")
    >>> encoder.visual.block_sites[:2], encoder.visual.axes("layer1.0")[1]
    (('layer1.0', 'layer1.1'), 'channel')
    >>> load_encoder("timm:resnet18x")
    Traceback (most recent call last):
    ...
    interp.core.errors.CheckpointError: Cannot open timm:resnet18x: given a name that timm does ...
    """
    name = source if isinstance(source, str) else type(source).__name__
    stored = pretrained if isinstance(pretrained, (str, Path)) else None
    fetched = pretrained is True
    own: Preprocess | None = None
    if isinstance(source, nn.Module):
        module = source
    elif source.startswith("timm:"):
        module, own = _from_timm(source.removeprefix("timm:"), fetched)
    elif source.startswith("torchvision:"):
        module, own = _from_torchvision(source.removeprefix("torchvision:"), fetched)
    else:
        right = "timm:NAME, torchvision:NAME or a module"
        raise CheckpointError("open an encoder", repr(source), right, "open a CLIP with load_clip")
    reader = preprocess or own
    if reader is None:
        given = "a module and no preprocess"
        right = "how a picture becomes its input"
        raise SpecificationError(f"open {name}", given, right, "pass preprocess=...")
    if stored is not None:
        _fill(module, Path(stored), name)
    if isinstance(source, str) and not fetched and stored is None:
        say(f"{name}: no pretrained= is given: weights are random")
    module.eval().to(device=device, dtype=dtype)
    check_finite(module, name)
    tower, why = _opened(module, _example(reader))
    return Encoder(tower, reader, name, traced=why)


def _opened(module: nn.Module, example: Tensor) -> tuple[HookedTower, str]:
    """A hooked tower where the network is a plain transformer, else a traced one and why."""
    try:
        return open_tower(hooked_form(module, example)), ""
    except Unhooked as error:
        return open_tower(module, example=example), error.given


def is_encoder(source: str | Path, architecture: str | None = None) -> bool:
    """Whether a name, or the architecture of a file of weights, is a library's encoder.

    >>> is_encoder("timm:resnet18"), is_encoder("weights.pt", "torchvision:vit_b_16")
    (True, True)
    >>> is_encoder("RN50")
    False
    """
    return any(str(name or "").startswith(LIBRARIES) for name in (source, architecture))


def load_any(
    source: str | Path, *, model: str | None = None, device: str | torch.device = "cpu"
) -> Any:
    """Open what a study or a command names: a CLIP, a supervised baseline or a library's encoder.

    Args:
        source: What `load_clip` or `load_encoder` opens, or a file of weights with `model`. An
            encoder that is named alone has its library's weights.
        model: The architecture of a file.
        device: Where the parameters are put.

    Returns:
        A `Clip`, a `SupervisedModel` or an `Encoder`.
    """
    if is_encoder(source):
        return load_encoder(str(source), pretrained=True, device=device)
    if model and is_encoder(model):
        return load_encoder(model, pretrained=source, device=device)
    path = Path(source)
    if path.is_file() and path.suffix in WEIGHTS and not is_archive(path):
        weights = read_weights(path)
        if "head.weight" in weights and "logit_scale" not in weights:
            return load_classifier(path, model=model, device=device)
    return load_clip(source, model=model, device=device)


def _from_timm(name: str, fetched: bool) -> tuple[nn.Module, Any]:
    import timm
    from timm.data.config import resolve_model_data_config
    from timm.data.transforms_factory import create_transform

    _check_known("timm", name, timm.list_models())
    module = timm.create_model(name, pretrained=fetched, num_classes=0)
    return module, create_transform(**resolve_model_data_config(module), is_training=False)


def _from_torchvision(name: str, fetched: bool) -> tuple[nn.Module, Preprocess]:
    from torchvision import models

    _check_known("torchvision", name, models.list_models(module=models))
    weights = models.get_model_weights(name)["DEFAULT"]
    module = models.get_model(name, weights=weights if fetched else None)
    layers = [path for path, part in module.named_modules() if isinstance(part, nn.Linear)]
    if not layers:
        asked = f"open torchvision:{name}"
        given = "a model without a linear classification layer"
        right = "one whose embedding goes into such a layer"
        raise CheckpointError(asked, given, right, "open the module itself, with preprocess")
    holder, _, leaf = layers[-1].rpartition(".")
    setattr(module.get_submodule(holder), leaf, nn.Identity())
    return module, weights.transforms()


def _check_known(library: str, name: str, known: Sequence[str]) -> None:
    if name.split(".")[0] not in known:
        asked = f"open {library}:{name}"
        given = f"a name that {library} does not know"
        right = f"one of its {len(known)} models"
        raise CheckpointError(asked, given, right, f"did you mean {nearest(name, known)}?")


def _fill(module: nn.Module, path: Path, name: str) -> None:
    try:
        module.load_state_dict(read_weights(path))
    except RuntimeError as error:
        asked = f"load {path} into {name}"
        given = str(error).splitlines()[0]
        right = "weights of this model without its classification layer"
        raise CheckpointError(asked, given, right, "check the model's name") from error


def _example(preprocess: Preprocess) -> Tensor:
    """A few rows of input, of the size that pictures are brought to."""
    shape = preprocess(Image.new("RGB", (256, 256), "grey")).shape
    drawn = rng("traced example", 0).standard_normal((EXAMPLES, *shape))
    return torch.tensor(drawn, dtype=torch.float32)

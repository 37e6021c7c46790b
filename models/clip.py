"""An opened CLIP: the open_clip model with its hooked towers, tokenizer and preprocessing."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from interp.core.classifiers import Classifier
from interp.core.errors import CheckpointError, DataError, SampleError, SpecificationError, listed
from interp.core.faces.doors import door
from interp.core.faces.late import late
from interp.core.images import ImageTable
from interp.core.parallel import which_device
from interp.core.progress import track
from interp.core.tables import Table
from interp.models.loading.presets import unknown_words
from interp.models.towers.hooked import HookedTower
from interp.models.towers.open_tower import open_tower

Sentence = str | Callable[[str], str]
"""A prompt: text with `{}` (or CLASS) where the class name goes, or a function of the name."""


def build_head(
    encode: Callable[[Sequence[str]], Tensor],
    class_names: Sequence[str],
    templates: Sequence[Sentence],
    logit_scale: float,
    *,
    batch_size: int = 512,
) -> Classifier:
    """Average the embeddings of prompts into a zero-shot classifier.

    Args:
        encode: Maps sentences to embeddings, `batch d_embed`.
        class_names: The classes.
        templates: Prompts, each applied to every class name.
        logit_scale: The factor exp(logit_scale) of the model.
        batch_size: Sentences embedded at a time.

    Returns:
        The classifier.

    Raises:
        SampleError: Without a class or a template.

    >>> def encode(sentences):
    ...     return torch.tensor([[1.0, "cat" in sentence] for sentence in sentences])
    >>> build_head(encode, ["cat", "dog"], ["a photo of a {}."], 1.0).weight[1].tolist()
    [1.0, 0.0]
    """
    if not class_names or not templates:
        given = f"{len(class_names)} classes and {len(templates)} templates"
        right = "at least one of each"
        raise SampleError("build a zero-shot head", given, right, "name classes and templates")
    sentences = [write(template, name) for name in class_names for template in templates]
    starts = range(0, len(sentences), batch_size)
    long = len(starts) > 4  # short work draws no bar
    with torch.no_grad():
        parts = [
            F.normalize(encode(sentences[start : start + batch_size]), dim=-1)
            for start in (track(starts, "embed prompts") if long else starts)
        ]
    each = torch.cat(parts).unflatten(0, (len(class_names), len(templates)))
    return Classifier(F.normalize(each.mean(dim=1), dim=-1), tuple(class_names), logit_scale)


def write(template: Sentence, name: str) -> str:
    """Put a class name into a template.

    Args:
        template: Text with `{}` (or CLASS), or a function of the class name.
        name: The class name; underscores become spaces.

    Returns:
        The sentence.

    >>> write("a photo of a {}.", "ice cream")
    'a photo of a ice cream.'
    """
    if not isinstance(template, str):
        return template(name)
    slot = "{}" if "{}" in template else "CLASS"
    return template.replace(slot, name.replace("_", " "))


def _checked_templates(class_names: Sequence[str], templates: Iterable[Sentence]) -> list[Sentence]:
    """Templates as a list; refuses what would be read letter by letter, or name no class."""
    asked = "make a zero-shot classifier"
    for what, given in (("class names", class_names), ("templates", templates)):
        if isinstance(given, str):
            raise SpecificationError(
                asked, f"the text {given!r} for {what}", f"a list of {what}", f"pass [{given!r}]"
            )
    found = list(templates)
    for template in found:
        if isinstance(template, str) and "{}" not in template and "CLASS" not in template:
            right = "a text with {} (or CLASS) where the class name goes"
            do = f"say {template + ' {}'!r}, or wherever the name belongs"
            raise SpecificationError(asked, f"the template {template!r}", right, do)
    return found


class Clip:
    """An open_clip model with hooked towers that share its parameters, as `load_clip` returns it.

    Args:
        model: The open_clip model.
        architecture: Its name in open_clip.
        tokenizer: Makes a tokenizer for a context length; None takes open_clip's for the name.
        weights: Where the weights are from, in words, for the repr.

    Notes:
        `clip.visual(pixels)` and `clip.text(tokens)` are open_clip's `encode_image` and
        `encode_text`, not normalised. Towers and tokenizer are made at first use.

    >>> import open_clip
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64)
    >>> Clip(model, "ViT-S-32-alt")
    Clip('ViT-S-32-alt', cpu, torch.float32)
    """

    def __init__(
        self,
        model: nn.Module,
        architecture: str,
        tokenizer: Callable[[int], Callable[..., Tensor]] | None = None,
        weights: str = "",
    ) -> None:
        """Keep the model; towers and tokenizer are made at first use."""
        self.model = model
        self.architecture = architecture
        self.weights = weights
        self._tokenizer = tokenizer

    def __repr__(self) -> str:
        parts = [repr(self.architecture), self.weights, str(self.device), str(self.dtype)]
        return f"Clip({', '.join(part for part in parts if part)})"

    @cached_property
    def visual(self) -> HookedTower:
        """The image tower."""
        return open_tower(self.model, "visual")

    @cached_property
    def text(self) -> HookedTower:
        """The text tower."""
        return open_tower(self.model, "text")

    @cached_property
    def tokenizer(self) -> Callable[..., Tensor]:
        """The model's own tokenizer, made at first use."""
        import open_clip

        length: Any = getattr(self.model, "text", self.model).context_length
        try:
            if self._tokenizer is not None:
                return self._tokenizer(length)
            return open_clip.get_tokenizer(self.architecture, context_length=length)
        except Exception as error:  # hubs and tokenizers raise classes of their own
            asked = f"open the tokenizer of {self.architecture}"
            given = f"what open_clip refuses ({str(error).splitlines()[0]})"
            right = "a tokenizer beside the model, or a network to fetch it"
            raise CheckpointError(asked, given, right, "image towers need none") from None

    @cached_property
    def preprocess(self) -> Callable[[Image.Image], Tensor]:
        """The transform of a picture to `channel row column` that training used for evaluation."""
        from open_clip.transform import PreprocessCfg, image_transform_v2

        config = getattr(self.model.visual, "preprocess_cfg", {})
        return image_transform_v2(PreprocessCfg(**config), is_train=False)  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' format."""
        return next(self.model.parameters()).dtype

    @property
    def logit_scale(self) -> float:
        """The factor of the logits, exp of the trained log scale."""
        return float(self.model.logit_scale.detach().exp())  # type: ignore[operator]

    @door
    def encode_image(self, pixels: Tensor) -> Tensor:
        """Embed preprocessed pictures, as open_clip's `encode_image` and `clip.visual` do.

        Args:
            pixels: `batch channel row column`.

        Returns:
            Embeddings `batch d_embed`, not normalised.
        """
        return self.model.encode_image(pixels.to(self.device, self.dtype))  # type: ignore[operator]

    def to(self, *args: Any, **kwargs: Any) -> "Clip":
        """Move the model, whose parameters the towers share, to a device or format; in place.

        Args:
            *args: As of `torch.nn.Module.to`.
            **kwargs: As of `torch.nn.Module.to`.

        Returns:
            This `Clip`.

        Raises:
            SpecificationError: For a device that is not there.
        """
        for given in (*args, *kwargs.values()):
            if isinstance(given, (str, torch.device)):
                which_device(str(given))
        self.model.to(*args, **kwargs)
        return self

    def eval(self) -> "Clip":
        """Set the model to evaluation, as `load_clip` leaves it."""
        self.model.eval()
        return self

    def train(self, mode: bool = True) -> "Clip":
        """Set the model to training, or not."""
        self.model.train(mode)
        return self

    def encode_text(self, sentences: Sequence[str] | Tensor) -> Tensor:
        """Embed sentences.

        Args:
            sentences: Texts of any number, or their tokens as open_clip's `encode_text` takes them.

        Returns:
            Embeddings `batch d_embed`, not normalised.

        Raises:
            SpecificationError: For a bare text, which a tokenizer would read letter by letter.
        """
        if isinstance(sentences, str) or not isinstance(sentences, (Tensor, Iterable)):
            right = "a list of texts, or their tokens"
            do = f"pass [{sentences!r}]" if isinstance(sentences, str) else "put them into a list"
            raise SpecificationError("embed sentences", f"{sentences!r}", right, do)
        if not isinstance(sentences, Tensor):
            sentences = self.tokenizer(list(sentences))
        tokens = sentences.to(self.device)
        return self.model.encode_text(tokens)  # type: ignore[operator]

    @door
    def embed(self, images: ImageTable, *, batch_size: int = 256) -> Tensor:
        """Embed the pictures of a table, without gradients.

        Args:
            images: The pictures.
            batch_size: Pictures embedded at a time.

        Returns:
            Embeddings `batch d_embed` in table order, not normalised.
        """
        with torch.no_grad():
            parts = [
                self.model.encode_image(batch.to(self.device, self.dtype))  # type: ignore[operator]
                for batch in images.batches(self.preprocess, batch_size=batch_size)
            ]
        return torch.cat(parts)

    def zero_shot(
        self, class_names: Sequence[str], templates: Iterable[Sentence] = ("a photo of a {}.",)
    ) -> Classifier:
        """Make a text classifier of classes; `head(clip.visual(x))` are logits.

        Args:
            class_names: The classes.
            templates: Texts with `{}` (or CLASS), or functions of the class name.

        Returns:
            The classifier.

        Raises:
            SpecificationError: For a bare text in place of a list, or a template without a place
                for the class name.
            DataError: For class names that the tokenizer does not know.

        Notes:
            A tokenizer of whole words, as a study's small models have, reads every word that it
            does not know as the same token. Such words in templates are named in a warning.
        """
        sentences = _checked_templates(class_names, templates)
        names = [name.replace("_", " ") for name in class_names]
        if strange := unknown_words(self.tokenizer, names):
            asked = "make a zero-shot classifier"
            given = f"the words {listed(strange)}, which the tokenizer of this model does not know"
            right = "class names of words that it was trained with"
            raise DataError(asked, given, right, "rename the classes, or leave these out")
        written = [write(template, name) for template in sentences for name in names[:1]]
        if strange := unknown_words(self.tokenizer, written):
            warnings.warn(
                f"the tokenizer of this model does not know {listed(strange)}: the templates are "
                "embedded without these words",
                stacklevel=2,
            )
        return build_head(self.encode_text, class_names, sentences, self.logit_scale)

    def explain(self, pictures: object, sentences: object, **options: object) -> Any:
        """Find which patches and which words make a logit; see `interp.models.explain`.

        Args:
            pictures: A table, pictures, or preprocessed pictures.
            sentences: Texts, or a classifier.
            **options: Options of `interp.models.explain`.

        Returns:
            `Heatmaps`, a map for each picture and sentence.
        """
        return late("explain")(self, pictures, sentences, **options)

    def certify(self, **options: int) -> Table:
        """Compare both towers with open_clip, site by site; see `interp.models.certify`.

        Args:
            **options: Options of `interp.models.certify`.

        Returns:
            One row per site and check.
        """
        from interp.models.certificate.certify import certify

        return Table(
            "certificate", certify(self.model, **options), {"architecture": self.architecture}
        )

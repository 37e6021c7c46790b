"""Figures of heatmaps: what patches and words add to the logit of a picture and a sentence."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from interp.core.errors import SpecificationError
from interp.declared.figures import BLUE, ORANGE
from interp.declared.writing import plain
from interp.models.attribution.explain import BY_PIXELS, EXACT, SUMS, Heatmaps
from interp.report.grammar.pieces import note

if TYPE_CHECKING:
    import plotly.graph_objects as go

SIDE, WORDS, HEAD = 190, 300, 100
"""Pixels of a picture's side, across the words of a sentence, and above each row."""

LETTERS = 60
"""So many letters of a sentence are written out."""

SCALE = [[0, BLUE], [0.5, "rgba(255,255,255,0)"], [1, ORANGE]]
"""What takes from the logit, nothing, what adds to it."""

NAMES = {"straight": "straightened tower", "direct": "read directly"}
"""What two methods are called; the others are called by their names."""

REST = ("a plain picture", "class token and biases")
"""What is not of the patches: by integrated gradients, and in exact sums."""


def draw_heatmaps(maps: Heatmaps, picture: int, title: str) -> "go.Figure":
    """Draw the maps of all sentences over a picture, a row a sentence, with its words beside it.

    Args:
        maps: The maps.
        picture: The picture's place.
        title: The figure's title; empty says what is drawn.

    Returns:
        A plotly figure.
    """
    from plotly.subplots import make_subplots

    _check(maps, "picture", picture, len(maps.logits))
    n, words = len(maps.question.names), bool(maps.by_word)
    widths = [SIDE, SIDE, WORDS] if words else [SIDE, SIDE]
    high = n * (SIDE + HEAD)
    figure = make_subplots(
        rows=n,
        cols=len(widths),
        column_widths=widths,
        horizontal_spacing=0.09,
        vertical_spacing=HEAD / high if n > 1 else 0,
    )
    patches = maps.patches[picture].float().cpu().numpy()
    shade = np.asarray(_square(maps.question.drawn(picture), patches.shape[1:]))
    ends = {"coloraxis": "coloraxis"}
    for row in range(n):
        if row == 0:
            _under(figure, shade, 1, 1)
            _head(figure, "the picture", 1, 1)
        _head(figure, _sums(maps, picture, row), row + 1, 2)
        _under(figure, _grey(shade), row + 1, 2)
        _over(figure, patches[row], shade.shape, row + 1, 2, **ends)
        if words:
            _bars(figure, maps, picture, row)
    top = float(np.abs(patches).max()) or 1.0
    unit = "logit" if maps.method != "gradient x attention" else "relevance"
    caption, heading = _caption(maps), plain(title) or "What makes the logit"
    figure.update_layout(
        title={"text": f"{heading}<br><sup>{caption}</sup>",
               "x": 0.01, "y": 1, "yanchor": "top", "pad_t": 16, "font_size": 16},
        coloraxis={"colorscale": SCALE, "cmin": -top, "cmax": top, "cmid": 0,
                   "colorbar": {"title": f"{unit}<br>a patch", "thickness": 12, "len": 160,
                                "lenmode": "pixels", "y": 1, "yanchor": "top"}},
        width=sum(widths) + 230, height=high + 70, template="plotly_white", showlegend=False,
        margin={"l": 16, "r": 16, "t": 100, "b": 60}, meta={"caption": caption},
    )  # fmt: skip
    return figure


def draw_pairs(maps: Heatmaps, picture: int, sentence: int, title: str) -> "go.Figure":
    """Draw what each word of a sentence finds in a picture, a map a word.

    Args:
        maps: Maps that were made with `pairs`.
        picture: The picture's place.
        sentence: The sentence's place.
        title: The figure's title; empty says what is drawn.

    Returns:
        A plotly figure.
    """
    from plotly.subplots import make_subplots

    _check(maps, "picture", picture, len(maps.logits))
    _check(maps, "sentence", sentence, len(maps.question.names))
    if not maps.pairs:
        right = "explain(..., pairs=True)"
        do = "make them again with pairs"
        raise SpecificationError("draw pairs of words and patches", "maps without pairs", right, do)
    pairs = maps.pairs[sentence][picture].float().cpu().numpy()
    words, across = maps.words[sentence], min(len(pairs), 5)
    down = -(-len(pairs) // across)
    titles = [f"{plain(word)}: {map_.sum():+.2f}" for word, map_ in zip(words, pairs, strict=True)]
    gap = 34
    figure = make_subplots(
        rows=down,
        cols=across,
        subplot_titles=titles,
        horizontal_spacing=0.02,
        vertical_spacing=gap / (down * (SIDE + gap)) if down > 1 else 0,
    )
    shade = np.asarray(_square(maps.question.drawn(picture), pairs.shape[1:]))
    for number, each in enumerate(pairs):
        place = number // across + 1, number % across + 1
        _under(figure, _grey(shade), *place)
        _over(figure, each, shade.shape, *place, coloraxis="coloraxis")
    top = float(np.abs(pairs).max()) or 1.0
    logit = float(maps.logits[picture, sentence])
    caption = (
        f"“{_shortened(maps.question.names[sentence])}”: logit {logit:.2f}, of which "
        f"{pairs.sum():.2f} by words through patches; one picture, no interval"
    )
    heading = plain(title) or "What each word finds in the picture"
    figure.update_annotations(font_size=13)
    figure.update_layout(
        title={"text": f"{heading}<br><sup>{caption}</sup>",
               "x": 0.01, "y": 1, "yanchor": "top", "pad_t": 16, "font_size": 16},
        coloraxis={"colorscale": SCALE, "cmin": -top, "cmax": top,
                   "colorbar": {"title": "logit", "thickness": 12}},
        width=across * SIDE + 150, height=down * (SIDE + gap) + 80, template="plotly_white",
        margin={"l": 16, "r": 16, "t": 84, "b": 16}, meta={"caption": caption},
    )  # fmt: skip
    return figure


def _head(figure: "go.Figure", text: str, row: int, column: int) -> None:
    """Words above a picture, from its left."""
    axes = figure.get_subplot(row, column)
    left, top = axes.xaxis.domain[0], axes.yaxis.domain[1]
    figure.add_annotation(note(text, left, top, align="left"))


def _sums(maps: Heatmaps, picture: int, row: int) -> str:
    """A sentence, and what its logit is the sum of."""
    logit = float(maps.logits[picture, row])
    said = f"<b>{_shortened(maps.question.names[row])}</b><br>logit {logit:.2f}"
    if maps.method in SUMS:
        rest = float(maps.rest[picture, row])
        said += f" =<br>patches {logit - rest:+.2f}, {REST[maps.method in EXACT]} {rest:+.2f}"
    return said


def _shortened(sentence: str) -> str:
    return plain(sentence, LETTERS)


def _square(picture: Image.Image, grid: tuple[int, ...]) -> Image.Image:
    """The part of a picture that the model sees, enlarged, in the proportion of its grid."""
    from interp.models.attribution.overlays import enlarged

    return enlarged(picture, shape=(grid[0], grid[1]))


def _grey(shade: np.ndarray) -> np.ndarray:
    """The picture in light grey, on which both colours of a map can be seen."""
    grey = shade.mean(axis=2, keepdims=True).repeat(3, axis=2)
    return (110 + grey * 145 / 255).astype(np.uint8)


def _under(figure: "go.Figure", shade: np.ndarray, row: int, column: int) -> None:
    """A picture, and axes that fit it."""
    height, width = shade.shape[:2]
    figure.add_image(z=shade, row=row, col=column, hoverinfo="skip")
    figure.update_xaxes(visible=False, range=(0, width), row=row, col=column)
    figure.update_yaxes(visible=False, range=(height, 0), row=row, col=column)


def _over(
    figure: "go.Figure",
    values: np.ndarray,
    shape: tuple[int, ...],
    row: int,
    column: int,
    **words: object,
) -> None:
    """A map over a picture, patch by patch."""
    rows, columns = values.shape
    height, width = shape[:2]
    x, y = (np.arange(columns) + 0.5) * width / columns, (np.arange(rows) + 0.5) * height / rows
    said = "%{z:+.3g}<extra></extra>"
    figure.add_heatmap(z=values, x=x, y=y, row=row, col=column, hovertemplate=said, **words)


def _bars(figure: "go.Figure", maps: Heatmaps, picture: int, row: int) -> None:
    """What the words add, as bars."""
    values = maps.by_word[row][picture].float().cpu().numpy()
    places = np.arange(len(values))
    words, place = maps.words[row], {"row": row + 1, "col": 3}
    look = {"marker_color": np.where(values < 0, BLUE, ORANGE), "customdata": words}
    said = "%{customdata}: %{y:+.3g}<extra></extra>"
    figure.add_bar(x=places, y=values, hovertemplate=said, **look, **place)
    names = [plain(word, 16) for word in words]
    figure.update_xaxes(tickvals=places, ticktext=names, tickangle=-40, **place)
    unit = "relevance" if maps.method == "gradient x attention" else "logit"
    figure.update_yaxes(title=f"{unit} a word", zeroline=True, **place)


def _caption(maps: Heatmaps) -> str:
    rows, columns = maps.patches.shape[2:]
    words = "; words by the straightened tower" if maps.by_word and maps.method in BY_PIXELS else ""
    return (
        f"{NAMES.get(maps.method, maps.method)}, {rows} x {columns} patches{words}; orange "
        "adds, blue takes; one picture, no interval"
    )


def _check(maps: Heatmaps, word: str, given: int, n: int) -> None:
    if not isinstance(given, int) or not 0 <= given < n:
        raise SpecificationError(
            "draw heatmaps", f"{word} {given!r}", f"{word} 0 to {n - 1}", "count from 0"
        )

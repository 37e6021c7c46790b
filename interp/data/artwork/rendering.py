"""Rendering of a drawing in six domains: photo, clipart, infographic, painting, doodle and sketch.

There are two independent random streams. The warp (the pose) depends on `warp_seed` alone and is
the same in all domains. The style (colours, light, strokes, ground, noise) depends on the domain
and `style_seed`. So a pair of pictures can share drawing and pose and differ only in the domain.
Every factor that was drawn is returned.
"""

import colorsys
from collections.abc import Callable

import numpy as np

from interp.core.errors import ShapeError, check_known
from interp.core.seeds import rng
from interp.data.artwork.scene import Factors, Scene, distance_fields, draw_warp, frame_axes


def render(
    ink: np.ndarray,
    domain: str,
    *,
    warp_seed: int,
    style_seed: int,
    size: int = 48,
    hue: float | None = None,
) -> tuple[np.ndarray, Factors]:
    """Render a drawing's ink as a picture of a domain.

    Args:
        ink: `[n, n]` in 0..1.
        domain: One of `DOMAINS`.
        warp_seed: Seed of the pose.
        style_seed: Seed of the style.
        size: Side of the picture in pixels.
        hue: The main colour in real, painting and clipart, 0 to 1 (a shortcut that a model may
            learn); None draws it from the style.

    Returns:
        uint8 `[size, size, 3]`, and its factors: angles in degrees counterclockwise from the right,
        hues in 0..1, shifts and the elastic amplitude in shares of the frame.

    Raises:
        DataError: For an unknown domain.
        ShapeError: For ink that is not square.

    >>> from interp.data.artwork.packages import ink
    >>> from interp.data.artwork.packages import drawings
    >>> a, factors = render(ink(drawings()[0]), "real", warp_seed=1, style_seed=2)
    >>> b, others = render(ink(drawings()[0]), "sketch", warp_seed=1, style_seed=3)
    >>> a.shape, factors["rotation"] == others["rotation"]
    ((48, 48, 3), True)
    """
    check_known("render a drawing", "domain", [domain], DOMAINS)
    if ink.ndim != 2 or ink.shape[0] != ink.shape[1]:
        given = f"ink of shape {ink.shape}"
        raise ShapeError("render a drawing", given, "[n, n] in 0..1", "give a square drawing")
    fields, solid = distance_fields(np.uint8(255 * ink + 0.5).tobytes(), ink.shape[0])
    warp, bend = draw_warp(warp_seed)
    scene = Scene(fields, solid, warp, bend, rng(f"render/{domain}", style_seed), size, hue)
    image = _PAINTERS[domain](scene)
    return np.clip(np.multiply(image, 255) + 0.5, 0, 255).astype(np.uint8), warp | scene.factors


# --- small brushes ---------------------------------------------------------------------------


def _cover(distance: np.ndarray, soft: float = 1.0) -> np.ndarray:
    """Turn a signed distance in pixels into coverage 0..1, with an edge `soft` pixels wide."""
    return np.clip(0.5 - distance / soft, 0, 1)


def _lay(image: np.ndarray, colour: np.ndarray | float, alpha: np.ndarray) -> None:
    """Blend a colour (or an image) into `image` in place."""
    image += alpha[..., None] * (colour - image)


def _hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value), np.float32)


def _shade(height: np.ndarray, light: float, raised: float) -> tuple[np.ndarray, np.ndarray]:
    """Light a relief from `light` degrees: diffuse 0..1 and specular 0..1."""
    dy, dx = np.zeros_like(height), np.zeros_like(height)
    dy[1:-1] = (height[2:] - height[:-2]) / 2
    dx[:, 1:-1] = (height[:, 2:] - height[:, :-2]) / 2
    norm = 1.0 / np.sqrt(1.0 + dy * dy + dx * dx)
    east, south = np.cos(np.deg2rad(light)), -np.sin(np.deg2rad(light))
    flat = np.sqrt(1 - raised**2)
    facing = norm * (raised - flat * (east * dx + south * dy))
    half = np.array([flat * east, flat * south, 1 + raised]) / np.sqrt(2 + 2 * raised)
    mirror = np.clip(norm * (half[2] - half[0] * dx - half[1] * dy), 0, 1)
    for _ in range(4):  # to the 16th power, many times faster than `** 16`
        mirror = mirror * mirror
    return np.clip(facing, 0, 1), mirror


def _shifted(image: np.ndarray, dy: int, dx: int, fill: float) -> np.ndarray:
    (h, w), (y, x) = image.shape, (abs(dy), abs(dx))
    wide = np.full((h + 2 * y, w + 2 * x), fill, image.dtype)
    wide[y : y + h, x : x + w] = image
    return wide[y - dy : y - dy + h, x - dx : x - dx + w]


def _detail(scene: Scene, look: np.ndarray) -> np.ndarray:
    """The marks inside the silhouette: the ink of an outline, the holes of a filled drawing."""
    ink = _cover(look[..., 0])
    return (1 - ink if scene.solid else ink) * _cover(look[..., 1])


# --- the six domains -------------------------------------------------------------------------


def _landscape(scene: Scene, horizon: float) -> np.ndarray:
    """Paint sky over ground with a soft hilly horizon: `[size, size, 3]`."""
    r, (y, _) = scene.r, frame_axes(scene.size)
    sky = _hsv(0.5 + 0.2 * r.random(), r.uniform(0.08, 0.4), r.uniform(0.6, 0.95))
    haze = sky + (1 - sky) * r.uniform(0.1, 0.6)
    ground = _hsv(r.uniform(0.03, 0.42), r.uniform(0.15, 0.5), r.uniform(0.25, 0.6))
    rough = scene.smooth(5)
    below = np.clip((y - horizon + 0.05 * rough[:1]) * scene.size / 3 + 0.5, 0, 1)
    depth = np.clip((y + 0.5)[..., None], 0, 1)
    image = sky + (haze - sky) * depth + np.zeros((scene.size, scene.size, 1), np.float32)
    _lay(image, ground * (0.75 + 0.5 * depth), below)
    grain = scene.smooth(14)
    return image * (1 + 0.07 * rough + (0.02 + 0.10 * below) * grain)[..., None]


def _real(scene: Scene) -> np.ndarray:
    r, size = scene.r, scene.size
    hue = scene.main_hue()
    saturation = scene.note("saturation", r.uniform(0.35, 0.85))
    value = scene.note("value", r.uniform(0.5, 0.95))
    light = scene.note("light", r.uniform(20, 160))
    image = _landscape(scene, scene.note("horizon", r.uniform(-0.2, 0.3)))
    look = scene.look()
    shape, detail = _cover(look[..., 1]), _detail(scene, look)
    reach = scene.note("shadow", r.uniform(0.05, 0.11)) * size
    drop = round(reach * np.sin(np.deg2rad(light))), round(-reach * np.cos(np.deg2rad(light)))
    _lay(image, image * 0.35, _cover(_shifted(look[..., 1], *drop, fill=float(size)), size / 9))
    texture = scene.smooth(6) + 0.8 * scene.smooth(20)
    body, mark = _hsv(hue, saturation, value), _hsv(hue + 0.04, saturation, value * 0.35)
    if value < 0.68:
        mark = _hsv(hue + 0.06, saturation * 0.3, 0.95)
    surface = body + detail[..., None] * (mark - body)
    surface = surface * (1 + scene.note("texture", r.uniform(0.03, 0.12)) * texture)[..., None]
    bumps = scene.note("bumps", r.uniform(0.0, 0.22)) * size / 48
    height = look[..., 3] * 1.1 + bumps * texture - 0.5 * (size / 48) * detail
    diffuse, mirror = _shade(height, light, 0.6)
    gloss = scene.note("gloss", r.uniform(0.1, 0.7))
    lit = surface * (0.35 + 0.95 * diffuse)[..., None] + (gloss * mirror)[..., None]
    _lay(image, lit, shape)
    y, x = frame_axes(size)
    image *= (1.05 - 0.5 * (y * y + x * x))[..., None]
    noise = scene.note("noise", r.uniform(0.01, 0.035))
    return image + noise * r.standard_normal(image.shape, dtype=np.float32)


def _clipart(scene: Scene) -> np.ndarray:
    r, size = scene.r, scene.size
    hue = scene.main_hue()
    ground = _hsv(scene.note("ground", r.random()), r.uniform(0.0, 0.22), r.uniform(0.93, 1.0))
    width = scene.note("outline", float(r.choice([0.0, 0.0, 1.2, 2.0, 2.8]))) * size / 48
    body = _hsv(hue, r.uniform(0.75, 1.0), r.uniform(0.8, 1.0))
    edge = _hsv(hue, 0.7, 0.2) if r.random() < 0.4 else _hsv(0.0, 0.0, 0.05)
    pale = scene.note("pale_marks", float(r.random() < 0.5))
    mark = _hsv(hue, 0.08, 1.0) if pale else _hsv(hue + r.uniform(0.35, 0.65), 0.85, 0.55)
    look = scene.look()
    image = np.tile(ground, (size, size, 1))
    if r.random() < 0.3:
        _lay(image, 1.0 - 0.12 * (1 - ground), _cover(look[..., 1] - 3.2 * size / 48))
    if width:
        _lay(image, edge, _cover(look[..., 1] - width))
    _lay(image, body, _cover(look[..., 1]))
    if r.random() < 0.5:
        side = _shifted(look[..., 1], -size // 12, -size // 12, fill=float(size))
        _lay(image, body * 0.72, _cover(look[..., 1]) * (1 - _cover(side)))
    _lay(image, mark if scene.solid or not width else edge, _detail(scene, look))
    return image


def _painting(scene: Scene) -> np.ndarray:
    r, size = scene.r, scene.size
    hue = scene.main_hue()
    light = scene.note("light", r.uniform(0, 360))
    tone = scene.note("ground", r.random())
    dark = scene.note("dark_ground", float(r.random() < 0.5))
    low, high = (0.2, 0.42) if dark else (0.65, 0.85)
    first, second = (
        _hsv(tone + 0.12 * i, r.uniform(0.2, 0.45), r.uniform(low, high)) for i in (0, 1)
    )
    image = first + (second - first) * np.clip(0.5 + 0.5 * scene.smooth(4), 0, 1)[..., None]
    pull, dabs = _dabs(scene, scene.note("stroke", r.uniform(0, 180)))
    look = scene.look(wobble=pull)
    body = _hsv(hue, r.uniform(0.45, 0.7), r.uniform(0.65, 0.82) if dark else r.uniform(0.4, 0.6))
    mark = body * 0.35 if dark else 0.45 * body + 0.5
    diffuse, _ = _shade(look[..., 3] * 0.8, light, 0.65)
    thing = body + _detail(scene, look)[..., None] * (mark - body)
    thing = thing * (0.5 + 0.8 * diffuse)[..., None]
    _lay(image, thing, _cover(look[..., 1]))
    image *= (1 + scene.note("dab_contrast", r.uniform(0.06, 0.12)) * dabs)[..., None]
    levels = scene.note("levels", float(r.integers(7, 12)))
    image = 0.5 * image + 0.5 * np.round(image * levels) / levels
    thread = (np.arange(size) % 3 == 0) - np.float32(1 / 3)
    grain = r.standard_normal((size, size), dtype=np.float32)
    return image * (1 + 0.03 * (thread[:, None] + thread) + 0.02 * grain)[..., None]


def _dabs(scene: Scene, angle: float) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Tile the frame with short curved brush strokes: the pull (y, x) of each, and its tone.

    Within a stroke the picture is drawn towards the stroke's middle, which breaks up outlines as a
    brush does.
    """
    (y, x), bow = frame_axes(scene.size), 0.05 * scene.smooth(3)
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    along, across = cos * x + sin * y + bow, cos * y - sin * x + bow
    row = np.round(across * 22)
    odd = 0.5 * (row % 2)
    column = np.round(along * 9 + odd)
    back, up = (column - odd) / 9 - along, row / 22 - across
    tones = scene.r.standard_normal(97, dtype=np.float32)
    tone = tones[(row * 31 + column * 17).astype(np.intp) % 97]
    ridge = 22 * np.abs(up) * 1.4  # paint piles up in the middle of a stroke
    pull = 0.5 * (sin * back + cos * up), 0.5 * (cos * back - sin * up)
    return pull, tone + 0.35 - ridge


def _quickdraw(scene: Scene) -> np.ndarray:
    r, size = scene.r, scene.size
    width = scene.note("stroke", r.uniform(1.0, 1.9)) * size / 48
    shake = scene.note("wobble", r.uniform(0.006, 0.014))
    look = scene.look(wobble=(shake * scene.smooth(9), shake * scene.smooth(9)))
    line = _cover(np.abs(look[..., 2]) - width / 2)
    lost = scene.note("lost", r.uniform(0.0, 0.12))
    holes = scene.smooth(7)
    keep = np.clip((np.quantile(holes, 1 - lost) - holes) * 6 + 0.5, 0, 1)
    return np.repeat((1 - line * keep)[..., None], 3, axis=-1)


def _sketch(scene: Scene) -> np.ndarray:
    r, size = scene.r, scene.size
    light = scene.note("light", r.uniform(0, 360))
    angle = np.deg2rad(scene.note("hatching", r.uniform(20, 70)))
    pressure = scene.note("pressure", r.uniform(0.55, 0.85))
    looks = [
        scene.look(wobble=(0.007 * scene.smooth(6), 0.007 * scene.smooth(6))) for _ in range(2)
    ]
    width = r.uniform(0.7, 1.1) * size / 48
    lines = [_cover(np.abs(look[..., 2]) - width / 2, 1.3) for look in looks]
    grain = r.standard_normal((size, size), dtype=np.float32)
    dark = np.maximum(lines[0], 0.7 * lines[1]) * (0.9 + 0.25 * scene.smooth(5))
    look = looks[0]
    diffuse, _ = _shade(look[..., 3], light, 0.55)
    shadow = np.clip(1.1 - 1.3 * diffuse, 0, 1)
    shadow = shadow + (0.3 if scene.solid else 0.0) * _cover(look[..., 0])
    y, x = frame_axes(size)
    pitch = scene.note("pitch", r.uniform(2.6, 3.6))
    across = (np.cos(angle) * x + np.sin(angle) * y) * size + 0.5 * scene.smooth(4)
    hatch = np.clip(0.2 + np.sin(2 * np.pi / pitch * across), 0, 1)
    dark = np.maximum(dark, hatch * shadow * _cover(look[..., 1] + 0.5) * 0.8)
    sepia = scene.note("sepia", r.uniform(0, 0.12))
    white = scene.note("paper", r.uniform(0.84, 0.97))
    paper = _hsv(0.1, sepia, white) * (1 + 0.025 * grain + 0.02 * scene.smooth(8))[..., None]
    graphite = np.clip(pressure * dark * (1 + 0.25 * grain), 0, 0.92)
    return paper * (1 - graphite[..., None])


def _infograph(scene: Scene) -> np.ndarray:
    r, size = scene.r, scene.size
    accent = scene.note("accent", r.random())
    night = scene.note("dark_page", float(r.random() < 0.25))
    page = _hsv(accent, 0.5, 0.25) if night else _hsv(r.random(), r.uniform(0, 0.12), 0.97)
    text = 0.8 if night else 0.55
    inks = [_hsv(accent + shift, 0.7, 0.85) for shift in (0.0, 0.12, 0.45)]
    image = np.tile(page, (size, size, 1))
    left = scene.note("icon_left", float(r.random() < 0.5))
    zoom = scene.note("icon_scale", r.uniform(0.58, 0.72))
    icon_y = scene.note("icon_y", r.uniform(-0.1, 0.1))
    icon_x = scene.note("icon_x", r.uniform(0.1, 0.17) * (1 - 2 * left))
    _furnish(scene, image, inks, text, bool(left))
    look = scene.look(zoom=zoom, at=(icon_y, icon_x))
    y, x = frame_axes(size)
    style = r.random()
    if style < 0.35:
        disc = np.sqrt((y - icon_y) ** 2 + (x - icon_x) ** 2) * size - 0.56 * zoom * size
        _lay(image, inks[0], _cover(disc))
        body, mark = np.ones(3, np.float32), inks[0] * 0.75
    else:
        _lay(image, page, _cover(look[..., 1] - 1.5 * size / 48))
        body, mark = inks[0] * (1.0 if night else 0.75), page
    _lay(image, body, _cover(look[..., 0 if style < 0.75 else 1]))
    if style >= 0.75:
        _lay(image, mark, _detail(scene, look))
    return image


def _furnish(
    scene: Scene, image: np.ndarray, inks: list[np.ndarray], text: float, left: bool
) -> None:
    """Fill a page beside its icon: a title band, lines of text, and bars or a pie."""
    r, size = scene.r, scene.size
    unit = size / 48
    near, far = (round(34 * unit), size - 1) if left else (1, round(14 * unit))
    if r.random() < 0.6:
        image[: round(r.integers(4, 7) * unit)] = inks[1]
    rows = range(round(9 * unit), round(28 * unit), max(2, round(3 * unit)))
    for top, length in zip(rows, r.uniform(0.4, 1, len(rows)), strict=True):
        image[top : top + max(1, round(unit)), near : near + round((far - near) * length)] = text
    if r.random() < 0.5:
        step = max(2, round(4 * unit))
        for i, bar in enumerate(r.uniform(3, 12, 3) * unit):
            start = near + i * step
            image[size - 1 - round(bar) : size - 1, start : start + step - 1] = inks[i]
        return
    y, x = frame_axes(size)
    y, x = y - (0.5 - 9 * unit / size), x - ((near + far) / 2 / size - 0.5)
    disc = _cover(np.sqrt(y * y + x * x) * size - 6.5 * unit)
    _lay(image, inks[2], disc)
    _lay(image, inks[1], disc * (np.arctan2(y, x) < r.uniform(-2, 2)))


_PAINTERS: dict[str, Callable[[Scene], np.ndarray]] = {
    "real": _real,
    "clipart": _clipart,
    "infograph": _infograph,
    "painting": _painting,
    "quickdraw": _quickdraw,
    "sketch": _sketch,
}
DOMAINS: tuple[str, ...] = tuple(_PAINTERS)

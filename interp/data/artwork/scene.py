"""A drawing posed in a frame: distance fields, the warp, and the random stream of its style.

Everything about a drawing that needs a distance transform is computed once, as signed distance
fields (cached). A picture is then one bilinear look-up into these fields through the warp; edges of
any width and softness are arithmetic on the distances.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy import ndimage

from interp.core.seeds import rng

GRID = 96  # side of the cached distance fields
STROKE = 0.045  # ink narrower than twice this share of the frame is a stroke, not an area
BEVEL = 0.13  # how far in from its outline a lit object keeps rising, as a share of the frame

Factors = dict[str, float]


@lru_cache(maxsize=1024)
def distance_fields(data: bytes, side: int) -> tuple[np.ndarray, bool]:
    """Compute the distances of a drawing to its ink, silhouette and line, and its height.

    Args:
        data: The ink, uint8, as bytes.
        side: Its side in pixels.

    Returns:
        `[GRID * GRID, 4]` of distances as shares of the frame, negative inside, and whether the
        drawing is filled.

    Notes:
        The silhouette is the ink with its holes filled. The line is the outline of an area but the
        middle of a stroke, so filled and outlined artwork give the same kind of line art.
    """
    ink = np.frombuffer(data, dtype=np.uint8).reshape(side, side) / np.float32(255)
    fine = np.asarray(ndimage.zoom(ink, 2 * GRID / side, order=1)) > 0.5
    gap = 3  # pixels of 2 * GRID: small gaps in an outline do not let the filling out
    closed = ndimage.binary_closing(np.pad(fine, gap + 1), iterations=gap)
    filled = np.asarray(ndimage.binary_fill_holes(closed), dtype=bool)
    inside = filled[gap + 1 : -gap - 1, gap + 1 : -gap - 1] | fine
    to_ink, to_inside = _signed(fine), _signed(inside)
    half = ndimage.maximum_filter(np.maximum(-to_ink, 0), size=int(3 * STROKE * 2 * GRID) | 1)
    line = np.where(half < STROKE, to_ink + half, np.abs(to_ink))
    rise = np.clip(-to_inside / BEVEL, 0, 1)
    height = ndimage.gaussian_filter(BEVEL * np.sqrt(rise * (2 - rise)), 1.5)
    stack = np.stack([to_ink, to_inside, line, height], axis=-1)
    small = stack.reshape(GRID, 2, GRID, 2, 4).mean((1, 3)).astype(np.float32)
    return small.reshape(-1, 4), bool(fine.sum() > 0.5 * inside.sum())


def _signed(mask: np.ndarray) -> np.ndarray:
    """The signed distance to a mask's edge, negative inside, in shares of the frame."""
    if not mask.any():
        return np.ones(mask.shape)
    out, within = (np.asarray(ndimage.distance_transform_edt(m)) for m in (~mask, mask))
    return (out - within - np.where(mask, -0.5, 0.5)) / mask.shape[0]


@lru_cache(maxsize=256)
def draw_warp(seed: int) -> tuple[Factors, np.ndarray]:
    """Draw a pose at random.

    Args:
        seed: Seed of the pose.

    Returns:
        Its factors, and the coefficients `[2, 4, 4]` of its elastic deformation.
    """
    r = rng("render/warp", seed)
    u = r.uniform(-1, 1, 7)
    factors = {
        "rotation": 22.0 * u[0],
        "scale": 0.87 + 0.13 * u[1],
        "shear": 0.16 * u[2],
        "shift_x": 0.07 * u[3],
        "shift_y": 0.07 * u[4],
        "flip": float(u[5] > 0),
        "elastic": 0.006 * (1 + u[6]),
    }
    return {key: float(value) for key, value in factors.items()}, r.standard_normal((2, 4, 4))


@lru_cache(maxsize=64)
def _waves(size: int, count: int) -> np.ndarray:
    """The lowest cosines of the frame, `[size, count]`, for smooth random fields."""
    return _cosines((np.arange(size) + 0.5) / size, count)


def _cosines(x: np.ndarray, count: int) -> np.ndarray:
    return np.cos(np.pi * np.outer(x, np.arange(count))).astype(np.float32)


@lru_cache(maxsize=8)
def frame_axes(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The coordinates of pixel centres, from -0.5 to 0.5.

    Args:
        size: Side of the picture in pixels.

    Returns:
        y `[size, 1]` and x `[1, size]`.
    """
    line = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
    return line[:, None], line[None, :]


@dataclass
class Scene:
    """The input of a domain's painter: the drawing, its pose, and the random style.

    Args:
        fields: The distance fields of the drawing.
        solid: Whether the drawing is filled.
        warp: The factors of the pose.
        bend: The coefficients of the elastic deformation.
        r: The random generator of the style.
        size: Side of the picture in pixels.
        hue: The main hue, 0 to 1; None draws it.
        factors: The factors drawn so far.
    """

    fields: np.ndarray
    solid: bool
    warp: Factors
    bend: np.ndarray
    r: np.random.Generator
    size: int
    hue: float | None
    factors: Factors = field(default_factory=dict)

    def note(self, name: str, value: float) -> float:
        """Record a factor and return it."""
        self.factors[name] = float(value)
        return float(value)

    def main_hue(self) -> float:
        """The main hue, the given one or a drawn one; the generator advances in either case."""
        own = self.r.random()
        return self.note("hue", own if self.hue is None else self.hue % 1.0)

    def smooth(self, count: int) -> np.ndarray:
        """Draw a smooth random field `[size, size]` of about unit variance."""
        waves = _waves(self.size, count)
        return (
            waves
            @ (self.r.standard_normal((count, count), dtype=np.float32) @ waves.T)
            * (2.0 / count)
        )

    def look(
        self,
        *,
        zoom: float = 1.0,
        at: tuple[float, float] = (0.0, 0.0),
        wobble: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Sample the drawing through the warp.

        Args:
            zoom: Scale of the whole posed drawing on a page.
            at: Its position, (y, x) in shares of the frame.
            wobble: Displacement of each pixel, (y, x) in shares of the frame; None displaces
                nothing.

        Returns:
            `[size, size, 4]`, distances in output pixels.
        """
        y, x = ((axis - a) / zoom for axis, a in zip(frame_axes(self.size), at, strict=True))
        rows, columns = _cosines(y.ravel() + 0.5, 4), _cosines(x.ravel() + 0.5, 4)
        amplitude = self.warp["elastic"]
        dy, dx = (amplitude * (rows @ c.astype(np.float32) @ columns.T) for c in self.bend)
        y, x = dy + (y - self.warp["shift_y"]), dx + (x - self.warp["shift_x"])
        if wobble is not None:
            y, x = y + wobble[0], x + wobble[1]
        turn = -np.deg2rad(self.warp["rotation"])  # rows count downwards
        cos, sin = np.cos(turn) / self.warp["scale"], np.sin(turn) / self.warp["scale"]
        y, x = cos * y - sin * x, sin * y + cos * x
        x = x + self.warp["shear"] * y
        x = -x if self.warp["flip"] else x
        pixels = self.size * zoom * self.warp["scale"]
        return _bilinear(self.fields, y, x) * np.float32(pixels)


def _bilinear(fields: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Interpolate `[GRID * GRID, 4]` at frame coordinates; distances keep growing outside."""
    y, x = (y + 0.5) * GRID - 0.5, (x + 0.5) * GRID - 0.5
    inner_y, inner_x = np.clip(y, 0, GRID - 1.001), np.clip(x, 0, GRID - 1.001)
    outside = (np.abs(y - inner_y) + np.abs(x - inner_x)) / GRID
    top, left = inner_y.astype(np.intp), inner_x.astype(np.intp)
    fy = (inner_y - top)[..., None].astype(np.float32)
    fx = (inner_x - left)[..., None].astype(np.float32)
    corner = top * GRID + left
    near, far = corner.ravel(), (*corner.shape, fields.shape[1])
    one, two, three, four = (
        fields.take(near + step, axis=0).reshape(far) for step in (0, 1, GRID, GRID + 1)
    )
    upper = one * (1 - fx) + two * fx
    lower = three * (1 - fx) + four * fx
    values = upper + (lower - upper) * fy
    values[..., :3] += outside[..., None]
    return values

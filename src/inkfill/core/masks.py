"""Binary masks by name. True = missing, to be filled.

A spec is a family with its settings, such as ``half:left`` or ``pixels:0.9``; ``inkfill masks`` draws every family.
``not:SPEC`` inverts a mask, ``SPEC+SPEC`` is the union of two, ``SPEC@2,SPEC@1`` a mixture with weights. Sizes are
pixels, or fractions of the side when below 1; ranges are written ``LOW-HIGH``.

A new family is one function with the decorator ``@family(name, syntax, example)``.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inkfill.errors import InputError, shown

Mask = NDArray[np.bool_]
Uniforms = NDArray[np.float64]

# Uniform numbers per image and term, besides one per pixel. Every image consumes the same number whatever its mask,
# so image i gets the same mask in any batch.
PARAMETERS = 48


@dataclass(frozen=True)
class Canvas:
    """The random numbers of n masks of h x w pixels: ``u`` [n, PARAMETERS] and ``field`` [n, h, w], both in [0, 1).

    ``images`` [n, h, w] or [n, h, w, C] are read by ``bbox`` alone.
    """

    u: Uniforms
    field: Uniforms
    images: NDArray | None

    @property
    def n(self) -> int:
        return self.field.shape[0]

    @property
    def h(self) -> int:
        return self.field.shape[1]

    @property
    def w(self) -> int:
        return self.field.shape[2]

    def grid(self) -> tuple[NDArray, NDArray]:
        """Pixel centres, y as [1, h, 1] and x as [1, 1, w]."""
        return np.arange(self.h)[None, :, None] + 0.5, np.arange(self.w)[None, None, :] + 0.5

    def repeat(self, mask: Mask) -> Mask:
        """One mask [h, w] for every image."""
        return np.broadcast_to(mask, (self.n, self.h, self.w)).copy()


@dataclass(frozen=True)
class Family:
    """A registered family: ``draw(canvas, *settings)`` gives a mask [n, h, w]."""

    draw: Callable[..., Mask]
    syntax: str
    example: str


FAMILIES: dict[str, Family] = {}


def family(name: str, syntax: str, example: str) -> Callable[[Callable[..., Mask]], Callable[..., Mask]]:
    """Register a mask family under ``name``; ``syntax`` is shown where a spec is wrong, ``example`` in figures."""

    def register(draw: Callable[..., Mask]) -> Callable[..., Mask]:
        FAMILIES[name] = Family(draw, syntax, example)
        return draw

    return register


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    bounds = float(low), float(high or low)
    if not (0 < bounds[0] <= bounds[1] < math.inf):
        raise ValueError
    return bounds


def _pixels(text: str, side: int, u: Uniforms, spec: str) -> NDArray[np.int64]:
    """Sizes in pixels, one per u, from a size or a range of sizes in pixels or in shares of the side."""
    low, high = (b * side if b < 1 else b for b in _range(text))
    if round(high) > side or round(high) < 1:
        raise InputError(f"mask {spec} does not fit an image side of {side} pixels: use a size from 1 to {side}")
    low = max(1, round(low))
    return low + np.floor(u * (round(high) - low + 1)).astype(np.int64)


def _rectangles(canvas: Canvas, top: NDArray, left: NDArray, height: NDArray, width: NDArray) -> Mask:
    y, x = np.arange(canvas.h)[None, :, None], np.arange(canvas.w)[None, None, :]
    t, le, h, w = (a[:, None, None] for a in (top, left, height, width))
    return (y >= t) & (y < t + h) & (x >= le) & (x < le + w)


@family("half", "half:left|right|top|bottom|random", "half:random")
def half(canvas: Canvas, side: str) -> Mask:
    """One half: left, right, top, bottom, or random (any angle, through any point near the centre)."""
    mask = np.zeros((canvas.h, canvas.w), bool)
    if side == "left":
        mask[:, : canvas.w // 2] = True
    elif side == "right":
        mask[:, canvas.w // 2 :] = True
    elif side == "top":
        mask[: canvas.h // 2] = True
    elif side == "bottom":
        mask[canvas.h // 2 :] = True
    elif side == "random":
        y, x = canvas.grid()
        angle = 2 * math.pi * canvas.u[:, 0, None, None]
        y0 = canvas.h * (0.5 + 0.4 * (canvas.u[:, 1, None, None] - 0.5))
        x0 = canvas.w * (0.5 + 0.4 * (canvas.u[:, 2, None, None] - 0.5))
        return (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle) > 0
    else:
        raise ValueError
    return canvas.repeat(mask)


@family("box", "box:N or box:N:random", "box:14:random")
def box(canvas: Canvas, size: str, place: str = "centre") -> Mask:
    """A box of N x N pixels at the centre, or with :random anywhere; a range gives rectangles."""
    height = _pixels(size, canvas.h, canvas.u[:, 0], f"box:{size}")
    width = height if "-" not in size else _pixels(size, canvas.w, canvas.u[:, 1], f"box:{size}")
    width = np.minimum(width, canvas.w)
    if place == "centre":
        return _rectangles(canvas, (canvas.h - height) // 2, (canvas.w - width) // 2, height, width)
    if place != "random":
        raise ValueError
    top = np.floor(canvas.u[:, 2] * (canvas.h - height + 1)).astype(int)
    left = np.floor(canvas.u[:, 3] * (canvas.w - width + 1)).astype(int)
    return _rectangles(canvas, top, left, height, width)


@family("bbox", "bbox:N", "bbox:8")
def bbox(canvas: Canvas, size: str) -> Mask:
    """An N x N box at the centre of the digit's own bounding box. It depends on missing pixels: not a fair test."""
    if canvas.images is None:
        raise InputError("mask bbox:N is placed from the images themselves, and none were given")
    n = _pixels(size, min(canvas.h, canvas.w), np.zeros(canvas.n), f"bbox:{size}")
    ink = canvas.images > 0 if canvas.images.ndim == 3 else (canvas.images > 0).any(-1)

    def start(ink_on_axis: NDArray, side: int) -> NDArray[np.int64]:
        first = ink_on_axis.argmax(1)
        last = ink_on_axis.shape[1] - 1 - ink_on_axis[:, ::-1].argmax(1)
        centre = np.where(ink_on_axis.any(1), (first + last + 1) // 2, side // 2)
        return np.clip(centre - n // 2, 0, side - n)

    return _rectangles(canvas, start(np.any(ink, 2), canvas.h), start(np.any(ink, 1), canvas.w), n, n)


@family("quadrants", "quadrants:1|2|3|random", "quadrants:3")
def quadrants(canvas: Canvas, count: str) -> Mask:
    """1 (lower right), 2 (right half) or 3 quadrants (all but the lower left) missing; or random, 1 to 3 of any."""
    if count == "random":
        # The 14 subsets of four quadrants that are neither empty nor full, as bits.
        subset = 1 + np.floor(canvas.u[:, 0] * 14).astype(int)
    elif count in {"1", "2", "3"}:
        subset = np.full(canvas.n, {"1": 0b1000, "2": 0b1010, "3": 0b1011}[count])
    else:
        raise ValueError
    y, x = np.arange(canvas.h)[:, None] >= canvas.h // 2, np.arange(canvas.w)[None, :] >= canvas.w // 2
    return (subset[:, None, None] >> (2 * y + x)[None] & 1).astype(bool)


@family("pixels", "pixels:P", "pixels:0.9")
def pixels(canvas: Canvas, share: str) -> Mask:
    """Every pixel missing with probability P, on its own."""
    low, high = _range(share)
    if high > 1:
        raise ValueError
    return canvas.field < (low + (high - low) * canvas.u[:, 0])[:, None, None]


@family("strokes", "strokes", "strokes")
def strokes(canvas: Canvas) -> Mask:
    """One to four free-form brush strokes, each a bent line of random width."""
    y, x = canvas.grid()
    side = min(canvas.h, canvas.w)
    count = 1 + np.floor(canvas.u[:, 0] * 4)
    mask = np.zeros((canvas.n, canvas.h, canvas.w), bool)
    for stroke in range(4):
        # Eleven numbers a stroke: where it starts, how wide it is, then a turn and a length for each of four parts.
        u = canvas.u[:, 1 + 11 * stroke : 12 + 11 * stroke, None, None]
        y0, x0 = u[:, 0] * canvas.h, u[:, 1] * canvas.w
        radius = side * (0.03 + 0.06 * u[:, 2])
        angle = np.zeros_like(y0)
        painted = np.zeros_like(mask)
        for part in range(4):
            angle = angle + (2 * math.pi if part == 0 else 2.0) * (u[:, 3 + 2 * part] - 0.5)
            length = side * (0.1 + 0.35 * u[:, 4 + 2 * part])
            dy, dx = length * np.sin(angle), length * np.cos(angle)
            along = np.clip(((y - y0) * dy + (x - x0) * dx) / length**2, 0, 1)
            painted |= (y - y0 - along * dy) ** 2 + (x - x0 - along * dx) ** 2 < radius**2
            y0, x0 = y0 + dy, x0 + dx
        mask |= painted & (stroke < count)[:, None, None]
    return mask


@family("stripes", "stripes:N", "stripes:3")
def stripes(canvas: Canvas, size: str) -> Mask:
    """Stripes of N pixels, alternately missing and observed, vertical or horizontal at random, at a random offset."""
    n = _pixels(size, min(canvas.h, canvas.w), canvas.u[:, 0], f"stripes:{size}")[:, None, None]
    y, x = np.arange(canvas.h)[None, :, None], np.arange(canvas.w)[None, None, :]
    across = np.where((canvas.u[:, 1] < 0.5)[:, None, None], y, x)
    start = np.floor(canvas.u[:, 2, None, None] * 2 * n).astype(int)
    return (across + start) // n % 2 == 0


@family("all", "all", "all")
def everything(canvas: Canvas) -> Mask:
    """Everything is missing: unconditional generation."""
    return np.ones((canvas.n, canvas.h, canvas.w), bool)


@family("none", "none", "none")
def nothing(canvas: Canvas) -> Mask:
    """Nothing is missing."""
    return np.zeros((canvas.n, canvas.h, canvas.w), bool)


def as_planes(mask: Mask) -> Mask:
    """Masks as a network reads them: ``[N, H, W]`` to ``[N, 1, H, W]``, ``[N, H, W, C]`` to ``[N, C, H, W]``."""
    return mask[:, None] if mask.ndim == 3 else np.moveaxis(mask, -1, 1)


def of_planes(planes: Mask) -> Mask:
    """The inverse of :func:`as_planes`."""
    return planes[:, 0] if planes.shape[1] == 1 else np.moveaxis(planes, 1, -1)


# The training mixture of the shipped network: broad, so that most masks resemble one that it was trained on.
TRAINING = (
    "all@12,half:random@16,half:left@3,half:right@3,half:top@3,half:bottom@3,quadrants:random@10,"
    "box:0.2-0.8:random@12,not:box:0.25-0.7:random@6,pixels:0.3-0.98@12,strokes@8,strokes+strokes@3,not:strokes@4,"
    "stripes:1-6@4,half:random+pixels:0.2-0.8@4,box:0.2-0.7:random+strokes@3,half:random+half:random@4"
)
NAMED = {"training": TRAINING}
AT_ONCE = 2**20  # random numbers drawn at once: 8 MiB


@dataclass(frozen=True)
class Term:
    """One family with its settings, perhaps inverted."""

    family: Family
    settings: tuple[str, ...]
    inverted: bool

    def draw(self, canvas: Canvas) -> Mask:
        mask = self.family.draw(canvas, *self.settings)
        return ~mask if self.inverted else mask


@dataclass(frozen=True)
class MaskSpec:
    """A parsed spec: a mixture of unions of terms. :func:`parse` makes one."""

    text: str
    choices: tuple[tuple[Term, ...], ...]  # a union of terms each
    weights: tuple[float, ...]

    def numbers(self, height: int, width: int) -> int:
        """The random numbers that the mask of one image consumes."""
        return 1 + max(len(union) for union in self.choices) * (PARAMETERS + height * width)

    def draw(self, n: int, height: int, width: int, rng: np.random.Generator, images: NDArray | None = None) -> Mask:
        """Masks for n images: bool ``[n, height, width]``, True = missing.

        Every image takes the same count of numbers from ``rng``, so one call for n images gives the same masks as n
        calls for one. ``images`` (``[n, height, width]`` or with channels) is read by ``bbox`` alone. Raises InputError
        where a mask does not fit the size.
        """
        mask = np.zeros((n, height, width), bool)
        together = max(1, AT_ONCE // self.numbers(height, width))
        for start in range(0, max(1, n), together):
            part = slice(start, min(n, start + together))
            mask[part] = self._draw(part.stop - start, height, width, rng, None if images is None else images[part])
        return mask

    def draw_planes(
        self, n: int, planes: int, height: int, width: int, rng: np.random.Generator, images: NDArray | None = None
    ) -> Mask:
        """Masks to train on, with a plane a channel: bool ``[n, planes, height, width]``.

        Half of them are alike in all planes, a quarter are drawn for every plane, and in a quarter some planes have one
        mask and the others are observed. With one plane this is ``draw``.
        """
        mask = self.draw(n, height, width, rng, images)[:, None]
        if planes == 1:
            return mask
        kind, mask = rng.random(n), mask.repeat(planes, 1)
        for i in np.flatnonzero(kind < 0.25):
            one = None if images is None else images[i : i + 1].repeat(planes, 0)
            mask[i] = self.draw(planes, height, width, rng, one)
        for i in np.flatnonzero((kind >= 0.25) & (kind < 0.5)):
            mask[i, rng.permutation(planes)[: rng.integers(1, planes)]] = False
        return mask

    def _draw(self, n: int, height: int, width: int, rng: np.random.Generator, images: NDArray | None) -> Mask:
        terms = max(len(union) for union in self.choices)
        numbers = rng.random((n, self.numbers(height, width)))
        weights = np.array(self.weights) / max(self.weights)  # so that their sum is finite
        choice = np.searchsorted(np.cumsum(weights) / sum(weights), numbers[:, 0], side="right")
        blocks = numbers[:, 1:].reshape(n, terms, -1)
        mask = np.zeros((n, height, width), bool)
        for index, union in enumerate(self.choices):
            rows = np.flatnonzero(choice == index)
            for term, block in zip(union, blocks[rows].swapaxes(0, 1), strict=False):
                field = block[:, PARAMETERS:].reshape(-1, height, width)
                canvas = Canvas(block[:, :PARAMETERS], field, None if images is None else images[rows])
                mask[rows] |= term.draw(canvas)
        return mask


def _unknown(text: str) -> InputError:
    known = ", ".join(each.syntax for each in FAMILIES.values())
    return InputError(f"unknown mask {shown(text)!r}: write {known}; not:SPEC, SPEC+SPEC, or a mixture SPEC@2,SPEC@1")


def _term(text: str) -> Term:
    inverted = text.startswith("not:")
    name, *settings = text.removeprefix("not:").split(":")
    if name not in FAMILIES:
        raise _unknown(text)
    term = Term(FAMILIES[name], tuple(settings), inverted)
    try:  # settings are checked where they are used, by drawing no images
        nothing_drawn = np.empty((0, 1024, 1024))
        with contextlib.suppress(InputError):  # a size that does not fit is refused where images are drawn
            term.draw(Canvas(np.empty((0, PARAMETERS)), nothing_drawn, nothing_drawn.astype(np.uint8)))
    except (ValueError, TypeError):
        raise _unknown(text) from None
    return term


def parse(text: str) -> MaskSpec:
    """Read a spec. Raises InputError, with the list of right ones, for one that names no mask."""
    choices, weights = [], []
    for part in NAMED.get(text, text).split(","):
        union, _, weight = part.strip().partition("@")
        try:
            weights.append(float(weight or 1))
        except ValueError:
            raise _unknown(part) from None
        if not (0 < weights[-1] < math.inf):
            raise InputError(f"the weight in {part!r} must be a positive number")
        choices.append(tuple(_term(term) for term in union.split("+")))
    return MaskSpec(text, tuple(choices), tuple(weights))

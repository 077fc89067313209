"""Few-step weights: a network that draws from p(x0 given x_t and what is known), in one evaluation.

What is minimised is the energy score of its draws, a proper score: E|X - y| - E|X - X'| / 2 is least, over all
distributions of X, for that of y (Gneiting and Raftery 2007, eq. 22; for diffusion De Bortoli et al. 2025,
"Distributional diffusion models with scoring rules"). Two draws an image give it without bias. Distances are those of
whole holes and of patches of several sizes, so that the strokes of a draw fit each other nearby as well as at large; a
sum of such scores is proper too.

Half of a batch is at level T, where x_T is the randomness and the two draws have one each. The other half is at lower
levels, where both see the same x_t and have fresh noise of their own. Where there is a teacher, its completions from
the same x_T are known for some images (``Pairs``), and the draws of those are also asked to be near them: which draw
belongs to which noise is then given, which the energy score leaves open, and much is learnt sooner.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from inkfill import progress
from inkfill.checkpoint import NOT_WHOLE, written_whole
from inkfill.data import Images, masks
from inkfill.data.images import BYTES, Mask, ValueRange, channels_of
from inkfill.errors import InputError
from inkfill.inpainting import inpaint
from inkfill.model import Model
from inkfill.rng import SampleNoise, stream
from inkfill.schedule import Schedule
from inkfill.training.config import TrainConfig
from inkfill.windows import is_large

DRAWS = 2  # of an image
PATCHES = (14, 7, 3, 1)  # sides; whole holes come on top
LOWEST = 0.1  # share of T under which no draw is asked for
PART = 2048  # pairs that are made together, and kept in one file
TEACHER_STEPS, TEACHER_SAMPLER = 8, "dpmpp"  # deterministic: a completion is a function of x_T

# ---- the teacher's completions ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """Conditions, and what the teacher made of each from two draws of x_T."""

    index: NDArray[np.int64]  # of the training image
    mask: Mask  # [N, H, W]
    completions: Images  # [N, 2, ...]
    seed: int  # of x_T: that of image i, sample k, as the driver draws it

    def take(self, rows: NDArray[np.int64], images: Images, values: ValueRange) -> tuple[Tensor, Mask, Tensor, Tensor]:
        """x0 ``[R, C, H, W]``, mask, x_T and completions ``[R, 2, C, H, W]`` of some of the pairs."""
        x0 = values.to_x0(images[self.index[rows]])
        shape, each = x0.shape[1:], np.repeat(rows, DRAWS)
        x_T = SampleNoise(self.seed, each, np.tile(np.arange(DRAWS), len(rows)), tuple(shape))()
        taught = values.to_x0(self.completions[rows].reshape(-1, *images.shape[1:]))
        return x0, self.mask[rows], x_T.view(-1, DRAWS, *shape), taught.view(-1, DRAWS, *shape)


def find_pairs(
    folder: Path,
    teacher: Callable[[], Model],
    images: Images,
    spec: masks.MaskSpec,
    count: int,
    seed: int,
    quiet: bool = False,
    met: Callable[[], object] = lambda: None,
) -> Pairs:
    """``count`` pairs (rounded up to whole parts) from their files in ``folder``; those that are not there are made.

    ``met`` is called whenever some were made. Raises InputError for a teacher that cannot be one.
    """
    paths = [folder / f"{n:05d}.npz" for n in range(-(-count // PART))]
    parts = [_read(path, images) for path in paths]
    todo = [n for n, part in enumerate(parts) if part is None]
    if todo:
        model = teacher()
        if model.draws or model.channels != channels_of(images):
            raise InputError("the teacher must be a network that denoises such images (objective v or eps)")
        if is_large(images.shape[1:3], model.image_size):  # filled through windows, each with noise of its own
            raise InputError(f"the teacher knows images of {model.image_size[0]}x{model.image_size[1]}: too small")
        with progress.bar(len(todo) * PART * DRAWS, desc="teacher", disable=quiet) as bar:
            for n in todo:
                parts[n] = _make(paths[n], model, images, spec, n, seed, progress.meeting(bar, met))
    index, mask, completions = (np.concatenate(each) for each in zip(*filter(None, parts), strict=True))
    return Pairs(index, mask, completions, seed)


def _make(
    path: Path,
    model: Model,
    images: Images,
    spec: masks.MaskSpec,
    number: int,
    seed: int,
    told: Callable[[int], object],
) -> tuple[NDArray[np.int64], Mask, Images]:
    """One file of pairs, written, and what is in it."""
    rng = stream(seed, "pairs", number)
    index = rng.integers(len(images), size=PART)
    chosen = images[index]
    mask = spec.draw(PART, images.shape[1], images.shape[2], rng, chosen)
    completions = inpaint(
        model, chosen, mask, DRAWS, "conditional", TEACHER_STEPS, seed, TEACHER_SAMPLER, first=number * PART,
        progress=told,
    )  # fmt: skip
    with written_whole(path) as temporary:
        np.savez(temporary, index=index, mask=mask, completions=completions)
    return index, mask, completions


def _read(path: Path, images: Images) -> tuple[NDArray[np.int64], Mask, Images] | None:
    """One file of pairs; None where there is none that is whole."""
    try:
        with np.load(path, allow_pickle=False) as file:
            index, mask, completions = file["index"], file["mask"], file["completions"]
    except NOT_WHOLE:
        return None
    fits = mask.shape == (PART, *images.shape[1:3]) and completions.shape == (PART, DRAWS, *images.shape[1:])
    return (index, mask.astype(bool), completions) if fits and index.shape == (PART,) else None


# ---- a batch, and what is minimised ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DrawBatch:
    """What one step is computed from: images ``[B, C, H, W]``, for each two draws ``[B, 2, C, H, W]``."""

    x0: Tensor
    mask: Tensor  # [B, 1, H, W], True = missing
    t: Tensor  # [B]
    eps: Tensor  # what x0 is noised with: two for an image at level T, twice the same below
    fresh: Tensor  # the network's own noise; 0 at level T
    taught: Tensor | None  # what the teacher made of x_T; 0 below level T
    schedule: Schedule
    count: float  # images in the global batch: what the sum of the errors is divided by

    @property
    def weights(self) -> Tensor:
        """How much each image counts in a mean of errors, ``[B]``."""
        return torch.ones(len(self.x0))


def draw_few(
    config: TrainConfig,
    schedule: Schedule,
    images: Images,
    spec: masks.MaskSpec,
    rng: np.random.Generator,
    part: slice = slice(None),
    device: torch.device | str = "cpu",
    values: ValueRange = BYTES,
    pairs: Pairs | None = None,
) -> DrawBatch:
    """Draw a global batch from ``rng`` and give the rows in ``part``. The first half is at level T, from ``pairs`` if
    there are any; of the other the levels are uniform."""
    size, (height, width) = config.batch_size, images.shape[1:3]
    top = (size + 1) // 2
    chosen = images[rng.integers(len(images), size=size)]
    mask, x0 = spec.draw(size, height, width, rng, chosen), values.to_x0(chosen)
    t = np.ceil((LOWEST + (1 - LOWEST) * rng.random(size)) * schedule.T).astype(np.int64)
    t[:top], t[top:] = schedule.T, np.minimum(t[top:], schedule.T - 1)
    eps, fresh = (
        torch.from_numpy(rng.standard_normal((size, DRAWS, *x0.shape[1:]), dtype=np.float32)) for _ in range(2)
    )
    eps[top:, 1:], fresh[:top] = eps[top:, :1], 0
    taught = None
    if pairs is not None:
        taught = torch.zeros_like(eps)
        rows = rng.integers(len(pairs.index), size=top)
        x0[:top], mask[:top], eps[:top], taught[:top] = pairs.take(rows, images, values)
        taught = taught[_dealt(size, part)].to(device)
    mine = _dealt(size, part)
    return DrawBatch(
        x0=x0[mine].to(device),
        mask=torch.from_numpy(mask[mine, None]).to(device),
        t=torch.from_numpy(t[mine]),
        eps=eps[mine].to(device),
        fresh=fresh[mine].to(device),
        taught=taught,
        schedule=schedule,
        count=float(size),
    )


def _dealt(size: int, part: slice) -> NDArray[np.int64]:
    """Which rows of a batch a process gets: of both halves alike."""
    return np.arange(size).reshape(2, -1).T.ravel()[part] if size % 2 == 0 else np.arange(size)[part]


def distance(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """How far two completions are apart: ``[B, C, H, W]`` twice and their mask ``[B, 1, H, W]`` to float32 ``[B]``.

    The sum, over whole holes and patches of several sizes, of Euclidean distances on the scale of a value. A patch
    counts by the root of the share of it that is missing.
    """
    square = (x.float() - y.float()).square().mean(1, keepdim=True) * mask
    missing = mask.float()
    total = _root(square.sum((1, 2, 3)) / missing.sum((1, 2, 3)).clamp(min=1))
    for side in PATCHES:
        if side <= min(x.shape[-2:]):
            step = max(1, side // 2)
            apart, share = (F.avg_pool2d(plane, side, step) for plane in (square, missing))
            total = total + _root(apart).sum((1, 2, 3)) / share.sqrt().sum((1, 2, 3)).clamp(min=1e-3)
    return total


def _root(square: Tensor) -> Tensor:
    """A root with a slope at 0, where completions agree."""
    return (square + 1e-6).sqrt() - 1e-3


class _Clip(torch.autograd.Function):
    """To [-1, 1], as a sampler clips what the network says. What is outside can be pulled in, and no further out.

    Scored unclipped, a black pixel would have to come out as exactly -1 whatever the noise; clipped, anything under -1
    is black, and the noise can go where it does not show.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(-1, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.where((x.abs() <= 1) | (gradient * x > 0), gradient, 0.0)


def two_draws(net: nn.Module, batch: DrawBatch) -> Tensor:
    """What the network draws for every image, twice, clipped: float32 ``[B, 2, C, H, W]``."""

    def twice(value: Tensor) -> Tensor:
        return value.repeat_interleave(DRAWS, 0)

    known = (~batch.mask).float()
    x0, t = twice(batch.x0), twice(batch.t)
    x_t = batch.schedule.q_sample(x0, t, batch.eps.flatten(0, 1))
    level = (t / batch.schedule.T).float().to(x0.device)
    v = net(x_t, twice(batch.x0 * known), twice(known), level, None, batch.fresh.flatten(0, 1))
    drawn: Tensor = _Clip.apply(batch.schedule.x0_from_v(x_t, t, v.float()))  # type: ignore[no-untyped-call]
    return drawn.view_as(batch.eps)


def few_errors(net: nn.Module, batch: DrawBatch) -> Tensor:
    """The energy score of two draws, and how far they are from what the teacher drew: float32 ``[B, 1, 1, 1]``."""
    first, second = two_draws(net, batch).unbind(1)

    def apart(x: Tensor, y: Tensor) -> Tensor:
        return distance(x, y, batch.mask)

    score = (apart(first, batch.x0) + apart(second, batch.x0) - apart(first, second)) / 2
    if batch.taught is not None:
        top = (batch.t == batch.schedule.T).to(batch.x0.device)
        score = score + top * (apart(first, batch.taught[:, 0]) + apart(second, batch.taught[:, 1])) / 2
    return score[:, None, None, None]

"""Few-step models: a network that draws samples of p(x0 given x_t and the observed pixels) in one evaluation.

The loss is the energy score of its samples, a proper score: E|X - y| - E|X - X'| / 2 is least, over all distributions
of X, for the distribution of y (Gneiting and Raftery 2007, eq. 22; for diffusion De Bortoli et al. 2025,
"Distributional diffusion models with scoring rules"). Two samples per image give an unbiased estimate. Distances are
taken over whole holes and over patches of several sizes, so that samples fit locally and globally; a sum of proper
scores is proper.

Half of a batch is at timestep T, where the two samples differ in x_T. The other half is at lower timesteps, where they
share x_t and differ in latent noise. With a teacher (distillation), its samples from the same x_T are known for some
images (``Pairs``), and the loss adds the distance to them. The energy score does not
fix which noise maps to which sample; the teacher does, which shortens training.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from inkfill import progress
from inkfill.core.masks import MaskSpec, as_planes, of_planes
from inkfill.core.objectives import MEAN, SAMPLE, objective
from inkfill.core.rng import SampleNoise, key, stream
from inkfill.core.schedule import Schedule
from inkfill.data.images import Images, Mask, ValueRange, channels_of
from inkfill.errors import InputError
from inkfill.files import NOT_WHOLE, written_whole
from inkfill.filling.inpaint import inpaint
from inkfill.filling.windows import is_large
from inkfill.models.model import Model
from inkfill.training.batches import Batches

DRAWS = 2  # samples per image
PATCHES = (14, 7, 3, 1)  # sides of patches, beside whole holes
LOWEST = 0.1  # lowest trained timestep, as a fraction of T
PART = 2048  # pairs per file
TEACHER_STEPS, TEACHER_SAMPLER = 8, "dpmpp"  # deterministic: a sample is a function of x_T

# ---- the teacher's samples -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """Masked images, and the teacher's samples of each from two draws of x_T."""

    index: NDArray[np.int64]  # of the training image
    mask: Mask  # [N, H, W], or [N, H, W, C] by channel
    samples: Images  # [N, 2, ...]
    seed: int  # of x_T: image i, sample k, as inpaint draws it

    def take(self, rows: NDArray[np.int64], images: Images, values: ValueRange) -> tuple[Tensor, Mask, Tensor, Tensor]:
        """x0 ``[R, C, H, W]``, mask ``[R, ...]``, x_T and samples ``[R, 2, C, H, W]`` of the pairs ``rows``."""
        x0 = values.to_x0(images[self.index[rows]])
        shape, each = x0.shape[1:], np.repeat(rows, DRAWS)
        x_T = SampleNoise(self.seed, each, np.tile(np.arange(DRAWS), len(rows)), tuple(shape))()
        distilled = values.to_x0(self.samples[rows].reshape(-1, *images.shape[1:]))
        return x0, self.mask[rows], x_T.view(-1, DRAWS, *shape), distilled.view(-1, DRAWS, *shape)


def find_pairs(
    folder: Path,
    teacher: Callable[[], Model],
    images: Images,
    spec: MaskSpec,
    count: int,
    seed: int,
    quiet: bool = False,
    beat: Callable[[], object] = lambda: None,
) -> Pairs:
    """At least ``count`` pairs (whole files) from ``folder``; missing files are made.

    ``beat`` is called after every batch, as a heartbeat. Raises InputError for an unsuitable teacher.
    """
    noise = key(seed, "pairs")  # a seed of its own: evaluations must not meet this noise
    paths = [folder / f"{n:05d}.npz" for n in range(-(-count // PART))]
    parts = [_read(path, images) for path in paths]
    todo = [n for n, part in enumerate(parts) if part is None]
    if todo:
        model = teacher()
        if model.gives != MEAN or model.channels != channels_of(images):
            raise InputError("--teacher: give a network trained with v or eps on images of these channels")
        if is_large(images.shape[1:3], model.image_size):  # windows have noise of their own
            raise InputError(
                f"--teacher: trained on images of {model.image_size[0]}x{model.image_size[1]}, too small for these"
            )
        with progress.bar(len(todo) * PART * DRAWS, desc="teacher", disable=quiet) as bar:
            for n in todo:
                parts[n] = _make(paths[n], model, images, spec, n, noise, progress.both(bar, beat))
    index, mask, samples = (np.concatenate(each) for each in zip(*filter(None, parts), strict=True))
    return Pairs(index, mask, samples, noise)


def _make(
    path: Path,
    model: Model,
    images: Images,
    spec: MaskSpec,
    number: int,
    seed: int,
    advance: Callable[[int], object],
) -> tuple[NDArray[np.int64], Mask, Images]:
    """Write one file of pairs; returns its contents."""
    rng = stream(seed, "pairs", number)
    index = rng.integers(len(images), size=PART)
    chosen = images[index]
    mask = of_planes(spec.draw_planes(PART, model.planes, images.shape[1], images.shape[2], rng, chosen))
    first = number * PART
    samples = inpaint(
        model, chosen, mask, DRAWS, "conditional", TEACHER_STEPS, seed, TEACHER_SAMPLER, first=first, progress=advance
    )
    with written_whole(path) as temporary:
        np.savez(temporary, index=index, mask=mask, samples=samples)
    return index, mask, samples


def _read(path: Path, images: Images) -> tuple[NDArray[np.int64], Mask, Images] | None:
    """One file of pairs; None if it is missing or broken."""
    try:
        with np.load(path, allow_pickle=False) as file:
            index, mask, samples = file["index"], file["mask"], file["samples"]
    except NOT_WHOLE:
        return None
    size, drawn = images.shape[1:3], (PART, DRAWS, *images.shape[1:])
    fits = mask.shape in ((PART, *size), (PART, *images.shape[1:])) and samples.shape == drawn
    return (index, mask.astype(bool), samples) if fits and index.shape == (PART,) else None


# ---- batch and loss --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DrawBatch:
    """The input of one step: images ``[B, C, H, W]`` and noise for two samples each ``[B, 2, C, H, W]``."""

    x0: Tensor
    mask: Tensor  # [B, 1 or C, H, W], True = missing
    t: Tensor  # [B]
    eps: Tensor  # noise of x_t: two draws for an image at T, one repeated below
    latent: Tensor  # latent noise; 0 at T
    distilled: Tensor | None  # samples of the teacher from x_T; 0 below T
    schedule: Schedule
    count: float  # images of the global batch: the sum of the errors is divided by it

    @property
    def weights(self) -> Tensor:
        """The weight of each image in a mean of errors, ``[B]``."""
        return torch.ones(len(self.x0))


def draw_few(
    schedule: Schedule,
    x0: Tensor,
    mask: Tensor,
    rng: np.random.Generator,
    scored: Tensor | None = None,
    rows: slice = slice(None),
    device: torch.device | str = "cpu",
    pairs: Callable[[NDArray[np.int64]], tuple[Tensor, Tensor, Tensor, Tensor]] | None = None,
    pair_count: int = 0,
) -> DrawBatch:
    """Draw timesteps and noise for a global batch and return its ``rows``: see ``Batch.draw``.

    The first half is at timestep T, from ``pairs`` if given; the timesteps of the other half are uniform.
    """
    size = len(x0)
    top = (size + 1) // 2
    t = np.ceil((LOWEST + (1 - LOWEST) * rng.random(size)) * schedule.T).astype(np.int64)
    t[:top], t[top:] = schedule.T, np.minimum(t[top:], schedule.T - 1)
    eps, latent = (
        torch.from_numpy(rng.standard_normal((size, DRAWS, *x0.shape[1:]), dtype=np.float32)) for _ in range(2)
    )
    eps[top:, 1:], latent[:top] = eps[top:, :1], 0
    distilled = None
    mine = _interleaved(size, rows)
    if pairs is not None:
        distilled = torch.zeros_like(eps)
        x0[:top], mask[:top], eps[:top], distilled[:top] = pairs(rng.integers(pair_count, size=top))
        distilled = distilled[mine].to(device)
    return DrawBatch(
        x0=x0[mine].to(device),
        mask=mask[mine].to(device),
        t=torch.from_numpy(t[mine]),
        eps=eps[mine].to(device),
        latent=latent[mine].to(device),
        distilled=distilled,
        schedule=schedule,
        count=float(size),
    )


def with_pairs(batches: Batches, pairs: Pairs, images: Images) -> Batches:
    """Batches whose first half comes from the teacher's pairs."""

    def take(rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x0, mask, x_T, samples = pairs.take(rows, images, batches.values)
        return x0, torch.from_numpy(as_planes(mask)), x_T, samples

    return replace(batches, make=partial(draw_few, pairs=take, pair_count=len(pairs.index)))


def _interleaved(size: int, part: slice) -> NDArray[np.int64]:
    """The rows of a batch for one process, as many of either half."""
    return np.arange(size).reshape(2, -1).T.ravel()[part] if size % 2 == 0 else np.arange(size)[part]


def distance(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """The distance of two samples ``[B, C, H, W]`` with mask ``[B, 1 or C, H, W]``: float32 ``[B]``.

    The sum, over whole holes and patches of several sizes, of root mean square differences. A patch is weighted by the
    square root of its missing fraction.
    """
    square = ((x.float() - y.float()).square() * mask).mean(1, keepdim=True)
    missing = mask.float().mean(1, keepdim=True)
    total = _root(square.sum((1, 2, 3)) / missing.sum((1, 2, 3)).clamp(min=1))
    for side in PATCHES:
        if side <= min(x.shape[-2:]):
            step = max(1, side // 2)
            apart, share = (F.avg_pool2d(plane, side, step) for plane in (square, missing))
            total = total + _root(apart).sum((1, 2, 3)) / share.sqrt().sum((1, 2, 3)).clamp(min=1e-3)
    return total


def _root(square: Tensor) -> Tensor:
    """A square root with a finite slope at 0."""
    return (square + 1e-6).sqrt() - 1e-3


class _Clip(torch.autograd.Function):
    """Clip to [-1, 1], as a sampler does; gradients that would move a value further out are zero.

    Unclipped, a black pixel would have to be exactly -1 whatever the noise; clipped, any value below -1 is black.
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
    """Two samples of every image, clipped: float32 ``[B, 2, C, H, W]``."""

    def twice(value: Tensor) -> Tensor:
        return value.repeat_interleave(DRAWS, 0)

    known = (~batch.mask).float()
    x0, t = twice(batch.x0), twice(batch.t)
    x_t = batch.schedule.q_sample(x0, t, batch.eps.flatten(0, 1))
    time = (t / batch.schedule.T).float().to(x0.device)
    v = net(x_t, twice(batch.x0 * known), twice(known), time, None, batch.latent.flatten(0, 1))
    drawn: Tensor = _Clip.apply(batch.schedule.x0_from_v(x_t, t, v.float()))  # type: ignore[no-untyped-call]
    return drawn.view_as(batch.eps)


@objective("few", gives=SAMPLE, draw=draw_few)
def few_errors(net: nn.Module, batch: DrawBatch) -> Tensor:
    """The energy score of two samples, plus their distance to the teacher's: float32 ``[B, 1, 1, 1]``."""
    first, second = two_draws(net, batch).unbind(1)

    def apart(x: Tensor, y: Tensor) -> Tensor:
        return distance(x, y, batch.mask)

    score = (apart(first, batch.x0) + apart(second, batch.x0) - apart(first, second)) / 2
    if batch.distilled is not None:
        top = (batch.t == batch.schedule.T).to(batch.x0.device)
        score = score + top * (apart(first, batch.distilled[:, 0]) + apart(second, batch.distilled[:, 1])) / 2
    return score[:, None, None, None]

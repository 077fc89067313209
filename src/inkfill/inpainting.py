"""Inpainting methods, one short function each, their registry, and the one driver that runs them all.

A method is a function of a :class:`Task` that returns x0. *Guided* methods turn one denoiser into another, so that
every sampler works on them; *chain* methods edit the state between steps; the particle methods are in ``smc.py``.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inkfill import defaults, masks
from inkfill.data import Images, as_images, check_size, to_x0
from inkfill.denoiser import Denoiser, DenoiserSource, Model, Observation, likelihood_gradient
from inkfill.errors import InputError
from inkfill.rng import SampleNoise, stream
from inkfill.samplers import Watch, ancestral, ddim, dpmpp_2m, spaced_levels
from inkfill.smc import mcgdiff, tds

JUMP, REPEATS = 1, 5  # of RePaint, chosen on validation digits
ROWS = 128  # completions of a 28 x 28 image that go through the network together; fewer of a larger one


@dataclass(frozen=True)
class Task:
    """What a method is given: B rows to complete, each with an observation and a noise stream of its own."""

    model: DenoiserSource
    observation: Observation  # [B, 1, H, W]
    noise: SampleNoise
    levels: list[int]  # from T down to 0; a method visits them as it likes
    sampler: str = defaults.SAMPLER  # for the guided methods
    watch: Watch | None = None

    @functools.cached_property
    def prior(self) -> Denoiser:
        """The unconditional denoiser."""
        return self.model.unconditional(self.observation.pixels)

    def sample(self, denoise: Denoiser) -> Tensor:
        """Run the chosen sampler on a denoiser, from pure noise down the levels."""
        x, schedule = self.noise(), self.model.schedule
        if self.sampler == "dpmpp":
            return dpmpp_2m(denoise, x, schedule, self.levels, watch=self.watch)
        if self.sampler == "dpmpp-sde":
            return dpmpp_2m(denoise, x, schedule, self.levels, self.noise, eta=1.0, watch=self.watch)
        if self.sampler == "ddim":
            return ddim(denoise, x, schedule, self.levels, watch=self.watch)
        return ancestral(denoise, x, schedule, self.levels, self.noise, self.watch)

    def seen(self, t: int, x_t: Tensor, x0_hat: Tensor) -> None:
        """Tell the watcher, if there is one."""
        if self.watch:
            self.watch(t, x_t, x0_hat)


# ---- guided: a denoiser in, a denoiser out ---------------------------------------------------------------------------


def conditional(task: Task) -> Tensor:
    """The network was trained with the known pixels as input: its denoiser is E[x0 given x_t and the known pixels]."""
    return task.sample(task.model.conditional(task.observation))


def ddnm(task: Task) -> Tensor:
    """DDNM (Wang et al. 2022): put the known pixels into the predicted clean image, and go on from there.

    After this rectification the direction (the noise that a step keeps) is recomputed from x_t and the rectified image,
    as in the posterior q(x_s given x_t, x0) of their eq. 14. With the direction of the unrectified image a step would
    lead to a point that no noising of the rectified image gives.
    """

    def denoise(x_t: Tensor, t: int) -> Tensor:
        x0_hat = task.prior(x_t, t)
        return torch.where(task.observation.known, task.observation.pixels, x0_hat)  # eq. 13, with A a mask

    return task.sample(denoise)


def pigdm(task: Task, prior_variance: float = 1.0) -> Tensor:
    """Pseudoinverse guidance (Song et al. 2023, "Pseudoinverse-guided diffusion models for inverse problems").

    p(x0 given x_t) is taken for N(x0_hat, r_t^2 I), so y given x_t is Gaussian too, and Bayes' rule adds its score.
    Exact for a prior N(m, prior_variance I). At high levels the guided prediction can leave the range of images by far
    (a network's Jacobian is not quite as small there as sqrt(alpha_bar) asks), so it is clipped like any prediction.
    """
    schedule, observation = task.model.schedule, task.observation

    def denoise(x_t: Tensor, t: int) -> Tensor:
        variance = schedule.posterior_variance(t, prior_variance)  # r_t^2, their eq. 10
        x0_hat, _, pull = likelihood_gradient(task.prior, x_t, t, observation, variance)
        a = float(schedule.alpha_bar[t])
        return task.model.clip(x0_hat + (1 - a) / a**0.5 * pull)  # Tweedie: a step in score, in x0_hat

    return task.sample(denoise)


# ---- chains: the state is edited between steps -----------------------------------------------------------------------


def replacement(task: Task) -> Tensor:
    """Replacement (Song et al. 2021, score SDE, appendix I.2): known pixels are the observation, noised alike."""
    schedule, observation, x = task.model.schedule, task.observation, task.noise()
    for t, s in pairwise(task.levels):
        # 1. Known pixels: a fresh draw of q(x_t given y). Missing ones: the chain's.
        x = torch.where(observation.known, schedule.q_sample(observation.pixels, t, task.noise()), x)
        x0_hat = task.prior(x, t)
        task.seen(t, x, x0_hat)
        # 2. One ancestral step of the prior on the whole image.
        x = schedule.reverse_step(x, x0_hat, t, s, 1.0, task.noise())
    return x


def repaint_path(steps: int, jump: int, repeats: int) -> list[int]:
    """The indices that RePaint visits, from ``steps`` down to 0 with jumps back up (Lugmayr et al. 2022, appendix).

    Whenever index 1, 1 + jump, 1 + 2 jump, ... is reached, go back up ``jump`` and come down again, ``repeats`` - 1
    times each. 250 steps with jump 10 and 10 repeats are 2,410 downward steps.
    """
    left = dict.fromkeys(range(1, steps - jump + 1, jump), repeats - 1)
    path = [steps]
    while path[-1] > 0:
        path.append(path[-1] - 1)
        if left.get(path[-1], 0) > 0:
            left[path[-1]] -= 1
            path.extend(range(path[-1] + 1, path[-1] + jump + 1))
    return path


def repaint(task: Task, jump: int = JUMP, repeats: int = REPEATS) -> Tensor:
    """RePaint (Lugmayr et al. 2022, algorithm 1): replacement, with jumps back up to let the two parts agree."""
    schedule, observation, x = task.model.schedule, task.observation, task.noise()
    levels = task.levels[::-1]  # levels[index] is the noise level of a path's index
    for here, there in pairwise(repaint_path(len(levels) - 1, jump, repeats)):
        t, s = levels[here], levels[there]
        if there > here:  # 3. Up: noise again (line 9).
            x = schedule.renoise(x, t, s, task.noise())
            continue
        # 1. The unknown part: one ancestral step of the prior (lines 5 to 7).
        x0_hat = task.prior(x, t)
        task.seen(t, x, x0_hat)
        unknown = schedule.reverse_step(x, x0_hat, t, s, 1.0, task.noise())
        # 2. The known part: the observation at the level that was reached (lines 4 and 8).
        x = torch.where(observation.known, schedule.q_sample(observation.pixels, s, task.noise()), unknown)
    return x


def dps(task: Task, strength: float = 4.0) -> Tensor:
    """Diffusion posterior sampling (Chung et al. 2022, algorithm 1), with the norm of each sample for its own step.

    ``strength`` is the paper's zeta'; theirs is near 1 for 1,000 steps, and fewer steps want larger ones.
    """
    schedule, observation, x = task.model.schedule, task.observation, task.noise()
    for t, s in pairwise(task.levels):
        # 1. The gradient of |y - A x0_hat| with respect to x_t: (y - A x0_hat) / norm, through the network (line 7).
        x0_hat, _, pull = likelihood_gradient(task.prior, x, t, observation, 1.0)
        task.seen(t, x, x0_hat)
        misfit = torch.where(observation.known, observation.pixels - x0_hat, 0.0)
        norm = misfit.flatten(1).norm(dim=1).clamp(min=1e-8).view(-1, *[1] * (x.ndim - 1))
        # 2. An ancestral step of the prior, then down the gradient (lines 5, 6 and 7).
        x = schedule.reverse_step(x, x0_hat, t, s, 1.0, task.noise()) + 2 * strength * pull / norm
    return x


# ---- the registry ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """An inpainting method and what to know before choosing it."""

    run: Callable[[Task], Tensor]
    paper: str
    gradient: bool  # needs a backward pass through the network with every evaluation
    exact: str  # when its completions are draws from the posterior, given an exact denoiser
    evaluations: Callable[[int], int]  # network evaluations per completion, from the number of steps
    particles: int = 1  # states that go through the network for one completion

    def steps_for(self, evaluations: int) -> int:
        """The most steps that cost at most so many network evaluations a completion."""
        return max(n for n in range(1, evaluations + 1) if self.evaluations(n) <= evaluations)


def _path_length(steps: int) -> int:
    return sum(there < here for here, there in pairwise(repaint_path(steps, JUMP, REPEATS)))


METHODS = {
    "conditional": Method(conditional, "this network, trained on masks", False, "steps grow", lambda n: n),
    "replacement": Method(replacement, "Song et al. 2021, arXiv 2011.13456", False, "never", lambda n: n),
    "repaint": Method(repaint, "Lugmayr et al. 2022, arXiv 2201.09865", False, "never", _path_length),
    "ddnm": Method(ddnm, "Wang et al. 2022, arXiv 2212.00490", False, "never", lambda n: n),
    "dps": Method(dps, "Chung et al. 2022, arXiv 2209.14687", True, "never", lambda n: n),
    "pigdm": Method(pigdm, "Song et al. 2023, OpenReview 9_gsMA8MRKQ", True, "one isotropic Gaussian", lambda n: n),
    "mcgdiff": Method(
        mcgdiff, "Cardoso et al. 2023, arXiv 2308.07983", False, "steps and particles grow", lambda n: 16 * n, 16
    ),
    "tds": Method(tds, "Wu et al. 2023, arXiv 2306.17775", True, "steps and particles grow", lambda n: 8 * n, 8),
}


# ---- the driver ------------------------------------------------------------------------------------------------------


def inpaint(
    model: Model,
    images: Images,
    mask: NDArray[np.bool_] | str,
    samples: int = defaults.SAMPLES,
    method: str = defaults.METHOD,
    steps: int = defaults.STEPS,
    seed: int = 0,
    sampler: str = defaults.SAMPLER,
    rows: int | None = None,
    progress: Callable[[int], object] | None = None,
    watch: Watch | None = None,
    first: int = 0,
) -> Images:
    """Fill what ``mask`` hides, ``samples`` times over. Gives uint8 ``[N, samples, H, W]``.

    ``images`` is uint8 ``[N, H, W]``; ``mask`` is bool, True = missing, ``[N, H, W]`` or ``[H, W]``, or a spec such as
    ``"half:left"``. Known pixels come back bit for bit. The noise of image i, sample k depends on ``(seed, i, k)``
    alone, so ``rows`` (how many completions go through the network together) is a matter of speed and memory.
    ``first`` is the number of the first image, for a part of a set that is to get what the whole would; the mask must
    then be the array for that part. ``progress`` is told how many completions were finished. Raises InputError for bad
    input.
    """
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    if sampler not in defaults.SAMPLERS:
        raise InputError(f"unknown sampler {sampler!r}: choose one of {', '.join(defaults.SAMPLERS)}")
    if samples < 1:
        raise InputError(f"samples must be at least 1, not {samples}")
    if first and isinstance(mask, str):
        raise InputError("first needs a mask array: a spec is drawn for a whole set of images")
    model.check("noise")
    levels = spaced_levels(model.schedule.T, steps)
    images = as_images(images, "images")
    check_size(images, "images")
    mask = fit_mask(mask, images, seed)

    n, h, w = images.shape
    filled = np.repeat(images[:, None], samples, axis=1)
    flat = filled.reshape(n * samples, h, w)
    holes = np.flatnonzero(mask.any((1, 2)))  # an image with nothing missing needs no network
    todo = (holes[:, None] * samples + np.arange(samples)).ravel()
    if progress and len(todo) < len(flat):
        progress(len(flat) - len(todo))
    size = rows or max(1, ROWS * 28 * 28 // (h * w * METHODS[method].particles))
    with torch.no_grad():
        for start in range(0, len(todo), size):
            chunk = todo[start : start + size]
            image, sample = chunk // samples, chunk % samples
            hidden = torch.from_numpy(mask[image][:, None]).to(model.device)
            observation = Observation.of(to_x0(images[image]).to(model.device), hidden)
            noise = SampleNoise(seed, first + image, sample, (1, h, w), model.device)
            x0 = METHODS[method].run(Task(model, observation, noise, levels, sampler, watch))
            flat[chunk] = np.where(mask[image], model.pixels(x0), images[image])
            if progress:
                progress(len(chunk))
    return filled


def sample(
    model: Model,
    count: int,
    size: tuple[int, int] = (28, 28),
    steps: int = defaults.STEPS,
    seed: int = 0,
    sampler: str = defaults.SAMPLER,
    progress: Callable[[int], object] | None = None,
) -> Images:
    """New images from nothing: uint8 ``[count, H, W]``. It is inpainting with everything missing."""
    if count < 1:
        raise InputError(f"count must be at least 1, not {count}")
    blank = np.zeros((count, *size), np.uint8)
    return inpaint(model, blank, "all", 1, "conditional", steps, seed, sampler, progress=progress)[:, 0]


def fit_mask(mask: NDArray | str, images: Images, seed: int) -> NDArray[np.bool_]:
    """The mask for these images, bool ``[N, H, W]``: drawn from a spec, or checked. Raises InputError."""
    if isinstance(mask, str):
        n, height, width = images.shape
        return masks.parse(mask).draw(n, height, width, stream(seed, "mask"), images)
    given = np.asarray(mask)
    if given.dtype != np.bool_:
        raise InputError(f"the mask holds {given.dtype} values: give bool, True = missing")
    if given.ndim == 3 and len(given) == 1:
        given = given[0]
    if given.ndim not in (2, 3) or given.shape[-2:] != images.shape[1:]:
        raise InputError(
            f"the mask has shape {list(given.shape)}, the images have {list(images.shape)}: sizes must agree"
        )
    if given.ndim == 3 and len(given) != len(images):
        raise InputError(
            f"the mask is for {len(given)} images, but there are {len(images)}: give one each, or one for all"
        )
    return np.broadcast_to(given, images.shape)

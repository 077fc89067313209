"""EM rounds: training on incomplete images, each round on samples of the network of the round before.

Expectation-maximisation with a diffusion prior (Rozet et al. 2024, "Learning diffusion priors from observations by
expectation maximization"; after Dempster et al. 1977). The M-step is ordinary training on imputed images. Imputed
pixels are inputs only; the loss covers observed pixels. The E-step imputes training images anew, by one sample each.
It is incremental (Neal and Hinton 1998, "A view of the EM algorithm that justifies incremental, sparse, and other
variants"): in a short run on many images it takes a share of them, the least recently imputed first. Missing pixels of
an image that no network has imputed yet are masked, and their x_t is made from local means.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkfill import progress
from inkfill.core.rng import key
from inkfill.data import Dataset, Images
from inkfill.data.images import Mask
from inkfill.data.incomplete import incomplete
from inkfill.files import NOT_WHOLE, written_whole
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import Model
from inkfill.training.batches import Batches, Source

PART = 2048  # images per file
STEPS = 4  # NFE per sample; with 2, samples have half the standard deviation of samples with 8
TRAINED = 5  # images trained on for each one imputed: E-steps then take about a seventh of the run


@dataclass(frozen=True)
class Part:
    """The images of one file: ``rows`` of a group. ``first`` numbers them among the images of all groups."""

    group: int
    rows: slice
    first: int


@dataclass(frozen=True)
class Imputed:
    """Images with their current imputations."""

    images: Images
    rounds: NDArray[np.int64]  # [N]: the round that imputed each image; 0 before any has


class Rounds(Source):
    """The training images with their current imputations; ``begun`` counts the rounds after the first."""

    def __init__(self, batches: Batches, dataset: Dataset, folder: Path, count: int, seed: int, quiet: bool = False):
        super().__init__(batches, dataset)
        self.folder, self.count, self.seed, self.quiet = folder, count, seed, quiet
        self.holes: tuple[Mask, ...] = dataset.holes_of_groups
        self.blurred = [Imputed(images, np.zeros(len(images), np.int64)) for images in dataset.groups]
        self.current = self.blurred
        self.parts: list[Part] = []
        first = 0
        for group, images in enumerate(dataset.groups):
            starts = range(0, len(images), PART)
            self.parts += [Part(group, slice(i, min(i + PART, len(images))), first + i) for i in starts]
            first += len(images)

    def draw(self, rng: np.random.Generator, rows: slice) -> Any:
        """The rows of a batch."""
        group = self._group(rng)
        now = self.current[group]
        return self.batches.draw(now.images, rng, rows, self.holes[group], now.rounds > 0)

    def due(self, share: float) -> bool:
        """Whether the next round begins at this fraction of the run."""
        return self.begun + 1 < self.count and share >= (self.begun + 1) / self.count

    def advance(self, step: int, model: Callable[[], Model], beat: Callable[[], object] = lambda: None) -> None:
        """Begin the next round after ``step`` steps: write the files of imputed images that do not exist.

        The number of images depends on ``step``, not on the clock, so that a resumed run imputes the same ones. The
        round after ``n`` images trained on imputes ``n / TRAINED``. ``beat`` is called after every batch.
        """
        self.begun += 1
        trained = step * self.batches.size / self.begun
        share = min(1.0, trained / TRAINED / sum(int(incomplete(holes).sum()) for holes in self.holes))
        todo = [n for n in range(len(self.parts)) if self._read(n, step) is None]
        total = sum(self.parts[n].rows.stop - self.parts[n].rows.start for n in todo)
        network = None
        with progress.bar(total, desc=f"round {self.begun + 1}", disable=self.quiet) as bar:
            for n in todo:
                network = network or model()
                self._make(n, step, share, network, progress.both(bar, beat))
        self.resume(self.begun)

    def resume(self, begun: int) -> None:
        """Continue in a round. Raises FileNotFoundError if its files are missing."""
        self.begun, self.current = begun, self.blurred
        if not begun:
            return
        found = [self._read(n) for n in range(len(self.parts))]
        whole = [each for each in found if each is not None]
        if len(whole) < len(found):
            raise FileNotFoundError(f"files of an EM round are missing in {self._folder}")
        self.current = []
        for group in range(len(self.holes)):
            own = [each for each, part in zip(whole, self.parts, strict=True) if part.group == group]
            images, rounds = (np.concatenate(each) for each in zip(*((x.images, x.rounds) for x in own), strict=True))
            self.current.append(Imputed(images, rounds))

    @property
    def _folder(self) -> Path:
        return self.folder / f"{self.begun:02d}"

    def _read(self, number: int, step: int | None = None) -> Imputed | None:
        """One file; None if it is missing, broken, or of another step than the given one."""
        part = self.parts[number]
        like = self.blurred[part.group].images[part.rows]
        try:
            with np.load(self._folder / f"{number:05d}.npz", allow_pickle=False) as file:
                images, rounds, made = file["images"], file["rounds"], file["step"]
        except NOT_WHOLE:
            return None
        fits = (images.shape, images.dtype, rounds.shape) == (like.shape, like.dtype, like.shape[:1])
        return Imputed(images, rounds) if fits and (step is None or np.array_equal(made, step)) else None

    def _make(self, number: int, step: int, share: float, model: Model, progress: Callable[[int], object]) -> None:
        """Impute a share of the incomplete images of a part, the least recently imputed first, and write all of it.

        The noise of an image depends on the seed, the round and the image alone.
        """
        part = self.parts[number]
        now, holes = self.current[part.group], self.holes[part.group][part.rows]
        images, rounds = now.images[part.rows], now.rounds[part.rows].copy()
        todo = np.flatnonzero(incomplete(holes))
        oldest = todo[np.argsort(rounds[todo], kind="stable")]
        rounds[oldest[: math.ceil(share * len(oldest))]] = self.begun
        chosen = (rounds == self.begun).reshape(-1, *[1] * (holes.ndim - 1))
        seed = key(self.seed, "round", self.begun)
        found = inpaint(model, images, holes & chosen, 1, steps=STEPS, seed=seed, first=part.first, progress=progress)
        with written_whole(self._folder / f"{number:05d}.npz") as temporary:
            np.savez(temporary, images=found[:, 0], rounds=rounds, step=step)

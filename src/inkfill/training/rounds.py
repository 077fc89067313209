"""EM rounds: training on incomplete images, each round on samples of the network of the round before.

Expectation-maximisation with a diffusion prior (Rozet et al. 2024, "Learning diffusion priors from observations by
expectation maximization"; after Dempster et al. 1977). The M-step is ordinary training on imputed images. Imputed
pixels are inputs only; the loss covers observed pixels. The E-step imputes every training image anew, by one sample
each. In the first round there is no network yet: missing pixels are masked, and x_t is made from local means.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from inkfill import progress
from inkfill.core.rng import key
from inkfill.data import Dataset, Images
from inkfill.data.images import Mask
from inkfill.files import written_whole
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import Model
from inkfill.training.batches import Batches, Source

PART = 2048  # images per file
STEPS = 4  # NFE per sample: in training, new samples every round matter more than accurate ones


class Rounds(Source):
    """The training images with their current imputations; ``begun`` counts the rounds after the first."""

    def __init__(self, batches: Batches, dataset: Dataset, folder: Path, count: int, seed: int, quiet: bool = False):
        super().__init__(batches, dataset)
        self.folder, self.count, self.seed, self.quiet = folder, count, seed, quiet
        self.blurred: Images = dataset.train
        self.holes: Mask = dataset.holes["train"]
        self.images = self.blurred

    def draw(self, rng: np.random.Generator, rows: slice) -> Any:
        """The rows of a batch."""
        return self.batches.draw(self.images, rng, rows, self.holes, imputed=self.begun > 0)

    def due(self, share: float) -> bool:
        """Whether the next round begins at this fraction of the run."""
        return self.begun + 1 < self.count and share >= (self.begun + 1) / self.count

    def advance(self, model: Callable[[], Model], beat: Callable[[], object] = lambda: None) -> None:
        """Begin the next round: impute the images whose files do not exist. ``beat`` is called after every batch."""
        self.begun += 1
        folder, network = self.folder / f"{self.begun:02d}", None
        todo = [n for n in range(-(-len(self.blurred) // PART)) if self._read(folder, n) is None]
        total = sum(len(self.blurred[self._rows(n)]) for n in todo)
        with progress.bar(total, desc=f"round {self.begun + 1}", disable=self.quiet) as bar:
            for n in todo:
                network = network or model()
                self._make(folder, n, network, progress.both(bar, beat))
        self.images = self._of(folder)

    def resume(self, begun: int) -> None:
        """Continue in a round. Raises FileNotFoundError if its files are missing."""
        self.begun = begun
        self.images = self._of(self.folder / f"{begun:02d}") if begun else self.blurred

    def _of(self, folder: Path) -> Images:
        parts = [self._read(folder, n) for n in range(-(-len(self.blurred) // PART))]
        if any(part is None for part in parts):
            raise FileNotFoundError(f"files of an EM round are missing in {folder}")
        return np.concatenate([part for part in parts if part is not None])

    def _rows(self, number: int) -> slice:
        return slice(number * PART, min(len(self.blurred), (number + 1) * PART))

    def _read(self, folder: Path, number: int) -> Images | None:
        """One file of imputed images; None if it is missing or broken."""
        like = self.blurred[self._rows(number)]
        try:
            found: Images = np.load(folder / f"{number:05d}.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return found if (found.shape, found.dtype) == (like.shape, like.dtype) else None

    def _make(self, folder: Path, number: int, model: Model, progress: Callable[[int], object]) -> None:
        """Impute a part. The noise of an image depends on the seed, the round and the image alone."""
        rows = self._rows(number)
        seed = key(self.seed, "round", self.begun)
        found = inpaint(
            model, self.blurred[rows], self.holes[rows], 1, steps=STEPS, seed=seed, first=rows.start, progress=progress
        )
        with written_whole(folder / f"{number:05d}.npy") as temporary:
            np.save(temporary, found[:, 0])

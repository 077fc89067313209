"""Learning from images of which none is whole: in rounds, each on the completions of the network of the one before.

Expectation-maximisation with a diffusion prior (Rozet et al. 2024, "Learning diffusion priors from observations by
expectation maximization"; after Dempster et al. 1977). The M-step is training as ever, on completed images, but that
pixels which nobody has seen are never scored: a completion is what the network is shown, never what it should say. The
E-step completes every training image anew, one draw each. The first round has no network to complete them: there what
was never seen is missing, and what stands under the noise are blurred fills.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from inkfill import progress
from inkfill.checkpoint import written_whole
from inkfill.data import Dataset, Images
from inkfill.data.images import Mask
from inkfill.inpainting import inpaint
from inkfill.model import Model
from inkfill.rng import stream

PART = 2048  # images that are completed together, and kept in one file
STEPS = 4  # evaluations a completion: in training a new draw every round counts for more than a good one


class Rounds:
    """The training images as they are completed now; ``begun`` counts the rounds that had a network to do it."""

    def __init__(self, folder: Path, dataset: Dataset, count: int, seed: int, quiet: bool = False):
        self.folder, self.count, self.seed, self.quiet = folder, count, seed, quiet
        self.blurred: Images = dataset.train
        self.holes: Mask = dataset.holes["train"]
        self.images, self.begun = self.blurred, 0

    def due(self, share: float) -> bool:
        """Whether the next round begins, at this share of the run."""
        return self.begun + 1 < self.count and share >= (self.begun + 1) / self.count

    def begin(self, model: Callable[[], Model], met: Callable[[], object] = lambda: None) -> None:
        """Begin the next round: complete what is not in its files yet, and take the completions.

        ``met`` is called whenever some were made.
        """
        self.begun += 1
        folder, network = self.folder / f"{self.begun:02d}", None
        todo = [n for n in range(-(-len(self.blurred) // PART)) if self._read(folder, n) is None]
        total = sum(len(self.blurred[self._rows(n)]) for n in todo)
        with progress.bar(total, desc=f"round {self.begun + 1}", disable=self.quiet) as bar:
            for n in todo:
                network = network or model()
                self._make(folder, n, network, progress.meeting(bar, met))
        self.images = self._of(folder)

    def resume(self, begun: int) -> None:
        """Go on in a round that was begun. Raises FileNotFoundError where its completions are gone."""
        self.begun = begun
        self.images = self._of(self.folder / f"{begun:02d}") if begun else self.blurred

    def _of(self, folder: Path) -> Images:
        parts = [self._read(folder, n) for n in range(-(-len(self.blurred) // PART))]
        if any(part is None for part in parts):
            raise FileNotFoundError(f"completions of a round are missing in {folder}")
        return np.concatenate([part for part in parts if part is not None])

    def _rows(self, number: int) -> slice:
        return slice(number * PART, min(len(self.blurred), (number + 1) * PART))

    def _read(self, folder: Path, number: int) -> Images | None:
        """One file of completions; None where there is none that is whole."""
        like = self.blurred[self._rows(number)]
        try:
            found: Images = np.load(folder / f"{number:05d}.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return found if (found.shape, found.dtype) == (like.shape, like.dtype) else None

    def _make(self, folder: Path, number: int, model: Model, progress: Callable[[int], object]) -> None:
        """Complete a part. The noise of an image is its own in every round, whatever parts were made before."""
        rows = self._rows(number)
        seed = int(stream(self.seed, "round", self.begun).integers(2**62))
        found = inpaint(
            model, self.blurred[rows], self.holes[rows], 1, steps=STEPS, seed=seed, first=rows.start, progress=progress
        )
        with written_whole(folder / f"{number:05d}.npy") as temporary:
            np.save(temporary, found[:, 0])

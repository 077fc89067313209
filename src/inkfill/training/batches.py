"""Training batches: images, augmentation and masks from a data set, then noise and timesteps from the objective."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inkfill.core.masks import MaskSpec, as_planes
from inkfill.core.objectives import Batch
from inkfill.core.schedule import Schedule
from inkfill.data.augment import augmented
from inkfill.data.dataset import Dataset
from inkfill.data.images import Images, Mask, ValueRange


@dataclass(frozen=True)
class Batches:
    """How batches are drawn. ``make`` has the signature of ``Batch.draw``."""

    schedule: Schedule
    spec: MaskSpec
    values: ValueRange
    size: int  # images per step, over all processes
    augment: str = ""
    device: torch.device | str = "cpu"
    make: Callable[..., Any] = Batch.draw
    planes: int = 1  # of masks: 1, or one a channel

    def draw(
        self,
        images: Images,
        rng: np.random.Generator,
        rows: slice = slice(None),
        holes: Mask | None = None,
        imputed: NDArray[np.bool_] | None = None,
    ) -> Any:
        """Draw a global batch from ``rng`` and return its ``rows``.

        ``holes`` (``[N, H, W]``, or ``[N, H, W, C]`` by channel) marks missing pixels of ``images``; they are never
        scored. They are inputs in images that were ``imputed`` (``[N]``), and masked in others.
        """
        index = rng.integers(len(images), size=self.size)
        height, width = images.shape[1:3]
        missing = np.zeros((self.size, height, width), bool) if holes is None else holes[index]
        chosen, missing = augmented(self.augment, rng, images[index], missing)
        missing = as_planes(missing)
        hidden = self.spec.draw_planes(self.size, self.planes, height, width, rng, chosen)
        scored = torch.from_numpy(hidden & ~missing)
        masked = missing if imputed is None else missing & ~imputed[index][:, None, None, None]
        mask = torch.from_numpy(hidden | masked)
        return self.make(self.schedule, self.values.to_x0(chosen), mask, rng, scored, rows, self.device)


class Source:
    """The training images of a run. :class:`~inkfill.training.rounds.Rounds` is one that changes during the run."""

    begun = 0  # EM rounds so far

    def __init__(self, batches: Batches, dataset: Dataset):
        self.batches, self.groups = batches, dataset.groups

    def draw(self, rng: np.random.Generator, rows: slice) -> Any:
        """The rows of a batch of one size; a size is drawn with probability proportional to its number of images."""
        return self.batches.draw(self.groups[self._group(rng)], rng, rows)

    def _group(self, rng: np.random.Generator) -> int:
        """The size of a batch, as an index of the groups."""
        if len(self.groups) == 1:
            return 0
        counts = np.array([len(images) for images in self.groups])
        return int(rng.choice(len(self.groups), p=counts / counts.sum()))

    def due(self, share: float) -> bool:
        """Whether the images must change now, at this fraction of the run."""
        return False

    def advance(self, step: int, model: Callable[[], Any], beat: Callable[[], object] = lambda: None) -> None:
        """Change the images by the model after ``step`` steps; ``beat`` is called now and then, as a heartbeat."""

    def resume(self, begun: int) -> None:
        """Continue after ``begun`` changes."""

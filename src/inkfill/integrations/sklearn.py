"""An imputer for scikit-learn: images with NaN in, complete images out.

imputer = InkfillImputer(minutes=10).fit(images)      # float [N, H, W] or [N, H, W, C], NaN where missing
filled = imputer.transform(images)

Needs ``pip install inkfill[sklearn]``.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import InputTags

from inkfill.data.images import Images
from inkfill.data.masks import holes_of
from inkfill.errors import InputError
from inkfill.files import claim, claimed, written_whole
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import Model, load
from inkfill.training.config import TrainConfig
from inkfill.training.run import train


class InkfillImputer(TransformerMixin, BaseEstimator):
    """Train on images, complete or not, and fill the missing pixels of these and similar images.

    Training lasts ``minutes``, or ``steps`` if given. ``transform`` returns the mean of ``samples`` samples, or a
    single sample with ``sample_posterior``. ``folder`` stores the run and its weights; without it they are deleted with
    the imputer. ``augment`` and ``start`` are those of ``inkfill train``.
    """

    def __init__(
        self,
        minutes: float = 10.0,
        samples: int = 8,
        seed: int = 0,
        steps: int = 0,
        augment: str = "",
        start: str = "",
        folder: str = "",
        sample_posterior: bool = False,
    ):
        self.minutes, self.samples, self.seed, self.steps = minutes, samples, seed, steps
        self.augment, self.start, self.folder, self.sample_posterior = augment, start, folder, sample_posterior

    def __sklearn_tags__(self) -> Any:
        """The estimator tags of scikit-learn: images have more than two dimensions and may have NaN."""
        tags = super().__sklearn_tags__()
        tags.input_tags = InputTags(two_d_array=False, three_d_array=True, allow_nan=True)
        return tags

    def fit(self, images: Images, y: None = None) -> "InkfillImputer":
        """Train on float images, NaN where missing. Raises InputError."""
        images = _floats(images)
        if not self.steps and not self.minutes > 0:
            raise InputError(f"minutes: must be above 0 without steps, not {self.minutes!r}")
        self._kept = None if self.folder else tempfile.TemporaryDirectory(prefix="inkfill-")
        folder = Path(self.folder or self._kept.name)  # type: ignore[union-attr]
        ours = claimed(folder, "imputer")
        if (folder / "images.npy").exists() and not ours:
            raise InputError(f"folder: {folder} holds images.npy, which inkfill did not write: give another folder")
        claim(folder, "imputer")
        with written_whole(folder / "images.npy") as temporary:
            np.save(temporary, images)
        config = TrainConfig(
            data=str(folder / "images.npy"),
            data_mask="nan" if bool(holes_of(images).any()) else "",
            minutes=0.0 if self.steps else self.minutes,
            steps=self.steps or 1,
            seed=self.seed,
            augment=self.augment,
            start=self.start,
        )
        if not train(config, folder / "run", overwrite=ours, quiet=True):
            raise KeyboardInterrupt
        self.model_: Model = load(folder / "run" / "model.safetensors")
        return self

    def transform(self, images: Images) -> NDArray[Any]:
        """The images with their NaN filled; all other values unchanged, bit for bit."""
        images = _floats(images)
        if not hasattr(self, "model_"):
            raise InputError("this imputer is not fitted: call fit first")
        if not holes_of(images).any():
            return images
        samples = 1 if self.sample_posterior else self.samples
        filled: NDArray[Any] = inpaint(self.model_, images, "nan", samples, seed=self.seed)
        return np.where(np.isnan(images), filled.mean(1, dtype=np.float64).astype(images.dtype), images)


def _floats(images: Any) -> Images:
    """Float images, masked values as NaN. Raises InputError for other dtypes."""
    array = np.ma.filled(np.ma.asarray(images), np.nan) if np.asarray(images).dtype.kind == "f" else None
    if array is None or array.ndim not in (3, 4):
        raise InputError("images must be float [N, H, W] or [N, H, W, C], NaN where missing")
    return array

"""Images and masks of users: read from files, checked, and converted to x0 and back."""

from inkfill.data.dataset import Dataset
from inkfill.data.datasets import load, mnist
from inkfill.data.images import BYTES, Images, ValueRange, as_images, black_floor, to_uint8, to_x0
from inkfill.data.readers import read_images
from inkfill.data.rendered import rendered

__all__ = [
    "BYTES", "Dataset", "Images", "ValueRange", "as_images", "black_floor", "load", "mnist", "read_images", "rendered",
    "to_uint8", "to_x0",
]  # fmt: skip

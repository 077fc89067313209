"""Fixtures of the training tests: small images, and a short validation."""

from pathlib import Path

import numpy as np
import pytest

from inkfill.training import validation


@pytest.fixture(autouse=True)
def short_validation(monkeypatch) -> None:
    """40 images per validation, not 2,000."""
    monkeypatch.setattr(validation, "SIZE", 40)
    monkeypatch.setattr(validation, "PARTS", 1)


@pytest.fixture(scope="session")
def small_digits(digits) -> np.ndarray:
    """The middle of 64 rendered digits, uint8 [64, 12, 12]."""
    return np.ascontiguousarray(digits[:, 8:20, 8:20])


@pytest.fixture(scope="session")
def images_file(tmp_path_factory, small_digits) -> Path:
    """``small_digits`` in a file."""
    path = tmp_path_factory.mktemp("data") / "digits.npy"
    np.save(path, small_digits)
    return path

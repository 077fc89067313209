"""The imputer: NaN in, numbers out, and what was there as it was."""

import numpy as np
import pytest

from inkfill.errors import InputError
from inkfill.imputer import InkfillImputer


def test_it_learns_and_fills(tmp_path, digits):
    images = digits.astype(np.float32) / 255
    hole = np.random.default_rng(0).random(images.shape) < 0.4
    images[hole] = np.nan
    imputer = InkfillImputer(steps=6, samples=2, folder=str(tmp_path / "kept"))
    whole = imputer.fit_transform(images)
    assert whole.dtype == np.float32
    assert np.isfinite(whole).all()
    assert (whole[~hole] == images[~hole]).all()
    assert (tmp_path / "kept" / "run" / "model.safetensors").exists()
    assert (imputer.transform(images) == whole).all()
    masked = np.ma.masked_array(np.where(hole, 0.5, images), hole)
    assert (imputer.transform(masked) == whole).all()
    plain = np.where(hole, np.float32(0.5), images)
    assert (imputer.transform(plain) == plain).all()


def test_it_has_the_manners_of_scikit_learn():
    imputer = InkfillImputer(minutes=3)
    assert InkfillImputer(**imputer.get_params()).get_params() == imputer.get_params()
    assert imputer.set_params(samples=4).samples == 4
    with pytest.raises(InputError, match="unknown setting"):
        imputer.set_params(epochs=3)
    with pytest.raises(InputError, match="call fit first"):
        imputer.transform(np.zeros((2, 8, 8)))
    with pytest.raises(InputError, match="float"):
        imputer.fit(np.zeros((20, 8, 8), np.uint8))

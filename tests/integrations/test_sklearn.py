"""The imputer: NaN filled, all other values unchanged."""

import shutil

import numpy as np
import pytest
from sklearn.utils import estimator_checks

from inkfill.errors import InputError
from inkfill.integrations import sklearn as imputer_module
from inkfill.integrations.sklearn import InkfillImputer


@pytest.mark.check
def test_fit_and_transform(tmp_path, digits):
    fit_and_transform(tmp_path, digits)


def test_fit_and_transform_with_given_weights(tmp_path, digits, checkpoint, monkeypatch):
    def train(config, folder, **settings):
        assert (config.data_mask, config.steps) == ("nan", 6)
        folder.mkdir()
        return shutil.copy(checkpoint, folder / "model.safetensors")

    monkeypatch.setattr(imputer_module, "train", train)
    fit_and_transform(tmp_path, digits)


def fit_and_transform(tmp_path, digits):
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
    draws = [imputer.set_params(sample_posterior=True, seed=seed).transform(images) for seed in (0, 0, 1)]
    assert (draws[0] == draws[1]).all()
    assert (draws[0][~hole] == images[~hole]).all()
    assert (draws[0] != draws[2])[hole].any()
    assert (draws[0] != whole)[hole].any()  # a mean of two samples
    imputer.set_params(sample_posterior=False, seed=0)
    masked = np.ma.masked_array(np.where(hole, 0.5, images), hole)
    assert (imputer.transform(masked) == whole).all()
    plain = np.where(hole, np.float32(0.5), images)
    assert (imputer.transform(plain) == plain).all()


@pytest.mark.parametrize(
    "check",
    [
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_get_params_invariance",
        "check_set_params",
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_estimators_unfitted",
        "check_transformer_n_iter",
        "check_mixin_order",
    ],
)
def test_the_checks_of_scikit_learn(check):
    """Those that do not need two-dimensional data."""
    getattr(estimator_checks, check)("InkfillImputer", InkfillImputer())


def test_settings_and_refusals():
    imputer = InkfillImputer(minutes=3)
    assert InkfillImputer(**imputer.get_params()).get_params() == imputer.get_params()
    assert imputer.set_params(samples=4).samples == 4
    with pytest.raises(ValueError, match="Invalid parameter 'epochs'"):  # of scikit-learn
        imputer.set_params(epochs=3)
    with pytest.raises(InputError, match="call fit first"):
        imputer.transform(np.zeros((2, 8, 8)))
    with pytest.raises(InputError, match="float"):
        imputer.fit(np.zeros((20, 8, 8), np.uint8))


def test_an_interrupted_fit_raises(monkeypatch, digits):
    monkeypatch.setattr(imputer_module, "train", lambda *_, **__: False)
    with pytest.raises(KeyboardInterrupt):
        InkfillImputer(steps=1).fit(digits[:20].astype(np.float32))

"""The imputer: NaN in, numbers out, and what was there as it was."""

import numpy as np
import pytest
from sklearn.utils import estimator_checks

from inkfill.errors import InputError
from inkfill.integrations import sklearn as imputer_module
from inkfill.integrations.sklearn import InkfillImputer


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
    draws = [imputer.set_params(sample_posterior=True, seed=seed).transform(images) for seed in (0, 0, 1)]
    assert (draws[0] == draws[1]).all()
    assert (draws[0][~hole] == images[~hole]).all()
    assert (draws[0] != draws[2])[hole].any()
    assert (draws[0] != whole)[hole].any()  # which is a mean of two
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
def test_checks_of_scikit_learn(check):
    """Those that ask for no tables of two axes, which images are not."""
    getattr(estimator_checks, check)("InkfillImputer", InkfillImputer())


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


def test_a_fit_that_was_interrupted_is_none(monkeypatch, digits):
    monkeypatch.setattr(imputer_module, "train", lambda *_, **__: False)
    with pytest.raises(KeyboardInterrupt):
        InkfillImputer(steps=1).fit(digits[:20].astype(np.float32))

"""The imputer as an estimator of scikit-learn."""

import numpy as np
import pytest

from inkfill.errors import InputError
from inkfill.integrations.sklearn import InkfillImputer

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    images = rng.random((12, 8, 8)).astype(np.float32)
    images[rng.random(images.shape) < 0.2] = np.nan
    return images


def test_a_fitted_pipeline_that_ends_in_the_imputer_transforms(images):
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    pipeline = make_pipeline(FunctionTransformer(), InkfillImputer(steps=2, samples=1))
    assert np.isfinite(pipeline.fit(images).transform(images)).all()


def test_tags_and_the_state_of_being_fitted(images):
    from sklearn.exceptions import NotFittedError
    from sklearn.utils import get_tags
    from sklearn.utils.validation import check_is_fitted

    imputer = InkfillImputer(steps=2, samples=1)
    tags = get_tags(imputer)
    assert tags.input_tags.allow_nan
    assert tags.input_tags.three_d_array
    assert not tags.target_tags.required
    with pytest.raises(NotFittedError):
        check_is_fitted(imputer)
    check_is_fitted(imputer.fit(images))


def test_training_for_no_time_is_refused(images):
    with pytest.raises(InputError, match="minutes"):
        InkfillImputer(minutes=0).fit(images)


def test_a_folder_keeps_other_peoples_files(images, tmp_path):
    (tmp_path / "images.npy").write_bytes(b"mine")
    with pytest.raises(InputError, match="did not write"):
        InkfillImputer(steps=2, folder=str(tmp_path)).fit(images)
    assert (tmp_path / "images.npy").read_bytes() == b"mine"
    own = tmp_path / "own"
    for _ in range(2):  # its own folder is used again
        InkfillImputer(steps=2, samples=1, folder=str(own)).fit(images)


def test_the_checks_of_scikit_learn():
    """All that it offers: by the tags it leaves out those that give two-dimensional tables, which are no images."""
    from sklearn.utils.estimator_checks import estimator_checks_generator

    checks = list(estimator_checks_generator(InkfillImputer(steps=1, samples=1)))
    assert checks
    for estimator, check in checks:
        check(estimator)

"""EM rounds: training on incomplete images."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import GREY, LAWS, RANGE, TINY, beside_posterior, incomplete, of_one_level, tiny_model
from inkfill import data
from inkfill.core.masks import parse
from inkfill.core.rng import stream
from inkfill.core.schedule import Schedule
from inkfill.data import masks
from inkfill.data.images import BYTES
from inkfill.filling.inpaint import inpaint
from inkfill.models.checkpoint import load_network, load_state
from inkfill.models.model import load
from inkfill.training.batches import Batches
from inkfill.training.config import TrainConfig
from inkfill.training.rounds import Rounds
from inkfill.training.run import train

SMALL = TrainConfig(steps=12, batch_size=8, warmup=2, rounds=3, data_mask="nan", unet=TINY, dtype="float32")


@pytest.fixture
def config(tmp_path, small_digits) -> TrainConfig:
    """Settings for digits with half of their pixels missing."""
    np.save(tmp_path / "x.npy", incomplete(small_digits)[0])
    return dataclasses.replace(SMALL, data=str(tmp_path / "x.npy"))


def weights(folder):
    return load_network(folder / "model.safetensors")[0].state_dict()


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def read(folder, begun, number=0):
    """The images of a file, and the round that imputed each of them."""
    with np.load(folder / "rounds" / f"{begun:02d}" / f"{number:05d}.npz") as file:
        return file["images"], file["rounds"]


def test_values_of_missing_pixels_change_no_weight(tmp_path, small_digits):
    """Bit for bit over three rounds, with other values under the masks in a file."""
    hole = np.random.default_rng(0).random(small_digits.shape) < 0.5
    garbage = np.where(hole, np.random.default_rng(1).integers(0, 256, small_digits.shape), small_digits).astype(
        np.uint8
    )
    np.save(tmp_path / "mask.npy", hole)
    found = []
    for name, images in (("a", small_digits), ("b", garbage)):
        np.save(tmp_path / f"{name}.npy", images)
        config = dataclasses.replace(SMALL, data=str(tmp_path / f"{name}.npy"), data_mask=str(tmp_path / "mask.npy"))
        assert train(config, tmp_path / name, quiet=True)
        found.append(weights(tmp_path / name))
    assert same(*found)
    assert len(list((tmp_path / "a" / "rounds").rglob("*.npz"))) == 2


def test_a_killed_round_resumes_to_the_same_weights(config, tmp_path, monkeypatch):
    """Stopped while images are imputed, and in the middle of a later round."""
    assert train(config, tmp_path / "whole", quiet=True)
    out, make, calls = tmp_path / "killed", Rounds._make, []

    def killed(self, *arguments):
        calls.append(self.begun)
        if len(calls) == 1:
            raise KeyboardInterrupt
        make(self, *arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Rounds, "_make", killed)
    for attempt in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(config, out, resume=attempt > 0, quiet=True)
        assert load_state(out / "state.pt")["step"] == 4 * (attempt + 1)
    assert train(config, out, resume=True, quiet=True)
    assert calls == [1, 1, 2]  # whole files were not made again
    assert same(weights(out), weights(tmp_path / "whole"))


@pytest.fixture
def several_sizes(tmp_path, digits) -> TrainConfig:
    """Settings for a folder of images of two sizes, a third of them complete."""
    (tmp_path / "images").mkdir()
    for i, image in enumerate(digits):
        image = image[8:20, 8:20] if i % 3 else image[9:18, 6:20]
        alpha = np.where(np.random.default_rng(i).random(image.shape) < (0.5 if i % 4 else 0.0), 0, 255)
        Image.fromarray(np.stack([image, alpha.astype(np.uint8)], -1)).save(tmp_path / "images" / f"{i:02d}.png")
    return dataclasses.replace(SMALL, data=str(tmp_path / "images"), data_mask="alpha")


def test_images_of_every_size_are_imputed_and_rounds_resume_exactly(several_sizes, tmp_path, monkeypatch):
    """Stopped after each file of imputed images."""
    assert train(several_sizes, tmp_path / "whole", quiet=True)
    out, make, calls = tmp_path / "killed", Rounds._make, []

    def killed(self, number, *arguments):
        make(self, number, *arguments)
        calls.append((self.begun, number))
        raise KeyboardInterrupt

    monkeypatch.setattr(Rounds, "_make", killed)
    for attempt in range(4):
        with pytest.raises(KeyboardInterrupt):
            train(several_sizes, out, resume=attempt > 0, quiet=True)
    assert train(several_sizes, out, resume=True, quiet=True)
    assert calls == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert same(weights(out), weights(tmp_path / "whole"))
    dataset = data.load(several_sizes.data, "alpha")
    for number, (images, holes) in enumerate(zip(dataset.groups, dataset.holes_of_groups, strict=True)):
        imputed, rounds = read(out, 2, number)
        assert imputed.shape == holes.shape == images.shape
        assert (imputed[~holes] == images[~holes]).all()
        for begun in (1, 2):
            assert (imputed[rounds == begun] != images[rounds == begun])[holes[rounds == begun]].mean() > 0.5
        assert (imputed[rounds == 0] == images[rounds == 0]).all()


@pytest.mark.parametrize(("steps", "expected"), [(20, 8), (50, 20), (200, 52)])
def test_a_round_imputes_by_the_number_of_images_trained_on(steps, expected, tmp_path, small_digits):
    """One for every five, but each once at most; the least recently imputed first, and no complete ones."""
    holes = np.random.default_rng(0).random(small_digits.shape) < 0.5
    holes[:12] = False
    dataset = data.Dataset("x", small_digits, small_digits, small_digits, {}, holes={"train": holes})
    source = Rounds(Batches(Schedule.named("cosine"), parse("all"), BYTES, 2), dataset, tmp_path, 3, 0, quiet=True)
    chosen = []
    for begun in (1, 2):
        source.advance(begun * steps, tiny_model)
        chosen.append(set(np.flatnonzero(source.current[0].rounds == begun)))
    assert [len(each) for each in chosen] == [expected, expected]
    assert not set(range(12)) & (chosen[0] | chosen[1])
    assert not chosen[0] & chosen[1] or expected == 52


def test_imputed_images_of_another_step_are_made_again(config, tmp_path):
    """As in a run that is extended from its state before the decay, which has begun fewer rounds."""
    assert train(config, tmp_path / "run", quiet=True)
    dataset = data.load(config.data, "nan")
    batches = Batches(Schedule.named("cosine"), parse("all"), BYTES, 2)
    source = Rounds(batches, dataset, tmp_path / "run" / "rounds", 3, 0, quiet=True)
    before = read(tmp_path / "run", 1)[0]
    source.advance(4, tiny_model)
    assert (source.current[0].images == before).all()
    source.begun = 0
    source.advance(5, tiny_model)
    assert (source.current[0].images != before).any()


def test_overwriting_a_run_removes_its_imputed_images(config, tmp_path, capsys):
    assert train(config, tmp_path / "run", quiet=True)
    assert capsys.readouterr() == ("", "")
    assert train(dataclasses.replace(config, rounds=1), tmp_path / "run", overwrite=True, quiet=True)
    assert not (tmp_path / "run" / "rounds").exists()


def test_imputed_images_keep_observed_pixels(config, tmp_path):
    assert train(config, tmp_path / "run", quiet=True)
    dataset = data.load(config.data, "nan")
    imputed, rounds = read(tmp_path / "run", 2)
    missing, done = dataset.holes["train"], rounds > 0
    assert imputed.dtype == np.float32
    assert (imputed[~missing] == dataset.train[~missing]).all()
    assert (imputed[done][missing[done]] != dataset.train[done][missing[done]]).mean() > 0.5  # the rest is black
    assert (imputed[~done] == dataset.train[~done]).all()
    recipe = load_network(tmp_path / "run" / "model.safetensors")[1]
    assert recipe["training"]["data_mask"] == "nan"
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert any("validation" in row for row in rows)


# ---- analytic posteriors ---------------------------------------------------------------------------------------------


@pytest.mark.check
@pytest.mark.parametrize("name", LAWS)
def test_half_observed_training_images_give_the_posterior_of_complete_ones(name, tmp_path, record_property):
    """4,096 images with half of their pixels missing; then 64 new ones with none or half observed, 64 samples each.

    The root mean square error of a posterior mean has a Monte Carlo part of an eighth of the posterior's standard
    deviation; the rest of each tolerance is for 1,500 steps. Images filled with local means would be too smooth: a
    standard deviation of pixels of .17 instead of .25.
    """
    law, rng = LAWS[name], stream(0, "law", name)
    images = of_one_level(law, 4096, rng)
    np.save(tmp_path / "x.npy", np.where(rng.random(images.shape) < 0.5, np.nan, images))
    config = dataclasses.replace(
        SMALL, data=str(tmp_path / "x.npy"), masks="pixels:0.5@1,all@1", steps=1500, batch_size=32, warmup=50, ema=0.98,
        rounds=4, low=RANGE[0], high=RANGE[1],
    )  # fmt: skip
    assert train(config, tmp_path / "run", quiet=True)
    model, new = load(tmp_path / "run" / "model.safetensors", "cpu", "float32"), of_one_level(law, 64, rng)
    for observed, mask in ((0, "all"), (32, "pixels:0.5")):
        missing = masks.fit(mask, new)
        filled = inpaint(model, new, missing, 64, steps=25, value_range=RANGE)
        error, deviation, expected, pixels, levels = beside_posterior(law, new, missing, filled)
        record_property(
            "figures", f"EM rounds: {name}, {mask} missing: error of posterior means {error:.3f}, standard deviation "
            f"{deviation:.3f} (exact {expected:.3f}), of pixels {pixels:.3f} (exact {GREY})",
        )  # fmt: skip
        assert error < expected / 8 + 0.04
        assert abs(deviation - expected) < 0.06
        assert abs(pixels - GREY) < 0.05
        if name == "mixture":
            right = (levels > 0) == (new.mean((1, 2)) > 0)[:, None] if observed else (levels > 0).mean() - 0.7
            assert right.mean() > 0.97 if observed else abs(right) < 0.08

"""Learning from images of which none is whole."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from helpers import GREY, LAWS, RANGE, TINY, beside_posterior, of_one_level
from inkfill import data
from inkfill.core import masks as specs
from inkfill.core.objectives import draw_batch, v_errors
from inkfill.core.rng import stream
from inkfill.core.schedule import Schedule
from inkfill.data import masks
from inkfill.data.incomplete import blurred
from inkfill.errors import InputError
from inkfill.filling.inpaint import inpaint
from inkfill.models.checkpoint import load_network, load_state
from inkfill.models.model import load
from inkfill.training.config import TrainConfig
from inkfill.training.rounds import Rounds
from inkfill.training.run import train

SMALL = TrainConfig(steps=12, batch_size=8, warmup=2, rounds=3, data_mask="nan", unet=TINY, dtype="float32")
SCHEDULE = Schedule.named("cosine")


def holed(digits, seed=0):
    """The digits as fractions, half of their pixels NaN; and where."""
    hole = np.random.default_rng(seed).random(digits.shape) < 0.5
    return np.where(hole, np.nan, digits / np.float32(255)).astype(np.float32), hole


def weights(folder):
    return load_network(folder / "model.safetensors")[0].state_dict()


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_holes_are_filled_from_around_and_never_read():
    images = np.arange(4 * 12 * 10, dtype=np.float64).reshape(4, 12, 10)
    hole = np.zeros((4, 12, 10), bool)
    hole[0, 3, 4] = hole[1] = hole[2, :6] = True
    filled = blurred(np.where(hole, np.nan, images), hole)
    around = images[0, 2:5, 3:6].sum() - images[0, 3, 4]
    assert filled[0, 3, 4] == pytest.approx(around / 8)
    assert (filled[~hole] == images[~hole]).all()
    assert np.isfinite(filled).all()
    assert filled[1, 0, 0] == pytest.approx(images[~hole].mean())  # of an image with nothing in it, that of all
    assert abs(filled[2, 5] - images[2, 6]).max() < 12
    colour = np.stack([images, images + 1, images + 2], -1).astype(np.uint8)
    assert blurred(colour, hole).dtype == np.uint8


@pytest.mark.parametrize("kind", ["nan", "spec", "alpha", "files"])
def test_holes_by_every_door(kind, tmp_path, digits):
    floats, hole = holed(digits)
    if kind == "nan":
        np.save(tmp_path / "x.npy", floats)
        found = data.load(str(tmp_path / "x.npy"), "nan")
    elif kind == "spec":
        np.save(tmp_path / "x.npy", digits)
        found = data.load(str(tmp_path / "x.npy"), "pixels:0.5", 3)
    elif kind == "alpha":
        np.save(tmp_path / "x.npy", np.stack([digits, np.where(hole, 0, 255).astype(np.uint8)], -1))
        found = data.load(str(tmp_path / "x.npy"), "alpha")
    else:
        np.save(tmp_path / "x.npy", digits)
        np.save(tmp_path / "m.npy", hole)
        found = data.load(str(tmp_path / "x.npy"), str(tmp_path / "m.npy"))
    whole = data.load(str(tmp_path / "x.npy"))
    for split in ("train", "validation", "test"):
        images, holes = found.split(split), found.holes[split]
        assert images.shape == holes.shape
        assert 0.4 < holes.mean() < 0.6
        original = whole.split(split)[..., 0] if kind == "alpha" else whole.split(split)
        assert (images[~holes] == original[~holes]).all()
        if kind == "files":
            order = np.random.Generator(np.random.Philox(0)).permutation(len(digits))
            at = {"train": order[:-12], "validation": order[-12:-6], "test": order[-6:]}[split]
            assert (holes == hole[at]).all()


def test_what_cannot_be_learnt_from_is_refused(tmp_path, digits):
    np.save(tmp_path / "x.npy", digits)
    for mask, words in (("all", "too few to learn from"), ("none", "no pixel is missing"), ("nosuch", "nosuch")):
        with pytest.raises(InputError, match=words):
            data.load(str(tmp_path / "x.npy"), mask)
    long = "+".join(["half:left"] * 40)
    assert data.load(str(tmp_path / "x.npy"), long).holes["train"].any()  # a spec, though no file can be called so
    with pytest.raises(InputError, match="objectives v and eps"):
        dataclasses.replace(SMALL, objective="few").check()


def test_what_was_never_seen_is_not_scored(digits, model):
    """A batch knows holes: before a network filled them they are missing, after it they are known; scored never."""
    hole = np.random.default_rng(0).random(digits.shape) < 0.5
    spec = specs.parse("half:left")
    for filled in (False, True):
        batch = draw_batch(SMALL, SCHEDULE, digits, spec, stream(0), holes=hole, filled=filled)
        index = stream(0).integers(len(digits), size=8)
        unseen = torch.from_numpy(hole[index][:, None])
        left = torch.zeros_like(unseen)
        left[..., :14] = True
        assert torch.equal(batch.mask, left if filled else left | unseen)
        assert torch.equal(batch.scored, left & ~unseen)
        assert batch.count == float(batch.scored.sum())
        assert (v_errors(model.net, batch)[~batch.scored] == 0).all()


def test_garbage_in_the_holes_changes_no_weight(tmp_path, digits):
    """Bit for bit, over three rounds: by a file of masks, with other values where they hide."""
    hole = np.random.default_rng(0).random(digits.shape) < 0.5
    garbage = np.where(hole, np.random.default_rng(1).integers(0, 256, digits.shape), digits).astype(np.uint8)
    np.save(tmp_path / "mask.npy", hole)
    found = []
    for name, images in (("a", digits), ("b", garbage)):
        np.save(tmp_path / f"{name}.npy", images)
        config = dataclasses.replace(SMALL, data=str(tmp_path / f"{name}.npy"), data_mask=str(tmp_path / "mask.npy"))
        assert train(config, tmp_path / name, quiet=True)
        found.append(weights(tmp_path / name))
    assert same(*found)
    assert len(list((tmp_path / "a" / "rounds").rglob("*.npy"))) == 2


def test_a_killed_round_goes_on_to_the_same_weights(tmp_path, digits, monkeypatch):
    """Stopped while images are completed, and in the middle of a later round; then to the end."""
    np.save(tmp_path / "x.npy", holed(digits)[0])
    config = dataclasses.replace(SMALL, data=str(tmp_path / "x.npy"))
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
    assert calls == [1, 1, 2]  # the completions that were whole were not made again
    assert same(weights(out), weights(tmp_path / "whole"))


def test_a_run_that_is_written_over_leaves_no_completions(tmp_path, digits, capsys):
    np.save(tmp_path / "x.npy", holed(digits)[0])
    config = dataclasses.replace(SMALL, data=str(tmp_path / "x.npy"))
    assert train(config, tmp_path / "run", quiet=True)
    assert capsys.readouterr() == ("", "")
    assert train(dataclasses.replace(config, rounds=1), tmp_path / "run", overwrite=True, quiet=True)
    assert not (tmp_path / "run" / "rounds").exists()


def test_completions_of_a_round_keep_what_was_seen(tmp_path, digits):
    np.save(tmp_path / "x.npy", holed(digits)[0])
    config = dataclasses.replace(SMALL, data=str(tmp_path / "x.npy"))
    assert train(config, tmp_path / "run", quiet=True)
    dataset = data.load(str(tmp_path / "x.npy"), "nan")
    made = np.load(next((tmp_path / "run" / "rounds" / "02").glob("*.npy")))
    assert made.dtype == np.float32
    assert (made[~dataset.holes["train"]] == dataset.train[~dataset.holes["train"]]).all()
    assert (
        made[dataset.holes["train"]] != dataset.train[dataset.holes["train"]]
    ).mean() > 0.5  # others are black in both
    recipe = load_network(tmp_path / "run" / "model.safetensors")[1]
    assert recipe["training"]["data_mask"] == "nan"
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert any("validation" in row for row in rows)


# ---- images whose law is known ---------------------------------------------------------------------------------------


@pytest.mark.check
@pytest.mark.parametrize("name", LAWS)
def test_learnt_from_halves_the_posterior_is_that_of_whole_images(name, tmp_path, record_property):
    """4,096 images with half of their pixels never seen; then 64 new ones with nothing or half known, 64 draws each.

    The root mean square of the error of a posterior mean has a Monte Carlo part of an eighth of the posterior's
    deviation; the rest of each tolerance is for 1,500 steps. Images whose holes were filled from around would be too
    smooth: pixels would deviate by .17 where it is .25.
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
    for known, mask in ((0, "all"), (32, "pixels:0.5")):
        hidden = masks.fit(mask, new)
        filled = inpaint(model, new, hidden, 64, steps=25, value_range=RANGE)
        off, spread, want, pixels, levels = beside_posterior(law, new, hidden, filled)
        record_property(
            "figures", f"learnt from halves: {name}, {mask} missing: posterior means off by {off:.3f}, "
            f"deviation {spread:.3f} where it is {want:.3f}, of pixels {pixels:.3f} where it is {GREY}",
        )  # fmt: skip
        assert off < want / 8 + 0.04
        assert abs(spread - want) < 0.06
        assert abs(pixels - GREY) < 0.05
        if name == "mixture":
            right = (levels > 0) == (new.mean((1, 2)) > 0)[:, None] if known else (levels > 0).mean() - 0.7
            assert right.mean() > 0.97 if known else abs(right) < 0.08

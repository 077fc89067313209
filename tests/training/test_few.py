"""Few-step models: the loss, the teacher's pairs, and networks that give samples."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

import inkfill
from helpers import GREY, LAWS, RANGE, TINY, beside_posterior, of_one_level, tiny_model
from inkfill.core import masks as specs
from inkfill.core.rng import SampleNoise, key, stream
from inkfill.core.schedule import Schedule
from inkfill.core.trainer import Trainer, optimisers
from inkfill.core.unet import UNet, UNetConfig
from inkfill.data import masks
from inkfill.data.images import BYTES, ValueRange
from inkfill.errors import InputError
from inkfill.filling.inpaint import inpaint, sample
from inkfill.models.model import Model, Recipe
from inkfill.training import few
from inkfill.training.batches import Batches
from inkfill.training.config import TrainConfig
from inkfill.training.run import train

STEPS = 3000  # optimiser steps of the tests against analytic posteriors
LATENT = UNetConfig(widths=(16, 32), blocks=(1, 1), head_width=16, time_width=32, latent=True)
LEFT = specs.parse("half:left")


def few_step_model() -> Model:
    """Random weights."""
    net = UNet(LATENT)
    torch.nn.init.normal_(net.head.weight, std=0.05, generator=torch.Generator().manual_seed(1))
    return Model(net, Recipe(objective="few", sampling_steps=2), dtype=torch.float32)


def batches(size: int = 8, T: int = 1000) -> Batches:
    return Batches(Schedule.named("cosine", T), LEFT, BYTES, size, make=few.draw_few)


# ---- batch and loss --------------------------------------------------------------------------------------------------


def test_the_distance_of_samples():
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 3, 2, 28, 28, generator=rng)
    mask = torch.zeros(3, 1, 28, 28, dtype=torch.bool)
    mask[0, :, :, :14], mask[1, :, 3, 4] = True, True
    apart = few.distance(x, y, mask)
    assert apart[0] > 0.1
    assert apart[2] == 0  # nothing is missing
    torch.testing.assert_close(apart, few.distance(y, x, mask))
    assert few.distance(x, x, mask).abs().max() < 1e-6
    # One missing pixel: at every scale the root mean square over channels.
    expected = (x[1, :, 3, 4] - y[1, :, 3, 4]).square().mean().sqrt()
    assert apart[1] == pytest.approx(float(expected) * (1 + len(few.PATCHES)), rel=0.02)
    other = torch.where(mask, x, torch.randn(3, 2, 28, 28, generator=rng))  # observed pixels do not count
    torch.testing.assert_close(few.distance(other, y, mask), apart)


def test_a_batch_has_noise_for_two_samples_of_every_image(digits):
    batch = batches().draw(digits, stream(0, "a"))
    top = batch.t == 1000
    assert top.sum() == 4
    assert (batch.latent[top] == 0).all()
    assert (batch.eps[top, 0] != batch.eps[top, 1]).all()
    assert (batch.eps[~top, 0] == batch.eps[~top, 1]).all()
    assert (batch.latent[~top, 0] != batch.latent[~top, 1]).all()
    assert batch.t.min() >= few.LOWEST * 1000
    halves = [batches().draw(digits, stream(0, "a"), slice(i, i + 4)) for i in (0, 4)]
    assert sum(int((half.t == 1000).sum()) for half in halves) == 4
    assert {float(x) for half in halves for x in half.x0.sum((1, 2, 3))} == {float(x) for x in batch.x0.sum((1, 2, 3))}


def test_timestep_T_belongs_to_the_first_half_of_a_batch(digits):
    """With ten timesteps the others would often draw T too, and be pulled to samples of the teacher they lack."""
    for step in range(20):
        assert (batches(64, 10).draw(digits, stream(0, step)).t == 10).sum() == 32


# ---- analytic posteriors ---------------------------------------------------------------------------------------------


def trained(images: np.ndarray, spec: str, values: ValueRange) -> Model:
    """A small network, trained by the objective on complete images ``[N, 8, 8]``."""
    config = TrainConfig(objective="few", warmup=50)
    drawn = Batches(Schedule.named("cosine"), specs.parse(spec), values, 32, make=few.draw_few)
    net = UNet(LATENT, 0)
    trainer = Trainer(
        net, optimisers(net, muon_rate=0.01), lambda step: drawn.draw(images, stream(0, "train", step)), few.few_errors,
        ema=0.98,
    )  # fmt: skip
    for step in range(STEPS):
        trainer.step(config.rate(step, step / STEPS))
    recipe = Recipe(
        objective="few", image_size=(8, 8), value_range=(float(values.low), float(values.high)), number_type="float32"
    )
    return Model(trainer.ema, recipe, dtype=torch.float32)


@pytest.mark.check
def test_samples_of_images_of_one_grey_level_have_the_exact_posterior():
    """Levels N(0, 0.4^2): unconditional samples have that distribution; with half of an image observed, its level.

    512 samples have a mean of standard error .018 and a standard deviation of standard error .0125; the rest of each
    tolerance is for the short training.
    """
    levels = stream(0, "levels").normal(0, 0.4, 4096).astype(np.float32)
    images = np.broadcast_to(levels[:, None, None], (4096, 8, 8)).copy()
    model = trained(images, "all@1,half:left@1", ValueRange(-1, 1, 0))
    for steps in (1, 2):
        drawn = sample(model, 512, steps=steps)
        level = drawn.mean((1, 2))
        assert abs(level.mean()) < 0.07
        assert 0.32 < level.std() < 0.48
        assert drawn.std((1, 2)).mean() < 0.08
        filled = inpaint(model, images[:64].copy(), "half:left", 4, steps=steps)
        assert np.abs(filled.mean((2, 3)) - levels[:64, None]).mean() < 0.06


@pytest.mark.check
@pytest.mark.parametrize("name", LAWS)
def test_one_evaluation_samples_the_exact_posterior(name, record_property):
    """A Gaussian and a mixture of levels under pixel noise, none or half observed: 64 images, 64 samples.

    A posterior mean has a Monte Carlo error of an eighth of the posterior's standard deviation; the rest of each
    tolerance is for the short training. Two evaluations are reported only: a network this small does not separate its
    latent noise from an x_t that is mostly noise.
    """
    law, rng = LAWS[name], stream(0, "law", name)
    images, new = of_one_level(law, 4096, rng), of_one_level(law, 64, rng)
    model = trained(images, "pixels:0.5@1,all@1", ValueRange(*RANGE, 0))
    for steps, mask in itertools.product((1, 2), ("all", "pixels:0.5")):
        missing = masks.fit(mask, new)
        filled = inpaint(model, new, missing, 64, steps=steps, value_range=RANGE)
        error, deviation, expected, pixels, levels = beside_posterior(law, new, missing, filled)
        record_property(
            "figures", f"few-step samples: {name}, {mask} missing, NFE {steps}: error of means {error:.3f}, standard "
            f"deviation {deviation:.3f} (exact {expected:.3f}), of pixels {pixels:.3f} (exact {GREY})",
        )  # fmt: skip
        if steps == 1:
            assert error < expected / 8 + 0.04
            assert abs(deviation - expected) < 0.07
            assert abs(pixels - GREY) < 0.03
            if name == "mixture" and mask == "all":
                assert abs((levels > 0).mean() - 0.7) < 0.08


# ---- sampling --------------------------------------------------------------------------------------------------------


def test_samples_belong_to_their_image(digits):
    model, mask = few_step_model(), "half:left"
    whole = inpaint(model, digits[:6], mask, 2)
    missing = masks.fit(mask, digits[4:6], 0)
    np.testing.assert_array_equal(whole[4:], inpaint(model, digits[4:6], missing, 2, first=4, rows=1))
    np.testing.assert_array_equal(whole[:, :, :, 14:], np.repeat(digits[:6, None, :, 14:], 2, 1))
    other = digits[:6].copy()
    other[:, :, :14] = 77  # missing pixels are never read
    np.testing.assert_array_equal(inpaint(model, other, mask, 2), whole)
    assert len({row.tobytes() for row in whole[0]}) == 2
    calls: list[int] = []
    inpaint(model, digits[:2], mask, 1, steps=1, count=calls.append)
    assert sum(calls) == 2
    assert sample(model, 2).shape == (2, 28, 28)


@pytest.mark.parametrize("method", ["conditional", "ddnm", "dps", "mcgdiff", "repaint"])
def test_guided_methods_refuse_few_step_models(method, digits):
    with pytest.raises(InputError, match=r"which this prior lacks: choose few"):
        inpaint(few_step_model(), digits[:1], "half:left", 1, method)


def test_the_method_few_needs_a_few_step_model(digits):
    with pytest.raises(InputError, match="needs a few-step model"):
        inpaint(tiny_model(), digits[:1], "half:left", 1, "few")
    with pytest.raises(InputError, match="no posterior mean"):
        few_step_model().unconditional(torch.zeros(1, 1, 28, 28))


# ---- the teacher -----------------------------------------------------------------------------------------------------


def find(folder, digits, count=10, teacher=tiny_model, **more):
    return few.find_pairs(folder, teacher, digits, LEFT, count, 5, quiet=True, **more)


def test_pairs_are_samples_of_the_teacher(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(few, "PART", 6)
    teacher, pairs = tiny_model(), find(tmp_path, digits)
    assert len(pairs.index) == 12
    assert len(list(tmp_path.glob("*.npz"))) == 2
    # The x_T of a pair is the noise that its sample was drawn from.
    _, mask, x_T, distilled = pairs.take(np.array([7, 2]), digits, teacher.value_range)
    torch.testing.assert_close(x_T[0, 1], SampleNoise(key(5, "pairs"), [7], [1], (1, 28, 28))()[0])
    again = inpaint(teacher, digits[pairs.index[7:8]], mask[:1], 2, steps=8, sampler="dpmpp", seed=pairs.seed, first=7)
    np.testing.assert_array_equal(pairs.samples[7], again[0])
    torch.testing.assert_close(distilled[0], teacher.value_range.to_x0(again[0]))


@pytest.mark.parametrize("broken", [b"half", None])
def test_broken_files_of_pairs_are_made_again(tmp_path, digits, monkeypatch, broken):
    monkeypatch.setattr(few, "PART", 6)
    pairs = find(tmp_path, digits)
    first, second = sorted(tmp_path.glob("*.npz"))
    kept = first.stat().st_mtime_ns
    second.write_bytes(second.read_bytes()[: second.stat().st_size // 2] if broken is None else broken)
    np.testing.assert_array_equal(find(tmp_path, digits).samples, pairs.samples)
    assert first.stat().st_mtime_ns == kept


def test_unsuitable_teachers_are_refused(tmp_path, digits):
    with pytest.raises(InputError, match="--teacher: give a network trained with v or eps"):
        find(tmp_path, digits, teacher=few_step_model)
    with pytest.raises(InputError, match="28x28, too small"):  # it would fill in windows, with noise of their own
        find(tmp_path, np.zeros((4, 80, 80), np.uint8), 1)


def test_the_teacher_sends_heartbeats(tmp_path, digits, monkeypatch):
    """Other processes wait 300 seconds for rank 0, and a teacher takes longer."""
    monkeypatch.setattr(few, "PART", 4)
    beats = []
    find(tmp_path, digits, 8, beat=lambda: beats.append(1))
    assert len(beats) >= 2


@pytest.fixture
def config(tmp_path, digits, checkpoint, monkeypatch) -> TrainConfig:
    """Settings of a run with a teacher."""
    monkeypatch.setattr(few, "PART", 16)
    np.save(tmp_path / "d.npy", digits)
    return TrainConfig(
        data=str(tmp_path / "d.npy"), objective="few", start=str(checkpoint), teacher=str(checkpoint), pairs=16,
        steps=4, batch_size=4, dtype="float32", warmup=1,
    )  # fmt: skip


def test_a_run_with_a_teacher_resumes_to_the_same_weights(config, tmp_path, monkeypatch, capsys):
    train(config, tmp_path / "a", quiet=True)
    assert capsys.readouterr() == ("", "")
    step = Trainer.step

    def killed(self, rate):
        if self.done == 2:
            raise KeyboardInterrupt
        return step(self, rate)

    monkeypatch.setattr(Trainer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "b", quiet=True, save_seconds=0)
    monkeypatch.setattr(Trainer, "step", step)
    train(config, tmp_path / "b", quiet=True, resume=True)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    model = inkfill.load(tmp_path / "b" / "model.safetensors")
    assert (model.method, model.steps, model.net.config.latent) == ("few", 2, True)


def test_pairs_of_another_seed_are_not_used(config, tmp_path):
    """Also where a folder is used again."""
    configs = [replace(config, start="", unet=TINY, steps=1, pairs=1, seed=seed) for seed in (0, 1)]
    train(configs[0], tmp_path / "a", quiet=True)
    train(configs[1], tmp_path / "a", quiet=True, overwrite=True)
    train(configs[1], tmp_path / "b", quiet=True)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    assert len(list((tmp_path / "a" / "pairs").iterdir())) == 1

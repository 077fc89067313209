"""Few-step weights: what is minimised, the teacher's pairs, and networks that draw."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import inkfill
from helpers import GREY, LAWS, RANGE, beside_posterior, of_one_level
from inkfill.core import masks as specs
from inkfill.core.rng import SampleNoise, stream
from inkfill.core.schedule import Schedule
from inkfill.core.trainer import Trainer, optimisers
from inkfill.core.unet import UNet, UNetConfig
from inkfill.data import masks
from inkfill.data.images import ValueRange
from inkfill.errors import InputError
from inkfill.filling.inpaint import inpaint, sample
from inkfill.models.checkpoint import load_network, save_network
from inkfill.models.model import Model, Recipe
from inkfill.processes import Processes
from inkfill.training import few
from inkfill.training.config import TrainConfig
from inkfill.training.run import train

STEPS = 3000  # of the closed-form test
SMALL = UNetConfig(widths=(16, 32), blocks=(1, 1), head_width=16, time_width=32, latent=True)


def drawing(config=SMALL, seed=0):
    net = UNet(config, seed)
    torch.nn.init.normal_(net.head.weight, std=0.05, generator=torch.Generator().manual_seed(1))
    return Model(net, Recipe(objective="few", sampling_steps=2), dtype=torch.float32)


def test_distance_is_one():
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 3, 2, 28, 28, generator=rng)
    mask = torch.zeros(3, 1, 28, 28, dtype=torch.bool)
    mask[0, :, :, :14], mask[1, :, 3, 4] = True, True
    apart = few.distance(x, y, mask)
    assert apart[0] > 0.1
    assert apart[2] == 0  # nothing is missing
    torch.testing.assert_close(apart, few.distance(y, x, mask))
    assert few.distance(x, x, mask).abs().max() < 1e-6
    # One missing pixel: every scale says the root of its mean square over channels, patches by their share of it.
    expected = (x[1, :, 3, 4] - y[1, :, 3, 4]).square().mean().sqrt()
    assert apart[1] == pytest.approx(float(expected) * (1 + len(few.PATCHES)), rel=0.02)
    other = torch.where(mask, x, torch.randn(3, 2, 28, 28, generator=rng))  # what is known does not count
    torch.testing.assert_close(few.distance(other, y, mask), apart)


def test_a_batch_has_two_draws_of_every_image(digits):
    config, schedule, spec = (
        TrainConfig(objective="few", batch_size=8),
        Schedule.named("cosine"),
        specs.parse("half:left"),
    )
    batch = few.draw_few(config, schedule, digits, spec, stream(0, "a"))
    top = batch.t == schedule.T
    assert top.sum() == 4
    assert (batch.latent[top] == 0).all()
    assert (batch.eps[top, 0] != batch.eps[top, 1]).all()
    assert (batch.eps[~top, 0] == batch.eps[~top, 1]).all()
    assert (batch.latent[~top, 0] != batch.latent[~top, 1]).all()
    assert batch.t.min() >= few.LOWEST * schedule.T
    halves = [few.draw_few(config, schedule, digits, spec, stream(0, "a"), slice(i, i + 4)) for i in (0, 4)]
    assert sum(int((half.t == schedule.T).sum()) for half in halves) == 4
    assert {float(x) for half in halves for x in half.x0.sum((1, 2, 3))} == {float(x) for x in batch.x0.sum((1, 2, 3))}


def small_model(images, spec, values):
    """A small network, trained by the objective on images ``[N, 8, 8]`` of which all is known."""
    config = TrainConfig(objective="few", batch_size=32, unet=SMALL, warmup=50, ema=0.98, muon_rate=0.01)
    schedule, net = Schedule.named("cosine"), UNet(SMALL, 0)

    def draw(step):
        return few.draw_few(config, schedule, images, specs.parse(spec), stream(0, "train", step), values=values)

    trainer = Trainer(net, optimisers(config, net), draw, few.few_errors, ema=config.ema)
    for step in range(STEPS):
        trainer.step(config.rate(step, step / STEPS))
    scale = (float(values.low), float(values.high))
    recipe = Recipe(objective="few", image_size=(8, 8), value_range=scale, number_type="float32")
    return Model(trainer.ema, recipe, dtype=torch.float32)


def test_the_objective_ends_at_the_exact_posterior():
    """Images of one grey level, N(0, 0.4^2): with nothing known draws have that law; with a half known, its level.

    Tolerances: 512 draws have a mean of standard error .018 and a deviation of .0125; the rest is for so few steps.
    """
    levels = stream(0, "levels").normal(0, 0.4, 4096).astype(np.float32)
    images = np.broadcast_to(levels[:, None, None], (4096, 8, 8)).copy()
    model = small_model(images, "all@1,half:left@1", ValueRange(-1, 1, 0))
    for steps in (1, 2):
        drawn = sample(model, 512, steps=steps)
        level = drawn.mean((1, 2))
        assert abs(level.mean()) < 0.07
        assert 0.32 < level.std() < 0.48
        assert drawn.std((1, 2)).mean() < 0.08
        known = images[:64].copy()
        filled = inpaint(model, known, "half:left", 4, steps=steps)
        assert np.abs(filled.mean((2, 3)) - levels[:64, None]).mean() < 0.06


@pytest.mark.check
@pytest.mark.parametrize("name", LAWS)
def test_one_evaluation_draws_from_the_exact_posterior(name, record_property):
    """Of a Gaussian and a mixture of levels under pixel noise, with nothing and with half known: 64 images, 64 draws.

    A posterior mean has a Monte Carlo error of an eighth of the posterior's deviation; the rest of each tolerance is
    for so few steps. Two evaluations are told and not held to it: where x_t is mostly noise, a network this small does
    not tell it from noise of its own (docs/few.md).
    """
    law, rng = LAWS[name], stream(0, "law", name)
    images, new = of_one_level(law, 4096, rng), of_one_level(law, 64, rng)
    model = small_model(images, "pixels:0.5@1,all@1", ValueRange(*RANGE, 0))
    for steps, mask in itertools.product((1, 2), ("all", "pixels:0.5")):
        hidden = masks.fit(mask, new)
        off, spread, want, pixels, levels = beside_posterior(
            law, new, hidden, inpaint(model, new, hidden, 64, steps=steps, value_range=RANGE)
        )
        record_property(
            "figures", f"few-step draws: {name}, {mask} missing, {steps} evaluations: means off by {off:.3f}, "
            f"deviation {spread:.3f} where it is {want:.3f}, of pixels {pixels:.3f} where it is {GREY}",
        )  # fmt: skip
        if steps == 1:
            assert off < want / 8 + 0.04
            assert abs(spread - want) < 0.07
            assert abs(pixels - GREY) < 0.03
            if name == "mixture" and mask == "all":
                assert abs((levels > 0).mean() - 0.7) < 0.08


def test_draws_belong_to_their_image(digits):
    model, mask = drawing(), "half:left"
    whole = inpaint(model, digits[:6], mask, 2)
    hidden = masks.fit(mask, digits[4:6], 0)
    np.testing.assert_array_equal(whole[4:], inpaint(model, digits[4:6], hidden, 2, first=4, rows=1))
    np.testing.assert_array_equal(whole[:, :, :, 14:], np.repeat(digits[:6, None, :, 14:], 2, 1))
    other = digits[:6].copy()
    other[:, :, :14] = 77  # what is missing is never seen
    np.testing.assert_array_equal(inpaint(model, other, mask, 2), whole)
    assert len({row.tobytes() for row in whole[0]}) == 2
    calls: list[int] = []
    inpaint(model, digits[:2], mask, 1, steps=1, count=calls.append)
    assert sum(calls) == 2
    assert sample(model, 2).shape == (2, 28, 28)


@pytest.mark.parametrize("method", ["conditional", "ddnm", "dps", "mcgdiff", "repaint"])
def test_guided_methods_refuse_them(method, digits):
    with pytest.raises(InputError, match="draw completions and have no posterior mean: choose few"):
        inpaint(drawing(), digits[:1], "half:left", 1, method)


def test_the_method_few_needs_them(digits):
    with pytest.raises(InputError, match="needs few-step weights"):
        inpaint(inkfill.load(), digits[:1], "half:left", 1, "few")
    with pytest.raises(InputError, match="no posterior mean"):
        drawing().unconditional(torch.zeros(1, 1, 28, 28))


def test_the_pairs_are_the_teachers_completions(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(few, "PART", 6)
    net, spec = (
        UNet(UNetConfig(widths=(16, 32), blocks=(1, 1), head_width=16, time_width=32), 3),
        specs.parse("half:left"),
    )
    torch.nn.init.normal_(net.head.weight, std=0.1)
    teacher = Model(net, dtype=torch.float32)
    pairs = few.find_pairs(tmp_path, lambda: teacher, digits, spec, 10, 5, quiet=True)
    assert len(pairs.index) == 12
    assert len(list(tmp_path.glob("*.npz"))) == 2
    # The noise that a pair is given is that from which the teacher made it.
    _, mask, x_T, taught = pairs.take(np.array([7, 2]), digits, teacher.value_range)
    torch.testing.assert_close(x_T[0, 1], SampleNoise(5, [7], [1], (1, 28, 28))()[0])
    again = inpaint(teacher, digits[pairs.index[7:8]], mask[:1], 2, steps=8, sampler="dpmpp", seed=5, first=7)
    np.testing.assert_array_equal(pairs.completions[7], again[0])
    torch.testing.assert_close(taught[0], teacher.value_range.to_x0(again[0]))
    # A file that is broken is made again, the same; the others are read.
    kept = {path: path.read_bytes() for path in tmp_path.glob("*.npz")}
    (tmp_path / "00001.npz").write_bytes(b"half")
    same = few.find_pairs(tmp_path, lambda: teacher, digits, spec, 10, 5, quiet=True)
    np.testing.assert_array_equal(same.completions, pairs.completions)
    assert (tmp_path / "00000.npz").read_bytes() == kept[tmp_path / "00000.npz"]
    with pytest.raises(InputError, match="teacher"):
        few.find_pairs(tmp_path / "x", drawing, digits, spec, 10, 5, quiet=True)


def test_a_run_with_a_teacher_resumes_to_the_same_bits(tmp_path, digits, monkeypatch, capsys):
    monkeypatch.setattr(few, "PART", 16)
    np.save(tmp_path / "d.npy", digits)
    config = TrainConfig(
        data=str(tmp_path / "d.npy"), objective="few", start="mnist", teacher="mnist", pairs=16, steps=4, batch_size=4,
        dtype="float32", warmup=1,
    )  # fmt: skip
    train(config, tmp_path / "a", quiet=True)
    assert capsys.readouterr() == ("", "")

    class Stop(Exception):
        pass

    step = Trainer.step

    def stopping(self, rate):
        if self.done == 2:
            raise Stop
        return step(self, rate)

    monkeypatch.setattr(Trainer, "step", stopping)
    with pytest.raises(Stop):
        train(config, tmp_path / "b", quiet=True, save_seconds=0)
    monkeypatch.setattr(Trainer, "step", step)
    train(config, tmp_path / "b", quiet=True, resume=True)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    model = inkfill.load(tmp_path / "b" / "model.safetensors")
    assert (model.method, model.steps, model.net.config.latent) == ("few", 2, True)


def test_the_pairs_of_another_run_are_not_taken(tmp_path, digits, monkeypatch):
    """Another seed has other completions by the teacher, also where a folder is used again."""
    monkeypatch.setattr(few, "PART", 16)
    np.save(tmp_path / "d.npy", digits)
    both = [
        TrainConfig(
            data=str(tmp_path / "d.npy"), objective="few", teacher="mnist", pairs=1, batch_size=4, steps=1, unet=SMALL,
            dtype="float32", seed=seed,
        )
        for seed in (0, 1)
    ]  # fmt: skip
    train(both[0], tmp_path / "a", quiet=True)
    train(both[1], tmp_path / "a", quiet=True, overwrite=True)
    train(both[1], tmp_path / "b", quiet=True)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    assert len(list((tmp_path / "a" / "pairs").iterdir())) == 1


def test_a_teacher_is_for_few_alone():
    with pytest.raises(InputError, match="few alone"):
        TrainConfig(teacher="mnist").check()


def test_the_mean_of_two_trainings(tmp_path, model):
    """reports/few_average.py: weights halfway, steps of both, and the recipe of the first."""
    other = UNet(model.net.config, seed=1)
    for name, net, step in (("a", model.net, 30), ("b", other, 12)):
        save_network(tmp_path / name, net, net.state_dict(), Recipe(trained_on="digits", step=step).to_json())
    script = Path(__file__).parent.parent / "reports" / "few_average.py"
    done = subprocess.run(
        [sys.executable, script, "a", "b", "--out", "mean"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    mean, recipe = load_network(tmp_path / "mean")
    for name, value in mean.state_dict().items():
        halfway = (model.net.state_dict()[name] + other.state_dict()[name]) / 2
        torch.testing.assert_close(value, halfway, rtol=2e-3, atol=1e-4)  # 16 bits
    assert (recipe["step"], recipe["trained_on"]) == (42, "digits")
    assert recipe["training"]["averaged"] == "30 steps, 12 steps"


def test_level_T_is_of_the_first_half_alone(digits):
    """Of ten levels, some of the others would be there too, and be drawn towards a completion that they have not."""
    config = TrainConfig(objective="few", batch_size=64, T=10)
    schedule, spec = Schedule.named("cosine", 10), specs.parse("half:left")
    for step in range(20):
        batch = few.draw_few(config, schedule, digits, spec, stream(0, step))
        assert (batch.t == 10).sum() == 32


def test_a_teacher_of_smaller_images(tmp_path, model):
    """It would fill through windows, whose noise is not that of the pair."""
    images = np.zeros((4, 80, 80), np.uint8)
    with pytest.raises(InputError, match="28x28: too small"):
        few.find_pairs(tmp_path, lambda: model, images, specs.parse("half:left"), 1, 0, quiet=True)


def test_half_a_file_of_pairs_is_made_again(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(few, "PART", 4)
    teacher, spec = inkfill.load("mnist", dtype="float32"), specs.parse("half:left")
    pairs = few.find_pairs(tmp_path, lambda: teacher, digits, spec, 4, 0, quiet=True)
    file = tmp_path / "00000.npz"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    again = few.find_pairs(tmp_path, lambda: teacher, digits, spec, 4, 0, quiet=True)
    np.testing.assert_array_equal(pairs.completions, again.completions)


def test_the_first_process_tells_the_others_that_it_works(tmp_path, digits, monkeypatch):
    """They wait 300 seconds for it, and a teacher takes longer: it meets them after every batch of completions."""
    monkeypatch.setattr(few, "PART", 4)
    teacher, met = inkfill.load("mnist", dtype="float32"), []
    few.find_pairs(tmp_path, lambda: teacher, digits, specs.parse("half:left"), 8, 0, True, lambda: met.append(1))
    assert len(met) >= 2
    said = iter([0.0, 0.0, 1.0, 0.0])
    monkeypatch.setattr(Processes, "total", lambda *_: next(said))
    Processes(1, 2, torch.device("cpu")).await_first()
    assert list(said) == [0.0]

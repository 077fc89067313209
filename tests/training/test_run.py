"""Training: it learns, it resumes bit for bit after SIGKILL, it runs on several processes."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from helpers import TINY
from inkfill import data, defaults
from inkfill.core import masks as specs
from inkfill.core.objectives import OBJECTIVES, draw_batch, eps_errors, v_errors
from inkfill.core.rng import stream
from inkfill.core.schedule import SCHEDULES, Schedule
from inkfill.core.trainer import Trainer, optimisers
from inkfill.core.unet import UNet, UNetConfig
from inkfill.errors import InputError
from inkfill.files import locked
from inkfill.models.checkpoint import load_network, load_state
from inkfill.training import run as run_module
from inkfill.training.config import TrainConfig
from inkfill.training.run import train, validation_losses

SCHEDULE = Schedule.named("cosine")
SMALL = TrainConfig(data="rendered", steps=8, batch_size=8, warmup=2, unet=TINY)


@pytest.fixture(scope="session")
def images_file(tmp_path_factory, digits) -> Path:
    path = tmp_path_factory.mktemp("data") / "digits.npy"
    np.save(path, digits)
    return path


# ---- batches and the loss --------------------------------------------------------------------------------------------


def test_a_batch_is_drawn_from_its_step_and_sliced_by_rank(digits):
    spec = specs.parse("training")

    def batch(part):
        return draw_batch(SMALL, SCHEDULE, digits, spec, stream(0, "train", 5), part)

    whole, second = batch(slice(None)), batch(slice(4, 8))
    for name in ("x0", "mask", "t", "eps"):
        assert torch.equal(getattr(whole, name)[4:], getattr(second, name))
    assert whole.count == second.count == whole.mask.sum()
    assert whole.x0.shape == whole.mask.shape == whole.eps.shape == (8, 1, 28, 28)


def test_t_is_uniform_and_never_clean(digits):
    """One draw in each stratum of T / B levels, so counts by tenth are exact, and 0 never comes up."""
    config = replace(SMALL, batch_size=500)
    t = torch.cat([draw_batch(config, SCHEDULE, digits, specs.parse("all"), stream(0, i)).t for i in range(4)])
    assert t.min() >= 1
    assert t.max() <= 1000
    assert torch.histc(t.double(), 10, 0.5, 1000.5).tolist() == [200] * 10
    assert len(t.unique()) > 700


def test_the_loss_is_the_noise_error_on_missing_pixels(digits):
    """A network that answers v = 0 predicts eps_hat = sqrt(1 - alpha_bar) x_t."""
    batch = draw_batch(SMALL, SCHEDULE, digits, specs.parse("half:left"), stream(0))
    a = SCHEDULE.alpha_bar[batch.t].float().view(-1, 1, 1, 1)
    net = UNet(TINY)  # the weights of its head start at zero
    torch.nn.init.zeros_(net.head.bias)
    errors = eps_errors(net, batch)
    torch.testing.assert_close(errors, (batch.eps - (1 - a).sqrt() * batch.x_t) ** 2 * batch.mask)
    assert (errors[..., 14:] == 0).all()
    torch.testing.assert_close(v_errors(net, batch) * a, errors, rtol=1e-3, atol=1e-5)  # divided by alpha_bar


def test_every_weight_has_one_optimiser():
    net = UNet(TrainConfig().unet)
    adam, muon = optimisers(TrainConfig(), net)
    of_adam, of_muon = ([p for g in o.param_groups for p in g["params"]] for o in (adam, muon))
    assert {id(p) for p in of_adam} | {id(p) for p in of_muon} == {id(p) for p in net.parameters()}
    assert len(of_adam) + len(of_muon) == len(list(net.parameters()))
    assert sum(p.numel() for p in of_muon) > 0.9 * sum(p.numel() for p in net.parameters())
    assert len(optimisers(TrainConfig(muon_rate=0), net)) == 1


def test_learning_rate_warms_up_and_ends_at_zero():
    config = TrainConfig(steps=1000, warmup=100)
    rates = [config.rate(i, i / 1000) for i in range(1000)]
    assert rates[0] < 0.02
    assert 0.95 < max(rates) <= 1
    assert rates[-1] < 1e-4
    assert config.rate(3, 0.1) == pytest.approx(config.rate(100, 0.1))  # the tenth step of thirty is warm


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"T": 1},
        {"schedule": "x"},
        {"masks": "x"},
        {"weight_decay": -1.0},
        {"low": 0.0, "high": float("inf")},
        {"low": 1.0, "high": 1.0},
        {"low": 0.0},
    ],
)
def test_settings_that_cannot_work(change):
    with pytest.raises(InputError):
        replace(SMALL, **change).check()


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, unet=None)])
def test_settings_are_read_back_as_they_were(config):
    assert TrainConfig.read(json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize("change", [{"steps": {}}, {"low": "x"}, {"masks": 3}, {"unet": 3}, {"steps": 2.5}])
def test_settings_of_other_types_are_refused(change):
    with pytest.raises(InputError):
        TrainConfig.read(asdict(SMALL) | change)


# ---- runs in this process --------------------------------------------------------------------------------------------


def test_a_run_learns_and_writes_what_it_says(tmp_path, images_file):
    config = replace(SMALL, data=str(images_file), steps=150, batch_size=16, learning_rate=5e-3, ema=0.9)
    shown = []
    assert train(
        config, tmp_path / "run", validate_every=75, quiet=True, on_validation=lambda step, *_: shown.append(step)
    )
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.7 * losses[0]
    validations = [row for row in rows if "validation" in row]
    assert [row["step"] for row in validations] == [75, 150]
    assert all(f"validation_{i}" in validations[0] for i in range(10))
    assert shown == [75, 150]
    net, recipe = load_network(tmp_path / "run" / "model.safetensors")
    assert recipe["step"] == 150
    assert recipe["image_size"] == [28, 28]
    found = validation_losses(net, config, data.load(str(images_file)).validation)
    assert found["validation"] == pytest.approx(validations[-1]["validation"], rel=1e-3)


def test_the_same_settings_give_the_same_weights(tmp_path, images_file):
    config = replace(SMALL, data=str(images_file))
    for name in ("a", "b"):
        train(config, tmp_path / name, quiet=True)
    train(replace(config, seed=1), tmp_path / "c", quiet=True)
    a, b, c = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_a_run_written_over_cannot_be_resumed_into(tmp_path, images_file):
    """What is left of a run is gone as soon as another starts in its place."""
    config = replace(SMALL, data=str(images_file))
    train(config, tmp_path / "run", quiet=True)
    before = torch.get_rng_state()
    with pytest.raises(InputError):
        train(replace(config, batch_size=3, masks="box:99"), tmp_path / "run", overwrite=True, quiet=True)
    assert (tmp_path / "run" / "state.pt").exists()  # refused before anything was touched
    with pytest.raises(InputError, match="overwrite"):
        train(replace(config, steps=1, seed=5), tmp_path / "run", quiet=True)
    train(replace(config, steps=1, seed=5), tmp_path / "run", overwrite=True, quiet=True)
    assert load_state(tmp_path / "run" / "state.pt")["step"] == 1
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_that_is_written_over_is_gone_before_the_first_save(tmp_path, images_file, monkeypatch):
    """Killed right after it began: what it replaced must not be there to be resumed in its place."""
    config = replace(SMALL, data=str(images_file))
    train(config, tmp_path / "run", quiet=True)

    def killed(self, rate):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        train(replace(config, seed=5), tmp_path / "run", overwrite=True, quiet=True)
    assert not (tmp_path / "run" / "state.pt").exists()


def test_other_sizes_train(tmp_path):
    np.save(tmp_path / "big.npy", np.random.default_rng(0).integers(0, 256, (20, 32, 48), dtype=np.uint8))
    config = replace(SMALL, data=str(tmp_path / "big.npy"), steps=2)
    assert train(config, tmp_path / "run", quiet=True)


def test_resume_refuses_what_it_cannot_go_on_with(tmp_path, images_file, digits):
    with pytest.raises(InputError, match="nothing to resume"):
        train(SMALL, tmp_path / "none", resume=True, quiet=True)
    moved = tmp_path / "moved.npy"
    np.save(moved, digits)
    train(replace(SMALL, data=str(moved), steps=1), tmp_path / "run", quiet=True)
    np.save(moved, 255 - digits)
    with pytest.raises(InputError, match="other images"):
        train(SMALL, tmp_path / "run", resume=True, quiet=True)
    (tmp_path / "run" / "state.pt").write_bytes(b"broken")
    with pytest.raises(InputError, match="not a whole training state"):
        train(SMALL, tmp_path / "run", resume=True, quiet=True)
    torch.save({"net": {}, "step": 3}, tmp_path / "run" / "state.pt")  # of another program
    with pytest.raises(InputError, match="not a state of this version"):
        train(SMALL, tmp_path / "run", resume=True, quiet=True)


def test_a_loss_that_is_not_finite_is_never_saved(tmp_path, images_file, monkeypatch):
    config = replace(SMALL, data=str(images_file), steps=10)
    train(config, tmp_path / "run", quiet=True)
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    calls = []

    def breaks(net, batch):
        calls.append(1)
        return v_errors(net, batch) * (float("nan") if len(calls) > 3 else 1.0)

    monkeypatch.setitem(OBJECTIVES, "v", breaks)
    with pytest.raises(InputError, match="not finite"):
        train(replace(config, steps=40), tmp_path / "run", overwrite=True, save_seconds=0, quiet=True)
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert all(bool(value.isfinite().all()) for value in saved.values())
    assert (tmp_path / "run" / "model.safetensors").read_bytes() != before  # the first three steps were saved


def test_weights_that_are_not_finite_are_never_saved(tmp_path, images_file, monkeypatch):
    """The loss is of before the update: it can be fine where the weights are not."""
    config = replace(SMALL, data=str(images_file), steps=10)
    train(config, tmp_path / "run", quiet=True)
    before = [(tmp_path / "run" / name).read_bytes() for name in ("model.safetensors", "state.pt")]
    update = Trainer.update

    def breaks(self, rate):
        update(self, rate)
        if self.done == 3:
            next(self.net.parameters()).data[0] = float("inf")

    monkeypatch.setattr(Trainer, "update", breaks)
    with pytest.raises(InputError, match="not finite at step 3"):
        train(replace(config, steps=3), tmp_path / "other", quiet=True)
    assert not (tmp_path / "other" / "model.safetensors").exists()
    monkeypatch.setattr(run_module.Run, "prepare", lambda self, fresh: None)
    with pytest.raises(InputError, match="not finite"):
        train(replace(config, steps=3), tmp_path / "run", overwrite=True, quiet=True)
    assert [(tmp_path / "run" / name).read_bytes() for name in ("model.safetensors", "state.pt")] == before


def test_the_gradient_is_clipped(digits):
    """A step of plain descent at rate 1 moves the weights by the gradient, which is no longer than ``clip``."""
    net = UNet(TINY)
    before = torch.cat([p.detach().flatten().clone() for p in net.parameters()])

    def draw(step):
        return draw_batch(SMALL, SCHEDULE, digits, specs.parse("all"), stream(0, step))

    def loud(net, batch):
        return 1e4 * v_errors(net, batch)

    trainer = Trainer(net, [torch.optim.SGD(net.parameters(), 1.0)], draw, loud, clip=0.5)
    trainer.step(1.0)
    after = torch.cat([p.detach().flatten() for p in net.parameters()])
    assert float((after - before).norm()) == pytest.approx(0.5, rel=1e-3)


def test_the_running_mean_follows_the_weights(digits):
    """Its decay warms up: 1/10 after the first step, 2/11 after the second, and never more than ``ema``."""
    net = UNet(TINY)

    def draw(step):
        return draw_batch(SMALL, SCHEDULE, digits, specs.parse("all"), stream(0, step))

    trainer = Trainer(net, [torch.optim.SGD(net.parameters(), 1.0)], draw, v_errors, ema=0.15)
    expected = [p.detach().clone() for p in net.parameters()]
    for decay in (1 / 10, 0.15, 0.15):
        trainer.step(1.0)
        expected = [decay * mean + (1 - decay) * p.detach() for mean, p in zip(expected, net.parameters(), strict=True)]
        for mean, found in zip(expected, trainer.ema.parameters(), strict=True):
            torch.testing.assert_close(found, mean)


def test_a_trainer_goes_on_from_its_state(digits):
    """Two steps, and one step twice with the state put into another trainer between: the same weights."""

    def trainer():
        net = UNet(TINY)
        draws = [draw_batch(SMALL, SCHEDULE, digits, specs.parse("training"), stream(0, i)) for i in range(2)]
        return Trainer(net, optimisers(replace(SMALL, dtype="float32"), net), draws.__getitem__, v_errors)

    whole, first, second = trainer(), trainer(), trainer()
    for _ in range(2):
        whole.step(0.5)
    first.step(0.5)
    second.restore(first.state())
    second.step(0.5)
    assert second.done == 2
    for a, b in ((whole.net, second.net), (whole.ema, second.ema)):
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert any(not torch.equal(x, y) for x, y in zip(whole.net.parameters(), whole.ema.parameters(), strict=True))


def test_objectives_have_their_names_in_one_place():
    assert tuple(OBJECTIVES) == defaults.OBJECTIVES
    assert tuple(SCHEDULES) == defaults.SCHEDULES


# ---- folders and clocks ----------------------------------------------------------------------------------------------


def test_a_run_that_cannot_begin_takes_nothing_away(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((40, 12, 16), np.uint8) + np.arange(16, dtype=np.uint8))
    config = replace(SMALL, data=str(tmp_path / "x.npy"), steps=2)
    assert train(config, tmp_path / "run", quiet=True)
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    with pytest.raises(InputError, match="square"):
        train(replace(config, augment="rotate90"), tmp_path / "run", overwrite=True, quiet=True)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before


def test_a_finished_run_without_its_metrics_can_be_resumed(tmp_path, images_file):
    config = replace(SMALL, data=str(images_file), steps=2)
    assert train(config, tmp_path / "run", quiet=True)
    (tmp_path / "run" / "metrics.jsonl").unlink()
    assert train(config, tmp_path / "run", resume=True, quiet=True)


def test_a_model_is_not_replaced_without_a_word(tmp_path, images_file):
    (tmp_path / "model.safetensors").write_text("precious")
    with pytest.raises(InputError, match=r"holds model\.safetensors"):
        train(replace(SMALL, data=str(images_file)), tmp_path, quiet=True)
    assert (tmp_path / "model.safetensors").read_text() == "precious"


def test_two_trainings_in_one_folder(tmp_path, images_file):
    with locked(tmp_path, "train"), pytest.raises(InputError, match="another inkfill train"):
        train(replace(SMALL, data=str(images_file), steps=1), tmp_path, quiet=True)
    assert train(replace(SMALL, data=str(images_file), steps=1), tmp_path, quiet=True)


def test_training_off_the_main_thread(tmp_path, images_file):
    found = []
    config = replace(SMALL, data=str(images_file), steps=2)
    thread = threading.Thread(target=lambda: found.append(train(config, tmp_path / "run", quiet=True)))
    thread.start()
    thread.join()
    assert found == [True]


def test_every_step_has_a_batch_of_its_own(tmp_path, images_file):
    """No two steps of a run draw the same images, masks and levels, not after a resumption either."""
    seen, draw = [], run_module.BATCHES["v"]

    def drawn(*arguments, **named):
        batch = draw(*arguments, **named)
        if len(batch.t) == SMALL.batch_size:  # validation has larger ones
            seen.append(tuple(batch.t.tolist()))
        return batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(run_module.BATCHES, "v", drawn)
        assert train(
            replace(SMALL, data=str(images_file), steps=20), tmp_path / "run", validate_every=10**9, quiet=True
        )
    assert len(seen) == len(set(seen)) == 20


def test_the_clock_decides(tmp_path, images_file, capsys):
    """0.05 minutes are three seconds, however slow a step is; the rate falls to zero over them."""
    config = replace(SMALL, data=str(images_file), steps=1, minutes=0.05, warmup=0)
    slow, draw = [], run_module.BATCHES["v"]

    def drawn(*arguments, **named):
        time.sleep(0.3 if len(slow) > 2 else 0.0)  # a machine that has become busy after the first steps
        slow.append(1)
        return draw(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(run_module.BATCHES, "v", drawn)
        patch.setattr(run_module, "LOG_EVERY", 1)
        began = time.monotonic()
        assert train(config, tmp_path / "run", validate_every=10**9)
    assert time.monotonic() - began < 30  # loose: data, validation and saving are not of the three seconds
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rates, seconds = ([row[key] for row in rows if key in row] for key in ("rate", "seconds"))
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.2
    assert 3 <= seconds[-1] < 10
    said = capsys.readouterr().out
    assert said.startswith("training for 0.05 minutes by the clock")
    assert "too few to be of use" in said


def test_a_run_by_the_clock_goes_on_where_it_was(tmp_path, images_file, monkeypatch):
    """Stopped at once and resumed, it trains for the rest of its time; the pause does not count."""
    config = replace(SMALL, data=str(images_file), minutes=0.05)
    monkeypatch.setattr(run_module.StopRequest, "asked", lambda self: True)
    assert not train(config, tmp_path / "run", quiet=True)
    first = load_state(tmp_path / "run" / "state.pt")
    assert 0 < first["seconds"] < 3
    time.sleep(1.0)
    monkeypatch.undo()
    assert train(config, tmp_path / "run", resume=True, quiet=True)
    second = load_state(tmp_path / "run" / "state.pt")
    assert 3 <= second["seconds"] < 10
    assert second["step"] > first["step"]


@pytest.mark.parametrize(
    ("losses", "best"), [((0.5, 0.4, 0.43), 4), ((0.5, 0.4, 0.41), None), ((0.5, 0.43, 0.4), None)]
)
def test_what_is_learnt_by_heart_is_said(tmp_path, images_file, capsys, monkeypatch, losses, best):
    """A few images for too long: the loss on those held out falls, and rises again. The weights from before are kept.

    The run is stopped after its second validation, and goes on with what it knew.
    """
    monkeypatch.setattr(run_module, "FEW", 1)
    several = iter(losses)
    monkeypatch.setattr(run_module, "validation_losses", lambda *_: {"validation": next(several)})
    asked = iter([False, False, False, True])
    monkeypatch.setattr(run_module.StopRequest, "asked", lambda _: next(asked, False))
    config, out = replace(SMALL, data=str(images_file), steps=6), tmp_path / "run"
    assert not train(config, out, validate_every=2)
    assert train(config, out, resume=True, validate_every=2)
    said = capsys.readouterr().out
    assert "for validation and" in said
    assert (out / "best.safetensors").exists() == bool(best)
    assert ("was least at step 4 (0.4000) and is 0.4300 now" in said) == bool(best)
    if best:
        assert load_network(out / "best.safetensors")[1]["step"] == best


# ---- runs in processes of their own, killed --------------------------------------------------------------------------


def command(out: Path, *extra: str) -> list[str]:
    return [sys.executable, "-m", "inkfill", "train", "--out", str(out), *extra]


def fresh(images_file: Path, steps: int = 40) -> list[str]:
    return ["--data", str(images_file), "--steps", str(steps), "--batch-size", "4", "--save-seconds", "0"]


def wait_for(condition, process, seconds=60):
    limit = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < limit, "nothing happened"
        time.sleep(0.0002)


def hear_ctrl_c() -> None:
    """A shell that runs the tests in the background has told its children to ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def saved(out: Path) -> float:
    return (out / "state.pt").stat().st_mtime_ns if (out / "state.pt").exists() else 0


@pytest.mark.check
def test_sigkill_at_any_moment_and_resume_is_bitwise_exact(tmp_path, images_file):
    """Killed right in the middle of a write, then at random moments (every step saves), until it is finished."""
    subprocess.run(command(tmp_path / "whole", *fresh(images_file)), check=True, capture_output=True)
    out, moments = tmp_path / "killed", random.Random(0)
    kills = 0
    for attempt in range(4):
        arguments = ["--resume", "--save-seconds", "0"] if attempt else fresh(images_file)
        before = saved(out)
        process = subprocess.Popen(command(out, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda before=before: saved(out) != before, process)
        if attempt < 2:
            wait_for(lambda: any(out.glob(".unfinished-state-*")), process)
        else:
            time.sleep(moments.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        kills += 1
        load_state(out / "state.pt")  # what is there is whole
        load_network(out / "model.safetensors")
    assert kills == 4
    subprocess.run(command(out, "--resume"), check=True, capture_output=True)
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    states = [load_state(folder / "state.pt") for folder in (out, tmp_path / "whole")]
    assert states[0]["step"] == states[1]["step"] == 40
    for name in ("net", "ema"):
        assert all(torch.equal(states[0][name][k], states[1][name][k]) for k in states[0][name])
    rows = [
        [
            {k: v for k, v in json.loads(line).items() if k not in ("images_per_s", "seconds")}
            for line in (f / "metrics.jsonl").open()
        ]
        for f in (out, tmp_path / "whole")
    ]
    assert [r["step"] for r in rows[0]] == [r["step"] for r in rows[1]]
    assert not list(out.glob(".*"))


@pytest.mark.check
def test_ctrl_c_saves_and_exits_cleanly(tmp_path, images_file):
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(out, *fresh(images_file, 100_000)),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    try:
        wait_for(lambda: saved(out) > 0, process)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()  # a run that did not hear it would go on for hours
    assert process.returncode == 0
    assert "--resume" in stdout
    assert "Traceback" not in stderr
    assert load_state(out / "state.pt")["step"] >= 1


@pytest.mark.check
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_can_be_stopped_while_its_data_load(tmp_path, number):
    """A reader that takes a minute: a named pipe that nobody writes to."""
    os.mkfifo(tmp_path / "slow.gz")
    process = subprocess.Popen(
        command(tmp_path / "run", "--data", str(tmp_path / "slow.gz")),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    try:
        assert "training 14,000 steps" in process.stdout.readline()
        time.sleep(0.5)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert "Traceback" not in stderr


@pytest.mark.check
def test_a_run_can_be_stopped_while_another_process_hangs(tmp_path, images_file):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29672"]
    settings = ["--data", str(images_file), "--steps", "100000", "--batch-size", "4", "--save-seconds", "0"]
    code = "import inkfill.training.processes as p; p.GRACE = 2.0; from inkfill.app.cli import main; main()"
    (tmp_path / "short.py").write_text(code)
    words = [*torchrun, str(tmp_path / "short.py"), "train", "--out", str(tmp_path / "run"), *settings]
    launcher = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    wait_for(lambda: saved(tmp_path / "run") > 0, launcher, 120)
    workers = psutil.Process(launcher.pid).children()
    hung, other = workers
    hung.suspend()
    other.send_signal(signal.SIGINT)
    try:
        assert psutil.wait_procs([other], timeout=30)[0] == [other]
    finally:
        hung.kill()
        launcher.communicate(timeout=60)
    load_state(tmp_path / "run" / "state.pt")  # what is there is whole


@pytest.mark.check
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_process_whose_fellow_does_not_come_says_so(rank, tmp_path, images_file):
    code = "import inkfill.training.processes as p; p.MEETING = 2.0; from inkfill.app.cli import main; main()"
    shared = {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"2967{5 + int(rank)}"}
    words = [sys.executable, "-c", code, "train", "--out", str(tmp_path / "run"), *fresh(images_file)]
    found = subprocess.run(words, env={**os.environ, **shared}, capture_output=True, text=True, timeout=60)
    assert found.returncode == 1
    assert [line for line in found.stderr.splitlines() if line.startswith("inkfill: another process")]
    assert "Traceback" not in found.stderr


@pytest.mark.check
def test_two_processes_reach_the_weights_of_one(tmp_path, images_file):
    """gloo, float32: the same global batches, so the difference is rounding, far under what ten steps changed."""
    settings = ["--data", str(images_file), "--steps", "10", "--batch-size", "8", "--dtype", "float32"]
    subprocess.run(command(tmp_path / "one", *settings), check=True, capture_output=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29671"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*torchrun, *command(tmp_path / "two", *settings)[1:]], check=True, capture_output=True, env=environment
    )
    one, two = (load_state(tmp_path / name / "state.pt")["net"] for name in ("one", "two"))
    start = UNet(TrainConfig().unet).state_dict()
    moved = sum((one[k] - start[k]).square().sum() for k in one).sqrt()
    apart = sum((one[k] - two[k]).square().sum() for k in one).sqrt()
    assert moved > 0.05
    assert apart < 1e-2 * moved
    losses = [json.loads((tmp_path / n / "metrics.jsonl").read_text().splitlines()[0])["loss"] for n in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_fine_tuning_starts_from_the_weights_and_the_shape_of_a_checkpoint(tmp_path):
    """With a learning rate of next to nothing, what comes out is what went in."""
    train(replace(SMALL, steps=3), tmp_path / "first", quiet=True)
    given = tmp_path / "first" / "model.safetensors"
    config = replace(SMALL, steps=2, learning_rate=1e-8, muon_rate=0.0, start=str(given))
    train(replace(config, unet=UNetConfig()), tmp_path / "second", quiet=True)
    first, _ = load_network(given)
    second, recipe = load_network(tmp_path / "second" / "model.safetensors")
    assert recipe["training"]["start"] == str(given)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
    other = replace(SMALL, schedule="linear", T=200, steps=1)
    train(other, tmp_path / "linear", quiet=True)
    begun = replace(SMALL, steps=1, start=str(tmp_path / "linear" / "model.safetensors"))
    train(begun, tmp_path / "begun", quiet=True)
    _, recipe = load_network(tmp_path / "begun" / "model.safetensors")
    assert (recipe["schedule"], recipe["T"]) == ("linear", 200)  # the noise levels come with the weights
    with pytest.raises(InputError, match="no such checkpoint"):
        train(replace(SMALL, start=str(tmp_path / "nothing")), tmp_path / "third", quiet=True)

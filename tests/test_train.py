"""Training: it learns, it resumes bit for bit after SIGKILL, it runs on several processes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conftest import TINY
from inkfill import data
from inkfill.checkpoint import load_network, load_state
from inkfill.data import masks
from inkfill.errors import InputError
from inkfill.rng import stream
from inkfill.schedule import Schedule
from inkfill.training.config import TrainConfig
from inkfill.training.objectives import OBJECTIVES, draw_batch, eps_errors, v_errors
from inkfill.training.run import train, validation_losses
from inkfill.training.trainer import optimisers
from inkfill.unet import UNet, UNetConfig

SCHEDULE = Schedule.named("cosine")
SMALL = TrainConfig(data="rendered", steps=8, batch_size=8, warmup=2, unet=TINY)


@pytest.fixture(scope="session")
def images_file(tmp_path_factory, digits) -> Path:
    path = tmp_path_factory.mktemp("data") / "digits.npy"
    np.save(path, digits)
    return path


# ---- batches and the loss --------------------------------------------------------------------------------------------


def test_a_batch_is_drawn_from_its_step_and_sliced_by_rank(digits):
    spec = masks.parse("training")

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
    t = torch.cat([draw_batch(config, SCHEDULE, digits, masks.parse("all"), stream(0, i)).t for i in range(4)])
    assert t.min() >= 1
    assert t.max() <= 1000
    assert torch.histc(t.double(), 10, 0.5, 1000.5).tolist() == [200] * 10
    assert len(t.unique()) > 700


def test_the_loss_is_the_noise_error_on_missing_pixels(digits):
    """A network that answers v = 0 predicts eps_hat = sqrt(1 - alpha_bar) x_t."""
    batch = draw_batch(SMALL, SCHEDULE, digits, masks.parse("half:left"), stream(0))
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


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"T": 1}, {"schedule": "x"}, {"masks": "x"}]
)
def test_settings_that_cannot_work(change):
    with pytest.raises(InputError):
        replace(SMALL, **change).check()


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


def saved(out: Path) -> float:
    return (out / "state.pt").stat().st_mtime_ns if (out / "state.pt").exists() else 0


@pytest.mark.slow
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


@pytest.mark.slow
def test_ctrl_c_saves_and_exits_cleanly(tmp_path, images_file):
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(out, *fresh(images_file, 100_000)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: saved(out) > 0, process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "--resume" in stdout
    assert "Traceback" not in stderr
    assert load_state(out / "state.pt")["step"] >= 1


@pytest.mark.slow
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
    with pytest.raises(InputError, match="no such checkpoint"):
        train(replace(SMALL, start=str(tmp_path / "nothing")), tmp_path / "third", quiet=True)

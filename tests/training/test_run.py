"""Runs in this process: they learn, stop, resume, and never lose what a folder held."""

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers import TINY
from inkfill import data
from inkfill.core import masks as specs
from inkfill.core.objectives import OBJECTIVES, v_errors
from inkfill.core.schedule import Schedule
from inkfill.core.trainer import Trainer
from inkfill.core.unet import UNetConfig
from inkfill.data.images import BYTES
from inkfill.errors import InputError
from inkfill.files import locked
from inkfill.models.checkpoint import load_network, load_state
from inkfill.training import run as run_module
from inkfill.training.batches import Batches, Source
from inkfill.training.config import TrainConfig
from inkfill.training.folder import RunFolder
from inkfill.training.run import train
from inkfill.training.validation import validation_losses

SMALL = TrainConfig(steps=8, batch_size=8, warmup=2, unet=TINY)


@pytest.fixture
def config(images_file) -> TrainConfig:
    return replace(SMALL, data=str(images_file))


def rows_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def names_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_learns_and_logs(tmp_path, digits):
    np.save(tmp_path / "x.npy", digits)
    config = replace(SMALL, data=str(tmp_path / "x.npy"), steps=100, batch_size=16, learning_rate=5e-3, ema=0.9)
    validated = []
    assert train(
        config, tmp_path / "run", validate_every=50, quiet=True, on_validation=lambda step, *_: validated.append(step)
    )
    rows = rows_of(tmp_path / "run")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.7 * losses[0]
    validations = [row for row in rows if "validation" in row]
    assert [row["step"] for row in validations] == [50, 100]
    assert all(f"validation_{i}" in validations[0] for i in range(10))
    assert validated == [50, 100]
    net, recipe = load_network(tmp_path / "run" / "model.safetensors")
    assert recipe["step"] == 100
    assert recipe["image_size"] == [28, 28]
    batches = Batches(Schedule.named("cosine"), specs.parse("training"), BYTES, 16)
    found = validation_losses(net, OBJECTIVES["v"], batches, data.load(config.data).validation)
    assert found["validation"] == pytest.approx(validations[-1]["validation"], rel=1e-2)  # bfloat16 in the run


def test_equal_settings_give_equal_weights(config, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(replace(config, seed=seed), tmp_path / name, quiet=True)
    a, b, c = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_global_random_state_is_untouched(config, tmp_path):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    train(config, tmp_path / "run", quiet=True)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_every_step_has_a_batch_of_its_own(config, tmp_path, monkeypatch):
    drawn, draw = [], Source.draw

    def noted(self, rng, rows):
        batch = draw(self, rng, rows)
        drawn.append(tuple(batch.t.tolist()))
        return batch

    monkeypatch.setattr(Source, "draw", noted)
    assert train(replace(config, steps=20), tmp_path / "run", quiet=True)
    assert len(drawn) == len(set(drawn)) == 20


def test_several_sizes_train_in_one_run(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "mixed").mkdir()
    for i in range(60):
        side = 8 if i < 30 else 12 if i < 55 else 20
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(tmp_path / "mixed" / f"{i:02d}.png")
    train(replace(SMALL, data=str(tmp_path / "mixed"), steps=6), tmp_path / "run", quiet=True)
    recipe = load_network(tmp_path / "run" / "model.safetensors")[1]
    assert (recipe["image_size"], recipe["least_size"]) == ([20, 20], [8, 8])


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_a_run_is_replaced_only_if_asked_and_only_by_one_that_can_begin(config, tmp_path):
    train(config, tmp_path / "run", quiet=True)
    before = names_in(tmp_path / "run")
    with pytest.raises(InputError, match="does not fit"):
        train(replace(config, masks="box:99"), tmp_path / "run", overwrite=True, quiet=True)
    assert names_in(tmp_path / "run") == before
    with pytest.raises(InputError, match="--overwrite"):
        train(replace(config, steps=1, seed=5), tmp_path / "run", quiet=True)
    train(replace(config, steps=1, seed=5), tmp_path / "run", overwrite=True, quiet=True)
    assert load_state(tmp_path / "run" / "state.pt")["step"] == 1


def test_augmentation_that_does_not_fit_is_refused_before_any_file_changes(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((40, 12, 16), np.uint8) + np.arange(16, dtype=np.uint8))
    config = replace(SMALL, data=str(tmp_path / "x.npy"), steps=2)
    assert train(config, tmp_path / "run", quiet=True)
    before = names_in(tmp_path / "run")
    with pytest.raises(InputError, match="square"):
        train(replace(config, augment="rotate90"), tmp_path / "run", overwrite=True, quiet=True)
    assert names_in(tmp_path / "run") == before


def test_an_overwritten_run_is_gone_before_the_first_save(config, tmp_path, monkeypatch):
    """A run killed right after it began must not resume the one that it replaced."""
    train(config, tmp_path / "run", quiet=True)

    def killed(self, rate):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        train(replace(config, seed=5), tmp_path / "run", overwrite=True, quiet=True)
    assert not (tmp_path / "run" / "state.pt").exists()


def test_a_model_of_another_origin_is_not_replaced(config, tmp_path):
    (tmp_path / "model.safetensors").write_text("precious")
    with pytest.raises(InputError, match=r"holds model\.safetensors"):
        train(config, tmp_path, quiet=True)
    assert (tmp_path / "model.safetensors").read_text() == "precious"


def test_two_runs_in_one_folder_are_refused(config, tmp_path):
    with locked(tmp_path, "train"), pytest.raises(InputError, match="another inkfill train"):
        train(config, tmp_path, quiet=True)
    assert train(replace(config, steps=1), tmp_path, quiet=True)


# ---- resuming --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_resumed_is_refused(tmp_path, small_digits):
    with pytest.raises(InputError, match="nothing to resume"):
        train(SMALL, tmp_path / "none", resume=True, quiet=True)
    np.save(tmp_path / "x.npy", small_digits)
    train(replace(SMALL, data=str(tmp_path / "x.npy"), steps=1), tmp_path / "run", quiet=True)
    np.save(tmp_path / "x.npy", 255 - small_digits)
    with pytest.raises(InputError, match="other images"):
        train(SMALL, tmp_path / "run", resume=True, quiet=True)
    (tmp_path / "run" / "state.pt").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"state\.pt"):
        train(SMALL, tmp_path / "run", resume=True, quiet=True)
    torch.save({"net": {}, "step": 3}, tmp_path / "run" / "state.pt")  # of another program
    with pytest.raises(InputError, match="not a state of this version"):
        train(SMALL, tmp_path / "run", resume=True, quiet=True)


def test_a_state_of_another_network_is_refused(config, tmp_path):
    train(replace(config, steps=1), tmp_path / "run", quiet=True)
    state = load_state(tmp_path / "run" / "state.pt")
    torch.save({**state, "net": {}}, tmp_path / "run" / "state.pt")
    with pytest.raises(InputError, match="not whole"):
        train(config, tmp_path / "run", resume=True, quiet=True)


def test_a_finished_run_resumes_without_its_metrics(config, tmp_path):
    config = replace(config, steps=2)
    assert train(config, tmp_path / "run", quiet=True)
    (tmp_path / "run" / "metrics.jsonl").unlink()
    assert train(config, tmp_path / "run", resume=True, quiet=True)


def test_metrics_after_the_last_save_are_dropped(tmp_path):
    folder = RunFolder(tmp_path)
    for step in (1, 2, 3):
        folder.log(step, {"loss": 1.0})
    with folder.metrics.open("a") as file:
        file.write('{"step": 4, "lo')
    folder.prepare(fresh=False, step=2, pairs=None)
    assert [row["step"] for row in rows_of(tmp_path)] == [1, 2]


def test_a_run_off_the_main_thread(config, tmp_path):
    found = []
    thread = threading.Thread(target=lambda: found.append(train(config, tmp_path / "run", quiet=True)))
    thread.start()
    thread.join()
    assert found == [True]


# ---- divergence ------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_never_saved(config, tmp_path, monkeypatch):
    train(config, tmp_path / "run", quiet=True)
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    calls = []

    def breaks(net, batch):
        calls.append(1)
        return v_errors(net, batch) * (float("nan") if len(calls) > 3 else 1.0)

    monkeypatch.setitem(OBJECTIVES, "v", replace(OBJECTIVES["v"], errors=breaks))
    with pytest.raises(InputError, match="not finite"):
        train(replace(config, steps=40), tmp_path / "run", overwrite=True, save_seconds=0, quiet=True)
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert all(bool(value.isfinite().all()) for value in weights.values())
    assert (tmp_path / "run" / "model.safetensors").read_bytes() != before  # the first three steps were saved


def test_weights_that_are_not_finite_are_never_saved(config, tmp_path, monkeypatch):
    """The loss precedes the update: it can be finite where the weights are not."""
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
    monkeypatch.setattr(RunFolder, "prepare", lambda self, fresh, step, pairs: None)
    with pytest.raises(InputError, match="not finite"):
        train(replace(config, steps=3), tmp_path / "run", overwrite=True, quiet=True)
    assert [(tmp_path / "run" / name).read_bytes() for name in ("model.safetensors", "state.pt")] == before


# ---- the clock -------------------------------------------------------------------------------------------------------


def test_minutes_end_a_run_by_the_clock(config, tmp_path, capsys, monkeypatch):
    """0.02 minutes are 1.2 seconds, however slow a step is; the learning rate falls to zero over them."""
    config = replace(config, steps=1, minutes=0.02, warmup=0)
    slow, draw = [], Source.draw

    def delayed(self, rng, rows):
        time.sleep(0.1 if len(slow) > 2 else 0.0)  # a machine that becomes busy after the first steps
        slow.append(1)
        return draw(self, rng, rows)

    monkeypatch.setattr(Source, "draw", delayed)
    monkeypatch.setattr(run_module, "LOG_EVERY", 1)
    began = time.monotonic()
    assert train(config, tmp_path / "run", validate_every=10**9)
    assert time.monotonic() - began < 30  # loose: data, validation and saving come on top
    rates, seconds = ([row[key] for row in rows_of(tmp_path / "run") if key in row] for key in ("rate", "seconds"))
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.2
    assert 1.2 <= seconds[-1] < 10
    output = capsys.readouterr().out
    assert output.startswith("training for 0.02 minutes by the clock")
    assert "too few for useful samples" in output


def test_a_run_by_the_clock_resumes_with_its_remaining_time(config, tmp_path, monkeypatch):
    """The pause between stop and resumption does not count."""
    config = replace(config, minutes=0.02)
    monkeypatch.setattr(run_module.StopRequest, "asked", lambda self: True)
    assert not train(config, tmp_path / "run", quiet=True)
    first = load_state(tmp_path / "run" / "state.pt")
    assert 0 < first["seconds"] < 1.2
    time.sleep(1.2)
    monkeypatch.undo()
    assert train(config, tmp_path / "run", resume=True, quiet=True)
    second = load_state(tmp_path / "run" / "state.pt")
    assert 1.2 <= second["seconds"] < 10
    assert second["step"] > first["step"]


@pytest.mark.parametrize(
    ("losses", "best"), [((0.5, 0.4, 0.43), 4), ((0.5, 0.4, 0.41), None), ((0.5, 0.43, 0.4), None)]
)
def test_overfitting_is_reported_and_the_best_weights_kept(config, tmp_path, capsys, monkeypatch, losses, best):
    """The run stops after its second validation and resumes."""
    several, asked = iter(losses), iter([False, False, False, True])
    monkeypatch.setattr(run_module, "validation_losses", lambda *_: {"validation": next(several)})
    monkeypatch.setattr(run_module.StopRequest, "asked", lambda _: next(asked, False))
    config, out = replace(config, steps=6), tmp_path / "run"
    assert not train(config, out, validate_every=2)
    assert train(config, out, resume=True, validate_every=2)
    output = capsys.readouterr().out
    assert "for validation and" in output
    assert (out / "best.safetensors").exists() == bool(best)
    assert ("lowest at step 4 (0.4000) and is 0.4300 now" in output) == bool(best)
    if best:
        assert load_network(out / "best.safetensors")[1]["step"] == best


# ---- from a checkpoint -----------------------------------------------------------------------------------------------


def test_fine_tuning_starts_from_the_weights_of_a_checkpoint(config, tmp_path):
    """With a learning rate near 0 the weights stay; architecture and noise schedule are the checkpoint's."""
    train(replace(config, steps=3, schedule="linear", T=200), tmp_path / "first", quiet=True)
    given = tmp_path / "first" / "model.safetensors"
    tuned = replace(config, steps=2, learning_rate=1e-8, muon_rate=0.0, start=str(given), unet=UNetConfig())
    train(tuned, tmp_path / "second", quiet=True)
    first, _ = load_network(given)
    second, recipe = load_network(tmp_path / "second" / "model.safetensors")
    assert recipe["training"]["start"] == str(given)
    assert (recipe["schedule"], recipe["T"]) == ("linear", 200)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
    with pytest.raises(InputError, match="no such checkpoint"):
        train(replace(config, start=str(tmp_path / "nothing")), tmp_path / "third", quiet=True)


# ---- a constant rate, then a decay -----------------------------------------------------------------------------------


def test_an_extended_run_equals_one_of_that_length(config, tmp_path):
    """Bit for bit: the state before the decay is the same, whatever was to follow."""
    long = replace(config, steps=20, warmup=0, decay=0.25)
    train(long, tmp_path / "long", quiet=True)
    train(replace(long, steps=12), tmp_path / "short", quiet=True)
    assert load_state(tmp_path / "short" / "constant.pt")["step"] == 9
    train(config, tmp_path / "short", resume=True, more_steps=11, quiet=True)  # from step 9
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("long", "short"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert [row["step"] for row in rows_of(tmp_path / "short") if "loss" in row] == [20]


def test_a_run_killed_in_its_decay_keeps_the_state_before_it(config, tmp_path, monkeypatch):
    long = replace(config, steps=20, decay=0.25)
    stops = iter([False] * 17 + [True] * 9)
    monkeypatch.setattr(run_module.StopRequest, "asked", lambda self: next(stops))
    assert not train(long, tmp_path / "run", quiet=True)
    monkeypatch.undo()
    before = (tmp_path / "run" / "constant.pt").read_bytes()
    assert load_state(tmp_path / "run" / "state.pt")["step"] > 15
    assert train(long, tmp_path / "run", resume=True, quiet=True)
    assert (tmp_path / "run" / "constant.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "more", "says"),
    [
        ({}, {"more_steps": 8}, "falls from its start"),
        ({"decay": 0.5}, {"more_steps": 3}, "give at least 4"),
        ({"decay": 0.5}, {"more_minutes": 3}, "extend it by --steps"),
    ],
)
def test_what_cannot_be_extended_is_refused(config, tmp_path, change, more, says):
    train(replace(config, **change), tmp_path / "run", quiet=True)
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match=says):
        train(config, tmp_path / "run", resume=True, quiet=True, **more)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before

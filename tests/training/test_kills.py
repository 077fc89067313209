"""Runs in processes of their own: killed, stopped, several together."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from inkfill.core.unet import UNet, UNetConfig
from inkfill.models.checkpoint import load_network, load_state

pytestmark = pytest.mark.check


def command(out: Path, *extra: str) -> list[str]:
    return [sys.executable, "-m", "inkfill", "train", "--out", str(out), *extra]


def settings(images_file: Path, steps: int = 40) -> list[str]:
    return ["--data", str(images_file), "--steps", str(steps), "--batch-size", "4", "--save-seconds", "0"]


def wait_for(condition, process, seconds=60):
    limit = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < limit, "nothing happened"
        time.sleep(0.0002)


def hear_ctrl_c() -> None:
    """Undo what a shell that runs the tests in the background set: children that ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def time_of_save(out: Path) -> float:
    return (out / "state.pt").stat().st_mtime_ns if (out / "state.pt").exists() else 0


def test_sigkill_at_any_moment_and_resume_is_bitwise_exact(tmp_path, images_file):
    """Killed in the middle of a write, then at random moments (every step saves), until the run is finished."""
    subprocess.run(command(tmp_path / "whole", *settings(images_file)), check=True, capture_output=True)
    out, moments = tmp_path / "killed", random.Random(0)
    for attempt in range(4):
        arguments = ["--resume", "--save-seconds", "0"] if attempt else settings(images_file)
        before = time_of_save(out)
        process = subprocess.Popen(command(out, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda before=before: time_of_save(out) != before, process)
        if attempt < 2:
            wait_for(lambda: any(out.glob(".unfinished-state-*")), process)
        else:
            time.sleep(moments.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        load_state(out / "state.pt")  # files are whole
        load_network(out / "model.safetensors")
    subprocess.run(command(out, "--resume"), check=True, capture_output=True)
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    states = [load_state(folder / "state.pt") for folder in (out, tmp_path / "whole")]
    assert states[0]["step"] == states[1]["step"] == 40
    for name in ("net", "ema"):
        assert all(torch.equal(states[0][name][k], states[1][name][k]) for k in states[0][name])
    steps = [[json.loads(line)["step"] for line in (f / "metrics.jsonl").open()] for f in (out, tmp_path / "whole")]
    assert steps[0] == steps[1]
    assert not list(out.glob(".unfinished*"))


def test_ctrl_c_saves_and_exits_cleanly(tmp_path, images_file):
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(out, *settings(images_file, 100_000)),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    try:
        wait_for(lambda: time_of_save(out) > 0, process)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()  # a run that missed the signal would go on for hours
    assert process.returncode == 0
    assert "--resume" in stdout
    assert "Traceback" not in stderr
    assert load_state(out / "state.pt")["step"] >= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_can_be_stopped_while_its_data_load(tmp_path, number):
    """A reader that never ends: a named pipe without a writer."""
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


def test_a_run_can_be_stopped_while_another_process_hangs(tmp_path, images_file):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29672"]
    code = "import inkfill.processes as p; p.GRACE = 2.0; from inkfill.app.cli import main; main()"
    (tmp_path / "short.py").write_text(code)
    words = [*torchrun, str(tmp_path / "short.py"), "train", "--out", str(tmp_path / "run")]
    launcher = subprocess.Popen(
        [*words, *settings(images_file, 100_000)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    wait_for(lambda: time_of_save(tmp_path / "run") > 0, launcher, 120)
    hung, other = psutil.Process(launcher.pid).children()
    hung.suspend()
    other.send_signal(signal.SIGINT)
    try:
        assert psutil.wait_procs([other], timeout=30)[0] == [other]
    finally:
        hung.kill()
        launcher.communicate(timeout=60)
    load_state(tmp_path / "run" / "state.pt")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_process_without_its_peer_reports_it(rank, tmp_path, images_file):
    code = "import inkfill.processes as p; p.MEETING = 2.0; from inkfill.app.cli import main; main()"
    shared = {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"2967{5 + int(rank)}"}
    words = [sys.executable, "-c", code, "train", "--out", str(tmp_path / "run"), *settings(images_file)]
    found = subprocess.run(words, env={**os.environ, **shared}, capture_output=True, text=True, timeout=60)
    assert found.returncode == 1
    assert [line for line in found.stderr.splitlines() if line.startswith("inkfill: another process")]
    assert "Traceback" not in found.stderr


def test_two_processes_reach_the_weights_of_one(tmp_path, images_file):
    """gloo, float32, the same global batches: the difference is rounding, under 1 % of the change in ten steps."""
    words = ["--data", str(images_file), "--steps", "10", "--batch-size", "8", "--dtype", "float32"]
    subprocess.run(command(tmp_path / "one", *words), check=True, capture_output=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29671"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*torchrun, *command(tmp_path / "two", *words)[1:]], check=True, capture_output=True, env=environment
    )
    one, two = (load_state(tmp_path / name / "state.pt")["net"] for name in ("one", "two"))
    start = UNet(UNetConfig.for_size(12)).state_dict()
    moved = sum((one[k] - start[k]).square().sum() for k in one).sqrt()
    apart = sum((one[k] - two[k]).square().sum() for k in one).sqrt()
    assert moved > 0.05
    assert apart < 1e-2 * moved
    losses = [json.loads((tmp_path / n / "metrics.jsonl").read_text().splitlines()[0])["loss"] for n in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)

"""``make gpu``: train, fill by every method and evaluate on the accelerator, and compare with the CPU, in 3 minutes."""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import inkfill
from inkfill import data
from inkfill.evaluation import protocol
from inkfill.methods import METHODS
from inkfill.training.config import TrainConfig
from inkfill.training.run import train

STEPS, COUNT = 5, 8  # sampling steps, and digits
TOLERANCE = 2.0  # mean absolute difference in grey levels: rounding differs, and samplers amplify it


def main() -> None:
    """Raise AssertionError where the accelerator and the CPU disagree."""
    name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else ""
    if not name:
        print("no accelerator here: nothing was compared")
        return
    digits = data.rendered(200, 50, 50)
    for method in METHODS:
        weights = "mnist-few" if method == "few" else "mnist"
        filled, seconds = {}, {}
        for device in ("cpu", name):
            model = inkfill.load(weights, device, "float32")
            began = time.perf_counter()
            steps = 2 if method == "few" else STEPS
            filled[device] = inkfill.inpaint(model, digits.test[:COUNT], "half:left", 2, method, steps=steps)
            seconds[device] = time.perf_counter() - began
        apart = np.abs(filled["cpu"].astype(float) - filled[name]).mean()
        print(f"{method:12s} {apart:.3f} grey levels apart; {seconds['cpu']:.1f} s, {seconds[name]:.1f} s on {name}")
        assert apart < TOLERANCE, method
    with tempfile.TemporaryDirectory() as folder:
        losses = {}
        for device in ("cpu", name):
            out = Path(folder, device)
            train(TrainConfig(data="rendered", steps=30, dtype="float32"), out, quiet=True, device=device)
            losses[device] = inkfill.load(out, "cpu", "float32").net.state_dict()
            networks = protocol.Networks.load(out / "model.safetensors", device=device)
            cells = protocol.plan(["half:left"], ["conditional"], [4], samples=4)
            found = protocol.run(networks, digits, "test", 20, cells)
            assert found is not None
            print(f"30 steps and an evaluation on {device}: CRPS {found.rows[0]['crps']:.4f}")
        apart = max(float((losses["cpu"][key] - losses[name][key]).abs().max()) for key in losses["cpu"])
        print(f"weights after 30 steps: {apart:.2e} apart at most")


if __name__ == "__main__":
    main()

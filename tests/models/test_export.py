"""Exports: onnxruntime and diffusers compute what this library computes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from inkfill.app.cli import main
from inkfill.core.rng import SampleNoise
from inkfill.core.samplers import SAMPLERS
from inkfill.core.unet import UNet, UNetConfig
from inkfill.errors import InputError
from inkfill.filling.inpaint import inpaint
from inkfill.models.export import coefficients, write_diffusers, write_onnx
from inkfill.models.model import Model, Recipe, load


def run_onnx(folder, images, mask, seed, samples):
    """Samples of a uint8 image ``[H, W]`` from the files alone, as their model card says."""
    runtime = pytest.importorskip("onnxruntime")
    table = json.loads((folder / "sampler.json").read_text())
    embed, net = (runtime.InferenceSession(folder / f"{name}.onnx") for name in ("embed", "step"))
    half = (table["high"] - table["low"]) / 2
    known = np.repeat((~mask)[None, None].astype(np.float32), samples, 0)
    pixels = ((images[None, None].astype(np.float32) - table["low"]) / half - 1) * known
    noise = SampleNoise(seed, [0] * samples, list(range(samples)), pixels.shape[1:])
    (embedded,) = embed.run(None, {"known_pixels": pixels, "known_map": known})
    x, before = noise().numpy(), 0.0
    for step in table["steps"]:
        given = {"x_t": x, "known_map": known, "time": np.array([step["time"]], np.float32), "embedded": embedded}
        if table["latent"]:
            given["latent"] = noise().numpy() if step["c_latent"] else np.zeros_like(x)
        (v,) = net.run(None, given)
        x0 = np.where(known > 0, pixels, (step["signal"] * x - step["noise"] * v).clip(-1, 1))
        z = noise().numpy() if step["c_noise"] else 0.0
        x = step["c_x"] * x + step["c_x0"] * x0 + step["c_before"] * before + step["c_noise"] * z
        x, before = x.astype(np.float32), x0
    values = ((x[:, 0] + 1) * half + table["low"]).round().clip(table["low"], table["high"])
    values = np.where(values - table["low"] <= table["floor"], table["low"], values)
    return np.where(mask, values, images).astype(np.uint8)


@pytest.mark.check
def test_a_deeper_network_is_exported(tmp_path):
    """The export itself runs both files in onnxruntime and compares, on sides that are multiples of 8."""
    pytest.importorskip("onnxscript")
    config = UNetConfig(channels=3, widths=(8, 8, 16), blocks=(1, 1, 1), head_width=8, time_width=16)
    write_onnx(Model(UNet(config), Recipe(channels=3), dtype=torch.float32), tmp_path / "onnx")
    assert "multiples of 8" in (tmp_path / "onnx" / "README.md").read_text()


@pytest.mark.check
@pytest.mark.parametrize("name", ["mnist", "mnist-few"])
def test_onnxruntime_draws_the_same_samples(name, tmp_path, digits):
    pytest.importorskip("onnxscript")
    model = load(name, "cpu", "float32")
    write_onnx(model, tmp_path / "onnx")
    mask = np.zeros((28, 28), bool)
    mask[:, :14] = True
    found = run_onnx(tmp_path / "onnx", digits[0], mask, 3, 2)
    off = np.abs(found.astype(int) - inpaint(model, digits[:1], mask, 2, seed=3)[0])
    assert (off > 0).mean() <= 0.001
    assert off.max() <= 1
    text = (tmp_path / "onnx" / "README.md").read_text()
    assert "trained on mnist" in text
    assert "Apache" in text


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_coefficients_reproduce_the_sampler(sampler, steps, model):
    """The table gives the sampler's own result, on a nonlinear denoiser."""
    rows = coefficients(model, sampler, steps)["steps"]
    shape, n = (1, 8, 8), [0, 1]

    def denoise(x, t):
        return torch.tanh(x + t / 1000)

    noise = SampleNoise(0, n, n, shape)
    timesteps = [row["t"] for row in rows] + [0]
    wanted = SAMPLERS[sampler](denoise, noise(), model.schedule, timesteps, noise)
    noise = SampleNoise(0, n, n, shape)
    x, before = noise(), torch.zeros(())
    for row in rows:
        x0 = denoise(x, row["t"])
        x = row["c_x"] * x + row["c_x0"] * x0 + row["c_before"] * before
        if row["c_noise"]:
            x = x + row["c_noise"] * noise()
        before = x0
    torch.testing.assert_close(x, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "recipe", [{}, {"schedule": "linear", "T": 100}, {"T": 200}], ids=["cosine", "linear", "200 timesteps"]
)
def test_diffusers_has_the_same_denoiser(tmp_path, model, recipe):
    """The same alpha_bar, and the same predictions at three timesteps."""
    diffusers = pytest.importorskip("diffusers")
    model = Model(model.net, Recipe(**recipe), dtype=torch.float32)
    write_diffusers(model, tmp_path / "folder")
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path / "folder")
    T = model.schedule.T
    table = pipeline.scheduler.alphas_cumprod.double()
    torch.testing.assert_close(table, model.schedule.alpha_bar[1:], rtol=2e-4, atol=1e-7)
    x = SampleNoise(0, [0, 0], [0, 1], (1, 28, 28))()
    denoise = model.unconditional(x)
    with torch.no_grad():
        for t in (1, T // 3, T):
            v = pipeline.unet(x, t - 1).sample
            torch.testing.assert_close(model.schedule.x0_from_v(x, t, v), denoise(x, t), rtol=1e-4, atol=1e-4)
    made = pipeline(batch_size=2, num_inference_steps=2, output_type="np").images
    assert made.shape == (2, 28, 28, 1)
    assert list((tmp_path / "folder").rglob("*.bin")) == []


def test_unsupported_exports_are_refused(tmp_path, model):
    with pytest.raises(InputError, match="diffusers needs a denoiser"):
        write_diffusers(load("mnist-few", "cpu", "float32"), tmp_path / "x")
    with pytest.raises(InputError, match="objective regression: cannot be exported"):
        write_onnx(Model(model.net, replace(model.recipe, objective="regression")), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_the_command_keeps_existing_files(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine").write_text("precious")
    monkeypatch.setattr("sys.argv", ["inkfill", "export", "--format", "onnx", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "precious"

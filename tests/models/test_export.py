"""Our networks in other programs: onnxruntime and diffusers make what we make."""

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
    """Completions of uint8 ``[H, W]`` from the files alone, as their model card has it."""
    runtime = pytest.importorskip("onnxruntime")
    table = json.loads((folder / "sampler.json").read_text())
    embed, net = (runtime.InferenceSession(folder / f"{name}.onnx") for name in ("embed", "step"))
    half = (table["white"] - table["black"]) / 2
    known = np.repeat((~mask)[None, None].astype(np.float32), samples, 0)
    pixels = ((images[None, None].astype(np.float32) - table["black"]) / half - 1) * known
    noise = SampleNoise(seed, [0] * samples, list(range(samples)), pixels.shape[1:])
    (embedded,) = embed.run(None, {"known_pixels": pixels, "known_map": known})
    x, before = noise().numpy(), 0.0
    for step in table["steps"]:
        given = {"x_t": x, "known_map": known, "level": np.array([step["level"]], np.float32), "embedded": embedded}
        if table["fresh"]:
            given["fresh"] = noise().numpy() if step["c_fresh"] else np.zeros_like(x)
        (v,) = net.run(None, given)
        x0 = np.where(known > 0, pixels, (step["signal"] * x - step["noise"] * v).clip(-1, 1))
        z = noise().numpy() if step["c_noise"] else 0.0
        x = step["c_x"] * x + step["c_x0"] * x0 + step["c_before"] * before + step["c_noise"] * z
        x, before = x.astype(np.float32), x0
    values = ((x[:, 0] + 1) * half + table["black"]).round().clip(table["black"], table["white"])
    values = np.where(values - table["black"] <= table["floor"], table["black"], values)
    return np.where(mask, values, images).astype(np.uint8)


def test_a_deeper_network_is_exported(tmp_path):
    """The export itself runs both files in onnxruntime and compares, on sides that are multiples of 8."""
    pytest.importorskip("onnxscript")
    config = UNetConfig(channels=3, widths=(8, 8, 16), blocks=(1, 1, 1), head_width=8, time_width=16)
    write_onnx(Model(UNet(config), Recipe(channels=3), dtype=torch.float32), tmp_path / "onnx")
    assert "multiples of 8" in (tmp_path / "onnx" / "README.md").read_text()


@pytest.mark.parametrize("name", ["mnist", "mnist-few"])
def test_onnxruntime_completes_as_we_do(name, tmp_path, digits):
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
def test_coefficients_are_the_sampler(sampler, steps, model):
    """A run by the table is the sampler's own, on a denoiser that is not linear."""
    rows = coefficients(model, sampler, steps)["steps"]
    shape, n = (1, 8, 8), [0, 1]

    def denoise(x, t):
        return torch.tanh(x + t / 1000)

    noise = SampleNoise(0, n, n, shape)
    levels = [row["t"] for row in rows] + [0]
    wanted = SAMPLERS[sampler](denoise, noise(), model.schedule, levels, noise)
    noise = SampleNoise(0, n, n, shape)
    x, before = noise(), torch.zeros(())
    for row in rows:
        x0 = denoise(x, row["t"])
        x = row["c_x"] * x + row["c_x0"] * x0 + row["c_before"] * before
        if row["c_noise"]:
            x = x + row["c_noise"] * noise()
        before = x0
    torch.testing.assert_close(x, wanted, rtol=1e-4, atol=1e-4)


def tiny(**recipe):
    config = UNetConfig(widths=(16, 32), blocks=(1, 1), head_width=16, time_width=32)
    net, generator = UNet(config), torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return Model(net, Recipe(**recipe), dtype=torch.float32)


@pytest.mark.parametrize("recipe", [{}, {"schedule": "linear"}, {"T": 200}], ids=["cosine", "linear", "200 levels"])
def test_diffusers_denoises_as_we_do(tmp_path, recipe):
    """The same predictions at every level, and by their DDIM from one noise the images of ours."""
    diffusers = pytest.importorskip("diffusers")
    model = tiny(**recipe)
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


def test_what_cannot_be_exported_is_refused(tmp_path):
    with pytest.raises(InputError, match="no denoiser"):
        write_diffusers(load("mnist-few", "cpu", "float32"), tmp_path / "x")
    with pytest.raises(InputError, match="another one in diffusers"):
        write_diffusers(tiny(schedule="linear", T=100), tmp_path / "x")
    model = tiny()
    with pytest.raises(InputError, match="completes nothing"):
        write_onnx(Model(model.net, replace(model.recipe, objective="regression")), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_the_command_keeps_what_is_there(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine").write_text("precious")
    monkeypatch.setattr("sys.argv", ["inkfill", "export", "--format", "onnx", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "precious"

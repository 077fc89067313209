"""Foreign models: every prediction, diffusers' own pipelines number by number, and unsupported models."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import inkfill
from helpers import ROOT, refused, run
from inkfill.core.samplers import ancestral, ddim
from inkfill.core.schedule import PREDICTIONS, Schedule
from inkfill.errors import InputError
from inkfill.evaluation.analytic import AnalyticPrior, GaussianMixture
from inkfill.filling.inpaint import inpaint, sample
from inkfill.methods import METHODS
from inkfill.models import adapters

SCHEDULE = Schedule.named("cosine")


def exact():
    """Two Gaussians in 2x2 pixels and 3 channels, and a schedule."""
    return AnalyticPrior(mixture(12), SCHEDULE, channels=3)


def mixture(d):
    """Two round Gaussians in d dimensions."""
    means = torch.linspace(-0.8, 0.8, 2 * d).view(2, d)
    return GaussianMixture(torch.tensor([0.3, 0.7]), means, 0.04 * torch.eye(d).expand(2, d, d))


def wrapped(predicts):
    """The exact denoiser as a foreign model whose timesteps count from 0."""
    denoise = exact().unconditional(torch.zeros(1, 3, 2, 2))

    def predict(x_t, t):
        assert (t == t[0]).all()
        ours = int(t[0]) + 1
        x0 = denoise(x_t, ours)
        eps = SCHEDULE.eps_from_x0(x_t, ours, x0)
        score = -eps / float(1 - SCHEDULE.alpha_bar[ours]) ** 0.5
        return {"x0": x0, "eps": eps, "v": SCHEDULE.v_from_eps(x0, ours, eps), "score": score}[predicts]

    return adapters.prior(predict, SCHEDULE.alpha_bar[1:], predicts, channels=3, bounded=False)


@pytest.mark.parametrize("predicts", PREDICTIONS)
def test_every_prediction_gives_the_same_denoiser(predicts):
    x = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    expected, found = exact().unconditional(x), wrapped(predicts).unconditional(x)
    for t in (1, 2, 300, 900):
        torch.testing.assert_close(found(x, t), expected(x, t), rtol=1e-3, atol=1e-4)


def test_a_model_in_sigma_gives_the_same_denoiser():
    """D(x, sigma) of the exact prior is the posterior mean given x_t at the timestep of that sigma."""
    means = torch.linspace(-0.8, 0.8, 24).view(2, 3, 2, 2)

    def denoiser(x, sigma):
        # The posterior mean of a mixture of N(m, 0.2^2) given x = x0 + sigma noise, straight from Bayes' rule.
        total = 0.2**2 + float(sigma[0]) ** 2
        apart = (x[:, None].flatten(2) - means.flatten(1)[None]).square().sum(2)
        weight = (torch.log(torch.tensor([0.3, 0.7])) - apart / (2 * total)).softmax(1)
        each = means[None] + 0.2**2 / total * (x[:, None] - means[None])
        return (weight[:, :, None, None, None] * each).sum(1)

    prior = adapters.prior_in_sigma(denoiser, channels=3, bounded=False)
    oracle = AnalyticPrior(mixture(12), prior.schedule, channels=3)
    x = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    for t in (1, 400, 700, 1000):
        torch.testing.assert_close(prior.unconditional(x)(x, t), oracle.unconditional(x)(x, t), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("predicts", ["flow", "flow-reversed"])
def test_a_flow_gives_the_same_denoiser(predicts):
    """The velocity E[z - x0 given x_t] of the exact prior, at x_t = (1 - t) x0 + t z."""
    oracle = AnalyticPrior(mixture(12), SCHEDULE, channels=3)
    sigmas = ((1 - SCHEDULE.alpha_bar) / SCHEDULE.alpha_bar) ** 0.5

    def velocity(x_t, t):
        share = float(t[0]) if predicts == "flow" else 1 - float(t[0])
        sigma = share / (1 - share)
        nearest = int((sigmas - sigma).abs().argmin())  # the schedule's timestep of that sigma, within its spacing
        x = x_t / (1 - share) * float(SCHEDULE.alpha_bar[nearest]) ** 0.5
        x0 = oracle.unconditional(x)(x, nearest)
        forward = (x_t - x0) / share
        return forward if predicts == "flow" else -forward

    prior = adapters.prior(velocity, predicts=predicts, channels=3, bounded=False)
    exact_here = AnalyticPrior(mixture(12), prior.schedule, channels=3)
    x = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    for t in (500, 700, 850):  # sigma 0.27 to 20
        expected = exact_here.unconditional(x)(x, t)
        torch.testing.assert_close(prior.unconditional(x)(x, t), expected, rtol=2e-2, atol=2e-2)
    with pytest.raises(InputError, match="needs its table"):
        adapters.prior(velocity)


@pytest.mark.parametrize("method", ["ddnm", "pigdm", "repaint", "mcgdiff"])
def test_methods_run_on_it_as_on_the_analytic_prior(method):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    oracle = AnalyticPrior(mixture(192), SCHEDULE, channels=3, bounded=True)
    denoise = oracle.unconditional(torch.zeros(1, 3, 8, 8))
    foreign = adapters.prior(lambda x, t: denoise(x, int(t[0]) + 1), SCHEDULE.alpha_bar[1:], "x0", channels=3)
    how = {"mask": "half:left", "samples": 2, "method": method, "steps": 6, "sampler": "dpmpp-sde"}
    np.testing.assert_array_equal(inpaint(foreign, images, **how), inpaint(oracle, images, **how))


def test_a_table_that_starts_at_1_has_our_timesteps():
    seen = []

    def predict(x, t):
        seen.append(t.tolist())
        return x

    for table in (SCHEDULE.alpha_bar, SCHEDULE.alpha_bar[1:]):
        adapters.prior(predict, table, "x0").unconditional(torch.zeros(2, 1, 8, 8))(torch.zeros(2, 1, 8, 8), 7)
    assert seen == [[7, 7], [6, 6]]


def test_impossible_priors_are_refused():
    with pytest.raises(InputError, match="unknown prediction"):
        adapters.prior(lambda x, t: x, SCHEDULE.alpha_bar, "noise")
    with pytest.raises(InputError, match="1 to 32"):
        adapters.prior(lambda x, t: x, SCHEDULE.alpha_bar, channels=33)
    with pytest.raises(InputError, match="decrease strictly"):
        adapters.prior(lambda x, t: x, torch.tensor([0.5, 0.6]))
    with pytest.raises(InputError, match="shapes must agree"):
        inpaint(
            adapters.prior(lambda x, t: x[:, :, 1:], SCHEDULE.alpha_bar, "x0"), np.zeros((1, 8, 8), np.uint8), "all", 1
        )
    with pytest.raises(InputError, match="sigma"):
        adapters.prior_in_sigma(lambda x, s: x, 1.0, 0.5)
    prior = adapters.prior(lambda x, t: x, SCHEDULE.alpha_bar, channels=3)
    with pytest.raises(InputError, match="lacks: choose one of"):
        inpaint(prior, np.zeros((1, 8, 8, 3), np.uint8), "all", 1, "conditional")


def test_the_lines_of_the_readme_run(tmp_path, monkeypatch, diffusers):
    readme = (ROOT / "README.md").read_text()
    lines = next(block for block in readme.split("```python\n")[1:] if "import adapters" in block).split("```")[0]
    diffusers.DDPMPipeline(network(diffusers), diffusers.DDPMScheduler(100)).save_pretrained(tmp_path / "my-ddpm")
    monkeypatch.chdir(tmp_path)
    names = {
        "inkfill": inkfill,
        "denoiser": lambda x, sigma: x / (1 + sigma.view(-1, 1, 1, 1) ** 2),
        "net": lambda x_t, t: 0.1 * x_t,
        "alphas_cumprod": SCHEDULE.alpha_bar[1:],
        "images": np.zeros((1, 16, 16, 3), np.uint8),
        "mask": "half:left",
    }
    for line in lines.strip().splitlines():
        exec(line, names)
        if line.startswith("prior"):
            assert inpaint(names["prior"], names["images"], "half:left", 1, steps=2).shape == (1, 1, 16, 16, 3)
    assert names["filled"].shape == (1, 8, 16, 16, 3)


# ---- diffusers -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def diffusers():
    return pytest.importorskip("diffusers")


def network(diffusers, channels=3, **other):
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D")}
    shape = {"sample_size": 16, "in_channels": channels, "out_channels": channels, **blocks, **other}
    return diffusers.UNet2DModel(layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4, **shape)


SCHEDULES = [
    {"prediction_type": "epsilon", "beta_schedule": "linear"},
    {"prediction_type": "sample", "beta_schedule": "scaled_linear"},
    {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"},
    {"prediction_type": "v_prediction", "beta_schedule": "linear", "rescale_betas_zero_snr": True},
    {"prediction_type": "epsilon", "trained_betas": [0.001 * (1 + i) for i in range(100)]},
    {"prediction_type": "epsilon", "beta_schedule": "linear", "clip_sample": False},
]


@pytest.mark.parametrize("settings", SCHEDULES)
def test_ddim_is_diffusers_own_number_by_number(diffusers, settings, tmp_path):
    clip = settings.get("clip_sample", True)
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=100, **settings)
    pipeline = diffusers.DDIMPipeline(network(diffusers), scheduler)
    pipeline.save_pretrained(tmp_path / "p", safe_serialization=True)
    pipeline.set_progress_bar_config(disable=True)
    seed, how = torch.Generator().manual_seed(3), {"num_inference_steps": 10, "use_clipped_model_output": True}
    theirs = pipeline(batch_size=2, generator=seed, output_type="np", **how).images
    prior = adapters.from_diffusers(tmp_path / "p")
    assert (prior.channels, prior.image_size, prior.schedule.T) == (3, (16, 16), 100)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    denoise = prior.unconditional(x)
    scheduler.set_timesteps(10)
    timesteps = [int(t) + 1 for t in scheduler.timesteps] + [0]  # their timestep t is t + 1 here
    with torch.no_grad():
        ours = ddim(lambda x, t: denoise(x, t).clamp(-1, 1) if clip else denoise(x, t), x, prior.schedule, timesteps)
    np.testing.assert_allclose((ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy(), theirs, atol=2e-4)


@pytest.mark.parametrize("prediction", adapters.PREDICTION_TYPES)
def test_ancestral_is_diffusers_own_number_by_number(diffusers, prediction):
    scheduler = diffusers.DDPMScheduler(30, prediction_type=prediction, beta_schedule="squaredcos_cap_v2")
    pipeline = diffusers.DDPMPipeline(network(diffusers), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    seed = torch.Generator().manual_seed(3)
    theirs = pipeline(batch_size=2, generator=seed, num_inference_steps=30, output_type="np").images
    prior, seed = adapters.from_diffusers(pipeline), torch.Generator().manual_seed(3)
    x = torch.randn(2, 3, 16, 16, generator=seed)
    denoise = prior.unconditional(x)
    with torch.no_grad():
        ours = ancestral(
            lambda x, t: denoise(x, t).clamp(-1, 1), x, prior.schedule, list(range(30, -1, -1)),
            lambda: torch.randn(2, 3, 16, 16, generator=seed),
        )  # fmt: skip
    np.testing.assert_allclose((ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy(), theirs, atol=1e-3)


@pytest.mark.parametrize("scheduler", ["PNDMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"])
def test_other_schedulers_of_diffusers_have_the_same_timesteps(diffusers, scheduler):
    made = getattr(diffusers, scheduler)(200, beta_schedule="linear")
    prior = adapters.from_diffusers(diffusers.DDPMPipeline(network(diffusers), made))
    torch.testing.assert_close(prior.schedule.alpha_bar[1:], made.alphas_cumprod.double(), rtol=1e-5, atol=1e-7)


def test_every_method_runs_on_a_folder_of_diffusers_in_colour(diffusers, tmp_path, capsys):
    diffusers.DDPMPipeline(network(diffusers), diffusers.DDPMScheduler(1000)).save_pretrained(tmp_path / "p")
    prior = adapters.from_diffusers(tmp_path / "p")
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    for name, method in METHODS.items():
        if not method.needs:
            filled = inpaint(prior, image, "half:left", 2, name, steps=3)
            np.testing.assert_array_equal(filled[:, :, :, 8:], np.repeat(image[:, None, :, 8:], 2, 1))
    assert sample(prior, 2, steps=2).shape == (2, 16, 16, 3)
    Image.fromarray(image[0, :13, :11]).save(tmp_path / "odd.png")  # an odd size: padded, then cropped
    words = ["inpaint", tmp_path / "odd.png", "--mask", "half:left", "--checkpoint", tmp_path / "p", "--steps", 2]
    assert run(*words, "--out", tmp_path / "filled.png", "--report", tmp_path / "r") == 0
    filled = np.asarray(Image.open(tmp_path / "r" / "image-0.png"))
    assert filled.ndim == 3
    capsys.readouterr()
    refused(capsys, *words, "--method", "conditional", "--out", tmp_path / "x.png", says=["conditional", "lacks"])


def test_a_learned_variance_is_dropped(diffusers):
    net = network(diffusers, out_channels=6)
    prior = adapters.from_diffusers(diffusers.DDPMPipeline(net, diffusers.DDPMScheduler(50)))
    x = torch.randn(1, 3, 16, 16)
    mean = net(x, 9).sample[:, :3]
    torch.testing.assert_close(prior.unconditional(x)(x, 10), prior.schedule.x0_from_eps(x, 10, mean))


def test_unsupported_models_are_refused(diffusers, tmp_path, capsys):
    good = tmp_path / "good"
    diffusers.DDPMPipeline(network(diffusers), diffusers.DDPMScheduler(50)).save_pretrained(good)

    def spoilt(name, file, change):
        folder = tmp_path / name
        shutil.copytree(good, folder)
        settings = json.loads((folder / file).read_text())
        change(settings)
        (folder / file).write_text(json.dumps(settings))
        return folder

    cases = [
        (
            spoilt("text", "model_index.json", lambda s: s.update(text_encoder=["transformers", "X"])),
            "a pipeline of scheduler, text_encoder, unet with a UNet2DModel: only unconditional",
        ),
        (
            spoilt("latent", "model_index.json", lambda s: s.update(vqvae=["diffusers", "VQModel"])),
            "a pipeline of scheduler, unet, vqvae with",
        ),
        (
            spoilt("part", "model_index.json", lambda s: s.pop("unet")),
            "a pipeline of scheduler with a UNet2DModel: only",
        ),
        (
            spoilt("class", "unet/config.json", lambda s: s.update(_class_name="UNet2DConditionModel")),
            "with a UNet2DConditionModel: only",
        ),
        (spoilt("flow", "scheduler/scheduler_config.json", lambda s: s.update(prediction_type="flow")), "flow"),
        (
            spoilt("list", "scheduler/scheduler_config.json", lambda s: s.update(prediction_type=[])),
            "unknown prediction",
        ),
        *(
            (spoilt(f"table-{i}", "scheduler/scheduler_config.json", lambda s, more=more: s.update(more)), "scheduler")
            for i, more in enumerate(
                (
                    {"beta_schedule": "x"},
                    {"num_train_timesteps": "x"},
                    {"num_train_timesteps": -5},
                    {"trained_betas": ["a"]},
                    {"trained_betas": [10**400]},
                )
            )
        ),
        (
            spoilt("threshold", "scheduler/scheduler_config.json", lambda s: s.update(thresholding=True)),
            "dynamic thresholding is not supported",
        ),
        (spoilt("huge", "unet/config.json", lambda s: s.update(block_out_channels=[16000, 16000])), "fewer weights"),
        (
            spoilt("deep", "unet/config.json", lambda s: s.update(layers_per_block=10**9)),
            "impossible configuration",
        ),
        (
            spoilt("words", "unet/config.json", lambda s: s.update(block_out_channels="wide")),
            "impossible configuration",
        ),
        (spoilt("shape", "unet/config.json", lambda s: s.update(block_out_channels=[8, 32])), "cannot be read"),
    ]
    pickled = tmp_path / "pickled"
    shutil.copytree(good, pickled)
    (pickled / "unet" / "diffusion_pytorch_model.safetensors").rename(pickled / "unet" / "diffusion_pytorch_model.bin")
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "a.png")
    for folder, word in [*cases, (pickled, "pickles are never read")]:
        words = ["inpaint", tmp_path / "a.png", "--mask", "all", "--out", tmp_path / "o.png", "--checkpoint", folder]
        capsys.readouterr()
        refused(capsys, *words, says=[word])
    with pytest.raises(InputError, match="model_index"):
        adapters.from_diffusers(tmp_path)
    with pytest.raises(InputError, match="not a UNet2DModel"):
        adapters.from_diffusers(object())
    labelled = diffusers.DDPMPipeline(network(diffusers, num_class_embeds=3), diffusers.DDPMScheduler(9))
    with pytest.raises(InputError, match="class labels"):
        adapters.from_diffusers(labelled)

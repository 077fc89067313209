"""Schedulers of diffusers: those with betas, EDM ones, and those that are refused."""

import json

import pytest
import torch

from inkfill.errors import InputError
from inkfill.models import adapters

diffusers = pytest.importorskip("diffusers")


def network(**settings):
    torch.manual_seed(0)
    shape = {"sample_size": 16, "in_channels": 1, "out_channels": 1, "layers_per_block": 1, "norm_num_groups": 4}
    blocks = {"block_out_channels": (8, 8), "down_block_types": ("DownBlock2D",) * 2}
    return diffusers.UNet2DModel(**shape, **blocks, up_block_types=("UpBlock2D",) * 2, **settings).eval()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_edm_schedulers_precondition_as_diffusers_does(name, prediction):
    """D(x, sigma) equals diffusers' own preconditioning at several sigmas, also from a folder."""
    net, scheduler = network(), getattr(diffusers, name)(prediction_type=prediction, sigma_data=0.6)
    prior = adapters.from_diffusers(diffusers.DDPMPipeline(net, scheduler))
    x0 = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    for t in (1, 400, 1000):
        a = float(prior.schedule.alpha_bar[t])
        sigma = torch.tensor(((1 - a) / a) ** 0.5)
        x = x0 + sigma
        with torch.no_grad():
            inside = net(scheduler.precondition_inputs(x, sigma), scheduler.precondition_noise(sigma)).sample
            expected = scheduler.precondition_outputs(x, inside, sigma)
            found = prior.unconditional(x)(x * a**0.5, t)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "name", ["FlowMatchEulerDiscreteScheduler", "ScoreSdeVeScheduler", "CMStochasticIterativeScheduler"]
)
def test_other_schedulers_are_refused_by_name(name, tmp_path):
    pipeline = diffusers.DDPMPipeline(network(), getattr(diffusers, name)())
    pipeline.save_pretrained(tmp_path)
    for source in (pipeline, tmp_path):
        with pytest.raises(InputError, match=name):
            adapters.from_diffusers(source)


@pytest.mark.parametrize("size", [0, "ab", -3, [16], [16, "a"], 1e9])
def test_impossible_sizes_are_refused(size, tmp_path):
    diffusers.DDPMPipeline(network(), diffusers.DDPMScheduler()).save_pretrained(tmp_path)
    path = tmp_path / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sample_size": size}))
    with pytest.raises(InputError, match=r"sample_size|cannot be read"):
        adapters.from_diffusers(tmp_path)


def test_a_bfloat16_model_is_exported_and_stays(tmp_path):
    from helpers import tiny_model
    from inkfill.models.export import write_diffusers

    model = tiny_model(torch.bfloat16)
    write_diffusers(model, tmp_path / "out")
    assert {p.dtype for p in model.net.parameters()} == {torch.bfloat16}

"""Schedulers of diffusers: those without betas are refused."""

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


@pytest.mark.parametrize(
    "name",
    [
        "FlowMatchEulerDiscreteScheduler",
        "ScoreSdeVeScheduler",
        "CMStochasticIterativeScheduler",
        "EDMEulerScheduler",
    ],
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

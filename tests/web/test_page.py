"""The page as a file: kernels, size, refused models, the command, and text from a checkpoint."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import PAGE_NETS, needs_browser, random_model, random_net, run, written_page
from inkfill.core.unet import UNet, UNetConfig
from inkfill.errors import InputError
from inkfill.models.checkpoint import save_network
from inkfill.models.model import Model, Recipe
from inkfill.web.page import WEB, page


@pytest.mark.check
def test_the_kernels_are_compiled_from_their_source(tmp_path):
    pytest.importorskip("ziglang")
    from inkfill.web.build import BUILDS, build

    build(tmp_path)
    for name in BUILDS:
        assert (tmp_path / name).read_bytes() == (WEB / name).read_bytes(), f"{name}: run make kernels"


@pytest.mark.check
def test_a_page_is_small(shipped_page):
    assert shipped_page.stat().st_size < 4.5e6


def test_unsupported_models_are_refused():
    net = UNet(UNetConfig(channels=2, widths=(16, 16), head_width=16))
    with pytest.raises(InputError, match="grey with alpha"):
        page(Model(net, Recipe(channels=2), dtype=torch.float32))
    net = UNet(UNetConfig(widths=(10, 16), head_width=16))
    with pytest.raises(InputError, match="multiples of 4"):
        page(Model(net, dtype=torch.float32))
    net = UNet(UNetConfig(widths=(16, 16), head_width=16))
    with pytest.raises(InputError, match="regression"):
        page(Model(net, Recipe(objective="regression"), dtype=torch.float32))
    with pytest.raises(InputError, match="200x28"):
        page(Model(net, Recipe(image_size=(200, 28)), dtype=torch.float32))


def test_the_command_writes_and_never_replaces(tmp_path, capsys):
    path = tmp_path / "small.safetensors"
    config, _ = PAGE_NETS["few"]
    save_network(path, random_net(config), random_net(config).state_dict(), random_model("few").recipe.to_json())
    assert run("page", "--out", tmp_path / "site", "--checkpoint", path) == 0
    made = tmp_path / "site" / "index.html"
    assert "open " in capsys.readouterr().out
    assert made.read_text().startswith("<!doctype html>")
    assert run("page", "--out", tmp_path / "site", "--checkpoint", path) != 0
    assert "--overwrite" in capsys.readouterr().err
    assert run("page", "--out", tmp_path / "page.pdf", "--checkpoint", path) == 0  # a folder of that name
    assert run("page", "--out", tmp_path / "x.html", "--checkpoint", tmp_path / "nothing.safetensors") != 0
    assert [p.name for p in tmp_path.glob("*.html")] == []


def test_the_page_holds_the_schedule_of_its_model():
    model = random_model("grey")
    about = json.loads(re.search(r'id="about">(.*?)</script>', page(model)).group(1))
    np.testing.assert_array_equal(about["alpha_bar"], model.schedule.alpha_bar.numpy())
    assert about["config"]["latent"] is False


@needs_browser
def test_text_of_a_checkpoint_adds_no_markup(opened, tmp_path):
    model = random_model("grey")
    evil = "</script><img src=x onerror=alert(1)><script>alert(2)</script>"
    model = Model(model.net, replace(model.recipe, trained_on=evil), dtype=torch.float32)
    opened_page = opened(written_page(tmp_path / "page.html", model, checkpoint=evil)).done()
    assert opened_page.errors == []
    assert opened_page.tab.locator("img").count() == 0
    assert evil in opened_page.tab.locator("#about-page").text_content()
    assert evil in opened_page.tab.locator("#python").text_content()

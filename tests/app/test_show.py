"""``inkfill demo``, ``page`` and ``export``."""

import pytest
from PIL import Image

from helpers import refused, run, tiny_model
from inkfill.app import demo
from inkfill.core.masks import FAMILIES
from inkfill.models.checkpoint import save_network
from inkfill.models.model import Recipe

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def hostile_checkpoint(tmp_path, digits):
    """Weights whose metadata would bring a script onto a page."""
    path, net = tmp_path / "hostile.safetensors", tiny_model().net
    save_network(path, net, net.state_dict(), Recipe(trained_on=HOSTILE, black=float((digits == 0).mean())).to_json())
    return path


def test_demo_writes_a_page_and_its_figures(hostile_checkpoint, few_rendered, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "SCORED_IMAGES", 5)
    out = tmp_path / "demo"
    assert run("demo", "--data", "rendered", "--out", out, "--checkpoint", hostile_checkpoint) == 0
    page = (out / "index.html").read_text()
    for name in ("forward.png", "reverse.png", "denoising.gif", "gallery.png"):
        assert name in page
        with Image.open(out / name) as figure:
            figure.verify()
    assert "this is not MNIST" in page
    assert 'href="paint.html"' in page
    assert (out / "paint.html").read_text().startswith("<!doctype html>")
    assert str(out / "index.html") in capsys.readouterr().out
    assert Image.open(out / "denoising.gif").n_frames > 20
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_report_escapes_the_metadata_of_a_checkpoint(hostile_checkpoint, tmp_path, digits):
    Image.fromarray(digits[0]).save(tmp_path / "a.png")
    tail = ["--mask", "half:left", "--samples", 2, "--steps", 1, "--checkpoint", hostile_checkpoint]
    assert run("inpaint", tmp_path / "a.png", *tail, "--report", tmp_path / "page") == 0
    page = (tmp_path / "page" / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.check
def test_demo_of_a_few_step_model(tmp_path):
    assert run("demo", "--checkpoint", "mnist-few", "--data", "rendered", "--out", tmp_path / "demo") == 0
    assert (tmp_path / "demo" / "index.html").exists()


def test_demo_leaves_a_folder_of_other_files_alone(checkpoint, tmp_path, capsys):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "index.html").write_text("my own page")
    refused(capsys, "demo", "--data", "rendered", "--out", out, "--checkpoint", checkpoint, says=["--overwrite"])
    assert [p.name for p in out.iterdir()] == ["index.html"]
    (out / "index.html").write_text("<title>inkfill demo: x</title>")
    assert demo.is_demo(out)


def test_the_sheet_of_masks_shows_every_family(monkeypatch):
    def height(families):
        monkeypatch.setattr(demo, "FAMILIES", families)
        return demo.mask_sheet(28, 0).shape[0]

    one, two = list(FAMILIES.items())[:2]
    row = 2 * 28 + 4  # two masks a row, zoomed by 2
    assert len(demo.VARIANTS) % 2 == 1
    assert height(dict([one])) == 4 + row * (len(demo.VARIANTS) + 1) // 2
    assert height(dict([one, two])) == 4 + row * (len(demo.VARIANTS) + 3) // 2  # the last one twice


def test_page_is_a_file_or_a_folder(checkpoint, tmp_path, capsys):
    for out, made in (("mine.html", "mine.html"), ("site", "site/index.html")):
        assert run("page", "--out", tmp_path / out, "--checkpoint", checkpoint) == 0
        assert (tmp_path / made).read_text().startswith("<!doctype html>")
    capsys.readouterr()
    refused(capsys, "page", "--out", tmp_path / "mine.html", "--checkpoint", checkpoint, says=["--overwrite"])
    refused(capsys, "page", "--out", tmp_path / "mine.pdf/x.txt", "--checkpoint", tmp_path / "no", says=["no such"])


def test_export_checks_its_folder_first(tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    missing = ["--checkpoint", tmp_path / "none.safetensors"]
    for kind in ("onnx", "diffusers"):
        refused(capsys, "export", "--format", kind, "--out", tmp_path / "full", *missing, says=["--overwrite"])
        refused(capsys, "export", "--format", kind, "--out", tmp_path / "new", *missing, says=["no such checkpoint"])
    refused(capsys, "export", "--format", "pickle", "--out", tmp_path / "new", says=["onnx", "diffusers"])

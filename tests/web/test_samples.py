"""Samples of the page against those of Python, and the arguments of ``inkfill.complete``."""

import numpy as np
import pytest
import torch

from helpers import PAGE_NETS, needs_browser, random_model, written_page
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import load

COMPLETE = """async ([pixels, mask, seed, image, samples, steps]) => {
  const found = await inkfill.complete({ pixels, mask, seed, image, samples, steps });
  return [Array.from(found.pixels), found.evaluations];
}"""


def difference(tab, model, picture, mask, seed, image, samples, steps):
    """Share of values that differ from Python's, and the largest difference. Observed pixels must be equal."""
    wanted = inpaint(model, picture[None], mask[None], samples, seed=seed, steps=steps, first=image)[0]
    given = [picture.ravel().tolist(), mask.ravel().astype(int).tolist(), seed, image, samples, steps]
    found, evaluations = tab.evaluate(COMPLETE, given)
    found = np.array(found, np.uint8).reshape(wanted.shape)
    assert evaluations == samples * steps
    assert (found[:, ~mask] == picture[~mask]).all()
    off = np.abs(found.astype(int) - wanted)
    return (off > 0).mean(), off.max()


@pytest.mark.check
@needs_browser
@pytest.mark.parametrize(("name", "steps"), [("mnist", 8), ("mnist-few", 2)])
def test_samples_equal_python(opened, tmp_path, digits, name, steps):
    """Shipped weights in 32 bits, with and without relaxed SIMD."""
    model = load(name, "cpu", "float32")
    plain = written_page(tmp_path / "plain.html", model, True, float32=True)
    relaxed = tmp_path / "relaxed.html"
    relaxed.write_text(plain.read_text().replace('"kernels": "plain", ', "", 1))
    for path in (plain, relaxed):
        tab = opened(path).done().tab
        assert tab.evaluate("inkfill.relaxed()") is (path == relaxed)
        for i, hidden in enumerate((np.s_[:, :14], np.s_[9:19, 9:19], np.s_[:])):
            mask = np.zeros((28, 28), bool)
            mask[hidden] = True
            differ, most = difference(tab, model, digits[i], mask, 5, i, 4, steps)
            assert differ <= 0.001, f"{path.stem}, mask {i}: {differ:.2%} of pixels differ"
            assert most <= 1, f"{path.stem}, mask {i}: by up to {most} grey values"


@needs_browser
@pytest.mark.parametrize("name", PAGE_NETS)
def test_samples_of_other_networks_equal_python(opened, tmp_path, name):
    """Colour, other sizes and schedules, a few-step model. Most values saturate at -1 or 1, so rounding flips few."""
    model = random_model(name)
    tab = opened(written_page(tmp_path / "page.html", model, float32=True)).done().tab
    rng = np.random.default_rng(0)
    height, width = model.image_size
    picture = rng.integers(0, 256, (height, width, *([3] if model.channels == 3 else [])), dtype=np.uint8)
    differ, _ = difference(tab, model, picture, rng.random((height, width)) < 0.5, 2**33, 7, 5, 4)
    assert differ <= 0.005


@pytest.mark.check
@needs_browser
def test_a_page_of_16_bits_samples_from_rounded_weights(opened, shipped_page, digits):
    model = load("mnist", "cpu", "float32")
    with torch.no_grad():
        for parameter in model.net.parameters():
            parameter.copy_(parameter.half().float())
    mask = np.zeros((28, 28), bool)
    mask[:, :14] = True
    differ, most = difference(opened(shipped_page).done().tab, model, digits[0], mask, 1, 0, 8, 8)
    assert differ <= 0.001
    assert most <= 1


@needs_browser
def test_bad_arguments_are_refused(opened, small_page):
    tab = opened(small_page).done().tab
    for change, word in (
        ("samples: 0", "samples"),
        ("steps: 2000", "steps"),
        ("seed: -1", "seed"),
        ("seed: 0.5", "seed"),
        ("height: 32", "28x28"),
        ("pixels: [1, 2]", "must have 784 and 784 values"),
    ):
        call = f"inkfill.complete({{ pixels: new Uint8Array(784), mask: new Uint8Array(784), {change} }})"
        assert word in tab.evaluate(f"() => {call}.then(() => 'went through', (error) => error.message)")


@needs_browser
def test_a_signal_cancels_within_one_evaluation(opened, small_page):
    tab = opened(small_page).done().tab
    found = tab.evaluate("""async () => {
      const stop = new AbortController(), job = { pixels: state.pixels, mask: state.mask, samples: 8, steps: 200 };
      let heard = 0, after = 0;
      const going = complete({ ...job, signal: stop.signal, onPrediction: () => { heard++; if (stop.signal.aborted) after++; } });
      while (heard < 3) await new Promise((go) => setTimeout(go, 5));
      stop.abort();
      const how = await going.then(() => "finished", (error) => error.message);
      return [how, heard, after, (await complete({ ...job, steps: 2 })).evaluations];
    }""")
    workers = tab.evaluate("WORKERS.workers.length")
    assert found[0] == "cancelled"
    assert found[2] <= 2 * workers
    assert found[3] == 16

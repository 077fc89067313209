"""The browser page, in a browser: its kernels against torch, its noise against numpy, its completions against Python."""

import base64
import importlib.util
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from inkfill.app.cli import main
from inkfill.core.denoiser import Observation
from inkfill.core.rng import stream
from inkfill.core.unet import UNet, UNetConfig
from inkfill.errors import InputError
from inkfill.evaluation.classifier import WHOLE, judge, load_classifier
from inkfill.filling.inpaint import inpaint
from inkfill.models.checkpoint import save_network
from inkfill.models.model import Model, Recipe, load
from inkfill.web.page import ENGINE, WEB, page, write_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PLAYWRIGHT = importlib.util.find_spec("playwright") is not None
REQUIRED = bool(os.environ.get("CI"))  # there a missing browser is a failure
needs_browser = pytest.mark.skipif(
    not REQUIRED and not (CHROMIUM and PLAYWRIGHT), reason="no chromium, or no playwright: pip install inkfill[page]"
)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "no chromium is installed"
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


class Opened:
    """A page in the browser with what it asked for and what it complained of."""

    def __init__(self, browser, path, fragment="", **context):
        self.tab = browser.new_context(**context).new_page()
        self.complaints, self.requests = [], []
        self.tab.on("console", lambda message: self.complaints.append(message.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.goto(f"file://{path}{fragment}")

    def said(self, words):
        from playwright.sync_api import expect

        expect(self.tab.locator("#said")).to_contain_text(words, timeout=60_000)
        return self

    def done(self):
        return self.said("completions, ")

    def state(self, name):
        return self.tab.evaluate(f"Array.from(state.{name})")

    def close(self):
        self.tab.context.close()


@pytest.fixture
def opened(browser):
    tabs = []

    def open_page(path, fragment="", **context):
        tabs.append(Opened(browser, path, fragment, **context))
        return tabs[-1]

    yield open_page
    for tab in tabs:
        tab.close()


def random_net(config, seed=0):
    """A network all of whose parts have a say: none of its weights is 0."""
    net, generator = UNet(config, seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan**-0.5)
    return net.eval().requires_grad_(False)


CONFIGS = {  # name: shape, size
    "grey": (UNetConfig(widths=(16, 32), head_width=16, time_width=32), (28, 28)),
    "colour": (UNetConfig(channels=3, widths=(16, 64), blocks=(2, 1), head_width=32, time_width=64), (25, 38)),
    "deep": (UNetConfig(widths=(16, 20, 12, 32), blocks=(1, 2, 1, 1), head_width=16, time_width=32), (26, 37)),
    "folded": (UNetConfig(widths=(16, 20, 12, 32), blocks=(1, 1, 1, 1), head_width=16, time_width=32), (8, 9)),
    "draws": (UNetConfig(widths=(32, 32), blocks=(1, 2), head_width=32, time_width=32, latent=True), (8, 11)),
}


def random_model(name):
    config, size = CONFIGS[name]
    recipe = Recipe(channels=config.channels, image_size=size, T=200, schedule="linear", sampling_steps=3)
    if config.latent:
        recipe = replace(recipe, objective="few", sampling_steps=2)
    return Model(random_net(config), recipe, dtype=torch.float32)


@pytest.fixture(scope="module")
def shipped_page(tmp_path_factory):
    return write_page("mnist", tmp_path_factory.mktemp("page") / "page.html")


# ---- what is in the file ----------------------------------------------------------------------------------------------


def test_the_kernels_are_what_their_source_makes(tmp_path):
    pytest.importorskip("ziglang")
    from inkfill.web.build import BUILDS, build

    build(tmp_path)
    for name in BUILDS:
        assert (tmp_path / name).read_bytes() == (WEB / name).read_bytes(), f"{name}: run make kernels"


def test_a_page_is_small(shipped_page):
    assert shipped_page.stat().st_size < 4.5e6


def test_models_that_a_page_cannot_show_are_refused():
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


def test_the_command_writes_and_keeps(tmp_path, monkeypatch, capsys):
    path = tmp_path / "small.safetensors"
    config, _ = CONFIGS["draws"]
    save_network(path, random_net(config), random_net(config).state_dict(), random_model("draws").recipe.to_json())

    def run(*words):
        monkeypatch.setattr("sys.argv", ["inkfill", "page", *map(str, words)])
        try:
            main()
        except SystemExit as stop:
            return stop.code or 0
        return 0

    assert run("--out", tmp_path / "site", "--checkpoint", path) == 0
    made = tmp_path / "site" / "index.html"
    assert "open " in capsys.readouterr().out
    assert made.read_text().startswith("<!doctype html>")
    assert run("--out", tmp_path / "site", "--checkpoint", path) != 0
    assert "--overwrite" in capsys.readouterr().err
    assert run("--out", tmp_path / "page.pdf", "--checkpoint", path) == 0  # a folder of that name
    assert run("--out", tmp_path / "x.html", "--checkpoint", tmp_path / "nothing.safetensors") != 0
    assert [p.name for p in tmp_path.glob("*.html")] == []


# ---- the engine -------------------------------------------------------------------------------------------------------

HARNESS = """
const f32 = (text) => { const s = atob(text); const b = Uint8Array.from(s, (c) => c.charCodeAt(0)); return new Float32Array(b.buffer); };
const out = (numbers) => { const b = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength); let s = "";
  for (let i = 0; i < b.length; i += 8192) s += String.fromCharCode(...b.subarray(i, i + 8192)); return btoa(s); };
const moduleOf = (text) => new WebAssembly.Module(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
const weightsOf = (given) => Object.fromEntries(Object.entries(given).map(([name, [shape, text]]) => [name, { shape, data: f32(text) }]));
"""


def text_of(array):
    return base64.b64encode(np.ascontiguousarray(array, dtype=np.float32).tobytes()).decode()


def numbers_of(text):
    return np.frombuffer(base64.b64decode(text), np.float32)


def weights_of(net):
    return {name: [list(value.shape), text_of(value.numpy())] for name, value in net.state_dict().items()}


@pytest.fixture(scope="module")
def engine(browser):
    """A tab in which the engine's classes can be called."""
    tab = browser.new_page()
    source = "\n".join((WEB / f"{name}.js").read_text() for name in ENGINE)
    tab.add_script_tag(content=HARNESS + source)
    yield tab
    tab.close()


@pytest.fixture(scope="module", params=["kernels", "kernels-relaxed"])
def kernels(request):
    return base64.b64encode((WEB / f"{request.param}.wasm").read_bytes()).decode()


@needs_browser
@pytest.mark.parametrize(("seed", "image", "sample"), [(0, 0, 0), (7, 3, 2), (2**40 + 5, 2**24 - 1, 300)])
def test_noise_is_numpys(engine, kernels, seed, image, sample):
    count = 1_000_000
    found = engine.evaluate(
        "([wasm, seed, image, sample, count]) => out(new SampleNoise(new Machine(moduleOf(wasm)), seed, image, [sample], count).draw())",
        [kernels, seed, image, sample, count],
    )
    wanted = stream(seed, image, sample).standard_normal(count, dtype=np.float32)
    found = numbers_of(found)
    # Beyond 3.654 the numbers are logarithms, in which C libraries differ by the last bit.
    tail = np.abs(wanted) > 3.654
    assert (found[~tail] == wanted[~tail]).all()
    assert np.abs(found[tail] - wanted[tail]).max() < 1e-6


@needs_browser
def test_noise_goes_on_where_it_was(engine, kernels):
    found = engine.evaluate(
        "([wasm]) => { const n = new SampleNoise(new Machine(moduleOf(wasm)), 1, 2, [3, 4], 77); n.draw(); return out(n.draw()); }",
        [kernels],
    )
    rows = [stream(1, 2, sample).standard_normal((2, 77), dtype=np.float32)[1] for sample in (3, 4)]
    assert (numbers_of(found) == np.concatenate(rows)).all()


LAYERS = """([wasm, config, size, weights, x, time, known, pixels, level, rows]) => {
  const machine = new Machine(moduleOf(wasm)), net = new UNet(machine, weightsOf(weights), config, size);
  const half = [rows, ...net.half], lowest = [rows, ...net.padded.map((side) => side / 2 ** config.widths.length)];
  const run = (at, count, work) => { work(at); return out(machine.view(at, count).slice()); };
  const put = (name) => machine.put(f32(x[name]));
  const counts = { down: f32(x.down).length, middle: f32(x.middle).length };
  const made = { time: out(machine.view(net.time(level), f32(time).length).slice()) };
  const t = machine.put(f32(time));
  made.down = run(put("down"), counts.down, (at) => net.block("down.0", at, t, half));
  made.middle = run(put("middle"), counts.middle, (at) => net.block("middle.0", at, t, lowest));
  made.attention = run(put("middle"), counts.middle, (at) => net.attention("attention.0", at, lowest));
  const embedded = net.embed(f32(pixels), f32(known));
  made.embed = out(embedded);
  made.v = out(net.forward(f32(x.x_t), f32(known), level, embedded, x.latent ? f32(x.latent) : null));
  return made;
}"""


def last(planes):
    """``[B, C, H, W]`` as the kernels have it, ``[B, H, W, C]``."""
    return planes.permute(0, 2, 3, 1).contiguous().numpy()


@needs_browser
@pytest.mark.parametrize("name", CONFIGS)
def test_layers_are_torchs(engine, kernels, name):
    config, (height, width) = CONFIGS[name]
    net, generator, rows, level = random_net(config), torch.Generator().manual_seed(1), 3, 0.37

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    times = 2 ** len(config.widths)
    tall, wide = -(-height // times) * times, -(-width // times) * times
    down = draw(rows, config.widths[0], tall // 2, wide // 2)
    middle = draw(rows, config.widths[-1], tall // times, wide // times)
    pixels, known = draw(1, config.channels, height, width), (draw(1, 1, height, width) > 0).float()
    x_t, fresh = (draw(rows, config.channels, height, width) for _ in range(2))
    seen = Observation(pixels * known, known.bool().expand_as(pixels))
    time = net.time(torch.tensor([level]))
    each = [planes.repeat(rows, 1, 1, 1) for planes in (seen.pixels, known)]
    wanted = {
        "time": time.numpy(),
        "down": last(net.down[0](down, time)),
        "middle": last(net.middle[0](middle, time)),
        "attention": last(net.attention[0](middle)),
        "embed": last(net.embed(seen.pixels, known)),
        "v": net(x_t, *each, torch.tensor([level]), None, fresh if config.latent else None).numpy(),
    }
    given = {"down": text_of(last(down)), "middle": text_of(last(middle)), "x_t": text_of(x_t.numpy())}
    given["fresh"] = text_of(fresh.numpy()) if config.latent else None
    shape = {
        "channels": config.channels,
        "widths": config.widths,
        "blocks": config.blocks,
        "head_width": config.head_width,
    }
    words = [text_of(part.numpy()) for part in (time, known, seen.pixels)]
    found = engine.evaluate(
        LAYERS, [kernels, shape, [height, width], weights_of(net), given, words[0], words[1], words[2], level, rows]
    )
    for layer, numbers in wanted.items():
        scale = max(1.0, float(np.abs(numbers).max()))
        off = np.abs(numbers_of(found[layer]) - numbers.ravel()).max() / scale
        assert off < 1e-5, f"{layer} is off by {off:.1e}"


@needs_browser
def test_labels_are_those_of_the_classifier(opened, shipped_page, digits):
    """With its weights as bytes the classifier says the same to within .02, and names the same digit."""
    tab = opened(shipped_page).done().tab
    wanted, _ = judge(load_classifier(WHOLE), digits)
    found = tab.evaluate(
        """async (digits) => { const out = [], mask = new Uint8Array(784);
        for (const pixels of digits) out.push((await inkfill.complete({ pixels, mask, samples: 1, steps: 1 })).labels[0]);
        return out; }""",
        digits.reshape(len(digits), -1).tolist(),
    )
    assert np.abs(np.array(found) - wanted).max() < 0.02


# ---- the page against Python ------------------------------------------------------------------------------------------

COMPLETE = """async ([pixels, mask, seed, image, samples, steps]) => {
  const found = await inkfill.complete({ pixels, mask, seed, image, samples, steps });
  return [Array.from(found.pixels), found.evaluations];
}"""


def agreement(tab, model, picture, mask, seed, image, samples, steps):
    """Share of pixels that differ, and by how much; known pixels are checked on the way."""
    wanted = inpaint(model, picture[None], mask[None], samples, seed=seed, steps=steps, first=image)[0]
    given = [picture.ravel().tolist(), mask.ravel().astype(int).tolist(), seed, image, samples, steps]
    found, evaluations = tab.evaluate(COMPLETE, given)
    found = np.array(found, np.uint8).reshape(wanted.shape)
    assert evaluations == samples * steps
    assert (found[:, ~mask] == picture[~mask]).all()
    off = np.abs(found.astype(int) - wanted)
    return (off > 0).mean(), off.max()


def written(path, model, plain=False, **settings):
    text = page(model, **settings)
    path.write_text(text.replace('id="about">{', 'id="about">{"kernels": "plain", ', 1) if plain else text)
    return path


@needs_browser
@pytest.mark.parametrize("plain", [True, False])
def test_completions_are_pythons(opened, tmp_path, digits, plain):
    """Of the shipped weights, in 32 bits: the default steps, and one and two of the few-step ones."""
    for name, steps in (("mnist", 8), ("mnist-few", 2)):
        model = load(name, "cpu", "float32")
        tab = opened(written(tmp_path / f"{name}.html", model, plain, float32=True)).done().tab
        assert tab.evaluate("inkfill.relaxed()") is not plain
        for i, spec in enumerate(("left", "middle", "all")):
            mask = np.zeros((28, 28), bool)
            mask[{"left": np.s_[:, :14], "middle": np.s_[9:19, 9:19], "all": np.s_[:]}[spec]] = True
            differ, most = agreement(tab, model, digits[i], mask, 5, i, 4, steps)
            assert differ <= 0.001, f"{name} {spec}: {differ:.2%} of pixels differ"
            assert most <= 1, f"{name} {spec}: by up to {most} grey levels"


@needs_browser
@pytest.mark.parametrize("name", CONFIGS)
def test_completions_of_other_networks_are_pythons(opened, tmp_path, name):
    """Colour, other sizes and schedules, networks that draw. Random weights say -1 and 1, so roundings can flip few."""
    model = random_model(name)
    tab = opened(written(tmp_path / "page.html", model, float32=True)).done().tab
    rng = np.random.default_rng(0)
    height, width = model.image_size
    picture = rng.integers(0, 256, (height, width, *([3] if model.channels == 3 else [])), dtype=np.uint8)
    differ, _ = agreement(tab, model, picture, rng.random((height, width)) < 0.5, 2**33, 7, 5, 4)
    assert differ <= 0.005


@needs_browser
def test_sixteen_bits_are_those_of_rounded_weights(opened, shipped_page, digits):
    model = load("mnist", "cpu", "float32")
    with torch.no_grad():
        for parameter in model.net.parameters():
            parameter.copy_(parameter.half().float())
    mask = np.zeros((28, 28), bool)
    mask[:, :14] = True
    differ, most = agreement(opened(shipped_page).done().tab, model, digits[0], mask, 1, 0, 8, 8)
    assert differ <= 0.001
    assert most <= 1


@needs_browser
def test_the_door_refuses_what_does_not_fit(opened, shipped_page):
    tab = opened(shipped_page).done().tab
    for change, word in (
        ("samples: 0", "samples"),
        ("steps: 2000", "steps"),
        ("seed: -1", "seed"),
        ("seed: 0.5", "seed"),
        ("height: 32", "28x28"),
        ("pixels: [1, 2]", "do not fit"),
    ):
        call = f"inkfill.complete({{ pixels: new Uint8Array(784), mask: new Uint8Array(784), {change} }})"
        assert word in tab.evaluate(f"() => {call}.then(() => 'went through', (error) => error.message)")


# ---- the page as people use it ----------------------------------------------------------------------------------------


@needs_browser
def test_nothing_leaves_the_page(opened, shipped_page):
    page = opened(shipped_page, offline=True).done()
    assert page.complaints == []
    assert {url.split(":")[0] for url in page.requests} <= {"file", "blob"}
    assert "default-src 'none'" in shipped_page.read_text()
    tried = page.tab.evaluate("fetch('https://example.org').then(() => 'sent', () => 'refused')")
    assert tried == "refused"


@needs_browser
def test_strokes_undo_and_presets(opened, shipped_page):
    page = opened(shipped_page, viewport={"width": 1200, "height": 900}).done()
    tab, box = page.tab, page.tab.locator("#editor").bounding_box()
    half = page.state("mask")
    assert sum(half) == 392
    tab.get_by_role("button", name="none").click()
    page.said("Nothing is hidden")
    tab.mouse.move(box["x"] + 20, box["y"] + 20)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 200, box["y"] + 200, steps=4)
    tab.mouse.up()
    page.done()
    stroke = np.array(page.state("mask")).reshape(28, 28)
    assert stroke[5, 5] == stroke[12, 12] == 1
    assert stroke[20, 5] == 0
    tab.keyboard.press("Control+z")
    page.said("Nothing is hidden")
    tab.keyboard.press("Control+z")
    page.done()
    assert page.state("mask") == half
    tab.keyboard.press("Control+Shift+z")
    tab.keyboard.press("Control+Shift+z")
    assert page.state("mask") == stroke.ravel().tolist()
    tab.get_by_role("radio", name="Box").click()
    tab.mouse.move(box["x"] + 8, box["y"] + 8)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 8 + 16 * 9, box["y"] + 8 + 16 * 2)
    tab.mouse.up()
    assert np.array(page.state("mask")).reshape(28, 28)[:3, :10].all()
    tab.get_by_role("radio", name="Show again").click()
    tab.mouse.click(box["x"] + 8, box["y"] + 8)
    assert page.state("mask")[0] == 0
    tab.get_by_role("radio", name="Ink").click()
    before = page.state("pixels")
    tab.mouse.click(box["x"] + 20, box["y"] + 400)
    assert sum(page.state("pixels")) > sum(before)
    for name in ("right", "top", "bottom", "middle", "random", "all"):
        tab.get_by_role("button", name=name, exact=True).click()
        assert sum(page.state("mask")) > 50
    assert page.complaints == []


@needs_browser
def test_keys_paint(opened, shipped_page):
    page = opened(shipped_page).done()
    page.tab.get_by_role("button", name="none").click()
    page.tab.locator("#editor").focus()
    for key in ("ArrowLeft", "ArrowUp", "Shift+ArrowUp", "Space"):
        page.tab.keyboard.press(key)
    mask = np.array(page.state("mask")).reshape(28, 28)
    assert mask[9, 13] == 1
    assert mask[20, 20] == 0
    size = int(page.tab.locator("#brush-size").inner_text())
    page.tab.keyboard.press("]")
    assert int(page.tab.locator("#brush-size").inner_text()) == size + 1
    page.tab.keyboard.press("Tab")  # no trap: the focus goes on
    assert page.tab.evaluate("document.activeElement.id") != "editor"


@needs_browser
def test_a_telephone(opened, shipped_page):
    page = opened(shipped_page, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True).done()
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= 390
    page.tab.get_by_role("button", name="none").tap()
    box = page.tab.locator("#editor").bounding_box()
    results = page.tab.locator("#eight").bounding_box()
    assert results["x"] >= box["x"] + box["width"]
    assert results["y"] < box["y"] + box["height"]
    page.tab.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.done()
    assert np.array(page.state("mask")).reshape(28, 28)[14, 14] == 1


@needs_browser
def test_a_link_brings_everything_back(opened, shipped_page):
    page = opened(shipped_page).done()
    page.tab.get_by_text("Settings, saving").click()
    page.tab.locator("#seed").fill("41")
    page.tab.locator("#seed").press("Enter")
    page.tab.get_by_role("button", name="top", exact=True).click()
    page.tab.get_by_role("radio", name="Ink").click()
    page.tab.locator("#editor").click(position={"x": 30, "y": 400})
    page.tab.wait_for_timeout(100)
    page.said("completions, ")
    for _ in range(100):
        address = page.tab.evaluate("location.hash")
        if "picture=" in address and "seed=41" in address:
            break
        page.tab.wait_for_timeout(100)
    again = opened(shipped_page, address).done()
    for name in ("pixels", "mask"):
        assert again.state(name) == page.state(name)
    again.tab.wait_for_timeout(300)
    assert again.tab.evaluate("Array.from(results.pixels)") == page.tab.evaluate("Array.from(results.pixels)")
    assert "--seed 41" in again.tab.locator("#python").text_content()


@needs_browser
@pytest.mark.parametrize("fragment", ["#mask=x", "#mask=AAAA&seed=1&steps=8&start=99", "#mask=%3Cscript%3E&seed=1e99"])
def test_links_that_mean_nothing_are_left_aside(opened, shipped_page, fragment):
    page = opened(shipped_page, fragment)
    page.said("completions, ")
    assert sum(page.state("mask")) == 392
    assert page.complaints == []


@needs_browser
def test_a_scanned_digit_is_fitted_and_inverted(opened, shipped_page, tmp_path):
    picture = Image.new("L", (300, 200), 255)
    ImageDraw.Draw(picture).line([(150, 40), (150, 160)], fill=0, width=14)
    picture.save(tmp_path / "one.png")
    page = opened(shipped_page).done()
    page.tab.locator("#file").set_input_files(tmp_path / "one.png")
    page.tab.locator("#offer").wait_for(state="visible")
    pixels = np.array(page.state("pixels")).reshape(28, 28)
    assert pixels[0, 0] == 0
    assert pixels[14, 13:15].max() > 200
    rows = np.flatnonzero(pixels.max(1) > 100)
    assert 19 <= len(rows) <= 21
    assert abs(rows.mean() - 13.5) <= 1
    page.tab.get_by_role("button", name="Keep it as it was").click()
    assert page.state("pixels")[0] == 255


@needs_browser
def test_transparent_pixels_are_holes(opened, tmp_path):
    model = random_model("colour")
    path = written(tmp_path / "page.html", model)
    height, width = model.image_size
    picture = np.full((height, width, 4), 255, np.uint8)
    picture[:5, :7, 3] = 0
    Image.fromarray(picture).save(tmp_path / "holes.png")
    page = opened(path).done()
    page.tab.locator("#file").set_input_files(tmp_path / "holes.png")
    for _ in range(50):
        if sum(page.state("mask")) == 35:
            break
        page.tab.wait_for_timeout(100)
    assert np.array(page.state("mask")).reshape(height, width)[:5, :7].all()
    assert sum(page.state("mask")) == 35
    page.tab.get_by_role("button", name="none").click()
    assert sum(page.state("mask")) == 35  # nobody knows what is there


@needs_browser
def test_a_stroke_cancels_what_is_running(opened, shipped_page):
    tab = opened(shipped_page).done().tab
    found = tab.evaluate("""async () => {
      const stop = new AbortController(), job = { pixels: state.pixels, mask: state.mask, samples: 8, steps: 500 };
      let heard = 0, after = 0;
      const going = complete({ ...job, signal: stop.signal, onBelief: () => { heard++; if (stop.signal.aborted) after++; } });
      while (heard < 3) await new Promise((go) => setTimeout(go, 5));
      stop.abort();
      const how = await going.then(() => "finished", (error) => error.message);
      return [how, heard, after, (await complete({ ...job, steps: 2 })).evaluations];
    }""")
    workers = tab.evaluate("WORKERS.workers.length")
    assert found[0] == "cancelled"
    assert found[2] <= 2 * workers
    assert found[3] == 16


@needs_browser
def test_hostile_pictures_are_said_and_change_nothing(opened, shipped_page, tmp_path):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    (tmp_path / "words.png").write_text("these are words")
    (tmp_path / "page.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    (tmp_path / "notes.txt").write_text("hello")
    page = opened(shipped_page).done()
    before = page.state("pixels"), page.state("mask")
    for name, words in (
        ("huge.png", "10000x10000"),
        ("words.png", "cannot read it"),
        ("page.svg", "no PNG"),
        ("notes.txt", "no PNG"),
    ):
        page.tab.locator("#file").set_input_files(tmp_path / name)
        page.said(words)
        assert (page.state("pixels"), page.state("mask")) == before
    assert page.complaints == []


@needs_browser
def test_a_recipe_cannot_bring_anything_onto_the_page(opened, tmp_path):
    model = random_model("grey")
    evil = "</script><img src=x onerror=alert(1)><script>alert(2)</script>"
    model = Model(model.net, replace(model.recipe, trained_on=evil), dtype=torch.float32)
    page = opened(written(tmp_path / "page.html", model, checkpoint=evil)).done()
    assert page.complaints == []
    assert page.tab.locator("img").count() == 0
    assert evil in page.tab.locator("#about-page").text_content()
    assert evil in page.tab.locator("#python").text_content()


@needs_browser
def test_what_is_saved_is_what_is_shown(opened, shipped_page, tmp_path):
    page = opened(shipped_page, accept_downloads=True).done()
    page.tab.get_by_text("Settings, saving").click()
    shown = np.array(page.tab.evaluate("Array.from(results.pixels)"), np.uint8).reshape(8, 28, 28)

    def saved(name):
        with page.tab.expect_download() as download:
            page.tab.get_by_role("button", name=name).click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        return path

    assert (np.load(saved("Save all (.npy)"))[0] == shown).all()
    assert (np.asarray(Image.open(saved("Save it (PNG)")).convert("L")) == shown[0]).all()
    together = np.asarray(Image.open(saved("Save all (PNG)")).convert("L"))
    assert (together == np.concatenate(list(shown), 1)).all()


@needs_browser
def test_the_strip_shows_every_level(opened, shipped_page):
    page = opened(shipped_page).done()
    strip = page.tab.locator("#strip")
    strip.focus()
    page.tab.keyboard.press("Home")
    assert strip.get_attribute("aria-valuetext") == "noise level 1000"
    page.tab.keyboard.press("End")
    assert strip.get_attribute("aria-valuetext") == "noise level 0"
    assert int(strip.get_attribute("aria-valuemax")) == 8
    page.tab.locator("#eight button").nth(4).click()
    assert page.tab.locator("#which").inner_text() == "5"

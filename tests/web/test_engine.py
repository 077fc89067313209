"""The engine in the browser: its noise against numpy, its layers and labels against torch."""

import base64

import numpy as np
import pytest
import torch

from helpers import PAGE_NETS, needs_browser, random_net
from inkfill.core.denoiser import Observation
from inkfill.core.rng import stream
from inkfill.evaluation.classifier import WHOLE, judge, load_classifier
from inkfill.web.page import ENGINE, WEB

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
    """A tab in which the classes of the engine can be called."""
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
def test_noise_equals_numpy(engine, kernels, seed, image, sample):
    count = 300_000
    found = engine.evaluate(
        "([wasm, seed, image, sample, count]) => out(new SampleNoise(new Machine(moduleOf(wasm)), seed, image, [sample], count).draw())",
        [kernels, seed, image, sample, count],
    )
    wanted = stream(seed, image, sample).standard_normal(count, dtype=np.float32)
    found = numbers_of(found)
    # Beyond 3.654 the numbers come from logarithms, which differ between C libraries in the last bit.
    tail = np.abs(wanted) > 3.654
    assert (found[~tail] == wanted[~tail]).all()
    assert np.abs(found[tail] - wanted[tail]).max() < 1e-6


@needs_browser
def test_noise_continues(engine, kernels):
    found = engine.evaluate(
        "([wasm]) => { const n = new SampleNoise(new Machine(moduleOf(wasm)), 1, 2, [3, 4], 77); n.draw(); return out(n.draw()); }",
        [kernels],
    )
    rows = [stream(1, 2, sample).standard_normal((2, 77), dtype=np.float32)[1] for sample in (3, 4)]
    assert (numbers_of(found) == np.concatenate(rows)).all()


LAYERS = """([wasm, config, size, weights, x, embedding, known, pixels, time, rows]) => {
  const machine = new Machine(moduleOf(wasm)), net = new UNet(machine, weightsOf(weights), config, size);
  const half = [rows, ...net.half], lowest = [rows, ...net.padded.map((side) => side / 2 ** config.widths.length)];
  const run = (at, count, work) => { work(at); return out(machine.view(at, count).slice()); };
  const put = (name) => machine.put(f32(x[name]));
  const counts = { down: f32(x.down).length, middle: f32(x.middle).length };
  const made = { time: out(machine.view(net.time(time), f32(embedding).length).slice()) };
  const t = machine.put(f32(embedding));
  made.down = run(put("down"), counts.down, (at) => net.block("down.0", at, t, half));
  made.middle = run(put("middle"), counts.middle, (at) => net.block("middle.0", at, t, lowest));
  made.attention = run(put("middle"), counts.middle, (at) => net.attention("attention.0", at, lowest));
  const embedded = net.embed(f32(pixels), f32(known));
  made.embed = out(embedded);
  made.v = out(net.forward(f32(x.x_t), f32(known), time, embedded, x.latent ? f32(x.latent) : null));
  return made;
}"""


def last(planes):
    """``[B, C, H, W]`` in the layout of the kernels, ``[B, H, W, C]``."""
    return planes.permute(0, 2, 3, 1).contiguous().numpy()


@needs_browser
@pytest.mark.parametrize("name", PAGE_NETS)
def test_layers_equal_torch(engine, kernels, name):
    config, (height, width) = PAGE_NETS[name]
    net, generator, rows, t = random_net(config), torch.Generator().manual_seed(1), 3, 0.37

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    times = 2 ** len(config.widths)
    tall, wide = -(-height // times) * times, -(-width // times) * times
    down = draw(rows, config.widths[0], tall // 2, wide // 2)
    middle = draw(rows, config.widths[-1], tall // times, wide // times)
    pixels, known = draw(1, config.channels, height, width), (draw(1, 1, height, width) > 0).float()
    x_t, latent = (draw(rows, config.channels, height, width) for _ in range(2))
    observation = Observation(pixels * known, known.bool().expand_as(pixels))
    time = net.time(torch.tensor([t]))
    each = [planes.repeat(rows, 1, 1, 1) for planes in (observation.pixels, known)]
    wanted = {
        "time": time.numpy(),
        "down": last(net.down[0](down, time)),
        "middle": last(net.middle[0](middle, time)),
        "attention": last(net.attention[0](middle)),
        "embed": last(net.embed(observation.pixels, known)),
        "v": net(x_t, *each, torch.tensor([t]), None, latent if config.latent else None).numpy(),
    }
    given = {"down": text_of(last(down)), "middle": text_of(last(middle)), "x_t": text_of(x_t.numpy())}
    given["latent"] = text_of(latent.numpy()) if config.latent else None
    shape = {
        "channels": config.channels,
        "widths": config.widths,
        "blocks": config.blocks,
        "head_width": config.head_width,
    }
    words = [text_of(part.numpy()) for part in (time, known, observation.pixels)]
    found = engine.evaluate(LAYERS, [kernels, shape, [height, width], weights_of(net), given, *words, t, rows])
    for layer, numbers in wanted.items():
        scale = max(1.0, float(np.abs(numbers).max()))
        off = np.abs(numbers_of(found[layer]) - numbers.ravel()).max() / scale
        assert off < 1e-5, f"{layer} is off by {off:.1e}"


@pytest.mark.check
@needs_browser
def test_label_probabilities_equal_those_of_the_classifier(opened, shipped_page, digits):
    """The page's int8 weights change a probability by less than .02."""
    digits = digits[:32]
    tab = opened(shipped_page).done().tab
    wanted, _ = judge(load_classifier(WHOLE), digits)
    found = tab.evaluate(
        """async (digits) => { const out = [], mask = new Uint8Array(784);
        for (const pixels of digits) out.push((await inkfill.complete({ pixels, mask, samples: 1, steps: 1 })).labels[0]);
        return out; }""",
        digits.reshape(len(digits), -1).tolist(),
    )
    assert np.abs(np.array(found) - wanted).max() < 0.02

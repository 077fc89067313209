"""docs/page.md: how fast the browser page is, how well it agrees with Python, and how it looks.

    .venv/bin/python docs/page.py

Needs chromium and ``pip install inkfill[page]``. The pages of the shipped weights are opened from files; the figures
are of one machine and one run. Nothing else should run beside it.
"""

import argparse
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from playwright.sync_api import Browser, Page, expect, sync_playwright

from inkfill.web.page import page
from inkfill.files import written_whole
from inkfill.data import load as load_data
from inkfill.data import masks
from inkfill.core.denoiser import Observation
from inkfill.tables import markdown
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import Model, load
from inkfill.core.rng import SampleNoise

DOCS = Path(__file__).parent
MASKS = ("half:left", "box:10", "quadrants:3", "pixels:0.9", "all")
TIMED = """
onmessage = ({ data }) => {
  const { rows, times, known, channels } = data, model = new Model(data), count = known.length * channels, took = [];
  const x = new SampleNoise(model.machine, 0, 0, [...Array(rows).keys()], count).draw();
  const embedded = model.net.embed(x.slice(0, count), known), fresh = data.about.config.fresh ? x : null;
  for (let i = 0; i < times; i++) {
    const began = performance.now();
    model.net.forward(x, known, 0.5, embedded, fresh);
    took.push(performance.now() - began);
  }
  postMessage(took);
};"""
EVALUATION = """async ([rows, times, kind, timed]) => {
  const wasm = bytesOf(element(kind).textContent), { weights, classifier } = await unpacked();
  const code = new Blob([element("engine").textContent + timed], { type: "text/javascript" });
  const known = Float32Array.from({ length: AREA }, (_, p) => p % 2), about = { recipe: RECIPE, config: CONFIG };
  const took = await new Promise((resolve) => {
    const worker = new Worker(URL.createObjectURL(code));
    worker.onmessage = ({ data }) => resolve(data);
    worker.postMessage({ wasm, about, weights, classifier, rows, times, channels: CHANNELS, known });
  });
  return took.slice(times >> 1).sort((a, b) => a - b)[times >> 2];
}"""
PAINTING = """async (seconds) => {
  const seen = { mean: 0, done: 0, frames: 0 };
  for (const name of ["mean", "done"]) document.addEventListener(`inkfill:${name}`, () => seen[name]++);
  const end = performance.now() + 1000 * seconds;
  state.mask.fill(0);
  painting = true;
  while (performance.now() < end) {
    const t = seen.frames++ / 20;
    dab({ x: Math.round(14 + 9 * Math.cos(t)), y: Math.round(14 + 9 * Math.sin(t)) });
    if (seen.frames % 100 === 0) state.mask.fill(0);
    changed();
    await new Promise(requestAnimationFrame);
  }
  painting = false;
  return seen;
}"""
COMPLETE = """async ([pixels, mask, image, samples, steps]) =>
  Array.from((await inkfill.complete({ pixels, mask, seed: 0, image, samples, steps })).pixels)"""


def cpu() -> str:
    """The processor's name, where Linux says it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def opened(browser: Browser, path: Path, **context: Any) -> Page:
    """A tab with the first completions there."""
    tab = browser.new_context(**context).new_page()
    tab.goto(f"file://{path}")
    expect(tab.locator("#said")).to_contain_text("completions, ", timeout=60_000)
    return tab


def torch_ms(model: Model, rows: int, times: int = 20) -> float:
    """Milliseconds of one evaluation in torch, float32, one thread."""
    x = SampleNoise(0, [0] * rows, list(range(rows)), (model.channels, *model.image_size))()
    known = torch.zeros_like(x, dtype=torch.bool)
    known[..., ::2] = True
    denoise = model.predictor(Observation(torch.where(known, x, 0.0), known))
    took = []
    with torch.no_grad():
        for _ in range(times):
            began = time.perf_counter()
            denoise(x, 500, x if model.draws else None)
            took.append(1000 * (time.perf_counter() - began))
    return float(np.median(took[times // 2 :]))


def speed(browser: Browser, pages: dict[str, Path], models: dict[str, Model]) -> str:
    """Milliseconds an evaluation on one thread, alternating with torch."""
    rows = []
    for name, path in pages.items():
        tab = opened(browser, path)
        for count in (8, 1):
            kinds = [tab.evaluate(EVALUATION, [count, 40, kind, TIMED]) for kind in ("kernels", "kernels-relaxed")]
            rows.append([name, count, *(f"{ms:.1f}" for ms in (*kinds, torch_ms(models[name], count)))])
        tab.context.close()
    return markdown(["weights", "rows", "wasm, plain SIMD", "wasm, relaxed SIMD", "torch float32"], rows)


def use(browser: Browser, pages: dict[str, Path]) -> str:
    """What somebody with the page waits for."""
    rows = []
    for name, path in pages.items():
        began = time.perf_counter()
        tab = opened(browser, path)
        first = time.perf_counter() - began
        job = "inkfill.complete({ pixels: state.pixels, mask: state.mask, samples: 64 })"
        ms = min(tab.evaluate(f"async () => (await {job}).ms") for _ in range(3))
        seen = tab.evaluate(PAINTING, 5)
        rows.append(
            [
                name,
                f"{path.stat().st_size / 1e6:.2f} MB",
                f"{first:.1f} s",
                f"{64_000 / ms:.0f}",
                f"{seen['mean'] / 5:.0f}" if seen["mean"] else "",
                f"{seen['done'] / 5:.1f}",
            ]
        )
        tab.context.close()
    headings = [
        "weights",
        "page",
        "open to eight completions",
        "completions/s",
        "means/s, painting",
        "eights/s, painting",
    ]
    return markdown(headings, rows)


def agreement(browser: Browser, folder: Path, models: dict[str, Model], count: int) -> str:
    """Grey levels that differ from Python's, of float32 pages, over missing pixels."""
    digits, rows = load_data("auto").test[:count], []
    for name, model in models.items():
        for kind in ("plain", "relaxed"):
            path = folder / f"{name}-{kind}.html"
            path.write_text(page(model, float32=True).replace('id="about">{', f'id="about">{{"kernels": "{kind}", ', 1))
            tab, missing, differ, most = opened(browser, path), 0, 0, 0
            for spec in MASKS:
                mask = masks.fit(spec, digits, 0)
                wanted = inpaint(model, digits, mask, 8)
                for i, digit in enumerate(digits):
                    given = [digit.ravel().tolist(), mask[i].ravel().astype(int).tolist(), i, 8, model.steps]
                    found = np.array(tab.evaluate(COMPLETE, given)).reshape(8, 28, 28)
                    off = np.abs(found - wanted[i])
                    missing, differ, most = missing + 8 * mask[i].sum(), differ + (off > 0).sum(), max(most, off.max())
            tab.context.close()
            rows.append([name, kind, model.steps, f"{missing:,}", f"{differ:,}", int(most)])
    return markdown(["weights", "SIMD", "evaluations", "missing pixels", "differ", "by at most"], rows, left=2)


def screenshots(browser: Browser, path: Path) -> None:
    """The page at a desk, light and dark, and on a telephone."""
    desk: dict[str, Any] = {"viewport": {"width": 1180, "height": 900}}
    phone: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    for name, context in (
        ("page", desk),
        ("page-dark", desk | {"color_scheme": "dark"}),
        ("page-phone", phone | {"device_scale_factor": 2}),
    ):
        tab = opened(browser, path, **context)
        tab.get_by_label("digit 5").click()
        tab.get_by_role("button", name="top", exact=True).click()
        tab.wait_for_timeout(2500)
        tab.evaluate("scrollTo(0, 0)")
        tab.screenshot(path=DOCS / f"{name}.png", full_page=name != "page-phone")
        tab.context.close()


def main(count: int) -> None:
    """Measure and write the page."""
    torch.set_num_threads(1)
    models = {name: load(name, "cpu", "float32") for name in ("mnist", "mnist-few")}
    with tempfile.TemporaryDirectory() as place, sync_playwright() as driver:
        folder, pages = Path(place), {}
        for name, model in models.items():
            pages[name] = folder / f"{name}.html"
            pages[name].write_text(page(model, name))
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        screenshots(browser, pages["mnist"])
        values = {
            "speed": speed(browser, pages, models),
            "use": use(browser, pages),
            "agreement": agreement(browser, folder, models, count),
            "count": str(count),
            "masks": ", ".join(f"`{spec}`" for spec in MASKS),
            "browser": f"Chromium {browser.version}",
            "machine": f"{cpu()}, {os.cpu_count()} cores",
        }
        browser.close()
    text = (DOCS / "page.template.md").read_text()
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    with written_whole(DOCS / "page.md") as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10, help="digits to compare with Python on")
    main(parser.parse_args().count)

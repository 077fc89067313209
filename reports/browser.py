"""The browser page: agreement with Python, speed, and screenshots.

    .venv/bin/python reports/browser.py measure      into reports/browser/; needs chromium and pip install inkfill[page]
    .venv/bin/python reports/browser.py page

The pages of the shipped weights are opened from files. One machine, one run; nothing else should run beside it.
"""

import os
import platform
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from playwright.sync_api import Browser, Page, expect, sync_playwright

from common import Row, folder, run, save, saved, show, write_tables
from inkfill.core.denoiser import Observation
from inkfill.core.rng import SampleNoise
from inkfill.data import load as load_data
from inkfill.data import masks
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import Model, load
from inkfill.tables import table
from inkfill.web.page import page as browser_page

REPORT = "browser"
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
  const counted = { mean: 0, done: 0, frames: 0 };
  for (const name of ["mean", "done"]) document.addEventListener(`inkfill:${name}`, () => counted[name]++);
  const end = performance.now() + 1000 * seconds;
  state.mask.fill(0);
  painting = true;
  while (performance.now() < end) {
    const t = counted.frames++ / 20;
    dab({ x: Math.round(14 + 9 * Math.cos(t)), y: Math.round(14 + 9 * Math.sin(t)) });
    if (counted.frames % 100 === 0) state.mask.fill(0);
    changed();
    await new Promise(requestAnimationFrame);
  }
  painting = false;
  return counted;
}"""
COMPLETE = """async ([pixels, mask, image, samples, steps]) =>
  Array.from((await inkfill.complete({ pixels, mask, seed: 0, image, samples, steps })).pixels)"""


def cpu() -> str:
    """The processor's name, on Linux."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def opened(browser: Browser, path: Path, **context: Any) -> Page:
    """A tab with its first samples."""
    tab = browser.new_context(**context).new_page()
    tab.goto(f"file://{path}")
    expect(tab.locator("#said")).to_contain_text(re.compile("(completions|samples), "), timeout=60_000)
    return tab


def torch_ms(model: Model, rows: int, times: int = 20) -> float:
    """Milliseconds of one network evaluation in torch, float32, one thread."""
    x = SampleNoise(0, [0] * rows, list(range(rows)), (model.channels, *model.image_size))()
    known = torch.zeros_like(x, dtype=torch.bool)
    known[..., ::2] = True
    denoise = model.predictor(Observation(torch.where(known, x, 0.0), known))
    took = []
    with torch.no_grad():
        for _ in range(times):
            began = time.perf_counter()
            denoise(x, 500, x if model.generative else None)
            took.append(1000 * (time.perf_counter() - began))
    return float(np.median(took[times // 2 :]))


def speed(browser: Browser, pages: dict[str, Path], models: dict[str, Model]) -> list[Row]:
    """Milliseconds per network evaluation on one thread, in turn with torch."""
    rows = []
    for name, path in pages.items():
        tab = opened(browser, path)
        for count in (8, 1):
            kinds = [tab.evaluate(EVALUATION, [count, 40, kind, TIMED]) for kind in ("kernels", "kernels-relaxed")]
            times = dict(zip(("plain", "relaxed", "torch"), (*kinds, torch_ms(models[name], count)), strict=True))
            rows.append(show({"weights": name, "rows": count, **times}))
        tab.context.close()
    return rows


def use(browser: Browser, pages: dict[str, Path]) -> list[Row]:
    """Waiting times of a user."""
    rows = []
    for name, path in pages.items():
        began = time.perf_counter()
        tab = opened(browser, path)
        first = time.perf_counter() - began
        job = "inkfill.complete({ pixels: state.pixels, mask: state.mask, samples: 64 })"
        ms = min(tab.evaluate(f"async () => (await {job}).ms") for _ in range(3))
        events = tab.evaluate(PAINTING, 5)
        row = {"weights": name, "megabytes": path.stat().st_size / 1e6, "open": first, "samples": 64_000 / ms}
        rows.append(show(row | {"means": events["mean"] / 5 or None, "eights": events["done"] / 5}))
        tab.context.close()
    return rows


def agreement(browser: Browser, folder: Path, models: dict[str, Model], count: int) -> list[Row]:
    """Missing pixels that differ from Python's, for pages with float32 weights."""
    digits, rows = load_data("auto").test[:count], []
    for name, model in models.items():
        for kind in ("plain", "relaxed"):
            path = folder / f"{name}-{kind}.html"
            path.write_text(
                browser_page(model, float32=True).replace('id="about">{', f'id="about">{{"kernels": "{kind}", ', 1)
            )
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
            row = {"weights": name, "simd": kind, "steps": model.steps, "missing": int(missing)}
            rows.append(show(row | {"differ": int(differ), "most": int(most)}))
    return rows


def screenshots(browser: Browser, path: Path) -> None:
    """The page on a desktop, light and dark, and on a telephone."""
    desk: dict[str, Any] = {"viewport": {"width": 1180, "height": 900}}
    phone: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    for name, context in (
        ("page", desk),
        ("dark", desk | {"color_scheme": "dark"}),
        ("phone", phone | {"device_scale_factor": 2}),
    ):
        tab = opened(browser, path, **context)
        tab.get_by_label("digit 5").click()
        tab.get_by_role("button", name="top", exact=True).click()
        tab.wait_for_timeout(2500)
        tab.evaluate("scrollTo(0, 0)")
        tab.screenshot(path=folder(REPORT) / f"{name}.png", full_page=name != "phone")
        tab.context.close()


def measure(digits: int = 10) -> None:
    """Measure; ``digits`` are compared with Python."""
    torch.set_num_threads(1)
    models = {name: load(name, "cpu", "float32") for name in ("mnist", "mnist-few")}
    with tempfile.TemporaryDirectory() as place, sync_playwright() as driver:
        folder_of_pages, pages = Path(place), {}
        for name, model in models.items():
            pages[name] = folder_of_pages / f"{name}.html"
            pages[name].write_text(browser_page(model, name))
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        screenshots(browser, pages["mnist"])
        found = {
            "browser": f"Chromium {browser.version}",
            "machine": f"{cpu()}, {os.cpu_count()} cores",
            "digits": digits,
            "speed": speed(browser, pages, models),
            "use": use(browser, pages),
            "agreement": agreement(browser, folder_of_pages, models, digits),
        }
        browser.close()
    save(REPORT, "figures", found)


def page() -> None:
    """Rewrite the tables of the page from JSON."""
    found = saved(REPORT, "figures")
    weights = {"weights": ("weights", "{}")}
    agreement_columns = weights | {
        "simd": ("SIMD", "{}"), "steps": ("NFE", "{:d}"), "missing": ("missing pixels", "{:,}"),
        "differ": ("differ", "{:,}"), "most": ("by at most", "{:d}"),
    }  # fmt: skip
    speed_columns = weights | {
        "rows": ("batch", "{:d}"), "plain": ("wasm, plain SIMD, ms", "{:.1f}"),
        "relaxed": ("wasm, relaxed SIMD, ms", "{:.1f}"), "torch": ("torch float32, ms", "{:.1f}"),
    }  # fmt: skip
    use_columns = weights | {
        "megabytes": ("file, MB", "{:.2f}"), "open": ("seconds to eight samples", "{:.1f}"),
        "samples": ("samples/s", "{:.0f}"), "means": ("first means/s, painting", "{:.0f}"),
        "eights": ("eight samples/s, painting", "{:.1f}"),
    }  # fmt: skip
    tables = {
        "agreement": table(found["agreement"], agreement_columns),
        "speed": table(found["speed"], speed_columns),
        "use": table(found["use"], use_columns),
    }
    write_tables(REPORT, tables)


if __name__ == "__main__":
    run(measure, page)

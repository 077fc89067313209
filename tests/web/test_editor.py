"""The page as people use it: strokes, keys, phones, addresses, files, and no network requests."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from helpers import needs_browser, random_model, written_page


@needs_browser
def test_nothing_leaves_the_page(opened, small_page):
    page = opened(small_page, offline=True).done()
    assert page.errors == []
    assert {url.split(":")[0] for url in page.requests} <= {"file", "blob"}
    assert "default-src 'none'" in small_page.read_text()
    tried = page.tab.evaluate("fetch('https://example.org').then(() => 'sent', () => 'refused')")
    assert tried == "refused"


@needs_browser
def test_strokes_undo_and_presets(opened, small_page):
    page = opened(small_page, viewport={"width": 1200, "height": 900}).done()
    tab, box = page.tab, page.tab.locator("#editor").bounding_box()
    half = page.state("mask")
    assert sum(half) == 392
    tab.get_by_role("button", name="none").click()
    page.status("Nothing is masked")
    tab.mouse.move(box["x"] + 20, box["y"] + 20)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 200, box["y"] + 200, steps=4)
    tab.mouse.up()
    page.done()
    stroke = np.array(page.state("mask")).reshape(28, 28)
    assert stroke[5, 5] == stroke[12, 12] == 1
    assert stroke[20, 5] == 0
    tab.keyboard.press("Control+z")
    page.status("Nothing is masked")
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
    tab.get_by_role("radio", name="Unhide").click()
    tab.mouse.click(box["x"] + 8, box["y"] + 8)
    assert page.state("mask")[0] == 0
    tab.get_by_role("radio", name="Ink").click()
    before = page.state("pixels")
    tab.mouse.click(box["x"] + 20, box["y"] + 400)
    assert sum(page.state("pixels")) > sum(before)
    for name in ("right", "top", "bottom", "middle", "random", "all"):
        tab.get_by_role("button", name=name, exact=True).click()
        assert sum(page.state("mask")) > 50
    assert page.errors == []


@needs_browser
def test_keys_paint(opened, small_page):
    page = opened(small_page).done()
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
    page.tab.keyboard.press("Tab")  # the editor does not trap the focus
    assert page.tab.evaluate("document.activeElement.id") != "editor"


@needs_browser
def test_a_phone(opened, small_page):
    page = opened(small_page, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True).done()
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
def test_an_address_restores_everything(opened, small_page):
    page = opened(small_page).done()
    page.tab.get_by_text("Settings, saving").click()
    page.tab.locator("#seed").fill("41")
    page.tab.locator("#seed").press("Enter")
    page.tab.get_by_role("button", name="top", exact=True).click()
    page.tab.get_by_role("radio", name="Ink").click()
    page.tab.locator("#editor").click(position={"x": 30, "y": 400})
    page.tab.wait_for_timeout(100)
    page.status("samples, ")
    for _ in range(100):
        address = page.tab.evaluate("location.hash")
        if "picture=" in address and "seed=41" in address:
            break
        page.tab.wait_for_timeout(100)
    again = opened(small_page, address).done()
    for name in ("pixels", "mask"):
        assert again.state(name) == page.state(name)
    again.tab.wait_for_timeout(300)
    assert again.tab.evaluate("Array.from(results.pixels)") == page.tab.evaluate("Array.from(results.pixels)")
    assert "--seed 41" in again.tab.locator("#python").text_content()


@needs_browser
def test_invalid_addresses_are_ignored(opened, small_page):
    for fragment in ("#mask=x", "#mask=AAAA&seed=1&steps=8&start=99", "#mask=%3Cscript%3E&seed=1e99"):
        page = opened(small_page, fragment).done()
        assert sum(page.state("mask")) == 392
        assert page.errors == []


@pytest.mark.check
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
    page.tab.get_by_role("button", name="Undo the inversion").click()
    assert page.state("pixels")[0] == 255


@needs_browser
def test_transparent_pixels_are_holes(opened, tmp_path):
    model = random_model("colour")
    path = written_page(tmp_path / "page.html", model)
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
    assert sum(page.state("mask")) == 35  # transparent pixels stay missing


@needs_browser
def test_unreadable_images_are_reported_and_change_nothing(opened, small_page, tmp_path):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    (tmp_path / "words.png").write_text("these are words")
    (tmp_path / "page.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    (tmp_path / "notes.txt").write_text("hello")
    page = opened(small_page).done()
    before = page.state("pixels"), page.state("mask")
    for name, words in (
        ("huge.png", "10000x10000"),
        ("words.png", "cannot read it"),
        ("page.svg", "no PNG"),
        ("notes.txt", "no PNG"),
    ):
        page.tab.locator("#file").set_input_files(tmp_path / name)
        page.status(words)
        assert (page.state("pixels"), page.state("mask")) == before
    assert page.errors == []


@needs_browser
def test_saved_samples_equal_the_shown(opened, small_page, tmp_path):
    page = opened(small_page, accept_downloads=True).done()
    page.tab.get_by_text("Settings, saving").click()
    shown = np.array(page.tab.evaluate("Array.from(results.pixels)"), np.uint8).reshape(8, 28, 28)

    def saved(name):
        with page.tab.expect_download() as download:
            page.tab.get_by_role("button", name=name).click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        return path

    assert (np.load(saved("Save all (.npy)"))[0] == shown).all()
    assert (np.asarray(Image.open(saved("Save sample (PNG)")).convert("L")) == shown[0]).all()
    together = np.asarray(Image.open(saved("Save all (PNG)")).convert("L"))
    assert (together == np.concatenate(list(shown), 1)).all()


@needs_browser
def test_the_strip_shows_every_timestep(opened, small_page):
    page = opened(small_page).done()
    strip = page.tab.locator("#strip")
    strip.focus()
    page.tab.keyboard.press("Home")
    assert strip.get_attribute("aria-valuetext") == "timestep 200"
    page.tab.keyboard.press("End")
    assert strip.get_attribute("aria-valuetext") == "timestep 0"
    assert int(strip.get_attribute("aria-valuemax")) == 3
    page.tab.locator("#eight button").nth(4).click()
    assert page.tab.locator("#which").inner_text() == "5"

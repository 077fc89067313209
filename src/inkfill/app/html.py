"""HTML pages with one style sheet. All text is escaped here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inkfill.app import figures
from inkfill.errors import escaped
from inkfill.files import written_whole
from inkfill.tables import Columns, cells

STYLE = """
:root { color-scheme: light dark; --back: #fbfaf8; --front: #1c1c1e; --quiet: #5c5c62; --line: #d9d7d2; --raised: #fff;
  --accent: #1f5fbf }
@media (prefers-color-scheme: dark) {
  :root { --back: #151517; --front: #ececee; --quiet: #a9a9b2; --line: #3a3a40; --raised: #212125; --accent: #7fb0ff }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 0 auto; padding: 1rem; color: var(--front);
  background: var(--back) }
h1 { font-size: 1.6rem }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem }
p { max-width: 46rem } a { color: var(--accent) }
img { max-width: 100%; image-rendering: pixelated; display: block; margin: .5rem 0 1rem; border-radius: 4px }
img.plot { image-rendering: auto; background: #fff }
iframe { width: 100%; height: 46rem; border: 1px solid var(--line); border-radius: 8px }
code { background: var(--raised); border: 1px solid var(--line); border-radius: 4px; padding: .15em .4em;
  overflow-wrap: anywhere }
.tiles { display: grid; grid-template-columns: auto repeat(var(--across), minmax(3.2rem, 1fr));
  grid-template-rows: auto repeat(var(--down), 1fr); gap: 0 .4rem; align-items: center; font-size: .8rem;
  max-width: calc(7rem + var(--across) * 5.5rem); color: var(--quiet) }
.tiles span { text-align: center; line-height: 1.2 } .tiles .word { text-align: left }
.tiles img { grid-area: 2 / 2 / -1 / -1; width: 100%; margin: 0; border-radius: 0 }
.wide { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: bottom }
th { font-weight: 600; color: var(--quiet) } .word { text-align: left }
"""
# Plain words for the short headings of tables.
PLAIN = {
    "NFE": "network evaluations", "SE": "standard error", "energy": "energy score",
    "90 % coverage": "coverage of 90 % intervals", "core-s/sample": "core-seconds per sample",
    "PSNR mean": "PSNR of the mean, dB", "PSNR sample": "PSNR of a sample, dB",
    "NLL": "negative log-likelihood", "Fréchet": "Fréchet distance", "MMD": "kernel distance (MMD)",
}  # fmt: skip


class Page:
    """A page in a folder, built from top to bottom; its images go beside it."""

    def __init__(self, folder: Path, title: str):
        self.folder, self.title = folder, title
        self._body: list[str] = []

    def heading(self, text: str, level: int = 2) -> None:
        """A heading."""
        self._body.append(f"<h{level}>{escaped(text)}</h{level}>")

    def text(self, text: str, strong: str = "") -> None:
        """A paragraph, with ``strong`` in bold at its end."""
        end = f" <b>{escaped(strong)}</b>" if strong else ""
        self._body.append(f"<p>{escaped(text)}{end}</p>")

    def command(self, text: str) -> None:
        """A command line."""
        self._body.append(f"<p><code>{escaped(text)}</code></p>")

    def link(self, name: str, text: str) -> None:
        """A link to a file beside the page."""
        self._body.append(f'<p><a href="{escaped(name)}">{escaped(text)}</a></p>')

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Columns) -> None:
        """A table of rows."""
        headings, lines, words = cells(rows, columns)

        def line(tag: str, values: Sequence[str]) -> str:
            kinds = (" class=word" if i < words else "" for i in range(len(values)))
            each = zip(values, kinds, strict=True)
            return "<tr>" + "".join(f"<{tag}{kind}>{escaped(value)}</{tag}>" for value, kind in each) + "</tr>"

        head = line("th", [PLAIN.get(heading, heading) for heading in headings])
        body = "\n".join(line("td", values) for values in lines)
        self._body.append(f"<div class=wide><table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody></table></div>")

    def frame(self, name: str, title: str) -> None:
        """Another page in a frame."""
        self._body.append(f'<iframe src="{escaped(name)}" title="{escaped(title)}" loading="lazy"></iframe>')

    def tiles(self, tiles: figures.Tiles, name: str, alt: str) -> None:
        """Write tiles as the image ``name``, and show it with titles and names as text."""
        figures.save_picture(tiles.bare(), self.folder / name)
        place = 'class=word style="grid-area: {} / 1"'
        words = [
            f'<span style="grid-area: 1 / {x}">{escaped(title)}</span>' for x, title in enumerate(tiles.columns, 2)
        ]
        words += [f"<span {place.format(y)}>{escaped(word)}</span>" for y, word in enumerate(tiles.names, 2)]
        counts = f"--across: {len(tiles.rows[0])}; --down: {len(tiles.rows)}"
        image = f'<img src="{escaped(name)}" alt="{escaped(alt)}">'
        self._body.append(f'<div class=wide><div class=tiles style="{counts}">{"".join(words)}{image}</div></div>')

    def image(self, name: str, alt: str, plot: bool = False) -> None:
        """An existing image; ``plot`` smooths its pixels."""
        self._body.append(f'<img{" class=plot" if plot else ""} src="{escaped(name)}" alt="{escaped(alt)}">')

    def write(self, name: str) -> Path:
        """Write the page, whole or not at all; returns its path."""
        path = self.folder / name
        with written_whole(path) as temporary:
            body = "\n".join(self._body)
            temporary.write_text(
                f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escaped(self.title)}</title>\n'
                '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
                f"<style>{STYLE}</style>\n<h1>{escaped(self.title)}</h1>\n{body}\n</html>\n",
                encoding="utf-8",
            )
        return path

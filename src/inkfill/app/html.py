"""HTML pages with one style sheet. All text is escaped here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inkfill.app import figures
from inkfill.errors import escaped
from inkfill.files import written_whole
from inkfill.tables import Columns, cells

STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 0 auto; padding: 1rem }
h2 { margin-top: 2.5rem }
p { max-width: 46rem }
img { max-width: 100%; display: block; margin: .5rem 0 1rem }
pre { background: #8882; padding: .15em .4em; overflow-x: auto }
.wide { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #8886; text-align: right; vertical-align: bottom }
.word { text-align: left }
"""


class Page:
    """A page in a folder, built from top to bottom; its images go beside it."""

    def __init__(self, folder: Path, title: str):
        self.folder, self.title = folder, title
        self._body: list[str] = []

    def text(self, text: str, tag: str = "p") -> None:
        """A paragraph, or a heading (h2, h3) or a command line (pre)."""
        self._body.append(f"<{tag}>{escaped(text)}</{tag}>")

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Columns) -> None:
        """A table of rows."""
        headings, lines, words = cells(rows, columns)

        def line(tag: str, values: Sequence[str]) -> str:
            kinds = (" class=word" if i < words else "" for i in range(len(values)))
            each = zip(values, kinds, strict=True)
            return "<tr>" + "".join(f"<{tag}{kind}>{escaped(value)}</{tag}>" for value, kind in each) + "</tr>"

        head = line("th", headings)
        body = "\n".join(line("td", values) for values in lines)
        self._body.append(f"<div class=wide><table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody></table></div>")

    def link(self, name: str, text: str) -> None:
        """A link to a file beside the page."""
        self._body.append(f'<p><a href="{escaped(name)}">{escaped(text)}</a></p>')

    def image(self, name: str, alt: str, pixels: figures.RGB | None = None) -> None:
        """The image ``name`` beside the page; written first where its pixels are given."""
        if pixels is not None:
            figures.save_picture(pixels, self.folder / name)
        self._body.append(f'<img src="{escaped(name)}" alt="{escaped(alt)}">')

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

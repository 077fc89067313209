"""The one builder of HTML pages, with their one style sheet. Whatever is put on a page is escaped here."""

import html
from pathlib import Path

from inkfill.app import figures
from inkfill.checkpoint import written_whole
from inkfill.errors import shown

STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
img { max-width: 100%; image-rendering: pixelated; display: block; margin: .5rem 0 1.5rem }
img.plot { image-rendering: auto }
pre, code { background: #f3f3f3; padding: .2em .4em }
pre { padding: 1em; overflow-x: auto; font-size: 13px }
"""


def escaped(text: object) -> str:
    """Text of unknown origin for a page: no markup, no control characters, and always UTF-8."""
    return html.escape("\n".join(shown(line) for line in str(text).splitlines()))


class Page:
    """A page in a folder, written from its top to its bottom; pictures go beside it."""

    def __init__(self, folder: Path, title: str):
        self.folder, self.title = folder, title
        self._body: list[str] = []

    def heading(self, text: str, level: int = 2) -> None:
        """A heading."""
        self._body.append(f"<h{level}>{escaped(text)}</h{level}>")

    def text(self, text: str, strong: str = "") -> None:
        """A paragraph, perhaps with a strong end."""
        end = f" <b>{escaped(strong)}</b>" if strong else ""
        self._body.append(f"<p>{escaped(text)}{end}</p>")

    def command(self, text: str) -> None:
        """A line for a terminal."""
        self._body.append(f"<p><code>{escaped(text)}</code></p>")

    def link(self, name: str, text: str) -> None:
        """A link to a file beside the page."""
        self._body.append(f'<p><a href="{escaped(name)}">{escaped(text)}</a></p>')

    def table(self, text: str) -> None:
        """A table as ``tables.table`` writes it."""
        self._body.append(f"<pre>{escaped(text)}</pre>")

    def picture(self, pixels: figures.RGB, name: str, alt: str) -> None:
        """A picture, written as ``name``."""
        figures.save_picture(pixels, self.folder / name)
        self.image(name, alt)

    def image(self, name: str, alt: str, plot: bool = False) -> None:
        """A picture that is there already; a plot is not drawn in square pixels."""
        self._body.append(f'<img{" class=plot" if plot else ""} src="{escaped(name)}" alt="{escaped(alt)}">')

    def write(self, name: str) -> Path:
        """Write the page, whole or not at all; gives its path."""
        path = self.folder / name
        with written_whole(path) as temporary:
            body = "\n".join(self._body)
            temporary.write_text(
                f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escaped(self.title)}</title>\n'
                f"<style>{STYLE}</style>\n<h1>{escaped(self.title)}</h1>\n{body}\n</html>\n",
                encoding="utf-8",
            )
        return path

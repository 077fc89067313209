"""The site: `make docs` builds build/site from these pages, the notebooks and the docstrings."""

import shutil
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

from inkfill.defaults import VERSION

HERE = Path(__file__).parent
FOLDERS = ("notebooks", "reports")  # copied here, because Sphinx reads its own folder alone
for name in FOLDERS:
    shutil.copytree(HERE.parent / name, HERE / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))

project, author, release = "inkfill", "the inkfill authors", VERSION
copyright = author
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_click"]
exclude_patterns = ["notebooks/.*"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # they are shown as they were run: five minutes of training each
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"inkfill {VERSION}"
html_extra_path = ["../build/page"]  # the browser page, which `make docs` writes first
html_theme_options = {"source_edit_link": "", "top_of_page_buttons": []}


def inline_formula(translator, node):
    """Formulas as MathML, which browsers draw themselves: no script, and nothing from another server."""
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def formula(translator, node):
    """One on a line of its own."""
    translator.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def copied_links(app, page, source):
    """Links as they are on GitHub, turned into links between the copies."""
    for name in FOLDERS:
        source[0] = source[0].replace(f"](../{name}/", f"]({name}/")
    if page.startswith("reports/"):
        source[0] = source[0].replace("](../docs/", "](../")


def setup(app):
    """Called by Sphinx."""
    app.connect("source-read", copied_links)
    app.add_html_math_renderer("mathml", (inline_formula, None), (formula, None))

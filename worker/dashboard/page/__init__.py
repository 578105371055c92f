"""The page itself: its template, style and scripts, as texts.

The template has a line for each of `{{style}}`, `{{plotly}}`, `{{script}}` and `{{snapshot}}`, to be replaced
by complete tags: links to a server's files, or the texts of this module, inlined.
"""

import gzip
from functools import cache
from importlib.resources import files

# In this order, as one: a file may use what another declares, and only the last does anything by itself.
SCRIPTS = (
    "clock",
    "words",
    "elements",
    "copying",
    "tables",
    "range",
    "judgement",
    "verdict",
    "tiles",
    "legend",
    "marks",
    "drawing",
    "agreement",
    "charts",
    "backfill",
    "cutover",
    "failures",
    "findings",
    "workers",
    "source",
    "live",
    "page",
)


def template() -> str:
    return _text("template.html")


def style() -> str:
    return _text("style.css")


def script() -> str:
    """Return all scripts as one classic script that declares nothing global."""
    parts = "\n".join(_text(f"scripts/{name}.js") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n\n{parts}}})();\n'


def plotly() -> str:
    """Return the library that draws the charts, from its installed package: 5 MB."""
    return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


@cache
def packed_plotly() -> bytes:
    """Return the library as gzip: 1.5 MB."""
    return gzip.compress(plotly().encode(), 6, mtime=0)


def unpacking() -> str:
    """Return the script that runs the library out of a page that holds it packed."""
    return _text("unpacking.js")


def _text(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")

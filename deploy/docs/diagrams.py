"""Diagrams as code: a fenced block of Graphviz's language becomes a drawing inside the page.

The drawing has no colours of its own where the source names none: `docs/stylesheets/site.css` gives it those
of the page, light or dark.
"""

import html
import re
import subprocess

from pymdownx.superfences import SuperFencesException

FONT = "Helvetica,Arial,sans-serif"
DOT = (
    "dot",
    "-Tsvg",
    "-Gbgcolor=transparent",
    *(f"-{part}fontname={FONT}" for part in "GNE"),
    *("-Gfontsize=12", "-Nfontsize=12", "-Efontsize=11"),
    *("-Nshape=box", "-Nstyle=rounded"),
)
SECONDS = 20
BEFORE_THE_DRAWING = re.compile(r"\A.*?(?=<svg)", re.DOTALL)
SIZE = re.compile(r'<svg width="(\d+)pt" height="\d+pt"')
NAME = re.compile(r'class="graph"[^>]*>\s*<title>(?!%)(.*?)</title>')  # a graph without a name is %3 or so


class DiagramError(SuperFencesException):  # type: ignore[misc]  # the extension has no types
    """A diagram cannot be drawn; the build ends, and the message says why."""


def svg(source: str) -> str:
    """Draw a graph; its name is what a screen reader says.

    Raises:
        DiagramError: there is no Graphviz, or the graph is not one, or it has no name.

    """
    try:
        run = subprocess.run(DOT, input=source, capture_output=True, text=True, timeout=SECONDS, check=False)
    except FileNotFoundError:
        msg = "Diagrams need Graphviz: apt-get install graphviz"
        raise DiagramError(msg) from None
    if run.returncode or run.stderr:
        raise DiagramError(f"A diagram cannot be drawn: {run.stderr.strip()}")
    name = NAME.search(run.stdout)
    if name is None:
        raise DiagramError(f"A diagram needs a name, for those who do not see it: {source[:60]}")
    label = html.escape(html.unescape(name[1]), quote=True)
    drawing = BEFORE_THE_DRAWING.sub("", run.stdout)
    return SIZE.sub(rf'<svg role="img" aria-label="{label}" style="max-width:\1pt"', drawing)


def drawn(
    source: str, _language: str, css_class: str, _options: object, _md: object, **_others: object
) -> str:
    """Return the block of HTML for one fence; the parameters are the extension's."""
    return f'<div class="{css_class}">{svg(source)}</div>'

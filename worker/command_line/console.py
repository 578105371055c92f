"""Where commands print: no text that they are given is markup, or steers the terminal."""

import json
import os
from collections.abc import Iterable, Mapping

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from shared.process.printable import printable
from shared.process.streams import Patient

LONGEST_LINE = 20_000
LONGEST_CELL = 500
WIDTHS = range(20, 1000)


class Harmless(Console):
    """A console of rich's for stdout, or for stderr."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(
            stderr=stderr, highlight=False, markup=False, emoji=False, _environ=_sensible(os.environ)
        )

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render what rich is to print, bars included, without what is no control of its own making."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else _harmless(segment)

    @property
    def is_abandoned(self) -> bool:
        """Whether the reader of what is printed has gone."""
        return isinstance(self.file, Patient) and self.file.is_abandoned

    def say(self, *lines: str, style: str = "") -> None:
        """Print each as one line, whatever it holds, however wide the terminal is."""
        for line in lines:
            self.print(Text(printable(line, LONGEST_LINE), style), soft_wrap=True)


def cell(text: str, style: str = "") -> Text:
    """Return a table's cell; each line of it that is ours is to be a text of its own."""
    return Text(printable(text, LONGEST_CELL), style)


def _harmless(segment: Segment) -> Segment:
    if segment.text.isprintable() or segment.text == "\n":
        return segment
    text = "\n".join(printable(line) for line in segment.text.split("\n"))
    return Segment(text, segment.style)


def _sensible(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without a width that nothing fits in; then rich takes the terminal's, or 80."""
    columns = environment.get("COLUMNS", "")
    fits = columns.isascii() and columns.isdigit() and int(columns[:9]) in WIDTHS
    return {name: value for name, value in environment.items() if name not in {"COLUMNS", "LINES"}} | (
        {"COLUMNS": columns} if fits else {}
    )


stdout = Harmless()  # results
stderr = Harmless(stderr=True)  # progress and complaints


def print_json(result: Mapping[str, object]) -> None:
    """Print the one line that a machine reads: ASCII, which every terminal and encoding has."""
    stdout.out(json.dumps(result, default=str))

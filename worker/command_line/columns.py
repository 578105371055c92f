"""Rows in columns that no terminal breaks: what stands in them is to be copied."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

GAP = "  "


def aligned(headings: Sequence[str], rows: Sequence[Sequence[Text]]) -> list[Text]:
    """Return a line for the headings and each row. However wide they are, none is to be wrapped."""
    table = [[Text(heading, "bold") for heading in headings], *rows]
    widths = [max(map(_width, column)) for column in zip(*table, strict=True)]
    return [_line(row, widths) for row in table]


def _line(row: Sequence[Text], widths: Sequence[int]) -> Text:
    padded = [
        Text.assemble(cell, " " * (width - _width(cell))) for cell, width in zip(row, widths, strict=True)
    ]
    line = Text(GAP).join(padded)
    line.rstrip()
    return line


def _width(cell: Text) -> int:
    return cell_len(cell.plain)

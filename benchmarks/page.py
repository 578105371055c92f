"""The figures as a page with plots, complete in one file."""

from collections.abc import Mapping, Sequence

from benchmarks.figures import Measured
from benchmarks.table import as_table


def as_page(measured: Sequence[Measured], environment: Mapping[str, str]) -> str:
    """Return the page's HTML."""
    raise NotImplementedError(as_table(measured), environment)

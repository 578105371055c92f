"""The figures as a table for a terminal."""

from collections.abc import Iterator, Sequence

from benchmarks.figures import Figure, Measured


def as_table(measured: Sequence[Measured]) -> str:
    """Lay out every case: each figure, its ratios, and which targets were met."""
    return "\n\n".join("\n".join(_of_case(case)) for case in measured)


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004


def settings_of(case: Measured) -> str:
    """Return on what settings it was measured; nothing when there are none to speak of."""
    return ", ".join(f"{name} {value}" for name, value in case.settings.items())


def _of_case(case: Measured) -> Iterator[str]:
    settings = settings_of(case)
    yield f"{case.case}  ({case.seconds:.0f} s{': ' if settings else ''}{settings})"
    for figure in case.figures:
        ratios = "".join(f"   {case.ratio(figure, beside):.3f} x {beside.figure}" for beside in figure.beside)
        yield f"  {figure.name:<44}{number(figure.median):>12} {figure.unit:<10}{_spread(figure)}{ratios}"
    for verdict in case.verdicts():
        state = "met   " if verdict.is_met else "MISSED"
        yield f"    {state} {verdict.target}: {number(verdict.measured)}"


def _spread(figure: Figure) -> str:
    if len(figure.samples) == 1:
        return " " * 24
    return f" {number(min(figure.samples))} to {number(max(figure.samples))}".ljust(24)

"""The figures as a page with plots, complete in one file: it needs a browser and nothing else."""

import json
import math
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

from benchmarks.figures import Beside, Figure, Measured
from benchmarks.table import number, settings_of
from worker.dashboard import page
from worker.dashboard.rendering import embedded, inlined, packed_plotly, sealed

LABEL_WIDTH = 44  # characters that a narrow screen holds
RATIO = ""  # the unit of ratios
STYLE = """
.plot { height: auto; }
.charts { align-items: start; margin-bottom: 12px; }
a { color: var(--focus); }
"""


@dataclass(frozen=True)
class Row:
    """A bar: what it stands for, in lines; its median, samples and targets; whether it meets them all."""

    label: Sequence[str]
    hint: str
    median: float
    samples: Sequence[float]
    targets: Sequence[float]
    is_met: bool | None


@dataclass(frozen=True)
class Curve:
    """A line over the number of rows, both axes logarithmic: the medians at several sizes."""

    name: str
    rows: Sequence[int]
    medians: Sequence[float]


@dataclass(frozen=True)
class Plot:
    """The bars of one case that share an axis, or its curves, which share two."""

    id: str
    unit: str
    rows: Sequence[Row] = ()
    curves: Sequence[Curve] = ()


def as_page(
    measured: Sequence[Measured], environment: Mapping[str, str], not_measured: Sequence[str] = ()
) -> str:
    """Return the page's HTML. It loads nothing, and its policy forbids that it ever does."""
    plots = {case.case: list(_plots(case)) for case in measured}
    script = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    drawn = json.dumps([asdict(plot) for of_case in plots.values() for plot in of_case], allow_nan=False)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>collection-sync, measured</title>
<link rel="icon" href="data:,">
{sealed(script)}
<style>{page.style()}{STYLE}</style>
</head>
<body>
<a class="skip" href="#targets">Skip to the targets</a>
<header class="top"><p class="brand">collection-sync</p><h1>Each figure beside its limit</h1></header>
<main>
{_verdict(measured, not_measured)}
{_environment(environment)}
{_targets(measured)}
{"".join(_case(case, plots[case.case]) for case in measured)}
</main>
<footer><p>A bar is the median of its samples, which are points; a dotted line is a target. A ratio is the
median of pairs that were measured in turns. Where lines are drawn over the number of rows, both axes are
logarithmic.</p></footer>
{embedded("plots", drawn)}
{packed_plotly()}
{inlined(script)}
</body>
</html>
"""


def _plots(case: Measured) -> Iterator[Plot]:
    for count, unit in enumerate(dict.fromkeys(figure.unit for figure in case.figures)):
        figures = [figure for figure in case.figures if figure.unit == unit]
        rows = [_bar(figure.name, figure, figure) for figure in figures if not figure.curve]
        yield Plot(f"{case.case}-{count}", unit, rows, _curves(figures))
    ratios = [
        _bar(f"{figure.name} / {beside.figure}", _as_figure(case, figure, beside), beside)
        for figure in case.figures
        for beside in figure.beside
    ]
    if ratios:
        yield Plot(f"{case.case}-ratios", RATIO, ratios)


def _curves(figures: Sequence[Figure]) -> list[Curve]:
    curves: dict[str, list[Figure]] = defaultdict(list)
    for figure in figures:
        if figure.curve:
            curves[figure.curve].append(figure)
    return [
        Curve(name, [point.rows for point in points], [point.median for point in points])
        for name, points in curves.items()
    ]


def _as_figure(case: Measured, figure: Figure, beside: Beside) -> Figure:
    return Figure(figure.name, RATIO, case.ratios(figure, beside))


def _bar(name: str, figure: Figure, bounds: Figure | Beside) -> Row:
    targets = [bound for bound in (bounds.at_least, bounds.at_most) if math.isfinite(bound)]
    is_met = bounds.at_least <= figure.median <= bounds.at_most
    shown = f"{number(figure.median)} {figure.unit}".rstrip()
    return Row(
        label=textwrap.wrap(f"{name}: {shown}", LABEL_WIDTH),
        hint=f"{shown}, median of {len(figure.samples)}",
        median=figure.median,
        samples=figure.samples,
        targets=targets,
        is_met=is_met if targets else None,
    )


def _verdict(measured: Sequence[Measured], not_measured: Sequence[str]) -> str:
    verdicts = [verdict for case in measured for verdict in case.verdicts()]
    missed = [verdict.target for verdict in verdicts if not verdict.is_met]
    sentences = [
        f"{what}: {'; '.join(names)}."
        for what, names in (
            ("Not measured", not_measured),
            ("Missed", missed),
            ("Measured", [case.case for case in measured]),
        )
        if names
    ]
    tone = "bad" if missed or not_measured else "good"
    return (
        f'<section class="verdict {tone}" aria-labelledby="verdict-title">'
        f'<div class="answer"><div><h2 id="verdict-title">{len(verdicts) - len(missed)} of {len(verdicts)}'
        f' targets met</h2><p id="verdict-detail">{escape(" ".join(sentences))}</p></div></div></section>'
    )


def _environment(environment: Mapping[str, str]) -> str:
    pairs = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in environment.items()
    )
    return (
        '<section aria-labelledby="on"><div class="section-head"><h2 id="on">Measured on</h2></div>'
        f'<div class="panel"><dl class="figures">{pairs}</dl></div></section>'
    )


def _targets(measured: Sequence[Measured]) -> str:
    rows = [
        (
            f'<span class="badge {tone}">{state}</span>',
            f'<a href="#{case.case}">{case.case}</a>',
            escape(verdict.target),
            number(verdict.measured),
        )
        for case in measured
        for verdict in case.verdicts()
        for tone, state in [("good", "met") if verdict.is_met else ("bad", "MISSED")]
    ]
    table = _table("Table of targets", ("State", "Case", "Target", "Measured"), rows)
    return (
        '<section id="targets" tabindex="-1" aria-labelledby="targets-title"><div class="section-head">'
        f'<h2 id="targets-title">Targets</h2></div><div class="panel">{table}</div></section>'
    )


def _case(case: Measured, plots: Sequence[Plot]) -> str:
    rows = [
        (
            escape(figure.name),
            number(figure.median),
            escape(figure.unit),
            number(min(figure.samples)),
            number(max(figure.samples)),
            str(len(figure.samples)),
            "<br>".join(escape(text) for text in _ratios(case, figure)),
        )
        for figure in case.figures
    ]
    heads = ("Figure", "Median", "Unit", "Least", "Most", "Samples", "Ratios")
    return (
        f'<section aria-labelledby="{case.case}"><div class="section-head"><h2 id="{case.case}">{case.case}'
        f'</h2><p class="count">{case.seconds:.0f} s. {escape(settings_of(case))}</p></div>'
        f'<div class="charts">{"".join(_figure(case, plot) for plot in plots)}</div>'
        f'<div class="panel">{_table(f"Table of {case.case}", heads, rows)}</div></section>'
    )


def _ratios(case: Measured, figure: Figure) -> list[str]:
    return [f"{case.ratio(figure, beside):.3f} x {beside.figure}" for beside in figure.beside]


def _figure(case: Measured, plot: Plot) -> str:
    title = plot.unit or "Ratios"
    drawn = "curves over the number of rows" if plot.curves else "bars"
    said = f"{case.case}, {title}, as {drawn}; the table below holds the numbers"
    return (
        f"<figure><figcaption><h3>{escape(title)}</h3></figcaption>"
        f'<div class="plot" id="{plot.id}" role="img" aria-label="{escape(said)}"></div></figure>'
    )


def _table(name: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{head}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )

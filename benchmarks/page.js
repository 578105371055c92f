(() => {
"use strict";

// Draws every plot of the page: a bar for each median, its samples as points, its targets as lines; or lines
// over the number of rows. The tables beside them hold the same numbers, for who sees no picture.

const CONFIG = { displayModeBar: false, displaylogo: false, responsive: true, showTips: false, plotlyServerURL: "", topojsonURL: "about:blank" };
const BAR = 16; // pixels
const TEXT_LINE = 15;
const GAP = 12;
const AXIS = 30;
const CURVES = 320;
const DASHES = ["solid", "dot", "dash", "dashdot"];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Plotly reads some HTML in the texts that it is given. */
function plain(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

function tone({ is_met: isMet }) {
  return colour(isMet === null ? "chart-1" : isMet ? "good" : "bad");
}

function bars(rows, height) {
  return {
    type: "bar",
    orientation: "h",
    x: rows.map(({ median }) => median),
    y: rows.map((_, row) => row),
    width: BAR / height,
    hovertemplate: rows.map(({ hint }) => `${plain(hint)}<extra></extra>`),
    marker: { color: rows.map(tone), opacity: 0.75 },
  };
}

function points(rows) {
  return {
    type: "scatter",
    mode: "markers",
    x: rows.flatMap(({ samples }) => samples),
    y: rows.flatMap(({ samples }, row) => samples.map(() => row)),
    hovertemplate: "%{x:,.4~g}<extra>sample</extra>",
    marker: { size: 7, symbol: "circle", color: colour("panel"), line: { color: colour("text"), width: 1.2 } },
  };
}

function targetLines(rows, height) {
  const reach = (BAR / 2 + 5) / height;
  return rows.flatMap(({ targets }, row) =>
    targets.map((at) => ({ type: "line", x0: at, x1: at, y0: row - reach, y1: row + reach, line: { color: colour("text"), width: 2, dash: "dot" } })),
  );
}

function labels(rows) {
  return rows.map(({ label }, row) => ({
    x: 0,
    xref: "paper",
    xanchor: "left",
    y: row,
    yanchor: "bottom",
    yshift: BAR / 2,
    align: "left",
    showarrow: false,
    text: label.map(plain).join("<br>"),
    font: { color: colour("text"), size: 12 },
  }));
}

function layoutOf(height) {
  return {
    autosize: true,
    height,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: colour("sans"), size: 12, color: colour("soft") },
    hovermode: "closest",
    hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("line"), font: { color: colour("text"), size: 12 } },
    dragmode: false,
  };
}

function layoutOfBars(rows, height) {
  const below = (BAR / 2 + GAP / 2) / height; // the part of a row's height that is below its bar's middle
  return {
    ...layoutOf(rows.length * height + AXIS),
    margin: { l: 6, r: 14, t: 0, b: AXIS },
    showlegend: false,
    xaxis: { rangemode: "tozero", fixedrange: true, gridcolor: colour("grid"), zerolinecolor: colour("line"), nticks: 5 },
    yaxis: { visible: false, fixedrange: true, range: [rows.length - 1 + below, below - 1] },
    annotations: labels(rows),
    shapes: targetLines(rows, height),
  };
}

function layoutOfCurves() {
  const axis = { type: "log", nticks: 6, exponentformat: "SI", fixedrange: true, gridcolor: colour("grid"), linecolor: colour("line") };
  return {
    ...layoutOf(CURVES),
    margin: { l: 44, r: 14, t: 6, b: AXIS },
    legend: { orientation: "h", y: -0.14 },
    xaxis: axis,
    yaxis: axis,
  };
}

function lines(curves) {
  return curves.map(({ name, rows, medians }, number) => ({
    type: "scatter",
    mode: "lines+markers",
    name: plain(name),
    x: rows,
    y: medians.map((median) => median || null), // no logarithm of nothing
    hovertemplate: "%{y:,.4~g} at %{x:,} rows<extra></extra>",
    line: { color: colour(`chart-${1 + (number % 3)}`), width: 2, dash: DASHES[number % DASHES.length] },
    marker: { size: 7, symbol: number },
  }));
}

function draw(plot) {
  const { rows, curves } = plot;
  const height = BAR + GAP + TEXT_LINE * Math.max(...rows.map(({ label }) => label.length));
  const [traces, layout] = curves.length ? [lines(curves), layoutOfCurves()] : [[bars(rows, height), points(rows)], layoutOfBars(rows, height)];
  const element = document.getElementById(plot.id);
  element.style.height = `${layout.height}px`;
  Plotly.react(element, traces, layout, CONFIG);
}

function drawPage() {
  JSON.parse(document.getElementById("plots").textContent).forEach(draw);
}

if (globalThis.Plotly) drawPage();
document.addEventListener("plotly", drawPage);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawPage);
})();

// What all charts have in common: colours out of the style sheet, a time axis in the reader's zone, and, for
// who sees no picture, one sentence and a table of the same numbers. Plotly reads some HTML in the texts that
// it is given: it gets numbers, times and fixed words only, never a text out of the log.

const ROWS_SHOWN = 60;
const MARGIN = { l: 62, r: 14, t: 20, b: 24 }; // the same for all: a moment has the same place in each chart
const CONFIG = { displayModeBar: false, displaylogo: false, responsive: true, showTips: false, plotlyServerURL: "", topojsonURL: "about:blank" };

/** Return the style sheet's colour of that name, as it is in this scheme. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Return a time as plotly takes it: by the reader's clock, without a zone. */
function plotTime(seconds) {
  const offset = new Date(seconds * 1000).getTimezoneOffset() * 60000;
  return new Date(seconds * 1000 - offset).toISOString().slice(0, -1);
}

function timeAxis([from, to], more = {}) {
  return {
    type: "date",
    range: [plotTime(from), plotTime(to)],
    tickformat: to - from > 2 * DAY ? "%d %b" : to - from > 600 ? "%H:%M" : "%H:%M:%S",
    hoverformat: to - from > DAY / 2 ? "%d %b %H:%M" : "%H:%M:%S",
    fixedrange: true,
    gridcolor: colour("grid"),
    linecolor: colour("grid"),
    nticks: to - from > 600 ? 6 : 4,
    tickangle: 0,
    ...more,
  };
}

function valueAxis(title, more = {}) {
  return {
    title: { text: title, standoff: 8, font: { size: 11 } },
    rangemode: "tozero",
    fixedrange: true,
    ticks: "outside",
    ticklen: 4,
    tickcolor: "rgba(0,0,0,0)",
    gridcolor: colour("grid"),
    zerolinecolor: colour("grid"),
    nticks: 5,
    ...more,
  };
}

/** A logarithmic axis over `values`, with ticks at those of `steps` ([value, text]) that are near, five at most named. */
function logAxis(title, values, steps, more = {}) {
  const low = Math.min(...values, steps.at(-1)[0]);
  const high = Math.max(...values, low * 10);
  const near = steps.filter(([value]) => value >= low / 1.4 && value <= high * 1.6);
  const sparse = Math.ceil(near.length / 5);
  return valueAxis(title, {
    type: "log",
    rangemode: "normal",
    range: [Math.log10(low) - 0.15, Math.log10(high) + 0.2],
    tickvals: near.map(([value]) => value),
    ticktext: near.map(([, text], index) => (index % sparse ? "" : text)),
    ...more,
  });
}

function layoutOf(more) {
  return {
    autosize: true,
    height: 260,
    margin: MARGIN,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: colour("sans"), size: 12, color: colour("soft") },
    hovermode: "x unified",
    hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("line"), font: { color: colour("text"), size: 12 } },
    dragmode: false,
    showlegend: false,
    ...more,
  };
}

/**
 * A line that holds each value until the next. Where the values are of steps of a length in seconds, the last one
 * before a gap is held to its step's end, and a dot makes sure that one without neighbours is seen.
 */
function line(name, times, values, texts, { dash, stroke, symbol, width = 1.75, step = 0 }, more = {}) {
  const points = times.flatMap((at, index) => {
    const ends = values[index] != null && values[index + 1] == null;
    const point = { at, value: values[index], text: texts[index], alone: ends && values[index - 1] == null };
    return ends && step ? [point, { ...point, at: at + step, alone: false }] : [point];
  });
  const marker = { size: points.map(({ alone }) => (alone ? width + 4 : 0)), symbol, color: stroke, line: { width: 0 } };
  return {
    type: "scatter",
    mode: points.some(({ alone }) => alone) ? "lines+markers" : "lines",
    name,
    x: points.map(({ at }) => plotTime(at)),
    y: points.map(({ value }) => value),
    customdata: points.map(({ text }) => text),
    hovertemplate: "%{customdata}",
    line: { color: stroke, dash, width, shape: "hv" },
    marker,
    ...more,
  };
}

/**
 * Draw one figure of the page, with the marks of its time.
 *
 * chart.nothing: what to say instead of a picture; else traces and layout for plotly, sentence for who does
 * not see it, columns and rows (the newest first) for the table below.
 */
function draw(id, chart, marks, span) {
  const figure = byId(id);
  const plot = figure.querySelector(".plot");
  const empty = chart.nothing != null;
  figure.querySelector(".legend").hidden = empty;
  plot.hidden = figure.querySelector("details").hidden = empty;
  figure.querySelector(".nothing").hidden = !empty;
  if (empty) {
    figure.querySelector(".nothing").replaceChildren(...chart.nothing);
    return;
  }
  showData(figure, chart);
  const traces = chart.traces.map((trace) => (occurs(trace) ? trace : { ...trace, showlegend: false, hoverinfo: "skip", hovertemplate: null }));
  const drawn = drawnMarks(marks, span, Math.max(plot.clientWidth - MARGIN.l - MARGIN.r, 100));
  if (!changed(id, [traces, chart.layout, drawn, "Plotly" in globalThis])) return;
  plot.setAttribute("aria-label", chart.sentence);
  globalThis.Plotly?.react(plot, traces, layoutOf(marked(chart.layout, drawn)), CONFIG);
  showLegend(figure, traces);
  shareCrosshair(plot);
}

/** Bars of what never occurred hold their axis, and are named nowhere. */
function occurs({ type, y }) {
  return type !== "bar" || y.some((value) => value);
}

function marked(layout, { shapes, annotations }) {
  return { ...layout, shapes: [...(layout.shapes ?? []), ...shapes], annotations: [...(layout.annotations ?? []), ...annotations] };
}

/** Show the moment that is pointed at in every chart: they are equally wide. */
function shareCrosshair(plot) {
  if (plot.dataset.shares || !plot.on) return;
  plot.dataset.shares = "yes";
  const charts = plot.closest(".charts");
  plot.on("plotly_hover", ({ points: [{ xaxis, x }] }) => {
    charts.style.setProperty("--cross", `${MARGIN.l + xaxis.d2p(x)}px`);
    charts.classList.add("crossed");
  });
  plot.on("plotly_unhover", () => charts.classList.remove("crossed"));
}

function showData(figure, { columns, rows }) {
  const title = figure.querySelector("h3").textContent;
  const details = figure.querySelector("details");
  if (!details.querySelector("table")) {
    const region = make("div", { class: "scroll short", tabindex: "0", role: "region", "aria-label": `Data: ${title}` }, make("table"));
    details.append(region, make("p", { class: "count" }));
    details.addEventListener("toggle", () => details.open && drawPage());
  }
  if (!details.open) return;
  const heads = columns.map((name, index) => make("th", { scope: "col", class: index ? "number" : null }, name));
  const lines = rows.slice(0, ROWS_SHOWN).map(([at, ...cells]) => make("tr", {}, make("th", { scope: "row" }, moment(at)), ...cells.map(numberCell)));
  details.querySelector("table").replaceChildren(make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...lines));
  details.querySelector(".count").textContent = rows.length > ROWS_SHOWN ? `The newest ${ROWS_SHOWN} of ${count(rows.length)}` : "";
}

// What all charts have in common: colours out of the style sheet, a time axis in the reader's zone, and, for
// who sees no picture, one sentence and a table of the same numbers. Plotly reads some HTML in the texts that
// it is given: it gets numbers, times and fixed words only, never a text out of the log.

const ROWS_SHOWN = 60;
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
    tickformat: to - from > 2 * DAY ? "%d %b" : "%H:%M",
    hoverformat: to - from > DAY / 2 ? "%d %b %H:%M" : "%H:%M:%S",
    fixedrange: true,
    gridcolor: colour("grid"),
    linecolor: colour("grid"),
    nticks: 6,
    ...more,
  };
}

function valueAxis(title, more = {}) {
  return {
    title: { text: title, standoff: 8, font: { size: 11 } },
    rangemode: "tozero",
    fixedrange: true,
    automargin: true,
    gridcolor: colour("grid"),
    zerolinecolor: colour("grid"),
    nticks: 5,
    ...more,
  };
}

/** A logarithmic axis over `values`, with ticks at those of `steps` ([value, text]) that are near. */
function logAxis(title, values, steps, more = {}) {
  const low = Math.min(...values, steps.at(-1)[0]);
  const high = Math.max(...values, low * 10);
  return valueAxis(title, {
    type: "log",
    rangemode: "normal",
    range: [Math.log10(low) - 0.15, Math.log10(high) + 0.2],
    tickvals: steps.map(([value]) => value),
    ticktext: steps.map(([, text]) => text),
    ...more,
  });
}

function layoutOf(more) {
  return {
    autosize: true,
    height: 248,
    margin: { l: 48, r: 12, t: 8, b: 24 },
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

/** A line; where both neighbours of a point are unknown, a dot stands for it. */
function line(name, times, values, texts, { dash, stroke, symbol }, more = {}) {
  const alone = values.map((value, index) => value != null && values[index - 1] == null && values[index + 1] == null);
  const marker = { size: alone.map((dot) => (dot ? 6 : 0)), symbol, color: stroke, line: { width: 0 } };
  return {
    type: "scatter",
    mode: alone.includes(true) ? "lines+markers" : "lines",
    name,
    x: times.map(plotTime),
    y: values,
    customdata: texts,
    hovertemplate: "%{customdata}",
    line: { color: stroke, dash, width: 1.75 },
    marker,
    ...more,
  };
}

/**
 * Draw one figure of the page.
 *
 * chart.nothing: what to say instead of a picture; else traces and layout for plotly, sentence for who does
 * not see it, columns and rows (the newest first) for the table below.
 */
function draw(id, chart) {
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
  if (!changed(id, [chart.traces, chart.layout, "Plotly" in globalThis])) return;
  plot.setAttribute("aria-label", chart.sentence);
  globalThis.Plotly?.react(plot, chart.traces, layoutOf(chart.layout), CONFIG);
  showLegend(figure, chart.traces);
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

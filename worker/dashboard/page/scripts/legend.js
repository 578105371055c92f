// The charts' legends: elements of the page, which wrap on a phone as text does. Screen readers have the charts'
// sentences and tables instead.

const STROKES = { solid: "", dash: "5 3" };
const SYMBOLS = {
  circle: "M11 2a4 4 0 1 1 0 8a4 4 0 1 1 0-8",
  x: "M6 3L8 1L11 4L14 1L16 3L13 6L16 9L14 11L11 8L8 11L6 9L9 6z",
  "triangle-up": "M11 1L16.5 11h-11z",
  "diamond-open": "M11 1l5 5l-5 5l-5-5z",
};
const HATCHES = {
  "": "M5 1h12v10h-12z",
  "/": "M5 6L10 1M5 11L15 1M10 11L17 4M15 11L17 9",
  x: "M5 6L10 1M5 11L15 1M10 11L17 4M5 6L10 11M5 1L15 11M10 1L17 8",
  "-": "M5 2.5h12M5 6h12M5 9.5h12",
};

function showLegend(figure, traces) {
  const entries = traces.filter(({ showlegend }) => showlegend !== false);
  const list = figure.querySelector(".legend");
  list.replaceChildren(...inOrder(entries).map((trace) => make("li", {}, swatch(trace), trace.name, ...(trace.meta ? [make("span", { class: "dim" }, trace.meta)] : []))));
}

/** Lines are drawn from the widest on, so that none hides another, and named from the thinnest on. */
function inOrder(entries) {
  return entries.every(({ mode }) => mode?.startsWith("lines")) ? entries.toReversed() : entries;
}

/** Draw a sample of the trace: a hatched square, a symbol or a piece of the line. */
function swatch(trace) {
  const [path, filled, stroke, dash] = sample(trace);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 22 12");
  svg.append(document.createElementNS(SVG, "path"));
  const looks = { d: path, fill: filled ? stroke : "none", stroke, "stroke-width": filled ? 0 : (trace.line?.width ?? 2), "stroke-dasharray": dash };
  for (const [name, value] of Object.entries(looks)) svg.firstChild.setAttribute(name, value);
  return svg;
}

/** Return the sample's path, whether it is filled, its colour and its dashes. */
function sample({ type, mode, marker, line: stroke }) {
  if (type === "bar") return [HATCHES[marker.pattern.shape], marker.pattern.shape === "", marker.color, ""];
  if (mode === "markers") return [SYMBOLS[marker.symbol], !marker.symbol.endsWith("open"), marker.color, ""];
  return ["M0 6h22", false, stroke.color, STROKES[stroke.dash ?? "solid"]];
}

// Lag, throughput and what waits, over time.

const LAG_STEPS = [[0.1, "0.1 ms"], [1, "1 ms"], [10, "10 ms"], [100, "100 ms"], [1e3, "1 s"], [1e4, "10 s"], [6e4, "1 min"], [6e5, "10 min"], [3.6e6, "1 h"], [8.64e7, "1 d"]];
const AGE_STEPS = [[0.03, "0"], [0.1, ""], [1, "1 s"], [10, ""], [60, "1 min"], [600, ""], [3600, "1 h"], [86400, "1 d"]];
const PENDING_STEPS = [[0.3, "0"], [1, ""], [10, "10"], [100, ""], [1e3, "1 k"], [1e4, ""], [1e5, "100 k"]];
const LANE_LOOKS = {
  live: { tint: "chart-1", dash: "solid", symbol: "circle", pattern: "" },
  repair: { tint: "chart-3", dash: "dot", symbol: "diamond", pattern: "x" },
  backfill: { tint: "chart-2", dash: "dash", symbol: "square", pattern: "/" },
};
const LAG_LINES = [
  { lane: "live", name: "p50", tint: "chart-1", dash: "solid", symbol: "circle" },
  { lane: "live", name: "p95", tint: "chart-2", dash: "dash", symbol: "square" },
  { lane: "live", name: "p99", tint: "chart-3", dash: "dot", symbol: "diamond" },
  { lane: "repair", name: "p99", tint: "chart-4", dash: "dashdot", symbol: "x" },
  { lane: "backfill", name: "p99", tint: "chart-5", dash: "longdash", symbol: "triangle-up" },
];
const OUTCOMES = { applied: "chart-1", stale: "chart-2", conflated: "chart-3", obsolete: "chart-5" };

function valuesOf(series, part, lane, name) {
  const values = name ? series[part]?.[lane]?.[name] : series[part]?.[lane];
  return values ?? series.times.map(() => null);
}

function known(values) {
  return values.filter((value) => value != null);
}

function lagChart(snapshot, range) {
  const series = snapshot.series[range];
  const lines = LAG_LINES.map((look) => ({ ...look, values: valuesOf(series, "lag_ms", look.lane, look.name) })).filter(({ values }) => known(values).length > 0);
  if (lines.length === 0) return { nothing: ["No batch was settled in this range."] };
  const drawn = lines.map(({ values }) => values.map((value) => (value == null ? null : Math.max(value, LAG_STEPS[0][0]))));
  return {
    traces: lines.map((look, index) => line(`${look.lane} ${look.name}`, series.times, drawn[index], look.values.map(milliseconds), { ...look, stroke: colour(look.tint) })),
    layout: { xaxis: timeAxis(spanOf(snapshot, range)), yaxis: logAxis("", drawn.flatMap(known), LAG_STEPS) },
    sentence: lagSentence(series, lines, range),
    columns: ["From", ...lines.map(({ lane, name }) => `${lane} ${name}`)],
    rows: rowsOf(series, (index) => lines.map(({ values }) => milliseconds(values[index]))),
  };
}

function lagSentence(series, lines, range) {
  const words = lines.map(({ lane, name, values }) => {
    const all = known(values);
    return `${lane} ${name} was ${milliseconds(all.at(-1))} last and ${milliseconds(Math.max(...all))} at most`;
  });
  return `Lag, ${RANGE_WORDS[range]}, in steps of ${duration(series.step_seconds)}: ${listed(words)}.`;
}

/** Return the table's rows, the newest first, without those in which nothing was said. */
function rowsOf(series, cellsOf) {
  return series.times
    .map((at, index) => [at, ...cellsOf(index)])
    .filter(([, ...cells]) => cells.some((text) => text !== UNKNOWN))
    .reverse();
}

function throughputChart(snapshot, range) {
  const series = snapshot.series[range];
  const bars = LANES.flatMap((lane) => Object.keys(OUTCOMES).map((outcome) => ({ lane, outcome, values: valuesOf(series, "settled", lane, outcome) }))).filter(({ values }) => sumOf(values) > 0);
  const dead = series.times.map((_, index) => LANES.reduce((sum, lane) => sum + (valuesOf(series, "settled", lane, "dead")[index] ?? 0), 0));
  byId("throughput-step").textContent = `, in steps of ${duration(series.step_seconds)}`;
  if (bars.length === 0 && sumOf(dead) === 0) return { nothing: ["No event was settled in this range."] };
  return {
    traces: [...bars.map((bar) => settledBars(series, bar)), ...deadMarks(series, bars, dead), ...writtenLine(series)],
    layout: { barmode: "stack", bargap: 0, xaxis: timeAxis(spanOf(snapshot, range)), yaxis: valueAxis("events") },
    sentence: throughputSentence(bars, dead, range),
    columns: ["From", ...bars.map(({ lane, outcome }) => `${lane} ${outcome}`), "dead", "written"],
    rows: rowsOf(series, (index) => [...bars.map(({ values }) => values[index]), dead[index], series.written[index]].map((value) => (value ? count(value) : UNKNOWN))),
  };
}

function sumOf(values) {
  return values.reduce((sum, value) => sum + (value ?? 0), 0);
}

/** A bar for each step: the outcome has the colour, the lane the pattern. */
function settledBars(series, { lane, outcome, values }) {
  return {
    type: "bar",
    name: `${lane} ${outcome}`,
    x: series.times.map((at) => plotTime(at + series.step_seconds / 2)),
    y: values,
    width: series.step_seconds * 920,
    customdata: values.map(count),
    hovertemplate: values.map((value) => (value ? "%{customdata}" : "")),
    marker: { color: colour(OUTCOMES[outcome]), pattern: { shape: LANE_LOOKS[lane].pattern, fillmode: "replace", size: 5, solidity: 0.55 } },
  };
}

function deadMarks(series, bars, dead) {
  const steps = dead.flatMap((value, index) => (value > 0 ? [index] : []));
  if (steps.length === 0) return [];
  return [
    {
      type: "scatter",
      mode: "markers",
      name: "dead",
      x: steps.map((index) => plotTime(series.times[index] + series.step_seconds / 2)),
      y: steps.map((index) => bars.reduce((sum, { values }) => sum + (values[index] ?? 0), dead[index])),
      customdata: steps.map((index) => count(dead[index])),
      hovertemplate: "%{customdata}",
      marker: { symbol: "x", size: 10, color: colour("bad"), line: { color: colour("panel"), width: 1 } },
    },
  ];
}

function writtenLine(series) {
  if (sumOf(series.written) === 0) return [];
  const look = { stroke: colour("text"), dash: "dot", symbol: "circle" };
  return [line("written by the API", series.times.map((at) => at + series.step_seconds / 2), series.written, series.written.map(count), look)];
}

function throughputSentence(bars, dead, range) {
  const words = bars.map(({ lane, outcome, values }) => `${count(sumOf(values))} ${lane} ${outcome}`);
  return `Events settled, ${RANGE_WORDS[range]}: ${listed([...words, `${count(sumOf(dead))} dead`])}.`;
}

function waitingChart(snapshot, range) {
  const series = snapshot.series[range];
  const lanes = LANES.map((lane) => ({ lane, ages: valuesOf(series, "oldest_seconds", lane), pending: valuesOf(series, "pending", lane) })).filter(({ ages, pending }) => known(ages).length + known(pending).length > 0);
  if (lanes.length === 0) return { nothing: ["No heartbeat in this range: ", make("code", {}, "python -m worker")] };
  const ages = lanes.map((lane) => floored(lane.ages, AGE_STEPS[0][0]));
  const pending = lanes.map((lane) => floored(lane.pending, PENDING_STEPS[0][0]));
  return {
    traces: [
      ...lanes.map(({ lane, ages: texts }, index) => laneLine(series, lane, ages[index], texts.map(duration), {})),
      ...lanes.map(({ lane, pending: texts }, index) => laneLine(series, lane, pending[index], texts.map(pendingCount), { yaxis: "y2", showlegend: false })),
    ],
    layout: {
      shapes: [lateLine()],
      xaxis: timeAxis(spanOf(snapshot, range), { anchor: "y2" }),
      yaxis: logAxis("oldest", ages.flatMap(known), AGE_STEPS, { domain: [0.56, 1] }),
      yaxis2: logAxis("events", pending.flatMap(known), PENDING_STEPS, { domain: [0, 0.44] }),
    },
    sentence: waitingSentence(lanes, range),
    columns: ["From", ...lanes.flatMap(({ lane }) => [`${lane} oldest`, `${lane} events`])],
    rows: rowsOf(series, (index) => lanes.flatMap((lane) => [duration(lane.ages[index]), pendingCount(lane.pending[index])])),
  };
}

/** Lift zeros to where the logarithmic axis says 0. */
function floored(values, floor) {
  return values.map((value) => (value == null ? null : Math.max(value, floor)));
}

function laneLine(series, lane, values, texts, more) {
  const { tint, dash, symbol } = LANE_LOOKS[lane];
  return line(lane, series.times, values, texts, { dash, symbol, stroke: colour(tint) }, more);
}

/** From here on the worker is late. */
function lateLine() {
  return { type: "line", xref: "paper", yref: "y", x0: 0, x1: 1, y0: LATE_SECONDS, y1: LATE_SECONDS, line: { color: colour("bad"), width: 1, dash: "dash" } };
}

function waitingSentence(lanes, range) {
  const words = lanes.map(({ lane, ages, pending }) => {
    const oldest = known(ages);
    return `${lane}: ${pendingCount(known(pending).at(-1))} events, the oldest for ${duration(oldest.at(-1))}, for ${duration(Math.max(...oldest))} at most`;
  });
  return `Waiting, ${RANGE_WORDS[range]}. ${listed(words)}.`;
}

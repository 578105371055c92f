// Lag, throughput and what waits, over time.

const LAG_STEPS = [[0.1, "0.1 ms"], [1, "1 ms"], [10, "10 ms"], [100, "100 ms"], [1e3, "1 s"], [1e4, "10 s"], [6e4, "1 min"], [6e5, "10 min"], [3.6e6, "1 h"], [8.64e7, "1 d"]];
const AGE_STEPS = [[0.03, "0"], [1, "1 s"], [10, "10 s"], [60, "1 min"], [600, "10 min"], [3600, "1 h"], [86400, "1 d"]];
const PENDING_STEPS = [[0.3, "0"], [1, "1"], [10, "10"], [100, "100"], [1e3, "1 k"], [1e4, "10 k"], [1e5, "100 k"]];
// Of lines on top of one another all are seen: the one below is wider.
const LANE_LOOKS = {
  live: { tint: "chart-1", symbol: "circle", pattern: "", width: 1.5 },
  repair: { tint: "chart-3", symbol: "diamond", pattern: "x", width: 3.25 },
  backfill: { tint: "chart-2", symbol: "square", pattern: "/", width: 5 },
};
const LAG_LINES = [
  { lane: "backfill", name: "p99", tint: "chart-5", dash: "dash", symbol: "triangle-up", width: 2.5 },
  { lane: "repair", name: "p99", tint: "chart-4", dash: "dash", symbol: "x", width: 2.5 },
  { lane: "live", name: "p99", tint: "chart-3", symbol: "diamond", width: 4.5 },
  { lane: "live", name: "p95", tint: "chart-2", symbol: "square", width: 2.75 },
  { lane: "live", name: "p50", tint: "chart-1", symbol: "circle", width: 1.25 },
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
  byId("tile-lag-count").textContent = ofEvents(series, "live");
  const lines = LAG_LINES.map((look) => ({ ...look, values: valuesOf(series, "lag_ms", look.lane, look.name) })).filter(({ values }) => known(values).length > 0);
  if (lines.length === 0) return { nothing: ["No batch was settled in this range."] };
  const drawn = lines.map(({ values }) => values.map((value) => (value == null ? null : Math.max(value, LAG_STEPS[0][0]))));
  const lanes = LANES.filter((lane) => lines.some((look) => look.lane === lane));
  return {
    traces: lines.map((look, index) => lagLine(series, look, drawn[index])),
    layout: { xaxis: timeAxis(spanOf(snapshot, range)), yaxis: logAxis("", drawn.flatMap(known), LAG_STEPS) },
    sentence: lagSentence(series, lines, range),
    columns: ["From", ...lines.map(({ lane, name }) => `${lane} ${name}`), ...lanes.map((lane) => `${lane} n`)],
    rows: rowsOf(series, (index) => [...lines.map(({ values }) => milliseconds(values[index])), ...lanes.map((lane) => count(countsOf(series, lane)[index] || null))]),
  };
}

function lagLine(series, { lane, name, values, ...look }, drawn) {
  const counts = countsOf(series, lane);
  const texts = values.map((value, index) => (name === "p99" ? `${milliseconds(value)}, n = ${count(counts[index])}` : milliseconds(value)));
  const more = name === "p99" ? { meta: ofEvents(series, lane) } : {};
  return line(`${lane} ${name}`, series.times, drawn, texts, { ...look, stroke: colour(look.tint), step: series.step_seconds }, more);
}

/** Return the number of events, in each step, of which the percentiles are. */
function countsOf(series, lane) {
  return valuesOf(series, "lag_count", lane);
}

function ofEvents(series, lane) {
  return `n = ${count(sumOf(countsOf(series, lane)))}`;
}

function lagSentence(series, lines, range) {
  const words = lines.map(({ lane, name, values }) => {
    const all = known(values);
    return `${lane} ${name}, ${ofEvents(series, lane)}, was ${milliseconds(all.at(-1))} last and ${milliseconds(Math.max(...all))} at most`;
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
    layout: { barmode: "stack", bargap: 0, xaxis: timeAxis(spanOf(snapshot, range)), yaxis: valueAxis("events", { autorangeoptions: { include: 4 } }) },
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
  const look = { stroke: colour("text"), symbol: "circle", width: 1.25, step: series.step_seconds };
  return [line("written by the API", series.times, series.written, series.written.map(count), look)];
}

function throughputSentence(bars, dead, range) {
  const words = bars.map(({ lane, outcome, values }) => `${count(sumOf(values))} ${lane} ${outcome}`);
  return `Events settled, ${RANGE_WORDS[range]}: ${listed([...words, `${count(sumOf(dead))} dead`])}.`;
}

function waitingChart(snapshot, range) {
  const series = snapshot.series[range];
  const lanes = LANES.toReversed().map((lane) => ({ lane, ages: valuesOf(series, "oldest_seconds", lane), pending: valuesOf(series, "pending", lane) })).filter(({ ages, pending }) => known(ages).length + known(pending).length > 0);
  if (lanes.length === 0) return { nothing: ["No heartbeat in this range: ", command("python -m worker")] };
  const ages = lanes.map((lane) => floored(lane.ages, AGE_STEPS[0][0]));
  const pending = lanes.map((lane) => floored(lane.pending, PENDING_STEPS[0][0]));
  const ageAxis = logAxis("oldest", ages.flatMap(known), AGE_STEPS, { domain: [0.56, 1] });
  return {
    traces: [
      ...lanes.map(({ lane, ages: texts }, index) => laneLine(series, lane, ages[index], texts.map(duration), {})),
      ...lanes.map(({ lane, pending: texts }, index) => laneLine(series, lane, pending[index], texts.map(pendingCount), { yaxis: "y2", showlegend: false })),
    ],
    layout: {
      ...lateLine(ageAxis),
      xaxis: timeAxis(spanOf(snapshot, range), { anchor: "y2" }),
      yaxis: ageAxis,
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
  const { tint, ...look } = LANE_LOOKS[lane];
  return line(lane, series.times, values, texts, { ...look, stroke: colour(tint), step: series.step_seconds }, more);
}

/** Draw from where on the worker is late, where the axis reaches so far. */
function lateLine({ range: [, top] }) {
  const height = Math.log10(LATE_SECONDS);
  if (height > top) return {};
  return {
    shapes: [{ type: "line", xref: "paper", yref: "y", x0: 0, x1: 1, y0: LATE_SECONDS, y1: LATE_SECONDS, line: { color: colour("bad"), width: 1, dash: "dash" } }],
    annotations: [{ text: `late from ${duration(LATE_SECONDS)} on`, x: 0, xref: "paper", xanchor: "left", y: height, yref: "y", yanchor: "top", showarrow: false, bgcolor: colour("panel"), font: { size: 11, color: colour("bad") } }],
  };
}

function waitingSentence(lanes, range) {
  const words = lanes.map(({ lane, ages, pending }) => {
    const oldest = known(ages);
    return `${lane}: ${pendingCount(known(pending).at(-1))} events, the oldest for ${duration(oldest.at(-1))}, for ${duration(Math.max(...oldest))} at most`;
  });
  return `Waiting, ${RANGE_WORDS[range]}. ${listed(words)}.`;
}

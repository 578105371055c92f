// Each audit: how many pairs it compared, what came out, and how many differed. Where a drift was known and not
// yet repaired, the ground is coloured.

const DIFFERENCES = [
  { kind: "missing", tint: "chart-2", pattern: "" },
  { kind: "mismatched", tint: "chart-3", pattern: "/" },
  { kind: "orphaned", tint: "chart-4", pattern: "x" },
  { kind: "pending", tint: "chart-6", pattern: "-" },
];
const RESULTS = [
  { name: "agrees", symbol: "circle", tint: "good", of: (audit) => audit.verdict === "in_sync" || audit.verdict === "pending" },
  { name: "repaired", symbol: "triangle-up", tint: "warning", of: (audit) => audit.verdict === "repaired" },
  { name: "drift", symbol: "x", tint: "bad", of: (audit) => audit.verdict === "drift" },
  { name: "proves nothing", symbol: "diamond-open", tint: "unknown", of: (audit) => !["in_sync", "pending", "repaired", "drift"].includes(audit.verdict) },
];

function agreementChart(snapshot, range) {
  const span = spanOf(snapshot, range);
  const audits = snapshot.audits.filter(({ at }) => at >= span[0]);
  if (audits.length === 0) return { nothing: noAudit(snapshot) };
  return {
    traces: [comparedLine(audits), ...resultMarks(audits), ...differenceBars(audits, span)],
    layout: {
      barmode: "stack",
      shapes: driftPeriods(snapshot.audits, span),
      xaxis: timeAxis(span, { anchor: "y2" }),
      yaxis: valueAxis("compared", { domain: [0.62, 1], nticks: 3 }),
      yaxis2: valueAxis("differ", { domain: [0, 0.46], nticks: 4, range: [0, Math.max(4, ...audits.map(differing)) * 1.1] }),
    },
    sentence: agreementSentence(audits),
    columns: ["Audit ended", "Result", "Compared", ...DIFFERENCES.map(({ kind }) => kind)],
    rows: audits.toReversed().map((audit) => [audit.at, resultOf(audit).name, count(audit.compared), ...DIFFERENCES.map(({ kind }) => count(audit[kind]))]),
  };
}

function noAudit(snapshot) {
  if (snapshot.audits.length) return ["No audit in this range. The last was ", age(snapshot.audits.at(-1).at), "."];
  return ["No audit was seen yet: ", command("python -m worker.audit")];
}

function differing(audit) {
  return DIFFERENCES.reduce((sum, { kind }) => sum + (audit[kind] ?? 0), 0);
}

function resultOf(audit) {
  return RESULTS.find((result) => result.of(audit));
}

/** Of audits of everything: one of a project compares less, and that says nothing. One that proves nothing is a gap. */
function comparedLine(all) {
  const audits = all.filter(({ project_id: project }) => project == null);
  const compared = audits.map((audit) => (resultOf(audit).name === "proves nothing" ? null : audit.compared));
  return line("compared", audits.map(({ at }) => at), compared, compared.map(count), { stroke: colour("chart-1") }, { showlegend: false, connectgaps: false });
}

/** Mark each audit at what it compared, and one that proves nothing at what the one before did: it counted nothing. */
function resultMarks(all) {
  let height = all.find(({ compared }) => compared != null)?.compared ?? 0;
  const audits = all.map((audit) => {
    if (resultOf(audit).name !== "proves nothing") height = audit.compared;
    return { ...audit, height };
  });
  return RESULTS.map((result) => [result, audits.filter(result.of)])
    .filter(([, marked]) => marked.length > 0)
    .map(([{ name, symbol, tint }, marked]) => ({
      type: "scatter",
      mode: "markers",
      name,
      x: marked.map(({ at }) => plotTime(at)),
      y: marked.map(({ height: y }) => y),
      hoverinfo: "skip",
      cliponaxis: false,
      marker: { symbol, size: symbol === "circle" ? 6 : 10, color: colour(tint), line: { color: colour(tint), width: symbol.endsWith("open") ? 2 : 0 } },
    }));
}

/** Return how wide a bar may be, in milliseconds, so that it covers no other, but can be seen. */
function barWidth(audits, seconds) {
  const gaps = audits.slice(1).map(({ at }, index) => at - audits[index].at);
  return Math.max(Math.min(seconds / 90, 0.9 * Math.min(...gaps)), seconds / 400) * 1000;
}

function differenceBars(audits, [from, to]) {
  return DIFFERENCES.map(({ kind, tint, pattern }) => ({
    type: "bar",
    name: kind,
    x: audits.map(({ at }) => plotTime(at)),
    y: audits.map((audit) => audit[kind]),
    yaxis: "y2",
    width: barWidth(audits, to - from),
    customdata: audits.map((audit) => count(audit[kind])),
    hovertemplate: "%{customdata}",
    marker: { color: colour(tint), pattern: { shape: pattern, fillmode: "replace", size: 5, solidity: 0.5 } },
  }));
}

/** Colour the ground from each audit that found drift to the next one that shows agreement. */
function driftPeriods(audits, [from, to]) {
  const periods = [];
  let since = null;
  for (const audit of audits) {
    const { name } = resultOf(audit);
    if (name === "drift") since ??= audit.at;
    if (since != null && (name === "agrees" || name === "repaired")) {
      periods.push([since, audit.at]);
      since = null;
    }
  }
  if (since != null) periods.push([since, to]);
  return periods.filter(([, end]) => end > from).map(([begin, end]) => ground(Math.max(begin, from), end, "bad", 0.16));
}

function agreementSentence(audits) {
  const last = audits.at(-1);
  const drifted = audits.filter((audit) => resultOf(audit).name === "drift").length;
  const found = DIFFERENCES.map(({ kind }) => `${count(last[kind])} ${kind}`);
  return (
    `${counted(audits.length, "audit", "audits")}, of which ${count(drifted)} found drift. ` +
    `The last, at ${timeOf(last.at)}, compared ${counted(last.compared, "pair", "pairs")}: ${listed(found)}.`
  );
}

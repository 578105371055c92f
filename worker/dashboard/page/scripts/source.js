// What the page was drawn from: each lane's totals, and how much of the log was read and of use.

const OUTCOME_COLUMNS = ["applied", "stale", "conflated", "obsolete", "dead"];

function showSource({ lanes, source }) {
  showReading(source);
  if (!changed("source", [lanes, source])) return;
  fillTable("lanes", lanes.map(laneRow));
  describe(byId("source-figures"), sourceFigures(source));
  byId("source-unread").hidden = !source.unread?.length;
  byId("source-unread-files").replaceChildren(...(source.unread ?? []).map((what) => make("li", {}, logText(what))));
  byId("source-broken").hidden = source.broken_sample == null;
  byId("source-sample").replaceChildren(logText(source.broken_sample));
}

function showReading({ bytes_read: read, bytes_total: total }) {
  byId("reading").hidden = read >= total;
  showBar(byId("reading-bar"), read, total);
  byId("reading-text").textContent = `${percent(read, total)}, ${bytes(read)} of ${bytes(total)}. The page below is of what was read so far.`;
}

function laneRow({ name, outcomes, postponed, batches, lag_ms: lag }) {
  const numbers = [...OUTCOME_COLUMNS.map((outcome) => outcomes[outcome] ?? 0), postponed, batches].map(count);
  const lags = ["p50", "p95", "p99", "max"].map((key) => milliseconds(lag[key]));
  return make("tr", {}, make("th", { scope: "row" }, logText(name)), ...[...numbers, ...lags].map(numberCell));
}

function sourceFigures(source) {
  return [
    ["files", count(source.files)],
    ["read", bytes(source.bytes_read)],
    ["lines", count(source.lines)],
    ["not read", count(source.unread?.length ?? 0), source.unread?.length ? "warning" : null],
    ["broken", count(source.broken), source.broken ? "warning" : null],
    ["unknown events", count(source.unknown)],
    ["of a newer schema", count(source.newer_schema), source.newer_schema ? "warning" : null],
    ["first line", moment(source.first_at)],
    ["last line", moment(source.last_at)],
  ];
}

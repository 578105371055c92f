// A few figures of this moment, above everything that takes time to read.

const LANES = ["live", "repair", "backfill"];
const LATE_SECONDS = 60;

function showTiles(snapshot, range) {
  if (!changed("tiles", [snapshot.waiting, snapshot.dead_letters_open, lastWholeAudit(snapshot), lagOf(snapshot, range), range])) return;
  const waiting = LANES.map((lane) => [lane, snapshot.waiting[lane] ?? {}]);
  describe(byId("tile-oldest"), waiting.map(([lane, { oldest_seconds: oldest }]) => [lane, duration(oldest), lane === "live" && oldest > LATE_SECONDS ? "warning" : null]));
  describe(byId("tile-pending"), waiting.map(([lane, { pending }]) => [lane, pendingCount(pending)]));
  describe(byId("tile-dead"), [["open", count(snapshot.dead_letters_open), snapshot.dead_letters_open ? "bad" : null]]);
  showLagTile(lagOf(snapshot, range), range);
  showAuditTile(lastWholeAudit(snapshot));
}

/** Return the last audit that did not keep to one project. */
function lastWholeAudit({ audits }) {
  return audits.findLast(({ project_id: project }) => project == null);
}

/** Return the percentiles over the whole range. */
function lagOf(snapshot, range) {
  return snapshot.series[range]?.lag_overall?.live ?? {};
}

function showLagTile(lag, range) {
  byId("tile-lag-range").textContent = RANGE_WORDS[range];
  describe(byId("tile-lag"), ["p50", "p95", "p99"].map((name) => [name, milliseconds(lag[name])]));
}

function showAuditTile(audit) {
  byId("tile-audit-when").replaceChildren(...(audit ? [audit.verdict == null ? "failed " : "", age(audit.at)] : []));
  byId("tile-audit").hidden = !audit;
  byId("tile-audit-none").hidden = Boolean(audit);
  if (!audit) return;
  const kinds = ["missing", "mismatched", "orphaned"];
  describe(byId("tile-audit"), [
    ["compared", count(audit.compared)],
    ...kinds.map((kind) => [kind, count(audit[kind]), audit[kind] ? "bad" : null]),
    ["pending", count(audit.pending)],
  ]);
}

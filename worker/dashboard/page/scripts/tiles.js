// A few figures of this moment, above everything that takes time to read.

const LANES = ["live", "repair", "backfill"];
const OLD_SECONDS = 5;
const LATE_SECONDS = 60;
const COUNTED_SECONDS = 15; // so long a heartbeat's count is of now

function showTiles(snapshot, range) {
  const { waiting, dead_letters_open: open } = snapshot;
  const counted = snapshot.counted_at ?? snapshot.verdict.last_heartbeat_at;
  const isOld = counted == null || now() - counted > COUNTED_SECONDS;
  if (!changed("tiles", [waiting, isOld ? counted : null, open, lastWholeAudit(snapshot), lagOf(snapshot, range), range])) return;
  const of = (words, value) => (isOld ? unknownNow(value == null ? null : words(value), counted) : words(value));
  const lanes = LANES.map((lane) => [lane, waiting[lane] ?? {}]);
  describe(byId("tile-oldest"), lanes.map(([lane, { oldest_seconds: oldest }]) => [lane, of(duration, oldest), isOld || lane !== "live" ? null : toneOfAge(oldest)]));
  describe(byId("tile-pending"), lanes.map(([lane, { pending }]) => [lane, of(pendingCount, pending)]));
  describe(byId("tile-dead"), [["open", of(count, open), !isOld && open ? "bad" : null]]);
  showLagTile(lagOf(snapshot, range), range);
  showAuditTile(lastWholeAudit(snapshot));
}

/** Show that a figure is not known now, what it was last, and how long ago that was. */
function unknownNow(was, at) {
  const small = was == null ? [] : [make("small", {}, ` was ${was}, `, age(at))];
  return make("span", {}, UNKNOWN, ...small);
}

function toneOfAge(seconds) {
  if (seconds > LATE_SECONDS) return "bad";
  return seconds > OLD_SECONDS ? "warning" : null;
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

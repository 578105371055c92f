// The newest backfill run in large, and all of them as a table.

const STATUS_TONES = { running: "busy", finished: "good", paused: "warning", interrupted: "warning", cancelled: "unknown" };

function showBackfill({ backfills }) {
  if (!changed("backfill", [backfills, backfills[0]?.status === "running" && Math.floor(now())])) return;
  const newest = backfills[0];
  byId("backfill-none").hidden = Boolean(newest);
  byId("backfill-newest").hidden = byId("backfill-history").hidden = !newest;
  if (!newest) return;
  showRun(newest);
  fillRows(byId("backfill-rows"), backfills.map(runRow));
}

function showRun(run) {
  byId("backfill-name").textContent = `Run ${run.run_id}`;
  byId("backfill-status").replaceChildren(badge(STATUS_TONES[run.status] ?? "unknown", run.status));
  showBar(byId("backfill-bar"), run.processed, run.planned);
  byId("backfill-percent").textContent = done(run);
  byId("backfill-throttle").hidden = run.throttled_by == null;
  byId("backfill-throttle").replaceChildren(shape("warning"), make("span", {}, "Throttled: ", logText(run.throttled_by)));
  describe(byId("backfill-figures"), runFigures(run));
}

function showBar(bar, value, max) {
  bar.max = Math.max(max, 1);
  bar.value = Math.min(value, bar.max);
}

function percent(value, max) {
  return max > 0 ? `${Math.floor((100 * Math.min(value, max)) / max)} %` : UNKNOWN;
}

/** Return how much of a run is done: as the commands say it, never all of it before its end. */
function done(run) {
  const isWhole = run.status !== "finished" && run.planned > 0 && run.processed >= run.planned;
  return isWhole ? "99 %" : percent(run.processed, run.planned);
}

function runFigures(run) {
  const running = run.status === "running";
  return [
    ["rows seen", `${count(run.processed)} of ${count(run.planned)}`],
    ["enqueued", count(run.enqueued)],
    ["skipped", count(run.skipped)],
    ["rows a second", count(run.rows_a_second)],
    running ? ["left", timeLeft(run)] : ["took", duration(run.duration_seconds)],
    ["begun", moment(run.started_at)],
    ["driver", logText(run.driver)],
    ...(run.project_id == null ? [] : [["only project", logText(run.project_id)]]),
  ];
}

/** Say when the run ends, as its last line foresaw it. */
function timeLeft(run) {
  if (run.eta_seconds == null) return UNKNOWN;
  const end = run.at + run.eta_seconds;
  return make("span", { id: "backfill-eta" }, duration(Math.max(0, end - now())), ", until ", moment(end));
}

function runRow(run) {
  return make(
    "tr",
    {},
    make("th", { scope: "row" }, String(run.run_id)),
    cell(badge(STATUS_TONES[run.status] ?? "unknown", run.status)),
    cell(run.project_id == null ? "all" : logText(run.project_id)),
    cell(moment(run.started_at)),
    numberCell(`${count(run.processed)} of ${count(run.planned)}`),
    numberCell(count(run.enqueued)),
    numberCell(count(run.skipped)),
    numberCell(duration(run.duration_seconds)),
    cell(logText(run.driver)),
  );
}

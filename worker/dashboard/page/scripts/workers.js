// Every worker that the log knows, and when it was last heard.

const WORKER_TONES = { running: "good", silent: "bad", stopped: "unknown" };
const CLOCK_BOUND_MS = 250;

function showWorkers({ workers, verdict }) {
  const states = workers.map((worker) => stateOf(worker, verdict.blind_after_seconds));
  if (!changed("workers", [workers, states])) return;
  fillTable("workers", workers.map((worker, index) => workerRow(worker, states[index])));
}

/** Return the worker's state by the page's clock. */
function stateOf(worker, bound) {
  const silent = worker.state === "running" && worker.last_heartbeat_at != null && now() - worker.last_heartbeat_at > bound;
  return clock.live && silent ? "silent" : worker.state;
}

function workerRow(worker, state) {
  return make(
    "tr",
    {},
    make("th", { scope: "row" }, logText(worker.name)),
    cell(badge(WORKER_TONES[state] ?? "unknown", state)),
    cell(age(worker.last_heartbeat_at)),
    numberCell(duration(worker.uptime_seconds)),
    cell(service(worker.database, state)),
    cell(service(worker.redis, state)),
    numberCell(clockOffset(worker.clock_offset_ms)),
  );
}

/** A service's state as the worker last saw it: of one that is silent or stopped it says nothing any more. */
function service(seen, state) {
  if (seen == null || state !== "running") return seen == null ? UNKNOWN : make("span", { class: "dim" }, "was ", logText(seen));
  return badge(seen === "up" ? "good" : "warning", seen);
}

function clockOffset(value) {
  const text = value > 0 ? `+${milliseconds(value)}` : milliseconds(value).replace("-", "−");
  return Math.abs(value ?? 0) > CLOCK_BOUND_MS ? badge("warning", text) : text;
}

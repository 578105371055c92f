// What the page may say by its own clock. Data that is old proves nothing, so a verdict can only get worse here.

const NOTICE_AFTER_SECONDS = 3;
const UNKNOWN_AFTER_SECONDS = 15;

/** Return the verdict to show, and whether one may go on, when nobody has answered for `silence` seconds. */
function judge(snapshot, at, silence) {
  if (silence >= UNKNOWN_AFTER_SECONDS) return unanswered(snapshot);
  if (snapshot.live && isBlind(snapshot.verdict, at)) return blind(snapshot);
  return { verdict: snapshot.verdict, goOn: snapshot.go_on };
}

function isBlind(verdict, at) {
  const heard = verdict.last_heartbeat_at;
  return !isUnwatched(verdict) && heard != null && at - heard > verdict.blind_after_seconds;
}

/** Say whether nobody counts what waits, and everybody knows why. */
function isUnwatched({ state }) {
  return ["blind", "stopped", "rolled_back", "rollback_interrupted", "unanswered"].includes(state);
}

function unanswered(snapshot) {
  const detail = "The dashboard does not answer. What you see below is old.";
  const steps = ["python -m worker.status"];
  const verdict = { ...snapshot.verdict, state: "unanswered", tone: "unknown", title: "Unknown", detail, since: null, next_steps: steps };
  return { verdict, goOn: { may: false, reasons: ["Nothing is known of this moment."] } };
}

function blind(snapshot) {
  const heard = snapshot.verdict.last_heartbeat_at;
  const bound = snapshot.verdict.blind_after_seconds;
  const detail = `Blind: no heartbeat of any worker for over ${bound} seconds, so nobody knows what waits.`;
  const steps = ["python -m worker", "python -m worker.status --watch"];
  const verdict = { ...snapshot.verdict, state: "blind", tone: "bad", title: "Blind", detail, since: heard + bound, next_steps: steps };
  return { verdict, goOn: { may: false, reasons: [detail] } };
}

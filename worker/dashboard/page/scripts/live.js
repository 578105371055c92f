// Asks the server for the newest snapshot, often enough to show a line within two seconds. Silence is counted from the first question that was not
// answered, not from the last answer: a tab that slept did not ask.

const ASK_EVERY_MS = 700;
const ANSWER_WITHIN_MS = 4000;
const conversation = { tag: null, unansweredSince: null, timer: null, asking: false };

/** Return for how many seconds nobody has answered. */
function silence() {
  return conversation.unansweredSince == null ? 0 : (performance.now() - conversation.unansweredSince) / 1000;
}

/** Ask once, pass a new snapshot to `show`, and ask again later. */
async function ask(show) {
  if (conversation.asking) return;
  conversation.asking = true;
  clearTimeout(conversation.timer);
  conversation.unansweredSince ??= performance.now();
  try {
    const snapshot = await answer();
    conversation.unansweredSince = null;
    if (snapshot) show(snapshot);
  } catch {
    // The notice tells, after a while.
  }
  conversation.asking = false;
  conversation.timer = setTimeout(ask, ASK_EVERY_MS, show);
}

/** Return the server's snapshot; null when it is the one that we have. */
async function answer() {
  const headers = conversation.tag ? { "If-None-Match": conversation.tag } : {};
  const response = await fetch("snapshot.json", { headers, signal: AbortSignal.timeout(ANSWER_WITHIN_MS) });
  const text = await response.text();
  if (response.status === 304) return null;
  if (!response.ok) throw new Error(`status ${response.status}`);
  const snapshot = JSON.parse(text);
  conversation.tag = response.headers.get("ETag");
  return snapshot;
}

function showNotice() {
  const shown = silence() >= NOTICE_AFTER_SECONDS;
  if (byId("notice").hidden === shown) {
    byId("notice").hidden = !shown;
    byId("notice-text").textContent = shown ? "The dashboard does not answer; what you see is old." : "";
  }
  document.body.classList.toggle("silent", shown);
  byId("notice-age").textContent = shown ? `Silent for ${duration(Math.floor(silence()))}.` : "";
}

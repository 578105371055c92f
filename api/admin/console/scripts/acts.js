// What the console does. Each act asks first, and shows in a sentence what the server says it did.

const AT_ONCE = 500; // letters in one request
const ACTS = {
  "backfill.start": {
    title: "Start a backfill?",
    text: "Workers enqueue each collection that project_collections lacks or shows differently, behind users’ writes.",
    yes: "Start",
    send: () => ask("POST", "backfill", {}),
  },
  "backfill.pause": {
    title: "Pause the backfill?",
    text: "It stops after its present chunk, until it is resumed.",
    yes: "Pause",
    send: () => ask("POST", "backfill/pause"),
  },
  "backfill.resume": {
    title: "Resume the backfill?",
    text: "Workers go on where it stopped.",
    yes: "Resume",
    send: () => ask("POST", "backfill/resume"),
  },
  "backfill.cancel": {
    title: "Cancel the backfill?",
    text: "It ends for good. What it has enqueued is applied all the same; another one begins with the first collection.",
    yes: "Cancel the backfill",
    send: () => ask("POST", "backfill/cancel"),
  },
  "audit.request": {
    title: "Audit now?",
    text: "A worker compares every collection with its row. It changes nothing.",
    yes: "Audit",
    send: () => ask("POST", "audit"),
  },
  "audit.repair": {
    title: "Repair?",
    text: "A worker compares every collection with its row and enqueues the present state of each that differs. While a backfill is unfinished, that is also what it has not reached yet.",
    yes: "Repair",
    send: () => ask("POST", "repair"),
  },
  "letters.replay": {
    title: (ids) => `Replay ${ofLetters(ids)}?`,
    text: "The present state of each collection is appended, behind users’ writes. Where the cause is still there, it dies again.",
    yes: "Replay",
    send: (ids) => inChunks("replay", ids),
  },
  "letters.discard": {
    title: (ids) => `Discard ${ofLetters(ids)}?`,
    text: "This closes for good, and appends nothing. The next write of a collection carries all of it.",
    yes: "Discard",
    send: (ids) => inChunks("discard", ids),
  },
};

function ofLetters(ids) {
  return ids.length === 1 ? `dead letter ${ids[0]}` : counted(ids.length, "dead letter", "dead letters");
}

/** Close these letters, a bounded number at a time; return what was done to each part of them. */
async function inChunks(order, ids) {
  if (ids.length === 1) return ask("POST", `dead-letters/${ids[0]}/${order}`);
  const outcomes = [];
  for (let begin = 0; begin < ids.length; begin += AT_ONCE) {
    const { outcome } = await ask("POST", `dead-letters/${order}`, { ids: ids.slice(begin, begin + AT_ONCE) });
    outcomes.push(outcome);
  }
  return { outcome: outcomes.join(" ") };
}

/** Ask for confirmation, act, and show what was done. */
async function perform(name, ids = []) {
  const act = ACTS[name];
  if (!(await isConfirmed(act, ids))) return;
  showDone("", "");
  try {
    showDone((await act.send(ids)).outcome, "");
  } catch (error) {
    if (error.status === 401) leave(error.message);
    else showDone(`Not done: ${error.message}`, "bad");
  }
  refresh();
}

function isConfirmed({ title, text, yes }, ids) {
  const dialog = byId("ask");
  if (dialog.open) return Promise.resolve(false);
  byId("ask-title").textContent = typeof title === "function" ? title(ids) : title;
  byId("ask-text").textContent = text;
  byId("ask-yes").textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

function showDone(text, tone) {
  byId("done").className = `done ${tone}`;
  byId("done").replaceChildren(...(text ? [shown(text)] : []));
}

/** Make a button that acts; one that cannot act now keeps its place and its focus. */
function actButton(name, ids, text, key, attributes = {}) {
  return make("button", { type: "button", "data-key": key, ...attributes, click: () => perform(name, ids) }, text);
}

async function copy(text, code) {
  try {
    await navigator.clipboard.writeText(text);
    showDone("Copied.", "");
  } catch {
    getSelection().selectAllChildren(code);
    showDone("Selected: copy it with the keyboard.", "");
  }
}

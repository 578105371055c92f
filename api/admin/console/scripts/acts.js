// What the console does. Each act asks first, and shows in a sentence what the server says it did.

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
    title: (chosen) => `Replay ${ofLetters(chosen)}?`,
    text: "The present state of each collection is appended, behind users’ writes. Where the cause is still there, it dies again.",
    yes: "Replay",
    send: (chosen) => closeLetters("replay", chosen),
  },
  "letters.discard": {
    title: (chosen) => `Discard ${ofLetters(chosen)}?`,
    text: "This closes for good, and appends nothing. The next write of a collection carries all of it.",
    yes: "Discard",
    send: (chosen) => closeLetters("discard", chosen),
  },
  "phase.advance": {
    about: () => ({ ...advancing(cutover.seen), epoch: cutover.seen.epoch }),
    yes: "Advance",
    send: ({ epoch }, given) => ask("POST", "phase/advance", { epoch, ...given }),
  },
  "phase.back": {
    about: () => ({ ...goingBack(cutover.seen), epoch: cutover.seen.epoch }),
    yes: "Go back",
    send: ({ epoch }, { reason }) => ask("POST", "phase/back", { epoch, reason }),
  },
};

/** Name what is chosen: `like`, the one letter, or the first of `letters` that died like it. */
function ofLetters({ like, letters }) {
  return letters === 1 ? `dead letter ${like}` : counted(letters, "dead letter", "dead letters");
}

/** Close what is chosen, a bounded number in one request; return what was done in each of them. */
async function closeLetters(order, { like, letters }) {
  if (letters === 1) return ask("POST", `dead-letters/${like}/${order}`);
  const outcomes = [];
  for (;;) {
    const done = await ask("POST", `dead-letters/${order}`, { like });
    outcomes.push(done.outcome);
    if (!done.remaining || !(done.replayed ?? done.discarded)) return { outcome: outcomes.join(" ") };
  }
}

/** Ask for confirmation, act, and show what was done. */
async function perform(name, chosen) {
  const act = ACTS[name];
  // What was seen when it was asked: the page may show another phase by the time of the answer.
  const about = act.about ? act.about() : { ...chosen, title: typeof act.title === "function" ? act.title(chosen) : act.title, text: act.text };
  const given = await confirmed(about, act.yes);
  if (given === null) return;
  showDone("", "");
  try {
    showDone((await act.send(about, given)).outcome, "");
  } catch (error) {
    if (error.status === 401) leave(error.message);
    else showDone(`Not done: ${error.message}`, "bad");
  }
  refresh();
}

/** Ask, and return what was filled in; null where it is to be left. With `unmet`, a reason may be given. */
function confirmed({ title, text, unmet, fallsBack }, yes) {
  const dialog = byId("ask");
  if (dialog.open) return Promise.resolve(null);
  byId("ask-title").textContent = title;
  byId("ask-text").textContent = text;
  byId("ask-yes").textContent = yes;
  byId("ask-more").hidden = unmet === undefined;
  byId("ask-more").reset();
  const isForced = Boolean(unmet?.length);
  byId("ask-unmet").replaceChildren(...(unmet ?? []).map((line) => make("li", {}, shown(line))));
  byId("ask-forced").hidden = !isForced;
  byId("ask-force").required = byId("ask-reason").required = isForced;
  byId("ask-reason-label").textContent = isForced ? "Reason, which is recorded" : "Reason, if there is one to record";
  byId("ask-fallen").hidden = typeof fallsBack !== "boolean";
  byId("ask-falls-back").checked = fallsBack === true;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes" ? filledIn(isForced, fallsBack) : null), { once: true });
  });
}

function filledIn(isForced, fallsBack) {
  return {
    force: isForced && byId("ask-force").checked,
    reason: byId("ask-reason").value.trim() || null,
    falls_back: typeof fallsBack === "boolean" ? byId("ask-falls-back").checked : null,
  };
}

function agree() {
  if (byId("ask-more").hidden || byId("ask-more").reportValidity()) byId("ask").close("yes");
}

function showDone(text, tone) {
  byId("done").className = `done ${tone}`;
  byId("done").replaceChildren(...(text ? [shown(text)] : []));
  if (text) byId("done").scrollIntoView({ block: "nearest" });
}

/** Make a button that acts; one that cannot act now keeps its place and its focus. */
function actButton(name, chosen, text, key, attributes = {}) {
  return make("button", { type: "button", "data-key": key, ...attributes, click: () => perform(name, chosen) }, text);
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

// The page's sections, each drawn anew only where what it shows is another.

const TONES = {
  in_sync: "good",
  backfilling: "busy",
  settling: "busy",
  pending: "busy",
  drift: "bad",
  dead: "bad",
  orphaned: "bad",
  stuck: "bad",
  stopped: "bad",
  unfit: "bad",
  read_only: "bad",
  interrupted: "bad",
  rollback_interrupted: "bad",
  fell_back: "bad",
  reads_differ: "bad",
  unknown: "unknown",
  database_away: "unknown",
  no_such_collection: "unknown",
};
const SIGNS = { good: "✓", busy: "▶", warning: "▲", bad: "✕", unknown: "?" };
const STEP_WORDS = {
  "backfill.start": "Start…",
  "backfill.resume": "Resume…",
  "audit.request": "Audit…",
  "audit.repair": "Repair…",
  "letters.replay": "Replay…",
  "letters.discard": "Discard…",
  "phase.advance": "Advance…",
  "phase.back": "Go back…",
};
// What a command shows that stands on this page as well.
const SHOWN_BELOW = { "python -m worker.phase status": "#cutover" };
const PARTS = {
  legacy: "collections",
  target: "project_collections",
  applied: "applied",
  events: "events that wait",
  letters: "dead letters",
  findings: "findings of audits",
};

function toneOf(word) {
  return TONES[word] ?? "warning";
}

/** Return what the sentence says beyond the title, where it begins with it; else all of it. */
function beyondTitle(title, sentence) {
  const rest = sentence.startsWith(title) ? sentence.slice(title.length).replace(/^[:,.]\s*/, "") : sentence;
  return rest ? rest[0].toUpperCase() + rest.slice(1) : sentence;
}

function showStatus(status) {
  showVerdict(status);
  if (changed("figures", status.figures)) {
    const none = [{ name: "all", value: UNKNOWN }];
    const figures = status.figures.length ? status.figures : none;
    byId("figures").replaceChildren(...rows(figures.map(({ name, value }) => [name, value])).children);
  }
  showBackfill(status);
  const audit = status.figures.find(({ name }) => name === "last audit");
  say("audit-text", `Last: ${audit?.value ?? UNKNOWN}`);
}

function showVerdict({ verdict, title, sentence, steps, may_go_on: isWell }) {
  const tone = toneOf(verdict);
  byId("verdict").className = `verdict ${tone}`;
  byId("verdict").dataset.state = verdict;
  byId("verdict-shape").setAttribute("href", `#shape-${tone}`);
  say("verdict-title", title);
  say("verdict-detail", beyondTitle(title, sentence));
  document.title = `${SIGNS[tone]} ${title} – Console – collection-sync`;
  byId("well").hidden = !isWell;
  if (changed("steps", steps)) fill(byId("steps"), stepLines(steps));
}

function stepLines(steps) {
  const first = steps.find(({ act }) => act);
  return steps.map((step) => stepLine(step, step === first));
}

/** Show a command to copy, and the act of the console that does the same, if there is one. */
function stepLine({ command, act, letter_id: letter }, isFirst) {
  const code = make("code", {}, shown(command));
  const line = make("li", {}, code, make("button", { type: "button", class: "quiet", "data-key": `copy ${command}`, "aria-label": `Copy ${command}`, click: () => copy(command, code) }, "Copy"));
  if (SHOWN_BELOW[command]) line.append(make("a", { href: SHOWN_BELOW[command], "data-key": `show ${command}` }, "Shown below"));
  if (act) line.append(actButton(act, { like: letter, letters: 1 }, STEP_WORDS[act], `act ${command}`, { class: isFirst ? "main" : null, "aria-label": `${STEP_WORDS[act]} the next step` }));
  return line;
}

function showBackfill({ verdict, backfill, figures }) {
  const isUnfinished = backfill?.status === "running" || backfill?.status === "paused";
  const canResume = isUnfinished && (backfill.status === "paused" || ["interrupted", "stopped"].includes(verdict));
  allow("backfill.start", !isUnfinished);
  allow("backfill.pause", backfill?.status === "running");
  allow("backfill.resume", canResume);
  allow("backfill.cancel", isUnfinished);
  byId("backfill").hidden = !isUnfinished;
  if (isUnfinished) {
    const bar = byId("backfill-bar");
    bar.max = Math.max(backfill.planned, 1);
    bar.value = Math.min(backfill.processed, bar.max);
    byId("backfill-percent").textContent = `${Math.min(99, Math.floor((100 * bar.value) / bar.max))} %`;
  }
  const said = figures.find(({ name }) => name === "backfill")?.value ?? UNKNOWN;
  say("backfill-text", backfill?.throttled_by ? `${said}; waiting: ${backfill.throttled_by}` : said);
}

function allow(name, may) {
  document.querySelector(`[data-act="${name}"]`).setAttribute("aria-disabled", String(!may));
}

function showLetters(groups) {
  byId("letters-none").hidden = groups.length > 0;
  if (changed("letters", groups)) fill(byId("letters"), groups.map(groupLine));
}

function groupLine(group) {
  const name = `${group.sqlstate} ${group.error} ${group.event_type}`;
  const head = make("p", {}, make("strong", {}, counted(group.letters, "letter", "letters")), ` · ${group.sqlstate ?? "no code"} · ${group.event_type} · last `, moment(group.newest_at));
  if (group.died_again) head.append(" · ", make("span", { class: "again" }, `${wholeNumbers.format(group.died_again)} died again after a replay`));
  const what = make("div", { class: "what" }, head, make("p", {}, shown(group.error)));
  const of = ofLetters(group);
  return make(
    "li",
    {},
    what,
    make("span", { class: "buttons" }, actButton("letters.replay", group, "Replay…", `replay ${name}`, { "aria-label": `Replay… ${of}` }), actButton("letters.discard", group, "Discard…", `discard ${name}`, { class: "danger", "aria-label": `Discard… ${of}` })),
  );
}

function showRecord(record) {
  byId("record-none").hidden = record.length > 0;
  if (changed("record", record)) byId("record").replaceChildren(...record.map(recordLine));
}

function recordLine({ acted_at: at, actor, act, outcome }) {
  return make("li", {}, moment(at), make("strong", {}, shown(actor)), make("code", {}, act), make("span", { class: "what" }, shown(outcome)));
}

function showCollection(found) {
  const tone = toneOf(found.verdict);
  const parts = Object.entries(PARTS).map(([part, title]) => make("div", {}, make("h3", {}, title), ...partOf(found, part)));
  fill(byId("found"), [
    make("p", { class: `sentence verdict-mark ${tone}` }, shape(tone), make("span", {}, shown(found.sentence))),
    ...(found.steps.length ? [make("ol", { class: "steps" }, ...stepLines(found.steps))] : []),
    ...parts,
  ]);
}

function partOf(found, part) {
  const value = found[part];
  if (value == null) return [make("p", { class: "dim" }, shown(`${UNKNOWN} (${found.unknown[part] ?? "not read"})`))];
  const all = Array.isArray(value) ? value : Object.keys(value).length ? [value] : [];
  if (!all.length) return [make("p", { class: "dim" }, "none")];
  return all.map((row) => rows(Object.entries(row).map(([name, cell]) => [name, cell === null ? "NULL" : cell])));
}

// Events that died, and every other warning and error.

const LETTER_TONES = { dead: "bad", superseded: "good", replayed: "good", discarded: "unknown", closed: "unknown" };
const LEVEL_TONES = { warning: "warning", error: "bad", critical: "bad" };

function showDeadLetters({ dead_letters: letters, dead_letters_total: total }) {
  if (!changed("letters", [letters, total, today()])) return;
  fillTable("letters", letters.map(letterRow));
  byId("letters-count").textContent = shownOf(letters.length, total);
}

/** A string that changes with the day: times of another day are written with it. */
function today() {
  return new Date(now() * 1000).toDateString();
}

function shownOf(shown, total) {
  return total > shown ? `The newest ${count(shown)} of ${count(total)}` : total > 0 ? count(total) : "";
}

function letterRow(letter) {
  const state = letter.state === "dead" ? "open" : letter.state;
  return make(
    "tr",
    {},
    cell([badge(LETTER_TONES[letter.state] ?? "unknown", state), ...(letter.closed_at == null ? [] : [make("span", { class: "dim block" }, moment(letter.closed_at))])]),
    cell([logText(letter.error), ...(letter.state === "dead" ? [make("span", { class: "block" }, command(`python -m worker.dead_letters show ${letter.event_id}`))] : [])], { class: "long" }),
    cell(moment(letter.at)),
    make("th", { scope: "row" }, String(letter.event_id)),
    cell(logText(letter.collection_id)),
    cell(logText(letter.project_id)),
    cell(logText(letter.event_type)),
    cell(logText(letter.source)),
    cell(logText(letter.sqlstate)),
  );
}

function showTroubles({ troubles }) {
  if (!changed("troubles", [troubles, today()])) return;
  fillTable("troubles", troubles.map(troubleRow));
}

function troubleRow(trouble) {
  return make(
    "tr",
    {},
    cell(badge(LEVEL_TONES[trouble.level] ?? "unknown", trouble.level)),
    make("th", { scope: "row" }, logText(trouble.event)),
    numberCell(count(trouble.count)),
    cell(moment(trouble.first_at)),
    cell(moment(trouble.last_at)),
    cell(fieldList(trouble.fields), { class: "long" }),
  );
}

function fieldList(fields) {
  const pairs = Object.entries(fields).map(([name, value]) => {
    const text = typeof value === "number" ? figure(name, value) : typeof value === "string" ? value : JSON.stringify(value);
    return make("span", { class: "field" }, make("span", { class: "name" }, logText(name)), " ", logText(text));
  });
  return make("span", { class: "fields" }, ...pairs);
}

/** Write a field's number in the unit that its name ends in. */
function figure(name, value) {
  if (name.endsWith("_seconds")) return duration(value);
  return name.endsWith("_ms") ? milliseconds(value) : String(value);
}

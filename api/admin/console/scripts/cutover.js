// The cutover: its phase, the gates of the next one, what comparisons found, and what going back would lose.

const TURNS = { advance: "advanced", back: "went back", fall_back: "fell back by itself" };
const LOSSES = {
  further_links: "further links",
  tags: "rows with tags",
  mappings: "rows with mappings",
  contexts: "contexts of their own",
  without_home: "collections without a home",
};
const cutover = { seen: null };

/** Say how long that is, in the largest unit of which there are two or more. */
function span(seconds) {
  const units = { days: 86400, hours: 3600, minutes: 60 };
  const unit = Object.keys(units).find((name) => seconds >= 2 * units[name]);
  return unit ? `${Math.round(seconds / units[unit])} ${unit}` : `${Math.round(Math.max(seconds, 0))} s`;
}

function ago(seconds) {
  return seconds == null ? "" : `${span(seconds)} ago`;
}

function titleOf(phase) {
  return cutover.seen.titles[phase];
}

function unmetOf({ gates }) {
  return gates.filter(({ is_met: isMet }) => !isMet);
}

function showCutover(found) {
  cutover.seen = found;
  const { phase, following, previous } = found;
  allow("phase.advance", following !== null);
  allow("phase.back", previous !== null);
  if (changed("phases", phase)) byId("phases").replaceChildren(...phaseLines(phase));
  if (changed("cutover-text", [phase, found.since, found.actor, found.falls_back, found.unknown])) byId("cutover-text").replaceChildren(...sinceWhen(found));
  showGates(found);
  showComparisons(found);
  showLosses(found.losses);
  showTurns(found);
}

function phaseLines(phase) {
  const names = Object.keys(cutover.seen.titles);
  const now = names.indexOf(phase);
  return names.map((name, number) => {
    const mark = number < now ? shape("good") : make("span", { class: "number" }, String(number));
    return make("li", { class: number === now ? "now" : number < now ? "past" : null, "aria-current": number === now ? "step" : null }, mark, titleOf(name));
  });
}

function sinceWhen({ phase, since, actor, falls_back: fallsBack, unknown }) {
  if (phase === null) return ["Not known: ", shown(unknown.cutover)];
  const reads = phase === "reads_moved" ? "project_collections" : "collections";
  const itself = fallsBack ? "Moved reads go back by themselves when a comparison finds a mismatch." : "Moved reads do not go back by themselves.";
  return ["Since ", moment(since), ", by ", shown(actor), `. Lists are read from ${reads}. ${itself}`];
}

function showGates(found) {
  const { phase, following, gates } = found;
  const missing = unmetOf(found).length;
  const summary = missing ? `${missing} of ${gates.length} not met` : "all met";
  say("gates-title", following === null ? "Gates" : `Gates to ${titleOf(following)}: ${summary}`);
  byId("gates-none").hidden = gates.length > 0;
  say("gates-none", phase === null ? UNKNOWN : "None: this is the last phase.");
  const drawn = gates.map((gate) => ({ ...gate, age_seconds: ago(gate.age_seconds) }));
  if (changed("gates", drawn)) byId("gates").replaceChildren(...drawn.map(gateLine));
  const steps = found.steps.filter(({ command }) => !SHOWN_BELOW[command]);
  if (changed("cutover-steps", steps)) fill(byId("cutover-steps"), stepLines(steps));
}

function gateLine({ title, value, limit, is_met: isMet, age_seconds: age }) {
  return make(
    "li",
    { class: isMet ? "good" : "bad" },
    shape(isMet ? "good" : "bad"),
    make("div", { class: "what" }, make("p", {}, make("strong", {}, shown(title)), " ", make("span", { class: "mark" }, isMet ? "met" : "not met")), make("p", {}, shown(value), age && ` · ${age}`), make("p", { class: "dim" }, "must be: ", shown(limit))),
  );
}

function showComparisons({ phase, shadow }) {
  const isCompared = shadow !== null && (shadow.compared + shadow.dropped + shadow.failed > 0 || ["shadow_reads", "reads_moved"].includes(phase));
  byId("compared-none").hidden = isCompared;
  const lines = isCompared ? comparisonLines(shadow) : [];
  if (changed("compared", lines)) byId("compared").replaceChildren(...rows(lines).children);
  const findings = isCompared ? shadow.findings : [];
  if (changed("differences", findings)) byId("differences").replaceChildren(...findings.map(findingLine));
}

function comparisonLines(shadow) {
  const number = (value) => wholeNumbers.format(value);
  const milliseconds = (value) => (value == null ? UNKNOWN : `${value.toFixed(2)} ms`);
  return [
    ["compared", [counted(shadow.compared, "list", "lists"), shadow.age_seconds == null ? "" : `, the last ${ago(shadow.age_seconds)}`].join("")],
    ["match", number(shadow.matched)],
    ["mismatch", number(shadow.mismatched)],
    ["events wait", number(shadow.pending)],
    ["a dead letter is open", number(shadow.lettered)],
    ["dropped, failed", `${number(shadow.dropped)}, ${number(shadow.failed)}`],
    ["from collections", `${milliseconds(shadow.legacy_ms)} each`],
    ["from project_collections", `${milliseconds(shadow.target_ms)} each`],
  ];
}

function findingLine({ project_id: project, collection_id: collection, kind, found_at: at }) {
  return make("li", { class: "bad" }, shape("bad"), make("strong", {}, shown(kind)), make("span", { class: "what" }, "collection ", make("code", {}, shown(collection)), " in project ", make("code", {}, shown(project))), moment(at));
}

function showLosses(losses) {
  say("losses-text", losses === null ? "Not counted yet: a worker counts it." : `Counted ${ago(losses.age_seconds)}. Going back deletes none of it; reads no longer show it.`);
  const lines = losses === null ? [] : Object.entries(LOSSES).map(([kind, words]) => [words, wholeNumbers.format(losses[kind])]);
  if (changed("losses", lines)) byId("losses").replaceChildren(...rows(lines).children);
}

function showTurns({ turns }) {
  byId("turns-none").hidden = turns.length > 0;
  if (changed("turns", turns)) byId("turns").replaceChildren(...turns.map(turnLine));
}

function turnLine({ turned_at: at, from_phase: from, to_phase: to, kind, actor, reason, forced, unmet }) {
  const what = make("div", { class: "what" }, make("p", {}, `${titleOf(from)} → ${titleOf(to)}`));
  if (reason !== null) what.append(make("p", { class: "dim" }, "Reason: ", shown(reason)));
  if (forced) what.append(make("p", { class: "again" }, "Forced, not met: ", shown(unmet.join("; "))));
  return make("li", {}, moment(at), make("strong", {}, shown(actor)), make("span", {}, TURNS[kind]), what);
}

/** Say what is asked before the phase is advanced: beyond gates that are not met only by force, with a reason. */
function advancing(seen) {
  const unmet = unmetOf(seen);
  return {
    title: `Advance to ${titleOf(seen.following)}?`,
    text: seen.following === "reads_moved" ? "Lists are read from project_collections from then on." : "Lists are read from collections as before.",
    unmet: unmet.map(({ title, value }) => `${title}: ${value}`),
    fallsBack: seen.following === "reads_moved" ? seen.falls_back : null,
  };
}

function goingBack(seen) {
  const lost = seen.losses && Object.entries(LOSSES).filter(([kind]) => seen.losses[kind]).map(([kind, words]) => `${words}: ${wholeNumbers.format(seen.losses[kind])}`);
  const cost = lost === null ? "What they lose by it was not counted yet." : `By the last count they lose ${lost.join(", ") || "nothing"}; nothing is deleted.`;
  return {
    title: `Go back to ${titleOf(seen.previous)}?`,
    text: seen.phase === "reads_moved" ? `Lists are read from collections again. ${cost}` : "Lists are read from collections as before.",
    unmet: [],
    fallsBack: null,
  };
}

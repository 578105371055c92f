// Each pair that differed: what was found, what should be there, and what is there after its repair. Fields that
// differ bear a sign and a word, not only a colour.

const OUTCOME_TONES = { repaired: "good", still_differs: "bad", pending: "warning" };
const OUTCOME_WORDS = { repaired: "repaired", still_differs: "still differs", pending: "its event waits" };

function showFindings({ findings, findings_total: total, audits }) {
  if (!changed("findings", [findings, total, audits.length > 0, sampled(audits), today()])) return;
  fillTable("findings", findings.flatMap(findingRows));
  byId("findings-count").textContent = [shownOf(findings.length, total), sampled(audits)].filter(Boolean).join(", ");
  byId("findings-none").replaceChildren(...(audits.length ? ["No audit found a pair that differs."] : ["No audit was seen yet: ", command("python -m worker.audit")]));
}

/** Say of how many the findings are a sample: an audit that finds more than it may write logs some of each kind. */
function sampled(audits) {
  const audit = audits.findLast(({ unlisted, missing }) => unlisted > 0 && missing != null);
  if (!audit) return "";
  const found = audit.missing + audit.mismatched + audit.orphaned;
  return `a sample: audit ${audit.run_id} found ${count(found)} and logged ${count(found - audit.unlisted)} of them`;
}

function findingRows(finding) {
  const fields = fieldsOf(finding);
  return fields.map((name, index) => {
    const heads = index === 0 ? [pairCell(finding, fields.length), kindCell(finding, fields.length)] : [];
    return make("tr", { class: index === 0 ? "first" : null }, ...heads, cell(logText(name)), ...sides(finding, name));
  });
}

/** Of a pair that is there on both sides only what differs; else all of the side that is there. */
function fieldsOf(finding) {
  if (finding.kind === "mismatched" && finding.differs.length) return finding.differs;
  const side = finding.legacy ?? finding.before ?? {};
  const named = [...new Set([...finding.differs, ...Object.keys(side)])].filter((name) => name in side);
  return named.length ? named : ["row"];
}

function pairCell(finding, rows) {
  const place = make("span", { class: "dim" }, "in ", logText(finding.project_id));
  const found = make("span", { class: "dim" }, `audit ${finding.run_id}, `, moment(finding.at));
  return make("th", { scope: "rowgroup", rowspan: rows }, logText(finding.collection_id), place, found);
}

function kindCell(finding, rows) {
  return cell([make("span", { class: "kind" }, logText(finding.kind)), fate(finding)], { rowspan: rows });
}

/** Say what became of the pair, as far as the log knows. */
function fate({ outcome, agreed_at: agreed }) {
  if (outcome && !(outcome !== "repaired" && agreed)) return badge(OUTCOME_TONES[outcome] ?? "unknown", OUTCOME_WORDS[outcome] ?? outcome);
  if (agreed) return make("span", { class: "badge good" }, shape("good"), make("span", {}, "agreed at ", moment(agreed)));
  return make("span", { class: "dim" }, "not repaired");
}

function sides(finding, name) {
  const right = valueOf(finding.legacy, name);
  const repaired = finding.repaired_at != null;
  return [
    cell(compared(finding.before, name, right), { class: "side" }),
    cell(sideText(finding.legacy, name), { class: "side" }),
    cell(repaired ? compared(finding.after, name, right) : make("span", { class: "dim" }, UNKNOWN), { class: "side" }),
  ];
}

function valueOf(side, name) {
  return side == null ? undefined : side[name];
}

/** Show a side's field with a sign for whether it is what it should be. */
function compared(side, name, right) {
  const equal = valueOf(side, name) === right;
  const [sign, word] = equal ? ["=", "as it should be: "] : ["≠", "differs: "];
  return make("span", { class: equal ? "equal" : "unequal" }, make("span", { class: "mark", "aria-hidden": "true" }, sign), make("span", { class: "unseen" }, word), sideText(side, name));
}

function sideText(side, name) {
  if (side == null) return make("em", {}, "no row");
  return side[name] == null ? make("em", {}, "null") : logText(side[name]);
}

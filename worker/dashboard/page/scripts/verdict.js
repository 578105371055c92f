// The answer on top. Its title and detail are a live region and change only when they say something else;
// the ages beside them tick in silence.

const ICON_SIGNS = { good: "✓", busy: "▸", warning: "▲", bad: "✕", unknown: "?" };
const ICON_COLOURS = { good: "#12805c", busy: "#2a5fc4", warning: "#a15c00", bad: "#c62f2f", unknown: "#66707d" };

function showVerdict({ verdict, goOn }) {
  if (!changed("verdict", [verdict, goOn, clock.live])) return;
  byId("verdict").className = `verdict ${verdict.tone}`;
  byId("verdict").dataset.state = verdict.state;
  byId("verdict-shape").setAttribute("href", `#shape-${verdict.tone}`);
  say("verdict-title", verdict.title);
  say("verdict-detail", beyondTitle(verdict));
  byId("verdict-ages").replaceChildren(...verdictAges(verdict));
  document.title = `${ICON_SIGNS[verdict.tone]} ${verdict.title} – collection-sync`;
  byId("icon").href = iconOf(verdict.tone);
  showGoOn(goOn, verdict);
}

/** Return what the sentence says beyond the title, where it begins with it; else all of it. */
function beyondTitle({ title, detail }) {
  const rest = detail.startsWith(title) ? detail.slice(title.length).replace(/^[:,.]\s*/, "") : detail;
  return rest ? rest[0].toUpperCase() + rest.slice(1) : detail;
}

function say(id, text) {
  const shown = logText(text);
  if (byId(id).textContent !== shown.textContent) byId(id).replaceChildren(shown);
}

function verdictAges(verdict) {
  const ages = [
    make("li", { id: "verified" }, ...(verdict.verified_at == null ? ["Never audited"] : ["Audited ", age(verdict.verified_at)])),
    make("li", { id: "heartbeat" }, ...(verdict.last_heartbeat_at == null ? ["No heartbeat yet"] : ["Last heartbeat ", age(verdict.last_heartbeat_at)])),
  ];
  if (verdict.since != null) ages.push(make("li", {}, "In this state since ", moment(verdict.since), " (", age(verdict.since), ")"));
  return ages;
}

/** Show the commands that go on; what is said beside them, such as of Redis, is a sentence. */
function showGoOn({ may, reasons }, { detail, next_steps: steps }) {
  byId("go-on").className = `go-on ${may ? "good" : "bad"}`;
  byId("go-on-answer").replaceChildren(shape(may ? "good" : "bad"), may ? "Yes" : "No");
  const beside = reasons.filter((reason) => reason !== detail);
  const shown = may && beside.length === 0 ? ["Nothing speaks against the next step."] : beside;
  byId("go-on-reasons").replaceChildren(
    ...steps.map((step) => make("li", {}, sentence(`\`${step}\``))),
    ...shown.map((reason) => make("li", {}, sentence(reason))),
  );
}

/** Draw the browser tab's icon: the tone's colour and sign. */
function iconOf(tone) {
  const svg =
    `<svg xmlns="${SVG}" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" fill="${ICON_COLOURS[tone]}"/>` +
    `<text x="16" y="23" font-size="20" font-weight="bold" text-anchor="middle" fill="#fff">${ICON_SIGNS[tone]}</text></svg>`;
  return `data:image/svg+xml,${encodeURIComponent(svg)}`;
}

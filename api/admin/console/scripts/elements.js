// Elements of the page. Texts become text nodes, whatever they hold: nothing is ever parsed as HTML.

const UNKNOWN = "–";
const LONGEST = 2000;
const INVISIBLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const clockTimes = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayTimes = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const wholeNumbers = new Intl.NumberFormat();
const remembered = new Map();

function byId(id) {
  return document.getElementById(id);
}

/** Make an element of attributes, and of children that are nodes or texts; functions listen to clicks. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value != null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Show a text of others: on its own in direction, bounded, and with what nobody would see made visible. */
function shown(text) {
  const whole = text == null ? UNKNOWN : String(text);
  const cut = whole.length > LONGEST ? `${whole.slice(0, LONGEST)}…` : whole;
  return make("bdi", {}, cut.replace(INVISIBLE, (sign) => `⟨U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`));
}

function shape(tone) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("class", "shape");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#shape-${tone}`);
  svg.append(use);
  return svg;
}

/** Show a time in the reader's zone; the day too, unless it is within half a day. */
function moment(iso) {
  const date = new Date(iso);
  const near = Math.abs(Date.now() - date) < 43200000;
  return make("time", { datetime: date.toISOString(), title: date.toString() }, (near ? clockTimes : dayTimes).format(date));
}

function counted(number, one, many) {
  return `${wholeNumbers.format(number)} ${number === 1 ? one : many}`;
}

/** Return whether what is to be drawn there is another than the last time. */
function changed(place, value) {
  const now = JSON.stringify(value);
  if (remembered.get(place) === now) return false;
  remembered.set(place, now);
  return true;
}

/** Put these nodes into the place of all that is there; what has the focus has it still, by its data-key. */
function fill(place, nodes) {
  const key = place.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  place.replaceChildren(...nodes);
  if (key !== undefined) ([...place.querySelectorAll("[data-key]")].find(({ dataset }) => dataset.key === key) ?? byId("main")).focus();
}

function say(id, text) {
  if (byId(id).textContent !== shown(text).textContent) byId(id).replaceChildren(shown(text));
}

function rows(pairs) {
  return make("dl", { class: "rows" }, ...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, shown(value))]));
}

// Elements of the page. Texts become text nodes, whatever they hold: nothing is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";
const INVISIBLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const remembered = new Map();

function byId(id) {
  return document.getElementById(id);
}

/** Make an element of attributes, and of children that are nodes or texts. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value != null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Show a text out of the log: on its own in direction, and with what nobody would see made visible. */
function logText(text) {
  const shown = text == null ? UNKNOWN : String(text).replace(INVISIBLE, (sign) => `⟨U+${codeOf(sign)}⟩`);
  return make("bdi", {}, shown);
}

/** The same for a sentence of ours: what stands between backticks is a name or, of several words, a command. */
function sentence(text) {
  const parts = text.replace(/`\.$/, "`").split("`");
  return make("span", {}, ...parts.map((part, index) => (index % 2 === 0 ? logText(part) : part.includes(" ") ? command(part) : make("code", {}, logText(part)))));
}

function codeOf(sign) {
  return sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
}

/** Show a time in the reader's zone, with all of it for who points at it. */
function moment(seconds) {
  if (seconds == null) return make("span", {}, UNKNOWN);
  return timeElement(seconds, {}, timeOf(seconds));
}

/** Show how long ago that was; `tickAges` keeps it right. */
function age(seconds) {
  if (seconds == null) return make("span", {}, "never");
  const element = timeElement(seconds, { "data-age": seconds }, "");
  tick(element);
  return element;
}

function timeElement(seconds, attributes, text) {
  const date = new Date(seconds * 1000);
  return make("time", { datetime: date.toISOString(), title: fullTimes.format(date), ...attributes }, text);
}

function tick(element) {
  const text = `${wholeDuration(now() - Number(element.dataset.age))}${clock.live ? " ago" : " before"}`;
  if (element.textContent !== text) element.textContent = text;
}

function tickAges() {
  document.querySelectorAll("time[data-age]").forEach(tick);
}

/** Draw a shape of the template: a tone's, or a button's. */
function shape(tone) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  svg.setAttribute("class", "shape");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#shape-${tone}`);
  svg.append(use);
  return svg;
}

/** Show a word with its tone's shape and colour. */
function badge(tone, text) {
  return make("span", { class: `badge ${tone}` }, shape(tone), logText(text));
}

/** Put pairs of a name and its content into a description list. */
function describe(list, pairs) {
  list.replaceChildren(
    ...pairs.map(([name, content, tone]) =>
      make("div", { class: tone }, make("dt", {}, name), make("dd", {}, ...(tone ? [shape(tone)] : []), content)),
    ),
  );
}

/** Return whether the data of a part of the page is another than the last time: only then it is drawn anew. */
function changed(part, data) {
  const text = JSON.stringify(data);
  if (remembered.get(part) === text) return false;
  remembered.set(part, text);
  return true;
}

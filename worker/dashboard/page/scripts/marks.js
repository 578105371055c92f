// What bends the curves, in all charts at the same place: a line with its name above, and a ground where no worker
// was heard. A name stands for its neighbours too where there is no room for theirs; the list below has them all.

const LETTER_PIXELS = 5.8;
const BAD_MARKS = new Set(["rolled_back", "reads_fell_back"]);
const MARK_WORDS = {
  worker_started: () => "worker started",
  worker_stopped: () => "worker stopped",
  rolled_back: ({ number }) => `rolled back ${counted(number, "row", "rows")}`,
  phase_turned: ({ number }) => `phase ${number}`,
  reads_fell_back: () => "reads fell back",
  blind: ({ at, until }) => (until == null ? "last heartbeat" : `no heartbeat ${duration(until - at)}`),
  backfill_started: ({ number }) => `backfill ${number} started`,
  backfill_resumed: ({ number }) => `backfill ${number} resumed`,
  backfill_paused: ({ number }) => `backfill ${number} paused`,
  backfill_finished: ({ number }) => `backfill ${number} finished`,
  backfill_cancelled: ({ number }) => `backfill ${number} cancelled`,
  backfill_interrupted: ({ number }) => `backfill ${number} interrupted`,
};

/** Return the marks of the range, each with its words: numbers and fixed ones only. */
function marksIn({ marks }, [from, to]) {
  const ended = ({ kind, at, until }) => until ?? (kind === "blind" ? to : at);
  return marks.filter((mark) => mark.kind in MARK_WORDS && ended(mark) > from && mark.at < to).map((mark) => ({ ...mark, end: ended(mark), words: MARK_WORDS[mark.kind](mark) }));
}

/** Return the shapes and texts that draw the marks over a plot of that width in pixels. */
function drawnMarks(marks, [from, to], width) {
  const labels = [];
  for (const { at, words } of marks) {
    const size = words.length * LETTER_PIXELS + 10;
    const left = Math.max(0, Math.min(((at - from) / (to - from)) * width, width - size));
    const last = labels.at(-1);
    if (last && left < last.right) last.more += 1;
    else labels.push({ words, left, right: left + size + 24, more: 0 });
  }
  return { shapes: marks.map(markShape), annotations: labels.map((label) => markLabel(label, width)) };
}

function markShape({ kind, at, end }) {
  if (end > at) return ground(at, end, "unknown", 0.22);
  const tint = colour(BAD_MARKS.has(kind) ? "bad" : "soft");
  return { type: "line", xref: "x", yref: "paper", x0: plotTime(at), x1: plotTime(at), y0: 0, y1: 1, line: { color: tint, width: 1, dash: "dot" } };
}

function markLabel({ words, left, more }, width) {
  const text = more ? `${words} +${more}` : words;
  return { text, x: left / width, xref: "paper", xanchor: "left", y: 1, yref: "paper", yanchor: "bottom", showarrow: false, borderpad: 0, font: { size: 11 } };
}

/** Colour the ground of all plots of a chart between two times. */
function ground(begin, end, tint, opacity) {
  return { type: "rect", xref: "x", yref: "paper", x0: plotTime(begin), x1: plotTime(end), y0: 0, y1: 1, layer: "below", fillcolor: colour(tint), opacity, line: { width: 0 } };
}

function showMarks(marks) {
  if (!changed("marks", [marks, today()])) return;
  byId("marks").hidden = marks.length === 0;
  byId("marks-count").textContent = count(marks.length);
  byId("marks-list").replaceChildren(...marks.toReversed().map(({ at, words, subject }) => make("li", {}, moment(at), " ", words, ...(subject == null ? [] : [" ", make("span", { class: "dim" }, logText(subject))]))));
}

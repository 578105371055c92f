// The range of the charts: chosen by radio buttons, kept in the address, so that a link or a reload shows it again.

const RANGE_WORDS = { "15m": "last 15 min", "1h": "last hour", "24h": "last 24 h", all: "whole log" };
const RANGE_SECONDS = { "15m": 900, "1h": 3600, "24h": 86400 };

function chosenRange() {
  const named = new URLSearchParams(location.hash.slice(1)).get("range");
  return named in RANGE_WORDS ? named : clock.live ? "1h" : "all";
}

function showRange() {
  document.querySelector(`#ranges input[value="${chosenRange()}"]`).checked = true;
}

/** Call `redraw` whenever another range is chosen, by key, pointer or address. */
function onRange(redraw) {
  byId("ranges").addEventListener("change", (event) => history.replaceState(null, "", `#range=${event.target.value}`));
  byId("ranges").addEventListener("change", redraw);
  window.addEventListener("hashchange", () => {
    showRange();
    redraw();
  });
}

/**
 * Return the first and the last moment of the charts, in seconds since 1970: the range, or, where the log is
 * younger, its whole time. It moves in steps too small to see.
 */
function spanOf(snapshot, range) {
  const last = (snapshot.live ? null : snapshot.source.last_at) ?? snapshot.made_at;
  const age = Math.max(last - (snapshot.source.first_at ?? last), 24 * snapshot.series[range].step_seconds);
  const seconds = Math.min(RANGE_SECONDS[range] ?? age, age);
  const step = Math.max(1, Math.floor(seconds / 500));
  const end = Math.ceil(last / step) * step;
  return [end - seconds - step, end];
}

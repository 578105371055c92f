// Numbers, durations and times as words. Durations are in seconds, lags in milliseconds; null is unknown.

const UNKNOWN = "–";
const DAY = 86400;
const wholeNumbers = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const fineNumbers = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const clockTimes = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayTimes = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const fullTimes = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
const PENDING_BOUND = 100000;

function count(value) {
  return value == null ? UNKNOWN : wholeNumbers.format(value);
}

/** Say how many wait: they are counted up to a bound. */
function pendingCount(value) {
  return count(value) + (value >= PENDING_BOUND ? "+" : "");
}

function counted(value, one, many) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** Say how long, with two units at most, e.g. "0.4 s", "40 s", "2 min", "3 h 5 min". */
function duration(seconds) {
  if (seconds == null) return UNKNOWN;
  if (seconds < 0) return `−${duration(-seconds)}`;
  if (seconds > 0 && seconds < 9.95) return `${fineNumbers.format(seconds)} s`;
  return wholeDuration(seconds);
}

/** The same for what a clock counts: whole seconds, cut and never rounded up. */
function wholeDuration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  const [size, unit, part, smaller] = whole < DAY ? [3600, "h", 60, "min"] : [DAY, "d", 3600, "h"];
  const rest = Math.floor((whole % size) / part);
  return `${count(Math.floor(whole / size))} ${unit}${rest ? ` ${rest} ${smaller}` : ""}`;
}

function milliseconds(value) {
  if (value == null) return UNKNOWN;
  if (Math.abs(value) < 10) return `${fineNumbers.format(value)} ms`;
  if (Math.abs(value) < 1000) return `${wholeNumbers.format(value)} ms`;
  return duration(value / 1000);
}

function bytes(value) {
  const power = value < 1e3 ? 0 : Math.min(3, Math.floor(Math.log10(value) / 3));
  return `${fineNumbers.format(value / 1000 ** power)} ${["B", "kB", "MB", "GB"][power]}`;
}

/** Name a time in the reader's zone; the day too, unless it is within half a day. */
function timeOf(seconds) {
  const near = Math.abs(now() - seconds) < DAY / 2;
  return (near ? clockTimes : dayTimes).format(seconds * 1000);
}

/** Join words as English does. */
function listed(words) {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

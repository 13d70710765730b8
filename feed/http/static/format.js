/** How values are put into words: times, salaries, numbers, links. */

const NUMBER = new Intl.NumberFormat();
const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "always", style: "short" });
const STEPS = [
  ["year", 31557600],
  ["month", 2629800],
  ["week", 604800],
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
];

/** A whole number with separators. */
export function count(value) {
  return NUMBER.format(value);
}

/** "1 posting", "3 postings". */
export function plural(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** How long ago a time (milliseconds) was: "just now", "2 min. ago"; "" for what is no time. */
export function ago(time, now) {
  if (Number.isNaN(time)) return "";
  const seconds = (time - now) / 1000;
  if (Math.abs(seconds) < 45) return "just now";
  const [unit, size] = STEPS.find(([, length]) => Math.abs(seconds) >= length) ?? ["minute", 60];
  return RELATIVE.format(Math.trunc(seconds / size) || Math.sign(seconds), unit);
}

/** A duration in milliseconds as "12 s", "3 min", "2 h". */
export function duration(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

/** A date and time in full, in the reader's locale; "" for what is no time. */
export function moment(text) {
  const time = Date.parse(text ?? "");
  return Number.isNaN(time) ? "" : DATE.format(time);
}

/** "$120K – $150K / year", or "" without a salary. */
export function salary({ salary_min: low, salary_max: high, currency, salary_period: period }) {
  if (low === null && high === null) return "";
  if (low === undefined && high === undefined) return "";
  const least = Number(low ?? high);
  const most = Number(high ?? low);
  const format = money(currency, Math.max(least, most));
  // Intl's own formatRange takes a hundred times as long, which a burst of postings would feel.
  let text = least === most ? format.format(least) : `${format.format(least)} – ${format.format(most)}`;
  if (low === null || low === undefined) text = `up to ${text}`;
  else if (high === null || high === undefined) text = `from ${text}`;
  if (currency && !format.resolvedOptions().currency) text = `${text} ${currency}`;
  return period ? `${text} / ${period}` : text;
}

const MONEY = new Map();
const MOST_MONEY = 100;

function money(currency, size) {
  const compact = size >= 10000;
  const key = `${currency ?? ""} ${compact}`;
  let format = MONEY.get(key);
  if (format) return format;
  const options = compact ? { notation: "compact", maximumFractionDigits: 1 } : { maximumFractionDigits: 2 };
  try {
    format = new Intl.NumberFormat(undefined, currency ? { ...options, style: "currency", currency } : options);
  } catch {
    // Not an ISO 4217 code: the number stands alone and the code goes behind it.
    format = new Intl.NumberFormat(undefined, options);
  }
  if (MONEY.size < MOST_MONEY) MONEY.set(key, format);
  return format;
}

/** The URL of a posting as a URL object if a browser may safely go there, else null. */
export function link(text) {
  try {
    const url = new URL(text);
    return url.protocol === "https:" || url.protocol === "http:" ? url : null;
  } catch {
    return null;
  }
}

/** One or two letters that stand for a company. */
export function monogram(name) {
  const words = String(name ?? "").match(/[\p{L}\p{N}\p{Extended_Pictographic}]+/gu) ?? [];
  const first = (word) => [...word][0] ?? "";
  return (words.length > 1 ? first(words[0]) + first(words[1]) : first(words[0] ?? "")).toLocaleUpperCase() || "–";
}

/** A hue (0 to 359) that belongs to a company. */
export function hue(name) {
  let hash = 2166136261;
  for (const letter of String(name ?? "")) hash = Math.imul(hash ^ letter.codePointAt(0), 16777619);
  return (hash >>> 0) % 360;
}

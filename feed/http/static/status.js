/** What the connection does, in words: live, replaying, reconnecting, draining, loading, offline, refused, locked; and how far behind. */

import { count, duration, plural } from "./format.js";

const RENDER_MS = 250;
const LAGS = 9;
/** A measured lag is shown this long; after it, silence means there is nothing to be behind of. */
const LAG_FRESH_MS = 60000;
const EXACT_MS = 20;

const LABELS = {
  loading: "Loading",
  replaying: "Replaying",
  live: "Live",
  reconnecting: "Reconnecting",
  draining: "Restarting",
  offline: "Offline",
  refused: "Stopped",
  locked: "Signed out",
};
const SPOKEN = { draining: "Server is restarting" };
const REASONS = {
  unavailable: "database unreachable",
  slow: "fell behind",
  full: "server full",
  rate: "too many at once",
  max_age: "moving to a fresh connection",
  expired: "your access has expired",
  revoked: "your access was revoked",
  kicked: "ended by an operator",
  silent: "connection went silent",
};

/** Keeps the state and writes it into its element, a few times a second at most; `changed(state, text)` is told of each new state. */
export class Status {
  #element;
  #parts = {};
  #changed;
  #state = "loading";
  #detail = {};
  #attempts = 0;
  #farewell = false;
  #lags = [];
  #lagged = 0;
  #position = 0;
  #head = 0;
  #replayed = 0;
  #since = Date.now();
  #beat = 0;
  #last = 0;
  #timer = 0;
  #renderedAt = 0;
  #reconnects = 0;

  constructor(element, changed) {
    this.#element = element;
    this.#changed = changed;
    for (const part of element.querySelectorAll("[data-part]")) this.#parts[part.dataset.part] = part;
    setInterval(() => this.#render(), 1000);
    this.#render();
  }

  get state() {
    return this.#state;
  }

  /** Enter a state; detail: {reason, until}, `until` in milliseconds since the epoch. */
  set(state, detail = {}) {
    if (state === "live") this.#attempts = 0;
    if (state === "replaying" && this.#state !== "replaying") this.#replayed = this.#head = 0;
    this.#farewell = Boolean(detail.reason && detail.until);
    this.#enter(state, detail);
  }

  /** The connection broke and is being tried again; a farewell stands until its time is up. */
  interrupted() {
    if (this.#farewell && Date.now() < this.#detail.until) {
      this.#farewell = false;
      return;
    }
    this.#attempts += 1;
    if (this.#attempts === 1) this.#reconnects += 1;
    if (!navigator.onLine) this.#enter("offline", {});
    else if (this.#state !== "draining" || this.#attempts > 2) this.#enter("reconnecting", {});
  }

  /** An event came: the bounds of its lag (or null), its position, and when. */
  event(lag, position, came) {
    this.#last = came;
    this.#position = position;
    this.#replayed += 1;
    if (lag && this.#state === "live") {
      if (came - this.#lagged > LAG_FRESH_MS) this.#lags = [];
      this.#lags = [...this.#lags.slice(1 - LAGS), lag];
      this.#lagged = came;
    }
    this.#schedule();
  }

  heartbeat(came) {
    this.#beat = came;
  }

  /** Where the log's head was found while replaying. */
  head(head, position) {
    this.#head = head;
    this.#position = position;
    this.#schedule();
  }

  /** Rows [name, value] for whoever wants to know more. */
  report(cursor, offset) {
    const now = Date.now();
    const since = (time) => (time ? (now - time < 1000 ? "just now" : `${duration(now - time)} ago`) : "none yet");
    return [
      ["State", `${[LABELS[this.#state], this.#words()].filter(Boolean).join(", ")}`],
      ["Since", since(this.#since)],
      ["Position", cursor || "unknown"],
      ["Last event", since(this.#last)],
      ["Last heartbeat", since(this.#beat)],
      ["Lag, median of recent", this.#lags.length > 0 ? behind(median(this.#lags)) : "not measured yet"],
      ["Clock difference", offset ? difference(offset) : "unknown"],
      ["Reconnects", count(this.#reconnects)],
    ];
  }

  #enter(state, detail) {
    const fresh = state !== this.#state;
    this.#state = state;
    this.#detail = detail;
    if (fresh) {
      this.#since = Date.now();
      this.#render();
      this.#changed(state, [SPOKEN[state] ?? LABELS[state], this.#words()].filter(Boolean).join(", "));
    }
    this.#schedule();
  }

  #schedule() {
    if (this.#timer) return;
    const wait = Math.max(0, this.#renderedAt + RENDER_MS - Date.now());
    this.#timer = setTimeout(() => this.#render(), wait);
  }

  #render() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#renderedAt = Date.now();
    this.#element.dataset.state = this.#state;
    set(this.#parts.label, LABELS[this.#state]);
    set(this.#parts.detail, this.#words());
  }

  #words() {
    const { reason, until } = this.#detail;
    const wait = until ? Math.ceil((until - Date.now()) / 1000) : 0;
    const again = wait > 0 ? `in ${wait} s` : "";
    switch (this.#state) {
      case "live":
        return this.#lags.length > 0 && Date.now() - this.#lagged < LAG_FRESH_MS ? behind(median(this.#lags)) : "up to date";
      case "replaying":
        if (this.#head > this.#position) return `${plural(this.#head - this.#position, "event")} behind`;
        return this.#replayed > 0 ? `${count(this.#replayed)} so far` : "";
      case "draining":
        return again ? `back ${again}` : "back any moment";
      case "reconnecting":
        if (REASONS[reason]) return [REASONS[reason], again && `back ${again}`].filter(Boolean).join(", ");
        return again || (this.#attempts > 1 ? `attempt ${count(this.#attempts)}` : "");
      case "offline":
        return again ? `trying again ${again}` : "trying again";
      case "refused":
        return "see the filter";
      default:
        return "";
    }
  }
}

/** Bounds of a lag as a claim that holds: a number when they are close, else no more than they allow. */
export function behind({ low, high }) {
  if (high - low <= EXACT_MS) return high < 1000 ? `${Math.round((low + high) / 2)} ms behind` : `${seconds((low + high) / 2)} behind`;
  if (high <= 100) return "under 0.1 s behind";
  if (high <= 500) return "under 0.5 s behind";
  if (high <= 1000) return "under a second behind";
  return low >= 1000 ? `about ${seconds((low + high) / 2)} behind` : `under ${Math.ceil(high / 1000)} s behind`;
}

function seconds(milliseconds) {
  return milliseconds < 10000 ? `${(milliseconds / 1000).toFixed(1)} s` : duration(milliseconds);
}

function median(lags) {
  return [...lags].sort((a, b) => a.low + a.high - b.low - b.high)[Math.floor(lags.length / 2)];
}

function difference({ low, high }) {
  if (low === 0 && high === 0) return "none, same machine";
  return `${Math.round((low + high) / 2)} ms ± ${Math.round((high - low) / 2)} ms`;
}

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

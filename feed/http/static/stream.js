/** One EventSource and what can happen to it; resumes by itself, notices when it has died in silence. */

/** Heartbeats come every 15 s; after two missed ones the connection is taken for dead. */
const SILENCE_MS = 40000;
const WATCH_MS = 5000;
const CHANGES = ["posted", "updated", "closed"];

/**
 * Follows one stream URL.
 *
 * The listener is told: opened(), changed(type, data, cursor), synced(data), heartbeat(data), reset(data), goodbye(data),
 * interrupted() when the browser is coming back by itself, refused() when it has given up, silent() before a dead one is reopened.
 */
export class Stream {
  #listener;
  #source = null;
  #url = "";
  #cursor = "";
  #heard = 0;
  #watch = 0;

  constructor(listener) {
    this.#listener = listener;
    addEventListener("online", () => this.#hurry());
    addEventListener("pageshow", (event) => event.persisted && this.#hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.#check());
  }

  /** The last id seen, `<epoch>.<position>`. */
  get cursor() {
    return this.#cursor;
  }

  /** When anything was last heard, in milliseconds since the epoch. */
  get heard() {
    return this.#heard;
  }

  /** Open a stream URL that starts after the given id. */
  open(url, cursor) {
    this.close();
    this.#url = url;
    this.#cursor = cursor;
    this.#heard = Date.now();
    this.#watch = setInterval(() => this.#check(), WATCH_MS);
    this.#connect(url);
  }

  /** Open the same stream again, after the last id seen. */
  reopen() {
    const url = new URL(this.#url, location.origin);
    url.searchParams.set("last_event_id", this.#cursor);
    this.open(url.pathname + url.search, this.#cursor);
  }

  close() {
    clearInterval(this.#watch);
    this.#source?.close();
    this.#source = null;
  }

  #connect(url) {
    const source = new EventSource(url);
    this.#source = source;
    const on = (type, act) =>
      source.addEventListener(type, (event) => {
        if (source !== this.#source) return;
        this.#heard = Date.now();
        if (event.lastEventId) this.#cursor = event.lastEventId;
        const data = parse(event.data);
        if (data) act(data);
      });
    for (const type of CHANGES) on(type, (data) => this.#listener.changed(type, data, this.#cursor));
    for (const type of ["synced", "heartbeat", "reset", "goodbye"]) on(type, (data) => this.#listener[type](data));
    source.addEventListener("open", () => {
      if (source !== this.#source) return;
      this.#heard = Date.now();
      this.#listener.opened();
    });
    source.addEventListener("error", () => {
      if (source !== this.#source) return;
      if (source.readyState !== EventSource.CLOSED) {
        // The browser is at it: its next answer is what the silence is measured from.
        this.#heard = Date.now();
        this.#listener.interrupted();
      } else {
        this.close();
        this.#listener.refused();
      }
    });
  }

  #check() {
    if (!this.#source || Date.now() - this.#heard < SILENCE_MS) return;
    this.#listener.silent();
    this.reopen();
  }

  #hurry() {
    if (this.#source && this.#source.readyState !== EventSource.OPEN) this.reopen();
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    console.error("feed: an event that is not JSON was left out", text.slice(0, 200));
    return null;
  }
}

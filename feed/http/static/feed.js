/** The life of one filter: the newest postings, then the stream from exactly there, and history on demand. */

import { Backoff, pause } from "./backoff.js";
import { Outcome } from "./jobs.js";
import { Stream } from "./stream.js";

const PAGE = 50;
/** Events kept while the snapshot after a reset is on its way; beyond it everything starts anew. */
const MOST_WAITING = 10000;
/** A replay longer than this is worth asking how far the head is. */
const REPLAY_NOTICE_MS = 500;

/** The number in `<epoch>.<position>`. */
export function position(cursor) {
  return Number(cursor.slice(cursor.lastIndexOf(".") + 1));
}

/**
 * Owns the postings, the stream and the requests of the current filter.
 *
 * The listener is told: replaced(ids, about) (how many match, if that is more than were loaded), arrived(id, type), changed(id, type), appended(ids), history(state, problem?),
 * problem(problem), recovered(), and through `status` what the connection does.
 */
export class Feed {
  #api;
  #jobs;
  #clock;
  #status;
  #listener;
  #stream;
  #backoff = new Backoff();
  #query = null;
  #next = null;
  #abort = new AbortController();
  #waiting = null;
  #paging = false;
  #replayTimer = 0;

  constructor({ api, jobs, clock, status, listener }) {
    this.#api = api;
    this.#jobs = jobs;
    this.#clock = clock;
    this.#status = status;
    this.#listener = listener;
    this.#stream = new Stream(this);
  }

  /** The id of the last event seen. */
  get cursor() {
    return this.#stream.cursor;
  }

  /** When the stream was last heard, in milliseconds since the epoch. */
  get heard() {
    return this.#stream.heard;
  }

  /** Follow a filter from now on; everything of the one before is dropped. */
  async follow(query) {
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#query = query;
    this.#stream.close();
    this.#settle();
    this.#waiting = null;
    this.#next = null;
    this.#paging = false;
    this.#backoff.reset();
    this.#status.set("loading");
    await this.#quietly(async (signal) => {
      const page = await this.#insist((s) => this.#api.page(query, { limit: PAGE, count: true, signal: s }), signal);
      this.#replace(page);
      this.#stream.open(page.stream.url, page.stream.last_event_id);
    });
  }

  /** Load the next older page; one at a time. */
  async older() {
    if (this.#paging || this.#next === null) return;
    this.#paging = true;
    this.#listener.history("loading");
    await this.#quietly(async (signal) => {
      try {
        const page = await this.#api.page(this.#query, { limit: PAGE, after: this.#next, signal });
        this.#next = page.next;
        const { added, changed } = this.#jobs.add(page.jobs);
        this.#paging = false;
        this.#listener.appended(added);
        for (const id of changed) this.#listener.changed(id, "updated");
        this.#listener.history(this.#next === null ? "end" : "more");
      } catch (problem) {
        signal.throwIfAborted();
        this.#paging = false;
        this.#listener.history("failed", problem);
      }
    });
  }

  /** Stop paging: what is below was let go. */
  forgetHistory() {
    this.#next = null;
  }

  // What the stream tells.

  opened() {
    this.#status.set("replaying");
    clearTimeout(this.#replayTimer);
    this.#replayTimer = setTimeout(() => this.#measureReplay(), REPLAY_NOTICE_MS);
  }

  changed(type, data, cursor) {
    const came = Date.now();
    if (type !== "closed") {
      const at = Date.parse(data.updated_at);
      this.#clock.heard(at, came);
      this.#status.event(this.#clock.lag(at, came), position(cursor), came);
    } else {
      this.#status.event(null, position(cursor), came);
    }
    if (this.#waiting === null) this.#apply(type, data);
    else if (this.#waiting.length < MOST_WAITING) this.#waiting.push([type, data, cursor]);
    else this.follow(this.#query);
  }

  synced() {
    this.#live();
  }

  heartbeat(data) {
    const came = Date.now();
    this.#clock.heard(Date.parse(data.at), came);
    this.#status.heartbeat(came);
    this.#live();
  }

  async reset() {
    const again = this.#waiting !== null;
    this.#waiting = [];
    if (again) return;
    await this.#quietly(async (signal) => {
      const page = await this.#insist((s) => this.#api.page(this.#query, { limit: PAGE, count: true, signal: s }), signal);
      const waiting = this.#waiting;
      this.#waiting = null;
      this.#replace(page);
      const from = page.stream.last_event_id;
      for (const [type, data, cursor] of waiting) {
        if (epoch(cursor) !== epoch(from) || position(cursor) > position(from)) this.#apply(type, data);
      }
    });
  }

  goodbye(data) {
    this.#settle();
    this.#status.set(data.reason === "drain" ? "draining" : "reconnecting", {
      reason: data.reason,
      until: Date.now() + data.retry_ms,
    });
  }

  interrupted() {
    this.#settle();
    this.#status.interrupted();
  }

  silent() {
    this.#settle();
    this.#status.set("reconnecting", { reason: "silent" });
  }

  /** The browser has given up: learn why from the list, then go on after the last event seen. */
  async refused() {
    this.#settle();
    this.#status.interrupted();
    await this.#quietly(async (signal) => {
      await pause(this.#announceWait("reconnecting"), signal);
      await this.#insist((s) => this.#api.page(this.#query, { limit: 1, signal: s }), signal);
      this.#stream.reopen();
    });
  }

  #live() {
    this.#settle();
    this.#backoff.reset();
    this.#status.set("live");
  }

  #apply(type, data) {
    const wantClosed = this.#query.all("event").includes("closed");
    const outcome = this.#jobs.apply(type, data, wantClosed);
    if (outcome === Outcome.ARRIVED) this.#listener.arrived(data.id, type);
    else if (outcome === Outcome.CHANGED) this.#listener.changed(data.id, type);
  }

  #replace(page) {
    this.#jobs.clear();
    this.#next = page.next;
    this.#paging = false;
    this.#listener.replaced(this.#jobs.add(page.jobs).added, page.next === null ? null : page.about);
    this.#listener.history(page.next === null ? "end" : "more");
  }

  #settle() {
    clearTimeout(this.#replayTimer);
  }

  #announceWait(state) {
    const wait = this.#backoff.next();
    this.#status.set(state, { until: Date.now() + wait });
    return wait;
  }

  /** Ask until there is an answer, waiting longer each time; a refusal that a retry cannot mend is raised. */
  async #insist(ask, signal) {
    for (;;) {
      try {
        const answer = await ask(signal);
        this.#listener.recovered();
        return answer;
      } catch (problem) {
        signal.throwIfAborted();
        if (!problem.passing) throw problem;
        this.#listener.problem(problem);
        await pause(this.#announceWait("offline"), signal);
      }
    }
  }

  /** Run for the current filter; when it has been left, end in silence. */
  async #quietly(act) {
    const { signal } = this.#abort;
    try {
      await act(signal);
    } catch (problem) {
      if (signal.aborted) return;
      if (problem.name !== "Problem") throw problem;
      this.#stream.close();
      this.#status.set(problem.status === 401 ? "locked" : "refused");
      this.#listener.problem(problem);
    }
  }

  #measureReplay() {
    this.#quietly(async (signal) => {
      try {
        const page = await this.#api.page(this.#query, { limit: 1, signal });
        this.#status.head(position(page.stream.last_event_id), position(this.cursor));
      } catch (problem) {
        // How far it is stays unknown; the replay itself goes on.
        if (problem.name !== "Problem") throw problem;
      }
    });
  }
}

function epoch(cursor) {
  return cursor.slice(0, cursor.lastIndexOf("."));
}

/** Tells screen readers what happened, in summaries. */

import { plural } from "./format.js";

const GATHER_MS = 2000;
const APART_MS = 8000;

/** Counts what happens and writes one sentence into a polite live region, seldom enough to listen to. */
export class Announcer {
  #region;
  #counts = { arrived: 0, updated: 0, closed: 0 };
  #timer = 0;
  #spoke = 0;

  constructor(region) {
    this.#region = region;
  }

  /** Count one of "arrived", "updated", "closed" towards the next summary. */
  count(kind) {
    this.#counts[kind] += 1;
    if (this.#timer) return;
    const wait = Math.max(GATHER_MS, this.#spoke + APART_MS - Date.now());
    this.#timer = setTimeout(() => this.#sum(), wait);
  }

  /** Say something at once. */
  say(text) {
    this.#region.textContent = text;
  }

  /** Forget what was counted. */
  clear() {
    this.#counts = { arrived: 0, updated: 0, closed: 0 };
  }

  #sum() {
    this.#timer = 0;
    const { arrived, updated, closed } = this.#counts;
    this.clear();
    const parts = [];
    if (arrived) parts.push(plural(arrived, "new posting"));
    if (updated) parts.push(`${plural(updated, "posting")} updated`);
    if (closed) parts.push(`${plural(closed, "posting")} closed`);
    if (parts.length === 0) return;
    this.#spoke = Date.now();
    this.say(`${parts.join(", ")}.`);
  }
}

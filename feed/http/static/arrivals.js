/** New postings on their way to the list: shown at once, or held back while someone reads. */

import { count, plural } from "./format.js";

/** Held back at most; beyond it the list is fetched anew instead. */
const MOST_HELD = 5000;
/** After a large batch the next one waits a little, so that a burst leaves time for the reader's own input. */
const LARGE = 20;
const REST_MS = 200;
const HIDDEN_MS = 1000;

/**
 * Collects [id, type] pairs and hands them to `show`, newest first, once a frame.
 *
 * While `reading()` is true or the reader has paused, they wait behind the pill; `overflow()` is called instead of `show` when
 * more came than are kept.
 */
export class Arrivals {
  #pill;
  #reading;
  #show;
  #overflow;
  #held = [];
  #over = false;
  #paused = false;
  #frame = 0;
  #timer = 0;
  #restUntil = 0;

  constructor(pill, { reading, show, overflow }) {
    this.#pill = pill;
    this.#reading = reading;
    this.#show = show;
    this.#overflow = overflow;
    document.addEventListener("visibilitychange", () => this.#again());
  }

  get paused() {
    return this.#paused;
  }

  get waiting() {
    return this.#held.length;
  }

  add(id, type) {
    if (this.#held.length >= MOST_HELD && (this.#paused || this.#reading())) this.#over = true;
    else this.#held.push([id, type]);
    this.#schedule();
  }

  /** One that waits has left the filter before anyone saw it. */
  drop(id) {
    this.#held = this.#held.filter(([held]) => held !== id);
    this.#schedule();
  }

  pause(on) {
    this.#paused = on;
    this.#schedule();
  }

  /** Show what waits, now. */
  reveal() {
    const over = this.#over;
    const held = this.#held;
    this.clear();
    if (over) this.#overflow();
    else if (held.length > 0) this.#show(held.reverse());
  }

  clear() {
    this.#held = [];
    this.#over = false;
    this.#render();
  }

  /** The reader may have come back to the top: see whether anything may be shown. */
  nudge() {
    if (this.#held.length > 0 || this.#over) this.#schedule();
  }

  #again() {
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#timer);
    this.#frame = this.#timer = 0;
    this.#schedule();
  }

  #schedule() {
    if (this.#frame || this.#timer) return;
    // A hidden page gets no frames, and nobody looks.
    const wait = document.hidden ? HIDDEN_MS : this.#restUntil - performance.now();
    if (wait > 0) this.#timer = setTimeout(() => this.#flush(), wait);
    else this.#frame = requestAnimationFrame(() => this.#flush());
  }

  #flush() {
    this.#frame = this.#timer = 0;
    if (this.#paused || this.#reading()) {
      this.#render();
      return;
    }
    const large = this.#held.length > LARGE;
    this.reveal();
    if (large) this.#restUntil = performance.now() + REST_MS;
  }

  #render() {
    const waiting = this.#held.length;
    this.#pill.hidden = waiting === 0;
    if (waiting === 0) return;
    const text = this.#over ? `${count(waiting)}+ new postings` : plural(waiting, "new posting");
    const label = this.#pill.querySelector("[data-part=label]");
    if (label.textContent !== text) label.textContent = text;
  }
}
